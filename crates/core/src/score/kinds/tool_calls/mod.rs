//! Judges function calls: whether they parse, fit the tools, and equal the expected ones.

pub(crate) mod asked_calls;
mod attempts;
mod block_reader;
mod calls;
mod compare;
mod definition;
mod formats;
mod judge;
mod known_formats;
mod partial_json;
mod reader;
mod syntax;
mod tools;

pub(crate) use asked_calls::calls_of_message;
pub use asked_calls::{AskedCalls, asked_calls, written_calls};
pub use block_reader::CallReader;
pub(super) use definition::KIND;
pub use known_formats::{call_layout, has_json_arguments, text_before_calls};
pub use reader::AnswerPart;
pub use syntax::{ArgumentLayout, CallLayout};
pub use tools::closed_parameters;
