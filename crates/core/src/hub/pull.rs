//! Downloads a model into the Hugging Face cache as `hf` and transformers would, resumable and
//! checksummed.
//!
//! Own client: hf-hub 1.0 restarts broken downloads, has no stall timeout, verifies no checksum,
//! also reads a token from a file, and needs 270 crates.

mod blob;
mod client;
mod listing;
mod stall_guard;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::client::Client;
use self::listing::{Listing, RemoteFile};
use super::{ModelConfig, cache};
use crate::files::{self, Access};

/// Why a download failed. Received bytes are kept for the next attempt.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// A sentence for people.
    #[error("{0}")]
    Other(String),
    #[error("{url}: {problem}; run the same command again to continue{hint}")]
    Network {
        url: String,
        problem: String,
        hint: &'static str,
    },
    #[error("{name}: {problem}")]
    Listing { name: String, problem: String },
    #[error(
        "{path}: {source}; free space or set HF_HOME to another folder, then run the same command again"
    )]
    Disk {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0}")]
    Hub(#[from] super::HubError),
}

impl PullError {
    fn broken(url: &str, problem: String) -> Self {
        Self::Network {
            url: url.to_owned(),
            problem,
            hint: "",
        }
    }

    fn disk(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Disk {
            path: path.to_owned(),
            source,
        }
    }
}

#[derive(Clone)]
pub struct PullSettings {
    /// `https://huggingface.co`, or `HF_ENDPOINT`.
    pub endpoint: String,
    /// `HF_TOKEN`. Only sent to the endpoint, not along redirects to others, and never shown.
    pub token: Option<String>,
    pub cache: PathBuf,
    pub revision: String,
    /// Maximum silence of the server.
    pub stall: Duration,
    /// Minimum average over any `stall`, in bytes per second.
    pub lowest_rate: u64,
    /// Pause before the second attempt; doubled for each further one.
    pub pause: Duration,
    /// PEM file that replaces the built-in CAs (`SSL_CERT_FILE`).
    pub certificates: Option<PathBuf>,
}

impl PullSettings {
    pub fn from_environment() -> Result<Self, PullError> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, PullError> {
        let text = |name: &str| {
            variable(name)
                .and_then(|value| value.into_string().ok())
                .map(|value| value.trim().to_owned())
                .filter(|v| !v.is_empty())
        };
        Ok(Self {
            endpoint: text("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".to_owned())
                .trim_end_matches('/')
                .to_owned(),
            token: text("HF_TOKEN"),
            cache: cache::cache_folders(&variable)
                .into_iter()
                .next()
                .ok_or_else(|| {
                    PullError::Other("no folder for the Hugging Face cache: set HF_HOME".to_owned())
                })?,
            revision: "main".to_owned(),
            stall: Duration::from_secs(30),
            lowest_rate: 4096,
            pause: Duration::from_secs(1),
            certificates: text("SSL_CERT_FILE").map(PathBuf::from),
        })
    }
}

impl std::fmt::Debug for PullSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "set");
        formatter
            .debug_struct("PullSettings")
            .field("endpoint", &self.endpoint)
            .field("token", &token)
            .field("cache", &self.cache)
            .finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// Received bytes of all files, earlier attempts included.
    pub done_bytes: u64,
    pub total_bytes: u64,
}

fn no_name(name: &str) -> PullError {
    PullError::Other(format!(
        "`{name}` is not a model name: names look like `Qwen/Qwen3-8B`, revisions like `main`, `v1.0` or a commit"
    ))
}

/// Downloads `name` and returns its folder. Only safetensors, JSON, templates and tokenizers; the
/// configuration first, so that an unsupported model costs nothing.
pub fn pull(
    name: &str,
    settings: &PullSettings,
    on_progress: &mut dyn FnMut(PullProgress),
) -> Result<PathBuf, PullError> {
    let repository = cache::repository(&settings.cache, name).ok_or_else(|| no_name(name))?;
    let revision = &settings.revision;
    if revision.is_empty()
        || revision.starts_with('.')
        || !revision
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    {
        return Err(no_name(&format!("{name} at revision {revision}")));
    }
    let client = Client::new(settings)?;
    let listing = Listing::fetch(&client, settings, name)?;
    let blobs = repository.join("blobs");
    make_folder(&blobs)?;
    let fetch = |file: &RemoteFile, on_progress: &mut dyn FnMut(u64)| {
        blob::fetch(
            &client,
            settings,
            &listing.url(&client, file),
            file,
            &blobs,
            on_progress,
        )
    };

    let mut done = Vec::new();
    for file in listing.first() {
        let path = fetch(file, &mut |_| ())?;
        if file.name == "config.json" {
            let text = files::read_text(&path).map_err(PullError::disk(&path))?;
            ModelConfig::parse(&text, &format!("{name}/config.json"))?;
        }
        done.push((file.name.clone(), path));
    }
    let index = done
        .iter()
        .find(|(file, _)| file == listing::INDEX)
        .map(|(_, path)| path.clone());
    let rest = listing.rest(index.as_deref())?;
    let arrived = |files: &[&RemoteFile]| files.iter().map(|file| file.size_bytes).sum::<u64>();
    let first: Vec<&RemoteFile> = listing.first().collect();
    let total_bytes = arrived(&first) + arrived(&rest);
    let mut done_bytes = arrived(&first);
    for file in &rest {
        let path = fetch(file, &mut |bytes| {
            on_progress(PullProgress {
                done_bytes: done_bytes + bytes,
                total_bytes,
            })
        })?;
        done_bytes += file.size_bytes;
        on_progress(PullProgress {
            done_bytes,
            total_bytes,
        });
        done.push((file.name.clone(), path));
    }
    publish(&repository, &listing.commit, &settings.revision, &done)
}

/// Creates the snapshot's links, then the revision's name: a visible snapshot is complete.
fn publish(
    repository: &Path,
    commit: &str,
    revision: &str,
    files: &[(String, PathBuf)],
) -> Result<PathBuf, PullError> {
    let snapshot = repository.join("snapshots").join(commit);
    make_folder(&snapshot)?;
    for (name, blob) in files {
        let link = snapshot.join(name);
        let hash = blob.file_name().unwrap_or_default();
        link.parent().map_or(Ok(()), make_folder)?;
        // Relative path from the file's folder to the repository's.
        let up: PathBuf = Path::new(name).components().map(|_| "..").collect();
        let target = up.join("..").join("blobs").join(hash);
        if std::fs::read_link(&link).is_ok_and(|found| found == target) {
            continue;
        }
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&target, &link).map_err(PullError::disk(&link))?;
    }
    let refs = repository.join("refs");
    make_folder(&refs)?;
    let path = refs.join(revision);
    files::replace_file(&path, commit.as_bytes(), Access::Umask).map_err(PullError::disk(&path))?;
    Ok(snapshot)
}

fn make_folder(path: &Path) -> Result<(), PullError> {
    std::fs::create_dir_all(path).map_err(PullError::disk(path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_and_the_token_never_shown() {
        let settings = |set: &'static [(&'static str, &'static str)]| {
            PullSettings::from_variables(move |name| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| OsString::from(value))
            })
        };
        let plain = settings(&[("HOME", "/h")]).unwrap();
        assert_eq!(
            (plain.endpoint.as_str(), plain.token.as_deref()),
            ("https://huggingface.co", None)
        );
        assert_eq!(plain.cache, Path::new("/h/.cache/huggingface/hub"));
        let own = settings(&[
            ("HF_HOME", "/f"),
            ("HF_ENDPOINT", "http://mirror:8080/"),
            ("HF_TOKEN", " hf_secret\n"),
        ])
        .unwrap();
        assert_eq!(
            (own.endpoint.as_str(), own.token.as_deref()),
            ("http://mirror:8080", Some("hf_secret"))
        );
        assert_eq!(own.cache, Path::new("/f/hub"));
        assert!(!format!("{own:?}").contains("hf_secret"));
        assert!(
            settings(&[])
                .unwrap_err()
                .to_string()
                .contains("set HF_HOME")
        );
    }
}
