//! Runs that wait: for Slurm, and for a device that another run has.

use grpo_tui::run::{Device, EvalProgress, Holder, Waiting};

use super::*;

#[test]
fn a_run_that_waits_for_slurm_says_why() {
    let mut stage = stage_with(120, 36, |folder| {
        let run = copy_run(
            &folder.join("runs"),
            "20261120-143041-invoice-6sx3dn",
            "",
            "finished",
        );
        for name in ["events.jsonl", "events.index", "state.json"] {
            _ = std::fs::remove_file(run.join(name));
        }
        std::fs::write(run.join("events.jsonl"), "").unwrap();
        // Of a submission that sbatch has not answered yet, so that nobody asks about it.
        let now_ms = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis();
        let job = serde_json::json!({
            "version": 1, "job": null, "partition": "gpu", "nodes": 2, "gpus_per_node": 4, "ranks": 8,
            "submitted_ms": now_ms as u64, "state": "PENDING", "reason": "Resources", "start_ms": null,
            "expected_start_ms": null, "asked_ms": now_ms as u64,
        });
        std::fs::write(run.join("slurm.json"), job.to_string()).unwrap();
    });
    stage.keys("1 g");
    assert!(
        stage.shows("waiting") && stage.shows("Slurm job in partition gpu, 2 nodes x 4 GPUs"),
        "{}",
        stage.screen()
    );
    stage.keys("enter");
    assert_eq!(stage.model.shared.screen, Screen::Live);
    for part in [
        "is waiting",
        "2 nodes x 4 GPUs: Resources (not enough nodes are free)",
        "stop it",
    ] {
        assert!(stage.shows(part), "{part}:\n{}", stage.screen());
    }
}

#[test]
fn a_waiting_run_says_which_run_has_the_device() {
    let alive = std::cell::RefCell::new(None);
    let mut stage = stage_with(160, 48, |folder| {
        let runs = folder.join("runs");
        let first = copy_run(&runs, "20261118-090000-invoice-aaaaaa", "", "running");
        let second = copy_run(&runs, "20261119-090000-invoice-bbbbbb", "", "running");
        _ = std::fs::remove_file(second.join("events.index"));
        std::fs::write(second.join("events.jsonl"), "").unwrap();
        let begin = |path: &Path| {
            Worker::begin(&RunDirectory::open(path).unwrap(), Default::default()).unwrap()
        };
        let workers = (begin(&first), begin(&second));
        workers.0.state().status(Status::Running, 3, None).unwrap();
        let eval = EvalProgress {
            step: Some(3),
            set: "eval".into(),
            answers: 12,
            total: 50,
            seconds: 12.0,
            ..EvalProgress::default()
        };
        workers.0.state().eval(Some(eval)).unwrap();
        let holder = Holder {
            process: Some(std::process::id()),
            user: "root".to_owned(),
            since: "10:00:00".to_owned(),
        };
        workers
            .1
            .state()
            .wait(&Waiting {
                device: Device::Cpu,
                count: 1,
                ahead: 1,
                holder: Some(holder),
            })
            .unwrap();
        *alive.borrow_mut() = Some(workers);
    });
    // The one that computes is opened, not the newer one that waits for it.
    let opened = stage.model.shared.current.clone().unwrap();
    assert!(
        opened.ends_with("20261118-090000-invoice-aaaaaa"),
        "{opened:?}"
    );
    stage.keys("1 g");
    assert!(
        stage.shows("position 2") && stage.shows("(run aaaaaa)"),
        "{}",
        stage.screen()
    );
    // One that is sampling an eval says how far it is, and nothing of the end of the worker before.
    assert!(
        stage.shows("aaaaaa running · eval of step 3 on eval: 12 of 50"),
        "{}",
        stage.screen()
    );
    stage.keys("j");
    assert!(
        stage.shows("running: eval of step 3 on eval: 12 of 50"),
        "{}",
        stage.screen()
    );
    // What it waits for and about how long, and what can be done meanwhile.
    stage.keys("k enter");
    for expected in [
        "waiting for aaaaaa invoice (about 3",
        "list runs, open aaaaaa",
        "score completions",
    ] {
        assert!(stage.shows(expected), "{expected}: {}", stage.screen());
    }
    drop(alive);
}
