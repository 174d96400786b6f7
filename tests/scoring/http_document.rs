//! OpenAPI documents: faults with their places, in files and while typing; what is said of them.

use grpo_tui::help::diagnose;
use grpo_tui::score::audit::audit;
use grpo_tui::score::{Scorer, Task, Tier};
use tempfile::TempDir;

use super::http_request::{API, get, scorer, task};
use super::{row_of, shown};

#[test]
fn malformed_documents_are_refused_with_file_and_line() {
    let document = |paths: &str| format!("{{\"openapi\": \"3.0.0\", \"paths\":\n{paths}}}");
    let one = |operation: &str| document(&format!("{{\"/a/{{id}}\": {{\"get\":\n{operation}}}}}"));
    let id = r#"{"name": "id", "in": "path", "schema": {}}"#;
    for (api, lines, complaint) in [
        (
            "{",
            "",
            "openapi.json line 1 column 1: EOF while parsing an object",
        ),
        (
            "openapi: 3.0.0\npaths: {}\n",
            "",
            "openapi.json line 1 column 1: expected value: this looks like YAML, and only JSON is read; convert it",
        ),
        (
            "[]",
            "",
            "openapi.json line 1 column 1 (the whole schema): an OpenAPI document is an object",
        ),
        (
            "{}",
            "",
            "openapi.json line 1 column 1 (the whole schema): not an OpenAPI document: its first key must be",
        ),
        (
            r#"{"swagger": "2.0"}"#,
            "",
            "openapi.json line 1 column 13 (/swagger): OpenAPI 3.0 and 3.1 are read, not Swagger \"2.0\"",
        ),
        (
            r#"{"openapi": "4.0.0"}"#,
            "",
            "openapi.json line 1 column 13 (/openapi): OpenAPI 3.0 and 3.1 are read, not \"4.0.0\"",
        ),
        (
            &document("[]"),
            "",
            "openapi.json line 2 column 1 (/paths): `paths` is an object",
        ),
        (
            &document("{}"),
            "",
            "openapi.json line 2 column 1 (/paths): no operation",
        ),
        (
            &document(r#"{"a": {}}"#),
            "",
            "openapi.json line 2 column 7 (/paths/a): a path begins with `/`",
        ),
        (
            &one("{}"),
            "",
            "openapi.json line 3 column 1 (/paths/~1a~1{id}/get): no parameter for {id} of the path: add {\"name\": \"id\"",
        ),
        (
            &one(r#"{"parameters": [{"name": "id", "in": "path"}]}"#),
            "",
            "openapi.json line 3 column 17 (/paths/~1a~1{id}/get/parameters/0): parameter id has no `schema`",
        ),
        (
            &one(r#"{"parameters": [{"name": "x", "in": "path", "schema": {}}]}"#),
            "",
            "openapi.json line 3 column 26 (/paths/~1a~1{id}/get/parameters/0/name): the path /a/{id} has no {x}",
        ),
        (
            &one(r#"{"parameters": [{"name": "x", "in": "body", "schema": {}}]}"#),
            "",
            "openapi.json line 3 column 37 (/paths/~1a~1{id}/get/parameters/0/in): `in` takes path, query, header, cookie",
        ),
        (
            &one(
                r#"{"parameters": [{"name": "id", "in": "path", "style": "matrix", "schema": {}}]}"#,
            ),
            "",
            "openapi.json line 3 column 55 (/paths/~1a~1{id}/get/parameters/0/style): parameter id has `style` matrix, but only simple is supported",
        ),
        (
            &one(r#"{"parameters": [{"name": "id", "in": "path", "schema": {"type": "object"}}]}"#),
            "",
            "openapi.json line 3 column 56 (/paths/~1a~1{id}/get/parameters/0/schema): parameter id is an object, but only",
        ),
        (
            &API.replace("\"type\": \"number\", ", "\"readOnly\": true, "),
            "",
            "openapi.json line 10 column 32 (/components/schemas/Invoice/properties/amount/readOnly): `readOnly` is not supported here",
        ),
        (
            &one(&format!(
                r##"{{"parameters": [{id}, {{"$ref": "#/components/parameters/X"}}]}}"##
            )),
            "",
            "openapi.json line 3 column 70 (/paths/~1a~1{id}/get/parameters/1/$ref): `$ref` target not found: #/components/parameters/X is not in the document",
        ),
        (
            &one(&format!(
                r#"{{"parameters": [{id}], "requestBody": {{"content": {{"application/json": {{"schema": {{"$ref": "https://example.com/x.json"}}}}}}}}}}"#
            )),
            "",
            "openapi.json line 3 column 130 (/paths/~1a~1{id}/get/requestBody/content/application~1json/schema/$ref): `$ref` to https://example.com/x.json leaves the document",
        ),
        (
            &one(&format!(r#"{{"parameters": [{id}], "requestBody": {{}}}}"#)),
            "",
            "openapi.json line 3 column 77 (/paths/~1a~1{id}/get/requestBody): a body needs `content`",
        ),
        (
            &one(&format!(r#"{{"parameters": [{id}]}}"#)),
            "part = \"response\"\n",
            "openapi.json line 3 column 1 (/paths/~1a~1{id}/get): an operation whose responses are scored needs `responses`",
        ),
        (
            &one(r#"{"responses": {"ok": {}}}"#),
            "part = \"response\"\n",
            "openapi.json line 3 column 22 (/paths/~1a~1{id}/get/responses/ok): a response is named by its status",
        ),
        (
            API,
            "operation = \"createInvoices\"\n",
            "task.toml line 5 column 13: `score.operation` names no operation of the document: \"createInvoices\"; did you mean `createInvoice`? (openapi.json)",
        ),
        (
            API,
            "operation = \"x\"\n",
            "task.toml line 5 column 13: `score.operation` names no operation of the document: \"x\"; there are listInvoices, createInvoice, GET /invoices/{id}, deleteInvoice, latest (openapi.json)",
        ),
        (
            API,
            "part = \"answer\"\n",
            "task.toml line 5 column 8: `score.part` takes request, response, not \"answer\"",
        ),
        (
            &API.replace(
                "\"type\": \"number\", \"minimum\"",
                "\"type\": \"numbr\", \"minimum\"",
            ),
            "",
            "openapi.json line 10 column 28 (/components/schemas/Invoice/properties/amount/type): \"numbr\" is not a type",
        ),
        (
            &API.replace("schemas/Line\"}}}},\n", "schemas/Lines\"}}}},\n"),
            "",
            "openapi.json line 12 column 54 (/components/schemas/Invoice/properties/lines/items/$ref): `$ref` target not found: #/components/schemas/Lines is not in the document; did you mean `Line`?",
        ),
        (
            &API.replace("\"type\": \"number\", ", "\"pattern\": \"(\", "),
            "",
            "openapi.json line 10 column 31 (/components/schemas/Invoice/properties/amount/pattern): \"(\" is not a valid regular expression",
        ),
    ] {
        let found = scorer(api, lines).unwrap_err();
        assert!(
            found.starts_with(complaint),
            "{found:?} instead of {complaint:?}"
        );
    }
    // A fault in an operation that the task does not use.
    let api =
        document(r#"{"/a": {"get": {}, "put": {"parameters": [{"name": "x", "in": "query"}]}}}"#);
    assert!(scorer(&api, "").is_err());
    let scorer = scorer(&api, "operation = \"GET /a\"\n").unwrap();
    assert_eq!(shown(&scorer.score(&get("/a"), None)), "valid");
    let other = scorer.score(
        r#"{"method":"PUT","path":"/a"}"#,
        Some(&row_of(r#","operation":"PUT /a""#)),
    );
    assert!(
        other.is_error() && shown(&other).contains("parameter x has no `schema`"),
        "{}",
        shown(&other)
    );
}

#[test]
fn the_editor_shows_faults_at_their_places() {
    let (_folder, task, _) = task(API, "").unwrap();
    assert!(diagnose(&task, API).faults.is_empty());
    let place = |text: &str| {
        let found = diagnose(&task, text);
        assert!(found.scorer.is_err());
        (
            found.faults[0].line,
            found.faults[0].column,
            found.faults[0].message.clone(),
        )
    };
    let (line, column, message) = place(&API.replace("schemas/Currency", "schemas/Currenci"));
    assert_eq!((line, column), (11, 30), "{message}");
    assert!(
        message.ends_with("is not in the document; did you mean `Currency`?"),
        "{message}"
    );
    assert_eq!(place("{\n]").0, 2);
    assert!(place("openapi: 3.0.0").2.contains("only JSON is read"));
}

#[test]
fn lazy_messages_are_audited() {
    let create = task(API, "operation = \"createInvoice\"\n").unwrap();
    let found = |(_, task, scorer): &(TempDir, Task, Scorer)| {
        let findings = audit(task, scorer, &[]);
        findings
            .iter()
            .map(|one| (one.completion.clone(), one.tier, one.weak))
            .collect::<Vec<_>>()
    };
    let least = r#"{"method":"POST","path":"/invoices","body":{"vendor":"","amo…"#;
    assert!(
        found(&create).contains(&(least.to_owned(), Tier::Valid, true)),
        "{:?}",
        found(&create)
    );
    let delete = task(API, "operation = \"deleteInvoice\"\n").unwrap();
    let least = r#"{"method":"DELETE","path":"/invoices/1"}"#.to_owned();
    assert!(
        found(&delete).contains(&(least, Tier::Valid, true)),
        "{:?}",
        found(&delete)
    );
    let response = task(API, "part = \"response\"\noperation = \"deleteInvoice\"\n").unwrap();
    assert!(
        found(&response).contains(&(r#"{"status":204}"#.to_owned(), Tier::Valid, true)),
        "{:?}",
        found(&response)
    );
}

/// Beyond what 64 bits hold, in bodies and queries, in both dialects.
#[test]
fn numbers_of_schemas_are_exact() {
    let of_31 = r#"{"type":"number","exclusiveMinimum":100000000000000000001,"multipleOf":0.1}"#;
    let of_30 = r#"{"type":"number","minimum":100000000000000000001,"exclusiveMinimum":true}"#;
    let listed = r#"{"type":"number","enum":[0.12345678901234567891],"nullable":true}"#;
    for (version, schema, value, tier) in [
        ("3.1.0", of_31, "100000000000000000001", "invalid"),
        ("3.1.0", of_31, "100000000000000000001.1", "valid"),
        ("3.1.0", of_31, "100000000000000000001.15", "invalid"),
        ("3.0.3", of_30, "100000000000000000001", "invalid"),
        ("3.0.3", of_30, "100000000000000000002", "valid"),
        ("3.0.3", listed, "0.12345678901234567891", "valid"),
        ("3.0.3", listed, "0.12345678901234567892", "invalid"),
    ] {
        let api = format!(
            r#"{{"openapi":"{version}","paths":{{"/a":{{"post":{{"parameters":[{{"name":"n","in":"query","schema":{schema}}}],"requestBody":{{"content":{{"application/json":{{"schema":{schema}}}}}}}}}}}}}}}"#
        );
        let scorer = scorer(&api, "").unwrap();
        for request in [
            format!(r#"{{"method":"POST","path":"/a?n={value}"}}"#),
            format!(r#"{{"method":"POST","path":"/a","body":{value}}}"#),
        ] {
            let score = scorer.score(&request, None);
            assert_eq!(
                score.tier.name(),
                tier,
                "{schema} {request}: {}",
                shown(&score)
            );
        }
    }
    // `default` is the name of a response and of a property here, and no keyword.
    let api = r#"{"openapi":"3.1.0","paths":{"/a":{"get":{"operationId":"a","responses":{"default":{"content":{"application/json":{"schema":
        {"properties":{"default":{"type":"integer","maximum":18446744073709552000}}}}}}}}}}}"#;
    let answers = scorer(api, "part = \"response\"\noperation = \"a\"\n").unwrap();
    for (value, tier) in [
        ("18446744073709552000", "valid"),
        ("18446744073709552001", "invalid"),
    ] {
        let answer = format!(r#"{{"status":200,"body":{{"default":{value}}}}}"#);
        let score = answers.score(&answer, None);
        assert_eq!(score.tier.name(), tier, "{}", shown(&score));
    }
    let scorer = scorer(API, "").unwrap();
    let expected = row_of(
        r#","expected":{"method":"GET","path":"/invoices","query":{"q":100000000000000000001}}"#,
    );
    let exact = |q: &str| {
        scorer
            .score(&get(&format!("/invoices?q={q}")), Some(&expected))
            .exact
    };
    assert_eq!(exact("100000000000000000001"), Some(true));
    assert_eq!(exact("100000000000000000002"), Some(false));
}
