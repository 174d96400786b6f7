//! Callable functions with compiled parameter schemas.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::syntax::ArgumentTypes;
use crate::format::did_you_mean;
use crate::score::error::ScoreError;
use crate::score::kinds::json_schema::budget::Budget;
use crate::score::kinds::json_schema::schema::Schema;
use crate::score::kinds::json_schema::schema_faults::Written;
use crate::task::functions;

#[derive(Debug)]
pub(super) struct Tools {
    functions: Vec<Function>,
    types: ArgumentTypes,
}

#[derive(Debug)]
pub(super) struct Function {
    name: String,
    pub(super) schema: Schema,
    /// JSON pointer to the schema within the list of tools.
    pub(super) pointer: String,
    pub(super) has_required: bool,
}

/// Keywords that may name arguments outside `properties`.
const COMBINING: [&str; 9] = [
    "$ref",
    "$dynamicRef",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "dependentSchemas",
    "then",
    "else",
];

impl Tools {
    pub(super) fn compile(
        label: &str,
        text: &str,
        tools: &Value,
        assert_formats: bool,
    ) -> Result<Self, ScoreError> {
        let written = Written {
            label,
            text,
            pointer: "",
        };
        let listed =
            functions(tools).map_err(|error| written.error(&error.pointer, error.message))?;
        let compile = |function: &crate::task::Function<'_>| {
            let pointer = format!("{}/parameters", function.pointer());
            let schema = closed_parameters(function.parameters.unwrap_or(&json!({})));
            let required = schema.get("required").and_then(Value::as_array);
            Ok(Function {
                has_required: required.is_some_and(|names| !names.is_empty()),
                name: function.name.to_owned(),
                schema: Schema::compile_part(
                    Written {
                        pointer: &pointer,
                        ..written
                    },
                    schema,
                    assert_formats,
                )?,
                pointer,
            })
        };
        let mut functions: Vec<Function> = listed
            .iter()
            .map(compile)
            .collect::<Result<_, ScoreError>>()?;
        functions.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(Self {
            functions,
            types: ArgumentTypes::new(&listed),
        })
    }

    pub(super) fn function(&self, name: &str) -> Option<&Function> {
        let found = self
            .functions
            .binary_search_by(|function| function.name.as_str().cmp(name))
            .ok()?;
        self.functions.get(found)
    }

    pub(super) fn types(&self) -> &ArgumentTypes {
        &self.types
    }

    pub(super) fn len(&self) -> usize {
        self.functions.len()
    }

    pub(super) fn budget(&self, bytes: usize) -> Budget {
        let of_each = self
            .functions
            .iter()
            .map(|function| function.schema.budget(bytes));
        of_each
            .max_by_key(|budget| budget.steps)
            .unwrap_or_default()
    }

    /// The known names, or the nearest one.
    pub(super) fn advice(&self, name: &str) -> String {
        let names = || self.functions.iter().map(|function| function.name.as_str());
        match did_you_mean(name, names()) {
            near if !near.is_empty() => near,
            _ if self.functions.is_empty() => "; there are none".to_owned(),
            _ => {
                let some: Vec<&str> = names().take(10).collect();
                let more = if self.len() > some.len() { ", …" } else { "" };
                format!("; they are {}{more}", some.join(", "))
            }
        }
    }
}

/// Forbids keys that a schema does not name, unless it allows them explicitly.
pub fn closed_parameters(parameters: &Value) -> Value {
    let mut schema = parameters.clone();
    let Some(keywords) = schema.as_object_mut() else {
        return schema;
    };
    let says = |key: &str| parameters.get(key).is_some();
    if !says("additionalProperties") && !says("unevaluatedProperties") && !says("patternProperties")
    {
        let key = if COMBINING.into_iter().any(says) {
            "unevaluatedProperties"
        } else {
            "additionalProperties"
        };
        keywords.insert(key.to_owned(), Value::Bool(false));
        // Without `properties` the validator does not name the unknown key.
        keywords.entry("properties").or_insert_with(|| json!({}));
    }
    schema
}

/// Cache size; a group's completions use the same functions.
const MAX_FUNCTIONS: usize = 1_000;

type Compiled = Result<Arc<Tools>, String>;

#[derive(Debug)]
pub(super) struct OwnTools {
    assert_formats: bool,
    kept: Mutex<CacheEntry>,
}

#[derive(Debug, Default)]
struct CacheEntry {
    by_content: HashMap<Value, Compiled>,
    functions: usize,
}

impl OwnTools {
    pub(super) fn new(assert_formats: bool) -> Self {
        Self {
            assert_formats,
            kept: Mutex::default(),
        }
    }

    /// # Errors
    /// A sentence with a JSON pointer.
    pub(super) fn compiled(&self, tools: &Value) -> Compiled {
        let lock = || self.kept.lock();
        if let Some(known) = lock().by_content.get(tools) {
            return known.clone();
        }
        // Outside the lock, so that other threads continue.
        let compiled = Tools::compile("", "", tools, self.assert_formats)
            .map(Arc::new)
            .map_err(|error| match error {
                ScoreError::Schema {
                    pointer, message, ..
                } => format!("`tools`{pointer} of the row: {message}"),
                other => format!("`tools` of the row: {other}"),
            });
        let mut kept = lock();
        let functions = compiled.as_ref().map_or(1, |tools| tools.len().max(1));
        if kept.functions + functions > MAX_FUNCTIONS {
            *kept = CacheEntry::default();
        }
        kept.functions += functions;
        kept.by_content.insert(tools.clone(), compiled.clone());
        compiled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_keys_than_the_named_are_refused_unless_the_schema_speaks_of_them() {
        for (parameters, added) in [
            (json!({}), Some("additionalProperties")),
            (
                json!({"type": "object", "properties": {"a": {}}}),
                Some("additionalProperties"),
            ),
            (
                json!({"anyOf": [{"required": ["a"]}], "properties": {"a": {}}}),
                Some("unevaluatedProperties"),
            ),
            (json!({"additionalProperties": true}), None),
            (json!({"additionalProperties": {"type": "string"}}), None),
            (json!({"patternProperties": {"^x-": {}}}), None),
            (json!({"unevaluatedProperties": true}), None),
        ] {
            let mut expected = parameters.clone();
            if let Some(key) = added {
                expected[key] = json!(false);
                expected["properties"] = parameters.get("properties").cloned().unwrap_or(json!({}));
            }
            assert_eq!(closed_parameters(&parameters), expected);
        }
    }

    #[test]
    fn malformed_tools_are_named_with_their_place() {
        let check = |text: &str, expected: &str| {
            let tools = serde_json::from_str(text).unwrap();
            let error = Tools::compile("tools.json", text, &tools, false)
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(expected),
                "{error:?} instead of {expected:?}"
            );
        };
        check(
            "{}",
            "tools.json line 1 column 1 (the whole schema): tools are a list, not {}",
        );
        check(
            "[\n  {\"name\": \"f\"},\n  {\"name\": \"f\"}\n]",
            "tools.json line 3 column 12 (/1/name): \"f\" occurs twice: give each function its own name",
        );
        check(
            "[{\"name\": \"f\", \"parameters\": {\"type\": \"object\",\n \"properties\": {\"a\": {\"type\": \"text\"}}}}]",
            "tools.json line 2 column 31 (/0/parameters/properties/a/type): \"text\" is not a type",
        );
        check(
            "[{\"function\": {\"name\": \"f\", \"parameters\":\n {\"properties\": {\"a\": {\"$ref\": \"#/$defs/x\"}}}}}]",
            "tools.json line 2 column",
        );
        check(
            "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"a\": {\"$ref\": \"https://example.com/x.json\"}}}}]",
            "tools.json line 1 column 60 (/0/parameters/properties/a/$ref): remote `$ref`",
        );
        check(
            "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"a\": {\"pattern\": \"(\"}}}}]",
            "tools.json line 1 column 63 (/0/parameters/properties/a/pattern): \"(\" is not a valid regular expression",
        );
    }

    #[test]
    fn tools_of_one_content_are_compiled_once_and_few_are_kept() {
        let own = OwnTools::new(false);
        let tools = |number: usize| json!([{"name": format!("f{number}")}, {"name": "g"}]);
        let first = own.compiled(&tools(0)).unwrap();
        assert!(Arc::ptr_eq(&first, &own.compiled(&tools(0)).unwrap()));
        for number in 1..=MAX_FUNCTIONS {
            own.compiled(&tools(number)).unwrap();
            let kept = own.kept.lock();
            assert!(kept.functions <= MAX_FUNCTIONS && kept.by_content.len() <= MAX_FUNCTIONS / 2);
        }
        assert!(!Arc::ptr_eq(&first, &own.compiled(&tools(0)).unwrap()));
        assert_eq!(
            own.compiled(&json!([{"name": "f", "parameters": {"type": "text"}}]))
                .unwrap_err(),
            "`tools`/0/parameters/type of the row: \"text\" is not a type; the types are array, boolean, integer, null, number, object and string"
        );
    }
}
