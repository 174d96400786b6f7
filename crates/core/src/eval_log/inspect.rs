//! Logs of inspect: `.eval`, an archive with a file a sample, and the older `.json`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use zip::ZipArchive;
use zip::result::ZipError;

use super::sample::{
    EvalLogError, LogHeader, LogOptions, Sample, SampleResult, Take, content_text, conversation,
    fail, id_text, open,
};
use super::{json_stream, score_value};
use crate::format::{bytes, counted};

/// Bounds a sample with its events, unpacked: an archive can unpack to any size.
const MAX_SAMPLE_BYTES: u64 = 256 << 20;
/// Bounds an archive with all its samples.
const MAX_ARCHIVE_BYTES: u64 = 64 << 30;
/// The newest version of the format that is known.
const NEWEST: u64 = 2;
const HEADERS: [&str; 2] = ["header.json", "_journal/start.json"];

/// A sample without its events.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Row {
    id: Value,
    epoch: Value,
    input: Value,
    choices: Value,
    target: Value,
    output: Value,
    scores: Value,
    /// Of older logs.
    score: Value,
    error: Value,
    total_time: Value,
    attachments: Value,
}

pub(super) fn read_archive(
    path: &Path,
    options: &LogOptions,
    take: Take<'_>,
) -> Result<LogHeader, EvalLogError> {
    let broken = |error: &ZipError| match error {
        ZipError::InvalidArchive(_) => fail(
            path,
            "not a whole archive: it is cut short, or inspect still writes it; nothing was read",
        ),
        error => fail(path, format!("{error}; nothing was read")),
    };
    let mut archive =
        ZipArchive::new(BufReader::new(open(path)?)).map_err(|error| broken(&error))?;
    let (mut buffer, mut left) = (Vec::new(), MAX_ARCHIVE_BYTES);
    let header = HEADERS
        .into_iter()
        .find(|name| archive.index_for_name(name).is_some());
    let header: Map<String, Value> = match header {
        Some(name) => unpack(&mut archive, name, &mut buffer, &mut left)
            .and_then(|()| json_stream::parse(&buffer))
            .map_err(|problem| fail(path, format!("{name}: {problem}")))?,
        None => {
            return Err(fail(
                path,
                "an archive without header.json, so not a log of inspect",
            ));
        }
    };
    check_version(path, &header)?;
    let names = archive.file_names().flatten().map(Cow::into_owned);
    let names: Vec<String> = names
        .filter(|name| name.starts_with("samples/") && name.ends_with(".json"))
        .collect();
    let mut count = 0;
    for name in names.into_iter().take(options.most) {
        let read = unpack(&mut archive, &name, &mut buffer, &mut left)
            .and_then(|()| json_stream::parse(&buffer));
        count += usize::from(read.is_ok());
        take(sample(read, name));
    }
    Ok(about(&header, count))
}

/// Reads a file of the archive into the buffer. `left`: how many bytes more may be unpacked.
fn unpack<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    name: &str,
    buffer: &mut Vec<u8>,
    left: &mut u64,
) -> Result<(), String> {
    buffer.clear();
    let file = archive.by_name(name).map_err(|error| error.to_string())?;
    let most = MAX_SAMPLE_BYTES.min(*left);
    let read = file.take(most + 1).read_to_end(buffer);
    let length = buffer.len() as u64;
    *left = left.saturating_sub(length);
    match read {
        Err(error) => Err(format!("cannot be unpacked: {error}")),
        Ok(_) if length <= most => Ok(()),
        Ok(_) if most < MAX_SAMPLE_BYTES => Err(format!(
            "the archive unpacks to more than {}: the rest is not read",
            bytes(MAX_ARCHIVE_BYTES)
        )),
        Ok(_) => Err(format!(
            "unpacks to more than {}, which is not read",
            bytes(MAX_SAMPLE_BYTES)
        )),
    }
}

pub(super) fn read_json(
    path: &Path,
    options: &LogOptions,
    take: Take<'_>,
) -> Result<LogHeader, EvalLogError> {
    let mut count = 0;
    let kept = ["version", "status", "eval"];
    let (file, most) = (open(path)?, options.most);
    let header = json_stream::each_item(file, &["samples"], &kept, most, &mut |number, row| {
        count += usize::from(row.is_ok());
        take(sample(row, format!("sample {number}")));
    });
    check_version(path, &header)?;
    Ok(about(&header, count))
}

fn check_version(path: &Path, header: &Map<String, Value>) -> Result<(), EvalLogError> {
    let version = header.get("version").and_then(Value::as_u64).unwrap_or(1);
    if version <= NEWEST {
        return Ok(());
    }
    Err(fail(
        path,
        format!(
            "version {version} of inspect's log; versions 1 to {NEWEST} are read: write its samples as JSONL (prompt, completion, score, id)"
        ),
    ))
}

fn about(header: &Map<String, Value>, read: usize) -> LogHeader {
    let empty = Value::Null;
    let eval = header.get("eval").unwrap_or(&empty);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let status = text(header.get("status").unwrap_or(&empty));
    let epochs = eval["config"]["epochs"].as_u64().unwrap_or(1).max(1);
    let samples = eval["dataset"]["samples"].as_u64().unwrap_or(0);
    let all = samples.saturating_mul(epochs);
    let missing = (all as usize).saturating_sub(read);
    let mut notes = Vec::new();
    if missing > 0 || !["", "success"].contains(&status.as_str()) {
        notes.push(format!(
            "status `{status}`: {read} of {} are in the log",
            counted(all as usize, "sample")
        ));
    }
    LogHeader {
        program: "inspect",
        version: header
            .get("version")
            .map_or("1".to_owned(), |version| version.to_string()),
        task: text(&eval["task"]),
        model: text(&eval["model"]),
        notes,
    }
}

fn sample(row: Result<Row, String>, place: String) -> SampleResult {
    let row = match row {
        Ok(row) => row,
        Err(problem) => return Err((place, problem)),
    };
    let texts: HashMap<&str, &str> = row
        .attachments
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, text)| Some((key.as_str(), text.as_str()?)))
        .collect();
    let whole = |text: String| match text
        .strip_prefix("attachment://")
        .and_then(|key| texts.get(key))
    {
        Some(text) => (*text).to_owned(),
        None => text,
    };
    let choice = &row.output["choices"][0];
    let mut messages = conversation(&row.input);
    for message in &mut messages {
        message.content = whole(std::mem::take(&mut message.content));
    }
    let options = row.choices.as_array().into_iter().flatten();
    if let Some(last) = messages.last_mut() {
        for (option, letter) in options.zip('A'..='Z') {
            last.content += &format!("\n{letter}) {}", content_text(option));
        }
    }
    let completion = match &choice["message"]["content"] {
        Value::Null => &row.output["completion"],
        content => content,
    };
    let mut scores = Vec::new();
    let named = row.scores.as_object().into_iter().flatten();
    let old = (!row.score.is_null()).then_some(("score", &row.score));
    for (name, score) in named.map(|(name, score)| (name.as_str(), score)).chain(old) {
        let value = score.get("value").unwrap_or(score);
        let why = score["explanation"].as_str().unwrap_or_default();
        score_value::push(&mut scores, name, value, why);
    }
    let targets = row.target.as_array().map(Vec::as_slice);
    let expected = match (targets, &row.target) {
        (Some([]), _) | (_, Value::Null) => None,
        (Some([one]), _) => Some(one.clone()),
        (_, Value::String(text)) if text.is_empty() => None,
        (_, target) => Some(target.clone()),
    };
    let error = match &row.error["message"] {
        Value::String(message) => Some(message.lines().next().unwrap_or_default().to_owned()),
        _ => None,
    };
    Ok(Sample {
        place,
        id: id_text(&row.id),
        sample: row
            .epoch
            .as_u64()
            .map(|epoch| (epoch as usize).saturating_sub(1)),
        messages,
        completion: whole(content_text(completion)),
        expected,
        scores,
        error,
        tokens: row.output["usage"]["output_tokens"]
            .as_u64()
            .map(|tokens| tokens as usize),
        seconds: row.total_time.as_f64().unwrap_or(0.0),
        truncated: choice["stop_reason"] == "max_tokens",
        ..Sample::default()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    #[test]
    fn all_files_of_an_archive_are_bounded_together() {
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for name in ["a", "b", "c"] {
            let options = zip::write::SimpleFileOptions::default();
            archive.start_file(name, options).unwrap();
            archive.write_all(&[b'x'; 10]).unwrap();
        }
        let mut archive = ZipArchive::new(archive.finish().unwrap()).unwrap();
        let (mut buffer, mut left) = (Vec::new(), 20);
        let mut check = |name: &str, expected: Result<(), &str>| {
            let found = unpack(&mut archive, name, &mut buffer, &mut left);
            assert_eq!(found, expected.map_err(str::to_owned), "{name}");
        };
        check("a", Ok(()));
        check("b", Ok(()));
        check(
            "c",
            Err("the archive unpacks to more than 68.7 GB: the rest is not read"),
        );
    }
}
