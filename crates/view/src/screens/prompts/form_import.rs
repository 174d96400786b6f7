//! The import form: a file, the set that takes its rows, and which column becomes which part.

use std::path::Path;

use serde_json::{Map, Value};

use super::form_fields::{Form, FormKind};
use super::form_path::path_of;
use super::{Prompts, save};
use crate::command_log::CommandLine;
use crate::dataset::import::{
    Format, ImportedRows, MappingText, Record, SetRows, column_samples, guess, import,
    not_valid_rows, parse_split, read_records, split,
};
use crate::format::counted;
use crate::message::{Command, Work};
use crate::score::json;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::task::PromptSet;
use crate::widgets::text_width::padded;

/// The fields of a mapping, as both forms have them.
pub(super) const MAPPING: [(&str, &str); 5] = [
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

const PREVIEW_RECORDS: usize = 200;
/// Columns of a column's name and of what it is taken for.
const COLUMN_NAME: usize = 12;
const PART_NAME: usize = 9;
/// Problems that the preview lists.
const MAX_LISTED: usize = 5;

pub(super) fn open(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    let mut fields = vec![
        ("file", ".csv, .json, .jsonl or .parquet; Tab completes"),
        (
            "set",
            "train, eval or test; or percentages of all three: 80/10/10",
        ),
    ];
    fields.extend(MAPPING);
    let mut form = Form::new(FormKind::Import, &fields);
    form.guess("set", "train");
    prompts.form = Some(form);
    preview(prompts, shared)
}

pub(super) fn mapping_of(form: &Form) -> MappingText {
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

/// The fields as options of `dataset import` and `task new`, which leave out what is not a row as the forms do.
pub(super) fn options(form: &Form, here: &Path) -> Vec<String> {
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

pub(super) fn show_guesses(form: &mut Form, mapping: &MappingText) {
    let is_field = |part: &str| MAPPING.iter().any(|(field, _)| *field == part);
    for (part, text) in mapping.parts() {
        if is_field(part) {
            form.guess(part, text);
        }
    }
}

pub(super) fn files_here(here: &Path) -> String {
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

pub(super) fn column_lines(records: &[Record], mapping: &MappingText) -> Vec<(Role, String)> {
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

pub(super) fn row_lines(title: String, row: &Map<String, Value>) -> Vec<(Role, String)> {
    let text = json::format(&Value::Object(row.clone()).to_string()).unwrap_or_default();
    let lines = text.lines().map(|line| (Role::Text, line.to_owned()));
    std::iter::once((Role::Title, title)).chain(lines).collect()
}

pub(super) fn problem_lines(problems: &[(usize, String)]) -> Vec<(Role, String)> {
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

pub(super) fn preview(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    let (Some(form), Some(open)) = (&prompts.form, shared.task.clone()) else {
        return Vec::new();
    };
    let (file, set, mapping) = (
        form.text("file").to_owned(),
        form.text("set").to_owned(),
        mapping_of(form),
    );
    let here = shared.options.shell.clone();
    vec![Work::latest(
        "prompts.form",
        move |_| {
            if file.is_empty() {
                return (
                    MappingText::default(),
                    vec![(Role::Faint, files_here(&here))],
                    Some("name a file".to_owned()),
                );
            }
            let path = path_of(&file, &here);
            let schema = open.task.expected_schema();
            let read = read_records(&path, PREVIEW_RECORDS);
            let mut lines = Vec::new();
            let mut guessed = mapping.clone();
            if let Ok(records) = &read {
                guessed = guess(records, &mapping, Some(&schema));
                lines = column_lines(records, &guessed);
            }
            let found = read.and_then(|_| import(&path, &mapping, Some(&schema), PREVIEW_RECORDS));
            let set = shares_of(&set).err();
            match found {
                Err(error) => (guessed, lines, Some(error.to_string())),
                Ok(ImportedRows {
                    mapping,
                    rows,
                    problems,
                    notes,
                }) => {
                    lines.extend(problem_lines(&problems));
                    let notes = notes
                        .iter()
                        .map(|note| (Role::Warning, format!("note: {note}")));
                    lines.extend(notes);
                    let none = rows
                        .is_empty()
                        .then(|| "no records match the mapping".to_owned());
                    if let Some(row) = rows.first() {
                        let read = rows.len() + problems.len();
                        let title = format!(
                            "first row ({} read{})",
                            counted(read, "record"),
                            if read == PREVIEW_RECORDS {
                                " so far"
                            } else {
                                ""
                            }
                        );
                        lines.extend(row_lines(title, row));
                    }
                    (mapping, lines, set.or(none))
                }
            }
        },
        |prompts: &mut Prompts, _, (mapping, lines, problem)| {
            if let Some(form) = prompts
                .form
                .as_mut()
                .filter(|form| form.kind == FormKind::Import)
            {
                show_guesses(form, &mapping);
                (form.preview, form.problem) = (lines, problem);
            }
            Vec::new()
        },
    )]
}

fn shares_of(text: &str) -> Result<(Option<PromptSet>, [usize; 3]), String> {
    match text {
        "" => Ok((Some(PromptSet::Train), [0; 3])),
        text if text.contains('/') => Ok((None, parse_split(text)?)),
        text => match PromptSet::from_name(text) {
            Some(set) => Ok((Some(set), [0; 3])),
            None => Err(format!(
                "set: no set `{text}`; write train, eval, test or percentages such as 80/10/10"
            )),
        },
    }
}

pub(super) fn submit(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let (Some(form), Some(open)) = (&prompts.form, shared.task.clone()) else {
        return Vec::new();
    };
    let (path, mapping) = (
        path_of(form.text("file"), &shared.options.shell),
        mapping_of(form),
    );
    let (set, shares) = match shares_of(form.text("set")) {
        Ok(shares) => shares,
        Err(problem) => return shared.complain(problem),
    };
    let mut words = vec!["dataset".to_owned(), "import".to_owned()];
    words.extend([open.argument.clone(), path.display().to_string()]);
    words.extend(options(form, &shared.options.shell));
    let line: CommandLine = words.into_iter().collect();
    let rows = move || -> Result<Vec<SetRows>, String> {
        let imported = import(
            &path,
            &mapping,
            Some(&open.task.expected_schema()),
            usize::MAX,
        )
        .map_err(|error| error.to_string())?;
        Ok(match set {
            Some(set) => vec![(set, imported.rows)],
            None => split(imported.rows, shares).into_iter().collect(),
        })
    };
    save::import_rows(prompts, shared, rows)
        .into_iter()
        .map(|command| command.like(line.clone()))
        .collect()
}
