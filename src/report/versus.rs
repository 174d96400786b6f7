//! Two or three passes on the same prompts: joined by prompt and sample, with what the differences between each two of them are worth.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::passes::{Pass, PassId};
use super::{ReportError, verdict};
use crate::run::{Comparison, EvalRecord};
use crate::score::Scorer;
use crate::statistics::{Interval, compound, paired_bootstrap, required_n};
use crate::task::Task;

/// Tiers in their order.
pub const TIERS: [&str; 3] = ["unparsable", "invalid", "valid"];

/// Resamples of an interval; its ends then move by less than half a point from seed to seed.
const RESAMPLES: usize = 4000;

/// A result with a larger p settles nothing.
const CLEAR: f64 = 0.05;

/// Passes side by side.
#[derive(Debug, Clone)]
pub struct Versus {
    /// Two or three; the first is what the others are held against.
    pub passes: Vec<Pass>,
    /// Each two of them: (0, 1), then (0, 2) and (1, 2).
    pub pairs: Vec<Paired>,
    /// Prompts that all passes have, in the order of the first.
    pub prompts: Vec<Asked>,
    /// What a reader should know, in sentences.
    pub warnings: Vec<String>,
}

/// One prompt, or one sample of it, with each pass's answer.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The prompt row's id.
    pub prompt_id: String,
    /// Which sample, from 0.
    pub sample: usize,
    /// Its record's place in each pass.
    pub records: Vec<usize>,
}

/// What the difference between two passes is worth.
#[derive(Debug, Clone)]
pub struct Paired {
    /// The place of the pass before.
    pub first: usize,
    /// The place of the pass after.
    pub second: usize,
    /// Validity prompt by prompt, of the first sample of each.
    pub comparison: Comparison,
    /// Difference of the valid rate, second minus first, paired by prompt.
    pub valid: Interval,
    /// The same of exact matches; `None` where no prompt has an expected answer.
    pub exact: Option<Interval>,
    /// How many answers went from the tier of the row to that of the column, in the order of [`TIERS`].
    pub tiers: [[usize; 3]; 3],
    /// Where the result settles nothing: prompts that would show a difference like this in four of five tries; `None` where it
    /// settles something, or no number would.
    pub needed: Option<usize>,
}

/// What became of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Valid only in the second pass.
    Fixed,
    /// Valid only in the first.
    Broken,
    /// Valid in both.
    Both,
    /// Valid in neither.
    Neither,
}

impl Outcome {
    /// All, in the order of the matrix.
    pub const ALL: [Self; 4] = [Self::Both, Self::Broken, Self::Fixed, Self::Neither];

    /// As one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Broken => "broken",
            Self::Both => "both",
            Self::Neither => "neither",
        }
    }

    fn of(before: &EvalRecord, after: &EvalRecord) -> Self {
        match (before.is_valid(), after.is_valid()) {
            (false, true) => Self::Fixed,
            (true, false) => Self::Broken,
            (true, true) => Self::Both,
            (false, false) => Self::Neither,
        }
    }
}

impl Versus {
    /// Read and compare passes.
    ///
    /// # Errors
    /// [`ReportError::Unlike`] with what differs where they did not answer the same prompts of the same task, and what cannot be read.
    pub fn read(ids: &[PassId]) -> Result<Self, ReportError> {
        let several = ids.windows(2).any(|pair| pair[0].folder != pair[1].folder);
        Self::of(ids.iter().map(|id| Pass::read(id.clone(), several)).collect::<Result<Vec<_>, _>>()?)
    }

    /// Read passes, score each of their completions again by one schema, and compare. What the runs recorded stays as it is.
    ///
    /// # Errors
    /// As [`Self::read`]; [`ReportError::Unlike`] also where the passes are of another task than the scorer.
    pub fn rescored(ids: &[PassId], task: &Task, scorer: &Scorer) -> Result<Self, ReportError> {
        let several = ids.windows(2).any(|pair| pair[0].folder != pair[1].folder);
        let read = |id: &PassId| Pass::read(id.clone(), several)?.rescored(task, scorer);
        let mut versus = Self::of(ids.iter().map(read).collect::<Result<Vec<_>, _>>()?)?;
        let digest: String = versus.passes[0].schema_digest.chars().take(8).collect();
        versus.warnings.insert(0, format!("all answers are scored again by one schema ({digest}…), not as the runs recorded them"));
        Ok(versus)
    }

    /// Compare passes.
    ///
    /// # Errors
    /// [`ReportError::Unlike`] with what differs, [`ReportError::OtherSchemas`] where scoring again would help.
    pub fn of(passes: Vec<Pass>) -> Result<Self, ReportError> {
        if !(2..=3).contains(&passes.len()) {
            return Err(ReportError::Unlike(format!("{} passes cannot be compared; choose two or three", passes.len())));
        }
        let mut warnings = Vec::new();
        for other in &passes[1..] {
            warnings.extend(alike(&passes[0], other)?);
        }
        let prompts = joined(&passes);
        if prompts.is_empty() {
            return Err(ReportError::Unlike("the passes have no prompt id in common".to_owned()));
        }
        let most = passes.iter().map(|pass| pass.records.len()).max().unwrap_or(0);
        if prompts.len() < most {
            warnings.push(format!(
                "only {} of {most} answers are in all passes; the others are left out of the list and of the paired test",
                prompts.len()
            ));
        }
        let places = (0..passes.len()).flat_map(|a| (a + 1..passes.len()).map(move |b| (a, b)));
        let pairs = places.map(|(a, b)| Paired::of((a, &passes[a].records), (b, &passes[b].records))).collect();
        Ok(Self { passes, pairs, prompts, warnings })
    }

    /// The answer of a pass to a prompt of the list.
    pub fn record(&self, asked: &Asked, pass: usize) -> Option<&EvalRecord> {
        self.passes.get(pass)?.records.get(*asked.records.get(pass)?)
    }

    /// What became of a prompt between two passes.
    pub fn outcome(&self, asked: &Asked, pair: &Paired) -> Option<Outcome> {
        Some(Outcome::of(self.record(asked, pair.first)?, self.record(asked, pair.second)?))
    }

    /// As `runs versus --json` writes it.
    pub fn document(&self) -> Value {
        let pass = |pass: &Pass| {
            let compounded = json!({"10": compound(pass.summary.valid, 10), "50": compound(pass.summary.valid, 50)});
            json!({
                "name": pass.name, "folder": pass.id.folder, "step": pass.id.step, "set": pass.id.set, "target": pass.id.target,
                "summary": pass.summary, "in_a_row": compounded,
            })
        };
        let pair = |pair: &Paired| pair.document([&self.passes[pair.first].name, &self.passes[pair.second].name]);
        json!({
            "task": self.passes[0].task, "set": self.passes[0].id.set, "passes": self.passes.iter().map(pass).collect::<Vec<_>>(),
            "comparisons": self.pairs.iter().map(pair).collect::<Vec<_>>(), "warnings": self.warnings,
        })
    }

    /// As `runs versus` prints it.
    pub fn page(&self) -> String {
        let columns: Vec<_> = self.passes.iter().map(|pass| (pass.name.as_str(), &pass.summary)).collect();
        let mut text = verdict::columns(&self.passes[0].id.set, &columns);
        for pair in &self.pairs {
            text.push_str(&format!("{} to {}: {}", columns[pair.first].0, columns[pair.second].0, verdict::verdict(&pair.comparison)));
            text.push_str(&format!("valid {}; {}\n", pair.difference(), pair.sentence()));
        }
        if let Some((_, last)) = columns.last() {
            text.push_str(&verdict::value_drift(last));
        }
        text.extend(self.warnings.iter().map(|warning| format!("note: {warning}\n")));
        text
    }
}

impl Paired {
    /// Compare the passes at two places, prompt by prompt.
    pub fn of(first: (usize, &[EvalRecord]), second: (usize, &[EvalRecord])) -> Self {
        let firsts = |records: &[EvalRecord]| records.iter().filter(|record| record.sample == 0).cloned().collect::<Vec<_>>();
        // Completions of one prompt are not independent of each other, so the test takes the first of each prompt.
        let comparison = Comparison::of(&firsts(first.1), &firsts(second.1));
        let before: BTreeMap<_, _> = first.1.iter().map(|record| (key(record), record)).collect();
        let both: Vec<_> = second.1.iter().filter_map(|after| Some((*before.get(&key(after))?, after))).collect();
        let mut tiers = [[0; 3]; 3];
        let tier = |record: &EvalRecord| TIERS.iter().position(|tier| *tier == record.tier).unwrap_or(0);
        for (before, after) in &both {
            tiers[tier(before)][tier(after)] += 1;
        }
        let share = |holds: bool| f64::from(u8::from(holds));
        let valid = difference(&both, |record| Some(share(record.is_valid())));
        let exact = both.iter().any(|(before, after)| before.exact.is_some() && after.exact.is_some());
        let pairs = comparison.pairs().max(1) as f64;
        let needed = (comparison.mcnemar_p >= CLEAR)
            .then(|| required_n(comparison.fixed as f64 / pairs, comparison.broken as f64 / pairs, 0.8))
            .flatten();
        Self {
            first: first.0,
            second: second.0,
            comparison,
            valid,
            exact: exact.then(|| difference(&both, |record| record.exact.map(share))),
            tiers,
            needed,
        }
    }

    /// How many prompts had an outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        match outcome {
            Outcome::Fixed => self.comparison.fixed,
            Outcome::Broken => self.comparison.broken,
            Outcome::Both => self.comparison.both,
            Outcome::Neither => self.comparison.neither,
        }
    }

    /// `+39.0 points [+29.0, +49.0]`: the difference of the valid rate.
    pub fn difference(&self) -> String {
        points(&self.valid)
    }

    /// Whether the test settles that the two differ.
    pub fn is_clear(&self) -> bool {
        self.comparison.mcnemar_p < CLEAR
    }

    /// What the result is worth, in words.
    pub fn sentence(&self) -> String {
        let pairs = self.comparison.pairs();
        match (self.is_clear(), self.needed) {
            (true, _) if self.comparison.fixed > self.comparison.broken => "the second is better, not by chance alone".to_owned(),
            (true, _) => "the second is worse, not by chance alone".to_owned(),
            (false, Some(needed)) if needed > pairs => {
                format!("not settled by {pairs} prompts; about {needed} would show a difference like this four times in five")
            }
            (false, Some(_)) => format!("not settled by these {pairs} prompts, though so many should show a difference like this"),
            (false, None) => "no difference is seen: as many became valid as ceased to be".to_owned(),
        }
    }

    /// As JSON, with the names of the two.
    pub fn document(&self, names: [&str; 2]) -> Value {
        let Comparison { fixed, broken, both, neither, unmatched, mcnemar_p } = self.comparison;
        json!({
            "first": names[0], "second": names[1], "n": self.comparison.pairs(), "fixed": fixed, "broken": broken, "both": both,
            "neither": neither, "unmatched": unmatched, "mcnemar_p": mcnemar_p, "valid_difference": self.valid,
            "exact_difference": self.exact, "tiers": {"names": TIERS, "from_row_to_column": self.tiers},
            "clear": self.is_clear(), "required_n": self.needed,
        })
    }
}

/// A difference of rates in points of a hundred, with its 95 % interval.
pub fn points(interval: &Interval) -> String {
    format!("{:+.1} points [{:+.1}, {:+.1}]", 100.0 * interval.estimate, 100.0 * interval.low, 100.0 * interval.high)
}

fn key(record: &EvalRecord) -> (&str, usize) {
    (record.prompt_id.as_str(), record.sample)
}

/// Second minus first, a prompt's samples averaged, with a bootstrap over prompts.
fn difference(pairs: &[(&EvalRecord, &EvalRecord)], measure: impl Fn(&EvalRecord) -> Option<f64>) -> Interval {
    let mut by_prompt: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (before, after) in pairs {
        if let (Some(before), Some(now)) = (measure(before), measure(after)) {
            let (sum, count) = by_prompt.entry(after.prompt_id.as_str()).or_default();
            *sum += now - before;
            *count += 1.0;
        }
    }
    let differences: Vec<f64> = by_prompt.into_values().map(|(sum, count)| sum / count).collect();
    paired_bootstrap(&differences, RESAMPLES, 0)
}

/// What should be known where two passes can be compared all the same.
fn alike(first: &Pass, other: &Pass) -> Result<Option<String>, ReportError> {
    let short = |digest: &str| digest.chars().take(8).collect::<String>();
    let unlike = |what: String| Err(ReportError::Unlike(format!("{} and {} cannot be compared: {what}", first.name, other.name)));
    if first.task != other.task {
        return unlike(format!("one is of the task {}, the other of {}", first.task, other.task));
    }
    if first.prompts_digest != other.prompts_digest {
        let (a, b) = (short(&first.prompts_digest), short(&other.prompts_digest));
        return unlike(format!("their prompts differ ({} has the hash {a}…, {} {b}…)", first.id.set, other.id.set));
    }
    if first.schema_digest != other.schema_digest {
        let (a, b) = (short(&first.schema_digest), short(&other.schema_digest));
        return Err(ReportError::OtherSchemas(format!("{} and {} were scored by other schemas ({a}… and {b}…)", first.name, other.name)));
    }
    let differs = first.task_digest != other.task_digest;
    Ok(differs.then(|| {
        format!("the tasks of {} and {} differ in files other than schema and prompts, such as task.toml", first.name, other.name)
    }))
}

fn joined(passes: &[Pass]) -> Vec<Asked> {
    let places: Vec<BTreeMap<(&str, usize), usize>> =
        passes.iter().map(|pass| pass.records.iter().enumerate().map(|(place, record)| (key(record), place)).collect()).collect();
    let asked = |record: &EvalRecord| {
        let records = places.iter().map(|places| places.get(&key(record)).copied()).collect::<Option<Vec<_>>>()?;
        Some(Asked { prompt_id: record.prompt_id.clone(), sample: record.sample, records })
    };
    passes[0].records.iter().filter_map(asked).collect()
}
