//! What holds on every screen.

use super::harness::Stage;

#[test]
fn the_keys_of_the_screens_and_the_mouse_go_there() {
    let mut stage = Stage::new(120, 36);
    let check = |stage: &mut Stage, key: &str, title: &str| {
        stage.keys(key);
        assert_eq!(stage.model.screen().about().title, title, "{key}");
    };
    for (key, title) in [
        ("f2", "Schema"),
        ("f3", "Prompts"),
        ("f4", "Scores"),
        ("f5", "Launch"),
        ("f6", "Live"),
        ("f7", "Eval"),
        ("f1", "Runs"),
    ] {
        check(&mut stage, key, title);
    }
    stage.click(10, 0);
    assert_eq!(stage.model.screen().about().title, "Schema");
}

#[test]
fn actions_have_one_name_and_readable_keys() {
    let mut seen = std::collections::BTreeSet::new();
    for action in grpo_tui::view::app::actions() {
        assert!(
            seen.insert(action.id),
            "{} stands twice in the table",
            action.id
        );
        for key in action.keys {
            let chord = grpo_tui::view::key_chord::Chord::parse(key)
                .unwrap_or_else(|| panic!("{}: no key is called {key}", action.id));
            assert_eq!(chord.to_string(), *key, "{}", action.id);
        }
    }
}

/// Letters that start, delete, stop and trust: hands remember them from one screen to the next.
#[test]
fn letters_with_consequences_mean_the_same_on_every_screen() {
    for letter in ["L", "D", "T", "x", "R"] {
        let meanings: std::collections::BTreeSet<&str> = grpo_tui::view::app::actions()
            .filter(|action| action.keys.contains(&letter))
            .map(|action| action.title)
            .collect();
        assert!(meanings.len() <= 1, "{letter}: {meanings:?}");
    }
    let saves = grpo_tui::view::app::actions().filter(|action| action.keys.contains(&"ctrl-o"));
    for action in saves {
        assert!(
            action.aliases.contains(&"save") || action.title == "Save",
            "{}",
            action.title
        );
    }
}

/// Coming back to a screen, its keys are commands again.
#[test]
fn typing_ends_where_another_screen_is_shown() {
    for (typing, key) in [
        ("f2 enter", "f2"),
        ("f3 /", "f3"),
        ("f4 /", "f4"),
        ("f5 /", "f5"),
    ] {
        let mut stage = Stage::new(120, 36);
        stage.keys(typing);
        assert!(stage.model.takes_text(), "{typing}");
        let next = if key == "f4" { "f1" } else { "f4" };
        let draft = stage.model.shared.draft.text.clone();
        stage.keys(next).keys(key);
        assert!(!stage.model.takes_text(), "{typing}");
        stage.keys("7");
        assert_eq!(stage.model.screen().about().title, "Eval", "{typing}");
        assert_eq!(stage.model.shared.draft.text, draft, "{typing}");
    }
}

#[test]
fn nothing_is_drawn_where_there_is_no_room_and_every_size_holds() {
    let mut stage = Stage::new(120, 36);
    for columns in [0, 1, 2, 39, 40, 60, 80, 200] {
        for rows in [0, 1, 2, 9, 10, 24, 60] {
            stage.send(grpo_tui::view::Message::Resize(columns, rows));
            for key in [
                "f1", "f2", "esc", "f3", "f4", "f5", "esc", "f6", "f7", "?", "esc", "ctrl-p", "esc",
            ] {
                stage.keys(key);
                _ = stage.screen();
            }
        }
    }
}

/// Everything that a popup shows while it is scrolled from its top to its end.
fn whole(stage: &mut Stage) -> String {
    let mut text = String::new();
    for _ in 0..200 {
        let screen = stage.screen();
        text.push_str(&screen);
        stage.keys("j");
        if stage.screen() == screen {
            break;
        }
    }
    text
}

#[test]
fn help_names_every_action_of_every_screen_at_every_width() {
    for (columns, rows) in [(120, 36), (80, 24), (60, 20), (40, 15)] {
        for screen in ["f1", "f2", "f3", "f4", "f5", "f6", "f7"] {
            let mut stage = Stage::new(columns, rows);
            stage.keys(screen);
            // Out of a text field, in which `?` is a letter.
            stage.keys("esc ?");
            let help = whole(&mut stage);
            let words: String = help
                .chars()
                .map(|letter| {
                    if letter.is_alphanumeric() {
                        letter
                    } else {
                        ' '
                    }
                })
                .collect();
            let words: std::collections::BTreeSet<&str> = words.split_whitespace().collect();
            for action in stage.model.actions_here() {
                for word in action
                    .title
                    .split(|letter: char| !letter.is_alphanumeric())
                    .filter(|word| !word.is_empty())
                {
                    assert!(
                        words.contains(word),
                        "{columns} {screen}: `{word}` of {} is missing in\n{help}",
                        action.id
                    );
                }
            }
        }
    }
}

#[test]
fn help_tells_behind_each_action_why_it_cannot_be_done_now() {
    let mut stage = Stage::new(110, 60);
    stage.keys("?");
    let help = stage.screen();
    let line = |title: &str| {
        help.lines()
            .position(|line| line.contains(title))
            .unwrap_or_else(|| panic!("{title}\n{help}"))
    };
    let of_line = |title: &str, below: usize| {
        help.lines()
            .nth(line(title) + below)
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        !of_line("Sort runs", 0).contains("unavailable")
            && !of_line("Sort runs", 1).contains("unavailable"),
        "{help}"
    );
    // A reason is given once, above all that it blocks.
    let reason = line("unavailable: no run selected");
    assert!(
        reason < line("Open run") && reason < line("Toggle mark"),
        "{help}"
    );
    assert_eq!(
        help.matches("unavailable: no run selected").count(),
        1,
        "{help}"
    );
}

#[test]
fn a_key_without_an_action_says_so() {
    let bottom = |stage: &Stage| {
        stage
            .screen()
            .lines()
            .last()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    for (screen, keys) in [("f1", "Y"), ("f4", "Y"), ("f6", "alt-q"), ("f7", "alt-q")] {
        let mut stage = Stage::new(120, 36);
        stage.keys(screen).keys(keys);
        assert_eq!(
            bottom(&stage),
            format!("▲ {keys} has no action here: ? lists the keys"),
            "{screen}"
        );
        // What moves, and what is typed, is not an action.
        stage.keys("j");
        assert!(
            !bottom(&stage).contains("has no action"),
            "{screen}: {}",
            bottom(&stage)
        );
    }
    let mut stage = Stage::new(120, 36);
    stage.keys("f2 enter").types("Y");
    assert!(
        stage.model.shared.notices.all().is_empty(),
        "{}",
        bottom(&stage)
    );
}

#[test]
fn a_click_on_a_hint_is_its_key() {
    let mut stage = Stage::new(120, 36);
    let click = |stage: &mut Stage, hint: &str| {
        let screen = stage.screen();
        let bottom = screen.lines().last().unwrap_or_default();
        let before = bottom
            .find(hint)
            .unwrap_or_else(|| panic!("{hint}\n{screen}"));
        stage.click(bottom[..before].chars().count() as u16, 35);
    };
    click(&mut stage, "ctrl-p palette");
    assert!(stage.shows("▸ Palette"), "{}", stage.screen());
    click(&mut stage, "esc close");
    assert!(stage.model.shared.popup.is_none(), "{}", stage.screen());
    click(&mut stage, "? help");
    assert!(stage.shows("Help: Runs"), "{}", stage.screen());
    stage.keys("esc");
    stage.click(90, 35);
    assert!(
        stage.model.shared.popup.is_none(),
        "the gap before help is not a hint: {}",
        stage.screen()
    );
    // A message is shown whole.
    stage.keys("Y");
    stage.click(20, 35);
    assert!(stage.shows("▸ Messages"), "{}", stage.screen());
}

#[test]
fn no_hint_names_a_key_that_a_text_field_takes() {
    let bottom = |stage: &Stage| stage.screen().lines().last().unwrap_or_default().to_owned();
    // A filter of one line takes enter for itself, an editor the tab key, too.
    for (keys, before, after) in [
        ("f1", "enter ", "/"),
        ("f2", "enter edit", "enter"),
        ("f2", "tab pane", "enter"),
    ] {
        let mut stage = Stage::with(200, 36, |options| {
            crate::program::copy_tree(
                &super::harness::finished_run(),
                &options.here.join("runs/20261120-120000-invoice-done01"),
            );
        });
        stage.keys(keys);
        assert!(
            bottom(&stage).contains(before),
            "{keys}: {}",
            bottom(&stage)
        );
        stage.keys(after);
        assert!(
            !bottom(&stage).contains(before) && bottom(&stage).contains("ctrl-p palette"),
            "{keys}: {}",
            bottom(&stage)
        );
    }
}

#[test]
fn letters_beyond_ascii_are_not_drawn_where_only_ascii_may_be() {
    let mut stage = Stage::new(120, 36);
    stage.model.shared.theme.ascii = true;
    for screen in ["f1", "f2", "f3", "f4", "f5", "f6", "f7"] {
        stage.keys(screen);
        stage.model.shared.say("größer → 語 …");
        assert!(
            stage.screen().is_ascii() && stage.shows("gr??er > ?"),
            "{}",
            stage.screen()
        );
    }
}

#[test]
fn the_way_to_help_and_the_news_are_seen_at_every_width() {
    for columns in [160, 120, 100, 80, 60, 40] {
        let mut stage = Stage::new(columns, 24);
        stage.keys("f1");
        let bottom = |stage: &Stage| stage.screen().lines().last().unwrap_or_default().to_owned();
        assert!(
            bottom(&stage).ends_with("? help"),
            "{columns}: {}",
            bottom(&stage)
        );
        assert!(stage.screen().lines().next().unwrap().contains("[1 Runs]"));
        stage.model.shared.complain("a long complaint about something that went wrong and needs many words, more than any line has, to be line in full, with its cause, its place and what to do next about it");
        let line = bottom(&stage);
        assert!(
            line.contains("✗ a long compl") && line.trim_end().ends_with("alt-n more"),
            "{columns}: {line}"
        );
        stage.keys("alt-n");
        assert!(stage.shows("Messages"));
    }
}

#[test]
fn leaving_with_unsaved_texts_is_asked_about() {
    let quits = |stage: &Stage| {
        stage
            .commands
            .iter()
            .filter(|command| command.as_str() == "Quit")
            .count()
    };
    let mut stage = Stage::new(120, 36);
    stage.keys("q");
    assert_eq!(quits(&stage), 1, "no unsaved changes");
    stage.keys("f2 enter").types("!").keys("esc q");
    assert!(
        quits(&stage) == 1 && stage.shows("Unsaved: schema."),
        "{}",
        stage.screen()
    );
    stage.keys("n");
    assert!(stage.model.shared.popup.is_none() && stage.model.shared.draft.is_changed());
    stage.keys("q y");
    assert_eq!(quits(&stage), 2);
    // The same key once more insists, also over another question, which is not lost.
    stage.model.shared.popup = None;
    stage.keys("ctrl-g").types("7").keys("ctrl-c");
    assert!(quits(&stage) == 2 && stage.shows("Quit with unsaved changes?"));
    stage.keys("n");
    assert!(stage.shows("Go to line"), "{}", stage.screen());
    stage.keys("ctrl-c ctrl-c");
    assert_eq!(quits(&stage), 3);
    let mut stage = Stage::new(120, 36);
    stage.keys("f3 i").types("!").keys("ctrl-c");
    assert!(
        quits(&stage) == 0 && stage.shows("Unsaved: messages."),
        "{}",
        stage.screen()
    );
}

/// A key has the meaning of the nearest scope, in the hints and in the help.
#[test]
fn hints_and_help_leave_out_keys_that_the_pane_uses_for_something_else() {
    let mut stage = Stage::with(200, 60, |options| {
        crate::program::copy_tree(
            &super::harness::finished_run(),
            &options.here.join("runs/20261120-120000-invoice-done01"),
        );
    });
    let bottom = |stage: &Stage| stage.screen().lines().last().unwrap_or_default().to_owned();
    assert!(
        bottom(&stage).contains(" / filter ") && bottom(&stage).contains(" space mark "),
        "{}",
        bottom(&stage)
    );
    for screen in ["f1", "f2", "f3", "f4", "f5", "f6", "f7"] {
        stage.keys("esc").keys(screen);
        for _ in 0..stage.model.screen().about().panes.len() {
            stage.keys("tab");
            for (action, keys) in stage.model.keys_here() {
                let meant = |key| stage.model.action_of(key).map(|action| action.id);
                assert!(
                    keys.iter().all(|key| meant(*key) == Some(action.id)),
                    "{screen} {}",
                    action.id
                );
            }
        }
    }
}

/// Of several warnings at the start the last is in the bottom line, with the key that shows all.
#[test]
fn warnings_of_the_start_are_counted_and_listed() {
    let mut stage = Stage::with(80, 24, |options| {
        options.notes = ["keys.toml line 2: first", "config.toml line 3: second"]
            .map(str::to_owned)
            .to_vec();
    });
    let bottom = |stage: &Stage| stage.screen().lines().last().unwrap().to_owned();
    assert!(
        bottom(&stage).contains("second") && bottom(&stage).ends_with("alt-n 1 more"),
        "{}",
        bottom(&stage)
    );
    stage.keys("alt-n");
    assert!(
        stage.shows("first") && stage.shows("second"),
        "{}",
        stage.screen()
    );
    stage.keys("esc");
    assert!(!bottom(&stage).contains("second"), "{}", bottom(&stage));
}
