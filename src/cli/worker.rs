//! `grpo-tui worker`, which the program starts in a session of its own: computes a run.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::output::{eprint_line, is_captured};
use super::{Failure, Outcome, print, print_indented};
use crate::run::{
    Device, Launch, ReadyPipe, RunDirectory, RunState, Status, Worker, launch, stop_signals,
};
#[cfg(feature = "engine")]
use crate::{
    facts::Cause,
    run::{RunFolders, Slot, slots_folder},
    secrets::redact,
    train::{Ended, RankSource, TrainError, train},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The run directory
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Resume a run that has started
    #[arg(long)]
    resume: bool,
    /// Compute on this GPU, or as many of these as there are ranks, of those that CUDA shows this process
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        conflicts_with = "cpu"
    )]
    gpu: Vec<usize>,
    /// Compute on the CPU
    #[arg(long)]
    cpu: bool,
    /// Compute with this many processes, other than configured
    #[arg(long, value_name = "N")]
    ranks: Option<u16>,
}

#[cfg(feature = "engine")]
impl Arguments {
    fn compute(&self) -> crate::run::DeviceChoice {
        crate::run::DeviceChoice::from_flags(self.gpu.iter().copied(), self.cpu)
    }
}

/// The devices that a run may use, and how many of them it takes.
type UsableDevices = (Vec<Device>, usize);

pub(super) fn run(arguments: Arguments) -> Outcome {
    let handshake = ReadyPipe::from_environment();
    match begin(&arguments) {
        Ok((run, worker, (devices, count))) => {
            handshake.ready();
            compute(&run, &worker, (&devices, count), arguments.ranks)
        }
        Err(failure) => {
            handshake.failed(&failure.message);
            Err(failure)
        }
    }
}

/// Makes this process the worker of a run; signals stop it.
pub(super) fn begin_here(run: &RunDirectory) -> Result<Worker, Failure> {
    let flags = install_signal_handlers()?;
    let worker = Worker::begin(run, flags.once)?;
    worker.controls().stop_now_when(flags.twice);
    for note in worker.notes() {
        eprint_line(&format!("note: {note}"));
    }
    Ok(worker)
}

/// Fast checks, so that the launcher can report their failure.
fn begin(arguments: &Arguments) -> Result<(RunDirectory, Worker, UsableDevices), Failure> {
    let run = RunDirectory::open(&arguments.run)?;
    let worker = begin_here(&run)?;
    let checked = check(&run, arguments);
    match &checked {
        Err(_) if is_finished(&RunState::read(run.path())?) => worker.exit_finished()?,
        Err(failure) => worker.end(Status::Failed, failure.message.as_str())?,
        Ok(_) => {}
    }
    checked.map(|devices| (run, worker, devices))
}

/// Whether the log says that all steps are done.
fn is_finished(history: &RunState) -> bool {
    history
        .end
        .as_ref()
        .is_some_and(|end| end.status == Status::Finished)
}

/// Waits for `count` of some devices, trains a run on them, prints its progress, and records its end, also that of a
/// crash; `None`: the run was stopped while it waited. For `train` and for a worker in the background alike.
#[cfg(feature = "engine")]
pub(super) fn train_here(
    run: &RunDirectory,
    run_folders: &RunFolders,
    worker: &Worker,
    (devices, count): (&[Device], usize),
    ranks: impl FnOnce(&Slot) -> RankSource,
) -> Result<Option<Result<Ended, TrainError>>, Failure> {
    let Some(slot) = worker.wait_for(&slots_folder()?, devices, count, eprint_line)? else {
        return Ok(None);
    };
    super::device::warn_if_in_use(&slot);
    let trained = caught(|| {
        let mut progress = super::progress::Progress::new(worker);
        let engine = super::device::engine(&slot)?;
        let mut listener = |event: &_| progress.event(event);
        let ranks = ranks(&slot);
        let trained = train(run, run_folders, &engine, worker, ranks, &mut listener);
        Ok(trained)
    });
    let end = match &trained {
        Ok(Ok(Ended::CutShort { cause, .. })) => {
            Some((Status::Interrupted, Cause::requested(cause.clone())))
        }
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some((Status::Failed, error.to_string().into())),
        Err(failure) => Some((Status::Failed, failure.message.clone().into())),
    };
    // A training records its own end where it can. A failure is returned even if its end cannot be recorded.
    let _ = end.map(|(status, cause)| worker.end(status, cause));
    trained.map(Some)
}

/// What work gives, or what it says where it panics: a crash is an end with a cause, like others.
#[cfg(feature = "engine")]
fn caught<R>(work: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let (text, _) = redact(text.unwrap_or("no message"));
        Err(Failure::failed(format!(
            "grpo-tui crashed, which is a fault of the program: {text}"
        )))
    })
}

#[cfg(not(feature = "engine"))]
fn check(_run: &RunDirectory, _arguments: &Arguments) -> Result<UsableDevices, Failure> {
    Err(Failure::failed(
        "built without the engine: can follow runs, not compute them",
    ))
}

#[cfg(not(feature = "engine"))]
fn compute(
    _run: &RunDirectory,
    _worker: &Worker,
    _devices: (&[Device], usize),
    _ranks: Option<u16>,
) -> Outcome {
    Err(Failure::failed("built without the engine"))
}

/// Checks the run's task and model as well.
#[cfg(feature = "engine")]
fn check(run: &RunDirectory, arguments: &Arguments) -> Result<UsableDevices, Failure> {
    let history = RunState::read(run.path())?;
    if is_finished(&history) {
        return Err(Failure::failed(
            "run is finished: to train further, start a run with --model RUN",
        ));
    }
    if history.last_step > 0 && !arguments.resume {
        return Err(Failure::usage("run has already started: add --resume"));
    }
    for task in run.task_names() {
        crate::score::Task::load(&crate::run::task_folder(run.path(), task))?;
    }
    crate::checkpoint::ModelLocation::find(
        &run.file().config.base_model,
        &super::device::run_folders(run),
    )?;
    let devices = super::device::devices(&arguments.compute())?;
    let ranks = arguments.ranks.map_or(run.file().config.ranks, usize::from);
    let count = super::device::slots_of(ranks, &devices)?;
    Ok((devices, count))
}

#[cfg(feature = "engine")]
fn compute(
    run: &RunDirectory,
    worker: &Worker,
    devices: (&[Device], usize),
    ranks: Option<u16>,
) -> Outcome {
    let run_folders = super::device::run_folders(run);
    let source = |slot: &Slot| super::device::ranks_on(slot, ranks);
    let trained = train_here(run, &run_folders, worker, devices, source)?;
    let is_finished = matches!(trained.transpose()?, Some(Ended::Finished(_)));
    Ok(if is_finished { 0 } else { 130_u8 }.into())
}

/// Launches a worker. `verb` is for the JSON document.
pub(super) fn detach(run: &RunDirectory, how: &Launch, verb: &str, json: bool) -> Outcome {
    let launched = launch(run, how)?;
    let (id, pid) = (run.id(), launched.pid);
    let ready = if launched.ready {
        ""
    } else {
        "; not ready yet, see worker.log"
    };
    let does = if how.resume { "continues" } else { "runs" };
    let text = format!(
        "{id} {does} in the background (pid {pid}){ready}; follow it with `grpo-tui runs attach {id}`"
    );
    let document = json!({"run": id, "path": run.path(), "verb": verb, "text": text, "ready": launched.ready, "pid": pid, "log": launched.log});
    if json {
        print_indented(&document)
    } else {
        print(&format!("{text}\n"))
    }
}

#[derive(Debug, Default)]
pub(super) struct SignalFlags {
    /// Set by the first signal.
    pub(super) once: Arc<AtomicBool>,
    /// Set by the second signal.
    pub(super) twice: Arc<AtomicBool>,
}

/// Every stop signal stops the work after the step; a second Ctrl-C or SIGTERM stops at once, a third one ends the process
/// with code 130. Slurm sends several SIGTERM to a job that it ends, and kills it after its grace time, and `ulimit -t` a
/// SIGXCPU a second: they count as one.
pub(super) fn install_signal_handlers() -> Result<SignalFlags, Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let flags = SignalFlags::default();
    if is_captured() {
        return Ok(flags);
    }
    let is_in_slurm = std::env::var_os("SLURM_JOB_ID").is_some();
    for signal in stop_signals() {
        let repeats_count = signal == SIGINT || (signal == SIGTERM && !is_in_slurm);
        if repeats_count {
            signal_hook::flag::register_conditional_shutdown(
                signal,
                130,
                Arc::clone(&flags.twice),
            )?;
        }
        let (once, twice) = (Arc::clone(&flags.once), Arc::clone(&flags.twice));
        let count = move || {
            if once.swap(true, Ordering::SeqCst) && repeats_count {
                twice.store(true, Ordering::SeqCst);
            }
        };
        // SAFETY: the action only changes two atomic flags, which a signal handler may do.
        unsafe { signal_hook::low_level::register(signal, count)? };
    }
    Ok(flags)
}

#[cfg(all(test, feature = "engine"))]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use clap::Parser;

    use crate::run::DeviceChoice;

    #[test]
    fn a_worker_takes_the_devices_that_its_launcher_chose() {
        for choice in [
            DeviceChoice::Any,
            DeviceChoice::Cpu,
            DeviceChoice::Gpus(vec![3]),
            DeviceChoice::Gpus(vec![2, 0, 11]),
        ] {
            let words = ["grpo-tui", "worker", "--run", "run"].map(str::to_owned);
            let parsed =
                crate::cli::Arguments::try_parse_from(words.into_iter().chain(choice.arguments()))
                    .unwrap();
            let Some(crate::cli::Command::Worker(arguments)) = parsed.command else {
                panic!("{choice:?}")
            };
            assert_eq!(arguments.compute(), choice);
        }
    }
}
