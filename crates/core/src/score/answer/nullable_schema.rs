//! A JSON Schema's text with null allowed in some fields; nothing else of the text changes.

use super::json::{Kind, Object, Value, parse};
use crate::task::decode_path;

/// Limit of nested references and combinations.
const MAX_DEPTH: usize = 12;

/// The text, whose lines stay lines, with `null` allowed at each path (dotted names; `*` or nothing
/// for the items of a list).
///
/// # Errors
/// A path that the schema does not describe, or a text that is not JSON.
pub fn with_null(text: &str, paths: &[String]) -> Result<String, String> {
    let document = parse(text, 0).map_err(|error| error.reason.to_string())?;
    let root = &document.root;
    let mut edits: Vec<(usize, String)> = Vec::new();
    for path in paths {
        let schemas = schemas_of(root, path);
        if schemas.is_empty() {
            return Err(format!("the schema describes no `{path}`"));
        }
        schemas
            .into_iter()
            .for_each(|schema| allow(schema, &mut edits));
    }
    edits.sort_by_key(|(at, _)| *at);
    edits.dedup();
    let mut changed = text.to_owned();
    for (at, added) in edits.into_iter().rev() {
        changed.insert_str(at, &added);
    }
    Ok(changed)
}

/// The schemas of a path as written beside its last name: what they refer to may be used elsewhere.
fn schemas_of<'v, 't>(root: &'v Value<'t>, path: &str) -> Vec<&'v Value<'t>> {
    let names: Vec<&str> = path.split('.').filter(|name| *name != "*").collect();
    let Some((last, before)) = names.split_last() else {
        return Vec::new();
    };
    let mut nodes = described(root, root, 0);
    for name in before {
        let members = nodes.iter().filter_map(|node| property(node, name));
        nodes = members
            .flat_map(|member| described(root, member, 0))
            .collect();
    }
    nodes
        .into_iter()
        .filter_map(|node| property(node, last))
        .flat_map(|member| {
            // Of a list of texts each item may be null.
            let items = get(member, "items").filter(|_| is_list(member));
            items.map_or_else(|| vec![member], |items| vec![items])
        })
        .collect()
}

fn is_list(schema: &Value<'_>) -> bool {
    let is_array = |kind: &Kind<'_>| matches!(kind, Kind::String(name) if name == "array");
    match get(schema, "type").map(|types| &types.kind) {
        Some(Kind::Array(types)) => types.iter().any(|of| is_array(&of.kind)),
        Some(kind) => is_array(kind),
        None => false,
    }
}

fn object<'v, 't>(value: &'v Value<'t>) -> Option<&'v Object<'t>> {
    match &value.kind {
        Kind::Object(object) => Some(object),
        _ => None,
    }
}

fn get<'v, 't>(value: &'v Value<'t>, key: &str) -> Option<&'v Value<'t>> {
    object(value)?.get(key).map(|member| &member.value)
}

fn property<'v, 't>(schema: &'v Value<'t>, name: &str) -> Option<&'v Value<'t>> {
    get(get(schema, "properties")?, name)
}

fn list<'v, 't>(value: Option<&'v Value<'t>>) -> &'v [Value<'t>] {
    match value.map(|value| &value.kind) {
        Some(Kind::Array(items)) => items,
        _ => &[],
    }
}

/// A schema with those that it refers to or combines, and those of a list's items.
fn described<'v, 't>(
    root: &'v Value<'t>,
    schema: &'v Value<'t>,
    depth: usize,
) -> Vec<&'v Value<'t>> {
    let mut found = vec![schema];
    if depth == MAX_DEPTH {
        return found;
    }
    let target = get(schema, "$ref").and_then(|address| match &address.kind {
        Kind::String(address) => root.pointer(&decode_path(address.strip_prefix('#')?)),
        _ => None,
    });
    let combined = ["allOf", "anyOf", "oneOf"]
        .into_iter()
        .flat_map(|key| list(get(schema, key)));
    let branches = ["then", "else", "items"].into_iter();
    let branches = branches.filter_map(|key| get(schema, key));
    for other in target.into_iter().chain(combined).chain(branches) {
        found.extend(described(root, other, depth + 1));
    }
    found
}

/// Adds the edits after which a schema also accepts null.
fn allow(schema: &Value<'_>, edits: &mut Vec<(usize, String)>) {
    let Some(keywords) = object(schema) else {
        return;
    };
    let has = |key: &str| keywords.get(key).is_some();
    let is_null = |value: &Value<'_>| matches!(value.kind, Kind::Null);
    let names_null =
        |value: &Value<'_>| matches!(&value.kind, Kind::String(name) if name == "null");
    for key in ["anyOf", "oneOf"] {
        let others = list(get(schema, key));
        if let Some(last) = others.last() {
            let allows = |other: &Value<'_>| get(other, "type").is_some_and(names_null);
            if !others.iter().any(allows) {
                edits.push((last.end, r#", {"type": "null"}"#.to_owned()));
            }
            return;
        }
    }
    if ["$ref", "allOf", "const", "not", "if"].into_iter().any(has) {
        edits.push((schema.start, r#"{"anyOf": ["#.to_owned()));
        edits.push((schema.end, r#", {"type": "null"}]}"#.to_owned()));
        return;
    }
    let added = |last: Option<&Value<'_>>, outer: &Value<'_>, what: &str| match last {
        Some(last) => (last.end, format!(", {what}")),
        None => (outer.end.saturating_sub(1), what.to_owned()),
    };
    if let Some(types) = get(schema, "type") {
        match &types.kind {
            Kind::Array(names) if !names.iter().any(names_null) => {
                edits.push(added(names.last(), types, "\"null\""));
            }
            Kind::String(name) if name != "null" => {
                edits.push((types.start, "[".to_owned()));
                edits.push((types.end, ", \"null\"]".to_owned()));
            }
            _ => {}
        }
    }
    if let Some(values) = get(schema, "enum")
        && !list(Some(values)).iter().any(is_null)
    {
        edits.push(added(list(Some(values)).last(), values, "null"));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn null_is_added_where_the_property_is_written() {
        let schema = |properties: &str, more: &str| {
            format!("{{\"type\": \"object\", \"properties\": {{{properties}}}{more}}}")
        };
        let defs = r#", "$defs": {"A": {"properties": {"c": {"type": "string"}}}}"#;
        for (path, before, after) in [
            (
                "a",
                r#""a": {"type": "string"}"#,
                r#""a": {"type": ["string", "null"]}"#,
            ),
            (
                "a",
                r#""a": {"type": ["string"]}"#,
                r#""a": {"type": ["string", "null"]}"#,
            ),
            (
                "a",
                r#""a": {"type": ["null", "string"]}"#,
                r#""a": {"type": ["null", "string"]}"#,
            ),
            (
                "a",
                "\"a\": {\"type\": \"string\",\n \"enum\": [\"x\",\n \"y\"\n]}",
                "\"a\": {\"type\": [\"string\", \"null\"],\n \"enum\": [\"x\",\n \"y\", null\n]}",
            ),
            ("a", r#""a": {"enum": [1]}"#, r#""a": {"enum": [1, null]}"#),
            (
                "a",
                r#""a": {"const": 1}"#,
                r#""a": {"anyOf": [{"const": 1}, {"type": "null"}]}"#,
            ),
            (
                "a",
                r##""a": {"$ref": "#/$defs/A"}"##,
                r##""a": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}"##,
            ),
            (
                "a",
                r#""a": {"anyOf": [{"type": "string"}]}"#,
                r#""a": {"anyOf": [{"type": "string"}, {"type": "null"}]}"#,
            ),
            (
                "l.*.b",
                r#""l": {"type": "array", "items": {"properties": {"b": {"type": "number"}}}}"#,
                r#""l": {"type": "array", "items": {"properties": {"b": {"type": ["number", "null"]}}}}"#,
            ),
            (
                "l",
                r#""l": {"type": "array", "items": {"type": "string"}}"#,
                r#""l": {"type": "array", "items": {"type": ["string", "null"]}}"#,
            ),
            ("a", r#""a": true"#, r#""a": true"#),
        ] {
            let changed = with_null(&schema(before, defs), &[path.to_owned()]);
            assert_eq!(changed, Ok(schema(after, defs)), "{before}");
        }
        let nested = schema(r##""a": {"$ref": "#/$defs/A"}"##, defs);
        let changed = with_null(&nested, &["a.c".to_owned()]).unwrap();
        assert_eq!(
            changed,
            nested.replace(
                "\"c\": {\"type\": \"string\"}",
                "\"c\": {\"type\": [\"string\", \"null\"]}"
            )
        );
        let unknown = with_null(&nested, &["x".to_owned()]);
        assert_eq!(unknown, Err("the schema describes no `x`".to_owned()));
    }
}
