//! Evals on the same prompts: joined by prompt and sample, with the significance of each pairwise difference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::error::ReportError;
use super::eval_results::{EvalId, EvalResult, outcome_warnings};
use super::event_text::Level;
use super::failure_groups::FailureGroups;
use super::measure::{Measure, Metric};
use super::significance::{MetricComparison, MetricVerdict, Verdict};
use crate::config::choices;
use crate::dataset::PromptRow;
use crate::format::counted;
use crate::run::{Comparison, EvalRecord, read_comments, read_proves};
use crate::score::{Scorer, Task, Tier};
use crate::statistics::Interval;

/// How many evals are compared at once.
pub const MAX_EVALS: usize = 3;

/// Several evals, compared prompt by prompt.
#[derive(Debug, Clone)]
pub struct Versus {
    /// At least one, at most [`MAX_EVALS`]; the others are compared with the first.
    pub evals: Vec<EvalResult>,
    /// (0, 1), then (0, 2) and (1, 2); none of a single eval.
    pub pairs: Vec<PairedComparison>,
    /// Prompts in all evals, in the order of the first.
    pub prompts: Vec<ComparedPrompt>,
    /// Comments by prompt, each with the folder that it is kept in.
    pub comments: BTreeMap<String, Vec<(PathBuf, String)>>,
    /// Whether the scores are not as recorded.
    pub is_rescored: bool,
    pub warnings: Vec<String>,
}

/// One prompt, or one sample of it, with each eval's answer.
#[derive(Debug, Clone)]
pub struct ComparedPrompt {
    pub prompt_id: String,
    /// From 0.
    pub sample: usize,
    /// The index of its record in each eval.
    pub records: Vec<usize>,
}

#[derive(Debug, Clone)]
pub struct PairedComparison {
    /// Index of the eval before.
    pub first: usize,
    /// Index of the eval after.
    pub second: usize,
    pub valid: MetricComparison,
    /// `None` if no prompt has an expected answer.
    pub exact: Option<MetricComparison>,
    /// The number of answers that went from the tier of the row to that of the column, as [`Tier`]s rise.
    pub tiers: [[usize; 3]; 3],
}

choices! {
    /// Whether a prompt's answer is valid before and after, as screens and pages name it; JSON has `fixed` and `broken`.
    Outcome {
        /// Valid in both.
        Both = "both",
        /// Valid only in the first eval.
        Broken = "regressions",
        /// Valid only in the second.
        Fixed = "improvements",
        /// Valid in neither.
        Neither = "neither",
    }
}

impl Outcome {
    /// The name of one.
    pub fn name_of_one(self) -> &'static str {
        match self {
            Self::Fixed => "improvement",
            Self::Broken => "regression",
            Self::Both | Self::Neither => self.name(),
        }
    }

    /// The name where there is one eval only.
    pub fn name_alone(self) -> &'static str {
        if self == Self::Both {
            "valid"
        } else {
            "not valid"
        }
    }

    /// `None` where one has no score or no answer.
    fn between(before: &EvalRecord, after: &EvalRecord) -> Option<Self> {
        let is_error = before.is_error() || after.is_error();
        (!is_error).then(|| Self::of_change(before.is_valid(), after.is_valid()))
    }

    fn of_change(before: bool, after: bool) -> Self {
        match (before, after) {
            (false, true) => Self::Fixed,
            (true, false) => Self::Broken,
            (true, true) => Self::Both,
            (false, false) => Self::Neither,
        }
    }
}

impl Versus {
    /// Reads and compares evals.
    ///
    /// # Errors
    /// As [`Self::from_evals`], and where an eval cannot be read.
    pub fn read(ids: &[EvalId]) -> Result<Self, ReportError> {
        let mut versus = Self::each(ids, Ok)?;
        versus.warnings.extend(outcome_warnings(ids));
        Ok(versus)
    }

    /// Reads evals, re-scores their completions with one schema, and compares; the files of the runs are unchanged.
    ///
    /// # Errors
    /// As [`Self::read`]; [`ReportError::Unlike`] also where an eval is of another task.
    pub fn rescored(ids: &[EvalId], task: &Task, scorer: &Scorer) -> Result<Self, ReportError> {
        let mut versus = Self::each(ids, |eval| eval.rescored(task, scorer))?;
        versus.is_rescored = true;
        let digest: String = versus.evals[0].schema_digest.chars().take(8).collect();
        let judge = versus.evals[0].judge;
        versus.warnings.insert(
            0,
            format!("all answers are re-scored with one {judge} ({digest}), not as recorded"),
        );
        Ok(versus)
    }

    fn each(
        ids: &[EvalId],
        made: impl Fn(EvalResult) -> Result<EvalResult, ReportError>,
    ) -> Result<Self, ReportError> {
        let several = ids.windows(2).any(|pair| pair[0].folder != pair[1].folder);
        let evals = ids
            .iter()
            .map(|id| EvalResult::read(id.clone(), several).and_then(&made));
        Ok(Self::from_evals(evals.collect::<Result<_, _>>()?)?.with_comments())
    }

    /// Reads the comments beside the evals; of several on one prompt all are shown.
    fn with_comments(mut self) -> Self {
        let folders: BTreeSet<_> = self
            .evals
            .iter()
            .map(|eval| eval.id.folder.clone())
            .collect();
        let set = self.evals[0].id.set.clone();
        for folder in folders {
            match read_comments(&folder) {
                Err(error) => self.warnings.push(error.to_string()),
                Ok(found) => {
                    for comment in found.into_iter().filter(|comment| comment.set == set) {
                        self.comments
                            .entry(comment.prompt_id)
                            .or_default()
                            .push((folder.clone(), comment.text));
                    }
                }
            }
        }
        self
    }

    /// `schema 1a2b3c4d, as recorded`; of a log `score match >= 1, as recorded`.
    pub fn schema(&self) -> String {
        let score = &self.evals[0].scored_by;
        if !score.is_empty() {
            return format!("score {score}, as recorded");
        }
        let digest: String = self.evals[0].schema_digest.chars().take(8).collect();
        let judge = self.evals[0].judge;
        if self.is_rescored {
            format!("re-scored by {judge} {digest}")
        } else {
            format!("{judge} {digest}, as recorded")
        }
    }

    /// The folder for comments on this comparison: that of its last eval.
    pub fn comments_folder(&self) -> &Path {
        self.evals
            .last()
            .map_or(Path::new(""), |eval| eval.id.folder.as_path())
    }

    pub fn comment(&self, prompt_id: &str) -> String {
        let texts = self
            .comments
            .get(prompt_id)
            .into_iter()
            .flatten()
            .map(|(_, text)| text.as_str());
        texts.collect::<Vec<_>>().join("; ")
    }

    pub fn own_comment(&self, prompt_id: &str) -> &str {
        let comments = self.comments.get(prompt_id).into_iter().flatten();
        let mut own = comments
            .filter(|(folder, _)| folder == self.comments_folder())
            .map(|(_, text)| text.as_str());
        own.next_back().unwrap_or_default()
    }

    pub fn comment_rows(&self) -> BTreeMap<&str, String> {
        self.comments
            .keys()
            .map(|prompt| (prompt.as_str(), self.comment(prompt)))
            .collect()
    }

    /// Compares evals; a single one has no pairs.
    ///
    /// # Errors
    /// [`ReportError::OtherSchemas`] where re-scoring makes them comparable, else [`ReportError::Unlike`].
    pub fn from_evals(mut evals: Vec<EvalResult>) -> Result<Self, ReportError> {
        if !(1..=MAX_EVALS).contains(&evals.len()) {
            return Err(ReportError::Unlike(format!(
                "{} evals: choose one to three",
                evals.len()
            )));
        }
        let mut warnings = Vec::new();
        let (first, others) = evals.split_at_mut(1);
        for other in others {
            warnings.extend(check_comparable(&first[0], other)?);
            warnings.extend(part_other_prompts(&first[0], other));
        }
        let own = evals.iter().filter(|eval| !eval.prompts.is_empty());
        warnings.extend(own.map(|eval| format!("prompts of {}: {}", eval.name, eval.prompts)));
        let missing = evals.iter().filter(|eval| eval.summary.endpoint_errors > 0);
        warnings.extend(missing.map(|eval| {
            let count = counted(eval.summary.endpoint_errors as usize, "answer");
            format!(
                "{} lacks {count} of {} (endpoint errors), excluded from all rates",
                eval.name,
                eval.records.len()
            )
        }));
        warnings.extend(evals.last().and_then(served));
        let looks = evals.iter().filter_map(|eval| eval.look.as_ref());
        let of_looks: BTreeSet<&String> = looks.flat_map(|look| &look.warnings).collect();
        warnings.extend(of_looks.into_iter().cloned());
        let prompts = joined(&evals);
        if prompts.is_empty() {
            return Err(ReportError::Unlike(
                "the evals share no prompt ids".to_owned(),
            ));
        }
        let most = evals
            .iter()
            .map(|eval| eval.records.len())
            .max()
            .unwrap_or(0);
        if prompts.len() < most {
            let alone = evals.iter().filter_map(|eval| {
                let alone = eval.records.len() - prompts.len();
                (alone > 0).then(|| format!("{} of {}", counted(alone, "answer"), eval.name))
            });
            let alone = alone.collect::<Vec<_>>().join(", ");
            warnings.push(format!(
                "only {} of {most} answers are in all evals: {alone} have no counterpart, and are excluded from the list and the paired test",
                prompts.len()
            ));
        }
        let places: Vec<_> = (0..evals.len())
            .flat_map(|a| (a + 1..evals.len()).map(move |b| (a, b)))
            .collect();
        let pair = |&(a, b): &(usize, usize)| {
            PairedComparison::between([(a, &evals[a]), (b, &evals[b])], places.len())
        };
        let mut pairs: Vec<_> = places.iter().map(pair).collect();
        MetricComparison::adjust(pairs.iter_mut().map(|pair| &mut pair.valid).collect());
        MetricComparison::adjust(
            pairs
                .iter_mut()
                .filter_map(|pair| pair.exact.as_mut())
                .collect(),
        );
        Ok(Self {
            evals,
            pairs,
            prompts,
            comments: BTreeMap::new(),
            is_rescored: false,
            warnings,
        })
    }

    pub fn record(&self, prompt: &ComparedPrompt, eval: usize) -> Option<&EvalRecord> {
        self.evals
            .get(eval)?
            .records
            .get(*prompt.records.get(eval)?)
    }

    pub fn outcome(&self, prompt: &ComparedPrompt, pair: &PairedComparison) -> Option<Outcome> {
        Outcome::between(
            self.record(prompt, pair.first)?,
            self.record(prompt, pair.second)?,
        )
    }

    /// As [`Self::outcome`], or whether the answers match exactly; `None` without an expected answer.
    pub fn outcome_on(
        &self,
        metric: Metric,
        prompt: &ComparedPrompt,
        pair: &PairedComparison,
    ) -> Option<Outcome> {
        if metric == Metric::Valid {
            return self.outcome(prompt, pair);
        }
        let is_exact = |eval| self.record(prompt, eval).and_then(|record| record.exact);
        Some(Outcome::of_change(
            is_exact(pair.first)?,
            is_exact(pair.second)?,
        ))
    }

    /// The outcome of a single eval: [`Outcome::Both`] for a valid answer, else [`Outcome::Neither`].
    pub fn outcome_alone(&self, prompt: &ComparedPrompt) -> Option<Outcome> {
        self.record(prompt, 0)
            .and_then(|record| Outcome::between(record, record))
    }

    /// The output of `runs compare --json`.
    pub fn document(&self) -> Value {
        let eval = |eval: &EvalResult| {
            let [in_a_row, in_a_row_interval] = eval.in_a_row();
            let mut document = json!({
                "name": eval.name, "folder": eval.id.folder, "step": eval.id.step, "set": eval.id.set, "target": eval.id.target,
                "summary": eval.summary, "in_a_row": in_a_row, "in_a_row_interval": in_a_row_interval,
            });
            if let Some(look) = &eval.look {
                document["look"] = json!(look);
            }
            document
        };
        json!({
            "task": self.evals[0].task, "set": self.evals[0].id.set, "passes": self.evals.iter().map(eval).collect::<Vec<_>>(),
            "comparisons": self.comparisons(), "warnings": self.warnings, "failures": self.failures(),
            "comments": self.comment_rows(), "schema": {"sha256": self.evals[0].schema_digest, "rescored": self.is_rescored},
        })
    }

    pub fn failures(&self) -> Vec<Value> {
        let of = |eval: &EvalResult| {
            let mut document = json!(FailureGroups::for_eval(eval));
            document["name"] = json!(eval.name);
            document
        };
        self.evals.iter().map(of).collect()
    }

    /// The comparisons in the output of `runs compare --json` and `eval --json`.
    pub fn comparisons(&self) -> Vec<Value> {
        let document = |pair: &PairedComparison| {
            pair.document([&self.evals[pair.first].name, &self.evals[pair.second].name])
        };
        self.pairs.iter().map(document).collect()
    }
}

impl PairedComparison {
    /// Compares two evals by index, prompt by prompt, as one of `comparisons`.
    fn between(
        [(first, before), (second, after)]: [(usize, &EvalResult); 2],
        comparisons: usize,
    ) -> Self {
        let look = before.look.iter().chain(&after.look);
        let look = look.map(|look| look.number).max();
        let (first_records, second_records) = (&before.records, &after.records);
        let before: BTreeMap<_, _> = first_records
            .iter()
            .map(|record| (key(record), record))
            .collect();
        let both: Vec<_> = second_records
            .iter()
            .filter_map(|after| Some((*before.get(&key(after))?, after)))
            .collect();
        let mut tiers = [[0; 3]; 3];
        for (before, after) in both
            .iter()
            .filter(|(before, after)| !before.is_error() && !after.is_error())
        {
            tiers[before.tier as usize][after.tier as usize] += 1;
        }
        let (valid, exact) =
            MetricComparison::both(first_records, second_records, comparisons, look);
        Self {
            first,
            second,
            valid,
            exact,
            tiers,
        }
    }

    pub fn sentence(&self) -> String {
        MetricVerdict::sentence(
            self.valid.judged(),
            self.exact.as_ref().map(MetricComparison::judged),
        )
    }

    pub fn level(&self) -> Level {
        MetricVerdict::level(
            self.valid.verdict,
            self.exact.as_ref().map(|exact| exact.verdict),
        )
    }

    pub fn metrics(&self) -> impl Iterator<Item = &MetricComparison> {
        std::iter::once(&self.valid).chain(&self.exact)
    }

    pub fn difference(&self, measure: &Measure) -> Option<(Interval, Verdict)> {
        let judged = |metric: &MetricComparison| (metric.difference, metric.verdict);
        match measure {
            Measure::Valid => Some(judged(&self.valid)),
            Measure::Exact => self.exact.as_ref().map(judged),
            _ => {
                let mut samples = self.metrics().flat_map(|metric| &metric.of_samples);
                let found = samples.find(|found| found.rate == *measure)?;
                // It has a test, and decides nothing.
                Some((found.difference, Verdict::NoDifference))
            }
        }
    }

    pub fn count(&self, outcome: Outcome) -> usize {
        match outcome {
            Outcome::Fixed => self.valid.comparison.fixed,
            Outcome::Broken => self.valid.comparison.broken,
            Outcome::Both => self.valid.comparison.both,
            Outcome::Neither => self.valid.comparison.neither,
        }
    }

    /// As JSON: the numbers of `valid` on the top level, those of `exact` under their name.
    fn document(&self, names: [&str; 2]) -> Value {
        let MetricComparison {
            n,
            comparison,
            difference,
            p,
            adjusted_p,
            look,
            verdict,
            needed,
            of_samples,
            ..
        } = &self.valid;
        let Comparison {
            fixed,
            broken,
            both,
            neither,
            unmatched,
            mcnemar_p,
        } = comparison;
        let mut document = json!({
            "first": names[0], "second": names[1], "n": n, "fixed": fixed, "broken": broken, "both": both, "neither": neither,
            "unmatched": unmatched, "mcnemar_p": mcnemar_p, "valid_difference": difference,
            "exact_difference": self.exact.as_ref().map(|exact| exact.difference),
            "tiers": {"names": Tier::NAMES, "from_row_to_column": self.tiers},
            "clear": *verdict != Verdict::NoDifference, "required_n": needed, "p": p, "adjusted_p": adjusted_p, "verdict": verdict, "exact": self.exact
        });
        if !of_samples.is_empty() {
            document["samples"] = json!(of_samples);
        }
        if let Some(look) = look {
            document["look"] = json!(look);
        }
        document
    }
}

fn key(record: &EvalRecord) -> (&str, usize) {
    (record.prompt_id.as_str(), record.sample)
}

fn check_comparable(first: &EvalResult, other: &EvalResult) -> Result<Option<String>, ReportError> {
    let short = |digest: &str| digest.chars().take(8).collect::<String>();
    let unlike = |what: String| {
        Err(ReportError::Unlike(format!(
            "{} and {} cannot be compared: {what}",
            first.name, other.name
        )))
    };
    if first.task != other.task {
        return unlike(format!(
            "one is of the task {}, the other of {}",
            first.task, other.task
        ));
    }
    // Logs hold whatever prompts were answered: these are compared one by one.
    let of_logs = first.is_inferred && other.is_inferred;
    if !of_logs && first.prompts_digest != other.prompts_digest {
        let (a, b) = (short(&first.prompts_digest), short(&other.prompts_digest));
        return unlike(format!(
            "their prompts differ ({} has the hash {a}…, {} {b}…)",
            first.id.set, other.id.set
        ));
    }
    if first.schema_digest != other.schema_digest {
        let named = |eval: &EvalResult| match eval.scored_by.as_str() {
            "" => format!("{}…", short(&eval.schema_digest)),
            score => format!("`{score}`"),
        };
        let (a, b) = (named(first), named(other));
        return Err(ReportError::OtherSchemas(format!(
            "{} and {} were scored with different {}s ({a} and {b})",
            first.name, other.name, first.judge
        )));
    }
    if first.prompt_rules != other.prompt_rules {
        return Ok(Some(format!(
            "the prompts of {} and {} differ in `system`, `thinking` or `template_kwargs` of task.toml",
            first.name, other.name
        )));
    }
    let differs = !of_logs && first.task_digest != other.task_digest;
    Ok(differs.then(|| {
        format!(
            "the tasks of {} and {} differ in files other than schema and prompts, such as task.toml",
            first.name, other.name
        )
    }))
}

/// Gives prompts of a log that have ids of other prompts in the first one ids of their own.
fn part_other_prompts(first: &EvalResult, other: &mut EvalResult) -> Option<String> {
    if !(first.is_inferred && other.is_inferred) || first.prompts_digest == other.prompts_digest {
        return None;
    }
    let is_other = |id: &String, row: &PromptRow| {
        let known = first.rows.get(id);
        known.is_some_and(|known| {
            known.prompt_hash() != row.prompt_hash()
                || matches!((&known.expected, &row.expected), (Some(a), Some(b)) if a != b)
        })
    };
    let ids: BTreeSet<String> = other
        .rows
        .iter()
        .filter(|(id, row)| is_other(id, row))
        .map(|(id, _)| id.clone())
        .collect();
    for id in &ids {
        let own = format!("{id}~{}", other.name);
        if let Some(mut row) = other.rows.remove(id) {
            row.id.clone_from(&own);
            other.rows.insert(own.clone(), row);
        }
        for record in &mut other.records {
            if record.prompt_id == *id {
                record.prompt_id.clone_from(&own);
            }
        }
    }
    (!ids.is_empty()).then(|| {
        format!(
            "{} of {} have the id of another prompt of {}: they are not compared",
            counted(ids.len(), "prompt"),
            other.name,
            first.name
        )
    })
}

fn joined(evals: &[EvalResult]) -> Vec<ComparedPrompt> {
    let places: Vec<BTreeMap<(&str, usize), usize>> = evals
        .iter()
        .map(|eval| {
            eval.records
                .iter()
                .enumerate()
                .map(|(place, record)| (key(record), place))
                .collect()
        })
        .collect();
    let prompt = |record: &EvalRecord| {
        let records = places
            .iter()
            .map(|places| places.get(&key(record)).copied())
            .collect::<Option<Vec<_>>>()?;
        Some(ComparedPrompt {
            prompt_id: record.prompt_id.clone(),
            sample: record.sample,
            records,
        })
    };
    evals[0].records.iter().filter_map(prompt).collect()
}

/// The latest comparison of a server with the checkpoint of an eval; `None` for evals without a folder.
fn served(eval: &EvalResult) -> Option<String> {
    let folder = Some(&eval.id.folder).filter(|folder| !folder.as_os_str().is_empty())?;
    let records = read_proves(folder);
    let record = records.iter().find(|record| record.step == eval.id.step)?;
    let (model, url) = (&record.model, &record.base_url);
    Some(format!("served as {model} at {url}: {}", record.verdict()))
}
