//! Values of an answer with their places in the prompt: a line each, the value underlined in what is written around it.

use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use super::text_width::one_line;
use crate::score::{GroundedValue, PromptPlace};
use crate::style_role::Role;
use crate::theme::Theme;

/// `✓ /amount  prompt line 7: | Total | 58.463,87 |`
pub fn lines(theme: &Theme, values: &[GroundedValue]) -> Vec<Line<'static>> {
    let line = |GroundedValue {
                    instance_path,
                    prompt,
                    ..
                }: &GroundedValue| {
        let PromptPlace {
            line,
            excerpt,
            start,
            length,
            ..
        } = prompt;
        let part = |skipped: usize, count: usize| {
            one_line(
                &excerpt
                    .chars()
                    .skip(skipped)
                    .take(count)
                    .collect::<String>(),
            )
        };
        Line::from(vec![
            theme.span("✓ ", Role::Good),
            theme.span(one_line(instance_path), Role::JsonKey),
            theme.span(format!("  prompt line {line}: "), Role::Faint),
            Span::raw(part(0, *start)),
            Span::styled(
                part(*start, *length),
                theme.style(Role::Good).add_modifier(Modifier::UNDERLINED),
            ),
            Span::raw(part(start + length, usize::MAX)),
        ])
    };
    values.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_underlined_where_the_prompt_states_it() {
        let prompt = PromptPlace {
            message: 0,
            line: 7,
            column: 9,
            excerpt: "Tötal: 58.463,87 EUR".to_owned(),
            start: 7,
            length: 9,
        };
        let value = GroundedValue {
            instance_path: "/amount".to_owned(),
            line: 1,
            column: 2,
            prompt,
        };
        let lines = lines(&Theme::default(), &[value]);
        let text: String = lines
            .iter()
            .flat_map(|line| &line.spans)
            .map(|span| span.content.as_ref())
            .collect();
        assert_eq!(text, "✓ /amount  prompt line 7: Tötal: 58.463,87 EUR");
        let underlined = |span: &&Span<'_>| span.style.add_modifier.contains(Modifier::UNDERLINED);
        let marked: Vec<&str> = lines
            .iter()
            .flat_map(|line| &line.spans)
            .filter(underlined)
            .map(|span| span.content.as_ref())
            .collect();
        assert_eq!(marked, ["58.463,87"]);
    }
}
