//! Where the answers of conversations come from: each is asked for once its prompt is there, while others are decoded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::KeptAnswers;
use super::conversing::{Conversing, Ended};
use super::mailbox::{Letter, Mailbox, NextRequest, request_number};
use crate::rollout::{
    Arrivals, Completion, QueuedRequest, Request, RequestSource, Sampling, StopReason,
};

/// On the CPU, where rounding depends on the rows that are decoded together, the passes between an answer and what is asked
/// next: the same however long that takes to be made, so that no clock has a part in results. On a GPU what is made joins at
/// once.
const PASSES_BETWEEN_TURNS: u64 = 8;

/// How often a source that waits looks whether the work was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// A request whose completions have not all ended.
struct ActiveRequest {
    request: Arc<Request>,
    /// The conversation of its first completion.
    first: usize,
    unfinished: BTreeSet<u32>,
    /// The completion that it follows.
    after: Option<(u64, u32)>,
}

/// The requests of some questions, and of what follows. It outlives an attempt to decode them that runs out of memory: the
/// next one asks for what has not ended.
pub(super) struct TurnSource<'a> {
    shared: &'a Conversing<'a>,
    questions: Range<usize>,
    mailbox: &'a Mailbox,
    sampling: &'a Sampling,
    kept: Option<Arc<KeptAnswers>>,
    ended: Sender<Ended>,
    /// For answers that may call tools.
    calling: Sender<Ended>,
    /// For conversations whose agents are to be started.
    starting: Sender<usize>,
    unstarted: VecDeque<usize>,
    is_begun: bool,
    /// By id, which no other request has.
    active: BTreeMap<u64, ActiveRequest>,
    next_id: u64,
    /// Asked for again.
    again: Vec<u64>,
    /// Conversations that wait for what follows: the pass in which it is due, and which they are.
    waiting: BTreeSet<(u64, usize)>,
    /// Of conversations that may go on in the cache: their completions, by number, that nothing follows yet.
    ended_in_cache: BTreeMap<(usize, u32), (u64, u32)>,
    not_followed: Vec<(u64, u32)>,
    passes: u64,
    is_paced: bool,
}

impl<'a> TurnSource<'a> {
    /// `kept`: answers that need not be sampled. `is_paced`: whether results depend on what is decoded together.
    pub(super) fn new(
        shared: &'a Conversing<'a>,
        (questions, mailbox): (Range<usize>, &'a Mailbox),
        kept: Option<Arc<KeptAnswers>>,
        ([ended, calling], starting): ([&Sender<Ended>; 2], &Sender<usize>),
        is_paced: bool,
    ) -> Self {
        let (ended, calling, starting) = (ended.clone(), calling.clone(), starting.clone());
        let sampling = shared.settings.sampling;
        let (active, again, waiting) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        let (ended_in_cache, not_followed) = (BTreeMap::new(), Vec::new());
        let (is_begun, next_id, passes, unstarted) = (false, 0, 0, VecDeque::new());
        Self {
            shared,
            questions,
            mailbox,
            sampling,
            kept,
            ended,
            calling,
            starting,
            unstarted,
            is_begun,
            active,
            next_id,
            again,
            waiting,
            ended_in_cache,
            not_followed,
            passes,
            is_paced,
        }
    }

    fn ask(
        &mut self,
        first: usize,
        NextRequest { request, follows }: NextRequest,
        asked: &mut Vec<u64>,
    ) {
        let known = self
            .kept
            .as_ref()
            .and_then(|kept| kept.completions(&request));
        let request = Arc::new(request);
        if let Some(completions) = known {
            for (sample, completion) in (0..).zip(completions) {
                self.end(first, &request, sample, completion, true);
            }
            return;
        }
        let unfinished: BTreeSet<u32> = (0..request.samples as u32).collect();
        if unfinished.is_empty() {
            return;
        }
        let after = follows.and_then(|number| self.ended_in_cache.remove(&(first, number)));
        self.active.insert(
            self.next_id,
            ActiveRequest {
                request,
                first,
                unfinished,
                after,
            },
        );
        asked.push(self.next_id);
        self.next_id += 1;
    }

    /// Tells of an answer, which may be followed.
    fn end(
        &mut self,
        first: usize,
        request: &Arc<Request>,
        sample: u32,
        completion: Completion,
        is_known: bool,
    ) {
        let conversation = first + sample as usize;
        if self.shared.may_be_followed(conversation) && !self.asks_on(conversation) {
            self.waiting
                .insert((self.passes + PASSES_BETWEEN_TURNS, conversation));
        }
        let to = if self.shared.has_tools(conversation) {
            &self.calling
        } else {
            &self.ended
        };
        let (request, is_recorded) = (Arc::clone(request), false);
        // The receiver is gone where the work has failed.
        let _ = to.send(Ended {
            conversation,
            completion,
            request,
            sample,
            is_known,
            is_recorded,
        });
    }

    /// Whether what an agent does next need not be waited for: it waits for another answer, or has ended.
    fn asks_on(&self, conversation: usize) -> bool {
        let Some(agents) = self.shared.agents_of(conversation) else {
            return false;
        };
        agents.is_over(conversation)
            || self
                .active
                .values()
                .any(|active| active.first == conversation)
    }

    /// Starts the agent of the next conversation, which is waited for.
    fn start_next(&mut self, due: u64) {
        let Some(conversation) = self.unstarted.pop_front() else {
            return;
        };
        self.waiting.insert((due, conversation));
        // The receiver is gone where the work has failed.
        _ = self.starting.send(conversation);
    }

    /// Asks for what follows earlier answers.
    fn follow(&mut self, is_idle: bool, asked: &mut Vec<u64>) {
        // What an agent asks while another request of its is answered.
        let is_beside = |conversation: usize| {
            let waits = || self.waiting.iter().any(|(_, waits)| *waits == conversation);
            self.shared.agents_of(conversation).is_some() && !waits()
        };
        let beside = if self.shared.agents.is_some() {
            self.wait(false, is_beside)
        } else {
            Vec::new()
        };
        beside
            .into_iter()
            .for_each(|(conversation, next)| self.ask_next(conversation, next, asked));
        if !self.is_paced {
            let mut come = self.wait(is_idle && asked.is_empty(), |_| true);
            come.sort_by_key(|(conversation, _)| *conversation);
            self.waiting
                .retain(|(_, waits)| come.iter().all(|(conversation, _)| conversation != waits));
            come.into_iter()
                .for_each(|(conversation, next)| self.ask_next(conversation, next, asked));
            return;
        }
        while let Some(&(due, conversation)) = self.waiting.first() {
            if due > self.passes && (!is_idle || !asked.is_empty()) {
                return;
            }
            self.passes = self.passes.max(due);
            let come = self.wait(true, |other| other == conversation);
            if come.is_empty() {
                return;
            }
            self.waiting.pop_first();
            come.into_iter()
                .for_each(|(conversation, next)| self.ask_next(conversation, next, asked));
        }
    }

    fn ask_next(&mut self, conversation: usize, next: Option<NextRequest>, asked: &mut Vec<u64>) {
        if let Some(next) = next {
            return self.ask(conversation, next, asked);
        }
        let own = self
            .ended_in_cache
            .extract_if((conversation, 0)..=(conversation, u32::MAX), |_, _| true);
        self.not_followed.extend(own.map(|(_, id)| id));
        if self.shared.agents_of(conversation).is_some() {
            self.start_next(self.passes + PASSES_BETWEEN_TURNS);
        }
    }

    /// What has come of the conversations that wait; `must`: waits for some. Nothing where the work is cancelled or has
    /// failed.
    fn wait(&self, must: bool, is_wanted: impl Fn(usize) -> bool) -> Vec<Letter> {
        let mut letters = self.mailbox.letters();
        loop {
            let come: Vec<_> = letters
                .extract_if(.., |(conversation, _)| is_wanted(*conversation))
                .collect();
            if !come.is_empty() || !must || self.waiting.is_empty() || self.shared.is_over() {
                return come;
            }
            letters = self
                .mailbox
                .has_come
                .wait_timeout(letters, LOOK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl RequestSource for TurnSource<'_> {
    fn begin_again(&mut self) {
        self.again = self.active.keys().copied().collect();
        self.ended_in_cache.clear();
    }

    fn arrivals(&mut self, _: usize, is_idle: bool) -> Arrivals {
        self.passes += 1;
        if self.shared.has_failed.load(Ordering::Relaxed) {
            return Arrivals::Closed;
        }
        let mut asked = std::mem::take(&mut self.again);
        if !std::mem::replace(&mut self.is_begun, true) {
            for question in self.questions.clone() {
                let request = &self.shared.questions[question].request;
                if self.shared.agents_of_question(question).is_some() {
                    let first = self.shared.first_conversation[question];
                    self.unstarted.extend(first..first + request.samples);
                    continue;
                }
                let first = NextRequest {
                    request: request.clone(),
                    follows: None,
                };
                self.ask(self.shared.first_conversation[question], first, &mut asked);
            }
            (0..self.shared.agents_at_once()).for_each(|_| self.start_next(self.passes));
        }
        self.follow(is_idle, &mut asked);
        if self.active.is_empty() && self.waiting.is_empty() {
            return Arrivals::Closed;
        }
        let queued = |id: u64| {
            let ActiveRequest {
                request,
                first,
                after,
                ..
            } = &self.active[&id];
            QueuedRequest {
                id,
                request: Request::clone(request),
                sampling: self.sampling.clone(),
                adapter: None,
                conversation: self.shared.place(*first, request, *after),
            }
        };
        Arrivals::Requests(asked.into_iter().map(queued).collect())
    }

    /// A completion that has ended in an earlier attempt is asked for beside others of its request.
    fn on_token(&mut self, id: u64, sample: u32, completion: &Completion) -> bool {
        let Some(active) = self.active.get(&id) else {
            return false;
        };
        let conversation = active.first + sample as usize;
        let agents = self.shared.agents_of(conversation);
        active.unfinished.contains(&sample)
            && agents
                .is_none_or(|agents| agents.on_token(conversation, &active.request, completion))
            && !self.shared.has_failed.load(Ordering::Relaxed)
    }

    fn may_go_on(&self, id: u64, sample: u32, completion: &Completion) -> bool {
        let Some(conversation) = self
            .active
            .get(&id)
            .map(|active| active.first + sample as usize)
        else {
            return false;
        };
        match self.shared.agents_of(conversation) {
            Some(agents) => !agents.is_over(conversation),
            None => {
                completion.stop == StopReason::Stop
                    && self
                        .shared
                        .stays_in_cache(self.shared.question_of[conversation])
            }
        }
    }

    fn not_followed(&mut self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.not_followed)
    }

    fn on_end(&mut self, id: u64, sample: u32, completion: Completion) {
        let Some(active) = self.active.get_mut(&id) else {
            return;
        };
        if !active.unfinished.remove(&sample) {
            return;
        }
        let (first, request) = (active.first, Arc::clone(&active.request));
        self.ended_in_cache.insert(
            (first + sample as usize, request_number(&request)),
            (id, sample),
        );
        if active.unfinished.is_empty() {
            self.active.remove(&id);
        }
        self.end(first, &request, sample, completion, false);
    }
}
