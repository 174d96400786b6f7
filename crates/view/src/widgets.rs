//! Widgets that several screens draw.

pub mod bars;
pub mod chart;
pub mod check_list;
pub mod confidence;
pub mod conversation;
pub mod diff;
pub mod editor;
pub mod field;
pub mod filter;
pub mod grounded;
pub mod json;
pub mod list_cursor;
pub mod pattern_filter;
pub mod stacked_bar;
pub mod text_value;
pub mod text_width;
