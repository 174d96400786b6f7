//! The structure of a schema's text, which may be incomplete: the role of each value.

use crate::json_reader::{Kind, Node, read};
use crate::schema_keywords::{Draft, Keyword, KeywordValue};
use crate::task::escaped;

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

/// The draft that the schema names; the newest without one.
pub(super) fn draft_of(structure: &Structure) -> Draft {
    structure
        .text(0, "$schema")
        .and_then(Draft::from_address)
        .unwrap_or(Draft::D2020)
}

/// A schema in a few words: its type and the keywords that narrow it.
pub(super) fn summary(structure: &Structure, index: usize) -> String {
    let Some(node) = structure.node(index) else {
        return String::new();
    };
    match &node.kind {
        Kind::Word(word) if word == "false" => return "nothing is accepted".to_owned(),
        Kind::Object => {}
        _ => return "anything".to_owned(),
    }
    let mut words = Vec::new();
    for (at, member) in structure.children(index) {
        let Some(key) = member.key.as_ref().map(|key| key.text.as_str()) else {
            continue;
        };
        let items = || structure.children(at).count();
        match (key, &member.kind) {
            ("type" | "format" | "$ref" | "const" | "pattern", Kind::Text(text)) => words.insert(
                if key == "type" { 0 } else { words.len() },
                if key == "type" {
                    text.clone()
                } else {
                    format!("{key} {text}")
                },
            ),
            ("type", Kind::Array) => {
                let types: Vec<&str> = structure
                    .children(at)
                    .filter_map(|(_, node)| {
                        if let Kind::Text(text) = &node.kind {
                            Some(text.as_str())
                        } else {
                            None
                        }
                    })
                    .collect();
                words.insert(0, types.join(" or "));
            }
            ("enum", _) => words.push(format!("{} values", items())),
            ("properties", _) => words.push(format!("{} properties", items())),
            ("required", _) => words.push(format!("{} required", items())),
            ("allOf" | "anyOf" | "oneOf", _) => words.push(format!("{key} of {}", items())),
            (
                "minLength" | "maxLength" | "minimum" | "maximum" | "exclusiveMinimum"
                | "exclusiveMaximum" | "minItems" | "maxItems" | "multipleOf",
                Kind::Word(value),
            ) => words.push(format!("{key} {value}")),
            (
                "items" | "additionalProperties" | "not" | "if" | "contains" | "patternProperties",
                _,
            ) => {
                words.push(key.to_owned());
            }
            _ => {}
        }
    }
    if words.is_empty() {
        "anything".to_owned()
    } else {
        words.join(", ")
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
}
