//! Prompt rows: reading, importing, editing, order in training, health.

pub mod adaptive_order;
mod demonstration;
mod error;
pub(crate) mod expected;
mod guard;
pub mod health;
pub mod import;
mod infer;
mod messages;
pub mod new_task;
pub mod order;
mod random;
mod row;
mod row_fields;
mod row_schema;
mod schema_forms;
mod turns;

pub use error::DatasetError;
pub use expected::{has_path, target as expected_target};
pub use guard::{GuardRow, guard_rows, guard_rows_with};
pub use infer::{InferredSchema, infer};
pub use random::{CounterRandom, GOLDEN, mix, scale, text_hash};
pub use row::{
    NumberedLine, OnMalformed, PROPOSED, PromptRow, append_lines, expect_null, load, load_from,
    load_with, open, read_lines, read_rows, rows_on, visit_batches,
};
pub use row_fields::RowFields;
pub(crate) use row_schema::{
    SchemaSource, read_schema, row_schema_files, schema_source, tag_schemas,
};
pub use row_schema::{has_own_schema, row_schema, schema_digest, schema_name};
