//! Help for what is under the cursor: a keyword, a type, a format, a property, a reference.

use ratatui::text::Line;

use super::structure::{Role, Structure};
use crate::json_reader::{Kind, Place};
use crate::schema_keywords::{Draft, FORMATS, Keyword, KeywordValue, TYPES};
use crate::style_role::Role as Style;
use crate::theme::Theme;

/// The topic of a position.
#[derive(Debug, Clone, Copy)]
enum Topic {
    /// A keyword, and the node of its value, or one inside it.
    Keyword(&'static Keyword, usize),
    /// A property or definition: the schema of that name, and the keyword around it.
    Name(&'static Keyword, usize),
}

fn topic(structure: &Structure, place: Place) -> Option<Topic> {
    let index = structure.at(place)?;
    // Between the members of an object or a list there is nothing to explain.
    let is_inside = structure.node(index).is_some_and(|node| {
        let is_container = matches!(node.kind, Kind::Object | Kind::Array);
        is_container && node.start < place
    });
    if is_inside {
        return None;
    }
    for at in structure.around(index) {
        match (structure.parent_role(at)?, &structure.node(at)?.key) {
            (Role::Schema, Some(key)) => {
                return Keyword::named(&key.text).map(|keyword| Topic::Keyword(keyword, index));
            }
            (Role::Named(keyword), Some(key)) if key.contains(place) => {
                return Some(Topic::Name(keyword, at));
            }
            _ => {}
        }
    }
    None
}

/// The draft that the schema names; the newest without one.
pub(super) fn draft_of(structure: &Structure) -> Draft {
    structure
        .text(0, "$schema")
        .and_then(Draft::from_address)
        .unwrap_or(Draft::D2020)
}

/// One line about a position; `None` where nothing is known.
pub(super) fn brief(structure: &Structure, place: Place) -> Option<String> {
    Some(match topic(structure, place)? {
        Topic::Keyword(keyword, index) => match value_meaning(structure, keyword, index) {
            Some(meaning) => meaning,
            None => format!("{}: {}", keyword.name, keyword.meaning),
        },
        Topic::Name(_, index) => {
            format!("{}: {}", name(structure, index), summary(structure, index))
        }
    })
}

/// The title and lines of the help; `None` where nothing is known.
pub(super) fn page(
    structure: &Structure,
    place: Place,
    theme: &Theme,
) -> Option<(String, Vec<Line<'static>>)> {
    let faint = |text: String| theme.line(text, Style::Faint);
    let mut lines = Vec::new();
    let title = match topic(structure, place)? {
        Topic::Keyword(keyword, index) => {
            lines.push(Line::raw(keyword.meaning));
            if !keyword.of.is_empty() {
                lines.push(Line::raw(format!(
                    "Only for {}: other values pass.",
                    keyword.of
                )));
            }
            lines.extend(draft_line(structure, keyword, theme));
            lines.extend(value_meaning(structure, keyword, index).map(Line::raw));
            keyword.name.to_owned()
        }
        Topic::Name(keyword, index) => {
            lines.push(Line::raw(summary(structure, index)));
            if let Some(required) = is_required(structure, keyword, index) {
                lines.push(Line::raw(if required { "required" } else { "optional" }));
            }
            if let Some(text) = structure
                .text(index, "description")
                .or(structure.text(index, "title"))
            {
                lines.push(Line::raw(text.to_owned()));
            }
            let uses = structure.uses(index);
            if keyword.name == "$defs" || keyword.name == "definitions" || !uses.is_empty() {
                let rows: Vec<String> = uses
                    .iter()
                    .filter_map(|at| Some((structure.node(*at)?.start.0 + 1).to_string()))
                    .collect();
                lines.push(match rows.as_slice() {
                    [] => faint("no `$ref` names it".to_owned()),
                    rows => faint(format!("`$ref` in line {}", rows.join(", "))),
                });
            }
            lines.push(faint(structure.pointer(index)));
            name(structure, index)
        }
    };
    Some((title, lines))
}

fn draft_line(structure: &Structure, keyword: &Keyword, theme: &Theme) -> Vec<Line<'static>> {
    let draft = draft_of(structure);
    let mut lines = vec![theme.line(format!("JSON Schema: {}", keyword.drafts()), Style::Faint)];
    if keyword.since > draft {
        let text = format!("This schema is {draft}, which does not have it.");
        lines.push(theme.line(text, Style::Warning));
    }
    lines
}

/// An explanation of a keyword's value: a type, a format, the target of a reference.
fn value_meaning(structure: &Structure, keyword: &Keyword, index: usize) -> Option<String> {
    let node = structure.node(index)?;
    match (&node.kind, keyword.holds) {
        (Kind::Text(text), KeywordValue::Types) => TYPES
            .iter()
            .find(|(name, _)| name == text)
            .map(|(name, meaning)| format!("{name}: {meaning}")),
        (Kind::Text(text), KeywordValue::Format) => FORMATS
            .iter()
            .find(|(name, ..)| name == text)
            .map(|(name, since, meaning)| {
                let since = if *since == Draft::D4 {
                    String::new()
                } else {
                    format!(" (since {since})")
                };
                format!("{name}: {meaning}{since}")
            }),
        (Kind::Text(address), KeywordValue::Reference) => Some(match structure.target(index) {
            Ok(target) => {
                let line = structure.node(target)?.start.0 + 1;
                format!("{address}, line {line}: {}", summary(structure, target))
            }
            Err(why) => why,
        }),
        (Kind::Text(name), KeywordValue::PropertyNames | KeywordValue::Dependencies) => {
            let properties = structure.member(structure.schema_around(index)?, "properties")?;
            let property = structure.member(properties, name)?;
            Some(format!("{name}: {}", summary(structure, property)))
        }
        _ => None,
    }
}

pub(super) fn name(structure: &Structure, index: usize) -> String {
    structure
        .node(index)
        .and_then(|node| node.key.as_ref())
        .map_or_else(String::new, |key| key.text.clone())
}

/// Whether a property is required; `None` for other names.
fn is_required(structure: &Structure, keyword: &Keyword, index: usize) -> Option<bool> {
    let names = structure.node(index)?.parent?;
    let schema = structure
        .node(names)?
        .parent
        .filter(|_| keyword.name == "properties")?;
    Some(
        structure
            .names(schema, "required")
            .contains(&name(structure, index).as_str()),
    )
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
