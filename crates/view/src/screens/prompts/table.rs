//! Lines of the prompts screen: the table, the selected row as the model sees it, the findings of
//! the health report.

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::table_row::{
    Column, SEARCHED_LETTERS, first_words, flat, has_solve_rates, plain_words, row, solve_rate,
};
use super::{Chat, Group, Prompts, UNCOUNTABLE, UNCOUNTED, demonstration, preview};
use crate::dataset::health::{FindingKind, Level};
use crate::dataset::{DatasetError, PromptRow, schema_name};
use crate::format::{counted, percent_short};
use crate::run::SolveRate;
use crate::schema_draft::Expected;
use crate::secrets::visible;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::task::PromptSet;
use crate::theme::Theme;
use crate::widgets::json;
use crate::widgets::text_width::{fitted, padded};

fn bad_sets(shared: &Shared) -> impl Iterator<Item = (PromptSet, &DatasetError)> {
    let sets = shared.task.iter().flat_map(|open| open.rows.iter());
    sets.filter_map(|(set, rows)| Some((*set, rows.as_ref().err()?)))
}

fn shows_schemas(shared: &Shared) -> bool {
    shared
        .task
        .as_ref()
        .is_some_and(|open| open.has_row_schemas)
}

/// Widths of the columns set, id, tokens, expected, solve rate, schema, tags; the text gets the
/// rest. 0: hidden.
fn widths(shared: &Shared, columns: usize) -> [usize; 7] {
    let rate = if has_solve_rates(shared) {
        "solved".len()
    } else {
        0
    };
    let schema = if shows_schemas(shared) { 12 } else { 0 };
    match columns {
        0..=39 => [2, 0, 0, 0, 0, 0, 0],
        40..=56 => [5, 10, 5, 0, rate, 0, 0],
        57..=79 => [5, 12, 6, 3, rate, schema, 0],
        _ => [5, 14, 6, 3, rate, schema, 14],
    }
}

/// Lines above the rows: the filter, unreadable sets.
pub(super) fn heading(prompts: &Prompts, shared: &Shared, columns: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let mut lines = Vec::new();
    if prompts.filter.is_shown() {
        let mut line = prompts.filter.line(theme, columns);
        if prompts.filter.text().is_empty() {
            line.spans.push(theme.span(
                " filter: text, tag:messy, set:eval, id:7, expected:invalid, is:enum",
                Role::Faint,
            ));
        }
        lines.push(line);
    }
    for (set, error) in bad_sets(shared) {
        lines.push(theme.line(
            format!(
                "✗ {}: {error} ({} opens it)",
                set.name(),
                shared.key_of("prompts.outside")
            ),
            Role::Bad,
        ));
    }
    lines
}

pub(super) fn titles_of(shared: &Shared, columns: usize) -> Vec<(Line<'static>, u16)> {
    let titles: Vec<_> = titles(shared, columns).collect();
    let used: usize = titles.iter().map(|(_, _, width)| width + 1).sum();
    let last = titles.len().saturating_sub(1);
    let title = |(at, (_, name, width)): (usize, (Column, &'static str, usize))| {
        // The text column gets the rest.
        let width = if at == last {
            width + columns.saturating_sub(used)
        } else {
            width
        };
        (
            shared.theme.line(name, Role::Title),
            u16::try_from(width).unwrap_or(u16::MAX),
        )
    };
    titles.into_iter().enumerate().map(title).collect()
}

fn titles(
    shared: &Shared,
    columns: usize,
) -> impl Iterator<Item = (Column, &'static str, usize)> + use<> {
    let [set, id, tokens, expected, rate, schema, tags] = widths(shared, columns);
    let all = [
        (Column::File, "set", set),
        (Column::Id, "id", id),
        (Column::Tokens, "tokens", tokens),
        (Column::Expected, "exp", expected),
        (Column::SolveRate, "solved", rate),
        (Column::Schema, "schema", schema),
        (Column::Tags, "tags", tags),
        (Column::Words, "first words", 11),
    ];
    all.into_iter().filter(|(_, _, width)| *width > 0)
}

pub(super) fn column(shared: &Shared, columns: usize, title: usize) -> Option<Column> {
    titles(shared, columns)
        .nth(title)
        .map(|(column, ..)| column)
}

pub(super) fn cells(
    prompts: &Prompts,
    shared: &Shared,
    columns: usize,
    place: usize,
) -> Vec<(Line<'static>, u16)> {
    let theme = &shared.theme;
    let index = prompts.shown[place] as usize;
    let entry = prompts.entries.get(index);
    let Some((entry, row)) =
        entry.and_then(|entry| Some((entry, row(shared.task.as_ref()?, *entry)?)))
    else {
        return Vec::new();
    };
    let counted = match prompts.tokens.get(index).copied().unwrap_or(UNCOUNTED) {
        UNCOUNTED => "…".to_owned(),
        UNCOUNTABLE => "?".to_owned(),
        counted => counted.to_string(),
    };
    let (sign, role) = match shared
        .draft
        .expected_rows()
        .get(index)
        .copied()
        .unwrap_or_default()
    {
        Expected::Unchecked if row.expected.is_some() => ("…", Role::Faint),
        Expected::Valid => ("✓", Role::Good),
        Expected::Invalid(_) => ("✗", Role::Bad),
        _ => ("·", Role::Faint),
    };
    let widths = titles_of(shared, columns)
        .into_iter()
        .map(|(_, width)| usize::from(width));
    let cell = |((column, ..), width): ((Column, &str, usize), usize)| {
        let text = |text: &str, role: Role| theme.line(fitted(text, width), role);
        let line = match column {
            Column::File => text(entry.set.name(), Role::Faint),
            Column::Id => text(&row.id, Role::Text),
            Column::Tokens => text(&counted, Role::JsonNumber).right_aligned(),
            Column::Expected => text(sign, role),
            Column::SolveRate => match solve_rate(shared, *entry) {
                Some(found) => text(&percent_short(found.rate()), Role::JsonNumber),
                None => text("n/a", Role::Faint),
            }
            .right_aligned(),
            Column::Schema => {
                let open = shared.task.as_ref();
                let name = open.and_then(|open| schema_name(&open.task, row));
                text(&name.unwrap_or_default(), Role::Faint)
            }
            Column::Tags => text(&row.tags.join(","), Role::Faint),
            Column::Words => Line::from(words(prompts, shared, row, width)),
        };
        (line, 1)
    };
    titles(shared, columns).zip(widths).map(cell).collect()
}

/// The start of the user's prompt, or the match of the filter.
fn words(
    prompts: &Prompts,
    shared: &Shared,
    row: &PromptRow,
    columns: usize,
) -> Vec<Span<'static>> {
    let theme = &shared.theme;
    let plain = || vec![Span::raw(padded(&first_words(row), columns, false))];
    // A longer word cannot match, and every drawn row would be searched for it.
    let word = plain_words(prompts.filter.text())
        .next()
        .filter(|word| word.len() <= 4 * SEARCHED_LETTERS);
    let Some(word) = word.map(str::to_lowercase) else {
        return plain();
    };
    let text: Vec<char> = flat(row, SEARCHED_LETTERS).chars().collect();
    let lower: Vec<char> = text
        .iter()
        .map(|letter| letter.to_lowercase().next().unwrap_or(*letter))
        .collect();
    let word: Vec<char> = word.chars().collect();
    let Some(place) = lower
        .windows(word.len().max(1))
        .position(|window| window == word)
    else {
        return plain();
    };
    // Starts at the match if it would otherwise be truncated.
    let start = if place + word.len() < columns {
        0
    } else {
        place.saturating_sub(columns / 3)
    };
    let part = |from: usize, to: usize| {
        text.get(from..to.min(text.len()))
            .unwrap_or_default()
            .iter()
            .collect::<String>()
    };
    let before = format!("{}{}", if start > 0 { "…" } else { "" }, part(start, place));
    let found = part(place, place + word.len());
    let rest = padded(
        &part(place + word.len(), text.len()),
        columns.saturating_sub(before.width() + found.width()),
        false,
    );
    vec![
        Span::raw(before),
        theme.span(found, Role::Match),
        Span::raw(rest),
    ]
}

/// The selected row as the model sees it, and the expected answer.
pub(super) fn chat_lines(prompts: &Prompts, shared: &Shared, width: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let faint = |text: &str| theme.line(text.to_owned(), Role::Faint);
    let Some(row) = prompts.selected_row(shared) else {
        return vec![faint("no row is selected")];
    };
    let Some(chat) = &prompts.chat else {
        return vec![faint("loading tokenizer ...")];
    };
    let mut lines = Vec::new();
    if let Some(Ok(counter)) = &prompts.counter
        && let Some(note) = &counter.note
    {
        lines.push(theme.line(format!("▲ {note}"), Role::Warning));
    }
    lines.extend(problem_lines(prompts, shared, chat));
    lines.extend(token_lines(prompts, theme, chat));
    lines.extend(solve_rate_line(prompts, shared));
    match &chat.lines {
        Ok(pieces) => lines.extend(pieces.iter().map(|pieces| preview::line_of(theme, pieces))),
        Err(error) => lines.push(theme.line(error.clone(), Role::Bad)),
    }
    lines.push(faint("▸ answer starts here"));
    lines.push(Line::default());
    match &chat.expected {
        Some(expected) => {
            lines.push(theme.line("expected", Role::Title));
            lines.extend(json::lines(theme, expected.trim_end(), &[]));
        }
        None => lines.push(faint(&format!(
            "no expected answer: {} adds one",
            shared.key_of("prompts.expected")
        ))),
    }
    lines.extend(demonstration::lines(shared, row, width));
    if let Some((name, text)) = chat.schema.as_ref().filter(|_| shows_schemas(shared)) {
        let title = format!("schema of the row: {}", visible(name));
        lines.push(theme.line(title, Role::Title));
        lines.extend(json::lines(theme, text.trim_end(), &[]));
    }
    let other: Vec<&str> = row.fields.other().keys().map(String::as_str).collect();
    if !other.is_empty() {
        lines.push(faint(&format!(
            "other fields (passed to the scorer): {}",
            other.join(", ")
        )));
    }
    lines
}

fn problem_lines(prompts: &Prompts, shared: &Shared, chat: &Chat) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let line = |level: Level, text: String| {
        let (mark, role) = sign_of(level);
        theme.line(format!("{mark} {text}"), role)
    };
    let invalid = chat
        .invalid
        .iter()
        .map(|why| line(Level::Error, format!("expected answer is invalid: {why}")));
    let place = prompts
        .cursor
        .at(prompts.shown.len())
        .and_then(|place| prompts.shown.get(place))
        .copied();
    let health = match &prompts.health {
        Some(Ok(health)) => Some(health),
        _ => None,
    };
    let (file, number) = match prompts.selected_place(shared).zip(shared.task.as_ref()) {
        Some(((set, number), open)) => (
            open.task.set_file(set).map(|file| open.task.label(file)),
            Some(number),
        ),
        None => (None, None),
    };
    let of_row = |group: &&Group| {
        group
            .kind
            .is_some_and(|kind| kind != FindingKind::ExpectedInvalid)
            && place.is_some_and(|index| group.rows.binary_search(&index).is_ok())
    };
    let others = prompts.groups.iter().filter(of_row).map(|group| {
        // Only the first findings of a kind have a message.
        let found = health.and_then(|health| {
            health.findings.iter().find(|finding| {
                Some(finding.kind) == group.kind
                    && finding.line == number
                    && Some(&finding.file) == file.as_ref()
            })
        });
        line(
            group.level,
            found.map_or_else(|| group.title.clone(), |finding| finding.message.clone()),
        )
    });
    invalid.chain(others).collect()
}

fn token_lines(prompts: &Prompts, theme: &Theme, chat: &Chat) -> Vec<Line<'static>> {
    let (Some(tokens), Some(Ok(counter))) = (chat.tokens, &prompts.counter) else {
        return Vec::new();
    };
    let template = tokens.prompt.saturating_sub(tokens.system + tokens.turns);
    let room = counter.max_seq_len.saturating_sub(tokens.prompt);
    let completion = room.min(counter.max_completion_tokens);
    let mut spans = vec![
        theme.span(counted(tokens.prompt, "token"), Role::Title),
        theme.span(
            format!(
                " ({}): system {}, prompt {}, template {template}",
                counter.name, tokens.system, tokens.turns
            ),
            Role::Faint,
        ),
    ];
    let mut lines = vec![Line::from(std::mem::take(&mut spans))];
    let limit = format!(
        "room for {room} of {}, completions at most {completion}",
        counter.max_seq_len
    );
    spans.push(theme.span(limit, if room == 0 { Role::Bad } else { Role::Faint }));
    if let Some(expected) = tokens.expected {
        // Plus the end-of-turn token.
        let fits = expected < completion;
        let text = if fits {
            "; expected answer ".to_owned()
        } else {
            "; too little for the expected answer: ".to_owned()
        };
        spans.push(theme.span(
            format!("{text}{expected}"),
            if fits { Role::Faint } else { Role::Bad },
        ));
    }
    lines.push(Line::from(spans));
    lines
}

/// The selected training row's solve rate in the open run.
fn solve_rate_line(prompts: &Prompts, shared: &Shared) -> Option<Line<'static>> {
    let entry = prompts
        .selected()
        .filter(|entry| entry.set == PromptSet::Train)?;
    let text = match solve_rate(shared, entry) {
        Some(
            found @ SolveRate {
                step,
                solved,
                scored,
            },
        ) => {
            format!(
                "solve rate {}: {solved} of {scored} completions of step {step}",
                percent_short(found.rate())
            )
        }
        None if has_solve_rates(shared) => "solve rate n/a: not sampled yet".to_owned(),
        None => return None,
    };
    Some(shared.theme.line(text, Role::Faint))
}

pub(super) fn finding_place(prompts: &Prompts) -> Option<(PromptSet, usize)> {
    prompts
        .groups
        .get(prompts.finding.at(prompts.groups.len())?)?
        .place
}

pub(super) fn health_head(prompts: &Prompts, shared: &Shared) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let set = |set: &crate::dataset::health::SetHealth| {
        let tokens = set
            .prompt_tokens
            .map_or_else(String::new, |(least, mean, most)| {
                format!("  {least} to {most} tokens, mean {mean:.0}")
            });
        Line::from(vec![
            theme.span(format!("{:<6}", set.set), Role::Title),
            Span::raw(counted(set.rows, "row") + &tokens),
        ])
    };
    let mut lines: Vec<Line<'static>> = match &prompts.health {
        None => vec![theme.line("checking the sets ...", Role::Faint)],
        Some(Err(error)) => vec![theme.line(error.clone(), Role::Bad)],
        Some(Ok(health)) => health.sets.iter().map(set).collect(),
    };
    let (states, all) = (shared.draft.expected_rows(), prompts.entries.len());
    let of = |wanted: Expected| states.iter().filter(|state| **state == wanted).count();
    let (valid, absent) = (of(Expected::Valid), of(Expected::Absent));
    let checked = states.len() - of(Expected::Unchecked);
    let rows = shared.task.iter().flat_map(|open| open.rows.values());
    let given = rows
        .flatten()
        .flat_map(|rows| rows.iter())
        .filter(|row| row.expected.is_some())
        .count();
    let sentence = match checked == all {
        false => match shared.draft.unscored() {
            Some(why) => format!("expected answers not checked: {why}"),
            None => "checking expected answers ...".to_owned(),
        },
        true if given == 0 => "no expected answers: rows are scored for validity only".to_owned(),
        // The compared value is known only after a conversation or program has ended.
        true if absent == all => {
            format!("expected answers: {given}, compared when an answer is scored")
        }
        true => {
            format!("expected answers: {valid} of {} valid", all - absent)
                + &if absent > 0 {
                    format!(", {} without", counted(absent, "row"))
                } else {
                    String::new()
                }
        }
    };
    let is_bad = checked == all && valid + absent < all;
    lines.push(theme.line(sentence, if is_bad { Role::Bad } else { Role::Text }));
    let count = |level: Level| {
        prompts
            .groups
            .iter()
            .filter(|group| group.level == level)
            .map(|group| group.count)
            .sum::<usize>()
    };
    let (errors, warnings): (usize, usize) = (count(Level::Error), count(Level::Warning));
    let role = match (errors, warnings) {
        (1.., _) => Role::Bad,
        (_, 1..) => Role::Warning,
        _ => Role::Good,
    };
    let sentence = match errors + warnings {
        0 if checked < all || !matches!(prompts.health, Some(Ok(_))) => return lines,
        0 => "no findings: no duplicates, no leaks, no secrets".to_owned(),
        _ => format!(
            "{}, {}; {} shows the rows",
            counted(errors, "error"),
            counted(warnings, "warning"),
            shared.key_of("prompts.finding")
        ),
    };
    lines.push(theme.line(sentence, role));
    lines
}

fn sign_of(level: Level) -> (&'static str, Role) {
    match level {
        Level::Error => ("✗", Role::Bad),
        Level::Warning => ("▲", Role::Warning),
    }
}

/// `✗ expected answer: enum: 478 rows  /status "done" is not one of ...`
pub(super) fn group_line(theme: &Theme, group: &Group) -> Line<'static> {
    let (mark, role) = sign_of(group.level);
    let rows = if group.rows.is_empty() {
        "finding"
    } else {
        "row"
    };
    let plural = if group.count == 1 { "" } else { "s" };
    Line::from(vec![
        theme.span(format!("{mark} "), role),
        theme.span(
            format!("{}: {} {rows}{plural}", group.title, group.count),
            Role::Text,
        ),
        theme.span(format!("  {}", visible(&group.example)), Role::Faint),
    ])
}
