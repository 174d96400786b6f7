//! Refusals of a body's fields.

use serde_json::{Map, Value as Json};

use super::ApiError;

/// Refuses the first field that is not among `names`.
pub(super) fn known(object: &Map<String, Json>, at: &str, names: &[&str]) -> Result<(), ApiError> {
    match object.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => {
            let name = format!("{at}.{}", shown(name));
            Err(ApiError::invalid(&name, format!("unknown field `{name}`")))
        }
        None => Ok(()),
    }
}

pub(super) fn wrong(name: &str, expected: &str) -> ApiError {
    ApiError::invalid(name, format!("`{name}` is not {expected}"))
}

pub(super) fn unsupported(name: &str) -> ApiError {
    ApiError {
        code: Some("unsupported_parameter"),
        ..ApiError::invalid(name, format!("`{name}` is not supported"))
    }
}

/// Shortens a name from a request for a message.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(60).collect()
}
