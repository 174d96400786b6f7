//! The closed sets of names a configuration key may take: losses, advantages, KL estimators, methods.

/// Declares an enum whose variants have one written name each, used by the command line, TOML, JSON and messages alike.
macro_rules! choices {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$variant_meta])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// Every written name, in the order in which help lists them.
            pub const NAMES: &'static [&'static str] = &[$($text),+];
            /// Every variant, in the order of [`Self::NAMES`].
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The written name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The variant of a written name; `None` for any other text.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.name())
            }
        }
    };
}

pub(crate) use choices;

choices! {
    /// How a model is trained.
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
    /// How the clipped surrogate L of N sequences with T_i tokens becomes one loss. Denominators are those of the whole
    /// optimizer step.
    PolicyLoss {
        /// Mean over sequences of the mean over tokens (DeepSeekMath, arXiv 2402.03300).
        Grpo = "grpo",
        /// Sum over all tokens / (N x `max_completion_tokens`), centered advantages (arXiv 2503.20783).
        DrGrpo = "dr_grpo",
        /// Sum over all tokens / all tokens of the step, symmetric clip.
        Bnpo = "bnpo",
        /// As `bnpo` with clip 0.2 / 0.28, dynamic sampling and overlong masking (arXiv 2503.14476).
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
    /// How the rewards of one group become advantages.
    Advantage {
        /// (reward - mean) / (sample standard deviation + 1e-4).
        Standardized = "standardized",
        /// reward - mean.
        Centered = "centered",
        /// reward - mean of the group's other rewards.
        LeaveOneOut = "leave_one_out",
        /// Each part of the reward standardized in its group, their weighted sum over the step (GDPO, arXiv 2601.05242).
        PerPart = "per_part",
    }
}

choices! {
    /// Which prompts the steps take.
    PromptSampling {
        /// Each once a pass.
        Uniform = "uniform",
        /// Those whose groups have no gradient less often, down to every eighth pass.
        Adaptive = "adaptive",
    }
}

choices! {
    /// How the learning rate goes on after warm-up.
    Schedule {
        /// As it is.
        Constant = "constant",
        /// In a straight line to `learning_rate_floor` over the steps of the run.
        Linear = "linear",
        /// Along a cosine to `learning_rate_floor` over the steps of the run.
        Cosine = "cosine",
    }
}

choices! {
    /// What follows a think block that is still open after `max_thinking_tokens`.
    ThinkingEnd {
        /// Nothing: the completion is truncated.
        Truncate = "truncate",
        /// The tokens that close the block, which are not trained on; then the answer.
        Force = "force",
    }
}

choices! {
    /// Whether the backward pass recomputes a layer's activations instead of keeping them.
    Recompute {
        /// On a GPU where keeping them does not fit; never on a CPU.
        Auto = "auto",
        /// In every layer: least memory.
        Always = "always",
        /// In none: fastest.
        Never = "never",
    }
}

choices! {
    /// How frozen matrices of layers are kept.
    BasePrecision {
        /// As the model computes: bf16 on a GPU, f32 on a CPU.
        Bf16 = "bf16",
        /// Rounded to e4m3 with a scale per output; activations stay as they are.
        Fp8 = "fp8",
    }
}

choices! {
    /// Which rate on the eval set makes a checkpoint the best one. Never the reward, which training shapes.
    BestBy {
        /// The valid rate, among the checkpoints whose exact match is not significantly below the base's; ties by exact
        /// match.
        ValidIfExactHolds = "valid_if_exact_holds",
        /// The valid rate alone; ties by exact match.
        Valid = "valid",
        /// Exact match; ties by the valid rate.
        Exact = "exact",
    }
}

choices! {
    /// What a run does once its policy has collapsed: nearly all groups earn one equal reward below the maximum with
    /// nearly equal answers, so that no gradient leads out.
    OnCollapse {
        /// Restores the last checkpoint whose groups were informative, with half the learning rate and guided groups; at
        /// most three times, then stops.
        Recover = "recover",
        /// Ends the run.
        Stop = "stop",
        /// Raises the alert only.
        Continue = "continue",
    }
}

choices! {
    /// A named set of configuration values.
    Preset {
        /// A few steps, to see that everything works.
        Quick = "quick",
        /// The original experiment: one prompt group a step, four completions, KL 0.001. It trained every parameter;
        /// here LoRA of rank 16 stands in for that.
        Seed = "seed",
        /// What we advise: the defaults.
        Recommended = "recommended",
    }
}
