//! What keys and the mouse do in a pane, the same on every screen: move, scroll, select, focus, edit, open.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};

use super::message::Command;
use super::pane::content::{Body, Hit, Spot};
use super::screen::Screen;
use super::shared::Shared;
use super::widgets::editor::Effect;
use super::widgets::list_cursor::Motion;

/// Lines per step of the wheel; in a list that is not long, one.
const WHEEL: isize = 3;

/// The longest text taken from the clipboard.
const MAX_BYTES: usize = 4 << 20;

pub fn go(
    screen: &mut dyn Screen,
    shared: &mut Shared,
    pane: &'static str,
    motion: Motion,
) -> Vec<Command> {
    if let Some(commands) = screen.on_motion(shared, pane, motion) {
        return commands;
    }
    if editor_area(screen, shared, pane).is_some() {
        let code = match motion {
            Motion::Down => KeyCode::Down,
            Motion::Up => KeyCode::Up,
            Motion::PageDown => KeyCode::PageDown,
            Motion::PageUp => KeyCode::PageUp,
            Motion::First => KeyCode::Home,
            Motion::Last => KeyCode::End,
        };
        let is_end = matches!(motion, Motion::First | Motion::Last);
        let modifiers = if is_end {
            KeyModifiers::CONTROL
        } else {
            KeyModifiers::NONE
        };
        return edit(screen, shared, KeyEvent::new(code, modifiers));
    }
    let Some((page, length, _)) = extent(screen, shared, pane, 0) else {
        return Vec::new();
    };
    let Some(cursor) = screen.cursor(pane) else {
        return Vec::new();
    };
    cursor.follow(motion, page, length);
    screen.moved(shared, pane)
}

/// Rows of a page of a pane, positions of its cursor, and whether these are lines of a text.
fn extent(
    screen: &dyn Screen,
    shared: &Shared,
    pane: &str,
    part: usize,
) -> Option<(usize, usize, bool)> {
    let places = screen.places(shared, shared.body());
    let place = places
        .iter()
        .find(|place| place.id == pane && place.part == part)?;
    let content = screen.content(shared, place);
    let (page, length) = content.extent(place.inside());
    Some((page, length, matches!(content.body, Body::Text(_))))
}

pub fn key(screen: &mut dyn Screen, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
    if let Some(commands) = screen.on_key(shared, event) {
        return commands;
    }
    if let Some(field) = screen.field() {
        return if field.key(event) {
            screen.typed(shared)
        } else {
            Vec::new()
        };
    }
    if screen.is_typing() {
        edit(screen, shared, event)
    } else {
        Vec::new()
    }
}

pub fn paste(screen: &mut dyn Screen, shared: &mut Shared, text: &str) -> Vec<Command> {
    if text.len() > MAX_BYTES {
        return shared.complain(format!(
            "pasted text is {} MB; limit {} MB",
            text.len() >> 20,
            MAX_BYTES >> 20
        ));
    }
    if let Some(field) = screen.field() {
        field.paste(text);
        return screen.typed(shared);
    }
    if let Some(editor) = screen.is_typing().then(|| screen.editor(shared)).flatten() {
        let effect = editor.paste(text);
        return edited(screen, shared, effect);
    }
    screen.on_paste(shared, text)
}

pub fn edit(screen: &mut dyn Screen, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
    let Some(area) = editor_area(screen, shared, screen.pane()) else {
        return Vec::new();
    };
    let Some(editor) = screen.editor(shared) else {
        return Vec::new();
    };
    let window = editor.window_in(area, shared.wraps(editor));
    let effect = editor.key(event, window, shared.now_ms);
    edited(screen, shared, effect)
}

pub fn edited(screen: &mut dyn Screen, shared: &mut Shared, effect: Effect) -> Vec<Command> {
    if effect == Effect::None {
        return Vec::new();
    }
    follow(screen, shared);
    screen.edited(shared, effect)
}

pub fn follow(screen: &mut dyn Screen, shared: &Shared) {
    let area = editor_area(screen, shared, screen.pane());
    if let (Some(area), Some(editor)) = (area, screen.editor(shared)) {
        editor.follow(editor.window_in(area, shared.wraps(editor)));
    }
}

pub fn editor_area(screen: &dyn Screen, shared: &Shared, pane: &str) -> Option<Rect> {
    let places = screen.places(shared, shared.body());
    let place = places
        .iter()
        .find(|place| place.id == pane && place.part == 0)?;
    let content = screen.content(shared, place);
    matches!(content.body, Body::Editor(_)).then(|| content.parts(place.inside())[1])
}

pub fn hit(screen: &dyn Screen, shared: &Shared, at: Position) -> Option<Hit> {
    let places = screen.places(shared, shared.body());
    let place = places
        .into_iter()
        .rev()
        .find(|place| place.area.contains(at))?;
    let content = screen.content(shared, &place);
    let is_editor = matches!(content.body, Body::Editor(_));
    Some(Hit {
        place,
        spot: content.spot(place.inside(), at),
        at,
        is_editor,
        opens: content.opens,
    })
}

/// A click focuses a pane and selects what is under it; on a link it acts. The wheel moves what is under it.
pub fn mouse(screen: &mut dyn Screen, shared: &mut Shared, event: MouseEvent) -> Vec<Command> {
    if matches!(event.kind, MouseEventKind::Drag(MouseButton::Left)) {
        return point(screen, shared, event);
    }
    let at = Position {
        x: event.column,
        y: event.row,
    };
    let Some(hit) = hit(screen, shared, at) else {
        return Vec::new();
    };
    if let Some(commands) = screen.pointed(shared, &hit, event) {
        return commands;
    }
    match event.kind {
        MouseEventKind::ScrollDown => wheel(screen, shared, &hit, 1),
        MouseEventKind::ScrollUp => wheel(screen, shared, &hit, -1),
        MouseEventKind::Down(MouseButton::Left) => {
            if let Spot::Link(action) = hit.spot {
                return vec![Command::Perform(action)];
            }
            screen.focus(shared, hit.place.id);
            select(screen, shared, &hit, event)
        }
        _ => Vec::new(),
    }
}

/// Moves the cursor to what was clicked; the title of a column sorts.
fn select(
    screen: &mut dyn Screen,
    shared: &mut Shared,
    hit: &Hit,
    event: MouseEvent,
) -> Vec<Command> {
    if hit.is_editor {
        return point(screen, shared, event);
    }
    if let Spot::Title(title) = hit.spot {
        return screen.sort_by(shared, &hit.place, title);
    }
    let Spot::Item(item) = hit.spot else {
        return Vec::new();
    };
    let Some(cursor) = screen.cursor(hit.place.id) else {
        return Vec::new();
    };
    cursor.index = item;
    screen.moved(shared, hit.place.id)
}

/// Moves the editor's cursor under the pointer; dragging selects.
fn point(screen: &mut dyn Screen, shared: &mut Shared, event: MouseEvent) -> Vec<Command> {
    let Some(area) = editor_area(screen, shared, screen.pane()) else {
        return Vec::new();
    };
    let Some(editor) = screen.editor(shared) else {
        return Vec::new();
    };
    let wraps = shared.wraps(editor);
    editor.pointer(event, area, wraps);
    Vec::new()
}

fn wheel(screen: &mut dyn Screen, shared: &mut Shared, hit: &Hit, by: isize) -> Vec<Command> {
    if hit.is_editor {
        let area = editor_area(screen, shared, hit.place.id);
        if let (Some(area), Some(editor)) = (area, screen.editor(shared)) {
            let window = editor.window_in(area, shared.wraps(editor));
            editor.scroll(by * WHEEL, window);
        }
        return Vec::new();
    }
    let Some((page, length, is_text)) = extent(screen, shared, hit.place.id, hit.place.part) else {
        return Vec::new();
    };
    let Some(cursor) = screen.cursor(hit.place.id) else {
        return Vec::new();
    };
    cursor.go(
        if is_text || length > 3 * page {
            by * WHEEL
        } else {
            by
        },
        length,
    );
    screen.moved(shared, hit.place.id)
}

/// Whether a double click at a position acts as enter.
pub fn opens(screen: &dyn Screen, shared: &Shared, at: Position) -> bool {
    hit(screen, shared, at).is_some_and(|hit| hit.opens || matches!(hit.spot, Spot::Item(_)))
}
