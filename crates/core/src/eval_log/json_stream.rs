//! Large JSON documents, one element of a list at a time. Python writes NaN and Infinity into JSON:
//! here they are read as empty lists, which are no numbers either.

use std::io::{BufReader, Bytes, Read};
use std::iter::Peekable;

use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::dataset::read_lines;

/// Parses a text; with NaN and Infinity only where it is not JSON without.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let parsed = serde_json::from_slice(bytes);
    parsed
        .or_else(|_| serde_json::from_reader(Constants::buffered(bytes)))
        .map_err(|error| problem(&error))
}

/// Calls `item` with the number and the value of each of the first lines.
pub(super) fn each_line<T: DeserializeOwned>(
    reader: impl Read,
    most: usize,
    item: &mut dyn FnMut(usize, Result<T, String>),
) {
    for line in read_lines(BufReader::new(reader)).take(most) {
        match line {
            Ok((number, bytes)) => item(number, parse(&bytes)),
            Err((number, problem)) => item(number, Err(problem)),
        }
    }
}

/// Calls `item` with the number from 1 and the value of each of the first elements of the list at
/// `path`; a list on the way counts, too. A document that is malformed, or cut short, ends with a
/// problem. Returns the members named in `kept` beside the path's keys; all else is skipped.
pub(super) fn each_item<T: DeserializeOwned>(
    reader: impl Read,
    path: &[&str],
    kept: &[&str],
    most: usize,
    item: &mut dyn FnMut(usize, Result<T, String>),
) -> Map<String, Value> {
    let (mut members, mut count) = (Map::new(), 0);
    let mut json = serde_json::Deserializer::from_reader(Constants::buffered(reader));
    let level = Level {
        path,
        kept,
        members: &mut members,
        item: &mut |element| {
            count += 1;
            if count <= most {
                item(count, Ok(element));
            }
        },
    };
    let ended = level.deserialize(&mut json).and_then(|()| json.end());
    if let Err(error) = ended {
        item(count + 1, Err(problem(&error)));
    }
    members
}

fn problem(error: &serde_json::Error) -> String {
    match error.is_eof() {
        true => "ends in the middle: the log is cut short".to_owned(),
        false => format!("not the JSON of a sample: {error}"),
    }
}

struct Level<'a, 'i, T> {
    path: &'a [&'a str],
    kept: &'a [&'a str],
    members: &'a mut Map<String, Value>,
    item: &'i mut dyn FnMut(T),
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Level<'_, '_, T> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Level<'_, '_, T> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match self.path.split_first() {
                Some((first, path)) if *first == key => map.next_value_seed(Level {
                    path,
                    kept: self.kept,
                    members: &mut *self.members,
                    item: &mut *self.item,
                })?,
                _ if self.kept.contains(&key.as_str()) => {
                    let value = map.next_value()?;
                    self.members.insert(key, value);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element()? {
            (self.item)(element);
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Replaces `NaN`, `Infinity` and `-Infinity` outside of texts by `[]` and spaces.
struct Constants<R: Read> {
    bytes: Peekable<Bytes<BufReader<R>>>,
    in_text: bool,
    is_escaped: bool,
    /// What stands for the rest of a constant.
    rest: &'static [u8],
}

impl<R: Read> Constants<R> {
    /// Buffered, since the parser reads single bytes.
    fn buffered(reader: R) -> BufReader<Self> {
        BufReader::new(Self {
            bytes: BufReader::new(reader).bytes().peekable(),
            in_text: false,
            is_escaped: false,
            rest: b"",
        })
    }

    fn replaced(&mut self, byte: u8) -> u8 {
        if let Some((first, rest)) = self.rest.split_first() {
            self.rest = rest;
            return *first;
        }
        if self.in_text {
            let ends = byte == b'"' && !self.is_escaped;
            self.is_escaped = byte == b'\\' && !self.is_escaped;
            self.in_text = !ends;
            return byte;
        }
        match byte {
            b'"' => self.in_text = true,
            b'N' => {
                self.rest = b"] ";
                return b'[';
            }
            b'I' => {
                self.rest = b"]      ";
                return b'[';
            }
            b'-' if matches!(self.bytes.peek(), Some(Ok(b'I'))) => return b' ',
            _ => {}
        }
        byte
    }
}

impl<R: Read> Read for Constants<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for (at, place) in buffer.iter_mut().enumerate() {
            match self.bytes.next().transpose()? {
                Some(byte) => *place = self.replaced(byte),
                None => return Ok(at),
            }
        }
        Ok(buffer.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Yields a byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.len().min(1).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn constants_of_python_are_no_numbers() {
        let text = r#"{"a":[NaN,-Infinity,Infinity,-1],"NaN \" -Infinity":"Infinity","b":-2.5}"#;
        let expected = json!({"a": [[], [], [], -1], "NaN \" -Infinity": "Infinity", "b": -2.5});
        assert_eq!(parse::<Value>(text.as_bytes()).unwrap(), expected);
        let slow: Value =
            serde_json::from_reader(Constants::buffered(Slow(text.as_bytes()))).unwrap();
        assert_eq!(slow, expected);
        let mut whole = String::new();
        let mut bytes = Constants::buffered(Slow(b"[1]-"));
        bytes.read_to_string(&mut whole).unwrap();
        assert_eq!(whole, "[1]-", "a minus at the end is not lost");
    }

    #[test]
    fn elements_of_a_list_come_one_by_one() {
        let check = |text: &str, expected: &[i64], kept: Value, is_whole: bool| {
            let (mut items, mut ended) = (Vec::new(), Ok(()));
            let members = each_item(
                text.as_bytes(),
                &["results", "results"],
                &["version"],
                2,
                &mut |number, item: Result<i64, String>| match item {
                    Ok(item) => items.push((number, item)),
                    Err(problem) => ended = Err((number, problem)),
                },
            );
            let expected: Vec<_> = (1..).zip(expected.iter().copied()).collect();
            assert_eq!((items, json!(members)), (expected, kept), "{text}");
            assert_eq!(ended.is_ok(), is_whole, "{text}: {ended:?}");
        };
        let kept = json!({"version": 3});
        check(
            r#"{"a":{"results":[9]},"results":{"version":3,"results":[1,2,3]},"b":[7]}"#,
            &[1, 2],
            kept.clone(),
            true,
        );
        check(
            r#"{"version":3,"results":[1,2],"b":null}"#,
            &[1, 2],
            kept,
            true,
        );
        check(r#"{"results":null}"#, &[], json!({}), true);
        check(r#"{"results":{"results":[1,2,"#, &[1, 2], json!({}), false);
        check(r#"{"results":{"results":[1]}} x"#, &[1], json!({}), false);
    }
}
