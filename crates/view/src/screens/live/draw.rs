//! The panes of the live screen by its size: side by side, fewer columns, or one column.

use ratatui::layout::{Constraint, Layout, Rect};

use super::{
    CHART, COMPLETION, DEVICE, GROUPS, LOG, Live, METRICS, OVERLAY, PROMPT, RESULT, SIGNAL,
};
use super::{
    base_answers, completion, curves, device, distributions, groups, header, log, overlay, prompt,
    result, text_summary,
};
use crate::followed_run::FollowedRun;
use crate::format::short_id;
use crate::pane::content::{Content, Place};
use crate::run::Status;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::list_cursor::Cursor;

/// Text without a frame: the head of the screen, and what takes the place of panes.
const TOP: &str = "top";
const NUMBERS: &str = "numbers";
const REWARD: &str = "reward";
const ALERT: &str = "alert";

pub(super) fn places(live: &Live, shared: &Shared, area: Rect) -> Vec<Place> {
    let Ok(run) = run(shared) else {
        return vec![Place::new(live.pane, area)];
    };
    let layout = Places::new(live, shared, run, area);
    let bare = [
        (TOP, layout.top),
        (NUMBERS, layout.numbers),
        (REWARD, layout.reward),
    ];
    let mut places: Vec<Place> = bare.map(|(id, area)| Place::bare(id, area)).to_vec();
    for (area, slot) in layout.slots {
        match shown_in(live, &slot) {
            METRICS => places.extend(curves::small_places(live, shared, run, area)),
            pane => places.push(Place::new(pane, area)),
        }
    }
    places.push(Place::bare(ALERT, layout.alert));
    places.retain(|place| place.area.width > 0 && place.area.height > 0);
    places
}

pub(super) fn content<'a>(live: &'a Live, shared: &'a Shared, place: &Place) -> Content<'a> {
    let inside = place.inside();
    let columns = usize::from(inside.width);
    let run = match run(shared) {
        Ok(run) => run,
        Err((role, text)) => return Content::saying(&shared.theme, "live", role, &text, inside),
    };
    match place.id {
        TOP => Content::default().fixed(header::lines(shared, run, columns)),
        NUMBERS => Content::default().text(
            inside,
            text_summary::lines(live, shared, run, columns),
            Cursor::default(),
        ),
        REWARD => Content::default().fixed(vec![curves::one_line(live, shared, run, columns)]),
        ALERT => Content::default().fixed(log::alerts(shared, run, columns)),
        CHART => curves::large(live, shared, run, inside),
        OVERLAY => overlay::content(live, shared),
        COMPLETION => completion::content(live, shared, run, inside),
        PROMPT => prompt::content(live, shared, run, inside),
        SIGNAL => distributions::content(live, shared, run, inside),
        METRICS => curves::small(live, shared, run, place),
        DEVICE => device::content(live, shared, run, inside),
        LOG => log::content(live, shared, run, inside),
        RESULT => result::content(live, shared, run, inside),
        _ => base_answers::content(live, shared, run, inside)
            .unwrap_or_else(|| groups::content(live, shared, run, inside)),
    }
}

/// The run that is shown, or what is said in its place.
fn run(shared: &Shared) -> Result<&FollowedRun, (Role, String)> {
    let keys = || {
        format!(
            "{}  list runs\n{}  start a run",
            shared.key_of("screen.runs"),
            shared.key_of("screen.launch")
        )
    };
    let Some(run) = shared.current_run() else {
        return Err((Role::Text, format!("No run is open.\n\n{}", keys())));
    };
    // A folder without `run.toml` and without a first event is not a run.
    let is_no_run = run.directory.is_none() && run.history.run.is_none();
    match &run.error {
        Some(error) if !run.loaded || is_no_run => Err((
            Role::Bad,
            format!("cannot read {}\n\n{error}\n\n{}", run.id(), keys()),
        )),
        None if !run.loaded || is_no_run => Err((Role::Faint, format!("loading {} ...", run.id()))),
        _ => not_begun(shared, run).map_or(Ok(run), |text| Err((Role::Text, text))),
    }
}

/// What a run waits for that has not computed anything, and what can be done meanwhile; `None` for any other.
fn not_begun(shared: &Shared, run: &FollowedRun) -> Option<String> {
    let state = run
        .state
        .as_ref()
        .filter(|state| matches!(state.status, Status::Waiting | Status::Starting))?;
    let cause = state.cause.as_ref().filter(|_| run.history.run.is_none())?;
    let waits = header::waits_for(shared, run)
        .map_or_else(String::new, |text| format!("waiting {text}\n\n"));
    let open = header::holder(shared, run).map_or_else(String::new, |holder| {
        format!(", open {}", short_id(holder.directory.id()))
    });
    let key = |id| shared.key_of(id);
    let (pause, pauses) = if state.pauses_later() {
        (
            "take the pause back",
            "\n\nIt pauses before its first step.",
        )
    } else {
        ("pause before the first step", "")
    };
    Some(format!(
        "{} is {}\n\n{waits}{cause}{pauses}\n\nMeanwhile:\n{}  list runs{open}\n{}  read prompts\n{}  score completions\n{}  {pause}\n{}  stop it",
        run.id(),
        state.status.name(),
        key("screen.runs"),
        key("screen.prompts"),
        key("screen.scores"),
        key("live.pause"),
        key("live.stop")
    ))
}

/// The focused pane of a slot, else its first.
fn shown_in(live: &Live, slot: &[&'static str]) -> &'static str {
    slot.iter()
        .find(|pane| **pane == live.pane)
        .or(slot.first())
        .copied()
        .unwrap_or(GROUPS)
}

/// Rows for the groups of the step: one each, the frame, a heading and a sentence.
fn rows_of_groups(live: &Live, shared: &Shared, run: &FollowedRun) -> u16 {
    let groups = super::group_rows::rows_of_step(live, shared, live.at(run)).len();
    u16::try_from(groups).unwrap_or(u16::MAX).saturating_add(5)
}

/// The chart, and the list that replaces it.
const OVER_CHART: [&str; 2] = [CHART, OVERLAY];
/// Rows of the log; of an ended run also those of the result: its table and verdict, the most severe alert with its
/// advice, and the frame.
fn events_rows(shared: &Shared, run: &FollowedRun, most: u16, columns: u16) -> u16 {
    if !run.status().is_ended() {
        return most;
    }
    let alerts = log::alerts(shared, run, columns.saturating_sub(2).into());
    most.max(
        7 + u16::try_from(alerts.len())
            .unwrap_or(u16::MAX)
            .min(MAX_ALERT_ROWS),
    )
}

/// Rows for the charts beside the ranks.
const MAX_RANK_ROWS: u16 = 12;
/// Rows for alerts below the result.
const MAX_ALERT_ROWS: u16 = 4;

/// The log; of an ended run the result comes first.
fn events_slot(run: &FollowedRun) -> Vec<&'static str> {
    if run.status().is_ended() {
        vec![RESULT, LOG]
    } else {
        vec![LOG, RESULT]
    }
}

/// Everything below the groups, and `others`: the completion first, but the result of an ended run until its groups are
/// looked at.
fn shared_slot(live: &Live, run: &FollowedRun, others: &[&'static str]) -> Vec<&'static str> {
    let first = if run.status().is_ended() && !live.is_browsing {
        [RESULT, COMPLETION]
    } else {
        [COMPLETION, RESULT]
    };
    [&first, others, &[PROMPT, SIGNAL, METRICS, DEVICE, LOG]].concat()
}

/// The areas of all parts; parts that do not fit have none.
#[derive(Default)]
struct Places {
    top: Rect,
    /// One line with the reward as a sparkline.
    reward: Rect,
    /// One line with the most severe alert.
    alert: Rect,
    /// Numbers in place of a chart, in lines.
    numbers: Rect,
    /// Slots with the panes that share them.
    slots: Vec<(Rect, Vec<&'static str>)>,
}

impl Places {
    fn new(live: &Live, shared: &Shared, run: &FollowedRun, area: Rect) -> Self {
        if shared.zoomed {
            let [top, rest] =
                Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
            return Self {
                top,
                slots: vec![(rest, vec![live.pane])],
                ..Self::default()
            };
        }
        if shared.theme.linear {
            return Self::linear(run, area);
        }
        match (area.width, area.height) {
            (0..80, _) | (_, 0..16) => Self::one_column(live, shared, run, area),
            (80..120, _) | (_, 16..32) => Self::two_columns(live, run, area),
            _ => Self::full(live, shared, run, area),
        }
    }

    /// The numbers, one pane at a time, and the log.
    fn linear(run: &FollowedRun, area: Rect) -> Self {
        let rows = [
            Constraint::Length(1),
            Constraint::Length(20),
            Constraint::Fill(2),
            Constraint::Fill(1),
        ];
        let [top, numbers, pane, events] = Layout::vertical(rows).areas(area);
        let others = [
            &OVER_CHART[..],
            &[GROUPS, COMPLETION, PROMPT, SIGNAL, METRICS, DEVICE],
        ]
        .concat();
        Self {
            top,
            numbers,
            slots: vec![(pane, others), (events, events_slot(run))],
            ..Self::default()
        }
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
            Constraint::Length(events),
        ];
        let [top, first, second, last] = Layout::vertical(rows).areas(area);
        let [chart, board] =
            Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(first);
        let mut slots = vec![(chart, OVER_CHART.to_vec()), (board, vec![GROUPS])];
        let below = [Constraint::Fill(1), Constraint::Length(charts)];
        if device::is_shown(run) {
            let [texts, figures] = Layout::vertical(below).areas(second);
            let [text, spread] =
                Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(texts);
            let wide = if ranks > 0 { 1 } else { 2 };
            let [small, condition] =
                Layout::horizontal([Constraint::Fill(wide), Constraint::Fill(1)]).areas(figures);
            slots.extend([
                (text, vec![COMPLETION, PROMPT]),
                (spread, vec![SIGNAL]),
                (small, vec![METRICS]),
                (condition, vec![DEVICE]),
            ]);
        } else {
            // Without a GPU the completion has the rows of time and device.
            let [text, side] =
                Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(second);
            let [spread, small] = Layout::vertical(below).areas(side);
            slots.extend([
                (text, vec![COMPLETION, PROMPT]),
                (spread, vec![SIGNAL, DEVICE]),
                (small, vec![METRICS]),
            ]);
        }
        slots.push((last, events_slot(run)));
        Self {
            top,
            slots,
            ..Self::default()
        }
    }

    fn two_columns(live: &Live, run: &FollowedRun, area: Rect) -> Self {
        let upper = area.height.saturating_sub(2) / 2;
        let below = u16::from(run.history.standing_alerts().next().is_some());
        let rows = [
            Constraint::Length(2),
            Constraint::Length(upper),
            Constraint::Fill(1),
            Constraint::Length(below),
        ];
        let [top, first, second, alert] = Layout::vertical(rows).areas(area);
        let [chart, board] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(first);
        let rest = shared_slot(live, run, &[]);
        Self {
            top,
            alert,
            slots: vec![
                (chart, OVER_CHART.to_vec()),
                (board, vec![GROUPS]),
                (second, rest),
            ],
            ..Self::default()
        }
    }

    fn one_column(live: &Live, shared: &Shared, run: &FollowedRun, area: Rect) -> Self {
        let board = rows_of_groups(live, shared, run)
            .min(area.height.saturating_sub(3) / 2)
            .max(3);
        let rows = [
            Constraint::Length(2),
            Constraint::Length(1),
            Constraint::Length(board),
            Constraint::Fill(1),
        ];
        let [top, reward, groups, rest] = Layout::vertical(rows).areas(area);
        let others = shared_slot(live, run, &OVER_CHART);
        Self {
            top,
            reward,
            slots: vec![(groups, vec![GROUPS]), (rest, others)],
            ..Self::default()
        }
    }
}
