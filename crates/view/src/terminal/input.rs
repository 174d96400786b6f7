//! Reads keys, mouse and pasted text on its own thread, which releases the terminal while another program uses it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crossterm::event::Event;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::key_parser::KeyParser;
use crate::message::Message;

/// How long the thread may take to release the input.
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
    /// Reads until `on_message` returns false. `before`: bytes that were read already.
    ///
    /// # Errors
    /// The thread or the pipe cannot be created.
    pub(super) fn start(
        before: Vec<u8>,
        on_message: impl Fn(Message) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (woken, wake) = rustix::pipe::pipe()?;
        let (requests, receiver) = channel();
        let (release, released) = channel();
        let reading = move || {
            let mut parser = KeyParser::default();
            let mut events = parser.push(&before);
            loop {
                for message in std::mem::take(&mut events).into_iter().filter_map(message) {
                    if !on_message(message) {
                        return;
                    }
                }
                events = match wait(&woken, parser.timeout()) {
                    ReadyInput::Woken => {
                        if !wait_for_resume(&woken, &receiver, &release) {
                            return;
                        }
                        parser = KeyParser::default();
                        Vec::new()
                    }
                    ReadyInput::Terminal => {
                        let mut bytes = [0; 4096];
                        match rustix::io::read(io::stdin(), &mut bytes) {
                            Ok(0) => return,
                            Ok(count) => parser.push(&bytes[..count]),
                            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Vec::new(),
                            Err(_) => return,
                        }
                    }
                    ReadyInput::Nothing => parser.expire(),
                    ReadyInput::Gone => return,
                };
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
    Nothing,
    Gone,
}

fn wait(woken: &OwnedFd, timeout: Option<Duration>) -> ReadyInput {
    let input = io::stdin();
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    loop {
        let mut polled = [
            PollFd::new(woken, PollFlags::IN),
            PollFd::new(&input, PollFlags::IN),
        ];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(0) => return ReadyInput::Nothing,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return ReadyInput::Gone,
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

fn message(event: Event) -> Option<Message> {
    match event {
        Event::Key(key) => Some(Message::Key(key)),
        Event::Mouse(mouse) => Some(Message::Mouse(mouse)),
        Event::Paste(text) => Some(Message::Paste(text)),
        Event::Resize(..) | Event::FocusGained | Event::FocusLost => None,
    }
}
