//! The run's side of `prove`: prompts as in training, greedy answers, and log-probs of these.

use std::path::Path;

use serde_json::{Map, Value};

use super::Arguments;
use crate::api_client::{Endpoint, ResponseFormat};
use crate::checkpoint::StartModel;
use crate::cli::Failure;
use crate::cli::output::eprint_line;
use crate::cli::rows::Rows;
use crate::cli::targets::lengths;
use crate::config::TrainConfig;
use crate::endpoint::{Question, RequestForm, Sampling as EndpointSampling};
use crate::eval::{greedy_questions, record};
use crate::format::counted;
use crate::model::{Adapters, without_breaks};
use crate::policy::{
    Conversation, ConverseSettings, Policy, PolicyVersion, Prompt, ScoredTask, render,
};
use crate::prove::{OtherWeights, ProvePrompt, Reference, RunAnswer};
use crate::rollout::{Sampling, ThinkingLimit, ThreadPool};
use crate::run::{RunDirectory, RunFolders, RunReference, checkpoint_path, list_checkpoints};
use crate::score::{Scorer, Task, for_model};
use crate::text::{TextError, Tokenizer};
use crate::update::{MicroBatch, ReadToken, ReadingModel, log_probs, pack, read_tokens};

/// Everything that is known of the run.
pub(super) struct RunSide {
    pub(super) run: RunDirectory,
    pub(super) step: u64,
    pub(super) task: Task,
    pub(super) rows: Rows,
    prompts: Vec<ProvePrompt>,
    /// Reads OpenAI's messages.
    scorer: Scorer,
    kwargs: Map<String, Value>,
    why_no_answers: String,
    weights: Weights,
}

struct Weights {
    policy: Policy,
    /// The checkpoint's name, and the base's.
    names: [String; 2],
    run_folders: RunFolders,
    tokens_per_micro_batch: usize,
}

impl RunSide {
    pub(super) fn open(
        arguments: &Arguments,
        endpoint: &Endpoint,
        run_folders: &RunFolders,
    ) -> Result<Self, Failure> {
        let reference = RunReference::parse(&arguments.run);
        let (run, step) = run_folders.find_checkpoint(&reference)?;
        let config = run.file().config.clone();
        let task = Task::load(&run.first_task_path())?;
        let mut rows = Rows::on(&task, &arguments.on)?;
        let all = rows.rows.len();
        rows.rows.retain(|row| row.turn_count() == 1);
        let mut why_no_answers = String::new();
        if rows.rows.len() < all {
            let left_out = counted(all - rows.rows.len(), "row");
            eprint_line(&format!("note: {left_out} of several turns are left out"));
        }
        if task.toolset().is_some() || task.agent().is_some() {
            why_no_answers = "answers need the task's tools or agent: use `eval --model endpoint:NAME` and `runs compare`".to_owned();
        }
        rows.rows.truncate(arguments.limit as usize);
        if rows.rows.is_empty() {
            return Err(Failure::usage(format!(
                "--on {}: no prompts of one turn in {}: name another set",
                rows.set, task.name
            )));
        }
        let name = format!("{}@{step}", run.path().display());
        let names = [name, config.base_model.clone()];
        let mut start = StartModel::find(&names[0], run_folders)?;
        start.tokenizer.set_time(run.file().created_ms);
        let judged = for_model(&task, &start.tokenizer);
        let scorer = Scorer::new(&task)?;
        let kwargs = kwargs(&task, &start.tokenizer);
        let limit = config.max_completion_tokens;
        let requests = requests(endpoint, &task, &rows, limit, &arguments.allow_secret)?;
        let prompts = rows.rows.iter();
        let prompts = prompts.map(|row| render(&judged, row.clone(), &start.tokenizer));
        let prompts: Vec<Prompt> = prompts.collect::<Result<_, TextError>>()?;
        let engine = arguments.device.engine()?;
        let model = start.model.decoder(None, &engine)?;
        let threads = ThreadPool::for_engine(&engine, arguments.threads)?;
        let policy = Policy::new(engine, model, start.tokenizer, threads);
        let weights = Weights {
            policy,
            names,
            run_folders: run_folders.clone(),
            tokens_per_micro_batch: config.tokens_per_micro_batch,
        };
        let mut answers = Vec::new();
        if why_no_answers.is_empty() {
            let count = counted(prompts.len(), "prompt");
            eprint_line(&format!("answering {count} with step {step}"));
            answers = weights.answers(&judged, &Scorer::new(&judged)?, &prompts, &config)?;
        }
        answers.resize_with(prompts.len(), || None);
        let parts = prompts.into_iter().zip(requests).zip(answers);
        let mut prompts: Vec<ProvePrompt> = parts
            .map(|((prompt, request), answer)| ProvePrompt {
                row: prompt.row,
                body: request.body,
                response_format: request.response_format,
                token_ids: prompt.token_ids,
                answer,
            })
            .collect();
        weights.read(&mut prompts)?;
        Ok(Self {
            run,
            step,
            task,
            rows,
            prompts,
            scorer,
            kwargs,
            why_no_answers,
            weights,
        })
    }

    pub(super) fn reference<'a>(
        &'a self,
        arguments: &Arguments,
        endpoint: &'a Endpoint,
    ) -> Reference<'a> {
        Reference {
            endpoint,
            prompts: &self.prompts,
            tokenizer: &self.weights.policy.tokenizer,
            scorer: &self.scorer,
            kwargs: self.kwargs.clone(),
            has_adapter: self.has_adapter(),
            other_steps: self.other_steps(),
            why_no_answers: self.why_no_answers.clone(),
            max_nats: arguments.max_nats,
            at_once: arguments.at_once as usize,
        }
    }

    /// Log-probs of the answers under other weights, which are loaded when asked for.
    pub(super) fn other_log_probs(&self, other: OtherWeights) -> Result<Vec<Vec<f32>>, Failure> {
        let weights = &self.weights;
        let policy = &weights.policy;
        let decoder = |name: &str, adapter: Option<&Path>| {
            let found = StartModel::find(name, &weights.run_folders)?;
            Ok::<_, Failure>(found.model.decoder(adapter, &policy.engine)?)
        };
        let [own, base] = &weights.names;
        let loaded;
        let (model, adapters) = match other {
            OtherWeights::Base if self.has_adapter() => (&policy.model, Adapters::Off),
            OtherWeights::Base => {
                loaded = decoder(base, None)?;
                (&loaded, Adapters::On)
            }
            OtherWeights::Step(step) => {
                let name = format!("{}@{step}", self.run.path().display());
                loaded = decoder(&name, None)?;
                (&loaded, Adapters::On)
            }
            OtherWeights::AdapterTwice => {
                let adapter = checkpoint_path(self.run.path(), self.step);
                loaded = decoder(own, Some(&adapter))?;
                (&loaded, Adapters::On)
            }
        };
        weights.by_prompt(&self.prompts, |micro_batch| {
            let read = log_probs(model, micro_batch, adapters, 1.0)?;
            Ok(read.iter().flatten().map(|token| token.log_prob).collect())
        })
    }

    /// Steps of other checkpoints, the nearest first. Step 0 is the base.
    fn other_steps(&self) -> Vec<u64> {
        let steps = list_checkpoints(self.run.path()).unwrap_or_default();
        let is_other = |step: &u64| ![0, self.step].contains(step);
        let mut steps: Vec<u64> = steps.into_iter().filter(is_other).collect();
        steps.sort_by_key(|step| step.abs_diff(self.step));
        steps
    }

    fn has_adapter(&self) -> bool {
        self.run.file().config.lora_rank > 0
    }
}

/// Answers of the run by prompt.
type Answers = Vec<Option<RunAnswer>>;

impl Weights {
    /// Greedy answers with their ids.
    fn answers(
        &self,
        task: &Task,
        scorer: &Scorer,
        prompts: &[Prompt],
        config: &TrainConfig,
    ) -> Result<Answers, Failure> {
        let policy = &self.policy;
        let thinking = config.thinking_budget();
        let thinking = thinking.map(|budget| ThinkingLimit::new(&policy.tokenizer, budget));
        let limit = config.max_completion_tokens;
        let sampling = Sampling {
            thinking: thinking.transpose()?,
            ..Sampling::new(&policy.tokenizer, 0.0, limit, config.seed)
        };
        let lengths = lengths(&policy.model, limit);
        let tasks = [ScoredTask {
            task,
            scorer,
            max_prompt_tokens: lengths.prompt_limit(),
        }];
        let settings = ConverseSettings::new(&tasks, PolicyVersion::Trained, &sampling);
        let conversed = policy.converse(&greedy_questions(prompts), &settings, None)?;
        let found = |(prompt, held): (&Prompt, Vec<Conversation>)| {
            let conversation = held.into_iter().next()?;
            let ids = conversation.turns.first();
            let ids = ids.map_or_else(Vec::new, |turn| turn.completion.token_ids.clone());
            Some(record(prompt, conversation).map(|record| RunAnswer {
                record,
                token_ids: ids,
                log_probs: Vec::new(),
                margins: Vec::new(),
            }))
        };
        let answers = prompts.iter().zip(conversed.conversations).map(found);
        Ok(answers.map(Option::transpose).collect::<Result<_, _>>()?)
    }

    /// Log-probs of the answers, and their distance from the second likeliest tokens.
    fn read(&self, prompts: &mut [ProvePrompt]) -> Result<(), Failure> {
        let reading = ReadingModel {
            model: &self.policy.model,
            adapters: Adapters::On,
            own: None,
        };
        let tokens = self.by_prompt(prompts, |micro_batch| {
            Ok(without_breaks(read_tokens(reading, micro_batch, 2))?)
        })?;
        for (prompt, own) in prompts.iter_mut().zip(tokens) {
            let Some(answer) = &mut prompt.answer else {
                continue;
            };
            answer.log_probs = own.iter().map(|token| token.log_prob).collect();
            let margin = |(token, id): (&ReadToken, &u32)| {
                let other = token.likeliest.iter().find(|(other, _)| other != id);
                other.map_or(f32::INFINITY, |(_, other)| token.log_prob - other)
            };
            answer.margins = own.iter().zip(&answer.token_ids).map(margin).collect();
        }
        Ok(())
    }

    /// What `read` finds of each token of the answers.
    fn by_prompt<T>(
        &self,
        prompts: &[ProvePrompt],
        read: impl Fn(&MicroBatch) -> Result<Vec<T>, Failure>,
    ) -> Result<Vec<Vec<T>>, Failure> {
        fn answer(prompt: &ProvePrompt) -> &[u32] {
            let answer = prompt.answer.as_ref();
            answer.map_or(&[], |answer| &answer.token_ids)
        }
        let groups = prompts
            .iter()
            .map(|prompt| (prompt.token_ids.as_slice(), vec![answer(prompt)]));
        let mut tokens = Vec::new();
        for micro_batch in pack(groups, self.tokens_per_micro_batch) {
            tokens.extend(read(&micro_batch)?);
        }
        let mut tokens = tokens.into_iter();
        let own = |prompt| tokens.by_ref().take(answer(prompt).len()).collect();
        Ok(prompts.iter().map(own).collect())
    }
}

/// What a request says so that a template renders it as in the run.
fn kwargs(task: &Task, tokenizer: &Tokenizer) -> Map<String, Value> {
    let switch = tokenizer
        .has_thinking_switch()
        .then(|| ("enable_thinking".to_owned(), task.thinking.into()));
    switch
        .into_iter()
        .chain(task.template_kwargs.clone())
        .collect()
}

/// What is sent for a row.
struct RowRequest {
    body: Map<String, Value>,
    response_format: Option<Value>,
}

/// Requests as an eval of the endpoint sends them, and `response_format` of each row's schema.
fn requests(
    endpoint: &Endpoint,
    task: &Task,
    rows: &Rows,
    limit: usize,
    allowed: &[String],
) -> Result<Vec<RowRequest>, Failure> {
    const FORMAT: &str = "response_format";
    let greedy = EndpointSampling {
        samples: 1,
        max_completion_tokens: limit,
        temperature: 0.0,
    };
    let mut strict = endpoint.clone();
    strict.format = ResponseFormat::Schema;
    // A task without a JSON Schema has no format.
    let form = RequestForm::new(&strict, task, greedy);
    let form = form.or_else(|_| RequestForm::new(endpoint, task, greedy))?;
    let request = |question: Question| {
        let mut body: Map<String, Value> = serde_json::from_str(&question.body)?;
        let response_format = body.get(FORMAT).cloned();
        if !endpoint.extra_body.contains_key(FORMAT) {
            body.remove(FORMAT);
        }
        Ok(RowRequest {
            body,
            response_format,
        })
    };
    let questions = form.first(&rows.label, &rows.rows, allowed)?.into_iter();
    questions.map(request).collect()
}
