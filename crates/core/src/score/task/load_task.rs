//! Loads a task: its files, then the definition by the kind in `[score]`.

use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use super::Task;
use super::score_blocks::{defined_by, kind_of, names, read_rewards};
use crate::environment::{AGENT_KEY, Agent, AgentRows, TOOL_KEYS, Toolset};
use crate::score::definition::COMMON_KEYS;
use crate::score::grounded::Grounded;
use crate::score::kinds::KINDS;
use crate::task::{
    Home, MODELS, Read, Section, Source, TASK_FILE, TEMPLATE_KWARGS, TaskError, TaskFiles,
    find_embedded, find_home, find_template,
};

/// Placeholder `task.toml` of an unread task.
const UNREAD: &str = "name = \"unread\"\n[score]\nkind = \"text\"";

impl Task {
    /// Finds a task by path, by name in the nearest workspace above the current folder, or among
    /// the embedded ones.
    pub fn resolve(text: &str) -> Result<Self, TaskError> {
        let here = std::env::current_dir().map_err(|source| TaskError::Read {
            label: ".".to_owned(),
            source,
        })?;
        Self::resolve_from(text, &here)
    }

    pub fn resolve_from(text: &str, here: &Path) -> Result<Self, TaskError> {
        read_task(find_home(text, here)?)
    }

    pub fn load(folder: &Path) -> Result<Self, TaskError> {
        read_task(Home::Folder(folder.to_owned()))
    }

    pub fn embedded(name: &str) -> Result<Self, TaskError> {
        read_task(Home::Embedded(find_embedded(name)?))
    }

    pub fn template(name: &str) -> Result<Self, TaskError> {
        read_task(Home::Embedded(find_template(name)?))
    }

    /// A folder's possibly invalid `task.toml` for editing; [`Task::with_definition_text`] parses
    /// it. Everything else is a placeholder.
    pub fn unread(folder: &Path) -> Result<Self, TaskError> {
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        unread(Home::Folder(folder.to_owned()), name)
    }

    /// The `task.toml` of a task defined by another file, as [`Task::unread`].
    pub fn toml(&self) -> Result<Self, TaskError> {
        unread(self.home.clone(), self.name.clone())
    }

    /// Replaces the text of the [`TaskFiles::definition_file`].
    ///
    /// # Errors
    /// [`TaskError`] if the text is invalid, or names an inaccessible file.
    pub fn with_definition_text(&self, text: &str) -> Result<Self, TaskError> {
        if self.definition_file == TASK_FILE {
            return parse_task(self.home.clone(), text);
        }
        let read = self
            .definition
            .with_text(&self.home, &self.definition_file, text)?;
        let definition = read.unwrap_or_else(|| Arc::clone(&self.definition));
        let files = TaskFiles {
            definition_text: text.to_owned(),
            ..self.files.clone()
        };
        Ok(Self {
            files,
            definition,
            ..self.clone()
        })
    }

    /// Why embedded model `model` does not suit this task; `None` if it was pretrained for it or is
    /// not embedded.
    pub fn embedded_model_note(&self, model: &str) -> Option<String> {
        let made_for = |sample: &str| {
            Self::embedded(sample).is_ok_and(|sample| sample.answer_names() == self.answer_names())
        };
        let (_, sample) = MODELS.iter().find(|(name, _)| *name == model)?;
        if made_for(sample) {
            return None;
        }
        let better = match MODELS.iter().find(|(_, sample)| made_for(sample)) {
            Some((name, _)) => format!("choose `{name}`, which was pretrained for it"),
            None => "choose an instruct model".to_owned(),
        };
        Some(format!(
            "the embedded model `{model}` was pretrained on the sample task `{sample}` alone and writes such answers to \
             every prompt: on this task a run shows how the program works, not what training can do; {better}"
        ))
    }
}

fn read_task(home: Home) -> Read<Task> {
    let text = home.read_text(TASK_FILE)?;
    parse_task(home, &text)
}

fn unread(home: Home, name: String) -> Read<Task> {
    let mut task = parse_task(home, UNREAD)?;
    task.definition_text = task.home.read_text(TASK_FILE)?;
    task.title.clone_from(&name);
    task.name = name;
    Ok(task)
}

fn parse_task(home: Home, text: &str) -> Read<Task> {
    let label = home.label(TASK_FILE);
    let source = Source {
        label: &label,
        text,
    };
    let toml_error = |error: toml::de::Error| {
        source.error(
            error.span().map_or(0, |span| span.start),
            error.message().to_owned(),
        )
    };
    let document = DeTable::parse(text).map_err(toml_error)?;
    let named = Section::free(source, "", document.get_ref()).free_section("score")?;
    let kind = named.map_or(Ok(KINDS[0]), |score| kind_of(&score))?;
    let known = [
        "system",
        "thinking",
        TEMPLATE_KWARGS,
        "prompts",
        "score",
        "reward",
        "train",
    ];
    let known: Vec<&str> = ["name", "title"]
        .into_iter()
        .chain(names(kind.keys))
        .chain(known)
        .chain(TOOL_KEYS)
        .chain([AGENT_KEY])
        .collect();
    let top = Section::new(source, "", document.get_ref(), &known)?;
    let known: Vec<&str> = names(&COMMON_KEYS).chain(names(kind.score_keys)).collect();
    let empty = DeTable::new();
    let block = top
        .section("score", &known)?
        .unwrap_or_else(|| Section::free(source, "score.", &empty));
    let mut task = defined_by(
        kind,
        &top,
        &block,
        TaskFiles::from_toml(&top, &block, home)?,
    )?;
    task.rewards = read_rewards(&top, source, &task)?;
    task.toolset = Toolset::read(&top, &task.name, &task.home)?;
    task.agent = Agent::read(&top, &task.name, &task.home)?;
    if let (Some((_, offset)), Some(_)) = (top.get(AGENT_KEY), &task.toolset) {
        return Err(top.error(
            AGENT_KEY,
            offset,
            "cannot be beside `[[tool]]`: an agent calls its tools itself",
        ));
    }
    if let (Some((_, offset)), Some(agent)) = (top.get(AGENT_KEY), &task.agent)
        && agent.limits().rows == AgentRows::Many
        && task.reads_exit_code()
    {
        let message = "has no exit code for each row with `rows = \"many\"`: leave it out, or `mode = \"exit_code\"` of [score]";
        return Err(top.error(AGENT_KEY, offset, message));
    }
    if task.agent.is_none() && task.definition.needs().agent {
        return Err(task
            .home
            .missing("agent", "[agent]\nrun = [\"python3\", \"agent.py\"]"));
    }
    if let Some(section) = block.free_section("grounded")? {
        check_grounded(&task, &section)?;
    }
    Ok(task)
}

/// Rejects unknown fields in `[score.grounded] except`.
fn check_grounded(task: &Task, section: &Section<'_>) -> Read<()> {
    let offset = section.get("except").map_or(0, |(_, offset)| offset);
    match Grounded::new(&*task.definition, task).and_then(|grounded| grounded.unknown_path()) {
        Some((path, hint)) => Err(section.error(
            "except",
            offset,
            format!("names no field of answers: {path:?}{hint}"),
        )),
        None => Ok(()),
    }
}
