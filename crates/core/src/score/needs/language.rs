//! Languages of answers judged by tests: parser or compiler, and interpreter.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

#[derive(Debug, PartialEq, Eq)]
pub struct Language {
    pub name: &'static str,
    pub(crate) file: &'static str,
    /// Rejects unparsable code before anything runs; empty for a compiler, and if the interpreter
    /// parses.
    pub(crate) parse: &'static [&'static str],
    /// Interpreter with arguments, or compiler; must be installed.
    pub(crate) command: &'static [&'static str],
    pub(crate) is_compiled: bool,
    /// A valid program: rejected only by a broken compiler or parser.
    pub(crate) probe: &'static str,
    /// Exits at once with success.
    pub(crate) exits: &'static [&'static str],
}

pub(crate) const BINARY: &str = "answer";
pub(crate) const PYTHON: &str = "python";
pub(crate) const NODE: &str = "node";

pub(crate) static LANGUAGES: [Language; 5] = [
    Language {
        name: PYTHON,
        file: "answer.py",
        parse: &[],
        command: &["python3"],
        is_compiled: false,
        probe: "",
        exits: &["import sys\nsys.exit(0)\n", "import os\nos._exit(0)\n"],
    },
    Language {
        name: "bash",
        file: "answer.sh",
        parse: &["bash", "-n", "{file}"],
        command: &["bash", "{file}"],
        is_compiled: false,
        probe: "exit 0\n",
        exits: &["exit 0\n"],
    },
    Language {
        name: NODE,
        file: "answer.js",
        parse: &["node", "--check", "{file}"],
        command: &["node", "{file}"],
        is_compiled: false,
        probe: "process.exit(0);\n",
        exits: &["process.exit(0);\n"],
    },
    Language {
        name: "c",
        file: "answer.c",
        parse: &[],
        command: &["cc", "-O1", "-w", "{file}", "-lm"],
        is_compiled: true,
        probe: "int main(void) { return 0; }\n",
        exits: &["int main(void) { return 0; }\n"],
    },
    Language {
        name: "rust",
        file: "answer.rs",
        parse: &[],
        command: &[
            "rustc",
            "--edition=2024",
            "-Copt-level=1",
            "-Cstrip=symbols",
            "-Awarnings",
            "{file}",
        ],
        is_compiled: true,
        probe: "fn main() {}\n",
        exits: &["fn main() {}\n"],
    },
];

impl Language {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        LANGUAGES.iter().find(|language| language.name == name)
    }

    pub(crate) fn names() -> String {
        LANGUAGES
            .iter()
            .map(|language| language.name)
            .collect::<Vec<_>>()
            .join(", ")
    }

    pub(crate) fn command(&self) -> Vec<String> {
        self.command.iter().map(|part| (*part).to_owned()).collect()
    }

    /// Folder of rustc's toolchain: `PATH` may have rustup's proxy, which needs a home that
    /// sandboxes lack.
    pub(crate) fn toolchain(&self) -> Option<PathBuf> {
        static SYSROOT: OnceLock<Option<PathBuf>> = OnceLock::new();
        let asked = || {
            // In `/`, since a folder's `rust-toolchain.toml` would select the toolchain.
            let mut command = Command::new("rustc");
            command
                .args(["--print", "sysroot"])
                .current_dir("/")
                .stdin(Stdio::null())
                .stderr(Stdio::null());
            let output = command
                .output()
                .ok()
                .filter(|output| output.status.success())?;
            let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
            path.join("bin/rustc").is_file().then_some(path)
        };
        (self.name == "rust")
            .then(|| SYSROOT.get_or_init(asked).clone())
            .flatten()
    }
}
