//! The languages of answers that tests decide about: what parses or compiles them, and what runs them.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A language by its name in `[score] language`.
#[derive(Debug, PartialEq, Eq)]
pub struct Language {
    pub name: &'static str,
    /// The file that an answer is written to.
    pub(crate) file: &'static str,
    /// Refuses what does not parse, before anything runs; empty for a compiler, and where the interpreter parses.
    pub(crate) parse: &'static [&'static str],
    /// The interpreter with its arguments, or the compiler; its program must be installed.
    pub(crate) command: &'static [&'static str],
    pub(crate) is_compiled: bool,
    /// A program that is right: refused only where the compiler or parser does not work.
    pub(crate) probe: &'static str,
    /// Exits at once with the code of success.
    pub(crate) exits: &'static [&'static str],
}

/// Where a compiled answer is: beside its source.
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

    /// The folder of rustc's toolchain: the program in `PATH` may be rustup's, which needs the home that a sandbox does
    /// not have.
    pub(crate) fn toolchain(&self) -> Option<PathBuf> {
        static SYSROOT: OnceLock<Option<PathBuf>> = OnceLock::new();
        let asked = || {
            // At the root of the file system: a folder's `rust-toolchain.toml` would choose what runs.
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
