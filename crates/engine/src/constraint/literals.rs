//! Names, values, patterns and counts in grammars; what is not supported becomes a sentence.

use std::collections::HashSet;

use jsonschema_regex::to_rust_regex;
use regex_syntax::hir::{Hir, HirKind};
use serde_json::{Map, Value};

use super::formats::{pattern_of_format, pattern_within_format};
use super::overlap::{list, required};
use crate::score::{WordEdge, engine_pattern};
use crate::text::{THINK_MARKS, ThinkMarks};

/// Consecutive optional properties: each may be the next key, and the parser's work per token grows
/// with their square. See the related limits in [`vocabulary`](super::vocabulary).
const MAX_OPTIONAL_PROPERTIES: usize = 1_000;
/// Doubles represent integers exactly up to here.
pub(super) const EXACT: f64 = 9_007_199_254_740_992.0;

pub(super) fn unenforced(keyword: &str) -> String {
    format!(
        "`{keyword}` cannot be enforced while decoding: remove it, or sample without a constraint"
    )
}

/// Expands ECMA 262's classes, as the validator does.
pub(super) fn written_pattern(pattern: &str) -> Result<String, String> {
    let refuse = |advice: &str| {
        format!(
            "the pattern {pattern:?} cannot be enforced while decoding: rewrite it without {advice}"
        )
    };
    let dialect = engine_pattern(pattern, WordEdge::Flag);
    let written =
        to_rust_regex(&dialect).map_err(|()| refuse("look-around and back-references"))?;
    if regex_syntax::parse(&written).is_ok_and(|hir| has_unwritten_text(&hir)) {
        return Err(refuse(
            "control characters and ends of think blocks, such as `</think>`",
        ));
    }
    Ok(written.into_owned())
}

/// Pattern of a checked format; `None` for unknown ones, and for constants if the pattern is weaker
/// than the format.
pub(super) fn checked_format(
    name: &str,
    is_constant: bool,
) -> Result<Option<&'static str>, String> {
    if !crate::schema_keywords::FORMATS
        .iter()
        .any(|known| known.0 == name)
    {
        return Ok(None);
    }
    match (pattern_of_format(name), pattern_within_format(name)) {
        (Some(pattern), _) => Ok(Some(pattern)),
        (None, Some(pattern)) => Ok(Some(pattern).filter(|_| !is_constant)),
        (None, None) => Err(format!(
            "format {name:?} cannot be enforced while decoding: remove it or write a `pattern`; in a task, set assert_formats = false"
        )),
    }
}

/// A repeated key counts once, so unnamed properties cannot be counted while decoding.
pub(super) fn check_least(members: &Map<String, Value>, least: &Value) -> Result<(), String> {
    let is_open = members.contains_key("patternProperties")
        || members
            .get("additionalProperties")
            .is_none_or(|schema| *schema != Value::Bool(false));
    match is_open
        && least.as_f64().unwrap_or_default() > list(members, "required").len() as f64 + 1.0
    {
        true => Err(unenforced("minProperties")),
        false => Ok(()),
    }
}

pub(super) fn check_optional(
    members: &Map<String, Value>,
    properties: &Value,
) -> Result<(), String> {
    let required: HashSet<&str> = required(members).collect();
    let (mut run, mut longest) = (0, 0);
    for name in properties.as_object().into_iter().flat_map(Map::keys) {
        run = if required.contains(name.as_str()) {
            0
        } else {
            run + 1
        };
        longest = longest.max(run);
    }
    match longest {
        0..=MAX_OPTIONAL_PROPERTIES => Ok(()),
        _ => Err(format!(
            "{longest} optional properties in a row cannot be enforced while decoding, at most {MAX_OPTIONAL_PROPERTIES} can: require some between them, or group them in objects"
        )),
    }
}

/// Answers cannot contain an end of think blocks.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    match end_in(name.as_bytes()) {
        Some(end) => Err(format!(
            "{name:?} cannot be enforced while decoding: `{end}` ends a think block"
        )),
        None => Ok(()),
    }
}

/// Checks that numbers are exact in doubles, and strings need no `\u`.
pub(super) fn check_data(value: &Value) -> Result<(), String> {
    match value {
        Value::Number(number) if number.as_f64().is_none_or(|number| number.abs() >= EXACT) => Err(
            format!("{number} cannot be enforced while decoding: numbers up to 2^53 can"),
        ),
        Value::String(text) if text.bytes().any(is_unwritten) => Err(format!(
            "{value} cannot be enforced while decoding: it has a control character"
        )),
        Value::String(text) => check_name(text),
        Value::Array(items) => items.iter().try_for_each(check_data),
        Value::Object(members) => members.iter().try_for_each(|(name, member)| {
            check_name(name)?;
            check_data(member)
        }),
        _ => Ok(()),
    }
}

/// The end mark of any model's think block.
fn end_in(text: &[u8]) -> Option<&'static str> {
    let is_in = |end: &&str| text.windows(end.len()).any(|part| part == end.as_bytes());
    THINK_MARKS.iter().map(ThinkMarks::end).find(is_in)
}

/// Whether JSON can only write a byte with `\u`.
fn is_unwritten(byte: u8) -> bool {
    byte == 0x7F || byte < 0x20 && !b"\n\r\t\x08\x0C".contains(&byte)
}

/// Whether a pattern's text has such a byte, which the compiler would drop, or an end mark.
fn has_unwritten_text(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Literal(literal) => {
            literal.0.iter().copied().any(is_unwritten) || end_in(&literal.0).is_some()
        }
        HirKind::Capture(group) => has_unwritten_text(&group.sub),
        HirKind::Repetition(repeated) => has_unwritten_text(&repeated.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().any(has_unwritten_text)
        }
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => false,
    }
}
