//! Files of a new task from a schema, example answers, a prompt file, or a template.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::DatasetError;
use super::expected::examples;
use super::import::{self, MappingText, lines_of};
use super::infer::{fields_in_words, infer};
use super::messages::json_fault;
use super::row::{load_from, read_lines};
use super::schema_forms::{InnerSchema, inner_schema};
use crate::files::{self, Access};
use crate::format::counted;
use crate::task::{PromptSet, TASK_FILE, find_template};

/// Shown in `task new --help` and in a new task.toml.
pub const ROW_FORMAT: &str = r#"Prompt rows are JSONL, one object a line; only `messages` is required:
  {"id": "a-1", "messages": [{"role": "user", "content": "..."}], "expected": {...}, "tags": ["..."]}
  id        unique in its file; else FILE-LINE
  messages  role (system, user, assistant, tool, developer) and content of each turn
  expected  the correct answer, any JSON value; rows without it are scored for validity only
  tags      rates are broken down by tag"#;

/// Rates over fewer prompts have wide intervals.
const FEW_TEST_PROMPTS: usize = 100;
/// Read for column names.
pub const MAX_RECORDS: usize = 200;
/// Examples are few; bounds a wrong file.
const MAX_EXAMPLES_BYTES: u64 = 64 << 20;

/// Inputs of a new task. Without a template it needs a schema, examples or data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    pub name: String,
    pub template: Option<String>,
    pub schema: Option<PathBuf>,
    /// The schema itself, with where it is from; in place of `schema`.
    pub schema_text: Option<(String, String)>,
    pub examples: Option<PathBuf>,
    /// Prompts; without another source the schema is inferred from their expected answers.
    pub data: Option<PathBuf>,
    pub mapping: MappingText,
    /// Limit of records read from `data`.
    pub most_records: usize,
    /// `None`: the schema's fields in words.
    pub system: Option<String>,
    /// Percentages of train, eval and test.
    pub split: [usize; 3],
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            name: String::new(),
            template: None,
            schema: None,
            schema_text: None,
            examples: None,
            data: None,
            mapping: MappingText::default(),
            most_records: usize::MAX,
            system: None,
            split: [80, 10, 10],
        }
    }
}

/// A new task, not yet written.
#[derive(Debug, Clone, Default)]
pub struct NewTask {
    pub files: Vec<(String, Vec<u8>)>,
    /// Guesses and missing parts, one sentence each.
    pub notes: Vec<String>,
    pub rows: Vec<(PromptSet, usize)>,
    pub mapping: MappingText,
    /// Malformed records: line and reason.
    pub problems: Vec<(usize, String)>,
    pub too_few: Option<String>,
}

impl NewTask {
    /// Prepares the files without writing.
    ///
    /// # Errors
    /// A source that is missing, unreadable or unsuitable.
    pub fn prepare(sources: &Sources) -> Result<Self, DatasetError> {
        check_name(&sources.name)?;
        if let Some(template) = &sources.template {
            return from_template(sources, template);
        }
        let text = match (&sources.schema_text, &sources.schema) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(path)) => Some(read_schema(path)?),
            (None, None) => None,
        };
        let mut new = Self::default();
        let given = match text {
            Some((label, text)) => Some(new.given_schema(label, text)?),
            None => None,
        };
        let mut rows = Vec::new();
        if let Some(data) = &sources.data {
            let schema = given.as_ref().map(|(_, schema)| schema);
            let imported = import::import(data, &sources.mapping, schema, sources.most_records)?;
            (new.mapping, new.problems, rows) =
                (imported.mapping, imported.problems, imported.rows);
        }
        let (schema_text, schema, asserts_formats) = match (given, &sources.examples) {
            (Some((text, schema)), _) => (text, schema, false),
            (None, Some(path)) => new.inferred(&read_answers(path)?, path)?,
            (None, None) => match &sources.data {
                Some(path) => {
                    if let (true, Some((line, problem))) =
                        (rows.is_empty(), new.problems.first().cloned())
                    {
                        return Err(DatasetError::Line {
                            label: path.display().to_string(),
                            line,
                            problem,
                        });
                    }
                    let answers: Vec<Value> = rows
                        .iter()
                        .filter_map(|row| row.get("expected"))
                        .flat_map(examples)
                        .collect();
                    let has_own = |row: &Map<String, Value>| {
                        row.contains_key("schema") || row.contains_key("response_format")
                    };
                    match !new.mapping.schema.is_empty() && rows.iter().all(has_own) {
                        true => {
                            new.notes.push("every row has its own schema: schema.json, which accepts any JSON value, holds for rows without one".to_owned());
                            ("{}\n".to_owned(), Value::Object(Map::new()), false)
                        }
                        false => new.inferred(&answers, path)?,
                    }
                }
                None => {
                    let problem =
                        "needs a schema, examples of answers, data or a template".to_owned();
                    return Err(DatasetError::Import {
                        label: format!("task {}", sources.name),
                        problem,
                    });
                }
            },
        };
        let has_expected = rows.iter().any(|row| row.contains_key("expected"));
        let system = sources
            .system
            .clone()
            .unwrap_or_else(|| match fields_in_words(&schema) {
                Some(fields) => {
                    format!("Answer with one JSON object, nothing else. Its fields: {fields}.")
                }
                None => "Answer with JSON only.".to_owned(),
            });
        let text = task_toml(&sources.name, &system, asserts_formats, has_expected);
        new.files.extend([
            (TASK_FILE.to_owned(), text.into_bytes()),
            ("schema.json".to_owned(), schema_text.into_bytes()),
        ]);
        new.add_sets(rows, sources.split, sources.data.is_some());
        Ok(new)
    }

    /// The text and value of a schema, or of the definition of a tool that holds one.
    fn given_schema(
        &mut self,
        label: String,
        text: String,
    ) -> Result<(String, Value), DatasetError> {
        let value = serde_json::from_str(&text).map_err(|error| DatasetError::Line {
            label: label.clone(),
            line: error.line().max(1),
            problem: json_fault(&error),
        })?;
        match inner_schema(&value) {
            Ok(None) => Ok((text, value)),
            Ok(Some(InnerSchema { schema, of })) => {
                self.notes.push(format!("schema of {of}"));
                Ok((format!("{schema:#}\n"), schema))
            }
            Err(problem) => Err(DatasetError::Import { label, problem }),
        }
    }

    fn inferred(
        &mut self,
        answers: &[Value],
        source: &Path,
    ) -> Result<(String, Value, bool), DatasetError> {
        let name = source
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if answers.is_empty() {
            let label = source.display().to_string();
            let problem =
                "no expected answers to infer a schema from; name a schema or examples".to_owned();
            let columns = self.unmapped_columns(source);
            return Err(match columns {
                Some((columns, free)) => DatasetError::NoExpected {
                    label,
                    prompt: match self.mapping.prompt.contains("{{") {
                        true => self.mapping.prompt.clone(),
                        false => format!("column `{}`", self.mapping.prompt),
                    },
                    columns,
                    free,
                },
                None => DatasetError::Import { label, problem },
            });
        }
        let inferred = infer(answers.iter(), &name);
        self.notes.extend(inferred.notes);
        Ok((
            format!("{:#}\n", inferred.schema),
            inferred.schema,
            inferred.has_formats,
        ))
    }

    fn unmapped_columns(&self, data: &Path) -> Option<(String, String)> {
        let columns = import::columns(&import::read_records(data, MAX_RECORDS).ok()?);
        let is_free = |column: &&String| self.mapping.parts_of(column).is_empty();
        let free: Vec<&str> = columns.iter().filter(is_free).map(String::as_str).collect();
        // A single column would be read as JSON.
        let fields = if let [one] = free[..] {
            format!("{one} = {one}")
        } else {
            free.join(", ")
        };
        (!free.is_empty()).then_some((columns.join(", "), fields))
    }

    pub fn from_rows(task_toml: String, rows: Vec<Map<String, Value>>, split: [usize; 3]) -> Self {
        let mut new = Self {
            files: vec![(TASK_FILE.to_owned(), task_toml.into_bytes())],
            ..Self::default()
        };
        new.add_sets(rows, split, true);
        new
    }

    fn add_sets(&mut self, rows: Vec<Map<String, Value>>, split: [usize; 3], has_data: bool) {
        let total = rows.len();
        for ((set, rows), share) in import::split(rows, split).into_iter().zip(split) {
            // Without data, creates empty files to add rows to.
            if has_data && rows.is_empty() {
                self.too_few
                    .get_or_insert_with(|| too_few(total, split, set, share));
                continue;
            }
            self.rows.push((set, rows.len()));
            self.files.push((
                format!("{}.jsonl", set.name()),
                lines_of(&rows).into_bytes(),
            ));
        }
        let tests = self
            .rows
            .iter()
            .find(|(set, _)| *set == PromptSet::Test)
            .map_or(0, |(_, rows)| *rows);
        if !has_data {
            self.notes
                .push("no prompts yet: import or write them before training".to_owned());
        } else if tests < FEW_TEST_PROMPTS {
            self.notes.push(format!(
                "test set: n = {tests}; rates over so few rows have wide intervals"
            ));
        }
    }

    /// Writes the task into a new folder, which must pass `check`.
    ///
    /// # Errors
    /// A set without rows, a folder that exists or cannot be written, a failed `check`; leaves no
    /// folder then.
    pub fn write<T, E: From<DatasetError>>(
        &self,
        folder: &Path,
        check: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some(problem) = &self.too_few {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            return Err(DatasetError::Import {
                label: format!("task {name}"),
                problem: problem.clone(),
            }
            .into());
        }
        let new_folders: Vec<&Path> = folder
            .ancestors()
            .skip(1)
            .take_while(|above| !above.exists())
            .collect();
        let written = write_files(folder, &self.files)
            .map_err(E::from)
            .and_then(|()| {
                check(folder).inspect_err(|_| {
                    let _ = std::fs::remove_dir_all(folder);
                })
            });
        written.inspect_err(|_| {
            // Removes only empty folders.
            for above in new_folders {
                let _ = std::fs::remove_dir(above);
            }
        })
    }

    pub fn file(&self, name: &str) -> Option<&str> {
        let (_, bytes) = self.files.iter().find(|(file, _)| file == name)?;
        std::str::from_utf8(bytes).ok()
    }

    pub fn definition(&self) -> (&str, &str) {
        let own = ["schema.json", "tools.json"]
            .into_iter()
            .find_map(|name| Some((name, self.file(name)?)));
        own.unwrap_or_else(|| (TASK_FILE, self.file(TASK_FILE).unwrap_or_default()))
    }
}

/// Why `set` gets none of `rows`.
fn too_few(rows: usize, split: [usize; 3], set: PromptSet, share: usize) -> String {
    let (split, set) = (split.map(|share| share.to_string()).join("/"), set.name());
    let are = if rows == 1 { "is" } else { "are" };
    match share {
        0 => format!("--split {split} gives {set} no rows; use another --split"),
        _ => format!(
            "{} {are} too few for --split {split}: {set} gets none; add rows or use another --split",
            counted(rows, "row")
        ),
    }
}

/// A new task's folder: in `tasks/` of the nearest workspace, else of `here`.
pub fn folder_of(name: &str, here: &Path) -> PathBuf {
    let workspace = here
        .ancestors()
        .map(|folder| folder.join("tasks"))
        .find(|folder| folder.is_dir());
    workspace.unwrap_or_else(|| here.join("tasks")).join(name)
}

/// Writes a task's files into a new folder, all or none.
///
/// # Errors
/// The folder exists, or cannot be written.
pub fn write_files<B: AsRef<[u8]>>(
    folder: &Path,
    task_files: &[(String, B)],
) -> Result<(), DatasetError> {
    let fail = |path: &Path, source| DatasetError::File {
        path: path.display().to_string(),
        source,
        remedy: "choose another folder, or check the free space and the permissions",
    };
    if std::fs::symlink_metadata(folder).is_ok() {
        return Err(DatasetError::Exists {
            path: folder.display().to_string(),
        });
    }
    let parent = folder.parent().unwrap_or(folder);
    files::ensure_folder(parent, Access::Umask).map_err(|error| fail(parent, error))?;
    files::create_folder_with(folder, Access::Umask, fail, |new| {
        task_files.iter().try_for_each(|(name, bytes)| {
            let path = new.join(name);
            let parent = path.parent().unwrap_or(new);
            files::ensure_folder(parent, Access::Umask).map_err(|error| fail(parent, error))?;
            files::create_file(&path, bytes.as_ref(), Access::Umask)
                .map_err(|error| fail(&path, error))
        })
    })
}

fn check_name(name: &str) -> Result<(), DatasetError> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if !name.is_empty() && name.chars().all(fits) && !name.starts_with('.') {
        return Ok(());
    }
    let problem = format!(
        "name: {name:?} names a folder, so it takes letters, digits, `-`, `_` and `.` only"
    );
    Err(DatasetError::Import {
        label: "new task".to_owned(),
        problem,
    })
}

fn from_template(sources: &Sources, template: &str) -> Result<NewTask, DatasetError> {
    let files = find_template(template)?.files;
    let bytes_of = |name: &str| {
        files
            .iter()
            .find(|(file, _)| *file == name)
            .map(|(_, bytes)| *bytes)
    };
    let toml = String::from_utf8_lossy(bytes_of(TASK_FILE).unwrap_or_default());
    let renamed = toml.replacen(
        &format!("name = {template:?}"),
        &format!("name = {:?}", sources.name),
        1,
    );
    let file = |(name, bytes): &(&str, &[u8])| {
        (
            (*name).to_owned(),
            if *name == TASK_FILE {
                renamed.as_bytes()
            } else {
                *bytes
            }
            .to_vec(),
        )
    };
    let mut new = NewTask {
        files: files.iter().map(file).collect(),
        ..NewTask::default()
    };
    let prompts = toml
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut toml| toml.remove("prompts"));
    for set in PromptSet::ALL {
        let name = prompts
            .as_ref()
            .and_then(|prompts| prompts.get(set.name())?.as_str());
        if let Some((name, bytes)) = name.and_then(|name| Some((name, bytes_of(name)?))) {
            new.rows.push((set, load_from(name, bytes)?.len()));
        }
    }
    new.notes
        .push("the template's prompts are examples: replace them with your own".to_owned());
    Ok(new)
}

fn read_schema(path: &Path) -> Result<(String, String), DatasetError> {
    let label = path.display().to_string();
    let read = files::read_text(path);
    let text = read.map_err(|source| DatasetError::File {
        path: label.clone(),
        source,
        remedy: "name a JSON Schema, or a class of Python as module:Class",
    })?;
    Ok((label, text))
}

/// Answers: a list or one answer in `.json`, one per line in `.jsonl`.
fn read_answers(path: &Path) -> Result<Vec<Value>, DatasetError> {
    let label = path.display().to_string();
    let bytes =
        files::read_at_most(path, MAX_EXAMPLES_BYTES).map_err(|source| DatasetError::File {
            path: label.clone(),
            source,
            remedy: "name a file of answers",
        })?;
    let fail = |line: usize, error: &serde_json::Error| DatasetError::Line {
        label: label.clone(),
        line,
        problem: json_fault(error),
    };
    let text = files::text(bytes).map_err(|error| DatasetError::Import {
        label: label.clone(),
        problem: format!(
            "not UTF-8 from byte {}; save it as UTF-8",
            error.valid_up_to() + 1
        ),
    })?;
    match serde_json::from_str(&text) {
        Ok(Value::Array(answers)) => Ok(answers),
        Ok(answer) => Ok(vec![answer]),
        Err(error) if import::Format::from_path(path) != Some(import::Format::Jsonl) => {
            Err(fail(error.line().max(1), &error))
        }
        Err(_) => read_lines(text.as_bytes())
            .map(|line| {
                let (line, bytes) = line.map_err(|(line, problem)| DatasetError::Line {
                    label: label.clone(),
                    line,
                    problem,
                })?;
                serde_json::from_slice(&bytes).map_err(|error| fail(line, &error))
            })
            .collect(),
    }
}

fn task_toml(name: &str, system: &str, asserts_formats: bool, has_expected: bool) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let comment: String = ROW_FORMAT
        .lines()
        .map(|line| format!("# {line}\n"))
        .collect();
    // Without expected answers there is nothing to compare with.
    let off = if has_expected { "" } else { "# " };
    format!(
        r#"name = {name}
title = {name}
schema = "schema.json"
# The system message of every prompt: what the model is told about the answer.
system = {system}
thinking = false

{comment}[prompts]
train = "train.jsonl"   # trained on
eval = "eval.jsonl"     # chooses the best checkpoint
test = "test.jsonl"     # held out: base and trained are compared on it

[score]
kind = "json_schema"
assert_formats = {asserts_formats}   # whether `format` is checked

# Right values, not only valid JSON: the share of fields equal to `expected`, added to the reward.
{off}[[reward]]
{off}part = "fields"
{off}weight = 1.0

# The task's defaults for configuration keys: `grpo-tui train --help` lists them.
[train]
"#,
        name = quoted(name),
        system = quoted(system),
    )
}
