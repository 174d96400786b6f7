//! One conversation, from first prompt to last score.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{Error, Result};

use super::agents::TaskAgent;
use super::blocking::Blocking;
use super::conversation::{Answer, Conversation, LaterPrompt, Turn};
use super::prompts::{Prompt, render};
use super::questions::Questions;
use super::scores::Scores;
use super::tools::{Sampled, TaskTools, ToolSession};
use crate::dataset::PromptRow;
use crate::gateway::Gateway;
use crate::rollout::QueuedConversation;

/// Shared by conversations.
#[derive(Clone, Copy)]
pub(super) struct Context<'h, 's, 'e> {
    pub(super) questions: &'e Questions<'e>,
    pub(super) scores: &'h Scores<'e>,
    pub(super) blocking: &'h Blocking<'s, 'e>,
}

/// Row of a turn, and its prompt unless it is the first.
type NextTurn<'e> = (Cow<'e, PromptRow>, Option<LaterPrompt>);

impl<'s, 'e> Context<'_, 's, 'e> {
    /// For each turn: samples, runs tools or an agent until there is an answer, and scores it.
    pub(super) async fn hold(
        self,
        question: usize,
        mut queued: QueuedConversation,
    ) -> Result<(usize, usize, Conversation)> {
        let (questions, sample) = (self.questions, queued.sample);
        let (mut held, mut session) = (Conversation::default(), ToolSession::default());
        let asked = questions.all[question].prompt;
        let mut next: Option<NextTurn<'e>> = Some((Cow::Borrowed(&asked.row), None));
        while let Some((row, prompt)) = next {
            let is_last = held.turns.len() + 1 >= questions.max_turns(question);
            let first = &asked.token_ids;
            let read = prompt.as_ref().map_or(first, |prompt| &prompt.token_ids);
            let answer = if let Some((agent, gateway)) = questions.agent(question) {
                self.run_agent(agent, gateway, asked, &mut queued).await?
            } else if let Some(tools) = questions.tools(question) {
                let (mut prompt, row) = (read.clone(), &row);
                loop {
                    let sampled = Sampled {
                        completion: queued.sample(&prompt).await?,
                        row: row.clone(),
                        prompt,
                        count: queued.asked,
                        is_last,
                    };
                    match self.call_tools(tools, asked, &mut session, sampled).await? {
                        ControlFlow::Continue(next) => prompt = next,
                        ControlFlow::Break(answer) => break answer,
                    }
                }
            } else {
                let completion = queued.sample(read).await?;
                let tokenizer = questions.sampler.tokenizer();
                let text = tokenizer.decode_answer(&completion.token_ids);
                Answer {
                    completion,
                    text: text.map_err(Error::wrap)?,
                    tools: None,
                    row,
                }
            };
            if is_last {
                queued.leave();
            } else if questions.task(question).scorer.compares_groups() {
                queued.wait_for_others();
            }
            let (answer, score) = self.scores.score(question, sample, answer).await?;
            held.turns.push(Turn {
                prompt,
                tools: answer.tools,
                ..Turn::new(answer.completion, answer.text, score)
            });
            next = self.next_turn(question, &held, &mut session)?;
        }
        self.scores.end(question);
        let mut scores: Vec<_> = held.turns.iter_mut().map(|turn| &mut turn.score).collect();
        questions.task(question).scorer.join(&mut scores);
        Ok((question, sample, held))
    }

    /// Runs a conversation's program to its end.
    async fn run_agent(
        self,
        agent: &'e TaskAgent<'e>,
        gateway: &'static Gateway,
        asked: &'e Prompt,
        queued: &mut QueuedConversation,
    ) -> Result<Answer<'e>> {
        queued.start().await?;
        let (question, sample) = (Arc::clone(&queued.question), queued.sample);
        let keep_going = || !self.questions.is_over();
        let run = move || agent.run(gateway, asked, &question, sample, &keep_going);
        self.blocking.run(run).await?
    }

    /// Answers a completion's calls; returns the next prompt, or the answer.
    async fn call_tools(
        self,
        tools: &'e TaskTools<'e>,
        asked: &'e Prompt,
        session: &mut ToolSession,
        sampled: Sampled<'e>,
    ) -> Result<ControlFlow<Answer<'e>, Vec<u32>>> {
        let mut taken = std::mem::take(session);
        let follow = move || {
            let followed = tools.follow(asked, &mut taken, sampled);
            (taken, followed)
        };
        let (taken, followed) = self.blocking.run_tools(follow).await?;
        *session = taken;
        followed
    }

    /// The next turn, unless the conversation ends.
    fn next_turn(
        self,
        question: usize,
        held: &Conversation,
        session: &mut ToolSession,
    ) -> Result<Option<NextTurn<'e>>> {
        let (questions, turns) = (self.questions, &held.turns);
        let (asked, task) = (questions.all[question].prompt, questions.task(question));
        let goes_on = |last: &&Turn| last.score.goes_on(&task.task.score);
        let is_over = turns.len() >= questions.max_turns(question);
        let Some(last) = turns.last().filter(goes_on).filter(|_| !is_over) else {
            return Ok(None);
        };
        let answers: Vec<&str> = turns.iter().map(|turn| turn.text.as_str()).collect();
        let Some(mut row) = asked.row.after(&answers) else {
            return Ok(None);
        };
        let (text, token_ids) = if let Some(tools) = questions.tools(question) {
            let earlier = asked.row.after(&answers[..answers.len() - 1]);
            let read = earlier.map_or(0, |row| row.messages.len()) + 1;
            let new = row.messages.get(read..).unwrap_or_default();
            let answer = &last.completion.token_ids;
            match tools.next_prompt(asked, session, answer, new)? {
                Some(next) => next,
                None => return Ok(None),
            }
        } else {
            let rendered = render(task.task, row, questions.sampler.tokenizer());
            let rendered = rendered.map_err(Error::wrap)?;
            row = rendered.row;
            (rendered.text, rendered.token_ids)
        };
        // Can only be exceeded if the template writes more around a non-empty answer.
        if token_ids.len() > task.max_prompt_tokens {
            return Ok(None);
        }
        let prompt = LaterPrompt {
            id: row.id.clone(),
            text,
            token_ids,
        };
        Ok(Some((Cow::Owned(row), Some(prompt))))
    }
}
