//! Executes the view's commands: background work, followed runs, clipboard, notifications, the external editor, job
//! control.

use std::io::{self, IsTerminal};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::event_loop::{LAST_FRAME, LoopEvent, UserInput, View, taken};
use super::signals::SignalEvent;
use super::{editor, follow, guard, osc, panic};
use crate::format::bytes;
use crate::message::{Command, Message, Update, Work, WorkResult};
use crate::run::State;
use crate::settings::Notifications;
use crate::subprocess;

/// A second continuation within this time is the same one: SIGCONT arrives after `guard::stop` has returned.
const SAME_CONTINUATION: Duration = Duration::from_millis(500);

/// How many of the newest runs are searched for active ones.
const MAX_RUNS: usize = 50;

impl View {
    pub(super) fn carry_out(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Quit => self.exit_code = Some(self.exit_code.unwrap_or(0)),
                Command::Work(work) => self.begin(work),
                Command::Watch(run) => {
                    let (sender, path) = (self.sender.clone(), run.clone());
                    // A closed channel means that the loop has ended.
                    let following = follow::start(run.clone(), move |news| {
                        _ = sender.send(LoopEvent::Message(Message::Run(path.clone(), news)))
                    });
                    self.followed.insert(run, following);
                }
                Command::Unwatch(run) => drop(self.followed.remove(&run)),
                Command::Suspend => self.suspend(),
                Command::Copy(text) => self.copy(&text),
                Command::Notify {
                    title,
                    text,
                    urgent,
                } => self.notify(&title, &text, urgent),
                Command::Edit { path, line } => self.open_editor(path, line),
                Command::Redraw => self.redraw(),
                // Executed by `update`.
                Command::GoTo(_)
                | Command::ShowRun(_)
                | Command::Compare(_)
                | Command::Perform(_)
                | Command::Changed(_) => {}
            }
        }
    }

    pub(super) fn signal(&mut self, event: SignalEvent) {
        match event {
            SignalEvent::Exit(code) => self.exit_code = Some(code),
            // Ctrl-C belongs to the program that has the terminal.
            SignalEvent::Interrupt if self.in_editor => {}
            SignalEvent::Interrupt => self.exit_code = Some(130),
            SignalEvent::Suspend if self.in_editor => guard::stop(),
            SignalEvent::Suspend => self.suspend(),
            SignalEvent::Continue
                if self.in_editor
                    || self
                        .continued
                        .is_some_and(|time| time.elapsed() < SAME_CONTINUATION) => {}
            SignalEvent::Continue => self.enter(),
            SignalEvent::Resize => self.resize(),
        }
    }

    /// Runs work on its own thread. A panic becomes an error notice.
    fn begin(&mut self, work: Work) {
        match self.is_asked {
            true => self.asked.insert(work.key),
            false => self.asked.remove(work.key),
        };
        let (events, done, data) = (
            self.sender.clone(),
            self.sender.clone(),
            self.model.shared.options.data.clone(),
        );
        let (key, generation) = (work.key, work.generation);
        let sender = self.senders.begin(&work, move |apply| {
            let result = WorkResult {
                key,
                generation,
                apply: Some(apply),
            };
            events
                .send(LoopEvent::Message(Message::Work(result)))
                .is_ok()
        });
        let job = work.job;
        let working = move || {
            if let Err(panicked) = catch_unwind(AssertUnwindSafe(|| job(&sender))) {
                let text = panic::sentence(&format!("task `{key}`"), &data, panicked.as_ref());
                sender.send(move |_: &mut (), shared| shared.complain(text));
            }
            _ = done.send(LoopEvent::Message(Message::Work(WorkResult {
                key,
                generation,
                apply: None,
            })));
        };
        if let Err(error) = std::thread::Builder::new()
            .name(key.to_owned())
            .spawn(working)
        {
            let text = format!("cannot start a thread for `{key}`: {error}");
            let apply = Update::new(move |_: &mut (), shared| shared.complain(text));
            let send = |apply| {
                _ = self
                    .sender
                    .send(LoopEvent::Message(Message::Work(WorkResult {
                        key,
                        generation,
                        apply,
                    })))
            };
            send(Some(apply));
            send(None);
        }
    }

    fn copy(&mut self, text: &str) {
        if !io::stdout().is_terminal() {
            self.model
                .shared
                .complain("cannot copy: standard output is not a terminal");
            return;
        }
        match osc::copy(text, &self.model.shared.options.appearance.capability) {
            Some(sequence) => {
                self.sequences.extend(sequence);
                self.model
                    .shared
                    .say(format!("{} copied to clipboard", bytes(text.len() as u64)));
            }
            None => {
                let (length, most) = (bytes(text.len() as u64), bytes(osc::MAX_COPY_BYTES as u64));
                self.model
                    .shared
                    .complain(format!("{length} exceed the clipboard limit of {most}"));
            }
        }
    }

    fn notify(&mut self, title: &str, text: &str, urgent: bool) {
        // Linear mode prints the notice as a line.
        if self.is_linear() {
            return;
        }
        let sentence = if text.is_empty() {
            title.to_owned()
        } else {
            format!("{title}: {text}")
        };
        if self.throttle.may(Instant::now(), &sentence, urgent) {
            match self.model.shared.options.notifications {
                Notifications::All => self.sequences.extend(osc::notify(
                    title,
                    text,
                    &self.model.shared.options.appearance.capability,
                )),
                Notifications::Bell => self.sequences.push(b'\x07'),
                Notifications::None => {}
            }
        }
    }

    /// Stops as a job of the shell with the terminal restored, and resumes when continued.
    fn suspend(&mut self) {
        if let Some(why) = guard::cannot_be_suspended() {
            self.model.shared.complain(why);
            return;
        }
        self.writer.finish(LAST_FRAME);
        guard::leave();
        subprocess::signal_children(Signal::STOP);
        guard::stop();
        subprocess::signal_children(Signal::CONT);
        self.continued = Some(Instant::now());
        self.enter();
    }

    fn enter(&mut self) {
        if let Err(error) = guard::enter(taken(&self.model.shared.options)) {
            self.model
                .shared
                .complain(format!("cannot restore the terminal: {error}"));
        }
        self.redraw();
        self.resize();
    }

    fn resize(&mut self) {
        if let Some((columns, rows)) = guard::size().filter(|_| !self.is_linear()) {
            self.message(Message::Resize(columns, rows));
        }
    }

    /// Gives the terminal up for another program; returns whether it could.
    fn release_terminal(&mut self, what: &str) -> bool {
        if self.in_editor {
            return false;
        }
        let UserInput::Keyboard(input) = &self.input else {
            let text = format!("cannot open {what}: standard input is not a terminal");
            self.model.shared.complain(text);
            return false;
        };
        self.writer.finish(LAST_FRAME);
        input.release();
        guard::leave();
        self.in_editor = true;
        true
    }

    fn take_terminal(&mut self) {
        self.in_editor = false;
        self.enter();
        if let UserInput::Keyboard(input) = &self.input {
            input.resume();
        }
    }

    /// Hands the terminal to the editor until it exits; runs are still followed.
    fn open_editor(&mut self, path: PathBuf, line: usize) {
        if !self.release_terminal("the editor") {
            return;
        }
        let editor = editor::chosen();
        match editor::command(&editor, &path, line).spawn() {
            Ok(mut child) => {
                let sender = self.sender.clone();
                std::thread::spawn(move || _ = sender.send(LoopEvent::Edited(path, child.wait())));
            }
            Err(error) => self.close_editor(path, Err(error)),
        }
    }

    pub(super) fn close_editor(&mut self, path: PathBuf, ended: io::Result<ExitStatus>) {
        self.take_terminal();
        let how = match ended {
            Ok(status) if status.success() => None,
            // 127: the shell found no such program.
            Ok(status) if status.code() == Some(127) => {
                Some("not found: set VISUAL or EDITOR".to_owned())
            }
            Ok(status) => Some(format!("exited with {status}: using the file as it is")),
            Err(error) => Some(format!("cannot start: {error}")),
        };
        if let Some(how) = how {
            self.model
                .shared
                .complain(format!("the editor `{}` {how}", editor::chosen()));
        }
        self.message(Message::Edited(path));
    }

    pub(super) fn live_runs(&self) -> Vec<String> {
        let runs = self
            .model
            .shared
            .options
            .run_folders
            .list()
            .into_iter()
            .take(MAX_RUNS);
        let live = runs
            .filter(|(path, _)| State::observe(path).is_some_and(|state| !state.status.is_ended()));
        live.filter_map(|(path, _)| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
        })
        .collect()
    }
}
