//! How the leaves of an answer compare with the expected ones: what is recorded of them.

use serde::{Deserialize, Serialize};

use super::ordered_map::OrderedMap;

/// How the leaves at a path (`lines.*.amount`) compare with the expected ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LeafCounts {
    #[serde(skip_serializing_if = "is_zero")]
    pub right: u32,
    /// Another value.
    #[serde(skip_serializing_if = "is_zero")]
    pub wrong: u32,
    /// A value is expected, and there is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub missed: u32,
    /// No value is expected, and there is one.
    #[serde(skip_serializing_if = "is_zero")]
    pub invented: u32,
    /// No value is expected, and there is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub absent: u32,
    /// Places where null, or what is one state with it, is expected.
    #[serde(skip_serializing_if = "is_zero")]
    pub blank: u32,
    /// Such places that have a value.
    #[serde(skip_serializing_if = "is_zero")]
    pub filled: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for it
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl std::ops::AddAssign for LeafCounts {
    fn add_assign(&mut self, other: Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.missed += other.missed;
        self.invented += other.invented;
        self.absent += other.absent;
        self.blank += other.blank;
        self.filled += other.filled;
    }
}

impl LeafCounts {
    /// What is not right, in words; `None` if nothing is wrong.
    pub fn faults(&self) -> Option<String> {
        let counted = [
            (self.wrong, "wrong"),
            (self.missed, "missed"),
            (self.invented, "invented"),
        ];
        let words: Vec<String> = counted
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// The leaves of one answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Leaves {
    /// What they earn, in [0, 1].
    pub credit: f64,
    /// By path.
    pub counts: OrderedMap<LeafCounts>,
    /// Each value that the answer states: its first byte, and whether it is right. Not recorded.
    #[serde(skip)]
    pub outcomes: Vec<(usize, bool)>,
}

impl PartialEq for Leaves {
    /// By what is recorded.
    fn eq(&self, other: &Self) -> bool {
        (self.credit, &self.counts) == (other.credit, &other.counts)
    }
}
