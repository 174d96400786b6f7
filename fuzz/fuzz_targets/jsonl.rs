//! Any bytes as a prompt set: every line is a row or an error with its number, none is lost.
#![no_main]

use std::collections::HashSet;

use grpo_tui::dataset::{DatasetError, load_from, read_rows};
use grpo_tui::text::conversation;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut wanted = lines_with_text(bytes).into_iter();
    let mut ids = HashSet::new();
    let mut good = true;
    for found in read_rows("folder/set.jsonl", bytes) {
        let line = match found {
            Ok(row) => {
                assert!(!row.messages.is_empty() && !row.id.is_empty());
                assert!(row.fields.value("messages").is_some());
                good &= ids.insert(row.id.clone());
                let turns = conversation(Some("Answer with JSON only."), &row.messages);
                assert!(turns.first().is_some_and(|turn| turn.role == "system"
                    && turn.content.starts_with("Answer with JSON only.")));
                grpo_tui::secrets::scan(&row.messages[0].content);
                row.line
            }
            Err(DatasetError::Line { line, problem, .. }) => {
                good = false;
                assert!(
                    !problem.is_empty() && problem.len() < 4_000,
                    "{} bytes of complaint",
                    problem.len()
                );
                line
            }
            Err(other) => panic!("reading memory failed: {other}"),
        };
        assert_eq!(Some(line), wanted.next(), "lines are numbered wrongly");
    }
    assert_eq!(wanted.next(), None, "a line was lost");
    assert_eq!(
        load_from("set.jsonl", bytes).is_ok(),
        good && !ids.is_empty()
    );
});

/// Numbers of the lines that are not blank; a byte order mark at the very beginning is no text.
fn lines_with_text(bytes: &[u8]) -> Vec<usize> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let blank = |line: &[u8]| line.trim_ascii().is_empty();
    bytes
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !blank(line))
        .map(|(index, _)| index + 1)
        .collect()
}
