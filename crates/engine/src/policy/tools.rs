//! Tool calls in conversations: parses and answers them, and feeds the replies to the model until
//! it answers without a call or a limit is reached.

use std::borrow::Cow;
use std::ops::ControlFlow;

use candle_core::{Error, Result};
use serde_json::{Map, Value};

use super::Prompt;
use super::conversation::{Answer, CallStep, ToolTurn};
use crate::dataset::PromptRow;
use crate::environment::{
    AnsweredCall, ChainEnd, Environment, EnvironmentError, ToolCall, Toolset,
};
use crate::prompts::{template_options, tools_of, turns_of};
use crate::rollout::{Completion, StopReason};
use crate::score::{AskedCalls, Task, asked_calls};
use crate::text::{CallFormat, Message, TemplateInput, TemplateOptions, Tokenizer, Transcript};

/// A task's tools, and their presentation to the model.
pub(super) struct TaskTools<'a> {
    task: &'a Task,
    toolset: &'a Toolset,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) format: &'static CallFormat,
    /// All: a call may name one that its prompt does not list.
    pub(super) definitions: Value,
    options: TemplateOptions,
    /// Limit of later prompts.
    max_prompt_tokens: usize,
}

/// Tools of one conversation.
#[derive(Default)]
pub(super) struct ToolSession {
    /// Set from the first call or state question on.
    environment: Option<Environment>,
    /// Set from the first answer on.
    transcript: Option<Transcript>,
    calls: usize,
    /// Time of calls in all turns.
    seconds: f64,
    /// Steps of the current turn.
    steps: Vec<CallStep>,
    /// Calls of the answer, if their replies were not read.
    last_calls: Vec<AnsweredCall>,
    step_seconds: f64,
    /// Time per call of the current turn.
    call_seconds: Vec<f64>,
}

/// Definitions listed in a row's prompt; all without a row.
fn listed(task: &Task, row: Option<&PromptRow>) -> Result<Value> {
    let listed = tools_of(task, row).map_err(Error::wrap)?;
    Ok(listed.unwrap_or_default())
}

/// Why a turn ended, and what failed.
type TurnEnd = (ChainEnd, Option<String>);

/// A completion of a conversation with tools.
pub(super) struct Sampled<'e> {
    /// Row of its turn.
    pub(super) row: Cow<'e, PromptRow>,
    pub(super) prompt: Vec<u32>,
    pub(super) completion: Completion,
    /// Completions of the conversation so far.
    pub(super) count: u32,
    /// Whether its turn is the last.
    pub(super) is_last: bool,
}

impl<'a> TaskTools<'a> {
    /// `None` without tools. `max_prompt_tokens`: of the task.
    pub(super) fn of_task(
        task: &'a Task,
        tokenizer: &'a Tokenizer,
        max_prompt_tokens: usize,
    ) -> Result<Option<Self>> {
        let Some(toolset) = task.toolset() else {
            return Ok(None);
        };
        let most = toolset.limits().max_context_tokens.unwrap_or(usize::MAX);
        Ok(Some(Self {
            task,
            toolset,
            tokenizer,
            format: tokenizer.call_format_of(task.call_format()),
            definitions: listed(task, None)?,
            options: template_options(task),
            max_prompt_tokens: most.min(max_prompt_tokens),
        }))
    }

    /// Appends a completion, which calls these functions, and what follows it.
    fn push(
        &self,
        transcript: &mut Transcript,
        row: &PromptRow,
        completion: (&[u32], &[&str]),
        following: &[Message],
    ) -> Result<()> {
        let listed = listed(self.task, Some(row))?;
        let input = TemplateInput {
            tools: Some(&listed),
            options: &self.options,
        };
        let pushed = transcript.push(self.tokenizer, input, completion.0, completion.1, following);
        pushed.map_err(Error::wrap)
    }

    /// Appends a completion and the replies to its calls.
    pub(super) fn push_replies(
        &self,
        transcript: &mut Transcript,
        row: &PromptRow,
        completion: &[u32],
        answered: &[AnsweredCall],
    ) -> Result<()> {
        let reply = |call: &AnsweredCall| Message::new("tool", call.reply.as_str());
        let replies: Vec<Message> = answered.iter().map(reply).collect();
        let functions: Vec<&str> = answered.iter().map(|call| call.name.as_str()).collect();
        self.push(transcript, row, (completion, &functions), &replies)
    }

    /// The next prompt after a completion's calls, or else the answer to `asked`.
    pub(super) fn follow<'e>(
        &self,
        asked: &Prompt,
        session: &mut ToolSession,
        sampled: Sampled<'e>,
    ) -> Result<ControlFlow<Answer<'e>, Vec<u32>>> {
        let ids = &sampled.completion.token_ids;
        let text = self.tokenizer.decode_answer(ids).map_err(Error::wrap)?;
        let (end, failure) = match self.answer_calls(asked, session, &sampled, &text)? {
            ControlFlow::Continue(prompt) => return Ok(ControlFlow::Continue(prompt)),
            ControlFlow::Break(end) => end,
        };
        let row = &sampled.row;
        let mut turn = ToolTurn {
            steps: std::mem::take(&mut session.steps),
            last_calls: std::mem::take(&mut session.last_calls),
            prompt: sampled.prompt,
            end,
            failure,
            states: Map::new(),
            agent: None,
            seconds: std::mem::take(&mut session.step_seconds),
            call_seconds: std::mem::take(&mut session.call_seconds),
        };
        if let Err(error) = session.ask_states(self, row, &mut turn) {
            turn.end = error.end();
            turn.failure = Some(error.to_string());
        }
        if sampled.is_last {
            session.environment = None;
        }
        let answer = Answer::after(turn, sampled.completion, text, row);
        Ok(ControlFlow::Break(answer))
    }

    fn answer_calls(
        &self,
        asked: &Prompt,
        session: &mut ToolSession,
        sampled: &Sampled<'_>,
        text: &str,
    ) -> Result<ControlFlow<TurnEnd, Vec<u32>>> {
        let end = |end| Ok(ControlFlow::Break((end, None)));
        let (prompt, completion) = (&sampled.prompt, &sampled.completion);
        let limits = self.toolset.limits();
        if completion.stop != StopReason::Stop {
            return end(ChainEnd::Truncated);
        }
        let answer = self.task.answer_of(text);
        let calls = match asked_calls(self.format, &self.definitions, answer) {
            AskedCalls::None => return end(ChainEnd::Answer),
            AskedCalls::Unreadable => return end(ChainEnd::Unreadable),
            AskedCalls::Calls(calls) => calls,
        };
        if let Some(limit) = limits.end(session.calls + calls.len(), sampled.count as usize) {
            return end(limit);
        }
        let answered = match session.call(self, &sampled.row, calls) {
            Ok(answered) => answered,
            Err(error) => {
                let failure = Some(error.to_string());
                return Ok(ControlFlow::Break((ChainEnd::ToolFailed, failure)));
            }
        };
        // Not the model's fault.
        let failed = |call: &AnsweredCall| Some((call.outcome.end()?, Some(call.reply.clone())));
        let failure = answered.iter().find_map(failed);
        if failure.is_some() || session.seconds > limits.time_limit_seconds {
            session.last_calls = answered;
            let ended = failure.unwrap_or((ChainEnd::TimeLimit, None));
            return Ok(ControlFlow::Break(ended));
        }
        let transcript = session.transcript(self, asked, prompt)?;
        self.push_replies(transcript, &asked.row, &completion.token_ids, &answered)?;
        let next = transcript.token_ids().to_vec();
        if next.len() > self.max_prompt_tokens {
            session.last_calls = answered;
            return end(ChainEnd::MaxContextTokens);
        }
        session.steps.push(CallStep {
            prompt: prompt.clone(),
            completion: completion.clone(),
            text: text.to_owned(),
            reply_tokens: next.len() - prompt.len() - completion.token_ids.len(),
            calls: answered,
        });
        Ok(ControlFlow::Continue(next))
    }

    /// Text and tokens of the next turn's prompt; `None` if too long. `answer`: as sampled; `new`:
    /// following messages of the row.
    pub(super) fn next_prompt(
        &self,
        asked: &Prompt,
        session: &mut ToolSession,
        answer: &[u32],
        new: &[Message],
    ) -> Result<Option<(String, Vec<u32>)>> {
        let transcript = session.transcript(self, asked, &asked.token_ids)?;
        self.push(transcript, &asked.row, (answer, &[]), new)?;
        let ids = transcript.token_ids().to_vec();
        if ids.len() > self.max_prompt_tokens {
            return Ok(None);
        }
        let text = self.tokenizer.decode(&ids, false).map_err(Error::wrap)?;
        Ok(Some((text, ids)))
    }
}

impl ToolSession {
    /// The transcript, created from the prompt and these tokens.
    fn transcript(
        &mut self,
        tools: &TaskTools<'_>,
        asked: &Prompt,
        token_ids: &[u32],
    ) -> Result<&mut Transcript> {
        Ok(match &mut self.transcript {
            Some(begun) => begun,
            none => {
                let turns = turns_of(tools.task, Some(tools.tokenizer), &asked.row.messages);
                let (turns, text) = (turns.map_err(Error::wrap)?, asked.text.clone());
                none.insert(Transcript::new(turns, text, token_ids.to_vec()))
            }
        })
    }

    /// # Errors
    /// Tools that cannot be opened.
    fn environment(
        &mut self,
        tools: &TaskTools<'_>,
        row: &PromptRow,
    ) -> std::result::Result<&mut Environment, EnvironmentError> {
        Ok(match &mut self.environment {
            Some(open) => open,
            none => none.insert(tools.toolset.open(row)?),
        })
    }

    pub(super) fn call(
        &mut self,
        tools: &TaskTools<'_>,
        row: &PromptRow,
        calls: Vec<ToolCall>,
    ) -> std::result::Result<Vec<AnsweredCall>, EnvironmentError> {
        let environment = self.environment(tools, row)?;
        let begun = std::time::Instant::now();
        let replies = environment.call(&calls);
        self.calls += calls.len();
        // Calls of one answer overlap.
        let seconds = begun.elapsed().as_secs_f64();
        self.seconds += seconds;
        self.step_seconds += seconds;
        self.call_seconds
            .extend(replies.iter().map(|reply| reply.seconds));
        let answered = calls.into_iter().zip(replies);
        Ok(answered
            .map(|(call, reply)| AnsweredCall::new(call, reply))
            .collect())
    }

    /// Reads the final state of an answered conversation, if it is scored.
    fn ask_states(
        &mut self,
        tools: &TaskTools<'_>,
        row: &PromptRow,
        turn: &mut ToolTurn,
    ) -> std::result::Result<(), EnvironmentError> {
        if turn.end != ChainEnd::Answer {
            return Ok(());
        }
        for (key, query) in tools.task.state_queries() {
            let state = self.environment(tools, row)?.state(query)?;
            turn.states.insert(key.to_owned(), state);
        }
        Ok(())
    }
}
