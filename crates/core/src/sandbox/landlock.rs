//! Landlock: confines files, signals and abstract sockets without namespaces.

use std::io::{Error, ErrorKind, Result};
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope, path_beneath_rules,
};

use super::root::{DEVICES, SYSTEM_FILES, SYSTEM_FOLDERS};

/// Newest version used; older kernels ignore unknown rights.
const NEWEST: ABI = ABI::V10;
const KERNEL_FILES: [&str; 4] = ["/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat"];

/// Lets this process and its children read system programs and `visible`, and write only below
/// `writable`.
///
/// # Errors
/// A kernel without Landlock.
pub(super) fn restrict(visible: &[PathBuf], writable: &[PathBuf]) -> Result<()> {
    let outcome = restricted(visible, writable).map_err(Error::other)?;
    if outcome == RulesetStatus::NotEnforced {
        return Err(ErrorKind::Unsupported.into());
    }
    Ok(())
}

fn restricted(
    visible: &[PathBuf],
    writable: &[PathBuf],
) -> std::result::Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::from_read(NEWEST);
    let ruleset = Ruleset::default()
        .handle_access(all)?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let system = SYSTEM_FOLDERS
        .iter()
        .chain(SYSTEM_FILES)
        .chain(&KERNEL_FILES);
    let ruleset = ruleset
        .add_rules(path_beneath_rules(system, read))?
        .add_rules(path_beneath_rules(visible, read))?
        .add_rules(path_beneath_rules(DEVICES, read | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(writable, all))?;
    Ok(ruleset.restrict_self()?.ruleset)
}
