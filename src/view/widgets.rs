//! Pieces that several screens draw.

pub mod cursor;
pub mod editor;
pub mod field;
pub mod json;
pub mod sparkline;
