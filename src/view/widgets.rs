//! Pieces that several screens draw.

pub mod editor;
pub mod field;
