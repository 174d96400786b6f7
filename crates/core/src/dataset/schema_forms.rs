//! A JSON Schema inside the definition of a tool or of a response format, as the APIs of OpenAI and
//! Anthropic and the Model Context Protocol write them.

use serde_json::Value;

/// A schema and the name of what it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct InnerSchema {
    pub(super) schema: Value,
    pub(super) of: String,
}

/// The schema that a definition holds; `None` if the value is a schema itself.
///
/// # Errors
/// Several definitions, or one without a schema.
pub(super) fn inner_schema(value: &Value) -> Result<Option<InnerSchema>, String> {
    let listed = value
        .get("tools")
        .and_then(Value::as_array)
        .or(value.as_array());
    if let Some(definitions) = listed {
        return match definitions.as_slice() {
            [one] => inner_schema(one),
            several => Err(format!(
                "holds {} definitions: write one of them to a file of its own, or make a task of `kind = \"tool_calls\"` with all",
                several.len()
            )),
        };
    }
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let kind = text(value, "type").unwrap_or_default();
    let (holder, key, what) = match kind.as_str() {
        "function" if value.get("function").is_some() => {
            (value.get("function"), "parameters", "function")
        }
        "function" => (Some(value), "parameters", "function"),
        "json_schema" if value.get("json_schema").is_some() => {
            (value.get("json_schema"), "schema", "response format")
        }
        "json_schema" => (Some(value), "schema", "response format"),
        _ if value.get("response_format").is_some() => {
            return inner_schema(&value["response_format"]);
        }
        _ if text(value, "name").is_some() => {
            let keys = ["input_schema", "inputSchema", "parameters", "schema"];
            let key = keys
                .into_iter()
                .find(|key| value.get(key).is_some_and(Value::is_object));
            match key {
                Some(key) => (Some(value), key, "tool"),
                None => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    let holder = holder.unwrap_or(value);
    let name = text(holder, "name").map_or_else(String::new, |name| format!(" `{name}`"));
    match holder.get(key) {
        Some(schema) if schema.is_object() => Ok(Some(InnerSchema {
            schema: schema.clone(),
            of: format!("the {what}{name}"),
        })),
        _ => Err(format!(
            "the {what}{name} has no `{key}`: add the JSON Schema of its answers"
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemas_are_found_in_the_forms_of_apis() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        for (form, of) in [
            (
                json!({"type": "function", "function": {"name": "f", "strict": true, "parameters": schema}}),
                "the function `f`",
            ),
            (
                json!({"type": "function", "name": "f", "parameters": schema}),
                "the function `f`",
            ),
            (
                json!({"type": "json_schema", "json_schema": {"name": "r", "schema": schema}}),
                "the response format `r`",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "r", "schema": schema}}}),
                "the response format `r`",
            ),
            (
                json!({"type": "json_schema", "name": "r", "schema": schema}),
                "the response format `r`",
            ),
            (
                json!({"name": "t", "description": "d", "input_schema": schema}),
                "the tool `t`",
            ),
            (json!({"name": "t", "inputSchema": schema}), "the tool `t`"),
            (json!({"name": "t", "parameters": schema}), "the tool `t`"),
            (
                json!({"tools": [{"name": "t", "input_schema": schema}]}),
                "the tool `t`",
            ),
            (
                json!([{"name": "t", "input_schema": schema}]),
                "the tool `t`",
            ),
        ] {
            let found = inner_schema(&form).unwrap().unwrap();
            assert_eq!((&found.schema, found.of.as_str()), (&schema, of), "{form}");
        }
        for own in [
            schema.clone(),
            json!(true),
            json!({"properties": {"name": {"type": "string"}, "schema": {}}}),
        ] {
            assert_eq!(inner_schema(&own), Ok(None), "{own}");
        }
        let none = json!({"type": "function", "function": {"name": "f"}});
        assert_eq!(
            inner_schema(&none).unwrap_err(),
            "the function `f` has no `parameters`: add the JSON Schema of its answers"
        );
        let two =
            json!([{"name": "a", "input_schema": schema}, {"name": "b", "input_schema": schema}]);
        assert!(
            inner_schema(&two)
                .unwrap_err()
                .starts_with("holds 2 definitions")
        );
    }
}
