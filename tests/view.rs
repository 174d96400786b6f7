//! Tests: the workbench. Keys in, pictures and commands out, on real tasks and real runs.

mod chart;
mod command_log;
mod conversations;
mod documentation;
mod drafts;
mod eval;
mod every_action;
mod example_screen;
mod global_actions;
mod harness;
#[cfg(feature = "engine")]
mod journey;
mod judge_grades;
mod launch;
mod launch_of_several;
mod live;
mod live_run;
mod notifications;
mod one_context;
mod palette;
mod panes;
mod pipeline;
mod prompts;
pub(crate) mod pty_session;
mod random;
mod ranks;
mod run_chart;
mod runs;
mod schema;
mod schema_program;
mod scores;
mod start_gate;
mod styles;
mod synthetic_run;
mod task_files;
mod terminal;
mod text_input;
