//! Tests: a run starts from the form, here, on a partition, or by the printed command.

use std::path::Path;

use grpo_tui::run::{DeviceChoice, Partition};
use grpo_tui::view::Screen;
use grpo_tui::view::screens::launch;

use super::super::harness::{Stage, finished_run};
use super::{answering, arguments, forecasting, go_to, printed, stage};

#[test]
fn enter_starts_a_run_and_goes_to_it() {
    let run = finished_run();
    let mut stage = Stage::with(120, 36, |options| {
        answering(
            options,
            &format!(
                "echo '{{\"path\": \"{}\", \"ready\": true}}'",
                run.display()
            ),
        )
    });
    stage.keys("f5");
    go_to(&mut stage, "run name");
    stage.keys("enter").types("my first").keys("enter");
    go_to(&mut stage, "device");
    stage.keys("right");
    assert_eq!(stage.model.launch.form.compute, DeviceChoice::Cpu);
    stage.keys("g enter");
    assert_eq!(
        arguments(&stage),
        [
            "train",
            "invoice",
            "--cpu",
            "--runs",
            "FOLDER/runs",
            "--detach",
            "--name=my first",
            "--json"
        ]
    );
    assert_eq!(stage.model.shared.screen, Screen::Live);
    assert_eq!(stage.model.shared.current.as_deref(), Some(Path::new(&run)));
}

#[test]
fn a_run_is_submitted_to_a_partition() {
    let run = finished_run();
    let plan = serde_json::json!({
        "script": "#!/bin/sh", "device": "gpu: 2 nodes x 8 GPUs", "steps": 40, "parameters": 8_190_000_000_u64, "trainable": 43_600_000,
        "memory": {"parts": [], "peak_bytes": 61_000_000_000_u64, "peak_recomputed_bytes": 61_000_000_000_u64, "machine_bytes": null},
        "disk": {"checkpoint_bytes": 9, "checkpoints": 3, "checkpoints_bytes": 27, "rollouts_bytes": 1, "evals_bytes": 1, "total_bytes": 29, "free_bytes": null},
        "recorded_seconds_per_step": null,
    });
    let mut stage = Stage::with(120, 36, |options| {
        let submitted = format!(
            "echo '{{\"path\": \"{}\", \"ready\": false, \"job\": 17}}'",
            run.display()
        );
        answering(
            options,
            &format!("case \"$*\" in *--plan*) echo '{plan}';; *) {submitted};; esac"),
        )
    });
    stage.keys("f5");
    let partition = |name: &str, gpus_per_node| Partition {
        name: name.to_owned(),
        is_up: true,
        nodes: 4,
        idle_nodes: 3,
        gpus_per_node,
        cpus_per_node: 64,
        time_limit: "2-00:00:00".to_owned(),
    };
    stage.model.launch.partitions = Some(Ok(vec![partition("gpu", 8), partition("cpu", 0)]));
    assert!(
        launch::rows(&stage.model.launch)
            .iter()
            .all(|row| row.title() != "nodes")
    );
    go_to(&mut stage, "device");
    stage.keys("left");
    assert!(
        stage.shows("Slurm partition cpu") && stage.shows("3 of 4 nodes free, 64 CPUs each"),
        "{}",
        stage.screen()
    );
    stage.keys("left");
    assert!(
        stage.shows("3 of 4 nodes free, 8 GPUs each"),
        "{}",
        stage.screen()
    );
    go_to(&mut stage, "nodes");
    stage.keys("right");
    go_to(&mut stage, "per node");
    stage.keys("left");
    assert!(
        stage.shows("8 GPUs") && stage.shows("gpu: 2 nodes x 8 GPUs"),
        "{}",
        stage.screen()
    );
    go_to(&mut stage, "time limit");
    stage.keys("enter").types("soon").keys("enter");
    assert!(stage.shows("cannot start"), "{}", stage.screen());
    stage.keys("enter ctrl-u").types("12:00:00").keys("enter t");
    assert!(
        stage.shows("samples are drawn on this machine"),
        "{}",
        stage.screen()
    );
    stage.keys("f");
    for text in [
        "40 steps on gpu: 2 nodes x 8 GPUs",
        "time    n/a (no such run",
        "61.0 GB",
    ] {
        assert!(stage.shows(text), "{text}\n{}", stage.screen());
    }
    stage.keys("g enter");
    let expected = [
        "--slurm",
        "gpu",
        "--nodes=2",
        "--gpus-per-node=8",
        "--time=12:00:00",
    ];
    assert_eq!(
        arguments(&stage),
        [
            &["train", "invoice"],
            &expected[..],
            &["--runs", "FOLDER/runs", "--json"]
        ]
        .concat()
    );
    assert_eq!(stage.model.shared.screen, Screen::Live);
    assert!(
        stage.shows("is submitted as Slurm job 17"),
        "{}",
        stage.screen()
    );
}

#[test]
fn the_printed_command_trains_what_the_form_does() {
    let mut stage = stage(120, 36);
    let with_runs = |stage: &Stage| {
        format!(
            "--runs {}",
            stage
                .model
                .shared
                .options
                .run_folders
                .for_new_runs()
                .display()
        )
        .replace(&stage.folder.path().display().to_string(), "FOLDER")
    };
    let expected = format!("grpo-tui train invoice {} --detach", with_runs(&stage));
    assert_eq!(printed(&mut stage), expected);
    // Saved, the sample is a copy in the data folder, which its name alone does not mean.
    stage.keys("f2 enter").types(" ").keys("esc w f5");
    go_to(&mut stage, "run name");
    stage.keys("enter").types("my first").keys("enter");
    let expected = format!(
        "grpo-tui train FOLDER/data/tasks/invoice {} --detach '--name=my first'",
        with_runs(&stage)
    );
    assert_eq!(printed(&mut stage), expected);
    stage.keys("f");
    assert_eq!(
        arguments(&stage)[1],
        "FOLDER/data/tasks/invoice",
        "as the form does"
    );
    // From another folder it goes there first; a task of the workspace has its name.
    let mut stage = Stage::with(120, 36, |options| {
        forecasting(options);
        options.shell = "/elsewhere".into();
        crate::program::sample_task(&options.here.join("tasks/invoice"), crate::program::ALL);
    });
    stage.keys("f5");
    let expected = format!(
        "cd FOLDER && grpo-tui train invoice {} --detach",
        with_runs(&stage)
    );
    assert_eq!(printed(&mut stage), expected);
}
