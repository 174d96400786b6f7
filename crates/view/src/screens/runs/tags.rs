//! Tags of runs.

use super::Runs;
use crate::command_log::CommandLine;
use crate::format::counted;
use crate::message::{Command, Work};
use crate::popup::{Ask, Popup};
use crate::run::{RunDirectory, change_tags, check_tag};
use crate::shared::Shared;

pub(super) fn tag(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let chosen = runs.chosen(shared);
    let there = runs
        .row(shared)
        .map_or_else(String::new, |row| row.tags.join(" "));
    let whose = if chosen.len() == 1 {
        format!("Tags: {}", if there.is_empty() { "none" } else { &there })
    } else {
        format!("{} runs", chosen.len())
    };
    let question = Ask::new(
        "Tags",
        format!("{whose}. Add tags; -tag removes:"),
        "",
        move |_: &mut (), _, text| {
            let (remove, add): (Vec<&str>, Vec<&str>) = text
                .split_whitespace()
                .partition(|tag| tag.starts_with('-'));
            let add: Vec<String> = add
                .iter()
                .map(|tag| tag.trim_start_matches('+').to_owned())
                .collect();
            let remove: Vec<String> = remove
                .iter()
                .map(|tag| tag.trim_start_matches('-').to_owned())
                .collect();
            let removed: Vec<String> = remove.iter().map(|tag| format!("--remove={tag}")).collect();
            let changes: Vec<&str> = add.iter().chain(&removed).map(String::as_str).collect();
            let runs = chosen
                .iter()
                .map(|run| run.display().to_string())
                .collect::<Vec<_>>()
                .join(",");
            let line = CommandLine::for_runs("tag", &[runs.into()], &changes);
            let change = Work::once(
                "runs.tag",
                move || -> Result<usize, String> {
                    for run in &chosen {
                        let directory =
                            RunDirectory::open(run).map_err(|error| error.to_string())?;
                        directory
                            .check_private()
                            .map_err(|error| error.to_string())?;
                        change_tags(run, &add, &remove).map_err(|error| error.to_string())?;
                    }
                    Ok(chosen.len())
                },
                |_: &mut Runs, shared, outcome| {
                    match outcome {
                        Ok(count) => shared.say(format!("tags of {} saved", counted(count, "run"))),
                        Err(error) => shared.complain(error),
                    };
                    shared.look_for_runs()
                },
            );
            vec![change.like(line)]
        },
    );
    shared.open_popup(Popup::Ask(question.checked(wrong_tags)))
}

fn wrong_tags(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        return Some("enter a tag, such as baseline".to_owned());
    }
    text.split_whitespace()
        .find_map(|tag| check_tag(tag.strip_prefix(['-', '+']).unwrap_or(tag)))
}
