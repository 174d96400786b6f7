//! Compares the ranks' work in a step.

use std::collections::BTreeMap;

use crate::run::events::RankStep;

/// Metrics for alerts about ranks; empty for one rank.
pub(super) fn rank_metrics(ranks: &[RankStep]) -> BTreeMap<String, f64> {
    let tokens: Vec<f64> = ranks
        .iter()
        .map(|rank| (rank.sampled_tokens + rank.trained_tokens) as f64)
        .collect();
    let seconds: Vec<f64> = ranks
        .iter()
        .map(|rank| rank.rollout_seconds + rank.update_seconds)
        .collect();
    let mut metrics = BTreeMap::new();
    let most = tokens.iter().copied().fold(0.0, f64::max);
    let all = tokens.iter().sum::<f64>();
    if ranks.len() > 1 && all > 0.0 {
        metrics.insert(
            "ranks/imbalance".to_owned(),
            most * ranks.len() as f64 / all,
        );
    }
    // A rank's time relative to the others, beyond what its additional tokens explain.
    let slowdown = |rank| {
        Some((
            rank,
            over_others(&seconds, rank)? / over_others(&tokens, rank)?.max(1.0),
        ))
    };
    let slowest = (0..ranks.len())
        .filter_map(slowdown)
        .max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((rank, slowdown)) = slowest {
        metrics.insert("ranks/slowest".to_owned(), rank as f64);
        metrics.insert("ranks/slowdown".to_owned(), slowdown);
    }
    metrics
}

/// A rank's value over the median of the others; `None` if that is 0.
fn over_others(values: &[f64], rank: usize) -> Option<f64> {
    let mut others = [&values[..rank], &values[rank + 1..]].concat();
    others.sort_by(f64::total_cmp);
    let median = others.get(others.len() / 2).copied().unwrap_or(0.0);
    (median > 0.0).then(|| values[rank] / median)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(tokens: usize, seconds: f64) -> RankStep {
        RankStep {
            trained_tokens: tokens,
            update_seconds: seconds,
            ..RankStep::default()
        }
    }

    #[test]
    fn a_rank_with_more_to_compute_is_not_slow_for_that() {
        let check = |ranks: &[RankStep], expected: Option<(f64, f64, f64)>| {
            let found = rank_metrics(ranks);
            let get = |name: &str| found.get(&format!("ranks/{name}")).copied();
            let found = get("imbalance").zip(get("slowest")).zip(get("slowdown"));
            assert_eq!(
                found.map(|((imbalance, slowest), slowdown)| (imbalance, slowest, slowdown)),
                expected
            );
        };
        check(&[], None);
        check(&[rank(0, 0.0), rank(0, 0.0)], None);
        check(&[rank(100, 1.0), rank(100, 1.5)], Some((1.0, 1.0, 1.5)));
        check(
            &[
                rank(100, 1.0),
                rank(300, 3.0),
                rank(100, 1.0),
                rank(100, 1.0),
            ],
            Some((2.0, 3.0, 1.0)),
        );
        // With few tokens the time per token is higher on any rank.
        check(&[rank(10, 1.0), rank(190, 1.0)], Some((1.9, 0.0, 1.0)));
        check(
            &[rank(100, 1.0), rank(100, 2.0), rank(100, 1.0)],
            Some((1.0, 1.0, 2.0)),
        );
    }
}
