//! Drawing completions of a prompt from the base or the trained model: this program's own `sample`, asked beside the view.

use super::items::Written;
use super::{SamplingJob, Source, listing, source};
use crate::config::Key;
use crate::dataset::PromptRow;
use crate::run::Status;
use crate::task::PromptSet;
use crate::view::app::Model;
use crate::view::message::{Command, Work};
use crate::view::screens::launch::form;
use crate::view::subprocess::{Call, CancelToken, Ended, Said, task_argument};
use crate::view::widgets::list_cursor::Cursor;

/// Completions of one drawing.
const COMPLETIONS: usize = 8;

/// What a drawing would be of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// M, as the command line takes it.
    pub(super) model: String,
    /// `base` or `trained`, and of what.
    pub(super) name: String,
    /// The prompt row's id.
    pub(super) prompt_id: String,
}

/// What would be drawn now, or why nothing can be.
pub(super) fn plan(model: &Model) -> Result<Plan, String> {
    let row = row(model).ok_or("the task has no prompts to sample: see Prompts (f3)")?;
    let (name, of) = target(model)?;
    Ok(Plan { model: of, name, prompt_id: row.id.clone() })
}

fn target(model: &Model) -> Result<(String, String), String> {
    let run = model.shared.current_run();
    let directory = run.and_then(|run| run.directory.as_ref());
    if model.scores.from_base {
        let of_form = || Key::find("base_model").map(|key| form::value(model, key)).unwrap_or_default();
        let base = directory.map_or_else(of_form, |run| run.file().config.base_model.clone());
        return Ok(("base".to_owned(), base));
    }
    let Some(run) = run else {
        return Err("no run is open: b samples from the base, f1 lists runs".to_owned());
    };
    if !run.status().is_ended() && run.status() != Status::Created {
        // Its own worker answers between two steps, with the weights that it has then.
        return Ok((format!("trained {} (current weights)", run.id()), format!("{}@last", run.path().display())));
    }
    if run.history.checkpoints.is_empty() {
        return Err(format!("{} has no checkpoint yet: b samples from its base", run.id()));
    }
    let kept: Vec<u64> = run.history.checkpoints.keys().copied().collect();
    let best = directory.and_then(|directory| run.history.best_step_by(&kept, directory.file().config.keep_best_by));
    let what = if best == Some(0) { "base, step 0 of" } else { "trained" };
    Ok((format!("{what} {}@best", run.id()), format!("{}@best", run.path().display())))
}

/// The prompt of the completion under the cursor, where the open task has it; else the first one that the training does not see.
fn row(model: &Model) -> Option<&PromptRow> {
    let scored = model.scores.scored.as_ref();
    let here = listing::selected(model).and_then(|place| scored?.items.all.get(place)?.row.as_ref().map(|row| row.id.clone()));
    let open = model.shared.task.as_ref()?;
    let first = || {
        let sets = [PromptSet::Eval, PromptSet::Test, PromptSet::Train];
        sets.into_iter().find_map(|set| open.rows.get(&set)?.as_ref().ok()?.first())
    };
    here.and_then(|id| model.shared.row(&id)).or_else(first)
}

/// Draw.
pub(super) fn draw(model: &mut Model) -> Vec<Command> {
    cancel(model);
    let (plan, task) = match (plan(model), task_argument(model)) {
        (Ok(plan), Some(task)) => (plan, task),
        (Err(why), _) => {
            model.shared.complain(why);
            return Vec::new();
        }
        (_, None) => return Vec::new(),
    };
    let seed = model.scores.drawings;
    model.scores.drawings += 1;
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
    arguments.extend(["--runs".to_owned(), model.shared.places.for_new_runs().display().to_string(), "--json".to_owned()]);
    // A worker keeps the model loaded for the next drawing, and gives its device to any run.
    arguments.push("--worker".to_owned());
    arguments.extend(model.launch.form.device_arguments());
    let call = Call { program: model.shared.options.program.clone(), here: model.shared.options.here.clone(), arguments };
    let cancel = CancelToken::default();
    let what = format!("{COMPLETIONS} completions of {} from {}", plan.prompt_id, plan.name);
    (model.scores.not_drawn, model.scores.fresh) = (None, true);
    model.scores.drawing = Some(SamplingJob { cancel: cancel.clone(), what, told: String::new(), since_ms: model.shared.now_ms });
    let from = format!("{}, sampling {}", plan.name, seed + 1);
    vec![Work::stream("scores.draw", move |outlet| {
        let outcome = call.run(&cancel, &mut |said| {
            let from = from.clone();
            outlet.put(move |model| heard(model, said, &from));
        });
        outlet.put(move |model| ended(model, outcome));
    })]
}

/// End the drawing.
pub(super) fn cancel(model: &mut Model) {
    if let Some(drawing) = model.scores.drawing.take() {
        drawing.cancel.now();
    }
}

fn heard(model: &mut Model, said: Said, from: &str) -> Vec<Command> {
    match said {
        Said::Progress(line) => {
            if let Some(drawing) = &mut model.scores.drawing {
                drawing.told = line;
            }
            Vec::new()
        }
        Said::Result(line) => {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(&line) else { return Vec::new() };
            let Some(text) = value["completion"].as_str() else { return Vec::new() };
            let prompt_id = value["prompt_id"].as_str().map(str::to_owned);
            let scores = &mut model.scores;
            scores.drawn.push(Written { text: text.to_owned(), prompt_id, from: from.to_owned(), is_apart: true });
            if scores.source != Source::Drawn || scores.fresh {
                // The first of a drawing: all filters off, and the cursor on it.
                (scores.only, scores.class, scores.order, scores.fresh) = Default::default();
                listing::arrange(model);
                let commands = source::turn_to(model, Source::Drawn);
                model.scores.cursor = Cursor { index: model.scores.drawn.len() - 1 };
                return commands;
            }
            source::load(model)
        }
    }
}

fn ended(model: &mut Model, outcome: Result<Option<Ended>, String>) -> Vec<Command> {
    model.scores.drawing = None;
    let failure = match outcome {
        Ok(Some(ended)) if !ended.success => ended.reason(),
        Err(error) => error,
        Ok(_) => return Vec::new(),
    };
    let text = format!("sampling failed: {failure}");
    model.shared.complain(text.clone());
    model.scores.not_drawn = Some(text);
    Vec::new()
}
