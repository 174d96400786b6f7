//! CPU priority of an init, which must respond while its program uses all cores.

use rustix::process::getpriority_process;

/// Scheduler slice; shorter starts sooner.
const SLICE_NANOSECONDS: u64 = 100_000;

pub(super) fn nice() -> i32 {
    getpriority_process(None).unwrap_or(0)
}

/// Raises priority: as root always, else since Linux 6.12 while below its fair share.
pub(super) fn raise() {
    let usual = libc::SCHED_OTHER;
    _ = set(libc::SCHED_RR, 0, 0)
        || set(usual, -20, SLICE_NANOSECONDS)
        || set(usual, nice(), SLICE_NANOSECONDS);
}

/// Undoes [`raise`]. Only system calls.
pub(super) fn restore(nice: i32) {
    set(libc::SCHED_OTHER, nice, 0);
}

/// Whether the kernel accepts it. `slice`: 0 for the default.
fn set(policy: libc::c_int, nice: i32, slice: u64) -> bool {
    /// First version of the kernel's `sched_attr`.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: policy.cast_unsigned(),
        flags: 0,
        nice,
        priority: u32::from(policy == libc::SCHED_RR),
        runtime: slice,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the structure has the size that is in it, and is only read.
    let outcome = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    outcome == 0
}
