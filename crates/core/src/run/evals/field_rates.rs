//! How often each field of the answers is right, leaf by leaf.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::eval_record::EvalRecord;
use crate::score::{LeafCounts, OTHER_PATHS, OrderedMap};
use crate::statistics::wilson_by_prompt;

/// Members that no row expects are invented by models: further ones are counted together.
const MAX_INVENTED_PATHS: usize = 50;

/// The leaves at a path, over all answers of an eval.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct FieldSummary {
    #[serde(flatten)]
    pub counts: LeafCounts,
    /// Share of the stated values that are right; `None` if none was stated.
    #[serde(default)]
    pub precision: Option<f64>,
    /// Share of the expected values that are stated right; `None` if none was expected.
    #[serde(default)]
    pub recall: Option<f64>,
    /// Their harmonic mean; `None` if a value was neither expected nor stated.
    #[serde(default)]
    pub f1: Option<f64>,
}

/// How often a value is stated where none is expected.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct InventedSummary {
    pub rate: f64,
    /// 95% interval, clustered by prompt.
    pub interval: [f64; 2],
    /// Places where no value is expected.
    pub n: usize,
}

impl InventedSummary {
    /// `None` if every row expects all of its values, or rows have no fields.
    pub(super) fn of_records(records: &[&EvalRecord]) -> Option<Self> {
        let mut prompts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for record in records {
            let (filled, blank) = filled_of(record);
            let prompt = prompts.entry(&record.prompt_id).or_default();
            *prompt = (prompt.0 + filled, prompt.1 + blank);
        }
        let prompts: Vec<(usize, usize)> = prompts.into_values().collect();
        let filled: usize = prompts.iter().map(|(filled, _)| filled).sum();
        let n: usize = prompts.iter().map(|(_, blank)| blank).sum();
        (n > 0).then(|| Self {
            rate: filled as f64 / n as f64,
            interval: wilson_by_prompt(&prompts).into(),
            n,
        })
    }
}

/// Of an answer's places where no value is expected, those with one, and all.
fn filled_of(record: &EvalRecord) -> (usize, usize) {
    let counts = counts_of(record).unwrap_or_default();
    counts.iter().fold((0, 0), |(filled, blank), (_, of)| {
        (filled + of.filled as usize, blank + of.blank as usize)
    })
}

/// By path; `None` unless answers are compared leaf by leaf.
fn counts_of(record: &EvalRecord) -> Option<OrderedMap<LeafCounts>> {
    OrderedMap::deserialize(record.score.get("leaves")?.get("counts")?).ok()
}

impl FieldSummary {
    fn new(counts: LeafCounts) -> Self {
        let right = f64::from(counts.right);
        let share = |of: f64| (of > 0.0).then(|| right / of);
        let stated = right + f64::from(counts.wrong + counts.invented);
        let expected = right + f64::from(counts.wrong + counts.missed);
        Self {
            counts,
            precision: share(stated),
            recall: share(expected),
            f1: share((stated + expected) / 2.0),
        }
    }

    /// How many values were expected.
    pub fn expected(&self) -> usize {
        (self.counts.right + self.counts.wrong + self.counts.missed) as usize
    }

    /// By path; empty unless answers are compared leaf by leaf.
    pub(super) fn of_records(records: &[&EvalRecord]) -> BTreeMap<String, Self> {
        let mut sums: BTreeMap<String, LeafCounts> = BTreeMap::new();
        let counts = records.iter().filter_map(|record| counts_of(record));
        for (path, counts) in counts.flat_map(|counts| counts.0) {
            *sums.entry(path).or_default() += counts;
        }
        let is_invented = |(_, counts): &(&String, &LeafCounts)| {
            counts.invented > 0 && counts.right + counts.wrong + counts.missed + counts.absent == 0
        };
        let invented = sums
            .iter()
            .filter(is_invented)
            .map(|(path, _)| path.clone());
        for path in invented.skip(MAX_INVENTED_PATHS).collect::<Vec<_>>() {
            let counts = sums.remove(&path).unwrap_or_default();
            *sums.entry(OTHER_PATHS.to_owned()).or_default() += counts;
        }
        let summary = |(path, counts)| (path, Self::new(counts));
        sums.into_iter().map(summary).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rates_count_what_was_stated_and_what_was_expected() {
        let record = |counts: serde_json::Value| EvalRecord {
            score: json!({"leaves": {"credit": 0.5, "counts": counts}}),
            ..EvalRecord::default()
        };
        let records = [
            record(
                json!({"vendor": {"right": 1}, "lines.*.amount": {"right": 2, "wrong": 1, "invented": 1}}),
            ),
            record(json!({"vendor": {"missed": 1}, "note": {"absent": 1}})),
            EvalRecord::default(),
        ];
        let fields = FieldSummary::of_records(&records.iter().collect::<Vec<_>>());
        let rates = |path: &str| fields.get(path).map(|of| (of.precision, of.recall, of.f1));
        assert_eq!(
            rates("vendor"),
            Some((Some(1.0), Some(0.5), Some(1.0 / 1.5)))
        );
        assert_eq!(
            rates("lines.*.amount"),
            Some((Some(0.5), Some(2.0 / 3.0), Some(2.0 / 3.5)))
        );
        assert_eq!(rates("note"), Some((None, None, None)));
        assert_eq!(fields.len(), 3);

        let blank = |id: &str, counts: serde_json::Value| EvalRecord {
            prompt_id: id.to_owned(),
            ..record(counts)
        };
        let records = [
            blank("a", json!({"note": {"absent": 1, "blank": 1}})),
            blank(
                "b",
                json!({"note": {"invented": 1, "blank": 1, "filled": 1}, "x": {"invented": 9}}),
            ),
            blank(
                "c",
                json!({"note": {"missed": 1, "blank": 1}, "tax": {"absent": 1, "blank": 1}}),
            ),
        ];
        let invented = InventedSummary::of_records(&records.iter().collect::<Vec<_>>());
        let invented = invented.unwrap_or_default();
        assert_eq!((invented.rate, invented.n), (0.25, 4));
        assert!(
            invented.interval[0] < 0.25 && invented.interval[1] > 0.25,
            "{invented:?}"
        );
        assert_eq!(
            InventedSummary::of_records(&[&records[1], &EvalRecord::default()]).map(|of| of.n),
            Some(1)
        );
        assert_eq!(InventedSummary::of_records(&[&EvalRecord::default()]), None);

        let keys = (0..200).map(|index| (format!("k{index}"), json!({"invented": 2})));
        let invented = record(serde_json::Value::Object(keys.collect()));
        let fields = FieldSummary::of_records(&[&invented]);
        assert_eq!(fields.len(), MAX_INVENTED_PATHS + 1);
        assert_eq!(
            fields.get(OTHER_PATHS).map(|of| of.counts.invented),
            Some(300)
        );
    }
}
