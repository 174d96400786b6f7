//! How a completion's advantage comes about, with the numbers put into the formula.

use crate::advantage::{Advantage, STANDARD_DEVIATION_FLOOR};

use super::group_rows::Row;

/// One sentence for one completion of a group.
pub(super) fn explained(row: &Row, member: usize, kind: Advantage) -> String {
    let (Some(reward), Some(advantage)) = (row.rewards.get(member), row.advantages.get(member)) else { return String::new() };
    let scored = row.rewards.iter().filter(|reward| reward.is_finite()).count();
    if !reward.is_finite() {
        return "not scored: advantage 0, excluded from the mean".to_owned();
    }
    if row.zero_variance_reason().is_some() {
        return format!("all {scored} completions earn {}: zero variance, advantage 0", figure(*reward));
    }
    let (mean, deviation) = row.spread();
    let difference = format!("{} - {}", figure(*reward), figure(mean));
    let formula = match kind {
        Advantage::Standardized => format!("({difference}) / ({} + {STANDARD_DEVIATION_FLOOR})", figure(deviation)),
        Advantage::Centered => difference,
        Advantage::LeaveOneOut => format!("({difference}) * {scored} / {}", scored.saturating_sub(1)),
    };
    format!("{formula} = {advantage:+.3}")
}

fn figure(value: f64) -> String {
    format!("{value:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advantage::{group_advantages, group_signal};

    #[test]
    fn the_formula_gives_what_it_says() {
        let check = |rewards: &[f64], member, kind, expected: &str| {
            let row = Row {
                rewards: rewards.to_vec(),
                advantages: group_advantages(rewards, kind),
                signal: group_signal(rewards, true, false),
                ..Row::default()
            };
            assert_eq!(explained(&row, member, kind), expected);
        };
        use Advantage::{Centered, LeaveOneOut, Standardized};
        check(&[0.0, 1.0, 1.0, 1.0], 0, Standardized, "(0.000 - 0.750) / (0.500 + 0.0001) = -1.500");
        check(&[0.0, 1.0, 1.0, 1.0], 0, Centered, "0.000 - 0.750 = -0.750");
        check(&[0.0, 1.0, 1.0, 1.0], 0, LeaveOneOut, "(0.000 - 0.750) * 4 / 3 = -1.000");
        check(&[1.0; 8], 3, Standardized, "all 8 completions earn 1.000: zero variance, advantage 0");
        check(&[f64::NAN, 0.0, 1.0], 0, Standardized, "not scored: advantage 0, excluded from the mean");
        check(&[0.0, 1.0], 9, Standardized, "");
    }
}
