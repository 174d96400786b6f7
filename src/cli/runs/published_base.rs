//! An adapter trained beside a base in fp8, measured with the base as published too, which is what other programs serve.

use std::iter::zip;

use crate::checkpoint::StartModel;
use crate::cli::Failure;
use crate::cli::device::DeviceArguments;
use crate::cli::output::eprint_line;
use crate::cli::rows::Rows;
use crate::cli::targets::lengths;
use crate::config::BasePrecision;
use crate::eval::{greedy_questions, records};
use crate::model::Adapters;
use crate::policy::{ConverseSettings, Policy, PolicyVersion, Prompt, ScoredTask, prepare_rows};
use crate::report::PublishedBase;
use crate::rollout::{Sampling, ThinkingLimit, ThreadPool};
use crate::run::{EvalSummary, RunDirectory, RunFolders, checkpoint_path};
use crate::score::{Scorer, Task, for_model};
use crate::task::PromptSet;
use crate::update::{log_probs, pack};

/// Answers the run's test set greedily, with the base as it was trained beside and as it is published.
pub(super) fn measure(
    run: &RunDirectory,
    step: u64,
    device: DeviceArguments,
    run_folders: &RunFolders,
) -> Result<PublishedBase, Failure> {
    let config = &run.file().config;
    if config.base_precision == BasePrecision::Bf16 || config.lora_rank == 0 {
        return Err(Failure::usage(format!(
            "--measure-published-base: run {} has no adapter beside a base in fp8: leave the option out",
            run.id()
        )));
    }
    let task = Task::load(&run.first_task_path())?;
    let rows = Rows::from_set(&task, PromptSet::Test)?;
    let engine = device.engine()?;
    let limit = config.max_completion_tokens;
    // Of the first model's completions: what both compute the log-probs of.
    let mut sampled: Vec<Vec<u32>> = Vec::new();
    let mut found = Vec::new();
    let names = [format!("{}@{step}", run.id()), checkpoint_path(run.path(), step).display().to_string()];
    for (name, base) in zip(&names, ["rounded to fp8", "as published"]) {
        eprint_line(&format!("test set, {} prompts, base {base}", rows.rows.len()));
        let (model, tokenizer) = StartModel::find(name, run_folders)?.into_sampler(&engine)?;
        let task = &for_model(&task, &tokenizer);
        let scorer = &Scorer::new(task)?;
        let lengths = lengths(&model, limit);
        let prompts = prepare_rows(task, &rows.label, rows.rows.clone(), &tokenizer, lengths)?;
        let policy = Policy::new(engine.clone(), model, tokenizer, ThreadPool::for_engine(&engine, 0)?);
        let thinking = config.thinking_budget().map(|budget| ThinkingLimit::new(&policy.tokenizer, budget));
        let thinking = thinking.transpose()?;
        let sampling = Sampling { thinking, ..Sampling::new(&policy.tokenizer, 0.0, limit, config.seed) };
        let tasks = [ScoredTask { task, scorer, max_prompt_tokens: lengths.prompt_limit() }];
        let settings = ConverseSettings::new(&tasks, PolicyVersion::Trained, &sampling);
        let conversations = policy.converse(&greedy_questions(&prompts), &settings, None)?.conversations;
        if sampled.is_empty() {
            let first = |conversation: &crate::policy::Conversation| conversation.turns[0].completion.token_ids.clone();
            sampled = conversations.iter().flatten().map(first).collect();
        }
        let numbers = numbers(&policy, &prompts, &sampled, config.tokens_per_micro_batch)?;
        let summary = EvalSummary::from_records(&records(&prompts, conversations, scorer, 0.0)?);
        found.push((summary, numbers));
    }
    let [(rounded, first), (published, second)]: [_; 2] =
        found.try_into().map_err(|_| Failure::failed("two models were measured".to_owned()))?;
    let differences: f64 = zip(&first, &second).map(|(first, second)| f64::from((first - second).abs())).sum();
    Ok(PublishedBase {
        task: task.name.clone(),
        summaries: [rounded, published],
        log_prob_difference: differences / first.len().max(1) as f64,
    })
}

/// The log-probs of all tokens of the answers to the prompts.
fn numbers(policy: &Policy, prompts: &[Prompt], answers: &[Vec<u32>], tokens: usize) -> Result<Vec<f32>, Failure> {
    let groups = zip(prompts, answers).map(|(prompt, answer)| (prompt.token_ids.as_slice(), vec![answer.as_slice()]));
    let mut found = Vec::new();
    for micro_batch in pack(groups, tokens) {
        let log_probs = log_probs(&policy.model, &micro_batch, Adapters::On, 1.0)?;
        found.extend(log_probs.iter().flatten().map(|token| token.log_prob));
    }
    Ok(found)
}
