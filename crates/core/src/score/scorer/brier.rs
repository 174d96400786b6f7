//! The part `brier`: an answer says how sure it is, and earns most if it is as often right as it says.

use crate::score::answer::stated_value::{Leaf, StatedValue};
use crate::score::task::BrierRule;
use crate::score::verdict::Score;

/// In [0, 1]: of a probability p, `1 - (p - right)²`; of one for each value, one minus half the sum
/// of these squares. 0 if the answer states none, or what is none.
pub(super) fn value(
    rule: &BrierRule,
    score: &Score,
    values: &[StatedValue],
    is_expected: impl Fn(&str) -> bool,
) -> f64 {
    let stated = values
        .iter()
        .filter(|value| value.path.first() == Some(&rule.stated));
    let mut forecast = Vec::new();
    for value in stated {
        let Some(chance) = probability(&value.leaf) else {
            return 0.0;
        };
        forecast.push((&value.path[1..], chance));
    }
    match &forecast[..] {
        [] => 0.0,
        [([], chance)] => {
            let is_right = match &rule.of {
                Some(name) => {
                    score.fields.as_ref().and_then(|fields| fields.get(name)) == Some(&true)
                }
                None => score.exact == Some(true),
            };
            1.0 - (chance - f64::from(u8::from(is_right))).powi(2)
        }
        chances => {
            let sum: f64 = chances.iter().map(|(_, chance)| chance).sum();
            if rule.of.is_none()
                || sum > 1.0 + 1e-6
                || chances.iter().any(|(path, _)| path.len() != 1)
            {
                return 0.0;
            }
            let is_right = |path: &[String]| is_expected(&path[0]);
            let missed = f64::from(u8::from(!chances.iter().any(|(path, _)| is_right(path))));
            let squares = chances
                .iter()
                .map(|(path, chance)| (chance - f64::from(u8::from(is_right(path)))).powi(2));
            1.0 - (squares.sum::<f64>() + missed) / 2.0
        }
    }
}

fn probability(leaf: &Leaf) -> Option<f64> {
    let Leaf::Number(number) = leaf else {
        return None;
    };
    // As canonical text: `#5e-1`, zero without digits.
    let digits = number.strip_prefix('#')?;
    let chance: f64 = match digits.starts_with('e') {
        true => 0.0,
        false => digits.parse().ok()?,
    };
    (0.0..=1.0).contains(&chance).then_some(chance)
}
