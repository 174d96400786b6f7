//! Tests: command_line.
