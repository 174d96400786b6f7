//! Starts and follows the runs of a sweep, as many at once as devices serve. Each run has its own
//! worker, so that it survives the end of the sweep's process.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{exit_code, named_tasks, resolve};
use crate::cli::output::eprint_line;
use crate::cli::worker::{SignalFlags, install_signal_handlers};
use crate::cli::{Failure, device, train};
use crate::format::counted;
use crate::run::{
    Device, Launch, LiveState, Liveness, RunDirectory, RunFolders, RunLock, RunState, State,
    Status, change_tags, launch, stop_worker,
};
use crate::study::{LatestRates, Next, RunPhase, RunStanding, Sweep, SweepFolder, next};

/// Poll interval of the runs.
const ROUND: Duration = Duration::from_millis(200);
/// Maximum time for a worker to become ready on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Interval between reads of the runs' logs.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Interval between saves of the elapsed time.
const SAVE_EVERY: Duration = Duration::from_secs(30);

pub(super) struct Driver<'a> {
    folder: &'a SweepFolder,
    sweep: Sweep,
    devices: Vec<Device>,
    /// Maximum number of ranks of a single run.
    ranks: usize,
    signals: SignalFlags,
    /// Runs that were given a worker in this session, or had one when it began.
    handled: BTreeSet<usize>,
    /// Those of `handled` that ended unfinished, and earlier failures: left to the next session.
    left: BTreeSet<usize>,
    /// Last status line printed for each run.
    shown: BTreeMap<usize, String>,
    /// Logs of active runs, and the step of the last printed eval.
    logs: BTreeMap<usize, (LiveState, Option<u64>)>,
    /// Time of the last read of the logs.
    logs_read: Instant,
    begun: Instant,
    before: f64,
    saved: Instant,
    _lock: RunLock,
}

impl<'a> Driver<'a> {
    /// Loads the sweep, and finds runs that an earlier session started without recording them.
    pub(super) fn begin(
        folder: &'a SweepFolder,
        mut sweep: Sweep,
        retry_failed: bool,
    ) -> Result<Self, Failure> {
        let lock = folder.lock()?;
        let devices = device::devices(&sweep.compute)?;
        let own = RunFolders::discover(Some(folder.runs()), folder.runs());
        if sweep.runs.iter().any(|run| run.id.is_none()) {
            let names: BTreeMap<String, String> = own
                .list()
                .into_iter()
                .filter_map(|(_, run)| {
                    run.ok()
                        .filter(|run| run.file().created_ms >= sweep.created_ms)
                })
                .map(|run| (run.file().name.clone(), run.id().to_owned()))
                .collect();
            for index in 0..sweep.runs.len() {
                if sweep.runs[index].id.is_none() {
                    sweep.runs[index].id = names.get(&sweep.run_name(index)).cloned();
                }
            }
        }
        for run in sweep.runs.iter_mut().filter(|_| retry_failed) {
            run.problem = None;
            run.id = run.id.take().filter(|id| folder.runs().join(id).is_dir());
        }
        // A missing task or model fails only the runs that need it, with its cause.
        let ranks = named_tasks(&sweep).ok().and_then(|tasks| {
            let all = sweep
                .settings
                .iter()
                .map(|setting| [sweep.fixed.as_slice(), &setting.set].concat());
            all.filter_map(|set| resolve(&sweep, &set, &tasks, &own).ok())
                .map(|config| config.ranks)
                .max()
        });
        let before = sweep.seconds;
        let mut driver = Self {
            folder,
            sweep,
            devices,
            ranks: ranks.unwrap_or(1),
            signals: install_signal_handlers()?,
            handled: BTreeSet::new(),
            left: BTreeSet::new(),
            shown: BTreeMap::new(),
            logs: BTreeMap::new(),
            logs_read: Instant::now(),
            begun: Instant::now(),
            before,
            saved: Instant::now(),
            _lock: lock,
        };
        driver.save()?;
        let phases = driver.run_phases();
        let failed =
            |(_, phase): &(usize, &RunPhase)| matches!(phase, RunPhase::Failed(_)) && !retry_failed;
        driver.left = phases
            .iter()
            .enumerate()
            .filter(failed)
            .map(|(index, _)| index)
            .collect();
        Ok(driver)
    }

    /// Runs until all runs are done, a limit is reached, or the user stops the sweep.
    pub(super) fn run(&mut self) -> Result<ExitCode, Failure> {
        loop {
            let phases = self.run_phases();
            self.print_rates(&phases);
            if self.signals.once.load(Ordering::Relaxed) {
                self.stop_runs(&phases)?;
                eprintln!(
                    "stopped; resume: grpo-tui sweep --resume {}",
                    self.sweep.name
                );
                return Ok(exit_code(true, false));
            }
            if let Some(hours) = self
                .sweep
                .max_hours
                .filter(|hours| self.seconds() >= 3600.0 * hours)
            {
                self.stop_runs(&phases)?;
                let name = &self.sweep.name;
                eprintln!(
                    "time limit of {hours} h reached; resume: grpo-tui sweep --resume {name} --max-hours HOURS"
                );
                return Ok(exit_code(false, false));
            }
            match next(&self.sweep, &phases, &self.left, self.capacity()) {
                Next::Start(index) => self.start(index)?,
                Next::Resume(index) => self.give_worker(index)?,
                Next::Wait => std::thread::sleep(ROUND),
                Next::Done => break,
            }
            if self.saved.elapsed() > SAVE_EVERY {
                self.save()?;
            }
        }
        let phases = self.run_phases();
        if phases.contains(&RunPhase::Planned) && self.is_at_most_runs() {
            let (name, most) = (&self.sweep.name, self.sweep.max_runs.unwrap_or_default());
            let started = counted(most, "run");
            eprintln!(
                "{started} started (--max-runs); continue with: grpo-tui sweep --resume {name} --max-runs N"
            );
        }
        let unfinished = phases
            .iter()
            .any(|phase| matches!(phase, RunPhase::Failed(_) | RunPhase::Interrupted(_)));
        Ok(exit_code(false, unfinished))
    }

    /// Saves the elapsed time and returns the sweep.
    pub(super) fn end(mut self) -> Sweep {
        // The runs are unaffected; only the elapsed time is lost if it cannot be written.
        if let Err(failure) = self.save() {
            eprint_line(&failure.message);
        }
        self.sweep
    }

    fn seconds(&self) -> f64 {
        self.before + self.begun.elapsed().as_secs_f64()
    }

    fn save(&mut self) -> Result<(), Failure> {
        (self.sweep.seconds, self.saved) = (self.seconds(), Instant::now());
        Ok(self.folder.write(&self.sweep)?)
    }

    fn path(&self, index: usize) -> Option<std::path::PathBuf> {
        let path = self.folder.runs().join(self.sweep.runs[index].id.as_ref()?);
        path.is_dir().then_some(path)
    }

    /// The phase of every run from its state alone; prints changes.
    fn run_phases(&mut self) -> Vec<RunPhase> {
        let mut phases = Vec::new();
        for index in 0..self.sweep.runs.len() {
            let state = self.path(index).map(|path| State::observe(&path));
            let state = state.as_ref().map(|state| {
                let state = state.as_ref();
                RunStanding {
                    status: state.map_or(Status::Created, |state| state.status),
                    step: state.map_or(0, |state| state.step),
                    cause: state.and_then(|state| state.cause.as_deref()),
                }
            });
            let run = &self.sweep.runs[index];
            let phase = RunPhase::for_run(run, state);
            let text = match (&phase, &state) {
                (RunPhase::Planned | RunPhase::Active(Status::Created | Status::Starting), _) => {
                    None
                }
                (RunPhase::Failed(cause) | RunPhase::Interrupted(cause), _) => {
                    Some(format!("{}: {cause}", phase.word()))
                }
                (RunPhase::Finished, Some(RunStanding { step, .. })) => {
                    Some(format!("finished at step {step}"))
                }
                _ => Some(phase.word().to_owned()),
            };
            if let Some(text) = text.filter(|text| self.shown.get(&index) != Some(text)) {
                let rates = match (&phase, self.path(index)) {
                    (RunPhase::Finished, Some(path)) => RunState::read(&path).ok(),
                    _ => None,
                };
                let rates = rates.as_ref().and_then(LatestRates::of);
                let rates = rates.map_or_else(String::new, |rates| format!(": {}", rates.text()));
                self.say(index, &format!("{text}{rates}"));
                self.shown.insert(index, text);
            }
            match &phase {
                RunPhase::Failed(_) | RunPhase::Interrupted(_) if self.handled.contains(&index) => {
                    self.left.insert(index);
                }
                RunPhase::Active(status) if *status != Status::Created => {
                    self.handled.insert(index);
                }
                _ => {}
            }
            phases.push(phase);
        }
        phases
    }

    fn say(&self, index: usize, text: &str) {
        let run = &self.sweep.runs[index];
        let name = self.sweep.run_name(index);
        let setting = &self.sweep.settings[run.setting].label;
        eprint_line(&format!("{name} {setting} seed={}: {text}", run.seed));
    }

    /// Prints the rates of new evals of active runs.
    fn print_rates(&mut self, phases: &[RunPhase]) {
        if self.logs_read.elapsed() < READ_EVERY {
            return;
        }
        self.logs_read = Instant::now();
        for (index, phase) in phases.iter().enumerate() {
            if !matches!(phase, RunPhase::Active(Status::Running | Status::Stopping)) {
                self.logs.remove(&index);
                continue;
            }
            let Some(path) = self.path(index) else {
                continue;
            };
            if let Entry::Vacant(free) = self.logs.entry(index)
                && let Ok(log) = LiveState::open(&path)
            {
                free.insert((log, None));
            }
            // A log that cannot be read now is read in the next round.
            let Some((log, printed)) = self.logs.get_mut(&index) else {
                continue;
            };
            let latest = log.now().ok().and_then(LatestRates::of);
            let Some(latest) = latest.filter(|latest| Some(latest.step) != *printed) else {
                continue;
            };
            *printed = Some(latest.step);
            let step = match latest.step {
                0 => "base".to_owned(),
                step => format!("step {step}"),
            };
            self.say(index, &format!("{step}: {}", latest.text()));
        }
    }

    fn is_at_most_runs(&self) -> bool {
        let started = self
            .sweep
            .runs
            .iter()
            .filter(|run| run.id.is_some())
            .count();
        self.sweep.max_runs.is_some_and(|most| started >= most)
    }

    /// Number of runs that the devices serve at once.
    fn capacity(&self) -> usize {
        (self.devices.len() / self.ranks.max(1)).max(1)
    }

    /// Creates a run after the checks of `train`, and starts it. Its name is stored in its folder
    /// first: if this process dies before saving the id, the next session finds the run.
    fn start(&mut self, index: usize) -> Result<(), Failure> {
        let created = self.create(index);
        let is_first = self
            .sweep
            .runs
            .iter()
            .all(|run| run.id.is_none() && run.problem.is_none());
        match created {
            Ok(id) => self.sweep.runs[index].id = Some(id),
            Err(failure) if is_first => {
                // A fault of the first run is a fault of the whole sweep.
                self.folder.remove()?;
                return Err(failure);
            }
            Err(failure) => return self.fail(index, failure.message),
        }
        self.save()?;
        self.give_worker(index)
    }

    fn create(&self, index: usize) -> Result<String, Failure> {
        let run = &self.sweep.runs[index];
        let tasks = named_tasks(&self.sweep)?;
        let set = self.sweep.assignments(run);
        let own = RunFolders::discover(Some(self.folder.runs()), self.folder.runs());
        let today = resolve(&self.sweep, &set, &tasks, &own)?;
        let set = [self.sweep.kept(index, &today), set].concat();
        let mut arguments = train::Arguments::for_sweep(&self.sweep, set, &own);
        arguments.name = Some(self.sweep.run_name(index));
        arguments.is_quiet = self.sweep.runs.iter().any(|run| run.id.is_some());
        Ok(train::create(&arguments, tasks, &own, Some(&self.devices))?
            .id()
            .to_owned())
    }

    /// Starts a worker; a run with a checkpoint resumes from it.
    fn give_worker(&mut self, index: usize) -> Result<(), Failure> {
        let Some(path) = self.path(index) else {
            return Ok(());
        };
        let launched = RunDirectory::open(&path).and_then(|run| {
            change_tags(&path, std::slice::from_ref(&self.sweep.name), &[])?;
            let compute = self.sweep.compute.clone();
            let how = Launch {
                compute,
                resume: true,
                patience: START_TIMEOUT,
                ..Launch::default()
            };
            launch(&run, &how)
        });
        match launched {
            Ok(launched) if launched.ready => {
                self.handled.insert(index);
                self.left.remove(&index);
                Ok(())
            }
            Ok(launched) => self.fail(
                index,
                format!(
                    "its worker was not ready within {} s: see {}",
                    START_TIMEOUT.as_secs(),
                    launched.log.display()
                ),
            ),
            Err(error) => self.fail(index, error.to_string()),
        }
    }

    fn fail(&mut self, index: usize, problem: String) -> Result<(), Failure> {
        self.sweep.runs[index].problem = Some(problem);
        self.left.insert(index);
        self.save()
    }

    /// Stops active runs after their current step, at once on a second signal, and waits for their
    /// end.
    fn stop_runs(&mut self, phases: &[RunPhase]) -> Result<(), Failure> {
        let computes = |(_, phase): &(usize, &RunPhase)| matches!(phase, RunPhase::Active(status) if *status != Status::Created);
        let active: Vec<_> = phases
            .iter()
            .enumerate()
            .filter(computes)
            .filter_map(|(index, _)| self.path(index))
            .collect();
        let is_twice = || self.signals.twice.load(Ordering::Relaxed);
        if !active.is_empty() {
            eprintln!(
                "stopping {} after the current step; Ctrl-C again stops at once",
                counted(active.len(), "run")
            );
        }
        let ask = |now: bool| {
            for path in active
                .iter()
                .filter(|path| Liveness::for_run(path).may_live())
            {
                // A run that has just ended needs no stop.
                if let Err(error) = stop_worker(path, now) {
                    eprint_line(&error.to_string());
                }
            }
        };
        ask(false);
        let mut was_twice = false;
        while active.iter().any(|path| Liveness::for_run(path).may_live()) {
            if is_twice() && !was_twice {
                was_twice = true;
                ask(true);
            }
            std::thread::sleep(ROUND);
        }
        self.save()
    }
}
