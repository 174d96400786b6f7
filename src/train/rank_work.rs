//! What each of several ranks did since the last step: its share of the work, its time, and its device.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use candle_core::Tensor;

use crate::kernels::device::Engine;
use crate::ranks::{Collectives, RankError, Ranks};
use crate::run::events::{Device, RankStep};

/// By rank; nothing for one rank.
#[derive(Debug, Default)]
pub(super) struct RankWork(RefCell<Vec<RankStep>>);

impl RankWork {
    pub(super) fn of(ranks: &Ranks) -> Self {
        let hosts = ranks.hosts().map(|host| RankStep { host: host.to_owned(), ..RankStep::default() });
        Self(RefCell::new(if ranks.size() > 1 { hosts.collect() } else { Vec::new() }))
    }

    /// Of an update that took `whole` seconds from the first command to the last reply. `seconds`: that each computed.
    pub(super) fn updated(&self, seconds: &[f64], whole: f64) {
        self.each(seconds, |rank, seconds| {
            rank.update_seconds += seconds;
            rank.waited_seconds += waited(*seconds, whole);
        });
    }

    pub(super) fn trained(&self, tokens: impl Iterator<Item = usize>) {
        self.each(&tokens.collect::<Vec<_>>(), |rank, tokens| rank.trained_tokens += tokens);
    }

    pub(super) fn observed(&self, conditions: &[Device]) {
        self.each(conditions, |rank, condition| rank.condition = condition.clone());
    }

    fn each<T>(&self, found: &[T], mut set: impl FnMut(&mut RankStep, &T)) {
        self.0.borrow_mut().iter_mut().zip(found).for_each(|(rank, found)| set(rank, found));
    }

    /// With that of `rollout`; counts from 0 again.
    pub(super) fn take(&self, rollout: &[RankStep]) -> Vec<RankStep> {
        let mut work = self.0.borrow_mut();
        let mut taken = work.clone();
        add(&mut taken, rollout);
        for rank in work.iter_mut() {
            let (host, condition) = (std::mem::take(&mut rank.host), std::mem::take(&mut rank.condition));
            *rank = RankStep { host, condition, ..RankStep::default() };
        }
        taken
    }
}

/// Of a rollout that took `whole` seconds. `sampled`: the tokens of each rank, and its seconds.
pub(super) fn of_rollout(sampled: &[(usize, f64)], whole: f64) -> Vec<RankStep> {
    let work = |&(sampled_tokens, rollout_seconds): &(usize, f64)| RankStep {
        sampled_tokens,
        rollout_seconds,
        waited_seconds: waited(rollout_seconds, whole),
        ..RankStep::default()
    };
    sampled.iter().map(work).collect()
}

/// By rank.
pub(super) fn add(to: &mut [RankStep], more: &[RankStep]) {
    for (to, more) in to.iter_mut().zip(more) {
        to.sampled_tokens += more.sampled_tokens;
        to.trained_tokens += more.trained_tokens;
        to.rollout_seconds += more.rollout_seconds;
        to.update_seconds += more.update_seconds;
        to.waited_seconds += more.waited_seconds;
    }
}

/// With so much of the time, but all tokens: those of what was decoded together.
pub(super) fn share_of_time(work: &[RankStep], share: f64) -> Vec<RankStep> {
    let part = |rank: &RankStep| RankStep {
        rollout_seconds: rank.rollout_seconds * share,
        update_seconds: rank.update_seconds * share,
        waited_seconds: rank.waited_seconds * share,
        ..rank.clone()
    };
    work.iter().map(part).collect()
}

/// What the alerts about ranks look at; nothing for one rank.
pub(super) fn rank_metrics(ranks: &[RankStep]) -> BTreeMap<String, f64> {
    let tokens: Vec<f64> = ranks.iter().map(|rank| (rank.sampled_tokens + rank.trained_tokens) as f64).collect();
    let seconds: Vec<f64> = ranks.iter().map(|rank| rank.rollout_seconds + rank.update_seconds).collect();
    let mut found = BTreeMap::new();
    let (most, all) = (tokens.iter().copied().fold(0.0, f64::max), tokens.iter().sum::<f64>());
    if ranks.len() > 1 && all > 0.0 {
        found.insert("ranks/imbalance".to_owned(), most * ranks.len() as f64 / all);
    }
    // The time of a rank over that of the others, as far as it has no more to compute than they have.
    let over_others = |of: &[f64], rank: usize| {
        let mut others: Vec<f64> =
            of.iter().copied().enumerate().filter(|(at, _)| *at != rank).map(|(_, of)| of).collect();
        others.sort_by(f64::total_cmp);
        let middle = others.get(others.len() / 2).copied().unwrap_or(0.0);
        (middle > 0.0).then(|| of[rank] / middle)
    };
    let slowdown = |rank| Some((rank, over_others(&seconds, rank)? / over_others(&tokens, rank)?.max(1.0)));
    let slowest = (0..ranks.len()).filter_map(slowdown).max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((rank, slowdown)) = slowest {
        found.insert("ranks/slowest".to_owned(), rank as f64);
        found.insert("ranks/slowdown".to_owned(), slowdown);
    }
    found
}

/// What `work` returns, and the seconds that it took.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let found = work();
    (found, start.elapsed().as_secs_f64())
}

/// Clocks differ in their last digits.
fn waited(seconds: f64, whole: f64) -> f64 {
    (whole - seconds).max(0.0)
}

/// The latest reading of this rank's device.
#[derive(Clone, Debug, Default)]
pub(super) struct LatestReading(Arc<Mutex<Device>>);

impl LatestReading {
    pub(super) fn unknown(engine: &Engine) -> Self {
        Self(Arc::new(Mutex::new(Device { device: engine.name(), ..Device::default() })))
    }

    pub(super) fn set(&self, device: Device) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = device;
    }

    pub(super) fn get(&self) -> Device {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Ranks, and the seconds that were spent in what they call together.
#[derive(Debug)]
pub(super) struct TimedCollectives<'a, C> {
    ranks: &'a C,
    seconds: Cell<f64>,
}

impl<'a, C: Collectives> TimedCollectives<'a, C> {
    pub(super) fn of(ranks: &'a C) -> Self {
        Self { ranks, seconds: Cell::new(0.0) }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.seconds.get()
    }

    fn timed<T>(&self, call: impl FnOnce(&C) -> T) -> T {
        let (found, seconds) = timed(|| call(self.ranks));
        self.seconds.set(self.seconds.get() + seconds);
        found
    }
}

impl<C: Collectives> Collectives for TimedCollectives<'_, C> {
    fn place(&self) -> (usize, usize) {
        self.ranks.place()
    }

    fn all_reduce(&self, own: &Tensor) -> Result<Tensor, RankError> {
        self.timed(|ranks| ranks.all_reduce(own))
    }

    fn reduce_scatter(&self, own: &Tensor) -> Result<Tensor, RankError> {
        self.timed(|ranks| ranks.reduce_scatter(own))
    }

    fn all_gather(&self, all: &Tensor) -> Result<(), RankError> {
        self.timed(|ranks| ranks.all_gather(all))
    }

    fn add(&self, own: f64) -> Result<f64, RankError> {
        self.timed(|ranks| ranks.add(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(tokens: usize, seconds: f64) -> RankStep {
        RankStep { trained_tokens: tokens, update_seconds: seconds, ..RankStep::default() }
    }

    #[test]
    fn a_rank_with_more_to_compute_is_not_slow_for_that() {
        let check = |ranks: &[RankStep], expected: Option<(f64, f64, f64)>| {
            let found = rank_metrics(ranks);
            let get = |name: &str| found.get(&format!("ranks/{name}")).copied();
            let found = get("imbalance").zip(get("slowest")).zip(get("slowdown"));
            assert_eq!(found.map(|((imbalance, slowest), slowdown)| (imbalance, slowest, slowdown)), expected);
        };
        check(&[], None);
        check(&[rank(0, 0.0), rank(0, 0.0)], None);
        check(&[rank(100, 1.0), rank(100, 1.5)], Some((1.0, 1.0, 1.5)));
        check(&[rank(100, 1.0), rank(300, 3.0), rank(100, 1.0), rank(100, 1.0)], Some((2.0, 3.0, 1.0)));
        // Few tokens take longer by the token on any rank.
        check(&[rank(10, 1.0), rank(190, 1.0)], Some((1.9, 0.0, 1.0)));
        check(&[rank(100, 1.0), rank(100, 2.0), rank(100, 1.0)], Some((1.0, 1.0, 2.0)));
    }

    #[test]
    fn what_is_taken_is_not_taken_again_and_devices_stay_known() {
        let work = RankWork(RefCell::new(vec![RankStep { host: "a".to_owned(), ..RankStep::default() }; 2]));
        let rollout = of_rollout(&[(30, 1.0), (10, 0.5)], 1.25);
        let half = share_of_time(&rollout, 0.5);
        work.updated(&[2.0, 3.0], 3.0);
        work.trained([7, 8].into_iter());
        work.observed(&[Device { index: Some(4), ..Device::default() }, Device::default()]);
        let taken = work.take(&half);
        let numbers = |rank: &RankStep| {
            (rank.sampled_tokens, rank.trained_tokens, rank.rollout_seconds, rank.update_seconds, rank.waited_seconds)
        };
        assert_eq!(
            taken.iter().map(numbers).collect::<Vec<_>>(),
            [(30, 7, 0.5, 2.0, 1.125), (10, 8, 0.25, 3.0, 0.375)]
        );
        let again = work.take(&[]);
        assert_eq!(again.iter().map(numbers).collect::<Vec<_>>(), [(0, 0, 0.0, 0.0, 0.0); 2]);
        assert!(again[0].condition.index == Some(4) && again[1].host == "a");
        assert_eq!(RankWork::default().take(&rollout), []);
    }
}
