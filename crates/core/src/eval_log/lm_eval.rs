//! lm-eval's `samples_TASK_DATE.jsonl`: a line a document and filter.

use std::path::Path;

use serde_json::{Map, Value};

use super::sample::{
    EvalLogError, LogHeader, LogOptions, Sample, Take, conversation, id_text, open,
};
use super::{json_stream, score_value};
use crate::text::Message;

/// Keys of a line that are no metrics, for logs without the list `metrics`.
const OWN: [&str; 11] = [
    "doc_id",
    "doc",
    "target",
    "arguments",
    "resps",
    "filtered_resps",
    "filter",
    "metrics",
    "doc_hash",
    "prompt_hash",
    "target_hash",
];

pub(super) fn read(
    path: &Path,
    options: &LogOptions,
    take: Take<'_>,
) -> Result<LogHeader, EvalLogError> {
    let asked = options.score.as_deref().or(options.exact.as_deref());
    let mut filter: Option<String> =
        asked.and_then(|name| Some(name.split_once(',')?.1.to_owned()));
    let (mut other, mut others) = (0, Vec::new());
    let mut item = |number, line: Result<Map<String, Value>, String>| {
        let place = format!("line {number}");
        let line = match line {
            Ok(line) => line,
            Err(problem) => return take(Err((place, problem))),
        };
        let own = line.get("filter").and_then(Value::as_str).unwrap_or("none");
        if own != filter.get_or_insert_with(|| own.to_owned()) {
            other += 1;
            if !others.iter().any(|name| name == own) {
                others.push(own.to_owned());
            }
            return;
        }
        take(Ok(sample(&line, place, own)));
    };
    json_stream::each_line(open(path)?, options.most, &mut item);
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let task = name.strip_prefix("samples_").unwrap_or(&name);
    // samples_gsm8k_2024-05-01T10-20-30.123456
    let task = task.rsplit_once("_20").map_or(task, |(task, _)| task);
    let notes = (other > 0).then(|| {
        format!(
            "filter `{}` is read; {other} lines of {} are not: --score METRIC,FILTER chooses",
            filter.unwrap_or_default(),
            others.join(", ")
        )
    });
    let folder = path.parent().and_then(Path::file_name);
    let model = folder.unwrap_or_default().to_string_lossy();
    Ok(LogHeader {
        program: "lm-eval",
        task: task.to_owned(),
        model: model.replace("__", "/"),
        notes: notes.into_iter().collect(),
        ..LogHeader::default()
    })
}

fn sample(line: &Map<String, Value>, place: String, filter: &str) -> Sample {
    let get = |key: &str| line.get(key).unwrap_or(&Value::Null);
    let suffix = match filter {
        "none" => String::new(),
        filter => format!(",{filter}"),
    };
    let listed = get("metrics").as_array().into_iter().flatten();
    let mut names: Vec<&str> = listed.filter_map(Value::as_str).collect();
    if names.is_empty() {
        let keys = line.keys().map(String::as_str);
        names = keys.filter(|key| !OWN.contains(key)).collect();
    }
    let mut scores = Vec::new();
    for name in names {
        score_value::push(&mut scores, &format!("{name}{suffix}"), get(name), "");
    }
    let target = get("target");
    let target = match target.as_str() {
        Some("") => None,
        _ => Some(target.clone()).filter(|target| !target.is_null()),
    };
    Sample {
        place,
        id: id_text(get("doc_id")),
        messages: prompt(get("arguments")),
        completion: answer(line),
        expected: target,
        scores,
        ..Sample::default()
    }
}

/// The first request's text, which may be the JSON of a conversation.
fn prompt(arguments: &Value) -> Vec<Message> {
    let first = match arguments {
        Value::Array(requests) => requests.first().map(|request| &request[0]),
        _ => Some(&arguments["gen_args_0"]["arg_0"]),
    };
    let text = match first {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => match parts.first() {
            Some(Value::String(text)) => text,
            _ => return conversation(&Value::Array(parts.clone())),
        },
        _ => return Vec::new(),
    };
    match serde_json::from_str(text) {
        Ok(turns @ Value::Array(_)) => conversation(&turns),
        _ => vec![Message::new("user", text.as_str())],
    }
}

/// The answer as the model gave it; of several choices the continuation with the greatest log-likelihood.
fn answer(line: &Map<String, Value>) -> String {
    let get = |key: &str| line.get(key).unwrap_or(&Value::Null);
    let likelihood = |answer: &Value| match &answer[0] {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        Value::Array(pair) => pair.first().and_then(|value| match value {
            Value::String(text) => text.parse().ok(),
            value => value.as_f64(),
        }),
        _ => None,
    };
    let answers = get("filtered_resps").as_array().map(Vec::as_slice);
    let answers = answers.unwrap_or_default();
    let likelihoods: Option<Vec<f64>> = answers.iter().map(likelihood).collect();
    // What is not a number is not the greatest.
    let likelihoods = likelihoods.map(|found| {
        found
            .into_iter()
            .map(|value| value.max(f64::NEG_INFINITY))
            .collect::<Vec<_>>()
    });
    if let Some(likelihoods) = likelihoods.filter(|found| found.len() > 1) {
        let best =
            (0..likelihoods.len()).max_by(|a, b| likelihoods[*a].total_cmp(&likelihoods[*b]));
        let best = best.unwrap_or(0);
        let arguments = get("arguments");
        let text = match arguments {
            Value::Array(_) => &arguments[best][1],
            _ => &arguments[format!("gen_args_{best}")]["arg_1"],
        };
        return text.as_str().unwrap_or_default().to_owned();
    }
    // Of several answers to one request a filter chooses.
    let given = match get("resps")[0].as_array().map(Vec::as_slice) {
        Some([one]) => one,
        _ => answers.first().unwrap_or(&Value::Null),
    };
    let first = given.as_str().or_else(|| given[0].as_str());
    first.unwrap_or_default().to_owned()
}
