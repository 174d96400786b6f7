//! The programs of agents, run to their ends: what they did becomes a turn.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Error, Result};
use serde_json::{Map, Value, json};

use super::conversing::{Conversing, Ended, PanicGuard};
use super::mailbox::{NextRequest, SAMPLES_OF_TURN};
use super::{CallStep, ToolTurn};
use crate::dataset::PromptRow;
use crate::environment::{
    AgentExit, AgentRecord, AgentServer, AnsweredCall, CallOutcome, ChainEnd, ExitReason, ToolCall,
    ToolReply,
};
use crate::rollout::{Completion, Request, StopReason};
use crate::score::{Task, turns_of};
use crate::serve::{MODEL_NAME, SeatAnswer, SeatRecord, SeatRequest};

impl<'a> Conversing<'a> {
    /// Runs the programs of conversations as they begin, until no more do.
    pub(super) fn run_agents(&self, begun: &Mutex<Receiver<usize>>, answered: &Sender<Ended>) {
        let _guard = PanicGuard(&self.has_failed);
        loop {
            let Ok(conversation) = begun.lock().unwrap_or_else(PoisonError::into_inner).recv()
            else {
                return;
            };
            if self.has_failed.load(Ordering::Relaxed) {
                continue;
            }
            match self.run_agent(conversation) {
                // The receiver is gone where the work has failed.
                Ok(Some(ended)) => _ = answered.send(ended),
                Ok(None) => {}
                Err(error) => self.fail(error),
            }
        }
    }

    /// Runs the program of a conversation to its end; `None`: nobody wants it any more.
    fn run_agent(&self, conversation: usize) -> Result<Option<Ended>> {
        let question = self.question_of[conversation];
        let asked = &self.questions[question];
        let Some((agents, own)) = self
            .agents
            .as_ref()
            .and_then(|agents| Some((agents, agents.of_task(asked.prompt.task)?)))
        else {
            return Ok(None);
        };
        let begun = std::time::Instant::now();
        let limits = own.agent.limits();
        let on_request = self.on_request(conversation);
        let (key, seat) = agents
            .gateway
            .seat(&own.model, limits.max_requests, on_request)?;
        _ = agents.seats[conversation].set(Arc::clone(&seat));
        let server = AgentServer {
            address: agents.gateway.address(),
            key: &key,
            model: MODEL_NAME,
        };
        let row = asked.prompt.row.clone();
        let exit = match own.agent.start(server) {
            Ok(mut process) => {
                let _listening = process
                    .take_listener()
                    .map(|own| agents.gateway.listen(own))
                    .transpose()?;
                let line = row_line(own.task, &row);
                process.run(&line, limits.time_limit_seconds, &|| seat.phase(), &|| {
                    !self.is_over()
                })
            }
            Err(error) => {
                let words = format!("does not start: {error}");
                AgentExit {
                    why: ExitReason::Ended,
                    code: None,
                    output: None,
                    words,
                }
            }
        };
        let record = seat.close();
        if exit.why == ExitReason::Cancelled {
            return Ok(None);
        }
        // No program prints the key into a record.
        let hide = |text: String| text.replace(&key, "$OPENAI_API_KEY");
        let exit = AgentExit {
            output: exit.output.map(hide),
            words: hide(exit.words),
            ..exit
        };
        let ended = self.agent_turn(&asked.prompt.token_ids, (own.task, exit, record))?;
        let (mut turn, completion, text) = ended;
        turn.seconds = begun.elapsed().as_secs_f64();
        let mut talk = self.talk(conversation);
        talk.sampled = (turn.steps.len() + 1) as u32;
        talk.row = Cow::Owned(turn.chain().scored_row(&row));
        talk.answer = Some((completion.clone(), text));
        talk.tool_turn = Some(turn);
        drop(talk);
        self.deliver(conversation, None);
        let request = Arc::new(asked.request.clone());
        Ok(Some(Ended {
            conversation,
            completion,
            request,
            sample: 0,
            is_known: true,
            is_recorded: true,
        }))
    }

    /// Has what a conversation asks decoded.
    fn on_request(&self, conversation: usize) -> impl Fn(SeatRequest) + Send + Sync + use<> {
        let question = self.question_of[conversation];
        let sample = self.talk(conversation).sample;
        let mailbox = Arc::clone(&self.mailboxes[self.mailbox_of[question]]);
        let first = &self.questions[question].request;
        let most = first.lengths.get(sample).copied().unwrap_or(usize::MAX);
        let like = Request {
            prompt: Vec::new(),
            samples: 1,
            ..first.clone()
        };
        move |SeatRequest {
                  number,
                  follows,
                  prompt,
                  max_tokens,
              }| {
            let first_sample = number * SAMPLES_OF_TURN + sample as u32;
            let lengths = vec![max_tokens.min(most)];
            let request = Request {
                prompt,
                first_sample,
                lengths,
                ..like.clone()
            };
            mailbox.deliver(conversation, Some(NextRequest { request, follows }));
        }
    }

    /// The turn that a program held, with its last completion and the text of that.
    fn agent_turn(
        &self,
        own_prompt: &[u32],
        (task, exit, record): (&Task, AgentExit, SeatRecord),
    ) -> Result<(ToolTurn, Completion, String)> {
        let (end, failure) = ending(task, &exit, &record);
        let SeatRecord {
            answers,
            refused,
            has_ignored,
            ..
        } = record;
        let requests = answers.iter().map(|answer| answer.record.clone()).collect();
        let agent = AgentRecord {
            requests,
            refused,
            has_ignored,
            exit_code: exit.code,
            output: exit.output,
        };
        let decode =
            |completion: &Completion| self.sampler.tokenizer().decode(&completion.token_ids, true);
        let mut steps = Vec::with_capacity(answers.len());
        for (number, answer) in answers.iter().enumerate() {
            let next = answers
                .iter()
                .find(|other| other.record.follows == Some(number));
            steps.push(CallStep {
                prompt: answer.prompt.clone(),
                completion: answer.completion.clone(),
                text: decode(&answer.completion).map_err(Error::wrap)?,
                calls: next.map_or_else(Vec::new, |next| answered_calls(answer, next)),
                reply_tokens: next.map_or(0, |next| next.record.prompt_ids.len()),
            });
        }
        let (prompt, completion, text) = match steps.pop() {
            Some(CallStep {
                prompt,
                completion,
                text,
                ..
            }) => (prompt, completion, text),
            None => (
                own_prompt.to_vec(),
                Completion::new(Vec::new(), Vec::new(), StopReason::Stop),
                String::new(),
            ),
        };
        let turn = ToolTurn {
            steps,
            last_calls: Vec::new(),
            prompt,
            end,
            failure,
            states: Map::new(),
            agent: Some(Box::new(agent)),
            seconds: 0.0,
            call_seconds: Vec::new(),
        };
        Ok((turn, completion, text))
    }
}

/// Why a conversation ended, and what failed.
fn ending(task: &Task, exit: &AgentExit, record: &SeatRecord) -> (ChainEnd, Option<String>) {
    let refusal = record.last_refusal.as_ref();
    let failed = |what: &str| {
        let refused = refusal.map_or_else(String::new, |error| {
            format!("; its last refusal: {}", error.message)
        });
        Some(format!("the agent {what}{refused}"))
    };
    let Some(last) = record.answers.last() else {
        return (
            ChainEnd::NoRequest,
            failed(&format!("got no completion: it {}", exit.words)),
        );
    };
    let is_verdict = |code: i32| code == 0 || (task.reads_exit_code() && matches!(code, 1 | 2));
    match exit.why {
        ExitReason::TimeLimit => (ChainEnd::TimeLimit, None),
        ExitReason::Ended if exit.code.is_some_and(is_verdict) => {
            let end = if last.completion.stop.is_truncated() {
                ChainEnd::Truncated
            } else {
                ChainEnd::Answer
            };
            (end, None)
        }
        _ => match refusal.and_then(|error| error.code) {
            Some("context_length_exceeded") => (ChainEnd::MaxContextTokens, None),
            Some("max_requests") => (ChainEnd::MaxRequests, None),
            _ => (ChainEnd::AgentFailed, failed(&exit.words)),
        },
    }
}

/// The calls of an answer with what the next request says that they returned.
fn answered_calls(answer: &SeatAnswer, next: &SeatAnswer) -> Vec<AnsweredCall> {
    let results: Vec<_> = next
        .record
        .messages
        .iter()
        .filter(|message| message.role == "tool")
        .collect();
    let calls = answer
        .message
        .tool_calls()
        .iter()
        .enumerate()
        .filter_map(|(index, call)| {
            let own = |id: &Value| {
                results
                    .iter()
                    .find(|result| result.other.get("tool_call_id") == Some(id))
            };
            let result = call.get("id").and_then(own).or(results.get(index))?;
            let function = call.get("function")?;
            let arguments = function
                .get("arguments")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default();
            let call = ToolCall {
                name: function.get("name")?.as_str()?.to_owned(),
                arguments,
            };
            let reply = ToolReply {
                text: result.content.clone(),
                outcome: CallOutcome::Answered,
                seconds: 0.0,
            };
            Some(AnsweredCall::new(call, reply))
        });
    calls.collect()
}

/// The row as its program reads it: a line of JSON, with the messages of the prompt.
fn row_line(task: &Task, row: &PromptRow) -> String {
    let mut fields = row.fields.whole();
    fields.insert("id".to_owned(), json!(row.id));
    fields.insert("messages".to_owned(), json!(turns_of(task, &row.messages)));
    Value::Object(fields).to_string()
}
