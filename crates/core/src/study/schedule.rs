//! Which run of a sweep comes next: a function of where its runs are.

use std::collections::BTreeSet;

use super::sweep::Sweep;
use super::table::RunPhase;
use crate::run::Status;

/// The next task of a sweep's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Start(usize),
    Resume(usize),
    Wait,
    Done,
}

/// Runs are begun in their order, at most `capacity` at once. `left`: the runs that this session leaves as they are.
pub fn next(sweep: &Sweep, phases: &[RunPhase], left: &BTreeSet<usize>, capacity: usize) -> Next {
    let computes =
        |phase: &&RunPhase| matches!(phase, RunPhase::Active(status) if *status != Status::Created);
    let active = phases.iter().filter(computes).count();
    let started = sweep.runs.iter().filter(|run| run.id.is_some()).count();
    let may_start = sweep.max_runs.is_none_or(|most| started < most);
    let mut waits = active > 0;
    for (index, phase) in phases
        .iter()
        .enumerate()
        .filter(|(index, _)| !left.contains(index))
    {
        let found = match phase {
            RunPhase::Active(Status::Created) | RunPhase::Interrupted(_) | RunPhase::Failed(_) => {
                Next::Resume(index)
            }
            RunPhase::Planned if may_start => Next::Start(index),
            _ => continue,
        };
        if active < capacity {
            return found;
        }
        waits = true;
    }
    if waits { Next::Wait } else { Next::Done }
}

#[cfg(test)]
mod tests {
    use super::super::sweep::tests::sweep;
    use super::*;

    #[test]
    fn runs_begin_in_order_where_a_device_is_free() {
        use RunPhase::{Failed, Finished, Interrupted, Planned};
        let running = || RunPhase::Active(Status::Running);
        let waiting = || RunPhase::Active(Status::Waiting);
        let stopped = || Interrupted(String::new());
        let failed = || Failed(String::new());
        let check = |phases: &[RunPhase], left: &[usize], capacity, expected| {
            let sweep = sweep(&["a", "b"], &[0, 1]);
            let found = next(&sweep, phases, &left.iter().copied().collect(), capacity);
            assert_eq!(found, expected, "{phases:?} without {left:?}");
        };
        check(
            &[Planned, Planned, Planned, Planned],
            &[],
            1,
            Next::Start(0),
        );
        check(&[running(), Planned, Planned, Planned], &[], 1, Next::Wait);
        check(&[waiting(), Planned, Planned, Planned], &[], 1, Next::Wait);
        check(
            &[running(), Planned, Planned, Planned],
            &[],
            2,
            Next::Start(1),
        );
        check(
            &[Finished, stopped(), Planned, Planned],
            &[],
            1,
            Next::Resume(1),
        );
        check(
            &[Finished, stopped(), Planned, Planned],
            &[1],
            1,
            Next::Start(2),
        );
        check(
            &[
                Finished,
                RunPhase::Active(Status::Created),
                Planned,
                Planned,
            ],
            &[],
            1,
            Next::Resume(1),
        );
        check(
            &[Finished, failed(), Finished, Finished],
            &[1],
            1,
            Next::Done,
        );
        check(
            &[Finished, failed(), Finished, Finished],
            &[],
            1,
            Next::Resume(1),
        );
        check(
            &[Finished, Finished, Finished, Finished],
            &[],
            1,
            Next::Done,
        );
    }

    #[test]
    fn no_more_runs_begin_than_asked_for() {
        let mut sweep = sweep(&["a", "b"], &[0]);
        sweep.max_runs = Some(1);
        sweep.runs[0].id = Some("x".to_owned());
        let none = BTreeSet::new();
        assert_eq!(
            next(&sweep, &[RunPhase::Finished, RunPhase::Planned], &none, 1),
            Next::Done
        );
        // One that has begun continues.
        assert_eq!(
            next(
                &sweep,
                &[RunPhase::Interrupted(String::new()), RunPhase::Planned],
                &none,
                1
            ),
            Next::Resume(0)
        );
    }
}
