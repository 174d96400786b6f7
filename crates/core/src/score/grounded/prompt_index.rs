//! Index of a prompt: words, numbers and dates with their places.

use std::collections::HashMap;
use std::ops::Range;

use super::dates::{Day, WrittenDate, dates};
use super::numbers::{WrittenNumber, numbers};
use crate::dataset::PromptRow;

/// From here on scripts have no spaces: each letter is a word.
const UNSPACED: char = '\u{2e80}';

/// Roles whose messages are sources. System texts contain instructions and examples, and the
/// model's own answers do not count.
const SOURCES: [&str; 2] = ["user", "tool"];

/// A place in the prompt: index of the message, and bytes of its content.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) message: usize,
    pub(super) span: Range<usize>,
}

#[derive(Debug, Default)]
pub(super) struct PromptIndex<'r> {
    texts: Vec<(usize, &'r str)>,
    words: Vec<(Place, String)>,
    by_word: HashMap<String, Vec<usize>>,
    numbers: Vec<(usize, WrittenNumber)>,
    by_number: HashMap<String, Vec<usize>>,
    dates: Vec<(usize, WrittenDate)>,
    /// By the code that they state, in lower case.
    currencies: HashMap<&'static str, Vec<Place>>,
}

/// Signs of one currency, and the codes of ISO 4217 that they state.
const CURRENCY_SIGNS: [(&str, &[&str]); 8] = [
    ("€", &["eur"]),
    ("£", &["gbp"]),
    ("¥", &["jpy"]),
    ("₹", &["inr"]),
    ("zł", &["pln"]),
    ("kr", &["sek", "nok", "dkk"]),
    ("Fr", &["chf"]),
    ("$", &["usd"]),
];
/// Words of one currency, in lower case.
const CURRENCY_WORDS: [(&str, &str); 5] = [
    ("euro", "eur"),
    ("euros", "eur"),
    ("dollar", "usd"),
    ("dollars", "usd"),
    ("yen", "jpy"),
];
/// Codes of ISO 4217 in use.
const CODES: &str = "aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd btn bwp byn bzd cad cdf chf clp cny cop crc cup cve czk djf dkk dop dzd egp ern etb eur fjd fkp gbp gel ghs gip gmd gnf gtq gyd hkd hnl htg huf idr ils inr iqd irr isk jmd jod jpy kes kgs khr kmf kpw krw kwd kyd kzt lak lbp lkr lrd lsl lyd mad mdl mga mkd mmk mnt mop mru mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sdg sek sgd shp sle sos srd ssp stn syp szl thb tjs tmt tnd top try ttd twd tzs uah ugx usd uyu uzs ves vnd vuv wst xaf xcd xof xpf yer zar zmw zwl";
/// Letters before `$`, and the code that they make of it.
const DOLLARS: [(&str, &str); 9] = [
    ("US", "usd"),
    ("C", "cad"),
    ("CA", "cad"),
    ("A", "aud"),
    ("AU", "aud"),
    ("NZ", "nzd"),
    ("HK", "hkd"),
    ("S", "sgd"),
    ("R", "brl"),
];

impl<'r> PromptIndex<'r> {
    pub(super) fn new(row: &'r PromptRow) -> Self {
        let mut found = Self::default();
        for (message, turn) in row
            .messages
            .iter()
            .enumerate()
            .filter(|(_, turn)| SOURCES.contains(&&*turn.role))
        {
            let text = turn.content.as_str();
            found.texts.push((message, text));
            for (span, word) in words(text) {
                found
                    .by_word
                    .entry(word.clone())
                    .or_default()
                    .push(found.words.len());
                found.words.push((Place { message, span }, word));
            }
            for (span, code) in currencies(text) {
                let places = found.currencies.entry(code).or_default();
                places.push(Place { message, span });
            }
            for number in numbers(text) {
                for reading in &number.readings {
                    found
                        .by_number
                        .entry(reading.clone())
                        .or_default()
                        .push(found.numbers.len());
                }
                found.numbers.push((message, number));
            }
            found
                .dates
                .extend(dates(text).into_iter().map(|date| (message, date)));
        }
        found
    }

    /// Places of a text's consecutive words, ignoring case and what is between.
    pub(super) fn places_of_text(&self, text: &str) -> Vec<Place> {
        let sought: Vec<String> = words(text).map(|(_, word)| word).collect();
        let Some(starts) = sought.first().and_then(|first| self.by_word.get(first)) else {
            let code = sought.first().filter(|_| sought.len() == 1);
            let signs = code.and_then(|code| self.currencies.get(code.as_str()));
            return signs.cloned().unwrap_or_default();
        };
        let place = |start: &usize| {
            let found = self.words.get(*start..start + sought.len())?;
            let (first, last) = (&found.first()?.0, &found.last()?.0);
            let is_same = found
                .iter()
                .zip(&sought)
                .all(|((_, word), sought)| word == sought);
            let span = first.span.start..last.span.end;
            (is_same && first.message == last.message).then_some(Place {
                message: first.message,
                span,
            })
        };
        starts.iter().filter_map(place).collect()
    }

    pub(super) fn places_of_number(&self, canonical: &str) -> Vec<Place> {
        let found = self
            .by_number
            .get(canonical)
            .into_iter()
            .flatten()
            .filter_map(|index| self.numbers.get(*index));
        found
            .map(|(message, number)| Place {
                message: *message,
                span: number.span.clone(),
            })
            .collect()
    }

    pub(super) fn places_of_day(&self, day: Day) -> Vec<Place> {
        let found = self
            .dates
            .iter()
            .filter(|(_, date)| date.days.contains(&day));
        found
            .map(|(message, date)| Place {
                message: *message,
                span: date.span.clone(),
            })
            .collect()
    }

    /// Whether a number in digits, outside dates, overlaps none of `taken`.
    pub(super) fn has_other_number(&self, taken: &[Place]) -> bool {
        let is_free = |(message, number): &(usize, WrittenNumber)| {
            let in_date = self
                .dates
                .iter()
                .any(|(other, date)| other == message && overlap(&date.span, &number.span));
            !number.is_word && !in_date && !is_taken(taken, *message, &number.span)
        };
        self.numbers.iter().any(is_free)
    }

    pub(super) fn has_other_date(&self, taken: &[Place]) -> bool {
        self.dates
            .iter()
            .any(|(message, date)| !is_taken(taken, *message, &date.span))
    }

    pub(super) fn has_words(&self) -> bool {
        !self.words.is_empty()
    }

    /// Whether a space-separated word, without surrounding punctuation, matches.
    pub(super) fn has_match(&self, pattern: &regex::Regex) -> bool {
        let is_match = |word: &str| {
            pattern.is_match(word)
                || pattern.is_match(word.trim_matches(|letter: char| !letter.is_alphanumeric()))
        };
        self.texts
            .iter()
            .flat_map(|(_, text)| text.split_whitespace())
            .any(is_match)
    }

    pub(super) fn text(&self, place: &Place) -> &'r str {
        self.texts
            .iter()
            .find(|(message, _)| *message == place.message)
            .map_or("", |(_, text)| text)
    }
}

fn overlap(left: &Range<usize>, right: &Range<usize>) -> bool {
    left.start < right.end && right.start < left.end
}

fn is_taken(taken: &[Place], message: usize, span: &Range<usize>) -> bool {
    taken
        .iter()
        .any(|place| place.message == message && overlap(&place.span, span))
}

/// Places of currencies with the codes that they state: codes in capitals, also beside a digit; words; signs, of which
/// `$` after letters is another dollar, and one of letters is no part of a word.
pub(crate) fn currencies(text: &str) -> Vec<(Range<usize>, &'static str)> {
    let (mut found, mut start) = (Vec::new(), 0);
    for piece in text.split_inclusive(|letter: char| !letter.is_alphabetic()) {
        let written = piece.trim_end_matches(|letter: char| !letter.is_alphabetic());
        let lower = written.to_lowercase();
        let is_code = written.len() == 3 && written.bytes().all(|byte| byte.is_ascii_uppercase());
        let word = CURRENCY_WORDS.iter().find(|(word, _)| *word == lower);
        let code = CODES.split(' ').find(|code| is_code && *code == lower);
        let code = code.or(word.map(|(_, code)| *code));
        found.extend(code.map(|code| (start..start + written.len(), code)));
        start += piece.len();
    }
    for (sign, codes) in CURRENCY_SIGNS {
        for (start, _) in text.match_indices(sign) {
            let span = start..start + sign.len();
            let letters = text[..start]
                .rsplit(|letter: char| !letter.is_alphabetic())
                .next()
                .unwrap_or_default();
            let is_in_word = sign.chars().any(char::is_alphabetic)
                && (!letters.is_empty() || text[span.end..].starts_with(char::is_alphabetic));
            if sign == "$" && !letters.is_empty() {
                let dollar = DOLLARS.iter().find(|(before, _)| *before == letters);
                found.extend(dollar.map(|(_, code)| (span, *code)));
            } else if !is_in_word {
                found.extend(codes.iter().map(|code| (span.clone(), *code)));
            }
        }
    }
    found
}

/// Lower-case words with their places.
fn words(text: &str) -> impl Iterator<Item = (Range<usize>, String)> {
    let mut letters = text.char_indices().peekable();
    std::iter::from_fn(move || {
        let (start, first) = letters.find(|(_, letter)| letter.is_alphanumeric())?;
        let mut end = start + first.len_utf8();
        while first < UNSPACED
            && let Some((at, letter)) =
                letters.next_if(|(_, next)| next.is_alphanumeric() && *next < UNSPACED)
        {
            end = at + letter.len_utf8();
        }
        Some((start..end, text[start..end].to_lowercase()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn currencies_are_signs_codes_and_words() {
        for (text, codes) in [
            ("20€ or €20", "eur eur"),
            ("24.50EUR, EUR24, EUR 7", "eur eur eur"),
            ("5 Euros, 3 dollars", "eur usd"),
            ("US$5 C$6 $7", "usd cad usd"),
            ("EURO, EURX, eur, krone", "eur"),
        ] {
            let mut found = currencies(text);
            found.sort_by_key(|(span, _)| span.start);
            let found: Vec<&str> = found.iter().map(|(_, code)| *code).collect();
            assert_eq!(found.join(" "), codes, "{text}");
        }
    }
}
