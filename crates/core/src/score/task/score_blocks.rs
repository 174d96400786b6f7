//! Parses `[score]` and `[[reward]]`: scorer kinds and other reward parts.

use toml::de::{DeTable, DeValue};

use super::{LengthAim, LengthRule, LengthUnit, PartValue, RewardPart, Task};
use crate::facts::PartName;
use crate::score::definition::{GROUNDED, KeyInfo, Kind};
use crate::score::grounded::Grounded;
use crate::score::kinds::{KINDS, kind_named};
use crate::task::{
    Read, Section, Source, TASK_FILE, TaskError, TaskFiles, read_reward, read_rules,
};
use crate::text::THINK_MARKS;

/// Keys of the part `length`.
const LENGTH_KEYS: [&str; 4] = ["max", "target", "buffer", "unit"];

pub(super) fn read_rewards(
    top: &Section<'_>,
    source: Source<'_>,
    task: &Task,
) -> Read<Vec<RewardPart>> {
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
        let (block, scored_by) = if has_scorer {
            let (block, task) = read_scorer(source, table, task).map_err(|error| match error {
                TaskError::Missing { key, example, .. } => {
                    let key = key.replace("`score.", "`");
                    source.error(
                        start,
                        format!("`[[reward]]` has no {key}; add for example `{example}`"),
                    )
                }
                other => other,
            })?;
            (block, Some(task))
        } else {
            let part = table.get("part").and_then(|part| part.get_ref().as_str());
            if part == Some("brier") {
                let message = "`part = \"brier\"` is no longer a part: remove the block; evals state how sure the model is of each value (docs/confidence.md)";
                return Err(source.error(start, message));
            }
            let own = match part.and_then(PartName::from_name) {
                Some(PartName::Length) => &LENGTH_KEYS[..],
                _ => &[],
            };
            let known = [&["part", "weight", "after"], own].concat();
            (Section::new(source, "reward.", table, &known)?, None)
        };
        let key = if has_scorer { "name" } else { "part" };
        let at = block.get(key).map_or(start, |(_, offset)| offset);
        let (part, value) = match scored_by {
            Some(task) => {
                let missing =
                    || block.error(key, at, "is missing; write for example `name = \"style\"`");
                let name = part_name(&block, at, block.string(key)?.ok_or_else(missing)?)?;
                let expected = block.string("expected")?;
                (name, PartValue::Scored { task, expected })
            }
            None => read_own_part(&block, at, task)?,
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
        parts.push(RewardPart {
            part,
            weight,
            after_valid: read_after(&block)?,
            value,
        });
    }
    Ok(parts)
}

fn read_own_part(block: &Section<'_>, at: usize, task: &Task) -> Read<(String, PartValue)> {
    let names = || PartName::ASKED.map(PartName::name).join(", ");
    let Some(name) = block.string("part")? else {
        let message = format!(
            "is missing; it is one of {}, or give the block a `kind`",
            names()
        );
        return Err(block.error("part", at, message));
    };
    let value = match PartName::from_name(&name) {
        Some(PartName::Fields) => PartValue::Fields,
        Some(PartName::Exact) => PartValue::Exact,
        Some(PartName::Tolerant) => PartValue::Tolerant,
        Some(PartName::Chain) => PartValue::Chain,
        Some(PartName::Grounded) if Grounded::new(&*task.definition, task).is_none() => {
            let message = "looks for values of answers: [score] kind json_schema, structured, tool_calls or http_request";
            return Err(block.error(
                "part",
                at,
                format!("\"grounded\" {message}, not {}", task.kind()),
            ));
        }
        Some(PartName::Grounded) => PartValue::Grounded,
        Some(PartName::Length) => PartValue::Length(read_length(block, at)?),
        Some(PartName::Tier | PartName::Graded | PartName::Score) | None => {
            return Err(block.error("part", at, format!("takes {}, not {name:?}", names())));
        }
    };
    Ok((name, value))
}

fn read_scorer<'a>(
    source: Source<'a>,
    table: &'a DeTable<'a>,
    task: &Task,
) -> Read<(Section<'a>, Box<Task>)> {
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
    let scored_by = defined_by(kind, &block, &block, files)?;
    Ok((block, Box::new(scored_by)))
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

/// A name for metrics and failure classes, distinct from built-in parts.
fn part_name(block: &Section<'_>, offset: usize, name: String) -> Read<String> {
    const MAX_NAME_LEN: usize = 16;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(is_plain) {
        let message =
            format!("takes 1 to {MAX_NAME_LEN} letters, digits, `_` and `-`, not {name:?}");
        return Err(block.error("name", offset, message));
    }
    if PartName::from_name(&name).is_some() {
        return Err(block.error(
            "name",
            offset,
            format!("{name:?} is a part of every reward: choose another name"),
        ));
    }
    Ok(name)
}

pub(super) fn defined_by(
    kind: &Kind,
    top: &Section<'_>,
    score: &Section<'_>,
    mut files: TaskFiles,
) -> Read<Task> {
    let (definition, file) = (kind.read)(top, score, &files.home)?;
    if let Some((name, text)) = file {
        (files.definition_file, files.definition_text) = (name, text);
    }
    Ok(Task {
        files,
        definition,
        think_marks: &THINK_MARKS,
        rewards: Vec::new(),
        toolset: None,
        agent: None,
        _copy: None,
    })
}

pub(super) fn names(keys: &[KeyInfo]) -> impl Iterator<Item = &'static str> {
    keys.iter().map(|key| key.name)
}

pub(super) fn kind_of(score: &Section<'_>) -> Read<&'static Kind> {
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
