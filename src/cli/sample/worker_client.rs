//! `grpo-tui sample --worker`: samples from a sample worker or an active run's worker.

use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::{Arguments, document};
use crate::cli::output::eprint_line;
use crate::cli::rows::{Rows, whole};
use crate::cli::{Outcome, print, print_json};
use crate::run::sampler::{self, SampleBackend, SamplingRequest};
use crate::run::{Launch, RunFolders, Sample, SampledCompletion, State};
use crate::secrets::visible;
use crate::task::Task;

/// The time limit per prompt: loading, waiting for a device, or the current step.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(3600);

const LOOK: Duration = Duration::from_millis(250);

/// Sends one request per row and prints each completion as it arrives.
pub(super) fn run(
    arguments: &Arguments,
    (model, is_trained): (&str, bool),
    task: &Task,
    chosen: &[Rows],
    run_folders: &RunFolders,
) -> Outcome {
    let how = Launch { compute: arguments.device.compute(), ..Launch::default() };
    let task = match task.folder() {
        Some(folder) => std::path::absolute(folder)?.display().to_string(),
        None => task.name.clone(),
    };
    for row in chosen.iter().flat_map(|rows| &rows.rows) {
        let sample = Sample {
            row: whole(row),
            n: arguments.n as usize,
            temperature: arguments.temperature,
            max_tokens: arguments.max_completion_tokens.map(|tokens| tokens as usize),
            base: !is_trained,
            seed: arguments.seed,
            task: Some(task.clone()),
        };
        let request = SamplingRequest { model: model.to_owned(), sample };
        let mut printed = Ok(ExitCode::SUCCESS);
        let mut on_completion = |completion: SampledCompletion| {
            if printed.is_ok() {
                printed = if arguments.json {
                    print_json(&format!("{}\n", document(&completion)))
                } else {
                    print(&completion_text(&completion))
                };
            }
        };
        with_status_output(|on_backend| {
            sampler::sample(&request, run_folders, &how, SAMPLE_TIMEOUT, on_backend, &mut on_completion)
        })?;
        printed?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `work`; once that has named the worker, prints the worker's state on stderr whenever it changes.
fn with_status_output<T>(work: impl FnOnce(&mut dyn FnMut(&SampleBackend)) -> T) -> T {
    let (sender, receiver) = channel::<SampleBackend>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut backend, mut last) = (None, None);
            loop {
                match receiver.recv_timeout(LOOK) {
                    Ok(another) => backend = Some(another),
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        let status = backend.as_ref().and_then(status_text);
                        if let Some(text) = status.filter(|text| last.as_ref() != Some(text)) {
                            eprint_line(&text);
                            last = Some(text);
                        }
                    }
                }
            }
        });
        work(&mut move |backend| _ = sender.send(backend.clone()))
    })
}

fn status_text(backend: &SampleBackend) -> Option<String> {
    let state = State::observe(backend.folder()).filter(|state| !state.status.is_ended())?;
    let cause = state.cause.map_or_else(String::new, |cause| format!(": {cause}"));
    Some(match backend {
        SampleBackend::Run(_) => {
            format!(
                "answered by the run's worker between steps: it is {}, step {}{cause}",
                state.status.name(),
                state.step
            )
        }
        SampleBackend::Worker { .. } => format!("the sample worker is {}{cause}", state.status.name()),
    })
}

fn completion_text(completion: &SampledCompletion) -> String {
    let SampledCompletion { prompt_id, sample, text, token_ids, score, .. } = completion;
    let (tier, reward) = (score["tier"].as_str().unwrap_or_default(), score["reward"].as_f64().unwrap_or_default());
    let (prompt_id, tier) = (visible(prompt_id), visible(tier));
    format!("{prompt_id} [{}] {tier}  reward {reward:.3}  {} tokens\n{text}\n\n", sample + 1, token_ids.len())
}
