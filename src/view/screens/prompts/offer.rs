//! Texts that an earlier session has left unsaved are offered when the screen is entered, the newest first.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::kept::{self, DraftTarget, Kept, Origin, Place};
use super::row_editor::{self, What};
use super::rows::Entry;
use crate::dataset::PromptRow;
use crate::task::{PromptSet, TASK_FILE};
use crate::view::app::Model;
use crate::view::message::{Command, Work};
use crate::view::popup::{Confirm, Popup};
use crate::view::screens::Screen;
use crate::view::shared::OpenTask;

/// What was found, and what the user has heard of.
#[derive(Debug, Default)]
pub(super) struct DraftOffers {
    /// Texts that the user is yet to be asked about, the oldest first.
    waiting: Vec<Offer>,
    /// Files that this session has written, asked about or complained of.
    pub(super) told: HashSet<PathBuf>,
}

/// A text that is left.
#[derive(Debug, Clone)]
struct Offer {
    file: PathBuf,
    kept: Kept,
}

/// Where a kept text belongs in the task as it is now.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    /// What it is now.
    pub(super) what: What,
    /// The row as it is now.
    pub(super) row: Option<PromptRow>,
    /// The row as it was, where it is gone from its file.
    pub(super) gone: Option<Origin>,
    /// The text as it is now.
    pub(super) start: String,
    /// What is to be known of that.
    pub(super) note: Option<String>,
}

impl DraftOffers {
    /// The task was read again, or is another one: what is left of it is looked for anew.
    pub(super) fn begin_anew(&mut self) {
        self.waiting.clear();
    }
}

impl Kept {
    fn title(&self) -> String {
        match &self.of {
            DraftTarget::Messages(origin) => format!("messages of {}", origin.id),
            DraftTarget::Expected(origin) => format!("expected answer of {}", origin.id),
            DraftTarget::New { set, after: 0 } => format!("new first row of the {set} set"),
            DraftTarget::New { set, after } => format!("new row of the {set} set after line {after}"),
            DraftTarget::System { .. } => "system prompt".to_owned(),
        }
    }
}

/// Look for texts that are left of the open task.
pub(super) fn look(model: &Model) -> Vec<Command> {
    let Some(open) = &model.shared.task else { return Vec::new() };
    let (mark, data, told) = (kept::mark(&open.task), model.shared.options.data.clone(), model.prompts.offers.told.clone());
    vec![Work::once(
        "prompts.left",
        move || {
            let files = kept::files(&data, &mark);
            let read =
                |files: Vec<PathBuf>| files.into_iter().filter(|file| !told.contains(file)).map(|file| (read(&file), file)).collect();
            (mark, files.map(read))
        },
        |model, (mark, files): (String, Result<Vec<_>, String>)| {
            let files = match files {
                Ok(files) if is_of_task(model, &mark) => files,
                Ok(_) => return Vec::new(),
                Err(error) => {
                    model.shared.complain(format!("cannot look for drafts: {error}"));
                    return Vec::new();
                }
            };
            let mut waiting = Vec::new();
            for (kept, file) in files {
                match kept {
                    // Begun or put aside while the files were read.
                    _ if model.prompts.offers.told.contains(&file) => {}
                    Ok(kept) => waiting.push(Offer { file, kept }),
                    Err(error) => {
                        model.shared.complain(format!("{}: {error}; draft not offered, file left in place", file.display()));
                        model.prompts.offers.told.insert(file);
                    }
                }
            }
            waiting.sort_by(|one, other| (one.kept.time_ms, &one.file).cmp(&(other.kept.time_ms, &other.file)));
            model.prompts.offers.waiting = waiting;
            ask(model)
        },
    )]
}

fn read(file: &Path) -> Result<Kept, String> {
    let text = crate::files::read_text(file).map_err(|error| error.to_string())?;
    let kept: Kept = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    match &kept.of {
        DraftTarget::Messages(Origin { set, .. }) | DraftTarget::Expected(Origin { set, .. }) | DraftTarget::New { set, .. } => {
            PromptSet::from_name(set).map(|_| ()).ok_or_else(|| format!("unknown prompt set {set:?}"))?;
        }
        DraftTarget::System { .. } => {}
    }
    Ok(kept)
}

fn is_of_task(model: &Model, mark: &str) -> bool {
    model.shared.task.as_ref().is_some_and(|open| kept::mark(&open.task) == mark)
}

/// Ask about the next text, where the screen is in front and nothing else has the keys.
pub(super) fn ask(model: &mut Model) -> Vec<Command> {
    let mut commands = Vec::new();
    let Some(open) = model.shared.task.clone() else { return commands };
    let is_free = model.shared.popup.is_none() && model.prompts.editing.is_none() && !model.prompts.filtering;
    while is_free && model.shared.screen == Screen::Prompts {
        let Some(offer) = model.prompts.offers.waiting.pop() else { break };
        match find(&open, &offer.kept.of) {
            // A row that cannot be read now may be mended, and then it is looked for again.
            Err(why) => model.shared.complain(format!("{} has a draft in {}: {why}", offer.kept.title(), offer.file.display())),
            // The program has ended after saving, before it could remove the file.
            Ok(found) if found.start == offer.kept.text => {
                commands.push(kept::forget_file(model, &offer.file));
                model.prompts.offers.told.insert(offer.file);
            }
            Ok(found) => {
                model.prompts.offers.told.insert(offer.file.clone());
                model.shared.popup = Some(Popup::Confirm(question(offer, found.note)));
                break;
            }
        }
    }
    commands
}

fn question(offer: Offer, note: Option<String>) -> Confirm {
    let lines = offer.kept.text.split('\n').count();
    let text = format!(
        "Draft: {}.\n{lines} line{}, saved {}.{}",
        offer.kept.title(),
        if lines == 1 { "" } else { "s" },
        crate::view::day_and_clock(offer.kept.time_ms),
        note.map_or_else(String::new, |note| format!("\n{note}."))
    );
    let file = offer.file.clone();
    Confirm::new("Restore draft?", text, "restore", move |model| take_up(model, offer)).otherwise(move |model| {
        model.shared.say(format!("draft stays in {}: offered again next session", file.display()));
        ask(model)
    })
}

/// The editor opens on the text as it was.
fn take_up(model: &mut Model, offer: Offer) -> Vec<Command> {
    let Some(open) = model.shared.task.clone() else { return Vec::new() };
    let mark = kept::mark(&open.task);
    // The task may have been read again since the question came.
    let is_here = offer.file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&kept::beginning(&mark)));
    let found = match find(&open, &offer.kept.of) {
        Ok(found) if is_here => found,
        outcome => {
            let why = outcome.err().unwrap_or_else(|| "another task is open".to_owned());
            model.shared.complain(format!("draft stays in {}: {why}", offer.file.display()));
            model.prompts.offers.told.remove(&offer.file);
            return Vec::new();
        }
    };
    match &found.note {
        Some(note) => model.shared.complain(note.clone()),
        None => model.shared.say(format!("{} restored, unsaved", offer.kept.title())),
    }
    let place = Place { task: open.task.label(TASK_FILE), mark, file: offer.file, text: Some(offer.kept.text.clone()) };
    row_editor::take_up(model, found, place, &offer.kept)
}

/// Where a kept text belongs now; a sentence where its set cannot take it.
fn find(open: &OpenTask, of: &DraftTarget) -> Result<Found, String> {
    let here = |what: What, note: Option<String>| {
        let (row, start) = row_editor::current_value(open, what);
        Found { what, row, gone: None, start, note }
    };
    let (origin, what): (&Origin, fn(Entry) -> What) = match of {
        DraftTarget::Messages(origin) => (origin, What::Messages),
        DraftTarget::Expected(origin) => (origin, What::Expected),
        DraftTarget::System { was } => {
            let changed = open.task.system.as_deref().unwrap_or_default() != was;
            return Ok(here(What::System, changed.then(|| "the system prompt has changed since".to_owned())));
        }
        DraftTarget::New { set, after } => {
            let (set, file) = set_of(open, set)?;
            let last = open.rows.get(&set).and_then(|rows| rows.as_ref().ok()?.last()).map_or(*after, |row| row.line);
            let note = (last < *after).then(|| format!("{file} is shorter now: the row is appended after its last line"));
            return Ok(here(What::New(set, last.min(*after)), note));
        }
    };
    let (set, file) = set_of(open, &origin.set)?;
    let rows = match open.rows.get(&set) {
        Some(Ok(rows)) => rows,
        Some(Err(error)) => return Err(error.clone()),
        None => &Vec::new(),
    };
    if let Some(index) = place_of(rows, origin) {
        let changed = rows.get(index).is_none_or(|row| row.fields != origin.fields);
        let note = changed.then(|| format!("{} has changed since: compare before saving", origin.id));
        return Ok(here(what(Entry { set, index: index as u32 }), note));
    }
    let last = rows.last().map_or(0, |row| row.line);
    let what = if matches!(of, DraftTarget::Messages(_)) { What::New(set, last) } else { What::NewExpected(set, last) };
    let note = format!("{} was deleted from {file}: saving appends it as a new row", origin.id);
    Ok(Found { what, row: None, gone: Some(origin.clone()), start: String::new(), note: Some(note) })
}

fn set_of<'a>(open: &'a OpenTask, name: &str) -> Result<(PromptSet, &'a str), String> {
    let found = PromptSet::from_name(name).and_then(|set| Some((set, open.task.set_file(set)?)));
    found.ok_or_else(|| format!("task.toml no longer names {name} prompts"))
}

/// The row as it was, wherever it is now; else the row that has its id. A row without an id of its own is only known by what it holds.
fn place_of(rows: &[PromptRow], origin: &Origin) -> Option<usize> {
    let same = |row: &PromptRow| row.fields == origin.fields;
    let place = rows.iter().position(|row| row.id == origin.id && same(row)).or_else(|| rows.iter().position(same));
    place.or_else(|| rows.iter().position(|row| row.id == origin.id && row.fields.contains_key("id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_again() {
        let rows = |text: &str| crate::dataset::load_from("train.jsonl", text.as_bytes()).unwrap();
        let line = |id: &str, text: &str| format!("{{{id}\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}\n");
        let (named, nameless) = (|id: &str, text: &str| line(&format!("\"id\":\"{id}\","), text), |text: &str| line("", text));
        let check = |before: &str, index: usize, after: &str, expected: Option<usize>| {
            let row = &rows(before)[index];
            let origin = Origin { set: "train".to_owned(), id: row.id.clone(), fields: row.fields.clone() };
            assert_eq!(place_of(&rows(after), &origin), expected, "{before} {index} {after}");
        };
        let both = named("a", "1") + &named("b", "2");
        check(&both, 1, &both, Some(1));
        check(&both, 1, &named("b", "2"), Some(0));
        check(&both, 1, &(named("b", "3") + &named("a", "1")), Some(0));
        check(&both, 1, &named("a", "1"), None);
        let both = nameless("1") + &nameless("2");
        check(&both, 0, &(nameless("0") + &both), Some(1));
        check(&both, 1, &(nameless("1") + &nameless("3")), None);
        // Of twins the one in its own line.
        check(&(nameless("1") + &nameless("1")), 1, &(nameless("1") + &nameless("1")), Some(1));
    }
}
