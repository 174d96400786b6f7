//! A task's folder: the parts of `task.toml` common to all scorers, prompt sets, referenced files.

mod embedded;
mod error;
mod leaf_rules;
mod mixed_names;
mod normalisations;
mod parse;
mod references;
mod resolve;
mod source;
mod task_files;
mod template_kwargs;
mod toml_section;
mod tools;

pub use embedded::template_names;
pub(crate) use embedded::{MODELS, find_template};
pub(crate) use error::Read;
pub use error::{TASK_FILE, TaskError};
pub use leaf_rules::{LeafRules, Tolerance};
pub(crate) use mixed_names::TASK_METRIC;
pub use mixed_names::{
    AlertRule, SetName, split_set_prompt, split_task_metric, task_metric, task_prompt,
};
pub(crate) use normalisations::read_normalisations;
pub use normalisations::{ALL_FIELDS, Normalisation, Normalisations};
pub(crate) use parse::{read_reward, read_rules};
pub(crate) use references::follow_references;
pub use references::{
    decode_path, encode_path, encode_reference, escaped, referenced_part, unescaped,
};
pub(crate) use resolve::{find_embedded, find_home};
pub use resolve::{folder_of, known_names};
pub(crate) use source::Home;
pub use task_files::{PromptFiles, PromptSet, ScoreRules, TaskFiles, TierValues};
pub use template_kwargs::{TEMPLATE_KWARGS, refused_kwarg};
pub(crate) use toml_section::{Section, Source, finite_number};
pub use tools::{Function, ToolsError, functions};
