//! Reads the records of a CSV, JSON, JSONL or Parquet file, each with its line.

use std::cmp::Ordering;
use std::io::{BufRead, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::parquet::parquet_lines;
use crate::dataset::messages::json_fault;
use crate::dataset::row::{NumberedLine, not_json};
use crate::dataset::{DatasetError, read_lines};
use crate::files;
use crate::format::counted;

/// Delimiters of CSV that are recognized in the header.
const DELIMITERS: [u8; 4] = *b",;\t|";
/// Follows the text of a CSV file: a record of its own, unless a quote is still open there.
const END: &str = "\n\0";

/// How a file holds its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A header, then a record a line; `,`, `;`, tabs or `|` between the cells.
    Csv,
    /// A list of objects.
    Json,
    /// An object a line.
    Jsonl,
    /// A record a row.
    Parquet,
}

impl Format {
    pub const NAMES: [&str; 4] = ["csv", "json", "jsonl", "parquet"];

    /// By a file's ending.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// A record: its columns in the order of the file. The cells of a CSV file are strings.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The first line of the record, from 1; in Parquet its row.
    pub line: usize,
    pub fields: Map<String, Value>,
}

type Records = Box<dyn Iterator<Item = Result<Record, (usize, String)>>>;

/// The first `most` records of a file.
///
/// # Errors
/// The file cannot be read, or a line of it is no record; the error names the line.
pub fn read_records(path: &Path, most: usize) -> Result<Vec<Record>, DatasetError> {
    let label = path.display().to_string();
    let format = Format::of(path).ok_or_else(|| DatasetError::Import {
        label: label.clone(),
        problem: format!("unknown kind of file; name it .{}", Format::NAMES.join(", .")),
    })?;
    let fail = |source| DatasetError::File { path: label.clone(), source, remedy: "name a readable file" };
    let records: Records = match format {
        Format::Json => json(&files::read_text(path).map_err(fail)?),
        Format::Csv => csv(std::io::BufReader::new(files::open(path).map_err(fail)?)).map_err(fail)?,
        Format::Jsonl => json_lines(read_lines(std::io::BufReader::new(files::open(path).map_err(fail)?))),
        Format::Parquet => json_lines(
            parquet_lines(files::open(path).map_err(fail)?)
                .map_err(|problem| DatasetError::Import { label: label.clone(), problem })?,
        ),
    };
    let error = |(line, problem)| DatasetError::Line { label: label.clone(), line, problem };
    let records: Vec<Record> = records.take(most).map(|record| record.map_err(error)).collect::<Result<_, _>>()?;
    if records.is_empty() {
        return Err(DatasetError::Import { label, problem: "no records".to_owned() });
    }
    Ok(records)
}

/// The columns of all records, in the order of their first appearance.
pub fn columns(records: &[Record]) -> Vec<String> {
    let mut known = std::collections::HashSet::new();
    let keys = records.iter().flat_map(|record| record.fields.keys());
    keys.filter(|key| known.insert(key.as_str())).cloned().collect()
}

fn json_lines(lines: impl Iterator<Item = NumberedLine> + 'static) -> Records {
    Box::new(lines.map(|line| {
        let (line, bytes) = line?;
        let text = std::str::from_utf8(&bytes).map_err(|_| (line, "not UTF-8; save the file as UTF-8".to_owned()))?;
        let text = text.trim_end_matches(['\r', '\n']);
        let value = serde_json::from_str(text).map_err(|error| (line, not_json(&error, text)))?;
        record(line, value)
    }))
}

/// A list of objects, read one by one, so that each has its line.
fn json(text: &str) -> Records {
    let mut records = Vec::new();
    if let Err(error) = push_json(text, &mut records) {
        records.push(Err(error));
    }
    Box::new(records.into_iter())
}

fn push_json(text: &str, records: &mut Vec<Result<Record, (usize, String)>>) -> Result<(), (usize, String)> {
    let text = text.trim_start_matches('\u{feff}');
    let (mut at, mut line) = (0, 1);
    let lines = |from: usize, to: usize| text.get(from..to).unwrap_or_default().matches('\n').count();
    // Where the next token begins, and its line.
    let next = |at: usize, line: usize| {
        let rest = text.get(at..).unwrap_or_default();
        let start = at + rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        (start, line + lines(at, start))
    };
    (at, line) = next(at, line);
    if !text[at..].starts_with('[') {
        return Err((line, "not a list; write [{…}, {…}], or one object a line in a .jsonl file".to_owned()));
    }
    at += 1;
    loop {
        (at, line) = next(at, line);
        if text[at..].starts_with(']') && records.is_empty() {
            break;
        }
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) => return Err((line + error.line().saturating_sub(1), json_fault(&error))),
            None => return Err((line, "the list has no end; write ] after the last record".to_owned())),
        };
        let end = at + values.byte_offset();
        records.push(record(line, value));
        (at, line) = next(end, line + lines(at, end));
        match text[at..].chars().next() {
            Some(',') => at += 1,
            Some(']') => break,
            _ => return Err((line, "neither `,` nor `]` after the record".to_owned())),
        }
    }
    match text[at + 1..].trim().is_empty() {
        true => Ok(()),
        false => Err((line, "text after the end of the list".to_owned())),
    }
}

fn record(line: usize, value: Value) -> Result<Record, (usize, String)> {
    match value {
        Value::Object(fields) => Ok(Record { line, fields }),
        other => Err((line, format!("expected an object, found `{}`", clip(&other.to_string())))),
    }
}

/// The records below the header; an error if the file cannot be read.
fn csv(mut reader: impl BufRead + 'static) -> std::io::Result<Records> {
    let mut header = Vec::new();
    reader.by_ref().take(1 << 20).read_until(b'\n', &mut header)?;
    if header.is_empty() {
        let problem = "the file is empty; the first line names the columns".to_owned();
        return Ok(Box::new(std::iter::once(Err((1, problem)))));
    }
    let delimiter = delimiter_of(&header);
    // The reader counts a line when its line feed is read, which it leaves for later after a carriage return.
    let late = usize::from(header.ends_with(b"\r\n"));
    let text = std::io::Cursor::new(header).chain(reader).chain(END.as_bytes());
    // Records of another length are refused below, where the cells are known.
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text);
    let names = match reader.headers() {
        Ok(names) => names.clone(),
        Err(error) => return Ok(Box::new(std::iter::once(Err((1, csv_error(&error)))))),
    };
    let names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).collect();
    if let Some(problem) = bad_header(&names) {
        return Ok(Box::new(std::iter::once(Err((1, problem)))));
    }
    let is_row = |cells: &csv::Result<csv::StringRecord>| !cells.as_ref().is_ok_and(|cells| *cells == ["\0"][..]);
    Ok(Box::new(reader.into_records().take_while(is_row).map(move |cells| {
        let cells = cells.map_err(|error| {
            let line = error.position().map_or(1, |position| position.line() as usize + late);
            (line, csv_error(&error))
        })?;
        let line = cells.position().map_or(0, |position| position.line() as usize + late);
        if let Some(problem) = bad_cells(&names, &cells) {
            return Err((line, problem));
        }
        let fields = names.iter().zip(&cells).map(|(name, cell)| (name.clone(), Value::from(cell)));
        Ok(Record { line, fields: fields.collect() })
    })))
}

fn bad_cells(names: &[String], cells: &csv::StringRecord) -> Option<String> {
    let last = names.get(cells.len().saturating_sub(1)).map_or("", String::as_str);
    if cells.iter().next_back().is_some_and(|cell| cell.ends_with(END)) {
        return Some(format!("column `{last}`: the quote is never closed; write `\"` after the cell"));
    }
    let advice = match cells.len().cmp(&names.len()) {
        Ordering::Equal => return None,
        Ordering::Less => "write a delimiter for each empty cell",
        Ordering::Greater => "quote cells that hold the delimiter",
    };
    let (cells, columns) = (counted(cells.len(), "cell"), counted(names.len(), "column"));
    Some(format!("{cells}, but the header names {columns}; {advice}"))
}

/// The one that stands most often in the header, quoted names aside.
fn delimiter_of(header: &[u8]) -> u8 {
    let mut counts = [0; DELIMITERS.len()];
    let mut quoted = false;
    for byte in header {
        match DELIMITERS.iter().position(|delimiter| delimiter == byte) {
            _ if *byte == b'"' => quoted = !quoted,
            Some(place) if !quoted => counts[place] += 1,
            _ => {}
        }
    }
    // Of equal ones the first.
    let best = (0..counts.len()).rev().max_by_key(|place| counts[*place]).unwrap_or(0);
    DELIMITERS[best]
}

fn bad_header(names: &[String]) -> Option<String> {
    let mut known = std::collections::HashSet::new();
    let twice = names.iter().find(|name| !known.insert(name.as_str()));
    let empty = names.iter().position(|name| name.is_empty());
    if names.iter().any(|name| name.ends_with('\0')) {
        return Some("a quote in the header is never closed; the first line names the columns".to_owned());
    }
    match (empty, twice) {
        (Some(place), _) => Some(format!("column {} has no name; the first line names the columns", place + 1)),
        (None, Some(name)) => Some(format!("two columns are named `{name}`; give each its own name")),
        _ => None,
    }
}

fn csv_error(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Utf8 { err, .. } => {
            format!("cell {} is not UTF-8; save the file as UTF-8", err.field() + 1)
        }
        _ => error.to_string(),
    }
}

/// At most 60 characters.
pub(super) fn clip(text: &str) -> String {
    crate::format::shortened(text, 60)
}
