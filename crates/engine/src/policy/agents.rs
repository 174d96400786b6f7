//! Agents' conversations: a program per conversation queries a gateway; its requests are decoded
//! with others, and become a turn.

use std::sync::Arc;

use candle_core::{Error, Result};
use serde_json::{Map, Value, json};

use super::conversation::{Answer, CallStep, ToolTurn};
use super::prompts::Prompt;
use super::sampler::Sampler;
use super::settings::{ConverseSettings, ScoredTask};
use crate::dataset::PromptRow;
use crate::environment::{
    Agent, AgentExit, AgentRecord, AgentServer, AnsweredCall, CallOutcome, ChainEnd, ExitReason,
    OnFailure, ToolCall, ToolReply,
};
use crate::gateway::{Gateway, MODEL_NAME, Session, SessionAnswer, SessionRecord};
use crate::generation::AskedModel;
use crate::prompts::template_options;
use crate::rollout::{Completion, QueuedQuestion, StopReason, ThreadPool};
use crate::score::Task;
use crate::text::{Thinking, conversation};

/// Agents of tasks, and their server.
pub(super) struct Agents<'a> {
    gateway: &'static Gateway,
    /// One per task; `None` without an agent.
    of_tasks: Vec<Option<TaskAgent<'a>>>,
}

pub(super) struct TaskAgent<'a> {
    task: &'a Task,
    agent: &'a Agent,
    model: Arc<AskedModel>,
}

impl<'a> Agents<'a> {
    /// `None` if no task has an agent.
    pub(super) fn of_tasks(
        sampler: Sampler<'_>,
        settings: &ConverseSettings<'a>,
    ) -> Result<Option<Self>> {
        let of_task = |asked: &ScoredTask<'a>| {
            let agent = asked.task.agent()?;
            let most = agent.limits().max_context_tokens.unwrap_or(usize::MAX);
            let most = most.min(asked.max_prompt_tokens);
            let limits = (most, settings.sampling.max_completion_tokens);
            let (options, tokenizer) = (template_options(asked.task), sampler.tokenizer());
            let model = AskedModel {
                reasons: options.thinking == Thinking::On,
                ..AskedModel::new(sampler.config(), Arc::clone(tokenizer), options, limits)
            };
            Some(TaskAgent {
                task: asked.task,
                agent,
                model: Arc::new(model),
            })
        };
        let of_tasks: Vec<_> = settings.tasks.iter().map(of_task).collect();
        if of_tasks.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut all = of_tasks.iter().flatten();
        all.try_for_each(|one| one.agent.check())
            .map_err(Error::wrap)?;
        Ok(Some(Self {
            gateway: Gateway::shared()?,
            of_tasks,
        }))
    }

    /// A task's agent, with its server.
    pub(super) fn of_task(&self, task: usize) -> Option<(&TaskAgent<'a>, &'static Gateway)> {
        Some((self.of_tasks[task].as_ref()?, self.gateway))
    }

    /// Programs running in parallel.
    pub(super) fn processes(&self) -> usize {
        let all = self.of_tasks.iter().flatten();
        let processes = all.map(|one| one.agent.limits().processes);
        processes.min().unwrap_or(1)
    }
}

impl TaskAgent<'_> {
    /// Runs a conversation's program to its end, or to its answer; the conversation's is its last
    /// completion.
    pub(super) fn run<'e>(
        &self,
        gateway: &'static Gateway,
        prompt: &Prompt,
        question: &Arc<QueuedQuestion>,
        sample: usize,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Answer<'e>> {
        let begun = std::time::Instant::now();
        let limits = self.agent.limits();
        let idle = self.agent.idle_process();
        let key = match &idle {
            Some(process) => process.key().to_owned(),
            None => Gateway::new_key()?,
        };
        let session = Session::new(
            Arc::clone(&self.model),
            *limits,
            Arc::clone(question),
            sample,
        );
        let session = gateway.open(&key, session);
        let server = AgentServer {
            address: gateway.address(),
            key: &key,
            model: MODEL_NAME,
        };
        let mut waiting = None;
        let mut exit = match idle.map_or_else(|| self.agent.start(server), Ok) {
            Ok(mut process) => {
                let listener = process.listener().transpose()?;
                let _listening = listener.map(|one| gateway.listen(one)).transpose()?;
                let row = row_line(self.task, &prompt.row);
                let phase = || session.phase();
                let exit = process.run(&row, limits.time_limit_seconds, &phase, keep_going);
                waiting = process.if_waiting();
                exit
            }
            Err(error) => AgentExit {
                why: ExitReason::Ended,
                code: None,
                output: None,
                words: format!("does not start: {error}"),
            },
        };
        let record = session.close();
        drop(session);
        // Its key is free only now.
        waiting.into_iter().for_each(|one| self.agent.keep(one));
        question.queue.leave(question.conversation + sample);
        let record = record.map_err(Error::wrap)?;
        if exit.why == ExitReason::Cancelled {
            return Err(ThreadPool::cancelled());
        }
        // Keeps the key out of records.
        for text in exit.output.iter_mut().chain([&mut exit.words]) {
            *text = text.replace(&key, "$OPENAI_API_KEY");
        }
        self.answer(prompt, exit, record, begun.elapsed().as_secs_f64())
    }

    /// The turn held by a program. `seconds`: its run time.
    fn answer<'e>(
        &self,
        asked: &Prompt,
        exit: AgentExit,
        record: SessionRecord,
        seconds: f64,
    ) -> Result<Answer<'e>> {
        let on_failure = self.agent.limits().on_failure;
        let (end, failure) = ending(self.task, on_failure, &exit, &record);
        let answers = &record.answers;
        let mut steps = Vec::with_capacity(answers.len());
        for (number, answer) in answers.iter().enumerate() {
            let mut others = answers.iter();
            let next = others.find(|other| other.record.follows == Some(number));
            let (tokenizer, completion) = (&self.model.tokenizer, answer.completion.clone());
            let text = tokenizer.decode_answer(&completion.token_ids);
            steps.push(CallStep {
                prompt: answer.prompt.clone(),
                completion,
                text: text.map_err(Error::wrap)?,
                calls: next.map_or_else(Vec::new, |next| answered_calls(answer, next)),
                reply_tokens: next.map_or(0, |next| next.record.prompt_ids.len()),
            });
        }
        let last = steps.pop().unwrap_or_else(|| CallStep {
            prompt: asked.token_ids.clone(),
            completion: Completion::new(Vec::new(), Vec::new(), StopReason::Stop),
            text: String::new(),
            calls: Vec::new(),
            reply_tokens: 0,
        });
        let requests = record.answers.into_iter().map(|answer| answer.record);
        let agent = AgentRecord {
            requests: requests.collect(),
            refused: record.refused,
            ignored: record.ignored,
            exit_code: exit.code,
            output: exit.output,
        };
        let turn = ToolTurn {
            steps,
            last_calls: Vec::new(),
            prompt: last.prompt,
            end,
            failure,
            states: Map::new(),
            agent: Some(Box::new(agent)),
            seconds,
            call_seconds: Vec::new(),
        };
        Ok(Answer::after(turn, last.completion, last.text, &asked.row))
    }
}

/// Why a conversation ended, and what failed.
fn ending(
    task: &Task,
    on_failure: OnFailure,
    exit: &AgentExit,
    record: &SessionRecord,
) -> (ChainEnd, Option<String>) {
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
            match last.completion.stop.is_truncated() {
                true => (ChainEnd::Truncated, None),
                false => (ChainEnd::Answer, None),
            }
        }
        _ => match refusal.and_then(|error| error.code) {
            Some("context_length_exceeded") => (ChainEnd::MaxContextTokens, None),
            Some("max_requests") => (ChainEnd::MaxRequests, None),
            // A policy cannot make its agent's service fail on purpose.
            _ if on_failure == OnFailure::NoReward || exit.why == ExitReason::Service => {
                (ChainEnd::AgentFailed, failed(&exit.words))
            }
            _ => (ChainEnd::AgentError, failed(&exit.words)),
        },
    }
}

/// Calls of an answer, with results from the next request.
fn answered_calls(answer: &SessionAnswer, next: &SessionAnswer) -> Vec<AnsweredCall> {
    let messages = next.record.messages.iter();
    let results: Vec<_> = messages.filter(|message| message.role == "tool").collect();
    let answered = |(index, call): (usize, &Value)| {
        let is_of = |id: &Value| {
            let mut results = results.iter();
            results.find(|result| result.other.get("tool_call_id") == Some(id))
        };
        let result = call.get("id").and_then(is_of).or(results.get(index))?;
        let function = call.get("function")?;
        let arguments = function.get("arguments").and_then(Value::as_object);
        let call = ToolCall {
            name: function.get("name")?.as_str()?.to_owned(),
            arguments: arguments.cloned().unwrap_or_default(),
        };
        let reply = ToolReply {
            text: result.content.clone(),
            outcome: CallOutcome::Answered,
            seconds: 0.0,
        };
        Some(AnsweredCall::new(call, reply))
    };
    let calls = answer.message.tool_calls().iter().enumerate();
    calls.filter_map(answered).collect()
}

/// The row for its program: a line of JSON, with the prompt's messages.
fn row_line(task: &Task, row: &PromptRow) -> String {
    let mut fields = row.fields.whole();
    fields.insert("id".to_owned(), json!(row.id));
    let messages = conversation(task.system.as_deref(), &row.messages);
    fields.insert("messages".to_owned(), json!(messages));
    Value::Object(fields).to_string()
}
