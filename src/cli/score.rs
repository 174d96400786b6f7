//! `grpo-tui score`: scores completions, one line each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use super::output::{Stopped, Stream};
use super::{Failure, Outcome};
use crate::dataset::import::{Format, LeftOut, parquet_lines};
use crate::dataset::{self, NumberedLine, PromptRow};
use crate::format::{counted, percent};
use crate::prompts::{CompletionLine, CompletionRows, NoRow};
use crate::score::{AppendLine, FailureClass, LineWork, Score, Scorer, Task, Tier, score_stream};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Task: a folder, a name in the workspace, or an embedded task (`invoice`, `sql`, `tool-calls`, `shell-lint`, `py-functions`, `assistant`)
    task: String,
    /// JSONL file with one `{"completion": …, "prompt_id": …}` per line (prompt_id optional), or from TRL (`prompt`,
    /// `completion`), verl (`input`, `output`) or an OpenAI batch; or such a table as .parquet; `-`: standard input
    /// [default: the task's samples]
    #[arg(long, value_name = "FILE")]
    completions: Option<String>,
    /// Print one JSON object per completion
    #[arg(long)]
    json: bool,
}

type Lines = Box<AppendLine<'static>>;

/// A line of the completions file, with its prompt row.
struct Item {
    completion: String,
    prompt_id: Option<String>,
    row: Option<Arc<PromptRow>>,
    line: usize,
    /// Why no row was found.
    unknown: Option<String>,
}

/// What is printed of some lines, and their share of the summary.
#[derive(Default)]
struct Chunk {
    text: Vec<u8>,
    summary: Summary,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let task = Task::resolve(&arguments.task)?;
    let scorer = Scorer::new(&task)?;
    let (label, mut lines) = open(&task, arguments.completions.as_deref())?;
    let rows = CompletionRows::new(&task);
    let mut output = Stream::new(arguments.json);
    let mut summary = Summary::default();
    let is_json = arguments.json;
    let work = LineWork {
        read: |line: NumberedLine<&[u8]>| {
            let (number, bytes) = line.map_err(|(number, problem)| {
                Failure::failed(format!("{label} line {number}: {problem}"))
            })?;
            Ok::<_, Stopped>(read_item(&label, number, bytes, &rows)?)
        },
        asked: |item: &Item| -> (&str, Option<&PromptRow>) {
            (&item.completion, item.row.as_deref())
        },
        write: |chunk: &mut Chunk, item: Item, mut score: Score| {
            if let Some(why) = &item.unknown {
                score
                    .warnings
                    .push(format!("{why}: no expected answer to compare with"));
            }
            match is_json {
                true => score.write_json(&mut chunk.text).map_err(io::Error::from)?,
                false => chunk.text.extend(table_line(&item, &score).into_bytes()),
            }
            chunk.text.push(b'\n');
            match item.unknown {
                Some(why) => chunk.summary.add_unknown(item.line, why),
                None => chunk.summary.add(&score),
            }
            Ok(())
        },
    };
    let done = score_stream(&scorer, &mut *lines, &work, |chunk: Chunk| {
        if summary.is_empty() && !chunk.summary.is_empty() && !is_json {
            writeln!(
                output,
                "{:>5}  {:<14} {:<10} {:>6}  {:<5}  why",
                "line", "prompt", "tier", "reward", "exact"
            )?;
        }
        summary.join(chunk.summary);
        Ok(output.write_all(&chunk.text)?)
    });
    let written = done.and_then(|()| {
        if !arguments.json {
            summary.write(&mut output)?;
            if scorer.counts_tokens() {
                writeln!(
                    output,
                    "  {:<28} not known of a text: left out of these rewards",
                    "length in tokens"
                )?;
            }
        }
        Ok(output.flush()?)
    });
    match written {
        Err(stopped) => stopped.outcome(),
        Ok(()) if summary.is_empty() => Err(Failure::failed(format!(
            "{label}: no completions; write one JSON object per line, {{\"completion\":\"…\"}}"
        ))),
        Ok(()) if let Some((line, why)) = &summary.first_unknown => Err(Failure::failed(format!(
            "{label} line {line}: {}; {} of no row of {}; correct them, or leave out `prompt_id` and `prompt` to score without an expected answer",
            visible(why),
            match summary.unknown {
                1 => "1 completion is".to_owned(),
                count => format!("{count} completions are"),
            },
            visible(&task.name),
        ))),
        Ok(()) if summary.count == 0 => {
            let completions = crate::format::counted(summary.errors, "completion");
            let why = summary.first_error.as_deref().unwrap_or_default();
            Err(Failure::failed(format!(
                "{label}: the scorer failed on all {completions}: {}; fix it, or the rows it reads",
                visible(why)
            )))
        }
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

/// The lines of the file of completions, and how messages name it.
fn open(task: &Task, file: Option<&str>) -> Result<(String, Lines), Failure> {
    let lines = |reader: Box<dyn BufRead>| -> Lines { Box::new(dataset::append_lines(reader)) };
    match (file, &task.prompts.completions) {
        (Some("-"), _) => Ok((
            "standard input".to_owned(),
            lines(Box::new(BufReader::new(io::stdin()))),
        )),
        (Some(path), _) if Path::new(path).is_dir() => {
            Err(Failure::failed(format!("{path} is a folder; name a file")))
        }
        (Some(path), _) => {
            let file =
                File::open(path).map_err(|error| Failure::failed(format!("{path}: {error}")))?;
            let lines = match Format::from_path(Path::new(path)) {
                Some(Format::Parquet) => {
                    let mut rows = parquet_lines(file, LeftOut::default())
                        .map_err(|problem| Failure::failed(format!("{path}: {problem}")))?;
                    let append = move |text: &mut Vec<u8>| {
                        let row = rows.next()?;
                        Some(row.map(|(number, line)| {
                            text.extend(line);
                            number
                        }))
                    };
                    Box::new(append)
                }
                _ => lines(Box::new(BufReader::with_capacity(1 << 16, file))),
            };
            Ok((path.to_owned(), lines))
        }
        (None, Some(file)) => Ok((task.label(file), lines(task.open(file)?))),
        (None, None) => Err(Failure::usage(format!(
            "{} has no `completions` under [prompts]; give them with --completions FILE",
            task.label("task.toml")
        ))),
    }
}

fn read_item(
    label: &str,
    line: usize,
    text: &[u8],
    rows: &CompletionRows<'_>,
) -> Result<Item, Failure> {
    let failed = |problem| Failure::failed(format!("{label} line {line}: {problem}"));
    let read = CompletionLine::read(text).map_err(failed)?;
    let (row, unknown) = match rows.find(&read) {
        Ok(row) => (row, None),
        Err(NoRow::Unknown(why)) => (None, Some(why)),
        Err(NoRow::Undecided(problem)) => return Err(failed(problem)),
    };
    let CompletionLine {
        completion,
        prompt_id,
        ..
    } = read;
    let prompt_id = prompt_id.or_else(|| row.as_ref().map(|row| row.id.clone()));
    Ok(Item {
        completion,
        prompt_id,
        row,
        line,
        unknown,
    })
}

fn table_line(item: &Item, score: &Score) -> String {
    let exact = score
        .exact
        .map_or("", |exact| if exact { "yes" } else { "no" });
    let id = visible(item.prompt_id.as_deref().unwrap_or(""));
    let line = item.line;
    let prompt = short(&id, 14);
    let tier = score.outcome();
    let reward = score.reward_text();
    format!(
        "{line:>5}  {prompt:<14} {tier:<10} {reward:>6}  {exact:<5}  {}",
        why(score)
    )
    .trim_end()
    .to_owned()
}

/// The first error with its position, else the fields that differ, else the first warning.
pub(super) fn why(score: &Score) -> String {
    let more = |count: usize| {
        if count > 1 {
            format!(" (and {} more)", count - 1)
        } else {
            String::new()
        }
    };
    let why = if let Some(first) = score.errors.first() {
        let whole = if first.instance_path.is_empty() {
            String::new()
        } else {
            format!("{}: ", first.instance_path)
        };
        let passes = if score.tolerant && score.tier != Tier::Valid {
            ", valid after unwrapping"
        } else {
            ""
        };
        format!(
            "{}:{} {whole}{}{passes}{}",
            first.line,
            first.column,
            first.message,
            more(score.errors.len())
        )
    } else {
        let differ: Vec<&str> = score
            .fields
            .iter()
            .flat_map(|fields| fields.iter())
            .filter(|(_, same)| !**same)
            .map(|(name, _)| name)
            .collect();
        let warning = || score.warnings.first().cloned().unwrap_or_default();
        if differ.is_empty() {
            warning()
        } else {
            format!("mismatch: {}", differ.join(", "))
        }
    };
    visible(&why).into_owned()
}

#[derive(Default)]
struct Summary {
    count: usize,
    tiers: BTreeMap<Tier, usize>,
    tolerant: usize,
    compared: usize,
    exact: usize,
    reward: f64,
    /// Those that the scorer failed to score: in no other number.
    errors: usize,
    /// Why the first of them was not scored.
    first_error: Option<String>,
    /// Those of no row: in no other number.
    unknown: usize,
    /// Line and reason of the first of them.
    first_unknown: Option<(usize, String)>,
    failures: BTreeMap<FailureClass, usize>,
}

impl Summary {
    fn is_empty(&self) -> bool {
        self.count + self.errors + self.unknown == 0
    }

    fn add_unknown(&mut self, line: usize, why: String) {
        self.unknown += 1;
        self.first_unknown.get_or_insert((line, why));
    }

    fn add(&mut self, score: &Score) {
        if let Some(class) = score.failure {
            *self.failures.entry(class).or_default() += 1;
        }
        if score.is_error() {
            self.errors += 1;
            self.first_error = self
                .first_error
                .take()
                .or_else(|| score.errors.first().map(|reason| reason.message.clone()));
            return;
        }
        self.count += 1;
        *self.tiers.entry(score.tier).or_default() += 1;
        self.tolerant += usize::from(score.tolerant);
        self.compared += usize::from(score.exact.is_some());
        self.exact += usize::from(score.exact == Some(true));
        self.reward += score.reward;
    }

    /// Adds the summary of later lines.
    fn join(&mut self, later: Self) {
        self.count += later.count;
        self.tolerant += later.tolerant;
        self.compared += later.compared;
        self.exact += later.exact;
        self.reward += later.reward;
        self.errors += later.errors;
        self.unknown += later.unknown;
        self.first_error = self.first_error.take().or(later.first_error);
        self.first_unknown = self.first_unknown.take().or(later.first_unknown);
        for (tier, count) in later.tiers {
            *self.tiers.entry(tier).or_default() += count;
        }
        for (class, count) in later.failures {
            *self.failures.entry(class).or_default() += count;
        }
    }

    fn write(&self, output: &mut impl Write) -> io::Result<()> {
        if self.errors > 0 {
            writeln!(
                output,
                "\n{} not scored: the scorer failed",
                counted(self.errors, "completion")
            )?;
        }
        if self.count == 0 {
            return Ok(());
        }
        let share = |part: usize| format!("{part} ({})", percent(part as f64 / self.count as f64));
        let tier = |tier: Tier| share(self.tiers.get(&tier).copied().unwrap_or(0));
        writeln!(
            output,
            "\n{}, mean reward {:.3}",
            counted(self.count, "completion"),
            self.reward / self.count as f64
        )?;
        for name in Tier::ALL.into_iter().rev() {
            writeln!(output, "  {:<28} {}", name.name(), tier(name))?;
        }
        writeln!(
            output,
            "  {:<28} {}",
            "valid after unwrapping",
            share(self.tolerant)
        )?;
        if self.compared > 0 {
            writeln!(
                output,
                "  {:<28} {} of {} with an expected answer",
                "exact match", self.exact, self.compared
            )?;
        }
        let failures: Vec<String> = self
            .failures
            .iter()
            .map(|(class, count)| format!("{} {count}", class.name()))
            .collect();
        if !failures.is_empty() {
            writeln!(output, "  {:<28} {}", "failures", failures.join(", "))?;
        }
        Ok(())
    }
}

fn short(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        text.to_owned()
    } else {
        format!("{}…", text.chars().take(length - 1).collect::<String>())
    }
}
