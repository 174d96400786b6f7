//! Benchmarks rollouts of conversations with a slow tool: completions of random lengths, replies of
//! random tokens.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use candle_core::Result;

use super::gpu::{Bench, ToolCalls};
use super::timing::median;
use super::{Measurement, random_tokens, sampling};
use crate::kernels::philox::philox;
use crate::model::Adapters;
use crate::rollout::{
    Arrivals, Completion, QueuedRequest, Request, RequestSize, RequestSource, RolloutMemory,
    SizedSource, generate_from,
};

/// How a conversation continues after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GoingOn {
    /// Its cache is kept.
    Kept,
    /// Its prompt is prefilled again.
    Prefilled,
    /// Prefilled again, once all conversations have their replies.
    Together,
}

/// Relative spread of completion lengths around the bench's.
const SPREAD: f64 = 0.5;

/// Conversations of a rollout; each of `requests` starts some.
struct Conversations {
    tools: ToolCalls,
    going_on: GoingOn,
    new_tokens: usize,
    vocabulary: usize,
    /// Pending requests by id.
    active: BTreeMap<u64, Asked>,
    due: Vec<(Instant, u64)>,
    begun: bool,
    next_id: u64,
    /// Time without decoding.
    idle: Duration,
    tokens: usize,
}

/// A request, and its conversation's earlier completions.
struct Asked {
    request: Request,
    turn: usize,
    after: Option<(u64, u32)>,
    left: usize,
}

impl Conversations {
    fn new(
        requests: &[Request],
        (tools, going_on): (ToolCalls, GoingOn),
        (new_tokens, vocabulary): (usize, usize),
    ) -> Self {
        let mut own = Self {
            tools,
            going_on,
            new_tokens,
            vocabulary,
            active: BTreeMap::new(),
            due: Vec::new(),
            begun: false,
            next_id: 0,
            idle: Duration::ZERO,
            tokens: 0,
        };
        requests
            .iter()
            .for_each(|request| own.ask(request.clone(), 0, None));
        own
    }

    fn most_new_tokens(new_tokens: usize) -> usize {
        (new_tokens as f64 * (1.0 + SPREAD)).ceil() as usize
    }

    /// Cache sizes of the requests.
    fn sizes(&self) -> Vec<RequestSize> {
        let later = self.later_tokens(0);
        let size = |asked: &Asked| match self.going_on {
            GoingOn::Kept => vec![RequestSize {
                later_tokens: later,
                ..RequestSize::of(&asked.request)
            }],
            _ => {
                let prompt_tokens = asked.request.prompt.len() + later;
                vec![
                    RequestSize {
                        prompt_tokens,
                        samples: 1,
                        ..RequestSize::of(&asked.request)
                    };
                    asked.request.samples
                ]
            }
        };
        self.active.values().flat_map(size).collect()
    }

    fn later_tokens(&self, turn: usize) -> usize {
        (self.tools.calls - turn)
            * (Self::most_new_tokens(self.new_tokens) + self.tools.reply_tokens)
    }

    fn ask(&mut self, mut request: Request, turn: usize, after: Option<(u64, u32)>) {
        let id = self.next_id;
        let length = |sample: u32| {
            let share = f64::from(philox(3, [id as u32, sample, 0, 0])[0]) / f64::from(u32::MAX);
            (self.new_tokens as f64 * (1.0 - SPREAD + 2.0 * SPREAD * share))
                .round()
                .max(1.0) as usize
        };
        request.lengths = (0..request.samples as u32).map(length).collect();
        let left = request.samples;
        self.active.insert(
            id,
            Asked {
                request,
                turn,
                after,
                left,
            },
        );
        let waits = if turn == 0 {
            0
        } else {
            self.tools.milliseconds
        };
        self.due
            .push((Instant::now() + Duration::from_millis(waits), id));
        self.next_id += 1;
    }

    fn queued(&self, id: u64) -> QueuedRequest {
        let Asked {
            request,
            turn,
            after,
            ..
        } = &self.active[&id];
        let is_kept = self.going_on == GoingOn::Kept;
        QueuedRequest {
            id,
            request: request.clone(),
            sampling: sampling(Self::most_new_tokens(self.new_tokens)),
            adapter: None,
            follows: after.filter(|_| is_kept),
            later_tokens: if is_kept { self.later_tokens(*turn) } else { 0 },
        }
    }
}

impl Bench<'_> {
    /// Measures conversations with tools for each way of continuing.
    pub(super) fn converse(
        &self,
        (prompts, completions): (usize, usize),
        tools: ToolCalls,
        note: &mut impl FnMut(Measurement),
    ) -> Result<()> {
        let requests = self.requests(prompts, completions);
        let new = self.bench.new_tokens;
        let batch = prompts * completions;
        let shape = format!(
            "{prompts} x {completions}, {} calls of {} ms",
            tools.calls, tools.milliseconds
        );
        for (name, going_on) in [
            ("conversations", GoingOn::Kept),
            ("conversations, prefilled", GoingOn::Prefilled),
            ("conversations, prefilled together", GoingOn::Together),
        ] {
            let memory = RolloutMemory::default();
            let (mut idle, mut tokens, mut prefilled) = (0.0, 0, 0);
            let whole = median(2, || {
                let mut source =
                    Conversations::new(&requests, (tools, going_on), (new, self.config.vocab_size));
                let sampling = sampling(Conversations::most_new_tokens(new));
                self.engine.synchronize()?;
                let start = Instant::now();
                let model = (self.model, Adapters::On);
                let sizes = source.sizes();
                let sources = [SizedSource::new(&mut source, sizes)];
                let (counts, _) = generate_from(model, &sources, &sampling, &memory, self.threads)?;
                drop(sources);
                let seconds = start.elapsed().as_secs_f64();
                (idle, tokens, prefilled) = (
                    source.idle.as_secs_f64() / seconds,
                    source.tokens,
                    counts.prefilled,
                );
                Ok(seconds)
            })?;
            let mut figure = |what: &str, value, unit| {
                let name = format!("{name}{what}");
                note(Measurement::new(&name, &shape, batch, value, unit, None));
            };
            figure("", whole, "s");
            figure(": idle", 100.0 * idle, "%");
            figure(": speed", tokens as f64 / whole, "tokens/s");
            figure(": prefilled", prefilled as f64, "tokens");
        }
        Ok(())
    }
}

impl RequestSource for Conversations {
    fn arrivals(&mut self, _: usize, is_idle: bool) -> Arrivals {
        if self.active.is_empty() {
            return Arrivals::Closed;
        }
        let together = self.going_on == GoingOn::Together;
        let waits_for_all = together && self.due.len() < self.active.len();
        let begin = Instant::now();
        let times = self.due.iter().map(|(at, _)| *at);
        let wanted = if together { times.max() } else { times.min() };
        if let Some(at) = wanted.filter(|_| is_idle && !waits_for_all) {
            std::thread::sleep(at.saturating_duration_since(begin));
        }
        let now = Instant::now();
        if is_idle && std::mem::replace(&mut self.begun, true) {
            self.idle += now - begin;
        }
        let is_due = |at: &Instant| *at <= now && !waits_for_all;
        let due: Vec<_> = self.due.extract_if(.., |(at, _)| is_due(at)).collect();
        Arrivals::Requests(due.into_iter().map(|(_, id)| self.queued(id)).collect())
    }

    fn on_token(&mut self, _: u64, _: u32, _: &Completion, _: Vec<(u32, f32)>) -> bool {
        true
    }

    fn may_go_on(&self, id: u64, _: u32, _: &Completion) -> bool {
        self.going_on == GoingOn::Kept && self.active[&id].turn < self.tools.calls
    }

    fn on_end(&mut self, id: u64, sample: u32, completion: Completion) {
        self.tokens += completion.token_ids.len();
        let Some(asked) = self.active.get_mut(&id) else {
            return;
        };
        asked.left -= 1;
        let (request, turn) = (asked.request.clone(), asked.turn + 1);
        if asked.left == 0 {
            self.active.remove(&id);
        }
        if turn > self.tools.calls {
            return;
        }
        let reply = random_tokens(
            self.next_id as usize,
            self.tools.reply_tokens,
            self.vocabulary,
        );
        let prompt = [request.prompt.as_slice(), &completion.token_ids, &reply].concat();
        let next = Request::new(prompt, request.prompt_number, turn as u32, 1);
        self.ask(
            Request {
                first_sample: request.first_sample + sample,
                ..next
            },
            turn,
            Some((id, sample)),
        );
    }
}
