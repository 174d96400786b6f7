//! Parses terminal bytes into keys, mouse events and pasted text. Other sequences, such as an
//! answer to a query of this or another program, are dropped whole. (crossterm drops the start of
//! some and reports the rest as keys.)

use std::time::Duration;

use crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

/// Maximum time between an escape byte and the rest of its sequence, before it is the Escape key.
const ESCAPE_TIMEOUT: Duration = Duration::from_millis(100);
/// How long an incomplete sequence waits for its next byte before it is dropped.
const SEQUENCE_TIMEOUT: Duration = Duration::from_secs(1);

const PASTE_END: &[u8] = b"\x1b[201~";

#[derive(Debug, Default)]
pub(super) struct KeyParser {
    /// Start of an incomplete sequence.
    pending: Vec<u8>,
    /// Whether the escape at the start of `pending` was read alone, as a key press is.
    is_escape_alone: bool,
    /// Whether the last byte was reported as the Escape key and nothing has followed.
    was_escape: bool,
    /// Inside an OSC, DCS, APC, PM or SOS string, which is dropped up to its end.
    is_in_string: bool,
    paste: Option<Vec<u8>>,
}

enum Parsed {
    Incomplete,
    /// Number of bytes without a meaning here.
    Skip(usize),
    Event(usize, Event),
    /// A control string begins after this number of bytes.
    String(usize),
    Paste(usize),
}

impl KeyParser {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(first) = bytes.first() else {
            return events;
        };
        if self.pending == [ESC] && !self.is_in_string && self.paste.is_none() {
            self.is_escape_alone = true;
            // A terminal sends Alt and a key in one write.
            if !b"[O]P_^X".contains(first) {
                self.pending.clear();
                events.push(key(KeyCode::Esc, KeyModifiers::NONE));
            }
        } else if std::mem::take(&mut self.was_escape) && is_report(bytes) {
            // The escape of this sequence was read long before and reported as the Escape key.
            self.pending.push(ESC);
        }
        self.was_escape = false;
        self.pending.extend_from_slice(bytes);
        self.parse_pending(&mut events);
        events
    }

    /// How long to wait for more bytes before `expire`; `None` if nothing is incomplete.
    pub(super) fn timeout(&self) -> Option<Duration> {
        if self.paste.is_some() || (self.pending.is_empty() && !self.is_in_string) {
            return None;
        }
        Some(if self.is_in_string || self.pending.len() > 2 {
            SEQUENCE_TIMEOUT
        } else {
            ESCAPE_TIMEOUT
        })
    }

    /// Events of the incomplete bytes, once `timeout` has passed without another byte.
    pub(super) fn expire(&mut self) -> Vec<Event> {
        let pending = std::mem::take(&mut self.pending);
        if std::mem::take(&mut self.is_in_string) {
            return Vec::new();
        }
        let is_alone = std::mem::take(&mut self.is_escape_alone);
        let escape = key(KeyCode::Esc, KeyModifiers::NONE);
        match pending[..] {
            [ESC] => {
                self.was_escape = true;
                vec![escape]
            }
            [ESC, letter] if letter.is_ascii_graphic() => {
                let letter = KeyCode::Char(letter.into());
                match is_alone {
                    true => vec![escape, key(letter, KeyModifiers::NONE)],
                    false => vec![key(letter, KeyModifiers::ALT)],
                }
            }
            _ => Vec::new(),
        }
    }

    fn parse_pending(&mut self, events: &mut Vec<Event>) {
        let mut bytes = std::mem::take(&mut self.pending);
        let mut start = 0;
        while start < bytes.len() {
            let left = &bytes[start..];
            if let Some(paste) = &mut self.paste {
                // The end marker may be split over two reads.
                let searched = paste.len().saturating_sub(PASTE_END.len());
                paste.extend_from_slice(left);
                start = bytes.len();
                let end = paste[searched..]
                    .windows(PASTE_END.len())
                    .position(|end| end == PASTE_END);
                if let Some(end) = end {
                    let rest = paste.split_off(searched + end);
                    let text = String::from_utf8_lossy(paste).into_owned();
                    events.push(Event::Paste(text));
                    self.paste = None;
                    bytes = rest[PASTE_END.len()..].to_vec();
                    start = 0;
                }
                continue;
            }
            if self.is_in_string {
                match string_end(left) {
                    Some((length, ended)) => {
                        self.is_in_string = !ended;
                        start += length;
                    }
                    None => break,
                }
                continue;
            }
            match parse(left) {
                Parsed::Incomplete => break,
                Parsed::Skip(length) => start += length,
                Parsed::Event(length, event) => {
                    events.push(event);
                    start += length;
                }
                Parsed::String(length) => {
                    self.is_in_string = true;
                    start += length;
                }
                Parsed::Paste(length) => {
                    self.paste = Some(Vec::new());
                    start += length;
                }
            }
        }
        bytes.drain(..start);
        self.is_escape_alone &= !bytes.is_empty();
        self.pending = bytes;
    }
}

/// Whether bytes after an escape are one complete sequence other than a key.
fn is_report(bytes: &[u8]) -> bool {
    let sequence = [&[ESC], bytes].concat();
    match parse(&sequence) {
        Parsed::Skip(length) => length > 2,
        Parsed::String(length) => {
            let mut rest = &sequence[length..];
            while let Some((length, ended)) = string_end(rest) {
                if ended {
                    return true;
                }
                rest = &rest[length..];
            }
            false
        }
        Parsed::Incomplete | Parsed::Event(..) | Parsed::Paste(_) => false,
    }
}

/// Length of a control string up to its end or the end of `bytes`, and whether it ends; `None` if
/// that depends on the next byte.
fn string_end(bytes: &[u8]) -> Option<(usize, bool)> {
    match bytes.iter().position(u8::is_ascii_control) {
        None if bytes.is_empty() => None,
        None => Some((bytes.len(), false)),
        Some(end) if bytes[end] == BEL => Some((end + 1, true)),
        Some(end) if bytes[end] != ESC => Some((end, true)),
        Some(end) => match bytes.get(end + 1) {
            Some(b'\\') => Some((end + 2, true)),
            // The start of another sequence ends this one.
            Some(_) => Some((end, true)),
            None if end == 0 => None,
            None => Some((end, false)),
        },
    }
}

/// Parses the key, event or string at the start of `bytes`.
fn parse(bytes: &[u8]) -> Parsed {
    match *bytes {
        [ESC] => Parsed::Incomplete,
        [ESC, ESC, ..] => Parsed::Event(1, key(KeyCode::Esc, KeyModifiers::NONE)),
        [ESC, b'[', ..] => parse_csi(bytes),
        [ESC, b'O', ..] => parse_ss3(bytes),
        [ESC, b']' | b'P' | b'_' | b'^' | b'X'] => Parsed::Incomplete,
        // A title (`l`, `L`) or a numbered command.
        [ESC, b']', b'0'..=b'9' | b'l' | b'L', ..] => Parsed::String(2),
        [ESC, b'P' | b'_' | b'^' | b'X', b' '..=b'~', ..] => Parsed::String(2),
        [ESC, ..] => match parse_character(&bytes[1..]) {
            Parsed::Event(length, Event::Key(mut event)) => {
                event.modifiers |= KeyModifiers::ALT;
                Parsed::Event(length + 1, Event::Key(event))
            }
            Parsed::Skip(length) => Parsed::Skip(length + 1),
            parsed => parsed,
        },
        _ => parse_character(bytes),
    }
}

fn parse_character(bytes: &[u8]) -> Parsed {
    let control = |letter: u8| key(KeyCode::Char(letter.into()), KeyModifiers::CONTROL);
    let plain = |code| key(code, KeyModifiers::NONE);
    let event = match bytes[0] {
        b'\r' => plain(KeyCode::Enter),
        b'\t' => plain(KeyCode::Tab),
        0x7f => plain(KeyCode::Backspace),
        0 => control(b' '),
        byte @ 0x01..=0x1a => control(byte - 1 + b'a'),
        byte @ 0x1c..=0x1f => control(byte - 0x1c + b'4'),
        first => {
            let length = match first {
                0x00..=0x7f => 1,
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf7 => 4,
                _ => return Parsed::Skip(1),
            };
            let there = &bytes[..length.min(bytes.len())];
            return match std::str::from_utf8(there).map(|text| text.chars().next()) {
                Ok(Some(letter)) if letter.is_control() => Parsed::Skip(length),
                Ok(Some(letter)) => Parsed::Event(length, character(letter)),
                Err(error) if error.error_len().is_none() => Parsed::Incomplete,
                Ok(None) | Err(_) => Parsed::Skip(1),
            };
        }
    };
    Parsed::Event(1, event)
}

fn parse_ss3(bytes: &[u8]) -> Parsed {
    let digits = bytes[2..].iter().take_while(|byte| byte.is_ascii_digit());
    let end = 2 + digits.count();
    let code = match bytes.get(end) {
        None => return Parsed::Incomplete,
        Some(byte) if byte.is_ascii_control() => {
            return Parsed::Event(2, key(KeyCode::Char('O'), KeyModifiers::ALT));
        }
        Some(b'R') => Some(KeyCode::F(3)),
        Some(b'M') => Some(KeyCode::Enter),
        Some(last) => cursor_key(*last),
    };
    match code {
        Some(code) => Parsed::Event(end + 1, key(code, KeyModifiers::NONE)),
        None => Parsed::Skip(end + 1),
    }
}

/// Parses `ESC [`, parameters, and a final byte that determines the meaning.
fn parse_csi(bytes: &[u8]) -> Parsed {
    match bytes.get(2) {
        None => return Parsed::Incomplete,
        // Linux console: F1 to F5.
        Some(b'[') => {
            return match bytes.get(3) {
                None => Parsed::Incomplete,
                Some(last @ b'A'..=b'E') => {
                    Parsed::Event(4, key(KeyCode::F(last - b'A' + 1), KeyModifiers::NONE))
                }
                Some(_) => Parsed::Skip(3),
            };
        }
        // Three-byte mouse report, from a terminal without SGR reports.
        Some(b'M') => {
            let Some([button, column, row]) = bytes.get(3..6) else {
                return Parsed::Incomplete;
            };
            let place = |byte: &u8| u16::from(byte.saturating_sub(33));
            let button = u16::from(button.saturating_sub(32));
            return match mouse(button, place(column), place(row), true) {
                Some(event) => Parsed::Event(6, event),
                None => Parsed::Skip(6),
            };
        }
        Some(_) => {}
    }
    let is_parameter = |byte: &u8| (0x20..=0x3f).contains(byte);
    let Some(end) = bytes[2..]
        .iter()
        .position(|byte| !is_parameter(byte))
        .map(|end| end + 2)
    else {
        return Parsed::Incomplete;
    };
    let last = bytes[end];
    if !(0x40..=0x7e).contains(&last) {
        return Parsed::Skip(end);
    }
    let parameters = String::from_utf8_lossy(&bytes[2..end]);
    if (&*parameters, last) == ("200", b'~') {
        return Parsed::Paste(end + 1);
    }
    let event = match parameters.strip_prefix('<') {
        Some(report) if matches!(last, b'M' | b'm') => sgr_mouse(report, last == b'M'),
        Some(_) => None,
        None => csi_key(&parameters, last),
    };
    match event {
        Some(event) => Parsed::Event(end + 1, event),
        None => Parsed::Skip(end + 1),
    }
}

/// The key of a sequence `ESC [ NUMBER ; MODIFIERS : KIND LAST`. Sequences with a prefix such as
/// `?` and with final byte `R` (cursor position) are not keys.
fn csi_key(parameters: &str, last: u8) -> Option<Event> {
    let mut fields = parameters.split(';').map(|field| {
        let mut numbers = field.split(':').map(|number| match number {
            "" => Ok(1),
            number => number.parse::<u32>(),
        });
        let first = numbers.next()?.ok()?;
        Some((first, numbers.next().and_then(Result::ok)))
    });
    let (mut number, _) = fields.next()??;
    let (mask, kind) = match fields.next() {
        Some(field) => field?,
        None => (1, None),
    };
    let code = match last {
        b'Z' => KeyCode::BackTab,
        // xterm's modifyOtherKeys.
        b'~' if number == 27 => {
            (number, _) = fields.next()??;
            character_key(number, mask)?
        }
        b'~' => KeyCode::F(
            u8::try_from(match number {
                1 | 7 => return Some(modified(KeyCode::Home, mask, kind)),
                2 => return Some(modified(KeyCode::Insert, mask, kind)),
                3 => return Some(modified(KeyCode::Delete, mask, kind)),
                4 | 8 => return Some(modified(KeyCode::End, mask, kind)),
                5 => return Some(modified(KeyCode::PageUp, mask, kind)),
                6 => return Some(modified(KeyCode::PageDown, mask, kind)),
                11..=15 => number - 10,
                17..=21 => number - 11,
                23..=26 => number - 12,
                28..=29 => number - 15,
                31..=34 => number - 17,
                _ => return None,
            })
            .ok()?,
        ),
        b'u' => character_key(number, mask)?,
        last => cursor_key(last)?,
    };
    Some(modified(code, mask, kind))
}

fn cursor_key(last: u8) -> Option<KeyCode> {
    Some(match last {
        b'A' => KeyCode::Up,
        b'B' => KeyCode::Down,
        b'C' => KeyCode::Right,
        b'D' => KeyCode::Left,
        b'F' => KeyCode::End,
        b'H' => KeyCode::Home,
        b'P' => KeyCode::F(1),
        b'Q' => KeyCode::F(2),
        b'S' => KeyCode::F(4),
        _ => return None,
    })
}

fn character_key(number: u32, mask: u32) -> Option<KeyCode> {
    let is_shifted = modifiers(mask).contains(KeyModifiers::SHIFT);
    Some(match char::from_u32(number)? {
        '\x1b' => KeyCode::Esc,
        '\r' => KeyCode::Enter,
        '\t' if is_shifted => KeyCode::BackTab,
        '\t' => KeyCode::Tab,
        '\x7f' => KeyCode::Backspace,
        // Private use: keys of the kitty protocol, which is not enabled.
        '\u{e000}'..='\u{f8ff}' => return None,
        letter if letter.is_control() => return None,
        letter if is_shifted => KeyCode::Char(letter.to_ascii_uppercase()),
        letter => KeyCode::Char(letter),
    })
}

fn modifiers(mask: u32) -> KeyModifiers {
    let known = KeyModifiers::SHIFT | KeyModifiers::ALT | KeyModifiers::CONTROL;
    let bits = u8::try_from(mask.saturating_sub(1)).unwrap_or(0);
    let bit = |bit: u8, modifier| match bits & bit {
        0 => KeyModifiers::NONE,
        _ => modifier,
    };
    known
        & (bit(1, KeyModifiers::SHIFT) | bit(2, KeyModifiers::ALT) | bit(4, KeyModifiers::CONTROL))
}

fn modified(code: KeyCode, mask: u32, kind: Option<u32>) -> Event {
    let kind = match kind {
        Some(2) => KeyEventKind::Repeat,
        Some(3) => KeyEventKind::Release,
        _ => KeyEventKind::Press,
    };
    let shift = match code {
        KeyCode::BackTab => KeyModifiers::SHIFT,
        _ => KeyModifiers::NONE,
    };
    Event::Key(KeyEvent::new_with_kind(code, modifiers(mask) | shift, kind))
}

fn key(code: KeyCode, modifiers: KeyModifiers) -> Event {
    Event::Key(KeyEvent::new(code, modifiers))
}

fn character(letter: char) -> Event {
    let modifiers = match letter.is_uppercase() {
        true => KeyModifiers::SHIFT,
        false => KeyModifiers::NONE,
    };
    key(KeyCode::Char(letter), modifiers)
}

/// The event of `BUTTON;COLUMN;ROW`; columns and rows start at 1.
fn sgr_mouse(report: &str, is_press: bool) -> Option<Event> {
    let numbers: Vec<u16> = report
        .split(';')
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let [button, column, row] = numbers[..] else {
        return None;
    };
    mouse(
        button,
        column.checked_sub(1)?,
        row.checked_sub(1)?,
        is_press,
    )
}

/// The event of a mouse report. Bits 0, 1, 6 and 7 are the button; 4, 8 and 16 modifiers; 32
/// motion.
fn mouse(bits: u16, column: u16, row: u16, is_press: bool) -> Option<Event> {
    let button = match bits & 3 {
        0 => MouseButton::Left,
        1 => MouseButton::Middle,
        _ => MouseButton::Right,
    };
    let kind = match ((bits & 3) | ((bits & 0xc0) >> 4), bits & 32 != 0) {
        (0..=2, false) if is_press => MouseEventKind::Down(button),
        (0..=2, false) => MouseEventKind::Up(button),
        (0..=2, true) => MouseEventKind::Drag(button),
        (3, false) => MouseEventKind::Up(MouseButton::Left),
        (3..=5, true) => MouseEventKind::Moved,
        (4, false) => MouseEventKind::ScrollUp,
        (5, false) => MouseEventKind::ScrollDown,
        (6, false) => MouseEventKind::ScrollLeft,
        (7, false) => MouseEventKind::ScrollRight,
        _ => return None,
    };
    // Shift, Alt and Control have the values 4, 8 and 16.
    let modifiers = modifiers(u32::from((bits >> 2) & 7) + 1);
    Some(Event::Mouse(MouseEvent {
        kind,
        column,
        row,
        modifiers,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_chord::Chord;

    fn shown(events: &[Event]) -> String {
        let shown = |event: &Event| match event {
            Event::Key(key) => Chord::from_event(*key).to_string(),
            Event::Mouse(mouse) => format!("{:?}@{},{}", mouse.kind, mouse.column, mouse.row),
            Event::Paste(text) => format!("paste({text})"),
            other => format!("{other:?}"),
        };
        events.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn keys_are_parsed() {
        let check = |bytes: &str, expected: &str| {
            let mut parser = KeyParser::default();
            let mut events = parser.push(bytes.as_bytes());
            events.extend(parser.expire());
            assert_eq!(shown(&events), expected, "{bytes:?}");
            assert_eq!(parser.timeout(), None, "{bytes:?}");
        };
        check("aG5é€😀", "a G 5 é € 😀");
        check(
            "\r\t\x7f\x01\x1a\0\n",
            "enter tab backspace ctrl-a ctrl-z ctrl-space ctrl-j",
        );
        check("\x1b", "esc");
        check("\x1b\x1b", "esc esc");
        check("\x1ba\x1b\r\x1b\x7f", "alt-a alt-enter alt-backspace");
        check("\x1b[", "alt-[");
        check("\x1b]", "alt-]");
        check("\x1bP", "alt-P");
        check(
            "\x1b[A\x1b[1;5C\x1b[H\x1b[1;2F\x1bOB",
            "up ctrl-right home shift-end down",
        );
        check(
            "\x1b[Z\x1b[3~\x1b[5;3~\x1b[6~",
            "backtab delete alt-pageup pagedown",
        );
        check("\x1bOP\x1bOR\x1b[15~\x1b[24~\x1b[[A", "f1 f3 f5 f12 f1");
        check(
            "\x1b[97;5u\x1b[27;5;97~\x1b[97;2u\x1b[13;3u",
            "ctrl-a ctrl-a A alt-enter",
        );
        check(
            "\x1b[<0;5;3M\x1b[<0;5;3m\x1b[<65;1;1M\x1b[M !!",
            "Down(Left)@4,2 Up(Left)@4,2 ScrollDown@0,0 Down(Left)@0,0",
        );
        check("\x1b[200~a\x1b[0mé\r\x1b[201~b", "paste(a\x1b[0mé\r) b");
        check("\x1b[I\x1b[Ox", "x");
        check("\u{80}\x1b[1\x1b[Bx", "down x");
    }

    /// Terminal answers to any program's query, in one read or two, immediate or late, are not
    /// keys.
    #[test]
    fn answers_are_not_keys() {
        for answer in [
            "\x1b[?62;4c",
            "\x1b[>41;390;0c",
            "\x1b[=00000000c",
            "\x1bP!|00000000\x1b\\",
            "\x1bP>|xterm(390)\x1b\\",
            "\x1bP1+r524742=38\x1b\\",
            "\x1bP1$r0m\x1b\\",
            "\x1b[0n",
            "\x1b[?0n",
            "\x1b[24;80R",
            "\x1b[1;5R",
            "\x1b[?1;1;1R",
            "\x1b[?2026;2$y",
            "\x1b[4;0$y",
            "\x1b[?997;1n",
            "\x1b[?1u",
            "\x1b[8;36;120t",
            "\x1b[>0;1;0m",
            "\x1b[1;0x",
            "\x1b[I",
            "\x1b]11;rgb:1e1e/1e1e/2e2e\x1b\\",
            "\x1b]11;rgb:1e1e/1e1e/2e2e\x07",
            "\x1b]4;1;rgb:cdcd/0000/0000\x07",
            "\x1b]52;c;aGVsbG8=\x1b\\",
            "\x1b]ltitle of the window\x1b\\",
            "\x1b_Gi=31;OK\x1b\\",
            "\x1b]11;rgb:1e1e/1e1e/2e2e\x1b\\\x1b[?62;4c",
        ] {
            for split in 0..answer.len() {
                let (first, rest) = answer.as_bytes().split_at(split);
                let mut parser = KeyParser::default();
                let mut events = parser.push(first);
                events.extend(parser.push(rest));
                events.extend(parser.push(b"q"));
                assert_eq!(shown(&events), "q", "{answer:?} split at {split}");
                assert_eq!(parser.timeout(), None, "{answer:?} split at {split}");
            }
            // The escape alone, long before the rest of the sequence.
            let mut parser = KeyParser::default();
            parser.push(b"\x1b");
            assert_eq!(shown(&parser.expire()), "esc");
            assert_eq!(
                shown(&parser.push(&answer.as_bytes()[1..])),
                "",
                "{answer:?}"
            );
        }
    }

    #[test]
    fn reads_of_their_own_are_keys_of_their_own() {
        let check = |reads: &[&str], expected: &str| {
            let mut parser = KeyParser::default();
            let read = |parser: &mut KeyParser, bytes: &&str| parser.push(bytes.as_bytes());
            let mut events: Vec<_> = reads
                .iter()
                .flat_map(|bytes| read(&mut parser, bytes))
                .collect();
            events.extend(parser.expire());
            assert_eq!(shown(&events), expected, "{reads:?}");
        };
        check(&["\x1b", "j"], "esc j");
        check(&["\x1b", "O"], "esc O");
        check(&["\x1b", "[A"], "up");
        check(&["\x1b[", "1;", "5", "A"], "ctrl-up");
        check(&["\u{e9}x"], "é x");
        check(&["\x1b[200~ab", "c\x1b[20", "1~d"], "paste(abc) d");
        // Non-text keys after an unterminated string are still reported.
        check(&["\x1b]11;rgb:", "\x03"], "ctrl-c");
    }

    #[test]
    fn what_is_never_finished_is_dropped() {
        for start in ["\x1b[1;2", "\x1b]11;rgb:", "\x1bP>|x", "\x1b]11;x\x1b"] {
            let mut parser = KeyParser::default();
            assert_eq!(shown(&parser.push(start.as_bytes())), "", "{start:?}");
            assert_eq!(parser.timeout(), Some(SEQUENCE_TIMEOUT), "{start:?}");
            assert_eq!(shown(&parser.expire()), "", "{start:?}");
            assert_eq!(shown(&parser.push(b"q")), "q", "{start:?}");
        }
    }
}
