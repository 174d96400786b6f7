//! The invoice task cut down, so that a whole run takes seconds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use grpo_tui::checkpoint::OpenModel;
use grpo_tui::config::{Assignments, Layers};
use grpo_tui::run::{
    EventBody, NewRun, RequestQueue, RunDirectory, RunFolders, RunState, Worker, checkpoint_path,
    list_checkpoints,
};
use grpo_tui::score::Task;
use grpo_tui::train::{Ended, RankSource, TrainError, train};

use crate::program::sample_task;

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

/// A run of the small task with `SMALL`, then `set`.
pub(crate) fn create(folder: &Path, set: &[&str]) -> RunDirectory {
    create_of(&write(folder), folder, set)
}

/// The same of a task that stands in `task`.
pub(crate) fn create_of(task: &Path, folder: &Path, set: &[&str]) -> RunDirectory {
    let task = Task::load(task).unwrap();
    let text = String::from_utf8(task.read("task.toml").unwrap().into_owned()).unwrap();
    let set = SMALL
        .iter()
        .chain(set)
        .map(|text| (*text).to_owned())
        .collect();
    let layers = Layers {
        task: Some(Assignments::from_task("task.toml", &text).unwrap()),
        set,
        ..Layers::default()
    };
    let resolved = layers.resolve().unwrap();
    let new = NewRun {
        job: "train".to_owned(),
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

/// Works on a run; `stop` sees every event and says when to stop after the step.
pub(crate) fn work(
    run: &RunDirectory,
    mut stop: impl FnMut(&EventBody) -> bool,
) -> Result<Ended, TrainError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let worker = Worker::begin(run, Arc::clone(&interrupted))?;
    let run_folders = RunFolders::discover(run.path().parent(), run.path());
    train(
        run,
        &run_folders,
        &grpo_tui::kernels::device::Engine::cpu(),
        &worker,
        RankSource::default(),
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
        &grpo_tui::kernels::device::Engine::cpu(),
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
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
        )
    };
    stored.into_iter().map(numbers).collect()
}

/// Everything that must be equal in two runs of one configuration: weights, moments and what is known of prompts in the last
/// checkpoint, rewards, advantages, eval completions.
pub(super) fn fingerprint(run: &RunDirectory) -> (Vec<u8>, Vec<u8>, String) {
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
