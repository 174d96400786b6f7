//! The structure of a schema's text, which may be incomplete: the role of each value, and the targets of `$ref`.

use crate::json_reader::{Kind, Node, Place, read};
use crate::schema_keywords::{Keyword, KeywordValue};
use crate::task::{decode_path, escaped, unescaped};

#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    Schema,
    Schemas,
    /// Names with schemas, such as the value of `properties`.
    Named(&'static Keyword),
    Value(&'static Keyword),
    /// The value of an unknown keyword, or a part of it.
    Unknown,
}

impl Role {
    fn inner(self, node: &Node) -> Self {
        let is_list = node.kind == Kind::Array;
        match (
            self,
            node.key.as_ref().and_then(|key| Keyword::named(&key.text)),
        ) {
            (Self::Schema, Some(keyword)) => match keyword.holds {
                KeywordValue::Schema => Self::Schema,
                KeywordValue::SchemaOrList if !is_list => Self::Schema,
                KeywordValue::SchemaOrList | KeywordValue::Schemas => Self::Schemas,
                KeywordValue::NamedSchemas | KeywordValue::Dependencies => Self::Named(keyword),
                _ => Self::Value(keyword),
            },
            (Self::Schema, None) => Self::Unknown,
            (Self::Named(keyword), _) if is_list || keyword.name == "dependentRequired" => {
                Self::Value(keyword)
            }
            (Self::Named(_) | Self::Schemas, _) => Self::Schema,
            (role, _) => role,
        }
    }
}

/// All values of the text, containers before their contents; the first one is the schema.
#[derive(Debug, Default)]
pub(super) struct Structure {
    pub nodes: Vec<Node>,
    /// One per node.
    roles: Vec<Role>,
}

impl Structure {
    pub(super) fn parse(lines: &[String]) -> Self {
        let nodes = read(lines);
        let mut roles: Vec<Role> = Vec::with_capacity(nodes.len());
        for node in &nodes {
            let parent = node.parent.and_then(|parent| roles.get(parent));
            roles.push(parent.map_or(Role::Schema, |parent| parent.inner(node)));
        }
        Self { nodes, roles }
    }

    pub(super) fn at(&self, place: Place) -> Option<usize> {
        self.nodes.iter().rposition(|node| {
            (node.start..node.end).contains(&place)
                || node.key.as_ref().is_some_and(|key| key.contains(place))
        })
    }

    pub(super) fn node(&self, index: usize) -> Option<&Node> {
        self.nodes.get(index)
    }

    pub(super) fn role(&self, index: usize) -> Option<Role> {
        self.roles.get(index).copied()
    }

    pub(super) fn parent_role(&self, index: usize) -> Option<Role> {
        self.role(self.node(index)?.parent?)
    }

    pub(super) fn is_schema(&self, index: usize) -> bool {
        matches!(self.role(index), Some(Role::Schema))
    }

    pub(super) fn schema_around(&self, index: usize) -> Option<usize> {
        self.around(index).find(|index| self.is_schema(*index))
    }

    pub(super) fn children(&self, of: usize) -> impl Iterator<Item = (usize, &Node)> {
        let end = self.node(of).map_or((0, 0), |node| node.end);
        let inside = self
            .nodes
            .iter()
            .enumerate()
            .skip(of + 1)
            .take_while(move |(_, node)| node.start <= end);
        inside.filter(move |(_, node)| node.parent == Some(of))
    }

    /// The member of an object with that key; of duplicates the last, which counts.
    pub(super) fn member(&self, of: usize, name: &str) -> Option<usize> {
        let found = self
            .children(of)
            .filter(|(_, node)| node.key.as_ref().is_some_and(|key| key.text == name));
        found.map(|(index, _)| index).last()
    }

    pub(super) fn around(&self, index: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(index), |index| self.node(*index)?.parent)
    }

    pub(super) fn text(&self, of: usize, name: &str) -> Option<&str> {
        match &self.node(self.member(of, name)?)?.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The names under a schema's `properties`, or the items of its `required`.
    pub(super) fn names(&self, schema: usize, keyword: &str) -> Vec<&str> {
        let Some(list) = self.member(schema, keyword) else {
            return Vec::new();
        };
        self.children(list)
            .filter_map(|(_, node)| match (&node.key, &node.kind) {
                (Some(key), _) => Some(key.text.as_str()),
                (None, Kind::Text(text)) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    pub(super) fn is_reference(&self, index: usize) -> bool {
        matches!(self.role(index), Some(Role::Value(keyword)) if keyword.holds == KeywordValue::Reference)
    }

    /// The target of a reference.
    ///
    /// # Errors
    /// The reason if the text does not contain it.
    pub(super) fn target(&self, reference: usize) -> Result<usize, String> {
        let Some(Node {
            kind: Kind::Text(address),
            ..
        }) = self.node(reference)
        else {
            return Err("no address here".to_owned());
        };
        // An inner `$id` begins a document of its own.
        let id_of = |schema: usize| self.text(schema, "$id").filter(|id| !id.starts_with('#'));
        let base = self
            .around(reference)
            .find(|index| id_of(*index).is_some())
            .unwrap_or(0);
        let (file, fragment) = address.split_once('#').unwrap_or((address, ""));
        let is_schema = |index: &usize| self.is_schema(*index);
        let document = match file.is_empty()
            || id_of(base).is_some_and(|id| id.trim_end_matches('#') == file)
        {
            true => Some(base),
            false => (0..self.nodes.len())
                .filter(is_schema)
                .find(|index| id_of(*index) == Some(file)),
        };
        let document = document.ok_or_else(|| format!("{file} is another file"))?;
        let found = if fragment.is_empty() {
            Some(document)
        } else if let Some(pointer) = decode_path(fragment).strip_prefix('/') {
            pointer
                .split('/')
                .try_fold(document, |at, step| self.step(at, step))
        } else {
            let named = |index: &usize| {
                ["$anchor", "$dynamicAnchor"]
                    .iter()
                    .any(|key| self.text(*index, key) == Some(fragment))
                    || ["$id", "id"]
                        .iter()
                        .any(|key| self.text(*index, key).is_some_and(|id| id == address))
            };
            (0..self.nodes.len()).filter(is_schema).find(named)
        };
        found.ok_or_else(|| format!("{address} is not in the schema"))
    }

    fn step(&self, at: usize, step: &str) -> Option<usize> {
        let step = unescaped(step);
        match self.node(at)?.kind {
            Kind::Array => self
                .children(at)
                .nth(step.parse().ok()?)
                .map(|(index, _)| index),
            _ => self.member(at, &step),
        }
    }

    pub(super) fn uses(&self, of: usize) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|index| self.is_reference(*index) && self.target(*index) == Ok(of))
            .collect()
    }

    pub(super) fn pointer(&self, index: usize) -> String {
        let mut steps: Vec<String> = Vec::new();
        for at in self.around(index) {
            let Some(node) = self.node(at) else { break };
            match (&node.key, node.parent) {
                (Some(key), _) => steps.push(escaped(&key.text)),
                (None, Some(parent)) => {
                    let place = self
                        .children(parent)
                        .position(|(child, _)| child == at)
                        .unwrap_or(0);
                    steps.push(place.to_string());
                }
                (None, None) => {}
            }
        }
        steps
            .iter()
            .rev()
            .fold("#".to_owned(), |pointer, step| format!("{pointer}/{step}"))
    }
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
            let role = match found.roles[index] {
                Role::Schema => "schema".to_owned(),
                Role::Schemas => "schemas".to_owned(),
                Role::Named(keyword) => format!("names of {}", keyword.name),
                Role::Value(keyword) => format!("value of {}", keyword.name),
                Role::Unknown => "unknown".to_owned(),
            };
            (found.pointer(index), role)
        };
        let found: Vec<(String, String)> = (0..found.nodes.len()).map(of).collect();
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(a, b)| ((*a).into(), (*b).into()))
            .collect();
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
        let of_type = [
            ("#", "schema"),
            ("#/type", "value of type"),
            ("#/items", "schema"),
        ];
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
        let all: Vec<usize> = (0..found.nodes.len())
            .filter(|index| found.is_reference(*index))
            .collect();
        let targets: Vec<String> = all
            .iter()
            .map(|index| {
                found
                    .target(*index)
                    .map_or_else(|error| error, |target| found.pointer(target))
            })
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
        let named = found
            .member(found.member(0, "$defs").unwrap(), "a/b")
            .unwrap();
        assert_eq!(found.uses(named).len(), 3);
    }
}
