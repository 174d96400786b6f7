//! Names and lists checkpoints, and decides which to keep.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::Deserialize;

use crate::files::{self, Checked};
use crate::run::error::RunError;
use crate::run::storage::durable::{entries, sync_folder};

/// Its presence marks a complete checkpoint.
pub const CHECKPOINT_MARK: &str = "trainer.json";

pub fn checkpoint_folder(step: u64) -> String {
    format!("checkpoints/step-{step:06}")
}

/// Parses a folder's name; `None` for temporary and other names.
pub fn checkpoint_step(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("step-")?;
    let step = (digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())??;
    (name == format!("step-{step:06}")).then_some(step)
}

/// The steps of the complete checkpoints, ascending.
pub fn list_checkpoints(run: &Path) -> Result<Vec<u64>, RunError> {
    let mut steps = Vec::new();
    for entry in entries(&run.join("checkpoints"))? {
        if let Some(step) = checkpoint_step(&entry.file_name().to_string_lossy())
            && entry.path().join(CHECKPOINT_MARK).is_file()
        {
            steps.push(step);
        }
    }
    steps.sort_unstable();
    Ok(steps)
}

pub fn checkpoint_path(run: &Path, step: u64) -> PathBuf {
    run.join(checkpoint_folder(step))
}

/// Number of trained parameters that are missing from a checkpoint because they equal the base's:
/// at the start of full training. `None` if none is missing.
pub fn base_parameter_count(checkpoint: &Path) -> Option<u64> {
    let text = crate::files::read_text(&checkpoint.join(CHECKPOINT_MARK)).ok()?;
    let state: serde_json::Value = serde_json::from_str(&text).ok()?;
    // The second name was used in older checkpoints.
    state
        .get("base_parameters")
        .or_else(|| state.get("numbers_of_base"))?
        .as_u64()
}

/// Verifies `trainer.json` and, of the files whose digests it lists, those selected by `is_read`.
/// Returns whether it has digests; for a checkpoint of an older program, which has none, only
/// `trainer.json` is read.
///
/// # Errors
/// [`RunError::Malformed`] naming the first damaged or missing file, [`RunError::Io`] if a file
/// cannot be read.
pub fn verify_checkpoint(folder: &Path, is_read: impl Fn(&str) -> bool) -> Result<bool, RunError> {
    #[derive(Deserialize)]
    struct Digests {
        files: Option<BTreeMap<String, String>>,
    }
    let mark = folder.join(CHECKPOINT_MARK);
    let text = files::read(&mark).map_err(RunError::io("read", &mark))?;
    let damaged = |path: &Path, why: &str| RunError::malformed(path, why);
    let unchecked = match files::check(&text) {
        Checked::Damaged => return Err(damaged(&mark, "the file does not match its checksum")),
        checked => checked == Checked::Without,
    };
    let found: Digests =
        serde_json::from_slice(&text).map_err(|error| RunError::malformed(&mark, error))?;
    let Some(digests) = found.files else {
        return Ok(false);
    };
    if unchecked {
        return Err(damaged(&mark, "the file has lost its checksum"));
    }
    let read: Vec<(&String, &String)> = digests.iter().filter(|(name, _)| is_read(name)).collect();
    read.par_iter().try_for_each(|(name, digest)| {
        let path = folder.join(name);
        match files::digest_file(&path) {
            Ok(found) if found == **digest => Ok(()),
            Ok(_) => Err(damaged(
                &path,
                "the file does not match its digest in trainer.json",
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(damaged(&path, "the file is missing"))
            }
            Err(error) => Err(RunError::io("read", &path)(error)),
        }
    })?;
    Ok(true)
}

/// Renames the newest checkpoints, back to the first intact one, so that nothing reads them;
/// describes the damage of each. Requires the run's lock.
pub fn set_aside_damaged(run: &Path) -> Result<Vec<String>, RunError> {
    let mut damaged = Vec::new();
    for step in list_checkpoints(run)?.into_iter().rev() {
        let folder = checkpoint_path(run, step);
        match verify_checkpoint(&folder, |_| true) {
            Ok(_) => break,
            Err(error @ RunError::Malformed { .. }) => damaged.push(set_aside(run, step, &error)?),
            Err(error) => return Err(error),
        }
    }
    Ok(damaged)
}

/// Renames a damaged checkpoint so that nothing reads it; describes the damage. Requires the run's
/// lock.
pub fn set_aside(run: &Path, step: u64, damage: &RunError) -> Result<String, RunError> {
    let (folder, name) = (
        checkpoint_path(run, step),
        format!("{}.damaged", checkpoint_folder(step)),
    );
    let aside = run.join(&name);
    if aside.exists() {
        std::fs::remove_dir_all(&aside).map_err(RunError::io("remove", &aside))?;
    }
    std::fs::rename(&folder, &aside).map_err(RunError::io("rename", &folder))?;
    sync_folder(&run.join("checkpoints"))?;
    Ok(format!(
        "{damage}; the checkpoint of step {step} is now {name}"
    ))
}

/// Returns the checkpoints to delete: all of `steps` except the latest `keep_last` (0 keeps all),
/// step 0, the best and the last.
pub fn checkpoints_to_delete(
    steps: &[u64],
    keep_last: usize,
    best: Option<u64>,
    end: Option<u64>,
) -> Vec<u64> {
    if keep_last == 0 {
        return Vec::new();
    }
    let mut sorted = steps.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let older = sorted.len().saturating_sub(keep_last);
    sorted.truncate(older);
    sorted.retain(|step| *step != 0 && Some(*step) != best && Some(*step) != end);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |name: &str, expected: Option<u64>| {
            assert_eq!(checkpoint_step(name), expected, "{name}")
        };
        check("step-000050", Some(50));
        check("step-1234567", Some(1_234_567));
        check("step-50", None);
        check("step-0000050", None);
        check("step-000050.tmp", None);
        check(".step-000050", None);
        check("step-00005x", None);
        assert_eq!(checkpoint_folder(50), "checkpoints/step-000050");
    }

    #[test]
    fn keep_rules() {
        let check = |steps: &[u64], keep, best, end, expected: &[u64]| {
            assert_eq!(
                checkpoints_to_delete(steps, keep, best, end),
                expected,
                "{steps:?} keep {keep} best {best:?} end {end:?}"
            );
        };
        let all = [0, 10, 20, 30, 40];
        check(&all, 0, None, None, &[]);
        check(&all, 1, None, None, &[10, 20, 30]);
        check(&all, 2, None, None, &[10, 20]);
        check(&all, 1, Some(20), None, &[10, 30]);
        check(&all, 1, Some(0), Some(10), &[20, 30]);
        check(&all, 9, None, None, &[]);
        check(&[40, 10, 10, 30], 1, None, None, &[10, 30]);
        check(&[], 3, None, None, &[]);
        check(&[0], 1, None, None, &[]);
    }
}
