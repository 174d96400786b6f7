//! Tests: rows and the system text are edited, and nothing else in their files changes.

use super::{in_folder, lines, selected_id};

#[test]
fn a_row_is_edited_and_all_other_lines_stay() {
    // A field that nobody knows, odd blanks and a number as only a person would write it.
    let odd = "{ \"id\":\"odd\",  \"weight\": 1.50, \"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}] , \"expected\":{\"vendor\":\"A\",\"date\":\"2020-01-01\",\"amount\":1.0,\"currency\":\"EUR\"} }";
    let (mut stage, folder) = in_folder(|folder| {
        let text = std::fs::read_to_string(folder.join("train.jsonl")).unwrap();
        std::fs::write(folder.join("train.jsonl"), format!("{odd}\n{text}")).unwrap();
    });
    let before = lines(&folder, "train.jsonl");
    stage.keys("i ctrl-end").types(" there").keys("enter");
    stage
        .types("\n=== assistant\nYes?\n=== user\nGo")
        .keys("ctrl-o");
    let after = lines(&folder, "train.jsonl");
    assert_eq!(after[0], odd.replace("[{\"role\":\"user\",\"content\":\"Hi\"}]", "[{\"role\":\"user\",\"content\":\"Hi there\\n\"},{\"role\":\"assistant\",\"content\":\"Yes?\"},{\"role\":\"user\",\"content\":\"Go\"}]"));
    assert_eq!(after[1..], before[1..]);
    assert!(
        stage.model.prompts.editing.is_none()
            && stage
                .model
                .prompts
                .chat
                .as_ref()
                .unwrap()
                .prompt
                .contains("Yes?")
    );
    // Expected: what the schema refuses is said and may be saved, what is no JSON may not.
    stage.keys("v");
    let before = lines(&folder, "train.jsonl");
    stage.keys("ctrl-end backspace backspace").keys("ctrl-o");
    assert!(stage.model.prompts.editing.is_some(), "not saved");
    assert_eq!(lines(&folder, "train.jsonl"), before);
    stage.keys("ctrl-u");
    stage.types(" ").keys("esc y v ctrl-home");
    for _ in 0..8 {
        stage.keys("down");
    }
    stage
        .keys("ctrl-home")
        .types("[")
        .keys("ctrl-end")
        .types("]");
    assert!(
        stage.shows("rejected: expected object"),
        "{}",
        stage.screen()
    );
    stage.keys("ctrl-o");
    assert!(lines(&folder, "train.jsonl")[0].contains("\"expected\":[{\"vendor\""));
    assert!(lines(&folder, "train.jsonl")[0].contains("\"weight\": 1.50, "));
}

#[test]
fn rows_are_added_duplicated_and_deleted() {
    let (mut stage, folder) = in_folder(|_| {});
    let before = lines(&folder, "train.jsonl");
    stage.keys("j c");
    let after = lines(&folder, "train.jsonl");
    assert_eq!(after.len(), 201);
    assert_eq!(after[2], before[1].replace("train-002", "train-201"));
    assert_eq!(selected_id(&stage), "train-201");
    assert!(
        stage
            .model
            .prompts
            .health
            .as_ref()
            .unwrap()
            .as_ref()
            .unwrap()
            .findings
            .iter()
            .any(|finding| finding.message.contains("same prompt"))
    );
    stage.keys("D n");
    assert_eq!(lines(&folder, "train.jsonl").len(), 201, "only after a yes");
    stage.keys("D y");
    assert_eq!(lines(&folder, "train.jsonl"), before);
    stage.keys("a");
    stage.types("What is due?").keys("ctrl-o");
    let after = lines(&folder, "train.jsonl");
    assert_eq!(
        after[3],
        "{\"id\":\"train-201\",\"messages\":[{\"role\":\"user\",\"content\":\"What is due?\"}]}"
    );
    assert_eq!(selected_id(&stage), "train-201");
}

#[test]
fn a_row_that_was_changed_elsewhere_is_not_overwritten() {
    let (mut stage, folder) = in_folder(|_| {});
    stage.keys("i ctrl-end").types("!");
    let text = std::fs::read_to_string(folder.join("train.jsonl")).unwrap();
    let moved: String = text.split_inclusive('\n').skip(1).collect();
    std::fs::write(folder.join("train.jsonl"), &moved).unwrap();
    stage.keys("ctrl-o");
    assert_eq!(
        std::fs::read_to_string(folder.join("train.jsonl")).unwrap(),
        moved
    );
    let message = &stage.model.shared.notices.all().last().unwrap().text;
    assert!(
        message.contains("changed on disk: reloaded, nothing written"),
        "{message}"
    );
    assert!(
        stage.model.prompts.editing.is_some(),
        "what was written is still here"
    );
    stage.keys("ctrl-o");
    assert_eq!(
        std::fs::read_to_string(folder.join("train.jsonl")).unwrap(),
        moved,
        "nor does a second try write into the row that is there now"
    );
}

#[test]
fn the_system_text_is_written_and_comments_stay() {
    let (mut stage, folder) = in_folder(|_| {});
    let before = std::fs::read_to_string(folder.join("task.toml")).unwrap();
    stage.keys("p ctrl-end").types(" No prose.").keys("ctrl-o");
    let after = std::fs::read_to_string(folder.join("task.toml")).unwrap();
    assert_eq!(
        after,
        before.replace("Answer with JSON only.", "Answer with JSON only. No prose.")
    );
    assert!(
        stage
            .model
            .prompts
            .chat
            .as_ref()
            .unwrap()
            .prompt
            .contains("No prose.")
    );
}
