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
                    has_branches: false,
                    samples: 2,
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
                    kv_slots: 300,
                    ..ahead
                },
            ),
            (
                0,
                DecodeLimits {
                    kv_slots: 130,
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
            let is_roomy = limits.kv_slots == usize::MAX && limits.rows == usize::MAX;
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
