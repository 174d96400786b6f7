//! Scores answers in batches: those that arrive during scoring are scored together.

use std::collections::BTreeMap;

use candle_core::Result;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

use super::ScoredRow;
use super::blocking::Blocking;
use super::conversation::Answer;
use super::questions::Questions;
use crate::rollout::ThreadPool;
use crate::score::Score;

/// An answer waiting for its score.
pub(super) struct Unscored<'e> {
    question: usize,
    sample: usize,
    answer: Answer<'e>,
    scored: oneshot::Sender<(Answer<'e>, Score)>,
}

pub(super) enum ScoreMessage<'e> {
    Answer(Box<Unscored<'e>>),
    /// A conversation about a question has ended: the others are not compared with its answers.
    Ended(usize),
}

/// Channel to the scoring thread.
pub(super) struct Scores<'e>(pub(super) UnboundedSender<ScoreMessage<'e>>);

impl<'e> Scores<'e> {
    /// Scores an answer.
    pub(super) async fn score(
        &self,
        question: usize,
        sample: usize,
        answer: Answer<'e>,
    ) -> Result<(Answer<'e>, Score)> {
        let (scored, score) = oneshot::channel();
        let unscored = Unscored {
            question,
            sample,
            answer,
            scored,
        };
        _ = self.0.send(ScoreMessage::Answer(Box::new(unscored)));
        score.await.map_err(|_| ThreadPool::cancelled())
    }

    pub(super) fn end(&self, question: usize) {
        _ = self.0.send(ScoreMessage::Ended(question));
    }
}

/// Answers to one question that are compared with each other: one per unfinished conversation.
struct Compared<'e> {
    conversations: usize,
    answers: Vec<Unscored<'e>>,
}

/// Scores answers until the channel closes.
pub(super) async fn score_all<'s, 'e>(
    questions: &'e Questions<'e>,
    mut messages: UnboundedReceiver<ScoreMessage<'e>>,
    blocking: &Blocking<'s, 'e>,
) -> Result<()> {
    let mut compared: BTreeMap<usize, Compared<'e>> = BTreeMap::new();
    while let Some(first) = messages.recv().await {
        let (mut next, mut ready) = (Some(first), Vec::new());
        while let Some(message) = next {
            let question = match &message {
                ScoreMessage::Answer(answer) => answer.question,
                ScoreMessage::Ended(question) => *question,
            };
            let is_compared = questions.task(question).scorer.compares_groups();
            let group = compared.entry(question).or_insert_with(|| Compared {
                conversations: questions.all[question].request.samples,
                answers: Vec::new(),
            });
            match message {
                ScoreMessage::Answer(answer) => group.answers.push(*answer),
                ScoreMessage::Ended(_) => group.conversations -= 1,
            }
            if !is_compared || group.answers.len() == group.conversations {
                ready.append(&mut group.answers);
            }
            next = messages.try_recv().ok();
        }
        if ready.is_empty() {
            continue;
        }
        ready.sort_by_key(|one| (one.question, one.sample));
        let (ready, scores) = blocking.run(move || scored(questions, ready)).await?;
        let scores = scores.ok_or_else(ThreadPool::cancelled)?;
        for (one, mut score) in ready.into_iter().zip(scores) {
            let scorer = questions.task(one.question).scorer;
            scorer.add_length(&mut score, one.answer.completion.token_ids.len());
            _ = one.scored.send((one.answer, score));
        }
    }
    Ok(())
}

/// Answers with scores; `None` on cancellation or failure.
fn scored<'e>(
    questions: &Questions<'e>,
    answers: Vec<Unscored<'e>>,
) -> (Vec<Unscored<'e>>, Option<Vec<Score>>) {
    let asked = answers.iter().map(|one| {
        let scorer = questions.task(one.question).scorer;
        let row = &*one.answer.row;
        let ids = one.answer.completion.token_ids.as_slice();
        (one.answer.text.as_str(), ids, ScoredRow { scorer, row })
    });
    let scores = score_rows(&asked.collect::<Vec<_>>(), || !questions.is_over());
    (answers, scores)
}

/// Scores texts with their token ids, each by its row's scorer; `None` once `goes_on` returns false.
pub(super) fn score_rows(
    answers: &[(&str, &[u32], ScoredRow<'_>)],
    goes_on: impl Fn() -> bool + Sync,
) -> Option<Vec<Score>> {
    let mut scores: Vec<Option<Score>> = vec![None; answers.len()];
    while let Some(first) = scores.iter().position(Option::is_none) {
        let scorer = answers[first].2.scorer;
        let is_its = |index: &usize| std::ptr::eq(answers[*index].2.scorer, scorer);
        let its: Vec<usize> = (first..answers.len()).filter(is_its).collect();
        let texts: Vec<_> = its
            .iter()
            .map(|index| answers[*index])
            .map(|(text, ids, its)| (text, Some(its.row), ids))
            .collect();
        for (index, score) in its.into_iter().zip(scorer.score_sampled(&texts, &goes_on)?) {
            scores[index] = Some(score);
        }
    }
    scores.into_iter().collect()
}
