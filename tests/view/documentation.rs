//! docs/view.md says what the program does: its tables are written from the tables of the source.

use std::fmt::Write;

use grpo_tui::view::action::Scope;
use grpo_tui::view::style_role::Role;
use grpo_tui::view::{app, settings, theme_file};

/// A part of the page between `<!-- NAME -->` and `<!-- end -->`, as it should be.
fn part(name: &str) -> String {
    let mut text = String::new();
    match name {
        "keys" => {
            let mut last = None;
            for action in app::actions() {
                let place = match action.scope {
                    Scope::Global => "Global".to_owned(),
                    Scope::Movement => "Movement".to_owned(),
                    Scope::Screen(screen) => app::about(screen).title.to_owned(),
                    Scope::Pane(screen, pane) => format!("{}, in the pane {pane}", app::about(screen).title),
                };
                if last.as_ref() != Some(&place) {
                    let _ = write!(text, "\n### {place}\n\n| keys | does | id |\n|---|---|---|\n");
                    last = Some(place);
                }
                let keys: Vec<String> =
                    action.keys.iter().map(|key| format!("`{}`", key.replace('|', "\\|"))).collect();
                let _ =
                    writeln!(text, "| {} | {} | `{}` |", keys.join(" "), action.title.replace('|', "\\|"), action.id);
            }
        }
        "configuration" => {
            text.push_str("\n| key | values, the default first | meaning |\n|---|---|---|\n");
            for key in &settings::KEYS {
                let _ = writeln!(text, "| `{}` | {} | {} |", key.name, key.values, key.meaning);
            }
        }
        "themes" => {
            let names: Vec<String> = theme_file::EMBEDDED.iter().map(|(name, _)| format!("`{name}`")).collect();
            let roles: Vec<String> = Role::ALL.iter().map(|role| format!("`{}`", role.name())).collect();
            let _ = write!(text, "\nThemes of the program: {}.\n\nRoles: {}.\n", names.join(", "), roles.join(", "));
        }
        other => panic!("no part is called {other}"),
    }
    text
}

/// `UPDATE_DOCS=1 cargo test --test main the_page_of_the_view` writes it.
#[test]
fn the_page_of_the_view_agrees_with_the_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/view.md");
    let found = std::fs::read_to_string(path).unwrap();
    let mut expected = found.clone();
    for name in ["keys", "configuration", "themes"] {
        let (start, end) = (format!("<!-- {name} -->\n"), "<!-- end -->");
        let from = expected.find(&start).unwrap_or_else(|| panic!("docs/view.md has no {start}")) + start.len();
        let to = from + expected[from..].find(end).unwrap_or_else(|| panic!("{name} has no {end}"));
        expected.replace_range(from..to, &format!("{}\n", part(name)));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &expected).unwrap();
        return;
    }
    assert!(
        found == expected,
        "docs/view.md is out of date; write it with: UPDATE_DOCS=1 cargo test --test main the_page_of_the_view"
    );
}
