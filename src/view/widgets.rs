//! Pieces that several screens draw.

pub mod cursor;
pub mod field;
pub mod json;
pub mod sparkline;
