//! How fast the completions of an eval were sampled on this machine, what that cost, and what masks of a constraint took
//! of it.

use serde::{Deserialize, Serialize};

use super::eval_record::EvalRecord;

/// Speed and cost of an eval's model on this machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SpeedSummary {
    /// Sampling all completions, prefill included.
    pub seconds: f64,
    pub tokens_per_second: f64,
    /// `seconds` at the price of the GPU, in its currency; `None` without a price, and on a CPU.
    pub cost: Option<f64>,
    pub cost_per_1000_answers: Option<f64>,
    /// Set if the model is constrained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masks: Option<MaskCost>,
}

/// The masks of constrained completions, one a token.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MaskCost {
    /// That were computed.
    pub masks: u64,
    /// Summed over the threads that decode.
    pub seconds: f64,
    /// Upper bound of the seconds in which the model waited for masks.
    pub waited_seconds: f64,
}

impl SpeedSummary {
    /// `price`: of an hour of the GPU that sampled them, in any currency.
    pub fn from_records(
        records: &[EvalRecord],
        price: Option<f64>,
        masks: Option<MaskCost>,
    ) -> Self {
        let seconds: f64 = records.iter().map(|record| record.seconds).sum();
        let tokens: usize = records.iter().filter_map(|record| record.tokens).sum();
        let answers: usize = records.iter().map(|record| record.texts().len()).sum();
        let cost = price.map(|price| price * seconds / 3600.0);
        Self {
            seconds,
            tokens_per_second: tokens as f64 / seconds.max(f64::MIN_POSITIVE),
            cost,
            cost_per_1000_answers: cost
                .filter(|_| answers > 0)
                .map(|cost| 1000.0 * cost / answers as f64),
            masks,
        }
    }
}

impl MaskCost {
    pub fn milliseconds(&self) -> f64 {
        1e3 * self.seconds / self.masks.max(1) as f64
    }

    /// The share of the masks' time that was waited for.
    pub fn waited(&self) -> f64 {
        if self.seconds > 0.0 {
            self.waited_seconds / self.seconds
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_on_a_gpu_has_its_price() {
        let record = |turns: usize| EvalRecord {
            seconds: 9.0,
            tokens: Some(45),
            turns: vec![super::super::eval_record::EvalTurn::default(); turns],
            ..EvalRecord::default()
        };
        // Two answers to single prompts and a conversation of two: 36 seconds in all, four answers.
        let records = [
            record(0),
            record(0),
            EvalRecord {
                seconds: 18.0,
                ..record(2)
            },
        ];
        let check = |price, expected: [Option<f64>; 2]| {
            let speed = SpeedSummary::from_records(&records, price, None);
            assert_eq!((speed.seconds, speed.tokens_per_second), (36.0, 3.75));
            assert_eq!([speed.cost, speed.cost_per_1000_answers], expected);
        };
        check(None, [None, None]);
        check(Some(2.0), [Some(0.02), Some(5.0)]);
        check(Some(0.0), [Some(0.0), Some(0.0)]);
        assert_eq!(
            SpeedSummary::from_records(&[], Some(2.0), None).cost_per_1000_answers,
            None
        );
    }
}
