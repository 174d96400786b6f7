//! The layers that fill a configuration: key table < preset < rules for defaults that follow from other keys < the
//! task's `[train]` < `--config` < `--set`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::choices::{Method, Preset};
use super::keys::{KEYS, Key, KnownValues};
use super::train_config::{ENDPOINT_TEACHER, TrainConfig};
use super::value::Value;
use crate::format::line_column;

/// An invalid configuration: what is wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A key that is not in the table.
    #[error("{place}: unknown key `{name}`{}", .nearest.map_or_else(|| "; `grpo-tui train --help` lists all keys".to_owned(), |near| format!("; did you mean `{near}`?")))]
    UnknownKey {
        /// Where it is.
        place: String,
        /// The key as written.
        name: String,
        /// The nearest known key.
        nearest: Option<&'static str>,
    },
    /// A value of the wrong type or out of range.
    #[error("{place}: `{name}` is {found}; it must be {expected}")]
    BadValue {
        /// Where it is.
        place: String,
        /// The key.
        name: String,
        /// The value as written.
        found: String,
        /// The kind and range.
        expected: String,
    },
    /// An argument of `--set` without `=`.
    #[error("--set {text}: write it as key=value")]
    NotAnAssignment {
        /// The argument.
        text: String,
    },
    /// A file that is not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// File and line.
        place: String,
        /// The parser's message.
        message: String,
    },
    /// Two values that cannot hold together.
    #[error("{message}")]
    Conflict {
        /// Both keys, their values and the remedy.
        message: String,
    },
}

/// Which layer set a key's value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The key table.
    Default,
    /// The key table's rule that depends on other keys; it overrides a preset.
    Derived,
    Preset,
    /// The task's `[train]`, or its `[train.model.NAME]`.
    Task,
    /// The file of `--config`.
    File,
    /// `--set` or an option of the command line.
    Set,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Default => "default",
            Self::Derived => "default (derived)",
            Self::Preset => "preset",
            Self::Task => "task",
            Self::File => "--config",
            Self::Set => "--set",
        })
    }
}

/// The user's input, layer by layer.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// `--preset`.
    pub preset: Option<Preset>,
    /// The task's `[train]` table; see [`Assignments::from_task`].
    pub task: Option<Assignments>,
    /// The file of `--config`; see [`Assignments::from_toml`].
    pub file: Option<Assignments>,
    /// The arguments of `--set`, `key=value` each, in order; options such as `--model M` come here as `base_model=M`.
    pub set: Vec<String>,
    /// Where `base_model` is the result of another training: the model that it came from, whose `[train.model.NAME]`
    /// holds too.
    pub origin: Option<String>,
    /// Parameters of the model to start from, for the default learning rate; `None` if it is not known yet.
    pub parameters: Option<u64>,
}

/// A configuration and where each value came from.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedConfig {
    /// The values.
    pub config: TrainConfig,
    /// The layer that set each key.
    pub sources: BTreeMap<String, Source>,
}

impl Layers {
    /// Fill every key and check what depends on several of them.
    ///
    /// # Errors
    /// [`ConfigError`] with the place of the first thing wrong.
    pub fn resolve(&self) -> Result<ResolvedConfig, ConfigError> {
        let mut filled = ConfigBuilder::default();
        if let Some(preset) = self.preset {
            for key in KEYS {
                if let Some(text) = key.preset(preset) {
                    filled.text(key, text, Source::Preset, &format!("preset {preset}"))?;
                }
            }
        }
        let mut set = Vec::new();
        for text in &self.set {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| ConfigError::NotAnAssignment { text: text.clone() })?;
            set.push((known_key(name.trim(), "--set")?, value));
        }
        let base_model = self.asked_base_model();
        for (layer, source) in [(&self.task, Source::Task), (&self.file, Source::File)] {
            let Some(layer) = layer else { continue };
            layer.check_models()?;
            for entry in self.entries_for(layer, &base_model) {
                filled.toml(entry, source.clone())?;
            }
        }
        for (key, text) in set {
            filled.text(key, text, Source::Set, "--set")?;
        }
        filled.finish(self.parameters)
    }

    /// What a table sets for a model, the last of a key above the others.
    pub(super) fn entries_for<'a>(
        &'a self,
        layer: &'a Assignments,
        base_model: &'a String,
    ) -> impl Iterator<Item = &'a Entry> {
        // The table of the very name stands over that of its origin.
        let names = self
            .origin
            .as_ref()
            .filter(move |origin| *origin != base_model)
            .into_iter()
            .chain([base_model]);
        let for_model = names
            .flat_map(|name| layer.models.iter().filter(move |(model, _)| model == name))
            .flat_map(|(_, entries)| entries);
        layer.entries.iter().chain(for_model)
    }

    /// The base model that all layers together ask for, which decides on the task's `[train.model.NAME]`.
    pub fn asked_base_model(&self) -> String {
        let from_table = |layer: &Option<Assignments>| {
            layer
                .iter()
                .flat_map(|layer| &layer.entries)
                .rev()
                .find(|entry| entry.name == "base_model")
                .and_then(|entry| entry.value.as_str().map(str::to_owned))
        };
        let assigned = self
            .set
            .iter()
            .rev()
            .filter_map(|text| text.split_once('='));
        let from_set = assigned
            .filter(|(name, _)| name.trim() == "base_model")
            .map(|(_, text)| text.trim().to_owned())
            .next();
        from_set
            .or_else(|| from_table(&self.file))
            .or_else(|| from_table(&self.task))
            .unwrap_or_else(|| {
                Key::find("base_model").map_or_else(String::new, |key| key.default.to_owned())
            })
    }
}

/// A configuration file as it was read; later changes of the file do not affect it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ConfigFile {
    /// Its path as shown in errors.
    pub label: String,
    pub text: String,
}

impl ConfigFile {
    /// # Errors
    /// As [`Assignments::from_toml`].
    pub fn assignments(&self) -> Result<Assignments, ConfigError> {
        Assignments::from_toml(&self.label, &self.text)
    }

    /// Checks every key and value on its own.
    ///
    /// # Errors
    /// [`ConfigError`] with the line of the first that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let assignments = self.assignments()?;
        let mut scratch = ConfigBuilder::default();
        assignments
            .entries
            .iter()
            .try_for_each(|entry| scratch.toml(entry, Source::File))?;
        assignments.check_models()
    }
}

/// The assignments of one TOML table, each with its place.
#[derive(Debug, Clone, Default)]
pub struct Assignments {
    pub(super) entries: Vec<Entry>,
    pub(super) models: Vec<(String, Vec<Entry>)>,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) place: String,
    pub(super) name: String,
    pub(super) value: toml::Value,
}

impl Assignments {
    /// The file of `--config`: keys at the top level, or in a `[train]` table. `label` is the path as shown in errors.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] with the line.
    pub fn from_toml(label: &str, text: &str) -> Result<Self, ConfigError> {
        let source = Toml { label, text };
        let mut keys = source.parse()?;
        if let Some(DeValue::Table(train)) = keys.remove("train").map(Spanned::into_inner) {
            keys.extend(train);
        }
        Self::from_table(source, keys)
    }

    /// A task's `[train]`, with its `[train.model.NAME]` tables. `label`: the path of `task.toml` as shown in errors;
    /// `text`: the whole file.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] with the line.
    pub fn from_task(label: &str, text: &str) -> Result<Self, ConfigError> {
        let source = Toml { label, text };
        match source.parse()?.remove("train").map(Spanned::into_inner) {
            Some(DeValue::Table(train)) => Self::from_table(source, train),
            _ => Ok(Self::default()),
        }
    }

    /// Every key and value that is wrong; where none is, what does not fit together.
    pub fn problems(&self) -> Vec<ConfigError> {
        let mut scratch = ConfigBuilder::default();
        let of_all = self
            .entries
            .iter()
            .filter_map(|entry| scratch.toml(entry, Source::Task).err());
        let mut problems: Vec<ConfigError> = of_all.collect();
        problems.extend(self.check_models().err());
        if problems.is_empty() {
            problems.extend(
                Layers {
                    task: Some(self.clone()),
                    ..Layers::default()
                }
                .resolve()
                .err(),
            );
        }
        problems
    }

    fn from_table(source: Toml<'_>, train: DeTable<'_>) -> Result<Self, ConfigError> {
        let mut assignments = Self::default();
        for (name, value) in train {
            match (name.as_ref().as_ref(), value.get_ref()) {
                ("model", DeValue::Table(models)) => {
                    for (model, value) in models {
                        let model = model.get_ref();
                        let entries = match value.get_ref() {
                            DeValue::Table(table) => table
                                .iter()
                                .map(|(name, value)| source.entry(name.get_ref(), value.clone()))
                                .collect(),
                            // Resolves to "unknown key".
                            _ => source
                                .entry(&format!("model.{model}"), value.clone())
                                .map(|entry| vec![entry]),
                        };
                        assignments.models.push((model.to_string(), entries?));
                    }
                }
                (name, _) => assignments.entries.push(source.entry(name, value.clone())?),
            }
        }
        Ok(assignments)
    }

    /// Tables of other models are checked too, so that a misspelt key shows at once.
    fn check_models(&self) -> Result<(), ConfigError> {
        let mut scratch = ConfigBuilder::default();
        for entry in self.models.iter().flat_map(|(_, entries)| entries) {
            if entry.name == "base_model" {
                let message = format!(
                    "{}: `base_model` selects this table and cannot be set in it: move it to [train]",
                    entry.place
                );
                return Err(ConfigError::Conflict { message });
            }
            scratch.toml(entry, Source::Task)?;
        }
        Ok(())
    }
}

/// A file with its path as shown in errors.
#[derive(Clone, Copy)]
struct Toml<'t> {
    label: &'t str,
    text: &'t str,
}

impl<'t> Toml<'t> {
    fn parse(self) -> Result<DeTable<'t>, ConfigError> {
        DeTable::parse(self.text)
            .map(Spanned::into_inner)
            .map_err(|error| self.syntax(&error))
    }

    fn entry(self, name: &str, value: Spanned<DeValue<'_>>) -> Result<Entry, ConfigError> {
        let place = self.place(value.span().start);
        let value = toml::Value::deserialize(ValueDeserializer::from(value))
            .map_err(|error| self.syntax(&error))?;
        Ok(Entry {
            place,
            name: name.to_owned(),
            value,
        })
    }

    fn syntax(self, error: &toml::de::Error) -> ConfigError {
        ConfigError::Syntax {
            place: self.place(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        }
    }

    fn place(self, byte: usize) -> String {
        format!("{} line {}", self.label, line_column(self.text, byte).0)
    }
}

fn known_key(name: &str, place: &str) -> Result<&'static Key, ConfigError> {
    Key::find(name).ok_or_else(|| ConfigError::UnknownKey {
        place: place.to_owned(),
        name: name.to_owned(),
        nearest: Key::nearest(name).map(|key| key.name),
    })
}

/// Values found so far, by key.
#[derive(Default)]
struct ConfigBuilder {
    values: BTreeMap<&'static str, (Value, Source)>,
}

impl ConfigBuilder {
    /// A layer that sets `epochs` says how long a run is, whatever `max_steps` a file below it has.
    fn insert(&mut self, key: &'static Key, value: Value, source: Source) {
        let is_below = |(_, below): &(Value, Source)| {
            *below != source && matches!(below, Source::Task | Source::File)
        };
        if key.name == "epochs"
            && value.to_string() != "0"
            && self.values.get("max_steps").is_some_and(is_below)
        {
            self.values.remove("max_steps");
        }
        self.values.insert(key.name, (value, source));
    }

    fn text(
        &mut self,
        key: &'static Key,
        text: &str,
        source: Source,
        place: &str,
    ) -> Result<(), ConfigError> {
        let value = key
            .kind
            .parse(text)
            .map_err(|expected| ConfigError::BadValue {
                place: place.to_owned(),
                name: key.name.to_owned(),
                found: format!("`{}`", text.trim()),
                expected,
            })?;
        self.insert(key, value, source);
        Ok(())
    }

    fn toml(&mut self, entry: &Entry, source: Source) -> Result<(), ConfigError> {
        let key = known_key(&entry.name, &entry.place)?;
        let value = key
            .kind
            .from_toml(&entry.value)
            .map_err(|expected| ConfigError::BadValue {
                place: entry.place.clone(),
                name: key.name.to_owned(),
                found: format!(
                    "{} `{}`",
                    entry.value.type_str(),
                    entry.value.to_string().trim_matches('"')
                ),
                expected,
            })?;
        self.insert(key, value, source);
        Ok(())
    }

    /// Fill the rest from the table, in its order, so that a derived default sees the keys above it.
    fn finish(mut self, parameters: Option<u64>) -> Result<ResolvedConfig, ConfigError> {
        for key in KEYS {
            let explicit = self.values.get(key.name);
            if explicit.is_some_and(|(_, source)| *source != Source::Preset) {
                continue;
            }
            let read = |name: &str| {
                self.values
                    .get(name)
                    .map_or_else(String::new, |(value, _)| value.to_string())
            };
            let derived = key.derived.as_ref().and_then(|derived| {
                (derived.value)(&KnownValues {
                    read: &read,
                    parameters: parameters.filter(|_| explicit.is_none()),
                })
            });
            let text = match (derived, explicit) {
                // A rule that comes to what is there anyway explains nothing.
                (Some(text), explicit)
                    if explicit.map_or(text == key.default, |(value, _)| {
                        key.kind.parse(&text).as_ref() == Ok(value)
                    }) =>
                {
                    None
                }
                (Some(text), _) => Some(text),
                (None, _) => None,
            };
            match text {
                Some(text) => self.text(key, &text, Source::Derived, "default")?,
                None if explicit.is_none() => {
                    self.text(key, key.default, Source::Default, "default")?
                }
                None => {}
            }
        }
        let fields: serde_json::Map<String, serde_json::Value> = self
            .values
            .iter()
            .map(|(name, (value, _))| {
                (
                    (*name).to_owned(),
                    serde_json::to_value(value).unwrap_or_default(),
                )
            })
            .collect();
        let config: TrainConfig = serde_json::from_value(serde_json::Value::Object(fields))
            .map_err(|error| ConfigError::Conflict {
                message: format!("the key table and the configuration disagree: {error}"),
            })?;
        check_together(&config)?;
        Ok(ResolvedConfig {
            config,
            sources: self
                .values
                .into_iter()
                .map(|(name, (_, source))| (name.to_owned(), source))
                .collect(),
        })
    }
}

fn check_distillation(config: &TrainConfig) -> Result<(), ConfigError> {
    let (teacher, method) = (config.teacher.as_str(), config.method);
    let problem = match (config.is_distilled(), teacher.is_empty()) {
        (true, _) if method == Method::Sft => {
            "method = sft samples no completions to distill on: set distill_coef = 0, or method = distill".to_owned()
        }
        (true, _) if teacher.starts_with(ENDPOINT_TEACHER) && config.temperature != 1.0 => format!(
            "teacher = {teacher} gives log-probs at temperature 1, and temperature = {} samples at another: set temperature = 1, or a local teacher",
            config.temperature
        ),
        (true, _) if teacher.starts_with(ENDPOINT_TEACHER) => return Ok(()),
        (true, _) if teacher.contains("://") => {
            format!("teacher = {teacher} is an address: define it in endpoints.toml, and set teacher = endpoint:NAME")
        }
        (true, false) => return Ok(()),
        (true, true) => format!(
            "distill_coef = {} (method = {method}) needs a teacher: set teacher = expected, or to a model with the same vocabulary",
            config.distill_coef
        ),
        (false, _) if method == Method::Distill => {
            "method = distill learns from the teacher alone, so distill_coef = 0 has no gradient: set it above 0"
                .to_owned()
        }
        (false, false) => format!(
            "teacher = {teacher} has no effect with distill_coef = 0: set distill_coef above 0, or method = distill"
        ),
        (false, true) => return Ok(()),
    };
    Err(ConfigError::Conflict { message: problem })
}

fn check_together(config: &TrainConfig) -> Result<(), ConfigError> {
    let conflict = |message: String| Err(ConfigError::Conflict { message });
    if config.max_completion_tokens >= config.max_seq_len {
        return conflict(format!(
            "max_completion_tokens ({}) leaves no tokens for the prompt within max_seq_len ({}): raise max_seq_len or lower max_completion_tokens",
            config.max_completion_tokens, config.max_seq_len
        ));
    }
    if config.max_thinking_tokens >= config.max_completion_tokens {
        return conflict(format!(
            "max_thinking_tokens ({}) leaves no tokens for the answer within max_completion_tokens ({}): raise max_completion_tokens or lower max_thinking_tokens",
            config.max_thinking_tokens, config.max_completion_tokens
        ));
    }
    if config.method == Method::Grpo && config.completions_per_prompt < 2 {
        return conflict(
            "completions_per_prompt = 1: a group of one has zero variance: set it to 2 or more"
                .to_owned(),
        );
    }
    check_distillation(config)?;
    if config.kl_beta > 0.0
        && config.kl_estimator == super::KlEstimator::K1
        && !config.kl_importance
    {
        return conflict(
            "kl_estimator = k1 has a zero-mean gradient in the loss, so kl_beta has no effect: set kl_importance = true, or kl_estimator = k3"
                .to_owned(),
        );
    }
    if config.lora_experts && config.lora_rank == 0 {
        return conflict(
            "lora_experts = true adds adapters, and lora_rank = 0 trains all weights, experts included: set lora_rank above 0, or lora_experts = false"
                .to_owned(),
        );
    }
    if config.base_precision == super::BasePrecision::Fp8 && config.lora_rank == 0 {
        return conflict(
            "base_precision = fp8 keeps frozen weights, and lora_rank = 0 trains all of them: set lora_rank above 0, or base_precision = bf16"
                .to_owned(),
        );
    }
    Ok(())
}
