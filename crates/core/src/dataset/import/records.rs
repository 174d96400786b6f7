//! Reads records of CSV, JSON, JSONL and Parquet files with their lines.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::path::Path;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::conversation::stored_as_text;
use super::parquet::{LeftOut, parquet_lines};
use crate::dataset::error::DatasetError;
use crate::dataset::messages::json_fault;
use crate::dataset::row::read_lines;
use crate::dataset::row::{NumberedLine, not_json};
use crate::exact_json;
use crate::files;
use crate::format::{bytes as bytes_of, counted, grouped, shortened};

/// CSV delimiters recognised in the header.
const DELIMITERS: [u8; 4] = *b",;\t|";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A header, then one record per line; cells separated by `,`, `;`, tab or `|`.
    Csv,
    Json,
    /// One object per line.
    Jsonl,
    Parquet,
}

impl Format {
    pub const NAMES: [&str; 4] = ["csv", "json", "jsonl", "parquet"];

    pub fn from_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Columns in file order. CSV cells are strings.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// First line, from 1; in Parquet the row.
    pub line: usize,
    pub fields: Map<String, Value>,
}

type Records = Box<dyn Iterator<Item = Result<Record, (usize, String)>>>;

/// Limit per import.
const MAX_RECORDS: usize = 1_000_000;
/// Approximate memory limit: a small file can decode to any size.
const MAX_RECORD_BYTES: usize = 1 << 30;
/// Values shown per column, and characters of each.
const SAMPLE_VALUES: usize = 3;
const MAX_SAMPLE_CHARS: usize = 40;
const MAX_CSV_RECORD_BYTES: usize = 64 << 20;

/// Reads the first `most` records.
///
/// # Errors
/// An unreadable file, or a malformed record, by line.
pub fn read_records(path: &Path, most: usize) -> Result<Vec<Record>, DatasetError> {
    records(path, most)?.collect()
}

/// Yields the first `most` records, at least one. Items may be errors as in [`read_records`];
/// exceeding an import's limits ends with an error.
///
/// # Errors
/// An unreadable file, or no records.
pub fn records(
    path: &Path,
    most: usize,
) -> Result<impl Iterator<Item = Result<Record, DatasetError>>, DatasetError> {
    records_without(path, most, &LeftOut::default())
}

/// As [`records`]; `left_out` gets the binary columns that they lack.
pub(super) fn records_without(
    path: &Path,
    most: usize,
    left_out: &LeftOut,
) -> Result<impl Iterator<Item = Result<Record, DatasetError>> + use<>, DatasetError> {
    let label = path.display().to_string();
    let mut records = all_records(path, &label, left_out)?.take(most).peekable();
    if records.peek().is_none() {
        return Err(DatasetError::Import {
            label,
            problem: "no records".to_owned(),
        });
    }
    let (mut count, mut bytes) = (0, 0);
    Ok(records.map(move |record| {
        let mut record = record.map_err(|(line, problem)| DatasetError::Line {
            label: label.clone(),
            line,
            problem,
        })?;
        for value in record.fields.values_mut() {
            if let Some(turns) = value.as_str().and_then(stored_as_text) {
                *value = turns;
            }
        }
        count += 1;
        bytes += record
            .fields
            .iter()
            .map(|(name, value)| name.len() + size_of_value(value))
            .sum::<usize>();
        if count <= MAX_RECORDS && bytes <= MAX_RECORD_BYTES {
            return Ok(record);
        }
        let limit = match count > MAX_RECORDS {
            true => format!("more than {} records", grouped(MAX_RECORDS as u64)),
            false => {
                format!(
                    "its first {} records take more than {}",
                    grouped(count as u64),
                    bytes_of(MAX_RECORD_BYTES as u64)
                )
            }
        };
        let problem =
            format!("{limit}; import a part of it with --limit N, or without unneeded columns");
        Err(DatasetError::Import {
            label: label.clone(),
            problem,
        })
    }))
}

/// Estimates a value's memory in bytes.
fn size_of_value(value: &Value) -> usize {
    let own = size_of::<Value>() + size_of::<String>();
    own + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size_of_value).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| name.len() + size_of_value(value))
            .sum(),
        _ => 0,
    }
}

fn all_records(path: &Path, label: &str, left_out: &LeftOut) -> Result<Records, DatasetError> {
    let format = Format::from_path(path).ok_or_else(|| DatasetError::Import {
        label: label.to_owned(),
        problem: if path.is_dir() {
            "is a folder; name a file".to_owned()
        } else {
            format!(
                "unknown kind of file; name it .{}",
                Format::NAMES.join(", .")
            )
        },
    })?;
    let fail = |source| DatasetError::File {
        path: label.to_owned(),
        source,
        remedy: "name a readable file",
    };
    Ok(match format {
        Format::Json => json(exact_json::mark(&files::read_text(path).map_err(fail)?).into_owned()),
        Format::Csv => {
            csv(std::io::BufReader::new(files::open(path).map_err(fail)?)).map_err(fail)?
        }
        Format::Jsonl => json_lines(read_lines(std::io::BufReader::new(
            files::open(path).map_err(fail)?,
        ))),
        Format::Parquet => {
            let lines = parquet_lines(files::open(path).map_err(fail)?, left_out.clone());
            json_lines(lines.map_err(|problem| DatasetError::Import {
                label: label.to_owned(),
                problem,
            })?)
        }
    })
}

pub fn columns(records: &[Record]) -> Vec<String> {
    let mut known = std::collections::HashSet::new();
    let keys = records.iter().flat_map(|record| record.fields.keys());
    keys.filter(|key| known.insert(key.as_str()))
        .cloned()
        .collect()
}

/// Each column with its first values: `"Where is my parcel?", "Refund"`.
pub fn column_samples(records: &[Record]) -> Vec<(String, String)> {
    let samples = |column: String| {
        let cells = records
            .iter()
            .filter_map(|record| record.fields.get(&column));
        let values: Vec<String> = cells
            .filter(|value| !value.is_null() && **value != "")
            .take(SAMPLE_VALUES)
            .map(|value| shortened(&exact_json::write(value), MAX_SAMPLE_CHARS))
            .collect();
        let values = match values.is_empty() {
            true => "empty".to_owned(),
            false => values.join(", "),
        };
        (column, values)
    };
    columns(records).into_iter().map(samples).collect()
}

fn json_lines(lines: impl Iterator<Item = NumberedLine> + 'static) -> Records {
    Box::new(lines.map(|line| {
        let (line, bytes) = line?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| (line, "not UTF-8; save the file as UTF-8".to_owned()))?;
        let text = text.trim_end_matches(['\r', '\n']);
        let value = exact_json::parse(text).map_err(|error| (line, not_json(&error, text)))?;
        record(line, value)
    }))
}

/// Reads a list of objects one by one, to know their lines; an error is the last.
fn json(text: String) -> Records {
    let mut list = Some(JsonList {
        text,
        at: 0,
        line: 1,
        is_begun: false,
    });
    Box::new(std::iter::from_fn(move || {
        let next = list.as_mut()?.next_record().transpose();
        if !matches!(next, Some(Ok(_))) {
            list = None;
        }
        next
    }))
}

struct JsonList {
    text: String,
    at: usize,
    line: usize,
    is_begun: bool,
}

impl JsonList {
    /// Moves to a position and past following white space.
    fn advance(&mut self, to: usize) {
        let rest = self.text.get(to..).unwrap_or_default();
        let to = to + rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.line += self
            .text
            .get(self.at..to)
            .unwrap_or_default()
            .matches('\n')
            .count();
        self.at = to;
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn next_record(&mut self) -> Result<Option<Record>, (usize, String)> {
        if !self.is_begun {
            let mark = self.text.len() - self.text.trim_start_matches('\u{feff}').len();
            self.advance(mark);
            if !self.rest().starts_with('[') {
                let problem =
                    "not a list; write [{…}, {…}], or one object per line in a .jsonl file"
                        .to_owned();
                return Err((self.line, problem));
            }
        }
        match self.rest().chars().next() {
            Some(']') => return self.end(),
            Some('[') if !self.is_begun => self.advance(self.at + 1),
            Some(',') => self.advance(self.at + 1),
            _ => return Err((self.line, "expected `,` or `]` after the record".to_owned())),
        }
        if !std::mem::replace(&mut self.is_begun, true) && self.rest().starts_with(']') {
            return self.end();
        }
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<Value>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                return Err((
                    self.line + error.line().saturating_sub(1),
                    json_fault(&error),
                ));
            }
            None => {
                return Err((
                    self.line,
                    "the list has no end; write ] after the last record".to_owned(),
                ));
            }
        };
        let (line, end) = (self.line, self.at + values.byte_offset());
        self.advance(end);
        record(line, value).map(Some)
    }

    fn end(&mut self) -> Result<Option<Record>, (usize, String)> {
        self.advance(self.at + 1);
        match self.rest().is_empty() {
            true => Ok(None),
            false => Err((self.line, "text after the end of the list".to_owned())),
        }
    }
}

fn record(line: usize, value: Value) -> Result<Record, (usize, String)> {
    match value {
        Value::Object(fields) => Ok(Record { line, fields }),
        other => Err((
            line,
            format!("expected an object, found `{}`", clip(&other.to_string())),
        )),
    }
}

/// Records below the header.
fn csv(mut reader: impl BufRead + 'static) -> std::io::Result<Records> {
    let mut header = Vec::new();
    reader
        .by_ref()
        .take(1 << 20)
        .read_until(b'\n', &mut header)?;
    if header.is_empty() {
        let problem = "the file is empty; the first line names the columns".to_owned();
        return Ok(Box::new(std::iter::once(Err((1, problem)))));
    }
    let end = header
        .iter()
        .position(|byte| matches!(byte, b'\r' | b'\n'))
        .unwrap_or(header.len());
    let delimiter = delimiter_of(&header[..end]);
    let scan = Rc::new(RefCell::new(QuoteScan::new(delimiter)));
    let text = ScannedReader {
        reader: std::io::Cursor::new(header).chain(reader),
        scan: Rc::clone(&scan),
    };
    // Wrong lengths are rejected below, where cells are known.
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .from_reader(text);
    let names = reader.headers().cloned();
    let start = scan.borrow_mut().next_record();
    let names = match (names, start.unclosed) {
        (_, Some(quote)) => return Ok(Box::new(std::iter::once(Err(quote.problem())))),
        (Ok(names), None) => names,
        (Err(error), None) => return Ok(Box::new(std::iter::once(Err((1, csv_error(&error)))))),
    };
    let names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).collect();
    if let Some(problem) = bad_header(&names) {
        return Ok(Box::new(std::iter::once(Err((1, problem)))));
    }
    Ok(Box::new(reader.into_records().map(move |cells| {
        let start = scan.borrow_mut().next_record();
        if let Some(quote) = start.unclosed {
            return Err(quote.problem());
        }
        let cells = cells.map_err(|error| (start.line, csv_error(&error)))?;
        if let Some(problem) = bad_cells(&names, &cells) {
            return Err((start.line, problem));
        }
        let fields = names
            .iter()
            .zip(&cells)
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, cell)| (name.clone(), Value::from(cell)));
        Ok(Record {
            line: start.line,
            fields: fields.collect(),
        })
    })))
}

/// Start of a quoted cell.
#[derive(Debug, Clone, Copy)]
struct Quote {
    /// 1-based.
    line: usize,
    column: usize,
}

impl Quote {
    fn problem(self) -> (usize, String) {
        let column = self.column;
        let problem =
            format!("the quote in column {column} is never closed; write `\"` after the cell");
        (self.line, problem)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct RecordStart {
    line: usize,
    unclosed: Option<Quote>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CellState {
    RecordStart,
    CellStart,
    Plain,
    Quoted,
    /// A quote was read in a quoted cell: its end, or an escape.
    Closing,
}

/// Tracks the bytes read by the CSV reader, which closes a quote wherever the next one is and has
/// no line for it.
#[derive(Debug)]
struct QuoteScan {
    delimiter: u8,
    line: usize,
    column: usize,
    last: u8,
    state: CellState,
    open: Option<Quote>,
    /// Bytes since the last record.
    read: usize,
    /// Records read ahead.
    begun: VecDeque<RecordStart>,
}

impl QuoteScan {
    fn new(delimiter: u8) -> Self {
        Self {
            delimiter,
            line: 1,
            column: 1,
            last: 0,
            state: CellState::RecordStart,
            open: None,
            read: 0,
            begun: VecDeque::new(),
        }
    }

    fn take(&mut self, byte: u8) {
        let is_break = matches!(byte, b'\r' | b'\n');
        self.line += usize::from(is_break && !(byte == b'\n' && self.last == b'\r'));
        self.last = byte;
        if self.state == CellState::RecordStart {
            // A byte order mark precedes the first cell.
            if is_break || (self.line == 1 && matches!(byte, 0xef | 0xbb | 0xbf)) {
                return;
            }
            (self.state, self.column) = (CellState::CellStart, 1);
            self.begun.push_back(RecordStart {
                line: self.line,
                unclosed: None,
            });
        }
        let is_delimiter = byte == self.delimiter;
        self.state = match (self.state, byte) {
            (CellState::CellStart, b'"') => {
                self.open = Some(Quote {
                    line: self.line,
                    column: self.column,
                });
                CellState::Quoted
            }
            (CellState::Quoted, b'"') => CellState::Closing,
            (CellState::Quoted, _) | (CellState::Closing, b'"') => CellState::Quoted,
            (state, _) => {
                // Text after a cell's end: it begins another cell.
                let is_stray = state == CellState::Closing
                    && !(is_break || is_delimiter || matches!(byte, b' ' | b'\t'));
                let spans = self.open.filter(|quote| is_stray && quote.line < self.line);
                self.open = None;
                self.note(spans);
                match (is_break, is_delimiter) {
                    (true, _) => CellState::RecordStart,
                    (_, true) => {
                        self.column += 1;
                        CellState::CellStart
                    }
                    _ => CellState::Plain,
                }
            }
        };
    }

    fn note(&mut self, quote: Option<Quote>) {
        if let (Some(quote), Some(record)) = (quote, self.begun.back_mut()) {
            record.unclosed.get_or_insert(quote);
        }
    }

    /// End of text, or a record beyond the limit.
    fn end(&mut self) {
        let open = self.open.filter(|_| self.state == CellState::Quoted);
        self.note(open);
    }

    fn next_record(&mut self) -> RecordStart {
        self.read = 0;
        self.begun.pop_front().unwrap_or(RecordStart {
            line: self.line,
            unclosed: None,
        })
    }
}

/// Limits each record: an unclosed quote would make one record of the rest.
struct ScannedReader<R> {
    reader: R,
    scan: Rc<RefCell<QuoteScan>>,
}

impl<R: Read> Read for ScannedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let mut scan = self.scan.borrow_mut();
        buffer[..read].iter().for_each(|byte| scan.take(*byte));
        scan.read += read;
        let is_long = scan.read > MAX_CSV_RECORD_BYTES;
        if read == 0 || is_long {
            scan.end();
        }
        match is_long {
            false => Ok(read),
            true => Err(std::io::Error::other(format!(
                "a record of more than {}",
                bytes_of(MAX_CSV_RECORD_BYTES as u64)
            ))),
        }
    }
}

fn bad_cells(names: &[String], cells: &csv::StringRecord) -> Option<String> {
    let advice = match cells.len().cmp(&names.len()) {
        Ordering::Equal => {
            // A nameless first column is a row number of pandas or R.
            let nameless = names.iter().zip(cells).enumerate().skip(1);
            let (place, (_, cell)) = nameless
                .into_iter()
                .find(|(_, (name, cell))| name.is_empty() && !cell.trim().is_empty())?;
            let cell = clip(cell);
            return Some(format!(
                "column {} has no name, and `{cell}` in it; name it in the first line",
                place + 1
            ));
        }
        Ordering::Less => "write a delimiter for each empty cell",
        Ordering::Greater => "quote cells that hold the delimiter",
    };
    let (cells, columns) = (counted(cells.len(), "cell"), counted(names.len(), "column"));
    Some(format!("{cells}, but the header names {columns}; {advice}"))
}

/// The most frequent in the header, outside quotes.
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
    // Ties go to the first.
    let best = (0..counts.len())
        .rev()
        .max_by_key(|place| counts[*place])
        .unwrap_or(0);
    DELIMITERS[best]
}

fn bad_header(names: &[String]) -> Option<String> {
    let mut known = std::collections::HashSet::new();
    let mut named = names.iter().filter(|name| !name.is_empty());
    let twice = named.find(|name| !known.insert(name.as_str()));
    match twice {
        Some(name) => Some(format!(
            "two columns are named `{name}`; give each its own name"
        )),
        None if known.is_empty() => {
            Some("no column has a name; the first line names the columns".to_owned())
        }
        None => None,
    }
}

fn csv_error(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Utf8 { err, .. } => {
            format!(
                "cell {} is not UTF-8; save the file as UTF-8",
                err.field() + 1
            )
        }
        _ => error.to_string(),
    }
}

/// Truncates to 60 characters.
pub(super) fn clip(text: &str) -> String {
    shortened(text, 60)
}
