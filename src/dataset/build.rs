//! The prompt files of a task, written by its generator: always the same bytes.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{DatasetError, Generator, Stream};
use crate::task::{PromptSet, Task};

/// One file that the generator makes.
#[derive(Clone, Debug)]
pub struct BuiltSet {
    /// The file's name in the task's folder.
    pub file: String,
    /// Which rows.
    pub stream: Stream,
    /// JSONL.
    pub text: String,
    /// How many lines.
    pub rows: u64,
}

/// The sets that the task names, in the order train, eval, proof.
pub fn build(task: &Task) -> Result<Vec<BuiltSet>, DatasetError> {
    let generator = Generator::load(task)?;
    let sets = [(PromptSet::Train, Stream::Train), (PromptSet::Eval, Stream::Eval), (PromptSet::Proof, Stream::Proof)];
    sets.iter().filter_map(|&(set, stream)| Some(built(&generator, task.set_file(set)?, stream))).collect()
}

fn built(generator: &Generator, file: &str, stream: Stream) -> Result<BuiltSet, DatasetError> {
    let rows = generator.rows(stream).unwrap_or(0);
    let mut text = String::new();
    for index in 0..rows {
        let fields = generator.row(stream, index)?.row.fields;
        text.push_str(&serde_json::Value::Object(fields).to_string());
        text.push('\n');
    }
    Ok(BuiltSet { file: file.to_owned(), stream, text, rows })
}

impl BuiltSet {
    /// Writes the file into a folder (made if missing) and gives its path. What stood there stays whole until the new file is.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, DatasetError> {
        let path = folder.join(&self.file);
        let parent = path.parent().unwrap_or(folder);
        let replace = || {
            std::fs::create_dir_all(parent)?;
            let partial = path.with_extension(format!("partial-{}", std::process::id()));
            let written = std::fs::File::create(&partial)
                .and_then(|mut file| file.write_all(self.text.as_bytes()).and_then(|()| file.sync_all()))
                .and_then(|()| std::fs::rename(&partial, &path));
            written.inspect_err(|_| drop(std::fs::remove_file(&partial)))
        };
        match replace() {
            Ok(()) => Ok(path),
            Err(source) => {
                let remedy = "check the free space and the permissions, or write elsewhere with --out DIR";
                Err(DatasetError::File { path: path.display().to_string(), source, remedy })
            }
        }
    }

    /// The first line (1-based) on which stored bytes differ from the built ones.
    pub fn first_difference(&self, stored: &[u8]) -> Option<usize> {
        let built = self.text.as_bytes();
        if built == stored {
            return None;
        }
        let same = built.iter().zip(stored).take_while(|(left, right)| left == right).count();
        Some(built[..same].iter().filter(|&&byte| byte == b'\n').count() + 1)
    }
}
