//! grpo-tui: make a language model's structured output reliable. The modules, in the order in which data flows; a
//! module uses only modules above it.

// Without tensors or a terminal:
pub mod format; // numbers as text for people: percentages, bytes, times, counts, ids
pub mod files; // opening what others may have written: regular files only, bounded, inside their folder; atomic writes
pub mod config; // the table of keys: type, range, default, meaning, presets
pub mod secrets; // a deterministic scan of what would leave the machine
#[cfg(feature = "download")]
mod http; // one server: origin, agent, failures as sentences
pub mod hub; // finding a model: a folder, the Hugging Face cache, the embedded bytes
pub mod task; // task.toml: schema, tiers, think-block rules, prompt sets
pub mod text; // tokenizer, chat template, stop ids
pub mod dataset; // prompt rows: reading, health, order, generator
pub mod score; // completion + row -> score
pub mod statistics; // Wilson's and Bonett-Price intervals, exact McNemar, p^k
pub mod advantage; // rewards of a group -> advantages
pub mod plan; // a model's shape and a configuration -> memory, time, disk; learnability
pub mod run; // the run directory: the only interface between a worker and its viewers
pub mod report; // a run as one HTML file, CSV or JSON lines
pub mod openai; // OpenAI's HTTP API: bodies -> requests, answers -> JSON
#[cfg(feature = "download")]
pub mod endpoint; // prompts -> answers of an OpenAI-compatible server
pub mod study; // sweeps and studies: settings -> runs -> one table

// The engine:
#[cfg(feature = "engine")]
pub use grpo_tui_kernels as kernels; // fused operations with their backward, one per file: a crate, see its Cargo.toml
#[cfg(feature = "engine")]
pub mod model; // tokens -> logits: the decoder, adapters, weights
#[cfg(feature = "engine")]
pub mod ranks; // processes that compute one run together
#[cfg(feature = "engine")]
pub mod constraint; // what a task takes as an answer -> the tokens that may come next
#[cfg(feature = "engine")]
pub mod rollout; // prompts -> groups of completions
#[cfg(feature = "engine")]
pub mod policy; // a model that converses: prompts -> conversations with scores
#[cfg(feature = "engine")]
pub mod update; // one optimizer step: log-probs, losses, KL, AdamW
#[cfg(feature = "engine")]
pub mod checkpoint; // atomic save and exact resume
#[cfg(feature = "engine")]
pub mod eval; // targets on held-out prompts
#[cfg(feature = "engine")]
pub mod train; // the loops
#[cfg(feature = "engine")]
pub mod bench; // the speed of a machine
#[cfg(feature = "serve")]
pub mod serve; // OpenAI-compatible server

// The front end:
#[cfg(feature = "view")]
pub mod view; // the terminal workbench: model, update, draw, screens
pub mod cli; // one file per subcommand
