//! A single-line text field: cursor, words, scrolling.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::text::{Line, Span};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use crate::style_role::Role;
use crate::theme::Theme;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Field {
    text: String,
    /// Byte offset of the cursor.
    cursor: usize,
    /// Whether the whole text is selected, so that typed or pasted text replaces it.
    is_selected: bool,
}

impl Field {
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            cursor: text.len(),
            is_selected: false,
        }
    }

    pub fn selected(text: &str) -> Self {
        Self {
            is_selected: true,
            ..Self::new(text)
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Handles a key; returns whether the text changed.
    pub fn key(&mut self, event: KeyEvent) -> bool {
        let before = self.text.len();
        let control = event.modifiers.contains(KeyModifiers::CONTROL);
        if std::mem::take(&mut self.is_selected) {
            match event.code {
                KeyCode::Backspace | KeyCode::Delete => {
                    self.clear();
                    return before > 0;
                }
                KeyCode::Char(letter) if control && "ukw".contains(letter) => self.clear(),
                KeyCode::Char(_)
                    if !event
                        .modifiers
                        .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) =>
                {
                    self.clear()
                }
                KeyCode::Left => self.cursor = 0,
                _ => {}
            }
        }
        match event.code {
            KeyCode::Char('u') if control => self
                .text
                .drain(..std::mem::take(&mut self.cursor))
                .for_each(drop),
            KeyCode::Char('k') if control => self.text.truncate(self.cursor),
            KeyCode::Char('w') if control => self.delete(self.word_before()),
            KeyCode::Char('a') if event.modifiers.contains(KeyModifiers::ALT) => {
                self.is_selected = !self.text.is_empty();
            }
            KeyCode::Char('e') if control => self.cursor = self.text.len(),
            KeyCode::Char(letter)
                if !event
                    .modifiers
                    .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) =>
            {
                self.text.insert(self.cursor, letter);
                self.cursor += letter.len_utf8();
                return true;
            }
            KeyCode::Backspace => self.delete(self.before()),
            KeyCode::Delete => {
                let end = self.after();
                self.text.drain(self.cursor..end);
            }
            KeyCode::Left => self.cursor = self.before(),
            KeyCode::Right => self.cursor = self.after(),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.text.len(),
            _ => {}
        }
        self.text.len() != before
    }

    fn clear(&mut self) {
        self.text.clear();
        self.cursor = 0;
    }

    /// Inserts a text; newlines become spaces.
    pub fn paste(&mut self, text: &str) {
        if std::mem::take(&mut self.is_selected) {
            self.clear();
        }
        let text: String = text
            .trim_end_matches(['\r', '\n'])
            .chars()
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .collect();
        self.text.insert_str(self.cursor, &text);
        self.cursor += text.len();
    }

    fn delete(&mut self, from: usize) {
        self.text.drain(from..self.cursor);
        self.cursor = from;
    }

    fn before(&self) -> usize {
        self.text[..self.cursor]
            .grapheme_indices(true)
            .next_back()
            .map_or(0, |(start, _)| start)
    }

    fn after(&self) -> usize {
        self.cursor
            + self.text[self.cursor..]
                .graphemes(true)
                .next()
                .map_or(0, str::len)
    }

    fn word_before(&self) -> usize {
        let mut words = self.text[..self.cursor].unicode_word_indices();
        words.next_back().map_or(0, |(start, _)| start)
    }

    pub fn line(&self, theme: &Theme, columns: usize, focused: bool) -> Line<'static> {
        let room = columns.saturating_sub(1).max(1);
        // Scrolls so that the text before the cursor just fits. Measures only what is drawn, as the text may be long.
        let (mut start, mut used) = (self.cursor, 0);
        for (at, grapheme) in self.text[..self.cursor].grapheme_indices(true).rev() {
            if used + grapheme.width() >= room {
                break;
            }
            (start, used) = (at, used + grapheme.width());
        }
        let mut end = self.cursor;
        for grapheme in self.text[self.cursor..].graphemes(true) {
            used += grapheme.width();
            if used > room {
                break;
            }
            end += grapheme.len();
        }
        let text = theme.style(Role::Text);
        if !focused {
            return Line::styled(self.text[start..end].to_owned(), text);
        }
        if self.is_selected && !self.text.is_empty() {
            let selected = text.add_modifier(ratatui::style::Modifier::REVERSED);
            return Line::from(vec![
                Span::styled(self.text[start..end].to_owned(), selected),
                Span::raw(" "),
            ]);
        }
        let under = self.after().min(end);
        let (at, rest) = if under > self.cursor {
            (&self.text[self.cursor..under], &self.text[under..end])
        } else {
            (" ", "")
        };
        Line::from(vec![
            Span::styled(self.text[start..self.cursor].to_owned(), text),
            Span::styled(
                at.to_owned(),
                text.add_modifier(ratatui::style::Modifier::REVERSED),
            ),
            Span::styled(rest.to_owned(), text),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_chord::Chord;

    #[test]
    fn keys_edit_the_line() {
        let check = |start: &str, keys: &str, expected: &str| {
            let mut field = Field::new(start);
            for key in keys.split_whitespace() {
                let chord = Chord::parse(key).unwrap();
                field.key(KeyEvent::new(chord.code, chord.modifiers));
            }
            assert_eq!(field.text(), expected, "{start} {keys}");
        };
        check("ab", "c", "abc");
        check("ab", "backspace backspace backspace", "");
        check("äö", "left x", "äxö");
        check("one two", "ctrl-w", "one ");
        check("one two", "home delete", "ne two");
        check("one", "left left ctrl-k", "o");
        check("one", "left ctrl-u", "e");
        check("one two", "left alt-a x", "x");
        check("one two", "alt-a backspace", "");
        check("e\u{301}x", "left backspace", "x");
    }

    #[test]
    fn what_is_selected_gives_way_to_what_is_typed() {
        let check = |keys: &str, expected: &str| {
            let mut field = Field::selected("1e-4");
            for key in keys.split_whitespace() {
                let chord = Chord::parse(key).unwrap();
                field.key(KeyEvent::new(chord.code, chord.modifiers));
            }
            assert_eq!(field.text(), expected, "{keys}");
        };
        check("5 e - 4", "5e-4");
        check("end 5", "1e-45");
        check("left 5", "51e-4");
        check("right backspace", "1e-");
        check("backspace 2", "2");
        check("ctrl-u 2", "2");
        check("alt-x 5", "1e-45");
        let mut field = Field::selected("1e-4");
        field.paste("pasted");
        assert_eq!(field.text(), "pasted");
    }

    #[test]
    fn the_window_follows_the_cursor_at_every_width() {
        let field = Field::new("日本語 and more");
        for columns in 0..20 {
            let line = field.line(&Theme::default(), columns, true);
            assert!(line.width() <= columns.max(2), "{columns}: {line:?}");
        }
    }
}
