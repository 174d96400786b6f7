//! `grpo-tui dataset propose --label`: asks a person for the labels of the most doubtful rows, field by field.

use std::io::BufRead;
use std::process::ExitCode;

use serde_json::Value;

use super::super::output::eprint_prompt;
use super::super::{Failure, Outcome};
use super::propose::{is_unlabelled, labelled_rows, replace_rows, shown};
use crate::dataset::{self, PROPOSED, PromptRow};
use crate::exact_json;
use crate::format::{counted, percent, shortened};
use crate::propose::{Proposal, Proposer};
use crate::score::Task;
use crate::secrets::{visible, visible_lines};
use crate::task::PromptSet;

/// Rows after which accuracy is measured again.
const ROUND: usize = 10;
/// Characters of a prompt that are shown.
const MAX_PROMPT: usize = 4_000;

enum Answer {
    Label(Value),
    Skip,
    Quit,
}

/// Labels up to `count` rows of a set; each is written as soon as it is complete.
pub(super) fn label_rows(task: &Task, set: PromptSet, count: usize) -> Outcome {
    let mut labelled = labelled_rows(task)?;
    let mut open = dataset::load(task, set)?;
    open.retain(is_unlabelled);
    eprintln!(
        "{} without a label. A digit chooses, enter takes the first, e types a value, - leaves the field out, s skips the row, q ends.",
        counted(open.len(), "row")
    );
    let mut done = 0;
    while done < count && !open.is_empty() {
        let proposer = Proposer::new(task, &labelled, &open).map_err(Failure::failed)?;
        if done % ROUND == 0 && !labelled.is_empty() {
            println!("{}", visible(&proposer.accuracy.sentence()));
        }
        let proposals = proposer.propose_all(&open, 1);
        let confidence = |index: &usize| proposals[*index].confidence;
        let Some(doubtful) =
            (0..open.len()).min_by(|left, right| confidence(left).total_cmp(&confidence(right)))
        else {
            break;
        };
        let mut row = open.remove(doubtful);
        println!(
            "\n[{}/{count}] {} line {}\n{}\n",
            done + 1,
            visible(&row.id),
            row.line,
            visible_lines(&prompt_of(&row))
        );
        match ask(&proposer, &proposals[doubtful])? {
            Answer::Quit => break,
            Answer::Skip => continue,
            Answer::Label(expected) => {
                let mut fields = row.fields.whole();
                fields.insert("expected".to_owned(), expected.clone());
                fields.shift_remove(PROPOSED);
                replace_rows(task, set, &[(row.line, exact_json::write(&fields))].into())?;
                row.fields = fields.into();
                row.expected = Some(expected);
                labelled.push(row);
                done += 1;
            }
        }
    }
    if !labelled.is_empty() {
        let proposer = Proposer::new(task, &labelled, &open).map_err(Failure::failed)?;
        println!("{}", visible(&proposer.accuracy.sentence()));
    }
    println!(
        "{} labelled; write the proposals for the others: grpo-tui dataset propose {} --write",
        counted(done, "row"),
        task.name
    );
    Ok(ExitCode::SUCCESS)
}

fn prompt_of(row: &PromptRow) -> String {
    let texts = row
        .messages
        .iter()
        .filter(|turn| turn.role != "system")
        .map(|turn| turn.content.as_str());
    shortened(&texts.collect::<Vec<_>>().join("\n"), MAX_PROMPT)
}

fn ask(proposer: &Proposer, proposal: &Proposal) -> Result<Answer, Failure> {
    let mut values: Vec<Option<Value>> = Vec::new();
    for (index, options) in proposal.options.iter().enumerate() {
        let listed = options
            .values
            .iter()
            .zip(1..)
            .map(|((value, mass), number)| {
                format!("{number} {} ({})", shown(value), percent(*mass))
            });
        println!(
            "{}: {}",
            visible(&options.field),
            visible(&listed.collect::<Vec<_>>().join("  "))
        );
        let value = loop {
            let Some(line) = read_line("> ")? else {
                return Ok(Answer::Quit);
            };
            let chosen = |number: usize| {
                options
                    .values
                    .get(number.checked_sub(1)?)
                    .map(|(value, _)| value.clone())
            };
            match line.as_str() {
                "q" => return Ok(Answer::Quit),
                "s" => return Ok(Answer::Skip),
                "-" => break None,
                "e" => {
                    let Some(text) = read_line("value: ")? else {
                        return Ok(Answer::Quit);
                    };
                    match proposer.read_value(index, &text) {
                        Ok(value) => break Some(value),
                        Err(why) => println!("{}", visible(&why)),
                    }
                }
                _ => match chosen(if line.is_empty() {
                    1
                } else {
                    line.parse().unwrap_or(0)
                }) {
                    Some(value) => break Some(value),
                    None if options.values.is_empty() => println!("no likely value: e, -, s or q"),
                    None => println!(
                        "write a number from 1 to {}, e, -, s or q",
                        options.values.len()
                    ),
                },
            }
        };
        values.push(value);
    }
    Ok(Answer::Label(proposer.label(values)))
}

/// `None` at the end of the input.
fn read_line(question: &str) -> Result<Option<String>, Failure> {
    eprint_prompt(question);
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim().to_owned()))
}
