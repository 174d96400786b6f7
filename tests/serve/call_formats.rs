//! Calls of models whose chat templates have the formats of other families.

use super::constraints::whole_and_streamed;
use super::*;
use crate::program::{copy_tree, sample_data};

/// What makes a chat template one of a format.
const MARKERS: [(&str, &str); 6] = [
    ("qwen-xml", "<function= <parameter="),
    (
        "llama",
        "\"parameters\": dictionary of argument name and its value",
    ),
    ("mistral", "[TOOL_CALLS]"),
    ("mistral-args", "[TOOL_CALLS] [ARGS]"),
    ("functiongemma", "<start_function_call>"),
    ("gemma4", "<|tool_call> <|\"|>"),
];

/// The sample model with a template that writes calls in another format.
fn model(folder: &Path, marker: &str) -> std::path::PathBuf {
    let model = folder.join("tiny");
    copy_tree(&sample_data("models/tiny"), &model);
    let template = "{#- MARKER #}{% if tools %}{% endif %}{% for turn in messages %}{{ '<|im_start|>' + turn.role + '\n' + turn.content + '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' }}";
    std::fs::write(
        model.join("chat_template.jinja"),
        template.replace("MARKER", marker),
    )
    .unwrap();
    model
}

#[test]
fn enforced_calls_of_every_format_are_openais() {
    let tool = json!({"type": "function", "function": {"name": "ring", "parameters": {"type": "object", "properties":
        {"on": {"type": "boolean"}, "level": {"enum": [1, 2]}, "zone": {"enum": ["A", "B"]}}, "required": ["on", "level"]}}});
    for (format, marker) in MARKERS {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&[model(folder.path(), marker).to_str().unwrap()]);
        let models: Json =
            serde_json::from_str(&server.ask("GET", "/v1/models", "", b"").2).unwrap();
        let body = chat(
            json!({"model": models["data"][0]["id"], "tools": [tool], "tool_choice": "required", "parallel_tool_calls": false, "n": 4, "seed": 5, "max_tokens": 300}),
        );
        for (calls, text, finish) in whole_and_streamed(&server, body) {
            let [(name, arguments)] = &*calls else {
                panic!("{format}: {calls:?} {text}")
            };
            assert_eq!(
                (name.as_str(), text.as_str(), finish.as_str()),
                ("ring", "", "tool_calls"),
                "{format}"
            );
            let arguments: Json = serde_json::from_str(arguments).unwrap();
            assert!(
                arguments["on"].is_boolean() && arguments["level"].is_u64(),
                "{format}: {arguments}"
            );
        }
    }
}
