//! YAML 1.2 (core schema, without tags, anchors, aliases) to JSON; and JSON to YAML.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::Value;

use crate::score::answer::json::{MAX_DEPTH, Places, Syntax};
use crate::score::answer::schema_types::SchemaParts;
use crate::score::answer::transcript::Transcript;
use crate::score::verdict::FailureClass;
use crate::score::verdict::unwrap_answer::{Read, Unreadable, class_of_text, unreadable};

/// Why answers are not read in this notation, if so.
pub(super) fn format_problem(name: &str) -> Option<String> {
    let remedy = match name {
        "yaml" => return None,
        "json" => "write `kind = \"json_schema\"`",
        "xml" => "score it by a function that reads it, `kind = \"python\"`",
        _ => "write \"yaml\"",
    };
    Some(format!("takes \"yaml\", not {name:?}: {remedy}"))
}

/// Reads the text from a byte offset to its end. A plain scalar is prose unless the schema allows a
/// string.
pub(super) fn read(text: &str, from: usize, schema: &Value) -> Read<Transcript> {
    let rest = text.get(from..).unwrap_or_default();
    let mut reader = Reader {
        text,
        offsets: Offsets {
            rest,
            from,
            chars: 0,
            bytes: 0,
        },
        ..Reader::default()
    };
    let mut parser = Parser::new_from_str(rest);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let at = reader.offsets.byte_at(error.marker().index());
            let start = text.len() - rest.trim_start().len();
            match class_of_text(text, start) {
                FailureClass::Fence => unreadable(
                    "Markdown fence before the YAML document",
                    start,
                    FailureClass::Fence,
                ),
                _ if ends_early(&text[at..]) => {
                    unreadable(error.info(), at, FailureClass::Truncated)
                }
                _ => unreadable(error.info(), at, FailureClass::Syntax),
            }
        })?;
        let at = reader.offsets.byte_at(span.start.index());
        reader.take(event, at)?;
    }
    match reader.root {
        None => Err(unreadable(
            Syntax::Empty.to_string(),
            text.len(),
            FailureClass::Other,
        )),
        Some(at) if reader.is_plain_text && !SchemaParts::new(schema, schema).types().string => {
            Err(unreadable(
                "no YAML mapping or sequence in the text",
                at,
                class_of_text(text, at),
            ))
        }
        Some(_) => Ok(reader.json),
    }
}

/// Whether the error is an early end of text: unclosed quotes are reported at their start.
fn ends_early(rest: &str) -> bool {
    let mut letters = rest.chars();
    match letters.next() {
        None => true,
        Some(quote @ ('"' | '\'')) => !letters.as_str().contains(quote),
        Some(_) => false,
    }
}

/// Byte offsets of the parser's positions, which count characters.
#[derive(Default)]
struct Offsets<'t> {
    rest: &'t str,
    /// Offset of its start in the text.
    from: usize,
    chars: usize,
    bytes: usize,
}

impl Offsets<'_> {
    /// Scans forward from the previous position, unless it is before that.
    fn byte_at(&mut self, chars: usize) -> usize {
        if chars < self.chars {
            (self.chars, self.bytes) = (0, 0);
        }
        let between = self.rest.get(self.bytes..).unwrap_or_default();
        let more = between
            .char_indices()
            .nth(chars - self.chars)
            .map_or(between.len(), |(bytes, _)| bytes);
        (self.chars, self.bytes) = (chars, self.bytes + more);
        self.from + self.bytes
    }
}

enum Open {
    Sequence {
        is_empty: bool,
    },
    /// Keys with positions; whether the next node is a key.
    Mapping {
        keys: HashMap<String, usize>,
        takes_key: bool,
    },
}

#[derive(Default)]
struct Reader<'t> {
    text: &'t str,
    offsets: Offsets<'t>,
    json: Transcript,
    open: Vec<Open>,
    /// Start of the document's node.
    root: Option<usize>,
    /// Whether that is an unquoted string.
    is_plain_text: bool,
}

impl Reader<'_> {
    fn take(&mut self, event: Event<'_>, at: usize) -> Read<()> {
        let syntax = |message: String| Err(unreadable(message, at, FailureClass::Syntax));
        match event {
            Event::Alias(_) => syntax("an alias is not read: write the value out".to_owned()),
            Event::Scalar(_, _, _, Some(tag))
            | Event::SequenceStart(_, Some(tag))
            | Event::MappingStart(_, Some(tag)) => syntax(format!(
                "the tag {tag} is not read: write the value without it"
            )),
            Event::Scalar(_, _, 1.., _)
            | Event::SequenceStart(1.., _)
            | Event::MappingStart(1.., _) => {
                syntax("an anchor is not read: write the value without it".to_owned())
            }
            Event::DocumentStart(_) if self.root.is_some() => Err(unreadable(
                "a second YAML document after the first",
                at,
                class_of_text(self.text, at),
            )),
            Event::Scalar(content, style, ..) => {
                self.scalar(&content, style == ScalarStyle::Plain, at)
            }
            Event::SequenceStart(..) => self.begin("[", Open::Sequence { is_empty: true }, at),
            Event::MappingStart(..) => self.begin(
                "{",
                Open::Mapping {
                    keys: HashMap::new(),
                    takes_key: true,
                },
                at,
            ),
            Event::SequenceEnd | Event::MappingEnd => {
                let end = if matches!(self.open.pop(), Some(Open::Sequence { .. })) {
                    "]"
                } else {
                    "}"
                };
                self.json.literal(end, at);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, start: &str, open: Open, at: usize) -> Read<()> {
        if let Some(Open::Mapping {
            takes_key: true, ..
        }) = self.open.last()
        {
            return Err(unreadable(
                "a key must be a scalar",
                at,
                FailureClass::Syntax,
            ));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(unreadable(
                Syntax::TooDeep.to_string(),
                at,
                FailureClass::Syntax,
            ));
        }
        self.before_value(at);
        self.json.literal(start, at);
        self.open.push(open);
        Ok(())
    }

    fn scalar(&mut self, content: &str, is_plain: bool, at: usize) -> Read<()> {
        if let Some(Open::Mapping { keys, takes_key }) =
            self.open.last_mut().filter(|open| open.takes_key())
        {
            if let Some(earlier) = keys.insert(content.to_owned(), at) {
                return Err(duplicate(self.text, content, earlier, at));
            }
            *takes_key = false;
            let comma = if keys.len() == 1 { "" } else { ", " };
            self.json.literal(comma, at);
            self.json.string(content, at);
            self.json.literal(": ", at);
            return Ok(());
        }
        let value = if is_plain {
            core_value(content)
        } else {
            Scalar::Text
        };
        self.is_plain_text = self.open.is_empty() && is_plain && matches!(value, Scalar::Text);
        self.before_value(at);
        match value {
            Scalar::Json(json) => self.json.literal(&json, at),
            Scalar::Text => self.json.string(content, at),
            Scalar::NotJson(what) => {
                return Err(unreadable(
                    format!("{what} has no value in JSON"),
                    at,
                    FailureClass::Syntax,
                ));
            }
        }
        Ok(())
    }

    fn before_value(&mut self, at: usize) {
        self.root.get_or_insert(at);
        if let Some(Open::Sequence { is_empty: false }) = self.open.last() {
            self.json.literal(", ", at);
        }
        match self.open.last_mut() {
            Some(Open::Sequence { is_empty }) => *is_empty = false,
            Some(Open::Mapping { takes_key, .. }) => *takes_key = true,
            None => {}
        }
    }
}

impl Open {
    fn takes_key(&self) -> bool {
        matches!(
            self,
            Self::Mapping {
                takes_key: true,
                ..
            }
        )
    }
}

fn duplicate(text: &str, key: &str, earlier: usize, at: usize) -> Unreadable {
    let key: String = key.chars().take(80).collect();
    let place = Places::new(text).locate(earlier);
    let message = format!(
        "duplicate key {key:?}: it is also at line {} column {}",
        place.line, place.column
    );
    unreadable(message, at, FailureClass::Syntax)
}

/// A plain scalar resolved by the core schema.
enum Scalar {
    /// JSON text: null, boolean or number.
    Json(String),
    Text,
    NotJson(&'static str),
}

fn core_value(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Json("null".to_owned()),
        "true" | "True" | "TRUE" => return Scalar::Json("true".to_owned()),
        "false" | "False" | "FALSE" => return Scalar::Json("false".to_owned()),
        ".nan" | ".NaN" | ".NAN" => return Scalar::NotJson("not a number"),
        _ => {}
    }
    let (sign, digits) = match text.as_bytes()[0] {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    if let ".inf" | ".Inf" | ".INF" = digits {
        return Scalar::NotJson("infinity");
    }
    if digits.len() == text.len() {
        for (prefix, radix) in [("0x", 16), ("0o", 8)] {
            let Some(digits) = text.strip_prefix(prefix) else {
                continue;
            };
            if !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix)) {
                let value = u128::from_str_radix(digits, radix);
                return value.map_or(Scalar::NotJson("a number of more than 128 bits"), |value| {
                    Scalar::Json(value.to_string())
                });
            }
        }
    }
    decimal(digits).map_or(Scalar::Text, |number| {
        Scalar::Json(format!("{sign}{number}"))
    })
}

/// An unsigned number in JSON's grammar: YAML allows leading zeros, and a leading or trailing
/// point.
fn decimal(text: &str) -> Option<String> {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = text
        .find(['e', 'E'])
        .map_or((text, ""), |at| text.split_at(at));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let power = exponent
        .get(1..)
        .map(|power| power.strip_prefix(['+', '-']).unwrap_or(power));
    let is_number = is_digits(whole)
        && is_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && power.is_none_or(|power| !power.is_empty() && is_digits(power));
    let significant = whole.trim_start_matches('0');
    let whole = if significant.is_empty() {
        "0"
    } else {
        significant
    };
    let point = if fraction.is_empty() { "" } else { "." };
    is_number.then(|| format!("{whole}{point}{fraction}{exponent}"))
}

pub(super) fn write(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn block(value: &Value, indent: usize, text: &mut String) {
    let line = |number: usize| {
        if number == 0 {
            String::new()
        } else {
            format!("\n{}", " ".repeat(indent))
        }
    };
    match value {
        Value::Array(items) if !items.is_empty() => {
            for (number, item) in items.iter().enumerate() {
                text.push_str(&format!("{}- ", line(number)));
                block(item, indent + 2, text);
            }
        }
        Value::Object(members) if !members.is_empty() => {
            for (number, (key, value)) in members.iter().enumerate() {
                text.push_str(&format!("{}{}:", line(number), scalar(key)));
                let is_nested = value.as_array().is_some_and(|items| !items.is_empty())
                    || value.as_object().is_some_and(|members| !members.is_empty());
                match is_nested {
                    true => text.push_str(&format!("\n{}", " ".repeat(indent + 2))),
                    false => text.push(' '),
                }
                block(value, indent + 2, text);
            }
        }
        Value::String(content) => text.push_str(&scalar(content)),
        value => text.push_str(&value.to_string()),
    }
}

/// A string: plain if it reads as itself, else JSON-quoted with escapes for unprintable characters.
fn scalar(content: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || " _-./()+@,".contains(letter);
    let ends = |at: Option<char>| at.is_some_and(|letter| letter != ' ');
    if content.starts_with(char::is_alphanumeric)
        && ends(content.chars().next_back())
        && content.chars().all(is_plain)
        && matches!(core_value(content), Scalar::Text)
    {
        return content.to_owned();
    }
    let quoted = Value::from(content).to_string();
    let is_printable = |letter: char| {
        !matches!(
            letter,
            '\u{7f}'..='\u{9f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
    };
    let escaped = |letter: char| match is_printable(letter) {
        true => letter.to_string(),
        false => format!("\\u{:04x}", u32::from(letter)),
    };
    quoted.chars().map(escaped).collect()
}
