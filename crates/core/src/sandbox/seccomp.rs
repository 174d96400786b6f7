//! Seccomp filters: system calls that change mounts, namespaces or the kernel, inspect other
//! processes, bypass the network namespace, or hold memory that belongs to no process.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use super::level::Level;

/// Always `EPERM`.
const REFUSED: &[libc::c_long] = &[
    // Mounts and namespaces.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // Other processes.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // The kernel: large, rarely used, or machine-wide.
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    // Memory that no process maps escapes all limits.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_mq_open,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_shmget,
    libc::SYS_vmsplice,
];
/// `ENOSYS`, for which libraries have fallbacks: clone3's flags are in memory invisible to filters;
/// io_setup's contexts are scarce and machine-wide, inotify's instances scarce for each user (128).
const ABSENT: &[libc::c_long] = &[
    libc::SYS_clone3,
    libc::SYS_io_setup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_inotify_init,
    libc::SYS_inotify_init1,
];
/// Socket options that enlarge buffers; made ineffective.
const BUFFER_SIZES: [libc::c_int; 4] = [
    libc::SO_SNDBUF,
    libc::SO_RCVBUF,
    libc::SO_SNDBUFFORCE,
    libc::SO_RCVBUFFORCE,
];
/// Refused for processes other than the caller (0).
const OTHERS: &[libc::c_long] = &[
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
];
/// As [`OTHERS`], after an argument that selects a single process.
const OTHERS_OF_A_KIND: &[(libc::c_long, libc::c_int)] = &[
    (libc::SYS_setpriority, libc::PRIO_PROCESS as libc::c_int),
    (libc::SYS_ioprio_set, 1),
];
/// Without a network namespace sockets other than pairs are refused; Landlock handles `truncate`
/// only since Linux 6.2.
const REFUSED_LIMITED: &[libc::c_long] = &[libc::SYS_socket, libc::SYS_truncate];
/// Families confined by the network namespace. Others, such as vsock, are not.
const FAMILIES: [libc::c_int; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];
const NAMESPACES: [libc::c_int; 8] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
    // clone does not support CLONE_NEWTIME.
    libc::CLONE_PTRACE,
];
/// First number of the x32 system calls.
const X32: u32 = 0x4000_0000;

/// Filters of a level in order of installation; empty on unsupported architectures.
pub(super) fn filters(level: Level) -> &'static [BpfProgram] {
    static STRONG: LazyLock<Vec<BpfProgram>> =
        LazyLock::new(|| compiled(Level::Strong).unwrap_or_default());
    static LIMITED: LazyLock<Vec<BpfProgram>> =
        LazyLock::new(|| compiled(Level::Limited).unwrap_or_default());
    match level {
        Level::Strong => &STRONG,
        Level::Limited => &LIMITED,
        Level::None => &[],
    }
}

fn compiled(level: Level) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let compare = |place, operator, value: libc::c_int| {
        SeccompCondition::new(
            place,
            SeccompCmpArgLen::Dword,
            operator,
            u64::from(value.cast_unsigned()),
        )
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let family = FAMILIES
        .iter()
        .map(|family| compare(0, Ne, *family))
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(family)?]);
    // Limits, priority and affinity of other processes, one of which may serve the next answer.
    let other = |place, own| SeccompRule::new(vec![compare(place, Ne, own)?]);
    for call in OTHERS {
        rules.insert(*call, vec![other(0, 0)?]);
    }
    for (call, own) in OTHERS_OF_A_KIND {
        rules.insert(*call, vec![other(0, *own)?, other(1, 0)?]);
    }
    let flag = |flag: &libc::c_int| {
        let bit = u64::from(flag.cast_unsigned());
        SeccompRule::new(vec![compare(0, MaskedEq(bit), *flag)?])
    };
    rules.insert(
        libc::SYS_clone,
        NAMESPACES.iter().map(flag).collect::<Result<_, _>>()?,
    );
    // Shared anonymous memory: once unmapped by a process it is in no limit.
    let (of_kind, shared) = (
        libc::MAP_TYPE | libc::MAP_ANONYMOUS,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
    );
    let is_shared = compare(3, MaskedEq(u64::from(of_kind.cast_unsigned())), shared)?;
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![is_shared])?]);
    let option = |option| {
        SeccompRule::new(vec![
            compare(1, Eq, libc::SOL_SOCKET)?,
            compare(2, Eq, option)?,
        ])
    };
    // Pages of a process held by a socket.
    rules.insert(libc::SYS_setsockopt, vec![option(libc::SO_ZEROCOPY)?]);
    let sizes = BUFFER_SIZES
        .into_iter()
        .map(option)
        .collect::<Result<_, _>>()?;
    if level == Level::Limited {
        rules.extend(REFUSED_LIMITED.iter().map(|call| (*call, Vec::new())));
    }
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = |rules, error: libc::c_int| {
        let refuse = SeccompAction::Errno(error.cast_unsigned());
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()
    };
    let mut refused: BpfProgram = filter(rules, libc::EPERM)?;
    refused.splice(0..0, without_x32());
    let absent = ABSENT.iter().map(|call| (*call, Vec::new())).collect();
    let sizes = [(libc::SYS_setsockopt, sizes)].into();
    Ok(vec![
        refused,
        filter(absent, libc::ENOSYS)?,
        filter(sizes, 0)?,
    ])
}

/// Loads the number; refuses x32.
fn without_x32() -> [sock_filter; 3] {
    let statement = |code: u32, jf, k| sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, X32),
        statement(
            libc::BPF_RET | libc::BPF_K,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
        ),
    ]
}
