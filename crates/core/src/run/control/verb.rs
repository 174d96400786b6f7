//! Requests to a worker: verbs, arguments, and validation.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::confidence::AnswerConfidence;
use crate::config::Key;
use crate::environment::ToolChain;
use crate::facts::{StopReason, Target, VerbName};
use crate::run::error::RunError;
use crate::run::record::history::RunState;
use crate::secrets::is_control;

/// The keys that can be changed during a run.
pub const SETTABLE: [&str; 3] = ["learning_rate", "temperature", "max_steps"];

const MAX_NOTE_CHARS: usize = 4096;

const MAX_SAMPLES: u64 = 64;

#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    /// Status request; not recorded as an event.
    Status,
    Pause,
    Resume,
    Checkpoint,
    Eval,
    Sample(Sample),
    /// Stops after the current step, unless `now`.
    Stop {
        now: bool,
    },
    Annotate {
        /// Text without control characters, except line ends and tabs.
        text: String,
    },
    /// Changes the configuration from the next step on. Keys are among [`SETTABLE`]; values are
    /// numbers within the key's range.
    Set {
        changes: BTreeMap<String, Value>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The id of a prompt row in any of the task's sets, or a whole row.
    pub row: Value,
    /// Number of completions, 1 to 64.
    pub n: usize,
    /// 0 is greedy.
    pub temperature: f64,
    /// `None`: the limit of the run's configuration or the task.
    pub max_tokens: Option<usize>,
    /// Samples from the base model instead of the trained one.
    pub base: bool,
    pub seed: u64,
    /// The task that defines rows, template switches and scorer: an absolute path, or the name of
    /// an embedded task. `None`: the run's task; without a run the request is refused.
    pub task: Option<String>,
    /// Whether values of JSON answers get their confidence.
    pub confidence: bool,
}

/// One completion: the `result` of a `part` answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SampledCompletion {
    pub prompt_id: String,
    /// Index of the sample, from 0.
    pub sample: usize,
    /// The tool calls that led to this answer, and why the turn ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<ToolChain>,
    /// Seconds of each tool call, in order. Times are kept outside `chain`, which is reproducible.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub call_seconds: Vec<f64>,
    pub text: String,
    pub token_ids: Vec<u32>,
    /// Log-probs under the sampling distribution, nats.
    pub log_probs: Vec<f32>,
    pub stop_reason: StopReason,
    /// Score in the format of `score --json`: `reward`, `tier`, `errors`, ...
    pub score: Value,
    /// Of the text's values, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Box<AnswerConfidence>>,
    pub target: Target,
    /// The step of an active run's weights; `None` for other models.
    pub step: Option<u64>,
}

impl Verb {
    /// Parses a verb with its arguments, as written in a request or a `control` event.
    ///
    /// # Errors
    /// A sentence for the user with what is wrong and what is valid.
    pub fn parse(name: &str, arguments: &Map<String, Value>) -> Result<Self, String> {
        let verb = VerbName::from_name(name).ok_or_else(|| {
            format!(
                "unknown verb `{}`; there are {}",
                name.chars().take(40).collect::<String>(),
                VerbName::NAMES.join(", ")
            )
        })?;
        let request = RequestArguments { name, arguments };
        match verb {
            VerbName::Status => request.only(&[]).map(|()| Self::Status),
            VerbName::Pause => request.only(&[]).map(|()| Self::Pause),
            VerbName::Resume => request.only(&[]).map(|()| Self::Resume),
            VerbName::Checkpoint => request.only(&[]).map(|()| Self::Checkpoint),
            VerbName::Eval => request.only(&[]).map(|()| Self::Eval),
            VerbName::Stop => {
                request.only(&["now"])?;
                Ok(Self::Stop {
                    now: request.flag("now")?,
                })
            }
            VerbName::Annotate => {
                request.only(&["text"])?;
                note_text(request.text("text")?.unwrap_or_default())
                    .map(|text| Self::Annotate { text })
            }
            VerbName::Set => changes(arguments).map(|changes| Self::Set { changes }),
            VerbName::Sample => sample(&request).map(Self::Sample),
        }
    }

    /// Parses the assignments of a `set`, such as `learning_rate=1e-5`.
    ///
    /// # Errors
    /// A sentence for the user with what is wrong and what is valid.
    pub fn set<'a>(assignments: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut arguments = Map::new();
        for assignment in assignments {
            let (name, value) = assignment
                .split_once('=')
                .ok_or_else(|| format!("`{assignment}` is not KEY=VALUE"))?;
            let (name, value) = (name.trim(), value.trim());
            let number = settable(name)?
                .kind
                .parse(value)
                .map_err(|expected| out_of_range(name, value, &expected))?;
            if arguments.insert(name.to_owned(), json!(number)).is_some() {
                return Err(format!("{name} is set twice"));
            }
        }
        changes(&arguments).map(|changes| Self::Set { changes })
    }

    pub fn name(&self) -> VerbName {
        match self {
            Self::Status => VerbName::Status,
            Self::Pause => VerbName::Pause,
            Self::Resume => VerbName::Resume,
            Self::Checkpoint => VerbName::Checkpoint,
            Self::Eval => VerbName::Eval,
            Self::Sample(_) => VerbName::Sample,
            Self::Stop { .. } => VerbName::Stop,
            Self::Annotate { .. } => VerbName::Annotate,
            Self::Set { .. } => VerbName::Set,
        }
    }

    pub fn arguments(&self) -> BTreeMap<String, Value> {
        let one = |name: &str, value: Value| BTreeMap::from([(name.to_owned(), value)]);
        match self {
            Self::Stop { now: true } => one("now", json!(true)),
            Self::Annotate { text } => one("text", json!(text)),
            Self::Set { changes } => changes.clone(),
            Self::Sample(sample) => {
                let target = if sample.base { "base" } else { "trained" };
                let mut arguments = BTreeMap::from([
                    ("row".to_owned(), sample.row.clone()),
                    ("n".to_owned(), json!(sample.n)),
                    ("temperature".to_owned(), json!(sample.temperature)),
                    ("target".to_owned(), json!(target)),
                    ("seed".to_owned(), json!(sample.seed)),
                ]);
                arguments.extend(
                    sample
                        .max_tokens
                        .map(|tokens| ("max_tokens".to_owned(), json!(tokens))),
                );
                arguments.extend(
                    sample
                        .task
                        .iter()
                        .map(|task| ("task".to_owned(), json!(task))),
                );
                let confidence = sample
                    .confidence
                    .then(|| ("confidence".to_owned(), json!(true)));
                arguments.extend(confidence);
                arguments
            }
            _ => BTreeMap::new(),
        }
    }

    /// Why a finished run does not accept the verb.
    pub fn why_not_after_the_end(&self) -> &'static str {
        match self {
            Self::Pause | Self::Resume => "nothing to pause",
            Self::Checkpoint => "nothing to save",
            Self::Stop { .. } => "nothing to stop",
            _ => "its worker has exited",
        }
    }

    pub fn is_work(&self) -> bool {
        matches!(self, Self::Checkpoint | Self::Eval | Self::Sample(_))
    }
}

/// Changed values by key, by the first step to which they apply. Together with `run.toml` they are
/// the effective configuration.
pub type Settings = BTreeMap<u64, BTreeMap<String, Value>>;

/// Returns the changes of all `set` requests of a run. If a key was set several times for one step,
/// the last value counts.
///
/// # Errors
/// [`RunError::Malformed`] naming the log, for a `set` that this program does not understand:
/// ignoring it would change the run.
pub fn settings(run: &Path, history: &RunState) -> Result<Settings, RunError> {
    let mut settings = Settings::new();
    for control in history
        .controls
        .iter()
        .filter(|control| control.verb == VerbName::Set)
    {
        let malformed = |message| {
            let message = format!("step {}: {message}", control.step);
            RunError::Malformed {
                path: run.join("events.jsonl"),
                line: None,
                message,
            }
        };
        if let Verb::Set { changes } =
            Verb::parse("set", &control.arguments.clone().into_iter().collect())
                .map_err(malformed)?
        {
            settings.entry(control.step).or_default().extend(changes);
        }
    }
    Ok(settings)
}

struct RequestArguments<'a> {
    name: &'a str,
    arguments: &'a Map<String, Value>,
}

impl RequestArguments<'_> {
    fn only(&self, known: &[&str]) -> Result<(), String> {
        let Some(unknown) = self
            .arguments
            .keys()
            .find(|name| !known.contains(&name.as_str()))
        else {
            return Ok(());
        };
        let takes = if known.is_empty() {
            "takes no arguments".to_owned()
        } else {
            format!("takes {}", known.join(", "))
        };
        Err(format!(
            "{}: unknown argument `{}`; it {takes}",
            self.name,
            unknown.chars().take(40).collect::<String>()
        ))
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        self.optional(name, Value::as_bool, "true or false")
            .map(Option::unwrap_or_default)
    }

    fn text(&self, name: &str) -> Result<Option<String>, String> {
        self.optional(name, |value| value.as_str().map(str::to_owned), "a string")
    }

    fn whole(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, String> {
        let fits = |value: &Value| value.as_u64().filter(|number| range.contains(number));
        self.optional(
            name,
            fits,
            &format!("a whole number from {} to {}", range.start(), range.end()),
        )
    }

    fn optional<T>(
        &self,
        name: &str,
        read: impl Fn(&Value) -> Option<T>,
        expected: &str,
    ) -> Result<Option<T>, String> {
        match self.arguments.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .ok_or_else(|| format!("{}: `{name}` must be {expected}", self.name)),
        }
    }
}

fn note_text(text: String) -> Result<String, String> {
    // Notes are printed on terminals, so escape sequences are removed.
    let text: String = text
        .chars()
        .filter(|letter| !is_control(*letter) || matches!(letter, '\n' | '\t'))
        .collect();
    let text = text.trim().to_owned();
    match text.chars().count() {
        0 => Err("annotate: the note is empty".to_owned()),
        length if length > MAX_NOTE_CHARS => Err(format!(
            "annotate: the note has {length} characters (limit {MAX_NOTE_CHARS})"
        )),
        _ => Ok(text),
    }
}

fn settable(name: &str) -> Result<&'static Key, String> {
    let key = Key::find(name).filter(|key| SETTABLE.contains(&key.name));
    key.ok_or_else(|| {
        let shown: String = name.chars().take(40).collect();
        let known = if Key::find(name).is_some() {
            "cannot change while the run is active"
        } else {
            "is not a configuration key"
        };
        format!("set: `{shown}` {known}; these can: {}", SETTABLE.join(", "))
    })
}

fn out_of_range(name: &str, found: &str, expected: &str) -> String {
    format!(
        "set: {name} = {} is invalid; it must be {expected}",
        found.chars().take(40).collect::<String>()
    )
}

fn changes(arguments: &Map<String, Value>) -> Result<BTreeMap<String, Value>, String> {
    if arguments.is_empty() {
        return Err(format!(
            "set: name a key and its value, such as learning_rate=1e-5; these can change: {}",
            SETTABLE.join(", ")
        ));
    }
    let mut changes = BTreeMap::new();
    for (name, value) in arguments {
        let key = settable(name)?;
        let text = match value {
            Value::Number(number) => number.to_string(),
            other => {
                return Err(out_of_range(
                    name,
                    &other.to_string(),
                    &key.kind.to_string(),
                ));
            }
        };
        let fitting = key
            .kind
            .parse(&text)
            .map_err(|expected| out_of_range(name, &text, &expected))?;
        changes.insert(name.clone(), json!(fitting));
    }
    Ok(changes)
}

fn sample(request: &RequestArguments<'_>) -> Result<Sample, String> {
    request.only(&[
        "row",
        "n",
        "temperature",
        "max_tokens",
        "target",
        "seed",
        "task",
        "confidence",
    ])?;
    let row = request
        .arguments
        .get("row")
        .filter(|row| row.is_string() || row.is_object())
        .cloned();
    let temperature = request.optional(
        "temperature",
        |value| value.as_f64().filter(|t| (0.0..=10.0).contains(t)),
        "a number from 0 to 10",
    )?;
    let target = request
        .text("target")?
        .unwrap_or_else(|| "trained".to_owned());
    Ok(Sample {
        row: row.ok_or("sample: `row` must be a prompt's id or a whole row")?,
        n: request.whole("n", 1..=MAX_SAMPLES)?.unwrap_or(1) as usize,
        temperature: temperature.unwrap_or(1.0),
        max_tokens: request
            .whole("max_tokens", 1..=1 << 20)?
            .map(|tokens| tokens as usize),
        base: match target.as_str() {
            "base" => true,
            "trained" => false,
            _ => return Err("sample: `target` must be base or trained".to_owned()),
        },
        seed: request.whole("seed", 0..=i64::MAX as u64)?.unwrap_or(0),
        task: request.text("task")?,
        confidence: request.flag("confidence")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, arguments: &Value) -> Result<Verb, String> {
        Verb::parse(name, arguments.as_object().unwrap_or(&Map::new()))
    }

    #[test]
    fn verbs_are_read_and_written_alike() {
        let check = |name: &str, arguments: Value| {
            let verb =
                parse(name, &arguments).map_err(|error| format!("{name} {arguments}: {error}"));
            let again = verb.clone().and_then(|verb| {
                Verb::parse(verb.name().name(), &verb.arguments().into_iter().collect())
            });
            assert!(verb.is_ok() && again == verb, "{verb:?} {again:?}");
        };
        for name in ["status", "pause", "resume", "checkpoint", "eval", "stop"] {
            check(name, json!({}));
        }
        check("stop", json!({"now": true}));
        check("annotate", json!({"text": "looks good\nso far"}));
        check(
            "set",
            json!({"learning_rate": 1e-5, "temperature": 1, "max_steps": 40}),
        );
        check(
            "sample",
            json!({"row": "p1", "n": 4, "temperature": 0, "max_tokens": 64, "target": "base", "seed": 7, "task": "/w/tasks/invoice", "confidence": true}),
        );
        check("sample", json!({"row": {"messages": []}}));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let check = |name: &str, arguments: Value, expected: &str| {
            let error = parse(name, &arguments).err().unwrap_or_default();
            assert!(
                error.contains(expected),
                "{name} {arguments}: {error:?} lacks {expected:?}"
            );
        };
        check("halt", json!({}), "unknown verb `halt`");
        check(
            "pause",
            json!({"now": true}),
            "unknown argument `now`; it takes no arguments",
        );
        check("stop", json!({"now": 1}), "`now` must be true or false");
        check(
            "annotate",
            json!({"text": "\u{1b}\u{7}  "}),
            "the note is empty",
        );
        check(
            "annotate",
            json!({"text": "x".repeat(5000)}),
            "5000 characters (limit 4096",
        );
        check("set", json!({}), "name a key");
        check(
            "set",
            json!({"learning_rate": 11}),
            "learning_rate = 11 is invalid; it must be a number from 0 to 10",
        );
        check(
            "set",
            json!({"learning_rate": "1e-5"}),
            "must be a number from 0 to 10",
        );
        check("set", json!({"max_steps": 1.5}), "must be a whole number");
        check(
            "set",
            json!({"seed": 1}),
            "`seed` cannot change while the run is active; these can: learning_rate",
        );
        check(
            "set",
            json!({"learning_rat": 1}),
            "`learning_rat` is not a configuration key",
        );
        check("sample", json!({"n": 1}), "`row` must be");
        for n in [0, 65] {
            check(
                "sample",
                json!({"row": "p", "n": n}),
                "`n` must be a whole number from 1 to 64",
            );
        }
        check(
            "sample",
            json!({"row": "p", "max_tokens": 0}),
            "`max_tokens` must be a whole number from 1 to",
        );
        check(
            "sample",
            json!({"row": "p", "target": "best"}),
            "`target` must be base or trained",
        );
        check(
            "sample",
            json!({"row": "p", "temperature": -1}),
            "a number from 0 to 10",
        );
    }

    #[test]
    fn typed_assignments() {
        let set = Verb::set(["learning_rate=1e-5", "max_steps = 40"]);
        assert_eq!(
            set,
            Ok(Verb::Set {
                changes: BTreeMap::from([
                    ("learning_rate".into(), json!(1e-5)),
                    ("max_steps".into(), json!(40))
                ])
            })
        );
        for (typed, expected) in [
            ("learning_rate", "is not KEY=VALUE"),
            ("temperature=0", "from 0.01 to 10"),
            ("epochs=2", "cannot change"),
        ] {
            let error = Verb::set([typed]).err().unwrap_or_default();
            assert!(error.contains(expected), "{typed}: {error}");
        }
        assert_eq!(
            Verb::set(["temperature=1", "temperature=2"]),
            Err("temperature is set twice".to_owned())
        );
    }
}
