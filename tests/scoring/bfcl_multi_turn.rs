//! BFCL's multi-turn data: traces are played through the tools and the scorer of the task that `scripts/bfcl-multi-turn.py`
//! makes. `scripts/studies/bfcl-multi-turn-check` installs the data and runs this.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use grpo_tui::dataset::{PromptRow, load};
use grpo_tui::environment::{CallOutcome, ToolCall};
use grpo_tui::prompts::HandConversation;
use grpo_tui::score::{Scorer, Task, Trust};
use grpo_tui::task::PromptSet;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The calls of a conversation, turn by turn, and the leaderboard's verdict.
#[derive(Deserialize)]
struct Trace {
    row: String,
    kind: String,
    category: String,
    turns: Vec<Vec<TraceCall>>,
    is_right: bool,
}

#[derive(Deserialize)]
struct TraceCall {
    name: String,
    arguments: Map<String, Value>,
}

struct Player {
    task: Task,
    scorer: Arc<Scorer>,
    rows: BTreeMap<String, PromptRow>,
}

impl Player {
    /// Whether every turn is judged correct; where one is not, its number and why.
    fn play(&self, trace: &Trace) -> Result<(), String> {
        let mut talk =
            HandConversation::open(&self.task, &*self.scorer, &self.rows[&trace.row]).unwrap();
        for (index, calls) in trace.turns.iter().enumerate() {
            for TraceCall { name, arguments } in calls {
                talk.call(vec![ToolCall {
                    name: name.clone(),
                    arguments: arguments.clone(),
                }]);
            }
            talk.answer("Done.");
            let turn = talk.turns().nth(index).unwrap();
            let score = turn.score.as_ref().ok_or("the conversation ended early")?;
            assert!(
                !score.is_error(),
                "{} turn {}: {:?}",
                trace.row,
                index + 1,
                score.errors
            );
            if score.exact != Some(true) {
                let refused = turn
                    .chain
                    .calls()
                    .filter(|call| call.outcome == CallOutcome::Refused);
                let refused: String = refused
                    .map(|call| format!("; {}: {}", call.name, call.reply))
                    .collect();
                return Err(format!(
                    "turn {}: {}{refused}",
                    index + 1,
                    score.errors[0].message
                ));
            }
        }
        assert_eq!(talk.turns().count(), trace.turns.len(), "{}", trace.row);
        Ok(())
    }
}

#[test]
#[ignore = "needs the package bfcl-eval: scripts/studies/bfcl-multi-turn-check"]
fn verdicts_of_whole_conversations_are_the_leaderboards() {
    let folder = PathBuf::from(std::env::var("BFCL_MULTI_TURN").expect("the folder of the task"));
    let task = Task::load(&folder).unwrap();
    Trust::for_task(&task)
        .unwrap()
        .iter()
        .for_each(|trust| trust.set(true).unwrap());
    let scorer = Arc::new(Scorer::new(&task).unwrap());
    let rows = load(&task, PromptSet::Test)
        .unwrap()
        .into_iter()
        .map(|row| (row.id.clone(), row))
        .collect();
    let player = Player { task, scorer, rows };
    let lines = std::fs::read_to_string(folder.join("traces.jsonl")).unwrap();
    let traces: Vec<Trace> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let next = AtomicUsize::new(0);
    let work = || -> Vec<(&Trace, Result<(), String>)> {
        let taken = std::iter::from_fn(|| traces.get(next.fetch_add(1, Ordering::Relaxed)));
        taken.map(|trace| (trace, player.play(trace))).collect()
    };
    let verdicts: Vec<_> = std::thread::scope(|scope| {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let (mut table, mut differ) = (BTreeMap::<_, [usize; 4]>::new(), 0);
    for (trace, verdict) in &verdicts {
        let is_truth = trace.kind == "ground truth";
        let is_equal = verdict.is_ok() == trace.is_right && (verdict.is_ok() || !is_truth);
        let counts = table
            .entry((trace.kind.as_str(), trace.category.as_str()))
            .or_default();
        for (count, is_so) in
            counts
                .iter_mut()
                .zip([true, verdict.is_ok(), trace.is_right, is_equal])
        {
            *count += usize::from(is_so);
        }
        if !is_equal {
            differ += 1;
            println!(
                "{} {}: leaderboard {}, here {verdict:?}",
                trace.kind, trace.row, trace.is_right
            );
        }
    }
    println!(
        "{:<20} {:<14} {:>5} {:>8} {:>12} {:>6}",
        "trace", "category", "n", "correct", "leaderboard", "equal"
    );
    for ((kind, category), [n, correct, leaderboard, equal]) in &table {
        println!("{kind:<20} {category:<14} {n:>5} {correct:>8} {leaderboard:>12} {equal:>6}");
    }
    let truth = verdicts
        .iter()
        .filter(|(trace, _)| trace.kind == "ground truth");
    let (correct, n) = (
        truth.clone().filter(|(_, verdict)| verdict.is_ok()).count(),
        truth.count(),
    );
    println!(
        "{}: {correct} of {n} ground-truth traces judged correct, {} of {} verdicts equal",
        if differ == 0 { "passed" } else { "FAILED" },
        verdicts.len() - differ,
        verdicts.len()
    );
    assert!(n > 0 && differ == 0, "{differ} verdicts differ");
}
