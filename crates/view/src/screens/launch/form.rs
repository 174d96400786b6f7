//! The contents of the form: the preset, changed keys, the run's name, the device or the part of a cluster; and its rows.

use std::collections::BTreeMap;

use super::cluster::Cluster;
use crate::config::{KEYS, Key, Preset, Source, TrainConfig, Value};
use crate::run::DeviceChoice;

/// The user's choices. Everything else comes from the layers below.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Form {
    pub preset: Option<Preset>,
    pub changed: BTreeMap<&'static str, String>,
    /// Names or folders of further tasks of the run, and the weights of all last, such as `receipts 2:1`.
    pub others: String,
    pub name: String,
    pub compute: DeviceChoice,
    /// The Slurm request, if Slurm starts the run.
    pub cluster: Option<Cluster>,
}

/// The value of every key, written as on a command line.
pub type Values = BTreeMap<String, String>;

#[derive(Debug, Clone, Copy)]
pub enum Row {
    Start,
    Preset,
    Task,
    Others,
    Name,
    Device,
    Nodes,
    PerNode,
    TimeLimit,
    Section(&'static Section),
    Key(&'static Key),
}

/// A group of keys. Those that are not basic are hidden while it is folded.
#[derive(Debug, PartialEq)]
pub struct Section {
    pub title: &'static str,
    /// The first key.
    first: &'static str,
    basic: &'static [&'static str],
}

/// The sections of the form, in the order of the table of keys.
pub static SECTIONS: [Section; 6] = [
    Section {
        title: "model and length",
        first: "base_model",
        basic: &["base_model", "method", "seed", "epochs", "max_steps"],
    },
    Section {
        title: "rollouts",
        first: "completions_per_prompt",
        basic: &[
            "completions_per_prompt",
            "prompt_groups_per_step",
            "max_completion_tokens",
            "temperature",
        ],
    },
    Section {
        title: "policy update",
        first: "policy_loss",
        basic: &["policy_loss", "kl_beta", "lora_rank", "learning_rate"],
    },
    Section {
        title: "eval and checkpoints",
        first: "eval_every",
        basic: &["eval_every", "checkpoint_every", "keep_best_by"],
    },
    Section {
        title: "hardware",
        first: "tokens_per_micro_batch",
        basic: &[],
    },
    Section {
        title: "data",
        first: "max_invalid_expected",
        basic: &[],
    },
];

impl Section {
    pub fn for_key(key: &Key) -> &'static Self {
        let place = |name: &str| KEYS.iter().position(|key| key.name == name);
        SECTIONS
            .iter()
            .rev()
            .find(|section| place(section.first) <= place(key.name))
            .unwrap_or(&SECTIONS[0])
    }

    pub fn keys(&'static self) -> impl Iterator<Item = &'static Key> {
        let from_first = KEYS.iter().skip_while(move |key| key.name != self.first);
        from_first.take_while(move |key| {
            key.name == self.first || SECTIONS.iter().all(|other| other.first != key.name)
        })
    }

    pub fn is_basic(&self, key: &Key) -> bool {
        self.basic.contains(&key.name)
    }
}

impl Form {
    /// The values set here, as for `--set`, in the table's order.
    pub fn assignments(&self) -> Vec<String> {
        KEYS.iter()
            .filter_map(|key| Some(format!("{}={}", key.name, self.changed.get(key.name)?)))
            .collect()
    }

    /// The equivalent arguments of `grpo-tui train TASK`.
    pub fn arguments(&self) -> Vec<String> {
        let (mut arguments, mix) = self.other_tasks();
        arguments.extend(mix.into_iter().flat_map(|mix| ["--mix".to_owned(), mix]));
        if let Some(preset) = self.preset {
            arguments.extend(["--preset".to_owned(), preset.name().to_owned()]);
        }
        for assignment in self.assignments() {
            arguments.extend(["--set".to_owned(), assignment]);
        }
        arguments.extend(
            self.cluster
                .as_ref()
                .map_or_else(|| self.device_arguments(), Cluster::arguments),
        );
        arguments
    }

    pub fn other_tasks(&self) -> (Vec<String>, Option<String>) {
        let mut tasks: Vec<String> = self.others.split_whitespace().map(str::to_owned).collect();
        let is_mix = |text: &mut String| {
            text.contains(':') && text.chars().all(|it| it == ':' || it.is_ascii_digit())
        };
        let mix = tasks.pop_if(is_mix);
        (tasks, mix)
    }

    pub fn device_arguments(&self) -> Vec<String> {
        self.compute.arguments()
    }

    /// Whether a forecast of one is valid for the other: the name changes nothing.
    pub fn is_same_job(&self, other: &Self) -> bool {
        self.arguments() == other.arguments()
    }
}

impl Row {
    pub fn title(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Preset => "preset",
            Self::Task => "task",
            Self::Others => "other tasks",
            Self::Name => "run name",
            Self::Device => "device",
            Self::Nodes => "nodes",
            Self::PerNode => "per node",
            Self::TimeLimit => "time limit",
            Self::Section(section) => section.title,
            Self::Key(key) => key.name,
        }
    }
}

pub fn values_of(config: &TrainConfig) -> Values {
    config
        .values()
        .into_iter()
        .map(|(name, value)| (name, written(&value)))
        .collect()
}

fn written(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) if number.is_f64() => number
            .as_f64()
            .map_or_else(String::new, |number| Value::Number(number).to_string()),
        other => other.to_string(),
    }
}

pub fn source_word(source: &Source) -> &'static str {
    match source {
        Source::Default => "default",
        Source::Derived => "derived",
        Source::Preset => "preset",
        Source::Task => "task",
        Source::File => "file",
        Source::Set => "form",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_section_begins_with_a_key_and_every_key_is_in_one() {
        for section in &SECTIONS {
            assert!(
                Key::find(section.first).is_some(),
                "{} begins with {}, no key",
                section.title,
                section.first
            );
            for name in section.basic {
                assert!(
                    section.keys().any(|key| key.name == *name),
                    "{name} is not in {}",
                    section.title
                );
            }
        }
        assert_eq!(SECTIONS.iter().flat_map(Section::keys).count(), KEYS.len());
        let check = |name: &str, title: &str| {
            assert_eq!(
                Section::for_key(Key::find(name).unwrap()).title,
                title,
                "{name}"
            )
        };
        check("seed", "model and length");
        check("temperature", "rollouts");
        check("weight_decay", "policy update");
        check("threads", "hardware");
        check("max_invalid_expected", "data");
    }

    #[test]
    fn arguments_are_those_of_the_command_line() {
        let check = |form: Form, expected: &[&str]| assert_eq!(form.arguments(), expected);
        check(Form::default(), &[]);
        let changed = BTreeMap::from([("seed", "7".to_owned()), ("base_model", "a b".to_owned())]);
        let form = Form {
            preset: Some(Preset::Quick),
            changed,
            compute: DeviceChoice::Gpus(vec![1]),
            name: "x".to_owned(),
            others: " receipts  tasks/b 2:1:1".to_owned(),
            cluster: None,
        };
        check(
            form,
            &[
                "receipts",
                "tasks/b",
                "--mix",
                "2:1:1",
                "--preset",
                "quick",
                "--set",
                "base_model=a b",
                "--set",
                "seed=7",
                "--gpu",
                "1",
            ],
        );
        check(
            Form {
                compute: DeviceChoice::Cpu,
                ..Form::default()
            },
            &["--cpu"],
        );
    }
}
