//! How the view was started, and what its terminal can do.

use std::path::PathBuf;

use super::keymap::Keymap;
use super::settings::Notifications;
use super::terminal_capability::{Capability, ColourDepth, Ground};
use super::theme::Theme;
use crate::run::RunFolders;

/// Everything that comes from outside before the first message.
#[derive(Debug, Clone)]
pub struct Options {
    /// The task to open: a path or a name, as on the command line; `None` opens the workspace's first task, else the
    /// embedded one.
    pub task: Option<String>,
    /// The folder from which names are resolved.
    pub here: PathBuf,
    /// The folder of the shell that started the view.
    pub shell: PathBuf,
    /// Where runs are looked for and created.
    pub run_folders: RunFolders,
    /// Where drafts and copies of embedded tasks are kept: the user's data directory.
    pub data: PathBuf,
    /// The program, for commands that the view starts (`train --detach`, `eval`).
    pub program: PathBuf,
    /// The folder of the device slots' locks; `None` finds the one that all users of this host share.
    pub slots: Option<PathBuf>,
    /// Styles at the start.
    pub theme: Theme,
    /// Keys at the start.
    pub keymap: Keymap,
    /// At most one frame every two seconds, within the bandwidth of a slow link.
    pub low_bandwidth: bool,
    /// Whether the session comes over SSH.
    pub remote: bool,
    /// Which notifications the terminal is asked for.
    pub notifications: Notifications,
    /// Whether the mouse is taken.
    pub mouse: bool,
    /// What the appearance is made of: it is read again when the user's files change.
    pub appearance: AppearanceInput,
    /// Sentences to show at the start, such as a keymap file that could not be read.
    pub notes: Vec<String>,
}

impl Options {
    /// Options for a folder, with everything else as it is without configuration. For tests and for the start.
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
            appearance: AppearanceInput::nothing(),
            notes: Vec::new(),
        }
    }
}

/// What the appearance is made of, besides the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppearanceInput {
    /// The folder of the user's files; `None` where there is none.
    pub folder: Option<PathBuf>,
    /// What the terminal can do.
    pub capability: Capability,
    /// The terminal's ground, as it said itself.
    pub ground: Option<Ground>,
    /// `--theme`.
    pub theme: Option<String>,
    /// `--colour`.
    pub colour: Option<ColourDepth>,
    /// `--ascii`.
    pub ascii: bool,
    /// `--low-bandwidth`.
    pub low_bandwidth: bool,
}

impl AppearanceInput {
    /// Of this process, with nothing on the command line.
    pub fn detect() -> Self {
        Self { folder: super::user_file::folder(), capability: Capability::look(), ..Self::nothing() }
    }

    /// No files, no wishes, a terminal that can do everything. For tests.
    pub fn nothing() -> Self {
        let capability =
            Capability { depth: ColourDepth::TrueColour, unicode: true, remote: false, ..Capability::of(|_| None) };
        Self { folder: None, capability, ground: None, theme: None, colour: None, ascii: false, low_bandwidth: false }
    }

    /// Where `config.toml` is.
    pub fn config_file(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("config.toml"))
    }

    pub fn keymap_file(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("keys.toml"))
    }

    pub fn themes_folder(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join("themes"))
    }
}
