//! The palette: actions are found by their names, by what they are called elsewhere, and by letters; the last ones first.

use grpo_tui::view::message::Message;

use super::harness::Stage;

#[test]
fn the_palette_finds_marks_and_says_why_not() {
    let mut stage = Stage::new(80, 24);
    stage.keys("ctrl-p").types("to launch");
    let screen = stage.screen();
    assert!(
        screen.contains("▸ Go to launch") && screen.contains("screen.launch"),
        "{screen}"
    );
    let underlined = |stage: &Stage| {
        let buffer = stage.buffer();
        let marked = buffer
            .content
            .iter()
            .filter(|cell| cell.modifier.contains(ratatui::style::Modifier::UNDERLINED));
        marked
            .map(|cell| cell.symbol().to_owned())
            .collect::<String>()
    };
    assert!(
        underlined(&stage).starts_with("tolaunch"),
        "{}",
        underlined(&stage)
    );
    stage.keys("ctrl-u").types("remove delete a run");
    stage.keys("ctrl-u").types("runs.remove");
    let screen = stage.screen();
    assert!(
        screen.contains("Runs: Delete run  (unavailable)")
            && screen.contains("unavailable: no run selected"),
        "{screen}"
    );
    stage.keys("esc ctrl-p").types("zzzzzz");
    assert!(stage.shows("no matches"));
    let bottom = |stage: &Stage| {
        stage
            .screen()
            .lines()
            .last()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    assert_eq!(bottom(&stage), "enter choose  esc close");
    stage.keys("enter");
    assert_eq!(bottom(&stage), "✗ no matches");
}

/// The title of the first action that the palette finds.
fn first(stage: &mut Stage, words: &str) -> String {
    stage.keys("ctrl-p").types(words);
    first_row(stage)
}

fn first_row(stage: &Stage) -> String {
    let screen = stage.screen();
    // Below title and field of the window; the cursor of the screen may be seen beside it.
    let below = screen
        .lines()
        .skip_while(|line| !line.contains("▸ Palette"))
        .skip(3);
    let row = below
        .filter_map(|line| Some(line.rsplit_once("│▸ ")?.1.to_owned()))
        .next()
        .unwrap_or_default();
    let label = row.split("  ").next().unwrap_or_default();
    label.rsplit(": ").next().unwrap_or_default().to_owned()
}

/// What a user of another program would type finds its action first.
#[test]
fn the_palette_knows_the_usual_words() {
    let every = ["f1", "f2", "f3", "f4", "f5", "f6", "f7"];
    let mut stages = every.map(|screen| {
        let mut stage = Stage::new(120, 36);
        stage.keys(screen).keys("esc ctrl-p");
        (screen, stage)
    });
    let mut check = |screens: &[&str], words: &[&str], title: &str| {
        for (screen, stage) in stages
            .iter_mut()
            .filter(|(screen, _)| screens.contains(screen))
        {
            for word in words {
                // Pasted: a search for each letter would take minutes.
                stage
                    .keys("ctrl-u")
                    .send(Message::Paste((*word).to_owned()));
                assert_eq!(
                    first_row(stage),
                    title,
                    "{screen} {word}\n{}",
                    stage.screen()
                );
            }
        }
    };
    let others = ["f1", "f2", "f4", "f5", "f7"];
    check(&every, &["resume", "continue", "unpause"], "Resume run");
    check(&every, &["pause"], "Toggle pause");
    check(&every, &["stop", "terminate"], "Stop run");
    check(&every, &["kill", "abort"], "Kill run");
    check(&every, &["note", "annotate"], "Add note");
    check(&every, &["comment"], "Add note");
    check(&every, &["tag", "label"], "Edit tags");
    check(&every, &["rename", "rename run"], "Rename run");
    check(&every, &["quit", "exit"], "Quit");
    check(&every, &["help", "keybindings"], "Show help");
    check(&every, &["zoom", "fullscreen"], "Toggle zoom");
    check(&every, &["messages", "notifications"], "Show messages");
    check(&every, &["command log", "cli"], "Show command log");
    check(&every, &["theme", "colours", "dark"], "Choose theme");
    check(&every, &["settings", "preferences"], "Edit settings");
    check(&every, &["soft-wrap", "wrap"], "Toggle soft wrap");
    check(&every, &["goto runs", "go to runs"], "Go to runs");
    check(&["f1", "f2", "f6"], &["launch"], "Go to launch");
    check(&every, &["start", "start run"], "Start run");
    check(&["f1", "f5"], &["new run"], "Start run");
    check(&every, &["smooth", "smoothing", "ema"], "Cycle smoothing");
    check(&every, &["log scale"], "Toggle log scale");
    check(&every, &["lr", "learning rate"], "Set parameters");
    check(
        &["f1", "f2", "f6"],
        &["follow", "tail"],
        "Follow latest step",
    );
    check(&["f1"], &["overlay"], "Overlay marked runs");
    check(&["f2", "f6"], &["overlay"], "Choose overlay runs");
    check(&every, &["redo"], "Redo");
    check(&every, &["new task", "init"], "New task");
    check(&every, &["demo"], "Open recorded run");
    check(&every, &["checkpoint"], "Save checkpoint");
    check(&every, &["diagnostics"], "List problems");
    check(&others[1..], &["undo"], "Undo");
    check(&["f3"], &["undo"], "Undo change of rows");
    check(&["f1"], &["find", "search", "filter"], "Filter runs");
    check(&["f1"], &["delete", "remove", "rm"], "Delete run");
    check(&["f1"], &["sort"], "Sort runs");
    check(&["f1"], &["compare", "diff"], "Compare marked runs");
    check(&["f1"], &["copy", "yank"], "Copy run id");
    check(&["f2"], &["find", "search"], "Find");
    check(&["f2"], &["save", "write"], "Save schema");
    check(&["f2"], &["format", "prettify"], "Format");
    check(&["f2"], &["goto"], "Go to line");
    check(&["f2"], &["diff"], "Show diff");
    check(&["f2"], &["copy", "yank"], "Copy");
    check(&["f3"], &["find", "filter"], "Filter rows");
    check(&["f3"], &["delete", "remove"], "Delete row");
    check(&["f4"], &["delete"], "Delete written completion");
    check(&["f4"], &["sample"], "Sample completions");
    check(&["f5"], &["find", "search"], "Find setting");
    check(&["f5"], &["train"], "Start run");
    check(&["f6"], &["compare", "diff"], "Compare answers");
    check(&["f6"], &["log", "logs"], "Go to log");
    check(&["f7"], &["find", "filter"], "Filter prompts");
    check(&["f7"], &["reload"], "Reload");
    // What belongs to another screen and pane is gone to.
    let mut stage = Stage::new(120, 36);
    stage
        .keys("f2 enter")
        .types("!")
        .keys("esc f5 ctrl-p")
        .types("undo")
        .keys("enter");
    assert!(
        stage.model.shared.screen == grpo_tui::view::Screen::Schema
            && !stage.model.shared.draft.is_changed()
    );
}

#[test]
fn what_is_available_comes_first_and_every_entry_names_its_screen() {
    let rows = |stage: &Stage| -> Vec<String> {
        let screen = stage.screen();
        let inside = screen
            .lines()
            .skip_while(|line| !line.contains("▸ Palette"))
            .skip(3);
        inside
            .filter_map(|line| {
                Some(
                    line.split_once('│')?
                        .1
                        .trim_start_matches('▸')
                        .trim()
                        .to_owned(),
                )
            })
            .collect()
    };
    let mut stage = Stage::new(120, 36);
    stage.keys("f1 ctrl-p");
    assert!(
        stage.shows("Filter: ") && !rows(&stage)[..10].join("\n").contains("(unavailable)"),
        "{}",
        stage.screen()
    );
    stage.types("reload");
    assert!(
        rows(&stage)[0].contains("Eval: Reload"),
        "{}",
        stage.screen()
    );
    // On the smallest screen, too, entries are seen.
    let mut stage = Stage::new(40, 10);
    stage.keys("f1 ctrl-p");
    assert!(stage.shows("▸ Runs: "), "{}", stage.screen());
}

#[test]
fn a_click_takes_a_row_of_the_palette() {
    let mut stage = Stage::new(120, 36);
    stage.keys("ctrl-p").types("go to");
    let screen = stage.screen();
    let row = screen
        .lines()
        .position(|line| line.contains("Go to launch"))
        .unwrap();
    stage.click(40, 2);
    assert!(
        stage.model.shared.popup.is_some(),
        "beside the rows nothing happens"
    );
    stage.click(40, row as u16);
    assert!(
        stage.model.shared.popup.is_none()
            && stage.model.shared.screen == grpo_tui::view::Screen::Launch,
        "{screen}"
    );
    // So does one in any other list.
    stage.keys("c");
    let row = stage
        .screen()
        .lines()
        .position(|line| line.contains("▸ invoice"))
        .unwrap();
    stage.click(20, row as u16);
    assert!(stage.model.shared.popup.is_none());
}

#[test]
fn letters_of_a_title_count_more_than_of_a_description() {
    let mut stage = Stage::new(120, 36);
    assert_eq!(first(&mut stage, "tgllgs"), "Toggle log scale");
    stage.keys("esc");
    assert_eq!(first(&mut stage, "runs.remove"), "Delete run");
}

/// The smallest terminal shows entries beside the details of one.
#[test]
fn entries_are_there_in_the_smallest_terminal() {
    let mut stage = Stage::new(40, 10);
    stage.keys("ctrl-p").types("quit");
    assert!(stage.shows("▸ Quit"), "{}", stage.screen());
    let row = stage
        .screen()
        .lines()
        .position(|line| line.contains("▸ Quit"))
        .unwrap();
    stage.click(10, row as u16);
    assert_eq!(stage.commands.last().map(String::as_str), Some("Quit"));
}
