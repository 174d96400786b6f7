//! How many completions one core scores a second, by kind of scorer: `cargo bench --bench score`; with a folder, also
//! writes the texts there for a peer to time. With `--command` after `--`: how many a program of the template scores.

use std::time::Instant;

use grpo_tui::dataset::{self, PromptRow};
use grpo_tui::score::{Scorer, Task, Trust};
use grpo_tui::task::PromptSet;

/// Seconds that each measurement runs at least.
const SECONDS: f64 = 2.0;

fn main() {
    if std::env::args().any(|argument| argument == "--command") {
        return command();
    }
    let task = Task::embedded("invoice").unwrap_or_else(|error| fail(&error));
    let scorer = Scorer::new(&task).unwrap_or_else(|error| fail(&error));
    let rows = dataset::load(&task, PromptSet::Test).unwrap_or_else(|error| fail(&error));
    let valid: Vec<String> = rows
        .iter()
        .filter_map(|row| row.expected.as_ref().map(ToString::to_string))
        .collect();
    // What an unaligned model writes: six valid of ten, else an amount as a string, a fence, prose, a trailing comma.
    let mixed: Vec<String> = valid
        .iter()
        .enumerate()
        .map(|(index, text)| match index % 10 {
            0 => text
                .replace("\"amount\":", "\"amount\":\"")
                .replace(",\"currency\"", "\",\"currency\""),
            1 => format!("```json\n{text}\n```"),
            2 => format!("Here is the JSON: {text}"),
            3 => text.replace('}', ",}"),
            _ => text.clone(),
        })
        .collect();
    if let Some(folder) = std::env::args()
        .nth(1)
        .filter(|argument| !argument.starts_with("--"))
    {
        let lines: String = mixed
            .iter()
            .cycle()
            .take(20_000)
            .map(|text| format!("{}\n", serde_json::Value::from(text.as_str())))
            .collect();
        std::fs::write(std::path::Path::new(&folder).join("mixed.jsonl"), lines)
            .unwrap_or_else(|error| fail(&error));
    }
    for (name, texts, with_rows) in [
        ("valid", &valid, false),
        ("valid against expected", &valid, true),
        ("mixed", &mixed, false),
        ("mixed against expected", &mixed, true),
    ] {
        measure(name, &scorer, texts, with_rows.then_some(rows.as_slice()));
    }
    tool_calls();
    sql().unwrap_or_else(|error| fail(&error));
    http_request().unwrap_or_else(|error| fail(&error));
}

/// Requests to an operation with parameters, and to one with a body of three lines.
fn http_request() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let query = |name: &str, schema: serde_json::Value| serde_json::json!({"name": name, "in": "query", "schema": schema});
    let document = serde_json::json!({"openapi": "3.0.3", "paths": {"/invoices": {
        "get": {"parameters": [
            query("limit", serde_json::json!({"type": "integer", "maximum": 100})),
            query("status", serde_json::json!({"type": "array", "items": {"enum": ["paid", "open"]}})),
            query("vendor", serde_json::json!({"type": "string"}))]},
        "post": {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Invoice"}}}}}}},
        "components": {"schemas": {
            "Invoice": {"type": "object", "required": ["vendor", "amount"], "properties": {"vendor": {"type": "string"},
                "amount": {"type": "number"}, "lines": {"type": "array", "items": {"$ref": "#/components/schemas/Line"}}}},
            "Line": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}}}}}});
    std::fs::write(folder.path().join("openapi.json"), document.to_string())?;
    let toml = "name = \"api\"\n[score]\nkind = \"http_request\"\nopenapi = \"openapi.json\"\n";
    std::fs::write(folder.path().join("task.toml"), toml)?;
    let task = Task::load(folder.path()).unwrap_or_else(|error| fail(&error));
    let scorer = Scorer::new(&task).unwrap_or_else(|error| fail(&error));
    let line = serde_json::json!({"sku": "a-17", "count": 3});
    let body = serde_json::json!({"vendor": "Gröner Books Oy", "amount": 58463.87, "lines": [line, line, line]});
    for (name, request) in [
        (
            "parameters",
            serde_json::json!({"method": "GET", "path": "/invoices?limit=10&status=paid&status=open&vendor=Oy"}),
        ),
        (
            "body",
            serde_json::json!({"method": "POST", "path": "/invoices", "body": body}),
        ),
    ] {
        let line = serde_json::json!({"messages": [{"role": "user", "content": "x"}], "expected": request}).to_string();
        let row = dataset::read_rows("row.jsonl", line.as_bytes()).next();
        let row = row.and_then(Result::ok).into_iter().collect::<Vec<_>>();
        let texts = [request.to_string()];
        measure(&format!("http request, {name}"), &scorer, &texts, None);
        measure(
            &format!("http request, {name} against expected"),
            &scorer,
            &texts,
            Some(&row),
        );
    }
    Ok(())
}

/// Queries of one table of 100 rows.
fn sql() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let rows: Vec<String> = (0..100)
        .map(|row| format!("({row}, 'c{row}', {}, 'l{}')", row * 37 % 91, row % 7))
        .collect();
    let schema = format!(
        "CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT, people INTEGER, land TEXT);\nINSERT INTO city VALUES {};",
        rows.join(", ")
    );
    std::fs::write(folder.path().join("schema.sql"), schema)?;
    std::fs::write(
        folder.path().join("task.toml"),
        "name = \"city\"\nschema = \"schema.sql\"\n[score]\nkind = \"sql\"\n",
    )?;
    let task = Task::load(folder.path()).unwrap_or_else(|error| fail(&error));
    let scorer = Scorer::new(&task).unwrap_or_else(|error| fail(&error));
    let query = "SELECT land, count(*) AS n, avg(people) FROM city WHERE people > 20 GROUP BY land ORDER BY n DESC, land";
    let line =
        serde_json::json!({"messages": [{"role": "user", "content": "x"}], "expected": query})
            .to_string();
    let row = dataset::read_rows("row.jsonl", line.as_bytes()).next();
    let row = row.and_then(Result::ok).into_iter().collect::<Vec<_>>();
    measure("sql, run", &scorer, &[query.to_owned()], None);
    measure(
        "sql, run against expected",
        &scorer,
        &[query.to_owned()],
        Some(&row),
    );
    // Parsed as far as a query, and not run.
    let deleting =
        "DELETE FROM city WHERE people > 20 AND name <> 'c5' AND land IN ('l1', 'l2') AND id < 50";
    measure("sql, parsed alone", &scorer, &[deleting.to_owned()], None);
    Ok(())
}

/// Calls of the template's three functions, one a completion, as the three forms write them.
fn tool_calls() {
    let task = Task::template("tool-call").unwrap_or_else(|error| fail(&error));
    let scorer = Scorer::new(&task).unwrap_or_else(|error| fail(&error));
    let mut rows = dataset::load(&task, PromptSet::Test).unwrap_or_else(|error| fail(&error));
    let calls: Vec<String> = rows
        .iter()
        .filter_map(|row| row.expected.as_ref().map(ToString::to_string))
        .collect();
    let blocks: Vec<String> = calls
        .iter()
        .map(|call| format!("<tool_call>\n{call}\n</tool_call>"))
        .collect();
    let openai = rows.iter().filter_map(|row| row.expected.as_ref()).map(|call| {
        let function = serde_json::json!({"name": call["name"], "arguments": call["arguments"].to_string()});
        serde_json::json!({"tool_calls": [{"type": "function", "function": function}]}).to_string()
    });
    let openai: Vec<String> = openai.collect();
    let wrong: Vec<String> = blocks
        .iter()
        .map(|call| call.replace("\":", "_\":"))
        .collect();
    measure("tool call, valid", &scorer, &blocks, None);
    for (name, texts) in [
        ("a block", &blocks),
        ("JSON alone", &calls),
        ("OpenAI", &openai),
        ("not a call", &wrong),
    ] {
        measure(
            &format!("tool call against expected, {name}"),
            &scorer,
            texts,
            Some(&rows),
        );
    }
    let tools: serde_json::Value = serde_json::from_str(&task.definition_text).unwrap_or_default();
    rows.iter_mut()
        .for_each(|row| row.fields.insert("tools", tools.clone()));
    measure(
        "tool call against expected, tools of the row",
        &scorer,
        &blocks,
        Some(&rows),
    );
}

fn measure(name: &str, scorer: &Scorer, texts: &[String], rows: Option<&[PromptRow]>) {
    let start = Instant::now();
    let (mut count, mut reward) = (0, 0.0);
    while start.elapsed().as_secs_f64() < SECONDS {
        for (index, text) in texts.iter().enumerate() {
            reward += scorer
                .score(text, rows.and_then(|rows| rows.get(index)))
                .reward;
            count += 1;
        }
    }
    let per_second = f64::from(count) / start.elapsed().as_secs_f64();
    let bytes = texts.iter().map(String::len).sum::<usize>() as f64 / texts.len() as f64;
    println!(
        "{}",
        serde_json::json!({"name": format!("score, {name}"), "value": per_second.round(), "unit": "completions/s on one core", "mean_bytes": bytes.round(), "mean_reward": reward / f64::from(count)})
    );
}

/// A Python program: many completions together, and one after the other. Each is new, so that none is remembered.
fn command() {
    let folder = tempfile::tempdir().unwrap_or_else(|error| fail(&error));
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("XDG_STATE_HOME", folder.path().join("state")) };
    let template = Task::template("python-scorer").unwrap_or_else(|error| fail(&error));
    for (name, bytes) in template.files().unwrap_or_else(|error| fail(&error)) {
        std::fs::write(folder.path().join(name), bytes).unwrap_or_else(|error| fail(&error));
    }
    let task = Task::load(folder.path()).unwrap_or_else(|error| fail(&error));
    let trust = Trust::for_task(&task).unwrap_or_else(|error| fail(&error));
    trust
        .iter()
        .for_each(|trust| trust.set(true).unwrap_or_else(|error| fail(&error)));
    let scorer = Scorer::new(&task).unwrap_or_else(|error| fail(&error));
    let rows = dataset::load(&task, PromptSet::Train).unwrap_or_else(|error| fail(&error));
    let texts: Vec<String> = (0..40_000)
        .map(|number| format!("{} + {}", number % 100, number / 100))
        .collect();
    let items: Vec<_> = texts
        .iter()
        .zip(rows.iter().cycle())
        .map(|(text, row)| (text.as_str(), Some(row)))
        .collect();
    // Its processes are started.
    scorer.score_all(&items[..2_000]);
    for (name, unit, items, together) in [
        (
            "score, command, together",
            "completions/s of all processes",
            &items[2_000..30_000],
            true,
        ),
        (
            "score, command, one by one",
            "completions/s of one process",
            &items[30_000..32_000],
            false,
        ),
    ] {
        let start = Instant::now();
        let failed = if together {
            scorer
                .score_all(items)
                .iter()
                .filter(|score| score.is_error())
                .count()
        } else {
            items
                .iter()
                .filter(|(text, row)| scorer.score(text, *row).is_error())
                .count()
        };
        let per_second = items.len() as f64 / start.elapsed().as_secs_f64();
        println!(
            "{}",
            serde_json::json!({"name": name, "value": per_second.round(), "unit": unit, "scorer_errors": failed})
        );
    }
}

fn fail<T>(error: &dyn std::fmt::Display) -> T {
    eprintln!("error: {error}");
    std::process::exit(1)
}
