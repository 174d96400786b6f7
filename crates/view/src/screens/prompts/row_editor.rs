//! The editor of a row's turns, its expected answer, or the task's system text, with checks while typing.

use std::path::Path;

use super::editing::{
    DraftTarget, EditTarget, Editing, FoundText, Validity, current_value, expected_of, find,
    turns_of,
};
use super::{Prompts, preview};
use crate::drafts::files::{DraftFile, Location, Record};
use crate::drafts::{self, DraftActions, Drafted};
use crate::interaction;
use crate::message::Command;
use crate::popup::{Confirm, Popup};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::widgets::editor::{Editor, Effect};

pub(super) fn begin(prompts: &mut Prompts, shared: &mut Shared, what: EditTarget) -> Vec<Command> {
    let Some(task) = shared.task.clone() else {
        return Vec::new();
    };
    if let Some(editing) = prompts
        .editing
        .as_ref()
        .filter(|editing| editing.is_changed())
    {
        let title = editing.title();
        return shared.complain(format!("{title} is unsaved: save or discard it first"));
    }
    let commands = drafts::store(prompts, shared);
    let (row, start) = current_value(&task, what);
    let text = start.clone();
    let cursor = (usize::from(matches!(what, EditTarget::New(..))), 0);
    open(
        prompts,
        shared,
        FoundText {
            what,
            row,
            gone: None,
            start,
            note: None,
        },
        &text,
        cursor,
    );
    commands
}

pub(super) fn open(
    prompts: &mut Prompts,
    shared: &mut Shared,
    found: FoundText,
    text: &str,
    cursor: (usize, usize),
) {
    let Some(task) = shared.task.clone() else {
        return;
    };
    let FoundText {
        what,
        row,
        gone,
        start,
        ..
    } = found;
    let mut editor = Editor::new(
        text,
        matches!(what, EditTarget::Expected(_) | EditTarget::NewExpected(..)),
    );
    editor.go_to(cursor.0, cursor.1);
    let file = drafts::begin::<Prompts>(shared, &task.task);
    let validity = Validity::Valid(String::new());
    prompts.editing = Some(Editing {
        what,
        editor,
        validity,
        row,
        gone,
        file,
        start,
        theirs: None,
    });
    prompts.filter.is_typing = false;
    check(prompts, shared);
    after(prompts, shared, Effect::Moved);
}

/// After the task was read again: editing continues at the new position of the row. If the text itself changed on disk,
/// the user decides.
pub(super) fn follow_task(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let (Some(open), Some(editing)) = (&shared.task, &mut prompts.editing) else {
        return Vec::new();
    };
    let Ok(found) = find(open, &editing.target()) else {
        return Vec::new();
    };
    if found.gone == editing.gone
        && (found.start == editing.start || found.start == editing.editor.text())
    {
        editing.follow(found);
        return Vec::new();
    }
    let (is_changed, is_gone) = (editing.is_changed(), found.gone.is_some());
    editing.theirs = Some(found);
    match (is_changed, is_gone) {
        (true, _) => Vec::new(),
        (false, true) => close(prompts, shared),
        (false, false) => resolve_conflict(prompts, shared, true),
    }
}

pub(super) fn resolve_conflict(
    prompts: &mut Prompts,
    shared: &mut Shared,
    load: bool,
) -> Vec<Command> {
    let Some(editing) = &mut prompts.editing else {
        return Vec::new();
    };
    let Some(found) = editing.theirs.take() else {
        return Vec::new();
    };
    let text = found.start.clone();
    // For a deleted row the note says what saving does.
    let message = found
        .note
        .clone()
        .filter(|_| found.gone.is_some())
        .unwrap_or_else(|| drafts::KEPT.to_owned());
    editing.follow(found);
    if load {
        editing.editor.replace(&text);
    }
    shared.say(if load {
        drafts::LOADED.to_owned()
    } else {
        message
    });
    after(prompts, shared, Effect::Edited);
    drafts::store(prompts, shared)
}

pub(super) fn check(prompts: &mut Prompts, shared: &Shared) {
    let scorer = shared.scorer();
    let Some(editing) = &mut prompts.editing else {
        return;
    };
    editing.validity = match editing.what {
        EditTarget::Messages(_) | EditTarget::New(..) => match turns_of(editing) {
            Ok(turns) => Validity::Valid(format!(
                "{} turn{}",
                turns.len(),
                if turns.len() == 1 { "" } else { "s" }
            )),
            Err(error) => Validity::Invalid(error),
        },
        EditTarget::Expected(_) | EditTarget::NewExpected(..) => {
            match (expected_of(editing), scorer) {
                (Err(error), _) => Validity::Invalid(error),
                (Ok(serde_json::Value::Null), _) => {
                    Validity::Warning("empty: no expected answer".to_owned())
                }
                (Ok(value), Some(scorer)) => {
                    let score = scorer
                        .expected_completion(&value, None)
                        .map(|answer| scorer.score(&answer, None));
                    match score.as_ref().and_then(|score| score.errors.first()) {
                        // The path of the whole answer is empty.
                        Some(error) => {
                            let what = format!("{} {}", error.instance_path, error.message);
                            Validity::Warning(format!("rejected: {}", what.trim()))
                        }
                        None if score.is_none() => Validity::Valid("JSON".to_owned()),
                        None => Validity::Valid("valid (as edited on Schema)".to_owned()),
                    }
                }
                (Ok(_), None) => Validity::Valid("JSON".to_owned()),
            }
        }
        EditTarget::System => match editing.editor.text().trim().is_empty() {
            true => Validity::Warning("empty: no system prompt".to_owned()),
            false => Validity::Valid(String::new()),
        },
    };
}

fn after(prompts: &mut Prompts, shared: &mut Shared, effect: Effect) -> Vec<Command> {
    if effect != Effect::None {
        interaction::follow(prompts, shared);
    }
    changed(prompts, shared, effect)
}

pub(super) fn changed(prompts: &mut Prompts, shared: &mut Shared, effect: Effect) -> Vec<Command> {
    if effect == Effect::Edited {
        check(prompts, shared);
    }
    Vec::new()
}

pub(super) fn with(
    prompts: &mut Prompts,
    shared: &mut Shared,
    act: impl FnOnce(&mut Editor) -> Effect,
) -> Vec<Command> {
    // Text typed while saving would be lost when the editor closes.
    if shared.is_busy("task.rows") {
        return Vec::new();
    }
    let Some(editing) = &mut prompts.editing else {
        return Vec::new();
    };
    let effect = act(&mut editing.editor);
    after(prompts, shared, effect)
}

pub(super) fn leave(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    match &prompts.editing {
        Some(editing) if editing.is_changed() => {
            let ask = Confirm::new(
                "Discard changes?",
                format!("Unsaved: {}.", editing.title()),
                "discard",
                close,
            );
            shared.open_popup(Popup::Confirm(ask))
        }
        _ => close(prompts, shared),
    }
}

/// Closes the editor: the text is discarded or unchanged.
fn close(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    prompts
        .editing
        .take()
        .map_or_else(Vec::new, |editing| drafts::remove(shared, editing.file))
}

impl Drafted for Prompts {
    const SCREEN: Screen = Screen::Prompts;
    const STEM: &'static str = "prompts";
    const ACTIONS: DraftActions = DraftActions {
        take: "prompts.take",
        keep: "prompts.own",
        discard: "prompts.discard",
        difference: "prompts.difference",
    };
    const WORK: &'static str = "prompts.drafts";

    fn draft_file<'a>(&'a mut self, _: &'a mut Shared) -> Option<&'a mut DraftFile> {
        self.editing.as_mut().map(|editing| &mut editing.file)
    }

    fn texts(&self, _: &Shared) -> Option<(String, String)> {
        self.editing
            .as_ref()
            .map(|editing| (editing.start.clone(), editing.editor.text()))
    }

    fn title(&self) -> String {
        self.editing
            .as_ref()
            .map_or("text", |editing| editing.title())
            .to_owned()
    }

    fn write(&self, shared: &Shared, text: String) -> String {
        let Some(editing) = &self.editing else {
            return text;
        };
        let (of, cursor) = (serde_json::json!(editing.target()), editing.editor.cursor());
        let record = Record {
            task: editing.file.task.clone(),
            of,
            cursor,
            time_ms: shared.now_ms,
            text,
        };
        format!("{:#}\n", serde_json::json!(record))
    }

    fn read(_: &Path, text: String, _: u64) -> Result<Record, String> {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    fn is_free(&self) -> bool {
        self.editing.is_none()
    }

    fn is_typing(&self) -> bool {
        crate::screen::Screen::is_typing(self)
    }

    fn locate(&self, shared: &Shared, record: &Record) -> Result<Location, String> {
        let (target, found) = target_of(shared, record)?;
        Ok(Location {
            title: target.title(),
            current: found.start,
            note: found.note,
        })
    }

    fn restore(&mut self, shared: &mut Shared, record: &Record) -> Result<Vec<Command>, String> {
        let (_, found) = target_of(shared, record)?;
        let entry = found.what.entry();
        open(self, shared, found, &record.text, record.cursor);
        let is_row =
            |index: &u32| entry.is_some() && self.entries.get(*index as usize).copied() == entry;
        let Some(place) = self.shown.iter().position(is_row) else {
            return Ok(Vec::new());
        };
        self.cursor.index = place;
        Ok(preview::show(self, shared))
    }

    fn on_disk(&self, _: &Shared) -> Option<String> {
        Some(self.editing.as_ref()?.theirs.as_ref()?.start.clone())
    }

    fn resolve_conflict(&mut self, shared: &mut Shared, load: bool) -> Vec<Command> {
        resolve_conflict(self, shared, load)
    }
}

fn target_of(shared: &Shared, record: &Record) -> Result<(DraftTarget, FoundText), String> {
    let open = shared
        .task
        .as_ref()
        .ok_or_else(|| shared.no_task().unwrap_or_default())?;
    let target: DraftTarget =
        serde_json::from_value(record.of.clone()).map_err(|error| error.to_string())?;
    let found = find(open, &target)?;
    Ok((target, found))
}
