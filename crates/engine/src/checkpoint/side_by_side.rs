//! One base with several adapters: its weights are loaded once, and each row of a batch uses one
//! adapter or none.

use super::locate::{adapter_base, read_adapter};
use super::{ModelLocation, OpenModel, StartError};
use crate::config::BasePrecision;
use crate::kernels::device::Engine;
use crate::model::Decoder;
use crate::run::RunFolders;
use crate::text::Tokenizer;

/// A loaded base with adapters for rows to choose from.
#[derive(Debug)]
pub struct SharedBase {
    pub model: Decoder,
    pub tokenizer: Tokenizer,
    /// Rank of each adapter's slot; 0: at most one adapter, used by every row.
    pub adapter_slot: usize,
    /// Adapter of the first model.
    pub own: Option<u32>,
    /// Adapters of the other models, in order.
    pub others: Vec<u32>,
}

impl SharedBase {
    /// Opens a located model and the adapters `others` (M of each), which must have the same base.
    /// `uses_base`: rows may use the base without the model's own adapter. `precision`: of the
    /// base; `None`: that of its run.
    ///
    /// # Errors
    /// [`StartError`], also for an M that is not an adapter of this base.
    pub fn open(
        located: ModelLocation,
        (others, uses_base): (&[String], bool),
        precision: Option<BasePrecision>,
        run_folders: &RunFolders,
        engine: &Engine,
    ) -> Result<Self, StartError> {
        let base = base_digest(&located, run_folders)?;
        let mut main = OpenModel::from_location(located, run_folders)?;
        if let Some(precision) = precision {
            main = main.in_precision(precision);
        }
        let tokenizer = Tokenizer::load(&main.source)?;
        if others.is_empty() && !(uses_base && main.adapter().is_some()) {
            let model = main.decoder(None, engine)?;
            return Ok(Self {
                model,
                tokenizer,
                adapter_slot: 0,
                own: None,
                others: Vec::new(),
            });
        }
        let mut adapters = Vec::with_capacity(others.len());
        for name in others {
            let located = ModelLocation::find(name, run_folders)?;
            let same = base_digest(&located, run_folders)? == base;
            let refuse = |problem| StartError::NotBeside {
                name: name.clone(),
                problem,
            };
            let Some(adapter) = OpenModel::from_location(located, run_folders)?
                .adapter()
                .cloned()
            else {
                return Err(refuse("is no adapter (a LoRA run or a PEFT folder)"));
            };
            if !same {
                return Err(refuse("is an adapter of another base"));
            }
            adapters.push(adapter);
        }
        let own = u32::from(main.adapter().is_some());
        let numbers = (own..).take(adapters.len()).collect();
        let (model, adapter_slot) = main.decoder_with(adapters, engine)?;
        Ok(Self {
            model,
            tokenizer,
            adapter_slot,
            own: (own > 0).then_some(0),
            others: numbers,
        })
    }
}

/// SHA-256 of an adapter's base, or of the model itself.
fn base_digest(located: &ModelLocation, run_folders: &RunFolders) -> Result<String, StartError> {
    match located {
        ModelLocation::Adapter(folder) => {
            adapter_base(folder, &read_adapter(folder)?, run_folders)?.digest(run_folders)
        }
        ModelLocation::Run { run, .. } if run.file().config.lora_rank > 0 => {
            ModelLocation::find(&run.file().config.base_model, run_folders)?.digest(run_folders)
        }
        ModelLocation::Model(_) | ModelLocation::Run { .. } => located.digest(run_folders),
    }
}
