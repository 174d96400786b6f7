//! Executes the view's commands: work, followed runs, the clipboard, notifications, the user's editor, the shell's job
//! control.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::event_loop::{LAST_PICTURE, LoopEvent, View};
use super::signals::Asked;
use super::{editor, follow, guard, osc, panic};
use crate::format::bytes;
use crate::run::State;
use crate::view::message::{Command, Message, Update, Work, WorkResult};
use crate::view::settings::Notifications;
use crate::view::subprocess;

/// A process that continues hears of it by a signal as well.
const SAME_CONTINUATION: Duration = Duration::from_millis(500);

/// So many of the newest runs are searched for an active one.
const LOOKED_AT: usize = 50;

impl View {
    /// Does what the view asks.
    pub(super) fn carry_out(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Quit => self.leaving = Some(self.leaving.unwrap_or(0)),
                Command::Work(work) => self.begin(work),
                Command::Watch(run) => {
                    let (tell, path) = (self.tell.clone(), run.clone());
                    // Gone, the loop has dropped what is followed.
                    let following = follow::start(run.clone(), move |news| {
                        _ = tell.send(LoopEvent::Message(Message::Run(path.clone(), news)))
                    });
                    self.followed.insert(run, following);
                }
                Command::Unwatch(run) => drop(self.followed.remove(&run)),
                Command::Suspend => self.suspend(),
                Command::Copy(text) => self.copy(&text),
                Command::Notify { title, text, urgent } => self.notify(&title, &text, urgent),
                Command::Edit { path, line } => self.lend(path, line),
                Command::Redraw => self.redraw(),
                // Carried out by `update`, within the view.
                Command::GoTo(_) | Command::ShowRun(_) | Command::Compare(_) | Command::Changed(_) => {}
            }
        }
    }

    pub(super) fn signal(&mut self, asked: Asked) {
        match asked {
            Asked::End(code) => self.leaving = Some(code),
            // Ctrl-C belongs to the program that has the terminal.
            Asked::Interrupt if self.lent => {}
            Asked::Interrupt => self.leaving = Some(130),
            Asked::Stop if self.lent => guard::stop(),
            Asked::Stop => self.suspend(),
            Asked::GoOn if self.lent || self.continued.is_some_and(|time| time.elapsed() < SAME_CONTINUATION) => {}
            Asked::GoOn => self.enter(),
            Asked::Size => self.resize(),
        }
    }

    /// Work on a thread of its own. A bug in it is a complaint, not the end.
    fn begin(&self, work: Work) {
        let (tell, done, data) = (self.tell.clone(), self.tell.clone(), self.model.shared.options.data.clone());
        let (key, generation) = (work.key, work.generation);
        let sender = self.senders.begin(&work, move |apply| {
            let worked = WorkResult { key, generation, apply: Some(apply) };
            tell.send(LoopEvent::Message(Message::Work(worked))).is_ok()
        });
        let job = work.job;
        let working = move || {
            if let Err(panicked) = catch_unwind(AssertUnwindSafe(|| job(&sender))) {
                let text = panic::sentence(&format!("task `{key}`"), &data, panicked.as_ref());
                sender.send(move |_: &mut (), shared| {
                    shared.complain(text);
                    Vec::new()
                });
            }
            _ = done.send(LoopEvent::Message(Message::Work(WorkResult { key, generation, apply: None })));
        };
        if let Err(error) = std::thread::Builder::new().name(key.to_owned()).spawn(working) {
            let text = format!("cannot start a thread for `{key}`: {error}");
            let apply = Update::new(move |_: &mut (), shared| {
                shared.complain(text);
                Vec::new()
            });
            let tell =
                |apply| _ = self.tell.send(LoopEvent::Message(Message::Work(WorkResult { key, generation, apply })));
            tell(Some(apply));
            tell(None);
        }
    }

    fn copy(&mut self, text: &str) {
        match osc::copy(text, &self.model.shared.options.appearance.capability) {
            Some(sequence) => {
                self.besides.extend(sequence);
                self.model.shared.say(format!("{} copied to clipboard", bytes(text.len() as u64)));
            }
            None => {
                let (length, most) = (bytes(text.len() as u64), bytes(osc::LONGEST_COPY_BYTES as u64));
                self.model.shared.complain(format!("{length} exceed the clipboard limit of {most}"));
            }
        }
    }

    fn notify(&mut self, title: &str, text: &str, urgent: bool) {
        let sentence = if text.is_empty() { title.to_owned() } else { format!("{title}: {text}") };
        if self.bells.may(Instant::now(), &sentence, urgent) {
            match self.model.shared.options.notifications {
                Notifications::All => {
                    self.besides.extend(osc::notify(title, text, &self.model.shared.options.appearance.capability))
                }
                Notifications::Bell => self.besides.push(b'\x07'),
                Notifications::None => {}
            }
        }
    }

    /// Stop as a job of the shell, with the terminal as it was; resume when continued.
    fn suspend(&mut self) {
        if let Some(why) = guard::cannot_be_suspended() {
            return self.model.shared.complain(why);
        }
        self.writer.finish(LAST_PICTURE);
        guard::leave();
        subprocess::signal_children(Signal::STOP);
        guard::stop();
        subprocess::signal_children(Signal::CONT);
        self.continued = Some(Instant::now());
        self.enter();
    }

    /// The terminal is the view's again.
    fn enter(&mut self) {
        if let Err(error) = guard::enter(self.model.shared.options.mouse) {
            self.model.shared.complain(format!("cannot restore the terminal: {error}"));
        }
        self.redraw();
        self.resize();
    }

    fn resize(&mut self) {
        if let Some((columns, rows)) = guard::size() {
            self.message(Message::Resize(columns, rows));
        }
    }

    /// The terminal is the editor's until that ends; runs are followed meanwhile.
    fn lend(&mut self, path: PathBuf, line: usize) {
        if self.lent {
            return;
        }
        self.writer.finish(LAST_PICTURE);
        self.input.let_go();
        guard::leave();
        self.lent = true;
        let editor = editor::chosen();
        match editor::command(&editor, &path, line).spawn() {
            Ok(mut child) => {
                let tell = self.tell.clone();
                std::thread::spawn(move || _ = tell.send(LoopEvent::Edited(path, child.wait())));
            }
            Err(error) => self.take_back(path, Err(error)),
        }
    }

    /// The editor has ended.
    pub(super) fn take_back(&mut self, path: PathBuf, ended: io::Result<ExitStatus>) {
        self.lent = false;
        self.enter();
        self.input.go_on();
        let how = match ended {
            Ok(status) if status.success() => None,
            // 127: the shell that starts it found no such program.
            Ok(status) if status.code() == Some(127) => Some("not found: set VISUAL or EDITOR".to_owned()),
            Ok(status) => Some(format!("exited with {status}: using the file as it is")),
            Err(error) => Some(format!("cannot start: {error}")),
        };
        if let Some(how) = how {
            self.model.shared.complain(format!("the editor `{}` {how}", editor::chosen()));
        }
        self.message(Message::Edited(path));
    }

    /// Ids of active runs, which continue without the view.
    pub(super) fn live_runs(&self) -> Vec<String> {
        let runs = self.model.shared.options.run_folders.list().into_iter().take(LOOKED_AT);
        let live = runs.filter(|(path, _)| State::observe(path).is_some_and(|state| !state.status.is_ended()));
        live.filter_map(|(path, _)| path.file_name().map(|name| name.to_string_lossy().into_owned())).collect()
    }
}
