//! Test sets that this process does not show: `grpo-tui mcp` names their files to the commands that it runs for an agent.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;

use parking_lot::RwLock;

/// Environment variable with `DEVICE:INODE` of each file, separated by spaces. If it is set, even to nothing, tasks have no
/// test set and runs no results on one.
pub const HIDDEN_FILES: &str = "GRPO_TUI_HIDDEN_FILES";

/// Device and inode: a file under all of its names.
pub type FileId = (u64, u64);

static HIDDEN: LazyLock<RwLock<Option<BTreeSet<FileId>>>> = LazyLock::new(|| {
    let id = |text: &str| {
        let (device, inode) = text.split_once(':')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    };
    let text = std::env::var(HIDDEN_FILES).ok();
    RwLock::new(text.map(|text| text.split(' ').filter_map(id).collect()))
});

pub fn file_id(found: &Metadata) -> FileId {
    (found.dev(), found.ino())
}

/// Hides files from this process, and test sets altogether. Returns the value of [`HIDDEN_FILES`] for its children.
pub fn hide_files(files: BTreeSet<FileId>) -> String {
    let text = files
        .iter()
        .map(|(device, inode)| format!("{device}:{inode}"));
    let text = text.collect::<Vec<_>>().join(" ");
    *HIDDEN.write() = Some(files);
    text
}

pub fn hides_test_sets() -> bool {
    HIDDEN.read().is_some()
}

pub(super) fn refuse_hidden(found: &Metadata) -> std::io::Result<()> {
    let hidden = HIDDEN.read();
    match hidden
        .as_ref()
        .is_some_and(|hidden| hidden.contains(&file_id(found)))
    {
        true => Err(std::io::Error::other(
            "this is a test set, which an agent does not read: use train or eval rows",
        )),
        false => Ok(()),
    }
}
