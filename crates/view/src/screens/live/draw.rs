//! Draws the live screen by its size: side by side, fewer columns, one column, or numbers only.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Wrap};

use super::{CHANGES, CHART, CHOOSER, COMPLETION, DEVICE, GROUPS, LOG, Live, METRICS, OVERLAY, PROMPT, RESULT, SIGNAL};
use super::{
    changes, chart_chooser, completion, curves, device, distributions, groups, header, log, overlay, prompt, result,
    text_summary,
};
use crate::followed_run::FollowedRun;
use crate::pane::text_pane;
use crate::run::Status;
use crate::shared::Shared;
use crate::style_role::Role;

pub(super) fn draw(live: &Live, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let keys =
        || format!("{}  list runs\n{}  start a run", shared.key_of("screen.runs"), shared.key_of("screen.launch"));
    let Some(run) = shared.current_run() else {
        let text = format!("No run is open.\n\n{}", keys());
        return text_pane(&shared.theme, "live", (Role::Text, &text), frame, area);
    };
    // A folder without `run.toml` and without a first event is not a run.
    let is_no_run = run.directory.is_none() && run.history.run.is_none();
    if !run.loaded || is_no_run {
        return match &run.error {
            Some(error) => {
                let text = format!("cannot read {}\n\n{error}\n\n{}", run.id(), keys());
                text_pane(&shared.theme, "live", (Role::Bad, &text), frame, area)
            }
            None => text_pane(&shared.theme, "live", (Role::Faint, &format!("loading {} ...", run.id())), frame, area),
        };
    }
    if let Some(text) = not_begun(shared, run) {
        return text_pane(&shared.theme, "live", (Role::Text, &text), frame, area);
    }
    let layout = Places::new(live, shared, run, area);
    frame.render_widget(Paragraph::new(header::lines(shared, run, layout.top.width as usize)), layout.top);
    if layout.numbers.width > 0 {
        let lines = text_summary::lines(live, shared, run, area.width as usize);
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), layout.numbers);
    }
    frame.render_widget(
        Paragraph::new(curves::one_line(live, shared, run, layout.reward.width as usize)),
        layout.reward,
    );
    for (area, slot) in &layout.slots {
        one_of(live, shared, run, frame, *area, shown_in(live, slot));
    }
    let alerts: Vec<Line<'_>> = log::alerts(shared, run, area.width as usize).into_iter().take(1).collect();
    frame.render_widget(Paragraph::new(alerts), layout.alert);
}

/// What a run waits for that has not computed anything; `None` for any other.
fn not_begun(shared: &Shared, run: &FollowedRun) -> Option<String> {
    let state = run.state.as_ref().filter(|state| matches!(state.status, Status::Waiting | Status::Starting))?;
    let cause = state.cause.as_ref().filter(|_| run.history.run.is_none())?;
    Some(format!("{} is {}\n\n{}\n\n{}  stop it", run.id(), state.status.name(), cause, shared.key_of("live.stop")))
}

/// The pane at a screen position, with the area of its frame.
pub(super) fn pane_at(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    column: u16,
    row: u16,
) -> Option<(&'static str, Rect)> {
    let slots = Places::new(live, shared, run, shared.body()).slots;
    let found = slots.into_iter().find(|(area, _)| area.contains((column, row).into()));
    found.map(|(area, slot)| (shown_in(live, &slot), area))
}

/// The focused pane of a slot, else its first.
fn shown_in(live: &Live, slot: &[&'static str]) -> &'static str {
    slot.iter().find(|pane| **pane == live.pane).or(slot.first()).copied().unwrap_or(GROUPS)
}

fn one_of(live: &Live, shared: &Shared, run: &FollowedRun, frame: &mut Frame<'_>, area: Rect, pane: &'static str) {
    if area.width == 0 || area.height == 0 {
        return;
    }
    let focused = pane == live.pane;
    match pane {
        CHART => curves::draw_large(live, shared, run, frame, area, focused),
        OVERLAY => overlay::draw(live, shared, frame, area),
        CHOOSER => chart_chooser::draw(live, shared, run, frame, area),
        COMPLETION => completion::draw(live, shared, run, frame, area, focused),
        PROMPT => prompt::draw(live, shared, run, frame, area, focused),
        SIGNAL => distributions::draw(live, shared, run, frame, area, focused),
        METRICS => curves::draw_small(live, shared, run, frame, area, focused),
        DEVICE => device::draw(live, shared, run, frame, area, focused),
        CHANGES => changes::draw(live, shared, run, frame, area, focused),
        LOG => log::draw(live, shared, run, frame, area, focused),
        RESULT => result::draw(shared, run, frame, area, focused),
        _ => groups::draw(live, shared, run, frame, area, focused),
    }
}

/// Rows for the groups of the step: one each, the frame, a heading and a sentence.
fn rows_of_groups(live: &Live, shared: &Shared, run: &FollowedRun) -> u16 {
    let groups = super::group_rows::rows_of_step(live, shared, live.at(run)).len();
    u16::try_from(groups).unwrap_or(u16::MAX).saturating_add(5)
}

/// The chart, and the lists that replace it.
const OVER_CHART: [&str; 3] = [CHART, OVERLAY, CHOOSER];
/// Rows of the log; of an ended run also those of the result: its table, the most severe alert with its advice, and the
/// frame.
fn events_rows(shared: &Shared, run: &FollowedRun, most: u16, columns: u16) -> u16 {
    if !run.status().is_ended() {
        return most;
    }
    let alerts = log::alerts(shared, run, columns.saturating_sub(2).into());
    most.max(6 + u16::try_from(alerts.len()).unwrap_or(u16::MAX).min(MAX_ALERT_ROWS))
}

/// Rows for the charts beside the ranks.
const MAX_RANK_ROWS: u16 = 12;
/// Rows for alerts below the result.
const MAX_ALERT_ROWS: u16 = 4;

/// The log; of an ended run the result comes first.
fn events_slot(run: &FollowedRun) -> Vec<&'static str> {
    if run.status().is_ended() { vec![RESULT, LOG] } else { vec![LOG, RESULT] }
}

/// Everything below the groups, and `others`: the completion first, but the result of an ended run until its groups are
/// looked at.
fn shared_slot(live: &Live, run: &FollowedRun, others: &[&'static str]) -> Vec<&'static str> {
    let first = if run.status().is_ended() && !live.is_browsing { [RESULT, COMPLETION] } else { [COMPLETION, RESULT] };
    [&first, others, &[PROMPT, SIGNAL, CHANGES, METRICS, DEVICE, LOG]].concat()
}

/// The areas of all parts; parts that do not fit have none.
#[derive(Default)]
struct Places {
    top: Rect,
    /// One line with the reward as a sparkline.
    reward: Rect,
    /// One line with the most severe alert.
    alert: Rect,
    /// Numbers in place of everything.
    numbers: Rect,
    /// Slots with the panes that share them.
    slots: Vec<(Rect, Vec<&'static str>)>,
}

impl Places {
    fn new(live: &Live, shared: &Shared, run: &FollowedRun, area: Rect) -> Self {
        if shared.zoomed {
            let [top, rest] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
            return Self { top, slots: vec![(rest, vec![live.pane])], ..Self::default() };
        }
        if shared.theme.linear {
            return Self::linear(run, area);
        }
        match (area.width, area.height) {
            (0..60, _) => Self { numbers: area, ..Self::default() },
            (60..80, _) | (_, 0..16) => Self::one_column(live, shared, run, area),
            (80..100, _) | (_, 16..25) => Self::two_columns(live, run, area),
            (_, 25..32) | (100..120, _) => Self::medium(shared, run, area),
            _ => Self::full(live, shared, run, area),
        }
    }

    /// The numbers, one pane at a time, and the log.
    fn linear(run: &FollowedRun, area: Rect) -> Self {
        let rows = [Constraint::Length(1), Constraint::Length(20), Constraint::Fill(2), Constraint::Fill(1)];
        let [top, numbers, pane, events] = Layout::vertical(rows).areas(area);
        let others = [&OVER_CHART[..], &[GROUPS, COMPLETION, PROMPT, SIGNAL, CHANGES, METRICS, DEVICE]].concat();
        Self { top, numbers, slots: vec![(pane, others), (events, events_slot(run))], ..Self::default() }
    }

    fn full(live: &Live, shared: &Shared, run: &FollowedRun, area: Rect) -> Self {
        let rest = area.height - 2;
        let (charts, events) = if rest >= 40 { (11, 7) } else { (7, 5) };
        let ranks = u16::try_from(run.history.ranks.len()).unwrap_or(u16::MAX);
        // Several ranks take a line each, below the bar and the titles.
        let charts = charts.max(ranks.saturating_add(4).min(MAX_RANK_ROWS));
        let events = events_rows(shared, run, events, area.width);
        let both = rest - charts - events;
        let upper = (both.div_ceil(2) + 1).max(rows_of_groups(live, shared, run).min(both * 2 / 3));
        let rows = [
            Constraint::Length(2),
            Constraint::Length(upper),
            Constraint::Fill(1),
            Constraint::Length(charts),
            Constraint::Length(events),
        ];
        let [top, first, second, third, last] = Layout::vertical(rows).areas(area);
        let [chart, board] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(first);
        let mut slots = vec![(chart, OVER_CHART.to_vec()), (board, vec![GROUPS])];
        if area.width >= 150 {
            let thirds = [Constraint::Fill(4), Constraint::Fill(3), Constraint::Fill(3)];
            let [text, across, spread] = Layout::horizontal(thirds).areas(second);
            slots.extend([(text, vec![COMPLETION]), (across, vec![PROMPT, CHANGES]), (spread, vec![SIGNAL])]);
        } else {
            let [text, spread] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(second);
            slots.extend([(text, vec![COMPLETION]), (spread, vec![SIGNAL, PROMPT, CHANGES])]);
        }
        let wide = if ranks > 0 { 1 } else { 2 };
        let [small, condition] = Layout::horizontal([Constraint::Fill(wide), Constraint::Fill(1)]).areas(third);
        slots.extend([(small, vec![METRICS]), (condition, vec![DEVICE]), (last, events_slot(run))]);
        Self { top, slots, ..Self::default() }
    }

    fn medium(shared: &Shared, run: &FollowedRun, area: Rect) -> Self {
        let events = events_rows(shared, run, 5, area.width);
        let upper = (area.height - 1 - events) / 2;
        let rows = [Constraint::Length(2), Constraint::Length(upper), Constraint::Fill(1), Constraint::Length(events)];
        let [top, first, second, last] = Layout::vertical(rows).areas(area);
        let halves = || Layout::horizontal([Constraint::Fill(11), Constraint::Fill(9)]);
        let ([chart, board], [text, spread]) = (halves().areas(first), halves().areas(second));
        let slots = vec![
            (chart, OVER_CHART.to_vec()),
            (board, vec![GROUPS]),
            (text, vec![COMPLETION]),
            (spread, vec![SIGNAL, PROMPT, CHANGES, METRICS, DEVICE]),
            (last, events_slot(run)),
        ];
        Self { top, slots, ..Self::default() }
    }

    fn two_columns(live: &Live, run: &FollowedRun, area: Rect) -> Self {
        let upper = area.height.saturating_sub(2) / 2;
        let below = u16::from(run.history.standing_alerts().next().is_some());
        let rows = [Constraint::Length(2), Constraint::Length(upper), Constraint::Fill(1), Constraint::Length(below)];
        let [top, first, second, alert] = Layout::vertical(rows).areas(area);
        let [chart, board] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(first);
        let rest = shared_slot(live, run, &[]);
        Self {
            top,
            alert,
            slots: vec![(chart, OVER_CHART.to_vec()), (board, vec![GROUPS]), (second, rest)],
            ..Self::default()
        }
    }

    fn one_column(live: &Live, shared: &Shared, run: &FollowedRun, area: Rect) -> Self {
        let board = rows_of_groups(live, shared, run).min(area.height.saturating_sub(3) / 2).max(3);
        let rows = [Constraint::Length(2), Constraint::Length(1), Constraint::Length(board), Constraint::Fill(1)];
        let [top, reward, groups, rest] = Layout::vertical(rows).areas(area);
        let others = shared_slot(live, run, &OVER_CHART);
        Self { top, reward, slots: vec![(groups, vec![GROUPS]), (rest, others)], ..Self::default() }
    }
}
