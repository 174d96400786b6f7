//! XML to JSON, with lists, numbers and booleans by schema; and JSON to XML.

use std::collections::HashMap;

use roxmltree::{Document, Error, Node};
use serde_json::Value;

use crate::score::answer::json::{MAX_DEPTH, Syntax};
use crate::score::answer::schema_types::{SchemaParts, Types};
use crate::score::answer::transcript::Transcript;
use crate::score::verdict::FailureClass;
use crate::score::verdict::unwrap_answer::{Read, Unreadable, class_of_text, unreadable};

/// Children of a list that is not an object's member.
const ITEM: &str = "item";
const TEXT: &str = "#text";

pub(super) fn read(
    text: &str,
    from: usize,
    schema: &Value,
    root_name: Option<&str>,
) -> Read<Transcript> {
    let rest = text.get(from..).unwrap_or_default();
    let start = text.len() - rest.trim_start().len();
    let source = rest.trim();
    match source {
        "" => {
            return Err(unreadable(
                Syntax::Empty.to_string(),
                text.len(),
                FailureClass::Other,
            ));
        }
        _ if source.starts_with("```") => {
            return Err(unreadable(
                "Markdown fence before the XML element",
                start,
                FailureClass::Fence,
            ));
        }
        _ if !source.starts_with('<') => {
            let what = if source.contains('<') {
                "text before the XML element"
            } else {
                "no XML element in the text"
            };
            return Err(unreadable(what, start, FailureClass::Prose));
        }
        _ => {}
    }
    let document = Document::parse(source).map_err(|error| not_xml(text, start, source, &error))?;
    if let Some((at, message)) = overlooked_fault(source) {
        return Err(unreadable(message, start + at, FailureClass::Syntax));
    }
    let mut reader = Reader {
        source,
        start,
        json: Transcript::default(),
    };
    let root = document.root_element();
    if let Some(name) = root_name.filter(|name| *name != reader.name(root)) {
        let message = format!("the root element is `{}`, not `{name}`", reader.name(root));
        return Err(unreadable(
            message,
            reader.place(root),
            FailureClass::Syntax,
        ));
    }
    reader.element(root, &SchemaParts::new(schema, schema), 0)?;
    Ok(reader.json)
}

fn not_xml(text: &str, start: usize, source: &str, error: &Error) -> Unreadable {
    let place = error.pos();
    let line = source
        .split_inclusive('\n')
        .take(place.row as usize - 1)
        .map(str::len)
        .sum::<usize>();
    let column = source[line..]
        .char_indices()
        .nth(place.col as usize - 1)
        .map(|(bytes, _)| bytes);
    let at = start + line + column.unwrap_or(source.len() - line);
    let message = error.to_string().replace(&format!(" at {place}"), "");
    match error {
        Error::UnclosedRootNode | Error::NoRootNode | Error::UnexpectedEndOfStream => {
            unreadable(message, text.len(), FailureClass::Truncated)
        }
        Error::DtdDetected => {
            let at = start + source.find("<!DOCTYPE").unwrap_or(0);
            unreadable(
                "a DTD is not read: write the element alone",
                at,
                FailureClass::Syntax,
            )
        }
        Error::UnknownToken(_) => {
            unreadable("text after the XML element", at, class_of_text(text, at))
        }
        _ => unreadable(message, at, FailureClass::Syntax),
    }
}

/// First well-formedness error that the parser accepts, with its position: references to
/// non-characters, values of a declaration, a misplaced declaration.
fn overlooked_fault(source: &str) -> Option<(usize, String)> {
    const SKIPPED: [(&str, &str); 3] = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")];
    let mut at = 0;
    while let Some(found) = source[at..].find(['<', '&']) {
        let here = at + found;
        let rest = &source[here..];
        at = here + 1;
        if let Some((open, close)) = SKIPPED.iter().find(|(open, _)| rest.starts_with(open)) {
            let end = rest.find(close).unwrap_or(rest.len());
            at = here + (end + close.len()).min(rest.len());
            let instruction = &rest[open.len().min(end)..end];
            let target = instruction
                .split([' ', '\t', '\r', '\n'])
                .next()
                .unwrap_or_default();
            if *open == "<?" && target.eq_ignore_ascii_case("xml") {
                let fault = match here == 0 && target == "xml" {
                    true => declaration_fault(&instruction[target.len()..]),
                    false => Some("a declaration that does not begin the document".to_owned()),
                };
                if let Some(fault) = fault {
                    return Some((here, fault));
                }
            }
        } else if let Some(number) = rest.strip_prefix("&#") {
            let digits = number.split(';').next().unwrap_or_default();
            let code = match digits.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => digits.parse(),
            };
            if code.ok().and_then(char::from_u32).is_none() {
                return Some((
                    here,
                    format!("the reference `&#{digits};` is to no character"),
                ));
            }
        }
    }
    None
}

/// Error in a declaration's version, encoding or `standalone`.
fn declaration_fault(mut rest: &str) -> Option<String> {
    type Allows = fn(&str) -> bool;
    let parts: [(&str, &str, Allows); 3] = [
        ("version", "1.0", |value| {
            let minor = value.strip_prefix("1.").unwrap_or_default();
            !minor.is_empty() && minor.bytes().all(|digit| digit.is_ascii_digit())
        }),
        ("encoding", "UTF-8", |value| {
            let is_part = |letter: u8| letter.is_ascii_alphanumeric() || b"._-".contains(&letter);
            value.starts_with(|letter: char| letter.is_ascii_alphabetic())
                && value.bytes().all(is_part)
        }),
        ("standalone", "yes\" or \"no", |value| {
            matches!(value, "yes" | "no")
        }),
    ];
    for (name, allowed, allows) in parts {
        let Some(written) = rest.trim_start().strip_prefix(name) else {
            if name == "version" {
                return Some("the declaration has no version: write version=\"1.0\"".to_owned());
            }
            continue;
        };
        let value = written.trim_start().strip_prefix('=').map(str::trim_start);
        let quote = value
            .and_then(|value| value.chars().next())
            .filter(|quote| "\"'".contains(*quote));
        let (value, after) = value
            .zip(quote)
            .and_then(|(value, quote)| value[1..].split_once(quote))?;
        if !allows(value) {
            return Some(format!(
                "the declaration has {name}=\"{value}\": write \"{allowed}\""
            ));
        }
        rest = after;
    }
    (!rest.trim().is_empty())
        .then(|| "the declaration has more than version, encoding and standalone".to_owned())
}

struct Reader<'t> {
    source: &'t str,
    /// Its offset in the completion.
    start: usize,
    json: Transcript,
}

impl<'t> Reader<'t> {
    fn place(&self, node: Node<'_, '_>) -> usize {
        self.start + node.range().start
    }

    fn name(&self, element: Node<'_, '_>) -> &'t str {
        let written = &self.source[element.range().start + 1..];
        written
            .split(|letter: char| letter.is_whitespace() || "/>".contains(letter))
            .next()
            .unwrap_or_default()
    }

    fn element(&mut self, node: Node<'_, '_>, schema: &SchemaParts<'_>, depth: usize) -> Read<()> {
        let at = self.place(node);
        if depth >= MAX_DEPTH {
            return Err(unreadable(
                Syntax::TooDeep.to_string(),
                at,
                FailureClass::Syntax,
            ));
        }
        let elements: Vec<Node<'_, '_>> = node.children().filter(Node::is_element).collect();
        let has_attributes = node.attributes().len() > 0;
        let types = schema.types();
        let (text, text_at) = self.text(node);
        if elements.is_empty() && !has_attributes {
            self.scalar(&text, text_at, types);
            return Ok(());
        }
        let is_list = types.array && !types.object && !has_attributes && text.trim().is_empty();
        if is_list && elements.iter().all(|element| self.name(*element) == ITEM) {
            return self.list(&elements, at, &schema.items(), depth);
        }
        self.object(node, &elements, schema, depth)
    }

    fn list(
        &mut self,
        items: &[Node<'_, '_>],
        at: usize,
        schema: &SchemaParts<'_>,
        depth: usize,
    ) -> Read<()> {
        self.json.literal("[", at);
        for (number, item) in items.iter().enumerate() {
            self.comma(number, self.place(*item));
            self.element(*item, schema, depth + 1)?;
        }
        self.json.literal("]", at);
        Ok(())
    }

    fn object(
        &mut self,
        node: Node<'_, '_>,
        elements: &[Node<'_, '_>],
        schema: &SchemaParts<'_>,
        depth: usize,
    ) -> Read<()> {
        let at = self.place(node);
        let mut members = 0;
        self.json.literal("{", at);
        for attribute in node.attributes() {
            let name = format!("@{}", &self.source[attribute.range_qname()]);
            self.key(&mut members, &name, self.start + attribute.range().start);
            let value_at = self.start + attribute.range_value().start;
            self.scalar(attribute.value(), value_at, schema.member(&name).types());
        }
        let mut groups: Vec<(&str, Vec<Node<'_, '_>>)> = Vec::new();
        let mut by_name = HashMap::new();
        for element in elements {
            let name = self.name(*element);
            let group = *by_name.entry(name).or_insert(groups.len());
            match groups.get_mut(group) {
                Some((_, same)) => same.push(*element),
                None => groups.push((name, vec![*element])),
            }
        }
        for (name, same) in &groups {
            let member = schema.member(name);
            self.key(&mut members, name, self.place(same[0]));
            match same.as_slice() {
                [one] if member.types() != Types::LIST => self.element(*one, &member, depth + 1)?,
                // A list's position is that of its first element.
                same => self.list(same, self.place(same[0]), &member.items(), depth + 1)?,
            }
        }
        let (text, text_at) = self.text(node);
        if !text.trim().is_empty() {
            self.key(&mut members, TEXT, text_at);
            self.scalar(&text, text_at, schema.member(TEXT).types());
        }
        for name in schema.required().filter(|name| !by_name.contains_key(name)) {
            if schema.member(name).types() == Types::LIST {
                self.key(&mut members, name, at);
                self.json.literal("[]", at);
            }
        }
        self.json.literal("}", at);
        Ok(())
    }

    /// Text directly in an element, and the offset of its first visible character.
    fn text(&self, node: Node<'_, '_>) -> (String, usize) {
        let parts = || node.children().filter(Node::is_text);
        let text: String = parts().filter_map(|part| part.text()).collect();
        let visible = |part: Node<'_, '_>| {
            let written = &self.source[part.range()];
            (!written.trim().is_empty()).then(|| part.range().end - written.trim_start().len())
        };
        (
            text,
            parts()
                .find_map(visible)
                .map_or(self.place(node), |at| self.start + at),
        )
    }

    /// Text as null, boolean or number if the types allow it, else a string.
    fn scalar(&mut self, text: &str, at: usize, types: Types) {
        let trimmed = text.trim();
        let is_empty = if types.string {
            text.is_empty()
        } else {
            trimmed.is_empty()
        };
        match trimmed {
            _ if is_empty && types.null => self.json.literal("null", at),
            _ if is_empty && types.string => self.json.literal("\"\"", at),
            _ if is_empty && types.array => self.json.literal("[]", at),
            _ if is_empty && types.object => self.json.literal("{}", at),
            _ if !trimmed.starts_with(['"', '[', '{']) && types.is_json(trimmed) => {
                self.json.literal(trimmed, at)
            }
            _ => self.json.string(text, at),
        }
    }

    fn comma(&mut self, number: usize, at: usize) {
        self.json.literal(if number == 0 { "" } else { ", " }, at);
    }

    fn key(&mut self, members: &mut usize, name: &str, at: usize) {
        self.comma(*members, at);
        self.json.string(name, at);
        self.json.literal(": ", at);
        *members += 1;
    }
}

pub(super) fn is_name(name: &str) -> bool {
    let begins = |letter: char| letter.is_ascii_alphabetic() || letter == '_';
    let continues = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    name.starts_with(begins) && name.chars().all(continues)
}

/// A value as an element; `None` if XML cannot express a name or character.
pub(super) fn write(value: &Value, root: &str) -> Option<String> {
    let mut text = String::new();
    element(root, value, 0, &mut text)?;
    Some(text)
}

fn element(name: &str, value: &Value, indent: usize, text: &mut String) -> Option<()> {
    if !is_name(name) {
        return None;
    }
    text.push_str(&format!("<{name}"));
    match value {
        Value::Null => text.push_str("/>"),
        Value::Array(items) => {
            let items: Vec<(&str, &Value)> = items.iter().map(|item| (ITEM, item)).collect();
            children(name, &items, None, indent, text)?;
        }
        Value::Object(members) => {
            let is_attribute = |key: &str| key.starts_with('@');
            for (key, value) in members.iter().filter(|(key, _)| is_attribute(key)) {
                let attribute = key.get(1..).filter(|key| is_name(key))?;
                text.push_str(&format!(" {attribute}=\"{}\"", content(value)?));
            }
            let mut inner = Vec::new();
            for (key, value) in members
                .iter()
                .filter(|(key, _)| !is_attribute(key) && *key != TEXT)
            {
                match value {
                    Value::Array(items) => {
                        inner.extend(items.iter().map(|item| (key.as_str(), item)))
                    }
                    value => inner.push((key.as_str(), value)),
                }
            }
            children(name, &inner, members.get(TEXT), indent, text)?;
        }
        value => text.push_str(&format!(">{}</{name}>", content(value)?)),
    }
    Some(())
}

/// The rest of an element after its attributes: text, and each child on its own line.
fn children(
    name: &str,
    inner: &[(&str, &Value)],
    own_text: Option<&Value>,
    indent: usize,
    text: &mut String,
) -> Option<()> {
    text.push('>');
    if let Some(own_text) = own_text {
        text.push_str(&content(own_text)?);
    }
    let line = |indent: usize| {
        if own_text.is_some() {
            String::new()
        } else {
            format!("\n{}", "  ".repeat(indent))
        }
    };
    for (name, value) in inner {
        text.push_str(&line(indent + 1));
        element(name, value, indent + 1, text)?;
    }
    if !inner.is_empty() {
        text.push_str(&line(indent));
    }
    text.push_str(&format!("</{name}>"));
    Some(())
}

/// A scalar as text. Escapes line ends and tabs to survive normalisation, also in attributes.
fn content(value: &Value) -> Option<String> {
    let written = match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => return None,
        Value::Null => String::new(),
        value => value.to_string(),
    };
    let mut text = String::new();
    for letter in written.chars() {
        match letter {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\r' => text.push_str("&#13;"),
            '\n' | '\t' => text.push(letter),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => return None,
            _ => text.push(letter),
        }
    }
    Some(text)
}
