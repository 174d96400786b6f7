//! The layout of summary, prompts and answers on terminals of every size.

use ratatui::layout::{Constraint, Layout, Position, Rect};

use super::{ANSWERS, Eval, PROMPTS, SUMMARY, summary};
use crate::shared::Shared;

/// The visible panes with their areas.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Places {
    pub(super) summary: Option<Rect>,
    pub(super) prompts: Option<Rect>,
    pub(super) answers: Option<Rect>,
}

pub(super) fn run_folders(eval: &Eval, shared: &Shared, area: Rect) -> Places {
    let pane = eval.pane;
    let one = |pane: &str, area: Rect| Places {
        summary: (pane == SUMMARY).then_some(area),
        prompts: (pane == PROMPTS).then_some(area),
        answers: (pane == ANSWERS).then_some(area),
    };
    if shared.zoomed || area.width < 50 || area.height < 16 {
        return one(pane, area);
    }
    // With its frame: less has no room for the matrix beside the rates.
    let full = area.width >= 102 && area.height >= 28;
    if !full && pane == SUMMARY {
        // The short summary is incomplete: focused, it takes the whole screen.
        return one(pane, area);
    }
    let of_summary = if full { summary::FULL_ROWS.min(area.height / 2) } else { summary::SHORT_ROWS };
    let [top, rest] = Layout::vertical([Constraint::Length(of_summary), Constraint::Fill(1)]).areas(area);
    if area.width < 72 {
        return Places { summary: Some(top), ..one(pane, rest) };
    }
    let list = if area.width >= 140 {
        46
    } else if full {
        38
    } else {
        28
    };
    let [list, answers] = Layout::horizontal([Constraint::Length(list), Constraint::Fill(1)]).areas(rest);
    Places { summary: Some(top), prompts: Some(list), answers: Some(answers) }
}

/// Rows of the focused pane.
pub(super) fn page_rows(eval: &Eval, shared: &Shared) -> usize {
    let run_folders = run_folders(eval, shared, shared.body());
    let area = match eval.pane {
        SUMMARY => run_folders.summary,
        PROMPTS => run_folders.prompts,
        _ => run_folders.answers,
    };
    area.map_or(10, |area| area.height.saturating_sub(2) as usize)
}

/// The pane at a screen position.
pub(super) fn pane_at(eval: &Eval, shared: &Shared, place: Position) -> Option<(&'static str, Rect)> {
    let run_folders = run_folders(eval, shared, shared.body());
    let all = [(SUMMARY, run_folders.summary), (PROMPTS, run_folders.prompts), (ANSWERS, run_folders.answers)];
    all.into_iter().filter_map(|(pane, area)| Some((pane, area?))).find(|(_, area)| area.contains(place))
}

/// Rows of the question above the answers: a fifth of the pane.
pub(super) fn question_rows(eval: &Eval, shared: &Shared) -> usize {
    let rows = run_folders(eval, shared, shared.body()).answers.map_or(0, |area| area.height.saturating_sub(2));
    usize::from(rows / 5).max(1)
}

/// The width of the answers inside their frame.
pub(super) fn answer_columns(eval: &Eval, shared: &Shared) -> usize {
    run_folders(eval, shared, shared.body()).answers.map_or(0, |area| area.width.saturating_sub(2) as usize)
}
