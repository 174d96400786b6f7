//! MaskBench: 11,306 schemas with values that are valid and invalid by two validators, put to the scorer and to the
//! constraint. `scripts/maskbench` fetches the data and runs this.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use grpo_tui::constraint::{
    Answer, Constraint, ConstraintError, Reasoning, SchemaFile, Vocabulary,
};
use grpo_tui::hub::find_model;
use grpo_tui::score::{Scorer, Task, Tier};
use grpo_tui::text::Tokenizer;
use serde_json::Value;

/// What became of one schema.
#[derive(Default)]
struct Outcome {
    split: String,
    values: usize,
    scorer_refuses: Option<String>,
    /// The keyword, and why.
    constraint_refuses: Option<(String, String)>,
    /// One sentence each.
    wrong: Vec<(Wrong, String)>,
    /// Valid values that the constraint takes with their keys in another order.
    reordered: usize,
    compile: Duration,
    masks: Vec<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    ScorerAccepts,
    ScorerRejects,
    ConstraintAccepts,
    ConstraintRejects,
}

struct Judges<'t> {
    assert_formats: bool,
    base: Task,
    tokenizer: &'t Tokenizer,
    vocabulary: Arc<Vocabulary>,
}

impl Judges<'_> {
    fn outcomes(&self, files: &[PathBuf]) -> Vec<Outcome> {
        let next = AtomicUsize::new(0);
        let work = || {
            let taken = std::iter::from_fn(|| files.get(next.fetch_add(1, Ordering::Relaxed)));
            taken.map(|path| self.outcome(path)).collect::<Vec<_>>()
        };
        std::thread::scope(|scope| {
            let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        })
    }

    fn outcome(&self, path: &Path) -> Outcome {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let split = name
            .split_once("---")
            .or(name.split_once('_'))
            .map_or(name.as_str(), |(split, _)| split);
        let mut outcome = Outcome {
            split: split.to_owned(),
            ..Outcome::default()
        };
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let task = match self.base.with_definition_text(&file["schema"].to_string()) {
            Ok(task) => task,
            Err(error) => {
                outcome.scorer_refuses = Some(error.to_string());
                return outcome;
            }
        };
        let scorer = Scorer::new(&task)
            .map_err(|error| outcome.scorer_refuses = Some(error.to_string()))
            .ok();
        let start = Instant::now();
        let files = vec![SchemaFile::alone(&name, &file["schema"])];
        let answer = Answer::Json {
            files,
            assert_formats: self.assert_formats,
        };
        let constraint = Constraint::compile(&self.vocabulary, &answer, Reasoning::Off);
        outcome.compile = start.elapsed();
        let constraint = constraint
            .map_err(|error| outcome.constraint_refuses = Some(keyword(&error)))
            .ok();
        for (number, test) in file["tests"].as_array().into_iter().flatten().enumerate() {
            let (text, is_valid) = (test["data"].to_string(), test["valid"] == true);
            outcome.values += 1;
            let of = |why: &str| format!("{name} #{number}: {why}");
            if let Some(scorer) = &scorer {
                let score = scorer.score(&text, None);
                let why = score
                    .errors
                    .first()
                    .map_or("accepted", |error| error.message.as_str());
                match (score.tier == Tier::Valid, is_valid) {
                    (true, false) => outcome.wrong.push((Wrong::ScorerAccepts, of(why))),
                    (false, true) => outcome.wrong.push((Wrong::ScorerRejects, of(why))),
                    _ => {}
                }
            }
            if let Some(constraint) = &constraint {
                match (self.walk(constraint, &text, &mut outcome.masks), is_valid) {
                    (Ok(()), false) => outcome
                        .wrong
                        .push((Wrong::ConstraintAccepts, of("accepted"))),
                    (Err(_), true) if self.can_be_reordered(constraint, &test["data"]) => {
                        outcome.reordered += 1
                    }
                    (Err(why), true) => outcome.wrong.push((Wrong::ConstraintRejects, of(&why))),
                    _ => {}
                }
            }
        }
        outcome
    }

    /// Whether the constraint lets the text be written, and end there.
    fn walk(
        &self,
        constraint: &Constraint,
        text: &str,
        masks: &mut Vec<Duration>,
    ) -> Result<(), String> {
        let mut progress = constraint.begin();
        let mut words = vec![0; self.tokenizer.vocab_size().div_ceil(32)];
        let mut allows = |progress: &mut grpo_tui::constraint::Progress, id: u32| {
            let start = Instant::now();
            progress
                .mask(&mut words)
                .map_err(|error| error.to_string())?;
            masks.push(start.elapsed());
            Ok::<_, String>(words[id as usize / 32] & 1 << (id % 32) != 0)
        };
        let ids = self.tokenizer.encode(text).unwrap();
        for (place, &id) in ids.iter().enumerate() {
            if !allows(&mut progress, id)? {
                let written = self.tokenizer.decode(&ids[..place], false).unwrap();
                let end = written.char_indices().rev().nth(40).map_or(0, |(at, _)| at);
                return Err(format!(
                    "after {:?} not {:?}",
                    &written[end..],
                    self.tokenizer.decode(&[id], false).unwrap()
                ));
            }
            progress.push(id).map_err(|error| error.to_string())?;
        }
        let stop = self.tokenizer.stop_ids()[0];
        if allows(&mut progress, stop)? {
            Ok(())
        } else {
            Err("it may not end".to_owned())
        }
    }
}

/// The keys of a constrained answer have one order. What follows looks for it, in so many steps.
const MAX_ORDER_STEPS: usize = 500;

impl Judges<'_> {
    fn can_be_reordered(&self, constraint: &Constraint, value: &Value) -> bool {
        let mut steps = MAX_ORDER_STEPS;
        let text = self.write(constraint, String::new(), value, &mut steps);
        text.is_some_and(|text| self.walk(constraint, &text, &mut Vec::new()).is_ok())
    }

    fn can_begin(&self, constraint: &Constraint, text: &str, steps: &mut usize) -> bool {
        let mut progress = constraint.begin();
        *steps = steps.saturating_sub(1);
        *steps > 0
            && self
                .tokenizer
                .encode(text)
                .unwrap()
                .into_iter()
                .all(|id| progress.push(id).is_ok())
    }

    /// The text with the value after it, where some order of its keys can be written.
    fn write(
        &self,
        constraint: &Constraint,
        text: String,
        value: &Value,
        steps: &mut usize,
    ) -> Option<String> {
        let written = match value {
            Value::Object(members) => {
                let members: Vec<_> = members.iter().collect();
                return self.write_members(constraint, text + "{", &members, steps);
            }
            Value::Array(items) => {
                let mut text = text + "[";
                for (place, item) in items.iter().enumerate() {
                    text.push_str(if place == 0 { "" } else { "," });
                    text = self.write(constraint, text, item, steps)?;
                }
                text + "]"
            }
            value => text + &value.to_string(),
        };
        self.can_begin(constraint, &written, steps)
            .then_some(written)
    }

    fn write_members(
        &self,
        constraint: &Constraint,
        text: String,
        members: &[(&String, &Value)],
        steps: &mut usize,
    ) -> Option<String> {
        if members.is_empty() {
            let text = text + "}";
            return self.can_begin(constraint, &text, steps).then_some(text);
        }
        (0..members.len()).find_map(|first| {
            let mut rest = members.to_vec();
            let (key, value) = rest.remove(first);
            let comma = if text.ends_with('{') { "" } else { "," };
            let next = format!("{text}{comma}{}:", Value::from(key.as_str()));
            if !self.can_begin(constraint, &next, steps) {
                return None;
            }
            let next = self.write(constraint, next, value, steps)?;
            self.write_members(constraint, next, &rest, steps)
        })
    }
}

fn keyword(error: &ConstraintError) -> (String, String) {
    let named = match error {
        ConstraintError::Schema { message, .. } => message
            .split('`')
            .nth(1)
            .filter(|_| message.starts_with('`')),
        ConstraintError::Time { .. } => Some("time"),
        _ => None,
    };
    (named.unwrap_or("other").to_owned(), error.to_string())
}

fn percentile(sorted: &[Duration], share: f64) -> Duration {
    sorted
        .get((sorted.len() as f64 * share) as usize)
        .copied()
        .unwrap_or_default()
}

#[test]
#[ignore = "needs MaskBench's data and minutes: scripts/maskbench"]
fn values_of_maskbench_are_judged_as_its_validators_judge_them() {
    let folder = PathBuf::from(std::env::var_os("MASKBENCH").unwrap());
    let model = std::env::var("MASKBENCH_MODEL").unwrap_or_else(|_| "tiny".to_owned());
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let tokenizer = Tokenizer::load(&find_model(&model).unwrap()).unwrap();
    let vocabulary = Vocabulary::new(&tokenizer).unwrap();
    for assert_formats in [true, false] {
        let task = tempfile::tempdir().unwrap();
        let toml = format!(
            "name = \"maskbench\"\nschema = \"schema.json\"\n[score]\nkind = \"json_schema\"\nassert_formats = {assert_formats}\n"
        );
        std::fs::write(task.path().join("task.toml"), toml).unwrap();
        std::fs::write(task.path().join("schema.json"), "{}").unwrap();
        let (vocabulary, base) = (vocabulary.clone(), Task::load(task.path()).unwrap());
        let outcomes = Judges {
            assert_formats,
            base,
            tokenizer: &tokenizer,
            vocabulary,
        }
        .outcomes(&files);
        println!("\nassert_formats = {assert_formats}");
        print(&outcomes);
        // The validators check formats, those of later drafts too; valid values may have keys in an order of their own.
        let wrong = outcomes
            .iter()
            .flat_map(|outcome| &outcome.wrong)
            .filter(|(wrong, _)| match wrong {
                Wrong::ScorerRejects => true,
                Wrong::ConstraintAccepts => assert_formats,
                Wrong::ScorerAccepts | Wrong::ConstraintRejects => false,
            });
        assert_eq!(
            wrong
                .map(|(_, sentence)| sentence.as_str())
                .collect::<Vec<_>>(),
            Vec::<&str>::new()
        );
    }
}

/// Wrong verdicts, then refusals by keyword, then the table of splits, then times.
fn print(outcomes: &[Outcome]) {
    let names = [
        "scorer accepts invalid",
        "scorer rejects valid",
        "constraint accepts invalid",
        "constraint rejects valid",
    ];
    for (wrong, sentence) in outcomes.iter().flat_map(|outcome| &outcome.wrong) {
        println!("wrong: {} {sentence}", names[*wrong as usize]);
    }
    for why in outcomes
        .iter()
        .filter_map(|outcome| outcome.scorer_refuses.as_ref())
    {
        println!("scorer refuses: {why}");
    }
    let mut keywords: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (keyword, why) in outcomes
        .iter()
        .filter_map(|outcome| outcome.constraint_refuses.as_ref())
    {
        keywords.entry(keyword).or_default().push(why);
    }
    let mut keywords: Vec<_> = keywords.into_iter().collect();
    keywords.sort_by_key(|(_, found)| std::cmp::Reverse(found.len()));
    for (keyword, found) in &keywords {
        println!("refusals: {keyword} {}, e.g. {}", found.len(), found[0]);
    }
    let splits: std::collections::BTreeSet<&str> = outcomes
        .iter()
        .map(|outcome| outcome.split.as_str())
        .collect();
    println!(
        "split | schemas | values | scorer refuses | {} | constraint refuses | {} | in another order",
        names[..2].join(" | "),
        names[2..].join(" | ")
    );
    for split in splits.into_iter().chain(["all"]) {
        let of: Vec<&Outcome> = outcomes
            .iter()
            .filter(|outcome| split == "all" || outcome.split == split)
            .collect();
        let count =
            |is: &dyn Fn(&Outcome) -> usize| of.iter().map(|outcome| is(outcome)).sum::<usize>();
        let wrong = |kind: Wrong| {
            count(&|outcome| {
                outcome
                    .wrong
                    .iter()
                    .filter(|(wrong, _)| *wrong == kind)
                    .count()
            })
        };
        let [scorer, constraint] = [
            count(&|one| usize::from(one.scorer_refuses.is_some())),
            count(&|one| usize::from(one.constraint_refuses.is_some())),
        ];
        println!(
            "{split} | {} | {} | {scorer} | {} | {} | {constraint} | {} | {} | {}",
            of.len(),
            count(&|outcome| outcome.values),
            wrong(Wrong::ScorerAccepts),
            wrong(Wrong::ScorerRejects),
            wrong(Wrong::ConstraintAccepts),
            wrong(Wrong::ConstraintRejects),
            count(&|outcome| outcome.reordered)
        );
    }
    let mut compile: Vec<Duration> = outcomes
        .iter()
        .filter(|one| one.constraint_refuses.is_none())
        .map(|one| one.compile)
        .collect();
    let mut masks: Vec<Duration> = outcomes
        .iter()
        .flat_map(|outcome| outcome.masks.iter().copied())
        .collect();
    for (name, times) in [("compile", &mut compile), ("mask", &mut masks)] {
        times.sort_unstable();
        let shown =
            [0.5, 0.75, 0.99, 1.0 - 1e-9].map(|share| format!("{:?}", percentile(times, share)));
        println!(
            "{name}: n = {}, p50 {}, p75 {}, p99 {}, max {}",
            times.len(),
            shown[0],
            shown[1],
            shown[2],
            shown[3]
        );
    }
}
