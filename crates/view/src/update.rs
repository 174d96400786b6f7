//! Applies a message to the model and returns commands. Slow work is a command; small local files, such as `run.toml`
//! when a run is opened, are read at once.

use crossterm::event::{
    KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use super::action::{ActionInfo, Scope};
use super::app::{self, Model};
use super::draw::{hint_at, popup_hint_at, tab_at};
use super::interaction;
use super::key_chord::Chord;
use super::message::{Change, Command, Message, WorkResult};
use super::popup::{Popup, PopupOutcome, Refusal};
use super::screens::Screen;
use super::shared::{self, Shared, WorkGeneration};
use super::task_watch;
use super::widgets::list_cursor::Motion;

pub fn start(model: &mut Model) -> Vec<Command> {
    for note in std::mem::take(&mut model.shared.options.notes) {
        model.shared.complain(note);
    }
    let task = model.shared.options.task.clone();
    let mut commands = shared::open_task(&model.shared, task);
    commands.push(Command::GoTo(Screen::Runs));
    carry_out(model, commands)
}

/// Applies a message that came at `now_ms`, milliseconds since 1970.
pub fn update(model: &mut Model, now_ms: u64, message: Message) -> Vec<Command> {
    model.shared.now_ms = now_ms;
    let commands = match message {
        Message::Key(event) if event.kind == KeyEventKind::Release => Vec::new(),
        Message::Key(event) => {
            model.shared.notices.dismiss();
            model.shared.keys += 1;
            if model.shared.popup.is_some() {
                popup_key(model, event)
            } else {
                key(model, event)
            }
        }
        Message::Mouse(event) if matches!(event.kind, MouseEventKind::Moved) => Vec::new(),
        Message::Mouse(event) if model.shared.popup.is_some() => popup_mouse(model, event),
        Message::Mouse(event) => mouse(model, event),
        Message::Paste(text) => match &mut model.shared.popup {
            Some(popup) => {
                popup.paste(&text);
                Vec::new()
            }
            None => {
                let (screen, shared) = model.current();
                interaction::paste(screen, shared, &text)
            }
        },
        Message::Perform(action) => {
            model.shared.notices.dismiss();
            model.shared.popup = None;
            perform_there(model, action)
        }
        Message::Resize(columns, rows) => {
            model.shared.size = (columns, rows);
            Vec::new()
        }
        Message::Tick => {
            let looks = task_watch::look(&model.shared);
            looks
                .into_iter()
                .chain([Command::Changed(Change::Second)])
                .collect()
        }
        Message::Work(result) => take_work(model, result),
        Message::Run(run, news) => shared::apply_run_update(&mut model.shared, &run, news),
        // A task that could not be read may have been mended.
        Message::Edited(path) => {
            let looks = task_watch::look(&model.shared);
            std::iter::once(Command::Changed(Change::Files(vec![path])))
                .chain(looks)
                .collect()
        }
        Message::Quit => vec![Command::Quit],
    };
    carry_out(model, commands)
}

/// Executes commands within the view and returns the rest for the terminal, with work numbered, so that the model knows
/// the newest.
pub fn carry_out(model: &mut Model, commands: Vec<Command>) -> Vec<Command> {
    let mut left = Vec::new();
    for command in commands {
        let more = match command {
            Command::GoTo(screen) => go_to(model, screen),
            Command::ShowRun(run) => shared::show_run(&mut model.shared, run),
            Command::Compare(evals) => model.compare(evals),
            // A question is asked where the user is; its answer may lead elsewhere.
            Command::Perform(id) => match app::action(id) {
                Some(action) if action.asks => perform(model, action),
                Some(action) => perform_there(model, action),
                None => Vec::new(),
            },
            Command::Changed(change) => {
                let told = |screen| {
                    let (screen, shared) = model.screen_mut(screen);
                    screen.on_change(shared, &change)
                };
                Screen::ALL.into_iter().flat_map(told).collect()
            }
            Command::Work(mut work) => {
                if let Some(line) = work.command_line.take() {
                    model.shared.log_command(&line);
                }
                let running = model.shared.work.entry(work.key).or_insert(WorkGeneration {
                    generation: 0,
                    busy: false,
                });
                running.generation += 1;
                running.busy = true;
                work.generation = running.generation;
                left.push(Command::Work(work));
                continue;
            }
            command => {
                left.push(command);
                continue;
            }
        };
        left.extend(carry_out(model, more));
    }
    model.shared.is_typing = model.screen().is_typing();
    left
}

fn go_to(model: &mut Model, screen: Screen) -> Vec<Command> {
    if screen != model.shared.screen {
        model.current().0.stop_typing();
    }
    model.shared.screen = screen;
    model.shared.zoomed = false;
    let (screen, shared) = model.screen_mut(screen);
    screen.on_change(shared, &Change::Shown)
}

fn key(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    match model.action_of(Chord::from_event(event)) {
        Some(action) => perform(model, action),
        None => {
            let chord = Chord::from_event(event);
            let is_unbound = chord.is_for_action() && !model.screen().is_typing();
            let (screen, shared) = model.current();
            let commands = interaction::key(screen, shared, event);
            if is_unbound && commands.is_empty() && model.shared.popup.is_none() {
                let keys = model.shared.key_of("help");
                model
                    .shared
                    .warn(format!("{chord} has no action here: {keys} lists the keys"));
            }
            commands
        }
    }
}

fn perform(model: &mut Model, action: &'static ActionInfo) -> Vec<Command> {
    let commands = match model.blocked(action) {
        Some(why) => {
            model.shared.complain(why);
            Vec::new()
        }
        None => model.perform(action),
    };
    // Typing that was intended for the blocked text field goes nowhere.
    if action.asks && commands.is_empty() && !model.takes_text() {
        let why = model
            .shared
            .notices
            .all()
            .last()
            .map(|notice| notice.text.clone())
            .unwrap_or_default();
        model.shared.popup = Some(Popup::Refusal(Refusal::new(action.title, why)));
    }
    commands
}

fn perform_there(model: &mut Model, action: &'static ActionInfo) -> Vec<Command> {
    let mut commands = match action.scope {
        Scope::Screen(screen) | Scope::Pane(screen, _) if screen != model.shared.screen => {
            go_to(model, screen)
        }
        _ => Vec::new(),
    };
    if let Scope::Pane(screen, pane) = action.scope
        && !model.is_here(action)
    {
        let (screen, shared) = model.screen_mut(screen);
        screen.focus(shared, pane);
    }
    commands.extend(perform(model, action));
    commands
}

fn popup_key(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    // Global actions that work over a popup, with keys that no text field takes.
    let chord = Chord::from_event(event);
    let modified = chord
        .modifiers
        .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
    let through = ["quit", "suspend", "redraw"]
        .into_iter()
        .filter_map(app::action);
    if let Some(action) = through
        .filter(|_| modified)
        .find(|action| model.shared.keymap.keys(action).contains(&chord))
    {
        return model.perform(action);
    }
    // What may be text of a field is no movement.
    let is_text =
        matches!(chord.code, KeyCode::Char(_) | KeyCode::Home | KeyCode::End) && !modified;
    let is_page = matches!(model.shared.popup, Some(Popup::Help(_) | Popup::Page(_)));
    let motion = model.motion_of(chord).or_else(|| arrow_of(chord));
    let motion = motion.filter(|_| is_page || !is_text);
    // The popup is taken out while it handles the key, and put back unless it is done.
    let Some(mut popup) = model.shared.popup.take() else {
        return Vec::new();
    };
    match popup.key(event, motion, model.shared.size.into()) {
        PopupOutcome::Stay => {
            model.shared.popup = Some(popup);
            Vec::new()
        }
        PopupOutcome::Refused(why) => {
            model.shared.popup = Some(popup);
            model.shared.complain(why);
            Vec::new()
        }
        PopupOutcome::Close => Vec::new(),
        PopupOutcome::Update(update) => update.apply(model),
        PopupOutcome::Perform(action) => perform_there(model, action),
    }
}

/// What a key of movement does in a popup whatever the keymap.
fn arrow_of(chord: Chord) -> Option<Motion> {
    let motion = match chord.code {
        KeyCode::Down => Motion::Down,
        KeyCode::Up => Motion::Up,
        KeyCode::PageDown => Motion::PageDown,
        KeyCode::PageUp => Motion::PageUp,
        KeyCode::Home => Motion::First,
        KeyCode::End => Motion::Last,
        _ => return None,
    };
    chord.modifiers.is_empty().then_some(motion)
}

/// Handles the mouse while a popup is in front: the wheel scrolls, a click chooses a row of a list, an answer, or a hint.
fn popup_mouse(model: &mut Model, event: MouseEvent) -> Vec<Command> {
    let size = model.shared.size;
    let is_hint =
        event.row + 1 == size.1 && model.shared.notices.shown(model.shared.now_ms).is_none();
    let Shared { popup, theme, .. } = &mut model.shared;
    let Some(popup) = popup else {
        return Vec::new();
    };
    if !matches!(event.kind, MouseEventKind::Down(MouseButton::Left)) {
        popup.wheel(event, size.into());
        return Vec::new();
    }
    let key = if is_hint {
        popup_hint_at(popup, event.column)
    } else {
        popup.click(theme, size.into(), (event.column, event.row).into())
    };
    key.map_or_else(Vec::new, |key| popup_key(model, key))
}

/// The maximum time between the clicks of a double click, milliseconds.
const DOUBLE_CLICK_MS: u64 = 400;

/// A click on a tab opens its screen, one on the run at the right of the tabs the live screen, one on a hint acts as its
/// key, one on a message shows all of them. A double click acts as enter.
fn mouse(model: &mut Model, event: MouseEvent) -> Vec<Command> {
    let is_click = matches!(event.kind, MouseEventKind::Down(MouseButton::Left));
    if event.row == 0 && is_click {
        let is_of_run = model.screen().shown_instead().is_none();
        let run = model.shared.current.as_ref().filter(|_| is_of_run);
        let run = run.map(|_| Screen::Live);
        return tab_at(model, event.column)
            .or(run)
            .map(Command::GoTo)
            .into_iter()
            .collect();
    }
    if event.row + 1 == model.shared.size.1 && is_click {
        return hint_at(model, event.column).map_or_else(Vec::new, |action| perform(model, action));
    }
    if !is_click {
        let (screen, shared) = model.current();
        return interaction::mouse(screen, shared, event);
    }
    let place = (event.column, event.row);
    let is_second = model.clicked.take().is_some_and(|(time, before)| {
        before == place && model.shared.now_ms.saturating_sub(time) < DOUBLE_CLICK_MS
    });
    // The first click has selected; the list may have moved under the pointer since.
    if is_second && interaction::opens(model.screen(), &model.shared, place.into()) {
        let enter = Chord {
            code: KeyCode::Enter,
            modifiers: KeyModifiers::NONE,
        };
        return model
            .action_of(enter)
            .map_or_else(Vec::new, |action| perform(model, action));
    }
    model.clicked = Some((model.shared.now_ms, place));
    let (screen, shared) = model.current();
    interaction::mouse(screen, shared, event)
}

fn take_work(model: &mut Model, result: WorkResult) -> Vec<Command> {
    let newest = model
        .shared
        .work
        .get(result.key)
        .is_some_and(|running| running.generation == result.generation);
    match result.apply {
        Some(update) if newest => update.apply(model),
        Some(_) => Vec::new(),
        None => {
            if newest && let Some(running) = model.shared.work.get_mut(result.key) {
                running.busy = false;
            }
            Vec::new()
        }
    }
}
