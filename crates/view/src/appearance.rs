//! Theme, keymap and display options from the command line, the user's files and the terminal.

use std::path::PathBuf;

use super::chosen_theme::{AUTO, chosen_theme};
use super::keymap::Keymap;
use super::options::{AppearanceInput, Options};
use super::settings::{Notifications, Settings};
use super::terminal_capability::ColourDepth;
use super::theme::Theme;
use super::user_file::UserFile;
use super::{keymap_file, settings};

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
        notes.extend(keys.errors);
        let low_bandwidth = input.low_bandwidth || settings.low_bandwidth;
        let (read, depth) = chosen_theme(input, &settings);
        notes.extend(read.notes);
        files.extend(read.files);
        Self {
            theme: read.theme,
            keymap: keys.keymap,
            depth,
            low_bandwidth,
            notifications: settings.notifications,
            mouse: settings.mouse && !input.linear,
            live_charts: settings.live_charts,
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
            notes,
            remote,
            appearance,
            ..options
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::style_role::Role;
    use crate::terminal_capability::Background;

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
    fn files_that_are_wrong_are_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("themes")).unwrap();
        let input = AppearanceInput {
            folder: Some(folder.path().to_owned()),
            ..AppearanceInput::nothing()
        };
        let write =
            |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
        write("config.toml", "theme = \"mine\"\ntheem = 1");
        write("keys.toml", "hepl = \"x\"");
        write("themes/mine.toml", "[roles]\nbad = \"#010203\"\nworse = 1");
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
