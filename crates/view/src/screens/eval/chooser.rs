//! Selects evals: first a run or an eval outside of runs, then one to three of its evals.

use std::path::{Path, PathBuf};

use ratatui::text::{Line, Span};

use super::{Chooser, Eval};
use crate::message::{Command, Work};
use crate::pane::content::{Content, List};
use crate::report::list_evals;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::list_cursor::Cursor;
use crate::widgets::text_width::fitted;

pub(super) fn open(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let runs = shared.runs.listing.entries().iter().rev().map(|entry| {
        let row = entry.row.as_ref().ok();
        let name = row.map_or_else(String::new, |row| {
            format!("  {} {}", row.directory.name(), row.status.name())
        });
        (entry.path.clone(), format!("run   {}{name}", entry.id()))
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
    vec![Work::once(
        "eval.chooser",
        move || evals(&own),
        |eval: &mut Eval, _, found| {
            if let Some(chooser) = &mut eval.chooser {
                chooser.folders.extend(found);
            }
            Vec::new()
        },
    )]
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
            (path, format!("eval  {name}"))
        })
        .collect();
    found.sort_by(|a, b| b.0.cmp(&a.0));
    found
}

/// Opens the run under the cursor, or selects the eval.
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
        move || list_evals(&folder).map_err(|error| error.to_string()),
        |eval: &mut Eval, _, evals| {
            if let Some(chooser) = &mut eval.chooser {
                chooser.evals = Some(evals);
                chooser.eval = Cursor::default();
            }
            Vec::new()
        },
    )]
}

/// Toggles the selection of the eval under the cursor.
pub(super) fn pick(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let Some(chooser) = &mut eval.chooser else {
        return Vec::new();
    };
    let Some(Ok(evals)) = &chooser.evals else {
        return enter(eval, shared);
    };
    let Some(eval) = chooser.eval.at(evals.len()).and_then(|at| evals.get(at)) else {
        return Vec::new();
    };
    match chooser.picked.iter().position(|picked| picked == eval) {
        Some(place) => drop(chooser.picked.remove(place)),
        None if chooser.picked.len() < 3 => chooser.picked.push(eval.clone()),
        None => {
            let key = shared.key_of("eval.chooser.pick");
            shared.complain(format!("three evals are selected: deselect one with {key}"));
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
            "select one to three evals first ({})",
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

/// Goes back to the runs, or closes the chooser.
pub(super) fn back(eval: &mut Eval, _: &mut Shared) -> Vec<Command> {
    match &mut eval.chooser {
        Some(chooser) if chooser.evals.is_some() => chooser.evals = None,
        _ => eval.chooser = None,
    }
    Vec::new()
}

/// The cursor of the visible list.
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

/// The list, and the selected evals above it.
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
            "Nothing selected: {open} opens a run, {select} selects, {compare} shows one, or compares two or three."
        )
    } else {
        format!("Selected: {}", picked.join(", "))
    };
    let row = move |text: &str, is_picked: bool| {
        let mark = if is_picked {
            theme.glyph("◆", "+")
        } else {
            " "
        };
        Line::from(vec![
            Span::styled(format!("{mark} "), theme.style(Role::Accent)),
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
            let eval = &evals[place];
            row(
                &format!("{:<8} {}", eval.set, eval.name(false)),
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
            Line::styled(fitted(&picked, width), theme.style(Role::Marked)),
            Line::default(),
        ],
        empty: vec![Line::styled(nothing, theme.style(role))],
        ..Content::titled(title).list(List::new(chooser.length(), cursor, line))
    }
}
