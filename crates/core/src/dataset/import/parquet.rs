//! Parquet files, as TRL writes completions and Hugging Face datasets: each row as a line of JSON.

use std::fs::File;
use std::sync::Arc;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;
use jiff::{SignedDuration, Span, Timestamp};
use parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Value, json};

use crate::dataset::row::NumberedLine;
use crate::format::{grouped, shortened};
use crate::text::catch_panic::{catch_panic, panic_message};

/// Values of a column in one row at most: some bytes can stand for any number of them.
const MAX_ROW_VALUES: i64 = 1 << 24;

/// The rows with their numbers (from 1); an error is the last item. Lists and structs become lists and objects, binary
/// columns the text that they are, times text in ISO 8601 with a zone where the file has one; numbers that are not finite
/// null.
///
/// # Errors
/// The file is no Parquet file, or a row of it may be too large for the memory.
pub fn parquet_lines(file: File) -> Result<impl Iterator<Item = NumberedLine>, String> {
    let reader = guarded(|| SerializedFileReader::new(file))?;
    let schema = reader
        .metadata()
        .file_metadata()
        .schema_descr()
        .root_schema_ptr();
    check_row_values(&reader)?;
    let mut rows = Some(RowIter::from_file_into(Box::new(reader)));
    Ok((1..).map_while(move |number| {
        let row = guarded(|| rows.as_mut().and_then(Iterator::next).transpose()).transpose()?;
        let line = row.and_then(|row| Ok(object(&row, schema.get_fields())?.to_string().into()));
        if line.is_err() {
            rows = None;
        }
        Some(
            line.map(|line| (number, line))
                .map_err(|problem| (number, problem)),
        )
    }))
}

/// A row has a value of each column at least: what a row group has beside that may all be of one row.
fn check_row_values(reader: &impl FileReader) -> Result<(), String> {
    for group in reader.metadata().row_groups() {
        for column in group.columns() {
            let most = column.num_values().saturating_sub(group.num_rows());
            if most > MAX_ROW_VALUES {
                let (name, limit) = (
                    shortened(&column.column_path().string(), 60),
                    grouped(MAX_ROW_VALUES as u64),
                );
                return Err(format!(
                    "column `{name}`: a row group has {} values in {} rows, and one row may have {limit} at most; write smaller row groups",
                    grouped(column.num_values().unsigned_abs()),
                    grouped(group.num_rows().unsigned_abs())
                ));
            }
        }
    }
    Ok(())
}

/// The reader may panic on a damaged file, and repeats the bytes that it cannot read.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    let problem = match catch_panic(read) {
        Ok(Ok(read)) => return Ok(read),
        Ok(Err(ParquetError::General(problem) | ParquetError::NYI(problem))) => problem,
        Ok(Err(error)) => error.to_string(),
        Err(cause) => panic_message(&*cause)
            .unwrap_or("the reader failed")
            .to_owned(),
    };
    Err(format!(
        "not Parquet, or damaged ({}); write the file again, or as .jsonl",
        shortened(&problem, 80)
    ))
}

/// A row or a struct, whose fields have these types.
fn object(row: &Row, kinds: &[Arc<Type>]) -> Result<Value, String> {
    let value = |(index, (name, field)): (usize, (&String, &Field))| {
        let value = value(field, kinds.get(index).map(Arc::as_ref));
        Ok((
            name.clone(),
            value.map_err(|problem| format!("column `{}`: {problem}", shortened(name, 60)))?,
        ))
    };
    row.get_column_iter()
        .enumerate()
        .map(value)
        .collect::<Result<_, String>>()
        .map(Value::Object)
}

/// `kind`: the type in the schema, where it is known.
fn value(field: &Field, kind: Option<&Type>) -> Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => json!(value),
        Field::Byte(value) => json!(value),
        Field::Short(value) => json!(value),
        Field::Int(value) => json!(value),
        Field::Long(value) => match kind.and_then(nanoseconds) {
            Some(is_utc) => instant(Timestamp::from_nanosecond(i128::from(*value)), is_utc)?,
            None => json!(value),
        },
        Field::UByte(value) => json!(value),
        Field::UShort(value) => json!(value),
        Field::UInt(value) => json!(value),
        Field::ULong(value) => json!(value),
        Field::Float16(value) => json!(value.to_f32()),
        Field::Float(value) => json!(f64::from(*value)),
        Field::Double(value) => json!(value),
        Field::Decimal(_) => json!(field.to_string()),
        Field::Str(text) => json!(text),
        Field::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes.data());
            json!(text.map_err(
                |_| "binary, and not UTF-8 text; write the file without this column, or as text"
            )?)
        }
        Field::Date(days) => date(*days)?,
        Field::TimeMillis(time) => time_of_day(i64::from(*time) * 1000)?,
        Field::TimeMicros(time) => time_of_day(*time)?,
        Field::TimestampMillis(time) => {
            instant(Timestamp::from_millisecond(*time), kind.is_some_and(is_utc))?
        }
        Field::TimestampMicros(time) => {
            instant(Timestamp::from_microsecond(*time), kind.is_some_and(is_utc))?
        }
        Field::Group(row) => object(row, kind.map_or(&[], fields))?,
        Field::ListInternal(list) => {
            let kind = kind.and_then(item_type);
            list.elements()
                .iter()
                .map(|item| value(item, kind))
                .collect::<Result<_, _>>()?
        }
        Field::MapInternal(map) => {
            let kinds = kind
                .and_then(|kind| fields(kind).first())
                .map_or(&[][..], |pair| fields(pair));
            let entry = |(key, item): &(Field, Field)| -> Result<(String, Value), String> {
                let key = value(key, kinds.first().map(Arc::as_ref))?;
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                Ok((key, value(item, kinds.get(1).map(Arc::as_ref))?))
            };
            Value::Object(map.entries().iter().map(entry).collect::<Result<_, _>>()?)
        }
    })
}

fn fields(kind: &Type) -> &[Arc<Type>] {
    if kind.is_group() {
        kind.get_fields()
    } else {
        &[]
    }
}

/// The type of a list's items, as writers of all ages nest it.
fn item_type(kind: &Type) -> Option<&Type> {
    let info = kind.get_basic_info();
    if info.has_repetition() && info.repetition() == Repetition::REPEATED {
        return Some(kind);
    }
    let repeated = fields(kind).first()?;
    let is_wrapped = fields(repeated).len() == 1
        && repeated.name() != "array"
        && !repeated.name().ends_with("_tuple");
    if is_wrapped {
        fields(repeated).first().map(Arc::as_ref)
    } else {
        Some(repeated)
    }
}

/// Whether a time names an instant, not the time on some clock.
fn is_utc(kind: &Type) -> bool {
    let info = kind.get_basic_info();
    match info.logical_type_ref() {
        Some(LogicalType::Timestamp(time)) => time.is_adjusted_to_u_t_c,
        // Older files say so by the converted type; 96-bit timestamps say nothing.
        _ => matches!(
            info.converted_type(),
            ConvertedType::TIMESTAMP_MILLIS | ConvertedType::TIMESTAMP_MICROS
        ),
    }
}

/// As [`is_utc`], for timestamps in nanoseconds; else `None`.
fn nanoseconds(kind: &Type) -> Option<bool> {
    match kind.get_basic_info().logical_type_ref() {
        Some(LogicalType::Timestamp(time)) if time.unit == TimeUnit::NANOS => {
            Some(time.is_adjusted_to_u_t_c)
        }
        _ => None,
    }
}

const NO_TIME: &str = "a time outside of the calendar; write it as text";

fn instant(time: Result<Timestamp, jiff::Error>, is_utc: bool) -> Result<Value, String> {
    let time = time.map_err(|_| NO_TIME)?;
    Ok(json!(if is_utc {
        time.to_string()
    } else {
        Offset::UTC.to_datetime(time).to_string()
    }))
}

fn date(days: i32) -> Result<Value, String> {
    let first: Date = DateTime::constant(1970, 1, 1, 0, 0, 0, 0).date();
    let span = Span::new().try_days(days).map_err(|_| NO_TIME)?;
    Ok(json!(
        first.checked_add(span).map_err(|_| NO_TIME)?.to_string()
    ))
}

fn time_of_day(microseconds: i64) -> Result<Value, String> {
    let time = Time::midnight().checked_add(SignedDuration::from_micros(microseconds));
    Ok(json!(time.map_err(|_| NO_TIME)?.to_string()))
}
