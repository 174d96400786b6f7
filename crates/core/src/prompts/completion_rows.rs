//! Finds a completion's prompt row: by id, or by the prompt as another program wrote it.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::completion_line::{CompletionLine, ForeignPrompt};
use super::data_problems::load_sets;
use crate::dataset::PromptRow;
use crate::format::shortened;
use crate::score::Task;
use crate::task::{PromptSet, split_set_prompt};
use crate::text::Message;

/// Later turns have rows of their own, `ID/2`.
type Row = (PromptSet, Arc<PromptRow>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRow {
    /// No set has the prompt: the completion can only be scored without an expected answer.
    Unknown(String),
    /// Several rows match or sets cannot be read: any score would be a guess.
    Undecided(String),
}

/// Rows of all sets of a task, read on first use.
#[derive(Debug)]
pub struct CompletionRows<'t> {
    task: &'t Task,
    index: OnceLock<Result<Index, String>>,
    /// Cached matches, since a file repeats each prompt.
    foreign: Mutex<HashMap<ForeignPrompt, Result<Row, NoRow>>>,
}

#[derive(Debug, Default)]
struct Index {
    rows: Vec<Row>,
    by_id: HashMap<String, Vec<usize>>,
    /// Indices by hash of the trimmed last message.
    by_last: HashMap<u64, Vec<usize>>,
}

/// The ids of rows that lines may be of; `None`: of any row, since a line has a prompt and no id.
#[derive(Debug)]
pub struct NamedIds(Option<HashSet<String>>);

impl NamedIds {
    pub fn new<'l>(lines: impl IntoIterator<Item = &'l CompletionLine>) -> Self {
        let mut ids = HashSet::new();
        for line in lines {
            match (&line.prompt_id, &line.prompt) {
                (Some(id), _) => {
                    let rest = split_set_prompt(id).map(|(_, rest)| rest);
                    for id in [Some(id.as_str()), rest].into_iter().flatten() {
                        // A later turn is named `ID/2`.
                        let row = id.rsplit_once('/').map_or(id, |(row, _)| row);
                        ids.extend([id.to_owned(), row.to_owned()]);
                    }
                }
                (None, Some(_)) => return Self(None),
                (None, None) => {}
            }
        }
        Self(Some(ids))
    }

    pub fn has(&self, row: &PromptRow) -> bool {
        self.0.as_ref().is_none_or(|ids| ids.contains(&row.id))
    }
}

impl<'t> CompletionRows<'t> {
    pub fn new(task: &'t Task) -> Self {
        Self {
            task,
            index: OnceLock::new(),
            foreign: Mutex::default(),
        }
    }

    pub fn of_rows(task: &'t Task, rows: Vec<(PromptSet, PromptRow)>) -> Self {
        Self {
            index: OnceLock::from(Ok(Index::new(rows))),
            ..Self::new(task)
        }
    }

    /// The row that a completion answers; `None` if the line names none.
    ///
    /// # Errors
    /// No row, or several.
    pub fn find(&self, line: &CompletionLine) -> Result<Option<Arc<PromptRow>>, NoRow> {
        let found = match (&line.prompt_id, &line.prompt) {
            (Some(id), _) => self.named(id, line.set)?,
            (None, Some(prompt)) => self.asked(prompt)?,
            (None, None) => return Ok(None),
        };
        Ok(Some(found.1))
    }

    fn index(&self) -> Result<&Index, NoRow> {
        self.index
            .get_or_init(|| {
                let sets = load_sets(self.task).map_err(|error| error.to_string())?;
                let rows = |(set, rows): (PromptSet, Vec<PromptRow>)| {
                    rows.into_iter().map(move |row| (set, row))
                };
                Ok(Index::new(sets.into_iter().flat_map(rows)))
            })
            .as_ref()
            .map_err(|why: &String| NoRow::Undecided(why.clone()))
    }

    fn named(&self, id: &str, set: Option<PromptSet>) -> Result<Row, NoRow> {
        let index = self.index()?;
        let of = |id: &str, set: Option<PromptSet>| {
            let places = index.by_id.get(id).into_iter().flatten();
            places
                .map(|place| &index.rows[*place])
                .filter(move |(of, _)| set.is_none_or(|set| set == *of))
        };
        let mut found = of(id, set).peekable();
        if found.peek().is_none()
            && let Some((named, rest)) = split_set_prompt(id)
            && set.is_none_or(|set| set == named)
        {
            found = of(rest, Some(named)).peekable();
        }
        let Some(first) = found.next() else {
            return Err(NoRow::Unknown(format!("unknown prompt_id {id:?}")));
        };
        match found.find(|other| differ(first, other)) {
            None => Ok(first.clone()),
            Some((other, _)) => {
                let shown = shortened(id, 60);
                Err(NoRow::Undecided(format!(
                    "prompt_id `{shown}` is in {} and in {}, with different rows; add \"set\": \"{}\", or write `{}:{shown}`",
                    first.0.name(),
                    other.name(),
                    other.name(),
                    other.name()
                )))
            }
        }
    }

    fn asked(&self, prompt: &ForeignPrompt) -> Result<Row, NoRow> {
        let known = || self.foreign.lock();
        if let Some(known) = known().get(prompt) {
            return known.clone();
        }
        let index = self.index()?;
        let places: Vec<usize> = match prompt {
            ForeignPrompt::Turns(turns) => index.asked_by_turns(turns),
            ForeignPrompt::Text(text) => {
                let system = self.task.system.as_deref().unwrap_or_default();
                index.asked_by_text(text, system)
            }
        };
        let mut found = places.into_iter().map(|place| &index.rows[place]);
        let row = match found.next() {
            None => Err(NoRow::Unknown(format!(
                "no row of the task asks this: {:?}",
                shortened(prompt.last_text(), 60)
            ))),
            Some(first) => match found.find(|other| differ(first, other)) {
                None => Ok(first.clone()),
                Some(other) => {
                    let name = |(set, row): &Row| format!("{}:{}", set.name(), row.id);
                    Err(NoRow::Undecided(format!(
                        "two rows ask this, `{}` and `{}`; give the completion a `prompt_id`",
                        shortened(&name(first), 60),
                        shortened(&name(other), 60)
                    )))
                }
            },
        };
        known().insert(prompt.clone(), row.clone());
        row
    }
}

impl Index {
    fn new(rows: impl IntoIterator<Item = (PromptSet, PromptRow)>) -> Self {
        let mut index = Self::default();
        for (set, row) in rows {
            for row in row.all_turns(|_, _| None) {
                let place = index.rows.len();
                index.by_id.entry(row.id.clone()).or_default().push(place);
                let last = index.by_last.hasher().hash_one(last_message(&row));
                index.by_last.entry(last).or_default().push(place);
                index.rows.push((set, Arc::new(row)));
            }
        }
        index
    }

    /// Rows with this last message.
    fn with_last(&self, last: &str) -> Vec<usize> {
        let places = self.by_last.get(&self.by_last.hasher().hash_one(last));
        let has_last = |place: &usize| last_message(&self.rows[*place].1) == last;
        let places = places.into_iter().flatten();
        places.copied().filter(has_last).collect()
    }

    /// Rows with this last message; among them those that also match the messages before, if any.
    fn asked_by_turns(&self, turns: &[(String, String)]) -> Vec<usize> {
        let said = |role: &str, content: &str| role != "system" && !content.trim().is_empty();
        let asked: Vec<&str> = turns
            .iter()
            .filter(|(role, content)| said(role, content))
            .map(|(_, content)| content.trim())
            .collect();
        let Some(last) = asked.last() else {
            return Vec::new();
        };
        let found = self.with_last(last);
        let is_whole = |place: &usize| {
            let messages = self.rows[*place].1.messages.iter();
            messages
                .filter(|turn| said(&turn.role, &turn.content))
                .map(|turn| turn.content.trim())
                .eq(asked.iter().copied())
        };
        let whole: Vec<usize> = found.iter().copied().filter(is_whole).collect();
        if whole.is_empty() { found } else { whole }
    }

    /// Rows whose last message is the text, or is one whole turn of the rendered text before the
    /// answer. Of several, those that account for most of the text.
    fn asked_by_text(&self, text: &str, system: &str) -> Vec<usize> {
        let found = self.with_last(text.trim());
        if !found.is_empty() {
            let alone = |place: &&usize| {
                let mut turns = self.rows[**place].1.messages.iter();
                turns.by_ref().filter(|turn| turn.role != "system").count() == 1
            };
            let single: Vec<usize> = found.iter().filter(alone).copied().collect();
            return if single.is_empty() { found } else { single };
        }
        let mut best = (0, Vec::new());
        for (place, (_, row)) in self.rows.iter().enumerate() {
            match rendered_length(row, text, system) {
                Some(length) if length > best.0 => best = (length, vec![place]),
                Some(length) if length == best.0 => best.1.push(place),
                _ => {}
            }
        }
        best.1
    }
}

/// Length of the row's messages found in a rendered prompt; `None` if they do not match.
fn rendered_length(row: &PromptRow, text: &str, system: &str) -> Option<usize> {
    let last = last_message(row);
    if last.is_empty() {
        return None;
    }
    let own = row.messages.first().filter(|turn| turn.role == "system");
    let systems = [system, own.map_or("", |turn| &turn.content)];
    let begins = |before: &str| {
        ends_with_header(before)
            || systems
                .iter()
                .any(|system| !system.trim().is_empty() && before.ends_with(system.trim()))
    };
    let (at, _) = text.rmatch_indices(last).find(|(at, _)| {
        begins(text[..*at].trim_end()) && begins_with_mark(text[at + last.len()..].trim_start())
    })?;
    let mut rest = &text[..at];
    let mut length = last.len();
    let before = &row.messages[..row.messages.len() - 1];
    for turn in before.iter().rev().filter(|turn| is_said(turn)) {
        let content = turn.content.trim();
        match rest.rfind(content) {
            Some(at) => {
                rest = &rest[..at];
                length += content.len();
            }
            // Another program may have dropped it, or merged it with its own.
            None if turn.role == "system" => {}
            None => return None,
        }
    }
    Some(length)
}

fn is_said(turn: &Message) -> bool {
    !turn.content.trim().is_empty()
}

fn last_message(row: &PromptRow) -> &str {
    row.messages.last().map_or("", |turn| turn.content.trim())
}

/// Whether two rows could judge an answer differently.
fn differ(first: &Row, other: &Row) -> bool {
    let (first, other) = (&first.1, &other.1);
    let own = |row: &PromptRow| {
        let mut fields = row.fields.whole();
        fields.retain(|name, _| name != "id");
        fields
    };
    first.messages != other.messages || own(first) != own(other)
}

/// Whether a trimmed text ends with a user turn's header: a mark (`<|user|>`, `[INST]`), the role
/// on its own line, or `USER:`.
fn ends_with_header(text: &str) -> bool {
    const ROLES: [&str; 9] = [
        "user",
        "human",
        "tool",
        "ipython",
        "developer",
        "question",
        "input",
        "instruction",
        "prompt",
    ];
    let line = text.rsplit('\n').next().unwrap_or_default();
    if text.is_empty() || mark_at_end(line).is_some() {
        return true;
    }
    let is_role = |word: &str| ROLES.contains(&word.to_lowercase().as_str());
    let last_word = line.rsplit([' ', '#', '*', '>']).next().unwrap_or_default();
    match last_word.strip_suffix(':') {
        Some(word) => is_role(word),
        None => {
            let before = line.strip_suffix(last_word).unwrap_or_default();
            let alone = before.trim_matches(['#', ' ', '*']);
            is_role(last_word) && (alone.is_empty() || mark_at_end(alone).is_some())
        }
    }
}

/// Whether a trimmed text begins with a template's end-of-turn mark.
fn begins_with_mark(text: &str) -> bool {
    const ROLES: [&str; 6] = ["assistant", "model", "ai", "response", "answer", "gpt"];
    if text.is_empty() {
        return true;
    }
    let marked = |open: char, close: char| {
        let mark = text.strip_prefix(open)?;
        is_mark(&mark[..mark.find(close)?]).then_some(())
    };
    let line = text.lines().next().unwrap_or_default();
    let word = line.trim_start_matches(['#', ' ', '*']);
    let word = word.split_once(':').map_or(word, |(word, _)| word).trim();
    marked('<', '>').or_else(|| marked('[', ']')).is_some()
        || ROLES.contains(&word.to_lowercase().as_str())
}

fn mark_at_end(line: &str) -> Option<()> {
    let marked = |open: char, close: char| {
        let mark = line.strip_suffix(close)?;
        is_mark(&mark[mark.rfind(open)? + open.len_utf8()..]).then_some(())
    };
    marked('<', '>').or_else(|| marked('[', ']'))
}

/// `|im_start|`, `/INST`, `start_of_turn`.
fn is_mark(inside: &str) -> bool {
    inside.chars().any(char::is_alphabetic)
        && inside
            .chars()
            .all(|letter| letter.is_alphanumeric() || "|_/-▁｜".contains(letter))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dataset;

    /// Returns `set:id`, `unknown`, or the message.
    fn find(task: &Task, line: &str) -> String {
        let line = CompletionLine::read(line.as_bytes()).unwrap();
        let rows = CompletionRows::new(task);
        match rows.find(&line) {
            Ok(row) => row.map_or("none".to_owned(), |row| {
                row.fields.get("n").unwrap().to_string()
            }),
            Err(NoRow::Unknown(_)) => "unknown".to_owned(),
            Err(NoRow::Undecided(problem)) => problem,
        }
    }

    fn task(train: &[&str], eval: &[&str]) -> (tempfile::TempDir, Task) {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "task.toml",
            "name = \"t\"\nsystem = \"Be brief.\"\n[prompts]\ntrain = \"train.jsonl\"\neval = \"eval.jsonl\"\n[score]\nkind = \"text\"\n",
        );
        write("train.jsonl", &train.join("\n"));
        write("eval.jsonl", &eval.join("\n"));
        let task = Task::load(folder.path()).unwrap();
        (folder, task)
    }

    fn row(id: &str, asked: &str, number: usize) -> String {
        let messages = serde_json::json!([{"role": "user", "content": asked}]);
        serde_json::json!({"id": id, "messages": messages, "n": number}).to_string()
    }

    #[test]
    fn an_id_of_several_sets_needs_its_set() {
        let (_folder, task) = task(
            &[
                &row("a", "one", 1),
                &row("same", "x", 5),
                &row("eval:b", "y", 6),
            ],
            &[&row("a", "two", 2), &row("same", "x", 5), &row("b", "z", 7)],
        );
        let check = |line: &str, expected: &str| assert_eq!(find(&task, line), expected, "{line}");
        check(
            r#"{"completion":"","prompt_id":"a"}"#,
            "prompt_id `a` is in train and in eval, with different rows; add \"set\": \"eval\", or write `eval:a`",
        );
        check(r#"{"completion":"","prompt_id":"a","set":"eval"}"#, "2");
        check(r#"{"completion":"","prompt_id":"train:a"}"#, "1");
        check(r#"{"completion":"","prompt_id":"eval:a"}"#, "2");
        check(
            r#"{"completion":"","prompt_id":"eval:a","set":"train"}"#,
            "unknown",
        );
        check(r#"{"completion":"","prompt_id":"same"}"#, "5");
        check(r#"{"completion":"","prompt_id":"eval:b"}"#, "6");
        check(r#"{"completion":"","prompt_id":"c"}"#, "unknown");
        check(r#"{"completion":""}"#, "none");
    }

    #[test]
    fn rows_are_named_by_ids_with_their_set_and_turn() {
        let named = |lines: &[&str]| {
            let lines: Vec<_> = lines
                .iter()
                .map(|line| CompletionLine::read(line.as_bytes()).unwrap())
                .collect();
            let named = NamedIds::new(&lines);
            let row = |id: &&str| dataset::load_from("x", row(id, "x", 1).as_bytes()).unwrap();
            let is_named = |id: &&str| named.has(&row(id)[0]);
            ["a", "b", "eval:b", "c", "c/2", "d"].map(|id| is_named(&id))
        };
        let of_id = |id: &str| format!(r#"{{"completion":"","prompt_id":"{id}"}}"#);
        let ids = ["a", "eval:b", "train:c/2"].map(of_id);
        assert_eq!(
            named(&[&ids[0], &ids[1], &ids[2], r#"{"completion":""}"#]),
            [true, true, true, true, true, false]
        );
        assert_eq!(
            named(&[&ids[0], r#"{"completion":"","prompt":"x"}"#]),
            [true; 6]
        );
    }

    #[test]
    fn a_foreign_prompt_is_a_whole_turn() {
        let (_folder, task) = task(
            &[
                &row("a", "1 + 1", 1),
                &row("b", "Add 2\n3 + 4", 2),
                &row("c", "twice", 3),
            ],
            &[&row("c", "twice", 4), &row("d", "3 + 4", 5)],
        );
        let check = |prompt: &str, expected: &str| {
            let line = serde_json::json!({"prompt": prompt, "completion": ""}).to_string();
            assert_eq!(find(&task, &line), expected, "{prompt}");
        };
        check("1 + 1", "1");
        check("11 + 12", "unknown");
        check(
            "<|im_start|>user\n1 + 1<|im_end|>\n<|im_start|>assistant\n",
            "1",
        );
        check(
            "<|im_start|>user\n11 + 1<|im_end|>\n<|im_start|>assistant\n",
            "unknown",
        );
        check(
            "<|im_start|>user\nWhat is 1 + 1<|im_end|>\n<|im_start|>assistant\n",
            "unknown",
        );
        check("system\nYou help.\nuser\n1 + 1\nassistant\n<think>\n", "1");
        check(
            "<|start_header_id|>user<|end_header_id|>\n\n1 + 1<|eot_id|>",
            "1",
        );
        check("<s>[INST] 1 + 1 [/INST]", "1");
        check("Be brief.\n\n1 + 1", "1");
        check("A chat. USER: 1 + 1 ASSISTANT:", "1");
        check("### Instruction:\n1 + 1\n\n### Response:\n", "1");
        check(
            "<start_of_turn>user\nAdd 2\n3 + 4<end_of_turn>\n<start_of_turn>model\n",
            "2",
        );
        check(
            "<start_of_turn>user\n3 + 4<end_of_turn>\n<start_of_turn>model\n",
            "5",
        );
        check(
            "twice",
            "two rows ask this, `train:c` and `eval:c`; give the completion a `prompt_id`",
        );
        let turns = r#"{"prompt":[{"role":"system","content":"s"},{"role":"user","content":"1 + 1"}],"completion":""}"#;
        assert_eq!(find(&task, turns), "1");
        let longer = r#"{"prompt":[{"role":"user","content":"11 + 1"}],"completion":""}"#;
        assert_eq!(find(&task, longer), "unknown");
    }
}
