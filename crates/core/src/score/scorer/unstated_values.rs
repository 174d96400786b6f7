//! Fields of expected answers of which a prompt may not state the value.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::dataset::{PromptRow, expected_target, has_own_schema};
use crate::exact_json;
use crate::format::{shortened, shown_lines};
use crate::score::answer::json::parse;
use crate::score::answer::stated_value::{Leaf, StatedValue, state};
use crate::score::grounded::Grounded;
use crate::score::task::Task;

/// Fields that are counted.
const MAX_FIELDS: usize = 200;
/// Share of rows whose prompts state a field's value up to which it is computed or classified.
const MOSTLY_STATED: f64 = 0.5;

/// How many prompts state the expected value of a field.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledField {
    /// Dotted names; items of lists share their list's.
    pub path: String,
    /// Rows that expect a value.
    pub rows: usize,
    /// Those whose prompt states it.
    pub stated: usize,
    /// Lines of those whose prompt does not, classified values not counted.
    pub unstated_lines: Vec<usize>,
    /// The expected value of the first of these, as JSON.
    example: Option<String>,
    first: Leaf,
    is_varied: bool,
    /// By their text in lower case: the first text of a label, and its line.
    texts: HashMap<String, (String, usize)>,
    /// Texts that differ in case alone, and their lines.
    spellings: Option<[(String, usize); 2]>,
}

impl LabelledField {
    fn new(value: &StatedValue) -> Self {
        Self {
            path: value.path.join("."),
            rows: 0,
            stated: 0,
            unstated_lines: Vec::new(),
            example: None,
            first: value.leaf.clone(),
            is_varied: false,
            texts: HashMap::new(),
            spellings: None,
        }
    }

    /// Whether few prompts state the value: it is classified or computed.
    pub fn is_class(&self) -> bool {
        self.stated as f64 <= MOSTLY_STATED * self.rows as f64
    }

    /// Whether prompts usually state the value, which varies.
    fn is_read(&self) -> bool {
        !self.is_class() && self.is_varied
    }

    /// What is wrong with the labels of the field: prompts usually state the value, but not all of
    /// them do; or a class has two spellings.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let unstated = self.example.as_ref().filter(|_| self.is_read());
        let unstated = unstated.map(|example| {
            format!(
                "{}: {} of {} prompts do not state the expected value, {} (`{example}`): correct these rows, or expect null there if the schema allows it",
                self.path,
                self.unstated_lines.len(),
                self.rows,
                shown_lines(&self.unstated_lines)
            )
        });
        let spellings = self.spellings.as_ref().filter(|_| self.is_class());
        let spellings = spellings.map(|[(one, line), (other, later)]| {
            format!(
                "{}: `{}` (line {line}) and `{}` (line {later}) differ in case alone: one label with two spellings, of which an answer can match one; write one",
                self.path,
                shortened(one, 40),
                shortened(other, 40)
            )
        });
        unstated.into_iter().chain(spellings)
    }

    fn add_spelling(&mut self, text: &str, line: usize) {
        let first = self
            .texts
            .entry(text.to_lowercase())
            .or_insert_with(|| (text.to_owned(), line));
        if self.spellings.is_none() && first.0 != text {
            self.spellings = Some([first.clone(), (text.to_owned(), line)]);
        }
    }
}

/// Lines of rows with an expected value that their prompt does not state, though most prompts state theirs: nobody can
/// read it there.
pub fn unread_lines(fields: &[LabelledField]) -> BTreeSet<usize> {
    let read = fields.iter().filter(|field| field.is_read());
    read.flat_map(|field| field.unstated_lines.iter().copied())
        .collect()
}

/// Tags by which the rates of an eval or test set are broken down.
const IN_PROMPT: &str = "label in the prompt";
const NOT_IN_PROMPT: &str = "label not in the prompt";

/// Tags the rows of an eval or test set: by their own schemas, and whether their label can be read from the prompt, if
/// some cannot.
pub fn tag_rows(task: &Task, rows: &mut [PromptRow]) {
    task.tag_schemas(rows);
    let unread = unread_lines(&labelled_fields(task, rows.iter()));
    if unread.is_empty() {
        return;
    }
    let is_counted = |row: &&mut PromptRow| row.expected.is_some() && !has_own_schema(row);
    for row in rows.iter_mut().filter(is_counted) {
        let tag = match unread.contains(&row.line) {
            true => NOT_IN_PROMPT,
            false => IN_PROMPT,
        };
        row.tags.push(tag.to_owned());
    }
}

/// The values of an answer, with their fields.
fn values_of(answer: &Value) -> Vec<StatedValue> {
    let text = exact_json::write(answer);
    let mut values = Vec::new();
    if let Ok(document) = parse(&text, 0) {
        state(&document.root, (&[], ""), &mut |at| at, &mut values);
    }
    values
}

/// The fields of the rows' expected answers, in their order; none without a schema. Rows with
/// their own schema are not read.
pub fn labelled_fields<'r>(
    task: &Task,
    rows: impl IntoIterator<Item = &'r PromptRow>,
) -> Vec<LabelledField> {
    let grounded = task
        .schema()
        .and_then(|_| Grounded::new(&*task.definition, task));
    let Some(grounded) = grounded else {
        return Vec::new();
    };
    let mut fields: Vec<LabelledField> = Vec::new();
    let mut known: HashMap<Vec<String>, usize> = HashMap::new();
    for row in rows.into_iter().filter(|row| !has_own_schema(row)) {
        let Some(target) = row.expected.as_ref().map(expected_target) else {
            continue;
        };
        let values = values_of(&target);
        let statements = grounded.statements(&values, row);
        let mut counted: Vec<usize> = Vec::new();
        let values = values.iter().zip(statements);
        for (value, statement) in values.filter(|(value, _)| value.leaf != Leaf::Nothing) {
            let place = match known.get(&value.path) {
                Some(place) => *place,
                None if fields.len() == MAX_FIELDS => continue,
                None => {
                    fields.push(LabelledField::new(value));
                    known.insert(value.path.clone(), fields.len() - 1);
                    fields.len() - 1
                }
            };
            let field = &mut fields[place];
            if !counted.contains(&place) {
                field.rows += 1;
                field.stated += usize::from(statement == Some(true));
                counted.push(place);
            }
            field.is_varied |= field.first != value.leaf;
            if let Leaf::Text(text) = &value.leaf {
                field.add_spelling(text, row.line);
            }
            if statement == Some(false) && field.unstated_lines.last() != Some(&row.line) {
                field.unstated_lines.push(row.line);
                let found = target.pointer(&value.pointer).map(exact_json::write);
                let example = found.map(|value| shortened(&value, 40));
                field.example = field.example.take().or(example);
            }
        }
    }
    fields
}
