//! The prompts screen: all prompt rows as a table, the selected one as the model sees it, editing, and the health of
//! the sets.

pub mod actions;
mod draw;
mod editing;
mod layout;
mod messages_text;
mod preview;
mod row_editor;
mod rows;
mod save;
mod table;
mod table_row;
mod token_count;

use std::sync::Arc;

use crate::dataset::PromptRow;
use crate::dataset::health::Health;
use crate::task::PromptSet;
use crate::text::Tokenizer;
use crate::view::message::ScreenState;
use crate::view::shared::Shared;
use crate::view::widgets::filter::Filter;
use crate::view::widgets::list_cursor::Cursor;
use editing::Editing;
use table_row::{Column, Entry, row};

const ROWS: &str = "rows";
/// The selected row as the model sees it.
const CHAT: &str = "prompt preview";
/// The health of the sets.
const HEALTH: &str = "health";
const EDITOR: &str = "editor";
/// The panes in tab order; the editor is there only while it is open.
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
    /// Tokens of each entry.
    pub tokens: Vec<u32>,
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
    /// Whether the current rows are counted, or about to be.
    is_counted: bool,
    chat_top: Cursor,
    /// The row to select once the task has been read again.
    select_next: Option<(PromptSet, usize)>,
}

impl ScreenState for Prompts {
    type Shared = Shared;
}

impl Prompts {
    fn is_typing(&self) -> bool {
        self.filter.is_typing || self.editing.is_some()
    }

    /// The focused pane.
    fn pane(&self) -> &'static str {
        if self.editing.is_some() { EDITOR } else { self.pane.unwrap_or(ROWS) }
    }

    /// The entry under the cursor.
    fn selected(&self) -> Option<Entry> {
        let place = self.cursor.at(self.shown.len())?;
        self.entries.get(*self.shown.get(place)? as usize).copied()
    }

    /// The row under the cursor.
    fn selected_row<'a>(&self, shared: &'a Shared) -> Option<&'a PromptRow> {
        row(shared.task.as_ref()?, self.selected()?)
    }

    /// Set and line of the row under the cursor.
    fn selected_place(&self, shared: &Shared) -> Option<(PromptSet, usize)> {
        Some((self.selected()?.set, self.selected_row(shared)?.line))
    }
}

/// A row as the model will see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Chat {
    pub entry: Entry,
    /// Lines of pieces, each a special token or not; or why the template rejects the row.
    pub lines: Result<Vec<Vec<(String, bool)>>, String>,
    /// Tokens of the prompt; `None` without a tokenizer.
    pub tokens: Option<usize>,
    /// The expected answer as formatted JSON.
    pub expected: Option<String>,
    /// The whole prompt, for copying.
    pub prompt: String,
}

#[derive(Debug, Clone)]
pub struct Counter {
    /// The model's tokenizer and template.
    pub tokenizer: Arc<Tokenizer>,
    pub name: String,
    /// Why it is not the base model's, if so.
    pub note: Option<String>,
}
