//! The closed sets of values of a configuration key: losses, advantages, KL estimators, methods.

/// Declares an enum whose variants have one name each on the command line, in TOML, JSON and
/// messages; an older name is still read.
#[macro_export]
macro_rules! choices {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal $(| $older:literal)?),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant),+
        }

        impl $name {
            /// Names in the order of help.
            pub const NAMES: &'static [&'static str] = &[$($text),+];
            /// All variants, in the order of [`Self::NAMES`].
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The next of [`Self::ALL`], after the last the first.
            pub fn next(self) -> Self {
                Self::ALL[(self as usize + 1) % Self::ALL.len()]
            }

            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text $(| $older)? => Some(Self::$variant),)+ _ => None }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
                struct Name;

                impl serde::de::Visitor<'_> for Name {
                    type Value = $name;

                    fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        to.write_str("a string")
                    }

                    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<$name, E> {
                        let unknown = || E::unknown_variant(name, $name::NAMES);
                        $name::from_name(name).ok_or_else(unknown)
                    }
                }
                text.deserialize_str(Name)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.name())
            }
        }
    };
}

pub use choices;

choices! {
    Method {
        /// Group-relative policy optimisation against the task's score.
        Grpo = "grpo",
        /// Supervised fine-tuning on the rows' expected answers.
        Sft = "sft",
        /// `sft_steps` steps of supervised fine-tuning, then GRPO.
        SftGrpo = "sft+grpo",
        /// Per-token reverse KL of the model's own completions to a teacher, without rewards.
        Distill = "distill",
    }
}

choices! {
    /// How the clipped surrogate L of N sequences with T_i tokens becomes one loss. Denominators
    /// cover the whole optimizer step.
    PolicyLoss {
        /// Mean over sequences of the mean over tokens (DeepSeekMath, arXiv 2402.03300).
        Grpo = "grpo",
        /// Sum over all tokens / (N x `max_completion_tokens`), centered advantages (arXiv 2503.20783).
        DrGrpo = "dr_grpo",
        /// Sum over all tokens / all tokens of the step, symmetric clip.
        Bnpo = "bnpo",
        /// `bnpo` with clip 0.2 / 0.28, dynamic sampling and overlong masking (arXiv 2503.14476).
        Dapo = "dapo",
        /// One ratio a sequence, clips 3e-4 / 4e-4 (arXiv 2507.18071).
        Gspo = "gspo",
        /// Detached ratio capped at `cispo_cap`, token mean (arXiv 2506.13585).
        Cispo = "cispo",
    }
}

choices! {
    /// Estimator of the KL divergence to the reference, with d = log p_reference - log p_policy of the sampled token.
    KlEstimator {
        /// -d: unbiased, high variance, may be negative. In a loss only with `kl_importance`: its plain gradient has
        /// mean zero.
        K1 = "k1",
        /// d^2 / 2: biased, low variance; its gradient is the KL's.
        K2 = "k2",
        /// e^d - d - 1: unbiased, never negative; its gradient is the KL's with `kl_importance`.
        K3 = "k3",
    }
}

choices! {
    Advantage {
        /// (reward - mean) / (sample standard deviation + 1e-4).
        Standardized = "standardized",
        /// reward - mean.
        Centered = "centered",
        /// reward - mean of the group's other rewards.
        LeaveOneOut = "leave_one_out",
        /// Parts of the reward standardized in their group, then their weighted sum over the step
        /// (GDPO, arXiv 2601.05242).
        PerPart = "per_part",
    }
}

choices! {
    PromptSampling {
        /// Each once per epoch.
        Uniform = "uniform",
        /// Groups without gradient are sampled less often, down to every eighth epoch.
        Adaptive = "adaptive",
    }
}

choices! {
    /// Learning rate after warm-up.
    Schedule {
        Constant = "constant",
        /// Linear to `learning_rate_floor` over the run.
        Linear = "linear",
        /// Cosine to `learning_rate_floor` over the run.
        Cosine = "cosine",
    }
}

choices! {
    /// What follows a think block still open after `max_thinking_tokens`.
    ThinkingEnd {
        Truncate = "truncate",
        /// Closing tokens are appended, without loss; then the answer.
        Force = "force",
    }
}

choices! {
    /// Activation checkpointing: whether the backward pass recomputes activations.
    Recompute {
        /// Recomputes on a GPU whose memory is too small; never on a CPU.
        Auto = "auto",
        /// Every layer: least memory.
        Always = "always",
        /// No layer: fastest.
        Never = "never",
    }
}

choices! {
    BasePrecision {
        /// bf16 on a GPU, f32 on a CPU.
        Bf16 = "bf16",
        /// e4m3 with a scale per output; activations are unchanged.
        Fp8 = "fp8",
        /// NF4 with double quantization (QLoRA); activations are unchanged.
        Nf4 = "nf4",
    }
}

impl BasePrecision {
    /// Whether frozen matrices are rounded.
    pub fn is_quantized(self) -> bool {
        self != Self::Bf16
    }

    /// Those that take less memory, the nearest first.
    pub fn smaller(self) -> &'static [Self] {
        match self {
            Self::Bf16 => &[Self::Fp8, Self::Nf4],
            Self::Fp8 => &[Self::Nf4],
            Self::Nf4 => &[],
        }
    }

    /// On a GPU, of frozen matrices of `weights` numbers. `number_bytes`: unquantized.
    pub fn matrix_bytes(self, weights: usize, number_bytes: usize) -> usize {
        match self {
            Self::Bf16 => number_bytes * weights,
            // The scales are few.
            Self::Fp8 => weights,
            // Half a byte, one for each 64, and two f32 for each 256 of these.
            Self::Nf4 => weights / 2 + weights / 64 + weights / 2048,
        }
    }
}

choices! {
    /// The eval rate that selects the best checkpoint. Never the reward, which training shapes.
    BestBy {
        /// The valid rate, among the checkpoints whose exact match is not significantly below the base's; ties by exact
        /// match.
        ValidIfExactHolds = "valid_if_exact_holds",
        /// Ties by exact match.
        Valid = "valid",
        /// Ties by the valid rate.
        Exact = "exact",
    }
}

choices! {
    /// Whether tokens of policy terms are weighted by their probability in the trainer over that in
    /// the sampler, at most 2.
    SamplingCorrection {
        /// Once the two differ by more than [`SAMPLING_GAP`] on average in a step.
        Auto = "auto",
        On = "on",
        Off = "off",
    }
}

/// Nats/token.
pub const SAMPLING_GAP: f64 = 0.02;

choices! {
    /// What a run does after a policy collapse: nearly all groups earn one equal reward below the
    /// maximum with nearly equal answers, so there is no gradient.
    OnCollapse {
        /// Restores the last checkpoint with informative groups, at half the learning rate and with
        /// guided groups; at most three times, then stops.
        Recover = "recover",
        Stop = "stop",
        /// Raises the alert only.
        Continue = "continue",
    }
}

choices! {
    Preset {
        /// A few steps to test the setup.
        Quick = "quick",
        /// The original experiment: one group a step, four completions, KL 0.001; with LoRA of rank
        /// 16 in place of full training.
        Seed = "seed",
        /// The defaults.
        Recommended = "recommended",
    }
}
