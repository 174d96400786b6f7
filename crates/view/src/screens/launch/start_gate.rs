//! The gate before a start: unsaved schemas and findings of the checks are asked about; the prompt sets are read in
//! the background.

use super::forecast::DataChecks;
use super::{Launch, judge, start_run};
use crate::message::{Command, Work};
use crate::pane::page::mark;
use crate::plan::preflight::{Severity, read_data, titles};
use crate::popup::{Confirm, Popup};
use crate::score::Task;
use crate::screens::Screen;
use crate::shared::Shared;
use crate::widgets::text_width::fitted;

/// Rows of the question before a start besides the findings: tabs, hints, frame, answers, what was not checked.
const OTHER_ROWS: u16 = 9;
/// Of 24 rows; a question with more rows lists more findings.
const MIN_FINDINGS: usize = 4;

/// Marks what was read as old after a change of the task or a file, and restarts a read in progress.
pub(super) fn invalidate(launch: &mut Launch, shared: &Shared) -> Vec<Command> {
    launch.data.iter_mut().for_each(|data| data.is_old = true);
    if shared.is_busy("launch.data") {
        read_now(shared)
    } else {
        Vec::new()
    }
}

/// Reads the prompt sets, unless that is known or in progress; what kept them from being read may be gone.
pub(super) fn read(launch: &Launch, shared: &Shared) -> Vec<Command> {
    let is_known = launch
        .data
        .as_ref()
        .is_some_and(|data| !data.is_old && data.found.is_ok());
    if is_known || shared.is_busy("launch.data") {
        Vec::new()
    } else {
        read_now(shared)
    }
}

fn read_now(shared: &Shared) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let read = move || {
        // Loads the task as the run will: the schema may have been saved since the task was opened.
        let task = open
            .task
            .folder()
            .map_or_else(|| Ok(open.task.clone()), Task::load);
        let task = task.map_err(|error| error.to_string())?;
        // The form shows the folder, so that messages need not repeat it.
        let folder = task
            .folder()
            .map_or_else(String::new, |folder| format!("{}/", folder.display()));
        let short = |text: String| {
            if folder.is_empty() {
                text
            } else {
                text.replace(&folder, "")
            }
        };
        let mut found = read_data(&task).map_err(|error| short(error.to_string()))?;
        found
            .iter_mut()
            .for_each(|problem| problem.message = short(std::mem::take(&mut problem.message)));
        Ok(found)
    };
    vec![Work::once(
        "launch.data",
        read,
        |launch: &mut Launch, shared, found| {
            launch.data = Some(DataChecks {
                found,
                is_old: false,
            });
            judge(launch, shared);
            match launch.start_after_checks.take() {
                // A user who has turned to something else is not interrupted.
                Some(keys) if keys == shared.keys && shared.screen == Screen::Launch => {
                    ask(launch, shared)
                }
                Some(_) => shared.say(format!(
                    "preflight finished: {} starts",
                    shared.key_of("launch.start")
                )),
                None => Vec::new(),
            }
        },
    )]
}

/// Starts the run; asks first if the schema is not saved, since the run uses the file.
pub(super) fn start(launch: &mut Launch, shared: &mut Shared) -> Vec<Command> {
    if !shared.draft.is_changed() {
        return check_and_start(launch, shared);
    }
    let (save, schema) = (shared.key_of("schema.save"), shared.key_of("screen.schema"));
    let name = shared.draft.name();
    let text = format!(
        "The {name} in the editor is not saved. The run uses the saved file, not what Schema and Scores show.\nCancel to save first ({save} on Schema, {schema}), or start with the saved file."
    );
    shared.open_popup(Popup::Confirm(Confirm::new(
        "Schema not saved",
        text,
        "start with saved file",
        check_and_start,
    )))
}

/// Reads the prompt sets if they are not known; then starts the run, or asks first if something was found.
fn check_and_start(launch: &mut Launch, shared: &mut Shared) -> Vec<Command> {
    if launch.data.as_ref().is_none_or(|data| data.is_old) {
        launch.start_after_checks = Some(shared.keys);
        return read(launch, shared);
    }
    ask(launch, shared)
}

fn ask(launch: &mut Launch, shared: &mut Shared) -> Vec<Command> {
    let found = &launch.preflight;
    // Asked once: the same findings again are no news.
    if found.findings.is_empty() || launch.accepted == found.findings {
        return start_run::start_now(launch, shared);
    }
    let (columns, rows) = shared.size;
    let columns = usize::from(columns.min(Confirm::MAX_COLUMNS).saturating_sub(2));
    let rows = usize::from(rows.saturating_sub(OTHER_ROWS));
    let most = found.findings.len().min(MIN_FINDINGS.max(rows / 3));
    // Lines break at words, so that some of their columns stay empty.
    let columns = columns * (rows / most.max(1)).max(1) * 4 / 5;
    let mut lines: Vec<String> = found
        .findings
        .iter()
        .take(most)
        .map(|finding| {
            let mark = mark(finding.severity.into());
            let text = format!("{mark}{}: {}", finding.check.title(), finding.message);
            fitted(&text, columns)
        })
        .collect();
    if let Some(more) = found
        .findings
        .len()
        .checked_sub(most)
        .filter(|more| *more > 0)
    {
        lines.push(format!("and {more} more, listed under preflight"));
    }
    if !found.not_checked.is_empty() {
        lines.push(format!(
            "Not checked: {}.",
            titles(found.not_checked.iter().copied())
        ));
    }
    let verb = match found.count(Severity::Error) {
        0 => "start anyway",
        _ => "start despite errors",
    };
    let title = format!("Before the start: {}", found.summary());
    let asked = found.findings.clone();
    // Findings made meanwhile are asked about, too.
    let accept = |launch: &mut Launch, shared: &mut Shared| {
        launch.accepted = asked;
        check_and_start(launch, shared)
    };
    shared.open_popup(Popup::Confirm(Confirm::new(
        title,
        lines.join("\n"),
        verb,
        accept,
    )))
}
