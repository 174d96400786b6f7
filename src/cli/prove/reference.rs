//! The run's side of `prove`: prompts as in training, greedy answers, and log-probs of these.

use serde_json::{Map, Value};

use super::{Arguments, checkpoint};
use crate::api_client::{Endpoint, ResponseFormat};
use crate::checkpoint::StartModel;
use crate::cli::Failure;
use crate::cli::output::eprint_line;
use crate::cli::rows::Rows;
use crate::cli::targets::lengths;
use crate::endpoint::{RequestForm, Sampling as EndpointSampling};
use crate::eval::{greedy_questions, record};
use crate::facts::Target;
use crate::format::counted;
use crate::kernels::device::Engine;
use crate::model::{Adapters, Decoder};
use crate::policy::{ConverseSettings, Policy, PolicyVersion, Prompt, ScoredTask, render};
use crate::prompts::{template_options, tools_of, turns_of};
use crate::prove::{OtherWeights, ProvePrompt, Reference, RunAnswer};
use crate::rollout::{Sampling, ThinkingLimit, ThreadPool};
use crate::run::{
    At, EvalRecord, RunDirectory, RunError, RunFolders, RunReference, eval_path, read_evals,
};
use crate::score::{Scorer, Task, for_model};
use crate::text::{TemplateOptions, Thinking, Tokenizer};
use crate::update::{log_probs, pack, read_tokens};

/// Everything that is known of the run.
pub(super) struct RunSide {
    pub(super) run: RunDirectory,
    pub(super) step: u64,
    pub(super) task: Task,
    pub(super) rows: Rows,
    prompts: Vec<ProvePrompt>,
    tokenizer: Tokenizer,
    scorers: [Scorer; 2],
    kwargs: Map<String, Value>,
    why_no_answers: String,
    why_no_log_probs: String,
    /// `None` if no weights are at hand, or asked for.
    weights: Option<Weights>,
}

struct Weights {
    engine: Engine,
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
        let (run, step, has_weights) = match run_folders.find_checkpoint(&reference) {
            Ok((run, step)) => (run, step, true),
            Err(RunError::NoCheckpoint { .. }) => {
                let run = run_folders.find(&reference.run)?;
                let step = recorded_step(&run, &reference, arguments)?;
                (run, step, false)
            }
            Err(error) => return Err(error.into()),
        };
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
        let has_weights = has_weights && !arguments.recorded;
        let name = format!("{}@{step}", run.path().display());
        let names = [name, config.base_model.clone()];
        let start = StartModel::find(&names[usize::from(!has_weights)], run_folders)?;
        let tokenizer = Tokenizer::load(&start.model.source)?;
        let judged = for_model(&task, &tokenizer);
        let scorers = [Scorer::new(&judged)?, Scorer::new(&task)?];
        let kwargs = kwargs(&task, &tokenizer);
        let limit = config.max_completion_tokens;
        let bodies = bodies(endpoint, &task, &rows, limit, &arguments.allow_secret)?;
        let formats = response_formats(endpoint, &task, &rows, limit)?;
        let rendered = rows
            .rows
            .iter()
            .map(|row| render(&judged, row.clone(), &tokenizer));
        let rendered: Vec<Prompt> = rendered.collect::<Result<_, _>>()?;
        let mut weights = None;
        if has_weights {
            let engine = arguments.device.engine()?;
            let model = start.model.decoder(None, &engine)?;
            let threads = ThreadPool::for_engine(&engine, arguments.threads)?;
            weights = Some(Weights {
                policy: Policy::new(engine.clone(), model, start.tokenizer, threads),
                engine,
                names,
                run_folders: run_folders.clone(),
                tokens_per_micro_batch: config.tokens_per_micro_batch,
            });
        }
        let recorded = recorded(&run, step, &rows);
        let mut records = match (&weights, recorded) {
            _ if !why_no_answers.is_empty() => Vec::new(),
            (_, Some(records)) => records,
            (Some(weights), None) => {
                let count = counted(rendered.len(), "prompt");
                eprint_line(&format!("answering {count} with step {step}"));
                weights.answers(&judged, &scorers[0], &rendered, &config)?
            }
            (None, None) => {
                why_no_answers = format!(
                    "the run has no eval of step {step} on {} recorded, and no weights are read",
                    rows.set
                );
                Vec::new()
            }
        };
        let why_no_log_probs = match (&weights, records.is_empty()) {
            (None, _) => "no weights of the run are read".to_owned(),
            (_, true) => why_no_answers.clone(),
            _ => String::new(),
        };
        let prompt = |(prompt, (body, response_format)): (Prompt, (_, Option<Value>))| {
            let found = records
                .iter()
                .position(|answer: &(EvalRecord, _)| answer.0.prompt_id == prompt.row.id);
            let answer = found.map(|at| records.swap_remove(at));
            let answer = answer.map(|(record, ids)| {
                let token_ids = match ids {
                    Some(ids) => ids,
                    None if record.truncated => tokenizer.encode(&record.completion)?,
                    None => tokenizer.answer_ids(&record.completion)?,
                };
                Ok::<_, Failure>(RunAnswer {
                    record,
                    token_ids,
                    log_probs: Vec::new(),
                    margins: Vec::new(),
                })
            });
            Ok::<_, Failure>(ProvePrompt {
                other_ids: other_ids(&judged, &prompt, &tokenizer)?,
                row: prompt.row,
                body,
                response_format,
                token_ids: prompt.token_ids,
                answer: answer.transpose()?,
            })
        };
        let mut prompts = rendered
            .into_iter()
            .zip(bodies.into_iter().zip(formats))
            .map(prompt)
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(weights) = &weights {
            weights.read(&mut prompts)?;
        }
        Ok(Self {
            run,
            step,
            task,
            rows,
            prompts,
            tokenizer,
            scorers,
            kwargs,
            why_no_answers,
            why_no_log_probs,
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
            tokenizer: &self.tokenizer,
            scorers: [&self.scorers[0], &self.scorers[1]],
            has_calls: self.task.calls_functions(),
            kwargs: self.kwargs.clone(),
            has_adapter: self.run.file().config.lora_rank > 0,
            why_no_answers: self.why_no_answers.clone(),
            why_no_log_probs: self.why_no_log_probs.clone(),
            max_nats: arguments.max_nats,
            at_once: arguments.at_once as usize,
        }
    }

    /// Log-probs of the answers under other weights, which are loaded when asked for.
    pub(super) fn other_weights(
        &mut self,
    ) -> impl FnMut(OtherWeights) -> Result<Vec<Vec<f32>>, String> + use<> {
        let texts = self.prompts.iter().map(|prompt| {
            let answer = prompt.answer.as_ref();
            let answer = answer.map_or_else(Vec::new, |answer| answer.token_ids.clone());
            (prompt.token_ids.clone(), answer)
        });
        let texts: Vec<(Vec<u32>, Vec<u32>)> = texts.collect();
        let weights = self.weights.take();
        let folder = checkpoint(self.run.path(), self.step);
        let has_adapter = self.run.file().config.lora_rank > 0;
        move |other| {
            let weights = weights.as_ref().ok_or("no weights")?;
            let found = |name: &str| {
                StartModel::find(name, &weights.run_folders).map_err(|error| error.to_string())
            };
            let decoder = |name: &str, adapter| {
                let model = found(name)?.model.decoder(adapter, &weights.engine);
                model.map_err(|error| error.to_string())
            };
            let read = |model: &Decoder, adapters| {
                weights
                    .log_probs(model, adapters, &texts)
                    .map_err(|failure| failure.message)
            };
            let [own, base] = &weights.names;
            match other {
                OtherWeights::Base if has_adapter => read(&weights.policy.model, Adapters::Off),
                OtherWeights::Base => read(&decoder(base, None)?, Adapters::On),
                OtherWeights::AdapterTwice => {
                    read(&decoder(own, Some(folder.as_path()))?, Adapters::On)
                }
            }
        }
    }
}

/// Answers of the run, with their ids where these are known.
type Answered = Vec<(EvalRecord, Option<Vec<u32>>)>;

impl Weights {
    /// Greedy answers with their ids.
    fn answers(
        &self,
        task: &Task,
        scorer: &Scorer,
        prompts: &[Prompt],
        config: &crate::config::TrainConfig,
    ) -> Result<Answered, Failure> {
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
        let answers = prompts.iter().zip(conversed.conversations);
        let answers = answers.filter_map(|(prompt, held)| Some((prompt, held.into_iter().next()?)));
        answers
            .map(|(prompt, conversation)| {
                let ids = conversation
                    .turns
                    .first()
                    .map(|turn| turn.completion.token_ids.clone());
                Ok((record(prompt, conversation)?, ids))
            })
            .collect()
    }

    /// Log-probs of the answers, and their distance from the second likeliest tokens.
    fn read(&self, prompts: &mut [ProvePrompt]) -> Result<(), Failure> {
        let answers = prompts
            .iter()
            .filter_map(|prompt| Some((prompt.token_ids.as_slice(), prompt.answer.as_ref()?)));
        let groups = answers.map(|(prompt, answer)| (prompt, vec![answer.token_ids.as_slice()]));
        let mut tokens = Vec::new();
        for micro_batch in pack(groups, self.tokens_per_micro_batch) {
            tokens.extend(read_tokens(&self.policy.model, &micro_batch, None, 2)?);
        }
        let mut tokens = tokens.into_iter();
        for answer in prompts
            .iter_mut()
            .filter_map(|prompt| prompt.answer.as_mut())
        {
            let own: Vec<_> = tokens.by_ref().take(answer.token_ids.len()).collect();
            answer.log_probs = own.iter().map(|token| token.log_prob).collect();
            let margin = |(token, id): (&crate::update::ReadToken, &u32)| {
                let other = token.likeliest.iter().find(|(other, _)| other != id);
                other.map_or(f32::INFINITY, |(_, other)| token.log_prob - other)
            };
            answer.margins = own.iter().zip(&answer.token_ids).map(margin).collect();
        }
        Ok(())
    }

    fn log_probs(
        &self,
        model: &Decoder,
        adapters: Adapters,
        texts: &[(Vec<u32>, Vec<u32>)],
    ) -> Result<Vec<Vec<f32>>, Failure> {
        let groups = texts
            .iter()
            .map(|(prompt, answer)| (prompt.as_slice(), vec![answer.as_slice()]));
        let mut flat = Vec::new();
        for micro_batch in pack(groups, self.tokens_per_micro_batch) {
            let read = log_probs(model, &micro_batch, adapters, 1.0)?;
            flat.extend(read.iter().flatten().map(|token| token.log_prob));
        }
        let mut flat = flat.into_iter();
        let own = |(_, answer): &(Vec<u32>, Vec<u32>)| flat.by_ref().take(answer.len()).collect();
        Ok(texts.iter().map(own).collect())
    }
}

/// The step of the recorded eval that stands for a checkpoint that is gone.
fn recorded_step(
    run: &RunDirectory,
    reference: &RunReference,
    arguments: &Arguments,
) -> Result<u64, Failure> {
    let has_eval =
        |step: &u64| eval_path(run.path(), *step, &arguments.on, Target::Trained.name()).exists();
    let found = match reference.at {
        At::Step(step) => Some(step).filter(has_eval),
        At::Best | At::Last => (0..=run.file().config.max_steps).rev().find(has_eval),
    };
    found.ok_or_else(|| {
        Failure::usage(format!(
            "--run {}: neither a checkpoint nor a recorded eval on {}: name a step that has one",
            arguments.run, arguments.on
        ))
    })
}

/// The recorded answers of the step, if all are there.
fn recorded(run: &RunDirectory, step: u64, rows: &Rows) -> Option<Answered> {
    let path = eval_path(run.path(), step, &rows.set, Target::Trained.name());
    let records = read_evals(&path).ok()?;
    let of_row = |row: &crate::dataset::PromptRow| {
        let mut own = records
            .iter()
            .filter(|record| record.prompt_id == row.id && record.sample == 0);
        own.next().cloned().map(|record| (record, None))
    };
    rows.rows.iter().map(of_row).collect()
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

/// The prompt with thinking switched.
fn other_ids(
    task: &Task,
    prompt: &Prompt,
    tokenizer: &Tokenizer,
) -> Result<Option<Vec<u32>>, Failure> {
    if !tokenizer.has_thinking_switch() {
        return Ok(None);
    }
    let options = template_options(task);
    let options = TemplateOptions {
        thinking: match options.thinking {
            Thinking::On => Thinking::Off,
            Thinking::Off => Thinking::On,
        },
        ..options
    };
    let tools = tools_of(task, Some(&prompt.row))?;
    let turns = turns_of(task, Some(tokenizer), &prompt.row.messages)?;
    Ok(Some(tokenizer.prompt_ids(
        &turns,
        tools.as_ref(),
        &options,
    )?))
}

fn greedy(limit: usize) -> EndpointSampling {
    EndpointSampling {
        samples: 1,
        max_completion_tokens: limit,
        temperature: 0.0,
    }
}

/// Requests as an eval of the endpoint sends them.
fn bodies(
    endpoint: &Endpoint,
    task: &Task,
    rows: &Rows,
    limit: usize,
    allowed: &[String],
) -> Result<Vec<Map<String, Value>>, Failure> {
    let form = RequestForm::new(endpoint, task, greedy(limit))?;
    let questions = form.first(&rows.label, &rows.rows, allowed)?;
    let bodies = questions
        .iter()
        .map(|question| serde_json::from_str(&question.body));
    Ok(bodies.collect::<Result<_, _>>()?)
}

/// `response_format` of each row's schema; none without one.
fn response_formats(
    endpoint: &Endpoint,
    task: &Task,
    rows: &Rows,
    limit: usize,
) -> Result<Vec<Option<Value>>, Failure> {
    let mut strict = endpoint.clone();
    strict.format = ResponseFormat::Schema;
    if RequestForm::new(&strict, task, greedy(limit)).is_err() {
        return Ok(vec![None; rows.rows.len()]);
    }
    // What may not be sent has been refused before.
    let allowed: Vec<String> = rows.rows.iter().map(|row| row.id.clone()).collect();
    let bodies = bodies(&strict, task, rows, limit, &allowed)?.into_iter();
    Ok(bodies
        .map(|mut body| body.remove("response_format"))
        .collect())
}
