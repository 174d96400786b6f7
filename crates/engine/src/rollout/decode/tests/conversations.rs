//! Tests of conversations that continue in the cache.

use super::*;

/// Conversations of three completions, each following after some passes.
struct Talks {
    /// Tokens and passes until the next request, by request.
    active: BTreeMap<u64, (Vec<u32>, u64)>,
    asked: Vec<(u64, Option<(u64, u32)>)>,
    ended: BTreeMap<(u64, u32), Completion>,
    sampling: Sampling,
    keeps: bool,
    not_followed: Vec<(u64, u32)>,
}

const TURNS: u64 = 3;

impl Talks {
    fn new(keeps: bool, sampling: Sampling) -> Self {
        let first: BTreeMap<u64, (Vec<u32>, u64)> = requests()
            .into_iter()
            .map(|request| (u64::from(request.prompt_number) * 100, (request.prompt, 0)))
            .collect();
        let asked = first.keys().map(|id| (*id, None)).collect();
        Self {
            active: first,
            asked,
            ended: BTreeMap::new(),
            sampling,
            keeps,
            not_followed: Vec::new(),
        }
    }

    /// Read between two completions.
    fn reply(id: u64) -> Vec<u32> {
        (0..1 + id % 23)
            .map(|index| ((index * 5 + id) % 61) as u32)
            .collect()
    }
}

impl RequestSource for Talks {
    fn arrivals(&mut self, _: usize, is_idle: bool) -> Arrivals {
        if self.active.is_empty() {
            return Arrivals::Closed;
        }
        for (_, passes) in self.active.values_mut() {
            *passes = if is_idle { 0 } else { passes.saturating_sub(1) };
        }
        let active = &self.active;
        let due: Vec<_> = self
            .asked
            .extract_if(.., |(id, _)| active[id].1 == 0)
            .collect();
        let queued = |(id, after): (u64, Option<(u64, u32)>)| {
            let prompt = self.active[&id].0.clone();
            let later_tokens = if self.keeps { 110 - prompt.len() } else { 0 };
            let request = Request::new(prompt, id as u32, 4, if after.is_none() { 2 } else { 1 });
            QueuedRequest {
                id,
                request,
                sampling: self.sampling.clone(),
                adapter: None,
                follows: after.filter(|_| self.keeps),
                later_tokens,
                shares_prompt: false,
            }
        };
        Arrivals::Requests(due.into_iter().map(queued).collect())
    }

    fn on_token(&mut self, _: u64, _: u32, _: &Completion, _: Vec<(u32, f32)>) -> bool {
        true
    }

    fn may_go_on(&self, id: u64, _: u32, _: &Completion) -> bool {
        self.keeps && id % 100 < TURNS * 10
    }

    fn not_followed(&mut self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.not_followed)
    }

    fn on_end(&mut self, id: u64, sample: u32, completion: Completion) {
        let next = id + 10 + u64::from(sample);
        let prompt = [
            self.active[&id].0.as_slice(),
            &completion.token_ids,
            &Self::reply(next),
        ]
        .concat();
        // The last of a conversation, and where nothing follows though it might.
        match id % 100 < (TURNS - 1) * 10 && !next.is_multiple_of(7) && prompt.len() < 70 {
            true => {
                self.active.insert(next, (prompt, next % 5));
                self.asked.push((next, Some((id, sample))));
            }
            false => self.not_followed.push((id, sample)),
        }
        let of_request = self.ended.range((id, 0)..(id + 1, 0)).count() + 1;
        assert!(self.ended.insert((id, sample), completion).is_none());
        if of_request == if id.is_multiple_of(100) { 2 } else { 1 } {
            self.active.remove(&id);
        }
    }
}

#[test]
fn conversations_that_go_on_in_the_cache_draw_what_prefilled_ones_draw() {
    for model in [
        hybrid(),
        of_family("Qwen3_5MoeForCausalLM"),
        model(),
        sharing(),
        sparse(),
        windowed(),
    ] {
        let (memory, threads) = (RolloutMemory::default(), ThreadPool::new(1).unwrap());
        let decoded = |keeps: bool, draft_tokens: usize, limits: DecodeLimits| {
            let stop_ids = vec![3, 20, 37, 50];
            let sampling = Sampling {
                stop_ids,
                draft_tokens,
                records_experts: true,
                ..Sampling::plain(1.0, 15, 11)
            };
            let sizes: Vec<RequestSize> = requests()
                .iter()
                .map(|request| RequestSize {
                    later_tokens: if keeps { 110 - request.prompt.len() } else { 0 },
                    prompt_tokens: if keeps { request.prompt.len() } else { 110 },
                    samples: 2,
                    ..RequestSize::of(request)
                })
                .collect();
            let capacity = Capacity::for_list(&sizes, &sampling, limits, 0);
            let mut source = Talks::new(keeps, sampling);
            let decoded = decode_from(
                &model,
                Adapters::On,
                &mut source,
                &memory,
                (limits, capacity),
                &threads,
            );
            (source.ended, decoded.unwrap().0)
        };
        let (expected, prefilled) = decoded(false, 0, ROOM);
        assert!(expected.len() > 35, "{}", expected.len());
        let first: usize = requests().iter().map(|request| request.prompt.len()).sum();
        let ahead = DecodeLimits {
            runs_ahead: true,
            ..ROOM
        };
        for (draft_tokens, limits) in [
            (0, ROOM),
            (8, ROOM),
            (8, ahead),
            (
                0,
                DecodeLimits {
                    drafted_rows: 22,
                    ..ahead
                },
            ),
            (0, DecodeLimits { rows: 5, ..ahead }),
            (
                8,
                DecodeLimits {
                    places: places(300),
                    ..ahead
                },
            ),
            (
                0,
                DecodeLimits {
                    places: places(130),
                    parked_bytes: 0,
                    ..ROOM
                },
            ),
        ] {
            let (found, counts) = decoded(true, draft_tokens, limits);
            assert_eq!(
                found.keys().collect::<Vec<_>>(),
                expected.keys().collect::<Vec<_>>(),
                "{limits:?}"
            );
            for (id, found) in &found {
                let expected = &expected[id];
                assert_eq!(
                    (&found.token_ids, found.stop),
                    (&expected.token_ids, expected.stop),
                    "{id:?} {limits:?}"
                );
                assert_eq!(found.experts, expected.experts, "{id:?} {limits:?}");
                let differences = found
                    .log_probs
                    .iter()
                    .zip(&expected.log_probs)
                    .map(|(a, b)| (a - b).abs());
                let largest = differences.fold(0.0, f32::max);
                assert!(
                    largest < 1e-3,
                    "{largest} {id:?} {limits:?} {:?}",
                    model.config().architecture
                );
            }
            // With room only first prompts are prefilled.
            let is_roomy = limits.places == CachePlaces::UNLIMITED && limits.rows == usize::MAX;
            assert!(
                !is_roomy || counts.prefilled == first,
                "{counts:?}, prompts of {first} tokens"
            );
            // Without, completions are dropped and restarted.
            let is_short = limits.rows < 36 || limits.parked_bytes == 0;
            assert!(
                is_short || counts.prefilled < prefilled.prefilled,
                "{counts:?} {prefilled:?} {limits:?}"
            );
        }
    }
}

/// Requests of one sample that begin with the same prompts; some come later.
struct Alike {
    waiting: Vec<QueuedRequest>,
    passes: usize,
    ended: BTreeMap<u64, Completion>,
}

impl RequestSource for Alike {
    fn arrivals(&mut self, _: usize, is_idle: bool) -> Arrivals {
        self.passes += 1;
        if self.waiting.is_empty() {
            return Arrivals::Closed;
        }
        let come = match self.passes {
            1 => 7,
            _ => usize::from(is_idle || self.passes.is_multiple_of(2)),
        };
        Arrivals::Requests(self.waiting.drain(..come).collect())
    }

    fn on_token(&mut self, _: u64, _: u32, _: &Completion, _: Vec<(u32, f32)>) -> bool {
        true
    }

    fn on_end(&mut self, id: u64, _: u32, completion: Completion) {
        assert!(self.ended.insert(id, completion).is_none());
    }
}

#[test]
fn a_prompt_with_which_several_requests_begin_is_prefilled_once() {
    const SAMPLES: u32 = 5;
    let prompts = [2, 5];
    for model in [model(), hybrid(), sparse(), sharing()] {
        let threads = ThreadPool::new(1).unwrap();
        let sampling = Sampling {
            records_experts: true,
            ..Sampling::plain(1.0, 12, 11)
        };
        let all = requests();
        let together: Vec<Request> = prompts
            .map(|index: usize| Request {
                samples: SAMPLES as usize,
                greedy: false,
                ..all[index].clone()
            })
            .into();
        let memory = RolloutMemory::default();
        let expected = decode(&model, &together, &sampling, &memory, ROOM, &threads).unwrap();
        let ahead = DecodeLimits {
            runs_ahead: true,
            ..ROOM
        };
        let few = DecodeLimits { rows: 4, ..ROOM };
        // As many states as rows.
        let exact = DecodeLimits {
            drafted_rows: 0,
            ..few
        };
        let cases = [
            (ROOM, true),
            (ahead, true),
            (few, true),
            (exact, true),
            (ROOM, false),
        ];
        for (limits, shares_prompt) in cases {
            let queued = |id: u32| {
                let (prompt, sample) = (id % 2, id / 2);
                let request = Request {
                    samples: 1,
                    first_sample: sample,
                    ..together[prompt as usize].clone()
                };
                QueuedRequest {
                    id: id.into(),
                    request,
                    sampling: sampling.clone(),
                    adapter: None,
                    follows: None,
                    later_tokens: 0,
                    shares_prompt,
                }
            };
            let mut source = Alike {
                waiting: (0..2 * SAMPLES).map(queued).collect(),
                passes: 0,
                ended: BTreeMap::new(),
            };
            let sizes: Vec<RequestSize> = (source.waiting.iter())
                .map(|queued| RequestSize::of(&queued.request))
                .collect();
            let capacity = (limits, Capacity::for_list(&sizes, &sampling, limits, 0));
            let source_of = &mut source;
            let decoded = decode_from(&model, Adapters::On, source_of, &memory, capacity, &threads);
            let tokens = |found: &Completion| (found.token_ids.clone(), found.experts.clone());
            for (id, found) in &source.ended {
                let expected = &expected.completions[*id as usize % 2][*id as usize / 2];
                assert_eq!(tokens(found), tokens(expected), "{id} {limits:?}");
            }
            assert_eq!(source.ended.len(), 2 * SAMPLES as usize);
            let once: usize = together.iter().map(|one| one.prompt.len()).sum();
            let prefilled = decoded.unwrap().0.prefilled;
            let of_each = once * SAMPLES as usize;
            // With few rows all of one prompt may have ended before the next begins.
            let fits = match (shares_prompt, limits.rows < 2 * SAMPLES as usize) {
                (false, _) => prefilled == of_each,
                (true, false) => prefilled == once,
                (true, true) => prefilled < of_each,
            };
            assert!(fits, "{prefilled} of {once} {limits:?}");
        }
    }
}

/// Conversations of many calls, whose replies come at once; ids are `conversation * 100 + turn`.
struct ManyCalls {
    asked: Vec<(u64, Vec<u32>)>,
    left: usize,
    ended: BTreeMap<u64, Completion>,
    sampling: Sampling,
}

const CALLS: u64 = 50;
const REPLY: [u32; 2] = [7, 9];

impl RequestSource for ManyCalls {
    fn arrivals(&mut self, _: usize, _: bool) -> Arrivals {
        if self.left == 0 {
            return Arrivals::Closed;
        }
        let new = self.sampling.max_completion_tokens;
        let queued = |(id, prompt): (u64, Vec<u32>)| {
            let turn = id % 100;
            QueuedRequest {
                id,
                request: Request::new(prompt, (id / 100) as u32, turn as u32, 1),
                sampling: self.sampling.clone(),
                adapter: None,
                follows: (turn > 0).then(|| (id - 1, 0)),
                later_tokens: (CALLS - turn) as usize * (new + REPLY.len()),
                shares_prompt: false,
            }
        };
        Arrivals::Requests(self.asked.drain(..).map(queued).collect())
    }

    fn on_token(&mut self, _: u64, _: u32, _: &Completion, _: Vec<(u32, f32)>) -> bool {
        true
    }

    fn may_go_on(&self, id: u64, _: u32, _: &Completion) -> bool {
        id % 100 < CALLS
    }

    fn on_end(&mut self, id: u64, _: u32, completion: Completion) {
        let before = self.ended.range(id - id % 100..id);
        let before = before.flat_map(|(_, one)| one.token_ids.iter().chain(&REPLY));
        let prompt = requests()[id as usize / 100].prompt.clone();
        let read = prompt.iter().chain(before).chain(&completion.token_ids);
        match id % 100 < CALLS {
            true => {
                let next = read.chain(&REPLY).copied().collect();
                self.asked.push((id + 1, next));
            }
            false => self.left -= 1,
        }
        self.ended.insert(id, completion);
    }
}

#[test]
fn a_conversation_of_fifty_calls_computes_and_records_each_token_once() {
    let positions = r#","max_position_embeddings":512"#;
    for family in ["Qwen3MoeForCausalLM", "Qwen3_5ForCausalLM"] {
        let (model, threads) = (with_keys(family, positions), ThreadPool::new(1).unwrap());
        let sampling = Sampling {
            records_experts: true,
            draft_tokens: 0,
            ..Sampling::plain(1.0, 3, 11)
        };
        let first: Vec<Request> = requests().into_iter().take(3).collect();
        let mut source = ManyCalls {
            asked: (0..)
                .step_by(100)
                .zip(&first)
                .map(|(id, one)| (id, one.prompt.clone()))
                .collect(),
            left: first.len(),
            ended: BTreeMap::new(),
            sampling: sampling.clone(),
        };
        let later_tokens = CALLS as usize * (3 + REPLY.len());
        let size = |request: &Request| RequestSize {
            later_tokens,
            samples: 1,
            ..RequestSize::of(request)
        };
        let sizes: Vec<RequestSize> = first.iter().map(size).collect();
        let capacity = (ROOM, Capacity::for_list(&sizes, &sampling, ROOM, 0));
        let memory = RolloutMemory::default();
        let source_of = &mut source;
        let decoded = decode_from(&model, Adapters::On, source_of, &memory, capacity, &threads);
        let (counts, _) = decoded.unwrap();
        let prompts: usize = first.iter().map(|one| one.prompt.len()).sum();
        // The last token is read by nobody.
        let others = first.len() * (3 + later_tokens - 1);
        assert_eq!(
            (counts.prefilled, counts.computed),
            (prompts, others),
            "{counts:?}"
        );
        let records = source.ended.values().map(|one| one.experts.as_ref());
        let records: Vec<_> = records.collect::<Option<_>>().unwrap_or_default();
        assert_eq!(records.is_empty(), family == "Qwen3_5ForCausalLM");
        for record in records.windows(2) {
            let [before, after] = [0, 1].map(|index| record[index].prompt.as_slice());
            let is_same_talk = after.len() > 1;
            let shared = before.iter().zip(after).take(before.len() - 1);
            let mut shared = shared.chain(before.first().zip(after.first()));
            assert!(!is_same_talk || shared.all(|(one, other)| Arc::ptr_eq(one, other)));
        }
    }
}
