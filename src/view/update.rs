//! One message changes the model and asks for commands. No file, no clock, no terminal is touched here.

use crossterm::event::{KeyCode, KeyEventKind, KeyModifiers, MouseButton, MouseEventKind};

use super::key_chord::Chord;
use super::message::{Command, Message, Worked};
use super::model::{Model, Screen};
use super::shared::Running;
use super::{popup, screens, shared};

/// Take a message that came at `now_ms`, milliseconds since 1970.
pub fn update(model: &mut Model, now_ms: u64, message: Message) -> Vec<Command> {
    model.shared.now_ms = now_ms;
    let commands = match message {
        Message::Key(event) if event.kind == KeyEventKind::Release => Vec::new(),
        Message::Key(event) => {
            model.shared.notices.dismiss();
            model.shared.keys += 1;
            if model.shared.popup.is_some() { popup::key(model, event) } else { key(model, event) }
        }
        Message::Mouse(event) if matches!(event.kind, MouseEventKind::Moved) => Vec::new(),
        Message::Mouse(event) if model.shared.popup.is_some() => popup::mouse(model, event),
        Message::Mouse(event) => mouse(model, event),
        Message::Paste(text) if model.shared.popup.is_some() => popup::paste(model, &text),
        Message::Paste(text) => (screens::of(model.shared.screen).pasted)(model, &text),
        Message::Resize(columns, rows) => {
            model.shared.size = (columns, rows);
            Vec::new()
        }
        Message::Tick => screens::tick(model),
        Message::Worked(worked) => take_work(model, worked),
        Message::Run(run, news) => shared::apply_run_update(model, &run, news),
        Message::Edited(path) => screens::changed(model, screens::Change::File(path)),
        Message::Quit => vec![Command::Quit],
    };
    numbered(model, commands)
}

fn key(model: &mut Model, event: crossterm::event::KeyEvent) -> Vec<Command> {
    match model.shared.keymap.action(model, Chord::of(event)) {
        Some(action) => perform(model, action),
        None => (screens::of(model.shared.screen).typed)(model, event),
    }
}

/// Do an action, or say why it cannot be done now.
pub fn perform(model: &mut Model, action: &'static super::action::Action) -> Vec<Command> {
    let commands = match (action.blocked)(model) {
        Some(why) => {
            model.shared.complain(why);
            Vec::new()
        }
        None => (action.perform)(model),
    };
    // Somebody who was about to type types on: that text goes nowhere.
    if action.asks && commands.is_empty() && !model.takes_text() {
        let why = model.shared.notices.all().last().map(|notice| notice.text.clone()).unwrap_or_default();
        model.shared.popup = Some(popup::Popup::Refusal(popup::Refusal::new(action.title, why)));
    }
    commands
}

/// How long after a click another one at the same place makes it a double click, milliseconds.
const DOUBLE_CLICK_MS: u64 = 400;

/// A click on a tab goes to its screen, on the run at the right of the tabs to the live one. A double click does what enter does where it fell.
fn mouse(model: &mut Model, event: crossterm::event::MouseEvent) -> Vec<Command> {
    let is_click = matches!(event.kind, MouseEventKind::Down(MouseButton::Left));
    if event.row == 0 && is_click {
        let run = model.shared.current.as_ref().map(|_| Screen::Live);
        return super::draw::tab_at(model, event.column).or(run).map_or_else(Vec::new, |screen| shared::go_to(model, screen));
    }
    let screen = screens::of(model.shared.screen);
    if !is_click {
        return (screen.mouse)(model, event);
    }
    let place = (event.column, event.row);
    let is_second =
        model.clicked.take().is_some_and(|(time, before)| before == place && model.shared.now_ms.saturating_sub(time) < DOUBLE_CLICK_MS);
    // The first click has chosen; the list may have moved under the pointer since.
    if is_second && (screen.opens)(model, place) {
        let enter = Chord { code: KeyCode::Enter, modifiers: KeyModifiers::NONE };
        return model.shared.keymap.action(model, enter).map_or_else(Vec::new, |action| perform(model, action));
    }
    model.clicked = Some((model.shared.now_ms, place));
    (screen.mouse)(model, event)
}

fn take_work(model: &mut Model, worked: Worked) -> Vec<Command> {
    let newest = model.shared.work.get(worked.key).is_some_and(|running| running.generation == worked.generation);
    match worked.apply {
        Some(apply) if newest => apply(model),
        Some(_) => Vec::new(),
        None => {
            if newest && let Some(running) = model.shared.work.get_mut(worked.key) {
                running.busy = false;
            }
            Vec::new()
        }
    }
}

/// Gives work its generation, so that the model knows which is the newest.
pub fn numbered(model: &mut Model, mut commands: Vec<Command>) -> Vec<Command> {
    for command in &mut commands {
        if let Command::Work(work) = command {
            let running = model.shared.work.entry(work.key).or_insert(Running { generation: 0, busy: false });
            running.generation += 1;
            running.busy = true;
            work.generation = running.generation;
        }
    }
    commands
}
