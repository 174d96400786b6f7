//! `runs export`: metrics as CSV, JSON lines or TensorBoard event files, or a run as HTML or Markdown.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    Failure, Outcome, check_page, output, print, print_json, print_json_lines, report_masked,
    report_written, show, write_page,
};
use crate::environment::{RecordedConversation, ToolChain};
use crate::format::{counted, did_you_mean};
use crate::report::{
    Page, PromptMessages, Report, csv, event_file, html, json_lines, markdown, spread,
    write_event_file,
};
use crate::run::events::EvalKey;
use crate::run::{
    RolloutCompletion, RolloutGroup, RunDirectory, RunError, RunFolders, eval_path, missing_groups,
    read_evals, read_step, recorded_groups, rollout_steps,
};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("form").required(true).multiple(true))]
pub(super) struct Arguments {
    /// Runs: each a path, name, id, or unique id prefix
    #[arg(required = true, value_name = "RUN")]
    run: Vec<String>,
    /// Print CSV: one line per step, one column per metric
    #[arg(long, group = "form", conflicts_with_all = ["jsonl", "html", "markdown", "tensorboard"])]
    csv: bool,
    /// Print JSON lines: one object per step
    #[arg(long, group = "form", conflicts_with_all = ["html", "markdown", "tensorboard"])]
    jsonl: bool,
    /// Print all sampled completions as JSON lines: step, prompt, completion, reward, advantage, and the whole conversation
    /// in OpenAI's message form (`messages`, `tools`)
    #[arg(long, group = "form", conflicts_with_all = ["csv", "jsonl", "html", "markdown", "out", "tensorboard"])]
    rollouts: bool,
    /// With --rollouts: only this step, or `last`
    #[arg(long, value_name = "N", requires = "rollouts")]
    step: Option<String>,
    /// With --rollouts: only completions with a smaller reward
    #[arg(
        long,
        value_name = "REWARD",
        requires = "rollouts",
        allow_negative_numbers = true
    )]
    below: Option<f64>,
    /// Print what tools replied in rollouts and evals as JSON lines, for `[tools] replay = true`: row, calls, states
    #[arg(long, group = "form", conflicts_with_all = ["csv", "jsonl", "html", "markdown", "out", "tensorboard", "rollouts", "json"])]
    tools: bool,
    /// Print a Markdown summary for a pull request: outcome, rates, verdicts, failure classes, configuration and what
    /// changed since the previous run of the task, alerts; secrets are masked
    #[arg(long, group = "form", conflicts_with_all = ["html", "out", "tensorboard"])]
    markdown: bool,
    /// Write one self-contained HTML file; secrets are masked; `-`: standard output; for several runs: a folder, one file
    /// per run
    #[arg(long, group = "form", value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a TensorBoard event file of steps and evals into DIR/ID; `tensorboard --logdir DIR` shows the runs
    #[arg(long, group = "form", value_name = "DIR", conflicts_with_all = ["html", "out"])]
    tensorboard: Option<PathBuf>,
    /// With --jsonl: at most this many steps, evenly spaced
    #[arg(long, value_name = "N", requires = "jsonl", value_parser = clap::value_parser!(u32).range(2..))]
    points: Option<u32>,
    /// With --jsonl: only these metrics, separated by commas
    #[arg(
        long = "metrics",
        value_name = "NAMES",
        requires = "jsonl",
        value_delimiter = ','
    )]
    names: Vec<String>,
    /// Print everything as one JSON document; with --html or --tensorboard, what was written
    #[arg(long, group = "form", conflicts_with_all = ["csv", "jsonl", "markdown"])]
    json: bool,
    /// Write ID.csv or ID.jsonl of each run into a folder
    #[arg(long, value_name = "DIR", conflicts_with = "html")]
    out: Option<PathBuf>,
    /// Overwrite files
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: &Arguments, places: &RunFolders) -> Outcome {
    let runs = super::find_all(arguments.run.iter().map(String::as_str), places)?;
    if let Some(folder) = &arguments.tensorboard {
        return event_files(&runs, folder, arguments);
    }
    if arguments.rollouts {
        let lost = runs.iter().map(|run| rollouts(run, arguments));
        return complete(lost.sum::<Result<usize, Failure>>()?);
    }
    if arguments.tools {
        return complete(tools(&runs)?);
    }
    let [run] = runs.as_slice() else {
        return each(runs, arguments);
    };
    if arguments.out.is_some() {
        return each(runs, arguments);
    }
    let file = arguments
        .html
        .as_deref()
        .filter(|file| *file != Path::new("-"));
    check_page(file, arguments.force)?;
    let seen = super::verified(run.clone())?;
    if let Some(file) = &arguments.html {
        return write_html(&seen, file, arguments);
    }
    if arguments.markdown {
        return print(&markdown(&seen));
    }
    if arguments.csv {
        return print(&csv(&seen.history));
    }
    if arguments.jsonl {
        return print_json_lines(metrics(&seen, arguments)?);
    }
    let mut document = show::document(&seen);
    let series = seen.history.metrics.iter();
    let series: serde_json::Map<String, serde_json::Value> = series
        .map(|(name, series)| {
            (
                name.clone(),
                json!({"steps": series.steps().collect::<Vec<_>>(), "values": series.values()}),
            )
        })
        .collect();
    document["series"] = series.into();
    print_json(document)
}

/// The lines of `--jsonl`.
fn metrics(seen: &Report, arguments: &Arguments) -> Result<Vec<Value>, Failure> {
    let known = &seen.history.metrics;
    if let Some(unknown) = arguments
        .names
        .iter()
        .find(|name| *name != "step" && !known.contains_key(*name))
    {
        let hint = did_you_mean(unknown, known.keys().map(String::as_str));
        let (id, names) = (
            seen.directory.id(),
            known.keys().cloned().collect::<Vec<_>>(),
        );
        return Err(Failure::usage(format!(
            "--metrics {unknown}: not a metric of {id}{hint}; it has {}",
            names.join(", ")
        )));
    }
    let mut lines = json_lines(&seen.history);
    if let Some(points) = arguments.points {
        let places: Vec<f64> = (0..lines.len()).map(|place| place as f64).collect();
        let places = spread(&places, points as usize).into_iter();
        lines = places.map(|place| lines[place as usize].take()).collect();
    }
    let is_shown = |name: &String| {
        arguments.names.is_empty() || name == "step" || arguments.names.contains(name)
    };
    for line in lines.iter_mut().filter_map(Value::as_object_mut) {
        line.retain(|name, _| is_shown(name));
    }
    Ok(lines)
}

/// `damaged`: what could not be printed, which was said.
fn complete(damaged: usize) -> Outcome {
    if damaged == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let records = counted(damaged, "record");
    Err(Failure::failed(format!(
        "the export lacks {records} of damaged or missing files (warnings above); `grpo-tui runs check` verifies all"
    )))
}

/// Prints the completions that the run still has, step by step, with names as in TRL's tables. Returns the number of
/// files and steps that it lacks.
fn rollouts(run: &RunDirectory, arguments: &Arguments) -> Result<usize, Failure> {
    super::verified(run.clone())?;
    let (prompts, warnings) = PromptMessages::read(run);
    warnings
        .iter()
        .for_each(|warning| output::eprint_line(&format!("warning: {warning}")));
    let is_below = |completion: &&RolloutCompletion| {
        let least = arguments.below;
        least.is_none_or(|least| completion.reward.is_some_and(|reward| reward < least))
    };
    for_each_group(run, arguments.step.as_deref(), |group| {
        let line = |completion| completion_line(run, group, completion, &prompts);
        let shown = group.completions.iter().filter(is_below);
        print_json_lines(shown.map(line).collect()).map(|_| ())
    })
}

/// Visits the groups that the run still has, step by step; warns of what is lost, and returns its count.
fn for_each_group(
    run: &RunDirectory,
    only: Option<&str>,
    mut visit: impl FnMut(&RolloutGroup) -> Result<(), Failure>,
) -> Result<usize, Failure> {
    let recorded = recorded_groups(run)?;
    let mut lost = 0;
    let mut steps = rollout_steps(run.path(), &recorded)?;
    if let Some(only) = only {
        // A file has the steps of a range, also those to come.
        steps.retain(|step| recorded.contains_key(step));
        let ends = steps.first().copied().zip(steps.last().copied());
        let wanted = match only {
            "last" => ends.map(|(_, last)| last),
            only => only.parse().ok(),
        };
        steps.retain(|step| Some(*step) == wanted);
        if steps.is_empty() {
            let has = ends.map_or_else(
                || "has none yet".to_owned(),
                |(first, last)| format!("has some from step {first} to {last}"),
            );
            let message = format!("--step {only}: no such rollouts: {} {has}", run.id());
            return Err(Failure::usage(message));
        }
    }
    for step in steps {
        let expected = recorded.get(&step).copied().unwrap_or(0);
        let problem = match read_step(run.path(), step) {
            Ok(groups) => {
                groups.iter().try_for_each(&mut visit)?;
                missing_groups(step, groups.len(), expected)
            }
            Err(error @ (RunError::Malformed { .. } | RunError::Io { .. })) => {
                Some(error.to_string())
            }
            Err(error) => return Err(error.into()),
        };
        lost += usize::from(problem.is_some());
        if let Some(problem) = problem {
            output::eprint_line(&format!("warning: {}: {problem}", run.id()));
        }
    }
    Ok(lost)
}

/// Prints each conversation with tools once. Returns the number of files and steps that could not be read.
fn tools(runs: &[RunDirectory]) -> Result<usize, Failure> {
    let mut lost = 0;
    let mut printed = BTreeSet::new();
    let mut print = |row: &str, chain: Option<&ToolChain>| {
        let line = chain
            .and_then(|chain| RecordedConversation::new(row, chain))
            .map(|found| json!(found));
        match line.filter(|line| printed.insert(line.to_string())) {
            Some(line) => print_json_lines(vec![line]).map(|_| ()),
            None => Ok(()),
        }
    };
    for run in runs {
        lost += for_each_group(run, None, |group| {
            let mut chains = group
                .completions
                .iter()
                .map(|completion| completion.chain.as_ref());
            chains.try_for_each(|chain| print(&group.prompt_id, chain))
        })?;
        let seen = Report::read(run.clone())?;
        super::warn(&seen);
        for EvalKey { step, set, target } in seen.history.evals.keys() {
            let records = match read_evals(&eval_path(run.path(), *step, set, target.name())) {
                Ok(records) => records,
                Err(error) => {
                    lost += 1;
                    output::eprint_line(&format!("warning: {}: {error}", run.id()));
                    continue;
                }
            };
            let mut chains = records
                .iter()
                .map(|record| (&record.prompt_id, record.chain.as_deref()));
            chains.try_for_each(|(row, chain)| print(row, chain))?;
        }
    }
    Ok(lost)
}

fn completion_line(
    run: &RunDirectory,
    group: &RolloutGroup,
    completion: &RolloutCompletion,
    prompts: &PromptMessages,
) -> Value {
    let mut line = json!({
        "run": run.id(), "step": group.step, "prompt_id": group.prompt_id,
        "prompt": completion.prompt.as_ref().unwrap_or(&group.prompt), "completion": completion.text,
        "messages": prompts.conversation(group, completion),
        "reward": completion.reward, "tier": completion.score["tier"], "advantage": completion.advantage,
        "tokens": completion.sampled_tokens(), "stop_reason": completion.stop_reason, "replaced": group.replaced,
    });
    if let Some(tools) = prompts.tools(group) {
        line["tools"] = tools.clone();
    }
    if let Some(chain) = &completion.chain {
        line["end"] = chain.end.name().into();
    }
    line
}

/// Writes a file per run into a folder; existing files are found before the first is written.
fn each(runs: Vec<RunDirectory>, arguments: &Arguments) -> Outcome {
    let (folder, ending) = match (&arguments.html, &arguments.out) {
        (Some(folder), _) => (folder, "html"),
        (_, Some(folder)) if arguments.csv => (folder, "csv"),
        (_, Some(folder)) if arguments.jsonl => (folder, "jsonl"),
        _ => {
            return Err(Failure::usage(
                "several runs: --html DIR, --tensorboard DIR, --csv --out DIR or --jsonl --out DIR",
            ));
        }
    };
    let file = |run: &RunDirectory| folder.join(format!("{}.{ending}", run.id()));
    runs.iter()
        .try_for_each(|run| check_page(Some(&file(run)), arguments.force))?;
    std::fs::create_dir_all(folder)?;
    for run in runs {
        let file = file(&run);
        let seen = super::verified(run)?;
        let page = match ending {
            "html" => html(&seen)?,
            "csv" => Page::masked(&csv(&seen.history)),
            _ => Page::masked(
                &metrics(&seen, arguments)?
                    .iter()
                    .map(|line| format!("{line}\n"))
                    .collect::<String>(),
            ),
        };
        write_page(&file, &page, arguments.force)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_html(seen: &Report, file: &Path, arguments: &Arguments) -> Outcome {
    let page = html(seen)?;
    if file == Path::new("-") {
        report_masked(page.masked);
        return output::print_exact(&page.text);
    }
    write_page(file, &page, arguments.force)?;
    let document = written(&seen.directory, file, page.text.len(), page.masked);
    if arguments.json {
        print_json_lines(vec![document])
    } else {
        Ok(ExitCode::SUCCESS)
    }
}

fn event_files(runs: &[RunDirectory], folder: &Path, arguments: &Arguments) -> Outcome {
    runs.iter()
        .try_for_each(|run| check_page(Some(&event_file(folder, run)), arguments.force))?;
    let mut documents = Vec::new();
    for run in runs {
        super::warn(&Report::read(run.clone())?);
        let file = write_event_file(folder, run, arguments.force)?;
        report_written(&file.path, file.bytes, file.masked);
        documents.push(written(run, &file.path, file.bytes, file.masked));
    }
    if arguments.json {
        print_json_lines(documents)
    } else {
        Ok(ExitCode::SUCCESS)
    }
}

fn written(run: &RunDirectory, file: &Path, bytes: usize, masked: usize) -> Value {
    json!({"run": run.id(), "path": run.path(), "file": file, "bytes": bytes, "masked": masked})
}
