//! `sample --worker`: samples from a server of this user that keeps the model loaded (`serve` on a Unix socket), started if
//! needed. Prompts are rendered and completions scored here: the server has tokens alone.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Asked, print_scored};
use crate::checkpoint::Located;
use crate::cli::Failure;
use crate::cli::output::eprint_line;
use crate::cli::status_line::StatusLine;
use crate::cli::targets::{Target, common_limit};
use crate::dataset::PromptRow;
use crate::eval::{Lengths, Prompt, prepare_rows};
use crate::rollout::{Completion, ScoredCompletion, StopReason};
use crate::run::{RunError, RunFolders, ServerFolder};
use crate::text::Tokenizer;

/// For a prompt's completions: loading, waiting for a device, or the step of a run.
pub(super) const PATIENCE: Duration = Duration::from_secs(3600);
/// How soon a change is seen.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// Servers that are started for a prompt at most, if one after the other ends.
const MAX_SERVERS: usize = 3;

pub(super) struct ServerClient<'a> {
    asked: &'a Asked<'a>,
    folder: ServerFolder,
    /// A name that is valid in every folder.
    model: String,
    tokenizer: Tokenizer,
    lengths: Lengths,
}

impl<'a> ServerClient<'a> {
    pub(super) fn new(asked: &'a Asked<'a>, places: &RunFolders) -> Result<Self, Failure> {
        if cfg!(not(feature = "serve")) {
            return Err(Failure::usage("--worker: built without the feature `serve`: sample without --worker"));
        }
        let target = Target::find(asked.model, asked.task, places, None)?;
        let own_limit = || common_limit(std::slice::from_ref(&target));
        let limit = asked.arguments.max_completion_tokens.map_or_else(own_limit, |tokens| tokens as usize);
        let located = Located::find(asked.model, places)?;
        let model = match &located {
            Located::Run { run, step } => format!("{}@{step}", std::path::absolute(run.path())?.display()),
            Located::Model(source) | Located::Adapter(source) => match source.folder() {
                Some(folder) => std::path::absolute(folder)?.display().to_string(),
                None => asked.model.to_owned(),
            },
        };
        let folder = ServerFolder::of_model(&model, &located.digest(places)?);
        let source = located.source(places)?;
        let positions = source.config()?.max_position_embeddings;
        let lengths = Lengths { max_seq_len: None, max_completion_tokens: limit, positions };
        Ok(Self { asked, folder, model, tokenizer: Tokenizer::load(&source)?, lengths })
    }

    /// Samples from a row's prompt, scores and prints.
    pub(super) fn sample(&self, label: &str, row: PromptRow) -> Result<(), Failure> {
        let Asked { arguments, task, scorer, .. } = self.asked;
        for prompt in prepare_rows(task, label, vec![row], &self.tokenizer, self.lengths)? {
            let completions = self.completions(&prompt)?;
            let decode = |completion: &Completion| self.tokenizer.decode(&completion.token_ids, true);
            let texts = completions.iter().map(decode).collect::<Result<Vec<String>, _>>()?;
            let to_score: Vec<_> = texts.iter().map(|text| (text.as_str(), Some(&prompt.row))).collect();
            let scored = scorer.score_all(&to_score).into_iter().zip(completions).zip(&texts);
            let scored = scored.map(|((score, completion), text)| {
                let text = text.clone();
                ScoredCompletion { completion, text, score }
            });
            print_scored(&prompt, scored, arguments.json)?;
        }
        Ok(())
    }

    /// Asks until a server has answered; starts one where there is none.
    fn completions(&self, prompt: &Prompt) -> Result<Vec<Completion>, Failure> {
        let arguments = self.asked.arguments;
        let model = if self.asked.is_trained { self.model.as_str() } else { ServerFolder::BASE };
        let body = json!({
            "model": model, "prompt": prompt.token_ids, "n": arguments.n, "temperature": arguments.temperature,
            "seed": arguments.seed, "max_tokens": self.lengths.max_completion_tokens, "stream": true, "logprobs": 0,
            "return_token_ids": true,
        });
        let (begun, mut servers, mut last_state) = (Instant::now(), 0, String::new());
        while begun.elapsed() < PATIENCE {
            let Ok(socket) = self.folder.connect() else {
                // Who holds the lock is about to listen, or to exit.
                if !self.folder.is_in_use() {
                    servers += 1;
                    self.launch(servers)?;
                }
                std::thread::sleep(LOOK / 5);
                continue;
            };
            let mut answer = Answer::new(arguments.n as usize, !last_state.is_empty());
            let reply = answer.read(socket, &body.to_string());
            answer.line.end();
            match reply? {
                Reply::Done => return Ok(answer.completions),
                Reply::NotReady(state) => {
                    if state != last_state {
                        eprint_line(&state);
                        last_state = state;
                    }
                    std::thread::sleep(LOOK);
                }
                Reply::Lost => {}
            }
        }
        Err(Failure::failed(format!("the server of {} has not answered for {} s", self.model, PATIENCE.as_secs())))
    }

    fn launch(&self, servers: usize) -> Result<(), Failure> {
        let ended = |message: String| Failure::failed(format!("the server of {}: {message}", self.model));
        if servers > MAX_SERVERS {
            return Err(ended(format!("{MAX_SERVERS} have ended before they answered{}", self.folder.end_of_log())));
        }
        self.folder.launch(&self.model, &self.asked.arguments.device.compute()).map_err(|error| match error {
            RunError::Launch { message, .. } => ended(message),
            error => error.into(),
        })
    }
}

/// What became of a request.
enum Reply {
    Done,
    /// What the server waits for.
    NotReady(String),
    /// The server has ended meanwhile.
    Lost,
}

/// The completions as far as they have come.
struct Answer {
    completions: Vec<Completion>,
    ended: usize,
    /// Whether it was waited for.
    is_late: bool,
    line: StatusLine,
}

impl Answer {
    fn new(completions: usize, is_late: bool) -> Self {
        let empty = Completion { token_ids: Vec::new(), log_probs: Vec::new(), stop: StopReason::Length };
        Self { completions: vec![empty; completions], ended: 0, is_late, line: StatusLine::new() }
    }

    /// Sends a request and reads the answer to its end: by HTTP/1.0 it is not in chunks, and ends with the connection.
    fn read(&mut self, mut socket: UnixStream, body: &str) -> Result<Reply, Failure> {
        let head = "POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length:";
        socket.set_read_timeout(Some(PATIENCE))?;
        // A server that refuses early may not read all of it.
        _ = write!(socket, "{head} {}\r\n\r\n{body}", body.len());
        let mut answer = BufReader::new(socket);
        let Ok(status) = read_head(&mut answer) else { return Ok(Reply::Lost) };
        if status != "200" {
            let mut text = String::new();
            _ = answer.read_to_string(&mut text);
            let message = error_message(&serde_json::from_str(&text).unwrap_or_default());
            let message = message.unwrap_or_else(|| format!("the server refused the request with status {status}"));
            return if status == "503" { Ok(Reply::NotReady(message)) } else { Err(Failure::failed(message)) };
        }
        if self.is_late {
            eprint_line("sampling");
        }
        for line in answer.lines().map_while(Result::ok) {
            let Some(data) = line.strip_prefix("data: ") else { continue };
            if data == "[DONE]" {
                return Ok(Reply::Done);
            }
            let chunk: Value = serde_json::from_str(data).unwrap_or_default();
            if let Some(message) = error_message(&chunk) {
                return Err(Failure::failed(message));
            }
            self.take(&chunk["choices"][0]);
        }
        Ok(Reply::Lost)
    }

    fn take(&mut self, choice: &Value) {
        let index = choice["index"].as_u64().and_then(|index| usize::try_from(index).ok());
        let Some(completion) = index.and_then(|index| self.completions.get_mut(index)) else { return };
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let ids = list(&choice["token_ids"]).into_iter().filter_map(|id| u32::try_from(id.as_u64()?).ok());
        completion.token_ids.extend(ids);
        let log_probs = list(&choice["logprobs"]["token_logprobs"]);
        completion.log_probs.extend(log_probs.into_iter().filter_map(|value| Some(value.as_f64()? as f32)));
        if let Some(finish) = choice["finish_reason"].as_str() {
            completion.stop = if finish == "stop" { StopReason::Stop } else { StopReason::Length };
            self.ended += 1;
        }
        self.line.show(|| {
            let tokens: usize = self.completions.iter().map(|completion| completion.token_ids.len()).sum();
            format!("sampled {tokens} tokens, {} of {} completions", self.ended, self.completions.len())
        });
    }
}

/// The status of an answer, whose head is read.
fn read_head(answer: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if answer.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head.split(' ').nth(1).unwrap_or_default().to_owned())
}

fn error_message(answer: &Value) -> Option<String> {
    answer["error"]["message"].as_str().map(str::to_owned)
}
