//! One base with several adapters beside it: its weights are in memory once, and each row of a batch uses its own adapter
//! or none.

use super::locate::{adapter_base, read_adapter};
use super::{ModelLocation, OpenModel, StartError};
use crate::config::BasePrecision;
use crate::kernels::device::Engine;
use crate::model::Decoder;
use crate::run::RunFolders;
use crate::text::Tokenizer;

/// A loaded base with one or several adapters that rows choose from.
#[derive(Debug)]
pub struct SharedBase {
    pub model: Decoder,
    pub tokenizer: Tokenizer,
    /// Numbers of each adapter in the rank; 0: there is at most one, and every row uses it.
    pub adapter_slot: usize,
    /// The adapter of the model that was named first.
    pub own: Option<u32>,
    /// The adapters of the other models, in order.
    pub others: Vec<u32>,
}

impl SharedBase {
    /// Opens a located model and the adapters `others` (M of each), which must be of the same base. `uses_base`: rows may
    /// also be of the base alone, without the model's own adapter. `precision`: of the base; `None`: that of its run.
    ///
    /// # Errors
    /// [`StartError`], also for an M that is no adapter of this base.
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

/// SHA-256 of what the adapter stands beside, or of the model itself where it is no adapter.
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
