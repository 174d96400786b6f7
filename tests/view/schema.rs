//! Tests: the schema screen on the real embedded task and on its copies.

mod assistance;

use std::path::PathBuf;

use grpo_tui::score::Tier;
use grpo_tui::view::Message;

use super::harness::Stage;

/// The screen with the embedded task.
fn stage(columns: u16, rows: u16) -> Stage {
    let mut stage = Stage::new(columns, rows);
    stage.keys("f2");
    stage
}

/// The screen with a task in a folder of the stage, and that folder.
fn in_folder(columns: u16, rows: u16) -> (Stage, PathBuf) {
    let mut stage = Stage::with(columns, rows, |options| {
        crate::program::sample_task(&options.here.join("tasks/invoice"), crate::program::ALL);
    });
    stage.keys("f2");
    let folder = stage.folder.path().join("tasks/invoice");
    (stage, folder)
}

fn second(stage: &mut Stage) {
    stage.tick_after(1000);
}

fn schema_of(folder: &std::path::Path) -> String {
    std::fs::read_to_string(folder.join("schema.json")).unwrap()
}

#[test]
fn pictures() {
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = stage(columns, rows);
        // The amount becomes text in the draft: samples change their tier.
        stage.keys("enter down down down down down down end left left left left");
        for _ in 0.."number".len() {
            stage.keys("backspace");
        }
        stage.types("string");
        insta::assert_snapshot!(format!("schema_changed_{columns}x{rows}"), stage.screen());
        stage.types(",");
        insta::assert_snapshot!(format!("schema_broken_{columns}x{rows}"), stage.screen());
    }
}

#[test]
fn typing_moves_the_tiers_and_a_broken_text_leaves_the_last_good_one() {
    let mut stage = stage(120, 36);
    let saved = stage.model.schema.effects.clone().unwrap();
    assert_eq!(
        (saved.total(), saved.moved.len(), saved.saved),
        (21, 0, Some(saved.now))
    );
    stage.keys("enter");
    let text = stage.model.schema.editor.text();
    stage.keys("alt-a").types("{}");
    assert_eq!(stage.model.shared.draft.text, "{}");
    let open = stage.model.schema.effects.clone().unwrap();
    assert!(
        open.now[2] > saved.now[2] && !open.moved.is_empty() && open.reward > saved.reward,
        "{open:?}"
    );
    assert!(
        stage
            .model
            .schema
            .degenerate
            .as_ref()
            .unwrap()
            .iter()
            .any(|finding| finding.completion == "{}" && finding.tier == Tier::Valid),
        "an open schema takes an empty object"
    );
    stage.types("x");
    assert!(stage.model.shared.draft.stale.is_some() && stage.shows("STALE sample scores"));
    assert_eq!(
        stage.model.schema.effects.as_ref(),
        Some(&open),
        "the last good schema keeps scoring"
    );
    stage.keys("ctrl-u ctrl-u");
    assert_eq!(stage.model.shared.draft.text, text);
    assert!(!stage.model.shared.draft.is_changed() && stage.model.shared.draft.stale.is_none());
    assert_eq!(stage.model.schema.effects.as_ref(), Some(&saved));
}

#[test]
fn every_printable_key_types_and_escape_leaves() {
    let mut stage = stage(120, 36);
    stage.keys("enter").types("qz?:1/wendtoRyi[]=u");
    assert!(
        stage
            .model
            .shared
            .draft
            .text
            .starts_with("qz?:1/wendtoRyi[]=u{")
    );
    assert_eq!(stage.model.shared.screen, grpo_tui::view::Screen::Schema);
    stage.keys("tab");
    assert!(
        stage
            .model
            .shared
            .draft
            .text
            .starts_with("qz?:1/wendtoRyi[]=u  {"),
        "tab indents while typing"
    );
    stage.keys("esc tab");
    assert!(!stage.model.schema.typing);
    assert_eq!(stage.model.screen().pane(), "sample scores");
}

#[test]
fn saving_the_embedded_task_makes_a_copy_that_is_worked_on() {
    let mut stage = stage(120, 36);
    stage.keys("enter").types(" ").keys("esc w");
    let copy = stage.folder.path().join("data/tasks/invoice");
    assert!(schema_of(&copy).starts_with(" {"));
    assert_eq!(
        stage.model.shared.task.as_ref().unwrap().task.folder(),
        Some(copy.as_path())
    );
    assert!(!stage.model.shared.draft.is_changed());
    let messages: Vec<&str> = stage
        .model
        .shared
        .notices
        .all()
        .iter()
        .map(|notice| notice.text.as_str())
        .collect();
    assert!(
        messages
            .iter()
            .any(|text| text.contains("embedded task copied to")
                && text.contains("edits are saved there")
                && text.contains("data/tasks/invoice")),
        "{messages:?}"
    );
    assert_eq!(
        grpo_tui::score::Task::load(&copy)
            .unwrap()
            .files()
            .unwrap()
            .len(),
        6
    );
    // A second save stays in the copy, and the next start opens it.
    stage.keys("enter").types(" ").keys("esc w");
    assert!(schema_of(&copy).starts_with("  {"));
    let again = Stage::with(120, 36, |options| {
        options.data = copy.parent().unwrap().parent().unwrap().to_owned()
    });
    assert_eq!(
        again.model.shared.task.as_ref().unwrap().task.folder(),
        Some(copy.as_path())
    );
}

#[test]
fn saving_keeps_the_mode_and_asks_where_the_text_does_not_compile() {
    use std::os::unix::fs::PermissionsExt;
    let (mut stage, folder) = in_folder(120, 36);
    let before = schema_of(&folder);
    std::fs::set_permissions(
        folder.join("schema.json"),
        std::fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    stage.keys("enter").types("x").keys("ctrl-o");
    assert!(stage.model.shared.popup.is_some());
    stage.keys("n");
    assert_eq!(schema_of(&folder), before);
    stage.keys("ctrl-o y");
    assert_eq!(schema_of(&folder), format!("x{before}"));
    assert_eq!(
        std::fs::metadata(folder.join("schema.json"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o640
    );
    assert!(!stage.model.shared.draft.is_changed());
    stage.keys("backspace ctrl-o");
    assert_eq!(schema_of(&folder), before);
    assert_eq!(stage.model.shared.task_error, None);
}

#[test]
fn an_unsaved_text_is_kept_and_offered_to_the_next_session() {
    let (mut first, folder) = in_folder(120, 36);
    first.keys("enter").types("{ ");
    second(&mut first);
    let draft_file = first.model.shared.draft.file.path.clone();
    assert_eq!(
        std::fs::read_to_string(&draft_file).unwrap(),
        first.model.shared.draft.text
    );
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        std::fs::metadata(&draft_file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = first.model.shared.draft.text.clone();
    let start = || {
        let (here, data) = (
            first.folder.path().to_owned(),
            first.folder.path().join("data"),
        );
        let mut stage = Stage::with(120, 36, move |options| {
            (options.here, options.data) = (here, data)
        });
        stage.keys("f2");
        stage
    };
    // Leaving it undecided loses nothing, also over a change of the screen and a second.
    let mut next = start();
    assert!(next.shows("unsaved draft of"));
    next.keys("d");
    assert!(next.shows("+ { {"), "{}", next.screen());
    next.keys("esc enter");
    assert!(!next.model.schema.typing, "typing waits for the decision");
    second(&mut next);
    assert!(draft_file.exists());
    // Taking it.
    let mut next = start();
    next.keys("t");
    assert_eq!(
        (
            next.model.shared.draft.text.as_str(),
            next.model.schema.editor.text().as_str()
        ),
        (text.as_str(), text.as_str())
    );
    let taken = next.model.shared.draft.file.path.clone();
    assert!(next.model.shared.draft.is_changed() && taken.exists() && !draft_file.exists());
    next.keys("V y");
    assert!(!next.model.shared.draft.is_changed());
    assert!(!taken.exists(), "no unsaved changes any more");
    // Discarding it is asked about, and nothing is lost before the answer.
    std::fs::write(&draft_file, &text).unwrap();
    let mut next = start();
    next.keys("X n");
    assert!(draft_file.exists() && next.shows("unsaved draft of"));
    next.keys("X y");
    assert!(!draft_file.exists());
    assert_eq!(next.model.shared.draft.text, schema_of(&folder));
    drop(first);
}

#[test]
fn a_file_changed_on_disk_is_taken_or_asked_about() {
    let (mut stage, folder) = in_folder(120, 36);
    second(&mut stage);
    let file = folder.join("schema.json");
    // Without an unsaved text it is read again.
    std::fs::write(&file, "{\"type\": \"object\"}\n").unwrap();
    second(&mut stage);
    assert_eq!(stage.model.schema.editor.text(), "{\"type\": \"object\"}\n");
    assert!(!stage.model.shared.draft.is_changed());
    // With one the user decides, and saving waits.
    stage.keys("enter").types(" ");
    std::fs::write(&file, "{\"type\": \"array\"}\n").unwrap();
    second(&mut stage);
    assert!(stage.shows("changed on disk"));
    assert!(
        stage.shows("alt-t load file  alt-o keep edits  alt-d diff"),
        "{}",
        stage.screen()
    );
    stage.keys("esc w d");
    assert!(stage.shows("+ {\"type\": \"array\"}"), "{}", stage.screen());
    stage.keys("esc o");
    assert_eq!(stage.model.shared.draft.text, " {\"type\": \"object\"}\n");
    stage.keys("w");
    assert_eq!(schema_of(&folder), " {\"type\": \"object\"}\n");
    // Taking theirs; the own text comes back by undo.
    stage.keys("enter").types("!");
    std::fs::write(&file, "{}\n").unwrap();
    second(&mut stage);
    stage.keys("esc t");
    assert_eq!(
        (
            stage.model.schema.editor.text().as_str(),
            stage.model.shared.draft.is_changed()
        ),
        ("{}\n", false)
    );
    stage.keys("u");
    assert_eq!(stage.model.shared.draft.text, " !{\"type\": \"object\"}\n");
}

#[test]
fn a_change_between_two_looks_is_not_overwritten() {
    let (mut stage, folder) = in_folder(120, 36);
    stage.keys("enter").types(" ");
    std::fs::write(folder.join("schema.json"), "{\"const\": 1}\n").unwrap();
    stage.keys("esc w");
    assert_eq!(schema_of(&folder), "{\"const\": 1}\n", "saving looks first");
    assert!(
        stage.model.shared.draft.theirs.is_some()
            && stage.model.shared.draft.text.starts_with(" {")
    );
}

#[test]
fn an_external_editor_gets_the_file_or_the_unsaved_text() {
    let (mut stage, folder) = in_folder(120, 36);
    stage.keys("down down e");
    assert!(
        stage
            .commands
            .last()
            .unwrap()
            .contains("tasks/invoice/schema.json")
            && stage.commands.last().unwrap().contains("line: 3")
    );
    std::fs::write(folder.join("schema.json"), "{\"const\": 2}\n").unwrap();
    stage.send(Message::Edited(folder.join("schema.json")));
    assert_eq!(stage.model.schema.editor.text(), "{\"const\": 2}\n");
    stage.keys("enter").types(" ").keys("esc e");
    let draft_file = stage.model.shared.draft.file.path.clone();
    assert!(
        stage
            .commands
            .last()
            .unwrap()
            .contains(draft_file.to_str().unwrap()),
        "{:?}",
        stage.commands
    );
    std::fs::write(&draft_file, "{\"const\": 3}\n").unwrap();
    stage.send(Message::Edited(draft_file));
    assert_eq!(stage.model.shared.draft.text, "{\"const\": 3}\n");
    assert_eq!(schema_of(&folder), "{\"const\": 2}\n");
}

#[test]
fn search_lines_faults_and_layout() {
    let mut stage = stage(120, 36);
    stage.keys("/").types("type").keys("enter");
    assert!(stage.model.schema.editor.cursor().0 > 0);
    let first = stage.model.schema.editor.cursor();
    stage.keys("n n N");
    assert!(stage.model.schema.editor.cursor() > first);
    stage.keys("ctrl-g").types("7").keys("enter");
    assert_eq!(stage.model.schema.editor.cursor(), (6, 0));
    stage
        .keys("g enter right")
        .types("\"requried\":1,\"tipe\":2,")
        .keys("esc g ]");
    assert_eq!(stage.model.schema.editor.cursor(), (0, 1));
    stage.keys("]");
    assert_eq!(stage.model.schema.editor.cursor(), (0, 14));
    assert!(stage.shows("`tipe` is not a keyword"), "{}", stage.screen());
    stage.keys("=");
    assert!(
        stage
            .model
            .schema
            .editor
            .text()
            .starts_with("{\n  \"requried\": 1,\n  \"tipe\": 2,\n")
    );
    stage.keys("u alt-a y");
    assert!(stage.commands.last().unwrap().starts_with("Copy("));
    stage.keys("esc [ [ !");
    assert!(stage.shows("did you mean `type`?"), "{}", stage.screen());
}

#[test]
fn the_mouse_sets_the_cursor_and_the_wheel_scrolls() {
    let mut stage = stage(80, 24);
    let long: String = (0..200)
        .map(|number| format!("\n \"k{number}\": 1,"))
        .collect();
    stage.keys("enter right");
    stage.send(Message::Paste(long));
    stage.keys("ctrl-home");
    stage.click(10, 5);
    assert_eq!(stage.model.schema.editor.cursor(), (3, 3));
    stage.keys("ctrl-end");
    assert_eq!(
        stage.model.schema.editor.top(),
        stage.model.schema.editor.lines().len() - 20
    );
    for _ in 0..400 {
        use crossterm::event::{KeyModifiers, MouseEvent, MouseEventKind};
        stage.send(Message::Mouse(MouseEvent {
            kind: MouseEventKind::ScrollUp,
            column: 3,
            row: 5,
            modifiers: KeyModifiers::NONE,
        }));
    }
    assert_eq!(stage.model.schema.editor.top(), 0);
}

#[test]
fn long_lines_wrap_and_cursor_mouse_and_selection_follow_the_screen() {
    use crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
    let mut stage = stage(80, 24);
    let text = format!(
        "{{\"description\": \"{}\",\n\"日本\": 1}}",
        "one two ".repeat(12)
    );
    stage.keys("alt-z enter alt-a");
    stage.send(Message::Paste(text.clone()));
    stage.keys("ctrl-home");
    assert!(
        stage.shows("↪") && stage.shows("two \","),
        "{}",
        stage.screen()
    );
    let cursor = |stage: &Stage| stage.model.schema.editor.cursor();
    stage.keys("down");
    let (row, second) = cursor(&stage);
    assert!(
        row == 0 && second > 20,
        "the next line of the screen is of the same row: {second}"
    );
    stage.keys("end");
    assert_eq!(
        cursor(&stage),
        (0, text.lines().next().unwrap().chars().count())
    );
    stage.keys("ctrl-home down down down down down down up up up up up up");
    assert_eq!(cursor(&stage), (0, 0), "down and up are symmetric");
    // The second line of the screen begins at the pane's sixth column.
    stage.click(6, 3);
    assert_eq!(cursor(&stage), (0, second));
    let mouse = |kind, column, row| {
        Message::Mouse(MouseEvent {
            kind,
            column,
            row,
            modifiers: KeyModifiers::NONE,
        })
    };
    stage.send(mouse(MouseEventKind::Drag(MouseButton::Left), 9, 3));
    assert_eq!(
        stage.model.schema.editor.selected().as_deref(),
        text.get(second..second + 3)
    );
    stage.keys("alt-z ctrl-home down");
    assert!(
        cursor(&stage).0 == 1 && !stage.shows("↪"),
        "{}",
        stage.screen()
    );
}

#[test]
fn an_end_without_time_keeps_the_text_at_once() {
    let mut stage = stage(120, 36);
    stage.keys("enter").types("abc");
    grpo_tui::view::drafts::store_now(&mut stage.model.schema, &mut stage.model.shared).unwrap();
    let draft_file = &stage.model.shared.draft.file.path;
    assert!(
        std::fs::read_to_string(draft_file)
            .unwrap()
            .starts_with("abc{")
    );
}

#[test]
fn every_size_holds_with_every_pane_and_question() {
    let (mut stage, folder) = in_folder(120, 36);
    stage.keys("enter").types("{\u{202e}日本\t").keys("esc");
    second(&mut stage);
    std::fs::write(folder.join("schema.json"), "[]").unwrap();
    second(&mut stage);
    for columns in [0, 1, 3, 39, 40, 60, 71, 72, 80, 110, 200] {
        for rows in [0, 1, 3, 10, 11, 14, 24, 60] {
            stage.send(Message::Resize(columns, rows));
            for key in ["tab", "z", "tab", "G", "k", "tab", "z", "tab"] {
                stage.keys(key);
                _ = stage.screen();
            }
        }
    }
}

#[test]
fn the_expected_answers_that_an_edit_breaks_are_counted_named_and_opened() {
    let (mut stage, folder) = in_folder(120, 36);
    assert!(
        stage.shows("accepts") && stage.shows("expected answers"),
        "{}",
        stage.screen()
    );
    let schema = schema_of(&folder).replace(
        "\"type\": \"number\"",
        "\"type\": \"number\", \"maximum\": 1000",
    );
    stage.keys("enter alt-a");
    stage.send(Message::Paste(schema));
    let found = stage.model.schema.rejections.clone().unwrap();
    assert!(
        found.is_done() && found.rejected > 0 && found.new == Some(found.rejected),
        "{found:?}"
    );
    // Counted another way: the amounts above the bound.
    let above = |row: &&grpo_tui::dataset::PromptRow| {
        row.expected.as_ref().is_some_and(|answer| {
            answer["amount"]
                .as_f64()
                .is_some_and(|amount| amount > 1000.0)
        })
    };
    let open = stage.model.shared.task.clone().unwrap();
    let rows = || open.rows.values().flat_map(|rows| rows.as_ref().unwrap());
    assert_eq!(found.rejected, rows().filter(above).count());
    assert_eq!(
        found.total,
        rows().filter(|row| row.expected.is_some()).count()
    );
    let first = &found.rows[0];
    assert!(
        stage.shows(&format!(
            "rejects {} of {} expected answers",
            found.rejected, found.total
        )),
        "{}",
        stage.screen()
    );
    assert!(
        stage.shows(&format!("{} line", first.set.name())) && stage.shows("by this edit"),
        "{}",
        stage.screen()
    );
    stage.keys("alt-r");
    assert!(
        stage.shows("Rejected expected answers") && stage.shows("/amount"),
        "{}",
        stage.screen()
    );
    stage.types(&first.id).keys("enter");
    assert_eq!(stage.model.shared.screen, grpo_tui::view::Screen::Prompts);
    let row = rows().find(|row| row.id == first.id).unwrap();
    assert_eq!(row.line, first.line);
    assert!(stage.shows(&first.id), "{}", stage.screen());
    // Saved, they are rejected by the saved schema too.
    stage.keys("f2 ctrl-o");
    let saved = stage.model.schema.rejections.clone().unwrap();
    assert_eq!(
        (saved.rejected, saved.new, saved.mended),
        (found.rejected, Some(0), 0)
    );
    stage.keys("enter alt-a").types("{}");
    let open = stage.model.schema.rejections.clone().unwrap();
    assert_eq!((open.rejected, open.mended), (0, found.rejected));
    assert!(stage.shows("more than saved"), "{}", stage.screen());
}

#[test]
fn the_reward_hacking_check_is_visible_at_80x24() {
    let stage = stage(80, 24);
    assert!(
        stage.shows("reward-hacking check") && stage.shows("no degenerate answer scores as high"),
        "{}",
        stage.screen()
    );
    assert!(
        stage.shows("sample scores") && stage.shows("expected answers"),
        "{}",
        stage.screen()
    );
}

/// The whole formula, its highest value beside the rewards of degenerate answers.
#[test]
fn the_reward_is_told_as_a_formula() {
    let mut stage = Stage::new(160, 60);
    stage.keys("f2");
    let screen: String = stage.screen().split_whitespace().collect();
    let formula = "reward=tier+1xshareofexpectedfields(atmost2.00)";
    assert!(screen.contains(formula), "{}", stage.screen());
    assert!(stage.shows("correct one, 2.00"), "{}", stage.screen());
}
