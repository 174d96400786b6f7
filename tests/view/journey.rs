//! Whole ways through the program in a terminal of its own, with the real engine, each told as what a user does and
//! then must see. The newcomer's run trains; the others open the recorded run, and what they start trains at night.

mod drifting_run;
mod linear;
mod mouse;
mod newcomer;
mod own_task;
mod schema_edit;
mod schema_to_comparison;
mod small_terminal;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossterm::event::{KeyCode, KeyModifiers};
use grpo_tui::view::key_chord::Chord;
use unicode_width::UnicodeWidthStr;

use super::pty_session::{SCREEN_TIMEOUT, Session, Start};
use crate::program::{copy_tree, sample_data, sample_task};

/// A short run with its evals, on a machine that is busy with other tests.
const RUN_PATIENCE: Duration = Duration::from_secs(300);

/// Settings of a run that takes seconds, for the `[train]` of a task.
const SHORT_RUN: &str =
    "prompt_groups_per_step = 2\ncompletions_per_prompt = 4\nmax_completion_tokens = 64\n";

/// Somebody at a terminal.
struct User {
    session: Session,
    home: tempfile::TempDir,
}

/// A home with the sample task, small, in its workspace.
fn workspace() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("tasks/invoice");
    sample_task(&folder, [12, 4, 8]);
    let text = fs::read_to_string(folder.join("task.toml")).unwrap();
    let text = text.replace("[train]\n", &format!("[train]\n{SHORT_RUN}"));
    let text = text
        .replace("max_completion_tokens = 96\n", "")
        .replace("max_steps = 40\n", "max_steps = 2\n");
    fs::write(folder.join("task.toml"), text).unwrap();
    home
}

/// Copies the recorded run into the runs of a home, under a short id and name.
fn recorded_run(home: &Path, name: &str) -> PathBuf {
    let run = home.join(format!("runs/20261120-120000-invoice-{name}"));
    copy_tree(&sample_data("finished-run"), &run);
    let text = fs::read_to_string(run.join("run.toml")).unwrap();
    let text = text.replace(
        "20261120-143041-invoice-6sx3dn",
        &format!("20261120-120000-invoice-{name}"),
    );
    fs::write(run.join("run.toml"), text).unwrap();
    run
}

impl User {
    /// Starts the program without arguments.
    fn at(home: tempfile::TempDir, (columns, rows): (u16, u16)) -> Self {
        // A device of its own: no run waits for those of other tests.
        let slots = home.path().join("slots").display().to_string();
        let variables = [("GRPO_TUI_SLOTS", slots.as_str())];
        let session = Session::start(
            home.path(),
            &Start {
                columns,
                rows,
                variables: &variables,
                ..Start::PLAIN
            },
        );
        Self { session, home }
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    /// Presses keys, written as in keymap files; `down*3` is three times.
    fn presses(&mut self, keys: &str) -> &mut Self {
        for word in keys.split(' ') {
            let (key, times) = word
                .split_once('*')
                .map_or((word, 1), |(key, times)| (key, times.parse().unwrap()));
            let bytes = bytes_of(Chord::parse(key).unwrap_or_else(|| panic!("no key {key}")));
            self.session.send(&bytes.repeat(times));
        }
        self
    }

    fn types(&mut self, text: &str) -> &mut Self {
        self.session.send(text);
        self
    }

    /// Waits until all of these stand on the screen together.
    fn sees<const N: usize>(&mut self, texts: [&str; N]) -> &mut Self {
        self.sees_within(SCREEN_TIMEOUT, texts)
    }

    /// The same for what a run does.
    fn sees_in_time<const N: usize>(&mut self, texts: [&str; N]) -> &mut Self {
        self.sees_within(RUN_PATIENCE, texts)
    }

    fn sees_within<const N: usize>(&mut self, patience: Duration, texts: [&str; N]) -> &mut Self {
        let missing = |session: &Session| {
            texts
                .iter()
                .find(|text| !session.screen().contains(**text))
                .copied()
        };
        self.session
            .wait_within(patience, &texts.join(" and "), |session| {
                missing(session).is_none()
            });
        self
    }

    fn no_longer_sees(&mut self, text: &str) -> &mut Self {
        self.session
            .wait_for(&format!("without {text}"), |session| {
                !session.screen().contains(text)
            });
        self
    }

    /// Clicks in the middle of a text on the screen, its first occurrence.
    fn clicks(&mut self, text: &str) -> &mut Self {
        self.sees([text]);
        let screen = self.session.screen();
        let (row, line) = screen
            .lines()
            .enumerate()
            .find(|(_, line)| line.contains(text))
            .unwrap();
        let before = line.split(text).next().unwrap().width() + text.width() / 2;
        let at = format!("{};{}", before + 1, row + 1);
        self.session.send(&format!("\x1b[<0;{at}M\x1b[<0;{at}m"));
        self
    }

    fn double_clicks(&mut self, text: &str) -> &mut Self {
        self.clicks(text).clicks(text)
    }

    /// Quits and sees the terminal restored.
    fn quits(mut self) {
        self.presses("q");
        assert_eq!(self.session.wait_end(), 0, "{}", self.session.screen());
        assert!(self.session.is_cooked() && !self.session.on_other_screen());
    }

    /// The folders of the runs, oldest first.
    fn runs(&self) -> Vec<PathBuf> {
        let run_folders =
            grpo_tui::run::RunFolders::discover(Some(&self.home().join("runs")), self.home());
        run_folders
            .list()
            .into_iter()
            .map(|(path, _)| path)
            .collect()
    }

    /// On Launch: starts the run, whatever the checks of its small sets find.
    fn starts(&mut self) -> &mut Self {
        self.presses("L");
        let is_asked = |session: &Session| session.screen().contains("Before the start");
        self.session.wait_for("the checks", |session| {
            is_asked(session) || session.screen().contains("[6 Live]")
        });
        if is_asked(&self.session) {
            self.presses("y");
        }
        self.sees(["[6 Live]"])
    }

    /// On Launch: gives a setting a value.
    fn sets(&mut self, key: &str, value: &str) -> &mut Self {
        self.presses("/").types(key).presses("enter");
        self.no_longer_sees("run name");
        self.presses("enter ctrl-u").types(value).presses("enter");
        self.sees([value]);
        self.presses("esc").sees(["run name"])
    }
}

/// What a terminal sends for a key.
fn bytes_of(chord: Chord) -> String {
    let plain = match chord.code {
        KeyCode::Enter => "\r".to_owned(),
        KeyCode::Esc => "\x1b".to_owned(),
        KeyCode::Tab => "\t".to_owned(),
        KeyCode::BackTab => "\x1b[Z".to_owned(),
        KeyCode::Backspace => "\x7f".to_owned(),
        KeyCode::Up => "\x1b[A".to_owned(),
        KeyCode::Down => "\x1b[B".to_owned(),
        KeyCode::Right => "\x1b[C".to_owned(),
        KeyCode::Left => "\x1b[D".to_owned(),
        KeyCode::End => "\x1b[F".to_owned(),
        KeyCode::Char(letter) if chord.modifiers.contains(KeyModifiers::CONTROL) => {
            char::from(u8::try_from(letter).unwrap() & 0x1f).to_string()
        }
        KeyCode::Char(letter) => letter.to_string(),
        other => panic!("no bytes for {other:?}"),
    };
    if chord.modifiers.contains(KeyModifiers::ALT) {
        format!("\x1b{plain}")
    } else {
        plain
    }
}
