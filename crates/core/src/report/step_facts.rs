//! How far a run is, in a few facts: for very small terminals and linear mode.

use super::run_outcome::RunOutcome;
use crate::facts::Target;
use crate::page::{Cell, Fact};
use crate::run::RunState;
use crate::task::{PromptSet, SetName};

/// The values of a step, the latest evals, and the verdict against the base. `is_ended`: also by a
/// killed worker.
pub fn step_facts(
    history: &RunState,
    is_ended: bool,
    step: u64,
    outcome: &RunOutcome,
) -> Vec<Fact> {
    let metric = |name: &str, cell: fn(f64) -> Cell| {
        Cell::known(history.metric_at(name, step).map(cell), "not measured")
    };
    let [number, rate] = [Cell::Amount, Cell::rate].map(|cell| move |name| metric(name, cell));
    let noted = |cell: Cell, note: &str, of: Cell| match cell {
        Cell::Unknown(_) => cell,
        _ => Cell::Noted(Box::new(cell), format!("{note} {}", of.short())),
    };
    let total = history.planned_steps();
    let total = total.map_or_else(String::new, |total| format!(" of {total}"));
    let left = match is_ended {
        true => Cell::Unknown("ended"),
        false => Cell::known(history.seconds_left().map(Cell::Seconds), "not known yet"),
    };
    let valid = noted(rate("tiers/valid"), "invalid", rate("tiers/invalid"));
    let targets = [("base", Target::Base), ("now", Target::Trained)];
    let evals = history.task_names().into_iter().flat_map(|task| {
        let set = SetName::new(PromptSet::Eval, task);
        targets.map(|(word, target)| {
            let valid = history.latest_eval(&set, target).map(|eval| {
                let summary = &eval.summary;
                let exact = Cell::known(summary.exact.map(Cell::rate), "no expected answers");
                let valid = Cell::interval(summary.valid, summary.valid_interval);
                noted(valid, "exact", exact)
            });
            Fact::new(format!("{set} {word}"), Cell::known(valid, "no eval yet"))
        })
    });
    let mut facts = vec![
        Fact::new("step", format!("{step}{total}")),
        Fact::new("time left", left),
        Fact::new(
            "reward",
            noted(number("reward"), "std", number("reward_std")),
        ),
        Fact::new("valid", valid),
        Fact::new("unparsable", rate("tiers/unparsable")),
        Fact::new("zero variance", rate("frac_reward_zero_std")),
    ];
    facts.extend(evals);
    let tokens = number("completions/mean_length");
    let tokens = noted(tokens, "truncated", rate("completions/clipped_ratio"));
    facts.extend([
        Fact {
            level: outcome.level(),
            ..Fact::new("vs base", outcome.than_base(" and "))
        },
        Fact::new("tokens", tokens),
        Fact::new("entropy", noted(number("entropy"), "kl", number("kl"))),
        Fact::new(
            "loss",
            noted(number("loss"), "grad norm", number("grad_norm")),
        ),
    ]);
    facts
}
