//! `[score] kind = "python"`: a reward function, called as other trainers call theirs (`_reward.py`, which the
//! Python package shares).

use std::sync::Arc;

use serde_json::json;

use super::keys::{ERRORS, FILES, ISOLATION, MAX_PROCESSES, MEMORY, OUTPUT, PROCESSES, READ};
use crate::score::definition::{KeyInfo, Kind};
use crate::score::needs::{CommandMode, CommandRules, PythonRules};
use crate::task::{Home, Read, Section, finite_number};

const SCRIPT: &str = include_str!("../../../../../../python/grpo_tui/_reward.py");
const EXAMPLE: &str = "reward = \"rewards.py:score\"";
/// An environment below the task's folder, if there is one: where `uv sync` makes it.
const ENVIRONMENT: &str = ".venv";

pub(crate) static PYTHON: Kind = Kind {
    name: "python",
    about: include_str!("python.about.md"),
    keys: &[],
    score_keys: &[
        KeyInfo::new("reward", "", "the function, as `FILE:NAME`"),
        KeyInfo::new(
            "python",
            "`.venv` of the task if it is there, else python3",
            "a program, or the folder of a virtual environment",
        ),
        KeyInfo::new(
            "range",
            "[0, 1]",
            "the numbers that count as 0 and 1; those beyond count as these",
        ),
        KeyInfo::new(
            "completions",
            "as the function's form has it",
            "text or messages: what the function is given",
        ),
        KeyInfo::new(
            "zero",
            "invalid",
            "invalid or unparsable: the tier of an answer that earns nothing",
        ),
        FILES,
        PROCESSES,
        KeyInfo::new("seconds", "10", "time limit of a call"),
        MEMORY,
        MAX_PROCESSES,
        OUTPUT,
        ISOLATION,
        READ,
        ERRORS,
    ],
    read: |_, score, home| Ok((Arc::new(CommandRules::read_python(score, home)?), None)),
};

impl CommandRules {
    fn read_python(score: &Section<'_>, home: &Home) -> Read<Self> {
        let (reward, (_, offset)) = score
            .string("reward")?
            .zip(score.get("reward"))
            .ok_or_else(|| home.missing("score.reward", EXAMPLE))?;
        let wrong = |message: String| score.error("reward", offset, message);
        let (file, _) = reward
            .rsplit_once(':')
            .filter(|(file, name)| file.ends_with(".py") && !name.is_empty())
            .ok_or_else(|| wrong(format!("is {reward:?}: write for example `{EXAMPLE}`")))?;
        let file = home.name(file.to_owned())?;
        home.open(&file)
            .map_err(|error| wrong(format!("names {file}: {error}")))?;
        let rules = PythonRules {
            range: range(score)?,
            completions: score
                .choice("completions", ["text", "messages"].map(|form| (form, form)))?,
            zero: score
                .choice("zero", ["invalid", "unparsable"].map(|tier| (tier, tier)))?
                .unwrap_or("invalid"),
        };
        let command = vec![interpreter(score, home)?, reward];
        let mut read = Self::with_command(CommandMode::Python(rules), command, score, home)?;
        if !read.files.contains(&file) {
            read.files.insert(0, file);
        }
        Ok(read)
    }
}

impl PythonRules {
    /// As JSON.
    pub(super) fn settings(&self) -> String {
        json!({"range": self.range, "completions": self.completions, "zero": self.zero}).to_string()
    }
}

/// Program and arguments of a process that answers lines.
pub(super) fn started(rules: &CommandRules) -> Vec<String> {
    let mut started = rules.command.clone();
    if let CommandMode::Python(python) = &rules.mode {
        // Interpreter, then `FILE:NAME`.
        started.splice(1..1, ["-c", SCRIPT].map(str::to_owned));
        started.push(python.settings());
    }
    started
}

/// The numbers that count as 0 and 1.
fn range(score: &Section<'_>) -> Read<Option<[f64; 2]>> {
    let Some((value, offset)) = score.get("range") else {
        return Ok(None);
    };
    let ends = value.as_array().map(|ends| {
        let ends = ends.iter().map(|end| finite_number(end.get_ref()));
        ends.collect::<Option<Vec<f64>>>()
    });
    match ends.flatten().as_deref() {
        Some(&[least, full]) if least < full && (full - least).is_finite() => {
            Ok(Some([least, full]))
        }
        _ => Err(score.error(
            "range",
            offset,
            "takes two numbers, the least and the full reward, such as [-1.0, 2.0]",
        )),
    }
}

fn interpreter(score: &Section<'_>, home: &Home) -> Read<String> {
    let environment = |folder: &str| format!("{}/bin/python", folder.trim_end_matches('/'));
    let exists = |name: &str| {
        home.folder()
            .is_some_and(|folder| folder.join(name).exists())
    };
    Ok(match score.string("python")? {
        Some(named) if exists(&environment(&named)) || named.ends_with(ENVIRONMENT) => {
            environment(&named)
        }
        Some(named) => named,
        None if exists(&environment(ENVIRONMENT)) => environment(ENVIRONMENT),
        None => "python3".to_owned(),
    })
}
