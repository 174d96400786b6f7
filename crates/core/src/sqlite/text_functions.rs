//! SQLite's text functions whose cost is the product of two lengths, written so that no call
//! outlasts a query's time: linear, or with a look at the clock.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Result, ffi};

use super::Budget;

/// As SQLite limits them for untrusted queries: characters of a pattern.
const MAX_PATTERN: usize = 1_000;

/// What a pattern has at one place.
enum Item {
    /// Any characters, or none.
    Many,
    One,
    Letter(char),
    /// One of these ranges, or none of them.
    Ranges(bool, Vec<(char, char)>),
}

impl Item {
    fn takes(&self, letter: char) -> bool {
        match self {
            Self::Many => false,
            Self::One => true,
            Self::Letter(own) => *own == letter,
            Self::Ranges(is_in, ranges) => {
                *is_in
                    == ranges
                        .iter()
                        .any(|(low, high)| (*low..=*high).contains(&letter))
            }
        }
    }
}

/// `max_bytes`: the limit of a value.
pub(super) fn register(
    connection: &Connection,
    left: &Arc<Mutex<Budget>>,
    max_bytes: usize,
) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    for (name, at_start, at_end) in [
        ("trim", true, true),
        ("ltrim", true, false),
        ("rtrim", false, true),
    ] {
        for count in [1, 2] {
            let left = Arc::clone(left);
            connection.create_scalar_function(name, count, flags, move |context| {
                if left.lock().is_late() {
                    return refused("the query takes too long");
                }
                let set = match count {
                    2 => text(context, 1)?,
                    _ => Some(" ".to_owned()),
                };
                let (Some(whole), Some(set)) = (text(context, 0)?, set) else {
                    return Ok(None);
                };
                let set: HashSet<char> = set.chars().collect();
                let (mut rest, is_in) = (whole.as_str(), |letter| set.contains(&letter));
                if at_start {
                    rest = rest.trim_start_matches(is_in);
                }
                if at_end {
                    rest = rest.trim_end_matches(is_in);
                }
                Ok(Some(rest.to_owned()))
            })?;
        }
    }
    connection.create_scalar_function("replace", 3, flags, move |context| {
        let (Some(whole), Some(old), Some(new)) =
            (text(context, 0)?, text(context, 1)?, text(context, 2)?)
        else {
            return Ok(None);
        };
        if old.is_empty() {
            return Ok(Some(whole));
        }
        let added = whole.matches(old.as_str()).count() * new.len().saturating_sub(old.len());
        match whole.len() + added > max_bytes {
            true => Err(Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_TOOBIG),
                None,
            )),
            false => Ok(Some(whole.replace(&old, &new))),
        }
    })?;
    connection.create_scalar_function("instr", 2, flags, |context| {
        let bytes = |index| match context.get_raw(index) {
            // A character a byte: places are those of bytes.
            ValueRef::Blob(bytes) => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
            _ => None,
        };
        let found = match (bytes(0), bytes(1)) {
            (Some(whole), Some(part)) => Some::<(String, String)>((whole, part)),
            _ => text(context, 0)?.zip(text(context, 1)?),
        };
        let place = |(whole, part): (String, String)| {
            let start = whole.find(&part)?;
            i64::try_from(whole[..start].chars().count() + 1).ok()
        };
        Ok(found.map(|found| place(found).unwrap_or(0)))
    })?;
    connection.create_scalar_function("unhex", 2, flags, |_| {
        refused::<Option<i64>>("unhex takes one argument in a query")
    })?;
    for (name, count) in [("like", 2), ("like", 3), ("glob", 2)] {
        let left = Arc::clone(left);
        connection.create_scalar_function(name, count, flags, move |context| {
            if left.lock().is_late() {
                return refused("the query takes too long");
            }
            let escape = match count {
                3 => text(context, 2)?,
                _ => Some(String::new()),
            };
            let (Some(pattern), Some(whole), Some(escape)) =
                (text(context, 0)?, text(context, 1)?, escape)
            else {
                return Ok(None);
            };
            if pattern.chars().count() > MAX_PATTERN {
                return refused("LIKE or GLOB pattern too complex");
            }
            if count == 3 && escape.chars().count() != 1 {
                return refused("ESCAPE expression must be a single character");
            }
            let (items, whole) = match name {
                "glob" => (glob(&pattern), whole),
                _ => (
                    like(&pattern, escape.chars().next()),
                    whole.to_ascii_lowercase(),
                ),
            };
            Ok(Some(items.is_some_and(|items| matches(&items, &whole))))
        })?;
    }
    Ok(())
}

fn refused<T>(why: &'static str) -> Result<T> {
    Err(Error::UserFunctionError(why.into()))
}

/// An argument as SQLite makes a text of it; `None` of NULL.
fn text(context: &Context<'_>, index: usize) -> Result<Option<String>> {
    Ok(match context.get_raw(index) {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        ValueRef::Real(number) => {
            // SAFETY: the connection runs this function, and is used during this call alone.
            let connection = unsafe { context.get_connection()? };
            let mut cast = connection.prepare("SELECT CAST(?1 AS TEXT)")?;
            Some(cast.query_row([number], |row| row.get(0))?)
        }
    })
}

/// For a text in lower case; `None` if nothing matches it: the escape character ends it.
fn like(pattern: &str, escape: Option<char>) -> Option<Vec<Item>> {
    let (mut letters, mut items) = (pattern.chars(), Vec::new());
    while let Some(letter) = letters.next() {
        items.push(match letter {
            letter if Some(letter) == escape => Item::Letter(letters.next()?.to_ascii_lowercase()),
            '%' => Item::Many,
            '_' => Item::One,
            letter => Item::Letter(letter.to_ascii_lowercase()),
        });
    }
    Some(items)
}

/// `None` if nothing matches it: a bracket is open.
fn glob(pattern: &str) -> Option<Vec<Item>> {
    let (mut letters, mut items) = (pattern.chars().peekable(), Vec::new());
    while let Some(letter) = letters.next() {
        items.push(match letter {
            '*' => Item::Many,
            '?' => Item::One,
            '[' => {
                let is_in = letters.next_if_eq(&'^').is_none();
                let mut ranges: Vec<(char, char)> = Vec::new();
                // A bracket that comes first is a letter.
                ranges.extend(letters.next_if_eq(&']').map(|letter| (letter, letter)));
                loop {
                    let letter = letters.next()?;
                    let is_range = letter == '-' && letters.peek().is_some_and(|next| *next != ']');
                    match (letter, ranges.last_mut()) {
                        (']', _) => break,
                        ('-', Some((low, high))) if is_range && low == high => {
                            *high = letters.next()?;
                        }
                        _ => ranges.push((letter, letter)),
                    }
                }
                Item::Ranges(is_in, ranges)
            }
            letter => Item::Letter(letter),
        });
    }
    Some(items)
}

fn matches(items: &[Item], whole: &str) -> bool {
    let letters: Vec<char> = whole.chars().collect();
    let (mut item, mut place, mut retry) = (0, 0, None);
    while let Some(letter) = letters.get(place) {
        match (items.get(item), retry) {
            (Some(Item::Many), _) => {
                item += 1;
                retry = Some((item, place));
            }
            (Some(one), _) if one.takes(*letter) => {
                item += 1;
                place += 1;
            }
            (_, Some((after, from))) => {
                (item, place) = (after, from + 1);
                retry = Some((after, from + 1));
            }
            (_, None) => return false,
        }
    }
    items[item..].iter().all(|item| matches!(item, Item::Many))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::sqlite::Database;

    #[test]
    fn results_are_those_of_sqlite() {
        let (own, sqlite) = (
            Database::new("").unwrap(),
            rusqlite::Connection::open_in_memory().unwrap(),
        );
        for expression in [
            "trim('  a b ')",
            "trim('xaax', 'xy')",
            "ltrim('ééa', 'é')",
            "rtrim(12.50, '0')",
            "trim(NULL)",
            "trim('a', NULL)",
            "trim('aa', 'a')",
            "replace('aXbX', 'X', 'yy')",
            "replace('a', '', 'b')",
            "replace(1.5, '.', ',')",
            "replace(1e20, '0', NULL)",
            "instr('héllo', 'l')",
            "instr('a', 'b')",
            "instr('a', '')",
            "instr(x'00ff01', x'01')",
            "instr(123, 2)",
            "instr(NULL, 'a')",
            "'Hello' LIKE 'h%O'",
            "'É' LIKE 'é'",
            "'a%b' LIKE 'a!%b' ESCAPE '!'",
            "'axb' LIKE 'a!%b' ESCAPE '!'",
            "'abc' LIKE '_b_'",
            "'abc' LIKE '%b'",
            "'a' LIKE 'a!' ESCAPE '!'",
            "'axb' LIKE 'aXB' ESCAPE 'x'",
            "'aab' LIKE '%ab%%'",
            "'' LIKE '%'",
            "10 LIKE '1%'",
            "1.0 LIKE '1.0'",
            "NULL LIKE 'a'",
            "'abc' GLOB 'a*[b-d]'",
            "'abc' GLOB 'A*'",
            "'a]c' GLOB 'a[]]c'",
            "'a-c' GLOB 'a[b-]c'",
            "'abc' GLOB 'a[^x-z]c'",
            "'abc' GLOB 'a[b'",
            "'a^c' GLOB 'a[^^]c'",
            "'abc' GLOB '?b?'",
        ] {
            let query = format!("SELECT quote({expression})");
            let found = own.query(&query).unwrap().rows[0][0].text();
            let expected: String = sqlite.query_row(&query, [], |row| row.get(0)).unwrap();
            let expected = format!("'{expected}'");
            assert_eq!(found, expected, "{expression}");
        }
        for refused in [
            "SELECT replace(replace(hex(zeroblob(30000)), '0', '00000000'), '0', 'ab')",
            "SELECT 'a' LIKE 'a' ESCAPE 'ab'",
        ] {
            assert!(own.query(refused).is_err(), "{refused}");
        }
    }
}
