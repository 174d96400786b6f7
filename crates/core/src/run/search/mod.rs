//! Search: runs by a filter expression, texts in rollouts.

mod query;
mod rollout_search;

pub use query::{Comparison as QueryComparison, Field, Query};
pub use rollout_search::{SearchBatch, SearchHit, TextSearch, search_rollouts};
