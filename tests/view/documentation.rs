//! The tables of docs/view.md and all of docs/keys.md are written from the tables of the source.

use std::fmt::Write;

use grpo_tui::view::action::Scope;
use grpo_tui::view::style_role::Role;
use grpo_tui::view::{app, settings, theme_file};

/// The page of keys: actions in the order of their tables, one table per place.
fn keys() -> String {
    let mut places: Vec<(String, String)> = Vec::new();
    for action in app::actions() {
        let place = match action.scope {
            Scope::Global => "Global".to_owned(),
            Scope::Movement => "Movement".to_owned(),
            Scope::Screen(screen) => app::about(screen).title.to_owned(),
            Scope::Pane(screen, pane) => {
                format!("{}, in the pane {pane}", app::about(screen).title)
            }
        };
        let keys: Vec<String> = action
            .keys
            .iter()
            .map(|key| format!("`{}`", key.replace('|', "\\|")))
            .collect();
        let row = format!(
            "| {} | {} | `{}` |\n",
            keys.join(" "),
            action.title.replace('|', "\\|"),
            action.id
        );
        match places.iter_mut().find(|(name, _)| *name == place) {
            Some((_, rows)) => rows.push_str(&row),
            None => places.push((place, row)),
        }
    }
    let mut text = "# Keys of the workbench\n\nThe defaults; [custom keys](view.md#custom-keys) name actions by id. \
                    Keys of a pane apply while it has the focus.\n"
        .to_owned();
    for (place, rows) in places {
        let _ = write!(
            text,
            "\n## {place}\n\n| keys | does | id |\n|---|---|---|\n{rows}"
        );
    }
    text
}

/// A part of docs/view.md between `<!-- NAME -->` and `<!-- end -->`, as it should be.
fn part(name: &str) -> String {
    let mut text = String::new();
    match name {
        "configuration" => {
            text.push_str("\n| key | values, the default first | meaning |\n|---|---|---|\n");
            for key in &settings::KEYS {
                let _ = writeln!(
                    text,
                    "| `{}` | {} | {} |",
                    key.name, key.values, key.meaning
                );
            }
        }
        "themes" => {
            let names: Vec<String> = theme_file::EMBEDDED
                .iter()
                .map(|(name, _)| format!("`{name}`"))
                .collect();
            let roles: Vec<String> = Role::ALL
                .iter()
                .map(|role| format!("`{}`", role.name()))
                .collect();
            let roles = wrapped(&format!("Roles: {}.", roles.join(", ")));
            let _ = write!(
                text,
                "\nThemes of the program: {}.\n\n{roles}\n",
                names.join(", ")
            );
        }
        other => panic!("no part is called {other}"),
    }
    text
}

/// Prose as pages have it: at most 100 columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        if !line.is_empty() && line.len() + word.len() >= 100 {
            lines.push(word.to_owned());
        } else {
            *line += &format!("{}{word}", if line.is_empty() { "" } else { " " });
        }
    }
    lines.join("\n")
}

/// `UPDATE_DOCS=1 cargo test --test main the_pages_of_the_view` writes them.
#[test]
fn the_pages_of_the_view_agree_with_the_tables() {
    let path = |page: &str| format!("{}/docs/{page}.md", env!("CARGO_MANIFEST_DIR"));
    let mut view = std::fs::read_to_string(path("view")).unwrap();
    for name in ["configuration", "themes"] {
        let (start, end) = (format!("<!-- {name} -->\n"), "<!-- end -->");
        let from = view
            .find(&start)
            .unwrap_or_else(|| panic!("docs/view.md has no {start}"))
            + start.len();
        let to = from
            + view[from..]
                .find(end)
                .unwrap_or_else(|| panic!("{name} has no {end}"));
        view.replace_range(from..to, &format!("{}\n", part(name)));
    }
    for (page, expected) in [("view", view), ("keys", keys())] {
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path(page), expected).unwrap();
            continue;
        }
        assert!(
            std::fs::read_to_string(path(page)).unwrap() == expected,
            "docs/{page}.md is out of date; write it with: UPDATE_DOCS=1 cargo test --test main the_pages_of_the_view"
        );
    }
}
