//! The parser: single pass, bounded depth, linear cost.

use std::borrow::Cow;

use super::syntax::{MAX_DEPTH, Syntax, SyntaxError};
use super::value::{Kind, Member, Object, SMALL_OBJECT, Value};
use crate::json_number::Number;

#[derive(Debug, Clone, PartialEq)]
pub struct Document<'t> {
    pub root: Value<'t>,
    /// Keys repeated in an object; the value holds the last one.
    pub duplicates: Vec<DuplicateKey<'t>>,
}

/// A key that replaced an earlier one of the same object.
#[derive(Debug, Clone, PartialEq)]
pub struct DuplicateKey<'t> {
    pub key: Cow<'t, str>,
    /// Byte offset of the later key.
    pub offset: usize,
}

/// Parses `text` from byte `from` to its end as one JSON value; offsets are those of `text`.
pub fn parse(text: &str, from: usize) -> Result<Document<'_>, SyntaxError> {
    let mut parser = Parser {
        text,
        bytes: text.as_bytes(),
        at: from,
        depth: 0,
        duplicates: Vec::new(),
    };
    parser.skip_white_space();
    let root = parser.document_start()?;
    parser.skip_white_space();
    match parser.peek() {
        None => Ok(Document {
            root,
            duplicates: parser.duplicates,
        }),
        Some(_) if parser.rest().starts_with("//") || parser.rest().starts_with("/*") => {
            Err(parser.error(Syntax::Comment))
        }
        Some(_) => Err(parser.error(Syntax::TextAfter)),
    }
}

/// Parses the value at byte `from`, ignoring what follows.
pub fn parse_prefix(text: &str, from: usize) -> Result<Document<'_>, SyntaxError> {
    let mut parser = Parser {
        text,
        bytes: text.as_bytes(),
        at: from,
        depth: 0,
        duplicates: Vec::new(),
    };
    Ok(Document {
        root: parser.value()?,
        duplicates: parser.duplicates,
    })
}

/// Additional room for a text with escapes: one that grows from nothing is copied again and again.
const MORE_RESOLVED_BYTES: usize = 32;

/// By byte: whether it is what it is in a string, or part of such a character.
static IS_PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    plain.split_at_mut(0x20).0.copy_from_slice(&[false; 0x20]);
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

struct Parser<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    depth: usize,
    duplicates: Vec<DuplicateKey<'t>>,
}

type Parsed<T> = Result<T, SyntaxError>;

impl<'t> Parser<'t> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn error(&self, reason: Syntax) -> SyntaxError {
        SyntaxError {
            reason,
            offset: self.at,
        }
    }

    fn truncated(&self) -> SyntaxError {
        SyntaxError {
            reason: Syntax::Truncated,
            offset: self.bytes.len(),
        }
    }

    #[inline]
    fn skip_white_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// The first value, whose absence has its own errors.
    fn document_start(&mut self) -> Parsed<Value<'t>> {
        match self.peek() {
            Some(b'{' | b'[' | b'"' | b'-' | b'0'..=b'9') => self.value(),
            None => Err(self.error(Syntax::Empty)),
            Some(byte) => {
                let rest = self.rest();
                if let b't' | b'f' | b'n' = byte
                    && let Ok(value) = self.value()
                {
                    return Ok(value);
                }
                Err(self.error(match byte {
                    0xEF if rest.starts_with('\u{FEFF}') => Syntax::ByteOrderMark,
                    b'`' if rest.starts_with("```") => Syntax::Fence,
                    b'N' if rest.starts_with("NaN") => Syntax::NotANumber,
                    b'I' if rest.starts_with("Infinity") => Syntax::Infinity,
                    b'/' if rest.starts_with("//") || rest.starts_with("/*") => Syntax::Comment,
                    _ if !rest.contains(['{', '[']) => Syntax::NoValue,
                    _ => Syntax::TextBefore,
                }))
            }
        }
    }

    fn value(&mut self) -> Parsed<Value<'t>> {
        let start = self.at;
        let kind = match self.peek() {
            Some(b'"') => Kind::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => Kind::Number(self.number()?),
            Some(b'{') => Kind::Object(self.object()?),
            Some(b'[') => Kind::Array(self.array()?),
            Some(b't') => self.literal("true", Kind::Bool(true))?,
            Some(b'f') => self.literal("false", Kind::Bool(false))?,
            Some(b'n') => self.literal("null", Kind::Null)?,
            None => return Err(self.truncated()),
            Some(byte) => return Err(self.error(self.unexpected(byte))),
        };
        Ok(Value {
            start,
            end: self.at,
            kind,
        })
    }

    /// Error for a byte where a value is expected.
    #[cold]
    fn unexpected(&self, byte: u8) -> Syntax {
        let rest = self.rest();
        match byte {
            b'\'' => Syntax::SingleQuote,
            b'/' | b'#' => Syntax::Comment,
            b'+' => Syntax::PlusSign,
            b'.' => Syntax::IncompleteNumber,
            b'N' if rest.starts_with("NaN") => Syntax::NotANumber,
            b'I' if rest.starts_with("Infinity") => Syntax::Infinity,
            b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'$' => Syntax::BareWord,
            _ if rest.starts_with('\u{FEFF}') => Syntax::ByteOrderMark,
            _ => Syntax::Unexpected(rest.chars().next().unwrap_or('\u{FFFD}')),
        }
    }

    fn literal(&mut self, word: &str, kind: Kind<'t>) -> Parsed<Kind<'t>> {
        let rest = self.rest();
        let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        if rest.starts_with(word) && !rest.as_bytes().get(word.len()).is_some_and(goes_on) {
            self.at += word.len();
            return Ok(kind);
        }
        Err(if word.starts_with(rest) {
            self.truncated()
        } else {
            self.error(Syntax::BareWord)
        })
    }

    fn number(&mut self) -> Parsed<Number<'t>> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
            if self.rest().starts_with("Infinity") {
                return Err(SyntaxError {
                    reason: Syntax::Infinity,
                    offset: start,
                });
            }
        }
        let zero = self.peek() == Some(b'0');
        let whole = self.at;
        self.digits()?;
        if zero && self.at > whole + 1 {
            return Err(SyntaxError {
                reason: Syntax::LeadingZero,
                offset: whole,
            });
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Number::new(self.text.get(start..self.at).unwrap_or("0")))
    }

    #[inline]
    fn digits(&mut self) -> Parsed<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start {
            return Ok(());
        }
        Err(if self.peek().is_none() {
            self.truncated()
        } else {
            self.error(Syntax::IncompleteNumber)
        })
    }

    fn string(&mut self) -> Parsed<Cow<'t, str>> {
        self.at += 1;
        let start = self.at;
        let end = self.plain_characters();
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(self.text.get(start..end).unwrap_or("")));
        }
        let mut resolved = String::with_capacity(2 * (end - start) + MORE_RESOLVED_BYTES);
        resolved.push_str(self.text.get(start..end).unwrap_or(""));
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(resolved));
                }
                Some(b'\\') => resolved.push(self.escape()?),
                Some(byte) => return Err(self.error(Syntax::ControlCharacter(byte))),
                None => return Err(self.truncated()),
            }
            let from = self.at;
            let to = self.plain_characters();
            resolved.push_str(self.text.get(from..to).unwrap_or(""));
        }
    }

    #[inline]
    fn plain_characters(&mut self) -> usize {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let plain = rest
            .iter()
            .position(|&byte| !IS_PLAIN[usize::from(byte)])
            .unwrap_or(rest.len());
        self.at += plain;
        self.at
    }

    fn escape(&mut self) -> Parsed<char> {
        let start = self.at;
        self.at += 1;
        let Some(byte) = self.peek() else {
            return Err(self.truncated());
        };
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{C}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(start),
            _ => {
                return Err(SyntaxError {
                    reason: Syntax::BadEscape,
                    offset: start,
                });
            }
        })
    }

    fn unicode_escape(&mut self, start: usize) -> Parsed<char> {
        let lone = SyntaxError {
            reason: Syntax::LoneSurrogate,
            offset: start,
        };
        let first = self.four_hex_digits(start)?;
        if !(0xD800..0xDC00).contains(&first) {
            return char::from_u32(first).ok_or(lone);
        }
        match (self.peek(), self.bytes.get(self.at + 1)) {
            (None, _) | (Some(b'\\'), None) => return Err(self.truncated()),
            (Some(b'\\'), Some(b'u')) => self.at += 2,
            _ => return Err(lone),
        }
        let second = self.four_hex_digits(self.at - 2)?;
        if !(0xDC00..0xE000).contains(&second) {
            return Err(lone);
        }
        char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)).ok_or(lone)
    }

    fn four_hex_digits(&mut self, start: usize) -> Parsed<u32> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(byte) = self.peek() else {
                return Err(self.truncated());
            };
            let Some(digit) = char::from(byte).to_digit(16) else {
                return Err(SyntaxError {
                    reason: Syntax::BadUnicodeEscape,
                    offset: start,
                });
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn enter(&mut self) -> Parsed<()> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(Syntax::TooDeep));
        }
        self.depth += 1;
        self.at += 1;
        self.skip_white_space();
        Ok(())
    }

    /// Ends an item or member; returns whether another follows, which then begins at the next
    /// character.
    fn another(&mut self, close: u8) -> Parsed<bool> {
        self.skip_white_space();
        let comma = self.at;
        match self.peek() {
            Some(b',') => {}
            Some(byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                return Ok(false);
            }
            None => return Err(self.truncated()),
            Some(b']' | b'}') => return Err(self.error(Syntax::WrongBracket)),
            Some(b'/' | b'#') => return Err(self.error(Syntax::Comment)),
            Some(_) => return Err(self.error(Syntax::MissingComma)),
        }
        self.at += 1;
        self.skip_white_space();
        match self.peek() {
            Some(b']' | b'}') => Err(SyntaxError {
                reason: Syntax::TrailingComma,
                offset: comma,
            }),
            _ => Ok(true),
        }
    }

    fn array(&mut self) -> Parsed<Vec<Value<'t>>> {
        self.enter()?;
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            self.depth -= 1;
            return Ok(items);
        }
        loop {
            items.push(self.value()?);
            if !self.another(b']')? {
                return Ok(items);
            }
        }
    }

    fn object(&mut self) -> Parsed<Object<'t>> {
        self.enter()?;
        let mut members: Vec<Member<'t>> = Vec::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            self.depth -= 1;
            return Ok(Object::default());
        }
        loop {
            let member = self.member()?;
            let earlier = if members.len() < SMALL_OBJECT {
                members.iter_mut().find(|earlier| earlier.key == member.key)
            } else {
                None
            };
            match earlier {
                Some(earlier) => {
                    self.duplicates.push(DuplicateKey {
                        key: member.key.clone(),
                        offset: member.key_start,
                    });
                    *earlier = member;
                }
                None => members.push(member),
            }
            if !self.another(b'}')? {
                return Ok(if members.len() > SMALL_OBJECT {
                    self.index(members)
                } else {
                    Object {
                        members,
                        by_key: Vec::new(),
                    }
                });
            }
        }
    }

    fn member(&mut self) -> Parsed<Member<'t>> {
        let key_start = self.at;
        let key = match self.peek() {
            Some(b'"') => self.string()?,
            None => return Err(self.truncated()),
            Some(b'\'') => return Err(self.error(Syntax::SingleQuote)),
            Some(b'/' | b'#') => return Err(self.error(Syntax::Comment)),
            Some(b',' | b':' | b']') => {
                return Err(self.error(self.unexpected(self.peek().unwrap_or(b','))));
            }
            Some(_) => return Err(self.error(Syntax::KeyWithoutQuotes)),
        };
        self.skip_white_space();
        match self.peek() {
            Some(b':') => self.at += 1,
            None => return Err(self.truncated()),
            Some(_) => return Err(self.error(Syntax::MissingColon)),
        }
        self.skip_white_space();
        Ok(Member {
            key,
            key_start,
            value: self.value()?,
        })
    }

    /// Sorts the members of a large object to find duplicates and for later searches.
    #[cold]
    fn index(&mut self, mut members: Vec<Member<'t>>) -> Object<'t> {
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by(|&left, &right| {
            members[left]
                .key
                .cmp(&members[right].key)
                .then(left.cmp(&right))
        });
        let mut replaced = vec![false; members.len()];
        for pair in order.windows(2) {
            if members[pair[0]].key == members[pair[1]].key {
                replaced[pair[0]] = true;
                let later = &members[pair[1]];
                self.duplicates.push(DuplicateKey {
                    key: later.key.clone(),
                    offset: later.key_start,
                });
            }
        }
        if replaced.contains(&true) {
            let mut position = 0;
            members.retain(|_| {
                position += 1;
                !replaced[position - 1]
            });
            order = (0..members.len()).collect();
            order.sort_by(|&left, &right| members[left].key.cmp(&members[right].key));
        }
        let by_key = order
            .into_iter()
            .map(|position| u32::try_from(position).unwrap_or(u32::MAX))
            .collect();
        Object { members, by_key }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
