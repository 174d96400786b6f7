//! The processor time of an init, which must get it at once while its program wants all there is.

use rustix::process::getpriority_process;

/// How long it computes before others have their turn; the less, the sooner it begins.
const SLICE_NANOSECONDS: u64 = 100_000;

/// This process's nice value.
pub(super) fn nice() -> i32 {
    getpriority_process(None).unwrap_or(0)
}

/// Lets this process compute before others: as root whatever they do, else since Linux 6.12 where it has not had its
/// share.
pub(super) fn raise() {
    let usual = libc::SCHED_OTHER;
    _ = set(libc::SCHED_RR, 0, 0)
        || set(usual, -20, SLICE_NANOSECONDS)
        || set(usual, nice(), SLICE_NANOSECONDS);
}

/// Gives back what [`raise`] has taken. Makes only system calls.
pub(super) fn restore(nice: i32) {
    set(libc::SCHED_OTHER, nice, 0);
}

/// Whether the kernel takes it. `slice`: 0 for the usual one.
fn set(policy: libc::c_int, nice: i32, slice: u64) -> bool {
    /// The first version of the kernel's `sched_attr`.
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
