//! `sample --worker`: samples from a model already in memory, that of an active run's worker or of
//! a server (`serve` on a Unix socket, started if needed). Servers handle only tokens: prompts are
//! rendered and completions scored here.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Arguments, confidence_text, document};
use crate::checkpoint::ModelLocation;
use crate::cli::output::{eprint_line, printing_here};
use crate::cli::rows::{Rows, whole};
use crate::cli::score::why;
use crate::cli::targets::{Target, common_limit};
use crate::cli::{Failure, Outcome, print, print_json};
use crate::confidence::AnswerConfidence;
use crate::config::ThinkingBudget;
use crate::constraint::TaskConstraints;
use crate::dataset::PromptRow;
use crate::eval::{judge_confidences, requests};
use crate::format::counted;
use crate::hub::ModelConfig;
use crate::hub::find_model;
use crate::openai::AnswerSchema;
use crate::policy::{
    ConverseSettings, Lengths, PolicyVersion, Question, SAMPLE_STEP, ScoredTask, ServedModel,
    prepare_rows,
};
use crate::report::{chain_counts, chain_text};
use crate::rollout::{Completion, Request, Sampling, StopReason, ThreadPool};
use crate::run::{
    At, Liveness, RunError, RunFolders, RunReference, Sample, SampledCompletion, ServerFolder,
    State, Verb, ask,
};
use crate::score::{Score, Scorer, Task, for_model};
use crate::secrets::visible;
use crate::text::Tokenizer;

/// For a prompt's completions: includes loading, waiting for a device, and the current step.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(3600);
const LOOK: Duration = Duration::from_millis(250);
/// Maximum number of servers started in a row for one prompt.
const MAX_SERVERS: usize = 2;

/// The request, and the requested model.
pub(super) struct Client<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) task: &'a Task,
    pub(super) model: &'a str,
    /// Whether to use the adapter, if any.
    pub(super) is_trained: bool,
    pub(super) run_folders: &'a RunFolders,
}

/// A server, and the renderer of its prompts.
struct Server {
    folder: ServerFolder,
    /// Model name that is valid in every folder.
    model: String,
    tokenizer: Arc<Tokenizer>,
    config: ModelConfig,
    thinking: Option<ThinkingBudget>,
    lengths: Lengths,
    task: Task,
    scorer: Scorer,
    /// Of the values that get their confidence.
    grammar: Option<TaskConstraints>,
    /// Servers started for the current prompt; requests of conversations are concurrent.
    launched: Mutex<usize>,
}

impl Client<'_> {
    /// Samples prompts one after another, printing the completions of each.
    pub(super) fn sample(&self, requested_rows: Vec<Rows>) -> Outcome {
        let mut server = None;
        for Rows { label, rows, .. } in requested_rows {
            for row in rows {
                if let Some(run) = self.active_run()
                    && self.sample_from_run(&run, &row)?
                {
                    continue;
                }
                let server = match &mut server {
                    Some(server) => server,
                    None => server.insert(self.server()?),
                };
                self.sample_from_server(server, &label, row)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The active run denoted by RUN or RUN@last.
    fn active_run(&self) -> Option<PathBuf> {
        let reference = RunReference::parse(self.model);
        // As elsewhere: a model's folder or name precedes a run.
        let is_run = |folder: &Path| folder.join("run.toml").is_file();
        let is_model =
            find_model(self.model).is_ok_and(|source| !source.folder().is_some_and(is_run));
        let is_current = !reference.explicit || reference.at == At::Last;
        let run = self
            .run_folders
            .find(&reference.run)
            .ok()
            .filter(|_| is_current && !is_model)?;
        Liveness::for_run(run.path())
            .may_live()
            .then(|| run.path().to_owned())
    }

    /// Returns whether the run's worker has answered; false if it exited meanwhile.
    fn sample_from_run(&self, run: &Path, row: &PromptRow) -> Result<bool, Failure> {
        let task = match self.task.folder() {
            Some(folder) => std::path::absolute(folder)?.display().to_string(),
            None => self.task.name.clone(),
        };
        let verb = Verb::Sample(Sample {
            row: whole(row),
            n: self.arguments.n as usize,
            temperature: self.arguments.temperature,
            max_tokens: self
                .arguments
                .max_completion_tokens
                .map(|tokens| tokens as usize),
            base: !self.is_trained,
            seed: self.arguments.seed,
            task: Some(task),
            confidence: self.arguments.confidence,
        });
        let mut found = Vec::new();
        let mut on_part = |part| found.extend(serde_json::from_value::<SampledCompletion>(part));
        let state = || {
            let State {
                status,
                step,
                cause,
                ..
            } = State::observe(run).filter(|state| !state.status.is_ended())?;
            let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
            let status = status.name();
            Some(format!(
                "answered by the run's worker between steps: it is {status}, step {step}{cause}"
            ))
        };
        match with_status_output(state, || ask(run, &verb, SAMPLE_TIMEOUT, &mut on_part)) {
            Ok(outcome) if !outcome.done => {
                return Err(Failure::failed(format!(
                    "not done in time: {}",
                    outcome.text
                )));
            }
            Err(RunError::NoWorker { .. }) => return Ok(false),
            outcome => outcome?,
        };
        found
            .iter()
            .try_for_each(|completion| self.print(completion))?;
        Ok(true)
    }

    fn print(&self, completion: &SampledCompletion) -> Result<(), Failure> {
        if self.arguments.json {
            return print_json(document(completion)).map(drop);
        }
        let SampledCompletion {
            prompt_id,
            sample,
            text,
            token_ids,
            score,
            chain,
            confidence,
            ..
        } = completion;
        let score: Score = serde_json::from_value(score.clone())?;
        let (outcome, reward, why) = (score.outcome(), score.reward_text(), why(&score));
        let why = if why.is_empty() {
            why
        } else {
            format!("  {why}")
        };
        let tokens = token_ids.len() + chain.as_ref().map_or(0, |chain| chain.tokens());
        let steps = chain.as_ref().map_or_else(String::new, |chain| {
            format!(
                "{}({}; ended: {})\n",
                chain_text(chain),
                chain_counts(chain),
                chain.end.name()
            )
        });
        let head = format!(
            "{} [{}] {outcome}  reward {reward}  {}{why}",
            visible(prompt_id),
            sample + 1,
            counted(tokens, "token")
        );
        let known = confidence.as_deref();
        let known = known.map_or_else(String::new, |known| confidence_text(known, text));
        print(&format!("{head}\n{steps}{text}\n{known}\n")).map(drop)
    }

    fn server(&self) -> Result<Server, Failure> {
        let target = Target::find(self.model, self.task, self.run_folders, None)?;
        let own = common_limit(std::slice::from_ref(&target));
        let limit = self
            .arguments
            .max_completion_tokens
            .map_or(own.completion_tokens, |tokens| tokens as usize);
        let located = ModelLocation::find(self.model, self.run_folders)?;
        let model = match &located {
            ModelLocation::Run { run, step } => {
                format!("{}@{step}", std::path::absolute(run.path())?.display())
            }
            ModelLocation::Model(source) | ModelLocation::Adapter(source) => {
                match source.folder() {
                    Some(folder) => std::path::absolute(folder)?.display().to_string(),
                    None => self.model.to_owned(),
                }
            }
        };
        let folder = ServerFolder::of_model(&model, &located.digest(self.run_folders)?);
        let source = located.source(self.run_folders)?;
        let config = source.config()?;
        let positions = config.max_position_embeddings;
        let lengths = Lengths {
            max_seq_len: None,
            max_completion_tokens: limit,
            positions,
        };
        let tokenizer = Arc::new(Tokenizer::load(&source)?);
        let task = for_model(self.task, &tokenizer);
        let grammar = self
            .arguments
            .confidence
            .then(|| TaskConstraints::new(&task, &tokenizer))
            .transpose()?;
        let thinking = own.thinking;
        Ok(Server {
            folder,
            model,
            scorer: Scorer::new(&task)?,
            task,
            tokenizer,
            config,
            lengths,
            thinking,
            grammar,
            launched: Mutex::new(0),
        })
    }

    /// The server samples; tools, agents and the scorer run here.
    fn sample_from_server(
        &self,
        server: &Server,
        label: &str,
        row: PromptRow,
    ) -> Result<(), Failure> {
        let Server {
            folder,
            tokenizer,
            config,
            lengths,
            task,
            scorer,
            grammar,
            ..
        } = server;
        let Arguments {
            n,
            temperature,
            seed,
            ..
        } = *self.arguments;
        let prompts = prepare_rows(task, label, vec![row], tokenizer, *lengths)?;
        *server.launched.lock() = 0;
        let described = match grammar {
            Some(grammar) => grammar.answer_schema(&prompts[0].row)?,
            None => None,
        };
        let known = Mutex::new(BTreeMap::new());
        let ask = |request: &Request| {
            let answer = self.answer(server, &self.body(server, request, described.as_ref()));
            let answer = answer.map_err(|failure| failure.message)?;
            if described.is_some() {
                let given = (request.first_sample..).zip(confidences(&answer));
                known.lock().extend(given);
            }
            completions(&answer).ok_or_else(|| "the server's answer was truncated".to_owned())
        };
        let (tokenizer, threads) = (Arc::clone(tokenizer), ThreadPool::new(1)?);
        let sampling = Sampling::new(&tokenizer, temperature, lengths.max_completion_tokens, seed);
        let served = ServedModel {
            tokenizer,
            config: config.clone(),
            threads,
            ask: &ask,
        };
        let asked = prompts
            .iter()
            .zip(requests(&prompts, SAMPLE_STEP, n as usize));
        let questions: Vec<_> = asked
            .map(|(prompt, request)| Question { prompt, request })
            .collect();
        let tasks = [ScoredTask {
            task,
            scorer,
            max_prompt_tokens: lengths.prompt_limit(),
        }];
        let version = if self.is_trained {
            PolicyVersion::Trained
        } else {
            PolicyVersion::Base
        };
        let settings = ConverseSettings {
            max_turns: 1,
            ..ConverseSettings::new(&tasks, version, &sampling)
        };
        let conversed = with_status_output(
            || folder.last_line(),
            || served.converse(&questions, &settings, None),
        )?;
        let mut known: Vec<AnswerConfidence> = known.into_inner().into_values().collect();
        judge_confidences(&mut known, &conversed.conversations);
        let mut known = known.into_iter();
        for (prompt, conversations) in prompts.iter().zip(conversed.conversations) {
            let turns = conversations
                .into_iter()
                .flat_map(|conversation| conversation.turns);
            for (sample, turn) in turns.enumerate() {
                self.print(&SampledCompletion {
                    confidence: known.next().map(Box::new),
                    ..turn.into_sampled(&prompt.row.id, sample)?
                })?;
            }
        }
        Ok(())
    }

    fn body(
        &self,
        Server {
            model,
            lengths,
            thinking,
            ..
        }: &Server,
        request: &Request,
        described: Option<&AnswerSchema>,
    ) -> String {
        let Arguments {
            temperature, seed, ..
        } = self.arguments;
        let most = request.lengths.iter().copied().max().unwrap_or(usize::MAX);
        json!({
            "model": if self.is_trained { model } else { ServerFolder::BASE },
            "prompt": request.prompt, "n": request.samples, "first_sample": request.first_sample,
            "temperature": temperature, "seed": seed, "max_tokens": most.min(lengths.max_completion_tokens),
            "logprobs": 0, "return_token_ids": true,
            "thinking_token_budget": thinking.map(|budget| budget.max_tokens),
            "thinking_end": thinking.map(|budget| budget.end), "x_confidence": described,
        })
        .to_string()
    }

    /// Requests until a server has answered, starting one if there is none.
    fn answer(&self, server: &Server, body: &str) -> Result<Value, Failure> {
        let Server { folder, model, .. } = server;
        let begun = Instant::now();
        let failed = |why: String| Failure::failed(format!("the server of {model}: {why}"));
        while begun.elapsed() < SAMPLE_TIMEOUT {
            match folder.connect().and_then(|socket| post(socket, body)) {
                Ok((200, answer)) => return Ok(answer),
                // The server is shutting down, holds the lock without listening, or has a full
                // queue.
                Ok((429 | 503, _)) => {}
                Ok((_, answer)) => {
                    let message = answer["error"]["message"]
                        .as_str()
                        .unwrap_or("it refused the request");
                    return Err(Failure::failed(message));
                }
                Err(_) if folder.is_in_use() => {}
                Err(_) => {
                    let mut launched = server.launched.lock();
                    if folder.is_in_use() {
                        continue;
                    }
                    if *launched == MAX_SERVERS {
                        let last = folder.last_line().unwrap_or_default();
                        return Err(failed(format!(
                            "{MAX_SERVERS} have ended before they answered: {last}"
                        )));
                    }
                    *launched += 1;
                    folder.launch(model, &self.arguments.device.compute())?;
                }
            }
            std::thread::sleep(LOOK / 5);
        }
        Err(failed(format!(
            "no answer for {} s",
            SAMPLE_TIMEOUT.as_secs()
        )))
    }
}

/// Does `work` while printing each change of the state on stderr.
fn with_status_output<T>(state: impl Fn() -> Option<String> + Send, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(printing_here(move || {
            let mut last = None;
            while is_done.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if let Some(text) = state().filter(|text| last.as_ref() != Some(text)) {
                    eprint_line(&text);
                    last = Some(text);
                }
            }
        }));
        let outcome = work();
        drop(done);
        outcome
    })
}

/// Status and body of a response. HTTP/1.0: not chunked, ends with the connection.
fn post(mut socket: UnixStream, body: &str) -> io::Result<(u16, Value)> {
    let head = "POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length:";
    socket.set_read_timeout(Some(SAMPLE_TIMEOUT))?;
    write!(socket, "{head} {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((
        status.ok_or(io::ErrorKind::InvalidData)?,
        serde_json::from_str(body).unwrap_or_default(),
    ))
}

/// The confidence of each choice.
fn confidences(answer: &Value) -> impl Iterator<Item = AnswerConfidence> {
    let choices = answer["choices"].as_array().into_iter().flatten();
    choices.map(|choice| {
        AnswerConfidence::deserialize(&choice["x_confidence"])
            .unwrap_or_else(|_| AnswerConfidence::unknown("the server gave none"))
    })
}

fn completions(answer: &Value) -> Option<Vec<Completion>> {
    let completion = |choice: &Value| {
        let ids = choice["token_ids"]
            .as_array()?
            .iter()
            .map(|id| u32::try_from(id.as_u64()?).ok());
        let log_probs = choice["logprobs"]["token_logprobs"].as_array()?.iter();
        let stop = if choice["finish_reason"] == "stop" {
            StopReason::Stop
        } else {
            StopReason::Length
        };
        let log_probs = log_probs.map(|value| Some(value.as_f64()? as f32));
        Some(Completion::new(
            ids.collect::<Option<_>>()?,
            log_probs.collect::<Option<_>>()?,
            stop,
        ))
    };
    answer["choices"]
        .as_array()?
        .iter()
        .map(completion)
        .collect()
}
