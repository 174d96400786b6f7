//! Several ranks compute the run that one computes: the same number the same bytes, another number the same run within
//! rounding. A rank that dies ends the run, which says so and goes on from its checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use grpo_tui::run::{RunState, checkpoint_path, list_checkpoints, read_evals};

use crate::program::{call, copy_tree, program, sample_data, small_task, stderr, until};
use crate::training::guided::{COLLAPSING, write_hopeless};

const SMALL: [&str; 5] = [
    "max_steps=4",
    "eval_every=2",
    "completions_per_prompt=4",
    "prompt_groups_per_step=3",
    "seed=5",
];

/// Of a training of the small task, with its runs in `home`.
fn arguments(home: &Path, ranks: usize, set: &[&str]) -> Vec<String> {
    arguments_for(&small_task(home), home, ranks, set)
}

pub(crate) fn arguments_for(task: &Path, home: &Path, ranks: usize, set: &[&str]) -> Vec<String> {
    let (task, runs) = (
        task.display().to_string(),
        home.join("runs").display().to_string(),
    );
    let plain = [
        "train",
        &task,
        "--runs",
        &runs,
        "--cpu",
        "--ranks",
        &ranks.to_string(),
    ]
    .map(str::to_owned);
    let set = SMALL
        .iter()
        .chain(set)
        .flat_map(|value| ["--set".to_owned(), (*value).to_owned()]);
    plain.into_iter().chain(set).collect()
}

pub(crate) fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// The run of the small task that others are compared with, once for each number of ranks.
fn plain(ranks: usize) -> PathBuf {
    static RUNS: [OnceLock<PathBuf>; 3] = [const { OnceLock::new() }; 3];
    let train = || {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("plain-ranks-{ranks}"));
        _ = std::fs::remove_dir_all(&home);
        trained(&home, ranks, &[])
    };
    RUNS[ranks - 1].get_or_init(train).clone()
}

/// A run of the small task in a folder of its own, to its end.
fn trained(folder: &Path, ranks: usize, set: &[&str]) -> PathBuf {
    let home = folder.join(format!("{ranks}-{}", set.concat().replace('=', "-")));
    std::fs::create_dir_all(&home).unwrap();
    let output = call(&home, &words(&arguments(&home, ranks, set)));
    assert!(
        output.status.success(),
        "{ranks} ranks, {set:?}: {}",
        stderr(&output)
    );
    run_in(&home)
}

pub(crate) fn run_in(home: &Path) -> PathBuf {
    let mut found = std::fs::read_dir(home.join("runs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir());
    found.next().unwrap()
}

/// Weights and moments of the last checkpoint.
fn checkpoint(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let folder = checkpoint_path(run, *list_checkpoints(run).unwrap().last().unwrap());
    let names = [
        "model.safetensors",
        "adapter_model.safetensors",
        "optimizer.safetensors",
    ];
    let bytes = names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::fs::read(folder.join(name)).ok()?)));
    bytes.collect()
}

/// Of two checkpoints: relative differences of weights and of moments, in f64 norms over all numbers.
#[track_caller]
fn assert_close(
    found: &BTreeMap<String, Vec<u8>>,
    expected: &BTreeMap<String, Vec<u8>>,
    what: &str,
) {
    let numbers = |file: &[u8]| -> Vec<f64> {
        let found = safetensors::SafeTensors::deserialize(file).unwrap();
        let mut tensors = found.tensors();
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        let bytes = tensors
            .iter()
            .flat_map(|(_, view)| view.data().as_chunks::<4>().0);
        bytes
            .map(|number| f64::from(f32::from_le_bytes(*number)))
            .collect()
    };
    for (file, tolerance) in [("model.safetensors", 1e-6), ("optimizer.safetensors", 1e-5)] {
        let (found, expected) = (numbers(&found[file]), numbers(&expected[file]));
        assert_eq!(found.len(), expected.len());
        let norm = |numbers: &mut dyn Iterator<Item = f64>| {
            numbers.map(|number| number * number).sum::<f64>().sqrt()
        };
        let size = norm(&mut expected.iter().copied());
        let relative = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b)) / size;
        println!("{what}, {file}: {relative:.1e}");
        assert!(
            size > 0.0 && relative < tolerance,
            "{what}, {file}: relative difference {relative:.1e}"
        );
    }
}

/// What was sampled, by step and prompt; what the evals said.
pub(crate) fn sampled(run: &Path) -> Vec<String> {
    let state = RunState::read(run).unwrap();
    let groups = state.groups.iter().flat_map(|(step, groups)| {
        groups.values().map(move |group| {
            format!(
                "{step} {} {:?} {:?}",
                group.prompt_id, group.rewards, group.token_counts
            )
        })
    });
    let evals = state.evals.iter().map(|(key, eval)| {
        let records = read_evals(&run.join(&eval.file)).unwrap();
        format!(
            "{key:?} {:?}",
            records
                .into_iter()
                .map(|record| record.completion)
                .collect::<Vec<_>>()
        )
    });
    groups.chain(evals).collect()
}

#[test]
fn another_number_of_ranks_trains_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let kinds: [&[&str]; 5] = [
        &[],
        &["lora_rank=4", "learning_rate=1e-3", "kl_beta=0.01"],
        &[
            "weight_sync_interval=2",
            "policy_loss=gspo",
            "dynamic_sampling=true",
            "prompt_sampling=adaptive",
            "max_rows=4",
        ],
        &["method=sft"],
        &["method=distill", "teacher=expected"],
    ];
    for set in kinds {
        let runs = [1, 2, 3].map(|ranks| {
            if set.is_empty() {
                plain(ranks)
            } else {
                trained(folder.path(), ranks, set)
            }
        });
        let [alone, two, three] = runs
            .each_ref()
            .map(|run| (sampled(run), RunState::read(run).unwrap()));
        let norms = |state: &RunState| state.metrics["grad_norm"].values().to_vec();
        for (ranks, (found, state)) in [(2, &two), (3, &three)] {
            assert_eq!(*found, alone.0, "{ranks} ranks, {set:?}");
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-4 * a.abs();
            assert!(
                norms(state).iter().zip(&norms(&alone.1)).all(close),
                "{set:?}: {:?}",
                norms(state)
            );
        }
        // What each did; of one nobody asks.
        for (ranks, state) in [(0, &alone.1), (2, &two.1), (3, &three.1)] {
            assert_eq!(state.ranks.len(), ranks, "{set:?}");
            assert_eq!(
                state.metrics.contains_key("ranks/imbalance"),
                ranks > 0,
                "{set:?}"
            );
            assert!(
                state
                    .ranks
                    .iter()
                    .all(|rank| rank.condition.device == "cpu"),
                "{:?}",
                state.ranks
            );
            if ranks > 0 && set.is_empty() {
                let counted: usize = state.groups[&4]
                    .values()
                    .flat_map(|group| &group.token_counts)
                    .sum();
                assert_eq!(
                    state
                        .ranks
                        .iter()
                        .map(|rank| rank.sampled_tokens)
                        .sum::<usize>(),
                    counted
                );
                let waited = state
                    .ranks
                    .iter()
                    .map(|rank| rank.waited_seconds)
                    .fold(0.0, f64::max);
                assert!(
                    waited > 0.0 && waited < state.metrics["step_time"].at(4).unwrap(),
                    "{:?}",
                    state.ranks
                );
            }
        }
        let device = |state: &RunState| state.run.as_ref().unwrap().device.clone();
        assert!(
            device(&three.1).starts_with("cpu, 3 ranks of "),
            "{}",
            device(&three.1)
        );
    }
}

#[test]
fn the_same_number_of_ranks_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for ranks in [2, 3] {
        let [one, other] =
            ["threads=0", "threads=1"].map(|threads| trained(folder.path(), ranks, &[threads]));
        assert!(
            checkpoint(&one).len() == 2 && checkpoint(&one) == checkpoint(&other),
            "{ranks} ranks"
        );
    }
}

/// Every weight is trained: each rank moves its part. In several micro-batches, and with weight decay for some tensors.
#[test]
fn weights_and_moments_are_those_of_one_rank() {
    let folder = tempfile::tempdir().unwrap();
    for method in [
        &["method=sft"][..],
        &["warmup_steps=2"],
        &["kl_beta=0.05", "policy_loss=dapo", "learning_rate=1e-5"],
    ] {
        let set = [
            method,
            &[
                "lora_rank=0",
                "weight_decay=0.1",
                "tokens_per_micro_batch=128",
            ],
        ]
        .concat();
        let [alone, two, three] =
            [1, 2, 3].map(|ranks| checkpoint(&trained(folder.path(), ranks, &set)));
        for (ranks, found) in [(2, two), (3, three)] {
            assert_close(&found, &alone, &format!("{ranks} ranks, {method:?}"));
        }
    }
}

/// A checkpoint is the same whoever wrote it: any number of ranks goes on from it.
#[test]
fn a_checkpoint_resumes_with_any_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let expected = trained(folder.path(), 3, &["method=sft", "max_steps=6"]);
    for ranks in ["1", "2", "3"] {
        let home = folder.path().join(format!("from-3-to-{ranks}"));
        std::fs::create_dir_all(&home).unwrap();
        let arguments = arguments(&home, 3, &["method=sft", "max_steps=6"]);
        // Rank 0, in the fifth step.
        let output = with_fault(&home, &words(&arguments), "update.scattered=0:5");
        assert!(!output.status.success());
        let run = run_in(&home);
        assert_eq!(list_checkpoints(&run).unwrap().last(), Some(&4));
        let resumed = resume(&home, &run, &["--ranks", ranks]);
        assert!(resumed.status.success(), "{}", stderr(&resumed));
        match ranks {
            "3" => assert!(checkpoint(&run) == checkpoint(&expected)),
            _ => assert_close(
                &checkpoint(&run),
                &checkpoint(&expected),
                &format!("from 3 to {ranks}"),
            ),
        }
    }
}

/// Between the sum of the gradients and the exchange of the weights, and while its numbers are asked for.
#[test]
fn a_rank_that_dies_in_an_update_or_a_checkpoint_is_named_and_the_run_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let expected = plain(3);
    for (index, (fault, kept)) in [
        ("update.scattered=2:3", Some(2)),
        ("checkpoint.numbers=2:2", Some(0)),
    ]
    .into_iter()
    .enumerate()
    {
        let home = folder.path().join(index.to_string());
        std::fs::create_dir_all(&home).unwrap();
        let output = with_fault(&home, &words(&arguments(&home, 3, &[])), fault);
        let message = stderr(&output);
        assert!(
            output.status.code() == Some(1) && message.contains("rank 2 (pid "),
            "{fault}: {message}"
        );
        assert!(
            message.contains("was lost: the connection was closed"),
            "{fault}: {message}"
        );
        let run = run_in(&home);
        assert_eq!(
            list_checkpoints(&run).unwrap().last().copied(),
            kept,
            "{fault}"
        );
        let resumed = resume(&home, &run, &[]);
        assert!(resumed.status.success(), "{fault}: {}", stderr(&resumed));
        assert!(
            checkpoint(&run) == checkpoint(&expected) && sampled(&run) == sampled(&expected),
            "{fault}"
        );
    }
}

/// Before anything is summed, so that all ranks still have the same weights.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn memory_that_runs_out_on_one_rank_shrinks_the_shape_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let expected = checkpoint(&plain(2));
    for rank in [0, 1] {
        let home = folder.path().join(format!("rank-{rank}"));
        std::fs::create_dir_all(&home).unwrap();
        let output = with_fault(
            &home,
            &words(&arguments(&home, 2, &[])),
            &format!("gradient.memory={rank}:2"),
        );
        assert!(output.status.success(), "rank {rank}: {}", stderr(&output));
        let run = run_in(&home);
        let alert = RunState::read(&run).unwrap().alerts["out_of_memory"].clone();
        assert!(alert.sentence.contains("recomputed with"), "{alert:?}");
        assert_eq!(RunState::read(&run).unwrap().last_step, 4);
        assert_close(
            &checkpoint(&run),
            &expected,
            &format!("memory ran out on rank {rank}"),
        );
    }
}

#[test]
fn a_rank_that_dies_ends_the_run_and_a_resumed_one_is_as_uninterrupted() {
    let folder = tempfile::tempdir().unwrap();
    let expected = plain(3);
    let (worker, ranks) = started(folder.path(), 3, &[], 2);
    assert_eq!(ranks.len(), 2, "{ranks:?}");
    let start = Instant::now();
    kill(ranks[1], rustix::process::Signal::KILL);
    let output = worker.wait_with_output().unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    let message = stderr(&output);
    assert!(
        output.status.code() == Some(1)
            && message.contains(&format!("rank 2 (pid {} on ", ranks[1].as_raw_nonzero()))
            && message.contains("was lost: the connection was closed"),
        "{message}"
    );
    until("the other rank has ended", || !is_alive(ranks[0]));
    let run = run_in(folder.path());
    let end = RunState::read(&run).unwrap().end.unwrap();
    assert!(
        end.status == "failed" && end.cause.contains("rank 2"),
        "{end:?}"
    );
    let resumed = resume(folder.path(), &run, &[]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(checkpoint(&run) == checkpoint(&expected) && sampled(&run) == sampled(&expected));
}

/// A process that is stopped keeps its connection open.
#[test]
fn a_rank_that_hangs_ends_the_run_within_20_seconds_and_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (worker, ranks) = started(folder.path(), 2, &["max_steps=500"], 1);
    let start = Instant::now();
    kill(ranks[0], rustix::process::Signal::STOP);
    let output = worker.wait_with_output().unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    assert!(
        stderr(&output).contains("was lost: no sign of life for 12 s"),
        "{}",
        stderr(&output)
    );
    assert!(!is_alive(ranks[0]));
}

/// All ranks restore the weights; the worker dies once the collapse is in the log, or in the step after the recovery.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn ranks_recover_from_a_collapse_together_and_a_resumed_run_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let collapsing = |name: &str| {
        let home = folder.path().join(name);
        let task = write_hopeless(&home, true);
        let arguments = arguments_for(
            &task,
            &home,
            2,
            &[&COLLAPSING[..], &["checkpoint_every=2"]].concat(),
        );
        (home, arguments)
    };
    let (home, arguments) = collapsing("whole");
    let output = call(&home, &words(&arguments));
    assert!(output.status.success(), "{}", stderr(&output));
    let expected = run_in(&home);
    let state = RunState::read(&expected).unwrap();
    let [collapse] = state.collapses.as_slice() else {
        panic!("{:?}", state.collapses)
    };
    assert_eq!(
        (collapse.step, collapse.restored_step, state.ranks.len()),
        (5, 0, 2)
    );
    assert_eq!(
        [5, 6].map(|step| state.metrics["groups/frac_guided"].at(step)),
        [Some(0.0), Some(1.0)]
    );
    for (fault, kept) in [("line.after=collapse:1", 4), ("line.after=step:6", 5)] {
        let (home, arguments) = collapsing(fault);
        assert!(
            !with_fault(&home, &words(&arguments), fault)
                .status
                .success(),
            "{fault}"
        );
        let run = run_in(&home);
        assert_eq!(
            list_checkpoints(&run).unwrap().last(),
            Some(&kept),
            "{fault}"
        );
        let resumed = resume(&home, &run, &[]);
        assert!(resumed.status.success(), "{fault}: {}", stderr(&resumed));
        assert!(
            checkpoint(&run) == checkpoint(&expected) && sampled(&run) == sampled(&expected),
            "{fault}"
        );
    }
}

#[test]
fn ranks_end_with_the_worker_and_another_number_goes_on_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let expected = plain(2);
    let (mut worker, ranks) = started(folder.path(), 2, &[], 2);
    worker.kill().unwrap();
    worker.wait().unwrap();
    until("the rank has ended", || !is_alive(ranks[0]));
    let run = run_in(folder.path());
    let resumed = resume(folder.path(), &run, &["--ranks", "3"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert_eq!(sampled(&run), sampled(&expected));
    let log = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    assert!(
        log.contains("cpu, 2 ranks of") && log.contains("cpu, 3 ranks of"),
        "{log}"
    );
}

#[test]
fn a_signal_stops_after_the_step_with_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (mut worker, ranks) = started(folder.path(), 2, &["max_steps=50"], 1);
    kill(
        rustix::process::Pid::from_child(&worker),
        rustix::process::Signal::INT,
    );
    assert_eq!(worker.wait().unwrap().code(), Some(130));
    until("the rank has ended", || !is_alive(ranks[0]));
    let state = RunState::read(&run_in(folder.path())).unwrap();
    assert_eq!(
        list_checkpoints(&run_in(folder.path())).unwrap().last(),
        Some(&state.last_step)
    );
}

/// As srun, torchrun and mpirun start them: the same command line for all, and variables that differ.
#[test]
fn ranks_that_a_launcher_starts_are_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let expected = plain(2);
    let launchers = [
        "RANK=N LOCAL_RANK=N WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500",
        "SLURM_PROCID=N SLURM_LOCALID=N SLURM_NTASKS=2 SLURM_STEP_NODELIST=here SLURM_STEP_TASKS_PER_NODE=2 SLURM_JOB_ID=7 SLURM_STEP_ID=0",
        "OMPI_COMM_WORLD_RANK=N OMPI_COMM_WORLD_LOCAL_RANK=N OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_SIZE=2",
    ];
    for (index, launcher) in launchers.into_iter().enumerate() {
        let home = folder.path().join(format!("launcher-{index}"));
        std::fs::create_dir_all(&home).unwrap();
        let mut arguments = arguments(&home, 2, &[]);
        arguments.retain(|word| word != "--ranks" && word != "2");
        let start = |rank: &str| {
            let variables = launcher
                .split(' ')
                .map(|variable| variable.split_once('=').unwrap());
            let variables = variables.map(|(name, value)| (name, value.replace('N', rank)));
            program(&home, &words(&arguments))
                .envs(variables)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        // Whoever comes first waits.
        let other = start("1");
        let output = start("0").wait_with_output().unwrap();
        let other = other.wait_with_output().unwrap();
        assert!(
            output.status.success() && other.status.success(),
            "{}{}",
            stderr(&output),
            stderr(&other)
        );
        let run = run_in(&home);
        assert!(
            checkpoint(&run) == checkpoint(&expected) && sampled(&run) == sampled(&expected),
            "{launcher:?}"
        );
        let left = crate::program::names(&home.join("runs"));
        assert!(
            !left.iter().any(|name| name.starts_with(".ranks")),
            "{left:?}"
        );
    }
}

#[test]
fn a_launcher_that_does_not_start_all_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let alone = |name: &str, rank: &str, size: &str, more: &[&str]| {
        let variables = [
            ("OMPI_COMM_WORLD_RANK", rank),
            ("OMPI_COMM_WORLD_SIZE", size),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "1"),
        ];
        let home = folder.path().join(name);
        std::fs::create_dir_all(&home).unwrap();
        let arguments = arguments(&home, 2, &[]);
        let arguments: Vec<&str> = arguments
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        let output = program(&home, &arguments)
            .envs(variables)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let runs = std::fs::read_dir(home.join("runs")).map_or(0, Iterator::count);
        (output.status.code(), runs, stderr(&output))
    };
    let check = |(code, runs, message): (Option<i32>, usize, String),
                 expected_code: i32,
                 expected: &str| {
        assert!(
            code == Some(expected_code) && runs == 0 && message.contains(expected),
            "{code:?} {runs} {message}"
        );
    };
    check(
        alone("a", "0", "2", &["--detach"]),
        2,
        "--detach: a launcher has started this process",
    );
    check(
        alone("b", "0", "3", &[]),
        2,
        "--ranks: the launcher has started 3",
    );
    check(alone("c", "4", "2", &[]), 1, "mpirun: rank 4 of 2");
    // Each waits for the other elsewhere.
    std::thread::scope(|scope| {
        let first = scope.spawn(|| alone("d", "0", "2", &[]));
        check(
            alone("e", "1", "2", &[]),
            1,
            "rank 0 was not found within 60 s",
        );
        check(
            first.join().unwrap(),
            1,
            "rank 1 did not start: no connection within 60 s",
        );
    });
}

/// Each host has its own cache of models here.
#[test]
fn a_rank_with_another_model_is_refused_and_leaves_no_run() {
    let home = tempfile::tempdir().unwrap();
    let cache = |name: &str| home.path().join(name);
    for name in ["here", "there"] {
        let model = cache(name).join("hub/models--org--small");
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::write(model.join("refs/main"), "x").unwrap();
        copy_tree(&sample_data("models/tiny"), &model.join("snapshots/x"));
    }
    let weights = cache("there").join("hub/models--org--small/snapshots/x/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let mut arguments = arguments(home.path(), 2, &["base_model=org/small"]);
    arguments.retain(|word| word != "--ranks" && word != "2");
    let start = |rank: &str, cache: PathBuf| {
        let variables = [
            ("OMPI_COMM_WORLD_RANK", rank),
            ("OMPI_COMM_WORLD_LOCAL_RANK", rank),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
        ];
        let mut command = program(home.path(), &words(&arguments));
        command
            .envs(variables)
            .env("HF_HOME", cache)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let other = start("1", cache("there"));
    let output = start("0", cache("here")).wait_with_output().unwrap();
    let other = other.wait_with_output().unwrap();
    for output in [&output, &other] {
        let message = stderr(output);
        assert!(
            output.status.code() == Some(1) && message.contains("the files of `org/small` changed"),
            "{message}"
        );
        assert!(
            message.contains("all hosts need the same runs folder (--runs DIR) and the same model"),
            "{message}"
        );
    }
    assert!(
        stderr(&output).contains("rank 1 (pid "),
        "{}",
        stderr(&output)
    );
    assert_eq!(
        std::fs::read_dir(home.path().join("runs")).unwrap().count(),
        0
    );
}

#[test]
fn more_gpus_than_there_are_are_refused_before_a_run_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let task = small_task(folder.path()).display().to_string();
    let output = call(
        folder.path(),
        &["train", &task, "--runs", "runs", "--gpus", "1000"],
    );
    let message = stderr(&output);
    assert!(
        !output.status.success() && message.contains("compute with --cpu"),
        "{message}"
    );
    assert!(!folder.path().join("runs").exists());
}

/// A worker whose process, or that of the rank that is named, dies at this place.
fn with_fault(home: &Path, arguments: &[&str], fault: &str) -> Output {
    program(home, arguments)
        .env("GRPO_TUI_FAULT", fault)
        .stderr(Stdio::piped())
        .output()
        .unwrap()
}

fn resume(folder: &Path, run: &Path, more: &[&str]) -> Output {
    call(
        folder,
        &[
            &["train", "--resume", &run.display().to_string(), "--cpu"],
            more,
        ]
        .concat(),
    )
}

/// A training with so many ranks, and the others of these, once it has finished a step.
fn started(
    folder: &Path,
    ranks: usize,
    set: &[&str],
    step: u64,
) -> (Child, Vec<rustix::process::Pid>) {
    let arguments = arguments(folder, ranks, set);
    let mut worker = program(folder, &words(&arguments))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ranks = after_step(&mut worker, folder, step);
    (worker, ranks)
}

/// The other ranks of a worker that has finished a step.
fn after_step(worker: &mut Child, folder: &Path, step: u64) -> Vec<rustix::process::Pid> {
    until("the step", || {
        assert!(worker.try_wait().unwrap().is_none(), "the worker has ended");
        let runs = folder.join("runs");
        runs.is_dir()
            && std::fs::read_dir(runs).unwrap().any(|run| {
                RunState::read(&run.unwrap().path()).is_ok_and(|state| state.last_step >= step)
            })
    });
    let mut ranks: Vec<i32> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| stat(*pid).is_some_and(|fields| fields[1] == worker.id().to_string()))
        .collect();
    // In the order in which they were started.
    ranks.sort_unstable();
    ranks
        .into_iter()
        .map(|pid| rustix::process::Pid::from_raw(pid).unwrap())
        .collect()
}

/// State, parent and so on of a process; `None` once it is gone.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(
        text.rsplit_once(')')?
            .1
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    )
}

fn kill(pid: rustix::process::Pid, signal: rustix::process::Signal) {
    rustix::process::kill_process(pid, signal).unwrap();
}

fn is_alive(pid: rustix::process::Pid) -> bool {
    // A zombie has ended.
    stat(pid.as_raw_nonzero().get()).is_some_and(|fields| fields[0] != "Z")
}
