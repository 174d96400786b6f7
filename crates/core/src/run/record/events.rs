//! All kinds of events in `events.jsonl`, one per line:
//! `{"v":1,"seq":n,"t":unix_ms,"kind":"step",...}`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::advantage::GroupSignal;
use crate::facts::{
    AlertLevel, Cause, Job, PhaseKind, Ruin, SaveReason, Status, StopReason, Target, Tier, VerbName,
};
use crate::files::{self, Checked};
use crate::run::evals::against_base::AgainstBase;
use crate::run::evals::summary::{Comparison, EvalSummary};
use crate::run::evals::test_looks::TestLook;
use crate::statistics::{Interval, student_mean};
use crate::task::{AlertRule, PromptSet, SetName, task_prompt};

/// The version that this program writes, and the newest it reads.
pub const EVENT_VERSION: u64 = 1;

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Sequence number, from 1, without gaps unless lines were lost.
    pub seq: u64,
    /// Milliseconds since 1970 by the worker's clock, which may jump.
    pub time_ms: u64,
    pub body: EventBody,
}

/// Declares the body enum with its serialized kinds.
macro_rules! bodies {
    ($($(#[$meta:meta])* $variant:ident($type:ty) = $kind:literal),+ $(,)?) => {
        #[derive(Debug, Clone, PartialEq)]
        pub enum EventBody {
            $($(#[$meta])* $variant($type)),+,
            Unknown(String),
        }

        impl EventBody {
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
    /// First line of the log, and first line after each resume.
    Run(Run) = "run",
    /// Recorded before the weights are read.
    Memory(Memory) = "memory",
    Phase(Phase) = "phase",
    /// One optimizer step; follows its groups.
    Step(Step) = "step",
    /// One group, without texts, which are in `rollouts/`.
    Group(Group) = "group",
    /// Result of an eval, without completions, which are in `evals/`.
    Eval(Eval) = "eval",
    /// Results of the guard prompts after a step.
    Guard(Guard) = "guard",
    Checkpoint(Checkpoint) = "checkpoint",
    Device(Device) = "device",
    Alert(Alert) = "alert",
    Control(Control) = "control",
    Note(Note) = "note",
    /// What was repaired or will be repeated after an interruption.
    Recovered(Recovered) = "recovered",
    /// Replacement of a collapsed or diverged policy by an earlier checkpoint.
    Collapse(Collapse) = "collapse",
    End(End) = "end",
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    pub id: String,
    pub job: Job,
    pub config_digest: String,
    pub model_digest: String,
    pub device: String,
    /// Versions by component: program, driver and others.
    pub versions: BTreeMap<String, String>,
    pub total_steps: u64,
}

/// The GPU memory of a run, and how its gradient is computed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Estimated peak.
    pub peak_bytes: u64,
    /// Free memory, including what the worker already holds.
    pub usable_bytes: u64,
    pub total_bytes: u64,
    /// Estimated bytes by component, not all allocated at the same time.
    pub parts: BTreeMap<String, u64>,
    pub tokens_per_micro_batch: usize,
    pub recompute_activations: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Phase {
    pub step: u64,
    pub phase: PhaseKind,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    pub step: u64,
    /// Wall-clock time.
    pub seconds: f64,
    /// Values by name, TRL's names where TRL has the metric; non-finite values are written as null
    /// and read as NaN.
    #[serde(deserialize_with = "null_is_nan_map")]
    pub metrics: BTreeMap<String, f64>,
    /// Ordered by rank; empty with a single rank.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranks: Vec<RankStep>,
}

/// One rank's part of a step. Seconds are measured by the rank's clock.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RankStep {
    pub host: String,
    pub sampled_tokens: usize,
    /// Prompt and completion tokens in the rank's gradient.
    pub trained_tokens: usize,
    pub rollout_seconds: f64,
    pub update_seconds: f64,
    /// Time spent waiting for other ranks and for messages, in gathers and sums.
    pub waited_seconds: f64,
    /// State of the rank's device; on a CPU only its name is known.
    #[serde(flatten)]
    pub condition: Device,
}

/// One group; lists have one element per completion.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    pub step: u64,
    /// Task name in a run of several tasks, else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task: String,
    pub prompt_id: String,
    #[serde(deserialize_with = "null_is_nan_list")]
    pub rewards: Vec<f64>,
    pub tiers: Vec<Tier>,
    #[serde(deserialize_with = "null_is_nan_list")]
    pub advantages: Vec<f64>,
    /// Completion lengths, including the stop token.
    pub token_counts: Vec<usize>,
    pub stop_reasons: Vec<StopReason>,
    pub signal: GroupSignal,
    /// Freely sampled completions with the full reward; `None` in runs of older programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solved: Option<usize>,
    /// Seconds of the tool calls of each completion's conversation, in order. They are outside its
    /// record, which is byte-identical after a resume.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub call_seconds: Vec<Vec<f64>>,
    /// Whether dynamic sampling replaced the group; it is then neither trained on nor counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replaced: bool,
    /// Path of the rollout file, relative to the run.
    pub file: String,
    pub line: u64,
}

impl Group {
    /// The prompt's id, prefixed with the task's name in a run of several tasks, whose ids may be
    /// equal.
    pub fn prompt_name(&self) -> String {
        task_prompt(&self.task, &self.prompt_id)
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Eval {
    /// The step of the checkpoint; 0 is the base.
    pub step: u64,
    pub set: SetName,
    pub target: Target,
    pub summary: EvalSummary,
    /// Path of the file of completions, relative to the run.
    pub file: String,
    /// Wall-clock time.
    pub seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against_base: Option<Box<AgainstBase>>,
    /// Exact match compared with the run's best earlier eval of the set; only for the trained model
    /// on the eval set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_against_best: Option<Box<Comparison>>,
    /// Of the trained model on the test set: which look it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look: Option<Box<TestLook>>,
}

/// What tells a run's evals apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EvalKey {
    pub step: u64,
    pub set: SetName,
    pub target: Target,
}

impl Eval {
    pub fn key(&self) -> EvalKey {
        EvalKey {
            step: self.step,
            set: self.set.clone(),
            target: self.target,
        }
    }

    /// Whether it is on that set, of any task.
    pub fn is_on(&self, set: PromptSet) -> bool {
        self.set.set() == Some(set)
    }

    /// The weights that were evaluated: before the first step always the base's.
    pub fn who(&self) -> Target {
        if self.step == 0 {
            Target::Base
        } else {
            self.target
        }
    }

    /// Whether it belongs to the trained model's curve, which starts with the base.
    pub fn is_of_trained(&self) -> bool {
        self.step == 0 || self.target == Target::Trained
    }
}

/// Log-probs of the guard prompts' references.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Guard {
    /// The step of the checkpoint; 0 is the base.
    pub step: u64,
    /// Mean log-prob per token of each reference, in nats, in file order.
    #[serde(deserialize_with = "null_is_nan_list")]
    pub log_probs: Vec<f64>,
    pub tokens: usize,
    /// Share of greedy answers that equal their reference; `None` if not measured.
    pub exact: Option<f64>,
    /// Number of prompts in that share.
    pub answers: usize,
    pub seconds: f64,
}

impl Guard {
    pub fn log_prob(&self) -> f64 {
        self.log_probs.iter().sum::<f64>() / self.log_probs.len() as f64
    }

    /// Mean change of a prompt's log-prob since `base`, nats/token, with a 95% interval over
    /// prompts; `None` for fewer than two prompts or if the prompts differ.
    pub fn change(&self, base: &Self) -> Option<Interval> {
        let pairs = self.log_probs.iter().zip(&base.log_probs);
        let changes: Vec<f64> = pairs.map(|(now, before)| now - before).collect();
        (self.log_probs.len() == base.log_probs.len())
            .then(|| student_mean(&changes))
            .flatten()
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    pub step: u64,
    /// Path relative to the run.
    pub path: String,
    pub bytes: u64,
    pub why: SaveReason,
    /// Steps of the checkpoints that the keep rules removed once this one was durable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<u64>,
    /// Time until the checkpoint was durable; `None` if not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The part of `seconds` during which training waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_seconds: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    pub device: String,
    /// Index in the driver's order, as in `nvidia-smi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Share of time, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilisation: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_watts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Alert {
    pub rule: AlertRule,
    pub level: AlertLevel,
    pub step: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    pub sentence: String,
    pub suggestion: String,
    pub cleared: bool,
}

impl Alert {
    pub fn new(
        rule: &str,
        level: AlertLevel,
        step: u64,
        sentence: impl Into<String>,
        suggestion: impl Into<String>,
    ) -> Self {
        Self {
            rule: rule.into(),
            level,
            step,
            sentence: sentence.into(),
            suggestion: suggestion.into(),
            ..Self::default()
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Control {
    pub verb: VerbName,
    pub arguments: BTreeMap<String, serde_json::Value>,
    pub user_id: u32,
    /// First step to which it applies.
    pub step: u64,
    /// Unique id within the run, so that no request is recorded twice; empty if recorded when
    /// accepted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    pub text: String,
}

/// What a worker repaired or repeats after an interruption.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Recovered {
    /// Size of a torn last line, which was dropped.
    pub dropped_bytes: u64,
    /// Step of the checkpoint; everything recorded for later steps is void and will be repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<u64>,
    pub text: String,
}

/// The restart from `restored_step` after the policy collapsed or diverged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Collapse {
    /// The step after which the policy was replaced.
    pub step: u64,
    /// The checkpoint whose weights and optimizer state were restored.
    pub restored_step: u64,
    pub learning_rate: f64,
    /// The alert; absent in logs of older programs.
    pub rule: Ruin,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct End {
    pub status: Status,
    #[serde(flatten)]
    pub cause: Cause,
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

/// Why a line is not a valid event.
#[derive(Debug, Clone, PartialEq)]
pub enum BadLine {
    Malformed {
        reason: String,
        /// The kind that the line claims, if its checksum does not match.
        kind: Option<String>,
    },
    Newer(u64),
}

impl Event {
    /// Serializes the event as a line with its checksum and a newline. Non-finite numbers become
    /// null and are listed in `nonfinite`.
    ///
    /// # Errors
    /// Only for maps with keys that JSON cannot represent, which no kind has.
    pub fn to_line(&self) -> Result<Vec<u8>, serde_json::Error> {
        let nonfinite = self.body.nonfinite();
        let head = Head {
            v: EVENT_VERSION,
            seq: self.seq,
            t: self.time_ms,
            kind: self.body.kind(),
            nonfinite,
        };
        let mut line = self.body.write(&head)?;
        files::seal_line(&mut line);
        line.push(b'\n');
        Ok(line)
    }

    pub fn from_line(line: &str) -> Result<Self, BadLine> {
        let checked = files::check(line.as_bytes());
        if checked == Checked::Damaged {
            return Err(mismatch(line));
        }
        let malformed = |error: serde_json::Error| BadLine::malformed(error.to_string());
        let head: ReadHead<'_> = serde_json::from_str(line).map_err(malformed)?;
        if head.v > EVENT_VERSION {
            return Err(BadLine::Newer(head.v));
        }
        let body = EventBody::parse(&head.kind, line).map_err(|error| match checked {
            Checked::Intact => BadLine::malformed(format!(
                "the line is whole, with a word of another version of grpo-tui: {error}"
            )),
            _ => malformed(error),
        })?;
        Ok(Self {
            seq: head.seq,
            time_ms: head.t,
            body,
        })
    }
}

impl BadLine {
    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed {
            reason: reason.into(),
            kind: None,
        }
    }
}

/// Keeps what is known of an event whose line does not match its checksum.
fn mismatch(line: &str) -> BadLine {
    let lost: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    let (kind, step) = (lost["kind"].as_str(), lost["step"].as_u64());
    let lost = match (kind, step) {
        (Some(kind), Some(step)) => format!(": it seems to be `{kind}` of step {step}"),
        (Some(kind), None) => format!(": it seems to be `{kind}`"),
        _ => String::new(),
    };
    BadLine::Malformed {
        reason: format!("the line does not match its checksum{lost}"),
        kind: kind.map(str::to_owned),
    }
}

impl EventBody {
    /// Whether the event must be durable before the worker continues.
    pub fn must_be_durable(&self) -> bool {
        matches!(
            self,
            Self::Run(_)
                | Self::Eval(_)
                | Self::Checkpoint(_)
                | Self::Control(_)
                | Self::Recovered(_)
                | Self::Collapse(_)
                | Self::End(_)
        )
    }

    /// The names of the fields with non-finite numbers.
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
            Self::Step(step) => step
                .metrics
                .iter()
                .filter(|(_, value)| !value.is_finite())
                .map(|(name, _)| name.clone())
                .collect(),
            Self::Group(group) => [
                listed("rewards", &group.rewards),
                listed("advantages", &group.advantages),
            ]
            .concat(),
            Self::Alert(alert) => alert
                .value
                .filter(|value| !value.is_finite())
                .map(|_| "value".to_owned())
                .into_iter()
                .collect(),
            _ => Vec::new(),
        }
    }
}

fn null_is_nan_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    Ok(Vec::<Option<f64>>::deserialize(deserializer)?
        .into_iter()
        .map(|value| value.unwrap_or(f64::NAN))
        .collect())
}

fn null_is_nan_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, f64>, D::Error> {
    let values = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(values
        .into_iter()
        .map(|(name, value)| (name, value.unwrap_or(f64::NAN)))
        .collect())
}
