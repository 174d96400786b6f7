//! All output of the command line. Text may come from someone else's run, task, model or completion, so no control
//! characters but line ends are printed; only the progress line moves the cursor. JSON has them escaped.
//!
//! `println!` and `eprintln!` are the macros below in the whole command line; `tests/architecture.rs` refuses every
//! other output.

use std::backtrace::BacktraceStatus;
use std::cell::RefCell;
use std::fmt::Display;
use std::io::{BufWriter, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::{Failure, Outcome};
use crate::exact_json::unmark;
use crate::secrets::{redact, visible, visible_json, visible_lines};

/// Prints lines on standard output.
macro_rules! println {
    () => { $crate::cli::output::line("") };
    ($($argument:tt)*) => { $crate::cli::output::line(&format!($($argument)*)) };
}

/// Prints lines on standard error.
#[allow(unused_macros)] // with neither view nor engine
macro_rules! eprintln {
    ($($argument:tt)*) => { $crate::cli::output::eprint_lines(&format!($($argument)*)) };
}

static LOST: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Buffers that replace standard output and standard error of this thread.
    static CAPTURED: RefCell<Option<[Buffer; 2]>> = const { RefCell::new(None) };
}

/// What was printed. Clones share it.
#[derive(Clone, Debug, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Does `work`, and returns what it printed on standard output and standard error.
pub(super) fn capture<T>(work: impl FnOnce() -> T) -> (T, [Vec<u8>; 2]) {
    let buffers = [Buffer::default(), Buffer::default()];
    CAPTURED.set(Some(buffers.clone()));
    let result = work();
    CAPTURED.set(None);
    (
        result,
        buffers.map(|buffer| std::mem::take(&mut *buffer.bytes())),
    )
}

/// Whether what this thread prints is captured: the terminal and the signals of this process are then not the command's.
pub(super) fn is_captured() -> bool {
    CAPTURED.with_borrow(Option::is_some)
}

/// Work for another thread, which prints where this one does.
#[cfg(feature = "engine")]
pub(super) fn printing_here<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let captured = CAPTURED.with_borrow(Clone::clone);
    move || {
        CAPTURED.set(captured);
        work()
    }
}

/// Whether this process has written to standard output.
static PRINTED: AtomicBool = AtomicBool::new(false);

fn standard_output() -> Box<dyn Write> {
    CAPTURED.with_borrow(|captured| match captured {
        Some([out, _]) => Box::new(out.clone()) as Box<dyn Write>,
        None => {
            PRINTED.store(true, Ordering::Relaxed);
            Box::new(std::io::stdout().lock())
        }
    })
}

fn standard_error() -> Box<dyn Write> {
    CAPTURED.with_borrow(|captured| match captured {
        Some([_, error]) => Box::new(error.clone()) as Box<dyn Write>,
        None => Box::new(std::io::stderr().lock()),
    })
}

/// Prints the help that was asked for, or what is wrong with the arguments; in colour on a terminal.
pub(super) fn print_parsed(error: &clap::Error) -> ExitCode {
    // A closed pipe is not an error.
    let _ = if is_captured() {
        let mut to = if error.use_stderr() {
            standard_error()
        } else {
            standard_output()
        };
        write!(to, "{}", error.render())
    } else {
        error.print()
    };
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Prints text for people; a closed pipe is not an error.
pub(super) fn print(text: &str) -> Outcome {
    print_exact(&visible_lines(text))
}

pub(super) fn print_json(document: impl Display) -> Outcome {
    print_exact(&visible_json(&unmark(format!("{document}\n"))))
}

/// With `--json`: the error as a document on standard output, beside its text on standard error.
/// Nothing after a document that is printed already, such as that of an eval that misses a threshold.
pub(super) fn print_json_error(message: &str, code: u8) {
    let is_printed = CAPTURED.with_borrow(|captured| match captured {
        Some([out, _]) => !out.bytes().is_empty(),
        None => PRINTED.load(Ordering::Relaxed),
    });
    if is_printed {
        return;
    }
    let (message, _) = redact(message);
    // The text says it, too.
    let _ = print_json(serde_json::json!({"error": message, "code": code}));
}

pub(super) fn print_indented(document: &serde_json::Value) -> Outcome {
    print_json(format!("{document:#}"))
}

/// Prints the program's own output unchanged: HTML, shell scripts.
pub(super) fn print_exact(text: &str) -> Outcome {
    let mut out = standard_output();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_or_else(
            |error| Stopped::Write(error).outcome(),
            |()| Ok(ExitCode::SUCCESS),
        )
}

/// Masks the message of a panic, which may quote a model or a task.
pub(super) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::capture();
        let trace = if trace.status() == BacktraceStatus::Captured {
            format!("\n{trace}")
        } else {
            String::new()
        };
        eprint_lines(&format!("grpo-tui crashed: {panic}{trace}"));
    }));
}

pub(super) fn line(text: &str) {
    if print(&format!("{text}\n")).is_err() {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// The exit code of the process: 1 if lines of a successful command were lost.
pub(super) fn exit_code(code: ExitCode) -> Outcome {
    if LOST.swap(false, Ordering::Relaxed) && code == ExitCode::SUCCESS {
        Err(Failure::failed("cannot write to standard output"))
    } else {
        Ok(code)
    }
}

/// Prints lines on standard error, secrets masked. Write errors are ignored.
pub(super) fn eprint_lines(text: &str) {
    write_error(&format!("{}\n", visible_lines(&redact(text).0)));
}

/// Prints one line on standard error, whatever the text contains.
pub(super) fn eprint_line(line: &str) {
    write_error(&format!("{}\n", visible(&redact(line).0)));
}

/// Prints a question on standard error, without a line end.
pub(super) fn eprint_prompt(question: &str) {
    write_error(&visible_lines(&redact(question).0));
}

/// Prints an error. Further lines are indented, so that quoted text cannot look like a message of its own.
pub(super) fn eprint_error(message: &str) {
    eprint_lines(&format!(
        "error: {}",
        message.trim_end().replace('\n', "\n  ")
    ));
}

/// Redraws the current line of standard error; empty: clears it.
pub(super) fn redraw_line(line: &str) {
    // Cut off at the edge rather than wrapped: a second line would stay.
    write_error(&format!("\r\x1b[K\x1b[?7l{}\x1b[?7h", visible(line)));
}

fn write_error(text: &str) {
    let mut error = standard_error();
    let _ = error
        .write_all(text.as_bytes())
        .and_then(|()| error.flush());
}

/// The reason that a command which writes incrementally ends early.
pub(super) enum Stopped {
    Write(std::io::Error),
    Work(Failure),
}

impl Stopped {
    /// A closed pipe is not an error.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Write(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            Self::Write(error) => Err(Failure::failed(format!(
                "cannot write to standard output: {error}"
            ))),
            Self::Work(failure) => Err(failure),
        }
    }
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Work(failure)
    }
}

/// Standard output for commands that write incrementally.
pub(super) struct Stream {
    to: BufWriter<Box<dyn Write>>,
    json: bool,
    /// Lines of the picture that is below the text.
    drawn: usize,
}

impl Stream {
    pub(super) fn new(json: bool) -> Self {
        Self {
            to: BufWriter::new(standard_output()),
            json,
            drawn: 0,
        }
    }

    /// Draws a picture below the text, in place of the last one; its lines are the program's own, each shorter than the
    /// terminal is wide. What is written next takes its place.
    #[cfg(feature = "view")]
    pub(super) fn draw(&mut self, picture: &[String]) -> std::io::Result<()> {
        self.erase()?;
        picture
            .iter()
            .try_for_each(|line| writeln!(self.to, "{line}"))?;
        self.drawn = picture.len();
        self.to.flush()
    }

    fn erase(&mut self) -> std::io::Result<()> {
        match std::mem::take(&mut self.drawn) {
            0 => Ok(()),
            lines => write!(self.to, "\x1b[{lines}A\r\x1b[J"),
        }
    }
}

impl Write for Stream {
    /// Each write has whole characters, since it comes from `write!`, serde or whole lines.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = str::from_utf8(bytes).map_err(std::io::Error::other)?;
        self.erase()?;
        self.to.write_all(
            if self.json {
                visible_json(text)
            } else {
                visible_lines(text)
            }
            .as_bytes(),
        )?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}
