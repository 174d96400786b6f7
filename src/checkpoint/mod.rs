//! Atomic save and exact resume.
