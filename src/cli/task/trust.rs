//! `grpo-tui task trust`: shows what a task would run and whom it would ask, asks, and remembers the answer.

use std::io::BufRead;
use std::path::Path;
use std::process::ExitCode;

use super::super::{Failure, Outcome};
use crate::environment::TrustSubject;
use crate::score::{Task, Trust};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Task: a folder, or a name in the workspace
    task: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Forget that it is trusted
    #[arg(long, conflicts_with = "yes")]
    revoke: bool,
}

pub(super) fn says_yes() -> Result<bool, Failure> {
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let task = Task::resolve(&arguments.task)?;
    let all = Trust::for_task(&task)?;
    if all.is_empty() {
        println!(
            "{}: runs no command, tool or agent and asks no judge ({}): nothing to trust",
            task.name,
            task.kind()
        );
        return Ok(ExitCode::SUCCESS);
    }
    let place = task.folder().map_or_else(
        || "the task embedded in this program".to_owned(),
        |folder| folder.display().to_string(),
    );
    let mut subjects: Vec<TrustSubject> = all.iter().map(Trust::subject).collect();
    subjects.dedup();
    let named: Vec<String> = subjects
        .iter()
        .map(|subject| {
            let article = if *subject == TrustSubject::Agent {
                "an"
            } else {
                "a"
            };
            format!("{article} {}", subject.name())
        })
        .collect();
    println!(
        "{} uses {}, in {}",
        task.name,
        named.join(" and "),
        visible(&place)
    );
    let mut programs = task
        .scorers()
        .filter_map(|task| Some((task.folder(), task.command()?)));
    for trust in &all {
        let subject = trust.subject().name();
        if let Some(server) = &trust.server {
            println!("  {subject:<8} {}", visible(server));
        }
        for command in trust.command_lines() {
            println!("  {subject:<8} {}", visible(&command));
        }
        for program in &trust.programs {
            println!("  runs     {}", visible(program));
        }
        for file in &trust.files {
            println!("  file     {}", visible(&task.label(file)));
        }
        let scored = if trust.subject() == TrustSubject::Command {
            programs.next()
        } else {
            None
        };
        let isolation = match (&trust.tool, scored) {
            (Some(tool), _) => Some((tool.isolation_text(), tool.visible_paths())),
            (None, Some((folder, rules))) => Some((
                rules.isolation_text(),
                rules.visible_paths(folder.unwrap_or(Path::new(""))),
            )),
            (None, None) => None,
        };
        if let Some((isolation, visible_paths)) = isolation {
            println!("  isolation {isolation}");
            for path in visible_paths {
                println!("  reads    {}", visible(&path.display().to_string()));
            }
        }
        let changed = if trust.has_changed {
            "; the program has changed since it was trusted"
        } else {
            ""
        };
        println!("  SHA-256  {}{changed}", trust.digest);
    }
    if arguments.revoke {
        all.iter().try_for_each(|trust| trust.set(false))?;
        println!("Not trusted any more.");
        return Ok(ExitCode::SUCCESS);
    }
    if all.iter().all(|trust| trust.is_trusted) {
        println!("Trusted already.");
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.yes {
        let has = |subject| subjects.contains(&subject);
        if has(TrustSubject::Judge) {
            println!("The judge's server gets the prompts, the model's answers, and the key.");
        }
        println!("Trust {}, as they are now? [y/N]", Trust::counts(&all));
        if !says_yes()? {
            return Err(Failure::failed(format!(
                "not trusted: the {} will not be used",
                subjects
                    .iter()
                    .map(|subject| subject.name())
                    .collect::<Vec<_>>()
                    .join(" and the ")
            )));
        }
    }
    all.iter().try_for_each(|trust| trust.set(true))?;
    println!("Trusted: {}.", Trust::counts(&all));
    all.iter()
        .filter_map(|trust| trust.missing.as_deref())
        .for_each(|missing| println!("note: {}", visible(missing)));
    Ok(ExitCode::SUCCESS)
}
