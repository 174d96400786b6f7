//! The Arrow schema that writers of Parquet leave in a file's metadata: durations, which Parquet itself cannot tell from
//! whole numbers.

/// Nanoseconds of each of Arrow's units: seconds, then thousandths of the one before.
const UNITS: [i64; 4] = [1_000_000_000, 1_000_000, 1_000, 1];
/// Of Arrow's union of types.
const DURATION: u8 = 18;

/// Top-level columns that hold durations, with the nanoseconds of their unit. `encoded`: the value of `ARROW:schema`, a
/// message of Arrow's IPC format in base64. `None` if it cannot be read.
pub(super) fn duration_columns(encoded: &str) -> Option<Vec<(String, i64)>> {
    let bytes = decoded(encoded)?;
    // A message begins with a mark and its length.
    let start = if bytes.starts_with(&[0xff; 4]) { 8 } else { 4 };
    let buffer = Buffer(bytes.get(start..)?);
    let message = buffer.indirect(0)?;
    let schema = buffer.indirect(buffer.field(message, 2)?)?;
    let fields = buffer.indirect(buffer.field(schema, 1)?)?;
    let count = usize::try_from(buffer.u32(fields)?).ok()?;
    let mut found = Vec::new();
    for index in 0..count {
        let field = buffer.indirect(fields + 4 + 4 * index)?;
        let kind = buffer
            .field(field, 2)
            .and_then(|at| buffer.0.get(at).copied());
        if kind != Some(DURATION) {
            continue;
        }
        let name = buffer.indirect(buffer.field(field, 0)?)?;
        let length = usize::try_from(buffer.u32(name)?).ok()?;
        let name = std::str::from_utf8(buffer.0.get(name + 4..name + 4 + length)?).ok()?;
        let duration = buffer.indirect(buffer.field(field, 3)?)?;
        // A unit that is not written is milliseconds.
        let unit = match buffer.field(duration, 0) {
            Some(at) => usize::from(buffer.u16(at)?),
            None => 1,
        };
        found.push((name.to_owned(), *UNITS.get(unit)?));
    }
    Some(found)
}

/// A FlatBuffer, read where it lies.
struct Buffer<'b>(&'b [u8]);

impl Buffer<'_> {
    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = self.0.get(at..at.checked_add(2)?)?;
        Some(u16::from_le_bytes(bytes.try_into().ok()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = self.0.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// Where an offset points to.
    fn indirect(&self, at: usize) -> Option<usize> {
        at.checked_add(usize::try_from(self.u32(at)?).ok()?)
    }

    /// The place of a table's field; `None` if it is not written.
    fn field(&self, table: usize, number: usize) -> Option<usize> {
        let back = i32::from_le_bytes(self.u32(table)?.to_le_bytes());
        let virtual_table = usize::try_from(i64::try_from(table).ok()? - i64::from(back)).ok()?;
        let entry = 4 + 2 * number;
        if entry + 2 > usize::from(self.u16(virtual_table)?) {
            return None;
        }
        match self.u16(virtual_table + entry)? {
            0 => None,
            offset => Some(table + usize::from(offset)),
        }
    }
}

/// Decodes base64; `None` for other letters.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | u32::from(digit(letter)?);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
        bits &= 0xffff;
    }
    Some(bytes)
}
