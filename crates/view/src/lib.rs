//! The terminal workbench: messages change the model (`update`), the model is drawn (`draw`), and everything slow runs
//! in the background.

use grpo_tui_core::{
    advantage, confidence, config, dataset, environment, exact_json, facts, files, format, help,
    hub, page, plan, prompts, report, run, schema_keywords, score, secrets, statistics, task, text,
};

pub mod action;
pub mod app;
pub mod appearance;
mod chosen_theme;
mod colour;
pub mod command_log;
pub mod drafts;
pub mod draw;
pub mod followed_run;
pub mod fuzzy;
pub mod interaction;
pub mod json_reader;
pub mod jsonl_edit;
pub mod key_chord;
pub mod keymap;
pub mod keymap_check;
pub mod keymap_file;
mod last_task;
pub mod message;
pub mod messages;
pub mod options;
pub mod pane;
pub mod popup;
pub mod run_chart;
pub mod run_control;
pub mod schema_draft;
pub mod screen;
pub mod screens;
pub mod settings;
mod settings_actions;
pub mod shared;
pub mod style_role;
pub mod subprocess;
pub mod task_failure;
pub mod task_files;
pub mod task_watch;
mod terminal;
pub mod terminal_capability;
pub mod theme;
pub mod theme_file;
pub mod tool_results;
pub mod update;
mod user_file;
pub mod widgets;

pub use app::Model;
pub use message::{Command, Message};
pub use options::Options;
pub use screens::Screen;
pub use terminal::{ViewExit, run};
pub use update::start;

#[cfg(test)]
use grpo_tui_core::sandbox::launch_if_asked;
#[cfg(test)]
#[path = "../../../tests/own_home.rs"]
mod own_home;
