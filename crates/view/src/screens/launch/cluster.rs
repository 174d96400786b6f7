//! The part of a Slurm cluster that a new run asks for: partition, nodes, GPUs or ranks on each, time limit.

use crate::run::{JobRequest, Partition};

/// The most ranks on a node without GPUs that the form offers.
const MAX_RANKS: usize = 64;

/// The partitions of the cluster, or why they are unknown; empty where there is no Slurm.
pub type Partitions = Result<Vec<Partition>, String>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub partition: String,
    /// The partition has no GPUs.
    pub on_cpus: bool,
    pub nodes: usize,
    /// GPUs, or ranks on CPUs.
    pub per_node: usize,
    /// Empty: the partition's default.
    pub time: String,
}

impl Cluster {
    pub fn from_partition(partition: &Partition) -> Self {
        Self {
            partition: partition.name.clone(),
            on_cpus: partition.gpus_per_node == 0,
            nodes: 1,
            per_node: 1,
            time: String::new(),
        }
    }

    /// The part of `grpo-tui train`'s arguments.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "--slurm".to_owned(),
            self.partition.clone(),
            format!("--nodes={}", self.nodes),
            match self.on_cpus {
                true => format!("--ranks={}", self.nodes * self.per_node),
                false => format!("--gpus-per-node={}", self.per_node),
            },
        ];
        arguments.extend(self.on_cpus.then(|| "--cpu".to_owned()));
        arguments.extend((!self.time.is_empty()).then(|| format!("--time={}", self.time)));
        arguments
    }

    fn request(&self) -> JobRequest {
        JobRequest {
            partition: self.partition.clone(),
            nodes: self.nodes,
            gpus_per_node: if self.on_cpus { 0 } else { self.per_node },
            ranks: self.nodes * self.per_node,
            time: Some(self.time.clone()).filter(|time| !time.is_empty()),
        }
    }

    /// `gpu: 2 nodes x 4 GPUs`.
    pub fn described(&self) -> String {
        format!("{}: {}", self.partition, self.request().described())
    }

    pub fn problem(&self, partitions: &Partitions) -> Option<String> {
        let fits = |found: &Vec<Partition>| Partition::check(found, &self.request());
        self.request()
            .check()
            .and_then(|()| partitions.as_ref().map_or(Ok(()), fits))
            .err()
    }

    pub fn step_nodes(&mut self, own: Option<&Partition>, by: isize) {
        self.nodes = stepped(self.nodes, own.map_or(1, |partition| partition.nodes), by);
    }

    pub fn step_per_node(&mut self, own: Option<&Partition>, by: isize) {
        let most = own.map_or(1, |partition| match partition.gpus_per_node {
            0 => partition.cpus_per_node.clamp(1, MAX_RANKS),
            gpus => gpus,
        });
        self.per_node = stepped(self.per_node, most, by);
    }
}

/// The next number from 1 to `most`, wrapping around.
fn stepped(now: usize, most: usize, by: isize) -> usize {
    (now as isize - 1 + by).rem_euclid(most.max(1) as isize) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_asks_for_what_the_partition_has() {
        let gpus = Partition {
            name: "gpu".to_owned(),
            nodes: 2,
            gpus_per_node: 4,
            ..Partition::default()
        };
        let mut cluster = Cluster::from_partition(&gpus);
        cluster.step_nodes(Some(&gpus), 1);
        cluster.step_per_node(Some(&gpus), -1);
        cluster.time = "2:00:00".to_owned();
        let expected = [
            "--slurm",
            "gpu",
            "--nodes=2",
            "--gpus-per-node=4",
            "--time=2:00:00",
        ];
        assert_eq!(cluster.arguments(), expected);
        assert_eq!(
            (
                cluster.described().as_str(),
                cluster.problem(&Ok(vec![gpus.clone()]))
            ),
            ("gpu: 2 nodes x 4 GPUs", None)
        );
        cluster.step_nodes(Some(&gpus), 1);
        assert_eq!(cluster.nodes, 1);
        let problem = Cluster {
            time: "soon".to_owned(),
            ..cluster
        }
        .problem(&Err(String::new()));
        assert!(problem.is_some_and(|problem| problem.contains("not a valid Slurm time")));
        let cpus = Partition {
            name: "cpu".to_owned(),
            nodes: 1,
            cpus_per_node: 2,
            ..Partition::default()
        };
        let mut cluster = Cluster::from_partition(&cpus);
        cluster.step_per_node(Some(&cpus), 1);
        assert_eq!(
            cluster.arguments(),
            ["--slurm", "cpu", "--nodes=1", "--ranks=2", "--cpu"]
        );
        assert!(
            cluster
                .problem(&Ok(Vec::new()))
                .is_some_and(|problem| problem.contains("there is no partition `cpu`"))
        );
    }
}
