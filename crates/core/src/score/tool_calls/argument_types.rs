//! What the schema of an argument says of its JSON type, for formats that write a string and other values alike.

use serde_json::Value;

use super::super::schema_types::SchemaParts;
use crate::task::Function;

/// The schemas of the parameters, by function.
#[derive(Debug, Clone, Default)]
pub(super) struct ArgumentTypes(Vec<(String, Value)>);

impl ArgumentTypes {
    pub(super) fn new(functions: &[Function<'_>]) -> Self {
        let schema = |function: &Function<'_>| {
            (
                function.name.to_owned(),
                function.parameters.cloned().unwrap_or_default(),
            )
        };
        Self(functions.iter().map(schema).collect())
    }

    /// Whether the text of an argument is the JSON that it spells, and not a string.
    pub(super) fn is_json(&self, function: &str, argument: &str, text: &str) -> bool {
        let known = self.0.iter().find(|(name, _)| name == function);
        let schema =
            known.and_then(|(_, whole)| Some((whole, whole.get("properties")?.get(argument)?)));
        let (whole, schema) = schema.unwrap_or((&Value::Null, &Value::Null));
        SchemaParts::new(whole, schema).types().is_json(text)
    }
}
