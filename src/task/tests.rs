//! Tests of tasks as written by people.

mod placeholder {}
