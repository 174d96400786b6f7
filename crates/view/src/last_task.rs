//! The task that was opened last in each folder where the view was started; kept in a file of the data folder.

use std::path::{Path, PathBuf};

use super::task_files;
use crate::files::{self, Access};
use crate::score::Task;
use crate::task::TASK_FILE;

const FILE: &str = "last-tasks.json";
/// The most folders remembered.
const MAX_FOLDERS: usize = 50;

/// A folder where the view was started, and its task: an absolute folder, or the name of an embedded task.
type Entry = (PathBuf, String);

fn entries(data: &Path) -> Vec<Entry> {
    let text = files::read_text(&data.join(FILE)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// The task that was opened last in `here`: its folder, or the name of an embedded one; `None` if there was none, or it
/// is gone.
pub(super) fn load(data: &Path, here: &Path) -> Option<String> {
    let (_, task) = entries(data)
        .into_iter()
        .find(|(folder, _)| folder == here)?;
    let folder = Path::new(&task);
    if folder.is_absolute() {
        return folder.join(TASK_FILE).is_file().then_some(task);
    }
    // Once an embedded task has been edited its copy is opened.
    let copy = task_files::copy_of(&task, data).map(|copy| copy.display().to_string());
    copy.or_else(|| Task::embedded(&task).is_ok().then_some(task))
}

/// Remembers the task that was opened in `here`. Without the file the next session opens the first task, which is not
/// worth a message.
pub(super) fn save(data: &Path, here: &Path, task: &Task) {
    let mut entries = entries(data);
    let name = task.folder().map_or_else(
        || task.name.clone(),
        |folder| here.join(folder).display().to_string(),
    );
    if entries
        .first()
        .is_some_and(|first| *first == (here.to_owned(), name.clone()))
    {
        return;
    }
    entries.retain(|(folder, _)| folder != here);
    entries.insert(0, (here.to_owned(), name));
    entries.truncate(MAX_FOLDERS);
    let Ok(text) = serde_json::to_vec(&entries) else {
        return;
    };
    if files::ensure_folder(data, Access::Private).is_ok() {
        _ = files::replace_file(&data.join(FILE), &text, Access::Private);
    }
}
