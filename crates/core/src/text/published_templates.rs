//! Compares published chat templates and tokenizers with transformers. They have their own licences
//! and are not in the repository: `scripts/peers published` collects them with the results.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::python_json::value_of;
use super::template_messages::json_messages;
use super::{ChatTemplate, Tokenizer};
use crate::hub::ModelSource;

#[derive(Deserialize)]
struct Golden {
    special_tokens: BTreeMap<String, String>,
    /// Result of `strftime_now`, as in `2025-08-06T09:05:03`.
    now: String,
    templates: Vec<Published>,
    tokenizers: Vec<PublishedTokenizer>,
}

#[derive(Deserialize)]
struct Published {
    file: String,
    template: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct PublishedTokenizer {
    folder: std::path::PathBuf,
    texts: Vec<(String, Vec<u32>)>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    messages: Json,
    tools: Json,
    options: Map<String, Json>,
    /// `None`: transformers rejects it.
    expected: Option<String>,
}

#[test]
#[ignore = "needs GRPO_PUBLISHED_TEMPLATES, the file that `scripts/peers published` writes"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
fn published_templates_render_as_in_transformers() {
    let path = std::env::var("GRPO_PUBLISHED_TEMPLATES").expect("GRPO_PUBLISHED_TEMPLATES");
    let golden: Golden =
        serde_json::from_reader(crate::files::open(path.as_ref()).unwrap()).unwrap();
    let now: jiff::civil::DateTime = golden.now.parse().unwrap();
    let now = now.to_zoned(jiff::tz::TimeZone::UTC).unwrap();
    let (mut count, mut differences) = (0, Vec::new());
    for Published {
        file,
        template,
        cases,
    } in golden.templates
    {
        let tokens = golden.special_tokens.clone().into_iter().collect();
        let mut template = ChatTemplate::new(&template, tokens, &file);
        if let Ok(template) = &mut template {
            template.set_time(&now);
        }
        for Case {
            name,
            messages,
            tools,
            options,
            expected,
        } in cases
        {
            count += 1;
            let shown = format!("{file}, {name}, {}", Json::from(options.clone()));
            let options = options
                .iter()
                .map(|(key, value)| (key.clone(), value_of(value)));
            let rendered = match &template {
                Ok(template) => {
                    template.render_values(json_messages(&messages), value_of(&tools), options)
                }
                Err(error) => {
                    differences.push(error.to_string());
                    break;
                }
            };
            match (rendered, expected) {
                (Ok(text), Some(expected)) if text == expected => {}
                (Err(_), None) => {}
                (rendered, expected) => {
                    differences.push(format!("{shown}: {rendered:?} instead of {expected:?}"))
                }
            }
        }
    }
    for PublishedTokenizer { folder, texts } in golden.tokenizers {
        let tokenizer = Tokenizer::load(&ModelSource::at("published", &folder)).unwrap();
        for (text, ids) in texts {
            count += 1;
            let found = tokenizer.encode(&text).unwrap();
            if found != ids {
                differences.push(format!(
                    "{}: {text:?}: {found:?} instead of {ids:?}",
                    folder.display()
                ));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {count} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}
