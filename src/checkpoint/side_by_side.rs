//! One base with several adapters beside it: its weights are in memory once, and each row of a batch uses its own adapter
//! or none.

use super::locate::{adapter_base, read_adapter};
use super::{Located, OpenModel, StartError};
use crate::kernels::device::Engine;
use crate::model::Decoder;
use crate::run::RunFolders;
use crate::text::Tokenizer;

#[derive(Debug)]
pub struct SharedBase {
    pub model: Decoder,
    pub tokenizer: Tokenizer,
    /// Numbers of each adapter in the rank; 0: there is at most one, and every row uses it.
    pub adapter_slot: usize,
    /// The adapter of the model that was named first.
    pub own: Option<u32>,
    /// Of the others, in order.
    pub others: Vec<u32>,
}

impl SharedBase {
    /// Opens a located model and the adapters `others` (M of each), which must be of the same base. `uses_base`: rows may
    /// also be of the base alone, without the model's own adapter.
    ///
    /// # Errors
    /// [`StartError`], also for an M that is no adapter of this base.
    pub fn open(
        located: Located,
        (others, uses_base): (&[String], bool),
        places: &RunFolders,
        engine: &Engine,
    ) -> Result<Self, StartError> {
        let base = base_digest(&located, places)?;
        let main = OpenModel::of(located, places)?;
        let tokenizer = Tokenizer::load(&main.source)?;
        if others.is_empty() && !(uses_base && main.adapter().is_some()) {
            let model = main.decoder(None, engine)?;
            return Ok(Self { model, tokenizer, adapter_slot: 0, own: None, others: Vec::new() });
        }
        let mut adapters = Vec::with_capacity(others.len());
        for name in others {
            let located = Located::find(name, places)?;
            let same = base_digest(&located, places)? == base;
            let refuse = |problem| StartError::NotBeside { name: name.clone(), problem };
            let Some(adapter) = OpenModel::of(located, places)?.adapter().cloned() else {
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
        Ok(Self { model, tokenizer, adapter_slot, own: (own > 0).then_some(0), others: numbers })
    }
}

/// SHA-256 of what the adapter stands beside, or of the model itself where it is no adapter.
fn base_digest(located: &Located, places: &RunFolders) -> Result<String, StartError> {
    match located {
        Located::Adapter(folder) => adapter_base(folder, &read_adapter(folder)?, places)?.digest(places),
        Located::Run { run, .. } if run.file().config.lora_rank > 0 => {
            Located::find(&run.file().config.base_model, places)?.digest(places)
        }
        Located::Model(_) | Located::Run { .. } => located.digest(places),
    }
}
