//! An OpenAPI document, indexed: paths, operations, parameters, bodies, responses.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::openapi::{self, OpenApiError, find_operation, object, operations, resolved};
use super::parameters::Style;
use super::path::{Servers, Template};
use super::schemas::{LazySchema, Schemas, Shape, shape};
use crate::score::definition::{HttpRules, MessagePart};
use crate::score::error::ScoreError;
use crate::score::kinds::json_schema::schema_faults::Written;
use crate::task::escaped;

type Read<T> = Result<T, OpenApiError>;

/// Headers that OpenAPI does not describe as parameters.
const UNDESCRIBED: [&str; 3] = ["accept", "content-type", "authorization"];

#[derive(Debug)]
pub(super) struct Api {
    pub(super) schemas: Schemas,
    pub(super) servers: Servers,
    /// Most concrete first; with their operations.
    pub(super) paths: Vec<(Template, Vec<usize>)>,
    pub(super) operations: Vec<Operation>,
    by_name: HashMap<String, usize>,
    /// Names of API keys in headers (lower case) and queries.
    pub(super) keys: HashSet<String>,
}

#[derive(Debug)]
pub(super) struct Operation {
    /// `POST /invoices (createInvoice)`.
    pub(super) name: String,
    pub(super) method: String,
    pub(super) pointer: String,
    /// A sentence if an operation unused by the task is faulty.
    pub(super) parts: Result<Parts, String>,
}

#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) path: Vec<Parameter>,
    pub(super) query: Vec<Parameter>,
    pub(super) headers: Vec<Parameter>,
    pub(super) body: Option<Body>,
    /// Responses by `200`, `2XX` or `default`.
    pub(super) responses: BTreeMap<String, Response>,
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) required: bool,
    pub(super) style: Style,
    pub(super) explode: bool,
    /// Whether its text is JSON: it has `content` instead of `schema`.
    pub(super) is_json: bool,
    pub(super) may_be_empty: bool,
    pub(super) shape: Shape,
    pub(super) schema: LazySchema,
}

#[derive(Debug)]
pub(super) struct Body {
    pub(super) required: bool,
    pub(super) contents: Vec<Content>,
    pub(super) pointer: String,
}

#[derive(Debug)]
pub(super) struct Content {
    /// Lower case.
    pub(super) media: String,
    /// `None`: any value.
    pub(super) schema: Option<LazySchema>,
}

#[derive(Debug)]
pub(super) struct Response {
    pub(super) headers: Vec<Parameter>,
    pub(super) body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Path,
    Query,
    Header,
}

impl Api {
    pub(super) fn new(
        written: Written<'_>,
        rules: &HttpRules,
        assert_formats: bool,
    ) -> Result<Self, ScoreError> {
        let fault = |error: OpenApiError| written.error(&error.pointer, error.message);
        let document = &rules.document;
        let listed = operations(document).map_err(fault)?;
        let named = match &rules.operation {
            None => None,
            Some(name) => Some(find_operation(&listed, name).map_err(|message| {
                written.error(
                    "/paths",
                    format!("`score.operation` of task.toml {message}"),
                )
            })?),
        };
        let mut api = Self {
            schemas: Schemas::new(document.clone(), rules.part, assert_formats),
            servers: Servers::default(),
            paths: Vec::new(),
            operations: Vec::with_capacity(listed.len()),
            by_name: HashMap::new(),
            keys: keys(document),
        };
        let mut used = Vec::new();
        for (index, operation) in listed.iter().enumerate() {
            [document, operation.item, operation.value]
                .iter()
                .for_each(|at| add_servers(&mut api.servers, at));
            let parts = Parts::read(document, operation, rules.part);
            let is_used = named.is_none_or(|named| {
                named.pointer == operation.pointer && named.path == operation.path
            });
            if is_used {
                match &parts {
                    Ok(parts) => used.extend(parts.schemas().map(|schema| schema.pointer.clone())),
                    Err(error) => return Err(fault(error.clone())),
                }
            }
            match api
                .paths
                .iter_mut()
                .find(|(template, _)| template.text == operation.path)
            {
                Some((_, operations)) => operations.push(index),
                None => api.paths.push((Template::new(operation.path), vec![index])),
            }
            api.by_name.insert(operation.route(), index);
            api.by_name
                .extend(operation.id.map(|id| (id.to_owned(), index)));
            let id = operation
                .id
                .map_or_else(String::new, |id| format!(" ({id})"));
            api.operations.push(Operation {
                name: format!("{}{id}", operation.route()),
                method: operation.method.clone(),
                pointer: operation.pointer.clone(),
                parts: parts.map_err(|error| format!("{}: {}", error.pointer, error.message)),
            });
        }
        api.paths.sort_by_key(|(template, _)| template.rank());
        api.schemas.check(written, used)?;
        Ok(api)
    }

    pub(super) fn named(&self, name: &str) -> Option<usize> {
        let route = || {
            let (method, path) = name.split_once(' ')?;
            self.by_name.get(&format!(
                "{} {}",
                method.to_ascii_uppercase(),
                path.trim_start()
            ))
        };
        self.by_name.get(name).or_else(route).copied()
    }
}

/// Headers and query parameters that carry API keys.
fn keys(document: &Value) -> HashSet<String> {
    let schemes = document
        .pointer("/components/securitySchemes")
        .and_then(Value::as_object);
    let keys = schemes
        .into_iter()
        .flat_map(|schemes| schemes.values())
        .filter_map(|scheme| {
            let (place, name) = (scheme.get("in")?.as_str()?, scheme.get("name")?.as_str()?);
            Some(if place == "header" {
                name.to_ascii_lowercase()
            } else {
                name.to_owned()
            })
        });
    keys.collect()
}

fn add_servers(servers: &mut Servers, at: &Value) {
    let listed = at
        .get("servers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    listed
        .filter_map(|server| server.get("url")?.as_str())
        .for_each(|url| servers.add(url));
}

impl Parts {
    fn read(document: &Value, operation: &openapi::Operation<'_>, part: MessagePart) -> Read<Self> {
        let mut parts = Self::default();
        let pointer = &operation.pointer;
        if part == MessagePart::Response {
            let responses = operation.value.get("responses").ok_or_else(|| {
                OpenApiError::new(
                    pointer,
                    "an operation whose responses are scored needs `responses`",
                )
            })?;
            let at = format!("{pointer}/responses");
            for (status, response) in object(responses, &at, "`responses`")?
                .iter()
                .filter(|(key, _)| !key.starts_with("x-"))
            {
                let at = format!("{at}/{}", escaped(status));
                parts.responses.insert(
                    status_key(status, &at)?,
                    Response::read(document, at, response)?,
                );
            }
            return Ok(parts);
        }
        for (place, parameter) in parameters(document, operation)? {
            match place {
                Place::Path => parts.path.push(parameter),
                Place::Query => parts.query.push(parameter),
                Place::Header => parts.headers.push(parameter),
            }
        }
        let template = Template::new(operation.path);
        let without = template
            .variables()
            .find(|name| !parts.path.iter().any(|parameter| parameter.name == *name));
        if let Some(name) = without {
            let message = format!(
                "no parameter for {{{name}}} of the path: add {{\"name\": {name:?}, \"in\": \"path\", \"required\": true, \"schema\": {{\"type\": \"string\"}}}} to `parameters`"
            );
            return Err(OpenApiError::new(pointer, message));
        }
        if let Some(body) = operation.value.get("requestBody") {
            let (at, body) = resolved(document, format!("{pointer}/requestBody"), body)?;
            parts.body = Some(Body::read(&at, body)?);
        }
        Ok(parts)
    }

    fn schemas(&self) -> impl Iterator<Item = &LazySchema> {
        let of_responses = self.responses.values().flat_map(|response| {
            let contents = response
                .body
                .contents
                .iter()
                .filter_map(|content| content.schema.as_ref());
            response
                .headers
                .iter()
                .map(|header| &header.schema)
                .chain(contents)
        });
        let parameters = self
            .path
            .iter()
            .chain(&self.query)
            .chain(&self.headers)
            .map(|parameter| &parameter.schema);
        let bodies = self
            .body
            .iter()
            .flat_map(|body| &body.contents)
            .filter_map(|content| content.schema.as_ref());
        parameters.chain(bodies).chain(of_responses)
    }
}

/// Parameters of path and operation; the operation's override equal ones.
fn parameters(
    document: &Value,
    operation: &openapi::Operation<'_>,
) -> Read<Vec<(Place, Parameter)>> {
    let mut found: Vec<(Place, Parameter)> = Vec::new();
    for (pointer, holder) in [
        (&operation.item_pointer, operation.item),
        (&operation.pointer, operation.value),
    ] {
        let Some(listed) = holder.get("parameters") else {
            continue;
        };
        let pointer = format!("{pointer}/parameters");
        let listed = listed
            .as_array()
            .ok_or_else(|| OpenApiError::new(&pointer, "`parameters` is a list"))?;
        for (index, parameter) in listed.iter().enumerate() {
            let (at, parameter) = resolved(document, format!("{pointer}/{index}"), parameter)?;
            let Some((place, parameter)) = Parameter::read(document, &at, parameter)? else {
                continue;
            };
            if place == Place::Path && !operation.path.contains(&format!("{{{}}}", parameter.name))
            {
                let message = format!("the path {} has no {{{}}}", operation.path, parameter.name);
                return Err(OpenApiError::new(format!("{at}/name"), message));
            }
            found.retain(|(other, known)| (*other, &known.name) != (place, &parameter.name));
            found.push((place, parameter));
        }
    }
    Ok(found)
}

impl Parameter {
    /// `None` for ignored ones: cookies, and headers that OpenAPI does not describe as parameters.
    fn read(document: &Value, at: &str, parameter: &Value) -> Read<Option<(Place, Self)>> {
        let text = |key: &str| parameter.get(key).and_then(Value::as_str);
        let name =
            text("name").ok_or_else(|| OpenApiError::new(at, "a parameter needs a `name`"))?;
        let place = match text("in") {
            Some("path") => Place::Path,
            Some("query") => Place::Query,
            Some("header") if UNDESCRIBED.contains(&name.to_ascii_lowercase().as_str()) => {
                return Ok(None);
            }
            Some("header") => Place::Header,
            Some("cookie") => return Ok(None),
            other => {
                let pointer = if other.is_some() {
                    format!("{at}/in")
                } else {
                    at.to_owned()
                };
                return Err(OpenApiError::new(
                    pointer,
                    "`in` takes path, query, header, cookie",
                ));
            }
        };
        let style = match (place, text("style")) {
            (Place::Path | Place::Header, None | Some("simple"))
            | (Place::Query, None | Some("form")) => Style::Comma,
            (Place::Query, Some("spaceDelimited")) => Style::Space,
            (Place::Query, Some("pipeDelimited")) => Style::Pipe,
            (Place::Query, Some("deepObject")) => Style::DeepObject,
            (_, Some(other)) => {
                let takes = if place == Place::Query {
                    "form, spaceDelimited, pipeDelimited, deepObject"
                } else {
                    "simple"
                };
                return Err(OpenApiError::new(
                    format!("{at}/style"),
                    format!("`style` supports {takes}, not {other}"),
                ));
            }
        };
        let explode = parameter.get("explode").and_then(Value::as_bool);
        let explode = explode.unwrap_or(place == Place::Query && style == Style::Comma);
        let parameter = Self::described(document, at, name, parameter, (style, explode))?;
        Ok(Some((
            place,
            Self {
                required: parameter.required || place == Place::Path,
                ..parameter
            },
        )))
    }

    /// Fields common to parameters and headers.
    fn described(
        document: &Value,
        at: &str,
        name: &str,
        value: &Value,
        (style, explode): (Style, bool),
    ) -> Read<Self> {
        let is_true = |key: &str| value.get(key) == Some(&Value::Bool(true));
        let has_content = value.get("schema").is_none();
        let (pointer, is_json) = match (
            value.get("schema"),
            value.get("content").and_then(Value::as_object),
        ) {
            (Some(_), _) => (format!("{at}/schema"), false),
            (None, Some(content)) => {
                let inside = content
                    .iter()
                    .find(|(_, content)| content.get("schema").is_some());
                let (media, _) = inside.ok_or_else(|| {
                    OpenApiError::new(format!("{at}/content"), "no media type with a `schema`")
                })?;
                (
                    format!("{at}/content/{}/schema", escaped(media)),
                    is_json(&media.to_ascii_lowercase()),
                )
            }
            (None, None) => {
                let message = format!(
                    "{name} has no `schema`: give it one, such as {{\"type\": \"string\"}}"
                );
                return Err(OpenApiError::new(at, message));
            }
        };
        Ok(Self {
            name: name.to_owned(),
            required: is_true("required"),
            style,
            explode,
            is_json,
            may_be_empty: is_true("allowEmptyValue"),
            // Parsed as a whole if described by `content`.
            shape: document
                .pointer(&pointer)
                .filter(|_| !has_content)
                .map_or(Shape::Scalar, |schema| shape(document, schema)),
            schema: LazySchema::at(pointer),
        })
    }
}

impl Body {
    fn read(at: &str, body: &Value) -> Read<Self> {
        let content = body
            .get("content")
            .ok_or_else(|| OpenApiError::new(at, "a body needs `content`"))?;
        Ok(Self {
            required: body.get("required") == Some(&Value::Bool(true)),
            contents: contents(at, content)?,
            pointer: at.to_owned(),
        })
    }

    /// Content for a `Content-Type`; without one, JSON if allowed.
    pub(super) fn content(&self, media: Option<&str>) -> Option<&Content> {
        let Some(media) = media else {
            return self
                .contents
                .iter()
                .find(|content| content.is_json())
                .or(self.contents.first());
        };
        let media = media
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let kind = media.split('/').next().unwrap_or_default();
        let named = |name: &str| self.contents.iter().find(|content| content.media == name);
        named(&media)
            .or_else(|| named(&format!("{kind}/*")))
            .or_else(|| named("*/*"))
    }
}

fn contents(at: &str, content: &Value) -> Read<Vec<Content>> {
    let at = format!("{at}/content");
    let mut found = Vec::new();
    for (media, value) in object(content, &at, "`content`")? {
        let pointer = format!("{at}/{}", escaped(media));
        object(value, &pointer, "a media type")?;
        let schema = value
            .get("schema")
            .map(|_| LazySchema::at(format!("{pointer}/schema")));
        found.push(Content {
            media: media
                .split(';')
                .next()
                .unwrap_or(media)
                .trim()
                .to_ascii_lowercase(),
            schema,
        });
    }
    Ok(found)
}

impl Content {
    fn is_json(&self) -> bool {
        is_json(&self.media)
    }

    /// Whether the body is JSON; schemas do not apply to other types, such as XML.
    pub(super) fn is_described(&self) -> bool {
        self.is_json() || self.media.starts_with("text/") || self.media.contains("form")
    }
}

fn is_json(media: &str) -> bool {
    media.ends_with("/json")
        || media.ends_with("+json")
        || media == "*/*"
        || media == "application/*"
}

impl Response {
    fn read(document: &Value, at: String, response: &Value) -> Read<Self> {
        let (at, response) = resolved(document, at, response)?;
        object(response, &at, "a response")?;
        let content = response
            .get("content")
            .map(|content| contents(&at, content))
            .transpose()?;
        let mut headers = Vec::new();
        for (name, header) in response
            .get("headers")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let (at, header) =
                resolved(document, format!("{at}/headers/{}", escaped(name)), header)?;
            let explode = header.get("explode") == Some(&Value::Bool(true));
            if !name.eq_ignore_ascii_case("content-type") {
                headers.push(Parameter::described(
                    document,
                    &at,
                    name,
                    header,
                    (Style::Comma, explode),
                )?);
            }
        }
        let contents = content.unwrap_or_default();
        // A response whose body has a schema must have a body.
        let required = contents.iter().any(|content| content.schema.is_some());
        Ok(Self {
            headers,
            body: Body {
                required,
                contents,
                pointer: at,
            },
        })
    }
}

/// `200`, `2XX` or `default`.
fn status_key(status: &str, at: &str) -> Read<String> {
    let key = status.to_ascii_uppercase();
    let is_status = key.len() == 3
        && key.starts_with(|first: char| ('1'..='5').contains(&first))
        && (key.ends_with("XX") || key.bytes().all(|byte| byte.is_ascii_digit()));
    match status {
        "default" => Ok(status.to_owned()),
        _ if is_status => Ok(key),
        _ => Err(OpenApiError::new(
            at,
            format!(
                "a response is named by its status, such as 200, 2XX or default, not {status:?}"
            ),
        )),
    }
}
