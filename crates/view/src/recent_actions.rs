//! The actions last taken from the palette, which stand first in it; kept in a file of the data folder.

use std::path::PathBuf;

use super::message::{Command, Work};
use super::shared::Shared;
use crate::files::{self, Access};

const KEPT: usize = 12;

fn file(shared: &Shared) -> PathBuf {
    shared.options.data.join("recent-actions")
}

/// Reads those of earlier sessions.
pub(super) fn load(shared: &Shared) -> Command {
    let file = file(shared);
    Work::once(
        "palette.recent",
        move || files::read_text(&file).unwrap_or_default(),
        |_: &mut (), shared: &mut Shared, text| {
            let find = shared.find_action;
            shared.recent = text
                .lines()
                .filter_map(|id| Some(find(id)?.id))
                .take(KEPT)
                .collect();
            Vec::new()
        },
    )
}

/// Puts an action first.
pub(super) fn record(shared: &mut Shared, id: &'static str) -> Command {
    shared.recent.retain(|other| *other != id);
    shared.recent.insert(0, id);
    shared.recent.truncate(KEPT);
    let (file, text) = (file(shared), shared.recent.join("\n"));
    let write = move |_: &_| {
        // If the file cannot be written they last for the session, which needs no message.
        let Some(folder) = file.parent() else { return };
        if files::ensure_folder(folder, Access::Private).is_ok() {
            _ = files::replace_file(&file, text.as_bytes(), Access::Private);
        }
    };
    Work::latest("palette.recent", write, |_: &mut (), _, ()| Vec::new())
}
