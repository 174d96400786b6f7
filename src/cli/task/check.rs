//! `grpo-tui task check`: reads the whole task and lists every problem.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::super::{Failure, Outcome, print, print_json};
use super::Choice;
use crate::config::Assignments;
use crate::dataset::{self, DatasetError, NumberedLine, PromptRow, has_path};
use crate::environment::{Agent, FunctionCheck, FunctionFinding, Toolset, check_tools};
use crate::format::{counted, shortened};
use crate::hub::find_model;
use crate::page::text::render;
use crate::page::{Block, Cell, Level, Row, Table};
use crate::prompts::{
    CheckedSet, CompletionLine, CompletionRows, DataProblemKind, MAX_TRIED, NamedIds, NoRow,
    SearchedRows, TriedAnswers, data_problems, search_rows, similar_prompts,
};
use crate::score::{PartValue, RewardPart, Scorer, Task};
use crate::task::{ALL_FIELDS, PromptSet, TASK_FILE};
use crate::text::Tokenizer;

/// Maximum malformed lines listed per file.
const MAX_LINES: usize = 100;
/// Rows named without calls.
const MAX_NAMED_ROWS: usize = 8;
/// Characters shown of a tool's result.
const MAX_REPLY_CHARS: usize = 80;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    choice: Choice,
    /// Check tools against this model's chat template
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
}

/// Problems and warnings of a task.
#[derive(Default)]
struct TaskFindings {
    problems: Vec<String>,
    warnings: Vec<String>,
    /// The task's tools.
    functions: Vec<FunctionCheck>,
    /// How many training rows search finds calls for, if the task's are searched.
    search: Option<SearchCounts>,
}

impl TaskFindings {
    /// Adds the malformed lines of a file, up to the limit.
    fn add_lines(&mut self, label: &str, lines: Vec<String>) {
        let more = lines.len().saturating_sub(MAX_LINES);
        self.problems.extend(lines.into_iter().take(MAX_LINES));
        if more > 0 {
            self.problems
                .push(format!("{label}: {} more", counted(more, "malformed line")));
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let (choice, model) = (&arguments.choice, arguments.model.as_deref());
    let task = Task::resolve(&choice.task)?;
    let scorer = Scorer::new(&task)?;
    let mut found = TaskFindings::default();
    let unchecked = |format: String| {
        let label = task.label(&task.definition_file);
        format!(
            "{label}: format {format:?} is not checked: the validator does not know it in this draft; describe it with `pattern`"
        )
    };
    found.warnings.extend(
        scorer
            .unknown_formats()
            .filter(|_| task.score.assert_formats)
            .map(unchecked),
    );
    found.warnings.extend(template_warnings(&task, model)?);
    found.problems.extend(scorer.load_judges().err());
    let toml = String::from_utf8_lossy(&task.read(TASK_FILE)?).into_owned();
    let problems = Assignments::from_task(&task.label(TASK_FILE), &toml)?.problems();
    found
        .problems
        .extend(problems.iter().map(ToString::to_string));
    let completions = read_completions(&task);
    let read = completions.as_ref().and_then(|read| read.as_ref().ok());
    let lines = read.into_iter().flatten();
    let named = NamedIds::new(lines.filter_map(|(_, line)| line.as_ref().ok()));
    let mut named_rows = Vec::new();
    let loaded = load_sets(&task, &scorer, &mut found, &mut |set, row| {
        named_rows.extend(named.has(row).then(|| (set, row.clone())));
    });
    check_paths(&task, &loaded, &mut found);
    check_absent(&task, &mut found);
    if let Some(tools) = task.toolset() {
        check_toolset(&task, tools, &loaded, &mut found);
        if !found.functions.is_empty() {
            check_search(&task, &scorer, &loaded, &mut found);
        }
    }
    found.problems.extend(
        task.agent()
            .and_then(|agent| agent.check().err())
            .map(|error| error.to_string()),
    );
    let tools = task.toolset().map(Toolset::programs);
    let programs = tools
        .into_iter()
        .chain(task.agent().map(Agent::programs))
        .flatten()
        .flatten();
    let notes = programs.filter_map(|program| program.bytecode_note());
    found.warnings.extend(notes);
    for problem in data_problems(&task, &scorer, &loaded) {
        let list = match problem.kind {
            DataProblemKind::Label | DataProblemKind::Undetermined => &mut found.warnings,
            _ => &mut found.problems,
        };
        list.push(problem.message);
    }
    found.problems.extend(scorer_fault(&scorer, &loaded));
    // A set that cannot be opened is already a problem.
    for problem in similar_prompts(&task).unwrap_or_default() {
        let list = match problem.kind {
            DataProblemKind::Conflict => &mut found.problems,
            _ => &mut found.warnings,
        };
        list.push(problem.message);
    }
    let changed = loaded.iter().filter(|set| !set.has_last_row());
    found.problems.extend(changed.map(|set| {
        let label = task.label(task.set_file(set.set).unwrap_or_default());
        format!("{label}: the file changed during the check: run the check again")
    }));
    let checked = model.map_or_else(|| task.base_model(), str::to_owned);
    found.warnings.extend(task.embedded_model_note(&checked));
    let mut malformed = Vec::new();
    let guard = dataset::guard_rows_with(&task, &mut |error| {
        malformed.push(error.to_string());
        Ok(())
    });
    let guard = guard.unwrap_or_else(|error| {
        found.problems.push(error.to_string());
        Vec::new()
    });
    found.add_lines(
        &task
            .prompts
            .guard
            .as_ref()
            .map_or_else(String::new, |file| task.label(file)),
        malformed,
    );
    let counts = |loaded: &CheckedSet<'_>| {
        let rows = loaded.rows();
        SetCounts {
            set: loaded.set,
            rows: rows.len(),
            expected: rows.iter().filter(|row| row.has_expected).count(),
            proposed: rows.iter().filter(|row| row.is_proposed).count(),
            demonstrations: rows.iter().filter(|row| row.has_demonstration).count(),
        }
    };
    let sets: Vec<_> = loaded.iter().map(counts).collect();
    match completions {
        Some(Ok(lines)) => check_completions(&task, lines, named_rows, &mut found),
        Some(Err(problem)) => found.problems.push(problem),
        None => {}
    }
    if choice.json {
        print_document(&task, &sets, guard.len(), &found)?;
    } else {
        print(&render(&page(&task, &sets, guard.len(), &found)))?;
    }
    match found.problems.len() {
        0 => Ok(ExitCode::SUCCESS),
        1 => Err(Failure::failed("the task has a problem")),
        count => Err(Failure::failed(format!("the task has {count} problems"))),
    }
}

/// Why the task's program cannot score: tries it on an empty answer to the first row, of which the
/// end alone was sampled.
fn scorer_fault(scorer: &Scorer, loaded: &[CheckedSet<'_>]) -> Option<String> {
    if !scorer.runs_programs() || scorer.asks_judge() {
        return None;
    }
    let first = |set: &CheckedSet<'_>| set.read(set.rows().get(..1)?).pop();
    let row = loaded.iter().find_map(first)?;
    let scores = scorer.score_sampled(&[("", Some(&row), &[0])], || true);
    let score = scores?.pop()?;
    let why = score.errors.first().filter(|_| score.is_error())?;
    Some(format!(
        "the scorer fails on an empty answer to `{}`: {}",
        row.id, why.message
    ))
}

/// The rows of each set named by the task, without malformed lines.
fn load_sets<'t>(
    task: &'t Task,
    scorer: &'t Scorer,
    found: &mut TaskFindings,
    visit: &mut dyn FnMut(PromptSet, &PromptRow),
) -> Vec<CheckedSet<'t>> {
    let mut loaded = Vec::new();
    for set in PromptSet::ALL {
        let missing = |why: &str| {
            format!(
                "{}: no `{}` under [prompts]: {why}",
                task.label(TASK_FILE),
                set.name()
            )
        };
        let Some(file) = task.set_file(set) else {
            match set {
                // A benchmark may have only a test set.
                PromptSet::Train
                    if task.set_file(PromptSet::Test).is_some()
                        && task.set_file(PromptSet::Eval).is_none() =>
                {
                    found.warnings.push(missing("the task serves evals alone"));
                }
                PromptSet::Eval if task.set_file(PromptSet::Train).is_none() => {}
                PromptSet::Train => found.problems.push(missing("training needs it")),
                PromptSet::Eval => found.warnings.push(missing(
                    "the last checkpoint becomes the result, and stop_when has no set",
                )),
                PromptSet::Test if task.prompts.test.is_some() => {} // hidden
                PromptSet::Test => found.warnings.push(missing("no held-out result")),
            }
            continue;
        };
        let mut malformed = Vec::new();
        let mut add = |error: DatasetError| {
            malformed.push(error.to_string());
            Ok(())
        };
        let rows = CheckedSet::load_with(task, scorer, set, &mut add, &mut |row| visit(set, row));
        found.add_lines(&task.label(file), malformed);
        match rows {
            Ok(rows) => loaded.push(rows),
            Err(error) => found.problems.push(error.to_string()),
        }
    }
    loaded
}

/// What `[score] absent` needs to have an effect.
fn check_absent(task: &Task, found: &mut TaskFindings) {
    if task.score.leaves.absent.is_empty() {
        return;
    }
    let label = task.label(TASK_FILE);
    let counts = |part: &RewardPart| matches!(part.value, PartValue::Fields) && part.weight > 0.0;
    if !task.rewards.iter().any(counts) {
        found.warnings.push(format!(
            "{label}: `score.absent` has no effect: it changes what a [[reward]] with part = \"fields\" counts"
        ));
    }
}

/// Opens the tools for every row, calls each function twice, and requests the scored state.
fn check_toolset(
    task: &Task,
    tools: &Toolset,
    loaded: &[CheckedSet<'_>],
    found: &mut TaskFindings,
) {
    let rows = || loaded.iter().flat_map(CheckedSet::read_all);
    let checks = match check_tools(tools, rows()) {
        Ok(checks) => checks,
        Err(error) => {
            found.problems.push(error.to_string());
            return;
        }
    };
    for FunctionCheck { function, finding } in &checks {
        match finding {
            FunctionFinding::Answered(_) | FunctionFinding::NotCalled => {}
            FunctionFinding::Failed(why) => found
                .problems
                .push(format!("the function {function:?}: {why}")),
            FunctionFinding::Differs(replies) => {
                let [first, second] = replies
                    .each_ref()
                    .map(|reply| shortened(&reply.text, MAX_REPLY_CHARS));
                found.problems.push(format!(
                    "the function {function:?} answers the same call about the same row differently: {first:?}, then {second:?}; a run could not be resumed exactly"
                ));
            }
        }
    }
    let open = |(index, row): (usize, PromptRow)| {
        let mut environment = tools.open(&row)?;
        // Otherwise a program would be started for each row.
        let mut asked = task
            .state_queries()
            .filter(|_| index == 0 && !tools.is_replayed());
        asked.try_for_each(|(_, query)| environment.state(query).map(drop))
    };
    let wrong = rows()
        .enumerate()
        .filter_map(|row| open(row).err())
        .map(|error| error.to_string());
    found.add_lines("tools", wrong.collect());
    found.functions = checks;
}

/// Searches the calls of some training rows; rows without are warnings.
fn check_search(task: &Task, scorer: &Scorer, loaded: &[CheckedSet<'_>], found: &mut TaskFindings) {
    let train = loaded.iter().find(|set| set.set == PromptSet::Train);
    let searched = train.and_then(|rows| search_rows(task, scorer, rows));
    let Some(searched) = searched else { return };
    let label = task.label(task.set_file(PromptSet::Train).unwrap_or_default());
    for (row, why) in searched.without.iter().take(MAX_NAMED_ROWS) {
        found.warnings.push(format!(
            "{label} line {} ({}): no calls found: {why}; a `demonstration` of the row would guide it",
            row.line, row.id
        ));
    }
    found.search = Some(SearchCounts::new(&searched));
}

/// Lines of a file of completions with their numbers, or what is wrong with them.
type NumberedCompletions = Vec<(usize, Result<CompletionLine, String>)>;

/// The lines of the sample completions, or why there are none; `None` if the task has no file of them.
fn read_completions(task: &Task) -> Option<Result<NumberedCompletions, String>> {
    let read = |line: NumberedLine| match line {
        Ok((number, text)) => {
            let line = CompletionLine::read(&text);
            let without_text = |line| CompletionLine {
                completion: String::new(),
                ..line
            };
            (number, line.map(without_text))
        }
        Err((number, problem)) => (number, Err(problem)),
    };
    let reader = task.open(task.prompts.completions.as_ref()?);
    let lines = reader.map(|reader| dataset::read_lines(reader).map(read).collect());
    Some(lines.map_err(|error| error.to_string()))
}

/// Finds the rows of the sample completions, which are among `rows`.
fn check_completions(
    task: &Task,
    lines: NumberedCompletions,
    rows: Vec<(PromptSet, PromptRow)>,
    found: &mut TaskFindings,
) {
    let label = task.label(task.prompts.completions.as_deref().unwrap_or_default());
    let rows = CompletionRows::of_rows(task, rows);
    let (mut malformed, mut unknown) = (Vec::new(), Vec::new());
    for (number, line) in lines {
        let row = line.map(|line| rows.find(&line));
        match row {
            Err(problem) | Ok(Err(NoRow::Undecided(problem))) => {
                malformed.push(format!("{label} line {number}: {problem}"));
            }
            Ok(Err(NoRow::Unknown(problem))) => unknown.push((number, problem)),
            Ok(Ok(_)) => {}
        }
    }
    found.add_lines(&label, malformed);
    if let Some((number, problem)) = unknown.first() {
        found.warnings.push(format!(
            "{label}: {} of no row; first: line {number}: {problem}",
            counted(unknown.len(), "completion")
        ));
    }
}

struct SetCounts {
    set: PromptSet,
    rows: usize,
    /// Rows with an expected answer.
    expected: usize,
    /// Of these, rows whose expected answer no person wrote.
    proposed: usize,
    /// Rows with a demonstration.
    demonstrations: usize,
}

#[derive(Clone, Copy, serde::Serialize)]
struct SearchCounts {
    /// Training rows without a demonstration.
    rows: usize,
    tried: usize,
    found: usize,
    fewest_calls: usize,
    most_calls: usize,
    most_tried_calls: usize,
}

impl SearchCounts {
    fn new(searched: &SearchedRows) -> Self {
        let calls = || searched.calls.iter().copied();
        Self {
            rows: searched.all,
            tried: searched.calls.len() + searched.without.len(),
            found: searched.calls.len(),
            fewest_calls: calls().min().unwrap_or(0),
            most_calls: calls().max().unwrap_or(0),
            most_tried_calls: MAX_TRIED,
        }
    }

    /// `calls that reach `expected`: found for 30 of 32 rows (of 200), 2 to 8 calls each`
    fn line(&self) -> String {
        let Self {
            rows,
            tried,
            found,
            fewest_calls,
            most_calls,
            most_tried_calls,
        } = *self;
        let of = match tried < rows {
            true => format!(" (of {rows} without a demonstration)"),
            false => String::new(),
        };
        let calls = match found {
            0 => String::new(),
            _ if fewest_calls == most_calls => format!(", {} each", counted(most_calls, "call")),
            _ => format!(", {fewest_calls} to {most_calls} calls each"),
        };
        format!(
            "train: search finds calls that reach `expected` for {found} of {}{of}{calls}; at most {most_tried_calls} tried for a row",
            counted(tried, "row")
        )
    }
}

fn print_document(
    task: &Task,
    sets: &[SetCounts],
    guard: usize,
    found: &TaskFindings,
) -> Result<(), Failure> {
    let sets: serde_json::Map<_, _> = sets
        .iter()
        .map(|counts| {
            (
                counts.set.name().to_owned(),
                json!({"rows": counts.rows, "expected": counts.expected, "proposed": counts.proposed, "demonstrations": counts.demonstrations}),
            )
        })
        .collect();
    let TaskFindings {
        problems,
        warnings,
        functions,
        search,
    } = found;
    let document = json!({
        "task": task.name,
        "ok": problems.is_empty(),
        "problems": problems,
        "warnings": warnings,
        "functions": functions,
        "search": search,
        "sets": sets,
        "guard": guard,
        "digest": task.digest(),
    });
    print_json(document).map(|_| ())
}

fn page(task: &Task, sets: &[SetCounts], guard: usize, found: &TaskFindings) -> Vec<Block> {
    let title = match task.title == task.name {
        true => task.name.clone(),
        false => format!("{}: {}", task.name, task.title),
    };
    let kind = task.schema().map_or(task.kind(), |_| "schema");
    let definition = format!("{kind} {} ok", task.definition_file);
    let guard = (guard > 0).then(|| counted(guard, "guard prompt") + " against forgetting");
    let set = |counts: &SetCounts| {
        let numbers = [
            counts.rows,
            counts.expected,
            counts.proposed,
            counts.demonstrations,
        ];
        Row::new(counts.set.name(), numbers.map(Cell::Count))
    };
    let head = [
        "set",
        "rows",
        "expected answers",
        "of these proposed",
        "demonstrations",
    ];
    let sets_table = Table::new(&head, "lr", sets.iter().map(set).collect());
    let tried = sets.iter().filter_map(|counts| {
        let tried = TriedAnswers::of(task, counts.rows)?;
        Some(Block::detail(format!(
            "{}: {} tried, on {} of {}",
            counts.set.name(),
            counted(tried.answers, "degenerate answer"),
            tried.rows,
            counted(tried.all_rows, "row")
        )))
    });
    let function = |FunctionCheck { function, finding }: &FunctionCheck| {
        let cells = match finding {
            FunctionFinding::NotCalled => vec![Cell::Unknown("no row has a call of it")],
            FunctionFinding::Answered(reply) => vec![
                "same answer".into(),
                Cell::Seconds(reply.seconds),
                shortened(reply.text.trim_end(), MAX_REPLY_CHARS).into(),
            ],
            FunctionFinding::Differs(_) => vec!["other answers".into()],
            FunctionFinding::Failed(_) => vec!["fails".into()],
        };
        Row::new(function, cells)
    };
    let head = ["function", "called twice", "time", "reply"];
    let functions: Vec<Row> = found.functions.iter().map(function).collect();
    let functions = (!functions.is_empty()).then(|| Table::new(&head, "llrl", functions));
    let finding = |level| move |text: &String| Block::Finding(level, text.clone());
    [Block::heading(title), Block::detail(definition)]
        .into_iter()
        .chain([Block::Table(sets_table)])
        .chain(guard.map(Block::detail))
        .chain(tried)
        .chain(functions.map(Block::Table))
        .chain(found.search.map(|search| Block::detail(search.line())))
        .chain(found.warnings.iter().map(finding(Level::Warning)))
        .chain(found.problems.iter().map(finding(Level::Error)))
        .collect()
}

/// Warns if the model's template writes the time, lacks tools, or writes calls in another format.
fn template_warnings(task: &Task, model: Option<&str>) -> Result<Vec<String>, Failure> {
    let has_calls = task.calls_functions() || task.toolset().is_some();
    let Some(model) = model else {
        return Ok(Vec::new());
    };
    let tokenizer = Tokenizer::load(&find_model(model)?)?;
    let clock = tokenizer.clock_note(model);
    if !has_calls {
        return Ok(clock.into_iter().collect());
    }
    let as_text = format!(
        "the chat template of {model} does not support tools: they go into the system message, calls and results into the text of their turns"
    );
    let own = tokenizer.call_format().name;
    let other = task.call_format().filter(|named| *named != own).map(|named| {
        format!("call_format = {named:?}, but the chat template of {model} writes calls as {own:?}: remove the key, or use a model of that format")
    });
    let prose = (task.takes_prose() && !tokenizer.writes_prose_before_calls()).then(|| {
        format!(
            "prose = \"allow\", but the chat template of {model} writes no text before calls, so there it is refused"
        )
    });
    Ok((!tokenizer.takes_tools())
        .then_some(as_text)
        .into_iter()
        .chain(other)
        .chain(prose)
        .chain(clock)
        .collect())
}

/// Paths of rules that are values of no row, which are warnings, and of no schema, problems.
fn check_paths(task: &Task, loaded: &[CheckedSet<'_>], found: &mut TaskFindings) {
    let Some(schema) = task.schema().filter(|_| !task.calls_functions()) else {
        return;
    };
    let properties = schema.get("properties").and_then(Value::as_object);
    let normalised = task.score.normalise.keys().cloned();
    let mut paths: Vec<_> = normalised
        .map(|path| ("normalise", path))
        .chain(task.score.leaves.paths())
        .filter(|(_, path)| path != ALL_FIELDS)
        .collect();
    let mut rows = loaded.iter().flat_map(CheckedSet::read_all);
    while !paths.is_empty()
        && let Some(row) = rows.next()
    {
        let is_value = |path: &str| {
            let expected = row.expected.as_ref();
            expected.is_some_and(|expected| has_path(expected, path))
        };
        paths.retain(|(_, path)| !is_value(path));
    }
    let has_expected = loaded
        .iter()
        .any(|set| set.rows().iter().any(|row| row.has_expected));
    let label = task.label(TASK_FILE);
    for (key, path) in paths {
        let field = path.split('.').next().unwrap_or_default();
        let is_property =
            |names: &Map<String, Value>| names.contains_key(field) || names.contains_key(&path);
        match properties {
            Some(names) if !is_property(names) => found.problems.push(format!(
                "{label}: `score.{key}`: {path} is not a property of the schema (it has {})",
                names.keys().cloned().collect::<Vec<_>>().join(", ")
            )),
            _ if !has_expected => {}
            _ => found.warnings.push(format!(
                "{label}: `score.{key}`: no row expects a value at {path}, so the rule does nothing"
            )),
        }
    }
}
