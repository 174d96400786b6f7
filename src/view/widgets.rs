//! Pieces that several screens draw.

pub mod amount;
pub mod chart;
pub mod cursor;
pub mod editor;
pub mod field;
pub mod gauge;
pub mod histogram;
pub mod json;
pub mod sparkline;
pub mod stack;
