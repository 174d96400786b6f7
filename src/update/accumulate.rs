//! Gradients of micro-batches summed in the order of the micro-batches, whatever the number of threads.

use candle_core::Result;

use super::MicroBatch;
use crate::model::{Decoder, Gradients};
use crate::rollout::ThreadPool;

/// The sum of what `work` adds for each micro-batch, and what else it found, in order.
pub(super) fn sum_gradients<R: Send>(
    model: &Decoder,
    micro_batches: &[MicroBatch],
    threads: &ThreadPool,
    work: impl Fn(&MicroBatch, &mut Gradients) -> Result<R> + Sync + Send,
) -> Result<(Gradients, Vec<R>)> {
    let mut sum = Gradients::zeros(model.parameters())?;
    let mut found = Vec::with_capacity(micro_batches.len());
    // A GPU computes one after the other: they share the one buffer, which may be as large as all weights.
    if !model.device().is_cpu() {
        for micro_batch in micro_batches {
            threads.check()?;
            found.push(work(micro_batch, &mut sum)?);
        }
        return Ok((sum, found));
    }
    // A wave at a time, so that there are never more buffers than threads.
    for wave in micro_batches.chunks(threads.count()) {
        let results = threads.map(wave, |micro_batch| {
            let mut gradients = Gradients::zeros(model.parameters())?;
            let part = work(micro_batch, &mut gradients)?;
            Ok((gradients, part))
        })?;
        for (gradients, part) in results {
            sum.add_all(&gradients)?;
            found.push(part);
        }
    }
    Ok((sum, found))
}
