//! Every kind of event in `events.jsonl`: `{"v":1,"seq":n,"t":unix_ms,"kind":"step",...}`, one a line.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::evals::EvalSummary;
use crate::advantage::GroupSignal;
use crate::task::current_set_name;

/// The version of an event line that this program writes and the newest that it reads.
pub const EVENT_VERSION: u64 = 1;

/// One line of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Position in the log, from 1, without gaps unless lines were lost.
    pub seq: u64,
    /// When it was written, milliseconds since 1970 by the worker's clock, which may jump.
    pub time_ms: u64,
    pub body: EventBody,
}

/// Declare the body enum with its written kinds once, for writing and reading alike.
macro_rules! bodies {
    ($($(#[$meta:meta])* $variant:ident($type:ty) = $kind:literal),+ $(,)?) => {
        /// What an event says, by kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum EventBody {
            $($(#[$meta])* $variant($type)),+,
            /// A kind that this program does not know; kept by name, otherwise ignored.
            Unknown(String),
        }

        impl EventBody {
            /// The written kind.
            pub fn kind(&self) -> &str {
                match self { $(Self::$variant(_) => $kind),+, Self::Unknown(kind) => kind }
            }

            fn parse(kind: &str, line: &str) -> Result<Self, serde_json::Error> {
                match kind {
                    $($kind => serde_json::from_str(line).map(Self::$variant),)+
                    other => Ok(Self::Unknown(other.to_owned())),
                }
            }

            fn write(&self, head: &Head<'_>) -> Result<Vec<u8>, serde_json::Error> {
                match self {
                    $(Self::$variant(body) => serde_json::to_vec(&Line { head, body }),)+
                    Self::Unknown(_) => serde_json::to_vec(head),
                }
            }
        }

        $(impl From<$type> for EventBody {
            fn from(body: $type) -> Self { Self::$variant(body) }
        })+
    };
}

bodies! {
    /// The first line, and once more after each resume.
    Run(Run) = "run",
    /// What the run needs of its GPU, recorded before its weights are read.
    Memory(Memory) = "memory",
    /// What the worker does now.
    Phase(Phase) = "phase",
    /// One optimizer step, after its groups.
    Step(Step) = "step",
    /// One group of completions; its texts are in `rollouts/`.
    Group(Group) = "group",
    /// Its completions are in `evals/`.
    Eval(Eval) = "eval",
    Checkpoint(Checkpoint) = "checkpoint",
    Device(Device) = "device",
    /// A condition that needs attention.
    Alert(Alert) = "alert",
    Control(Control) = "control",
    Note(Note) = "note",
    /// What was sealed or will be redone after an interruption.
    Recovered(Recovered) = "recovered",
    End(End) = "end",
}

/// Who computes what.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    pub id: String,
    /// `train`, `sft`, `eval` or `pretrain`.
    pub job: String,
    pub config_digest: String,
    /// SHA-256 of the starting model.
    pub model_digest: String,
    /// The device in words.
    pub device: String,
    /// Versions by name: program, driver and so on.
    pub versions: BTreeMap<String, String>,
    /// Optimizer steps planned.
    pub total_steps: u64,
}

/// What the run needs of its GPU, and how its gradient is computed for that.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The most that it will need, by the plan.
    pub peak_bytes: u64,
    /// What is free, with what the worker holds already.
    pub usable_bytes: u64,
    /// The GPU's memory.
    pub total_bytes: u64,
    /// The plan by part; not all are there at once.
    pub parts: BTreeMap<String, u64>,
    /// Tokens forwarded at once in training.
    pub tokens_per_micro_batch: usize,
    /// Whether activations are recomputed instead of kept.
    pub recompute_activations: bool,
}

/// What the worker does now.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Phase {
    /// The step it belongs to.
    pub step: u64,
    /// `load`, `rollout`, `update`, `eval`, `checkpoint` or `paused`.
    pub phase: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// Counted from 1.
    pub step: u64,
    /// Wall-clock time of the step.
    pub seconds: f64,
    /// Values by TRL's names where it has one; a value that is not finite is written as null and read as NaN.
    #[serde(deserialize_with = "null_is_nan_map")]
    pub metrics: BTreeMap<String, f64>,
}

/// One group of completions; the lists run over the completions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    /// The step that it fed.
    pub step: u64,
    pub prompt_id: String,
    /// Reward of each completion.
    #[serde(deserialize_with = "null_is_nan_list")]
    pub rewards: Vec<f64>,
    /// `unparsable`, `invalid` or `valid`, each.
    pub tiers: Vec<String>,
    #[serde(deserialize_with = "null_is_nan_list")]
    pub advantages: Vec<f64>,
    /// Tokens of each, the stop token included.
    pub token_counts: Vec<usize>,
    /// Why each ended: `stop`, `length`, ...
    pub stop_reasons: Vec<String>,
    /// Whether the group is informative; `dead` in the files of older programs.
    #[serde(alias = "dead")]
    pub signal: GroupSignal,
    /// Whether dynamic sampling replaced it: the step did not train on it, and its shares do not count it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replaced: bool,
    /// The file with the texts, relative to the run.
    pub file: String,
    /// The line there, from 1.
    pub line: u64,
}

/// One target on one prompt set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Eval {
    /// The step whose weights were read; 0 is the base.
    pub step: u64,
    /// `eval`, `test` (which older programs called `proof`), or a file's name.
    #[serde(deserialize_with = "set_name")]
    pub set: String,
    /// `base` or `trained`.
    pub target: String,
    pub summary: EvalSummary,
    /// The file with the completions, relative to the run.
    pub file: String,
    /// Wall-clock time of the eval.
    pub seconds: f64,
}

fn set_name<'de, D: serde::Deserializer<'de>>(text: D) -> Result<String, D::Error> {
    String::deserialize(text).map(|name| current_set_name(&name).to_owned())
}

impl Eval {
    /// Whose weights were read: `base`, also where the eval at step 0 was called the trained model's, else `trained`.
    pub fn who(&self) -> &str {
        if self.step == 0 { "base" } else { &self.target }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// The step after which it was taken.
    pub step: u64,
    /// Its folder, relative to the run.
    pub path: String,
    pub bytes: u64,
    /// `start`, `interval`, `eval`, `asked`, `interrupted`, `end` or `found`.
    pub why: String,
    /// Checkpoints removed by the keep rules after this one was durable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<u64>,
    /// Seconds from its beginning until it was durable; None where no worker measured it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Seconds of these in which training stood still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_seconds: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// The device in words.
    pub device: String,
    /// Share of time in use, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilisation: Option<f64>,
    /// Memory in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    /// Memory there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// Power used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_watts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<f64>,
}

/// A condition that needs attention.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Alert {
    pub rule: String,
    /// `info`, `warning` or `error`.
    pub level: String,
    /// The step at which it was raised.
    pub step: u64,
    /// The value that violates the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// What happened.
    pub sentence: String,
    /// What to do.
    pub suggestion: String,
    /// Whether the alert is resolved.
    pub cleared: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Control {
    /// `pause`, `resume`, `checkpoint`, `eval`, `stop`, `set`, ...
    pub verb: String,
    pub arguments: BTreeMap<String, serde_json::Value>,
    pub user_id: u32,
    /// The step at which it takes effect.
    pub step: u64,
    /// Tells it from every other request to the run, so that none is recorded twice; empty where it was recorded the
    /// moment it was accepted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    pub text: String,
}

/// What was sealed or will be redone after an interruption.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Recovered {
    /// Bytes dropped with a torn last line.
    pub dropped_bytes: u64,
    /// The step from which the run resumes: everything recorded for later steps is void and will be redone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<u64>,
    /// The same in words.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    /// `finished`, `failed` or `interrupted`.
    pub status: String,
    /// Why, as a sentence.
    pub cause: String,
    /// Steps done.
    pub step: u64,
    /// Wall-clock time of this worker.
    pub seconds: f64,
}

#[derive(Serialize)]
struct Head<'a> {
    v: u64,
    seq: u64,
    t: u64,
    kind: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nonfinite: Vec<String>,
}

#[derive(Serialize)]
struct Line<'a, B> {
    #[serde(flatten)]
    head: &'a Head<'a>,
    #[serde(flatten)]
    body: &'a B,
}

#[derive(Deserialize)]
struct ReadHead<'a> {
    v: u64,
    seq: u64,
    #[serde(default)]
    t: u64,
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

/// Why a line is no event of ours.
#[derive(Debug, Clone, PartialEq)]
pub enum BadLine {
    /// Not an event; the reason.
    Malformed(String),
    /// From a newer program; its version.
    Newer(u64),
}

impl Event {
    /// The line as it stands in the file, newline included. Numbers that are not finite become null and are named in
    /// `nonfinite`.
    ///
    /// # Errors
    /// Only where a map inside has keys that JSON cannot hold, which no kind has.
    pub fn to_line(&self) -> Result<Vec<u8>, serde_json::Error> {
        let nonfinite = self.body.nonfinite();
        let head = Head { v: EVENT_VERSION, seq: self.seq, t: self.time_ms, kind: self.body.kind(), nonfinite };
        let mut line = self.body.write(&head)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Read one line, without its newline.
    ///
    /// # Errors
    /// [`BadLine`].
    pub fn from_line(line: &str) -> Result<Self, BadLine> {
        let malformed = |error: serde_json::Error| BadLine::Malformed(error.to_string());
        let head: ReadHead<'_> = serde_json::from_str(line).map_err(malformed)?;
        if head.v > EVENT_VERSION {
            return Err(BadLine::Newer(head.v));
        }
        let body = EventBody::parse(&head.kind, line).map_err(malformed)?;
        Ok(Self { seq: head.seq, time_ms: head.t, body })
    }
}

impl EventBody {
    /// Whether the record must be on the disk before the worker continues.
    pub fn must_be_durable(&self) -> bool {
        matches!(
            self,
            Self::Run(_) | Self::Eval(_) | Self::Checkpoint(_) | Self::Control(_) | Self::Recovered(_) | Self::End(_)
        )
    }

    /// Names of the numbers that JSON cannot hold.
    fn nonfinite(&self) -> Vec<String> {
        let listed = |name: &str, values: &[f64]| {
            values
                .iter()
                .enumerate()
                .filter(|(_, value)| !value.is_finite())
                .map(|(index, _)| format!("{name}/{index}"))
                .collect::<Vec<_>>()
        };
        match self {
            Self::Step(step) => {
                step.metrics.iter().filter(|(_, value)| !value.is_finite()).map(|(name, _)| name.clone()).collect()
            }
            Self::Group(group) => [listed("rewards", &group.rewards), listed("advantages", &group.advantages)].concat(),
            Self::Alert(alert) => {
                alert.value.filter(|value| !value.is_finite()).map(|_| "value".to_owned()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Now, in milliseconds since 1970; 0 where the clock stands before that.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    crate::files::test_clock(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Now, in this host's time zone; the end of the year 9999 where the clock stands beyond it.
pub(super) fn local_now() -> jiff::Zoned {
    let now = i64::try_from(now_ms()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    now.unwrap_or(jiff::Timestamp::MAX).to_zoned(jiff::tz::TimeZone::system())
}

fn null_is_nan_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    Ok(Vec::<Option<f64>>::deserialize(deserializer)?.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
}

fn null_is_nan_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let values = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}
