//! grpo-tui: make a language model's structured output reliable. Below the command line are three crates; each lists its
//! modules in the order in which data flows.

// Without tensors or a terminal: crates/core.
pub use grpo_tui_core::{
    advantage, confidence, config, dataset, environment, exact_json, facts, files, format, help,
    hub, openai, page, plan, prompts, propose, prove, report, run, sandbox, schema_keywords, score,
    secrets, statistics, study, task, text,
};
pub use grpo_tui_core::{api_client, endpoint};

// The engine: crates/engine.
#[cfg(feature = "engine")]
pub use grpo_tui_engine::serve;
#[cfg(feature = "engine")]
pub use grpo_tui_engine::{
    checkpoint, constraint, eval, kernels, leaf_confidence, model, policy, ranks, rollout, train,
    update,
};

// The front end:
#[cfg(feature = "view")]
pub use grpo_tui_view as view; // the terminal workbench: crates/view
pub mod cli; // one file per subcommand

#[cfg(test)]
use crate::sandbox::launch_if_asked;
#[cfg(test)]
#[path = "../tests/own_home.rs"]
mod own_home;
