//! Signals that ask a process to end.

use libc::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGPWR, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU,
};

/// SIGINT, SIGTERM, and those of batch systems, limits and timers (Slurm's `--signal=USR1@120`, Grid Engine's SIGUSR2,
/// SIGXCPU of `ulimit -t`), by default the end without a checkpoint. Leaves out what is ignored or handled already, as by
/// `nohup` or a profiler.
pub fn stop_signals() -> Vec<i32> {
    let mut signals = vec![SIGINT, SIGTERM];
    let others = [
        SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU, SIGALRM, SIGVTALRM, SIGPROF, SIGPWR, SIGIO,
    ];
    signals.extend(others.into_iter().filter(|signal| {
        // SAFETY: all bits zero are a valid `sigaction`, which the call only fills.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: without a new action nothing changes.
        let read = unsafe { libc::sigaction(*signal, std::ptr::null(), &raw mut action) };
        read == 0 && action.sa_sigaction == libc::SIG_DFL
    }));
    signals
}
