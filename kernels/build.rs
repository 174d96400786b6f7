//! With the feature `cuda`: compiles every `src/*.cu` to a fatbin (machine code for one capability, and PTX for
//! later ones) that the binary carries, and links against jumps (`cuda_link.c`) in place of NVIDIA's libraries, which
//! are looked up at run time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-env-changed=CUDA_COMPUTE_CAP");
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some()
        && let Err(message) = build_for_cuda()
    {
        println!("cargo::error={message}");
    }
}

fn build_for_cuda() -> Result<(), String> {
    let out = PathBuf::from(std::env::var("OUT_DIR").map_err(|error| error.to_string())?);
    compile_kernels(&out)?;
    link_at_run_time(&out)
}

fn compile_kernels(out: &Path) -> Result<(), String> {
    let capability = std::env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "90".to_owned());
    println!(
        "cargo:rustc-env=GRPO_TUI_COMPUTE_CAPABILITY={}",
        dotted(&capability)
    );
    let folder = std::fs::read_dir("src").map_err(|error| format!("kernels/src: {error}"))?;
    let mut sources: Vec<PathBuf> = folder
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    // The few files are independent; each takes some seconds.
    let compiling: Vec<_> = sources
        .iter()
        .map(|source| (source, start(source, out, &capability)))
        .collect();
    for (source, child) in compiling {
        let name = source.display();
        let output = child?
            .wait_with_output()
            .map_err(|error| format!("{name}: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "nvcc could not compile {name}: {}",
                String::from_utf8_lossy(&output.stderr).replace('\n', " | ")
            ));
        }
    }
    Ok(())
}

/// `90`, or `90a`, as NVIDIA writes it elsewhere: `9.0`, `9.0a`.
fn dotted(capability: &str) -> String {
    let digits = capability
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(capability.len());
    let (major, rest) = capability.split_at(digits.saturating_sub(1));
    format!("{major}.{rest}")
}

fn start(source: &Path, out: &Path, capability: &str) -> Result<std::process::Child, String> {
    let stem = source.file_stem().unwrap_or_default();
    nvcc()
        .args([
            "--fatbin",
            "-O3",
            "-std=c++17",
            "--expt-relaxed-constexpr",
            "-Wno-deprecated-gpu-targets",
        ])
        .args(targets(capability))
        .arg("-o")
        .arg(out.join(stem).with_extension("fatbin"))
        .arg(source)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .map_err(|error| {
            format!("nvcc: {error}; the feature `cuda` needs a CUDA toolkit (docs/gpu.md)")
        })
}

/// Machine code for the capability, and what later ones compile for themselves. Products of warpgroups are in 9.0a alone.
fn targets(capability: &str) -> Vec<String> {
    match capability {
        "90" => {
            vec![
                "-gencode=arch=compute_90a,code=sm_90a".to_owned(),
                "-gencode=arch=compute_90,code=compute_90".to_owned(),
            ]
        }
        other => vec![format!(
            "-gencode=arch=compute_{other},code=[sm_{other},compute_{other}]"
        )],
    }
}

fn nvcc() -> Command {
    Command::new(std::env::var_os("CUDA_HOME").map_or_else(
        || PathBuf::from("nvcc"),
        |home| PathBuf::from(home).join("bin/nvcc"),
    ))
}

/// A folder that the linker searches first, with an archive in place of each library that cudarc and candle name.
fn link_at_run_time(out: &Path) -> Result<(), String> {
    let folder = out.join("link");
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let headers = out.join("headers.cpp");
    let includes = ["cuda.h", "cublas_v2.h", "cublasLt.h", "curand.h", "nvrtc.h"]
        .map(|header| format!("#include <{header}>\n"))
        .concat();
    write(
        &headers,
        &format!("{includes}versions: CUDA_VERSION CUBLAS_VER_MAJOR CURAND_VER_MAJOR\n"),
    )?;
    let declared = output(nvcc().arg("-E").arg(&headers))?;
    let versions = declared
        .lines()
        .find_map(|line| line.strip_prefix("versions: "))
        .unwrap_or_default();
    let [cuda, cublas, curand] = versions.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!(
            "NVIDIA's headers do not tell their versions: {versions:?}"
        ));
    };
    println!("cargo:rustc-env=GRPO_TUI_CUDA_VERSION={cuda}");
    println!("cargo:rustc-env=GRPO_TUI_CUBLAS_VERSION={cublas}");
    println!("cargo:rustc-env=GRPO_TUI_CURAND_VERSION={curand}");
    let functions: String = functions(&declared)
        .iter()
        .map(|(name, library)| format!("F({name}, {library})\n"))
        .collect();
    write(&out.join("functions.h"), &functions)?;
    let object = out.join("cuda_link.o");
    output(
        nvcc()
            .args(["-c", "-O2", "-Xcompiler", "-fPIC", "src/cuda_link.c", "-o"])
            .arg(&object)
            .arg("-I")
            .arg(out),
    )?;
    output(
        nvcc()
            .arg("-lib")
            .arg(&object)
            .arg("-o")
            .arg(folder.join("libcuda.a")),
    )?;
    for name in ["libcublas.a", "libcublasLt.a", "libcurand.a", "libnvrtc.a"] {
        write(&folder.join(name), "!<arch>\n")?; // an archive without members
    }
    // For candle's kernels, which are registered when the program starts: these two have archives of their own.
    for name in ["libcudart", "libstdc++"] {
        let archive = static_library(&format!("{}.a", name.replace("cudart", "cudart_static")))?;
        let link = folder.join(name).with_extension("a");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&archive, &link)
            .map_err(|error| format!("{}: {error}", link.display()))?;
    }
    println!("cargo:rustc-link-search=native={}", folder.display());
    if std::env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("-L")) {
        println!(
            "cargo::warning=RUSTFLAGS has -L: a folder with NVIDIA's libraries would be searched before {}",
            folder.display()
        );
    }
    // What the static CUDA runtime needs where these are not yet part of the C library.
    for library in ["dl", "pthread", "rt"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
    Ok(())
}

/// Every function that the headers declare, with its library as `cuda_link.c` names it.
fn functions(declared: &str) -> BTreeSet<(&str, &str)> {
    let prefixes = [
        ("cublasLt", "unused"),
        ("cublas", "cublas"),
        ("curand", "curand"),
        ("nvrtc", "unused"),
        ("cu", "driver"),
    ];
    let words = declared
        .split(|character: char| !(character.is_ascii_alphanumeric() || "_(".contains(character)));
    let names = words
        .filter_map(|word| word.split_once('('))
        .map(|(name, _)| name);
    let library = |name: &str| {
        let fits = |prefix: &str| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_uppercase()))
        };
        prefixes
            .iter()
            .find(|(prefix, _)| fits(prefix))
            .map(|(_, library)| *library)
    };
    names
        .filter_map(|name| Some((name, library(name)?)))
        .collect()
}

/// Where nvcc, or the C++ compiler, links that archive from.
fn static_library(name: &str) -> Result<PathBuf, String> {
    let empty = PathBuf::from(std::env::var("OUT_DIR").unwrap_or_default()).join("empty.cu");
    std::fs::write(&empty, "").map_err(|error| format!("{}: {error}", empty.display()))?;
    let plan = nvcc()
        .arg("--dryrun")
        .arg(&empty)
        .output()
        .map_err(|error| format!("nvcc: {error}"))?;
    let plan = String::from_utf8_lossy(&plan.stderr).into_owned();
    let folders = plan
        .split('"')
        .filter_map(|word| word.strip_prefix("-L"))
        .map(|folder| Path::new(folder).join(name));
    let compiler = Command::new("c++")
        .arg(format!("-print-file-name={name}"))
        .output()
        .ok();
    let told = compiler.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    folders
        .chain(told)
        .find(|path| path.is_file())
        .ok_or_else(|| format!("{name} was found neither by nvcc nor by c++"))
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| {
        format!("nvcc: {error}; the feature `cuda` needs a CUDA toolkit (docs/gpu.md)")
    })?;
    if !output.status.success() {
        return Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).replace('\n', " | ")
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
