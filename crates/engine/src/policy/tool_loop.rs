//! Conversations with tools: an answer's calls are read and answered on a thread of their own, and the replies are what the
//! model reads next, until it answers without a call or a limit ends it.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, PoisonError};

use candle_core::{Error, Result};
use serde_json::Map;

use super::conversing::{Conversing, Ended, PanicGuard, Talk};
use super::mailbox::NextRequest;
use super::tool_talk::{TaskTools, ToolTalk};
use super::{CallStep, KeptAnswers, LaterPrompt, ToolTurn};
use crate::dataset::PromptRow;
use crate::environment::{AnsweredCall, ChainEnd};
use crate::rollout::{Completion, StopReason};
use crate::score::{AskedCalls, asked_calls};

/// Conversations whose tools are called at the same time. The threads wait for tools most of the time.
pub(super) const MAX_TOOL_THREADS: usize = 64;

/// What follows an answer.
enum Next {
    Prompt(Vec<u32>),
    End(ChainEnd),
    /// A fault that is not the model's.
    Failed(ChainEnd, String),
}

impl<'a> Conversing<'a> {
    /// Calls what answers ask for, until no more come.
    pub(super) fn call_tools(
        &self,
        calling: &Mutex<Receiver<Ended>>,
        answered: &Sender<Ended>,
        kept: Option<&KeptAnswers>,
    ) {
        let _guard = PanicGuard(&self.has_failed);
        loop {
            let Ok(mut ended) = calling
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv()
            else {
                return;
            };
            if self.has_failed.load(Ordering::Relaxed) {
                continue;
            }
            if let Some(kept) = kept.filter(|_| !ended.is_known) {
                // A completion that is not stored is sampled again, should this be interrupted.
                let _ = kept.append(&ended.request, ended.sample, &ended.completion);
                ended.is_known = true;
            }
            if let Some(agents) = self.agents_of(ended.conversation) {
                let Ended {
                    conversation,
                    request,
                    completion,
                    ..
                } = &ended;
                agents
                    .answer(*conversation, request, completion)
                    .unwrap_or_else(|error| self.fail(error));
                continue;
            }
            match self.follow(&ended) {
                Ok(Some(next)) => self.deliver(ended.conversation, Some(next)),
                // The receiver is gone where the work has failed.
                Ok(None) => {
                    _ = answered.send(Ended {
                        is_recorded: true,
                        ..ended
                    })
                }
                Err(error) => self.fail(error),
            }
        }
    }

    /// Asks for what follows a completion; `None`: it is the answer, which its conversation has now.
    fn follow(
        &self,
        Ended {
            conversation,
            completion,
            request,
            ..
        }: &Ended,
    ) -> Result<Option<NextRequest>> {
        let question = self.question_of[*conversation];
        let Some(tools) = self.tools(question) else {
            return Ok(None);
        };
        let text = self
            .sampler
            .tokenizer()
            .decode(&completion.token_ids, true)
            .map_err(Error::wrap)?;
        let mut talk = self.talk(*conversation);
        talk.sampled += 1;
        // Other threads look at the conversation while its tools are called.
        let (mut own, row, sampled) = (
            talk.tools.take().unwrap_or_default(),
            talk.row.clone().into_owned(),
            talk.sampled,
        );
        drop(talk);
        let asked = (request.prompt.as_slice(), completion, text.as_str());
        let next = self.answer_calls(&mut own, (question, tools), (&row, sampled), asked)?;
        let (end, failure) = match next {
            Next::Prompt(prompt) => {
                let mut talk = self.talk(*conversation);
                talk.tools = Some(own);
                return Ok(Some(self.later_request(&talk, prompt)));
            }
            Next::End(end) => (end, None),
            Next::Failed(end, failure) => (end, Some(failure)),
        };
        let mut turn = ToolTurn {
            steps: std::mem::take(&mut own.steps),
            last_calls: std::mem::take(&mut own.last_calls),
            prompt: request.prompt.clone(),
            end,
            failure,
            states: Map::new(),
            agent: None,
            seconds: std::mem::take(&mut own.step_seconds),
            call_seconds: std::mem::take(&mut own.call_seconds),
        };
        if let Err(error) = own.ask_states(tools, &row, &mut turn) {
            turn.end = error.end();
            turn.failure = Some(error.to_string());
        }
        let mut talk = self.talk(*conversation);
        if self.questions[question].prompt.row.turn_count() == talk.conversation.turns.len() + 1 {
            own.environment = None;
        }
        talk.tools = Some(own);
        talk.row = Cow::Owned(turn.chain().scored_row(&row));
        talk.answer = Some((completion.clone(), text));
        talk.tool_turn = Some(turn);
        Ok(None)
    }

    /// Has the calls of a completion answered; `sampled`: the completions of its conversation so far.
    fn answer_calls(
        &self,
        own: &mut ToolTalk,
        (question, tools): (usize, &TaskTools<'_>),
        (row, sampled): (&PromptRow, u32),
        (prompt, completion, text): (&[u32], &Completion, &str),
    ) -> Result<Next> {
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
        if let Some(end) = limits.end(own.calls + calls.len(), sampled as usize) {
            return Ok(Next::End(end));
        }
        let answered = match own.call(tools, row, calls) {
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
        let asked = &self.questions[question].prompt;
        let transcript = own.begun(tools, self.sampler.tokenizer(), (asked, prompt))?;
        let (tokenizer, answers) = (
            self.sampler.tokenizer(),
            (completion.token_ids.as_slice(), answered.as_slice()),
        );
        tools.push_replies(transcript, tokenizer, &asked.row, answers)?;
        let next = transcript.token_ids().to_vec();
        let most = limits
            .max_context_tokens
            .unwrap_or(usize::MAX)
            .min(self.task(question).max_prompt_tokens);
        if next.len() > most {
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

    /// Asks for the next turn of a row, in a conversation with tools. `answer`: as it was sampled; `new`: the first message
    /// of the row that follows it.
    pub(super) fn ask_after_tools(
        &self,
        talk: &mut Talk<'_>,
        tools: &TaskTools<'_>,
        (answer, row, new): (&[u32], PromptRow, usize),
    ) -> Result<Option<NextRequest>> {
        let asked = &self.questions[talk.question].prompt;
        let mut own = talk.tools.take().unwrap_or_default();
        let transcript = own.begun(tools, self.sampler.tokenizer(), (asked, &asked.token_ids))?;
        let (tokenizer, new) = (
            self.sampler.tokenizer(),
            row.messages.get(new..).unwrap_or_default(),
        );
        let listed = tools.listed(&asked.row)?;
        transcript
            .push(tokenizer, tools.input(&listed), (answer, &[]), new)
            .map_err(Error::wrap)?;
        let token_ids = transcript.token_ids().to_vec();
        talk.tools = Some(own);
        let most = tools
            .toolset
            .limits()
            .max_context_tokens
            .unwrap_or(usize::MAX);
        if token_ids.len() > most.min(self.task(talk.question).max_prompt_tokens) {
            return Ok(None);
        }
        let text = tokenizer.decode(&token_ids, false).map_err(Error::wrap)?;
        let next = self.later_request(talk, token_ids.clone());
        talk.prompt = Some(LaterPrompt {
            id: row.id.clone(),
            text,
            token_ids,
        });
        talk.row = Cow::Owned(row);
        Ok(Some(next))
    }
}
