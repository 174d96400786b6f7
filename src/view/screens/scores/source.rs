//! Reading completions from their source, and scoring them again: work beside the view, of which only the newest
//! counts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::items::{Items, Rows, rows_of, rows_of_run};
use super::scoring::{Impact, Scored, impacts, moved, score};
use super::{RescoreJob, Scores, Source, Stored, arrange};
use crate::advantage::Advantage;
use crate::view::message::{Command, Sender, Work};
use crate::view::shared::OpenTask;
use crate::view::shared::Shared;
use crate::view::subprocess::CancelToken;
use crate::view::widgets::list_cursor::Cursor;

/// Completions of stored steps that are held and scored again with every change of the schema.
const HELD: usize = 2_000;
/// Progress over a whole run is reported in pieces of so many steps.
const PIECE: usize = 20;

/// What was read.
struct Loaded {
    items: Result<Items, String>,
    rows: Arc<Rows>,
    stored: Option<Stored>,
    source: Source,
}

/// What is read: everything that the work needs, taken from the model.
struct LoadRequest {
    open: Arc<OpenTask>,
    rows: Option<Arc<Rows>>,
    source: Source,
    written: Vec<super::items::Written>,
    advantage: Option<Advantage>,
    run: Option<RunStep>,
    stored: Option<Stored>,
}

struct RunStep {
    run: PathBuf,
    task: PathBuf,
    step: u64,
    last: u64,
    advantage: Advantage,
}

/// Read the completions of the source as it is set.
pub(super) fn load(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    let Some(open) = shared.task.clone() else { return Vec::new() };
    let rows = scores.rows.as_ref().filter(|(task, _)| Arc::ptr_eq(task, &open)).map(|(_, rows)| Arc::clone(rows));
    let written = match scores.source {
        Source::Written => scores.written.clone(),
        Source::Sampled => scores.sampled.clone(),
        _ => Vec::new(),
    };
    let advantage = shared.new_run.advantage;
    let (run, stored) = (run_step(scores, shared), scores.stored.clone());
    let wanted = LoadRequest { open: Arc::clone(&open), rows, source: scores.source, written, advantage, run, stored };
    let compute = move |sender: &Sender| read(wanted, sender);
    vec![Work::latest("scores.items", compute, move |scores: &mut Scores, shared, loaded| {
        take_items(scores, shared, open, loaded)
    })]
}

/// The step of the current run that is looked at.
fn run_step(scores: &Scores, shared: &Shared) -> Option<RunStep> {
    let run = shared.current_run()?;
    let last = run.history.last_step;
    let directory = run.directory.as_ref()?;
    let step = if scores.step == 0 { last } else { scores.step.min(last) };
    let advantage = directory.file().config.advantage;
    Some(RunStep { run: run.path().to_owned(), task: directory.task_path(), step, last, advantage })
}

fn read(wanted: LoadRequest, sender: &Sender) -> Loaded {
    let rows = wanted.rows.unwrap_or_else(|| Arc::new(rows_of(&wanted.open)));
    let mut stored = wanted.stored;
    let items = match wanted.source {
        Source::Samples => Items::samples(&wanted.open, &rows, wanted.advantage),
        Source::Written | Source::Sampled => Ok(Items::written(wanted.written, &rows, wanted.advantage)),
        Source::Step => match wanted.run {
            None => Err("no run is open: open one on Runs (f1)".to_owned()),
            Some(run) if run.last == 0 => Err("the run has no finished step yet".to_owned()),
            Some(run) => {
                let held = hold(&run, stored.take().filter(|stored| stored.run == run.run), sender);
                let items = Items::step(&run.run, run.step, &held.rows, run.advantage);
                stored = Some(held);
                items
            }
        },
    };
    Loaded { items, rows, stored, source: wanted.source }
}

/// The latest steps of a run, up to a number of completions; those that are held already are not read again.
fn hold(run: &RunStep, before: Option<Stored>, sender: &Sender) -> Stored {
    let (rows, known) = match before {
        Some(before) if before.steps.last().is_some_and(|(step, _)| *step == run.last) => return before,
        Some(before) => (before.rows, before.steps),
        None => (Arc::new(rows_of_run(&run.task)), Arc::default()),
    };
    let (mut steps, mut completions) = (Vec::new(), 0);
    // Superseded, what is read so far goes nowhere.
    for step in (1..=run.last).rev().take_while(|_| sender.is_wanted()) {
        let items = match known.binary_search_by_key(&step, |(step, _)| *step) {
            Ok(place) => Ok(Arc::clone(&known[place].1)),
            Err(_) => Items::step(&run.run, step, &rows, run.advantage).map(Arc::new),
        };
        // A step that cannot be read is told when it is looked at; steps that the keep rule deleted are empty.
        let Ok(items) = items else { continue };
        if items.all.is_empty() {
            break;
        }
        completions += items.all.len();
        if completions > HELD && !steps.is_empty() {
            break;
        }
        steps.push((step, items));
    }
    steps.reverse();
    Stored { run: run.run.clone(), rows, steps: Arc::new(steps) }
}

fn take_items(scores: &mut Scores, shared: &mut Shared, open: Arc<OpenTask>, loaded: Loaded) -> Vec<Command> {
    scores.rows = Some((open, loaded.rows));
    scores.stored = loaded.stored;
    if loaded.source != scores.source {
        return Vec::new();
    }
    match loaded.items {
        Ok(items) => {
            (scores.items, scores.error) = (Arc::new(items), None);
            rescore(scores, shared)
        }
        Err(error) => {
            (scores.items, scores.scored, scores.error) = (Arc::default(), None, Some(error));
            arrange(scores);
            Vec::new()
        }
    }
}

/// Score what is there with the last schema that compiled.
pub(super) fn rescore(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    let Some(scorer) = shared.scorer() else { return Vec::new() };
    let items = Arc::clone(&scores.items);
    let held = scores.stored.as_ref().filter(|_| scores.source == Source::Step);
    let steps = held.map(|stored| Arc::clone(&stored.steps)).unwrap_or_default();
    scores.is_old = false;
    let compute = move |sender: &Sender| {
        let wanted = || sender.is_wanted();
        score(&items, &scorer, &wanted).zip(impacts(&steps, &scorer, &wanted))
    };
    vec![Work::latest("score", compute, |scores: &mut Scores, _, scored| {
        scored.map_or_else(Vec::new, |scored| take_scores(scores, scored))
    })]
}

fn take_scores(scores: &mut Scores, (scored, impacts): (Scored, Vec<Impact>)) -> Vec<Command> {
    match scores.scored.as_ref().and_then(|before| moved(before, &scored)) {
        // What moved stays marked until something moves again.
        Some(now) if now.iter().any(Option::is_some) => scores.moved = now,
        Some(_) => {}
        None => scores.moved = vec![None; scored.scores.len()],
    }
    (scores.scored, scores.impacts) = (Some(scored), impacts);
    arrange(scores);
    Vec::new()
}

/// Look at completions of another source.
pub(super) fn turn_to(scores: &mut Scores, shared: &mut Shared, source: Source) -> Vec<Command> {
    if scores.source != source {
        scores.source = source;
        scores.cursor = Cursor::default();
        scores.tops = Default::default();
    }
    load(scores, shared)
}

/// Look at another step of the current run; beyond its ends nothing changes.
pub(super) fn step(scores: &mut Scores, shared: &mut Shared, by: i64) -> Vec<Command> {
    let last = shared.current_run().map_or(0, |run| run.history.last_step);
    let now = if scores.step == 0 { last } else { scores.step };
    let next = now.saturating_add_signed(by).clamp(1, last.max(1));
    // At the end the latest step is followed.
    scores.step = if next >= last { 0 } else { next };
    if scores.source != Source::Step {
        // The first press shows the step at hand, the next ones move.
        scores.step = 0;
    }
    turn_to(scores, shared, Source::Step)
}

/// The run is another one: nothing of the last one holds.
pub(super) fn forget_run(scores: &mut Scores) {
    if let Some(whole) = scores.whole.take() {
        whole.cancel.now();
    }
    (scores.stored, scores.step) = (None, 0);
    scores.impacts.clear();
    if scores.source == Source::Step {
        (scores.items, scores.scored) = (Arc::default(), None);
    }
    arrange(scores);
}

/// Score every stored step of the current run again, piece by piece.
pub(super) fn rescore_run(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    let (Some(run), Some(scorer)) = (run_step(scores, shared), shared.scorer()) else { return Vec::new() };
    let cancel = CancelToken::default();
    let version = shared.draft.version;
    if let Some(before) = scores.whole.take() {
        before.cancel.now();
    }
    scores.whole = Some(RescoreJob { cancel: cancel.clone(), steps: run.last, version, ..RescoreJob::default() });
    vec![Work::stream("scores.whole", move |sender| {
        let rows = rows_of_run(&run.task);
        let all: Vec<u64> = (1..=run.last).collect();
        for piece in all.chunks(PIECE) {
            let wanted = || !cancel.is_asked() && sender.is_wanted();
            if !wanted() {
                return;
            }
            let outcome = piece_of(&run.run, piece, &rows, run.advantage);
            let (steps, error) = match outcome {
                Ok(steps) => (steps, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            let Some(found) = impacts(&steps, &scorer, &wanted) else { return };
            let wanted = sender.send(move |scores: &mut Scores, _| {
                if let Some(whole) = &mut scores.whole {
                    whole.impacts.extend(found);
                    whole.error = whole.error.take().or(error);
                }
                Vec::new()
            });
            if !wanted {
                return;
            }
        }
        sender.send(|scores: &mut Scores, _| {
            if let Some(whole) = &mut scores.whole {
                whole.is_done = true;
            }
            Vec::new()
        });
    })]
}

/// The steps of a piece; those that the keep rule deleted are left out.
fn piece_of(run: &Path, piece: &[u64], rows: &Rows, advantage: Advantage) -> Result<Vec<(u64, Arc<Items>)>, String> {
    let read = piece.iter().map(|step| Items::step(run, *step, rows, advantage).map(|items| (*step, Arc::new(items))));
    let mut steps = read.collect::<Result<Vec<_>, _>>()?;
    steps.retain(|(_, items)| !items.all.is_empty());
    Ok(steps)
}
