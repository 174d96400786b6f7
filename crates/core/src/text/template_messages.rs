//! Messages as chat templates see them.

use minijinja::Value;
use serde_json::Value as Json;

use super::{Message, python_json};

pub(super) fn message_value(message: &Message) -> Value {
    let Message {
        role,
        content,
        other,
        field_order,
    } = message;
    let written = |name: &str| field_order.iter().position(|field| field == name);
    let texts = [("role", role), ("content", content)]
        .into_iter()
        .filter(|(name, text)| {
            field_order.is_empty() || !text.is_empty() || written(name).is_some()
        })
        .map(|(name, text)| (name, Value::from(text.as_str())));
    let other = other
        .iter()
        .map(|(name, value)| (name.as_str(), python_json::value_of(value)));
    let mut fields: Vec<(&str, Value)> = texts.chain(other).collect();
    // Fields added later are last.
    fields.sort_by_key(|(name, _)| written(name).unwrap_or(field_order.len()));
    from_fields(fields.into_iter())
}

/// JSON messages as the template sees them.
pub(super) fn json_messages(messages: &Json) -> Value {
    let message = |message: &Json| match message {
        Json::Object(fields) => from_fields(
            fields
                .iter()
                .map(|(key, value)| (key.as_str(), python_json::value_of(value))),
        ),
        other => python_json::value_of(other),
    };
    messages.as_array().map_or_else(
        || python_json::value_of(messages),
        |messages| messages.iter().map(message).collect(),
    )
}

/// Drops null fields and sets reasoning under both names that templates read: `reasoning_content`
/// and gpt-oss's `thinking`. As in transformers 5.24.
fn from_fields<'f>(fields: impl Iterator<Item = (&'f str, Value)>) -> Value {
    let mut fields: Vec<(&str, Value)> = fields.filter(|(_, value)| !value.is_none()).collect();
    let field = |name: &str| {
        fields
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.clone())
    };
    if let Some(reasoning) = ["reasoning_content", "thinking", "reasoning"]
        .into_iter()
        .find_map(field)
    {
        if field("thinking").is_none() {
            fields.insert(0, ("thinking", reasoning.clone()));
        }
        fields.retain(|(key, _)| *key != "reasoning_content");
        fields.push(("reasoning_content", reasoning));
    }
    Value::from_pairs(fields)
}
