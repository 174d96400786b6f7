//! Tests: the workbench. Keys in, pictures and commands out, on real tasks and real runs.

mod eval;
mod everywhere;
mod runs;
mod stage;
