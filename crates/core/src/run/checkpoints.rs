//! Names and lists checkpoints, and decides which to keep.

use std::path::{Path, PathBuf};

use crate::run::error::RunError;
use crate::run::storage::durable::entries;

/// Its presence marks a complete checkpoint.
pub const CHECKPOINT_MARK: &str = "trainer.json";

/// Relative to the run: `checkpoints/step-000050`.
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
///
/// # Errors
/// [`RunError::Io`] if the folder exists but cannot be read.
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

/// How many trained parameters a checkpoint has no files for, since they are those of the run's base: at the start of
/// full training. `None` if it has all.
pub fn base_parameter_count(checkpoint: &Path) -> Option<u64> {
    let text = crate::files::read_text(&checkpoint.join(CHECKPOINT_MARK)).ok()?;
    let state: serde_json::Value = serde_json::from_str(&text).ok()?;
    // The second is its name in older checkpoints.
    state
        .get("base_parameters")
        .or_else(|| state.get("numbers_of_base"))?
        .as_u64()
}

/// Returns the checkpoints to delete: all of `steps` but the latest `keep_last` (0 keeps all), step 0, the best and the
/// end.
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
