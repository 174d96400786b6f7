//! Resume is exact: stopped or killed after any step, a run ends with the very bytes of an uninterrupted one.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::LazyLock;

use grpo_tui::config::Layers;
use grpo_tui::run::{
    EventBody, RunDirectory, RunState, checkpoint_path, list_checkpoints, promote,
};
use grpo_tui::task::PromptSet;
use grpo_tui::train::Ended;

use super::guided::create_hopeless;
use super::small_task::{create, fingerprint, weights, whole, work};
use super::{conversations, mixed};
use crate::program::{NANO, program};

fn never(_: &EventBody) -> bool {
    false
}

/// What a run may be; of each list one entry, in every combination that the configuration takes.
const WEIGHTS: &[&[&str]] = &[
    &[],
    &["lora_rank=4"],
    &["lora_rank=4", "base_precision=nf4"],
    &["lora_rank=4", "lora_experts=true"],
];
const LOSS: &[&[&str]] = &[
    &[],
    &["kl_beta=0.01"],
    &["weight_sync_interval=2", "kl_beta=0.01"],
    &["weight_sync_interval=3", "policy_loss=gspo"],
    &["policy_loss=bnpo", "overlong_masking=true"],
    &["entropy_coef=0.1", "entropy_target=9"],
];
const PROMPTS: &[&[&str]] = &[
    &[],
    &["dynamic_sampling=true"],
    &["prompt_sampling=adaptive", "max_rows=4", "guided=false"],
    &["prompt_sampling=adaptive", "dynamic_sampling=true"],
];
const METHODS: &[&[&str]] = &[
    &[],
    &["method=sft"],
    &["method=sft+grpo", "sft_steps=2"],
    &["method=distill", "teacher=expected"],
    &["teacher=expected", "distill_coef=0.1"],
];
const TASKS: &[fn(&Path, &[&str]) -> RunDirectory] = &[
    create,
    |folder, set| create_hopeless(folder, true, set),
    |folder, set| create_hopeless(folder, false, set),
    conversations::create,
    mixed::create,
];

/// The test model, a hybrid and a mixture of experts, each with the settings that it needs.
fn models() -> &'static [Vec<String>] {
    static MODELS: LazyLock<Vec<Vec<String>>> = LazyLock::new(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("resume-models");
        _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        let pretrained = |(name, config): (&str, &str)| {
            let file = root.join(format!("{name}.json"));
            std::fs::write(&file, config).unwrap();
            let more = ["--config", file.to_str().unwrap(), "--updates", "1"];
            crate::program::pretrain("invoice", &root.join(name), &more);
            let base = format!("base_model={}", root.join(name).display());
            // Such a model does not stop by itself.
            vec![base, "max_completion_tokens=16".to_owned()]
        };
        let others = [("hybrid", HYBRID), ("sparse", SPARSE)].map(pretrained);
        [vec![vec![]], others.to_vec()].concat()
    });
    &MODELS
}

const HYBRID: &str = r#"{"architectures":["Qwen3_5ForCausalLM"],"vocab_size":1024,"hidden_size":48,"intermediate_size":64,"num_hidden_layers":2,
        "num_attention_heads":3,"num_key_value_heads":1,"head_dim":16,"layer_types":["linear_attention","full_attention"],"linear_num_key_heads":1,
        "linear_num_value_heads":3,"linear_key_head_dim":16,"linear_value_head_dim":8,"tie_word_embeddings":true,"max_position_embeddings":1024}"#;
const SPARSE: &str = r#"{"architectures":["Qwen3MoeForCausalLM"],"vocab_size":1024,"hidden_size":48,"intermediate_size":64,"num_hidden_layers":2,
        "num_attention_heads":3,"num_key_value_heads":1,"head_dim":16,"num_experts":6,"num_experts_per_tok":2,"moe_intermediate_size":24,
        "norm_topk_prob":true,"tie_word_embeddings":true,"max_position_embeddings":1024}"#;

/// Numbers that are the same in every run of the tests.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    /// An entry; of the first cases each list's entries in turn, so that few cases have every entry.
    fn of<'a, T>(&mut self, list: &'a [T], case: usize) -> &'a T {
        let drawn = self.below(list.len());
        let in_turn = (case + drawn % 2 * (list.len() / 2)) % list.len();
        &list[if case < CASES { in_turn } else { drawn }]
    }
}

/// Of the gate; they have every entry of every list.
const CASES: usize = 10;

/// One random configuration, stopped after random steps, ends as the same configuration without a stop. False: no such
/// configuration is taken.
fn stopping_changes_nothing_in(case: usize) -> bool {
    let mut draws = Draws(case as u64 + 1);
    let model: Vec<&str> = draws
        .of(models(), case)
        .iter()
        .map(String::as_str)
        .collect();
    let lists = [WEIGHTS, LOSS, PROMPTS, METHODS].map(|list| *draws.of(list, case));
    let set = [&["max_steps=5"][..], &lists.concat(), &model].concat();
    let create = draws.of(TASKS, case);
    let layers = Layers {
        set: set.iter().map(|pair| (*pair).to_owned()).collect(),
        ..Layers::default()
    };
    if layers.resolve().is_err() {
        return false;
    }
    let stops: Vec<u64> = (1..5).filter(|_| draws.below(2) == 0).collect();
    let folder = tempfile::tempdir().unwrap();
    let [whole, stopped] = ["whole", "stopped"].map(|name| create(&folder.path().join(name), &set));
    match work(&whole, never) {
        Ok(Ended::Finished(_)) => {}
        // Refused before its first step, such as experts' adapters of a model without experts.
        Err(_) if RunState::read(whole.path()).unwrap().last_step == 0 => return false,
        ended => panic!("{set:?}: {ended:?}"),
    }
    // A stop takes effect at the end of an interval, which a later one may lie in.
    let stop_at = |stop: u64| {
        let at = |event: &EventBody| matches!(event, EventBody::Step(step) if step.step == stop);
        matches!(work(&stopped, at).unwrap(), Ended::Interrupted { .. })
    };
    if stops.iter().all(|stop| stop_at(*stop)) {
        assert!(matches!(work(&stopped, never).unwrap(), Ended::Finished(_)));
    }
    assert!(
        fingerprint(&stopped) == fingerprint(&whole),
        "case {case}, {set:?}: stopped after steps {stops:?}, the resumed run differs"
    );
    true
}

#[test]
fn stopping_changes_nothing() {
    let compared = (0..CASES).filter(|case| stopping_changes_nothing_in(*case));
    assert!(compared.count() >= 6);
}

#[test]
#[ignore = "minutes: scripts/nightly"]
fn stopping_changes_nothing_in_any_of_many_configurations() {
    let compared = (CASES..100).filter(|case| stopping_changes_nothing_in(*case));
    assert!(compared.count() >= 50);
}

#[test]
fn precision_of_the_base_and_replay_of_experts_count() {
    let ended = |set: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let run = create(folder.path(), &[&["max_steps=2"], set].concat());
        work(&run, never).unwrap();
        fingerprint(&run)
    };
    assert!(ended(&["lora_rank=4"]) != ended(&["lora_rank=4", "base_precision=nf4"]));
    // No answer is valid: the bonus is what moves the weights.
    let sparse: Vec<&str> = models()[2].iter().map(String::as_str).collect();
    let sparse = [
        &sparse[..],
        &[
            "entropy_coef=0.1",
            "learning_rate=1e-2",
            "weight_sync_interval=2",
        ],
    ]
    .concat();
    assert!(ended(&sparse) != ended(&[&sparse[..], &["router_replay=false"]].concat()));
}

/// Four rows: from the second pass on, some are passed over.
const ADAPTIVE: [&str; 4] = [
    "prompt_sampling=adaptive",
    "max_rows=4",
    "guided=false",
    "weight_sync_interval=2",
];

#[test]
fn adaptive_prompts_are_skipped_and_their_state_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path(), &ADAPTIVE);
    work(
        &run,
        |event| matches!(event, EventBody::Step(step) if step.step == 4),
    )
    .unwrap();
    let history = RunState::read(run.path()).unwrap();
    let skipped = history.metrics["prompts/frac_skipped"].values();
    assert!(
        skipped[0] == 0.0 && skipped.iter().any(|share| *share > 0.2),
        "{skipped:?}"
    );
    // The metric and the record are of the same groups.
    let rates = history.solve_rates.values().map(|found| found.rate());
    let mean = rates.sum::<f64>() / history.solve_rates.len() as f64;
    assert!(
        (history.metrics["prompts/solve_rate"].at(4).unwrap() - mean).abs() < 1e-9,
        "{:?}",
        history.solve_rates
    );
    // Without its state a checkpoint is not one of such a run.
    let path = checkpoint_path(run.path(), 4).join("trainer.json");
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    // As an older program wrote it, without checksums.
    for name in ["files", "xxh3"] {
        state.as_object_mut().unwrap().remove(name).unwrap();
    }
    let whole = state.clone();
    let mut check = |change: &dyn Fn(&mut serde_json::Value)| {
        state.clone_from(&whole);
        change(&mut state);
        std::fs::write(&path, state.to_string()).unwrap();
        let error = work(&run, never).unwrap_err().to_string();
        let expected = "trainer.json: `adaptive` is missing or of other prompts (prompt_sampling = \"adaptive\"): use another";
        assert!(error.contains(expected), "{error}");
    };
    check(&|state| state["adaptive"] = serde_json::Value::Null);
    check(&|state| state["adaptive"]["tasks"] = serde_json::json!([]));
    let row = |row: &str, interval: u8| {
        let last = serde_json::json!({"is_informative": true, "solved": 0, "scored": 4});
        serde_json::json!({row: {"interval": interval, "wait": 0, "last": last}})
    };
    check(&|state| state["adaptive"]["tasks"][0]["rows"] = row("4", 1));
    check(&|state| state["adaptive"]["tasks"][0]["rows"] = row("3", 0));
}

/// Its weights are those of the base: they are not written, and nobody misses them.
#[test]
fn the_start_of_full_training_has_no_weights_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(&folder.path().join("full"), &[]);
    let at_start = |event: &EventBody| matches!(event, EventBody::Checkpoint(checkpoint) if checkpoint.step == 0);
    assert_eq!(
        work(&run, at_start).unwrap(),
        Ended::Interrupted { step: 0 }
    );
    let files = |run: &RunDirectory| {
        let names = std::fs::read_dir(checkpoint_path(run.path(), 0)).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    };
    assert_eq!(files(&run), ["trainer.json"]);
    let state = RunState::read(run.path()).unwrap();
    assert!(
        (1..1000).contains(&state.checkpoints[&0].bytes),
        "{:?}",
        state.checkpoints
    );
    // The model that it names is the base.
    assert!(weights(&run, &format!("{}@0", run.path().display())) == weights(&run, NANO));
    let refused = promote(&run, 0, "", &folder.path().join("out"))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("is the base model itself") && refused.contains(&format!("use `{NANO}`")),
        "{refused}"
    );
    assert!(!folder.path().join("out").exists());
    assert!(matches!(work(&run, never).unwrap(), Ended::Finished(_)));
    assert!(
        fingerprint(&run) == fingerprint(&whole(&[])),
        "resumed from the start, the run differs"
    );
    // Adapters do not begin as the base has them, and are small.
    let adapters = create(&folder.path().join("adapters"), &["lora_rank=4"]);
    assert!(matches!(
        work(&adapters, at_start).unwrap(),
        Ended::Interrupted { .. }
    ));
    assert!(files(&adapters).contains(&"adapter_model.safetensors".to_owned()));
}

/// Killed anywhere around an early stop, a run stops at the same step, and what exists is neither read nor written
/// again.
#[test]
fn an_early_stop_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let set = ["patience=1", "learning_rate=0", "max_steps=30"];
    let events = |run: &RunDirectory, kind: &str| {
        let text = std::fs::read_to_string(run.events_path()).unwrap();
        text.lines()
            .filter(|line| line.contains(&format!("\"kind\":\"{kind}\"")))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let whole = create(&folder.path().join("whole"), &set);
    assert!(matches!(work(&whole, never).unwrap(), Ended::Finished(report) if report.steps == 3));
    // The base on both sets, and what was trained on the eval set: it is no better, so that the base is the run's
    // result.
    assert_eq!(events(&whole, "eval").len(), 3);
    let expected = fingerprint(&whole);
    let is_checkpoint = |event: &EventBody| matches!(event, EventBody::Checkpoint(checkpoint) if checkpoint.step == 3);
    let is_eval = |event: &EventBody| matches!(event, EventBody::Eval(eval) if eval.is_on(PromptSet::Eval) && eval.step == 3);
    // (killed when told of, evals in all: an eval whose checkpoint never came is read again).
    for (name, at, evals) in [
        (
            "checkpoint",
            &is_checkpoint as &dyn Fn(&EventBody) -> bool,
            3,
        ),
        ("eval", &is_eval, 4),
    ] {
        let run = create(&folder.path().join(name), &set);
        // Unwinding says no last word, like a kill.
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            work(&run, |event| {
                assert!(!at(event), "killed, as the test wants it");
                false
            })
        }));
        assert!(killed.is_err(), "{name}");
        let file = run.path().join("checkpoints/step-000003/trainer.json");
        let before = std::fs::metadata(&file)
            .and_then(|file| file.modified())
            .ok();
        let ended = work(&run, never).unwrap();
        assert!(
            matches!(&ended, Ended::Finished(report) if report.steps == 3 && report.cause.starts_with("stopped early")),
            "{name}: {ended:?}"
        );
        assert!(
            fingerprint(&run) == expected,
            "{name}: the resumed run differs"
        );
        assert_eq!(events(&run, "eval").len(), evals, "{name}");
        if let Some(before) = before {
            assert_eq!(
                std::fs::metadata(&file).unwrap().modified().unwrap(),
                before,
                "{name}: the finished checkpoint was written again"
            );
        }
    }
}

/// What is the matter at the stop is neither told twice nor forgotten.
#[test]
fn alerts_go_on_over_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let set = ["max_completion_tokens=8"];
    let alerts_of = |run: &RunDirectory| {
        let text = std::fs::read_to_string(run.path().join("events.jsonl")).unwrap();
        let events = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let alerts = events.filter(|event| event["kind"] == "alert");
        alerts
            .map(|event| format!("{} {} {}", event["rule"], event["step"], event["cleared"]))
            .collect::<Vec<_>>()
    };
    let expected = alerts_of(&whole(&set));
    assert!(
        expected
            .iter()
            .any(|alert| alert.starts_with("\"all_truncated\" 1 ")),
        "{expected:?}"
    );
    let run = create(&folder.path().join("stopped"), &set);
    work(
        &run,
        |event| matches!(event, EventBody::Step(step) if step.step == 4),
    )
    .unwrap();
    assert!(matches!(work(&run, never).unwrap(), Ended::Finished(_)));
    assert_eq!(alerts_of(&run), expected);
}

/// The real program, killed without warning when it has told of a line; then resumed.
#[test]
fn a_killed_run_ends_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    let set = ["max_steps=4"];
    let expected = fingerprint(&whole(&set));
    let run = create(&folder.path().join("killed"), &set);
    for kill_at in [
        "eval on test (base)",
        "step 3/",
        "step 3: eval on eval",
        "step 4: eval on eval",
    ] {
        kill_when(&run, kill_at);
        let before = list_checkpoints(run.path()).unwrap();
        assert!(before.iter().all(|step| *step <= 4), "{before:?}");
    }
    assert!(matches!(work(&run, never).unwrap(), Ended::Finished(_)));
    assert!(fingerprint(&run) == expected, "the killed run differs");
}

fn kill_when(run: &RunDirectory, expected: &str) {
    let mut child = program(
        run.path().parent().unwrap().parent().unwrap(),
        &["train", "--resume"],
    )
    .arg(run.path())
    .stdout(Stdio::null())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let seen: Vec<String> = lines
        .map(Result::unwrap)
        .take_while(|line| !line.contains(expected))
        .collect();
    // Harmless where the program has ended by itself; then the line was never told.
    child.kill().unwrap();
    let ended = child.wait().unwrap();
    assert!(
        !ended.success(),
        "the program never told of `{expected}`: {seen:?}"
    );
}
