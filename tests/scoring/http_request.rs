//! Requests and responses of an API: one row a rule, so that no change moves a reward unseen; and what hostile
//! completions cost.

use grpo_tui::score::{Scorer, Task, Tier};
use tempfile::TempDir;

use super::{loaded, row_of, shown};

/// Of OpenAPI 3.0, with most of what such documents have.
pub(super) const API: &str = include_str!("http_request/openapi.json");

/// The folder is the task's as long as it is kept.
pub(super) fn task(api: &str, lines: &str) -> Result<(TempDir, Task, Scorer), String> {
    let toml = format!(
        "name = \"sample\"\n[score]\nkind = \"http_request\"\nopenapi = \"openapi.json\"\n{lines}"
    );
    loaded(&[("task.toml", &toml), ("openapi.json", api)])
}

pub(super) fn scorer(api: &str, lines: &str) -> Result<Scorer, String> {
    task(api, lines).map(|(_, _, scorer)| scorer)
}

pub(super) fn get(path: &str) -> String {
    format!(r#"{{"method":"GET","path":{path:?}}}"#)
}

#[test]
fn what_an_operation_takes_is_valid() {
    let scorer = scorer(API, "").unwrap();
    for completion in [
        get("/invoices"),
        get("/invoices?limit=10&status=paid&status=open&ids=1,2&paid=true&q=a+b%20c"),
        r#"{"method":"GET","path":"/invoices","headers":{"X-Trace":"abcde","X-Other":1}}"#.to_owned(),
        get("/invoices?limit=1#top"),
        get("/invoices/latest"),
        get("/invoices/7?expand=lines"),
        r#"{"method":"get","path":"/invoices","query":{"limit":10,"q":10,"paid":false,"status":["paid"],"ids":[1,2]}}"#.to_owned(),
        r#"{"method":"GET","path":"/invoices","query":{"limit":"10","paid":"true","ids":"1,2"},"headers":null,"body":null}"#.to_owned(),
        r#"{"method":"GET","path":"/invoices","headers":{"x-trace":"abcd","Accept":"*/*","x-api-key":"k"}}"#.to_owned(),
        r#"{"method":"POST","path":"/invoices","body":{"vendor":null,"amount":0.5,"currency":null}}"#.to_owned(),
        r#"{"method":"POST","path":"/invoices","headers":{"Content-Type":"application/json; charset=utf-8"},"body":{"vendor":"a","amount":1,"lines":[{"sku":"x","parts":[{"sku":"y"}]}]}}"#.to_owned(),
        r#"<think>Hm.</think>{"path":"/invoices/3","method":"DELETE"}"#.to_owned(),
    ] {
        assert_eq!(shown(&scorer.score(&completion, None)), "valid", "{completion}");
    }
}

#[test]
fn each_fault_of_a_request_has_its_name_and_place() {
    let scorer = scorer(API, "").unwrap();
    let post =
        |body: &str| format!("{{\"method\":\"POST\",\"path\":\"/invoices\",\n\"body\":{body}}}");
    for (completion, expected) in [
        (
            get("/invoice"),
            "invalid [wrong operation]; 1:24 no GET /invoice in the document; did you mean `GET /invoices`?",
        ),
        (
            get("https://other.org/invoices"),
            "invalid [wrong operation]; 1:24 no GET https://other.org/invoices in the document",
        ),
        (
            r#"{"method":"PUT","path":"/invoices/3"}"#.to_owned(),
            "invalid [wrong operation]; 1:24 no PUT /invoices/3 in the document; did you mean `POST /invoices`?",
        ),
        (
            r#"{"method":"DELETE","path":"/invoices/{id}"}"#.to_owned(),
            "invalid [missing parameter]; 1:27 path: missing key \"id\"",
        ),
        (
            r#"{"method":"DELETE","path":"/invoices/abc"}"#.to_owned(),
            "invalid [wrong type]; 1:38 path parameter id: expected integer, found string \"abc\"",
        ),
        (
            r#"{"method":"DELETE","path":"\/invoices\/0"}"#.to_owned(),
            "invalid [other]; 1:40 path parameter id: 0 is less than the minimum of 1",
        ),
        (
            get("/invoices/7"),
            "invalid [missing parameter]; 1:24 query: missing key \"expand\"",
        ),
        (
            get("/invoices?limit=x"),
            "invalid [wrong type]; 1:35 query parameter limit: expected integer, found string \"x\"",
        ),
        (
            get("/invoices?q=1&limit=101"),
            "invalid [other]; 1:39 query parameter limit: 101 is greater than the maximum of 100",
        ),
        (
            get("/invoices?status=paid&status=late"),
            "invalid [enum]; 1:35 query parameter status: \"late\" is not in the enum [\"paid\", \"open\"]",
        ),
        (
            get("/invoices?ids=1,b"),
            "invalid [wrong type]; 1:35 query parameter ids: expected integer, found string \"b\"",
        ),
        (
            get("/invoices?limit=1&limit=2"),
            "invalid [wrong type]; 1:35 query parameter limit: expected integer, found array [1,2]",
        ),
        (
            r#"{"method":"GET","path":"/invoices","query":{"limits":1}}"#.to_owned(),
            "invalid [extra parameter]; 1:54 query: key not allowed: \"limits\"",
        ),
        (
            r#"{"method":"GET","path":"/invoices","body":{}}"#.to_owned(),
            "invalid [extra key]; 1:36 key not allowed: \"body\"",
        ),
        (
            r#"{"method":"POST","path":"/invoices"}"#.to_owned(),
            "invalid [missing key]; 1:1 missing key \"body\"",
        ),
        (
            post("null"),
            "invalid [wrong type]; 2:8 body: expected object, found null",
        ),
        (
            post(r#"{"vendor":"a"}"#),
            "invalid [missing key]; 2:8 body: missing key \"amount\"",
        ),
        (
            post(r#"{"vendor":"a","amount":0}"#),
            "invalid [other]; 2:31 body: 0 is less than or equal to the minimum of 0",
        ),
        (
            post(r#"{"vendor":"a","amount":1,"x":7}"#),
            "invalid [extra key]; 2:33 body: key not allowed: \"x\"",
        ),
        (
            post(
                r#"{"vendor":"a","amount":1,"currency":"USD","lines":[{"sku":"x","parts":[{}]}]}"#,
            ),
            "invalid [missing key]; 2:44 body: \"USD\" is not in the enum [\"EUR\", \"NOK\", null]; 2:79 body: missing key \"sku\"",
        ),
        (
            r#"{"method":"GET","path":"/invoices","url":"/x","why":1}"#.to_owned(),
            "invalid [extra key]; 1:36 keys not allowed: \"url\", \"why\"",
        ),
        // Not requests.
        (
            String::new(),
            "unparsable [other]; 1:1 the completion is empty",
        ),
        (
            "GET /invoices".to_owned(),
            "unparsable [prose]; 1:1 no JSON value in the text",
        ),
        (
            "[]".to_owned(),
            "unparsable [wrong type]; 1:1 a request is an object, not array; FORM",
        ),
        (
            r#"{"path":"/invoices"}"#.to_owned(),
            "unparsable [missing key]; 1:1 a request without `method`; FORM",
        ),
        (
            r#"{"method":"GET","path":"/invoices","query":[1]}"#.to_owned(),
            "unparsable [wrong type]; 1:44 `query` is an object, not array; FORM",
        ),
        (
            r#"{"method":"GET","path":"/in"#.to_owned(),
            "unparsable [truncated]; 1:28 the text ends inside the JSON value",
        ),
        (
            "<think>{}".to_owned(),
            "unparsable [think leak]; 1:1 unclosed think block",
        ),
    ] {
        let form = "a request is {\"method\": …, \"path\": …, \"query\": {…}, \"headers\": {…}, \"body\": …}";
        let found = shown(&scorer.score(&completion, None)).replace(form, "FORM");
        assert_eq!(found, expected, "{completion}");
    }
    for (completion, class, tolerant) in [
        (format!("```json\n{}\n```", get("/invoices")), "fence", true),
        (format!("```json\n{}\n```", get("/invoice")), "fence", false),
        (format!("I send {}.", get("/invoices")), "prose", true),
    ] {
        let score = scorer.score(&completion, None);
        let found = (score.tier, score.failure.unwrap().name(), score.tolerant);
        assert_eq!(found, (Tier::Unparsable, class, tolerant), "{completion}");
    }
    let score = scorer.score(&post(r#"{"vendor":"a","amount":1,"lines":[{}]}"#), None);
    let reason = &score.errors[0];
    assert_eq!(
        (reason.instance_path.as_str(), reason.schema_path.as_str()),
        ("/body/lines/0", "/components/schemas/Line/required")
    );
}

#[test]
fn responses_are_judged_by_status() {
    let scorer = scorer(API, "part = \"response\"\noperation = \"createInvoice\"\n").unwrap();
    let form = "a response is {\"status\": …, \"headers\": {…}, \"body\": …}";
    for (completion, expected) in [
        (
            r#"{"status":201,"headers":{"location":"/7"},"body":{"id":7,"vendor":"a"}}"#,
            "valid",
        ),
        (r#"{"status":204}"#, "valid"),
        (r#"{"status":422,"body":{"message":"no"}}"#, "valid"),
        (
            r#"{"status":500}"#,
            "invalid [wrong status]; 1:11 POST /invoices defines no status 500; it has 201, 204, 4XX",
        ),
        (
            r#"{"status":201,"body":{"vendor":"a","amount":1}}"#,
            "invalid [missing key]; 1:22 body: missing key \"id\"; 1:36 body: key not allowed: \"amount\"",
        ),
        (
            r#"{"status":400}"#,
            "invalid [missing key]; 1:1 missing key \"body\"",
        ),
        (
            r#"{"status":204,"body":{}}"#,
            "invalid [extra key]; 1:15 key not allowed: \"body\"",
        ),
        (
            r#"{"status":"201"}"#,
            "unparsable [wrong type]; 1:11 `status` is a status code, such as 200, not string; FORM",
        ),
    ] {
        assert_eq!(
            shown(&scorer.score(completion, None)).replace(form, "FORM"),
            expected,
            "{completion}"
        );
    }
    let other = row_of(r#","operation":"DELETE /invoices/{id}""#);
    assert_eq!(
        shown(&scorer.score(r#"{"status":204}"#, Some(&other))),
        "valid"
    );
    let unknown = scorer.score(r#"{"status":204}"#, Some(&row_of(r#","operation":"x""#)));
    assert!(
        unknown.is_error()
            && shown(&unknown).contains("`operation` of the row, \"x\", is not in the document")
    );
}

#[test]
fn messages_are_compared_with_the_expected_ones() {
    let rewards =
        "[score.normalise]\nvendor = \"casefold\"\n[[reward]]\npart = \"fields\"\nweight = 0.5\n";
    let list = r#"{"method":"GET","path":"/invoices","query":{"limit":10,"ids":[1,2]}}"#;
    let create = r#"{"method":"POST","path":"/invoices","body":{"vendor":"Oy","amount":1.5}}"#;
    let request = scorer(API, rewards).unwrap();
    let response = scorer(
        API,
        &format!("part = \"response\"\noperation = \"createInvoice\"\n{rewards}"),
    )
    .unwrap();
    for (scorer, completion, expected, exact, share, difference) in [
        (&request, list, list, true, 1.0, "valid"),
        (
            &request,
            r#"{"path":"/invoices?ids=1%2C2&limit=10.0","method":"get"}"#,
            list,
            false,
            0.75,
            "invalid [wrong type]; 1:20 query parameter ids: expected integer, found string \"1,2\"",
        ),
        (
            &request,
            r#"{"path":"/invoices?ids=1,2&limit=10","method":"get"}"#,
            list,
            true,
            1.0,
            "valid",
        ),
        (
            &request,
            r#"{"method":"GET","path":"/invoices/latest?q=1"}"#,
            list,
            false,
            0.25,
            "invalid [extra parameter]; 1:42 query: key not allowed: \"q\"",
        ),
        (
            &request,
            r#"{"method":"GET","path":"/invoices?limit=11&q=x"}"#,
            list,
            false,
            0.5,
            "valid [wrong value]",
        ),
        (&request, create, create, true, 1.0, "valid"),
        (
            &request,
            r#"{"method":"POST","path":"/invoices","body":{"amount":1.50,"vendor":"OY"}}"#,
            create,
            true,
            1.0,
            "valid",
        ),
        (
            &request,
            r#"{"method":"POST","path":"/invoices","body":{"amount":2,"vendor":"Oy","currency":"EUR"}}"#,
            create,
            false,
            0.75,
            "valid [wrong value]",
        ),
        (
            &request,
            r#"{"method":"DELETE","path":"/invoices/8"}"#,
            r#"{"method":"DELETE","path":"/invoices/7"}"#,
            false,
            0.5,
            "valid [wrong value]",
        ),
        (
            &response,
            r#"{"status":422,"body":{"message":"No"}}"#,
            r#"{"status":400,"body":{"message":"no"}}"#,
            false,
            0.0,
            "valid [wrong value]",
        ),
        (
            &response,
            r#"{"status":204}"#,
            r#"{"status":204,"body":null}"#,
            true,
            1.0,
            "valid",
        ),
    ] {
        let score = scorer.score(
            completion,
            Some(&row_of(&format!(",\"expected\":{expected}"))),
        );
        assert_eq!(
            (score.exact, shown(&score).as_str()),
            (Some(exact), difference),
            "{completion}"
        );
        let tier = if score.tier == Tier::Valid { 1.0 } else { 0.5 };
        assert!(
            (score.reward - tier - 0.5 * share).abs() < 1e-9,
            "{completion}: {:?}",
            score.fields
        );
    }
    let broken = request.score(list, Some(&row_of(r#","expected":{"method":"GET"}"#)));
    assert!(
        broken.is_error()
            && shown(&broken)
                .contains("the row's `expected` is not a request: a request without `path`")
    );
}

#[test]
fn the_task_or_the_row_asks_for_one_operation() {
    let scorer = scorer(API, "operation = \"GET /invoices\"\n").unwrap();
    assert_eq!(shown(&scorer.score(&get("/invoices"), None)), "valid");
    let latest = get("/invoices/latest");
    assert_eq!(
        shown(&scorer.score(&latest, None)),
        "invalid [wrong operation]; 1:24 expected GET /invoices, found GET /invoices/latest"
    );
    assert_eq!(
        shown(&scorer.score(&latest, Some(&row_of(r#","operation":"latest""#)))),
        "valid"
    );
}

#[test]
fn schemas_of_3_1_are_json_schema() {
    let api = r##"{"openapi":"3.1.0","paths":{"/a":{"post":{"requestBody":{"content":{"application/json":{"schema":
      {"type":["object","null"],"properties":{"n":{"type":"integer","exclusiveMinimum":0},"k":{"const":"x"},"r":{"$ref":"#/components/schemas/R","maxLength":0}},"unevaluatedProperties":false}}}}}}},
      "components":{"schemas":{"R":{"type":"string"}}}}"##;
    let scorer = scorer(api, "").unwrap();
    let check = |body: &str, expected: &str| {
        let completion = format!(r#"{{"method":"POST","path":"/a","body":{body}}}"#);
        assert_eq!(
            shown(&scorer.score(&completion, None)),
            expected,
            "{completion}"
        );
    };
    check(r#"{"n":1,"k":"x"}"#, "valid");
    check("null", "valid");
    check(
        r#"{"n":0}"#,
        "invalid [other]; 1:42 body: 0 is less than or equal to the minimum of 0",
    );
    check(
        r#"{"k":"y"}"#,
        "invalid [enum]; 1:42 body: \"y\" is not \"x\"",
    );
    check(
        r#"{"r":"y"}"#,
        "invalid [other]; 1:42 body: \"y\" is longer than 0 characters",
    );
    check(
        r#"{"z":1}"#,
        "invalid [extra key]; 1:38 body: key not allowed: \"z\"",
    );
}

#[test]
fn hostile_messages_are_cheap() {
    let scorer = scorer(API, "").unwrap();
    let expecting = row_of(r#","expected":{"method":"GET","path":"/invoices?limit=1"}"#);
    let check = |completion: String, tier: Tier| {
        let score = scorer.score(&completion, Some(&expecting));
        assert_eq!(score.tier, tier, "{:?}", score.errors.first());
        assert!(
            score.errors.len() <= 1_000
                && score
                    .errors
                    .iter()
                    .all(|reason| reason.message.len() < 1_000)
        );
    };
    let megabytes = 10 << 20;
    let longest = 65_000;
    check(get(&"/".repeat(megabytes)), Tier::Invalid);
    check(
        get(&format!("/invoices?{}", "a=1&".repeat(megabytes / 4))),
        Tier::Invalid,
    );
    check(get(&"/".repeat(longest)), Tier::Invalid);
    check(get(&format!("/{}", "x".repeat(longest))), Tier::Invalid);
    check(
        get(&format!("/invoices/{}?expand=x", "7".repeat(longest))),
        Tier::Valid,
    );
    check(
        get(&format!("/invoices?{}", "&=".repeat(longest / 2))),
        Tier::Invalid,
    );
    check(
        get(&format!(
            "/invoices?{}",
            (0..7_000)
                .map(|name| format!("k{name}=1&"))
                .collect::<String>()
        )),
        Tier::Invalid,
    );
    check(
        get(&format!(
            "/invoices?status={}",
            "paid&status=".repeat(longest / 12)
        )),
        Tier::Invalid,
    );
    check(
        get(&format!("/invoices?ids={}1", "1,".repeat(longest / 2))),
        Tier::Valid,
    );
    check(
        get(&format!("/invoices?q={}", "%20".repeat(longest / 3))),
        Tier::Valid,
    );
    let query =
        |inside: String| format!(r#"{{"method":"GET","path":"/invoices","query":{{{inside}}}}}"#);
    check(
        query(format!("\"q\":\"{}\"", "1,".repeat(megabytes / 2))),
        Tier::Valid,
    );
    check(
        query(format!("\"ids\":[{}1]", "1,".repeat(megabytes / 8))),
        Tier::Valid,
    );
    check(
        query(format!(
            "{}\"z\":1",
            (0..100_000)
                .map(|name| format!("\"k{name}\":1,"))
                .collect::<String>()
        )),
        Tier::Invalid,
    );
    check(
        "{\"method\":\"GET\",\"path\":\"/invoices\"} ".repeat(megabytes / 38),
        Tier::Unparsable,
    );
    check(
        format!("{}{}", get("/invoices"), "[".repeat(megabytes)),
        Tier::Unparsable,
    );
    let lines = "{\"sku\":\"x\"},".repeat(megabytes / 13);
    check(
        format!(
            r#"{{"method":"POST","path":"/invoices","body":{{"vendor":"a","amount":1,"lines":[{lines}{{}}]}}}}"#
        ),
        Tier::Invalid,
    );
    let nested = format!(
        "{}{}",
        "{\"sku\":\"x\",\"parts\":[".repeat(200),
        "]}".repeat(200)
    );
    check(
        format!(
            r#"{{"method":"POST","path":"/invoices","body":{{"vendor":"a","amount":1,"lines":[{nested}]}}}}"#
        ),
        Tier::Valid,
    );
}
