//! One field's ranker: learned from labelled prompts, and asked for the likely values of another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::candidates::{Candidate, Candidates};
use super::fields::{Field, Form, Label};
use super::known_names::known;
use super::prompt_text::{PromptText, Vocabulary};
use super::ranker::{Example, GroupIds, Ranker};
use crate::exact_json;

/// A labelled prompt with the candidates of every form.
pub(super) struct LabelledPrompt {
    candidates: Candidates,
    pub(super) label: Label,
    /// By candidate.
    right: Vec<bool>,
}

/// A likely value and its probability.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LikelyValue {
    pub(super) value: Value,
    /// `Null` and `Absent` have no value.
    pub(super) form: Form,
    pub(super) mass: f64,
}

#[derive(Debug)]
pub(super) struct FieldRanker {
    field: Field,
    /// Those that a label had.
    forms: BTreeSet<Form>,
    max_words: usize,
    ranker: Ranker,
    /// By which scores are multiplied, so that probabilities are those of labelled rows.
    pub(super) sharpness: f32,
}

impl LabelledPrompt {
    pub(super) fn new(
        field: &Field,
        prompt: &PromptText,
        vocabulary: &Vocabulary,
        label: Label,
    ) -> Self {
        let candidates = Candidates::new(prompt, vocabulary, &field.kind, &BTreeSet::new());
        let mut right: Vec<bool> = candidates
            .all
            .iter()
            .map(|candidate| label.has_value(&candidate.value, candidate.form))
            .collect();
        let is_exact = |candidate: &Candidate| matches!(&label, Label::Values(values) if values.contains(&candidate.value));
        let exact: Vec<bool> = candidates.all.iter().map(is_exact).collect();
        if exact.contains(&true) {
            right = exact;
        }
        Self {
            candidates,
            label,
            right,
        }
    }

    /// Whether the label is among the candidates.
    pub(super) fn is_readable(&self) -> bool {
        self.right.contains(&true)
    }

    /// Whether the label is one of two readings of a date.
    pub(super) fn reads_two_ways(&self) -> bool {
        self.right().all(|candidate| candidate.twin.is_some())
    }

    fn right(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates
            .all
            .iter()
            .zip(&self.right)
            .filter(|(_, right)| **right)
            .map(|(candidate, _)| candidate)
    }
}

/// Forms that together have every label that any has: each time the one with most of those left, the narrowest of equals.
fn needed_forms(labelled: &[&LabelledPrompt]) -> BTreeSet<Form> {
    let forms = |prompt: &&LabelledPrompt| {
        prompt
            .right()
            .map(|candidate| candidate.form)
            .collect::<BTreeSet<Form>>()
    };
    let mut left: Vec<BTreeSet<Form>> = labelled
        .iter()
        .map(forms)
        .filter(|forms| !forms.is_empty())
        .collect();
    let mut needed = BTreeSet::new();
    loop {
        let mut counts: BTreeMap<Form, usize> = BTreeMap::new();
        left.iter()
            .flatten()
            .for_each(|form| *counts.entry(*form).or_default() += 1);
        // Forms are in order of how many candidates they have, the widest first.
        let Some((form, _)) = counts
            .into_iter()
            .max_by_key(|(form, count)| (*count, *form))
        else {
            return needed;
        };
        left.retain(|forms| !forms.contains(&form));
        needed.insert(form);
    }
}

impl FieldRanker {
    pub(super) fn new(field: &Field, labelled: &[&LabelledPrompt]) -> Self {
        let right = || labelled.iter().flat_map(|prompt| prompt.right());
        let mut forms = needed_forms(labelled);
        let max_words = right()
            .map(Candidate::words)
            .max()
            .unwrap_or(usize::MAX - 1)
            + 1;
        if forms.is_empty() {
            forms = super::known_names::forms(field);
        }
        let mut made = Self {
            field: field.clone(),
            forms,
            max_words,
            ranker: Ranker::new(&known(field)),
            sharpness: 1.0,
        };
        let examples: Vec<Example<'_>> = labelled
            .iter()
            .filter_map(|prompt| made.example(prompt))
            .collect();
        made.ranker.train(&examples);
        made
    }

    fn uses(&self, candidate: &Candidate) -> bool {
        self.forms.contains(&candidate.form) && candidate.words() <= self.max_words
    }

    fn example<'p>(&self, prompt: &'p LabelledPrompt) -> Option<Example<'p>> {
        let used = prompt
            .candidates
            .all
            .iter()
            .zip(&prompt.right)
            .filter(|(candidate, _)| self.uses(candidate));
        let (candidates, right): (Vec<GroupIds>, Vec<bool>) = used
            .map(|(candidate, right)| (candidate.groups, *right))
            .unzip();
        // Nothing is learned of a label that the prompt does not state.
        right.contains(&true).then_some(Example {
            groups: &prompt.candidates.groups,
            candidates,
            right,
        })
    }

    /// The likely values of another prompt, the likeliest first. `is_mixed`: the two readings of a date are equally likely.
    pub(super) fn rank(
        &self,
        prompt: &PromptText,
        vocabulary: &Vocabulary,
        is_mixed: bool,
    ) -> Vec<LikelyValue> {
        let candidates = Candidates::new(prompt, vocabulary, &self.field.kind, &self.forms);
        self.ranked(&candidates, self.sharpness, is_mixed)
    }

    pub(super) fn rank_labelled(
        &self,
        prompt: &LabelledPrompt,
        sharpness: f32,
    ) -> Vec<LikelyValue> {
        self.ranked(&prompt.candidates, sharpness, false)
    }

    fn ranked(&self, candidates: &Candidates, sharpness: f32, is_mixed: bool) -> Vec<LikelyValue> {
        let used: Vec<&Candidate> = candidates
            .all
            .iter()
            .filter(|candidate| self.uses(candidate))
            .collect();
        let ids: Vec<GroupIds> = used.iter().map(|candidate| candidate.groups).collect();
        let mut mass = self
            .ranker
            .probabilities(&candidates.groups, &ids, sharpness);
        if is_mixed {
            let mut twins: BTreeMap<(usize, Form), Vec<usize>> = BTreeMap::new();
            for (index, candidate) in used.iter().enumerate() {
                let twin = candidate.twin.map(|start| (start, candidate.form));
                twin.into_iter()
                    .for_each(|twin| twins.entry(twin).or_default().push(index));
            }
            for pair in twins.values() {
                let mean = pair.iter().map(|index| mass[*index]).sum::<f32>() / pair.len() as f32;
                pair.iter().for_each(|index| mass[*index] = mean);
            }
        }
        let mut places: BTreeMap<(String, Option<Form>), usize> = BTreeMap::new();
        let mut found: Vec<LikelyValue> = Vec::new();
        for (candidate, mass) in used.iter().zip(mass) {
            let without = candidate.form.is_without().then_some(candidate.form);
            let place = *places
                .entry((exact_json::write(&candidate.value), without))
                .or_insert(found.len());
            match found.get_mut(place) {
                Some(same) => same.mass += f64::from(mass),
                None => found.push(LikelyValue {
                    value: candidate.value.clone(),
                    form: candidate.form,
                    mass: f64::from(mass),
                }),
            }
        }
        found.sort_by(|left, right| right.mass.total_cmp(&left.mass));
        found
    }
}
