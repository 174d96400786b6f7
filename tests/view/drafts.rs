//! Tests: what is being written on the prompts screen outlives a crash, and is offered to the next session.

use std::path::{Path, PathBuf};

use grpo_tui::view::Message;
use grpo_tui::view::messages::Level;
use grpo_tui::view::screens;

use super::harness::Stage;

/// On the prompts screen, where no tokens are counted.
fn quick(mut stage: Stage) -> Stage {
    stage.model.prompts.model = Some("/nowhere".to_owned());
    stage.keys("f3");
    stage
}

/// The screen with a task in a folder of the stage, with ten rows of training and one of the other sets; and that folder.
fn few_rows() -> (Stage, PathBuf) {
    let stage = Stage::with(120, 36, |options| {
        crate::program::sample_task(&options.here.join("tasks/invoice"), [10, 1, 1]);
    });
    let folder = stage.folder.path().join("tasks/invoice");
    (quick(stage), folder)
}

fn rows(folder: &Path) -> Vec<String> {
    std::fs::read_to_string(folder.join("train.jsonl")).unwrap().lines().map(str::to_owned).collect()
}

fn selected_id(stage: &Stage) -> String {
    let prompts = &stage.model.prompts;
    let entry = prompts.entries[prompts.shown[prompts.cursor.index] as usize];
    let open = stage.model.shared.task.as_ref().unwrap();
    open.rows[&entry.set].as_ref().unwrap()[entry.index as usize].id.clone()
}

fn second(stage: &mut Stage) {
    stage.now_ms += 1000;
    stage.send(Message::Tick);
}

/// Another session on the same files.
fn again(stage: &Stage) -> Stage {
    let (here, data) = (stage.folder.path().to_owned(), stage.folder.path().join("data"));
    quick(Stage::with(120, 36, move |options| (options.here, options.data) = (here, data)))
}

/// The files that keep what is being written.
fn kept(stage: &Stage) -> Vec<PathBuf> {
    let Ok(found) = std::fs::read_dir(stage.folder.path().join("data/drafts")) else { return Vec::new() };
    let mut found: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn written(stage: &Stage) -> String {
    stage.model.prompts.editing.as_ref().unwrap().editor.text()
}

fn said(stage: &Stage) -> &str {
    &stage.model.shared.notices.all().last().unwrap().text
}

#[test]
fn what_is_being_written_is_kept_and_offered_to_the_next_session() {
    use std::os::unix::fs::PermissionsExt;
    let (mut first, folder) = few_rows();
    first.keys("j x down end").types(" ");
    assert!(kept(&first).is_empty());
    second(&mut first);
    let file = kept(&first).remove(0);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = written(&first);
    // Undecided or declined it stays, and is offered once a session.
    let mut next = again(&first);
    assert!(next.shows("Draft: expected answer of train-002.") && next.shows("7 lines, saved 2027-01-15 "), "{}", next.picture());
    next.keys("n");
    assert!(said(&next).contains(file.to_str().unwrap()), "{}", said(&next));
    next.keys("f1 f3");
    second(&mut next);
    assert!(next.model.shared.popup.is_none() && next.model.prompts.editing.is_none());
    // What is written then has a file of its own.
    next.keys("j x").types("[");
    second(&mut next);
    assert_eq!(kept(&first).len(), 2);
    next.keys("esc y");
    assert_eq!(kept(&first), std::slice::from_ref(&file));
    // Taken up it is as it was, and its file goes once it is saved.
    let mut next = again(&first);
    next.keys("y");
    let editing = next.model.prompts.editing.as_ref().unwrap();
    assert_eq!((editing.editor.text(), editing.editor.cursor()), (text, first.model.prompts.editing.as_ref().unwrap().editor.cursor()));
    assert!(editing.is_changed() && editing.editor.is_json() && file.exists());
    assert_eq!(selected_id(&next), "train-002");
    next.types("\n");
    second(&mut next);
    assert!(std::fs::read_to_string(&file).unwrap().contains(&serde_json::to_string(&written(&next)).unwrap()));
    next.keys("ctrl-home").types("[").keys("ctrl-o");
    assert!(next.model.prompts.editing.is_some() && file.exists(), "what is no JSON is not saved");
    next.keys("backspace ctrl-o");
    assert!(next.model.prompts.editing.is_none() && kept(&first).is_empty());
    assert_eq!(rows(&folder).len(), 10);
    assert!(again(&first).model.shared.popup.is_none());
}

#[test]
fn only_saving_and_giving_up_remove_what_is_kept() {
    let (mut stage, _) = few_rows();
    for (keys, text) in [("i ctrl-end", "!"), ("a", "Due?"), ("p ctrl-end", "!")] {
        stage.keys(keys).types(text);
        second(&mut stage);
        stage.keys("esc n f1");
        second(&mut stage);
        assert_eq!(kept(&stage).len(), 1, "{keys}");
        stage.keys("f3 ctrl-p").types("expected answer").keys("enter");
        assert!(said(&stage).contains("is unsaved"), "{keys}: no other text takes its place");
        stage.keys("esc y");
        assert!(kept(&stage).is_empty(), "{keys}");
    }
    stage.keys("i ctrl-end").types("!");
    second(&mut stage);
    stage.keys("ctrl-u");
    second(&mut stage);
    assert!(kept(&stage).is_empty(), "as it was, no unsaved changes");
    // An end without time.
    stage.types("?");
    screens::prompts::keep_now(&stage.model).unwrap();
    let mut next = again(&stage);
    assert!(next.shows("messages of train-001"), "{}", next.picture());
    // Saved, but the file outlived it.
    let file = kept(&stage).remove(0);
    next.keys("y");
    let left = std::fs::read(&file).unwrap();
    next.keys("ctrl-o");
    std::fs::write(&file, left).unwrap();
    assert!(again(&stage).model.shared.popup.is_none() && kept(&stage).is_empty());
}

#[test]
fn a_row_that_changed_moved_or_vanished_meanwhile_is_told() {
    let check = |keys: &str, text: &str, change: fn(Vec<String>) -> Vec<String>, asked: &str, saved: fn(&[String])| {
        let (mut first, folder) = few_rows();
        first.keys(keys).types(text);
        second(&mut first);
        std::fs::write(folder.join("train.jsonl"), change(rows(&folder)).join("\n") + "\n").unwrap();
        let mut next = again(&first);
        assert!(next.model.shared.popup.is_some() && next.shows(asked), "{asked}: {}", next.picture());
        next.keys("y");
        assert_eq!(written(&next), written(&first));
        second(&mut next);
        // Once more, as after a second crash.
        let mut next = again(&first);
        next.keys("y ctrl-o");
        assert!(kept(&first).is_empty(), "{asked}: {}", said(&next));
        saved(&rows(&folder));
    };
    let without_first = |rows: Vec<String>| rows[1..].to_vec();
    check("j i ctrl-end", "MORE", without_first, "messages of train-002", |rows| {
        assert!(rows[0].contains("train-002") && rows[0].contains("MORE") && rows.len() == 9);
    });
    check("i ctrl-end", "MORE", without_first, "train-001 was deleted from train.jsonl", |rows| {
        assert!(rows[8].contains("train-010") && rows[9].starts_with("{\"id\":\"train-001\""));
        assert!(rows[9].contains("MORE") && rows[9].contains("\"expected\":{"));
    });
    check("x ctrl-home", " ", without_first, "train-001 was deleted from train.jsonl", |rows| {
        assert!(rows[9].contains("\"messages\":[") && rows[9].contains("\"expected\":{\"vendor\""), "{}", rows[9]);
    });
    let changed =
        |rows: Vec<String>| rows.iter().map(|row| row.replace("\"user\",\"content\":\"", "\"user\",\"content\":\"NEW ")).collect();
    check("x ctrl-home", " ", changed, "train-001 has changed since", |rows| assert!(rows[0].contains("NEW ")));
    let few = |rows: Vec<String>| rows[..5].to_vec();
    check("j j j j j j j j j a", "Due?", few, "train.jsonl is shorter now", |rows| assert!(rows[5].contains("Due?") && rows.len() == 6));
}

#[test]
fn several_texts_are_offered_the_newest_first_and_bad_files_are_named() {
    let (mut first, folder) = few_rows();
    for keys in ["i ctrl-end", "x ctrl-home", "p ctrl-end"] {
        let mut stage = again(&first);
        first.now_ms += 5000;
        stage.now_ms = first.now_ms;
        stage.keys("n n n").keys(keys).types(" ");
        second(&mut stage);
    }
    let files = kept(&first);
    let bad = files[0].with_file_name(files[0].file_name().unwrap().to_str().unwrap().replace(".json", "0.json"));
    std::fs::write(&bad, "{\"task\":").unwrap();
    let mut next = again(&first);
    let complaint = next.model.shared.notices.all().iter().find(|notice| notice.text.contains(bad.to_str().unwrap())).unwrap();
    assert!(complaint.text.contains("EOF while parsing") && complaint.level == Level::Complaint, "{complaint:?}");
    assert!(next.shows("system prompt"), "{}", next.picture());
    next.keys("n");
    assert!(next.shows("expected answer of train-001"), "{}", next.picture());
    next.keys("y");
    assert!(next.model.shared.popup.is_none());
    next.keys("esc y");
    assert!(next.shows("messages of train-001"), "after the one that was taken up: {}", next.picture());
    next.keys("n");
    assert_eq!((kept(&first).len(), bad.exists()), (3, true));
    // A set that cannot be read now, and one that the task has no more.
    std::fs::write(folder.join("train.jsonl"), "{\n").unwrap();
    let mut next = again(&first);
    next.keys("n");
    assert!(said(&next).contains("messages of train-001 has a draft in") && said(&next).contains("train.jsonl line 1"), "{}", said(&next));
    assert_eq!(kept(&first).len(), 3);
}

#[test]
fn what_is_kept_goes_with_the_copy_of_the_sample_and_stays_with_its_task() {
    let mut first = quick(Stage::new(120, 36));
    first.keys("i ctrl-end").types("!");
    second(&mut first);
    let mut next = again(&first);
    next.keys("n x ctrl-home").types(" ");
    second(&mut next);
    let text = written(&next);
    // Saving the schema makes the copy while a row is being written.
    next.keys("f2 enter").types(" ").keys("esc w f3");
    assert_eq!((written(&next), kept(&first).len()), (text, 2));
    second(&mut next);
    let mut last = again(&first);
    assert!(last.model.shared.task.as_ref().unwrap().task.folder().is_some());
    assert!(last.shows("expected answer of train-001"), "{}", last.picture());
    last.keys("n");
    assert!(last.shows("messages of train-001"), "{}", last.picture());
    last.keys("n");
    // Another task is opened while a text is unsaved, and the first one again.
    next.act(|model| grpo_tui::view::shared::open_task(&model.shared, Some("invoice".to_owned())));
    assert!(next.model.prompts.editing.is_none() && said(&next).contains("is unsaved: draft kept in"), "{}", said(&next));
    let copy = first.folder.path().join("data/tasks/invoice");
    next.act(|model| grpo_tui::view::shared::open_task(&model.shared, Some(copy.display().to_string())));
    assert!(next.shows("expected answer of train-001"), "{}", next.picture());
    next.keys("y");
    assert!(next.model.prompts.editing.as_ref().unwrap().is_changed());
}
