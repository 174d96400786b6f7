//! State shared by all screens: the task and its rows, the schema in the editor, the followed runs.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ratatui::layout::Rect;

use super::action::ActionInfo;
use super::command_log::CommandLine;
use super::drafts::files::Drafts;
use super::followed_run::{FollowedRun, RunNotice};
use super::keymap::Keymap;
use super::last_task;
use super::message::{Change, Command, RunNews, Work};
use super::messages::{Level, Notices};
use super::options::Options;
use super::popup::Popup;
use super::schema_draft::SchemaDraft;
use super::screens::Screen;
use super::task_failure::TaskFailure;
use super::task_files::{self, Stamp};
use super::theme::Theme;
use super::widgets::editor::Editor;
use crate::advantage::Advantage;
use crate::dataset::{self, DatasetError, PromptRow};
use crate::prompts::CompletionLine;
use crate::report::{Listing, RunRow};
use crate::run::{DeviceChoice, RunDirectory, task_folder};
use crate::score::{Scorer, Task};
use crate::task::{PromptSet, TASK_FILE, TaskError, folder_of, split_set_prompt};

#[derive(Debug)]
pub struct Shared {
    /// Command-line options and terminal capabilities.
    pub options: Options,
    pub screen: Screen,
    /// The open popup; receives all keys.
    pub popup: Option<Popup>,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// Time of the latest message, milliseconds since 1970.
    pub now_ms: u64,
    pub theme: Theme,
    pub keymap: Keymap,
    pub find_action: fn(&str) -> Option<&'static ActionInfo>,
    pub notices: Notices,
    pub commands: Notices,
    pub zoomed: bool,
    /// Whether long tool results are shown in full.
    pub whole_results: bool,
    pub soft_wrap: SoftWrap,
    /// Whether a text field has the focus; while a message is applied, whether one had it before.
    pub is_typing: bool,
    /// Recent output to the terminal, bytes per second.
    pub bytes_per_second: u64,
    /// Number of keys pressed: background work asks its final question only if no key was pressed
    /// meanwhile.
    pub keys: u64,
    /// Newest background work by key, and whether it is still running.
    pub work: HashMap<&'static str, WorkGeneration>,
    /// The open task as last read; `None` while it loads or if it cannot be read.
    pub task: Option<Arc<OpenTask>>,
    /// Why the task on disk cannot be read.
    pub task_error: Option<TaskFailure>,
    /// The schema in the editor, and the last scorer that compiled.
    pub draft: SchemaDraft,
    /// Unsaved texts of earlier sessions, and the draft files of this session.
    pub drafts: Drafts,
    pub last_scores: Option<LastScores>,
    pub runs: RunList,
    pub new_run: NewRun,
    pub followed: BTreeMap<PathBuf, FollowedRun>,
    /// The run shown by the Live, Scores and Eval screens.
    pub current: Option<PathBuf>,
    pub overlay: Vec<PathBuf>,
}

/// Whether editors wrap long lines, for prose and for JSON (where a line is a unit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftWrap {
    pub prose: bool,
    pub json: bool,
}

impl SoftWrap {
    pub fn for_format(&mut self, is_json: bool) -> &mut bool {
        if is_json {
            &mut self.json
        } else {
            &mut self.prose
        }
    }
}

/// Redraw interval during the first listing.
const LISTING_INTERVAL: Duration = Duration::from_millis(150);

/// All runs, oldest first.
#[derive(Debug, Default)]
pub struct RunList {
    pub listing: Listing,
    /// Whether the first listing is complete.
    pub listed: bool,
    /// Start of the latest listing.
    pub looked_ms: u64,
}

/// Number of valid and of exact completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastScores {
    pub of: &'static str,
    pub total: usize,
    pub valid: usize,
    /// Exact answers, and rows with an expected answer; `None` without any.
    pub exact: Option<(usize, usize)>,
}

#[derive(Debug, Default)]
pub struct NewRun {
    pub base_model: String,
    /// How rewards become advantages; `None` until the form is first resolved.
    pub advantage: Option<Advantage>,
    pub device: DeviceChoice,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkGeneration {
    /// Increases with each start of work under this key; only the newest may change the model.
    pub generation: u64,
    pub busy: bool,
}

#[derive(Debug)]
pub struct OpenTask {
    pub task: Task,
    /// Shortest command-line argument for the task from the folder where the view was started.
    pub argument: String,
    /// Rows of each prompt set of the task, or why they cannot be read.
    pub rows: BTreeMap<PromptSet, Result<Vec<PromptRow>, DatasetError>>,
    /// Whether a row brings its own schema.
    pub has_row_schemas: bool,
    /// Sample completions, or why they cannot be read.
    pub samples: Result<Vec<SampleCompletion>, String>,
    /// `task.toml` as editable text.
    pub toml: Task,
    /// Files with their stamps when read; empty for an embedded task.
    pub stamps: Vec<(PathBuf, Option<Stamp>)>,
}

/// A line of the task's `completions.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleCompletion {
    pub text: String,
    pub prompt_id: Option<String>,
    /// 1-based line in the file.
    pub line: usize,
}

impl Shared {
    pub fn new(options: Options, find_action: fn(&str) -> Option<&'static ActionInfo>) -> Self {
        Self {
            screen: Screen::default(),
            popup: None,
            size: (80, 24),
            now_ms: 0,
            theme: options.theme.clone(),
            keymap: options.keymap.clone(),
            find_action,
            notices: Notices::default(),
            commands: Notices::default(),
            zoomed: false,
            whole_results: false,
            soft_wrap: SoftWrap {
                prose: true,
                json: false,
            },
            is_typing: false,
            bytes_per_second: 0,
            keys: 0,
            work: HashMap::new(),
            task: None,
            task_error: None,
            draft: SchemaDraft::default(),
            drafts: Drafts::default(),
            last_scores: None,
            runs: RunList::default(),
            new_run: NewRun::default(),
            followed: BTreeMap::new(),
            current: None,
            overlay: Vec::new(),
            options,
        }
    }

    /// What `--runs` names for a new run.
    pub fn new_runs(&self) -> String {
        let folder = self.options.run_folders.for_new_runs();
        folder.display().to_string()
    }

    /// Whether an editor wraps long lines.
    pub fn wraps(&self, editor: &Editor) -> bool {
        if editor.is_json() {
            self.soft_wrap.json
        } else {
            self.soft_wrap.prose
        }
    }

    pub fn is_busy(&self, key: &str) -> bool {
        self.work.get(key).is_some_and(|running| running.busy)
    }

    /// The area of the screen: below the tabs and above the hints.
    pub fn body(&self) -> Rect {
        Rect {
            x: 0,
            y: 1,
            width: self.size.0,
            height: self.size.1.saturating_sub(2),
        }
    }

    /// Returns the first key of the action with that id, or its quoted title if it has none. While text is typed, the
    /// first key that is not text.
    pub fn key_of(&self, id: &str) -> String {
        let action = (self.find_action)(id);
        debug_assert!(action.is_some(), "no action {id}");
        let keys = action
            .map(|action| self.keymap.keys(action))
            .unwrap_or_default();
        let key = keys
            .iter()
            .find(|key| !self.is_typing || key.is_command())
            .map(ToString::to_string);
        key.unwrap_or_else(|| format!("`{}`", action.map_or(id, |action| action.title)))
    }

    /// Why an action that needs a task is blocked; `None` if a task is open.
    pub fn no_task(&self) -> Option<String> {
        let failed = |failure: &TaskFailure| format!("cannot open the task: {}", failure.error);
        let why = || {
            self.task_error
                .as_ref()
                .map_or_else(|| "the task is still loading".to_owned(), failed)
        };
        self.task.is_none().then(why)
    }

    pub fn no_open_run(&self) -> String {
        format!(
            "no run is open: {} lists runs, {} starts one",
            self.key_of("screen.runs"),
            self.key_of("screen.launch")
        )
    }

    /// Why an action that writes to a run is blocked on a demonstration.
    pub fn no_change_of_recording(&self) -> String {
        format!(
            "this is a recording: {} starts a run of your own",
            self.key_of("screen.launch")
        )
    }

    pub fn takes_text(&self) -> bool {
        self.popup.is_some() || self.is_typing
    }

    /// Shows a notice. As with the other notices and [`Self::open_popup`], no command follows: an action may end with it.
    pub fn say(&mut self, text: impl Into<String>) -> Vec<Command> {
        self.notice(Level::Done, text.into())
    }

    /// Shows an error; `text` says what went wrong and what to do.
    pub fn complain(&mut self, text: impl Into<String>) -> Vec<Command> {
        self.notice(Level::Complaint, text.into())
    }

    pub fn warn(&mut self, text: impl Into<String>) -> Vec<Command> {
        self.notice(Level::Warning, text.into())
    }

    pub fn notice(&mut self, level: Level, text: String) -> Vec<Command> {
        self.notices.add(self.now_ms, level, text);
        Vec::new()
    }

    pub fn open_popup(&mut self, popup: Popup) -> Vec<Command> {
        self.popup = Some(popup);
        Vec::new()
    }

    pub fn log_command(&mut self, line: &CommandLine) {
        self.commands
            .add(self.now_ms, Level::Done, line.text(&self.options.shell));
    }

    pub fn look_for_runs(&mut self) -> Vec<Command> {
        if self.is_busy("runs") {
            return Vec::new();
        }
        self.runs.looked_ms = self.now_ms;
        let (places, before) = (self.options.run_folders.clone(), self.runs.listing.clone());
        let first = !self.runs.listed;
        vec![Work::stream("runs", move |sender| {
            let mut sent = Instant::now();
            let listing = before.refreshed(&places, &mut |so_far| {
                if !first || sent.elapsed() < LISTING_INTERVAL {
                    return true;
                }
                sent = Instant::now();
                let so_far = so_far.clone();
                sender.send(move |_: &mut (), shared: &mut Self| {
                    shared.runs.listing = so_far;
                    vec![Command::Changed(Change::Runs {
                        first: false,
                        news: false,
                    })]
                })
            });
            sender.send(move |_: &mut (), shared: &mut Self| {
                let news = listing.read > 0;
                (shared.runs.listed, shared.runs.listing) = (true, listing);
                vec![Command::Changed(Change::Runs { first, news })]
            });
        })]
    }

    /// The run shown by the Live, Scores and Eval screens.
    pub fn current_run(&self) -> Option<&FollowedRun> {
        self.followed.get(self.current.as_ref()?)
    }

    /// The open run if its task is not the open task; its screens use the run's task.
    pub fn run_of_other_task(&self) -> Option<&RunDirectory> {
        let run = self.current_run()?.directory.as_ref()?;
        (self.task.as_ref()?.task.name != run.file().task).then_some(run)
    }

    /// Folder of the run's frozen task: of several, the one with the open task's name, else the
    /// first.
    pub fn own_task_folder(&self, run: &RunDirectory) -> PathBuf {
        let open = self
            .task
            .as_ref()
            .map_or("", |open| open.task.name.as_str());
        task_folder(run.path(), run.task_like(open))
    }

    pub fn task_runs(&self) -> impl Iterator<Item = &RunRow> {
        let task = self
            .task
            .as_ref()
            .map_or("", |open| open.task.name.as_str());
        let rows = self
            .runs
            .listing
            .entries()
            .iter()
            .rev()
            .filter_map(|entry| entry.row.as_deref().ok());
        rows.filter(move |row| row.directory.file().is_of_task(task))
    }

    pub fn compared_run(&self) -> Option<&RunRow> {
        self.task_runs().find(|row| row.outcome.is_known())
    }

    pub fn scorer(&self) -> Option<Arc<Scorer>> {
        self.draft.scorer.clone()
    }
}

impl OpenTask {
    /// Reads a task with its rows and samples. `here`: folder where the view was started.
    pub fn read(task: Task, here: &Path) -> Self {
        // Taken before reading, so that a change during the read is noticed later.
        let stamps = task_files::stamps(&task);
        let sets = PromptSet::ALL
            .into_iter()
            .filter(|set| task.set_file(*set).is_some());
        let rows: BTreeMap<_, _> = sets.map(|set| (set, dataset::load(&task, set))).collect();
        let mut all_rows = rows.values().flatten().flatten();
        let has_row_schemas = task.schema().is_some() && all_rows.any(dataset::has_own_schema);
        let samples = samples(&task);
        let toml = task
            .toml()
            .ok()
            .filter(|_| task.definition_file != TASK_FILE)
            .unwrap_or_else(|| task.clone());
        Self {
            argument: shortest_argument(&task, here),
            task,
            rows,
            has_row_schemas,
            samples,
            toml,
            stamps,
        }
    }

    /// The row with an id, or with `set:id`; a bare id is looked up in each set.
    pub fn row(&self, id: &str) -> Option<&PromptRow> {
        let named = |row: &&PromptRow| row.id == id;
        let of_set = || {
            let (set, id) = split_set_prompt(id)?;
            let rows = self.rows.get(&set)?;
            rows.iter().flatten().find(|row| row.id == id)
        };
        let mut all = self.rows.values().flatten().flatten();
        all.find(named).or_else(of_set)
    }
}

/// Shortest command-line argument that resolves to this task: its folder's name, else its path,
/// since another task may have the same name.
fn shortest_argument(task: &Task, here: &Path) -> String {
    let Some(folder) = task.folder().map(|folder| here.join(folder)) else {
        return task.name.clone();
    };
    let real = |folder: &Path| folder.canonicalize().ok();
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let resolved = Task::resolve_from(&name, here)
        .ok()
        .and_then(|task| real(&here.join(task.folder()?)));
    if resolved.is_some() && resolved == real(&folder) {
        name
    } else {
        folder.display().to_string()
    }
}

fn samples(task: &Task) -> Result<Vec<SampleCompletion>, String> {
    let Some(file) = &task.prompts.completions else {
        return Ok(Vec::new());
    };
    let reader = task.open(file).map_err(|error| error.to_string())?;
    let mut samples = Vec::new();
    for line in dataset::read_lines(reader) {
        let (number, line) = line.map_err(|(number, problem)| {
            format!("{} line {number}: {problem}", task.label(file))
        })?;
        let place = || format!("{} line {number}", task.label(file));
        let CompletionLine {
            completion,
            prompt_id,
            set,
            ..
        } = CompletionLine::read(&line).map_err(|problem| format!("{}: {problem}", place()))?;
        let prompt_id = match (prompt_id, set) {
            (Some(id), Some(set)) => Some(format!("{}:{id}", set.name())),
            (id, _) => id,
        };
        samples.push(SampleCompletion {
            text: completion,
            prompt_id,
            line: number,
        });
    }
    Ok(samples)
}

/// Opens the named task, else the one last opened in this folder, else the workspace's first, else
/// the embedded one.
pub fn open_task(shared: &Shared, name: Option<String>) -> Vec<Command> {
    let (here, data) = (shared.options.here.clone(), shared.options.data.clone());
    let work = Work::once(
        "task",
        move || match find_task(name.as_deref(), &here, &data) {
            Ok(task) => {
                if name.is_some() {
                    last_task::save(&data, &here, &task);
                }
                Ok(OpenTask::read(task, &here))
            }
            Err((error, folder)) => Err(TaskFailure::new(name, &error, folder)),
        },
        |_: &mut (), shared, found| opened(shared, found),
    );
    vec![work]
}

/// Applies the outcome of opening a task. If it was already open, its last readable state is kept
/// beside the failure.
fn opened(shared: &mut Shared, found: Result<OpenTask, TaskFailure>) -> Vec<Command> {
    match found {
        Ok(task) => {
            if shared.task_error.take().is_some() {
                shared.say(format!("task {} opened", task.task.name));
            }
            shared.task = Some(Arc::new(task));
            vec![Command::Changed(Change::Task)]
        }
        Err(failure) if shared.task_error.as_ref() == Some(&failure) => Vec::new(),
        Err(failure) => {
            shared.complain(failure.error.clone());
            if shared
                .task
                .as_ref()
                .is_some_and(|open| !failure.is_of(&open.task))
            {
                return Vec::new();
            }
            shared.task_error = Some(failure);
            vec![Command::Changed(Change::TaskUnreadable)]
        }
    }
}

/// Finds a task. An error includes the task's folder, if known.
fn find_task(
    name: Option<&str>,
    here: &Path,
    data: &Path,
) -> Result<Task, (TaskError, Option<PathBuf>)> {
    let of_workspace = || {
        let tasks = here
            .ancestors()
            .map(|folder| folder.join("tasks"))
            .find(|folder| folder.is_dir())?;
        let mut names: Vec<PathBuf> = std::fs::read_dir(tasks)
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        names.sort();
        names
            .into_iter()
            .find(|folder| folder.join(TASK_FILE).is_file())
    };
    let last = if name.is_none() {
        last_task::load(data, here)
    } else {
        None
    };
    let name = name.or(last.as_deref());
    let folder = match name {
        Some(name) => folder_of(name, here),
        // After the embedded task was edited, its copy is opened.
        None => of_workspace().or_else(|| task_files::copy_of("invoice", data)),
    };
    let found = match (&folder, name) {
        (Some(folder), _) => Task::load(folder),
        (None, Some(name)) => Task::resolve_from(name, here),
        (None, None) => Task::embedded("invoice"),
    };
    found.map_err(|error| (error, folder))
}

pub fn switch_to_copy(shared: &mut Shared, home: &task_files::Home) -> Vec<Command> {
    if !home.is_copy {
        return Vec::new();
    }
    shared.say(format!(
        "embedded task copied to {}: edits are saved there",
        home.folder.display()
    ));
    vec![Command::Changed(Change::Copied(Arc::new(
        home.task.clone(),
    )))]
}

/// Follows a run and shows it on the Live, Scores and Eval screens.
pub fn show_run(shared: &mut Shared, run: PathBuf) -> Vec<Command> {
    let mut commands = follow(shared, run.clone());
    shared.current = Some(run);
    commands.extend(unfollow_unused(shared));
    commands.push(Command::Changed(Change::CurrentRun));
    commands
}

pub fn follow(shared: &mut Shared, run: PathBuf) -> Vec<Command> {
    if shared.followed.contains_key(&run) {
        return Vec::new();
    }
    shared
        .followed
        .insert(run.clone(), FollowedRun::new(run.clone()));
    vec![Command::Watch(run)]
}

/// Stops following runs that no screen shows, except active ones, whose end is notified.
pub fn unfollow_unused(shared: &mut Shared) -> Vec<Command> {
    let Shared {
        followed,
        current,
        overlay,
        ..
    } = shared;
    let unseen = |path: &PathBuf| current.as_ref() != Some(path) && !overlay.contains(path);
    let over: Vec<PathBuf> = followed
        .iter()
        .filter(|(path, run)| unseen(path) && run.is_over())
        .map(|(path, _)| path.clone())
        .collect();
    followed.retain(|path, _| !over.contains(path));
    over.into_iter().map(Command::Unwatch).collect()
}

pub fn apply_run_update(shared: &mut Shared, run: &PathBuf, news: RunNews) -> Vec<Command> {
    let Some(followed) = shared.followed.get_mut(run) else {
        return Vec::new();
    };
    let mut commands = Vec::new();
    for RunNotice {
        level,
        title,
        text,
        urgent,
    } in followed.apply(news, shared.now_ms)
    {
        let sentence = if text.is_empty() {
            title.clone()
        } else {
            format!("{title}: {text}")
        };
        shared.notices.add(shared.now_ms, level, sentence);
        commands.push(Command::Notify {
            title,
            text,
            urgent,
        });
    }
    if shared.current.as_ref() == Some(run) {
        commands.push(Command::Changed(Change::RunNews));
    }
    commands.extend(unfollow_unused(shared));
    commands
}
