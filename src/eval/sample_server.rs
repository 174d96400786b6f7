//! Serves samples from a loaded model until it is idle or a run waits for its device.

use serde_json::json;

use super::sample::{SampleError, SampleSource, resolve_task, sample_row, task_limit};
use crate::checkpoint::{ModelLocation, StartModel};
use crate::kernels::device::Engine;
use crate::model::{Adapters, Decoder};
use crate::rollout::{RolloutContext, RolloutMemory, ThreadPool};
use crate::run::sampler::{NextAction, SampleWorker, SamplerFile};
use crate::run::{AcceptedRequest, Answer, RunDirectory, RunFolders, Sample, Slot, Stop, Verb};
use crate::task::Task;
use crate::text::Tokenizer;

struct SampleServer {
    name: String,
    engine: Engine,
    model: Decoder,
    tokenizer: Tokenizer,
    threads: ThreadPool,
    /// The run whose result it is.
    run: Option<Box<RunDirectory>>,
    /// The model that it came from, for a task's defaults.
    origin: String,
}

/// Loads the model of `file` and serves requests. Returns why it ended.
///
/// # Errors
/// [`SampleError`] if the model cannot be loaded, or the state not written.
pub fn serve(
    file: &SamplerFile,
    run_folders: &RunFolders,
    engine: &Engine,
    sampler: &SampleWorker,
    slot: &Slot,
) -> Result<String, SampleError> {
    let controls = sampler.controls();
    let stop = controls.clone();
    let threads = ThreadPool::for_engine(engine, 0)?.until(move || stop.stop_requested() == Some(Stop::Now));
    let located = ModelLocation::find(&file.model, run_folders)?;
    let origin = ModelLocation::origin(&file.model, run_folders)?;
    let run = if let ModelLocation::Run { run, .. } = &located { Some(run.clone()) } else { None };
    let (model, tokenizer) = StartModel::from_location(located, run_folders)?.into_sampler(engine)?;
    let server =
        SampleServer { name: file.model.clone(), engine: engine.clone(), model, tokenizer, threads, run, origin };
    sampler.serve(&server.name)?;
    let mut fresh = true;
    loop {
        match sampler.next(slot, fresh) {
            NextAction::End(why) => return Ok(why),
            NextAction::Request => {}
        }
        fresh = false;
        // One at a time, so that a run that waits for the device comes between two requests.
        if let Some(accepted) = controls.take_one() {
            let answer = answer(&server, &accepted, |part| controls.answer(accepted.id, &part));
            let _ = engine.trim_memory();
            controls.answer(accepted.id, &answer);
        }
    }
}

fn answer(server: &SampleServer, accepted: &AcceptedRequest, mut on_answer: impl FnMut(Answer)) -> Answer {
    match &accepted.verb {
        Verb::Sample(request) => match sample(server, request) {
            Ok(completions) => {
                completions.iter().for_each(|completion| on_answer(Answer::part(json!(completion))));
                Answer::done(
                    format!("{} completions of {}", completions.len(), server.name),
                    json!({"model": server.name}),
                )
            }
            Err(error) => Answer::refused(error),
        },
        Verb::Stop { .. } => Answer::done("ends", serde_json::Value::Null),
        other => Answer::refused(format!("{}: a sample worker handles sample, status and stop only", other.name())),
    }
}

fn sample(server: &SampleServer, request: &Sample) -> Result<Vec<crate::run::SampledCompletion>, String> {
    let full = server.run.as_ref().filter(|run| request.base && run.file().config.lora_rank == 0);
    if let Some(run) = full {
        let base = &run.file().config.base_model;
        return Err(format!("{} was fully fine-tuned, so its base is another model: use --model {base}", server.name));
    }
    let own = || match &server.run {
        Some(run) => Ok(Task::load(&run.task_path())?),
        None => Err(SampleError::NoTask { model: server.name.clone() }),
    };
    let sample = || -> Result<_, SampleError> {
        let task = resolve_task(request, own)?;
        let context = RolloutContext {
            engine: &server.engine,
            model: &server.model,
            adapters: if request.base { Adapters::Off } else { Adapters::On },
            tokenizer: &server.tokenizer,
            threads: &server.threads,
            memory: &RolloutMemory::default(),
        };
        let source =
            SampleSource { context, step: None, max_completion_tokens: server.limit(&task)?, max_seq_len: None };
        sample_row(source, &task, request)
    };
    sample().map_err(|error| error.to_string())
}

impl SampleServer {
    /// The limit of completion tokens: of the run whose result this is, else of the task.
    fn limit(&self, task: &Task) -> Result<usize, SampleError> {
        if let Some(run) = &self.run {
            return Ok(run.file().config.max_completion_tokens);
        }
        task_limit(task, Some((&self.name, self.origin.clone())))
    }
}
