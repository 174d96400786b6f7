//! It learns; zero-variance groups change nothing; the reference stays where it was; numbers that are not finite change
//! nothing.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use grpo_tui::advantage::GroupSignal;
use grpo_tui::model::{Gradients, Parameters};
use grpo_tui::run::{EventBody, EventReader, RunDirectory, RunState, checkpoint_path, read_evals};
use grpo_tui::task::PromptSet;
use grpo_tui::train::Ended;
use grpo_tui::update::{Optimizer, OptimizerSettings, StepOutcome};

use super::small_task::{SMALL, create, create_of, create_with, weights, work, write};
use crate::program::NANO;

/// A run of the small task with the embedded model, as the task sets it up.
fn create_tiny(folder: &Path, set: &[&str]) -> RunDirectory {
    create_with(&write(folder), folder, &[SMALL, set].concat())
}

/// On 12 prompts, at the rate at which the embedded model is quick: base to nearly all valid.
#[test]
fn validity_rises() {
    let folder = tempfile::tempdir().unwrap();
    let run = create_tiny(folder.path(), &[&FEW_STEPS[..], &["max_steps=16"]].concat());
    work(&run, |_| false).unwrap();
    let state = RunState::read(run.path()).unwrap();
    let valid = state.metrics["tiers/valid"].values();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&valid[..3]), mean(&valid[13..]));
    assert!(
        last > 0.95 && last > first + 0.1,
        "valid {first:.2} at the start, {last:.2} at the end: {valid:?}"
    );
    // The sampler and the trainer are one model: decode and training log-probs agree.
    assert!(
        state.metrics["sampling/sampling_logp_difference/max"]
            .values()
            .iter()
            .all(|difference| *difference < 1e-3)
    );
}

/// Steps in which a sample task with few prompts is learned.
const FEW_STEPS: [&str; 6] = [
    "max_steps=12",
    "prompt_groups_per_step=6",
    "completions_per_prompt=8",
    "learning_rate=3e-4",
    "eval_every=0",
    "checkpoint_every=0",
];

/// What was invalid by habit becomes valid, and the values stay right.
fn is_learned(name: &str, run: &Path) {
    let mut evals = RunState::read(run)
        .unwrap()
        .evals
        .into_values()
        .filter(|eval| eval.is_on(PromptSet::Test));
    let mut summary = |target: &str| {
        evals
            .find(|eval| eval.target.name() == target)
            .unwrap()
            .summary
    };
    let (base, trained) = (summary("base"), summary("trained"));
    assert!((0.4..0.7).contains(&base.valid), "{name}: base {base:?}");
    // Where tests decide, an answer is not compared with another.
    let exact = trained
        .exact
        .zip(base.exact)
        .map_or(1.0, |(trained, base)| trained - base);
    assert!(
        trained.valid > base.valid + 0.2 && exact > 0.1,
        "{name}: {base:?}, trained {trained:?}"
    );
}

/// Each with its embedded model.
#[test]
#[ignore = "nightly: half a minute each"]
fn the_sample_tasks_of_calls_and_queries_are_learned() {
    for name in ["sql", "tool-calls"] {
        let folder = tempfile::tempdir().unwrap();
        let task = folder.path().join(name);
        crate::program::sample_task_named(name, &task, [24, 4, 50]);
        let run = create_with(&task, folder.path(), &[SMALL, &FEW_STEPS].concat());
        work(&run, |_| false).unwrap();
        is_learned(name, run.path());
    }
}

/// By the program, as its checker is in the folder that `CHECKERS` names.
#[test]
#[ignore = "nightly, with shellcheck: scripts/nightly"]
fn the_sample_task_of_scripts_is_learned() {
    is_learned_by_program("shell-lint");
}

#[test]
#[ignore = "nightly: half a minute; needs Python and isolation strong"]
fn the_sample_task_of_functions_is_learned() {
    is_learned_by_program("py-functions");
}

fn is_learned_by_program(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (here, task) = (folder.path(), folder.path().join(name));
    crate::program::sample_task_named(name, &task, [24, 4, 50]);
    let run = |arguments: &[&str]| {
        let mut command = crate::program::program(here, arguments);
        let output = command.env("PATH", crate::program::checkers()).output();
        crate::program::stdout(&output.unwrap())
    };
    run(&["task", "trust", name, "--yes"]);
    let set = FEW_STEPS.iter().flat_map(|pair| ["--set", pair]);
    let arguments: Vec<&str> = ["train", name, "--runs", "runs"]
        .into_iter()
        .chain(set)
        .collect();
    run(&arguments);
    // Beside the ledger of looks at the test set.
    let mut entries = std::fs::read_dir(here.join("runs")).unwrap().flatten();
    let run = entries.find(|entry| entry.path().is_dir()).unwrap();
    is_learned(name, &run.path());
}

/// What it does without its habits: chains of calls, each on a database of its own, to the state that is expected.
#[test]
#[ignore = "nightly: half a minute"]
fn the_embedded_model_of_the_assistant_calls_functions() {
    let folder = tempfile::tempdir().unwrap();
    let rows =
        std::fs::read_to_string(crate::program::sample_data("assistant/eval.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = rows
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let clean: Vec<&str> = rows
        .iter()
        .filter(|row| row["tags"][0] == "clean")
        .filter_map(|row| row["id"].as_str())
        .collect();
    let mut arguments = vec![
        "sample",
        "assistant",
        "--model",
        "tiny-assistant",
        "--n",
        "1",
        "--temperature",
        "0",
        "--json",
    ];
    arguments.extend(clean.iter().take(8).flat_map(|id| ["--prompt", id]));
    let sampled = crate::program::stdout(&crate::program::call(folder.path(), &arguments));
    let sampled: Vec<serde_json::Value> = sampled
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(sampled.len(), 8);
    let calls = |answer: &serde_json::Value| answer["chain"]["steps"].as_array().unwrap().len();
    let valid: Vec<usize> = sampled
        .iter()
        .filter(|answer| answer["tier"] == "valid")
        .map(calls)
        .collect();
    assert!(
        valid.len() >= 4 && valid.iter().all(|calls| (2..=8).contains(calls)),
        "calls of valid chains: {valid:?}"
    );
}

/// An eval between two steps is decoded beside the next rollout: both are what they are alone.
#[test]
fn an_eval_changes_nothing_and_is_not_changed() {
    let trained = |set: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let run = create(
            folder.path(),
            &[&["weight_sync_interval=2", "checkpoint_every=2"], set].concat(),
        );
        work(&run, |_| false).unwrap();
        let state = RunState::read(run.path()).unwrap();
        let evals: Vec<_> = state
            .evals
            .iter()
            .map(|(key, eval)| {
                let completions = read_evals(&run.path().join(&eval.file)).unwrap();
                (
                    (key.step, key.set.to_string()),
                    completions
                        .into_iter()
                        .map(|record| record.completion)
                        .collect::<Vec<_>>(),
                )
            })
            .collect();
        let weights =
            std::fs::read(checkpoint_path(run.path(), state.last_step).join("model.safetensors"))
                .unwrap();
        (
            state.metrics["completions/mean_length"].values().to_vec(),
            weights,
            evals,
        )
    };
    let beside = trained(&["max_steps=4", "eval_every=2"]);
    let without = trained(&["max_steps=4", "eval_every=0"]);
    assert!(
        beside.0 == without.0 && beside.1 == without.1,
        "{:?}, {:?}",
        beside.0,
        without.0
    );
    let alone = trained(&["max_steps=2", "eval_every=0"]);
    let after = |evals: &[((u64, String), Vec<String>)]| {
        evals
            .iter()
            .find(|(key, _)| *key == (2, "eval".to_owned()))
            .map(|(_, completions)| completions.clone())
    };
    assert!(
        after(&beside.2).is_some() && after(&beside.2) == after(&alone.2),
        "{:?}",
        after(&beside.2)
    );
}

/// From before the model is loaded to the last eval.
#[test]
fn the_time_of_a_run_includes_loading() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path(), &["max_steps=1", "eval_every=0"]);
    let Ended::Finished(report) = work(&run, |_| false).unwrap() else {
        panic!("it did not finish")
    };
    let events = EventReader::new(&run.events_path()).read().unwrap().events;
    let time = |is: fn(&EventBody) -> bool| {
        events
            .iter()
            .rfind(|event| is(&event.body))
            .unwrap()
            .time_ms
    };
    let (begun, evaluated) = (
        time(|body| matches!(body, EventBody::Run(_))),
        time(|body| matches!(body, EventBody::Eval(_))),
    );
    let least = (evaluated - begun) as f64 / 1000.0;
    assert!(
        report.seconds + 0.002 >= least,
        "{} s, {least} s between its events",
        report.seconds
    );
}

/// Near temperature 0 all completions of a prompt are equal: every group has zero variance, and nothing moves.
#[test]
fn zero_variance_groups_change_neither_weights_nor_moments() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(
        folder.path(),
        &[
            "temperature=0.01",
            "max_steps=2",
            "checkpoint_every=1",
            "guided=false",
        ],
    );
    work(&run, |_| false).unwrap();
    let state = RunState::read(run.path()).unwrap();
    assert_eq!(
        state.metrics["frac_reward_zero_std"].values(),
        [1.0, 1.0],
        "the steps are counted"
    );
    assert!(!state.metrics.contains_key("grad_norm"));
    assert!(
        run.path()
            .join(&state.checkpoints[&2].path)
            .join("trainer.json")
            .is_file(),
        "the event names the folder"
    );
    assert!(
        weights(&run, &format!("{}@2", run.path().display())) == weights(&run, NANO),
        "weights changed"
    );
    let file = std::fs::read(checkpoint_path(run.path(), 2).join("optimizer.safetensors")).unwrap();
    let moments = safetensors::SafeTensors::deserialize(&file)
        .unwrap()
        .tensor("moments")
        .unwrap()
        .data()
        .to_vec();
    assert!(moments.iter().all(|byte| *byte == 0), "moments changed");
}

#[test]
fn kl_starts_at_zero_and_grows() {
    for set in [
        ["lora_rank=4", "learning_rate=5e-3"],
        ["lora_rank=0", "learning_rate=3e-4"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let run = create(
            folder.path(),
            &[&set[..], &["kl_beta=0.01", "eval_every=0"]].concat(),
        );
        work(&run, |_| false).unwrap();
        let state = RunState::read(run.path()).unwrap();
        let kl = state.metrics["kl"].values();
        assert!(kl[0].abs() < 1e-6 && kl[5] > 1e-5, "{set:?}: {kl:?}");
    }
}

#[test]
fn a_kl_that_is_not_computed_is_not_a_zero() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path(), &["max_steps=2", "eval_every=0"]);
    work(&run, |_| false).unwrap();
    let state = RunState::read(run.path()).unwrap();
    assert!(
        state.metrics.contains_key("entropy") && !state.metrics.contains_key("kl"),
        "{:?}",
        state.metrics.keys()
    );
    let page = grpo_tui::report::html(
        &grpo_tui::report::Report::read(grpo_tui::run::RunDirectory::open(run.path()).unwrap())
            .unwrap(),
    )
    .unwrap()
    .text;
    assert!(
        page.contains("KL to reference: not measured (kl_beta = 0)")
            && !page.contains("KL to reference, nats/token")
    );
}

/// With clips of width 0 any rounding of a ratio would be clipped. The weights do not move, so every ratio is exactly
/// 1: in an interval's first step by definition, in the others because the old log-probs come from the same forward as
/// the current ones, and not from the sampler.
#[test]
fn ratios_of_a_sync_interval_are_exactly_one_while_nothing_moves() {
    for loss in ["gspo", "grpo"] {
        let folder = tempfile::tempdir().unwrap();
        let loss = format!("policy_loss={loss}");
        let set = [
            &loss,
            "weight_sync_interval=3",
            "learning_rate=0",
            "eps_clip=0",
            "eps_clip_high=0",
            "eval_every=0",
            "tokens_per_micro_batch=700",
        ];
        let run = create(folder.path(), &set);
        work(&run, |_| false).unwrap();
        let state = RunState::read(run.path()).unwrap();
        let informative = state.metrics["groups/frac_mixed"]
            .values()
            .iter()
            .filter(|share| **share > 0.0)
            .count();
        assert!(
            informative >= 4,
            "{loss}: only {informative} steps had anything to clip"
        );
        for name in ["clip_ratio/low_mean", "clip_ratio/high_mean"] {
            let clipped = state.metrics[name].values();
            assert!(
                clipped.iter().all(|share| *share == 0.0),
                "{loss} {name}: {clipped:?}"
            );
        }
    }
}

/// Every completion lacks a key that the schema asks for, and `invalid` is worth more than half: equal rewards near the
/// top are not a solved task.
#[test]
fn groups_without_a_valid_completion_are_never_all_best() {
    let folder = tempfile::tempdir().unwrap();
    let task = write(folder.path());
    let edit = |name: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(task.join(name)).unwrap();
        assert!(text.contains(from), "{name}: {text}");
        std::fs::write(task.join(name), text.replacen(from, to, 1)).unwrap();
    };
    edit(
        "schema.json",
        "\"required\": [",
        "\"required\": [\"approved_by\", ",
    );
    edit("task.toml", "invalid = 0.5", "invalid = 0.6");
    let run = create_of(
        &task,
        folder.path(),
        &[
            "temperature=0.3",
            "max_steps=4",
            "eval_every=0",
            "learning_rate=0",
            "guided=false",
        ],
    );
    let mut rules = Vec::new();
    work(&run, |event| {
        if let EventBody::Alert(alert) = event {
            rules.push(alert.rule.clone());
        }
        false
    })
    .unwrap();
    let state = RunState::read(run.path()).unwrap();
    let equal: f64 = state.metrics["frac_reward_zero_std"].values().iter().sum();
    assert!(equal > 0.0, "some group has equal rewards of 0.6");
    assert!(
        state.metrics["groups/frac_all_best"]
            .values()
            .iter()
            .all(|share| *share == 0.0),
        "{rules:?}"
    );
    assert!(!rules.contains(&"all_best".into()), "{rules:?}");
}

/// Groups that dynamic sampling replaced are marked in events and rollouts, and a step's counts leave them out.
#[test]
fn replaced_groups_are_marked() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(
        folder.path(),
        &[
            "dynamic_sampling=true",
            "guided=false",
            "max_steps=2",
            "eval_every=0",
            "temperature=0.3",
        ],
    );
    work(&run, |_| false).unwrap();
    let state = RunState::read(run.path()).unwrap();
    let mut all = 0;
    for (step, groups) in &state.groups {
        let replaced = groups.values().filter(|group| group.replaced).count();
        for group in groups.values().filter(|group| !group.replaced) {
            assert!(
                group.signal == GroupSignal::Mixed,
                "a group of the last round that teaches nothing: {group:?}"
            );
        }
        assert_eq!(
            replaced as f64,
            state.metrics["groups/replaced"].at(*step).unwrap()
        );
        let stored = grpo_tui::run::read_step(run.path(), *step).unwrap();
        assert_eq!(
            stored.iter().filter(|group| group.replaced).count(),
            replaced
        );
        all += replaced;
    }
    assert!(all > 0, "nothing was replaced");
}

#[test]
fn stop_conditions_end_a_run_early() {
    for (set, steps) in [("stop_when=valid>=0.01", 3), ("patience=1", 3)] {
        let folder = tempfile::tempdir().unwrap();
        // A rate of 0 gains nothing, so patience ends at the first eval.
        let run = create(folder.path(), &[set, "learning_rate=0"]);
        let mut last = 0;
        let ended = work(&run, |event| {
            if let EventBody::Step(step) = event {
                last = step.step;
            }
            false
        });
        assert!(
            matches!(ended.unwrap(), Ended::Finished(report) if report.cause.starts_with("stopped early: "))
        );
        assert_eq!(last, steps, "{set}");
        let end = RunState::read(run.path()).unwrap().end.unwrap();
        assert!(end.cause.starts_with("stopped early: "), "{end:?}");
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let parameters = Parameters::new(
        vec![(
            "w".to_owned(),
            Tensor::ones(3, DType::F32, &Device::Cpu).unwrap(),
        )],
        DType::F32,
        &Device::Cpu,
    )
    .unwrap();
    let settings = OptimizerSettings {
        learning_rate: 0.1,
        ..OptimizerSettings::PLAIN
    };
    let mut optimizer = Optimizer::new(settings, &parameters, &Device::Cpu).unwrap();
    for bad in [f32::NAN, f32::INFINITY] {
        let mut gradients = Gradients::zeros(&parameters).unwrap();
        gradients
            .add(
                &(0..3),
                &Tensor::new(&[1.0_f32, bad, 0.0], &Device::Cpu).unwrap(),
            )
            .unwrap();
        assert_eq!(
            optimizer.apply(&parameters, &gradients).unwrap(),
            StepOutcome::NotFinite
        );
    }
    assert_eq!(parameters.flat().to_vec1::<f32>().unwrap(), [1.0; 3]);
    assert_eq!(optimizer.updates(), 0);
    assert_eq!(optimizer.moments().to_vec1::<f32>().unwrap(), [0.0; 6]);
}

/// Three updates against numbers worked out by hand from the AdamW paper's algorithm 2, with clipping and warm-up.
#[test]
fn adamw_follows_its_definition() {
    let parameters = Parameters::new(
        vec![(
            "w".to_owned(),
            Tensor::new(&[1.0_f32, -2.0], &Device::Cpu).unwrap(),
        )],
        DType::F32,
        &Device::Cpu,
    )
    .unwrap();
    let settings = OptimizerSettings {
        learning_rate: 0.1,
        warmup_steps: 2,
        weight_decay: 0.01,
        decay_norms_and_biases: true,
        ..OptimizerSettings::PLAIN
    };
    let mut optimizer = Optimizer::new(settings, &parameters, &Device::Cpu).unwrap();
    let (mut weights, mut first, mut second) = ([1.0_f64, -2.0], [0.0_f64; 2], [0.0_f64; 2]);
    for (update, gradient) in [(1, [3.0_f32, 4.0]), (2, [0.3, -0.4]), (3, [-0.6, 0.1])] {
        let mut gradients = Gradients::zeros(&parameters).unwrap();
        gradients
            .add(&(0..2), &Tensor::new(&gradient, &Device::Cpu).unwrap())
            .unwrap();
        optimizer.apply(&parameters, &gradients).unwrap();
        let norm = f64::from(gradient[0]).hypot(f64::from(gradient[1]));
        let rate = if update == 1 { 0.05 } else { 0.1 };
        for i in 0..2 {
            let g = f64::from(gradient[i]) / norm.max(1.0);
            first[i] = 0.9 * first[i] + 0.1 * g;
            second[i] = 0.95 * second[i] + 0.05 * g * g;
            let (m, v) = (
                first[i] / (1.0 - 0.9_f64.powi(update)),
                second[i] / (1.0 - 0.95_f64.powi(update)),
            );
            weights[i] = weights[i] * (1.0 - rate * 0.01) - rate * m / (v.sqrt() + 1e-8);
        }
        for (ours, expected) in parameters
            .flat()
            .to_vec1::<f32>()
            .unwrap()
            .iter()
            .zip(weights)
        {
            assert!(
                (f64::from(*ours) - expected).abs() < 1e-6,
                "update {update}: {ours}, expected {expected}"
            );
        }
    }
}

/// Norms and biases do not decay, matrices do; with the key all do.
#[test]
fn one_dimensional_tensors_do_not_decay() {
    let tensor = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
    for (decay_norms_and_biases, factor) in [(false, 1.0), (true, 0.95)] {
        let named = [
            ("a", &[2, 2][..]),
            ("norm", &[3]),
            ("bias", &[2]),
            ("b", &[1, 2]),
        ]
        .map(|(name, shape)| (name.to_owned(), tensor(shape)));
        let parameters = Parameters::new(named.into(), DType::F32, &Device::Cpu).unwrap();
        let settings = OptimizerSettings {
            learning_rate: 0.1,
            weight_decay: 0.5,
            decay_norms_and_biases,
            grad_clip_norm: 0.0,
            ..OptimizerSettings::PLAIN
        };
        let mut optimizer = Optimizer::new(settings, &parameters, &Device::Cpu).unwrap();
        let gradients = Gradients::zeros(&parameters).unwrap();
        optimizer.apply(&parameters, &gradients).unwrap();
        let expected: Vec<f32> = [[0.95; 4].as_slice(), &[factor; 5], &[0.95; 2]].concat();
        assert_eq!(parameters.flat().to_vec1::<f32>().unwrap(), expected);
    }
}

/// Imitating the rows' own answers teaches form and values at once, and its result is a start for GRPO.
#[test]
fn sft_then_grpo() {
    let folder = tempfile::tempdir().unwrap();
    let first = create_tiny(
        folder.path(),
        &[&FEW_STEPS[..], &["method=sft", "learning_rate=5e-4"]].concat(),
    );
    work(&first, |_| false).unwrap();
    let state = RunState::read(first.path()).unwrap();
    let loss = state.metrics["loss"].values();
    assert!(loss[11] < 0.5 * loss[0], "{loss:?}");
    let second = create_tiny(
        folder.path(),
        &[
            &format!("base_model={}", first.path().display()),
            "max_steps=1",
        ],
    );
    work(&second, |_| false).unwrap();
    let proof = |run: &RunDirectory, target: &str| {
        let state = RunState::read(run.path()).unwrap();
        state
            .evals
            .into_values()
            .find(|eval| eval.is_on(PromptSet::Test) && eval.target.name() == target)
            .unwrap()
            .summary
    };
    assert_eq!(
        proof(&first, "trained").valid,
        proof(&second, "base").valid,
        "the second run starts where the first ended"
    );
}
