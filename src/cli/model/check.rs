//! `grpo-tui model check`: compares our log-probs with those of another implementation.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{ModelArguments, check_vocabulary, open};
use crate::cli::{Failure, Outcome, print_json};
use crate::eval::parity_with_candle;
use crate::secrets::visible;
use crate::text::Tokenizer;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Text file to use instead of the built-in text
    #[arg(long, value_name = "FILE", conflicts_with = "token_ids")]
    text: Option<PathBuf>,
    /// Token ids to use instead of a text, such as 1,2,3
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    token_ids: Option<Vec<u32>>,
    /// Maximum tokens to compare
    #[arg(long, value_name = "N", default_value_t = 128)]
    tokens: usize,
    #[command(flatten)]
    compared: ModelArguments,
}

/// Prose, a document as in completions, numbers and another script.
const TEXT: &str = r#"The invoice was issued on 14 March 2024 by Nordwind Logistik GmbH and is due within thirty days.
{"vendor": "Nordwind Logistik GmbH", "amount": 1284.50, "currency": "EUR", "items": [{"name": "Seefracht", "quantity": 3}], "paid": false}
Überweisen Sie bitte auf das genannte Konto. 请在三十天内付款。 f(x) = 3x² − 7, so f(5) = 68."#;

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let ModelArguments {
        model: name, json, ..
    } = &arguments.compared;
    let engine = arguments.compared.engine()?;
    let model = open(name)?;
    let token_ids = token_ids(arguments, &model)?;
    let Some(found) = parity_with_candle(&model, &token_ids, &engine)? else {
        return Err(Failure::failed(format!(
            "{name}: candle-transformers does not support such a model (biases, or heads of another width than hidden_size / num_attention_heads): \
             there is nothing to compare with; scripts/golden compares with transformers"
        )));
    };
    let (device, dtype) = (engine.name(), format!("{:?}", engine.dtype).to_lowercase());
    if *json {
        let document = serde_json::json!({
            "model": name, "device": device, "dtype": dtype, "tokens": found.tokens,
            "max_difference": found.max_difference, "mean_difference": found.mean_difference,
            "max_allowed": found.max_allowed, "mean_allowed": found.mean_allowed, "ok": found.holds(),
        });
        print_json(document)?;
    } else {
        let verdict = if found.holds() {
            "agrees: difference within rounding"
        } else {
            "MISMATCH: difference beyond rounding; do not train this model"
        };
        let name = visible(name);
        println!(
            "{name} on {device} in {dtype}: log-probs of {} tokens here and in candle-transformers\n  \
             largest difference {:.2e} nats (allowed {:.0e}), mean {:.2e} (allowed {:.0e})\n  {verdict}",
            found.tokens,
            found.max_difference,
            found.max_allowed,
            found.mean_difference,
            found.mean_allowed
        );
    }
    Ok(if found.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn token_ids(
    arguments: &Arguments,
    model: &crate::checkpoint::OpenModel,
) -> Result<Vec<u32>, Failure> {
    let mut ids = match (&arguments.token_ids, &arguments.text) {
        (Some(ids), _) => ids.clone(),
        (None, path) => {
            let text = match path {
                None => TEXT.to_owned(),
                Some(path) => std::fs::read_to_string(path)
                    .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?,
            };
            Tokenizer::load(&model.source)?.encode(&text)?
        }
    };
    check_vocabulary(&ids, model.config.vocab_size)?;
    ids.truncate((arguments.tokens.saturating_add(1)).min(model.config.max_position_embeddings));
    if ids.len() < 2 {
        return Err(Failure::usage(
            "nothing to compare: give two tokens or more",
        ));
    }
    Ok(ids)
}
