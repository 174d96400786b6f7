//! Conversations with a slow tool: completions of random lengths, replies of random tokens. The
//! same whenever their requests are decoded.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use candle_core::Result;
use parking_lot::Mutex;

use super::gpu::{Bench, ToolCalls};
use super::timing::median;
use super::{Measurement, random_tokens, sampling};
use grpo_tui_engine::kernels::philox::philox;
use grpo_tui_engine::model::Adapters;
use grpo_tui_engine::rollout::{
    Arrivals, Completion, QueuedRequest, Request, RequestSize, RequestSource, RolloutMemory,
    Sampling, SizedSource, generate_from,
};

/// How a conversation continues after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GoingOn {
    /// Its cache is kept.
    Kept,
    /// Its prompt is prefilled again.
    Prefilled,
    /// Prefilled again, once all conversations have their replies.
    Together,
}

/// Relative spread of completion lengths around the bench's.
const SPREAD: f64 = 0.5;

/// Time in which neither a rollout nor an update gives the device work.
#[derive(Debug, Default)]
pub(super) struct IdleClock(Mutex<IdleTime>);

#[derive(Debug, Default)]
struct IdleTime {
    working: usize,
    since: Option<Instant>,
    total: Duration,
}

impl IdleClock {
    pub(super) fn begin_work(&self) {
        let mut time = self.0.lock();
        time.working += 1;
        let idle = time.since.take();
        time.total += idle.map_or(Duration::ZERO, |since| since.elapsed());
    }

    pub(super) fn end_work(&self) {
        let mut time = self.0.lock();
        time.working -= 1;
        time.since = (time.working == 0).then(Instant::now);
    }

    pub(super) fn seconds(&self) -> f64 {
        self.0.lock().total.as_secs_f64()
    }
}

/// Tokens of a conversation's completion.
fn length(new_tokens: usize, prompt: u32, sample: u32, turn: usize) -> usize {
    let share = f64::from(philox(3, [prompt, sample, turn as u32, 0])[0]) / f64::from(u32::MAX);
    let length = new_tokens as f64 * (1.0 - SPREAD + 2.0 * SPREAD * share);
    length.round().max(1.0) as usize
}

fn most_new_tokens(new_tokens: usize) -> usize {
    (new_tokens as f64 * (1.0 + SPREAD)).ceil() as usize
}

fn later_tokens(tools: ToolCalls, new_tokens: usize, turn: usize) -> usize {
    (tools.calls - turn) * (most_new_tokens(new_tokens) + tools.reply_tokens)
}

/// Conversations of a rollout; each of `requests` starts some.
pub(super) struct Conversations<'a> {
    tools: ToolCalls,
    going_on: GoingOn,
    new_tokens: usize,
    vocabulary: usize,
    /// Pending requests by id.
    active: BTreeMap<u64, Asked>,
    due: Vec<(Instant, u64)>,
    next_id: u64,
    clock: &'a IdleClock,
    tokens: usize,
}

/// A request, and its conversation before it.
struct Asked {
    request: Request,
    turn: usize,
    after: Option<(u64, u32)>,
    left: usize,
}

impl<'a> Conversations<'a> {
    pub(super) fn new(
        requests: &[Request],
        (tools, going_on): (ToolCalls, GoingOn),
        (new_tokens, vocabulary): (usize, usize),
        clock: &'a IdleClock,
    ) -> Self {
        let mut own = Self {
            tools,
            going_on,
            new_tokens,
            vocabulary,
            active: BTreeMap::new(),
            due: Vec::new(),
            next_id: 0,
            clock,
            tokens: 0,
        };
        requests
            .iter()
            .for_each(|request| own.ask(request.clone(), 0, None));
        own
    }

    pub(super) fn sampling(new_tokens: usize) -> Sampling {
        sampling(most_new_tokens(new_tokens))
    }

    /// Cache sizes of the requests.
    pub(super) fn sizes(&self) -> Vec<RequestSize> {
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
        later_tokens(self.tools, self.new_tokens, turn)
    }

    fn ask(&mut self, mut request: Request, turn: usize, after: Option<(u64, u32)>) {
        let (id, left) = (self.next_id, request.samples);
        let samples = request.first_sample..request.first_sample + left as u32;
        let own = |sample| length(self.new_tokens, request.prompt_number, sample, turn);
        request.lengths = samples.map(own).collect();
        let asked = Asked {
            request,
            turn,
            after,
            left,
        };
        self.active.insert(id, asked);
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
            sampling: Self::sampling(self.new_tokens),
            adapter: None,
            follows: after.filter(|_| is_kept),
            later_tokens: if is_kept { self.later_tokens(*turn) } else { 0 },
            shares_prompt: false,
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
        let shape = format!("{prompts} x {completions}, {tools}");
        for (name, going_on) in [
            ("conversations", GoingOn::Kept),
            ("conversations, prefilled", GoingOn::Prefilled),
            ("conversations, prefilled together", GoingOn::Together),
        ] {
            let memory = RolloutMemory::default();
            let (mut idle, mut tokens, mut prefilled) = (0.0, 0, 0);
            let whole = median(2, || {
                let clock = IdleClock::default();
                let sizes = (new, self.config.vocab_size);
                let mut source = Conversations::new(&requests, (tools, going_on), sizes, &clock);
                let sampling = Conversations::sampling(new);
                self.engine.synchronize()?;
                let start = Instant::now();
                clock.begin_work();
                let model = (self.model, Adapters::On);
                let sizes = source.sizes();
                let sources = [SizedSource::new(&mut source, sizes)];
                let (counts, _) = generate_from(model, &sources, &sampling, &memory, self.threads)?;
                drop(sources);
                let seconds = start.elapsed().as_secs_f64();
                (idle, tokens, prefilled) =
                    (clock.seconds() / seconds, source.tokens, counts.prefilled);
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

impl RequestSource for Conversations<'_> {
    fn arrivals(&mut self, _: usize, is_idle: bool) -> Arrivals {
        if self.active.is_empty() {
            return Arrivals::Closed;
        }
        let together = self.going_on == GoingOn::Together;
        let waits_for_all = together && self.due.len() < self.active.len();
        let times = self.due.iter().map(|(at, _)| *at);
        let wanted = if together { times.max() } else { times.min() };
        if let Some(at) = wanted.filter(|_| is_idle && !waits_for_all) {
            self.clock.end_work();
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            self.clock.begin_work();
        }
        let now = Instant::now();
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
        let (prompt, sample_of_prompt) = (request.prompt_number, request.first_sample + sample);
        if turn > self.tools.calls {
            return;
        }
        let stream = philox(4, [prompt, sample_of_prompt, turn as u32, 0])[0] as usize;
        let reply = random_tokens(stream, self.tools.reply_tokens, self.vocabulary);
        let read = [request.prompt.as_slice(), &completion.token_ids, &reply].concat();
        let next = Request {
            first_sample: sample_of_prompt,
            ..Request::new(read, prompt, turn as u32, 1)
        };
        self.ask(next, turn, Some((id, sample)));
    }
}
