//! Parses and checks `task.toml`.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::error::Read;
use super::references::follow_references;
use super::toml_section::{Section, Source};
use super::{Home, PromptFiles, RewardPart, ScoreRules, TASK_FILE, Task, TaskError, TierValues};

/// Names that `normalise` takes: `casefold` ignores case, `trim` white space at the ends, `whitespace` also its amount
/// inside, `date` compares calendar dates however written, `number` reads numbers written as strings.
pub const NORMALISATIONS: [&str; 5] = ["casefold", "trim", "whitespace", "date", "number"];

/// Reward parts: the share of fields equal to `expected`, whether all are, and whether the completion would pass
/// without a fence or prose around.
pub const PARTS: [&str; 3] = ["fields", "exact", "tolerant"];

pub(super) fn read_task(home: Home) -> Read<Task> {
    let label = home.label(TASK_FILE);
    let text = home.read_text(TASK_FILE)?;
    let source = Source { label: &label, text: &text };
    let toml_error =
        |error: toml::de::Error| source.error(error.span().map_or(0, |span| span.start), error.message().to_owned());
    let document = DeTable::parse(&text).map_err(toml_error)?;
    let top = Section::new(
        source,
        "",
        document.get_ref(),
        &["name", "title", "schema", "system", "thinking", "prompts", "score", "reward", "train"],
    )?;
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
    let schema_file = home.name(top.string("schema")?.ok_or_else(|| missing("schema", "schema = \"schema.json\""))?)?;
    let schema_text = home.read_text(&schema_file)?;
    let schema = home.parse_json(&schema_file, &schema_text)?;
    let (score, named) = read_score(&top)?;
    let (references, inherited_drafts) = follow_references(&home, &schema_file, &schema, named)?;
    // Checked with the configuration.
    top.table("train")?;
    Ok(Task {
        title: top.string("title")?.unwrap_or_else(|| name.clone()),
        name,
        schema_file,
        schema_text,
        schema,
        references,
        inherited_drafts,
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

/// The rules, and the named schema files (address to file).
fn read_score(top: &Section<'_>) -> Read<(ScoreRules, BTreeMap<String, String>)> {
    let mut rules = ScoreRules {
        tiers: TierValues { unparsable: 0.0, invalid: 0.5, valid: 1.0 },
        graded: false,
        strip_thinking: true,
        assert_formats: false,
        normalise: BTreeMap::new(),
    };
    let mut named = BTreeMap::new();
    let Some(score) = top.section(
        "score",
        &["kind", "tiers", "graded", "strip_thinking", "assert_formats", "normalise", "references"],
    )?
    else {
        return Ok((rules, named));
    };
    if let (Some(kind), Some((_, offset))) = (score.string("kind")?, score.get("kind"))
        && kind != "json_schema"
    {
        return Err(score.error("kind", offset, format!("must be \"json_schema\", not {kind:?}")));
    }
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
    if let Some(table) = score.table("normalise")? {
        rules.normalise = read_normalise(&Section::free(score.source(), "score.normalise.", table))?;
    }
    if let Some(table) = score.table("references")? {
        let references = Section::free(score.source(), "score.references.", table);
        for (address, _) in references.keys() {
            named.insert(address.to_owned(), references.string(address)?.unwrap_or_default());
        }
    }
    Ok((rules, named))
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

/// A name, or a list of names, per field.
fn read_normalise(fields: &Section<'_>) -> Read<BTreeMap<String, String>> {
    let mut normalise = BTreeMap::new();
    for (field, offset) in fields.keys() {
        let names: Vec<String> = match fields.get(field).map(|(value, _)| value) {
            Some(DeValue::Array(items)) if items.iter().all(|item| item.get_ref().as_str().is_some()) => {
                items.iter().filter_map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
            }
            _ => fields.string(field)?.unwrap_or_default().split('+').map(|name| name.trim().to_owned()).collect(),
        };
        for name in &names {
            if !NORMALISATIONS.contains(&name.as_str()) {
                let near = crate::format::did_you_mean(name, NORMALISATIONS);
                return Err(fields.error(
                    field,
                    offset,
                    format!("takes {}, not {name:?}{near}", NORMALISATIONS.join(", ")),
                ));
            }
        }
        normalise.insert(field.to_owned(), names.join("+"));
    }
    Ok(normalise)
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
