//! Parses the parts of `task.toml` common to all scorers.

use toml::de::DeValue;

use super::error::Read;
use super::error::TASK_FILE;
use super::leaf_rules::LeafRules;
use super::normalisations::{ALL_FIELDS, read_normalisations};
use super::source::Home;
use super::task_files::{PromptFiles, ScoreRules, TaskFiles};
use super::template_kwargs::read_template_kwargs;
use super::toml_section::Section;

impl TaskFiles {
    /// `score`: the table `[score]`. The definition is `task.toml` itself unless a scorer names
    /// another file.
    pub(crate) fn from_toml(top: &Section<'_>, score: &Section<'_>, home: Home) -> Read<Self> {
        let name = top
            .string("name")?
            .ok_or_else(|| home.missing("name", "name = \"invoice\""))?;
        if name.is_empty()
            || !name.chars().all(|character| {
                character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
            })
            || name.starts_with('.')
        {
            let offset = top.get("name").map_or(0, |(_, offset)| offset);
            return Err(top.error(
                "name",
                offset,
                format!("names folders, so it takes letters, digits, `-`, `_` and `.` only, not {name:?}"),
            ));
        }
        // Validated with the configuration.
        top.table("train")?;
        Ok(Self {
            title: top.string("title")?.unwrap_or_else(|| name.clone()),
            name,
            definition_file: TASK_FILE.to_owned(),
            definition_text: top.text().to_owned(),
            system: top.string("system")?.filter(|system| !system.is_empty()),
            thinking: top.boolean("thinking")?.unwrap_or(false),
            template_kwargs: read_template_kwargs(top)?,
            score: read_rules(score)?,
            prompts: read_prompts(top, &home)?,
            home,
        })
    }
}

fn read_prompts(top: &Section<'_>, home: &Home) -> Read<PromptFiles> {
    let Some(prompts) = top.section(
        "prompts",
        &[
            "train",
            "eval",
            "test",
            "proof",
            "guard",
            "completions",
            // Of older tasks; nothing reads it.
            "generator",
        ],
    )?
    else {
        return Ok(PromptFiles::default());
    };
    let file = |key: &str| prompts.string(key)?.map(|file| home.name(file)).transpose();
    if let (Some(_), Some((_, offset))) = (prompts.get("test"), prompts.get("proof")) {
        return Err(prompts.error(
            "proof",
            offset,
            "is the old name of `test`, which is set too: remove one",
        ));
    }
    Ok(PromptFiles {
        train: file("train")?,
        eval: file("eval")?,
        test: file("test")?.or(file("proof")?),
        guard: file("guard")?,
        completions: file("completions")?,
    })
}

pub(crate) fn read_rules(score: &Section<'_>) -> Read<ScoreRules> {
    let mut rules = ScoreRules {
        leaves: LeafRules::read(score)?,
        ..ScoreRules::default()
    };
    rules.graded = score.boolean("graded")?.unwrap_or(rules.graded);
    rules.strip_thinking = score
        .boolean("strip_thinking")?
        .unwrap_or(rules.strip_thinking);
    rules.assert_formats = score
        .boolean("assert_formats")?
        .unwrap_or(rules.assert_formats);
    rules.continue_after_failure = score
        .boolean("continue_after_failure")?
        .unwrap_or(rules.continue_after_failure);
    if let Some(tiers) = score.section("tiers", &["unparsable", "invalid", "valid"])? {
        let values = &mut rules.tiers;
        values.unparsable = read_reward(&tiers, "unparsable")?.unwrap_or(values.unparsable);
        values.invalid = read_reward(&tiers, "invalid")?.unwrap_or(values.invalid);
        values.valid = read_reward(&tiers, "valid")?.unwrap_or(values.valid);
        if !(values.unparsable <= values.invalid
            && values.invalid <= values.valid
            && values.unparsable < values.valid)
        {
            let offset = score.get("tiers").map_or(0, |(_, offset)| offset);
            let found = format!(
                "unparsable {}, invalid {}, valid {}",
                values.unparsable, values.invalid, values.valid
            );
            return Err(score.error(
                "tiers",
                offset,
                format!("must rise from unparsable through invalid to valid, not {found}"),
            ));
        }
    }
    if let Some((share, (_, offset))) = score
        .number("max_scorer_errors")?
        .zip(score.get("max_scorer_errors"))
    {
        if !(0.0..=1.0).contains(&share) {
            return Err(score.error(
                "max_scorer_errors",
                offset,
                format!("must be between 0 and 1, not {share}"),
            ));
        }
        rules.max_scorer_errors = share;
    }
    if let Some(grounded) = score.section("grounded", &["except"])? {
        rules.grounded_except = grounded.strings("except")?.unwrap_or_default();
    }
    match score.get("normalise") {
        None => {}
        Some((DeValue::Table(_), _)) => {
            let Some(fields) = score.free_section("normalise")? else {
                return Ok(rules);
            };
            for (field, _) in fields.keys() {
                rules.normalise.extend(
                    read_normalisations(&fields, field)?.map(|names| (field.to_owned(), names)),
                );
            }
        }
        Some(_) => {
            let names = read_normalisations(score, "normalise")?;
            rules
                .normalise
                .extend(names.map(|names| (ALL_FIELDS.to_owned(), names)));
        }
    }
    Ok(rules)
}

/// Bounded, so that sums, differences and squares are finite.
pub(crate) fn read_reward(section: &Section<'_>, key: &str) -> Read<Option<f64>> {
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
