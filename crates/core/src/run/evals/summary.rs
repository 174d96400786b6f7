//! Evals: one record per completion, the summary, and the paired comparison of two evals.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::answer_summary::AnswerSummary;
use super::confidence_summary::ConfidenceSummary;
use super::endpoint_summary::EndpointSummary;
use super::eval_record::{EvalRecord, is_zero};
use super::field_rates::{FieldSummary, InventedSummary};
use super::sample_rates::{Holds, SampleSummary, counts};
use super::speed_summary::SpeedSummary;
use super::tool_summary::ToolSummary;
use crate::files::{self, Checked};
use crate::run::error::RunError;
use crate::score::null_is_nan;
use crate::statistics::{Verdict, mcnemar_exact, wilson, wilson_by_prompt};
use crate::task::{PromptSet, SetName};

/// The result of an eval. Rates are in [0, 1], and 0 if `n` is 0.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalSummary {
    pub n: usize,
    /// Completions that the scorer failed on, which count nowhere else.
    #[serde(skip_serializing_if = "is_zero")]
    pub scorer_errors: u32,
    /// Requests that the endpoint failed to answer, which count nowhere else.
    #[serde(skip_serializing_if = "is_zero")]
    pub endpoint_errors: u32,
    /// NaN (`null`) where a log's score decides, as are those of tags.
    #[serde(deserialize_with = "null_is_nan")]
    pub parse: f64,
    pub valid: f64,
    /// Share of exact matches among the rows with an expected value; `None` without such rows.
    pub exact: Option<f64>,
    /// Share of completions that are valid, or would be after unwrapping; NaN as `parse`.
    #[serde(deserialize_with = "null_is_nan")]
    pub tolerant: f64,
    /// 95% interval of `valid`, by [`Self::interval`].
    pub valid_interval: [f64; 2],
    /// Mean over completions of known length; NaN (`null`) if the endpoint reports no lengths.
    #[serde(deserialize_with = "null_is_nan")]
    pub mean_tokens: f64,
    /// Share truncated at the token limit.
    pub truncated: f64,
    pub by_tag: BTreeMap<String, TagSummary>,
    /// By path; empty unless answers are compared leaf by leaf.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, FieldSummary>,
    /// Values stated where none is expected; `None` where each row expects all of its values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invented: Option<Box<InventedSummary>>,
    pub with_expected: u32,
    /// 95% intervals of the rates by name, clustered by prompt; `None` with one completion per
    /// prompt. Boxed to keep events small.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intervals: Option<Box<BTreeMap<String, [f64; 2]>>>,
    /// Whether the answers are calls of functions or of an HTTP API.
    #[serde(skip_serializing_if = "is_zero")]
    pub has_calls: bool,
    /// `None` for models on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Box<EndpointSummary>>,
    /// `None` unless rows have several turns; each conversation then counts once in `n`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<Box<AnswerSummary>>,
    /// `None` unless the task has tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Box<ToolSummary>>,
    /// `None` with one completion per prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<Box<SampleSummary>>,
    /// Speed of a model on this machine; `None` in evals of a run, which run during training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<Box<SpeedSummary>>,
    /// `None` unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Box<ConfidenceSummary>>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TagSummary {
    pub n: usize,
    /// Share of exact matches among the rows with an expected value; `None` without such rows.
    pub valid: f64,
    pub exact: Option<f64>,
    #[serde(deserialize_with = "null_is_nan")]
    pub parse: f64,
    /// 95% intervals, computed like those of the whole set; `None` in evals of a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_interval: Option<[f64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_interval: Option<[f64; 2]>,
}

impl EvalSummary {
    /// Rates that a score alone does not say.
    pub const PARSE_RATES: [&str; 2] = ["parse", "tolerant"];

    pub fn from_records(records: &[EvalRecord]) -> Self {
        let all: Vec<&EvalRecord> = records.iter().filter(|record| !record.is_error()).collect();
        let unanswered = records
            .iter()
            .filter(|record| record.is_endpoint_error())
            .count();
        let lengths: Vec<usize> = all.iter().filter_map(|record| record.tokens).collect();
        let mut by_tag: BTreeMap<String, Vec<&EvalRecord>> = BTreeMap::new();
        for record in &all {
            let mut tags: Vec<&String> = record.tags.iter().collect();
            tags.sort_unstable();
            tags.dedup();
            for tag in tags {
                by_tag.entry(tag.clone()).or_default().push(record);
            }
        }
        let mut summary = Self {
            n: all.len(),
            scorer_errors: (records.len() - all.len() - unanswered) as u32,
            endpoint_errors: unanswered as u32,
            parse: rate(&all, EvalRecord::parses),
            valid: rate(&all, EvalRecord::is_valid),
            exact: exact_rate(&all),
            tolerant: rate(&all, |record| record.tolerant),
            valid_interval: [0.0, 1.0],
            mean_tokens: lengths.iter().sum::<usize>() as f64
                / lengths.len().max(usize::from(all.is_empty())) as f64,
            truncated: rate(&all, |record| record.truncated),
            by_tag: by_tag
                .into_iter()
                .map(|(tag, records)| (tag, TagSummary::from_records(&records)))
                .collect(),
            fields: FieldSummary::of_records(&all),
            invented: InventedSummary::of_records(&all).map(Box::new),
            with_expected: all.iter().filter(|record| record.exact.is_some()).count() as u32,
            intervals: intervals_by_prompt(&all).map(Box::new),
            answers: AnswerSummary::from_records(&all),
            tools: ToolSummary::from_records(records),
            has_calls: false,
            endpoint: EndpointSummary::from_records(records).map(Box::new),
            samples: SampleSummary::from_records(&all).map(Box::new),
            speed: None,
            confidence: ConfidenceSummary::new(records).map(Box::new),
        };
        summary.valid_interval = summary.interval("valid");
        summary
    }

    /// The summary of answers that only a score judges: whether they parse, or are valid after
    /// unwrapping, is unknown.
    #[must_use]
    pub fn without_parse(mut self) -> Self {
        (self.parse, self.tolerant) = (f64::NAN, f64::NAN);
        for tag in self.by_tag.values_mut() {
            tag.parse = f64::NAN;
        }
        if let Some(intervals) = &mut self.intervals {
            intervals.retain(|name, _| !Self::PARSE_RATES.contains(&name.as_str()));
        }
        self
    }

    /// The 95% interval of a rate: Wilson's, clustered by prompt if a prompt has several
    /// completions.
    pub fn interval(&self, name: &str) -> [f64; 2] {
        if let ("invented", Some(invented)) = (name, &self.invented) {
            return invented.interval;
        }
        let rows = self.rows_of(name);
        let count = (self.metric(name) * rows as f64).round() as usize;
        let alone = || wilson(count, rows).into();
        self.intervals
            .as_ref()
            .and_then(|intervals| intervals.get(name))
            .copied()
            .unwrap_or_else(alone)
    }

    /// Costs of all answers and of 1,000; `None` if a price or a token count is unknown.
    pub fn cost(&self) -> [Option<f64>; 2] {
        let of_endpoint = self
            .endpoint
            .as_ref()
            .map(|endpoint| [endpoint.cost, endpoint.cost_per_1000_answers]);
        let of_gpu = || {
            self.speed
                .as_ref()
                .map(|speed| [speed.cost, speed.cost_per_1000_answers])
        };
        of_endpoint.or_else(of_gpu).unwrap_or_default()
    }

    /// Completion tokens per second: while sampling for a model on this machine, while a request is
    /// active for an endpoint.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let of_endpoint = self
            .endpoint
            .as_ref()
            .and_then(|endpoint| endpoint.tokens_per_second);
        of_endpoint.or_else(|| self.speed.as_ref().map(|speed| speed.tokens_per_second))
    }

    /// A rate by its name in `stop_when`: `parse`, `valid`, `exact` or `tolerant`. NaN for other
    /// names, and for `exact` without expected values.
    pub fn metric(&self, name: &str) -> f64 {
        match name {
            "parse" => self.parse,
            "valid" => self.valid,
            "exact" => self.exact.unwrap_or(f64::NAN),
            "tolerant" => self.tolerant,
            "invented" => self.invented.as_ref().map_or(f64::NAN, |of| of.rate),
            _ => f64::NAN,
        }
    }

    pub fn rows_of(&self, name: &str) -> usize {
        match (name, &self.invented) {
            ("exact", _) if self.with_expected > 0 => self.with_expected as usize,
            ("invented", Some(invented)) => invented.n,
            _ => self.n,
        }
    }
}

impl TagSummary {
    fn from_records(records: &[&EvalRecord]) -> Self {
        let interval = |holds: Holds| wilson_by_prompt(&counts(records, holds)).into();
        let exact = exact_rate(records);
        Self {
            n: records.len(),
            valid: rate(records, EvalRecord::is_valid),
            exact,
            parse: rate(records, EvalRecord::parses),
            valid_interval: Some(interval(|record| Some(record.is_valid()))),
            exact_interval: exact.map(|_| interval(|record| record.exact)),
        }
    }
}

/// Intervals clustered by prompt, since completions of one prompt are not independent.
fn intervals_by_prompt(records: &[&EvalRecord]) -> Option<BTreeMap<String, [f64; 2]>> {
    if records.iter().all(|record| record.sample == 0) {
        return None;
    }
    let rates: [(&str, Holds); 4] = [
        ("parse", |record| Some(record.parses())),
        ("valid", |record| Some(record.is_valid())),
        ("exact", |record| record.exact),
        ("tolerant", |record| Some(record.tolerant)),
    ];
    let interval = |holds: Holds| wilson_by_prompt(&counts(records, holds)).into();
    Some(
        rates
            .into_iter()
            .map(|(name, holds)| (name.to_owned(), interval(holds)))
            .collect(),
    )
}

fn rate(records: &[&EvalRecord], holds: impl Fn(&EvalRecord) -> bool) -> f64 {
    if records.is_empty() {
        0.0
    } else {
        records.iter().filter(|record| holds(record)).count() as f64 / records.len() as f64
    }
}

fn exact_rate(records: &[&EvalRecord]) -> Option<f64> {
    let known: Vec<bool> = records.iter().filter_map(|record| record.exact).collect();
    (!known.is_empty())
        .then(|| known.iter().filter(|exact| **exact).count() as f64 / known.len() as f64)
}

/// A binary outcome (valid or exact) in two evals, matched by prompt id and sample.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Comparison {
    /// Holds only in the second eval.
    pub fixed: usize,
    /// Holds only in the first eval.
    pub broken: usize,
    pub both: usize,
    pub neither: usize,
    /// Records without a counterpart, which are excluded.
    pub unmatched: usize,
    /// Two-sided exact McNemar test of `fixed` against `broken`.
    pub mcnemar_p: f64,
}

impl Comparison {
    /// Compares `valid`. If an id occurs more than once in an eval, the last record counts.
    pub fn between(before: &[EvalRecord], after: &[EvalRecord]) -> Self {
        Self::by(before, after, |record| {
            (!record.is_error()).then(|| record.is_valid())
        })
    }

    /// Compares `exact`; `None` if no shared prompt has an expected value.
    pub fn between_exact(before: &[EvalRecord], after: &[EvalRecord]) -> Option<Self> {
        let found = Self::by(before, after, |record| {
            record.exact.filter(|_| !record.is_error())
        });
        (found.pairs() > 0).then_some(found)
    }

    fn by(
        before: &[EvalRecord],
        after: &[EvalRecord],
        holds: fn(&EvalRecord) -> Option<bool>,
    ) -> Self {
        let by_prompt = |records: &[EvalRecord]| -> BTreeMap<(String, usize), bool> {
            records
                .iter()
                .filter_map(|record| {
                    Some(((record.prompt_id.clone(), record.sample), holds(record)?))
                })
                .collect()
        };
        let (before, after) = (by_prompt(before), by_prompt(after));
        let mut found = Self::default();
        for (prompt, first) in &before {
            match (first, after.get(prompt)) {
                (false, Some(true)) => found.fixed += 1,
                (true, Some(false)) => found.broken += 1,
                (true, Some(true)) => found.both += 1,
                (false, Some(false)) => found.neither += 1,
                (_, None) => found.unmatched += 1,
            }
        }
        found.unmatched += after
            .keys()
            .filter(|prompt| !before.contains_key(*prompt))
            .count();
        found.mcnemar_p = mcnemar_exact(found.fixed, found.broken);
        found
    }

    pub fn verdict(&self) -> Verdict {
        Verdict::from_difference(self.fixed as f64 - self.broken as f64, self.mcnemar_p)
    }

    pub fn pairs(&self) -> usize {
        self.fixed + self.broken + self.both + self.neither
    }
}

/// The file of an eval; falls back to `proof`, the old name of the test set.
pub fn eval_path(folder: &Path, step: u64, set: &SetName, target: &str) -> PathBuf {
    let (new, old) = (
        folder.join(eval_file(step, set, target)),
        folder.join(eval_file(step, "proof", target)),
    );
    if *set == PromptSet::Test.into() && !new.exists() && old.exists() {
        old
    } else {
        new
    }
}

/// Path relative to the run: `evals/step-000050-test-trained.jsonl`.
pub fn eval_file(step: u64, set: impl Display, target: &str) -> String {
    format!("evals/step-{step:06}-{set}-{target}.jsonl")
}

pub fn answers_path(run: &Path, step: u64, set: &SetName, target: &str) -> PathBuf {
    run.join(format!("evals/answers-step-{step:06}-{set}-{target}.jsonl"))
}

/// Field of an eval's last record: the checksum of all lines before it.
const LINES_BEFORE: &str = "xxh3_before";

/// Writes an eval atomically. Each record has a checksum, and the last one also has that of all
/// lines before it.
pub fn write_evals(path: &Path, records: &[EvalRecord]) -> Result<(), RunError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Line by line, since a large log's answers are in memory already.
    let fill = |file: &mut File| {
        let mut file = BufWriter::new(file);
        let mut before = files::Sum::default();
        for (index, record) in records.iter().enumerate() {
            let mut line = serde_json::to_vec(record)?;
            if index + 1 == records.len() {
                line.pop();
                line.extend(format!(",\"{LINES_BEFORE}\":\"{}\"}}", before.finish()).bytes());
            }
            files::seal_line(&mut line);
            line.push(b'\n');
            before.update(&line);
            files::torn_write("replace.half", &name, &line, |half| {
                drop(file.write_all(half).and_then(|()| file.flush()))
            });
            file.write_all(&line)?;
        }
        file.flush()
    };
    files::replace_file_with(path, files::Access::Private, files::Sync::Disk, fill)
        .map_err(RunError::io("write", path))
}

pub fn read_evals(path: &Path) -> Result<Vec<EvalRecord>, RunError> {
    let mut records = Vec::new();
    each_record(path, |line| {
        records.push(serde_json::from_slice(line)?);
        Ok(())
    })?;
    Ok(records)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::run) struct Verified {
    pub(in crate::run) records: usize,
    /// If false, damage cannot be detected.
    pub(in crate::run) has_checksums: bool,
}

pub(in crate::run) fn verify_evals(path: &Path) -> Result<Verified, RunError> {
    let mut records = 0;
    let has_checksums = each_record(path, |line| {
        records += 1;
        serde_json::from_slice::<EvalRecord>(line).map(drop)
    })?;
    Ok(Verified {
        records,
        has_checksums,
    })
}

/// Verifies an eval and calls the visitor with each record; returns whether there are checksums.
fn each_record(
    path: &Path,
    mut visit: impl FnMut(&[u8]) -> serde_json::Result<()>,
) -> Result<bool, RunError> {
    #[derive(Deserialize)]
    struct Last {
        #[serde(rename = "xxh3_before")]
        before: Option<String>,
    }
    let bytes = files::read(path).map_err(RunError::io("read", path))?;
    let malformed = |index: usize, message: String| RunError::Malformed {
        path: path.to_owned(),
        line: Some(index + 1),
        message,
    };
    let (mut has_checksums, mut read, mut last) = (false, 0, None);
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let start = read;
        read += line.len() + 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let checked = files::check(line);
        has_checksums |= checked == Checked::Intact;
        match checked {
            Checked::Damaged => {
                let message = "the record does not match its checksum";
                return Err(malformed(index, message.to_owned()));
            }
            Checked::Without if has_checksums => {
                let message = "the record has no checksum, though earlier ones have one";
                return Err(malformed(index, message.to_owned()));
            }
            Checked::Intact | Checked::Without => {}
        }
        visit(line).map_err(|error| malformed(index, error.to_string()))?;
        last = Some((index, start, line));
    }
    let Some((index, start, line)) = last else {
        return Err(RunError::malformed(
            path,
            "the file is empty: its records are lost",
        ));
    };
    let before = serde_json::from_slice::<Last>(line).ok();
    let before = before.and_then(|last| last.before);
    if has_checksums && before != Some(files::sum(&bytes[..start])) {
        let message = "records before or after this line are missing, or in another order";
        return Err(malformed(index, message.to_owned()));
    }
    Ok(has_checksums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Tier;

    fn record(id: &str, tier: Tier, exact: Option<bool>, tag: &str) -> EvalRecord {
        let tolerant = tier == Tier::Valid;
        EvalRecord {
            prompt_id: id.into(),
            tier,
            tolerant,
            exact,
            tags: vec![tag.into()],
            tokens: Some(10),
            ..Default::default()
        }
    }

    #[test]
    fn what_was_not_scored_is_in_no_rate_and_no_comparison() {
        let error = |id: &str| EvalRecord {
            score: serde_json::json!({"failure": "scorer_error"}),
            ..record(id, Tier::Unparsable, Some(false), "clean")
        };
        let before = [
            record("a", Tier::Valid, Some(true), "clean"),
            record("b", Tier::Invalid, None, "clean"),
            error("c"),
        ];
        let summary = EvalSummary::from_records(&before);
        assert_eq!(
            (
                summary.n,
                summary.scorer_errors,
                summary.valid,
                summary.exact
            ),
            (2, 1, 0.5, Some(1.0))
        );
        assert_eq!(summary.by_tag["clean"].n, 2);
        let after = [
            error("a"),
            record("b", Tier::Valid, None, "clean"),
            record("c", Tier::Valid, Some(true), "clean"),
        ];
        let compared = Comparison::between(&before, &after);
        assert_eq!(
            (compared.fixed, compared.pairs(), compared.unmatched),
            (1, 1, 2)
        );
        assert_eq!(Comparison::between_exact(&before, &after), None);
        let all = EvalSummary::from_records(&[error("a")]);
        assert_eq!((all.n, all.valid, all.mean_tokens), (0, 0.0, 0.0));
    }

    #[test]
    fn summary_and_comparison() {
        let before = [
            record("a", Tier::Valid, Some(true), "clean"),
            record("b", Tier::Invalid, Some(false), "messy"),
            record("c", Tier::Unparsable, None, "messy"),
            record("d", Tier::Valid, Some(false), "clean"),
            record("x", Tier::Valid, None, "clean"),
        ];
        let summary = EvalSummary::from_records(&before);
        assert_eq!(
            (summary.n, summary.parse, summary.valid, summary.tolerant),
            (5, 0.8, 0.6, 0.6)
        );
        assert_eq!(summary.exact, Some(1.0 / 3.0));
        let messy = TagSummary {
            n: 2,
            valid: 0.0,
            exact: Some(0.0),
            parse: 0.5,
            valid_interval: Some(wilson(0, 2).into()),
            exact_interval: Some(wilson(0, 1).into()),
        };
        assert_eq!(summary.by_tag["messy"], messy);
        assert_eq!(summary.mean_tokens, 10.0);
        let after = [
            record("a", Tier::Valid, None, ""),
            record("b", Tier::Valid, None, ""),
            record("c", Tier::Valid, None, ""),
            record("d", Tier::Invalid, None, ""),
        ];
        let compared = Comparison::between(&before, &after);
        let expected = Comparison {
            fixed: 2,
            broken: 1,
            both: 1,
            neither: 0,
            unmatched: 1,
            mcnemar_p: 1.0,
        };
        assert_eq!(compared, expected);
        assert_eq!(
            Comparison::between_exact(&before, &after),
            None,
            "the second eval knows no expected answer"
        );
        let exact = Comparison {
            fixed: 0,
            broken: 0,
            both: 1,
            neither: 2,
            unmatched: 0,
            mcnemar_p: 1.0,
        };
        assert_eq!(Comparison::between_exact(&before, &before), Some(exact));
        assert_eq!(EvalSummary::from_records(&[]).valid_interval, [0.0, 1.0]);
        assert!(EvalSummary::from_records(&[]).exact.is_none());
    }
    /// Four equal completions of each of ten prompts carry as much information as ten completions.
    #[test]
    fn completions_of_a_prompt_are_not_independent() {
        let records: Vec<EvalRecord> = (0..40)
            .map(|index| {
                let (prompt, sample) = (index / 4, index % 4);
                let tier = if prompt < 6 {
                    Tier::Valid
                } else {
                    Tier::Invalid
                };
                EvalRecord {
                    sample,
                    ..record(&format!("p{prompt}"), tier, Some(prompt < 3), "")
                }
            })
            .collect();
        let summary = EvalSummary::from_records(&records);
        let alone: Vec<EvalRecord> = records
            .iter()
            .filter(|record| record.sample == 0)
            .cloned()
            .collect();
        let of_prompts = EvalSummary::from_records(&alone);
        for name in ["parse", "valid", "exact", "tolerant"] {
            let ([low, high], [least, most]) = (summary.interval(name), of_prompts.interval(name));
            assert!(
                low <= least && most <= high + 1e-12,
                "{name}: {low} {high}, of the prompts alone {least} {most}"
            );
        }
        assert_eq!(summary.valid_interval, summary.interval("valid"));
        let (low, high) = wilson(24, 40);
        assert!(
            summary.valid_interval[0] < low - 0.1 && summary.valid_interval[1] > high + 0.05,
            "{:?}",
            summary.valid_interval
        );
        assert!(
            of_prompts.intervals.is_none()
                && !serde_json::to_string(&of_prompts)
                    .unwrap_or_default()
                    .contains("intervals")
        );
    }
}
