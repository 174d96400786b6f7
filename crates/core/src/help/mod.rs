//! Help for authors of tasks: the problems of a definition. No score depends on it.

mod schema_lint;

pub use schema_lint::{Diagnosis, Fault, diagnose};
