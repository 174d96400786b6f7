//! Two versions of a text, a draft of an earlier session or a file that changed on disk: what is asked, by the same keys and words on every screen.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use similar::{ChangeTag, TextDiff};

use super::{Drafted, Offer, due, unsaved};
use crate::format::date_time;
use crate::secrets::visible;
use crate::view::action::{Action, ActionInfo, Place};
use crate::view::app::{self, Model};
use crate::view::message::Command;
use crate::view::popup::{Confirm, Page, Popup};
use crate::view::style_role::Role;

/// Restore the draft, or load the file from disk.
pub const fn take_action<T: Drafted>() -> Action {
    Action::new(T::ACTIONS[0], "Use other version", "use other", &["t", "alt-t"], Place::On(T::SCREEN), take::<T>)
        .also(&["restore draft"])
        .unless(|model| (!are_two::<T>(model)).then(|| "no other version".to_owned()))
}

/// Go on with the own text; a draft stays in its file.
pub const fn keep_action<T: Drafted>() -> Action {
    Action::new(T::ACTIONS[1], "Keep own version", "keep mine", &["o", "alt-o"], Place::On(T::SCREEN), keep::<T>)
        .unless(|model| (!are_two::<T>(model)).then(|| "no other version".to_owned()))
}

pub const fn discard_action<T: Drafted>() -> Action {
    Action::new(T::ACTIONS[2], "Discard draft", "discard draft", &["X", "alt-x"], Place::On(T::SCREEN), discard::<T>)
        .unless(|model| (T::on_disk(model).is_some() || offer::<T>(model).is_none()).then(|| "no draft to discard".to_owned()))
}

pub const fn difference_action<T: Drafted>() -> Action {
    Action::new(T::ACTIONS[3], "Show diff", "diff", &["d", "alt-d"], Place::On(T::SCREEN), difference::<T>)
        .also(&["diff", "changes"])
        .unless(|model| (!are_two::<T>(model) && unsaved::<T>(model).is_none()).then(|| "no unsaved changes".to_owned()))
}

/// Why a text cannot be edited or saved before the user has decided.
pub fn undecided<T: Drafted>(model: &Model) -> Option<String> {
    let keys = || choices::<T>(model).map(|(key, hint)| format!("{key} {hint}")).collect::<Vec<_>>().join(", ");
    are_two::<T>(model).then(|| format!("two versions exist: {}", keys()))
}

/// The draft to decide about: the newest one.
pub fn offer<T: Drafted>(model: &Model) -> Option<&Offer> {
    let mut newest = model.shared.drafts.offers.iter().rev();
    newest.find(|offer| offer.screen == T::SCREEN).filter(|_| T::is_free(model))
}

/// Draws the question at the top of a screen.
pub fn draw<T: Drafted>(model: &Model, frame: &mut Frame<'_>, body: Rect) {
    let theme = &model.shared.theme;
    let (what, note) = match (T::on_disk(model), offer::<T>(model)) {
        (Some(_), _) => ("file changed on disk while you have unsaved edits".to_owned(), None),
        (None, Some(offer)) => (describe(offer), offer.location.note.clone()),
        (None, None) => return,
    };
    let mut keys = vec![Span::raw("  ")];
    for (key, hint) in choices::<T>(model) {
        keys.extend([Span::styled(key, theme.style(Role::Key)), Span::raw(format!(" {hint}  "))]);
    }
    let mut lines = vec![Line::styled(format!("{} {what}", theme.glyph("▲", "!")), theme.style(Role::Warning))];
    lines.extend(note.map(|note| Line::raw(format!("  {note}"))));
    lines.push(Line::from(keys));
    frame.render_widget(Paragraph::new(lines), Rect { height: rows::<T>(model).min(body.height), ..body });
}

/// The rest of a screen below the question.
pub fn below<T: Drafted>(model: &Model, body: Rect) -> Rect {
    let taken = rows::<T>(model).min(body.height);
    Rect { y: body.y + taken, height: body.height - taken, ..body }
}

fn rows<T: Drafted>(model: &Model) -> u16 {
    match (T::on_disk(model), offer::<T>(model)) {
        (None, None) => 0,
        (None, Some(offer)) if offer.location.note.is_some() => 3,
        _ => 2,
    }
}

fn describe(offer: &Offer) -> String {
    let lines = offer.record.text.split('\n').count();
    let plural = if lines == 1 { "" } else { "s" };
    format!("unsaved draft from {}: {}, {lines} line{plural}", date_time(offer.record.time_ms), offer.location.title)
}

fn are_two<T: Drafted>(model: &Model) -> bool {
    T::on_disk(model).is_some() || offer::<T>(model).is_some()
}

/// Keys and words of what can be done now, as the bottom line has them.
fn choices<T: Drafted>(model: &Model) -> impl Iterator<Item = (String, &'static str)> {
    let possible = T::ACTIONS.into_iter().filter_map(app::action).filter(|action| model.blocked(action).is_none());
    let key = |action: &ActionInfo| model.shared.keymap.keys(action).into_iter().find(|key| !model.is_for_text(*key));
    possible.filter_map(move |action| Some((key(action)?.to_string(), action.hint)))
}

/// Takes the offer out: the user has decided.
fn decide<T: Drafted>(model: &mut Model) -> Option<Offer> {
    let file = offer::<T>(model)?.file.clone();
    let drafts = &mut model.shared.drafts;
    let place = drafts.offers.iter().position(|offer| offer.file == file)?;
    drafts.known.insert(file);
    Some(drafts.offers.remove(place))
}

fn take<T: Drafted>(model: &mut Model) -> Vec<Command> {
    if T::on_disk(model).is_some() {
        return T::settle(model, true);
    }
    let Some(Offer { file, record, location, .. }) = decide::<T>(model) else { return Vec::new() };
    let mut commands = match T::restore(model, &record) {
        Ok(commands) => commands,
        Err(why) => {
            model.shared.complain(format!("draft stays in {}: {why}", file.display()));
            return Vec::new();
        }
    };
    match location.note {
        Some(note) => model.shared.complain(note),
        None => model.shared.say(format!("{} restored, unsaved", location.title)),
    }
    // Another session that still has the text open goes on in the old file.
    let own = due::<T>(model);
    commands.push(model.shared.drafts.write(own.into_iter().chain([(file, None)]).collect()));
    commands
}

fn keep<T: Drafted>(model: &mut Model) -> Vec<Command> {
    if T::on_disk(model).is_some() {
        return T::settle(model, false);
    }
    if let Some(offer) = decide::<T>(model) {
        model.shared.say(format!("draft stays in {}: offered again next session", offer.file.display()));
    }
    Vec::new()
}

fn discard<T: Drafted>(model: &mut Model) -> Vec<Command> {
    let Some(offer) = offer::<T>(model) else { return Vec::new() };
    let text = format!("{}.\nThe draft is deleted. This cannot be undone.", describe(offer));
    model.shared.popup = Some(Popup::Confirm(Confirm::new("Discard draft?", text, "discard", |model| {
        let Some(offer) = decide::<T>(model) else { return Vec::new() };
        model.shared.say("draft discarded");
        vec![model.shared.drafts.write(vec![(offer.file, None)])]
    })));
    Vec::new()
}

/// The difference that matters now: to the file on disk, to the draft, else to the saved text.
fn difference<T: Drafted>(model: &mut Model) -> Vec<Command> {
    let (saved, own) = T::texts(model).unwrap_or_default();
    let (title, old, new) = match (T::on_disk(model), offer::<T>(model)) {
        (Some(theirs), _) => ("Yours (-) vs file on disk (+)", own, theirs),
        (None, Some(offer)) => {
            let current = T::locate(model, &offer.record).map_or_else(|_| String::new(), |location| location.current);
            ("Current (-) vs draft (+)", current, offer.record.text.clone())
        }
        (None, None) => ("Saved (-) vs yours (+)", saved, own),
    };
    let lines = diff_lines(model, &old, &new);
    model.shared.popup = Some(Popup::Page(Page::new(title, lines)));
    Vec::new()
}

/// With three lines around each change.
fn diff_lines(model: &Model, old: &str, new: &str) -> Vec<Line<'static>> {
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
