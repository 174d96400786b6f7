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

/// Drafts (`*` for all, or a list of their names), schema, instance, valid.
type Case = (&'static str, &'static str, &'static str, bool);

fn check(cases: &[Case], lines: &str) {
    let mut wrong = Vec::new();
    for (drafts, schema, instance, valid) in cases {
        for (name, address) in
            DRAFTS.iter().filter(|(name, _)| *drafts == "*" || drafts.split(' ').any(|draft| draft == *name))
        {
            let mut schema: serde_json::Value = serde_json::from_str(schema).unwrap();
            if let Some(members) = schema.as_object_mut() {
                members.insert("$schema".into(), (*address).into());
            }
            let score = scorer_with(&schema.to_string(), lines).score(instance, None);
            if (score.tier == Tier::Valid) != *valid
                || score.errors.is_empty() != *valid
                || score.tier == Tier::Unparsable
            {
                wrong.push(format!("draft {name}: {schema} on {instance} is {:?}: {:?}", score.tier, score.errors));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn types() {
    check(
        &[
            ("*", r#"{"type":"null"}"#, "null", true),
            ("*", r#"{"type":"null"}"#, "false", false),
            ("*", r#"{"type":"boolean"}"#, "true", true),
            ("*", r#"{"type":"boolean"}"#, "0", false),
            ("*", r#"{"type":"boolean"}"#, "\"true\"", false),
            ("*", r#"{"type":"string"}"#, "\"\"", true),
            ("*", r#"{"type":"string"}"#, "1", false),
            ("*", r#"{"type":"array"}"#, "[]", true),
            ("*", r#"{"type":"array"}"#, "{}", false),
            ("*", r#"{"type":"object"}"#, "{}", true),
            ("*", r#"{"type":"object"}"#, "null", false),
            ("*", r#"{"type":"number"}"#, "1", true),
            ("*", r#"{"type":"number"}"#, "1e400", true),
            ("*", r#"{"type":"number"}"#, "-1e-400", true),
            ("*", r#"{"type":"number"}"#, "123456789012345678901234567890.5", true),
            ("*", r#"{"type":"number"}"#, "\"1\"", false),
            ("*", r#"{"type":"integer"}"#, "1", true),
            ("*", r#"{"type":"integer"}"#, "-0", true),
            ("*", r#"{"type":"integer"}"#, "123456789012345678901234567890", true),
            ("*", r#"{"type":"integer"}"#, "1.5", false),
            ("*", r#"{"type":"integer"}"#, "1.0000000000000000000001", false),
            ("4", r#"{"type":"integer"}"#, "1.0", false),
            ("6 7 2019 2020", r#"{"type":"integer"}"#, "1.0", true),
            ("6 7 2019 2020", r#"{"type":"integer"}"#, "1e400", true),
            ("*", r#"{"type":["string","null"]}"#, "null", true),
            ("*", r#"{"type":["string","null"]}"#, "1", false),
            ("*", r#"{}"#, "[1,{\"a\":null}]", true),
            ("6 7 2019 2020", "true", "1", true),
            ("2020", "false", "1", false),
        ],
        "",
    );
}

#[test]
fn enums_and_constants() {
    check(
        &[
            ("*", r#"{"enum":["a","b",null]}"#, "\"b\"", true),
            ("*", r#"{"enum":["a","b",null]}"#, "null", true),
            ("*", r#"{"enum":["a","b",null]}"#, "\"A\"", false),
            ("*", r#"{"enum":[1]}"#, "1.0", true),
            ("*", r#"{"enum":[1]}"#, "true", false),
            ("*", r#"{"enum":[100]}"#, "1e2", true),
            ("*", r#"{"enum":[9007199254740993]}"#, "9007199254740992", false),
            ("*", r#"{"enum":[[1,{"a":2}]]}"#, "[1.0,{\"a\":2}]", true),
            ("*", r#"{"enum":[{"a":1,"b":2}]}"#, "{\"b\":2,\"a\":1}", true),
            ("*", r#"{"enum":[{"a":1,"b":2}]}"#, "{\"a\":1}", false),
            ("6 7 2019 2020", r#"{"const":"a"}"#, "\"a\"", true),
            ("6 7 2019 2020", r#"{"const":"a"}"#, "\"b\"", false),
            ("6 7 2019 2020", r#"{"const":0}"#, "-0.0", true),
            ("6 7 2019 2020", r#"{"const":0}"#, "1e-400", false),
            ("6 7 2019 2020", r#"{"const":1e300}"#, "1e400", false),
            ("4", r#"{"const":"a"}"#, "\"b\"", true),
        ],
        "",
    );
}

#[test]
fn numbers() {
    check(
        &[
            ("*", r#"{"minimum":0}"#, "0", true),
            ("*", r#"{"minimum":0}"#, "-1e-400", false),
            ("*", r#"{"minimum":0}"#, "-1e400", false),
            ("*", r#"{"minimum":0}"#, "\"-1\"", true),
            ("*", r#"{"maximum":10}"#, "10.0", true),
            ("*", r#"{"maximum":10}"#, "1e400", false),
            ("*", r#"{"maximum":18446744073709551615}"#, "18446744073709551616", false),
            ("*", r#"{"minimum":1e300}"#, "1e400", true),
            ("4", r#"{"minimum":0,"exclusiveMinimum":true}"#, "0", false),
            ("4", r#"{"maximum":5,"exclusiveMaximum":true}"#, "5", false),
            ("4", r#"{"maximum":5,"exclusiveMaximum":true}"#, "4.99", true),
            ("6 7 2019 2020", r#"{"exclusiveMinimum":0}"#, "0", false),
            ("6 7 2019 2020", r#"{"exclusiveMinimum":0}"#, "1e-400", true),
            ("6 7 2019 2020", r#"{"exclusiveMaximum":5}"#, "5", false),
            ("*", r#"{"multipleOf":2}"#, "4", true),
            ("*", r#"{"multipleOf":2}"#, "5", false),
            ("*", r#"{"multipleOf":0.01}"#, "19.99", true),
            ("*", r#"{"multipleOf":0.01}"#, "19.999", false),
            ("*", r#"{"multipleOf":0.01}"#, "4.35", true),
            ("*", r#"{"multipleOf":2}"#, "1e400", true),
            ("*", r#"{"multipleOf":2}"#, "100000000000000000000000000001", false),
        ],
        "",
    );
}

#[test]
fn strings() {
    check(
        &[
            ("*", r#"{"minLength":2}"#, "\"ab\"", true),
            ("*", r#"{"minLength":2}"#, "\"é\"", false),
            ("*", r#"{"maxLength":1}"#, "\"🦀\"", true),
            ("*", r#"{"maxLength":1}"#, "\"\\ud83e\\udd80\"", true),
            ("*", r#"{"maxLength":1}"#, "\"ab\"", false),
            ("*", r#"{"pattern":"^[A-Z]{3}$"}"#, "\"EUR\"", true),
            ("*", r#"{"pattern":"^[A-Z]{3}$"}"#, "\"EURO\"", false),
            ("*", r#"{"pattern":"b"}"#, "\"abc\"", true),
            ("*", r#"{"pattern":"b"}"#, "7", true),
            ("*", r#"{"pattern":"^\\d{4}-\\d{2}-\\d{2}$"}"#, "\"2024-03-11\"", true),
            ("*", r#"{"pattern":"^\\d{4}$"}"#, "\"２０２４\"", false),
            ("*", r#"{"pattern":"^(?=.*[0-9])(?=.*[a-z]).+$"}"#, "\"a1\"", true),
            ("*", r#"{"pattern":"^(?=.*[0-9])(?=.*[a-z]).+$"}"#, "\"a\"", false),
            ("*", r#"{"pattern":"^(a)\\1$"}"#, "\"aa\"", true),
            ("*", r#"{"pattern":"^\\p{Lu}"}"#, "\"Ä\"", true),
            ("*", r#"{"format":"date"}"#, "\"tomorrow\"", true),
        ],
        "",
    );
}

#[test]
fn formats_when_asserted() {
    check(
        &[
            ("*", r#"{"format":"date-time"}"#, "\"2024-03-11T10:00:00Z\"", true),
            ("*", r#"{"format":"date-time"}"#, "\"2024-03-11\"", false),
            ("7 2019 2020", r#"{"format":"date"}"#, "\"2024-02-29\"", true),
            ("7 2019 2020", r#"{"format":"date"}"#, "\"2023-02-29\"", false),
            ("7 2019 2020", r#"{"format":"time"}"#, "\"25:00:00Z\"", false),
            ("*", r#"{"format":"email"}"#, "\"a@example.com\"", true),
            ("*", r#"{"format":"email"}"#, "\"a\"", false),
            ("*", r#"{"format":"ipv4"}"#, "\"127.0.0.1\"", true),
            ("*", r#"{"format":"ipv4"}"#, "\"127.0.0.256\"", false),
            ("*", r#"{"format":"uri"}"#, "\"https://example.com/a\"", true),
            ("*", r#"{"format":"uri"}"#, "\"no uri\"", false),
            ("2019 2020", r#"{"format":"uuid"}"#, "\"123e4567-e89b-12d3-a456-426614174000\"", true),
            ("2019 2020", r#"{"format":"uuid"}"#, "\"123\"", false),
            ("*", r#"{"format":"a-format-of-our-own"}"#, "\"x\"", true),
            ("*", r#"{"format":"date-time"}"#, "7", true),
        ],
        "[score]\nassert_formats = true\n",
    );
}

#[test]
fn objects() {
    check(
        &[
            ("*", r#"{"required":["a"]}"#, "{\"a\":null}", true),
            ("*", r#"{"required":["a"]}"#, "{\"A\":1}", false),
            ("*", r#"{"required":["a"]}"#, "[]", true),
            ("*", r#"{"properties":{"a":{"type":"string"}}}"#, "{\"a\":1}", false),
            ("*", r#"{"properties":{"a":{"type":"string"}}}"#, "{\"b\":1}", true),
            ("*", r#"{"properties":{"a":{"type":"string"}}}"#, "{\"a\":1,\"a\":\"x\"}", true),
            ("*", r#"{"properties":{"a":{"type":"string"}}}"#, "{\"a\":\"x\",\"a\":1}", false),
            ("*", r#"{"properties":{"é":{"type":"string"}}}"#, "{\"\\u00e9\":1}", false),
            ("*", r#"{"properties":{"a":{}},"additionalProperties":false}"#, "{\"a\":1}", true),
            ("*", r#"{"properties":{"a":{}},"additionalProperties":false}"#, "{\"a\":1,\"b\":1}", false),
            ("*", r#"{"properties":{"a":{}},"additionalProperties":{"type":"number"}}"#, "{\"b\":\"x\"}", false),
            ("*", r#"{"patternProperties":{"^x":{"type":"number"}},"additionalProperties":false}"#, "{\"x1\":1}", true),
            (
                "*",
                r#"{"patternProperties":{"^x":{"type":"number"}},"additionalProperties":false}"#,
                "{\"x1\":\"1\"}",
                false,
            ),
            ("*", r#"{"patternProperties":{"^x":{"type":"number"}},"additionalProperties":false}"#, "{\"y\":1}", false),
            ("*", r#"{"minProperties":1}"#, "{}", false),
            ("*", r#"{"maxProperties":1}"#, "{\"a\":1,\"b\":2}", false),
            ("*", r#"{"maxProperties":1}"#, "{\"a\":1,\"a\":2}", true),
            ("6 7 2019 2020", r#"{"propertyNames":{"pattern":"^[a-z]+$"}}"#, "{\"ab\":1}", true),
            ("6 7 2019 2020", r#"{"propertyNames":{"pattern":"^[a-z]+$"}}"#, "{\"Ab\":1}", false),
            ("4 6 7", r#"{"dependencies":{"a":["b"]}}"#, "{\"a\":1}", false),
            ("2019 2020", r#"{"dependentRequired":{"a":["b"]}}"#, "{\"a\":1}", false),
            ("2019 2020", r#"{"dependentRequired":{"a":["b"]}}"#, "{\"b\":1}", true),
            ("2019 2020", r#"{"dependentSchemas":{"a":{"required":["b"]}}}"#, "{\"a\":1}", false),
            ("2019 2020", r#"{"properties":{"a":{}},"unevaluatedProperties":false}"#, "{\"b\":1}", false),
            ("2019 2020", r#"{"allOf":[{"properties":{"a":{}}}],"unevaluatedProperties":false}"#, "{\"a\":1}", true),
            (
                "2019 2020",
                r#"{"allOf":[{"properties":{"a":{}}}],"unevaluatedProperties":false}"#,
                "{\"a\":1,\"b\":1}",
                false,
            ),
            ("*", r#"{"properties":{"k1":{"type":"string"}},"required":["k17"]}"#, MANY_KEYS, true),
            ("*", r#"{"properties":{"k17":{"type":"string"}}}"#, MANY_KEYS, false),
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
            ("*", r#"{"items":{"type":"number"}}"#, "[1,2]", true),
            ("*", r#"{"items":{"type":"number"}}"#, "[1,\"2\"]", false),
            ("*", r#"{"minItems":1}"#, "[]", false),
            ("*", r#"{"maxItems":1}"#, "[1,2]", false),
            ("*", r#"{"uniqueItems":true}"#, "[1,2,\"1\",true]", true),
            ("*", r#"{"uniqueItems":true}"#, "[1,1.0]", false),
            ("*", r#"{"uniqueItems":true}"#, "[1e400,10e399]", false),
            ("*", r#"{"uniqueItems":true}"#, "[1e400,1e401]", true),
            ("*", r#"{"uniqueItems":true}"#, "[{\"a\":1,\"b\":2},{\"b\":2,\"a\":1}]", false),
            ("*", r#"{"uniqueItems":true}"#, "[[1],[true],[\"1\"],[null]]", true),
            ("*", r#"{"uniqueItems":true}"#, "[\"a\",[\"a\"],{\"a\":\"a\"},0,false]", true),
            ("4 6 7 2019", r#"{"items":[{"type":"number"}],"additionalItems":false}"#, "[1,2]", false),
            ("2020", r#"{"prefixItems":[{"type":"number"}],"items":false}"#, "[1]", true),
            ("2020", r#"{"prefixItems":[{"type":"number"}],"items":false}"#, "[1,2]", false),
            ("6 7 2019 2020", r#"{"contains":{"const":1}}"#, "[0,1]", true),
            ("6 7 2019 2020", r#"{"contains":{"const":1}}"#, "[0]", false),
            ("2019 2020", r#"{"contains":{"const":1},"maxContains":1}"#, "[1,1]", false),
            ("2019 2020", r#"{"contains":{"const":1},"minContains":0}"#, "[]", true),
            ("2020", r#"{"prefixItems":[{}],"unevaluatedItems":false}"#, "[1,2]", false),
        ],
        "",
    );
}

#[test]
fn combinations_and_references() {
    check(
        &[
            ("*", r#"{"allOf":[{"minimum":1},{"maximum":3}]}"#, "2", true),
            ("*", r#"{"allOf":[{"minimum":1},{"maximum":3}]}"#, "4", false),
            ("*", r#"{"anyOf":[{"type":"string"},{"minimum":3}]}"#, "4", true),
            ("*", r#"{"anyOf":[{"type":"string"},{"minimum":3}]}"#, "2", false),
            ("*", r#"{"oneOf":[{"multipleOf":2},{"multipleOf":3}]}"#, "4", true),
            ("*", r#"{"oneOf":[{"multipleOf":2},{"multipleOf":3}]}"#, "6", false),
            ("*", r#"{"not":{"type":"null"}}"#, "null", false),
            ("*", r#"{"not":{"type":"null"}}"#, "0", true),
            ("7 2019 2020", r#"{"if":{"minimum":10},"then":{"multipleOf":10},"else":{"maximum":5}}"#, "20", true),
            ("7 2019 2020", r#"{"if":{"minimum":10},"then":{"multipleOf":10},"else":{"maximum":5}}"#, "12", false),
            ("7 2019 2020", r#"{"if":{"minimum":10},"then":{"multipleOf":10},"else":{"maximum":5}}"#, "7", false),
            ("4 6", r#"{"if":{"minimum":10},"then":{"multipleOf":10}}"#, "12", true),
            (
                "4 6 7",
                r##"{"definitions":{"n":{"type":"number"}},"properties":{"a":{"$ref":"#/definitions/n"}}}"##,
                "{\"a\":\"x\"}",
                false,
            ),
            (
                "2019 2020",
                r##"{"$defs":{"n":{"type":"number"}},"properties":{"a":{"$ref":"#/$defs/n"}}}"##,
                "{\"a\":\"x\"}",
                false,
            ),
            ("4 6 7", r##"{"definitions":{"n":{"type":"number"}},"$ref":"#/definitions/n","maximum":1}"##, "5", true),
            ("2019 2020", r##"{"$defs":{"n":{"type":"number"}},"$ref":"#/$defs/n","maximum":1}"##, "5", false),
            (
                "*",
                r##"{"properties":{"next":{"$ref":"#"}},"additionalProperties":false}"##,
                "{\"next\":{\"next\":{}}}",
                true,
            ),
            (
                "*",
                r##"{"properties":{"next":{"$ref":"#"}},"additionalProperties":false}"##,
                "{\"next\":{\"next\":{\"x\":1}}}",
                false,
            ),
            ("2019 2020", r##"{"$defs":{"n":{"$anchor":"num","type":"number"}},"$ref":"#num"}"##, "\"x\"", false),
            (
                "2020",
                r##"{"$dynamicAnchor":"node","properties":{"child":{"$dynamicRef":"#node"}},"additionalProperties":false}"##,
                "{\"child\":{\"x\":1}}",
                false,
            ),
            (
                "2019",
                r##"{"$recursiveAnchor":true,"properties":{"child":{"$recursiveRef":"#"}},"additionalProperties":false}"##,
                "{\"child\":{\"x\":1}}",
                false,
            ),
        ],
        "",
    );
}
