//! The whole model: the shared state and each screen's state, the table of screens and of all
//! actions. Only this file knows all screens.

use std::collections::HashSet;

use crossterm::event::KeyCode;

use super::action::{ActionInfo, Scope};
use super::interaction;
use super::key_chord::Chord;
use super::message::{Command, Part};
use super::messages;
use super::options::Options;
use super::popup::{Confirm, Help, HelpRow, PaletteEntry, Popup, palette};
use super::screen::{self, About, Described};
use super::screens::{Screen, eval, launch, live, prompts, runs, schema, scores};
use super::settings_actions;
use super::shared::Shared;
use super::widgets::list_cursor::Motion;
use crate::report::EvalId;

#[derive(Debug)]
pub struct Model {
    pub shared: Shared,
    /// Time and position of the last click, unless it became part of a double click.
    pub clicked: Option<(u64, (u16, u16))>,
    pub runs: runs::Runs,
    pub schema: schema::Schema,
    pub prompts: prompts::Prompts,
    pub scores: scores::Scores,
    pub launch: launch::Launch,
    pub live: live::Live,
    pub eval: eval::Eval,
    /// Target of work that belongs to no screen and changes only the shared state.
    pub nothing: (),
}

/// Implements each screen as a field of the model, and lists the facts that do not depend on its
/// state.
macro_rules! screens {
    ($($id:ident $field:ident: $state:ty,)*) => {
        $(impl Part for $state {
            type Model = Model;
            type Shared = Shared;

            fn of(model: &mut Model) -> (&mut Self, &mut Shared) {
                (&mut model.$field, &mut model.shared)
            }
        })*

        pub fn about(screen: Screen) -> &'static About {
            match screen {
                $(Screen::$id => <$state>::ABOUT,)*
            }
        }

        /// Every action: those of the screens, then the global ones.
        pub fn actions() -> impl Iterator<Item = &'static ActionInfo> {
            let found = std::iter::empty();
            $(let found = found.chain(<$state>::TABLE.iter().map(|action| &action.info));)*
            found.chain(GLOBAL.iter().map(|action| &action.info))
        }

        impl Model {
            pub fn screen_of(&self, screen: Screen) -> &dyn screen::Screen {
                match screen {
                    $(Screen::$id => &self.$field,)*
                }
            }

            pub fn screen_mut(&mut self, screen: Screen) -> (&mut dyn screen::Screen, &mut Shared) {
                match screen {
                    $(Screen::$id => (&mut self.$field, &mut self.shared),)*
                }
            }
        }
    };
}

screens! {
    Runs runs: runs::Runs,
    Schema schema: schema::Schema,
    Prompts prompts: prompts::Prompts,
    Scores scores: scores::Scores,
    Launch launch: launch::Launch,
    Live live: live::Live,
    Eval eval: eval::Eval,
}

impl Part for () {
    type Model = Model;
    type Shared = Shared;

    fn of(model: &mut Model) -> (&mut Self, &mut Shared) {
        (&mut model.nothing, &mut model.shared)
    }
}

impl Model {
    /// The initial model; `super::start` returns the first commands.
    pub fn new(options: Options) -> Self {
        Self {
            shared: Shared::new(options, action),
            clicked: None,
            runs: runs::Runs::default(),
            schema: schema::Schema::default(),
            prompts: prompts::Prompts::default(),
            scores: scores::Scores::default(),
            launch: launch::Launch::default(),
            live: live::Live::default(),
            eval: eval::Eval::default(),
            nothing: (),
        }
    }

    pub fn screen(&self) -> &dyn screen::Screen {
        self.screen_of(self.shared.screen)
    }

    pub fn current(&mut self) -> (&mut dyn screen::Screen, &mut Shared) {
        self.screen_mut(self.shared.screen)
    }

    pub fn takes_text(&self) -> bool {
        self.shared.popup.is_some() || self.screen().is_typing()
    }

    pub fn is_here(&self, action: &ActionInfo) -> bool {
        match action.scope {
            Scope::Global => true,
            // In a text field these keys move the cursor.
            Scope::Movement => !self.screen().is_typing(),
            Scope::Screen(screen) => screen == self.shared.screen,
            Scope::Pane(screen, pane) => {
                screen == self.shared.screen && pane == self.screen().pane()
            }
        }
    }

    /// Available actions by scope: pane, screen, global.
    pub fn actions_here(&self) -> Vec<&'static ActionInfo> {
        let mut found: Vec<&'static ActionInfo> =
            actions().filter(|action| self.is_here(action)).collect();
        found.sort_by_key(|action| match action.scope {
            Scope::Pane(..) => 0,
            Scope::Screen(_) => 1,
            Scope::Global => 2,
            Scope::Movement => 3,
        });
        found
    }

    pub fn action_of(&self, chord: Chord) -> Option<&'static ActionInfo> {
        if self.is_for_text(chord) {
            return None;
        }
        self.actions_here()
            .into_iter()
            .find(|action| self.shared.keymap.keys(action).contains(&chord))
    }

    pub fn motion_of(&self, chord: Chord) -> Option<Motion> {
        let motions = [
            Motion::Down,
            Motion::Up,
            Motion::PageDown,
            Motion::PageUp,
            Motion::First,
            Motion::Last,
        ];
        let movements = GLOBAL
            .iter()
            .filter(|global| global.info.scope == Scope::Movement);
        let keys = |global: &Global| self.shared.keymap.keys(&global.info);
        movements
            .zip(motions)
            .find(|(global, _)| keys(global).contains(&chord))
            .map(|(_, motion)| motion)
    }

    /// Available actions with their keys, without keys that a text field takes or a nearer scope
    /// overrides.
    pub fn keys_here(&self) -> Vec<(&'static ActionInfo, Vec<Chord>)> {
        let mut taken = HashSet::new();
        let keys = |action| {
            let mut keys = self.shared.keymap.keys(action);
            keys.retain(|key| !self.is_for_text(*key) && taken.insert(*key));
            (action, keys)
        };
        self.actions_here().into_iter().map(keys).collect()
    }

    /// Whether the focused text field handles a chord: it gets plain keys; actions get chords that
    /// cannot be text.
    pub fn is_for_text(&self, chord: Chord) -> bool {
        let screen = self.screen();
        let is_taken = match chord.code {
            KeyCode::Tab => chord == Chord::TAB && screen.takes_tab(),
            KeyCode::BackTab => screen.takes_backtab(),
            _ => false,
        };
        screen.is_typing() && (!chord.is_command() || is_taken)
    }

    pub fn blocked(&self, action: &ActionInfo) -> Option<String> {
        match action.scope {
            Scope::Global | Scope::Movement => None,
            Scope::Screen(of) | Scope::Pane(of, _) => {
                self.screen_of(of).blocked(&self.shared, action.id)
            }
        }
    }

    pub fn hint(&self, action: &ActionInfo) -> &'static str {
        let hint = match action.scope {
            Scope::Global | Scope::Movement => None,
            Scope::Screen(of) | Scope::Pane(of, _) => {
                self.screen_of(of).hint(&self.shared, action.id)
            }
        };
        hint.unwrap_or(action.hint)
    }

    /// Executes an action without checking whether it is blocked.
    pub fn perform(&mut self, action: &ActionInfo) -> Vec<Command> {
        match action.scope {
            Scope::Global | Scope::Movement => {
                let found = GLOBAL.iter().find(|global| global.info.id == action.id);
                found.map_or_else(Vec::new, |global| (global.perform)(self))
            }
            Scope::Screen(of) | Scope::Pane(of, _) => {
                let (screen, shared) = self.screen_mut(of);
                screen.perform(shared, action.id)
            }
        }
    }

    /// Palette entries: available actions, then those of other screens and panes, which are opened
    /// first.
    fn palette_entries(&self) -> Vec<PaletteEntry> {
        // Excludes panes that only another action opens.
        let can_be_gone_to = |action: &&ActionInfo| match action.scope {
            Scope::Pane(of, pane) => about(of).panes.contains(&pane),
            _ => true,
        };
        let elsewhere = actions()
            .filter(|action| !self.is_here(action))
            .filter(can_be_gone_to);
        let entry = |(info, key): (&'static ActionInfo, String)| {
            let screen = match info.scope {
                Scope::Screen(of) | Scope::Pane(of, _) => Some(about(of).title),
                Scope::Global | Scope::Movement => None,
            };
            PaletteEntry {
                info,
                is_here: self.is_here(info),
                screen,
                blocked: self.blocked(info),
                key,
            }
        };
        let first = |keys: &[Chord]| keys.first().map(Chord::to_string).unwrap_or_default();
        let here = self
            .keys_here()
            .into_iter()
            .map(|(action, keys)| (action, first(&keys)));
        let elsewhere = elsewhere.map(|action| (action, self.shared.keymap.shown(action)));
        here.chain(elsewhere).map(entry).collect()
    }

    pub fn compare(&mut self, evals: Vec<EvalId>) -> Vec<Command> {
        eval::show(&mut self.eval, &mut self.shared, evals)
    }

    fn help(&self) -> Help {
        let row = |(info, keys): (&'static ActionInfo, Vec<Chord>)| {
            let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            HelpRow {
                info,
                keys: keys.join(" "),
                blocked: self.blocked(info),
            }
        };
        let rows: Vec<HelpRow> = self.keys_here().into_iter().map(row).collect();
        let About { title, help, .. } = about(self.shared.screen);
        Help::new(&self.shared.theme, self.shared.size.0, title, help, &rows)
    }
}

pub fn action(id: &str) -> Option<&'static ActionInfo> {
    actions().find(|action| action.id == id)
}

/// An action available on every screen.
struct Global {
    info: ActionInfo,
    perform: fn(&mut Model) -> Vec<Command>,
}

impl Global {
    const fn new(
        id: &'static str,
        title: &'static str,
        hint: &'static str,
        keys: &'static [&'static str],
        aliases: &'static [&'static str],
        perform: fn(&mut Model) -> Vec<Command>,
    ) -> Self {
        Self {
            info: ActionInfo {
                id,
                title,
                hint,
                keys,
                scope: Scope::Global,
                aliases,
                asks: false,
            },
            perform,
        }
    }
}

const fn movement(
    id: &'static str,
    title: &'static str,
    keys: &'static [&'static str],
    perform: fn(&mut Model) -> Vec<Command>,
) -> Global {
    let global = Global::new(id, title, "", keys, &[], perform);
    Global {
        info: ActionInfo {
            scope: Scope::Movement,
            ..global.info
        },
        ..global
    }
}

const GLOBAL: &[Global] = &[
    movement("move.down", "Move down", &["j", "down"], |model| {
        go(model, Motion::Down)
    }),
    movement("move.up", "Move up", &["k", "up"], |model| {
        go(model, Motion::Up)
    }),
    movement("move.page_down", "Page down", &["pagedown"], |model| {
        go(model, Motion::PageDown)
    }),
    movement("move.page_up", "Page up", &["pageup"], |model| {
        go(model, Motion::PageUp)
    }),
    movement("move.first", "Go to the top", &["g", "home"], |model| {
        go(model, Motion::First)
    }),
    movement("move.last", "Go to the end", &["G", "end"], |model| {
        go(model, Motion::Last)
    }),
    Global::new(
        "help",
        "Show help",
        "help",
        &["?"],
        &["help", "keys", "shortcuts", "keybindings", "manual"],
        |model| {
            model.shared.popup = Some(Popup::Help(model.help()));
            Vec::new()
        },
    ),
    Global::new(
        "palette",
        "Command palette",
        "palette",
        &["ctrl-p", ":"],
        &["commands", "actions"],
        |model| {
            model.shared.popup = Some(Popup::Pick(palette(model.palette_entries())));
            Vec::new()
        },
    ),
    Global::new(
        "screen.runs",
        "Go to runs",
        "",
        &["1", "f1"],
        &["goto runs", "list runs"],
        |_| vec![Command::GoTo(Screen::Runs)],
    ),
    Global::new(
        "screen.schema",
        "Go to schema",
        "",
        &["2", "f2"],
        &["goto schema", "define"],
        |_| vec![Command::GoTo(Screen::Schema)],
    ),
    Global::new(
        "screen.prompts",
        "Go to prompts",
        "",
        &["3", "f3"],
        &["goto prompts", "dataset"],
        |_| vec![Command::GoTo(Screen::Prompts)],
    ),
    Global::new(
        "screen.scores",
        "Go to scores",
        "",
        &["4", "f4"],
        &["goto scores", "preview"],
        |_| vec![Command::GoTo(Screen::Scores)],
    ),
    Global::new(
        "screen.launch",
        "Go to launch",
        "",
        &["5", "f5"],
        &["goto launch", "launch", "new run"],
        |_| vec![Command::GoTo(Screen::Launch)],
    ),
    Global::new(
        "screen.live",
        "Go to live",
        "",
        &["6", "f6"],
        &["goto live", "watch"],
        |_| vec![Command::GoTo(Screen::Live)],
    ),
    Global::new(
        "screen.eval",
        "Go to eval",
        "",
        &["7", "f7"],
        &["goto eval", "comparison", "eval"],
        |_| vec![Command::GoTo(Screen::Eval)],
    ),
    Global::new(
        "pane.next",
        "Next pane",
        "pane",
        &["tab"],
        &["focus", "next window", "switch pane"],
        |model| move_focus(model, 1),
    ),
    Global::new(
        "pane.previous",
        "Previous pane",
        "",
        &["backtab"],
        &["previous window"],
        |model| move_focus(model, -1),
    ),
    Global::new(
        "pane.zoom",
        "Toggle zoom",
        "zoom",
        &["z"],
        &["zoom", "maximize", "fullscreen"],
        |model| {
            model.shared.zoomed = !model.shared.zoomed;
            Vec::new()
        },
    ),
    Global::new(
        "editor.wrap",
        "Toggle soft wrap",
        "",
        &["alt-z"],
        &["soft-wrap", "wrap lines"],
        |model| {
            let edits_json = || {
                model
                    .prompts
                    .editing
                    .as_ref()
                    .is_some_and(|editing| editing.editor.is_json())
            };
            let is_json = model.shared.screen == Screen::Schema
                || (model.shared.screen == Screen::Prompts && edits_json());
            let wraps = model.shared.soft_wrap.for_format(is_json);
            *wraps = !*wraps;
            let what = if is_json { "JSON" } else { "prose" };
            let message = format!(
                "long lines of {what} are {}",
                if *wraps { "wrapped" } else { "cut" }
            );
            model.shared.say(message);
            Vec::new()
        },
    ),
    Global::new(
        "notices",
        "Show messages",
        "",
        &["alt-n"],
        &["messages", "notifications", "log", "errors"],
        |model| {
            let popup = messages::log("Messages", &model.shared.notices);
            model.shared.popup = Some(Popup::Pick(popup));
            Vec::new()
        },
    ),
    Global::new(
        "commands",
        "Show command log",
        "",
        &["alt-m"],
        &["command log", "cli", "shell", "history"],
        |model| {
            let popup = messages::log("Command log", &model.shared.commands);
            model.shared.popup = Some(Popup::Pick(popup));
            Vec::new()
        },
    ),
    Global::new(
        "theme",
        "Choose theme",
        "",
        &[],
        &["theme", "colours", "colors", "dark", "light"],
        |model| settings_actions::choose_theme(&model.shared),
    ),
    Global::new(
        "settings",
        "Edit settings",
        "",
        &[],
        &["settings", "preferences", "options", "config.toml"],
        |model| settings_actions::edit(&mut model.shared),
    ),
    Global::new("redraw", "Redraw", "", &["ctrl-l"], &["refresh"], |_| {
        vec![Command::Redraw]
    }),
    Global::new(
        "suspend",
        "Suspend",
        "",
        &["ctrl-z"],
        &["background"],
        |_| vec![Command::Suspend],
    ),
    Global::new(
        "quit",
        "Quit",
        "quit",
        &["q", "ctrl-c"],
        &["quit", "exit", "leave", "close", "detach"],
        quit,
    ),
];

/// Quits, asking first if there is unsaved text. `ctrl-c` at that question quits at once.
fn quit(model: &mut Model) -> Vec<Command> {
    let schema = model
        .shared
        .draft
        .is_changed()
        .then_some(model.shared.draft.name());
    let prompts = model
        .prompts
        .editing
        .as_ref()
        .filter(|editing| editing.is_changed())
        .map(|editing| editing.title());
    let unsaved: Vec<&str> = schema.into_iter().chain(prompts).collect();
    let is_asked =
        matches!(&model.shared.popup, Some(Popup::Confirm(confirm)) if confirm.is_about(LEAVING));
    if unsaved.is_empty() || is_asked {
        return vec![Command::Quit];
    }
    let text = format!(
        "Unsaved: {}.\nDrafts are kept and offered at the next start. Runs continue.",
        unsaved.join(", and ")
    );
    // A popup that was open returns after "no".
    let before = model.shared.popup.take();
    let question = Confirm::new(LEAVING, text, "quit", |_: &mut (), _| vec![Command::Quit])
        .otherwise(move |_: &mut (), shared| {
            shared.popup = before;
            Vec::new()
        });
    model.shared.popup = Some(Popup::Confirm(question));
    Vec::new()
}

const LEAVING: &str = "Quit with unsaved changes?";

fn go(model: &mut Model, motion: Motion) -> Vec<Command> {
    let (screen, shared) = model.current();
    let pane = screen.pane();
    interaction::go(screen, shared, pane, motion)
}

fn move_focus(model: &mut Model, by: isize) -> Vec<Command> {
    let panes = about(model.shared.screen).panes;
    if panes.is_empty() {
        return Vec::new();
    }
    let (screen, shared) = model.current();
    let now = panes
        .iter()
        .position(|pane| *pane == screen.pane())
        .unwrap_or(0);
    let next = (now as isize + by).rem_euclid(panes.len() as isize) as usize;
    screen.focus(shared, panes[next]);
    Vec::new()
}
