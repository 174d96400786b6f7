//! Tests of masks for small vocabularies: what they allow, and that it is valid.

use serde_json::json;

use super::*;
use crate::text::{CHAT_TEMPLATE, CallFormat, train_tokenizer};

mod call_formats; // call formats of model families
mod keywords; // rewritten and rejected keywords
mod think_blocks;

fn hermes() -> &'static CallFormat {
    CallFormat::hermes()
}

fn list_format() -> &'static CallFormat {
    CallFormat::named("json").unwrap()
}

fn tokenizer() -> Tokenizer {
    with_template("")
}

/// `added`: a comment in its chat template.
fn with_template(added: &str) -> Tokenizer {
    let texts = [
        "{\"vendor\": \"Acme\", \"total\": [12.50, 3], \"paid\": true, \"note\": null}",
        "<tool_call>\n{\"name\": \"pay\", \"arguments\": {}}\n</tool_call> </think> 2024-05-17",
    ];
    let files = train_tokenizer(
        texts.map(str::to_owned).into_iter().cycle().take(40),
        400,
        &format!("{CHAT_TEMPLATE}{{# {added} #}}"),
    )
    .unwrap();
    Tokenizer::from_files(&files).unwrap()
}

/// Feeds a text character by character: `+` if accepted with an end, `-` if it cannot end, else the
/// accepted prefix.
fn takes(constraint: &Constraint, tokenizer: &Tokenizer, text: &str) -> String {
    let mut progress = constraint.begin();
    let mut words = vec![0; tokenizer.vocab_size().div_ceil(32)];
    let allows = |words: &[u32], id: u32| words[id as usize / 32] >> (id % 32) & 1 == 1;
    let mut taken = Vec::new();
    let mut letters = [0; 4];
    let ids = text
        .chars()
        .flat_map(|letter| tokenizer.encode(letter.encode_utf8(&mut letters)).unwrap());
    for id in ids {
        progress.mask(&mut words).unwrap();
        if !allows(&words, id) {
            return tokenizer.decode(&taken, false).unwrap();
        }
        progress.push(id).unwrap();
        taken.push(id);
    }
    progress.mask(&mut words).unwrap();
    let ends = tokenizer
        .stop_ids()
        .iter()
        .filter(|id| allows(&words, **id))
        .count();
    assert!(ends == 0 || ends == tokenizer.stop_ids().len());
    if ends > 0 { "+" } else { "-" }.to_owned()
}

fn compile(
    answer: &Answer,
    reasoning: Reasoning,
) -> Result<(Constraint, Tokenizer), ConstraintError> {
    compile_for(tokenizer(), answer, reasoning)
}

fn compile_for(
    tokenizer: Tokenizer,
    answer: &Answer,
    reasoning: Reasoning,
) -> Result<(Constraint, Tokenizer), ConstraintError> {
    let vocabulary = Vocabulary::new(&tokenizer)?;
    Ok((
        Constraint::compile(&vocabulary, answer, reasoning)?,
        tokenizer,
    ))
}

#[test]
fn json_is_taken_in_any_of_three_spacings_and_ends_where_it_ends() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", null]}},
        "required": ["a"], "additionalProperties": false});
    let (constraint, tokenizer) =
        compile(&Answer::schema("schema", &schema), Reasoning::Off).unwrap();
    for (text, expected) in [
        ("{\"a\":1}", "+"),
        ("{\"a\": 1, \"b\": \"x\"}", "+"),
        ("{\n  \"a\": 1,\n  \"b\": null\n}", "+"),
        ("{\"a\": 1", "-"),
        (" {\"a\":1}", ""),
        ("{\"a\":  1}", "{\"a\": "),
        ("{\"a\":1.5}", "{\"a\":1"),
        ("{\"b\":null}", "{\""),
        ("{\"a\":1}\n", "{\"a\":1}"),
        ("{\"a\":1, \"c\":", "{\"a\":1, \""),
        ("{\"a\":1}{", "{\"a\":1}"),
    ] {
        assert_eq!(takes(&constraint, &tokenizer, text), expected, "{text}");
    }
}

#[test]
fn calls_are_taken_in_the_form_of_the_template() {
    let tools = json!([
        {"type": "function", "function": {"name": "pay", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}},
        {"name": "list"},
    ]);
    let of = |form| {
        compile(
            &Answer::calls(("tools", &tools.to_string()), &tools, form, false).unwrap(),
            Reasoning::Off,
        )
        .unwrap()
    };
    let (constraint, tokenizer) = of(hermes());
    for (text, expected) in [
        (
            "<tool_call>\n{\"name\": \"pay\", \"arguments\": {\"n\": 1}}\n</tool_call>",
            "+",
        ),
        (
            "<tool_call>{\"name\":\"list\",\"arguments\":{}}</tool_call><tool_call>{\"name\":\"list\",\"arguments\":{}}</tool_call>",
            "+",
        ),
        (
            "<tool_call>{\"name\":\"list\",\"arguments\":{\"n",
            "<tool_call>{\"name\":\"list\",\"arguments\":{",
        ),
        (
            "<tool_call>{\"name\":\"pay\",\"arguments\":{}",
            "<tool_call>{\"name\":\"pay\",\"arguments\":{",
        ),
        ("I", ""),
    ] {
        assert_eq!(takes(&constraint, &tokenizer, text), expected, "{text}");
    }
    let (constraint, tokenizer) = of(list_format());
    for (text, expected) in [
        ("[{\"name\": \"list\", \"arguments\": {}}]", "+"),
        ("[]", "["),
        ("<", ""),
    ] {
        assert_eq!(takes(&constraint, &tokenizer, text), expected, "{text}");
    }
    let bound = |form, instead: Instead, is_single| {
        let mut answer = Answer::calls(("tools", &tools.to_string()), &tools, form, false).unwrap();
        if let Answer::Calls {
            instead: own,
            is_single: single,
            ..
        } = &mut answer
        {
            (*own, *single) = (instead, is_single);
        }
        compile(&answer, Reasoning::Off).unwrap().0
    };
    let block = "<tool_call>{\"name\":\"list\",\"arguments\":{}}</tool_call>";
    let list = "[{\"name\": \"list\", \"arguments\": {}}]";
    let value = || {
        Instead::Value(vec![SchemaFile::alone(
            "v",
            &json!({"type": "object", "properties": {"v": {"const": 1}}, "required": ["v"]}),
        )])
    };
    let wrong = "<tool_call>{\"name\":\"x";
    for (form, instead, is_single, cases) in [
        (
            hermes(),
            Instead::Nothing,
            true,
            &[(&*format!("{block}{block}"), block), (block, "+")] as &[_],
        ),
        (
            hermes(),
            Instead::EmptyList,
            false,
            &[("[]", "+"), (&*format!("{block}{block}"), "+"), ("No", "")],
        ),
        (
            hermes(),
            value(),
            false,
            &[
                ("{\"v\": 1}", "+"),
                (&*format!("{block}{block}"), "+"),
                ("[]", ""),
            ],
        ),
        (
            hermes(),
            Instead::Text,
            false,
            &[
                ("No <tool.", "+"),
                ("", "+"),
                (&*format!("Look: {block} and\n{block} {{}}"), "+"),
                (&*format!("Look: {wrong}"), "Look: <tool_call>{\"name\":\""),
            ],
        ),
        (
            hermes(),
            Instead::Text,
            true,
            &[
                (block, "+"),
                (&*format!("a{block}b"), "+"),
                (
                    &*format!("{block} {block}"),
                    &*format!("{block} <tool_call"),
                ),
            ],
        ),
        (
            list_format(),
            Instead::Nothing,
            true,
            &[(list, "+"), ("[]", "[")],
        ),
        (
            list_format(),
            Instead::EmptyList,
            false,
            &[("[]", "+"), (list, "+")],
        ),
        (
            list_format(),
            value(),
            false,
            &[("{\"v\": 1}", "+"), (list, "+"), ("[]", "[")],
        ),
        (
            list_format(),
            Instead::Text,
            false,
            &[
                ("No [1].", "+"),
                (list, "+"),
                ("[1]", "["),
                (block, "<tool_call"),
            ],
        ),
    ] {
        let constraint = bound(form, instead.clone(), is_single);
        for (text, expected) in cases {
            assert_eq!(
                takes(&constraint, &tokenizer, text),
                *expected,
                "{form:?} {instead:?} {is_single} {text}"
            );
        }
    }
    let none = Answer::calls(("tools", "[]"), &json!([]), hermes(), false);
    assert!(none.unwrap_err().to_string().contains("there are none"));
}

#[test]
fn a_pattern_is_found_in_the_answer() {
    for (pattern, cases) in [
        (
            r"^\d{2}-(a|b)$",
            &[("12-a", "+"), ("12-", "-"), ("x", ""), ("12-a ", "12-a")] as &[_],
        ),
        (
            r"\d+",
            &[("12", "+"), ("a 1 b", "+"), ("abc", "-"), (" 1", "")],
        ),
        (
            "^(ja|nein)|x$",
            &[("ja 2", "+"), ("nein", "+"), ("ab x", "+"), ("jx", "+")],
        ),
        ("(?i)^yes", &[("YES!", "+"), ("no", "")]),
    ] {
        let answer = Answer::Text {
            pattern: pattern.to_owned(),
            label: "task.toml".to_owned(),
        };
        let (constraint, tokenizer) = compile(&answer, Reasoning::Off).unwrap();
        for (text, expected) in cases {
            assert_eq!(
                takes(&constraint, &tokenizer, text),
                *expected,
                "{pattern} {text}"
            );
        }
    }
    for (pattern, why) in [
        (r"\bfoo\b", "it has a word boundary or an anchor inside"),
        ("(?m)^a$\n^b$", "it has a word boundary or an anchor inside"),
        (r"^\s+$", "it is too large, or no text fits it"),
    ] {
        let refused = Answer::Text {
            pattern: pattern.to_owned(),
            label: "task.toml".to_owned(),
        };
        let Err(error) = compile(&refused, Reasoning::Off) else {
            panic!("{pattern} is taken")
        };
        assert_eq!(
            error.to_string(),
            format!("task.toml: the pattern cannot be enforced while decoding: {why}"),
            "{pattern}"
        );
    }
}

/// A random text from the masks; `None` if it does not end soon.
fn sampled(constraint: &Constraint, tokenizer: &Tokenizer, seed: u64) -> Option<String> {
    let mut progress = constraint.begin();
    let mut words = vec![0; tokenizer.vocab_size().div_ceil(32)];
    let (mut ids, mut random) = (Vec::new(), seed);
    for _ in 0..300 {
        progress.mask(&mut words).unwrap();
        let allowed: Vec<u32> = (0..tokenizer.vocab_size() as u32)
            .filter(|id| words[*id as usize / 32] >> (id % 32) & 1 == 1)
            .collect();
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let end = allowed
            .iter()
            .copied()
            .find(|id| tokenizer.stop_ids().contains(id))
            .filter(|_| random >> 62 > 0);
        let id = end.unwrap_or(allowed[(random >> 33) as usize % allowed.len()]);
        if tokenizer.stop_ids().contains(&id) {
            return Some(tokenizer.decode(&ids, true).unwrap());
        }
        progress.push(id).unwrap();
        ids.push(id);
    }
    None
}

/// A random supported schema, small enough for random texts to end.
fn any_schema() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        (-20i64..20, 0i64..30).prop_map(|(least, more)| json!({"type": "integer", "minimum": least, "maximum": least + more})),
        (-4i32..4, 1i32..5).prop_map(|(least, more)| json!({"type": "number", "minimum": f64::from(least) / 2.0, "exclusiveMaximum": f64::from(least + more)})),
        prop::sample::select(vec![2.0, 0.5, 0.1, 3.0]).prop_map(|step| json!({"type": "number", "multipleOf": step, "minimum": -9, "maximum": 9})),
        (-4i32..4, 1i32..5, prop::bool::ANY).prop_map(|(least, more, half)| {
            let least = f64::from(least) / if half { 2.0 } else { 1.0 };
            json!({"type": "number", "exclusiveMinimum": least, "maximum": least + f64::from(more) * 0.4})
        }),
        (0u8..3, 0u8..4).prop_map(|(least, more)| json!({"type": "string", "minLength": least, "maxLength": least + more})),
        prop::sample::select(vec!["^[a-c]+$", "x|y", "^\\d{2}", "\\s", "[^a]$", "^.$", "\\w\\W"]).prop_map(|pattern| json!({"type": "string", "pattern": pattern, "maxLength": 6})),
        Just(json!({"enum": [1, 2.5, "a\"b", null, [1, {"k": true}], -0.1, 1e3]})),
        Just(json!({"const": {"a": [], "b": "\n\"é"}})),
        prop::sample::select(vec!["date", "time", "date-time", "ipv4", "uuid", "duration", "email", "hostname", "ipv6", "uri", "uri-template", "iri-reference", "json-pointer", "relative-json-pointer"]).prop_map(|format| json!({"type": "string", "format": format})),
        Just(json!({"type": ["boolean", "null"]})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            (inner.clone(), 0usize..3, 0usize..3).prop_map(|(items, least, more)| json!({"type": "array", "items": items, "minItems": least, "maxItems": least + more})),
            list.clone().prop_map(|items| json!({"type": "array", "prefixItems": items, "items": false, "minItems": 1})),
            list.clone().prop_map(|branches| json!({"anyOf": branches})),
            list.clone().prop_map(|branches| json!({"oneOf": branches})),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| json!({"allOf": [a, {"not": b}]})),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| json!({"if": a, "then": b, "else": c})),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| json!({"type": "object", "properties": {"a": a, "b": {"type": "null"}}, "additionalProperties": false, "dependentSchemas": {"b": {"properties": {"a": b}, "required": ["a"]}}})),
            inner.clone().prop_map(|items| json!({"type": "array", "items": items, "uniqueItems": true, "maxItems": 2})),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| json!({"allOf": [a, {"anyOf": [b, {"type": ["string", "integer"]}]}]})),
            (inner.clone(), inner.clone(), any::<bool>(), 0usize..3).prop_map(|(a, b, open, least)| json!({
                "type": "object", "properties": {"a": a, "b/~": b}, "required": if open { vec!["a"] } else { vec![] },
                "additionalProperties": if open { json!({"type": "null"}) } else { json!(false) }, "minProperties": least, "maxProperties": 3,
            })),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| json!({"type": "object", "patternProperties": {"^(a|b)$": a}, "properties": {"a": b}, "required": ["a"], "additionalProperties": false})),
            (inner.clone(), inner).prop_map(|(a, b)| json!({"type": "object", "patternProperties": {"^x": a}, "properties": {"xy": b}, "additionalProperties": false, "maxProperties": 2})),
        ]
    })
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 300, ..Default::default() })]

    /// Random texts from the masks are valid, and remain accepted with other spacing.
    #[test]
    fn whatever_a_constraint_emits_is_valid(schema in any_schema(), seed in 0u64..1 << 60) {
        static SHARED: std::sync::OnceLock<(Arc<Vocabulary>, Tokenizer)> = std::sync::OnceLock::new();
        let (vocabulary, tokenizer) = SHARED.get_or_init(|| { let tokenizer = tokenizer(); (Vocabulary::new(&tokenizer).unwrap(), tokenizer) });
        let answer = Answer::Json { files: vec![SchemaFile::alone("schema", &schema)], assert_formats: true };
        // The error's text is tested elsewhere.
        let Ok(constraint) = Constraint::compile(vocabulary, &answer, Reasoning::Off) else { return Ok(()) };
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let Some(text) = sampled(&constraint, tokenizer, seed) else { return Ok(()) };
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{schema}: {text:?}: {error}"));
        proptest::prop_assert!(validator.is_valid(&value), "{}: {}", schema, text);
        if !text.contains(['.', 'e', 'E']) && !text.contains("-0") {
            for other in [value.to_string(), serde_json::to_string_pretty(&value).unwrap(), crate::text::json_line(&value).unwrap()] {
                proptest::prop_assert_eq!(takes(&constraint, tokenizer, &other), "+", "{}: {}", &schema, other);
            }
        }
    }
}

#[test]
fn a_constraint_that_takes_too_long_is_given_up() {
    let (sender, receiver) = channel::<()>();
    let error = within(Duration::ZERO, move || receiver.recv())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("took longer than 0 s of processor time"),
        "{error}"
    );
    drop(sender);
    assert_eq!(within(COMPILE_TIME, || 7).unwrap(), 7);
    let occupy = |_| {
        let (sender, receiver) = channel::<()>();
        let work = move || receiver.recv().is_err();
        (
            sender,
            std::thread::spawn(move || within(COMPILE_TIME, work)),
        )
    };
    let most = std::thread::available_parallelism().map_or(1, NonZero::get);
    let (senders, threads): (Vec<_>, Vec<_>) = (0..most).map(occupy).unzip();
    let busy = loop {
        if let Err(error) = within(Duration::from_millis(10), || 7) {
            break error;
        }
    };
    assert!(matches!(busy, ConstraintError::Busy { .. }), "{busy}");
    drop(senders);
    assert!(
        threads
            .into_iter()
            .all(|thread| thread.join().unwrap().unwrap())
    );
    let tools = json!([{"name": "f"}, {"name": "g", "parameters": {"properties": {"a": {"contains": {}}}}}]);
    let answer = Answer::calls(("t.json", &tools.to_string()), &tools, hermes(), false).unwrap();
    let error = compile(&answer, Reasoning::Off)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("(/1/parameters/properties/a/contains)"),
        "{error}"
    );
}

#[test]
fn an_excluded_whole_number_is_excluded_beside_another_bound() {
    for (bounds, cases) in [
        (
            json!({"exclusiveMinimum": 1, "maximum": 1.5}),
            &[
                ("1", "-"),
                ("1.0", "-"),
                ("1.5", "+"),
                ("1.000001", "+"),
                ("2", ""),
            ] as &[_],
        ),
        (
            json!({"exclusiveMaximum": 0, "minimum": -0.5}),
            &[("0", ""), ("-0", "-"), ("-0.5", "+"), ("-0.6", "-0.")],
        ),
        (
            json!({"allOf": [{"exclusiveMaximum": -1}, {"exclusiveMinimum": -1.5}]}),
            &[("-1", "-"), ("-1.2", "+"), ("-1.5", "-1.")],
        ),
        (
            json!({"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": true, "maximum": 1.5}),
            &[("1", "-"), ("1.2", "+")],
        ),
        (
            json!({"exclusiveMinimum": 0, "maximum": 0.5, "enum": [0, 0.25]}),
            &[("0", "-"), ("0.25", "+")],
        ),
    ] {
        let schema = json!({"type": "number", "allOf": [bounds]});
        let (constraint, tokenizer) =
            compile(&Answer::schema("schema", &schema), Reasoning::Off).unwrap();
        for (text, expected) in cases {
            assert_eq!(
                takes(&constraint, &tokenizer, text),
                *expected,
                "{schema} {text}"
            );
        }
    }
}

#[test]
fn what_has_no_effect_is_no_obstacle() {
    for schema in [
        json!({"uniqueItems": false, "then": {"type": "string"}, "minContains": 2, "propertyNames": true, "x-other": {"not": {}}}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/a", "not": {}, "definitions": {"a": {"type": "null"}}}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "dependentRequired": {"a": ["b"]}}),
        json!({"type": "object", "properties": {"a": {}}, "unevaluatedProperties": false}),
        json!({"x-guidance": {"lenient": true}, "type": "null"}),
        json!({"format": "email", "type": "string"}),
        json!({"contentEncoding": "base64", "contentMediaType": "application/json"}),
        json!({"properties": {"a": {"exclusiveMinimum": 0}, "b": {"maximum": 0.5}}}),
        json!({"type": "number", "exclusiveMinimum": 0, "maximum": 100}),
        json!({"type": "integer", "exclusiveMinimum": 0, "maximum": 1.5, "minimum": -1}),
        json!(true),
    ] {
        assert!(
            compile(&Answer::schema("s", &schema), Reasoning::Off).is_ok(),
            "{schema}"
        );
    }
    let lenient = json!({"x-guidance": {"lenient": true}, "uniqueItems": true});
    assert!(compile(&Answer::schema("s", &lenient), Reasoning::Off).is_err());
}

/// Objects with many properties: `required` of them, each after as many optional ones.
fn wide(properties: usize, required: usize, is_open: bool) -> Value {
    let name = |index: usize| format!("key_{index}");
    let of_type = |index: usize| json!({"type": (["integer", "boolean", "null"][index % 3])});
    let all: serde_json::Map<String, Value> = (0..properties)
        .map(|index| (name(index), of_type(index)))
        .collect();
    let step = properties.checked_div(required).unwrap_or(properties);
    let required: Vec<String> = (1..=required).map(|count| name(count * step - 1)).collect();
    json!({"type": "object", "properties": all, "required": required, "additionalProperties": is_open})
}

#[test]
fn an_object_may_have_a_thousand_optional_properties() {
    for (required, is_open) in [(0, false), (0, true), (4, false)] {
        let schema =
            json!({"type": "array", "items": wide(1_000, required, is_open), "minItems": 2});
        let (constraint, tokenizer) =
            compile(&Answer::schema("schema", &schema), Reasoning::Off).unwrap();
        let value = |index: usize| [json!(7), json!(true), json!(null)][index % 3].clone();
        let of = |indices: &mut dyn Iterator<Item = usize>| -> Value {
            indices
                .map(|index| (format!("key_{index}"), value(index)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let value = json!([
            of(&mut (49..1_000).step_by(50)),
            of(&mut (249..1_000).step_by(250))
        ]);
        assert_eq!(
            takes(&constraint, &tokenizer, &value.to_string()),
            "+",
            "{required} {is_open}"
        );
        let last = value.to_string().replace("\"key_999\":7", "\"key_0\":7");
        assert_ne!(
            takes(&constraint, &tokenizer, &last),
            "+",
            "the order, or a required property"
        );
        let validator = jsonschema::validator_for(&schema).unwrap();
        let mut progress = constraint.begin();
        let mut words = vec![0; tokenizer.vocab_size().div_ceil(32)];
        let (mut ids, mut random) = (Vec::new(), 1u64);
        let text = loop {
            progress.mask(&mut words).unwrap();
            let allowed: Vec<u32> = (0..tokenizer.vocab_size() as u32)
                .filter(|id| words[*id as usize / 32] >> (id % 32) & 1 == 1)
                .collect();
            if allowed.iter().any(|id| tokenizer.stop_ids().contains(id)) {
                break tokenizer.decode(&ids, true).unwrap();
            }
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let close = ["]", "}", "\""]
                .iter()
                .filter_map(|text| tokenizer.token_id(text))
                .find(|id| allowed.contains(id));
            let id = close
                .filter(|_| random >> 62 > 0)
                .unwrap_or(allowed[(random >> 33) as usize % allowed.len()]);
            progress.push(id).unwrap();
            ids.push(id);
        };
        assert!(
            validator.is_valid(&serde_json::from_str(&text).unwrap()),
            "{text}"
        );
    }
    let check = |schema: Value, expected: &str| {
        let error = compile(&Answer::schema("schema", &schema), Reasoning::Off)
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        json!({"properties": {"a": wide(1_001, 0, false)}}),
        "(/properties/a/properties): 1001 optional properties in a row",
    );
    check(
        wide(5_000, 4, false),
        "(/properties): 1249 optional properties in a row",
    );
    let (constraint, tokenizer) = compile(
        &Answer::schema("schema", &wide(5_000, 50, false)),
        Reasoning::Off,
    )
    .unwrap();
    let begun = "{\"key_7\": true, \"key_99\": 1";
    assert_eq!(
        takes(&constraint, &tokenizer, begun),
        "-",
        "49 more are required"
    );
}
