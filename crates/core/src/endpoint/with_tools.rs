//! Conversations with the task's tools: answers the endpoint's calls locally.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

use super::answers::{Ask, converse};
use super::conversation::Conversation;
use super::questions::first_secret;
use super::{Answer, EndpointError, Question, RequestForm, UnansweredQuestion};
use crate::dataset::PromptRow;
use crate::environment::ToolChain;
use crate::prompts::HandConversation;
use crate::run::LogProbs;
use crate::score::Scorer;
use crate::text::Message;

/// Runs the conversation of each question. `on_new` gets each new answer, and nothing at the end of
/// a conversation.
///
/// # Errors
/// As [`super::ask`], and [`EndpointError::Tools`].
pub(super) fn with_tools(
    form: &RequestForm<'_>,
    scorer: &Scorer,
    rows: &[PromptRow],
    questions: &[Question],
    known: &HashMap<String, Answer>,
    mut on_new: impl FnMut(Option<(&Question, &Answer)>) -> Result<(), EndpointError>,
) -> Result<Vec<Conversation>, EndpointError> {
    let hold = |index: usize, ask: Ask<'_>| hold(form, scorer, rows, &questions[index], ask);
    let found = converse(form.endpoint, questions.len(), known, &hold, |_, new| {
        on_new(new)
    })?;
    let without = |question, failed| Conversation {
        failed: Some(failed),
        ..Conversation::begin(question)
    };
    let conversations = questions.iter().zip(found);
    Ok(conversations
        .map(|(question, held)| held.unwrap_or_else(|failed| without(question, failed)))
        .collect())
}

fn hold(
    form: &RequestForm<'_>,
    scorer: &Scorer,
    rows: &[PromptRow],
    first: &Question,
    ask: Ask<'_>,
) -> Result<Result<Conversation, UnansweredQuestion>, EndpointError> {
    let row = &rows[first.row];
    let mut held = Conversation::begin(first);
    let mut talk = HandConversation::open(form.task, scorer, row)
        .map_err(|error| EndpointError::Tools(Box::new(error)))?;
    // The conversation so far, and the current turn.
    let (mut sent, mut said) = (row.clone(), Vec::<Answer>::new());
    let mut question = Cow::Borrowed(first);
    loop {
        let answer = match ask(&question) {
            Ok(answer) => answer,
            Err(failed) if held.answers.is_empty() && said.is_empty() => return Ok(Err(failed)),
            Err(failed) => {
                held.failed = Some(failed);
                break;
            }
        };
        let turns = talk.turns().count();
        let context = answer
            .prompt_tokens
            .zip(answer.tokens)
            .map(|(read, written)| read + written);
        talk.go_on(&answer.text, answer.truncated, context);
        sent.messages.push(Message::new("assistant", &answer.text));
        said.push(answer);
        let has_ended = talk.written().score.is_some();
        if has_ended || talk.turns().count() > turns {
            held.answers.extend(as_one(&said));
            let ended = talk.turns().nth(turns - 1);
            held.chains
                .extend(ended.map(|turn| (counted(&turn.chain, &said), turn.call_seconds.clone())));
            said.clear();
        }
        if has_ended {
            break;
        }
        let later: Vec<Message> = match talk.written().chain.steps.last() {
            Some(step) => step
                .calls
                .iter()
                .map(|call| Message::new("tool", call.reply.as_str()))
                .collect(),
            None => talk.written().messages.clone(),
        };
        if let Some(secret) = later
            .iter()
            .find_map(|message| first_secret(&Value::from(message.content.as_str()), ""))
            && !first.may_hold_secrets
        {
            let place = format!("what the tools reply to `{}`", row.id);
            return Err(EndpointError::Secret {
                place,
                id: row.id.clone(),
                secret,
            });
        }
        sent.messages.extend(later);
        question = Cow::Owned(form.later(first.row, first.sample, &sent, row)?);
    }
    held.unfinished = as_one(&said);
    held.scores = talk.turns().filter_map(|turn| turn.score.clone()).collect();
    Ok(Ok(held))
}

/// Fills in the server's token counts, where reported.
fn counted(chain: &ToolChain, said: &[Answer]) -> ToolChain {
    let mut chain = chain.clone();
    for (step, pair) in chain.steps.iter_mut().zip(said.windows(2)) {
        step.tokens = pair[0].tokens.unwrap_or_default();
        let read = pair[0]
            .prompt_tokens
            .zip(pair[0].tokens)
            .zip(pair[1].prompt_tokens);
        step.reply_tokens = read.map_or(0, |((before, written), after)| {
            after.saturating_sub(before + written)
        });
    }
    chain
}

/// The last answer, with counts and times of all.
fn as_one(said: &[Answer]) -> Option<Answer> {
    let (first, last) = (said.first()?, said.last()?);
    Some(Answer {
        text: last.text.clone(),
        prompt_tokens: said.iter().map(|answer| answer.prompt_tokens).sum(),
        tokens: said.iter().map(|answer| answer.tokens).sum(),
        truncated: last.truncated,
        seconds: said.iter().map(|answer| answer.seconds).sum(),
        attempts: said.iter().map(|answer| answer.attempts).sum(),
        begun: first.begun,
        logprobs: LogProbs::sum(said.iter().filter_map(|answer| answer.logprobs)),
        written: Vec::new(),
    })
}
