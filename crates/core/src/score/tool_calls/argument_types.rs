//! What the schema of an argument says of its JSON type, for formats that write a string and other values alike.

use serde_json::Value;

use super::super::json;
use crate::task::{Function, referenced_part};

/// References that are followed from one schema to the next.
const MAX_REFERENCES: usize = 8;

/// The schemas of the parameters, by function.
#[derive(Debug, Clone, Default)]
pub(super) struct ArgumentTypes(Vec<(String, Value)>);

/// Types of JSON values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Types {
    string: bool,
    number: bool,
    boolean: bool,
    null: bool,
    object: bool,
    array: bool,
}

const ANY: Types = Types { string: true, number: true, boolean: true, null: true, object: true, array: true };

impl ArgumentTypes {
    pub(super) fn new(functions: &[Function<'_>]) -> Self {
        let schema =
            |function: &Function<'_>| (function.name.to_owned(), function.parameters.cloned().unwrap_or_default());
        Self(functions.iter().map(schema).collect())
    }

    /// The JSON of an argument that is written as text: the text itself as a string where the schema has no other type;
    /// else the JSON value that it is, if the schema has its type or no string.
    pub(super) fn is_json(&self, function: &str, argument: &str, text: &str) -> bool {
        let types = self.of(function, argument);
        let parsed = || json::parse(text, 0).ok().map(|document| types.has(&document.root));
        types != Types { string: true, ..Types::default() }
            && parsed().is_some_and(|is_of_type| is_of_type || !types.string)
    }

    /// Whether an argument is always a string.
    fn of(&self, function: &str, argument: &str) -> Types {
        let known = self.0.iter().find(|(name, _)| name == function);
        let schema = known.and_then(|(_, whole)| Some((whole, whole.get("properties")?.get(argument)?)));
        schema.map_or(ANY, |(whole, schema)| types_of(whole, schema, 0))
    }
}

impl Types {
    fn named(name: &str) -> Self {
        let none = Self::default();
        match name {
            "string" => Self { string: true, ..none },
            "number" | "integer" => Self { number: true, ..none },
            "boolean" => Self { boolean: true, ..none },
            "null" => Self { null: true, ..none },
            "object" => Self { object: true, ..none },
            "array" => Self { array: true, ..none },
            _ => none,
        }
    }

    fn of_value(value: &Value) -> Self {
        Self::named(match value {
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "boolean",
            Value::Null => "null",
            Value::Object(_) => "object",
            Value::Array(_) => "array",
        })
    }

    fn or(self, other: Self) -> Self {
        Self {
            string: self.string || other.string,
            number: self.number || other.number,
            boolean: self.boolean || other.boolean,
            null: self.null || other.null,
            object: self.object || other.object,
            array: self.array || other.array,
        }
    }

    /// Whether a value that is not a string has one of the types.
    fn has(self, value: &json::Value<'_>) -> bool {
        let found = Self::named(value.type_name());
        !found.string && self.or(found) == self
    }
}

fn types_of(whole: &Value, schema: &Value, depth: usize) -> Types {
    let any_of = |types: &mut dyn Iterator<Item = Types>| types.reduce(Types::or).unwrap_or(ANY);
    if depth > MAX_REFERENCES {
        return ANY;
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        return referenced_part(whole, target).map_or(ANY, |schema| types_of(whole, schema, depth + 1));
    }
    if let Some(value) = schema.get("const") {
        return Types::of_value(value);
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return any_of(&mut values.iter().map(Types::of_value));
    }
    match schema.get("type") {
        Some(Value::String(name)) => return Types::named(name),
        Some(Value::Array(names)) => return any_of(&mut names.iter().filter_map(Value::as_str).map(Types::named)),
        _ => {}
    }
    let branches = ["anyOf", "oneOf"].into_iter().find_map(|key| schema.get(key)?.as_array());
    branches.map_or(ANY, |branches| any_of(&mut branches.iter().map(|branch| types_of(whole, branch, depth + 1))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_json_where_the_schema_has_its_type() {
        let check = |schema: Value, texts: &[(&str, bool)]| {
            let tools = json!([{"name": "f", "parameters": {"properties": {"a": schema}, "$defs": {"n": {"type": "integer"}}}}]);
            let types = ArgumentTypes::new(&crate::task::functions(&tools).unwrap());
            for (text, expected) in texts {
                assert_eq!(types.is_json("f", "a", text), *expected, "{tools} {text}");
            }
        };
        check(json!({"type": "string"}), &[("1", false), ("null", false), ("x", false)]);
        check(json!({"enum": ["1", "2"]}), &[("1", false)]);
        check(json!({"type": "integer"}), &[("1", true), ("\"1\"", true), ("one", false)]);
        check(json!({"$ref": "#/$defs/n"}), &[("1", true)]);
        check(json!({"type": ["string", "null"]}), &[("null", true), ("1", false), ("x", false)]);
        check(json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}), &[("null", false), ("1", true)]);
        check(json!({"type": "object"}), &[("{\"a\": 1}", true), ("{a", false)]);
        check(json!({}), &[("1", true), ("\"x\"", false), ("x", false)]);
    }
}
