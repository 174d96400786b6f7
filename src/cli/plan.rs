//! `grpo-tui train --plan [--sample]`: the forecast of a run, and whether it can learn; nothing is created.

use std::process::ExitCode;

use super::output::eprint_line;
use super::run_input::RunInput;
use super::{Failure, Outcome, preflight, print_json};
use crate::checkpoint::ModelLocation;
use crate::config::{ResolvedConfig, TrainConfig};
use crate::format::{bytes, count, counted, duration, percent, percent_short};
use crate::plan::preflight::{Facts, Preflight, read_data};
use crate::plan::{
    CompletionLengths, DataShape, Difference, Disk, GpuMemory, Memory, ModelShape, Plan, Signal,
    SignalReport, SignalSettings, StepShape, Time, differences, disk, free_disk_bytes, gpu_memory,
    judge, time, trainable_parameters, unmeasured_time,
};
use crate::run::{JobRequest, RunDirectory, RunFolders, SlurmJob, recorded_lengths, recorded_pace};
use crate::secrets::visible;
use crate::train::{Candidate, TrainError, check};

/// At 32 prompts the interval of a share spans up to 33 points, at 64 up to 24.
const SAMPLED_PROMPTS: usize = 64;

pub(super) fn run(
    input: &RunInput,
    run_folders: &RunFolders,
    engine: &crate::kernels::device::Engine,
    sample: bool,
    json: bool,
) -> Outcome {
    let (resolved, config, task) = (&input.resolved, &input.resolved.config, &input.name());
    let mut problems = Vec::new();
    for task in input.tasks() {
        problems.extend(read_data(task)?);
    }
    let gpus = if engine.device.is_cpu() {
        0
    } else {
        config.ranks
    };
    eprint_line(&format!(
        "loading {} and measuring it on this machine ...",
        config.base_model
    ));
    let candidate = match Candidate::load(&input.parts, config, run_folders, engine) {
        Err(TrainError::DoesNotFit(error)) => {
            if json {
                print_json(
                    serde_json::json!({"fits": false, "memory": error.memory, "why": error.to_string()}),
                )?;
            } else {
                println!("{}", memory_lines(&error.memory, gpus).join("\n"));
            }
            return Err(Failure::failed(error.to_string()));
        }
        result => result?,
    };
    let signals = if sample {
        sampled(&candidate, config.completions_per_prompt)?
    } else {
        Vec::new()
    };
    let Forecast {
        completion_lengths,
        data,
        steps,
        time,
    } = forecast(&candidate, input, run_folders, &signals)?;
    let model = candidate.model_config();
    let names = input.parts.iter().map(|part| part.name.as_str());
    let judged = signals
        .iter()
        .map(|signal| judge(signal, &settings(config)));
    let reports: Vec<(&str, SignalReport)> = names.zip(judged).collect();
    let memory = candidate.memory();
    let disk = disk(
        model,
        config,
        &data,
        steps,
        free_disk_bytes(run_folders.for_new_runs()),
    );
    let facts = Facts {
        data: Some(Ok(&problems)),
        base_model: Some(Ok(preflight::base_model_note(input, config, run_folders))),
        memory: Some(&memory),
        disk: Some(&disk),
        signals: reports
            .iter()
            .map(|(task, report)| (*task, report))
            .collect(),
    };
    let plan = Plan {
        task: task.clone(),
        model: config.base_model.clone(),
        parameters: ModelShape::from_config(model).parameters,
        trainable: trainable_parameters(model, config),
        device: candidate.device.clone(),
        steps,
        data,
        completion_lengths,
        preflight: Preflight::for_run(config, &facts),
        time,
        memory,
        disk,
        differences: differences(config, &resolved.sources),
    };
    if json {
        let mut value = serde_json::to_value(&plan)?;
        for (task, report) in &reports {
            match task.is_empty() {
                true => value["signal"] = serde_json::to_value(report)?,
                false => value["signals"][*task] = serde_json::to_value(report)?,
            }
        }
        return print_json(value);
    }
    println!("{}", plan_text(&plan, resolved, candidate.shape(), gpus));
    for (task, report) in &reports {
        let of_task = if task.is_empty() {
            String::new()
        } else {
            format!("task {task}, ")
        };
        println!("\n{of_task}{}", signal_text(report));
    }
    Ok(ExitCode::SUCCESS)
}

/// The time of a run, and what it follows from.
struct Forecast {
    completion_lengths: CompletionLengths,
    data: DataShape,
    steps: u64,
    time: Time,
}

/// Measures the candidate on this machine. `signals`: sampled groups, whose completions say how long answers are where no
/// run does.
fn forecast(
    candidate: &Candidate,
    input: &RunInput,
    run_folders: &RunFolders,
    signals: &[Signal],
) -> Result<Forecast, Failure> {
    let (config, task) = (&input.resolved.config, &input.name());
    let (speed, measured) = candidate.measure()?;
    let limit = config.max_completion_tokens;
    let completion_lengths = recorded_lengths(run_folders, task, &candidate.model_digest, limit)
        .or_else(|| {
            let lengths: Vec<_> = signals
                .iter()
                .flat_map(|signal| signal.lengths.clone())
                .collect();
            (!lengths.is_empty()).then(|| CompletionLengths::from_sample(&lengths, limit))
        })
        .unwrap_or(measured);
    let model = candidate.model_config();
    let data = completion_lengths.for_data(&candidate.data());
    let steps = config.steps_of_epochs(data.train_rows as u64);
    let pace = recorded_pace(
        run_folders,
        task,
        &candidate.model_digest,
        config,
        |_, device_of_run| device_of_run == candidate.device,
    );
    let recompute = candidate.shape().recompute;
    let time = time(model, config, &data, steps, &speed, recompute).including(pace, steps);
    Ok(Forecast {
        completion_lengths,
        data,
        steps,
        time,
    })
}

/// The time of a run, by its model's speed on this machine.
pub(super) fn run_time(
    input: &RunInput,
    run_folders: &RunFolders,
    engine: &crate::kernels::device::Engine,
) -> Result<Time, Failure> {
    let candidate = Candidate::load(&input.parts, &input.resolved.config, run_folders, engine)?;
    Ok(forecast(&candidate, input, run_folders, &[])?.time)
}

/// The plan of a run on a Slurm partition none of whose nodes has been measured.
#[derive(Debug, serde::Serialize)]
pub(super) struct PartitionPlan {
    /// For people.
    device: String,
    steps: u64,
    parameters: usize,
    trainable: usize,
    /// On each rank; how much memory it has is not known here.
    memory: Memory,
    /// With completions at the limit.
    disk: Disk,
    /// Measured by the last such run in the partition.
    recorded_seconds_per_step: Option<f64>,
    #[serde(skip)]
    gpus: usize,
}

impl PartitionPlan {
    pub(super) fn for_partition(
        input: &RunInput,
        run_folders: &RunFolders,
        request: &JobRequest,
    ) -> Result<Self, Failure> {
        let config = TrainConfig {
            ranks: request.ranks,
            ..input.resolved.config.clone()
        };
        let located = ModelLocation::find(&config.base_model, run_folders)?;
        let digest = located.digest(run_folders)?;
        let checked = check(
            &input.parts,
            &located.source(run_folders)?,
            &config,
            run_folders,
        )?;
        let memory = match request.gpus_per_node {
            0 => checked.cpu_memory(&config),
            _ => {
                let gpu = GpuMemory {
                    usable_bytes: 0,
                    total_bytes: 0,
                    number_bytes: 2,
                };
                gpu_memory(
                    &checked.model,
                    &config,
                    &checked.data,
                    StepShape::for_config(&config),
                    gpu,
                )
            }
        };
        let is_there = |run: &RunDirectory, _: &str| {
            SlurmJob::read(run.path()).is_some_and(|job| {
                let own = &job.request;
                (&own.partition, own.nodes, own.gpus_per_node)
                    == (&request.partition, request.nodes, request.gpus_per_node)
            })
        };
        Ok(Self {
            device: format!("{}: {}", request.partition, request.described()),
            steps: config.steps_of_epochs(checked.data.train_rows as u64),
            parameters: ModelShape::from_config(&checked.model).parameters,
            trainable: trainable_parameters(&checked.model, &config),
            memory: Memory {
                machine_bytes: None,
                ..memory
            },
            disk: checked.disk(&config, run_folders),
            recorded_seconds_per_step: recorded_pace(
                run_folders,
                &input.name(),
                &digest,
                &config,
                is_there,
            ),
            gpus: request.nodes * request.gpus_per_node,
        })
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} on {}; {} weights, {} trained",
            counted(self.steps as usize, "step"),
            self.device,
            count(self.parameters),
            count(self.trainable)
        )];
        lines.extend(memory_lines(&self.memory, self.gpus));
        lines.push(unmeasured_time(self.recorded_seconds_per_step, self.steps));
        lines.push(disk_line(&self.disk, true));
        lines
            .iter()
            .map(|line| visible(line).into_owned())
            .collect()
    }
}

fn sampled(candidate: &Candidate, completions_per_prompt: usize) -> Result<Vec<Signal>, Failure> {
    let prompts = candidate.sampled_prompts(SAMPLED_PROMPTS);
    eprintln!(
        "sampling {} of {} ...",
        counted(prompts * completions_per_prompt, "completion"),
        counted(prompts, "training prompt")
    );
    Ok(candidate.sample(SAMPLED_PROMPTS)?)
}

fn settings(config: &TrainConfig) -> SignalSettings {
    SignalSettings {
        completions_per_prompt: config.completions_per_prompt,
        prompt_groups_per_step: config.prompt_groups_per_step,
        max_completion_tokens: config.max_completion_tokens,
    }
}

fn plan_text(plan: &Plan, resolved: &ResolvedConfig, shape: StepShape, gpus: usize) -> String {
    let mut lines = what_lines(plan, resolved);
    lines.push(String::new());
    lines.extend(memory_lines(&plan.memory, gpus));
    if shape != StepShape::for_config(&resolved.config) {
        lines.push(format!("to fit: {shape}"));
    }
    lines.push(String::new());
    lines.extend(time_lines(plan));
    lines.extend([
        String::new(),
        disk_line(&plan.disk, plan.time.is_upper_bound),
        String::new(),
    ]);
    lines.extend(preflight::lines(&plan.preflight));
    lines.push(String::new());
    lines.extend(difference_lines(&plan.differences));
    // Task values must not add lines.
    lines
        .iter()
        .map(|line| visible(line))
        .collect::<Vec<_>>()
        .join("\n")
}

fn what_lines(plan: &Plan, resolved: &ResolvedConfig) -> Vec<String> {
    let data = &plan.data;
    let share = percent(plan.trainable as f64 / plan.parameters.max(1) as f64);
    vec![
        format!(
            "{} with {}: {} weights, {} trained ({share}), on {}",
            plan.task,
            plan.model,
            count(plan.parameters),
            count(plan.trainable),
            plan.device
        ),
        format!(
            "{} of {} x {} completions; {}, mean {:.0} tokens (max {}), completions {}{:.0}",
            counted(plan.steps as usize, "step"),
            resolved.config.prompt_groups_per_step,
            resolved.config.completions_per_prompt,
            counted(data.train_rows, "training prompt"),
            data.mean_prompt_tokens,
            data.longest_prompt_tokens,
            if plan.time.is_upper_bound {
                "at most "
            } else {
                ""
            },
            data.mean_completion_tokens
        ),
    ]
}

fn time_lines(
    Plan {
        time,
        completion_lengths,
        ..
    }: &Plan,
) -> Vec<String> {
    let step = time.seconds_per_step.max(1e-12);
    let part = |seconds: f64| format!("{} ({})", duration(seconds), percent_short(seconds / step));
    let at_most = if time.is_upper_bound {
        "at most "
    } else {
        "about "
    };
    // The basis explains a bound, and qualifies an estimate.
    let basis = format!(
        "{} {}",
        if time.is_upper_bound { ":" } else { "," },
        completion_lengths.described()
    );
    let least = time.lower_bound().map_or_else(String::new, |least| {
        format!("; {least} with lengths as sampled")
    });
    let lines = [
        format!("time, if all groups are mixed, {}:", time.basis()),
        format!("  total {}{basis}{least}", time.total()),
        format!(
            "  {} per step: prompts {}, completions {}, gradient {}",
            time.per_step(),
            part(time.prefill_seconds_per_step),
            part(time.decode_seconds_per_step),
            part(time.training_seconds_per_step)
        ),
        format!(
            "  {} and the test set before and after {at_most}{}; {at_most}{} tokens sampled, {} trained",
            counted(time.evals as usize, "eval"),
            duration(time.eval_seconds),
            count(time.sampled_tokens as usize),
            count(time.training_tokens as usize)
        ),
    ];
    lines
        .into_iter()
        .chain(time.sharding_text().map(|divided| format!("  {divided}")))
        .collect()
}

fn disk_line(disk: &Disk, is_upper_bound: bool) -> String {
    format!(
        "disk {}{}: {} of {}, rollouts {}, evals {}{}",
        if is_upper_bound { "at most " } else { "" },
        bytes(disk.total_bytes),
        counted(disk.checkpoints as usize, "checkpoint"),
        bytes(disk.checkpoint_bytes),
        bytes(disk.rollouts_bytes),
        bytes(disk.evals_bytes),
        disk.free_bytes
            .map_or_else(String::new, |free| format!("; {} free", bytes(free)))
    )
}

fn difference_lines(differences: &[Difference]) -> Vec<String> {
    let value = |value: &serde_json::Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let mut lines = vec!["changed from defaults:".to_owned()];
    lines.extend(differences.iter().map(|difference| {
        format!(
            "  {} = {}  ({})",
            difference.key,
            value(&difference.value),
            difference.source
        )
    }));
    if differences.is_empty() {
        lines.push("  nothing".to_owned());
    }
    lines
}

fn memory_lines(memory: &Memory, gpus: usize) -> Vec<String> {
    let each = if gpus > 1 {
        format!(", on each of {gpus} GPUs")
    } else {
        String::new()
    };
    let mut lines = vec![format!(
        "memory at the longest prompts and completions{each}:"
    )];
    lines.extend(memory.parts.iter().map(|part| {
        let line = format!(
            "  {:44} {:>10}  {}",
            part.name,
            bytes(part.bytes),
            part.phase.label()
        );
        line.trim_end().to_owned()
    }));
    let machine = match memory.machine_bytes {
        None => String::new(),
        Some(machine) if machine >= memory.peak_bytes => {
            format!(
                " of {} ({})",
                bytes(machine),
                percent_short(memory.peak_bytes as f64 / machine as f64)
            )
        }
        Some(machine) => format!(" of {}: it does not fit{}", bytes(machine), memory.remedy()),
    };
    lines.push(format!(
        "  {:44} {:>10}{machine}",
        "peak",
        bytes(memory.peak_bytes)
    ));
    if memory.peak_recomputed_bytes < memory.peak_bytes {
        lines.push(format!(
            "  {:44} {:>10}",
            "peak with recompute_activations = always",
            bytes(memory.peak_recomputed_bytes)
        ));
    }
    lines
}

fn signal_text(report: &SignalReport) -> String {
    let others: Vec<String> = report
        .other_group_sizes
        .iter()
        .map(|other| {
            let estimate = if other.is_bound {
                "at most about"
            } else {
                "about"
            };
            format!(
                "{estimate} {} with {}",
                percent(other.informative),
                other.completions_per_prompt
            )
        })
        .collect();
    let failures: Vec<String> = report
        .failures
        .iter()
        .map(|(class, share)| format!("{class} {}", percent(*share)))
        .collect();
    let mut lines = vec![
        format!(
            "learnability: {} prompts x {} completions of the base:",
            report.prompts, report.completions_per_prompt
        ),
        format!(
            "  groups: {} mixed ({} to {}), {} all max, {} all min, {} all equal; mixed at other group sizes: {}",
            percent(report.informative),
            percent(report.informative_interval[0]),
            percent(report.informative_interval[1]),
            percent(report.all_max),
            percent(report.all_min),
            percent(report.all_equal),
            others.join(", ")
        ),
        format!(
            "  completions: {} valid, {} invalid, {} unparsable; {} truncated, {} think leaks",
            percent(report.tiers.valid),
            percent(report.tiers.invalid),
            percent(report.tiers.unparsable),
            percent(report.truncated),
            percent(report.think_leaks)
        ),
        format!(
            "  failures: {}",
            if failures.is_empty() {
                "none".to_owned()
            } else {
                failures.join(", ")
            }
        ),
        format!("{}: {}", report.advice.verdict.label(), report.advice.why),
    ];
    lines.extend(
        report
            .advice
            .changes
            .iter()
            .map(|change| format!("  - {change}")),
    );
    lines.join("\n")
}
