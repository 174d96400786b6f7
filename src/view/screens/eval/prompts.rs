//! The list of prompts: what became of each, and the tiers of its answers.

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::Eval;
use super::PROMPTS;
use crate::report::{Asked, Outcome, Versus};
use crate::view::pane::pane;
use crate::view::shared::Shared;
use crate::view::style_role::Role;
use crate::view::theme::Theme;
use crate::view::widgets::text_width::{fitted, padded};

/// Draws the list.
pub(super) fn draw(eval: &Eval, shared: &Shared, versus: &Versus, frame: &mut Frame<'_>, area: Rect) {
    let theme = &shared.theme;
    let what = eval.only.map_or("prompts", Outcome::name);
    let title = format!("{what} {} of {}", eval.shown.len(), versus.prompts.len());
    let frame_of_pane = pane(theme, &title, eval.pane == PROMPTS);
    let inside = frame_of_pane.inner(area);
    frame.render_widget(frame_of_pane, area);
    let width = inside.width as usize;
    let mut lines = Vec::new();
    if has_filter(eval) {
        let field = eval.filter.line(theme, width.saturating_sub(3), eval.typing);
        lines.push(Line::from([vec![Span::styled(" / ", theme.style(Role::Key))], field.spans].concat()));
    }
    let rows = (inside.height as usize).saturating_sub(lines.len());
    let first = eval.cursor.first(rows, eval.shown.len());
    for (place, index) in eval.shown.iter().enumerate().skip(first).take(rows) {
        let Some(asked) = versus.prompts.get(*index) else { continue };
        lines.push(row(eval, shared, versus, asked, width, eval.cursor.at(eval.shown.len()) == Some(place)));
    }
    if eval.shown.is_empty() {
        lines.push(Line::styled(" no prompts match; a shows all", theme.style(Role::Faint)));
    }
    frame.render_widget(Paragraph::new(lines), inside);
}

fn has_filter(eval: &Eval) -> bool {
    eval.typing || !eval.filter.text().is_empty()
}

/// The place in the list of the prompt that stands at a place inside of the pane.
pub(super) fn at(eval: &Eval, inside: Rect, place: Position) -> Option<usize> {
    let above = u16::from(has_filter(eval));
    let row = place.y.checked_sub(inside.y + above).filter(|_| inside.contains(place))?;
    let first = eval.cursor.first((inside.height - above) as usize, eval.shown.len());
    Some(first + row as usize).filter(|index| *index < eval.shown.len())
}

fn row(eval: &Eval, shared: &Shared, versus: &Versus, asked: &Asked, width: usize, under_cursor: bool) -> Line<'static> {
    let theme = &shared.theme;
    let pair = eval.pair(versus);
    let outcome = pair.and_then(|pair| versus.outcome(asked, pair));
    let (mark, role) = mark(outcome);
    let cursor = if under_cursor { theme.glyph("▸", ">") } else { " " };
    let id = if asked.sample == 0 { asked.prompt_id.clone() } else { format!("{}#{}", asked.prompt_id, asked.sample + 1) };
    let mut spans = vec![
        Span::styled(cursor, theme.style(Role::Accent)),
        Span::styled(format!("{mark} "), theme.style(role)),
        Span::raw(padded(&id, 10.max(width.saturating_sub(26).min(24)), false)),
    ];
    for (place, _) in versus.passes.iter().enumerate() {
        let record = versus.record(asked, place);
        let tier = record.map_or("", |record| record.tier.as_str());
        spans.push(Span::styled(format!(" {}", theme.tier_glyph(tier)), theme.style(Theme::tier_role(tier))));
        let exact = match record.and_then(|record| record.exact) {
            Some(true) => "=",
            Some(false) => theme.glyph("≠", "x"),
            None => " ",
        };
        spans.push(Span::styled(exact, theme.style(Role::Faint)));
    }
    let used: usize = spans.iter().map(Span::width).sum();
    let tags = versus.record(asked, 0).map_or_else(String::new, |record| record.tags.join(" "));
    spans.push(Span::styled(format!(" {}", fitted(&tags, width.saturating_sub(used + 1))), theme.style(Role::Faint)));
    let line = Line::from(spans);
    if under_cursor { line.style(theme.style(Role::Selected)) } else { line }
}

/// The mark of what became of a prompt.
pub(super) fn mark(outcome: Option<Outcome>) -> (&'static str, Role) {
    match outcome {
        Some(Outcome::Fixed) => ("+", Role::Good),
        Some(Outcome::Broken) => ("-", Role::Bad),
        Some(Outcome::Both) => ("=", Role::Faint),
        Some(Outcome::Neither) => ("x", Role::Warning),
        None => (" ", Role::Faint),
    }
}
