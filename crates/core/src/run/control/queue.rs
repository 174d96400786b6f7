//! The request queue between the control thread and the training loop.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::accepted_files::AcceptedFiles;
use super::protocol::Answer;
use super::verb::Verb;
use crate::run::record::events;

const MAX_WAITING_REQUESTS: usize = 256;

/// How often a waiting loop checks for signals, which cannot wake it.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(200);

/// Sends an answer to the client. Called on the loop's thread, so it must not block for long.
pub(super) type ReplyFn = Arc<dyn Fn(&Answer) + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Finishes and saves the current step first.
    AfterStep,
    /// Discards the current step.
    Now,
}

/// A validated request, which the loop must record, execute and answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptedRequest {
    /// Argument of [`RequestQueue::answer`].
    pub id: u64,
    pub verb: Verb,
    pub user_id: u32,
    /// The name of the request's file until it is in the log; empty without a file.
    pub request: String,
}

impl AcceptedRequest {
    pub fn event(&self, step: u64) -> events::Control {
        let request = self.request.clone();
        events::Control {
            verb: self.verb.name(),
            arguments: self.verb.arguments(),
            user_id: self.user_id,
            step,
            request,
        }
    }
}

/// The loop's side of control. Clones share the queue.
#[derive(Clone, Debug, Default)]
pub struct RequestQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    interrupted: Arc<AtomicBool>,
    interrupted_again: OnceLock<Arc<AtomicBool>>,
    /// `None` for a worker without a log.
    spool: OnceLock<AcceptedFiles>,
    /// Held while one request is accepted, so that files are written in queue order.
    accepting: Mutex<()>,
}

#[derive(Default)]
struct Queue {
    last_id: u64,
    waiting: VecDeque<AcceptedRequest>,
    replies: BTreeMap<u64, ReplyFn>,
    paused: bool,
    /// Whether the worker paused itself, for example because the disk is full.
    blocked: bool,
    stop: Option<Stop>,
    /// Why the worker's folder is gone, if it is.
    lost: Option<String>,
    /// The step after which the loop next checks for requests; `None` without a loop.
    computes_until: Option<u64>,
    closed: bool,
}

impl RequestQueue {
    /// After the first signal, which sets `interrupted`, the run stops after its step.
    pub fn new(interrupted: Arc<AtomicBool>) -> Self {
        Self(Arc::new(Shared {
            interrupted,
            ..Shared::default()
        }))
    }

    /// After the second signal, which sets `flag`, the run stops at once.
    pub fn stop_now_when(&self, flag: Arc<AtomicBool>) {
        let _ = self.0.interrupted_again.set(flag);
    }

    /// Takes all requests, in order. The loop must record each as a `control` event, pass it to
    /// [`Self::recorded`], and answer it.
    pub fn drain(&self) -> Vec<AcceptedRequest> {
        self.queue().waiting.drain(..).collect()
    }

    /// Takes all requests for the last time and refuses later ones, which nobody would record.
    pub fn take_last(&self) -> Vec<AcceptedRequest> {
        let _one_at_a_time = self.0.accepting.lock();
        let mut queue = self.queue();
        queue.closed = true;
        queue.waiting.drain(..).collect()
    }

    /// Announces that the loop computes up to `step` before it checks for requests, so that
    /// requests accepted meanwhile apply to the step after it. Returns false and changes nothing if
    /// a request already waits, since it was promised for the next step.
    pub fn compute_until(&self, step: u64) -> bool {
        let _one_at_a_time = self.0.accepting.lock();
        let mut queue = self.queue();
        if queue.waiting.is_empty() {
            queue.computes_until = Some(step);
        }
        queue.waiting.is_empty()
    }

    pub fn pause_requested(&self) -> bool {
        self.queue().paused
    }

    pub fn recorded(&self, accepted: &AcceptedRequest) {
        if let Some(spool) = self.0.spool.get().filter(|_| !accepted.request.is_empty()) {
            spool.remove(&accepted.request);
        }
    }

    /// Pauses the run without a request, for example because the disk is full. `resume` ends this
    /// like any pause.
    pub fn block(&self) {
        self.queue().blocked = true;
    }

    /// Ends [`Self::block`]; a requested pause stays.
    pub fn unblock(&self) {
        self.queue().blocked = false;
        self.0.changed.notify_all();
    }

    /// Waits until the run is no longer blocked, should stop, or `longest` has passed. Returns
    /// whether it is still blocked.
    pub fn wait_while_blocked(&self, longest: Duration) -> bool {
        self.wait_while(longest, |queue| queue.blocked).blocked
    }

    /// Stops the run at once because its folder is gone.
    pub(in crate::run) fn mark_lost(&self, why: String) {
        let mut queue = self.queue();
        queue.stop = Some(Stop::Now);
        queue.lost.get_or_insert(why);
        self.0.changed.notify_all();
    }

    pub(in crate::run) fn lost(&self) -> Option<String> {
        self.queue().lost.clone()
    }

    /// Whether and how the run should stop, by request or signal. Cheap enough for every
    /// micro-batch.
    pub fn stop_requested(&self) -> Option<Stop> {
        let asked = self.queue().stop;
        let again = self
            .0
            .interrupted_again
            .get()
            .is_some_and(|flag| flag.load(Ordering::Relaxed));
        let signalled = self
            .0
            .interrupted
            .load(Ordering::Relaxed)
            .then_some(Stop::AfterStep);
        asked.max(signalled).max(again.then_some(Stop::Now))
    }

    pub(in crate::run) fn is_signalled(&self) -> bool {
        self.0.interrupted.load(Ordering::Relaxed)
    }

    /// Waits until a request arrives, the pause ends, or the run should stop.
    pub fn wait_while_paused(&self) {
        drop(self.wait_while(Duration::MAX, |queue| {
            queue.paused && queue.waiting.is_empty()
        }));
    }

    /// Answers a request. `done` and `refused` are last answers: nothing may follow.
    pub fn answer(&self, id: u64, answer: &Answer) {
        let reply = {
            let mut queue = self.queue();
            if answer.is_last() {
                queue.replies.remove(&id)
            } else {
                queue.replies.get(&id).cloned()
            }
        };
        if let Some(reply) = reply {
            reply(answer);
        }
    }

    /// Writes requests accepted from now on to the run's folder until they are in the log.
    pub(in crate::run) fn persist_in(&self, run: &Path) {
        let _ = self.0.spool.set(AcceptedFiles::for_run(run));
    }

    /// Queues a validated request; once this returns, it survives a crash. A pause, resume or stop
    /// is visible at once. Returns the step after which the loop checks for it; `None` without a
    /// loop.
    pub(super) fn push(
        &self,
        verb: Verb,
        user_id: u32,
        reply: ReplyFn,
    ) -> Result<Option<u64>, String> {
        let _one_at_a_time = self.0.accepting.lock();
        self.queue().refusal(&verb).map_or(Ok(()), Err)?;
        let mut accepted = AcceptedRequest {
            id: 0,
            verb,
            user_id,
            request: String::new(),
        };
        let computes_until = self.queue().computes_until;
        accepted.request = self.persist(&accepted, computes_until.unwrap_or(0) + 1)?;
        let mut queue = self.queue();
        if let Some(refusal) = queue.refusal(&accepted.verb) {
            self.recorded(&accepted);
            return Err(refusal);
        }
        match accepted.verb {
            Verb::Pause => queue.paused = true,
            Verb::Resume => (queue.paused, queue.blocked) = (false, false),
            Verb::Stop { now } => {
                queue.stop = queue
                    .stop
                    .max(Some(if now { Stop::Now } else { Stop::AfterStep }))
            }
            _ => {}
        }
        queue.last_id += 1;
        accepted.id = queue.last_id;
        queue.replies.insert(accepted.id, reply);
        queue.waiting.push_back(accepted);
        self.0.changed.notify_all();
        Ok(computes_until)
    }

    /// Writes the request's file and returns its name. `step`: the first step to which it applies.
    /// Requests that end the pause of a full disk, or the run, are accepted even if they cannot be
    /// written.
    fn persist(&self, accepted: &AcceptedRequest, step: u64) -> Result<String, String> {
        let Some(spool) = self.0.spool.get() else {
            return Ok(String::new());
        };
        match (spool.write(accepted.event(step)), &accepted.verb) {
            (Ok(request), _) => Ok(request),
            (Err(_), Verb::Pause | Verb::Resume | Verb::Stop { .. }) => Ok(String::new()),
            (Err(error), _) => Err(format!("not accepted: cannot be written to disk: {error}")),
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }

    pub(super) fn close(&self) {
        let left = {
            let mut queue = self.queue();
            queue.closed = true;
            queue.waiting.clear();
            std::mem::take(&mut queue.replies)
        };
        for reply in left.into_values() {
            reply(&Answer::refused(
                "the worker ended before it handled this request",
            ));
        }
    }

    /// Waits while `waits` returns true, for at most `longest`, unless the run should stop.
    fn wait_while(
        &self,
        longest: Duration,
        waits: impl Fn(&Queue) -> bool,
    ) -> MutexGuard<'_, Queue> {
        let begun = Instant::now();
        let mut queue = self.queue();
        while waits(&queue) && queue.stop.is_none() && !self.0.interrupted.load(Ordering::Relaxed) {
            let left = longest.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            let most = left.min(SIGNAL_INTERVAL);
            self.0.changed.wait_for(&mut queue, most);
        }
        queue
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock()
    }
}

impl Queue {
    /// Why `verb` cannot be queued. A full queue still accepts `stop`.
    fn refusal(&self, verb: &Verb) -> Option<String> {
        let full = self.waiting.len() >= MAX_WAITING_REQUESTS && !matches!(verb, Verb::Stop { .. });
        match self.closed {
            true => Some("run has ended".to_owned()),
            false => full.then(|| {
                format!(
                    "{MAX_WAITING_REQUESTS} requests are queued: try again after the current step"
                )
            }),
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            waiting,
            paused,
            blocked,
            stop,
            closed,
            ..
        } = self;
        write!(
            formatter,
            "Queue({} queued, paused: {paused}, waiting for disk: {blocked}, stop: {stop:?}, closed: {closed})",
            waiting.len()
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn silent() -> ReplyFn {
        Arc::new(|_| {})
    }

    #[test]
    fn requests_come_out_once_and_in_order() {
        let controls = RequestQueue::default();
        controls.push(Verb::Pause, 7, silent()).unwrap();
        controls.push(Verb::Checkpoint, 8, silent()).unwrap();
        assert!(controls.pause_requested() && controls.stop_requested().is_none());
        let taken = controls.drain();
        assert_eq!(
            taken
                .iter()
                .map(|accepted| (accepted.id, accepted.user_id))
                .collect::<Vec<_>>(),
            [(1, 7), (2, 8)]
        );
        assert_eq!(
            (taken[1].event(5).verb.name(), taken[1].event(5).step),
            ("checkpoint", 5)
        );
        assert!(controls.drain().is_empty());
    }

    #[test]
    fn what_waits_before_a_step_is_looked_at_before_it() {
        let controls = RequestQueue::default();
        assert_eq!(controls.push(Verb::Eval, 0, silent()), Ok(None));
        controls.drain();
        assert!(controls.compute_until(4));
        assert_eq!(controls.push(Verb::Eval, 0, silent()), Ok(Some(4)));
        assert!(!controls.compute_until(6));
        assert_eq!(
            controls.push(Verb::Eval, 0, silent()),
            Ok(Some(4)),
            "the loop has yet to look after step 4"
        );
        controls.drain();
        assert!(controls.compute_until(6));
        assert_eq!(controls.push(Verb::Eval, 0, silent()), Ok(Some(6)));
    }

    #[test]
    fn a_stop_is_never_softened() {
        let controls = RequestQueue::default();
        controls
            .push(Verb::Stop { now: true }, 0, silent())
            .unwrap();
        controls
            .push(Verb::Stop { now: false }, 0, silent())
            .unwrap();
        assert_eq!(controls.stop_requested(), Some(Stop::Now));
        let interrupted = Arc::new(AtomicBool::new(false));
        let controls = RequestQueue::new(Arc::clone(&interrupted));
        interrupted.store(true, Ordering::Relaxed);
        assert_eq!(controls.stop_requested(), Some(Stop::AfterStep));
    }

    #[test]
    fn the_second_signal_stops_at_once() {
        let controls = RequestQueue::new(Arc::new(AtomicBool::new(true)));
        let again = Arc::new(AtomicBool::new(false));
        controls.stop_now_when(Arc::clone(&again));
        assert_eq!(controls.stop_requested(), Some(Stop::AfterStep));
        again.store(true, Ordering::Relaxed);
        assert_eq!(controls.stop_requested(), Some(Stop::Now));
    }

    #[test]
    fn a_block_ends_by_unblock_resume_or_stop_and_is_no_pause() {
        type Wake = fn(&RequestQueue);
        let wakers: [(Wake, bool); 3] = [
            (|controls| controls.unblock(), false),
            (
                |controls| _ = controls.push(Verb::Resume, 0, silent()).unwrap(),
                false,
            ),
            (
                |controls| {
                    _ = controls
                        .push(Verb::Stop { now: false }, 0, silent())
                        .unwrap()
                },
                true,
            ),
        ];
        for (waker, still_blocked) in wakers {
            let controls = RequestQueue::default();
            controls.block();
            assert!(controls.wait_while_blocked(Duration::ZERO) && !controls.pause_requested());
            let waiting = controls.clone();
            let thread =
                std::thread::spawn(move || waiting.wait_while_blocked(Duration::from_secs(60)));
            waker(&controls);
            assert_eq!(thread.join().unwrap(), still_blocked);
        }
    }

    #[test]
    fn a_pause_ends_by_resume_stop_signal_or_a_request_to_look_at() {
        let wakers: [fn(&RequestQueue); 4] = [
            |controls| _ = controls.push(Verb::Resume, 0, silent()).unwrap(),
            |controls| {
                _ = controls
                    .push(Verb::Stop { now: false }, 0, silent())
                    .unwrap()
            },
            |controls| controls.0.interrupted.store(true, Ordering::Relaxed),
            |controls| _ = controls.push(Verb::Eval, 0, silent()).unwrap(),
        ];
        for waker in wakers {
            let controls = RequestQueue::default();
            controls.push(Verb::Pause, 0, silent()).unwrap();
            controls.drain();
            let waiting = controls.clone();
            let thread = std::thread::spawn(move || waiting.wait_while_paused());
            waker(&controls);
            thread.join().unwrap();
        }
    }

    #[test]
    fn nobody_is_left_without_an_answer() {
        let controls = RequestQueue::default();
        let answers = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&answers);
        let reply: ReplyFn = Arc::new(move |answer: &Answer| sink.lock().push(answer.clone()));
        controls.push(Verb::Eval, 0, Arc::clone(&reply)).unwrap();
        controls
            .push(Verb::Checkpoint, 0, Arc::clone(&reply))
            .unwrap();
        let first = controls.drain().remove(0).id;
        let done = Answer::done("read", serde_json::json!({"n": 1}));
        controls.answer(first, &Answer::part(serde_json::json!(1)));
        controls.answer(first, &done);
        controls.answer(first, &done);
        controls.close();
        assert_eq!(answers.lock().len(), 3);
        assert!(
            answers.lock()[2]
                .text
                .contains("before it handled this request")
        );
        assert!(controls.push(Verb::Eval, 0, reply).is_err());
    }

    #[test]
    fn nothing_is_accepted_after_the_last_look() {
        let controls = RequestQueue::default();
        controls.push(Verb::Eval, 0, silent()).unwrap();
        assert_eq!(controls.take_last().len(), 1);
        assert_eq!(
            controls.push(Verb::Checkpoint, 0, silent()).unwrap_err(),
            "run has ended"
        );
        assert!(controls.take_last().is_empty());
    }

    #[test]
    fn what_cannot_be_kept_is_refused_unless_it_ends_a_wait() {
        let run = tempfile::tempdir().unwrap();
        let controls = RequestQueue::default();
        controls.persist_in(&run.path().join("gone"));
        let refused = controls.push(Verb::Eval, 0, silent()).unwrap_err();
        assert!(
            refused.contains("not accepted: cannot be written to disk"),
            "{refused}"
        );
        for verb in [Verb::Pause, Verb::Resume, Verb::Stop { now: false }] {
            controls.push(verb, 0, silent()).unwrap();
        }
        assert_eq!(controls.drain().len(), 3);
    }

    #[test]
    fn a_full_queue_accepts_only_a_stop() {
        let controls = RequestQueue::default();
        (0..MAX_WAITING_REQUESTS).for_each(|_| _ = controls.push(Verb::Eval, 0, silent()).unwrap());
        assert!(
            controls
                .push(Verb::Eval, 0, silent())
                .unwrap_err()
                .contains("256 requests are queued")
        );
        controls
            .push(Verb::Stop { now: false }, 0, silent())
            .unwrap();
        assert_eq!(controls.stop_requested(), Some(Stop::AfterStep));
    }
}
