//! The list of runs as a table: names, and what is done to several runs at once.

use grpo_tui::run::{RunDirectory, rename_run};

use super::*;

/// Four runs of two setups that differ in the seed only, and the recorded one.
fn seeds(folder: &Path) {
    let runs = folder.join("runs");
    copy_run(
        &runs,
        "20261120-143041-invoice-6sx3dn",
        "small adapters",
        "finished",
    );
    for (index, (id, rate)) in [("aaaaaa", "0.5"), ("bbbbbb", "0.5"), ("cccccc", "0.25")]
        .into_iter()
        .enumerate()
    {
        let run = copy_run(
            &runs,
            &format!("2026111{index}-090000-invoice-{id}"),
            "",
            "finished",
        );
        let changes = [
            ("learning_rate = 0.0015", format!("learning_rate = {rate}")),
            ("seed = 0", format!("seed = {}", index + 1)),
        ];
        change(
            &run.join("run.toml"),
            &changes.each_ref().map(|(from, to)| (*from, to.as_str())),
        );
    }
}

fn list(stage: &Stage) -> String {
    super::list_of(&stage.screen())
}

#[test]
fn pictures_of_the_table() {
    for (columns, rows) in [(120, 36), (80, 24)] {
        let stage = stage_with(columns, rows, several);
        insta::assert_snapshot!(format!("runs_{columns}x{rows}"), stage.screen());
    }
}

/// A long list takes the lines that the details leave free.
#[test]
fn free_lines_go_to_the_list() {
    let stage = stage_with(120, 40, |folder| {
        for index in 10..50 {
            drop(link_run(
                &folder.join("runs"),
                &format!(
                    "202611{:02}-0900{index}-invoice-aaaa{index}",
                    10 + index % 10
                ),
                "",
                "finished",
            ));
        }
    });
    let screen = stage.screen();
    let lines: Vec<&str> = screen.lines().collect();
    let bottom = lines
        .iter()
        .rposition(|line| line.starts_with('└'))
        .unwrap();
    let is_free = lines[bottom - 1].trim_matches(['│', ' ']).is_empty();
    assert!(!is_free && list(&stage).contains('┃'), "{screen}");
}

#[test]
fn a_run_is_renamed_and_its_id_stays() {
    let mut stage = stage_with(160, 48, several);
    stage
        .command("rename run")
        .keys("ctrl-u")
        .types("paper, seed 3\n");
    assert!(
        stage.shows("6sx3dn is now paper, seed 3") && list(&stage).contains("paper, seed 3"),
        "{}",
        stage.screen()
    );
    let path = stage
        .folder
        .path()
        .join("runs/20261120-143041-invoice-6sx3dn");
    let run = RunDirectory::open(&path).unwrap();
    assert_eq!(
        (run.name(), run.id(), run.file().name.as_str()),
        (
            "paper, seed 3",
            "20261120-143041-invoice-6sx3dn",
            "small adapters"
        )
    );
    // Both names find it, as references by the old one stay.
    let run_folders =
        RunFolders::discover(Some(&stage.folder.path().join("runs")), stage.folder.path());
    for name in ["paper, seed 3", "small adapters"] {
        assert_eq!(run_folders.find(name).unwrap().path(), path);
    }
    stage.keys("/").types("paper").keys("enter");
    assert!(stage.shows("Runs 1 of 5"));
    stage.command("rename run").keys("ctrl-u enter");
    assert_eq!(RunDirectory::open(&path).unwrap().name(), "small adapters");
    rename_run(&path, "again").unwrap();
    stage.tick_after(2_000);
    stage.keys("esc");
    assert!(
        list(&stage).contains("again"),
        "a name given elsewhere appears: {}",
        stage.screen()
    );
}

#[test]
fn marked_runs_are_deleted_together() {
    let mut stage = stage_with(120, 36, seeds);
    let runs = stage.folder.path().join("runs");
    stage.keys("space j space");
    stage.keys("d");
    assert!(
        stage.shows("Delete 2 runs?")
            && stage.shows("6 checkpoints")
            && stage.shows("6sx3dn (small adapters), bbbbbb:"),
        "{}",
        stage.screen()
    );
    stage.keys("n");
    assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 4);
    stage.keys("d y");
    assert!(
        stage.shows("2 runs are in the trash (") && stage.shows("Runs 2") && !stage.shows("marked"),
        "{}",
        stage.screen()
    );
    // One that is active keeps all of them.
    let worker = Worker::begin(
        &RunDirectory::open(&runs.join("20261110-090000-invoice-aaaaaa")).unwrap(),
        Default::default(),
    )
    .unwrap();
    stage.tick_after(2_000);
    stage.keys("space j space d");
    assert!(
        stage.shows("aaaaaa is starting: stop it first"),
        "{}",
        stage.screen()
    );
    drop(worker);
    // And the trash.
    assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 3);
}

/// Members of a sweep and renamed runs differ in their names, which are there where any run has one.
#[test]
fn names_are_in_the_list() {
    for (columns, rows) in [(120, 36), (80, 24)] {
        let stage = stage_with(columns, rows, |folder| {
            seeds(folder);
            let runs = folder.join("runs");
            for (index, id) in [
                "20261110-090000-invoice-aaaaaa",
                "20261111-090000-invoice-bbbbbb",
            ]
            .iter()
            .enumerate()
            {
                rename_run(&runs.join(id), &format!("rates-00{}", index + 1)).unwrap();
            }
        });
        for expected in ["rates-001", "rates-002", "small adap", "age"] {
            assert!(
                list(&stage).contains(expected),
                "{expected}: {}",
                stage.screen()
            );
        }
    }
    let stage = stage_with(120, 36, |folder| {
        drop(copy_run(
            &folder.join("runs"),
            "20261120-143041-invoice-6sx3dn",
            "",
            "finished",
        ))
    });
    assert!(
        !list(&stage).contains("name") && list(&stage).contains("task"),
        "{}",
        stage.screen()
    );
}

/// Where no later checkpoint is better, the base is not compared with itself.
#[test]
fn a_base_that_is_best_stands_alone() {
    let stage = stage_with(120, 36, |folder| {
        let run = copy_run(
            &folder.join("runs"),
            "20261120-143041-invoice-6sx3dn",
            "",
            "finished",
        );
        ["step-000030", "step-000040"]
            .iter()
            .for_each(|step| std::fs::remove_dir_all(run.join("checkpoints").join(step)).unwrap());
    });
    assert!(stage.shows("the base: no later"), "{}", stage.screen());
    let screen = stage.screen();
    let line = screen
        .lines()
        .find(|line| line.contains("test valid"))
        .unwrap();
    assert!(!line.contains('→'), "{line}");
}

/// The results come first, and scrolling ends with the last line.
#[test]
fn a_comparison_of_runs_begins_with_its_results_and_ends() {
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = stage_with(columns, rows, seeds);
        stage.keys("space space c");
        assert!(
            stage.shows("vs the first on the same test prompts"),
            "{}",
            stage.screen()
        );
        stage.keys("G");
        let last = stage.screen();
        assert!(last.contains("tokens_per_second/train"), "{last}");
        stage.keys("j j pagedown");
        assert_eq!(stage.screen(), last);
        stage.keys("k");
        assert_ne!(stage.screen(), last, "one key goes back at once");
    }
}
