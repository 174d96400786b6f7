//! The list of runs: what there is in every state, filtered, sorted, marked, controlled, tagged, exported and deleted by keys.

mod control;
mod list;
mod waiting;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use grpo_tui::report::Listing;
use grpo_tui::run::{RunDirectory, RunFolders, Status, Verb, Worker, read_tags};
use grpo_tui::view::key_chord::Chord;
use grpo_tui::view::{Command, Screen};

use super::harness::{Stage, finished_run};
use super::synthetic_run::serve;

/// A copy of the recorded run under another id and name, with another status in `state.json`.
pub(super) fn copy_run(runs: &Path, id: &str, name: &str, status: &str) -> PathBuf {
    let copy = |from: &Path, to: &Path| _ = std::fs::copy(from, to).unwrap();
    run_of_files(runs, (id, name, status), &copy)
}

/// The same where nothing is written into the files of its folders: they are links to the recorded ones, and take an
/// eighth of the time.
pub(super) fn link_run(runs: &Path, id: &str, name: &str, status: &str) -> PathBuf {
    let link = |from: &Path, to: &Path| {
        // What lies beside the folders changes while a run is used. Another file system takes no links.
        let changes = from.parent() == Some(&finished_run());
        if changes || std::fs::hard_link(from, to).is_err() {
            _ = std::fs::copy(from, to).unwrap();
        }
    };
    run_of_files(runs, (id, name, status), &link)
}

fn run_of_files(
    runs: &Path,
    (id, name, status): (&str, &str, &str),
    put: &dyn Fn(&Path, &Path),
) -> PathBuf {
    fn tree(from: &Path, to: &Path, put: &dyn Fn(&Path, &Path)) {
        std::fs::create_dir_all(to).unwrap();
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                tree(&entry.path(), &target, put)
            } else {
                put(&entry.path(), &target)
            }
        }
    }
    let run = runs.join(id);
    tree(&finished_run(), &run, put);
    change(
        &run.join("run.toml"),
        &[
            ("20261120-143041-invoice-6sx3dn", id),
            ("invoices, small adapters", name),
        ],
    );
    change(
        &run.join("state.json"),
        &[("\"finished\"", &format!("\"{status}\""))],
    );
    if status != "finished" {
        // Its worker never came to its last word.
        let log = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
        let rest: String = log
            .lines()
            .filter(|line| !line.contains("\"kind\":\"end\""))
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(run.join("events.jsonl"), rest).unwrap();
    }
    run
}

pub(super) fn change(file: &Path, changes: &[(&str, &str)]) {
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(
        file,
        changes
            .iter()
            .fold(text, |text, (from, to)| text.replace(from, to)),
    )
    .unwrap();
}

/// Runs in several states; the newest is `20261120-…-6sx3dn`.
fn several(folder: &Path) {
    let runs = folder.join("runs");
    copy_run(
        &runs,
        "20261120-143041-invoice-6sx3dn",
        "small adapters",
        "finished",
    );
    let failed = copy_run(
        &runs,
        "20261119-090000-invoice-aaaaaa",
        "too fast",
        "failed",
    );
    change(
        &failed.join("run.toml"),
        &[
            ("created_ms = 1795185041316", "created_ms = 1795085041316"),
            ("learning_rate = 0.0015", "learning_rate = 0.5"),
        ],
    );
    change(
        &failed.join("state.json"),
        &[(
            "all steps done",
            "the loss was not finite three times in a row",
        )],
    );
    // It says that it runs, and nobody holds its lock.
    let dead = copy_run(&runs, "20261118-090000-receipts-bbbbbb", "", "running");
    change(
        &dead.join("run.toml"),
        &[
            ("created_ms = 1795185041316", "created_ms = 1794985041316"),
            ("task = \"invoice\"", "task = \"receipts\""),
        ],
    );
    let broken = runs.join("20261117-090000-invoice-cccccc");
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::write(
        broken.join("run.toml"),
        "version = 1\nid = \"20261117-090000-invoice-cccccc\"\njob = 3\n",
    )
    .unwrap();
    let newer = runs.join("20261116-090000-invoice-dddddd");
    std::fs::create_dir_all(&newer).unwrap();
    std::fs::write(newer.join("run.toml"), "version = 99\n").unwrap();
}

fn stage_with(columns: u16, rows: u16, prepare: impl Fn(&Path)) -> Stage {
    Stage::with(columns, rows, |options| {
        prepare(&options.here);
        // The recorded run is found above the folder; these tests look at copies.
        options.program = PathBuf::from("/bin/false");
    })
}

const SIZES: [(u16, u16); 4] = [(160, 48), (120, 36), (80, 24), (60, 20)];

#[test]
fn pictures_of_several_runs() {
    for (columns, rows) in SIZES {
        let mut stage = stage_with(columns, rows, several);
        stage.keys("j tab");
        assert!(
            stage.shows("✗ failed: the loss was not finite"),
            "{}",
            stage.screen()
        );
    }
    let mut stage = stage_with(40, 12, several);
    assert!(stage.shows("✗ failed"), "{}", stage.screen());
    stage.keys("tab");
    assert!(stage.shows("state"), "{}", stage.screen());
}

#[test]
fn no_runs_yet_says_what_to_do() {
    let mut stage = stage_with(80, 24, |_| {});
    insta::assert_snapshot!("runs_none_80x24", stage.screen());
    stage.keys("p");
    assert!(stage.shows("no run selected"));
}

#[test]
fn filters_find_by_words_and_conditions() {
    let mut stage = stage_with(120, 36, several);
    let check = |stage: &mut Stage, text: &str, title: &str, shown: &[&str], hidden: &[&str]| {
        stage.keys("esc esc /").types(text);
        let screen = stage.screen();
        assert!(screen.contains(title), "{text}: {screen}");
        let list = list_of(&screen);
        for id in shown {
            assert!(list.contains(id), "{text}: {id} in {list}");
        }
        for id in hidden {
            assert!(!list.contains(id), "{text}: {id} in {list}");
        }
    };
    let stage = &mut stage;
    check(
        stage,
        "",
        "Runs 5",
        &["6sx3dn", "aaaaaa", "bbbbbb", "cccccc", "dddddd"],
        &[],
    );
    check(
        stage,
        "receipts",
        "Runs 1 of 5",
        &["bbbbbb"],
        &["6sx3dn", "aaaaaa", "cccccc"],
    );
    check(
        stage,
        "status=failed",
        "Runs 1 of 5",
        &["aaaaaa"],
        &["bbbbbb"],
    );
    check(
        stage,
        "invoice config.learning_rate>0.1",
        "Runs 1 of 5",
        &["aaaaaa"],
        &["6sx3dn", "cccccc"],
    );
    check(
        stage,
        "valid>0.9 and not status:fail",
        "Runs 2 of 5",
        &["6sx3dn", "bbbbbb"],
        &["aaaaaa"],
    );
    check(
        stage,
        "nothing of the kind",
        "Runs 0 of 5",
        &["no runs match filter"],
        &["6sx3dn"],
    );
    check(stage, "valdi>0.9", "did you mean", &[], &[]);
    // Half a condition leaves the list as it was and says what is missing.
    check(
        stage,
        "status=failed and valid>",
        "expected a value",
        &["aaaaaa"],
        &["bbbbbb"],
    );
    std::fs::remove_dir_all(
        stage
            .folder
            .path()
            .join("runs/20261116-090000-invoice-dddddd"),
    )
    .unwrap();
    stage.tick_after(2_000);
    assert!(
        stage.shows("Runs 1 of 4") && order_of(stage) == ["aaaaaa"],
        "{}",
        stage.screen()
    );
    stage.keys("enter j");
    assert!(
        stage.shows("expected a value"),
        "the filter stays when the list has the keys"
    );
    stage.keys("esc");
    assert!(stage.shows("Runs 4"));
}

/// The list, which stands below the pipeline or alone.
pub(super) fn list_of(screen: &str) -> String {
    screen
        .split('└')
        .find(|part| part.contains("┌▸ Runs ") || part.contains("┌ Runs "))
        .unwrap()
        .to_owned()
}

fn order_of(stage: &Stage) -> Vec<String> {
    let ids = ["6sx3dn", "aaaaaa", "bbbbbb", "cccccc", "dddddd"];
    let screen = stage.screen();
    let list = list_of(&screen);
    let mut found: Vec<(usize, &str)> = ids
        .iter()
        .filter_map(|id| Some((list.find(&format!(" {id} "))?, *id)))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, id)| id.to_owned()).collect()
}

#[test]
fn runs_are_ordered_by_columns_and_metrics() {
    let mut stage = stage_with(160, 48, several);
    assert_eq!(
        order_of(&stage),
        ["6sx3dn", "aaaaaa", "bbbbbb", "cccccc", "dddddd"],
        "newest first, unreadable last"
    );
    stage.keys("R");
    assert_eq!(
        order_of(&stage),
        ["bbbbbb", "aaaaaa", "6sx3dn", "cccccc", "dddddd"]
    );
    // The fields, metrics and keys are a list, with the values of the run under the cursor.
    stage.keys("s");
    assert!(
        stage.shows("Sort runs by") && stage.shows("base_valid"),
        "{}",
        stage.screen()
    );
    stage.types("config.learning_rate").keys("enter");
    assert_eq!(order_of(&stage)[0], "aaaaaa");
    assert!(
        stage.shows("by config.learning_rate, highest first") && stage.shows("0.5000"),
        "{}",
        stage.screen()
    );
    stage
        .keys("s")
        .types("completions/mean_length")
        .keys("enter");
    assert!(stage.shows("by completions/mean_length, highest first"));
    stage.keys("s").types("no_such_metric").keys("enter");
    assert!(
        stage.shows("no matches") && stage.model.shared.popup.is_some(),
        "the list stays until something is chosen"
    );
}

#[test]
fn the_cursor_stays_on_its_run_when_the_list_changes() {
    let mut stage = stage_with(120, 36, several);
    stage.keys("j j");
    assert!(stage.shows("20261118-090000-receipts-bbbbbb"));
    copy_run(
        &stage.folder.path().join("runs"),
        "20261121-000000-invoice-eeeeee",
        "",
        "finished",
    );
    stage.tick_after(2_000);
    assert!(
        stage.shows("Runs 6") && stage.shows("20261118-090000-receipts-bbbbbb"),
        "{}",
        stage.screen()
    );
    stage.keys("R");
    assert!(stage.shows("20261118-090000-receipts-bbbbbb"));
}

#[test]
fn only_what_changed_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    several(folder.path());
    let run_folders = RunFolders::discover(Some(&folder.path().join("runs")), folder.path());
    let look = |listing: &Listing| listing.refreshed(&run_folders, &mut |_| true);
    let first = look(&Listing::default());
    assert_eq!((first.read, first.entries().len()), (5, 5));
    let again = look(&first);
    assert_eq!((again.read, again.entries().len()), (0, 5));
    grpo_tui::run::change_tags(
        &folder.path().join("runs/20261119-090000-invoice-aaaaaa"),
        &["kept".to_owned()],
        &[],
    )
    .unwrap();
    std::fs::remove_dir_all(folder.path().join("runs/20261116-090000-invoice-dddddd")).unwrap();
    let third = look(&again);
    assert_eq!((third.read, third.entries().len()), (1, 4));
}

#[test]
fn marks_overlay_and_comparison() {
    let mut stage = stage_with(160, 48, several);
    stage.keys("c");
    assert!(stage.shows("mark two or more runs first (space)"));
    stage
        .model
        .shared
        .keymap
        .set("runs.mark", vec![Chord::parse("m").unwrap()]);
    stage.keys("c");
    assert!(
        stage.shows("mark two or more runs first (m)"),
        "messages follow the keymap"
    );
    stage.model.shared.keymap.unset("runs.mark");
    stage.keys("space space");
    assert!(stage.shows("2 marked"));
    stage.keys("c");
    let screen = stage.screen();
    assert!(
        screen.contains("learning_rate")
            && screen.contains("0.5")
            && !screen.contains("lora_alpha"),
        "only what differs: {screen}"
    );
    assert!(screen.contains("Run comparison"), "{screen}");
    stage.keys("esc o");
    assert_eq!(stage.model.shared.screen, Screen::Live);
    let runs = stage.folder.path().join("runs");
    // Marking has moved the cursor to a third one.
    assert_eq!(
        stage.model.shared.current,
        Some(runs.join("20261120-143041-invoice-6sx3dn"))
    );
    assert_eq!(
        stage.model.shared.overlay,
        [runs.join("20261119-090000-invoice-aaaaaa")]
    );
    stage.keys("1 g v");
    assert_eq!(stage.model.shared.screen, Screen::Eval);
    assert!(
        stage.shows("6sx3dn step 30") && stage.shows("aaaaaa step 30"),
        "{}",
        stage.screen()
    );
    stage.keys("1 esc");
    assert!(!stage.shows("2 marked"));
    stage.keys("enter");
    assert_eq!(
        (stage.model.shared.screen, stage.model.shared.overlay.len()),
        (Screen::Live, 0)
    );
}

#[test]
fn tags_are_given_and_found() {
    let mut stage = stage_with(120, 36, several);
    stage.command("edit tags").types("kept -old").keys("enter");
    let run = stage
        .folder
        .path()
        .join("runs/20261120-143041-invoice-6sx3dn");
    assert_eq!(read_tags(&run).unwrap(), ["kept"]);
    assert!(
        stage.shows("tags of 1 run saved") && stage.shows("tags        kept"),
        "{}",
        stage.screen()
    );
    stage.command("edit tags").types("two words,").keys("enter");
    assert!(
        stage.shows("is not a tag"),
        "the question stays until it is right"
    );
    stage.keys("esc / ").types("tags:kept").keys("enter");
    assert!(stage.shows("Runs 1 of 5"));
    stage.command("edit tags").types("-kept").keys("enter");
    assert_eq!(read_tags(&run).unwrap(), [] as [&str; 0]);
    assert!(stage.shows("Runs 0 of 5"));
}

#[test]
fn the_id_is_copied() {
    let mut stage = stage_with(120, 36, several);
    stage.keys("y");
    assert!(
        stage
            .commands
            .iter()
            .any(|command| command.contains("20261120-143041-invoice-6sx3dn")),
        "{:?}",
        stage.commands
    );
}

#[test]
fn removal_says_what_is_lost_and_takes_only_what_has_ended() {
    let mut stage = stage_with(120, 36, several);
    let run = stage
        .folder
        .path()
        .join("runs/20261120-143041-invoice-6sx3dn");
    stage.keys("d");
    assert!(
        stage.shows("99.0% valid, 3") && stage.shows("In the trash for 7 days"),
        "{}",
        stage.screen()
    );
    stage.keys("n");
    assert!(run.exists());
    stage.keys("d y");
    assert!(
        !run.exists()
            && stage.shows("20261120-143041-invoice-6sx3dn is in the trash (")
            && stage.shows("Runs 4"),
        "{}",
        stage.screen()
    );
    stage.keys("G d");
    assert!(
        stage.shows("cannot read the run"),
        "an unreadable run is not removed from here"
    );
}

#[test]
fn what_cannot_be_done_says_why() {
    let mut stage = stage_with(120, 36, several);
    let check = |stage: &mut Stage, key: &str, expected: &str| {
        stage.keys(key);
        assert!(stage.shows(expected), "{key}: {}", stage.screen());
        stage.keys("esc alt-n");
        stage.keys("esc");
    };
    for (key, why) in [
        ("p", "nothing to pause"),
        ("C", "nothing to save"),
        ("E", "its worker has exited"),
        ("x", "nothing to stop"),
        ("X", "nothing to stop"),
    ] {
        check(&mut stage, key, &format!("run 6sx3dn is finished: {why}"));
    }
    check(
        &mut stage,
        "r",
        "run 6sx3dn is finished: to train further, start a run from its result (Launch, m)",
    );
    stage.keys("G");
    for key in ["enter", "p", "r"] {
        check(&mut stage, key, "this run");
    }
}

#[test]
fn a_stop_that_was_asked_for_is_no_warning() {
    let stage = stage_with(120, 36, |folder| {
        let run = copy_run(
            &folder.join("runs"),
            "20261120-143041-invoice-6sx3dn",
            "",
            "interrupted",
        );
        change(
            &run.join("state.json"),
            &[(
                r#""all steps done""#,
                r#""stopped after step 1, at your request","requested":true"#,
            )],
        );
        copy_run(
            &folder.join("runs"),
            "20261119-090000-invoice-aaaaaa",
            "",
            "interrupted",
        );
    });
    assert!(
        stage.shows("■ interrupted    6sx3dn") || stage.shows("■ interrupted 6sx3dn"),
        "{}",
        stage.screen()
    );
    assert!(stage.shows("▲ interrupted"), "{}", stage.screen());
}

#[test]
fn a_click_selects_and_two_open() {
    let mut stage = stage_with(120, 36, several);
    stage.keys("g");
    stage.click(20, 11);
    assert_eq!(stage.model.shared.screen, Screen::Runs);
    let under = stage.model.clicked;
    stage.now_ms += 100;
    stage.click(20, 11);
    assert!(
        under.is_some()
            && stage.model.shared.screen == Screen::Live
            && stage.model.shared.current.is_some(),
        "{}",
        stage.screen()
    );
    // Two clicks with time between them are two clicks; the run at the right of the tabs is a way to it, too.
    stage.keys("1");
    stage.click(20, 11);
    stage.now_ms += 600;
    stage.click(20, 11);
    assert_eq!(stage.model.shared.screen, Screen::Runs);
    stage.click(110, 0);
    assert_eq!(stage.model.shared.screen, Screen::Live);
}

#[test]
fn a_thousand_runs_are_filtered() {
    let mut stage = stage_with(120, 36, |folder| {
        let runs = folder.join("runs");
        let one = copy_run(&runs, "20261120-143041-invoice-6sx3dn", "", "finished");
        let keep = std::fs::read_to_string(one.join("run.toml")).unwrap();
        for index in 0..1000 {
            let run = runs.join(format!("20261001-000000-invoice-{index:06}"));
            std::fs::create_dir(&run).unwrap();
            std::fs::write(
                run.join("run.toml"),
                keep.replace(
                    "20261120-143041-invoice-6sx3dn",
                    &format!("20261001-000000-invoice-{index:06}"),
                ),
            )
            .unwrap();
            std::fs::write(run.join("events.jsonl"), "").unwrap();
        }
    });
    assert!(stage.shows("Runs 1001"));
    stage.keys("/").types("invoice-0007");
    stage.keys("enter");
    assert!(
        stage.shows("Runs 100 of 1001") && stage.shows("000799"),
        "{}",
        stage.screen()
    );
    assert!(
        stage.shows("disk") && !stage.shows("()"),
        "nothing but its files of text: {}",
        stage.screen()
    );
    stage.keys("G");
    assert!(
        stage.shows("000700") && !stage.shows("000699"),
        "{}",
        stage.screen()
    );
}
