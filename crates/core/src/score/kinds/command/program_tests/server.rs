//! A warm sandboxed Python that runs cases of answers in separate processes (`server.py`).

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::cases::{Case, CaseKind};
use crate::exact_json;
use crate::sandbox::{Level, LineProgram, Lost, ProgramFiles, START_TIMEOUT};
use crate::score::needs::CommandRules;

const SCRIPT: &str = include_str!("server.py");
/// A server enforces time limits itself, unless the answer prevents it.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Server(LineProgram);

#[derive(Debug, Default, Deserialize)]
pub(super) struct Reply {
    pub(super) syntax: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub(super) value: Option<Value>,
    pub(super) stdout: Option<String>,
    /// Exit code of a program; negative: the signal.
    pub(super) code: Option<i32>,
    pub(super) raised: Option<String>,
    /// Exit code of a process that ended without a reply.
    pub(super) ended: Option<i32>,
    #[serde(default)]
    pub(super) late: bool,
    #[serde(default)]
    pub(super) long: bool,
    /// It started too many processes.
    #[serde(default)]
    pub(super) many: bool,
    #[serde(default)]
    pub(super) passed: bool,
    pub(super) failed: Option<String>,
    /// `exception`: other than a failed assertion; `ended`: the answer's process is gone.
    pub(super) kind: Option<String>,
    pub(super) broken: Option<String>,
    /// Line of the answer, or of the failed tests.
    #[serde(default)]
    pub(super) line: usize,
    #[serde(default)]
    pub(super) column: usize,
    #[serde(default)]
    pub(super) source: String,
    /// Last call of the answer's functions, with its result.
    pub(super) last: Option<String>,
    #[serde(default)]
    pub(super) stderr: String,
}

impl Reply {
    fn read(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        serde_json::from_str(&exact_json::mark(line)).ok()
    }

    pub(super) fn is_last(&self) -> bool {
        self.syntax.is_some() || self.late || self.long || self.many
    }
}

/// Distinguishes `null`, which is a value, from a missing field.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Server {
    pub(super) fn start(
        rules: &CommandRules,
        files: &ProgramFiles,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Self, String> {
        Self::start_script(SCRIPT, rules, files, keep_going)
    }

    fn start_script(
        script: &str,
        rules: &CommandRules,
        files: &ProgramFiles,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Self, String> {
        let is_warm = files.sandbox.level == Level::Strong;
        let own = [
            "-I",
            "-X",
            "utf8",
            "-c",
            script,
            if is_warm { "warm" } else { "once" },
        ];
        let command: Vec<String> = rules
            .command
            .iter()
            .cloned()
            .chain(own.map(str::to_owned))
            .collect();
        let mut program = LineProgram::start(files, &command, &[])?;
        let interpreter = &command[0];
        match program.line(Instant::now() + START_TIMEOUT, usize::MAX, keep_going) {
            Ok(line) if line == b"ready" => Ok(Self(program)),
            Ok(line) => Err(format!(
                "{interpreter} says {:?}",
                String::from_utf8_lossy(&line[..line.len().min(200)])
            )),
            Err(Lost::Ended(why)) => Err(format!("{interpreter} {why}")),
            Err(_) => Err(format!(
                "{interpreter} does not start within {} s",
                START_TIMEOUT.as_secs()
            )),
        }
    }

    /// Replies to the first cases, of which the last may skip the others, and whether the server is
    /// reusable.
    pub(super) fn ask(
        &mut self,
        rules: &CommandRules,
        source: &str,
        cases: &[Case<'_>],
        keep_going: &dyn Fn() -> bool,
    ) -> Result<(Vec<Reply>, bool), Lost> {
        let most = rules.output_bytes();
        let mut head = format!("{} {} {most}", source.len(), rules.seconds);
        let mut data = source.as_bytes().to_vec();
        for case in cases {
            let (kind, asked) = match &case.test {
                CaseKind::Call {
                    entry, arguments, ..
                } => ("call", json!({"entry": entry, "args": arguments})),
                CaseKind::Run {
                    arguments, stdin, ..
                } => ("run", json!({"args": arguments, "stdin": stdin})),
                CaseKind::Code {
                    tests,
                    entry,
                    before,
                } => (
                    "test",
                    json!({"tests": tests, "entry": entry, "before": before}),
                ),
            };
            let asked = exact_json::write(&asked);
            head += &format!(" {kind}:{}", asked.len());
            data.extend_from_slice(asked.as_bytes());
        }
        self.0.send(&[head.as_bytes(), b"\n", &data].concat());
        // In JSON a byte may take six, and output may exceed its limit by one read.
        let most = most.saturating_add(1 << 17).saturating_mul(6);
        let mut replies = Vec::new();
        loop {
            let until = Instant::now() + Duration::from_secs_f64(rules.seconds) + GRACE;
            let line = self.0.line(until, most, keep_going)?;
            match line.as_slice() {
                b"clean" => return Ok((replies, true)),
                b"used" => return Ok((replies, false)),
                // Only an answer can cause unreadable lines: half a character, endlessly nested
                // lists.
                line => replies.push(Reply::read(line).unwrap_or_else(|| Reply {
                    raised: Some("it gave a value that cannot be read".to_owned()),
                    ..Reply::default()
                })),
            }
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct ServerPool(Mutex<Vec<Server>>);

impl ServerPool {
    /// Runs an answer's cases on a server; retries on a new one if the first ends, as the machine
    /// may have killed it.
    pub(super) fn ask(
        &self,
        rules: &CommandRules,
        files: &ProgramFiles,
        source: &str,
        cases: &[Case<'_>],
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Result<Vec<Reply>, Lost>, String> {
        let idle = self.0.lock().pop();
        let mut server = match idle {
            Some(server) => server,
            None => Server::start(rules, files, keep_going)?,
        };
        let mut replied = server.ask(rules, source, cases, keep_going);
        if matches!(replied, Err(Lost::Ended(_))) {
            server = Server::start(rules, files, keep_going)?;
            replied = server.ask(rules, source, cases, keep_going);
        }
        Ok(replied.map(|(replies, is_clean)| {
            if is_clean {
                self.0.lock().push(server);
            }
            replies
        }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Attacks of an answer on its own or the next verdict; each succeeds if its protection is
    //! removed from the server.

    use std::path::Path;

    use super::*;
    use crate::score::needs::{CommandMode, TestRules};

    /// Writes a reply into every descriptor of visible processes.
    const FORGES: &str = "import os\nfor process in os.listdir('/proc'):\n    if process.isdecimal() and process != str(os.getpid()):\n        try:\n            with open(f'/proc/{process}/fd/1', 'wb', 0) as end: end.write(b'{\"value\": 4}\\nclean\\n')\n        except OSError: pass\ndef f(x): return 5\n";
    const READS: &str = "import os\ndef f(x):\n    for process in os.listdir('/proc'):\n        try:\n            if process.isdecimal() and process != str(os.getpid()): return len(open(f'/proc/{process}/mem', 'rb').name) and 4\n        except OSError: pass\n";
    const LEAVES_PROCESS: &str = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(60)\n    os._exit(0)\nos.wait()\ndef f(x): return 0\n";
    const FINDS_PROCESS: &str = "import os\ndef f(x): return 4 * (sum(name.isdecimal() for name in os.listdir('/proc')) > 4)\n";
    const LEAVES_FILE: &str = "open('/tmp/home/left', 'w').write('4')\ndef f(x): return 0\n";
    const FINDS_FILE: &str = "import os\ndef f(x): return 4 * os.path.exists('/tmp/home/left')\n";

    fn rules() -> CommandRules {
        let tests = TestRules { takes_fence: true };
        CommandRules {
            command: vec!["python3".to_owned()],
            files: Vec::new(),
            mode: CommandMode::Tests(tests),
            processes: 1,
            seconds: 20.0,
            memory_mib: 1_024,
            max_processes: None,
            output_kib: 64,
            isolation: None,
            read: Vec::new(),
        }
    }

    /// Whether consecutive answers get the value 4 for the last one, on a server with this script.
    fn succeeds(script: &str, answers: &[&str]) -> bool {
        let (rules, arguments, value) = (rules(), [Value::from(2)], Value::from(4));
        let files = ProgramFiles::new(
            Path::new("/"),
            Vec::new(),
            Vec::new(),
            rules.sandbox(Path::new("/"), Level::Strong),
        );
        let test = CaseKind::Call {
            entry: "f",
            arguments: &arguments,
            value: &value,
        };
        let cases = [Case {
            test,
            is_hidden: false,
        }];
        let start = || Server::start_script(script, &rules, &files, &|| true).unwrap();
        let (mut server, mut found) = (start(), None);
        for answer in answers {
            let replied = server.ask(&rules, answer, &cases, &|| true);
            found = replied
                .as_ref()
                .ok()
                .and_then(|(replies, _)| replies.first()?.value.clone());
            if !matches!(replied, Ok((_, true))) {
                server = start();
            }
        }
        found == Some(value)
    }

    #[test]
    #[cfg_attr(
        not(all(has_python, can_isolate)),
        ignore = "needs python3 in PATH and user namespaces"
    )]
    fn an_answer_changes_neither_its_own_verdict_nor_the_next() {
        let dumpable = (
            "prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0",
            "prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0",
        );
        for (what, answers, (protected, open)) in [
            ("forges its reply", &[FORGES][..], dumpable),
            ("reads other processes", &[READS], dumpable),
            (
                "leaves a process",
                &[LEAVES_PROCESS, FINDS_PROCESS],
                ("os.kill(-1, signal.SIGKILL)", "raise ProcessLookupError"),
            ),
            (
                "leaves a file",
                &[LEAVES_FILE, FINDS_FILE],
                ("IS_WARM and marks() == before", "True"),
            ),
        ] {
            assert!(SCRIPT.contains(protected), "{protected}");
            assert!(
                succeeds(&SCRIPT.replace(protected, open), answers),
                "{what}: it does not succeed unprotected"
            );
            assert!(!succeeds(SCRIPT, answers), "{what}: it succeeds");
        }
        assert!(succeeds(
            SCRIPT,
            &[LEAVES_FILE, LEAVES_PROCESS, "def f(x): return x * x"]
        ));
    }
}
