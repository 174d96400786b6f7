//! Scripts for linear mode without a keyboard: lines that press keys, perform actions, type text or wait.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::app;
use crate::key_chord::Chord;
use crate::message::Message;

#[derive(Debug)]
pub(super) enum Instruction {
    /// A key, an action, or the letters of a text.
    Send(Vec<Message>),
    /// Waits until this text is shown.
    Wait(String),
    /// A malformed line, with the reason: ends the session.
    Fail(String),
}

/// The instructions that have been read and not yet carried out.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) left: VecDeque<Instruction>,
    pub(super) has_ended: bool,
    lines: usize,
}

impl Script {
    /// Reads standard input on a thread of its own; `None` is its end. Stops when `on_line` returns false.
    pub(super) fn start(
        on_line: impl Fn(Option<String>) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let reading = move || {
            let lines = io::stdin().lock().lines().map_while(Result::ok);
            _ = lines.map(Some).chain([None]).all(on_line);
        };
        std::thread::Builder::new()
            .name("script".to_owned())
            .spawn(reading)?;
        Ok(Self::default())
    }

    pub(super) fn add(&mut self, line: Option<&str>) {
        let Some(line) = line else {
            self.has_ended = true;
            return;
        };
        self.lines += 1;
        match read(line) {
            Ok(instructions) => self.left.extend(instructions),
            Err(error) => self
                .left
                .push_back(Instruction::Fail(format!("line {}: {error}", self.lines))),
        }
    }
}

fn read(line: &str) -> Result<Vec<Instruction>, String> {
    let (word, rest) = line.trim_start().split_once(' ').unwrap_or((line, ""));
    match word {
        "#" => Ok(Vec::new()),
        "type" => Ok(vec![Instruction::Send(
            rest.chars()
                .map(|letter| key(KeyCode::Char(letter)))
                .collect(),
        )]),
        "wait" => Ok(vec![Instruction::Wait(rest.trim().to_owned())]),
        _ => line
            .split_whitespace()
            .map(|word| Ok(Instruction::Send(vec![message(word)?])))
            .collect(),
    }
}

fn key(code: KeyCode) -> Message {
    Message::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

/// An action by its id, or a key as in keymap files.
fn message(word: &str) -> Result<Message, String> {
    let key = |chord: Chord| Message::Key(KeyEvent::new(chord.code, chord.modifiers));
    let found = app::action(word)
        .map(Message::Perform)
        .or_else(|| Chord::parse(word).map(key));
    found.ok_or_else(|| {
        format!("unknown key or action `{word}` (`grpo-tui keys` lists them): write `type {word}` to type it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_keys_actions_text_and_waits() {
        let check = |line: &str, expected: &str| {
            let told = |instruction: &Instruction| match instruction {
                Instruction::Wait(text) | Instruction::Fail(text) => format!("wait {text}"),
                Instruction::Send(messages) => messages
                    .iter()
                    .map(|message| match message {
                        Message::Key(event) => Chord::from_event(*event).to_string(),
                        Message::Perform(action) => format!("<{}>", action.id),
                        other => format!("{other:?}"),
                    })
                    .collect(),
            };
            let found =
                read(line).map(|found| found.iter().map(told).collect::<Vec<_>>().join(" "));
            assert_eq!(
                found.unwrap_or_else(|error| error
                    .split(' ')
                    .take(5)
                    .collect::<Vec<_>>()
                    .join(" ")),
                expected
            );
        };
        check("j j  enter", "j j enter");
        check("5", "5");
        check("live.pane.log ctrl-p", "<live.pane.log> ctrl-p");
        check("type a b", "aspaceb");
        check(
            "wait finished: all steps done ",
            "wait finished: all steps done",
        );
        check("# a comment", "");
        check("", "");
        check("#", "");
        check("quti", "unknown key or action `quti`");
    }
}
