//! What happens to an answer while others are decoded: it is scored where somebody waits for that, and its conversation goes
//! on or ends.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Error, Result};

use super::converse::{ConverseSettings, Conversing, Ended, Question, ScoredTask, Talk};
use super::prompts::{Prompt, render};
use super::tool_loop::TaskTools;
use super::{Conversation, KeptAnswers, LaterPrompt, Policy, ScoredRow, Turn, Watcher};
use crate::rollout::{Request, RequestSize, ThreadPool};
use crate::score::{Score, Scorer};

/// Numbers of samples in the random numbers of each completion of a conversation.
const SAMPLES_OF_TURN: u32 = 1 << 16;

impl<'a> Conversing<'a> {
    /// `parts`: the numbers of questions that are decoded together.
    pub(super) fn new(
        policy: &'a Policy,
        questions: &'a [Question<'a>],
        settings: &'a ConverseSettings<'a>,
        parts: impl Iterator<Item = usize>,
    ) -> Result<Self> {
        let tools = settings.tasks.iter().map(|asked| TaskTools::of_task(asked.task, &policy.tokenizer));
        let tools = tools.collect::<Result<Vec<_>>>()?;
        let (mut talks, mut question_of, mut first_conversation) = (Vec::new(), Vec::new(), Vec::new());
        for (question, Question { prompt, request }) in questions.iter().enumerate() {
            first_conversation.push(talks.len());
            question_of.extend(std::iter::repeat_n(question, request.samples));
            talks.extend((0..request.samples).map(|sample| {
                Mutex::new(Talk {
                    question,
                    sample,
                    row: Cow::Borrowed(&prompt.row),
                    prompt: None,
                    sampled: 0,
                    answer: None,
                    tools: tools[prompt.task].as_ref().map(|_| Box::default()),
                    tool_turn: None,
                    conversation: Conversation::default(),
                    has_ended: false,
                })
            }));
        }
        let (mut mailboxes, mut mailbox_of) = (Vec::new(), Vec::with_capacity(questions.len()));
        for questions in parts {
            mailbox_of.extend(std::iter::repeat_n(mailboxes.len(), questions));
            mailboxes.push(Default::default());
        }
        let (has_failed, failure) = (AtomicBool::new(false), Mutex::new(None));
        Ok(Self {
            policy,
            questions,
            settings,
            tools,
            first_conversation,
            question_of,
            talks,
            mailboxes,
            mailbox_of,
            has_failed,
            failure,
        })
    }

    pub(super) fn task(&self, question: usize) -> ScoredTask<'a> {
        self.settings.tasks[self.questions[question].prompt.task]
    }

    fn scorer(&self, question: usize) -> &'a Scorer {
        self.task(question).scorer
    }

    pub(super) fn talk(&self, conversation: usize) -> MutexGuard<'_, Talk<'a>> {
        self.talks[conversation].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tools(&self, question: usize) -> Option<&TaskTools<'a>> {
        self.tools[self.questions[question].prompt.task].as_ref()
    }

    /// Whether answers of a conversation may call tools.
    pub(super) fn has_tools(&self, conversation: usize) -> bool {
        self.tools(self.question_of[conversation]).is_some()
    }

    pub(super) fn conversations_with_tools(&self) -> usize {
        (0..self.talks.len()).filter(|conversation| self.has_tools(*conversation)).count()
    }

    /// Whether more than one completion may be sampled in its conversations.
    pub(super) fn is_followed(&self, question: usize) -> bool {
        self.tools(question).is_some()
            || self.questions[question].prompt.row.turn_count().min(self.settings.max_turns) > 1
    }

    /// The same, of a conversation.
    pub(super) fn may_be_followed(&self, conversation: usize) -> bool {
        self.is_followed(self.question_of[conversation])
    }

    /// What a question takes of the caches.
    pub(super) fn sizes(&self, question: usize) -> Vec<RequestSize> {
        let Question { prompt, request } = &self.questions[question];
        match self.is_followed(question) {
            true => {
                let most = self.task(question).max_prompt_tokens.min(prompt.most_tokens).max(request.prompt.len());
                vec![RequestSize { prompt_tokens: most, samples: 1 }; request.samples]
            }
            false => vec![RequestSize::of(request)],
        }
    }

    /// Whether scores are needed while others are decoded: to know whether conversations go on, or since scorers that run
    /// programs have few to answer afterwards if they begin with what ends first.
    pub(super) fn needs_scores(&self) -> bool {
        let scorers = || self.settings.tasks.iter().map(|task| task.scorer);
        let runs_programs = scorers().any(Scorer::runs_programs) && !scorers().any(Scorer::compares_groups);
        runs_programs || (0..self.questions.len()).any(|question| self.is_followed(question))
    }

    /// Whether the work was cancelled or has failed.
    pub(super) fn is_over(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed) || self.policy.threads.check().is_err()
    }

    pub(super) fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.has_failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Scores answers as they end, and lets conversations go on, until no more come.
    pub(super) fn attend(&self, ended: Receiver<Ended>, kept: Option<&KeptAnswers>, watcher: Option<&mut dyn Watcher>) {
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
                ended.push((conversation, (kept.is_some() && !message.is_known).then(|| message.clone())));
                if !message.is_recorded {
                    self.record(message)?;
                }
                ready.extend(self.comparable(conversation, &mut held));
            }
            self.score_answers(ready.iter().copied())?;
            ready.iter().try_for_each(|conversation| self.go_on(*conversation))?;
            let mut tell = |conversation: usize| {
                let talk = self.talk(conversation);
                if let Some(watcher) = watcher.as_mut().filter(|_| talk.has_ended) {
                    watcher.on_end(talk.question, talk.sample, &talk.conversation);
                }
            };
            for (conversation, stored) in ended {
                if let (Some(kept), Some(Ended { request, sample, completion, .. })) = (kept, stored) {
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
    fn comparable(&self, conversation: usize, held: &mut BTreeMap<usize, Vec<usize>>) -> Vec<usize> {
        let question = self.question_of[conversation];
        if !self.scorer(question).compares_groups() {
            return vec![conversation];
        }
        let first = self.first_conversation[question];
        let all = first..first + self.questions[question].request.samples;
        let open = all.filter(|conversation| !self.talk(*conversation).has_ended).count();
        let answered = held.entry(question).or_default();
        answered.push(conversation);
        if answered.len() == open { held.remove(&question).unwrap_or_default() } else { Vec::new() }
    }

    /// Takes an answer as text.
    pub(super) fn record(&self, Ended { conversation, completion, .. }: Ended) -> Result<()> {
        let text = self.policy.tokenizer.decode(&completion.token_ids, true).map_err(Error::wrap)?;
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
            let row = std::mem::replace(&mut talk.row, Cow::Borrowed(&self.questions[question].prompt.row));
            Some((conversation, completion, text, row, self.scorer(question)))
        };
        let answers: Vec<_> = conversations.filter_map(take).collect();
        let asked = answers.iter().map(|(_, _, text, row, scorer)| (text.as_str(), ScoredRow { scorer, row }));
        let asked: Vec<_> = asked.collect();
        let scores = score_rows(&asked, || !self.is_over()).ok_or_else(ThreadPool::cancelled)?;
        for ((conversation, completion, text, _, scorer), mut score) in answers.into_iter().zip(scores) {
            scorer.add_length(&mut score, completion.token_ids.len());
            let mut talk = self.talk(conversation);
            let (prompt, tools) = (talk.prompt.take(), talk.tool_turn.take());
            talk.conversation.turns.push(Turn { prompt, tools, ..Turn::new(completion, text, score) });
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
        if self.is_followed(question) {
            self.deliver(conversation, next);
        }
        Ok(())
    }

    pub(super) fn deliver(&self, conversation: usize, next: Option<Request>) {
        self.mailboxes[self.mailbox_of[self.question_of[conversation]]].deliver(conversation, next);
    }

    fn next_turn(&self, talk: &mut Talk<'a>) -> Result<Option<Request>> {
        let (question, turns) = (&self.questions[talk.question], &talk.conversation.turns);
        let ScoredTask { task, max_prompt_tokens, .. } = self.task(talk.question);
        let continues = turns.last().is_some_and(|turn| turn.score.goes_on(&task.score));
        if !continues || turns.len() >= self.settings.max_turns {
            return Ok(None);
        }
        let answers: Vec<&str> = turns.iter().map(|turn| turn.text.as_str()).collect();
        let Some(row) = question.prompt.row.after(&answers) else { return Ok(None) };
        if let (Some(tools), Some(last)) = (self.tools(talk.question), turns.last()) {
            let earlier = question.prompt.row.after(&answers[..answers.len() - 1]).map_or(0, |row| row.messages.len());
            return self.ask_after_tools(talk, tools, (&last.completion.token_ids.clone(), row, earlier + 1));
        }
        let Prompt { row, text, token_ids, .. } = render(task, row, &self.policy.tokenizer).map_err(Error::wrap)?;
        // Planned for, unless the template writes more around an answer than around none.
        if token_ids.len() > max_prompt_tokens {
            return Ok(None);
        }
        let request = self.later_request(talk, token_ids.clone());
        talk.prompt = Some(LaterPrompt { id: row.id.clone(), text, token_ids });
        talk.row = Cow::Owned(row);
        Ok(Some(request))
    }

    /// Asks for one more completion of a conversation, with random numbers that no other has.
    pub(super) fn later_request(&self, talk: &Talk<'_>, prompt: Vec<u32>) -> Request {
        let first = &self.questions[talk.question].request;
        let first_sample = talk.sampled * SAMPLES_OF_TURN + talk.sample as u32;
        Request { prompt, samples: 1, first_sample, ..first.clone() }
    }

    fn finish(&self, talk: &mut Talk<'_>) {
        let scores = talk.conversation.turns.iter_mut().map(|turn| &mut turn.score);
        self.scorer(talk.question).join(&mut scores.collect::<Vec<_>>());
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

/// Ends the wait for answers where their thread has panicked.
pub(super) struct PanicGuard<'a>(pub(super) &'a AtomicBool);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_or(std::thread::panicking(), Ordering::Relaxed);
    }
}

/// The scores of texts, each by the scorer of its row; `None` once `goes_on` says no.
pub(super) fn score_rows(answers: &[(&str, ScoredRow<'_>)], goes_on: impl Fn() -> bool + Sync) -> Option<Vec<Score>> {
    let mut scores: Vec<Option<Score>> = vec![None; answers.len()];
    while let Some(first) = scores.iter().position(Option::is_none) {
        let scorer = answers[first].1.scorer;
        let is_its = |index: &usize| std::ptr::eq(answers[*index].1.scorer, scorer);
        let its: Vec<usize> = (first..answers.len()).filter(is_its).collect();
        let texts: Vec<_> = its.iter().map(|index| (answers[*index].0, Some(answers[*index].1.row))).collect();
        for (index, score) in its.into_iter().zip(scorer.score_while(&texts, &goes_on)?) {
            scores[index] = Some(score);
        }
    }
    scores.into_iter().collect()
}
