//! The list of runs as a table: chosen columns, groups, names, searches, and what is done to several runs at once.

use grpo_tui::run::{DeviceChoice, RunDirectory, change_tags, rename_run};
use grpo_tui::study::{FORMAT_VERSION, Metric, Setting, Sweep, SweepFolder, SweepRun};

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
        let mut stage = stage_with(columns, rows, seeds);
        stage.keys("b").types("setup\n").keys("enter");
        insta::assert_snapshot!(format!("runs_groups_{columns}x{rows}"), stage.screen());
    }
}

#[test]
fn groups_have_means_and_say_what_they_are_of() {
    let mut stage = stage_with(160, 48, seeds);
    stage.keys("b").types("tiers/valid\n");
    assert!(
        stage.shows("no matches"),
        "a measured value is not grouped by: {}",
        stage.screen()
    );
    // What runs can be grouped by is a list: first that in which these differ.
    stage.keys("ctrl-u");
    for expected in [
        "no groups",
        "setup  3 groups",
        "config.learning_rate  3 groups",
    ] {
        assert!(stage.shows(expected), "{expected}: {}", stage.screen());
    }
    stage.types("setup\n");
    assert!(
        stage.shows("Runs 4 in 3 groups by setup, mean ±std over runs"),
        "{}",
        stage.screen()
    );
    let row = |stage: &Stage, text: &str| {
        list(stage)
            .lines()
            .find(|line| line.contains(text))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        row(&stage, "learning_rate=0.5").contains("n=2")
            && row(&stage, "learning_rate=0.5").contains("99.0% ±0.0"),
        "{}",
        stage.screen()
    );
    assert!(
        !row(&stage, "learning_rate=0.25").contains('±'),
        "one run has no spread"
    );
    // What the groups differ in, and what is of a group.
    stage.keys("g j j");
    assert!(
        stage.shows("2 runs: bbbbbb, aaaaaa") && stage.shows("differ in seed (2 values)"),
        "{}",
        stage.screen()
    );
    stage.keys("p");
    assert!(
        stage.shows("a group is selected, not a run"),
        "{}",
        stage.screen()
    );
    stage.keys("enter");
    assert!(list(&stage).contains("bbbbbb") && !list(&stage).contains("cccccc"));
    stage.keys("enter");
    assert!(!list(&stage).contains("bbbbbb"));
    stage.keys("t").types("seeds\n");
    let tags = |id: &str| read_tags(&stage.folder.path().join("runs").join(id)).unwrap();
    assert_eq!(
        (
            tags("20261110-090000-invoice-aaaaaa"),
            tags("20261111-090000-invoice-bbbbbb")
        ),
        (vec!["seeds".to_owned()], vec!["seeds".to_owned()])
    );
    assert_eq!(tags("20261112-090000-invoice-cccccc"), [""; 0]);
    stage.keys("space");
    assert!(stage.shows("2 marked"));
    stage.keys("esc b").types("config.seed\n");
    assert!(
        stage.shows("in 4 groups by config.seed"),
        "{}",
        stage.screen()
    );
    stage.keys("esc");
    assert!(
        stage.shows("Runs 4 ") && !stage.shows("groups by"),
        "{}",
        stage.screen()
    );
}

#[test]
fn groups_of_several_tasks_have_no_mean() {
    let mut stage = stage_with(160, 48, several);
    stage.keys("b").types("job\n");
    assert!(
        stage.shows("different tasks: no mean over them"),
        "{}",
        stage.screen()
    );
    let screen = list(&stage);
    let group = screen
        .lines()
        .find(|line| line.contains("train, n="))
        .unwrap();
    assert!(!group.contains('%'), "{group}");
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

/// The runs of `seeds` as a sweep of two learning rates, of which one run has not begun.
fn swept(folder: &Path) {
    seeds(folder);
    let runs = folder.join("runs");
    let setting = |rate: &str| Setting {
        label: format!("learning_rate={rate}"),
        ..Setting::default()
    };
    let run = |setting: usize, seed: u64, id: &str| SweepRun {
        setting,
        seed,
        id: (!id.is_empty()).then(|| id.to_owned()),
        problem: None,
    };
    let ids = [
        "20261110-090000-invoice-aaaaaa",
        "20261111-090000-invoice-bbbbbb",
        "20261112-090000-invoice-cccccc",
    ];
    ids.iter()
        .for_each(|id| drop(change_tags(&runs.join(id), &["rates".to_owned()], &[]).unwrap()));
    let sweep = Sweep {
        version: FORMAT_VERSION,
        name: "rates".to_owned(),
        created_ms: 0,
        task: "invoice".to_owned(),
        task_digest: String::new(),
        other_tasks: Vec::new(),
        mix: None,
        preset: None,
        config_file: None,
        fixed: Vec::new(),
        metric: Metric::Valid,
        compute: DeviceChoice::Cpu,
        max_runs: None,
        max_hours: None,
        seconds: 0.0,
        settings: vec![setting("0.5"), setting("0.25")],
        runs: vec![
            run(0, 1, ids[0]),
            run(1, 3, ids[2]),
            run(0, 2, ids[1]),
            run(1, 4, ""),
        ],
    };
    SweepFolder::create(&runs, &sweep).unwrap();
}

#[test]
fn the_table_of_a_sweep_stands_in_the_details_of_its_runs() {
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = stage_with(columns, rows, swept);
        stage.keys("b").types("tags").keys("enter g");
        let row = stage
            .screen()
            .lines()
            .position(|line| line.contains("rates"))
            .unwrap();
        stage.keys("G").click(6, row as u16);
        assert!(
            stage.shows(
                "rates: sweep of task invoice, 4 seeds; 3 of 4 runs finished, 1 not started"
            ),
            "{}",
            stage.screen()
        );
        insta::assert_snapshot!(format!("runs_sweep_{columns}x{rows}"), stage.screen());
        stage.keys("tab");
        stage.keys("G");
        assert!(
            stage.shows("paired by seed"),
            "the end of the notes: {}",
            stage.screen()
        );
    }
}

#[test]
fn a_run_is_renamed_and_its_id_stays() {
    let mut stage = stage_with(160, 48, several);
    stage.keys("n ctrl-u").types("paper, seed 3\n");
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
    stage.keys("n ctrl-u enter");
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
    stage.keys("A d");
    assert!(
        stage.shows("aaaaaa is starting: stop it first"),
        "{}",
        stage.screen()
    );
    drop(worker);
    // And the trash.
    assert_eq!(std::fs::read_dir(&runs).unwrap().count(), 3);
}

#[test]
fn the_mouse_marks() {
    use crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
    let mut stage = stage_with(120, 36, seeds);
    let press = |stage: &mut Stage, column, row, modifiers| {
        stage.now_ms += 1_000;
        stage.send(grpo_tui::view::Message::Mouse(MouseEvent {
            kind: MouseEventKind::Down(MouseButton::Left),
            column,
            row,
            modifiers,
        }));
    };
    press(&mut stage, 2, 10, KeyModifiers::NONE);
    assert!(
        stage.shows("1 marked"),
        "beside the row: {}",
        stage.screen()
    );
    press(&mut stage, 30, 11, KeyModifiers::CONTROL);
    assert!(stage.shows("2 marked"));
    press(&mut stage, 30, 11, KeyModifiers::CONTROL);
    assert!(stage.shows("1 marked"));
    press(&mut stage, 30, 13, KeyModifiers::SHIFT);
    assert!(stage.shows("4 marked"), "{}", stage.screen());
    stage.keys("A");
    assert!(!stage.shows("marked"));
}

/// Members of a sweep and renamed runs differ in their names, which are there where any run has one.
#[test]
fn names_are_in_the_list_and_what_groups_differ_in_is_not_cut() {
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = stage_with(columns, rows, |folder| {
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
        // Of a setup only what differs, and all of it.
        stage.keys("b").types("setup\n");
        for expected in [
            "learning_rate=0.5, n=2",
            "learning_rate=0.25, n=1",
            "learning_rate=0.0015, n=1",
        ] {
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
