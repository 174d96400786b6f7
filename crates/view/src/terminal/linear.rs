//! Linear mode: the current screen as lines, pane by pane, and afterwards only what changes.

use std::collections::HashMap;
use std::sync::LazyLock;

use ratatui::layout::Rect;
use regex::Regex;

use crate::app::{self, Model};
use crate::draw::{hint_texts, places, symbols_in_ascii};
use crate::messages::Level;
use crate::pane::lines::{PaneLines, TextLine, lines};
use crate::screens::Screen;
use crate::secrets::visible;
use crate::widgets::text_width::one_line;

/// Columns and rows that screens are laid out for. Wide, since panes beside each other are printed one after the other.
pub(super) const SIZE: (u16, u16) = (160, 60);
/// Rows for a popup, so that a page is printed in one go.
const POPUP_ROWS: u16 = 200;

/// A pane in which at least so many lines are as before has scrolled, if the others are at one end.
const SAME_LINES: usize = 3;

/// Prints what has not been printed yet.
#[derive(Debug, Default)]
pub(super) struct LinePrinter {
    last: Option<Page>,
    notices: usize,
}

#[derive(Debug)]
struct Page {
    screen: Screen,
    panes: Vec<PaneLines>,
    popup: Option<PaneLines>,
}

impl LinePrinter {
    /// The lines that tell what has changed since the last call.
    pub(super) fn lines(&mut self, model: &Model) -> Vec<String> {
        let page = Page::from_model(model);
        let mut lines = Vec::new();
        let notices = &model.shared.notices;
        for notice in notices.since(std::mem::replace(&mut self.notices, notices.total())) {
            let level = match notice.level {
                Level::Done => "Message",
                Level::Warning => "Warning",
                Level::Complaint => "Error",
            };
            lines.push(format!("{level}: {}", notice.text));
        }
        let before = self.last.as_ref().filter(|last| last.screen == page.screen);
        match before {
            Some(last) => changes(Frame::Pane, &last.panes, &page.panes, &mut lines),
            None => {
                lines.push(heading(model));
                page.panes
                    .iter()
                    .for_each(|pane| whole(Frame::Pane, pane, &mut lines));
                let keys: Vec<String> = hint_texts(model, SIZE.0).collect();
                lines.push(format!("Keys: {}", keys.join("  ")));
            }
        }
        let popup_before = self.last.as_ref().and_then(|last| last.popup.as_ref());
        match (popup_before, &page.popup) {
            (Some(before), Some(popup)) if before.title == popup.title => {
                changes(
                    Frame::Popup,
                    std::slice::from_ref(before),
                    std::slice::from_ref(popup),
                    &mut lines,
                );
            }
            (_, Some(popup)) => whole(Frame::Popup, popup, &mut lines),
            (Some(before), None) => lines.push(format!("Closed: {}", before.title)),
            (None, None) => {}
        }
        self.last = Some(page);
        lines
            .iter()
            .map(|line| printable(line, model.shared.theme.ascii))
            .collect()
    }

    /// The next lines tell everything.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
}

/// Whether a text is on the current screen, in a popup or in the latest notice.
pub(super) fn shows(model: &Model, text: &str) -> bool {
    let Page { panes, popup, .. } = Page::from_model(model);
    let in_pane = |pane: &PaneLines| {
        pane.title.contains(text)
            || pane.legend.contains(text)
            || pane.lines.iter().any(|line| line.text.contains(text))
    };
    let notice = model.shared.notices.all().last();
    heading(model).contains(text)
        || panes.iter().chain(&popup).any(in_pane)
        || notice.is_some_and(|notice| notice.text.contains(text))
}

impl Page {
    fn from_model(model: &Model) -> Self {
        let (shared, screen) = (&model.shared, model.screen());
        let popup = shared.popup.as_ref().map(|popup| {
            let (place, content) = popup.pane(&shared.theme, Rect::new(0, 0, SIZE.0, POPUP_ROWS));
            lines(&shared.theme, &place, true, &content)
        });
        Self {
            screen: shared.screen,
            panes: screen.lines(shared, shared.body()),
            popup,
        }
    }
}

fn heading(model: &Model) -> String {
    let about = places(model).into_iter().next().unwrap_or_default();
    format!(
        "Screen: {}, {}",
        app::about(model.shared.screen).title,
        about.trim()
    )
}

/// Named by its variant.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Frame {
    Pane,
    Popup,
}

fn whole(frame: Frame, pane: &PaneLines, lines: &mut Vec<String>) {
    let legend = TextLine {
        text: pane.legend.clone(),
        selected: false,
    };
    let legend = (!pane.legend.is_empty()).then_some(&legend);
    print(frame, pane, pane.lines.iter().chain(legend), lines);
}

fn print<'a>(
    frame: Frame,
    pane: &PaneLines,
    of_pane: impl Iterator<Item = &'a TextLine>,
    lines: &mut Vec<String>,
) {
    let of_pane: Vec<&TextLine> = of_pane.collect();
    if !pane.title.is_empty() {
        let focused = if pane.focused && frame == Frame::Pane {
            " (focused)"
        } else {
            ""
        };
        let key = if pane.key.is_empty() {
            String::new()
        } else {
            format!(" {}", pane.key)
        };
        lines.push(format!("{frame:?}: {}{focused}{key}", pane.title));
    }
    let blanks = |line: &&TextLine| line.text.len() - line.text.trim_start_matches(' ').len();
    let indent = of_pane.iter().map(blanks).min().unwrap_or(0);
    lines.extend(of_pane.iter().map(|line| {
        format!(
            "{} {}",
            if line.selected { ">" } else { " " },
            &line.text[indent..]
        )
    }));
}

/// Changes in the same panes; panes that are new or newly focused in full.
fn changes(frame: Frame, before: &[PaneLines], now: &[PaneLines], lines: &mut Vec<String>) {
    let mut before: Vec<Option<&PaneLines>> = before.iter().map(Some).collect();
    for pane in now {
        let same = before
            .iter_mut()
            .find(|other| other.is_some_and(|other| other.id == pane.id));
        let Some(old) = same
            .and_then(Option::take)
            .filter(|old| old.focused || !pane.focused)
        else {
            whole(frame, pane, lines);
            continue;
        };
        let changed = changed_lines(old, pane, frame == Frame::Pane);
        if !changed.is_empty() || without_times(&old.title) != without_times(&pane.title) {
            print(frame, pane, changed.into_iter(), lines);
        }
        if without_times(&old.legend) != without_times(&pane.legend) && !pane.legend.is_empty() {
            lines.push(format!("  {}", pane.legend));
        }
    }
}

/// The lines that were not there before, and the selected one if another was selected. Of a list that has scrolled with
/// its selection only that.
fn changed_lines<'a>(
    before: &PaneLines,
    now: &'a PaneLines,
    can_scroll: bool,
) -> Vec<&'a TextLine> {
    let mut known: HashMap<String, usize> = HashMap::new();
    for line in &before.lines {
        *known.entry(without_times(&line.text)).or_default() += 1;
    }
    let was_selected = |text: &str| {
        before
            .lines
            .iter()
            .any(|line| line.selected && without_times(&line.text) == text)
    };
    let (mut new, mut moved) = (Vec::new(), Vec::new());
    for (index, line) in now.lines.iter().enumerate() {
        let text = without_times(&line.text);
        let count = known.get_mut(&text).filter(|count| **count > 0);
        let is_known = count.map(|count| *count -= 1).is_some();
        if !is_known {
            new.push(index);
        } else if line.selected && !was_selected(&text) {
            moved.push(index);
        }
    }
    let all = now.lines.len();
    let at_one_end =
        new.iter().copied().eq(0..new.len()) || new.iter().copied().eq(all - new.len()..all);
    let has_scrolled = can_scroll
        && !moved.is_empty()
        && at_one_end
        && all == before.lines.len()
        && all - new.len() >= SAME_LINES;
    if !has_scrolled {
        moved.extend(new);
        moved.sort_unstable();
    }
    moved.into_iter().map(|index| &now.lines[index]).collect()
}

/// A text without times, whose change alone is not printed.
fn without_times(text: &str) -> String {
    static TIMES: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"\d+(\.\d+)? ?(ms|[smhdw]|kB/s)\b|\b\d\d:\d\d(:\d\d)?\b").ok()
    });
    let text = text.trim();
    TIMES.as_ref().map_or_else(
        || text.to_owned(),
        |times| times.replace_all(text, "").into_owned(),
    )
}

/// One line without control characters and symbols, in ASCII if nothing else can be shown.
fn printable(line: &str, ascii: bool) -> String {
    let line = one_line(line);
    let letters = visible(&line);
    symbols_in_ascii(&letters, ascii)
}
