//! Help: what can be done here and by which key, from the table of actions.

use crossterm::event::KeyEvent;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Outcome, Page};
use crate::view::action::{self, Place};
use crate::view::model::Model;
use crate::view::role::Role;
use crate::view::screens;

/// The help of the screen in front.
#[derive(Debug)]
pub struct Help {
    pub(super) page: Page,
}

impl Help {
    /// The help as things stand.
    pub fn new(model: &Model) -> Self {
        let theme = &model.theme;
        let mut lines = vec![Line::from(screens::of(model.screen).help), Line::default()];
        let mut last = None;
        for action in action::here(model) {
            let heading = match action.place {
                Place::In(_, pane) => format!("in {pane}"),
                Place::On(_) => "on this screen".to_owned(),
                Place::Everywhere => "everywhere".to_owned(),
            };
            if last.as_ref() != Some(&heading) {
                lines.push(Line::styled(heading.clone(), theme.style(Role::Title)));
                last = Some(heading);
            }
            let keys = model.keymap.keys(action).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let mut spans = vec![Span::styled(format!("  {keys:<18} "), theme.style(Role::Key)), Span::raw(action.title)];
            if let Some(why) = (action.blocked)(model) {
                spans.push(Span::styled(format!("  (not now: {why})"), theme.style(Role::Faint)));
            }
            lines.push(Line::from(spans));
        }
        Self { page: Page::new(format!("Help: {}", screens::of(model.screen).title), lines) }
    }

    pub(super) fn key(&mut self, event: KeyEvent) -> Outcome {
        self.page.key(event)
    }

    pub(super) fn draw(&self, model: &Model, frame: &mut Frame<'_>, area: Rect) {
        self.page.draw(model, frame, area);
    }
}
