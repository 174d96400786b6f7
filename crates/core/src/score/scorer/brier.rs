//! The part `brier`: an answer says how sure it is, and earns most if it is as often right as it says.

use serde_json::Value;

use crate::dataset::PromptRow;
use crate::score::answer::stated_value::{Leaf, StatedValue};
use crate::score::task::BrierRule;
use crate::score::verdict::Score;
use crate::score::verdict::field_compare::equal_text;
use crate::score::verdict::field_rules::Rules;
use crate::task::ScoreRules;

#[derive(Debug)]
pub(super) struct Brier {
    rule: BrierRule,
    compared: Rules,
}

impl Brier {
    pub(super) fn new(rule: &BrierRule, rules: &ScoreRules) -> Self {
        Self {
            rule: rule.clone(),
            compared: Rules::new(rules),
        }
    }

    /// In [0, 1]: of a probability p, `1 - (p - right)²`; of one for each value, one minus half the
    /// sum of these squares. 0 if the answer states none, or what is none.
    pub(super) fn value(
        &self,
        score: &Score,
        values: &[StatedValue],
        row: Option<&PromptRow>,
    ) -> f64 {
        let stated = values
            .iter()
            .filter(|value| value.path.first() == Some(&self.rule.stated));
        let mut forecast = Vec::new();
        for value in stated {
            let Some(chance) = probability(&value.leaf) else {
                return 0.0;
            };
            forecast.push((&value.path[1..], chance));
        }
        match (&forecast[..], &self.rule.of) {
            ([([], chance)], of) => {
                let is_right = match of {
                    Some(name) => {
                        score.fields.as_ref().and_then(|fields| fields.get(name)) == Some(&true)
                    }
                    None => score.exact == Some(true),
                };
                1.0 - (chance - f64::from(u8::from(is_right))).powi(2)
            }
            ([_, ..], Some(of)) => self.of_each(&forecast, of, row),
            _ => 0.0,
        }
    }

    /// Of probabilities by the value's name; names of the same value count together.
    fn of_each(&self, forecast: &[(&[String], f64)], of: &str, row: Option<&PromptRow>) -> f64 {
        let by = self.compared.root().member(of);
        let mut named: Vec<(&String, f64)> = Vec::new();
        for (path, chance) in forecast {
            let [name] = path else {
                return 0.0;
            };
            let is_same = |other: &str| equal_text(name, &Value::from(other), by);
            match named.iter_mut().find(|(other, _)| is_same(other)) {
                Some((_, all)) => *all += chance,
                None => named.push((name, *chance)),
            }
        }
        if named.iter().map(|(_, chance)| chance).sum::<f64>() > 1.0 + 1e-6 {
            return 0.0;
        }
        let expected = row.and_then(|row| row.expected.as_ref()?.get(of));
        let is_right = |name: &str| expected.is_some_and(|expected| equal_text(name, expected, by));
        let missed = f64::from(u8::from(!named.iter().any(|(name, _)| is_right(name))));
        let squares = named
            .iter()
            .map(|(name, chance)| (chance - f64::from(u8::from(is_right(name)))).powi(2));
        1.0 - (squares.sum::<f64>() + missed) / 2.0
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
