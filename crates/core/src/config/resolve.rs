//! Configuration layers: key table < preset < derived defaults < the task's `[train]` < `--config`
//! < `--set`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::choices::{Method, Preset};
use super::keys::{KEYS, Key, KnownValues, REMOVED_KEYS};
use super::train_config::TrainConfig;
use super::value::Value;
use crate::format::line_column;

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("{place}: `{name}` was removed: {instead}")]
    Removed {
        place: String,
        name: &'static str,
        instead: &'static str,
    },
    #[error("{place}: unknown key `{name}`{}", .nearest.map_or_else(|| "; `grpo-tui train --help` lists all keys".to_owned(), |near| format!("; did you mean `{near}`?")))]
    UnknownKey {
        place: String,
        name: String,
        nearest: Option<&'static str>,
    },
    #[error("{place}: `{name}` is {found}; it must be {expected}")]
    BadValue {
        place: String,
        name: String,
        found: String,
        expected: String,
    },
    /// `--set` without `=`.
    #[error("--set {text}: write it as key=value")]
    NotAnAssignment { text: String },
    #[error("{place}: {message}")]
    Syntax {
        /// File and line.
        place: String,
        message: String,
    },
    #[error("{message}")]
    Conflict { message: String },
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Default,
    /// A rule that depends on other keys; overrides a preset.
    Derived,
    Preset,
    /// `[train]` or `[train.model.NAME]`.
    Task,
    /// `--config`.
    File,
    /// `--set` or an option.
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

#[derive(Debug, Clone, Default)]
pub struct Layers {
    pub preset: Option<Preset>,
    /// See [`Assignments::from_task`].
    pub task: Option<Assignments>,
    /// `--config`; see [`Assignments::from_toml`].
    pub file: Option<Assignments>,
    /// `key=value` each, in order; options such as `--model M` arrive as `base_model=M`.
    pub set: Vec<String>,
    /// If `base_model` is a trained result: the model it was trained from, whose
    /// `[train.model.NAME]` applies too.
    pub origin: Option<String>,
    /// Size of the start model, for the default learning rate; `None`: not known yet.
    pub parameters: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedConfig {
    pub config: TrainConfig,
    pub sources: BTreeMap<String, Source>,
}

impl Layers {
    /// Fills every key and checks combinations.
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

    /// Yields a table's entries for a model; the last of a key wins.
    pub(super) fn entries_for<'a>(
        &'a self,
        layer: &'a Assignments,
        base_model: &'a String,
    ) -> impl Iterator<Item = &'a Entry> {
        // The model's own table overrides that of its origin.
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

    /// The base model set by the layers, which selects the task's `[train.model.NAME]`.
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

/// A configuration file as read; later changes of the file have no effect.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ConfigFile {
    /// Path as shown in errors.
    pub label: String,
    pub text: String,
}

impl ConfigFile {
    pub fn assignments(&self) -> Result<Assignments, ConfigError> {
        Assignments::from_toml(&self.label, &self.text)
    }

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
    /// Reads the file of `--config`: keys at the top level, or in a `[train]` table. `label`: path
    /// as shown in errors.
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

    /// Reads `[train]` and `[train.model.NAME]` of a `task.toml`. `label`: its path as shown in
    /// errors; `text`: the whole file.
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

    /// Returns every wrong key and value; if none, the first invalid combination.
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

    /// Checks the tables of other models too, so that a misspelled key shows at once.
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

/// `label`: path as shown in errors.
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
    if let Some(removed) = REMOVED_KEYS.iter().find(|removed| removed.name == name) {
        return Err(ConfigError::Removed {
            place: place.to_owned(),
            name: removed.name,
            instead: removed.instead,
        });
    }
    Key::find(name).ok_or_else(|| ConfigError::UnknownKey {
        place: place.to_owned(),
        name: name.to_owned(),
        nearest: Key::nearest(name).map(|key| key.name),
    })
}

#[derive(Default)]
struct ConfigBuilder {
    values: BTreeMap<&'static str, (Value, Source)>,
}

impl ConfigBuilder {
    /// `epochs` in one layer overrides `max_steps` of the layers below.
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

    /// Fills the rest in table order, so that a derived default sees the keys above it.
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
                // Ignore rules that yield the current value.
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
        (true, _) if teacher.starts_with("endpoint:") || teacher.contains("://") => {
            format!("teacher = {teacher} is a server, and distillation from one was removed: name a model, folder or run with the same vocabulary")
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
    let base = config.base_precision;
    if base.is_quantized() && config.lora_rank == 0 {
        return conflict(format!(
            "base_precision = {base} keeps frozen weights, and lora_rank = 0 trains all of them: set lora_rank above 0, or base_precision = bf16"
        ));
    }
    Ok(())
}
