//! Prompts to groups of completions.
