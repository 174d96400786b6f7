//! Parses a scoring program's JSON answer into a verdict.

use parking_lot::Mutex;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::score::answer::json::Place;
use crate::score::verdict::{FailureClass, OrderedMap, Reason, Tier, Verdict};

/// Limit per answer; more are dropped.
const MAX_REASONS: usize = 100;
const MAX_METRICS: usize = 16;
const MAX_TEXT_CHARS: usize = 2_000;
/// Failure classes kept separate: a scorer that writes its reasons there would fill a run's log.
const MAX_CLASSES: usize = 64;

#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) id: u64,
    score: Option<f64>,
    tier: Option<Tier>,
    failure: Option<String>,
    #[serde(default)]
    reasons: Vec<AnswerReason>,
    #[serde(default)]
    metrics: Map<String, Value>,
    exact: Option<bool>,
    fields: Option<OrderedMap<bool>>,
    /// Why the program could not score.
    error: Option<String>,
    /// Why the program gives neither credit nor penalty.
    no_reward: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum AnswerReason {
    Text(String),
    Placed {
        message: String,
        #[serde(default = "one")]
        line: usize,
        #[serde(default = "one")]
        column: usize,
        #[serde(default)]
        path: String,
    },
}

fn one() -> usize {
    1
}

#[derive(Debug)]
pub(crate) struct Classes {
    by: &'static str,
    named: Mutex<Vec<FailureClass>>,
}

impl Default for Classes {
    fn default() -> Self {
        Self::of("scorer")
    }
}

impl Classes {
    pub(crate) fn of(by: &'static str) -> Self {
        Self {
            by,
            named: Mutex::default(),
        }
    }

    fn class_of(&self, name: &str) -> FailureClass {
        let Some(class) = FailureClass::from_key(name) else {
            return FailureClass::Other;
        };
        let mut seen = self.named.lock();
        match class {
            // A program cannot claim that scoring failed through a class.
            class if class.is_unscored() => FailureClass::Other,
            _ if seen.contains(&class) => class,
            _ if seen.len() >= MAX_CLASSES => FailureClass::Other,
            _ => {
                seen.push(class);
                class
            }
        }
    }
}

/// Verdict of a line without an `id`, from a program that judges a single conversation.
pub(crate) fn line_verdict(line: &str, classes: &Classes) -> Verdict {
    let with_id = |mut line: Value| {
        line.as_object_mut()
            .map(|line| line.insert("id".to_owned(), 0.into()));
        serde_json::from_value::<Answer>(line)
    };
    match serde_json::from_str(line).and_then(with_id) {
        Ok(answer) => answer.verdict(classes),
        Err(error) => failed(&malformed(classes.by, &error, line.as_bytes())),
    }
}

fn malformed(by: &str, error: &serde_json::Error, line: &[u8]) -> String {
    let line = String::from_utf8_lossy(&line[..line.len().min(200)]);
    format!(
        "the {by} wrote a malformed answer ({error}): {:?}",
        shorten(&line)
    )
}

impl Answer {
    pub(super) fn read(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| malformed("scorer", &error, line))
    }

    /// The verdict; a scorer failure if the answer is malformed.
    pub(super) fn verdict(mut self, classes: &Classes) -> Verdict {
        let by = classes.by;
        self.score = self.score.map(rounded);
        if let Some(error) = self.error {
            return failed(&format!("the {by} says: {}", shorten(&error)));
        }
        if let Some(why) = self.no_reward {
            let verdict = failed(&shorten(&why));
            return Verdict {
                failure: Some(FailureClass::NoReward),
                ..verdict
            };
        }
        let tier = match (self.tier, self.score) {
            (_, Some(score)) if !(0.0..=1.0).contains(&score) => {
                return failed(&format!(
                    "the {by} answered the score {score}: it must be between 0 and 1"
                ));
            }
            (Some(tier), _) => tier,
            (None, Some(score)) if score >= 1.0 => Tier::Valid,
            (None, Some(_)) => Tier::Invalid,
            (None, None) => {
                return failed(&format!("the {by} answered neither `score` nor `tier`"));
            }
        };
        let mut metrics = Vec::new();
        for (name, value) in self.metrics.into_iter().take(MAX_METRICS) {
            // As a metric's name in a run's log.
            let is_name = FailureClass::from_key(&name).is_some();
            match value.as_f64().filter(|value| value.is_finite() && is_name) {
                Some(value) => metrics.push((name, value)),
                None => {
                    return failed(&format!(
                        "the {by} answered the metric {:?} = {value}: it takes a name of letters, digits, `_` and `-`, and a number",
                        shorten(&name)
                    ));
                }
            }
        }
        let named = self.failure.map(|name| classes.class_of(&name));
        let failure = match tier {
            Tier::Valid => {
                named.or((self.exact == Some(false)).then_some(FailureClass::WrongValue))
            }
            _ => Some(named.unwrap_or(FailureClass::Other)),
        };
        let reasons: Vec<Reason> = self
            .reasons
            .into_iter()
            .take(MAX_REASONS)
            .map(reason)
            .collect();
        // A valid answer has warnings, not errors.
        let (errors, warnings) = match tier {
            Tier::Valid => (
                Vec::new(),
                reasons.into_iter().map(|reason| reason.message).collect(),
            ),
            _ => (reasons, Vec::new()),
        };
        Verdict {
            exact: self.exact,
            fields: self.fields,
            errors,
            warnings,
            reward: self.tier.is_none().then_some(self.score).flatten(),
            metrics: OrderedMap(metrics),
            ..Verdict::new(tier, failure)
        }
    }
}

/// Clamps a score that rounding has carried slightly out of [0, 1].
fn rounded(score: f64) -> f64 {
    const MOST_ERROR: f64 = 1e-9;
    let nearest = score.clamp(0.0, 1.0);
    match (score - nearest).abs() <= MOST_ERROR {
        true => nearest,
        false => score,
    }
}

/// The verdict, or a scorer failure if the program gave a different one before.
pub(super) fn agreed(earlier: Option<&Verdict>, now: Verdict) -> Verdict {
    let told = |verdict: &Verdict| (verdict.tier, verdict.reward, verdict.failure);
    match earlier {
        Some(earlier) if !now.is_error() && told(earlier) != told(&now) => {
            let named = |verdict: &Verdict| {
                let score = verdict
                    .reward
                    .map_or_else(String::new, |score| format!(" ({score})"));
                format!("{}{score}", verdict.tier.name())
            };
            failed(&format!(
                "the scorer is nondeterministic: {} before, {} now",
                named(earlier),
                named(&now)
            ))
        }
        _ => now,
    }
}

fn reason(reason: AnswerReason) -> Reason {
    let (message, line, column, path) = match reason {
        AnswerReason::Text(message) => (message, 1, 1, String::new()),
        AnswerReason::Placed {
            message,
            line,
            column,
            path,
        } => (message, line.max(1), column.max(1), path),
    };
    Reason {
        instance_path: shorten(&path),
        ..Reason::at(shorten(&message), Place { line, column })
    }
}

pub(super) fn shorten(text: &str) -> String {
    crate::format::shortened(text, MAX_TEXT_CHARS)
}

pub(crate) fn failed(why: &str) -> Verdict {
    Verdict::failed(why.to_owned(), ("", 0))
}
