//! A run as a list of numbers, for very small terminals and linear mode.

use ratatui::text::Line;

use super::{Live, header, log};
use crate::facts::Target;
use crate::followed_run::FollowedRun;
use crate::format::{amount, duration, or_na, percent_short};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::task::{PromptSet, SetName};

/// One number per line.
pub(super) fn lines(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    columns: usize,
) -> Vec<Line<'static>> {
    let step = live.at(run);
    let value = |name: &str| {
        run.history
            .metrics
            .get(name)
            .and_then(|series| series.at(step))
    };
    let number = |name: &str| or_na(value(name), amount);
    let share = |name: &str| or_na(value(name), percent_short);
    let cause = run.state.as_ref().and_then(|state| state.cause.as_ref());
    let (_, role) = shared.theme.status_mark(run.status(), cause, &run.outcome);
    let total = or_na(run.history.planned_steps(), |total| total.to_string());
    let left = run
        .history
        .seconds_left()
        .filter(|_| !run.status().is_ended());
    let tasks = run.history.task_names();
    let eval = |set: &SetName, target| {
        or_na(run.history.latest_eval(set, target), |eval| {
            format!(
                "valid {} exact {}",
                percent_short(eval.summary.valid),
                or_na(eval.summary.exact, percent_short)
            )
        })
    };
    let mut lines = vec![
        Line::styled(run.status().name(), shared.theme.style(role)),
        Line::raw(format!("step {step} of {total}")),
        Line::raw(format!("time left {}", or_na(left, duration))),
        Line::raw(format!(
            "reward {} std {}",
            number("reward"),
            number("reward_std")
        )),
        Line::raw(format!(
            "valid {} invalid {}",
            share("tiers/valid"),
            share("tiers/invalid")
        )),
        Line::raw(format!("unparsable {}", share("tiers/unparsable"))),
        Line::raw(format!(
            "zero-variance groups {}",
            share("frac_reward_zero_std")
        )),
        Line::styled(
            run.outcome.label(),
            shared.theme.style(run.outcome.level().into()),
        ),
        Line::raw(format!(
            "tokens {} truncated {}",
            number("completions/mean_length"),
            share("completions/clipped_ratio")
        )),
        Line::raw(format!("kl {} entropy {}", number("kl"), number("entropy"))),
        Line::raw(format!(
            "loss {} grad norm {}",
            number("loss"),
            number("grad_norm")
        )),
    ];
    lines.extend(
        header::guard(run).map(|(text, role)| Line::styled(text, shared.theme.style(role))),
    );
    let evals = tasks.iter().flat_map(|task| {
        let set = SetName::new(PromptSet::Eval, task);
        [("base", Target::Base), ("now", Target::Trained)]
            .map(|(word, target)| Line::raw(format!("{set} {word}: {}", eval(&set, target))))
    });
    lines.splice(7..7, evals);
    lines.splice(1..1, log::alerts(shared, run, columns));
    if let Some(why) = &run.error {
        lines.insert(1, Line::styled(why.clone(), shared.theme.style(Role::Bad)));
    }
    lines
}
