//! References and operations of an OpenAPI document.

use std::collections::HashMap;

use serde_json::Value;

use crate::task::{decode_path, escaped};

const METHODS: [&str; 8] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace",
];

/// Chained references.
const MAX_HOPS: usize = 32;

#[derive(Debug, Clone)]
pub struct Operation<'a> {
    /// Upper case.
    pub method: String,
    /// The template, such as `/invoices/{id}`.
    pub path: &'a str,
    pub id: Option<&'a str>,
    pub value: &'a Value,
    /// JSON pointer to [`Self::value`].
    pub pointer: String,
    /// The path item shared by its operations; references resolved.
    pub item: &'a Value,
    pub item_pointer: String,
}

impl Operation<'_> {
    /// `POST /invoices`.
    pub fn route(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub fn name(&self) -> String {
        self.id.map_or_else(|| self.route(), str::to_owned)
    }

    fn is_named(&self, name: &str) -> bool {
        self.id == Some(name) || is_route(name, &self.method, self.path)
    }
}

/// Whether a name such as `POST /invoices` is that of an operation.
pub(super) fn is_route(name: &str, method: &str, path: &str) -> bool {
    name.split_once(' ')
        .is_some_and(|(own, rest)| own.eq_ignore_ascii_case(method) && rest.trim_start() == path)
}

/// Why a document is unusable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenApiError {
    /// JSON pointer to the fault.
    pub pointer: String,
    pub message: String,
}

impl OpenApiError {
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            message: message.into(),
        }
    }
}

/// All operations, in order.
///
/// # Errors
/// Errors of the document, its paths, or operation names.
pub fn operations(document: &Value) -> Result<Vec<Operation<'_>>, OpenApiError> {
    check_version(document)?;
    let paths = document
        .get("paths")
        .ok_or_else(|| OpenApiError::new("", "the document has no `paths`"))?;
    let paths = object(paths, "/paths", "`paths`")?;
    let (mut found, mut ids) = (Vec::new(), HashMap::new());
    for (path, item) in paths.iter().filter(|(path, _)| !path.starts_with("x-")) {
        let pointer = format!("/paths/{}", escaped(path));
        if !path.starts_with('/') {
            return Err(OpenApiError::new(
                pointer,
                format!("a path begins with `/`, not {path:?}"),
            ));
        }
        let (item_pointer, item) = resolved(document, pointer, item)?;
        let members = object(item, &item_pointer, "a path")?;
        for (method, value) in members
            .iter()
            .filter(|(key, _)| METHODS.contains(&key.as_str()))
        {
            let pointer = format!("{item_pointer}/{method}");
            object(value, &pointer, "an operation")?;
            let id = value.get("operationId").and_then(Value::as_str);
            let method = method.to_ascii_uppercase();
            if let Some(other) = id.and_then(|id| ids.insert(id, format!("{method} {path}"))) {
                let message =
                    format!("names {other} too: give each operation its own `operationId`");
                return Err(OpenApiError::new(format!("{pointer}/operationId"), message));
            }
            let item_pointer = item_pointer.clone();
            found.push(Operation {
                method,
                path,
                id,
                value,
                pointer,
                item,
                item_pointer,
            });
        }
    }
    match found.is_empty() {
        true => Err(OpenApiError::new(
            "/paths",
            "no operation: give a path a method, such as \"get\"",
        )),
        false => Ok(found),
    }
}

/// Finds an operation by `operationId` or route.
///
/// # Errors
/// A sentence with a suggestion.
pub(super) fn find_operation<'o, 'a>(
    operations: &'o [Operation<'a>],
    name: &str,
) -> Result<&'o Operation<'a>, String> {
    operations
        .iter()
        .find(|operation| operation.is_named(name))
        .ok_or_else(|| {
            let names: Vec<String> = operations
                .iter()
                .flat_map(|operation| [Some(operation.route()), operation.id.map(str::to_owned)])
                .flatten()
                .collect();
            let near = crate::format::did_you_mean(name, names.iter().map(String::as_str));
            let some: Vec<String> = operations.iter().take(5).map(Operation::name).collect();
            let more = if operations.len() > some.len() {
                ", …"
            } else {
                ""
            };
            let advice = if near.is_empty() {
                format!("; there are {}{more}", some.join(", "))
            } else {
                near
            };
            format!("names no operation of the document: {name:?}{advice}")
        })
}

fn check_version(document: &Value) -> Result<(), OpenApiError> {
    if !document.is_object() {
        return Err(OpenApiError::new(
            "",
            "an OpenAPI document is an object: {\"openapi\": \"3.1.0\", \"paths\": …}",
        ));
    }
    match (document.get("openapi"), document.get("swagger")) {
        (Some(Value::String(version)), _)
            if version.starts_with("3.0") || version.starts_with("3.1") => {}
        (Some(version), _) => {
            return Err(OpenApiError::new(
                "/openapi",
                format!("OpenAPI 3.0 and 3.1 are read, not {version}"),
            ));
        }
        (None, Some(version)) => {
            let message = format!(
                "OpenAPI 3.0 and 3.1 are read, not Swagger {version}: convert it, for example with `npx swagger2openapi`"
            );
            return Err(OpenApiError::new("/swagger", message));
        }
        (None, None) => {
            let message = "not an OpenAPI document: its first key must be \"openapi\", such as \"openapi\": \"3.1.0\"";
            return Err(OpenApiError::new("", message));
        }
    }
    match document.get("jsonSchemaDialect").and_then(Value::as_str) {
        Some(dialect) if !dialect.contains("spec.openapis.org") && !dialect.contains("2020-12") => {
            Err(OpenApiError::new(
                "/jsonSchemaDialect",
                "schemas are read as JSON Schema 2020-12: leave this key out",
            ))
        }
        _ => Ok(()),
    }
}

/// Follows `$ref`s within the document; returns value and JSON pointer.
///
/// # Errors
/// A reference to another file or address, a dangling or a cyclic one.
pub(super) fn resolved<'a>(
    document: &'a Value,
    mut pointer: String,
    mut value: &'a Value,
) -> Result<(String, &'a Value), OpenApiError> {
    for _ in 0..MAX_HOPS {
        let Some(reference) = value.get("$ref").and_then(Value::as_str) else {
            return Ok((pointer, value));
        };
        (pointer, value) = target(document, &format!("{pointer}/$ref"), reference)?;
    }
    Err(OpenApiError::new(pointer, "references form a cycle"))
}

pub(super) fn target<'a>(
    document: &'a Value,
    pointer: &str,
    reference: &str,
) -> Result<(String, &'a Value), OpenApiError> {
    let error = |message: String| OpenApiError::new(pointer, message);
    let Some(inside) = reference
        .strip_prefix('#')
        .filter(|inside| inside.starts_with('/'))
    else {
        return Err(error(format!(
            "`$ref` to {reference} leaves the document: only references such as #/components/schemas/NAME are followed; put what it names into this file (for example with `npx @redocly/cli bundle`)"
        )));
    };
    let inside = decode_path(inside);
    match document.pointer(&inside) {
        Some(value) => Ok((inside, value)),
        None => {
            let (parent, name) = inside.rsplit_once('/').unwrap_or_default();
            let names = document
                .pointer(parent)
                .and_then(Value::as_object)
                .into_iter()
                .flat_map(|members| members.keys());
            let near = crate::format::did_you_mean(name, names.map(String::as_str));
            Err(error(format!(
                "`$ref` target not found: {reference} is not in the document{near}"
            )))
        }
    }
}

pub(super) fn object<'a>(
    value: &'a Value,
    pointer: &str,
    what: &str,
) -> Result<&'a serde_json::Map<String, Value>, OpenApiError> {
    value
        .as_object()
        .ok_or_else(|| OpenApiError::new(pointer, format!("{what} is an object")))
}
