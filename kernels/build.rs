//! With the feature `cuda`: compiles every `src/*.cu` to fatbins for each family of GPUs, which the binary carries, and
//! links against jumps (`cuda_link.c`) in place of NVIDIA's libraries, which are looked up at run time.

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

/// Images of the kernels, in the order of `Module::images`: the capability from which each is loaded, nvcc's targets, and
/// what a file of it is called. Products of warpgroups are in 9.0a alone; later cards compile PTX of 9.0 for themselves.
const IMAGES: [(u32, &str, &str); 3] = [
    (80, "-gencode=arch=compute_80,code=[sm_80,compute_80]", "80"),
    (90, "-gencode=arch=compute_90a,code=sm_90a", "90a"),
    (90, "-gencode=arch=compute_90,code=compute_90", "90"),
];

fn compile_kernels(out: &Path) -> Result<(), String> {
    let lowest = std::env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "80".to_owned());
    let lowest: u32 = match lowest.parse() {
        Ok(lowest @ 80..=90) => lowest,
        _ => {
            return Err(format!(
                "CUDA_COMPUTE_CAP is {lowest}: set the lowest compute capability that the program should run on, 80 (every card since Ampere) or 90 (H100 and H200 alone)"
            ));
        }
    };
    println!("cargo:rustc-env=GRPO_TUI_LOWEST_CAPABILITY={lowest}");
    let folder = std::fs::read_dir("src").map_err(|error| format!("kernels/src: {error}"))?;
    let mut sources: Vec<PathBuf> = folder
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    let jobs: Vec<_> = sources
        .iter()
        .flat_map(|source| IMAGES.iter().map(move |image| (source, image)))
        .collect();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        while let Some((source, image)) =
            jobs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
        {
            compile(source, image, lowest, out)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("nvcc".to_owned())))
    })
}

/// Writes an empty file in place of an image that no card of this build loads.
fn compile(
    source: &Path,
    &(capability, target, suffix): &(u32, &str, &str),
    lowest: u32,
    out: &Path,
) -> Result<(), String> {
    let stem = source.file_stem().unwrap_or_default().to_string_lossy();
    let image = out.join(format!("{stem}.{suffix}.fatbin"));
    if capability / 10 < lowest / 10 {
        return std::fs::write(&image, "").map_err(|error| format!("{}: {error}", image.display()));
    }
    output(
        nvcc()
            .args([
                "--fatbin",
                "-O3",
                "-std=c++17",
                "--expt-relaxed-constexpr",
                "-Wno-deprecated-gpu-targets",
                target,
                "-o",
            ])
            .arg(&image)
            .arg(source),
    )
    .map(drop)
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
