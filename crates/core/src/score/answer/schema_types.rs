//! Types that a schema allows, for notations in which strings and other values look alike.

use serde_json::Value;

use super::json;
use crate::task::referenced_part;

/// Limit of nested references and branches, and of subschemas per value.
const MAX_DEPTH: usize = 8;
const MAX_PARTS: usize = 64;

/// The subschemas that may apply to a value: one, and those its references and branches lead to.
#[derive(Debug, Clone)]
pub(crate) struct SchemaParts<'s> {
    /// The document of references.
    whole: &'s Value,
    /// Each with whether it applies unconditionally.
    parts: Vec<(&'s Value, bool)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Types {
    pub(crate) string: bool,
    number: bool,
    boolean: bool,
    pub(crate) null: bool,
    pub(crate) object: bool,
    pub(crate) array: bool,
}

const NONE: Types = Types {
    string: false,
    number: false,
    boolean: false,
    null: false,
    object: false,
    array: false,
};
const ANY: Types = Types {
    string: true,
    number: true,
    boolean: true,
    null: true,
    object: true,
    array: true,
};

impl<'s> SchemaParts<'s> {
    pub(crate) fn new(whole: &'s Value, schema: &'s Value) -> Self {
        let mut found = Self {
            whole,
            parts: Vec::new(),
        };
        found.add(schema, true, 0);
        found
    }

    fn add(&mut self, schema: &'s Value, always: bool, depth: usize) {
        if depth > MAX_DEPTH || self.parts.len() == MAX_PARTS {
            return;
        }
        self.parts.push((schema, always));
        let target = schema.get("$ref").and_then(Value::as_str);
        if let Some(target) = target.and_then(|target| referenced_part(self.whole, target)) {
            self.add(target, always, depth + 1);
        }
        for (key, always) in [("allOf", always), ("anyOf", false), ("oneOf", false)] {
            let branches = schema.get(key).and_then(Value::as_array);
            branches
                .into_iter()
                .flatten()
                .for_each(|branch| self.add(branch, always, depth + 1));
        }
        ["then", "else"]
            .iter()
            .filter_map(|key| schema.get(key))
            .for_each(|branch| self.add(branch, false, depth + 1));
    }

    /// Types that a value may have; all if unspecified.
    pub(crate) fn types(&self) -> Types {
        self.parts
            .iter()
            .filter_map(|(schema, _)| own_types(schema))
            .reduce(Types::or)
            .unwrap_or(ANY)
    }

    pub(crate) fn member(&self, name: &str) -> Self {
        self.inner(|schema| {
            let own = schema
                .get("properties")
                .and_then(|properties| properties.get(name));
            own.or_else(|| schema.get("additionalProperties"))
                .into_iter()
                .collect()
        })
    }

    fn inner(&self, schemas: impl Fn(&'s Value) -> Vec<&'s Value>) -> Self {
        let mut found = Self {
            whole: self.whole,
            parts: Vec::new(),
        };
        for (schema, always) in &self.parts {
            schemas(schema)
                .into_iter()
                .for_each(|inner| found.add(inner, *always, 0));
        }
        found
    }

    /// Names of the properties, in order.
    pub(crate) fn properties(&self) -> Vec<&'s str> {
        let mut names = Vec::new();
        let members = self
            .parts
            .iter()
            .filter_map(|(schema, _)| schema.get("properties")?.as_object());
        for name in members.flat_map(|members| members.keys()) {
            if !names.contains(&name.as_str()) {
                names.push(name.as_str());
            }
        }
        names
    }

    /// Values of `enum` and `const`; empty if others are allowed.
    pub(crate) fn listed(&self) -> Vec<&'s Value> {
        let mut found = Vec::new();
        for (schema, _) in &self.parts {
            found.extend(schema.get("const"));
            found.extend(
                schema
                    .get("enum")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten(),
            );
        }
        found
    }

    pub(crate) fn required(&self) -> impl Iterator<Item = &'s str> {
        let always = self.parts.iter().filter(|(_, always)| *always);
        always
            .filter_map(|(schema, _)| schema.get("required")?.as_array())
            .flatten()
            .filter_map(Value::as_str)
    }
}

impl Types {
    /// Allows lists only.
    pub(crate) const LIST: Self = Self {
        array: true,
        ..NONE
    };
    const STRING: Self = Self {
        string: true,
        ..NONE
    };

    pub(crate) fn is_number_only(self) -> bool {
        self.number && !self.string && !self.boolean
    }

    pub(crate) fn is_boolean_only(self) -> bool {
        self.boolean && !self.string && !self.number
    }

    fn named(name: &str) -> Self {
        match name {
            "string" => Self::STRING,
            "number" | "integer" => Self {
                number: true,
                ..NONE
            },
            "boolean" => Self {
                boolean: true,
                ..NONE
            },
            "null" => Self { null: true, ..NONE },
            "object" => Self {
                object: true,
                ..NONE
            },
            "array" => Self::LIST,
            _ => NONE,
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

    fn has(self, value: &json::Value<'_>) -> bool {
        let found = Self::named(value.type_name());
        !found.string && self.or(found) == self
    }

    /// Whether text should be parsed as JSON for this schema: if it is JSON of an allowed type, or
    /// strings are not allowed.
    pub(crate) fn is_json(self, text: &str) -> bool {
        let parsed = || {
            json::parse(text, 0)
                .ok()
                .map(|document| self.has(&document.root))
        };
        self != Self::STRING && parsed().is_some_and(|is_of_type| is_of_type || !self.string)
    }
}

fn own_types(schema: &Value) -> Option<Types> {
    let any_of = |types: &mut dyn Iterator<Item = Types>| types.reduce(Types::or);
    if let Some(value) = schema.get("const") {
        return Some(Types::of_value(value));
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return any_of(&mut values.iter().map(Types::of_value));
    }
    match schema.get("type")? {
        Value::String(name) => Some(Types::named(name)),
        Value::Array(names) => {
            any_of(&mut names.iter().filter_map(Value::as_str).map(Types::named))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_json_where_the_schema_has_its_type() {
        let check = |schema: Value, texts: &[(&str, bool)]| {
            let whole = json!({"properties": {"a": schema}, "$defs": {"n": {"type": "integer"}}});
            let types = SchemaParts::new(&whole, &whole).member("a").types();
            for (text, expected) in texts {
                assert_eq!(types.is_json(text), *expected, "{whole} {text}");
            }
        };
        check(
            json!({"type": "string"}),
            &[("1", false), ("null", false), ("x", false)],
        );
        check(json!({"enum": ["1", "2"]}), &[("1", false)]);
        check(
            json!({"type": "integer"}),
            &[("1", true), ("\"1\"", true), ("one", false)],
        );
        check(json!({"$ref": "#/$defs/n"}), &[("1", true)]);
        check(
            json!({"type": ["string", "null"]}),
            &[("null", true), ("1", false), ("x", false)],
        );
        check(
            json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}),
            &[("null", false), ("1", true)],
        );
        check(
            json!({"allOf": [{"type": "string"}, {"minLength": 1}]}),
            &[("1", false)],
        );
        check(
            json!({"type": "object"}),
            &[("{\"a\": 1}", true), ("{a", false)],
        );
        check(json!({}), &[("1", true), ("\"x\"", false), ("x", false)]);
    }

    #[test]
    fn members_are_found_behind_references_and_branches() {
        let whole = json!({
            "allOf": [{"$ref": "#/$defs/base"}],
            "oneOf": [{"properties": {"b": {"type": "null"}}, "required": ["b"]}],
            "additionalProperties": {"type": "boolean"},
            "$defs": {"base": {"properties": {"a": {"type": "array", "items": {"type": "integer"}}}, "required": ["a"]}},
        });
        let parts = SchemaParts::new(&whole, &whole);
        assert_eq!(parts.required().collect::<Vec<_>>(), ["a"]);
        assert_eq!(
            parts.member("a").types(),
            Types {
                boolean: true,
                ..Types::LIST
            }
        );
        assert_eq!(
            parts.member("b").types(),
            Types {
                null: true,
                boolean: true,
                ..NONE
            }
        );
        // A recursive schema terminates.
        let endless = json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}], "type": "string"});
        assert_eq!(SchemaParts::new(&endless, &endless).types(), Types::STRING);
    }
}
