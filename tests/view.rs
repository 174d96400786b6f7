//! Tests: the workbench. Keys in, pictures and commands out, on real tasks and real runs.

mod chart;
mod documentation;
mod eval;
mod every_action;
mod everywhere;
#[cfg(feature = "engine")]
mod journey;
mod launch;
mod live;
mod live_run;
mod looks;
mod prompts;
mod prompts_kept;
mod random;
mod reaching;
mod runs;
mod schema;
mod scores;
mod session;
mod stage;
mod terminal;
mod typing;
mod written_run;
