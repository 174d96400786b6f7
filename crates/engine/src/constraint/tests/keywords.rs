//! Tests of rewritten keywords, and of those rejected by name.

use super::*;

#[test]
fn what_the_compiler_lacks_is_said_in_other_keywords() {
    let object = |rest: Value| {
        let mut schema = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}}, "additionalProperties": false});
        schema
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        schema
    };
    let is_kind =
        |kind: &str| json!({"properties": {"kind": {"const": kind}}, "required": ["kind"]});
    let closed = |mut schema: Value| {
        schema["additionalProperties"] = json!(false);
        schema
    };
    let tagged = |branches: Value| json!({"type": "object", "properties": {"kind": {"enum": ["p", "q"]}, "n": {"type": "integer"}}, "additionalProperties": false, "oneOf": branches});
    let draft_7 = |mut schema: Value| {
        schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
        schema
    };
    type Cases<'a> = &'a [(&'a str, bool)];
    let table: Vec<(Value, Cases<'_>)> = vec![
        // `oneOf`: branches that differ by type, constant or required property, also behind
        // references.
        (
            json!({"oneOf": [{"$ref": "#/$defs/p"}, {"$ref": "#/$defs/q"}], "$defs": {"p": closed(is_kind("p")), "q": closed(is_kind("q"))}, "type": "object"}),
            &[
                ("{\"kind\": \"p\"}", true),
                ("{\"kind\": \"r\"}", false),
                ("{}", false),
            ],
        ),
        (
            json!({"oneOf": [{"$ref": "#/$defs/s"}, {"type": "array", "items": {"$ref": "#/$defs/s"}}], "$defs": {"s": {"type": "string"}}}),
            &[("\"x\"", true), ("[\"x\"]", true), ("1", false)],
        ),
        (
            tagged(json!([is_kind("p"), is_kind("q")])),
            &[("{\"kind\": \"p\"}", true), ("{}", false)],
        ),
        (
            tagged(json!([{"required": ["kind"]}, {"required": ["n"]}])),
            &[
                ("{\"kind\": \"p\"}", true),
                ("{\"n\": 1}", true),
                ("{\"kind\": \"p\", \"n\": 1}", false),
                ("{}", false),
            ],
        ),
        (
            json!({"oneOf": [{"type": "integer", "minimum": 1}, {"type": "integer", "maximum": 0}, {"type": "null"}]}),
            &[("7", true), ("-3", true), ("null", true)],
        ),
        (
            json!({"oneOf": [{"type": "integer", "maximum": 5}, {"type": "integer", "minimum": 3}]}),
            &[("2", true), ("4", false), ("9", true)],
        ),
        (
            json!({"oneOf": [{"enum": ["a", "b"]}, {"type": "string", "pattern": "^x-"}]}),
            &[("\"a\"", true), ("\"x-1\"", true), ("\"c\"", false)],
        ),
        (
            json!({"oneOf": [{"enum": ["a", "b"]}, {"type": "string", "maxLength": 2}]}),
            &[("\"a\"", false), ("\"cd\"", true), ("\"abc\"", false)],
        ),
        (
            json!({"type": "object", "oneOf": [
            {"properties": {"a": {"type": "null"}}, "additionalProperties": false},
            {"properties": {"b": {"type": "null"}}, "additionalProperties": false}]}),
            &[
                ("{\"a\": null}", true),
                ("{\"b\": null}", true),
                ("{}", false),
            ],
        ),
        // `dependencies`, in both forms and under all names.
        (
            draft_7(object(json!({"dependencies": {"a": ["b"]}}))),
            &[
                ("{}", true),
                ("{\"b\": \"x\"}", true),
                ("{\"a\": 1}", false),
                ("{\"a\": 1, \"b\": \"y\"}", true),
            ],
        ),
        (
            draft_7(object(
                json!({"dependencies": {"a": {"properties": {"b": {"const": "x"}}, "required": ["b"]}}}),
            )),
            &[
                ("{\"b\": \"y\"}", true),
                ("{\"a\": 1, \"b\": \"y\"}", false),
                ("{\"a\": 1, \"b\": \"x\"}", true),
            ],
        ),
        (
            object(json!({"dependentRequired": {"a": ["b"], "b": ["a"]}})),
            &[
                ("{}", true),
                ("{\"a\": 1}", false),
                ("{\"a\": 1, \"b\": \"x\"}", true),
            ],
        ),
        (
            object(json!({"dependentSchemas": {"b": false}})),
            &[("{\"a\": 1}", true), ("{\"b\": \"x\"}", false)],
        ),
        // `not`.
        (
            object(json!({"not": {"required": ["a"]}})),
            &[("{\"b\": \"x\"}", true), ("{\"a\": 1}", false)],
        ),
        (
            object(json!({"not": {"required": ["a", "b"]}})),
            &[
                ("{\"b\": \"x\"}", true),
                ("{\"a\": 1}", true),
                ("{\"a\": 1, \"b\": \"x\"}", false),
            ],
        ),
        (
            object(
                json!({"not": {"anyOf": [{"required": ["a"]}, {"properties": {"b": {"const": "y"}}, "required": ["b"]}]}}),
            ),
            &[
                ("{}", true),
                ("{\"b\": \"x\"}", true),
                ("{\"b\": \"y\"}", false),
                ("{\"a\": 1}", false),
            ],
        ),
        (
            json!({"type": "string", "not": {"enum": ["", "ab", "a-]^"]}}),
            &[
                ("\"a\"", true),
                ("\"abc\"", true),
                ("\"ab\"", false),
                ("\"\"", false),
                ("\"a-]^\"", false),
            ],
        ),
        (
            json!({"type": ["string", "null"], "maxLength": 4, "not": {"type": "null"}}),
            &[("\"a\"", true), ("null", false)],
        ),
        (
            json!({"type": "number", "not": {"enum": [0, 1.5]}, "minimum": -1, "maximum": 3}),
            &[
                ("0", false),
                ("0.0", false),
                ("-0", false),
                ("1.5", false),
                ("1.50", false),
                ("2", true),
            ],
        ),
        (
            json!({"type": "integer", "not": {"const": 3}}),
            &[("3", false), ("4", true)],
        ),
        (
            json!({"type": "integer", "not": {"minimum": 3, "maximum": 5}}),
            &[("4", false), ("6", true), ("-2", true)],
        ),
        (
            json!({"not": {"not": {"type": "boolean"}}}),
            &[("true", true), ("1", false)],
        ),
        (
            json!({"type": "array", "items": {"type": "boolean"}, "not": {"maxItems": 1}}),
            &[("[true]", false), ("[true, false]", true)],
        ),
        (
            json!({"type": "array", "maxItems": 3, "items": {"type": "boolean"}, "not": {"prefixItems": [{"const": true}]}}),
            &[("[]", false), ("[true]", false), ("[false]", true)],
        ),
        // `if`.
        (
            object(
                json!({"if": {"properties": {"b": {"const": "x"}}, "required": ["b"]}, "then": {"required": ["a"]}, "else": {"properties": {"a": false}}}),
            ),
            &[
                ("{\"b\": \"x\"}", false),
                ("{\"a\": 1, \"b\": \"x\"}", true),
                ("{\"b\": \"y\"}", true),
                ("{}", true),
                ("{\"a\": 1}", false),
            ],
        ),
        (
            object(json!({"if": {"required": ["a"]}, "else": {"required": ["b"]}})),
            &[
                ("{}", false),
                ("{\"a\": 1}", true),
                ("{\"b\": \"x\"}", true),
            ],
        ),
        (
            json!({"type": ["integer", "string"], "maxLength": 3, "if": {"type": "integer"}, "then": {"minimum": 0}, "else": {"not": {"const": "no"}}}),
            &[
                ("4", true),
                ("-1", false),
                ("\"no\"", false),
                ("\"yes\"", true),
            ],
        ),
        // Patterns that match few keys.
        (
            json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false, "patternProperties": {"^a$": {"minimum": 0, "maximum": 9}}}),
            &[("{\"a\": 1}", true), ("{\"a\": 10}", false)],
        ),
        (
            json!({"type": "object", "required": ["b"], "additionalProperties": false, "patternProperties": {"^(a|b)$": {"type": "boolean"}, "^[bc]$": {"const": true}}}),
            &[
                ("{\"b\": true}", true),
                ("{\"b\": false}", false),
                ("{\"a\": false, \"b\": true, \"c\": true}", true),
            ],
        ),
        (
            json!({"type": "object", "allOf": [{"patternProperties": {"^a$": {"type": "boolean"}}}], "properties": {"a": true}, "additionalProperties": false, "required": ["a"]}),
            &[("{\"a\": true}", true), ("{\"a\": 1}", false)],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": false, "patternProperties": {"^a$": true, "^x": {"type": "null"}}, "required": ["a"], "maxProperties": 2}),
            &[
                ("{\"a\": null, \"xy\": null}", true),
                ("{\"a\": null}", true),
            ],
        ),
        // `uniqueItems`.
        (
            json!({"type": "array", "uniqueItems": true, "items": {"enum": ["a", "b", "c"]}, "minItems": 1}),
            &[
                ("[\"b\", \"a\"]", true),
                ("[\"c\"]", true),
                ("[]", false),
                ("[\"a\", \"a\"]", false),
            ],
        ),
        (
            json!({"type": "array", "uniqueItems": true, "items": {"$ref": "#/$defs/e"}, "maxItems": 2, "$defs": {"e": {"anyOf": [{"const": 1}, {"type": "null"}, {"type": "boolean"}]}}}),
            &[
                ("[1, null]", true),
                ("[true, false]", true),
                ("[1, 1]", false),
            ],
        ),
        (
            json!({"type": "array", "uniqueItems": true, "maxItems": 1, "items": {"type": "string", "maxLength": 3}}),
            &[("[\"a\"]", true)],
        ),
        (
            json!({"type": "array", "uniqueItems": true, "prefixItems": [{"type": "string"}, {"type": "boolean"}], "items": false}),
            &[("[\"a\", true]", true)],
        ),
    ];
    let (mut ended, shared) = (0, tokenizer());
    let vocabulary = Vocabulary::new(&shared).unwrap();
    for (schema, cases) in table {
        let compiled = Constraint::compile(
            &vocabulary,
            &Answer::schema("schema", &schema),
            Reasoning::Off,
        );
        let constraint = compiled.unwrap_or_else(|error| panic!("{schema}: {error}"));
        let validator = jsonschema::validator_for(&schema).unwrap();
        for (text, expected) in cases {
            assert_eq!(
                validator.is_valid(&serde_json::from_str(text).unwrap()),
                *expected,
                "{schema} {text}"
            );
            assert_eq!(
                takes(&constraint, &shared, text) == "+",
                *expected,
                "{schema} {text}"
            );
        }
        for seed in 0..40 {
            let Some(text) = sampled(&constraint, &shared, seed) else {
                continue;
            };
            assert!(
                validator.is_valid(&serde_json::from_str(&text).unwrap()),
                "{schema}: {text}"
            );
            ended += 1;
        }
    }
    assert!(ended > 600, "{ended}");
}

#[test]
fn strings_have_the_format_that_their_schema_names() {
    let shared = tokenizer();
    let vocabulary = Vocabulary::new(&shared).unwrap();
    for (format, ..) in crate::schema_keywords::FORMATS
        .iter()
        .filter(|(name, ..)| *name != "regex")
    {
        let schema = json!({"type": "string", "format": format});
        let constraint =
            Constraint::compile(&vocabulary, &Answer::schema("s", &schema), Reasoning::Off)
                .unwrap_or_else(|error| panic!("{format}: {error}"));
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap();
        for text in (0..20).filter_map(|seed| sampled(&constraint, &shared, seed)) {
            let value = serde_json::from_str(&text).unwrap();
            assert!(validator.is_valid(&value), "{format}: {text}");
        }
    }
    let named = json!({"format": "email", "enum": ["root@localhost"]});
    assert!(compile(&Answer::schema("s", &named), Reasoning::Off).is_ok());
}

#[test]
fn what_cannot_be_enforced_is_named_with_its_place() {
    let check = |schema: serde_json::Value, assert_formats: bool, expected: &[&str]| {
        let mut file = SchemaFile::alone("schema.json", &schema);
        file.text = serde_json::to_string_pretty(&schema).unwrap().into();
        let answer = Answer::Json {
            files: vec![file],
            assert_formats,
        };
        let error = compile(&answer, Reasoning::Off)
            .map(|_| schema.clone())
            .unwrap_err()
            .to_string();
        for part in expected {
            assert!(error.contains(part), "{schema}: {error:?} lacks {part:?}");
        }
    };
    let within = |schema: serde_json::Value| json!({"type": "object", "properties": {"a": schema}});
    for keyword in ["not", "if", "contains", "propertyNames", "unevaluatedItems"] {
        let inner = match keyword {
            "if" => json!({"if": {"pattern": "^a"}, "then": {"maxLength": 3}}),
            "not" => json!({"not": {"items": {"type": "string"}}}),
            _ => json!({keyword: {"type": "string"}}),
        };
        check(
            within(inner),
            false,
            &[
                "schema.json line 5 column",
                &format!("/properties/a/{keyword}): `{keyword}` cannot be enforced"),
            ],
        );
    }
    check(
        within(json!({"uniqueItems": true})),
        false,
        &[
            "/properties/a/uniqueItems",
            "`uniqueItems` cannot be enforced",
        ],
    );
    check(
        within(json!({"minProperties": 2})),
        false,
        &["/properties/a/minProperties"],
    );
    check(
        within(json!({"const": 9_007_199_254_740_993_u64})),
        false,
        &["/properties/a/const", "2^53"],
    );
    check(
        within(json!({"const": "a\u{1}"})),
        false,
        &["/properties/a/const", "control character"],
    );
    check(
        within(json!({"pattern": "a\\x01"})),
        false,
        &["/properties/a/pattern", "control characters"],
    );
    check(
        within(json!({"pattern": "(?=a)b"})),
        false,
        &["/properties/a/pattern", "look-around"],
    );
    check(
        within(json!({"pattern": "\\bb"})),
        false,
        &["/properties/a/pattern", "`pattern` cannot be enforced"],
    );
    check(
        within(json!({"oneOf": [{"type": "number"}, {"type": "integer"}]})),
        false,
        &["/properties/a/oneOf", "`oneOf` cannot be enforced"],
    );
    check(
        within(json!({"format": "regex"})),
        true,
        &[
            "/properties/a/format",
            "\"regex\"",
            "assert_formats = false",
        ],
    );
    check(
        json!({"$ref": "#/$defs/x", "$defs": {"x": within(json!({"contains": {}}))}}),
        false,
        &["/$defs/x/properties/a/contains"],
    );
    check(
        json!({"type": "object", "required": ["a"], "properties": {"a": false}}),
        false,
        &["(/properties)", "no value fits the required property \"a\""],
    );
    check(
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "contentEncoding": "base64"}),
        false,
        &["(/contentEncoding)", "`contentEncoding` cannot be enforced"],
    );
    check(json!(false), false, &["no value is valid"]);
    let definitions = |schema: Value, own: Value| json!({"properties": {"a": {"allOf": [schema]}}, "$defs": {"x": within(own), "y": {"anyOf": [{"$ref": "#/$defs/z"}]}, "z": {"$ref": "#/$defs/y"}}});
    let node = json!({"$ref": "#/$defs/x", "required": ["a"]});
    let refers = json!({"$ref": "#/$defs/x"});
    let large = json!({"patternProperties": {"[a-z]{1,255}": {"type": "null"}}});
    let shared =
        json!({"oneOf": [{"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}]});
    for (schema, expected) in [
        // Behind a reference, under the author's names.
        (
            definitions(refers.clone(), shared),
            "(/$defs/x/properties/a/oneOf): `oneOf` cannot be enforced while decoding: one value may fit branch 0 and branch 1, and no grammar says the opposite of `pattern`",
        ),
        (
            within(large),
            "(/properties/a/patternProperties): `patternProperties` cannot be enforced while decoding: its patterns overlap, or are too large",
        ),
        (
            definitions(json!({"$ref": "#/$defs/y"}), json!({})),
            "`$ref` cannot be enforced while decoding: it leads back to itself",
        ),
        (
            definitions(refers, node),
            "(/$defs/x/properties/a/$ref): `$ref` cannot be enforced while decoding: what it leads to contains it again",
        ),
        (
            within(json!({"enum": ["a", "x</think>y"]})),
            "(/properties/a/enum): \"x</think>y\" cannot be enforced",
        ),
        (
            within(json!({"properties": {"</think>": {}}})),
            "(/properties/a/properties/<~1think>): \"</think>\" cannot be enforced",
        ),
        (
            within(json!({"pattern": "^a</think>"})),
            "(/properties/a/pattern): the pattern",
        ),
        (
            within(json!({"items": {"type": "string"}, "uniqueItems": true})),
            "(/properties/a/uniqueItems): `uniqueItems` cannot be enforced",
        ),
        (
            within(json!({"if": {"required": ["b"]}, "else": {"uniqueItems": true}})),
            "(/properties/a/else/uniqueItems)",
        ),
        (
            json!({"$ref": "#/$defs/none"}),
            "(/$ref): `$ref` target not found: #/$defs/none",
        ),
    ] {
        let error = compile(&Answer::schema("s", &schema), Reasoning::Off)
            .map(|_| schema.clone())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(expected),
            "{schema}: {error:?} lacks {expected:?}"
        );
        for leaked in [
            "coerce",
            "processing",
            "json-schema",
            "lexer",
            "circular",
            "Unsatisfiable",
        ] {
            assert!(!error.contains(leaked), "{error}");
        }
    }
}

#[test]
fn references_lead_where_the_scorer_has_them() {
    let file = |address: &str, schema: Value| SchemaFile {
        address: format!("task:///{address}"),
        ..SchemaFile::alone(address, &schema)
    };
    for (files, taken, other) in [
        (
            vec![file(
                "s.json",
                json!({"$ref": "#/definitions/A<B>", "definitions": {"A<B>": {"const": 1}}}),
            )],
            "1",
            "2",
        ),
        (
            vec![file(
                "s.json",
                json!({"$ref": "#/definitions/A%3CB%3E", "definitions": {"A<B>": {"const": 1}}}),
            )],
            "1",
            "2",
        ),
        // A relative `$id` applies once, however it is reached.
        (
            vec![
                file(
                    "s.json",
                    json!({"$ref": "n/foo.json", "$defs": {"foo": {"$id": "n/foo.json", "$ref": "bar.json"}}}),
                ),
                file("n/bar.json", json!({"const": 1})),
            ],
            "1",
            "2",
        ),
        (
            vec![
                file(
                    "s.json",
                    json!({"$ref": "#/$defs/foo", "$defs": {"foo": {"$id": "n/", "$ref": "bar.json"}}}),
                ),
                file("n/bar.json", json!({"const": 1})),
            ],
            "1",
            "2",
        ),
    ] {
        let answer = Answer::Json {
            files: files.clone(),
            assert_formats: false,
        };
        // Another process compiles the same from its description.
        let description = json!(answer.clone().description());
        let described = Answer::described("s", &serde_json::from_value(description).unwrap());
        for answer in [answer, described] {
            let (constraint, tokenizer) = compile(&answer, Reasoning::Off)
                .unwrap_or_else(|error| panic!("{files:?}: {error}"));
            assert_eq!(
                (
                    takes(&constraint, &tokenizer, taken).as_str(),
                    takes(&constraint, &tokenizer, other).as_str()
                ),
                ("+", "")
            );
        }
    }
}
