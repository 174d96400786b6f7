//! The places of the eval screen's panes, by the size of the terminal.

use ratatui::layout::{Constraint, Layout, Rect};

use super::{ANSWERS, CHOOSER, Eval, PROMPTS, SUMMARY, summary};
use crate::pane::content::Place;
use crate::shared::Shared;

/// Without the chat, which has places of its own.
pub(super) fn pane(eval: &Eval) -> &'static str {
    match eval {
        Eval {
            chooser: Some(_), ..
        } => CHOOSER,
        _ => eval.pane,
    }
}

pub(super) fn places(eval: &Eval, shared: &Shared, area: Rect) -> Vec<Place> {
    let pane = pane(eval);
    if pane == CHOOSER
        || eval.versus().is_none()
        || shared.zoomed
        || area.width < 50
        || area.height < 16
    {
        return vec![Place::new(pane, area)];
    }
    // Sizes with the frame; smaller ones have no space for the matrix beside the rates.
    let full = area.width >= 102 && area.height >= 28;
    if !full && pane == SUMMARY {
        // The short summary is incomplete: focused, it takes the whole screen.
        return vec![Place::new(pane, area)];
    }
    let of_summary = if full {
        summary::FULL_ROWS.min(area.height / 2)
    } else {
        summary::SHORT_ROWS
    };
    let [top, rest] =
        Layout::vertical([Constraint::Length(of_summary), Constraint::Fill(1)]).areas(area);
    if area.width < 72 {
        return vec![Place::new(SUMMARY, top), Place::new(pane, rest)];
    }
    let list = if area.width >= 140 {
        46
    } else if full {
        38
    } else {
        28
    };
    let [list, answers] =
        Layout::horizontal([Constraint::Length(list), Constraint::Fill(1)]).areas(rest);
    vec![
        Place::new(SUMMARY, top),
        Place::new(PROMPTS, list),
        Place::new(ANSWERS, answers),
    ]
}

pub(super) fn answer_columns(eval: &Eval, shared: &Shared) -> usize {
    let places = places(eval, shared, shared.body());
    places
        .iter()
        .find(|place| place.id == ANSWERS)
        .map_or(0, |place| place.inside().width.into())
}
