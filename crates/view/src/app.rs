//! The whole model: the shared state and each screen's own. Only this file knows all screens; it has the table of them
//! and of all actions.

use std::any::{Any, TypeId};
use std::collections::HashSet;

use crossterm::event::{KeyEvent, MouseEvent};
use ratatui::Frame;
use ratatui::layout::Rect;

use super::action::{ActionInfo, Scope};
use super::key_chord::Chord;
use super::message::{Change, Command, UpdateTarget};
use super::messages;
use super::options::Options;
use super::popup::{Confirm, Help, HelpRow, PaletteEntry, Popup, palette};
use super::screen::Definition;
use super::screens::{Screen, eval, launch, live, prompts, runs, schema, scores};
use super::settings_actions;
use super::shared::Shared;
use crate::report::EvalId;

#[derive(Debug)]
pub struct Model {
    pub shared: Shared,
    /// Time and position of the last click, until it became part of a double click.
    pub clicked: Option<(u64, (u16, u16))>,
    pub runs: runs::Runs,
    pub schema: schema::Schema,
    pub prompts: prompts::Prompts,
    pub scores: scores::Scores,
    pub launch: launch::Launch,
    pub live: live::Live,
    pub eval: eval::Eval,
}

/// All screens, in the order of their keys.
const SCREENS: [&dyn ScreenParts; 7] = [
    &ScreenEntry {
        definition: &runs::actions::SCREEN,
        of: |model| &model.runs,
        split: |model| (&mut model.runs, &mut model.shared),
    },
    &ScreenEntry {
        definition: &schema::actions::SCREEN,
        of: |model| &model.schema,
        split: |model| (&mut model.schema, &mut model.shared),
    },
    &ScreenEntry {
        definition: &prompts::actions::SCREEN,
        of: |model| &model.prompts,
        split: |model| (&mut model.prompts, &mut model.shared),
    },
    &ScreenEntry {
        definition: &scores::actions::SCREEN,
        of: |model| &model.scores,
        split: |model| (&mut model.scores, &mut model.shared),
    },
    &ScreenEntry {
        definition: &launch::actions::SCREEN,
        of: |model| &model.launch,
        split: |model| (&mut model.launch, &mut model.shared),
    },
    &ScreenEntry {
        definition: &live::actions::SCREEN,
        of: |model| &model.live,
        split: |model| (&mut model.live, &mut model.shared),
    },
    &ScreenEntry {
        definition: &eval::actions::SCREEN,
        of: |model| &model.eval,
        split: |model| (&mut model.eval, &mut model.shared),
    },
];

pub fn screen(screen: Screen) -> &'static dyn ScreenParts {
    SCREENS[screen as usize]
}

/// A screen as the rest of the view sees it: its [`Definition`], applied to its own state.
pub trait ScreenParts: Sync {
    fn title(&self) -> &'static str;
    fn help(&self) -> &'static str;
    fn panes(&self) -> &'static [&'static str];
    fn actions(&self) -> Vec<&'static ActionInfo>;
    fn blocked(&self, model: &Model, id: &str) -> Option<String>;
    fn hint(&self, model: &Model, id: &str) -> Option<&'static str>;
    fn perform(&self, model: &mut Model, id: &str) -> Vec<Command>;
    fn pane(&self, model: &Model) -> &'static str;
    fn focus(&self, model: &mut Model, pane: &'static str);
    fn is_typing(&self, model: &Model) -> bool;
    fn takes_tab(&self, model: &Model) -> bool;
    fn on_key(&self, model: &mut Model, event: KeyEvent) -> Vec<Command>;
    fn on_paste(&self, model: &mut Model, text: &str) -> Vec<Command>;
    fn mouse(&self, model: &mut Model, event: MouseEvent) -> Vec<Command>;
    fn opens(&self, model: &Model, at: (u16, u16)) -> bool;
    fn on_show(&self, model: &mut Model) -> Vec<Command>;
    fn on_change(&self, model: &mut Model, change: &Change) -> Vec<Command>;
    fn draw(&self, model: &Model, frame: &mut Frame<'_>, area: Rect);
    /// The screen's state if it is of this type, and the shared state.
    fn own<'a>(&self, model: &'a mut Model, state_type: TypeId) -> Option<(&'a mut dyn Any, &'a mut dyn Any)>;
}

/// A definition with the field of its state in the model.
struct ScreenEntry<X: 'static> {
    definition: &'static Definition<X>,
    of: fn(&Model) -> &X,
    split: fn(&mut Model) -> (&mut X, &mut Shared),
}

impl<X: 'static> ScreenParts for ScreenEntry<X> {
    fn title(&self) -> &'static str {
        self.definition.title
    }

    fn help(&self) -> &'static str {
        self.definition.help
    }

    fn panes(&self) -> &'static [&'static str] {
        self.definition.panes
    }

    fn actions(&self) -> Vec<&'static ActionInfo> {
        self.definition.actions.iter().map(|action| &action.info).collect()
    }

    fn blocked(&self, model: &Model, id: &str) -> Option<String> {
        let action = self.definition.actions.iter().find(|action| action.info.id == id)?;
        (action.blocked)((self.of)(model), &model.shared)
    }

    fn hint(&self, model: &Model, id: &str) -> Option<&'static str> {
        let action = self.definition.actions.iter().find(|action| action.info.id == id)?;
        (action.hint)((self.of)(model), &model.shared)
    }

    fn perform(&self, model: &mut Model, id: &str) -> Vec<Command> {
        let Some(action) = self.definition.actions.iter().find(|action| action.info.id == id) else {
            return Vec::new();
        };
        let (screen, shared) = (self.split)(model);
        (action.perform)(screen, shared)
    }

    fn pane(&self, model: &Model) -> &'static str {
        (self.definition.pane)((self.of)(model))
    }

    fn focus(&self, model: &mut Model, pane: &'static str) {
        let (screen, shared) = (self.split)(model);
        (self.definition.focus)(screen, shared, pane);
    }

    fn is_typing(&self, model: &Model) -> bool {
        (self.definition.is_typing)((self.of)(model))
    }

    fn takes_tab(&self, model: &Model) -> bool {
        (self.definition.takes_tab)((self.of)(model))
    }

    fn on_key(&self, model: &mut Model, event: KeyEvent) -> Vec<Command> {
        let (screen, shared) = (self.split)(model);
        (self.definition.on_key)(screen, shared, event)
    }

    fn on_paste(&self, model: &mut Model, text: &str) -> Vec<Command> {
        let (screen, shared) = (self.split)(model);
        (self.definition.on_paste)(screen, shared, text)
    }

    fn mouse(&self, model: &mut Model, event: MouseEvent) -> Vec<Command> {
        let (screen, shared) = (self.split)(model);
        (self.definition.mouse)(screen, shared, event)
    }

    fn opens(&self, model: &Model, at: (u16, u16)) -> bool {
        (self.definition.opens)((self.of)(model), &model.shared, at)
    }

    fn on_show(&self, model: &mut Model) -> Vec<Command> {
        let (screen, shared) = (self.split)(model);
        (self.definition.on_show)(screen, shared)
    }

    fn on_change(&self, model: &mut Model, change: &Change) -> Vec<Command> {
        let (screen, shared) = (self.split)(model);
        (self.definition.on_change)(screen, shared, change)
    }

    fn draw(&self, model: &Model, frame: &mut Frame<'_>, area: Rect) {
        (self.definition.draw)((self.of)(model), &model.shared, frame, area);
    }

    fn own<'a>(&self, model: &'a mut Model, state_type: TypeId) -> Option<(&'a mut dyn Any, &'a mut dyn Any)> {
        let (screen, shared) = (self.split)(model);
        (TypeId::of::<X>() == state_type).then_some((screen, shared))
    }
}

impl UpdateTarget for Model {
    fn parts(&mut self, state_type: TypeId) -> Option<(&mut dyn Any, &mut dyn Any)> {
        if TypeId::of::<()>() == state_type {
            // Work of no screen: `()` takes no memory, so nothing is leaked.
            return Some((Box::leak(Box::new(())), &mut self.shared));
        }
        let found = SCREENS.iter().position(|screen| screen.own(self, state_type).is_some())?;
        SCREENS[found].own(self, state_type)
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
        }
    }

    /// The current screen.
    pub fn screen(&self) -> &'static dyn ScreenParts {
        screen(self.shared.screen)
    }

    /// Whether a popup or a text field has the keys.
    pub fn takes_text(&self) -> bool {
        self.shared.popup.is_some() || self.screen().is_typing(self)
    }

    /// Whether the keys of an action work where the focus is.
    pub fn is_here(&self, action: &ActionInfo) -> bool {
        match action.scope {
            Scope::Global => true,
            Scope::Screen(screen) => screen == self.shared.screen,
            Scope::Pane(screen, pane) => screen == self.shared.screen && pane == self.screen().pane(self),
        }
    }

    /// The actions available here, by scope: pane, screen, everywhere.
    pub fn actions_here(&self) -> Vec<&'static ActionInfo> {
        let mut found: Vec<&'static ActionInfo> = actions().filter(|action| self.is_here(action)).collect();
        found.sort_by_key(|action| match action.scope {
            Scope::Pane(..) => 0,
            Scope::Screen(_) => 1,
            Scope::Global => 2,
        });
        found
    }

    /// The action of a chord where the focus is.
    pub fn action_of(&self, chord: Chord) -> Option<&'static ActionInfo> {
        if self.is_for_text(chord) {
            return None;
        }
        self.actions_here().into_iter().find(|action| self.shared.keymap.keys(action).contains(&chord))
    }

    /// The actions available here with their keys, without those that a text field takes or that a nearer scope gives
    /// another meaning.
    pub fn keys_here(&self) -> Vec<(&'static ActionInfo, Vec<Chord>)> {
        let mut taken = HashSet::new();
        let keys = |action| {
            let mut keys = self.shared.keymap.keys(action);
            keys.retain(|key| !self.is_for_text(*key) && taken.insert(*key));
            (action, keys)
        };
        self.actions_here().into_iter().map(keys).collect()
    }

    /// Whether a chord belongs to the focused text field: that gets plain keys, actions get those that cannot be text.
    pub fn is_for_text(&self, chord: Chord) -> bool {
        self.screen().is_typing(self) && (!chord.is_command() || (chord == Chord::TAB && self.screen().takes_tab(self)))
    }

    /// Why an action is blocked.
    pub fn blocked(&self, action: &ActionInfo) -> Option<String> {
        match action.scope {
            Scope::Global => None,
            Scope::Screen(of) | Scope::Pane(of, _) => screen(of).blocked(self, action.id),
        }
    }

    /// What an action does now, for the bottom line.
    pub fn hint(&self, action: &ActionInfo) -> &'static str {
        let hint = match action.scope {
            Scope::Global => None,
            Scope::Screen(of) | Scope::Pane(of, _) => screen(of).hint(self, action.id),
        };
        hint.unwrap_or(action.hint)
    }

    /// Executes an action without checking whether it is blocked.
    pub fn perform(&mut self, action: &ActionInfo) -> Vec<Command> {
        match action.scope {
            Scope::Global => {
                let found = GLOBAL.iter().find(|global| global.info.id == action.id);
                found.map_or_else(Vec::new, |global| (global.perform)(self))
            }
            Scope::Screen(of) | Scope::Pane(of, _) => screen(of).perform(self, action.id),
        }
    }

    /// The entries of the palette: actions available here, then those of other screens and panes, which are opened
    /// first.
    fn palette_entries(&self) -> Vec<PaletteEntry> {
        // Not those that need something to be opened first.
        let can_be_gone_to = |action: &&ActionInfo| match action.scope {
            Scope::Pane(of, pane) => screen(of).panes().contains(&pane),
            _ => true,
        };
        let elsewhere = actions().filter(|action| !self.is_here(action)).filter(can_be_gone_to);
        let entry = |(info, key): (&'static ActionInfo, String)| {
            let screen = match info.scope {
                Scope::Screen(of) | Scope::Pane(of, _) => Some(screen(of).title()),
                Scope::Global => None,
            };
            PaletteEntry { info, is_here: self.is_here(info), screen, blocked: self.blocked(info), key }
        };
        let first = |keys: &[Chord]| keys.first().map(Chord::to_string).unwrap_or_default();
        let here = self.keys_here().into_iter().map(|(action, keys)| (action, first(&keys)));
        let elsewhere = elsewhere.map(|action| (action, self.shared.keymap.shown(action)));
        here.chain(elsewhere).map(entry).collect()
    }

    pub fn compare(&mut self, evals: Vec<EvalId>) -> Vec<Command> {
        eval::show(&mut self.eval, &mut self.shared, evals)
    }

    fn help(&self) -> Help {
        let row = |(info, keys): (&'static ActionInfo, Vec<Chord>)| {
            let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            HelpRow { info, keys: keys.join(" "), blocked: self.blocked(info) }
        };
        let rows: Vec<HelpRow> = self.keys_here().into_iter().map(row).collect();
        Help::new(&self.shared.theme, self.shared.size.0, (self.screen().title(), self.screen().help()), &rows)
    }
}

/// Every action: those of the screens, then the global ones.
pub fn actions() -> impl Iterator<Item = &'static ActionInfo> {
    SCREENS.iter().flat_map(|screen| screen.actions()).chain(GLOBAL.iter().map(|action| &action.info))
}

pub fn action(id: &str) -> Option<&'static ActionInfo> {
    actions().find(|action| action.id == id)
}

/// An action that works on every screen.
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
        Self { info: ActionInfo { id, title, hint, keys, scope: Scope::Global, aliases, asks: false }, perform }
    }
}

const GLOBAL: &[Global] = &[
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
    Global::new("palette", "Command palette", "palette", &["ctrl-p", ":"], &["commands", "actions"], |model| {
        model.shared.popup = Some(Popup::Pick(palette(model.palette_entries(), &model.shared.recent)));
        Vec::new()
    }),
    Global::new("screen.runs", "Go to runs", "", &["1", "f1"], &["goto runs", "list runs"], |_| {
        vec![Command::GoTo(Screen::Runs)]
    }),
    Global::new("screen.schema", "Go to schema", "", &["2", "f2"], &["goto schema", "define"], |_| {
        vec![Command::GoTo(Screen::Schema)]
    }),
    Global::new("screen.prompts", "Go to prompts", "", &["3", "f3"], &["goto prompts", "dataset"], |_| {
        vec![Command::GoTo(Screen::Prompts)]
    }),
    Global::new("screen.scores", "Go to scores", "", &["4", "f4"], &["goto scores", "preview"], |_| {
        vec![Command::GoTo(Screen::Scores)]
    }),
    Global::new("screen.launch", "Go to launch", "", &["5", "f5"], &["goto launch", "launch", "new run"], |_| {
        vec![Command::GoTo(Screen::Launch)]
    }),
    Global::new("screen.live", "Go to live", "", &["6", "f6"], &["goto live", "watch"], |_| {
        vec![Command::GoTo(Screen::Live)]
    }),
    Global::new("screen.eval", "Go to eval", "", &["7", "f7"], &["goto eval", "comparison", "eval"], |_| {
        vec![Command::GoTo(Screen::Eval)]
    }),
    Global::new("pane.next", "Next pane", "pane", &["tab"], &["focus", "next window", "switch pane"], |model| {
        move_focus(model, 1)
    }),
    Global::new("pane.previous", "Previous pane", "", &["backtab"], &["previous window"], |model| {
        move_focus(model, -1)
    }),
    Global::new("pane.zoom", "Toggle zoom", "zoom", &["z"], &["zoom", "maximize", "fullscreen"], |model| {
        model.shared.zoomed = !model.shared.zoomed;
        Vec::new()
    }),
    Global::new("editor.wrap", "Toggle soft wrap", "", &["alt-z"], &["soft-wrap", "wrap lines"], |model| {
        let edits_json = || model.prompts.editing.as_ref().is_some_and(|editing| editing.editor.is_json());
        let is_json = model.shared.screen == Screen::Schema || (model.shared.screen == Screen::Prompts && edits_json());
        let wraps = model.shared.soft_wrap.for_format(is_json);
        *wraps = !*wraps;
        let what = if is_json { "JSON" } else { "prose" };
        let message = format!("long lines of {what} are {}", if *wraps { "wrapped" } else { "cut" });
        model.shared.say(message);
        Vec::new()
    }),
    Global::new("notices", "Show messages", "", &["alt-n"], &["messages", "notifications", "log", "errors"], |model| {
        let popup = messages::log("Messages", &model.shared.theme, &model.shared.notices);
        model.shared.popup = Some(Popup::Pick(popup));
        Vec::new()
    }),
    Global::new("commands", "Show command log", "", &["alt-m"], &["command log", "cli", "shell", "history"], |model| {
        let popup = messages::log("Command log", &model.shared.theme, &model.shared.commands);
        model.shared.popup = Some(Popup::Pick(popup));
        Vec::new()
    }),
    Global::new("theme", "Choose theme", "", &[], &["theme", "colours", "colors", "dark", "light"], |model| {
        settings_actions::choose_theme(&model.shared)
    }),
    Global::new(
        "settings",
        "Edit settings",
        "",
        &[],
        &["settings", "preferences", "options", "config.toml"],
        |model| settings_actions::edit(&mut model.shared),
    ),
    Global::new("redraw", "Redraw", "", &["ctrl-l"], &["refresh"], |_| vec![Command::Redraw]),
    Global::new("suspend", "Suspend", "", &["ctrl-z"], &["background"], |_| vec![Command::Suspend]),
    Global::new("quit", "Quit", "quit", &["q", "ctrl-c"], &["quit", "exit", "leave", "close", "detach"], quit),
];

/// Quits; asks first if there is unsaved text. `ctrl-c` while that question is open quits at once.
fn quit(model: &mut Model) -> Vec<Command> {
    let schema = model.shared.draft.is_changed().then_some(model.shared.draft.name());
    let prompts = model.prompts.editing.as_ref().filter(|editing| editing.is_changed()).map(|editing| editing.title());
    let unsaved: Vec<&str> = schema.into_iter().chain(prompts).collect();
    let is_asked = matches!(&model.shared.popup, Some(Popup::Confirm(confirm)) if confirm.is_about(LEAVING));
    if unsaved.is_empty() || is_asked {
        return vec![Command::Quit];
    }
    let text =
        format!("Unsaved: {}.\nDrafts are kept and offered at the next start. Runs continue.", unsaved.join(", and "));
    // A popup that was open comes back after a no.
    let before = model.shared.popup.take();
    let question = Confirm::new(LEAVING, text, "quit", |_: &mut (), _| vec![Command::Quit]).otherwise(
        move |_: &mut (), shared| {
            shared.popup = before;
            Vec::new()
        },
    );
    model.shared.popup = Some(Popup::Confirm(question));
    Vec::new()
}

const LEAVING: &str = "Quit with unsaved changes?";

fn move_focus(model: &mut Model, by: isize) -> Vec<Command> {
    let screen = model.screen();
    let panes = screen.panes();
    if panes.is_empty() {
        return Vec::new();
    }
    let now = panes.iter().position(|pane| *pane == screen.pane(model)).unwrap_or(0);
    let next = (now as isize + by).rem_euclid(panes.len() as isize) as usize;
    screen.focus(model, panes[next]);
    Vec::new()
}
