//! What a client reads: results of tools, pages of the documentation, files of tasks.

use serde_json::{Value, json};

use super::Server;
use crate::config::reference;
use crate::format::{grouped, shortened};
use crate::score::kinds_page;
use crate::secrets::redact_json;

/// Longest result, in bytes of JSON.
const MAX_RESULT_BYTES: usize = 24_000;
/// Items of a list and characters of a text, of ever shorter forms of a result.
const CUTS: [(usize, usize); 5] = [(200, 4000), (60, 2000), (20, 1000), (8, 400), (1, 80)];

/// A page's name and its text.
type Page = (&'static str, fn() -> String);

/// What an agent needs to make a task and train on it; kinds and configuration are written from the program's tables.
const PAGES: [Page; 6] = [
    ("guide", || {
        include_str!("../../../docs/guide.md").to_owned()
    }),
    ("tasks", || {
        include_str!("../../../docs/tasks.md").to_owned()
    }),
    ("rewards", || {
        include_str!("../../../docs/rewards.md").to_owned()
    }),
    ("kinds", kinds_page),
    ("configuration", reference::markdown),
    ("mcp", || include_str!("../../../docs/mcp.md").to_owned()),
];

/// The result of `tools/call`: secrets masked, and of the same shape but with fewer items and shorter texts if it is long.
pub(super) fn tool_result(result: Result<Value, String>) -> Value {
    let is_error = result.is_err();
    let mut document = result.unwrap_or_else(Value::String);
    redact_json(&mut document);
    let Value::Object(_) = document else {
        return json!({"content": [{"type": "text", "text": document}], "isError": is_error});
    };
    let bytes = document.to_string().len();
    if bytes > MAX_RESULT_BYTES {
        let cuts = CUTS
            .iter()
            .map(|(items, characters)| cut(&document, *items, *characters));
        document = cuts
            .into_iter()
            .find(|cut| cut.to_string().len() < MAX_RESULT_BYTES)
            .unwrap_or_else(|| json!({"items": []}));
        let bytes = grouped(bytes as u64);
        document["cut"] =
            format!("long lists and texts are cut: the whole has {bytes} bytes").into();
    }
    json!({"content": [{"type": "text", "text": document.to_string()}], "structuredContent": document, "isError": false})
}

fn cut(value: &Value, items: usize, characters: usize) -> Value {
    match value {
        Value::String(text) => shortened(text, characters).into(),
        Value::Array(all) => all
            .iter()
            .take(items)
            .map(|item| cut(item, items, characters))
            .collect(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.clone(), cut(value, items, characters)));
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

/// As many lines or characters of a text as a result holds.
pub(super) fn piece(uri: &str, text: &str, offset: usize) -> Value {
    // As JSON, in which a control character takes six bytes.
    let mut left = MAX_RESULT_BYTES - 1000;
    let fits = |character: &char| {
        let bytes = if character.is_control() || "\"\\".contains(*character) {
            6
        } else {
            character.len_utf8()
        };
        left = left.saturating_sub(bytes);
        left > 0
    };
    let shown: String = text.chars().skip(offset).take_while(fits).collect();
    let (end, all) = (offset + shown.chars().count(), text.chars().count());
    json!({"uri": uri, "text": shown, "offset": offset, "total_characters": all, "next_offset": (end < all).then_some(end)})
}

fn media_type(uri: &str) -> &'static str {
    if uri.starts_with("docs://") {
        "text/markdown"
    } else {
        "text/plain"
    }
}

impl Server {
    /// The result of `resources/list`.
    pub(super) fn resources(&self) -> Value {
        let pages = PAGES.iter().map(|(name, _)| format!("docs://{name}"));
        let files = self.workspace.task_names().into_iter().flat_map(|task| {
            let entries = std::fs::read_dir(self.workspace.root().join("tasks").join(&task));
            let files = entries.into_iter().flatten().flatten();
            files.map(move |file| format!("task://{task}/{}", file.file_name().to_string_lossy()))
        });
        let files = files.filter(|uri| self.resource(uri).is_ok());
        let entry = |uri: String| json!({"uri": uri, "name": uri, "mimeType": media_type(&uri)});
        json!({"resources": pages.chain(files).map(entry).collect::<Vec<_>>()})
    }

    /// The result of `resources/read`.
    pub(super) fn read_resource(&self, uri: &str) -> Result<Value, String> {
        let piece = piece(uri, &self.resource(uri)?, 0);
        let mut shown = piece["text"].as_str().unwrap_or_default().to_owned();
        if let Some(next) = piece["next_offset"].as_u64() {
            shown.push_str(&format!(
                "\n… cut: the tool read with offset {next} has the rest\n"
            ));
        }
        Ok(json!({"contents": [{"uri": uri, "mimeType": media_type(uri), "text": shown}]}))
    }

    /// The text behind a URI.
    ///
    /// # Errors
    /// A sentence if there is none, or it may not be read.
    pub(super) fn resource(&self, uri: &str) -> Result<String, String> {
        let file = uri
            .strip_prefix("task://")
            .and_then(|rest| rest.split_once('/'));
        let page = PAGES
            .iter()
            .find(|(name, _)| uri.strip_prefix("docs://") == Some(name));
        match (file, page) {
            (Some((task, file)), _) => self.workspace.task_text(task, file),
            (_, Some((_, text))) => Ok(text()),
            _ => Err(format!(
                "no resource {:?}: resources are those of resources/list",
                shortened(uri, 120)
            )),
        }
    }
}
