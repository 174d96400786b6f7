//! The live screen as the rest of the view sees it.

use crossterm::event::MouseEvent;
use ratatui::layout::Rect;

use super::navigation::look;
use super::state::LogView;
use super::{
    COMPLETION, DEVICE, GROUPS, Live, OVERLAY, PROMPT, RESULT, draw, navigation, rollouts,
};
use crate::followed_run::latest_events;
use crate::message::{Change, Command, Work};
use crate::pane::content::{Content, Hit, Place};
use crate::run::State;
use crate::run_control::{ActionIds, Controls, Target};
use crate::screen::{self, Described};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::widgets::filter::TextField;
use crate::widgets::list_cursor::{Cursor, Motion};

impl screen::Screen for Live {
    fn pane(&self) -> &'static str {
        self.pane
    }

    fn focus(&mut self, _: &mut Shared, pane: &'static str) {
        if Self::ABOUT.panes.contains(&pane) {
            self.go_to_pane(pane);
        }
    }

    fn is_typing(&self) -> bool {
        self.metrics.is_typing() || self.log.filter.is_typing()
    }

    fn stop_typing(&mut self) {
        self.metrics.close();
        self.log.filter.close();
    }

    fn places(&self, shared: &Shared, area: Rect) -> Vec<Place> {
        draw::places(self, shared, area)
    }

    fn content<'a>(&'a self, shared: &'a Shared, place: &Place) -> Content<'a> {
        draw::content(self, shared, place)
    }

    fn cursor(&mut self, pane: &str) -> Option<&mut Cursor> {
        match pane {
            OVERLAY => Some(&mut self.overlay_cursor),
            GROUPS => Some(&mut self.group),
            COMPLETION => Some(&mut self.completion_top),
            PROMPT => Some(&mut self.prompt_top),
            DEVICE => Some(&mut self.device_top),
            RESULT => Some(&mut self.result_top),
            _ => None,
        }
    }

    fn on_motion(
        &mut self,
        shared: &mut Shared,
        pane: &str,
        motion: Motion,
    ) -> Option<Vec<Command>> {
        navigation::on_motion(self, shared, pane, motion)
    }

    fn moved(&mut self, _: &mut Shared, pane: &str) -> Vec<Command> {
        if pane == GROUPS {
            (self.completion_top, self.is_browsing) = (Cursor::default(), true);
        }
        Vec::new()
    }

    fn pointed(
        &mut self,
        shared: &mut Shared,
        hit: &Hit,
        event: MouseEvent,
    ) -> Option<Vec<Command>> {
        navigation::pointed(self, shared, hit, event)
    }

    fn field(&mut self) -> Option<&mut dyn TextField> {
        self.metrics.typed().or(self.log.filter.typed())
    }

    fn typed(&mut self, _: &mut Shared) -> Vec<Command> {
        if self.metrics.is_typing() {
            self.view.small = 0;
        } else {
            self.log.back = 0;
        }
        Vec::new()
    }

    fn on_change(&mut self, shared: &mut Shared, change: &Change) -> Vec<Command> {
        on_change(self, shared, change)
    }
}

impl Controls for Live {
    const SCREEN: Screen = Screen::Live;
    const IDS: ActionIds = ActionIds {
        pause: "live.pause",
        resume: "live.resume",
        checkpoint: "live.checkpoint",
        eval: "live.eval",
        stop: "live.stop",
        kill: "live.stop_now",
        note: "live.annotate",
    };

    fn target(&self, shared: &Shared) -> Result<Target, String> {
        let run = shared.current_run().ok_or_else(|| shared.no_open_run())?;
        let (path, id, status) = (run.path().to_owned(), run.id(), run.status());
        let name = run
            .directory
            .as_ref()
            .map_or_else(String::new, |directory| directory.name().to_owned());
        if run.is_gone {
            Err(format!("{id} no longer exists"))
        } else {
            Ok(Target {
                path,
                id,
                name,
                status,
                pauses_later: run.state.as_ref().is_some_and(State::pauses_later),
            })
        }
    }
}

fn on_change(live: &mut Live, shared: &mut Shared, change: &Change) -> Vec<Command> {
    match change {
        Change::Shown if shared.current.is_none() => shared.look_for_runs(),
        Change::Shown => look(live, shared),
        Change::CurrentRun => {
            let (metrics, log) = (
                std::mem::take(&mut live.metrics),
                std::mem::take(&mut live.log),
            );
            *live = Live {
                pane: live.pane,
                view: live.view.for_other_run(),
                metrics,
                ..Live::default()
            };
            live.log = LogView { back: 0, ..log };
            let Some(run) = shared.current.clone() else {
                return Vec::new();
            };
            let path = run.clone();
            let mut commands = vec![Work::once(
                "live.log",
                move || latest_events(&path),
                move |_: &mut Live, shared, events| {
                    // A run without a log has no older events.
                    if let (Ok(events), Some(watched)) = (events, shared.followed.get_mut(&run)) {
                        watched.push_events(events);
                    }
                    Vec::new()
                },
            )];
            commands.extend(look(live, shared));
            commands
        }
        Change::RunNews => {
            let resumed = shared.current_run().map_or(0, |run| run.history.resumed);
            if live.resumed != resumed {
                // Its steps may have been redone.
                (live.resumed, live.rollouts, live.failures) =
                    (resumed, Default::default(), Default::default());
            }
            if shared.screen == Screen::Live {
                look(live, shared)
            } else {
                Vec::new()
            }
        }
        Change::Second if shared.screen == Screen::Live && rollouts::has_failed(live, shared) => {
            look(live, shared)
        }
        _ => Vec::new(),
    }
}
