//! One conversation, from its first prompt to its last score.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{Error, Result};

use super::agents::Agents;
use super::blocking::Blocking;
use super::prompts::render;
use super::questions::Questions;
use super::scores::{Scores, Unscored};
use super::ticket::Ticket;
use super::tools::{AskedWithTools, Followed, Sampled, ToolTalk};
use super::{Conversation, LaterPrompt, ToolTurn, Turn};
use crate::dataset::PromptRow;
use crate::rollout::Completion;

/// What conversations are held with.
#[derive(Clone, Copy)]
pub(super) struct Partners<'h, 's, 'e> {
    pub(super) questions: &'e Questions<'e>,
    pub(super) scores: &'h Scores<'e>,
    pub(super) blocking: &'h Blocking<'s, 'e>,
}

/// An answer without its score.
struct Answer<'e> {
    completion: Completion,
    text: String,
    tools: Option<ToolTurn>,
    /// What it is scored against.
    row: Cow<'e, PromptRow>,
}

impl<'s, 'e> Partners<'_, 's, 'e> {
    /// Turn by turn: asks, has tools or an agent answer until there is an answer to score, and scores it.
    pub(super) async fn hold(
        self,
        question: usize,
        mut ticket: Ticket,
    ) -> Result<(usize, usize, Conversation)> {
        let questions = self.questions;
        let (mut held, mut tools) = (Conversation::default(), ToolTalk::default());
        let mut next = Some((Cow::Borrowed(&questions.all[question].prompt.row), None));
        while let Some((row, prompt)) = next {
            let is_last = held.turns.len() + 1 >= questions.max_turns(question);
            let asked = (question, row, prompt.as_ref(), is_last);
            let answer = self.answer(asked, &mut tools, &mut ticket).await?;
            if is_last {
                ticket.leave();
            } else if questions.task(question).scorer.compares_groups() {
                ticket.wait_for_others();
            }
            let tokens = answer.completion.token_ids.len();
            let unscored = Unscored {
                question,
                sample: ticket.sample,
                text: answer.text,
                tokens,
                row: answer.row,
            };
            let (text, score) = self.scores.score(unscored).await?;
            held.turns.push(Turn {
                prompt,
                tools: answer.tools,
                ..Turn::new(answer.completion, text, score)
            });
            next = self.next_turn(question, &held, &mut tools)?;
        }
        self.scores.end(question);
        let mut scores: Vec<_> = held.turns.iter_mut().map(|turn| &mut turn.score).collect();
        questions.task(question).scorer.join(&mut scores);
        Ok((question, ticket.sample, held))
    }

    /// The answer of a turn. `prompt`: of a later turn.
    async fn answer(
        self,
        (question, row, prompt, is_last): (usize, Cow<'e, PromptRow>, Option<&LaterPrompt>, bool),
        own: &mut ToolTalk,
        ticket: &mut Ticket,
    ) -> Result<Answer<'e>> {
        let questions = self.questions;
        let first = &questions.all[question].prompt.token_ids;
        let read = prompt.map_or(first, |prompt| &prompt.token_ids);
        if let Some(agents) = questions.agents(question) {
            return self.answer_of_agent(agents, question, row, ticket).await;
        }
        if let Some(asked) = questions.tools(question) {
            let turn = (row, read.clone(), is_last);
            return self.answer_after_calls(asked, own, turn, ticket).await;
        }
        let completion = ticket.sample(read).await?;
        let tokenizer = questions.sampler.tokenizer();
        let text = tokenizer.decode(&completion.token_ids, true);
        Ok(Answer {
            completion,
            text: text.map_err(Error::wrap)?,
            tools: None,
            row,
        })
    }

    /// Has the program of a conversation run to its end.
    async fn answer_of_agent(
        self,
        agents: &'e Agents<'e>,
        question: usize,
        row: Cow<'e, PromptRow>,
        ticket: &mut Ticket,
    ) -> Result<Answer<'e>> {
        ticket.start().await?;
        let (questions, line, sample) = (self.questions, Arc::clone(&ticket.line), ticket.sample);
        let run = move || {
            let tokenizer = questions.sampler.tokenizer();
            let keep_going = || !questions.is_over();
            let prompt = questions.all[question].prompt;
            agents.run(prompt, tokenizer, (&line, sample), &keep_going)
        };
        let (turn, completion, text) = self.blocking.run(run).await??;
        Ok(Answer {
            completion,
            text,
            row: Cow::Owned(turn.chain().scored_row(&row)),
            tools: Some(turn),
        })
    }

    /// Samples and has calls answered, until a completion is the answer.
    async fn answer_after_calls(
        self,
        asked: AskedWithTools<'e>,
        own: &mut ToolTalk,
        (row, mut prompt, is_last): (Cow<'e, PromptRow>, Vec<u32>, bool),
        ticket: &mut Ticket,
    ) -> Result<Answer<'e>> {
        loop {
            let completion = ticket.sample(&prompt).await?;
            let (mut talk, row, count) = (std::mem::take(own), row.clone(), ticket.asked);
            let follow = move || {
                let sampled = Sampled {
                    row: &row,
                    prompt: &prompt,
                    completion: &completion,
                    count,
                    is_last,
                };
                let followed = asked.follow(&mut talk, &sampled);
                let followed = followed.map(|followed| match followed {
                    Followed::Prompt(prompt) => Err(prompt),
                    Followed::Answer(turn, text) => Ok(Answer {
                        row: Cow::Owned(turn.chain().scored_row(&row)),
                        completion,
                        text,
                        tools: Some(*turn),
                    }),
                });
                (talk, followed)
            };
            let (talk, followed) = self.blocking.run_tools(follow).await?;
            *own = talk;
            match followed? {
                Ok(answer) => return Ok(answer),
                Err(next) => prompt = next,
            }
        }
    }

    /// The row and the prompt of the next turn, unless the conversation ends.
    fn next_turn(
        self,
        question: usize,
        held: &Conversation,
        own: &mut ToolTalk,
    ) -> Result<Option<(Cow<'e, PromptRow>, Option<LaterPrompt>)>> {
        let (questions, turns) = (self.questions, &held.turns);
        let (first, asked) = (
            &questions.all[question].prompt.row,
            questions.task(question),
        );
        let goes_on = |last: &&Turn| last.score.goes_on(&asked.task.score);
        let is_over = turns.len() >= questions.max_turns(question);
        let Some(last) = turns.last().filter(goes_on).filter(|_| !is_over) else {
            return Ok(None);
        };
        let answers: Vec<&str> = turns.iter().map(|turn| turn.text.as_str()).collect();
        let Some(mut row) = first.after(&answers) else {
            return Ok(None);
        };
        let (text, token_ids) = if let Some(asked) = questions.tools(question) {
            let earlier = first.after(&answers[..answers.len() - 1]);
            let read = earlier.map_or(0, |row| row.messages.len()) + 1;
            let new = row.messages.get(read..).unwrap_or_default();
            let answer = &last.completion.token_ids;
            match asked.next_prompt(own, answer, new)? {
                Some(next) => next,
                None => return Ok(None),
            }
        } else {
            let rendered = render(asked.task, row, questions.sampler.tokenizer());
            let rendered = rendered.map_err(Error::wrap)?;
            row = rendered.row;
            (rendered.text, rendered.token_ids)
        };
        // Planned for, unless the template writes more around an answer than around none.
        if token_ids.len() > asked.max_prompt_tokens {
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
