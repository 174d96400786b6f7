//! Parameter values as written in paths, queries and headers, and as JSON for a schema.

use std::borrow::Cow;

use super::schemas::Shape;
use crate::score::answer::json::{Kind, Object, Value, parse};
use crate::task::decode_path;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum ParameterValue<'m> {
    /// Text in a path, query, header or JSON string: the schema determines its type.
    Text(Cow<'m, str>),
    /// A JSON number or boolean, as written.
    Literal(Cow<'m, str>),
    Null,
    List(Vec<ParameterValue<'m>>),
    Fields(Vec<(Cow<'m, str>, ParameterValue<'m>)>),
}

/// OpenAPI serialization style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Comma-separated; one value per name if exploded.
    Comma,
    Space,
    Pipe,
    /// `name[field]=value`.
    DeepObject,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Strings,
    /// Text like numbers, `true`, `false` or `null` is parsed as such.
    Scalars,
    /// Parses as JSON: text stays text.
    Json,
}

impl<'m> ParameterValue<'m> {
    pub(super) fn from_json(value: &'m Value<'_>) -> Self {
        match &value.kind {
            Kind::Null => Self::Null,
            Kind::Bool(flag) => Self::Literal(Cow::Borrowed(if *flag { "true" } else { "false" })),
            Kind::Number(number) => Self::Literal(Cow::Borrowed(number.text())),
            Kind::String(text) => Self::Text(Cow::Borrowed(text)),
            Kind::Array(items) => Self::List(items.iter().map(Self::from_json).collect()),
            Kind::Object(object) => Self::Fields(fields(object)),
        }
    }

    /// Parses JSON, else keeps the text.
    pub(super) fn from_json_text(text: &str) -> ParameterValue<'static> {
        parse(text, 0).map_or_else(
            |_| ParameterValue::Text(Cow::Owned(text.to_owned())),
            |document| ParameterValue::from_json(&document.root).into_owned(),
        )
    }

    fn into_owned(self) -> ParameterValue<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Text(text) => ParameterValue::Text(owned(text)),
            Self::Literal(text) => ParameterValue::Literal(owned(text)),
            Self::Null => ParameterValue::Null,
            Self::List(items) => {
                ParameterValue::List(items.into_iter().map(ParameterValue::into_owned).collect())
            }
            Self::Fields(fields) => {
                let pair = |(name, value): (Cow<'_, str>, ParameterValue<'_>)| {
                    (owned(name), value.into_owned())
                };
                ParameterValue::Fields(fields.into_iter().map(pair).collect())
            }
        }
    }

    /// Parses text in a style into a list or fields if the parameter takes them.
    pub(super) fn from_text(
        text: &'m str,
        shape: &Shape,
        style: Style,
        explode: bool,
        decode: fn(&str) -> String,
    ) -> Self {
        let delimiters: &[&str] = match style {
            Style::Comma | Style::DeepObject => &[","],
            Style::Space => &["%20", "+", " "],
            Style::Pipe => &["|", "%7C", "%7c"],
        };
        let decoded = |part: &str| Self::Text(Cow::Owned(decode(part)));
        match shape {
            Shape::Scalar => decoded(text),
            Shape::List => Self::List(split(text, delimiters).into_iter().map(decoded).collect()),
            Shape::Fields(_) => {
                let parts = split(text, delimiters);
                let pair = |parts: &[&str]| match (explode, parts) {
                    (true, [one]) => {
                        let (name, value) = one.split_once('=').unwrap_or((one, ""));
                        (Cow::Owned(decode(name)), decoded(value))
                    }
                    (_, parts) => {
                        let part = |index: usize| parts.get(index).copied().unwrap_or_default();
                        (Cow::Owned(decode(part(0))), decoded(part(1)))
                    }
                };
                Self::Fields(
                    parts
                        .chunks(if explode { 1 } else { 2 })
                        .map(pair)
                        .collect(),
                )
            }
        }
    }

    pub(super) fn json(&self, reading: Reading) -> String {
        let mut out = String::new();
        self.write(reading, &mut out);
        out
    }

    fn write(&self, reading: Reading, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Literal(text) if reading == Reading::Json => out.push_str(text),
            Self::Text(text) | Self::Literal(text) => {
                if reading == Reading::Scalars && is_scalar(text) {
                    out.push_str(text.trim());
                } else {
                    quote(text, out);
                }
            }
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(reading, out);
                }
                out.push(']');
            }
            Self::Fields(fields) => {
                out.push('{');
                for (index, (name, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    quote(name, out);
                    out.push(':');
                    value.write(reading, out);
                }
                out.push('}');
            }
        }
    }

    /// Equality in a request: numbers by value, fields in any order. `equal` compares scalars.
    pub(super) fn equals(
        &self,
        other: &ParameterValue<'_>,
        equal: &dyn Fn(&str, &str) -> bool,
    ) -> bool {
        match (self, other) {
            (Self::Null, ParameterValue::Null) => true,
            (
                Self::Text(found) | Self::Literal(found),
                ParameterValue::Text(expected) | ParameterValue::Literal(expected),
            ) => equal(found, expected),
            (Self::List(found), ParameterValue::List(expected)) => {
                found.len() == expected.len()
                    && found
                        .iter()
                        .zip(expected)
                        .all(|(found, expected)| found.equals(expected, equal))
            }
            (Self::Fields(found), ParameterValue::Fields(expected)) => {
                found.len() == expected.len()
                    && expected.iter().all(|(name, expected)| {
                        found
                            .iter()
                            .any(|(other, found)| other == name && found.equals(expected, equal))
                    })
            }
            _ => false,
        }
    }
}

fn fields<'m>(object: &'m Object<'_>) -> Vec<(Cow<'m, str>, ParameterValue<'m>)> {
    object
        .members()
        .iter()
        .map(|member| {
            (
                Cow::Borrowed(&*member.key),
                ParameterValue::from_json(&member.value),
            )
        })
        .collect()
}

fn is_scalar(text: &str) -> bool {
    let begins = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b't' | b'f' | b'n');
    text.as_bytes().first().is_some_and(begins)
        && parse(text, 0).is_ok_and(|document| {
            matches!(
                document.root.kind,
                Kind::Number(_) | Kind::Bool(_) | Kind::Null
            )
        })
}

fn quote(text: &str, out: &mut String) {
    // Serialising a string cannot fail.
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn split<'t>(text: &'t str, delimiters: &[&str]) -> Vec<&'t str> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        match delimiters
            .iter()
            .find(|delimiter| rest.starts_with(delimiter.as_bytes()))
        {
            Some(delimiter) => {
                parts.push(&text[start..at]);
                at += delimiter.len();
                start = at;
            }
            None => at += 1,
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Decodes a query component, where `+` is a space.
pub(super) fn decode_query(text: &str) -> String {
    decode_path(&text.replace('+', " "))
}

/// Undecoded `name=value` pairs with their byte offsets.
pub(super) fn query_pairs(query: &str) -> impl Iterator<Item = (&str, &str, usize)> {
    let mut at = 0;
    query.split('&').filter_map(move |pair| {
        let start = at;
        at += pair.len() + 1;
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (!pair.is_empty()).then_some((name, value, start))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_in_the_style_of_its_parameter() {
        let named = Shape::Fields(vec!["r".to_owned()]);
        for (text, shape, style, explode, expected) in [
            ("5", &Shape::Scalar, Style::Comma, true, "5"),
            ("a%20b", &Shape::Scalar, Style::Comma, true, "\"a b\""),
            ("1,2", &Shape::Scalar, Style::Comma, true, "\"1,2\""),
            (
                "1,x%2Cy,true",
                &Shape::List,
                Style::Comma,
                false,
                "[1,\"x,y\",true]",
            ),
            ("1|2%7C3", &Shape::List, Style::Pipe, false, "[1,2,3]"),
            ("1%202 3", &Shape::List, Style::Space, false, "[1,2,3]"),
            (
                "r,100,g,2%30",
                &named,
                Style::Comma,
                false,
                "{\"r\":100,\"g\":20}",
            ),
            (
                "r=100,g=20",
                &named,
                Style::Comma,
                true,
                "{\"r\":100,\"g\":20}",
            ),
            (
                "r,100,g",
                &named,
                Style::Comma,
                false,
                "{\"r\":100,\"g\":\"\"}",
            ),
            ("", &Shape::List, Style::Comma, false, "[\"\"]"),
        ] {
            let given = ParameterValue::from_text(text, shape, style, explode, decode_path);
            assert_eq!(given.json(Reading::Scalars), expected, "{text} {style:?}");
        }
        let given = ParameterValue::from_text(
            "1,007,-0.5,nul",
            &Shape::List,
            Style::Comma,
            false,
            decode_path,
        );
        assert_eq!(given.json(Reading::Scalars), "[1,\"007\",-0.5,\"nul\"]");
        assert_eq!(
            given.json(Reading::Strings),
            "[\"1\",\"007\",\"-0.5\",\"nul\"]"
        );
        assert_eq!(decode_query("a+b%2Bc"), "a b+c");
        let pairs: Vec<_> = query_pairs("a=1&&b&c=x=y").collect();
        assert_eq!(pairs, [("a", "1", 0), ("b", "", 5), ("c", "x=y", 7)]);
    }
}
