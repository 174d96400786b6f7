//! What a system message asks for and the schema refuses: a value that its enum lacks, a field that
//! it does not have.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::dataset::{PromptRow, row_schema, text_hash};
use crate::score::Task;

/// Levels of a schema that are read.
const MAX_DEPTH: usize = 32;
/// Characters between a field's name and the list of its values.
const NEAR: usize = 24;
/// Names and values shown.
const MAX_SHOWN: usize = 8;

/// What a message asks for that the schema refuses, as a sentence's end, with the word itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Contradiction {
    pub(super) word: String,
    pub(super) sentence: String,
}

/// The names and listed values of a schema.
#[derive(Debug, Default)]
struct Vocabulary {
    fields: BTreeSet<String>,
    /// By field: the texts of its enum.
    enums: Vec<(String, Vec<String>)>,
    /// Also of `const`, and of enums without a field.
    values: HashSet<String>,
    /// Whether keys may have other names.
    is_open: bool,
}

/// A word of a list in a text.
#[derive(Debug)]
struct Item<'t> {
    text: &'t str,
    is_quoted: bool,
    start: usize,
}

/// Contradictions of rows' own system messages; of equal messages only the first has one.
#[derive(Debug)]
pub(super) struct SystemCheck<'a> {
    task: &'a Task,
    seen: RefCell<HashSet<u64>>,
}

impl<'a> SystemCheck<'a> {
    pub(super) fn new(task: &'a Task) -> Self {
        Self {
            task,
            seen: RefCell::default(),
        }
    }

    pub(super) fn of_row(&self, row: &PromptRow) -> Option<String> {
        let systems = row.messages.iter();
        let systems = systems.filter(|turn| matches!(&*turn.role, "system" | "developer"));
        let texts: Vec<&str> = systems.map(|turn| turn.content.as_str()).collect();
        if texts.is_empty() || self.task.calls_functions() {
            return None;
        }
        let own = row_schema(self.task, row).and_then(Result::ok);
        let schema = own.as_ref().or(self.task.schema())?;
        let of_schema = own.as_ref().map_or(0, |own| text_hash(&own.to_string()));
        let key = texts
            .iter()
            .fold(of_schema, |key, text| key ^ text_hash(text));
        if !self.seen.borrow_mut().insert(key) {
            return None;
        }
        let found = texts.iter().find_map(|text| contradiction(text, schema))?;
        Some(format!("the system message {}", found.sentence))
    }
}

/// The first contradiction of a task's system message, with its line of `task.toml`.
pub(super) fn of_task(task: &Task, toml: &str) -> Option<(usize, Contradiction)> {
    let system = task.system.as_deref()?;
    let schema = task.schema().filter(|_| !task.calls_functions())?;
    let found = contradiction(system, schema)?;
    let lines = || toml.lines().enumerate();
    let start = lines()
        .find(|(_, line)| line.trim_start().starts_with("system"))?
        .0;
    let line = lines()
        .skip(start)
        .find(|(_, line)| line.contains(&found.word));
    Some((line.map_or(start, |(line, _)| line) + 1, found))
}

fn contradiction(text: &str, schema: &Value) -> Option<Contradiction> {
    let mut vocabulary = Vocabulary::default();
    vocabulary.read(schema, "", 0);
    let lists = lists(text);
    let listed = lists
        .iter()
        .find_map(|list| vocabulary.refused_in(text, list));
    listed.or_else(|| vocabulary.refused_key(text))
}

impl Vocabulary {
    fn read(&mut self, schema: &Value, field: &str, depth: usize) {
        let Some(keywords) = schema.as_object().filter(|_| depth < MAX_DEPTH) else {
            return;
        };
        for (key, value) in keywords {
            match (key.as_str(), value) {
                ("properties", Value::Object(members)) => {
                    for (name, member) in members {
                        self.fields.insert(name.clone());
                        self.read(member, name, depth + 1);
                    }
                }
                ("enum", Value::Array(values)) => {
                    let texts: Vec<String> = values
                        .iter()
                        .filter_map(|value| value.as_str().map(str::to_owned))
                        .collect();
                    self.values.extend(texts.iter().cloned());
                    self.enums.push((field.to_owned(), texts));
                }
                ("const", Value::String(text)) => {
                    self.values.insert(text.clone());
                }
                ("patternProperties", _) => self.is_open = true,
                ("additionalProperties", Value::Object(_)) => {
                    self.is_open = true;
                    self.read(value, field, depth + 1);
                }
                ("$defs" | "definitions", Value::Object(members)) => {
                    for (name, member) in members {
                        self.read(member, name, depth + 1);
                    }
                }
                (_, Value::Object(_)) => self.read(value, field, depth + 1),
                (_, Value::Array(items)) => {
                    items
                        .iter()
                        .for_each(|item| self.read(item, field, depth + 1));
                }
                _ => {}
            }
        }
    }

    /// A word of a list whose others are the values of an enum, or fields.
    fn refused_in(&self, text: &str, list: &[Item<'_>]) -> Option<Contradiction> {
        let is_known = |word: &str| self.fields.contains(word) || self.values.contains(word);
        let unknown: Vec<&Item<'_>> = list.iter().filter(|item| !is_known(item.text)).collect();
        let first = unknown.first()?;
        let in_enum = |values: &[String]| {
            let among = |item: &&Item<'_>| values.iter().any(|value| value == item.text);
            list.iter().filter(among).count()
        };
        let best = self.enums.iter().max_by_key(|(_, values)| in_enum(values));
        if let Some((field, values)) = best.filter(|(_, values)| in_enum(values) > 0) {
            let differs_in_case = |item: &Item<'_>| {
                values
                    .iter()
                    .any(|value| value.eq_ignore_ascii_case(item.text))
            };
            let is_alike = |item: &&&Item<'_>| {
                differs_in_case(item)
                    || list.iter().any(|other| {
                        values.iter().any(|value| value == other.text)
                            && (other.is_quoted, shape(other.text))
                                == (item.is_quoted, shape(item.text))
                    })
            };
            let sure = in_enum(values) > 1 || near(text, list.first()?.start, field);
            let refused = unknown.iter().find(is_alike).filter(|_| sure);
            let most = unknown.len() <= in_enum(values);
            if let Some(refused) = refused.filter(|_| most) {
                let of = if field.is_empty() {
                    String::new()
                } else {
                    format!(" for {field}")
                };
                return Some(Contradiction {
                    word: refused.text.to_owned(),
                    sentence: format!(
                        "lists `{}`{of}, which the schema refuses ({}): correct one of the two",
                        refused.text,
                        shown(values.iter().map(String::as_str))
                    ),
                });
            }
        }
        let fields = list
            .iter()
            .filter(|item| self.fields.contains(item.text))
            .count();
        let is_like_one = self
            .fields
            .iter()
            .any(|field| shape(field) == shape(first.text));
        let is_list_of_fields =
            fields >= unknown.len().max(1) && is_like_one && list.iter().all(|item| item.is_quoted);
        (is_list_of_fields && !self.is_open && is_name(first.text))
            .then(|| self.no_field(first.text))
    }

    /// A key of an example, or a name after the word field, that no property has.
    fn refused_key(&self, text: &str) -> Option<Contradiction> {
        static KEYS: LazyLock<Option<[Regex; 2]>> = LazyLock::new(|| {
            let of_example = Regex::new(r#"[{,]\s*"([\w.-]{1,40})"\s*:"#).ok()?;
            let named =
                Regex::new(r#"(?i)\b(?:field|key|property)\s+["'`]([\w.-]{1,40})["'`]"#).ok()?;
            Some([of_example, named])
        });
        if self.is_open || self.fields.is_empty() {
            return None;
        }
        let patterns = KEYS.as_ref()?;
        let words = patterns
            .iter()
            .flat_map(|pattern| pattern.captures_iter(text));
        let mut words = words
            .filter_map(|found| found.get(1))
            .map(|found| found.as_str());
        let word = words.find(|word| !self.fields.contains(*word))?;
        Some(self.no_field(word))
    }

    fn no_field(&self, word: &str) -> Contradiction {
        Contradiction {
            word: word.to_owned(),
            sentence: format!(
                "names the field `{word}`, which the schema does not have ({}): correct one of the two",
                shown(self.fields.iter().map(String::as_str))
            ),
        }
    }
}

fn shown<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.collect();
    let more = if words.len() > MAX_SHOWN { ", ..." } else { "" };
    format!("{}{more}", words[..words.len().min(MAX_SHOWN)].join(", "))
}

fn is_name(word: &str) -> bool {
    let fits = |letter: char| letter.is_alphanumeric() || "_.-".contains(letter);
    word.chars().all(fits) && word.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Whether a field is named shortly before a place.
fn near(text: &str, place: usize, field: &str) -> bool {
    let before: String = text[..place]
        .chars()
        .rev()
        .take(NEAR + field.len())
        .collect();
    let before: String = before.chars().rev().collect();
    !field.is_empty() && before.to_lowercase().contains(&field.to_lowercase())
}

/// Upper, lower and other letters, spaces: what words of one list have in common.
fn shape(word: &str) -> (bool, bool, bool) {
    (
        word.starts_with(char::is_uppercase),
        word.chars().skip(1).any(char::is_lowercase),
        word.chars().all(|letter| !letter.is_alphabetic()),
    )
}

/// Lists of at least two words: `a, b or c`, `a|b`, `"in progress", "done"`.
fn lists(text: &str) -> Vec<Vec<Item<'_>>> {
    static ITEM: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#""[^"\n]{1,40}"|`[^`\n]{1,40}`|'[^'\n]{1,40}'|[\w-]+"#).ok());
    static SEPARATOR: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"^(?:\s*[,;/|]\s*(?:(?:and|or)\s+)?|\s+(?:and|or)\s+)$").ok());
    let (Some(pattern), Some(separator)) = (ITEM.as_ref(), SEPARATOR.as_ref()) else {
        return Vec::new();
    };
    let words: HashMap<usize, usize> = pattern
        .find_iter(text)
        .map(|found| (found.start(), found.end()))
        .collect();
    let mut starts: Vec<usize> = words.keys().copied().collect();
    starts.sort_unstable();
    // The words between items are matched as part of a separator.
    let is_between = |start: usize| matches!(&text[start..words[&start]], "and" | "or");
    starts.retain(|start| !is_between(*start));
    let mut lists: Vec<Vec<Item<'_>>> = Vec::new();
    let mut end_of_last = None;
    for start in starts {
        let end = words[&start];
        let word = &text[start..end];
        let is_quoted =
            !word.starts_with(|first: char| first.is_alphanumeric() || "_-".contains(first));
        let item = Item {
            text: if is_quoted {
                &word[1..word.len() - 1]
            } else {
                word
            },
            is_quoted,
            start,
        };
        let continues =
            end_of_last.is_some_and(|last: usize| separator.is_match(&text[last..start]));
        match lists.last_mut().filter(|_| continues) {
            Some(list) => list.push(item),
            None => lists.push(vec![item]),
        }
        end_of_last = Some(end);
    }
    // A word that a sentence continues: `low, medium and then`.
    for list in &mut lists {
        let continues = list.last().is_some_and(|last| {
            let end = words[&last.start];
            !last.is_quoted
                && text[end..]
                    .trim_start_matches(' ')
                    .starts_with(char::is_alphanumeric)
        });
        if continues {
            list.pop();
        }
    }
    lists.retain(|list| list.len() > 1);
    lists
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_schema_refuses_is_named_and_nothing_else() {
        let schema = json!({"type": "object", "additionalProperties": false, "properties": {
            "vendor": {"type": "string"},
            "currency": {"enum": ["EUR", "USD", "CHF"]},
            "priority": {"enum": ["low", "medium", "high"]},
            "status": {"enum": ["in progress", "done"]},
            "lines": {"type": "array", "items": {"properties": {"unit_price": {"type": "number"}}}}}});
        for (text, word) in [
            ("currency (EUR, USD, GBP)", Some("GBP")),
            ("currency is one of EUR | USD | GBP", Some("GBP")),
            ("priority: low, medium, high or urgent.", Some("urgent")),
            ("The priority is `low`, `Medium` or `high`.", Some("Medium")),
            (
                "priority is \"low\", \"normal\" or \"high\"",
                Some("normal"),
            ),
            ("Fields: `vendor`, `ccy` and `lines`.", Some("ccy")),
            ("Put it in the field `ccy`.", Some("ccy")),
            (
                "For example {\"vendor\": \"Acme\", \"ccy\": \"EUR\"}",
                Some("ccy"),
            ),
            (
                "status is \"in progress\", \"done\" or \"open\"",
                Some("open"),
            ),
            // Allowed.
            ("currency (EUR, USD)", None),
            ("priority: low, medium and then nothing", None),
            (
                "Fields: vendor (string), currency (EUR, USD, CHF), lines",
                None,
            ),
            ("vendor, currency and priority as JSON", None),
            ("Convert EUR, USD and so on.", None),
            ("Answer with JSON, not prose, and nothing else.", None),
            ("the field `unit_price`, `vendor` or `done`", None),
            ("Use \"Acme\", \"Bolt\" as examples", None),
            ("Dates as `YYYY-MM-DD`, `vendor` as written", None),
        ] {
            let found = contradiction(text, &schema);
            assert_eq!(
                found.as_ref().map(|found| found.word.as_str()),
                word,
                "{text}: {found:?}"
            );
        }
        let open = json!({"properties": {"a": {}}, "additionalProperties": {"type": "string"}});
        assert_eq!(contradiction("the field `b`", &open), None);
    }
}
