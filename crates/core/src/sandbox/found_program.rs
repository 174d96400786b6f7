//! Programs at the time they are trusted: paths, contents, interpreters.

use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::installed::{interpreter_words, located, path_of};
use super::trust_notes::ProgramDigest;
use crate::files;

const MAX_INTERPRETERS: usize = 8;
/// Bytes of a script searched for its interpreter.
const MAX_LINE_BYTES: usize = 4_096;
const PIECE: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundProgram {
    pub(super) name: String,
    /// The program, unless it is a task file, then its interpreters.
    pub(super) files: Vec<FoundFile>,
    is_of_task: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FoundFile {
    pub(super) path: PathBuf,
    pub(super) real: PathBuf,
    pub(super) is_script: bool,
    /// SHA-256 in hex.
    digest: String,
    state: FileState,
}

/// Size, modification and change time: equal as long as nobody writes to the file.
type FileState = (u64, (i64, i64), (i64, i64));

impl FoundProgram {
    /// `folder`: the task's. `files`: those copied for the program.
    pub(crate) fn find(name: &str, folder: &Path, files: &[(String, Vec<u8>)]) -> Self {
        let mut program = Self {
            name: name.to_owned(),
            files: Vec::new(),
            is_of_task: false,
        };
        let copied = files.iter().find(|(file, _)| names_copy(name, file));
        let mut next = match copied {
            Some((_, bytes)) => {
                program.is_of_task = true;
                interpreters(&bytes[..bytes.len().min(MAX_LINE_BYTES)])
            }
            None => vec![path_of(name, folder)],
        };
        // `#!/usr/bin/env NAME` names two.
        while program.files.len() < MAX_INTERPRETERS && !next.is_empty() {
            let found = located(&next.remove(0)).and_then(|path| FoundFile::read(path).ok());
            let Some((file, start)) = found else { continue };
            program.files.push(file);
            next.extend(interpreters(&start));
        }
        program
    }

    pub(crate) fn add_to(&self, digest: &mut ProgramDigest) {
        digest.add(&[b"program", self.name.as_bytes()]);
        for FoundFile {
            path,
            real,
            digest: content,
            ..
        } in &self.files
        {
            digest.add(&[
                path.as_os_str().as_encoded_bytes(),
                real.as_os_str().as_encoded_bytes(),
                content.as_bytes(),
            ]);
        }
    }

    /// Executed files, one per line: path, link target, interpreter.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.files.iter().enumerate().map(|(index, file)| {
            let by = if index > 0 || self.is_of_task {
                "by "
            } else {
                ""
            };
            let (path, real) = (file.path.display(), file.real.display());
            if file.path == file.real {
                format!("{by}{path}")
            } else {
                format!("{by}{path} -> {real}")
            }
        })
    }

    pub(super) fn started(&self) -> Option<&FoundFile> {
        self.files.first().filter(|_| !self.is_of_task)
    }
}

impl FoundFile {
    /// The file, and its first bytes.
    fn read(path: PathBuf) -> std::io::Result<(Self, Vec<u8>)> {
        let real = path.canonicalize()?;
        let mut start = Vec::new();
        let (digest, state) = match files::open(&real) {
            Ok(mut file) => {
                let state = state(&file.metadata()?);
                Read::by_ref(&mut file)
                    .take(MAX_LINE_BYTES as u64)
                    .read_to_end(&mut start)?;
                (digest(&real, state, &start, file)?, state)
            }
            // Executable but not readable.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let state = state(&std::fs::metadata(&real)?);
                (format!("{state:?}"), state)
            }
            Err(error) => return Err(error),
        };
        let file = Self {
            is_script: start.starts_with(b"#!"),
            path,
            real,
            digest,
            state,
        };
        Ok((file, start))
    }

    /// Whether the content is unchanged; `at`: its path, or its link target then. Compares times,
    /// else (after a reinstallation) bytes, which are then read at each start until the task is
    /// read again.
    pub(super) fn is_unchanged(&self, at: &Path) -> bool {
        let is_same_file = std::fs::metadata(at).is_ok_and(|found| state(&found) == self.state);
        let digest = || hashed(&[], &mut files::open(at)?);
        is_same_file || digest().is_ok_and(|digest| digest == self.digest)
    }
}

pub(super) fn names_copy(program: &str, file: &str) -> bool {
    let parts = |path| {
        Path::new(path)
            .components()
            .filter(|part| *part != Component::CurDir)
    };
    program.contains('/') && parts(program).eq(parts(file))
}

fn interpreters(start: &[u8]) -> Vec<PathBuf> {
    let words = interpreter_words(start);
    let Some((first, rest)) = words.split_first() else {
        return Vec::new();
    };
    let mut named = vec![PathBuf::from(first)];
    if Path::new(first)
        .file_name()
        .is_some_and(|name| name == "env")
    {
        let program = rest
            .iter()
            .find(|word| !word.starts_with('-') && !word.contains('='));
        named.extend(program.map(PathBuf::from));
    }
    named
}

fn state(found: &std::fs::Metadata) -> FileState {
    (
        found.size(),
        (found.mtime(), found.mtime_nsec()),
        (found.ctime(), found.ctime_nsec()),
    )
}

/// SHA-256 of a file whose beginning was read; cached for an unchanged file.
fn digest(
    real: &Path,
    state: FileState,
    start: &[u8],
    mut file: impl Read,
) -> std::io::Result<String> {
    static KNOWN: Mutex<Option<HashMap<(PathBuf, FileState), String>>> = Mutex::new(None);
    let key = (real.to_owned(), state);
    let known = |known: &HashMap<_, String>| known.get(&key).cloned();
    let lock = || KNOWN.lock();
    if let Some(digest) = lock().as_ref().and_then(known) {
        return Ok(digest);
    }
    let digest = hashed(start, &mut file)?;
    lock().get_or_insert_default().insert(key, digest.clone());
    Ok(digest)
}

fn hashed(start: &[u8], file: &mut impl Read) -> std::io::Result<String> {
    let mut hash = Sha256::new_with_prefix(start);
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(crate::format::hex(&hash.finalize())),
            count => hash.update(&piece[..count]),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_runs_is_in_the_digest_of_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().canonicalize().unwrap();
        let write = |name: &str, text: &str| {
            let path = here.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let interpreter = write("bin/run", "one");
        let text = format!("#!{}\nx\n", interpreter.display());
        write("a/tool", &text);
        fs::create_dir_all(here.join("a/task/.venv/bin")).unwrap();
        fs::create_dir_all(here.join("b/task/.venv/bin")).unwrap();
        symlink(&interpreter, here.join("a/task/.venv/bin/python")).unwrap();
        symlink(&interpreter, here.join("b/task/.venv/bin/python")).unwrap();
        write("b/tool", &text);
        let digest = |folder: &str, name: &str, files: &[(String, Vec<u8>)]| {
            let mut digest = ProgramDigest::default();
            let found = FoundProgram::find(name, &here.join(folder), files);
            found.add_to(&mut digest);
            (digest.hex(), found.lines().collect::<Vec<_>>())
        };
        let copied = [("tool".to_owned(), text.clone().into_bytes())];
        let all = || {
            let relative = |folder| digest(folder, "../tool", &[]).0;
            let linked = |folder| digest(folder, ".venv/bin/python", &[]).0;
            let copied = digest("a/task", "./tool", &copied).0;
            [
                relative("a/task"),
                relative("b/task"),
                linked("a/task"),
                linked("b/task"),
                copied,
            ]
        };
        let before = all();
        assert!((1..5).all(|index| before[..index].iter().all(|other| *other != before[index])));
        assert_eq!(all(), before);
        let shown = interpreter.display();
        assert_eq!(
            digest("a/task", ".venv/bin/python", &[]).1,
            [format!(
                "{}/a/task/.venv/bin/python -> {shown}",
                here.display()
            )]
        );
        assert_eq!(
            digest("a/task", "./tool", &copied).1,
            [format!("by {shown}")]
        );
        let found = FoundProgram::find("../tool", &here.join("a/task"), &[]);
        let is_unchanged = |file: &FoundFile| file.is_unchanged(&file.path);
        assert!(found.files.iter().all(is_unchanged));
        // The interpreter's content is part of all of them.
        write("bin/run", "two");
        assert!(!is_unchanged(&found.files[1]));
        let after = all();
        assert!(
            after
                .iter()
                .zip(&before)
                .all(|(after, before)| after != before)
        );
        // Restored: trust is by content.
        write("bin/run", "one");
        assert_eq!(all(), before);
        assert!(found.files.iter().all(is_unchanged));
    }
}
