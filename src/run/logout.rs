//! Whether a worker survives its user's logout: the answers of systemd-logind and the control group of the worker.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::folder::{user_id, user_name};
use super::subprocess::output_within;

const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// What a process belongs to, and so do the workers that it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessScope {
    /// A login session, by its unit's name.
    Session(String),
    /// The user's service manager.
    UserManager,
    /// A system service, a container or a batch job, which no logout ends.
    Elsewhere,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogoutPolicy {
    pub systemd: bool,
    /// Whether logind kills a user's processes at logout; `None` if it does not answer.
    pub kills: Option<bool>,
    /// Whether this user is exempt; `None` if logind does not answer.
    pub excepted: Option<bool>,
    /// Whether the user's services survive logout; `None` if logind does not answer.
    pub lingers: Option<bool>,
    /// Whether the user's service manager can be reached.
    pub user_bus: bool,
    pub home: ProcessScope,
    /// `tmux`, `screen` or `zellij`, if this process runs inside.
    pub multiplexer: Option<&'static str>,
}

impl LogoutPolicy {
    /// Detects the policy of this host.
    pub fn look() -> Self {
        let systemd = Path::new("/run/systemd/system").is_dir();
        let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let multiplexers = [("TMUX", "tmux"), ("STY", "screen"), ("ZELLIJ", "zellij")];
        let (manager, properties) =
            ("org.freedesktop.login1.Manager", ["KillUserProcesses", "KillOnlyUsers", "KillExcludeUsers"]);
        let bus = ["--json=short", "get-property", "org.freedesktop.login1", "/org/freedesktop/login1", manager];
        let logind =
            systemd.then(|| output_of("busctl", &[&bus[..], &properties[..]].concat(), COMMAND_TIMEOUT)).flatten();
        let (kills, excepted) = logind.map_or((None, None), |text| kill_policy(&text, &user_name(user_id())));
        let linger = || {
            output_of(
                "loginctl",
                &["show-user", &user_id().to_string(), "--property=Linger", "--value"],
                COMMAND_TIMEOUT,
            )
        };
        Self {
            systemd,
            kills,
            excepted,
            lingers: systemd.then(linger).flatten().and_then(|text| yes_or_no(&text)),
            user_bus: session.is_some_and(|folder| folder.join("bus").exists()),
            home: scope(&std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default()),
            multiplexer: multiplexers
                .into_iter()
                .find(|(name, _)| std::env::var_os(name).is_some())
                .map(|(_, name)| name),
        }
    }

    /// Whether a worker started from here survives logout.
    pub fn survives(&self) -> bool {
        match self.home {
            _ if !self.systemd => true,
            ProcessScope::Session(_) => self.excepted == Some(true) || self.kills == Some(false),
            ProcessScope::UserManager => self.lingers == Some(true),
            ProcessScope::Elsewhere => true,
        }
    }

    /// The policy in words, with what to do.
    pub fn sentence(&self) -> String {
        let remedy =
            "run `loginctl enable-linger`, then start them with `systemd-run --user --scope grpo-tui train … --detach`";
        let (verdict, why) = match (&self.home, self.survives()) {
            _ if !self.systemd => ("survive", "no systemd on this host".to_owned()),
            (ProcessScope::Elsewhere, _) => {
                ("survive", "not a login session (service, container or batch job)".to_owned())
            }
            (ProcessScope::UserManager, true) => ("survive", "your service manager lingers".to_owned()),
            (ProcessScope::UserManager, false) if self.lingers.is_none() => (
                "may die at",
                "logind does not say whether your service manager lingers; to be sure, run `loginctl enable-linger`"
                    .to_owned(),
            ),
            (ProcessScope::UserManager, false) => (
                "DIE at",
                "your service manager ends with your last session; enable it with `loginctl enable-linger`".to_owned(),
            ),
            (ProcessScope::Session(_), true) if self.kills == Some(false) => {
                ("survive", "KillUserProcesses=no".to_owned())
            }
            (ProcessScope::Session(_), true) => ("survive", "this user is excluded from KillUserProcesses".to_owned()),
            (ProcessScope::Session(session), false) if self.kills == Some(true) && self.excepted == Some(false) => {
                ("DIE at", format!("KillUserProcesses=yes ends all of {session}, tmux and screen included; {remedy}"))
            }
            (ProcessScope::Session(_), false) => {
                ("may die at", format!("logind does not say what it kills; to be sure, {remedy}"))
            }
        };
        format!("detached runs {verdict} logout: {why}")
    }
}

/// Parses busctl's answer, one JSON line per property: whether logind kills at logout, and whether this user is exempt.
fn kill_policy(answer: &str, user: &str) -> (Option<bool>, Option<bool>) {
    let mut data =
        answer.lines().map(|line| serde_json::from_str::<Value>(line).ok().map(|property| property["data"].clone()));
    let mut next = || data.next().flatten();
    let kills = next().and_then(|value| value.as_bool());
    let mut users =
        || Some(next()?.as_array()?.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect::<Vec<_>>());
    let (only, exclude) = (users(), users());
    let names = |list: &[String]| list.iter().any(|name| name == user);
    (kills, only.zip(exclude).map(|(only, exclude)| names(&exclude) || (!only.is_empty() && !names(&only))))
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// Returns a command's output; `None` if it does not exist, fails, or takes too long.
fn output_of(command: &str, arguments: &[&str], longest: Duration) -> Option<String> {
    let printed = output_within(Command::new(command).args(arguments), longest).ok()?;
    printed.is_success.then_some(printed.stdout)
}

fn scope(cgroup: &str) -> ProcessScope {
    let parts = || cgroup.lines().filter_map(|line| line.rsplit(':').next()).flat_map(|path| path.split('/'));
    let session = parts().find(|part| part.starts_with("session-") && part.ends_with(".scope"));
    match session {
        Some(session) => ProcessScope::Session(session.to_owned()),
        None if parts().any(|part| part.starts_with("user@") && part.ends_with(".service")) => {
            ProcessScope::UserManager
        }
        None => ProcessScope::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logind_answers() {
        let answer = |kills: &str, only: &str, exclude: &str| {
            format!(
                "{{\"type\":\"b\",\"data\":{kills}}}\n{{\"type\":\"as\",\"data\":[{only}]}}\n{{\"type\":\"as\",\"data\":[{exclude}]}}\n"
            )
        };
        let check = |text: &str, user: &str, expected| assert_eq!(kill_policy(text, user), expected, "{text:?} {user}");
        check(&answer("false", "", r#""root""#), "ann", (Some(false), Some(false)));
        check(&answer("true", "", r#""root","ann""#), "ann", (Some(true), Some(true)));
        check(&answer("true", r#""bob""#, ""), "ann", (Some(true), Some(true)));
        check(&answer("true", r#""bob""#, ""), "bob", (Some(true), Some(false)));
        check("", "ann", (None, None));
        check("Failed to connect to bus\n", "ann", (None, None));
        check("{\"type\":\"b\",\"data\":true}\n", "ann", (Some(true), None));
        assert_eq!(["yes\n", "no\n", "", "perhaps"].map(yes_or_no), [Some(true), Some(false), None, None]);
    }

    #[test]
    fn a_command_that_is_missing_fails_or_takes_too_long_answers_nothing() {
        let shell = |script: &str, longest| output_of("sh", &["-c", script], longest);
        let long = Duration::from_secs(60);
        assert_eq!(shell("echo yes", long).as_deref(), Some("yes\n"));
        assert_eq!((shell("echo yes; false", long), output_of("no-such-command", &[], long)), (None, None));
        assert_eq!(shell("exec sleep 600", Duration::ZERO), None);
    }

    #[test]
    fn scopes() {
        let check = |cgroup: &str, expected| assert_eq!(scope(cgroup), expected, "{cgroup}");
        check("0::/user.slice/user-1000.slice/session-3.scope\n", ProcessScope::Session("session-3.scope".to_owned()));
        check("0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-x.scope\n", ProcessScope::UserManager);
        check("0::/system.slice/slurmd.service\n", ProcessScope::Elsewhere);
        check("", ProcessScope::Elsewhere);
    }

    #[test]
    fn what_survives_is_said_in_words() {
        let facts = |kills, home, lingers, excepted| LogoutPolicy {
            systemd: true,
            kills,
            excepted,
            lingers,
            user_bus: true,
            home,
            multiplexer: None,
        };
        let session = || ProcessScope::Session("session-3.scope".to_owned());
        let check = |facts: LogoutPolicy, survives: bool, expected: &str| {
            assert!(
                facts.survives() == survives && facts.sentence().contains(expected),
                "{facts:?}: {}",
                facts.sentence()
            );
        };
        let (yes, no) = (Some(true), Some(false));
        check(
            facts(yes, session(), yes, no),
            false,
            "DIE at logout: KillUserProcesses=yes ends all of session-3.scope, tmux",
        );
        check(facts(yes, session(), no, yes), true, "survive logout: this user is excluded from KillUserProcesses");
        check(facts(no, session(), no, no), true, "survive logout: KillUserProcesses=no");
        check(facts(None, session(), no, None), false, "may die at logout: logind does not say");
        check(facts(yes, session(), no, None), false, "may die at logout: logind does not say");
        check(facts(yes, ProcessScope::UserManager, yes, no), true, "your service manager lingers");
        check(facts(None, ProcessScope::UserManager, no, no), false, "DIE at logout: your service manager ends");
        check(facts(None, ProcessScope::UserManager, None, no), false, "may die at logout: logind does not say");
        check(facts(yes, ProcessScope::Elsewhere, no, no), true, "not a login session");
        check(LogoutPolicy { systemd: false, ..facts(None, session(), no, None) }, true, "no systemd on this host");
    }
}
