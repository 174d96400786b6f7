//! Screen: what correct means. The schema in an editor, and beside it what it accepts, how the samples score now, and what lazy answers would earn.

mod actions;
mod draw;
mod layout;
mod score_preview;
mod side_panes;

use crossterm::event::{KeyCode, KeyEvent, MouseButton, MouseEvent, MouseEventKind};

use super::{Change, ScreenDef};
use crate::score::Accepted;
use crate::score::audit::Finding;
use crate::view::app::Model;
use crate::view::drafts;
use crate::view::message::Command;
use crate::view::schema_draft;
use crate::view::screens::Screen;
use crate::view::widgets::editor::{Editor, Effect};
use crate::view::widgets::list_cursor::Cursor;
pub use layout::{ACCEPTS, EDITOR, LAZY, SCORES};
pub use score_preview::ScorePreview;

/// Rows of a page in the panes beside the editor; the page keys leave one of them in sight.
const PAGE_ROWS: usize = 11;

/// The screen's own part of the model.
#[derive(Debug)]
pub struct Schema {
    /// The text under edit.
    pub editor: Editor,
    /// Whether keys are typed into it.
    pub typing: bool,
    /// What the last schema that compiled accepts, in words.
    pub accepts: Vec<Accepted>,
    /// How the task's samples score with it.
    pub effects: Option<ScorePreview>,
    /// What lazy answers would earn with it.
    pub lazy: Option<Vec<Finding>>,
    pane: &'static str,
    /// First lines of the panes beside the editor, by their place.
    tops: [Cursor; 4],
    /// The text that was last given to the editor or came from it.
    shown: Option<String>,
    described: u64,
    /// Whether samples and lazy answers wait to be scored until somebody looks.
    is_waiting: bool,
}

impl Default for Schema {
    fn default() -> Self {
        Self {
            editor: Editor::new("", true),
            typing: false,
            accepts: Vec::new(),
            effects: None,
            lazy: None,
            pane: EDITOR,
            tops: [Cursor::default(); 4],
            shown: None,
            described: 0,
            is_waiting: false,
        }
    }
}

pub const PARTS: ScreenDef = ScreenDef {
    title: "Schema",
    help: "JSON Schema of a correct answer. Samples are re-scored as you type; enter edits, esc leaves.",
    panes: &layout::PANES,
    actions: actions::ACTIONS,
    pane: |model| model.schema.pane,
    focus: |model, pane| {
        model.schema.pane = pane;
        model.schema.typing = false;
    },
    is_typing: |model| model.schema.typing && model.schema.pane == EDITOR,
    takes_tab: |model| model.schema.typing && model.schema.pane == EDITOR,
    typed,
    pasted,
    mouse,
    opens: |model, (column, row)| layout::pane_at(model, column, row).is_some_and(|(pane, _)| pane == EDITOR),
    entered,
    changed,
    draw: draw::draw,
};

fn entered(model: &mut Model) -> Vec<Command> {
    let mut commands = schema_draft::second(model);
    if std::mem::take(&mut model.schema.is_waiting) {
        commands.extend(score_preview::compute(model));
    }
    commands
}

fn changed(model: &mut Model, change: &Change) -> Vec<Command> {
    match change {
        Change::Task => {
            let mut commands = schema_draft::open(model);
            commands.extend(show_text(model));
            model.schema.described = 0;
            commands.extend(drafts::look::<Schema>(model));
            commands
        }
        Change::Schema => {
            describe(model);
            model.schema.is_waiting = model.shared.screen != Screen::Schema;
            if model.schema.is_waiting { Vec::new() } else { score_preview::compute(model) }
        }
        Change::Second => schema_draft::second(model),
        Change::File(path) => schema_draft::file_written(model, path),
        _ => Vec::new(),
    }
}

fn describe(model: &mut Model) {
    let draft = &model.shared.draft;
    if let Some(task) = draft.task.as_ref().filter(|_| draft.version != model.schema.described) {
        model.schema.accepts = crate::score::describe(&task.schema, task.score.assert_formats);
        model.schema.described = draft.version;
    }
}

/// Bring the editor to the draft's text.
pub fn show_text(model: &mut Model) -> Vec<Command> {
    let text = &model.shared.draft.text;
    let state = &mut model.schema;
    if state.shown.as_ref() != Some(text) {
        match state.shown.is_none() || state.editor.lines() == [String::new()] {
            true => state.editor = Editor::new(text, true),
            false => state.editor.replace(text),
        }
        state.shown = Some(text.clone());
    }
    follow(model);
    Vec::new()
}

/// After a key: the window follows the cursor, and a changed text becomes the draft.
fn after(model: &mut Model, effect: Effect) -> Vec<Command> {
    if effect != Effect::None {
        follow(model);
    }
    if effect != Effect::Edited {
        return Vec::new();
    }
    let text = model.schema.editor.text();
    model.schema.shown = Some(text.clone());
    schema_draft::edited(model, text)
}

fn follow(model: &mut Model) {
    let (rows, columns) = layout::window(model);
    model.schema.editor.follow(rows, columns);
}

fn typed(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    let (rows, _) = layout::window(model);
    if model.schema.pane != EDITOR {
        scroll(model, model.schema.pane, |top, length| _ = top.key(event, PAGE_ROWS, length));
        return Vec::new();
    }
    let editor = &mut model.schema.editor;
    if model.schema.typing {
        let effect = editor.key(event, rows);
        return after(model, effect);
    }
    // Outside typing letters move, and nothing changes the text.
    let (_, column) = editor.cursor();
    let code = match event.code {
        KeyCode::Char('j') => KeyCode::Down,
        KeyCode::Char('k') => KeyCode::Up,
        KeyCode::Char('h') => KeyCode::Left,
        KeyCode::Char('l') => KeyCode::Right,
        KeyCode::Char('g') => {
            editor.go_to(0, column);
            return after(model, Effect::Moved);
        }
        KeyCode::Char('G') => {
            editor.go_to(usize::MAX, column);
            return after(model, Effect::Moved);
        }
        code => code,
    };
    let moves =
        [KeyCode::Left, KeyCode::Right, KeyCode::Up, KeyCode::Down, KeyCode::Home, KeyCode::End, KeyCode::PageUp, KeyCode::PageDown];
    let effect = if moves.contains(&code) { editor.key(KeyEvent::new(code, event.modifiers), rows) } else { Effect::None };
    after(model, effect)
}

fn scroll(model: &mut Model, pane: &'static str, go: impl FnOnce(&mut Cursor, usize)) {
    let length = side_panes::lines(model, pane).len();
    if let Some(top) = layout::PANES.iter().position(|other| *other == pane).and_then(|place| model.schema.tops.get_mut(place)) {
        go(top, length);
    }
}

fn pasted(model: &mut Model, text: &str) -> Vec<Command> {
    if !model.schema.typing {
        model.shared.complain("press enter to edit, then paste");
        return Vec::new();
    }
    let effect = model.schema.editor.paste(text);
    after(model, effect)
}

fn mouse(model: &mut Model, event: MouseEvent) -> Vec<Command> {
    let Some((pane, area)) = layout::pane_at(model, event.column, event.row) else { return Vec::new() };
    let by = match event.kind {
        MouseEventKind::ScrollDown => 3,
        MouseEventKind::ScrollUp => -3,
        MouseEventKind::Down(MouseButton::Left) => {
            if pane != model.schema.pane {
                (PARTS.focus)(model, pane);
            }
            if pane == EDITOR {
                let inner = layout::text_area(model, area);
                if let (Some(row), Some(column)) = (event.row.checked_sub(inner.y), event.column.checked_sub(inner.x)) {
                    model.schema.editor.click(row as usize, column as usize);
                }
            }
            return Vec::new();
        }
        _ => return Vec::new(),
    };
    if pane == EDITOR {
        let (rows, _) = layout::window(model);
        model.schema.editor.scroll(by, rows);
    } else {
        scroll(model, pane, |top, length| top.go(by, length));
    }
    Vec::new()
}
