//! With the feature `cuda`: compiles every `src/kernels/*.cu` to a fatbin (machine code for one capability, and PTX for later ones) that the binary carries.
//! Always: says what tests may do on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=src/kernels");
    println!("cargo:rerun-if-env-changed=CUDA_COMPUTE_CAP");
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    tell_rights();
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some()
        && let Err(message) = compile_kernels()
    {
        println!("cargo::error={message}");
    }
}

/// `cfg(can_chown)`, `cfg(can_mount)`, `cfg(can_write_anywhere)`: what this user may do here. Tests that need it otherwise are ignored.
fn tell_rights() {
    // The nearest to "another user".
    println!("cargo:rerun-if-env-changed=HOME");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    for (name, capability) in [("can_chown", 0), ("can_write_anywhere", 1), ("can_mount", 21)] {
        println!("cargo:rustc-check-cfg=cfg({name})");
        if capabilities.is_some_and(|bits| bits >> capability & 1 == 1) {
            println!("cargo:rustc-cfg={name}");
        }
    }
}

fn compile_kernels() -> Result<(), String> {
    let out = PathBuf::from(std::env::var("OUT_DIR").map_err(|error| error.to_string())?);
    let capability = std::env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "90".to_owned());
    println!("cargo:rustc-env=GRPO_TUI_COMPUTE_CAPABILITY={}", dotted(&capability));
    let folder = std::fs::read_dir("src/kernels").map_err(|error| format!("src/kernels: {error}"))?;
    let mut sources: Vec<PathBuf> = folder.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    // The few files are independent; each takes some seconds.
    let compiling: Vec<_> = sources.iter().map(|source| (source, start(source, &out, &capability))).collect();
    for (source, child) in compiling {
        let name = source.display();
        let output = child?.wait_with_output().map_err(|error| format!("{name}: {error}"))?;
        if !output.status.success() {
            return Err(format!("nvcc could not compile {name}: {}", String::from_utf8_lossy(&output.stderr).replace('\n', " | ")));
        }
    }
    Ok(())
}

/// `90`, or `90a`, as NVIDIA writes it elsewhere: `9.0`, `9.0a`.
fn dotted(capability: &str) -> String {
    let digits = capability.find(|character: char| !character.is_ascii_digit()).unwrap_or(capability.len());
    let (major, rest) = capability.split_at(digits.saturating_sub(1));
    format!("{major}.{rest}")
}

fn start(source: &Path, out: &Path, capability: &str) -> Result<std::process::Child, String> {
    let stem = source.file_stem().unwrap_or_default();
    let nvcc = std::env::var_os("CUDA_HOME").map_or_else(|| PathBuf::from("nvcc"), |home| PathBuf::from(home).join("bin/nvcc"));
    Command::new(&nvcc)
        .args(["--fatbin", "-O3", "-std=c++17", "--expt-relaxed-constexpr", "-Wno-deprecated-gpu-targets"])
        .arg(format!("-gencode=arch=compute_{capability},code=[sm_{capability},compute_{capability}]"))
        .arg("-o")
        .arg(out.join(stem).with_extension("fatbin"))
        .arg(source)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}; the feature `cuda` needs a CUDA toolkit (docs/gpu.md)", nvcc.display()))
}
