//! Chooses the small charts, which are kept in the user's settings.

use super::charts::{self, Subject};
use super::{CHART, CHOOSER, Live};
use crate::followed_run::FollowedRun;
use crate::format::{amount, or_na};
use crate::message::{Command, Work};
use crate::pane::content::Content;
use crate::settings;
use crate::shared::Shared;
use crate::widgets::check_list::{self, CheckRow};

/// Opens or closes the list.
pub(super) fn open(live: &mut Live, _: &mut Shared) -> Vec<Command> {
    live.pane = if live.pane == CHOOSER { CHART } else { CHOOSER };
    Vec::new()
}

/// Toggles the chart under the cursor.
pub(super) fn toggle(live: &mut Live, shared: &mut Shared) -> Vec<Command> {
    let under_cursor = shared.current_run().and_then(|run| {
        let charts = charts::matching(live, run);
        let subject = charts.get(live.chooser_cursor.at(charts.len())?)?;
        Some((subject.title.to_owned(), place(*subject, shared)))
    });
    match under_cursor {
        Some((_, Some(place))) => _ = shared.options.live_charts.remove(place),
        Some((title, None)) => shared.options.live_charts.push(title),
        None => return Vec::new(),
    }
    save(live, shared)
}

/// Returns to the program's charts.
pub(super) fn reset(live: &mut Live, shared: &mut Shared) -> Vec<Command> {
    shared.options.live_charts.clear();
    save(live, shared)
}

/// The place of a chart among the chosen ones.
fn place(subject: Subject<'_>, shared: &Shared) -> Option<usize> {
    shared
        .options
        .live_charts
        .iter()
        .position(|name| subject.is_called(name))
}

fn save(live: &mut Live, shared: &Shared) -> Vec<Command> {
    live.view.small = 0;
    let Some(file) = shared.options.appearance.config_file() else {
        return Vec::new();
    };
    let chosen = shared.options.live_charts.clone();
    vec![Work::latest(
        "live.charts",
        move |_| settings::save_list(&file, "live_charts", &chosen),
        |_: &mut Live, shared, saved| {
            if let Err(error) = saved {
                shared.complain(format!("charts are kept for this session only: {error}"));
            }
            Vec::new()
        },
    )]
}

/// The list in place of the chart.
pub(super) fn content<'a>(
    live: &Live,
    shared: &'a Shared,
    run: &FollowedRun,
    columns: usize,
) -> Content<'a> {
    let title = match shared.options.live_charts.len() {
        0 => "small charts: the default ones".to_owned(),
        count => format!("small charts: {count} chosen"),
    };
    let charts = charts::matching(live, run);
    let note = format!("{} of {}", charts.len(), charts::all(run).len());
    let head = live
        .metrics
        .is_shown()
        .then(|| live.metrics.line(&shared.theme, columns, &note));
    let value = |subject: &Subject<'_>| {
        let name = subject.metrics().next().map_or("", |(_, name)| name);
        or_na(run.history.metric_at(name, live.at(run)), amount)
    };
    let row = |subject: &Subject<'_>| CheckRow {
        on: place(*subject, shared).map(|place| (place + 1).to_string()),
        label: subject.title.to_owned(),
        beside: value(subject),
    };
    let rows: Vec<CheckRow> = charts.iter().map(row).collect();
    let nothing = "no metrics match the filter";
    let content = check_list::content(&shared.theme, title, live.chooser_cursor, rows, nothing);
    Content {
        head: head.into_iter().collect(),
        ..content
    }
}
