//! Conversations with tools: an answer's calls are read and answered, and the replies are what the model reads next, until
//! it answers without a call or a limit ends it.

use candle_core::{Error, Result};
use serde_json::{Map, Value};

use super::{CallStep, Prompt, ToolTurn};
use crate::dataset::PromptRow;
use crate::environment::{
    AnsweredCall, ChainEnd, Environment, EnvironmentError, ToolCall, Toolset,
};
use crate::prompts::{template_options, tools_of, turns_of};
use crate::rollout::{Completion, StopReason};
use crate::score::{AskedCalls, Task, asked_calls};
use crate::text::{CallFormat, Message, TemplateInput, TemplateOptions, Tokenizer, Transcript};

/// The tools of a task, and how the model is told of them.
pub(super) struct TaskTools<'a> {
    pub(super) task: &'a Task,
    toolset: &'a Toolset,
    pub(super) format: &'static CallFormat,
    /// All of them: a call may name one that its prompt does not list.
    pub(super) definitions: Value,
    options: TemplateOptions,
}

/// The tools of a conversation under way.
#[derive(Default)]
pub(super) struct ToolTalk {
    /// From the first call on, or from when its state is asked for.
    environment: Option<Environment>,
    /// From the first answer on.
    transcript: Option<Transcript>,
    calls: usize,
    /// That calls took, in all turns.
    seconds: f64,
    /// Of the current turn.
    steps: Vec<CallStep>,
    /// Of the answer, where its replies were not read.
    last_calls: Vec<AnsweredCall>,
    step_seconds: f64,
    /// Of each call of the current turn, in order.
    call_seconds: Vec<f64>,
}

impl<'a> TaskTools<'a> {
    /// `None` where it has none.
    pub(super) fn of_task(task: &'a Task, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let Some(toolset) = task.toolset() else {
            return Ok(None);
        };
        let definitions = tools_of(task, None)
            .map_err(Error::wrap)?
            .unwrap_or_default();
        let format = task
            .call_format()
            .and_then(CallFormat::named)
            .unwrap_or(tokenizer.call_format());
        Ok(Some(Self {
            task,
            toolset,
            format,
            definitions,
            options: template_options(task),
        }))
    }

    /// Those that the prompt of a row lists.
    fn listed(&self, row: &PromptRow) -> Result<Value> {
        Ok(tools_of(self.task, Some(row))
            .map_err(Error::wrap)?
            .unwrap_or_default())
    }

    fn input<'t>(&'t self, listed: &'t Value) -> TemplateInput<'t> {
        TemplateInput {
            tools: Some(listed),
            options: &self.options,
        }
    }

    /// Has a transcript go on with a completion and the replies to its calls.
    pub(super) fn push_replies(
        &self,
        transcript: &mut Transcript,
        tokenizer: &Tokenizer,
        row: &PromptRow,
        (completion, answered): (&[u32], &[AnsweredCall]),
    ) -> Result<()> {
        let replies: Vec<Message> = answered
            .iter()
            .map(|call| Message::new("tool", call.reply.as_str()))
            .collect();
        let functions: Vec<&str> = answered.iter().map(|call| call.name.as_str()).collect();
        let listed = self.listed(row)?;
        transcript
            .push(
                tokenizer,
                self.input(&listed),
                (completion, &functions),
                &replies,
            )
            .map_err(Error::wrap)
    }
}

impl ToolTalk {
    /// The transcript; the first time it begins with the prompt, of these tokens.
    fn begun(
        &mut self,
        tools: &TaskTools<'_>,
        tokenizer: &Tokenizer,
        (asked, token_ids): (&Prompt, &[u32]),
    ) -> Result<&mut Transcript> {
        Ok(match &mut self.transcript {
            Some(begun) => begun,
            none => {
                let turns = turns_of(tools.task, Some(tokenizer), &asked.row.messages)
                    .map_err(Error::wrap)?;
                none.insert(Transcript::new(
                    turns,
                    asked.text.clone(),
                    token_ids.to_vec(),
                ))
            }
        })
    }

    /// # Errors
    /// Where the tools cannot be opened.
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
    ) -> std::result::Result<Vec<AnsweredCall>, String> {
        let environment = self
            .environment(tools, row)
            .map_err(|error| error.to_string())?;
        let begun = std::time::Instant::now();
        let replies = environment.call(&calls);
        self.calls += calls.len();
        // Calls of one answer overlap.
        let seconds = begun.elapsed().as_secs_f64();
        self.seconds += seconds;
        self.step_seconds += seconds;
        self.call_seconds
            .extend(replies.iter().map(|reply| reply.seconds));
        Ok(calls
            .into_iter()
            .zip(replies)
            .map(|(call, reply)| AnsweredCall::new(call, reply))
            .collect())
    }

    /// Asks for the final state where that is scored, of conversations that have an answer.
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

/// What follows a completion of a conversation with tools.
pub(super) enum Followed {
    Prompt(Vec<u32>),
    /// It is the answer, with its text.
    Answer(Box<ToolTurn>, String),
}

/// What follows the calls of a completion.
enum Next {
    Prompt(Vec<u32>),
    End(ChainEnd),
    /// A fault that is not the model's.
    Failed(ChainEnd, String),
}

/// A completion of a conversation with tools.
pub(super) struct Sampled<'t> {
    /// Of its turn.
    pub(super) row: &'t PromptRow,
    pub(super) prompt: &'t [u32],
    pub(super) completion: &'t Completion,
    /// Completions of its conversation so far.
    pub(super) count: u32,
    /// Whether its turn is the last.
    pub(super) is_last: bool,
}

/// A question whose answers may call tools.
#[derive(Clone, Copy)]
pub(super) struct AskedWithTools<'q> {
    pub(super) tools: &'q TaskTools<'q>,
    pub(super) tokenizer: &'q Tokenizer,
    pub(super) asked: &'q Prompt,
    /// Of the task.
    pub(super) max_prompt_tokens: usize,
}

impl AskedWithTools<'_> {
    /// Has the calls of a completion answered.
    pub(super) fn follow(&self, own: &mut ToolTalk, sampled: &Sampled<'_>) -> Result<Followed> {
        let ids = &sampled.completion.token_ids;
        let text = self.tokenizer.decode(ids, true).map_err(Error::wrap)?;
        let (end, failure) = match self.answer_calls(own, sampled, &text)? {
            Next::Prompt(prompt) => return Ok(Followed::Prompt(prompt)),
            Next::End(end) => (end, None),
            Next::Failed(end, failure) => (end, Some(failure)),
        };
        let mut turn = ToolTurn {
            steps: std::mem::take(&mut own.steps),
            last_calls: std::mem::take(&mut own.last_calls),
            prompt: sampled.prompt.to_vec(),
            end,
            failure,
            states: Map::new(),
            agent: None,
            seconds: std::mem::take(&mut own.step_seconds),
            call_seconds: std::mem::take(&mut own.call_seconds),
        };
        if let Err(error) = own.ask_states(self.tools, sampled.row, &mut turn) {
            turn.end = error.end();
            turn.failure = Some(error.to_string());
        }
        if sampled.is_last {
            own.environment = None;
        }
        Ok(Followed::Answer(Box::new(turn), text))
    }

    fn answer_calls(&self, own: &mut ToolTalk, sampled: &Sampled<'_>, text: &str) -> Result<Next> {
        let Self {
            tools,
            tokenizer,
            asked,
            ..
        } = *self;
        let Sampled {
            prompt, completion, ..
        } = *sampled;
        let limits = tools.toolset.limits();
        if completion.stop != StopReason::Stop {
            return Ok(Next::End(ChainEnd::Truncated));
        }
        let calls = match asked_calls(tools.format, &tools.definitions, tools.task.answer_of(text))
        {
            AskedCalls::None => return Ok(Next::End(ChainEnd::Answer)),
            AskedCalls::Unreadable => return Ok(Next::End(ChainEnd::Unreadable)),
            AskedCalls::Calls(calls) => calls,
        };
        if let Some(end) = limits.end(own.calls + calls.len(), sampled.count as usize) {
            return Ok(Next::End(end));
        }
        let answered = match own.call(tools, sampled.row, calls) {
            Ok(answered) => answered,
            Err(failure) => return Ok(Next::Failed(ChainEnd::ToolFailed, failure)),
        };
        let failed =
            |call: &AnsweredCall| Some(Next::Failed(call.outcome.end()?, call.reply.clone()));
        let failure = answered.iter().find_map(failed);
        if failure.is_some() || own.seconds > limits.time_limit_seconds {
            own.last_calls = answered;
            return Ok(failure.unwrap_or(Next::End(ChainEnd::TimeLimit)));
        }
        let transcript = own.begun(tools, tokenizer, (asked, prompt))?;
        let answers = (completion.token_ids.as_slice(), answered.as_slice());
        tools.push_replies(transcript, tokenizer, &asked.row, answers)?;
        let next = transcript.token_ids().to_vec();
        if next.len() > self.max_tokens() {
            own.last_calls = answered;
            return Ok(Next::End(ChainEnd::MaxContextTokens));
        }
        own.steps.push(CallStep {
            prompt: prompt.to_vec(),
            completion: completion.clone(),
            text: text.to_owned(),
            reply_tokens: next.len() - prompt.len() - completion.token_ids.len(),
            calls: answered,
        });
        Ok(Next::Prompt(next))
    }

    /// Tokens of a later prompt.
    fn max_tokens(&self) -> usize {
        let most = self.tools.toolset.limits().max_context_tokens;
        most.unwrap_or(usize::MAX).min(self.max_prompt_tokens)
    }

    /// The text and tokens of the next turn's prompt; `None`: it is too long. `answer`: as it was sampled; `new`: the
    /// messages of the row that follow it.
    pub(super) fn next_prompt(
        &self,
        own: &mut ToolTalk,
        answer: &[u32],
        new: &[Message],
    ) -> Result<Option<(String, Vec<u32>)>> {
        let first = (self.asked, self.asked.token_ids.as_slice());
        let transcript = own.begun(self.tools, self.tokenizer, first)?;
        let listed = self.tools.listed(&self.asked.row)?;
        let input = self.tools.input(&listed);
        transcript
            .push(self.tokenizer, input, (answer, &[]), new)
            .map_err(Error::wrap)?;
        let ids = transcript.token_ids().to_vec();
        if ids.len() > self.max_tokens() {
            return Ok(None);
        }
        let text = self.tokenizer.decode(&ids, false).map_err(Error::wrap)?;
        Ok(Some((text, ids)))
    }
}
