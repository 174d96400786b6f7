//! `task new --schema module:Class`: the JSON Schema of a Pydantic class, from the user's Python.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::super::Failure;
use super::trust::says_yes;
use crate::files;
use crate::format::listed;
use crate::run::sha256;
use crate::score::Trust;
use crate::secrets::visible;

const SCRIPT: &str = include_str!("python_schema.py");
/// An import may load large libraries.
const TIMEOUT: Duration = Duration::from_secs(120);
const MAX_SOURCE_BYTES: u64 = 16 << 20;
const MAX_OUTPUT_BYTES: u64 = 16 << 20;
/// Classes and validators that are named.
const MAX_NAMED: usize = 12;

/// `module:Class` or `path.py:Class`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PythonClass {
    source: String,
    class: String,
}

/// A class's schema, and sentences about validators that it does not know.
pub(super) struct ClassSchema {
    pub(super) text: String,
    pub(super) notes: Vec<String>,
}

/// What the script prints.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Printed {
    schema: Option<serde_json::Value>,
    validators: Vec<Validator>,
    error: Option<String>,
    file: Option<String>,
    line: Option<usize>,
    /// A module that is not installed.
    missing: Option<String>,
    /// Whether the module itself is missing, not one that it imports.
    is_source: bool,
    /// Models of the module, if the class is not there.
    classes: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Validator {
    validator: String,
    /// `before`, `after`, `wrap` or `plain`.
    kind: String,
    model: Option<String>,
    field: Option<String>,
}

impl PythonClass {
    /// `None` for a file.
    pub(super) fn parse(given: &Path) -> Option<Self> {
        let text = given.to_str().filter(|_| !given.exists())?;
        let (source, class) = text.rsplit_once(':')?;
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|letter| letter.is_alphanumeric() || letter == '_')
                && !name.starts_with(|first: char| first.is_ascii_digit())
        };
        let is_dotted = |text: &str| text.split('.').all(is_name);
        let is_source = source.ends_with(".py") || is_dotted(source);
        (is_source && is_dotted(class)).then(|| Self {
            source: source.to_owned(),
            class: class.to_owned(),
        })
    }

    fn label(&self) -> String {
        format!("{}:{}", self.source, self.class)
    }

    /// The file that is imported, if it is one of this folder.
    fn file(&self, here: &Path) -> Option<PathBuf> {
        if self.source.ends_with(".py") {
            return Some(here.join(&self.source));
        }
        let path = self.source.replace('.', "/");
        let files = [format!("{path}.py"), format!("{path}/__init__.py")];
        files
            .into_iter()
            .map(|file| here.join(file))
            .find(|file| file.is_file())
    }

    /// Imports the class, after the user has trusted its file.
    pub(super) fn schema(&self, trusts: bool) -> Result<ClassSchema, Failure> {
        let here = std::env::current_dir()?;
        let file = self.file(&here);
        if self.source.ends_with(".py") && !file.as_ref().is_some_and(|file| file.is_file()) {
            return Err(Failure::failed(format!(
                "{}: no such file; name a file or a module, as in app/models.py:Invoice",
                self.source
            )));
        }
        let python = python_of(&here).ok_or_else(|| {
            Failure::failed(format!(
                "{}: no Python found: activate a virtual environment, or install python3",
                self.label()
            ))
        })?;
        self.ask_trust(&here, &python, file.as_deref(), trusts)?;
        let printed = self.run(&here, &python)?;
        let Some(schema) = printed.schema else {
            return Err(Failure::failed(self.problem(&printed, &python, &here)));
        };
        Ok(ClassSchema {
            text: format!("{schema:#}\n"),
            notes: notes(&self.label(), &printed.validators),
        })
    }

    fn ask_trust(
        &self,
        here: &Path,
        python: &Path,
        file: Option<&Path>,
        trusts: bool,
    ) -> Result<(), Failure> {
        let mut key = format!("import\n{}\n{}\n", python.display(), self.source).into_bytes();
        key.extend(here.as_os_str().as_encoded_bytes());
        if let Some(file) = file {
            key.extend(files::read_at_most(file, MAX_SOURCE_BYTES)?);
        }
        let command = vec![
            python.display().to_string(),
            "-c".to_owned(),
            format!("import {}", self.source),
        ];
        let trust = Trust::for_import(sha256(&key), command, file, here);
        if trust.is_trusted {
            return Ok(());
        }
        if !trusts {
            eprintln!(
                "{} imports {}{}, with what it imports, outside of any sandbox.",
                visible(&python.display().to_string()),
                visible(&self.source),
                file.map_or_else(String::new, |file| format!(
                    " ({})",
                    visible(&file.display().to_string())
                ))
            );
            eprintln!("Trust it, as it is now? [y/N]");
            if !says_yes()? {
                let message = format!(
                    "{} is not trusted and was not imported; --trust answers yes",
                    self.source
                );
                return Err(Failure::failed(message));
            }
        }
        Ok(trust.set(true)?)
    }

    fn run(&self, here: &Path, python: &Path) -> Result<Printed, Failure> {
        let failed =
            |why: String| Failure::failed(format!("{}: {}: {why}", self.label(), python.display()));
        let mut child = Command::new(python)
            .args(["-c", SCRIPT, &self.source, &self.class])
            .current_dir(here)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let output = child.stdout.take();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            let read = output.map(|output| output.take(MAX_OUTPUT_BYTES).read_to_string(&mut text));
            read.and_then(Result::ok).map(|_| text).unwrap_or_default()
        });
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if start.elapsed() > TIMEOUT {
                child.kill()?;
                child.wait()?;
                let limit = TIMEOUT.as_secs();
                return Err(failed(format!("the import took more than {limit} s")));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let text = reader.join().unwrap_or_default();
        serde_json::from_str(text.trim())
            .map_err(|_| failed(format!("ended without a schema ({status})")))
    }

    /// Class, place, cause and remedy.
    fn problem(&self, printed: &Printed, python: &Path, here: &Path) -> String {
        let python = python.display();
        let cause = printed.error.as_deref().unwrap_or("no schema");
        let place = printed.file.as_deref().map_or_else(String::new, |file| {
            let file = Path::new(file);
            let file = file.strip_prefix(here).unwrap_or(file).display();
            match printed.line {
                Some(line) => format!("{file} line {line}: "),
                None => format!("{file}: "),
            }
        });
        let remedy = match &printed.missing {
            Some(_) if printed.is_source => {
                format!(
                    "run this where {python} can import it, or name its file, as in app/models.py:{}",
                    self.class
                )
            }
            Some(module) => format!("install it: {python} -m pip install {module}"),
            None if !printed.classes.is_empty() => {
                format!("classes there: {}", listed(&printed.classes, MAX_NAMED))
            }
            None => format!("correct it: {python} must import it and know its JSON Schema"),
        };
        visible(&format!("{}: {place}{cause}; {remedy}", self.label())).to_string()
    }
}

/// The Python of the active virtual environment, of the nearest `.venv`, or of PATH.
fn python_of(here: &Path) -> Option<PathBuf> {
    let active = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    let near = here.ancestors().map(|folder| folder.join(".venv"));
    let environments = active.into_iter().chain(near);
    let own = environments
        .map(|environment| environment.join("bin/python"))
        .find(|python| python.is_file());
    own.or_else(|| {
        let path = std::env::var_os("PATH")?;
        let mut folders = std::env::split_paths(&path);
        folders.find_map(|folder| Some(folder.join("python3")).filter(|python| python.is_file()))
    })
}

fn notes(label: &str, validators: &[Validator]) -> Vec<String> {
    let named = |one: &Validator| {
        let model = one.model.as_deref().unwrap_or("the class");
        let place = match &one.field {
            Some(field) => format!("{model}.{field}"),
            None => model.to_owned(),
        };
        format!("{} of {place} ({})", one.validator, one.kind)
    };
    let names: Vec<String> = validators.iter().map(named).collect();
    let mut notes = vec![format!("schema of {label}")];
    if !names.is_empty() {
        notes.push(format!(
            "warning: JSON Schema does not know these validators and constraints, so answers that they refuse are valid here: {}; write them as keywords, or score with `kind = \"python\"`",
            listed(&names, MAX_NAMED)
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_told_from_files() {
        for (given, expected) in [
            ("app.models:Invoice", Some(("app.models", "Invoice"))),
            ("app/models.py:Invoice", Some(("app/models.py", "Invoice"))),
            ("models:Outer.Inner", Some(("models", "Outer.Inner"))),
            ("schema.json", None),
            ("a/b:c.json/d", None),
            ("models:", None),
            ("1a:B", None),
        ] {
            let found = PythonClass::parse(Path::new(given));
            let found = found
                .as_ref()
                .map(|found| (found.source.as_str(), found.class.as_str()));
            assert_eq!(found, expected, "{given}");
        }
    }
}
