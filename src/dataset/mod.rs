//! Prompt rows.
