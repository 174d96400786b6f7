//! The health of prompt sets.
