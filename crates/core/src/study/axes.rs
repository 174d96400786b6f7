//! `--set KEY=VALUE,VALUE` and `--set KEY=FIRST..LAST`: what varies, and which combinations are run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::StudyError;
use crate::config::{ConfigError, Key, Kind};

/// A setting of a sweep: the configuration that runs of different seeds share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    pub label: String,
    /// `KEY=VALUE`, beside [`Space::fixed`].
    pub set: Vec<String>,
    /// Every key, as the sweep resolved it when it began; empty in sweeps that began before this was kept.
    #[serde(default)]
    pub resolved: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    pub key: &'static str,
    pub values: Vec<String>,
}

/// The settings that `--set` spans.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Space {
    /// In the order given, without the seed.
    pub axes: Vec<Axis>,
    /// `KEY=VALUE` of all runs.
    pub fixed: Vec<String>,
    /// Empty if none was given.
    pub seeds: Vec<u64>,
}

/// A longer range is a slip of the keyboard.
const MAX_RANGE_LEN: i64 = 10_000;

impl Space {
    /// Checks every value before anything is started.
    pub fn parse(assignments: &[String]) -> Result<Self, StudyError> {
        let mut space = Self::default();
        let mut seen = Vec::new();
        for text in assignments {
            let (name, values) = text
                .split_once('=')
                .ok_or_else(|| ConfigError::NotAnAssignment { text: text.clone() })?;
            let problem = |problem: String| StudyError::Other(format!("--set {text}: {problem}"));
            let key = Key::find(name.trim()).ok_or_else(|| ConfigError::UnknownKey {
                place: format!("--set {text}"),
                name: name.trim().to_owned(),
                nearest: Key::nearest(name.trim()).map(|key| key.name),
            })?;
            if seen.contains(&key.name) {
                return Err(problem(format!(
                    "`{}` is given twice: give all its values in one list",
                    key.name
                )));
            }
            seen.push(key.name);
            let values = expand(key, values).map_err(&problem)?;
            for (index, value) in values.iter().enumerate() {
                let parsed = key
                    .kind
                    .parse(value)
                    .map_err(|expected| ConfigError::BadValue {
                        place: format!("--set {text}"),
                        name: key.name.to_owned(),
                        found: format!("`{value}`"),
                        expected,
                    })?;
                if values[..index]
                    .iter()
                    .any(|other| key.kind.parse(other).as_ref() == Ok(&parsed))
                {
                    return Err(problem(format!("`{value}` is in the list twice")));
                }
            }
            match values.as_slice() {
                values if key.name == "seed" => {
                    space.seeds = values.iter().filter_map(|text| text.parse().ok()).collect()
                }
                [value] => space.fixed.push(format!("{}={value}", key.name)),
                _ => space.axes.push(Axis {
                    key: key.name,
                    values,
                }),
            }
        }
        Ok(space)
    }
}

/// The values of a list, or of an inclusive range.
fn expand(key: &Key, text: &str) -> Result<Vec<String>, String> {
    // An empty text is a value of some keys.
    if text.trim().is_empty() {
        return Ok(vec![String::new()]);
    }
    let range = text
        .split_once("..")
        .filter(|_| !matches!(key.kind, Kind::Text));
    if let Some((first, last)) = range {
        if !matches!(key.kind, Kind::Integer { .. }) {
            return Err(format!(
                "a range needs a key of whole numbers, and `{}` is {}: list its values",
                key.name, key.kind
            ));
        }
        let bound = |text: &str| {
            text.trim()
                .trim_start_matches('=')
                .replace('_', "")
                .parse::<i64>()
        };
        let (Ok(first), Ok(last)) = (bound(first), bound(last)) else {
            return Err("a range is FIRST..LAST, two whole numbers, both included".to_owned());
        };
        return match last.checked_sub(first) {
            Some(0..MAX_RANGE_LEN) => Ok((first..=last).map(|value| value.to_string()).collect()),
            Some(..0) => Err(format!(
                "the range is empty, {first} is above {last}: write {last}..{first}"
            )),
            _ => Err(format!("a range has at most {MAX_RANGE_LEN} values")),
        };
    }
    let values: Vec<String> = text
        .split(',')
        .map(|value| value.trim().to_owned())
        .collect();
    if values.iter().any(String::is_empty) {
        return Err(
            "a value of the list is empty: remove the comma, or write the value".to_owned(),
        );
    }
    Ok(values)
}

/// Every combination, the last key varying fastest; one empty combination without keys.
pub fn grid(axes: &[Axis]) -> Vec<Vec<(&'static str, String)>> {
    axes.iter().fold(vec![Vec::new()], |settings, axis| {
        let extended = |setting: &Vec<(&'static str, String)>| {
            let with = |value: &String| [setting.as_slice(), &[(axis.key, value.clone())]].concat();
            axis.values.iter().map(with).collect::<Vec<_>>()
        };
        settings.iter().flat_map(extended).collect()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn space(set: &[&str]) -> Result<Space, String> {
        Space::parse(
            &set.iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>(),
        )
        .map_err(|error| error.to_string())
    }

    #[test]
    fn lists_and_ranges() {
        let check = |set: &[&str], axes: &[(&str, &[&str])], fixed: &[&str], seeds: &[u64]| {
            let found = space(set).unwrap();
            let found_axes: Vec<_> = found
                .axes
                .iter()
                .map(|axis| {
                    (
                        axis.key,
                        axis.values.iter().map(String::as_str).collect::<Vec<_>>(),
                    )
                })
                .collect();
            assert_eq!(
                found_axes,
                axes.iter()
                    .map(|(key, values)| (*key, values.to_vec()))
                    .collect::<Vec<_>>()
            );
            assert_eq!(
                (found.fixed, found.seeds.as_slice()),
                (fixed.iter().map(|text| (*text).to_owned()).collect(), seeds)
            );
        };
        check(
            &["learning_rate=1e-5,3e-5", "seed=0..2"],
            &[("learning_rate", &["1e-5", "3e-5"])],
            &[],
            &[0, 1, 2],
        );
        check(&["max_steps=10", "seed=7"], &[], &["max_steps=10"], &[7]);
        check(
            &["lora_rank=0..=2"],
            &[("lora_rank", &["0", "1", "2"])],
            &[],
            &[],
        );
        check(
            &["policy_loss=grpo, dapo", "stop_when="],
            &[("policy_loss", &["grpo", "dapo"])],
            &["stop_when="],
            &[],
        );
        // A path is not a range.
        check(
            &["base_model=../a,../b"],
            &[("base_model", &["../a", "../b"])],
            &[],
            &[],
        );
        check(&["base_model=../a"], &[], &["base_model=../a"], &[]);
        check(&["seed=4..4"], &[], &[], &[4]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        let check = |text: &str, expected: &[&str]| {
            let error = space(&[text]).unwrap_err();
            assert!(
                expected.iter().all(|part| error.contains(part)),
                "{text}: {error}"
            );
        };
        check(
            "learning_rat=1,2",
            &["--set learning_rat=1,2", "did you mean `learning_rate`?"],
        );
        check("seed", &["--set seed", "key=value"]);
        check(
            "learning_rate=1e-5,20",
            &["`learning_rate` is `20`; it must be a number from 0 to 10"],
        );
        check("seed=2..0", &["the range is empty", "write 0..2"]);
        check("seed=0..x", &["FIRST..LAST"]);
        check("seed=0..1000000", &["at most 10000 values"]);
        check(
            "learning_rate=0..2",
            &["a range needs a key of whole numbers", "list its values"],
        );
        check(
            "completions_per_prompt=4..5000",
            &["`4097`", "from 1 to 4096"],
        );
        check(
            "learning_rate=1e-5,,2e-5",
            &["a value of the list is empty"],
        );
        check(
            "learning_rate=1e-5,0.00001",
            &["`0.00001` is in the list twice"],
        );
        let error = space(&["seed=1", "seed=2"]).unwrap_err();
        assert!(error.contains("given twice"), "{error}");
    }

    #[test]
    fn combinations() {
        let axis = |key, values: &[&str]| Axis {
            key,
            values: values.iter().map(|text| (*text).to_owned()).collect(),
        };
        let check = |axes: &[Axis], expected: &[&str]| {
            let shown: Vec<String> = grid(axes)
                .iter()
                .map(|setting| {
                    setting
                        .iter()
                        .map(|(key, value)| format!("{key}{value}"))
                        .collect::<Vec<_>>()
                        .join(" ")
                })
                .collect();
            assert_eq!(shown, expected);
        };
        check(&[], &[""]);
        check(&[axis("a", &["1", "2"])], &["a1", "a2"]);
        check(
            &[axis("a", &["1", "2"]), axis("b", &["3", "4"])],
            &["a1 b3", "a1 b4", "a2 b3", "a2 b4"],
        );
    }
}
