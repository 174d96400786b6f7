//! A model's files, in a folder or in the binary.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::config::{Quantization, copied_config};
use super::python_json::plain_json;
use super::{HubError, ModelConfig};
use crate::files;

/// Limit of a weight file read whole: an adapter's.
const MAX_WEIGHTS_BYTES: u64 = 16 << 30;

/// Non-weight files of a model's folder.
const COMPANIONS: [&str; 13] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tekken.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/tool_use.jinja",
];

/// All of them except the model's configurations.
const TOKENIZER_FILES: &[&str] = COMPANIONS.split_at(2).1;

/// A located model; files are read on demand.
#[derive(Clone)]
pub struct ModelSource {
    pub name: String,
    files: Files,
    /// Folder of an adapter with its own tokenizer or template.
    tokenizer_folder: Option<PathBuf>,
    /// Time that chat templates read, Unix milliseconds; `None`: the present.
    clock_ms: Option<u64>,
}

#[derive(Clone)]
enum Files {
    Folder(PathBuf),
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl ModelSource {
    pub fn at(name: &str, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            files: Files::Folder(folder.to_owned()),
            tokenizer_folder: None,
            clock_ms: None,
        }
    }

    pub(super) fn embedded(name: &str, files: &'static [(&'static str, &'static [u8])]) -> Self {
        Self {
            name: name.to_owned(),
            files: Files::Embedded(files),
            tokenizer_folder: None,
            clock_ms: None,
        }
    }

    /// Fixes the time that its chat template reads: of a run's creation.
    #[must_use]
    pub fn at_time(self, unix_ms: u64) -> Self {
        Self {
            clock_ms: Some(unix_ms),
            ..self
        }
    }

    pub fn clock_ms(&self) -> Option<u64> {
        self.clock_ms
    }

    pub fn folder(&self) -> Option<&Path> {
        match &self.files {
            Files::Folder(folder) => Some(folder),
            Files::Embedded(_) => None,
        }
    }

    /// Bytes of an embedded model's file; `None` for a model in a folder.
    pub fn embedded_bytes(&self, file: &str) -> Option<&'static [u8]> {
        match &self.files {
            Files::Folder(_) => None,
            Files::Embedded(files) => files
                .iter()
                .find(|(name, _)| *name == file)
                .map(|(_, bytes)| *bytes),
        }
    }

    /// A file's name in messages.
    pub fn label(&self, file: &str) -> String {
        self.path(file).map_or_else(
            || format!("{} (embedded)/{file}", self.name),
            |path| path.display().to_string(),
        )
    }

    pub fn exists(&self, file: &str) -> bool {
        self.path(file).map_or_else(
            || self.embedded_bytes(file).is_some(),
            |path| path.is_file(),
        )
    }

    /// `None` for a file in the binary.
    fn path(&self, file: &str) -> Option<PathBuf> {
        let folder = self.replaced_in(file).or_else(|| self.folder())?;
        Some(folder.join(file))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`HubError::MissingFile`] or [`HubError::Read`].
    pub fn read(&self, file: &str) -> Result<Cow<'_, [u8]>, HubError> {
        let Some(path) = self.path(file) else {
            let bytes = self.embedded_bytes(file).map(Cow::Borrowed);
            return bytes.ok_or_else(|| self.missing(file));
        };
        let most = if file.ends_with(".safetensors") {
            MAX_WEIGHTS_BYTES
        } else {
            files::MAX_WHOLE_FILE_BYTES
        };
        files::read_at_most(&path, most)
            .map(Cow::Owned)
            .map_err(|source| self.refused(file, source))
    }

    /// Configuration and tokenizer files for a copy of the model. For a vision model the
    /// configuration is that of its text part, for a quantized one that of bf16 weights, as these
    /// are what is copied.
    pub fn companions(&self) -> Result<Vec<(&'static str, Vec<u8>)>, HubError> {
        let there = COMPANIONS.into_iter().filter(|file| self.exists(file));
        let companion = |file| {
            let bytes = self.read(file)?.into_owned();
            let text = (file == "config.json")
                .then(|| copied_config(&plain_json(&String::from_utf8_lossy(&bytes))))
                .flatten();
            Ok((file, text.map_or(bytes, String::into_bytes)))
        };
        there.map(companion).collect()
    }

    /// Reads text; JSON as Python reads it, with a byte order mark, `NaN` and `Infinity`.
    ///
    /// # Errors
    /// As [`ModelSource::read`], and [`HubError::Config`] if it is not UTF-8.
    pub fn read_text(&self, file: &str) -> Result<String, HubError> {
        let text =
            String::from_utf8(self.read(file)?.into_owned()).map_err(|error| HubError::Config {
                path: self.label(file),
                problem: format!(
                    "not UTF-8 text (byte {}); it is damaged or not what its name says",
                    error.utf8_error().valid_up_to()
                ),
            })?;
        Ok(match file.ends_with(".json") {
            true => plain_json(&text).into_owned(),
            false => text,
        })
    }

    /// Whether it is an adapter without model weights; some programs write the base's `config.json`
    /// next to one.
    pub fn is_adapter(&self) -> bool {
        let weights = ["model.safetensors", "model.safetensors.index.json"];
        self.exists("adapter_config.json") && !weights.iter().any(|file| self.exists(file))
    }

    /// This model with an adapter's own tokenizer and chat templates, which it was trained with.
    #[must_use]
    pub fn with_tokenizer_of(mut self, adapter: &Self) -> Self {
        if TOKENIZER_FILES.iter().any(|file| adapter.exists(file)) {
            self.tokenizer_folder = adapter.folder().map(Path::to_owned);
        }
        self
    }

    /// Folder of an adapter that replaces this file. Interdependent files come from one folder; a
    /// template alone overrides the model's.
    fn replaced_in(&self, file: &str) -> Option<&Path> {
        let folder = self.tokenizer_folder.as_deref()?;
        let has = |file: &str| folder.join(file).is_file();
        let has_tokenizer = has("tokenizer.json") || has("tokenizer_config.json");
        let is_replaced = match TOKENIZER_FILES.contains(&file) {
            true if file == "tokenizer.json" => has(file),
            true if has_tokenizer => true,
            true => has(file),
            false => false,
        };
        is_replaced.then_some(folder)
    }

    /// Whether transformers' `AutoModelForCausalLM` loads a vision model with text model
    /// `model.language_model`: true for published Gemma 3, Gemma 4 and Mistral 3, not for Qwen 3.5.
    pub fn has_nested_text_model(&self) -> bool {
        let keys = self.read_text("config.json").ok();
        let keys: Option<serde_json::Value> =
            keys.and_then(|text| serde_json::from_str(&text).ok());
        keys.is_some_and(|keys| {
            let kind = keys["model_type"].as_str().unwrap_or_default();
            keys.get("text_config").is_some() && !kind.starts_with("qwen3_5")
        })
    }

    /// Parses `config.json`; the embedding is the head only if the weights have no other.
    ///
    /// # Errors
    /// A missing file or key, an unsupported architecture or feature.
    pub fn config(&self) -> Result<ModelConfig, HubError> {
        let mut config =
            ModelConfig::parse(&self.read_text("config.json")?, &self.label("config.json"))?;
        config.tie_word_embeddings = config.tie_word_embeddings && !self.has_own_head();
        Ok(config)
    }

    /// Quantization by `config.json`; `None` if unquantized or the file is missing.
    ///
    /// # Errors
    /// An unsupported quantization, or an unreadable file.
    pub fn quantization(&self) -> Result<Option<Quantization>, HubError> {
        if !self.exists("config.json") {
            return Ok(None);
        }
        let keys = serde_json::from_str(&self.read_text("config.json")?).unwrap_or_default();
        Quantization::parse(&keys, &self.label("config.json"))
    }

    pub fn open_file(&self, file: &str) -> Result<std::fs::File, HubError> {
        files::open(&self.folder().unwrap_or(Path::new("")).join(file))
            .map_err(|source| self.refused(file, source))
    }

    pub(super) fn open(&self, file: &str) -> Result<(Box<dyn std::io::Read + '_>, u64), HubError> {
        if self.folder().is_none() {
            let bytes = self.embedded_bytes(file);
            let bytes = bytes.ok_or_else(|| self.missing(file))?;
            return Ok((Box::new(bytes), bytes.len() as u64));
        }
        let opened = self.open_file(file)?;
        let metadata = opened.metadata();
        let metadata = metadata.map_err(|source| self.refused(file, source))?;
        Ok((Box::new(opened), metadata.len()))
    }

    fn missing(&self, file: &str) -> HubError {
        self.refused(file, std::io::ErrorKind::NotFound.into())
    }

    pub(super) fn refused(&self, file: &str, source: std::io::Error) -> HubError {
        let path = self.label(file);
        if source.kind() != std::io::ErrorKind::NotFound {
            return HubError::Read { path, source };
        }
        let remedy = match file {
            "config.json" => {
                "a model folder contains config.json, model.safetensors and tokenizer.json: check the folder, or fetch the model again"
            }
            _ => "the model is incomplete: fetch it again, or copy the file beside its config.json",
        };
        HubError::MissingFile {
            path,
            remedy: remedy.to_owned(),
        }
    }
}

impl std::fmt::Debug for ModelSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ModelSource")
            .field("name", &self.name)
            .field("folder", &self.folder())
            .finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_may_have_a_configuration_a_tokenizer_and_a_template() {
        let work = tempfile::tempdir().unwrap();
        let folder = |name: &str, files: &[&str]| {
            let path = work.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            for file in files {
                std::fs::write(path.join(file), name).unwrap();
            }
            ModelSource::at(name, &path)
        };
        let base = folder(
            "base",
            &[
                "config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json",
                "chat_template.jinja",
            ],
        );
        assert!(!base.is_adapter());
        // Source of each file; the base's template does not belong to the adapter's tokenizer.
        for (name, files, expected) in [
            ("plain", &[][..], ["base", "base", "base"]),
            (
                "template",
                &["chat_template.jinja"],
                ["base", "base", "template"],
            ),
            (
                "whole",
                &["tokenizer.json", "tokenizer_config.json"],
                ["whole", "whole", ""],
            ),
            ("config", &["tokenizer_config.json"], ["base", "config", ""]),
        ] {
            let adapter = folder(
                name,
                &[&["adapter_config.json", "config.json"], files].concat(),
            );
            assert!(adapter.is_adapter());
            let source = base.clone().with_tokenizer_of(&adapter);
            let found = [
                "tokenizer.json",
                "tokenizer_config.json",
                "chat_template.jinja",
            ]
            .map(|file| match source.exists(file) {
                true => source.read_text(file).unwrap(),
                false => String::new(),
            });
            assert_eq!(found, expected, "{name}");
            assert_eq!(source.read_text("config.json").unwrap(), "base");
        }
    }

    static FILES: &[(&str, &[u8])] = &[("config.json", b"{}"), ("tokenizer.json", b"\xff")];

    #[test]
    fn the_same_files_read_the_same_from_a_folder_and_from_the_binary() {
        let work = tempfile::tempdir().unwrap();
        for (name, bytes) in FILES {
            std::fs::write(work.path().join(name), bytes).unwrap();
        }
        for source in [
            ModelSource::embedded("tiny", FILES),
            ModelSource::at("tiny", work.path()),
        ] {
            assert_eq!(source.read("config.json").unwrap().as_ref(), b"{}");
            assert!(source.exists("tokenizer.json") && !source.exists("model.safetensors"));
            assert!(
                source
                    .read("absent.json")
                    .unwrap_err()
                    .to_string()
                    .contains("absent.json")
            );
            assert!(
                source
                    .read_text("tokenizer.json")
                    .unwrap_err()
                    .to_string()
                    .contains("not UTF-8 text (byte 0)")
            );
        }
    }
}
