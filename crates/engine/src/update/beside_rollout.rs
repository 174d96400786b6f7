//! Gradients computed while a rollout runs: on a thread of their own, on a GPU in a stream of lower
//! priority.

use std::time::Instant;

use candle_core::{Error, Result};

use super::PolicyUpdate;
use crate::kernels::device::Engine;
use crate::model::{Decoder, Gradients};

/// The model on a GPU's second stream. Shares the weights' memory: the model must outlive
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
        let model = model.on_stream(&engine.device)?;
        Ok(Some(Self { engine, model }))
    }
}

/// As the pool of threads has it: tapes in tests recurse deeply.
const STACK_BYTES: usize = 64 << 20;

/// Results of [`update_beside`].
#[derive(Debug)]
pub struct BesideRollout<R, U> {
    pub rollout: R,
    /// The gradient so far, to continue with on the calling thread.
    pub update: Result<PolicyUpdate>,
    /// What `update` returned besides.
    pub other: U,
    /// Time from the rollout's end to that of the update's last part.
    pub seconds_after: f64,
}

/// Runs `rollout` on this thread and `update` on another, which gets the model and a sum of zeros to
/// begin with, and must return soon after `rollout` did.
pub fn update_beside<R, U: Send>(
    (engine, model): (&Engine, &Decoder),
    stream: Option<&SecondStream>,
    update: impl FnOnce(&Decoder, Gradients) -> (Result<PolicyUpdate>, U) + Send,
    rollout: impl FnOnce() -> R,
) -> Result<BesideRollout<R, U>> {
    let sum = Gradients::zeros(model.parameters())?;
    let (device, model) = stream.map_or((&engine.device, model), |stream| {
        (&stream.engine.device, &stream.model)
    });
    let begun = sum.on_stream(device)?;
    // Weights and zeros are written; until both have ended, nobody writes weights.
    engine.synchronize()?;
    std::thread::scope(|scope| {
        let updating = std::thread::Builder::new()
            .name("update".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, move || update(model, begun))
            .map_err(Error::wrap)?;
        let (rollout, ended) = (rollout(), Instant::now());
        let updated = updating.join();
        // Also after a panic: the sum's memory is freed in the other stream's order.
        let synchronized = stream.map_or(Ok(()), |stream| stream.engine.synchronize());
        // Propagates a thread's panic.
        let (update, other) = updated.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(BesideRollout {
            rollout,
            update: synchronized.and(update).map(|update| update.with_sum(sum)),
            other,
            seconds_after: ended.elapsed().as_secs_f64(),
        })
    })
}
