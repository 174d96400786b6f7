//! Conversations that agents hold: a program for each asks a gateway; what it asks is decoded beside others, and what it
//! did becomes a turn.

use std::sync::Arc;

use candle_core::{Error, Result};
use serde_json::{Map, Value, json};

use super::prompts::Prompt;
use super::sampler::Sampler;
use super::settings::{ConverseSettings, ScoredTask};
use super::ticket::Line;
use super::{CallStep, ToolTurn};
use crate::dataset::PromptRow;
use crate::environment::{
    Agent, AgentExit, AgentRecord, AgentServer, AnsweredCall, CallOutcome, ChainEnd, ExitReason,
    ToolCall, ToolReply,
};
use crate::gateway::{
    Gateway, GatewayModel, MODEL_NAME, SeatAnswer, SeatLine, SeatRecord, SeatRequest,
};
use crate::prompts::template_options;
use crate::rollout::{Client, Completion, Request, StopReason, ThreadPool};
use crate::score::Task;
use crate::text::{Tokenizer, conversation};

/// The agents of tasks, and the server that they ask.
pub(super) struct Agents<'a> {
    gateway: Gateway,
    /// By task; `None` where it has none.
    of_tasks: Vec<Option<TaskAgent<'a>>>,
}

/// The agent of a task.
pub(super) struct TaskAgent<'a> {
    task: &'a Task,
    agent: &'a Agent,
    model: GatewayModel,
}

impl<'a> Agents<'a> {
    /// `None` where no task has an agent.
    pub(super) fn of_tasks(
        sampler: &dyn Sampler,
        settings: &ConverseSettings<'a>,
    ) -> Result<Option<Self>> {
        let of_task = |asked: &ScoredTask<'a>| {
            let agent = asked.task.agent()?;
            let most = agent
                .limits()
                .max_context_tokens
                .unwrap_or(usize::MAX)
                .min(asked.max_prompt_tokens);
            let limits = (most, settings.sampling.max_completion_tokens);
            let options = template_options(asked.task);
            let model = GatewayModel::new(
                sampler.config(),
                Arc::clone(sampler.tokenizer()),
                options,
                limits,
            );
            Some(TaskAgent {
                task: asked.task,
                agent,
                model,
            })
        };
        let of_tasks: Vec<_> = settings.tasks.iter().map(of_task).collect();
        if of_tasks.iter().all(Option::is_none) {
            return Ok(None);
        }
        of_tasks
            .iter()
            .flatten()
            .try_for_each(|own| own.agent.check())
            .map_err(Error::wrap)?;
        Ok(Some(Self {
            gateway: Gateway::start()?,
            of_tasks,
        }))
    }

    pub(super) fn has(&self, task: usize) -> bool {
        self.of_tasks[task].is_some()
    }

    /// Programs that run at the same time.
    pub(super) fn processes(&self) -> usize {
        self.of_tasks
            .iter()
            .flatten()
            .map(|own| own.agent.limits().processes)
            .min()
            .unwrap_or(1)
    }
}

/// What one program asks, as the gateway has it decoded.
struct AgentLine {
    line: Arc<Line>,
    sample: usize,
}

impl AgentLine {
    fn request(&self, asked: &SeatRequest) -> Request {
        let first = &self.line.first;
        let most = first.lengths.get(self.sample).copied();
        let lengths = vec![asked.max_tokens.min(most.unwrap_or(usize::MAX))];
        Request {
            lengths,
            ..self
                .line
                .later_request(self.sample, asked.number, &asked.prompt)
        }
    }
}

impl SeatLine for AgentLine {
    fn ask(&self, asked: &SeatRequest, client: Arc<dyn Client>) {
        let request = self.request(asked);
        let known = self.line.known(&request);
        match known.and_then(|mut known| known.pop()) {
            Some(known) => tell(&*client, known),
            None => self
                .line
                .ask(request, (self.sample, asked.number, asked.follows), client),
        }
    }

    fn on_end(&self, asked: &SeatRequest, completion: &Completion) {
        self.line.store(&self.request(asked), 0, completion);
    }
}

/// Tells a client of a completion token by token, as it would have learned of it when it was sampled. Log-probs of stored
/// ones are not known.
fn tell(client: &dyn Client, completion: Completion) {
    let mut told = Completion::new(Vec::new(), Vec::new(), completion.stop);
    for token in completion.token_ids {
        told.token_ids.push(token);
        told.log_probs.push(f32::NAN);
        if !client.on_token(0, &told, Vec::new()) {
            break;
        }
    }
    client.on_end(0, told);
}

impl Agents<'_> {
    /// Runs the program of a conversation to its end: what it did, its last completion, and the text of that.
    pub(super) fn run(
        &self,
        prompt: &Prompt,
        tokenizer: &Tokenizer,
        (line, sample): (&Arc<Line>, usize),
        keep_going: &dyn Fn() -> bool,
    ) -> Result<(ToolTurn, Completion, String)> {
        let Some(own) = &self.of_tasks[prompt.task] else {
            return Err(ThreadPool::cancelled());
        };
        let begun = std::time::Instant::now();
        let limits = own.agent.limits();
        let asks = AgentLine {
            line: Arc::clone(line),
            sample,
        };
        let (key, seat) = self
            .gateway
            .seat(&own.model, limits.max_requests, Box::new(asks))?;
        let server = AgentServer {
            address: self.gateway.address(),
            key: &key,
            model: MODEL_NAME,
        };
        let exit = match own.agent.start(server) {
            Ok(mut process) => {
                let _listening = process
                    .take_listener()
                    .map(|own| self.gateway.listen(own))
                    .transpose()?;
                let row = row_line(own.task, &prompt.row);
                let phase = || seat.phase();
                process.run(&row, limits.time_limit_seconds, &phase, keep_going)
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
        line.queue.leave(line.conversation + sample);
        let record = record.map_err(Error::wrap)?;
        if exit.why == ExitReason::Cancelled {
            return Err(ThreadPool::cancelled());
        }
        // No program prints the key into a record.
        let hide = |text: String| text.replace(&key, "$OPENAI_API_KEY");
        let exit = AgentExit {
            output: exit.output.map(hide),
            words: hide(exit.words),
            ..exit
        };
        let (mut turn, completion, text) =
            agent_turn(&prompt.token_ids, tokenizer, (own.task, exit, record))?;
        turn.seconds = begun.elapsed().as_secs_f64();
        Ok((turn, completion, text))
    }
}

/// The turn that a program held, with its last completion and the text of that.
fn agent_turn(
    own_prompt: &[u32],
    tokenizer: &Tokenizer,
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
    let decode = |completion: &Completion| tokenizer.decode(&completion.token_ids, true);
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
    fields.insert(
        "messages".to_owned(),
        json!(conversation(task.system.as_deref(), &row.messages)),
    );
    Value::Object(fields).to_string()
}
