//! Compares a message with the expected one, part by part.

use std::collections::BTreeMap;

use super::check::{Route, is_usual, start};
use super::document::Api;
use super::message::{Message, Part, Start};
use super::parameters::{ParameterValue, Reading};
use super::query::{Entry, Given, Query, query, split_path, take_parameter};
use crate::dataset::expected::Expectation;
use crate::exact_json::{self, marked_number};
use crate::score::answer::json;
use crate::score::kinds::json_schema::pattern::shorten;
use crate::score::kinds::json_schema::schema::Violation;
use crate::score::verdict::field_compare::{compare, equal_text};
use crate::score::verdict::field_rules::{Rule, Rules};
use crate::score::verdict::{FailureClass, OrderedMap};
use crate::task::{decode_path, escaped};

/// A message with its source and operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side<'m> {
    pub(super) text: &'m str,
    pub(super) message: &'m Message<'m>,
    pub(super) routed: Option<&'m Route<'m>>,
}

#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) fields: OrderedMap<bool>,
    pub(super) differences: Vec<Violation>,
}

/// Compares messages; `rules` apply to parameters, headers and body fields by name. `body`: of the
/// expected message.
pub(super) fn compare_messages(
    api: &Api,
    found: Side<'_>,
    expected: Side<'_>,
    body: Option<&serde_json::Value>,
    rules: &Rules,
) -> Comparison {
    let mut comparison = Comparison::default();
    match (&found.message.start, &expected.message.start) {
        (
            Start::Request { method, path },
            Start::Request {
                method: wanted,
                path: wanted_path,
            },
        ) => {
            let same = method
                .value
                .trim()
                .eq_ignore_ascii_case(wanted.value.trim());
            comparison.field(
                "method",
                same,
                (method.key, method.at),
                wanted.value,
                method.value,
            );
            let (own, other) = (
                path_of(api, found, path),
                path_of(api, expected, wanted_path),
            );
            comparison.field("path", own == other, (path.key, path.at), &other, &own);
            comparison.queries(api, found, expected, rules);
        }
        (Start::Response { status }, Start::Response { status: wanted }) => {
            let texts = (wanted.value.to_string(), status.value.to_string());
            comparison.field(
                "status",
                texts.0 == texts.1,
                (status.key, status.at),
                &texts.0,
                &texts.1,
            );
        }
        _ => {}
    }
    comparison.headers(api, found.message, expected.message, rules);
    comparison.body(found, body, rules);
    comparison
}

fn path_of(api: &Api, side: Side<'_>, path: &Part<'_, &str>) -> String {
    let (address, _) = split_path(path.value);
    let first = || {
        api.servers
            .starts(address)
            .ok()
            .and_then(|starts| starts.last().copied())
            .unwrap_or(0)
    };
    let start = side.routed.map_or_else(first, |routed| routed.start);
    decode_path(address.get(start..).unwrap_or_default())
}

/// Whether two scalars are equal under a rule; numbers by value.
fn equal(found: &str, expected: &str, rule: Rule<'_>) -> bool {
    let number = exact_json::parse(expected)
        .ok()
        .filter(|value| value.is_number() || marked_number(value).is_some());
    equal_text(found, &number.unwrap_or_else(|| expected.into()), rule)
}

impl Comparison {
    fn differs(&mut self, message: String, place: String, offset: usize) {
        let class = FailureClass::WrongValue;
        self.differences.push(Violation {
            message,
            instance_path: place,
            schema_path: String::new(),
            offset,
            class,
        });
    }

    fn field(
        &mut self,
        name: &str,
        same: bool,
        (key, at): (&str, usize),
        expected: &str,
        found: &str,
    ) {
        self.fields.0.push((name.to_owned(), same));
        if !same {
            let message = format!(
                "{name}: expected {}, found {}",
                shorten(expected),
                shorten(found)
            );
            self.differs(message, format!("/{key}"), at);
        }
    }

    fn queries(&mut self, api: &Api, found: Side<'_>, expected: Side<'_>, rules: &Rules) {
        let (mut own, wanted) = (values(api, found), values(api, expected));
        let start = |side: Side<'_>| match &side.message.start {
            Start::Request { path, .. } => (path.at, format!("/{}", path.key)),
            Start::Response { status } => (status.at, format!("/{}", status.key)),
        };
        for (name, Given { value, .. }) in &wanted {
            let rule = rules.root().member(name);
            let given = own.remove(name);
            let same = given.as_ref().is_some_and(|given| {
                given
                    .value
                    .equals(value, &|found, expected| equal(found, expected, rule))
            });
            self.fields.0.push((format!("query.{name}"), same));
            if !same {
                let shown = |value: &ParameterValue<'_>| shorten(&value.json(Reading::Scalars));
                let found_value = given
                    .as_ref()
                    .map_or_else(|| "none".to_owned(), |given| shown(&given.value));
                let (at, place) =
                    given.map_or_else(|| start(found), |given| (given.at, given.place));
                let name = shorten(name);
                self.differs(
                    format!(
                        "query parameter {name:?}: expected {}, found {found_value}",
                        shown(value)
                    ),
                    place,
                    at,
                );
            }
        }
        for (name, Given { at, place, .. }) in own {
            self.differs(
                format!("query parameter {:?}: not expected", shorten(&name)),
                place,
                at,
            );
        }
    }

    fn headers(&mut self, api: &Api, found: &Message<'_>, expected: &Message<'_>, rules: &Rules) {
        let own = || {
            found
                .headers
                .iter()
                .flat_map(|headers| headers.value.members())
        };
        let wanted = || {
            expected
                .headers
                .iter()
                .flat_map(|headers| headers.value.members())
        };
        let key = found
            .headers
            .as_ref()
            .map_or("headers", |headers| headers.key);
        for member in wanted() {
            let name = member.key.to_ascii_lowercase();
            let rule = rules.root().member(&member.key);
            let given = own().find(|given| given.key.eq_ignore_ascii_case(&member.key));
            let value = ParameterValue::from_json(&member.value);
            let same = given.is_some_and(|given| {
                ParameterValue::from_json(&given.value)
                    .equals(&value, &|found, expected| equal(found, expected, rule))
            });
            self.fields.0.push((format!("headers.{name}"), same));
            if !same {
                let shown = |value: &ParameterValue<'_>| shorten(&value.json(Reading::Scalars));
                let found_value = given.map_or_else(
                    || "none".to_owned(),
                    |given| shown(&ParameterValue::from_json(&given.value)),
                );
                let at = given.map_or_else(|| start(found), |given| given.value.start);
                let message = format!(
                    "header {:?}: expected {}, found {found_value}",
                    member.key,
                    shown(&value)
                );
                self.differs(message, format!("/{key}/{}", escaped(&member.key)), at);
            }
        }
        // Additional response headers are allowed.
        let is_request = matches!(found.start, Start::Request { .. });
        for member in own().filter(|_| is_request) {
            let is_wanted = wanted().any(|wanted| wanted.key.eq_ignore_ascii_case(&member.key));
            if !is_wanted && !is_usual(api, &member.key.to_ascii_lowercase()) {
                let message = format!("header {:?}: not expected", shorten(&member.key));
                self.differs(
                    message,
                    format!("/{key}/{}", escaped(&member.key)),
                    member.key_start,
                );
            }
        }
    }

    fn body(&mut self, found: Side<'_>, expected: Option<&serde_json::Value>, rules: &Rules) {
        let given = found
            .message
            .body
            .as_ref()
            .filter(|body| body.value.kind != json::Kind::Null);
        let Some(expected) = expected.filter(|expected| !expected.is_null()) else {
            if let Some(body) = given {
                self.differs(
                    format!("{}: not expected", body.key),
                    format!("/{}", body.key),
                    body.at,
                );
            }
            return;
        };
        let text = |value: &json::Value<'_>| {
            shorten(found.text.get(value.start..value.end).unwrap_or_default())
        };
        let nothing = json::Value {
            start: 0,
            end: 0,
            kind: json::Kind::Null,
        };
        let (fields, same) = compare(given.map_or(&nothing, |body| body.value), expected, rules);
        let object = given.and_then(|body| body.value.as_object());
        let (key, at) = given.map_or_else(
            || ("body", start(found.message)),
            |body| (body.key, body.at),
        );
        let Some(fields) = fields.filter(|_| object.is_some() || given.is_none()) else {
            self.fields.0.push(("body".to_owned(), same));
            if !same {
                let shown = given.map_or_else(|| "none".to_owned(), |body| text(body.value));
                let message = format!(
                    "{key}: expected {}, found {shown}",
                    shorten(&Expectation::describe(expected))
                );
                self.differs(message, format!("/{key}"), at);
            }
            return;
        };
        for (name, same) in fields.iter() {
            self.fields.0.push((format!("body.{name}"), *same));
            if !*same {
                let member = object.and_then(|object| object.get(name));
                let shown = member.map_or_else(|| "none".to_owned(), |member| text(&member.value));
                let message = format!(
                    "{key} {name:?}: expected {}, found {shown}",
                    shorten(&Expectation::describe(&expected[name]))
                );
                let at = member.map_or(at, |member| member.value.start);
                self.differs(message, format!("/{key}/{}", escaped(name)), at);
            }
        }
        for member in object.iter().flat_map(|object| object.members()) {
            if expected.get(&*member.key).is_none() {
                let message = format!("{key} {:?}: not expected", shorten(&member.key));
                self.differs(
                    message,
                    format!("/{key}/{}", escaped(&member.key)),
                    member.key_start,
                );
            }
        }
    }
}

fn values<'m>(api: &Api, side: Side<'m>) -> BTreeMap<String, Given<ParameterValue<'m>>> {
    let mut left: Query<'m> = query(side.text, side.message);
    let parts = side
        .routed
        .and_then(|routed| api.operations[routed.operation].parts.as_ref().ok());
    let mut values = BTreeMap::new();
    for parameter in parts.into_iter().flat_map(|parts| &parts.query) {
        if let Some(Given { value, at, place }) = take_parameter(parameter, &mut left) {
            let value = match value {
                Ok(ParameterValue::Text(text)) if parameter.is_json => {
                    Ok(ParameterValue::from_json_text(&text))
                }
                value => value,
            };
            // A repeated value differs from a single one.
            let value = value.unwrap_or_else(|_| ParameterValue::List(Vec::new()));
            values.insert(parameter.name.clone(), Given { value, at, place });
        }
    }
    for (name, entries) in left {
        let Some(first) = entries.first() else {
            continue;
        };
        let (at, place) = (first.at, first.place.clone());
        let mut all: Vec<ParameterValue<'m>> = entries.iter().map(Entry::alone).collect();
        let value = match (all.len(), all.pop()) {
            (1, Some(one)) => one,
            (_, last) => ParameterValue::List(all.into_iter().chain(last).collect()),
        };
        values.insert(name, Given { value, at, place });
    }
    values
}
