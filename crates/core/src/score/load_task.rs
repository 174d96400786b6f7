//! Reads a task: its files, then the definition of right answers by the kind of scorer that `[score]` names.

use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::definition::{COMMON_KEYS, GROUNDED, KeyInfo, Kind};
use super::grounded::Grounded;
use super::kinds::{KINDS, kind_named};
use super::length::{LengthAim, LengthRule, LengthUnit};
use super::task::{RewardPart, Task};
use crate::environment::{AGENT_KEY, Agent, TOOL_KEYS, Toolset};
use crate::task::{
    Home, MODELS, Read, Section, Source, TASK_FILE, TEMPLATE_KWARGS, TaskError, TaskFiles,
    find_embedded, find_home, find_template, read_reward, read_rules,
};
use crate::text::THINK_MARKS;

/// The `task.toml` of a task of which nothing is known.
const UNREAD: &str = "name = \"unread\"\n[score]\nkind = \"text\"";

/// Reward parts: the share of fields equal to `expected`, whether all are, whether the completion would pass without a
/// fence or prose around, the worst answer of the row's turns, the share of values that the prompt states, and the
/// length.
const PARTS: [&str; 6] = ["fields", "exact", "tolerant", "chain", "grounded", "length"];
/// Keys of the part `length`.
const LENGTH_KEYS: [&str; 4] = ["max", "target", "buffer", "unit"];

impl Task {
    /// Finds a task by path, by name in the nearest workspace above the current folder, or among the embedded ones.
    pub fn resolve(text: &str) -> Result<Self, TaskError> {
        let here = std::env::current_dir().map_err(|source| TaskError::Read {
            label: ".".to_owned(),
            source,
        })?;
        Self::resolve_from(text, &here)
    }

    /// [`Task::resolve`] from another folder.
    pub fn resolve_from(text: &str, here: &Path) -> Result<Self, TaskError> {
        read_task(find_home(text, here)?)
    }

    pub fn load(folder: &Path) -> Result<Self, TaskError> {
        read_task(Home::Folder(folder.to_owned()))
    }

    pub fn embedded(name: &str) -> Result<Self, TaskError> {
        read_task(Home::Embedded(find_embedded(name)?))
    }

    /// A template for new tasks.
    pub fn template(name: &str) -> Result<Self, TaskError> {
        read_task(Home::Embedded(find_template(name)?))
    }

    /// The `task.toml` of a folder as a text to edit, which need not be a valid task: [`Task::with_definition_text`]
    /// reads it. Nothing else of the returned task is known.
    pub fn unread(folder: &Path) -> Result<Self, TaskError> {
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        unread(Home::Folder(folder.to_owned()), name)
    }

    /// The `task.toml` of a task that another file defines, as by [`Task::unread`].
    pub fn toml(&self) -> Result<Self, TaskError> {
        unread(self.home.clone(), self.name.clone())
    }

    /// The same task with another text of its [`TaskFiles::definition_file`].
    ///
    /// # Errors
    /// [`TaskError`] if the text cannot be read, or names a file that the task may not read.
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

    /// Why `model`, if it is an embedded one, is not a model for this task; `None` if it was pretrained for it.
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

    /// The task as a kind reads it; `top`: see [`Kind::read`].
    fn defined_by(
        kind: &Kind,
        top: &Section<'_>,
        score: &Section<'_>,
        mut files: TaskFiles,
    ) -> Read<Self> {
        let (definition, file) = (kind.read)(top, score, &files.home)?;
        if let Some((name, text)) = file {
            (files.definition_file, files.definition_text) = (name, text);
        }
        Ok(Self {
            files,
            definition,
            think_marks: &THINK_MARKS,
            rewards: Vec::new(),
            toolset: None,
            agent: None,
            _copy: None,
        })
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

/// The task with this text as its `task.toml`.
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
    let mut task = Task::defined_by(
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
    if let (None, "agent") = (&task.agent, task.kind()) {
        return Err(task
            .home
            .missing("agent", "[agent]\nrun = [\"python3\", \"agent.py\"]"));
    }
    if let Some(section) = block.free_section("grounded")? {
        check_grounded(&task, &section)?;
    }
    Ok(task)
}

fn names(keys: &[KeyInfo]) -> impl Iterator<Item = &'static str> {
    keys.iter().map(|key| key.name)
}

/// The kind that a block names.
fn kind_of(score: &Section<'_>) -> Read<&'static Kind> {
    let Some((name, (_, offset))) = score.string("kind")?.zip(score.get("kind")) else {
        return Ok(KINDS[0]);
    };
    let names = || KINDS.iter().map(|kind| kind.name);
    kind_named(&name).ok_or_else(|| {
        let near = crate::format::did_you_mean(&name, names());
        score.error(
            "kind",
            offset,
            format!(
                "takes {}, not {name:?}{near}",
                names().collect::<Vec<_>>().join(", ")
            ),
        )
    })
}

/// `[[reward]]` of a task that is otherwise read.
fn read_rewards(top: &Section<'_>, source: Source<'_>, task: &Task) -> Read<Vec<RewardPart>> {
    let Some((value, offset)) = top.get("reward") else {
        return Ok(Vec::new());
    };
    let DeValue::Array(items) = value else {
        return Err(top.error(
            "reward",
            offset,
            "must be written as `[[reward]]`, one block per part",
        ));
    };
    let mut parts: Vec<RewardPart> = Vec::new();
    for item in items {
        let DeValue::Table(table) = item.get_ref() else {
            return Err(source.error(
                item.span().start,
                "`reward` must be written as `[[reward]]`, one block per part",
            ));
        };
        let start = item.span().start;
        let has_scorer = table.contains_key("kind");
        let (block, scored_by) = match has_scorer {
            true => read_scorer(source, table, task).map_err(|error| match error {
                TaskError::Missing { key, example, .. } => {
                    let key = key.replace("`score.", "`");
                    source.error(
                        start,
                        format!("`[[reward]]` has no {key}; add for example `{example}`"),
                    )
                }
                other => other,
            })?,
            false => {
                let is_length = table
                    .get("part")
                    .is_some_and(|part| part.get_ref().as_str() == Some("length"));
                let own = if is_length { &LENGTH_KEYS[..] } else { &[] };
                (
                    Section::new(
                        source,
                        "reward.",
                        table,
                        &[&["part", "weight", "after"], own].concat(),
                    )?,
                    None,
                )
            }
        };
        let key = if has_scorer { "name" } else { "part" };
        let at = block.get(key).map_or(start, |(_, offset)| offset);
        let part = match (block.string(key)?, has_scorer) {
            (None, true) => {
                return Err(block.error(
                    key,
                    at,
                    "is missing; write for example `name = \"style\"`",
                ));
            }
            (None, false) => {
                let message = format!(
                    "is missing; it is one of {}, or give the block a `kind`",
                    PARTS.join(", ")
                );
                return Err(block.error(key, at, message));
            }
            (Some(name), true) => part_name(&block, at, name)?,
            (Some(part), false) if PARTS.contains(&part.as_str()) => part,
            (Some(part), false) => {
                return Err(block.error(
                    key,
                    at,
                    format!("takes {}, not {part:?}", PARTS.join(", ")),
                ));
            }
        };
        if parts.iter().any(|earlier| earlier.part == part) {
            return Err(block.error(
                key,
                at,
                format!("{part:?} occurs twice: give it one weight"),
            ));
        }
        let weight = read_reward(&block, "weight")?.ok_or_else(|| {
            block.error("weight", at, "is missing; write for example `weight = 0.1`")
        })?;
        if part == "grounded" && Grounded::new(task).is_none() {
            let message = "looks for values of answers: [score] kind json_schema, structured, tool_calls or http_request";
            return Err(block.error(
                key,
                at,
                format!("\"grounded\" {message}, not {}", task.kind()),
            ));
        }
        let length = if part == "length" && !has_scorer {
            Some(read_length(&block, at)?)
        } else {
            None
        };
        let (expected, after_valid) = (block.string("expected")?, read_after(&block)?);
        parts.push(RewardPart {
            part,
            weight,
            scored_by,
            expected,
            after_valid,
            length,
        });
    }
    Ok(parts)
}

/// The block of a part with a scorer of its own, and the task as that sees it.
fn read_scorer<'a>(
    source: Source<'a>,
    table: &'a DeTable<'a>,
    task: &Task,
) -> Read<(Section<'a>, Option<Box<Task>>)> {
    let free = Section::free(source, "reward.", table);
    let kind = kind_of(&free)?;
    let known = [
        "name",
        "kind",
        "weight",
        "expected",
        "after",
        "strip_thinking",
    ]
    .into_iter();
    let known: Vec<&str> = known
        .chain(names(kind.keys))
        .chain(names(kind.score_keys).filter(|name| *name != GROUNDED.name))
        .collect();
    let block = Section::new(source, "reward.", table, &known)?;
    let files = TaskFiles {
        score: read_rules(&block)?,
        definition_file: TASK_FILE.to_owned(),
        definition_text: source.text.to_owned(),
        ..task.files.clone()
    };
    let scored_by = Task::defined_by(kind, &block, &block, files)?;
    Ok((block, Some(Box::new(scored_by))))
}

/// `after = "valid"`.
fn read_after(block: &Section<'_>) -> Read<bool> {
    match (block.string("after")?, block.get("after")) {
        (Some(tier), Some((_, offset))) if tier != "valid" => {
            Err(block.error("after", offset, format!("takes \"valid\", not {tier:?}")))
        }
        (tier, _) => Ok(tier.is_some()),
    }
}

/// The keys of the part `length`; `at`: of its block.
fn read_length(block: &Section<'_>, at: usize) -> Read<LengthRule> {
    let number = |key: &str| match (block.number(key)?, block.get(key)) {
        (Some(number), Some((_, offset))) if number < 0.0 || (number < 1.0 && key != "buffer") => {
            Err(block.error(
                key,
                offset,
                format!(
                    "must be at least {}, not {number}",
                    u8::from(key != "buffer")
                ),
            ))
        }
        (number, _) => Ok(number),
    };
    let unit = match (block.string("unit")?, block.get("unit")) {
        (Some(unit), Some((_, offset))) if !matches!(&*unit, "tokens" | "bytes") => {
            return Err(block.error(
                "unit",
                offset,
                format!("takes \"tokens\" or \"bytes\", not {unit:?}"),
            ));
        }
        (Some(unit), _) if unit == "bytes" => LengthUnit::Bytes,
        _ => LengthUnit::Tokens,
    };
    let (aim, buffer) = match (number("max")?, number("target")?, number("buffer")?) {
        (Some(most), None, buffer) => (LengthAim::Max(most), buffer.unwrap_or(0.0)),
        (None, Some(target), buffer) => (
            LengthAim::Target(target),
            buffer.unwrap_or(target).max(f64::MIN_POSITIVE),
        ),
        _ => {
            let message = "needs either `max`, with `buffer` below it, or `target`; write for example `max = 512`";
            return Err(block.error("part", at, format!("\"length\" {message}")));
        }
    };
    match (aim, block.get("buffer")) {
        (LengthAim::Max(most), Some((_, offset))) if buffer > most => Err(block.error(
            "buffer",
            offset,
            format!("must be at most `max` = {most}, not {buffer}"),
        )),
        _ => Ok(LengthRule { aim, unit, buffer }),
    }
}

/// Refuses `[score.grounded] except` with a field that answers do not have.
fn check_grounded(task: &Task, section: &Section<'_>) -> Read<()> {
    let offset = section.get("except").map_or(0, |(_, offset)| offset);
    match Grounded::new(task).and_then(|grounded| grounded.unknown_path()) {
        Some((path, hint)) => Err(section.error(
            "except",
            offset,
            format!("names no field of answers: {path:?}{hint}"),
        )),
        None => Ok(()),
    }
}

/// A name for metrics and failure classes, which none of the program's parts has.
fn part_name(block: &Section<'_>, offset: usize, name: String) -> Read<String> {
    const MAX_NAME_LEN: usize = 16;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(is_plain) {
        let message =
            format!("takes 1 to {MAX_NAME_LEN} letters, digits, `_` and `-`, not {name:?}");
        return Err(block.error("name", offset, message));
    }
    if PARTS.contains(&name.as_str()) || ["tier", "graded", "score"].contains(&name.as_str()) {
        return Err(block.error(
            "name",
            offset,
            format!("{name:?} is a part of every reward: choose another name"),
        ));
    }
    Ok(name)
}
