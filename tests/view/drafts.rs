//! Tests: what is being written on the prompts screen outlives a crash, and is offered to the next session.

use std::path::{Path, PathBuf};

use grpo_tui::view::drafts::store_now;
use grpo_tui::view::messages::Level;

use super::harness::Stage;

/// On the prompts screen, where no tokens are counted.
fn quick(mut stage: Stage) -> Stage {
    stage.model.prompts.model = Some("/nowhere".to_owned());
    stage.keys("f3");
    stage
}

/// The screen with a task in a folder of the stage, with ten rows of training and one of the other sets; and that
/// folder.
fn few_rows() -> (Stage, PathBuf) {
    let stage = Stage::with(120, 36, |options| {
        crate::program::sample_task(&options.here.join("tasks/invoice"), [10, 1, 1]);
    });
    let folder = stage.folder.path().join("tasks/invoice");
    (quick(stage), folder)
}

fn rows(folder: &Path) -> Vec<String> {
    std::fs::read_to_string(folder.join("train.jsonl"))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn selected_id(stage: &Stage) -> String {
    let prompts = &stage.model.prompts;
    let entry = prompts.entries[prompts.shown[prompts.cursor.index] as usize];
    let open = stage.model.shared.task.as_ref().unwrap();
    open.rows[&entry.set].as_ref().unwrap()[entry.index as usize]
        .id
        .clone()
}

fn second(stage: &mut Stage) {
    stage.tick_after(1000);
}

/// Another session on the same files.
fn again(stage: &Stage) -> Stage {
    let (here, data) = (
        stage.folder.path().to_owned(),
        stage.folder.path().join("data"),
    );
    quick(Stage::with(120, 36, move |options| {
        (options.here, options.data) = (here, data)
    }))
}

/// The files that keep what is being written.
fn draft_files(stage: &Stage) -> Vec<PathBuf> {
    let Ok(found) = std::fs::read_dir(stage.folder.path().join("data/drafts")) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn written(stage: &Stage) -> String {
    stage.model.prompts.editing.as_ref().unwrap().editor.text()
}

fn last_message(stage: &Stage) -> &str {
    &stage.model.shared.notices.all().last().unwrap().text
}

#[test]
fn what_is_being_written_is_kept_and_offered_to_the_next_session() {
    use std::os::unix::fs::PermissionsExt;
    let (mut first, folder) = few_rows();
    first.keys("j v down end").types(" ");
    assert!(draft_files(&first).is_empty());
    second(&mut first);
    let file = draft_files(&first).remove(0);
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = written(&first);
    // Undecided or declined it stays, and is offered once a session.
    let mut next = again(&first);
    assert!(
        next.shows("unsaved draft of expected answer of train-002 from 2027-01-15 ")
            && next.shows(", 7 lines"),
        "{}",
        next.screen()
    );
    next.keys("o");
    assert!(
        last_message(&next).contains(file.to_str().unwrap()),
        "{}",
        last_message(&next)
    );
    next.keys("f1 f3");
    second(&mut next);
    assert!(!next.shows("unsaved draft") && next.model.prompts.editing.is_none());
    // What is written then has a file of its own.
    next.keys("j v").types("[");
    second(&mut next);
    assert_eq!(draft_files(&first).len(), 2);
    next.keys("esc y");
    assert_eq!(draft_files(&first), std::slice::from_ref(&file));
    // Restored it is as it was, in a file of this session: the other one, if it still runs, goes on in its own.
    let mut next = again(&first);
    next.keys("t");
    assert!(!file.exists());
    let file = draft_files(&first).remove(0);
    let editing = next.model.prompts.editing.as_ref().unwrap();
    assert_eq!(
        (editing.editor.text(), editing.editor.cursor()),
        (
            text,
            first
                .model
                .prompts
                .editing
                .as_ref()
                .unwrap()
                .editor
                .cursor()
        )
    );
    assert!(editing.is_changed() && editing.editor.is_json() && file.exists());
    assert_eq!(selected_id(&next), "train-002");
    next.types("\n");
    second(&mut next);
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .contains(&serde_json::to_string(&written(&next)).unwrap())
    );
    next.keys("ctrl-home").types("[").keys("ctrl-o");
    assert!(
        next.model.prompts.editing.is_some() && file.exists(),
        "what is no JSON is not saved"
    );
    next.keys("backspace ctrl-o");
    assert!(next.model.prompts.editing.is_none() && draft_files(&first).is_empty());
    assert_eq!(rows(&folder).len(), 10);
    assert!(!again(&first).shows("unsaved draft"));
}

#[test]
fn only_saving_and_giving_up_remove_what_is_kept() {
    let (mut stage, _) = few_rows();
    for (keys, text) in [("i ctrl-end", "!"), ("a", "Due?"), ("p ctrl-end", "!")] {
        stage.keys(keys).types(text);
        second(&mut stage);
        stage.keys("esc n f1");
        second(&mut stage);
        assert_eq!(draft_files(&stage).len(), 1, "{keys}");
        stage.keys("f3 ctrl-p").types("edit expected").keys("enter");
        assert!(
            last_message(&stage).contains("is unsaved"),
            "{keys}: no other text takes its place"
        );
        stage.keys("esc y");
        assert!(draft_files(&stage).is_empty(), "{keys}");
    }
    stage.keys("i ctrl-end").types("!");
    second(&mut stage);
    stage.keys("ctrl-u");
    second(&mut stage);
    assert!(
        draft_files(&stage).is_empty(),
        "as it was, no unsaved changes"
    );
    // An end without time.
    stage.types("?");
    store_now(&mut stage.model.prompts, &mut stage.model.shared).unwrap();
    let mut next = again(&stage);
    assert!(next.shows("messages of train-001"), "{}", next.screen());
    // Saved, but the file outlived it.
    let file = draft_files(&stage).remove(0);
    next.keys("t");
    let left = std::fs::read(draft_files(&stage).remove(0)).unwrap();
    next.keys("ctrl-o");
    std::fs::write(&file, left).unwrap();
    assert!(!again(&stage).shows("unsaved draft") && draft_files(&stage).is_empty());
}

#[test]
fn a_row_that_changed_moved_or_vanished_meanwhile_is_told() {
    let check = |keys: &str,
                 text: &str,
                 change: fn(Vec<String>) -> Vec<String>,
                 target: &str,
                 saved: fn(&[String])| {
        let (mut first, folder) = few_rows();
        first.keys(keys).types(text);
        second(&mut first);
        std::fs::write(
            folder.join("train.jsonl"),
            change(rows(&folder)).join("\n") + "\n",
        )
        .unwrap();
        let mut next = again(&first);
        assert!(
            next.shows("unsaved draft") && next.shows(target),
            "{target}: {}",
            next.screen()
        );
        next.keys("t");
        assert_eq!(written(&next), written(&first));
        second(&mut next);
        // Once more, as after a second crash.
        let mut next = again(&first);
        next.keys("t ctrl-o");
        assert!(
            draft_files(&first).is_empty(),
            "{target}: {}",
            last_message(&next)
        );
        saved(&rows(&folder));
    };
    let without_first = |rows: Vec<String>| rows[1..].to_vec();
    check(
        "j i ctrl-end",
        "MORE",
        without_first,
        "messages of train-002",
        |rows| {
            assert!(rows[0].contains("train-002") && rows[0].contains("MORE") && rows.len() == 9);
        },
    );
    check(
        "i ctrl-end",
        "MORE",
        without_first,
        "train-001 was deleted from train.jsonl",
        |rows| {
            assert!(rows[8].contains("train-010") && rows[9].starts_with("{\"id\":\"train-001\""));
            assert!(rows[9].contains("MORE") && rows[9].contains("\"expected\":{"));
        },
    );
    check(
        "v ctrl-home",
        " ",
        without_first,
        "train-001 was deleted from train.jsonl",
        |rows| {
            assert!(
                rows[9].contains("\"messages\":[") && rows[9].contains("\"expected\":{\"vendor\""),
                "{}",
                rows[9]
            );
        },
    );
    let changed = |rows: Vec<String>| {
        rows.iter()
            .map(|row| row.replace("\"user\",\"content\":\"", "\"user\",\"content\":\"NEW "))
            .collect()
    };
    check(
        "v ctrl-home",
        " ",
        changed,
        "train-001 has changed since",
        |rows| assert!(rows[0].contains("NEW ")),
    );
    let few = |rows: Vec<String>| rows[..5].to_vec();
    check(
        "j j j j j j j j j a",
        "Due?",
        few,
        "train.jsonl is shorter now",
        |rows| assert!(rows[5].contains("Due?") && rows.len() == 6),
    );
}

#[test]
fn several_texts_are_offered_the_newest_first_and_bad_files_are_named() {
    let (mut first, folder) = few_rows();
    for keys in ["i ctrl-end", "v ctrl-home", "p ctrl-end"] {
        let mut stage = again(&first);
        first.now_ms += 5000;
        stage.now_ms = first.now_ms;
        stage.keys("o o o").keys(keys).types(" ");
        second(&mut stage);
    }
    let files = draft_files(&first);
    let bad = files[0].with_file_name(
        files[0]
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .replace(".json", "0.json"),
    );
    std::fs::write(&bad, "{\"task\":").unwrap();
    let mut next = again(&first);
    let complaint = next
        .model
        .shared
        .notices
        .all()
        .iter()
        .find(|notice| notice.text.contains(bad.to_str().unwrap()))
        .unwrap();
    assert!(
        complaint.text.contains("EOF while parsing") && complaint.level == Level::Complaint,
        "{complaint:?}"
    );
    assert!(next.shows("system prompt"), "{}", next.screen());
    next.keys("o");
    assert!(
        next.shows("expected answer of train-001"),
        "{}",
        next.screen()
    );
    next.keys("t");
    assert!(!next.shows("unsaved draft"));
    next.keys("esc y");
    assert!(
        next.shows("messages of train-001"),
        "after the one that was restored: {}",
        next.screen()
    );
    next.keys("o");
    assert_eq!((draft_files(&first).len(), bad.exists()), (3, true));
    // A set that cannot be read now, and one that the task has no more.
    std::fs::write(folder.join("train.jsonl"), "{\n").unwrap();
    let next = again(&first);
    let failures = |notice: &&grpo_tui::view::messages::Notice| {
        notice.text.contains("not offered") && notice.text.contains("train.jsonl line 1")
    };
    assert_eq!(
        next.model
            .shared
            .notices
            .all()
            .iter()
            .filter(failures)
            .count(),
        1,
        "{}",
        next.screen()
    );
    assert_eq!(draft_files(&first).len(), 3);
}

#[test]
fn what_is_kept_goes_with_the_copy_of_the_sample_and_stays_with_its_task() {
    let mut first = quick(Stage::new(120, 36));
    first.keys("i ctrl-end").types("!");
    second(&mut first);
    let mut next = again(&first);
    next.now_ms += 5000;
    next.keys("o v ctrl-home").types(" ");
    second(&mut next);
    let text = written(&next);
    // Saving the schema makes the copy while a row is being written.
    next.keys("f2 enter").types(" ").keys("esc w f3");
    assert_eq!((written(&next), draft_files(&first).len()), (text, 2));
    second(&mut next);
    let mut last = again(&first);
    assert!(
        last.model
            .shared
            .task
            .as_ref()
            .unwrap()
            .task
            .folder()
            .is_some()
    );
    assert!(
        last.shows("expected answer of train-001"),
        "{}",
        last.screen()
    );
    last.keys("o");
    assert!(last.shows("messages of train-001"), "{}", last.screen());
    last.keys("o");
    // Another task is opened while a text is unsaved, and the first one again.
    next.act(|model| grpo_tui::view::shared::open_task(&model.shared, Some("invoice".to_owned())));
    assert!(
        next.model.prompts.editing.is_none()
            && last_message(&next).contains("is unsaved: draft kept in"),
        "{}",
        last_message(&next)
    );
    let copy = first.folder.path().join("data/tasks/invoice");
    next.act(|model| {
        grpo_tui::view::shared::open_task(&model.shared, Some(copy.display().to_string()))
    });
    assert!(
        next.shows("expected answer of train-001"),
        "{}",
        next.screen()
    );
    next.keys("t");
    assert!(next.model.prompts.editing.as_ref().unwrap().is_changed());
}

#[test]
fn both_screens_ask_by_the_same_keys_and_words() {
    let check = |screen: &str, edit: &str, [file, old, new]: [&str; 3]| {
        let (mut first, folder) = few_rows();
        first.keys(screen).keys(edit).types(" !");
        second(&mut first);
        // Discarding asks.
        let mut next = again(&first);
        next.keys(screen);
        let lines: Vec<String> = next.screen().lines().map(str::to_owned).collect();
        for hint in [
            "t restore draft",
            "o keep saved",
            "X discard draft",
            "d diff",
        ] {
            assert!(lines[2].contains(hint), "{hint}: {}", next.screen());
        }
        next.keys("d");
        assert!(
            next.shows("Current (-) vs draft (+)") && next.shows(" !"),
            "{}",
            next.screen()
        );
        next.keys("esc X n");
        assert_eq!(draft_files(&first).len(), 1);
        // What is discarded is the draft of the question, not a newer one that is found meanwhile.
        let draft = draft_files(&first).remove(0);
        next.keys("X");
        let mut other = again(&first);
        other.now_ms += 5000;
        other.keys(screen).keys("o").keys(edit).types(" ?");
        second(&mut other);
        next.act(|model| grpo_tui::view::shared::open_task(&model.shared, None));
        next.keys("y");
        assert!(
            !draft.exists() && draft_files(&first).len() == 1,
            "{}",
            next.screen()
        );
        next.keys("X y");
        assert!(draft_files(&first).is_empty() && !next.shows("unsaved draft"));
        // The file changes on disk while a text is unsaved: letters are still typed, and nothing is saved before the
        // user has decided.
        for (keys, is_own) in [("alt-t", false), ("alt-t ctrl-u", true), ("alt-o", true)] {
            let mut stage = again(&first);
            let file = folder.join(file);
            let before = std::fs::read_to_string(&file).unwrap();
            stage.keys(screen).keys(edit).types(" !");
            std::fs::write(&file, before.replace(old, new)).unwrap();
            stage.act(|model| grpo_tui::view::shared::open_task(&model.shared, None));
            second(&mut stage);
            assert!(
                stage.shows("file changed on disk while you have unsaved edits"),
                "{keys}: {}",
                stage.screen()
            );
            assert!(
                stage.shows("alt-t load file  alt-o keep edits  alt-d diff"),
                "{keys}: {}",
                stage.screen()
            );
            stage.types("t").keys("ctrl-o");
            assert!(
                last_message(&stage)
                    .contains("two versions exist: alt-t load file, alt-o keep edits, alt-d diff"),
                "{}",
                last_message(&stage)
            );
            stage.keys("alt-d");
            assert!(
                stage.shows("Yours (-) vs file on disk (+)"),
                "{}",
                stage.screen()
            );
            stage.keys("esc").keys(keys);
            let text = if screen == "f2" {
                stage.model.shared.draft.text.clone()
            } else {
                written(&stage)
            };
            assert_eq!(
                (text.contains(" !t"), text.contains("NEW")),
                (is_own, !is_own),
                "{screen} {keys}: {text}"
            );
            std::fs::write(&file, before).unwrap();
        }
    };
    check("f2", "enter", ["schema.json", "\"vendor\"", "\"NEW\""]);
    check(
        "f3",
        "i ctrl-end",
        [
            "train.jsonl",
            "\"user\",\"content\":\"",
            "\"user\",\"content\":\"NEW ",
        ],
    );
}

#[test]
fn sessions_do_not_overwrite_each_other_and_drafts_of_earlier_versions_are_read() {
    let (mut one, folder) = few_rows();
    one.keys("f2 enter").types("one ");
    second(&mut one);
    let mut other = again(&one);
    other.keys("f2 o enter").types("other ");
    store_now(&mut other.model.schema, &mut other.model.shared).unwrap();
    one.types("more ");
    second(&mut one);
    let texts: Vec<String> = draft_files(&one)
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    assert!(
        texts.len() == 2
            && texts.iter().any(|text| text.starts_with("one more "))
            && texts.iter().any(|text| text.starts_with("other "))
    );
    draft_files(&one)
        .iter()
        .for_each(|file| std::fs::remove_file(file).unwrap());
    // One file for all sessions, named for the task and marked by the schema's path.
    let mark =
        &grpo_tui::run::sha256(folder.join("schema.json").display().to_string().as_bytes())[..12];
    let earlier = one
        .folder
        .path()
        .join(format!("data/drafts/invoice-{mark}.json"));
    std::fs::write(&earlier, "{\"earlier\": 1}").unwrap();
    let mut next = again(&one);
    next.keys("f2 t");
    assert!(
        next.model.shared.draft.text == "{\"earlier\": 1}"
            && !earlier.exists()
            && draft_files(&one).len() == 1
    );
}
