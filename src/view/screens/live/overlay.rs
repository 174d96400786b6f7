//! Other runs' curves over this one's: chosen from all that there are.

use std::path::PathBuf;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{CHART, OVERLAY};
use crate::report::RunRow;
use crate::view::app::Model;
use crate::view::message::Command;
use crate::view::pane::pane;
use crate::view::screens::runs;
use crate::view::shared;
use crate::view::style_role::Role;
use crate::view::widgets::text_width::one_line;

/// Runs that can be chosen, the newest first: those of the list that can be read, without the one on the screen.
fn others(model: &Model) -> Vec<(&PathBuf, &RunRow)> {
    let current = model.shared.current.as_ref();
    let entries = model.runs.listing().entries().iter().rev().filter(|entry| Some(&entry.path) != current);
    entries.filter_map(|entry| Some((&entry.path, entry.row.as_deref().ok()?))).collect()
}

/// Begin to choose, or end it.
pub(super) fn open(model: &mut Model) -> Vec<Command> {
    if model.live.pane == OVERLAY {
        model.live.pane = CHART;
        return Vec::new();
    }
    model.live.pane = OVERLAY;
    runs::look(model)
}

/// Move in the list.
pub(super) fn go(model: &mut Model, by: isize) -> Vec<Command> {
    let count = others(model).len();
    model.live.overlay_cursor.go(by, count);
    Vec::new()
}

/// Lay the run under the cursor over the chart, or take it away.
pub(super) fn toggle(model: &mut Model) -> Vec<Command> {
    let others = others(model);
    let Some(run) = model.live.overlay_cursor.at(others.len()).and_then(|index| others.get(index)).map(|(run, _)| (*run).clone()) else {
        return Vec::new();
    };
    let overlay = &mut model.shared.overlay;
    if let Some(index) = overlay.iter().position(|other| *other == run) {
        overlay.remove(index);
        return shared::let_go(&mut model.shared);
    }
    overlay.push(run.clone());
    shared::follow(&mut model.shared, run)
}

/// Draws the list in place of the chart.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let theme = &model.shared.theme;
    let block = pane(theme, "overlay runs", true);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let others = others(model);
    let at = model.live.overlay_cursor.at(others.len());
    let first = model.live.overlay_cursor.first(inside.height as usize, others.len());
    let mut lines = Vec::new();
    for (index, (path, run)) in others.iter().enumerate().skip(first).take(inside.height as usize) {
        let chosen = if model.shared.overlay.contains(path) { "[x]" } else { "[ ]" };
        let mark = if at == Some(index) { theme.glyph("▸", ">") } else { " " };
        let file = run.directory.file();
        let line = Line::from(vec![
            Span::styled(format!("{mark} {chosen} "), theme.style(Role::Accent)),
            Span::raw(file.id.clone()),
            Span::styled(format!("  step {}  {}", run.last_step, one_line(&file.name)), theme.style(Role::Faint)),
        ]);
        lines.push(if at == Some(index) { line.patch_style(theme.style(Role::Selected)) } else { line });
    }
    if others.is_empty() {
        let text = if model.shared.is_busy("runs") { " loading ..." } else { " no other runs; 5 starts one" };
        lines.push(Line::styled(text, theme.style(Role::Faint)));
    }
    frame.render_widget(Paragraph::new(lines), inside);
}
