//! Translates JSON Schema patterns to the engines. Patterns are ECMA-262 with flag `u`; where
//! dialects differ (`.`, `\b`, `\w`, `\0`, `[\b]`, `\cX`, `\k<name>`, surrogates) they are
//! rewritten.

use std::borrow::Cow;

/// Characters that `.` does not match.
const NO_LINE_END: &str = "[^\\n\\r\u{2028}\u{2029}]";
const WORD: &[(u32, u32)] = &[(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)];
const DIGIT: &[(u32, u32)] = &[(0x30, 0x39)];
const SPACE: &[(u32, u32)] = &[
    (0x09, 0x0D),
    (0x20, 0x20),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
];
const SURROGATES: std::ops::RangeInclusive<u32> = 0xD800..=0xDFFF;
const LAST: u32 = 0x10_FFFF;

/// How an engine writes an ASCII word boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordEdge {
    /// A flag, for the engine without backtracking.
    Flag,
    LookAround,
}

pub fn engine_pattern(pattern: &str, edge: WordEdge) -> Cow<'_, str> {
    let is_plain =
        !pattern.contains(['.', '\\']) && !pattern.contains("[]") && !pattern.contains("[^]");
    if is_plain {
        return Cow::Borrowed(pattern);
    }
    let mut writer = Writer {
        pattern,
        at: 0,
        out: String::with_capacity(pattern.len() * 2),
        edge,
    };
    writer.write();
    if writer.out == pattern {
        Cow::Borrowed(pattern)
    } else {
        Cow::Owned(writer.out)
    }
}

struct Writer<'p> {
    pattern: &'p str,
    at: usize,
    out: String,
    edge: WordEdge,
}

enum Escape {
    Character(u32),
    /// `\d`, `\w`, `\s`; true: the complement.
    Class(&'static [(u32, u32)], bool),
    Other,
}

impl Writer<'_> {
    fn rest(&self) -> &str {
        self.pattern.get(self.at..).unwrap_or_default()
    }

    fn write(&mut self) {
        // `(?s:.)`: the flag defines the point.
        let keeps_point = self.pattern.contains("(?s") || self.pattern.contains("(?is");
        while let Some(next) = self.rest().chars().next() {
            match next {
                '.' if !keeps_point => {
                    self.out.push_str(NO_LINE_END);
                    self.at += 1;
                }
                '[' => self.class(),
                '\\' => self.escape(),
                _ => self.copy(next.len_utf8()),
            }
        }
    }

    fn copy(&mut self, bytes: usize) {
        let text = self.rest().get(..bytes).unwrap_or_default().to_owned();
        self.out.push_str(&text);
        self.at += bytes.max(1);
    }

    /// Outside classes.
    fn escape(&mut self) {
        let word = "[0-9A-Za-z_]";
        let edges = match self.edge {
            WordEdge::Flag => [r"(?-u:\b)".to_owned(), r"(?-u:\B)".to_owned()],
            WordEdge::LookAround => [
                format!("(?:(?<={word})(?!{word})|(?<!{word})(?={word}))"),
                format!("(?:(?<={word})(?={word})|(?<!{word})(?!{word}))"),
            ],
        };
        let [edge, no_edge] = edges;
        if self.rest().starts_with(r"\b") {
            self.out.push_str(&edge);
            self.at += 2;
        } else if self.rest().starts_with(r"\B") {
            self.out.push_str(&no_edge);
            self.at += 2;
        } else if let Some((group, length)) = self.named_reference() {
            self.out.push_str(&format!(r"(?:\{group})"));
            self.at += length;
        } else {
            match self.read_escape() {
                (Escape::Character(code), length) => {
                    match char::from_u32(code) {
                        Some(_) => self.out.push_str(&format!("\\u{{{code:x}}}")),
                        // No text contains lone surrogates.
                        None => self.out.push_str("[^\\u{0}-\\u{10ffff}]"),
                    }
                    self.at += length;
                }
                // Without backtracking the validator expands it itself.
                (Escape::Class(..), length) if self.edge == WordEdge::Flag => self.copy(length),
                (Escape::Class(ranges, is_complement), length) => {
                    let not = if is_complement { "^" } else { "" };
                    self.out.push_str(&format!("[{not}{}]", written(ranges)));
                    self.at += length;
                }
                (Escape::Other, length) => self.copy(length),
            }
        }
    }

    /// `\k<name>`: group number, and length of the reference.
    fn named_reference(&self) -> Option<(usize, usize)> {
        let (name, _) = self.rest().strip_prefix(r"\k<")?.split_once('>')?;
        let (mut groups, mut in_class) = (0, false);
        let mut characters = self.pattern.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => {
                    characters.next();
                }
                '[' => in_class = true,
                ']' => in_class = false,
                '(' if !in_class => {
                    let group = self.pattern.get(at + 1..).unwrap_or_default();
                    let named = group
                        .strip_prefix("?<")
                        .or(group.strip_prefix("?P<"))
                        .filter(|group| !group.starts_with(['=', '!']));
                    groups += usize::from(named.is_some() || !group.starts_with('?'));
                    let is_it = |group: &str| group.split('>').next() == Some(name);
                    if named.is_some_and(is_it) {
                        return Some((groups, name.len() + 4));
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn read_escape(&self) -> (Escape, usize) {
        let text = self.rest();
        let hex = |from: usize, digits: usize| {
            let digits = text.get(from..from + digits)?;
            let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| u32::from_str_radix(digits, 16).ok())?
        };
        let mut after = text.chars().skip(1);
        let (kind, next) = (after.next().unwrap_or_default(), after.next());
        let found = match kind {
            '0' if !next.is_some_and(|next| next.is_ascii_digit()) => Some((0, 2)),
            'c' => next
                .filter(char::is_ascii_alphabetic)
                .map(|letter| (letter as u32 % 32, 3)),
            'u' if next == Some('{') => text.split_once('}').and_then(|(inside, _)| {
                let code = u32::from_str_radix(inside.get(3..)?, 16).ok()?;
                (code <= LAST).then_some((code, inside.len() + 1))
            }),
            'u' => hex(2, 4).map(|high| match low_half(high, text) {
                Some(code) => (code, 12),
                None => (high, 6),
            }),
            _ => None,
        };
        if let Some((code, length)) = found {
            return (Escape::Character(code), length);
        }
        let ranges = match kind.to_ascii_lowercase() {
            'd' => DIGIT,
            'w' => WORD,
            's' => SPACE,
            // `\p{L}` too: its brackets are copied.
            _ => return (Escape::Other, 1 + kind.len_utf8()),
        };
        (Escape::Class(ranges, kind.is_ascii_uppercase()), 2)
    }

    fn class(&mut self) {
        let start = self.at;
        self.at += 1;
        let is_complement = self.rest().starts_with('^');
        self.at += usize::from(is_complement);
        let mut inside = String::new();
        let mut previous_is_class = false;
        loop {
            let Some(next) = self.rest().chars().next() else {
                // Unclosed: the engine reports it.
                self.at = start;
                self.copy(self.pattern.len() - start);
                return;
            };
            if next == ']' {
                self.at += 1;
                break;
            }
            if next == '-' && previous_is_class {
                inside.push_str(r"\-");
                self.at += 1;
                previous_is_class = false;
                continue;
            }
            let (item, is_class) = self.class_atom();
            previous_is_class = is_class;
            let is_range =
                self.rest().starts_with('-') && !self.rest().starts_with("-]") && !is_class;
            let Some(first) = item.code.filter(|_| is_range) else {
                match item.code {
                    Some(code) if SURROGATES.contains(&code) => {}
                    _ => inside.push_str(&item.text),
                }
                continue;
            };
            let before = self.at;
            self.at += 1;
            let (last, last_is_class) = self.class_atom();
            match last.code {
                Some(_) if last_is_class => {}
                Some(code) if SURROGATES.contains(&first) || SURROGATES.contains(&code) => {
                    let first = if SURROGATES.contains(&first) {
                        SURROGATES.end() + 1
                    } else {
                        first
                    };
                    let code = if SURROGATES.contains(&code) {
                        SURROGATES.start() - 1
                    } else {
                        code
                    };
                    if first <= code {
                        inside.push_str(&written(&[(first, code)]));
                    }
                }
                Some(_) => inside.push_str(&format!("{}-{}", item.text, last.text)),
                // `[+-\w]`: not a range.
                None => {
                    inside.push_str(&format!("{}\\-", item.text));
                    self.at = before + 1;
                }
            }
        }
        match (inside.is_empty(), is_complement) {
            (true, true) => self.out.push_str("[\\u{0}-\\u{10ffff}]"),
            (true, false) => self.out.push_str("[^\\u{0}-\\u{10ffff}]"),
            (false, true) => self.out.push_str(&format!("[^{inside}]")),
            (false, false) => self.out.push_str(&format!("[{inside}]")),
        }
    }

    /// A class item, and whether it is several characters.
    fn class_atom(&mut self) -> (Atom, bool) {
        let text = self.rest();
        let Some(next) = text.chars().next() else {
            return (Atom::default(), false);
        };
        if next != '\\' {
            let atom = Atom {
                text: next.to_string(),
                code: Some(next.into()),
            };
            self.at += next.len_utf8();
            return (atom, false);
        }
        if text.starts_with(r"\b") {
            self.at += 2;
            return (Atom::character(0x08), false);
        }
        if text.starts_with(r"\p") || text.starts_with(r"\P") {
            let length = text.find('}').map_or(2, |end| end + 1);
            let text = text.get(..length).unwrap_or_default().to_owned();
            self.at += length;
            return (Atom { text, code: None }, true);
        }
        let (escape, length) = self.read_escape();
        let written_as = text.get(..length).unwrap_or_default().to_owned();
        self.at += length;
        match escape {
            Escape::Character(code) => (Atom::character(code), false),
            Escape::Class(ranges, is_complement) => {
                let text = match is_complement {
                    _ if self.edge == WordEdge::Flag => written_as,
                    true => written(&complement(ranges)),
                    false => written(ranges),
                };
                (Atom { text, code: None }, true)
            }
            Escape::Other => {
                let code = written_as.chars().nth(1).map(u32::from);
                let text = written_as;
                (Atom { text, code }, false)
            }
        }
    }
}

/// A class item in the engine's syntax; the character, if single.
#[derive(Debug, Default)]
struct Atom {
    text: String,
    code: Option<u32>,
}

impl Atom {
    fn character(code: u32) -> Self {
        Self {
            text: format!("\\u{{{code:x}}}"),
            code: Some(code),
        }
    }
}

/// The second half of a surrogate pair.
fn low_half(high: u32, text: &str) -> Option<u32> {
    let low = text.get(6..12)?.strip_prefix(r"\u")?;
    let low = u16::from_str_radix(low, 16).ok()?;
    let pair = [u16::try_from(high).ok()?, low];
    let mut characters = char::decode_utf16(pair);
    match (characters.next(), characters.next()) {
        (Some(Ok(character)), None) => Some(character.into()),
        _ => None,
    }
}

fn written(ranges: &[(u32, u32)]) -> String {
    let range = |(first, last): &(u32, u32)| match first == last {
        true => format!("\\u{{{first:x}}}"),
        false => format!("\\u{{{first:x}}}-\\u{{{last:x}}}"),
    };
    ranges.iter().map(range).collect()
}

fn complement(ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let (mut from, mut all) = (0, Vec::new());
    for (first, last) in ranges {
        if from < *first {
            all.push((from, first - 1));
        }
        from = last + 1;
    }
    all.push((from, LAST));
    all
}
