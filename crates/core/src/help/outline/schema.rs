//! Outline of a schema: a line per field, nested ones indented; keywords without a wording are
//! listed.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::entry::Accepted;
use crate::schema_keywords::{Draft, Keyword};
use crate::task::{decode_path, escaped};

/// Nesting limit.
const MAX_DEPTH: usize = 8;
/// Line limit. A few definitions that refer to each other can expand to millions.
const MAX_LINES: usize = 400;

/// Keywords with a wording.
const SPOKEN: [&str; 29] = [
    "type",
    "enum",
    "const",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "minProperties",
    "maxProperties",
    "propertyNames",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "$ref",
];

fn may_constrain(key: &str) -> bool {
    // A keyword that rejects a value in any draft does so in this one, or does not exist in it.
    Keyword::named(key).is_some_and(|keyword| keyword.constrains(Draft::D7))
}

/// `formats_count`: whether `format` is checked (`assert_formats`).
pub(super) fn describe(schema: &Value, formats_count: bool) -> Vec<Accepted> {
    let mut words = Words {
        root: schema,
        formats_count,
        lines: Vec::new(),
        open: Vec::new(),
    };
    words.value(
        schema,
        "",
        Line {
            depth: 0,
            name: "the answer".to_owned(),
            required: None,
            pointer: String::new(),
        },
    );
    if words.is_full() {
        words.lines.truncate(MAX_LINES);
        let (name, text) = ("…".to_owned(), "more lines omitted".to_owned());
        words.lines.push(Accepted {
            depth: 0,
            name,
            required: None,
            text,
            pointer: String::new(),
        });
    }
    words.lines
}

struct Line {
    depth: usize,
    name: String,
    required: Option<bool>,
    pointer: String,
}

struct Words<'a> {
    root: &'a Value,
    formats_count: bool,
    lines: Vec<Accepted>,
    open: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn push(
        &mut self,
        Line {
            depth,
            name,
            required,
            pointer,
        }: Line,
        text: impl Into<String>,
    ) {
        self.lines.push(Accepted {
            depth,
            name,
            required,
            text: text.into(),
            pointer,
        });
    }

    fn is_full(&self) -> bool {
        self.lines.len() > MAX_LINES
    }

    /// `at`: pointer of the schema, possibly reached by a reference.
    fn value(&mut self, schema: &'a Value, at: &str, line: Line) {
        if self.is_full() {
            return;
        }
        let keywords = match schema {
            Value::Object(keywords) => keywords,
            Value::Bool(false) => return self.push(line, "nothing: no value is accepted here"),
            _ => return self.push(line, "anything"),
        };
        if let Some(address) = keywords.get("$ref").and_then(Value::as_str) {
            return self.reference(keywords, address, line);
        }
        let depth = line.depth;
        self.push(line, self.sentence(keywords));
        if depth < MAX_DEPTH {
            self.inside(keywords, at, depth + 1);
        } else if keywords.contains_key("properties") || keywords.contains_key("items") {
            let line = Line {
                depth: depth + 1,
                name: "…".to_owned(),
                required: None,
                pointer: at.to_owned(),
            };
            self.push(line, "nested deeper than is shown");
        }
    }

    fn reference(&mut self, keywords: &'a Map<String, Value>, address: &'a str, line: Line) {
        let rest = Line {
            depth: line.depth + 1,
            name: "and".to_owned(),
            required: None,
            pointer: line.pointer.clone(),
        };
        let pointer = address.strip_prefix('#').map(decode_path);
        let target = pointer
            .as_ref()
            .and_then(|pointer| Some((pointer, self.root.pointer(pointer)?)));
        match target {
            Some(_) if self.open.contains(&address) => {
                self.push(line, format!("recursive, see {address}"))
            }
            Some((pointer, target)) if line.depth < MAX_DEPTH => {
                self.open.push(address);
                self.value(target, pointer, line);
                self.open.pop();
            }
            _ => self.push(line, format!("see {address}")),
        }
        if keywords
            .keys()
            .any(|key| key != "$ref" && may_constrain(key))
        {
            let others: Map<String, Value> = keywords
                .iter()
                .filter(|(key, _)| *key != "$ref")
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            self.push(rest, self.sentence(&others));
        }
    }

    fn inside(&mut self, keywords: &'a Map<String, Value>, at: &str, depth: usize) {
        let required: HashSet<&str> = strings(keywords.get("required")).collect();
        let properties = keywords.get("properties").and_then(Value::as_object);
        for (key, schema) in properties.into_iter().flatten() {
            let (at, required) = (
                format!("{at}/properties/{}", escaped(key)),
                Some(required.contains(key.as_str())),
            );
            self.value(
                schema,
                &at,
                Line {
                    depth,
                    name: key.clone(),
                    required,
                    pointer: at.clone(),
                },
            );
        }
        for (index, key) in strings(keywords.get("required")).enumerate() {
            if !properties.is_some_and(|known| known.contains_key(key)) {
                let pointer = format!("{at}/required/{index}");
                let line = Line {
                    depth,
                    name: key.to_owned(),
                    required: Some(true),
                    pointer,
                };
                self.push(line, "anything: `properties` does not describe it");
            }
        }
        let mut value = |schema: &'a Value, place: String, name: String| {
            let at = format!("{at}/{place}");
            self.value(
                schema,
                &at,
                Line {
                    depth,
                    name,
                    required: None,
                    pointer: at.clone(),
                },
            );
        };
        for (pattern, schema) in keywords
            .get("patternProperties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let place = format!("patternProperties/{}", escaped(pattern));
            value(schema, place, format!("fields named like /{pattern}/"));
        }
        if let Some(schema @ Value::Object(_)) = keywords.get("additionalProperties") {
            value(
                schema,
                "additionalProperties".to_owned(),
                "any other field".to_owned(),
            );
        }
        if let Some(schema @ Value::Object(_)) = keywords.get("propertyNames") {
            value(
                schema,
                "propertyNames".to_owned(),
                "each field's name".to_owned(),
            );
        }
        for (index, schema) in keywords
            .get("prefixItems")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
        {
            value(
                schema,
                format!("prefixItems/{index}"),
                format!("item {}", index + 1),
            );
        }
        if let Some(schema @ Value::Object(_)) = keywords.get("items") {
            let name = if keywords.contains_key("prefixItems") {
                "each further item"
            } else {
                "each item"
            };
            value(schema, "items".to_owned(), name.to_owned());
        }
        for (keyword, name) in [
            ("anyOf", "either"),
            ("oneOf", "exactly one"),
            ("allOf", "and also"),
        ] {
            for (index, schema) in keywords
                .get(keyword)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .enumerate()
            {
                value(schema, format!("{keyword}/{index}"), name.to_owned());
            }
        }
        if let Some(schema) = keywords.get("not") {
            value(schema, "not".to_owned(), "but not".to_owned());
        }
    }

    fn sentence(&self, keywords: &Map<String, Value>) -> String {
        let mut text = match (
            keywords.get("const"),
            keywords.get("enum").and_then(Value::as_array),
        ) {
            (Some(value), _) => format!("exactly {value}"),
            (None, Some(values)) => one_of(values),
            (None, None) => self.types(keywords),
        };
        // Unknown words have no effect; the linter names misspelled ones.
        let is_unspoken = |key: &&String| may_constrain(key) && !SPOKEN.contains(&key.as_str());
        let unspoken: Vec<String> = keywords
            .keys()
            .filter(is_unspoken)
            .map(|key| format!("`{key}`"))
            .collect();
        if !unspoken.is_empty() {
            text.push_str(&format!("; also {} (not described)", unspoken.join(", ")));
        }
        text
    }

    fn types(&self, keywords: &Map<String, Value>) -> String {
        let names: Vec<&str> = match keywords.get("type") {
            Some(Value::String(name)) => vec![name.as_str()],
            names @ Some(Value::Array(_)) => strings(names).collect(),
            _ => Vec::new(),
        };
        if !names.is_empty() {
            return names
                .iter()
                .map(|name| self.kind(name, keywords))
                .collect::<Vec<_>>()
                .join(" or ");
        }
        // Without a type, keywords bind only values of their own kind; all others are accepted.
        let bound = ["object", "array", "string", "number"]
            .into_iter()
            .filter(|name| self.kind(name, keywords) != self.kind(name, &Map::new()));
        let bound: Vec<String> = bound.map(|name| self.kind(name, keywords)).collect();
        let parts = ["anyOf", "oneOf", "allOf"]
            .into_iter()
            .any(|keyword| keywords.contains_key(keyword));
        match (bound.is_empty(), parts) {
            (true, true) => "as follows".to_owned(),
            (true, false) => "anything".to_owned(),
            (false, _) => format!("anything (no `type`); if {}", bound.join("; if ")),
        }
    }

    fn kind(&self, name: &str, keywords: &Map<String, Value>) -> String {
        let mut parts = vec![
            match name {
                "string" => "text",
                "integer" => "a whole number",
                "number" => "a number",
                "boolean" => "true or false",
                "array" => "a list",
                "object" => "an object",
                other => other,
            }
            .to_owned(),
        ];
        match name {
            "string" => {
                parts.extend(amount(keywords, "minLength", "maxLength", "character"));
                parts.extend(
                    keywords
                        .get("pattern")
                        .and_then(Value::as_str)
                        .map(|pattern| format!("that matches /{pattern}/")),
                );
                let checked = if self.formats_count {
                    ""
                } else {
                    " (not checked: assert_formats is off)"
                };
                parts.extend(
                    keywords
                        .get("format")
                        .and_then(Value::as_str)
                        .map(|format| format!("in the form `{format}`{checked}")),
                );
            }
            "integer" | "number" => {
                let bounds = [
                    ("minimum", "at least"),
                    ("exclusiveMinimum", "above"),
                    ("maximum", "at most"),
                    ("exclusiveMaximum", "below"),
                ];
                let terms = bounds.iter().filter_map(|(key, word)| {
                    keywords.get(*key).map(|bound| format!("{word} {bound}"))
                });
                parts.push(terms.collect::<Vec<_>>().join(" and "));
                parts.extend(
                    keywords
                        .get("multipleOf")
                        .map(|step| format!("in steps of {step}")),
                );
            }
            "array" => {
                parts.extend(amount(keywords, "minItems", "maxItems", "item"));
                if keywords.get("uniqueItems") == Some(&Value::Bool(true)) {
                    parts.push("no two alike".to_owned());
                }
                if keywords.get("items") == Some(&Value::Bool(false)) {
                    parts.push("and no items but those below".to_owned());
                }
            }
            "object" => parts.extend(object(keywords)),
            _ => {}
        }
        parts.retain(|part| !part.is_empty());
        parts.join(" ")
    }
}

fn object(keywords: &Map<String, Value>) -> Vec<String> {
    let fields = keywords
        .get("properties")
        .and_then(Value::as_object)
        .map_or(0, Map::len);
    let closed = keywords.get("additionalProperties") == Some(&Value::Bool(false));
    let named = match (fields, closed) {
        (0, true) if keywords.contains_key("patternProperties") => {
            "with the fields below and no others".to_owned()
        }
        (0, true) => "without any field".to_owned(),
        (0, false) => String::new(),
        (_, true) => format!("with {} and no others", count(fields as u64, "field")),
        (_, false) => format!("with {}; others are allowed", count(fields as u64, "field")),
    };
    [
        Some(named),
        amount(keywords, "minProperties", "maxProperties", "field in all"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn amount(keywords: &Map<String, Value>, least: &str, most: &str, what: &str) -> Option<String> {
    let bound = |key: &str| keywords.get(key).and_then(Value::as_u64);
    Some(
        match (bound(least).filter(|least| *least > 0), bound(most)) {
            (None, None) => return None,
            (Some(least), None) => format!("of at least {}", count(least, what)),
            (None, Some(most)) => format!("of at most {}", count(most, what)),
            (Some(least), Some(most)) if least == most => {
                format!("of exactly {}", count(most, what))
            }
            (Some(least), Some(most)) => format!("of {least} to {}", count(most, what)),
        },
    )
}

fn count(number: u64, what: &str) -> String {
    let (first, rest) = what
        .split_once(' ')
        .map_or((what, String::new()), |(first, rest)| {
            (first, format!(" {rest}"))
        });
    format!(
        "{number} {first}{}{rest}",
        if number == 1 { "" } else { "s" }
    )
}

fn one_of(values: &[Value]) -> String {
    let shown: Vec<String> = values.iter().take(12).map(Value::to_string).collect();
    let more = if values.len() > 12 {
        format!(" and {} more", values.len() - 12)
    } else {
        String::new()
    };
    format!("one of {}{more}", shown.join(", "))
}

fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, expected: &[&str]) {
        let lines: Vec<String> = describe(&schema, false)
            .iter()
            .map(|line| {
                let must = match line.required {
                    Some(true) => " (required)",
                    Some(false) => " (optional)",
                    None => "",
                };
                format!(
                    "{}{}{must}: {}",
                    "  ".repeat(line.depth),
                    line.name,
                    line.text
                )
            })
            .collect();
        assert_eq!(lines, expected, "{schema}");
    }

    #[test]
    fn each_keyword_has_its_words() {
        let one = |schema: Value, text: &str| check(schema, &[&format!("the answer: {text}")]);
        one(json!(true), "anything");
        one(json!(false), "nothing: no value is accepted here");
        one(json!({"type": "string"}), "text");
        one(
            json!({"type": "string", "minLength": 1}),
            "text of at least 1 character",
        );
        one(
            json!({"type": "string", "maxLength": 3, "minLength": 3}),
            "text of exactly 3 characters",
        );
        one(
            json!({"type": "string", "pattern": "^a"}),
            "text that matches /^a/",
        );
        one(
            json!({"type": "string", "format": "date"}),
            "text in the form `date` (not checked: assert_formats is off)",
        );
        one(
            json!({"type": ["integer", "null"], "minimum": 0, "exclusiveMaximum": 9}),
            "a whole number at least 0 and below 9 or null",
        );
        one(
            json!({"type": "number", "multipleOf": 0.01}),
            "a number in steps of 0.01",
        );
        one(json!({"enum": ["a", 1, null]}), "one of \"a\", 1, null");
        one(json!({"const": "x"}), "exactly \"x\"");
        one(
            json!({"minLength": 2}),
            "anything (no `type`); if text of at least 2 characters",
        );
        one(
            json!({"type": "array", "minItems": 1, "maxItems": 5, "uniqueItems": true}),
            "a list of 1 to 5 items no two alike",
        );
        one(
            json!({"type": "object", "additionalProperties": false}),
            "an object without any field",
        );
        one(
            json!({"type": "object", "minProperties": 1}),
            "an object of at least 1 field in all",
        );
        one(json!({"type": "string", "x-note": 1}), "text");
        one(
            json!({"type": "string", "contentEncoding": "base64"}),
            "text; also `contentEncoding` (not described)",
        );
    }

    #[test]
    fn fields_items_and_alternatives_are_nested() {
        let schema = json!({
            "type": "object",
            "properties": {"lines": {"type": "array", "items": {"$ref": "#/$defs/line"}}, "note": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
            "required": ["lines", "total"],
            "additionalProperties": false,
            "$defs": {"line": {"type": "object", "properties": {"sku": {"type": "string"}, "part_of": {"$ref": "#/$defs/line"}}}}
        });
        check(
            schema,
            &[
                "the answer: an object with 2 fields and no others",
                "  lines (required): a list",
                "    each item: an object with 2 fields; others are allowed",
                "      sku (optional): text",
                "      part_of (optional): recursive, see #/$defs/line",
                "  note (optional): as follows",
                "    either: text",
                "    either: null",
                "  total (required): anything: `properties` does not describe it",
            ],
        );
    }

    #[test]
    fn definitions_that_name_each_other_end_at_the_bound() {
        let names: Vec<String> = (0..30).map(|number| format!("d{number}")).collect();
        let all: Map<String, Value> = names
            .iter()
            .map(|name| (name.clone(), json!({"$ref": format!("#/$defs/{name}")})))
            .collect();
        let definitions: Map<String, Value> = names
            .iter()
            .map(|name| (name.clone(), json!({"properties": all})))
            .collect();
        let lines = describe(&json!({"$ref": "#/$defs/d0", "$defs": definitions}), true);
        assert_eq!(lines.len(), MAX_LINES + 1);
        assert_eq!(lines.last().unwrap().text, "more lines omitted");
    }

    #[test]
    fn a_schema_without_end_is_described_up_to_a_bound() {
        let mut schema = json!({"type": "string"});
        for _ in 0..40 {
            schema = json!({"type": "object", "properties": {"a": schema.clone(), "b": schema}})
                .to_string()
                .parse()
                .unwrap();
            if schema.to_string().len() > 100_000 {
                break;
            }
        }
        assert!(describe(&schema, true).len() <= MAX_LINES + 1);
    }
}
