//! Grammars of valid answers, for constrained decoding.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::choices;
use crate::text::CallFormat;

#[derive(Debug, Clone, Copy)]
pub enum Grammar<'a> {
    JsonSchema(&'a SchemaFiles),
    ToolCalls(&'a ToolRules),
    HttpMessage(&'a HttpRules),
    /// A pattern in the syntax of the `regex` crate.
    Pattern(&'a str),
}

/// A JSON Schema with the files it refers to.
#[derive(Debug, Clone)]
pub struct SchemaFiles {
    pub schema: Value,
    /// Other schema files for `$ref`: address -> file inside the task.
    pub references: BTreeMap<String, String>,
    /// Address of a schema file without `$schema` -> that of the file that refers to it.
    pub inherited_drafts: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub struct ToolRules {
    /// Tools in OpenAI's schema; `None` if each row has its own.
    pub tools: Option<Value>,
    /// Whether calls must be in the expected order.
    pub in_order: bool,
    /// Whether an answer without calls is allowed.
    pub allows_none: bool,
    /// Set by the task.
    pub(crate) named_format: Option<&'static CallFormat>,
    /// The model's; Hermes's if no model is known.
    pub(crate) model_format: &'static CallFormat,
    /// Whether the task allows text before the first call.
    pub(crate) allows_prose: bool,
    /// Whether the model's chat template writes such text; true if no model is known.
    pub(crate) model_writes_prose: bool,
}

/// An API, and the part of an exchange that answers are.
#[derive(Debug, Clone)]
pub struct HttpRules {
    /// OpenAPI 3.0 or 3.1.
    pub document: Value,
    /// `operationId`, or `POST /invoices`; `None` for the row's, or any.
    pub operation: Option<String>,
    pub part: MessagePart,
}

choices! {
    /// Part of an HTTP exchange.
    MessagePart {
        Request = "request",
        Response = "response",
    }
}
