//! Results of promptfoo: its JSON document, and a result a line.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::sample::{EvalLogError, LogHeader, LogOptions, Sample, Take, conversation, open};
use super::{json_stream, score_value};
use crate::format::hex;
use crate::text::Message;

/// `failureReason` of a request that failed.
const ERROR: u64 = 2;
const LETTERS: usize = 12;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Row {
    provider: Value,
    prompt: Value,
    prompt_idx: Value,
    vars: Value,
    test_case: Value,
    response: Value,
    success: Value,
    score: Value,
    named_scores: Value,
    grading_result: Value,
    error: Value,
    failure_reason: Value,
    latency_ms: Value,
}

/// `is_lines`: a result a line, else one document.
pub(super) fn read(
    path: &Path,
    options: &LogOptions,
    is_lines: bool,
    take: Take<'_>,
) -> Result<LogHeader, EvalLogError> {
    type Item<'a> = &'a mut dyn FnMut(usize, Result<Row, String>);
    let each = |most: usize, item: Item<'_>| -> Result<_, EvalLogError> {
        let file = open(path)?;
        if !is_lines {
            let (list, kept) = (["results", "results"], ["version"]);
            return Ok(json_stream::each_item(file, &list, &kept, most, item));
        }
        json_stream::each_line(file, most, item);
        Ok(Map::new())
    };
    // Read twice: what a prompt is depends on how many there are.
    let mut prompts = BTreeSet::new();
    let header = each(usize::MAX, &mut |_, row| {
        prompts.extend(row.map(|row| row.prompt["label"].to_string()));
    })?;
    let part = if is_lines { "line" } else { "result" };
    each(options.most, &mut |number, row| {
        let place = format!("{part} {number}");
        take(match row {
            Ok(row) => Ok(sample(row, place, prompts.len())),
            Err(problem) => Err((place, problem)),
        });
    })?;
    let version = header.get("version").map(Value::to_string);
    Ok(LogHeader {
        program: "promptfoo",
        version: version.unwrap_or_default(),
        ..LogHeader::default()
    })
}

/// `prompts`: how many templates the log has. With several the row is the test, and each of them is
/// a model of its own. Repeats of a test have indices of their own, so its variables identify it.
fn sample(row: Row, place: String, prompts: usize) -> Sample {
    let label = |value: &Value| {
        let named = ["label", "id"]
            .iter()
            .filter_map(|key| value[*key].as_str());
        let named = { named }.find(|name| !name.is_empty());
        named.or(value.as_str()).unwrap_or_default().to_owned()
    };
    let raw = row.prompt["raw"].as_str().unwrap_or_default();
    let provider = label(&row.provider);
    let column = row.prompt_idx.as_u64().unwrap_or(0);
    let messages = match serde_json::from_str::<Value>(raw) {
        _ if prompts > 1 => vec![Message::new("user", json!(row.vars).to_string())],
        Ok(turns @ Value::Array(_)) => conversation(&turns),
        _ => vec![Message::new("user", raw)],
    };
    // A test without variables is its prompt.
    let has_vars = row.vars.as_object().is_some_and(|vars| !vars.is_empty());
    let test = json!([
        row.vars,
        row.test_case["assert"],
        if has_vars { "" } else { raw }
    ]);
    let hash = hex(&Sha256::digest(test.to_string().as_bytes()));
    let reason = row.grading_result["reason"].as_str().unwrap_or_default();
    let mut scores = Vec::new();
    let is_error = row.failure_reason.as_u64() == Some(ERROR)
        || row.response["output"].is_null() && row.response["error"].is_string();
    if !is_error {
        score_value::push(&mut scores, "pass", &row.success, reason);
        score_value::push(&mut scores, "score", &row.score, reason);
        let named = row.named_scores.as_object().into_iter().flatten();
        named.for_each(|(name, value)| score_value::push(&mut scores, name, value, ""));
    }
    let completion = match &row.response["output"] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let error = row.error.as_str().filter(|_| is_error);
    Sample {
        place,
        model: match prompts {
            0 | 1 => format!("{provider}\n{column}"),
            _ => format!("{provider} {}\n{column}", label(&row.prompt)),
        },
        id: Some(format!("test-{}", &hash[..LETTERS])),
        messages,
        completion,
        expected: expected(&row.test_case),
        scores,
        error: error.map(str::to_owned),
        tokens: row.response["tokenUsage"]["completion"]
            .as_u64()
            .map(|tokens| tokens as usize),
        seconds: row.latency_ms.as_f64().unwrap_or(0.0) / 1000.0,
        truncated: row.response["finishReason"] == "length",
        ..Sample::default()
    }
}

/// The value of the test's only assertion of equality.
fn expected(test: &Value) -> Option<Value> {
    let mut equal = test["assert"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|assertion| assertion["type"] == "equals")
        .map(|assertion| assertion["value"].clone());
    equal.next().filter(|_| equal.next().is_none())
}
