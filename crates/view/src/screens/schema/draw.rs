//! Draws the schema screen.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::layout::areas;
use super::{EDITOR, OUTLINE, PANES, PROGRAM, Schema, keyword_help, layout, outline_pane, program_pane, side_panes};
use crate::drafts::choice;
use crate::format::counted;
use crate::pane::{pane, scrolled, text_pane};
use crate::secrets::visible;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::editor::paint::{Look, fault_at, paint};
use crate::widgets::text_width::fitted;

pub(super) fn draw(schema: &Schema, shared: &Shared, frame: &mut Frame<'_>, body: Rect) {
    // Without a task that can be read, its `task.toml` may be there to be mended.
    if let Some(why) = shared.no_task().filter(|_| shared.draft.base.is_none() || shared.task_error.is_none()) {
        let role = if shared.task_error.is_some() { Role::Bad } else { Role::Faint };
        return text_pane(&shared.theme, "schema", (role, &why), frame, body);
    }
    choice::draw(schema, shared, frame, body);
    for (name, area) in areas(schema, shared, body) {
        match name {
            EDITOR => editor(schema, shared, frame, area),
            other => side(schema, shared, frame, area, other),
        }
    }
    let at = schema.editor.screen_position(
        schema.editor.cursor(),
        layout::editor(schema, shared),
        shared.wraps(&schema.editor),
    );
    if let Some((completion, at)) = schema.completion.as_ref().zip(at) {
        completion.draw(&shared.theme, frame, body, at);
    }
}

fn editor(schema: &Schema, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
    let theme = &shared.theme;
    let draft = &shared.draft;
    let focused = schema.pane == EDITOR;
    let name = draft.base.as_ref().map_or("", |base| base.definition_file.as_str());
    let unsaved = if draft.is_changed() { " (unsaved)" } else { "" };
    let leave = || format!("  editing, {} leaves", shared.key_of("schema.leave"));
    let typing = if schema.typing { leave() } else { String::new() };
    let (row, column) = schema.editor.cursor();
    let here = fault_at(&draft.faults, (row, column));
    let errors = draft.faults.iter().filter(|fault| fault.is_error).count();
    let warnings = draft.faults.len() - errors;
    let status = match here {
        Some(fault) => {
            let mark = if fault.is_error { theme.glyph("✗", "x") } else { theme.glyph("▲", "!") };
            Span::styled(
                format!(" {mark} {} ", fault.message),
                theme.style(if fault.is_error { Role::Bad } else { Role::Warning }),
            )
        }
        None if errors > 0 => {
            let line = draft.faults.iter().find(|fault| fault.is_error).map_or(0, |fault| fault.line);
            Span::styled(
                format!(" {} {} in line {line} ", theme.glyph("✗", "x"), counted(errors, "error")),
                theme.style(Role::Bad),
            )
        }
        None if warnings > 0 => Span::styled(
            format!(" {} {} ", theme.glyph("▲", "!"), counted(warnings, "warning")),
            theme.style(Role::Warning),
        ),
        None => compiles(schema, theme),
    };
    let bottom =
        Line::from(vec![Span::styled(format!(" {}:{} ", row + 1, column + 1), theme.style(Role::Faint)), status]);
    let frame_of = pane(theme, &format!("{name}{unsaved}{typing}"), focused);
    let inner = frame_of.inner(area);
    // The rest of the lower edge explains what is under the cursor, if most of that fits.
    let room = (inner.width as usize).saturating_sub(bottom.width() + 1);
    let about = keyword_help::brief(&schema.structure, (row, column)).filter(|_| focused && here.is_none());
    let about = about
        .map(|about| format!(" {} ", fitted(&visible(&about), room.saturating_sub(2))))
        .filter(|_| room >= MIN_HELP_COLUMNS);
    let frame_of = frame_of.title_bottom(bottom);
    let frame_of = match about {
        Some(about) => frame_of.title_bottom(Line::styled(about, theme.style(Role::Faint)).right_aligned()),
        None => frame_of,
    };
    frame.render_widget(frame_of, area);
    paint(
        &schema.editor,
        Look { theme, typing: schema.typing, focused, faults: &draft.faults, wraps: shared.wraps(&schema.editor) },
        frame,
        inner,
    );
}

/// That the schema compiles, and how many expected answers it rejects.
fn compiles(schema: &Schema, theme: &Theme) -> Span<'static> {
    match schema.rejections.as_ref().map_or(0, |found| found.rejected) {
        0 => Span::styled(format!(" {} compiles ", theme.glyph("✓", "ok:")), theme.style(Role::Good)),
        rejected => {
            let what = counted(rejected, "answer");
            Span::styled(format!(" {} rejects {what} ", theme.glyph("▲", "!")), theme.style(Role::Warning))
        }
    }
}

/// The fewest columns for an explanation of what is under the cursor.
const MIN_HELP_COLUMNS: usize = 24;

fn side(schema: &Schema, shared: &Shared, frame: &mut Frame<'_>, area: Rect, name: &'static str) {
    let theme = &shared.theme;
    // Stale: of the last schema that compiled, not of the current text.
    let stale = match name {
        OUTLINE => shared.draft.is_outline_old,
        // Nothing of an older text is shown.
        _ if name == PROGRAM || program_pane::untrusted(shared).is_some() => false,
        _ => shared.draft.stale.is_some() && shared.draft.scorer.is_some(),
    };
    let title = if stale { format!("STALE {name}") } else { name.to_owned() };
    let mut frame_of = pane(theme, &title, schema.pane == name);
    if stale {
        frame_of = frame_of.border_style(theme.style(Role::Warning));
    }
    let inner = frame_of.inner(area);
    let place = PANES.iter().position(|pane| *pane == name).unwrap_or(0);
    let (lines, top) = match name {
        OUTLINE => outline_pane::lines(schema, shared, inner),
        _ => {
            let lines = side_panes::lines(schema, shared, name);
            let top = schema.tops.get(place).and_then(|top| top.at(lines.len())).unwrap_or(0);
            (lines, top)
        }
    };
    frame.render_widget(frame_of, area);
    scrolled(theme, (lines, top), "", frame, inner);
}
