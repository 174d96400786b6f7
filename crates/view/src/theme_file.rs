//! Theme files: a style for each role in TOML, based on another theme. Invalid entries keep the
//! base theme's style.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ratatui::style::{Color, Modifier, Style};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::colour;
use super::style_role::Role;
use super::theme::Theme;
use super::user_file::{UserFile, text};

pub const EMBEDDED: [(&str, &str); 4] = [
    ("dark", include_str!("../../../themes/dark.toml")),
    ("light", include_str!("../../../themes/light.toml")),
    (
        "high-contrast",
        include_str!("../../../themes/high-contrast.toml"),
    ),
    (
        "monochrome",
        include_str!("../../../themes/monochrome.toml"),
    ),
];

/// Maximum chain of base themes.
const MAX_DEPTH: usize = 8;

const MODIFIERS: [(&str, Modifier); 5] = [
    ("bold", Modifier::BOLD),
    ("faint", Modifier::DIM),
    ("italic", Modifier::ITALIC),
    ("underlined", Modifier::UNDERLINED),
    ("reversed", Modifier::REVERSED),
];

impl Theme {
    /// A theme without colours: only bold, faint, reversed and underlined.
    pub fn monochrome() -> Self {
        Self::embedded("monochrome")
    }

    /// A built-in theme: `dark`, `light`, `high-contrast`, `monochrome`; `dark` for any other name.
    pub fn embedded(name: &str) -> Self {
        read(name, None).theme
    }
}

impl Default for Theme {
    fn default() -> Self {
        static DARK: OnceLock<Theme> = OnceLock::new();
        DARK.get_or_init(|| Self::embedded("dark")).clone()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ThemeRead {
    pub theme: Theme,
    /// Errors in its files, with file and line.
    pub notes: Vec<String>,
    pub files: Vec<PathBuf>,
}

/// Loads a theme by name: from the user's themes, else a built-in one.
pub fn read(name: &str, folder: Option<&Path>) -> ThemeRead {
    let mut found = ThemeRead {
        theme: Theme::new(name, |_| Style::new()),
        notes: Vec::new(),
        files: Vec::new(),
    };
    let mut above = Vec::new();
    load(name, folder, &mut above, &mut found);
    found.theme.name = name.to_owned();
    found
}

pub fn names(folder: Option<&Path>) -> Vec<String> {
    let files = folder
        .and_then(|folder| std::fs::read_dir(folder).ok())
        .into_iter()
        .flatten()
        .flatten();
    let own = files.map(|entry| entry.path()).filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    let own = own.filter_map(|path| {
        path.file_stem()
            .map(|name| name.to_string_lossy().into_owned())
    });
    let mut names: Vec<String> = EMBEDDED
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .chain(own)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Applies a theme's styles after those of its base.
fn load(name: &str, folder: Option<&Path>, above: &mut Vec<String>, found: &mut ThemeRead) {
    let (file, own) = match open(name, folder, above) {
        Ok(Some((file, path))) => (file, path),
        Ok(None) => {
            let known = names(folder);
            let suggestion = crate::format::did_you_mean(name, known.iter().map(String::as_str));
            found.notes.push(format!(
                "unknown theme `{name}`, using dark; available: {}{suggestion}",
                known.join(", ")
            ));
            return load("dark", None, above, found);
        }
        Err(error) => {
            found.notes.push(format!("{error}; using the dark theme"));
            return load("dark", None, above, found);
        }
    };
    let is_own = own.is_some();
    found.files.extend(own);
    let table = match file.table() {
        Ok(table) => table,
        Err(error) => {
            found.notes.push(format!("{error}; using the dark theme"));
            return load("dark", None, above, found);
        }
    };
    above.push(name.to_owned());
    let below = table.get("inherits");
    match below.map(|value| (value, text(value))) {
        // Styles missing from a user's theme are as in `dark`.
        None if is_own => load("dark", None, above, found),
        None => {}
        // A user's `dark` may be based on the built-in one.
        Some((_, Some(below))) if below == name && is_own => load(below, None, above, found),
        Some((value, Some(below)))
            if above.len() >= MAX_DEPTH || above.iter().any(|other| other == below) =>
        {
            found.notes.push(file.problem_at(
                value,
                &format!("`inherits` loops at `{below}`; using the dark theme as base"),
            ));
            load("dark", None, &mut vec![String::new(); MAX_DEPTH], found);
        }
        Some((_, Some(below))) => load(below, folder, above, found),
        Some((value, None)) => found
            .notes
            .push(file.problem_at(value, "`inherits` must be a theme name")),
    }
    styles(&file, &table, found);
}

/// The text of a theme; with a path if it is the user's.
fn open(
    name: &str,
    folder: Option<&Path>,
    above: &[String],
) -> Result<Option<(UserFile, Option<PathBuf>)>, String> {
    // A name, not a path: themes are only read from the themes folder.
    let is_name = !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
    let own = folder
        .filter(|_| is_name && !above.iter().any(|other| other == name))
        .map(|folder| folder.join(format!("{name}.toml")));
    if let Some(path) = own
        && let Some(file) = UserFile::read(&path)?
    {
        return Ok(Some((file, Some(path))));
    }
    let embedded = EMBEDDED.iter().find(|(known, _)| *known == name);
    Ok(embedded.map(|(name, text)| (UserFile::new(format!("theme {name}"), *text), None)))
}

fn styles(file: &UserFile, table: &DeTable<'_>, found: &mut ThemeRead) {
    for (key, value) in table.iter() {
        if !["inherits", "palette", "roles"].contains(&key.get_ref().as_ref()) {
            let what = format!(
                "unknown key `{}`; a theme has `inherits`, `[palette]` and `[roles]`",
                key.get_ref()
            );
            found.notes.push(file.problem(key.span().start, &what));
        } else if key.get_ref() != "inherits" && value.get_ref().as_table().is_none() {
            found
                .notes
                .push(file.problem_at(value, &format!("`{}` must be a table", key.get_ref())));
        }
    }
    let part = |name: &str| table.get(name).and_then(|value| value.get_ref().as_table());
    let palette = part("palette");
    for (key, value) in part("roles").into_iter().flat_map(DeTable::iter) {
        let Some(role) = Role::from_name(key.get_ref()) else {
            let suggestion = crate::format::did_you_mean(
                key.get_ref(),
                Role::ALL.iter().map(|role| role.name()),
            );
            found.notes.push(file.problem(
                key.span().start,
                &format!("unknown role `{}`{suggestion}", key.get_ref()),
            ));
            continue;
        };
        match style(file, palette, value) {
            Ok(style) => found.theme.set(role, style),
            Err(error) => found.notes.push(error),
        }
    }
}

fn style(
    file: &UserFile,
    palette: Option<&DeTable<'_>>,
    value: &Spanned<DeValue<'_>>,
) -> Result<Style, String> {
    if text(value).is_some() || value.get_ref().is_integer() {
        return Ok(Style::new().fg(one_colour(file, palette, value)?));
    }
    let Some(table) = value.get_ref().as_table() else {
        return Err(file.problem_at(
            value,
            "a style is a colour or a table such as { fg = \"red\", bold = true }",
        ));
    };
    let mut style = Style::new();
    for (key, value) in table.iter() {
        let name = key.get_ref().as_ref();
        let modifier = MODIFIERS.iter().find(|(known, _)| *known == name);
        match (name, modifier, value.get_ref()) {
            ("fg", ..) => style = style.fg(one_colour(file, palette, value)?),
            ("bg", ..) => style = style.bg(one_colour(file, palette, value)?),
            (_, Some((_, modifier)), DeValue::Boolean(true)) => {
                style = style.add_modifier(*modifier)
            }
            (_, Some(_), DeValue::Boolean(false)) => {}
            (_, Some(_), _) => {
                return Err(file.problem_at(value, &format!("`{name}` must be true or false")));
            }
            _ => {
                let what = format!(
                    "unknown style key `{name}`; use fg, bg, bold, faint, italic, underlined, reversed"
                );
                return Err(file.problem(key.span().start, &what));
            }
        }
    }
    Ok(style)
}

/// A colour: a name of the theme's palette, or one that [`colour::parse`] reads.
fn one_colour(
    file: &UserFile,
    palette: Option<&DeTable<'_>>,
    value: &Spanned<DeValue<'_>>,
) -> Result<Color, String> {
    let wrong = |at: &Spanned<DeValue<'_>>, value: &str| {
        let what = format!(
            "`{value}` is not a colour; use #rrggbb, a name such as light_red, 0 to 255, or a [palette] name"
        );
        file.problem_at(at, &what)
    };
    if let Some(number) = value.get_ref().as_integer() {
        return colour::parse(number.as_str()).ok_or_else(|| wrong(value, number.as_str()));
    }
    let name = text(value).ok_or_else(|| {
        file.problem_at(
            value,
            "a colour is a string, such as \"#61afef\", or a number up to 255",
        )
    })?;
    match palette.and_then(|palette| palette.get(name)) {
        Some(of_palette) => {
            let value = text(of_palette).ok_or_else(|| {
                file.problem_at(of_palette, "a colour is a string, such as \"#61afef\"")
            })?;
            colour::parse(value).ok_or_else(|| wrong(of_palette, value))
        }
        None => colour::parse(name).ok_or_else(|| wrong(value, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_themes_of_the_program_name_every_role_and_nothing_else() {
        for (name, text) in EMBEDDED {
            let found = read(name, None);
            assert_eq!(found.notes, [""; 0], "{name}");
            let file = UserFile::new(name, text);
            let table = file.table().unwrap();
            if !table.contains_key("inherits") {
                let roles = table.get("roles").unwrap().get_ref().as_table().unwrap();
                for role in Role::ALL {
                    assert!(
                        roles.contains_key(role.name()),
                        "{name} leaves out {}",
                        role.name()
                    );
                }
            }
        }
        let coloured = |role: &&Role| {
            Theme::monochrome().style(**role).fg.is_some()
                || Theme::monochrome().style(**role).bg.is_some()
        };
        assert_eq!(Role::ALL.iter().find(coloured), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_the_rest_is_taken() {
        let check = |text: &str, role: Role, expected: Style, notes: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("mine.toml"), text).unwrap();
            let found = read("mine", Some(folder.path()));
            assert_eq!(found.theme.style(role), expected, "{text}");
            assert_eq!(found.notes.len(), notes.len(), "{text}: {:?}", found.notes);
            for (found, expected) in found.notes.iter().zip(notes) {
                assert!(found.contains(expected), "{text}: {found}");
            }
            assert_eq!(found.files, [folder.path().join("mine.toml")]);
        };
        let dark = |role| Theme::default().style(role);
        check(
            "[roles]\naccent = \"red\"",
            Role::Accent,
            Style::new().fg(Color::Red),
            &[],
        );
        check("[roles]\naccent = \"red\"", Role::Bad, dark(Role::Bad), &[]);
        check(
            "inherits = \"light\"\n[palette]\nsea = \"#102030\"\n[roles]\naccent = { bg = \"sea\", bold = true }",
            Role::Accent,
            Style::new()
                .bg(Color::Rgb(16, 32, 48))
                .add_modifier(Modifier::BOLD),
            &[],
        );
        check(
            "inherits = \"light\"",
            Role::Bad,
            Theme::embedded("light").style(Role::Bad),
            &[],
        );
        check(
            "[roles]\nacent = \"red\"\nbad = 9",
            Role::Bad,
            Style::new().fg(Color::Indexed(9)),
            &["mine.toml line 2: unknown role `acent`; did you mean `accent`?"],
        );
        check(
            "[roles]\naccent = \"rot\"",
            Role::Accent,
            dark(Role::Accent),
            &["mine.toml line 2: `rot` is not a colour"],
        );
        check(
            "[palette]\nsea = \"wet\"\n[roles]\naccent = \"sea\"",
            Role::Accent,
            dark(Role::Accent),
            &["mine.toml line 2: `wet`"],
        );
        check(
            "[roles]\naccent = { bold = 3 }",
            Role::Accent,
            dark(Role::Accent),
            &["line 2: `bold` must be true or false"],
        );
        check(
            "[roles]\naccent = { blink = true }",
            Role::Accent,
            dark(Role::Accent),
            &["line 2: unknown style key `blink`"],
        );
        check(
            "[roles\n",
            Role::Accent,
            dark(Role::Accent),
            &["mine.toml line 1: "],
        );
        check(
            "roles = 3",
            Role::Accent,
            dark(Role::Accent),
            &["line 1: `roles` must be a table"],
        );
        check(
            "inherits = \"mine\"",
            Role::Accent,
            dark(Role::Accent),
            &["unknown theme `mine`"],
        );
        check(
            "inherits = \"sepia\"",
            Role::Accent,
            dark(Role::Accent),
            &["unknown theme `sepia`"],
        );
        check("", Role::Accent, dark(Role::Accent), &[]);
    }

    #[test]
    fn a_ring_of_themes_ends() {
        let folder = tempfile::tempdir().unwrap();
        for (name, below) in [("one", "two"), ("two", "one")] {
            std::fs::write(
                folder.path().join(format!("{name}.toml")),
                format!("inherits = \"{below}\""),
            )
            .unwrap();
        }
        let found = read("one", Some(folder.path()));
        assert_eq!(
            found.theme.style(Role::Bad),
            Theme::default().style(Role::Bad)
        );
        assert!(
            found
                .notes
                .iter()
                .any(|note| note.contains("two.toml line 1: `inherits` loops at `one`")),
            "{:?}",
            found.notes
        );
        // A user's theme is based on the built-in one of the same name.
        std::fs::write(
            folder.path().join("dark.toml"),
            "inherits = \"dark\"\n[roles]\nbad = \"red\"",
        )
        .unwrap();
        let found = read("dark", Some(folder.path()));
        assert_eq!(
            (found.notes.len(), found.theme.style(Role::Bad).fg),
            (0, Some(Color::Red))
        );
        assert_eq!(
            found.theme.style(Role::Good),
            Theme::default().style(Role::Good)
        );
        assert_eq!(
            names(Some(folder.path())),
            ["dark", "high-contrast", "light", "monochrome", "one", "two"]
        );
    }
}
