//! Answers the selected prompt by hand: calls are answered by the task's tools, the answer is scored. Nothing is trained
//! or kept.

use serde_json::Value;

use super::Prompts;
use super::by_hand::ByHand;
use crate::dataset::PromptRow;
use crate::message::{Command, Work};
use crate::prompts::{HandChain, HandConversation};
use crate::secrets::visible;
use crate::shared::Shared;
use crate::widgets::editor::Editor;
use crate::widgets::list_cursor::Cursor;

/// A talk that goes on, and its turns so far.
type Step = (Option<Box<HandConversation>>, Vec<HandChain>);

/// Why the row under the cursor cannot be answered.
pub(super) fn no_hand(prompts: &Prompts, shared: &Shared) -> Option<String> {
    let Some(open) = &shared.task else {
        return shared.no_task();
    };
    let no_tools = || {
        format!(
            "{} has no tools: describe one in [[tool]] of task.toml",
            open.task.name
        )
    };
    let unscored = || {
        shared
            .draft
            .unscored()
            .unwrap_or("the task is still loading")
            .to_owned()
    };
    let not_scored = || shared.scorer().is_none().then(unscored);
    let no_row = || {
        prompts
            .selected()
            .is_none()
            .then(|| "no row selected".to_owned())
    };
    let open_already = || {
        prompts
            .hand
            .is_some()
            .then(|| "a prompt is being answered".to_owned())
    };
    open.task
        .toolset()
        .is_none()
        .then(no_tools)
        .or_else(open_already)
        .or_else(no_row)
        .or_else(not_scored)
}

pub(super) fn no_send(prompts: &Prompts, shared: &Shared) -> Option<String> {
    let hand = prompts.hand.as_ref()?;
    let again = || {
        format!(
            "the conversation has ended: {} starts over",
            shared.key_of("prompts.hand.again")
        )
    };
    let busy = || hand.waiting.as_ref().map(|(what, _)| what.clone());
    hand.has_ended().then(again).or_else(busy)
}

pub(super) fn open(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let row = prompts.selected_row(shared).cloned();
    row.map_or_else(Vec::new, |row| begin(prompts, shared, row))
}

/// Begins with fresh tools.
pub(super) fn again(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let row = prompts.hand.as_ref().map(|hand| hand.row.clone());
    let Some(row) = row else { return Vec::new() };
    let mut commands = close(prompts);
    commands.extend(begin(prompts, shared, row));
    commands
}

fn begin(prompts: &mut Prompts, shared: &mut Shared, row: PromptRow) -> Vec<Command> {
    let (Some(open), Some(scorer)) = (shared.task.clone(), shared.scorer()) else {
        return Vec::new();
    };
    prompts.hand = Some(ByHand {
        row: row.clone(),
        editor: Editor::new("", false),
        is_typing: true,
        talk: None,
        definitions: Value::Null,
        turns: Vec::new(),
        waiting: Some(("the tools are being opened".to_owned(), shared.now_ms)),
        error: None,
        top: Cursor::default(),
    });
    let opened = move || {
        HandConversation::open(&open.task, scorer, &row)
            .map(Box::new)
            .map_err(|error| error.to_string())
    };
    vec![Work::once(
        "prompts.hand",
        opened,
        |prompts: &mut Prompts, _, opened| {
            let Some(hand) = &mut prompts.hand else {
                return opened.map_or_else(|_| Vec::new(), discard);
            };
            hand.waiting = None;
            match opened {
                Ok(talk) => {
                    hand.definitions = talk.definitions().clone();
                    (hand.turns, hand.talk) = (talk.turns().cloned().collect(), Some(talk));
                }
                Err(why) => (hand.error, hand.is_typing) = (Some(why), false),
            }
            Vec::new()
        },
    )]
}

pub(super) fn call(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let Some(hand) = &mut prompts.hand else {
        return Vec::new();
    };
    let text = hand.editor.text();
    let calls = hand.talk.as_ref().map(|talk| talk.read_calls(&text));
    match calls {
        Some(Ok(calls)) => {
            let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
            let what = format!("{} runs", visible(&names.join(", ")));
            send(hand, shared, what, move |talk| talk.call(calls))
        }
        Some(Err(why)) => shared.complain(why),
        None => Vec::new(),
    }
}

pub(super) fn answer(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let Some(hand) = &mut prompts.hand else {
        return Vec::new();
    };
    let text = hand.editor.text();
    send(
        hand,
        shared,
        "the answer is scored".to_owned(),
        move |talk| talk.answer(&text),
    )
}

fn send(
    hand: &mut ByHand,
    shared: &Shared,
    what: String,
    act: impl FnOnce(&mut HandConversation) + Send + 'static,
) -> Vec<Command> {
    let Some(mut talk) = hand.talk.take() else {
        return Vec::new();
    };
    hand.waiting = Some((what, shared.now_ms));
    let work = move || -> Step {
        act(&mut talk);
        let (turns, goes_on) = (
            talk.turns().cloned().collect(),
            talk.written().score.is_none(),
        );
        // Tools end here: that may take a moment.
        (goes_on.then_some(talk), turns)
    };
    vec![Work::once(
        "prompts.hand",
        work,
        |prompts: &mut Prompts, _, (talk, turns): Step| {
            let Some(hand) = &mut prompts.hand else {
                return talk.map_or_else(Vec::new, discard);
            };
            hand.waiting = None;
            hand.is_typing = talk.is_some();
            hand.editor = Editor::new("", false);
            (hand.talk, hand.turns) = (talk, turns);
            // Text goes no further than its end.
            hand.top = Cursor {
                index: usize::from(u16::MAX),
            };
            Vec::new()
        },
    )]
}

fn discard(talk: Box<HandConversation>) -> Vec<Command> {
    vec![Work::once(
        "prompts.hand.close",
        move || drop(talk),
        |_: &mut Prompts, _, ()| Vec::new(),
    )]
}

/// Goes from the editor to the text above it, from there out of the pane. A tool that is still called ends with its call.
pub(super) fn leave(prompts: &mut Prompts, _: &mut Shared) -> Vec<Command> {
    match &mut prompts.hand {
        Some(hand) if hand.is_typing && hand.waiting.is_none() && !hand.turns.is_empty() => {
            hand.is_typing = false;
            Vec::new()
        }
        _ => close(prompts),
    }
}

fn close(prompts: &mut Prompts) -> Vec<Command> {
    prompts
        .hand
        .take()
        .and_then(|hand| hand.talk)
        .map_or_else(Vec::new, discard)
}

pub(super) fn edit(prompts: &mut Prompts, _: &mut Shared) -> Vec<Command> {
    if let Some(hand) = &mut prompts.hand {
        hand.is_typing = true;
    }
    Vec::new()
}
