//! Any text as a chat template, with messages after a line of `%%%`: an error or a prompt, in bounded time and length.
//!
//! The template engine's own limit lets one `*` make a text of 100 MB, so templates that hold numbers of five digits or more are left out: with a handful
//! of them every other finding would drown in exhausted memory.
#![no_main]

use std::time::{Duration, Instant};

use grpo_tui::text::{ChatTemplate, MAX_PROMPT_BYTES, Message, Thinking};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const TIME_LIMIT: Duration = Duration::from_secs(5);

fuzz_target!(init: forgive_the_engine(), |bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (source, messages) = text.split_once("\n%%%\n").unwrap_or((text, ""));
    if has_long_number(source) {
        return;
    }
    let began = Instant::now();
    let tokens = vec![("bos_token".to_owned(), "<s>".to_owned()), ("eos_token".to_owned(), "<|im_end|>".to_owned())];
    let template = match ChatTemplate::new(source, tokens, "chat_template.jinja") {
        Ok(template) => template,
        Err(error) => {
            assert!(error.to_string().starts_with("chat_template.jinja: "), "{error}");
            return;
        }
    };
    let turns = [("system", "Answer with JSON only."), ("user", "Text:\n1 <b> & \"2\" 🦀"), ("assistant", "<think>\nx\n</think>\n\n{}")];
    let turns = turns.map(|(role, content)| Message::new(role, content));
    let tools = json!([{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}}]);
    let given = serde_json::from_str::<Value>(messages)
        .unwrap_or_else(|_| json!([{"role": "user", "content": messages}, {"role": "tool", "content": null}]));
    let prompts = [
        template.render(&turns, Some(&tools), &Thinking::Off.into()),
        template.render_json(&given, &tools, Some(Thinking::On)),
        template.render_json(&given, &Value::Null, None),
    ];
    for prompt in prompts {
        match prompt {
            Ok(prompt) => assert!(prompt.len() <= MAX_PROMPT_BYTES, "a prompt of {} bytes", prompt.len()),
            Err(error) => assert!(error.to_string().starts_with("chat_template.jinja: "), "{error}"),
        }
    }
    assert!(began.elapsed() < TIME_LIMIT, "{:?} for {} bytes", began.elapsed(), bytes.len());
});

/// A panic inside the engine becomes an error of ours and so is no finding; any other ends the process, as always.
fn forgive_the_engine() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic
            .location()
            .is_some_and(|place| place.file().contains("/minijinja-"))
        {
            abort(panic);
        }
    }));
}

fn has_long_number(source: &str) -> bool {
    let digits: Vec<u8> = source.bytes().filter(|byte| *byte != b'_').collect();
    digits.windows(5).any(|window| {
        window.iter().all(u8::is_ascii_hexdigit) && window.iter().any(u8::is_ascii_digit)
    }) || source.contains("**")
}
