//! Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): all settings train a little, the best of them
//! more.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halving {
    /// At each rung the best 1/`factor` of the settings continue.
    pub factor: usize,
    /// The steps at which settings are compared; the last is the end of a run.
    pub rungs: Vec<u64>,
    /// The rung that the runs train to, from 0.
    pub rung: usize,
}

impl Halving {
    /// The step after which the runs wait for each other; `None` on the last rung, where they finish.
    pub fn stop(&self) -> Option<u64> {
        (self.rung + 1 < self.rungs.len()).then(|| self.rungs[self.rung])
    }
}

/// `first`, `first` x `factor`, ..., ending with `total`; only `total` if the first rung is not before it.
pub fn rungs(first: u64, factor: usize, total: u64) -> Vec<u64> {
    let factor = (factor as u64).max(2);
    let before = |step: &u64| *step < total;
    std::iter::successors(Some(first.max(1)), |step| step.checked_mul(factor))
        .take_while(before)
        .chain([total])
        .collect()
}

/// The places of the best 1/`factor` of the scores, rounded up, in order; of equal ones the first. A setting without a
/// score is below all others.
pub fn survivors(scores: &[Option<f64>], factor: usize) -> Vec<usize> {
    let score = |place: &usize| {
        scores[*place]
            .filter(|score| !score.is_nan())
            .unwrap_or(f64::NEG_INFINITY)
    };
    let mut places: Vec<usize> = (0..scores.len()).collect();
    // Stable, so that the first of equal ones stays first.
    places.sort_by(|a, b| score(b).total_cmp(&score(a)));
    places.truncate(scores.len().div_ceil(factor.max(2)));
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_grow_by_the_factor_and_end_with_the_run() {
        let check = |first, factor, total, expected: &[u64]| {
            assert_eq!(rungs(first, factor, total), expected)
        };
        check(5, 3, 40, &[5, 15, 40]);
        check(5, 3, 45, &[5, 15, 45]);
        check(5, 2, 40, &[5, 10, 20, 40]);
        check(10, 3, 10, &[10]);
        check(50, 3, 10, &[10]);
        check(0, 3, 4, &[1, 3, 4]);
        check(1, 0, 4, &[1, 2, 4]);
        check(u64::MAX / 2, 3, u64::MAX, &[u64::MAX / 2, u64::MAX]);
    }

    #[test]
    fn the_best_part_goes_on() {
        let some = |scores: &[f64]| scores.iter().map(|score| Some(*score)).collect::<Vec<_>>();
        let check = |scores: &[Option<f64>], factor, expected: &[usize]| {
            assert_eq!(survivors(scores, factor), expected)
        };
        check(&some(&[0.1, 0.9, 0.5]), 3, &[1]);
        check(&some(&[0.1, 0.9, 0.5, 0.7]), 3, &[1, 3]);
        check(&some(&[0.1, 0.9, 0.5, 0.7]), 2, &[1, 3]);
        check(&some(&[0.5, 0.5, 0.5, 0.5]), 2, &[0, 1]);
        check(&[None, Some(0.2), Some(f64::NAN)], 3, &[1]);
        check(&[None, None], 2, &[0]);
        check(&some(&[-1.0, -2.0]), 2, &[0]);
        check(&[], 3, &[]);
        check(&some(&[0.3]), 3, &[0]);
    }

    #[test]
    fn the_last_rung_has_no_stop() {
        let at = |rung| {
            Halving {
                factor: 3,
                rungs: vec![5, 15, 40],
                rung,
            }
            .stop()
        };
        assert_eq!(
            [at(0), at(1), at(2), at(3)],
            [Some(5), Some(15), None, None]
        );
    }
}
