//! Counts tokens of every row and checks the sets in the background, with the base model's tokenizer.

use std::sync::Arc;

use super::rows::{self, arrange, searched_texts};
use super::table_row::{Column, row};
use super::{Counter, Prompts, UNCOUNTABLE, preview};
use crate::config::{Layers, TrainConfig};
use crate::hub::find_model;
use crate::message::{Command, Work};
use crate::prompts::{check_prompts, prompt_tokens};
use crate::score::{Scorer, Task};
use crate::shared::Shared;
use crate::task_files::train_table;
use crate::text::Tokenizer;

/// Rows per update of the screen.
const CHUNK: usize = 500;

/// Builds the searched texts, loads the tokenizer, counts every row, checks the sets; each is shown as soon as it is there.
pub(super) fn count(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let entries = prompts.entries.clone();
    let searched = Arc::clone(&prompts.searched);
    let named = prompts.model.clone();
    prompts.health = None;
    prompts.groups = Vec::new();
    let work = Work::stream("prompts.count", move |sender| {
        searched.get_or_init(|| searched_texts(&open, &entries));
        let config = config(&open.task, named.as_deref());
        let counter = config.as_ref().map_err(Clone::clone).and_then(counter);
        let shown = counter.clone();
        let is_wanted = sender.send(move |prompts: &mut Prompts, shared| {
            prompts.counter = Some(shown);
            preview::show(prompts, shared)
        });
        if !is_wanted {
            return;
        }
        let tokenizer = counter.ok().map(|counter| counter.tokenizer);
        for (number, chunk) in entries.chunks(CHUNK).enumerate() {
            let Some(tokenizer) = &tokenizer else { break };
            let tokens: Vec<u32> = chunk
                .iter()
                .map(|entry| {
                    let counted = row(&open, *entry)
                        .and_then(|row| prompt_tokens(&open.task, tokenizer, row).ok());
                    counted.map_or(UNCOUNTABLE, |tokens| {
                        u32::try_from(tokens).unwrap_or(UNCOUNTABLE - 1)
                    })
                })
                .collect();
            let more = sender.send(move |prompts: &mut Prompts, _| {
                let at = number * CHUNK;
                if let Some(places) = prompts.tokens.get_mut(at..at + tokens.len()) {
                    places.copy_from_slice(&tokens);
                }
                Vec::new()
            });
            if !more {
                return;
            }
        }
        sender.send(|prompts: &mut Prompts, shared| {
            if prompts.sort.0 == Column::Tokens {
                arrange(prompts, shared)
            } else {
                Vec::new()
            }
        });
        let longest = config.map_or(usize::MAX, |config| config.max_seq_len);
        // Expected answers are checked by the schema in the editor.
        let health = check_prompts(&open.task, None::<&Scorer>, tokenizer.as_deref(), longest)
            .map_err(|error| error.to_string());
        sender.send(move |prompts: &mut Prompts, shared| {
            prompts.health = Some(health);
            rows::findings_changed(prompts, shared)
        });
    });
    vec![work]
}

fn config(task: &Task, model: Option<&str>) -> Result<TrainConfig, String> {
    let own = train_table(task)?;
    let layers = Layers {
        task: Some(own),
        set: model
            .iter()
            .map(|model| format!("base_model={model}"))
            .collect(),
        ..Layers::default()
    };
    Ok(layers.resolve().map_err(|error| error.to_string())?.config)
}

fn counter(config: &TrainConfig) -> Result<Counter, String> {
    let load = |name: &str| {
        let source = find_model(name).map_err(|error| error.to_string())?;
        Tokenizer::load(&source)
            .map(Arc::new)
            .map_err(|error| error.to_string())
    };
    let (name, max_seq_len) = (config.base_model.clone(), config.max_seq_len);
    let max_completion_tokens = config.max_completion_tokens;
    match load(&name) {
        Ok(tokenizer) => Ok(Counter {
            tokenizer,
            name,
            note: None,
            max_seq_len,
            max_completion_tokens,
        }),
        Err(error) => {
            let tokenizer = load("tiny").map_err(|_| error.clone())?;
            Ok(Counter {
                tokenizer,
                name: "tiny".to_owned(),
                note: Some(format!(
                    "{name} is not available locally: counting with `tiny`: {error}"
                )),
                max_seq_len,
                max_completion_tokens,
            })
        }
    }
}
