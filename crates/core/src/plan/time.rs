//! Time by part: the operations of a run, divided by a measured or given speed.

use serde::{Deserialize, Serialize};

use super::{DataShape, ModelShape, step_rows, trainable_parameters};
use crate::config::TrainConfig;
use crate::format::{bytes, duration, duration_range};
use crate::hub::ModelConfig;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GpuLimits {
    /// Matmul operations per second.
    pub gemm_per_second: f64,
    pub bandwidth_bytes_per_second: f64,
    pub memory_bytes: u64,
}

/// How much slower than measured an upper bound takes a machine to be. Its speed is measured in seconds, over short
/// completions, and steps of full length were up to 7% slower on two cores; the rest is for its other work.
const BOUND_MARGIN: f64 = 1.2;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    pub prefill_per_second: f64,
    pub decode_per_second: f64,
    /// Operations per second in forward and backward.
    pub training_per_second: f64,
    /// For reading weights and caches; `None` if the rates above include it.
    pub bandwidth_bytes_per_second: Option<f64>,
    /// Per weight.
    pub number_bytes: usize,
    /// Completions decoded together.
    pub decode_rows: usize,
}

impl Speed {
    fn slower_by(self, factor: f64) -> Self {
        Self {
            prefill_per_second: self.prefill_per_second / factor,
            decode_per_second: self.decode_per_second / factor,
            training_per_second: self.training_per_second / factor,
            bandwidth_bytes_per_second: self
                .bandwidth_bytes_per_second
                .map(|bandwidth| bandwidth / factor),
            ..self
        }
    }

    /// The bound by a GPU's limits; a real run is slower.
    pub fn bound(limits: &GpuLimits, decode_rows: usize) -> Self {
        let gemm = limits.gemm_per_second;
        Self {
            prefill_per_second: gemm,
            decode_per_second: gemm,
            training_per_second: gemm,
            bandwidth_bytes_per_second: Some(limits.bandwidth_bytes_per_second),
            number_bytes: 2,
            decode_rows,
        }
    }
}

/// Time estimates of a run in which every group is mixed. An upper bound if [`Self::is_upper_bound`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Time {
    pub prefill_seconds_per_step: f64,
    pub decode_seconds_per_step: f64,
    /// Includes the reference's forward.
    pub training_seconds_per_step: f64,
    pub seconds_per_step: f64,
    /// Includes the test set before and after.
    pub eval_seconds: f64,
    pub total_seconds: f64,
    pub sampled_tokens: f64,
    /// With a gradient, prompts included.
    pub training_tokens: f64,
    /// On the eval set, including start and end.
    pub evals: u64,
    /// Completion lengths are unknown and counted as `max_completion_tokens`, so that all times and tokens are upper
    /// bounds.
    pub is_upper_bound: bool,
    /// With the shortest completions that are expected; of unknown lengths, with those sampled.
    pub least_seconds_per_step: f64,
    pub least_total_seconds: f64,
    /// With the longest completions that are expected.
    pub most_seconds_per_step: f64,
    pub most_total_seconds: f64,
    /// Measured by an earlier run with such steps on this device; the range includes it.
    #[serde(default)]
    pub recorded_seconds_per_step: Option<f64>,
    /// Ranks of the run; the speed is that of one rank alone.
    #[serde(default)]
    pub ranks: usize,
    /// Gradients that the ranks sum in each step, f32; 0 for one rank.
    #[serde(default)]
    pub summed_bytes_per_step: u64,
}

impl Time {
    /// The whole run: `18 to 25 min`, `about 18 min`, `at most 41m 3s`.
    pub fn total(&self) -> String {
        self.range(self.least_total_seconds, self.most_total_seconds)
    }

    /// The same of several runs, one after another; `None` without one.
    pub fn total_of<'a>(all: impl Iterator<Item = &'a Self>) -> Option<String> {
        let sum = all.cloned().reduce(|sum, one| Self {
            least_total_seconds: sum.least_total_seconds + one.least_total_seconds,
            most_total_seconds: sum.most_total_seconds + one.most_total_seconds,
            is_upper_bound: sum.is_upper_bound || one.is_upper_bound,
            ..sum
        });
        sum.map(|sum| sum.total())
    }

    pub fn per_step(&self) -> String {
        self.range(self.least_seconds_per_step, self.most_seconds_per_step)
    }

    /// The run with completions no longer than those sampled: `at least 3m 20s`; `None` for an estimate.
    pub fn lower_bound(&self) -> Option<String> {
        self.is_upper_bound
            .then(|| format!("at least {}", duration(self.least_total_seconds)))
    }

    /// The range widened to the pace of an earlier run: the speed of a machine varies more than the lengths of completions.
    #[must_use]
    pub fn including(self, recorded_seconds_per_step: Option<f64>, steps: u64) -> Self {
        let Some(recorded) = recorded_seconds_per_step else {
            return self;
        };
        let (least, most) = (
            self.least_seconds_per_step.min(recorded),
            self.most_seconds_per_step.max(recorded),
        );
        Self {
            least_total_seconds: self.least_total_seconds
                - steps as f64 * (self.least_seconds_per_step - least),
            most_total_seconds: self.most_total_seconds
                + steps as f64 * (most - self.most_seconds_per_step),
            least_seconds_per_step: least,
            most_seconds_per_step: most,
            recorded_seconds_per_step,
            ..self
        }
    }

    pub fn basis(&self) -> String {
        let recorded = self.recorded_seconds_per_step.map(duration);
        let recorded = recorded.map_or_else(String::new, |pace| {
            format!("; the last such run took {pace} per step")
        });
        let of_one = if self.ranks > 1 {
            format!(" of one of {} ranks", self.ranks)
        } else {
            String::new()
        };
        format!("at the speed measured now{of_one}{recorded}")
    }

    /// What several ranks make of a step, as far as that is known before the run.
    pub fn sharding_text(&self) -> Option<String> {
        let ranks = self.ranks as f64;
        // Decoding fewer rows is between so many times faster and no faster: it reads all weights in any case.
        let saved =
            (self.prefill_seconds_per_step + self.training_seconds_per_step) * (1.0 - 1.0 / ranks);
        let (least, most) = (
            self.least_seconds_per_step / ranks,
            (self.most_seconds_per_step - saved).max(0.0),
        );
        (self.ranks > 1).then(|| {
            format!(
                "divided among {} ranks {} per step, as fewer rows decode less than {0} times faster; and the sum of {} of gradients, which takes n/a \
                 (not measured)",
                self.ranks,
                self.range(least, most),
                bytes(self.summed_bytes_per_step)
            )
        })
    }

    fn range(&self, least: f64, most: f64) -> String {
        if self.is_upper_bound {
            format!("at most {}", duration(most))
        } else {
            duration_range(least, most)
        }
    }
}

pub fn time(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    steps: u64,
    speed: &Speed,
    recompute: bool,
) -> Time {
    let is_upper_bound = data.least_completion_tokens < data.mean_completion_tokens
        && data.mean_completion_tokens >= config.max_completion_tokens as f64;
    let at = |tokens: f64, speed: &Speed| {
        let data = DataShape {
            mean_completion_tokens: tokens,
            ..*data
        };
        time_at_mean(model, config, &data, steps, speed, recompute)
    };
    let slowest = if is_upper_bound {
        speed.slower_by(BOUND_MARGIN)
    } else {
        *speed
    };
    let (least, most) = (
        at(data.least_completion_tokens, speed),
        at(data.most_completion_tokens, &slowest),
    );
    Time {
        is_upper_bound,
        least_seconds_per_step: least.seconds_per_step,
        least_total_seconds: least.total_seconds,
        most_seconds_per_step: most.seconds_per_step,
        most_total_seconds: most.total_seconds,
        ..at(data.mean_completion_tokens, &slowest)
    }
}

/// With completions of the mean length only.
fn time_at_mean(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    steps: u64,
    speed: &Speed,
    recompute: bool,
) -> Time {
    let shape = ModelShape::from_config(model);
    let groups = config.prompt_groups_per_step as f64;
    let (completions, turns) = (
        groups * config.completions_per_prompt as f64,
        data.turns as f64,
    );
    // One turn after the other; in later ones each completion has a prompt of its own.
    let prefill = prefill_seconds(&shape, data, groups + (turns - 1.0) * completions, speed);
    let decode = turns * decode_seconds(&shape, data, completions, speed);
    let training = training_operations(model, config, data, recompute) / speed.training_per_second;
    let evals = evals(config, steps);
    // Greedy completions, decoded beside so many others.
    let greedy = |rows: usize, beside: f64| {
        let decoded = |completions: f64| decode_seconds(&shape, data, completions, speed);
        turns
            * (prefill_seconds(&shape, data, rows as f64, speed) + decoded(beside + rows as f64)
                - decoded(beside))
    };
    let rollout = completions * config.weight_sync_interval as f64;
    let eval_seconds = 2.0 * (greedy(data.eval_rows, 0.0) + greedy(data.test_rows, 0.0))
        + (evals - 2) as f64 * greedy(data.eval_rows, rollout);
    let seconds_per_step = prefill + decode + training;
    let total_seconds = steps as f64 * seconds_per_step + eval_seconds;
    Time {
        prefill_seconds_per_step: prefill,
        decode_seconds_per_step: decode,
        training_seconds_per_step: training,
        seconds_per_step,
        eval_seconds,
        total_seconds,
        sampled_tokens: steps as f64 * completions * data.mean_completion_tokens,
        training_tokens: steps as f64
            * step_rows(
                config,
                data.turns,
                data.mean_prompt_tokens,
                data.mean_completion_tokens,
            ),
        evals,
        is_upper_bound: false,
        least_seconds_per_step: seconds_per_step,
        least_total_seconds: total_seconds,
        most_seconds_per_step: seconds_per_step,
        most_total_seconds: total_seconds,
        recorded_seconds_per_step: None,
        ranks: config.ranks,
        summed_bytes_per_step: if config.ranks > 1 {
            4 * trainable_parameters(model, config) as u64
        } else {
            0
        },
    }
}

/// Before the first step, every `eval_every`, and at the end.
pub(super) fn evals(config: &TrainConfig, steps: u64) -> u64 {
    2 + steps
        .saturating_sub(1)
        .checked_div(config.eval_every)
        .unwrap_or(0)
}

fn prefill_seconds(shape: &ModelShape, data: &DataShape, prompts: f64, speed: &Speed) -> f64 {
    let tokens = prompts * data.mean_prompt_tokens;
    shape.forward_operations(tokens, data.mean_prompt_tokens / 2.0, prompts)
        / speed.prefill_per_second
}

/// A decode step reads every weight once for all rows, and the keys and values of each row.
fn decode_seconds(shape: &ModelShape, data: &DataShape, completions: f64, speed: &Speed) -> f64 {
    let context = data.mean_prompt_tokens + data.mean_completion_tokens / 2.0;
    let tokens = completions * data.mean_completion_tokens;
    let computing = shape.forward_operations(tokens, context, tokens) / speed.decode_per_second;
    let Some(bandwidth) = speed.bandwidth_bytes_per_second else {
        return computing;
    };
    let together = completions.min(speed.decode_rows as f64).max(1.0);
    let number = speed.number_bytes;
    let weights = (shape.layer_matrices + shape.head) * number - shape.mxfp4_saving(number);
    let cached = context * (shape.key_values_per_token * number) as f64;
    let bytes = tokens * (weights as f64 / together + cached);
    computing.max(bytes / bandwidth)
}

/// Operations of one step's gradient, with the prompt forwarded once per group. The backward of a frozen matrix costs
/// as much as its forward, of a trained one twice that; recomputation, a reference, a teacher of its
/// size, and the old log-probs of an interval's later steps cost one more forward each.
pub fn training_operations(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    recompute: bool,
) -> f64 {
    let shape = ModelShape::from_config(model);
    let rows = step_rows(
        config,
        data.turns,
        data.mean_prompt_tokens,
        data.mean_completion_tokens,
    );
    let predicted = (config.prompt_groups_per_step * config.completions_per_prompt * data.turns)
        as f64
        * data.mean_completion_tokens;
    let context = (data.mean_prompt_tokens + data.mean_completion_tokens) / 2.0;
    let forward = shape.forward_operations(rows, context, predicted);
    let is_full = config.lora_rank == 0;
    let backward = if is_full { 2.0 } else { 1.0 };
    let again = if recompute { 1.0 } else { 0.0 };
    let reference = if config.kl_beta > 0.0 { 1.0 } else { 0.0 };
    let teacher = match data.teacher_parameters {
        _ if !config.is_distilled() => 0.0,
        0 => 1.0,
        parameters => parameters as f64 / shape.parameters as f64,
    };
    // All steps of an interval but the first need the log-probs of the weights that sampled.
    let old = 1.0 - 1.0 / config.weight_sync_interval.max(1) as f64;
    let adapters = if is_full {
        0.0
    } else {
        3.0 * 2.0 * rows * trainable_parameters(model, config) as f64
    };
    forward * (1.0 + backward + again + reference + teacher + old) + adapters
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::shape::tests::{DATA, config, qwen3_8b};
    use super::*;

    /// Without evals.
    const TRAINING: DataShape = DataShape {
        eval_rows: 0,
        test_rows: 0,
        ..DATA
    };

    #[test]
    fn a_length_that_is_not_a_number_gives_times_that_are_none() {
        let limits = GpuLimits {
            gemm_per_second: 989e12,
            bandwidth_bytes_per_second: 4.8e12,
            memory_bytes: 0,
        };
        let data = DataShape {
            mean_completion_tokens: f64::NAN,
            ..TRAINING
        };
        let found = time(
            &qwen3_8b(),
            &config(&[]),
            &data,
            10,
            &Speed::bound(&limits, 512),
            false,
        );
        assert!(found.total_seconds.is_nan() && found.least_total_seconds > 0.0);
    }

    /// Qwen3-8B at 989 TFLOP/s and 4.8 TB/s, the published limits, with 8 x 8 completions of 60 tokens and prompts of
    /// 120.
    #[test]
    fn qwen3_8b_at_the_physical_limits() {
        let limits = GpuLimits {
            gemm_per_second: 989e12,
            bandwidth_bytes_per_second: 4.8e12,
            memory_bytes: 0,
        };
        let speed = Speed::bound(&limits, 512);
        let found = time(&qwen3_8b(), &config(&[]), &TRAINING, 10, &speed, false);
        let check = |found: f64, expected: f64, within: f64| {
            assert!(
                (found / expected - 1.0).abs() < within,
                "{found}, expected {expected}"
            )
        };
        // 960 prompt tokens x 13.9 GFLOP.
        check(found.prefill_seconds_per_step, 0.0135, 0.02);
        // 60 steps of 3.45 ms, bound by reading weights.
        check(found.decode_seconds_per_step, 0.207, 0.01);
        // 4,800 tokens with the prompt shared; the head only where tokens are predicted, adapters of rank 16 added.
        check(found.training_seconds_per_step, 0.145, 0.04);
        assert_eq!(
            (found.sampled_tokens, found.training_tokens),
            (10.0 * 3840.0, 10.0 * 4800.0)
        );
        check(found.total_seconds, 10.0 * found.seconds_per_step, 1e-9);
        // 512 sequences are compute-bound, 7.84 ms per step.
        let many = time(
            &qwen3_8b(),
            &config(&["prompt_groups_per_step=64"]),
            &TRAINING,
            1,
            &speed,
            false,
        );
        check(many.decode_seconds_per_step, 0.470, 0.02);
    }

    #[test]
    fn lengths_give_a_range_and_unknown_ones_a_bound() {
        let speed = Speed::bound(
            &GpuLimits {
                gemm_per_second: 989e12,
                bandwidth_bytes_per_second: 4.8e12,
                memory_bytes: 0,
            },
            512,
        );
        let of = |least, mean, most| {
            let data = DataShape {
                least_completion_tokens: least,
                mean_completion_tokens: mean,
                most_completion_tokens: most,
                ..DATA
            };
            time(
                &qwen3_8b(),
                &config(&["max_completion_tokens=90"]),
                &data,
                10,
                &speed,
                false,
            )
        };
        let (known, short, long) = (
            of(60.0, 60.0, 60.0),
            of(10.0, 10.0, 10.0),
            of(90.0, 90.0, 90.0),
        );
        assert_eq!(
            (known.least_total_seconds, known.most_total_seconds),
            (known.total_seconds, known.total_seconds)
        );
        let range = of(10.0, 60.0, 90.0);
        assert_eq!(
            (range.seconds_per_step, range.total_seconds),
            (known.seconds_per_step, known.total_seconds)
        );
        assert_eq!(
            (range.least_seconds_per_step, range.least_total_seconds),
            (short.seconds_per_step, short.total_seconds)
        );
        assert_eq!(
            (range.most_seconds_per_step, range.most_total_seconds),
            (long.seconds_per_step, long.total_seconds)
        );
        let (skewed, unknown) = (of(10.0, 60.0, 60.0), of(10.0, 90.0, 90.0));
        assert_eq!(
            [&known, &range, &skewed, &unknown].map(|time| time.is_upper_bound),
            [false, false, false, true]
        );
        // SmolLM2's 8 x 8 took 91 s a step on two cores, where 85 s followed from the speed.
        assert!(
            (unknown.total_seconds / long.total_seconds - BOUND_MARGIN).abs() < 1e-9
                && 85.0 * BOUND_MARGIN > 91.0
        );
        assert_eq!(
            (unknown.least_total_seconds, unknown.most_total_seconds),
            (short.total_seconds, unknown.total_seconds)
        );
        assert!(unknown.least_total_seconds < 0.5 * unknown.total_seconds);
        let said = |time: &Time| [Some(time.total()), time.lower_bound()];
        let minutes = |least: f64, most: f64, is_upper_bound| Time {
            least_total_seconds: 60.0 * least,
            most_total_seconds: 60.0 * most,
            is_upper_bound,
            ..known
        };
        assert_eq!(
            said(&minutes(18.0, 25.0, false)),
            [Some("18 to 25 min".to_owned()), None]
        );
        let bound = ["at most 41m 0s", "at least 9m 0s"].map(|text| Some(text.to_owned()));
        assert_eq!(said(&minutes(9.0, 41.0, true)), bound);
    }

    #[test]
    fn a_recorded_pace_widens_the_range() {
        let limits = GpuLimits {
            gemm_per_second: 989e12,
            bandwidth_bytes_per_second: 4.8e12,
            memory_bytes: 0,
        };
        let measured = time(
            &qwen3_8b(),
            &config(&[]),
            &TRAINING,
            10,
            &Speed::bound(&limits, 512),
            false,
        );
        let check = |recorded: f64, [least, most]: [f64; 2], basis: &str| {
            let found = measured.including(Some(recorded), 10);
            assert_eq!(
                (found.least_seconds_per_step, found.most_seconds_per_step),
                (least, most),
                "{recorded}"
            );
            let added = [
                found.least_total_seconds - measured.least_total_seconds,
                found.most_total_seconds - measured.most_total_seconds,
            ];
            let expected = [
                least - measured.least_seconds_per_step,
                most - measured.most_seconds_per_step,
            ];
            let is_added = |(added, expected): (&f64, &f64)| (added - 10.0 * expected).abs() < 1e-9;
            assert!(
                added.iter().zip(&expected).all(is_added),
                "{added:?}, expected 10 times {expected:?}"
            );
            assert_eq!(
                (found.total_seconds, found.basis().as_str()),
                (measured.total_seconds, basis)
            );
        };
        let (least, most) = (
            measured.least_seconds_per_step,
            measured.most_seconds_per_step,
        );
        check(
            200.0,
            [least, 200.0],
            "at the speed measured now; the last such run took 3m 20s per step",
        );
        check(
            0.001,
            [0.001, most],
            "at the speed measured now; the last such run took 1 ms per step",
        );
        assert_eq!(
            (measured.including(None, 10), measured.basis().as_str()),
            (measured, "at the speed measured now")
        );
        assert_eq!(
            Time {
                ranks: 4,
                ..measured
            }
            .basis(),
            "at the speed measured now of one of 4 ranks"
        );
        assert_eq!(measured.sharding_text(), None);
    }

    #[test]
    fn ranks_divide_all_but_the_reading_of_weights() {
        let limits = GpuLimits {
            gemm_per_second: 989e12,
            bandwidth_bytes_per_second: 4.8e12,
            memory_bytes: 0,
        };
        let found = time(
            &qwen3_8b(),
            &config(&["ranks=4"]),
            &TRAINING,
            10,
            &Speed::bound(&limits, 512),
            false,
        );
        let round = Time {
            prefill_seconds_per_step: 1.0,
            decode_seconds_per_step: 20.0,
            training_seconds_per_step: 3.0,
            least_seconds_per_step: 24.0,
            most_seconds_per_step: 24.0,
            ..found
        };
        // 4 bytes of each of 43.6 million numbers.
        let expected = "divided among 4 ranks 6.0 to 21 s per step, as fewer rows decode less than 4 times faster; and the sum of 175 MB of gradients, \
                        which takes n/a (not measured)";
        assert_eq!(round.sharding_text().unwrap(), expected);
    }

    #[test]
    fn passes_cost_what_they_are() {
        let operations = |set: &[&str]| {
            let config = config(set);
            training_operations(
                &qwen3_8b(),
                &config,
                &TRAINING,
                crate::plan::StepShape::for_config(&config).recompute,
            )
        };
        let full = operations(&["lora_rank=0"]);
        let forward = full / 3.0;
        let check = |set: &[&str], passes: f64| {
            assert!((operations(set) / forward - passes).abs() < 1e-9, "{set:?}")
        };
        check(&["lora_rank=0", "recompute_activations=always"], 4.0);
        check(&["lora_rank=0", "kl_beta=0.01"], 4.0);
        check(
            &[
                "lora_rank=0",
                "kl_beta=0.01",
                "recompute_activations=always",
            ],
            5.0,
        );
        check(&["lora_rank=0", "weight_sync_interval=4"], 3.75);
        let adapters = operations(&["lora_rank=16"]) / forward;
        assert!(adapters > 2.0 && adapters < 2.1, "{adapters}");
    }

    #[test]
    fn evals_are_counted_as_the_loop_makes_them() {
        let check = |steps, every: &str, expected| {
            assert_eq!(evals(&config(&[every]), steps), expected, "{steps} {every}")
        };
        check(10, "eval_every=0", 2);
        check(10, "eval_every=5", 3);
        check(11, "eval_every=5", 4);
        check(1, "eval_every=1", 2);
    }
}
