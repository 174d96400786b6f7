//! A question to a program, and its cache key.

use sha2::{Digest, Sha256};

use crate::dataset::PromptRow;
use crate::exact_json;

pub(super) type Key = [u8; 16];

#[derive(Debug)]
pub(super) struct Question<'r> {
    /// `"completion": ..., "row": ...` as JSON, without braces.
    pub(super) json: String,
    pub(super) completion: String,
    pub(super) row: String,
    /// The row's, if text.
    pub(super) expected: Option<&'r str>,
    pub(super) prompt_row: Option<&'r PromptRow>,
}

impl<'r> Question<'r> {
    /// Adds what is known of sampling: token ids, and [`Self::trainer_state`] for functions that ask
    /// for it.
    pub(super) fn sampled(mut self, token_ids: &[u32], state: Option<&str>) -> Self {
        if !token_ids.is_empty() {
            let ids: Vec<String> = token_ids.iter().map(u32::to_string).collect();
            self.json += &format!(",\"completion_ids\":[{}]", ids.join(","));
        }
        self.json.extend(state);
        self
    }

    /// As TRL's: `global_step` steps of `max_steps` are taken.
    pub(super) fn trainer_state(step: u64, max_steps: u64) -> String {
        format!(",\"trainer_state\":{{\"global_step\":{step},\"max_steps\":{max_steps}}}")
    }

    pub(super) fn new(answer: &str, row: Option<&'r PromptRow>) -> Self {
        let expected = row
            .and_then(|row| row.expected.as_ref())
            .and_then(serde_json::Value::as_str);
        let row_json = match row {
            None => "null".to_owned(),
            Some(row) if row.fields.is_empty() => {
                exact_json::write(&serde_json::json!({"id": row.id, "expected": row.expected}))
            }
            Some(row) => row.fields.text().to_owned(),
        };
        let completion = serde_json::to_string(answer).unwrap_or_default();
        Self {
            json: format!("\"completion\":{completion},\"row\":{row_json}"),
            completion: answer.to_owned(),
            row: row_json,
            expected,
            prompt_row: row,
        }
    }

    pub(super) fn key(&self) -> Key {
        let digest = Sha256::digest(self.json.as_bytes());
        let mut key = Key::default();
        key.copy_from_slice(&digest[..16]);
        key
    }
}
