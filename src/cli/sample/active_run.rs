//! `sample --worker` of an active run: its worker samples between steps, with its current weights.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};

use super::server_client::{LOOK, PATIENCE};
use super::{Asked, document};
use crate::cli::output::eprint_line;
use crate::cli::rows::whole;
use crate::cli::{Failure, print, print_json};
use crate::dataset::PromptRow;
use crate::hub::find_model;
use crate::run::{At, Liveness, RunError, RunFolders, RunReference, Sample, SampledCompletion, State, Verb, ask};
use crate::secrets::visible;

/// The active run that RUN or RUN@last means.
pub(super) fn find(model: &str, places: &RunFolders) -> Option<PathBuf> {
    let reference = RunReference::parse(model);
    // As elsewhere: a model's folder or name, then a run.
    let is_run = |folder: &Path| folder.join("run.toml").is_file();
    let is_model = find_model(model).is_ok_and(|source| !source.folder().is_some_and(is_run));
    let is_current = !reference.explicit || reference.at == At::Last;
    let run = places.find(&reference.run).ok().filter(|_| is_current && !is_model)?;
    Liveness::of(run.path()).may_live().then(|| run.path().to_owned())
}

/// Prints each completion as it arrives; false: the worker has exited meanwhile.
pub(super) fn sample(asked: &Asked<'_>, run: &Path, row: &PromptRow) -> Result<bool, Failure> {
    let Asked { arguments, task, is_trained, .. } = asked;
    let task = match task.folder() {
        Some(folder) => std::path::absolute(folder)?.display().to_string(),
        None => task.name.clone(),
    };
    let verb = Verb::Sample(Sample {
        row: whole(row),
        n: arguments.n as usize,
        temperature: arguments.temperature,
        max_tokens: arguments.max_completion_tokens.map(|tokens| tokens as usize),
        base: !is_trained,
        seed: arguments.seed,
        task: Some(task),
    });
    let (mut parts, mut printed) = (0, Ok(()));
    let mut on_part = |part| {
        // A newer worker may send other parts.
        let Ok(completion) = serde_json::from_value::<SampledCompletion>(part) else { return };
        parts += 1;
        if printed.is_ok() {
            let outcome = match arguments.json {
                true => print_json(&format!("{}\n", document(&completion))),
                false => print(&completion_text(&completion)),
            };
            printed = outcome.map(drop);
        }
    };
    let answered = with_status_output(run, || ask(run, &verb, PATIENCE, &mut on_part));
    printed?;
    match answered {
        Ok(outcome) if outcome.done => Ok(true),
        Ok(outcome) => Err(Failure::failed(format!("not answered in time: {}", outcome.text))),
        Err(RunError::NoWorker { .. }) if parts == 0 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Does `work`, and prints the worker's state on stderr meanwhile, whenever it changes.
fn with_status_output<T>(run: &Path, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut last = None;
            while is_done.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let text = State::observe(run).filter(|state| !state.status.is_ended()).map(status_text);
                if text.is_some() && text != last {
                    text.iter().for_each(|text| eprint_line(text));
                    last = text;
                }
            }
        });
        let outcome = work();
        drop(done);
        outcome
    })
}

fn status_text(state: State) -> String {
    let cause = state.cause.map_or_else(String::new, |cause| format!(": {cause}"));
    let (status, step) = (state.status.name(), state.step);
    format!("answered by the run's worker between steps: it is {status}, step {step}{cause}")
}

fn completion_text(completion: &SampledCompletion) -> String {
    let SampledCompletion { prompt_id, sample, text, token_ids, score, .. } = completion;
    let (tier, reward) = (score["tier"].as_str().unwrap_or_default(), score["reward"].as_f64().unwrap_or_default());
    let (prompt_id, tier) = (visible(prompt_id), visible(tier));
    format!("{prompt_id} [{}] {tier}  reward {reward:.3}  {} tokens\n{text}\n\n", sample + 1, token_ids.len())
}
