//! Keys, mouse and pasted text are read on a thread of their own, which releases the terminal while another program
//! uses it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, poll as is_there, read};
use rustix::event::{PollFd, PollFlags, poll};

use crate::view::message::Message;

/// How long crossterm may look for what the system has said is there.
const LOOK: Duration = Duration::from_millis(5);

/// How long an answer of the terminal may be late; its letters are no keys.
const LATE: Duration = Duration::from_secs(3);

/// How long the thread has to let go; it may be in the middle of a key's bytes.
const LET_GO: Duration = Duration::from_millis(300);

/// The thread that reads.
#[derive(Debug)]
pub(super) struct Input {
    wake: OwnedFd,
    say: Sender<Ask>,
    let_go: Receiver<()>,
}

#[derive(Debug)]
enum Ask {
    LetGo,
    GoOn,
}

impl Input {
    /// Read until `tell` says that nobody listens. `late_answer`: the terminal was asked something that it has not
    /// answered yet.
    ///
    /// # Errors
    /// Where the system gives no thread or pipe.
    pub(super) fn start(late_answer: bool, tell: impl Fn(Message) -> bool + Send + 'static) -> io::Result<Self> {
        let (woken, wake) = rustix::pipe::pipe()?;
        let (say, said) = channel();
        let (tell_let_go, let_go) = channel();
        let mut answer = LateAnswer { until: late_answer.then(|| Instant::now() + LATE), inside: false };
        let reading = move || {
            loop {
                match wait(&woken) {
                    Ready::Woken => {
                        if !hold(&woken, &said, &tell_let_go) {
                            return;
                        }
                    }
                    Ready::Terminal => {
                        while let Ok(true) = is_there(LOOK) {
                            let Ok(event) = read() else { return };
                            if !answer.swallows(&event) && message(event).is_some_and(|message| !tell(message)) {
                                return;
                            }
                        }
                    }
                    Ready::Gone => return,
                }
            }
        };
        std::thread::Builder::new().name("input".to_owned()).spawn(reading)?;
        Ok(Self { wake, say, let_go })
    }

    /// Let go of the terminal's input until `go_on`.
    pub(super) fn let_go(&self) {
        let asked = self.say.send(Ask::LetGo).is_ok() && rustix::io::write(&self.wake, b"!").is_ok();
        if asked {
            let _ = self.let_go.recv_timeout(LET_GO);
        }
    }

    /// Read again.
    pub(super) fn go_on(&self) {
        let _ = self.say.send(Ask::GoOn);
    }
}

enum Ready {
    Terminal,
    Woken,
    Gone,
}

/// Blocks until there is something to read or to do.
fn wait(woken: &OwnedFd) -> Ready {
    let input = io::stdin();
    loop {
        let mut asked = [PollFd::new(woken, PollFlags::IN), PollFd::new(&input, PollFlags::IN)];
        if poll(&mut asked, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
            return Ready::Gone;
        }
        let [of_pipe, of_terminal] = [asked[0].revents(), asked[1].revents()];
        if of_pipe.intersects(PollFlags::IN) {
            return Ready::Woken;
        }
        if of_pipe.intersects(PollFlags::HUP)
            || of_terminal.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
        {
            return Ready::Gone;
        }
        if of_terminal.intersects(PollFlags::IN) {
            return Ready::Terminal;
        }
    }
}

/// Waits until it may continue; false when nobody will say so any more.
fn hold(woken: &OwnedFd, said: &Receiver<Ask>, tell_let_go: &Sender<()>) -> bool {
    let mut taken = [0; 16];
    let _ = rustix::io::read(woken, &mut taken);
    loop {
        match said.recv() {
            Ok(Ask::LetGo) => _ = tell_let_go.send(()),
            Ok(Ask::GoOn) => return true,
            Err(_) => return false,
        }
    }
}

/// What an event means to the view. The size comes with its signal.
fn message(event: Event) -> Option<Message> {
    match event {
        Event::Key(key) => Some(Message::Key(key)),
        Event::Mouse(mouse) => Some(Message::Mouse(mouse)),
        Event::Paste(text) => Some(Message::Paste(text)),
        Event::Resize(..) | Event::FocusGained | Event::FocusLost => None,
    }
}

/// An answer to a question about the ground's colour that comes after it was given up: `ESC ] 11;rgb:… ESC \` would be
/// read as keys.
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
        let Event::Key(KeyEvent { code, modifiers, .. }) = event else { return false };
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
        let mut answer = LateAnswer { until: Some(Instant::now() + LATE), inside: false };
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
