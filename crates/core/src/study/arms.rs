//! The studies: which settings answer which question, and which of them are compared.

use serde::{Deserialize, Serialize};

use super::axes::Setting;
use super::error::StudyError;
use crate::config::{EXPECTED_TEACHER, PromptSampling, TrainConfig};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Study {
    /// Base, SFT, GRPO, GRPO after SFT.
    SftVsGrpo,
    /// Rewards of the tiers 0/0/1 and 0/0.5/1.
    BinaryVsTiered,
    /// Completions per prompt, at equal completions per step.
    GroupSize,
    /// Optimizer steps per rollout.
    SyncInterval,
    /// Which prompts steps take, at equal completions.
    PromptSampling,
    /// Base, SFT, GRPO, distillation.
    Distillation,
}

/// Evals without a better valid rate after which a run of `sft-vs-grpo` counts as converged.
const PATIENCE: u64 = 3;
/// It is cut off at so many times the updates of the others.
const MAX_UPDATE_FACTOR: u64 = 4;

type Pairs = Vec<[Option<usize>; 2]>;

impl Study {
    pub const ALL: [Self; 6] = [
        Self::SftVsGrpo,
        Self::BinaryVsTiered,
        Self::GroupSize,
        Self::SyncInterval,
        Self::PromptSampling,
        Self::Distillation,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::SftVsGrpo => "sft-vs-grpo",
            Self::BinaryVsTiered => "binary-vs-tiered",
            Self::GroupSize => "group-size",
            Self::SyncInterval => "sync-interval",
            Self::PromptSampling => "prompt-sampling",
            Self::Distillation => "distillation",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|study| study.name() == name)
    }

    /// The keys that it sets itself.
    pub fn keys(self) -> &'static [&'static str] {
        match self {
            Self::SftVsGrpo => &["method", "patience", "base_model"],
            Self::BinaryVsTiered => &["method"],
            Self::GroupSize => &["method", "completions_per_prompt", "prompt_groups_per_step"],
            Self::SyncInterval => &["method", "weight_sync_interval"],
            Self::PromptSampling => &["method", "prompt_sampling"],
            Self::Distillation => &["method", "teacher"],
        }
    }

    /// The settings, and the pairs that are compared on the test set. `config`: what all of them start from.
    ///
    /// # Errors
    /// [`StudyError::Unfit`] naming the key that leaves nothing to compare.
    pub fn settings(self, config: &TrainConfig) -> Result<(Vec<Setting>, Pairs), StudyError> {
        let against_first = |settings: Vec<Setting>| {
            let pairs = (1..settings.len())
                .map(|place| [Some(0), Some(place)])
                .collect();
            (settings, pairs)
        };
        let with = |label: String, set: &[String]| Setting {
            label,
            set: set.to_vec(),
            ..Setting::default()
        };
        if matches!(self, Self::SftVsGrpo | Self::Distillation) && config.max_steps < 2 {
            return Err(StudyError::Unfit(format!(
                "{} needs the number of updates: --set max_steps=N, 2 or more",
                self.name()
            )));
        }
        Ok(match self {
            Self::SftVsGrpo => sft_vs_grpo(config.max_steps),
            Self::Distillation => {
                let teacher = if config.teacher.is_empty() {
                    EXPECTED_TEACHER
                } else {
                    &config.teacher
                };
                let method = |label: &str, method: &str| {
                    with(label.to_owned(), &[format!("method={method}")])
                };
                let mut distilled = method(&format!("distillation, teacher {teacher}"), "distill");
                distilled.set.push(format!("teacher={teacher}"));
                let settings = vec![method("SFT", "sft"), method("GRPO", "grpo"), distilled];
                (
                    settings,
                    all_pairs([None, Some(0), Some(1), Some(2)]).to_vec(),
                )
            }
            Self::BinaryVsTiered => {
                let tiers = |label: &str, tiers| Setting {
                    tiers: Some(tiers),
                    ..with(label.to_owned(), &[])
                };
                against_first(vec![
                    tiers("binary 0/0/1", [0.0, 0.0, 1.0]),
                    tiers("tiered 0/0.5/1", [0.0, 0.5, 1.0]),
                ])
            }
            Self::GroupSize => {
                let all = config.completions_per_prompt * config.prompt_groups_per_step;
                let sizes: Vec<usize> = [2, 4, 8, 16]
                    .into_iter()
                    .filter(|size| all.is_multiple_of(*size) && all >= *size)
                    .collect();
                if sizes.len() < 2 {
                    return Err(StudyError::Unfit(format!(
                        "group-size divides completions_per_prompt x prompt_groups_per_step = {all} completions per step into groups of 2, 4, 8 and 16: give a multiple of 4"
                    )));
                }
                let setting = |size: usize| {
                    let set = [
                        format!("completions_per_prompt={size}"),
                        format!("prompt_groups_per_step={}", all / size),
                    ];
                    with(format!("{size} completions x {} prompts", all / size), &set)
                };
                against_first(sizes.into_iter().map(setting).collect())
            }
            Self::SyncInterval => {
                let setting = |steps: u64| {
                    let noun = if steps == 1 { "step" } else { "steps" };
                    with(
                        format!("every {steps} {noun}"),
                        &[format!("weight_sync_interval={steps}")],
                    )
                };
                against_first([1, 2, 4, 8].into_iter().map(setting).collect())
            }
            Self::PromptSampling => {
                let setting =
                    |name: &&str| with((*name).to_owned(), &[format!("prompt_sampling={name}")]);
                against_first(PromptSampling::NAMES.iter().map(setting).collect())
            }
        })
    }
}

/// Seven settings: three at `updates`, with a half that one of them continues, and three until nothing improves.
fn sft_vs_grpo(updates: u64) -> (Vec<Setting>, Pairs) {
    let half = updates / 2;
    let equal = format!("{updates} updates");
    let setting =
        |label: &str, group: &str, method: &str, steps: u64, after: Option<usize>| Setting {
            label: label.to_owned(),
            group: group.to_owned(),
            set: vec![format!("method={method}"), format!("max_steps={steps}")],
            after,
            ..Setting::default()
        };
    let mut settings = vec![
        setting("SFT", &equal, "sft", updates, None),
        setting("GRPO", &equal, "grpo", updates, None),
        setting(&format!("SFT, first {half}"), "", "sft", half, None),
        setting(
            &format!("GRPO after SFT, {half} + {}", updates - half),
            &equal,
            "grpo",
            updates - half,
            Some(2),
        ),
    ];
    for (label, method, after) in [
        ("SFT", "sft", None),
        ("GRPO", "grpo", None),
        ("GRPO after SFT", "grpo", Some(4)),
    ] {
        let mut converged = setting(
            &format!("{label}, converged"),
            "convergence",
            method,
            MAX_UPDATE_FACTOR * updates,
            after,
        );
        converged.set.push(format!("patience={PATIENCE}"));
        settings.push(converged);
    }
    let pairs = [
        all_pairs([None, Some(0), Some(1), Some(3)]),
        all_pairs([None, Some(4), Some(5), Some(6)]),
    ]
    .concat();
    (settings, pairs)
}

fn all_pairs([base, a, b, c]: [Option<usize>; 4]) -> [[Option<usize>; 2]; 6] {
    [[base, a], [base, b], [base, c], [a, b], [a, c], [b, c]]
}

/// `task.toml` with other rewards of the tiers.
///
/// # Errors
/// The parser's message.
pub fn with_tiers(text: &str, [unparsable, invalid, valid]: [f64; 3]) -> Result<String, String> {
    let mut table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| error.message().to_owned())?;
    let tiers = [
        ("unparsable", unparsable),
        ("invalid", invalid),
        ("valid", valid),
    ];
    let tiers: toml::Table = tiers
        .into_iter()
        .map(|(tier, value)| (tier.to_owned(), value.into()))
        .collect();
    let score = table
        .entry("score")
        .or_insert_with(|| toml::Table::new().into());
    score
        .as_table_mut()
        .ok_or("`score` is not a table")?
        .insert("tiers".to_owned(), tiers.into());
    toml::to_string(&table).map_err(|error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn config(set: &[&str]) -> TrainConfig {
        let set = set.iter().map(|text| (*text).to_owned()).collect();
        Layers {
            set,
            ..Layers::default()
        }
        .resolve()
        .unwrap()
        .config
    }

    #[test]
    fn every_setting_of_every_study_resolves() {
        let base = [
            "max_steps=20",
            "completions_per_prompt=8",
            "prompt_groups_per_step=8",
        ];
        for study in Study::ALL {
            assert_eq!(Study::from_name(study.name()), Some(study));
            let (settings, pairs) = study.settings(&config(&base)).unwrap();
            assert!(
                pairs
                    .iter()
                    .flatten()
                    .flatten()
                    .all(|place| *place < settings.len()),
                "{pairs:?}"
            );
            for (place, setting) in settings.iter().enumerate() {
                assert!(
                    setting.after.is_none_or(|after| after < place),
                    "{}",
                    setting.label
                );
                let keys: Vec<&str> = setting
                    .set
                    .iter()
                    .map(|set| set.split_once('=').unwrap().0)
                    .collect();
                assert!(
                    keys.iter()
                        .all(|key| study.keys().contains(key) || *key == "max_steps"),
                    "{keys:?}"
                );
                config(&setting.set.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn groups_of_all_sizes_have_as_many_completions() {
        let (settings, pairs) = Study::GroupSize.settings(&config(&[])).unwrap();
        let labels: Vec<_> = settings
            .iter()
            .map(|setting| setting.label.as_str())
            .collect();
        assert_eq!(
            labels,
            [
                "2 completions x 32 prompts",
                "4 completions x 16 prompts",
                "8 completions x 8 prompts",
                "16 completions x 4 prompts"
            ]
        );
        assert_eq!(
            pairs,
            [[Some(0), Some(1)], [Some(0), Some(2)], [Some(0), Some(3)]]
        );
        let odd = Study::GroupSize.settings(&config(&[
            "completions_per_prompt=3",
            "prompt_groups_per_step=1",
        ]));
        assert!(odd.unwrap_err().to_string().contains("= 3 completions"));
    }

    #[test]
    fn updates_add_up() {
        let (settings, pairs) = Study::SftVsGrpo
            .settings(&config(&["max_steps=25"]))
            .unwrap();
        let steps = |place: usize| settings[place].set[1].as_str();
        assert_eq!(
            (steps(0), steps(2), steps(3), steps(6)),
            (
                "max_steps=25",
                "max_steps=12",
                "max_steps=13",
                "max_steps=100"
            )
        );
        assert_eq!(
            (settings[3].after, settings[6].after, pairs.len()),
            (Some(2), Some(4), 12)
        );
        assert!(
            Study::SftVsGrpo
                .settings(&config(&[]))
                .unwrap_err()
                .to_string()
                .contains("max_steps=N")
        );
    }

    #[test]
    fn the_teacher_is_that_of_distillation_alone() {
        for (own, teacher) in [("", "expected"), ("./large", "./large")] {
            let config = TrainConfig {
                teacher: own.to_owned(),
                ..config(&["max_steps=4"])
            };
            let (settings, pairs) = Study::Distillation.settings(&config).unwrap();
            assert_eq!(
                (settings[0].set.len(), settings[1].set.len(), pairs.len()),
                (1, 1, 6)
            );
            assert_eq!(
                settings[2].set,
                ["method=distill".to_owned(), format!("teacher={teacher}")]
            );
        }
        assert!(
            Study::Distillation
                .settings(&config(&[]))
                .unwrap_err()
                .to_string()
                .contains("max_steps=N")
        );
    }

    #[test]
    fn tiers_replace_those_of_the_task() {
        let text = with_tiers(
            "name = \"x\"\n[score]\nkind = \"text\"\ntiers = { valid = 3 }\n",
            [0.0, 0.5, 1.0],
        )
        .unwrap();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["score"]["tiers"]["valid"].as_float(), Some(1.0));
        assert_eq!(table["score"]["kind"].as_str(), Some("text"));
        let added: toml::Table = with_tiers("name = \"x\"", [0.0, 0.0, 1.0])
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(added["score"]["tiers"]["invalid"].as_float(), Some(0.0));
        assert!(with_tiers("score = 3", [0.0; 3]).is_err());
    }
}
