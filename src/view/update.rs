//! One message changes the model and asks for commands. No file, no clock, no terminal is touched here.

use crossterm::event::{KeyEventKind, MouseEventKind};

use super::chord::Chord;
use super::message::{Command, Message, Worked};
use super::model::{Model, Running};
use super::{popup, screens, workbench};

/// Take a message that came at `now_ms`, milliseconds since 1970.
pub fn update(model: &mut Model, now_ms: u64, message: Message) -> Vec<Command> {
    model.now_ms = now_ms;
    let commands = match message {
        Message::Key(event) if event.kind == KeyEventKind::Release => Vec::new(),
        Message::Key(event) => {
            model.notices.dismiss();
            if model.popup.is_some() { popup::key(model, event) } else { key(model, event) }
        }
        Message::Mouse(event) if matches!(event.kind, MouseEventKind::Moved) => Vec::new(),
        Message::Mouse(event) if model.popup.is_some() => popup::mouse(model, event),
        Message::Mouse(event) => mouse(model, event),
        Message::Paste(text) if model.popup.is_some() => popup::paste(model, &text),
        Message::Paste(text) => (screens::of(model.screen).pasted)(model, &text),
        Message::Resize(columns, rows) => {
            model.size = (columns, rows);
            Vec::new()
        }
        Message::Tick => screens::tick(model),
        Message::Worked(worked) => take_work(model, worked),
        Message::Run(run, news) => workbench::take_news(model, &run, news),
        Message::Edited(path) => screens::changed(model, screens::Change::File(path)),
        Message::Quit => vec![Command::Quit],
    };
    numbered(model, commands)
}

fn key(model: &mut Model, event: crossterm::event::KeyEvent) -> Vec<Command> {
    match model.keymap.action(model, Chord::of(event)) {
        Some(action) => perform(model, action),
        None => (screens::of(model.screen).typed)(model, event),
    }
}

/// Do an action, or say why it cannot be done now.
pub fn perform(model: &mut Model, action: &'static super::action::Action) -> Vec<Command> {
    match (action.blocked)(model) {
        Some(why) => {
            model.complain(why);
            Vec::new()
        }
        None => (action.perform)(model),
    }
}

fn mouse(model: &mut Model, event: crossterm::event::MouseEvent) -> Vec<Command> {
    if event.row == 0 && matches!(event.kind, MouseEventKind::Down(_)) {
        return match super::draw::tab_at(model, event.column) {
            Some(screen) => workbench::go_to(model, screen),
            None => Vec::new(),
        };
    }
    (screens::of(model.screen).mouse)(model, event)
}

fn take_work(model: &mut Model, worked: Worked) -> Vec<Command> {
    let newest = model.work.get(worked.key).is_some_and(|running| running.generation == worked.generation);
    match worked.apply {
        Some(apply) if newest => apply(model),
        Some(_) => Vec::new(),
        None => {
            if newest && let Some(running) = model.work.get_mut(worked.key) {
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
            let running = model.work.entry(work.key).or_insert(Running { generation: 0, busy: false });
            running.generation += 1;
            running.busy = true;
            work.generation = running.generation;
        }
    }
    commands
}
