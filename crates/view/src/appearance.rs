//! Theme, keymap and display options from the command line, the user's files and the terminal, reloaded when a file
//! changes.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::app::Model;
use super::keymap::Keymap;
use super::options::{AppearanceInput, Options};
use super::own_commands::OwnCommand;
use super::settings::{Notifications, Settings};
use super::terminal_capability::{Background, ColourDepth};
use super::theme::Theme;
use super::user_file::UserFile;
use super::{keymap_file, own_command_file, settings, theme_file};

/// How often the user's files are checked.
const LOOK: Duration = Duration::from_secs(2);

/// The theme that follows the terminal's background.
pub const AUTO: &str = "auto";

#[derive(Debug, Clone, PartialEq)]
pub struct Appearance {
    pub theme: Theme,
    pub keymap: Keymap,
    pub depth: ColourDepth,
    /// At most one frame every two seconds.
    pub low_bandwidth: bool,
    pub notifications: Notifications,
    pub mouse: bool,
    pub live_charts: Vec<String>,
    /// The columns of the list of runs.
    pub runs_columns: Option<Vec<String>>,
    pub own_commands: Vec<OwnCommand>,
    /// Problems of the files.
    pub notes: Vec<String>,
    pub files: Vec<PathBuf>,
}

impl Appearance {
    pub fn load(input: &AppearanceInput) -> Self {
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
        let config = open(input.config_file(), &mut notes);
        let (settings, problems) = config
            .as_ref()
            .map_or_else(|| (Settings::default(), Vec::new()), settings::read);
        notes.extend(problems);
        let keys = open(input.keymap_file(), &mut notes)
            .map(|file| keymap_file::read(&file))
            .unwrap_or_default();
        notes.extend(keys.errors.into_iter().chain(keys.warnings));
        let (own_commands, problems) = { config.as_ref() }
            .map(|file| own_command_file::read(file, &keys.keymap))
            .unwrap_or_default();
        notes.extend(problems);
        let low_bandwidth = input.low_bandwidth || settings.low_bandwidth;
        let depth = depth(input, &settings, low_bandwidth);
        let mut read = theme_file::read(
            &theme_name(input, &settings, depth),
            input.themes_folder().as_deref(),
        );
        notes.extend(read.notes);
        files.extend(read.files);
        if input.linear {
            read.theme = Theme::linear();
        }
        read.theme.ascii = input.ascii || settings.ascii.unwrap_or(!input.capability.unicode);
        Self {
            theme: read.theme.at_depth(depth),
            keymap: keys.keymap,
            depth,
            low_bandwidth,
            notifications: settings.notifications,
            mouse: settings.mouse && !input.linear,
            live_charts: settings.live_charts,
            runs_columns: Some(settings.runs_columns).filter(|columns| !columns.is_empty()),
            own_commands,
            notes,
            files,
        }
    }

    pub fn needs_background_query(input: &AppearanceInput) -> bool {
        let file = input
            .config_file()
            .and_then(|path| UserFile::read(&path).ok().flatten());
        let settings = file.map_or_else(Settings::default, |file| settings::read(&file).0);
        let depth = input
            .colour
            .or(settings.colour)
            .unwrap_or(input.capability.depth);
        let unknown = input.background.or(input.capability.background).is_none();
        depth != ColourDepth::None
            && unknown
            && input.capability.answers
            && !input.linear
            && input.theme.as_ref().unwrap_or(&settings.theme) == AUTO
    }

    #[must_use]
    pub fn options(options: Options, input: AppearanceInput) -> Options {
        let Self {
            theme,
            keymap,
            low_bandwidth,
            notifications,
            mouse,
            live_charts,
            runs_columns,
            own_commands,
            notes,
            ..
        } = Self::load(&input);
        let remote = input.capability.remote;
        let appearance = input;
        Options {
            theme,
            keymap,
            low_bandwidth,
            notifications,
            mouse,
            live_charts,
            runs_columns,
            own_commands,
            notes,
            remote,
            appearance,
            ..options
        }
    }

    pub fn apply(self, model: &mut Model) {
        model.shared.theme = self.theme;
        model.shared.keymap = self.keymap;
        model.shared.options.low_bandwidth = self.low_bandwidth;
        model.shared.options.notifications = self.notifications;
        model.shared.options.mouse = self.mouse;
        model.shared.options.live_charts = self.live_charts;
        model.shared.options.runs_columns = self.runs_columns;
        model.shared.options.own_commands = self.own_commands;
        for note in self.notes {
            model.shared.complain(note);
        }
    }
}

/// The configured colour depth, else the environment's; no 24-bit colours over a slow link: up to 19 bytes each.
fn depth(input: &AppearanceInput, settings: &Settings, low_bandwidth: bool) -> ColourDepth {
    match input.colour.or(settings.colour) {
        Some(depth) => depth,
        None if low_bandwidth && input.capability.depth == ColourDepth::TrueColour => {
            ColourDepth::Colours256
        }
        None => input.capability.depth,
    }
}

fn theme_name(input: &AppearanceInput, settings: &Settings, depth: ColourDepth) -> String {
    if depth == ColourDepth::None {
        return "monochrome".to_owned();
    }
    match (
        input.theme.as_ref().unwrap_or(&settings.theme).as_str(),
        input.background.or(input.capability.background),
    ) {
        (AUTO, Some(Background::Light)) => "light".to_owned(),
        (AUTO, _) => "dark".to_owned(),
        (name, _) => name.to_owned(),
    }
}

/// Watches the files on a thread of its own; `on_change` gets the new appearance and returns false to stop.
pub(super) fn watch(
    input: AppearanceInput,
    on_change: impl Fn(Appearance) -> bool + Send + 'static,
) -> std::io::Result<()> {
    let Some(folder) = input.folder.clone() else {
        return Ok(());
    };
    // Read before the thread starts: a file may change meanwhile.
    let mut seen = stamps(&folder);
    let watching = move || {
        loop {
            std::thread::sleep(LOOK);
            let now = stamps(&folder);
            if now != seen && !on_change(Appearance::load(&input)) {
                return;
            }
            seen = now;
        }
    };
    std::thread::Builder::new()
        .name("appearance".to_owned())
        .spawn(watching)
        .map(drop)
}

/// Modification time and length of each of the user's files.
fn stamps(folder: &Path) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let in_folder = |folder: &Path| {
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    let files = in_folder(folder)
        .into_iter()
        .chain(in_folder(&folder.join("themes")));
    let toml = files.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
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
    use crate::style_role::Role;

    #[test]
    fn the_command_line_stands_above_the_file_and_the_file_above_the_terminal() {
        let check =
            |config: &str, change: fn(&mut AppearanceInput), theme: &str, depth, ascii, low| {
                let folder = tempfile::tempdir().unwrap();
                std::fs::write(folder.path().join("config.toml"), config).unwrap();
                let mut input = AppearanceInput {
                    folder: Some(folder.path().to_owned()),
                    ..AppearanceInput::nothing()
                };
                change(&mut input);
                let found = Appearance::load(&input);
                assert_eq!(found.notes, [""; 0]);
                let of = (
                    found.theme.name.as_str(),
                    found.depth,
                    found.theme.ascii,
                    found.low_bandwidth,
                );
                assert_eq!(of, (theme, depth, ascii, low), "{config}");
            };
        let (rich, none) = (ColourDepth::TrueColour, ColourDepth::None);
        check("", |_| {}, "dark", rich, false, false);
        check(
            "",
            |input| input.background = Some(Background::Light),
            "light",
            rich,
            false,
            false,
        );
        check(
            "theme = \"dark\"",
            |input| input.background = Some(Background::Light),
            "dark",
            rich,
            false,
            false,
        );
        check(
            "theme = \"dark\"",
            |input| input.theme = Some("high-contrast".to_owned()),
            "high-contrast",
            rich,
            false,
            false,
        );
        check(
            "ascii = true\nlow_bandwidth = true",
            |_| {},
            "dark",
            ColourDepth::Colours256,
            true,
            true,
        );
        check(
            "colour = \"truecolor\"\nlow_bandwidth = true",
            |_| {},
            "dark",
            rich,
            false,
            true,
        );
        check(
            "colour = \"16\"",
            |input| input.colour = Some(ColourDepth::None),
            "monochrome",
            none,
            false,
            false,
        );
        check(
            "theme = \"light\"",
            |input| input.capability.depth = ColourDepth::None,
            "monochrome",
            none,
            false,
            false,
        );
        check(
            "colour = \"truecolor\"",
            |input| input.capability.depth = ColourDepth::None,
            "dark",
            rich,
            false,
            false,
        );
        check(
            "",
            |input| input.capability.unicode = false,
            "dark",
            rich,
            true,
            false,
        );
        check(
            "ascii = false",
            |input| input.capability.unicode = false,
            "dark",
            rich,
            false,
            false,
        );
    }

    #[test]
    fn files_that_are_wrong_are_named_and_files_that_change_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("themes")).unwrap();
        let input = AppearanceInput {
            folder: Some(folder.path().to_owned()),
            ..AppearanceInput::nothing()
        };
        let write =
            |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
        let empty = stamps(folder.path());
        write("config.toml", "theme = \"mine\"\ntheem = 1");
        write("keys.toml", "hepl = \"x\"");
        write("themes/mine.toml", "[roles]\nbad = \"#010203\"\nworse = 1");
        assert_ne!(stamps(folder.path()), empty);
        let found = Appearance::load(&input);
        assert_eq!(found.notes.len(), 3, "{:?}", found.notes);
        for (note, place) in found.notes.iter().zip([
            "config.toml line 2: ",
            "keys.toml line 1: ",
            "themes/mine.toml line 3: ",
        ]) {
            assert!(note.contains(place), "{note}");
        }
        assert_eq!(found.files.len(), 3);
        assert_eq!(
            found.theme.style(Role::Bad).fg,
            Some(ratatui::style::Color::Rgb(1, 2, 3))
        );
    }
}
