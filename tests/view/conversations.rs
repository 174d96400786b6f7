//! Conversations with tools on the screens: recorded ones on Live, Scores and Eval, with the worst that tools reply.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use grpo_tui::config::Layers;
use grpo_tui::environment::ToolChain;
use grpo_tui::run::events::{End, Eval, Group, Run, Step};
use grpo_tui::run::{
    EvalRecord, EvalSummary, EventWriter, NewRun, RolloutCompletion, RolloutGroup, RolloutWriter,
    RunDirectory, Status, Worker, eval_file, write_evals,
};
use grpo_tui::score::{Scorer, Task};
use grpo_tui::view::Command;
use serde_json::{Value, json};

use super::harness::Stage;
use crate::program::call_anywhere_in_process as call_anywhere;
use grpo_tui::facts::{StopReason, Target, Tier};

const TOML: &str = "name = \"shop\"\nsystem = \"Use the tools.\"\n[prompts]\ntrain = \"train.jsonl\"\ntest = \"test.jsonl\"\n\
                    [[tool]]\nbuiltin = \"sqlite\"\ndatabase = \"shop.sql\"\n[tools]\nmax_calls = 20\n[score]\nkind = \"text\"\n";

/// A task whose answers are words, with a shop's database.
fn task(folder: &Path) -> PathBuf {
    let task = folder.join("tasks/shop");
    std::fs::create_dir_all(&task).unwrap();
    let row = |id: &str| {
        let messages = json!([{"role": "user", "content": "How many nuts are there?"}]);
        json!({"id": id, "messages": messages, "expected": "Five."}).to_string() + "\n"
    };
    for (name, text) in [
        ("task.toml", TOML.to_owned()),
        (
            "shop.sql",
            "CREATE TABLE item (name TEXT, stock INT); INSERT INTO item VALUES ('nut', 5);"
                .to_owned(),
        ),
        ("train.jsonl", row("a") + &row("b")),
        ("test.jsonl", row("t1") + &row("t2") + &row("t3")),
    ] {
        std::fs::write(task.join(name), text).unwrap();
    }
    task
}

fn call(sql: &str, reply: &str, outcome: &str) -> Value {
    json!({"name": "query", "arguments": {"sql": sql}, "reply": reply, "outcome": outcome})
}

fn step(calls: &[Value]) -> Value {
    let text = "I look.\n<tool_call>\n{\"name\": \"query\", \"arguments\": {}}\n</tool_call>";
    json!({"text": text, "tokens": 24, "reply_tokens": 31, "calls": calls})
}

fn chain(value: Value) -> ToolChain {
    serde_json::from_value(value).unwrap()
}

/// No calls, one, twenty, a result of a mebibyte with control characters, and a tool that failed.
fn chains() -> [ToolChain; 5] {
    let answered = || call("SELECT stock FROM item", "[[5]]", "answered");
    let long = format!("\u{1b}[2J\u{202e}{}", "x".repeat(1 << 20));
    [
        chain(json!({"steps": [], "end": "answer"})),
        chain(json!({"steps": [step(&[answered()])], "end": "answer"})),
        chain(
            json!({"steps": (0..20).map(|_| step(&[answered()])).collect::<Vec<_>>(), "end": "max_calls"}),
        ),
        chain(json!({"steps": [step(&[call("SELECT x", &long, "answered")])], "end": "answer"})),
        chain(
            json!({"steps": [step(&[call("SELEC", "error: no such function", "refused")])],
            "last_calls": [call("SELECT 1", "the tool \"sqlite\" ended", "failed")], "end": "tool_failed", "failure": "the tool \"sqlite\" ended"}),
        ),
    ]
}

/// A finished run of one step with these conversations, and evals of the base and of the trained model.
fn run(folder: &Path) -> PathBuf {
    let task = Task::load(&task(folder)).unwrap();
    let scorer = Scorer::new(&task).unwrap();
    let resolved = Layers::default().resolve().unwrap();
    let new = NewRun {
        job: grpo_tui::facts::Job::Train,
        name: "with tools".into(),
        task: "shop".into(),
        task_origin: task
            .folder()
            .map_or_else(String::new, |folder| folder.display().to_string()),
        task_files: task.files().unwrap(),
        config: resolved.config,
        sources: resolved.sources,
        argv: Vec::new(),
        features: Vec::new(),
        model_digest: String::new(),
        mix: Vec::new(),
    };
    let run = RunDirectory::create(&folder.join("runs"), new).unwrap();
    let worker = Worker::begin(&run, Arc::default()).unwrap();
    let mut events = EventWriter::open(worker.lock()).unwrap();
    let begun = Run {
        id: run.id().into(),
        job: grpo_tui::facts::Job::Train,
        device: "cpu".into(),
        total_steps: 1,
        ..Run::default()
    };
    events.append(begun).unwrap();
    let row = grpo_tui::dataset::load(&task, grpo_tui::task::PromptSet::Train)
        .unwrap()
        .remove(0);
    let score = |chain: &ToolChain, text: &str| scorer.score(text, Some(&chain.scored_row(&row)));
    let completions = chains().map(|chain| {
        let score = score(&chain, "Five.");
        RolloutCompletion {
            token_ids: vec![7; 4],
            log_probs: vec![-0.5; 4],
            stop_reason: StopReason::Stop,
            reward: Some(score.reward).filter(|reward| reward.is_finite()),
            score: json!(score),
            text: "Five.".into(),
            chain: Some(chain),
            ..RolloutCompletion::default()
        }
    });
    let completions = Vec::from(completions);
    let group = RolloutGroup {
        step: 1,
        prompt_id: "a".into(),
        prompt: "the prompt".into(),
        completions,
        ..Default::default()
    };
    let mut rollouts = RolloutWriter::resume(worker.lock(), 0).unwrap();
    let place = rollouts.append(&group).unwrap();
    rollouts.sync().unwrap();
    let rewards: Vec<f64> = group
        .completions
        .iter()
        .map(|completion| completion.reward.unwrap_or(f64::NAN))
        .collect();
    let event = Group {
        step: 1,
        prompt_id: "a".into(),
        tiers: vec![Tier::Valid; 5],
        advantages: vec![0.0; 5],
        rewards,
        ..Group::default()
    };
    let call_seconds = chains()
        .iter()
        .map(|chain| chain.calls().map(|_| 0.002).collect())
        .collect();
    events
        .append(Group {
            call_seconds,
            token_counts: vec![4; 5],
            stop_reasons: vec![StopReason::Stop; 5],
            file: place.file,
            line: place.line,
            ..event
        })
        .unwrap();
    for (eval_step, target, picks) in [(0, "base", [0, 2, 4]), (1, "trained", [1, 1, 3])] {
        let record = |(id, pick): (&str, usize)| {
            let chain = chains()[pick].clone();
            let mut record = EvalRecord {
                prompt_id: id.into(),
                completion: "Five.".into(),
                tokens: Some(28),
                call_seconds: chain.calls().map(|_| 0.002).collect(),
                ..EvalRecord::default()
            };
            record.judge(&[score(&chain, "Five.")]).unwrap();
            record.chain = Some(Box::new(chain));
            record
        };
        let records: Vec<EvalRecord> = ["t1", "t2", "t3"]
            .into_iter()
            .zip(picks)
            .map(record)
            .collect();
        let file = eval_file(eval_step, "test", target);
        write_evals(&run.path().join(&file), &records).unwrap();
        let summary = EvalSummary::from_records(&records);
        events
            .append(Eval {
                step: eval_step,
                set: "test".into(),
                target: Target::from_name(target).unwrap(),
                summary,
                file,
                ..Eval::default()
            })
            .unwrap();
    }
    let metrics = [("reward".to_owned(), 0.5)].into_iter().collect();
    events
        .append(Step {
            step: 1,
            seconds: 1.0,
            metrics,
            ..Step::default()
        })
        .unwrap();
    events
        .append(End {
            step: 1,
            status: Status::Finished,
            cause: "all steps done".into(),
            ..End::default()
        })
        .unwrap();
    worker.state().status(Status::Finished, 1, None).unwrap();
    run.path().to_owned()
}

/// The run is open, and a screen in front.
fn stage(size: (u16, u16), keys: &str) -> Stage {
    let mut path = PathBuf::new();
    let mut stage = Stage::with(size.0, size.1, |options| path = run(&options.here));
    stage.act(|_| vec![Command::ShowRun(path)]);
    stage.keys(keys);
    stage
}

fn check(stage: &Stage, expected: &[&str]) {
    let screen = stage.screen();
    for text in expected {
        assert!(screen.contains(text), "{text:?} is not in\n{screen}");
    }
    assert!(!screen.contains('\u{1b}') && !screen.contains('\u{202e}'));
}

#[test]
fn live_shows_turns_calls_replies_times_and_ends() {
    let mut stage = stage((120, 36), "6 alt-2 l enter z");
    check(
        &stage,
        &[
            "1 call in 2 ms; ended: the model answered without a call",
            "turn 1  24 tokens, 31 read ─",
            "I look.",
            "→ query {\"sql\":\"SELECT stock FROM item\"}  answered in 2 ms",
            "[[5]]",
            "answer  4 tokens ─",
            "Five.",
        ],
    );
    stage.keys("h");
    check(
        &stage,
        &[
            "0 calls; ended: the model answered without a call",
            "answer  4 tokens",
        ],
    );
    stage.keys("l l");
    check(
        &stage,
        &[
            "20 calls in 40 ms; ended: the model asked for more calls than `max_calls`",
            "turn 2",
        ],
    );
    stage.keys("G");
    check(&stage, &["turn 20", "turn 21  4 tokens"]);
    stage.keys("l");
    check(&stage, &["␛[2J", "more bytes; W shows more"]);
    stage.keys("W");
    assert!(!stage.shows("W shows more"), "{}", stage.screen());
    stage.keys("W l");
    check(
        &stage,
        &[
            "2 calls in 4 ms; ended: a tool failed, so there is no reward",
            "SELEC\"}  refused",
            "error: no such function",
            "the tool failed in 2 ms, not read by the model",
        ],
    );
    stage.keys("y");
    assert!(
        stage
            .commands
            .iter()
            .any(|command| command.contains("Copy") && command.contains("(refused): error"))
    );
    let small = self::stage((80, 24), "6 alt-2 l enter z");
    check(
        &small,
        &[
            "turn 1  24 tokens, 31 read ─",
            "→ query {\"sql\":\"SELECT stock FROM item\"}  answered in 2 ms",
        ],
    );
}

#[test]
fn eval_shows_both_conversations_and_how_calls_go() {
    let mut stage = stage((160, 48), "7 s s enter");
    check(
        &stage,
        &[
            "t1",
            "base",
            "0 calls; ended: the model answered",
            "1 call in 2 ms; ended: the model answered",
            "I look.",
        ],
    );
    stage.keys("h / m a x _ c a l l s enter");
    check(&stage, &["1 of 3", "20 calls in 40 ms"]);
    let mut summary = self::stage((80, 36), "7 backtab G");
    summary.keys("G");
    check(
        &summary,
        &[
            "0 calls",
            "1 call ",
            "end max_calls",
            // Base: 20 valid, one refused and one that the tool failed at.
            "calls valid (p)",
            "95.5%",
            "first 2 calls valid",
            "50.0% of 2 (p^2 91%)",
            "first 20 calls valid",
            "100.0% of 1 (p^20 ",
        ],
    );
}

#[test]
fn sampled_conversations_are_shown_with_their_calls() {
    let sampled =
        json!({"prompt_id": "a", "completion": "Five.", "chain": chains()[1]}).to_string();
    let mut path = PathBuf::new();
    let mut stage = Stage::with(120, 40, |options| {
        path = run(&options.here);
        let script = format!("cat <<'END'\n{sampled}\nEND");
        options.program = super::harness::script(&options.here.join("program"), &script);
    });
    stage.act(|_| vec![Command::ShowRun(path)]);
    stage.keys("4 b S");
    check(
        &stage,
        &[
            "completions 1, sampled",
            "→ query {\"sql\":\"SELECT stock FROM item\"}",
            "Five.",
        ],
    );
}

#[test]
fn the_export_of_rollouts_has_conversations_as_messages() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());
    let output = call_anywhere(&["runs", "export", &run.display().to_string(), "--rollouts"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines.len(),
        5,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = &lines[1];
    assert_eq!(
        (
            &line["tools"][0]["type"],
            &line["tools"][0]["function"]["name"]
        ),
        (&json!("function"), &json!("query"))
    );
    assert_eq!(
        (&line["end"], &line["tokens"]),
        (&json!("answer"), &json!(28))
    );
    assert_eq!(
        line["messages"],
        json!([
            {"role": "system", "content": "Use the tools."},
            {"role": "user", "content": "How many nuts are there?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [
                {"id": "call_0", "type": "function", "function": {"name": "query", "arguments": "{\"sql\":\"SELECT stock FROM item\"}"}}]},
            {"role": "tool", "tool_call_id": "call_0", "name": "query", "content": "[[5]]"},
            {"role": "assistant", "content": "Five."}
        ])
    );
}
