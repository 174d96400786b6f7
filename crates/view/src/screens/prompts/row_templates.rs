//! Edits several rows by a template: the marked rows, else those that the filter leaves.

use serde_json::{Map, Value};

use super::editing::{EditTarget, Validity};
use super::table_row::{Entry, row};
use super::{Prompts, TemplatePreview, save};
use crate::dataset::{PromptRow, RowTemplate};
use crate::message::{Command, Work};
use crate::popup::{Confirm, Popup};
use crate::shared::{OpenTask, Shared};
use crate::widgets::diff::{Row, difference};

pub(super) fn targets(prompts: &Prompts, shared: &Shared) -> Vec<Entry> {
    if prompts.marked.is_empty() {
        let entry = |index: &u32| prompts.entries.get(*index as usize).copied();
        return prompts.shown.iter().filter_map(entry).collect();
    }
    let is_marked = |entry: &Entry| {
        let found = shared.task.as_ref().and_then(|open| row(open, *entry));
        found.is_some_and(|row| prompts.marked.contains(&(entry.set, row.id.clone())))
    };
    prompts.entries.iter().copied().filter(is_marked).collect()
}

/// `marked` or `filtered`, or `all`.
pub(super) fn targets_in_words(prompts: &Prompts) -> String {
    let (count, kind) = match (prompts.marked.len(), prompts.shown.len()) {
        (0, shown) if shown == prompts.entries.len() => (shown, "all"),
        (0, shown) => (shown, "filtered"),
        (marked, _) => (marked, "marked"),
    };
    format!("{count} {kind} row{}", if count == 1 { "" } else { "s" })
}

pub(super) fn preview(prompts: &Prompts, shared: &Shared) -> Vec<Command> {
    let Some(editing) = prompts
        .editing
        .as_ref()
        .filter(|editing| editing.what == EditTarget::Template)
    else {
        return Vec::new();
    };
    let (Some(open), Ok(template)) = (
        shared.task.clone(),
        RowTemplate::parse(&editing.editor.text()),
    ) else {
        return Vec::new();
    };
    let (entries, here) = (targets(prompts, shared), prompts.selected());
    vec![Work::latest(
        "prompts.template",
        move |sender| {
            let mut preview = TemplatePreview {
                rows: entries.len(),
                ..TemplatePreview::default()
            };
            for entry in &entries {
                let Some(row) = row(&open, *entry) else {
                    continue;
                };
                match template.apply(row, &open.task.expected_schema()) {
                    Ok(changed) if changed.is_empty() => {}
                    Ok(_) => preview.changed += 1,
                    Err(problem) => {
                        preview.failed += 1;
                        preview
                            .failure
                            .get_or_insert_with(|| (row.id.clone(), problem));
                    }
                }
                if !sender.is_wanted() {
                    break;
                }
            }
            // The row under the cursor if it is one of them, else the first.
            let example = here
                .filter(|entry| entries.contains(entry))
                .or(entries.first().copied());
            if let Some(row) = example.and_then(|entry| row(&open, entry)) {
                preview.difference = difference_of(&template, row, &open);
            }
            preview
        },
        |prompts: &mut Prompts, _, preview| {
            if let Some(editing) = &mut prompts.editing {
                editing.validity = match &preview.failure {
                    Some((id, problem)) => Validity::Invalid(format!(
                        "{} of {} rows fail, first {id}: {problem}",
                        preview.failed, preview.rows
                    )),
                    None => Validity::Valid(format!(
                        "changes {} of {} rows",
                        preview.changed, preview.rows
                    )),
                };
            }
            prompts.template = Some(preview);
            Vec::new()
        },
    )]
}

fn difference_of(template: &RowTemplate, row: &PromptRow, open: &OpenTask) -> Vec<Row> {
    let Ok(changed) = template.apply(row, &open.task.expected_schema()) else {
        return Vec::new();
    };
    let (mut before, mut after) = (Map::new(), Map::new());
    for key in ["messages", "expected", "tags"] {
        let old = row.fields.value(key);
        let new = changed.get(key).cloned().or(old.clone());
        before.extend(old.map(|old| (key.to_owned(), old)));
        after.extend(new.map(|new| (key.to_owned(), new)));
    }
    difference(
        &Value::Object(before).to_string(),
        &Value::Object(after).to_string(),
    )
}

pub(super) fn save(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let Some(editing) = &prompts.editing else {
        return Vec::new();
    };
    let (text, preview) = (
        editing.editor.text(),
        prompts.template.clone().unwrap_or_default(),
    );
    if let Validity::Invalid(why) = &editing.validity {
        let why = format!("not saved: {why}");
        return shared.complain(why);
    }
    if preview.changed == 0 {
        return shared.complain("not saved: the template changes no row");
    }
    let sentence = format!(
        "The template changes {} of {} rows. {} undoes it.",
        preview.changed,
        preview.rows,
        shared.key_of("prompts.undo_rows")
    );
    let entries = targets(prompts, shared);
    let ask = Confirm::new(
        "Change rows?",
        sentence,
        "change",
        move |prompts: &mut Prompts, shared: &mut Shared| {
            save::edit_rows(prompts, shared, &text, entries)
        },
    );
    shared.open_popup(Popup::Confirm(ask))
}
