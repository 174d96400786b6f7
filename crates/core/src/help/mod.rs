//! Help for writing a task's definition: compiles a text under edit and lists its problems. No score depends on it.

mod schema_lint;

pub use schema_lint::{Diagnosis, Fault, diagnose};
