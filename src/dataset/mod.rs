//! Prompt rows: reading them, their order in training, their health, and their generator.

mod build;
mod error;
pub mod generator;
pub mod health;
pub mod order;
mod random;
mod row;

pub use build::{Builder, BuiltSet};
pub use error::DatasetError;
pub use generator::{GeneratedRow, Generator, Stream};
pub use random::CounterRandom;
pub use row::{PromptRow, load, load_from, open, read_lines, read_rows};
