//! The formats in which model families write calls of functions, each recognised by what its chat templates contain.

/// A format of calls. Reading, writing and grammar are those of `score`, under the same name.
#[derive(Debug, PartialEq, Eq)]
pub struct CallFormat {
    /// As `[score] call_format` has it.
    pub name: &'static str,
    /// Texts that a chat template of this format has, all of them.
    markers: &'static [&'static str],
    /// Tokens that are part of a call: decoding keeps them, though tokenizers declare them special.
    pub tokens: &'static [&'static str],
}

/// In the order in which templates are compared with them; the last has no marker.
pub static CALL_FORMATS: [CallFormat; 9] = [
    CallFormat { name: "qwen-xml", markers: &["<function=", "<parameter="], tokens: &[] },
    CallFormat {
        name: "functiongemma",
        markers: &["<start_function_call>"],
        tokens: &["<start_function_call>", "<end_function_call>", "<escape>"],
    },
    CallFormat {
        name: "gemma4",
        markers: &["<|tool_call>", "<|\"|>"],
        tokens: &["<|tool_call>", "<tool_call|>", "<|\"|>"],
    },
    CallFormat {
        name: "harmony",
        markers: &["<|channel|>", "functions."],
        tokens: &["<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>"],
    },
    CallFormat {
        name: "mistral-args",
        markers: &["[TOOL_CALLS]", "[ARGS]"],
        tokens: &["[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"],
    },
    CallFormat { name: "mistral", markers: &["[TOOL_CALLS]"], tokens: &["[TOOL_CALLS]"] },
    CallFormat { name: "hermes", markers: &["<tool_call>"], tokens: &["<tool_call>", "</tool_call>"] },
    CallFormat {
        name: "llama",
        markers: &["\"parameters\": dictionary of argument name and its value"],
        tokens: &["<|python_tag|>"],
    },
    CallFormat { name: "json", markers: &[], tokens: &[] },
];

impl CallFormat {
    pub fn named(name: &str) -> Option<&'static Self> {
        CALL_FORMATS.iter().find(|format| format.name == name)
    }

    /// The format of a task that names none, where no model says another: also the one that tools are described in for
    /// templates without a place for them.
    pub fn hermes() -> &'static Self {
        &CALL_FORMATS[6]
    }

    /// The format of a chat template's own calls: `json` where it has another than these.
    pub fn for_template(source: &str) -> &'static Self {
        let is_of = |format: &&Self| format.markers.iter().all(|marker| source.contains(marker));
        CALL_FORMATS.iter().find(is_of).unwrap_or(Self::hermes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of the families' own templates.
    #[test]
    fn templates_are_recognised_by_how_they_write_calls() {
        for (source, name) in [
            (
                r"{{- '\n<tool_call>\n<function=' + tool_call.name + '>\n' }}{{- '<parameter=' + args_name + '>\n' }}",
                "qwen-xml",
            ),
            (r"{{- '<start_function_call>call:' + tool_call['name'] + '{' -}}", "functiongemma"),
            (r#"{{- '<|tool_call>call:' + function['name'] + '{' -}}{{- '<|"|>' + argument + '<|"|>' -}}"#, "gemma4"),
            (
                r#"{{- "<|start|>assistant to=" }}{{- "functions." + tool_call.name + "<|channel|>commentary " }}"#,
                "harmony",
            ),
            (r"{{- '[TOOL_CALLS]' + tool_call.function.name }}{{- '[ARGS]' + arguments|tojson }}", "mistral-args"),
            (r#"{{- "[TOOL_CALLS] [" }}"#, "mistral"),
            (r#"{{- '<tool_call>\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}"#, "hermes"),
            (
                r#"{{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}"#,
                "llama",
            ),
            ("{{- '<｜tool▁calls▁begin｜>' }}", "json"),
        ] {
            assert_eq!(CallFormat::for_template(source).name, name, "{source}");
            assert_eq!(CallFormat::named(name), Some(CallFormat::for_template(source)));
        }
        assert_eq!(CallFormat::hermes().name, "hermes");
        assert_eq!(CallFormat::named("qwen"), None);
    }
}
