//! Sampling completions of a prompt from the base or the trained model, by a `sample` subprocess.

use std::collections::BTreeMap;
use std::path::PathBuf;
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
use crate::popup::{Confirm, Popup};
use crate::run::{Device, DeviceChoice, Gpu, RunDirectory, Status, holder, slots_folder};
use crate::screens::Screen;
use crate::shared::{OpenTask, Shared};
use crate::subprocess::{Call, CancelToken, Exit, OutputLine, task_argument, trained_argument};
use crate::task::PromptSet;
use crate::widgets::list_cursor::Cursor;

const COMPLETIONS: usize = 8;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The task: as an argument, and its name.
    task: (String, String),
    /// M of the command line.
    pub(super) model: String,
    /// `base` or `trained`, and of what.
    pub(super) name: String,
    /// Whether the base of the model is meant.
    is_base: bool,
    /// Whether the worker of the open run answers, between its steps.
    is_live: bool,
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
    Ok(Plan {
        task,
        prompt_id: row.id.clone(),
        no_confidence: why_without(&open.task, "the task", [row]),
        ..target(scores, shared, directory)?
    })
}

/// The model of a plan. `directory`: the run whose base is meant; none means that of a new run.
fn target(
    scores: &Scores,
    shared: &Shared,
    directory: Option<&RunDirectory>,
) -> Result<Plan, String> {
    let run = shared.current_run();
    let live = run.filter(|run| {
        ![Status::Created, Status::Waiting].contains(&run.status()) && !run.status().is_ended()
    });
    if scores.from_base || run.is_none() {
        let live = live.filter(|_| directory.is_some());
        let base = directory.map_or_else(
            || shared.new_run.base_model.clone(),
            |run| run.file().config.base_model.clone(),
        );
        return Ok(Plan {
            name: "base".to_owned(),
            is_base: live.is_some(),
            is_live: live.is_some(),
            model: live.map_or(base, |run| run.path().display().to_string()),
            ..Plan::default()
        });
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
    Ok(Plan {
        name: format!("trained {} ({what})", run.map_or_else(String::new, named)),
        model,
        is_live: live.is_some(),
        ..Plan::default()
    })
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
    if plan.is_live {
        return start(scores, shared, plan);
    }
    let (slots, device) = (shared.options.slots.clone(), shared.new_run.device.clone());
    let rows = shared.runs.listing.entries().iter();
    let rows = rows.filter_map(|entry| entry.row.as_ref().ok());
    let runs = rows.filter(|row| row.is_active() && row.status != Status::Waiting);
    let runs = runs.filter_map(|row| Some((row.worker?, short_id(row.directory.id()).to_owned())));
    let (runs, keys): (BTreeMap<u32, String>, u64) = (runs.collect(), shared.keys);
    if runs.is_empty() {
        return start(scores, shared, plan);
    }
    vec![Work::once(
        "scores.devices",
        move || runs_in_the_way(slots, &device, &runs),
        move |scores: &mut Scores, shared: &mut Shared, found: Vec<String>| {
            if found.is_empty() {
                return start(scores, shared, plan);
            }
            let what = found.join(", ");
            // A user who has turned to something else is not interrupted.
            if keys != shared.keys || shared.screen != Screen::Scores {
                return shared.complain(format!("not sampled: {what}"));
            }
            let text = format!(
                "{what}. The completions would wait until it ends.\nThe worker of a run samples from its own models between steps: open the run for that."
            );
            let start = move |scores: &mut Scores, shared: &mut Shared| start(scores, shared, plan);
            shared.open_popup(Popup::Confirm(Confirm::new(
                "No device is free",
                text,
                "wait for it",
                start,
            )))
        },
    )]
}

/// `GPU 0 is in use by run k7f3a2` for each device that may be used; empty if one of them is not in use by any of `runs`,
/// which are process and short id.
fn runs_in_the_way(
    slots: Option<PathBuf>,
    chosen: &DeviceChoice,
    runs: &BTreeMap<u32, String>,
) -> Vec<String> {
    let Some(slots) = slots.or_else(|| slots_folder().ok()) else {
        return Vec::new();
    };
    let gpu = |ordinal| {
        Gpu::by_ordinal(ordinal).map(|gpu| Device::Gpu {
            ordinal,
            uuid: gpu.uuid,
        })
    };
    let mut devices: Vec<Device> = match chosen {
        DeviceChoice::Any => (0..).map_while(gpu).collect(),
        DeviceChoice::Cpu => Vec::new(),
        DeviceChoice::Gpus(chosen) => chosen.iter().copied().filter_map(gpu).collect(),
    };
    if devices.is_empty() {
        devices.push(Device::Cpu);
    }
    let in_use = |device: &Device| {
        let run = runs.get(&holder(&slots, device)?.process?)?;
        Some(format!("{} is in use by run {run}", device.described()))
    };
    let all: Option<Vec<String>> = devices.iter().map(in_use).collect();
    all.unwrap_or_default()
}

fn start(scores: &mut Scores, shared: &mut Shared, plan: Plan) -> Vec<Command> {
    cancel(scores);
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
    arguments.extend(plan.is_base.then(|| "--base".to_owned()));
    let has_confidence = scores.with_confidence && plan.no_confidence.is_none();
    arguments.extend(has_confidence.then(|| "--confidence".to_owned()));
    arguments.extend(shared.new_run.device.arguments());
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
                (scores.only, scores.order, scores.fresh) = Default::default();
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
