//! Edits rows by a template: sections such as `=== user` or `=== expected.currency`, each a
//! template over the row.

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value, json};

use super::import::cells::typed_value;
use super::row::PromptRow;
use crate::text::{Message, json_value};

const MARK: &str = "===";
/// Template engine steps per rendering.
const FUEL: u64 = 200_000;
const ROLES: [&str; 4] = ["system", "user", "assistant", "developer"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// The last turn of a role, added if missing.
    Turn(String),
    /// The expected answer, or a field by path.
    Expected(Vec<String>),
    Tags,
}

#[derive(Debug)]
pub struct RowTemplate {
    parts: Vec<(Part, String)>,
    templates: Environment<'static>,
}

impl RowTemplate {
    pub const UNCHANGED: &'static str = "=== user\n{{ user }}";

    /// Compiles a template. Parts without a section are unchanged.
    ///
    /// # Errors
    /// The first wrong line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts: Vec<(Part, String, Vec<&str>)> = Vec::new();
        for (index, line) in text.split('\n').enumerate() {
            let line = line.trim_end_matches('\r');
            if let Some(name) = line.strip_prefix(MARK) {
                let name = name.trim();
                let part = part_of(name).ok_or_else(|| {
                    format!(
                        "line {}: unknown section `{name}`; use {}, expected, expected.FIELD or tags",
                        index + 1,
                        ROLES.join(", ")
                    )
                })?;
                if parts.iter().any(|(known, ..)| *known == part) {
                    return Err(format!("line {}: section `{name}` occurs twice", index + 1));
                }
                parts.push((part, name.to_owned(), Vec::new()));
            } else if let Some((_, _, body)) = parts.last_mut() {
                body.push(line);
            } else if !line.trim().is_empty() {
                return Err(format!(
                    "line {}: write a section such as `=== user` first",
                    index + 1
                ));
            }
        }
        if parts.is_empty() {
            return Err("no section: write `=== user` and the new text below it".to_owned());
        }
        let mut templates = environment();
        for (_, name, body) in &parts {
            let added = templates.add_template_owned(name.clone(), body.join("\n"));
            added.map_err(|error| format!("=== {name}: {error:#}"))?;
        }
        Ok(Self {
            parts: parts
                .into_iter()
                .map(|(part, name, _)| (part, name))
                .collect(),
            templates,
        })
    }

    /// Returns changed members with new values. `schema`: types the fields of `expected`.
    ///
    /// # Errors
    /// The template fails on this row, or an expected answer is not JSON.
    pub fn apply(&self, row: &PromptRow, schema: &Value) -> Result<Map<String, Value>, String> {
        let values = json_value(&Value::Object(values_of(row)));
        let mut messages = row.messages.clone();
        let (mut expected, mut tags) = (row.expected.clone(), row.tags.clone());
        for (part, name) in &self.parts {
            let render = || self.templates.get_template(name)?.render(values.clone());
            let text = render().map_err(|error| format!("=== {name}: {error:#}"))?;
            match part {
                Part::Turn(role) => set_turn(&mut messages, role, text),
                Part::Tags => {
                    tags = text
                        .split([',', '\n'])
                        .map(str::trim)
                        .filter(|tag| !tag.is_empty())
                        .map(str::to_owned)
                        .collect()
                }
                Part::Expected(path) if path.is_empty() && text.trim().is_empty() => {
                    expected = None
                }
                Part::Expected(path) if path.is_empty() => {
                    expected = Some(
                        serde_json::from_str(&text)
                            .map_err(|error| format!("=== {name}: not JSON: {error}"))?,
                    );
                }
                Part::Expected(path) => {
                    let value = typed_value(&text, path, schema)
                        .map_err(|problem| format!("=== {name}: {problem}"))?;
                    set_field(expected.get_or_insert_with(|| json!({})), path, value).map_err(
                        |()| format!("=== {name}: the expected answer has no such object"),
                    )?;
                }
            }
        }
        let mut changed = Map::new();
        if messages != row.messages {
            changed.insert("messages".to_owned(), json!(messages));
        }
        if expected != row.expected {
            changed.insert("expected".to_owned(), expected.unwrap_or_default());
        }
        if tags != row.tags {
            changed.insert("tags".to_owned(), json!(tags));
        }
        Ok(changed)
    }
}

/// Strict about unknown names, with the filter `json` and Python's string methods.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("json", |value: minijinja::Value| {
        serde_json::to_string(&value)
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    });
    environment
}

fn part_of(name: &str) -> Option<Part> {
    match name {
        "expected" => Some(Part::Expected(Vec::new())),
        "tags" => Some(Part::Tags),
        role if ROLES.contains(&role) => Some(Part::Turn(role.to_owned())),
        _ => {
            let path: Vec<String> = name
                .strip_prefix("expected.")?
                .split('.')
                .map(str::to_owned)
                .collect();
            path.iter()
                .all(|key| !key.is_empty())
                .then_some(Part::Expected(path))
        }
    }
}

/// Template values: last turn of each role, `expected`, `id`, `tags`, and the row's other fields.
fn values_of(row: &PromptRow) -> Map<String, Value> {
    let mut values = row.fields.other().clone();
    for role in ROLES {
        let turn = row.messages.iter().rev().find(|turn| turn.role == role);
        values.insert(
            role.to_owned(),
            turn.map_or("", |turn| turn.content.as_str()).into(),
        );
    }
    values.insert(
        "expected".to_owned(),
        row.expected.clone().unwrap_or_default(),
    );
    values.insert("id".to_owned(), row.id.clone().into());
    values.insert("tags".to_owned(), json!(row.tags));
    values
}

/// Empty text removes the turn, except the user's.
fn set_turn(messages: &mut Vec<Message>, role: &str, content: String) {
    let place = messages.iter().rposition(|turn| turn.role == role);
    match place {
        Some(place) if content.trim().is_empty() && role != "user" => drop(messages.remove(place)),
        Some(place) => messages[place].content = content,
        None if content.trim().is_empty() => {}
        None => {
            let place = if matches!(role, "system" | "developer") {
                0
            } else {
                messages.len()
            };
            messages.insert(place, Message::new(role, content));
        }
    }
}

fn set_field(answer: &mut Value, path: &[String], value: Option<Value>) -> Result<(), ()> {
    let (last, parents) = path.split_last().ok_or(())?;
    let mut place = answer;
    for key in parents {
        place = place
            .as_object_mut()
            .ok_or(())?
            .entry(key.clone())
            .or_insert_with(|| json!({}));
    }
    let fields = place.as_object_mut().ok_or(())?;
    match value {
        Some(value) => drop(fields.insert(last.clone(), value)),
        // Keeps the order of the others.
        None => drop(fields.shift_remove(last)),
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn row(text: &str) -> PromptRow {
        crate::dataset::row::load_from("train.jsonl", text.as_bytes())
            .unwrap()
            .remove(0)
    }

    #[test]
    fn sections_change_their_part_and_nothing_else() {
        let line = r#"{"id":"a","messages":[{"role":"user","content":"Hi"}],"expected":{"currency":"eur","amount":1},"tags":["x"],"source":"mail"}"#;
        let schema =
            json!({"properties": {"amount": {"type": "number"}, "currency": {"type": "string"}}});
        let check = |template: &str, expected: Value| {
            let changed = RowTemplate::parse(template)
                .unwrap()
                .apply(&row(line), &schema)
                .unwrap();
            assert_eq!(Value::Object(changed), expected, "{template}");
        };
        check(RowTemplate::UNCHANGED, json!({}));
        check(
            "=== user\nRead this {{ source }}:\n\n{{ user }}",
            json!({"messages": [{"role": "user", "content": "Read this mail:\n\nHi"}]}),
        );
        check(
            "=== system\nBe brief.",
            json!({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}),
        );
        check(
            "=== expected.currency\n{{ expected.currency | upper }}",
            json!({"expected": {"currency": "EUR", "amount": 1}}),
        );
        check(
            "=== expected.amount\n{{ expected.amount * 2 }}",
            json!({"expected": {"currency": "eur", "amount": 2}}),
        );
        check(
            "=== expected.amount\n",
            json!({"expected": {"currency": "eur"}}),
        );
        check(
            "=== expected\n{\"all\": {{ expected | json }}}",
            json!({"expected": {"all": {"currency": "eur", "amount": 1}}}),
        );
        check("=== expected\n", json!({"expected": null}));
        check(
            "=== tags\n{{ tags | join(',') }}, messy",
            json!({"tags": ["x", "messy"]}),
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |template: &str, part: &str| {
            let line = r#"{"messages":[{"role":"user","content":"Hi"}],"expected":"x"}"#;
            let result = RowTemplate::parse(template)
                .and_then(|template| template.apply(&row(line), &json!({})));
            let problem = result.unwrap_err();
            assert!(problem.contains(part), "{template}: {problem}");
        };
        wrong("", "no section");
        wrong("hello", "line 1: write a section");
        wrong("=== boss\nx", "line 1: unknown section `boss`");
        wrong(
            "=== user\nx\n=== user\ny",
            "line 3: section `user` occurs twice",
        );
        wrong("=== user\n{{ usr }}", "=== user: ");
        wrong("=== user\n{{ user", "=== user: ");
        wrong("=== expected\n{", "not JSON");
        wrong("=== expected.a\n1", "no such object");
        wrong(
            "=== user\n{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            "=== user: ",
        );
    }
}
