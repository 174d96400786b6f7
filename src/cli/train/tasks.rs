//! The tasks that `train` is given, with the configuration of a run of them.

use std::collections::BTreeMap;

use super::{Arguments, read_config};
use crate::checkpoint::ModelLocation;
use crate::cli::run_input::RunInput;
use crate::cli::{Failure, preset, task_with_agent};
use crate::config::{Assignments, JoinedConfig, Layers, TaskTable};
use crate::hub::find_model;
use crate::plan::parameters;
use crate::run::{MixedTask, RunFolders, slug};
use crate::score::Task;
use crate::task::TASK_FILE;
use crate::train::TaskPart;

const MAX_WEIGHT: usize = 1000;

/// Reads the tasks that the command line names.
pub(in crate::cli) fn named_tasks(arguments: &Arguments) -> Result<Vec<Task>, Failure> {
    let tasks = arguments
        .task
        .iter()
        .map(|task| task_with_agent(task, arguments.agent.as_deref()));
    let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
    if tasks.is_empty() {
        return Err(Failure::usage(
            "name a task, or a run to resume with --resume",
        ));
    }
    Ok(tasks)
}

/// Resolves the configuration of a run of these tasks. `tasks`: those that `arguments` names, or other versions of them.
pub(in crate::cli) fn run_input(
    arguments: &Arguments,
    tasks: Vec<Task>,
    run_folders: &RunFolders,
) -> Result<RunInput, Failure> {
    let weights = weights(arguments, tasks.len())?;
    let names = names(&tasks)?;
    let JoinedConfig {
        resolved,
        max_completion_tokens,
    } = resolve(arguments, &tasks, run_folders)?;
    if let [_] = tasks.as_slice() {
        let parts = tasks
            .into_iter()
            .map(|task| TaskPart::only(task, &resolved.config))
            .collect();
        return Ok(RunInput {
            parts,
            mix: Vec::new(),
            resolved,
        });
    }
    let (mut parts, mut mix) = (Vec::new(), Vec::new());
    for (index, (task, name)) in tasks.into_iter().zip(names).enumerate() {
        let (weight, max_completion_tokens) = (weights[index], max_completion_tokens[index]);
        let origin = arguments.task.get(index).cloned().unwrap_or_default();
        let mixed = MixedTask {
            name,
            origin,
            weight,
            max_completion_tokens,
        };
        parts.push(TaskPart::mixed(task, &mixed));
        mix.push(mixed);
    }
    Ok(RunInput {
        parts,
        mix,
        resolved,
    })
}

/// `--mix`, else 1 for each.
fn weights(arguments: &Arguments, tasks: usize) -> Result<Vec<usize>, Failure> {
    let Some(mix) = &arguments.mix else {
        return Ok(vec![1; tasks]);
    };
    let example = vec!["1"; tasks].join(":");
    let weight = |text: &str| {
        let weight = text
            .trim()
            .parse()
            .ok()
            .filter(|weight| (1..=MAX_WEIGHT).contains(weight));
        weight.ok_or_else(|| {
            let takes = format!("a weight is a whole number from 1 to {MAX_WEIGHT}");
            Failure::usage(format!(
                "--mix {mix}: {takes}, not `{text}`: write for example --mix {example}"
            ))
        })
    };
    let weights = mix.split(':').map(weight).collect::<Result<Vec<_>, _>>()?;
    if tasks == 1 {
        return Err(Failure::usage(format!(
            "--mix {mix}: needs several tasks, and one is named: train TASK TASK --mix {mix}"
        )));
    }
    if weights.len() != tasks {
        let found = format!("{} weights for {tasks} tasks", weights.len());
        return Err(Failure::usage(format!(
            "--mix {mix}: {found}: write one for each, for example --mix {example}"
        )));
    }
    Ok(weights)
}

fn names(tasks: &[Task]) -> Result<Vec<String>, Failure> {
    let mut named: BTreeMap<String, &Task> = BTreeMap::new();
    for task in tasks {
        let Some(other) = named.insert(slug(&task.name), task) else {
            continue;
        };
        let [label, other_label] = [task, other].map(|task| task.label(TASK_FILE));
        return Err(Failure::usage(match label == other_label {
            true => format!(
                "{} is named twice: name each task once, and weigh it with --mix",
                task.name
            ),
            false => format!(
                "{other_label} and {label} are both named `{}` in a run: give one another `name`",
                slug(&task.name)
            ),
        }));
    }
    Ok(tasks.iter().map(|task| slug(&task.name)).collect())
}

fn resolve(
    arguments: &Arguments,
    tasks: &[Task],
    run_folders: &RunFolders,
) -> Result<JoinedConfig, Failure> {
    let preset = arguments.preset.as_deref().map(preset).transpose()?;
    let file = match &arguments.config_file {
        Some(file) => Some(file.clone()),
        None => read_config(arguments.config.as_deref())?,
    };
    let file = file.map(|file| file.assignments()).transpose()?;
    let mut set = arguments.set.clone();
    set.extend(
        arguments
            .model
            .iter()
            .map(|model| format!("base_model={model}")),
    );
    set.extend(
        arguments
            .method
            .iter()
            .map(|method| format!("method={method}")),
    );
    set.extend(arguments.ranks.iter().map(|ranks| format!("ranks={ranks}")));
    let mut tables = Vec::with_capacity(tasks.len());
    for task in tasks {
        let text = String::from_utf8_lossy(&task.read(TASK_FILE)?).into_owned();
        let train = Assignments::from_task(&task.label(TASK_FILE), &text)?;
        tables.push(TaskTable {
            task: task.name.clone(),
            train,
        });
    }
    let mut layers = Layers {
        preset,
        file,
        set,
        ..Layers::default()
    };
    // A missing model is reported when it is loaded.
    if let Ok(origin) = ModelLocation::origin(&layers.base_model_of(&tables)?, run_folders) {
        layers.parameters = find_model(&origin)
            .ok()
            .and_then(|source| parameters(&source));
        layers.origin = Some(origin);
    }
    layers.resolve_tasks(&tables).map_err(|error| {
        // Problems of the files alone are not the command line's.
        let files = Layers {
            preset: None,
            set: Vec::new(),
            ..layers.clone()
        };
        files
            .resolve_tasks(&tables)
            .map_or_else(Failure::from, |_| Failure::usage(error.to_string()))
    })
}
