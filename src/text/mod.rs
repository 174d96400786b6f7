//! Tokenizer and chat template.

mod message;

pub use message::Message;
