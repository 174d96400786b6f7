//! The places of the schema screen's panes, by the size of the terminal.

use ratatui::layout::{Constraint, Layout, Rect};

use super::{COMPLETIONS, DEGENERATE, EDITOR, PROGRAM, SCORES, Schema, program_pane};
use crate::drafts::choice;
use crate::pane::content::Place;
use crate::shared::Shared;
use crate::widgets::editor::Window;

/// Rows of the scores pane, frame included.
const SCORE_ROWS: u16 = 9;

/// The reason if there is no text. A task that cannot be read may still show its `task.toml`.
pub(super) fn no_text(shared: &Shared) -> Option<String> {
    shared
        .no_task()
        .filter(|_| shared.draft.base.is_none() || shared.task_error.is_none())
}

pub(super) fn places(schema: &Schema, shared: &Shared, body: Rect) -> Vec<Place> {
    if no_text(shared).is_some() {
        return vec![Place::new(schema.pane, body)];
    }
    let (question, rest) = choice::places(schema, shared, body);
    let panes = areas(schema, shared, rest)
        .into_iter()
        .map(|(id, area)| Place::new(id, area));
    let mut places: Vec<Place> = question.into_iter().chain(panes).collect();
    let editor = places
        .iter()
        .find(|place| place.id == EDITOR)
        .map(Place::inside);
    let over = schema
        .completion
        .as_ref()
        .zip(editor)
        .and_then(|(completion, editor)| {
            let at = schema.editor.screen_position(
                schema.editor.cursor(),
                editor,
                shared.wraps(&schema.editor),
            )?;
            completion.area(body, at)
        });
    places.extend(over.map(|area| Place {
        is_over: true,
        ..Place::new(COMPLETIONS, area)
    }));
    places
}

fn areas(schema: &Schema, shared: &Shared, rest: Rect) -> Vec<(&'static str, Rect)> {
    let focused = schema.pane;
    if shared.zoomed {
        return vec![(focused, rest)];
    }
    let beside = if focused == EDITOR { SCORES } else { focused };
    if rest.width < 72 {
        let below = if rest.height < 14 {
            0
        } else {
            (rest.height / 3).min(SCORE_ROWS)
        };
        if below == 0 {
            return vec![(focused, rest)];
        }
        let [editor, other] =
            Layout::vertical([Constraint::Fill(1), Constraint::Length(below)]).areas(rest);
        return vec![(EDITOR, editor), (beside, other)];
    }
    let has_program = program_pane::needs_trust(shared);
    let share = if rest.width < 110 { 54 } else { 50 };
    let [editor, side] =
        Layout::horizontal([Constraint::Percentage(share), Constraint::Fill(1)]).areas(rest);
    if side.height < 18 {
        let upper = if has_program && focused != DEGENERATE {
            PROGRAM
        } else {
            DEGENERATE
        };
        let [above, scores] = Layout::vertical([
            Constraint::Fill(1),
            Constraint::Length(SCORE_ROWS.min(side.height / 2)),
        ])
        .areas(side);
        return vec![(EDITOR, editor), (upper, above), (SCORES, scores)];
    }
    // In a small terminal the focused pane gets most of the space.
    let scores = match focused {
        SCORES => SCORE_ROWS + 3,
        _ if side.height >= 30 => SCORE_ROWS + 3,
        _ => SCORE_ROWS,
    };
    let programs = match focused {
        _ if !has_program => 0,
        DEGENERATE => 1,
        _ => 2,
    };
    let [program, scores, degenerate] = Layout::vertical([
        Constraint::Fill(programs),
        Constraint::Length(scores),
        Constraint::Fill(1),
    ])
    .areas(side);
    let panes = vec![
        (EDITOR, editor),
        (PROGRAM, program),
        (SCORES, scores),
        (DEGENERATE, degenerate),
    ];
    let is_there = |(pane, _): &(&str, Rect)| has_program || *pane != PROGRAM;
    panes.into_iter().filter(is_there).collect()
}

pub(super) fn window(schema: &Schema, shared: &Shared) -> Window {
    let places = places(schema, shared, shared.body());
    let area = places
        .iter()
        .find(|place| place.id == EDITOR)
        .map_or(Rect::default(), Place::inside);
    schema.editor.window_in(area, shared.wraps(&schema.editor))
}
