//! Bounds one validation: each visit of a value is a step, each error takes bytes; exceeding either
//! ends it.

use std::cell::Cell;
use std::panic::resume_unwind;

use crate::text::catch_panic::catch_panic;

/// Cost of a listed key besides its text.
const KEY_BYTES: u64 = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Budget {
    /// Visits of values, and characters of long strings.
    pub(crate) steps: u64,
    /// Bytes of collected errors.
    pub(super) bytes: u64,
    /// Limit of one error; 0 if errors are not collected.
    pub(super) error_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BudgetExceeded {
    Steps,
    Bytes,
    /// Matching this (shortened) string against this pattern; `offset`: byte in the text (0 for a
    /// property's name).
    Pattern {
        pattern: String,
        found: String,
        offset: usize,
    },
    Panic,
}

impl Budget {
    const UNLIMITED: Self = Self {
        steps: u64::MAX,
        bytes: u64::MAX,
        error_bytes: 0,
    };
}

thread_local! {
    static LEFT: Cell<Budget> = const { Cell::new(Budget::UNLIMITED) };
    static REASON: Cell<Option<BudgetExceeded>> = const { Cell::new(None) };
}

/// Runs `work` within the budget. An exhausted budget ends the next validation at once.
pub(super) fn bounded<R>(
    budget: &mut Budget,
    work: impl FnOnce() -> R,
) -> Result<R, BudgetExceeded> {
    let before = LEFT.replace(*budget);
    REASON.set(None);
    let result = catch_panic(work).ok();
    *budget = LEFT.replace(before);
    result.ok_or_else(|| REASON.take().unwrap_or(BudgetExceeded::Panic))
}

#[inline]
pub(super) fn step() {
    steps(1);
}

#[inline]
pub(super) fn steps(count: u64) {
    // `set` would look the variable up again, in a call of its own.
    LEFT.with(|budget| {
        let left = budget.get();
        let steps = left.steps.checked_sub(count);
        budget.set(Budget {
            steps: steps.unwrap_or(0),
            ..left
        });
        if steps.is_none() {
            end(BudgetExceeded::Steps)
        }
    });
}

pub(super) fn error() {
    bytes(LEFT.get().error_bytes);
}

/// Charges a step, and the bytes of a key that an error may list.
pub(super) fn key(length: usize) {
    step();
    if LEFT.get().error_bytes > 0 {
        bytes(length as u64 + KEY_BYTES);
    }
}

fn bytes(count: u64) {
    let left = LEFT.get();
    match left.bytes.checked_sub(count) {
        Some(bytes) => LEFT.set(Budget { bytes, ..left }),
        None => end(BudgetExceeded::Bytes),
    }
}

/// Ends the validation on this thread. Unwinding is the only way out of the validator; it calls no
/// panic hook.
#[cold]
pub(super) fn end(reason: BudgetExceeded) -> ! {
    REASON.set(Some(reason));
    resume_unwind(Box::new(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_budget_ends_the_work_and_the_next_work() {
        let mut budget = Budget {
            steps: 10,
            bytes: 30,
            error_bytes: 10,
        };
        assert_eq!(bounded(&mut budget, || (0..9).for_each(|_| step())), Ok(()));
        assert_eq!(budget.steps, 1);
        assert_eq!(
            bounded(&mut budget, || steps(2)),
            Err(BudgetExceeded::Steps)
        );
        assert_eq!(bounded(&mut budget, step), Err(BudgetExceeded::Steps));
        assert_eq!(
            bounded(&mut budget, || (0..3).for_each(|_| error())),
            Ok(())
        );
        assert_eq!(bounded(&mut budget, error), Err(BudgetExceeded::Bytes));
        assert_eq!(
            bounded(&mut budget, || [0][std::hint::black_box(7)]),
            Err(BudgetExceeded::Panic)
        );
        step();
        assert!(
            LEFT.get().steps > u64::MAX / 2,
            "outside of a validation nothing is bounded"
        );
    }
}
