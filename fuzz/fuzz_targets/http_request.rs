//! Any text as a request, as a response, and as an OpenAPI document: tiers and places keep their promises, in bounded
//! time.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use grpo_tui::dataset::{PromptRow, read_rows};
use grpo_tui::help::diagnose;
use grpo_tui::score::{Score, Scorer, Task, Tier};
use libfuzzer_sys::fuzz_target;

/// Longest text tried; the bound on time below belongs to it.
const MAX_BYTES: usize = 1 << 16;
const TIME_LIMIT: Duration = Duration::from_secs(3);

const API: &str = r##"{"openapi":"3.0.3","servers":[{"url":"https://api.example.com/v1"}],"paths":{
"/items":{"get":{"operationId":"list","parameters":[
 {"name":"limit","in":"query","schema":{"type":"integer"}},
 {"name":"tags","in":"query","schema":{"type":"array","items":{"enum":["a","b",1]}}},
 {"name":"ids","in":"query","explode":false,"schema":{"type":"array","items":{"type":"number"}}},
 {"name":"X-A","in":"header","schema":{"type":"array","items":{"type":"integer"}}}],"responses":{"200":{"description":""}}},
 "post":{"requestBody":{"required":true,"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Item"}}}},
  "responses":{"2XX":{"description":"","content":{"application/json":{"schema":{"$ref":"#/components/schemas/Item"}}}},"default":{"description":""}}}},
"/items/{id}":{"parameters":[{"name":"id","in":"path","required":true,"schema":{"type":"integer"}}],"delete":{"responses":{"204":{"description":""}}}},
"/{from}-{to}":{"parameters":[{"name":"from","in":"path","required":true,"schema":{"type":"string"}},{"name":"to","in":"path","required":true,"schema":{"type":"array","items":{"type":"integer"}}}],"get":{"responses":{"204":{"description":""}}}}},
"components":{"schemas":{"Item":{"type":"object","required":["id","name"],"properties":{"id":{"type":"integer"},"name":{"type":"string","nullable":true},
 "amount":{"type":"number","minimum":0,"exclusiveMinimum":true},"parts":{"type":"array","items":{"$ref":"#/components/schemas/Item"}},
 "kind":{"oneOf":[{"$ref":"#/components/schemas/Item"},{"type":"string"}]}}}}}}"##;

struct Fixture {
    task: Task,
    request: Scorer,
    response: Scorer,
    rows: Vec<PromptRow>,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let task = |lines: &str| {
        let folder = std::env::temp_dir().join(format!(
            "grpo-tui-fuzz-http-{}-{}",
            std::process::id(),
            lines.len()
        ));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("openapi.json"), API).unwrap();
        let toml = format!(
            "name = \"fuzz\"\n[score]\nkind = \"http_request\"\nopenapi = \"openapi.json\"\n{lines}"
        );
        std::fs::write(folder.join("task.toml"), toml).unwrap();
        Task::load(&folder).unwrap()
    };
    let row = |expected: &str| {
        let line =
            format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"expected":{expected}}}"#);
        read_rows("row.jsonl", line.as_bytes())
            .next()
            .unwrap()
            .unwrap()
    };
    let requests = task("");
    let responses = task("part = \"response\"\noperation = \"POST /items\"\n");
    Fixture {
        request: Scorer::new(&requests).unwrap(),
        response: Scorer::new(&responses).unwrap(),
        task: requests,
        rows: vec![
            row(
                r#"{"method":"GET","path":"/items?limit=1","query":{"tags":["a"]},"headers":{"X-A":"1,2"}}"#,
            ),
            row(
                r#"{"method":"POST","path":"/items","body":{"id":1,"name":"x","parts":[]}}"#,
            ),
            row(r#"{"status":201,"body":{"id":1,"name":null}}"#),
        ],
    }
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(MAX_BYTES)]) else {
        return;
    };
    let Fixture {
        task,
        request,
        response,
        rows,
    } = &*FIXTURE;
    let began = Instant::now();
    let score = |scorer: &Scorer, row: Option<usize>| scorer.score(text, row.map(|row| &rows[row]));
    let scores = [
        score(request, None),
        score(request, Some(0)),
        score(request, Some(1)),
        score(response, None),
        score(response, Some(2)),
    ];
    diagnose(task, text);
    assert!(
        began.elapsed() < TIME_LIMIT,
        "{:?} for {} bytes",
        began.elapsed(),
        text.len()
    );
    for score in &scores {
        keeps_promises(text, score);
        let written = serde_json::to_string(score).unwrap();
        assert_eq!(
            *score,
            serde_json::from_str(&written).unwrap(),
            "not as written: {written}"
        );
    }
    assert_eq!(scores[1], score(request, Some(0)), "not deterministic");
    assert_eq!(
        (scores[0].tier, scores[0].tolerant),
        (scores[2].tier, scores[2].tolerant),
        "`expected` moves the tier"
    );
});

fn keeps_promises(text: &str, score: &Score) {
    assert!(
        (0.0..=1.0).contains(&score.reward) && !score.is_error(),
        "reward {}",
        score.reward
    );
    assert!(
        score.tier == Tier::Valid || !score.errors.is_empty(),
        "{score:?}"
    );
    assert_eq!(
        score.failure.is_some(),
        !score.errors.is_empty(),
        "{score:?}"
    );
    assert!(
        score.tier != Tier::Valid || score.tolerant,
        "valid but not tolerant"
    );
    assert_eq!(
        score.exact == Some(true),
        score.exact.is_some() && score.errors.is_empty(),
        "{score:?}"
    );
    assert!(
        score.tier != Tier::Unparsable || score.errors.len() == 1,
        "{score:?}"
    );
    for reason in &score.errors {
        let line = text.split('\n').nth(reason.line - 1);
        assert!(
            line.is_some_and(|line| (1..=line.chars().count() + 1).contains(&reason.column)),
            "outside the text: {reason:?}"
        );
        assert!(
            !reason.message.is_empty() && reason.message.len() < 10_000,
            "{reason:?}"
        );
    }
}
