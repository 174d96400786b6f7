//! Stands for the reader of Parquet in a build without it.

use std::fs::File;

use crate::dataset::row::NumberedLine;

/// # Errors
/// Always.
pub fn parquet_lines(_: File) -> Result<impl Iterator<Item = NumberedLine>, String> {
    let refused = "built without the feature `parquet`: build with it, or write the file as .jsonl"
        .to_owned();
    Err::<std::iter::Empty<_>, _>(refused)
}
