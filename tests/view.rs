//! Tests: the workbench. Keys in, pictures and commands out, on real tasks and real runs.

mod everywhere;
mod prompts;
mod schema;
mod stage;
