//! Gradients computed while a rollout runs: on a thread of their own, on a GPU in a stream of lower
//! priority.

use candle_core::{Error, Result};

use super::PolicyUpdate;
use crate::kernels::device::Engine;
use crate::model::{Decoder, Gradients};

/// The model as seen from a GPU's second stream. Shares the weights' memory: the model must outlive
/// it.
#[derive(Debug)]
pub struct SecondStream {
    engine: Engine,
    model: Decoder,
}

impl SecondStream {
    /// `None` on a CPU, which needs none.
    pub fn open(engine: &Engine, model: &Decoder) -> Result<Option<Self>> {
        let Some(engine) = engine.second_stream()? else {
            return Ok(None);
        };
        let model = model.seen_from(&engine.device)?;
        Ok(Some(Self { engine, model }))
    }
}

/// A tape of a test recurses deeply.
const STACK_BYTES: usize = 64 << 20;

/// Runs `rollout` on this thread and `update` on another, which gets the model and a sum of zeros to
/// begin with. `update` must return soon after `rollout` did. Returns the results of both, and the
/// gradient to continue with on this thread.
pub fn update_beside<R, U: Send>(
    (engine, model): (&Engine, &Decoder),
    stream: Option<&SecondStream>,
    update: impl FnOnce(&Decoder, Gradients) -> (Result<PolicyUpdate>, U) + Send,
    rollout: impl FnOnce() -> R,
) -> Result<(R, Result<PolicyUpdate>, U)> {
    let sum = Gradients::zeros(model.parameters())?;
    let (device, model) = stream.map_or((&engine.device, model), |stream| {
        (&stream.engine.device, &stream.model)
    });
    let begun = sum.seen_from(device)?;
    // Weights and zeros are written; until both have ended, nobody writes weights.
    engine.synchronize()?;
    let (rollout, (update, result)) = std::thread::scope(|scope| {
        let updating = std::thread::Builder::new()
            .name("update".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, move || {
                let (update, result) = update(model, begun);
                let synchronized = stream.map_or(Ok(()), |stream| stream.engine.synchronize());
                (
                    update.and_then(|update| synchronized.map(|()| update)),
                    result,
                )
            })
            .map_err(Error::wrap)?;
        let rollout = rollout();
        let updated = updating.join();
        // Propagates a thread's panic.
        let updated = updated.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, Error>((rollout, updated))
    })?;
    Ok((rollout, update.map(|update| update.with_sum(sum)), result))
}
