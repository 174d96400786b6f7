//! `grpo-tui train --plan [--sample]`: a run's memory, its pace by a recorded run, and whether it can learn; nothing is
//! created.

use std::collections::BTreeMap;

use super::output::eprint_line;
use super::run_input::RunInput;
use super::{Failure, Outcome, preflight, print, print_json};
use crate::checkpoint::ModelLocation;
use crate::config::TrainConfig;
use crate::format::counted;
use crate::page::text::render;
use crate::plan::preflight::{Facts, Preflight, read_data};
use crate::plan::{
    Forecast, ForecastShape, GpuMemory, Memory, ModelShape, Signal, SignalReport, SignalSettings,
    Size, StepShape, differences, gpu_memory, judge, trainable_parameters,
};
use crate::run::{JobRequest, RunDirectory, RunFolders, SlurmJob, recorded_pace};
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
    eprint_line(&format!("loading {} ...", config.base_model));
    let candidate = match Candidate::load(&input.parts, config, run_folders, engine) {
        Err(TrainError::DoesNotFit(error)) => {
            let forecast = Forecast {
                shape: Some(of_config(config, gpus)),
                ..of_memory((*error.memory).clone())
            };
            if json {
                let why = Some(error.to_string());
                let fits = Some(false);
                let document = serde_json::to_value(&Forecast {
                    fits,
                    why,
                    ..forecast
                })?;
                print_json(document)?;
            } else {
                print(&render(&forecast.page()))?;
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
    let model = candidate.model_config();
    let names = input.parts.iter().map(|part| part.name.clone());
    let judged = signals
        .iter()
        .map(|signal| judge(signal, &settings(config)));
    let mut signals: BTreeMap<String, SignalReport> = names.zip(judged).collect();
    let memory = candidate.memory();
    let data = candidate.data();
    let pace = recorded_pace(
        run_folders,
        task,
        &candidate.model_digest,
        config,
        |_, device_of_run| device_of_run == candidate.device,
    );
    let facts = Facts {
        data: Some(Ok(&problems)),
        base_model: Some(Ok(preflight::base_model_note(input, config, run_folders))),
        memory: Some(&memory),
        signals: signals
            .iter()
            .map(|(task, report)| (task.as_str(), report))
            .collect(),
    };
    let shape = candidate.shape();
    let forecast = Forecast {
        task: Some(task.clone()),
        model: Some(config.base_model.clone()),
        size: Some(Size {
            device: candidate.device.clone(),
            steps: config.steps_of_epochs(data.train_rows as u64),
            parameters: ModelShape::from_config(model).parameters,
            trainable: trainable_parameters(model, config),
        }),
        data: Some(data),
        preflight: Some(Preflight::for_run(config, &facts)),
        pace,
        differences: Some(differences(config, &resolved.sources)),
        signal: signals.remove(""),
        signals,
        shape: Some(ForecastShape {
            to_fit: Some(shape).filter(|shape| *shape != StepShape::for_config(config)),
            ..of_config(config, gpus)
        }),
        ..of_memory(memory)
    };
    if json {
        print_json(serde_json::to_value(&forecast)?)
    } else {
        print(&render(&forecast.page()))
    }
}

fn of_config(config: &TrainConfig, gpus: usize) -> ForecastShape {
    ForecastShape {
        prompt_groups_per_step: config.prompt_groups_per_step,
        completions_per_prompt: config.completions_per_prompt,
        gpus,
        to_fit: None,
    }
}

fn of_memory(memory: Memory) -> Forecast {
    Forecast {
        memory,
        ..Forecast::default()
    }
}

/// The plan of a run on a Slurm partition.
pub(super) fn for_partition(
    input: &RunInput,
    run_folders: &RunFolders,
    request: &JobRequest,
) -> Result<Forecast, Failure> {
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
    Ok(Forecast {
        size: Some(Size {
            device: format!("{}: {}", request.partition, request.described()),
            steps: config.steps_of_epochs(checked.data.train_rows as u64),
            parameters: ModelShape::from_config(&checked.model).parameters,
            trainable: trainable_parameters(&checked.model, &config),
        }),
        pace: recorded_pace(run_folders, &input.name(), &digest, &config, is_there),
        shape: Some(of_config(&config, request.nodes * request.gpus_per_node)),
        ..of_memory(Memory {
            machine_bytes: None,
            ..memory
        })
    })
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
