//! Options of the view, and the terminal it runs in.

use std::path::PathBuf;

use super::keymap::Keymap;
use super::settings::Notifications;
use super::terminal_capability::{Background, Capability, ColourDepth};
use super::theme::Theme;
use crate::run::RunFolders;

/// All input that exists before the first message.
#[derive(Debug, Clone)]
pub struct Options {
    /// The task to open, a path or a name as on the command line; `None` opens the workspace's first task, else the
    /// embedded one.
    pub task: Option<String>,
    pub here: PathBuf,
    /// The working directory of the shell.
    pub shell: PathBuf,
    pub run_folders: RunFolders,
    /// The user's data directory, for drafts and copies of embedded tasks.
    pub data: PathBuf,
    /// The program, for subprocesses (`train --detach`, `eval`).
    pub program: PathBuf,
    /// The folder of the device slots' locks; `None` for the one shared by all users of this host.
    pub slots: Option<PathBuf>,
    pub theme: Theme,
    pub keymap: Keymap,
    /// At most one frame every two seconds, within the bandwidth of a slow link.
    pub low_bandwidth: bool,
    pub remote: bool,
    pub notifications: Notifications,
    pub mouse: bool,
    /// The small charts of the live screen, by title or metric; none: the default ones.
    pub live_charts: Vec<String>,
    /// The inputs of the appearance, to reload it when the user's files change.
    pub appearance: AppearanceInput,
    /// Messages to show at the start, such as a keymap file that could not be read.
    pub notes: Vec<String>,
}

impl Options {
    /// The default options for a folder. For tests and for the start.
    pub fn at(here: PathBuf, run_folders: RunFolders, data: PathBuf) -> Self {
        Self {
            task: None,
            shell: here.clone(),
            here,
            run_folders,
            data,
            program: PathBuf::from("/proc/self/exe"),
            slots: None,
            theme: Theme::default(),
            keymap: Keymap::default(),
            low_bandwidth: false,
            remote: false,
            notifications: Notifications::default(),
            mouse: true,
            live_charts: Vec::new(),
            appearance: AppearanceInput::nothing(),
            notes: Vec::new(),
        }
    }
}

/// The inputs of the appearance besides the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppearanceInput {
    /// The folder of the user's configuration; `None` if there is none.
    pub folder: Option<PathBuf>,
    pub capability: Capability,
    /// The background reported by the terminal.
    pub background: Option<Background>,
    /// `--theme`.
    pub theme: Option<String>,
    /// `--colour`.
    pub colour: Option<ColourDepth>,
    /// `--ascii`.
    pub ascii: bool,
    /// `--low-bandwidth`.
    pub low_bandwidth: bool,
    /// `--linear`.
    pub linear: bool,
}

impl AppearanceInput {
    pub fn detect() -> Self {
        Self {
            folder: super::user_file::folder(),
            capability: Capability::detect(),
            ..Self::nothing()
        }
    }

    /// No files, no options, and a terminal with every capability; for tests.
    pub fn nothing() -> Self {
        let capability = Capability {
            depth: ColourDepth::TrueColour,
            unicode: true,
            remote: false,
            ..Capability::from_variables(|_| None)
        };
        Self {
            folder: None,
            capability,
            background: None,
            theme: None,
            colour: None,
            ascii: false,
            low_bandwidth: false,
            linear: false,
        }
    }

    pub fn config_file(&self) -> Option<PathBuf> {
        self.folder
            .as_ref()
            .map(|folder| folder.join("config.toml"))
    }

    pub fn keymap_file(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("keys.toml"))
    }

    pub fn themes_folder(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("themes"))
    }
}
