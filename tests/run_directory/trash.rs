//! `runs remove` and `runs trash`: what is removed can be brought back.

use grpo_tui::run::list_checkpoints;

use super::command::runs_command;
use super::finished::{Made, made};
use super::memory_folder;
use crate::program::lines;

#[test]
fn what_is_removed_is_in_the_trash_and_comes_back() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let run = made(&root, &Made::default());
    let id = run.id();
    let steps = list_checkpoints(run.path()).unwrap();
    let one = format!("{id}@{}", steps[0]);
    let ok = |arguments: &[&str]| {
        let (code, text, error) = runs_command(&root, arguments);
        assert_eq!(code, 0, "{arguments:?}: {error}");
        (text, error)
    };
    let (text, _) = ok(&["rm", &one, "--yes", "--json"]);
    let documents = lines(&text);
    assert_eq!(documents[0]["trash"].as_str(), Some(one.as_str()));
    assert_eq!(list_checkpoints(run.path()).unwrap(), steps[1..]);
    let (_, said) = ok(&["remove", id, "--yes"]);
    assert!(
        said.contains("to the trash for 7 days (") && said.contains(&format!("--restore {id}`")),
        "{said}"
    );
    let items = lines(&ok(&["trash", "--json"]).0);
    let names: Vec<_> = items
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, [one.as_str(), id]);
    let (code, text, _) = runs_command(&root, &["trash"]);
    assert!(
        code == 0 && text.contains(" in all; --restore NAME brings one back"),
        "{text}"
    );
    // A checkpoint needs its run, and what is not there is named.
    let (code, _, error) = runs_command(&root, &["trash", "--restore", &one]);
    assert!(
        code == 1 && error.contains("is not there: restore it first"),
        "{error}"
    );
    let (code, _, error) = runs_command(&root, &["trash", "--restore", "x"]);
    assert!(
        code == 2
            && error.contains(&format!(
                "--restore x: not in the trash: it has {one}, {id}"
            )),
        "{error}"
    );
    ok(&["trash", "--restore", id, "--restore", &one]);
    assert_eq!(list_checkpoints(run.path()).unwrap(), steps);
    ok(&["remove", id, "--yes"]);
    let (code, _, error) = runs_command(&root, &["trash", "--empty"]);
    assert!(code == 2 && error.contains("add --yes"), "{error}");
    let (_, said) = ok(&["trash", "--empty", "--yes"]);
    assert!(said.contains("deleted 1 item ("), "{said}");
    let again = made(&root, &Made::default());
    ok(&["remove", again.id(), "--yes", "--permanent"]);
    let items = lines(&ok(&["trash", "--json"]).0);
    assert!(items.is_empty() && !again.path().exists());
}
