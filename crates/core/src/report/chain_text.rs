//! The calls of a turn with tools as text: what the model wrote, and what each call replied.

use crate::environment::{CallOutcome, ToolChain};

/// One block a completion that calls tools; empty where none does.
pub fn chain_text(chain: &ToolChain) -> String {
    let mut text = String::new();
    for step in &chain.steps {
        text.push_str(step.text.trim_end());
        text.push('\n');
        for call in &step.calls {
            let outcome = match call.outcome {
                CallOutcome::Answered => "",
                CallOutcome::Refused => " (refused)",
                CallOutcome::Failed => " (failed)",
            };
            text.push_str(&format!("-> {}{outcome}: {}\n", call.name, call.reply));
        }
    }
    text
}
