//! A task's definition for those who read and write it: its outline, and the problems of a text under edit. No score
//! depends on it.

mod outline;
mod schema_lint;

pub use outline::{OutlineEntry, outline};
pub use schema_lint::{Diagnosis, Fault, diagnose};
