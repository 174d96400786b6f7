//! A run as a list of numbers, for terminals that have room for nothing else.

use ratatui::text::Line;

use super::{header, log};
use crate::view::app::Model;
use crate::view::followed_run::FollowedRun;
use crate::view::screens::runs;
use crate::view::style_role::Role;
use crate::view::widgets::number_format::{amount, duration, percent};

/// One fact a line.
pub(super) fn lines(model: &Model, run: &FollowedRun, columns: usize) -> Vec<Line<'static>> {
    let step = model.live.at(run);
    let value = |name: &str| run.history.metrics.get(name).and_then(|series| series.at(step));
    let number = |name: &str| value(name).map_or_else(|| "n/a".to_owned(), amount);
    let share = |name: &str| value(name).map_or_else(|| "n/a".to_owned(), percent);
    let (_, role) = runs::state(&model.shared.theme, run.status(), run.state.as_ref().and_then(|state| state.cause.as_deref()));
    let total = header::total_steps(run);
    let left = header::pace(run).filter(|_| !run.status().is_ended()).map(|pace| pace * total.saturating_sub(step) as f64);
    let eval = run.history.latest_eval("eval", "trained").map_or_else(|| "-".to_owned(), |eval| percent(eval.summary.valid));
    let base = run.history.latest_eval("eval", "base").map_or_else(|| "-".to_owned(), |eval| percent(eval.summary.valid));
    let mut lines = vec![
        Line::styled(run.status().name(), model.shared.theme.style(role)),
        Line::raw(format!("step {step} of {total}")),
        Line::raw(format!("time left {}", left.map_or_else(|| "-".to_owned(), duration))),
        Line::raw(format!("reward {} std {}", number("reward"), number("reward_std"))),
        Line::raw(format!("valid {} invalid {}", share("tiers/valid"), share("tiers/invalid"))),
        Line::raw(format!("unparsable {}", share("tiers/unparsable"))),
        Line::raw(format!("zero-variance groups {}", share("frac_reward_zero_std"))),
        Line::raw(format!("eval: base {base}, now {eval}")),
        Line::raw(format!("tokens {} truncated {}", number("completions/mean_length"), share("completions/clipped_ratio"))),
        Line::raw(format!("kl {} entropy {}", number("kl"), number("entropy"))),
        Line::raw(format!("loss {} grad norm {}", number("loss"), number("grad_norm"))),
    ];
    lines.splice(1..1, log::alerts(model, run, columns));
    if let Some(why) = lines.first().filter(|_| run.error.is_some()).and(run.error.as_ref()) {
        lines.insert(1, Line::styled(why.clone(), model.shared.theme.style(Role::Bad)));
    }
    lines
}
