//! The form of a new task: from a template, a schema, examples of answers, or a file of prompts.

use std::path::{Path, PathBuf};

use super::Prompts;
use super::form_fields::{Form, FormField};
use super::form_path::path_of;
use crate::command_log::CommandLine;
use crate::dataset::DatasetError;
use crate::dataset::import::{
    Format, MappingText, Record, column_samples, guess, not_valid_rows, parse_split, read_records,
};
use crate::dataset::new_task::{MAX_RECORDS, NewTask, Sources, folder_of};
use crate::format::counted;
use crate::message::{Command, Work};
use crate::score::json;
use crate::score::{Scorer, Task};
use crate::screens::Screen;
use crate::shared::{self, Shared};
use crate::style_role::Role;
use crate::task::template_names;
use crate::widgets::text_width::padded;
use serde_json::{Map, Value};

/// The fields of a mapping.
const MAPPING: [(&str, &str); 5] = [
    (
        "prompt",
        "Column of prompts or conversations, or a template: Read this: {{ text }}",
    ),
    ("system", "Column of system messages; may be empty"),
    (
        "expected",
        "Column of JSON; or columns that become fields: vendor, total = amount; or last-turn",
    ),
    ("id", "Column of ids; empty: file and line"),
    ("tags", "Columns of tags, separated by commas"),
];

/// Columns of a column's name and of what it is taken for.
const COLUMN_NAME: usize = 12;
const PART_NAME: usize = 9;
/// Problems that the preview lists.
const MAX_LISTED: usize = 5;

pub(super) fn open(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    let mut fields = vec![
        ("name", "Letters, digits, - and _"),
        (
            "data",
            "Prompts: .csv, .json, .jsonl or .parquet (Tab completes); the schema is inferred from their answers if no other is given",
        ),
    ];
    fields.extend(MAPPING);
    fields.extend([
        ("split", "Percentages of train, eval and test"),
        ("schema", "A JSON Schema file, copied into the task"),
        ("examples", "Answers to infer the schema from: a list in .json, or one a line in .jsonl"),
        (
            "template",
            "invoice, agent, classify, extract, python-scorer, support-judge, tool-call, unlabeled or yaml-config; instead of data, schema and examples",
        ),
    ]);
    let mut form = Form::new(&fields);
    form.guess("split", "80/10/10");
    prompts.form = Some(form);
    preview(prompts, shared)
}

fn sources_of(form: &Form, shared: &Shared) -> Result<(Sources, PathBuf), String> {
    let here = &shared.options.shell;
    let file = |label: &str| {
        Some(form.text(label))
            .filter(|text| !text.is_empty())
            .map(|text| path_of(text, here))
    };
    let name = form.text("name").to_owned();
    if name.is_empty() {
        return Err("name the task".to_owned());
    }
    let template = Some(form.text("template").to_owned()).filter(|text| !text.is_empty());
    if let Some(template) = template
        .as_ref()
        .filter(|name| !template_names().any(|known| known == *name))
    {
        let known = template_names().collect::<Vec<_>>().join(", ");
        return Err(format!(
            "no template `{template}`; the templates are {known}"
        ));
    }
    let split = match form.text("split") {
        "" => Sources::default().split,
        text => parse_split(text)?,
    };
    let folder = folder_of(&name, &shared.options.here);
    if folder.exists() {
        return Err(format!("{} exists; choose another name", folder.display()));
    }
    let sources = Sources {
        name,
        template,
        schema: file("schema"),
        schema_text: None,
        examples: file("examples"),
        data: file("data"),
        mapping: mapping_of(form),
        most_records: usize::MAX,
        system: None,
        split,
    };
    Ok((sources, folder))
}

pub(super) fn preview(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    let Some(form) = &mut prompts.form else {
        return Vec::new();
    };
    let here = shared.options.shell.clone();
    let sources = sources_of(form, shared);
    // The columns are shown whatever else is missing.
    let data = Some(form.text("data")).filter(|text| !text.is_empty());
    let data = data.map(|text| path_of(text, &here));
    let (mapping, is_empty) = (
        mapping_of(form),
        form.fields.iter().all(FormField::is_empty),
    );
    vec![Work::latest(
        "prompts.form",
        move |_| {
            let records = data.map(|data| read_records(&data, MAX_RECORDS).unwrap_or_default());
            let records = records.unwrap_or_default();
            let made = sources.and_then(|(sources, folder)| match NewTask::prepare(&sources) {
                Ok(new) => Ok((new, folder)),
                Err(DatasetError::NoExpected { free, .. }) => Err(format!(
                    "fill in expected: {free}; or name a schema or examples"
                )),
                Err(error) => Err(error.to_string()),
            });
            let mapping = match &made {
                Ok((new, _)) => new.mapping.clone(),
                Err(_) if records.is_empty() => MappingText::default(),
                Err(_) => guess(&records, &mapping, None),
            };
            let mut lines = match records.is_empty() {
                true => Vec::new(),
                false => column_lines(&records, &mapping),
            };
            let problem = match made {
                Err(problem) => {
                    if is_empty {
                        let templates = template_names().collect::<Vec<_>>().join(", ");
                        lines.push((Role::Faint, files_here(&here)));
                        lines.push((Role::Faint, format!("templates: {templates}")));
                    }
                    Some(problem)
                }
                Ok((new, folder)) => {
                    lines.extend(preview_lines(&new, &folder.display().to_string()));
                    new.too_few
                }
            };
            (mapping, lines, problem)
        },
        |prompts: &mut Prompts, _, (mapping, lines, problem)| {
            if let Some(form) = &mut prompts.form {
                show_guesses(form, &mapping);
                (form.preview, form.problem) = (lines, problem);
            }
            Vec::new()
        },
    )]
}

fn preview_lines(new: &NewTask, folder: &str) -> Vec<(Role, String)> {
    let mut lines = vec![(Role::Faint, format!("folder: {folder}"))];
    let rows = new
        .rows
        .iter()
        .map(|(set, rows)| format!("{} {rows}", set.name()))
        .collect::<Vec<_>>()
        .join(", ");
    lines.push((Role::Text, format!("rows: {rows}")));
    lines.extend(problem_lines(&new.problems));
    lines.extend(new.notes.iter().map(|note| (Role::Warning, note.clone())));
    let (file, definition) = new.definition();
    lines.push((Role::Title, file.to_owned()));
    let text = json::format(definition).unwrap_or_else(|_| definition.to_owned());
    lines.extend(text.lines().map(|line| (Role::Text, line.to_owned())));
    let first = new
        .file("train.jsonl")
        .and_then(|text| serde_json::from_str(text.lines().next()?).ok());
    if let Some(serde_json::Value::Object(row)) = first {
        lines.extend(row_lines("first row of train.jsonl".to_owned(), &row));
    }
    lines
}

pub(super) fn submit(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let Some(form) = &prompts.form else {
        return Vec::new();
    };
    let (sources, folder) = match sources_of(form, shared) {
        Ok(sources) => sources,
        Err(problem) => return shared.complain(problem),
    };
    let words = ["task", "new", &sources.name].map(str::to_owned);
    let line: CommandLine = words
        .into_iter()
        .chain(options(form, &shared.options.shell))
        .collect();
    let work = move || -> Result<(PathBuf, Option<String>), String> {
        // A task whose schema does not compile is no task.
        let checked = |folder: &Path| {
            let task = Task::load(folder)?;
            match Scorer::new(&task) {
                // Its command runs when it is trusted.
                Err(error) if !error.is_of_command() => {
                    Err::<_, Box<dyn std::error::Error>>(error.into())
                }
                _ => Ok(task),
            }
        };
        let new = NewTask::prepare(&sources).map_err(|error| error.to_string())?;
        let task = new
            .write(&folder, checked)
            .map_err(|error| error.to_string())?;
        Ok((folder, task.embedded_model_note(&task.base_model())))
    };
    let create = Work::once(
        "task.new",
        work,
        |prompts: &mut Prompts, shared, outcome| match outcome {
            Ok((folder, note)) => {
                prompts.form = None;
                shared.say(format!("task created: {}", folder.display()));
                if let Some(note) = note {
                    shared.say(note);
                }
                let mut commands = shared::open_task(shared, Some(folder.display().to_string()));
                commands.push(Command::GoTo(Screen::Schema));
                commands
            }
            Err(error) => shared.complain(error),
        },
    );
    vec![create.like(line)]
}

fn mapping_of(form: &Form) -> MappingText {
    let text = |label: &str| form.text(label).to_owned();
    MappingText {
        prompt: text("prompt"),
        system: text("system"),
        expected: text("expected"),
        id: text("id"),
        tags: text("tags"),
        // Guessed: a form's `schema` is a file.
        schema: String::new(),
    }
}

/// The fields as options of `task new`, which leaves out what is not a row as the form does.
fn options(form: &Form, here: &Path) -> Vec<String> {
    let option = |label: &str, text: &str| match label {
        "name" | "file" => Vec::new(),
        label if MAPPING.iter().any(|(part, _)| *part == label) => {
            vec!["--map".to_owned(), format!("{label}={text}")]
        }
        "set" if text.contains('/') => vec!["--split".to_owned(), text.to_owned()],
        "data" | "schema" | "examples" => vec![
            format!("--{label}"),
            path_of(text, here).display().to_string(),
        ],
        label => vec![format!("--{label}"), text.to_owned()],
    };
    let filled = form
        .fields
        .iter()
        .map(|field| (field.label, form.text(field.label)));
    let options = filled
        .filter(|(_, text)| !text.is_empty())
        .flat_map(|(label, text)| option(label, text));
    options.chain(["--skip-invalid".to_owned()]).collect()
}

fn show_guesses(form: &mut Form, mapping: &MappingText) {
    let is_field = |part: &str| MAPPING.iter().any(|(field, _)| *field == part);
    for (part, text) in mapping.parts() {
        if is_field(part) {
            form.guess(part, text);
        }
    }
}

fn files_here(here: &Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(here)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| Format::from_path(&entry.path()).is_some())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.truncate(12);
    match names.is_empty() {
        true => format!(
            "no file in {} ends with .{}",
            here.display(),
            Format::NAMES.join(", .")
        ),
        false => format!("files here: {}", names.join(", ")),
    }
}

fn column_lines(records: &[Record], mapping: &MappingText) -> Vec<(Role, String)> {
    let line = |(column, values): (String, String)| {
        let parts = mapping.parts_of(&column);
        let (role, parts) = match parts.is_empty() {
            true => (Role::Faint, "not taken".to_owned()),
            false => (Role::Text, parts.join(", ")),
        };
        let column = padded(&column, COLUMN_NAME, false);
        (
            role,
            format!("  {column} {} {values}", padded(&parts, PART_NAME, false)),
        )
    };
    let lines = column_samples(records).into_iter().map(line);
    let head = format!("{}:", counted(lines.len(), "column"));
    std::iter::once((Role::Title, head)).chain(lines).collect()
}

fn row_lines(title: String, row: &Map<String, Value>) -> Vec<(Role, String)> {
    let text = json::format(&Value::Object(row.clone()).to_string()).unwrap_or_default();
    let lines = text.lines().map(|line| (Role::Text, line.to_owned()));
    std::iter::once((Role::Title, title)).chain(lines).collect()
}

fn problem_lines(problems: &[(usize, String)]) -> Vec<(Role, String)> {
    if problems.is_empty() {
        return Vec::new();
    }
    let left_out = if problems.len() == 1 {
        "is left out"
    } else {
        "are left out"
    };
    let head = format!("{} and {left_out}:", not_valid_rows(problems.len()));
    let lines = problems
        .iter()
        .take(MAX_LISTED)
        .map(|(line, problem)| (Role::Bad, format!("  line {line}: {problem}")));
    std::iter::once((Role::Bad, head)).chain(lines).collect()
}
