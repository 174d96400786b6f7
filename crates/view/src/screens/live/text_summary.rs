//! A run as a list of numbers, for very small terminals and linear mode.

use ratatui::text::Line;

use super::{Live, header, log};
use crate::followed_run::FollowedRun;
use crate::page::Block;
use crate::pane::page::PageLines;
use crate::report::step_facts;
use crate::shared::Shared;
use crate::style_role::Role;

/// One number per line.
pub(super) fn lines(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    columns: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let cause = run.state.as_ref().and_then(|state| state.cause.as_ref());
    let (_, role) = theme.status_mark(run.status(), cause, &run.outcome);
    let mut lines = vec![Line::styled(run.status().name(), theme.style(role))];
    let error = run.error.clone();
    lines.extend(error.map(|why| Line::styled(why, theme.style(Role::Bad))));
    lines.extend(log::alerts(shared, run, columns));
    let facts = step_facts(
        &run.history,
        run.status().is_ended(),
        live.at(run),
        &run.outcome,
    );
    lines.extend(PageLines { theme, columns }.lines(&[Block::Facts(facts)]));
    lines.extend(header::guard(run).map(|(text, role)| Line::styled(text, theme.style(role))));
    lines
}
