//! Tests: definitions, explanations, completions and the outline.

use grpo_tui::view::Message;

use super::super::harness::Stage;
use super::stage;

/// A schema with a definition that two properties name.
const NESTED: &str = r##"{
  "properties": {
    "net": {"$ref": "#/$defs/money"},
    "vendor": {"type": "string", "minLength": 1},
    "gross": {"$ref": "#/$defs/money"}
  },
  "required": ["net"],
  "$defs": {
    "money": {"type": "number", "minimum": 0}
  }
}"##;

/// The screen with a text in its editor, the cursor at the start.
fn with_text(columns: u16, rows: u16, text: &str) -> Stage {
    let mut stage = stage(columns, rows);
    stage.keys("enter alt-a");
    stage.send(Message::Paste(text.to_owned()));
    stage.keys("ctrl-home esc");
    stage
}

#[test]
fn definitions_and_their_uses_are_gone_to_and_back() {
    let mut stage = with_text(120, 36, NESTED);
    let cursor = |stage: &Stage| stage.model.schema.editor.cursor();
    stage.keys("j j J");
    assert_eq!(cursor(&stage), (8, 4), "to the definition");
    stage.keys("J");
    assert!(
        stage.shows("References to money") && stage.shows("#/properties/gross"),
        "{}",
        stage.screen()
    );
    stage.keys("down enter");
    assert_eq!(cursor(&stage).0, 4, "to one of its uses");
    stage.keys("backspace backspace");
    assert_eq!(cursor(&stage), (2, 0), "back to where it began");
    stage.keys("backspace");
    assert!(stage.shows("no earlier position"), "{}", stage.screen());
    stage.keys("s").types("mon").keys("enter");
    assert_eq!(cursor(&stage), (8, 4), "the outline finds it");
    stage.keys("s");
    assert!(
        stage.shows("vendor  string, minLength 1") && stage.shows("($defs)"),
        "{}",
        stage.screen()
    );
}

#[test]
fn what_is_under_the_cursor_is_explained() {
    let mut stage = with_text(120, 36, NESTED);
    stage.keys("/").types("minLength").keys("enter K");
    for part in [
        "Fewest characters",
        "Only for strings",
        "JSON Schema: all drafts",
    ] {
        assert!(stage.shows(part), "{part}: {}", stage.screen());
    }
    stage.keys("esc");
    assert!(
        stage.shows("minLength: Fewest"),
        "in the lower edge: {}",
        stage.screen()
    );
    stage.keys("/").types("net\": {").keys("enter K");
    assert!(
        stage.shows("│required") && stage.shows("#/properties/net"),
        "{}",
        stage.screen()
    );
    stage.keys("esc / ctrl-u").types("#/$defs").keys("enter K");
    assert!(
        stage.shows("line 9: number, minimum 0"),
        "{}",
        stage.screen()
    );
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

#[test]
fn the_outline_leads_to_tables_and_columns_of_a_database() {
    let mut stage = Stage::with(120, 36, |options| {
        let folder = options.here.join("tasks/sales");
        std::fs::create_dir_all(&folder).unwrap();
        let toml = "name = \"sales\"\nschema = \"schema.sql\"\n[score]\nkind = \"sql\"\n";
        std::fs::write(folder.join("task.toml"), toml).unwrap();
        let schema = "CREATE TABLE vendors (\n  id INTEGER PRIMARY KEY,\n  name TEXT NOT NULL\n);\nINSERT INTO vendors VALUES (1, 'Groner'), (2, 'Maki');\n";
        std::fs::write(folder.join("schema.sql"), schema).unwrap();
    });
    stage.keys("f2 tab j");
    insta::assert_snapshot!(stage.screen());
    stage.keys("j j enter");
    assert_eq!(stage.model.schema.editor.cursor(), (2, 2));
    stage.keys("backspace");
    assert_eq!(stage.model.schema.editor.cursor(), (0, 0), "and back");
    // What does not run leaves the outline of what did, and its fault stands at the statement.
    stage.keys("enter").types("x");
    let fault = &stage.model.shared.draft.faults[0];
    assert_eq!((fault.line, fault.column), (1, 1), "{fault:?}");
    assert!(
        stage.shows("STALE outline") && stage.shows("vendors: a table"),
        "{}",
        stage.screen()
    );
    stage.keys("esc s");
    assert!(
        stage.shows("Outline") && stage.shows("TEXT, not null"),
        "{}",
        stage.screen()
    );
}
