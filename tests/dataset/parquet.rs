//! Tables in Parquet: their rows as records and completions, and what damaged or hostile files cost.

use std::path::Path;

use grpo_tui::dataset::import::{ImportedRows, import};
use serde_json::{Value, json};

use super::import::mapping;
use crate::program::{call_in_process as call, json_lines, stderr};

/// Written by pyarrow 26: lists of structs, a struct with a list, a row group a row, zstd.
const CHATS: &[u8] = include_bytes!("chats.parquet");
/// Written by pandas 3.1 with the columns of TRL's `GRPOTrainer`, prompts in a chat template, snappy.
const TRL: &[u8] = include_bytes!("trl.parquet");

#[test]
fn tables_of_parquet_are_records_and_completions() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let found = import(
        &file("chats.parquet", CHATS),
        &mapping(&[]),
        None,
        usize::MAX,
    )
    .unwrap();
    let expected = json!([
        {"id": "7", "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Ü"}], "expected": {"total": 1.5, "lines": ["a", "b"]}},
        {"id": "8", "messages": [{"role": "user", "content": "V"}], "expected": {"total": 2.0, "lines": []}},
    ]);
    assert_eq!((json!(found.rows), found.problems), (expected, Vec::new()));
    let score = |path: &Path| {
        call(
            folder.path(),
            &[
                "score",
                "invoice",
                "--json",
                "--completions",
                path.to_str().unwrap(),
            ],
        )
    };
    let scored = score(&file("trl.parquet", TRL));
    let scored = json_lines(&scored);
    let shown: Vec<Value> = scored
        .iter()
        .map(|score| json!([score["reward"], score["exact"]]))
        .collect();
    // The prompts' rows are found: there are expected answers.
    assert_eq!(
        json!(shown),
        json!([[2.0, true], [0.5, false], [0.0, false]])
    );
    for (bytes, expected) in [
        (
            &TRL[..2000],
            "cut.parquet: not Parquet, or damaged (Invalid Parquet file. Corrupt footer); write the file again",
        ),
        (&b"{}"[..], "cut.parquet: not Parquet, or damaged ("),
    ] {
        let refused = score(&file("cut.parquet", bytes));
        assert!(
            stderr(&refused).contains(expected) && refused.status.code() == Some(1),
            "{}",
            stderr(&refused)
        );
    }
    // A time of 292 million years from now.
    let far = import(
        &file("far.parquet", include_bytes!("far.parquet")),
        &mapping(&[]),
        None,
        usize::MAX,
    );
    let far = far.unwrap_err().to_string();
    assert!(
        far.contains("far.parquet line 2: column `")
            && far.contains("a time outside of the calendar"),
        "{far}"
    );
    // Whatever byte is damaged, the program goes on.
    let path = folder.path().join("damaged.parquet");
    for at in (0..CHATS.len()).step_by(3) {
        let mut bytes = CHATS.to_vec();
        bytes[at] ^= 0x55;
        std::fs::write(&path, &bytes).unwrap();
        drop(import(&path, &mapping(&[]), None, usize::MAX));
    }
}

/// Written by pyarrow 26, each column with a codec of its own: gzip, brotli, lz4, snappy, zstd.
const TYPES: &[u8] = include_bytes!("types.parquet");
/// By pyarrow: a column of binary values that are not text.
const BINARY: &[u8] = include_bytes!("binary.parquet");
/// By pyarrow: 6,000 rows of 1 MiB, in 296 bytes.
const BOMB: &[u8] = include_bytes!("bomb.parquet");
/// By pyarrow: a list of 20,000,000 nulls, in 437 bytes.
const LIST: &[u8] = include_bytes!("list.parquet");
/// By pyarrow: the columns of verl's datasets.
const VERL: &[u8] = include_bytes!("verl.parquet");

fn of_parquet(bytes: &[u8], assignments: &[&str]) -> Result<ImportedRows, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    std::fs::write(&path, bytes).unwrap();
    let found = import(&path, &mapping(assignments), None, usize::MAX);
    found.map_err(|error| {
        error
            .to_string()
            .replace(&format!("{}/", folder.path().display()), "")
    })
}

#[test]
fn binary_columns_of_parquet_are_text_and_times_keep_their_zone() {
    let template = "prompt={{ prompt }}|{{ local }}|{{ utc }}|{{ nano }}|{{ times | join }}|{{ at.t }}|{{ day }}|{{ clock }}";
    let found = of_parquet(TYPES, &[template]).unwrap();
    let texts: Vec<&str> = found
        .rows
        .iter()
        .map(|row| row["messages"][0]["content"].as_str().unwrap())
        .collect();
    let (local, utc) = ("2026-11-24T09:30:05.25", "2026-11-24T09:30:05.25Z");
    assert_eq!(
        texts,
        [
            format!("Acme ü|{local}|{utc}|{local}|{utc}|{local}|2026-11-24|09:30:05.25"),
            format!("Beta|None|{utc}|{local}||{local}|2026-11-24|09:30:05.25"),
        ]
    );
    let found = of_parquet(BINARY, &["prompt=prompt"]).unwrap();
    assert_eq!(
        (found.rows.len(), found.notes),
        (2, vec!["left out, binary: image".to_owned()])
    );
}

#[test]
fn fields_of_objects_in_columns_are_mapped_by_their_path() {
    // As it is guessed, and as it is written.
    for assignments in [
        &[][..],
        &[
            "expected=reward_model.ground_truth",
            "tags=extra_info.split, data_source",
        ],
    ] {
        let found = of_parquet(VERL, assignments).unwrap();
        assert_eq!(found.mapping.expected, "reward_model.ground_truth");
        assert_eq!(
            found.rows[1]["expected"],
            json!("8"),
            "{:?}",
            found.problems
        );
        assert_eq!(
            found.rows[1]["messages"],
            json!([{"role": "user", "content": "4+4?"}])
        );
        let tags = found.rows[1].get("tags").cloned();
        assert_eq!(
            tags,
            (!assignments.is_empty()).then(|| json!(["train", "gsm8k"]))
        );
    }
    let fields = of_parquet(
        VERL,
        &["expected=answer = reward_model.ground_truth, by = extra_info.index"],
    )
    .unwrap();
    assert_eq!(fields.rows[0]["expected"], json!({"answer": "5", "by": 0}));
    let wrong = of_parquet(VERL, &["expected=reward_model.groundtruth"]).unwrap_err();
    assert!(
        wrong.contains("no column `reward_model.groundtruth`; did you mean `reward_model"),
        "{wrong}"
    );
}

#[test]
fn files_of_more_than_an_import_takes_are_refused_before_they_fill_the_memory() {
    let bomb = of_parquet(BOMB, &[]).unwrap_err();
    assert!(
        bomb.contains("records take more than 1.07 GB; import a part of it with --limit N"),
        "{bomb}"
    );
    let list = of_parquet(LIST, &[]).unwrap_err();
    assert!(
        list.contains("column `x.list.element`: a row group has 20,000,000 values in 1 rows"),
        "{list}"
    );
}
