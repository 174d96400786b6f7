//! Selects evals: first a run or an eval outside of runs, then one or two of its evals.

use std::path::{Path, PathBuf};

use ratatui::text::{Line, Span};
use serde::Deserialize;
use serde_json::Value;

use super::{Chooser, Eval};
use crate::facts::Target;
use crate::format::percent_short;
use crate::message::{Command, Work};
use crate::pane::content::{Content, List};
use crate::report::{EvalId, RunRow, list_evals};
use crate::run::{EvalSummary, RunState};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::list_cursor::Cursor;
use crate::widgets::text_width::fitted;

pub(super) fn open(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let runs = shared.runs.listing.entries().iter().rev().map(|entry| {
        let row = entry.row.as_ref().ok();
        let about = row.map_or_else(String::new, |row| about(row));
        (entry.path.clone(), format!("run   {}{about}", entry.id()))
    });
    let mut folders: Vec<(PathBuf, String)> = runs.collect();
    // The current run may be outside of the run folders.
    if let Some(current) = shared
        .current_run()
        .filter(|run| folders.iter().all(|(path, _)| path != run.path()))
    {
        folders.insert(
            0,
            (current.path().to_owned(), format!("run   {}", current.id())),
        );
    }
    let at = folders
        .iter()
        .position(|(path, _)| Some(path) == shared.current.as_ref())
        .unwrap_or(0);
    eval.chooser = Some(Chooser {
        folders,
        folder: Cursor { index: at },
        ..Chooser::default()
    });
    let own = super::eval_job::evals_folder(&shared.options.data);
    let of_workspace = shared.options.here.join("evals");
    vec![Work::once(
        "eval.chooser",
        move || [evals(&of_workspace), evals(&own)].concat(),
        |eval: &mut Eval, _, found| {
            if let Some(chooser) = &mut eval.chooser {
                chooser.folders.extend(found);
            }
            Vec::new()
        },
    )]
}

/// What tells a run from others: `  a name  invoice  step 40  valid 71.5%  finished`.
fn about(row: &RunRow) -> String {
    let rate = row
        .valid()
        .map(|valid| format!("valid {}", percent_short(valid)));
    let parts = [
        row.directory.name().to_owned(),
        row.directory.file().task.clone(),
        format!("step {}", row.last_step),
        rate.unwrap_or_default(),
        row.status.name().to_owned(),
    ];
    let parts = parts.iter().filter(|part| !part.is_empty());
    parts.map(|part| format!("  {part}")).collect()
}

/// Describes an eval outside of runs: `  invoice  base valid 30.0%`.
fn about_eval(folder: &Path) -> String {
    let result = result(folder);
    let task = result["task"].as_str().unwrap_or_default();
    let rate = |(name, summary): (&String, &Value)| {
        let valid = summary["valid"].as_f64()?;
        Some(format!("  {name} valid {}", percent_short(valid)))
    };
    let targets = result["targets"].as_object().into_iter().flatten();
    format!("  {task}{}", targets.filter_map(rate).collect::<String>())
}

fn result(folder: &Path) -> Value {
    let text = crate::files::read_text(&folder.join(crate::run::RESULT_FILE));
    serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default()
}

/// The evals of a folder, each with its rates: `valid 71.5%  exact 60.0%  n = 200`.
fn rated(folder: &Path) -> Result<Vec<(EvalId, String)>, String> {
    let evals = list_evals(folder).map_err(|error| error.to_string())?;
    let history = RunState::read(folder).ok();
    let result = result(folder);
    let rates = |eval: &EvalId| -> Option<String> {
        let recorded = history.as_ref().and_then(|history| {
            let target = Target::from_name(&eval.target)?;
            Some(history.eval(eval.step, &eval.set, target)?.summary.clone())
        });
        // With confidences the folder has the eval set, too, whose rates are not in the result.
        let is_its = result["set"] == eval.set.to_string();
        let own = || {
            let own = &result["targets"][&eval.target];
            EvalSummary::deserialize(own).ok().filter(|_| is_its)
        };
        let summary = recorded.or_else(own)?;
        let exact = summary.exact.map_or_else(String::new, |exact| {
            format!("  exact {}", percent_short(exact))
        });
        let valid = percent_short(summary.valid);
        Some(format!("valid {valid}{exact}  n = {}", summary.n))
    };
    let rated = evals.into_iter().map(|eval| {
        let rates = rates(&eval).unwrap_or_default();
        (eval, rates)
    });
    Ok(rated.collect())
}

/// Evals outside of runs that have a result, newest first.
fn evals(folder: &Path) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(PathBuf, String)> = entries
        .map(|entry| entry.path())
        .filter(|path| path.join(crate::run::RESULT_FILE).is_file())
        .map(|path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let label = format!("eval  {name}{}", about_eval(&path));
            (path, label)
        })
        .collect();
    found.sort_by(|a, b| b.0.cmp(&a.0));
    found
}

pub(super) fn enter(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let Some(chooser) = &mut eval.chooser else {
        return Vec::new();
    };
    if chooser.evals.is_some() {
        return pick(eval, shared);
    }
    let Some((folder, _)) = chooser
        .folder
        .at(chooser.folders.len())
        .and_then(|at| chooser.folders.get(at))
    else {
        return Vec::new();
    };
    let folder = folder.clone();
    vec![Work::once(
        "eval.chooser",
        move || rated(&folder),
        |eval: &mut Eval, _, evals| {
            if let Some(chooser) = &mut eval.chooser {
                chooser.evals = Some(evals);
                chooser.eval = Cursor::default();
            }
            Vec::new()
        },
    )]
}

pub(super) fn pick(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let Some(chooser) = &mut eval.chooser else {
        return Vec::new();
    };
    let Some(Ok(evals)) = &chooser.evals else {
        return enter(eval, shared);
    };
    let Some((eval, _)) = chooser.eval.at(evals.len()).and_then(|at| evals.get(at)) else {
        return Vec::new();
    };
    match chooser.picked.iter().position(|picked| picked == eval) {
        Some(place) => drop(chooser.picked.remove(place)),
        None if chooser.picked.len() < 2 => chooser.picked.push(eval.clone()),
        None => {
            let key = shared.key_of("eval.chooser.pick");
            shared.complain(format!("two evals are selected: deselect one with {key}"));
        }
    }
    Vec::new()
}

/// Why the selected evals cannot be shown yet.
pub(super) fn no_compare(eval: &Eval, shared: &Shared) -> Option<String> {
    let none = eval
        .chooser
        .as_ref()
        .is_none_or(|chooser| chooser.picked.is_empty());
    none.then(|| {
        format!(
            "select one or two evals first ({})",
            shared.key_of("eval.chooser.pick")
        )
    })
}

pub(super) fn compare(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let picked = eval
        .chooser
        .take()
        .map_or_else(Vec::new, |chooser| chooser.picked);
    super::show(eval, shared, picked)
}

pub(super) fn back(eval: &mut Eval, _: &mut Shared) -> Vec<Command> {
    match &mut eval.chooser {
        Some(chooser) if chooser.evals.is_some() => chooser.evals = None,
        _ => eval.chooser = None,
    }
    Vec::new()
}

pub(super) fn cursor(chooser: &mut Chooser) -> &mut Cursor {
    if chooser.evals.is_some() {
        &mut chooser.eval
    } else {
        &mut chooser.folder
    }
}

impl Chooser {
    pub(super) fn length(&self) -> usize {
        self.evals.as_ref().map_or(self.folders.len(), |evals| {
            evals.as_ref().map_or(0, Vec::len)
        })
    }
}

pub(super) fn content<'a>(shared: &'a Shared, chooser: &'a Chooser, width: usize) -> Content<'a> {
    let theme = &shared.theme;
    let title = match &chooser.evals {
        None => "Choose evals: select a run".to_owned(),
        Some(_) => {
            let at = chooser
                .folder
                .at(chooser.folders.len())
                .and_then(|at| chooser.folders.get(at));
            format!("Evals of {}", at.map_or("", |(_, label)| label.trim()))
        }
    };
    let picked: Vec<String> = chooser
        .picked
        .iter()
        .map(|eval| format!("{} on {}", eval.name(true), eval.set))
        .collect();
    let picked = if picked.is_empty() {
        let [open, select, compare] =
            ["open", "pick", "compare"].map(|id| shared.key_of(&format!("eval.chooser.{id}")));
        format!(
            "Nothing selected: {open} opens a run, {select} selects, {compare} shows one, or compares two."
        )
    } else {
        format!("Selected: {}", picked.join(", "))
    };
    let row = move |text: &str, is_picked: bool| {
        let mark = if is_picked { "◆" } else { " " };
        Line::from(vec![
            theme.span(format!("{mark} "), Role::Accent),
            Span::raw(fitted(text, width.saturating_sub(3))),
        ])
    };
    let line = move |place: usize| match &chooser.evals {
        None => {
            let (path, label) = &chooser.folders[place];
            row(
                label,
                chooser.picked.iter().any(|eval| eval.folder == *path),
            )
        }
        Some(Ok(evals)) => {
            let (eval, rates) = &evals[place];
            row(
                &format!("{:<8} {:<12} {rates}", eval.set, eval.name(false)),
                chooser.picked.contains(eval),
            )
        }
        Some(Err(_)) => Line::default(),
    };
    let (nothing, role) = match &chooser.evals {
        None => (
            format!(
                "No runs yet: press {} to start one.",
                shared.key_of("screen.launch")
            ),
            Role::Faint,
        ),
        Some(Err(error)) => (error.clone(), Role::Bad),
        Some(Ok(_)) => ("No evals yet.".to_owned(), Role::Faint),
    };
    let cursor = if chooser.evals.is_some() {
        chooser.eval
    } else {
        chooser.folder
    };
    Content {
        head: vec![
            theme.line(fitted(&picked, width), Role::Marked),
            Line::default(),
        ],
        empty: vec![theme.line(nothing, role)],
        ..Content::titled(title).list(List::new(chooser.length(), cursor, line))
    }
}
