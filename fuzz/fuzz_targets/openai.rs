//! Any bytes as a body of OpenAI's API: a request within its limits, or a refusal that names what is wrong.
#![no_main]

use std::time::{Duration, Instant};

use grpo_tui::openai::{Api, GenerationRequest, Prompt, ToolChoice};
use libfuzzer_sys::fuzz_target;

const TIME_LIMIT: Duration = Duration::from_secs(2);

fuzz_target!(|bytes: &[u8]| {
    for api in [Api::Chat, Api::Completions] {
        let began = Instant::now();
        match GenerationRequest::parse(api, bytes) {
            Ok(request) => {
                assert!((1..=128).contains(&request.samples) && request.stop.len() <= 16);
                assert!(request.temperature == 0.0 || (0.01..=2.0).contains(&request.temperature));
                assert!(
                    request.max_tokens != Some(0)
                        && request.stop.iter().all(|stop| !stop.is_empty())
                );
                assert!(request.stream || !request.include_usage);
                match request.prompt {
                    Prompt::Chat {
                        messages, tools, ..
                    } => {
                        assert!(api == Api::Chat && !messages.is_empty());
                        if let Some(tools) = tools {
                            let names: Vec<_> = tools
                                .list
                                .as_array()
                                .into_iter()
                                .flatten()
                                .map(|tool| tool["function"]["name"].as_str())
                                .collect();
                            assert!(
                                !names.is_empty()
                                    && tools.strict.iter().all(|name| names.contains(&Some(name)))
                            );
                            if let ToolChoice::Function(name) = &tools.choice {
                                assert!(names.contains(&Some(name)));
                            }
                        }
                    }
                    Prompt::Texts(texts) => assert!(api == Api::Completions && !texts.is_empty()),
                }
            }
            Err(error) => {
                assert!(
                    error.status == 400 && !error.message.is_empty() && error.message.len() < 2000,
                    "{error:?}"
                );
                assert!(error.json()["error"]["type"].is_string());
            }
        }
        assert!(began.elapsed() < TIME_LIMIT);
    }
});
