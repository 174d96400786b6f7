//! Values that arguments of calls may be taken from, and the calls that they make.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Number, Value};

use crate::environment::ToolCall;
use crate::task::functions;
use crate::text::Message;

/// Words of a text value, at most.
const MAX_WORDS: usize = 6;
/// Words read from a prompt or a reply; longer ones are truncated.
const MAX_READ_WORDS: usize = 200;
const MAX_TEXT_CHARS: usize = 200;
/// Calls of one function, at most.
const MAX_CALLS: usize = 1_500;
const MAX_DEPTH: usize = 4;

/// Values in the order in which they are tried.
#[derive(Debug, Clone, Default)]
pub(super) struct CallValues {
    texts: Vec<String>,
    numbers: Vec<Number>,
    lists: Vec<Vec<Value>>,
    seen: HashSet<String>,
    /// Members of replies that values were read from, by value.
    members: HashMap<String, String>,
    /// Values that earlier calls gave to parameters, by name.
    given: HashMap<String, Vec<Value>>,
    /// The user's words in lower case, for the order in which members of an enum are mentioned.
    said: String,
}

impl CallValues {
    pub(super) fn of_messages(messages: &[Message]) -> Self {
        let mut values = Self::default();
        for message in messages.iter().filter(|message| message.role == "user") {
            values.said += &message.content.to_lowercase();
            values.read_text(&message.content, MAX_WORDS);
        }
        values
    }

    /// Whether a tool's reply has a value that is not known.
    pub(super) fn is_new(&self, reply: &str) -> bool {
        let mut read = Self::default();
        read.read_reply(reply);
        !read.seen.is_subset(&self.seen)
    }

    pub(super) fn add_call(&mut self, call: &ToolCall, reply: &str) {
        for (name, value) in &call.arguments {
            self.given
                .entry(name.clone())
                .or_default()
                .push(value.clone());
        }
        let mut new = Self {
            seen: std::mem::take(&mut self.seen),
            members: std::mem::take(&mut self.members),
            ..Self::default()
        };
        new.read_reply(reply);
        let numbers: Vec<Value> = new.numbers.iter().cloned().map(Value::Number).collect();
        let texts: Vec<Value> = new.texts.iter().cloned().map(Value::String).collect();
        let lists = [numbers, texts].into_iter().filter(|list| list.len() > 1);
        self.lists.splice(0..0, lists);
        self.texts.splice(0..0, new.texts);
        self.numbers.splice(0..0, new.numbers);
        (self.seen, self.members) = (new.seen, new.members);
    }

    pub(super) fn has(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.seen.contains(&seen_text(text)),
            other => self.seen.contains(&other.to_string()),
        }
    }

    /// Where the user's words mention a value; 0 if nowhere.
    pub(super) fn place(&self, value: &Value) -> usize {
        let text = match value {
            Value::String(text) => text.to_lowercase(),
            other => other.to_string(),
        };
        self.said.find(&text).unwrap_or(0)
    }

    fn read_reply(&mut self, reply: &str) {
        match serde_json::from_str::<Value>(reply) {
            Ok(value) => self.read_value(&value, ""),
            Err(_) => self.read_text(reply, 2),
        }
    }

    /// `member`: name of the innermost member that holds it.
    fn read_value(&mut self, value: &Value, member: &str) {
        match value {
            Value::Number(number) => self.add_number(number.clone()),
            Value::String(text) => self.add_text(text),
            Value::Array(items) => items.iter().for_each(|item| self.read_value(item, member)),
            Value::Object(members) => {
                let mut read = |(name, value): (&String, &Value)| self.read_value(value, name);
                members.iter().for_each(&mut read);
            }
            Value::Null | Value::Bool(_) => {}
        }
        if !value.is_array() && !value.is_object() {
            let known = self.members.entry(value.to_string());
            known.or_insert_with(|| member.to_owned());
        }
    }

    /// How likely a parameter takes a value: given to it before, read from a member of its name or of
    /// the name that earlier values were read from, any other.
    fn class(&self, parameter: &str, value: &Value) -> u8 {
        let given = self.given.get(parameter).map_or(&[][..], Vec::as_slice);
        let member = |value: &Value| self.members.get(&value.to_string());
        let Some(own) = member(value).filter(|_| !given.contains(value)) else {
            return if given.contains(value) { 0 } else { 2 };
        };
        let is_likely = own == parameter || given.iter().any(|other| member(other) == Some(own));
        if is_likely { 1 } else { 2 }
    }

    /// Numbers, runs of capitalised words, words, then all other runs of up to `most` words.
    fn read_text(&mut self, text: &str, most: usize) {
        let words: Vec<&str> = text.split_whitespace().take(MAX_READ_WORDS).collect();
        for word in &words {
            let is_around = |letter: char| letter.is_ascii_punctuation() && letter != '-';
            let number = word.trim_matches(is_around).replace(',', "");
            if let Ok(number) = serde_json::from_str::<Number>(&number) {
                self.add_number(number);
            }
        }
        for quoted in text.split(['"', '`']).skip(1).step_by(2) {
            self.add_text(quoted);
        }
        let is_name = |word: &&str| {
            let first = trimmed(word).chars().next();
            first.is_none_or(|first| first.is_uppercase() || first.is_numeric())
        };
        for run in words.split(|word| !is_name(word)) {
            // A sentence begins with a capital letter, too.
            for begun in run.len().saturating_sub(MAX_WORDS)..run.len() {
                self.add_words(&run[begun..]);
            }
        }
        for length in 1..=most {
            for run in words.windows(length) {
                self.add_words(run);
            }
        }
    }

    /// Adds words without the punctuation around them, also with the full stop of an abbreviation.
    fn add_words(&mut self, words: &[&str]) {
        let text = words.join(" ");
        let inner = trimmed(&text);
        self.add_text(inner);
        let end = text.find(inner).map_or(0, |at| at + inner.len());
        if text[end..].starts_with('.') {
            self.add_text(&format!("{inner}."));
        }
    }

    fn add_text(&mut self, text: &str) {
        let is_long = text.is_empty() || text.chars().count() > MAX_TEXT_CHARS;
        if !is_long && self.seen.insert(seen_text(text)) {
            self.texts.push(text.to_owned());
        }
    }

    fn add_number(&mut self, number: Number) {
        if self.seen.insert(number.to_string()) {
            self.numbers.push(number);
        }
    }

    /// Values that a schema allows, roughly: the tool's own check of arguments is exact.
    fn of_schema(&self, schema: &Value, root: &Value, depth: usize) -> Vec<Value> {
        if depth == 0 {
            return Vec::new();
        }
        if let Some(target) = schema["$ref"].as_str().and_then(|at| at.strip_prefix('#')) {
            let target = root.pointer(target).unwrap_or(&Value::Null);
            return self.of_schema(target, root, depth - 1);
        }
        if let Some(value) = schema.get("const") {
            return vec![value.clone()];
        }
        if let Some(members) = schema["enum"].as_array() {
            let mut members = members.clone();
            members.sort_by_cached_key(|member| {
                let text = member
                    .as_str()
                    .map_or_else(|| member.to_string(), str::to_lowercase);
                self.said.find(&text).unwrap_or(usize::MAX)
            });
            return members;
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(choices) = schema[key].as_array() {
                let of = |choice| self.of_schema(choice, root, depth - 1);
                return choices.iter().flat_map(of).collect();
            }
        }
        let names = match &schema["type"] {
            Value::String(name) => vec![name.as_str()],
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            _ if schema.get("properties").is_some() => vec!["object"],
            _ => vec!["string", "number"],
        };
        let of = |name| self.of_type(name, schema, root, depth);
        names.into_iter().flat_map(of).collect()
    }

    fn of_type(&self, name: &str, schema: &Value, root: &Value, depth: usize) -> Vec<Value> {
        let texts = self.texts.iter().cloned().map(Value::String);
        let numbers = self.numbers.iter();
        match name {
            "boolean" => vec![Value::Bool(true), Value::Bool(false)],
            "integer" => numbers
                .filter(|number| number.is_i64() || number.is_u64())
                .cloned()
                .map(Value::Number)
                .collect(),
            "number" => numbers.cloned().map(Value::Number).collect(),
            "string" => {
                let written = numbers.map(|number| Value::String(number.to_string()));
                let mut all: Vec<Value> = texts.chain(written).collect();
                let mut seen = HashSet::new();
                all.retain(|value| seen.insert(value.to_string()));
                all
            }
            "array" => {
                let items = self.of_schema(&schema["items"], root, depth - 1);
                let is_list = |list: &&Vec<Value>| list.iter().all(|value| items.contains(value));
                let lists = self.lists.iter().filter(is_list).cloned();
                let single = items.iter().map(|item| vec![item.clone()]);
                lists.chain(single).map(Value::Array).collect()
            }
            "object" => objects(schema, root, self, depth - 1)
                .into_iter()
                .map(|(_, object)| Value::Object(object))
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// Texts are not mistaken for numbers.
fn seen_text(text: &str) -> String {
    format!("\"{text}")
}

/// Calls of all functions with these values, each with its rank: the sum of its values' places, the
/// lowest first.
pub(super) fn candidate_calls(definitions: &Value, values: &CallValues) -> Vec<(usize, ToolCall)> {
    let mut calls = Vec::new();
    for function in functions(definitions).unwrap_or_default() {
        let arguments = match function.parameters {
            Some(schema) => objects(schema, schema, values, MAX_DEPTH),
            None => vec![(0, Map::new())],
        };
        let call = |(rank, arguments)| {
            let name = function.name.to_owned();
            (rank, ToolCall { name, arguments })
        };
        calls.extend(arguments.into_iter().map(call));
    }
    calls.sort_by_key(|(rank, _)| *rank);
    calls
}

/// Objects of a schema: each property with each of its values, optional ones also without.
fn objects(
    schema: &Value,
    root: &Value,
    values: &CallValues,
    depth: usize,
) -> Vec<(usize, Map<String, Value>)> {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut choices: Vec<(&String, Vec<Option<Value>>)> = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let optional = (!required.contains(&name.as_str())).then_some(None);
        let mut found = values.of_schema(property, root, depth);
        if property.get("enum").is_none() {
            found.sort_by_cached_key(|value| values.class(name, value));
        }
        choices.push((
            name,
            optional
                .into_iter()
                .chain(found.into_iter().map(Some))
                .collect(),
        ));
    }
    let product = |choices: &[(&String, Vec<Option<Value>>)]| {
        let lengths = choices.iter().map(|(_, values)| values.len());
        lengths.fold(1usize, |all, length| all.saturating_mul(length))
    };
    while product(&choices) > MAX_CALLS {
        // The later values of the longest list are the least likely.
        if let Some((_, longest)) = choices.iter_mut().max_by_key(|(_, values)| values.len()) {
            longest.pop();
        }
    }
    let mut all = vec![(0, Map::new())];
    for (name, values) in &choices {
        let extended = |(rank, object): &(usize, Map<String, Value>)| {
            let with = |(index, value): (usize, &Option<Value>)| {
                let mut object = object.clone();
                if let Some(value) = value {
                    object.insert((*name).clone(), value.clone());
                }
                (rank + index, object)
            };
            values.iter().enumerate().map(with).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(extended).collect();
    }
    all.sort_by_key(|(rank, _)| *rank);
    all
}

fn trimmed(text: &str) -> &str {
    text.trim_matches(|letter: char| letter.is_ascii_punctuation() || letter.is_whitespace())
}
