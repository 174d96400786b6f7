//! The table of configuration keys: source of command line, files, help, documentation and forms.

use super::choices::{
    Advantage, BasePrecision, BestBy, KlEstimator, Method, OnCollapse, PolicyLoss, Preset,
    PromptSampling, Recompute, SamplingCorrection, Schedule, ThinkingEnd,
};
use super::value::Kind;

#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    /// Computed from other keys; overrides presets, overridden by the user.
    pub derived: Option<DerivedDefault>,
    /// Empty for plain numbers and names.
    pub unit: &'static str,
    pub meaning: &'static str,
    /// Values in `quick` and `seed`; `None`: the default. `recommended` is all defaults.
    pub presets: [Option<&'static str>; 2],
    /// What runs did that were started before the key existed, if not the default.
    pub before: Option<&'static str>,
}

/// Input of a derived default.
#[allow(missing_debug_implementations)]
pub struct KnownValues<'a> {
    /// Reads a key above it in the table.
    pub read: &'a dyn Fn(&str) -> String,
    /// Size of the start model, if known.
    pub parameters: Option<u64>,
}

pub type Rule = fn(&KnownValues<'_>) -> Option<String>;

#[derive(Debug)]
pub struct DerivedDefault {
    /// The rule in words, shown in help.
    pub rule: &'static str,
    pub value: Rule,
}

const ALIASES: [(&str, &str); 20] = [
    ("lr", "learning_rate"),
    ("wd", "weight_decay"),
    ("bs", "prompt_groups_per_step"),
    ("batch_size", "prompt_groups_per_step"),
    ("group_size", "completions_per_prompt"),
    ("num_generations", "completions_per_prompt"),
    ("g", "completions_per_prompt"),
    ("steps", "max_steps"),
    ("num_train_epochs", "epochs"),
    ("temp", "temperature"),
    ("beta", "kl_beta"),
    ("kl", "kl_beta"),
    ("kl_coef", "kl_beta"),
    ("rank", "lora_rank"),
    ("r", "lora_rank"),
    ("alpha", "lora_alpha"),
    ("model", "base_model"),
    ("max_tokens", "max_completion_tokens"),
    ("max_completion_length", "max_completion_tokens"),
    ("max_grad_norm", "grad_clip_norm"),
];

/// A key that runs of earlier releases may have.
#[derive(Clone, Copy, Debug)]
pub struct RemovedKey {
    pub name: &'static str,
    /// What to do instead.
    pub instead: &'static str,
}

/// Their values change no result: runs that have them resume without them.
pub const REMOVED_KEYS: [RemovedKey; 1] = [RemovedKey {
    name: "overlap",
    instead: "leave it out, the update follows the rollout",
}];

impl Key {
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    pub fn nearest(name: &str) -> Option<&'static Self> {
        let plain = name.to_lowercase().replace('-', "_");
        if let Some((_, key)) = ALIASES.iter().find(|(alias, _)| *alias == plain) {
            return Self::find(key);
        }
        crate::format::nearest(name, KEYS.iter().map(|key| key.name)).and_then(Self::find)
    }

    /// `None` leaves the default.
    pub fn preset(&self, preset: Preset) -> Option<&'static str> {
        match preset {
            Preset::Quick => self.presets[0],
            Preset::Seed => self.presets[1],
            Preset::Recommended => None,
        }
    }
}

const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    unit: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        kind,
        default,
        derived: None,
        unit,
        meaning,
        presets: [None; 2],
        before: None,
    }
}

impl Key {
    const fn presets(self, quick: &'static str, seed: &'static str) -> Self {
        Self {
            presets: [Some(quick), Some(seed)],
            ..self
        }
    }

    /// Value of the original experiment; `quick` keeps the default.
    const fn seed(self, seed: &'static str) -> Self {
        Self {
            presets: [None, Some(seed)],
            ..self
        }
    }

    const fn before(self, value: &'static str) -> Self {
        Self {
            before: Some(value),
            ..self
        }
    }

    const fn derived(self, rule: &'static str, value: Rule) -> Self {
        Self {
            derived: Some(DerivedDefault { rule, value }),
            ..self
        }
    }
}

const fn whole(least: i64, most: i64) -> Kind {
    Kind::Integer { least, most }
}

const fn number(least: f64, most: f64) -> Kind {
    Kind::Number { least, most }
}

const ANY: i64 = i64::MAX;

/// Default learning rate of LoRA. 5e-4 is measured at 135M parameters
/// (docs/measurements/real-weights.md); the exponent fits published GRPO rates: 1e-4 at 1B, 4e-5 at
/// 8B (Tinker cookbook).
fn rate_of_adapters(parameters: u64) -> f64 {
    5e-4 * (135e6 / parameters.max(1) as f64).powf(0.6).min(1.0)
}

/// The keys in display order. A derived default reads only keys above its own.
pub static KEYS: &[Key] = &[
    // Model, data, duration.
    key(
        "base_model",
        Kind::Text,
        "tiny",
        "",
        "The model to start from: a model's or an adapter's folder, a Hugging Face name, an embedded model, such as `tiny`, or a run's result.",
    ),
    key("method", Kind::Choice(Method::NAMES), "grpo", "", "How to train: `grpo` on the task's reward, `sft` on expected answers, `sft+grpo`, one after the other, or `distill` towards a teacher.")
        .presets("grpo", "grpo"),
    key(
        "teacher",
        Kind::Text,
        "",
        "",
        "The teacher of distill_coef: `expected`, the model to start from, shown the row's expected answer; or a model, as for base_model, with the same vocabulary.",
    ),
    key(
        "distill_coef",
        number(0.0, 100.0),
        "0",
        "",
        "Weight of distillation: each token's advantage gains this times teacher's minus own log-prob, on the model's own completions; 0: off.",
    )
    .derived("1 with distill", |known| ((known.read)("method") == "distill").then(|| "1".to_owned())),
    key("output_model_id", Kind::Text, "", "", "A name for the result; empty takes the run's id."),
    key("seed", whole(0, ANY), "0", "", "Seed of data order, sampling and new adapters; the same seed gives the same run.")
        .presets("0", "0"),
    key("max_rows", whole(0, ANY), "0", "prompts", "Use only the first N training prompts; 0: all.").presets("0", "200"),
    key("epochs", whole(0, 10_000), "0", "", "Passes over the training prompts; 0: one, or as many as 200 steps need.").presets("1", "1"),
    key("max_steps", whole(0, ANY), "0", "steps", "Stop after N optimizer steps; 0: from `epochs`.").presets("10", "0"),
    key(
        "sft_steps",
        whole(1, ANY),
        "30",
        "steps",
        "Steps of supervised fine-tuning at the start of `sft+grpo`, on expected answers, else on the base model's answer under the task's grammar.",
    ),
    key(
        "stop_when_solved",
        Kind::Flag,
        "true",
        "",
        "Stop when nothing is left to learn: over 10 steps, all completions of 99% of the groups earn the full reward.",
    )
    .seed("false")
    .before("false"),
    key("stop_when", Kind::Condition, "", "", "Stop when the eval set meets a condition such as `valid>=0.99`; empty: never."),
    key("patience", whole(0, 100_000), "0", "evals", "Early stopping: evals without a better valid rate; 0: off.")
        .presets("0", "0"),
    key("max_minutes", number(0.0, f64::INFINITY), "0", "minutes", "Time limit in minutes of training; 0: none.")
        .presets("0", "0"),
    // Rollouts.
    key("completions_per_prompt", whole(1, 4096), "8", "", "Completions sampled per prompt (group size).")
        .presets("8", "4"),
    key("prompt_groups_per_step", whole(1, 65_536), "8", "", "Prompts per optimizer step.").presets("4", "1"),
    key(
        "prompt_sampling",
        Kind::Choice(PromptSampling::NAMES),
        "adaptive",
        "",
        "Which prompts steps take: `uniform`, each once a pass, or `adaptive`: one whose group had no gradient waits twice as many passes, at most 8, until a group has one.",
    )
    .seed("uniform")
    .before("uniform"),
    key("max_completion_tokens", whole(1, 1_048_576), "512", "tokens", "Longest completion; longer ones are truncated and scored as they are.")
        .presets("256", "1024"),
    key("max_thinking_tokens", whole(0, 1_048_576), "0", "tokens", "Longest think block, for models that think; 0: as long as the completion.").presets("0", "0"),
    key(
        "thinking_end",
        Kind::Choice(ThinkingEnd::NAMES),
        "truncate",
        "",
        "A think block that is still open after max_thinking_tokens: `truncate` the completion, or `force` it closed by tokens that are not trained on, so that an answer follows.",
    ),
    key("max_seq_len", whole(2, 1_048_576), "2048", "tokens", "Longest prompt and completion together; a longer prompt is an error.")
        .presets("2048", "4096"),
    key("temperature", number(0.01, 10.0), "1.0", "", "Sampling temperature of rollouts; also applied to logits in training.")
        .presets("1.0", "1.0"),
    key(
        "weight_sync_interval",
        whole(1, 1024),
        "1",
        "steps",
        "Optimizer steps per rollout: completions of all of them are sampled with the weights at the interval's start.",
    )
    .presets("1", "1"),
    key(
        "router_replay",
        Kind::Flag,
        "true",
        "",
        "In mixtures of experts, the update sends each token through the experts that it was sampled with.",
    )
    .before("false"),
    // The update.
    key("policy_loss", Kind::Choice(PolicyLoss::NAMES), "grpo", "", "Policy loss.").seed("grpo"),
    key(
        "sampling_correction",
        Kind::Choice(SamplingCorrection::NAMES),
        "auto",
        "",
        "Weight each token of the policy loss by its probability in the trainer over that in the sampler, at most 2: `auto` from the step on after one in which their log-probs differ by more than 0.02 nats/token on average.",
    )
    .presets("auto", "off")
    .before("off"),
    key("dynamic_sampling", Kind::Flag, "false", "", "Replace zero-variance groups with further prompts, at most three rounds.")
        .seed("true")
        .derived("true with dapo", |known| ((known.read)("policy_loss") == "dapo").then(|| "true".to_owned())),
    key(
        "guided",
        Kind::Flag,
        "true",
        "",
        "If no completion of a group earns the full reward, the row's expected answer, or one sampled under the task's grammar, replaces the last completion.",
    )
    .seed("false")
    .before("false"),
    key(
        "on_collapse",
        Kind::Choice(OnCollapse::NAMES),
        "recover",
        "",
        "After a collapse of the policy: `recover` restores the last checkpoint with informative groups, or the one that earned most, with half the learning rate and guided groups, at most three times.",
    )
    .before("continue"),
    key(
        "entropy_coef",
        number(0.0, 100.0),
        "0",
        "",
        "Weight of the entropy bonus, which keeps answers varied; 0: off.",
    ),
    key(
        "entropy_target",
        number(0.0, 100.0),
        "0",
        "nats/token",
        "Target of the sampled entropy: below it, each step raises the bonus by a tenth of entropy_coef, else lowers it, between 0 and ten times entropy_coef; 0: constant bonus.",
    ),
    key("overlong_masking", Kind::Flag, "false", "", "Exclude truncated completions from the loss.")
        .seed("false")
        .derived("true with dapo", |known| ((known.read)("policy_loss") == "dapo").then(|| "true".to_owned())),
    key("advantage", Kind::Choice(Advantage::NAMES), "centered", "", "How group rewards become advantages.")
        .seed("standardized")
        .derived("centered with dr_grpo", |known| ((known.read)("policy_loss") == "dr_grpo").then(|| "centered".to_owned())),
    key("eps_clip", number(0.0, 1.0), "0.2", "", "Lower clip of the probability ratio: 1 - eps.")
        .seed("0.2")
        .derived("3e-4 with gspo", |known| ((known.read)("policy_loss") == "gspo").then(|| "3e-4".to_owned())),
    key("eps_clip_high", number(0.0, 1.0), "0.2", "", "Upper clip of the probability ratio: 1 + eps.").seed("0.2").derived(
        "as eps_clip; 0.28 with dapo, 4e-4 with gspo",
        |known| {
            Some(match (known.read)("policy_loss").as_str() {
                "dapo" => "0.28".to_owned(),
                "gspo" => "4e-4".to_owned(),
                _ => (known.read)("eps_clip"),
            })
        },
    ),
    key("cispo_cap", number(1.0, 1000.0), "5", "", "Cap of the probability ratio for cispo, which has no clip."),
    key("kl_beta", number(0.0, 100.0), "0.0", "", "Weight of the KL to the reference; 0: off.")
        .presets("0.0", "0.001"),
    key("kl_estimator", Kind::Choice(KlEstimator::NAMES), "k3", "", "KL estimator.").presets("k3", "k3"),
    key(
        "kl_importance",
        Kind::Flag,
        "true",
        "",
        "Weight each KL term by its token's probability ratio, so that k1 and k3 have the gradient of the KL (k2 has it without weights); the GRPO paper uses false.",
    )
    .seed("false")
    .derived("false with k2", |known| ((known.read)("kl_estimator") == "k2").then(|| "false".to_owned())),
    key(
        "lora_rank",
        whole(0, 4096),
        "16",
        "",
        "LoRA rank on all linear layers; 0: full fine-tuning.",
    )
    .presets("16", "16"),
    key("lora_alpha", number(0.001, 65_536.0), "32", "", "LoRA alpha: adapters are scaled by alpha / rank.").presets("32", "32"),
    key(
        "lora_experts",
        Kind::Flag,
        "false",
        "",
        "Adapters on the experts of a mixture, too; on a GPU lora_rank is then a multiple of 8. No effect on dense models.",
    )
    .presets("false", "false"),
    key(
        "base_precision",
        Kind::Choice(BasePrecision::NAMES),
        "bf16",
        "",
        "Frozen matrices beside adapters: `bf16` (f32 on a CPU), or rounded to `fp8` (e4m3) or `nf4` (as QLoRA): on a GPU half or a quarter of their memory. On an H100 or H200 fp8 decodes up to 64 rows faster, 256 slower.",
    )
    .presets("bf16", "bf16"),
    key("learning_rate", number(0.0, 10.0), "4e-5", "", "AdamW's learning rate after warm-up.").seed("1e-5").derived(
        "by the model's size: 5e-4 up to 135 million parameters, falling to 4e-5 at 8 billion; a fortieth with lora_rank 0",
        |known| {
            let of_adapters = known.parameters.map(rate_of_adapters);
            match (known.read)("lora_rank").as_str() {
                "0" => Some(of_adapters.map_or_else(|| "1e-6".to_owned(), |rate| format!("{:.1e}", rate / 40.0))),
                _ => of_adapters.map(|rate| format!("{rate:.1e}")),
            }
        },
    ),
    key(
        "learning_rate_schedule",
        Kind::Choice(Schedule::NAMES),
        "cosine",
        "",
        "After warm-up: `constant`, or `linear` or along a `cosine` to learning_rate_floor at the run's last step.",
    )
    .seed("constant")
    .before("constant"),
    key("learning_rate_floor", number(0.0, 1.0), "0.1", "", "Where `linear` and `cosine` end, as a share of learning_rate.").presets("0.1", "0.1"),
    key("warmup_steps", whole(0, ANY), "0", "steps", "Linear warmup steps of the learning rate.").presets("0", "0"),
    key("grad_clip_norm", number(0.0, f64::INFINITY), "1.0", "", "Gradient norm clip; 0: off.")
        .presets("1.0", "0"),
    key("adam_beta1", number(0.0, 0.999_999), "0.9", "", "AdamW beta1.").presets("0.9", "0.9"),
    key("adam_beta2", number(0.0, 0.999_999), "0.95", "", "AdamW beta2.").presets("0.95", "0.95"),
    key("adam_epsilon", number(1e-16, 1.0), "1e-8", "", "AdamW epsilon.").presets("1e-8", "1e-12"),
    key("weight_decay", number(0.0, 10.0), "0", "", "AdamW weight decay (decoupled).").presets("0", "0.01"),
    key("decay_norms_and_biases", Kind::Flag, "false", "", "Apply weight_decay to norms and biases too."),
    // Evals, checkpoints, alerts.
    key("eval_every", whole(0, ANY), "10", "steps", "Run eval every N steps; 0: only at the start and end.")
        .presets("5", "20"),
    key(
        "test_eval",
        Kind::Flag,
        "true",
        "",
        "Run eval on the test set, at the start and at the end; false: it is not read, and `grpo-tui eval` measures it later.",
    ),
    key("checkpoint_every", whole(0, ANY), "10", "steps", "Save a checkpoint every N steps; 0: only at the end.")
        .presets("5", "20"),
    key(
        "keep_checkpoints",
        whole(0, ANY),
        "3",
        "",
        "Keep the last N checkpoints, besides step 0, best and end; 0: all.",
    )
    .presets("3", "3"),
    key(
        "keep_best_by",
        Kind::Choice(BestBy::NAMES),
        "valid_if_exact_holds",
        "",
        "Eval-set rate that selects the best checkpoint (RUN@best); by default the valid rate, among checkpoints whose exact match is not significantly below the base's, and whose 95% interval of it reaches the highest.",
    )
    .presets("valid_if_exact_holds", "valid_if_exact_holds"),
    key(
        "keep_rollouts",
        whole(0, ANY),
        "0",
        "steps",
        "Keep rollouts of the last N steps, besides those around saved checkpoints, in files of 100 steps; 0: all.",
    )
    .presets("0", "0"),
    // The machine.
    key(
        "tokens_per_micro_batch",
        whole(1, ANY),
        "8192",
        "tokens",
        "Tokens per micro-batch in training; changes memory and speed, not the loss.",
    ),
    key(
        "recompute_activations",
        Kind::Choice(Recompute::NAMES),
        "auto",
        "",
        "Recompute activations in the backward pass; auto: on a GPU where they do not fit.",
    ),
    key(
        "draft_tokens",
        whole(0, 64),
        "8",
        "tokens",
        "Tokens drafted per completion and decode step; changes speed, not what is sampled; 0: none.",
    ),
    key(
        "gpu_memory_gib",
        whole(0, 1024),
        "0",
        "GiB",
        "Memory of a GPU that the run takes, with the driver's share; 0: all that is free.",
    ),
    key("threads", whole(0, 4096), "0", "threads", "CPU threads; 0 uses all."),
    key(
        "ranks",
        whole(1, 1024),
        "1",
        "ranks",
        "Processes that compute the run together, each on its own GPU; on the CPU they share its threads.",
    ),
    // The data.
    key(
        "max_invalid_expected",
        number(0.0, 1.0),
        "0.05",
        "",
        "Refuse to start if more than this share of a set's expected answers is invalid; 1: never.",
    ),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_written_value_fits_its_kind() {
        for key in KEYS {
            assert!(key.kind.parse(key.default).is_ok(), "{} default", key.name);
            for value in key.presets.into_iter().flatten() {
                assert!(key.kind.parse(value).is_ok(), "{} preset {value}", key.name);
            }
            assert!(
                key.meaning.ends_with('.'),
                "{}: the meaning is a sentence",
                key.name
            );
        }
        let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KEYS.len());
    }

    #[test]
    fn nearest_names() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(Key::nearest(name).map(|key| key.name), expected, "{name}")
        };
        for (alias, key) in ALIASES {
            check(alias, Some(key));
            assert!(Key::find(alias).is_none(), "{alias}");
        }
        check("LR", Some("learning_rate"));
        check("learning_rat", Some("learning_rate"));
        check("lerning-rate", Some("learning_rate"));
        check("lora_rnak", Some("lora_rank"));
        check("eps_clip_hi", Some("eps_clip_high"));
        check("temprature", Some("temperature"));
        check("groups_per_step", Some("prompt_groups_per_step"));
        check("zzzz", None);
    }
}
