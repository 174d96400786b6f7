//! What happens to an answer while others are decoded: it is scored where somebody waits for that, and its conversation goes
//! on or ends.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Receiver;

use candle_core::{Error, Result};

use super::conversing::{Conversing, Ended, PanicGuard, ScoredTask, Talk};
use super::mailbox::NextRequest;
use super::prompts::{Prompt, render};
use super::{Conversation, KeptAnswers, LaterPrompt, ScoredRow, Turn, Watcher};
use crate::rollout::ThreadPool;
use crate::score::Score;

impl<'a> Conversing<'a> {
    /// Scores answers as they end, and lets conversations go on, until no more come.
    pub(super) fn attend(
        &self,
        ended: Receiver<Ended>,
        kept: Option<&KeptAnswers>,
        watcher: Option<&mut dyn Watcher>,
    ) {
        let _guard = PanicGuard(&self.has_failed);
        if let Err(error) = self.attend_all(&ended, kept, watcher) {
            self.fail(error);
        }
    }

    fn attend_all(
        &self,
        messages: &Receiver<Ended>,
        kept: Option<&KeptAnswers>,
        mut watcher: Option<&mut dyn Watcher>,
    ) -> Result<()> {
        let mut held = BTreeMap::new();
        while let Ok(first) = messages.recv() {
            let (mut ended, mut ready) = (Vec::new(), BTreeSet::new());
            for message in std::iter::once(first).chain(messages.try_iter()) {
                let conversation = message.conversation;
                ended.push((
                    conversation,
                    (kept.is_some() && !message.is_known).then(|| message.clone()),
                ));
                if !message.is_recorded {
                    self.record(message)?;
                }
                ready.extend(self.comparable(conversation, &mut held));
            }
            self.score_answers(ready.iter().copied())?;
            ready
                .iter()
                .try_for_each(|conversation| self.go_on(*conversation))?;
            let mut tell = |conversation: usize| {
                let talk = self.talk(conversation);
                if let Some(watcher) = watcher.as_mut().filter(|_| talk.has_ended) {
                    watcher.on_end(talk.question, talk.sample, &talk.conversation);
                }
            };
            for (conversation, stored) in ended {
                if let (
                    Some(kept),
                    Some(Ended {
                        request,
                        sample,
                        completion,
                        ..
                    }),
                ) = (kept, stored)
                {
                    // An answer that is not stored is asked for again, should this be interrupted.
                    let _ = kept.append(&request, sample, &completion);
                }
                if ready.remove(&conversation) {
                    tell(conversation);
                }
            }
            ready.into_iter().for_each(tell);
        }
        Ok(())
    }

    /// The conversations whose answers can be scored now that this one has an answer: itself, or all of its prompt where
    /// their answers are compared. `held`: by question those that wait for others.
    fn comparable(
        &self,
        conversation: usize,
        held: &mut BTreeMap<usize, Vec<usize>>,
    ) -> Vec<usize> {
        let question = self.question_of[conversation];
        if !self.scorer(question).compares_groups() {
            return vec![conversation];
        }
        let first = self.first_conversation[question];
        let all = first..first + self.questions[question].request.samples;
        let open = all
            .filter(|conversation| !self.talk(*conversation).has_ended)
            .count();
        let answered = held.entry(question).or_default();
        answered.push(conversation);
        if answered.len() == open {
            held.remove(&question).unwrap_or_default()
        } else {
            Vec::new()
        }
    }

    /// Takes an answer as text.
    pub(super) fn record(
        &self,
        Ended {
            conversation,
            completion,
            ..
        }: Ended,
    ) -> Result<()> {
        let text = self
            .sampler
            .tokenizer()
            .decode(&completion.token_ids, true)
            .map_err(Error::wrap)?;
        let mut talk = self.talk(conversation);
        talk.sampled += 1;
        talk.answer = Some((completion, text));
        Ok(())
    }

    /// Scores the answers of conversations together.
    fn score_answers(&self, conversations: impl Iterator<Item = usize>) -> Result<()> {
        let take = |conversation: usize| {
            let mut talk = self.talk(conversation);
            let (completion, text) = talk.answer.take()?;
            let question = talk.question;
            let row = std::mem::replace(
                &mut talk.row,
                Cow::Borrowed(&self.questions[question].prompt.row),
            );
            Some((conversation, completion, text, row, self.scorer(question)))
        };
        let answers: Vec<_> = conversations.filter_map(take).collect();
        let asked = answers
            .iter()
            .map(|(_, _, text, row, scorer)| (text.as_str(), ScoredRow { scorer, row }));
        let asked: Vec<_> = asked.collect();
        let scores = score_rows(&asked, || !self.is_over()).ok_or_else(ThreadPool::cancelled)?;
        for ((conversation, completion, text, _, scorer), mut score) in
            answers.into_iter().zip(scores)
        {
            scorer.add_length(&mut score, completion.token_ids.len());
            let mut talk = self.talk(conversation);
            let (prompt, tools) = (talk.prompt.take(), talk.tool_turn.take());
            talk.conversation.turns.push(Turn {
                prompt,
                tools,
                ..Turn::new(completion, text, score)
            });
        }
        Ok(())
    }

    /// Asks for the next turn of a conversation, or ends it.
    fn go_on(&self, conversation: usize) -> Result<()> {
        let mut talk = self.talk(conversation);
        let question = talk.question;
        let next = self.next_turn(&mut talk)?;
        if next.is_none() {
            self.finish(&mut talk);
        }
        drop(talk);
        // Of an agent's the source knows already.
        if self.is_followed(question) && self.agents_of_question(question).is_none() {
            self.deliver(conversation, next);
        }
        Ok(())
    }

    fn next_turn(&self, talk: &mut Talk<'a>) -> Result<Option<NextRequest>> {
        let (question, turns) = (&self.questions[talk.question], &talk.conversation.turns);
        let ScoredTask {
            task,
            max_prompt_tokens,
            ..
        } = self.task(talk.question);
        let continues = turns
            .last()
            .is_some_and(|turn| turn.score.goes_on(&task.score));
        if !continues || turns.len() >= self.settings.max_turns {
            return Ok(None);
        }
        let answers: Vec<&str> = turns.iter().map(|turn| turn.text.as_str()).collect();
        let Some(row) = question.prompt.row.after(&answers) else {
            return Ok(None);
        };
        if let (Some(tools), Some(last)) = (self.tools(talk.question), turns.last()) {
            let earlier = question
                .prompt
                .row
                .after(&answers[..answers.len() - 1])
                .map_or(0, |row| row.messages.len());
            return self.ask_after_tools(
                talk,
                tools,
                (&last.completion.token_ids.clone(), row, earlier + 1),
            );
        }
        let Prompt {
            row,
            text,
            token_ids,
            ..
        } = render(task, row, self.sampler.tokenizer()).map_err(Error::wrap)?;
        // Planned for, unless the template writes more around an answer than around none.
        if token_ids.len() > max_prompt_tokens {
            return Ok(None);
        }
        let next = self.later_request(talk, token_ids.clone());
        talk.prompt = Some(LaterPrompt {
            id: row.id.clone(),
            text,
            token_ids,
        });
        talk.row = Cow::Owned(row);
        Ok(Some(next))
    }

    fn finish(&self, talk: &mut Talk<'_>) {
        let scores = talk
            .conversation
            .turns
            .iter_mut()
            .map(|turn| &mut turn.score);
        self.scorer(talk.question)
            .join(&mut scores.collect::<Vec<_>>());
        talk.has_ended = true;
    }

    /// All conversations by question, with the scores that were not needed before.
    pub(super) fn conversations(&self) -> Result<Vec<Vec<Conversation>>> {
        self.score_answers(0..self.talks.len())?;
        let mut found = vec![Vec::new(); self.questions.len()];
        for conversation in 0..self.talks.len() {
            let mut talk = self.talk(conversation);
            if !talk.has_ended {
                self.finish(&mut talk);
            }
            found[talk.question].push(std::mem::take(&mut talk.conversation));
        }
        Ok(found)
    }
}

/// The scores of texts, each by the scorer of its row; `None` once `goes_on` says no.
pub(super) fn score_rows(
    answers: &[(&str, ScoredRow<'_>)],
    goes_on: impl Fn() -> bool + Sync,
) -> Option<Vec<Score>> {
    let mut scores: Vec<Option<Score>> = vec![None; answers.len()];
    while let Some(first) = scores.iter().position(Option::is_none) {
        let scorer = answers[first].1.scorer;
        let is_its = |index: &usize| std::ptr::eq(answers[*index].1.scorer, scorer);
        let its: Vec<usize> = (first..answers.len()).filter(is_its).collect();
        let texts: Vec<_> = its
            .iter()
            .map(|index| (answers[*index].0, Some(answers[*index].1.row)))
            .collect();
        for (index, score) in its.into_iter().zip(scorer.score_while(&texts, &goes_on)?) {
            scores[index] = Some(score);
        }
    }
    scores.into_iter().collect()
}
