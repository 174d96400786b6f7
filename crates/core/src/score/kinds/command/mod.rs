//! Judging by a program: a user's (JSON lines, a Python function, or one run per completion), a
//! linter or compiler for code, or tests of the answer itself.

pub(super) mod answer;
mod code;
mod definition;
mod judge;
mod keys;
mod pool;
mod program_tests;
mod python;
mod question;
mod single_run;
mod suppressions;
mod trial;
mod whole_run;

pub(super) use definition::{CODE, KIND, TESTS};
pub(super) use python::PYTHON;
