//! Sampling completions of a prompt from the base or the trained model, by a `sample` subprocess.

use std::sync::Arc;

use serde::Deserialize;

use super::items::Written;
use super::{SamplingJob, Scores, Source, arrange, selected, source};
use crate::confidence::{AnswerConfidence, why_without};
use crate::dataset::PromptRow;
use crate::environment::ToolChain;
use crate::followed_run::FollowedRun;
use crate::format::short_id;
use crate::message::{Command, Work};
use crate::run::RunDirectory;
use crate::shared::{OpenTask, Shared};
use crate::subprocess::{Call, CancelToken, Exit, OutputLine, task_argument, trained_argument};
use crate::task::PromptSet;
use crate::widgets::list_cursor::Cursor;

const COMPLETIONS: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The task: as an argument, and its name.
    task: (String, String),
    /// M of the command line.
    pub(super) model: String,
    /// `base` or `trained`, and of what.
    pub(super) name: String,
    pub(super) prompt_id: String,
    /// Why its values can have no confidence.
    pub(super) no_confidence: Option<String>,
}

pub(super) fn plan(scores: &Scores, shared: &Shared) -> Result<Plan, String> {
    let no_prompts = || {
        format!(
            "the task has no prompts to sample: see Prompts ({})",
            shared.key_of("screen.prompts")
        )
    };
    // The base answers the open task's completions where these are shown; a run answers its own task's prompts.
    let is_open_task =
        scores.from_base && [Source::Samples, Source::Written].contains(&scores.source);
    let (open, task, directory) = match shared.run_of_other_task().filter(|_| !is_open_task) {
        Some(run) => {
            let task = source::own_task(scores, run)?;
            let argument = shared.own_task_folder(run).display().to_string();
            (&task.open, (argument, run.file().task.clone()), Some(run))
        }
        None => {
            let open = shared.task.as_deref().ok_or("no task is open")?;
            let argument = task_argument(shared).unwrap_or_default();
            let run = shared.current_run().and_then(|run| run.directory.as_ref());
            let of_this_task = run.filter(|run| run.file().task == open.task.name);
            (open, (argument, open.task.name.clone()), of_this_task)
        }
    };
    let row = row(scores, open).ok_or_else(no_prompts)?;
    let (name, of) = target(scores, shared, directory)?;
    Ok(Plan {
        task,
        model: of,
        name,
        prompt_id: row.id.clone(),
        no_confidence: why_without(&open.task, "the task", [row]),
    })
}

/// `directory`: the run whose base is meant; none means that of a new run.
fn target(
    scores: &Scores,
    shared: &Shared,
    directory: Option<&RunDirectory>,
) -> Result<(String, String), String> {
    let run = shared.current_run();
    if scores.from_base || run.is_none() {
        let base = directory.map_or_else(
            || shared.new_run.base_model.clone(),
            |run| run.file().config.base_model.clone(),
        );
        return Ok(("base".to_owned(), base));
    }
    let base = |why| {
        format!(
            "{why}; {} samples from the base",
            shared.key_of("scores.target")
        )
    };
    let (what, model) = trained_argument(shared).map_err(base)?;
    let named = |run: &FollowedRun| match run.directory.as_ref().map_or("", RunDirectory::name) {
        "" => short_id(&run.id()).to_owned(),
        name => name.to_owned(),
    };
    Ok((
        format!("trained {} ({what})", run.map_or_else(String::new, named)),
        model,
    ))
}

/// The prompt of the completion under the cursor, if it is in this task; else the first of the sets not trained on.
fn row<'a>(scores: &Scores, open: &'a OpenTask) -> Option<&'a PromptRow> {
    let scored = scores.scored.as_ref();
    let here = selected(scores).and_then(|place| {
        scored?
            .items
            .all
            .get(place)?
            .row
            .as_ref()
            .map(|row| row.id.clone())
    });
    let first = || {
        let sets = [PromptSet::Eval, PromptSet::Test, PromptSet::Train];
        sets.into_iter()
            .find_map(|set| open.rows.get(&set)?.as_ref().ok()?.first())
    };
    here.and_then(|id| open.row(&id)).or_else(first)
}

pub(super) fn toggle_confidence(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    scores.with_confidence = !scores.with_confidence;
    let key = shared.key_of("scores.draw");
    shared.say(match scores.with_confidence {
        true => format!("{key} samples with the confidence of each value"),
        false => format!("{key} samples without confidence"),
    })
}

pub(super) fn sample(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    cancel(scores);
    let plan = match plan(scores, shared) {
        Ok(plan) => plan,
        Err(why) => return shared.complain(why),
    };
    let (task, task_name) = plan.task;
    if scores.sampled_task != task_name {
        scores.sampled.clear();
        scores.sampled_task.clone_from(&task_name);
    }
    let seed = scores.samplings;
    scores.samplings += 1;
    let words = [
        "sample",
        &task,
        "--model",
        &plan.model,
        "--prompt",
        &plan.prompt_id,
        "--n",
        &COMPLETIONS.to_string(),
        "--seed",
        &seed.to_string(),
    ];
    let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    arguments.extend(["--runs".to_owned(), shared.new_runs(), "--json".to_owned()]);
    // A server keeps the model loaded for the next time, and yields its device to any run.
    arguments.push("--worker".to_owned());
    let has_confidence = scores.with_confidence && plan.no_confidence.is_none();
    arguments.extend(has_confidence.then(|| "--confidence".to_owned()));
    arguments.extend(shared.new_run.device.clone());
    let call = Call::with_arguments(&shared.options, arguments);
    let line = call.command_line();
    let cancel = CancelToken::default();
    let with = match has_confidence {
        true => ", with confidence",
        false => "",
    };
    let what = format!(
        "{COMPLETIONS} completions of {} ({task_name}) from {}{with}",
        plan.prompt_id, plan.name
    );
    (scores.sampling_error, scores.fresh) = (None, true);
    scores.sampling = Some(SamplingJob {
        cancel: cancel.clone(),
        what,
        progress: String::new(),
        since_ms: shared.now_ms,
    });
    let from = format!("{}, sampling {}", plan.name, seed + 1);
    let sample = Work::stream("scores.draw", move |sender| {
        let outcome = call.run(&cancel, &mut |line| {
            let from = from.clone();
            sender.send(move |scores: &mut Scores, shared| on_output(scores, shared, line, &from));
        });
        sender.send(move |scores: &mut Scores, shared| ended(scores, shared, outcome));
    });
    vec![sample.like(line)]
}

pub(super) fn cancel(scores: &mut Scores) {
    if let Some(job) = scores.sampling.take() {
        job.cancel.cancel();
    }
}

/// Another run or another task is open: drops completions sampled for a third task.
pub(super) fn forget_sampled(scores: &mut Scores, shared: &Shared) {
    let run = shared
        .current_run()
        .and_then(|run| run.directory.as_ref())
        .map(|run| &run.file().task);
    let open = shared.task.as_ref().map(|open| &open.task.name);
    if ![run, open].contains(&Some(&scores.sampled_task)) {
        cancel(scores);
        scores.sampled.clear();
    }
}

fn on_output(
    scores: &mut Scores,
    shared: &mut Shared,
    line: OutputLine,
    from: &str,
) -> Vec<Command> {
    match line {
        OutputLine::Progress(line) => {
            if let Some(job) = &mut scores.sampling {
                job.progress = line;
            }
            Vec::new()
        }
        OutputLine::Result(line) => {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(&line) else {
                return Vec::new();
            };
            let Some(text) = value["completion"].as_str() else {
                return Vec::new();
            };
            let prompt_id = value["prompt_id"].as_str().map(str::to_owned);
            let chain: Option<ToolChain> =
                serde_json::from_value(value["chain"].clone()).unwrap_or_default();
            let conversation = chain.map(|chain| Arc::new(chain.without_ids()));
            let confidence = AnswerConfidence::deserialize(&value["confidence"]).ok();
            let (text, from) = (text.to_owned(), from.to_owned());
            scores.sampled.push(Written {
                text,
                prompt_id,
                from,
                is_apart: true,
                conversation,
                confidence: confidence.map(Arc::new),
            });
            // Somebody who is writing a completion stays there.
            if (scores.source != Source::Sampled || scores.fresh) && scores.editor.is_none() {
                // Clears all filters and moves the cursor to the first of them.
                (scores.only, scores.class, scores.order, scores.fresh) = Default::default();
                arrange(scores);
                let commands = source::turn_to(scores, shared, Source::Sampled);
                scores.cursor = Cursor {
                    index: scores.sampled.len() - 1,
                };
                return commands;
            }
            source::load(scores, shared)
        }
    }
}

fn ended(
    scores: &mut Scores,
    shared: &mut Shared,
    outcome: Result<Option<Exit>, String>,
) -> Vec<Command> {
    scores.sampling = None;
    let failure = match outcome {
        Ok(Some(ended)) if !ended.success => ended.reason(),
        Err(error) => error,
        Ok(_) => return Vec::new(),
    };
    let text = format!("sampling failed: {failure}");
    shared.complain(text.clone());
    scores.sampling_error = Some(text);
    Vec::new()
}
