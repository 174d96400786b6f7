//! Finds models: a folder, the Hugging Face cache, or bytes compiled into the binary.

mod cache;
mod config;
mod digest;
mod embedded;
mod layer_tensors;
mod local;
mod nf4;
mod pull;
mod python_json;
mod shapes;
mod source;
mod tied;
mod weights;

use std::path::{Path, PathBuf};

use sha2::Digest as _;

use self::embedded::EmbeddedModel;
pub use config::{
    Activation, Architecture, AttentionBias, ClampedGate, DecoderOptions, ExpertTensors, Experts,
    Fp8Scales, GatedDelta, GlobalHeads, KeysValues, LayerHeads, Mixer, ModelConfig, Quantization,
    RopeScaling, Scope, SharedLayers, SlidingWindow,
};
pub use layer_tensors::{
    Kind, ModelTensor, Role, TensorSpec, is_quantized, is_trained, tensor_name,
};
pub use local::{LocalModel, ModelPlace, local_models};
pub use nf4::{NF4_STATE, Nf4State};
pub use pull::{PullError, PullProgress, PullSettings, pull};
pub use shapes::{named_shape, shape_names};
pub use source::ModelSource;
pub use weights::{ELEMENT_TYPES, ExpertEntries, TensorEntry};

/// Why a model cannot be found or read, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Neither a folder, nor in the cache, nor embedded.
    #[error(
        "model `{name}` was not found: {looked}. Give a folder with config.json and model.safetensors, a Hugging Face name that is in the cache, or an embedded model ({})", embedded_model_names().collect::<Vec<_>>().join(", ")
    )]
    NotFound { name: String, looked: String },
    #[error("{path}: no such file; {remedy}")]
    MissingFile { path: String, remedy: String },
    #[error("{path}: {source}; check that the file exists and can be read")]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error("{path}: {problem}")]
    Config { path: String, problem: String },
    /// A well-formed model that cannot be computed here.
    #[error("{path}: {feature} is not supported; {remedy}")]
    Unsupported {
        path: String,
        feature: String,
        remedy: String,
    },
    #[error("{path}: {problem}")]
    Weights { path: String, problem: String },
}

pub fn embedded_model_names() -> impl Iterator<Item = &'static str> {
    embedded::MODELS.iter().map(|(name, _)| *name)
}

/// Resolves `name`: an embedded model, an existing folder, or a name in the Hugging Face cache.
///
/// # Errors
/// [`HubError::NotFound`] with every place searched.
pub fn find_model(name: &str) -> Result<ModelSource, HubError> {
    find_model_in(
        name,
        embedded::MODELS,
        &cache::cache_folders(|variable| std::env::var_os(variable)),
    )
}

fn find_model_in(
    name: &str,
    embedded: &[EmbeddedModel],
    caches: &[std::path::PathBuf],
) -> Result<ModelSource, HubError> {
    let not_found = |looked: String| HubError::NotFound {
        name: name.to_owned(),
        looked,
    };
    if let Some((name, files)) = embedded.iter().find(|(known, _)| *known == name) {
        return Ok(ModelSource::embedded(name, files));
    }
    let folder = Path::new(name);
    if folder.is_dir() {
        return Ok(ModelSource::at(name, folder));
    }
    if let Some(imported) = gguf_folder(folder) {
        let missing = || {
            not_found(format!(
                "not imported yet; run: grpo-tui model import {name}"
            ))
        };
        return if imported.is_dir() {
            Ok(ModelSource::at(name, &imported))
        } else {
            Err(missing())
        };
    }
    if folder.is_file() {
        return Err(not_found(
            "it is a file, and a model is a folder".to_owned(),
        ));
    }
    if let Some(snapshot) = caches.iter().find_map(|cache| cache::snapshot(cache, name)) {
        return Ok(ModelSource::at(name, &snapshot));
    }
    let places: Vec<String> = caches
        .iter()
        .map(|cache| cache.display().to_string())
        .collect();
    let looked = format!(
        "no folder of that name, and not in the Hugging Face cache ({})",
        places.join(", ")
    );
    // Models are named `organisation/name`; a bare name is more likely a mistyped folder or run.
    let is_model_name = name.contains('/')
        && caches
            .iter()
            .any(|cache| cache::repository(cache, name).is_some());
    let hint = if is_model_name {
        format!("; to fetch it, run: grpo-tui model pull {name}")
    } else {
        String::new()
    };
    Err(not_found(looked + &hint))
}

/// Import folder of a GGUF file in the user's cache; differs once the file or program changes.
/// `None` if it is not a GGUF file.
pub fn gguf_folder(file: &Path) -> Option<PathBuf> {
    let stem = file.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (path, about) = (
        file.canonicalize().ok()?,
        file.metadata().ok().filter(std::fs::Metadata::is_file)?,
    );
    let changed = about
        .modified()
        .ok()?
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?;
    let key = sha2::Sha256::digest(format!(
        "{} {} {} {changed:?}",
        env!("CARGO_PKG_VERSION"),
        path.display(),
        about.len()
    ));
    let key = crate::format::hex(&key[..8]);
    let cache = cache::user_cache(|variable| std::env::var_os(variable))?;
    Some(
        cache
            .join("grpo-tui")
            .join("models")
            .join(format!("{stem}-{key}")),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    static MODELS: &[EmbeddedModel] = &[("tiny", &[("config.json", b"{}")])];

    #[test]
    fn a_name_is_embedded_then_a_folder_then_the_cache() {
        let work = tempfile::tempdir().unwrap();
        let cache = work.path().join("hub");
        let snapshot = cache.join("models--org--name/snapshots/abc");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(cache.join("models--org--name/refs")).unwrap();
        std::fs::write(cache.join("models--org--name/refs/main"), "abc\n").unwrap();
        let folder = work.path().join("mine");
        std::fs::create_dir(&folder).unwrap();
        let caches = [cache];

        let check = |name: &str, embedded, expected: Option<&Path>| {
            let source = find_model_in(name, embedded, &caches).unwrap();
            assert_eq!((source.name.as_str(), source.folder()), (name, expected));
        };
        check("tiny", MODELS, None);
        check(folder.to_str().unwrap(), MODELS, Some(&folder));
        check("org/name", &[], Some(&snapshot));
    }

    #[test]
    fn what_is_not_there_is_said_with_the_places() {
        let work = tempfile::tempdir().unwrap();
        let file = work.path().join("model.safetensors");
        std::fs::write(&file, "x").unwrap();
        let caches = [work.path().join("hub")];
        let check = |name: &str, expected: &[&str]| {
            let message = find_model_in(name, &[], &caches).unwrap_err().to_string();
            for part in expected {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
        };
        check(
            "org/name",
            &[
                "`org/name`",
                "hub",
                "no folder of that name",
                "config.json",
                "to fetch it, run: grpo-tui model pull org/name",
            ],
        );
        check("../outside", &["`../outside`", "no folder"]);
        check(
            "tiny-s",
            &[
                "an embedded model (tiny, tiny-sql, tiny-tools, tiny-shell, tiny-python, tiny-assistant)",
            ],
        );
        check(
            file.to_str().unwrap(),
            &["is a file", "folder with config.json"],
        );
    }
}
