//! A filter by a case-insensitive regular expression.

use crossterm::event::KeyEvent;
use ratatui::text::Line;
use regex::{Regex, RegexBuilder};

use super::filter::{Filter, TextField};
use crate::style_role::Role;
use crate::theme::Theme;

/// The limits of a compiled expression and of its text; the filtered names are shorter.
const MAX_COMPILED_BYTES: usize = 1 << 20;
const MAX_TEXT_BYTES: usize = 4096;

#[derive(Debug, Default, Clone)]
pub struct PatternFilter {
    filter: Filter,
    /// `None` while the text is empty or too long.
    pattern: Option<Regex>,
    /// Whether the text is not a regular expression and is matched literally.
    is_literal: bool,
}

impl TextField for PatternFilter {
    fn key(&mut self, event: KeyEvent) -> bool {
        self.key(event)
    }

    fn paste(&mut self, text: &str) {
        self.paste(text);
    }
}

impl PatternFilter {
    pub fn typed(&mut self) -> Option<&mut dyn TextField> {
        if self.is_typing() { Some(self) } else { None }
    }

    pub fn text(&self) -> &str {
        self.filter.text()
    }

    pub fn is_typing(&self) -> bool {
        self.filter.is_typing
    }

    pub fn open(&mut self) {
        self.filter.is_typing = true;
    }

    pub fn close(&mut self) {
        self.filter.is_typing = false;
    }

    /// Removes the text and returns the keys; false if there was nothing to remove.
    pub fn clear(&mut self) -> bool {
        let is_shown = self.is_shown();
        *self = Self::default();
        is_shown
    }

    pub fn is_shown(&self) -> bool {
        self.filter.is_shown()
    }

    /// Handles a key; returns whether the text changed.
    pub fn key(&mut self, event: KeyEvent) -> bool {
        let changed = self.filter.key(event);
        if changed {
            self.compile();
        }
        changed
    }

    pub fn paste(&mut self, text: &str) -> bool {
        let is_taken = self.filter.paste(text);
        self.compile();
        is_taken
    }

    pub fn matches(&self, text: &str) -> bool {
        self.pattern
            .as_ref()
            .map_or(self.text().is_empty(), |pattern| pattern.is_match(text))
    }

    /// The field, followed by a note such as the number of matches.
    pub fn line(&self, theme: &Theme, columns: usize, note: &str) -> Line<'static> {
        let literal = if self.is_literal {
            "not a regular expression, matched literally  "
        } else {
            ""
        };
        let note = format!("  {literal}{note}");
        let mut line = self
            .filter
            .line(theme, columns.saturating_sub(note.len()).max(columns / 2));
        line.spans.push(theme.span(
            note,
            if self.is_literal {
                Role::Warning
            } else {
                Role::Faint
            },
        ));
        line
    }

    fn compile(&mut self) {
        let text = self.filter.text();
        if text.is_empty() || text.len() > MAX_TEXT_BYTES {
            (self.pattern, self.is_literal) = (None, !text.is_empty());
            return;
        }
        let of = |source: &str| {
            RegexBuilder::new(source)
                .case_insensitive(true)
                .size_limit(MAX_COMPILED_BYTES)
                .build()
        };
        let found = of(text);
        self.is_literal = found.is_err();
        self.pattern = found.or_else(|_| of(&regex::escape(text))).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_regular_expression_if_it_can_be() {
        let check = |text: &str, matching: &[&str], others: &[&str]| {
            let mut filter = PatternFilter::default();
            filter.open();
            filter.paste(text);
            for name in matching {
                assert!(filter.matches(name), "{text} {name}");
            }
            for name in others {
                assert!(!filter.matches(name), "{text} {name}");
            }
            filter
        };
        check("", &["", "loss"], &[]);
        check("^(kl|loss)$", &["KL", "loss"], &["kl_beta"]);
        check("time/.*", &["time/rollout"], &["step_time"]);
        let literal = check("(", &["KL (nats)"], &["KL"]);
        let line = literal.line(&Theme::default(), 120, "1 of 2").to_string();
        assert!(
            line.contains("matched literally") && line.ends_with("1 of 2"),
            "{line}"
        );
        check(r"\w{1000}{1000}", &[], &["word"]);
        check(&"word".repeat(50_000), &[], &["word", ""]);
    }
}
