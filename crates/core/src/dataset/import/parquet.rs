//! Reads Parquet (TRL completions, Hugging Face datasets), each row as a JSON line.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::rc::Rc;
use std::sync::Arc;

use jiff::civil::{Date, DateTime, Time};
use jiff::{SignedDuration, Span};
use parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as PhysicalType};
use parquet::column::reader::ColumnReader;
use parquet::data_type::Int96;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Value, json};

use super::arrow_schema::{Durations, durations};
use crate::dataset::row::NumberedLine;
use crate::exact_json;
use crate::format::{grouped, shortened};
use crate::text::catch_panic::{catch_panic, panic_message};

/// Limit per column and row: a few bytes can encode any number of values.
const MAX_ROW_VALUES: i64 = 1 << 24;
/// Limit of stored 96-bit times; no import reads more rows.
const MAX_TIMES: usize = 1_000_000;
const NANOSECONDS_IN_DAY: i128 = 86_400_000_000_000;

/// Binary members that the rows lack, such as `picture.bytes`.
pub type LeftOut = Rc<RefCell<BTreeSet<String>>>;

/// Yields rows numbered from 1; an error is the last item. Lists and structs become lists and
/// objects, binary columns text if they are UTF-8 (else they are left out), durations ISO 8601 text, times ISO 8601 text with the zone if known, non-finite numbers
/// null; decimals are exact.
///
/// # Errors
/// Not a Parquet file, or a row that may be too large for memory.
pub fn parquet_lines(
    file: File,
    left_out: LeftOut,
) -> Result<impl Iterator<Item = NumberedLine>, String> {
    let reader = guarded(|| SerializedFileReader::new(file))?;
    let schema = reader
        .metadata()
        .file_metadata()
        .schema_descr()
        .root_schema_ptr();
    check_row_values(&reader)?;
    let times = guarded(|| int96_columns(&reader))?;
    let metadata = reader.metadata().file_metadata().key_value_metadata();
    let arrow = metadata
        .into_iter()
        .flatten()
        .find(|pair| pair.key == "ARROW:schema");
    let durations = arrow.and_then(|pair| durations(pair.value.as_deref()?));
    let mut rows = Some(RowIter::from_file_into(Box::new(reader)));
    Ok((1..).map_while(move |number| {
        let row = guarded(|| rows.as_mut().and_then(Iterator::next).transpose()).transpose()?;
        let line = row.and_then(|row| {
            let mut row = object(&row, schema.get_fields(), &left_out, "")?;
            for (name, column) in &times {
                if let Some(Some(time)) = column.get(number - 1) {
                    row[name] = instant(*time, false)?;
                }
            }
            if let Some(durations) = &durations {
                write_durations(&mut row, durations)?;
            }
            Ok(exact_json::write(&row).into())
        });
        if line.is_err() {
            rows = None;
        }
        Some(
            line.map(|line| (number, line))
                .map_err(|problem| (number, problem)),
        )
    }))
}

/// Each row has at least one value per column: the rest of a row group may all belong to one row.
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

/// Nanoseconds since 1970 per row of 96-bit timestamp columns, which the row reader rounds to
/// milliseconds.
fn int96_columns(reader: &impl FileReader) -> Result<Int96Columns, ParquetError> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let mut columns = Vec::new();
    for (index, column) in schema.columns().iter().enumerate() {
        let path = column.path().parts();
        if column.physical_type() != PhysicalType::INT96
            || path.len() > 1
            || column.max_rep_level() > 0
        {
            continue;
        }
        let mut times = Vec::new();
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group)?;
            let ColumnReader::Int96ColumnReader(mut values) = group.get_column_reader(index)?
            else {
                continue;
            };
            while times.len() <= MAX_TIMES {
                let (mut levels, mut found) = (Vec::new(), Vec::new());
                let (rows, ..) = values.read_records(1024, Some(&mut levels), None, &mut found)?;
                if rows == 0 {
                    break;
                }
                let mut found = found.iter().map(nanoseconds_of);
                let is_null = |row: usize| {
                    levels
                        .get(row)
                        .is_some_and(|level| *level < column.max_def_level())
                };
                times.extend((0..rows).map(|row| if is_null(row) { None } else { found.next() }));
            }
        }
        columns.push((path[0].clone(), times));
    }
    Ok(columns)
}

type Int96Columns = Vec<(String, Vec<Option<i128>>)>;

fn nanoseconds_of(time: &Int96) -> i128 {
    /// Julian day of 1970-01-01.
    const FIRST_DAY: i128 = 2_440_588;
    let [low, high, day] = [0, 1, 2].map(|part| i128::from(time.data()[part]));
    (day - FIRST_DAY) * NANOSECONDS_IN_DAY + (high << 32) + low
}

/// The reader may panic on a damaged file, and quotes bytes that it cannot read.
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

/// `path`: of the object, with a dot at its end.
fn object(row: &Row, kinds: &[Arc<Type>], left_out: &LeftOut, path: &str) -> Result<Value, String> {
    let mut members = Map::new();
    for (index, (name, field)) in row.get_column_iter().enumerate() {
        let kind = kinds.get(index).map(Arc::as_ref);
        match value(field, kind, left_out, (path, name)) {
            Ok(value) => _ = members.insert(name.clone(), value),
            Err(problem) if problem == BINARY => {
                left_out.borrow_mut().insert(format!("{path}{name}"));
            }
            Err(problem) => {
                return Err(format!("column `{}`: {problem}", shortened(name, 60)));
            }
        }
    }
    Ok(Value::Object(members))
}

const BINARY: &str = "binary, and not UTF-8 text; write it as text";

/// `place`: of the column that has the value, as a path of objects with a dot at its end, and a name.
fn value(
    field: &Field,
    kind: Option<&Type>,
    left_out: &LeftOut,
    place: (&str, &str),
) -> Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => json!(value),
        Field::Byte(value) => json!(value),
        Field::Short(value) => json!(value),
        Field::Int(value) => json!(value),
        Field::Long(value) if kind.is_some_and(is_time_in_nanoseconds) => {
            time_of_day(SignedDuration::from_nanos(*value))?
        }
        Field::Long(value) => match kind.and_then(nanoseconds) {
            Some(is_utc) => instant(i128::from(*value), is_utc)?,
            None => json!(value),
        },
        Field::UByte(value) => json!(value),
        Field::UShort(value) => json!(value),
        Field::UInt(value) => json!(value),
        Field::ULong(value) => json!(value),
        Field::Float16(value) => shortest_float(value.to_f32(), 11),
        Field::Float(value) => shortest_float(*value, 24),
        Field::Double(value) => json!(value),
        Field::Decimal(number) => exact_json::number(&decimal(number.data(), number.scale())?),
        Field::Str(text) => json!(text),
        Field::Bytes(bytes) if kind.is_some_and(is_uuid) => json!(uuid(bytes.data())),
        Field::Bytes(bytes) => json!(std::str::from_utf8(bytes.data()).map_err(|_| BINARY)?),
        Field::Date(days) => date(*days)?,
        Field::TimeMillis(time) => time_of_day(SignedDuration::from_millis(i64::from(*time)))?,
        Field::TimeMicros(time) => time_of_day(SignedDuration::from_micros(*time))?,
        Field::TimestampMillis(time) => {
            instant(i128::from(*time) * 1_000_000, kind.is_some_and(is_utc))?
        }
        Field::TimestampMicros(time) => {
            instant(i128::from(*time) * 1000, kind.is_some_and(is_utc))?
        }
        Field::Group(row) => {
            let path = format!("{}{}.", place.0, place.1);
            object(row, kind.map_or(&[], fields), left_out, &path)?
        }
        Field::ListInternal(list) => {
            let kind = kind.and_then(item_type);
            list.elements()
                .iter()
                .map(|item| value(item, kind, left_out, place))
                .collect::<Result<_, _>>()?
        }
        Field::MapInternal(map) => {
            let kinds = kind
                .and_then(|kind| fields(kind).first())
                .map_or(&[][..], |pair| fields(pair));
            let entry = |(key, item): &(Field, Field)| -> Result<(String, Value), String> {
                let key = value(key, kinds.first().map(Arc::as_ref), left_out, place)?;
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                let kind = kinds.get(1).map(Arc::as_ref);
                Ok((key, value(item, kind, left_out, place)?))
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

fn is_utc(kind: &Type) -> bool {
    let info = kind.get_basic_info();
    match info.logical_type_ref() {
        Some(LogicalType::Timestamp(time)) => time.is_adjusted_to_u_t_c,
        // Older files use the converted type; 96-bit timestamps have none.
        _ => matches!(
            info.converted_type(),
            ConvertedType::TIMESTAMP_MILLIS | ConvertedType::TIMESTAMP_MICROS
        ),
    }
}

/// As [`is_utc`] for timestamps in nanoseconds; else `None`.
fn nanoseconds(kind: &Type) -> Option<bool> {
    match kind.get_basic_info().logical_type_ref() {
        Some(LogicalType::Timestamp(time)) if time.unit == TimeUnit::NANOS => {
            Some(time.is_adjusted_to_u_t_c)
        }
        _ => None,
    }
}

const NO_TIME: &str = "a time outside of the calendar; write it as text";

/// Formats nanoseconds since 1970 by calendar arithmetic, since zoned timestamps end before year
/// 9999 does.
fn instant(nanoseconds: i128, is_utc: bool) -> Result<Value, String> {
    let days = i32::try_from(nanoseconds.div_euclid(NANOSECONDS_IN_DAY)).map_err(|_| NO_TIME)?;
    let time = i64::try_from(nanoseconds.rem_euclid(NANOSECONDS_IN_DAY)).map_err(|_| NO_TIME)?;
    let time = Time::midnight().checked_add(SignedDuration::from_nanos(time));
    let time = day(days)?.to_datetime(time.map_err(|_| NO_TIME)?);
    Ok(json!(format!("{time}{}", if is_utc { "Z" } else { "" })))
}

fn date(days: i32) -> Result<Value, String> {
    Ok(json!(day(days)?.to_string()))
}

fn day(days: i32) -> Result<Date, String> {
    let first: Date = DateTime::constant(1970, 1, 1, 0, 0, 0, 0).date();
    let span = Span::new().try_days(days).map_err(|_| NO_TIME)?;
    Ok(first.checked_add(span).map_err(|_| NO_TIME)?)
}

/// The shortest decimal that identifies a float of this many bits.
fn shortest_float(value: f32, bits: i32) -> Value {
    let exponent = (value.abs().log2().floor() as i32).max(if bits < 24 { -14 } else { -126 });
    let apart = 2f64.powi(exponent - bits);
    let text = (0..9).map(|digits| format!("{value:.digits$e}"));
    let found = text
        .filter_map(|text| text.parse::<f64>().ok())
        .find(|near| (near - f64::from(value)).abs() < apart);
    json!(found.filter(|_| value != 0.0).unwrap_or(f64::from(value)))
}

/// Formats big-endian two's complement as a decimal number with a point.
fn decimal(bytes: &[u8], scale: i32) -> Result<String, String> {
    const MAX_BYTES: usize = 64;
    let scale = usize::try_from(scale).unwrap_or_default();
    if bytes.len() > MAX_BYTES || scale > 4 * MAX_BYTES {
        return Err("a decimal of more than 64 bytes; write it as text".to_owned());
    }
    let is_negative = bytes.first().is_some_and(|first| *first >= 0x80);
    let mut number = bytes.to_vec();
    if is_negative {
        number.iter_mut().for_each(|byte| *byte = !*byte);
        for byte in number.iter_mut().rev() {
            let (sum, is_over) = byte.overflowing_add(1);
            *byte = sum;
            if !is_over {
                break;
            }
        }
    }
    let mut digits = Vec::new();
    // At least one digit before the point.
    while digits.len() <= scale || number.iter().any(|byte| *byte > 0) {
        let divide = |rest: u16, byte: &mut u8| {
            let value = rest * 256 + u16::from(*byte);
            *byte = u8::try_from(value / 10).unwrap_or_default();
            value % 10
        };
        let digit = number.iter_mut().fold(0, divide);
        digits.push(b'0' + u8::try_from(digit).unwrap_or_default());
    }
    if scale > 0 {
        digits.insert(scale, b'.');
    }
    if is_negative {
        digits.push(b'-');
    }
    digits.reverse();
    Ok(String::from_utf8(digits).unwrap_or_default())
}

fn is_time_in_nanoseconds(kind: &Type) -> bool {
    let logical = kind.get_basic_info().logical_type_ref();
    matches!(logical, Some(LogicalType::Time(time)) if time.unit == TimeUnit::NANOS)
}

fn is_uuid(kind: &Type) -> bool {
    let logical = kind.get_basic_info().logical_type_ref();
    matches!(logical, Some(LogicalType::Uuid))
}

/// 16 bytes as 8-4-4-4-12 digits.
fn uuid(bytes: &[u8]) -> String {
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    for dash in [20, 16, 12, 8] {
        if dash < text.len() {
            text.insert(dash, '-');
        }
    }
    text
}

/// Writes whole numbers that are durations as such.
fn write_durations(value: &mut Value, durations: &Durations) -> Result<(), String> {
    match (durations, value) {
        (Durations::Unit(nanoseconds), value) => {
            if let Some(count) = value.as_i64() {
                *value = duration(count, *nanoseconds)?;
            }
        }
        (Durations::Each(inner), Value::Array(items)) => {
            return items
                .iter_mut()
                .try_for_each(|item| write_durations(item, inner));
        }
        (Durations::Each(inner), Value::Object(members)) => {
            let mut values = members.values_mut();
            return values.try_for_each(|value| write_durations(value, inner));
        }
        (Durations::Members(all), Value::Object(members)) => {
            for (name, inner) in all {
                if let Some(value) = members.get_mut(name) {
                    write_durations(value, inner)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// So many units of so many nanoseconds, as `PT1M30S`.
fn duration(count: i64, nanoseconds: i64) -> Result<Value, String> {
    let total = i128::from(count) * i128::from(nanoseconds);
    let seconds = i64::try_from(total.div_euclid(1_000_000_000)).map_err(|_| NO_TIME)?;
    let rest = i32::try_from(total.rem_euclid(1_000_000_000)).map_err(|_| NO_TIME)?;
    Ok(json!(SignedDuration::new(seconds, rest).to_string()))
}

fn time_of_day(since_midnight: SignedDuration) -> Result<Value, String> {
    let time = Time::midnight().checked_add(since_midnight);
    Ok(json!(time.map_err(|_| NO_TIME)?.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_digits() {
        for (bytes, scale, expected) in [
            (&[0x30, 0x39][..], 0, "12345"),
            (&[0x30, 0x39], 2, "123.45"),
            (&[0xff], 0, "-1"),
            (&[0xff], 3, "-0.001"),
            (&[0x00], 2, "0.00"),
            (&[], 0, "0"),
            (
                &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                18,
                "2361.183241434822606847",
            ),
        ] {
            assert_eq!(decimal(bytes, scale).unwrap(), expected);
        }
        assert!(decimal(&[1; 65], 0).is_err());
        for (value, bits, expected) in [
            (0.1f32, 24, json!(0.1)),
            (16_777_216.0, 24, json!(16_777_216.0)),
            (3.4e38, 24, json!(3.4e38)),
            (-1e-40, 24, json!(-1e-40)),
            (0.0, 24, json!(0.0)),
            (f32::NAN, 24, Value::Null),
            (0.099_975_586, 11, json!(0.1)),
            (65_504.0, 11, json!(65_500.0)),
        ] {
            assert_eq!(shortest_float(value, bits), expected);
        }
        for (nanoseconds, is_utc, expected) in [
            (
                253_402_300_799_999_999_000,
                true,
                "9999-12-31T23:59:59.999999Z",
            ),
            (0, false, "1970-01-01T00:00:00"),
            (-1_000, false, "1969-12-31T23:59:59.999999"),
        ] {
            assert_eq!(instant(nanoseconds, is_utc).unwrap(), json!(expected));
        }
    }
}
