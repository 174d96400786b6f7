//! A turn with tools or an agent as text: what was asked, what the model wrote, and what each call replied.

use crate::environment::{AgentRequest, AnsweredCall, CallOutcome, ToolChain};
use crate::format::counted;

/// One block a completion that calls tools or that an agent continued, then the replies that were not read; empty where
/// nothing was called.
pub fn chain_text(chain: &ToolChain) -> String {
    let mut text = String::new();
    let asked = |number: usize| {
        chain
            .agent
            .as_ref()
            .and_then(|agent| agent.requests.get(number))
    };
    for (number, step) in chain.steps.iter().enumerate() {
        text.extend(asked(number).map(|request| asked_text(number, request)));
        text.push_str(step.text.trim_end());
        text.push('\n');
        text.extend(step.calls.iter().map(|call| call_text("->", call)));
    }
    text.extend(
        chain
            .last_calls
            .iter()
            .map(|call| call_text("-> not read:", call)),
    );
    text.extend(asked(chain.steps.len()).map(|request| asked_text(chain.steps.len(), request)));
    text
}

/// `3 calls`; of an agent also its requests.
pub fn chain_counts(chain: &ToolChain) -> String {
    let calls = chain.calls().count();
    let Some(agent) = &chain.agent else {
        return counted(calls, "call");
    };
    let branches = match agent.branches() {
        0 | 1 => String::new(),
        several => format!(" in {several} branches"),
    };
    let calls = if calls > 0 {
        format!(", {}", counted(calls, "call"))
    } else {
        String::new()
    };
    format!(
        "{}{branches}{calls}",
        counted(agent.requests.len(), "request")
    )
}

/// What a request after the first adds to the conversation. Results of tools are replies to calls.
fn asked_text(number: usize, request: &AgentRequest) -> String {
    if number == 0 {
        return String::new();
    }
    let place = match (&request.follows, &request.split) {
        (Some(earlier), _) if *earlier + 1 == number => String::new(),
        (Some(earlier), _) => format!("== after request {}\n", earlier + 1),
        (None, None) => "== a branch of its own\n".to_owned(),
        (None, Some(why)) => format!("== a branch of its own: {why}\n"),
    };
    let own = request
        .messages
        .iter()
        .filter(|message| message.role != "tool");
    let lines = own.map(|message| format!("<- {}: {}\n", message.role, message.content.trim_end()));
    place + &lines.collect::<String>()
}

fn call_text(mark: &str, call: &AnsweredCall) -> String {
    let outcome = match call.outcome {
        CallOutcome::Answered => "",
        CallOutcome::Refused => " (refused)",
        CallOutcome::Failed => " (failed)",
        CallOutcome::NotRecorded => " (not recorded)",
    };
    format!("{mark} {}{outcome}: {}\n", call.name, call.reply)
}
