//! verifiers' `traces.jsonl`: a line an episode, with the message graph of each agent's trace.

use std::path::Path;

use serde_json::{Map, Value};

use super::sample::{
    EvalLogError, LogHeader, LogOptions, NamedScore, Sample, Take, content_text, conversation,
    id_text, open,
};
use super::{json_stream, score_value};
use crate::text::Message;

/// What a task's data call the expected answer.
const EXPECTED: [&str; 5] = ["answer", "expected", "target", "ground_truth", "solution"];

/// Whether a file begins as one of these.
pub(super) fn is_log(head: &str) -> bool {
    head.starts_with('{') && head.contains("\"task\":{") && head.contains("\"traces\":[")
}

pub(super) fn read(
    path: &Path,
    options: &LogOptions,
    take: Take<'_>,
) -> Result<LogHeader, EvalLogError> {
    let mut header = LogHeader {
        program: "verifiers",
        ..LogHeader::default()
    };
    let (mut branches, mut failed) = (0, 0);
    let mut item = |number, line: Result<Map<String, Value>, String>| {
        let place = format!("line {number}");
        let episode = match line {
            Ok(line) => Value::Object(line),
            Err(problem) => return take(Err((place, problem))),
        };
        let traces = episode["traces"].as_array().map_or(&[][..], Vec::as_slice);
        let agent = |trace: &Value| {
            trace["agent"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let is_alone = traces.iter().all(|trace| agent(trace) == agent(&traces[0]));
        for trace in traces {
            if header.model.is_empty() {
                header.model = text(&trace["calls"][0]["model"]);
                header.version = text(&trace["verifiers"]["version"]);
                header.task = text(&episode["env"]["id"]);
            }
            let graph = Graph::of(trace);
            branches += usize::from(graph.leaves().count() > 1);
            take(Ok(Sample {
                model: if is_alone {
                    String::new()
                } else {
                    agent(trace)
                },
                ..sample(trace, &graph, place.clone())
            }));
        }
        if traces.is_empty() {
            failed += 1;
        }
    };
    json_stream::each_line(open(path)?, options.most, &mut item);
    if branches > 0 {
        header.notes.push(format!(
            "of {branches} traces with several branches the last is read"
        ));
    }
    if failed > 0 {
        header.notes.push(format!(
            "{failed} episodes have no trace: they failed before the agent began"
        ));
    }
    Ok(header)
}

/// Messages with their predecessors.
struct Graph<'a>(&'a [Value]);

impl<'a> Graph<'a> {
    fn of(trace: &'a Value) -> Self {
        Self(trace["nodes"].as_array().map_or(&[], Vec::as_slice))
    }

    fn parent(&self, node: usize) -> Option<usize> {
        let parent = self.0[node]["parent"].as_u64()? as usize;
        // An earlier one: a path has an end.
        (parent < node).then_some(parent)
    }

    fn leaves(&self) -> impl Iterator<Item = usize> {
        let mut is_leaf = vec![true; self.0.len()];
        for parent in (0..self.0.len()).filter_map(|node| self.parent(node)) {
            is_leaf[parent] = false;
        }
        (0..is_leaf.len()).filter(move |node| is_leaf[*node])
    }

    /// The last branch, from its root on.
    fn path(&self) -> Vec<&'a Value> {
        let last = self.leaves().last();
        let path = std::iter::successors(last, |node| self.parent(*node));
        let mut path: Vec<&Value> = path.map(|node| &self.0[node]).collect();
        path.reverse();
        path
    }
}

fn sample(trace: &Value, graph: &Graph<'_>, place: String) -> Sample {
    let path = graph.path();
    let is_sampled = |node: &&Value| node["sampled"] == true;
    let prompt = path.iter().take_while(|node| !is_sampled(node));
    let prompt: Value = prompt.map(|node| node["message"].clone()).collect();
    let (task, data) = (&trace["task"], &trace["task"]["data"]);
    let mut messages = conversation(&prompt);
    if messages.is_empty() {
        // It failed before its first message.
        let system = data["system_prompt"].as_str();
        messages.extend(system.map(|text| Message::new("system", text)));
        messages.extend(conversation(&data["prompt"]));
    }
    let reply = path.iter().copied().rfind(is_sampled);
    let completion = match trace["root_reply"].as_str() {
        Some(text) => text.to_owned(),
        None => reply.map_or_else(String::new, |node| {
            content_text(&node["message"]["content"])
        }),
    };
    let mut scores = Vec::new();
    let rewards: Vec<(&String, f64, f64)> = trace["rewards"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, reward)| {
            let weight = score_value::number(&reward["weight"]).unwrap_or(1.0);
            Some((name, score_value::number(&reward["score"])?, weight))
        })
        .collect();
    if !rewards.is_empty() {
        let sum: f64 = rewards
            .iter()
            .map(|(_, score, weight)| score * weight)
            .sum();
        scores.push(NamedScore {
            name: "reward".to_owned(),
            value: sum.into(),
            ..NamedScore::default()
        });
    }
    for (name, score, _) in rewards {
        score_value::push(&mut scores, name, &score.into(), "");
    }
    for (name, value) in trace["metrics"].as_object().into_iter().flatten() {
        score_value::push(&mut scores, name, value, "");
    }
    let errors = trace["errors"].as_array();
    let error = errors.and_then(|errors| errors.last()?["message"].as_str());
    let calls = trace["calls"].as_array().map_or(&[][..], Vec::as_slice);
    let tokens = calls
        .iter()
        .map(|call| call["usage"]["completion_tokens"].as_u64());
    let tokens: Option<u64> = tokens.sum();
    let seconds = |end: &str| trace["timing"]["agent"][end].as_f64().unwrap_or(0.0);
    let limit = trace["stop_condition"].as_str().unwrap_or_default();
    let last = calls.iter().rfind(|call| call["error"].is_null());
    let ids = [&task["key"], &task["hash"], &data["id"], &data["idx"]];
    let mut expected = EXPECTED.iter().map(|name| &data[*name]);
    Sample {
        place,
        id: ids.into_iter().find_map(id_text),
        messages,
        completion,
        expected: expected.find(|value| !value.is_null()).cloned(),
        scores,
        error: error
            .filter(|_| trace["ok"] != true)
            .and_then(|text| text.lines().next())
            .map(str::to_owned),
        tokens: tokens
            .map(|tokens| tokens as usize)
            .filter(|tokens| *tokens > 0),
        seconds: (seconds("end") - seconds("start")).max(0.0),
        truncated: limit.starts_with("max_")
            || last.is_some_and(|call| call["finish_reason"] == "length"),
        ..Sample::default()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(parent: Option<usize>, role: &str, content: &str, sampled: bool) -> Value {
        json!({"parent": parent, "message": {"role": role, "content": content}, "sampled": sampled})
    }

    #[test]
    fn the_last_branch_is_prompt_and_answer() {
        let nodes = [
            node(None, "user", "add", false),
            node(Some(0), "assistant", "first", true),
            node(Some(0), "user", "once more", false),
            node(Some(2), "assistant", "a call", true),
            node(Some(3), "tool", "4", false),
            node(Some(4), "assistant", "last", true),
        ];
        let mut trace = json!({
            "nodes": nodes, "ok": true, "task": {"key": "k", "data": {"answer": 4}}, "metrics": {"m": 2},
            "rewards": {"a": {"score": 0.5, "weight": 2.0}, "b": {"score": 0.25}}, "stop_condition": "max_turns",
            "calls": [{"usage": {"completion_tokens": 3}}, {"usage": {"completion_tokens": 4}}],
            "timing": {"agent": {"start": 1.0, "end": 3.5}},
        });
        let graph = Graph::of(&trace);
        assert_eq!(graph.leaves().collect::<Vec<_>>(), [1, 5]);
        let found = sample(&trace, &graph, String::new());
        let prompt: Vec<&str> = found
            .messages
            .iter()
            .map(|message| &*message.content)
            .collect();
        assert_eq!(prompt, ["add", "once more"]);
        let scores: Vec<(&str, Option<f64>)> = found
            .scores
            .iter()
            .map(|score| (&*score.name, score_value::number(&score.value)))
            .collect();
        let expected = [("reward", 1.25), ("a", 0.5), ("b", 0.25), ("m", 2.0)];
        assert_eq!(scores, expected.map(|(name, value)| (name, Some(value))));
        assert_eq!(
            (
                &*found.completion,
                found.id.as_deref(),
                found.tokens,
                found.seconds,
                found.truncated
            ),
            ("last", Some("k"), Some(7), 2.5, true)
        );
        assert_eq!((found.expected, found.error), (Some(json!(4)), None));
        // The root agent's answer, and one that failed before it began.
        trace["root_reply"] = json!("root");
        assert_eq!(
            sample(&trace, &Graph::of(&trace), String::new()).completion,
            "root"
        );
        let failed = json!({
            "ok": false, "errors": [{"message": "busy\nlater"}], "rewards": {"a": null},
            "task": {"hash": "h", "data": {"system_prompt": "s", "prompt": "p"}},
        });
        let found = sample(&failed, &Graph::of(&failed), String::new());
        assert_eq!((found.messages.len(), found.scores.len()), (2, 0));
        assert_eq!(
            (found.id.as_deref(), found.error.as_deref()),
            (Some("h"), Some("busy"))
        );
        // A parent that is not an earlier message ends the path.
        let circle = json!({"nodes": [node(Some(1), "user", "a", false), node(Some(0), "assistant", "b", true)]});
        assert_eq!(
            sample(&circle, &Graph::of(&circle), String::new()).completion,
            "b"
        );
    }
}
