//! The structure of a schema's text, read as far as it goes while it is typed: what each value is for, and where `$ref`
//! leads.

use crate::score::{Keyword, KeywordValue};
use crate::style_role::Role as Style;
use crate::task::decode_path;
use crate::widgets::editor::tokens;

/// Row and column of the text, in scalars from 0.
pub(super) type Place = (usize, usize);

/// A value, or the place of a missing one, with its key if it is a member of an object.
#[derive(Debug)]
pub(super) struct Node {
    pub parent: Option<usize>,
    pub key: Option<Name>,
    pub kind: Kind,
    pub role: Role,
    pub start: Place,
    /// After its last letter.
    pub end: Place,
}

/// A key.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub text: String,
    pub start: Place,
    pub end: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    Text(String),
    /// A number, true, false, null, or what is none of them.
    Word(String),
    Missing,
}

/// The role of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    Schema,
    /// A list of schemas.
    Schemas,
    /// Names with schemas, such as the value of `properties`.
    Named(&'static Keyword),
    /// The value of a keyword, or a part of it.
    Value(&'static Keyword),
    /// Not a known keyword.
    Unknown,
}

/// All values, containers before what they contain; the first one is the schema.
#[derive(Debug, Default)]
pub(super) struct Structure {
    pub nodes: Vec<Node>,
}

/// A token: its place, where it ends, and what it is.
struct Token {
    start: Place,
    end: Place,
    text: String,
    is_string: bool,
}

/// A container that is not closed yet.
struct OpenContainer {
    node: usize,
    is_object: bool,
    /// The key whose value comes next, and whether its colon was read.
    key: Option<(Name, bool)>,
}

impl Structure {
    /// Reads a text. Missing commas, colons, values and brackets are tolerated.
    pub(super) fn parse(lines: &[String]) -> Self {
        let tokens = read(lines);
        let mut found = Self::default();
        let mut open: Vec<OpenContainer> = Vec::new();
        let text_end = (lines.len().saturating_sub(1), lines.last().map_or(0, |line| line.chars().count()));
        for (index, token) in tokens.iter().enumerate() {
            let is_key = tokens.get(index + 1).is_some_and(|next| !next.is_string && next.text == ":");
            match (token.text.as_str(), open.last_mut()) {
                (":", Some(OpenContainer { key: Some((_, has_colon)), .. })) if !token.is_string => *has_colon = true,
                (":", _) if !token.is_string => {}
                (",", Some(_)) if !token.is_string => found.end_member(&mut open),
                ("}" | "]", Some(_)) if !token.is_string => found.close(&mut open, token),
                ("}" | "]" | ",", None) if !token.is_string => {}
                (_, None) if !found.nodes.is_empty() => {}
                (_, Some(OpenContainer { is_object: true, key, .. }))
                    if token.is_string && (is_key || !matches!(key, Some((_, true)))) =>
                {
                    found.end_member(&mut open);
                    if let Some(object) = open.last_mut() {
                        let name = Name { text: unquoted(&token.text), start: token.start, end: token.end };
                        object.key = Some((name, false));
                    }
                }
                (text, _) => {
                    let kind = match text {
                        "{" if !token.is_string => Kind::Object,
                        "[" if !token.is_string => Kind::Array,
                        text if token.is_string => Kind::Text(unquoted(text)),
                        text => Kind::Word(text.to_owned()),
                    };
                    let is_object = kind == Kind::Object;
                    let is_container = is_object || kind == Kind::Array;
                    let end = if is_container { text_end } else { token.end };
                    let node = found.add(&mut open, kind, token.start, end);
                    if is_container {
                        open.push(OpenContainer { node, is_object, key: None });
                    }
                }
            }
        }
        while !open.is_empty() {
            found.end_member(&mut open);
            open.pop();
        }
        found
    }

    fn add(&mut self, open: &mut [OpenContainer], kind: Kind, start: Place, end: Place) -> usize {
        let parent = open.last().map(|open| open.node);
        let key = open.last_mut().and_then(|open| open.key.take()).map(|(name, _)| name);
        let role = self.role(parent, key.as_ref(), &kind);
        self.nodes.push(Node { parent, key, kind, role, start, end });
        self.nodes.len() - 1
    }

    /// A key without a value becomes a member all the same.
    fn end_member(&mut self, open: &mut [OpenContainer]) {
        if let Some(OpenContainer { key: Some((name, _)), .. }) = open.last() {
            let end = name.end;
            self.add(open, Kind::Missing, end, end);
        }
    }

    /// Closes the nearest container of that bracket, and those inside it.
    fn close(&mut self, open: &mut Vec<OpenContainer>, bracket: &Token) {
        let is_object = bracket.text == "}";
        let Some(depth) = open.iter().rposition(|open| open.is_object == is_object) else { return };
        while open.len() > depth {
            self.end_member(open);
            let Some(closed) = open.pop() else { return };
            if let Some(node) = self.nodes.get_mut(closed.node) {
                node.end = if open.len() == depth { bracket.end } else { bracket.start };
            }
        }
    }

    fn role(&self, parent: Option<usize>, key: Option<&Name>, kind: &Kind) -> Role {
        let Some(parent) = parent.and_then(|parent| self.nodes.get(parent)) else { return Role::Schema };
        let is_list = *kind == Kind::Array;
        match (parent.role, key.and_then(|key| Keyword::named(&key.text))) {
            (Role::Schema, Some(keyword)) => match keyword.holds {
                KeywordValue::Schema => Role::Schema,
                KeywordValue::SchemaOrList if !is_list => Role::Schema,
                KeywordValue::SchemaOrList | KeywordValue::Schemas => Role::Schemas,
                KeywordValue::NamedSchemas | KeywordValue::Dependencies => Role::Named(keyword),
                _ => Role::Value(keyword),
            },
            (Role::Schema, None) => Role::Unknown,
            (Role::Named(keyword), _) if is_list || keyword.name == "dependentRequired" => Role::Value(keyword),
            (Role::Named(_) | Role::Schemas, _) => Role::Schema,
            (role, _) => role,
        }
    }

    /// The innermost value at a position, its key included.
    pub(super) fn at(&self, place: Place) -> Option<usize> {
        let holds = |start: Place, end: Place| start <= place && place < end;
        self.nodes.iter().rposition(|node| {
            holds(node.start, node.end) || node.key.as_ref().is_some_and(|key| holds(key.start, key.end))
        })
    }

    pub(super) fn node(&self, index: usize) -> Option<&Node> {
        self.nodes.get(index)
    }

    pub(super) fn children(&self, of: usize) -> impl Iterator<Item = (usize, &Node)> {
        let end = self.node(of).map_or((0, 0), |node| node.end);
        let inside = self.nodes.iter().enumerate().skip(of + 1).take_while(move |(_, node)| node.start <= end);
        inside.filter(move |(_, node)| node.parent == Some(of))
    }

    /// The member of an object with that key; of duplicates the last, which counts.
    pub(super) fn member(&self, of: usize, name: &str) -> Option<usize> {
        let found = self.children(of).filter(|(_, node)| node.key.as_ref().is_some_and(|key| key.text == name));
        found.map(|(index, _)| index).last()
    }

    /// The value and those around it, innermost first.
    pub(super) fn around(&self, index: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(index), |index| self.node(*index)?.parent)
    }

    /// The text of a member.
    pub(super) fn text(&self, of: usize, name: &str) -> Option<&str> {
        match &self.node(self.member(of, name)?)?.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The names under a schema's `properties`, or the items of its `required`.
    pub(super) fn names(&self, schema: usize, keyword: &str) -> Vec<&str> {
        let Some(list) = self.member(schema, keyword) else { return Vec::new() };
        self.children(list)
            .filter_map(|(_, node)| match (&node.key, &node.kind) {
                (Some(key), _) => Some(key.text.as_str()),
                (None, Kind::Text(text)) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Whether a value is the address of a reference.
    pub(super) fn is_reference(&self, index: usize) -> bool {
        let node = self.node(index);
        node.is_some_and(|node| matches!(node.role, Role::Value(keyword) if keyword.holds == KeywordValue::Reference))
    }

    /// Where the reference of a node leads.
    ///
    /// # Errors
    /// Why it leads nowhere in this text.
    pub(super) fn target(&self, reference: usize) -> Result<usize, String> {
        let Some(Node { kind: Kind::Text(address), .. }) = self.node(reference) else {
            return Err("no address here".to_owned());
        };
        // An inner `$id` begins a document of its own.
        let id_of = |schema: usize| self.text(schema, "$id").filter(|id| !id.starts_with('#'));
        let base = self.around(reference).find(|index| id_of(*index).is_some()).unwrap_or(0);
        let (file, fragment) = address.split_once('#').unwrap_or((address, ""));
        let is_schema = |index: &usize| matches!(self.nodes[*index].role, Role::Schema);
        let document = match file.is_empty() || id_of(base).is_some_and(|id| id.trim_end_matches('#') == file) {
            true => Some(base),
            false => (0..self.nodes.len()).filter(is_schema).find(|index| id_of(*index) == Some(file)),
        };
        let document = document.ok_or_else(|| format!("{file} is another file"))?;
        let found = if fragment.is_empty() {
            Some(document)
        } else if let Some(pointer) = decode_path(fragment).strip_prefix('/') {
            pointer.split('/').try_fold(document, |at, step| self.step(at, step))
        } else {
            let named = |index: &usize| {
                ["$anchor", "$dynamicAnchor"].iter().any(|key| self.text(*index, key) == Some(fragment))
                    || ["$id", "id"].iter().any(|key| self.text(*index, key).is_some_and(|id| id == address))
            };
            (0..self.nodes.len()).filter(is_schema).find(named)
        };
        found.ok_or_else(|| format!("{address} is not in the schema"))
    }

    /// One step of a JSON pointer.
    fn step(&self, at: usize, step: &str) -> Option<usize> {
        let step = step.replace("~1", "/").replace("~0", "~");
        match self.node(at)?.kind {
            Kind::Array => self.children(at).nth(step.parse().ok()?).map(|(index, _)| index),
            _ => self.member(at, &step),
        }
    }

    /// The references that lead to a value.
    pub(super) fn uses(&self, of: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.is_reference(*index) && self.target(*index) == Ok(of)).collect()
    }

    /// The JSON pointer of a value, as references write it.
    pub(super) fn pointer(&self, index: usize) -> String {
        let mut steps: Vec<String> = Vec::new();
        for at in self.around(index) {
            let Some(node) = self.node(at) else { break };
            match (&node.key, node.parent) {
                (Some(key), _) => steps.push(key.text.replace('~', "~0").replace('/', "~1")),
                (None, Some(parent)) => {
                    let place = self.children(parent).position(|(child, _)| child == at).unwrap_or(0);
                    steps.push(place.to_string());
                }
                (None, None) => {}
            }
        }
        steps.iter().rev().fold("#".to_owned(), |pointer, step| format!("{pointer}/{step}"))
    }
}

/// The tokens of all lines. A string that is not closed ends with its line.
fn read(lines: &[String]) -> Vec<Token> {
    let mut found = Vec::new();
    for (row, line) in lines.iter().enumerate() {
        let letters: Vec<char> = line.chars().collect();
        for token in tokens(line) {
            let text: String = letters.get(token.columns.clone()).unwrap_or_default().iter().collect();
            let is_string = matches!(token.role, Style::JsonKey | Style::JsonString);
            found.push(Token { start: (row, token.columns.start), end: (row, token.columns.end), text, is_string });
        }
    }
    found
}

fn unquoted(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_else(|_| text.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(text: &str) -> Structure {
        Structure::parse(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    /// Each value: its pointer and what it is for.
    fn check(text: &str, expected: &[(&str, &str)]) {
        let found = structure(text);
        let of = |index: usize| {
            let role = match found.nodes[index].role {
                Role::Schema => "schema".to_owned(),
                Role::Schemas => "schemas".to_owned(),
                Role::Named(keyword) => format!("names of {}", keyword.name),
                Role::Value(keyword) => format!("value of {}", keyword.name),
                Role::Unknown => "unknown".to_owned(),
            };
            (found.pointer(index), role)
        };
        let found: Vec<(String, String)> = (0..found.nodes.len()).map(of).collect();
        let expected: Vec<(String, String)> = expected.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn every_value_has_its_role() {
        check("{}", &[("#", "schema")]);
        check(
            r#"{"properties": {"type": {"type": ["string"]}}, "x": {"type": 1}}"#,
            &[
                ("#", "schema"),
                ("#/properties", "names of properties"),
                ("#/properties/type", "schema"),
                ("#/properties/type/type", "value of type"),
                ("#/properties/type/type/0", "value of type"),
                ("#/x", "unknown"),
                ("#/x/type", "unknown"),
            ],
        );
        check(
            r#"{"items": {"not": true}, "anyOf": [{"items": [{}]}], "dependencies": {"a": ["b"], "c": {}}}"#,
            &[
                ("#", "schema"),
                ("#/items", "schema"),
                ("#/items/not", "schema"),
                ("#/anyOf", "schemas"),
                ("#/anyOf/0", "schema"),
                ("#/anyOf/0/items", "schemas"),
                ("#/anyOf/0/items/0", "schema"),
                ("#/dependencies", "names of dependencies"),
                ("#/dependencies/a", "value of dependencies"),
                ("#/dependencies/a/0", "value of dependencies"),
                ("#/dependencies/c", "schema"),
            ],
        );
        check(
            r#"{"enum": [{"type": 1}]}"#,
            &[
                ("#", "schema"),
                ("#/enum", "value of enum"),
                ("#/enum/0", "value of enum"),
                ("#/enum/0/type", "value of enum"),
            ],
        );
    }

    #[test]
    fn a_text_that_is_being_typed_is_read_as_far_as_it_goes() {
        let of_type = [("#", "schema"), ("#/type", "value of type"), ("#/items", "schema")];
        check("{\n\"type\n\"items\": {}}", &of_type);
        check("{\n\"type\":\n\"items\": {}}", &of_type);
        check("{\"type\": \"str\n\"items\": {", &of_type);
        check("{\"type\": , \"items\": {}}", &of_type);
        check("{\"type\" \"items\": {]}", &of_type);
        check("{\"type\": \"a\" \"items\"", &of_type);
        check("", &[]);
        check("]}{", &[("#", "schema")]);
        check("{} {}", &[("#", "schema")]);
    }

    #[test]
    fn references_lead_to_their_targets() {
        let text = r##"{
          "$id": "https://example.com/a.json",
          "$defs": {
            "a/b": {"$anchor": "here"},
            "list": [{}, {}],
            "inner": {"$id": "https://example.com/b.json", "$defs": {"c": {}}, "not": {"$ref": "#/$defs/c"}}
          },
          "allOf": [
            {"$ref": "#/$defs/a~1b"}, {"$ref": "#here"}, {"$ref": "#"}, {"$ref": "#/$defs/list/1"},
            {"$ref": "https://example.com/a.json#here"}, {"$ref": "https://example.com/b.json#/$defs/c"},
            {"$ref": "other.json#/a"}, {"$ref": "#/$defs/none"}, {"$ref": 3}
          ]
        }"##;
        let found = structure(text);
        let all: Vec<usize> = (0..found.nodes.len()).filter(|index| found.is_reference(*index)).collect();
        let targets: Vec<String> = all
            .iter()
            .map(|index| found.target(*index).map_or_else(|error| error, |target| found.pointer(target)))
            .collect();
        assert_eq!(
            targets,
            [
                "#/$defs/inner/$defs/c",
                "#/$defs/a~1b",
                "#/$defs/a~1b",
                "#",
                "#/$defs/list/1",
                "#/$defs/a~1b",
                "#/$defs/inner/$defs/c",
                "other.json is another file",
                "#/$defs/none is not in the schema",
                "no address here",
            ]
        );
        let named = found.member(found.member(0, "$defs").unwrap(), "a/b").unwrap();
        assert_eq!(found.uses(named).len(), 3);
    }
}
