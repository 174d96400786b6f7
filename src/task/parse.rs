//! Parses and checks `task.toml`.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::definition::{self, Definition, Kind, read_normalisations};
use super::error::Read;
use super::toml_section::{Section, Source};
use super::{Home, PromptFiles, RewardPart, ScoreRules, TASK_FILE, Task, TaskError, TierValues};

/// Reward parts: the share of fields equal to `expected`, whether all are, and whether the completion would pass
/// without a fence or prose around.
pub const PARTS: [&str; 3] = ["fields", "exact", "tolerant"];

pub(super) fn read_task(home: Home) -> Read<Task> {
    let text = home.read_text(TASK_FILE)?;
    parse_task(home, &text)
}

/// The task with this text as its `task.toml`.
pub(super) fn parse_task(home: Home, text: &str) -> Read<Task> {
    let label = home.label(TASK_FILE);
    let source = Source { label: &label, text };
    let toml_error =
        |error: toml::de::Error| source.error(error.span().map_or(0, |span| span.start), error.message().to_owned());
    let document = DeTable::parse(text).map_err(toml_error)?;
    let kind = definition::kind(&Section::free(source, "", document.get_ref()))?;
    let known = ["system", "thinking", "prompts", "score", "reward", "train"];
    let known = [&["name", "title"], kind.keys, &known].concat();
    let top = Section::new(source, "", document.get_ref(), &known)?;
    let missing = |key: &str, example| TaskError::Missing { label: label.clone(), key: format!("`{key}`"), example };

    let name = top.string("name")?.ok_or_else(|| missing("name", "name = \"invoice\""))?;
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
    let score = read_score(&top, kind)?;
    let (definition, definition_file, definition_text) = Definition::read(kind, &top, &home, text)?;
    // Checked with the configuration.
    top.table("train")?;
    Ok(Task {
        title: top.string("title")?.unwrap_or_else(|| name.clone()),
        name,
        definition,
        definition_file,
        definition_text,
        system: top.string("system")?.filter(|system| !system.is_empty()),
        thinking: top.boolean("thinking")?.unwrap_or(false),
        score,
        rewards: read_rewards(&top, source)?,
        prompts: read_prompts(&top, &home)?,
        home,
    })
}

fn read_prompts(top: &Section<'_>, home: &Home) -> Read<PromptFiles> {
    let Some(prompts) = top.section("prompts", &["train", "eval", "test", "proof", "completions", "generator"])? else {
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
        completions: file("completions")?,
        generator: file("generator")?,
    })
}

fn read_score(top: &Section<'_>, kind: &Kind) -> Read<ScoreRules> {
    let mut rules = ScoreRules {
        tiers: TierValues { unparsable: 0.0, invalid: 0.5, valid: 1.0 },
        graded: false,
        strip_thinking: true,
        assert_formats: false,
        max_scorer_errors: 0.1,
        normalise: BTreeMap::new(),
    };
    let known = ["kind", "tiers", "strip_thinking"];
    let Some(score) = top.section("score", &[&known, kind.score_keys].concat())? else { return Ok(rules) };
    rules.graded = score.boolean("graded")?.unwrap_or(rules.graded);
    rules.strip_thinking = score.boolean("strip_thinking")?.unwrap_or(rules.strip_thinking);
    rules.assert_formats = score.boolean("assert_formats")?.unwrap_or(rules.assert_formats);
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
    // Of a text it is a list of names.
    if kind.name != "text"
        && let Some(fields) = score.free_section("normalise")?
    {
        for (field, _) in fields.keys() {
            rules.normalise.extend(read_normalisations(&fields, field)?.map(|names| (field.to_owned(), names)));
        }
    }
    Ok(rules)
}

/// Bounded, so that sums, differences and squares are finite.
fn reward(section: &Section<'_>, key: &str) -> Read<Option<f64>> {
    const MOST: f64 = 1e6;
    match (section.number(key)?, section.get(key)) {
        (Some(number), Some((_, offset))) if number.abs() > MOST => {
            Err(section.error(key, offset, format!("must be between -{MOST} and {MOST}, not {number:e}")))
        }
        (number, _) => Ok(number),
    }
}

fn read_rewards(top: &Section<'_>, source: Source<'_>) -> Read<Vec<RewardPart>> {
    let Some((value, offset)) = top.get("reward") else { return Ok(Vec::new()) };
    let DeValue::Array(items) = value else {
        return Err(top.error("reward", offset, "must be written as `[[reward]]`, one block per part"));
    };
    let mut parts: Vec<RewardPart> = Vec::new();
    for item in items {
        let DeValue::Table(table) = item.get_ref() else {
            return Err(source.error(item.span().start, "`reward` must be written as `[[reward]]`, one block per part"));
        };
        let block = Section::new(source, "reward.", table, &["part", "weight"])?;
        let at = block.get("part").map_or(item.span().start, |(_, offset)| offset);
        let part = block
            .string("part")?
            .ok_or_else(|| block.error("part", at, format!("is missing; it is one of {}", PARTS.join(", "))))?;
        if !PARTS.contains(&part.as_str()) {
            return Err(block.error("part", at, format!("takes {}, not {part:?}", PARTS.join(", "))));
        }
        if parts.iter().any(|earlier| earlier.part == part) {
            return Err(block.error("part", at, format!("{part:?} occurs twice: give it one weight")));
        }
        let weight = reward(&block, "weight")?
            .ok_or_else(|| block.error("weight", at, "is missing; write for example `weight = 0.1`"))?;
        parts.push(RewardPart { part, weight });
    }
    Ok(parts)
}
