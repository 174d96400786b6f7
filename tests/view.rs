//! Tests: the workbench. Keys in, pictures and commands out, on real tasks and real runs.

mod chart;
mod everywhere;
mod live;
mod live_run;
mod stage;
