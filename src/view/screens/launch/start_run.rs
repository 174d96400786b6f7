//! Launching: this program's own `train --detach`, which makes the run and waits for its worker's first word.

use std::path::PathBuf;

use crate::run::{DeviceChoice, RunDirectory};
use crate::view::app::Model;
use crate::view::message::{Command, Work};
use crate::view::popup::{Confirm, Popup};
use crate::view::screens::Screen;
use crate::view::subprocess::{Call, Ended, Said, task_argument};

/// The arguments of `grpo-tui train` for the form as it stands; `None` without a task.
pub(super) fn train_arguments(model: &Model) -> Option<Vec<String>> {
    Some(arguments(model, task_argument(model)?, true))
}

fn arguments(model: &Model, task: String, with_runs: bool) -> Vec<String> {
    let mut arguments = vec!["train".to_owned(), task];
    arguments.extend(model.launch.form.arguments());
    if with_runs {
        arguments.extend(["--runs".to_owned(), model.shared.places.for_new_runs().display().to_string()]);
    }
    arguments
}

/// What a launch adds to the arguments of a forecast.
fn launching(model: &Model) -> impl Iterator<Item = String> {
    let name = &model.launch.form.name;
    let name = (!name.is_empty()).then(|| format!("--name={name}"));
    std::iter::once("--detach".to_owned()).chain(name)
}

/// The same as a person would type it in the shell that started the view: it trains the same task, and makes the run in the same place.
pub(super) fn command_line(model: &Model) -> String {
    let Some(open) = &model.shared.task else { return String::new() };
    let options = &model.shared.options;
    let there =
        if options.shell == options.here { String::new() } else { format!("cd {} && ", quoted(&options.here.display().to_string())) };
    let words = arguments(model, open.typed.clone(), model.shared.places.is_given()).into_iter().chain(launching(model));
    let words: Vec<String> = words.map(|word| quoted(&word)).collect();
    format!("{there}grpo-tui {}", words.join(" "))
}

fn quoted(word: &str) -> String {
    let is_plain = !word.is_empty() && word.chars().all(|letter| letter.is_alphanumeric() || "-_=./@:+".contains(letter));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// Why nothing can be started now.
pub(super) fn blocked(model: &Model) -> Option<String> {
    if model.shared.task.is_none() {
        return Some(model.shared.task_error.clone().unwrap_or_else(|| "task is still loading".to_owned()));
    }
    if let Some(problem) = &model.launch.problem {
        return Some(problem.clone());
    }
    model.shared.is_busy("launch.start").then(|| "a run is already starting".to_owned())
}

/// Start the run. A schema that is not saved is asked about first: the run takes the file.
pub(super) fn start(model: &mut Model) -> Vec<Command> {
    if !model.shared.draft.is_changed() {
        return launch(model);
    }
    let save = model.shared.key_of("schema.save");
    let save = save.map_or_else(String::new, |key| format!(" ({key} on the schema's screen, f2)"));
    let text = format!(
        "The schema in the editor is not saved. The run uses the saved file, not what Schema and Scores show.\nCancel to save first{save}, or start with the saved file."
    );
    model.shared.popup = Some(Popup::Confirm(Confirm::new("Schema not saved", text, "start with saved file", launch)));
    Vec::new()
}

fn launch(model: &mut Model) -> Vec<Command> {
    let Some(mut arguments) = train_arguments(model) else { return Vec::new() };
    arguments.extend(launching(model));
    arguments.push("--json".to_owned());
    // A forecast that is still being made would only slow the run down.
    super::forecast::cancel(model);
    model.launch.failure = None;
    let call = Call { program: model.shared.options.program.clone(), here: model.shared.options.here.clone(), arguments };
    vec![Work::once(
        "launch.start",
        move || {
            let mut document = String::new();
            // A launch is never given up half way: the worker may be running already.
            let outcome = call.run_through(&mut |said| {
                if let Said::Result(line) = said {
                    document.push_str(&line);
                }
            });
            started(outcome, &document)
        },
        |model, outcome| match outcome {
            Ok(run) => begun(model, run),
            Err(reason) => {
                let text = format!("run not started: {reason}");
                model.launch.failure = Some(text.clone());
                model.launch.scroll = 0;
                model.shared.complain(text);
                Vec::new()
            }
        },
    )]
}

/// The run's folder, and what its launcher said.
struct Begun {
    path: PathBuf,
    text: String,
}

fn started(outcome: Result<Ended, String>, document: &str) -> Result<Begun, String> {
    let ended = outcome?;
    if !ended.success {
        return Err(ended.reason());
    }
    let value: serde_json::Value =
        serde_json::from_str(document).map_err(|error| format!("cannot parse the launcher's answer: {error}"))?;
    let path = value["path"].as_str().map(PathBuf::from).ok_or("the launcher returned no run id")?;
    let id = RunDirectory::open(&path).map_err(|error| error.to_string())?.id().to_owned();
    let ready = if value["ready"].as_bool() == Some(true) { "" } else { "; not ready yet" };
    Ok(Begun { path, text: format!("{id} started in the background{ready}") })
}

fn begun(model: &mut Model, run: Begun) -> Vec<Command> {
    model.launch.form.name.clear();
    let mut commands = vec![Command::ShowRun(run.path)];
    // Whoever does something else by now, or types, is not taken away from it.
    if model.shared.screen == Screen::Launch && !model.takes_text() {
        model.shared.say(run.text);
        commands.extend(vec![Command::GoTo(Screen::Live)]);
    } else {
        model.shared.say(format!("{}; f6 shows it", run.text));
    }
    commands
}

/// What the form would start, in a few words.
pub(super) fn in_words(model: &Model) -> String {
    let Some(resolved) = &model.launch.resolved else { return String::new() };
    let config = &resolved.config;
    let rows = model.shared.task.as_ref().and_then(|open| open.rows.get(&crate::task::PromptSet::Train)?.as_ref().ok().map(Vec::len));
    let steps = rows.map_or_else(String::new, |rows| format!("{} steps of ", config.total_steps(rows)));
    let device = match model.launch.form.compute {
        DeviceChoice::Any => String::new(),
        DeviceChoice::Cpu => ", CPU".to_owned(),
        DeviceChoice::Gpu(ordinal) => format!(", GPU {ordinal}"),
    };
    let model_name = super::context::short_name(&config.base_model);
    format!("{steps}{} x {}, {model_name}{device}", config.prompt_groups_per_step, config.completions_per_prompt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        let check = |word: &str, expected: &str| assert_eq!(quoted(word), expected);
        check("seed=7", "seed=7");
        check("stop_when=valid>=0.99", "'stop_when=valid>=0.99'");
        check("base_model=it's", "'base_model=it'\\''s'");
        check("", "''");
    }
}
