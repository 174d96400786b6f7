//! Judges by a program: one of the user's that answers JSON lines or runs once a completion, a linter or compiler of
//! the answer's code, or the answer itself, about which tests decide.

pub(super) mod answer;
mod code;
mod definition;
mod judge;
mod pool;
mod program_tests;
mod question;
mod single_run;
mod suppressions;
mod trial;
mod whole_run;

pub(super) use definition::{CODE, KIND, TESTS};
