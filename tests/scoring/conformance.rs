//! One row a rule of JSON Schema and draft, so that a change of the validator's version cannot change a reward unseen.

use grpo_tui::score::Tier;

use super::scorer_with;

const DRAFTS: [(&str, &str); 5] = [
    ("4", "http://json-schema.org/draft-04/schema#"),
    ("6", "http://json-schema.org/draft-06/schema#"),
    ("7", "http://json-schema.org/draft-07/schema#"),
    ("2019", "https://json-schema.org/draft/2019-09/schema"),
    ("2020", "https://json-schema.org/draft/2020-12/schema"),
];

/// Drafts (`*` for all, or a list of their names), schema, valid and invalid instances.
type Case = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

fn check(cases: &[Case], lines: &str) {
    let mut wrong = Vec::new();
    for (drafts, schema, valid, invalid) in cases {
        let is_of = |name: &str| *drafts == "*" || drafts.split(' ').any(|draft| draft == name);
        for (name, address) in DRAFTS.iter().filter(|(name, _)| is_of(name)) {
            let mut schema = grpo_tui::exact_json::parse(schema).unwrap();
            if let Some(members) = schema.as_object_mut() {
                members.insert("$schema".into(), (*address).into());
            }
            let scorer = scorer_with(&grpo_tui::exact_json::write(&schema), lines);
            for (instance, expected) in valid
                .iter()
                .map(|one| (one, true))
                .chain(invalid.iter().map(|one| (one, false)))
            {
                let score = scorer.score(instance, None);
                let is_valid = score.tier == Tier::Valid;
                if is_valid != expected
                    || score.errors.is_empty() != expected
                    || score.tier == Tier::Unparsable
                {
                    wrong.push(format!(
                        "draft {name}: {schema} on {instance} is {:?}: {:?}",
                        score.tier, score.errors
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn types() {
    check(
        &[
            ("*", r#"{"type":"null"}"#, &["null"], &["false"]),
            ("*", r#"{"type":"boolean"}"#, &["true"], &["0", "\"true\""]),
            ("*", r#"{"type":"string"}"#, &["\"\""], &["1"]),
            ("*", r#"{"type":"array"}"#, &["[]"], &["{}"]),
            ("*", r#"{"type":"object"}"#, &["{}"], &["null"]),
            (
                "*",
                r#"{"type":"number"}"#,
                &["1", "1e400", "-1e-400", "123456789012345678901234567890.5"],
                &["\"1\""],
            ),
            (
                "*",
                r#"{"type":"integer"}"#,
                &["1", "-0", "123456789012345678901234567890"],
                &["1.5", "1.0000000000000000000001"],
            ),
            ("4", r#"{"type":"integer"}"#, &[], &["1.0"]),
            (
                "6 7 2019 2020",
                r#"{"type":"integer"}"#,
                &["1.0", "1e400"],
                &[],
            ),
            ("*", r#"{"type":["string","null"]}"#, &["null"], &["1"]),
            ("*", r#"{}"#, &["[1,{\"a\":null}]"], &[]),
            ("6 7 2019 2020", "true", &["1"], &[]),
            ("2020", "false", &[], &["1"]),
        ],
        "",
    );
}

#[test]
fn enums_and_constants() {
    check(
        &[
            (
                "*",
                r#"{"enum":["a","b",null]}"#,
                &["\"b\"", "null"],
                &["\"A\""],
            ),
            ("*", r#"{"enum":[1]}"#, &["1.0"], &["true"]),
            ("*", r#"{"enum":[100]}"#, &["1e2"], &[]),
            (
                "*",
                r#"{"enum":[9007199254740993]}"#,
                &[],
                &["9007199254740992"],
            ),
            ("*", r#"{"enum":[[1,{"a":2}]]}"#, &["[1.0,{\"a\":2}]"], &[]),
            (
                "*",
                r#"{"enum":["a",123456789012345678901234567890]}"#,
                &["123456789012345678901234567890", "\"a\""],
                &["123456789012345678901234567891", "1e29", "{}"],
            ),
            (
                "6 7 2019 2020",
                r#"{"properties":{"a":{"const":[0.12345678901234567890]}}}"#,
                &[r#"{"a":[0.1234567890123456789]}"#],
                &[r#"{"a":[0.12345678901234568]}"#],
            ),
            ("4", r#"{"const":12345678901234567890123}"#, &["1"], &[]),
            (
                "*",
                r#"{"enum":[{"a":1,"b":2}]}"#,
                &["{\"b\":2,\"a\":1}"],
                &["{\"a\":1}"],
            ),
            ("6 7 2019 2020", r#"{"const":"a"}"#, &["\"a\""], &["\"b\""]),
            ("6 7 2019 2020", r#"{"const":0}"#, &["-0.0"], &["1e-400"]),
            ("6 7 2019 2020", r#"{"const":1e300}"#, &[], &["1e400"]),
            ("4", r#"{"const":"a"}"#, &["\"b\""], &[]),
        ],
        "",
    );
}

#[test]
fn numbers() {
    check(
        &[
            (
                "*",
                r#"{"minimum":0}"#,
                &["0", "\"-1\""],
                &["-1e-400", "-1e400"],
            ),
            ("*", r#"{"maximum":10}"#, &["10.0"], &["1e400"]),
            (
                "*",
                r#"{"maximum":18446744073709551615}"#,
                &[],
                &["18446744073709551616"],
            ),
            ("*", r#"{"minimum":1e300}"#, &["1e400"], &[]),
            (
                "*",
                r#"{"minimum":0.1,"maximum":123456789012345678901234567890}"#,
                &["0.1", "123456789012345678901234567890"],
                &["0.09999999999999999999", "123456789012345678901234567891"],
            ),
            (
                "*",
                r#"{"items":{"multipleOf":0.00000000000000000001}}"#,
                &["[1, 0.12345678901234567891]"],
                &["[0.123456789012345678915]"],
            ),
            (
                "*",
                r#"{"multipleOf":3}"#,
                &["9007199254740993", "3e400"],
                &["9007199254740994", "1e400"],
            ),
            (
                "6 7 2019 2020",
                r#"{"exclusiveMaximum":9007199254740993.5}"#,
                &["9007199254740993.4"],
                &["9007199254740993.5", "9007199254740993.6"],
            ),
            ("4", r#"{"minimum":0,"exclusiveMinimum":true}"#, &[], &["0"]),
            (
                "4",
                r#"{"maximum":5,"exclusiveMaximum":true}"#,
                &["4.99"],
                &["5"],
            ),
            (
                "6 7 2019 2020",
                r#"{"exclusiveMinimum":0}"#,
                &["1e-400"],
                &["0"],
            ),
            ("6 7 2019 2020", r#"{"exclusiveMaximum":5}"#, &[], &["5"]),
            (
                "*",
                r#"{"multipleOf":2}"#,
                &["4", "1e400"],
                &["5", "100000000000000000000000000001"],
            ),
            (
                "*",
                r#"{"multipleOf":0.01}"#,
                &["19.99", "4.35"],
                &["19.999"],
            ),
        ],
        "",
    );
}

#[test]
fn strings() {
    check(
        &[
            ("*", r#"{"minLength":2}"#, &["\"ab\""], &["\"é\""]),
            (
                "*",
                r#"{"maxLength":1}"#,
                &["\"🦀\"", "\"\\ud83e\\udd80\""],
                &["\"ab\""],
            ),
            (
                "*",
                r#"{"pattern":"^[A-Z]{3}$"}"#,
                &["\"EUR\""],
                &["\"EURO\""],
            ),
            ("*", r#"{"pattern":"b"}"#, &["\"abc\"", "7"], &[]),
            (
                "*",
                r#"{"pattern":"^\\d{4}-\\d{2}-\\d{2}$"}"#,
                &["\"2024-03-11\""],
                &[],
            ),
            ("*", r#"{"pattern":"^\\d{4}$"}"#, &[], &["\"２０２４\""]),
            (
                "*",
                r#"{"pattern":"^(?=.*[0-9])(?=.*[a-z]).+$"}"#,
                &["\"a1\""],
                &["\"a\""],
            ),
            ("*", r#"{"pattern":"^(a)\\1$"}"#, &["\"aa\""], &[]),
            ("*", r#"{"pattern":"^\\p{Lu}"}"#, &["\"Ä\""], &[]),
            // The dialect of ECMA-262 with the flag `u`.
            (
                "*",
                r#"{"pattern":"^a.b$"}"#,
                &[r#""axb""#, r#""a😀b""#],
                &[r#""a\rb""#, r#""a\nb""#, r#""a\u2028b""#, r#""a\u2029b""#],
            ),
            (
                "*",
                r#"{"pattern":"\\bcat\\b"}"#,
                &[r#""écat é""#, r#""a cat""#],
                &[r#""scat""#, r#""cat_""#],
            ),
            (
                "*",
                r#"{"pattern":"\\Bcat"}"#,
                &[r#""scat""#],
                &[r#""écat""#, r#""cat""#],
            ),
            (
                "*",
                r#"{"pattern":"(?=.*\\bcat\\b)^\\w+.$"}"#,
                &[r#""cat!""#],
                &[r#""cäat!""#, r#""cat\r""#],
            ),
            (
                "*",
                r#"{"pattern":"^[^\\0]+$"}"#,
                &[r#""a""#],
                &[r#""\u0000""#],
            ),
            (
                "*",
                r#"{"pattern":"^\\0[\\b]\\cJ\\/$"}"#,
                &[r#""\u0000\b\n/""#],
                &[r#""0b""#],
            ),
            (
                "*",
                r#"{"pattern":"^(?<x>a|b)(c)\\k<x>1$"}"#,
                &[r#""aca1""#],
                &[r#""acb1""#, r#""acc1""#],
            ),
            (
                "*",
                r#"{"pattern":"^\\ud83d\\ude00\\u{1F600}\\u0041$"}"#,
                &[r#""😀😀A""#],
                &[r#""😀A""#],
            ),
            (
                "*",
                r#"{"pattern":"^[\\ud83d\\ude00-\\ud83d\\ude02\\u00e9]$"}"#,
                &[r#""😁""#, r#""é""#],
                &[r#""😃""#],
            ),
            (
                "*",
                r#"{"pattern":"^[^\\ud800-\\udfff]$"}"#,
                &[r#""😀""#],
                &[r#""""#],
            ),
            (
                "*",
                r#"{"pattern":"^[\\w.-]+@[^\\s\\]]+$"}"#,
                &[r#""a.b-c@d""#],
                &[r#""é@d""#, r#""a@]""#],
            ),
            (
                "6 7 2019 2020",
                r#"{"patternProperties":{"^a.b$":false,"\\bcat":false,"\\0":false}}"#,
                &[r#"{"a\rb":1,"scat":1}"#],
                &[r#"{"axb":1}"#, r#"{"écat":1}"#, r#"{"\u0000":1}"#],
            ),
            ("*", r#"{"format":"date"}"#, &["\"tomorrow\""], &[]),
        ],
        "",
    );
}

#[test]
fn formats_when_asserted() {
    check(
        &[
            (
                "*",
                r#"{"format":"date-time"}"#,
                &["\"2024-03-11T10:00:00Z\"", "7"],
                &["\"2024-03-11\""],
            ),
            (
                "7 2019 2020",
                r#"{"format":"date"}"#,
                &["\"2024-02-29\""],
                &["\"2023-02-29\""],
            ),
            (
                "7 2019 2020",
                r#"{"format":"time"}"#,
                &[],
                &["\"25:00:00Z\""],
            ),
            (
                "*",
                r#"{"format":"email"}"#,
                &["\"a@example.com\""],
                &["\"a\""],
            ),
            (
                "*",
                r#"{"format":"ipv4"}"#,
                &["\"127.0.0.1\""],
                &["\"127.0.0.256\""],
            ),
            (
                "*",
                r#"{"format":"uri"}"#,
                &["\"https://example.com/a\""],
                &["\"no uri\""],
            ),
            (
                "2019 2020",
                r#"{"format":"uuid"}"#,
                &["\"123e4567-e89b-12d3-a456-426614174000\""],
                &["\"123\""],
            ),
            ("*", r#"{"format":"a-format-of-our-own"}"#, &["\"x\""], &[]),
        ],
        "[score]\nassert_formats = true\n",
    );
}

#[test]
fn objects() {
    check(
        &[
            (
                "*",
                r#"{"required":["a"]}"#,
                &["{\"a\":null}", "[]"],
                &["{\"A\":1}"],
            ),
            (
                "*",
                r#"{"properties":{"a":{"type":"string"}}}"#,
                &["{\"b\":1}", "{\"a\":1,\"a\":\"x\"}"],
                &["{\"a\":1}", "{\"a\":\"x\",\"a\":1}"],
            ),
            (
                "*",
                r#"{"properties":{"é":{"type":"string"}}}"#,
                &[],
                &["{\"\\u00e9\":1}"],
            ),
            (
                "*",
                r#"{"properties":{"a":{}},"additionalProperties":false}"#,
                &["{\"a\":1}"],
                &["{\"a\":1,\"b\":1}"],
            ),
            (
                "*",
                r#"{"properties":{"a":{}},"additionalProperties":{"type":"number"}}"#,
                &[],
                &["{\"b\":\"x\"}"],
            ),
            (
                "*",
                r#"{"patternProperties":{"^x":{"type":"number"}},"additionalProperties":false}"#,
                &["{\"x1\":1}"],
                &["{\"x1\":\"1\"}", "{\"y\":1}"],
            ),
            ("*", r#"{"minProperties":1}"#, &[], &["{}"]),
            (
                "*",
                r#"{"maxProperties":1}"#,
                &["{\"a\":1,\"a\":2}"],
                &["{\"a\":1,\"b\":2}"],
            ),
            (
                "6 7 2019 2020",
                r#"{"propertyNames":{"pattern":"^[a-z]+$"}}"#,
                &["{\"ab\":1}"],
                &["{\"Ab\":1}"],
            ),
            (
                "4 6 7",
                r#"{"dependencies":{"a":["b"]}}"#,
                &[],
                &["{\"a\":1}"],
            ),
            (
                "2019 2020",
                r#"{"dependentRequired":{"a":["b"]}}"#,
                &["{\"b\":1}"],
                &["{\"a\":1}"],
            ),
            (
                "2019 2020",
                r#"{"dependentSchemas":{"a":{"required":["b"]}}}"#,
                &[],
                &["{\"a\":1}"],
            ),
            (
                "2019 2020",
                r#"{"properties":{"a":{}},"unevaluatedProperties":false}"#,
                &[],
                &["{\"b\":1}"],
            ),
            (
                "2019 2020",
                r#"{"allOf":[{"properties":{"a":{}}}],"unevaluatedProperties":false}"#,
                &["{\"a\":1}"],
                &["{\"a\":1,\"b\":1}"],
            ),
            (
                "*",
                r#"{"properties":{"k1":{"type":"string"}},"required":["k17"]}"#,
                &[MANY_KEYS],
                &[],
            ),
            (
                "*",
                r#"{"properties":{"k17":{"type":"string"}}}"#,
                &[],
                &[MANY_KEYS],
            ),
        ],
        "",
    );
}

/// More members than are searched one by one; `k1` is a string, the others numbers.
const MANY_KEYS: &str = r#"{"k0":0,"k1":"1","k2":2,"k3":3,"k4":4,"k5":5,"k6":6,"k7":7,"k8":8,"k9":9,"k10":10,"k11":11,"k12":12,"k13":13,"k14":14,"k15":15,"k16":16,"k17":17,"k18":18,"k19":19}"#;

#[test]
fn arrays() {
    check(
        &[
            (
                "*",
                r#"{"items":{"type":"number"}}"#,
                &["[1,2]"],
                &["[1,\"2\"]"],
            ),
            ("*", r#"{"minItems":1}"#, &[], &["[]"]),
            ("*", r#"{"maxItems":1}"#, &[], &["[1,2]"]),
            (
                "*",
                r#"{"uniqueItems":true}"#,
                &[
                    "[1,2,\"1\",true]",
                    "[1e400,1e401]",
                    "[[1],[true],[\"1\"],[null]]",
                    "[\"a\",[\"a\"],{\"a\":\"a\"},0,false]",
                ],
                &[
                    "[1,1.0]",
                    "[1e400,10e399]",
                    "[{\"a\":1,\"b\":2},{\"b\":2,\"a\":1}]",
                ],
            ),
            (
                "4 6 7 2019",
                r#"{"items":[{"type":"number"}],"additionalItems":false}"#,
                &[],
                &["[1,2]"],
            ),
            (
                "2020",
                r#"{"prefixItems":[{"type":"number"}],"items":false}"#,
                &["[1]"],
                &["[1,2]"],
            ),
            (
                "6 7 2019 2020",
                r#"{"contains":{"const":1}}"#,
                &["[0,1]"],
                &["[0]"],
            ),
            (
                "2019 2020",
                r#"{"contains":{"const":1},"maxContains":1}"#,
                &[],
                &["[1,1]"],
            ),
            (
                "2019 2020",
                r#"{"contains":{"const":1},"minContains":0}"#,
                &["[]"],
                &[],
            ),
            (
                "2020",
                r#"{"prefixItems":[{}],"unevaluatedItems":false}"#,
                &[],
                &["[1,2]"],
            ),
        ],
        "",
    );
}

#[test]
fn combinations_and_references() {
    check(
        &[
            (
                "*",
                r#"{"allOf":[{"minimum":1},{"maximum":3}]}"#,
                &["2"],
                &["4"],
            ),
            (
                "*",
                r#"{"anyOf":[{"type":"string"},{"minimum":3}]}"#,
                &["4"],
                &["2"],
            ),
            (
                "*",
                r#"{"oneOf":[{"multipleOf":2},{"multipleOf":3}]}"#,
                &["4"],
                &["6"],
            ),
            ("*", r#"{"not":{"type":"null"}}"#, &["0"], &["null"]),
            (
                "7 2019 2020",
                r#"{"if":{"minimum":10},"then":{"multipleOf":10},"else":{"maximum":5}}"#,
                &["20"],
                &["12", "7"],
            ),
            (
                "4 6",
                r#"{"if":{"minimum":10},"then":{"multipleOf":10}}"#,
                &["12"],
                &[],
            ),
            (
                "4 6 7",
                r##"{"definitions":{"n":{"type":"number"}},"properties":{"a":{"$ref":"#/definitions/n"}}}"##,
                &[],
                &["{\"a\":\"x\"}"],
            ),
            (
                "2019 2020",
                r##"{"$defs":{"n":{"type":"number"}},"properties":{"a":{"$ref":"#/$defs/n"}}}"##,
                &[],
                &["{\"a\":\"x\"}"],
            ),
            (
                "4 6 7",
                r##"{"definitions":{"n":{"type":"number"}},"$ref":"#/definitions/n","maximum":1}"##,
                &["5"],
                &[],
            ),
            (
                "2019 2020",
                r##"{"$defs":{"n":{"type":"number"}},"$ref":"#/$defs/n","maximum":1}"##,
                &[],
                &["5"],
            ),
            (
                "*",
                r##"{"properties":{"next":{"$ref":"#"}},"additionalProperties":false}"##,
                &["{\"next\":{\"next\":{}}}"],
                &["{\"next\":{\"next\":{\"x\":1}}}"],
            ),
            (
                "2019 2020",
                r##"{"$defs":{"n":{"$anchor":"num","type":"number"}},"$ref":"#num"}"##,
                &[],
                &["\"x\""],
            ),
            (
                "2020",
                r##"{"$dynamicAnchor":"node","properties":{"child":{"$dynamicRef":"#node"}},"additionalProperties":false}"##,
                &[],
                &["{\"child\":{\"x\":1}}"],
            ),
            (
                "2019",
                r##"{"$recursiveAnchor":true,"properties":{"child":{"$recursiveRef":"#"}},"additionalProperties":false}"##,
                &[],
                &["{\"child\":{\"x\":1}}"],
            ),
        ],
        "",
    );
}
