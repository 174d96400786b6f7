//! Values of an answer with their confidence: a line each, its figure in the colour of how sure it is.

use ratatui::text::{Line, Span};

use super::text_width::one_line;
use crate::confidence::AnswerConfidence;
use crate::format::{or_na, probability};
use crate::style_role::Role;
use crate::theme::Theme;

/// From here on a value is sure.
const SURE: f64 = 0.99;
/// Below, it is doubtful.
const DOUBTFUL: f64 = 0.9;
/// Characters of a value.
const SHOWN: usize = 40;

/// A blank line, the least confidence, and a line for each value.
pub fn section(
    theme: &Theme,
    title: &str,
    confidence: &AnswerConfidence,
    completion: &str,
) -> Vec<Line<'static>> {
    let least = or_na(confidence.least(), probability);
    let heading = theme.line(format!("{title}, least {least}"), Role::Special);
    let mut section = vec![Line::default(), heading];
    section.extend(lines(theme, confidence, completion));
    section
}

/// `✓ 0.9996 /vendor "Acme"`; unknown ones have the reason.
fn lines(theme: &Theme, confidence: &AnswerConfidence, completion: &str) -> Vec<Line<'static>> {
    let mut lines = Vec::with_capacity(confidence.leaves.len() + 1);
    for (leaf, text) in confidence.written(completion) {
        let (mark, mark_role) = match leaf.right {
            Some(true) => (theme.glyph("✓", "+"), Role::Good),
            Some(false) => (theme.glyph("✗", "x"), Role::Bad),
            None => (" ", Role::Faint),
        };
        let (figure, role) = match leaf.confidence {
            Some(value) if value >= SURE => (probability(value), Role::Good),
            Some(value) if value >= DOUBTFUL => (probability(value), Role::Warning),
            Some(value) => (probability(value), Role::Bad),
            None => ("n/a".to_owned(), Role::Faint),
        };
        let agreement = leaf.agreement.map_or_else(String::new, |share| {
            format!("  agreement {}", probability(share))
        });
        let text: String = one_line(text).chars().take(SHOWN).collect();
        lines.push(Line::from(vec![
            theme.span(format!("{mark} "), mark_role),
            theme.span(format!("{figure:<9} "), role),
            theme.span(one_line(&leaf.path), Role::JsonKey),
            Span::raw(format!(" {text}")),
            theme.span(agreement, Role::Faint),
        ]));
    }
    if let Some(why) = &confidence.unknown {
        lines.push(theme.line(format!("  n/a: {why}"), Role::Faint));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confidence::LeafConfidence;

    #[test]
    fn a_figure_has_the_colour_of_how_sure_it_is() {
        let leaf = |path: &str, confidence, right| LeafConfidence {
            path: path.to_owned(),
            confidence,
            right,
            ..LeafConfidence::default()
        };
        let answer = AnswerConfidence {
            leaves: vec![
                leaf("/a", Some(0.999_87), Some(true)),
                leaf("/b", Some(0.95), Some(false)),
                leaf("/c", Some(0.2), None),
                leaf("/d", None, None),
            ],
            unknown: Some("the answer leaves the grammar".to_owned()),
        };
        let theme = Theme::default();
        let lines = lines(
            &theme,
            &answer,
            r#"{"a": "x", "b": 1, "c": true, "d": null}"#,
        );
        let text = |line: &Line<'_>| -> String {
            line.spans
                .iter()
                .map(|span| span.content.as_ref())
                .collect()
        };
        let texts: Vec<String> = lines.iter().map(text).collect();
        assert_eq!(
            texts,
            [
                "✓ 0.99987   /a \"x\"",
                "✗ 0.95      /b 1",
                "  0.20      /c true",
                "  n/a       /d null",
                "  n/a: the answer leaves the grammar",
            ]
        );
        let roles = [Role::Good, Role::Warning, Role::Bad, Role::Faint];
        for (line, role) in lines.iter().zip(roles) {
            assert_eq!(line.spans[1].style, theme.style(role));
        }
    }
}
