//! The lines of the prompts screen: the table, the selected row as the model sees it, the findings of the health
//! report.

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::table_row::{Column, SEARCHED_LETTERS, first_words, flat, plain_words, row};
use super::{Prompts, UNCOUNTABLE, UNCOUNTED};
use crate::dataset::PromptRow;
use crate::dataset::health::{Finding, Level};
use crate::task::PromptSet;
use crate::view::shared::Shared;
use crate::view::style_role::Role;
use crate::view::theme::Theme;
use crate::view::widgets::json;
use crate::view::widgets::text_width::padded;

/// Lines above the rows: the filter, unreadable sets, column titles.
pub(super) fn heading_rows(prompts: &Prompts, shared: &Shared) -> u16 {
    u16::from(prompts.filter.is_shown()) + bad_sets(shared).count() as u16 + 1
}

fn bad_sets(shared: &Shared) -> impl Iterator<Item = (PromptSet, &str)> {
    let sets = shared.task.iter().flat_map(|open| open.rows.iter());
    sets.filter_map(|(set, rows)| Some((*set, rows.as_ref().err()?.as_str())))
}

/// Widths of the columns set, id, tokens, expected, tags; the rest is for the text. 0: hidden.
fn widths(columns: usize) -> [usize; 5] {
    match columns {
        0..=39 => [2, 0, 0, 0, 0],
        40..=56 => [5, 10, 5, 0, 0],
        57..=79 => [5, 12, 6, 3, 0],
        _ => [5, 14, 6, 3, 14],
    }
}

pub(super) fn heading(prompts: &Prompts, shared: &Shared, columns: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let mut lines = Vec::new();
    if prompts.filter.is_shown() {
        let mut line = prompts.filter.line(theme, columns);
        if prompts.filter.text().is_empty() {
            line.spans
                .push(Span::styled(" filter: text, tag:messy, set:eval, id:7, expected:no", theme.style(Role::Faint)));
        }
        lines.push(line);
    }
    for (set, error) in bad_sets(shared) {
        lines.push(Line::styled(
            format!(
                "{} {}: {error} ({} opens it)",
                theme.glyph("✗", "x"),
                set.name(),
                shared.key_of("prompts.outside")
            ),
            theme.style(Role::Bad),
        ));
    }
    let mut text = String::from("  ");
    for (_, name, width) in titles(columns) {
        text.push_str(&format!("{} ", padded(name, width, false)));
    }
    lines.push(Line::styled(text, theme.style(Role::Title)));
    lines
}

/// The visible columns for a width, with their titles and widths.
fn titles(columns: usize) -> impl Iterator<Item = (Column, &'static str, usize)> {
    let [set, id, tokens, expected, tags] = widths(columns);
    let all = [
        (Column::File, "set", set),
        (Column::Id, "id", id),
        (Column::Tokens, "tokens", tokens),
        (Column::Expected, "expected", expected),
        (Column::Tags, "tags", tags),
        (Column::Words, "first words", 11),
    ];
    all.into_iter().filter(|(_, _, width)| *width > 0)
}

/// The column whose title is at a column inside the table of a width.
pub(super) fn title_at(columns: usize, at: usize) -> Column {
    let mut end = 2;
    let found = titles(columns).find(|(_, _, width)| {
        end += width + 1;
        at < end
    });
    found.map_or(Column::Words, |(column, ..)| column)
}

/// The visible rows; only these are built.
pub(super) fn rows(prompts: &Prompts, shared: &Shared, columns: usize, count: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let Some(open) = &shared.task else { return Vec::new() };
    let [set_width, id, tokens, expected, tags] = widths(columns);
    let line = |(place, here): (usize, bool)| {
        let index = prompts.shown[place] as usize;
        let entry = prompts.entries.get(index)?;
        let row = row(open, *entry)?;
        let counted = match prompts.tokens.get(index).copied().unwrap_or(UNCOUNTED) {
            UNCOUNTED => theme.glyph("…", "-").to_owned(),
            UNCOUNTABLE => "?".to_owned(),
            counted => counted.to_string(),
        };
        let mut spans =
            vec![Span::styled(if here { theme.glyph("▸ ", "> ") } else { "  " }, theme.style(Role::Accent))];
        let mut cell = |text: &str, width: usize, role: Role| {
            if width > 0 {
                spans.push(Span::styled(format!("{} ", padded(text, width, false)), theme.style(role)));
            }
        };
        cell(entry.set.name(), set_width, Role::Faint);
        cell(&row.id, id, Role::Text);
        cell(&format!("{counted:>tokens$}"), tokens, Role::JsonNumber);
        cell(if row.expected.is_some() { theme.glyph("✓", "y") } else { theme.glyph("·", "-") }, expected, Role::Good);
        cell(&row.tags.join(","), tags, Role::Faint);
        let used: usize = spans.iter().map(Span::width).sum();
        spans.extend(words(prompts, shared, row, columns.saturating_sub(used)));
        let line = Line::from(spans);
        Some(if here { line.style(theme.style(Role::Selected)) } else { line })
    };
    prompts.cursor.seen(count, prompts.shown.len()).filter_map(line).collect()
}

/// The beginning of the user's prompt, or the part that matches the filter.
fn words(prompts: &Prompts, shared: &Shared, row: &PromptRow, columns: usize) -> Vec<Span<'static>> {
    let theme = &shared.theme;
    let plain = || vec![Span::raw(padded(&first_words(row), columns, false))];
    let filter = prompts.filter.text();
    let Some(word) = plain_words(filter).first().map(|word| word.to_lowercase()) else { return plain() };
    let text: Vec<char> = flat(row, SEARCHED_LETTERS).chars().collect();
    let lower: Vec<char> = text.iter().map(|letter| letter.to_lowercase().next().unwrap_or(*letter)).collect();
    let word: Vec<char> = word.chars().collect();
    let Some(place) = lower.windows(word.len().max(1)).position(|window| window == word) else { return plain() };
    // If the match would be cut off, the words before it are left out.
    let start = if place + word.len() < columns { 0 } else { place.saturating_sub(columns / 3) };
    let part =
        |from: usize, to: usize| text.get(from..to.min(text.len())).unwrap_or_default().iter().collect::<String>();
    let before = format!("{}{}", if start > 0 { theme.glyph("…", "~") } else { "" }, part(start, place));
    let found = part(place, place + word.len());
    let rest =
        padded(&part(place + word.len(), text.len()), columns.saturating_sub(before.width() + found.width()), false);
    vec![Span::raw(before), Span::styled(found, theme.style(Role::Match)), Span::raw(rest)]
}

/// The selected row as the model sees it, and the expected answer.
pub(super) fn chat_lines(prompts: &Prompts, shared: &Shared) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let faint = |text: &str| Line::styled(text.to_owned(), theme.style(Role::Faint));
    let Some(row) = prompts.selected_row(shared) else { return vec![faint("no row is selected")] };
    let Some(chat) = &prompts.chat else { return vec![faint("loading tokenizer ...")] };
    let mut lines = Vec::new();
    if let Some(Ok(counter)) = &prompts.counter
        && let Some(note) = &counter.note
    {
        lines.push(Line::styled(format!("{} {note}", theme.glyph("▲", "!")), theme.style(Role::Warning)));
    }
    match &chat.lines {
        Ok(pieces) => lines.extend(pieces.iter().map(|pieces| {
            let span = |(text, special): &(String, bool)| {
                Span::styled(text.clone(), theme.style(if *special { Role::Special } else { Role::Text }))
            };
            Line::from(pieces.iter().map(span).collect::<Vec<_>>())
        })),
        Err(error) => lines.push(Line::styled(error.clone(), theme.style(Role::Bad))),
    }
    lines.push(faint(theme.glyph("▸ answer starts here", "> answer starts here")));
    lines.push(Line::default());
    match &chat.expected {
        Some(expected) => {
            lines.push(Line::styled("expected", theme.style(Role::Title)));
            lines.extend(json::lines(theme, expected.trim_end(), &[]));
        }
        None => lines.push(faint(&format!("no expected answer: {} adds one", shared.key_of("prompts.expected")))),
    }
    let other: Vec<&str> = row
        .fields
        .keys()
        .map(String::as_str)
        .filter(|key| !["id", "messages", "expected", "tags"].contains(key))
        .collect();
    if !other.is_empty() {
        lines.push(faint(&format!("other fields (passed to the scorer): {}", other.join(", "))));
    }
    lines
}

/// The findings of the health report.
pub(super) fn findings(prompts: &Prompts) -> &[Finding] {
    match &prompts.health {
        Some(Ok(health)) => &health.findings,
        _ => &[],
    }
}

/// Set and line of the finding under the cursor.
pub(super) fn finding_place(prompts: &Prompts, shared: &Shared) -> Option<(PromptSet, usize)> {
    let findings = findings(prompts);
    let finding = findings.get(prompts.finding.at(findings.len())?)?;
    let task = &shared.task.as_ref()?.task;
    let set = PromptSet::ALL
        .into_iter()
        .find(|set| task.set_file(*set).is_some_and(|file| task.label(file) == finding.file))?;
    Some((set, finding.line.unwrap_or(1)))
}

/// The head of the health report: what each set contains.
pub(super) fn health_head(prompts: &Prompts, shared: &Shared) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let health = match &prompts.health {
        None => return vec![Line::styled("checking the sets ...", theme.style(Role::Faint))],
        Some(Err(error)) => return vec![Line::styled(error.clone(), theme.style(Role::Bad))],
        Some(Ok(health)) => health,
    };
    let set = |set: &crate::dataset::health::SetHealth| {
        let tokens = set
            .prompt_tokens
            .map_or_else(String::new, |(least, mean, most)| format!("  {least} to {most} tokens, mean {mean:.0}"));
        Line::from(vec![
            Span::styled(format!("{:<6}", set.set), theme.style(Role::Title)),
            Span::raw(format!("{} rows{tokens}", set.rows)),
        ])
    };
    let mut lines: Vec<Line<'static>> = health.sets.iter().map(set).collect();
    let (errors, warnings) = (health.count(Level::Error), health.count(Level::Warning));
    let role = if errors > 0 {
        Role::Bad
    } else if warnings > 0 {
        Role::Warning
    } else {
        Role::Good
    };
    let sentence = match errors + warnings {
        0 => "no findings: no duplicates, no leaks, all expected answers valid, no secrets".to_owned(),
        _ => format!("{errors} errors, {warnings} warnings; {} goes to the row", shared.key_of("prompts.finding")),
    };
    lines.push(Line::styled(sentence, theme.style(role)));
    lines
}

pub(super) fn finding_line(theme: &Theme, finding: &Finding, here: bool) -> Line<'static> {
    let (mark, role) = match finding.level {
        Level::Error => (theme.glyph("✗", "x"), Role::Bad),
        Level::Warning => (theme.glyph("▲", "!"), Role::Warning),
    };
    let name = finding.file.rsplit('/').next().unwrap_or_default().rsplit(": ").next().unwrap_or_default().to_owned();
    let line = finding.line.map_or_else(String::new, |line| format!(":{line}"));
    let text = Line::from(vec![
        Span::styled(if here { theme.glyph("▸", ">") } else { " " }, theme.style(Role::Accent)),
        Span::styled(format!("{mark} "), theme.style(role)),
        Span::styled(format!("{name}{line} "), theme.style(Role::Faint)),
        Span::raw(finding.message.clone()),
    ]);
    if here { text.style(theme.style(Role::Selected)) } else { text }
}
