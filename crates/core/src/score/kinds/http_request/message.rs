//! A completion as a request or response: one JSON object, and its normal form for validation.

use std::collections::BTreeMap;

use super::document::{Form, Operation, Parameter};
use super::schemas::Types;
use crate::score::answer::json::position::StringPlaces;
use crate::score::answer::json::{self, Kind, Member, Object, Value};
use crate::score::definition::MessagePart;
use crate::score::verdict::FailureClass;
use crate::score::verdict::unwrap_answer::{Read, unreadable};
use crate::task::decode_path;

/// Including the query; servers refuse far shorter ones.
pub(super) const MAX_PATH_BYTES: usize = 65_536;

#[derive(Debug)]
pub(super) struct Message<'d> {
    part: MessagePart,
    text: &'d str,
    root: &'d Value<'d>,
    object: &'d Object<'d>,
    /// Empty in a response.
    pub(super) method: &'d str,
    /// Without its query; empty in a response.
    pub(super) path: &'d str,
    search: &'d str,
    /// 0 in a request.
    pub(super) status: u64,
}

/// Values of a query parameter.
#[derive(Debug, Default)]
struct Given<'d> {
    items: Vec<Item<'d>>,
    /// Byte offset in the completion.
    at: usize,
}

#[derive(Debug)]
enum Item<'d> {
    /// Of the URL, undecoded.
    Text(&'d str),
    Json(&'d Value<'d>),
}

/// A message as JSON: `path` is an object of its variables, `query` has every parameter; texts are
/// numbers where their schema has those.
#[derive(Debug)]
pub(super) struct Normal {
    pub(super) text: String,
    /// Bytes of [`Self::text`], ascending, with those of the completion, and whether the text from there on is copied.
    marks: Vec<(usize, usize, bool)>,
}

impl<'d> Message<'d> {
    /// Reads a JSON value of `text`.
    ///
    /// # Errors
    /// It is not a message of that part.
    pub(super) fn read(part: MessagePart, text: &'d str, root: &'d Value<'d>) -> Read<Self> {
        let form = match part {
            MessagePart::Request => {
                "a request is {\"method\": …, \"path\": …, \"query\": {…}, \"headers\": {…}, \"body\": …}"
            }
            MessagePart::Response => "a response is {\"status\": …, \"headers\": {…}, \"body\": …}",
        };
        let wrong_type = |what: &str, expected: &str, found: &Value<'_>| {
            let message = format!("{what} is {expected}, not {}; {form}", found.type_name());
            unreadable(message, found.start, FailureClass::WrongType)
        };
        let name = part.name();
        let Some(object) = root.as_object() else {
            return Err(wrong_type(&format!("a {name}"), "an object", root));
        };
        let mut message = Self {
            part,
            text,
            root,
            object,
            method: "",
            path: "",
            search: "",
            status: 0,
        };
        for key in part.keys() {
            let Some(member) = message.member(key) else {
                if ["method", "path", "status"].contains(key) {
                    let problem = format!("a {name} without `{key}`; {form}");
                    return Err(unreadable(problem, root.start, FailureClass::MissingKey));
                }
                continue;
            };
            let expected = match (*key, &member.value.kind) {
                ("method", Kind::String(method)) => {
                    message.method = method.trim();
                    continue;
                }
                ("path", Kind::String(path)) if path.len() > MAX_PATH_BYTES => {
                    message.path = path;
                    continue;
                }
                ("path", Kind::String(path)) => {
                    let path = path.split('#').next().unwrap_or_default();
                    (message.path, message.search) = path.split_once('?').unwrap_or((path, ""));
                    continue;
                }
                ("status", Kind::Number(status)) if status.as_u64().is_some() => {
                    message.status = status.as_u64().unwrap_or(0);
                    continue;
                }
                ("body", _) | (_, Kind::Object(_))
                    if !["method", "path", "status"].contains(key) =>
                {
                    continue;
                }
                ("query" | "headers", Kind::Null) => continue,
                ("method" | "path", _) => "a string",
                ("status", _) => "a status code, such as 200",
                _ => "an object",
            };
            return Err(wrong_type(
                &format!("`{}`", member.key),
                expected,
                &member.value,
            ));
        }
        Ok(message)
    }

    pub(super) fn member(&self, name: &str) -> Option<&'d Member<'d>> {
        self.object.get(name)
    }

    /// Byte offset in the completion of a member's value, or of the message.
    pub(super) fn offset(&self, name: &str) -> usize {
        let member = self.member(name);
        member.map_or(self.root.start, |member| member.value.start)
    }

    pub(super) fn normal(&self, operation: &Operation, form: &Form) -> Normal {
        let mut normal = Normal::new(self.root.start);
        for member in self.object.members() {
            let is_null = member.value.kind == Kind::Null;
            match &*member.key {
                "path" | "query" | "headers" if self.part == MessagePart::Request => {}
                "headers" => {}
                // Null means none where none is required.
                "body" if is_null && !form.requires_body => {}
                _ => {
                    normal.separate();
                    normal.copy(self.text, member.key_start, member.value.end);
                }
            }
        }
        if let (MessagePart::Request, Ok(parts)) = (self.part, &operation.parts) {
            self.write_path(&parts.path, operation, &mut normal);
            self.write_query(&parts.query, &mut normal);
        }
        normal.text.push('}');
        normal
    }

    fn write_path(&self, parameters: &[Parameter], operation: &Operation, normal: &mut Normal) {
        let mut places = StringPlaces::new(self.text, self.offset("path"));
        normal.key("path", self.offset("path"));
        normal.text.push('{');
        let found = operation.pattern.captures(self.path);
        let groups = found
            .iter()
            .flat_map(|found| found.iter().skip(1).flatten());
        for (parameter, group) in parameters.iter().zip(groups) {
            let (name, value) = (&parameter.name, group.as_str());
            // One that is not filled in is missing.
            if value != format!("{{{name}}}") && value != format!(":{name}") {
                normal.key(name, places.locate(group.start()));
                normal.text += &parameter.written(&[Item::Text(value)], self.text, decode_path);
            }
        }
        normal.text.push('}');
    }

    fn write_query(&self, parameters: &[Parameter], normal: &mut Normal) {
        let mut query: BTreeMap<String, Given<'d>> = BTreeMap::new();
        let mut add = |name: String, item, at| {
            let given = query.entry(name).or_insert(Given {
                items: Vec::new(),
                at,
            });
            given.items.push(item);
        };
        let mut places = StringPlaces::new(self.text, self.offset("path"));
        let mut at = self.path.len() + 1;
        for pair in self.search.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !pair.is_empty() {
                add(decode_query(name), Item::Text(value), places.locate(at));
            }
            at += pair.len() + 1;
        }
        let own = self.member("query").and_then(|own| own.value.as_object());
        for member in own.iter().flat_map(|own| own.members()) {
            let value = &member.value;
            add(member.key.to_string(), Item::Json(value), value.start);
        }
        let start = if own.is_some() { "query" } else { "path" };
        normal.key("query", self.offset(start));
        normal.text.push('{');
        for (name, given) in &query {
            normal.key(name, given.at);
            let parameter = parameters.iter().find(|parameter| parameter.name == *name);
            normal.text += &match parameter {
                Some(parameter) => parameter.written(&given.items, self.text, decode_query),
                None => "null".to_owned(),
            };
        }
        normal.text.push('}');
    }
}

impl Parameter {
    /// Values as JSON.
    fn written(&self, items: &[Item<'_>], source: &str, decode: fn(&str) -> String) -> String {
        let types = &self.types;
        let is_list = types.states("array");
        let separator = |letter: char| is_list && !self.explode && letter == ',';
        let mut found = Vec::new();
        for item in items {
            match item {
                Item::Text(text) => {
                    let texts = text.split(separator).map(decode);
                    found.extend(texts.map(|text| of_text(&text, types)));
                }
                Item::Json(value) => match &value.kind {
                    Kind::Array(items) if is_list => {
                        found.extend(items.iter().map(|item| of_json(item, source, types)));
                    }
                    Kind::String(texts) if is_list => {
                        found.extend(texts.split(separator).map(|text| of_text(text, types)));
                    }
                    _ => found.push(of_json(value, source, types)),
                },
            }
        }
        match (is_list, found.as_slice()) {
            (false, [one]) => one.clone(),
            _ => format!("[{}]", found.join(",")),
        }
    }
}

fn decode_query(text: &str) -> String {
    decode_path(&text.replace('+', " "))
}

/// A text as JSON: a number, boolean or null where the schema has it.
fn of_text(text: &str, types: &Types) -> String {
    let parsed = json::parse(text, 0);
    let name = parsed.map_or("string", |document| document.root.type_name());
    match ["number", "boolean", "null"].contains(&name) && types.allow(name) {
        true => text.trim().to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

/// A value of `source` as JSON of a type that the schema has.
fn of_json(value: &Value<'_>, source: &str, types: &Types) -> String {
    let own = source.get(value.start..value.end).unwrap_or_default();
    match &value.kind {
        _ if types.allow(value.type_name()) => own.to_owned(),
        Kind::String(text) => of_text(text, types),
        Kind::Number(_) | Kind::Bool(_) | Kind::Null if types.allow("string") => format!("{own:?}"),
        _ => own.to_owned(),
    }
}

impl Normal {
    fn new(start: usize) -> Self {
        Self {
            text: "{".to_owned(),
            marks: vec![(0, start, false)],
        }
    }

    /// Begins a member, whose key is at an offset of the completion.
    fn key(&mut self, name: &str, offset: usize) {
        self.separate();
        self.marks.push((self.text.len(), offset, false));
        self.text += &serde_json::Value::from(name).to_string();
        self.text.push(':');
    }

    fn separate(&mut self) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
    }

    fn copy(&mut self, source: &str, start: usize, end: usize) {
        self.marks.push((self.text.len(), start, true));
        self.text
            .push_str(source.get(start..end).unwrap_or_default());
    }

    /// Byte offset in the completion of one in the text.
    pub(super) fn locate(&self, offset: usize) -> usize {
        let known = self.marks.partition_point(|(at, ..)| *at <= offset);
        match known.checked_sub(1).map(|last| self.marks[last]) {
            Some((at, start, true)) => start + (offset - at),
            Some((_, start, false)) => start,
            None => 0,
        }
    }
}
