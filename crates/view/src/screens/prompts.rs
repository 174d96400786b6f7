//! The prompts screen: all prompt rows as a table, the selected one as the model sees it, editing, and the health of
//! the sets.

pub mod actions;
mod demonstration;
mod draw;
mod editing;
mod findings;
mod form;
mod form_fields;
mod form_new_task;
mod form_path;
mod interaction;
mod layout;
mod messages_text;
mod preview;
mod row_editor;
mod rows;
mod save;
mod table;
mod table_row;
mod token_count;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::dataset::PromptRow;
use crate::dataset::health::{FindingKind, Health, Level};
use crate::shared::Shared;
use crate::task::PromptSet;
use crate::text::Tokenizer;
use crate::widgets::filter::Filter;
use crate::widgets::list_cursor::Cursor;
use editing::Editing;
use form_fields::Form;
use table_row::{Column, Entry, row};

const ROWS: &str = "rows";
/// The selected row as the model sees it.
const CHAT: &str = "prompt preview";
const HEALTH: &str = "health";
const EDITOR: &str = "editor";
const FORM: &str = "form";
/// The panes in tab order; the editor and the form are there only while they are open.
const PANES: [&str; 3] = [ROWS, CHAT, HEALTH];

/// A row whose tokens are not counted yet.
const UNCOUNTED: u32 = u32::MAX;
/// A row that the template rejects.
const UNCOUNTABLE: u32 = u32::MAX - 1;

#[derive(Debug, Default)]
pub struct Prompts {
    /// Every row of every set.
    pub entries: Vec<Entry>,
    /// The visible ones, in the order of the table.
    pub shown: Vec<u32>,
    pub cursor: Cursor,
    pub filter: Filter,
    /// The sort column, and whether descending.
    pub sort: (Column, bool),
    pub tokens: Vec<u32>,
    /// Findings in all rows, by kind.
    pub groups: Vec<Group>,
    pub form: Option<Form>,
    /// The files of the last change of rows.
    undo: Vec<FileChange>,
    /// Searched text of each entry, lower-case; built in the background, or by a search that comes sooner.
    searched: Arc<OnceLock<Vec<String>>>,
    /// The token counter, or why there is none.
    pub counter: Option<Result<Counter, String>>,
    /// The selected row as the model sees it.
    pub chat: Option<Chat>,
    /// The health of the sets, or why it is unknown.
    pub health: Option<Result<Health, String>>,
    pub finding: Cursor,
    pub editing: Option<Editing>,
    /// The model whose tokenizer counts; by default the task's base model.
    pub model: Option<String>,
    pane: Option<&'static str>,
    is_counted: bool,
    chat_top: Cursor,
    /// The row to select once the task has been read again.
    select_next: Option<(PromptSet, usize)>,
}

impl Prompts {
    fn selected(&self) -> Option<Entry> {
        let place = self.cursor.at(self.shown.len())?;
        self.entries.get(*self.shown.get(place)? as usize).copied()
    }

    fn selected_row<'a>(&self, shared: &'a Shared) -> Option<&'a PromptRow> {
        row(shared.task.as_ref()?, self.selected()?)
    }

    fn selected_place(&self, shared: &Shared) -> Option<(PromptSet, usize)> {
        Some((self.selected()?.set, self.selected_row(shared)?.line))
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Chat {
    pub entry: Entry,
    /// Lines of pieces, each a special token or not; or why the template rejects the row.
    pub lines: Result<Vec<Vec<(String, bool)>>, String>,
    /// `None` without a tokenizer.
    pub tokens: Option<TokenUse>,
    /// Why the expected answer is invalid, by the schema in the editor.
    pub invalid: Option<String>,
    /// The expected answer as formatted JSON.
    pub expected: Option<String>,
    /// Name and formatted text of the row's own schema, or why it cannot be read.
    pub schema: Option<(String, String)>,
    /// The whole prompt, for copying.
    pub prompt: String,
}

/// Tokens of a prompt by part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenUse {
    pub prompt: usize,
    /// Tokens of the task's and the row's system text.
    pub system: usize,
    /// Tokens of the other turns.
    pub turns: usize,
    /// The expected answer on one line.
    pub expected: Option<usize>,
}

#[derive(Debug, Clone)]
pub struct Counter {
    /// The model's tokenizer and template.
    pub tokenizer: Arc<Tokenizer>,
    pub name: String,
    /// Why it is not the base model's, if so.
    pub note: Option<String>,
    /// Prompt and completion together.
    pub max_seq_len: usize,
    pub max_completion_tokens: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `None` for expected answers that the schema in the editor rejects.
    pub kind: Option<FindingKind>,
    /// In a filter, such as `enum` of `is:enum`.
    pub slug: String,
    pub title: String,
    pub level: Level,
    /// Findings; lines that are no rows included.
    pub count: usize,
    /// Entries, ascending.
    pub rows: Vec<u32>,
    /// The first finding, in words.
    pub example: String,
    /// Set and line of the first finding, if it has a line.
    pub place: Option<(PromptSet, usize)>,
}

/// A file before and after a change of rows.
#[derive(Debug, Clone)]
pub struct FileChange {
    path: PathBuf,
    before: String,
    after: String,
}
