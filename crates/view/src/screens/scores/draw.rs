//! Panes of the scores screen: list, completion and summary, side by side if there is space.

use std::borrow::Cow;

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use super::scoring::ScoredItems;
use super::{COMPLETION, LIST, SUMMARY, Scores, Source, score_details, source, summary};
use super::{Shown, length as shown_length, selected};
use crate::advantage::GroupSignal;
use crate::format::{counted, short_id};
use crate::help::Fault;
use crate::pane::content::{Body, Content, Edited, List, Place};
use crate::screen::Screen as _;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::editor::Editor;
use crate::widgets::text_width::{fitted_end, padded, wrapped, wrapped_line};

const SIDE_BY_SIDE: u16 = 72;

pub(super) fn places(scores: &Scores, shared: &Shared, area: Rect) -> Vec<Place> {
    let focus = scores.pane();
    if shared.zoomed || area.height < 10 {
        return vec![Place::new(focus, area)];
    }
    if area.width >= SIDE_BY_SIDE {
        let left = if area.width >= 110 {
            area.width * 9 / 20
        } else {
            area.width / 2
        };
        let [left, completion] =
            Layout::horizontal([Constraint::Length(left), Constraint::Fill(1)]).areas(area);
        let usual = if area.height >= 40 {
            18
        } else {
            area.height * 2 / 5
        };
        let summary_rows = usual.max(summary::rows_of_changes(scores).min(area.height * 2 / 3));
        let [list, summary] =
            Layout::vertical([Constraint::Fill(1), Constraint::Length(summary_rows)]).areas(left);
        return vec![
            Place::new(LIST, list),
            Place::new(COMPLETION, completion),
            Place::new(SUMMARY, summary),
        ];
    }
    let [top, below] =
        Layout::vertical([Constraint::Percentage(45), Constraint::Fill(1)]).areas(area);
    vec![
        Place::new(LIST, top),
        Place::new(
            if focus == SUMMARY {
                SUMMARY
            } else {
                COMPLETION
            },
            below,
        ),
    ]
}

pub(super) fn content<'a>(scores: &'a Scores, shared: &'a Shared, place: &Place) -> Content<'a> {
    let inside = place.inside();
    match place.id {
        LIST => list(scores, shared, inside.width.into()),
        SUMMARY => {
            let lines = summary::lines(scores, shared, inside.width.into());
            Content::titled(summary_title(scores, shared)).text(inside, lines, scores.tops[1])
        }
        _ => completion(scores, shared, inside),
    }
}

/// Names the schema of the scores, and both tasks if the run's differs from the open one.
fn summary_title(scores: &Scores, shared: &Shared) -> String {
    let draft = &shared.draft;
    let run = shared
        .run_of_other_task()
        .map(|run| (short_id(run.id()), run.file().task.as_str()));
    let both = match (run, &shared.task) {
        (Some((id, task)), Some(open)) if source::is_own(scores, shared) => {
            return format!("{task} (run {id}), not {}", open.task.name);
        }
        (Some((_, task)), Some(open)) => format!("{} (run: {task}), ", open.task.name),
        _ => String::new(),
    };
    let schema = match (&draft.stale, draft.is_changed()) {
        (Some(_), _) => format!("last {} that compiled: STALE", draft.name()),
        (None, true) => format!("{} in the editor, unsaved", draft.name()),
        (None, false) => draft.name().to_owned(),
    };
    format!("{both}{schema}")
}

fn title(scores: &Scores) -> String {
    let source = match scores.source {
        Source::Samples => "task samples".to_owned(),
        Source::Written => "not saved".to_owned(),
        Source::Sampled => "sampled".to_owned(),
    };
    let all = scores.items.all.len();
    let shown = shown_length(scores);
    let count = if shown == all {
        format!("{all}")
    } else {
        format!("{shown} of {all}")
    };
    let filters = [scores.only.name(), scores.order.name()]
        .into_iter()
        .filter(|name| !name.is_empty());
    [format!("{LIST} {count}"), source]
        .into_iter()
        .chain(filters.map(str::to_owned))
        .collect::<Vec<_>>()
        .join(", ")
}

fn list<'a>(scores: &'a Scores, shared: &'a Shared, columns: usize) -> Content<'a> {
    let theme = &shared.theme;
    let scored = scores
        .scored
        .as_ref()
        .filter(|scored| !scored.scores.is_empty());
    let empty = match scored {
        Some(_) => {
            let text = format!(
                "No completions match; {} clears the filters.",
                shared.key_of("scores.back")
            );
            vec![theme.line(text, Role::Faint)]
        }
        None => nothing(scores, shared),
    };
    let (items, shown) = (shown_length(scores), scores.shown.as_slice());
    let at = scores.cursor.at(items);
    let line = move |index: usize| match (scored, shown[index]) {
        (None, _) => Line::default(),
        (Some(scored), Shown::Group(group)) => group_line(theme, scored, group, columns),
        (Some(scored), Shown::Completion(place, number)) => {
            row(scores, shared, scored, place, at == Some(number), columns)
        }
    };
    let item = move |index: usize| match shown[index] {
        Shown::Completion(_, number) => Some(number),
        Shown::Group(_) => None,
    };
    let rows = if scored.is_some() { shown.len() } else { 0 };
    let list = List {
        mark: 0,
        ..List::new(rows, scores.cursor, line).with_headings(items, item)
    };
    Content {
        head: above(scores, shared, columns),
        empty,
        ..Content::titled(title(scores)).list(list)
    }
}

/// Lines above the list: the filter, and sampling in progress.
fn above(scores: &Scores, shared: &Shared, columns: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let mut lines = Vec::new();
    lines.extend(
        scores
            .filter
            .is_shown()
            .then(|| scores.filter.line(theme, columns)),
    );
    if let Some(job) = &scores.sampling {
        let seconds = shared.now_ms.saturating_sub(job.since_ms) / 1000;
        // What it waits for comes first.
        let progress = if job.progress.is_empty() {
            String::new()
        } else {
            format!("{}; ", job.progress)
        };
        let cancel = shared.key_of("scores.cancel");
        let text = format!(
            "{progress}sampling {}, {seconds} s; {cancel} cancels",
            job.what
        );
        let text = wrapped(&text, columns).into_iter();
        lines.extend(text.map(|line| theme.line(line, Role::Accent)));
    }
    lines
}

fn nothing(scores: &Scores, shared: &Shared) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let bad = |text: &str| theme.line(format!("✗ {text}"), Role::Bad);
    let plain = |text: &str| theme.line(text.to_owned(), Role::Faint);
    let unread = shared.task_error.as_ref().map(|failure| &failure.error);
    if let Some(error) = scores.error.as_ref().or(unread) {
        return vec![bad(error)];
    }
    let draft = &shared.draft;
    if let Some(why) = draft.unscored().filter(|_| !source::is_own(scores, shared)) {
        let then = if draft.needs_command {
            format!(", {} trusts", shared.key_of("schema.trust"))
        } else {
            String::new()
        };
        let hint = format!("{} opens the editor{then}", shared.key_of("screen.schema"));
        return vec![
            bad(&format!("{}: {why}", draft.stale_title(draft.name()))),
            plain(&hint),
        ];
    }
    if shared.task.is_none() || shared.is_busy("scores.items") || shared.is_busy("score") {
        return vec![plain("loading and scoring ...")];
    }
    let (write, sample) = (shared.key_of("scores.write"), shared.key_of("scores.draw"));
    let hint = match scores.source {
        Source::Samples => {
            format!(
                "No sample completions. Paste one, write one with {write}, or sample with {sample}."
            )
        }
        Source::Written => {
            format!("No completions written here. Paste one, or write one with {write}.")
        }
        Source::Sampled => format!("Nothing sampled yet: {sample} samples."),
    };
    let mut lines = vec![plain(&hint)];
    lines.extend(scores.sampling_error.as_ref().map(|why| bad(why)));
    lines
}

/// The prompt's id, the group's signal, and the distinguishing text of the prompt.
fn group_line(theme: &Theme, scored: &ScoredItems, number: usize, columns: usize) -> Line<'static> {
    let mut line = group_signal(theme, scored, number);
    let room = columns.saturating_sub(line.width() + 2);
    let prompt = scored
        .items
        .prompts
        .get(number)
        .filter(|(_, prompt)| room >= 8 && !prompt.is_empty());
    if let Some((is_elided, prompt)) = prompt {
        let prompt = end_in_one_line(*is_elided, prompt, room);
        line.spans
            .push(theme.span(format!("  {prompt}"), Role::Faint));
    }
    line
}

fn group_signal(theme: &Theme, scored: &ScoredItems, number: usize) -> Line<'static> {
    let name = scored.items.groups.get(number).map_or("", String::as_str);
    let name = if name.is_empty() {
        "without prompt_id, as one group"
    } else {
        name
    };
    let Some(group) = scored
        .groups
        .get(number)
        .filter(|group| group.members.len() > 1)
    else {
        return theme.line(name.to_owned(), Role::Title);
    };
    let (what, role) = match group.state {
        GroupSignal::Mixed => ("mixed", Role::Good),
        GroupSignal::AllMax => ("zero variance: all max", Role::Faint),
        GroupSignal::AllMin => ("zero variance: all min", Role::Warning),
        GroupSignal::AllEqual => ("zero variance: all equal", Role::Warning),
    };
    Line::from(vec![
        theme.span(format!("{name}  "), Role::Title),
        theme.span(what, role),
        theme.span(
            format!("  mean {:.3} std {:.3}", group.mean, group.deviation),
            Role::Faint,
        ),
    ])
}

fn row(
    scores: &Scores,
    shared: &Shared,
    scored: &ScoredItems,
    place: usize,
    is_here: bool,
    columns: usize,
) -> Line<'static> {
    let theme = &shared.theme;
    let (Some(item), Some(score)) = (scored.items.all.get(place), scored.scores.get(place)) else {
        return Line::default();
    };
    let name = score.outcome();
    let role = Theme::tier_role(name);
    let moved = match scores.moved.get(place).copied().flatten() {
        Some(before) if before < score.tier => "↑",
        Some(_) => "↓",
        None => " ",
    };
    let in_group = scored
        .groups
        .get(item.group)
        .is_some_and(|group| group.members.len() > 1);
    let advantage = scored.advantages.get(place).copied().unwrap_or(0.0);
    // A narrow list shows the advantage only in the details.
    let advantage = match columns {
        ..44 => String::new(),
        _ if in_group => format!("{advantage:>+6.2}"),
        _ => " ".repeat(6),
    };
    // The class implies the tier, which the glyph shows.
    let outcome = score
        .failure
        .map_or(name.name(), crate::score::FailureClass::name);
    let outcome = padded(outcome, OUTCOME, false);
    let right = format!("{:>6}", score.reward_text());
    let used = 1 + 1 + 2 + OUTCOME + 1 + right.len() + advantage.len();
    let what = padded(
        &label(scores, scored, place, columns.saturating_sub(used)),
        columns.saturating_sub(used),
        false,
    );
    Line::from(vec![
        Span::raw(if is_here { "▸" } else { " " }),
        Span::raw(format!("{what} ")),
        theme.span(format!("{} {outcome}", theme.tier_glyph(name)), role),
        theme.span(moved, Role::Accent),
        Span::raw(right),
        theme.span(advantage, Role::Faint),
    ])
}

/// Columns of a class; a longer one is truncated.
const OUTCOME: usize = 11;

/// The distinguishing text of a completion: its prompt if ungrouped, then where it differs from
/// others of the prompt.
fn label(scores: &Scores, scored: &ScoredItems, place: usize, columns: usize) -> String {
    let Some(item) = scored.items.all.get(place) else {
        return String::new();
    };
    let part = scored.items.parts.get(place).copied().unwrap_or_default();
    // For sampled completions the group's name includes the model.
    let group = scored.items.groups.get(item.group).map(String::as_str);
    let prompt = item.row.as_ref().map(|row| row.id.as_str()).or(group);
    let name = prompt.filter(|name| !scores.is_grouped() && !name.is_empty());
    let name = name.map_or_else(String::new, |name| {
        format!("{} ", fitted_end(name, columns / 2))
    });
    let members = scored
        .groups
        .get(item.group)
        .map_or(&[][..], |group| group.members.as_slice());
    let number = members.binary_search(&place).map_or(0, |number| number + 1);
    let number = if members.len() > 1 {
        format!("{number} ")
    } else {
        String::new()
    };
    let calls = item
        .conversation
        .as_ref()
        .map(|chain| chain.calls().count());
    let calls = calls.map_or_else(String::new, |calls| {
        format!("({}) ", counted(calls, "call"))
    });
    let room = columns.saturating_sub(name.width() + number.len() + calls.len());
    let text = match part.same_as {
        Some(first) => format!("≡ {}", first + 1),
        None => end_in_one_line(part.start > 0, &item.text[part.start..], room),
    };
    format!("{number}{name}{calls}{text}")
}

/// A text on one line, after an ellipsis if its beginning is elided.
fn end_in_one_line(is_elided: bool, text: &str, columns: usize) -> String {
    let sign = if is_elided { "…" } else { "" };
    format!(
        "{sign}{}",
        one_line(text, columns.saturating_sub(sign.width()))
    )
}

/// The beginning of a text on one line, with runs of whitespace collapsed.
fn one_line(text: &str, columns: usize) -> String {
    let mut line = String::new();
    let mut width = 0;
    let mut blank = false;
    for piece in text.graphemes(true) {
        if piece
            .chars()
            .all(|letter| letter.is_whitespace() || letter.is_control())
        {
            blank = true;
            continue;
        }
        let gap = usize::from(blank && !line.is_empty());
        if width + gap + piece.width() + 1 > columns {
            return format!("{line}…");
        }
        line.push_str(&" ".repeat(gap));
        line.push_str(piece);
        width += gap + piece.width();
        blank = false;
    }
    line
}

fn completion<'a>(scores: &'a Scores, shared: &'a Shared, inside: Rect) -> Content<'a> {
    let theme = &shared.theme;
    if let Some(editor) = &scores.editor {
        return editing(scores, shared, editor, inside);
    }
    match selected(scores).and_then(|place| Some((scores.scored.as_ref()?, place))) {
        Some((scored, place)) => {
            let title = scored
                .items
                .all
                .get(place)
                .map_or("", |item| item.from.as_str());
            let lines = score_details::lines(scores, shared, scored, place, inside.width.into());
            Content::titled(title).text(inside, lines, scores.tops[0])
        }
        None => Content {
            empty: vec![theme.line("no completion selected", Role::Faint)],
            ..Content::titled(COMPLETION)
        },
    }
}

/// The pane while the completion is edited: tier and reward, the text, the reasons.
fn editing<'a>(
    scores: &'a Scores,
    shared: &'a Shared,
    editor: &'a Editor,
    inside: Rect,
) -> Content<'a> {
    let scored = scores
        .scored
        .as_ref()
        .filter(|_| scores.source == Source::Written);
    let score = scored.and_then(|scored| scored.scores.get(scores.editing));
    let rows = if inside.height >= 12 {
        inside.height / 3
    } else {
        inside.height.min(2)
    };
    let why = score
        .map(|score| score_details::verdict(scores, shared, score))
        .unwrap_or_default();
    let mut foot: Vec<_> = why
        .into_iter()
        .flat_map(|line| wrapped_line(line, inside.width.into()))
        .collect();
    foot.resize(rows.into(), Line::default());
    let head = score
        .map(|score| Line::from(score_details::tier_and_reward(&shared.theme, score)))
        .unwrap_or_default();
    let faults: Vec<Fault> = score
        .map(|score| score.errors.iter().map(fault).collect())
        .unwrap_or_default();
    let (focused, wraps) = (scores.pane() == COMPLETION, shared.wraps(editor));
    let edited = Edited {
        editor,
        typing: true,
        focused,
        faults: Cow::Owned(faults),
        wraps,
    };
    let title = format!(
        "editing: scored as you type; {} leaves",
        shared.key_of("scores.back")
    );
    Content {
        head: vec![head],
        foot,
        body: Body::Editor(edited),
        ..Content::titled(title)
    }
}

fn fault(reason: &crate::score::Reason) -> Fault {
    Fault {
        line: reason.line,
        column: reason.column,
        length: 1,
        message: reason.message.clone(),
        is_error: true,
    }
}
