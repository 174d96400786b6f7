//! Dates in text, in many notations.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::score::verdict::field_compare::month_named;

/// Year, month, day.
pub(crate) type Day = (u32, u32, u32);

/// A date in a text with its possible readings: `11/03/2024` has two.
#[derive(Debug, PartialEq)]
pub(crate) struct WrittenDate {
    pub(crate) span: Range<usize>,
    pub(crate) days: Vec<Day>,
}

/// `2024-03-11`, `2024/3/11`, `11.03.2024`, `3/11/24`, `11 March 2024`, `11th of March, 2024`, `Mar 11, 2024`,
/// `11-Mar-2024`.
const FORMS: &str = r"(?x)
    \b[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}
    | \b[0-9]{1,2}[-/.]\x20?[0-9]{1,2}[-/.]\x20?(?:[0-9]{4}|[0-9]{2})\b
    | \b[0-9]{1,2}(?:st|nd|rd|th)?[-./\x20]*(?:of\x20)?[A-Za-z]{3,9}[-.,/\x20]+(?:[0-9]{4}|[0-9]{2})\b
    | \b[0-9]{4}[-./\x20]+[A-Za-z]{3,9}[-./\x20]+[0-9]{1,2}\b
    | \b[A-Za-z]{3,9}\.?\x20[0-9]{1,2}(?:st|nd|rd|th)?,?\x20[0-9]{4}\b";

pub(crate) fn dates(text: &str) -> Vec<WrittenDate> {
    static DATE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(FORMS).ok());
    let (mut dates, mut at) = (Vec::new(), 0);
    while let Some(found) = DATE.as_ref().and_then(|date| date.find_at(text, at)) {
        let days = days(found.as_str());
        // What only looks like a date may hide one that begins in it: `129,00 each. 17.03.2026`.
        at = match days.is_empty() {
            true => {
                found.start()
                    + text[found.start()..]
                        .chars()
                        .next()
                        .map_or(1, char::len_utf8)
            }
            false => found.end(),
        };
        if !days.is_empty() {
            dates.push(WrittenDate {
                span: found.range(),
                days,
            });
        }
    }
    dates
}

/// Readings of a whole text; empty if it is not a date.
pub(super) fn whole_date(text: &str) -> Vec<Day> {
    let text = text.trim();
    dates(text)
        .into_iter()
        .find(|date| date.span == (0..text.len()))
        .map(|date| date.days)
        .unwrap_or_default()
}

fn days(text: &str) -> Vec<Day> {
    let parts = text
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|part| !part.is_empty() && *part != "of");
    let parts: Vec<&str> = parts.collect();
    let [first, second, third] = parts.as_slice() else {
        return Vec::new();
    };
    let number = |part: &str| {
        let digits = part
            .strip_suffix("st")
            .or(part.strip_suffix("nd"))
            .or(part.strip_suffix("rd"));
        digits
            .or(part.strip_suffix("th"))
            .unwrap_or(part)
            .parse::<u32>()
            .ok()
    };
    let is_year = first.len() == 4 && first.bytes().all(|digit| digit.is_ascii_digit());
    let orders = match (month_named(first), month_named(second)) {
        (Some(month), _) => vec![(number(third), Some(month), number(second))],
        (_, Some(month)) if is_year => vec![(number(first), Some(month), number(third))],
        (_, Some(month)) => vec![(number(third), Some(month), number(first))],
        _ if is_year => vec![(number(first), number(second), number(third))],
        _ => {
            vec![
                (number(third), number(second), number(first)),
                (number(third), number(first), number(second)),
            ]
        }
    };
    let day = |(year, month, day): (Option<u32>, Option<u32>, Option<u32>)| {
        let (year, month, day) = (year?, month?, day?);
        // Two digits mean this century.
        let year = if year < 100 { year + 2000 } else { year };
        let is_day =
            (1000..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        is_day.then_some((year, month, day))
    };
    let mut days: Vec<Day> = orders.into_iter().filter_map(day).collect();
    days.dedup();
    days
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_the_usual_forms() {
        const DAY: Day = (2024, 3, 11);
        for (text, expected) in [
            ("on 2024-03-11.", &[DAY][..]),
            ("2024/3/11", &[DAY]),
            ("2024-03-11T10:00:00Z", &[DAY]),
            ("11.03.2024", &[DAY, (2024, 11, 3)]),
            ("11. 3. 2024", &[DAY, (2024, 11, 3)]),
            ("11/03/24", &[DAY, (2024, 11, 3)]),
            ("13/03/2024", &[(2024, 3, 13)]),
            ("| 11 March 2024 |", &[DAY]),
            ("11th of March, 2024", &[DAY]),
            ("11 Mar. 2024", &[DAY]),
            ("March 11, 2024", &[DAY]),
            ("Mar 11th, 2024", &[DAY]),
            ("11-Mar-2024", &[DAY]),
            ("2024-Mar-11", &[DAY]),
            ("for 129,00 each. 11.03.2024", &[DAY, (2024, 11, 3)]),
            ("March 2024", &[]),
            ("11 apples 2024", &[]),
            ("192.168.10.5", &[]),
            ("32/13/2024", &[]),
        ] {
            let found: Vec<Day> = dates(text).into_iter().flat_map(|date| date.days).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
