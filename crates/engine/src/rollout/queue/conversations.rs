//! Schedules conversations: each submits a request, thinks (tools run, answers are scored), and
//! submits another or leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::StopReason;
use super::{Job, Place, Queue, Running, State, Worker};

/// Passes between an answer and the next request, independent of thinking time, for deterministic
/// results where rounding depends on batch composition. Otherwise requests join at once.
const PASSES_BETWEEN_REQUESTS: u64 = 8;

/// Interval of checks for cancellation while waiting.
const LOOK: Duration = Duration::from_millis(50);

/// Message from a conversation.
pub(super) enum Message {
    Asks(Box<Job>),
    /// It continues once conversations (first, count) all wait for each other or have left.
    Waits(usize, usize),
    /// No further requests.
    Leaves,
}

/// When conversations continue.
#[derive(Default)]
pub(super) struct Schedule {
    has_begun: bool,
    passes: u64,
    /// Thinking conversations, by the pass in which they continue.
    thinking: BTreeSet<(u64, usize)>,
    /// Waiting conversations, with the group (first, count) they wait for.
    waiting: BTreeMap<usize, (usize, usize)>,
    left: BTreeSet<usize>,
    /// Cached completions not yet followed, by conversation and request.
    in_cache: BTreeMap<(usize, u32), (u64, u32)>,
    not_followed: Vec<(u64, u32)>,
}

impl Schedule {
    /// The caches are new.
    pub(super) fn forget_cache(&mut self) {
        self.in_cache.clear();
    }

    pub(super) fn take_not_followed(&mut self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.not_followed)
    }

    /// The cached completion that a request follows.
    pub(super) fn take_followed(&mut self, place: &Place) -> Option<(u64, u32)> {
        self.in_cache.remove(&(place.conversation, place.follows?))
    }
}

impl Queue {
    /// Registers a conversation with possibly several requests.
    pub(crate) fn enter(&self, conversation: usize) {
        self.state.lock().open.insert(conversation);
    }

    /// As [`Self::enter`] for an agent's conversation; `start` is signalled when it may begin.
    pub(crate) fn enter_agent(&self, conversation: usize, start: oneshot::Sender<()>) {
        let mut state = self.state.lock();
        state.open.insert(conversation);
        state.of_agents.insert(conversation);
        state.unstarted.push_back((conversation, start));
    }

    /// Submits a request of its conversation; ignored after it has left.
    pub(crate) fn ask(&self, job: Job) {
        let Some(place) = job.place else {
            return;
        };
        let mut state = self.state.lock();
        let is_first = place.number == 0 && !state.of_agents.contains(&place.conversation);
        let has_left = !is_first && !state.open.contains(&place.conversation);
        if !state.is_closed && !has_left {
            let message = Message::Asks(Box::new(job));
            state.messages.push((place.conversation, message));
            self.has_changed.notify_all();
        }
    }

    /// Makes a conversation wait until `count` from `first` on all wait for each other or have
    /// left.
    pub(crate) fn wait(&self, conversation: usize, first: usize, count: usize) {
        let mut state = self.state.lock();
        if !state.is_closed {
            let message = Message::Waits(first, count);
            state.messages.push((conversation, message));
            self.has_changed.notify_all();
        }
    }

    /// A conversation submits nothing more.
    pub(crate) fn leave(&self, conversation: usize) {
        let mut state = self.state.lock();
        if state.open.remove(&conversation) && !state.is_closed {
            state.messages.push((conversation, Message::Leaves));
            self.has_changed.notify_all();
        }
    }
}

impl Worker<'_> {
    /// Ids of the next requests; `None`: there will be none.
    pub(super) fn next_of_conversations(
        &mut self,
        is_idle: bool,
        is_paced: bool,
        agents: usize,
    ) -> Option<Vec<u64>> {
        self.schedule.passes += 1;
        if self.queue.has_failed() {
            return None;
        }
        let mut asked = std::mem::take(&mut self.again);
        if !std::mem::replace(&mut self.schedule.has_begun, true) {
            self.take_messages(false, |_, _| true, &mut asked);
            (0..agents).for_each(|_| self.start_next_agent(self.schedule.passes));
        }
        if is_paced {
            self.take_due(is_idle, &mut asked);
        } else {
            self.take_messages(is_idle && asked.is_empty(), |_, _| true, &mut asked);
        }
        let is_over = self.running.is_empty()
            && match is_paced {
                true => self.schedule.thinking.is_empty() && self.schedule.waiting.is_empty(),
                false => self.queue.state.lock().open.is_empty(),
            };
        (!is_over).then_some(asked)
    }

    /// Takes due requests, by conversation.
    fn take_due(&mut self, is_idle: bool, asked: &mut Vec<u64>) {
        // Requests of an agent made while another is being answered.
        if !self.queue.state.lock().of_agents.is_empty() {
            let thinking = self.schedule.thinking.iter().map(|(_, which)| *which);
            let thinking: BTreeSet<usize> = thinking.collect();
            let is_beside = |state: &State, conversation: usize| {
                state.of_agents.contains(&conversation) && !thinking.contains(&conversation)
            };
            self.take_messages(false, is_beside, asked);
        }
        while let Some(&(due, conversation)) = self.schedule.thinking.first() {
            if due > self.schedule.passes && (!is_idle || !asked.is_empty()) {
                return;
            }
            self.schedule.passes = self.schedule.passes.max(due);
            if !self.take_messages(true, |_, other| other == conversation, asked) {
                return;
            }
            self.schedule.thinking.remove(&(due, conversation));
        }
    }

    /// Processes messages of some conversations; `must`: waits for one. Returns whether there was
    /// one: false on cancellation, failure, or if all have left.
    fn take_messages(
        &mut self,
        must: bool,
        is_wanted: impl Fn(&State, usize) -> bool,
        asked: &mut Vec<u64>,
    ) -> bool {
        let queue = self.queue;
        let mut state = queue.state.lock();
        let mut messages: Vec<_> = loop {
            let mut all = std::mem::take(&mut state.messages);
            let wanted =
                |(conversation, _): &mut (usize, Message)| is_wanted(&state, *conversation);
            let come: Vec<_> = all.extract_if(.., wanted).collect();
            state.messages = all;
            let may_come = must
                && !state.open.is_empty()
                && !queue.has_failed()
                && !self.decoding.is_cancelled();
            if !come.is_empty() || !may_come {
                break come;
            }
            queue.has_changed.wait_for(&mut state, LOOK);
        };
        drop(state);
        messages.sort_by_key(|(conversation, _)| *conversation);
        let has_come = !messages.is_empty();
        for (conversation, message) in messages {
            match message {
                Message::Asks(job) => asked.push(self.start(*job)),
                Message::Waits(first, count) => {
                    self.schedule.waiting.insert(conversation, (first, count));
                    self.go_on_together(first, count);
                }
                Message::Leaves => self.forget(conversation),
            }
        }
        has_come
    }

    /// Continues conversations that wait for each other, once the others of the group have left.
    fn go_on_together(&mut self, first: usize, count: usize) {
        let schedule = &mut self.schedule;
        let mut all = first..first + count;
        if all.all(|other| schedule.waiting.contains_key(&other) || schedule.left.contains(&other))
        {
            let due = schedule.passes + PASSES_BETWEEN_REQUESTS;
            let waiting = schedule
                .waiting
                .extract_if(first..first + count, |_, _| true);
            schedule
                .thinking
                .extend(waiting.map(|(other, _)| (due, other)));
        }
    }

    /// Frees the cache of a conversation that has left, and starts the next agent.
    fn forget(&mut self, conversation: usize) {
        let all = (conversation, 0)..=(conversation, u32::MAX);
        let its = self.schedule.in_cache.extract_if(all, |_, _| true);
        self.schedule.not_followed.extend(its.map(|(_, id)| id));
        self.schedule.left.insert(conversation);
        let groups = self.schedule.waiting.values().copied();
        let its = |(first, count): &(usize, usize)| (*first..first + count).contains(&conversation);
        if let Some((first, count)) = groups.clone().find(its) {
            self.go_on_together(first, count);
        }
        let is_of_agent = self.queue.state.lock().of_agents.contains(&conversation);
        if is_of_agent {
            self.start_next_agent(self.schedule.passes + PASSES_BETWEEN_REQUESTS);
        }
    }

    fn start_next_agent(&mut self, due: u64) {
        let next = self.queue.state.lock().unstarted.pop_front();
        if let Some((conversation, start)) = next {
            if self.queue.is_paced() {
                self.schedule.thinking.insert((due, conversation));
            }
            // The receiver is gone after a failure.
            _ = start.send(());
        }
    }

    /// A completion has ended; its conversation now thinks if it may submit more, unless its agent
    /// waits for another answer.
    pub(super) fn think(&mut self, place: &Place, (id, sample): (u64, u32)) {
        let conversation = place.conversation + sample as usize;
        let ended = (conversation, place.number);
        self.schedule.in_cache.insert(ended, (id, sample));
        if !self.queue.is_paced() {
            return;
        }
        let state = self.queue.state.lock();
        let is_its = |running: &Running| {
            let other = running.job.place;
            other.is_some_and(|other| other.conversation == conversation)
        };
        let waits = state.of_agents.contains(&conversation) && self.running.values().any(is_its);
        // Conversations with a single completion are not registered.
        if state.open.contains(&conversation) && !waits {
            let due = self.schedule.passes + PASSES_BETWEEN_REQUESTS;
            self.schedule.thinking.insert((due, conversation));
        }
    }

    /// Whether a request may follow a conversation's completion.
    pub(super) fn may_follow(&self, place: &Place, sample: u32, stop: StopReason) -> bool {
        let conversation = place.conversation + sample as usize;
        let state = self.queue.state.lock();
        place.later_tokens.is_some()
            && match state.of_agents.contains(&conversation) {
                true => state.open.contains(&conversation),
                false => stop == StopReason::Stop,
            }
    }
}
