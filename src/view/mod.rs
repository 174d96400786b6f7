//! The terminal workbench: messages change the model (`update`), the model is drawn (`draw`), and everything that takes long runs beside it.

pub mod action;
pub mod appearance;
mod colour;
pub mod draw;
pub mod followed_run;
pub mod fuzzy;
pub mod global_actions;
pub mod jsonl_edit;
pub mod key_chord;
pub mod keymap;
pub mod keymap_check;
pub mod keymap_file;
pub mod message;
pub mod messages;
pub mod model;
pub mod options;
pub mod pane;
pub mod popup;
mod recovery;
pub mod run_control;
pub mod schema_draft;
pub mod screens;
pub mod settings;
pub mod shared;
pub mod style_role;
pub mod subprocess;
pub mod task_files;
mod terminal;
pub mod terminal_capability;
pub mod theme;
pub mod theme_file;
pub mod update;
mod user_file;
pub mod widgets;
pub mod work_sender;

pub use message::{Command, Message};
pub use model::{Model, Screen};
pub use options::Options;
pub use terminal::{ViewExit, run};

/// The first commands of a model: open the task, list the runs.
pub fn start(model: &mut Model) -> Vec<Command> {
    for note in std::mem::take(&mut model.shared.options.notes) {
        model.shared.complain(note);
    }
    let task = model.shared.options.task.clone();
    let mut commands = shared::open_task(model, task);
    commands.extend(shared::go_to(model, Screen::Runs));
    update::numbered(model, commands)
}

/// A time of day, `14:03:59`, in the machine's time zone.
pub fn clock(time_ms: u64) -> String {
    local(time_ms, "%H:%M:%S")
}

/// A day and its time, `2026-11-20 14:03:59`, in the machine's time zone.
pub fn day_and_clock(time_ms: u64) -> String {
    local(time_ms, "%Y-%m-%d %H:%M:%S")
}

fn local(time_ms: u64, format: &str) -> String {
    let time = i64::try_from(time_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(String::new, |time| time.to_zoned(jiff::tz::TimeZone::system()).strftime(format).to_string())
}
