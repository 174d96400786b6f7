//! The partitions of the cluster, as `sinfo` lists them.

use std::process::Command;

use super::commands::call;
use super::request::JobRequest;
use crate::format::counted;
use crate::run::error::RunError;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partition {
    pub name: String,
    /// Whether it accepts jobs.
    pub is_up: bool,
    pub nodes: usize,
    pub idle_nodes: usize,
    /// GPUs of its largest node; 0 without GPUs.
    pub gpus_per_node: usize,
    pub cpus_per_node: usize,
    /// Time limit in Slurm's format.
    pub time_limit: String,
}

/// All partitions, including hidden ones.
///
/// # Errors
/// [`RunError::NoSlurm`], [`RunError::Slurm`].
pub fn partitions() -> Result<Vec<Partition>, RunError> {
    let text = call(
        "sinfo",
        Command::new("sinfo").args(["--all", "--noheader", "--format=%R|%a|%F|%G|%c|%l"]),
    )?;
    Ok(parse(&text))
}

/// Parses `sinfo`'s output, which has a line per kind of node in a partition.
fn parse(text: &str) -> Vec<Partition> {
    let mut found: Vec<Partition> = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [name, available, nodes, gres, cpus, time_limit] = fields[..] else {
            continue;
        };
        // Counts of allocated, idle, other and all nodes.
        let nodes: Vec<usize> = nodes
            .split('/')
            .filter_map(|count| count.parse().ok())
            .collect();
        let [_, idle, _, all] = nodes[..] else {
            continue;
        };
        let index = found
            .iter()
            .position(|other| other.name == name)
            .unwrap_or_else(|| {
                let time_limit = time_limit.to_owned();
                found.push(Partition {
                    name: name.to_owned(),
                    is_up: available == "up",
                    time_limit,
                    ..Partition::default()
                });
                found.len() - 1
            });
        let partition = &mut found[index];
        partition.nodes += all;
        partition.idle_nodes += idle;
        partition.gpus_per_node = partition.gpus_per_node.max(gpus(gres));
        // `64+` if nodes differ.
        partition.cpus_per_node = partition
            .cpus_per_node
            .max(cpus.trim_end_matches('+').parse().unwrap_or(0));
    }
    found
}

/// Counts the GPUs in `gpu:h100:8(S:0-1),nvme:1`; 0 for `(null)`.
fn gpus(gres: &str) -> usize {
    let without_sockets = |item: &str| item.split('(').next().unwrap_or_default().to_owned();
    let items = gres
        .split(',')
        .map(without_sockets)
        .filter(|item| item == "gpu" || item.starts_with("gpu:"));
    items
        .map(|item| {
            item.rsplit(':')
                .next()
                .and_then(|count| count.parse().ok())
                .unwrap_or(1)
        })
        .sum()
}

impl Partition {
    /// Checks that the partition has the resources of a job.
    ///
    /// # Errors
    /// The option that requests too much, and what to request.
    pub fn check(found: &[Self], request: &JobRequest) -> Result<(), String> {
        let names = || {
            found
                .iter()
                .map(|partition| partition.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let Some(own) = found
            .iter()
            .find(|partition| partition.name == request.partition)
        else {
            return Err(format!(
                "--slurm: there is no partition `{}`: use one of {}",
                request.partition,
                names()
            ));
        };
        let has = |what: String, option: &str| {
            Err(format!(
                "{option}: partition {} has {what}: ask for fewer",
                own.name
            ))
        };
        match request {
            JobRequest { nodes, .. } if *nodes > own.nodes => {
                has(counted(own.nodes, "node"), "--nodes")
            }
            JobRequest {
                gpus_per_node: 1.., ..
            } if own.gpus_per_node == 0 => Err(format!(
                "partition {} has no GPUs: name another with --slurm, or add --cpu",
                own.name
            )),
            JobRequest { gpus_per_node, .. } if *gpus_per_node > own.gpus_per_node => has(
                format!("{} on a node", counted(own.gpus_per_node, "GPU")),
                "--gpus-per-node",
            ),
            _ => Ok(()),
        }
    }

    /// `3 of 4 nodes free, 8 GPUs each`.
    pub fn described(&self) -> String {
        let state = if self.is_up { "" } else { ", not up" };
        let each = match self.gpus_per_node {
            0 => format!("{} each, no GPUs", counted(self.cpus_per_node, "CPU")),
            gpus => format!("{} each", counted(gpus, "GPU")),
        };
        format!(
            "{} of {} free, {each}{state}",
            self.idle_nodes,
            counted(self.nodes, "node")
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SINFO: &str = "gpu|up|1/2/1/4|gpu:h100:8(S:0-1)|128|2-00:00:00\n\
                         gpu|up|0/1/0/1|gpu:a100:4,nvme:1|64+|2-00:00:00\n\
                         cpu|down|0/3/0/3|(null)|32|infinite\nnonsense\n";

    #[test]
    fn lines_of_sinfo() {
        let found = parse(SINFO);
        let described: Vec<String> = found
            .iter()
            .map(|partition| format!("{}: {}", partition.name, partition.described()))
            .collect();
        assert_eq!(
            described,
            [
                "gpu: 3 of 5 nodes free, 8 GPUs each",
                "cpu: 3 of 3 nodes free, 32 CPUs each, no GPUs, not up"
            ]
        );
        let check = |gres: &str, expected| assert_eq!(gpus(gres), expected, "{gres}");
        check("(null)", 0);
        check("gpu", 1);
        check("gpu:2", 2);
        check("gpu:a100:4,gpu:h100:2", 6);
        check("mps:100,gpumem:5", 0);
    }

    #[test]
    fn more_than_a_partition_has_is_refused() {
        let request = |partition: &str, nodes, gpus_per_node| JobRequest {
            partition: partition.to_owned(),
            nodes,
            gpus_per_node,
            ranks: nodes * gpus_per_node.max(1),
            time: None,
        };
        let check = |request: JobRequest, expected: Option<&str>| {
            assert_eq!(
                Partition::check(&parse(SINFO), &request).err().as_deref(),
                expected
            );
        };
        check(request("gpu", 5, 8), None);
        check(request("cpu", 3, 0), None);
        check(
            request("nope", 1, 1),
            Some("--slurm: there is no partition `nope`: use one of gpu, cpu"),
        );
        check(
            request("gpu", 6, 1),
            Some("--nodes: partition gpu has 5 nodes: ask for fewer"),
        );
        check(
            request("gpu", 1, 9),
            Some("--gpus-per-node: partition gpu has 8 GPUs on a node: ask for fewer"),
        );
        check(
            request("cpu", 1, 1),
            Some("partition cpu has no GPUs: name another with --slurm, or add --cpu"),
        );
    }
}
