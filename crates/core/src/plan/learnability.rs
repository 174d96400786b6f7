//! The check whether the base can learn: the share of informative groups, and the verdict.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::advantage::GroupSignal;
use crate::format::{counted, percent_short};
use crate::score::{FailureClass, Tier};
use crate::statistics::wilson;

/// Below this share of informative groups training hardly moves: nine of ten groups cost time without a gradient.
const MIN_INFORMATIVE: f64 = 0.10;
/// From this share of valid completions on, only rare failures remain to be learned.
const MOSTLY_VALID: f64 = 0.95;
/// Above this share of truncated completions, the limit decides rewards: truncated JSON is unparsable.
const MAX_TRUNCATED: f64 = 0.05;
/// The same for reasoning that reaches the scorer.
const MAX_THINK_LEAKS: f64 = 0.05;
/// Above this share of truncated completions, of which none is valid, a run does not start.
const MOSTLY_TRUNCATED: f64 = 0.5;
/// With fewer prompts the interval is too wide: at 32 it spans up to 33 points.
const MIN_PROMPTS: usize = 32;
/// Below this share a group of 8 seldom has a valid completion, so at best a lower tier is learned.
const RARELY_VALID: f64 = 0.01;

#[derive(Clone, Debug, PartialEq)]
pub struct GroupOutcome {
    pub prompt_id: String,
    pub rewards: Vec<f64>,
    pub signal: GroupSignal,
    /// The tiers of its completions, ascending, each once.
    pub tiers: Vec<Tier>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signal {
    /// One per prompt.
    pub groups: Vec<GroupOutcome>,
    /// Completions by tier, in the order of [`crate::score::Tier::ALL`].
    pub tiers: [usize; 3],
    pub truncated: usize,
    pub failures: BTreeMap<FailureClass, usize>,
    pub guidance: Guidance,
}

/// What groups without a difference between rewards learn from: the rows that can be guided, and why others cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guidance {
    /// Whether completions are distilled: then they learn whatever their rewards are.
    pub is_distilled: bool,
    /// `guided`.
    pub is_on: bool,
    pub rows: usize,
    /// Rows with several turns, which are not guided.
    pub conversations: usize,
    /// Whether rows without a demonstration can be guided by calls that lead to their final state.
    pub has_state: bool,
    /// Rows without an expected answer, which need the task's grammar.
    pub without_expected: usize,
    /// Why the task's answers cannot be sampled under a grammar.
    pub refusal: Option<String>,
}

impl Guidance {
    fn helps(&self) -> bool {
        self.is_distilled
            || self.is_on
                && self.conversations == 0
                && (self.without_expected == 0 || self.refusal.is_none())
    }

    /// Says what happens to groups without a valid completion.
    fn sentence(&self) -> String {
        match (self.is_on, self.without_expected, &self.refusal) {
            _ if self.is_distilled => "they are distilled from the teacher".to_owned(),
            (false, ..) => "guided = false: they have nothing to learn from".to_owned(),
            (true, ..) if self.conversations > 0 => "rows of several turns are not guided".to_owned(),
            (true, 0, _) => "guided groups will be used, with the rows' expected answers".to_owned(),
            (true, _, Some(why)) => format!("rows without an answer to imitate are not guided: {why}"),
            (true, _, None) if self.has_state => {
                "guided groups will be used, with calls that search finds to lead to the row's final state, or calls sampled under the tools' grammar".to_owned()
            }
            (true, without, None) if without == self.rows => {
                "guided groups will be used, with answers sampled under the task's grammar".to_owned()
            }
            (true, ..) => "guided groups will be used, with expected answers or, where a row has none, answers sampled under the task's grammar".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignalSettings {
    pub completions_per_prompt: usize,
    pub prompt_groups_per_step: usize,
    pub max_completion_tokens: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Enough groups are mixed.
    CanLearn,
    /// Almost all groups have the maximal reward throughout.
    NothingToLearn,
    /// Almost all groups have equal rewards below the maximum.
    CannotLearn,
}

impl Verdict {
    pub fn label(self) -> &'static str {
        match self {
            Self::CanLearn => "it can learn",
            Self::NothingToLearn => "there is nothing to learn",
            Self::CannotLearn => "it cannot learn",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    pub verdict: Verdict,
    pub why: String,
    /// Most important first; may be empty.
    pub changes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TierShares {
    pub unparsable: f64,
    pub invalid: f64,
    pub valid: f64,
}

/// Mixed groups whose completions have the same tiers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierMix {
    /// Ascending, each once; of a single one, the rewards differ by graded credit or weighted parts.
    pub tiers: Vec<Tier>,
    pub groups: usize,
}

/// The output of `--plan --sample`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalReport {
    pub prompts: usize,
    pub completions_per_prompt: usize,
    pub informative: f64,
    pub informative_interval: [f64; 2],
    /// The share of groups with the maximal reward throughout.
    pub all_max: f64,
    /// The share of groups with zero reward throughout.
    #[serde(default)]
    pub all_min: f64,
    /// The share of other groups with equal rewards.
    pub all_equal: f64,
    pub tiers: TierShares,
    /// Which tiers the mixed groups mix, most groups first.
    #[serde(default)]
    pub mixes: Vec<TierMix>,
    /// The share of completions truncated at the limit.
    pub truncated: f64,
    /// The share of completions whose reasoning reached the scorer.
    pub think_leaks: f64,
    /// The share of completions by failure class, without zeros.
    pub failures: Vec<(String, f64)>,
    /// How many sampled groups have no valid completion and what becomes of such groups; empty if all have one.
    #[serde(default)]
    pub guidance: String,
    /// Whether such groups learn from a guiding answer.
    #[serde(default)]
    pub is_guided: bool,
    #[serde(flatten)]
    pub advice: Advice,
}

impl SignalReport {
    /// Whether no sampled completion is valid, so that a guide at most shows one; or groups are mixed, but none has a
    /// valid completion to learn from, nor a guiding answer.
    pub fn lacks_valid(&self) -> bool {
        let mut tiers = self.mixes.iter().flat_map(|mix| &mix.tiers);
        let is_low = !self.mixes.is_empty() && tiers.all(|tier| *tier != Tier::Valid);
        (self.tiers.valid == 0.0 && self.prompts > 0) || (is_low && !self.is_guided)
    }

    /// The line to type, if no sampled completion is valid and most are truncated: then nothing else is known.
    pub fn truncation(&self, max_completion_tokens: usize) -> Option<String> {
        if self.tiers.valid > 0.0 || self.truncated <= MOSTLY_TRUNCATED {
            return None;
        }
        let share = percent_short(self.truncated);
        let longer = format!("--set max_completion_tokens={}", 4 * max_completion_tokens);
        let (place, remedy) = match self.think_leaks > self.truncated / 2.0 {
            true => (
                ", most of them in thinking",
                format!("Set `thinking = false` in task.toml, or {longer}"),
            ),
            false => ("", format!("Try {longer}")),
        };
        let consequence = match self.mixes.is_empty() && !self.is_guided {
            true => {
                " The rewards of each group are equal: every advantage is 0, and no step would change the model."
            }
            false => "",
        };
        Some(format!(
            "no sampled completion is valid, and {share} are truncated at max_completion_tokens = {max_completion_tokens}{place}.{consequence} {remedy}"
        ))
    }

    /// `20 mix unparsable and invalid, 4 invalid and valid`; empty without mixed groups.
    pub fn mixes_text(&self) -> String {
        let mix = |(index, mix): (usize, &TierMix)| {
            let names: Vec<&str> = mix.tiers.iter().map(|tier| tier.name()).collect();
            let verb = match (index, mix.groups) {
                (0, 1) => " mixes",
                (0, _) => " mix",
                _ => "",
            };
            match names.as_slice() {
                [name] => format!("{} with {name} alone, of different rewards", mix.groups),
                [first @ .., last] => {
                    format!("{}{verb} {} and {last}", mix.groups, first.join(", "))
                }
                [] => mix.groups.to_string(),
            }
        };
        self.mixes
            .iter()
            .enumerate()
            .map(mix)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn mixes(groups: &[GroupOutcome]) -> Vec<TierMix> {
    let mut counts: BTreeMap<&[Tier], usize> = BTreeMap::new();
    for group in groups
        .iter()
        .filter(|group| group.signal == GroupSignal::Mixed)
    {
        *counts.entry(&group.tiers).or_default() += 1;
    }
    let mut mixes: Vec<TierMix> = counts
        .into_iter()
        .map(|(tiers, groups)| TierMix {
            tiers: tiers.to_vec(),
            groups,
        })
        .collect();
    mixes.sort_by_key(|mix| std::cmp::Reverse(mix.groups));
    mixes
}

pub fn judge(signal: &Signal, settings: &SignalSettings) -> SignalReport {
    let groups = signal.groups.len();
    let completions = signal.tiers.iter().sum::<usize>();
    let share = |count: usize, of: usize| {
        if of == 0 {
            0.0
        } else {
            count as f64 / of as f64
        }
    };
    let count = |signal_of| {
        signal
            .groups
            .iter()
            .filter(|group| group.signal == signal_of)
            .count()
    };
    let mixed = count(GroupSignal::Mixed);
    let (low, high) = wilson(mixed, groups);
    let [unparsable, invalid, valid] = signal.tiers.map(|count| share(count, completions));
    let failures: Vec<(FailureClass, f64)> = signal
        .failures
        .iter()
        .map(|(class, count)| (*class, share(*count, completions)))
        .collect();
    let size = settings.completions_per_prompt;
    let mut report = SignalReport {
        prompts: groups,
        completions_per_prompt: size,
        informative: share(mixed, groups),
        informative_interval: [low, high],
        all_max: share(count(GroupSignal::AllMax), groups),
        all_min: share(count(GroupSignal::AllMin), groups),
        all_equal: share(count(GroupSignal::AllEqual), groups),
        tiers: TierShares {
            unparsable,
            invalid,
            valid,
        },
        mixes: mixes(&signal.groups),
        truncated: share(signal.truncated, completions),
        think_leaks: failures
            .iter()
            .find(|(class, _)| *class == FailureClass::ThinkLeak)
            .map_or(0.0, |(_, share)| *share),
        failures: failures
            .iter()
            .map(|(class, share)| (class.name().to_owned(), *share))
            .collect(),
        guidance: guidance(signal, completions),
        is_guided: signal.guidance.helps(),
        advice: Advice {
            verdict: Verdict::CanLearn,
            why: String::new(),
            changes: Vec::new(),
        },
    };
    report.advice = advice(&report, &failures, settings);
    report
}

fn guidance(signal: &Signal, completions: usize) -> String {
    let [.., valid] = signal.tiers;
    let failed = signal
        .groups
        .iter()
        .filter(|group| !group.tiers.contains(&Tier::Valid))
        .count();
    let what = match (valid, failed) {
        (_, 0) => return String::new(),
        (0, _) => format!("0 of {completions} sampled answers are valid"),
        _ => format!(
            "{failed} of {} sampled groups have no valid answer",
            signal.groups.len()
        ),
    };
    format!("{what}: {}", signal.guidance.sentence())
}

fn advice(
    report: &SignalReport,
    failures: &[(FailureClass, f64)],
    settings: &SignalSettings,
) -> Advice {
    let informative = format!(
        "{} of the groups are mixed ({} to {}, {} prompts x {})",
        percent_short(report.informative),
        percent_short(report.informative_interval[0]),
        percent_short(report.informative_interval[1]),
        report.prompts,
        report.completions_per_prompt
    );
    let mut changes = Vec::new();
    if settings.completions_per_prompt < 2 {
        changes
            .push("raise completions_per_prompt to 8: a group of one has zero variance".to_owned());
    }
    if report.think_leaks > MAX_THINK_LEAKS {
        changes.push(format!(
            "{} of the completions pass unfinished reasoning to the scorer: set thinking = false in task.toml, or a limit of thinking (max_thinking_tokens, thinking_end = \"force\"), or raise max_completion_tokens until the block closes",
            percent_short(report.think_leaks)
        ));
    }
    if report.truncated > MAX_TRUNCATED {
        let limit = settings.max_completion_tokens;
        changes.push(format!(
            "{} of the completions are truncated at max_completion_tokens = {limit}: try {}",
            percent_short(report.truncated),
            2 * limit
        ));
    }
    let verdict =
        if report.informative >= MIN_INFORMATIVE || (report.is_guided && report.all_max < 0.5) {
            Verdict::CanLearn
        } else if report.all_max >= report.all_min + report.all_equal && report.prompts > 0 {
            Verdict::NothingToLearn
        } else {
            Verdict::CannotLearn
        };
    let why = match verdict {
        Verdict::CanLearn => can_learn(report, settings, &informative, &mut changes),
        Verdict::NothingToLearn => {
            changes.push(
                "train on harder prompts, or score values too ([[reward]] part = \"fields\")"
                    .to_owned(),
            );
            changes.push(
                "if these prompts are what matters, the base is good enough: measure it with `grpo-tui eval`"
                    .to_owned(),
            );
            format!(
                "the base already solves the task: {} of the groups earn the full reward, and {informative}",
                percent_short(report.all_max)
            )
        }
        Verdict::CannotLearn => {
            if let Some((class, share)) = failures.iter().max_by(|a, b| a.1.total_cmp(&b.1)) {
                changes.push(format!(
                    "most common failure: {} ({} of the completions); {}",
                    class.name(),
                    percent_short(*share),
                    remedy(*class)
                ));
            }
            if report.tiers.invalid > report.tiers.unparsable {
                changes.push(
                    "give near misses partial credit: graded = true under [score] (json_schema, code), or [[reward]] part = \"fields\""
                        .to_owned(),
                );
            }
            changes.push(
                "or show the model the format first: supervised fine-tuning on `expected`, or a larger model"
                    .to_owned(),
            );
            format!(
                "{} of the groups have equal rewards below the maximum, and {informative}: zero variance gives no gradient",
                percent_short(report.all_min + report.all_equal)
            )
        }
    };
    if report.prompts < MIN_PROMPTS {
        changes.push(format!(
            "only {} sampled; sample {MIN_PROMPTS} or more for a narrower interval",
            counted(report.prompts, "prompt")
        ));
    }
    Advice {
        verdict,
        why,
        changes,
    }
}

fn can_learn(
    report: &SignalReport,
    settings: &SignalSettings,
    informative: &str,
    changes: &mut Vec<String>,
) -> String {
    let per_step = report.informative * settings.prompt_groups_per_step as f64;
    if report.tiers.valid < RARELY_VALID && !report.is_guided {
        changes.push(
            "almost no completion is valid yet; give partial credit: graded = true (json_schema, code), or [[reward]] part = \"fields\"".to_owned(),
        );
    }
    if per_step < 1.0 && !report.is_guided {
        changes.push(format!(
            "a step of {} has {per_step:.1} informative ones: raise prompt_groups_per_step, or set dynamic_sampling = true",
            counted(settings.prompt_groups_per_step, "group")
        ));
    }
    if report.tiers.valid >= MOSTLY_VALID {
        changes.push(
            "most completions are valid already: add prompts like the ones that fail, or score fields too".to_owned(),
        );
    }
    let unsure = if report.informative_interval[0] < MIN_INFORMATIVE && !report.is_guided {
        ", though the sample is too small to be sure"
    } else {
        ""
    };
    let lacks = if report.lacks_valid() && !report.is_guided {
        "; none has a valid completion"
    } else {
        ""
    };
    let parts = [report.mixes_text(), report.guidance.clone()];
    let rest: String = parts
        .iter()
        .filter(|part| !part.is_empty())
        .map(|part| format!("; {part}"))
        .collect();
    // Guided groups are informative, too.
    let per_step = match report.is_guided && !report.guidance.is_empty() {
        true => String::new(),
        false => {
            format!(
                ": about {per_step:.1} of {} groups per step are informative",
                settings.prompt_groups_per_step
            )
        }
    };
    format!("{informative}{unsure}{per_step}{rest}{lacks}")
}

/// Advice on a failure that most completions share.
fn remedy(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Fence => "say in `system`: no Markdown fence around the answer",
        FailureClass::Prose => "say in `system` that there is nothing around the answer",
        FailureClass::Truncated => "raise max_completion_tokens, or ask for shorter values",
        FailureClass::Syntax => {
            "a larger model, or supervised fine-tuning first: this one hardly writes anything that parses"
        }
        FailureClass::ThinkLeak | FailureClass::ThinkCall => "set thinking = false in task.toml",
        FailureClass::MissingKey => "name the required keys in `system`",
        FailureClass::WrongType => "name each key's type in `system`",
        FailureClass::Enum => "list the allowed values in `system`",
        FailureClass::ExtraKey => "say in `system`: no other keys",
        FailureClass::WrongValue => "check that `expected` can be read from the prompt",
        FailureClass::CallFormat => {
            "set `call_format` of [score] to the format that the model writes"
        }
        FailureClass::UnknownFunction
        | FailureClass::MissingArgument
        | FailureClass::ExtraArgument => "name the tools with their arguments in the prompt",
        FailureClass::WrongCalls => "check that the expected calls can be read from the prompt",
        FailureClass::UnknownTable | FailureClass::UnknownColumn => {
            "name the tables with their columns in the prompt"
        }
        FailureClass::NotUnderstood => "say in `system` that queries must run in SQLite, too",
        FailureClass::WrongResult => "check that the expected query can be read from the prompt",
        FailureClass::WrongOperation
        | FailureClass::MissingParameter
        | FailureClass::ExtraParameter => "name the operations with their parameters in the prompt",
        FailureClass::WrongStatus => "name the operation's statuses in the prompt",
        FailureClass::NoAnswer => {
            "raise the limits of `[tools]`, or say in `system` when to answer"
        }
        FailureClass::NoCall => "say in `system` that work is done by calls of the tools",
        FailureClass::AgentError => {
            "read the reasons: if the agent fails by its own fault, fix it; else let it handle bad answers"
        }
        FailureClass::Constraint => "simplify the schema or pattern that constrains completions",
        FailureClass::NoMatch => "say in `system` how the answer is written",
        // Evals only: nothing is trained through an endpoint.
        FailureClass::EndpointError => "try the endpoint again later",
        FailureClass::ScorerError => "fix the scorer: `grpo-tui score` lists each of its errors",
        FailureClass::NoReward => "leave out the rows that the scorer does not judge",
        FailureClass::NotRecorded => {
            "record more conversations: `grpo-tui runs export RUN --tools`"
        }
        FailureClass::Own(_) | FailureClass::Other => {
            "read some of the completions: `grpo-tui score` names each reason"
        }
    }
}

#[cfg(test)]
mod tests;
