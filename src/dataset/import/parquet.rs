//! Parquet files, as TRL writes completions and Hugging Face datasets: each row as a line of JSON.

use std::fs::File;

use parquet::errors::ParquetError;
use parquet::file::reader::SerializedFileReader;
use parquet::record::Row;
use parquet::record::reader::RowIter;

use crate::dataset::row::NumberedLine;
use crate::format::shortened;
use crate::text::catch_panic::{catch_panic, panic_message};

/// The rows with their numbers (from 1); an error is the last item. Lists and structs become lists and objects, bytes
/// base64, times text; numbers that are not finite null.
///
/// # Errors
/// The file is no Parquet file.
pub fn parquet_lines(file: File) -> Result<impl Iterator<Item = NumberedLine>, String> {
    let reader = guarded(|| SerializedFileReader::new(file))?;
    let mut rows = Some(RowIter::from_file_into(Box::new(reader)));
    Ok((1..).map_while(move |number| {
        // A row may panic here, too: at a time that no calendar has.
        let written = |row: Row| row.to_json_value().to_string().into();
        let line =
            guarded(|| rows.as_mut().and_then(Iterator::next).transpose().map(|row| row.map(written))).transpose()?;
        if line.is_err() {
            rows = None;
        }
        Some(line.map(|line| (number, line)).map_err(|problem| (number, problem)))
    }))
}

/// The reader may panic on a damaged file, and repeats the bytes that it cannot read.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    let problem = match catch_panic(read) {
        Ok(Ok(read)) => return Ok(read),
        Ok(Err(ParquetError::General(problem) | ParquetError::NYI(problem))) => problem,
        Ok(Err(error)) => error.to_string(),
        Err(cause) => panic_message(&*cause).unwrap_or("the reader failed").to_owned(),
    };
    Err(match problem.strip_prefix("Disabled feature at compile time: ") {
        Some(codec) => format!("is compressed with {codec}; write it with snappy or zstd"),
        None => format!("not Parquet, or damaged ({}); write the file anew, or as .jsonl", shortened(&problem, 80)),
    })
}
