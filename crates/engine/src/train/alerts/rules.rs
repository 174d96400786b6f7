//! The rules: condition, name, level, value, message and advice.

use super::advice::{self, unless};
use super::collapsed::{description, has_collapsed};
use super::evidence::Evidence;
use super::steps::{Metrics, WINDOW, get, mean};
use crate::config::{ThinkingEnd, TrainConfig};
use crate::facts::{AlertLevel, Ruin};
use crate::format::percent_short;
use crate::run::events::Alert;

pub(super) const VALUE_DRIFT: &str = "value_drift";

/// Share of conversations that failed, beyond which the program is suspected.
const MOSTLY_FAILED: f64 = 0.9;
/// Consecutive steps without a mixed group.
const EQUAL_STEPS: usize = 3;
/// Share of truncated completions above which the limit decides rewards.
const MAX_TRUNCATED: f64 = 0.05;
/// Share of zero-variance groups above which a KL term dominates; a warning above nine in ten.
const MANY_EQUAL: f64 = 0.5;
const NEARLY_ALL_EQUAL: f64 = 0.9;
/// Share of completions whose reasoning reaches the scorer.
const MAX_THINK_LEAKS: f64 = 0.05;
/// Share of exact answers that counts as all.
const ALL_EXACT: f64 = 0.995;
/// Largest rank's tokens relative to an even share, from which others wait long.
const MAX_IMBALANCE: f64 = 1.5;
/// A rank's time per token relative to the others, in each step of a window.
const SLOW: f64 = 1.25;
/// Nats per token that guard prompts may lose, about 5% of a token's probability.
const FORGOTTEN: f64 = 0.05;

/// Alerts of all violated rules. `is_active`: whether the alert of a lost policy is open.
pub(super) fn violated(
    seen: &Evidence,
    step: u64,
    config: &TrainConfig,
    is_active: impl Fn(Ruin) -> bool,
) -> Vec<Alert> {
    let (steps, task, first_entropy) = (&seen.steps[..], &seen.task, seen.first_entropy);
    let none = Metrics::new();
    let (last, is_window) = (steps.last().unwrap_or(&none), steps.len() == WINDOW);
    let mean = |name| mean(steps, name);
    let all = |is_so: &dyn Fn(&Metrics) -> bool| is_window && steps.iter().all(is_so);
    let latest = &steps[steps.len().saturating_sub(EQUAL_STEPS)..];
    let in_a_row = |name| {
        let is_one = |step: &Metrics| get(step, name) >= 1.0;
        latest.len() == EQUAL_STEPS && latest.iter().all(is_one)
    };
    let mut alerts = Vec::new();
    let mut raise = |rule, level, value, sentence: String, suggestion: String| {
        let alert = Alert::new(rule, level, step, sentence, suggestion);
        alerts.push(Alert {
            value: Some(value),
            ..alert
        });
    };

    let has_collapsed =
        |step: &Metrics| has_collapsed(step, first_entropy, is_active(Ruin::Collapsed));
    if all(&has_collapsed) && !config.is_distilled() {
        let described = description(last, first_entropy, seen.frequent_answer.as_deref());
        raise(
            Ruin::Collapsed.name(),
            AlertLevel::Warning,
            get(last, "reward"),
            format!(
                "The policy collapsed: {described}; few groups of the last {WINDOW} steps had a gradient."
            ),
            task.collapsed(config),
        );
    }
    let windows = &seen.best_windows;
    if let Some(loss) = windows.loss(steps, is_active(Ruin::Diverged), task.share, config) {
        let described = loss.description(last, first_entropy);
        raise(
            Ruin::Diverged.name(),
            AlertLevel::Warning,
            mean("reward"),
            format!("The policy diverged: in the last {WINDOW} steps {described}."),
            advice::diverged(config),
        );
    }
    if let Some((name, value)) = last.iter().find(|(_, value)| !value.is_finite()) {
        let is_gradient = last.get("grad_norm").is_some_and(|norm| !norm.is_finite());
        let clip = unless(config.grad_clip_norm > 0.0, " or set grad_clip_norm");
        let (effect, suggestion) = if is_gradient {
            let lower = format!("If it happens again, lower learning_rate{clip}");
            (
                ": the step changed nothing",
                format!("{lower}; three consecutive steps stop the run."),
            )
        } else {
            let read =
                "Read the completions of the step, and why scorers failed (failures/scorer_error).";
            ("", read.to_owned())
        };
        let sentence = format!("{name} is not finite{effect}.");
        raise(
            "not_finite",
            AlertLevel::Error,
            *value,
            sentence,
            suggestion,
        );
    }
    let equal = mean("frac_reward_zero_std");
    if is_window && config.kl_beta > 0.0 && equal > MANY_EQUAL {
        let (share, kl_beta) = (percent_short(equal), config.kl_beta);
        let sampling = unless(config.dynamic_sampling, ", or dynamic_sampling = true");
        raise(
            "dead_groups_with_kl",
            if equal >= NEARLY_ALL_EQUAL {
                AlertLevel::Warning
            } else {
                AlertLevel::Info
            },
            equal,
            format!(
                "{share} of the groups have zero variance, and kl_beta = {kl_beta} still forwards them: they contribute KL only."
            ),
            format!("Set kl_beta = 0{sampling}."),
        );
    }
    let drift = seen.drift(config);
    if in_a_row("groups/frac_all_best") {
        // A maximal reward only means that nothing is left to learn if it includes the values.
        let drifted = drift.reported.and(drift.latest).map(|now| now.exact);
        let exact = latest.iter().filter_map(|step| step.get("exact").copied());
        let exact = exact.chain(drifted).fold(1.0, f64::min);
        let (sentence, suggestion) = if exact < ALL_EXACT {
            let only = format!("only {} of completions are exact", percent_short(exact));
            (
                format!("{only}: the reward no longer separates right values from wrong ones."),
                task.all_max(),
            )
        } else {
            (
                "there is nothing left to learn from these prompts.".to_owned(),
                "Stop here, or add harder prompts.".to_owned(),
            )
        };
        let all = format!("All groups earn the full reward in the last {EQUAL_STEPS} steps");
        raise(
            "all_best",
            AlertLevel::Info,
            1.0,
            format!("{all}: {sentence}"),
            suggestion,
        );
    }
    // A guided answer gives a gradient.
    let is_guided = |step: &Metrics| get(step, "groups/frac_guided") > 0.0;
    if in_a_row("groups/frac_all_worst") && !latest.iter().any(is_guided) && !config.is_distilled()
    {
        raise(
            "all_worst",
            AlertLevel::Warning,
            1.0,
            format!(
                "All groups of the last {EQUAL_STEPS} steps have equal rewards below the maximum: zero variance, so no gradient."
            ),
            task.all_worst(),
        );
    }
    let truncated = mean("completions/clipped_ratio");
    if truncated > MAX_TRUNCATED {
        let (share, limit) = (percent_short(truncated), config.max_completion_tokens);
        let thinking = match config.thinking_budget() {
            Some(budget) if budget.end == ThinkingEnd::Truncate => {
                format!(", or {} of thinking,", budget.max_tokens)
            }
            _ => String::new(),
        };
        let mask = unless(config.overlong_masking, ", or set overlong_masking = true");
        raise(
            "clipped_completions",
            AlertLevel::Warning,
            truncated,
            format!(
                "{share} of the completions are truncated at {limit} tokens{thinking} and scored as they are."
            ),
            format!("Raise max_completion_tokens{mask}."),
        );
    }
    let leaks = mean("failures/think_leak");
    if leaks > MAX_THINK_LEAKS {
        let share = percent_short(leaks);
        let limit = unless(
            config.max_thinking_tokens > 0,
            "or a limit of thinking (max_thinking_tokens, thinking_end = \"force\"), ",
        );
        raise(
            "think_leak",
            AlertLevel::Warning,
            leaks,
            format!(
                "{share} of the completions pass unfinished reasoning to the scorer: their reward says nothing about the answer."
            ),
            format!(
                "Set thinking = false in task.toml, {limit}or raise max_completion_tokens until the block closes."
            ),
        );
    }
    // The classic hack of a format reward: answers keep their form and lose their values.
    if let Some((best, now)) = drift.best.zip(drift.reported) {
        let [from, to, valid] = [best.exact, now.exact, now.valid].map(percent_short);
        raise(
            VALUE_DRIFT,
            AlertLevel::Warning,
            now.exact,
            format!(
                "Exact match fell from {from} at its best to {to} while {valid} of completions are valid: the model learns the form at the expense of the \
                 values."
            ),
            task.value_drift(),
        );
    }
    let imbalance = mean("ranks/imbalance");
    if all(&|step| step.contains_key("ranks/imbalance")) && imbalance > MAX_IMBALANCE {
        raise(
            "rank_imbalance",
            AlertLevel::Warning,
            imbalance,
            format!(
                "In the last {WINDOW} steps one rank had {imbalance:.1} times an even share of the tokens: the others waited for it."
            ),
            "Raise prompt_groups_per_step or completions_per_prompt, or resume with fewer ranks (--ranks)."
                .to_owned(),
        );
    }
    let slowest = last.get("ranks/slowest");
    let is_slow = |step: &Metrics| {
        step.get("ranks/slowest") == slowest && step.get("ranks/slowdown") >= Some(&SLOW)
    };
    if let Some(rank) = slowest.filter(|_| all(&is_slow)) {
        let slowdown = mean("ranks/slowdown");
        raise(
            "slow_rank",
            AlertLevel::Warning,
            slowdown,
            format!(
                "Rank {rank} took {slowdown:.2} times as long as the others for as many tokens in the last {WINDOW} steps, and all wait for it."
            ),
            "Look for other processes on its device, and at its clocks and temperature (nvidia-smi); resume without that GPU or node."
                .to_owned(),
        );
    }
    let ignored = get(last, "agent/frac_ignored");
    if ignored > 0.0 {
        raise(
            "agent_sampling",
            AlertLevel::Info,
            ignored,
            "The agent asks for a temperature, top_p, penalties or a seed other than the run's: they have no effect."
                .to_owned(),
            "Leave them out of its requests, or set temperature of the run.".to_owned(),
        );
    }
    let unconstrained = get(last, "agent/frac_unconstrained");
    if unconstrained > 0.0 {
        raise(
            "agent_constraints",
            AlertLevel::Info,
            unconstrained,
            "The agent asks for constrained answers (response_format, strict tools, tool_choice): the policy answers freely."
                .to_owned(),
            "Reward what the constraints would enforce; `constraints = \"refuse\"` in [agent] ends such conversations instead."
                .to_owned(),
        );
    }
    let failed = get(last, "ends/agent_error");
    if failed > MOSTLY_FAILED {
        raise(
            "agent_errors",
            AlertLevel::Warning,
            failed,
            format!("The agent failed after a completion in {:.0}% of the last step's conversations: they earn the lowest tier.", 100.0 * failed),
            "Read the reasons on Live: if the program itself is at fault, fix it; `on_failure = \"no_reward\"` in [agent] counts them as scorer errors."
                .to_owned(),
        );
    }
    // References of guard prompts became significantly less likely.
    if let Some(change) = seen.guard_change.filter(|change| change.high < -FORGOTTEN) {
        let [lost, low, high] = [change.estimate, change.high, change.low].map(|it| -it);
        raise(
            "forgetting",
            AlertLevel::Warning,
            change.estimate,
            format!(
                "The guard prompts lost {lost:.3} nats/token [{low:.3}, {high:.3}] since step 0: the model forgets what they ask."
            ),
            "Lower learning_rate, raise kl_beta, or take an earlier checkpoint.".to_owned(),
        );
    }
    alerts
}
