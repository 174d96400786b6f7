//! A key with its modifiers, as written in the table of actions and in keymap files.

use std::fmt;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// One key press. Letters with shift are written as the uppercase letter: `G`, not `shift-g`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chord {
    pub code: KeyCode,
    /// Control, alt and, for keys that are not characters, shift.
    pub modifiers: KeyModifiers,
}

const NAMED: [(&str, KeyCode); 15] = [
    ("space", KeyCode::Char(' ')),
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("backtab", KeyCode::BackTab),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("pageup", KeyCode::PageUp),
    ("pagedown", KeyCode::PageDown),
];

impl Chord {
    pub const TAB: Self = Self {
        code: KeyCode::Tab,
        modifiers: KeyModifiers::NONE,
    };

    pub fn from_event(event: KeyEvent) -> Self {
        let mut modifiers =
            event.modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SHIFT);
        let mut code = event.code;
        match code {
            KeyCode::Char(letter) => {
                modifiers -= KeyModifiers::SHIFT;
                if modifiers.contains(KeyModifiers::CONTROL) {
                    code = KeyCode::Char(letter.to_ascii_lowercase());
                }
            }
            KeyCode::Tab if modifiers.contains(KeyModifiers::SHIFT) => code = KeyCode::BackTab,
            _ => {}
        }
        if code == KeyCode::BackTab {
            modifiers -= KeyModifiers::SHIFT;
        }
        Self { code, modifiers }
    }

    /// Parses `ctrl-p`, `alt-enter`, `shift-up`, `f5`, `G`, `space`, `?`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut modifiers = KeyModifiers::NONE;
        let mut rest = text;
        loop {
            let next = [
                ("ctrl-", KeyModifiers::CONTROL),
                ("alt-", KeyModifiers::ALT),
                ("shift-", KeyModifiers::SHIFT),
            ]
            .into_iter()
            .find_map(|(name, modifier)| rest.strip_prefix(name).map(|rest| (rest, modifier)));
            match next {
                Some((shorter, modifier)) if !shorter.is_empty() => {
                    modifiers |= modifier;
                    rest = shorter;
                }
                _ => break,
            }
        }
        let named = NAMED
            .iter()
            .find(|(name, _)| *name == rest)
            .map(|(_, code)| *code);
        let function = rest
            .strip_prefix('f')
            .and_then(|number| number.parse().ok())
            .filter(|number| (1..=12).contains(number));
        let mut letters = rest.chars();
        let single = letters
            .next()
            .filter(|_| letters.as_str().is_empty())
            .map(KeyCode::Char);
        let code = named.or(function.map(KeyCode::F)).or(single)?;
        Some(Self::from_event(KeyEvent::new(code, modifiers)))
    }

    /// Whether text fields leave it to actions: escape, tab, function keys, and chords with control or alt.
    pub fn is_command(self) -> bool {
        let is_modified = self
            .modifiers
            .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
        is_modified
            || matches!(
                self.code,
                KeyCode::Esc | KeyCode::Tab | KeyCode::BackTab | KeyCode::F(_)
            )
    }

    /// Whether it neither moves a cursor nor leaves something: it is expected to do something else.
    pub fn is_for_action(self) -> bool {
        match self.code {
            KeyCode::Char(letter) => !self.modifiers.is_empty() || !"hl".contains(letter),
            code => matches!(
                code,
                KeyCode::F(_) | KeyCode::Enter | KeyCode::Backspace | KeyCode::Delete
            ),
        }
    }
}

impl fmt::Display for Chord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (modifier, name) in [
            (KeyModifiers::CONTROL, "ctrl-"),
            (KeyModifiers::ALT, "alt-"),
            (KeyModifiers::SHIFT, "shift-"),
        ] {
            if self.modifiers.contains(modifier) {
                formatter.write_str(name)?;
            }
        }
        match (NAMED.iter().find(|(_, code)| *code == self.code), self.code) {
            (Some((name, _)), _) => formatter.write_str(name),
            (None, KeyCode::Char(letter)) => write!(formatter, "{letter}"),
            (None, KeyCode::F(number)) => write!(formatter, "f{number}"),
            (None, other) => write!(formatter, "{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chords_are_read_as_they_are_written() {
        let check = |text: &str, code, modifiers| {
            let chord = Chord::parse(text).unwrap();
            assert_eq!(chord, Chord { code, modifiers }, "{text}");
            assert_eq!(chord.to_string(), text);
        };
        check("ctrl-p", KeyCode::Char('p'), KeyModifiers::CONTROL);
        check("G", KeyCode::Char('G'), KeyModifiers::NONE);
        check("alt-enter", KeyCode::Enter, KeyModifiers::ALT);
        check("shift-up", KeyCode::Up, KeyModifiers::SHIFT);
        check("f7", KeyCode::F(7), KeyModifiers::NONE);
        check("f", KeyCode::Char('f'), KeyModifiers::NONE);
        check("-", KeyCode::Char('-'), KeyModifiers::NONE);
        check("space", KeyCode::Char(' '), KeyModifiers::NONE);
        check("?", KeyCode::Char('?'), KeyModifiers::NONE);
        for bad in ["", "ctrl-", "f13", "return", "ctrl-ab"] {
            assert_eq!(Chord::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_shifted_letter_is_one_chord_whatever_the_terminal_reports() {
        let reported = [
            KeyEvent::new(KeyCode::Char('G'), KeyModifiers::NONE),
            KeyEvent::new(KeyCode::Char('G'), KeyModifiers::SHIFT),
        ];
        assert!(
            reported
                .into_iter()
                .all(|event| Some(Chord::from_event(event)) == Chord::parse("G"))
        );
        let back = KeyEvent::new(KeyCode::Tab, KeyModifiers::SHIFT);
        assert_eq!(Some(Chord::from_event(back)), Chord::parse("backtab"));
    }
}
