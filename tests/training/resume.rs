//! Resume is exact: stopped or killed after any step, a run ends with the very bytes of an uninterrupted one.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use grpo_tui::run::{
    EventBody, RunDirectory, RunState, checkpoint_path, list_checkpoints, promote,
};
use grpo_tui::task::PromptSet;
use grpo_tui::train::Ended;

use super::small_task::{create, fingerprint, finish_with_stops, weights, whole, work};
use crate::program::{NANO, program};

fn never(_: &EventBody) -> bool {
    false
}

/// Runs with a stop after each of these steps, and compares with a run that was not stopped.
fn stopped_after(set: &[&str], stops: &[u64]) {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path(), set);
    finish_with_stops(&run, stops);
    assert!(
        fingerprint(&run) == fingerprint(&whole(set)),
        "{set:?}: stopped after steps {stops:?}, the resumed run differs"
    );
}

#[test]
fn stopping_changes_nothing_with_all_weights() {
    stopped_after(&[], &[1, 3, 4]);
}

#[test]
fn stopping_changes_nothing_with_adapters_and_kl() {
    stopped_after(
        &["lora_rank=4", "learning_rate=1e-3", "kl_beta=0.01"],
        &[1, 4],
    );
}

#[test]
fn stopping_changes_nothing_beside_a_base_in_nf4() {
    let set = ["lora_rank=4", "learning_rate=1e-3"];
    let in_nf4 = [&set[..], &["base_precision=nf4"]].concat();
    stopped_after(&in_nf4, &[2]);
    assert!(fingerprint(&whole(&in_nf4)) != fingerprint(&whole(&set)));
}

#[test]
fn stopping_changes_nothing_off_policy_and_with_refills() {
    stopped_after(
        &[
            "weight_sync_interval=2",
            "dynamic_sampling=true",
            "kl_beta=0.01",
        ],
        &[2, 3],
    );
}

/// Guided groups, groups without gradient, and answers without a stop take part.
#[test]
fn updates_during_the_rollout_change_nothing() {
    for set in [
        &[][..],
        &[
            "lora_rank=4",
            "guided=false",
            "policy_loss=bnpo",
            "overlong_masking=true",
        ],
        &[
            "lora_rank=4",
            "entropy_coef=0.01",
            "tokens_per_micro_batch=300",
        ],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let run = create(folder.path(), &[set, &["overlap=true"]].concat());
        finish_with_stops(&run, &[1, 4]);
        assert!(fingerprint(&run) == fingerprint(&whole(set)), "{set:?}");
        let state = RunState::read(run.path()).unwrap();
        assert_eq!(state.metrics["groups/frac_overlapped"].values().len(), 6);
    }
}

/// For a model that does not stop by itself.
const SHORT_ANSWERS: &str = "max_completion_tokens=16";

/// Four rows: from the second pass on, some are passed over.
const ADAPTIVE: [&str; 4] = [
    "prompt_sampling=adaptive",
    "max_rows=4",
    "guided=false",
    "weight_sync_interval=2",
];

#[test]
fn stopping_changes_nothing_with_adaptive_prompts() {
    stopped_after(
        &[&ADAPTIVE[..], &["dynamic_sampling=true"]].concat(),
        &[2, 3],
    );
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

/// The old log-probs of an interval's later steps are computed again with the same weights.
#[test]
fn stopping_changes_nothing_in_the_middle_of_an_interval() {
    stopped_after(
        &[
            "weight_sync_interval=3",
            "policy_loss=gspo",
            "kl_beta=0.01",
            "learning_rate=1e-4",
        ],
        &[2, 4],
    );
}

/// Of all weights a frozen copy teaches.
#[test]
fn stopping_changes_nothing_with_a_teacher() {
    stopped_after(
        &[
            "method=distill",
            "teacher=expected",
            "weight_sync_interval=2",
        ],
        &[2],
    );
    stopped_after(
        &[
            "teacher=expected",
            "distill_coef=0.1",
            "lora_rank=4",
            "learning_rate=1e-3",
        ],
        &[3],
    );
}

/// With adapters and with all weights, of a model that is pretrained of a `config.json`.
#[test]
fn stopping_changes_nothing_with_the_gated_delta_rule() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"architectures":["Qwen3_5ForCausalLM"],"vocab_size":1024,"hidden_size":48,"intermediate_size":64,"num_hidden_layers":2,
        "num_attention_heads":3,"num_key_value_heads":1,"head_dim":16,"layer_types":["linear_attention","full_attention"],"linear_num_key_heads":1,
        "linear_num_value_heads":3,"linear_key_head_dim":16,"linear_value_head_dim":8,"tie_word_embeddings":true,"max_position_embeddings":1024}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let config = folder.path().join("config.json");
    let more = ["--config", config.to_str().unwrap(), "--updates", "1"];
    crate::program::pretrain("invoice", &folder.path().join("hybrid"), &more);
    let base = format!("base_model={}", folder.path().join("hybrid").display());
    for method in [["method=sft", "lora_rank=4"], ["method=sft", "lora_rank=0"]] {
        stopped_after(
            &[&[base.as_str(), SHORT_ANSWERS], &method[..]].concat(),
            &[1, 4],
        );
    }
}

/// With adapters, without and with those of experts, and with all weights, routers among them; without replay such a run is another.
#[test]
fn stopping_changes_nothing_with_replayed_experts() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"architectures":["Qwen3MoeForCausalLM"],"vocab_size":1024,"hidden_size":48,"intermediate_size":64,"num_hidden_layers":2,
        "num_attention_heads":3,"num_key_value_heads":1,"head_dim":16,"num_experts":6,"num_experts_per_tok":2,"moe_intermediate_size":24,
        "norm_topk_prob":true,"tie_word_embeddings":true,"max_position_embeddings":1024}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let config = folder.path().join("config.json");
    let more = ["--config", config.to_str().unwrap(), "--updates", "1"];
    crate::program::pretrain("invoice", &folder.path().join("sparse"), &more);
    let base = format!("base_model={}", folder.path().join("sparse").display());
    // No answer is valid: the bonus is what moves the weights.
    let bonus = ["entropy_coef=0.1", "kl_beta=0.1", "learning_rate=1e-2"];
    let set = [
        &[base.as_str(), SHORT_ANSWERS, "weight_sync_interval=2"][..],
        &bonus,
    ]
    .concat();
    for rank in [
        &["lora_rank=4"][..],
        &["lora_rank=4", "lora_experts=true"],
        &["lora_rank=0"],
    ] {
        stopped_after(&[&set[..], rank].concat(), &[1, 4]);
    }
    let ended = [
        &["lora_rank=0"][..],
        &["lora_rank=0", "router_replay=false"],
    ]
    .map(|more| {
        let run = create(
            &folder.path().join(more.concat()),
            &[&set[..], more].concat(),
        );
        work(&run, never).unwrap();
        fingerprint(&run)
    });
    assert!(ended[0] != ended[1]);
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
            .any(|alert| alert.starts_with("\"clipped_completions\" 1 ")),
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
