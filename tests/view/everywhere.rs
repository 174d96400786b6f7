//! What holds on every screen.

use super::stage::Stage;

#[test]
fn the_keys_of_the_screens_and_the_mouse_go_there() {
    let mut stage = Stage::new(120, 36);
    let check = |stage: &mut Stage, key: &str, title: &str| {
        stage.keys(key);
        assert_eq!(grpo_tui::view::screens::of(stage.model.screen).title, title, "{key}");
    };
    for (key, title) in
        [("f2", "Schema"), ("f3", "Prompts"), ("f4", "Scores"), ("f5", "Launch"), ("f6", "Live"), ("f7", "Eval"), ("f1", "Runs")]
    {
        check(&mut stage, key, title);
    }
    stage.click(10, 0);
    assert_eq!(grpo_tui::view::screens::of(stage.model.screen).title, "Schema");
}

#[test]
fn actions_have_one_name_and_readable_keys() {
    let mut seen = std::collections::BTreeSet::new();
    for action in grpo_tui::view::action::all() {
        assert!(seen.insert(action.id), "{} stands twice in the table", action.id);
        for key in action.keys {
            let chord = grpo_tui::view::chord::Chord::parse(key).unwrap_or_else(|| panic!("{}: no key is called {key}", action.id));
            assert_eq!(chord.to_string(), *key, "{}", action.id);
        }
    }
}

#[test]
fn nothing_is_drawn_where_there_is_no_room_and_every_size_holds() {
    let mut stage = Stage::new(120, 36);
    for columns in [0, 1, 2, 39, 40, 60, 80, 200] {
        for rows in [0, 1, 2, 9, 10, 24, 60] {
            stage.send(grpo_tui::view::Message::Resize(columns, rows));
            for key in ["f1", "f2", "esc", "f3", "f4", "f5", "esc", "f6", "f7", "?", "esc", "ctrl-p", "esc"] {
                stage.keys(key);
                _ = stage.picture();
            }
        }
    }
}
