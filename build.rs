//! Says what tests may do on this machine.

use std::path::Path;

/// `cfg(can_chown)`, `cfg(can_mount)`, `cfg(can_write_anywhere)`: what this user may do here. `cfg(has_tensorboard)`:
/// `TENSORBOARD_PYTHON` is a Python with TensorBoard's reader (.ci/run). `cfg(has_openai)`, `cfg(has_llama_cpp)`: the
/// same of `OPENAI_PYTHON` and OpenAI's client, of `LLAMA_CPP_PYTHON` and llama.cpp. `cfg(has_verifiers)`: of
/// `VERIFIERS_PYTHON`, verifiers and TextArena. `cfg(has_smollm2)`: `SMOLLM2` is SmolLM2's GGUF file
/// (scripts/real-models). `cfg(has_zsh)`, `cfg(has_fish)`: shells. `cfg(has_rsync)`, `cfg(has_curl)`: programs in `PATH`.
/// `cfg(has_shellcheck)`: in `CHECKERS` (.ci/run) or `PATH`. Tests that cannot run so are ignored.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The nearest to "another user".
    println!("cargo:rerun-if-env-changed=HOME");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    for (name, capability) in [
        ("can_chown", 0),
        ("can_write_anywhere", 1),
        ("can_mount", 21),
    ] {
        println!("cargo:rustc-check-cfg=cfg({name})");
        if capabilities.is_some_and(|bits| bits >> capability & 1 == 1) {
            println!("cargo:rustc-cfg={name}");
        }
    }
    println!("cargo:rerun-if-env-changed=CHECKERS");
    let folders = ["CHECKERS", "PATH"].map(|name| std::env::var_os(name).unwrap_or_default());
    for program in ["zsh", "fish", "shellcheck", "rsync", "curl"] {
        println!("cargo:rustc-check-cfg=cfg(has_{program})");
        if folders
            .iter()
            .flat_map(std::env::split_paths)
            .any(|folder| folder.join(program).exists())
        {
            println!("cargo:rustc-cfg=has_{program}");
        }
    }
    let files = [
        ("TENSORBOARD_PYTHON", "has_tensorboard"),
        ("OPENAI_PYTHON", "has_openai"),
        ("LLAMA_CPP_PYTHON", "has_llama_cpp"),
        ("VERIFIERS_PYTHON", "has_verifiers"),
        ("SMOLLM2", "has_smollm2"),
    ];
    for (variable, name) in files {
        println!("cargo:rerun-if-env-changed={variable}");
        println!("cargo:rustc-check-cfg=cfg({name})");
        if let Some(path) = std::env::var_os(variable).filter(|path| Path::new(path).exists()) {
            println!("cargo:rustc-cfg={name}");
            println!("cargo:rustc-env={variable}={}", path.display());
        }
    }
}
