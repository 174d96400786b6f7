//! Says what tests may do on this machine.

/// `cfg(can_chown)`, `cfg(can_mount)`, `cfg(can_write_anywhere)`: what this user may do here. Tests that cannot run so
/// are ignored.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The nearest to "another user".
    println!("cargo:rerun-if-env-changed=HOME");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    for (name, capability) in [("can_chown", 0), ("can_write_anywhere", 1), ("can_mount", 21)] {
        println!("cargo:rustc-check-cfg=cfg({name})");
        if capabilities.is_some_and(|bits| bits >> capability & 1 == 1) {
            println!("cargo:rustc-cfg={name}");
        }
    }
}
