//! Resources: pages of the documentation, files of tasks, whole results.

use serde_json::{Value, json};

use super::Server;
use super::results::{MAX_RESULT_BYTES, piece};
use crate::config::reference;
use crate::score::kinds_page;

/// Resources on a page of `resources/list`.
const PAGE: usize = 100;

struct Page {
    name: &'static str,
    about: &'static str,
    text: fn() -> String,
}

/// What an agent needs to make a task and train on it; kinds and configuration are written from the program's tables.
const PAGES: [Page; 6] = [
    Page {
        name: "guide",
        about: "Tutorial from a CSV file to a trained model, and what to do if",
        text: || include_str!("../../../docs/guide.md").to_owned(),
    },
    Page {
        name: "tasks",
        about: "task.toml, prompt rows, schemas",
        text: || include_str!("../../../docs/tasks.md").to_owned(),
    },
    Page {
        name: "rewards",
        about: "Parts of a reward, and how rewards are checked",
        text: || include_str!("../../../docs/rewards.md").to_owned(),
    },
    Page {
        name: "kinds",
        about: "Kinds of scorer with their keys",
        text: kinds_page,
    },
    Page {
        name: "configuration",
        about: "Configuration keys of a run",
        text: reference::markdown,
    },
    Page {
        name: "mcp",
        about: "This server: tools, budget, what is refused",
        text: || include_str!("../../../docs/mcp.md").to_owned(),
    },
];

pub(super) fn templates() -> Value {
    let template = |uri: &str, name: &str, about: &str| json!({"uriTemplate": uri, "name": name, "description": about, "mimeType": "text/plain"});
    json!({"resourceTemplates": [
        template("task://{task}/{file}", "task file", "A file of a task, but its test set"),
        template("result://{number}", "whole result", "The whole of a result that was cut"),
    ]})
}

impl Server {
    /// The result of `resources/list`.
    pub(super) fn resources(&self, cursor: Option<&str>) -> Result<Value, String> {
        let start = cursor.map_or(Ok(0), str::parse::<usize>);
        let start = start.map_err(|_| "unknown cursor".to_owned())?;
        let pages = PAGES.iter().map(|page| {
            json!({"uri": format!("docs://{}", page.name), "name": page.name, "description": page.about, "mimeType": "text/markdown"})
        });
        let mut all: Vec<Value> = pages.collect();
        for name in self.workspace.task_names() {
            let folder = self.workspace.root().join("tasks").join(&name);
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let mut files: Vec<String> = entries
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|file| {
                    let path = format!("tasks/{name}/{file}");
                    !file.starts_with('.') && self.workspace.file("file", &path).is_ok()
                })
                .collect();
            files.sort();
            all.extend(files.iter().map(|file| {
                json!({"uri": format!("task://{name}/{file}"), "name": format!("{name}/{file}"), "mimeType": "text/plain"})
            }));
        }
        let shown: Vec<&Value> = all.iter().skip(start).take(PAGE).collect();
        let mut result = json!({"resources": shown});
        if start + PAGE < all.len() {
            result["nextCursor"] = (start + PAGE).to_string().into();
        }
        Ok(result)
    }

    /// The result of `resources/read`.
    pub(super) fn read_resource(&self, uri: &str) -> Result<Value, String> {
        let text = self.resource(uri).and_then(|text| piece(uri, &text, 0))?;
        let mut shown = text["text"].as_str().unwrap_or_default().to_owned();
        if let Some(next) = text.get("next_offset") {
            shown.push_str(&format!(
                "\n… cut at {MAX_RESULT_BYTES} bytes: the tool read with offset {next} has the rest\n"
            ));
        }
        Ok(json!({"contents": [{"uri": uri, "mimeType": "text/plain", "text": shown}]}))
    }

    /// The text behind a URI.
    ///
    /// # Errors
    /// A sentence if there is none, or it may not be read.
    pub(super) fn resource(&self, uri: &str) -> Result<String, String> {
        let unknown = || {
            let uri = crate::format::shortened(uri, 120);
            format!(
                "no resource {uri:?}: resources are docs://PAGE, task://TASK/FILE and result://N"
            )
        };
        let (scheme, rest) = uri.split_once("://").ok_or_else(unknown)?;
        match scheme {
            "docs" => {
                let page = PAGES.iter().find(|page| page.name == rest);
                page.map(|page| (page.text)()).ok_or_else(|| {
                    let names: Vec<&str> = PAGES.iter().map(|page| page.name).collect();
                    format!("no page {rest:?}: {}", names.join(", "))
                })
            }
            "result" => {
                let number = rest.parse().ok();
                number
                    .and_then(|number| self.whole_results.find(number))
                    .ok_or_else(|| format!("{uri} is not kept any more: call the tool again"))
            }
            "task" => {
                let (task, file) = rest.split_once('/').ok_or_else(unknown)?;
                let named = self.workspace.task(task)?;
                let Some(folder) = named.task.folder() else {
                    if named.task.set_file(crate::task::PromptSet::Test) == Some(file) {
                        return Err(format!("{uri} is the test set, which is not read"));
                    }
                    let bytes = named.task.read(file).map_err(|error| error.to_string())?;
                    return Ok(String::from_utf8_lossy(&bytes).into_owned());
                };
                let path = folder.join(file);
                let path = path.strip_prefix(self.workspace.root()).unwrap_or(&path);
                let path = self
                    .workspace
                    .file("file", path.to_str().unwrap_or_default())?;
                let bytes = crate::files::read_at_most(&path, 64 << 20);
                let bytes = bytes.map_err(|error| format!("{uri}: {error}"))?;
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => Err(unknown()),
        }
    }
}
