//! JSON files beside a tokenizer.

use serde_json::Value as Json;

use super::TextError;
use crate::hub::ModelSource;

/// Null if the file is missing.
pub(super) fn optional_json(source: &ModelSource, file: &str) -> Result<Json, TextError> {
    if source.exists(file) {
        json(source.read_text(file)?.as_bytes(), &source.label(file))
    } else {
        Ok(Json::Null)
    }
}

pub(super) fn json(bytes: &[u8], path: &str) -> Result<Json, TextError> {
    serde_json::from_slice(bytes).map_err(|error| TextError::Tokenizer {
        path: path.to_owned(),
        problem: format!("not valid JSON ({error}); fetch the model again"),
    })
}
