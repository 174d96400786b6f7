//! What becomes of a worker when its user logs out of this host: what systemd-logind was told, and under which control group the worker would be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Under what this process, and a worker that it starts, lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessScope {
    /// A login session, by its unit's name.
    Session(String),
    /// The user's own service manager.
    UserManager,
    /// A system service, a container, a batch job: no logout reaches it.
    Elsewhere,
}

/// The facts that decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogoutPolicy {
    /// Whether systemd runs this host.
    pub systemd: bool,
    /// Whether logind ends what a user leaves behind; `None` where nothing says so.
    pub kills: Option<bool>,
    /// The file that says so.
    pub says: Option<PathBuf>,
    /// Whether this user is excepted.
    pub excepted: bool,
    /// Whether the user's services go on after logout.
    pub lingers: bool,
    /// Whether the user's service manager can be reached.
    pub user_bus: bool,
    /// Where this process lives.
    pub home: ProcessScope,
    /// `tmux`, `screen` or `zellij`, if this process is inside.
    pub multiplexer: Option<&'static str>,
}

impl LogoutPolicy {
    /// Look at this host.
    pub fn look() -> Self {
        let user = user_name();
        let settings = Settings::read(&read_configurations());
        let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let multiplexers = [("TMUX", "tmux"), ("STY", "screen"), ("ZELLIJ", "zellij")];
        Self {
            systemd: Path::new("/run/systemd/system").is_dir(),
            kills: settings.kills,
            says: settings.says.clone(),
            excepted: settings.excepts(&user),
            lingers: Path::new("/var/lib/systemd/linger").join(&user).exists(),
            user_bus: session.is_some_and(|folder| folder.join("bus").exists()),
            home: home(&std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default()),
            multiplexer: multiplexers.into_iter().find(|(name, _)| std::env::var_os(name).is_some()).map(|(_, name)| name),
        }
    }

    /// Whether a worker that is started from here goes on after logout.
    pub fn survives(&self) -> bool {
        match self.home {
            _ if !self.systemd => true,
            ProcessScope::Session(_) => self.excepted || self.kills == Some(false),
            ProcessScope::UserManager => self.lingers,
            ProcessScope::Elsewhere => true,
        }
    }

    /// The same in words, with what to do.
    pub fn sentence(&self) -> String {
        let says = self.says.as_ref().map_or_else(String::new, |path| format!(" ({})", path.display()));
        let remedy = "run `loginctl enable-linger`, then start them with `systemd-run --user --scope grpo-tui train … --detach`";
        match (&self.home, self.survives()) {
            _ if !self.systemd => "detached runs survive logout: no systemd on this host".to_owned(),
            (ProcessScope::Elsewhere, _) => {
                "detached runs survive logout: not a login session (service, container or batch job)".to_owned()
            }
            (ProcessScope::UserManager, true) => "detached runs survive logout: your service manager lingers".to_owned(),
            (ProcessScope::UserManager, false) => {
                "detached runs DIE at logout: your service manager ends with your last session; enable it with `loginctl enable-linger`"
                    .to_owned()
            }
            (ProcessScope::Session(_), true) if self.excepted => {
                format!("detached runs survive logout: this user is excluded from KillUserProcesses{says}")
            }
            (ProcessScope::Session(_), true) => format!("detached runs survive logout: KillUserProcesses=no{says}"),
            (ProcessScope::Session(session), false) if self.kills == Some(true) => {
                format!(
                    "detached runs DIE at logout: KillUserProcesses=yes ends all of {session}{says}, tmux and screen included; {remedy}"
                )
            }
            (ProcessScope::Session(_), false) => {
                format!("detached runs may die at logout: logind's KillUserProcesses is unknown here; to be sure, {remedy}")
            }
        }
    }
}

/// What logind was told about processes that a user leaves behind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    kills: Option<bool>,
    says: Option<PathBuf>,
    only: Vec<String>,
    except: Option<Vec<String>>,
}

impl Settings {
    /// Files in the order in which later ones win.
    fn read(files: &[(PathBuf, String)]) -> Self {
        let mut settings = Self::default();
        for (path, text) in files {
            let mut within = false;
            for line in text.lines().map(str::trim) {
                if line.starts_with('[') {
                    within = line == "[Login]";
                }
                // The shipped file names the built-in default in a comment.
                let (line, comment) = line.strip_prefix('#').map_or((line, false), |line| (line, true));
                let Some((name, value)) = line.split_once('=').filter(|_| within) else { continue };
                settings.take(path, name.trim(), value.trim(), comment);
            }
        }
        settings
    }

    fn take(&mut self, path: &Path, name: &str, value: &str, comment: bool) {
        let users = || value.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        match name {
            "KillUserProcesses" if !comment || self.kills.is_none() => {
                let kills = match value.to_lowercase().as_str() {
                    "yes" | "true" | "on" | "1" => true,
                    "no" | "false" | "off" | "0" => false,
                    _ => return,
                };
                (self.kills, self.says) = (Some(kills), Some(path.to_owned()));
            }
            "KillOnlyUsers" if !comment => self.only = users(),
            "KillExcludeUsers" if !comment => self.except = Some(users()),
            _ => {}
        }
    }

    fn excepts(&self, user: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|other| other == user);
        let except = self.except.as_ref().map_or(user == "root", |list| named(list));
        except || (!self.only.is_empty() && !named(&self.only))
    }
}

/// logind's files: the main one, then the drop-ins by name; one in /etc hides one of the same name further down.
fn read_configurations() -> Vec<(PathBuf, String)> {
    let folders = ["/usr/lib/systemd", "/run/systemd", "/etc/systemd"].map(PathBuf::from);
    let main = folders.iter().rev().map(|folder| folder.join("logind.conf")).find(|path| path.is_file());
    let mut drop_ins = BTreeMap::new();
    for folder in &folders {
        let Ok(entries) = std::fs::read_dir(folder.join("logind.conf.d")) else { continue };
        for entry in entries.flatten().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "conf")) {
            drop_ins.insert(entry.file_name(), entry.path());
        }
    }
    let files = main.into_iter().chain(drop_ins.into_values());
    files.filter_map(|path| std::fs::read_to_string(&path).ok().map(|text| (path, text))).collect()
}

fn home(cgroup: &str) -> ProcessScope {
    let parts = || cgroup.lines().filter_map(|line| line.rsplit(':').next()).flat_map(|path| path.split('/'));
    let session = parts().find(|part| part.starts_with("session-") && part.ends_with(".scope"));
    match session {
        Some(session) => ProcessScope::Session(session.to_owned()),
        None if parts().any(|part| part.starts_with("user@") && part.ends_with(".service")) => ProcessScope::UserManager,
        None => ProcessScope::Elsewhere,
    }
}

/// By the user's id, since the environment may name another one.
fn user_name() -> String {
    let id = super::control::user_id().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    named.or_else(|| std::env::var("USER").ok()).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(texts: &[&str]) -> Settings {
        let files: Vec<_> = texts.iter().enumerate().map(|(index, text)| (PathBuf::from(index.to_string()), (*text).to_owned())).collect();
        Settings::read(&files)
    }

    #[test]
    fn later_files_win_and_comments_are_defaults() {
        let check = |texts: &[&str], expected| assert_eq!(settings(texts).kills, expected, "{texts:?}");
        check(&[], None);
        check(&["[Login]\n#KillUserProcesses=no\n"], Some(false));
        check(&["[Login]\n#KillUserProcesses=no\n", "[Login]\nKillUserProcesses = yes\n"], Some(true));
        check(&["[Login]\nKillUserProcesses=yes\n", "[Login]\n#KillUserProcesses=no\n"], Some(true));
        check(&["[Manager]\nKillUserProcesses=yes\n"], None);
        check(&["[Login]\nKillUserProcesses=perhaps\n"], None);
    }

    #[test]
    fn excepted_users() {
        let check = |text: &str, user: &str, expected| assert_eq!(settings(&[text]).excepts(user), expected, "{text:?} {user}");
        check("", "root", true);
        check("", "ann", false);
        check("[Login]\nKillExcludeUsers=ann bob\n", "root", false);
        check("[Login]\nKillExcludeUsers=ann bob\n", "bob", true);
        check("[Login]\nKillOnlyUsers=bob\n", "ann", true);
        check("[Login]\nKillOnlyUsers=bob\n", "bob", false);
    }

    #[test]
    fn homes() {
        let check = |cgroup: &str, expected| assert_eq!(home(cgroup), expected, "{cgroup}");
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
            says: None,
            excepted,
            lingers,
            user_bus: true,
            home,
            multiplexer: None,
        };
        let session = || ProcessScope::Session("session-3.scope".to_owned());
        let check = |facts: LogoutPolicy, survives: bool, expected: &str| {
            assert!(facts.survives() == survives && facts.sentence().contains(expected), "{facts:?}: {}", facts.sentence());
        };
        check(facts(Some(true), session(), true, false), false, "DIE at logout: KillUserProcesses=yes ends all of session-3.scope, tmux");
        check(facts(Some(true), session(), false, true), true, "survive logout: this user is excluded from KillUserProcesses");
        check(facts(Some(false), session(), false, false), true, "survive logout: KillUserProcesses=no");
        check(facts(None, session(), false, false), false, "may die");
        check(facts(Some(true), ProcessScope::UserManager, true, false), true, "your service manager lingers");
        check(facts(None, ProcessScope::UserManager, false, false), false, "enable-linger");
        check(facts(Some(true), ProcessScope::Elsewhere, false, false), true, "not a login session");
        check(LogoutPolicy { systemd: false, ..facts(None, session(), false, false) }, true, "no systemd on this host");
    }
}
