//! The rules as a table: metric, window, level, condition, message and advice.

use super::advice::{self, unless};
use super::collapsed::{description, has_collapsed};
use super::diverged::{Loss, is_noise};
use super::evidence::{Evidence, WrongValues};
use super::steps::{Metrics, WINDOW, entropy_change, get, mean};
use crate::config::{ThinkingEnd, TrainConfig};
use crate::facts::{AlertLevel, Ruin};
use crate::format::percent_short;
use crate::run::events::Alert;

pub(super) const VALUE_DRIFT: &str = "value_drift";

/// Consecutive steps without a mixed group.
const EQUAL_STEPS: usize = 3;
/// A share of all groups, up to rounding.
const ALL: f64 = 1.0 - 1e-9;
/// Share of zero-variance groups above which a KL term dominates; a warning from nine in ten on.
const MANY_EQUAL: f64 = 0.5;
const NEARLY_ALL_EQUAL: f64 = 0.9;
/// Share of truncated completions above which nothing else explains that no group learns.
const MOSTLY_TRUNCATED: f64 = 0.5;
/// Share of exact answers that counts as all.
const ALL_EXACT: f64 = 0.995;
/// A rank's time per token relative to the others, in each step of a window.
const SLOW: f64 = 1.25;
/// Nats per token that guard prompts may lose, about 5% of a token's probability.
const FORGOTTEN: f64 = 0.05;

/// What rules see.
pub(super) struct Seen<'a> {
    pub(super) evidence: &'a Evidence,
    pub(super) config: &'a TrainConfig,
    /// Whether the alert of a lost policy is open.
    pub(super) is_active: &'a dyn Fn(Ruin) -> bool,
}

impl Seen<'_> {
    fn last(&self, metric: &str) -> Option<f64> {
        self.evidence.steps.last()?.get(metric).copied()
    }

    fn mean(&self, metric: &str) -> f64 {
        mean(&self.evidence.steps, metric)
    }

    /// The last steps, at most [`EQUAL_STEPS`].
    fn latest(&self) -> &[Metrics] {
        let steps = &self.evidence.steps;
        &steps[steps.len().saturating_sub(EQUAL_STEPS)..]
    }

    /// Whether a window is full and each of its steps is so.
    fn all(&self, is_so: impl Fn(&Metrics) -> bool) -> bool {
        let steps = &self.evidence.steps;
        steps.len() == WINDOW && steps.iter().all(is_so)
    }

    fn loss(&self) -> Option<Loss> {
        let Evidence {
            best_windows,
            steps,
            task,
            ..
        } = self.evidence;
        let is_active = (self.is_active)(Ruin::Diverged);
        best_windows.loss(steps, is_active, task.share, self.config)
    }

    fn entropy_change(&self) -> String {
        let last = self.evidence.steps.last();
        last.map_or_else(String::new, |last| {
            entropy_change(self.evidence.first_entropy, last)
        })
    }
}

/// The value that a rule compares.
enum Measure {
    /// A metric of the last step.
    Last(&'static str),
    /// Its mean over the steps so far, at most [`WINDOW`].
    Mean(&'static str),
    /// The same over a full window, each step of which has it.
    Window(&'static str),
    /// Its lowest value in the last [`EQUAL_STEPS`] steps.
    InARow(&'static str),
    /// Violated if there is a value, whatever it is.
    Own(fn(&Seen<'_>) -> Option<f64>),
}

struct Rule {
    name: &'static str,
    /// By value.
    level: fn(f64) -> AlertLevel,
    measure: Measure,
    /// Violated above it.
    above: f64,
    /// Where the rule applies.
    applies: fn(&Seen<'_>) -> bool,
    sentence: fn(&Seen<'_>, f64) -> String,
    advice: fn(&Seen<'_>, f64) -> String,
    /// Rules with the same cause, which this one explains.
    replaces: &'static [&'static str],
}

/// A rule without a measure: the others name what differs.
const RULE: Rule = Rule {
    name: "",
    level: |_| AlertLevel::Warning,
    measure: Measure::Own(|_| None),
    above: 0.0,
    applies: |_| true,
    sentence: |_, _| String::new(),
    advice: |_, _| String::new(),
    replaces: &[],
};

static RULES: [Rule; 20] = [
    Rule {
        name: Ruin::Collapsed.name(),
        measure: Measure::Own(collapsed),
        applies: |seen| !seen.config.is_distilled(),
        sentence: |seen, _| {
            let Evidence {
                steps,
                first_entropy,
                frequent_answer,
                ..
            } = seen.evidence;
            let described = steps.last().map_or_else(String::new, |last| {
                description(last, *first_entropy, frequent_answer.as_deref())
            });
            format!(
                "The policy collapsed: {described}; few groups of the last {WINDOW} steps had a gradient."
            )
        },
        advice: |seen, _| seen.evidence.task.collapsed(seen.config),
        ..RULE
    },
    Rule {
        name: Ruin::Diverged.name(),
        measure: Measure::Own(diverged),
        sentence: |seen, _| match (seen.loss(), seen.evidence.steps.last()) {
            (Some(loss), Some(last)) => {
                let described = loss.description(last, seen.evidence.first_entropy);
                format!("The policy diverged: in the last {WINDOW} steps {described}.")
            }
            _ => {
                let entropy = seen.entropy_change();
                format!(
                    "The policy diverged: in the last {WINDOW} steps its own completions earned nothing above the minimum{entropy}."
                )
            }
        },
        advice: |seen, _| advice::diverged(seen.config),
        replaces: &["only_guide_earns"],
        ..RULE
    },
    Rule {
        name: "not_finite",
        level: |_| AlertLevel::Error,
        measure: Measure::Own(|seen| not_finite(seen).map(|(_, value)| value)),
        sentence: |seen, _| {
            let name = not_finite(seen).map_or("a metric", |(name, _)| name);
            let effect = match has_gradient(seen) {
                true => "",
                false => ": the step changed nothing",
            };
            format!("{name} is not finite{effect}.")
        },
        advice: |seen, _| {
            if has_gradient(seen) {
                return "Read the completions of the step, and why scorers failed (failures/scorer_error)."
                    .to_owned();
            }
            let clip = unless(seen.config.grad_clip_norm > 0.0, " or set grad_clip_norm");
            format!(
                "If it happens again, lower learning_rate{clip}; three consecutive steps stop the run."
            )
        },
        ..RULE
    },
    Rule {
        name: "dead_groups_with_kl",
        level: |equal| match equal >= NEARLY_ALL_EQUAL {
            true => AlertLevel::Warning,
            false => AlertLevel::Info,
        },
        measure: Measure::Window("frac_reward_zero_std"),
        above: MANY_EQUAL,
        applies: |seen| seen.config.kl_beta > 0.0,
        sentence: |seen, equal| {
            let (share, kl_beta) = (percent_short(equal), seen.config.kl_beta);
            format!(
                "{share} of the groups have zero variance, and kl_beta = {kl_beta} still forwards them: they contribute KL only."
            )
        },
        advice: |seen, _| {
            let dynamic = ", or dynamic_sampling = true";
            format!(
                "Set kl_beta = 0{}.",
                unless(seen.config.dynamic_sampling, dynamic)
            )
        },
        ..RULE
    },
    Rule {
        name: "all_best",
        level: |_| AlertLevel::Info,
        measure: Measure::InARow("groups/frac_all_best"),
        above: ALL,
        sentence: |seen, _| {
            let exact = exact_rate(seen);
            let what = match exact < ALL_EXACT {
                true => format!(
                    "only {} of completions are exact: the reward no longer separates right values from wrong ones",
                    percent_short(exact)
                ),
                false => "there is nothing left to learn from these prompts".to_owned(),
            };
            format!("All groups earn the full reward in the last {EQUAL_STEPS} steps: {what}.")
        },
        advice: |seen, _| match exact_rate(seen) < ALL_EXACT {
            true => seen.evidence.task.all_max(),
            false => "Stop here, or add harder prompts.".to_owned(),
        },
        ..RULE
    },
    Rule {
        name: "all_truncated",
        applies: |seen| !seen.config.is_distilled(),
        measure: Measure::Own(all_truncated),
        sentence: |seen, truncated| {
            let thinking = match thinks(seen, truncated) {
                true => ", most of them in thinking",
                false => "",
            };
            format!(
                "No group has a difference between rewards, and {} of the completions are truncated at {} tokens{thinking}.",
                percent_short(truncated),
                seen.config.max_completion_tokens
            )
        },
        advice: |seen, truncated| match thinks(seen, truncated) {
            true => format!(
                "Set thinking = false in task.toml, {}or raise max_completion_tokens.",
                thinking_limit(seen)
            ),
            false => "Raise max_completion_tokens, or ask for shorter answers.".to_owned(),
        },
        replaces: &[
            "all_worst",
            "only_guide_earns",
            "clipped_completions",
            "think_leak",
        ],
        ..RULE
    },
    Rule {
        name: "all_worst",
        measure: Measure::InARow("groups/frac_all_worst"),
        above: ALL,
        // A guiding answer gives a gradient.
        applies: |seen| {
            !seen.config.is_distilled()
                && seen
                    .latest()
                    .iter()
                    .all(|step| get(step, "groups/frac_guided") == 0.0)
        },
        sentence: |_, _| {
            format!(
                "All groups of the last {EQUAL_STEPS} steps have equal rewards below the maximum: zero variance, so no gradient."
            )
        },
        advice: |seen, _| seen.evidence.task.all_worst(),
        ..RULE
    },
    Rule {
        name: "only_guide_earns",
        level: |_| AlertLevel::Info,
        measure: Measure::Own(only_guide_earns),
        applies: |seen| !seen.config.is_distilled(),
        sentence: |seen, reward| {
            format!(
                "In the last {WINDOW} steps only guiding answers gave a gradient: the model's own completions earn {reward:.2} on average, without a difference in a group{}.",
                seen.entropy_change()
            )
        },
        advice: |_, _| {
            "This is usual at the start. If it stays, lower learning_rate, begin with method = \"sft_grpo\", or take another model."
                .to_owned()
        },
        ..RULE
    },
    Rule {
        name: "clipped_completions",
        measure: Measure::Mean("completions/clipped_ratio"),
        above: 0.05,
        sentence: |seen, truncated| {
            let limit = seen.config.max_completion_tokens;
            let thinking = match seen.config.thinking_budget() {
                Some(budget) if budget.end == ThinkingEnd::Truncate => {
                    format!(", or {} of thinking,", budget.max_tokens)
                }
                _ => String::new(),
            };
            format!(
                "{} of the completions are truncated at {limit} tokens{thinking} and scored as they are.",
                percent_short(truncated)
            )
        },
        advice: |seen, _| {
            let mask = ", or set overlong_masking = true";
            format!(
                "Raise max_completion_tokens{}.",
                unless(seen.config.overlong_masking, mask)
            )
        },
        ..RULE
    },
    Rule {
        name: "think_leak",
        measure: Measure::Mean("failures/think_leak"),
        above: 0.05,
        sentence: |_, leaks| {
            format!(
                "{} of the completions pass unfinished reasoning to the scorer: their reward says nothing about the answer.",
                percent_short(leaks)
            )
        },
        advice: |seen, _| {
            format!(
                "Set thinking = false in task.toml, {}or raise max_completion_tokens until the block closes.",
                thinking_limit(seen)
            )
        },
        ..RULE
    },
    // The classic hack of a format reward: answers keep their form and lose their values.
    Rule {
        name: VALUE_DRIFT,
        measure: Measure::Own(|seen| {
            let drift = seen.evidence.drift(seen.config);
            drift.best.and(drift.reported).map(|now| now.exact)
        }),
        sentence: |seen, exact| {
            let drift = seen.evidence.drift(seen.config);
            let from = drift.best.map_or(exact, |best| best.exact);
            let valid = drift.reported.map_or(0.0, |now| now.valid);
            let [from, to, valid] = [from, exact, valid].map(percent_short);
            format!(
                "Exact match fell from {from} at its best to {to} while {valid} of completions are valid: the model learns the form at the expense of the values."
            )
        },
        advice: |seen, _| seen.evidence.task.value_drift(),
        ..RULE
    },
    Rule {
        name: "wrong_values",
        measure: Measure::Own(|seen| Some(seen.evidence.wrong_values.as_ref()?.exact)),
        sentence: |seen, _| {
            let wrong = seen.evidence.wrong_values.as_ref();
            wrong.map_or_else(String::new, WrongValues::sentence)
        },
        advice: |seen, _| seen.evidence.task.all_max(),
        ..RULE
    },
    Rule {
        name: "values_not_measured",
        level: |_| AlertLevel::Info,
        measure: Measure::Own(|seen| (!seen.evidence.task.measures_values).then_some(0.0)),
        sentence: |_, _| {
            "Values are not measured: no row of train or eval has an expected answer.".to_owned()
        },
        advice: |seen, _| seen.evidence.task.label_rows(),
        ..RULE
    },
    Rule {
        name: "proposed_labels",
        level: |_| AlertLevel::Info,
        measure: Measure::Own(|seen| {
            let (_, proposed) = seen.evidence.task.labels;
            (proposed > 0).then_some(proposed as f64)
        }),
        sentence: |seen, proposed| {
            format!(
                "{proposed} of the {} expected answers of train are proposed: rewards in training count them, evals only those of a person.",
                seen.evidence.task.labels.0
            )
        },
        advice: |seen, _| seen.evidence.task.label_doubtful_rows(),
        ..RULE
    },
    Rule {
        name: "rank_imbalance",
        measure: Measure::Window("ranks/imbalance"),
        // Relative to an even share of the tokens.
        above: 1.5,
        sentence: |_, imbalance| {
            format!(
                "In the last {WINDOW} steps one rank had {imbalance:.1} times an even share of the tokens: the others waited for it."
            )
        },
        advice: |_, _| {
            "Raise prompt_groups_per_step or completions_per_prompt, or resume with fewer ranks (--ranks)."
                .to_owned()
        },
        ..RULE
    },
    Rule {
        name: "slow_rank",
        measure: Measure::Own(slowdown),
        sentence: |seen, slowdown| {
            format!(
                "Rank {} took {slowdown:.2} times as long as the others for as many tokens in the last {WINDOW} steps, and all wait for it.",
                seen.last("ranks/slowest").unwrap_or(0.0)
            )
        },
        advice: |_, _| {
            "Look for other processes on its device, and at its clocks and temperature (nvidia-smi); resume without that GPU or node."
                .to_owned()
        },
        ..RULE
    },
    Rule {
        name: "agent_sampling",
        level: |_| AlertLevel::Info,
        measure: Measure::Last("agent/frac_ignored"),
        sentence: |_, _| {
            "The agent asks for a temperature, top_p, penalties or a seed other than the run's: they have no effect."
                .to_owned()
        },
        advice: |_, _| "Leave them out of its requests, or set temperature of the run.".to_owned(),
        ..RULE
    },
    Rule {
        name: "agent_constraints",
        level: |_| AlertLevel::Info,
        measure: Measure::Last("agent/frac_unconstrained"),
        sentence: |_, _| {
            "The agent asks for constrained answers (response_format, strict tools, tool_choice): the policy answers freely."
                .to_owned()
        },
        advice: |_, _| {
            "Reward what the constraints would enforce; `constraints = \"refuse\"` in [agent] ends such conversations instead."
                .to_owned()
        },
        ..RULE
    },
    Rule {
        name: "agent_errors",
        measure: Measure::Last("ends/agent_error"),
        above: 0.9,
        sentence: |_, failed| {
            format!(
                "The agent failed after a completion in {} of the last step's conversations: they earn the lowest tier.",
                percent_short(failed)
            )
        },
        advice: |_, _| {
            "Read the reasons on Live: if the program itself is at fault, fix it; `on_failure = \"no_reward\"` in [agent] counts them as scorer errors."
                .to_owned()
        },
        ..RULE
    },
    // References of guard prompts became significantly less likely.
    Rule {
        name: "forgetting",
        measure: Measure::Own(|seen| {
            let change = seen.evidence.guard_change?;
            (change.high < -FORGOTTEN).then_some(change.estimate)
        }),
        sentence: |seen, change| {
            let interval = seen.evidence.guard_change;
            let [low, high] = interval.map_or([change; 2], |change| [change.high, change.low]);
            let [lost, low, high] = [change, low, high].map(|it| -it);
            format!(
                "The guard prompts lost {lost:.3} nats/token [{low:.3}, {high:.3}] since step 0: the model forgets what they ask."
            )
        },
        advice: |_, _| {
            "Lower learning_rate, raise kl_beta, or take an earlier checkpoint.".to_owned()
        },
        ..RULE
    },
];

/// Alerts of all violated rules, without those that another explains.
pub(super) fn violated(seen: &Seen<'_>, step: u64) -> Vec<Alert> {
    let found: Vec<(&Rule, f64)> = RULES
        .iter()
        .filter_map(|rule| Some((rule, rule.value(seen)?)))
        .collect();
    let is_replaced = |name| found.iter().any(|(rule, _)| rule.replaces.contains(&name));
    let alert = |(rule, value): &(&Rule, f64)| Alert {
        value: Some(*value),
        ..Alert::new(
            rule.name,
            (rule.level)(*value),
            step,
            (rule.sentence)(seen, *value),
            (rule.advice)(seen, *value),
        )
    };
    let shown = found.iter().filter(|(rule, _)| !is_replaced(rule.name));
    shown.map(alert).collect()
}

impl Rule {
    /// The value that violates it.
    fn value(&self, seen: &Seen<'_>) -> Option<f64> {
        if !(self.applies)(seen) {
            return None;
        }
        let value = match self.measure {
            Measure::Own(own) => return own(seen),
            Measure::Last(metric) => seen.last(metric)?,
            Measure::Mean(metric) => seen.mean(metric),
            Measure::Window(metric) => seen
                .all(|step| step.contains_key(metric))
                .then(|| seen.mean(metric))?,
            Measure::InARow(metric) => {
                let latest = seen.latest();
                let values = latest.iter().map(|step| get(step, metric));
                (latest.len() == EQUAL_STEPS).then(|| values.fold(f64::INFINITY, f64::min))?
            }
        };
        (value > self.above).then_some(value)
    }
}

fn collapsed(seen: &Seen<'_>) -> Option<f64> {
    let is_active = (seen.is_active)(Ruin::Collapsed);
    let first_entropy = seen.evidence.first_entropy;
    seen.all(|step| has_collapsed(step, first_entropy, is_active))
        .then(|| seen.last("reward").unwrap_or(0.0))
}

fn diverged(seen: &Seen<'_>) -> Option<f64> {
    let first_entropy = seen.evidence.first_entropy;
    let is_active = (seen.is_active)(Ruin::Diverged);
    let has_decayed =
        !seen.config.is_distilled() && seen.all(|step| is_noise(step, first_entropy, is_active));
    (has_decayed || seen.loss().is_some()).then(|| seen.mean("reward"))
}

fn not_finite<'s>(seen: &'s Seen<'_>) -> Option<(&'s str, f64)> {
    let mut metrics = seen.evidence.steps.last()?.iter();
    let (name, value) = metrics.find(|(_, value)| !value.is_finite())?;
    Some((name, *value))
}

/// Whether the last step's gradient is finite, or there was none.
fn has_gradient(seen: &Seen<'_>) -> bool {
    seen.last("grad_norm").is_none_or(f64::is_finite)
}

/// Lowest exact rate of the latest steps, and of a reported drift: a maximal reward only means that
/// nothing is left to learn if it includes the values.
fn exact_rate(seen: &Seen<'_>) -> f64 {
    let drift = seen.evidence.drift(seen.config);
    let drifted = drift.reported.and(drift.latest).map(|now| now.exact);
    let exact = seen
        .latest()
        .iter()
        .filter_map(|step| step.get("exact").copied());
    exact.chain(drifted).fold(1.0, f64::min)
}

/// Share of truncated completions in the latest steps, if no group has a success of its own.
fn all_truncated(seen: &Seen<'_>) -> Option<f64> {
    let latest = seen.latest();
    let is_worst = |step: &Metrics| get(step, "groups/frac_all_worst") > ALL;
    let truncated = mean(latest, "completions/clipped_ratio");
    let is_one = !latest.is_empty() && latest.iter().all(is_worst) && truncated > MOSTLY_TRUNCATED;
    is_one.then_some(truncated)
}

/// Whether most of the truncated completions were still thinking.
fn thinks(seen: &Seen<'_>, truncated: f64) -> bool {
    mean(seen.latest(), "failures/think_leak") > truncated / 2.0
}

fn thinking_limit(seen: &Seen<'_>) -> &'static str {
    unless(
        seen.config.max_thinking_tokens > 0,
        "or a limit of thinking (max_thinking_tokens, thinking_end = \"force\"), ",
    )
}

/// Mean reward of the model's own completions, if in each step of a window nearly all groups have
/// zero variance below the maximum, and some are guided.
fn only_guide_earns(seen: &Seen<'_>) -> Option<f64> {
    let is_so = |step: &Metrics| {
        get(step, "groups/frac_all_worst") >= NEARLY_ALL_EQUAL
            && get(step, "groups/frac_guided") > 0.0
    };
    seen.all(is_so).then(|| seen.mean("reward"))
}

/// How much longer a rank took, if the same one did in each step of a window.
fn slowdown(seen: &Seen<'_>) -> Option<f64> {
    let slowest = seen.last("ranks/slowest")?;
    let is_slow = |step: &Metrics| {
        step.get("ranks/slowest") == Some(&slowest) && step.get("ranks/slowdown") >= Some(&SLOW)
    };
    seen.all(is_slow).then(|| seen.mean("ranks/slowdown"))
}
