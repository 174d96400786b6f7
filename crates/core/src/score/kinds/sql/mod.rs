//! Judges SQL: parsed in its dialect, run in SQLite on a schema with data, compared by result.

mod columns;
mod compare;
mod definition;
mod judge;
mod query;

pub(super) use definition::KIND;
