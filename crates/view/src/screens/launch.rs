//! Launch screen: the form of a new run, its forecast, and its start.

pub mod actions;
mod chooser;
pub mod cluster;
pub mod context;
pub mod device_choice;
mod draw;
pub mod forecast;
mod forecast_view;
pub mod form;
mod key_help;
mod start_gate;
pub mod start_run;

use std::collections::BTreeSet;
use std::path::Path;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::config::{ConfigError, KEYS, Key, Layers, ResolvedConfig, Source, TaskTable};
use crate::message::{Command, Work};
use crate::plan::preflight::{Facts, Preflight, PreflightFinding};
use crate::plan::{Forecast, SignalReport};
use crate::popup::Popup;
use crate::run::{DeviceChoice, Partition, RunFolders};
use crate::score::Task;
use crate::shared::{NewRun, Shared};
use crate::task::known_names;
use crate::task_files;
use crate::widgets::field::Field;
use crate::widgets::filter::Filter;
use crate::widgets::list_cursor::Cursor;
use cluster::{Cluster, Partitions};
use context::{LaunchContext, Origin};
use device_choice::Choice;
use forecast::{DataChecks, ForecastJob, ForecastResult};
use form::{Form, Row, SECTIONS, Section, Values, values_of};

#[derive(Debug, Default)]
pub struct Launch {
    pub form: Form,
    pub cursor: Cursor,
    pub filter: Filter,
    /// Whether only keys are shown that are set here or differ from the default.
    pub only_different: bool,
    /// Titles of the sections whose advanced keys are shown.
    pub unfolded: BTreeSet<&'static str>,
    pub edit: Option<Field>,
    /// Whether the forecast has the focus instead of the form.
    pub in_forecast: bool,
    /// First visible line of the forecast.
    pub scroll: Cursor,
    /// `[train]` of the task and of the run's other tasks, or a read error; `None` while reading.
    pub train: Option<Result<Vec<TaskTable>, String>>,
    /// Tasks, models and the last run; `None` while reading.
    pub context: Option<LaunchContext>,
    /// The list to open once `context` is read.
    awaited: Option<fn(&mut Launch, &mut Shared)>,
    pub devices: Vec<Choice>,
    /// Partitions of the Slurm cluster; `None` until known.
    pub partitions: Option<Partitions>,
    pub origin: Option<Origin>,
    /// Configuration of the last valid form.
    pub resolved: Option<ResolvedConfig>,
    /// Values of `resolved`, as the form shows them.
    pub values: Values,
    pub problem: Option<String>,
    pub forecast: Option<ForecastResult<Forecast>>,
    pub signal: Option<ForecastResult<SignalReport>>,
    pub forecast_job: Option<ForecastJob>,
    /// Problems of the prompt sets, once known.
    pub data: Option<DataChecks>,
    pub preflight: Preflight,
    /// Findings that the user accepted when starting.
    pub accepted: Vec<PreflightFinding>,
    /// Set while START waits for the prompt sets: the number of keys pressed before it.
    pub start_after_checks: Option<u64>,
    /// Why the last launch or forecast failed.
    pub failure: Option<String>,
}

const FORM: &str = "form";
const FORECAST: &str = "forecast";

pub fn refresh(launch: &mut Launch, shared: &mut Shared) -> Vec<Command> {
    let layers = layers(launch, &launch.form);
    let base_model = layers.asked_base_model();
    let task_problem = launch
        .train
        .as_ref()
        .and_then(|train| train.as_ref().err().cloned());
    match resolve(launch, &layers) {
        Ok(resolved) => {
            launch.values = values_of(&resolved.config);
            launch.resolved = Some(resolved);
            launch.problem = task_problem;
        }
        Err(error) => launch.problem = Some(task_problem.unwrap_or_else(|| error.to_string())),
    }
    publish(launch, shared);
    judge(launch, shared);
    if launch
        .origin
        .as_ref()
        .is_some_and(|origin| origin.of == base_model)
    {
        return Vec::new();
    }
    vec![find_origin(shared.options.run_folders.clone(), base_model)]
}

/// Sets a key; a value equal to that of the layers below is removed from the form.
pub fn set(launch: &mut Launch, shared: &mut Shared, name: &str, text: &str) -> Vec<Command> {
    let Some(key) = Key::find(name) else {
        return Vec::new();
    };
    let text = text.trim();
    let mut without = launch.form.clone();
    without.changed.remove(key.name);
    let below = resolve(launch, &layers(launch, &without));
    let below = below
        .ok()
        .and_then(|resolved| values_of(&resolved.config).remove(key.name));
    let is_below = below.is_some_and(|below| {
        key.kind.parse(text).ok().map(|value| value.to_string())
            == key.kind.parse(&below).ok().map(|value| value.to_string())
    });
    launch.form = without;
    if !is_below {
        launch.form.changed.insert(key.name, text.to_owned());
    }
    refresh(launch, shared)
}

/// Runs the preflight checks on the current form with what is known.
fn judge(launch: &mut Launch, shared: &Shared) {
    let Some(resolved) = &launch.resolved else {
        return;
    };
    let forecast = launch
        .forecast
        .as_ref()
        .filter(|forecast| !forecast.is_stale(&launch.form));
    let signal = launch
        .signal
        .as_ref()
        .filter(|signal| !signal.is_stale(&launch.form));
    let of_form = launch
        .origin
        .as_ref()
        .filter(|origin| origin.of == resolved.config.base_model);
    let base_model = of_form.map(|origin| {
        let model = origin.model.as_ref().map_err(Clone::clone)?;
        let open = shared.task.as_ref();
        let note = open.and_then(|open| open.task.embedded_model_note(model));
        let note = note.map(|note| format!("{note} ({})", shared.key_of("launch.models")));
        Ok(note.or_else(|| origin.stop_note.clone()))
    });
    let found = launch
        .data
        .as_ref()
        .map(|data| data.found.as_deref().map_err(String::as_str));
    let facts = Facts {
        data: found,
        base_model,
        memory: forecast.map(|forecast| &forecast.value.memory),
        signals: signal
            .map(|signal| ("", &signal.value))
            .into_iter()
            .collect(),
    };
    launch.preflight = Preflight::for_run(&resolved.config, &facts);
}

fn publish(launch: &Launch, shared: &mut Shared) {
    shared.new_run = NewRun {
        base_model: Key::find("base_model")
            .map(|key| value(launch, key))
            .unwrap_or_default(),
        advantage: launch
            .resolved
            .as_ref()
            .map(|resolved| resolved.config.advantage),
        device: launch.form.compute.clone(),
    };
}

fn stepped<T: Clone + PartialEq + Default>(all: &[T], now: &T, by: isize) -> T {
    let place = all.iter().position(|one| one == now).unwrap_or(0);
    let next = (place as isize + by).rem_euclid(all.len().max(1) as isize) as usize;
    all.get(next).cloned().unwrap_or_default()
}

/// Visible rows: those that match the filter, or only changed keys, or all except advanced keys of
/// folded sections.
pub fn rows(launch: &Launch) -> Vec<Row> {
    let query = launch.filter.text().to_lowercase();
    let of_cluster: &[Row] = match launch.form.cluster {
        Some(_) => &[Row::Nodes, Row::PerNode, Row::TimeLimit],
        None => &[],
    };
    let head = [
        &[
            Row::Start,
            Row::Preset,
            Row::Task,
            Row::Others,
            Row::Name,
            Row::Device,
        ],
        of_cluster,
    ]
    .concat();
    if query.is_empty() && !launch.only_different {
        let section = |section: &'static Section| {
            let is_open = launch.unfolded.contains(section.title);
            let keys = section
                .keys()
                .filter(move |key| is_open || section.is_basic(key));
            std::iter::once(Row::Section(section)).chain(keys.map(Row::Key))
        };
        return head
            .into_iter()
            .chain(SECTIONS.iter().flat_map(section))
            .collect();
    }
    let found = |row: &Row| match row {
        Row::Key(key) => {
            let texts = [
                key.name.to_owned(),
                key.meaning.to_lowercase(),
                Section::for_key(key).title.to_owned(),
            ];
            (!launch.only_different || is_changed(launch, key))
                && texts.iter().any(|text| text.contains(&query))
        }
        other => other.title().contains(&query),
    };
    head.into_iter()
        .chain(KEYS.iter().map(Row::Key))
        .filter(found)
        .collect()
}

pub fn is_changed(launch: &Launch, key: &Key) -> bool {
    let parsed = |text: &str| key.kind.parse(text).ok().map(|value| value.to_string());
    launch.form.changed.contains_key(key.name) || parsed(&value(launch, key)) != parsed(key.default)
}

/// Number of keys hidden by a folded section, and how many of them are changed.
pub fn hidden(launch: &Launch, section: &'static Section) -> (usize, usize) {
    let advanced = || section.keys().filter(|key| !section.is_basic(key));
    (
        advanced().count(),
        advanced().filter(|key| is_changed(launch, key)).count(),
    )
}

fn toggle_section(launch: &mut Launch) {
    let section = match selected(launch) {
        Some(Row::Section(section)) => section,
        Some(Row::Key(key)) => Section::for_key(key),
        _ => return,
    };
    if !launch.unfolded.remove(section.title) {
        launch.unfolded.insert(section.title);
    }
    go_to_section(launch, section);
}

/// Unfolds all sections, or folds them if all are unfolded; the cursor stays in its section.
fn toggle_all_sections(launch: &mut Launch) {
    let section = match selected(launch) {
        Some(Row::Section(section)) => Some(section),
        Some(Row::Key(key)) => Some(Section::for_key(key)),
        _ => None,
    };
    launch.unfolded = match launch.unfolded.len() == SECTIONS.len() {
        true => BTreeSet::new(),
        false => SECTIONS.iter().map(|section| section.title).collect(),
    };
    if let Some(section) = section {
        go_to_section(launch, section);
    }
}

fn go_to_section(launch: &mut Launch, section: &'static Section) {
    let is_it = |row: &Row| matches!(row, Row::Section(other) if *other == section);
    if let Some(index) = rows(launch).iter().position(is_it) {
        launch.cursor = Cursor { index };
    }
}

fn selected(launch: &Launch) -> Option<Row> {
    let rows = rows(launch);
    rows.get(launch.cursor.at(rows.len())?).copied()
}

fn layers(launch: &Launch, form: &Form) -> Layers {
    let task = tables(launch).first().map(|table| table.train.clone());
    let mut layers = Layers {
        preset: form.preset,
        task,
        set: form.assignments(),
        ..Layers::default()
    };
    let base_model = layers.asked_base_model();
    if let Some(known) = launch
        .origin
        .as_ref()
        .filter(|origin| origin.of == base_model)
    {
        (layers.origin, layers.parameters) = (known.model.clone().ok(), known.parameters);
    }
    layers
}

/// Tables of the task and the run's other tasks; empty while reading.
fn tables(launch: &Launch) -> &[TaskTable] {
    launch
        .train
        .as_ref()
        .and_then(|train| train.as_deref().ok())
        .unwrap_or_default()
}

fn resolve(launch: &Launch, layers: &Layers) -> Result<ResolvedConfig, ConfigError> {
    match tables(launch) {
        [] | [_] => layers.resolve(),
        several => layers.resolve_tasks(several).map(|joined| joined.resolved),
    }
}

/// The value of a key as text; that of the last valid form while the form is invalid.
pub fn value(launch: &Launch, key: &Key) -> String {
    if let Some(text) = launch.form.changed.get(key.name) {
        return text.clone();
    }
    launch
        .values
        .get(key.name)
        .cloned()
        .unwrap_or_else(|| key.default.to_owned())
}

pub fn source(launch: &Launch, key: &Key) -> Source {
    if launch.form.changed.contains_key(key.name) {
        return Source::Set;
    }
    let sources = launch.resolved.as_ref().map(|resolved| &resolved.sources);
    sources
        .and_then(|sources| sources.get(key.name).cloned())
        .unwrap_or(Source::Default)
}

/// The error in a value: by the key's own check, else a conflict with the rest of the form.
fn complaint(launch: &Launch, key: &'static Key, text: &str) -> Option<String> {
    if let Err(expected) = key.kind.parse(text) {
        return Some(format!("must be {expected}"));
    }
    let mut form = launch.form.clone();
    form.changed.insert(key.name, text.trim().to_owned());
    resolve(launch, &layers(launch, &form))
        .err()
        .map(|error| error.to_string())
}

/// `[train]` of the task and of `others` by name, or a read error.
pub fn task_tables(task: &Task, others: &[String], here: &Path) -> Result<Vec<TaskTable>, String> {
    let others = others
        .iter()
        .map(|other| Task::resolve_from(other, here).map_err(|error| error.to_string()));
    let table = |task: Task| {
        Ok(TaskTable {
            train: task_files::train_table(&task)?,
            task: task.name.clone(),
        })
    };
    std::iter::once(Ok(task.clone()))
        .chain(others)
        .map(|task| table(task?))
        .collect()
}

pub(super) fn read_train(launch: &Launch, shared: &Shared) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let (others, here) = (launch.form.other_tasks().0, shared.options.here.clone());
    vec![Work::once(
        "launch.train",
        move || task_tables(&open.task, &others, &here),
        |launch: &mut Launch, shared, train| {
            launch.train = Some(train);
            refresh(launch, shared)
        },
    )]
}

/// Rereads tasks, models and runs: expensive, so only while the screen is visible.
pub(super) fn load_context(shared: &Shared) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let (here, places) = (
        shared.options.here.clone(),
        shared.options.run_folders.clone(),
    );
    let read = move || context::LaunchContext {
        tasks: known_names(&here),
        models: context::models(&open.task, &here, &places),
        last: context::last_run(&open.task, &places),
    };
    vec![Work::once(
        "launch.context",
        read,
        |launch: &mut Launch, shared, context| {
            launch.context = Some(context);
            if let (Some(list), Some(Popup::Refusal(_))) = (launch.awaited.take(), &shared.popup) {
                list(launch, shared);
            }
            Vec::new()
        },
    )]
}

fn find_origin(places: RunFolders, base_model: String) -> Command {
    Work::once(
        "launch.origin",
        move || context::origin(base_model, &places),
        |launch: &mut Launch, shared, origin| {
            launch.origin = Some(origin);
            refresh(launch, shared)
        },
    )
}

fn partitions(launch: &Launch) -> &[Partition] {
    launch
        .partitions
        .as_ref()
        .and_then(|found| found.as_ref().ok())
        .map_or(&[], Vec::as_slice)
}

fn own_partition(launch: &Launch) -> Option<Partition> {
    let cluster = launch.form.cluster.as_ref()?;
    partitions(launch)
        .iter()
        .find(|partition| partition.name == cluster.partition)
        .cloned()
}

fn chosen_device(launch: &Launch) -> String {
    if let Some(cluster) = &launch.form.cluster {
        return format!("Slurm partition {}", cluster.partition);
    }
    let compute = &launch.form.compute;
    if *compute == DeviceChoice::Any {
        return "any GPU, else CPU".to_owned();
    }
    let known = launch
        .devices
        .iter()
        .find(|choice| choice.compute == *compute);
    known.map_or_else(|| format!("{compute:?}"), |choice| choice.title.clone())
}

/// Selects the next (`by` = 1) or previous (-1) local device or Slurm partition.
fn next_device(launch: &mut Launch, by: isize) {
    let here = std::iter::once(DeviceChoice::Any)
        .chain(launch.devices.iter().map(|choice| choice.compute.clone()));
    let mut all: Vec<(DeviceChoice, Option<String>)> = here.map(|device| (device, None)).collect();
    all.extend(
        partitions(launch)
            .iter()
            .map(|partition| (DeviceChoice::Any, Some(partition.name.clone()))),
    );
    let form = &launch.form;
    let now = (
        form.compute.clone(),
        form.cluster
            .as_ref()
            .map(|cluster| cluster.partition.clone()),
    );
    let (compute, partition) = stepped(&all, &now, by);
    launch.form.compute = compute;
    launch.form.cluster = partition.and_then(|name| {
        partitions(launch)
            .iter()
            .find(|own| own.name == name)
            .map(Cluster::from_partition)
    });
}

/// The end of a text that fits a width: the most useful part of a path.
pub fn clip_start(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut room = columns.saturating_sub(1);
    let mut start = text.len();
    for (index, letter) in text.char_indices().rev() {
        let Some(left) = room.checked_sub(letter.width().unwrap_or(0)) else {
            break;
        };
        (room, start) = (left, index);
    }
    format!("…{}", &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_text_is_kept() {
        let check =
            |text: &str, columns, expected: &str| assert_eq!(clip_start(text, columns), expected);
        check("abc", 3, "abc");
        check("abcd", 3, "…cd");
        check("日本語", 4, "…語");
        check("abc", 0, "…");
        check("", 0, "");
    }
}
