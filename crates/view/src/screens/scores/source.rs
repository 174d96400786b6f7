//! Background loading and re-scoring of completions; only the newest result counts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::items::{Items, Rows, rows_of, rows_of_run};
use super::scoring::{
    Impact, ScoredItems, impacts, moved, moved_since_recorded, query_results, score,
};
use super::{RescoreJob, RunTask, ScoredTask, Scores, Source, Stored, arrange};
use crate::advantage::Advantage;
use crate::format::short_id;
use crate::message::{Command, Sender, Work};
use crate::run::{RunDirectory, sha256};
use crate::score::{Scorer, Task, Tier};
use crate::shared::{LastScores, OpenTask, Shared};
use crate::subprocess::CancelToken;
use crate::widgets::list_cursor::Cursor;

/// Maximum completions of stored steps cached for re-scoring on every change of the schema.
const MAX_CACHED: usize = 2_000;
/// Steps per progress report when a whole run is scored.
const CHUNK_STEPS: usize = 20;

struct LoadedSteps {
    items: Result<Items, String>,
    rows: Arc<Rows>,
    own: Option<RunTask>,
    stored: Option<Stored>,
    source: Source,
    step: u64,
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
    run: Result<RunStep, String>,
    stored: Option<Stored>,
}

struct RunStep {
    run: PathBuf,
    task: PathBuf,
    /// Name of the task in a run of several tasks, else empty.
    task_name: String,
    step: u64,
    last: u64,
    advantage: Advantage,
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
    let run = run_step(scores, shared).ok_or_else(|| shared.no_open_run());
    let stored = scores.stored.clone();
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
        run,
        stored,
    };
    let compute = move |sender: &Sender| read(request, sender);
    vec![Work::latest(
        "scores.items",
        compute,
        move |scores: &mut Scores, shared, loaded| take_items(scores, shared, open, loaded),
    )]
}

fn run_step(scores: &Scores, shared: &Shared) -> Option<RunStep> {
    let run = shared.current_run()?;
    let last = run.history.last_step;
    let directory = run.directory.as_ref()?;
    let step = if scores.step == 0 {
        last
    } else {
        scores.step.min(last)
    };
    let advantage = directory.file().config.advantage;
    let (run, task) = (run.path().to_owned(), shared.own_task_folder(directory));
    let open = shared
        .task
        .as_ref()
        .map_or("", |open| open.task.name.as_str());
    let task_name = directory.task_like(open).to_owned();
    Some(RunStep {
        run,
        task,
        task_name,
        step,
        last,
        advantage,
    })
}

fn read(request: LoadRequest, sender: &Sender) -> LoadedSteps {
    let rows = request
        .rows
        .unwrap_or_else(|| Arc::new(rows_of(&request.open)));
    let own = request
        .own
        .map(|(folder, read)| read.unwrap_or_else(|| read_task(folder, &request.here)));
    let mut stored = request.stored;
    let step = request.run.as_ref().map_or(0, |run| run.step);
    let own_rows = match own.as_ref().filter(|_| request.is_own) {
        Some(RunTask { read: Err(why), .. }) => Err(why.clone()),
        Some(RunTask { read: Ok(task), .. }) => Ok(Some(&task.rows)),
        None => Ok(None),
    };
    let items = match request.source {
        _ if own_rows.is_err() => own_rows.map(|_| Items::default()),
        Source::Samples => Items::samples(&request.open, &rows, request.advantage),
        Source::Written | Source::Sampled => {
            let rows = own_rows.ok().flatten().unwrap_or(&rows);
            Ok(Items::written(request.written, rows, request.advantage))
        }
        Source::Step => match request.run {
            Err(why) => Err(why),
            Ok(run) if run.last == 0 => Err("the run has no finished step yet".to_owned()),
            Ok(run) => {
                let cached = cached_steps(
                    &run,
                    stored.take().filter(|stored| stored.task == run.task),
                    sender,
                );
                let items = Items::step(
                    &run.run,
                    &run.task_name,
                    run.step,
                    &cached.rows,
                    run.advantage,
                );
                stored = Some(cached);
                items
            }
        },
    };
    LoadedSteps {
        items: items.map(Items::with_parts),
        rows,
        own,
        stored,
        source: request.source,
        step,
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
    match scores.source {
        Source::Step => own.is_some(),
        Source::Sampled => own.is_some_and(|run| run.file().task == scores.sampled_task),
        Source::Samples | Source::Written => false,
    }
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

/// The latest steps of a run, up to [`MAX_CACHED`] completions; cached steps are not read again.
fn cached_steps(run: &RunStep, before: Option<Stored>, sender: &Sender) -> Stored {
    let (rows, known) = match before {
        Some(before)
            if before
                .steps
                .last()
                .is_some_and(|(step, _)| *step == run.last) =>
        {
            return before;
        }
        Some(before) => (before.rows, before.steps),
        None => (Arc::new(rows_of_run(&run.task)), Arc::default()),
    };
    let (mut steps, mut completions) = (Vec::new(), 0);
    // If superseded, the result is dropped.
    for step in (1..=run.last).rev().take_while(|_| sender.is_wanted()) {
        let items = match known.binary_search_by_key(&step, |(step, _)| *step) {
            Ok(place) => Ok(Arc::clone(&known[place].1)),
            Err(_) => {
                Items::step(&run.run, &run.task_name, step, &rows, run.advantage).map(Arc::new)
            }
        };
        // An unreadable step is reported when selected; steps deleted by `keep_rollouts` are empty.
        let Ok(items) = items else { continue };
        if items.all.is_empty() {
            break;
        }
        completions += items.all.len();
        if completions > MAX_CACHED && !steps.is_empty() {
            break;
        }
        steps.push((step, items));
    }
    steps.reverse();
    Stored {
        task: run.task.clone(),
        rows,
        steps: Arc::new(steps),
    }
}

fn take_items(
    scores: &mut Scores,
    shared: &mut Shared,
    open: Arc<OpenTask>,
    loaded: LoadedSteps,
) -> Vec<Command> {
    scores.rows = Some((open, loaded.rows));
    (scores.stored, scores.own) = (loaded.stored, loaded.own);
    if loaded.source != scores.source {
        return Vec::new();
    }
    scores.loaded_step = loaded.step;
    match loaded.items {
        Ok(items) => {
            (scores.items, scores.error) = (Arc::new(items), None);
            let mut commands = rescore(scores, shared);
            // Steps may have ended while this one was read.
            commands.extend(if is_behind(scores, shared) {
                load(scores, shared)
            } else {
                Vec::new()
            });
            commands
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
    scores.mismatch = mismatch(scores, shared);
    let items = Arc::clone(&scores.items);
    let cached = scores
        .stored
        .as_ref()
        .filter(|_| scores.source == Source::Step);
    let steps = cached
        .map(|stored| Arc::clone(&stored.steps))
        .unwrap_or_default();
    scores.is_old = false;
    let compute = move |sender: &Sender| {
        let is_wanted = || sender.is_wanted();
        let mut scored = score(&items, &scorer, &is_wanted)?;
        scored.results = query_results(&scored, &scorer);
        // A judge is asked only for visible completions.
        let impacts = if scorer.asks_judge() {
            Vec::new()
        } else {
            impacts(&steps, &scorer, &is_wanted)?
        };
        Some((scored, impacts))
    };
    vec![Work::latest(
        "score",
        compute,
        move |scores: &mut Scores, shared, scored| {
            let Some(scored) = scored else {
                return Vec::new();
            };
            let (tally, of) = (&scored.0.tally, scores.source.name());
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
            take_scores(scores, scored.0, scored.1)
        },
    )]
}

fn take_scores(scores: &mut Scores, scored: ScoredItems, impacts: Vec<Impact>) -> Vec<Command> {
    let since_edit = || {
        scores
            .scored
            .as_ref()
            .and_then(|before| moved(before, &scored))
    };
    match moved_since_recorded(&scored).or_else(since_edit) {
        Some(now) if scored.items.all.iter().any(|item| item.stored.is_some()) => {
            scores.moved = now
        }
        // Changed tiers stay marked until the next change.
        Some(now) if now.iter().any(Option::is_some) => scores.moved = now,
        Some(_) => {}
        None => scores.moved = vec![None; scored.scores.len()],
    }
    (scores.scored, scores.impacts) = (Some(scored), impacts);
    arrange(scores);
    Vec::new()
}

/// Whether the latest step is followed and a step after the shown one has ended.
pub(super) fn is_behind(scores: &Scores, shared: &Shared) -> bool {
    let last = shared.current_run().map_or(0, |run| run.history.last_step);
    scores.source == Source::Step && scores.step == 0 && scores.loaded_step < last
}

/// Whether the newest step of an active run is shown automatically.
pub(super) fn is_following(scores: &Scores, shared: &Shared) -> bool {
    let is_active = shared
        .current_run()
        .is_some_and(|run| !run.status().is_ended());
    scores.source == Source::Step && scores.step == 0 && is_active
}

pub(super) fn toggle_follow(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    let Some(run) = shared.current_run() else {
        return Vec::new();
    };
    let (id, has_ended) = (short_id(&run.id()).to_owned(), run.status().is_ended());
    if scores.source == Source::Step && scores.step == 0 && !has_ended {
        scores.step = scores.loaded_step;
        return shared.say(format!(
            "step {} stays, {} follows again",
            scores.step,
            shared.key_of("scores.follow")
        ));
    }
    scores.step = 0;
    shared.say(match has_ended {
        true => format!("{id} has ended: this is its last step"),
        false => format!("following the newest step of {id}"),
    });
    turn_to(scores, shared, Source::Step)
}

/// Shows the next stored step whose rewards or tiers change under the schema, wrapping at the end.
pub(super) fn next_changed(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    let impacts = scores
        .whole
        .as_ref()
        .map_or(&scores.impacts, |whole| &whole.impacts);
    let mut changed = impacts
        .iter()
        .filter(|one| one.rewards + one.tiers > 0)
        .map(|one| one.step);
    let next = changed
        .clone()
        .find(|step| *step > scores.loaded_step)
        .or_else(|| changed.next());
    scores.step = next.unwrap_or(scores.step);
    turn_to(scores, shared, Source::Step)
}

/// A warning if the shown step was scored by other rules than those of the schema in the editor, of
/// the same task.
fn mismatch(scores: &Scores, shared: &Shared) -> Option<String> {
    let file = shared
        .current_run()?
        .directory
        .as_ref()
        .filter(|_| scores.source == Source::Step)?
        .file();
    let (task, id) = (shared.draft.task.as_ref()?, short_id(&file.id));
    if file.task != task.name {
        return None;
    }
    let (now, then) = (
        sha256(task.definition_text.as_bytes()),
        file.task_files.get(&task.definition_file)?,
    );
    let what = task.definition_name();
    let short = |digest: &str| digest.chars().take(8).collect::<String>();
    let unsaved = if shared.draft.is_changed() {
        ", unsaved"
    } else {
        ""
    };
    let text = || {
        format!(
            "run {id} has {what} {}, these scores are by {what} {}{unsaved}",
            short(then),
            short(&now)
        )
    };
    (now != *then).then(text)
}

pub(super) fn turn_to(scores: &mut Scores, shared: &mut Shared, source: Source) -> Vec<Command> {
    if scores.source != source {
        scores.source = source;
        scores.cursor = Cursor::default();
        scores.tops = Default::default();
    }
    load(scores, shared)
}

/// Shows another step of the current run, clamped to its range.
pub(super) fn step(scores: &mut Scores, shared: &mut Shared, by: i64) -> Vec<Command> {
    let last = shared.current_run().map_or(0, |run| run.history.last_step);
    let now = if scores.step == 0 {
        scores.loaded_step
    } else {
        scores.step
    };
    let next = now.saturating_add_signed(by).clamp(1, last.max(1));
    // Past the last step, the latest step is followed.
    scores.step = if next >= last { 0 } else { next };
    if scores.source != Source::Step {
        // The first press shows the latest step, further presses move.
        scores.step = 0;
    }
    turn_to(scores, shared, Source::Step)
}

pub(super) fn no_rescoring(shared: &Shared) -> Option<String> {
    let run = shared.run_of_other_task()?;
    let (id, task, open) = (
        short_id(run.id()),
        &run.file().task,
        &shared.task.as_ref()?.task.name,
    );
    let key = shared.key_of("launch.tasks");
    Some(format!(
        "run {id} belongs to task {task}, the editor to {open}: open {task} first (Launch, {key})"
    ))
}

/// After another task was opened: shows its samples, unless the completions are of a run of that
/// task.
pub(super) fn follow_task(scores: &mut Scores, shared: &Shared) {
    let name = |open: &Arc<OpenTask>| open.task.name.clone();
    let before = scores.rows.as_ref().map(|(task, _)| name(task));
    let now = shared.task.as_ref().map(name);
    let run = shared.current_run().and_then(|run| run.directory.as_ref());
    let of_run = run.map(|run| run.file().task.clone());
    let is_kept = scores.source == Source::Step && of_run == now;
    if before.is_some() && now.is_some() && before != now && !is_kept {
        scores.source = Source::Samples;
        scores.cursor = Cursor::default();
        scores.tops = Default::default();
    }
}

/// Drops all data of the previous run after the current run changed.
pub(super) fn forget_run(scores: &mut Scores) {
    if let Some(whole) = scores.whole.take() {
        whole.cancel.cancel();
    }
    (
        scores.stored,
        scores.step,
        scores.loaded_step,
        scores.mismatch,
    ) = Default::default();
    scores.impacts.clear();
    if scores.source == Source::Step {
        (scores.items, scores.scored) = (Arc::default(), None);
    }
    arrange(scores);
}

/// Re-scores every stored step of the current run in chunks, and shows the matching source.
pub(super) fn rescore_run(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    let (Some(run), Some(scorer)) = (run_step(scores, shared), shared.scorer()) else {
        return Vec::new();
    };
    let cancel = CancelToken::default();
    let version = shared.draft.version;
    if let Some(before) = scores.whole.take() {
        before.cancel.cancel();
    }
    scores.whole = Some(RescoreJob {
        cancel: cancel.clone(),
        steps: run.last,
        version,
        ..RescoreJob::default()
    });
    let mut commands = if scores.source == Source::Step {
        Vec::new()
    } else {
        turn_to(scores, shared, Source::Step)
    };
    commands.push(Work::stream("scores.whole", move |sender| {
        let rows = rows_of_run(&run.task);
        let all: Vec<u64> = (1..=run.last).collect();
        for piece in all.chunks(CHUNK_STEPS) {
            let is_wanted = || !cancel.is_cancelled() && sender.is_wanted();
            if !is_wanted() {
                return;
            }
            let outcome = piece_of(&run, piece, &rows);
            let (steps, error) = match outcome {
                Ok(steps) => (steps, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            let Some(found) = impacts(&steps, &scorer, &is_wanted) else {
                return;
            };
            let is_wanted = sender.send(move |scores: &mut Scores, _| {
                if let Some(whole) = &mut scores.whole {
                    whole.impacts.extend(found);
                    whole.error = whole.error.take().or(error);
                }
                Vec::new()
            });
            if !is_wanted {
                return;
            }
        }
        sender.send(|scores: &mut Scores, _| {
            if let Some(whole) = &mut scores.whole {
                whole.is_done = true;
            }
            Vec::new()
        });
    }));
    commands
}

/// The steps of a chunk, without those deleted by `keep_rollouts`.
fn piece_of(run: &RunStep, piece: &[u64], rows: &Rows) -> Result<Vec<(u64, Arc<Items>)>, String> {
    let items = |step: u64| Items::step(&run.run, &run.task_name, step, rows, run.advantage);
    let read = piece
        .iter()
        .map(|step| items(*step).map(|items| (*step, Arc::new(items))));
    let mut steps = read.collect::<Result<Vec<_>, _>>()?;
    steps.retain(|(_, items)| !items.all.is_empty());
    Ok(steps)
}
