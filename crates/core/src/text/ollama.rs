//! Ollama's Modelfile for an exported GGUF file: its chat template in Go's form, stop tokens and
//! parameters.

use super::{ChatTemplate, Message, TemplateOptions, Tokenizer};

/// Turns of a known chat template: what begins and ends each.
struct Form {
    system: (&'static str, &'static str),
    user: (&'static str, &'static str),
    assistant: (&'static str, &'static str),
}

const FORMS: [Form; 3] = [
    // ChatML: Qwen, SmolLM2.
    Form {
        system: ("<|im_start|>system\n", "<|im_end|>\n"),
        user: ("<|im_start|>user\n", "<|im_end|>\n"),
        assistant: ("<|im_start|>assistant\n", "<|im_end|>\n"),
    },
    // Llama 3.
    Form {
        system: (
            "<|start_header_id|>system<|end_header_id|>\n\n",
            "<|eot_id|>",
        ),
        user: ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        assistant: (
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "<|eot_id|>",
        ),
    },
    // Mistral, from v7 on.
    Form {
        system: ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        user: ("[INST]", "[/INST]"),
        assistant: ("", "</s>"),
    },
];

/// Before and after the functions, as Hermes' prompts have it.
const TOOLS: (&str, &str) = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>",
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>",
);

/// A GGUF file to be served by Ollama.
#[derive(Debug)]
pub struct Modelfile<'a> {
    /// File names beside the Modelfile.
    pub model: &'a str,
    pub adapter: Option<&'a str>,
    pub context_tokens: usize,
    /// As in training.
    pub options: TemplateOptions,
}

impl Modelfile<'_> {
    /// The file's text, and whether it has the template: only of known forms, else Ollama looks up
    /// the GGUF file's in a list of its own.
    pub fn text(&self, tokenizer: &Tokenizer) -> (String, bool) {
        let mut text = format!("FROM ./{}\n", self.model);
        if let Some(adapter) = self.adapter {
            text += &format!("ADAPTER ./{adapter}\n");
        }
        let template = tokenizer
            .chat_template()
            .and_then(|template| go_template(template, &self.options));
        let is_known = template.is_some();
        match template {
            Some((template, system)) => {
                text += &format!("TEMPLATE \"\"\"{template}\"\"\"\n");
                if let Some(system) = system {
                    text += &format!("SYSTEM \"\"\"{system}\"\"\"\n");
                }
            }
            None => {
                text += "# No TEMPLATE: Ollama looks up tokenizer.chat_template of the GGUF file in its own list.\n";
            }
        }
        for stop in tokenizer.stop_ids() {
            if let Some(token) = tokenizer.token(*stop) {
                text += &format!("PARAMETER stop \"{token}\"\n");
            }
        }
        // As evals decode; Ollama's defaults penalise repetitions and truncate prompts.
        text += &format!(
            "PARAMETER temperature 0\nPARAMETER repeat_penalty 1\nPARAMETER num_ctx {}\n",
            self.context_tokens
        );
        (text, is_known)
    }
}

/// In Go's form, and the system message that it has by default. `None` unless conversations
/// rendered by `template` are those of a known form.
fn go_template(
    template: &ChatTemplate,
    options: &TemplateOptions,
) -> Option<(String, Option<String>)> {
    let roles = ["system", "user", "assistant", "user"];
    let texts = ["First text.", "Second text.", "Third text.", "Fourth text."];
    let messages: Vec<Message> = std::iter::zip(roles, texts)
        .map(|(role, text)| Message::new(role, text))
        .collect();
    let render = |messages: &[Message]| template.render(messages, None, options).ok();
    let (whole, short, alone) = (
        render(&messages)?,
        render(&messages[..2])?,
        render(&messages[1..2])?,
    );
    FORMS.iter().find_map(|form| {
        let turn = |(open, close): (&str, &str), text: &str| format!("{open}{text}{close}");
        let user = turn(form.user, texts[1]);
        let turns = turn(form.system, texts[0]) + &user;
        let (start, answer) = short.split_once(&turns)?;
        let later = turn(form.assistant, texts[2]) + &turn(form.user, texts[3]);
        let is_form = answer.starts_with(form.assistant.0)
            && whole == format!("{start}{turns}{later}{answer}");
        let before = alone
            .strip_suffix(&format!("{user}{answer}"))?
            .strip_prefix(start)?;
        let system = match before {
            "" => None,
            before => Some(
                before
                    .strip_prefix(form.system.0)?
                    .strip_suffix(form.system.1)?
                    .to_owned(),
            ),
        };
        // A Modelfile cannot escape quotation marks, nor Go's templates their own.
        let can_quote = |text: &String| !text.contains("\"\"\"") && !text.ends_with('"');
        let own = format!("{start}{answer}");
        let is_plain = can_quote(&own) && !own.contains("{{") && system.iter().all(can_quote);
        let has_tools = takes_hermes_tools(template, options, &messages[..2], form);
        (is_form && is_plain).then(|| (go_source(form, (start, answer), has_tools), system))
    })
}

fn takes_hermes_tools(
    template: &ChatTemplate,
    options: &TemplateOptions,
    messages: &[Message],
    form: &Form,
) -> bool {
    let parameters = serde_json::json!({"type": "object", "properties": {}});
    let tools = serde_json::json!([{"type": "function", "function": {"name": "f", "description": "d", "parameters": parameters}}]);
    let rendered = template.render(messages, Some(&tools), options);
    rendered.is_ok_and(|rendered| {
        let (before, after) = TOOLS;
        rendered.contains(&format!("{}\n\n{before}\n", messages[0].content))
            && rendered.contains(&format!("{after}{}", form.system.1))
    })
}

fn go_source(form: &Form, (start, answer): (&str, &str), has_tools: bool) -> String {
    let [
        (system, system_end),
        (user, user_end),
        (assistant, assistant_end),
    ] = [form.system, form.user, form.assistant];
    let with_tools = |pieces: &[&str]| match has_tools {
        true => pieces.concat(),
        false => String::new(),
    };
    let tools = with_tools(&[
        "{{ if .Tools }}{{ if .System }}\n\n{{ end }}",
        TOOLS.0,
        "{{ range .Tools }}\n{\"type\": \"function\", \"function\": {{ .Function }}}{{ end }}",
        TOOLS.1,
        "{{ end }}",
    ]);
    let calls = with_tools(&[
        "{{ range $n, $call := $m.ToolCalls }}{{ if or $n $m.Content }}\n{{ end }}",
        "<tool_call>\n{\"name\": \"{{ $call.Function.Name }}\", \"arguments\": {{ $call.Function.Arguments }}}\n</tool_call>{{ end }}",
    ]);
    let results = with_tools(&[
        "{{ else if eq $m.Role \"tool\" }}{{ if eq $before \"tool\" }}\n{{ else }}",
        user,
        "{{ end }}<tool_response>\n{{ $m.Content }}\n</tool_response>{{ if ne $next \"tool\" }}",
        user_end,
        "{{ end }}",
    ]);
    let has_system = match has_tools {
        true => "{{ if or .System .Tools }}",
        false => "{{ if .System }}",
    };
    [
        start,
        has_system,
        system,
        "{{ .System }}",
        &tools,
        system_end,
        "{{ end }}",
        "{{ $before := \"\" }}{{ range $i, $m := .Messages }}{{ $rest := slice $.Messages $i }}{{ $next := \"\" }}{{ if gt (len $rest) 1 }}{{ $next = (index $rest 1).Role }}{{ end }}",
        "{{ if eq $m.Role \"user\" }}",
        user,
        "{{ $m.Content }}",
        user_end,
        "{{ else if eq $m.Role \"assistant\" }}",
        assistant,
        "{{ $m.Content }}",
        &calls,
        "{{ if $next }}",
        assistant_end,
        "{{ end }}",
        &results,
        "{{ end }}{{ if and (not $next) (ne $m.Role \"assistant\") }}",
        answer,
        "{{ end }}{{ $before = $m.Role }}{{ end }}",
    ]
    .concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::text::{CHAT_TEMPLATE, Thinking};

    fn go_template_of(template: &str, thinking: Thinking) -> Option<(String, Option<String>)> {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let tokens = tokens.map(|(name, token)| (name.to_owned(), token.to_owned()));
        let template = ChatTemplate::new(template, tokens.into(), "test").unwrap();
        go_template(&template, &thinking.into())
    }

    const CHATML: &str = "{% for message in messages %}{% if loop.first and message.role != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\\n' }}";
    const MISTRAL: &str = "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}[SYSTEM_PROMPT]{{ message.content }}[/SYSTEM_PROMPT]{% elif message.role == 'user' %}[INST]{{ message.content }}[/INST]{% else %}{{ message.content }}{{ eos_token }}{% endif %}{% endfor %}{% if tools %}{% endif %}";

    #[test]
    fn the_embedded_models_template_is_written_with_tools_and_an_empty_think_block() {
        let (template, system) = go_template_of(CHAT_TEMPLATE, Thinking::Off).unwrap();
        insta::assert_snapshot!(template);
        assert_eq!(system, None);
    }

    #[test]
    fn a_default_system_message_and_the_start_of_a_prompt_are_kept() {
        let (_, system) = go_template_of(CHATML, Thinking::On).unwrap();
        assert_eq!(system.as_deref(), Some("Be brief."));
        let (template, system) = go_template_of(MISTRAL, Thinking::On).unwrap();
        insta::assert_snapshot!(template);
        assert_eq!(system, None);
    }

    #[test]
    fn other_templates_are_not_known() {
        let folded = "{% for message in messages %}<start_of_turn>{{ message.role }}\n{{ message.content }}<end_of_turn>\n{% endfor %}";
        let numbered = CHATML.replace("{{ message.role }}", "{{ message.role }}{{ loop.index }}");
        let last = CHATML.replace(
            "{{ message.content }}",
            "{{ message.content }}{% if loop.last %}!{% endif %}",
        );
        // A default system message that a Modelfile cannot quote.
        let quotes = CHATML.replace("Be brief.", "Say \"yes\"");
        for template in [folded, &numbered, &last, &quotes] {
            assert_eq!(go_template_of(template, Thinking::On), None, "{template}");
        }
    }
}
