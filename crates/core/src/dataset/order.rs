//! The order of prompts in an epoch: a pure function, so that a resumed run continues exactly.

use super::random::CounterRandom;

/// A permutation of `0..rows` (Fisher-Yates), fixed by `epoch` and `seed`.
pub fn epoch_order(rows: usize, epoch: u64, seed: u64) -> Vec<usize> {
    let mut random = CounterRandom::new(&[seed, epoch]).fork("epoch order");
    let mut order: Vec<usize> = (0..rows).collect();
    for last in (1..rows).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_visits_every_row_once() {
        for rows in [0, 1, 2, 3, 200, 1001] {
            let mut order = epoch_order(rows, 3, 7);
            assert_eq!(order, epoch_order(rows, 3, 7), "the same arguments give the same order");
            order.sort_unstable();
            assert!(order.iter().copied().eq(0..rows), "{rows} rows");
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_every_order_is_as_likely() {
        assert_ne!(epoch_order(50, 0, 1), epoch_order(50, 1, 1));
        assert_ne!(epoch_order(50, 0, 1), epoch_order(50, 0, 2));
        let mut counts = std::collections::BTreeMap::<Vec<usize>, f64>::new();
        (0..6000).for_each(|epoch| *counts.entry(epoch_order(3, epoch, 9)).or_default() += 1.0);
        // 6 orders, 5 degrees of freedom: 20.5 is exceeded once in a thousand times.
        let chi_square: f64 = counts.values().map(|count| (count - 1000.0).powi(2) / 1000.0).sum();
        assert!(counts.len() == 6 && chi_square < 20.5, "chi-square {chi_square}");
    }
}
