//! Tests that drafts, slots and running ahead change speed, not samples.

use candle_core::{DType, Device};

use super::super::QueueSize;
use super::*;
use crate::hub::ModelConfig;
use crate::model::{PackedBatch, PassExperts, Trainable, Weights};
use crate::plan::CachePlaces;
use crate::rollout::source::FixedRequests;
use crate::rollout::{Request, RequestSize, RolloutOutput, Sampling, StopReason};

mod conversations;

const ROOM: DecodeLimits = DecodeLimits {
    rows: usize::MAX,
    places: CachePlaces::UNLIMITED,
    parked_bytes: usize::MAX,
    initial_slots: 4,
    prefill_rows: usize::MAX,
    drafted_rows: 1000,
    balanced_rows: 1_000_000,
    runs_ahead: false,
    padded: |rows| rows,
    padded_drafted: |rows| rows,
};

/// The prompts of [`requests`].
const PROMPT_TOKENS: usize = 171;

/// For these prompts and `kv_slots` tokens of completions.
fn places(kv_slots: usize) -> CachePlaces {
    CachePlaces {
        all: PROMPT_TOKENS + kv_slots,
        prompts: PROMPT_TOKENS,
    }
}

/// A model of 61 tokens, with weights so sharp that completions repeat themselves.
fn model() -> Decoder {
    of_family("Qwen3ForCausalLM")
}

/// One attention layer, and one of the gated delta rule.
fn hybrid() -> Decoder {
    of_family("Qwen3_5ForCausalLM")
}

fn of_family(name: &str) -> Decoder {
    with_keys(name, "")
}

fn with_keys(name: &str, own: &str) -> Decoder {
    let json = r#"{"vocab_size":61,"hidden_size":32,"intermediate_size":48,
        "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"rms_norm_eps":1e-6,
        "rope_theta":10000.0,"tie_word_embeddings":false,"max_position_embeddings":128,"hidden_act":"silu",
        "full_attention_interval":2,"linear_num_key_heads":2,"linear_num_value_heads":4,"linear_key_head_dim":8,
        "linear_value_head_dim":8,"num_experts":6,"num_experts_per_tok":2,"moe_intermediate_size":16,
        "shared_expert_intermediate_size":20,"sliding_window":5,"architectures":["#;
    let config = ModelConfig::parse(&format!("{json}\"{name}\"]{own}}}"), "config.json").unwrap();
    let fresh = Weights::fresh(&config, 5).stored(&config);
    let tensors = fresh.unwrap().into_iter().map(|(name, tensor)| {
        let factor = if name.contains("lm_head") { 60.0 } else { 1.5 };
        (name, tensor.affine(factor, 0.0).unwrap())
    });
    let weights = Weights::from_tensors(tensors, "test");
    Decoder::new(
        &config,
        &weights,
        Trainable::Frozen,
        1,
        DType::F32,
        &Device::Cpu,
    )
    .unwrap()
}

/// Experts in both layers.
fn sparse() -> Decoder {
    of_family("Qwen3MoeForCausalLM")
}

/// A window, sinks and experts with biases.
fn windowed() -> Decoder {
    of_family("GptOssForCausalLM")
}

/// Shared keys and values, per-layer inputs, capped logits.
fn sharing() -> Decoder {
    let own = r#","num_hidden_layers":5,"num_kv_shared_layers":2,"global_head_dim":24,"final_logit_softcapping":9.0,
        "layer_types":["sliding_attention","full_attention","sliding_attention","sliding_attention","full_attention"],
        "vocab_size_per_layer_input":61,"hidden_size_per_layer_input":8"#;
    with_keys("Gemma4ForCausalLM", own)
}

fn requests() -> Vec<Request> {
    let prompt = |n: u32| (0..3 + n * 4).map(|i| (i * 7 + n) % 61).collect();
    (0..9)
        .map(|n| Request {
            greedy: n % 3 == 2,
            ..Request::new(prompt(n), n, 4, 4)
        })
        .collect()
}

fn sampled(
    limits: DecodeLimits,
    temperature: f64,
    draft_tokens: usize,
    memory: &RolloutMemory,
) -> RolloutOutput {
    sampled_by(&model(), limits, temperature, draft_tokens, memory)
}

/// The completions of each request within `limits`.
fn decode(
    model: &Decoder,
    requests: &[Request],
    sampling: &Sampling,
    memory: &RolloutMemory,
    limits: DecodeLimits,
    threads: &ThreadPool,
) -> Result<RolloutOutput> {
    let sizes: Vec<RequestSize> = requests.iter().map(RequestSize::of).collect();
    let capacity = (
        limits,
        Capacity::for_list(&sizes, sampling, limits, memory.halvings()),
    );
    let mut source = FixedRequests::new(requests, sampling);
    let (counts, gpu_fallbacks) =
        decode_from(model, Adapters::On, &mut source, memory, capacity, threads)?;
    Ok(RolloutOutput {
        completions: source.completions(),
        counts,
        gpu_fallbacks,
    })
}

fn sampled_by(
    model: &Decoder,
    limits: DecodeLimits,
    temperature: f64,
    draft_tokens: usize,
    memory: &RolloutMemory,
) -> RolloutOutput {
    let stop_ids = vec![3, 20, 37, 50];
    let sampling = Sampling {
        stop_ids,
        draft_tokens,
        records_experts: true,
        ..Sampling::plain(temperature, 40, 11)
    };
    let threads = ThreadPool::new(1).unwrap();
    decode(model, &requests(), &sampling, memory, limits, &threads).unwrap()
}

fn tokens(generated: &RolloutOutput) -> Vec<(&[u32], StopReason)> {
    generated
        .completions
        .iter()
        .flatten()
        .map(|found| (found.token_ids.as_slice(), found.stop))
        .collect()
}

/// Tokens but for the first of each completion.
fn tokens_after_first(generated: &RolloutOutput) -> usize {
    generated
        .completions
        .iter()
        .flatten()
        .map(|found| found.token_ids.len() - 1)
        .sum()
}

/// Equal tokens, and log-probs up to rounding.
fn assert_same(found: &RolloutOutput, expected: &RolloutOutput, what: &str) {
    assert_eq!(tokens(found), tokens(expected), "{what}");
    let log_probs = |generated: &RolloutOutput| -> Vec<f32> {
        generated
            .completions
            .iter()
            .flatten()
            .flat_map(|completion| completion.log_probs.clone())
            .collect()
    };
    let (found, expected) = (log_probs(found), log_probs(expected));
    assert!(
        found
            .iter()
            .zip(&expected)
            .all(|(a, b)| (a - b).abs() < 1e-4),
        "log-probs, {what}"
    );
}

#[test]
fn drafts_change_the_number_of_steps_alone() {
    let dense = [(model(), 0.0), (model(), 0.7), (model(), 1.0)];
    let mixtures = [
        (sparse(), 0.0),
        (sparse(), 1.0),
        (windowed(), 0.0),
        (windowed(), 1.0),
    ];
    let sharing = [(sharing(), 0.0), (sharing(), 1.0)];
    for (model, temperature) in dense.into_iter().chain(mixtures).chain(sharing) {
        let plain = sampled_by(&model, ROOM, temperature, 0, &RolloutMemory::default());
        assert_eq!((plain.counts.drafted, plain.counts.accepted), (0, 0));
        let mut memory = RolloutMemory::default();
        let own = sampled_by(&model, ROOM, temperature, 8, &memory);
        memory.history.add(
            1,
            plain
                .completions
                .iter()
                .flatten()
                .map(|found| found.token_ids.as_slice()),
            0,
        );
        let known = sampled_by(&model, ROOM, temperature, 8, &memory);
        for drafted in [&own, &known] {
            assert_same(drafted, &plain, &format!("temperature {temperature}"));
            let counts = drafted.counts;
            assert!(
                counts.accepted <= counts.drafted && counts.steps <= plain.counts.steps,
                "{counts:?}"
            );
            // Every token but the first is sampled by a step, with its own row or as a draft.
            assert_eq!(counts.rows + counts.accepted, tokens_after_first(drafted));
        }
        assert!(
            known.counts.steps * 2 < plain.counts.steps,
            "{:?} of {:?}",
            known.counts,
            plain.counts
        );
    }
}

#[test]
fn states_go_back_where_a_draft_does_not_hold() {
    let model = hybrid();
    for temperature in [0.0, 0.7, 1.0] {
        let plain = sampled_by(&model, ROOM, temperature, 0, &RolloutMemory::default());
        let mut memory = RolloutMemory::default();
        memory.history.add(
            1,
            plain
                .completions
                .iter()
                .flatten()
                .map(|found| found.token_ids.as_slice()),
            0,
        );
        let known = sampled_by(&model, ROOM, temperature, 8, &memory);
        assert_same(&known, &plain, &format!("temperature {temperature}"));
        assert!(
            known.counts.steps * 2 < plain.counts.steps,
            "{:?} of {:?}",
            known.counts,
            plain.counts
        );
        for limits in [
            DecodeLimits { rows: 8, ..ROOM },
            DecodeLimits {
                places: places(110),
                drafted_rows: 12,
                ..ROOM
            },
            DecodeLimits {
                places: places(41),
                ..ROOM
            },
            DecodeLimits {
                rows: 3,
                prefill_rows: 1,
                ..ROOM
            },
        ] {
            let found = sampled_by(&model, limits, temperature, 8, &RolloutMemory::default());
            assert_same(
                &found,
                &plain,
                &format!("temperature {temperature}, {limits:?}"),
            );
            let counts = found.counts;
            assert!(
                temperature > 0.0 || counts.accepted < counts.drafted,
                "every draft held: {counts:?}"
            );
        }
    }
}

#[test]
fn passes_that_run_ahead_draw_the_same() {
    let ahead = DecodeLimits {
        runs_ahead: true,
        ..ROOM
    };
    for (temperature, draft_tokens) in [(0.0, 0), (1.0, 0), (0.7, 8)] {
        let plain = sampled(ROOM, temperature, draft_tokens, &RolloutMemory::default());
        for limits in [
            ahead,
            DecodeLimits { rows: 8, ..ahead },
            DecodeLimits {
                rows: 4,
                drafted_rows: 3,
                ..ahead
            },
        ] {
            let found = sampled(limits, temperature, draft_tokens, &RolloutMemory::default());
            assert_same(
                &found,
                &plain,
                &format!("temperature {temperature}, {limits:?}"),
            );
            if draft_tokens == 0 {
                let (found, plain) = (found.counts, plain.counts);
                // A row that reaches its limit is not computed again.
                assert!(
                    found.rows == plain.rows && found.computed > plain.computed,
                    "{found:?} {plain:?}"
                );
            }
        }
    }
}

#[test]
fn completions_grow_in_a_cache_that_has_no_room_for_all_at_their_longest() {
    for (temperature, draft_tokens) in [(0.0, 0), (1.0, 0), (0.7, 8)] {
        let plain = sampled(ROOM, temperature, draft_tokens, &RolloutMemory::default());
        // Slots for the longest alone; some; half of all.
        for places in [40, 41, 110, 500].map(places) {
            for limits in [
                DecodeLimits { places, ..ROOM },
                DecodeLimits {
                    places,
                    parked_bytes: 10_000,
                    ..ROOM
                },
                DecodeLimits {
                    places,
                    runs_ahead: true,
                    drafted_rows: 12,
                    ..ROOM
                },
            ] {
                let found = sampled(limits, temperature, draft_tokens, &RolloutMemory::default());
                assert_same(
                    &found,
                    &plain,
                    &format!("temperature {temperature}, {limits:?}"),
                );
                assert_eq!(
                    found.counts.rows + found.counts.accepted,
                    tokens_after_first(&found),
                    "{limits:?}"
                );
                // Parked rows resume; one without host memory restarts.
                let is_exact =
                    !limits.runs_ahead && limits.parked_bytes == usize::MAX && draft_tokens == 0;
                assert!(
                    !is_exact || found.counts.computed == plain.counts.computed,
                    "{:?} {limits:?}",
                    found.counts
                );
            }
        }
        let memory = RolloutMemory::default();
        while memory.halve(36) {
            let what = format!(
                "temperature {temperature}, halved {} times",
                memory.halvings()
            );
            assert_same(
                &sampled(ROOM, temperature, draft_tokens, &memory),
                &plain,
                &what,
            );
        }
        // With slots for a fourth of the longest, more than a fourth of the rows are decoded
        // together.
        let few = sampled(
            DecodeLimits {
                places: places(360),
                ..ROOM
            },
            temperature,
            0,
            &RolloutMemory::default(),
        );
        let all = 36 * 40;
        let bounded = sampled(
            DecodeLimits {
                rows: 360 / 40,
                ..ROOM
            },
            temperature,
            0,
            &RolloutMemory::default(),
        );
        assert!(
            360 * 4 == all && few.counts.steps < bounded.counts.steps,
            "{:?} {:?}",
            few.counts,
            bounded.counts
        );
    }
}

#[test]
fn rows_that_end_make_room_for_the_next_prompts() {
    let all = sampled(ROOM, 1.0, 0, &RolloutMemory::default());
    let check = |limits: DecodeLimits, draft_tokens: usize| {
        let found = sampled(limits, 1.0, draft_tokens, &RolloutMemory::default());
        assert_eq!(tokens(&found), tokens(&all), "{limits:?}");
        found.counts
    };
    let counts = check(DecodeLimits { rows: 8, ..ROOM }, 0);
    // Prompts do not wait for each other's longest completion.
    assert!(
        counts.steps < 5 * 39 && counts.rows == all.counts.rows,
        "{counts:?}"
    );
    check(DecodeLimits { rows: 8, ..ROOM }, 8);
    // One completion more than rows; one prompt at a time; room for the longest prompt alone.
    check(DecodeLimits { rows: 3, ..ROOM }, 0);
    check(
        DecodeLimits {
            prefill_rows: 1,
            ..ROOM
        },
        0,
    );
    check(
        DecodeLimits {
            rows: 16,
            places: CachePlaces {
                all: 16 * 40 + 35,
                prompts: 35,
            },
            ..ROOM
        },
        0,
    );
    check(
        DecodeLimits {
            rows: 12,
            places: CachePlaces {
                all: 12 * 40 + 60,
                prompts: 60,
            },
            prefill_rows: 20,
            ..ROOM
        },
        8,
    );
}

/// Yields one request at a time, and drops some completions midway.
struct Trickle {
    left: Vec<QueuedRequest>,
    /// Length at which a request's completions are dropped.
    dropped_at: BTreeMap<u64, usize>,
    told: BTreeMap<(u64, u32), Vec<u32>>,
    ended: BTreeMap<(u64, u32), Completion>,
    /// Maximum number of completions decoded together.
    together: usize,
}

impl RequestSource for Trickle {
    fn arrivals(&mut self, rows: usize, _: bool) -> Arrivals {
        if self.left.is_empty() {
            return Arrivals::Closed;
        }
        Arrivals::Requests(if rows < 4 {
            Vec::new()
        } else {
            vec![self.left.remove(0)]
        })
    }

    fn on_token(
        &mut self,
        id: u64,
        sample: u32,
        completion: &Completion,
        _: Vec<(u32, f32)>,
    ) -> bool {
        let told = self.told.entry((id, sample)).or_default();
        told.extend(completion.token_ids.last());
        assert_eq!(*told, completion.token_ids, "every token is told once");
        let length = told.len();
        self.together = self.together.max(self.told.len() - self.ended.len());
        self.dropped_at.get(&id).is_none_or(|limit| length < *limit)
    }

    fn on_end(&mut self, id: u64, sample: u32, completion: Completion) {
        assert!(self.ended.insert((id, sample), completion).is_none());
    }
}

#[test]
fn a_queue_that_is_filled_meanwhile_gives_each_request_what_it_has_alone() {
    let sampling = |index: usize| Sampling {
        stop_ids: if index.is_multiple_of(2) {
            vec![3, 20, 37, 50]
        } else {
            Vec::new()
        },
        draft_tokens: if index.is_multiple_of(4) { 0 } else { 8 },
        ..Sampling::plain(
            [1.0, 0.0, 0.7][index % 3],
            10 + 5 * (index % 4),
            index as u64,
        )
    };
    let (models, threads) = ([model(), hybrid(), sharing()], ThreadPool::new(1).unwrap());
    let size = QueueSize {
        rows: 12,
        tokens: 290,
        longest_prompt: 128,
    };
    let memory = RolloutMemory::default();
    let requests = requests();
    let queued = |(index, request): (usize, &Request)| QueuedRequest {
        id: 100 - index as u64,
        request: request.clone(),
        sampling: sampling(index),
        adapter: None,
        follows: None,
        later_tokens: 0,
        shares_prompt: false,
    };
    // With recurrent states, drafts need theirs before the next pass.
    for (model, runs_ahead) in [(&models[0], false), (&models[0], true), (&models[1], false)] {
        let limits = DecodeLimits { runs_ahead, ..ROOM };
        let mut source = Trickle {
            left: requests.iter().enumerate().map(queued).collect(),
            dropped_at: BTreeMap::from([(100 - 3, 1), (100 - 5, 7)]),
            told: BTreeMap::new(),
            ended: BTreeMap::new(),
            together: 0,
        };
        let capacity = Capacity::for_queue(size, 8, 0);
        decode_from(
            model,
            Adapters::On,
            &mut source,
            &memory,
            (limits, capacity),
            &threads,
        )
        .unwrap();
        assert!((9..=12).contains(&source.together), "{}", source.together);
        assert_eq!(source.ended.len(), requests.len() * 4);
        for (index, request) in requests.iter().enumerate() {
            let (one, id) = (std::slice::from_ref(request), 100 - index as u64);
            let alone = decode(model, one, &sampling(index), &memory, ROOM, &threads).unwrap();
            for (sample, expected) in (0..).zip(&alone.completions[0]) {
                let limit = source.dropped_at.get(&id).copied().unwrap_or(usize::MAX);
                let expected = &expected.token_ids[..expected.token_ids.len().min(limit)];
                assert_eq!(
                    source.ended[&(id, sample)].token_ids,
                    expected,
                    "request {index}, ahead: {runs_ahead}"
                );
            }
        }
    }
}

/// Experts recorded by prefill and decoding, with drafts, parked rows and growing slots, equal
/// those of one forward of all completions packed side by side.
#[test]
fn recorded_experts_are_those_of_packed_rows() {
    let beside = r#","enable_moe_block":true,"top_k_experts":2,"vocab_size_per_layer_input":61"#;
    let beside = with_keys("Gemma4ForCausalLM", beside);
    for model in [
        sparse(),
        windowed(),
        of_family("Qwen3_5MoeForCausalLM"),
        beside,
    ] {
        let layers = model.expert_layers().unwrap();
        let ahead = DecodeLimits {
            runs_ahead: true,
            ..ROOM
        };
        let little = DecodeLimits {
            places: places(110),
            ..ahead
        };
        let given_up = DecodeLimits {
            parked_bytes: 0,
            ..little
        };
        for (limits, draft_tokens) in [(ROOM, 0), (ROOM, 8), (ahead, 8), (little, 8), (given_up, 0)]
        {
            let mut memory = RolloutMemory::default();
            let plain = sampled_by(&model, limits, 1.0, 0, &memory);
            memory.history.add(
                1,
                plain
                    .completions
                    .iter()
                    .flatten()
                    .map(|found| found.token_ids.as_slice()),
                0,
            );
            let output = sampled_by(&model, limits, 1.0, draft_tokens, &memory);
            let accepted = output.counts.accepted;
            let rejected = output.counts.drafted - output.counts.accepted;
            assert_eq!(
                (accepted > 20, rejected > 20),
                (draft_tokens > 0, draft_tokens > 0),
                "{:?}",
                output.counts
            );
            let mut compared = 0;
            for (request, completions) in requests().iter().zip(&output.completions) {
                let mut packed = PackedBatch::default();
                let prompt = packed.push_prompt(&request.prompt);
                let places: Vec<_> = completions
                    .iter()
                    .map(|own| packed.push_completion(prompt, &own.token_ids))
                    .collect();
                let selected = layers.room(packed.rows(), &Device::Cpu).unwrap();
                model
                    .prefill(&packed, Some(&selected), Adapters::On.into(), |_, _| Ok(()))
                    .unwrap();
                let selected = PassExperts::read(&selected, layers).unwrap();
                for (completion, place) in completions.iter().zip(places) {
                    let record = completion.experts.as_ref().unwrap();
                    let mut expected = [Vec::new(), Vec::new()];
                    selected.append(0..prompt.length, &mut expected[0]);
                    place.rows[1..].iter().for_each(|&row| {
                        selected.append(row as usize..row as usize + 1, &mut expected[1]);
                    });
                    assert_eq!(
                        [&*record.prompt[0], &*record.completion],
                        [&expected[0], &expected[1]]
                    );
                    compared += record.prompt[0].len() + record.completion.len();
                }
            }
            assert!(compared > 4000, "{compared}");
        }
    }
}

#[test]
fn experts_are_recorded_where_they_are_asked_for_and_there_are_some() {
    let check = |model: &Decoder, records_experts, expected| {
        let sampling = Sampling {
            records_experts,
            ..Sampling::plain(1.0, 5, 1)
        };
        let (memory, threads) = (RolloutMemory::default(), ThreadPool::calling());
        let output = decode(model, &requests(), &sampling, &memory, ROOM, &threads).unwrap();
        assert!(
            output
                .completions
                .iter()
                .flatten()
                .all(|own| own.experts.is_some() == expected)
        );
    };
    check(&sparse(), true, true);
    check(&sparse(), false, false);
    check(&model(), true, false);
}
