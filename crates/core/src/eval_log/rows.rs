//! Tables of completions: JSONL, JSON lists, CSV and Parquet, among them verifiers' `results.jsonl`
//! and TRL's traces of completions.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::sample::{
    EvalLogError, LogHeader, LogOptions, NamedScore, Sample, Take, answer_text, fail,
};
use super::score_value;
use crate::dataset::DatasetError;
use crate::dataset::import::{MappingText, RowBeside, records, rows_beside};
use crate::format::did_you_mean;
use crate::text::Message;

const COMPLETIONS: [&str; 6] = [
    "completion",
    "response",
    "output",
    "generation",
    "prediction",
    "model_output",
];
const EXPECTED: [&str; 8] = [
    "expected",
    "answer",
    "target",
    "ground_truth",
    "reference",
    "solution",
    "label",
    "gold",
];
const IDS: [&str; 5] = ["id", "example_id", "key", "uuid", "sample_id"];
const SAMPLES: [&str; 3] = ["sample", "epoch", "rollout"];
/// Scores that come first, where a table has several.
const FIRST: [&str; 8] = [
    "score",
    "correct",
    "is_correct",
    "pass",
    "passed",
    "success",
    "exact_match",
    "reward",
];
/// Numbers that are no scores.
const NOT_SCORES: [&str; 12] = [
    "step",
    "advantage",
    "index",
    "line",
    "seed",
    "temperature",
    "tokens",
    "num_turns",
    "total_ms",
    "generation_ms",
    "scoring_ms",
    "trajectory_id",
];
const STEP: &str = "step";

/// What the columns of a table are, by a first pass over it.
#[derive(Default)]
struct Columns {
    all: Vec<String>,
    /// Of numbers, booleans and letters in every record that has them.
    numbers: BTreeSet<String>,
    others: BTreeSet<String>,
    steps: Option<[u64; 2]>,
    problems: Vec<(String, String)>,
}

impl Columns {
    fn survey(path: &Path, most: usize) -> Result<Self, EvalLogError> {
        let mut found = Self::default();
        for record in records(path, most)? {
            let record = match record {
                Ok(record) => record,
                Err(DatasetError::Line { line, problem, .. }) => {
                    found.problems.push((format!("line {line}"), problem));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for (name, value) in &record.fields {
                if !found.numbers.contains(name) && !found.others.contains(name) {
                    found.all.push(name.clone());
                }
                match score_value::number(value) {
                    Some(_) => found.numbers.insert(name.clone()),
                    None if value.is_null() => false,
                    None => found.others.insert(name.clone()),
                };
            }
            if let Some(step) = record.fields.get(STEP).and_then(Value::as_u64) {
                let [first, last] = found.steps.unwrap_or([step, step]);
                found.steps = Some([first.min(step), last.max(step)]);
            }
        }
        Ok(found)
    }

    fn has(&self, name: &str) -> bool {
        self.all.iter().any(|column| column == name)
    }

    fn first_of(&self, names: &[&str]) -> String {
        let found = names.iter().find(|name| self.has(name));
        found.copied().unwrap_or_default().to_owned()
    }

    /// Columns that may be scores, the likeliest first; others than numbers only where asked for.
    fn scores(&self, taken: &[&str], asked: &[&str]) -> Vec<String> {
        let is_score = |name: &&String| {
            asked.contains(&name.as_str())
                || FIRST.contains(&name.as_str())
                || self.numbers.contains(*name)
                    && !self.others.contains(*name)
                    && !taken.contains(&name.as_str())
                    && !NOT_SCORES.contains(&name.as_str())
                    && !name.ends_with("_ms")
        };
        let mut scores: Vec<String> = self.all.iter().filter(is_score).cloned().collect();
        let rank = |name: &str| FIRST.iter().position(|first| *first == name);
        scores.sort_by_key(|name| rank(name).unwrap_or(FIRST.len()));
        scores
    }
}

pub(super) fn read(
    path: &Path,
    options: &LogOptions,
    take: Take<'_>,
) -> Result<LogHeader, EvalLogError> {
    let mut columns = Columns::survey(path, options.most)?;
    let completion = match options.completion.as_str() {
        "" => columns.first_of(&COMPLETIONS),
        name => name.to_owned(),
    };
    if let ([], [(place, problem), ..]) = (&*columns.all, &*columns.problems) {
        return Err(fail(path, format!("{place}: {problem}")));
    }
    if !columns.has(&completion) {
        let names = columns.all.iter().map(String::as_str);
        let near = did_you_mean(&completion, names);
        let what = match completion.as_str() {
            "" => "no column of completions".to_owned(),
            name => format!("no column `{name}`{near}"),
        };
        let columns = columns.all.join(", ");
        return Err(fail(
            path,
            format!("{what}; name it with --map completion=COLUMN; the columns are {columns}"),
        ));
    }
    let map = MappingText {
        expected: or(&options.map.expected, || columns.first_of(&EXPECTED)),
        id: or(&options.map.id, || columns.first_of(&IDS)),
        ..options.map.clone()
    };
    let sample = columns.first_of(&SAMPLES);
    let taken = [
        &*map.prompt,
        &*map.expected,
        &*map.id,
        &*sample,
        &*completion,
    ];
    let asked: Vec<&str> = [&options.score, &options.exact]
        .into_iter()
        .filter_map(Option::as_deref)
        .collect();
    let scores = columns.scores(&taken, &asked);
    let is_trace = columns.steps.is_some() && columns.has("advantage");
    let steps = options.steps.or(columns
        .steps
        .filter(|_| is_trace)
        .map(|[_, last]| [last, last]));
    let own = [completion.clone(), sample.clone(), STEP.to_owned()];
    let beside: Vec<String> = scores.iter().cloned().chain(own).collect();
    for problem in std::mem::take(&mut columns.problems) {
        take(Err(problem));
    }
    let mut other_steps = 0;
    for record in rows_beside(path, &map, &beside, options.most)? {
        let step = record.beside.get(STEP).and_then(Value::as_u64);
        if steps
            .zip(step)
            .is_some_and(|([first, last], step)| step < first || step > last)
        {
            other_steps += 1;
            continue;
        }
        let place = format!("line {}", record.line);
        let read = sample_of(record, &completion, &scores, &sample);
        take(read.map_err(|problem| (place, problem)));
    }
    let mut notes = Vec::new();
    if let ([first, last], true) = (steps.unwrap_or_default(), other_steps > 0) {
        let [least, most] = columns.steps.unwrap_or_default();
        let read = match first == last {
            true => format!("step {first}"),
            false => format!("steps {first} to {last}"),
        };
        notes.push(format!(
            "{read} of {least} to {most} is read, {other_steps} completions of others are not: --steps A-B chooses"
        ));
    }
    let program = match (is_trace, columns.has("example_id")) {
        (true, _) => "TRL",
        (_, true) => "verifiers",
        _ => "table",
    };
    let model = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok(LogHeader {
        program,
        model: model.into_owned(),
        notes,
        ..LogHeader::default()
    })
}

fn or(text: &str, guess: impl FnOnce() -> String) -> String {
    match text {
        "" => guess(),
        text => text.to_owned(),
    }
}

fn sample_of(
    record: RowBeside,
    completion: &str,
    scores: &[String],
    sample: &str,
) -> Result<Sample, String> {
    let RowBeside { line, row, beside } = record;
    let row: Map<String, Value> = row?;
    let completion = beside
        .get(completion)
        .and_then(answer_text)
        .ok_or_else(|| format!("completion: column `{completion}` has no answer"))?;
    let messages = row.get("messages").cloned().unwrap_or_default();
    let messages: Vec<Message> =
        serde_json::from_value(messages).map_err(|error| error.to_string())?;
    let generated = format!("row-{line}");
    let id = row.get("id").and_then(Value::as_str);
    let tags = row.get("tags").and_then(Value::as_array);
    let scores = scores.iter().filter_map(|name| {
        Some(NamedScore {
            name: name.clone(),
            value: beside.get(name)?.clone(),
            ..NamedScore::default()
        })
    });
    Ok(Sample {
        place: format!("line {line}"),
        id: id.filter(|id| *id != generated).map(str::to_owned),
        sample: beside
            .get(sample)
            .and_then(Value::as_u64)
            .map(|sample| sample as usize),
        messages,
        completion,
        expected: row.get("expected").cloned(),
        tags: tags
            .into_iter()
            .flatten()
            .filter_map(|tag| tag.as_str().map(str::to_owned))
            .collect(),
        scores: scores.collect(),
        ..Sample::default()
    })
}
