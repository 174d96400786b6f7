//! Tool-call formats of model families, recognised by markers in chat templates.

/// A call format. `score` reads, writes and constrains it under the same name.
#[derive(Debug, PartialEq, Eq)]
pub struct CallFormat {
    /// Name in `[score] call_format`.
    pub name: &'static str,
    markers: &'static [&'static str],
    /// Tokens of calls: decoding keeps them, though tokenizers declare them special.
    pub tokens: &'static [&'static str],
}

/// Formats in order of comparison; the last has no marker.
pub static CALL_FORMATS: [CallFormat; 9] = [
    CallFormat {
        name: "qwen-xml",
        markers: &["<function=", "<parameter="],
        tokens: &[],
    },
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
        tokens: &[
            "<|start|>",
            "<|channel|>",
            "<|constrain|>",
            "<|message|>",
            "<|end|>",
        ],
    },
    CallFormat {
        name: "mistral-args",
        markers: &["[TOOL_CALLS]", "[ARGS]"],
        tokens: &["[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"],
    },
    CallFormat {
        name: "mistral",
        markers: &["[TOOL_CALLS]"],
        tokens: &["[TOOL_CALLS]"],
    },
    CallFormat {
        name: "hermes",
        markers: &["<tool_call>"],
        tokens: &["<tool_call>", "</tool_call>"],
    },
    CallFormat {
        name: "llama",
        markers: &["\"parameters\": dictionary of argument name and its value"],
        tokens: &["<|python_tag|>"],
    },
    CallFormat {
        name: "json",
        markers: &[],
        tokens: &[],
    },
];

impl CallFormat {
    pub fn named(name: &str) -> Option<&'static Self> {
        CALL_FORMATS.iter().find(|format| format.name == name)
    }

    /// The default format, also used to describe tools for templates that do not support them.
    pub fn hermes() -> &'static Self {
        &CALL_FORMATS[6]
    }

    /// The format of a chat template; `json` if none matches.
    pub fn for_template(source: &str) -> &'static Self {
        let is_of = |format: &&Self| format.markers.iter().all(|marker| source.contains(marker));
        CALL_FORMATS.iter().find(is_of).unwrap_or(Self::hermes())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hub::ModelSource;
    use crate::text::{CHAT_TEMPLATE, Tokenizer, train_tokenizer};

    /// A tokenizer with FunctionGemma's tokens.
    fn with_template(template: &str) -> Tokenizer {
        let texts = ["call:pay{to:Acme}"].map(str::to_owned);
        let files =
            train_tokenizer(texts.into_iter().cycle().take(20), 300, CHAT_TEMPLATE).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&files.tokenizer_json).unwrap();
        for (id, token) in
            (1000..).zip(["<start_function_call>", "<escape>", "<end_function_call>"])
        {
            let added = serde_json::json!({"id": id, "content": token, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false});
            json["added_tokens"].as_array_mut().unwrap().push(added);
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
        std::fs::write(
            folder.path().join("tokenizer_config.json"),
            files.tokenizer_config_json,
        )
        .unwrap();
        std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        Tokenizer::load(&ModelSource::at("m", folder.path())).unwrap()
    }

    #[test]
    fn a_template_writes_prose_before_calls_or_drops_it() {
        let calls = "{% for c in m.tool_calls %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}";
        let messages = |each: &str| {
            format!("{{% if tools %}}{{% for m in messages %}}{each}{{% endfor %}}{{% endif %}}")
        };
        for (template, writes) in [
            (messages(&format!("{{{{ m.content }}}}{calls}")), true),
            (messages(&format!("{calls}{{{{ m.content }}}}")), false),
            (
                messages(&format!(
                    "{{% if m.tool_calls %}}{calls}{{% else %}}{{{{ m.content }}}}{{% endif %}}"
                )),
                false,
            ),
            (
                "{% if tools %}{{ raise_exception('no tools') }}{% endif %}".to_owned(),
                false,
            ),
            // Without tool support, calls are text after the text.
            (
                "{% for m in messages %}{{ m.content }}{% endfor %}".to_owned(),
                true,
            ),
        ] {
            assert_eq!(
                with_template(&template).writes_prose_before_calls(),
                writes,
                "{template}"
            );
        }
    }

    #[test]
    fn tokens_of_calls_are_text_though_they_are_special() {
        let call = "<start_function_call>call:pay{to:<escape>Acme<escape>}<end_function_call>";
        let (own, other) = (
            with_template("{% if tools %}<start_function_call>{% endif %}"),
            with_template("{% if tools %}<tool_call>{% endif %}"),
        );
        let ids = own.encode(&format!("{call}<|im_end|>")).unwrap();
        assert_eq!(own.decode(&ids, true).unwrap(), call);
        assert_eq!(
            own.decode(&ids, false).unwrap(),
            format!("{call}<|im_end|>")
        );
        assert_eq!(other.decode(&ids, true).unwrap(), "call:pay{to:Acme}");
        let escape = own.token_id("<escape>").unwrap() as usize;
        assert_eq!(
            (
                &*own.token_bytes().unwrap()[escape],
                other.token_bytes().unwrap()[escape].len()
            ),
            (b"<escape>" as &[u8], 0)
        );
        assert_eq!(
            (
                own.call_format().name,
                other.call_format().name,
                with_template("{}").call_format().name
            ),
            ("functiongemma", "hermes", "hermes")
        );
    }

    #[test]
    fn calls_have_the_white_space_of_the_template() {
        let own = with_template(crate::text::TOOL_CHAT_TEMPLATE);
        let function = serde_json::json!({"name": "pay", "arguments": {"to": "A B"}});
        let mut turn = crate::text::Message::new("assistant", "");
        let calls = serde_json::json!([{"type": "function", "function": function}]);
        turn.other.insert("tool_calls".to_owned(), calls);
        let tools = serde_json::json!([{"type": "function", "function": {"name": "pay", "parameters": {}}}]);
        let call = r#"{"name": "pay", "arguments": {"to": "A B"}}"#;
        let spacing = own.call_spacing(&tools).unwrap();
        let spaced = |written: &str| spacing.apply(written, &turn);
        assert_eq!(
            spaced(&format!("<tool_call>\n{call}\n</tool_call>")),
            Some(format!("<tool_call>{call}</tool_call>"))
        );
        assert_eq!(spaced("<tool_call>{}</tool_call>"), None);
    }

    /// Excerpts of the families' templates.
    #[test]
    fn templates_are_recognised_by_how_they_write_calls() {
        for (source, name) in [
            (
                r"{{- '\n<tool_call>\n<function=' + tool_call.name + '>\n' }}{{- '<parameter=' + args_name + '>\n' }}",
                "qwen-xml",
            ),
            (
                r"{{- '<start_function_call>call:' + tool_call['name'] + '{' -}}",
                "functiongemma",
            ),
            (
                r#"{{- '<|tool_call>call:' + function['name'] + '{' -}}{{- '<|"|>' + argument + '<|"|>' -}}"#,
                "gemma4",
            ),
            (
                r#"{{- "<|start|>assistant to=" }}{{- "functions." + tool_call.name + "<|channel|>commentary " }}"#,
                "harmony",
            ),
            (
                r"{{- '[TOOL_CALLS]' + tool_call.function.name }}{{- '[ARGS]' + arguments|tojson }}",
                "mistral-args",
            ),
            (r#"{{- "[TOOL_CALLS] [" }}"#, "mistral"),
            (
                r#"{{- '<tool_call>\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}"#,
                "hermes",
            ),
            (
                r#"{{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}"#,
                "llama",
            ),
            ("{{- '<｜tool▁calls▁begin｜>' }}", "json"),
        ] {
            assert_eq!(CallFormat::for_template(source).name, name, "{source}");
            assert_eq!(
                CallFormat::named(name),
                Some(CallFormat::for_template(source))
            );
        }
        assert_eq!(CallFormat::hermes().name, "hermes");
        assert_eq!(CallFormat::named("qwen"), None);
    }
}
