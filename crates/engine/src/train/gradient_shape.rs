//! Recomputes a gradient in a smaller shape on out-of-memory.

use std::cell::Cell;

use super::error::TrainError;
use crate::facts::AlertLevel;
use crate::files::fails_at;
use crate::kernels::cuda_errors::{GpuFailure, is_out_of_memory};
use crate::plan::StepShape;
use crate::run::events::Alert;

/// Range of a gradient's micro-batch sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Minimum, in tokens.
    pub(super) longest_sequence: usize,
    /// Maximum, in tokens.
    pub(super) all: usize,
}

/// Computes a gradient in `shape`, read by `attempt`, and in ever smaller ones on out-of-memory;
/// `is_any` says whether any rank ran out, `free` releases unused memory. `shape` keeps the one
/// that worked. A failed `attempt` must not change anything.
///
/// # Errors
/// [`TrainError::OutOfMemory`] if the smallest shape does not fit; other errors of `attempt` and
/// `is_any`.
pub(super) fn retry_smaller<R>(
    shape: &Cell<StepShape>,
    extent: Extent,
    is_any: impl Fn(bool) -> Result<bool, TrainError>,
    mut free: impl FnMut(),
    mut attempt: impl FnMut() -> candle_core::Result<R>,
) -> Result<R, TrainError> {
    loop {
        let error = match attempt() {
            Ok(result) if !is_any(false)? => return Ok(result),
            Ok(_) => "on another rank".to_owned(),
            Err(error) if is_out_of_memory(&error) => {
                is_any(true)?;
                error.to_string()
            }
            Err(error) => return Err(error.into()),
        };
        free();
        let tokens_per_micro_batch = shape.get().tokens_per_micro_batch.min(extent.all);
        match (StepShape {
            tokens_per_micro_batch,
            ..shape.get()
        })
        .smaller(extent.longest_sequence)
        {
            Some(smaller) => shape.set(smaller),
            None => {
                return Err(TrainError::OutOfMemory {
                    tokens: extent.longest_sequence,
                    error,
                });
            }
        };
    }
}

/// # Errors
/// Out of memory on `rank`, on a test's request.
pub(super) fn memory_point(rank: usize) -> candle_core::Result<()> {
    if !fails_at("gradient.memory", &rank.to_string()) {
        return Ok(());
    }
    let operation = format!("the gradient of rank {rank}");
    let cause = "a test takes its memory".to_owned();
    Err(candle_core::Error::Cuda(Box::new(GpuFailure {
        operation,
        cause,
        is_out_of_memory: true,
    })))
}

/// Alert after a retry; `None` if the shape is unchanged.
pub(super) fn shrunk(step: u64, before: StepShape, after: StepShape) -> Option<Alert> {
    if before == after {
        return None;
    }
    let sentence =
        format!("GPU out of memory with {before}; the step was recomputed with {after}.");
    let suggestion = format!(
        "Only time is lost. To avoid it: recompute_activations = {}, tokens_per_micro_batch = {}.",
        if after.recompute { "always" } else { "never" },
        after.tokens_per_micro_batch
    );
    Some(Alert::new(
        "out_of_memory",
        AlertLevel::Warning,
        step,
        sentence,
        suggestion,
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const EXTENT: Extent = Extent {
        longest_sequence: 900,
        all: 5000,
    };

    fn out_of_memory() -> candle_core::Error {
        let (operation, cause) = ("swiglu".to_owned(), "out of memory".to_owned());
        candle_core::Error::Cuda(Box::new(GpuFailure {
            operation,
            cause,
            is_out_of_memory: true,
        }))
    }

    /// Shapes tried when memory runs out `failures` times, and the result.
    fn tried(
        start: StepShape,
        failures: usize,
    ) -> (Vec<(usize, bool)>, usize, Result<StepShape, TrainError>) {
        let (shape, mut seen, mut freed) = (Cell::new(start), Vec::new(), 0);
        let result = retry_smaller(
            &shape,
            EXTENT,
            Ok,
            || freed += 1,
            || {
                seen.push((shape.get().tokens_per_micro_batch, shape.get().recompute));
                if seen.len() <= failures {
                    Err(out_of_memory())
                } else {
                    Ok(shape.get())
                }
            },
        );
        if let Ok(found) = result {
            assert_eq!(found, shape.get(), "the shape that worked stays");
        }
        (seen, freed, result)
    }

    #[test]
    fn the_same_work_is_tried_in_smaller_shapes() {
        let start = StepShape {
            tokens_per_micro_batch: 8192,
            recompute: false,
        };
        let check = |failures, expected: &[(usize, bool)]| {
            let (seen, freed, result) = tried(start, failures);
            assert_eq!((seen.as_slice(), freed), (expected, failures));
            assert!(result.is_ok());
        };
        check(0, &[(8192, false)]);
        check(1, &[(8192, false), (5000, true)]);
        check(2, &[(8192, false), (5000, true), (2500, true)]);
        check(
            4,
            &[
                (8192, false),
                (5000, true),
                (2500, true),
                (1250, true),
                (900, true),
            ],
        );
        let (seen, freed, result) = tried(start, 99);
        assert_eq!((seen.len(), freed), (5, 5));
        let message = result.unwrap_err().to_string();
        assert!(
            message.contains("900 tokens") && message.contains("max_completion_tokens"),
            "{message}"
        );
    }

    #[test]
    fn other_errors_end_it_at_once() {
        let shape = Cell::new(StepShape {
            tokens_per_micro_batch: 8192,
            recompute: false,
        });
        let mut count = 0;
        let result: Result<(), _> = retry_smaller(
            &shape,
            EXTENT,
            Ok,
            || {},
            || {
                count += 1;
                Err(candle_core::Error::Msg(
                    "DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"...\")".to_owned(),
                ))
            },
        );
        assert!(result.unwrap_err().to_string().contains("ILLEGAL_ADDRESS") && count == 1);
        assert_eq!(
            shape.get(),
            StepShape {
                tokens_per_micro_batch: 8192,
                recompute: false,
            }
        );
    }

    #[test]
    fn what_changed_is_told_once() {
        let before = StepShape {
            tokens_per_micro_batch: 8192,
            recompute: false,
        };
        assert_eq!(shrunk(3, before, before), None);
        let alert = shrunk(
            3,
            before,
            StepShape {
                tokens_per_micro_batch: 4096,
                recompute: true,
            },
        )
        .unwrap();
        assert!(
            alert.sentence.contains("8192 tokens with activations kept")
                && alert
                    .sentence
                    .contains("4096 tokens with activations recomputed")
        );
        assert!(
            alert
                .suggestion
                .contains("recompute_activations = always, tokens_per_micro_batch = 4096")
                && alert.step == 3
        );
    }
}
