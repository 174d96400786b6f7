//! Reads keys, mouse and pasted text on its own thread, which releases the terminal while another program uses it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, poll as is_there, read};
use rustix::event::{PollFd, PollFlags, poll};

use crate::message::Message;

/// How long crossterm may wait for input that poll has announced.
const READ_TIMEOUT: Duration = Duration::from_millis(5);

/// How late a terminal's answer may come; its characters are not keys.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the thread may take to release the input; it may be in the middle of a key sequence.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(super) struct Input {
    wake: OwnedFd,
    requests: Sender<Request>,
    released: Receiver<()>,
}

#[derive(Debug)]
enum Request {
    Release,
    Resume,
}

impl Input {
    /// Reads until `on_message` returns false. `late_answer`: the terminal has not answered a query yet.
    ///
    /// # Errors
    /// The thread or the pipe cannot be created.
    pub(super) fn start(
        late_answer: bool,
        on_message: impl Fn(Message) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (woken, wake) = rustix::pipe::pipe()?;
        let (requests, receiver) = channel();
        let (release, released) = channel();
        let mut answer = LateAnswer {
            until: late_answer.then(|| Instant::now() + ANSWER_TIMEOUT),
            inside: false,
        };
        let reading = move || {
            loop {
                match wait(&woken) {
                    ReadyInput::Woken => {
                        if !wait_for_resume(&woken, &receiver, &release) {
                            return;
                        }
                    }
                    ReadyInput::Terminal => {
                        while let Ok(true) = is_there(READ_TIMEOUT) {
                            let Ok(event) = read() else { return };
                            if !answer.swallows(&event)
                                && message(event).is_some_and(|message| !on_message(message))
                            {
                                return;
                            }
                        }
                    }
                    ReadyInput::Gone => return,
                }
            }
        };
        std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(reading)?;
        Ok(Self {
            wake,
            requests,
            released,
        })
    }

    /// Releases the terminal's input until `resume`.
    pub(super) fn release(&self) {
        let is_sent = self.requests.send(Request::Release).is_ok()
            && rustix::io::write(&self.wake, b"!").is_ok();
        if is_sent {
            let _ = self.released.recv_timeout(RELEASE_TIMEOUT);
        }
    }

    pub(super) fn resume(&self) {
        let _ = self.requests.send(Request::Resume);
    }
}

enum ReadyInput {
    Terminal,
    Woken,
    Gone,
}

/// Blocks until there is input or a request.
fn wait(woken: &OwnedFd) -> ReadyInput {
    let input = io::stdin();
    loop {
        let mut polled = [
            PollFd::new(woken, PollFlags::IN),
            PollFd::new(&input, PollFlags::IN),
        ];
        if poll(&mut polled, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
            return ReadyInput::Gone;
        }
        let [of_pipe, of_terminal] = [polled[0].revents(), polled[1].revents()];
        if of_pipe.intersects(PollFlags::IN) {
            return ReadyInput::Woken;
        }
        if of_pipe.intersects(PollFlags::HUP)
            || of_terminal.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
        {
            return ReadyInput::Gone;
        }
        if of_terminal.intersects(PollFlags::IN) {
            return ReadyInput::Terminal;
        }
    }
}

/// Waits until reading resumes; false if the sender is gone.
fn wait_for_resume(woken: &OwnedFd, requests: &Receiver<Request>, release: &Sender<()>) -> bool {
    let mut taken = [0; 16];
    let _ = rustix::io::read(woken, &mut taken);
    loop {
        match requests.recv() {
            Ok(Request::Release) => _ = release.send(()),
            Ok(Request::Resume) => return true,
            Err(_) => return false,
        }
    }
}

/// The message for an event. Resizes come as SIGWINCH.
fn message(event: Event) -> Option<Message> {
    match event {
        Event::Key(key) => Some(Message::Key(key)),
        Event::Mouse(mouse) => Some(Message::Mouse(mouse)),
        Event::Paste(text) => Some(Message::Paste(text)),
        Event::Resize(..) | Event::FocusGained | Event::FocusLost => None,
    }
}

/// A late answer to the background colour query: `ESC ] 11;rgb:… ESC \` would be read as keys.
#[derive(Debug)]
struct LateAnswer {
    until: Option<Instant>,
    inside: bool,
}

impl LateAnswer {
    fn swallows(&mut self, event: &Event) -> bool {
        if self.until.is_none_or(|until| Instant::now() > until) {
            return false;
        }
        let Event::Key(KeyEvent {
            code, modifiers, ..
        }) = event
        else {
            return false;
        };
        let starts = *code == KeyCode::Char(']') && modifiers.contains(KeyModifiers::ALT);
        let ends = (*code == KeyCode::Char('\\') && modifiers.contains(KeyModifiers::ALT))
            || (*code == KeyCode::Char('g') && modifiers.contains(KeyModifiers::CONTROL));
        let swallows = starts || self.inside;
        self.inside = swallows && !ends;
        if swallows && ends {
            self.until = None;
        }
        swallows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_is_no_key() {
        let mut answer = LateAnswer {
            until: Some(Instant::now() + ANSWER_TIMEOUT),
            inside: false,
        };
        let mut check = |letter: char, modifiers, swallowed: bool| {
            assert_eq!(
                answer.swallows(&Event::Key(KeyEvent::new(KeyCode::Char(letter), modifiers))),
                swallowed,
                "{letter}"
            );
        };
        check('q', KeyModifiers::NONE, false);
        check(']', KeyModifiers::ALT, true);
        for letter in "11;rgb:1e1e/1e1e/2e2e".chars() {
            check(letter, KeyModifiers::NONE, true);
        }
        check('\\', KeyModifiers::ALT, true);
        check('q', KeyModifiers::NONE, false);
        check(']', KeyModifiers::ALT, false);
    }
}
