//! The user's configuration, `config.toml`: theme, colours, ASCII, bandwidth, notifications, mouse, GPU price.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeArray, DeValue};

use super::terminal_capability::ColourDepth;
use super::user_file::{UserFile, text};
use crate::files::{self, Access};
use crate::run::{GPU_PRICE_KEY, toml_price};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Notifications {
    #[default]
    All,
    /// Bell only.
    Bell,
    None,
}

/// The configuration; missing keys have their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name of a theme; `auto`: dark or light, like the terminal's background.
    pub theme: String,
    /// Colour depth; `None`: detected from the environment.
    pub colour: Option<ColourDepth>,
    /// Whether to draw with ASCII only; `None`: detected from the environment.
    pub ascii: Option<bool>,
    /// At most one frame every two seconds.
    pub low_bandwidth: bool,
    pub notifications: Notifications,
    /// Whether the mouse is captured; without it the terminal's own selection works.
    pub mouse: bool,
    /// The small charts of the live screen; none: the default ones.
    pub live_charts: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let notifications = Notifications::default();
        Self {
            theme: "auto".to_owned(),
            colour: None,
            ascii: None,
            low_bandwidth: false,
            notifications,
            mouse: true,
            live_charts: Vec::new(),
        }
    }
}

#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    /// The possible values, the default first.
    pub values: &'static str,
    pub meaning: &'static str,
    take: fn(&mut Settings, &DeValue<'_>) -> bool,
}

pub const KEYS: [Key; 8] = [
    Key {
        name: "theme",
        values: "\"auto\", or a theme name",
        meaning: "theme; `auto` picks `dark` or `light` by the terminal background (COLORFGBG, else OSC 11)",
        take: |settings, value| set(&mut settings.theme, value.as_str().map(str::to_owned)),
    },
    Key {
        name: "colour",
        values: "\"auto\", \"truecolor\", \"256\", \"16\" or \"none\"",
        meaning: "colour depth; `auto` reads NO_COLOR, COLORTERM and TERM",
        take: |settings, value| {
            let known = value
                .as_str()
                .map(|name| (name == "auto", ColourDepth::from_name(name)));
            let Some((true, depth) | (_, depth @ Some(_))) = known else {
                return false;
            };
            settings.colour = depth;
            true
        },
    },
    Key {
        name: "ascii",
        values: "\"auto\", true or false",
        meaning: "ASCII only, other characters as `?`; `auto` decides by locale and terminal",
        take: |settings, value| match (value.as_bool(), value.as_str()) {
            (None, Some("auto")) => true,
            (Some(ascii), _) => {
                settings.ascii = Some(ascii);
                true
            }
            _ => false,
        },
    },
    Key {
        name: "low_bandwidth",
        values: "false or true",
        meaning: "for slow links: run updates at most every 2 s and within 700 B/s; keys respond at once",
        take: |settings, value| set(&mut settings.low_bandwidth, value.as_bool()),
    },
    Key {
        name: "notifications",
        values: "\"all\", \"bell\" or \"none\"",
        meaning: "when a run ends or an alert is raised: desktop notification (OSC 9, OSC 777) and bell, bell only, or none",
        take: |settings, value| {
            let chosen = match value.as_str() {
                Some("all") => Notifications::All,
                Some("bell") => Notifications::Bell,
                Some("none") => Notifications::None,
                _ => return false,
            };
            settings.notifications = chosen;
            true
        },
    },
    Key {
        name: "mouse",
        values: "true or false",
        meaning: "capture the mouse; if false, the terminal selects text",
        take: |settings, value| set(&mut settings.mouse, value.as_bool()),
    },
    Key {
        name: "live_charts",
        values: "[] or a list of titles and metrics",
        meaning: "small charts of the live screen, such as `[\"loss\", \"time/rollout\"]`; `[]`: the default ones",
        take: |settings, value| set(&mut settings.live_charts, value.as_array().and_then(list)),
    },
    Key {
        name: GPU_PRICE_KEY,
        values: "a number >= 0",
        meaning: "price of an hour of one GPU, in any currency: what `eval`, *Run eval* and `runs promote` take where `--gpu-price-per-hour` is not given; without either, cost is n/a",
        // The commands read it themselves.
        take: |_, value| toml_price(value).is_some(),
    },
];

/// Whether there is a value, which is then the key's.
fn set<T>(key: &mut T, value: Option<T>) -> bool {
    value.map(|value| *key = value).is_some()
}

fn list(values: &DeArray<'_>) -> Option<Vec<String>> {
    values
        .iter()
        .map(|value| text(value).map(str::to_owned))
        .collect()
}

/// Writes a value into the user's file, or removes it; comments and other keys stay. A symbolic link is followed.
pub fn save(path: &Path, name: &str, value: Option<toml_edit::Value>) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let before = match files::read_text(&target) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        before => before.map_err(|error| failed(&error))?,
    };
    let mut document: toml_edit::DocumentMut = before
        .parse()
        .map_err(|error: toml_edit::TomlError| failed(&error))?;
    match value {
        Some(value) => document[name] = toml_edit::value(value),
        None => _ = document.remove(name),
    }
    if let Some(folder) = path.parent() {
        files::ensure_folder(folder, Access::Private).map_err(|error| failed(&error))?;
    }
    let mode = std::fs::metadata(&target)
        .ok()
        .map(|found| found.permissions());
    files::replace_file(&target, document.to_string().as_bytes(), Access::Private)
        .map_err(|error| failed(&error))?;
    mode.map_or(Ok(()), |mode| std::fs::set_permissions(&target, mode))
        .map_err(|error| failed(&error))
}

pub(super) fn read(file: &UserFile) -> (Settings, Vec<String>) {
    let mut settings = Settings::default();
    let table = match file.table() {
        Ok(table) => table,
        Err(error) => return (settings, vec![format!("{error}; using defaults")]),
    };
    let mut notes = Vec::new();
    for (name, value) in table.iter() {
        if name.get_ref() == "command" {
            let gone = "own commands are gone: suspend with ctrl-z and type them";
            notes.push(file.problem(name.span().start, gone));
            continue;
        }
        let Some(key) = KEYS.iter().find(|key| key.name == name.get_ref()) else {
            let suggestion =
                crate::format::did_you_mean(name.get_ref(), KEYS.iter().map(|key| key.name));
            notes.push(file.problem(
                name.span().start,
                &format!("unknown key `{}`{suggestion}", name.get_ref()),
            ));
            continue;
        };
        if !(key.take)(&mut settings, value.get_ref()) {
            let what = format!(
                "`{}` must be {}, not {}: using the default",
                key.name,
                key.values,
                value_text(value)
            );
            notes.push(file.problem_at(value, &what));
        }
    }
    (settings, notes)
}

fn value_text(value: &Spanned<DeValue<'_>>) -> String {
    let kind = value.get_ref().type_str();
    match value.get_ref() {
        DeValue::Integer(number) => return number.to_string(),
        DeValue::Float(number) => return number.to_string(),
        _ => {}
    }
    let article = if kind.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    text(value).map_or_else(|| format!("{article} {kind}"), |text| format!("\"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changes_what_it_names_and_mistakes_are_told() {
        let check = |text: &str, change: fn(&mut Settings), notes: &[&str]| {
            let mut expected = Settings::default();
            change(&mut expected);
            let (found, problems) = read(&UserFile::new("config.toml", text));
            assert_eq!(found, expected, "{text}");
            assert_eq!(problems, notes, "{text}");
        };
        check("", |_| {}, &[]);
        check(
            "theme = \"light\"\nmouse = false",
            |settings| (settings.theme, settings.mouse) = ("light".to_owned(), false),
            &[],
        );
        check(
            "colour = \"256\"\nascii = true",
            |settings| {
                (settings.colour, settings.ascii) = (Some(ColourDepth::Colours256), Some(true))
            },
            &[],
        );
        check("colour = \"auto\"\nascii = \"auto\"", |_| {}, &[]);
        check(
            "low_bandwidth = true",
            |settings| settings.low_bandwidth = true,
            &[],
        );
        check(
            "notifications = \"bell\"",
            |settings| settings.notifications = Notifications::Bell,
            &[],
        );
        check("gpu_price_per_hour = 2.5", |_| {}, &[]);
        let price = "config.toml line 1: `gpu_price_per_hour` must be a number >= 0, not -2.5: using the default";
        check("gpu_price_per_hour = -2.5", |_| {}, &[price]);
        check(
            "live_charts = [\"kl\", \"loss\"]",
            |settings| settings.live_charts = ["kl", "loss"].map(str::to_owned).to_vec(),
            &[],
        );
        let charts = "config.toml line 1: `live_charts` must be [] or a list of titles and metrics, not an array: using the default";
        check("live_charts = [1]", |_| {}, &[charts]);
        check(
            "\nmouses = 1",
            |_| {},
            &["config.toml line 2: unknown key `mouses`; did you mean `mouse`?"],
        );
        check(
            "mouse = 1",
            |_| {},
            &["config.toml line 1: `mouse` must be true or false, not 1: using the default"],
        );
        let colour = "config.toml line 1: `colour` must be \"auto\", \"truecolor\", \"256\", \"16\" or \"none\", not \"7\": using the default";
        check("colour = \"7\"", |_| {}, &[colour]);
        let (found, problems) = read(&UserFile::new("config.toml", "mouse = \n"));
        assert_eq!(found, Settings::default());
        assert!(
            problems.len() == 1 && problems[0].starts_with("config.toml line 1: "),
            "{problems:?}"
        );
    }

    #[test]
    fn a_saved_list_leaves_the_rest_of_the_file_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/config.toml");
        let save_list = |path: &Path, name: &str, values: &[String]| {
            let list = || values.iter().collect::<toml_edit::Array>().into();
            save(path, name, (!values.is_empty()).then(list))
        };
        let list = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        save_list(&path, "live_charts", &list(&["loss"])).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "live_charts = [\"loss\"]\n"
        );
        std::fs::write(&path, "# mine\nmouse = false # by hand\n").unwrap();
        save_list(&path, "live_charts", &list(&["time/rollout", "a \"b\""])).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# mine\nmouse = false # by hand\nlive_charts = "),
            "{text}"
        );
        let (settings, notes) = read(&UserFile::new("config.toml", text.as_str()));
        assert_eq!(
            (settings.live_charts, settings.mouse),
            (list(&["time/rollout", "a \"b\""]), false)
        );
        assert_eq!(notes, [""; 0]);
        save_list(&path, "live_charts", &[]).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "# mine\nmouse = false # by hand\n"
        );
        std::fs::write(&path, "mouse = \n").unwrap();
        let error = save_list(&path, "live_charts", &list(&["loss"])).unwrap_err();
        assert!(error.contains("config.toml: "), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mouse = \n");
    }
}
