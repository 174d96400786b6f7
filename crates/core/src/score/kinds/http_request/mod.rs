//! Judges API requests or responses by an OpenAPI document and the expected message.

mod definition;
mod document;
mod judge;
mod message;
pub(crate) mod message_schema;
mod openapi;
mod schemas;

pub(super) use definition::KIND;
pub use message_schema::{MessageSchema, message_schemas};
pub use openapi::{Operation, operations};
