//! Rollouts: what was sampled is what the model says, whatever the batch; random numbers belong to their place.

use candle_core::{DType, Device, Tensor};
use grpo_tui::config::{BasePrecision, PolicyLoss};
use grpo_tui::hub::ModelConfig;
use grpo_tui::kernels::philox::{SampleKey, uniform};
use grpo_tui::kernels::sampler::{SampleParams, sample_tokens};
use grpo_tui::model::{Adapters, Decoder, Trainable, Weights};
use grpo_tui::policy::{
    ConverseSettings, Policy, PolicyVersion, Prompt, Question, ScoredRow, ScoredTask,
};
use grpo_tui::rollout::{
    Completion, Request, RolloutMemory, Sampling, StopReason, ThreadPool, generate,
};
use grpo_tui::update::{PolicyGroup, PolicySettings, completion_log_probs, log_probs, pack};

use crate::losses::loss_settings;

fn model(trainable: Trainable) -> Decoder {
    model_in("Qwen3ForCausalLM", BasePrecision::Bf16, trainable)
}

fn model_in(architecture: &str, precision: BasePrecision, trainable: Trainable) -> Decoder {
    let json = r#"{"vocab_size":97,"hidden_size":32,"intermediate_size":48,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
        "head_dim":16,"rms_norm_eps":1e-6,"rope_theta":10000.0,"tie_word_embeddings":false,"max_position_embeddings":128,"hidden_act":"silu",
        "attention_bias":false,"num_experts":6,"num_experts_per_tok":2,"moe_intermediate_size":24,"architectures":["#;
    let config =
        ModelConfig::parse(&format!("{json}\"{architecture}\"]}}"), "config.json").unwrap();
    let fresh = Weights::fresh(&config, 5);
    // Sharper than fresh weights, so that the distributions are far from uniform.
    let model = Decoder::new(
        &config,
        &fresh,
        Trainable::Full,
        1,
        DType::F32,
        &Device::Cpu,
    )
    .unwrap();
    let tensors = model
        .parameters()
        .named()
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| {
            let factor = if name.contains("lm_head") { 40.0 } else { 1.5 };
            (name, tensor.affine(factor, 0.0).unwrap())
        });
    let weights = Weights::from_tensors(tensors, "test").in_precision(precision);
    Decoder::new(&config, &weights, trainable, 1, DType::F32, &Device::Cpu).unwrap()
}

fn requests() -> Vec<Request> {
    let prompt = |n: u32| (0..3 + n * 4).map(|i| (i * 7 + n) % 97).collect();
    (0..9).map(|n| Request::new(prompt(n), n, 4, 8)).collect()
}

fn sampling(temperature: f64) -> Sampling {
    Sampling {
        stop_ids: vec![3, 50],
        draft_tokens: 0,
        ..Sampling::plain(temperature, 24, 11)
    }
}

fn run(
    model: &Decoder,
    requests: &[Request],
    sampling: &Sampling,
    threads: usize,
) -> Vec<Vec<Completion>> {
    let (memory, threads) = (RolloutMemory::default(), ThreadPool::new(threads).unwrap());
    generate(model, Adapters::On, requests, sampling, &memory, &threads)
        .unwrap()
        .completions
}

#[test]
fn decode_and_training_log_probs_agree() {
    let (lora, bf16) = (
        Trainable::Lora {
            rank: 4,
            alpha: 8.0,
            has_experts: true,
        },
        BasePrecision::Bf16,
    );
    let (dense, sparse) = ("Qwen3ForCausalLM", "Qwen3MoeForCausalLM");
    for (architecture, precision, trainable, temperature) in [
        (dense, bf16, Trainable::Frozen, 1.0),
        (dense, bf16, Trainable::Frozen, 0.7),
        (dense, bf16, lora, 1.0),
        (dense, BasePrecision::Fp8, lora, 1.0),
        (dense, BasePrecision::Nf4, lora, 1.0),
        (sparse, bf16, lora, 1.0),
        (sparse, BasePrecision::Fp8, lora, 1.0),
    ] {
        let model = model_in(architecture, precision, trainable);
        if let Trainable::Lora { .. } = trainable {
            let n = model.parameters().count();
            let noise: Vec<f32> = (0..n)
                .map(|i| ((i * 37 % 101) as f32 / 101.0 - 0.5) * 0.2)
                .collect();
            model
                .parameters()
                .restore(&Tensor::from_vec(noise, n, &Device::Cpu).unwrap())
                .unwrap();
        }
        let requests = requests();
        let groups = run(&model, &requests, &sampling(temperature), 1);
        assert!(
            groups.iter().flatten().any(|c| c.stop == StopReason::Stop)
                && groups
                    .iter()
                    .flatten()
                    .any(|c| c.stop == StopReason::Length)
        );
        let completions = |group: &'_ Vec<Completion>| {
            group
                .iter()
                .map(|c| c.token_ids.clone())
                .collect::<Vec<_>>()
        };
        let ids: Vec<_> = groups.iter().map(completions).collect();
        let packed = requests
            .iter()
            .zip(&ids)
            .map(|(r, ids)| (r.prompt.as_slice(), ids.iter().map(Vec::as_slice).collect()));
        for micro_batch in pack(packed, 200) {
            let found = log_probs(&model, &micro_batch, Adapters::On, temperature).unwrap();
            for (&(group, sample), tokens) in micro_batch.owners.iter().zip(found) {
                for (token, recorded) in tokens.iter().zip(&groups[group][sample].log_probs) {
                    assert!(
                        (token.log_prob - recorded).abs() < 1e-4,
                        "{} in training, {recorded} while sampling",
                        token.log_prob
                    );
                }
            }
        }
    }
}

/// The trainer's router differs from the sampler's in its last digits, as on a GPU that computes both in bf16.
#[test]
fn replayed_experts_keep_sampler_and_trainer_together() {
    let json = r#"{"architectures":["Qwen3MoeForCausalLM"],"vocab_size":97,"hidden_size":32,"intermediate_size":48,"num_hidden_layers":4,
        "num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"num_experts":16,"num_experts_per_tok":4,"moe_intermediate_size":24,
        "norm_topk_prob":true,"max_position_embeddings":128}"#;
    let config = ModelConfig::parse(json, "config.json").unwrap();
    let fresh = Decoder::new(
        &config,
        &Weights::fresh(&config, 5),
        Trainable::Full,
        1,
        DType::F32,
        &Device::Cpu,
    );
    let named = fresh.unwrap().parameters().named().unwrap();
    let model = |noise: f64| {
        let tensors = named.iter().map(|(name, tensor)| {
            let is_router = name.ends_with("mlp.gate.weight");
            let factor = if name.contains("lm_head") || name.contains("experts") {
                10.0
            } else {
                1.0
            };
            let tensor = tensor.affine(factor, 0.0).unwrap();
            let pattern: Vec<f64> = (0..tensor.elem_count())
                .map(|i| (i * 37 % 101) as f64 / 50.0 - 1.0)
                .collect();
            let pattern = Tensor::from_vec(pattern, tensor.shape(), &Device::Cpu)
                .unwrap()
                .to_dtype(DType::F32);
            let noise = if is_router { noise } else { 0.0 };
            (
                name.clone(),
                (&tensor * pattern.unwrap().affine(noise, 1.0).unwrap()).unwrap(),
            )
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
    };
    let (requests, sampling) = (
        requests(),
        Sampling {
            records_experts: true,
            ..sampling(1.0)
        },
    );
    let sampled = run(&model(0.0), &requests, &sampling, 1);
    let gap = |noise: f64, is_replayed: bool| {
        let mut sampled = sampled.clone();
        if !is_replayed {
            sampled
                .iter_mut()
                .flatten()
                .for_each(|completion| completion.experts = None);
        }
        let pairs = requests.iter().zip(&sampled);
        let groups: Vec<_> = pairs
            .map(|(asked, group)| PolicyGroup::alternating(&asked.prompt, group))
            .collect();
        let loss = loss_settings(PolicyLoss::Grpo);
        let settings = PolicySettings {
            loss,
            temperature: 1.0,
            tokens_per_micro_batch: 200,
            recompute: false,
        };
        let (model, threads) = (model(noise), ThreadPool::calling());
        let found =
            completion_log_probs(&model, Adapters::On, &groups, &settings, &threads).unwrap();
        let pairs = found.into_iter().flatten().zip(sampled.iter().flatten());
        let differences: Vec<f32> = pairs
            .flat_map(|(own, c)| {
                own.into_iter()
                    .zip(c.log_probs.clone())
                    .map(|(a, b)| (a - b).abs())
            })
            .collect();
        differences.iter().copied().fold(0.0, f32::max)
    };
    for (noise, most_with, least_without) in [(0.0, 1e-4, 0.0), (1e-3, 0.05, 1.0), (1e-2, 0.5, 2.0)]
    {
        let (with, without) = (gap(noise, true), gap(noise, false));
        assert!(
            with < most_with && without >= least_without,
            "{noise}: {with} with replay, {without} without"
        );
        assert!(noise > 0.0 || with == without);
    }
}

#[test]
fn completions_depend_neither_on_threads_nor_on_their_neighbours() {
    let model = model(Trainable::Frozen);
    let all = run(&model, &requests(), &sampling(1.0), 1);
    assert_eq!(all, run(&model, &requests(), &sampling(1.0), 3));
    for (request, group) in requests().iter().zip(&all) {
        let alone = &run(&model, std::slice::from_ref(request), &sampling(1.0), 1)[0];
        for (a, b) in alone.iter().zip(group) {
            assert_eq!(a.token_ids, b.token_ids);
        }
    }
    let other_step: Vec<Request> = requests()
        .into_iter()
        .map(|request| Request { step: 5, ..request })
        .collect();
    assert_ne!(all, run(&model, &other_step, &sampling(1.0), 1));
}

#[test]
fn greedy_takes_the_likeliest_token_and_ends_rightly() {
    let model = model(Trainable::Frozen);
    for group in run(&model, &requests(), &sampling(0.0), 1) {
        for completion in &group {
            assert_eq!(completion.token_ids, group[0].token_ids);
            assert_eq!(completion.token_ids.len(), completion.log_probs.len());
            let last = completion.token_ids.last().unwrap();
            assert_eq!(completion.stop == StopReason::Stop, [3, 50].contains(last));
            assert!(
                completion
                    .token_ids
                    .iter()
                    .rev()
                    .skip(1)
                    .all(|id| ![3, 50].contains(id))
            );
        }
    }
}

#[test]
fn greedy_requests_beside_others_are_as_greedy_sampling() {
    let model = model(Trainable::Frozen);
    let mixed: Vec<Request> = requests()
        .into_iter()
        .map(|request| Request {
            greedy: request.prompt_number % 2 == 0,
            ..request
        })
        .collect();
    let found = run(&model, &mixed, &sampling(0.7), 1);
    let (greedy, drawn) = (
        run(&model, &requests(), &sampling(0.0), 1),
        run(&model, &requests(), &sampling(0.7), 1),
    );
    for (index, request) in mixed.iter().enumerate() {
        assert_eq!(
            found[index],
            if request.greedy {
                greedy[index].clone()
            } else {
                drawn[index].clone()
            }
        );
    }
}

/// Pearson's test on a vocabulary of 20,000 with Zipf-like tail: cells of at least 20 expected draws, the tail pooled.
#[test]
fn sampler_follows_its_distribution() {
    let (vocabulary, draws) = (4_000_usize, 70_000_usize);
    for temperature in [1.0, 0.8] {
        let logits: Vec<f32> = (0..vocabulary)
            .map(|i| -1.1 * (((i * 7919) % vocabulary) as f32 + 1.0).ln())
            .collect();
        let weights: Vec<f64> = logits
            .iter()
            .map(|&l| (f64::from(l) / temperature).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        let mut counts = vec![0_usize; vocabulary];
        let row = Tensor::from_vec(logits, (1, vocabulary), &Device::Cpu).unwrap();
        let batch = row.repeat((50, 1)).unwrap();
        for chunk in 0..draws / 50 {
            let place = |i: usize| SampleKey {
                step: 0,
                prompt: chunk as u32,
                sample: i as u32,
                position: 0,
            };
            let draws: Vec<SampleParams> = (0..50)
                .map(|i| SampleParams {
                    uniform: uniform(42, place(i)),
                    temperature,
                })
                .collect();
            for drawn in sample_tokens(&batch, &draws).unwrap() {
                let id = drawn.token_id as usize;
                assert!((f64::from(drawn.log_prob) - (weights[id] / total).ln()).abs() < 1e-4);
                counts[id] += 1;
            }
        }
        let (mut statistic, mut cells, mut pooled) = (0.0, 0_usize, (0.0, 0.0));
        for (weight, &count) in weights.iter().zip(&counts) {
            let expected = weight / total * draws as f64;
            if expected >= 20.0 {
                statistic += (count as f64 - expected).powi(2) / expected;
                cells += 1;
            } else {
                pooled = (pooled.0 + expected, pooled.1 + count as f64);
            }
        }
        statistic += (pooled.1 - pooled.0).powi(2) / pooled.0;
        // A chi-square of k degrees of freedom has mean k and standard deviation sqrt(2 k): five deviations are never
        // seen by chance.
        let limit = cells as f64 + 5.0 * (2.0 * cells as f64).sqrt();
        assert!(
            cells > 150 && statistic < limit,
            "chi-square {statistic:.0} over {cells} cells, limit {limit:.0}"
        );
    }
}

#[test]
fn logits_that_are_not_finite_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        let logits = Tensor::new(&[[0.0_f32, bad, 1.0]], &Device::Cpu).unwrap();
        let draw = SampleParams {
            uniform: 0.5,
            temperature: 1.0,
        };
        assert!(
            sample_tokens(&logits, &[draw])
                .unwrap_err()
                .to_string()
                .contains("not finite")
        );
    }
}

/// All that was sampled has been asked before the rollout is over, and is not asked again.
#[test]
fn a_program_scores_what_ends_first_while_the_rest_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join("questions");
    let toml = "name = \"t\"\n[prompts]\ntrain = \"train.jsonl\"\n[score]\nkind = \"command\"\nmode = \"exit_code\"\nstrip_thinking = false\ncommand = [\"sh\", \"s.sh\"]\nfiles = [\"s.sh\"]\nisolation = \"none\"\n";
    std::fs::write(folder.path().join("task.toml"), toml).unwrap();
    std::fs::write(
        folder.path().join("s.sh"),
        format!("echo asked >> '{}'\n", asked.display()),
    )
    .unwrap();
    let row = |id: u32| {
        format!(
            "{{\"id\": \"{id}\", \"messages\": [{{\"role\": \"user\", \"content\": \"{id}\"}}]}}\n"
        )
    };
    std::fs::write(
        folder.path().join("train.jsonl"),
        (0..9).map(row).collect::<String>(),
    )
    .unwrap();
    let task = grpo_tui::score::Task::load(folder.path()).unwrap();
    grpo_tui::score::Trust::for_task(&task)
        .unwrap()
        .iter()
        .for_each(|trust| trust.set(true).unwrap());
    let scorer = grpo_tui::score::Scorer::new(&task).unwrap();
    let rows = grpo_tui::dataset::load(&task, grpo_tui::task::PromptSet::Train).unwrap();
    let (engine, model) = (
        grpo_tui::kernels::device::Engine::cpu(),
        model(Trainable::Frozen),
    );
    let tokenizer =
        grpo_tui::text::Tokenizer::load(&grpo_tui::hub::find_model("tiny").unwrap()).unwrap();
    let policy = Policy::new(engine, model, tokenizer, ThreadPool::new(2).unwrap());
    let requests = requests();
    let prompt = |(row, request): (&grpo_tui::dataset::PromptRow, &Request)| Prompt {
        row: row.clone(),
        task: 0,
        text: String::new(),
        token_ids: request.prompt.clone(),
        most_tokens: request.prompt.len(),
        most_completions: 1,
    };
    let prompts: Vec<Prompt> = rows.iter().zip(&requests).map(prompt).collect();
    let questions = prompts
        .iter()
        .zip(requests.clone())
        .map(|(prompt, request)| Question { prompt, request });
    let questions: Vec<Question<'_>> = questions.collect();
    let sampling = sampling(1.0);
    let tasks = [ScoredTask {
        task: &task,
        scorer: &scorer,
        max_prompt_tokens: 64,
    }];
    let settings = ConverseSettings::new(&tasks, PolicyVersion::Trained, &sampling);
    let found = policy.converse(&questions, &settings, None).unwrap();
    let completions: Vec<Vec<Completion>> = found
        .conversations
        .iter()
        .map(|group| {
            group
                .iter()
                .map(|talk| talk.turns[0].completion.clone())
                .collect()
        })
        .collect();
    assert_eq!(completions, run(&policy.model, &requests, &sampling, 1));
    let asked = || std::fs::read_to_string(&asked).unwrap().lines().count();
    let text = |completion: &Completion| {
        policy
            .tokenizer
            .decode(&completion.token_ids, true)
            .unwrap()
            .trim()
            .to_owned()
    };
    let for_row = |(row, completions): (usize, &Vec<Completion>)| -> Vec<(usize, String)> {
        completions
            .iter()
            .map(|completion| (row, text(completion)))
            .collect()
    };
    // An empty text is no question.
    let all = completions
        .iter()
        .enumerate()
        .flat_map(for_row)
        .filter(|(_, text)| !text.is_empty());
    let different = all.collect::<std::collections::HashSet<_>>().len();
    let before = asked();
    assert!(
        before >= different && different > 60,
        "{before} of {different}"
    );
    let scored = policy
        .score(
            completions,
            rows.iter().map(|row| ScoredRow {
                scorer: &scorer,
                row,
            }),
        )
        .unwrap();
    assert!(
        scored
            .iter()
            .flatten()
            .all(|scored| scored.score.reward == 1.0)
    );
    // One of 64 answers is asked for again.
    assert!(asked() <= before + 8, "{} after {before}", asked());
}
