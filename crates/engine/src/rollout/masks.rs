//! Masks of constrained rows, computed while the model computes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::constraint::{Constraint, ConstraintError, Progress};
use crate::kernels::sampler::{
    SampleParams, SampledToken, mask_words, sample_masked, sample_tokens,
};
use crate::score::on_every_core;

/// A row's progress through its constraint.
#[derive(Debug)]
pub(super) struct ConstrainedRow {
    progress: Progress,
    /// Rows of one lane share a grammar's cache, and are computed sequentially.
    lane: usize,
    /// Why it failed.
    pub(super) failure: Option<ConstraintError>,
}

/// Constraints of a decode, by lane.
#[derive(Debug)]
pub(super) struct Lanes {
    count: usize,
    /// Copies by identity of the request's constraint, which is kept alive so that its address
    /// stays unique.
    copies: HashMap<*const Constraint, (Arc<Constraint>, Vec<Constraint>)>,
    rows: usize,
}

impl Lanes {
    /// `count`: threads that compute masks.
    pub(super) fn new(count: usize) -> Self {
        Self {
            count: count.max(1),
            copies: HashMap::new(),
            rows: 0,
        }
    }

    /// A new completion under a constraint.
    pub(super) fn row(&mut self, constraint: &Arc<Constraint>) -> ConstrainedRow {
        let lane = self.rows % self.count;
        self.rows += 1;
        // Drop constraints without requests.
        let is_named = |constraint: &Arc<Constraint>| Arc::strong_count(constraint) > 1;
        self.copies
            .retain(|_, (constraint, _)| is_named(constraint));
        let copies = self.copies.entry(Arc::as_ptr(constraint));
        let (_, copies) = copies.or_insert_with(|| (Arc::clone(constraint), Vec::new()));
        while copies.len() <= lane {
            copies.push(constraint.independent());
        }
        ConstrainedRow {
            progress: copies[lane].begin(),
            lane,
            failure: None,
        }
    }
}

impl ConstrainedRow {
    pub(super) fn push(&mut self, token: u32) {
        if let Err(error) = self.progress.push(token) {
            self.failure.get_or_insert(error);
        }
    }

    /// Computes the mask. After a failure all tokens are allowed, and the row will be ended.
    fn mask(&mut self, words: &mut [u32]) {
        if let Err(error) = self.progress.mask(words) {
            self.failure.get_or_insert(error);
            words.fill(u32::MAX);
        }
    }
}

/// Mask source of a row's next token.
#[derive(Debug)]
pub(super) enum RowMask<'r> {
    Grammar(&'r mut ConstrainedRow),
    /// This token only.
    Token(u32),
}

/// Masks in row order; all ones for rows without one.
pub(super) fn masks(
    rows: Vec<Option<RowMask<'_>>>,
    vocabulary: usize,
    overhead: &MaskOverhead,
) -> Vec<u32> {
    let start = Instant::now();
    let width = mask_words(vocabulary);
    let mut words = vec![u32::MAX; rows.len() * width];
    let mut lanes: Vec<Vec<(&mut ConstrainedRow, &mut [u32])>> = Vec::new();
    let mut count = 0;
    for (row, words) in rows.into_iter().zip(words.chunks_exact_mut(width)) {
        let row = match row {
            Some(RowMask::Grammar(row)) => row,
            Some(RowMask::Token(id)) => {
                words.fill(0);
                words[id as usize / 32] = 1 << (id % 32);
                continue;
            }
            None => continue,
        };
        count += 1;
        if lanes.len() <= row.lane {
            lanes.resize_with(row.lane + 1, Vec::new);
        }
        lanes[row.lane].push((row, words));
    }
    let of_lane = |lane: Vec<(&mut ConstrainedRow, &mut [u32])>| {
        lane.into_iter().for_each(|(row, words)| row.mask(words))
    };
    match lanes.len() {
        0 | 1 => lanes.into_iter().for_each(of_lane),
        _ => on_every_core(|| lanes.into_par_iter().for_each(of_lane)),
    }
    overhead.add(count, start.elapsed());
    words
}

/// Samples a token per row, under masks if given.
pub(super) fn sample(
    logits: &Tensor,
    params: &[SampleParams],
    masks: Option<&[u32]>,
) -> Result<Vec<SampledToken>> {
    match masks {
        Some(masks) => sample_masked(logits, params, masks),
        None => sample_tokens(logits, params),
    }
}

/// Time spent on masks.
#[derive(Debug, Default)]
pub struct MaskOverhead {
    masks: AtomicU64,
    nanoseconds: AtomicU64,
    /// Nanoseconds of the last pass.
    last: AtomicU64,
    /// While the model computed.
    hidden: AtomicU64,
}

impl MaskOverhead {
    fn add(&self, masks: u64, time: Duration) {
        let nanoseconds = time.as_nanos() as u64;
        self.masks.fetch_add(masks, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        self.last.store(nanoseconds, Ordering::Relaxed);
    }

    /// The last pass's masks were ready before its logits.
    #[cfg(feature = "cuda")]
    pub(super) fn hide_last(&self) {
        self.hidden
            .fetch_add(self.last.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Number of masks computed.
    pub fn masks(&self) -> u64 {
        self.masks.load(Ordering::Relaxed)
    }

    /// Time from a pass's first to last mask, summed over passes and threads.
    pub fn seconds(&self) -> f64 {
        self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9
    }

    /// Upper bound of the model's waiting time for masks.
    pub fn waited_seconds(&self) -> f64 {
        self.seconds() - self.hidden.load(Ordering::Relaxed) as f64 / 1e9
    }
}
