//! `builtin = "files"`: an in-memory folder per conversation, without links.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::{Value, json};

use super::calls::{StateQuestion, ToolCall};
use super::error::EnvironmentError;
use super::live_tool::{CallResult, LiveTool, RawReply, one_by_one};
use crate::dataset::PromptRow;
use crate::format::grouped;
use crate::task::{Home, Read, Section};

const MAX_PATH_BYTES: usize = 256;
const MAX_FILES: usize = 1_000;

#[derive(Debug, Clone)]
pub(super) struct FilesRules {
    /// Task files at the start of each conversation.
    pub(super) files: Vec<String>,
    /// Row field with further files, by path.
    field: String,
    /// Limit of all files together.
    max_bytes: usize,
    prefix: String,
}

#[derive(Debug)]
pub(super) struct FilesTool {
    rules: FilesRules,
    files: Arc<Files>,
}

type Files = BTreeMap<String, String>;

#[derive(Debug)]
struct Conversation {
    rules: FilesRules,
    files: Files,
}

impl FilesRules {
    pub(super) fn read(block: &Section<'_>, prefix: &str, home: &Home) -> Read<Self> {
        let files = block
            .quoted_strings("files")?
            .into_iter()
            .map(|file| home.name(file));
        let files = files.collect::<Read<Vec<_>>>()?;
        files
            .iter()
            .try_for_each(|file| home.open(file).map(|_| ()))?;
        Ok(Self {
            files,
            field: block.string("field")?.unwrap_or_else(|| "files".to_owned()),
            max_bytes: (block.whole("max_kib", 1_024, 1..=1 << 16)? << 10) as usize,
            prefix: prefix.to_owned(),
        })
    }

    pub(super) fn definitions(&self) -> Value {
        let function = |name: &str, description: &str, properties: Value, required: &[&str]| {
            let parameters = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
            let name = format!("{}{name}", self.prefix);
            json!({"type": "function", "function": {"name": name, "description": description, "parameters": parameters}})
        };
        let path = json!({"type": "string", "description": "relative, such as notes/a.txt"});
        let line = json!({"type": "integer", "minimum": 1, "description": "where to begin"});
        let content = json!({"type": "string"});
        json!([
            function(
                "list_files",
                "Lists all files with their sizes in bytes.",
                json!({}),
                &[]
            ),
            function(
                "read_file",
                "Returns the text of a file.",
                json!({"path": path, "first_line": line}),
                &["path"]
            ),
            function(
                "write_file",
                "Writes a file, in place of one that is there.",
                json!({"path": path, "content": content}),
                &["path", "content"]
            ),
        ])
    }

    pub(super) fn prepare(&self, tool: &str, home: &Home) -> Result<FilesTool, EnvironmentError> {
        let mut folder = Conversation {
            rules: self.clone(),
            files: Files::new(),
        };
        for file in &self.files {
            let why = folder.write(file, &home.read_text(file)?).err();
            if let Some(why) = why {
                return Err(EnvironmentError::Tool {
                    tool: tool.to_owned(),
                    why: format!("cannot hold {file:?}: {why}"),
                });
            }
        }
        Ok(FilesTool {
            rules: self.clone(),
            files: Arc::new(folder.files),
        })
    }
}

impl FilesTool {
    pub(super) fn open(&self, row: &PromptRow) -> Result<Box<dyn LiveTool>, String> {
        let mut folder = Conversation {
            rules: self.rules.clone(),
            files: Files::clone(&self.files),
        };
        let field = &self.rules.field;
        match &row.fields.value(field) {
            None | Some(Value::Null) => {}
            Some(Value::Object(own)) => {
                for (path, text) in own {
                    let text = text
                        .as_str()
                        .ok_or_else(|| format!("`{field}` has {path:?}, which is not a text"))?;
                    folder
                        .write(path, text)
                        .map_err(|why| format!("`{field}` has {path:?}: {why}"))?;
                }
            }
            Some(_) => return Err(format!("`{field}` is not an object of paths and texts")),
        }
        Ok(Box::new(folder))
    }
}

impl LiveTool for Conversation {
    fn call(&mut self, calls: &[&ToolCall]) -> Vec<RawReply> {
        one_by_one(calls, |call| self.answer(call))
    }

    fn has_state(&self, question: &StateQuestion) -> bool {
        matches!(question, StateQuestion::File(_))
    }

    fn state(&mut self, question: &StateQuestion) -> Result<Value, String> {
        let StateQuestion::File(path) = question else {
            return Err("takes paths of files only".to_owned());
        };
        Ok(self
            .files
            .get(&normal(path)?)
            .map_or(Value::Null, |text| text.as_str().into()))
    }

    fn changes(&self) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        self.files.hash(&mut hasher);
        Some(hasher.finish())
    }
}

impl Conversation {
    fn answer(&mut self, call: &ToolCall) -> CallResult {
        let text = |name: &str| {
            call.arguments
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let answer = match call.name.strip_prefix(self.rules.prefix.as_str()) {
            Some("list_files") => Ok(self.list()),
            Some("read_file") => {
                let first = call
                    .arguments
                    .get("first_line")
                    .and_then(Value::as_u64)
                    .unwrap_or(1);
                self.read(text("path"), usize::try_from(first).unwrap_or(usize::MAX))
            }
            _ => self.write(text("path"), text("content")),
        };
        Ok(answer.unwrap_or_else(|why| format!("error: {why}")))
    }

    fn list(&self) -> String {
        let lines = self
            .files
            .iter()
            .map(|(path, text)| format!("{path} {}", text.len()));
        let list = lines.collect::<Vec<_>>().join("\n");
        if list.is_empty() {
            "no files".to_owned()
        } else {
            list
        }
    }

    fn read(&self, path: &str, first_line: usize) -> Result<String, String> {
        let path = normal(path)?;
        let text = self
            .files
            .get(&path)
            .ok_or_else(|| format!("no file {path:?}"))?;
        let start = text
            .split_inclusive('\n')
            .take(first_line.saturating_sub(1))
            .map(str::len)
            .sum();
        Ok(text[start..].to_owned())
    }

    fn write(&mut self, path: &str, text: &str) -> Result<String, String> {
        let path = normal(path)?;
        let is_below = |path: &str, folder: &str| {
            path.strip_prefix(folder)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        if let Some(other) = self
            .files
            .keys()
            .find(|other| is_below(other, &path) || is_below(&path, other))
        {
            return Err(format!(
                "{path:?} and {other:?} cannot both be: one would be a folder"
            ));
        }
        let others = self.files.iter().filter(|(other, _)| **other != path);
        let (count, bytes) = others.fold((0, 0), |(count, bytes), (_, text)| {
            (count + 1, bytes + text.len())
        });
        if bytes + text.len() > self.rules.max_bytes || count == MAX_FILES {
            let most = grouped(self.rules.max_bytes as u64);
            return Err(format!(
                "the folder is full: it holds {MAX_FILES} files and {most} bytes at most"
            ));
        }
        self.files.insert(path, text.to_owned());
        Ok(format!("{} bytes written", text.len()))
    }
}

fn normal(path: &str) -> Result<String, String> {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if path.starts_with('/') || parts.contains(&"..") {
        return Err("paths are relative and stay in the folder, such as notes/a.txt".to_owned());
    }
    if parts.is_empty()
        || path.ends_with('/')
        || path.len() > MAX_PATH_BYTES
        || path.contains(char::is_control)
    {
        return Err(format!(
            "not the path of a file: it has 1 to {MAX_PATH_BYTES} bytes, such as notes/a.txt"
        ));
    }
    Ok(parts.join("/"))
}
