//! `runs compare`: a run's base with its result, several runs with the first, or the evals of a standalone eval.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Failure, Outcome, check_page, print, print_json, print_json_lines, write_page};
use crate::page::text::render;
use crate::page::{Block, Level};
use crate::report::{
    EvalId, ReportError, RunComparison, Versus, base_and_trained_on, held_out_sets, list_evals,
    result_on, versus_csv, versus_html, versus_markdown, versus_rates, versus_text,
};
use crate::run::{RESULT_FILE, RunFolders};
use crate::score::{Scorer, Task};
use crate::task::{PromptSet, SetName};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// One run: base vs result. Several: configuration, metrics, evals, and results, each against the first. The folder of a standalone eval: its evals
    #[arg(required = true, id = "run", value_name = "RUN")]
    these: Vec<String>,
    /// Prompt set; of a run of several tasks with the name of one, such as test:invoice [default: test if evaluated, else eval, of each task]
    #[arg(long, value_name = "SET")]
    on: Option<SetName>,
    /// Re-score all answers with this task's current schema
    #[arg(long, value_name = "TASK")]
    rescore: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Print Markdown for a pull request: verdicts, rates, groups of failures, comments; secrets are masked
    #[arg(long, conflicts_with_all = ["json", "csv", "html"])]
    markdown: bool,
    /// Print CSV: one line per prompt and sample, with all answers; secrets are masked
    #[arg(long, conflicts_with_all = ["json", "html"])]
    csv: bool,
    /// Write one self-contained HTML file; secrets are masked
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Overwrite FILE
    #[arg(long, requires = "html")]
    force: bool,
}

pub(super) fn run(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    check_page(arguments.html.as_deref(), arguments.force)?;
    if arguments.is_whole() {
        return whole(arguments, run_folders);
    }
    match tasks(arguments, run_folders)? {
        tasks if tasks.len() < 2 => compare(arguments, run_folders),
        tasks if arguments.json || arguments.csv || arguments.html.is_some() => {
            let sets: Vec<String> = tasks
                .iter()
                .map(|task| format!("--on {}", SetName::new(PromptSet::Test, task)))
                .collect();
            Err(Failure::usage(format!(
                "the run has several tasks: choose one with {}",
                sets.join(" or ")
            )))
        }
        tasks => {
            for task in tasks {
                let sets = SetName::held_out(&[&task]);
                let is_evaluated = |set: &&SetName| {
                    let on = Some((*set).clone());
                    evals_of(
                        &arguments.these[0],
                        &Arguments {
                            on,
                            ..arguments.clone()
                        },
                        run_folders,
                    )
                    .is_ok()
                };
                let on = sets.iter().find(is_evaluated).unwrap_or(&sets[0]).clone();
                compare(
                    &Arguments {
                        on: Some(on),
                        ..arguments.clone()
                    },
                    run_folders,
                )?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Arguments {
    /// Whether runs are compared in full, rather than answers in a form of their own.
    fn is_whole(&self) -> bool {
        let is_eval = |run: &String| Path::new(run).join(RESULT_FILE).is_file();
        let of_answers = self.on.is_some() || self.rescore.is_some() || self.html.is_some();
        let of_answers = of_answers || self.markdown || self.csv;
        self.these.len() > 1 && !of_answers && !self.these.iter().any(is_eval)
    }
}

/// Runs against the first one; of up to three runs of one task, the rates on the same prompts too.
fn whole(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    let runs = arguments.these.iter();
    let runs = runs
        .map(|run| super::verified(run_folders.find(run)?))
        .collect::<Result<Vec<_>, _>>()?;
    let compared = RunComparison::for_reports(&runs);
    let is_few = runs.len() <= 3 && tasks(arguments, run_folders)?.len() < 2;
    let versus = is_few.then(|| read(arguments, run_folders));
    if arguments.json {
        let mut document = compared.document();
        let answers = versus.and_then(Result::ok).map(|versus| versus.document());
        if let (Value::Object(document), Some(Value::Object(answers))) = (&mut document, answers) {
            document.extend(answers);
        }
        return print_json(document);
    }
    let rates = versus.map(|versus| match versus {
        Ok(versus) => versus_rates(&versus),
        Err(Failure { message, .. }) => vec![Block::Finding(Level::Request, message)],
    });
    print(&render(&compared.page(rates.unwrap_or_default())))
}

/// The tasks that are compared one after the other: those of the first run, unless a set is named.
fn tasks(arguments: &Arguments, run_folders: &RunFolders) -> Result<Vec<String>, Failure> {
    let run = &arguments.these[0];
    if arguments.on.is_some() || Path::new(run).join(RESULT_FILE).is_file() {
        return Ok(Vec::new());
    }
    Ok(run_folders
        .find(run)?
        .task_names()
        .into_iter()
        .map(str::to_owned)
        .collect())
}

fn read(arguments: &Arguments, run_folders: &RunFolders) -> Result<Versus, Failure> {
    let mut evals = Vec::new();
    for run in &arguments.these {
        evals.extend(evals_of(run, arguments, run_folders)?);
    }
    if let Some(task) = &arguments.rescore {
        let task = Task::resolve(task)?;
        return Ok(Versus::rescored(&evals, &task, &Scorer::new(&task)?)?);
    }
    Versus::read(&evals).map_err(|error| match error {
        ReportError::OtherSchemas(text) => Failure::failed(format!(
            "{text}; to re-score all answers by one task, add --rescore TASK"
        )),
        error => error.into(),
    })
}

fn compare(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    let versus = read(arguments, run_folders)?;
    if let Some(file) = &arguments.html {
        let page = versus_html(&versus)?;
        write_page(file, &page, arguments.force)?;
        let document = json!({"file": file, "bytes": page.text.len(), "masked": page.masked});
        return if arguments.json {
            print_json_lines(vec![document])
        } else {
            Ok(ExitCode::SUCCESS)
        };
    }
    match () {
        () if arguments.json => print_json(versus.document()),
        () if arguments.markdown => print(&versus_markdown(&versus)),
        () if arguments.csv => print(&versus_csv(&versus)),
        () => print(&versus_text(&versus)),
    }
}

fn evals_of(
    run: &str,
    arguments: &Arguments,
    run_folders: &RunFolders,
) -> Result<Vec<EvalId>, Failure> {
    let folder = Path::new(run);
    if folder.join(RESULT_FILE).is_file() {
        let mut evals = list_evals(folder)?;
        // One with confidences has the eval set after the test set.
        let first = evals.first().map(|eval| eval.set.clone());
        let asked = arguments.on.clone().or(first);
        evals.retain(|eval| Some(&eval.set) == asked.as_ref());
        return Ok(evals);
    }
    let directory = run_folders.find(run)?;
    let sets = arguments
        .on
        .clone()
        .map_or_else(|| held_out_sets(directory.path()), |set| vec![set]);
    let found = match arguments.these.len() {
        1 => base_and_trained_on(directory.path(), &sets),
        // Only the results of several runs are compared.
        _ => result_on(directory.path(), &sets).map(|result| vec![result]),
    };
    found.map_err(|error| match &arguments.on {
        Some(set) => Failure::failed(format!(
            "{} has no base and trained evals on {set}",
            directory.id()
        )),
        None => error.into(),
    })
}
