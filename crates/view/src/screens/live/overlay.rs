//! Overlays the curves of other runs.

use std::path::PathBuf;

use super::{CHART, Live, OVERLAY};
use crate::message::Command;
use crate::pane::content::Content;
use crate::report::RunRow;
use crate::shared::{self, Shared};
use crate::widgets::check_list::{self, CheckRow};
use crate::widgets::text_width::one_line;

/// Runs that can be overlaid, newest first: the readable ones of the list except the current one.
fn others(shared: &Shared) -> Vec<(&PathBuf, &RunRow)> {
    let current = shared.current.as_ref();
    let entries = shared
        .runs
        .listing
        .entries()
        .iter()
        .rev()
        .filter(|entry| Some(&entry.path) != current);
    entries
        .filter_map(|entry| Some((&entry.path, entry.row.as_deref().ok()?)))
        .collect()
}

/// Opens or closes the list.
pub(super) fn open(live: &mut Live, shared: &mut Shared) -> Vec<Command> {
    if live.pane == OVERLAY {
        live.pane = CHART;
        return Vec::new();
    }
    live.pane = OVERLAY;
    shared.look_for_runs()
}

/// Toggles the overlay of the run under the cursor.
pub(super) fn toggle(live: &mut Live, shared: &mut Shared) -> Vec<Command> {
    let others = others(shared);
    let Some(run) = live
        .overlay_cursor
        .at(others.len())
        .and_then(|index| others.get(index))
        .map(|(run, _)| (*run).clone())
    else {
        return Vec::new();
    };
    let overlay = &mut shared.overlay;
    if let Some(index) = overlay.iter().position(|other| *other == run) {
        overlay.remove(index);
        return shared::unfollow_unused(shared);
    }
    overlay.push(run.clone());
    shared::follow(shared, run)
}

/// The list in place of the chart.
pub(super) fn content<'a>(live: &Live, shared: &'a Shared) -> Content<'a> {
    let others = others(shared);
    let row = |(path, run): &(&PathBuf, &RunRow)| CheckRow {
        on: shared.overlay.contains(path).then(String::new),
        label: run.directory.id().to_owned(),
        beside: format!("step {}  {}", run.last_step, one_line(run.directory.name())),
    };
    let rows: Vec<CheckRow> = others.iter().map(row).collect();
    let nothing = match shared.is_busy("runs") {
        true => "loading ...".to_owned(),
        false => format!(
            "no other runs; {} starts one",
            shared.key_of("screen.launch")
        ),
    };
    check_list::content(
        &shared.theme,
        "overlay runs".to_owned(),
        live.overlay_cursor,
        rows,
        &nothing,
    )
}
