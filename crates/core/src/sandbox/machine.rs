//! The machine's isolation level, and what prevents a higher one.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use serde::Serialize;

use super::level::Level;
use super::messages::{Ended, Launch};
use super::program::SandboxedProgram;

/// Kernel settings that forbid user namespaces: file, value, remedy.
const REFUSALS: [(&str, &str, &str); 3] = [
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0` allows them",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "`sudo sysctl kernel.unprivileged_userns_clone=1` allows them",
    ),
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "`sudo sysctl user.max_user_namespaces=10000` allows them",
    ),
];
const IN_CONTAINER: &str = "in a container, `docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined` allows them";

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    pub level: Level,
    /// What prevents a higher level, with the remedy.
    pub reason: Option<String>,
}

/// Determined once per process.
pub fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let Err(why) = trial(Level::Strong) else {
            return Machine {
                level: Level::Strong,
                reason: None,
            };
        };
        let reads = |file: &str, value: &str| {
            crate::files::read_text(file.as_ref()).is_ok_and(|text| text.trim() == value) //
        };
        let refusal = REFUSALS.iter().find(|(file, value, _)| reads(file, value));
        let remedy = refusal.map_or(IN_CONTAINER, |(.., remedy)| remedy);
        let strong = format!("user namespaces are refused ({why}): {remedy}");
        match trial(Level::Limited) {
            Ok(()) => Machine {
                level: Level::Limited,
                reason: Some(strong),
            },
            Err(why) => Machine {
                level: Level::None,
                reason: Some(format!("{strong}; Landlock and seccomp: {why}")),
            },
        }
    })
}

/// A program's isolation on this machine, or why it cannot run. `block`: of `task.toml`, which
/// requires it.
pub(crate) fn isolation_text(asked: Option<Level>, block: &str) -> String {
    let machine = machine();
    let reason = machine.reason.as_deref().unwrap_or_default();
    match machine.level.for_asked(asked) {
        Some(level) if asked.is_none() && level < Level::Strong => {
            format!("{}: {}; {reason}", level.name(), level.summary())
        }
        Some(level) => format!("{}: {}", level.name(), level.summary()),
        None => {
            let (asked, given) = (asked.unwrap_or_default().name(), machine.level.name());
            format!(
                "{asked} is asked for, this machine gives {given}: {reason}; or accept less with `isolation = \"{given}\"` in {block}"
            )
        }
    }
}

fn trial(level: Level) -> Result<(), String> {
    let null = || {
        crate::files::open_null()
            .map(OwnedFd::from)
            .map_err(|error| format!("/dev/null: {error}"))
    };
    let launch = Launch {
        level,
        folder: "/".into(),
        ..Launch::default()
    };
    let mut program = SandboxedProgram::start(&launch, &[null()?, null()?, null()?])?;
    match program.ended(Duration::from_secs(10)) {
        Some(Ended { code: Some(0), .. }) => Ok(()),
        _ => Err("a trial fails".to_owned()),
    }
}
