//! Numbers in text: both kinds of thousands separators, signs, percent, powers of ten, small number
//! words.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::score::answer::json::{Kind, parse};

/// A number in a text with its possible readings, in canonical text.
#[derive(Debug, PartialEq)]
pub(crate) struct WrittenNumber {
    pub(crate) span: Range<usize>,
    pub(crate) readings: Vec<String>,
    /// `three`, often not meant as a number.
    pub(crate) is_word: bool,
}

const WORDS: [&str; 13] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
];

/// Other words that state a count.
const COUNTS: [(&str, usize); 3] = [("once", 1), ("single", 1), ("twice", 2)];

/// Suffixes, and the power of ten they multiply by.
const POWERS: [(&str, i32); 8] = [
    ("%", -2),
    ("percent", -2),
    ("per cent", -2),
    ("pct", -2),
    ("k", 3),
    ("thousand", 3),
    ("million", 6),
    ("billion", 9),
];

/// Length of the longest of these + 1.
const MAX_POWER_CHARS: usize = 10;
/// Groups of three digits per number.
const MAX_GROUPS: usize = 8;

/// All numbers by start. `58 463,87` gives three: the whole and its parts.
pub(crate) fn numbers(text: &str) -> Vec<WrittenNumber> {
    static RUN: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"[0-9]+(?:[.,'’_][0-9]+)*(?:[eE][+-]?[0-9]+\b)?|\b[A-Za-z]{3,6}\b").ok()
    });
    let mut found = Vec::new();
    let mut runs: Vec<Range<usize>> = Vec::new();
    for run in RUN.iter().flat_map(|run| run.find_iter(text)) {
        let span = run.range();
        let is_it = |word: &str| run.as_str().eq_ignore_ascii_case(word);
        let count = COUNTS.iter().find(|(word, _)| is_it(word));
        let value = WORDS.iter().position(|word| is_it(word));
        if let Some(value) = value.or(count.map(|(_, value)| *value)) {
            found.extend(
                canonical(&value.to_string(), 0).map(|reading| WrittenNumber {
                    span,
                    readings: vec![reading],
                    is_word: true,
                }),
            );
        } else if run
            .as_str()
            .starts_with(|first: char| first.is_ascii_digit())
        {
            runs.push(span);
        }
    }
    for (index, run) in runs.iter().enumerate() {
        add(text, run.clone(), &text[run.clone()], &mut found);
        // Groups of three after single spaces: thousands, or separate numbers.
        let mut end = run.end;
        for next in runs[index + 1..].iter().take(MAX_GROUPS) {
            let (before, after) = (&text[run.start..end], &text[next.clone()]);
            let is_space = matches!(
                &text[end..next.start],
                " " | "\u{a0}" | "\u{202f}" | "\u{2009}"
            );
            let leading = after.bytes().take_while(u8::is_ascii_digit).count();
            let is_group = before
                .chars()
                .all(|letter| letter.is_ascii_digit() || letter.is_whitespace());
            let first = before.bytes().take_while(u8::is_ascii_digit).count();
            if !is_space || leading != 3 || !is_group || first > 3 {
                break;
            }
            end = next.end;
            let joined: String = text[run.start..end]
                .chars()
                .filter(|letter| !letter.is_whitespace())
                .collect();
            add(text, run.start..end, &joined, &mut found);
        }
    }
    found.sort_by_key(|number| (number.span.start, number.span.end));
    found
}

pub(super) fn whole_number(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    let is_around = |rest: &str| !rest.chars().any(char::is_alphanumeric);
    let whole = |number: &WrittenNumber| {
        is_around(&text[..number.span.start]) && is_around(&text[number.span.end..])
    };
    numbers(text)
        .into_iter()
        .find(whole)
        .map(|number| number.readings)
}

/// Adds a run of digits and separators; a run that is not a number may be a list of them.
fn add(text: &str, span: Range<usize>, run: &str, found: &mut Vec<WrittenNumber>) {
    let plain = readings(run);
    if plain.is_empty() && run.contains(',') && run.len() == span.len() {
        let mut at = span.start;
        for piece in run.split(',') {
            add(text, at..at + piece.len(), piece, found);
            at += piece.len() + 1;
        }
        return;
    }
    let before = text[..span.start]
        .trim_end_matches(|letter: char| !letter.is_alphanumeric() && !"-−–(".contains(letter));
    let negative = before
        .strip_suffix(['-', '−', '–'])
        .is_some_and(|rest| !rest.ends_with(char::is_alphanumeric))
        || (before.ends_with('(') && text[span.end..].trim_start().starts_with(')'));
    let after = text[span.end..].trim_start_matches([' ', '\u{a0}', '\u{202f}']);
    let after: String = after
        .chars()
        .take(MAX_POWER_CHARS)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    let power = POWERS.iter().find(|(word, _)| {
        after
            .strip_prefix(word)
            .is_some_and(|rest| *word == "%" || !rest.starts_with(char::is_alphanumeric))
    });
    let mut readings: Vec<String> = plain
        .iter()
        .filter_map(|number| canonical(number, 0))
        .collect();
    readings.extend(
        power
            .iter()
            .flat_map(|(_, power)| plain.iter().filter_map(|number| canonical(number, *power))),
    );
    if negative {
        let below: Vec<String> = readings
            .iter()
            .map(|reading| reading.replacen('#', "#-", 1))
            .collect();
        readings.extend(below);
    }
    readings.dedup();
    if !readings.is_empty() {
        found.push(WrittenNumber {
            span,
            readings,
            is_word: false,
        });
    }
}

fn readings(run: &str) -> Vec<String> {
    let separators: Vec<char> = run
        .chars()
        .filter(|letter| ".,'’_".contains(*letter))
        .collect();
    let pieces: Vec<&str> = run.split(['.', ',', '\'', '’', '_']).collect();
    let (Some(last), Some(first)) = (separators.last(), separators.first()) else {
        return vec![run.to_owned()];
    };
    let is_point = |letter: &char| matches!(letter, '.' | ',');
    let mut found = Vec::new();
    let decimal = separators.iter().filter(|letter| *letter == last).count() == 1 && is_point(last);
    let (whole, fraction) = pieces.split_at(pieces.len() - 1);
    if decimal && (whole.len() == 1 || are_thousands(whole, &separators[..separators.len() - 1])) {
        found.push(format!("{}.{}", whole.concat(), fraction.concat()));
    }
    if separators.iter().all(|letter| letter == first) && are_thousands(&pieces, &separators) {
        found.push(pieces.concat());
    }
    found
}

/// Whether pieces are groups of three digits, or of two before the last (India).
fn are_thousands(pieces: &[&str], separators: &[char]) -> bool {
    let Some(([first, middle @ ..], last)) = pieces.split_last().map(|(last, rest)| (rest, last))
    else {
        return false;
    };
    let is_one_kind = separators.windows(2).all(|pair| pair[0] == pair[1]);
    let are = |length: usize| middle.iter().all(|piece| piece.len() == length);
    let leads = (1..=3).contains(&first.len()) && !first.starts_with('0');
    is_one_kind && leads && last.len() == 3 && (are(3) || (are(2) && first.len() <= 2))
}

/// Canonical text of a number times a power of ten.
fn canonical(number: &str, power: i32) -> Option<String> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent = exponent.parse::<i32>().ok()?.checked_add(power)?;
    let mantissa = match mantissa.trim_start_matches('0') {
        rest if rest.is_empty() || rest.starts_with('.') => format!("0{rest}"),
        rest => rest.to_owned(),
    };
    let text = format!("{mantissa}e{exponent}");
    let Kind::Number(number) = parse(&text, 0).ok()?.root.kind else {
        return None;
    };
    let mut canonical = String::new();
    number.write_canonical(&mut canonical);
    Some(canonical)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_the_usual_notations() {
        // Text, numbers that it states, numbers that it does not state.
        for (text, stated, not_stated) in [
            ("58,463.87", &["58463.87"][..], &["58.46387", "58463"][..]),
            ("58.463,87", &["58463.87"], &["58463"]),
            ("58 463,87", &["58463.87"], &["5846387"]),
            ("58\u{202f}463.87", &["58463.87"], &[]),
            ("58'463.87 and 58’463.87", &["58463.87"], &["58"]),
            ("1_000_000", &["1000000"], &["1"]),
            ("12,34,567.50", &["1234567.5"], &[]),
            ("1.249", &["1.249", "1249"], &["12.49"]),
            ("1,249", &["1249", "1.249"], &["1"]),
            ("0.249", &["0.249"], &["249"]),
            ("12.50", &["12.5", "1.25e1"], &["1250"]),
            ("12.5000", &["12.5"], &["125000"]),
            ("C$58,463.00", &["58463"], &["58"]),
            ("€ 5", &["5"], &["-5"]),
            ("-5 or (7.50)", &["-5", "-7.5", "5"], &["-7"]),
            ("−3", &["-3"], &[]),
            ("3-5", &["3", "5"], &["-5"]),
            ("19 %", &["19", "0.19"], &["1.9"]),
            (
                "7.5 percent, 3 per cent",
                &["0.075", "0.03", "7.5"],
                &["0.3"],
            ),
            ("2 percents", &["2"], &["0.02"]),
            ("1.5 million", &["1500000", "1.5"], &[]),
            ("20k", &["20000"], &[]),
            ("20kg", &["20"], &["20000"]),
            ("1,2,3", &["1", "2", "3"], &["123", "1.2"]),
            ("12.5,7", &["12.5", "7"], &["125"]),
            ("11.03.2024", &[], &["11", "11.03"]),
            ("INV-2684", &["2684"], &["-2684"]),
            ("0042", &["42"], &[]),
            ("2e3", &["2000"], &["2"]),
            ("Three apples, Twelve", &["3", "12"], &["1"]),
            ("Twice a single one", &["2", "1"], &["3"]),
            ("5 300", &["5", "300", "5300"], &[]),
            ("1234 567", &["1234", "567"], &["1234567"]),
        ] {
            let found: Vec<String> = numbers(text)
                .into_iter()
                .flat_map(|number| number.readings)
                .collect();
            let is_stated = |number: &&str| {
                let Kind::Number(number) = parse(number, 0).unwrap().root.kind else {
                    unreachable!()
                };
                let mut canonical = String::new();
                number.write_canonical(&mut canonical);
                found.contains(&canonical)
            };
            assert!(stated.iter().all(&is_stated), "{text}: {found:?}");
            assert!(!not_stated.iter().any(is_stated), "{text}: {found:?}");
        }
        assert!(
            whole_number("1,249.50").is_some()
                && whole_number("$ 5").is_some()
                && whole_number("5 kg").is_none()
        );
    }
}
