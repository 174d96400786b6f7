//! Runs take turns on a device in the order in which they asked, whoever dies; folders and files that could be a trap
//! are refused.

use std::fs::{File, Permissions};
use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use grpo_tui::facts::VerbName;
use grpo_tui::run::{
    Device, EventBody, EventReader, RunError, Slot, State, Status, Verb, Waiting, Worker, ask,
    holder,
};

use super::{create, memory_folder};
use crate::program::until;

fn shared(folder: &Path) -> PathBuf {
    let slots = folder.join("slots");
    std::fs::create_dir(&slots).unwrap();
    std::fs::set_permissions(&slots, Permissions::from_mode(0o1777)).unwrap();
    slots
}

fn gpu(ordinal: usize) -> Device {
    Device::Gpu {
        ordinal,
        uuid: format!("GPU-{ordinal}0000000-aaaa"),
    }
}

fn take(slots: &Path, devices: &[Device]) -> Slot {
    take_many(slots, devices, 1)
}

fn take_many(slots: &Path, devices: &[Device], count: usize) -> Slot {
    Slot::wait(slots, devices, count, |_| ControlFlow::Continue(()))
        .unwrap()
        .unwrap()
}

/// The place at the first look, without staying.
fn place(slots: &Path, devices: &[Device]) -> Option<Waiting> {
    place_for(slots, devices, 1)
}

fn place_for(slots: &Path, devices: &[Device], count: usize) -> Option<Waiting> {
    let mut place = None;
    let slot = Slot::wait(slots, devices, count, |waiting| {
        place = Some(waiting.clone());
        ControlFlow::Break(())
    });
    assert!(slot.unwrap().is_none() == place.is_some());
    place
}

#[test]
fn first_come_first_served() {
    let folder = memory_folder();
    let slots = shared(folder.path());
    let first = take(&slots, &[Device::Cpu]);
    let (queued, queue) = mpsc::channel();
    let (served, order) = mpsc::channel();
    std::thread::scope(|scope| {
        for name in 0..4 {
            let (slots, served, queued) = (&slots, served.clone(), queued.clone());
            scope.spawn(move || {
                let mut is_queued = false;
                let slot = Slot::wait(slots, &[Device::Cpu], 1, |waiting| {
                    if !std::mem::replace(&mut is_queued, true) {
                        queued.send(waiting.ahead).unwrap();
                    }
                    ControlFlow::Continue(())
                });
                served.send(name).unwrap();
                drop(slot.unwrap().unwrap());
            });
            // Each is in the queue before the next one comes.
            assert_eq!(queue.recv().unwrap(), name);
        }
        let waiting = place(&slots, &[Device::Cpu]).unwrap();
        assert_eq!(waiting.ahead, 4);
        let expected = format!(
            "waiting for CPU, in use by process {} (",
            std::process::id()
        );
        assert!(
            waiting.described().starts_with(&expected)
                && waiting.described().ends_with("position 5 in the queue"),
            "{}",
            waiting.described()
        );
        drop(first);
    });
    assert_eq!(order.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(holder(&slots, &Device::Cpu), None);
    assert!(place(&slots, &[Device::Cpu]).is_none());
}

#[test]
fn several_devices_side_by_side() {
    let folder = memory_folder();
    let slots = shared(folder.path());
    let both = [gpu(0), gpu(1)];
    let (first, second, cpu) = (
        take(&slots, &both),
        take(&slots, &both),
        take(&slots, &[Device::Cpu]),
    );
    assert_eq!(
        (first.devices(), second.devices(), cpu.devices()),
        (&both[..1], &both[1..], &[Device::Cpu][..])
    );
    assert_eq!(place(&slots, &both).unwrap().ahead, 0);
    drop(second);
    assert_eq!(take(&slots, &both).devices(), &both[1..]);
    // Without a UUID the number stands for it; both names are fit for a file.
    let nameless = Device::Gpu {
        ordinal: 0,
        uuid: String::new(),
    };
    let odd = Device::Gpu {
        ordinal: 0,
        uuid: "../GPU-0".to_owned(),
    };
    let slots_taken = (take(&slots, &[nameless]), take(&slots, &[odd]));
    let names = crate::program::names(&slots);
    assert!(
        names.contains(&"gpu-0.lock".to_owned()) && names.contains(&"GPU-0.lock".to_owned()),
        "{names:?}"
    );
    for name in names.iter().filter(|name| name.ends_with(".lock")) {
        assert_eq!(
            std::fs::metadata(slots.join(name))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o666,
            "{name}"
        );
    }
    assert!(
        !names
            .iter()
            .any(|name| name.contains("ticket") || name.starts_with('.')),
        "{names:?}"
    );
    drop(slots_taken);
}

/// Each alone would hold one and wait for the other's.
#[test]
fn runs_that_want_the_same_gpus_in_any_order_all_get_them() {
    let folder = memory_folder();
    let slots = shared(folder.path());
    let holders = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for devices in [[gpu(0), gpu(1)], [gpu(1), gpu(0)]] {
            let (slots, holders) = (&slots, &holders);
            scope.spawn(move || {
                for _ in 0..10 {
                    let slot = take_many(slots, &devices, 2);
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "both at once");
                    assert_eq!(slot.devices(), devices);
                    holders.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
}

#[test]
fn a_run_of_two_gpus_waits_for_both_at_once_and_who_comes_later_waits_behind_it() {
    let folder = memory_folder();
    let slots = shared(folder.path());
    let (both, served) = ([gpu(0), gpu(1)], std::sync::Mutex::new(Vec::new()));
    let (start, mut first) = (Instant::now(), Some(take(&slots, &both[..1])));
    let (queued, queue) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = None;
            let slot = Slot::wait(&slots, &both, 2, |waiting| {
                if seen.is_none() {
                    seen = Some(waiting.clone());
                    queued.send(waiting.described()).unwrap();
                }
                if start.elapsed() < Duration::from_secs(60) {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
            served.lock().unwrap().push("both");
            assert_eq!(slot.unwrap().unwrap().devices(), both);
        });
        let sentence = queue.recv().unwrap();
        let expected = format!(
            "waiting for 2 GPUs, GPU 0, in use by process {} (",
            std::process::id()
        );
        assert!(sentence.starts_with(&expected), "{sentence}");
        assert!(
            sentence.ends_with("; position 1 in the queue"),
            "{sentence}"
        );
        // It holds nothing between two looks.
        let lock = File::open(slots.join("GPU-10000000-aaaa.lock")).unwrap();
        until("the other GPU is free", || lock.try_lock().is_ok());
        lock.unlock().unwrap();
        scope.spawn(|| {
            let slot = Slot::wait(&slots, &both[1..], 1, |waiting| {
                // The last look may come when the run before it has the GPU.
                if waiting.ahead == 1 {
                    first = None;
                }
                ControlFlow::Continue(())
            });
            served.lock().unwrap().push("one");
            drop(slot.unwrap().unwrap());
        });
    });
    assert_eq!(*served.lock().unwrap(), ["both", "one"]);
    assert!(place_for(&slots, &both, 2).is_none());
    // More than there are: all.
    assert_eq!(take_many(&slots, &both, 3).devices(), both);
}

/// Another process that holds a file's lock until it is killed.
struct Holder(std::process::Child);

impl Holder {
    fn start(path: &Path) -> Self {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap();
        file.lock().unwrap();
        // The lock belongs to the open file, which only the child keeps.
        Self(
            Command::new("sleep")
                .arg("1000")
                .stdin(Stdio::from(file))
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn the_dead_neither_hold_nor_wait() {
    let folder = memory_folder();
    let slots = shared(folder.path());
    drop(take(&slots, &[Device::Cpu]));
    let mut holder = Some(Holder::start(&slots.join("cpu.lock")));
    // A ticket whose owner has died, and one that waits.
    std::fs::write(slots.join("cpu.ticket-00000000000000000002"), "").unwrap();
    let mut waiter = Some(Holder::start(
        &slots.join("cpu.ticket-00000000000000000003"),
    ));
    assert_eq!(place(&slots, &[Device::Cpu]).unwrap().ahead, 1);
    assert!(!slots.join("cpu.ticket-00000000000000000002").exists());
    let mut killed = 0;
    let slot = Slot::wait(&slots, &[Device::Cpu], 1, |waiting| {
        let victim = if waiting.ahead == 1 {
            &mut waiter
        } else {
            &mut holder
        };
        killed += usize::from(victim.take().is_some());
        ControlFlow::Continue(())
    });
    assert!(slot.unwrap().is_some());
    assert_eq!(killed, 2);
}

#[test]
fn a_run_whose_ticket_somebody_removes_waits_on() {
    let folder = memory_folder();
    let slots = shared(folder.path());
    let mut first = Some(take(&slots, &[Device::Cpu]));
    let mut looks = 0;
    let slot = Slot::wait(&slots, &[Device::Cpu], 1, |_| {
        looks += 1;
        for entry in std::fs::read_dir(&slots).unwrap().flatten() {
            if entry.file_name().to_string_lossy().contains("ticket") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        if looks == 3 {
            first = None;
        }
        ControlFlow::Continue(())
    });
    assert!(slot.unwrap().is_some() && looks == 3);
}

#[test]
fn traps_are_refused() {
    let folder = memory_folder();
    let slots = shared(folder.path());
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "mine").unwrap();
    let check = |slots: &Path, expected: &str| {
        let error: RunError =
            Slot::wait(slots, &[Device::Cpu], 1, |_| ControlFlow::Break(())).unwrap_err();
        assert!(
            error.to_string().contains(expected),
            "{error} lacks {expected:?}"
        );
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
    };
    let lock = slots.join("cpu.lock");
    symlink(&victim, &lock).unwrap();
    check(&slots, "is a symlink");
    std::fs::remove_file(&lock).unwrap();
    std::fs::hard_link(&victim, &lock).unwrap();
    check(&slots, "has other hard links");
    std::fs::remove_file(&lock).unwrap();
    // A trap among the tickets is nobody who waits.
    symlink(&victim, slots.join("cpu.ticket-00000000000000000000")).unwrap();
    drop(take(&slots, &[Device::Cpu]));
    let link = folder.path().join("link");
    symlink(&slots, &link).unwrap();
    check(&link, "is a symlink");
    std::fs::set_permissions(&slots, Permissions::from_mode(0o777)).unwrap();
    check(&slots, "has mode 0777 instead of 1777");
    check(&folder.path().join("nowhere"), "cannot read");
}

#[test]
fn what_a_holder_says_of_itself_is_not_trusted() {
    let folder = memory_folder();
    let slots = shared(folder.path());
    let _held = take(&slots, &[Device::Cpu]);
    let says = |text: String| {
        std::fs::write(slots.join("cpu.lock"), text).unwrap();
        holder(&slots, &Device::Cpu).unwrap().to_string()
    };
    let lines = |user: &str| format!(r#"{{"process": 7, "user": "{user}", "since": "10:00:00"}}"#);
    assert_eq!(
        says(lines(r"\u001b[2Jme")),
        "process 7 ([2Jme) since 10:00:00"
    );
    assert_eq!(says(lines(&"x".repeat(1000))), "another run");
    assert_eq!(says(String::new()), "another run");
}

#[test]
fn a_run_that_waits_says_so_and_can_be_stopped() {
    let folder = memory_folder();
    let (slots, run) = (shared(folder.path()), create(folder.path()));
    let _held = take(&slots, &[Device::Cpu]);
    let worker = Worker::begin(&run, Arc::new(AtomicBool::new(false))).unwrap();
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            worker
                .wait_for(&slots, &[Device::Cpu], 1, |_| {})
                .unwrap()
                .is_none()
        });
        until("it waits", || {
            State::observe(run.path()).unwrap().status == Status::Waiting
        });
        assert!(
            State::observe(run.path())
                .unwrap()
                .cause
                .unwrap()
                .starts_with("waiting for CPU, in use by process")
        );
        ask(
            run.path(),
            &Verb::Stop { now: false },
            std::time::Duration::ZERO,
            &mut |_| {},
        )
        .unwrap();
        stopped.store(waiting.join().unwrap(), Ordering::Relaxed);
    });
    assert!(stopped.load(Ordering::Relaxed));
    drop(worker);
    let state = State::observe(run.path()).unwrap();
    assert_eq!(
        (state.status, state.cause.as_deref()),
        (
            Status::Interrupted,
            Some("stopped while waiting for a device")
        )
    );
    let events = EventReader::new(&run.events_path()).read().unwrap().events;
    let kinds: Vec<&str> = events.iter().map(|event| event.body.kind()).collect();
    assert_eq!(kinds, ["control", "end"]);
    assert!(
        matches!(&events[0].body, EventBody::Control(control) if control.verb == VerbName::Stop)
    );
}
