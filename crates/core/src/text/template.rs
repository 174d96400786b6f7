//! A chat template, rendered as transformers renders it: Jinja with trimmed blocks, Python's methods on strings, lists
//! and mappings.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value};
use serde_json::Value as Json;

use super::limits::{BoundedPrompt, MAX_PROMPT_BYTES, MAX_STEPS, caught};
use super::template_messages::{json_messages, message_value};
use super::{CallFormat, Message, TextError, Thinking, limits, python_json, template_source, tools};
use crate::hub::ModelSource;

const NAME: &str = "chat_template";

/// A compiled chat template with the special tokens that it may name.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    special_tokens: Vec<(String, String)>,
    path: String,
    has_switch: bool,
    has_soft_switch: bool,
    takes_tools: bool,
}

impl ChatTemplate {
    /// Compiles `source`; `special_tokens` are variables such as (`eos_token`, `<|im_end|>`), `path` names the template
    /// in messages.
    ///
    /// # Errors
    /// [`TextError::Template`] with the line of the mistake.
    pub fn new(source: &str, special_tokens: Vec<(String, String)>, path: &str) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| problem(path, &error))?);
        limits::bound(&mut environment);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_formatter(|output, state, value| match f64::try_from(value.clone()) {
            Ok(number) if value.is_number() && !value.is_integer() => {
                Ok(output.write_str(&python_json::python_float(number))?)
            }
            _ => limits::count_printed(value).and_then(|()| minijinja::escape_formatter(output, state, value)),
        });
        environment.add_filter("tojson", python_json::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        let refuse = |problem: String| TextError::Template { path: path.to_owned(), problem };
        let prepared = template_source::prepare(source).map_err(refuse)?;
        caught(|| environment.add_template_owned(NAME, prepared)).map_err(|error| problem(path, &error))?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            special_tokens,
            path: path.to_owned(),
            has_switch: source.contains("enable_thinking"),
            has_soft_switch: source.contains("/no_think") && !source.contains("enable_thinking"),
            takes_tools: source.contains("tools"),
        })
    }

    /// The template of a model: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json` (of several
    /// named ones, `default`). None where the model has none.
    ///
    /// # Errors
    /// Files that cannot be read or parsed, a template that does not compile.
    pub(super) fn load(source: &ModelSource, tokenizer_config: &Json) -> Result<Option<Self>, TextError> {
        let file = "chat_template.jinja";
        if source.exists(file) {
            return Self::new(&source.read_text(file)?, special_tokens(tokenizer_config), &source.label(file))
                .map(Some);
        }
        let path = source.label("tokenizer_config.json");
        match chosen(tokenizer_config).map_err(|problem| TextError::Template { path: path.clone(), problem })? {
            Some(text) => Self::new(text, special_tokens(tokenizer_config), &path).map(Some),
            None => Ok(None),
        }
    }

    /// Its text, as the model has it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a special token's variable, such as `bos_token`.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        self.special_tokens.iter().find(|(known, _)| known == name).map(|(_, token)| token.as_str())
    }

    /// Whether reasoning can be switched off in it: it mentions `enable_thinking`.
    pub fn has_thinking_switch(&self) -> bool {
        self.has_switch
    }

    /// Whether reasoning is switched off by `/no_think` in the system text alone: it reads that, and has no
    /// `enable_thinking`.
    pub fn has_soft_switch(&self) -> bool {
        self.has_soft_switch
    }

    /// Whether it has a place for tools: it mentions `tools`.
    pub fn takes_tools(&self) -> bool {
        self.takes_tools
    }

    /// The format of its calls, which is Hermes's where tools, calls and results are text.
    pub(super) fn call_format(&self) -> &'static CallFormat {
        if self.takes_tools { CallFormat::for_template(&self.source) } else { CallFormat::hermes() }
    }

    /// The prompt text, ending where the assistant's answer begins. `tools`: a list in OpenAI's schema. A template
    /// without a place for them gets tools, calls and results as text.
    ///
    /// # Errors
    /// [`TextError::Template`], also where the template itself refuses the messages.
    pub fn render(&self, messages: &[Message], tools: Option<&Json>, thinking: Thinking) -> Result<String, TextError> {
        if !self.takes_tools {
            let turns = tools::as_text(messages, tools)?;
            return self.render_values(turns.iter().map(message_value).collect(), Value::from(()), [switch(thinking)]);
        }
        let tools = tools.map_or(Value::from(()), python_json::value_of);
        self.render_values(messages.iter().map(message_value).collect(), tools, [switch(thinking)])
    }

    /// As [`ChatTemplate::render`] with messages and tools of any shape; without `thinking` the variable is undefined.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_json(&self, messages: &Json, tools: &Json, thinking: Option<Thinking>) -> Result<String, TextError> {
        self.render_values(json_messages(messages), python_json::value_of(tools), thinking.map(switch))
    }

    /// `options`: further variables, which replace those of the same name.
    pub(super) fn render_values(
        &self,
        messages: Value,
        tools: Value,
        options: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<String, TextError> {
        let mut variables: Vec<(String, Value)> =
            self.special_tokens.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str()))).collect();
        variables.push(("messages".to_owned(), messages));
        variables.push(("tools".to_owned(), tools));
        variables.push(("documents".to_owned(), Value::from(())));
        variables.push(("add_generation_prompt".to_owned(), Value::from(true)));
        variables.extend(options);
        let mut prompt = BoundedPrompt::default();
        let outcome = caught(|| {
            let template = self.environment.get_template(NAME)?;
            template.render_captured_to(Value::from_pairs(variables), &mut prompt)?;
            Ok(())
        });
        let refuse = |problem: String| TextError::Template { path: self.path.clone(), problem };
        if prompt.full {
            return Err(refuse(format!(
                "chat template: the prompt becomes longer than {} MiB",
                MAX_PROMPT_BYTES >> 20
            )));
        }
        outcome.map_err(|error| problem(&self.path, &error))?;
        String::from_utf8(prompt.bytes)
            .map_err(|error| refuse(format!("chat template: the prompt is not UTF-8: {error}")))
    }
}

#[cfg(test)]
impl ChatTemplate {
    /// `strftime_now` returns this time.
    pub(super) fn at_time(mut self, time: jiff::Zoned) -> Self {
        self.environment.add_function("strftime_now", move |format: &str| strftime(format, &time));
        self
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ChatTemplate")
            .field("path", &self.path)
            .field("has_switch", &self.has_switch)
            .finish_non_exhaustive()
    }
}

fn switch(thinking: Thinking) -> (String, Value) {
    ("enable_thinking".to_owned(), Value::from(thinking == Thinking::On))
}

fn chosen(tokenizer_config: &Json) -> Result<Option<&str>, String> {
    match tokenizer_config.get("chat_template") {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(Json::Array(named)) => {
            let name = |entry: &Json| entry.get("name").and_then(Json::as_str).unwrap_or("?").to_owned();
            let default = named
                .iter()
                .find(|entry| name(entry) == "default")
                .and_then(|entry| entry.get("template"))
                .and_then(Json::as_str);
            default.map(Some).ok_or_else(|| {
                let names: Vec<String> = named.iter().map(name).collect();
                format!(
                    "`chat_template` has no template named `default` (it has {}); name the one to use `default`",
                    names.join(", ")
                )
            })
        }
        Some(other) => Err(format!("`chat_template` = {other}, expected text or a list of named templates")),
    }
}

/// Every `*_token` of the tokenizer's configuration that has a text, as transformers hands them to the template.
fn special_tokens(tokenizer_config: &Json) -> Vec<(String, String)> {
    let token = |name: &str| Some((name.to_owned(), token_text(tokenizer_config.get(name)?)?.to_owned()));
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
        .into_iter()
        .filter_map(token)
        .collect()
}

/// The text of a special token, which is written plain or as an object with `content`.
pub(super) fn token_text(value: &Json) -> Option<&str> {
    value.as_str().or_else(|| value.get("content").and_then(Json::as_str))
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    let message: String = message.chars().take(1_000).collect();
    Err(Error::new(ErrorKind::InvalidOperation, format!("the chat template refuses these messages: {message}")))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    // A clock beyond the year 9999 has no date.
    let now = jiff::Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(jiff::Timestamp::MAX);
    strftime(format, &now.to_zoned(jiff::tz::TimeZone::system()))
}

fn strftime(format: &str, time: &jiff::Zoned) -> Result<String, Error> {
    // As Python writes them in the C locale.
    let format = format.replace("%c", "%a %b %e %H:%M:%S %Y").replace("%x", "%m/%d/%y").replace("%X", "%H:%M:%S");
    jiff::fmt::strtime::format(&format, time)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}")))
}

fn problem(path: &str, error: &Error) -> TextError {
    let place = error.line().map(|line| format!(" (line {line} of the template)")).unwrap_or_default();
    if error.kind() == ErrorKind::OutOfFuel {
        let problem = format!(
            "chat template: more than {MAX_STEPS} steps for one prompt{place}; it loops for too long, or the conversation is too long"
        );
        return TextError::Template { path: path.to_owned(), problem };
    }
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    TextError::Template { path: path.to_owned(), problem: format!("chat template: {detail}{place}") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(source: &str, messages: &Json) -> Result<String, String> {
        let tokens = vec![("eos_token".to_owned(), "</s>".to_owned())];
        let template = ChatTemplate::new(source, tokens, "t.jinja").map_err(|error| error.to_string())?;
        template.render_json(messages, &Json::Null, Some(Thinking::Off)).map_err(|error| error.to_string())
    }

    #[test]
    fn templates_render_as_in_python() {
        let hello = json!([{"role": "user", "content": " hi "}]);
        let check = |source: &str, expected: &str| assert_eq!(render(source, &hello).unwrap(), expected, "{source}");
        check("{{ messages[0].role }}{{ eos_token }}{{ bos_token }}", "user</s>");
        check("{% if true %}\n  a\n  {% endif %}\nb", "  a\nb");
        check("{{ messages[0]['content'].strip() }}|{{ messages[0].content | trim }}", "hi|hi");
        check("{{ 'a</think>b'.split('</think>')[-1] }}{{ '\n\nx'.lstrip('\\n') }}", "bx");
        check(
            "{{ none }} {{ true }} {{ enable_thinking }} {{ tools is none }} {{ documents is none }}",
            "None True False True True",
        );
        check(
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "1",
        );
        check("{% for c in ['a', 'b', 'c'] %}{% if loop.last %}{% continue %}{% endif %}{{ c }}{% endfor %}", "ab");
        check("{{ [1, 2, 3][::-1] | join(',') }}", "3,2,1");
        check("{{ messages[0] | tojson }}", r#"{"role": "user", "content": " hi "}"#);
        check("{{ missing }}{{ missing is defined }}", "False");
        check("{%- generation -%} x {%- endgeneration %}", "x");
        check("a\n", "a");
        // Null fields are dropped, and reasoning has both of its names.
        let thought = json!([{"role": "assistant", "content": null, "reasoning": "r"}]);
        let fields =
            "{{ messages[0].content is defined }} {{ messages[0].thinking }} {{ messages[0].reasoning_content }}";
        assert_eq!(render(fields, &thought).unwrap(), "False r r");
        check("{{ '<' }}{{ 6 is divisibleby 3 }}{{ 7 is divisibleby(3) }}", "<TrueFalse");
    }

    #[test]
    fn a_thousand_turns_are_within_the_bounds() {
        let turns: Vec<Json> = (0..1_000)
            .map(|turn| json!({"role": if turn % 2 == 0 { "user" } else { "assistant" }, "content": "x"}))
            .collect();
        let golden: Json = serde_json::from_str(include_str!("../../../../tests/parity/chat_templates.json")).unwrap();
        let template =
            golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == "reasoning, one question").unwrap();
        let prompt = render(template["template"].as_str().unwrap(), &json!(turns)).unwrap();
        assert_eq!(prompt.matches("<|im_start|>").count(), 1_001);
        let formats = "{{ 'a\nb' | indent(2) }}{{ '%5.2f' | format(1) }}{{ '{:>4}'.format(1) }}{{ [1, 2, 3] | batch(2) | list | length }}";
        assert_eq!(render(formats, &json!([])).unwrap(), "a\n  b 1.00   12");
    }

    #[test]
    fn a_refusal_names_the_template_and_the_line() {
        let hello = json!([{"role": "tool", "content": "x"}]);
        let check = |source: &str, expected: &[&str]| {
            let message = render(source, &hello).unwrap_err();
            for part in [&["t.jinja: chat template"], expected].concat() {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
        };
        check(
            "\n{{ raise_exception('only user and assistant') }}",
            &["refuses these messages: only user and assistant", "line 2"],
        );
        check("{% for %}", &["line 1"]);
        check("{{ missing.attribute }}", &["line 1"]);
        check("{{ messages | nonsense }}", &["nonsense"]);
        check("{{ messages | pprint }}", &["pprint"]);
        check("{{ debug() }}", &["debug"]);
        check("\n{% if 'a'.encode() %}{% endif %}", &["no method named encode", "line 2"]);
        check("{{ 3 is divisibleby 0 }}", &["cannot divide 3 by 0"]);
        check("{{ strftime_now('%') }}", &["strftime_now"]);
        // Nothing that a template asks for may hang or fill the memory.
        let million = "{% for a in range(1000) %}{% for b in range(1000) %}";
        check(&format!("{million}{{% endfor %}}{{% endfor %}}"), &["more than 100000 steps", "loops for too long"]);
        check("{% set x = 'a' * 99999 %}{% for a in range(1000) %}{{ x }}{% endfor %}", &["longer than 16 MiB"]);
        check("{{ [1] | tojson(indent=1000000000000000000) }}", &["`indent`", "1000000000000000000"]);
        check("{{ (['a' * 99999] * 1000) | tojson }}", &["tojson", "16 MiB"]);
        check("{{ 'a' | indent(999999999999) }}", &["indent: 999999999999 is too many"]);
        check("{{ 'a' | indent(width=999999999999) }}", &["indent: 999999999999 is too many"]);
        check("{{ '%999999999999d' | format(1) }}", &["format: 999999999999 is too wide"]);
        check("{{ '%*d' | format(99999, 1) }}", &["format: 99999 is too many"]);
        check("{{ '{:999999999999}'.format(1) }}", &["format: 999999999999 is too wide"]);
        check("{{ [1] | batch(999999999999, 0) | list }}", &["batch: 999999999999 is too many"]);
        check("{{ [1] | slice(999999999999) | list }}", &["slice: 999999999999 is too many"]);
        let nest = "{% set ns = namespace(x=[]) %}{% for a in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}";
        check(&format!("{nest}{{{{ ns.x | tojson }}}}"), &["set: a value nested deeper than 200", "line 1"]);
        check(
            "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}",
            &["a namespace cannot be an attribute's value"],
        );
        check(
            "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns == ns.x }}",
            &["a namespace cannot be an attribute's value"],
        );
        let double =
            "{% set ns = namespace(x='ab') %}{% for a in range(1000) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
        check(double, &["set: a value of more than 16 MiB"]);
        check(
            &double.replace("ns.x ~ ns.x %}", "[ns.x, ns.x] %}").replace("1000", "100"),
            &["set: the values of one prompt have more than 5000000 items"],
        );
        check(
            &double.replace("= ns.x ~ ns.x %}", "%}{{ ns.x }}{{ ns.x }}{% endset %}"),
            &["more than 64 MiB are printed"],
        );
        // Nor what it makes without a name for it: by filters, methods, bindings and operators.
        let long = "{% set x = 'a' * 99999 %}";
        check(&format!("{long}{{{{ ([x] * 99999) | join }}}}"), &["join: a value of more than 16 MiB"]);
        check(&format!("{long}{{{{ range(99999) | join(x) }}}}"), &["join: a text of more than 16 MiB"]);
        check(&format!("{long}{{{{ x.join(range(99999)) }}}}"), &["join: a text of more than 16 MiB"]);
        check(&format!("{long}{{{{ x | replace('a', x) }}}}"), &["replace: a text of more than 16 MiB"]);
        check(&format!("{long}{{{{ x.replace('', x) }}}}"), &["replace: a text of more than 16 MiB"]);
        check(
            &format!("{{{{ 'a'{} }}}}", "|replace('a', 'aaaaaaaaaa')".repeat(40)),
            &["replace: a text of more than 16 MiB"],
        );
        check(&format!("{long}{{{{ ([x] * 99999) | string }}}}"), &["string: a value of more than 16 MiB"]);
        check(
            "{{ ([1] * 99999999) | list | length }}",
            &["list: the values of one prompt have more than 5000000 items"],
        );
        check(
            "{{ ([1] * 99999999)[::2] | length }}",
            &["slice: the values of one prompt have more than 5000000 items"],
        );
        check("{{ ('a\n' * 99999) | indent(9999) }}", &["indent: a text of more than 16 MiB"]);
        check(
            &format!("{long}{{% set y %}}{{{{ [x] * 99999 }}}}{{% endset %}}"),
            &["print: a value of more than 16 MiB"],
        );
        check(
            "{% set ns = namespace(x=[1]) %}{% for a in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x | list | length }}",
            &["set: the values of one prompt have more than 5000000 items"],
        );
        let nested =
            |open: &str, close: &str| format!("{long}{}{{{{ x | length }}}}{}", open.repeat(30), close.repeat(30));
        check(&nested("{% for x in [x ~ x] %}", "{% endfor %}"), &["set: a value of more than 16 MiB"]);
        check(&nested("{% with x = x ~ x %}", "{% endwith %}"), &["set: a value of more than 16 MiB"]);
        check(
            &format!("{long}{{% macro f(x) %}}{{{{ f(x ~ x) }}}}{{% endmacro %}}{{{{ f(x) }}}}"),
            &["set: a value of more than 16 MiB"],
        );
        check(
            &format!("{long}{{% for y in [x] recursive %}}{{{{ loop([y ~ y]) }}}}{{% endfor %}}"),
            &["set: a value of more than 16 MiB"],
        );
        check(&format!("{long}{{{{ x{} }}}}", " ~ x".repeat(65)), &["more than 64 `+` and `~`"]);
        check(&format!("{long}{{{{ '' ~ ([x] * 99999) }}}}"), &["`*` of what may be a list"]);
        let sets: String = (0..5_000).map(|number| format!("{{% set x{number} = y ~ '' %}}")).collect();
        check(&format!("{{% set y = 'a' * 16000000 %}}{sets}"), &["more than 1024 MiB of text"]);
    }

    /// Operators, branches and unassigned values that make the engine descend. An error or a prompt, and the program
    /// lives.
    #[test]
    fn deep_templates_stay_on_the_stack() {
        let deep = |source: String| drop(render(&source, &json!([])));
        for operator in [
            "+1",
            "~1",
            " and 1",
            " or 1",
            "<1",
            "|string",
            "[0]",
            ".a",
            "()",
            "**1",
            " if 1 else 1",
            " is string",
            " in 1",
        ] {
            deep(format!("{{{{ 1{} }}}}", operator.repeat(8_000 / operator.trim().len())));
        }
        deep(format!("{{% if a %}}{}{{% endif %}}", "{% elif b %}".repeat(20_000)));
        deep(format!("{{{{ {}1 }}}}", "not ".repeat(2_000)));
        deep(format!("{{{{ {}1{} }}}}", "[".repeat(4_000), "]".repeat(4_000)));
        let nested = format!("{}x{}", "[".repeat(100), "]".repeat(100));
        deep(format!(
            "{{% set x = 1 %}}{}{{{{ x }}}}{{{{ x | tojson }}}}{{{{ x == x }}}}",
            format!("{{% with x = {nested} %}}").repeat(140)
        ));
        let macros = format!("{{% macro f(x) %}}{{{{ x }}}}{{{{ f({nested}) }}}}{{% endmacro %}}{{{{ f(1) }}}}");
        deep(macros.clone());
        deep(macros.replace("{{ x }}", "").replace("{{ f(1) }}", "{{ f(1) == f(2) }}"));
        let batched = "|batch(1)|list".repeat(550);
        deep(format!("{{% set x = [1]{batched} %}}"));
        deep(format!("{{{{ [1]{batched} }}}}{{{{ [1]{batched} == [1]{batched} }}}}"));
    }

    #[test]
    fn today_is_written_in_the_given_format() {
        let year = render("{{ strftime_now('%Y') }}", &json!([])).unwrap();
        assert!(year.len() == 4 && year.parse::<u32>().is_ok(), "{year}");
        let day = jiff::civil::datetime(2025, 8, 6, 9, 5, 3, 0).to_zoned(jiff::tz::TimeZone::UTC).unwrap();
        let source = "{{ strftime_now('%d %b %Y') }} {{ strftime_now('%c') }}";
        let template = ChatTemplate::new(source, Vec::new(), "t.jinja").unwrap().at_time(day);
        let prompt = template.render_json(&json!([]), &Json::Null, None).unwrap();
        assert_eq!(prompt, "06 Aug 2025 Wed Aug  6 09:05:03 2025");
    }

    #[test]
    fn the_template_is_the_text_or_the_one_named_default() {
        assert_eq!(chosen(&json!({})), Ok(None));
        assert_eq!(chosen(&json!({"chat_template": null})), Ok(None));
        assert_eq!(chosen(&json!({"chat_template": "a"})), Ok(Some("a")));
        let named = json!({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]});
        assert_eq!(chosen(&named), Ok(Some("d")));
        assert!(
            chosen(&json!({"chat_template": [{"name": "rag", "template": "r"}]})).unwrap_err().contains("it has rag")
        );
        assert!(chosen(&json!({"chat_template": 1})).unwrap_err().contains("= 1"));
    }

    #[test]
    fn special_tokens_are_plain_or_objects() {
        let config = json!({"bos_token": null, "eos_token": {"content": "<e>", "special": true}, "pad_token": "<p>", "add_bos_token": false});
        let expected =
            [("eos_token", "<e>"), ("pad_token", "<p>")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(special_tokens(&config), expected);
    }
}
