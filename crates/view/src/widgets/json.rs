//! JSON as coloured lines with underlined faults. Accepts any text, as completions may be malformed.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::json_reader::tokens;
use crate::secrets::visible;
use crate::style_role::Role;
use crate::theme::Theme;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// 1-based.
    pub line: usize,
    /// 1-based, in Unicode scalars.
    pub column: usize,
}

/// The text as lines. Underlines the rest of the word, string or number from each fault on; a fault past the end of a
/// line gets a mark.
pub fn lines(theme: &Theme, text: &str, faults: &[Fault]) -> Vec<Line<'static>> {
    text.split('\n')
        .enumerate()
        .map(|(index, line)| {
            let line = line.strip_suffix('\r').unwrap_or(line);
            let columns: Vec<usize> = faults
                .iter()
                .filter(|fault| fault.line == index + 1)
                .map(|fault| fault.column)
                .collect();
            coloured(theme, line, &columns)
        })
        .collect()
}

fn coloured(theme: &Theme, line: &str, faults: &[usize]) -> Line<'static> {
    let mut spans = Vec::new();
    let mut column = 1;
    for (text, role) in pieces(line) {
        let length = text.chars().count();
        let starts_here = faults
            .iter()
            .copied()
            .filter(|fault| (column..column + length).contains(fault))
            .min();
        let shown = visible(text);
        match starts_here {
            Some(fault) => {
                let before: String = shown.chars().take(fault - column).collect();
                let at: String = shown.chars().skip(fault - column).collect();
                spans.push(theme.span(before, role));
                spans.push(Span::styled(at, faulty(theme, role)));
            }
            None => spans.push(theme.span(shown.into_owned(), role)),
        }
        column += length;
    }
    if faults.iter().any(|fault| *fault >= column) {
        spans.push(theme.span("◂", Role::Fault));
    }
    Line::from(spans)
}

fn faulty(theme: &Theme, role: Role) -> Style {
    theme.style(role).patch(theme.style(Role::Fault))
}

/// Splits a line into pieces of one role each. Text that is not JSON has the role of plain text.
fn pieces(line: &str) -> Vec<(&str, Role)> {
    let (mut found, mut at) = (Vec::new(), 0);
    for token in tokens(line) {
        let role = if token.role == Role::Bad {
            Role::Text
        } else {
            token.role
        };
        found.extend([
            (&line[at..token.bytes.start], Role::Text),
            (&line[token.bytes.clone()], role),
        ]);
        at = token.bytes.end;
    }
    found.push((&line[at..], Role::Text));
    found.retain(|(text, _)| !text.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_their_roles_and_make_up_the_line() {
        let check = |line: &str, expected: &[(&str, Role)]| {
            let found = pieces(line);
            assert_eq!(
                found.iter().map(|(text, _)| *text).collect::<String>(),
                line
            );
            let words: Vec<_> = found
                .into_iter()
                .filter(|(text, _)| !text.trim().is_empty())
                .collect();
            assert_eq!(words, expected, "{line}");
        };
        check(
            r#"{"a": 1.5e-3}"#,
            &[
                ("{", Role::JsonPunctuation),
                ("\"a\"", Role::JsonKey),
                (":", Role::JsonPunctuation),
                ("1.5e-3", Role::JsonNumber),
                ("}", Role::JsonPunctuation),
            ],
        );
        check(
            r#""say \"x\"" true"#,
            &[
                (r#""say \"x\"""#, Role::JsonString),
                ("true", Role::JsonWord),
            ],
        );
        check(
            "Sure: \"open",
            &[
                ("Sure", Role::Text),
                (":", Role::JsonPunctuation),
                ("\"open", Role::JsonString),
            ],
        );
        check("ünïcode", &[("ünïcode", Role::Text)]);
        check("", &[]);
    }

    #[test]
    fn faults_are_underlined_at_their_place() {
        let theme = Theme::default();
        let check = |text: &str, fault: Fault, expected: &str| {
            let fault_style = theme.style(Role::Fault);
            let lines = lines(&theme, text, &[fault]);
            let marked: String = lines
                .iter()
                .flat_map(|line| &line.spans)
                .filter(|span| {
                    span.style.add_modifier.contains(fault_style.add_modifier)
                        && span.style.fg == fault_style.fg
                })
                .map(|span| span.content.as_ref())
                .collect();
            assert_eq!(marked, expected, "{text}");
        };
        check("{\"a\": \"x\"}", Fault { line: 1, column: 7 }, "\"x\"");
        check("{\n \"ä\": 12\n}", Fault { line: 2, column: 7 }, "12");
        check("{\"a\": ", Fault { line: 1, column: 9 }, "◂");
        check("{}", Fault { line: 3, column: 1 }, "");
    }

    #[test]
    fn nothing_that_a_completion_holds_reaches_the_terminal_raw() {
        let text: String = lines(&Theme::default(), "\u{1b}[2Jx\u{9b}y\u{202e}", &[])
            .iter()
            .flat_map(|line| &line.spans)
            .map(|span| span.content.as_ref())
            .collect();
        assert_eq!(text, "␛[2Jx\u{fffd}y\u{fffd}");
    }
}
