//! Where summary, prompts and answers stand on terminals of every size, and what is shown before there is anything to compare.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::{ANSWERS, Eval, PROMPTS, SUMMARY, answers, chooser, prompts, summary};
use crate::view::pane::pane;
use crate::view::shared::Shared;
use crate::view::style_role::Role;

/// Which panes are drawn, and where.
#[derive(Debug, Default, Clone, Copy)]
struct Places {
    summary: Option<Rect>,
    prompts: Option<Rect>,
    answers: Option<Rect>,
}

/// Draws the screen.
pub(super) fn draw(eval: &Eval, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    if let Some(chooser) = &eval.chooser {
        return chooser::draw(shared, chooser, frame, area);
    }
    let Some(versus) = eval.versus() else {
        return nothing(eval, shared, frame, area);
    };
    let places = places(eval, shared, area);
    if let Some(area) = places.summary {
        summary::draw(eval, shared, versus, frame, area);
    }
    if let Some(area) = places.prompts {
        prompts::draw(eval, shared, versus, frame, area);
    }
    if let Some(area) = places.answers {
        answers::draw(eval, shared, versus, frame, area);
    }
}

fn places(eval: &Eval, shared: &Shared, area: Rect) -> Places {
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
        // The short summary is not all of it: where it has the focus it takes the screen.
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

pub(super) fn body(shared: &Shared) -> Rect {
    Rect { x: 0, y: 1, width: shared.size.0, height: shared.size.1.saturating_sub(2) }
}

/// Rows of the pane that has the focus.
pub(super) fn page_rows(eval: &Eval, shared: &Shared) -> usize {
    let places = places(eval, shared, body(shared));
    let area = match eval.pane {
        SUMMARY => places.summary,
        PROMPTS => places.prompts,
        _ => places.answers,
    };
    area.map_or(10, |area| area.height.saturating_sub(2) as usize)
}

/// How many lines a pane has: the answers, else the summary.
pub(super) fn lines_of(eval: &Eval, shared: &Shared, pane: &str) -> usize {
    match eval.versus() {
        Some(versus) if pane == ANSWERS => answers::rows(eval, shared, versus),
        Some(versus) => places(eval, shared, body(shared)).summary.map_or(0, |area| summary::rows(eval, shared, versus, area)),
        None => 0,
    }
}

/// The pane at a place on the screen.
pub(super) fn pane_at(eval: &Eval, shared: &Shared, place: Position) -> Option<(&'static str, Rect)> {
    let places = places(eval, shared, body(shared));
    let all = [(SUMMARY, places.summary), (PROMPTS, places.prompts), (ANSWERS, places.answers)];
    all.into_iter().filter_map(|(pane, area)| Some((pane, area?))).find(|(_, area)| area.contains(place))
}

/// How wide the answers are inside of their frame.
pub(super) fn answer_columns(eval: &Eval, shared: &Shared) -> usize {
    places(eval, shared, body(shared)).answers.map_or(0, |area| area.width.saturating_sub(2) as usize)
}

fn nothing(eval: &Eval, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let theme = &shared.theme;
    let frame_of_pane = pane(theme, "Eval", true);
    let inside = frame_of_pane.inner(area);
    frame.render_widget(frame_of_pane, area);
    let key = |key: &'static str, text: &'static str| {
        Line::from(vec![Span::styled(format!(" {key}  "), theme.style(Role::Key)), Span::raw(text)])
    };
    let mut lines = vec![Line::default()];
    match &eval.loaded {
        Some(Err(error)) => {
            lines.push(Line::styled(format!(" {error}"), theme.style(Role::Bad)));
            lines.push(Line::default());
            if eval.is_of_other_schemas {
                lines.push(key("r", "re-score both sides with the schema in the editor"));
            }
            lines.extend([key("o", "choose other evals"), key("R", "reload")]);
        }
        _ if shared.is_busy("eval") => lines.push(Line::styled(" loading ...", theme.style(Role::Faint))),
        _ => lines.extend([
            Line::styled(" nothing to compare yet", theme.style(Role::Title)),
            Line::default(),
            key("1", "list runs; enter opens one and compares base and trained"),
            key("o", "choose two or three evals of any runs"),
        ]),
    }
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inside);
}
