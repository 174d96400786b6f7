//! The real program in a terminal of its own: keys go in, the screen is read back by an emulator, the process is
//! watched from outside.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use crate::program::PROGRAM;

/// How long something may take that should be there in an instant; the machine may be busy.
pub(crate) const SCREEN_TIMEOUT: Duration = Duration::from_secs(30);
/// So many of the latest bytes are kept as they came.
const RAW_BYTES: usize = 1 << 20;
const LOOK: Duration = Duration::from_millis(2);

/// A terminal with the program in it.
pub(crate) struct Session {
    master: Option<Box<dyn MasterPty + Send>>,
    writer: Option<Box<dyn Write + Send>>,
    child: Box<dyn Child + Send + Sync>,
    output: Arc<TerminalOutput>,
    reader: Option<std::thread::JoinHandle<()>>,
    pub(crate) home: PathBuf,
}

/// What came from the program.
struct TerminalOutput {
    emulator: Mutex<vt100::Parser>,
    bytes: AtomicU64,
    /// The latest of them, as they came.
    raw: Mutex<Vec<u8>>,
    /// Everything was output: nobody has the terminal open any more.
    is_all: AtomicBool,
    end: AtomicBool,
}

/// How a session is started.
pub(crate) struct Start<'a> {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
    pub(crate) arguments: &'a [&'a str],
    /// A shell's text that runs the program as `"$@"`; `None`: the program is the terminal's first process.
    pub(crate) shell: Option<&'a str>,
    pub(crate) variables: &'a [(&'a str, &'a str)],
}

impl Start<'_> {
    pub(crate) const PLAIN: Self = Self {
        columns: 120,
        rows: 36,
        arguments: &[],
        shell: None,
        variables: &[],
    };
}

impl Session {
    /// Start the program with a home of its own in `home`.
    pub(crate) fn start(home: &Path, start: &Start<'_>) -> Self {
        let size = PtySize {
            rows: start.rows,
            cols: start.columns,
            pixel_width: 0,
            pixel_height: 0,
        };
        let pair = native_pty_system().openpty(size).unwrap();
        let program = PROGRAM;
        let mut command = CommandBuilder::new(if start.shell.is_some() { "sh" } else { program });
        if let Some(shell) = start.shell {
            command.args(["-c", shell, "sh", program]);
        }
        command.args(start.arguments);
        command.env_clear();
        command.cwd(home);
        let home_text = home.display().to_string();
        for (name, value) in [
            ("PATH", std::env::var("PATH").unwrap_or_default().as_str()),
            ("HOME", &home_text),
            ("XDG_CONFIG_HOME", &format!("{home_text}/config")),
            ("XDG_DATA_HOME", &format!("{home_text}/data")),
            ("XDG_CACHE_HOME", &format!("{home_text}/cache")),
            ("TERM", "xterm-256color"),
            ("COLORTERM", "truecolor"),
            ("COLORFGBG", "15;0"),
            ("LANG", "C.UTF-8"),
            ("TZ", "UTC"),
        ]
        .into_iter()
        .chain(start.variables.iter().copied())
        {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let emulator = Mutex::new(vt100::Parser::new(
            at_least_one(start.rows),
            at_least_one(start.columns),
            0,
        ));
        let output = TerminalOutput {
            emulator,
            bytes: AtomicU64::new(0),
            raw: Mutex::default(),
            is_all: AtomicBool::new(false),
            end: AtomicBool::new(false),
        };
        let output = Arc::new(output);
        let (reader, of_reader) = (pair.master.try_clone_reader().unwrap(), Arc::clone(&output));
        let file = pair.master.as_raw_fd().unwrap();
        // SAFETY: the thread ends, and is waited for, before the master is dropped.
        let file = unsafe { BorrowedFd::borrow_raw(file) };
        let reader = std::thread::spawn(move || listen(reader, file, &of_reader));
        let writer = pair.master.take_writer().unwrap();
        Self {
            master: Some(pair.master),
            writer: Some(writer),
            child,
            output,
            reader: Some(reader),
            home: home.to_owned(),
        }
    }

    /// Bytes as the terminal sends them.
    pub(crate) fn send(&mut self, bytes: &str) {
        let writer = self.writer.as_mut().unwrap();
        writer.write_all(bytes.as_bytes()).unwrap();
        writer.flush().unwrap();
    }

    /// Another size, as after dragging the window.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.output
            .emulator
            .lock()
            .unwrap()
            .set_size(at_least_one(rows), at_least_one(columns));
        self.master
            .as_ref()
            .unwrap()
            .resize(PtySize {
                rows,
                cols: columns,
                pixel_width: 0,
                pixel_height: 0,
            })
            .unwrap();
    }

    /// What stands on the screen.
    pub(crate) fn screen(&self) -> String {
        self.output.emulator.lock().unwrap().screen().contents()
    }

    /// Whether the other screen is shown.
    pub(crate) fn on_other_screen(&self) -> bool {
        self.output
            .emulator
            .lock()
            .unwrap()
            .screen()
            .alternate_screen()
    }

    /// Whether the cursor is seen.
    pub(crate) fn shows_cursor(&self) -> bool {
        !self.output.emulator.lock().unwrap().screen().hide_cursor()
    }

    /// Whether keys come line by line and are echoed, as a shell needs it.
    pub(crate) fn is_cooked(&self) -> bool {
        use rustix::termios::LocalModes;
        let file = self.master.as_ref().unwrap().as_raw_fd().unwrap();
        // SAFETY: the master is open while `self.master` is there.
        let modes = rustix::termios::tcgetattr(unsafe { BorrowedFd::borrow_raw(file) })
            .unwrap()
            .local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Bytes that the program has written so far.
    #[cfg_attr(test, allow(dead_code, reason = "for benches"))]
    pub(crate) fn bytes(&self) -> u64 {
        self.output.bytes.load(Ordering::Relaxed)
    }

    /// Whether these bytes came lately, as they are.
    pub(crate) fn received(&self, sequence: &str) -> bool {
        let raw = self.output.raw.lock().unwrap();
        raw.windows(sequence.len())
            .any(|bytes| bytes == sequence.as_bytes())
    }

    /// The terminal's first process.
    pub(crate) fn process(&self) -> i32 {
        i32::try_from(self.child.process_id().unwrap()).unwrap()
    }

    /// Wait until the screen satisfies; what stands there where it never does.
    pub(crate) fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        self.wait_within(SCREEN_TIMEOUT, what, holds)
    }

    /// The same for what takes its time.
    pub(crate) fn wait_within(
        &self,
        patience: Duration,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> Duration {
        let start = Instant::now();
        while !holds(self) {
            assert!(
                start.elapsed() < patience,
                "never: {what}; the screen:\n{}",
                self.screen()
            );
            std::thread::sleep(LOOK);
        }
        start.elapsed()
    }

    /// Wait until a text stands on the screen.
    pub(crate) fn wait_text(&self, text: &str) -> Duration {
        self.wait_for(text, |session| session.screen().contains(text))
    }

    /// Go to a screen, begin to write there, and leave KEEPME unsaved: each key, and what stands there after it.
    pub(crate) fn write_unsaved(&mut self, [screen, there, write, writing]: [&str; 4]) {
        self.wait_text("[1 Runs]");
        self.send(screen);
        self.wait_text(there);
        self.send(write);
        self.wait_text(writing);
        self.send("KEEPME");
        self.wait_text("KEEPME");
    }

    /// In another session, go to the screen and take up what is offered there.
    pub(crate) fn take_up(&mut self, screen: &str, offered: &str, take: &str) {
        self.wait_text("[1 Runs]");
        self.send(screen);
        self.wait_text(offered);
        self.send(take);
        self.wait_text("KEEPME");
    }

    /// Wait until the first process has ended, and what it wrote last is output; its exit code.
    pub(crate) fn wait_end(&mut self) -> u32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.wait_for("the terminal's end", |session| {
                    session.output.is_all.load(Ordering::Relaxed)
                });
                return status.exit_code();
            }
            assert!(
                start.elapsed() < SCREEN_TIMEOUT,
                "the process does not end; the screen:\n{}",
                self.screen()
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Wait until a process has ended, whoever takes note of it.
    pub(crate) fn wait_gone(&self, process: i32) {
        let start = Instant::now();
        while state_of(process).is_some_and(|state| state != 'Z') {
            assert!(
                start.elapsed() < SCREEN_TIMEOUT,
                "process {process} still lives"
            );
            std::thread::sleep(LOOK);
        }
    }

    /// The terminal vanishes, as when a connection breaks.
    pub(crate) fn hang_up(&mut self) {
        self.output.end.store(true, Ordering::Relaxed);
        self.reader.take().unwrap().join().unwrap();
        self.writer = None;
        self.master = None;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.output.end.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn at_least_one(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap_or(NonZeroU16::MIN)
}

fn listen(mut reader: Box<dyn Read + Send>, file: BorrowedFd<'_>, output: &TerminalOutput) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let moment = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    let mut bytes = [0; 65_536];
    while !output.end.load(Ordering::Relaxed) {
        let mut polled = [PollFd::new(&file, PollFlags::IN)];
        if poll(&mut polled, Some(&moment)).is_ok_and(|ready| ready == 0) {
            continue;
        }
        match reader.read(&mut bytes) {
            Ok(count) if count > 0 => {
                output.emulator.lock().unwrap().process(&bytes[..count]);
                output.bytes.fetch_add(count as u64, Ordering::Relaxed);
                let mut raw = output.raw.lock().unwrap();
                raw.extend_from_slice(&bytes[..count]);
                let old = raw.len().saturating_sub(RAW_BYTES);
                raw.drain(..old);
            }
            _ => {
                output.is_all.store(true, Ordering::Relaxed);
                std::thread::sleep(LOOK);
            }
        }
    }
}

/// The state letter of a process (`R`, `S`, `T`, `Z` …); `None` where there is none.
pub(crate) fn state_of(process: i32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}
