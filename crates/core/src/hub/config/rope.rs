//! Rotary positions: base and scaling in `config.json`, and the resulting frequencies.

use serde_json::{Value, json};

use super::options::Scope;
use super::{HubError, ModelConfig, Reader};

/// Scaling of rotary frequencies `theta^(-2i / head_dim)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    Unscaled,
    /// All divided by `factor`.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// Rotates only the first pairs, a share of the head, with the wavelengths of a whole head; all
    /// divided by `factor`.
    Proportional {
        /// `partial_rotary_factor`, in (0, 1].
        share: f64,
        /// At least 1.
        factor: f64,
    },
    /// YaRN (arXiv 2309.00071): pairs with at least `fast_turns` rotations over the original length
    /// are kept, those with at most `slow_turns` divided by `factor`, those between blended by
    /// index.
    Yarn {
        /// At least 1.
        factor: f64,
        /// `beta_fast`, above `slow_turns`.
        fast_turns: f64,
        /// `beta_slow`, above 0.
        slow_turns: f64,
        /// `original_max_position_embeddings`, tokens.
        original_positions: usize,
        /// `truncate`: whether the blend's bounds are rounded to indices.
        has_whole_bounds: bool,
        /// Scales rotated queries and keys.
        attention_factor: f64,
    },
    /// Llama 3.1: wavelengths above `original_positions / low_frequency_factor` tokens are
    /// stretched by `factor`, those below `original_positions / high_frequency_factor` are kept,
    /// those between are blended.
    Llama3 {
        /// At least 1.
        factor: f64,
        /// `low_freq_factor`.
        low_frequency_factor: f64,
        /// `high_freq_factor`, above the low one.
        high_frequency_factor: f64,
        /// `original_max_position_embeddings`, tokens.
        original_positions: usize,
    },
}

impl RopeScaling {
    /// YaRN with the paper's constants.
    pub fn yarn(factor: f64, original_positions: usize) -> Self {
        let attention_factor = 0.1 * factor.ln() + 1.0;
        Self::Yarn {
            factor,
            fast_turns: 32.0,
            slow_turns: 1.0,
            original_positions,
            has_whole_bounds: true,
            attention_factor,
        }
    }

    /// The form of `rope_scaling` in `config.json`; families with several layer types write their
    /// own.
    pub(super) fn to_json(self) -> Value {
        match self {
            Self::Unscaled | Self::Proportional { .. } => Value::Null,
            Self::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
            Self::Yarn {
                factor,
                fast_turns,
                slow_turns,
                original_positions,
                has_whole_bounds,
                attention_factor,
            } => {
                json!({
                    "rope_type": "yarn",
                    "factor": factor,
                    "beta_fast": fast_turns,
                    "beta_slow": slow_turns,
                    "original_max_position_embeddings": original_positions,
                    "truncate": has_whole_bounds,
                    "attention_factor": attention_factor,
                })
            }
            Self::Llama3 {
                factor,
                low_frequency_factor,
                high_frequency_factor,
                original_positions,
            } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_frequency_factor,
                "high_freq_factor": high_frequency_factor,
                "original_max_position_embeddings": original_positions,
            }),
        }
    }
}

impl ModelConfig {
    pub(super) fn rope(&self, scope: Scope) -> (f64, RopeScaling) {
        match (scope, &self.options.window) {
            (Scope::Window, Some(window)) => (window.rope_theta, window.rope_scaling),
            _ => (self.rope_theta, self.rope_scaling),
        }
    }

    /// Radians per token of each pair, [rotary dimension / 2]: `theta^(-2i / rotary dimension)`,
    /// scaled.
    pub fn rope_frequencies(&self, scope: Scope) -> Vec<f64> {
        let (theta, scaling) = self.rope(scope);
        let dimension = self
            .options
            .rotary_dimension
            .unwrap_or(self.head_dimension(scope));
        let frequencies =
            (0..dimension / 2).map(|i| theta.powf(-2.0 * i as f64 / dimension as f64));
        let (factor, low, high, original) = match scaling {
            RopeScaling::Unscaled => return frequencies.collect(),
            RopeScaling::Linear { factor } => {
                return frequencies.map(|frequency| frequency / factor).collect();
            }
            RopeScaling::Proportional { share, factor } => {
                let turned = (share * dimension as f64 / 2.0).floor() as usize;
                let scaled = |(i, frequency)| if i < turned { frequency / factor } else { 0.0 };
                return frequencies.enumerate().map(scaled).collect();
            }
            RopeScaling::Yarn {
                factor,
                fast_turns,
                slow_turns,
                original_positions,
                has_whole_bounds,
                ..
            } => {
                // Index of the pair with this many rotations over the original length.
                let index = |turns: f64| {
                    let length = original_positions as f64 / (turns * std::f64::consts::TAU);
                    dimension as f64 * length.ln() / (2.0 * theta.ln())
                };
                let (low, high) = (index(fast_turns), index(slow_turns));
                let (low, high) = if has_whole_bounds {
                    (low.floor(), high.ceil())
                } else {
                    (low, high)
                };
                let (low, high) = (low.max(0.0), high.min(dimension as f64 - 1.0));
                let width = if high > low { high - low } else { 1e-3 };
                let scaled = |(i, frequency): (usize, f64)| {
                    let weight = 1.0 - ((i as f64 - low) / width).clamp(0.0, 1.0);
                    frequency * (weight + (1.0 - weight) / factor)
                };
                return frequencies.enumerate().map(scaled).collect();
            }
            RopeScaling::Llama3 {
                factor,
                low_frequency_factor,
                high_frequency_factor,
                original_positions,
            } => (
                factor,
                low_frequency_factor,
                high_frequency_factor,
                original_positions,
            ),
        };
        let scaled = |frequency: f64| {
            // Rotations of the pair over the original training length.
            let turns = original as f64 * frequency / std::f64::consts::TAU;
            let weight = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            frequency * (weight + (1.0 - weight) / factor)
        };
        frequencies.map(scaled).collect()
    }
}

impl Reader<'_> {
    pub(super) fn rope_scaling(&self) -> Result<RopeScaling, HubError> {
        match self.rotary_parameters() {
            Some((key, parameters)) => self.scaling_of(key, parameters),
            None => Ok(RopeScaling::Unscaled),
        }
    }

    /// The rotary parameters with their key: `rope_scaling` replaces all of `rope_parameters`, as
    /// in transformers 5.
    pub(super) fn rotary_parameters(&self) -> Option<(&'static str, &Value)> {
        let given = |key: &'static str| Some((key, self.given(key)?));
        given("rope_scaling")
            .filter(|(_, value)| value.as_object().is_none_or(|keys| !keys.is_empty()))
            .or_else(|| given("rope_parameters"))
    }

    pub(super) fn scaling_of(
        &self,
        key: &str,
        parameters: &Value,
    ) -> Result<RopeScaling, HubError> {
        let kind = parameters
            .get("rope_type")
            .or_else(|| parameters.get("type"))
            .and_then(Value::as_str);
        match kind {
            Some("llama3") => self.llama3_scaling(key, parameters),
            Some("yarn") => self.yarn_scaling(key, parameters),
            Some("linear") => match parameters.get("factor").and_then(Value::as_f64) {
                Some(factor) if factor >= 1.0 && factor.is_finite() => Ok(RopeScaling::Linear { factor }),
                _ => Err(self.problem(format!("`{key}` = {parameters}: `factor` must be at least 1"))),
            },
            None | Some("default") if parameters.get("factor").is_none_or(Value::is_null) => Ok(RopeScaling::Unscaled),
            _ => Err(self.unsupported(
                &format!("`{key}` = {parameters}"),
                "only `default`, `linear`, `llama3` and `yarn` are supported; set it to null to use the model at its original length",
            )),
        }
    }

    pub(super) fn proportional_scaling(&self, parameters: &Value) -> Result<RopeScaling, HubError> {
        let number = |name: &str| {
            let given = parameters.get(name).filter(|value| !value.is_null());
            self.positive(name, given, 1.0)
        };
        let (share, factor) = (number("partial_rotary_factor")?, number("factor")?);
        if share > 1.0 || factor < 1.0 {
            return Err(self.problem(format!(
                "`partial_rotary_factor` = {share} and `factor` = {factor}, expected at most 1 and at least 1"
            )));
        }
        Ok(RopeScaling::Proportional { share, factor })
    }

    fn yarn_scaling(&self, key: &str, parameters: &Value) -> Result<RopeScaling, HubError> {
        let number = |name, default| self.rope_number(key, parameters, name, default);
        let (fast_turns, slow_turns) = (
            number("beta_fast", Some(32.0))?,
            number("beta_slow", Some(1.0))?,
        );
        let factor = number("factor", None)?;
        if factor < 1.0 || fast_turns <= slow_turns {
            return Err(self.problem(format!(
                "`{key}` = {parameters}: `factor` must be at least 1 and `beta_fast` above `beta_slow`"
            )));
        }
        let positions = self
            .keys
            .get("max_position_embeddings")
            .and_then(Value::as_f64);
        let original_positions = number("original_max_position_embeddings", positions)? as usize;
        let softening = |weight: f64| 0.1 * weight * factor.ln() + 1.0;
        let weight = |name: &str| {
            parameters
                .get(name)
                .and_then(Value::as_f64)
                .filter(|weight| *weight != 0.0)
        };
        let default = match (weight("mscale"), weight("mscale_all_dim")) {
            (Some(one), Some(all)) => softening(one) / softening(all),
            _ => softening(1.0),
        };
        Ok(RopeScaling::Yarn {
            factor,
            fast_turns,
            slow_turns,
            original_positions,
            has_whole_bounds: parameters.get("truncate") != Some(&Value::Bool(false)),
            attention_factor: number("attention_factor", Some(default))?,
        })
    }

    fn llama3_scaling(&self, key: &str, parameters: &Value) -> Result<RopeScaling, HubError> {
        let number = |name| self.rope_number(key, parameters, name, None);
        let (factor, low, high) = (
            number("factor")?,
            number("low_freq_factor")?,
            number("high_freq_factor")?,
        );
        let original = number("original_max_position_embeddings")?;
        if factor < 1.0 || high <= low {
            return Err(self.problem(format!(
                "`{key}` = {parameters}: `factor` must be at least 1 and `high_freq_factor` above `low_freq_factor`"
            )));
        }
        Ok(RopeScaling::Llama3 {
            factor,
            low_frequency_factor: low,
            high_frequency_factor: high,
            original_positions: original as usize,
        })
    }

    /// A number above 0 of the rotary parameters in `key`.
    fn rope_number(
        &self,
        key: &str,
        parameters: &Value,
        name: &str,
        default: Option<f64>,
    ) -> Result<f64, HubError> {
        let given = parameters.get(name).filter(|value| !value.is_null());
        match given.map_or(default, Value::as_f64) {
            Some(number) if number > 0.0 && number.is_finite() => Ok(number),
            _ => Err(self.problem(format!(
                "`{key}.{name}` is missing or not a number above 0; fetch the model again"
            ))),
        }
    }

    pub(super) fn rope_theta(&self) -> Result<f64, HubError> {
        let nested = self
            .rotary_parameters()
            .and_then(|(_, parameters)| parameters.get("rope_theta"));
        self.positive(
            "rope_theta",
            nested.or_else(|| self.keys.get("rope_theta")),
            10_000.0,
        )
    }
}
