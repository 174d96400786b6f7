//! A log-linear ranker: a softmax over the candidates of a prompt, with hashed features.

use crate::dataset::{CounterRandom, mix, text_hash};

/// Bits of a feature's place among the weights.
const TABLE_BITS: u32 = 18;
/// Passes over the labelled rows, step size, and the share that a weight loses with each use.
const EPOCHS: usize = 25;
const RATE: f32 = 0.2;
const DECAY: f32 = 0.002;

/// A feature's place among the weights.
pub(super) type Feature = u32;

/// The feature of a kind with a value.
pub(super) fn feature(kind: &str, value: &str) -> Feature {
    number_feature(kind, text_hash(value))
}

pub(super) fn number_feature(kind: &str, value: u64) -> Feature {
    (mix(text_hash(kind) ^ value.rotate_left(17)) >> (64 - TABLE_BITS)) as Feature
}

/// What candidates of one prompt have in common or alone: lists of features, shared by their index.
#[derive(Debug, Default)]
pub(super) struct Groups {
    features: Vec<Feature>,
    ends: Vec<u32>,
}

impl Groups {
    pub(super) fn add(&mut self, features: impl IntoIterator<Item = Feature>) -> u32 {
        self.features.extend(features);
        self.ends.push(self.features.len() as u32);
        self.ends.len() as u32 - 1
    }

    fn all(&self) -> impl Iterator<Item = &[Feature]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let group = &self.features[start..*end as usize];
            start = *end as usize;
            group
        })
    }
}

/// Indices of the groups whose features a candidate has.
pub(super) type GroupIds = [u32; 4];

/// A labelled prompt: all candidates, and which of them are right; at least one is.
pub(super) struct Example<'e> {
    pub(super) groups: &'e Groups,
    pub(super) candidates: Vec<GroupIds>,
    pub(super) right: Vec<bool>,
}

#[derive(Debug, Clone)]
pub(super) struct Ranker {
    weights: Vec<f32>,
}

impl Ranker {
    /// `known`: what is likely before any label.
    pub(super) fn new(known: &[(Feature, f32)]) -> Self {
        let mut weights = vec![0.0; 1 << TABLE_BITS];
        for (feature, weight) in known {
            weights[*feature as usize] = *weight;
        }
        Self { weights }
    }

    /// Learns from the examples, in an order that a fixed seed determines.
    pub(super) fn train(&mut self, examples: &[Example<'_>]) {
        let prior = self.weights.clone();
        let mut order: Vec<usize> = (0..examples.len()).collect();
        for epoch in 0..EPOCHS {
            let mut random = CounterRandom::new(&[90, epoch as u64]);
            for last in (1..order.len()).rev() {
                order.swap(last, random.below(last as u64 + 1) as usize);
            }
            let rate = RATE / (1.0 + epoch as f32 / EPOCHS as f32);
            for index in &order {
                self.step(&examples[*index], rate, &prior);
            }
        }
    }

    fn step(&mut self, example: &Example<'_>, rate: f32, prior: &[f32]) {
        let mass = self.probabilities(example.groups, &example.candidates, 1.0);
        let right: f32 = mass
            .iter()
            .zip(&example.right)
            .filter(|(_, right)| **right)
            .map(|(mass, _)| mass)
            .sum();
        if right <= 0.0 {
            return;
        }
        let mut gradients = vec![0.0_f32; example.groups.ends.len()];
        for ((groups, mass), is_right) in example.candidates.iter().zip(&mass).zip(&example.right) {
            let wanted = if *is_right { mass / right } else { 0.0 };
            for group in groups {
                gradients[*group as usize] += mass - wanted;
            }
        }
        for (features, gradient) in example
            .groups
            .all()
            .zip(gradients)
            .filter(|(_, gradient)| gradient.abs() > 1e-6)
        {
            for feature in features {
                let weight = &mut self.weights[*feature as usize];
                *weight -= rate * (gradient + DECAY * (*weight - prior[*feature as usize]));
            }
        }
    }

    /// Of each candidate; they sum to 1. `sharpness` multiplies the scores.
    pub(super) fn probabilities(
        &self,
        groups: &Groups,
        candidates: &[GroupIds],
        sharpness: f32,
    ) -> Vec<f32> {
        let sums: Vec<f32> = groups
            .all()
            .map(|features| {
                features
                    .iter()
                    .map(|feature| self.weights[*feature as usize])
                    .sum()
            })
            .collect();
        let mut scores: Vec<f32> = candidates
            .iter()
            .map(|ids| ids.iter().map(|group| sums[*group as usize]).sum())
            .collect();
        let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        scores
            .iter_mut()
            .for_each(|score| *score = ((*score - greatest) * sharpness).exp());
        let total: f32 = scores.iter().sum();
        scores.iter_mut().for_each(|score| *score /= total);
        scores
    }
}
