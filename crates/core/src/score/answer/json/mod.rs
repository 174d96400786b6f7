//! Strict JSON (RFC 8259, ECMA-404); every value keeps its position in the text.

mod format;
mod parse;
pub(crate) mod position;
mod syntax;
mod value;

pub use crate::json_number::Number;
pub use format::format;
pub use parse::{Document, DuplicateKey, parse, parse_prefix};
pub use position::{Place, Places};
pub use syntax::{MAX_DEPTH, Syntax, SyntaxError};
pub use value::{Kind, Member, Object, Value};
