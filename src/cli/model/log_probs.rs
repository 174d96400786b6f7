//! `grpo-tui model log-probs`: the log-probability of each given token after those before it, for comparing with other
//! programs.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{ModelArguments, check_vocabulary, open};
use crate::cli::{Failure, Outcome, print_json};
use crate::model::Adapters;
use crate::update::{log_probs, pack};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// PEFT adapter folder to apply
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Token ids, such as 1,2,3
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    token_ids: Vec<u32>,
    #[command(flatten)]
    compared: ModelArguments,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let engine = arguments.compared.engine()?;
    let loaded = open(&arguments.compared.model)?;
    check_vocabulary(&arguments.token_ids, loaded.config.vocab_size)?;
    let count = arguments.token_ids.len();
    let positions = loaded.config.max_position_embeddings;
    if count > positions {
        return Err(Failure::usage(format!(
            "--token-ids: {count} tokens are more than the model's {positions} positions; give fewer"
        )));
    }
    let model = loaded.decoder(arguments.adapter.as_deref(), &engine)?;
    let (first, rest) = arguments.token_ids.split_at(1);
    let mut found = Vec::with_capacity(rest.len());
    for micro_batch in pack([(first, vec![rest])], usize::MAX) {
        found.extend(
            log_probs(&model, &micro_batch, Adapters::On, 1.0)?
                .into_iter()
                .flatten()
                .map(|token| token.log_prob),
        );
    }
    if arguments.compared.json {
        print_json(serde_json::json!({ "log_probs": found }))?;
    } else {
        for (id, log_prob) in rest.iter().zip(&found) {
            println!("{id:>8}  {log_prob:.6}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
