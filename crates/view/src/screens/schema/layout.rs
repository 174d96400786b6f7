//! The layout of the schema screen as a function of the terminal's size, for drawing and for the mouse.

use ratatui::layout::{Constraint, Layout, Margin, Rect};

use super::{DEGENERATE, EDITOR, OUTLINE, PROGRAM, SCORES, Schema, program_pane};
use crate::drafts::choice;
use crate::shared::Shared;
use crate::widgets::editor::Window;

/// Rows of the scores pane, frame included.
const SCORE_ROWS: u16 = 9;

/// The visible panes with their areas.
pub(super) fn areas(schema: &Schema, shared: &Shared, body: Rect) -> Vec<(&'static str, Rect)> {
    let focused = schema.pane;
    let rest = choice::below(schema, shared, body);
    if shared.zoomed {
        return vec![(focused, rest)];
    }
    let beside = if focused == EDITOR { SCORES } else { focused };
    if rest.width < 72 {
        let below = if rest.height < 14 { 0 } else { (rest.height / 3).min(SCORE_ROWS) };
        if below == 0 {
            return vec![(focused, rest)];
        }
        let [editor, other] = Layout::vertical([Constraint::Fill(1), Constraint::Length(below)]).areas(rest);
        return vec![(EDITOR, editor), (beside, other)];
    }
    // A program says more than its keys.
    let about = if program_pane::runs_programs(shared) && focused != OUTLINE { PROGRAM } else { OUTLINE };
    let share = if rest.width < 110 { 54 } else { 50 };
    let [editor, side] = Layout::horizontal([Constraint::Percentage(share), Constraint::Fill(1)]).areas(rest);
    if side.height < 18 {
        let upper = if focused == DEGENERATE { DEGENERATE } else { about };
        let [accepts, scores] =
            Layout::vertical([Constraint::Fill(1), Constraint::Length(SCORE_ROWS.min(side.height / 2))]).areas(side);
        return vec![(EDITOR, editor), (upper, accepts), (SCORES, scores)];
    }
    // Where there is little room the focused pane gets most of it.
    let is_low = side.height < 30;
    let (scores, weights) = match focused {
        OUTLINE | PROGRAM if is_low => (SCORE_ROWS, [3, 1]),
        DEGENERATE if is_low => (SCORE_ROWS, [1, 3]),
        SCORES if is_low => (SCORE_ROWS + 3, [1, 1]),
        _ if is_low => (SCORE_ROWS, [1, 1]),
        DEGENERATE => (SCORE_ROWS + 3, [1, 1]),
        _ => (SCORE_ROWS + 3, if about == PROGRAM { [2, 1] } else { [1, 1] }),
    };
    let [accepts, scores, degenerate] =
        Layout::vertical([Constraint::Fill(weights[0]), Constraint::Length(scores), Constraint::Fill(weights[1])])
            .areas(side);
    vec![(EDITOR, editor), (about, accepts), (SCORES, scores), (DEGENERATE, degenerate)]
}

/// The pane at a terminal position.
pub(super) fn pane_at(schema: &Schema, shared: &Shared, column: u16, row: u16) -> Option<(&'static str, Rect)> {
    areas(schema, shared, shared.body()).into_iter().find(|(_, area)| area.contains((column, row).into()))
}

/// The area of the editor inside its frame.
pub(super) fn editor(schema: &Schema, shared: &Shared) -> Rect {
    let editor = areas(schema, shared, shared.body()).into_iter().find(|(pane, _)| *pane == EDITOR);
    editor.map_or(Rect::default(), |(_, area)| area.inner(Margin::new(1, 1)))
}

/// The editor's window.
pub(super) fn window(schema: &Schema, shared: &Shared) -> Window {
    schema.editor.window_in(editor(schema, shared), shared.wraps(&schema.editor))
}
