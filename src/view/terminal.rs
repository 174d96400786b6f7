//! The workbench in a real terminal: everything that touches a terminal, a clock, a signal or another program, around a model that knows of none.

mod bells;
mod editor;
mod encode;
mod escape;
mod event_loop;
mod follow;
mod ground;
mod hangup;
mod input;
mod modes;
mod pace;
mod panic;
mod picture;
mod signals;
mod world;
mod writer;

pub use event_loop::{ViewExit, run};
