//! What grpo-tui does without tensors and without a terminal. The modules, in the order in which data flows; a module
//! uses only modules above it.

pub mod format; // numbers as text for people: percentages, bytes, times, counts, ids
pub mod json_number; // a number of JSON as written, of any size
pub mod exact_json; // JSON text -> values and back, numbers not rounded
pub mod files; // opening what others may have written: regular files only, bounded, inside their folder; atomic writes
pub mod config; // the table of keys: type, range, default, meaning, presets
pub mod facts; // what records say, as closed sets of words
pub mod secrets; // a deterministic scan of what would leave the machine
pub mod page; // what reports say: blocks of typed cells -> terminal text, Markdown, HTML
pub mod http; // one server: origin, agent, failures as sentences
pub mod hub; // finding a model: a folder, the Hugging Face cache, the embedded bytes
pub mod schema_keywords; // the keywords of JSON Schema: what each holds, means and constrains; one visitor of schemas
pub mod task; // a task's folder: files, prompt sets, and what task.toml says whatever judges answers
pub mod text; // tokenizer, chat template, stop ids
pub mod dataset; // prompt rows: reading, health, order
pub mod api_client; // an OpenAI-compatible server: its definition, one request
pub mod sandbox; // a program apart from the user's files, processes and network, with limits
mod sqlite; // a database in memory, with bounds on what statements take
pub mod environment; // tools that a model calls while it converses: one state a conversation
pub mod score; // a task, read by its kind of scorer; completion + row -> score
pub mod propose; // labelled rows -> likely values of the fields of others
pub mod confidence; // how sure a model is of each value of a JSON answer
pub mod prompts; // prompt rows in use: rendered, counted, checked, answered by hand, joined with completions
pub mod help; // a definition under edit -> its problems, each with its place
pub mod statistics; // Wilson's and Bonett-Price intervals, exact McNemar, p^k
pub mod advantage; // rewards of a group -> advantages
pub mod plan; // a model's shape and a configuration -> memory, time, disk; learnability
pub mod run; // the run directory: the only interface between a worker and its viewers
pub mod report; // a run as one HTML file, CSV or JSON lines
pub mod openai; // OpenAI's HTTP API: bodies -> requests, answers -> JSON
pub mod endpoint; // prompts -> answers of an OpenAI-compatible server
pub mod prove; // a server compared with a run: what differs, and why
pub mod study; // sweeps: settings -> runs -> one table

#[cfg(test)]
use crate::sandbox::launch_if_asked;
#[cfg(test)]
#[path = "../../../tests/own_home.rs"]
mod own_home;
