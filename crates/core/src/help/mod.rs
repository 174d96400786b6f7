//! Help for authors of tasks: a definition's outline and its problems. No score depends on it.

mod outline;
mod schema_lint;

pub use outline::{OutlineEntry, outline};
pub use schema_lint::{Diagnosis, Fault, diagnose};
