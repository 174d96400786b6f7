//! Labelling answers for a check of the task's judge: one key a criterion, undo, progress; each label is saved at once.
//! The judge's own grades are not shown meanwhile.

use std::sync::Arc;

use ratatui::layout::Rect;
use ratatui::text::Line;

use super::label_queue::{LabelQueue, begin};
use super::{LABELS, Scores};
use crate::format::counted;
use crate::judge_check::{MAX_LABELS, MIN_LABELS, criteria_of, write_labels};
use crate::message::{Command, Work};
use crate::pane::content::Content;
use crate::secrets::visible_lines;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::list_cursor::Cursor;
use crate::widgets::text_width::wrapped;

pub(super) fn blocked(scores: &Scores, shared: &Shared) -> Option<String> {
    let task = shared.task.as_ref().map(|open| &open.task);
    shared.no_task().or_else(|| match task {
        Some(task) if criteria_of(task).is_empty() => Some("no judge scores this task".to_owned()),
        Some(task) if task.folder().is_none() => {
            Some("the task has no folder for labels: copy it first".to_owned())
        }
        _ if scores.items.all.iter().all(|item| item.row.is_none()) => {
            Some("no completion here answers a prompt of the task".to_owned())
        }
        _ => None,
    })
}

/// Reads the labels of the task, then asks for those that are missing.
pub(super) fn start(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let items = Arc::clone(&scores.items);
    let compute = move || begin(&open.task, items);
    vec![Work::once(
        "scores.labels",
        compute,
        |scores: &mut Scores, shared: &mut Shared, begun| match begun {
            Ok(begun) => {
                scores.label_top = Cursor::default();
                scores.labelling = Some(begun);
                Vec::new()
            }
            Err(why) => shared.complain(why),
        },
    )]
}

/// Writes the whole file: it is small, and the newest counts.
fn save(queue: &LabelQueue) -> Vec<Command> {
    let (path, labels) = (queue.path.clone(), queue.labels.clone());
    let compute = move |_: &crate::message::Sender| write_labels(&path, &labels).err();
    vec![Work::latest(
        "scores.labels",
        compute,
        |_: &mut Scores, shared: &mut Shared, failed| match failed {
            Some(error) => shared.complain(error.to_string()),
            None => Vec::new(),
        },
    )]
}

/// Why a key is not a label of the criterion that is asked for. `is_word`: yes or no.
pub(super) fn unfit(scores: &Scores, is_word: bool) -> Option<String> {
    let Some((_, criterion)) = scores.labelling.as_ref().and_then(LabelQueue::asked) else {
        return Some("no answer is left to label".to_owned());
    };
    let (fits, takes) = match criterion.max_points {
        1 => (is_word, "y or n"),
        _ => (!is_word, "0 to 4"),
    };
    (!fits).then(|| format!("`{}` takes {takes}", criterion.name))
}

pub(super) fn label(scores: &mut Scores, points: u8) -> Vec<Command> {
    let Some(labelling) = &mut scores.labelling else {
        return Vec::new();
    };
    let (at, criterion) = (labelling.at, labelling.criterion);
    let Some(place) = labelling.open.get(at).copied() else {
        return Vec::new();
    };
    labelling.set(place, criterion, Some(points));
    labelling.done.push((at, criterion, true));
    labelling.next();
    scores.label_top = Cursor::default();
    save(labelling)
}

pub(super) fn nothing_left(scores: &Scores, _: &Shared) -> Option<String> {
    let asked = scores.labelling.as_ref().and_then(LabelQueue::asked);
    asked
        .is_none()
        .then(|| "no answer is left to label".to_owned())
}

pub(super) fn skip(scores: &mut Scores) -> Vec<Command> {
    if let Some(labelling) = scores
        .labelling
        .as_mut()
        .filter(|labelling| labelling.asked().is_some())
    {
        labelling
            .done
            .push((labelling.at, labelling.criterion, false));
        labelling.at += 1;
        labelling.criterion = labelling.first_missing();
        scores.label_top = Cursor::default();
    }
    Vec::new()
}

pub(super) fn nothing_done(scores: &Scores, _: &Shared) -> Option<String> {
    let is_new = scores
        .labelling
        .as_ref()
        .is_none_or(|labelling| labelling.done.is_empty());
    is_new.then(|| "nothing to undo".to_owned())
}

pub(super) fn undo(scores: &mut Scores) -> Vec<Command> {
    let Some(labelling) = &mut scores.labelling else {
        return Vec::new();
    };
    let Some((at, criterion, is_label)) = labelling.done.pop() else {
        return Vec::new();
    };
    (labelling.at, labelling.criterion) = (at, criterion);
    scores.label_top = Cursor::default();
    match labelling.open.get(at).copied().filter(|_| is_label) {
        Some(place) => {
            labelling.set(place, criterion, None);
            save(labelling)
        }
        None => Vec::new(),
    }
}

pub(super) fn end(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    if let Some(labelling) = scores.labelling.take() {
        let count = labelling.labels.len();
        let task = shared
            .task
            .as_ref()
            .map_or("", |open| open.task.name.as_str());
        shared.say(match count {
            ..MIN_LABELS => format!(
                "{} saved; a check needs {MIN_LABELS}",
                counted(count, "labelled answer")
            ),
            _ => format!(
                "{} saved: grpo-tui task judge-check {task}",
                counted(count, "labelled answer")
            ),
        });
    }
    Vec::new()
}

pub(super) fn content<'a>(scores: &'a Scores, shared: &'a Shared, inside: Rect) -> Content<'a> {
    let Some(labelling) = &scores.labelling else {
        return Content::titled(LABELS);
    };
    let theme = &shared.theme;
    let faint = |text: String| theme.line(text, Role::Faint);
    let columns = usize::from(inside.width);
    let left = labelling.open.len().saturating_sub(labelling.at);
    let count = labelling.labels.len();
    let needed = if count < MIN_LABELS {
        format!("{MIN_LABELS} needed")
    } else {
        format!("at most {MAX_LABELS}")
    };
    let mut head = vec![faint(format!(
        "{count} labelled, {needed}; {left} left here; judge's grades hidden"
    ))];
    let Some((place, criterion)) = labelling.asked() else {
        let done = if labelling.open.is_empty() {
            "Every answer here has its labels."
        } else {
            "All labelled."
        };
        let task = shared
            .task
            .as_ref()
            .map_or("", |open| open.task.name.as_str());
        let end = shared.key_of("scores.grades.end");
        head.push(Line::default());
        head.push(Line::raw(format!(
            "{done} {end} closes. Then: grpo-tui task judge-check {task}"
        )));
        return Content::titled("label answers").fixed(head);
    };
    let key = |id: &str| shared.key_of(id);
    let keys = match criterion.max_points {
        1 => format!(
            "{} yes   {} no",
            key("scores.grades.yes"),
            key("scores.grades.no")
        ),
        _ => {
            let ids = [
                "scores.grades.0",
                "scores.grades.1",
                "scores.grades.2",
                "scores.grades.3",
                "scores.grades.4",
            ];
            let names = ["not at all", "little", "half", "mostly", "fully"];
            let one = |(id, name): (&str, &str)| format!("{} {name}", key(id));
            ids.into_iter()
                .zip(names)
                .map(one)
                .collect::<Vec<_>>()
                .join("   ")
        }
    };
    head.push(theme.line(format!("{}:", criterion.name), Role::Title));
    head.extend(wrapped(&criterion.text, columns).into_iter().map(Line::raw));
    head.push(Line::from(vec![
        theme.span(keys, Role::Accent),
        theme.span(
            format!(
                "   {} skips, {} undoes",
                key("scores.grades.skip"),
                key("scores.grades.undo")
            ),
            Role::Faint,
        ),
    ]));
    if let Some(at) = labelling.label_of(place) {
        let given = labelling.labels[at]
            .labels
            .iter()
            .map(|(name, points)| format!("{name} {points}"));
        head.push(faint(format!(
            "this answer so far: {}",
            given.collect::<Vec<_>>().join(", ")
        )));
    }
    head.push(Line::default());
    let mut lines = Vec::new();
    let item = &labelling.items.all[place];
    let mut add = |title: String, text: &str| {
        lines.push(theme.line(title, Role::Faint));
        lines.extend(
            visible_lines(text)
                .lines()
                .map(|line| Line::raw(line.to_owned())),
        );
        lines.push(Line::default());
    };
    if let Some(row) = &item.row {
        for message in row
            .messages
            .iter()
            .filter(|message| message.role != "system")
        {
            add(format!("{} {}", row.id, message.role), &message.content);
        }
    }
    add("answer".to_owned(), &item.text);
    if let Some(expected) = item.row.as_ref().and_then(|row| row.expected.as_ref()) {
        add("expected".to_owned(), &expected.to_string());
    }
    let content = Content {
        head,
        ..Content::titled("label answers")
    };
    let [_, body, _] = content.parts(inside);
    content.text(body, lines, scores.label_top)
}
