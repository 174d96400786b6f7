//! The view in a real terminal: everything that touches a terminal, a clock, a signal or another program.

mod background;
mod commands;
mod editor;
mod encode;
mod event_loop;
mod follow;
mod frame;
mod frame_rate;
mod guard;
mod input;
mod key_parser;
mod linear;
mod osc;
mod panic;
mod script;
mod signals;
mod writer;

pub use event_loop::{ViewExit, run};

/// Columns and rows of standard output; `None` if unknown.
pub(super) fn size() -> Option<(u16, u16)> {
    guard::size()
}
