//! Help for reading and writing a task's definition: its outline, and the problems of a text under edit. No score depends on it.

mod outline;
mod schema_lint;

pub use outline::{OutlineEntry, outline};
pub use schema_lint::{Diagnosis, Fault, diagnose};
