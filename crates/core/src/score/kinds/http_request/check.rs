//! Validates a message against an operation; each violation has its position.

use super::document::{Api, Body, Operation, Parameter, Parts};
use super::message::{Message, Part, Start};
use super::parameters::{ParameterValue, Reading, Style};
use super::path::Bound;
use super::query::{Given, MAX_PATH_BYTES, query, split_path, take_parameter};
use super::schemas::{LazySchema, Shape};
use crate::format::did_you_mean;
use crate::score::answer::json::position::StringPlaces;
use crate::score::answer::json::{self, Value};
use crate::score::kinds::json_schema::pattern::shorten;
use crate::score::kinds::json_schema::schema::Violation;
use crate::score::verdict::FailureClass;
use crate::task::{decode_path, escaped};

const USUAL: [&str; 14] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "origin",
    "referer",
    "user-agent",
];

#[derive(Debug)]
pub(super) struct Route<'m> {
    pub(super) operation: usize,
    bound: Vec<Bound<'m>>,
    /// Byte of the written path where the document's begins.
    pub(super) start: usize,
}

/// A path as written, with positions of its bytes.
struct Address<'c, 'm> {
    completion: &'c str,
    written: Part<'m, &'m str>,
}

/// Violations, or why the document's schema is unusable.
pub(super) type Checked<T> = Result<T, String>;

pub(super) fn route<'m>(
    api: &'m Api,
    completion: &str,
    method: Part<'m, &'m str>,
    path: Part<'m, &'m str>,
) -> Result<Route<'m>, Violation> {
    let of = |message: String, part: Part<'m, &'m str>, at: usize| Violation {
        message,
        instance_path: format!("/{}", part.key),
        schema_path: "/paths".to_owned(),
        offset: at,
        class: FailureClass::WrongOperation,
    };
    if path.value.len() > MAX_PATH_BYTES {
        return Err(of(
            format!("the path is longer than {MAX_PATH_BYTES} bytes"),
            path,
            path.at,
        ));
    }
    let (address, _) = split_path(path.value);
    let starts = api
        .servers
        .starts(address)
        .map_err(|message| of(message, path, path.at))?;
    let has_method = |operation: &&usize| {
        api.operations[**operation]
            .method
            .eq_ignore_ascii_case(method.value.trim())
    };
    let mut other_methods = None;
    for start in &starts {
        for (template, operations) in &api.paths {
            let Some(bound) = template.matches(&address[*start..]) else {
                continue;
            };
            match operations.iter().find(has_method) {
                Some(operation) => {
                    return Ok(Route {
                        operation: *operation,
                        bound,
                        start: *start,
                    });
                }
                None => other_methods = other_methods.or(Some((template, operations))),
            }
        }
    }
    if let Some((template, operations)) = other_methods {
        let has: Vec<&str> = operations
            .iter()
            .map(|operation| api.operations[*operation].method.as_str())
            .collect();
        let message = format!(
            "no {} {}; it has {}",
            shorten(method.value),
            template.text,
            has.join(", ")
        );
        return Err(of(message, method, method.at));
    }
    let start = starts
        .iter()
        .rev()
        .copied()
        .find(|start| *start < address.len())
        .unwrap_or(0);
    let written = shorten(&address[start..]);
    let near = did_you_mean(
        &written,
        api.paths.iter().map(|(template, _)| template.text.as_str()),
    );
    let at = Address {
        completion,
        written: path,
    }
    .byte(start);
    Err(of(
        format!("no path {written} in the document{near}"),
        path,
        at,
    ))
}

impl Address<'_, '_> {
    fn byte(&self, of_path: usize) -> usize {
        StringPlaces::new(self.completion, self.written.at).locate(of_path)
    }
}

pub(super) fn check_request(
    api: &Api,
    completion: &str,
    message: &Message<'_>,
    routed: &Route<'_>,
) -> Checked<Vec<Violation>> {
    let operation = &api.operations[routed.operation];
    let parts = operation.parts.as_ref().map_err(Clone::clone)?;
    let mut checker = Checker {
        api,
        operation,
        completion,
        found: extra_key(message),
    };
    let Start::Request { path, .. } = &message.start else {
        return Ok(checker.found);
    };
    checker.path(parts, *path, routed)?;
    checker.query(parts, *path, message)?;
    let media = checker.headers(&parts.headers, message, true)?;
    match &parts.body {
        Some(body) => checker.body(body, message, media)?,
        None => checker.no_body(message),
    }
    Ok(checker.found)
}

pub(super) fn check_response(
    api: &Api,
    completion: &str,
    message: &Message<'_>,
    operation: usize,
) -> Checked<Vec<Violation>> {
    let operation = &api.operations[operation];
    let parts = operation.parts.as_ref().map_err(Clone::clone)?;
    let mut checker = Checker {
        api,
        operation,
        completion,
        found: extra_key(message),
    };
    let Start::Response { status } = &message.start else {
        return Ok(checker.found);
    };
    let code = status.value;
    let class = format!("{}XX", code / 100);
    let defined = [code.to_string().as_str(), class.as_str(), "default"]
        .iter()
        .find_map(|key| parts.responses.get(*key));
    let Some(response) = defined.filter(|_| (100..600).contains(&code)) else {
        let all: Vec<&str> = parts.responses.keys().map(String::as_str).collect();
        let message = format!(
            "{} defines no status {code}; it has {}",
            operation.name,
            all.join(", ")
        );
        checker.add(
            message,
            format!("/{}", status.key),
            "/responses",
            status.at,
            FailureClass::WrongStatus,
        );
        return Ok(checker.found);
    };
    let media = checker.headers(&response.headers, message, false)?;
    match response.body.contents.is_empty() {
        false => checker.body(&response.body, message, media)?,
        true => checker.no_body(message),
    }
    Ok(checker.found)
}

fn extra_key(message: &Message<'_>) -> Vec<Violation> {
    let violation = |(key, offset): (&str, usize)| Violation {
        message: format!("key not allowed: {:?}", shorten(key)),
        instance_path: String::new(),
        schema_path: String::new(),
        offset,
        class: FailureClass::ExtraKey,
    };
    message.extra_key.map(violation).into_iter().collect()
}

/// Whether any request may have this header (lower case).
pub(super) fn is_usual(api: &Api, name: &str) -> bool {
    USUAL.contains(&name) || api.keys.contains(name)
}

struct Checker<'a> {
    api: &'a Api,
    operation: &'a Operation,
    completion: &'a str,
    found: Vec<Violation>,
}

impl Checker<'_> {
    fn add(
        &mut self,
        message: String,
        place: String,
        schema: &str,
        offset: usize,
        class: FailureClass,
    ) {
        let schema_path = format!("{}{schema}", self.operation.pointer);
        self.found.push(Violation {
            message,
            instance_path: place,
            schema_path,
            offset,
            class,
        });
    }

    fn missing(&mut self, what: &str, name: &str, (at, place): (usize, String)) {
        let message = format!("missing {what} {name:?}");
        let class = FailureClass::MissingParameter;
        self.add(message, place, "/parameters", at, class);
    }

    fn not_allowed(
        &mut self,
        (what, name): (&str, &str),
        known: &[Parameter],
        (at, place): (usize, String),
    ) {
        let short = shorten(name);
        let near = did_you_mean(&short, known.iter().map(|known| known.name.as_str()));
        let message = format!("{what} not allowed: {short:?}{near}");
        let class = FailureClass::ExtraParameter;
        self.add(message, place, "/parameters", at, class);
    }

    fn path(&mut self, parts: &Parts, path: Part<'_, &str>, routed: &Route<'_>) -> Checked<()> {
        let mut places = StringPlaces::new(self.completion, path.at);
        for parameter in &parts.path {
            let mut bound = routed.bound.iter();
            let Some(Bound { name, text, at }) = bound.find(|bound| bound.name == parameter.name)
            else {
                continue;
            };
            let (at, place) = (places.locate(routed.start + at), format!("/{}", path.key));
            if text
                .strip_prefix('{')
                .and_then(|text| text.strip_suffix('}'))
                == Some(*name)
                || text.strip_prefix(':') == Some(*name)
            {
                let message = format!("path parameter {name} is not filled in: {text}");
                self.add(
                    message,
                    place,
                    "/parameters",
                    at,
                    FailureClass::MissingParameter,
                );
                continue;
            }
            let given = ParameterValue::from_text(
                text,
                &parameter.shape,
                Style::Comma,
                parameter.explode,
                decode_path,
            );
            self.value(parameter, &given, (at, place), "path parameter")?;
        }
        Ok(())
    }

    fn query(&mut self, parts: &Parts, path: Part<'_, &str>, message: &Message<'_>) -> Checked<()> {
        let mut query = query(self.completion, message);
        // Before those with fields directly in the query.
        let spreads = |parameter: &&Parameter| {
            matches!(parameter.shape, Shape::Fields(_)) && parameter.style == Style::Comma
        };
        let (last, first): (Vec<&Parameter>, Vec<&Parameter>) =
            parts.query.iter().partition(spreads);
        for parameter in first.into_iter().chain(last) {
            let name = &parameter.name;
            match take_parameter(parameter, &mut query) {
                None if parameter.required => {
                    let query = message.query.as_ref();
                    let (key, at) =
                        query.map_or((path.key, path.at), |query| (query.key, query.at));
                    self.missing("query parameter", name, (at, format!("/{key}")));
                }
                None => {}
                Some(Given {
                    value: Err(times),
                    at,
                    place,
                }) => {
                    let message = format!("query parameter {name:?} is given {times} times");
                    self.add(
                        message,
                        place,
                        "/parameters",
                        at,
                        FailureClass::ExtraParameter,
                    );
                }
                Some(Given {
                    value: Ok(given),
                    at,
                    place,
                }) => self.value(parameter, &given, (at, place), "query parameter")?,
            }
        }
        for (name, entries) in &query {
            let Some(entry) = entries.first().filter(|_| !self.api.keys.contains(name)) else {
                continue;
            };
            self.not_allowed(
                ("query parameter", name),
                &parts.query,
                (entry.at, entry.place.clone()),
            );
        }
        Ok(())
    }

    /// Checks headers; returns the `Content-Type`.
    fn headers<'m>(
        &mut self,
        wanted: &[Parameter],
        message: &Message<'m>,
        is_request: bool,
    ) -> Checked<Option<&'m str>> {
        let mut media = None;
        let mut seen: Vec<&str> = Vec::new();
        for member in message
            .headers
            .iter()
            .flat_map(|headers| headers.value.members())
        {
            let key = message
                .headers
                .as_ref()
                .map_or("headers", |headers| headers.key);
            let place = format!("/{key}/{}", escaped(&member.key));
            let parameter = wanted
                .iter()
                .find(|parameter| parameter.name.eq_ignore_ascii_case(&member.key));
            let name = member.key.to_ascii_lowercase();
            match (parameter, &member.value.kind) {
                (Some(parameter), json::Kind::String(text)) => {
                    seen.push(&parameter.name);
                    let given = ParameterValue::from_text(
                        text,
                        &parameter.shape,
                        Style::Comma,
                        parameter.explode,
                        str::to_owned,
                    );
                    self.value(parameter, &given, (member.value.start, place), "header")?;
                }
                (Some(parameter), _) => {
                    seen.push(&parameter.name);
                    let given = ParameterValue::from_json(&member.value);
                    self.value(parameter, &given, (member.value.start, place), "header")?;
                }
                (None, json::Kind::String(text)) if name == "content-type" => media = Some(&**text),
                (None, _) if is_request && !is_usual(self.api, &name) => {
                    let place = (member.key_start, place);
                    self.not_allowed(("header", &member.key), wanted, place);
                }
                (None, _) => {}
            }
        }
        for parameter in wanted
            .iter()
            .filter(|parameter| parameter.required && !seen.contains(&parameter.name.as_str()))
        {
            self.missing(
                "header",
                &parameter.name,
                (headers_start(message), String::new()),
            );
        }
        Ok(media)
    }

    /// Checks a parameter's value: number-like text is a number if the schema requires one.
    fn value(
        &mut self,
        parameter: &Parameter,
        given: &ParameterValue<'_>,
        (at, place): (usize, String),
        what: &str,
    ) -> Checked<()> {
        let schema = parameter.schema.compiled(&self.api.schemas)?;
        let mut found: Option<Vec<Violation>> = None;
        for text in readings(parameter, given) {
            let root = match json::parse(&text, 0) {
                Ok(document) => document.root,
                Err(error) => {
                    let message =
                        format!("{what} {:?} is not JSON: {}", parameter.name, error.reason);
                    self.add(message, place, "/parameters", at, FailureClass::Syntax);
                    return Ok(());
                }
            };
            let verdict = schema
                .schema
                .is_valid(&root, &mut schema.schema.budget(text.len()));
            if verdict == Ok(true) || (parameter.may_be_empty && text == "\"\"") {
                return Ok(());
            }
            // Of the readings as string and number, the one whose type fits.
            let is_typed =
                |all: &Vec<Violation>| all.iter().all(|one| one.class != FailureClass::WrongType);
            if !found.as_ref().is_some_and(is_typed) {
                let violations = schema.schema.violations(&text, &root, verdict);
                found = Some(violations.unwrap_or_else(|exhausted| vec![exhausted]));
            }
        }
        let pointer = &parameter.schema.pointer;
        let violations = found.into_iter().flatten().map(|violation| Violation {
            message: format!("{what} {:?}: {}", parameter.name, violation.message),
            instance_path: format!("{place}{}", violation.instance_path),
            schema_path: schema.place(pointer, &violation.schema_path),
            offset: at,
            class: violation.class,
        });
        self.found.extend(violations);
        Ok(())
    }

    fn body(&mut self, body: &Body, message: &Message<'_>, media: Option<&str>) -> Checked<()> {
        let content = body.content(media);
        let Some(content) = content else {
            let all: Vec<&str> = body
                .contents
                .iter()
                .map(|content| content.media.as_str())
                .collect();
            let text = format!(
                "no body of type {}; there are {}",
                shorten(media.unwrap_or_default()),
                all.join(", ")
            );
            self.add(
                text,
                "/headers".to_owned(),
                "/requestBody",
                headers_start(message),
                FailureClass::Other,
            );
            return Ok(());
        };
        let schema = content.schema.as_ref().filter(|_| content.is_described());
        let is_null = message
            .body
            .as_ref()
            .is_none_or(|body| body.value.kind == json::Kind::Null);
        match (&message.body, schema) {
            (Some(given), Some(schema)) => {
                let violations = self.against(schema, given)?;
                // `null` means no body.
                if !(is_null && !body.required && !violations.is_empty()) {
                    self.found.extend(violations);
                }
            }
            (None, _) if body.required => {
                let at = start(message);
                self.found.push(Violation {
                    message: "missing body".to_owned(),
                    instance_path: String::new(),
                    schema_path: body.pointer.clone(),
                    offset: at,
                    class: FailureClass::MissingKey,
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn against(
        &self,
        schema: &LazySchema,
        given: &Part<'_, &Value<'_>>,
    ) -> Checked<Vec<Violation>> {
        let compiled = schema.compiled(&self.api.schemas)?;
        let value = given.value;
        let verdict = compiled
            .schema
            .is_valid(value, &mut compiled.schema.budget(value.end - value.start));
        if verdict == Ok(true) {
            return Ok(Vec::new());
        }
        let found = compiled.schema.violations(self.completion, value, verdict);
        let placed = |violation: Violation| Violation {
            message: format!("{}: {}", given.key, violation.message),
            instance_path: format!("/{}{}", given.key, violation.instance_path),
            schema_path: compiled.place(&schema.pointer, &violation.schema_path),
            ..violation
        };
        Ok(found
            .unwrap_or_else(|exhausted| vec![exhausted])
            .into_iter()
            .map(placed)
            .collect())
    }

    fn no_body(&mut self, message: &Message<'_>) {
        if let Some(body) = message
            .body
            .as_ref()
            .filter(|body| body.value.kind != json::Kind::Null)
        {
            let text = format!("{} has no body here", self.operation.name);
            self.add(
                text,
                format!("/{}", body.key),
                "",
                body.at,
                FailureClass::ExtraKey,
            );
        }
    }
}

fn headers_start(message: &Message<'_>) -> usize {
    let headers = message.headers.as_ref();
    headers.map_or_else(|| start(message), |headers| headers.at)
}

pub(super) fn start(message: &Message<'_>) -> usize {
    match &message.start {
        Start::Request { path, .. } => path.at,
        Start::Response { status } => status.at,
    }
}

fn readings(parameter: &Parameter, given: &ParameterValue<'_>) -> Vec<String> {
    match given {
        ParameterValue::Text(text) if parameter.is_json => vec![text.to_string()],
        given if parameter.is_json => vec![given.json(Reading::Json)],
        given => {
            let (strings, scalars) = (given.json(Reading::Strings), given.json(Reading::Scalars));
            if strings == scalars {
                vec![strings]
            } else {
                vec![strings, scalars]
            }
        }
    }
}
