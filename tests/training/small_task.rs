//! Runs of the invoice task cut down, of the test model unless it is to learn.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use candle_core::{DType, Tensor};
use grpo_tui::checkpoint::OpenModel;
use grpo_tui::config::{Assignments, Layers};
use grpo_tui::kernels::device::Engine;
use grpo_tui::ranks::Placement;
use grpo_tui::run::{
    EventBody, NewRun, RequestQueue, RunDirectory, RunFolders, RunState, Worker, checkpoint_path,
    list_checkpoints,
};
use grpo_tui::score::Task;
use grpo_tui::train::{Ended, RankSource, TrainError, follow, train};

use crate::program::{NANO_RUN, sample_task};

/// Writes the task with 12 training, 6 eval and 8 test prompts.
pub(crate) fn write(folder: &Path) -> PathBuf {
    let task = folder.join("small");
    sample_task(&task, [12, 6, 8]);
    task
}

/// What every small run shares.
pub(crate) const SMALL: &[&str] = &[
    "prompt_groups_per_step=3",
    "completions_per_prompt=4",
    "max_steps=6",
    "checkpoint_every=2",
    "eval_every=3",
    "keep_checkpoints=10",
];

/// A run of the small task with the test model and `SMALL`, then `set`.
pub(crate) fn create(folder: &Path, set: &[&str]) -> RunDirectory {
    create_of(&write(folder), folder, set)
}

/// The same of a task that stands in `task`.
pub(crate) fn create_of(task: &Path, folder: &Path, set: &[&str]) -> RunDirectory {
    create_with(task, folder, &[NANO_RUN, SMALL, set].concat())
}

/// A run with the settings of its task, then `set`.
pub(super) fn create_with(task: &Path, folder: &Path, set: &[&str]) -> RunDirectory {
    let task = Task::load(task).unwrap();
    let text = String::from_utf8(task.read("task.toml").unwrap().into_owned()).unwrap();
    let layers = Layers {
        task: Some(Assignments::from_task("task.toml", &text).unwrap()),
        set: set.iter().map(|text| (*text).to_owned()).collect(),
        ..Layers::default()
    };
    let resolved = layers.resolve().unwrap();
    let new = NewRun {
        job: grpo_tui::facts::Job::Train,
        name: String::new(),
        task: "small".to_owned(),
        task_origin: String::new(),
        task_files: task.files().unwrap(),
        config: resolved.config,
        sources: resolved.sources,
        argv: Vec::new(),
        features: Vec::new(),
        model_digest: String::new(),
        mix: Vec::new(),
    };
    RunDirectory::create(&folder.join("runs"), new).unwrap()
}

/// A run of the small task to its end, once for each configuration: others are compared with it, and none changes it.
pub(super) fn whole(set: &[&str]) -> RunDirectory {
    whole_by(1, set)
}

/// The same by so many ranks.
pub(crate) fn whole_by(ranks: usize, set: &[&str]) -> RunDirectory {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("whole-runs");
        _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        root
    });
    static RUNS: Mutex<BTreeMap<String, Arc<OnceLock<PathBuf>>>> = Mutex::new(BTreeMap::new());
    let run = Arc::clone(
        RUNS.lock()
            .unwrap()
            .entry(format!("{ranks} {set:?}"))
            .or_default(),
    );
    let train = || {
        let run = create(&tempfile::tempdir_in(&*ROOT).unwrap().keep(), set);
        let ended = work_by(&run, ranks, |_| false).unwrap();
        assert!(matches!(ended, Ended::Finished(_)), "{set:?}: {ended:?}");
        run.path().to_owned()
    };
    RunDirectory::open(run.get_or_init(train)).unwrap()
}

/// Works on a run; `stop` sees every event and says when to stop after the step.
pub(crate) fn work(
    run: &RunDirectory,
    stop: impl FnMut(&EventBody) -> bool,
) -> Result<Ended, TrainError> {
    work_of(run, RankSource::default(), stop)
}

/// The same by so many ranks, each a thread of this process.
pub(crate) fn work_by(
    run: &RunDirectory,
    ranks: usize,
    stop: impl FnMut(&EventBody) -> bool,
) -> Result<Ended, TrainError> {
    let folder = tempfile::tempdir().unwrap();
    let placement = |rank: usize| {
        let get = |name: &str| {
            let number = match name.strip_prefix("OMPI_COMM_WORLD_")? {
                "RANK" | "LOCAL_RANK" => rank,
                _ => ranks,
            };
            Some(number.to_string())
        };
        Placement::from_env(get).unwrap()
    };
    let Some(first) = placement(0) else {
        return work(run, stop);
    };
    std::thread::scope(|scope| {
        for other in (1..ranks).filter_map(placement) {
            let folder = folder.path();
            scope.spawn(move || {
                let ranks = other.follow(folder, "").unwrap();
                follow(ranks, &Engine::cpu()).unwrap();
            });
        }
        let ranks = first.rendezvous(folder.path(), "").unwrap();
        work_of(run, RankSource::Launched(ranks), stop)
    })
}

fn work_of(
    run: &RunDirectory,
    ranks: RankSource,
    mut stop: impl FnMut(&EventBody) -> bool,
) -> Result<Ended, TrainError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let worker = Worker::begin(run, Arc::clone(&interrupted))?;
    let run_folders = RunFolders::discover(run.path().parent(), run.path());
    train(
        run,
        &run_folders,
        &Engine::cpu(),
        &worker,
        ranks,
        &mut |event| {
            interrupted.store(
                stop(event) || interrupted.load(Ordering::Relaxed),
                Ordering::Relaxed,
            )
        },
    )
}

/// Works on a run to its end, with a stop after each of these steps.
#[track_caller]
pub(super) fn finish_with_stops(run: &RunDirectory, stops: &[u64]) {
    for &stop in stops {
        let ended = work(
            run,
            |event| matches!(event, EventBody::Step(step) if step.step == stop),
        )
        .unwrap();
        assert!(
            matches!(ended, Ended::Interrupted { step } if step >= stop),
            "{ended:?}"
        );
    }
    assert!(matches!(work(run, |_| false).unwrap(), Ended::Finished(_)));
}

/// Works on a run; `on` sees every event and the queue of requests.
pub(super) fn work_asked(
    run: &RunDirectory,
    mut on: impl FnMut(&EventBody, &RequestQueue),
) -> Result<Ended, TrainError> {
    let worker = Worker::begin(run, Arc::default())?;
    let controls = worker.controls().clone();
    let run_folders = RunFolders::discover(run.path().parent(), run.path());
    train(
        run,
        &run_folders,
        &Engine::cpu(),
        &worker,
        RankSource::default(),
        &mut |event| on(event, &controls),
    )
}

/// All weights of a model, a run's checkpoints among them, by their names.
pub(super) fn weights(run: &RunDirectory, name: &str) -> Vec<(String, Vec<f32>)> {
    let run_folders = RunFolders::discover(run.path().parent(), run.path());
    let model = OpenModel::find(name, &run_folders).unwrap();
    let stored = model.merged().unwrap().stored(&model.config).unwrap();
    let numbers = |(name, tensor): (String, Tensor)| {
        (
            name,
            tensor
                .to_dtype(DType::F32)
                .and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>())
                .unwrap(),
        )
    };
    stored.into_iter().map(numbers).collect()
}

/// Everything that must be equal in two runs of one configuration: weights, moments and what is known of prompts in the last
/// checkpoint, rewards, advantages, eval completions.
pub(crate) fn fingerprint(run: &RunDirectory) -> (Vec<u8>, Vec<u8>, String) {
    let last = *list_checkpoints(run.path()).unwrap().last().unwrap();
    let folder = checkpoint_path(run.path(), last);
    let weights = ["model.safetensors", "adapter_model.safetensors"]
        .iter()
        .find_map(|name| std::fs::read(folder.join(name)).ok())
        .unwrap();
    let moments = std::fs::read(folder.join("optimizer.safetensors")).unwrap();
    let state = RunState::read(run.path()).unwrap();
    let trainer: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("trainer.json")).unwrap()).unwrap();
    let mut summary = format!(
        "last step {}, prompts {}\n",
        state.last_step, trainer["adaptive"]
    );
    for (name, series) in state
        .metrics
        .iter()
        .filter(|(name, _)| name.starts_with("prompts/"))
    {
        summary += &format!("{name} {:?}\n", series.values());
    }
    for (step, groups) in &state.groups {
        for group in groups.values() {
            summary += &format!(
                "{step} {} {:?} {:?} {:?}\n",
                group.prompt_id, group.rewards, group.advantages, group.token_counts
            );
        }
    }
    for (key, eval) in &state.evals {
        let text = std::fs::read_to_string(run.path().join(&eval.file)).unwrap();
        let completions: Vec<String> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["completion"].to_string()
            })
            .collect();
        summary += &format!("{key:?} {:?} {completions:?}\n", eval.summary.valid);
    }
    (weights, moments, summary)
}
