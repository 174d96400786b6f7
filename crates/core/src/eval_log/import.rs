//! Samples of logs as records of an eval: their prompts, which become the task's or are matched to
//! it, and their scores, of which one decides.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::detect_format::read;
use super::sample::{EvalLogError, LogHeader, LogOptions, NamedScore, Sample, fail};
use super::score_value;
use crate::dataset::PromptRow;
use crate::exact_json;
use crate::facts::Tier;
use crate::format::{amount, counted, did_you_mean, hex, shortened};
use crate::run::EvalRecord;
use crate::score::{FailureClass, OrderedMap, Reason, Score};
use crate::task::TASK_FILE;
use crate::text::Message;

/// Of a hash, in the id of a prompt without one.
const ID_LETTERS: usize = 12;
const MAX_MESSAGE_CHARS: usize = 300;
/// Shorter ones are in many texts by chance.
const MIN_QUESTION_BYTES: usize = 20;
/// Of samples in a sentence.
const MAX_PLACES: usize = 3;

/// Reads logs into records that share their prompts.
#[derive(Debug)]
pub struct Importer {
    options: LogOptions,
    prompts: Prompts,
}

/// What a log gives.
#[derive(Debug)]
pub struct ImportedLog {
    pub header: LogHeader,
    /// At least one.
    pub targets: Vec<ImportedTarget>,
    /// How the log was understood, and what of it was not read, a sentence each.
    pub notes: Vec<String>,
    /// Samples that cannot be read: place and problem.
    pub problems: Vec<(String, String)>,
}

/// The completions of one model.
#[derive(Debug)]
pub struct ImportedTarget {
    pub name: String,
    pub records: Vec<EvalRecord>,
    /// What decided: `match >= 1`; empty if nothing did.
    pub scored_by: String,
}

#[derive(Debug)]
enum Prompts {
    Inferred(Inferred),
    /// Rows of a task by the key of their prompt.
    OfTask(HashMap<String, Vec<PromptRow>>),
}

#[derive(Debug, Default)]
struct Inferred {
    rows: Vec<InferredRow>,
    /// Rows by the digest of id and prompt; several if their expected answers differ.
    by_prompt: HashMap<[u8; 32], Vec<usize>>,
    ids: HashMap<String, usize>,
}

#[derive(Debug)]
struct InferredRow {
    id: String,
    messages: Vec<Message>,
    expected: Option<Value>,
    tags: Vec<String>,
}

/// Where a sample belongs.
struct Place {
    /// Of its row.
    id: String,
    is_expected: bool,
    /// Whether its own id is that of another prompt.
    is_variant: bool,
}

impl Importer {
    pub fn new(options: LogOptions) -> Self {
        Self {
            options,
            prompts: Prompts::Inferred(Inferred::default()),
        }
    }

    /// Matches samples by prompt to the rows of a task's set.
    pub fn for_task(options: LogOptions, rows: &[PromptRow]) -> Self {
        let mut by_prompt: HashMap<String, Vec<PromptRow>> = HashMap::new();
        for row in rows {
            by_prompt
                .entry(key(&row.messages, false))
                .or_default()
                .push(row.clone());
        }
        Self {
            options,
            prompts: Prompts::OfTask(by_prompt),
        }
    }

    /// Reads one log. `decides`: whether its scores count, or a task's scorer will.
    ///
    /// # Errors
    /// A file that is not a log, or without anything to import; a score that it does not have.
    pub fn add(&mut self, path: &Path, decides: bool) -> Result<ImportedLog, EvalLogError> {
        let mut gathered = Gathered::default();
        let (options, prompts) = (&self.options, &mut self.prompts);
        let header = read(path, options, &mut |sample| match sample {
            Ok(sample) => gathered.add(sample, prompts, options),
            Err(problem) => gathered.problems.push(problem),
        })?;
        gathered.finish(path, header, options, decides)
    }

    /// The rows of an inferred task as JSONL, in the order of the logs.
    pub fn rows(&self) -> String {
        let Prompts::Inferred(inferred) = &self.prompts else {
            return String::new();
        };
        inferred.rows.iter().map(InferredRow::line).collect()
    }
}

impl InferredRow {
    fn line(&self) -> String {
        let mut row = Map::new();
        row.insert("id".to_owned(), self.id.as_str().into());
        row.insert("messages".to_owned(), json!(self.messages));
        row.extend(
            self.expected
                .clone()
                .map(|value| ("expected".into(), value)),
        );
        if !self.tags.is_empty() {
            row.insert("tags".to_owned(), json!(self.tags));
        }
        exact_json::write(&row) + "\n"
    }
}

/// The name and the files of a task whose rows are a log's; scored anew, an answer is right if it equals
/// `expected`.
pub fn inferred_task(name: &str, rows: &str) -> (String, Vec<(String, Vec<u8>)>) {
    let fits = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() || "-_.".contains(letter) => letter,
        _ => '-',
    };
    let name: String = name
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .chars()
        .map(fits)
        .collect();
    let name = match name.trim_start_matches('.') {
        "" => "imported",
        name => name,
    };
    let toml = format!(
        "# Inferred from a log: its prompts, and answers where it has them. Scored anew, an answer\n# is right if it equals `expected`: change [score] to judge it otherwise.\nname = \"{name}\"\n\n[prompts]\ntest = \"test.jsonl\"\n\n[score]\nkind = \"text\"\n"
    );
    let files = vec![
        (TASK_FILE.to_owned(), toml.into_bytes()),
        ("test.jsonl".to_owned(), rows.as_bytes().to_vec()),
    ];
    (name.to_owned(), files)
}

/// What identifies a prompt; that of a task whatever system prompt it is sent with.
fn key(messages: &[Message], with_system: bool) -> String {
    let is_system = |turn: &&Message| ["system", "developer"].contains(&turn.role.as_str());
    let own = messages
        .iter()
        .filter(|turn| with_system || !is_system(turn));
    own.map(|turn| format!("{}\n{}\n", turn.role, turn.content.trim()))
        .collect()
}

impl Prompts {
    /// Where a sample belongs, or why it is not read.
    fn place(&mut self, sample: &mut Sample) -> Result<Place, &'static str> {
        match self {
            Self::Inferred(inferred) => Ok(inferred.place(sample)),
            Self::OfTask(by_prompt) => place_in_task(by_prompt, sample),
        }
    }
}

fn place_in_task(
    by_prompt: &HashMap<String, Vec<PromptRow>>,
    sample: &Sample,
) -> Result<Place, &'static str> {
    let own = by_prompt.get(&key(&sample.messages, false));
    let rows = own.or_else(|| rendered(by_prompt, &sample.messages));
    let row = match rows.map(Vec::as_slice) {
        None | Some([]) => return Err("a prompt that the task does not have, so not read"),
        Some([row]) if row.turn_count() > 1 => {
            return Err("one answer to a row of several turns, so not read");
        }
        Some([row]) => row,
        Some(rows) => rows
            .iter()
            .find(|row| Some(&row.id) == sample.id.as_ref())
            .ok_or("a prompt that several rows of the task have, so not read")?,
    };
    Ok(Place {
        id: row.id.clone(),
        is_expected: row.expected.is_some(),
        is_variant: false,
    })
}

/// The only prompt whose last question is in a text that a chat template has rendered.
fn rendered<'a>(
    by_prompt: &'a HashMap<String, Vec<PromptRow>>,
    messages: &[Message],
) -> Option<&'a Vec<PromptRow>> {
    let [Message { content, .. }] = messages else {
        return None;
    };
    let is_in = |rows: &&Vec<PromptRow>| {
        let mut turns = rows.iter().flat_map(|row| &row.messages);
        let question = turns.rfind(|turn| turn.role == "user");
        let question = question.map_or("", |turn| turn.content.trim());
        question.len() >= MIN_QUESTION_BYTES && content.contains(question)
    };
    let mut found = by_prompt.values().filter(is_in);
    found.next().filter(|_| found.next().is_none())
}

impl Inferred {
    fn place(&mut self, sample: &mut Sample) -> Place {
        let key = key(&sample.messages, true);
        let id = sample.id.take().unwrap_or_else(|| {
            let hash = hex(&Sha256::digest(&key));
            format!("p-{}", &hash[..ID_LETTERS])
        });
        let expected = sample.expected.take().map(|value| match value {
            value @ (Value::String(_) | Value::Array(_) | Value::Number(_)) => value,
            other => exact_json::write(&other).into(),
        });
        let prompt = Sha256::digest(format!("{id}\n{key}"));
        let known = self.by_prompt.entry(prompt.into()).or_default();
        let is_same = |at: &&usize| match (&self.rows[**at].expected, &expected) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let at = known.iter().find(is_same).copied().unwrap_or_else(|| {
            known.push(self.rows.len());
            self.rows.push(InferredRow {
                id: free_id(&mut self.ids, &id),
                messages: std::mem::take(&mut sample.messages),
                expected: None,
                tags: std::mem::take(&mut sample.tags),
            });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.expected = row.expected.take().or(expected);
        Place {
            id: row.id.clone(),
            is_expected: row.expected.is_some(),
            is_variant: row.id != id,
        }
    }
}

/// The id, or the next of `ID~2`, `ID~3` that no row has. `ids`: those of rows, each with the last number tried.
fn free_id(ids: &mut HashMap<String, usize>, id: &str) -> String {
    let mut number = ids.get(id).copied().unwrap_or(0);
    loop {
        number += 1;
        let own = match number {
            1 => id.to_owned(),
            number => format!("{id}~{number}"),
        };
        if !ids.contains_key(&own) {
            ids.insert(own.clone(), 1);
            ids.insert(id.to_owned(), number);
            return own;
        }
    }
}

/// The samples of a log so far.
#[derive(Default)]
struct Gathered {
    targets: Vec<(String, Vec<EvalRecord>)>,
    /// Samples taken of each prompt of a target.
    taken: HashMap<(usize, String), BTreeSet<usize>>,
    problems: Vec<(String, String)>,
    /// Places by what is special about them.
    special: BTreeMap<&'static str, Vec<String>>,
    /// Names of scores in their order, and of values that are no numbers.
    names: Vec<String>,
    chosen: Option<String>,
    partial: usize,
    with_expected: bool,
}

const VARIANT: &str = "the id of another prompt or answer, so a prompt of its own";
const REPEATED: &str = "a prompt and sample number again, so the next number";
const NO_ANSWER: &str = "no answer (an error), so in no rate";
const NOT_A_NUMBER: &str = "a score that is not a number, so unknown and in no rate";
const NO_SCORE: &str = "no such score, so unknown and in no rate";
const NO_PROMPT: &str = "no prompt, so not read";

impl Gathered {
    fn note(&mut self, what: &'static str, place: String) {
        self.special.entry(what).or_default().push(place);
    }

    fn add(&mut self, mut sample: Sample, prompts: &mut Prompts, options: &LogOptions) {
        if sample.messages.iter().all(|turn| turn.content.is_empty()) {
            return self.note(NO_PROMPT, sample.place);
        }
        let place = match prompts.place(&mut sample) {
            Ok(place) => place,
            Err(why) => return self.note(why, sample.place),
        };
        if place.is_variant {
            self.note(VARIANT, sample.place.clone());
        }
        self.with_expected |= place.is_expected;
        for score in &sample.scores {
            if !self.names.contains(&score.name) {
                self.names.push(score.name.clone());
            }
        }
        if self.chosen.is_none() {
            self.chosen = options
                .score
                .clone()
                .or_else(|| self.names.first().cloned());
        }
        let at = self.target(&sample.model);
        let taken = self.taken.entry((at, place.id.clone())).or_default();
        let index = sample.sample.filter(|index| !taken.contains(index));
        let is_repeated = index.is_none() && sample.sample.is_some();
        // From the number of those taken: most logs have no gaps, and all are not searched each time.
        let free = || (taken.len()..).find(|index| !taken.contains(index));
        let index = index.or_else(free).unwrap_or(0);
        taken.insert(index);
        if is_repeated {
            self.note(REPEATED, sample.place.clone());
        }
        let record = self.record(sample, place, index, options);
        self.targets[at].1.push(record);
    }

    fn target(&mut self, model: &str) -> usize {
        let known = self.targets.iter().position(|(name, _)| name == model);
        known.unwrap_or_else(|| {
            self.targets.push((model.to_owned(), Vec::new()));
            self.targets.len() - 1
        })
    }

    fn record(
        &mut self,
        sample: Sample,
        place: Place,
        index: usize,
        options: &LogOptions,
    ) -> EvalRecord {
        let name = self.chosen.clone().unwrap_or_default();
        let found = |name: &str| sample.scores.iter().find(|score| score.name == name);
        let value =
            |score: Option<&NamedScore>| score.and_then(|score| score_value::number(&score.value));
        let deciding = found(&name);
        let reward = value(deciding);
        let passes = reward.is_some_and(|reward| reward >= options.pass_at);
        self.partial += usize::from(reward.is_some_and(|reward| reward != 0.0 && reward != 1.0));
        let exact = match options.exact.as_deref() {
            Some(name) => value(found(name)).map(|value| value >= options.pass_at),
            None => place.is_expected.then_some(passes),
        };
        let (failure, message) = match (reward, &sample.error, deciding) {
            (Some(_), ..) if passes => (None, String::new()),
            (Some(_), _, Some(score)) if !score.explanation.is_empty() => {
                (Some(FailureClass::WrongValue), score.explanation.clone())
            }
            (Some(reward), ..) => {
                let message = format!("{name} {} < {}", amount(reward), amount(options.pass_at));
                (Some(FailureClass::WrongValue), message)
            }
            (None, Some(error), _) => {
                self.note(NO_ANSWER, sample.place.clone());
                (Some(FailureClass::EndpointError), error.clone())
            }
            (None, None, Some(score)) => {
                // NaN and infinity are read as an empty list.
                let found = match exact_json::write(&score.value).as_str() {
                    "[]" => "NaN or infinite".to_owned(),
                    found => shortened(found, 40),
                };
                let shown = format!("{} ({name} is {found})", sample.place);
                self.note(NOT_A_NUMBER, shown);
                let message = format!("{name} is {found}, not a number");
                (Some(FailureClass::ScorerError), message)
            }
            (None, None, None) => {
                self.note(NO_SCORE, sample.place.clone());
                (
                    Some(FailureClass::ScorerError),
                    format!("no score `{name}`"),
                )
            }
        };
        let tier = match passes {
            true => Tier::Valid,
            false if sample.completion.trim().is_empty() => Tier::Unparsable,
            false => Tier::Invalid,
        };
        let message = shortened(&message, MAX_MESSAGE_CHARS);
        let errors = (!message.is_empty()).then(|| Reason::of_whole(message));
        let metrics = sample
            .scores
            .iter()
            .filter_map(|score| Some((score.name.clone(), score_value::number(&score.value)?)));
        let score = Score {
            reward: reward.unwrap_or(f64::NAN),
            tier,
            tolerant: passes,
            warnings: Vec::new(),
            errors: errors.into_iter().collect(),
            fields: None,
            exact,
            failure,
            parts: OrderedMap(Vec::new()),
            metrics: OrderedMap(metrics.collect()),
            leaves: None,
            grounded: Vec::new(),
            criteria: Vec::new(),
        };
        EvalRecord {
            prompt_id: place.id,
            sample: index,
            tags: sample.tags,
            reward: score.reward,
            tier,
            tolerant: passes,
            exact,
            score: serde_json::to_value(&score).unwrap_or_default(),
            tokens: sample.tokens,
            truncated: sample.truncated,
            seconds: sample.seconds,
            completion: sample.completion,
            ..EvalRecord::default()
        }
    }

    fn finish(
        mut self,
        path: &Path,
        mut header: LogHeader,
        options: &LogOptions,
        decides: bool,
    ) -> Result<ImportedLog, EvalLogError> {
        let scores = self.names.join(", ");
        for asked in [&options.score, &options.exact].into_iter().flatten() {
            if !self.names.contains(asked) && !self.targets.is_empty() {
                let near = did_you_mean(asked, self.names.iter().map(String::as_str));
                let problem = format!("no score `{asked}`{near}; the scores are {scores}");
                return Err(fail(path, problem));
            }
        }
        let count = self.targets.iter().map(|(_, records)| records.len());
        let count = count.sum::<usize>();
        let mut notes = std::mem::take(&mut header.notes);
        let special = self.special_notes(decides);
        if count == 0 {
            let malformed = self.problems.first();
            let malformed = malformed.map(|(place, problem)| format!("{place}: {problem}"));
            let why = special.first().cloned().or(malformed);
            let why = why.unwrap_or_else(|| "it has no samples".to_owned());
            return Err(fail(path, format!("nothing to import: {why}")));
        }
        let prompts: BTreeSet<&str> = self
            .targets
            .iter()
            .flat_map(|(_, records)| records.iter().map(|record| record.prompt_id.as_str()))
            .collect();
        let prompts = counted(prompts.len(), "prompt");
        let read = match (header.version.as_str(), counted(count, "completion")) {
            ("", count) => format!("{}: {count} of {prompts}", header.program),
            (version, count) => {
                format!(
                    "{} (format {version}): {count} of {prompts}",
                    header.program
                )
            }
        };
        notes.insert(0, read);
        let scored_by = match (&self.chosen, decides) {
            (Some(name), true) => {
                let exact = options.exact.as_ref();
                let (how, by) = self.decided(name, exact, options);
                notes.push(how);
                by
            }
            (None, true) => {
                return Err(fail(
                    path,
                    "no scores: name a task to score the completions by, --task TASK --rescore",
                ));
            }
            _ => String::new(),
        };
        notes.extend(special);
        let targets = std::mem::take(&mut self.targets);
        let targets = named_targets(targets, path, &header.model, &scored_by);
        Ok(ImportedLog {
            header,
            targets,
            notes,
            problems: self.problems,
        })
    }

    /// What is special about samples, a sentence each; of scores only where they decide.
    fn special_notes(&self, decides: bool) -> Vec<String> {
        let of_scores = [NOT_A_NUMBER, NO_SCORE, NO_ANSWER];
        let told = self.special.iter();
        let told = told.filter(|(what, _)| decides || !of_scores.contains(what));
        let note = |(what, places): (_, &Vec<String>)| {
            let count = counted(places.len(), "sample");
            let shown = places[..places.len().min(MAX_PLACES)].join(", ");
            let more = if places.len() > MAX_PLACES {
                ", ..."
            } else {
                ""
            };
            format!("{what}: {count} ({shown}{more})")
        };
        told.map(note).collect()
    }

    /// How scores are read, in a sentence, and in short.
    fn decided(
        &self,
        name: &str,
        exact: Option<&String>,
        options: &LogOptions,
    ) -> (String, String) {
        let least = amount(options.pass_at);
        let also = match (exact, self.with_expected) {
            (Some(exact), _) => format!("exact is `{exact}` >= {least}"),
            (None, true) => "so is exact where the log has an expected answer".to_owned(),
            (None, false) => "exact is unknown (no expected answers)".to_owned(),
        };
        let others = match self.names.as_slice() {
            [_] => String::new(),
            names => {
                let others = names.iter().filter(|other| *other != name);
                let others: Vec<&str> = others.map(String::as_str).collect();
                format!("; other scores, for --score: {}", others.join(", "))
            }
        };
        let between = match self.partial {
            0 => String::new(),
            partial => format!(
                "; {} of them between 0 and 1, or outside",
                counted(partial, "score")
            ),
        };
        let by = match exact {
            Some(exact) => format!("{name}, {exact} >= {least}"),
            None => format!("{name} >= {least}"),
        };
        (
            format!("valid is `{name}` >= {least}, {also}{between}{others}"),
            by,
        )
    }
}

/// Names each model of a log, else by its file, and no two alike.
fn named_targets(
    targets: Vec<(String, Vec<EvalRecord>)>,
    path: &Path,
    model_of_log: &str,
    scored_by: &str,
) -> Vec<ImportedTarget> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut names = BTreeSet::new();
    let named = |(model, mut records): (String, Vec<EvalRecord>)| {
        let names_of = [model.split('\n').next(), Some(model_of_log), Some(&*stem)];
        let own = names_of.into_iter().flatten().find(|name| !name.is_empty());
        let own = own.unwrap_or("log");
        let mut name = own.to_owned();
        for number in 2.. {
            if names.insert(name.clone()) {
                break;
            }
            name = format!("{own} {number}");
        }
        // Some count from 1.
        let first = records.iter().map(|record| record.sample).min();
        let first = first.unwrap_or(0);
        records.iter_mut().for_each(|record| record.sample -= first);
        ImportedTarget {
            name,
            records,
            scored_by: scored_by.to_owned(),
        }
    };
    targets.into_iter().map(named).collect()
}
