//! Tests: completions.

use grpo_tui::view::Message;

use super::super::harness::Stage;
use super::stage;

/// The screen with a text in its editor, the cursor at the start.
fn with_text(columns: u16, rows: u16, text: &str) -> Stage {
    let mut stage = stage(columns, rows);
    stage.keys("enter alt-a");
    stage.send(Message::Paste(text.to_owned()));
    stage.keys("ctrl-home esc");
    stage
}

#[test]
fn keywords_values_and_names_are_completed_while_typing() {
    let mut stage = with_text(120, 36, "{\n  \n}");
    let text = |stage: &Stage| stage.model.schema.editor.text();
    stage.keys("enter down end").types("\"ty");
    assert!(stage.shows("The type of the value"), "{}", stage.screen());
    stage.keys("tab");
    assert!(
        stage.shows("a number without a fraction"),
        "the values follow: {}",
        stage.screen()
    );
    stage.types("obj").keys("enter");
    assert_eq!(text(&stage), "{\n  \"type\": \"object\"\n}");
    // Escape closes the list, and leaves typing only then.
    stage.types(",").keys("enter").types("\"req");
    stage.keys("esc");
    assert!(
        stage.model.schema.typing && !stage.shows("Properties that must be present"),
        "{}",
        stage.screen()
    );
    stage.keys("ctrl-space enter");
    assert_eq!(
        text(&stage),
        "{\n  \"type\": \"object\",\n  \"required\": []\n}"
    );
    stage.keys("esc u");
    assert_eq!(
        text(&stage),
        "{\n  \"type\": \"object\",\n  \"req\n}",
        "one step of undo"
    );
}
