//! The choice between two versions of a text, for a draft of an earlier session or a file that changed on disk: the
//! same question and keys on every screen.

use std::path::PathBuf;

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use similar::{DiffTag, group_diff_ops};

use super::files::Offer;
use super::{Drafted, due, unsaved, write};
use crate::action::Scope;
use crate::format::date_time;
use crate::key_chord::Chord;
use crate::message::Command;
use crate::pane::content::{Content, Place};
use crate::popup::{Confirm, Page, Popup};
use crate::screen::Action;
use crate::secrets::visible;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::diff::diff_ops;

pub const fn take_action<T: Drafted>() -> Action<T> {
    Action::new(
        T::ACTIONS.take,
        "Use other version",
        "",
        &["t", "alt-t"],
        Scope::Screen(T::SCREEN),
        take::<T>,
    )
    .also(&["restore draft"])
    .unless(|screen, shared| (!are_two(screen, shared)).then(|| "no other version".to_owned()))
}

/// Keeps the text in the editor; a draft stays in its file.
pub const fn keep_action<T: Drafted>() -> Action<T> {
    Action::new(
        T::ACTIONS.keep,
        "Keep own version",
        "",
        &["o", "alt-o"],
        Scope::Screen(T::SCREEN),
        keep::<T>,
    )
    .unless(|screen, shared| (!are_two(screen, shared)).then(|| "no other version".to_owned()))
}

pub const fn discard_action<T: Drafted>() -> Action<T> {
    Action::new(
        T::ACTIONS.discard,
        "Discard draft",
        "discard draft",
        &["X", "alt-x"],
        Scope::Screen(T::SCREEN),
        discard::<T>,
    )
    .unless(|screen, shared| {
        (screen.on_disk(shared).is_some() || offer(screen, shared).is_none())
            .then(|| "no draft to discard".to_owned())
    })
}

pub const fn difference_action<T: Drafted>() -> Action<T> {
    Action::new(
        T::ACTIONS.difference,
        "Show diff",
        "diff",
        &["d", "alt-d"],
        Scope::Screen(T::SCREEN),
        difference::<T>,
    )
    .also(&["diff", "changes"])
    .unless(|screen, shared| {
        (!are_two(screen, shared) && unsaved(screen, shared).is_none())
            .then(|| "no unsaved changes".to_owned())
    })
}

/// Why a text cannot be edited or saved before the user has decided.
pub fn undecided<T: Drafted>(screen: &T, shared: &Shared) -> Option<String> {
    let keys = || {
        choices(screen, shared)
            .map(|(key, hint)| format!("{key} {hint}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    are_two(screen, shared).then(|| format!("two versions exist: {}", keys()))
}

pub fn offer<'a, T: Drafted>(screen: &T, shared: &'a Shared) -> Option<&'a Offer> {
    let mut newest = shared.drafts.offers.iter().rev();
    newest
        .find(|offer| offer.screen == T::SCREEN)
        .filter(|_| screen.is_free())
}

/// The question at the top of a screen.
pub const QUESTION: &str = "question";

pub fn places<T: Drafted>(screen: &T, shared: &Shared, body: Rect) -> (Option<Place>, Rect) {
    let taken = rows(screen, shared).min(body.height);
    let below = Rect {
        y: body.y + taken,
        height: body.height - taken,
        ..body
    };
    (
        (taken > 0).then(|| {
            Place::bare(
                QUESTION,
                Rect {
                    height: taken,
                    ..body
                },
            )
        }),
        below,
    )
}

pub fn content<'a, T: Drafted>(screen: &T, shared: &Shared) -> Content<'a> {
    let theme = &shared.theme;
    let (what, note) = match (screen.on_disk(shared), offer(screen, shared)) {
        (Some(_), _) => (
            "file changed on disk while you have unsaved edits".to_owned(),
            None,
        ),
        (None, Some(offer)) => (describe(offer), offer.location.note.clone()),
        (None, None) => return Content::default(),
    };
    let mut keys = vec![Span::raw("  ")];
    for (key, hint) in choices(screen, shared) {
        keys.extend([theme.span(key, Role::Key), Span::raw(format!(" {hint}  "))]);
    }
    let mut lines = vec![theme.line(format!("▲ {what}"), Role::Warning)];
    lines.extend(note.map(|note| Line::raw(format!("  {note}"))));
    lines.push(Line::from(keys));
    Content::default().fixed(lines)
}

fn rows<T: Drafted>(screen: &T, shared: &Shared) -> u16 {
    match (screen.on_disk(shared), offer(screen, shared)) {
        (None, None) => 0,
        (None, Some(offer)) if offer.location.note.is_some() => 3,
        _ => 2,
    }
}

fn describe(offer: &Offer) -> String {
    let lines = offer.record.text.split('\n').count();
    let plural = if lines == 1 { "" } else { "s" };
    format!(
        "unsaved draft of {} from {}, {lines} line{plural}",
        offer.location.title,
        date_time(offer.record.time_ms)
    )
}

fn are_two<T: Drafted>(screen: &T, shared: &Shared) -> bool {
    screen.on_disk(shared).is_some() || offer(screen, shared).is_some()
}

fn choices<T: Drafted>(
    screen: &T,
    shared: &Shared,
) -> impl Iterator<Item = (String, &'static str)> {
    let [take, keep] = match screen.on_disk(shared) {
        Some(_) => ["load file", "keep edits"],
        None => ["restore draft", "keep saved"],
    };
    let all = [
        (take_action::<T>(), take),
        (keep_action(), keep),
        (discard_action(), "discard draft"),
        (difference_action(), "diff"),
    ];
    let possible = all
        .into_iter()
        .filter(|(action, _)| (action.blocked)(screen, shared).is_none());
    // The tab key types text in an editor.
    let is_free = |key: &Chord| !screen.is_typing() || (key.is_command() && *key != Chord::TAB);
    possible.filter_map(move |(action, word)| {
        Some((
            shared
                .keymap
                .keys(&action.info)
                .into_iter()
                .find(is_free)?
                .to_string(),
            word,
        ))
    })
}

fn decide(shared: &mut Shared, file: Option<PathBuf>) -> Option<Offer> {
    let drafts = &mut shared.drafts;
    let place = drafts
        .offers
        .iter()
        .position(|offer| Some(&offer.file) == file.as_ref())?;
    drafts.known.extend(file);
    Some(drafts.offers.remove(place))
}

fn take<T: Drafted>(screen: &mut T, shared: &mut Shared) -> Vec<Command> {
    if screen.on_disk(shared).is_some() {
        return screen.resolve_conflict(shared, true);
    }
    let newest = offer(screen, shared).map(|offer| offer.file.clone());
    let Some(Offer {
        file,
        record,
        location,
        ..
    }) = decide(shared, newest)
    else {
        return Vec::new();
    };
    let mut commands = match screen.restore(shared, &record) {
        Ok(commands) => commands,
        Err(why) => {
            return shared.complain(format!("draft stays in {}: {why}", file.display()));
        }
    };
    match location.note {
        Some(note) => shared.complain(note),
        None => shared.say(format!("{} restored, unsaved", location.title)),
    };
    // Another session that still has the text open continues in the old file.
    let own = due(screen, shared);
    commands.extend(write(shared, own.into_iter().chain([(file, None)])));
    commands
}

fn keep<T: Drafted>(screen: &mut T, shared: &mut Shared) -> Vec<Command> {
    if screen.on_disk(shared).is_some() {
        return screen.resolve_conflict(shared, false);
    }
    let newest = offer(screen, shared).map(|offer| offer.file.clone());
    if let Some(offer) = decide(shared, newest) {
        shared.say(format!(
            "draft stays in {}: offered again next session",
            offer.file.display()
        ));
    }
    Vec::new()
}

fn discard<T: Drafted>(screen: &mut T, shared: &mut Shared) -> Vec<Command> {
    let Some(offer) = offer(screen, shared) else {
        return Vec::new();
    };
    let text = format!(
        "{}.\nThe draft is deleted. This cannot be undone.",
        describe(offer)
    );
    // This draft, even if a newer one is found while the question is open.
    let file = offer.file.clone();
    shared.open_popup(Popup::Confirm(Confirm::new(
        "Discard draft?",
        text,
        "discard",
        |_: &mut T, shared| {
            let Some(offer) = decide(shared, Some(file)) else {
                return Vec::new();
            };
            shared.say("draft discarded");
            write(shared, [(offer.file, None)])
        },
    )))
}

/// The relevant diff: to the file on disk, to the draft, else to the saved text.
fn difference<T: Drafted>(screen: &mut T, shared: &mut Shared) -> Vec<Command> {
    let (saved, own) = screen.texts(shared).unwrap_or_default();
    let (title, old, new) = match (screen.on_disk(shared), offer(screen, shared)) {
        (Some(theirs), _) => ("Yours (-) vs file on disk (+)", own, theirs),
        (None, Some(offer)) => {
            let current = screen
                .locate(shared, &offer.record)
                .map_or_else(|_| String::new(), |location| location.current);
            (
                "Current (-) vs draft (+)",
                current,
                offer.record.text.clone(),
            )
        }
        (None, None) => ("Saved (-) vs yours (+)", saved, own),
    };
    let lines = diff_lines(&shared.theme, &old, &new);
    shared.open_popup(Popup::Page(Page::new(title, lines)))
}

fn diff_lines(theme: &Theme, old: &str, new: &str) -> Vec<Line<'static>> {
    if old == new {
        return vec![Line::raw("no difference")];
    }
    let [old, new] = [old, new].map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
    let mut lines = Vec::new();
    for (index, group) in group_diff_ops(diff_ops(&old, &new), 3).iter().enumerate() {
        if index > 0 {
            lines.push(theme.line("  ...", Role::Faint));
        }
        let mut push = |mark, role, text: &str, index: usize| {
            lines.push(Line::from(vec![
                theme.span(format!("{:>4} ", index + 1), Role::Faint),
                theme.span(
                    format!("{mark} {}", visible(text.trim_end_matches(['\n', '\r']))),
                    role,
                ),
            ]));
        };
        for operation in group {
            let is_same = operation.tag() == DiffTag::Equal;
            let removed = if is_same { 0..0 } else { operation.old_range() };
            removed.for_each(|index| push("-", Role::Removed, old[index], index));
            let (mark, role) = if is_same {
                (" ", Role::Faint)
            } else {
                ("+", Role::Added)
            };
            operation
                .new_range()
                .for_each(|index| push(mark, role, new[index], index));
        }
    }
    lines
}
