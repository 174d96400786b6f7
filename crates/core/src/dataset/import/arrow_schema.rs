//! The Arrow schema that writers of Parquet leave in a file's metadata: durations, which Parquet itself cannot tell from
//! whole numbers.

/// Nanoseconds of each of Arrow's units: seconds, then thousandths of the one before.
const UNITS: [i64; 4] = [1_000_000_000, 1_000_000, 1_000, 1];
/// Of Arrow's union of types.
const STRUCT: u8 = 13;
const MAP: u8 = 17;
const DURATION: u8 = 18;
/// Lists, of fixed size, large, and views.
const LISTS: [u8; 5] = [12, 16, 21, 25, 26];
/// Depth limit of types, and limit of fields.
const MAX_DEPTH: usize = 16;
const MAX_FIELDS: usize = 1 << 16;

/// Where durations are in a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Durations {
    /// The value is one, of a unit of so many nanoseconds.
    Unit(i64),
    /// In each item of a list, or value of a map.
    Each(Box<Self>),
    /// In members of an object.
    Members(Vec<(String, Self)>),
}

/// Durations in a row. `encoded`: the value of `ARROW:schema`, a message of Arrow's IPC format in base64. `None` if there
/// are none, or it cannot be read.
pub(super) fn durations(encoded: &str) -> Option<Durations> {
    let bytes = decoded(encoded)?;
    // A message begins with a mark and its length.
    let start = if bytes.starts_with(&[0xff; 4]) { 8 } else { 4 };
    let buffer = Buffer(bytes.get(start..)?);
    let message = buffer.indirect(0)?;
    let schema = buffer.indirect(buffer.field(message, 2)?)?;
    buffer.members(schema, 1, MAX_DEPTH, &mut { MAX_FIELDS })
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

    /// The columns that a table's vector lists.
    fn columns(&self, table: usize, number: usize) -> Option<impl Iterator<Item = usize>> {
        let vector = self.indirect(self.field(table, number)?)?;
        let count = usize::try_from(self.u32(vector)?).ok()?;
        Some((0..count).map_while(move |index| self.indirect(vector + 4 + 4 * index)))
    }

    /// Durations of the columns that a table's vector lists.
    fn members(
        &self,
        table: usize,
        number: usize,
        depth: usize,
        left: &mut usize,
    ) -> Option<Durations> {
        let mut members = Vec::new();
        for column in self.columns(table, number)? {
            if let Some(durations) = self.durations(column, depth, left) {
                members.push((self.name(column)?, durations));
            }
        }
        (!members.is_empty()).then_some(Durations::Members(members))
    }

    fn durations(&self, column: usize, depth: usize, left: &mut usize) -> Option<Durations> {
        *left = left.checked_sub(1)?;
        let depth = depth.checked_sub(1)?;
        let child = |column: usize, index: usize| self.columns(column, 5)?.nth(index);
        let each = |column: Option<usize>, left: &mut usize| {
            let inner = self.durations(column?, depth, left)?;
            Some(Durations::Each(Box::new(inner)))
        };
        match self.0.get(self.field(column, 2)?).copied()? {
            DURATION => {
                let duration = self.indirect(self.field(column, 3)?)?;
                // A unit that is not written is milliseconds.
                let unit = match self.field(duration, 0) {
                    Some(at) => usize::from(self.u16(at)?),
                    None => 1,
                };
                UNITS.get(unit).copied().map(Durations::Unit)
            }
            STRUCT => self.members(column, 5, depth, left),
            // Its child has a key and a value.
            MAP => each(child(column, 0).and_then(|pair| child(pair, 1)), left),
            kind if LISTS.contains(&kind) => each(child(column, 0), left),
            _ => None,
        }
    }

    fn name(&self, column: usize) -> Option<String> {
        let text = self.indirect(self.field(column, 0)?)?;
        let length = usize::try_from(self.u32(text)?).ok()?;
        let bytes = self.0.get(text + 4..text.checked_add(4 + length)?)?;
        std::str::from_utf8(bytes).ok().map(str::to_owned)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by pyarrow 26: `a` a struct of a list `l` of milliseconds and of a number, `m` a map to nanoseconds, `d` a
    /// dictionary of texts, `s` seconds.
    const SCHEMA: &str = "/////zgCAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAEAAAAiP///wQAAAAEAAAASAEAAIgAAABAAAAABAAAAED+//8AAAESEAAAABQAAAAEAAAAAAAAAAEAAABzAAAAKv///wAAAAAQABgACAAGAAcADAAQABQAEAAAAAAAAQUUAAAANAAAABwAAAAEAAAAAAAAAAEAAABkAAAACAAIAAAABAAIAAAABAAAAOj+//8AAAABCAAAAIT+//+8/v//AAABERQAAAAYAAAABAAAAAEAAAAQAAAAAQAAAG0AAACs/v//oP///wAAAA0YAAAAIAAAAAQAAAACAAAAWAAAABQAAAAHAAAAZW50cmllcwDc/v//FP///wAAARIQAAAAHAAAAAQAAAAAAAAABQAAAHZhbHVlAAYACAAGAAYAAAAAAAMAEAAUAAgAAAAHAAwAAAAQABAAAAAAAAAFEAAAABQAAAAEAAAAAAAAAAMAAABrZXkAQP///3j///8AAAENGAAAABwAAAAEAAAAAgAAAEgAAAAQAAAAAQAAAGEAAABs////pP///wAAAQIQAAAAHAAAAAQAAAAAAAAAAQAAAG4AAAAIAAwACAAHAAgAAAAAAAABQAAAANj///8AAAEMFAAAABgAAAAEAAAAAQAAACAAAAABAAAAbAAAAMj///8QABQACAAGAAcADAAAABAAEAAAAAAAARIQAAAAHAAAAAQAAAAAAAAABAAAAGl0ZW0AAAAABAAEAAQAAAAAAAAA";

    #[test]
    fn durations_are_found_at_any_depth() {
        let each = |unit| Durations::Each(Box::new(Durations::Unit(unit)));
        let inner = Durations::Members(vec![("l".to_owned(), each(1_000_000))]);
        let all = [
            ("a", inner),
            ("m", each(1)),
            ("s", Durations::Unit(1_000_000_000)),
        ];
        let all = all.map(|(name, found)| (name.to_owned(), found)).into();
        assert_eq!(durations(SCHEMA), Some(Durations::Members(all)));
        for length in (0..SCHEMA.len()).step_by(4) {
            // No panic where it is cut.
            let _ = durations(&SCHEMA[..length]);
        }
    }
}
