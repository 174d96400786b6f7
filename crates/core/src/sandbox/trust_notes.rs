//! Programs that the user trusts: a file each, named by digest.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

/// SHA-256 over lists of texts. Lists and texts are length-prefixed, so the encoding is injective.
#[derive(Debug, Default)]
pub(crate) struct ProgramDigest(Sha256);

impl ProgramDigest {
    pub(crate) fn add(&mut self, texts: &[&[u8]]) {
        self.0.update((texts.len() as u64).to_le_bytes());
        for text in texts {
            self.0.update((text.len() as u64).to_le_bytes());
            self.0.update(text);
        }
    }

    pub(crate) fn hex(self) -> String {
        crate::format::hex(&self.0.finalize())
    }
}

pub(crate) fn trust_folder() -> Option<PathBuf> {
    let folders = directories::ProjectDirs::from("", "", "grpo-tui")?;
    Some(
        folders
            .state_dir()
            .unwrap_or_else(|| folders.data_dir())
            .join("trusted-commands"),
    )
}

pub(crate) fn is_trusted(digest: &str) -> bool {
    trust_folder().is_some_and(|folder| {
        std::fs::symlink_metadata(folder.join(digest)).is_ok_and(|found| found.is_file()) //
    })
}
