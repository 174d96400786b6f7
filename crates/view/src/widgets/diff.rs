//! Diff of two answers: JSON field by field, other texts line by line; with marks and colours,
//! unified or side by side.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use serde_json::Value;
use similar::algorithms::{Capture, Compact, Replace, myers};
use similar::{DiffOp, DiffTag};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::text_value::block;
use super::text_width::padded;
use crate::secrets::visible;
use crate::style_role::Role;
use crate::theme::Theme;

/// Deeper values are written on one line.
const MAX_DEPTH: usize = 32;

/// An aligned line of both answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub kind: Kind,
    /// The line in the first answer.
    pub before: Option<String>,
    pub after: Option<String>,
}

/// The relation of the two sides of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Same,
    Changed,
    Missing,
    Extra,
}

/// The diff of two answers. If both are JSON, fields are aligned by their keys, else lines by their
/// text.
pub fn difference(before: &str, after: &str) -> Vec<Row> {
    match (
        serde_json::from_str::<Value>(before.trim()),
        serde_json::from_str::<Value>(after.trim()),
    ) {
        (Ok(before), Ok(after)) => {
            let mut rows = Vec::new();
            values(&mut rows, 0, "", Some(&before), Some(&after), "");
            rows
        }
        _ => texts(before, after),
    }
}

/// Edits from `old` to `new`, element by element. A single algorithm and type: `similar`'s
/// `TextDiff` would compile five for every kind of text.
pub fn diff_ops(old: &[&str], new: &[&str]) -> Vec<DiffOp> {
    let mut hook = Compact::new(Replace::new(Capture::new()), old, new);
    let Ok(()) = myers::diff(&mut hook, old, 0..old.len(), new, 0..new.len());
    hook.into_inner().into_inner().into_ops()
}

fn texts(before: &str, after: &str) -> Vec<Row> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let mut rows = Vec::new();
    for operation in diff_ops(&old, &new) {
        let (old, new) = (&old[operation.old_range()], &new[operation.new_range()]);
        for index in 0..old.len().max(new.len()) {
            let line = |lines: &[&str]| lines.get(index).map(|line| visible(line).into_owned());
            let (before, after) = (line(old), line(new));
            let kind = match (operation.tag(), &before, &after) {
                (DiffTag::Equal, ..) => Kind::Same,
                (_, Some(_), Some(_)) => Kind::Changed,
                (_, Some(_), None) => Kind::Missing,
                _ => Kind::Extra,
            };
            rows.push(Row {
                kind,
                before,
                after,
            });
        }
    }
    rows
}

/// Rows of a value with the key `name`, in one answer or both; `end` is the comma after it.
fn values(
    rows: &mut Vec<Row>,
    depth: usize,
    name: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    end: &str,
) {
    let indent = "  ".repeat(depth);
    let line = |value: &Value| visible(&format!("{indent}{name}{value}{end}")).into_owned();
    let mut push = |kind, before: Option<String>, after: Option<String>| {
        rows.push(Row {
            kind,
            before,
            after,
        })
    };
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new)))
            if depth < MAX_DEPTH && (!old.is_empty() || !new.is_empty()) =>
        {
            let open = Some(format!("{indent}{name}{{"));
            push(Kind::Same, open.clone(), open);
            let keys: Vec<&String> = old
                .keys()
                .chain(new.keys().filter(|key| !old.contains_key(*key)))
                .collect();
            for (index, key) in keys.iter().enumerate() {
                let comma = if index + 1 < keys.len() { "," } else { "" };
                let name = format!("{}: ", Value::String((*key).clone()));
                values(rows, depth + 1, &name, old.get(*key), new.get(*key), comma);
            }
            let close = Some(format!("{indent}}}{end}"));
            rows.push(Row {
                kind: Kind::Same,
                before: close.clone(),
                after: close,
            });
        }
        (Some(Value::Array(old)), Some(Value::Array(new)))
            if depth < MAX_DEPTH && (!old.is_empty() || !new.is_empty()) =>
        {
            let open = Some(format!("{indent}{name}["));
            push(Kind::Same, open.clone(), open);
            let length = old.len().max(new.len());
            for index in 0..length {
                values(
                    rows,
                    depth + 1,
                    "",
                    old.get(index),
                    new.get(index),
                    if index + 1 < length { "," } else { "" },
                );
            }
            let close = Some(format!("{indent}]{end}"));
            rows.push(Row {
                kind: Kind::Same,
                before: close.clone(),
                after: close,
            });
        }
        _ if is_block(before, after) => {
            let is_named = !name.is_empty();
            if is_named {
                let head = visible(&format!("{indent}{}{end}", name.trim_end())).into_owned();
                let of = |value: Option<&Value>| value.map(|_| head.clone());
                let kind = match (before, after) {
                    (Some(_), Some(_)) => Kind::Same,
                    (Some(_), None) => Kind::Missing,
                    _ => Kind::Extra,
                };
                push(kind, of(before), of(after));
            }
            let text = |value: Option<&Value>| {
                value.and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let indent = "  ".repeat(depth + usize::from(is_named));
            let line = |line: Option<String>| line.map(|line| format!("{indent}{line}"));
            rows.extend(
                texts(&text(before), &text(after))
                    .into_iter()
                    .map(|row| Row {
                        kind: row.kind,
                        before: line(row.before),
                        after: line(row.after),
                    }),
            );
        }
        (Some(old), Some(new)) => push(
            if old == new {
                Kind::Same
            } else {
                Kind::Changed
            },
            Some(line(old)),
            Some(line(new)),
        ),
        (Some(old), None) => push(Kind::Missing, Some(line(old)), None),
        (None, Some(new)) => push(Kind::Extra, None, Some(line(new))),
        (None, None) => {}
    }
}

/// Whether one side is multi-line text and no side is of another type: compared by lines, not by
/// JSON escapes.
fn is_block(before: Option<&Value>, after: Option<&Value>) -> bool {
    let mut values = before.into_iter().chain(after);
    values.clone().all(Value::is_string) && values.any(|value| block(value).is_some())
}

/// Unified: `-` for the first answer's lines, `+` for the second's.
pub fn unified(theme: &Theme, rows: &[Row], width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for row in rows {
        if row.kind == Kind::Same {
            lines.extend(marked(
                theme,
                " ",
                row.before.as_deref().unwrap_or_default(),
                None,
                Role::Faint,
                width,
            ));
            continue;
        }
        if let Some(before) = &row.before {
            lines.extend(marked(
                theme,
                "-",
                before,
                row.after.as_deref(),
                Role::Removed,
                width,
            ));
        }
        if let Some(after) = &row.after {
            lines.extend(marked(
                theme,
                "+",
                after,
                row.before.as_deref(),
                Role::Added,
                width,
            ));
        }
    }
    lines
}

/// Side by side, with a mark in between: `~` changed, `-` only in the first, `+` only in the
/// second.
pub fn side_by_side(theme: &Theme, rows: &[Row], width: usize) -> Vec<Line<'static>> {
    let half = width.saturating_sub(3) / 2;
    let mut lines = Vec::new();
    for row in rows {
        let (mark, role) = match row.kind {
            Kind::Same => ("│", Role::Faint),
            Kind::Changed => ("~", Role::Warning),
            Kind::Missing => ("-", Role::Removed),
            Kind::Extra => ("+", Role::Added),
        };
        let side = |text: &Option<String>, other: &Option<String>, changed: Role| {
            let role = if row.kind == Kind::Same {
                Role::Faint
            } else {
                changed
            };
            let other = other.as_deref().filter(|_| row.kind == Kind::Changed);
            text.as_deref().map_or_else(Vec::new, |text| {
                broken(&emphasised(theme, text, other, role), half)
            })
        };
        let (left, right) = (
            side(&row.before, &row.after, Role::Removed),
            side(&row.after, &row.before, Role::Added),
        );
        for index in 0..left.len().max(right.len()).max(1) {
            let mut spans = left.get(index).cloned().unwrap_or_default();
            let used: usize = spans.iter().map(|span| span.content.width()).sum();
            spans.push(Span::raw(" ".repeat(half.saturating_sub(used))));
            spans.push(theme.span(format!(" {mark} "), role));
            spans.extend(right.get(index).cloned().unwrap_or_default());
            lines.push(Line::from(spans));
        }
    }
    lines
}

pub fn headings(theme: &Theme, before: &str, after: &str, width: usize) -> Line<'static> {
    let half = width.saturating_sub(3) / 2;
    Line::from(vec![
        theme.span(padded(before, half, false), Role::Base),
        Span::raw("   "),
        theme.span(padded(after, half, false), Role::Trained),
    ])
}

fn marked(
    theme: &Theme,
    mark: &str,
    text: &str,
    other: Option<&str>,
    role: Role,
    width: usize,
) -> Vec<Line<'static>> {
    let pieces = broken(
        &emphasised(theme, text, other, role),
        width.saturating_sub(2).max(1),
    );
    let with_mark = |(index, spans): (usize, Vec<Span<'static>>)| {
        let mark = if index == 0 {
            format!("{mark} ")
        } else {
            "  ".to_owned()
        };
        Line::from([vec![theme.span(mark, role)], spans].concat())
    };
    pieces.into_iter().enumerate().map(with_mark).collect()
}

/// The text with words that differ from the other side highlighted.
fn emphasised(theme: &Theme, text: &str, other: Option<&str>, role: Role) -> Vec<Span<'static>> {
    let style = theme.style(role);
    let Some(other) = other else {
        return vec![Span::styled(text.to_owned(), style)];
    };
    let words = |text| <str as UnicodeSegmentation>::split_word_bounds(text).collect::<Vec<_>>();
    let (other, own) = (words(other), words(text));
    let pieces = diff_ops(&other, &own).into_iter().flat_map(|operation| {
        let strong = if operation.tag() == DiffTag::Equal {
            Modifier::empty()
        } else {
            Modifier::BOLD | Modifier::UNDERLINED
        };
        own[operation.new_range()]
            .iter()
            .map(move |word| Span::styled((*word).to_owned(), Style::add_modifier(style, strong)))
    });
    pieces.collect()
}

fn broken(spans: &[Span<'static>], width: usize) -> Vec<Vec<Span<'static>>> {
    let mut rows = vec![Vec::new()];
    let mut used = 0;
    for span in spans {
        let mut piece = String::new();
        for letter in span.content.chars() {
            let letter_width = letter.width().unwrap_or(0);
            if used + letter_width > width && used > 0 {
                if let Some(row) = rows.last_mut() {
                    row.push(Span::styled(std::mem::take(&mut piece), span.style));
                }
                rows.push(Vec::new());
                used = 0;
            }
            piece.push(letter);
            used += letter_width;
        }
        if let Some(row) = rows.last_mut() {
            row.push(Span::styled(piece, span.style));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as ` same`, `~before|after`, `-before`, `+after`.
    fn rendered(before: &str, after: &str) -> Vec<String> {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().trim().to_owned();
        let row = |row: Row| match row.kind {
            Kind::Same => format!(" {}", text(&row.before)),
            Kind::Changed => format!("~{}|{}", text(&row.before), text(&row.after)),
            Kind::Missing => format!("-{}", text(&row.before)),
            Kind::Extra => format!("+{}", text(&row.after)),
        };
        difference(before, after).into_iter().map(row).collect()
    }

    #[test]
    fn fields_are_aligned_by_their_keys() {
        let check = |before: &str, after: &str, expected: &[&str]| {
            assert_eq!(rendered(before, after), expected, "{before} {after}")
        };
        check(
            r#"{"a":1,"b":"x"}"#,
            r#"{"b":"x", "a":1}"#,
            &[" {", " \"a\": 1,", " \"b\": \"x\"", " }"],
        );
        check(
            r#"{"a":1,"b":2}"#,
            r#"{"a":3,"c":4}"#,
            &[
                " {",
                "~\"a\": 1,|\"a\": 3,",
                "-\"b\": 2,",
                "+\"c\": 4",
                " }",
            ],
        );
        check(
            r#"{"a":[1,{"b":2}]}"#,
            r#"{"a":[1,{"b":3},4]}"#,
            &[
                " {",
                " \"a\": [",
                " 1,",
                " {",
                "~\"b\": 2|\"b\": 3",
                " },",
                "+4",
                " ]",
                " }",
            ],
        );
        check("1", "\"1\"", &["~1|\"1\""]);
        check("{}", "[]", &["~{}|[]"]);
        check("{}", "{}", &[" {}"]);
        // An object compared with another type takes one line each.
        check(
            r#"{"a":{"b":1}}"#,
            r#"{"a":null}"#,
            &[" {", "~\"a\": {\"b\":1}|\"a\": null", " }"],
        );
    }

    #[test]
    fn code_in_a_field_is_compared_line_by_line() {
        let check = |before: &str, after: &str, expected: &[&str]| {
            assert_eq!(rendered(before, after), expected, "{before} {after}")
        };
        check(
            r#"{"code":"a = 1\nreturn \"a\"","n":1}"#,
            r#"{"code":"a = 2\nreturn \"a\"","n":1}"#,
            &[
                " {",
                " \"code\":,",
                "~a = 1|a = 2",
                " return \"a\"",
                " \"n\": 1",
                " }",
            ],
        );
        check(r#"["a\nb"]"#, "[]", &[" [", "-a", "-b", " ]"]);
        check(r#""a\nb""#, r#""a""#, &[" a", "-b"]);
    }

    #[test]
    fn other_texts_are_compared_line_by_line() {
        let check = |before: &str, after: &str, expected: &[&str]| {
            assert_eq!(rendered(before, after), expected, "{before} {after}")
        };
        check("a\nb\nc", "a\nx\nc\nd", &[" a", "~b|x", " c", "+d"]);
        check("```json\n{}\n```", "{}", &["-```json", " {}", "-```"]);
        check("", "a", &["+a"]);
        check("", "", &[]);
        check("a\u{1b}[1mb", "{}", &["~a␛[1mb|{}"]);
    }

    #[test]
    fn lines_fit_at_every_width() {
        let rows = difference(
            r#"{"name":"日本語 long text that is broken","b":1}"#,
            r#"{"name":"another long text","c":[1,2]}"#,
        );
        for width in 3..60 {
            for lines in [
                unified(&Theme::default(), &rows, width),
                side_by_side(&Theme::default(), &rows, width),
            ] {
                assert!(
                    lines.iter().all(|line| line.width() <= width.max(7)),
                    "{width}: {lines:?}"
                );
            }
        }
    }
}
