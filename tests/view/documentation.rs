//! The tables of docs/view.md and all of docs/keys.md are written from the tables of the source.

use std::fmt::Write;

use grpo_tui::view::action::Scope;
use grpo_tui::view::style_role::Role;
use grpo_tui::view::{app, settings, theme_file};

/// Rows by the name of their pane.
type Panes = Vec<(&'static str, Vec<String>)>;

/// The page of keys: a listing in two columns for each screen, and each of its panes.
fn keys() -> String {
    let mut screens: Vec<(&str, Panes)> = Vec::new();
    for action in app::actions() {
        let (screen, pane) = match action.scope {
            Scope::Global => ("Global", ""),
            Scope::Movement => ("Movement", ""),
            Scope::Screen(screen) => (app::about(screen).title, ""),
            Scope::Pane(screen, pane) => (app::about(screen).title, pane),
        };
        let row = format!("{:<18}{}", action.keys.join(" "), action.title);
        entry(entry(&mut screens, screen), pane).push(row);
    }
    let mut text = "# Keys of the workbench\n\n\
                    `grpo-tui keys` lists the same with the ids of the actions, for [custom keys](view.md#custom-keys).\n\
                    Keys of a pane apply while it has the focus.\n"
        .to_owned();
    for (screen, mut panes) in screens {
        panes.sort_by_key(|(pane, _)| !pane.is_empty());
        let _ = write!(text, "\n## {screen}\n\n```\n");
        for (pane, rows) in panes {
            if !pane.is_empty() {
                let gap = if text.ends_with("```\n") { "" } else { "\n" };
                let _ = writeln!(text, "{gap}In the pane {pane}:");
            }
            let (left, right) = rows.split_at(rows.len().div_ceil(2));
            for (at, row) in left.iter().enumerate() {
                let beside = right.get(at).map_or("", String::as_str);
                let _ = writeln!(text, "{}", format!("{row:<56}{beside}").trim_end());
            }
        }
        text.push_str("```\n");
    }
    text
}

/// The value of `name`, added at the end if there is none.
fn entry<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, name: K) -> &mut V {
    let at = list.iter().position(|(known, _)| *known == name);
    let at = at.unwrap_or_else(|| {
        list.push((name, V::default()));
        list.len() - 1
    });
    &mut list[at].1
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
