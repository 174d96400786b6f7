//! Groups of an eval's failures: by class, field at fault, tag, values of the row, and length.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::eval_results::EvalResult;
use super::tables::shown;
use crate::config::choices;
use crate::dataset::{PromptRow, expected_target};
use crate::format::percent;
use crate::page::{Cell, Row};
use crate::run::EvalRecord;
use crate::score::FailureClass;
use crate::statistics::{SIGNIFICANT, over_represented};

/// Values of a row's field are groups if it has at most this many different ones.
const MAX_VALUES: usize = 12;
/// In characters: a longer value is a text.
const MAX_VALUE_CHARS: usize = 40;

#[derive(Debug, Clone, Default, Serialize)]
pub struct FailureGroups {
    pub completions: usize,
    /// Completions that are not valid, or valid with wrong values.
    pub failures: usize,
    /// By kind; over-represented ones first, then those with most failures.
    pub groups: Vec<FailureGroup>,
}

/// Completions with a property that at least one failure has.
#[derive(Debug, Clone, Serialize)]
pub struct FailureGroup {
    pub kind: GroupKind,
    pub name: String,
    pub failures: usize,
    pub completions: usize,
    pub share_of_failures: f64,
    pub share_of_set: f64,
    /// Whether failures gather here: p < 0.05 by Fisher's exact test on the first completion of each prompt, corrected
    /// for the number of groups (Bonferroni). Never of a property that only failures have.
    pub over_represented: bool,
    /// The indices of its failures among the eval's records.
    #[serde(skip)]
    pub records: BTreeSet<usize>,
}

choices! {
    #[derive(PartialOrd, Ord)]
    GroupKind {
        /// The first violation. Only failures have one.
        Class = "class",
        /// A top-level field that is violated or differs from the expected one. Only failures have one.
        Field = "field",
        Tag = "tag",
        Row = "row",
        Expected = "expected",
        /// Truncated, or a quartile of the completion tokens.
        Length = "length",
    }
}

impl GroupKind {
    fn is_of_failures_only(self) -> bool {
        matches!(self, Self::Class | Self::Field)
    }
}

/// The indices of the completions with a property.
type Members = BTreeMap<(GroupKind, String), BTreeSet<usize>>;

impl FailureGroups {
    pub fn for_eval(eval: &EvalResult) -> Self {
        let records = &eval.records;
        let failing: BTreeSet<usize> = (0..records.len())
            .filter(|index| records[*index].fails())
            .collect();
        let mut members = Members::new();
        for (index, record) in records.iter().enumerate() {
            for property in properties(record, failing.contains(&index)) {
                members.entry(property).or_default().insert(index);
            }
        }
        add_lengths(&mut members, records);
        add_row_values(&mut members, eval);
        let scored: BTreeSet<usize> = (0..records.len())
            .filter(|index| !records[*index].is_error())
            .collect();
        members
            .values_mut()
            .for_each(|of| of.retain(|index| scored.contains(index)));
        members.retain(|_, of| of.intersection(&failing).next().is_some());

        let is_first = |index: &&usize| records[**index].sample == 0;
        let prompts = scored.iter().filter(is_first).count();
        let failed_prompts = failing.iter().filter(is_first).count();
        let tested = members
            .keys()
            .filter(|(kind, _)| !kind.is_of_failures_only())
            .count();
        let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
        let group = |((kind, name), of): ((GroupKind, String), BTreeSet<usize>)| {
            let inside: BTreeSet<usize> = of.intersection(&failing).copied().collect();
            let (found, size) = (
                inside.iter().filter(is_first).count(),
                of.iter().filter(is_first).count(),
            );
            let p = || over_represented(found, size, failed_prompts, prompts);
            FailureGroup {
                kind,
                name,
                failures: inside.len(),
                completions: of.len(),
                share_of_failures: share(inside.len(), failing.len()),
                share_of_set: share(of.len(), scored.len()),
                over_represented: !kind.is_of_failures_only()
                    && p() * (tested as f64) < SIGNIFICANT,
                records: inside,
            }
        };
        let mut groups: Vec<FailureGroup> = members.into_iter().map(group).collect();
        groups.sort_by_key(|group| {
            (
                group.kind,
                !group.over_represented,
                std::cmp::Reverse(group.failures),
            )
        });
        Self {
            completions: scored.len(),
            failures: failing.len(),
            groups,
        }
    }

    pub fn title(&self, eval: &str) -> String {
        let share = percent(self.failures as f64 / self.completions.max(1) as f64);
        let Self {
            failures,
            completions,
            ..
        } = self;
        format!(
            "Failures of {eval}: {failures} of {completions} completions ({share}) are not valid or have wrong values"
        )
    }

    /// The headings of [`FailureGroup::row`].
    pub const HEADINGS: [&str; 5] = ["group", "failures", "share of failures", "share of set", ""];
}

impl FailureGroup {
    /// `tag messy`.
    pub fn label(&self) -> String {
        format!("{} {}", self.kind.name(), self.name)
    }

    pub fn row(&self) -> Row {
        let over = if self.over_represented {
            "over-represented"
        } else {
            ""
        };
        let count = format!("{} of {}", self.failures, self.completions);
        let cells = [
            Cell::Text(count),
            Cell::rate(self.share_of_failures),
            Cell::rate(self.share_of_set),
            Cell::Text(over.to_owned()),
        ];
        Row::new(self.label(), cells)
    }
}

fn properties(record: &EvalRecord, fails: bool) -> Vec<(GroupKind, String)> {
    let mut found: Vec<_> = record
        .tags
        .iter()
        .map(|tag| (GroupKind::Tag, tag.clone()))
        .collect();
    if record.truncated {
        found.push((GroupKind::Length, "truncated".to_owned()));
    }
    if fails {
        found.push((
            GroupKind::Class,
            record
                .failure()
                .map_or("n/a", FailureClass::name)
                .to_owned(),
        ));
        let wrong = record.score["fields"].as_object().into_iter().flatten();
        let wrong = wrong
            .filter(|(_, equal)| **equal == Value::Bool(false))
            .map(|(name, _)| name.clone());
        let errors = record.score["errors"].as_array().into_iter().flatten();
        let violated = errors.filter_map(|error| {
            error["instance_path"]
                .as_str()?
                .split('/')
                .nth(1)
                .map(str::to_owned)
        });
        found.extend(wrong.chain(violated).map(|name| (GroupKind::Field, name)));
    }
    found
}

/// Quartiles of the completion tokens.
fn add_lengths(members: &mut Members, records: &[EvalRecord]) {
    let mut lengths: Vec<usize> = records.iter().filter_map(|record| record.tokens).collect();
    lengths.sort_unstable();
    let (Some(shortest), Some(longest)) = (lengths.first(), lengths.last()) else {
        return;
    };
    let mut from = *shortest;
    for quarter in 1..=4 {
        let to = lengths
            .get(quarter * lengths.len() / 4)
            .copied()
            .unwrap_or(*longest);
        let to = if quarter == 4 {
            *longest
        } else {
            to.saturating_sub(1)
        };
        if to < from {
            continue;
        }
        let inside = (0..records.len())
            .filter(|index| {
                records[*index]
                    .tokens
                    .is_some_and(|tokens| (from..=to).contains(&tokens))
            })
            .collect();
        let range = if from == to {
            format!("{to} tokens")
        } else {
            format!("{from} to {to} tokens")
        };
        members.insert((GroupKind::Length, range), inside);
        from = to + 1;
    }
}

/// Values of the rows and of their expected answers, of fields with few different ones.
fn add_row_values(members: &mut Members, eval: &EvalResult) {
    let mut by_field: BTreeMap<(GroupKind, String), BTreeMap<String, BTreeSet<usize>>> =
        BTreeMap::new();
    for (index, record) in eval.records.iter().enumerate() {
        for (kind, field, value) in eval
            .rows
            .get(&record.prompt_id)
            .into_iter()
            .flat_map(values)
        {
            by_field
                .entry((kind, field))
                .or_default()
                .entry(value)
                .or_default()
                .insert(index);
        }
    }
    for ((kind, field), values) in by_field {
        let is_text = values
            .keys()
            .any(|value| value.chars().count() > MAX_VALUE_CHARS);
        if (2..=MAX_VALUES).contains(&values.len()) && !is_text {
            members.extend(
                values
                    .into_iter()
                    .map(|(value, of)| ((kind, format!("{field} = {value}")), of)),
            );
        }
    }
}

/// Values other than objects and arrays.
fn values(row: &PromptRow) -> Vec<(GroupKind, String, String)> {
    let of_row = row.fields.other().iter();
    let expected = row.expected.as_ref().map(expected_target);
    let expected = expected
        .as_ref()
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    of_row
        .map(|field| (GroupKind::Row, field))
        .chain(expected.map(|field| (GroupKind::Expected, field)))
        .filter(|(_, (_, value))| !value.is_object() && !value.is_array())
        .map(|(kind, (name, value))| (kind, name.clone(), shown(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::facts::Tier;

    /// 100 prompts, every second one messy; of those the first 12 fail, truncated.
    fn eval() -> EvalResult {
        let record = |index: usize| {
            let (messy, fails) = (index % 2 == 1, index % 2 == 1 && index < 24);
            let score = json!({"failure": if index < 4 { "missing_key" } else { "wrong_type" }, "fields": {"amount": false, "vendor": true},
                "errors": [{"instance_path": "/amount/net"}]});
            EvalRecord {
                prompt_id: format!("p{index}"),
                tier: if fails { Tier::Invalid } else { Tier::Valid },
                exact: Some(!fails),
                tags: vec![if messy { "messy" } else { "clean" }.to_owned()],
                tokens: Some(if fails { 64 } else { index }),
                truncated: fails,
                score: if fails { score } else { Value::Null },
                ..EvalRecord::default()
            }
        };
        let row = |index: usize| {
            let line = json!({"id": format!("p{index}"), "messages": [{"role": "user", "content": "x"}], "source": index % 3,
                "text": format!("text {index}"), "expected": {"currency": if index < 24 { "EUR" } else { "USD" }}});
            (
                format!("p{index}"),
                crate::dataset::load_from("rows", line.to_string().as_bytes())
                    .unwrap_or_default()
                    .remove(0),
            )
        };
        let records: Vec<EvalRecord> = (0..100).map(record).collect();
        EvalResult {
            records,
            rows: (0..100).map(row).collect(),
            ..EvalResult::default()
        }
    }

    #[test]
    fn failures_are_grouped_by_what_they_share() {
        let found = FailureGroups::for_eval(&eval());
        assert_eq!((found.completions, found.failures), (100, 12));
        let shown: Vec<_> = found
            .groups
            .iter()
            .map(|group| {
                (
                    group.label(),
                    group.failures,
                    group.completions,
                    group.over_represented,
                )
            })
            .collect();
        let expected = [
            ("class wrong type", 10, 10, false),
            ("class missing key", 2, 2, false),
            ("field amount", 12, 12, false),
            ("tag messy", 12, 50, true),
            ("row source = 0", 4, 34, false),
            ("row source = 1", 4, 33, false),
            ("row source = 2", 4, 33, false),
            ("expected currency = EUR", 12, 24, true),
            ("length 62 to 74 tokens", 12, 25, true),
            ("length truncated", 12, 12, true),
        ];
        let shown: Vec<_> = shown
            .iter()
            .map(|(label, failures, all, over)| (label.as_str(), *failures, *all, *over))
            .collect();
        assert_eq!(shown, expected);
        assert_eq!(
            found.groups[3].records,
            (0..24).filter(|index| index % 2 == 1).collect()
        );
        assert_eq!(
            format!("{:?}", found.groups[3].row()),
            r#"Row { label: "tag messy", cells: [Text("12 of 50"), Rate { value: 1.0, interval: None, n: None }, Rate { value: 0.5, interval: None, n: None }, Text("over-represented")], level: Info }"#
        );
        let mut clean = eval();
        clean.records.retain(|record| !record.fails());
        assert!(FailureGroups::for_eval(&clean).groups.is_empty());
    }

    /// Four completions of a prompt that fails are one failing prompt.
    #[test]
    fn samples_of_a_prompt_are_not_counted_as_evidence() {
        let mut few = eval();
        few.records.truncate(6);
        let copies = |record: &EvalRecord| {
            (0..40)
                .map(|sample| EvalRecord {
                    sample,
                    ..record.clone()
                })
                .collect::<Vec<_>>()
        };
        few.records = few.records.iter().flat_map(copies).collect();
        let found = FailureGroups::for_eval(&few);
        assert_eq!((found.completions, found.failures), (240, 120));
        let tag = found
            .groups
            .iter()
            .find(|group| group.kind == GroupKind::Tag)
            .map(|group| (group.failures, group.completions));
        assert_eq!(tag, Some((120, 120)));
        assert!(
            found.groups.iter().all(|group| !group.over_represented),
            "three of six prompts prove nothing"
        );
    }
}
