//! Questions before something is lost: saving what does not compile, going back to the saved text; and the difference between two texts.

use ratatui::text::{Line, Span};
use similar::{ChangeTag, TextDiff};

use crate::secrets::visible;
use crate::view::app::Model;
use crate::view::message::Command;
use crate::view::popup::{Confirm, Page, Popup};
use crate::view::schema_draft;
use crate::view::style_role::Role;

/// Save; what does not compile only after a confirmation.
pub(super) fn save(model: &mut Model) -> Vec<Command> {
    let Some(why) = model.shared.draft.stale.clone() else { return schema_draft::save(model) };
    let text = format!("{why}\n\nRuns and other programs that read this file will fail.");
    model.shared.popup = Some(Popup::Confirm(Confirm::new("Save invalid schema?", text, "save anyway", schema_draft::save)));
    Vec::new()
}

/// Back to the saved text, after a confirmation.
pub(super) fn revert(model: &mut Model) -> Vec<Command> {
    let text = "Unsaved edits are lost (undo restores them in this session).";
    model.shared.popup = Some(Popup::Confirm(Confirm::new("Revert to saved?", text, "revert", schema_draft::revert)));
    Vec::new()
}

/// Discard the draft of an earlier session, after a confirmation.
pub(super) fn discard(model: &mut Model) -> Vec<Command> {
    let text = "The unsaved draft of an earlier session is deleted. This cannot be undone.";
    model.shared.popup = Some(Popup::Confirm(Confirm::new("Discard draft?", text, "discard", schema_draft::discard_offer)));
    Vec::new()
}

/// What decides between two texts, by the same keys and words as the bottom line: `t take, x discard draft, d difference`.
pub(super) fn keys(model: &Model) -> String {
    choices(model).into_iter().map(|(key, hint)| format!("{key} {hint}")).collect::<Vec<_>>().join(", ")
}

/// Keys and words of the actions that decide between two texts now.
pub(super) fn choices(model: &Model) -> Vec<(String, &'static str)> {
    let decides = ["schema.take", "schema.own", "schema.discard", "schema.difference"].into_iter().filter_map(crate::view::app::action);
    decides.filter(|action| model.blocked(action).is_none()).map(|action| (model.shared.keymap.shown(action), action.hint)).collect()
}

/// The difference that matters now: against the file's new text, the draft that is offered, else the saved text.
pub(super) fn difference(model: &mut Model) -> Vec<Command> {
    let draft = &model.shared.draft;
    let (title, old, new) = match (&draft.theirs, &draft.offer) {
        (Some(theirs), _) => ("Yours (-) vs file on disk (+)", &draft.text, theirs),
        (None, Some(offer)) => ("Current (-) vs draft (+)", &draft.text, &offer.text),
        (None, None) => ("Saved (-) vs yours (+)", &draft.saved, &draft.text),
    };
    let lines = lines(model, old, new);
    model.shared.popup = Some(Popup::Page(Page::new(title, lines)));
    Vec::new()
}

/// A difference of two texts, with three lines around each change.
fn lines(model: &Model, old: &str, new: &str) -> Vec<Line<'static>> {
    let theme = &model.shared.theme;
    if old == new {
        return vec![Line::raw("no difference")];
    }
    let difference = TextDiff::from_lines(old, new);
    let mut lines = Vec::new();
    for (index, group) in difference.grouped_ops(3).iter().enumerate() {
        if index > 0 {
            lines.push(Line::styled("  ...", theme.style(Role::Faint)));
        }
        for change in group.iter().flat_map(|operation| difference.iter_changes(operation)) {
            let (mark, role, index) = match change.tag() {
                ChangeTag::Delete => ("-", Role::Removed, change.old_index()),
                ChangeTag::Insert => ("+", Role::Added, change.new_index()),
                ChangeTag::Equal => (" ", Role::Faint, change.new_index()),
            };
            let number = index.map_or_else(String::new, |index| (index + 1).to_string());
            let text = visible(change.value().trim_end_matches(['\n', '\r']));
            lines.push(Line::from(vec![
                Span::styled(format!("{number:>4} "), theme.style(Role::Faint)),
                Span::styled(format!("{mark} {text}"), theme.style(role)),
            ]));
        }
    }
    lines
}
