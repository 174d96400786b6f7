//! Judges SQL: parsed in its dialect, run in SQLite against a schema with data, its result compared with that of the
//! expected query.

mod columns;
mod compare;
mod definition;
mod judge;
mod query;

pub(super) use definition::KIND;
