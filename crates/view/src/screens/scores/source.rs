//! Background loading and re-scoring of completions; only the newest result counts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::items::{Items, Rows, rows_of};
use super::scoring::{ScoredItems, moved, query_results, score};
use super::{RunTask, ScoredTask, Scores, Source, arrange};
use crate::advantage::Advantage;
use crate::format::short_id;
use crate::message::{Command, Sender, Work};
use crate::run::RunDirectory;
use crate::score::{Scorer, Task, Tier};
use crate::shared::{LastScores, OpenTask, Shared};
use crate::widgets::list_cursor::Cursor;

struct Loaded {
    items: Result<Items, String>,
    rows: Arc<Rows>,
    own: Option<RunTask>,
    source: Source,
}

struct LoadRequest {
    open: Arc<OpenTask>,
    rows: Option<Arc<Rows>>,
    /// Folder of the open run if its task is not the open task, and the run's task if already read.
    own: Option<(PathBuf, Option<RunTask>)>,
    /// Whether the completions are of the run's task.
    is_own: bool,
    here: PathBuf,
    source: Source,
    written: Vec<super::items::Written>,
    advantage: Option<Advantage>,
}

pub(super) fn load(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let rows = scores
        .rows
        .as_ref()
        .filter(|(task, _)| Arc::ptr_eq(task, &open))
        .map(|(_, rows)| Arc::clone(rows));
    let written = match scores.source {
        Source::Written => scores.written.clone(),
        Source::Sampled => scores.sampled.clone(),
        _ => Vec::new(),
    };
    let advantage = shared.new_run.advantage;
    let own = shared.run_of_other_task().map(|run| {
        let folder = shared.own_task_folder(run);
        let read = scores.own.clone().filter(|own| own.folder == folder);
        (folder, read)
    });
    let request = LoadRequest {
        open: Arc::clone(&open),
        rows,
        own,
        is_own: is_own(scores, shared),
        here: shared.options.here.clone(),
        source: scores.source,
        written,
        advantage,
    };
    let compute = move |_: &Sender| read(request);
    vec![Work::latest(
        "scores.items",
        compute,
        move |scores: &mut Scores, shared, loaded| take_items(scores, shared, open, loaded),
    )]
}

fn read(request: LoadRequest) -> Loaded {
    let rows = request
        .rows
        .unwrap_or_else(|| Arc::new(rows_of(&request.open)));
    let own = request
        .own
        .map(|(folder, read)| read.unwrap_or_else(|| read_task(folder, &request.here)));
    let of_run = own.as_ref().filter(|_| request.is_own);
    let items = match (request.source, of_run.map(|own| own.read.as_ref())) {
        (Source::Samples, _) => Items::samples(&request.open, &rows, request.advantage),
        (_, Some(Err(why))) => Err(why.clone()),
        (_, Some(Ok(task))) => Ok(Items::written(
            request.written,
            &task.rows,
            request.advantage,
        )),
        (_, None) => Ok(Items::written(request.written, &rows, request.advantage)),
    };
    Loaded {
        items: items.map(Items::with_parts),
        rows,
        own,
        source: request.source,
    }
}

fn read_task(folder: PathBuf, here: &Path) -> RunTask {
    let read = || {
        let task = Task::load(&folder).map_err(|error| error.to_string())?;
        let scorer = Arc::new(Scorer::new(&task).map_err(|error| error.to_string())?);
        let open = OpenTask::read(task, here);
        Ok(Arc::new(ScoredTask {
            rows: rows_of(&open),
            open,
            scorer,
        }))
    };
    let read =
        read().map_err(|why: String| format!("cannot score with the task of the run: {why}"));
    RunTask { folder, read }
}

/// Whether the completions are of the open run, whose task is not the open one.
pub(super) fn is_own(scores: &Scores, shared: &Shared) -> bool {
    let own = shared.run_of_other_task();
    scores.source == Source::Sampled
        && own.is_some_and(|run| run.file().task == scores.sampled_task)
}

/// Task of the open run if it is not the open task, or why it cannot be sampled yet.
pub(super) fn own_task<'a>(
    scores: &'a Scores,
    run: &RunDirectory,
) -> Result<&'a ScoredTask, String> {
    match scores
        .own
        .as_ref()
        .filter(|own| own.folder.starts_with(run.path()))
    {
        Some(own) => own.read.as_deref().map_err(Clone::clone),
        None => Err(format!(
            "reading the task of run {} ...",
            short_id(run.id())
        )),
    }
}

/// Whether the task of the open run must be read because it is not the open one.
pub(super) fn is_unread(scores: &Scores, shared: &Shared) -> bool {
    let run = shared.run_of_other_task();
    run.is_some_and(|run| {
        scores
            .own
            .as_ref()
            .is_none_or(|own| own.folder != shared.own_task_folder(run))
    })
}

/// Scorer of the completions; `None` if nothing has compiled yet or the run's task cannot be read.
fn scorer(scores: &Scores, shared: &Shared) -> Option<Arc<Scorer>> {
    if !is_own(scores, shared) {
        return shared.scorer();
    }
    let run = shared.run_of_other_task()?;
    own_task(scores, run)
        .ok()
        .map(|task| Arc::clone(&task.scorer))
}

fn take_items(
    scores: &mut Scores,
    shared: &mut Shared,
    open: Arc<OpenTask>,
    loaded: Loaded,
) -> Vec<Command> {
    scores.rows = Some((open, loaded.rows));
    scores.own = loaded.own;
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

pub(super) fn rescore(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    let Some(scorer) = scorer(scores, shared) else {
        return Vec::new();
    };
    let is_own = is_own(scores, shared);
    let items = Arc::clone(&scores.items);
    scores.is_old = false;
    let compute = move |sender: &Sender| {
        let is_wanted = || sender.is_wanted();
        let mut scored = score(&items, &scorer, &is_wanted)?;
        scored.results = query_results(&scored, &scorer);
        Some(scored)
    };
    vec![Work::latest(
        "score",
        compute,
        move |scores: &mut Scores, shared, scored| {
            let Some(scored) = scored else {
                return Vec::new();
            };
            let (tally, of) = (&scored.tally, scores.source.name());
            let exact = Some(tally.exact).filter(|(_, of)| *of > 0);
            let valid = tally.tiers[Tier::Valid as usize];
            if !is_own {
                shared.last_scores = Some(LastScores {
                    of,
                    total: tally.all,
                    valid,
                    exact,
                });
            }
            take_scores(scores, scored)
        },
    )]
}

fn take_scores(scores: &mut Scores, scored: ScoredItems) -> Vec<Command> {
    let before = scores.scored.as_ref();
    match before.and_then(|before| moved(before, &scored)) {
        // Changed tiers stay marked until the next change.
        Some(now) if now.iter().any(Option::is_some) => scores.moved = now,
        Some(_) => {}
        None => scores.moved = vec![None; scored.scores.len()],
    }
    scores.scored = Some(scored);
    arrange(scores);
    Vec::new()
}

pub(super) fn turn_to(scores: &mut Scores, shared: &mut Shared, source: Source) -> Vec<Command> {
    if scores.source != source {
        scores.source = source;
        scores.cursor = Cursor::default();
        scores.tops = Default::default();
    }
    load(scores, shared)
}

/// After another task was opened: shows its samples.
pub(super) fn follow_task(scores: &mut Scores, shared: &Shared) {
    let name = |open: &Arc<OpenTask>| open.task.name.clone();
    let before = scores.rows.as_ref().map(|(task, _)| name(task));
    let now = shared.task.as_ref().map(name);
    if before.is_some() && now.is_some() && before != now {
        scores.source = Source::Samples;
        scores.cursor = Cursor::default();
        scores.tops = Default::default();
    }
}
