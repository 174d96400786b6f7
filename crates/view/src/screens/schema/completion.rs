//! Completion at the cursor: keywords, their known values, property names, references.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::structure::{Role, Structure, draft_of, summary};
use crate::fuzzy;
use crate::json_reader::{Kind, Place};
use crate::pane::content::{Content, List};
use crate::schema_keywords::{
    DRAFT_ADDRESSES, Draft, FORMATS, KEYWORDS, Keyword, KeywordValue, TYPES,
};
use crate::secrets::visible;
use crate::style_role::Role as Style;
use crate::theme::Theme;
use crate::widgets::editor::Editor;
use crate::widgets::list_cursor::Cursor;

/// Maximum rows of the list; `MAX_COLUMNS`: of its widest line.
const MAX_ROWS: usize = 8;
const MAX_COLUMNS: usize = 72;

#[derive(Debug)]
pub(super) struct Completion {
    items: Vec<Item>,
    pub(super) cursor: Cursor,
    /// Start of the range replaced by an inserted entry.
    from: Place,
    to: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    label: String,
    /// JSON text.
    insert: String,
    /// Letters to move the cursor back after inserting.
    back: usize,
    detail: String,
}

/// The string at the cursor, or the gap where one can be inserted.
struct Site {
    /// The node whose key or value is completed, or the container of a new entry.
    node: usize,
    is_key: bool,
    is_new: bool,
    from: Place,
    to: Place,
    typed: String,
}

impl Completion {
    /// The completion at the editor's cursor, if any. Outside of strings it opens only if `asked`.
    pub(super) fn at_cursor(editor: &Editor, structure: &Structure, asked: bool) -> Option<Self> {
        let site =
            in_string(editor, structure).or_else(|| in_gap(editor, structure).filter(|_| asked))?;
        let items = items(editor, structure, &site)?;
        let typed = site.typed.to_lowercase();
        let mut found: Vec<&Item> = items
            .iter()
            .filter(|item| item.label.to_lowercase().starts_with(&typed))
            .collect();
        if found.is_empty() {
            found = fuzzy::rank(&site.typed, &items.iter().collect::<Vec<_>>(), |item| {
                item.label.clone()
            });
        }
        found.sort_by_key(|item| !item.label.starts_with(&site.typed));
        let is_closed = site.to.1 > editor.cursor().1;
        let is_whole = matches!(found.as_slice(), [only] if only.label == site.typed && is_closed);
        let items: Vec<Item> = found.into_iter().cloned().collect();
        (!items.is_empty() && !is_whole).then(|| Self {
            items,
            cursor: Cursor::default(),
            from: site.from,
            to: site.to,
        })
    }

    pub(super) fn moves(&mut self, event: KeyEvent) -> bool {
        let rows = match event.code {
            KeyCode::Down => 1,
            KeyCode::Up => -1,
            _ => return false,
        };
        self.cursor.go(rows, self.items.len());
        event.modifiers.is_empty()
    }

    pub(super) fn accept(self, editor: &mut Editor) {
        let Some(item) = self
            .cursor
            .at(self.items.len())
            .and_then(|at| self.items.get(at))
        else {
            return;
        };
        editor.replace_part(self.from, self.to, &item.insert);
        let (row, column) = editor.cursor();
        editor.go_to(row, column.saturating_sub(item.back));
    }

    /// Area of the list: below the cursor's screen position, or above if there is more space.
    pub(super) fn area(&self, area: Rect, (column, row): (u16, u16)) -> Option<Rect> {
        let (labels, widest) = self.widths();
        let columns = (labels + 2 + widest)
            .min(MAX_COLUMNS)
            .min((area.width as usize).saturating_sub(2));
        let (below, above) = (
            area.bottom().saturating_sub(row + 1),
            row.saturating_sub(area.y),
        );
        let room = below.max(above).saturating_sub(2) as usize;
        let rows = self.items.len().min(MAX_ROWS).min(room);
        if rows == 0 || columns < 4 {
            return None;
        }
        let (width, height) = (columns as u16 + 2, rows as u16 + 2);
        let y = if below >= height || below >= above {
            row + 1
        } else {
            row.saturating_sub(height)
        };
        let x = column.min(area.right().saturating_sub(width)).max(area.x);
        Some(
            Rect {
                x,
                y,
                width,
                height,
            }
            .intersection(area),
        )
    }

    fn widths(&self) -> (usize, usize) {
        let labels = self
            .items
            .iter()
            .map(|item| item.label.width())
            .max()
            .unwrap_or(0);
        (
            labels,
            self.items
                .iter()
                .map(|item| item.detail.width())
                .max()
                .unwrap_or(0),
        )
    }

    pub(super) fn content<'a>(&'a self, theme: &'a Theme) -> Content<'a> {
        let count = format!(
            "{}/{}",
            self.cursor.at(self.items.len()).map_or(0, |at| at + 1),
            self.items.len()
        );
        let (labels, _) = self.widths();
        let line = move |at: usize| {
            let item = &self.items[at];
            let gap = " ".repeat((labels + 2).saturating_sub(item.label.width()));
            Line::from(vec![
                Span::raw(format!("{}{gap}", visible(&item.label))),
                theme.span(visible(&item.detail).into_owned(), Style::Faint),
            ])
        };
        Content::titled(count).list(List {
            mark: 0,
            ..List::new(self.items.len(), self.cursor, line)
        })
    }
}

fn letters(editor: &Editor, row: usize) -> Vec<char> {
    editor
        .lines()
        .get(row)
        .map_or_else(Vec::new, |line| line.chars().collect())
}

fn in_string(editor: &Editor, structure: &Structure) -> Option<Site> {
    let cursor = editor.cursor();
    let line = letters(editor, cursor.0);
    let holds = |start: Place, end: Place| {
        let is_closed = end.1 > start.1 + 1 && line.get(end.1 - 1) == Some(&'"');
        start.0 == cursor.0
            && start < cursor
            && if is_closed {
                cursor < end
            } else {
                cursor <= end
            }
    };
    let (node, is_key, start) =
        structure
            .nodes
            .iter()
            .enumerate()
            .rev()
            .find_map(|(index, node)| {
                let key = node
                    .key
                    .as_ref()
                    .filter(|key| holds(key.start, key.end))
                    .map(|key| (index, true, key.start));
                let is_text = matches!(node.kind, Kind::Text(_)) && holds(node.start, node.end);
                key.or_else(|| is_text.then_some((index, false, node.start)))
            })?;
    let typed = line.get(start.1 + 1..cursor.1)?.iter().collect();
    // An unterminated string extends to the end of its line: replace only letters of a name.
    let rest = line
        .get(cursor.1..)?
        .iter()
        .take_while(|letter| letter.is_alphanumeric() || "$_-".contains(**letter));
    let end = cursor.1 + rest.count();
    let to = if line.get(end) == Some(&'"') {
        end + 1
    } else {
        end
    };
    Some(Site {
        node,
        is_key,
        is_new: false,
        from: start,
        to: (cursor.0, to),
        typed,
    })
}

fn in_gap(editor: &Editor, structure: &Structure) -> Option<Site> {
    let cursor = editor.cursor();
    let gap = |node, is_key, is_new| {
        Some(Site {
            node,
            is_key,
            is_new,
            from: cursor,
            to: cursor,
            typed: String::new(),
        })
    };
    let inside = |start: Place, end: Place| start < cursor && cursor < end;
    let before = letters(editor, cursor.0)
        .into_iter()
        .take(cursor.1)
        .rfind(|letter| !letter.is_whitespace());
    let is_free = before.is_none_or(|letter| "{[,".contains(letter));
    let missing = structure.nodes.iter().enumerate().rev().find(|(_, node)| {
        let key = node.key.as_ref().filter(|_| node.kind == Kind::Missing);
        key.is_some_and(|key| key.end < cursor && key.end.0 == cursor.0)
    });
    if let Some((node, _)) = missing {
        return gap(node, false, false);
    }
    if !is_free {
        return None;
    }
    let container = structure
        .nodes
        .iter()
        .rposition(|node| inside(node.start, node.end))?;
    match structure.node(container)?.kind {
        Kind::Object => gap(container, true, true),
        Kind::Array => gap(container, false, true),
        _ => None,
    }
}

fn items(editor: &Editor, structure: &Structure, site: &Site) -> Option<Vec<Item>> {
    let node = structure.node(site.node)?;
    if !site.is_key {
        let Role::Value(keyword) = structure.role(site.node)? else {
            return None;
        };
        return Some(values(structure, keyword, site));
    }
    let object = if site.is_new { site.node } else { node.parent? };
    let present: Vec<&str> = structure
        .children(object)
        .filter(|(index, _)| site.is_new || *index != site.node)
        .filter_map(|(_, node)| node.key.as_ref().map(|key| key.text.as_str()))
        .collect();
    let (has_colon, comma) = after(editor, site.to);
    let item = |label: &str, value: (&str, usize), detail: String| {
        let quoted = serde_json::Value::from(label).to_string();
        let (insert, back) = match has_colon {
            true => (quoted, 0),
            false => (
                format!("{quoted}: {}{comma}", value.0),
                value.1 + comma.len(),
            ),
        };
        Item {
            label: label.to_owned(),
            insert,
            back,
            detail,
        }
    };
    match structure.role(object)? {
        Role::Schema => {
            let draft = draft_of(structure);
            let known = KEYWORDS
                .iter()
                .filter(|keyword| (keyword.since..=keyword.until).contains(&draft));
            let open = known.filter(|keyword| !present.contains(&keyword.name));
            Some(
                open.map(|keyword| {
                    item(keyword.name, skeleton(keyword), keyword.meaning.to_owned())
                })
                .collect(),
            )
        }
        Role::Named(keyword) => {
            let schema = structure.node(object)?.parent?;
            let (of, detail) = match keyword.name {
                "properties" => ("required", "required, not described yet"),
                "dependencies" | "dependentRequired" | "dependentSchemas" => {
                    ("properties", "property")
                }
                _ => return None,
            };
            let value = if keyword.name == "dependentRequired" {
                ("[]", 1)
            } else {
                ("{}", 1)
            };
            let names = structure
                .names(schema, of)
                .into_iter()
                .filter(|name| !present.contains(name));
            Some(
                names
                    .map(|name| item(name, value, detail.to_owned()))
                    .collect(),
            )
        }
        _ => None,
    }
}

/// The empty value of a keyword, and the number of letters to move the cursor back into it.
fn skeleton(keyword: &Keyword) -> (&'static str, usize) {
    match keyword.holds {
        _ if matches!(
            keyword.name,
            "additionalProperties" | "unevaluatedProperties" | "unevaluatedItems"
        ) =>
        {
            ("false", 0)
        }
        KeywordValue::Schema
        | KeywordValue::SchemaOrList
        | KeywordValue::NamedSchemas
        | KeywordValue::Dependencies => ("{}", 1),
        KeywordValue::Schemas | KeywordValue::PropertyNames | KeywordValue::Values => ("[]", 1),
        KeywordValue::Types
        | KeywordValue::Format
        | KeywordValue::Reference
        | KeywordValue::DraftAddress
        | KeywordValue::Text => ("\"\"", 1),
        KeywordValue::Boolean => ("true", 0),
        KeywordValue::Number | KeywordValue::Value => ("", 0),
    }
}

/// Whether a colon follows a position; otherwise the comma required before the next member.
fn after(editor: &Editor, (row, column): Place) -> (bool, &'static str) {
    let rows = editor.lines().iter().skip(row).enumerate();
    let mut rest =
        rows.flat_map(|(index, line)| line.chars().skip(if index == 0 { column } else { 0 }));
    match rest.find(|letter| !letter.is_whitespace()) {
        Some(':') => (true, ""),
        Some('"') => (false, ","),
        _ => (false, ""),
    }
}

fn values(structure: &Structure, keyword: &Keyword, site: &Site) -> Vec<Item> {
    let text = |label: &str, detail: String| Item {
        label: label.to_owned(),
        insert: serde_json::Value::from(label).to_string(),
        back: 0,
        detail,
    };
    let word = |label: &str| Item {
        label: label.to_owned(),
        insert: label.to_owned(),
        back: 0,
        detail: String::new(),
    };
    match keyword.holds {
        KeywordValue::Types => TYPES
            .iter()
            .map(|(name, meaning)| text(name, (*meaning).to_owned()))
            .collect(),
        KeywordValue::Format => {
            let draft = draft_of(structure);
            let known = FORMATS.iter().filter(|(_, since, _)| *since <= draft);
            known
                .map(|(name, _, meaning)| text(name, (*meaning).to_owned()))
                .collect()
        }
        KeywordValue::DraftAddress => {
            let name = |address: &&str| {
                Draft::from_address(address).map_or_else(String::new, |draft| draft.to_string())
            };
            DRAFT_ADDRESSES
                .iter()
                .map(|address| text(address, name(address)))
                .collect()
        }
        KeywordValue::Reference => references(structure)
            .map(|(address, at)| text(&address, summary(structure, at)))
            .collect(),
        KeywordValue::PropertyNames | KeywordValue::Dependencies => {
            let list = if site.is_new {
                Some(site.node)
            } else {
                structure.node(site.node).and_then(|node| node.parent)
            };
            let Some(list) = list else { return Vec::new() };
            let Some(schema) = structure.schema_around(list) else {
                return Vec::new();
            };
            let listed = |name: &str| {
                let of_list = structure
                    .children(list)
                    .filter(|(index, _)| site.is_new || *index != site.node);
                of_list
                    .into_iter()
                    .any(|(_, node)| node.kind == Kind::Text(name.to_owned()))
            };
            let properties = structure.member(schema, "properties");
            let names = structure
                .names(schema, "properties")
                .into_iter()
                .filter(|name| !listed(name));
            let about = |name: &str| {
                let at = properties.and_then(|properties| structure.member(properties, name));
                at.map_or_else(String::new, |at| summary(structure, at))
            };
            names.map(|name| text(name, about(name))).collect()
        }
        KeywordValue::Boolean => vec![word("true"), word("false")],
        _ => Vec::new(),
    }
}

fn references(structure: &Structure) -> impl Iterator<Item = (String, usize)> {
    let all = 0..structure.nodes.len();
    let is_definition = |index: &usize| {
        let parent = structure.parent_role(*index);
        matches!(parent, Some(Role::Named(keyword)) if ["$defs", "definitions"].contains(&keyword.name))
    };
    let definitions = all
        .clone()
        .filter(is_definition)
        .map(|index| (structure.pointer(index), index));
    let anchors = all.filter(|index| structure.is_schema(*index));
    let anchors = anchors
        .filter_map(|index| Some((format!("#{}", structure.text(index, "$anchor")?), index)));
    definitions.chain(anchors).chain([("#".to_owned(), 0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `|` is the cursor.
    fn stage(text: &str) -> (Editor, Structure) {
        let (before, after) = text.split_once('|').unwrap();
        let mut editor = Editor::new(&format!("{before}{after}"), true);
        let row = before.matches('\n').count();
        editor.go_to(row, before.rsplit('\n').next().unwrap().chars().count());
        let structure = Structure::parse(editor.lines());
        (editor, structure)
    }

    fn labels(text: &str) -> Vec<String> {
        let (editor, structure) = stage(text);
        let found = Completion::at_cursor(&editor, &structure, true);
        found.map_or_else(Vec::new, |found| {
            found.items.iter().map(|item| item.label.clone()).collect()
        })
    }

    #[test]
    fn the_place_decides_what_is_offered() {
        let check = |text: &str, expected: &[&str]| assert_eq!(labels(text), expected, "{text}");
        check("{\"minL|\n}", &["minLength"]);
        check("{\"minL|\": 3}", &["minLength"]);
        check("{\"minLength|\": 3}", &[]);
        check("{\"minLength\"|: 3}", &[]);
        check("{\"type\": \"str|\n}", &["string"]);
        check("{\"type\": [\"nul|\"]}", &["null"]);
        check("{\"properties\": {\"type|\"}}", &[]);
        check(
            "{\"properties\": {\"a\": {\"minI|\"}}}",
            &["minItems", "minimum"],
        );
        check("{\"format\": \"date|\"}", &["date", "date-time"]);
        check(
            "{\"required\": [\"a\", \"|\"], \"properties\": {\"a\": {}, \"b\": {}, \"c\": {}}}",
            &["b", "c"],
        );
        check("{\"required\": [|], \"properties\": {\"a\": {}}}", &["a"]);
        check("{\"properties\": {\"|\n}, \"required\": [\"a\"]}", &["a"]);
        check("{\"uniqueItems\": |}", &["true", "false"]);
        check(
            "{\"$ref\": \"|\", \"$defs\": {\"a b\": {\"$anchor\": \"x\"}}}",
            &["#/$defs/a b", "#x", "#"],
        );
        check("{\"enum\": [\"t|\"]}", &[]);
        check("{\"description\": \"type|\"}", &[]);
        check(
            "{\"$schema\": \"http://json-schema.org/draft-07/schema#\", \"dep|\"}",
            &["dependencies"],
        );
        assert!(labels("{|}").contains(&"properties".to_owned()));
        assert!(!labels("{\"properties\": {}, |}").contains(&"properties".to_owned()));
    }

    #[test]
    fn an_accepted_entry_leaves_the_cursor_where_typing_continues() {
        let check = |text: &str, expected: &str| {
            let (mut editor, structure) = stage(text);
            let before = editor.text();
            Completion::at_cursor(&editor, &structure, true)
                .unwrap()
                .accept(&mut editor);
            let (row, column) = editor.cursor();
            let mut lines: Vec<String> = editor.lines().to_vec();
            let at = lines[row]
                .char_indices()
                .nth(column)
                .map_or(lines[row].len(), |(at, _)| at);
            lines[row].insert(at, '|');
            assert_eq!(lines.join("\n"), expected, "{text}");
            assert!(editor.undo());
            assert_eq!(editor.text(), before, "one step of undo");
        };
        check("{\"typ|}", "{\"type\": \"|\"}");
        check("{\"typ|\"}", "{\"type\": \"|\"}");
        check("{\"typ|\": 1}", "{\"type\"|: 1}");
        check(
            "{\n\"prop|\n\"type\": \"object\"}",
            "{\n\"properties\": {|},\n\"type\": \"object\"}",
        );
        check("{\"uniq|}", "{\"uniqueItems\": true|}");
        check(
            "{\n\"uniq|\n\"type\": 1}",
            "{\n\"uniqueItems\": true|,\n\"type\": 1}",
        );
        check("{\"type\": \"int|}", "{\"type\": \"integer\"|}");
        check("{\"type\": |}", "{\"type\": \"string\"|}");
    }
}
