//! `train --slurm`: a run that Slurm starts on its nodes.

use serde_json::Value;

use super::{create, is_finished, named_tasks, remove_unstarted, run_input};
use crate::cli::output::{eprint_line, eprint_lines};
use crate::cli::plan::for_partition;
use crate::cli::slurm::{program, submit_run};
use crate::cli::{Failure, Outcome, print, print_indented};
use crate::kernels::device::Engine;
use crate::page::text::render;
use crate::run::{Device, JobRequest, Partition, RunDirectory, RunFolders, SlurmJob, partitions};

#[derive(Debug, Default, clap::Args)]
pub(super) struct SlurmArguments {
    /// Submit the run to this partition of a Slurm cluster
    #[arg(long, value_name = "PARTITION", conflicts_with_all = ["detach", "gpu", "gpus", "sample"])]
    slurm: Option<String>,
    /// With --slurm: nodes
    #[arg(long, value_name = "N", requires = "slurm", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    nodes: u16,
    /// With --slurm: GPUs per node, one rank each [default: the ranks divided by the nodes]
    #[arg(long, value_name = "M", requires = "slurm", conflicts_with = "cpu", value_parser = clap::value_parser!(u16).range(1..=64))]
    gpus_per_node: Option<u16>,
    /// With --slurm: time limit of the job, such as 12:00:00 [default: the partition's]
    #[arg(long, value_name = "TIME", requires = "slurm")]
    time: Option<String>,
}

impl SlurmArguments {
    pub(super) fn is_given(&self) -> bool {
        self.slurm.is_some()
    }

    fn request(&self, ranks: usize, on_cpus: bool) -> Result<JobRequest, Failure> {
        let nodes = usize::from(self.nodes);
        let gpus_per_node = match (on_cpus, self.gpus_per_node) {
            (true, _) => 0,
            (false, Some(gpus)) => usize::from(gpus),
            (false, None) => ranks / nodes,
        };
        let partition = self.slurm.clone().unwrap_or_default();
        let request = JobRequest {
            partition,
            nodes,
            gpus_per_node,
            ranks,
            time: self.time.clone(),
        };
        request.check().map_err(Failure::usage)?;
        Ok(request)
    }
}

/// In a job that has GPUs a run does not compute on the CPU because none of them can be used.
pub(super) fn check_devices(run: &RunDirectory, devices: &[Device]) -> Result<(), Failure> {
    let own = std::env::var("SLURM_JOB_ID")
        .ok()
        .and_then(|id| id.parse().ok());
    let job = SlurmJob::read(run.path()).filter(|job| job.job.is_none_or(|job| own == Some(job)));
    match job {
        Some(job)
            if own.is_some() && job.request.gpus_per_node > 0 && devices.contains(&Device::Cpu) =>
        {
            let why = Engine::why_no_gpu().unwrap_or_else(|| "none is visible to CUDA".to_owned());
            Err(Failure::failed(format!(
                "no GPU of the Slurm job can be used: {why}"
            )))
        }
        _ => Ok(()),
    }
}

/// Submits a new run, or one to resume; with `--plan` prints the job script.
pub(super) fn run(mut arguments: super::Arguments, run_folders: &RunFolders) -> Outcome {
    let (cluster, cpu) = (&arguments.cluster, arguments.device.is_cpu());
    if let Some(gpus) = cluster.gpus_per_node {
        let ranks = usize::from(gpus) * usize::from(cluster.nodes);
        if let Some(asked) = arguments.ranks.filter(|asked| usize::from(*asked) != ranks) {
            return Err(Failure::usage(format!(
                "{ranks} GPUs, one rank each, but --ranks {asked}: omit one of them"
            )));
        }
        arguments.ranks = Some(u16::try_from(ranks)?);
    }
    let ranks = |configured: usize| arguments.ranks.map_or(configured, usize::from);
    let run = arguments
        .resume
        .as_ref()
        .map(|run| run_folders.find(run))
        .transpose()?;
    let input = match run {
        Some(_) => None,
        None => Some(run_input(
            &arguments,
            named_tasks(&arguments)?,
            run_folders,
        )?),
    };
    let configured = match (&run, &input) {
        (Some(run), _) => run.file().config.ranks,
        (None, input) => input
            .as_ref()
            .map_or(1, |input| input.resolved.config.ranks),
    };
    let request = arguments.cluster.request(ranks(configured), cpu)?;
    if arguments.plan {
        let script = request.script(&program()?);
        let mut document = serde_json::json!({"script": script, "request": request});
        if let Some(input) = &input {
            let plan = for_partition(input, run_folders, &request)?;
            let page = [plan.summary(), plan.memory_parts()].concat();
            eprint_lines(render(&page).trim_end());
            if let (Value::Object(document), Value::Object(plan)) =
                (&mut document, serde_json::to_value(&plan)?)
            {
                document.extend(plan);
            }
        }
        eprint_line("nothing is submitted; the run's folder would have this as job.sh:");
        return if arguments.json {
            print_indented(&document)
        } else {
            print(&script)
        };
    }
    Partition::check(&partitions()?, &request).map_err(Failure::usage)?;
    let run = match run {
        Some(run) if is_finished(&run, &arguments, run_folders)? => {
            return Ok(std::process::ExitCode::SUCCESS);
        }
        Some(run) => run,
        None => create(&arguments, named_tasks(&arguments)?, run_folders, None)?,
    };
    submit_run(&run, request, "train", arguments.json)
        .map_err(|failure| remove_unstarted(&run, &arguments, failure))
}
