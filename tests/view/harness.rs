//! A stage for the view: messages go in, work is done at once, pictures come out as text. No thread, no terminal, no
//! clock.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crossterm::event::{KeyEvent, MouseButton, MouseEvent, MouseEventKind};
use grpo_tui::run::{RunFolders, RunState, State};
use grpo_tui::view::key_chord::Chord;
use grpo_tui::view::message::{RunNews, Senders, Update, WorkResult};
use grpo_tui::view::{Command, Message, Model, Options, draw, start, update};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

/// A view on a folder of its own.
pub(super) struct Stage {
    pub(super) model: Model,
    /// Commands that the stage does not execute: copies, notifications, editors, quitting.
    pub(super) commands: Vec<String>,
    /// Milliseconds since 1970, for every message.
    pub(super) now_ms: u64,
    pub(super) folder: tempfile::TempDir,
    senders: Senders,
}

impl Stage {
    /// The embedded task, no runs.
    pub(super) fn new(columns: u16, rows: u16) -> Self {
        Self::with(columns, rows, |_| {})
    }

    /// The same after `prepare` had its way with the options; runs are looked for in the folder's `runs`.
    pub(super) fn with(columns: u16, rows: u16, prepare: impl FnOnce(&mut Options)) -> Self {
        // A path of always the same length: pictures show it.
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let run_folders = RunFolders::discover(Some(&folder.path().join("runs")), folder.path());
        let mut options = Options::at(
            folder.path().to_owned(),
            run_folders,
            folder.path().join("data"),
        );
        options.slots = Some(folder.path().join("slots"));
        prepare(&mut options);
        let mut stage = Self {
            model: Model::new(options),
            commands: Vec::new(),
            now_ms: 1_800_000_000_000,
            folder,
            senders: Senders::default(),
        };
        stage.send(Message::Resize(columns, rows));
        let commands = start(&mut stage.model);
        stage.carry_out(commands);
        stage
    }

    /// A message, and everything that follows from it.
    pub(super) fn send(&mut self, message: Message) {
        let commands = update::update(&mut self.model, self.now_ms, message);
        self.carry_out(commands);
    }

    /// Lets time pass, then ticks.
    pub(super) fn tick_after(&mut self, milliseconds: u64) {
        self.now_ms += milliseconds;
        self.send(Message::Tick);
    }

    /// Keys by their names, such as `ctrl-p s t o enter`.
    pub(super) fn keys(&mut self, keys: &str) -> &mut Self {
        for key in keys.split_whitespace() {
            let chord = Chord::parse(key).unwrap_or_else(|| panic!("no key is called {key}"));
            self.send(Message::Key(KeyEvent::new(chord.code, chord.modifiers)));
        }
        self
    }

    /// Runs an action by its title in the palette.
    pub(super) fn command(&mut self, title: &str) -> &mut Self {
        self.keys("ctrl-p").types(title).keys("enter")
    }

    /// Text, letter by letter.
    pub(super) fn types(&mut self, text: &str) -> &mut Self {
        for letter in text.chars() {
            let code = if letter == '\n' {
                crossterm::event::KeyCode::Enter
            } else {
                crossterm::event::KeyCode::Char(letter)
            };
            self.send(Message::Key(KeyEvent::new(
                code,
                crossterm::event::KeyModifiers::NONE,
            )));
        }
        self
    }

    /// A click.
    pub(super) fn click(&mut self, column: u16, row: u16) {
        self.mouse(MouseEventKind::Down(MouseButton::Left), column, row);
    }

    pub(super) fn mouse(&mut self, kind: MouseEventKind, column: u16, row: u16) {
        self.send(Message::Mouse(MouseEvent {
            kind,
            column,
            row,
            modifiers: crossterm::event::KeyModifiers::NONE,
        }));
    }

    /// What is drawn, as text without colours; trailing blanks cut off.
    pub(super) fn screen(&self) -> String {
        let buffer = self.buffer();
        let lines = (0..buffer.area.height).map(|row| {
            let line: String = (0..buffer.area.width)
                .map(|column| buffer[(column, row)].symbol())
                .collect();
            line.trim_end().to_owned()
        });
        let stable = self.folder.path().display().to_string();
        lines
            .collect::<Vec<_>>()
            .join("\n")
            .replace(&stable, "FOLDER")
    }

    /// What is drawn, cell by cell.
    pub(super) fn buffer(&self) -> ratatui::buffer::Buffer {
        let (columns, rows) = self.model.shared.size;
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal
            .draw(|frame| draw::draw(&self.model, frame))
            .unwrap();
        terminal.backend().buffer().clone()
    }

    /// Whether the screen holds a text.
    pub(super) fn shows(&self, text: &str) -> bool {
        self.screen().contains(text)
    }

    /// What a screen does by itself, as if a key had asked for it.
    pub(super) fn act(&mut self, act: impl FnOnce(&mut Model) -> Vec<Command>) {
        let commands = act(&mut self.model);
        let commands = update::carry_out(&mut self.model, commands);
        self.carry_out(commands);
    }

    pub(super) fn carry_out(&mut self, commands: Vec<Command>) {
        let mut queue: VecDeque<Command> = commands.into();
        while let Some(command) = queue.pop_front() {
            let messages = match command {
                Command::Work(work) => {
                    let (put, pieces) = std::sync::mpsc::channel::<Update>();
                    let (key, generation) = (work.key, work.generation);
                    let sender = self
                        .senders
                        .begin(&work, move |apply| put.send(apply).is_ok());
                    (work.job)(&sender);
                    drop(sender);
                    let result = |apply| {
                        Message::Work(WorkResult {
                            key,
                            generation,
                            apply,
                        })
                    };
                    pieces
                        .into_iter()
                        .map(|apply| result(Some(apply)))
                        .chain([result(None)])
                        .collect()
                }
                Command::Watch(run) => news(&run)
                    .into_iter()
                    .map(|news| Message::Run(run.clone(), news))
                    .collect(),
                Command::Unwatch(_) => Vec::new(),
                other => {
                    self.commands.push(format!("{other:?}"));
                    Vec::new()
                }
            };
            for message in messages {
                queue.extend(update::update(&mut self.model, self.now_ms, message));
            }
        }
    }
}

fn news(run: &Path) -> Vec<RunNews> {
    let log = match RunState::read(run) {
        Ok(state) => RunNews::Opened(Box::new(state)),
        Err(error) => RunNews::Unreadable(error.to_string()),
    };
    vec![RunNews::State(State::observe(run)), log]
}

/// Writes a shell script that can be run at once; its path. Another process writes it: a file that this one has open
/// may be inherited by a child that another test just starts, and the system runs nothing that somebody has open for
/// writing.
pub(super) fn script(path: &Path, text: &str) -> PathBuf {
    let write = [
        "-c",
        "printf '%s\\n' '#!/bin/sh' \"$2\" > \"$1\" && chmod 700 \"$1\"",
        "sh",
    ];
    assert!(
        std::process::Command::new("sh")
            .args(write)
            .arg(path)
            .arg(text)
            .status()
            .unwrap()
            .success()
    );
    path.to_owned()
}

/// The recorded run that comes with the program.
pub(super) fn finished_run() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/finished-run")
}
