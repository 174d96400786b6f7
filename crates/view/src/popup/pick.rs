//! A list to choose from, with fuzzy search.

use std::cell::OnceCell;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use memchr::memmem::Finder;
use ratatui::layout::{Position, Rect, Size};
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::window::{PopupOutcome, body, place};
use crate::fuzzy;
use crate::message::{Command, Part, Update};
use crate::pane::content::{Content, List, Place, Spot};
use crate::secrets::visible;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::field::Field;
use crate::widgets::list_cursor::{Cursor, Motion};
use crate::widgets::text_width::{fitted, wrapped_line};

/// Maximum columns; `DETAIL_ROWS`: rows of the selected entry's details.
const COLUMNS: u16 = 100;
const DETAIL_ROWS: std::ops::RangeInclusive<u16> = 3..=8;
const FILTER: &str = "Filter: ";

#[derive(Debug, Clone, Default)]
pub struct PickEntry {
    pub label: String,
    /// Text to the right of the label.
    pub beside: String,
    /// Text at the right edge.
    pub key: String,
    /// Text below the list while the entry is selected.
    pub detail: String,
    pub role: Option<Role>,
    /// Nesting depth in a tree.
    pub depth: usize,
}

/// More entries are searched by the words of the text alone, since a fuzzy search would slow typing.
const MAX_FUZZY: usize = 5_000;
/// Of so many entries the longest details are looked up.
const MAX_MEASURED: usize = 1_000;

/// Entries by index, made when they are shown.
struct Entries {
    count: usize,
    entry: Box<dyn Fn(usize) -> PickEntry + Send>,
    /// What is searched, lower-case: label and `beside`.
    texts: OnceCell<Vec<String>>,
}

impl Entries {
    fn get(&self, index: usize) -> Option<PickEntry> {
        (index < self.count).then(|| (self.entry)(index))
    }

    fn texts(&self) -> &[String] {
        let text = |index| {
            let PickEntry { label, beside, .. } = (self.entry)(index);
            format!("{label} {beside}").to_lowercase()
        };
        self.texts
            .get_or_init(|| (0..self.count).map(text).collect())
    }

    /// Those that match, best first.
    fn search(&self, query: &str) -> Vec<usize> {
        let all: Vec<usize> = (0..self.count).collect();
        if query.is_empty() {
            return all;
        }
        let texts = self.texts();
        if self.count <= MAX_FUZZY {
            return fuzzy::rank(query, &all, |index| texts[*index].clone());
        }
        let lower = query.to_lowercase();
        let words: Vec<Finder> = lower.split_whitespace().map(Finder::new).collect();
        let has = |index: &usize| {
            let text = texts[*index].as_bytes();
            words.iter().all(|word| word.find(text).is_some())
        };
        all.into_iter().filter(has).collect()
    }

    /// The entry with this label.
    fn labelled(&self, label: &str) -> Option<usize> {
        let lower = format!("{} ", label.to_lowercase());
        let mut texts = self.texts().iter().enumerate();
        let is_it = |index| (self.entry)(index).label == label;
        let found = texts.find(|(index, text)| text.starts_with(&lower) && is_it(*index));
        found.map(|(index, _)| index)
    }
}

/// Returns the indices of the entries that match a text, best first.
type Ranking = Box<dyn Fn(&str) -> Vec<usize> + Send>;
type OnTyped = Box<dyn FnOnce(String) -> Update + Send>;
type OnChosen = Box<dyn FnOnce(usize) -> PopupOutcome + Send>;

pub struct Pick {
    title: String,
    field: Field,
    entries: Entries,
    /// Columns of the longest details.
    longest_detail: usize,
    /// `None`: fuzzy match of the label and `beside`.
    ranking: Option<Ranking>,
    /// Entries that match the text, best first.
    found: Vec<usize>,
    cursor: Cursor,
    then: Option<OnChosen>,
    /// Name of free text offered as an entry, and its handler.
    typed: Option<(&'static str, OnTyped)>,
}

impl Pick {
    /// A list with the cursor on the entry `selected`; `then` gets the index of the chosen one.
    pub fn new<X: Part>(
        title: impl Into<String>,
        entries: Vec<PickEntry>,
        selected: usize,
        then: impl FnOnce(&mut X, &mut X::Shared, usize) -> Vec<Command> + Send + 'static,
    ) -> Self {
        let count = entries.len();
        Self::of_many(
            title,
            count,
            move |index| entries[index].clone(),
            selected,
            then,
        )
    }

    /// As [`Self::new`], of `count` entries that are made when they are shown.
    pub fn of_many<X: Part>(
        title: impl Into<String>,
        count: usize,
        entry: impl Fn(usize) -> PickEntry + Send + 'static,
        selected: usize,
        then: impl FnOnce(&mut X, &mut X::Shared, usize) -> Vec<Command> + Send + 'static,
    ) -> Self {
        let then = |index| {
            PopupOutcome::Update(Update::new(
                move |screen: &mut X, shared: &mut X::Shared| then(screen, shared, index),
            ))
        };
        let entries = Entries {
            count,
            entry: Box::new(entry),
            texts: OnceCell::new(),
        };
        let mut pick = Self::with_entries(title.into(), entries, None, Box::new(then));
        pick.cursor.index = selected;
        pick
    }

    /// Also accepts a text that is not an entry's label.
    #[must_use]
    pub fn or_typed<X: Part>(
        self,
        about: &'static str,
        then: impl FnOnce(&mut X, &mut X::Shared, String) -> Vec<Command> + Send + 'static,
    ) -> Self {
        let then = |text| {
            Update::new(move |screen: &mut X, shared: &mut X::Shared| then(screen, shared, text))
        };
        Self {
            typed: Some((about, Box::new(then))),
            ..self
        }
    }

    /// A list with a custom ranking, which also determines the entries listed without a text.
    pub(super) fn ranked(
        title: &str,
        entries: Vec<PickEntry>,
        ranking: impl Fn(&str) -> Vec<usize> + Send + 'static,
        then: impl FnOnce(usize) -> PopupOutcome + Send + 'static,
    ) -> Self {
        let entries = Entries {
            count: entries.len(),
            entry: Box::new(move |index| entries[index].clone()),
            texts: OnceCell::new(),
        };
        Self::with_entries(
            title.to_owned(),
            entries,
            Some(Box::new(ranking)),
            Box::new(then),
        )
    }

    fn with_entries(
        title: String,
        entries: Entries,
        ranking: Option<Ranking>,
        then: OnChosen,
    ) -> Self {
        let (field, found, cursor) = (Field::default(), Vec::new(), Cursor::default());
        let measured = (0..entries.count.min(MAX_MEASURED)).filter_map(|index| entries.get(index));
        let longest_detail = measured.map(|entry| entry.detail.width()).max();
        let longest_detail = longest_detail.unwrap_or(0);
        let then = Some(then);
        let mut pick = Self {
            title,
            field,
            entries,
            longest_detail,
            ranking,
            found,
            cursor,
            then,
            typed: None,
        };
        pick.search();
        pick
    }

    fn search(&mut self) {
        let typed = self.field.text().trim();
        self.found = match &self.ranking {
            Some(ranking) => ranking(self.field.text()),
            None => self.entries.search(typed),
        };
        if !typed.is_empty() {
            let exact = self.entries.labelled(typed);
            // An exact match precedes longer names.
            if let Some(at) = self.found.iter().position(|index| Some(*index) == exact) {
                self.found[..=at].rotate_right(1);
            }
            if self.typed.is_some() && exact.is_none() {
                self.found.push(self.entries.count);
            }
        }
        self.cursor = Cursor::default();
    }

    pub(super) fn paste(&mut self, text: &str) {
        self.field.paste(text);
        self.search();
    }

    pub(super) fn go(&mut self, rows: isize) {
        self.cursor.go(rows, self.found.len());
    }

    /// Moves by rows; Home and End stay with the text field.
    pub(super) fn follow(&mut self, motion: Option<Motion>) -> PopupOutcome {
        match motion {
            Some(Motion::Down) => self.go(1),
            Some(Motion::Up) => self.go(-1),
            Some(Motion::PageDown) => self.go(10),
            Some(Motion::PageUp) => self.go(-10),
            _ => {}
        }
        PopupOutcome::Stay
    }

    pub(super) fn key(&mut self, event: KeyEvent) -> PopupOutcome {
        let control = event.modifiers.contains(KeyModifiers::CONTROL);
        match event.code {
            KeyCode::Esc => return PopupOutcome::Close,
            KeyCode::Enter => {
                let chosen = self
                    .cursor
                    .at(self.found.len())
                    .and_then(|at| self.found.get(at))
                    .copied();
                let Some(chosen) = chosen else {
                    return PopupOutcome::Refused(self.nothing());
                };
                if chosen == self.entries.count {
                    let text = self.field.text().trim().to_owned();
                    return self.typed.take().map_or(PopupOutcome::Close, |(_, then)| {
                        PopupOutcome::Update(then(text))
                    });
                }
                return self
                    .then
                    .take()
                    .map_or(PopupOutcome::Close, |then| then(chosen));
            }
            KeyCode::Tab => self.go(1),
            KeyCode::BackTab => self.go(-1),
            KeyCode::Char('n') if control => self.go(1),
            KeyCode::Char('p') if control => self.go(-1),
            _ if self.field.key(event) => self.search(),
            _ => {}
        }
        PopupOutcome::Stay
    }

    /// The entry in a row of the list; typed text, if accepted, follows the matches.
    fn entry(&self, row: usize) -> Option<PickEntry> {
        let index = *self.found.get(row)?;
        let typed = || {
            let (label, beside) = (
                self.field.text().trim().to_owned(),
                self.typed.as_ref()?.0.to_owned(),
            );
            Some(PickEntry {
                label,
                beside,
                ..PickEntry::default()
            })
        };
        self.entries.get(index).or_else(typed)
    }

    fn nothing(&self) -> &'static str {
        if self.entries.count == 0 {
            "nothing yet"
        } else {
            "no matches"
        }
    }

    fn rows(&self, columns: u16) -> u16 {
        let entries = u16::try_from(self.entries.count).unwrap_or(u16::MAX);
        entries
            .saturating_add(4 + self.longest_detail_rows(columns.min(COLUMNS).saturating_sub(2)))
            .clamp(10, 30)
    }

    fn longest_detail_rows(&self, columns: u16) -> u16 {
        let rows =
            (self.longest_detail + 10).div_ceil(usize::from(columns.saturating_sub(10)).max(1));
        u16::try_from(rows)
            .unwrap_or(u16::MAX)
            .clamp(*DETAIL_ROWS.start(), *DETAIL_ROWS.end())
    }

    fn detail_rows(&self, inside: Rect) -> u16 {
        let room = inside.height.saturating_sub(2);
        self.longest_detail_rows(inside.width)
            .min(room - room.div_ceil(2).min(3))
    }

    /// Moves the cursor to the entry at a terminal position; false if there is none.
    pub(super) fn click(&mut self, theme: &Theme, size: Size, at: Position) -> bool {
        let (place, content) = self.pane(theme, body(size));
        let Spot::Item(row) = content.spot(place.inside(), at) else {
            return false;
        };
        drop(content);
        self.cursor.index = row;
        true
    }

    /// The filter text, the list, and the details of the selected entry.
    pub(super) fn pane<'a>(&'a self, theme: &'a Theme, area: Rect) -> (Place, Content<'a>) {
        let place = place(area, COLUMNS, self.rows(area.width));
        let (inside, columns) = (place.inside(), usize::from(place.inside().width));
        let mut field = self
            .field
            .line(theme, columns.saturating_sub(FILTER.len()), true);
        field.spans.insert(0, theme.span(FILTER, Role::Key));
        let at = self.cursor.at(self.found.len());
        let detail = at.and_then(|at| self.entry(at)).map(|entry| {
            let count = format!("{}/{}  ", at.unwrap_or(0) + 1, self.found.len());
            let count = theme.span(count, Role::Faint);
            Line::from(vec![count, Span::raw(visible(&entry.detail).into_owned())])
        });
        let mut foot: Vec<_> = detail
            .into_iter()
            .flat_map(|line| wrapped_line(line, columns))
            .collect();
        foot.resize(self.detail_rows(inside).into(), Line::default());
        let line = move |row: usize| {
            self.entry(row)
                .map_or_else(Line::default, |entry| self.line(theme, &entry, columns))
        };
        let content = Content {
            head: vec![field, Line::default()],
            foot,
            empty: vec![theme.line(self.nothing(), Role::Faint)],
            ..Content::titled(self.title.clone())
        };
        (
            place,
            content.list(List {
                mark: 2,
                ..List::new(self.found.len(), self.cursor, line)
            }),
        )
    }

    /// The label with matched letters highlighted, as much of `beside` as fits, and the key at the
    /// right.
    fn line(&self, theme: &Theme, entry: &PickEntry, columns: usize) -> Line<'static> {
        let style = theme.style(entry.role.unwrap_or(Role::Text));
        let mut spans = Vec::new();
        // A search flattens the tree.
        let depth = if self.field.text().is_empty() {
            entry.depth
        } else {
            0
        };
        spans.push(Span::raw("  ".repeat(depth)));
        let of_key = if entry.key.is_empty() {
            0
        } else {
            entry.key.width() + 1
        };
        let label = fitted(
            &visible(&entry.label),
            columns.saturating_sub(2 + 2 * depth + of_key),
        );
        let matched = fuzzy::letters(self.field.text().trim(), &label);
        for (place, letter) in label.char_indices() {
            let style = match matched.contains(&place) {
                true => theme.style(Role::Accent).add_modifier(Modifier::UNDERLINED),
                false => style,
            };
            spans.push(Span::styled(letter.to_string(), style));
        }
        let used = 2 + 2 * depth + label.width() + 2;
        let mut room = columns.saturating_sub(used + of_key);
        let beside: String = visible(&entry.beside)
            .chars()
            .take_while(|letter| {
                let fits = letter.width().unwrap_or(0) <= room;
                room = room.saturating_sub(letter.width().unwrap_or(0));
                fits
            })
            .collect();
        spans.push(theme.span(format!("  {beside}"), Role::Faint));
        spans.push(Span::raw(" ".repeat(room + of_key.min(1))));
        spans.push(theme.span(entry.key.clone(), Role::Key));
        Line::from(spans)
    }
}

impl std::fmt::Debug for Pick {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Pick")
            .field("title", &self.title)
            .field("entries", &self.entries.count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_chord::Chord;

    fn press(pick: &mut Pick, keys: &str) -> PopupOutcome {
        let event = |key| {
            let chord = Chord::parse(key).unwrap();
            KeyEvent::new(chord.code, chord.modifiers)
        };
        let press = |key| match key {
            "down" => pick.follow(Some(Motion::Down)),
            key => pick.key(event(key)),
        };
        keys.split_whitespace().map(press).last().unwrap()
    }

    #[test]
    fn letters_filter_and_enter_chooses() {
        let check = |keys: &str, found: &[usize], at: Option<usize>| {
            let entry = |label: &str| PickEntry {
                label: label.to_owned(),
                ..PickEntry::default()
            };
            let entries = ["vendor", "date", "amount", "due date"].map(entry).to_vec();
            let mut pick = Pick::new("List", entries, 1, |_: &mut (), _, _| Vec::new());
            let outcome = press(&mut pick, keys);
            assert_eq!(pick.found, found, "{keys}");
            assert_eq!(pick.cursor.at(found.len()), at, "{keys}");
            assert_eq!(
                matches!(outcome, PopupOutcome::Update(_)),
                keys.ends_with("enter") && at.is_some(),
                "{keys}"
            );
        };
        check("enter", &[0, 1, 2, 3], Some(1));
        check("down down down down enter", &[0, 1, 2, 3], Some(3));
        check("d a t e", &[1, 3], Some(0));
        check("d a t e down enter", &[1, 3], Some(1));
        check("z z z enter", &[], None);
        check("esc", &[0, 1, 2, 3], Some(1));
    }

    #[test]
    fn a_text_that_is_no_label_is_taken_where_any_is() {
        let check = |keys: &str, found: &[usize], shown: Option<&str>| {
            let entries = ["tiny", "models/mine"].map(|label| PickEntry {
                label: label.to_owned(),
                ..PickEntry::default()
            });
            let pick = Pick::new("Model", entries.to_vec(), 0, |_: &mut (), _, _| Vec::new());
            let mut pick = pick.or_typed("as typed", |_: &mut (), _, _| Vec::new());
            press(&mut pick, keys);
            assert_eq!(pick.found, found, "{keys}");
            assert_eq!(
                pick.entry(found.len() - 1)
                    .map(|entry| entry.label.clone())
                    .as_deref(),
                shown,
                "{keys}"
            );
            assert!(
                matches!(press(&mut pick, "end enter"), PopupOutcome::Update(_)),
                "{keys}"
            );
        };
        check("left", &[0, 1], Some("models/mine"));
        check("t i n y", &[0], Some("tiny"));
        check("m i n e", &[1, 2], Some("mine"));
        check("o r g / x", &[2], Some("org/x"));
    }

    #[test]
    fn a_click_finds_the_row() {
        let entries = vec![PickEntry::default(); 50];
        let mut pick = Pick::new("List", entries, 0, |_: &mut (), _, _| Vec::new());
        let theme = Theme::default();
        // The 30-row window begins in row 2; frame, field and a gap come first.
        assert!(pick.click(&theme, (120, 36).into(), (20, 7).into()));
        assert_eq!(pick.cursor.index, 2);
        assert!(
            !pick.click(&theme, (120, 36).into(), (20, 3).into())
                && !pick.click(&theme, (120, 36).into(), (2, 7).into())
        );
    }
}
