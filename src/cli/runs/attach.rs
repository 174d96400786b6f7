//! `runs attach`: prints a run's events until it ends, and how far an eval is, in a terminal with a small chart below them.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::output::{self, Stopped, Stream};
use super::{Failure, Outcome};
use crate::cli::status_line::StatusLine;
use crate::report::{Report, alert_text, eval_progress_text, event_text, rates};
use crate::run::{
    Batch, EventReader, Follower, RunDirectory, RunFolders, RunLock, RunState, State, Status,
    ask_slurm,
};
use crate::secrets::{redact, redact_json, visible};

/// How often the run's state is checked without new events.
const POLL_TIMEOUT: Duration = Duration::from_millis(500);

#[cfg(feature = "view")]
const BETWEEN_CHARTS: Duration = Duration::from_millis(250);

/// Slurm is asked no more often.
const SLURM_INTERVAL: Duration = Duration::from_secs(10);

/// How long to wait for a run's first worker.
const FIRST_WORKER: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Run: a path, name, id, or unique id prefix
    run: String,
    /// Print every event as one JSON object per line, from the first
    #[arg(long)]
    json: bool,
    /// Print lines only, without a chart below them
    #[arg(long)]
    no_chart: bool,
}

/// The exit code is the run's: 0 finished, 1 failed, 130 interrupted, or left with Ctrl-C.
pub(super) fn run(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    let run = run_folders.find(&arguments.run)?;
    let left = Arc::new(AtomicBool::new(false));
    if !output::is_captured() {
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&left))?;
    }
    let in_terminal = !output::is_captured()
        && std::io::stdout().is_terminal()
        && !arguments.json
        && !arguments.no_chart;
    let mut below = StatusArea::new(in_terminal);
    match watch(&run, arguments.json, &mut below, &left) {
        Err(stopped) => stopped.outcome(),
        Ok(Some(Status::Finished)) => Ok(ExitCode::SUCCESS),
        Ok(Some(Status::Failed)) => Ok(ExitCode::from(1)),
        Ok(Some(_)) => Ok(ExitCode::from(130)),
        Ok(None) => {
            output::eprint_line(&format!(
                "detached from {}; it continues. Reattach: grpo-tui runs attach {}",
                run.id(),
                run.id()
            ));
            Ok(ExitCode::from(130))
        }
    }
}

/// Returns the final status; `None` if the user detached.
fn watch(
    run: &RunDirectory,
    json: bool,
    below: &mut StatusArea,
    left: &AtomicBool,
) -> Result<Option<Status>, Stopped> {
    let mut out = Stream::new(json);
    let (mut state, mut follower) = if json {
        (
            RunState::default(),
            Follower::new(run.path(), EventReader::new(&run.events_path())),
        )
    } else {
        let seen = Report::read(run.clone()).map_err(Failure::from)?;
        let (state, follower) = Follower::open(run.path()).map_err(Failure::from)?;
        super::warn(&seen);
        write!(out, "{}", redact(&summary(&seen)).0)?;
        (state, follower)
    };
    let begun = Instant::now();
    let mut waits = None;
    loop {
        // Without an answer the last one is shown, with its time.
        let _ = ask_slurm([run.path().to_owned()], SLURM_INTERVAL);
        // Before the log is read: a worker that has recorded its end has written all of it.
        let state_now = State::observe(run.path());
        let status = state_now
            .as_ref()
            .map_or(Status::Created, |state| state.status);
        let eval = state_now
            .as_ref()
            .and_then(State::eval_under_way)
            .filter(|_| !json)
            .map(eval_progress_text);
        let cause = state_now
            .filter(|_| !json && status == Status::Waiting)
            .and_then(|state| state.cause);
        if cause != waits {
            if let Some(cause) = &cause {
                writeln!(out, "waiting: {}", printable(cause))?;
            }
            waits = cause;
        }
        let has_none = status == Status::Created
            && begun.elapsed() >= FIRST_WORKER
            && !RunLock::is_held(run.path());
        let ended = status.is_ended() || has_none;
        let batch = follower
            .next(if ended { Duration::ZERO } else { POLL_TIMEOUT })
            .map_err(Failure::from)?;
        if batch.gone {
            return Err(Stopped::Work(Failure::failed(format!(
                "{} is gone: the run was moved or removed",
                run.path().display()
            ))));
        }
        let quiet = batch.is_empty();
        if !quiet {
            below.clear();
        }
        for line in &batch.skipped {
            let (id, number, reason) = (run.id(), line.line, &line.reason);
            output::eprint_line(&format!(
                "warning: {id}: events.jsonl line {number}: {reason}"
            ));
        }
        write_batch(&batch, &state, json, &mut out)?;
        state.apply(batch);
        out.flush()?;
        below.draw(&state, quiet, eval.as_deref().map(printable), &mut out)?;
        out.flush()?;
        if left.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if ended && quiet {
            if !json {
                let cause = State::observe(run.path()).and_then(|state| state.cause);
                let none = || {
                    format!(
                        "no worker yet: start one with grpo-tui train --resume {}",
                        run.id()
                    )
                };
                let cause = cause
                    .or_else(|| has_none.then(|| none().into()))
                    .map_or_else(String::new, |cause| format!(": {cause}"));
                writeln!(out, "{}", printable(&format!("{}{cause}", status.name())))?;
                let outcome = Report::read(run.clone()).map_err(Failure::from)?.outcome();
                if outcome.is_known() {
                    writeln!(out, "{}", printable(&outcome.sentence()))?;
                }
                below.draw(&state, false, None, &mut out)?;
                out.flush()?;
            }
            return Ok(Some(status));
        }
    }
}

/// The part below the log that is redrawn: progress of an eval and, in a terminal, a chart.
struct StatusArea {
    #[cfg(feature = "view")]
    chart: Option<crate::view::run_chart::RunChart>,
    #[cfg(feature = "view")]
    drawn: Option<Instant>,
    /// The text of the eval in the picture.
    #[cfg(feature = "view")]
    eval: Option<String>,
    /// The eval's progress, where there is no chart.
    line: StatusLine,
}

impl StatusArea {
    #[cfg(feature = "view")]
    fn new(in_terminal: bool) -> Self {
        let chart = if in_terminal {
            crate::view::run_chart::RunChart::for_terminal()
        } else {
            None
        };
        Self {
            chart,
            drawn: None,
            eval: None,
            line: StatusLine::new(),
        }
    }

    #[cfg(not(feature = "view"))]
    fn new(_: bool) -> Self {
        Self {
            line: StatusLine::new(),
        }
    }

    /// Before other lines; the picture gives way by itself.
    fn clear(&mut self) {
        self.line.clear();
    }

    /// `quiet`: nothing was written since. A run of many steps a second is drawn a few times a second.
    #[cfg(feature = "view")]
    fn draw(
        &mut self,
        state: &RunState,
        quiet: bool,
        eval: Option<String>,
        out: &mut Stream,
    ) -> std::io::Result<()> {
        let Some(chart) = &self.chart else {
            self.show(eval);
            return Ok(());
        };
        if quiet && self.drawn.is_some() && self.eval == eval {
            return Ok(());
        }
        let since = self.drawn.map_or(BETWEEN_CHARTS, |drawn| drawn.elapsed());
        std::thread::sleep(BETWEEN_CHARTS.saturating_sub(since));
        self.drawn = Some(Instant::now());
        let mut picture = chart.lines(state);
        picture.extend(eval.as_deref().map(|text| chart.line(text)));
        self.eval = eval;
        out.draw(&picture)
    }

    #[cfg(not(feature = "view"))]
    fn draw(
        &mut self,
        _: &RunState,
        _: bool,
        eval: Option<String>,
        _: &mut Stream,
    ) -> std::io::Result<()> {
        self.show(eval);
        Ok(())
    }

    fn show(&mut self, eval: Option<String>) {
        match eval {
            Some(text) => self.line.show(|| text),
            None => self.line.end(),
        }
    }
}

fn summary(seen: &Report) -> String {
    let id = visible(seen.directory.id());
    let task = visible(&seen.directory.file().task);
    let mut text = format!("run {id}  {task}  {}\n", seen.progress());
    let outcome = seen.outcome();
    if outcome.is_known() {
        text.push_str(&format!("{}\n", outcome.sentence()));
    } else {
        for eval in seen
            .directory
            .task_names()
            .into_iter()
            .filter_map(|task| seen.result_of(task))
        {
            text.push_str(&format!(
                "{} at step {} on {}: {}\n",
                eval.who(),
                eval.step,
                eval.set,
                rates(&eval.summary)
            ));
        }
    }
    for alert in seen.history.standing_alerts() {
        text.push_str(&format!("{}\n", visible(&alert_text(alert))));
    }
    text
}

fn write_batch(
    batch: &Batch,
    state: &RunState,
    json: bool,
    out: &mut impl Write,
) -> std::io::Result<()> {
    if batch.restarted && !json {
        writeln!(out, "log replaced; reading from its start:")?;
    }
    for event in &batch.events {
        if json {
            let mut document: serde_json::Value =
                serde_json::from_slice(&event.to_line().map_err(std::io::Error::from)?)?;
            redact_json(&mut document);
            writeln!(out, "{document}")?;
        } else if let Some((_, text)) = event_text(
            &event.body,
            state.run.as_ref().map_or(0, |run| run.total_steps),
        ) {
            writeln!(out, "{}", printable(&text))?;
        }
    }
    if json {
        return Ok(());
    }
    for skipped in &batch.skipped {
        writeln!(
            out,
            "events.jsonl line {} is not an event ({}): skipped",
            skipped.line,
            printable(&skipped.reason)
        )?;
    }
    if batch.gaps > 0 {
        writeln!(out, "{} events are missing from the log", batch.gaps)?;
    }
    Ok(())
}

/// One line of a run's text, with secrets masked and control characters visible.
fn printable(line: &str) -> String {
    visible(&redact(line).0).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::facts::AlertLevel;
    use crate::run::events::{Alert, Note, Run};
    use crate::run::{Event, EventBody};

    #[test]
    fn what_an_event_says_is_one_line_that_no_terminal_obeys() {
        // Not a real token, and assembled here so that no scanner reports it.
        let token = format!("ghp_{}", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8");
        let text = format!("x\u{1b}[2J\nFORGED {token}");
        let bodies: [EventBody; 3] = [
            Note { text: text.clone() }.into(),
            Alert {
                rule: "kl".into(),
                level: AlertLevel::Warning,
                sentence: text.clone(),
                ..Alert::default()
            }
            .into(),
            Run {
                device: text.clone(),
                ..Run::default()
            }
            .into(),
        ];
        let events: Vec<Event> = bodies
            .into_iter()
            .map(|body| Event {
                seq: 1,
                time_ms: 1,
                body,
            })
            .collect();
        let batch = Batch {
            events,
            ..Batch::default()
        };
        let output = |json| {
            let mut out = Vec::new();
            write_batch(&batch, &RunState::default(), json, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let safe = "x␛[2J␊FORGED ghp_…(40 characters)";
        assert_eq!(
            output(false),
            format!("note: {safe}\nstep 0: warning (kl): {safe}\nrun  on {safe}, 0 steps\n")
        );
        let note: serde_json::Value =
            serde_json::from_str(output(true).lines().next().unwrap()).unwrap();
        assert_eq!(note["text"], "x\u{1b}[2J\nFORGED ghp_…(40 characters)");
    }
}
