//! A run's request to Slurm, and its job script.

use serde::{Deserialize, Serialize};

use crate::format::counted;

pub(super) const SCRIPT_FILE: &str = "job.sh";
/// Exit code of a run that made progress before a signal from Slurm and should be started again.
pub const TO_BE_CONTINUED: u8 = 75;
/// Time between Slurm's signal and the time limit, in seconds.
const LEAD_SECONDS: u64 = 300;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRequest {
    pub partition: String,
    pub nodes: usize,
    /// 0 computes on CPUs.
    pub gpus_per_node: usize,
    /// Ranks per node.
    pub ranks: usize,
    /// Time limit in Slurm's format; `None`: the partition's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

impl JobRequest {
    /// Validates the values that are inserted into the job script.
    ///
    /// # Errors
    /// The option, what is wrong with it, and what to write.
    pub fn check(&self) -> Result<(), String> {
        let Self {
            partition,
            nodes,
            gpus_per_node,
            ranks,
            time,
        } = self;
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.@+:".contains(letter);
        if partition.is_empty() || partition.starts_with('-') || !partition.chars().all(is_name) {
            return Err(format!(
                "--slurm: `{partition}` is not a partition name; `sinfo` lists them"
            ));
        }
        if *nodes == 0 || *ranks == 0 || !ranks.is_multiple_of(*nodes) {
            return Err(format!(
                "{} on {}: each node takes the same number; set it with --gpus-per-node, or on CPUs with --ranks",
                counted(*ranks, "rank"),
                counted(*nodes, "node")
            ));
        }
        if *gpus_per_node > 0 && gpus_per_node * nodes != *ranks {
            let gpus = counted(gpus_per_node * nodes, "GPU");
            return Err(format!(
                "{} on {gpus}: each rank needs its own GPU",
                counted(*ranks, "rank")
            ));
        }
        match time {
            Some(time) if seconds(time).is_none_or(|seconds| seconds == 0) => Err(format!(
                "--time: `{time}` is not a valid Slurm time: write 90 (minutes), 12:00:00 or 2-12:00:00"
            )),
            _ => Ok(()),
        }
    }

    /// `2 nodes x 4 GPUs`, `1 node x 2 ranks`.
    pub fn described(&self) -> String {
        let each = match self.gpus_per_node {
            0 => counted(self.ranks / self.nodes.max(1), "rank"),
            gpus => counted(gpus, "GPU"),
        };
        format!("{} x {each}", counted(self.nodes, "node"))
    }

    /// The job script. It is started in the run's folder and does not name the run. `program`:
    /// quoted for the shell.
    pub fn script(&self, program: &str) -> String {
        let Self {
            partition,
            nodes,
            gpus_per_node,
            ranks,
            time,
        } = self;
        let mut options = vec![
            format!("partition={partition}"),
            format!("nodes={nodes}"),
            format!("ntasks-per-node={}", ranks / nodes),
        ];
        options.extend((*gpus_per_node > 0).then(|| format!("gpus-per-node={gpus_per_node}")));
        options.extend(time.as_ref().map(|time| format!("time={time}")));
        let limit = time.as_deref().and_then(seconds);
        let lead = limit.map_or(LEAD_SECONDS, |limit| LEAD_SECONDS.min(limit / 4).max(1));
        options.extend(["output=worker.log", "open-mode=append", "requeue"].map(str::to_owned));
        options.push(format!("signal=TERM@{lead}"));
        let options: String = options
            .iter()
            .map(|option| format!("#SBATCH --{option}\n"))
            .collect();
        let device = if *gpus_per_node > 0 { "" } else { " --cpu" };
        format!(
            r#"#!/bin/sh
{options}
# Slurm signals this shell with the ranks, and srun has to end before it.
trap : TERM
srun --kill-on-bad-exit=0 {program} train --resume . --runs .. --ranks {ranks}{device}
code=$?
# Saved because Slurm ends the job. Slurm itself queues a preempted job again; a job out of time is queued here.
if [ "$code" = {TO_BE_CONTINUED} ] && [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"#
        )
    }
}

/// Parses minutes, minutes:seconds, hours:minutes:seconds or days-hours[:minutes[:seconds]].
fn seconds(time: &str) -> Option<u64> {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        text.split(':')
            .map(|part| {
                let is_number = !part.is_empty()
                    && part.len() < 6
                    && part.bytes().all(|byte| byte.is_ascii_digit());
                is_number.then(|| part.parse().ok()).flatten()
            })
            .collect()
    };
    if let Some((days, rest)) = time.split_once('-') {
        let (days, rest) = (
            numbers(days).filter(|days| days.len() == 1)?[0],
            numbers(rest)?,
        );
        let units = [3600, 60, 1];
        let rest = (rest.len() <= 3).then(|| {
            rest.iter()
                .zip(units)
                .map(|(number, unit)| number * unit)
                .sum::<u64>()
        })?;
        return Some(days * 86_400 + rest);
    }
    match numbers(time)?.as_slice() {
        [minutes] => Some(minutes * 60),
        [minutes, seconds] => Some(minutes * 60 + seconds),
        [hours, minutes, seconds] => Some(hours * 3600 + minutes * 60 + seconds),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn request(nodes: usize, gpus_per_node: usize, ranks: usize, time: Option<&str>) -> JobRequest {
        JobRequest {
            partition: "gpu".to_owned(),
            nodes,
            gpus_per_node,
            ranks,
            time: time.map(str::to_owned),
        }
    }

    #[test]
    fn the_script_asks_for_what_the_run_needs() {
        let script = request(2, 4, 8, Some("12:00:00")).script("'/opt/my tools/grpo-tui'");
        insta::assert_snapshot!(script, @r#"
        #!/bin/sh
        #SBATCH --partition=gpu
        #SBATCH --nodes=2
        #SBATCH --ntasks-per-node=4
        #SBATCH --gpus-per-node=4
        #SBATCH --time=12:00:00
        #SBATCH --output=worker.log
        #SBATCH --open-mode=append
        #SBATCH --requeue
        #SBATCH --signal=TERM@300

        # Slurm signals this shell with the ranks, and srun has to end before it.
        trap : TERM
        srun --kill-on-bad-exit=0 '/opt/my tools/grpo-tui' train --resume . --runs .. --ranks 8
        code=$?
        # Saved because Slurm ends the job. Slurm itself queues a preempted job again; a job out of time is queued here.
        if [ "$code" = 75 ] && [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
          scontrol requeue "$SLURM_JOB_ID"
        fi
        exit "$code"
        "#);
        let on_cpus = request(1, 0, 2, Some("10")).script("grpo-tui");
        assert!(
            on_cpus.contains("--ranks 2 --cpu\n") && on_cpus.contains("--ntasks-per-node=2\n"),
            "{on_cpus}"
        );
        assert!(
            on_cpus.contains("--signal=TERM@150\n") && !on_cpus.contains("gpus"),
            "{on_cpus}"
        );
    }

    #[test]
    fn what_slurm_would_misread_is_refused() {
        let check = |request: JobRequest, expected: Option<&str>| match expected {
            None => assert_eq!(request.check(), Ok(()), "{request:?}"),
            Some(part) => assert!(
                request.check().unwrap_err().contains(part),
                "{:?}",
                request.check()
            ),
        };
        check(request(2, 4, 8, None), None);
        check(request(1, 0, 1, Some("2-12")), None);
        check(
            request(3, 0, 4, None),
            Some("4 ranks on 3 nodes: each node takes the same number"),
        );
        check(request(0, 1, 1, None), Some("1 rank on 0 nodes"));
        check(request(2, 4, 4, None), Some("4 ranks on 8 GPUs"));
        check(
            request(1, 1, 1, Some("soon")),
            Some("--time: `soon` is not a valid Slurm time"),
        );
        check(request(1, 1, 1, Some("0")), Some("--time: `0`"));
        for partition in ["", "a b", "a\n#SBATCH --uid=0", "$(id)", "-p", "a,b"] {
            check(
                JobRequest {
                    partition: partition.to_owned(),
                    ..request(1, 1, 1, None)
                },
                Some("is not a partition name"),
            );
        }
    }

    #[test]
    fn times_are_read_as_slurm_does() {
        let check =
            |time: &str, expected: Option<u64>| assert_eq!(seconds(time), expected, "{time}");
        check("90", Some(5400));
        check("10:30", Some(630));
        check("1:00:00", Some(3600));
        check("1-12", Some(129_600));
        check("2-00:30", Some(174_600));
        check("0-0:0:5", Some(5));
        for wrong in ["", "1:2:3:4", "1-2-3", "x", "-1", "1-", "9999999", "+5"] {
            check(wrong, None);
        }
    }
}
