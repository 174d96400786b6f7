//! Chat templates render as in Python, and say where they fail.

use serde_json::json;

use super::*;

fn render(source: &str, messages: &Json) -> Result<String, String> {
    let tokens = vec![("eos_token".to_owned(), "</s>".to_owned())];
    let template =
        ChatTemplate::new(source, tokens, "t.jinja").map_err(|error| error.to_string())?;
    template
        .render_json(messages, &Json::Null, Some(Thinking::Off))
        .map_err(|error| error.to_string())
}

#[test]
fn variables_of_a_task_reach_the_template() {
    let source = "{{ reasoning_effort | default('medium') }} {{ preserve_thinking | default(false) }} {{ stops | default([]) }}";
    let template = ChatTemplate::new(source, Vec::new(), "t.jinja").unwrap();
    let render = |kwargs: Json| {
        let Json::Object(kwargs) = kwargs else {
            panic!("{kwargs}")
        };
        let options = TemplateOptions {
            thinking: Thinking::On,
            kwargs,
        };
        template
            .render(&[Message::new("user", "hi")], None, &options)
            .map_err(|error| error.to_string())
    };
    assert_eq!(render(json!({})).unwrap(), "medium False []");
    let kwargs = json!({"reasoning_effort": "low", "preserve_thinking": true, "stops": ["a", 1]});
    assert_eq!(render(kwargs).unwrap(), "low True ['a', 1]");
    let expected = "t.jinja: the chat template does not read `effort_of`: remove it from `chat_template_kwargs`";
    assert_eq!(render(json!({"effort_of": 1})).unwrap_err(), expected);
}

#[test]
fn templates_render_as_in_python() {
    let hello = json!([{"role": "user", "content": " hi "}]);
    let check = |source: &str, expected: &str| {
        assert_eq!(render(source, &hello).unwrap(), expected, "{source}")
    };
    check(
        "{{ messages[0].role }}{{ eos_token }}{{ bos_token }}",
        "user</s>",
    );
    check("{% if true %}\n  a\n  {% endif %}\nb", "  a\nb");
    check(
        "{{ messages[0]['content'].strip() }}|{{ messages[0].content | trim }}",
        "hi|hi",
    );
    check(
        "{{ 'a</think>b'.split('</think>')[-1] }}{{ '\n\nx'.lstrip('\\n') }}",
        "bx",
    );
    check(
        "{{ none }} {{ true }} {{ enable_thinking }} {{ tools is none }} {{ documents is none }}",
        "None True False True True",
    );
    check(
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "1",
    );
    check(
        "{% for c in ['a', 'b', 'c'] %}{% if loop.last %}{% continue %}{% endif %}{{ c }}{% endfor %}",
        "ab",
    );
    check("{{ [1, 2, 3][::-1] | join(',') }}", "3,2,1");
    check(
        "{{ messages[0] | tojson }}",
        r#"{"role": "user", "content": " hi "}"#,
    );
    check("{{ missing }}{{ missing is defined }}", "False");
    check("{%- generation -%} x {%- endgeneration %}", "x");
    check("a\n", "a");
    // Null fields are dropped; reasoning has both of its names.
    let thought = json!([{"role": "assistant", "content": null, "reasoning": "r"}]);
    let fields = "{{ messages[0].content is defined }} {{ messages[0].thinking }} {{ messages[0].reasoning_content }}";
    assert_eq!(render(fields, &thought).unwrap(), "False r r");
    check(
        "{{ '<' }}{{ 6 is divisibleby 3 }}{{ 7 is divisibleby(3) }}",
        "<TrueFalse",
    );
}

#[test]
fn a_thousand_turns_are_within_the_bounds() {
    let turns: Vec<Json> = (0..1_000)
        .map(|turn| json!({"role": if turn % 2 == 0 { "user" } else { "assistant" }, "content": "x"}))
        .collect();
    let golden: Json = serde_json::from_str(include_str!(
        "../../../../../tests/parity/chat_templates.json"
    ))
    .unwrap();
    let template = golden["cases"]
        .as_array()
        .unwrap()
        .iter()
        .find(|case| case["name"] == "reasoning, one question")
        .unwrap();
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
    check(
        "\n{% if 'a'.encode() %}{% endif %}",
        &["no method named encode", "line 2"],
    );
    check("{{ 3 is divisibleby 0 }}", &["cannot divide 3 by 0"]);
    check("{{ strftime_now('%') }}", &["strftime_now"]);
    // Nothing in a template may hang or exhaust memory.
    let million = "{% for a in range(1000) %}{% for b in range(1000) %}";
    check(
        &format!("{million}{{% endfor %}}{{% endfor %}}"),
        &["more than 100000 steps", "loops for too long"],
    );
    check(
        "{% set x = 'a' * 99999 %}{% for a in range(1000) %}{{ x }}{% endfor %}",
        &["longer than 16 MiB"],
    );
    check(
        "{{ [1] | tojson(indent=1000000000000000000) }}",
        &["`indent`", "1000000000000000000"],
    );
    check(
        "{{ (['a' * 99999] * 1000) | tojson }}",
        &["tojson", "16 MiB"],
    );
    check(
        "{{ 'a' | indent(999999999999) }}",
        &["indent: 999999999999 is too many"],
    );
    check(
        "{{ 'a' | indent(width=999999999999) }}",
        &["indent: 999999999999 is too many"],
    );
    check(
        "{{ '%999999999999d' | format(1) }}",
        &["format: 999999999999 is too wide"],
    );
    check(
        "{{ '%*d' | format(99999, 1) }}",
        &["format: 99999 is too many"],
    );
    check(
        "{{ '{:999999999999}'.format(1) }}",
        &["format: 999999999999 is too wide"],
    );
    check(
        "{{ [1] | batch(999999999999, 0) | list }}",
        &["batch: 999999999999 is too many"],
    );
    check(
        "{{ [1] | slice(999999999999) | list }}",
        &["slice: 999999999999 is too many"],
    );
    let nest = "{% set ns = namespace(x=[]) %}{% for a in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    check(
        &format!("{nest}{{{{ ns.x | tojson }}}}"),
        &["set: a value nested deeper than 200", "line 1"],
    );
    check(
        "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}",
        &["a namespace cannot be an attribute's value"],
    );
    check(
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns == ns.x }}",
        &["a namespace cannot be an attribute's value"],
    );
    let double = "{% set ns = namespace(x='ab') %}{% for a in range(1000) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
    check(double, &["set: a value of more than 16 MiB"]);
    check(
        &double
            .replace("ns.x ~ ns.x %}", "[ns.x, ns.x] %}")
            .replace("1000", "100"),
        &["set: the values of one prompt have more than 5000000 items"],
    );
    check(
        &double.replace("= ns.x ~ ns.x %}", "%}{{ ns.x }}{{ ns.x }}{% endset %}"),
        &["more than 64 MiB are printed"],
    );
    // Nor unnamed results of filters, methods, bindings and operators.
    let long = "{% set x = 'a' * 99999 %}";
    check(
        &format!("{long}{{{{ ([x] * 99999) | join }}}}"),
        &["join: a value of more than 16 MiB"],
    );
    check(
        &format!("{long}{{{{ range(99999) | join(x) }}}}"),
        &["join: a text of more than 16 MiB"],
    );
    check(
        &format!("{long}{{{{ x.join(range(99999)) }}}}"),
        &["join: a text of more than 16 MiB"],
    );
    check(
        &format!("{long}{{{{ x | replace('a', x) }}}}"),
        &["replace: a text of more than 16 MiB"],
    );
    check(
        &format!("{long}{{{{ x.replace('', x) }}}}"),
        &["replace: a text of more than 16 MiB"],
    );
    check(
        &format!("{{{{ 'a'{} }}}}", "|replace('a', 'aaaaaaaaaa')".repeat(40)),
        &["replace: a text of more than 16 MiB"],
    );
    check(
        &format!("{long}{{{{ ([x] * 99999) | string }}}}"),
        &["string: a value of more than 16 MiB"],
    );
    check(
        "{{ ([1] * 99999999) | list | length }}",
        &["list: the values of one prompt have more than 5000000 items"],
    );
    check(
        "{{ ([1] * 99999999)[::2] | length }}",
        &["slice: the values of one prompt have more than 5000000 items"],
    );
    check(
        "{{ ('a\n' * 99999) | indent(9999) }}",
        &["indent: a text of more than 16 MiB"],
    );
    check(
        &format!("{long}{{% set y %}}{{{{ [x] * 99999 }}}}{{% endset %}}"),
        &["print: a value of more than 16 MiB"],
    );
    check(
        "{% set ns = namespace(x=[1]) %}{% for a in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x | list | length }}",
        &["set: the values of one prompt have more than 5000000 items"],
    );
    let nested = |open: &str, close: &str| {
        format!(
            "{long}{}{{{{ x | length }}}}{}",
            open.repeat(30),
            close.repeat(30)
        )
    };
    check(
        &nested("{% for x in [x ~ x] %}", "{% endfor %}"),
        &["set: a value of more than 16 MiB"],
    );
    check(
        &nested("{% with x = x ~ x %}", "{% endwith %}"),
        &["set: a value of more than 16 MiB"],
    );
    check(
        &format!("{long}{{% macro f(x) %}}{{{{ f(x ~ x) }}}}{{% endmacro %}}{{{{ f(x) }}}}"),
        &["set: a value of more than 16 MiB"],
    );
    check(
        &format!("{long}{{% for y in [x] recursive %}}{{{{ loop([y ~ y]) }}}}{{% endfor %}}"),
        &["set: a value of more than 16 MiB"],
    );
    check(
        &format!("{long}{{{{ x{} }}}}", " ~ x".repeat(65)),
        &["more than 64 `+` and `~`"],
    );
    check(
        &format!("{long}{{{{ '' ~ ([x] * 99999) }}}}"),
        &["`*` of what may be a list"],
    );
    let sets: String = (0..5_000)
        .map(|number| format!("{{% set x{number} = y ~ '' %}}"))
        .collect();
    check(
        &format!("{{% set y = 'a' * 16000000 %}}{sets}"),
        &["more than 1024 MiB of text"],
    );
}

/// Operators, branches and unassigned values on which the engine recurses: an error or a prompt,
/// never a crash.
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
        deep(format!(
            "{{{{ 1{} }}}}",
            operator.repeat(8_000 / operator.trim().len())
        ));
    }
    deep(format!(
        "{{% if a %}}{}{{% endif %}}",
        "{% elif b %}".repeat(20_000)
    ));
    deep(format!("{{{{ {}1 }}}}", "not ".repeat(2_000)));
    deep(format!(
        "{{{{ {}1{} }}}}",
        "[".repeat(4_000),
        "]".repeat(4_000)
    ));
    let nested = format!("{}x{}", "[".repeat(100), "]".repeat(100));
    deep(format!(
        "{{% set x = 1 %}}{}{{{{ x }}}}{{{{ x | tojson }}}}{{{{ x == x }}}}",
        format!("{{% with x = {nested} %}}").repeat(140)
    ));
    let macros =
        format!("{{% macro f(x) %}}{{{{ x }}}}{{{{ f({nested}) }}}}{{% endmacro %}}{{{{ f(1) }}}}");
    deep(macros.clone());
    deep(
        macros
            .replace("{{ x }}", "")
            .replace("{{ f(1) }}", "{{ f(1) == f(2) }}"),
    );
    let batched = "|batch(1)|list".repeat(550);
    deep(format!("{{% set x = [1]{batched} %}}"));
    deep(format!(
        "{{{{ [1]{batched} }}}}{{{{ [1]{batched} == [1]{batched} }}}}"
    ));
}

#[test]
fn today_is_written_in_the_given_format() {
    let year = render("{{ strftime_now('%Y') }}", &json!([])).unwrap();
    assert!(year.len() == 4 && year.parse::<u32>().is_ok(), "{year}");
    let day = jiff::civil::datetime(2025, 8, 6, 9, 5, 3, 0)
        .to_zoned(jiff::tz::TimeZone::UTC)
        .unwrap();
    let source = "{{ strftime_now('%d %b %Y') }} {{ strftime_now('%c') }}";
    let mut template = ChatTemplate::new(source, Vec::new(), "t.jinja").unwrap();
    template.set_time(&day);
    let prompt = template.render_json(&json!([]), &Json::Null, None).unwrap();
    assert_eq!(prompt, "06 Aug 2025 Wed Aug  6 09:05:03 2025");
}

#[test]
fn a_template_is_chosen_by_its_name_and_by_whether_there_are_tools() {
    let entry = |name: &str| json!({"name": name, "template": format!("{name} {{{{ (tools or []) | length }}}}")});
    let named = |names: &[&str]| json!({"chat_template": names.iter().map(|name| entry(name)).collect::<Vec<_>>()});
    let (file, tool_file) = (
        ("chat_template.jinja", "file"),
        (
            "additional_chat_templates/tool_use.jinja",
            "tool file {{ tools | length }}",
        ),
    );
    // Configuration, files, and the prompt without and with a tool.
    let rag = "it has rag";
    for (config, files, plain, with_tools) in [
        (json!({"chat_template": "a"}), &[][..], "a", "a"),
        (named(&["rag", "default"]), &[], "default 0", "default 1"),
        (
            named(&["default", "tool_use"]),
            &[],
            "default 0",
            "tool_use 1",
        ),
        (named(&["tool_use"]), &[], "it has tool_use", "tool_use 1"),
        (named(&["rag"]), &[], rag, rag),
        (json!({"chat_template": 1}), &[], "= 1", "= 1"),
        (json!({"chat_template": [1]}), &[], "has 1", "has 1"),
        (json!({}), &[], "no chat template", "no chat template"),
        (json!({"chat_template": null}), &[file], "file", "file"),
        // Files override the whole configuration.
        (named(&["default", "tool_use"]), &[file], "file", "file"),
        (
            json!({"chat_template": "a"}),
            &[file, tool_file],
            "file",
            "tool file 1",
        ),
        (
            json!({"chat_template": "a"}),
            &[tool_file],
            "a",
            "tool file 1",
        ),
    ] {
        let work = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = work.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let loaded = ChatTemplate::load(&ModelSource::at("m", work.path()), &config);
        let render = |tools: Option<&Json>| match &loaded {
            Ok(Some(template)) => template
                .render(&[Message::new("user", "u")], tools, &Thinking::Off.into())
                .unwrap_or_else(|error| error.to_string()),
            Ok(None) => "no chat template".to_owned(),
            Err(error) => error.to_string(),
        };
        let shown = format!("{config} {files:?}");
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let (found, found_with_tools) = (render(None), render(Some(&tools)));
        assert!(found.contains(plain), "{shown}: {found}");
        // Tools as text in the system turn of a template that does not support them.
        assert!(
            found_with_tools.contains(with_tools),
            "{shown}: {found_with_tools}"
        );
    }
}

/// transformers passes fields in order, without nulls.
#[test]
fn messages_have_the_fields_that_they_were_written_with() {
    for (written, expected) in [
        (
            json!({"role": "user", "content": "u"}),
            r#"{"role": "user", "content": "u"}"#,
        ),
        (
            json!({"content": "u", "name": "n", "role": "user"}),
            r#"{"content": "u", "name": "n", "role": "user"}"#,
        ),
        (
            json!({"role": "assistant", "content": null, "tool_calls": []}),
            r#"{"role": "assistant", "tool_calls": []}"#,
        ),
        (
            json!({"tool_calls": [], "role": "assistant"}),
            r#"{"tool_calls": [], "role": "assistant"}"#,
        ),
        (
            json!({"role": "assistant", "tool_calls": [], "content": ""}),
            r#"{"role": "assistant", "tool_calls": [], "content": ""}"#,
        ),
    ] {
        let Json::Object(fields) = &written else {
            panic!()
        };
        let mut message = Message::new(
            fields["role"].as_str().unwrap(),
            fields
                .get("content")
                .and_then(Json::as_str)
                .unwrap_or_default(),
        );
        message.other = fields.clone();
        message.other.retain(|name, value| {
            !["role", "content"].contains(&name.as_str()) && !value.is_null()
        });
        let template = ChatTemplate::new(
            "{{ messages[0] | tojson }}{{ tools }}",
            Vec::new(),
            "t.jinja",
        )
        .unwrap();
        let rendered = template
            .render(&[message.written_as(fields)], None, &Thinking::Off.into())
            .unwrap();
        assert_eq!(rendered, format!("{expected}None"), "{written}");
    }
}

#[test]
fn special_tokens_are_plain_or_objects() {
    let config = json!({"bos_token": null, "eos_token": {"content": "<e>", "special": true}, "pad_token": "<p>", "add_bos_token": false,
        "image_token": "<i>", "extra_special_tokens": {"video_token": "<v>"}});
    let expected = [
        ("eos_token", "<e>"),
        ("pad_token", "<p>"),
        ("image_token", "<i>"),
        ("video_token", "<v>"),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!(special_tokens(&config), expected);
}

#[test]
fn a_pinned_template_renders_as_in_training_whatever_a_server_passes() {
    let source = "\n{{ enable_thinking }} {{ effort }} {{ messages[0].content }}";
    let options = TemplateOptions {
        thinking: Thinking::Off,
        kwargs: serde_json::from_str(r#"{"effort": "lo\"w"}"#).unwrap(),
    };
    let messages = [Message::new("user", "Hi")];
    let render = |source: &str, options: &TemplateOptions| {
        let template = ChatTemplate::new(source, Vec::new(), "t.jinja").unwrap();
        template.render(&messages, None, options).unwrap()
    };
    let pinned = options.pinned(source);
    assert_eq!(render(&pinned, &Thinking::On.into()), "\nFalse lo\"w Hi");
    assert_eq!(render(source, &options), "\nFalse lo\"w Hi");
    let by_default = TemplateOptions::from(Thinking::On);
    assert_eq!(by_default.pinned(source), source);
    assert_eq!(options.pinned("{{ messages }}"), "{{ messages }}");
}

/// What these cases expect is what transformers makes of the exported template.
#[test]
fn a_template_without_tools_gets_them_as_text_as_its_export_does() {
    let golden: Json = serde_json::from_str(include_str!(
        "../../../../../tests/parity/chat_templates.json"
    ))
    .unwrap();
    let mut count = 0;
    for case in golden["cases"].as_array().unwrap() {
        let exported = case["template"].as_str().unwrap();
        let Some(source) = exported.strip_prefix(TOOLS_AS_TEXT) else {
            continue;
        };
        let template = ChatTemplate::new(source, Vec::new(), "t.jinja").unwrap();
        assert_eq!(template.exported_source(), exported);
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let tools = Some(&case["tools"]).filter(|tools| tools.is_array());
        let prompt = template.render(&messages, tools, &Thinking::Off.into());
        assert_eq!(prompt.unwrap(), case["expected"].as_str().unwrap());
        count += 1;
    }
    assert_eq!(count, 4);
}

#[test]
fn an_error_beside_tools_as_text_names_the_line_of_the_template() {
    let source = "{{ messages[0].content }}\n{{ raise_exception('no') }}";
    let template = ChatTemplate::new(source, Vec::new(), "t.jinja").unwrap();
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let render =
        |tools| template.render(&[Message::new("user", "u")], tools, &Thinking::Off.into());
    for tools in [None, Some(&tools)] {
        assert!(
            render(tools)
                .unwrap_err()
                .to_string()
                .ends_with("(line 2 of the template)")
        );
    }
}
