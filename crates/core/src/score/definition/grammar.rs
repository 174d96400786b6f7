//! The grammar of right answers, for decoding that is constrained to them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::text::CallFormat;

/// The grammar of right answers.
#[derive(Debug, Clone, Copy)]
pub enum Grammar<'a> {
    JsonSchema(&'a SchemaFiles),
    ToolCalls(&'a ToolRules),
    HttpMessage(&'a HttpRules),
    /// A regular expression in the syntax of the crate `regex`.
    Pattern(&'a str),
}

/// A JSON Schema and the files that it refers to.
#[derive(Debug, Clone)]
pub struct SchemaFiles {
    pub schema: Value,
    /// Other schema files for `$ref`: address to file inside the task.
    pub references: BTreeMap<String, String>,
    /// Address of a schema file without `$schema` -> that of the file that refers to it.
    pub inherited_drafts: BTreeMap<String, String>,
}

/// The functions that may be called.
#[derive(Debug, Clone)]
pub struct ToolRules {
    /// In OpenAI's schema; `None` where each row has its own.
    pub tools: Option<Value>,
    /// Whether calls must be in the order of the expected ones.
    pub in_order: bool,
    /// Whether an answer may make no call.
    pub allows_none: bool,
    /// The one that the task names.
    pub(crate) named_format: Option<&'static CallFormat>,
    /// That of the model whose answers are judged; Hermes's where no model is known.
    pub(crate) model_format: &'static CallFormat,
    /// Whether text may be before the first call, as far as the task says.
    pub(crate) allows_prose: bool,
    /// Whether the model's chat template writes such text; true where no model is known.
    pub(crate) model_writes_prose: bool,
}

/// An API, and which part of an exchange with it answers are.
#[derive(Debug, Clone)]
pub struct HttpRules {
    /// OpenAPI 3.0 or 3.1.
    pub document: Value,
    /// The one that completions are of: its `operationId`, or `POST /invoices`; `None` for the row's, or any.
    pub operation: Option<String>,
    pub part: MessagePart,
}

/// The part of an HTTP exchange that a completion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessagePart {
    Request,
    Response,
}

impl MessagePart {
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}
