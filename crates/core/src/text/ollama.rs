//! Ollama's Modelfile for an exported GGUF file: its chat template in Go's form, stop tokens and
//! parameters.

use super::template::CLOCK;
use super::{ChatTemplate, Message, TemplateOptions, Thinking, Tokenizer};

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

/// A GGUF file to be served by Ollama.
#[derive(Debug)]
pub struct Modelfile<'a> {
    /// File names beside the Modelfile.
    pub model: &'a str,
    pub adapter: Option<&'a str>,
    pub context_tokens: usize,
    /// As in training.
    pub options: TemplateOptions,
    pub has_tools: bool,
}

impl Modelfile<'_> {
    /// The file's text, and whether it has the template: only of known forms.
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
            Some((source, system)) => {
                text += &format!("TEMPLATE \"\"\"{source}\"\"\"\n");
                if let Some(system) = system {
                    text += &format!("SYSTEM \"\"\"{system}\"\"\"\n");
                }
                if !self.has_tools && !self.thinks(tokenizer) {
                    text += "# Ollama 0.30 and newer prefer tokenizer.chat_template of the GGUF file, and with it write JSON\n# with sorted keys, unless there is a PARSER. Tools need this line removed.\nPARSER passthrough\n";
                }
            }
            None => {
                text += "# No TEMPLATE: Ollama 0.30 and newer use tokenizer.chat_template of the GGUF file.\n";
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

    /// Whether Ollama has to tell thoughts from answers.
    fn thinks(&self, tokenizer: &Tokenizer) -> bool {
        self.options.thinking == Thinking::On && tokenizer.template_reads("</think>")
    }
}

/// In Go's form, and the system message that it has by default. `None` unless conversations
/// rendered by `template` are those of a known form, on any day.
fn go_template(
    template: &ChatTemplate,
    options: &TemplateOptions,
) -> Option<(String, Option<String>)> {
    if template.reads(CLOCK) {
        return None;
    }
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
        (is_form && is_plain).then(|| (go_source(form, (start, answer)), system))
    })
}

fn go_source(form: &Form, (start, answer): (&str, &str)) -> String {
    let [
        (system, system_end),
        (user, user_end),
        (assistant, assistant_end),
    ] = [form.system, form.user, form.assistant];
    [
        start,
        "{{ if .System }}",
        system,
        "{{ .System }}",
        system_end,
        "{{ end }}{{ range $i, $m := .Messages }}{{ $is_last := lt (len (slice $.Messages $i)) 2 }}",
        "{{ if eq .Role \"user\" }}",
        user,
        "{{ .Content }}",
        user_end,
        "{{ else if eq .Role \"assistant\" }}",
        assistant,
        "{{ .Content }}{{ if not $is_last }}",
        assistant_end,
        "{{ end }}{{ end }}{{ if and $is_last (ne .Role \"assistant\") }}",
        answer,
        "{{ end }}{{ end }}",
    ]
    .concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::text::{CHAT_TEMPLATE, train_tokenizer};

    fn go_template_of(template: &str, thinking: Thinking) -> Option<(String, Option<String>)> {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let tokens = tokens.map(|(name, token)| (name.to_owned(), token.to_owned()));
        let template = ChatTemplate::new(template, tokens.into(), "test").unwrap();
        go_template(&template, &thinking.into())
    }

    const CHATML: &str = "{% for message in messages %}{% if loop.first and message.role != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\\n' }}";
    const MISTRAL: &str = "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}[SYSTEM_PROMPT]{{ message.content }}[/SYSTEM_PROMPT]{% elif message.role == 'user' %}[INST]{{ message.content }}[/INST]{% else %}{{ message.content }}{{ eos_token }}{% endif %}{% endfor %}{% if tools %}{% endif %}";

    #[test]
    fn without_tools_and_thoughts_ollama_uses_the_template_with_an_empty_think_block() {
        let texts = std::iter::repeat_n("a few words of text".to_owned(), 20);
        let tokenizer =
            Tokenizer::from_files(&train_tokenizer(texts, 300, CHAT_TEMPLATE).unwrap()).unwrap();
        let mut modelfile = Modelfile {
            model: "m.gguf",
            adapter: None,
            context_tokens: 512,
            options: Thinking::Off.into(),
            has_tools: false,
        };
        let (text, is_known) = modelfile.text(&tokenizer);
        insta::assert_snapshot!(text);
        assert!(is_known);
        let has_parser =
            |modelfile: &Modelfile<'_>| modelfile.text(&tokenizer).0.contains("PARSER");
        modelfile.has_tools = true;
        assert!(!has_parser(&modelfile), "it would drop calls");
        modelfile.has_tools = false;
        modelfile.options = Thinking::On.into();
        assert!(!has_parser(&modelfile), "it would keep thoughts in answers");
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
        // A default system message with today's date.
        let dated = CHATML.replace("Be brief.", "Today is {{ strftime_now('%d') }}.");
        for template in [folded, &numbered, &last, &quotes, &dated] {
            assert_eq!(go_template_of(template, Thinking::On), None, "{template}");
        }
    }
}
