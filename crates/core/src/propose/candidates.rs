//! The values that a prompt offers for a field, with what tells them apart: what stands around, where, and how it looks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::Value;

use super::fields::{FieldKind, Form};
use super::prompt_text::{PromptText, Token, Vocabulary};
use super::ranker::{Feature, GroupIds, Groups, feature, number_feature};
use crate::exact_json;

/// Words of a value, unless it is a whole line.
const MAX_WORDS: usize = 8;
/// Lines that may be joined to a value.
const MAX_JOINED: usize = 3;
/// Words on each side of a place in a line whose words count as its own.
const WINDOW: usize = 8;
const MAX_COUNTED: usize = 8;

/// Written forms of dates: `Y` `M` `D` `y` in digits, `N` and `n` the month's name, whole and short, `d` and `m` without zero.
pub(super) const DATE_FORMS: [&str; 14] = [
    "Y-M-D", "D/M/Y", "M/D/Y", "D.M.Y", "D-M-Y", "M-D-Y", "Y/M/D", "d N Y", "N d, Y", "n d, Y",
    "d n Y", "D/M/y", "M/D/y", "YMD",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(super) struct Candidate {
    /// A string for text, JSON for all else; nothing for `Null` and `Absent`.
    pub(super) value: Value,
    pub(super) form: Form,
    /// Of a date that reads two ways, where it stands.
    pub(super) twin: Option<usize>,
    pub(super) groups: GroupIds,
}

/// The candidates of one prompt for fields of one kind.
pub(super) struct Candidates {
    pub(super) groups: Groups,
    pub(super) all: Vec<Candidate>,
}

/// What is computed once for all candidates of a prompt.
struct Context<'t> {
    prompt: &'t PromptText,
    vocabulary: &'t Vocabulary,
    groups: Groups,
    starts: BTreeMap<usize, u32>,
    ends: BTreeMap<usize, u32>,
    /// Values of the numbers outside dates, by span; all of them in order of size, without repetitions.
    amounts: BTreeMap<usize, f64>,
    sizes: Vec<f64>,
    empty: u32,
}

impl Candidate {
    /// Words of text; 1 of all else.
    pub(super) fn words(&self) -> usize {
        self.value
            .as_str()
            .map_or(1, |text| text.split_whitespace().count())
    }
}

impl Candidates {
    /// `forms`: those that are wanted; all if empty.
    pub(super) fn new(
        prompt: &PromptText,
        vocabulary: &Vocabulary,
        kind: &FieldKind,
        forms: &BTreeSet<Form>,
    ) -> Self {
        let mut context = Context::new(prompt, vocabulary);
        let is_wanted = |form: Form| forms.is_empty() || forms.contains(&form);
        let mut all = Vec::new();
        match kind {
            FieldKind::Text => {
                if is_wanted(Form::AsWritten) {
                    spans(&mut context, &mut all);
                }
                if is_wanted(Form::JoinedLines) {
                    joined_lines(&mut context, &mut all);
                }
                dates(&mut context, &is_wanted, &mut all);
                if is_wanted(Form::Currency) {
                    currencies(&mut context, &mut all);
                }
                numbers(
                    &mut context,
                    &[Form::Number, Form::Cents, Form::Thousands],
                    &is_wanted,
                    true,
                    &mut all,
                );
            }
            FieldKind::Number => {
                numbers(&mut context, &[Form::Number], &is_wanted, false, &mut all)
            }
            FieldKind::Listed(values) => listed(&mut context, values, &mut all),
        }
        for form in [Form::Null, Form::Absent] {
            let name = format!("{form:?}");
            let has = |what: &str, has: bool| feature("without", &format!("{name} {what} {has}"));
            let features = [
                feature("without", &name),
                has("date", !prompt.dates.is_empty()),
                has("currency", !prompt.currencies.is_empty()),
                has("number", !prompt.numbers.is_empty()),
            ];
            let own = context.groups.add(features);
            let empty = context.empty;
            all.push(Candidate {
                value: Value::Null,
                form,
                twin: None,
                groups: [own, empty, empty, empty],
            });
        }
        Self {
            groups: context.groups,
            all,
        }
    }
}

fn spans(context: &mut Context<'_>, all: &mut Vec<Candidate>) {
    let words = &context.prompt.words;
    for (first, word) in words.iter().enumerate() {
        let line = &context.prompt.lines[word.line];
        let is_first = word.span.start == line.start;
        for last in &words[first..] {
            let count = last_index(words, last) - first + 1;
            let is_whole = is_first && last.span.end == line.end;
            if last.line != word.line || (count > MAX_WORDS && !is_first) {
                break;
            }
            if count > MAX_WORDS && !is_whole {
                continue;
            }
            for start in &word.starts {
                for end in last.ends.iter().filter(|end| *end > start) {
                    let text = context.prompt.text[*start..*end].to_owned();
                    all.push(context.candidate(Value::String(text), Form::AsWritten, *start..*end));
                }
            }
        }
    }
}

/// Index of a word of this list.
fn last_index(words: &[super::prompt_text::Word], word: &super::prompt_text::Word) -> usize {
    words.partition_point(|other| other.span.start < word.span.start)
}

fn joined_lines(context: &mut Context<'_>, all: &mut Vec<Candidate>) {
    let lines = &context.prompt.lines;
    for first in 0..lines.len() {
        for last in first + 1..(first + MAX_JOINED).min(lines.len()) {
            let texts = lines[first..=last]
                .iter()
                .map(|line| &context.prompt.text[line.clone()]);
            let text = texts.collect::<Vec<_>>().join(" ");
            all.push(context.candidate(
                Value::String(text),
                Form::JoinedLines,
                lines[first].start..lines[last].end,
            ));
        }
    }
}

fn dates(context: &mut Context<'_>, is_wanted: &dyn Fn(Form) -> bool, all: &mut Vec<Candidate>) {
    for date in &context.prompt.dates {
        for (order, day) in date.days.iter().enumerate() {
            let order = if date.days.len() == 1 {
                "only"
            } else if order == 0 {
                "first"
            } else {
                "second"
            };
            for (index, form) in DATE_FORMS
                .iter()
                .enumerate()
                .filter(|(index, _)| is_wanted(Form::Date(*index)))
            {
                let mut found = context.candidate(
                    Value::String(written_date(*day, form)),
                    Form::Date(index),
                    date.span.clone(),
                );
                found.groups[3] = context.groups.add([feature("order", order)]);
                found.twin = (date.days.len() > 1).then_some(date.span.start);
                all.push(found);
            }
        }
    }
}

fn written_date((year, month, day): (u32, u32, u32), form: &str) -> String {
    let name = MONTHS[month as usize - 1];
    let part = |letter: char| match letter {
        'Y' => format!("{year:04}"),
        'y' => format!("{:02}", year % 100),
        'M' => format!("{month:02}"),
        'D' => format!("{day:02}"),
        'd' => day.to_string(),
        'N' => name.to_owned(),
        'n' => name[..3].to_owned(),
        other => other.to_string(),
    };
    form.chars().map(part).collect()
}

fn currencies(context: &mut Context<'_>, all: &mut Vec<Candidate>) {
    for (span, code) in &context.prompt.currencies {
        let code = Value::String(code.to_uppercase());
        all.push(context.candidate(code, Form::Currency, span.clone()));
    }
}

fn numbers(
    context: &mut Context<'_>,
    forms: &[Form],
    is_wanted: &dyn Fn(Form) -> bool,
    as_text: bool,
    all: &mut Vec<Candidate>,
) {
    for number in &context.prompt.numbers {
        let is_in_date =
            context.prompt.dates.iter().any(|date| {
                date.span.start <= number.span.start && number.span.end <= date.span.end
            });
        for (order, reading) in number.readings.iter().enumerate() {
            let Some(plain) = plain(reading) else {
                continue;
            };
            for form in forms.iter().filter(|form| is_wanted(**form)) {
                let text = written_number(&plain, *form);
                let value = if as_text {
                    Value::String(text)
                } else {
                    exact_json::number(&text)
                };
                let mut found = context.candidate(value, *form, number.span.clone());
                let details = [
                    number_feature("reading", order as u64),
                    feature(
                        "separators",
                        &separators(context.prompt, &number.span, &plain),
                    ),
                    feature("in date", &is_in_date.to_string()),
                ];
                found.groups[3] = context.groups.add(details);
                all.push(found);
            }
        }
    }
}

/// How separators are read: the last one, the digits after it, and whether these are a fraction.
fn separators(prompt: &PromptText, span: &Range<usize>, plain: &str) -> String {
    let text = &prompt.text[span.clone()];
    let Some(last) = text.rfind(|letter: char| !letter.is_ascii_digit()) else {
        return String::new();
    };
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).count();
    let whole = plain.split('.').next().unwrap_or_default();
    let is_fraction = digits(whole) == digits(&text[..last]);
    let mark = text[last..].chars().next().unwrap_or_default();
    format!("{mark} {} {is_fraction}", digits(&text[last..]))
}

/// A number's canonical text as plain decimals.
pub(super) fn plain(canonical: &str) -> Option<String> {
    let (digits, exponent) = canonical.strip_prefix('#')?.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits),
    };
    match exponent {
        _ if digits.is_empty() => Some("0".to_owned()),
        0..=18 => Some(format!("{sign}{digits}{}", "0".repeat(exponent as usize))),
        -18..0 => {
            let decimals = exponent.unsigned_abs() as usize;
            let digits = format!("{digits:0>width$}", width = decimals + 1);
            let (whole, fraction) = digits.split_at(digits.len() - decimals);
            Some(format!("{sign}{whole}.{fraction}"))
        }
        _ => None,
    }
}

fn written_number(plain: &str, form: Form) -> String {
    if form == Form::Number {
        return plain.to_owned();
    }
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if form == Form::Thousands && left.is_multiple_of(3) && index > 0 && !grouped.ends_with('-')
        {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped}.{fraction:0<2}")
}

fn listed(context: &mut Context<'_>, values: &[Value], all: &mut Vec<Candidate>) {
    let words: BTreeSet<&str> = context
        .prompt
        .tokens
        .iter()
        .map(|token| token.text.as_str())
        .collect();
    let lower = context.prompt.text.to_lowercase();
    for value in values {
        let name = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_lowercase);
        let bag = words.iter().map(|word| feature(&name, word));
        let own = context.groups.add(bag);
        let is_stated = lower.contains(&name);
        let is_code = context
            .prompt
            .currencies
            .iter()
            .any(|(_, code)| *code == name);
        let stated = context.groups.add([
            feature("listed", &name),
            feature("stated", &is_stated.to_string()),
            feature("code", &is_code.to_string()),
        ]);
        let empty = context.empty;
        all.push(Candidate {
            value: value.clone(),
            form: Form::Listed,
            twin: None,
            groups: [own, stated, empty, empty],
        });
    }
}

impl<'t> Context<'t> {
    fn new(prompt: &'t PromptText, vocabulary: &'t Vocabulary) -> Self {
        let mut amounts = BTreeMap::new();
        for number in &prompt.numbers {
            let is_in_date = prompt
                .dates
                .iter()
                .any(|date| date.span.start < number.span.end && number.span.start < date.span.end);
            let value = number
                .readings
                .first()
                .and_then(|reading| plain(reading)?.parse::<f64>().ok());
            if let Some(value) = value.filter(|_| !is_in_date) {
                amounts.insert(number.span.start, value);
            }
        }
        let mut sizes: Vec<f64> = amounts.values().copied().collect();
        sizes.sort_by(|left, right| right.total_cmp(left));
        sizes.dedup();
        let mut groups = Groups::default();
        let empty = groups.add([]);
        Self {
            prompt,
            vocabulary,
            groups,
            starts: BTreeMap::new(),
            ends: BTreeMap::new(),
            amounts,
            sizes,
            empty,
        }
    }

    fn candidate(&mut self, value: Value, form: Form, span: Range<usize>) -> Candidate {
        let start = match self.starts.get(&span.start) {
            Some(group) => *group,
            None => {
                let features = self.before(span.start);
                let group = self.groups.add(features);
                self.starts.insert(span.start, group);
                group
            }
        };
        let end = match self.ends.get(&span.end) {
            Some(group) => *group,
            None => {
                let features = self.after(span.end);
                let group = self.groups.add(features);
                self.ends.insert(span.end, group);
                group
            }
        };
        let own = self.own(form, &span);
        let own = self.groups.add(own);
        Candidate {
            value,
            form,
            twin: None,
            groups: [start, end, own, self.empty],
        }
    }

    /// Of the place where a value begins: what stands before it, its line and the line before.
    fn before(&mut self, start: usize) -> Vec<Feature> {
        let prompt = self.prompt;
        let at = prompt.token_at(start);
        let left = |distance: usize| {
            at.checked_sub(distance)
                .and_then(|index| prompt.tokens.get(index))
                .map_or("^", |token| token.text.as_str())
        };
        let mut features: Vec<Feature> = (1..=4)
            .map(|distance| {
                feature(
                    ["left 1", "left 2", "left 3", "left 4"][distance - 1],
                    left(distance),
                )
            })
            .collect();
        features.push(feature("left pair", &format!("{} {}", left(2), left(1))));
        let words = (1..=8)
            .map(left)
            .filter(|word| word.starts_with(char::is_alphabetic));
        let words: Vec<&str> = words.take(2).collect();
        features.push(feature("word before", words.first().unwrap_or(&"^")));
        features.push(feature("second word before", words.get(1).unwrap_or(&"^")));
        let line = prompt.line_at(start);
        let is_first = prompt
            .lines
            .get(line)
            .is_some_and(|line| line.start == start);
        let before = prompt.text[..start].chars().next_back().unwrap_or('^');
        features.push(feature("character before", &before.to_string()));
        features.push(feature("begins line", &is_first.to_string()));
        features.push(number_feature("line", line.min(MAX_COUNTED) as u64));
        if prompt.lines.len() > 3 {
            features.push(number_feature(
                "line from end",
                (prompt.lines.len() - line).min(MAX_COUNTED) as u64,
            ));
        }
        if is_first {
            features.push(number_feature("line begun", line.min(MAX_COUNTED) as u64));
        }
        for (kind, index) in [
            ("in line", Some(line)),
            ("in line before", line.checked_sub(1)),
        ] {
            let Some(span) = index.and_then(|index| prompt.lines.get(index)) else {
                continue;
            };
            let tokens = prompt.tokens_of(span);
            let here = tokens.partition_point(|token| token.span.end <= start);
            let near = if index == Some(line) {
                &tokens[here.saturating_sub(WINDOW)..tokens.len().min(here + WINDOW)]
            } else {
                &tokens[..tokens.len().min(2 * WINDOW)]
            };
            let words: BTreeSet<&str> = near
                .iter()
                .map(|token| token.text.as_str())
                .filter(|word| word.starts_with(char::is_alphabetic))
                .collect();
            features.extend(words.into_iter().map(|word| feature(kind, word)));
        }
        features
    }

    /// Of the place where a value ends.
    fn after(&mut self, end: usize) -> Vec<Feature> {
        let prompt = self.prompt;
        let at = prompt.token_at(end);
        let right = |distance: usize| {
            prompt
                .tokens
                .get(at + distance)
                .map_or("$", |token| token.text.as_str())
        };
        let line = prompt.lines.get(prompt.line_at(end.saturating_sub(1)));
        let is_last = line.is_some_and(|line| line.end == end);
        let after = prompt.text[end..].chars().next().unwrap_or('$');
        vec![
            feature("right 1", right(0)),
            feature("right 2", right(1)),
            feature("right pair", &format!("{} {}", right(0), right(1))),
            feature("character after", &after.to_string()),
            feature("ends line", &is_last.to_string()),
        ]
    }

    /// Of the value itself.
    fn own(&mut self, form: Form, span: &Range<usize>) -> Vec<Feature> {
        let prompt = self.prompt;
        let text = &prompt.text[span.clone()];
        let tokens = prompt.tokens_of(span);
        let words: Vec<&str> = text.split_whitespace().collect();
        let count = |limit: usize, number: usize| number.min(limit) as u64;
        let whole = shape(text);
        let line = prompt.line_at(span.start);
        let is_line = prompt.lines.get(line).is_some_and(|line| *line == *span);
        let mut features = vec![
            feature("form", &format!("{form:?}")),
            feature("shape", &whole),
            number_feature("words", words.len() as u64),
            feature("first word", tokens.first().map_or("", |token| &token.text)),
            feature("last word", tokens.last().map_or("", |token| &token.text)),
            feature("first shape", &shape(words.first().unwrap_or(&""))),
            feature("last shape", &shape(words.last().unwrap_or(&""))),
            feature("whole line", &is_line.to_string()),
            feature(
                "brackets",
                &(text.matches('(').count() == text.matches(')').count()).to_string(),
            ),
            feature(
                "digits",
                &text.bytes().any(|byte| byte.is_ascii_digit()).to_string(),
            ),
            feature(
                "ends in punctuation",
                &(!text.ends_with(char::is_alphanumeric)).to_string(),
            ),
            feature(
                "begins with punctuation",
                &(!text.starts_with(char::is_alphanumeric)).to_string(),
            ),
        ];
        // A word in capitals beside one in capitals belongs to the same name.
        let beside = |token: Option<&Token>| {
            token.map_or_else(
                || "^".to_owned(),
                |token| shape(&prompt.text[token.span.clone()]),
            )
        };
        let at = prompt.token_at(span.start);
        let before = beside(at.checked_sub(1).and_then(|at| prompt.tokens.get(at)));
        let after = beside(prompt.tokens.get(prompt.token_at(span.end)));
        let ends = [beside(tokens.first()), beside(tokens.last())];
        features.push(feature("first boundary", &format!("{before}|{}", ends[0])));
        features.push(feature("last boundary", &format!("{}|{after}", ends[1])));
        features.push(feature("shape before", &before));
        features.push(feature("shape after", &after));
        if is_line {
            features.push(number_feature("is line", count(MAX_COUNTED, line)));
        }
        let common = |token: Option<&Token>| {
            token.map_or(9, |token| self.vocabulary.rank(&token.text)) as u64
        };
        let ranks = || {
            tokens
                .iter()
                .filter(|token| token.text.starts_with(char::is_alphanumeric))
                .map(|token| common(Some(token)))
        };
        let before = common(at.checked_sub(1).and_then(|at| prompt.tokens.get(at)));
        let after = common(prompt.tokens.get(prompt.token_at(span.end)));
        features.push(number_feature("commonest", ranks().max().unwrap_or(9)));
        features.push(number_feature("rarest", ranks().min().unwrap_or(9)));
        features.push(number_feature("common first", common(tokens.first())));
        features.push(number_feature("common last", common(tokens.last())));
        features.push(number_feature("common before", before));
        features.push(number_feature("common after", after));
        if form == Form::JoinedLines {
            for (number, line) in prompt.lines[line..]
                .iter()
                .take_while(|line| line.start < span.end)
                .enumerate()
            {
                let text = &prompt.text[line.clone()];
                let has_digits = text.bytes().any(|byte| byte.is_ascii_digit());
                let first = prompt.tokens_of(line).first();
                features.push(feature("joined digits", &format!("{number} {has_digits}")));
                features.push(feature(
                    "joined shape",
                    &format!(
                        "{number} {}",
                        shape(text.split_whitespace().next().unwrap_or(""))
                    ),
                ));
                features.push(number_feature(
                    "joined words",
                    (number * 100 + text.split_whitespace().count()) as u64,
                ));
                features.push(number_feature(
                    "joined common",
                    number as u64 * 100 + common(first),
                ));
                features.push(feature(
                    "joined first",
                    first.map_or("", |token| &token.text),
                ));
            }
        }
        if words.len() <= 3 {
            let times = prompt.text.matches(text).count();
            features.push(number_feature("times", count(4, times)));
        }
        if let Some(value) = self
            .amounts
            .get(&span.start)
            .filter(|_| span.end - span.start < 24)
        {
            let rank = self
                .sizes
                .iter()
                .position(|size| size == value)
                .unwrap_or(0);
            features.push(number_feature("size", count(6, rank)));
            features.push(feature(
                "has decimals",
                &(text.len() > 3 && text.as_bytes()[text.len() - 3].is_ascii_punctuation())
                    .to_string(),
            ));
            let times = self
                .amounts
                .values()
                .filter(|other| *other == value)
                .count();
            features.push(number_feature("times as number", count(4, times)));
            let currency = prompt
                .currencies
                .iter()
                .any(|(place, _)| place.end <= span.start && span.start - place.end <= 1);
            features.push(feature("after currency", &currency.to_string()));
            features.push(feature(
                "difference",
                &self.is_difference(*value).to_string(),
            ));
        }
        features
    }

    /// Whether a number is one larger than it less another: cash less change.
    fn is_difference(&self, value: f64) -> bool {
        let larger = self.sizes.iter().filter(|size| **size > value);
        value > 0.0
            && larger.clone().any(|size| {
                self.sizes.iter().any(|other| {
                    *other > 0.0
                        && *other < *size
                        && (size - other - value).abs() < 0.005
                        && (other - value).abs() > 0.005
                })
            })
    }
}

/// Letters as `a` and `A`, digits as `9`, three or more of a kind as two.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    for letter in text.chars() {
        let kind = match letter {
            _ if letter.is_uppercase() => 'A',
            _ if letter.is_alphabetic() => 'a',
            _ if letter.is_numeric() => '9',
            _ if letter.is_whitespace() => ' ',
            _ => letter,
        };
        if !(shape.ends_with(kind) && shape[..shape.len() - kind.len_utf8()].ends_with(kind)) {
            shape.push(kind);
        }
        if shape.len() > 24 {
            break;
        }
    }
    shape
}
