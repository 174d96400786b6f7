//! `grpo-tui runs pause`, `resume`, `checkpoint`, `eval`, `stop`, `set`, `annotate`: requests to an active run, and
//! resuming an interrupted one.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Failure, Outcome, print, print_json};
use crate::cli::slurm::submit_run;
use crate::cli::worker::detach;
use crate::run::{
    DeviceChoice, Launch, Liveness, RequestOutcome, RunDirectory, RunFolders, SlurmJob, State,
    Status, Verb, ask, stop_worker,
};
use crate::secrets::visible;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Pause a run after the current step
    Pause {
        #[command(flatten)]
        target: RunArguments,
    },
    /// Resume a paused run, or start a new worker for an interrupted one; a Slurm run is submitted again
    Resume {
        #[command(flatten)]
        target: RunArguments,
        /// GPU of this machine for a new worker
        #[arg(long, value_name = "N", conflicts_with = "cpu")]
        gpu: Option<usize>,
        /// CPU of this machine for a new worker
        #[arg(long)]
        cpu: bool,
    },
    /// Save a checkpoint after the current step
    Checkpoint {
        #[command(flatten)]
        target: RunArguments,
        #[command(flatten)]
        patience: TimeoutArguments,
    },
    /// Run an eval after the current step
    Eval {
        #[command(flatten)]
        target: RunArguments,
        #[command(flatten)]
        patience: TimeoutArguments,
    },
    /// Stop a run after the current step and save a checkpoint
    Stop {
        #[command(flatten)]
        target: RunArguments,
        /// Stop now; the current step is lost
        #[arg(long)]
        now: bool,
        /// Wait up to SECONDS for the worker to end
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Change learning_rate, temperature or max_steps from the next step on
    Set {
        #[command(flatten)]
        target: RunArguments,
        /// Assignments, such as temperature=0.9
        #[arg(required = true, value_name = "KEY=VALUE")]
        assignments: Vec<String>,
    },
    /// Add a note to a run's log
    Annotate {
        #[command(flatten)]
        target: RunArguments,
        /// The note
        text: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct RunArguments {
    /// Run: a path, name, id, or unique id prefix
    run: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct TimeoutArguments {
    /// Wait up to SECONDS for the result; 0: return once accepted
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

struct Request<'a> {
    target: &'a RunArguments,
    run: RunDirectory,
}

pub(super) fn run(command: Command, run_folders: &RunFolders) -> Outcome {
    fn request<'a>(
        target: &'a RunArguments,
        run_folders: &RunFolders,
    ) -> Result<Request<'a>, Failure> {
        Ok(Request {
            target,
            run: run_folders.find(&target.run)?,
        })
    }
    match &command {
        Command::Pause { target } => request(target, run_folders)?.ask(&Verb::Pause, 0),
        Command::Resume { target, gpu, cpu } => {
            request(target, run_folders)?.resume(DeviceChoice::from_flags(*gpu, *cpu))
        }
        Command::Checkpoint { target, patience } => {
            request(target, run_folders)?.ask(&Verb::Checkpoint, patience.timeout)
        }
        Command::Eval { target, patience } => {
            request(target, run_folders)?.ask(&Verb::Eval, patience.timeout)
        }
        Command::Stop { target, now, wait } => {
            request(target, run_folders)?.stop(*now, wait.map(Duration::from_secs))
        }
        Command::Set {
            target,
            assignments,
        } => {
            let verb = Verb::set(assignments.iter().map(String::as_str)).map_err(Failure::usage)?;
            request(target, run_folders)?.ask(&verb, 0)
        }
        Command::Annotate { target, text } => {
            let arguments = [("text".to_owned(), json!(text))].into_iter().collect();
            let verb = Verb::parse("annotate", &arguments).map_err(Failure::usage)?;
            request(target, run_folders)?.ask(&verb, 0)
        }
    }
}

impl Request<'_> {
    fn ask(&self, verb: &Verb, timeout: u64) -> Outcome {
        let answered = ask(
            self.run.path(),
            verb,
            Duration::from_secs(timeout),
            &mut |_| {},
        )?;
        let unfinished = if verb.is_work() && !answered.done && timeout > 0 {
            format!("; not done within {timeout} s, still queued")
        } else {
            String::new()
        };
        self.print_outcome(verb, &answered, &unfinished)
    }

    fn print_outcome(&self, verb: &Verb, answered: &RequestOutcome, more: &str) -> Outcome {
        let RequestOutcome { text, done, result } = answered;
        let id = self.run.id();
        let document = json!({"run": id, "path": self.run.path(), "verb": verb.name(), "text": text, "done": done, "result": result});
        self.show(&format!("{id}: {text}{more}"), &document)
    }

    fn show(&self, sentence: &str, document: &Value) -> Outcome {
        if self.target.json {
            print_json(document.clone())
        } else {
            print(&format!("{}\n", visible(sentence)))
        }
    }

    /// Resumes a paused worker, or starts one if none is alive: where it was, unless a device of this machine is named.
    fn resume(&self, compute: DeviceChoice) -> Outcome {
        let gone = match Liveness::for_run(self.run.path()) {
            Liveness::Gone(standing) => standing,
            _ => return self.ask(&Verb::Resume, 0),
        };
        if State::observe(self.run.path()).is_some_and(|state| state.status == Status::Finished) {
            let id = self.run.id();
            let message = format!(
                "{id} cannot resume: it {gone}; to train further: grpo-tui train TASK --model {id}"
            );
            return Err(Failure::failed(message));
        }
        match SlurmJob::read(self.run.path()) {
            Some(job) if compute == DeviceChoice::Any => {
                return submit_run(&self.run, job.request, "resume", self.target.json);
            }
            _ => {}
        }
        detach(
            &self.run,
            &Launch {
                compute,
                resume: true,
                ..Launch::default()
            },
            "resume",
            self.target.json,
        )
    }

    fn stop(&self, now: bool, wait: Option<Duration>) -> Outcome {
        let verb = Verb::Stop { now };
        let mut answered = stop_worker(self.run.path(), now)?;
        if let Some(wait) = wait {
            answered.done = self.wait_for_end(wait);
            if !answered.done {
                self.print_outcome(
                    &verb,
                    &answered,
                    &format!("; still active after {} s", wait.as_secs()),
                )?;
                return Ok(ExitCode::FAILURE);
            }
        }
        let ended = if answered.done { "; stopped" } else { "" };
        self.print_outcome(&verb, &answered, ended)
    }

    fn wait_for_end(&self, longest: Duration) -> bool {
        let begun = Instant::now();
        while Liveness::for_run(self.run.path()).may_live() {
            if begun.elapsed() >= longest {
                return false;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        true
    }
}
