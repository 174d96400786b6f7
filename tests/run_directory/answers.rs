//! `runs compare` and `runs comment` on the recorded run: exports, groups of failures, comments.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::{call_anywhere_in_process as call_anywhere, ended};

fn copied(folder: &Path) -> PathBuf {
    let run = folder.join("run");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/finished-run");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(source)
        .arg(&run)
        .status()
        .unwrap();
    let private = std::process::Command::new("chmod")
        .args(["-R", "u=rwX,go="])
        .arg(&run)
        .status()
        .unwrap();
    assert!(copied.success() && private.success());
    run
}

fn runs(arguments: &[&str]) -> (i32, String, String) {
    ended(call_anywhere(&[&["runs"], arguments].concat()))
}

#[test]
fn a_comparison_is_exported_with_its_comments_and_groups_of_failures() {
    let folder = tempfile::tempdir().unwrap();
    let run = copied(folder.path());
    let run = run.to_str().unwrap();
    assert_eq!(runs(&["comment", run]).1, "no comments\n");
    let (code, text, error) = runs(&["comment", run, "test-003", "label | is wrong"]);
    assert_eq!(
        (code, text.as_str()),
        (0, "test  test-003  label | is wrong\n"),
        "{error}"
    );
    let (code, _, error) = runs(&["comment", run, "test-03", "x"]);
    assert!(
        code == 2 && error.contains("no prompt `test-03` in the test set; did you mean"),
        "{error}"
    );

    let document: Value = serde_json::from_str(&runs(&["compare", run, "--json"]).1).unwrap();
    assert_eq!(document["comments"]["test-003"], "label | is wrong");
    assert_eq!(document["schema"]["rescored"], false);
    let base = &document["failures"][0];
    assert_eq!(
        (&base["name"], &base["failures"], &base["completions"]),
        (&"base".into(), &41.into(), &100.into())
    );
    let groups = base["groups"].as_array().unwrap();
    let count = |kind: &str| {
        groups
            .iter()
            .filter(|group| group["kind"] == kind)
            .map(|group| group["failures"].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(count("class"), 41, "every failure has one class");
    assert!(
        ["field", "tag", "expected", "length"]
            .into_iter()
            .all(|kind| count(kind) > 0),
        "{groups:?}"
    );

    let markdown = runs(&["compare", run, "--markdown"]).1;
    for expected in [
        "### base vs step 30\n",
        "**valid: +39.0 points (95% CI",
        "| valid | 60.0% [",
        "| valid in base | 59 | 1 (regressions) |",
        "#### Failures of base: 41 of 100 completions (41.0%)",
        "| test-003 | label \\| is wrong |",
    ] {
        assert!(markdown.contains(expected), "{expected}: {markdown}");
    }
    let csv = runs(&["compare", run, "--csv"]).1;
    let lines: Vec<&str> = csv.lines().collect();
    assert!(
        lines.len() == 101
            && lines[0].starts_with("prompt_id,sample,tags,outcome,base.tier,base.exact,"),
        "{}",
        lines[0]
    );
    let row = lines
        .iter()
        .find(|line| line.starts_with("test-003,0,"))
        .unwrap();
    assert!(
        row.contains(",improvements,invalid,false,") && row.ends_with(",label | is wrong"),
        "{row}"
    );

    assert_eq!(runs(&["comment", run, "test-003", ""]).1, "no comments\n");
    assert!(
        !runs(&["compare", run, "--markdown"])
            .1
            .contains("#### Comments")
    );
}
