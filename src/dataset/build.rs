//! The prompt files of a task, written by its generator: always the same bytes.

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
    let mut built = Vec::new();
    for (set, stream) in sets {
        let Some(file) = task.set_file(set) else { continue };
        let rows = generator.rows(stream).unwrap_or(0);
        let mut text = String::new();
        for index in 0..rows {
            let fields = generator.row(stream, index)?.row.fields;
            text.push_str(&serde_json::Value::Object(fields).to_string());
            text.push('\n');
        }
        built.push(BuiltSet { file: file.to_owned(), stream, text, rows });
    }
    Ok(built)
}
