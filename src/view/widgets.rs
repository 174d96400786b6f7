//! Pieces that several screens draw.

pub mod field;
