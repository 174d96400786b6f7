//! Results of tools: structured and as text, cut to a size that a model reads, with the whole kept for `read`.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::Server;
use crate::format::grouped;
use crate::secrets::redact_json;

/// Longest result, in bytes of JSON.
pub(super) const MAX_RESULT_BYTES: usize = 24_000;
/// Cut results whose whole is kept, and the bytes of each.
const MAX_WHOLE_RESULTS: usize = 16;
const MAX_WHOLE_BYTES: usize = 8 << 20;
/// Items of a list and characters of a text, of ever shorter forms of a result.
const CUTS: [(usize, usize); 6] = [
    (200, 4000),
    (60, 2000),
    (20, 1000),
    (8, 400),
    (3, 200),
    (1, 80),
];

/// The latest results that were cut, with their numbers.
#[derive(Default)]
pub(super) struct WholeResults(Mutex<(u64, VecDeque<(u64, String)>)>);

impl WholeResults {
    fn keep(&self, mut text: String) -> u64 {
        text.truncate(text.floor_char_boundary(MAX_WHOLE_BYTES));
        let mut kept = self.0.lock();
        kept.0 += 1;
        let number = kept.0;
        kept.1.push_back((number, text));
        if kept.1.len() > MAX_WHOLE_RESULTS {
            kept.1.pop_front();
        }
        number
    }

    pub(super) fn find(&self, number: u64) -> Option<String> {
        let kept = self.0.lock();
        let found = kept.1.iter().find(|(other, _)| *other == number);
        found.map(|(_, text)| text.clone())
    }
}

/// The result of `tools/call`. Secrets are masked.
pub(super) fn tool_result(server: &Server, result: Result<Value, String>) -> Value {
    match result {
        Err(why) => {
            let mut text = Value::String(why);
            redact_json(&mut text);
            json!({"content": [{"type": "text", "text": text}], "isError": true})
        }
        Ok(mut document) => {
            redact_json(&mut document);
            let document = bounded(server, document);
            json!({"content": [{"type": "text", "text": document.to_string()}], "structuredContent": document, "isError": false})
        }
    }
}

/// The document if it is short, else the longest of its cut forms that is.
fn bounded(server: &Server, document: Value) -> Value {
    let text = document.to_string();
    if text.len() <= MAX_RESULT_BYTES {
        return document;
    }
    let (whole_bytes, number) = (text.len(), server.whole_results.keep(text));
    let note = format!(
        "long lists and texts are cut: this is part of {} bytes; read result://{number} has all",
        grouped(whole_bytes as u64)
    );
    let cut = CUTS
        .iter()
        .map(|(items, characters)| cut(&document, *items, *characters))
        .find(|cut| cut.to_string().len() <= MAX_RESULT_BYTES);
    let mut fields = match cut {
        Some(Value::Object(fields)) => fields,
        Some(other) => Map::from_iter([("result".to_owned(), other)]),
        None => Map::new(),
    };
    fields.insert("cut".to_owned(), note.into());
    Value::Object(fields)
}

fn cut(value: &Value, items: usize, characters: usize) -> Value {
    match value {
        Value::String(text) if text.chars().count() > characters => {
            let start: String = text.chars().take(characters).collect();
            let left = text.chars().count() - characters;
            format!("{start}… ({left} more characters)").into()
        }
        Value::Array(all) => {
            let mut shown: Vec<Value> = all
                .iter()
                .take(items)
                .map(|item| cut(item, items, characters))
                .collect();
            if all.len() > items {
                shown.push(format!("… ({} more)", all.len() - items).into());
            }
            shown.into()
        }
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), cut(value, items, characters)))
            .collect(),
        other => other.clone(),
    }
}

/// A piece of a text that a result holds whole.
pub(super) fn piece(uri: &str, text: &str, offset: usize) -> Result<Value, String> {
    let all = text.chars().count();
    if offset > 0 && offset >= all {
        return Err(format!(
            "{uri} has {} characters: offset {offset} is beyond them",
            grouped(all as u64)
        ));
    }
    let (mut shown, mut bytes) = (String::new(), 0);
    for character in text.chars().skip(offset) {
        // As JSON, which escapes.
        bytes += match character {
            '"' | '\\' | '\n' | '\r' | '\t' => 2,
            other if other.is_control() => 6,
            other => other.len_utf8(),
        };
        if bytes > MAX_RESULT_BYTES - 1000 {
            break;
        }
        shown.push(character);
    }
    let end = offset + shown.chars().count();
    let mut document =
        json!({"uri": uri, "text": shown, "offset": offset, "total_characters": all});
    if end < all {
        document["next_offset"] = end.into();
    }
    Ok(document)
}
