//! Actions on the user's settings: choose a theme, which applies at once, and open the file, which is read at the next
//! start.

use super::chosen_theme::chosen_theme;
use super::message::{Command, Work};
use super::popup::{Pick, PickEntry, Popup};
use super::settings::Settings;
use super::shared::Shared;
use super::theme::Theme;
use super::user_file::UserFile;
use super::{settings, theme_file};
use crate::files::{self, Access};

pub(super) fn choose_theme(shared: &Shared) -> Vec<Command> {
    let (folder, keys) = (shared.options.appearance.themes_folder(), shared.keys);
    let names = move || theme_file::names(folder.as_deref());
    vec![Work::once(
        "theme.names",
        names,
        move |_: &mut (), shared, names| {
            // A key pressed meanwhile was meant for something else.
            if shared.keys == keys {
                shared.popup = Some(Popup::Pick(list(shared, names)));
            }
            Vec::new()
        },
    )]
}

fn list(shared: &Shared, mut names: Vec<String>) -> Pick {
    names.insert(0, Settings::default().theme);
    let entry = |name: &String| {
        let beside = if *name == names[0] {
            "dark or light, like the terminal's background"
        } else {
            ""
        };
        PickEntry {
            label: name.clone(),
            beside: beside.to_owned(),
            ..PickEntry::default()
        }
    };
    let now = names
        .iter()
        .position(|name| *name == shared.theme.name)
        .unwrap_or(0);
    Pick::new(
        "Theme",
        names.iter().map(entry).collect(),
        now,
        move |_: &mut (), shared: &mut Shared, index| {
            let Some(name) = names.get(index).cloned() else {
                return Vec::new();
            };
            save_theme(shared, name)
        },
    )
}

fn save_theme(shared: &mut Shared, name: String) -> Vec<Command> {
    let input = &shared.options.appearance;
    let Some(file) = input.config_file() else {
        return shared.complain(NO_FOLDER);
    };
    let overridden = input.theme.as_ref().map_or_else(String::new, |theme| {
        format!("; --theme {theme} overrides it")
    });
    let input = input.clone();
    let work = move |_: &_| {
        settings::save(&file, "theme", Some(name.as_str().into()))?;
        let saved = format!("theme {name} saved in {}{overridden}", file.display());
        let settings =
            UserFile::read(&file)?.map_or_else(Settings::default, |file| settings::read(&file).0);
        Ok((saved, chosen_theme(&input, &settings).0.theme))
    };
    vec![Work::latest(
        "theme.save",
        work,
        |_: &mut (), shared: &mut Shared, saved: Result<(String, Theme), String>| match saved {
            Ok((text, theme)) => {
                shared.theme = theme;
                shared.say(text)
            }
            Err(error) => shared.complain(error),
        },
    )]
}

pub(super) fn edit(shared: &mut Shared) -> Vec<Command> {
    let Some(path) = shared.options.appearance.config_file() else {
        return shared.complain(NO_FOLDER);
    };
    let folder = path.parent().map(std::path::Path::to_owned);
    let prepare = move || {
        folder.map_or(Ok(()), |folder| {
            files::ensure_folder(&folder, Access::Private)
        })
    };
    vec![Work::once(
        "settings.edit",
        prepare,
        move |_: &mut (), shared: &mut Shared, prepared| match prepared {
            Ok(()) => vec![Command::Edit { path, line: 1 }],
            Err(error) => shared.complain(format!("{}: {error}", path.display())),
        },
    )]
}

const NO_FOLDER: &str = "no config directory: set HOME or XDG_CONFIG_HOME";
