//! The actions of the schema screen.

use crossterm::event::{KeyCode, KeyEvent, MouseButton, MouseEvent, MouseEventKind};
use ratatui::text::{Line, Span};

use super::file::{follow, show_text};
use super::{EDITOR, PANES, Schema, draw, file, layout, score_preview, side_panes};
use crate::score::Fault;
use crate::view::action::Scope;
use crate::view::drafts;
use crate::view::drafts::choice::{self, undecided};
use crate::view::message::{Change, Command};
use crate::view::popup::{Ask, Confirm, Page, Popup};
use crate::view::screen::{self, Definition};
use crate::view::screens::Screen;
use crate::view::shared::Shared;
use crate::view::style_role::Role;
use crate::view::widgets::editor::Effect;
use crate::view::widgets::editor::paint::text_area;
use crate::view::widgets::list_cursor::Cursor;

/// Rows of a page in the side panes; the page keys keep one line in view.
const PAGE_ROWS: usize = 11;

type Action = screen::Action<Schema>;

pub const SCREEN: Definition<Schema> = Definition {
    title: "Schema",
    help: "JSON Schema of a correct answer. Samples are re-scored as you type; enter edits, esc leaves.",
    panes: &PANES,
    actions: ACTIONS,
    pane: |schema| schema.pane,
    focus,
    is_typing: Schema::is_typing,
    takes_tab: Schema::is_typing,
    on_key,
    on_paste,
    mouse,
    opens: |schema, shared, (column, row)| {
        layout::pane_at(schema, shared, column, row).is_some_and(|(pane, _)| pane == EDITOR)
    },
    on_show,
    on_change,
    draw: draw::draw,
};

const HERE: Scope = Scope::Screen(Screen::Schema);
const IN_EDITOR: Scope = Scope::Pane(Screen::Schema, EDITOR);

const ACTIONS: &[Action] = &[
    Action::new("schema.type", "Edit schema", "edit", &["enter", "i"], IN_EDITOR, |schema, _| {
        schema.typing = true;
        Vec::new()
    })
    .also(&["edit", "insert"])
    .asking()
    .unless(|schema, shared| no_text(schema, shared).or_else(|| undecided(schema, shared)).or_else(|| typing(schema))),
    Action::new("schema.leave", "Leave editor", "leave", &["esc"], IN_EDITOR, leave),
    Action::new("schema.undo", "Undo", "undo", &["ctrl-u", "u"], IN_EDITOR, |schema, shared| {
        let undone = schema.editor.undo();
        done(schema, shared, undone, "nothing to undo")
    }),
    Action::new("schema.redo", "Redo", "", &["ctrl-r", "U"], IN_EDITOR, |schema, shared| {
        let redone = schema.editor.redo();
        done(schema, shared, redone, "nothing to redo")
    }),
    Action::new("schema.find", "Find", "find", &["ctrl-f", "/"], IN_EDITOR, find).also(&["find", "search"]).asking(),
    Action::new("schema.find.next", "Next match", "", &["n"], IN_EDITOR, |schema, shared| {
        find_next(schema, shared, true)
    })
    .unless(no_search),
    Action::new("schema.find.previous", "Previous match", "", &["N"], IN_EDITOR, |schema, shared| {
        find_next(schema, shared, false)
    })
    .unless(no_search),
    Action::new("schema.line", "Go to line", "", &["ctrl-g"], IN_EDITOR, go_to_line).also(&["goto"]).asking(),
    Action::new("schema.fault.next", "Next problem", "", &["]", "f8"], IN_EDITOR, |schema, shared| {
        next_fault(schema, shared, true)
    })
    .unless(no_faults),
    Action::new("schema.fault.previous", "Previous problem", "", &["["], IN_EDITOR, |schema, shared| {
        next_fault(schema, shared, false)
    })
    .unless(no_faults),
    Action::new("schema.faults", "List problems", "", &["!"], IN_EDITOR, list_faults)
        .also(&["errors", "warnings", "problems"])
        .unless(no_faults),
    Action::new("schema.format", "Format", "format", &["alt-f", "="], IN_EDITOR, format)
        .also(&["format", "indent", "prettify"])
        .unless(no_text),
    Action::new("schema.select", "Select all", "", &["alt-a"], IN_EDITOR, |schema, _| {
        schema.editor.select_all();
        Vec::new()
    }),
    Action::new("schema.save", "Save schema", "save", &["ctrl-o", "w"], HERE, save).also(&["write"]).unless(
        |schema, shared| no_text(schema, shared).or_else(|| undecided(schema, shared)).or_else(|| unchanged(shared)),
    ),
    Action::new("schema.copy", "Copy", "", &["y", "alt-y"], HERE, copy).also(&["yank", "clipboard"]).unless(no_text),
    Action::new("schema.outside", "Open in $EDITOR", "$EDITOR", &["e", "alt-e"], HERE, |schema, shared| {
        let line = schema.editor.cursor().0 + 1;
        schema.typing = false;
        file::edit_outside(shared, line)
    })
    .also(&["editor", "vim"])
    .unless(|schema, shared| no_text(schema, shared).or_else(|| undecided(schema, shared))),
    Action::new("schema.revert", "Revert to saved", "", &["R"], HERE, revert).also(&["revert", "reset"]).unless(
        |schema, shared| no_text(schema, shared).or_else(|| undecided(schema, shared)).or_else(|| unchanged(shared)),
    ),
    choice::take_action(),
    choice::keep_action(),
    choice::discard_action(),
    choice::difference_action(),
];

fn no_text(_: &Schema, shared: &Shared) -> Option<String> {
    shared.task.is_none().then(|| "no task is open".to_owned())
}

fn typing(schema: &Schema) -> Option<String> {
    schema.typing.then(|| "already editing".to_owned())
}

fn unchanged(shared: &Shared) -> Option<String> {
    (!shared.draft.is_changed()).then(|| "no unsaved changes".to_owned())
}

fn no_search(schema: &Schema, shared: &Shared) -> Option<String> {
    schema.editor.query().is_empty().then(|| format!("no search: {} finds text", shared.key_of("schema.find")))
}

fn no_faults(_: &Schema, shared: &Shared) -> Option<String> {
    shared.draft.faults.is_empty().then(|| "no problems".to_owned())
}

/// Saves; asks first if the schema does not compile.
fn save(_: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let Some(why) = shared.draft.stale.clone() else { return file::save(shared) };
    let text = format!("{why}\n\nRuns and other programs that read this file will fail.");
    shared.popup =
        Some(Popup::Confirm(Confirm::new("Save invalid schema?", text, "save anyway", |_: &mut Schema, shared| {
            file::save(shared)
        })));
    Vec::new()
}

fn revert(_: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let text = "Unsaved edits are lost (undo restores them in this session).";
    shared.popup = Some(Popup::Confirm(Confirm::new("Revert to saved?", text, "revert", file::revert)));
    Vec::new()
}

fn leave(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    if !schema.typing {
        schema.editor.unselect();
        _ = schema.editor.find("");
        return Vec::new();
    }
    schema.typing = false;
    file::second(schema, shared)
}

fn done(schema: &mut Schema, shared: &mut Shared, is_done: bool, else_say: &str) -> Vec<Command> {
    if !is_done {
        shared.complain(else_say);
    }
    after(schema, shared, if is_done { Effect::Edited } else { Effect::None })
}

fn find(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let before = schema
        .editor
        .selected()
        .filter(|text| !text.contains('\n'))
        .unwrap_or_else(|| schema.editor.query().to_owned());
    let [next, previous] = ["next", "previous"].map(|id| shared.key_of(&format!("schema.find.{id}")));
    let ask = Ask::new(
        "Find",
        format!("Find text (case-sensitive if it has capitals); {next} and {previous} jump between matches:"),
        &before,
        |schema: &mut Schema, shared, query| {
            match schema.editor.find(&query) {
                0 => {}
                count => shared.say(format!("{query:?}: {count} {}", if count == 1 { "match" } else { "matches" })),
            }
            follow(schema, shared);
            Vec::new()
        },
    );
    let editor = schema.editor.clone();
    let ask = ask.checked(move |query| {
        let is_there = query.is_empty() || editor.contains(query);
        (!is_there).then(|| format!("{query:?}: no matches"))
    });
    shared.popup = Some(Popup::Ask(ask));
    Vec::new()
}

fn find_next(schema: &mut Schema, shared: &mut Shared, forward: bool) -> Vec<Command> {
    schema.editor.find_next(forward);
    follow(schema, shared);
    Vec::new()
}

fn go_to_line(_: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let ask = Ask::new("Go to line", "Line:", "", |schema: &mut Schema, shared, line| {
        let line: usize = line.trim().parse().unwrap_or(1);
        schema.editor.go_to(line.saturating_sub(1), 0);
        follow(schema, shared);
        Vec::new()
    });
    let ask = ask.checked(|text| match text.trim().parse::<usize>() {
        Ok(number) if number > 0 => None,
        _ => Some("must be a whole number from 1".to_owned()),
    });
    shared.popup = Some(Popup::Ask(ask));
    Vec::new()
}

fn next_fault(schema: &mut Schema, shared: &mut Shared, forward: bool) -> Vec<Command> {
    let (row, column) = schema.editor.cursor();
    let places: Vec<(usize, usize)> =
        shared.draft.faults.iter().map(|fault| (fault.line - 1, fault.column - 1)).collect();
    let found = match forward {
        true => places.iter().find(|place| **place > (row, column)).or(places.first()),
        false => places.iter().rev().find(|place| **place < (row, column)).or(places.last()),
    };
    if let Some((row, column)) = found {
        schema.editor.go_to(*row, *column);
        follow(schema, shared);
    }
    Vec::new()
}

fn list_faults(_: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let theme = &shared.theme;
    let line = |fault: &Fault| {
        let (mark, role) = if fault.is_error {
            (theme.glyph("✗", "x"), Role::Bad)
        } else {
            (theme.glyph("▲", "!"), Role::Warning)
        };
        let place = format!("line {} column {}: ", fault.line, fault.column);
        Line::from(vec![
            Span::styled(format!("{mark} "), theme.style(role)),
            Span::styled(place, theme.style(Role::Faint)),
            Span::raw(fault.message.clone()),
        ])
    };
    let lines = shared.draft.faults.iter().map(line).collect();
    shared.popup = Some(Popup::Page(Page::new("Problems", lines)));
    Vec::new()
}

fn format(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    match crate::score::json::format(&schema.editor.text()) {
        Ok(text) if text == schema.editor.text() => {
            shared.say("already formatted");
            Vec::new()
        }
        Ok(text) => {
            schema.editor.replace(&text);
            after(schema, shared, Effect::Edited)
        }
        Err(error) => {
            shared.complain(format!("cannot format: {error}"));
            Vec::new()
        }
    }
}

fn copy(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let (text, what) = match schema.editor.selected() {
        Some(text) => (text, "selection"),
        None => (schema.editor.text(), "schema"),
    };
    shared.say(format!("{what} copied"));
    vec![Command::Copy(text)]
}

fn focus(schema: &mut Schema, _: &mut Shared, pane: &'static str) {
    schema.pane = pane;
    schema.typing = false;
}

fn on_show(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let mut commands = file::second(schema, shared);
    if std::mem::take(&mut schema.is_waiting) {
        commands.extend(score_preview::compute(shared));
    }
    commands
}

fn on_change(schema: &mut Schema, shared: &mut Shared, change: &Change) -> Vec<Command> {
    match change {
        Change::Task => {
            let mut commands = file::open(schema, shared);
            show_text(schema, shared);
            schema.described = 0;
            commands.extend(drafts::look::<Schema>(shared));
            commands
        }
        Change::Schema => {
            describe(schema, shared);
            schema.is_waiting = shared.screen != Screen::Schema;
            if schema.is_waiting { Vec::new() } else { score_preview::compute(shared) }
        }
        Change::Second => file::second(schema, shared),
        Change::Copied(copy) => file::copied(schema, shared, copy),
        Change::File(path) => file::file_written(shared, path),
        _ => Vec::new(),
    }
}

fn describe(schema: &mut Schema, shared: &Shared) {
    let draft = &shared.draft;
    if let Some(task) = draft.task.as_ref().filter(|_| draft.version != schema.described) {
        schema.accepts = crate::score::describe(&task.schema, task.score.assert_formats);
        schema.described = draft.version;
    }
}

/// After a key: scrolls to the cursor, and a changed text becomes the draft.
fn after(schema: &mut Schema, shared: &mut Shared, effect: Effect) -> Vec<Command> {
    if effect != Effect::None {
        follow(schema, shared);
    }
    if effect != Effect::Edited {
        return Vec::new();
    }
    let text = schema.editor.text();
    schema.shown = Some(text.clone());
    file::edited(shared, text)
}

fn on_key(schema: &mut Schema, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
    let (rows, _) = layout::window(schema, shared);
    if schema.pane != EDITOR {
        let pane = schema.pane;
        scroll(schema, shared, pane, |top, length| _ = top.key(event, PAGE_ROWS, length));
        return Vec::new();
    }
    let editor = &mut schema.editor;
    if schema.typing {
        let effect = editor.key(event, rows);
        return after(schema, shared, effect);
    }
    // Outside of typing letters move, and nothing changes the text.
    let (_, column) = editor.cursor();
    let code = match event.code {
        KeyCode::Char('j') => KeyCode::Down,
        KeyCode::Char('k') => KeyCode::Up,
        KeyCode::Char('h') => KeyCode::Left,
        KeyCode::Char('l') => KeyCode::Right,
        KeyCode::Char('g') => {
            editor.go_to(0, column);
            return after(schema, shared, Effect::Moved);
        }
        KeyCode::Char('G') => {
            editor.go_to(usize::MAX, column);
            return after(schema, shared, Effect::Moved);
        }
        code => code,
    };
    let moves = [
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::PageUp,
        KeyCode::PageDown,
    ];
    let effect =
        if moves.contains(&code) { editor.key(KeyEvent::new(code, event.modifiers), rows) } else { Effect::None };
    after(schema, shared, effect)
}

fn scroll(schema: &mut Schema, shared: &mut Shared, pane: &'static str, go: impl FnOnce(&mut Cursor, usize)) {
    let length = side_panes::lines(schema, shared, pane).len();
    if let Some(top) = PANES.iter().position(|other| *other == pane).and_then(|place| schema.tops.get_mut(place)) {
        go(top, length);
    }
}

fn on_paste(schema: &mut Schema, shared: &mut Shared, text: &str) -> Vec<Command> {
    if !schema.typing {
        shared.complain(format!("press {} to edit, then paste", shared.key_of("schema.type")));
        return Vec::new();
    }
    let effect = schema.editor.paste(text);
    after(schema, shared, effect)
}

fn mouse(schema: &mut Schema, shared: &mut Shared, event: MouseEvent) -> Vec<Command> {
    let Some((pane, area)) = layout::pane_at(schema, shared, event.column, event.row) else { return Vec::new() };
    let by = match event.kind {
        MouseEventKind::ScrollDown => 3,
        MouseEventKind::ScrollUp => -3,
        MouseEventKind::Down(MouseButton::Left) => {
            if pane != schema.pane {
                focus(schema, shared, pane);
            }
            if pane == EDITOR {
                let inner = text_area(&schema.editor, area);
                if let (Some(row), Some(column)) = (event.row.checked_sub(inner.y), event.column.checked_sub(inner.x)) {
                    schema.editor.click(row as usize, column as usize);
                }
            }
            return Vec::new();
        }
        _ => return Vec::new(),
    };
    if pane == EDITOR {
        let (rows, _) = layout::window(schema, shared);
        schema.editor.scroll(by, rows);
    } else {
        scroll(schema, shared, pane, |top, length| top.go(by, length));
    }
    Vec::new()
}
