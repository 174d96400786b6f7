//! Our decoder against candle-transformers, an independent implementation: log-probs decoded there a token at a time.

use grpo_tui::checkpoint::OpenModel;
use grpo_tui::eval::parity_with_candle;
use grpo_tui::hub::Architecture;
use grpo_tui::kernels::device::Engine;
use grpo_tui::run::RunFolders;

use super::decoder::{TOLERANCE, checkpoints};

#[test]
fn log_probs_equal_those_of_candle_transformers() {
    let mut compared = Vec::new();
    let run_folders = RunFolders::discover(None, std::path::Path::new("/"));
    for golden in checkpoints() {
        let model = OpenModel::find(golden.folder().to_str().unwrap(), &run_folders).unwrap();
        for sequence in golden
            .token_ids
            .iter()
            .filter(|sequence| sequence.len() > 1)
        {
            let Some(found) = parity_with_candle(&model, sequence, &Engine::cpu()).unwrap() else {
                continue;
            };
            assert_eq!(found.tokens, sequence.len() - 1);
            assert!(
                found.max_difference < f64::from(TOLERANCE) && found.holds(),
                "{}: {found:?}",
                golden.name
            );
            compared.push(model.config.architecture);
        }
    }
    for family in [
        Architecture::Qwen3,
        Architecture::Qwen2,
        Architecture::Llama,
    ] {
        assert!(compared.contains(&family), "{family:?} was not compared");
    }
}
