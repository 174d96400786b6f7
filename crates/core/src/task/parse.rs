//! Parses and checks `task.toml`.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::error::Read;
use super::normalisations::{ALL_FIELDS, read_normalisations};
use super::score_keys::{COMMON_KEYS, KeyInfo};
use super::toml_section::{Section, Source};
use super::{Home, PromptFiles, RewardPart, ScoreRules, TASK_FILE, Task, TaskError, TierValues};
use crate::score::definition::Kind;
use crate::score::kinds::{KINDS, kind_named};
use crate::score::text;

/// Reward parts: the share of fields equal to `expected`, whether all are, whether the completion would pass without a
/// fence or prose around, and the worst answer of the row's turns.
pub const PARTS: [&str; 4] = ["fields", "exact", "tolerant", "chain"];

pub(super) fn read_task(home: Home) -> Read<Task> {
    let text = home.read_text(TASK_FILE)?;
    parse_task(home, &text)
}

/// A task of which only the text of `task.toml` is known.
pub(super) fn unread(home: Home, name: String) -> Read<Task> {
    Ok(Task {
        title: name.clone(),
        name,
        definition: text::unknown(),
        definition_file: TASK_FILE.to_owned(),
        definition_text: home.read_text(TASK_FILE)?,
        system: None,
        thinking: false,
        score: ScoreRules::PLAIN,
        rewards: Vec::new(),
        prompts: PromptFiles::default(),
        home,
    })
}

/// The task with this text as its `task.toml`.
pub(super) fn parse_task(home: Home, text: &str) -> Read<Task> {
    let label = home.label(TASK_FILE);
    let source = Source { label: &label, text };
    let toml_error =
        |error: toml::de::Error| source.error(error.span().map_or(0, |span| span.start), error.message().to_owned());
    let document = DeTable::parse(text).map_err(toml_error)?;
    let named = Section::free(source, "", document.get_ref()).free_section("score")?;
    let kind = named.map_or(Ok(KINDS[0]), |score| kind_of(&score))?;
    let known = ["system", "thinking", "prompts", "score", "reward", "train"];
    let known: Vec<&str> = ["name", "title"].into_iter().chain(names(kind.keys)).chain(known).collect();
    let top = Section::new(source, "", document.get_ref(), &known)?;

    let name = top.string("name")?.ok_or_else(|| home.missing("name", "name = \"invoice\""))?;
    if name.is_empty()
        || !name.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.'))
        || name.starts_with('.')
    {
        let offset = top.get("name").map_or(0, |(_, offset)| offset);
        return Err(top.error(
            "name",
            offset,
            format!("names folders, so it takes letters, digits, `-`, `_` and `.` only, not {name:?}"),
        ));
    }
    let known: Vec<&str> = names(&COMMON_KEYS).chain(names(kind.score_keys)).collect();
    let empty = DeTable::new();
    let block = top.section("score", &known)?.unwrap_or_else(|| Section::free(source, "score.", &empty));
    let score = read_rules(&block)?;
    let (definition, file) = (kind.read)(&top, &block, &home)?;
    let (definition_file, definition_text) = file.unwrap_or_else(|| (TASK_FILE.to_owned(), text.to_owned()));
    // Checked with the configuration.
    top.table("train")?;
    let mut task = Task {
        title: top.string("title")?.unwrap_or_else(|| name.clone()),
        name,
        definition,
        definition_file,
        definition_text,
        system: top.string("system")?.filter(|system| !system.is_empty()),
        thinking: top.boolean("thinking")?.unwrap_or(false),
        score,
        rewards: Vec::new(),
        prompts: read_prompts(&top, &home)?,
        home,
    };
    task.rewards = read_rewards(&top, source, &task)?;
    Ok(task)
}

fn read_prompts(top: &Section<'_>, home: &Home) -> Read<PromptFiles> {
    let Some(prompts) =
        top.section("prompts", &["train", "eval", "test", "proof", "guard", "completions", "generator"])?
    else {
        return Ok(PromptFiles::default());
    };
    let file = |key: &str| prompts.string(key)?.map(|file| home.name(file)).transpose();
    if let (Some(_), Some((_, offset))) = (prompts.get("test"), prompts.get("proof")) {
        return Err(prompts.error("proof", offset, "is the old name of `test`, which is set too: remove one"));
    }
    Ok(PromptFiles {
        train: file("train")?,
        eval: file("eval")?,
        test: file("test")?.or(file("proof")?),
        guard: file("guard")?,
        completions: file("completions")?,
        generator: file("generator")?,
    })
}

impl ScoreRules {
    /// Those of a task that says nothing.
    const PLAIN: Self = Self {
        tiers: TierValues { unparsable: 0.0, invalid: 0.5, valid: 1.0 },
        graded: false,
        strip_thinking: true,
        assert_formats: false,
        max_scorer_errors: 0.1,
        continue_after_failure: false,
        normalise: BTreeMap::new(),
    };
}

/// `[score]`, or a `[[reward]]` with a scorer of its own.
fn read_rules(score: &Section<'_>) -> Read<ScoreRules> {
    let mut rules = ScoreRules::PLAIN;
    rules.graded = score.boolean("graded")?.unwrap_or(rules.graded);
    rules.strip_thinking = score.boolean("strip_thinking")?.unwrap_or(rules.strip_thinking);
    rules.assert_formats = score.boolean("assert_formats")?.unwrap_or(rules.assert_formats);
    rules.continue_after_failure = score.boolean("continue_after_failure")?.unwrap_or(rules.continue_after_failure);
    if let Some(tiers) = score.section("tiers", &["unparsable", "invalid", "valid"])? {
        let values = &mut rules.tiers;
        values.unparsable = reward(&tiers, "unparsable")?.unwrap_or(values.unparsable);
        values.invalid = reward(&tiers, "invalid")?.unwrap_or(values.invalid);
        values.valid = reward(&tiers, "valid")?.unwrap_or(values.valid);
        if !(values.unparsable <= values.invalid && values.invalid <= values.valid && values.unparsable < values.valid)
        {
            let offset = score.get("tiers").map_or(0, |(_, offset)| offset);
            let found = format!("unparsable {}, invalid {}, valid {}", values.unparsable, values.invalid, values.valid);
            return Err(score.error(
                "tiers",
                offset,
                format!("must rise from unparsable through invalid to valid, not {found}"),
            ));
        }
    }
    if let Some((share, (_, offset))) = score.number("max_scorer_errors")?.zip(score.get("max_scorer_errors")) {
        if !(0.0..=1.0).contains(&share) {
            return Err(score.error("max_scorer_errors", offset, format!("must be between 0 and 1, not {share}")));
        }
        rules.max_scorer_errors = share;
    }
    match score.get("normalise") {
        None => {}
        Some((DeValue::Table(_), _)) => {
            let Some(fields) = score.free_section("normalise")? else { return Ok(rules) };
            for (field, _) in fields.keys() {
                rules.normalise.extend(read_normalisations(&fields, field)?.map(|names| (field.to_owned(), names)));
            }
        }
        Some(_) => {
            let names = read_normalisations(score, "normalise")?;
            rules.normalise.extend(names.map(|names| (ALL_FIELDS.to_owned(), names)));
        }
    }
    Ok(rules)
}

/// Bounded, so that sums, differences and squares are finite.
fn reward(section: &Section<'_>, key: &str) -> Read<Option<f64>> {
    const MAX_MAGNITUDE: f64 = 1e6;
    match (section.number(key)?, section.get(key)) {
        (Some(number), Some((_, offset))) if number.abs() > MAX_MAGNITUDE => Err(section.error(
            key,
            offset,
            format!("must be between -{MAX_MAGNITUDE} and {MAX_MAGNITUDE}, not {number:e}"),
        )),
        (number, _) => Ok(number),
    }
}

fn names(keys: &[KeyInfo]) -> impl Iterator<Item = &'static str> {
    keys.iter().map(|key| key.name)
}

/// The kind that a block names.
fn kind_of(score: &Section<'_>) -> Read<&'static Kind> {
    let Some((name, (_, offset))) = score.string("kind")?.zip(score.get("kind")) else { return Ok(KINDS[0]) };
    let names = || KINDS.iter().map(|kind| kind.name);
    kind_named(&name).ok_or_else(|| {
        let near = crate::format::did_you_mean(&name, names());
        score.error("kind", offset, format!("takes {}, not {name:?}{near}", names().collect::<Vec<_>>().join(", ")))
    })
}

/// `[[reward]]` of a task that is otherwise read.
fn read_rewards(top: &Section<'_>, source: Source<'_>, task: &Task) -> Read<Vec<RewardPart>> {
    let Some((value, offset)) = top.get("reward") else { return Ok(Vec::new()) };
    let DeValue::Array(items) = value else {
        return Err(top.error("reward", offset, "must be written as `[[reward]]`, one block per part"));
    };
    let mut parts: Vec<RewardPart> = Vec::new();
    for item in items {
        let DeValue::Table(table) = item.get_ref() else {
            return Err(source.error(item.span().start, "`reward` must be written as `[[reward]]`, one block per part"));
        };
        let start = item.span().start;
        let has_scorer = table.contains_key("kind");
        let (block, scored_by) = match has_scorer {
            true => read_scorer(source, table, task).map_err(|error| match error {
                TaskError::Missing { key, example, .. } => {
                    let key = key.replace("`score.", "`");
                    source.error(start, format!("`[[reward]]` has no {key}; add for example `{example}`"))
                }
                other => other,
            })?,
            false => (Section::new(source, "reward.", table, &["part", "weight"])?, None),
        };
        let key = if has_scorer { "name" } else { "part" };
        let at = block.get(key).map_or(start, |(_, offset)| offset);
        let part = match (block.string(key)?, has_scorer) {
            (None, true) => return Err(block.error(key, at, "is missing; write for example `name = \"style\"`")),
            (None, false) => {
                let message = format!("is missing; it is one of {}, or give the block a `kind`", PARTS.join(", "));
                return Err(block.error(key, at, message));
            }
            (Some(name), true) => part_name(&block, at, name)?,
            (Some(part), false) if PARTS.contains(&part.as_str()) => part,
            (Some(part), false) => {
                return Err(block.error(key, at, format!("takes {}, not {part:?}", PARTS.join(", "))));
            }
        };
        if parts.iter().any(|earlier| earlier.part == part) {
            return Err(block.error(key, at, format!("{part:?} occurs twice: give it one weight")));
        }
        let weight = reward(&block, "weight")?
            .ok_or_else(|| block.error("weight", at, "is missing; write for example `weight = 0.1`"))?;
        let expected = block.string("expected")?;
        parts.push(RewardPart { part, weight, scored_by, expected });
    }
    Ok(parts)
}

/// The block of a part with a scorer of its own, and the task as that sees it.
fn read_scorer<'a>(source: Source<'a>, table: &'a DeTable<'a>, task: &Task) -> Read<(Section<'a>, Option<Box<Task>>)> {
    let free = Section::free(source, "reward.", table);
    let kind = kind_of(&free)?;
    let known = ["name", "kind", "weight", "expected", "strip_thinking"].into_iter();
    let known: Vec<&str> = known.chain(names(kind.keys)).chain(names(kind.score_keys)).collect();
    let block = Section::new(source, "reward.", table, &known)?;
    let score = read_rules(&block)?;
    let (definition, file) = (kind.read)(&block, &block, &task.home)?;
    let (definition_file, definition_text) = file.unwrap_or_else(|| (TASK_FILE.to_owned(), source.text.to_owned()));
    let scored_by = Task { definition, definition_file, definition_text, score, ..task.clone() };
    Ok((block, Some(Box::new(scored_by))))
}

/// A name for metrics and failure classes, which none of the program's parts has.
fn part_name(block: &Section<'_>, offset: usize, name: String) -> Read<String> {
    const MAX_NAME_LEN: usize = 16;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(is_plain) {
        let message = format!("takes 1 to {MAX_NAME_LEN} letters, digits, `_` and `-`, not {name:?}");
        return Err(block.error("name", offset, message));
    }
    if PARTS.contains(&name.as_str()) || ["tier", "graded", "score"].contains(&name.as_str()) {
        return Err(block.error("name", offset, format!("{name:?} is a part of every reward: choose another name")));
    }
    Ok(name)
}
