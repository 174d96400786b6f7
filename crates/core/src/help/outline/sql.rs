//! Outline of a database schema: columns with types, row counts, first rows, positions.

use std::collections::HashMap;

use sqlparser::dialect::SQLiteDialect;
use sqlparser::tokenizer::{Token, Tokenizer, Word};

use super::entry::OutlineEntry;
use crate::format::{counted, shortened};
use crate::sqlite::{Cell, Database, TableColumns};

const MAX_TABLES: usize = 200;
/// Rows shown per table, and characters of each.
const FIRST_ROWS: usize = 5;
const MAX_ROW_CHARS: usize = 200;

/// Empty if the statements fail.
pub(super) fn outline(schema: &str) -> Vec<OutlineEntry> {
    let Ok(mut database) = Database::new(schema) else {
        return Vec::new();
    };
    let places = places(schema);
    let mut entries = Vec::new();
    for table in database.tables(MAX_TABLES).unwrap_or_default() {
        let quoted = format!("\"{}\"", table.name.replace('"', "\"\""));
        let kind = if table.is_view { "view" } else { "table" };
        let count = database
            .query(&format!("SELECT count(*) FROM {quoted}"))
            .map(|found| found.rows);
        let rows = match count.as_deref() {
            Ok([row]) => match row.as_slice() {
                [Cell::Integer(count)] => counted(usize::try_from(*count).unwrap_or(0), "row"),
                _ => "rows not counted".to_owned(),
            },
            _ => "rows not counted".to_owned(),
        };
        let key = |column: &str| (table.name.to_ascii_lowercase(), column.to_ascii_lowercase());
        entries.push(OutlineEntry {
            name: table.name.clone(),
            text: format!("a {kind}, {rows}"),
            place: places.get(&key("")).copied(),
            details: first_rows(&database, &quoted),
            ..OutlineEntry::default()
        });
        let TableColumns { columns, .. } = &table;
        entries.extend(columns.iter().map(|column| {
            OutlineEntry {
                depth: 1,
                name: column.name.clone(),
                text: column.about.clone(),
                place: places
                    .get(&key(&column.name))
                    .or(places.get(&key("")))
                    .copied(),
                ..OutlineEntry::default()
            }
        }));
    }
    entries
}

fn first_rows(database: &Database, quoted: &str) -> Vec<String> {
    let Ok(found) = database.query(&format!("SELECT * FROM {quoted} LIMIT {FIRST_ROWS}")) else {
        return Vec::new();
    };
    let line = |cells: Vec<String>| shortened(&cells.join(" | "), MAX_ROW_CHARS);
    let rows = found
        .rows
        .iter()
        .map(|row| line(row.iter().map(Cell::text).collect()));
    std::iter::once(line(found.columns.clone()))
        .chain(rows)
        .filter(|_| !found.rows.is_empty())
        .collect()
}

/// Line and column, from 1, of each table (with an empty column) and column, in lower case.
fn places(schema: &str) -> HashMap<(String, String), (usize, usize)> {
    let mut found = HashMap::new();
    let tokens = Tokenizer::new(&SQLiteDialect {}, schema)
        .tokenize_with_location()
        .unwrap_or_default();
    let meant: Vec<_> = tokens
        .iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)))
        .collect();
    let word = |index: usize| match meant.get(index).map(|token| &token.token) {
        Some(Token::Word(Word { value, .. }) | Token::DoubleQuotedString(value)) => {
            Some(value.to_ascii_lowercase())
        }
        _ => None,
    };
    let is = |index: usize, name: &str| word(index).is_some_and(|word| word == name);
    let place = |index: usize| {
        meant.get(index).map(|token| {
            (
                token.span.start.line as usize,
                token.span.start.column as usize,
            )
        })
    };
    for start in (0..meant.len()).filter(|start| is(*start, "create")) {
        let Some(kind) = (start + 1..start + 4).find(|at| is(*at, "table") || is(*at, "view"))
        else {
            continue;
        };
        let mut at = if is(kind + 1, "if") {
            kind + 4
        } else {
            kind + 1
        };
        if matches!(
            meant.get(at + 1).map(|token| &token.token),
            Some(Token::Period)
        ) {
            at += 2;
        }
        let (Some(table), Some(here)) = (word(at), place(at)) else {
            continue;
        };
        found.entry((table.clone(), String::new())).or_insert(here);
        // A column is the first word after the list's opening bracket and after each comma.
        let mut depth = 0_usize;
        for (index, token) in meant.iter().enumerate().skip(at + 1) {
            match &token.token {
                Token::LParen => depth += 1,
                Token::RParen if depth <= 1 => break,
                Token::RParen => depth -= 1,
                Token::SemiColon => break,
                _ => {}
            }
            let begins = depth == 1 && matches!(token.token, Token::LParen | Token::Comma);
            if let (true, Some(column), Some(here)) = (begins, word(index + 1), place(index + 1)) {
                found.entry((table.clone(), column)).or_insert(here);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_columns_rows_and_places() {
        let schema = "-- CREATE TABLE no (x)\nCREATE TABLE IF NOT EXISTS \"Line item\" (\n  id INTEGER PRIMARY KEY,\n  price DECIMAL(8, 2) NOT NULL, name\n);\nINSERT INTO \"Line item\" VALUES (1, 2.5, 'CREATE TABLE z (y)'), (2, 3, NULL);\nCREATE VIEW cheap AS SELECT id FROM \"Line item\" WHERE price < 3;\n";
        let shown = |entry: &OutlineEntry| {
            let (line, column) = entry.place.unwrap_or_default();
            let blanks = " ".repeat(entry.depth);
            format!(
                "{blanks}{}: {} @{line}:{column} {}",
                entry.name,
                entry.text,
                entry.details.join(" / ")
            )
        };
        let lines: Vec<String> = outline(schema)
            .iter()
            .map(|entry| shown(entry).trim_end().to_owned())
            .collect();
        assert_eq!(
            lines,
            [
                "Line item: a table, 2 rows @2:28 id | price | name / 1 | 2.5 | 'CREATE TABLE z (y)' / 2 | 3 | NULL",
                " id: INTEGER, primary key @3:3",
                " price: DECIMAL(8, 2), not null @4:3",
                " name: any type @4:33",
                "cheap: a view, 1 row @7:13 id / 1",
                " id: INTEGER @7:13",
            ]
        );
        assert!(outline("CREATE TABLE").is_empty());
    }
}
