//! An adapter trained beside a base in fp8 or NF4, measured with the base as published too, which is what other programs serve.

use std::iter::zip;

use crate::checkpoint::StartModel;
use crate::cli::Failure;
use crate::cli::device::DeviceArguments;
use crate::cli::output::eprint_line;
use crate::cli::rows::Rows;
use crate::cli::targets::lengths;
use crate::eval::{greedy_questions, records};
use crate::format::counted;
use crate::model::Adapters;
use crate::policy::{ConverseSettings, Policy, PolicyVersion, Prompt, ScoredTask, prepare_rows};
use crate::report::PublishedBase;
use crate::rollout::{Sampling, ThinkingLimit, ThreadPool};
use crate::run::{EvalSummary, RunDirectory, RunFolders, checkpoint_path};
use crate::score::{Scorer, Task, for_model};
use crate::task::PromptSet;
use crate::update::{log_probs, pack};

/// Answers the test set of the run's first task greedily, with the base as it was trained beside and as it is published.
pub(super) fn measure(
    run: &RunDirectory,
    step: u64,
    device: DeviceArguments,
    run_folders: &RunFolders,
) -> Result<PublishedBase, Failure> {
    let config = &run.file().config;
    if !config.base_precision.is_quantized() || config.lora_rank == 0 {
        return Err(Failure::usage(format!(
            "--measure-published-base: run {} has no adapter beside a base in fp8 or nf4: leave the option out",
            run.id()
        )));
    }
    let task = Task::load(&run.first_task_path())?;
    let rows = Rows::from_set(&task, PromptSet::Test)?;
    let engine = device.engine()?;
    // `answers`: those whose log-probs are computed, by default the model's own first ones.
    let measured = |name: &str, base: &str, answers: Option<Vec<Vec<u32>>>| {
        eprint_line(&format!(
            "test set, {}, base {base}",
            counted(rows.rows.len(), "prompt")
        ));
        let start = StartModel::find(name, run_folders)?;
        let (model, tokenizer) = (start.model.decoder(None, &engine)?, start.tokenizer);
        let task = &for_model(&task, &tokenizer);
        let scorer = &Scorer::new(task)?;
        let lengths = lengths(&model, config.max_completion_tokens);
        let prompts = prepare_rows(task, &rows.label, rows.rows.clone(), &tokenizer, lengths)?;
        let policy = Policy::new(
            engine.clone(),
            model,
            tokenizer,
            ThreadPool::for_engine(&engine, 0)?,
        );
        let thinking = config
            .thinking_budget()
            .map(|budget| ThinkingLimit::new(&policy.tokenizer, budget));
        let sampling = Sampling::new(
            &policy.tokenizer,
            0.0,
            config.max_completion_tokens,
            config.seed,
        );
        let sampling = Sampling {
            thinking: thinking.transpose()?,
            ..sampling
        };
        let tasks = [ScoredTask {
            task,
            scorer,
            max_prompt_tokens: lengths.prompt_limit(),
        }];
        let settings = ConverseSettings::new(&tasks, PolicyVersion::Trained, &sampling);
        let conversations = policy
            .converse(&greedy_questions(&prompts), &settings, None)?
            .conversations;
        let answers = answers.unwrap_or_else(|| {
            let turns = conversations
                .iter()
                .flatten()
                .filter_map(|conversation| conversation.turns.first());
            turns
                .map(|turn| turn.completion.token_ids.clone())
                .collect()
        });
        let log_probs =
            answer_log_probs(&policy, &prompts, &answers, config.tokens_per_micro_batch)?;
        let summary = EvalSummary::from_records(&records(&prompts, conversations, scorer, 0.0)?);
        Ok::<_, Failure>((summary, log_probs, answers))
    };
    let rounded_to = format!("rounded to {}", config.base_precision);
    let (rounded, first, answers) = measured(&format!("{}@{step}", run.id()), &rounded_to, None)?;
    let checkpoint = checkpoint_path(run.path(), step).display().to_string();
    let (published, second, _) = measured(&checkpoint, "as published", Some(answers))?;
    let differences: f64 = zip(&first, &second)
        .map(|(first, second)| f64::from((first - second).abs()))
        .sum();
    Ok(PublishedBase {
        task: task.name.clone(),
        summaries: [rounded, published],
        log_prob_difference: differences / first.len().max(1) as f64,
    })
}

fn answer_log_probs(
    policy: &Policy,
    prompts: &[Prompt],
    answers: &[Vec<u32>],
    tokens_per_micro_batch: usize,
) -> Result<Vec<f32>, Failure> {
    let groups = zip(prompts, answers)
        .map(|(prompt, answer)| (prompt.token_ids.as_slice(), vec![answer.as_slice()]));
    let mut found = Vec::new();
    for micro_batch in pack(groups, tokens_per_micro_batch) {
        let log_probs = log_probs(&policy.model, &micro_batch, Adapters::On, 1.0)?;
        found.extend(log_probs.iter().flatten().map(|token| token.log_prob));
    }
    Ok(found)
}
