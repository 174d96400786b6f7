//! The command lines that do what the keys did, for the log of commands.

use std::path::{Path, PathBuf};

use crate::format::quoted;
use crate::run::Verb;
use crate::secrets::redact;

/// A call of this program from a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    pub arguments: Vec<String>,
    pub output: Option<PathBuf>,
}

impl CommandLine {
    /// `runs VERB RUN... OPTION...`.
    pub fn for_runs(verb: impl ToString, runs: &[PathBuf], options: &[&str]) -> Self {
        let runs = runs.iter().map(|run| run.display().to_string());
        let options = options.iter().map(|word| (*word).to_owned());
        ["runs".to_owned(), verb.to_string()]
            .into_iter()
            .chain(runs)
            .chain(options)
            .collect()
    }

    /// The request of a run's worker; `None` for those that no command sends.
    pub fn for_request(run: &Path, verb: &Verb) -> Option<Self> {
        let options: Vec<String> = match verb {
            Verb::Status | Verb::Sample(_) => return None,
            Verb::Stop { now: true } => vec!["--now".to_owned()],
            Verb::Annotate { text } => vec!["--".to_owned(), text.clone()],
            Verb::Set { changes } => changes
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            _ => Vec::new(),
        };
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        Some(Self::for_runs(verb.name(), &[run.to_owned()], &options))
    }

    #[must_use]
    pub fn into_file(self, output: &Path) -> Self {
        Self {
            output: Some(output.to_owned()),
            ..self
        }
    }

    /// The command line as a user in the folder `here` would type it: without `--json`, secrets masked.
    pub fn text(&self, here: &Path) -> String {
        let near = |word: &str| {
            let inside = Path::new(word)
                .strip_prefix(here)
                .ok()
                .filter(|path| *path != Path::new(""));
            quoted(&inside.map_or_else(|| word.to_owned(), |path| path.display().to_string()))
        };
        let mut words = vec!["grpo-tui".to_owned()];
        words.extend(
            self.arguments
                .iter()
                .filter(|word| *word != "--json")
                .map(|word| near(word)),
        );
        words.extend(
            self.output
                .iter()
                .map(|file| format!("> {}", near(&file.display().to_string()))),
        );
        redact(&words.join(" ")).0.into_owned()
    }
}

impl<A: Into<String>> FromIterator<A> for CommandLine {
    fn from_iter<I: IntoIterator<Item = A>>(arguments: I) -> Self {
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            output: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_command_of_the_shell() {
        let run = Path::new("/tmp/runs/a b");
        let check = |verb: Verb, expected: Option<&str>| {
            let found =
                CommandLine::for_request(run, &verb).map(|line| line.text(Path::new("/tmp")));
            assert_eq!(found.as_deref(), expected, "{verb:?}");
        };
        check(Verb::Status, None);
        check(Verb::Pause, Some("grpo-tui runs pause 'runs/a b'"));
        check(
            Verb::Stop { now: false },
            Some("grpo-tui runs stop 'runs/a b'"),
        );
        check(
            Verb::Stop { now: true },
            Some("grpo-tui runs stop 'runs/a b' --now"),
        );
        check(
            Verb::Annotate {
                text: "-1 lr".to_owned(),
            },
            Some("grpo-tui runs annotate 'runs/a b' -- '-1 lr'"),
        );
        let set = Verb::set(["temperature=0.9", "max_steps=40"]).unwrap();
        check(
            set,
            Some("grpo-tui runs set 'runs/a b' max_steps=40 temperature=0.9"),
        );
        let key = format!("hf_{}", "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0dF3h");
        let note = Verb::Annotate {
            text: format!("token {key}"),
        };
        let text = CommandLine::for_request(run, &note)
            .unwrap()
            .text(Path::new("/"));
        assert!(!text.contains(&key) && text.contains("hf_a…"), "{text}");
    }

    #[test]
    fn outputs_go_to_files() {
        let line = CommandLine::for_runs(
            "export",
            &["/x/a".into(), "/y/b".into()],
            &["--csv", "--json"],
        );
        let found = line
            .into_file(Path::new("/x/c d.csv"))
            .text(Path::new("/x"));
        assert_eq!(found, "grpo-tui runs export a /y/b --csv > 'c d.csv'");
    }
}
