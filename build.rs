//! Finds what tests need and a machine may lack: where it does, they are ignored, and one warning names it. Three crates
//! are built by this script: the root, and those with unit tests that need such things.

use std::ffi::c_long;
use std::process::{Command, Stdio};

/// Programs in `PATH` that single tests of the root start; what is installed for tests alone is found by scripts/peers.
const PROGRAMS: [&str; 9] = [
    "bash", "cc", "curl", "fish", "gcc", "node", "rsync", "rustc", "zsh",
];

/// What tests need and is not here.
#[derive(Default)]
struct Missing(Vec<&'static str>);

impl Missing {
    /// Sets the `cfg` of what is there.
    fn check(&mut self, cfg: &str, need: &'static str, is_there: bool) {
        println!("cargo:rustc-check-cfg=cfg({cfg})");
        if is_there {
            println!("cargo:rustc-cfg={cfg}");
        } else if !self.0.contains(&need) {
            self.0.push(need);
        }
    }
}

fn main() {
    // It runs again where it is itself changed; without any such line, where any file is.
    println!("cargo:rerun-if-changed=Cargo.toml");
    let mut missing = Missing::default();
    missing.check("has_python", "python3", is_in_path("python3"));
    let can_isolate = unshare(
        "--user --map-root-user --pid --fork --net --mount --ipc --uts",
        ":",
    );
    missing.check("can_isolate", "user namespaces", can_isolate);
    // Another home or user compiles the root alone again.
    if std::env::var("CARGO_PKG_NAME").is_ok_and(|name| name == "grpo-tui") {
        of_the_root(&mut missing, can_isolate);
        if !missing.0.is_empty() {
            println!(
                "cargo:warning=not run: tests that need {}",
                missing.0.join(", ")
            );
        }
    }
}

fn of_the_root(missing: &mut Missing, can_isolate: bool) {
    let mut python = Command::new("python3");
    python.args(["-c", "import pydantic; pydantic.TypeAdapter"]);
    python.stdout(Stdio::null()).stderr(Stdio::null());
    let has_pydantic = python.status().is_ok_and(|status| status.success());
    missing.check("has_pydantic", "pydantic", has_pydantic);
    // Isolation without namespaces, also where the kernel has them.
    let refuse = "echo 0 >/proc/sys/user/max_user_namespaces";
    let can_refuse = !can_isolate || unshare("--user --map-root-user", refuse);
    let has_landlock = has_landlock();
    let need = if has_landlock {
        "user namespaces that can be refused"
    } else {
        "Landlock"
    };
    missing.check("can_limit", need, has_landlock && can_refuse);
    // The nearest to "another user".
    println!("cargo:rerun-if-env-changed=HOME");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    let can = |capability: u32| capabilities.is_some_and(|bits| bits >> capability & 1 == 1);
    missing.check("can_chown", "root", can(0));
    missing.check("can_mount", "root", can(21));
    // One test needs a user who may not; nobody is both.
    println!("cargo:rustc-check-cfg=cfg(can_write_anywhere)");
    if can(1) {
        println!("cargo:rustc-cfg=can_write_anywhere");
    }
    for program in PROGRAMS {
        missing.check(&format!("has_{program}"), program, is_in_path(program));
    }
}

fn is_in_path(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).exists())
}

/// Whether a shell's command succeeds in namespaces of its own.
fn unshare(options: &str, command: &str) -> bool {
    Command::new("unshare")
        .args(options.split(' '))
        .args(["sh", "-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn has_landlock() -> bool {
    unsafe extern "C" {
        fn syscall(number: c_long, ...) -> c_long;
    }
    // landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) on every architecture.
    // SAFETY: it takes these and returns a version, or -1.
    unsafe { syscall(444, std::ptr::null::<u8>(), 0_usize, 1 as c_long) > 0 }
}
