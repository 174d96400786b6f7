//! What all screens share: the task and its rows, the schema as it stands in the editor, the runs that are followed.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ratatui::layout::Rect;

use super::action::ActionInfo;
use super::drafts::files::Drafts;
use super::followed_run::{FollowedRun, RunNotice};
use super::keymap::Keymap;
use super::message::{Change, Command, RunNews, ScreenState, Work};
use super::messages::{Level, Notices};
use super::options::Options;
use super::popup::Popup;
use super::schema_draft::SchemaDraft;
use super::screens::Screen;
use super::task_files;
use super::theme::Theme;
use crate::advantage::Advantage;
use crate::dataset::{self, PromptRow};
use crate::report::Listing;
use crate::score::Scorer;
use crate::task::{PromptSet, Task};

/// The shared part of the model.
#[derive(Debug)]
pub struct Shared {
    /// How the program was started and what this terminal can do.
    pub options: Options,
    /// The screen in front.
    pub screen: Screen,
    /// What lies over the screen and takes all keys: help, palette, questions.
    pub popup: Option<Popup>,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// Time of the latest message, milliseconds since 1970.
    pub now_ms: u64,
    /// Styles.
    pub theme: Theme,
    /// Keys.
    pub keymap: Keymap,
    /// The table of all actions, by their names.
    find_action: fn(&str) -> Option<&'static ActionInfo>,
    /// Sentences for the user.
    pub notices: Notices,
    /// Whether the focused pane fills the screen.
    pub zoomed: bool,
    /// Whether a text field had the focus when the latest message came.
    pub is_typing: bool,
    /// Bytes a second to the terminal, lately.
    pub bytes_per_second: u64,
    /// Keys pressed so far: work that ends in a question asks it only where none was pressed meanwhile.
    pub keys: u64,
    /// The newest work of each key, and whether it still runs.
    pub work: HashMap<&'static str, Running>,
    /// The task that is worked on; `None` while it loads or where it cannot be read.
    pub task: Option<Arc<OpenTask>>,
    /// Why there is no task, as a sentence.
    pub task_error: Option<String>,
    /// The schema as it stands in the editor, and the last scorer that it made.
    pub draft: SchemaDraft,
    /// Unsaved texts of earlier sessions, and the files of those of this one.
    pub drafts: Drafts,
    /// The runs there are.
    pub runs: RunList,
    /// What a new run would be made of, as the form of Launch stands.
    pub new_run: NewRun,
    /// Runs that are followed, by folder.
    pub followed: BTreeMap<PathBuf, FollowedRun>,
    /// The run of the screens Live, Scores and Eval.
    pub current: Option<PathBuf>,
    /// Runs that are drawn beside the current one.
    pub overlay: Vec<PathBuf>,
}

/// How often the runs found so far are shown while many are read for the first time.
const PIECE: Duration = Duration::from_millis(150);

/// The runs there are, oldest first.
#[derive(Debug, Default)]
pub struct RunList {
    pub listing: Listing,
    /// Whether all have been looked at once.
    pub listed: bool,
    /// When that was last begun.
    pub looked_ms: u64,
    /// The recorded run that comes with the source, where it is found.
    pub demonstration: Option<PathBuf>,
}

/// What a new run would be made of.
#[derive(Debug, Default)]
pub struct NewRun {
    /// The model to start from.
    pub base_model: String,
    /// How rewards become advantages; `None` before the form was resolved once.
    pub advantage: Option<Advantage>,
    /// The arguments that choose the device.
    pub device: Vec<String>,
}

/// Work of one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Running {
    /// Counts the works of this key; only the newest may change the model.
    pub generation: u64,
    /// Whether it still runs.
    pub busy: bool,
}

/// A task with all that was read of it.
#[derive(Debug)]
pub struct OpenTask {
    /// The task as saved.
    pub task: Task,
    /// How a command line names it in the folder where the view was started.
    pub typed: String,
    /// The rows of each set that the task has, or why they cannot be read.
    pub rows: BTreeMap<PromptSet, Result<Vec<PromptRow>, String>>,
    /// The sample completions, or why they cannot be read.
    pub samples: Result<Vec<SampleCompletion>, String>,
}

/// A line of the task's `completions.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleCompletion {
    /// What a model wrote.
    pub text: String,
    /// The prompt row that it answers, where the line says so.
    pub prompt_id: Option<String>,
    /// 1-based line in the file.
    pub line: usize,
}

impl ScreenState for () {
    type Shared = Shared;
}

impl Shared {
    /// Nothing read yet.
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
            zoomed: false,
            is_typing: false,
            bytes_per_second: 0,
            keys: 0,
            work: HashMap::new(),
            task: None,
            task_error: None,
            draft: SchemaDraft::default(),
            drafts: Drafts::default(),
            runs: RunList::default(),
            new_run: NewRun::default(),
            followed: BTreeMap::new(),
            current: None,
            overlay: Vec::new(),
            options,
        }
    }

    /// Whether work of this key runs.
    pub fn is_busy(&self, key: &str) -> bool {
        self.work.get(key).is_some_and(|running| running.busy)
    }

    /// Where screens are drawn: below the tabs and above the hints.
    pub fn body(&self) -> Rect {
        Rect { x: 0, y: 1, width: self.size.0, height: self.size.1.saturating_sub(2) }
    }

    /// The first key of the action of that name; `None` where it has none.
    pub fn key_of(&self, id: &str) -> Option<String> {
        (self.find_action)(id).map(|action| self.keymap.shown(action)).filter(|key| !key.is_empty())
    }

    /// Whether a popup or a text field takes the keys now.
    pub fn takes_text(&self) -> bool {
        self.popup.is_some() || self.is_typing
    }

    /// Tell the user something that went as it should.
    pub fn say(&mut self, text: impl Into<String>) {
        self.notices.add(self.now_ms, Level::Done, text.into());
    }

    /// Tell the user what went wrong and what to do.
    pub fn complain(&mut self, text: impl Into<String>) {
        self.notices.add(self.now_ms, Level::Complaint, text.into());
    }

    /// Look for runs, and read what is new of them, beside the view.
    pub fn look_for_runs(&mut self) -> Vec<Command> {
        if self.is_busy("runs") {
            return Vec::new();
        }
        self.runs.looked_ms = self.now_ms;
        let (places, before, here) =
            (self.options.run_folders.clone(), self.runs.listing.clone(), self.options.here.clone());
        let first = !self.runs.listed;
        vec![Work::stream("runs", move |sender| {
            let mut told = Instant::now();
            let listing = before.refreshed(&places, &mut |so_far| {
                if !first || told.elapsed() < PIECE {
                    return true;
                }
                told = Instant::now();
                let so_far = so_far.clone();
                sender.send(move |_: &mut (), shared: &mut Self| {
                    shared.runs.listing = so_far;
                    vec![Command::Changed(Change::Runs { first: false, news: false })]
                })
            });
            let demonstration = here
                .ancestors()
                .map(|folder| folder.join("sample-data/finished-run"))
                .find(|run| run.join("run.toml").is_file());
            sender.send(move |_: &mut (), shared: &mut Self| {
                let news = listing.read > 0;
                (shared.runs.listed, shared.runs.demonstration, shared.runs.listing) = (true, demonstration, listing);
                vec![Command::Changed(Change::Runs { first, news })]
            });
        })]
    }

    /// The run of the screens Live, Scores and Eval.
    pub fn current_run(&self) -> Option<&FollowedRun> {
        self.followed.get(self.current.as_ref()?)
    }

    /// The scorer of the schema as it stands in the editor; of its last good state where it does not parse now.
    pub fn scorer(&self) -> Option<Arc<Scorer>> {
        self.draft.scorer.clone()
    }

    /// The row of an id, in whichever set has it.
    pub fn row(&self, id: &str) -> Option<&PromptRow> {
        let sets = self.task.as_ref()?.rows.values().flatten();
        sets.flatten().find(|row| row.id == id)
    }
}

impl OpenTask {
    /// Reads a task with its rows and samples. `here`: where the view was started.
    pub fn read(task: Task, here: &Path) -> Self {
        let sets = PromptSet::ALL.into_iter().filter(|set| task.set_file(*set).is_some());
        let rows = sets.map(|set| (set, dataset::load(&task, set).map_err(|error| error.to_string()))).collect();
        let samples = samples(&task);
        Self { typed: typed_name(&task, here), task, rows, samples }
    }
}

/// The shortest word that means this very task on a command line: its folder's name, else its path. Another task may
/// have the same name.
fn typed_name(task: &Task, here: &Path) -> String {
    let Some(folder) = task.folder().map(|folder| here.join(folder)) else { return task.name.clone() };
    let real = |folder: &Path| folder.canonicalize().ok();
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let meant = Task::resolve_from(&name, here).ok().and_then(|task| real(&here.join(task.folder()?)));
    if meant.is_some() && meant == real(&folder) { name } else { folder.display().to_string() }
}

fn samples(task: &Task) -> Result<Vec<SampleCompletion>, String> {
    let Some(file) = &task.prompts.completions else { return Ok(Vec::new()) };
    let reader = task.open(file).map_err(|error| error.to_string())?;
    let mut samples = Vec::new();
    for line in dataset::read_lines(reader) {
        let (number, line) =
            line.map_err(|(number, problem)| format!("{} line {number}: {problem}", task.label(file)))?;
        let place = || format!("{} line {number}", task.label(file));
        let value = crate::score::completion_line(&line).map_err(|error| format!("{}: {error}", place()))?;
        let text = value["completion"]
            .as_str()
            .ok_or_else(|| format!("{}: missing `completion`, the text to score", place()))?;
        samples.push(SampleCompletion {
            text: text.to_owned(),
            prompt_id: value["prompt_id"].as_str().map(str::to_owned),
            line: number,
        });
    }
    Ok(samples)
}

/// Open a task: the one named, else the workspace's first, else the embedded one.
pub fn open_task(shared: &Shared, wanted: Option<String>) -> Vec<Command> {
    let (here, data) = (shared.options.here.clone(), shared.options.data.clone());
    let work = Work::once(
        "task",
        move || find_task(wanted.as_deref(), &here, &data).map(|task| OpenTask::read(task, &here)),
        |_: &mut (), shared, found| match found {
            Ok(task) => {
                shared.task_error = None;
                shared.task = Some(Arc::new(task));
                vec![Command::Changed(Change::Task)]
            }
            Err(error) => {
                shared.task_error = Some(error.clone());
                shared.complain(error);
                Vec::new()
            }
        },
    );
    vec![work]
}

fn find_task(wanted: Option<&str>, here: &Path, data: &Path) -> Result<Task, String> {
    let of_workspace = || {
        let tasks = here.ancestors().map(|folder| folder.join("tasks")).find(|folder| folder.is_dir())?;
        let mut names: Vec<PathBuf> = std::fs::read_dir(tasks).ok()?.flatten().map(|entry| entry.path()).collect();
        names.sort();
        names.into_iter().find(|folder| folder.join(crate::task::TASK_FILE).is_file())
    };
    let found = match wanted {
        Some(wanted) => Task::resolve_from(wanted, here),
        None => match of_workspace() {
            Some(folder) => Task::load(&folder),
            // Once the embedded task has been edited there is a copy of it, which is worked on from then on.
            None => match task_files::copy_of("invoice", data) {
                Some(folder) => Task::load(&folder),
                None => Task::embedded("invoice"),
            },
        },
    };
    found.map_err(|error| error.to_string())
}

/// Where a copy of the task was made, everything continues in the copy.
pub fn switch_to_copy(shared: &mut Shared, home: &task_files::Home) -> Vec<Command> {
    if !home.is_copy {
        return Vec::new();
    }
    shared.say(format!("embedded task copied to {}: edits are saved there", home.folder.display()));
    vec![Command::Changed(Change::Copied(Arc::new(home.task.clone())))]
}

/// Follow a run, and make it the one of the screens Live, Scores and Eval.
pub fn show_run(shared: &mut Shared, run: PathBuf) -> Vec<Command> {
    let mut commands = follow(shared, run.clone());
    shared.current = Some(run);
    commands.extend(let_go(shared));
    commands.push(Command::Changed(Change::CurrentRun));
    commands
}

pub fn follow(shared: &mut Shared, run: PathBuf) -> Vec<Command> {
    if shared.followed.contains_key(&run) {
        return Vec::new();
    }
    shared.followed.insert(run.clone(), FollowedRun::new(run.clone()));
    vec![Command::Watch(run)]
}

/// Follow no more what nobody looks at. An active run is followed to its end, which is notified.
pub fn let_go(shared: &mut Shared) -> Vec<Command> {
    let Shared { followed, current, overlay, .. } = shared;
    let unseen = |path: &PathBuf| current.as_ref() != Some(path) && !overlay.contains(path);
    let over: Vec<PathBuf> =
        followed.iter().filter(|(path, run)| unseen(path) && run.is_over()).map(|(path, _)| path.clone()).collect();
    followed.retain(|path, _| !over.contains(path));
    over.into_iter().map(Command::Unwatch).collect()
}

/// Take what is new of a followed run.
pub fn apply_run_update(shared: &mut Shared, run: &PathBuf, news: RunNews) -> Vec<Command> {
    let Some(followed) = shared.followed.get_mut(run) else { return Vec::new() };
    let mut commands = Vec::new();
    for RunNotice { level, title, text, urgent } in followed.take(news, shared.now_ms) {
        let sentence = if text.is_empty() { title.clone() } else { format!("{title}: {text}") };
        shared.notices.add(shared.now_ms, level, sentence);
        commands.push(Command::Notify { title, text, urgent });
    }
    if shared.current.as_ref() == Some(run) {
        commands.push(Command::Changed(Change::RunNews));
    }
    commands.extend(let_go(shared));
    commands
}
