//! `runs list`: one line per run or group of runs, filtered by a condition, with chosen columns.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::ask_about;
use super::{Failure, Outcome, print, print_json_lines};
use crate::format::counted;
use crate::report::{
    MeanStd, Report, RunGroup, RunRow, csv_line, field_text, group_labels, group_runs,
    mistyped_value, number_text, order, text_table, unknown_field, wrong_grouping,
};
use crate::run::{Field, Query, RunFolders};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Filter by run fields, config.KEY and metrics, such as `valid>0.9 and task:invoice`; operators: >= <= != > < = :,
    /// and, or, not, has:NAME
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Sort by a field, config.KEY or the last value of a metric, and show it
    #[arg(long, value_name = "NAME")]
    sort: Option<String>,
    /// Sort in descending order; runs without a value come last
    #[arg(long)]
    descending: bool,
    /// Columns: fields, config.KEY, metrics, and ema:METRIC for a moving average, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Vec<String>,
    /// Group by task, tags, config.KEY, or setup (runs that differ in their seed only): mean and std over runs
    #[arg(long, value_name = "NAME")]
    group_by: Option<String>,
    /// Use smoothed metrics (EMA over about 10 steps)
    #[arg(long)]
    smoothed: bool,
    /// Print CSV with the columns
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print one JSON object per run, or per group
    #[arg(long)]
    json: bool,
}

/// The columns of a group without `--columns`, after its size.
const GROUP_COLUMNS: [&str; 5] = ["base_valid", "valid", "base_exact", "exact", "reward"];

pub(super) fn run(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    let query = arguments
        .condition
        .as_deref()
        .map(Query::parse)
        .transpose()
        .map_err(|error| Failure::usage(error.to_string()))?;
    ask_about(run_folders.folders());
    let (mut seen, mut unreadable) = (Vec::new(), Vec::new());
    for (path, run) in run_folders.list() {
        match run.and_then(Report::read) {
            Ok(run) => {
                seen.push(RunRow::from_report(&run));
            }
            Err(error) => unreadable.push((path, error.to_string())),
        }
    }
    if seen.is_empty() && unreadable.is_empty() && !arguments.json && !arguments.csv {
        return print(&format!(
            "no runs in {}: start one with `grpo-tui train TASK`\n",
            run_folders.described()
        ));
    }
    let columns = arguments.columns.iter().map(String::as_str);
    let named: Vec<&str> = query
        .iter()
        .flat_map(Query::fields)
        .chain(arguments.sort.as_deref())
        .chain(columns)
        .collect();
    if !seen.is_empty() {
        let unknown = named
            .iter()
            .find_map(|name| unknown_field(name, seen.iter(), arguments.smoothed));
        let grouping = arguments
            .group_by
            .as_deref()
            .and_then(|by| wrong_grouping(by, seen.iter()));
        let mistyped = query
            .as_ref()
            .and_then(|query| mistyped_value(query, seen.iter()));
        unknown
            .or(mistyped)
            .or(grouping)
            .map_or(Ok(()), |message| Err(Failure::usage(message)))?;
    }
    let all = seen.len();
    let table = Table {
        arguments,
        all: seen,
    };
    let mut rows: Vec<&RunRow> = table
        .all
        .iter()
        .filter(|run| {
            query
                .as_ref()
                .is_none_or(|query| query.matches(&|name| run.field(name, arguments.smoothed)))
        })
        .collect();
    if let Some(name) = &arguments.sort {
        rows.sort_by(|a, b| {
            order(
                a.field(name, arguments.smoothed),
                b.field(name, arguments.smoothed),
                arguments.descending,
            )
        });
    }
    let groups = arguments
        .group_by
        .as_deref()
        .map(|by| group_runs(rows.iter().copied(), by));
    if arguments.json {
        let unreadable = unreadable
            .iter()
            .map(|(path, message)| json!({"id": id(path), "path": path, "error": message}));
        return print_json_lines(
            unreadable
                .chain(table.documents(&rows, groups.as_deref()))
                .collect(),
        );
    }
    let cells = match &groups {
        Some(groups) => table.group_rows(groups),
        None => table.rows(&rows),
    };
    if arguments.csv {
        return print(
            &cells
                .iter()
                .map(|cells| csv_line(cells))
                .collect::<String>(),
        );
    }
    let align = match groups {
        Some(_) => "lr".to_owned(),
        None => table
            .columns(&rows)
            .iter()
            .map(|name| if is_text(name) { 'l' } else { 'r' })
            .collect(),
    };
    let mut text = text_table(&cells, &align);
    if groups.is_some() {
        text.push_str("mean ± std over runs (sample std, n - 1); n where not all runs of a group have a value\n");
    }
    for (path, message) in &unreadable {
        let _ = writeln!(
            text,
            "{} is unreadable: {}",
            visible(&id(path)),
            visible(message)
        );
    }
    let damaged = rows.iter().filter(|run| !run.warnings.is_empty());
    for run in damaged {
        let (id, count) = (visible(run.directory.id()), run.warnings.len());
        let _ = writeln!(
            text,
            "{id} is damaged: {}; `grpo-tui runs check {id}` lists what is lost",
            counted(count, "problem")
        );
    }
    if rows.len() < all {
        let _ = writeln!(text, "{} of {all} runs", rows.len());
    }
    print(&text)
}

fn id(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn value(field: &Field) -> Value {
    match field {
        Field::Text(text) => json!(text),
        Field::Number(number) => json!(number),
    }
}

fn is_text(name: &str) -> bool {
    let texts = [
        "id",
        "run",
        "name",
        "task",
        "job",
        "status",
        "model",
        "base_model",
        "host",
        "created",
        "tags",
    ];
    texts.contains(&name) || ["of", "outcome", "set", "alerts", "setup", "nodes"].contains(&name)
}

struct Table<'a> {
    arguments: &'a Arguments,
    /// Also runs that the condition leaves out.
    all: Vec<RunRow>,
}

impl Table<'_> {
    /// As chosen; else the usual ones, with those of names, alerts, tags and notes where a run has any.
    fn columns(&self, rows: &[&RunRow]) -> Vec<String> {
        let sort = self.arguments.sort.iter().cloned();
        let mut columns = self.arguments.columns.clone();
        if columns.is_empty() {
            let usual =
                ["run", "status", "step", "valid", "exact", "outcome", "of"].map(str::to_owned);
            let any = |name: &&str| {
                rows.iter().any(|run| {
                    !run.field(name, false)
                        .is_none_or(|value| is_nothing(&value))
                })
            };
            let more = ["alerts", "tags", "name", "model", "slurm_job", "nodes"]
                .into_iter()
                .filter(any)
                .map(str::to_owned);
            columns = usual.into_iter().chain(sort.clone()).chain(more).collect();
        } else {
            columns.extend(sort);
        }
        // The sorted field may be among them; an id is what `run` shows.
        let mut seen = std::collections::BTreeSet::new();
        seen.extend(self.arguments.columns.is_empty().then(|| "id".to_owned()));
        columns.retain(|name| seen.insert(name.clone()));
        columns
    }

    fn rows(&self, rows: &[&RunRow]) -> Vec<Vec<String>> {
        let columns = self.columns(rows);
        let title = |name: &String| match name.as_str() {
            "outcome" => "vs base".to_owned(),
            name => name.rsplit('/').next().unwrap_or(name).to_owned(),
        };
        let titles = columns
            .iter()
            .map(if self.arguments.csv {
                String::clone
            } else {
                title
            })
            .collect();
        let cells = rows
            .iter()
            .map(|run| columns.iter().map(|name| self.cell(run, name)).collect());
        std::iter::once(titles).chain(cells).collect()
    }

    fn cell(&self, run: &RunRow, name: &str) -> String {
        let field = run.field(name, self.arguments.smoothed);
        if self.arguments.csv {
            return field.map_or_else(String::new, |field| field.to_string());
        }
        match (name, field) {
            ("status", _) => self.status(run),
            (_, Some(field)) => field_text(name, &field),
            // There are none.
            ("tags" | "alerts", None) => "-".to_owned(),
            (_, None) => "n/a".to_owned(),
        }
    }

    /// The status, what a waiting run waits for, and whether files are damaged.
    fn status(&self, run: &RunRow) -> String {
        let waits = match (run.slurm_reason(), run.holder(self.all.iter())) {
            (Some(reason), _) => format!(" ({reason})"),
            (None, Some(holder)) => {
                format!(" for {}", crate::format::short_id(holder.directory.id()))
            }
            (None, None) => String::new(),
        };
        let pause = if run.pauses_later {
            ", pause requested"
        } else {
            ""
        };
        let damage = if run.warnings.is_empty() {
            ""
        } else {
            ", damaged"
        };
        format!("{}{waits}{pause}{damage}", run.status.name())
    }

    fn group_columns(&self) -> Vec<String> {
        let given = &self.arguments.columns;
        if given.is_empty() {
            GROUP_COLUMNS.map(str::to_owned).to_vec()
        } else {
            given.clone()
        }
    }

    fn group_rows(&self, groups: &[RunGroup<'_>]) -> Vec<Vec<String>> {
        let columns = self.group_columns();
        let by = self.arguments.group_by.clone().unwrap_or_default();
        let labels = group_labels(groups, &by);
        let titles = [by, "n".to_owned()]
            .into_iter()
            .chain(columns.iter().cloned())
            .collect();
        let cells = groups.iter().zip(labels).map(|(group, label)| {
            let means = columns.iter().map(|name| {
                let found = group.mean(name, self.arguments.smoothed);
                found.map_or_else(
                    || "n/a".to_owned(),
                    |found| mean_std_text(name, &found, group.runs.len()),
                )
            });
            [label, group.runs.len().to_string()]
                .into_iter()
                .chain(means)
                .collect()
        });
        std::iter::once(titles).chain(cells).collect()
    }

    fn documents(&self, rows: &[&RunRow], groups: Option<&[RunGroup<'_>]>) -> Vec<Value> {
        let Arguments {
            sort,
            group_by,
            smoothed,
            columns,
            ..
        } = self.arguments;
        if let (Some(groups), Some(by)) = (groups, group_by) {
            return groups
                .iter()
                .map(|group| group.document(by, &self.group_columns(), *smoothed))
                .collect();
        }
        let of = |run: &RunRow, name: &String| {
            (
                name.clone(),
                run.field(name, *smoothed)
                    .map_or(Value::Null, |field| value(&field)),
            )
        };
        let document = |run: &&RunRow| {
            let mut row = run.document();
            if let Some(name) = sort {
                row["sorted_by"] = Value::Object([of(run, name)].into_iter().collect());
            }
            if !columns.is_empty() {
                row["columns"] = Value::Object(columns.iter().map(|name| of(run, name)).collect());
            }
            if let Some(holder) = run.holder(self.all.iter()) {
                row["waits_for"] = json!(holder.directory.id());
            }
            row
        };
        rows.iter().map(document).collect()
    }
}

fn is_nothing(value: &Field) -> bool {
    matches!(value, Field::Text(text) if text.is_empty())
}

/// `98.2% ± 0.6%`, with n where it is not that of the group.
fn mean_std_text(name: &str, found: &MeanStd, runs: usize) -> String {
    let std = found
        .std
        .map_or_else(|| "n/a".to_owned(), |std| number_text(name, std));
    let n = if found.n == runs {
        String::new()
    } else {
        format!(" (n = {})", found.n)
    };
    format!("{} ± {std}{n}", number_text(name, found.mean))
}
