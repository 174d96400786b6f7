//! Pieces that several screens draw.

pub mod amount;
pub mod chart;
pub mod cursor;
pub mod difference;
pub mod editor;
pub mod field;
pub mod fit;
pub mod gauge;
pub mod histogram;
pub mod json;
pub mod sparkline;
pub mod stack;
