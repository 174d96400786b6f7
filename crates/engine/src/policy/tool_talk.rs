//! The tools of a task, and those of a conversation under way with their state.

use candle_core::{Error, Result};
use serde_json::Value;

use super::{CallStep, Prompt, ToolTurn};
use crate::dataset::PromptRow;
use crate::environment::{
    AnsweredCall, ChainEnd, Environment, EnvironmentError, ToolCall, Toolset,
};
use crate::score::{Task, template_options, tools_of, turns_of};
use crate::text::{CallFormat, Message, TemplateInput, TemplateOptions, Tokenizer, Transcript};

/// The tools of a task, and how the model is told of them.
pub(super) struct TaskTools<'a> {
    pub(super) task: &'a Task,
    pub(super) toolset: &'a Toolset,
    pub(super) format: &'static CallFormat,
    /// All of them: a call may name one that its prompt does not list.
    pub(super) definitions: Value,
    pub(super) options: TemplateOptions,
}

/// The tools of a conversation under way.
#[derive(Default)]
pub(super) struct ToolTalk {
    /// From the first call on, or from when its state is asked for.
    pub(super) environment: Option<Environment>,
    /// From the first answer on.
    pub(super) transcript: Option<Transcript>,
    pub(super) calls: usize,
    /// That calls took, in all turns.
    pub(super) seconds: f64,
    /// Of the current turn.
    pub(super) steps: Vec<CallStep>,
    /// Of the answer, where its replies were not read.
    pub(super) last_calls: Vec<AnsweredCall>,
    pub(super) step_seconds: f64,
    /// Of each call of the current turn, in order.
    pub(super) call_seconds: Vec<f64>,
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
    pub(super) fn listed(&self, row: &PromptRow) -> Result<Value> {
        Ok(tools_of(self.task, Some(row))
            .map_err(Error::wrap)?
            .unwrap_or_default())
    }

    pub(super) fn input<'t>(&'t self, listed: &'t Value) -> TemplateInput<'t> {
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
    pub(super) fn begun(
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
    pub(super) fn ask_states(
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
