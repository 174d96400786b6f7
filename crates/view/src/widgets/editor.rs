//! Text editor for JSON and plain text: typing, selection, undo by words, search, scrolling.

pub mod paint;
mod search;
mod window;
mod wrap;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui_textarea::{CursorMove, TextArea};

use wrap::ScreenRow;
pub use wrap::Window;

const MAX_EDITS: usize = 20_000;
/// Spaces per indentation level.
const INDENT: usize = 2;
/// Edits at least this far apart are separate undo steps, milliseconds.
const PAUSE_MS: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Edited,
    /// The cursor or the selection moved; the text is unchanged.
    Moved,
    /// The editor does not use the key.
    None,
}

/// Consecutive edits of the same kind are one undo step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Word,
    Blank,
    Erase,
    Single,
}

/// Editable text. Rows and columns start at 0; columns count Unicode scalars.
#[derive(Debug, Clone)]
pub struct Editor {
    area: TextArea<'static>,
    is_json: bool,
    line_end: &'static str,
    /// Number of edits per step that can be undone; `undone`: that can be redone.
    done: Vec<usize>,
    undone: Vec<usize>,
    last: Option<(Step, (usize, usize))>,
    /// Time of the last key, and of the last edit, milliseconds.
    now_ms: u64,
    edited_ms: u64,
    /// First screen row, and first column of the window.
    top: ScreenRow,
    left: usize,
    /// The cursor after a vertical move, and the column to return to once a line is long enough.
    goal: Option<((usize, usize), usize)>,
    query: String,
    cut: String,
}

impl Editor {
    /// An editor; `is_json` enables JSON colours, bracket matching and indentation.
    pub fn new(text: &str, is_json: bool) -> Self {
        let mut area = TextArea::new(lines_of(text));
        area.set_max_histories(MAX_EDITS);
        Self {
            area,
            is_json,
            line_end: if text.contains("\r\n") { "\r\n" } else { "\n" },
            done: Vec::new(),
            undone: Vec::new(),
            last: None,
            now_ms: 0,
            edited_ms: 0,
            top: (0, 0),
            left: 0,
            goal: None,
            query: String::new(),
            cut: String::new(),
        }
    }

    pub fn text(&self) -> String {
        self.area.lines().join(self.line_end)
    }

    pub fn lines(&self) -> &[String] {
        self.area.lines()
    }

    pub fn is_json(&self) -> bool {
        self.is_json
    }

    pub fn cursor(&self) -> (usize, usize) {
        let cursor = self.area.cursor();
        (cursor.0, cursor.1)
    }

    /// Moves the cursor as near to the position as the text allows.
    pub fn go_to(&mut self, row: usize, column: usize) {
        self.area.cancel_selection();
        self.jump(row, column);
    }

    fn jump(&mut self, row: usize, column: usize) {
        move_to(&mut self.area, row, column);
        self.last = None;
    }

    pub fn replace(&mut self, text: &str) {
        if self.text() == text {
            return;
        }
        let (row, column) = self.cursor();
        self.select_all();
        self.edit(Step::Single, |area| inserted(area, text));
        self.go_to(row, column);
    }

    /// Handles a key at a time in milliseconds; Up and Down move by screen rows.
    pub fn key(&mut self, event: KeyEvent, window: Window, now_ms: u64) -> Effect {
        self.now_ms = now_ms;
        let control = event.modifiers.contains(KeyModifiers::CONTROL);
        let alt = event.modifiers.contains(KeyModifiers::ALT);
        if let Some(effect) = self.movement(event, window, control || alt) {
            return effect;
        }
        match event.code {
            KeyCode::Char(letter) if !control && !alt => self.type_letter(letter),
            KeyCode::Char('a') if alt => {
                self.select_all();
                Effect::Moved
            }
            KeyCode::Enter if !control => self.new_line(),
            KeyCode::Tab if !control => {
                self.edit(Step::Blank, |area| inserted(area, &" ".repeat(INDENT)))
            }
            KeyCode::Backspace if control || alt => {
                self.delete(Step::Single, TextArea::delete_word)
            }
            KeyCode::Char('w') if control => self.delete(Step::Single, TextArea::delete_word),
            KeyCode::Backspace => self.erase(),
            KeyCode::Delete if control || alt => {
                self.delete(Step::Single, TextArea::delete_next_word)
            }
            KeyCode::Delete => self.delete(Step::Erase, TextArea::delete_next_char),
            KeyCode::Char('k') if control => {
                self.delete(Step::Single, TextArea::delete_line_by_end)
            }
            KeyCode::Char('x') if control => {
                self.cut = self.selected().unwrap_or_default();
                self.edit(Step::Single, |_| 0)
            }
            KeyCode::Char('v') if control => {
                let text = self.cut.clone();
                self.paste(&text)
            }
            _ => Effect::None,
        }
    }

    fn movement(&mut self, event: KeyEvent, window: Window, by_words: bool) -> Option<Effect> {
        let (row, column) = self.cursor();
        let page = isize::try_from(window.rows.max(2) - 1).unwrap_or(isize::MAX);
        let to = match (event.code, by_words) {
            (KeyCode::Left, false) => Motion::By(CursorMove::Back),
            (KeyCode::Right, false) => Motion::By(CursorMove::Forward),
            (KeyCode::Left, true) => Motion::By(CursorMove::WordBack),
            (KeyCode::Right, true) => Motion::By(CursorMove::WordForward),
            (KeyCode::Up, _) => Motion::To(self.vertical(-1, window)),
            (KeyCode::Down, _) => Motion::To(self.vertical(1, window)),
            (KeyCode::PageUp, _) => Motion::To(self.vertical(-page, window)),
            (KeyCode::PageDown, _) => Motion::To(self.vertical(page, window)),
            (KeyCode::Home, true) => Motion::To((0, 0)),
            (KeyCode::End, true) => Motion::To((usize::MAX, usize::MAX)),
            (KeyCode::End, false) => Motion::By(CursorMove::End),
            (KeyCode::Char('e'), true) if event.modifiers.contains(KeyModifiers::CONTROL) => {
                Motion::By(CursorMove::End)
            }
            (KeyCode::Home, false) => {
                let blanks = self
                    .lines()
                    .get(row)?
                    .chars()
                    .take_while(|letter| letter.is_whitespace())
                    .count();
                Motion::To((row, if column == blanks { 0 } else { blanks }))
            }
            _ => return None,
        };
        if event.modifiers.contains(KeyModifiers::SHIFT) {
            if !self.area.is_selecting() {
                self.area.start_selection();
            }
        } else {
            self.area.cancel_selection();
        }
        match to {
            Motion::By(by) => self.area.move_cursor(by),
            Motion::To((row, column)) => move_to(&mut self.area, row, column),
        }
        self.last = None;
        Some(Effect::Moved)
    }

    fn type_letter(&mut self, letter: char) -> Effect {
        let step = if letter.is_whitespace() {
            Step::Blank
        } else {
            Step::Word
        };
        let (row, column) = self.cursor();
        let before: String = self
            .lines()
            .get(row)
            .map_or(String::new(), |line| line.chars().take(column).collect());
        let closes = self.is_json && matches!(letter, '}' | ']') && !self.area.is_selecting();
        // A closing bracket alone on its line is indented one level less.
        let back = if closes && !before.is_empty() && before.chars().all(|letter| letter == ' ') {
            INDENT.min(column)
        } else {
            0
        };
        self.edit(if back > 0 { Step::Single } else { step }, |area| {
            let erased = (0..back).filter(|_| area.delete_char()).count();
            area.insert_char(letter);
            erased + 1
        })
    }

    fn new_line(&mut self) -> Effect {
        if !self.is_json {
            return self.edit(Step::Single, |area| {
                area.insert_newline();
                1
            });
        }
        let (row, column) = self.cursor();
        let line = self.lines().get(row).cloned().unwrap_or_default();
        let before: String = line.chars().take(column).collect();
        let blanks = before.chars().take_while(|letter| *letter == ' ').count();
        let opens = before.trim_end().ends_with(['{', '[']);
        let closes = line
            .chars()
            .skip(column)
            .collect::<String>()
            .trim_start()
            .starts_with(['}', ']']);
        let inner = " ".repeat(blanks + if opens { INDENT } else { 0 });
        let outer = format!("\n{}", " ".repeat(blanks));
        self.edit(Step::Single, |area| {
            let first = inserted(area, &format!("\n{inner}"));
            if !(opens && closes) {
                return first;
            }
            let (row, column) = (area.cursor().0, area.cursor().1);
            let second = inserted(area, &outer);
            move_to(area, row, column);
            first + second
        })
    }

    fn erase(&mut self) -> Effect {
        let (row, column) = self.cursor();
        let blanks = self
            .lines()
            .get(row)
            .is_some_and(|line| line.chars().take(column).all(|letter| letter == ' '));
        let level = self.is_json
            && blanks
            && column >= INDENT
            && column % INDENT == 0
            && !self.area.is_selecting();
        if self.selection().is_some() {
            return self.edit(Step::Single, |_| 0);
        }
        self.edit(Step::Erase, |area| {
            (0..if level { INDENT } else { 1 })
                .filter(|_| area.delete_char())
                .count()
        })
    }

    /// Inserts a text at the cursor, replacing the selection.
    pub fn paste(&mut self, text: &str) -> Effect {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        self.edit(Step::Single, |area| inserted(area, &text))
    }

    /// Replaces a range as one undo step; the cursor moves after it.
    pub fn replace_part(&mut self, from: (usize, usize), to: (usize, usize), text: &str) {
        self.go_to(from.0, from.1);
        self.area.start_selection();
        self.jump(to.0, to.1);
        self.paste(text);
    }

    pub fn undo(&mut self) -> bool {
        let Some(edits) = self.done.pop() else {
            return false;
        };
        let undone = (0..edits).filter(|_| self.area.undo()).count();
        self.undone.push(undone);
        self.last = None;
        undone > 0
    }

    pub fn redo(&mut self) -> bool {
        let Some(edits) = self.undone.pop() else {
            return false;
        };
        let redone = (0..edits).filter(|_| self.area.redo()).count();
        self.done.push(redone);
        self.last = None;
        redone > 0
    }

    pub fn selected(&self) -> Option<String> {
        let ((row, column), (last_row, last_column)) = self.selection()?;
        let lines = self.lines().get(row..=last_row)?;
        let mut text = String::new();
        for (index, line) in lines.iter().enumerate() {
            let from = if index == 0 { column } else { 0 };
            let to = if row + index == last_row {
                last_column
            } else {
                usize::MAX
            };
            text.extend(line.chars().take(to).skip(from));
            if row + index < last_row {
                text.push('\n');
            }
        }
        Some(text)
    }

    pub fn selection(&self) -> Option<((usize, usize), (usize, usize))> {
        self.area.selection_range().filter(|(from, to)| from != to)
    }

    pub fn select_all(&mut self) {
        self.go_to(0, 0);
        self.area.start_selection();
        self.jump(usize::MAX, usize::MAX);
    }

    pub fn unselect(&mut self) {
        self.area.cancel_selection();
    }

    /// Searches from the cursor, case-sensitive only if the query contains an uppercase letter.
    /// Returns the number of matches.
    pub fn find(&mut self, query: &str) -> usize {
        self.query = query.to_owned();
        self.area.cancel_selection();
        let case = if query.chars().any(char::is_uppercase) {
            ""
        } else {
            "(?i)"
        };
        let pattern = if query.is_empty() {
            String::new()
        } else {
            format!("{case}{}", regex::escape(query))
        };
        if self.area.set_search_pattern(pattern).is_ok() && !query.is_empty() {
            self.area.search_forward(true);
        }
        self.last = None;
        self.lines()
            .iter()
            .map(|line| search::matches(line, query).len())
            .sum()
    }

    /// Whether the text contains a match, as for [`Self::find`].
    pub fn contains(&self, query: &str) -> bool {
        self.lines()
            .iter()
            .any(|line| !search::matches(line, query).is_empty())
    }

    pub fn query(&self) -> &str {
        &self.query
    }

    pub fn find_next(&mut self, forward: bool) -> bool {
        self.area.cancel_selection();
        self.last = None;
        if forward {
            self.area.search_forward(false)
        } else {
            self.area.search_back(false)
        }
    }

    /// Starts an undo step, or extends the last one for the same kind of edit at the same position.
    /// Deletes the selection first; `change` returns its number of edits in the text's history.
    fn edit(&mut self, step: Step, change: impl FnOnce(&mut TextArea<'static>) -> usize) -> Effect {
        let is_same = step != Step::Single
            && self.selection().is_none()
            && self.last == Some((step, self.cursor()));
        let goes_on = is_same && self.now_ms.saturating_sub(self.edited_ms) < PAUSE_MS;
        self.edited_ms = self.now_ms;
        let edits = usize::from(self.selection().is_some() && self.area.cut());
        self.area.cancel_selection();
        let edits = edits + change(&mut self.area);
        if edits == 0 {
            return Effect::None;
        }
        match self.done.last_mut().filter(|_| goes_on) {
            Some(open) => *open += edits,
            None => self.done.push(edits),
        }
        self.undone.clear();
        self.last = Some((step, self.cursor()));
        Effect::Edited
    }

    /// Deletes the selection, else what `change` deletes.
    fn delete(
        &mut self,
        step: Step,
        change: impl FnOnce(&mut TextArea<'static>) -> bool,
    ) -> Effect {
        if self.selection().is_some() {
            return self.edit(Step::Single, |_| 0);
        }
        self.edit(step, |area| usize::from(change(area)))
    }
}

fn inserted(area: &mut TextArea<'static>, text: &str) -> usize {
    usize::from(area.insert_str(text))
}

enum Motion {
    By(CursorMove),
    To((usize, usize)),
}

/// Moves the cursor as near as the text allows. The text area jumps only within `u16`: moves row by
/// row beyond that, and searches for further columns.
fn move_to(area: &mut TextArea<'static>, row: usize, column: usize) {
    let place = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
    let row = row.min(area.lines().len().saturating_sub(1));
    area.move_cursor(CursorMove::Jump(
        place(row),
        if row > place(row).into() {
            0
        } else {
            place(column)
        },
    ));
    (usize::from(place(row))..row).for_each(|_| area.move_cursor(CursorMove::Down));
    let (line, from) = (
        area.lines().get(row).map_or("", String::as_str),
        area.cursor().1,
    );
    let byte_of = |column| line.char_indices().nth(column).map(|(byte, _)| byte);
    match byte_of(from).zip(byte_of(column)) {
        None => area.move_cursor(CursorMove::End),
        Some((start, byte)) if start < byte => {
            let (landmark, before) = (
                landmark(line, start, byte),
                area.search_pattern().map(ToString::to_string),
            );
            let is_found = landmark.is_some_and(|text| {
                area.set_search_pattern(text).is_ok() && area.search_forward(true)
            });
            if area.set_search_pattern(before.unwrap_or_default()).is_err() || !is_found {
                (from..column).for_each(|_| area.move_cursor(CursorMove::Forward));
            }
        }
        Some(_) => {}
    }
}

/// A pattern whose first match from `start` is at `byte`: just enough of the text there; `None` if
/// it repeats too often.
fn landmark(line: &str, start: usize, byte: usize) -> Option<String> {
    let lengths = std::iter::successors(Some(32), |length| Some(2 * length))
        .take_while(|length| *length <= 4096);
    let mut texts = lengths.map(|length| &line[byte..line.ceil_char_boundary(byte + length)]);
    let is_last = |text: &str| byte + text.len() == line.len();
    let text =
        texts.find(|text| is_last(text) || line[start..].find(text) == Some(byte - start))?;
    Some(format!(
        "{}{}",
        regex::escape(text),
        if is_last(text) { "$" } else { "" }
    ))
}

fn lines_of(text: &str) -> Vec<String> {
    text.split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned())
        .collect()
}

#[cfg(test)]
#[path = "editor/tests.rs"]
mod tests;
