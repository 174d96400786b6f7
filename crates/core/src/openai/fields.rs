//! Validation of request fields.

use serde_json::{Map, Value as Json};

use super::ApiError;

/// Rejects the first field not among `names`.
pub(super) fn known(object: &Map<String, Json>, at: &str, names: &[&str]) -> Result<(), ApiError> {
    // Null means absent.
    let is_unknown =
        |(name, value): &(&String, &Json)| !value.is_null() && !names.contains(&name.as_str());
    match object.iter().find(is_unknown) {
        Some((name, _)) => {
            let name = format!("{at}.{}", shown(name));
            Err(ApiError::invalid(&name, format!("unknown field `{name}`")))
        }
        None => Ok(()),
    }
}

pub(super) fn without_nulls(object: &Map<String, Json>) -> Map<String, Json> {
    let mut object = object.clone();
    object.retain(|_, value| !value.is_null());
    object
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

/// Truncates a name from a request for messages.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(60).collect()
}
