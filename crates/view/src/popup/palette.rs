//! The palette: every action, found by its name, its names in other programs, or a few of its letters; blocked ones say
//! why.

use std::collections::HashMap;

use super::pick::{Pick, PickEntry};
use super::window::PopupOutcome;
use crate::action::ActionInfo;
use crate::fuzzy;
use crate::style_role::Role;

#[derive(Debug, Clone)]
pub struct PaletteEntry {
    pub info: &'static ActionInfo,
    /// Whether its keys work where the focus is.
    pub is_here: bool,
    /// The title of its screen; `None` for one that works on every screen.
    pub screen: Option<&'static str>,
    /// Why it is blocked.
    pub blocked: Option<String>,
    pub key: String,
}

/// The palette over these actions.
pub fn palette(entries: Vec<PaletteEntry>) -> Pick {
    let rows = entries.iter().map(row).collect();
    let actions: Vec<&'static ActionInfo> = entries.iter().map(|entry| entry.info).collect();
    let perform = move |index: usize| match actions.get(index) {
        Some(action) => PopupOutcome::Perform(action),
        None => PopupOutcome::Close,
    };
    Pick::ranked(
        "Palette",
        rows,
        move |query| found(&entries, query),
        perform,
    )
}

fn row(entry: &PaletteEntry) -> PickEntry {
    let aliases = entry.info.aliases.join(", ");
    let also = if aliases.is_empty() {
        String::new()
    } else {
        format!("; also: {aliases}")
    };
    let screen = entry
        .screen
        .map_or_else(String::new, |title| format!("{title}: "));
    let blocked = entry.blocked.as_ref();
    PickEntry {
        label: format!("{screen}{}", entry.info.title),
        beside: blocked.map_or_else(String::new, |_| "(unavailable)".to_owned()),
        key: entry.key.clone(),
        detail: blocked.map_or_else(
            || format!("{}{also}", entry.info.id),
            |why| format!("unavailable: {why}"),
        ),
        role: blocked.map(|_| Role::Faint),
        ..PickEntry::default()
    }
}

/// The entries that match a text, best first; without a text those available here, then those that are blocked. A name
/// or an alias ranks before letters of the title, letters of an alias, and the description: id, hint and screen.
fn found(entries: &[PaletteEntry], query: &str) -> Vec<usize> {
    let all: Vec<usize> = (0..entries.len()).collect();
    let query = query.trim().to_lowercase();
    if query.is_empty() {
        let shown = |index: &usize| entries[*index].is_here;
        let mut found: Vec<usize> = all.into_iter().filter(shown).collect();
        found.sort_by_key(|index| entries[*index].blocked.is_some());
        return found;
    }
    // Each search for a text in a name would read all of the text.
    if query.len() > fuzzy::MAX_QUERY_BYTES {
        return Vec::new();
    }
    let named = |index: &usize| nearness(entries[*index].info, &query);
    let mut found: Vec<usize> = all
        .iter()
        .copied()
        .filter(|index| named(index).is_some())
        .collect();
    let is_other = |index: &usize| {
        let ActionInfo { title, aliases, .. } = entries[*index].info;
        title.to_lowercase() != query && !aliases.contains(&query.as_str())
    };
    found.sort_by_key(|index| (named(index), !entries[*index].is_here, is_other(index)));
    let texts: [fn(&PaletteEntry) -> String; 3] = [
        |entry| entry.info.title.to_owned(),
        |entry| entry.info.aliases.join(" "),
        |entry| {
            let ActionInfo {
                id, title, hint, ..
            } = entry.info;
            format!("{id} {title} {hint} {}", entry.screen.unwrap_or_default())
        },
    ];
    for text in texts {
        let matched = fuzzy::rank(&query, &all, |index| text(&entries[*index]));
        found.extend(
            matched
                .into_iter()
                .filter(|index| !found.contains(index))
                .collect::<Vec<_>>(),
        );
    }
    // Among actions with the same title the current screen's is listed, else the first that is available.
    let preference = |index: usize| (!entries[index].is_here, entries[index].blocked.is_some());
    let mut first: HashMap<&str, usize> = HashMap::new();
    for &index in &found {
        let known = first.entry(entries[index].info.title).or_insert(index);
        if preference(index) < preference(*known) {
            *known = index;
        }
    }
    found.retain(|index| first[entries[*index].info.title] == *index || entries[*index].is_here);
    found
}

/// The rank of a lower-case text as a name of an action: 0 for a whole name or its first words, then the beginning of
/// one, then that of a later word.
fn nearness(action: &ActionInfo, query: &str) -> Option<u8> {
    let title = action.title.to_lowercase();
    let names = || std::iter::once(title.as_str()).chain(action.aliases.iter().copied());
    let rest = || names().filter_map(|name| name.strip_prefix(query));
    let is_word = |rest: &str| !rest.starts_with(char::is_alphanumeric);
    let later = |name: &str| {
        name.match_indices(query)
            .any(|(place, _)| is_word_start(name, place))
    };
    match () {
        () if rest().any(is_word) => Some(0),
        () if rest().next().is_some() => Some(1),
        () => names().any(later).then_some(2),
    }
}

fn is_word_start(text: &str, place: usize) -> bool {
    !text[..place].ends_with(char::is_alphanumeric)
}
