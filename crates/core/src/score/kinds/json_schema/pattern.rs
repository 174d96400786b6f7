//! Patterns with look-around or back-references: the step limit falls with the string's length, so
//! that their product is bounded.

use std::borrow::Cow;

use jsonschema::{Keyword, PatternOptions, ValidationError, Validator};
use serde_json::{Value as SchemaValue, json};

use super::budget::{BudgetExceeded, end};
use super::ecma::{WordEdge, engine_pattern};
use super::instance::Completion;
use crate::schema_keywords::visit;
use crate::score::answer::json::{Kind, Value};

/// Steps on a string of at most [`SHORT`] bytes. One engine step may read the whole string.
pub(super) const BACKTRACK_LIMIT: usize = 100_000;

/// Length up to which [`BACKTRACK_LIMIT`] applies; ten times the length gets a tenth.
const SHORT: usize = 1_000;

/// A `pattern` that needs backtracking, with a limit.
pub(super) struct BoundedPattern {
    pattern: String,
    /// Validators for strings of at most `SHORT * 10^i` bytes; the last for all longer ones.
    by_length: Vec<Validator<Completion>>,
}

/// Whether matching takes more than one pass.
pub(super) fn backtracks(pattern: &str) -> bool {
    let pattern = &*engine_pattern(pattern, WordEdge::Flag);
    if is_plain(pattern) {
        return false;
    }
    // With the instance type of all validators: another would compile every keyword twice.
    let options =
        jsonschema::options_for::<Completion>().with_pattern_options(PatternOptions::regex());
    options.build(&json!({ "pattern": pattern })).is_err()
}

/// Whether the pattern certainly never backtracks: most patterns, without compiling.
fn is_plain(pattern: &str) -> bool {
    let mut characters = pattern.chars();
    let mut escapes = std::iter::from_fn(|| {
        characters
            .find(|character| *character == '\\')
            .and_then(|_| characters.next())
    });
    !pattern.contains("(?")
        && escapes
            .all(|escaped| "dDsSwWnrtfvux".contains(escaped) || escaped.is_ascii_punctuation())
}

/// A pattern for strings in its engine's dialect, and whether it backtracks.
pub(super) fn of_string(pattern: &str) -> (Cow<'_, str>, bool) {
    let backtracks = backtracks(pattern);
    let edge = if backtracks {
        WordEdge::LookAround
    } else {
        WordEdge::Flag
    };
    (engine_pattern(pattern, edge), backtracks)
}

/// A pattern for keys in the backtracking engine's dialect.
pub(super) fn of_keys(pattern: &str) -> Cow<'_, str> {
    match backtracks(pattern) || engine_pattern(pattern, WordEdge::Flag).contains("(?-u:") {
        true => engine_pattern(pattern, WordEdge::LookAround),
        false => engine_pattern(pattern, WordEdge::Flag),
    }
}

/// Whether `test` holds for a pattern of strings (or keys) in a schema.
pub(super) fn any_pattern(
    schema: &SchemaValue,
    of_keys: bool,
    test: &impl Fn(&str) -> bool,
) -> bool {
    let mut found = false;
    visit(schema, &(), &mut |members, ()| {
        found |= match of_keys {
            false => members
                .get("pattern")
                .and_then(SchemaValue::as_str)
                .is_some_and(test),
            true => {
                let patterns = members.get("patternProperties");
                let patterns = patterns.and_then(SchemaValue::as_object);
                patterns.is_some_and(|patterns| patterns.keys().any(|pattern| test(pattern)))
            }
        };
    });
    found
}

/// A key too long for key patterns, whose step limit is independent of length.
pub(super) fn long_key<'v>(value: &'v Value<'_>) -> Option<(&'v str, usize)> {
    match &value.kind {
        Kind::Array(items) => items.iter().find_map(long_key),
        Kind::Object(object) => object.members().iter().find_map(|member| {
            if member.key.len() > SHORT {
                Some((&*member.key, member.key_start))
            } else {
                long_key(&member.value)
            }
        }),
        _ => None,
    }
}

impl BoundedPattern {
    pub(super) fn compile(pattern: &SchemaValue) -> Result<Self, ValidationError<'static>> {
        let text = pattern.as_str().unwrap_or_default();
        let (written, backtracks) = of_string(text);
        let classes: u32 = if backtracks { 4 } else { 1 };
        let build = |pattern: &SchemaValue| {
            let of_class = |class| {
                let limit = BACKTRACK_LIMIT / 10_usize.pow(class);
                let options = jsonschema::options_for::<Completion>();
                let options = match backtracks {
                    true => options
                        .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(limit)),
                    false => options.with_pattern_options(PatternOptions::regex()),
                };
                options.build(&json!({ "pattern": pattern }))
            };
            (0..classes).map(of_class).collect::<Result<_, _>>()
        };
        let by_length = match pattern.is_string() {
            // Report the schema's own pattern.
            true => build(&written.into()).or_else(|_| build(pattern)),
            false => build(pattern),
        };
        Ok(Self {
            pattern: text.to_owned(),
            by_length: by_length?,
        })
    }

    fn validator(&self, value: &Value<'_>) -> Option<&Validator<Completion>> {
        let length = if let Kind::String(text) = &value.kind {
            text.len()
        } else {
            0
        };
        let mut longest = SHORT;
        let mut class = 0;
        while length > longest && class + 1 < self.by_length.len() {
            longest *= 10;
            class += 1;
        }
        self.by_length.get(class)
    }
}

impl<'i> Keyword<'i, Completion> for BoundedPattern {
    fn validate(&self, value: &'i Value<'i>) -> Result<(), ValidationError<'i>> {
        let Some(validator) = self.validator(value) else {
            return Ok(());
        };
        match validator.validate(value) {
            Err(error)
                if !matches!(
                    error.kind(),
                    jsonschema::error::ValidationErrorKind::Pattern { .. }
                ) =>
            {
                // The match is unknown, so must not affect the verdict.
                let found = if let Kind::String(text) = &value.kind {
                    shorten(text)
                } else {
                    String::new()
                };
                end(BudgetExceeded::Pattern {
                    pattern: self.pattern.clone(),
                    found,
                    offset: value.start,
                })
            }
            found => found.map_err(ValidationError::to_owned),
        }
    }

    fn is_valid(&self, value: &'i Value<'i>) -> bool {
        self.validate(value).is_ok()
    }
}

/// Truncates to 80 characters on one line.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(80)
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_backtrack_are_told_from_those_that_do_not() {
        for pattern in [
            "",
            "^[a-z]+$",
            "a\\d\\.\\w*",
            "(?:a|b)+",
            "\\p{L}+",
            "\\u0041",
            "^\\S+@\\S+$",
            "a{2,3}",
        ] {
            assert!(!backtracks(pattern), "{pattern}");
        }
        for pattern in [
            "(?=a)",
            "(?!a)",
            "(?<=a)b",
            "(?<!a)b",
            "(a)\\1",
            "(?<n>a)\\k<n>",
        ] {
            assert!(backtracks(pattern), "{pattern}");
        }
    }
}
