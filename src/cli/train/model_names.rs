//! Names of models as a run keeps them.

use std::path::Path;

use crate::checkpoint::ModelLocation;
use crate::cli::Failure;

/// A model's name as an absolute path, and with the exact checkpoint.
pub(super) fn exact_name(located: &ModelLocation, name: String) -> Result<String, Failure> {
    match located {
        ModelLocation::Run { run, step } => Ok(format!("{}@{step}", utf8_path(run.path())?)),
        ModelLocation::Model(source) | ModelLocation::Adapter(source)
            if source.folder().is_some() && Path::new(&name).exists() =>
        {
            utf8_path(&std::path::absolute(&name)?)
        }
        ModelLocation::Model(_) | ModelLocation::Adapter(_) => Ok(name),
    }
}

fn utf8_path(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Failure::failed(format!(
            "{}: path is not UTF-8: rename the folder",
            path.display()
        ))
    })
}
