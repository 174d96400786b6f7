//! The scores screen as the rest of the view sees it.

use std::sync::Arc;

use crossterm::event::{MouseEvent, MouseEventKind};
use ratatui::layout::Rect;

use super::actions::{pasted, to_the_top, written};
use super::{LIST, SUMMARY, Scores, arrange, draw, sampling, source};
use crate::message::{Change, Command};
use crate::pane::content::{Content, Hit, Place};
use crate::screen;
use crate::screens::Screen;
use crate::shared::Shared;
use crate::widgets::editor::{Editor, Effect};
use crate::widgets::filter::TextField;
use crate::widgets::list_cursor::Cursor;

impl screen::Screen for Scores {
    fn pane(&self) -> &'static str {
        self.pane.unwrap_or(LIST)
    }

    fn focus(&mut self, _: &mut Shared, pane: &'static str) {
        self.pane = Some(pane);
    }

    fn is_typing(&self) -> bool {
        self.editor.is_some() || self.filter.is_typing
    }

    fn stop_typing(&mut self) {
        self.filter.is_typing = false;
    }

    fn places(&self, shared: &Shared, area: Rect) -> Vec<Place> {
        draw::places(self, shared, area)
    }

    fn content<'a>(&'a self, shared: &'a Shared, place: &Place) -> Content<'a> {
        draw::content(self, shared, place)
    }

    fn cursor(&mut self, pane: &str) -> Option<&mut Cursor> {
        match pane {
            LIST => Some(&mut self.cursor),
            _ => self.tops.get_mut(usize::from(pane == SUMMARY)),
        }
    }

    fn moved(&mut self, _: &mut Shared, pane: &str) -> Vec<Command> {
        if pane == LIST {
            self.tops[0] = Cursor::default();
        }
        Vec::new()
    }

    // What is written is finished first.
    fn pointed(&mut self, _: &mut Shared, hit: &Hit, event: MouseEvent) -> Option<Vec<Command>> {
        let is_elsewhere = self.editor.is_some() && !hit.is_editor;
        (is_elsewhere && matches!(event.kind, MouseEventKind::Down(_))).then(Vec::new)
    }

    fn field(&mut self) -> Option<&mut dyn TextField> {
        self.filter.typed()
    }

    fn typed(&mut self, _: &mut Shared) -> Vec<Command> {
        to_the_top(self)
    }

    fn editor(&mut self, _: &Shared) -> Option<&mut Editor> {
        self.editor.as_mut()
    }

    fn edited(&mut self, shared: &mut Shared, effect: Effect) -> Vec<Command> {
        if effect == Effect::Edited {
            written(self, shared)
        } else {
            Vec::new()
        }
    }

    fn on_paste(&mut self, shared: &mut Shared, text: &str) -> Vec<Command> {
        pasted(self, shared, text)
    }

    fn on_change(&mut self, shared: &mut Shared, change: &Change) -> Vec<Command> {
        on_change(self, shared, change)
    }
}

fn on_show(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    if scores.is_old && !scores.items.all.is_empty() {
        return source::rescore(scores, shared);
    }
    if scores.scored.is_none() || source::is_unread(scores, shared) {
        source::load(scores, shared)
    } else {
        Vec::new()
    }
}

fn on_change(scores: &mut Scores, shared: &mut Shared, change: &Change) -> Vec<Command> {
    let is_here = shared.screen == Screen::Scores;
    match change {
        Change::Shown => on_show(scores, shared),
        Change::Schema => {
            scores.is_old = true;
            if is_here {
                source::rescore(scores, shared)
            } else {
                Vec::new()
            }
        }
        Change::Task => {
            source::follow_task(scores, shared);
            (scores.rows, scores.scored, scores.items) = (None, None, Arc::default());
            scores.moved.clear();
            sampling::forget_sampled(scores, shared);
            arrange(scores);
            if is_here {
                source::load(scores, shared)
            } else {
                Vec::new()
            }
        }
        Change::CurrentRun => {
            sampling::forget_sampled(scores, shared);
            if is_here && source::is_unread(scores, shared) {
                source::load(scores, shared)
            } else {
                Vec::new()
            }
        }
        _ => Vec::new(),
    }
}
