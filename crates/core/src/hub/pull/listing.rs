//! Files of a model's repository at one commit, and those that a model needs.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::client::Client;
use super::stall_guard::{StallGuard, words};
use super::{PullError, PullSettings};
use crate::files;

/// Lists a sharded model's files.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Size limit of a listing.
const MAX_BYTES: u64 = 16 << 20;

/// Expected hash in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// Hash of files in large file storage.
    Sha256(String),
    /// SHA-1 of `blob SIZE\0` and the bytes, as in git.
    GitBlob(String),
}

impl Checksum {
    /// The file's name among the cache's blobs.
    pub(super) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteFile {
    pub(super) name: String,
    pub(super) size_bytes: u64,
    pub(super) checksum: Checksum,
}

#[derive(Debug)]
pub(super) struct Listing {
    name: String,
    pub(super) commit: String,
    files: Vec<RemoteFile>,
}

impl Listing {
    pub(super) fn fetch(
        client: &Client,
        settings: &PullSettings,
        name: &str,
    ) -> Result<Self, PullError> {
        let url = format!(
            "{}/api/models/{name}/revision/{}?blobs=true",
            client.endpoint, settings.revision
        );
        let response = client.get(&url, 0)?;
        if response.status() != 200 {
            return Err(client.status_error(&url, response.status().as_u16()));
        }
        let mut text = String::new();
        let broken = |error: std::io::Error| PullError::broken(&url, words(&error));
        StallGuard::new(response.into_body().into_reader(), settings)
            .take(MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(broken)?;
        let listing = Self::parse(name, &text)?;
        listing.require()?;
        Ok(listing)
    }

    /// Rejects a repository that is neither a model nor an adapter, before downloading.
    fn require(&self) -> Result<(), PullError> {
        let has = |name: &str| self.files.iter().any(|file| file.name == name);
        let bad = |problem: String| {
            Err(PullError::Listing {
                name: self.name.clone(),
                problem,
            })
        };
        let is_adapter = has("adapter_config.json") && has("adapter_model.safetensors");
        if !has("config.json") && !is_adapter {
            return bad(
                "it has no config.json, so it is not a transformers model: check the name and the revision".to_owned()
            );
        }
        if !has("tokenizer.json") && !is_adapter {
            return bad(
                "it has no tokenizer.json; take a revision with it, or save the tokenizer with transformers (`save_pretrained`) in a folder of your own"
                    .to_owned(),
            );
        }
        if !has(INDEX) {
            self.rest(None)?;
        }
        if let Some(large) = self
            .first()
            .find(|file| file.size_bytes > files::MAX_WHOLE_FILE_BYTES)
        {
            return bad(format!(
                "{} has {} bytes; at most {} are read of such a file",
                large.name,
                large.size_bytes,
                files::MAX_WHOLE_FILE_BYTES
            ));
        }
        Ok(())
    }

    fn parse(name: &str, text: &str) -> Result<Self, PullError> {
        let bad = |problem: &str| PullError::Listing {
            name: name.to_owned(),
            problem: format!("{problem}; check HF_ENDPOINT"),
        };
        let value: Value = serde_json::from_str(text)
            .map_err(|error| bad(&format!("the server's list of files is not JSON ({error})")))?;
        let commit = value
            .get("sha")
            .and_then(Value::as_str)
            .filter(|sha| is_hash(sha))
            .ok_or_else(|| bad("the server names no commit"))?;
        let siblings = value
            .get("siblings")
            .and_then(Value::as_array)
            .ok_or_else(|| bad("the server lists no files"))?;
        let files = siblings.iter().filter_map(parse_file).collect();
        Ok(Self {
            name: name.to_owned(),
            commit: commit.to_owned(),
            files,
        })
    }

    pub(super) fn url(&self, client: &Client, file: &RemoteFile) -> String {
        format!(
            "{}/{}/resolve/{}/{}",
            client.endpoint, self.name, self.commit, file.name
        )
    }

    /// Everything except weights.
    pub(super) fn first(&self) -> impl Iterator<Item = &RemoteFile> {
        self.files
            .iter()
            .filter(|file| !file.name.ends_with(".safetensors"))
    }

    /// Weight files: the shards of `index`, or the single file of a model or adapter.
    pub(super) fn rest(&self, index: Option<&Path>) -> Result<Vec<&RemoteFile>, PullError> {
        let bad = |problem: String| PullError::Listing {
            name: self.name.clone(),
            problem,
        };
        let find = |name: &str| self.files.iter().find(|file| file.name == name);
        let adapter = find("adapter_model.safetensors");
        if let Some(whole) = find("model.safetensors") {
            return Ok([Some(whole), adapter].into_iter().flatten().collect());
        }
        let Some(index) = index else {
            let none = || {
                bad("it has no safetensors weights, and other formats are not supported; use another revision or convert it with transformers"
                    .to_owned())
            };
            return Ok(vec![adapter.ok_or_else(none)?]);
        };
        let text = files::read_text(index).map_err(PullError::disk(index))?;
        let shards = super::super::weights::shard_names(&text, INDEX)?;
        shards
            .iter()
            .map(|shard| {
                find(shard).ok_or_else(|| {
                    bad(format!(
                        "{INDEX} names {shard}, which is not among its files"
                    ))
                })
            })
            .collect()
    }
}

/// Folder of further chat templates, the only one read.
const TEMPLATES: &str = "additional_chat_templates/";

/// A file that a model may need: not executable, not in a folder other than the templates'.
fn parse_file(sibling: &Value) -> Option<RemoteFile> {
    let name = sibling.get("rfilename")?.as_str()?;
    let is_wanted = [".safetensors", ".json", ".jinja"]
        .iter()
        .any(|ending| name.ends_with(ending))
        || ["tokenizer.model", "merges.txt"].contains(&name);
    let plain = match name.strip_prefix(TEMPLATES) {
        Some(template) if name.ends_with(".jinja") => template,
        _ => name,
    };
    let is_plain = !plain.starts_with('.')
        && plain
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !is_wanted || !is_plain {
        return None;
    }
    let large = sibling.get("lfs").filter(|lfs| !lfs.is_null());
    let hash = |value: Option<&Value>, length| {
        value
            .and_then(Value::as_str)
            .filter(|hash| is_hash(hash) && hash.len() == length)
            .map(str::to_lowercase)
    };
    let (size, checksum) = match large {
        Some(lfs) => (
            lfs.get("size"),
            Checksum::Sha256(hash(lfs.get("sha256").or_else(|| lfs.get("oid")), 64)?),
        ),
        None => (
            sibling.get("size"),
            Checksum::GitBlob(hash(sibling.get("blobId"), 40)?),
        ),
    };
    Some(RemoteFile {
        name: name.to_owned(),
        size_bytes: size.and_then(Value::as_u64)?,
        checksum,
    })
}

/// Hexadecimal, so safe as a file name.
fn is_hash(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn only_data_that_a_model_needs_is_listed() {
        let (small, large) = ("b".repeat(40), "c".repeat(64));
        let file = |name: &str| serde_json::json!({"rfilename": name, "size": 5, "blobId": small});
        let lfs = serde_json::json!({"rfilename": "model.safetensors", "size": 9, "blobId": small, "lfs": {"sha256": large, "size": 9}});
        let names = [
            "config.json",
            "chat_template.jinja",
            "merges.txt",
            "pytorch_model.bin",
            "modeling.py",
            "README.md",
            "onnx/model.json",
            "../x.json",
            ".a.json",
            "additional_chat_templates/tool_use.jinja",
            "additional_chat_templates/../x.jinja",
            "additional_chat_templates/x.json",
        ];
        let siblings: Vec<Value> = names.iter().map(|name| file(name)).chain([lfs]).collect();
        let listing = Listing::parse(
            "m",
            &serde_json::json!({"sha": "a".repeat(40), "siblings": siblings}).to_string(),
        )
        .unwrap();
        let first: Vec<&str> = listing.first().map(|file| file.name.as_str()).collect();
        assert_eq!(
            first,
            [
                "config.json",
                "chat_template.jinja",
                "merges.txt",
                "additional_chat_templates/tool_use.jinja"
            ]
        );
        let rest = listing.rest(None).unwrap();
        assert_eq!(
            (rest.len(), &rest[0].checksum, rest[0].size_bytes),
            (1, &Checksum::Sha256(large), 9)
        );
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        let check = |text: &str, expected: &str| {
            let message = Listing::parse("m", text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        };
        check("<html>", "not JSON");
        check("{}", "names no commit");
        check(r#"{"sha":"../../x"}"#, "names no commit");
        check(
            &format!(r#"{{"sha":"{}"}}"#, "a".repeat(40)),
            "lists no files",
        );
        let of = |names: &[&str]| {
            let file = |name: &&str| serde_json::json!({"rfilename": name, "size": 5, "blobId": "b".repeat(40)});
            let siblings: Vec<Value> = names.iter().map(file).collect();
            Listing::parse(
                "m",
                &serde_json::json!({"sha": "a".repeat(40), "siblings": siblings}).to_string(),
            )
            .unwrap()
        };
        let lacks = |names: &[&str], expected: &str| {
            let message = of(names).require().unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        };
        lacks(&["README.md", "model.safetensors"], "no config.json");
        lacks(
            &["config.json", "model.safetensors", "tokenizer.model"],
            "no tokenizer.json",
        );
        lacks(&["config.json", "tekken.json", INDEX], "no tokenizer.json");
        lacks(&["config.json", "tokenizer.json"], "no safetensors weights");
        of(&["config.json", "tokenizer.json", INDEX])
            .require()
            .unwrap();
        of(&["adapter_config.json", "adapter_model.safetensors"])
            .require()
            .unwrap();
        let empty = Listing::parse(
            "m",
            &format!(r#"{{"sha":"{}","siblings":[]}}"#, "a".repeat(40)),
        )
        .unwrap();
        assert!(
            empty
                .rest(None)
                .unwrap_err()
                .to_string()
                .contains("no safetensors weights")
        );
    }
}
