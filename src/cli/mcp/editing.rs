//! Tools that create and change tasks.

use serde_json::json;

use super::Server;
use super::actions::{Result, Words};
use super::call::{Arguments, Call};
use super::workspace::NamedTask;
use crate::files::{Access, ensure_folder, replace_file};
use crate::score::{Scorer, Task, Trust};
use crate::task::{PromptSet, TASK_FILE};

pub(super) fn task_new(server: &Server, call: &Call, arguments: &Arguments) -> Result {
    let name = arguments.required("name");
    let is_name = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    if !name.chars().all(is_name) || name.is_empty() || name.starts_with('-') || name.len() > 64 {
        return Err(format!(
            "name {:?}: use up to 64 letters, digits, - and _",
            crate::format::shortened(name, 80)
        ));
    }
    let tasks = server.workspace.path("name", &format!("tasks/{name}"))?;
    let file = |argument| {
        let text = arguments.text(argument);
        text.map(|text| server.workspace.file(argument, text))
            .transpose()
    };
    let (data, schema, examples) = (file("data")?, file("schema")?, file("examples")?);
    let shown = |path: Option<std::path::PathBuf>| path.map(|path| path.display().to_string());
    if !arguments.flag("dry_run") {
        let parent = server.workspace.root().join("tasks");
        ensure_folder(&parent, Access::Umask)
            .map_err(|error| format!("{}: {error}", parent.display()))?;
    }
    let words = Words::new(&["task", "new", name, "--json"])
        .option("data", shown(data))
        .option("schema", shown(schema))
        .option("examples", shown(examples))
        .option("template", arguments.text("template"))
        .option("system", arguments.text("system"))
        .option("split", arguments.text("split"))
        .option("limit", arguments.whole("limit"))
        .option("out", Some(tasks.display()));
    mapped(words, arguments)
        .flag("skip-invalid", arguments.flag("skip_invalid"))
        .flag("dry-run", arguments.flag("dry_run"))
        .run(server, call, None)
}

fn mapped(words: Words, arguments: &Arguments) -> Words {
    let maps = arguments.texts("map");
    words.with(maps.into_iter().map(|map| format!("--map={map}")))
}

pub(super) fn task_write(server: &Server, _: &Call, arguments: &Arguments) -> Result {
    let NamedTask { task, .. } = server.workspace.task(arguments.required("task"))?;
    let (file, text) = (arguments.required("file"), arguments.required("text"));
    let Some(folder) = task.folder() else {
        return Err(format!(
            "{} is embedded: make a task of your own with task_new",
            task.name
        ));
    };
    let is_schema =
        file.ends_with(".json") && !file.contains(['/', '\\']) && !file.starts_with('.');
    if file != TASK_FILE && !is_schema {
        return Err(format!(
            "file {file:?}: only {TASK_FILE} and .json files of the task's folder are written here; rows come by dataset_import, programs from a person"
        ));
    }
    let trusted = Trust::for_task(&task).map_err(|error| error.to_string())?;
    if trusted.iter().any(|trust| trust.is_trusted) {
        return Err(format!(
            "{}: a person has trusted what this task runs, so only a person edits it",
            task.name
        ));
    }
    let path = folder.join(file);
    let text_of_path = path.to_str().unwrap_or_default();
    // A link may lead to a test set.
    let path = if path.exists() {
        server.workspace.file("file", text_of_path)?
    } else {
        server.workspace.path("file", text_of_path)?
    };
    if PromptSet::ALL
        .iter()
        .any(|set| task.set_file(*set) == Some(file))
    {
        return Err(format!(
            "file {file:?} has prompts: rows come by dataset_import"
        ));
    }
    let before = match crate::files::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{file}: {error}")),
    };
    let write = |bytes: &[u8]| {
        replace_file(&path, bytes, Access::Umask)
            .map_err(|error| format!("{}: {error}", path.display()))
    };
    write(text.as_bytes())?;
    if let Err(why) = check_written(server, &task) {
        match &before {
            Some(bytes) => write(bytes)?,
            None => std::fs::remove_file(&path).map_err(|error| error.to_string())?,
        }
        return Err(format!("{file} was not changed: {why}"));
    }
    Ok(json!({"task": task.name, "file": file, "bytes": text.len(), "next": "task_check, audit"}))
}

/// The task as it is now: loadable, with the same test set.
fn check_written(server: &Server, before: &Task) -> Result<()> {
    let folder = before.folder().unwrap_or(std::path::Path::new(""));
    let NamedTask { task, .. } = server.workspace.task(folder.to_str().unwrap_or_default())?;
    if task.set_file(PromptSet::Test) != before.set_file(PromptSet::Test) {
        return Err(
            "[prompts] test stays as it is: the test set is not the client's to choose".to_owned(),
        );
    }
    match Scorer::new(&task) {
        Err(error) if error.is_of_command() => Ok(()),
        scorer => scorer.map(|_| ()).map_err(|error| error.to_string()),
    }
}

pub(super) fn dataset_import(server: &Server, call: &Call, arguments: &Arguments) -> Result {
    let NamedTask { argument, .. } = server.workspace.task(arguments.required("task"))?;
    let data = server.workspace.file("data", arguments.required("data"))?;
    let words = Words::new(&[
        "dataset",
        "import",
        &argument,
        &data.display().to_string(),
        "--json",
    ])
    .option("set", arguments.text("set"));
    mapped(words, arguments)
        .flag("skip-invalid", arguments.flag("skip_invalid"))
        .flag("replace", arguments.flag("replace"))
        .flag("dry-run", arguments.flag("dry_run"))
        .run(server, call, None)
}

pub(super) fn dataset_split(server: &Server, call: &Call, arguments: &Arguments) -> Result {
    let NamedTask { argument, .. } = server.workspace.task(arguments.required("task"))?;
    if let Some(first) = server.record()?.runs.first() {
        return Err(format!(
            "the sets stay as they are since run {} was started: rows of its test set would be trained on",
            first.run
        ));
    }
    Words::new(&["dataset", "split", &argument, "--json"])
        .option("by", arguments.text("by"))
        .option("split", arguments.text("split"))
        .flag("dry-run", arguments.flag("dry_run"))
        .run(server, call, None)
}
