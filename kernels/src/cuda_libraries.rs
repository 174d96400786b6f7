//! NVIDIA's libraries, loaded at run time on first use of a GPU: one binary runs with and without a
//! driver. See also `cuda_link.c`.

/// Driver and CUDA libraries loaded at run time. Versions in NVIDIA's form: 13000 is 13.0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CudaLibraries {
    /// Toolkit version of the build; `None` without the feature `cuda`.
    pub built_with: Option<u32>,
    /// Newest version supported by the driver (the build's if unknown); `None` without a driver.
    pub driver: Option<u32>,
    /// Required toolkit libraries with their files; `None` if a library, or one it depends on, is
    /// missing.
    pub files: Vec<(String, Option<String>)>,
}

impl CudaLibraries {
    /// Why no GPU can be used.
    pub fn problem(&self) -> Option<String> {
        let Some(built_with) = self.built_with else {
            return Some(
                "this build has no CUDA: build with `--features cuda` (docs/gpu.md)".to_owned(),
            );
        };
        let Some(driver) = self.driver else {
            return Some(
                "no NVIDIA driver: libcuda.so.1 was not found; in a container, start it with its GPU (`--gpus all`)"
                    .to_owned(),
            );
        };
        let missing: Vec<&str> = self
            .files
            .iter()
            .filter(|(_, file)| file.is_none())
            .map(|(name, _)| name.as_str())
            .collect();
        if !missing.is_empty() {
            let (names, version) = (missing.join(" and "), built_with / 1000);
            return Some(format!(
                "{names} not found: install CUDA {version}, or name the folder of its libraries in LD_LIBRARY_PATH"
            ));
        }
        // Also a minor version: it does not compile the PTX of a newer toolkit.
        (driver < built_with).then(|| {
            let (serves, needs) = (version(driver), version(built_with));
            format!(
                "the driver supports CUDA {serves}, but this program was built with {needs}: update the driver, or build with an older toolkit"
            )
        })
    }

    /// Libraries that this process has loaded.
    pub fn found() -> &'static Self {
        #[cfg(not(feature = "cuda"))]
        return const {
            &Self {
                built_with: None,
                driver: None,
                files: Vec::new(),
            }
        };
        #[cfg(feature = "cuda")]
        {
            static FOUND: std::sync::LazyLock<CudaLibraries> = std::sync::LazyLock::new(load::all);
            &FOUND
        }
    }
}

/// `13.0` for 13000.
pub fn version(number: u32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

#[cfg(feature = "cuda")]
pub(crate) use load::{file_of, open_library};

#[cfg(feature = "cuda")]
mod load {
    use std::ffi::{CStr, CString, c_int, c_void};
    use std::path::{Path, PathBuf};

    use candle_core::cuda_backend::cudarc::driver::sys;

    use super::CudaLibraries;

    unsafe extern "C" {
        /// Binds a library's functions, by its number in `cuda_link.c`.
        fn grpo_tui_cuda_bind(library: c_int, handle: *mut c_void);
    }

    pub(super) fn all() -> CudaLibraries {
        let built_with = env!("GRPO_TUI_CUDA_VERSION").parse().ok();
        let driver = load(0, "libcuda.so.1", c"cuInit").ok().and_then(|_| {
            let mut version = 0;
            // SAFETY: the function is the driver's by now, needs no initialisation and writes one number.
            let status = unsafe { sys::cuDriverGetVersion(&raw mut version) };
            // The toolkit's stub reports none; the first CUDA call then shows what it is.
            status
                .result()
                .ok()
                .and(u32::try_from(version).ok())
                .or(built_with)
        });
        let cublas = concat!("libcublas.so.", env!("GRPO_TUI_CUBLAS_VERSION"));
        let curand = concat!("libcurand.so.", env!("GRPO_TUI_CURAND_VERSION"));
        // Without a driver they would map half a gigabyte for nothing.
        let libraries = if driver.is_some() {
            vec![
                (1, cublas, c"cublasCreate_v2"),
                (2, curand, c"curandCreateGenerator"),
            ]
        } else {
            Vec::new()
        };
        let files =
            libraries
                .into_iter()
                .map(|(number, name, symbol)| match load(number, name, symbol) {
                    Ok(file) => (name.to_owned(), Some(file)),
                    Err(missing) => (missing, None),
                });
        CudaLibraries {
            built_with,
            driver,
            files: files.collect(),
        }
    }

    /// Opens and binds a library; returns its file, or the missing library's name.
    fn load(number: c_int, name: &str, symbol: &CStr) -> Result<String, String> {
        let handle = open_library(name)?;
        // SAFETY: the handle is open and never closed.
        unsafe { grpo_tui_cuda_bind(number, handle) };
        Ok(file_of(handle, symbol).unwrap_or_else(|| name.to_owned()))
    }

    /// Opens a library by the system's loader, else in the usual folders, and keeps it open. The
    /// error names the missing library: this one, or a dependency.
    pub(crate) fn open_library(name: &str) -> Result<*mut c_void, String> {
        let mut missing = name.to_owned();
        std::iter::once(PathBuf::from(name))
            .chain(folders().into_iter().map(|folder| folder.join(name)))
            .find_map(|path| open(path, &mut missing))
            .ok_or(missing)
    }

    /// File of an open library that contains `symbol`; `None` if unknown.
    pub(crate) fn file_of(library: *mut c_void, symbol: &CStr) -> Option<String> {
        // SAFETY: the library is open and never closed; dladdr writes the structure that it is given, and the name in it
        // lives as long as the library.
        unsafe {
            let mut place: libc::Dl_info = std::mem::zeroed();
            let is_known = libc::dladdr(libc::dlsym(library, symbol.as_ptr()), &raw mut place) != 0;
            (is_known && !place.dli_fname.is_null()).then(|| {
                CStr::from_ptr(place.dli_fname)
                    .to_string_lossy()
                    .into_owned()
            })
        }
    }

    /// Sets `missing` to a dependency if that is what is missing.
    fn open(path: PathBuf, missing: &mut String) -> Option<*mut c_void> {
        let path = CString::new(path.into_os_string().into_encoded_bytes()).ok()?;
        // SAFETY: NVIDIA's libraries may be initialised from any thread; dlerror's text is read before this thread's next
        // call of the loader.
        unsafe {
            let handle = libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL);
            if !handle.is_null() {
                return Some(handle);
            }
            let error = libc::dlerror();
            let message = (!error.is_null()).then(|| CStr::from_ptr(error).to_string_lossy())?;
            let (library, _) = message.split_once(": cannot open shared object file")?;
            if library.as_bytes() != path.as_bytes() {
                library.clone_into(missing);
            }
        }
        None
    }

    /// Toolkit and driver folders unknown to the system's loader.
    fn folders() -> Vec<PathBuf> {
        let of = |name: &str, rest: &str| {
            std::env::var_os(name)
                .filter(|folder| !folder.is_empty())
                .map(|folder| PathBuf::from(folder).join(rest))
        };
        // Downloaded by scripts/cuda-toolkit.
        let fetched = of("GRPO_TUI_CUDA", "lib")
            .or_else(|| of("XDG_CACHE_HOME", "grpo-tui/cuda-13.0/lib"))
            .or_else(|| of("HOME", ".cache/grpo-tui/cuda-13.0/lib"));
        let homes = ["CUDA_HOME", "CUDA_PATH"].map(|name| of(name, "lib64"));
        let usual = [
            "/usr/local/cuda/lib64",
            "/opt/cuda/lib64",
            "/usr/lib/wsl/lib",
            "/run/opengl-driver/lib",
        ];
        homes
            .into_iter()
            .chain([fetched])
            .flatten()
            .chain(wheels())
            .chain(usual.map(PathBuf::from))
            .collect()
    }

    /// NVIDIA's wheels in this program's Python environment (`pip install grpo-tui[cuda13]`).
    fn wheels() -> Vec<PathBuf> {
        let program = std::env::current_exe().ok();
        let library = program
            .as_deref()
            .and_then(Path::parent)
            .and_then(Path::parent)
            .map(|root| root.join("lib"));
        let entries = library
            .and_then(|folder| std::fs::read_dir(folder).ok())
            .into_iter()
            .flatten()
            .flatten();
        let major = env!("GRPO_TUI_CUDA_VERSION")
            .parse::<u32>()
            .unwrap_or_default()
            / 1000;
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
            .flat_map(|entry| {
                let wheels = entry.path().join("site-packages/nvidia");
                [
                    wheels.join(format!("cu{major}/lib")),
                    wheels.join("nccl/lib"),
                ]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thing_that_is_missing_is_named() {
        let check = |built_with, driver, files: &[(&str, bool)], expected: Option<&str>| {
            let file = |(name, is_found): &(&str, bool)| {
                ((*name).to_owned(), is_found.then(|| format!("/lib/{name}")))
            };
            let problem = CudaLibraries {
                built_with,
                driver,
                files: files.iter().map(file).collect(),
            }
            .problem();
            match expected {
                None => assert_eq!(problem, None),
                Some(part) => {
                    assert!(
                        problem.as_deref().is_some_and(|text| text.contains(part)),
                        "{problem:?} lacks {part:?}"
                    )
                }
            }
        };
        let all = [("libcublas.so.13", true), ("libcurand.so.10", true)];
        let none = [("libcublas.so.13", false), ("libcurand.so.10", false)];
        check(None, None, &[], Some("this build has no CUDA"));
        check(
            Some(13000),
            None,
            &[],
            Some("no NVIDIA driver: libcuda.so.1"),
        );
        check(
            Some(13000),
            Some(13000),
            &none,
            Some("libcublas.so.13 and libcurand.so.10 not found: install CUDA 13"),
        );
        check(
            Some(13000),
            Some(13000),
            &[all[0], none[1]],
            Some("libcurand.so.10 not found"),
        );
        check(
            Some(13000),
            Some(12080),
            &all,
            Some("the driver supports CUDA 12.8, but this program was built with 13.0"),
        );
        // It does not compile PTX of 13.2.
        check(
            Some(13020),
            Some(13000),
            &all,
            Some("the driver supports CUDA 13.0, but this program was built with 13.2"),
        );
        check(Some(12040), Some(13010), &all, None);
    }
}
