//! One turn of a conversation.

use serde::{Deserialize, Serialize};

/// A turn: who speaks (`system`, `user`, `assistant`, `tool`) and what is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: String,
    /// What is said.
    pub content: String,
}
