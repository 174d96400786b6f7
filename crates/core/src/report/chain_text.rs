//! The calls of a turn with tools as text: what the model wrote, and what each call replied.

use crate::environment::{AnsweredCall, CallOutcome, ToolChain};

/// One block a completion that calls tools, then the replies that were not read; empty where nothing was called.
pub fn chain_text(chain: &ToolChain) -> String {
    let mut text = String::new();
    for step in &chain.steps {
        text.push_str(step.text.trim_end());
        text.push('\n');
        text.extend(step.calls.iter().map(|call| call_text("->", call)));
    }
    text.extend(chain.last_calls.iter().map(|call| call_text("-> not read:", call)));
    text
}

fn call_text(mark: &str, call: &AnsweredCall) -> String {
    let outcome = match call.outcome {
        CallOutcome::Answered => "",
        CallOutcome::Refused => " (refused)",
        CallOutcome::Failed => " (failed)",
    };
    format!("{mark} {}{outcome}: {}\n", call.name, call.reply)
}
