//! Infers a schema from examples: types, required fields, enums of few repeated values, formats. A
//! starting point for editing, with notes on guesses.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::exact_json::marked_number;
use crate::format::counted;
use crate::task::referenced_part;

const MAX_ENUM_VALUES: usize = 12;
/// Length of an enum's value.
const MAX_ENUM_LETTERS: usize = 40;
const MIN_ENUM_TEXTS: usize = 4;
/// Depth limit; deeper values may be anything.
const MAX_DEPTH: usize = 16;
/// References and lists followed to word a field.
const MAX_WORDED_DEPTH: usize = 4;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct InferredSchema {
    pub schema: Value,
    /// Guesses to check, one sentence each.
    pub notes: Vec<String>,
    pub has_formats: bool,
}

pub fn infer<'a>(examples: impl Iterator<Item = &'a Value>, source: &str) -> InferredSchema {
    let mut shape = Shape::default();
    examples.for_each(|example| shape.add(example, 0));
    let mut inferred = InferredSchema::default();
    let schema = shape.schema("", &mut inferred);
    let comment = format!(
        "Inferred from {} of {source}: check required fields, enums and formats.",
        counted(shape.count, "example")
    );
    let mut whole = Map::from_iter([
        (
            "$schema".to_owned(),
            Value::from("https://json-schema.org/draft/2020-12/schema"),
        ),
        ("$comment".to_owned(), Value::from(comment)),
    ]);
    whole.extend(schema);
    inferred.schema = Value::Object(whole);
    inferred
}

#[derive(Debug, Default)]
struct Shape {
    count: usize,
    nulls: usize,
    booleans: usize,
    integers: usize,
    numbers: usize,
    texts: Texts,
    arrays: usize,
    items: Option<Box<Shape>>,
    objects: usize,
    /// Fields in order of first appearance.
    fields: Vec<(String, Shape)>,
    /// Index in `fields` by name.
    places: HashMap<String, usize>,
    /// Nested too deep to be followed.
    is_open: bool,
}

#[derive(Debug, Default)]
struct Texts {
    count: usize,
    values: Vec<String>,
    /// Formats of all texts so far.
    formats: Vec<&'static str>,
}

impl Shape {
    fn add(&mut self, value: &Value, depth: usize) {
        self.count += 1;
        if depth > MAX_DEPTH {
            self.is_open = true;
            return;
        }
        match value {
            _ if let Some(number) = marked_number(value) => match number.is_written_as_integer() {
                true => self.integers += 1,
                false => self.numbers += 1,
            },
            Value::Null => self.nulls += 1,
            Value::Bool(_) => self.booleans += 1,
            Value::Number(number) if number.is_i64() || number.is_u64() => self.integers += 1,
            Value::Number(_) => self.numbers += 1,
            Value::String(text) => self.texts.add(text),
            Value::Array(items) => {
                self.arrays += 1;
                let shape = self.items.get_or_insert_default();
                items.iter().for_each(|item| shape.add(item, depth + 1));
            }
            Value::Object(fields) => {
                self.objects += 1;
                for (name, value) in fields {
                    let place = self.places.get(name).copied().unwrap_or_else(|| {
                        self.fields.push((name.clone(), Shape::default()));
                        self.places.insert(name.clone(), self.fields.len() - 1);
                        self.fields.len() - 1
                    });
                    self.fields[place].1.add(value, depth + 1);
                }
            }
        }
    }

    fn schema(&self, path: &str, inferred: &mut InferredSchema) -> Map<String, Value> {
        let mut schema = Map::new();
        let types: Vec<&str> = [
            ("object", self.objects),
            ("array", self.arrays),
            ("string", self.texts.count),
            ("integer", if self.numbers == 0 { self.integers } else { 0 }),
            ("number", self.numbers),
            ("boolean", self.booleans),
            ("null", self.nulls),
        ]
        .into_iter()
        .filter_map(|(name, count)| (count > 0).then_some(name))
        .collect();
        match types[..] {
            _ if self.is_open => return schema,
            [] => return schema,
            [only] => schema.insert("type".to_owned(), only.into()),
            _ => schema.insert("type".to_owned(), types.clone().into()),
        };
        if types.len() - usize::from(self.nulls > 0) > 1 {
            inferred.notes.push(format!(
                "{}: values of several types ({})",
                shown(path),
                types.join(", ")
            ));
        }
        if self.texts.count > 0 {
            self.text_keywords(path, &mut schema, inferred);
        }
        if let Some(items) = self.items.as_ref().filter(|items| items.count > 0) {
            schema.insert(
                "items".to_owned(),
                items.schema(&format!("{path}[]"), inferred).into(),
            );
        }
        if self.objects > 0 {
            let mut properties = Map::new();
            for (name, field) in &self.fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                if field.count < self.objects {
                    inferred.notes.push(format!(
                        "{path}: optional, in {} of {} examples",
                        field.count, self.objects
                    ));
                }
                properties.insert(name.clone(), field.schema(&path, inferred).into());
            }
            let always = self
                .fields
                .iter()
                .filter(|(_, field)| field.count == self.objects);
            let required: Vec<&str> = always.map(|(name, _)| name.as_str()).collect();
            schema.insert("properties".to_owned(), properties.into());
            schema.insert("required".to_owned(), required.into());
            schema.insert("additionalProperties".to_owned(), false.into());
        }
        schema
    }

    fn text_keywords(
        &self,
        path: &str,
        schema: &mut Map<String, Value>,
        inferred: &mut InferredSchema,
    ) {
        let Texts {
            count,
            values,
            formats,
        } = &self.texts;
        if let Some(format) = formats.first() {
            inferred.has_formats = true;
            inferred.notes.push(format!(
                "{}: format {format}, as all {count} values",
                shown(path)
            ));
            schema.insert("format".to_owned(), (*format).into());
            return;
        }
        // An enum would exclude values of other types at this place.
        let is_alone = count + self.nulls == self.count;
        if is_alone
            && *count >= MIN_ENUM_TEXTS.max(2 * values.len())
            && values.len() <= MAX_ENUM_VALUES
        {
            let known = values.join(", ");
            inferred.notes.push(format!(
                "{}: enum of {} values seen ({known}): is it complete?",
                shown(path),
                values.len()
            ));
            let mut all: Vec<Value> = values.iter().map(|value| value.as_str().into()).collect();
            if self.nulls > 0 {
                all.push(Value::Null);
            }
            schema.insert("enum".to_owned(), all.into());
        }
    }
}

impl Texts {
    fn add(&mut self, text: &str) {
        let fits: Vec<&'static str> = FORMATS
            .iter()
            .filter(|(_, fits)| fits(text))
            .map(|(name, _)| *name)
            .collect();
        match self.count {
            0 => self.formats = fits,
            _ => self.formats.retain(|name| fits.contains(name)),
        }
        self.count += 1;
        let is_short = text.chars().count() <= MAX_ENUM_LETTERS && !text.is_empty();
        if self.values.len() <= MAX_ENUM_VALUES && !self.values.iter().any(|known| known == text) {
            self.values.push(text.to_owned());
            if !is_short {
                // Never an enum.
                self.values.resize(MAX_ENUM_VALUES + 1, String::new());
            }
        }
    }
}

type IsFormat = fn(&str) -> bool;

/// Narrowest first.
const FORMATS: [(&str, IsFormat); 6] = [
    ("date", |text| {
        text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
    }),
    ("date-time", |text| {
        text.contains(['T', 't']) && text.parse::<jiff::Timestamp>().is_ok()
    }),
    ("uuid", is_uuid),
    ("email", is_email),
    ("uri", |text| {
        let rest = ["https://", "http://", "ftp://"]
            .into_iter()
            .find_map(|start| text.strip_prefix(start));
        rest.is_some_and(|rest| {
            !rest.is_empty()
                && rest
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&byte))
        })
    }),
    ("ipv4", |text| text.parse::<std::net::Ipv4Addr>().is_ok()),
];

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts
            .iter()
            .all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_email(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with('.')
            && !part.contains("..")
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
    };
    text.split_once('@')
        .is_some_and(|(name, host)| plain(name) && plain(host) && host.contains('.'))
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "the answer" } else { path }
}

/// Top-level fields for a system message: `vendor (string), currency (EUR, USD)`.
pub(super) fn fields_in_words(schema: &Value) -> Option<String> {
    // A class that refers to itself is a reference.
    let address = schema.get("$ref").and_then(Value::as_str);
    let own = address.and_then(|address| referenced_part(schema, address));
    let (root, schema) = (schema, own.unwrap_or(schema));
    let fields = schema
        .get("properties")?
        .as_object()
        .filter(|fields| !fields.is_empty())?;
    let required = schema.get("required").and_then(Value::as_array);
    let word = |(name, field): (&String, &Value)| {
        let kind = in_words(root, field, 0);
        let is_required =
            required.is_some_and(|names| names.iter().any(|required| required == name));
        let advice = if is_required { "" } else { "leave out if none" };
        match [kind.as_str(), advice]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("; ")
        {
            about if about.is_empty() => name.clone(),
            about => format!("{name} ({about})"),
        }
    };
    Some(fields.iter().map(word).collect::<Vec<_>>().join(", "))
}

/// What a field holds: `EUR, USD`, `string or null`, `list of objects: sku, amount`.
fn in_words(root: &Value, field: &Value, depth: usize) -> String {
    let texts = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let list = |key: &str| field.get(key).and_then(Value::as_array);
    if depth > MAX_WORDED_DEPTH {
        return String::new();
    }
    let inner = |schema: &Value| in_words(root, schema, depth + 1);
    let target = field.get("$ref").and_then(Value::as_str);
    if let Some(target) = target.and_then(|address| referenced_part(root, address)) {
        return inner(target);
    }
    if let Some(values) = list("enum") {
        return values.iter().map(texts).collect::<Vec<_>>().join(", ");
    }
    if let Some(branches) = list("anyOf").or(list("oneOf")).or(list("allOf")) {
        let words = branches.iter().map(inner).filter(|words| !words.is_empty());
        return words.collect::<Vec<_>>().join(" or ");
    }
    let kind = match (field.get("const"), field.get("format"), field.get("type")) {
        (Some(value), ..) => texts(value),
        (_, Some(format), _) => texts(format),
        (.., Some(Value::Array(names))) => names.iter().map(texts).collect::<Vec<_>>().join(" or "),
        (.., Some(name)) => texts(name),
        _ => String::new(),
    };
    let members = field.get("properties").and_then(Value::as_object);
    let names = members.map(|members| members.keys().cloned().collect::<Vec<_>>().join(", "));
    match (kind.as_str(), names, field.get("items")) {
        ("object", Some(names), _) if depth > 0 => format!("object: {names}"),
        ("array", _, Some(items)) if items.is_object() => match inner(items) {
            words if words.is_empty() => kind,
            words => format!("list of {words}"),
        },
        _ => kind,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inferred(examples: Value) -> InferredSchema {
        infer(
            examples
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default()
                .iter(),
            "answers.jsonl",
        )
    }

    #[test]
    fn types_required_enums_and_formats_come_from_the_examples() {
        let check = |examples: Value, pointer: &str, expected: Value| {
            let schema = inferred(examples.clone()).schema;
            assert_eq!(
                schema.pointer(pointer),
                Some(&expected),
                "{examples}: {schema:#}"
            );
        };
        check(
            json!([{"a": 1}, {"a": 2.5}]),
            "/properties/a",
            json!({"type": "number"}),
        );
        check(
            json!([{"a": 1}, {"a": 2}]),
            "/properties/a",
            json!({"type": "integer"}),
        );
        check(
            json!([{"a": 1}, {"a": null}]),
            "/properties/a",
            json!({"type": ["integer", "null"]}),
        );
        check(
            json!([{"a": 1, "b": 2}, {"a": 3}]),
            "/required",
            json!(["a"]),
        );
        check(
            json!([{"a": [{"b": "x"}, {"b": "y", "c": true}]}]),
            "/properties/a/items/required",
            json!(["b"]),
        );
        check(
            json!([{"a": "2026-11-21"}]),
            "/properties/a/format",
            json!("date"),
        );
        check(
            json!([{"a": "2026-11-21T10:00:00Z"}]),
            "/properties/a/format",
            json!("date-time"),
        );
        check(
            json!([{"a": "a.b@example.org"}]),
            "/properties/a/format",
            json!("email"),
        );
        check(
            json!([{"a": "https://example.org/x?y=1"}]),
            "/properties/a/format",
            json!("uri"),
        );
        check(
            json!([{"a": "7f0c1d2e-0000-4000-8000-00000000abcd"}]),
            "/properties/a/format",
            json!("uuid"),
        );
        check(
            json!([{"a": "2026-11-21"}, {"a": "soon"}]),
            "/properties/a",
            json!({"type": "string"}),
        );
        check(
            json!(["on", "off", "on", "on"]),
            "/enum",
            json!(["on", "off"]),
        );
        check(
            json!(["on", "off", null, "on", "on"]),
            "/enum",
            json!(["on", "off", null]),
        );
        check(json!([[], [1]]), "/items", json!({"type": "integer"}));
        check(json!([{}]), "/additionalProperties", json!(false));
    }

    #[test]
    fn the_system_text_names_fields_and_which_may_be_missing() {
        let schema = json!({"properties": {"total": {"type": "number"}, "order": {"type": "string"}, "any": {}}, "required": ["total"]});
        let expected = "total (number), order (string; leave out if none), any (leave out if none)";
        assert_eq!(fields_in_words(&schema).as_deref(), Some(expected));
    }

    #[test]
    fn few_or_different_texts_are_no_enum() {
        let check = |examples: Value| {
            assert_eq!(
                inferred(examples.clone()).schema.get("enum"),
                None,
                "{examples}"
            )
        };
        check(json!(["on", "off", "on"]));
        check(json!(["a", "b", "c", "a", "b"]));
        check(json!(["on", "off", "on", "off", 1]));
        check(Value::from(
            (0..100)
                .map(|number| format!("{}", number % 13))
                .collect::<Vec<_>>(),
        ));
        check(Value::from(
            (0..9).map(|_| "long ".repeat(10)).collect::<Vec<_>>(),
        ));
    }

    #[test]
    fn what_was_guessed_is_noted() {
        let notes =
            inferred(json!([{"a": "x", "b": 1}, {"a": "x"}, {"a": "y", "b": "2"}, {"a": "x"}]))
                .notes;
        let expected = [
            "a: enum of 2 values seen (x, y): is it complete?",
            "b: optional, in 2 of 4 examples",
            "b: values of several types (string, integer)",
        ];
        assert_eq!(notes, expected);
    }

    #[test]
    fn answers_of_many_different_keys_are_read_in_no_time() {
        let examples: Vec<Value> = (0..200_000)
            .map(|number| json!({number.to_string(): 1}))
            .collect();
        let fields = infer(examples.iter(), "answers.jsonl").schema["properties"]
            .as_object()
            .map(Map::len);
        assert_eq!(fields, Some(200_000));
    }
}
