//! Any text as a query: parsed in several dialects, run within its bounds, and told in the same words each time.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use grpo_tui::dataset::{PromptRow, read_rows};
use grpo_tui::score::{Scorer, Task, Tier};
use libfuzzer_sys::fuzz_target;

/// Longest text tried; the bound on time below belongs to it.
const MAX_BYTES: usize = 1 << 14;
const TIME_LIMIT: Duration = Duration::from_secs(8);

static SCORER: LazyLock<Scorer> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("grpo-tui-fuzz-sql-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(
        folder.join("task.toml"),
        "name = \"fuzz\"\n[score]\nkind = \"sql\"\n",
    )
    .unwrap();
    let scorer = Scorer::new(&Task::load(&folder).unwrap()).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    scorer
});

static ROWS: LazyLock<Vec<PromptRow>> = LazyLock::new(|| {
    let schema = "CREATE TABLE t (a INTEGER, b TEXT, c REAL); INSERT INTO t VALUES (1, 'x', 0.5), (2, NULL, -1.0), (3, 'é', NULL); \
                  CREATE VIEW v AS SELECT a, b FROM t WHERE a > 1;";
    let row = |dialect: &str| {
        let row = serde_json::json!({"messages": [{"role": "user", "content": "x"}], "schema": schema, "dialect": dialect,
            "expected": "SELECT a, b FROM t ORDER BY a"});
        read_rows("row.jsonl", row.to_string().as_bytes())
            .next()
            .unwrap()
            .unwrap()
    };
    ["sqlite", "postgres", "mysql", "generic"].map(row).into()
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(MAX_BYTES)]) else {
        return;
    };
    for row in ROWS.iter() {
        let began = Instant::now();
        let score = SCORER.score(text, Some(row));
        assert!(
            began.elapsed() < TIME_LIMIT,
            "{:?} for {} bytes",
            began.elapsed(),
            text.len()
        );
        // Whether a dialect has what its grammar does not and SQLite runs is unknown.
        let is_unknown =
            score.is_error() && score.errors[0].message.starts_with("not understood: ");
        assert!(!score.is_error() || is_unknown, "{score:?}");
        assert_eq!(
            score.failure.is_some(),
            !score.errors.is_empty(),
            "{score:?}"
        );
        assert!(
            score.tier == Tier::Valid || !score.errors.is_empty(),
            "{score:?}"
        );
        for reason in &score.errors {
            let line = text.split('\n').nth(reason.line - 1);
            assert!(
                line.is_some_and(|line| (1..=line.chars().count() + 1).contains(&reason.column)),
                "outside the text: {reason:?}"
            );
            assert!(!reason.message.is_empty(), "{reason:?}");
        }
    }
});
