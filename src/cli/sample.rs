//! `grpo-tui sample`: samples completions of a task's prompts and scores them.

mod loaded_model;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

use super::device::DeviceArguments;
use super::rows::Rows;
use super::status_line::StatusLine;
use super::targets::{CONSTRAINED, ENDPOINT, Target, common_limit, lengths};
use super::{Failure, Outcome, eval, print, print_json, score, task_with_agent};
use crate::checkpoint::ModelLocation;
use crate::confidence::AnswerConfidence;
use crate::constraint::TaskConstraints;
use crate::eval::{confidences, requests};
use crate::files::failpoint;
use crate::format::{amount, counted, duration, or_na, probability};
use crate::policy::{
    Conversation, ConverseSettings, Policy, PolicyVersion, Prompt, Question, SAMPLE_STEP,
    ScoredTask, ToolTurn, Turn, Watcher, prepare_rows,
};
use crate::report::{chain_counts, chain_text};
use crate::rollout::{Sampling, StopReason, ThinkingLimit, ThreadPool};
use crate::run::{RunFolders, SampledCompletion};
use crate::score::{Scorer, Task, for_model};
use crate::secrets::visible;
use crate::task::{PromptSet, SetName};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Task: a folder, a name in the workspace, or an embedded task (`invoice`, `sql`, `tool-calls`, `shell-lint`, `py-functions`, `assistant`)
    task: String,
    /// Model: a model or adapter folder, a GGUF file, a Hugging Face name, an embedded model (`tiny`, `tiny-sql`, `tiny-tools`,
    /// `tiny-shell`, `tiny-python`, `tiny-assistant`), or RUN, RUN@STEP, RUN@best, RUN@last
    #[arg(long, value_name = "M")]
    model: String,
    /// Sample from the base of M instead
    #[arg(long)]
    base: bool,
    /// Prompt id in any of the task's sets; repeatable [default: the eval set's first]
    #[arg(long = "prompt", value_name = "ID")]
    prompts: Vec<String>,
    /// Every prompt of a set: test, eval, train, or a file of prompt rows
    #[arg(long, value_name = "SET", conflicts_with = "prompts")]
    on: Option<SetName>,
    /// Completions per prompt
    #[arg(long, value_name = "K", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    n: u32,
    /// Sampling temperature; 0: greedy
    #[arg(long, value_name = "T", default_value_t = 1.0, allow_negative_numbers = true, value_parser = eval::temperature)]
    temperature: f64,
    /// Program that holds the conversations, such as "python3 agent.py": the task's [agent]
    #[arg(long, value_name = "COMMAND")]
    agent: Option<String>,
    /// Sampling seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Maximum completion tokens [default: the run's own, else the task's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_completion_tokens: Option<u32>,
    /// Runs folder [default: the workspace's runs/, else the user's data directory]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArguments,
    /// CPU threads; 0: all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Use a server that keeps the model loaded, started if needed; a live run's own worker samples between its steps
    #[arg(long, conflicts_with = "threads")]
    worker: bool,
    /// Give each value of a JSON answer its probability (docs/confidence.md)
    #[arg(long)]
    confidence: bool,
    /// Print one JSON object per completion
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let task = task_with_agent(&arguments.task, arguments.agent.as_deref())?;
    Scorer::new(&task)?;
    let run_folders = RunFolders::discover(arguments.runs.as_deref(), &std::env::current_dir()?);
    let requested_rows = requested_rows(&arguments, &task)?;
    if arguments.confidence {
        for rows in &requested_rows {
            eval::check_confidence(&task, rows)?;
        }
    }
    if [ENDPOINT, CONSTRAINED]
        .iter()
        .any(|prefix| arguments.model.starts_with(prefix))
    {
        let message = format!(
            "--model {}: only `eval` takes endpoints and constrained models",
            arguments.model
        );
        return Err(Failure::usage(message));
    }
    let (name, is_trained) = if arguments.base {
        base_of(&arguments.model, &run_folders)?
    } else {
        (arguments.model.clone(), true)
    };
    if arguments.worker {
        let (arguments, task, run_folders) = (&arguments, &task, &run_folders);
        let client = loaded_model::Client {
            arguments,
            task,
            model: &name,
            is_trained,
            run_folders,
        };
        return client.sample(requested_rows);
    }
    let target = Target::find(&name, &task, &run_folders, None)?;
    let engine = arguments.device.engine()?;
    let threads = ThreadPool::for_engine(&engine, arguments.threads)?;
    let own = common_limit(std::slice::from_ref(&target));
    let limit = arguments
        .max_completion_tokens
        .map_or(own.completion_tokens, |limit| limit as usize);
    let (model, tokenizer) = target.load(&run_folders, &engine)?;
    let task = for_model(&task, &tokenizer);
    let scorer = Scorer::new(&task)?;
    let (lengths, mut prompts) = (lengths(&model, limit), Vec::new());
    for rows in requested_rows {
        prompts.extend(prepare_rows(
            &task,
            &rows.label,
            rows.rows,
            &tokenizer,
            lengths,
        )?);
    }
    let n = arguments.n as usize;
    let version = if is_trained {
        PolicyVersion::Trained
    } else {
        PolicyVersion::Base
    };
    let policy = Policy::new(engine, model, tokenizer, threads);
    let grammar = arguments
        .confidence
        .then(|| TaskConstraints::new(&task, &policy.tokenizer))
        .transpose()?;
    let thinking = own
        .thinking
        .map(|budget| ThinkingLimit::new(&policy.tokenizer, budget))
        .transpose()?;
    let sampling = Sampling {
        thinking,
        ..Sampling::new(
            &policy.tokenizer,
            arguments.temperature,
            limit,
            arguments.seed,
        )
    };
    let mut stream = SampleStream {
        prompts: &prompts,
        completions: n,
        json: arguments.json,
        is_held: arguments.confidence,
        ended: BTreeMap::new(),
        next: 0,
        begun: Instant::now(),
        line: StatusLine::new(),
        printed: Ok(ExitCode::SUCCESS),
    };
    let asked = prompts.iter().zip(requests(&prompts, SAMPLE_STEP, n));
    let questions: Vec<_> = asked
        .map(|(prompt, request)| Question { prompt, request })
        .collect();
    let tasks = [ScoredTask {
        task: &task,
        scorer: &scorer,
        max_prompt_tokens: lengths.prompt_limit(),
    }];
    let settings = ConverseSettings {
        max_turns: 1,
        ..ConverseSettings::new(&tasks, version, &sampling)
    };
    let sampled = policy.converse(&questions, &settings, Some(&mut stream));
    stream.line.end();
    let conversations = sampled?.conversations;
    if let Some(grammar) = &grammar {
        let known = confidences(&policy, version, &prompts, grammar, &conversations)?;
        let mut known = known.into_iter();
        for conversations in conversations {
            stream.print_next(conversations.into_iter(), &mut known)?;
            stream.next += 1;
        }
    }
    stream.printed
}

/// Prints the completions of each prompt, in order, as soon as all of them have ended, and counts them meanwhile.
struct SampleStream<'a> {
    prompts: &'a [Prompt],
    /// Completions of each prompt.
    completions: usize,
    json: bool,
    /// Whether they are printed later, with their confidences.
    is_held: bool,
    /// By prompt and sample; of prompts from `next` on.
    ended: BTreeMap<usize, BTreeMap<usize, Conversation>>,
    next: usize,
    begun: Instant,
    line: StatusLine,
    printed: Outcome,
}

impl SampleStream<'_> {
    /// Completions that have ended.
    fn count(&self) -> usize {
        self.next * self.completions + self.ended.values().map(BTreeMap::len).sum::<usize>()
    }

    fn print_next(
        &mut self,
        conversations: impl Iterator<Item = Conversation>,
        confidences: &mut impl Iterator<Item = AnswerConfidence>,
    ) -> Outcome {
        let prompt = &self.prompts[self.next];
        let mut texts = Vec::new();
        for (sample, scored) in conversations
            .flat_map(|conversation| conversation.turns)
            .enumerate()
        {
            let confidence = confidences.next();
            texts.push(match self.json {
                true => {
                    let completion = SampledCompletion {
                        confidence: confidence.map(Box::new),
                        ..scored.into_sampled(&prompt.row.id, sample)?
                    };
                    document(&completion).to_string()
                }
                false => completion_text(sample, &scored, confidence.as_ref()),
            });
        }
        self.line.clear();
        if self.json {
            print_json(texts.join("\n"))
        } else {
            print(&(heading(prompt) + &texts.concat()))
        }
    }
}

impl Watcher for SampleStream<'_> {
    fn on_end(&mut self, prompt: usize, sample: usize, conversation: &mut Conversation) {
        failpoint("sample.end", "");
        self.ended
            .entry(prompt)
            .or_default()
            .insert(sample, conversation.clone());
        while self
            .ended
            .get(&self.next)
            .is_some_and(|ended| ended.len() == self.completions && !self.is_held)
        {
            let conversations = self
                .ended
                .remove(&self.next)
                .unwrap_or_default()
                .into_values();
            if self.printed.is_ok() {
                self.printed = self.print_next(conversations, &mut std::iter::empty());
            }
            self.next += 1;
        }
        let (count, all) = (self.count(), self.prompts.len() * self.completions);
        let rate = count as f64 / self.begun.elapsed().as_secs_f64();
        let left = duration((all - count) as f64 / rate);
        self.line.show(|| {
            format!(
                "sampled {count} of {all} completions, {}/s, {left} left",
                amount(rate)
            )
        });
    }
}

/// The base of a model, and whether its adapters are used: a run's base is the same weights without them, unless the run
/// trained the weights themselves.
fn base_of(model: &str, run_folders: &RunFolders) -> Result<(String, bool), Failure> {
    match ModelLocation::find(model, run_folders)? {
        ModelLocation::Run { run, .. } if run.file().config.lora_rank == 0 => {
            Ok((run.file().config.base_model.clone(), true))
        }
        ModelLocation::Run { .. } | ModelLocation::Adapter(_) => Ok((model.to_owned(), false)),
        ModelLocation::Model(_) => Err(Failure::usage(format!(
            "--base: {model} is neither a run nor an adapter, so it has no base"
        ))),
    }
}

/// The requested rows: of a set or a file, by id, or the first of the eval set (else of another set).
fn requested_rows(arguments: &Arguments, task: &Task) -> Result<Vec<Rows>, Failure> {
    if let Some(on) = &arguments.on {
        return Ok(vec![Rows::on(task, on)?]);
    }
    let sets = [PromptSet::Eval, PromptSet::Test, PromptSet::Train]
        .into_iter()
        .filter(|set| task.set_file(*set).is_some());
    let sets: Vec<Rows> = if arguments.prompts.is_empty() {
        sets.take(1).collect()
    } else {
        sets.collect::<Vec<_>>()
    }
    .into_iter()
    .map(|set| Rows::from_set(task, set))
    .collect::<Result<_, _>>()?;
    let Some(first) = sets.first() else {
        return Err(Failure::usage(format!(
            "{} has no prompts; give a file of prompt rows with --on FILE",
            task.label("task.toml")
        )));
    };
    if arguments.prompts.is_empty() {
        return Ok(vec![first.only(|row| row.line == first.rows[0].line)]);
    }
    let find = |id: &String| {
        let found = sets
            .iter()
            .find(|rows| rows.rows.iter().any(|row| row.id == *id));
        found
            .map(|rows| rows.only(|row| row.id == *id))
            .ok_or_else(|| no_such_prompt(id, &sets))
    };
    arguments.prompts.iter().map(find).collect()
}

fn no_such_prompt(id: &str, sets: &[Rows]) -> Failure {
    let ids = sets
        .iter()
        .flat_map(|rows| &rows.rows)
        .map(|row| row.id.as_str());
    let files: Vec<&str> = sets.iter().map(|rows| rows.label.as_str()).collect();
    let advice = crate::format::did_you_mean(id, ids);
    Failure::usage(format!(
        "--prompt {id}: no prompt with that id in {}{advice}",
        files.join(", ")
    ))
}

fn document(completion: &SampledCompletion) -> Value {
    let SampledCompletion {
        prompt_id,
        sample,
        chain,
        call_seconds,
        text,
        token_ids,
        log_probs,
        stop_reason,
        score,
        confidence,
        ..
    } = completion;
    let mut value = json!({
        "prompt_id": prompt_id, "sample": sample, "completion": text, "token_ids": token_ids, "log_probs": log_probs, "stop_reason": stop_reason,
    });
    if let (Value::Object(value), Value::Object(score)) = (&mut value, score) {
        value.extend(chain.iter().map(|chain| ("chain".to_owned(), json!(chain))));
        value.extend(
            (!call_seconds.is_empty()).then(|| ("call_seconds".to_owned(), json!(call_seconds))),
        );
        value.extend(score.clone());
        value.extend(
            confidence
                .iter()
                .map(|known| ("confidence".to_owned(), json!(known))),
        );
    }
    value
}

fn heading(prompt: &Prompt) -> String {
    let last = prompt
        .row
        .messages
        .last()
        .map(|message| message.content.trim_end())
        .unwrap_or_default();
    format!(
        "--- {} ({})\n{last}\n\n",
        visible(&prompt.row.id),
        counted(prompt.token_ids.len(), "token")
    )
}

/// What was said on the way to an answer, the calls with their replies, and why it ended.
fn tool_text(tools: &ToolTurn) -> String {
    let chain = tools.chain();
    format!(
        "{}({} in {}; ended: {})\n",
        chain_text(&chain),
        chain_counts(&chain),
        duration(tools.seconds),
        chain.end.name()
    )
}

/// A line for each value: `0.9996 /vendor "Acme"`.
fn confidence_text(known: &AnswerConfidence, text: &str) -> String {
    let mut lines = String::new();
    for (leaf, value) in known.written(text) {
        let figure = or_na(leaf.confidence, probability);
        lines += &format!("{figure:<9} {} {value}\n", visible(&leaf.path));
    }
    let why = known.unknown.iter();
    lines + &why.map(|why| format!("n/a: {why}\n")).collect::<String>()
}

fn completion_text(sample: usize, scored: &Turn, known: Option<&AnswerConfidence>) -> String {
    let Turn {
        completion,
        text,
        score,
        ..
    } = scored;
    let truncated = match completion.stop {
        StopReason::Length => ", truncated",
        StopReason::Thinking => ", truncated while thinking",
        _ if completion.has_thought_to_the_limit() => ", think block closed",
        _ => "",
    };
    let why = score::why(score);
    let why = if why.is_empty() {
        why
    } else {
        format!("  {why}")
    };
    let tokens = scored.sampled_tokens();
    let steps = scored.tools.as_ref().map(tool_text).unwrap_or_default();
    let known = known.map_or_else(String::new, |known| confidence_text(known, text));
    format!(
        "[{}] {}  reward {}  {}{truncated}{why}\n{steps}{text}\n{known}\n",
        sample + 1,
        score.outcome(),
        score.reward_text(),
        counted(tokens, "token")
    )
}
