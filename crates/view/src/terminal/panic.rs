//! Panics: the terminal is restored before anything is reported, and a crash report is written.

use std::backtrace::Backtrace;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};

use super::guard;
use crate::secrets::visible_lines;

/// Installs the panic hook: a panic of this thread restores the terminal, writes a report and prints its path; a panic
/// of another thread only writes the report, since the view continues.
pub(super) fn install(data: PathBuf) {
    let own = std::thread::current().id();
    std::panic::set_hook(Box::new(move |panic| {
        let of_view = std::thread::current().id() == own;
        if of_view {
            guard::leave();
        }
        let report = write(&data, panic);
        if of_view {
            eprintln!("grpo-tui crashed: {}", visible_lines(&panic.to_string()));
            match report {
                Ok(path) => eprintln!("crash report: {}; runs continue", path.display()),
                Err(error) => eprintln!(
                    "no crash report: {}: {error}; runs continue",
                    data.display()
                ),
            }
        }
    }));
}

pub(super) fn sentence(what: &str, data: &Path, panicked: &(dyn std::any::Any + Send)) -> String {
    let message = panicked.downcast_ref::<String>().cloned().or_else(|| {
        panicked
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
    });
    let message = message.unwrap_or_else(|| "no message".to_owned());
    format!(
        "{what} crashed ({message}); the rest continues, crash report in {}",
        folder(data).display()
    )
}

fn folder(data: &Path) -> PathBuf {
    data.join("reports")
}

fn write(data: &Path, panic: &PanicHookInfo<'_>) -> std::io::Result<PathBuf> {
    let folder = folder(data);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode_private()
        .create(&folder)?;
    let now =
        jiff::Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(jiff::Timestamp::MAX);
    let path = folder.join(format!(
        "{}-{}.txt",
        now.strftime("%Y%m%d-%H%M%S"),
        std::process::id()
    ));
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)?;
    let (version, thread) = (env!("CARGO_PKG_VERSION"), std::thread::current());
    let thread = thread.name().unwrap_or("without a name").to_owned();
    let variables = ["TERM", "COLORTERM", "LANG", "SSH_CONNECTION", "TMUX"].map(|name| {
        format!(
            "{name} {}",
            if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
                "is set"
            } else {
                "is not set"
            }
        )
    });
    write!(
        file,
        "grpo-tui {version}, {now}, thread {thread}\nsize {:?}; {}\n\n{panic}\n\n{}\n",
        guard::size(),
        variables.join(", "),
        Backtrace::force_capture()
    )?;
    Ok(path)
}

/// Creates folders that only the owner can enter.
trait CreatePrivate {
    fn mode_private(&mut self) -> &mut Self;
}

impl CreatePrivate for std::fs::DirBuilder {
    fn mode_private(&mut self) -> &mut Self {
        std::os::unix::fs::DirBuilderExt::mode(self, 0o700)
    }
}
