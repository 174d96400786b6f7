//! How the view looks and which keys it knows: from the command line, the user's files and the terminal, read again
//! when a file changes.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::app::Model;
use super::keymap::Keymap;
use super::options::{AppearanceInput, Options};
use super::settings::{Notifications, Settings};
use super::terminal_capability::{ColourDepth, Ground};
use super::theme::Theme;
use super::user_file::UserFile;
use super::{keymap_file, settings, theme_file};

/// How often the user's files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// The theme that follows the terminal's ground.
pub const AUTO: &str = "auto";

/// How the view looks.
#[derive(Debug, Clone, PartialEq)]
pub struct Appearance {
    /// Styles, for this terminal.
    pub theme: Theme,
    /// Keys.
    pub keymap: Keymap,
    /// Colours in use.
    pub depth: ColourDepth,
    /// At most one frame every two seconds.
    pub low_bandwidth: bool,
    pub notifications: Notifications,
    /// Whether the mouse is taken.
    pub mouse: bool,
    /// What is wrong with the files, as sentences.
    pub notes: Vec<String>,
    /// The files that it was read from.
    pub files: Vec<PathBuf>,
}

impl Appearance {
    /// The appearance as the files stand.
    pub fn load(given: &AppearanceInput) -> Self {
        let (mut notes, mut files) = (Vec::new(), Vec::new());
        let mut open = |path: Option<PathBuf>, notes: &mut Vec<String>| {
            let path = path?;
            match UserFile::read(&path) {
                Ok(file) => {
                    files.extend(file.is_some().then_some(path));
                    file
                }
                Err(error) => {
                    notes.push(format!("{error}; the defaults are used"));
                    None
                }
            }
        };
        let config = open(given.config_file(), &mut notes);
        let (settings, told) = config.map_or_else(|| (Settings::default(), Vec::new()), |file| settings::read(&file));
        notes.extend(told);
        let keys = open(given.keymap_file(), &mut notes).map(|file| keymap_file::read(&file)).unwrap_or_default();
        notes.extend(keys.errors.into_iter().chain(keys.warnings));
        let low_bandwidth = given.low_bandwidth || settings.low_bandwidth;
        let depth = depth(given, &settings, low_bandwidth);
        let mut read = theme_file::read(&theme_name(given, &settings, depth), given.themes_folder().as_deref());
        notes.extend(read.notes);
        files.extend(read.files);
        read.theme.ascii = given.ascii || settings.ascii.unwrap_or(!given.capability.unicode);
        Self {
            theme: read.theme.at_depth(depth),
            keymap: keys.keymap,
            depth,
            low_bandwidth,
            notifications: settings.notifications,
            mouse: settings.mouse,
            notes,
            files,
        }
    }

    /// Whether the theme hangs on the terminal's ground, which only the terminal knows.
    pub fn asks_for_ground(given: &AppearanceInput) -> bool {
        let file = given.config_file().and_then(|path| UserFile::read(&path).ok().flatten());
        let settings = file.map_or_else(Settings::default, |file| settings::read(&file).0);
        let depth = given.colour.or(settings.colour).unwrap_or(given.capability.depth);
        let unknown = given.ground.or(given.capability.ground).is_none();
        depth != ColourDepth::None
            && unknown
            && given.capability.answers
            && given.theme.as_ref().unwrap_or(&settings.theme) == AUTO
    }

    /// The options with the appearance of a terminal and a user.
    #[must_use]
    pub fn options(options: Options, given: AppearanceInput) -> Options {
        let Self { theme, keymap, low_bandwidth, notifications, mouse, notes, .. } = Self::load(&given);
        let remote = given.capability.remote;
        Options { theme, keymap, low_bandwidth, notifications, mouse, notes, remote, appearance: given, ..options }
    }

    /// Let the model look like this. Problems are reported.
    pub fn apply(self, model: &mut Model) {
        model.shared.theme = self.theme;
        model.shared.keymap = self.keymap;
        model.shared.options.low_bandwidth = self.low_bandwidth;
        model.shared.options.notifications = self.notifications;
        model.shared.options.mouse = self.mouse;
        for note in self.notes {
            model.shared.complain(note);
        }
    }
}

/// As the user says, else as the environment does; over a slow link not in colours of 24 bits, which take up to 19
/// bytes each.
fn depth(given: &AppearanceInput, settings: &Settings, low_bandwidth: bool) -> ColourDepth {
    match given.colour.or(settings.colour) {
        Some(depth) => depth,
        None if low_bandwidth && given.capability.depth == ColourDepth::TrueColour => ColourDepth::Colours256,
        None => given.capability.depth,
    }
}

fn theme_name(given: &AppearanceInput, settings: &Settings, depth: ColourDepth) -> String {
    if depth == ColourDepth::None {
        return "monochrome".to_owned();
    }
    match (given.theme.as_ref().unwrap_or(&settings.theme).as_str(), given.ground.or(given.capability.ground)) {
        (AUTO, Some(Ground::Light)) => "light".to_owned(),
        (AUTO, _) => "dark".to_owned(),
        (name, _) => name.to_owned(),
    }
}

/// Look at the files from a thread of its own; `tell` gets the new appearance whenever one of them changed, and says
/// whether anybody listens.
///
/// # Errors
/// Where the system gives no thread.
pub(super) fn watch(given: AppearanceInput, tell: impl Fn(Appearance) -> bool + Send + 'static) -> std::io::Result<()> {
    let Some(folder) = given.folder.clone() else { return Ok(()) };
    // As they are now: a file may change before the thread is on its way.
    let mut seen = stamps(&folder);
    let watching = move || {
        loop {
            std::thread::sleep(LOOK);
            let now = stamps(&folder);
            if now != seen && !tell(Appearance::load(&given)) {
                return;
            }
            seen = now;
        }
    };
    std::thread::Builder::new().name("appearance".to_owned()).spawn(watching).map(drop)
}

/// When each of the user's files was last written, and its length.
fn stamps(folder: &Path) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let in_folder = |folder: &Path| {
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let files = in_folder(folder).into_iter().chain(in_folder(&folder.join("themes")));
    let toml = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let mut stamps: Vec<_> = toml
        .filter_map(|path| {
            let found = std::fs::metadata(&path).ok()?;
            Some((path, found.modified().ok(), found.len()))
        })
        .collect();
    stamps.sort();
    stamps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::style_role::Role;

    #[test]
    fn the_command_line_stands_above_the_file_and_the_file_above_the_terminal() {
        let check = |config: &str, change: fn(&mut AppearanceInput), theme: &str, depth, ascii, low| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("config.toml"), config).unwrap();
            let mut given = AppearanceInput { folder: Some(folder.path().to_owned()), ..AppearanceInput::nothing() };
            change(&mut given);
            let found = Appearance::load(&given);
            assert_eq!(found.notes, [""; 0]);
            let of = (found.theme.name.as_str(), found.depth, found.theme.ascii, found.low_bandwidth);
            assert_eq!(of, (theme, depth, ascii, low), "{config}");
        };
        let (rich, none) = (ColourDepth::TrueColour, ColourDepth::None);
        check("", |_| {}, "dark", rich, false, false);
        check("", |given| given.ground = Some(Ground::Light), "light", rich, false, false);
        check("theme = \"dark\"", |given| given.ground = Some(Ground::Light), "dark", rich, false, false);
        check(
            "theme = \"dark\"",
            |given| given.theme = Some("high-contrast".to_owned()),
            "high-contrast",
            rich,
            false,
            false,
        );
        check("ascii = true\nlow_bandwidth = true", |_| {}, "dark", ColourDepth::Colours256, true, true);
        check("colour = \"truecolor\"\nlow_bandwidth = true", |_| {}, "dark", rich, false, true);
        check("colour = \"16\"", |given| given.colour = Some(ColourDepth::None), "monochrome", none, false, false);
        check(
            "theme = \"light\"",
            |given| given.capability.depth = ColourDepth::None,
            "monochrome",
            none,
            false,
            false,
        );
        check("colour = \"truecolor\"", |given| given.capability.depth = ColourDepth::None, "dark", rich, false, false);
        check("", |given| given.capability.unicode = false, "dark", rich, true, false);
        check("ascii = false", |given| given.capability.unicode = false, "dark", rich, false, false);
    }

    #[test]
    fn files_that_are_wrong_are_named_and_files_that_change_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("themes")).unwrap();
        let given = AppearanceInput { folder: Some(folder.path().to_owned()), ..AppearanceInput::nothing() };
        let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
        let empty = stamps(folder.path());
        write("config.toml", "theme = \"mine\"\ntheem = 1");
        write("keys.toml", "hepl = \"x\"");
        write("themes/mine.toml", "[roles]\nbad = \"#010203\"\nworse = 1");
        assert_ne!(stamps(folder.path()), empty);
        let found = Appearance::load(&given);
        assert_eq!(found.notes.len(), 3, "{:?}", found.notes);
        for (note, place) in
            found.notes.iter().zip(["config.toml line 2: ", "keys.toml line 1: ", "themes/mine.toml line 3: "])
        {
            assert!(note.contains(place), "{note}");
        }
        assert_eq!(found.files.len(), 3);
        assert_eq!(found.theme.style(Role::Bad).fg, Some(ratatui::style::Color::Rgb(1, 2, 3)));
    }
}
