//! The reward part `grounded`: share of an answer's values that its prompt states.

mod dates;
pub(super) mod fields;
mod numbers;
mod prompt_index;

use std::collections::HashMap;

use crate::dataset::PromptRow;
use crate::score::answer::json::Places;
use crate::score::answer::stated_value::{Leaf, StatedValue};
use crate::score::definition::Definition;
use crate::score::verdict::{GroundedValue, PromptPlace, Reason};
use crate::task::TaskFiles;
pub(crate) use dates::{WrittenDate, dates as dates_in};
pub(crate) use numbers::{WrittenNumber, numbers as numbers_in};
pub(crate) use prompt_index::currencies as currencies_in;

use dates::{Day, whole_date};
use fields::{FieldForm, Fields};
use numbers::whole_number;
use prompt_index::{Place, PromptIndex};

/// Values listed as reasons; all of them count.
const MAX_LISTED: usize = 100;
/// Fields that one mention in the prompt can ground: a total and its subtotal, a guest who has a
/// task. The items of a list are one field.
const MAX_FIELDS: usize = 2;
/// Characters of the prompt shown around a value.
const CONTEXT: usize = 24;
const NOT_IN_PROMPT: &str = "not in the prompt";

#[derive(Debug)]
pub(super) struct Grounded {
    fields: Fields,
    /// `[score.grounded] except`.
    except: Vec<Vec<String>>,
}

#[derive(Debug, Default)]
pub(super) struct Grounding {
    /// Within [0, 1].
    pub(super) share: f64,
    pub(super) values: Vec<GroundedValue>,
    /// Values that the prompt does not state.
    pub(super) missing: Vec<Reason>,
}

#[derive(Debug, Clone)]
enum Finding {
    Stated(Option<Place>),
    NotStated(&'static str),
    /// Classified, or excepted.
    NotCounted,
}

impl Grounded {
    pub(super) fn new(definition: &dyn Definition, task: &TaskFiles) -> Option<Self> {
        let fields = Fields::new(definition)?;
        let except = task
            .score
            .grounded_except
            .iter()
            .map(|path| path.split('.').map(str::to_owned).collect());
        Some(Self {
            fields,
            except: except.collect(),
        })
    }

    /// A path of `except` that no schema has, with suggestions.
    pub(super) fn unknown_path(&self) -> Option<(String, String)> {
        let unknown = self
            .except
            .iter()
            .find(|path| !self.fields.is_empty() && !self.fields.has(path))?
            .join(".");
        let names = self.fields.names();
        let near = crate::format::did_you_mean(&unknown, names.iter().map(String::as_str));
        let known = || {
            format!(
                "; fields: {}",
                names
                    .iter()
                    .take(12)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        };
        let hint = if near.is_empty() { known() } else { near };
        Some((unknown, hint))
    }

    /// Searches the prompt for each value. `values`: of a completion, in order.
    pub(super) fn ground(
        &self,
        completion: &str,
        values: &[StatedValue],
        row: &PromptRow,
    ) -> Grounding {
        let mut search = Search::new(row);
        let findings = self.findings(values, row, &mut search);
        summed(completion, values, &findings, &search.prompt)
    }

    /// Of each value whether the prompt states it; `None` of classified and excepted ones.
    pub(super) fn statements(&self, values: &[StatedValue], row: &PromptRow) -> Vec<Option<bool>> {
        let findings = self.findings(values, row, &mut Search::new(row));
        let is_stated = |finding: &Finding| match finding {
            Finding::NotCounted => None,
            Finding::NotStated(why) => Some(*why != NOT_IN_PROMPT),
            Finding::Stated(_) => Some(true),
        };
        findings.iter().map(is_stated).collect()
    }

    fn findings(
        &self,
        values: &[StatedValue],
        row: &PromptRow,
        search: &mut Search<'_>,
    ) -> Vec<Finding> {
        let own = row.tools().map(Fields::of_tools);
        let fields = own.as_ref().unwrap_or(&self.fields);
        let mut forms: HashMap<&[String], Option<FieldForm>> = HashMap::new();
        let mut findings: Vec<Option<Finding>> = Vec::with_capacity(values.len());
        for value in values {
            let form = forms
                .entry(&value.path)
                .or_insert_with(|| fields.form(&value.path));
            let is_excepted = self.except.iter().any(|path| value.path.starts_with(path));
            findings.push(match &value.leaf {
                _ if is_excepted => Some(Finding::NotCounted),
                Leaf::Nothing => None,
                Leaf::Boolean => Some(Finding::NotCounted),
                _ => Some(search.find(value, form.as_ref())),
            });
        }
        // Whether an empty value is right depends on what the others state.
        let left = Left::new(search);
        let nothings: HashMap<&[String], Finding> = forms
            .iter()
            .map(|(path, form)| (*path, search.nothing(form.as_ref(), &left)))
            .collect();
        let nothing = |value: &StatedValue| {
            nothings
                .get(value.path.as_slice())
                .cloned()
                .unwrap_or(Finding::NotCounted)
        };
        let findings = findings.into_iter().zip(values);
        findings
            .map(|(found, value)| found.unwrap_or_else(|| nothing(value)))
            .collect()
    }
}

fn summed(
    completion: &str,
    values: &[StatedValue],
    findings: &[Finding],
    prompt: &PromptIndex<'_>,
) -> Grounding {
    let mut places = Places::new(completion);
    let (mut found, mut stated, mut counted) = (Grounding::default(), 0_u32, 0_u32);
    for (value, finding) in values.iter().zip(findings) {
        let at @ crate::score::answer::json::Place { line, column } = places.locate(value.at);
        counted += u32::from(!matches!(finding, Finding::NotCounted));
        match finding {
            Finding::Stated(place) => {
                stated += 1;
                if let Some(place) = place.as_ref().filter(|_| found.values.len() < MAX_LISTED) {
                    let prompt = prompt_place(prompt, place);
                    found.values.push(GroundedValue {
                        instance_path: value.pointer.clone(),
                        line,
                        column,
                        prompt,
                    });
                }
            }
            Finding::NotStated(why) if found.missing.len() < MAX_LISTED => {
                found.missing.push(Reason {
                    instance_path: value.pointer.clone(),
                    ..Reason::at((*why).to_owned(), at)
                })
            }
            _ => {}
        }
    }
    found.share = if counted == 0 {
        0.0
    } else {
        f64::from(stated) / f64::from(counted)
    };
    found
}

/// Numbers and dates in the prompt that no answer value uses.
struct Left {
    has_number: bool,
    has_date: bool,
}

impl Left {
    fn new(Search { prompt, taken, .. }: &Search<'_>) -> Self {
        Self {
            has_number: prompt.has_other_number(taken),
            has_date: prompt.has_other_date(taken),
        }
    }
}

struct Search<'r> {
    prompt: PromptIndex<'r>,
    /// Fields that state a value, and its number of mentions.
    stated: HashMap<String, (Vec<Vec<String>>, usize)>,
    taken: Vec<Place>,
}

impl<'r> Search<'r> {
    fn new(row: &'r PromptRow) -> Self {
        Self {
            prompt: PromptIndex::new(row),
            stated: HashMap::new(),
            taken: Vec::new(),
        }
    }

    fn find(&mut self, value: &StatedValue, form: Option<&FieldForm>) -> Finding {
        let (key, places) = self.places(&value.leaf);
        let listed = form.map_or(&[][..], |form| form.listed.as_slice());
        if places.is_empty() {
            let is_free = form.is_some_and(|form| form.is_text || form.is_number);
            // A value of an enum is classified, unless the prompt states another enum value.
            if !listed.is_empty() && !is_free && !listed.iter().any(|other| self.states(other)) {
                return Finding::NotCounted;
            }
            return Finding::NotStated(NOT_IN_PROMPT);
        }
        let (fields, times) = self.stated.entry(key).or_default();
        if fields.len() < MAX_FIELDS && !fields.contains(&value.path) {
            fields.push(value.path.clone());
        }
        let place = places.get(*times).filter(|_| fields.contains(&value.path));
        *times += usize::from(place.is_some());
        match place {
            Some(place) => {
                self.taken.push(place.clone());
                Finding::Stated(Some(place.clone()))
            }
            None => Finding::NotStated("stated once more than the prompt states it"),
        }
    }

    fn places(&self, leaf: &Leaf) -> (String, Vec<Place>) {
        match leaf {
            Leaf::Number(number) => (number.clone(), self.prompt.places_of_number(number)),
            Leaf::Text(text) => self.places_of_text(text),
            Leaf::Nothing | Leaf::Boolean => (String::new(), Vec::new()),
        }
    }

    fn places_of_text(&self, text: &str) -> (String, Vec<Place>) {
        let places = self.prompt.places_of_text(text);
        if !places.is_empty() {
            return (text.to_lowercase(), places);
        }
        let of_days = |days: Vec<Day>| -> Vec<Place> {
            days.into_iter()
                .flat_map(|day| self.prompt.places_of_day(day))
                .collect()
        };
        let places = of_days(whole_date(text));
        if !places.is_empty() {
            return (text.to_owned(), places);
        }
        // A date with a time: both must be in the prompt.
        let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, ""));
        let clock = time
            .get(..5)
            .filter(|clock| clock.as_bytes().get(2) == Some(&b':'));
        let is_told = |clock: &str| {
            let short = clock.trim_start_matches('0');
            [clock, short]
                .iter()
                .any(|clock| !self.prompt.places_of_text(clock).is_empty())
        };
        if clock.is_some_and(is_told) {
            return (text.to_owned(), of_days(whole_date(date)));
        }
        let readings = whole_number(text).unwrap_or_default();
        let numbers = readings
            .iter()
            .map(|reading| (reading, self.prompt.places_of_number(reading)));
        let found = numbers.into_iter().find(|(_, places)| !places.is_empty());
        found.map_or_else(
            || (text.to_owned(), Vec::new()),
            |(reading, places)| (reading.clone(), places),
        )
    }

    fn states(&self, value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::String(text) => !self.places_of_text(text).1.is_empty(),
            serde_json::Value::Number(number) => {
                whole_number(&number.to_string()).is_some_and(|readings| {
                    readings
                        .iter()
                        .any(|it| !self.prompt.places_of_number(it).is_empty())
                })
            }
            _ => false,
        }
    }

    /// An empty value is right if the prompt has nothing unused that the field could hold.
    fn nothing(&self, form: Option<&FieldForm>, left: &Left) -> Finding {
        let Some(form) = form else {
            return Finding::NotStated("nothing, and the prompt has text that it could be");
        };
        let why = if form.is_text && self.prompt.has_words() {
            "nothing, and the prompt has text that it could be"
        } else if form.is_number && left.has_number {
            "nothing, and the prompt has a number that no other value states"
        } else if form.is_date && left.has_date {
            "nothing, and the prompt has a date that no other value states"
        } else if form.listed.iter().any(|value| self.states(value)) {
            "nothing, and the prompt has one of the values that it may have"
        } else if form
            .patterns
            .iter()
            .any(|pattern| self.prompt.has_match(pattern))
        {
            "nothing, and the prompt has a word of its pattern"
        } else if form.is_boolean {
            return Finding::NotCounted;
        } else {
            return Finding::Stated(None);
        };
        Finding::NotStated(why)
    }
}

fn prompt_place(prompt: &PromptIndex<'_>, place: &Place) -> PromptPlace {
    let text = prompt.text(place);
    let (line, column) = crate::format::line_column(text, place.span.start);
    let start_of_line = text[..place.span.start]
        .rfind('\n')
        .map_or(0, |end| end + 1);
    let before = &text[start_of_line..place.span.start];
    let skipped = before.chars().count().saturating_sub(CONTEXT);
    let shown: String = before.chars().skip(skipped).collect();
    // Whole words, if there are spaces.
    let first_word = |shown: &str| {
        shown
            .find(char::is_whitespace)
            .filter(|_| skipped > 0)
            .unwrap_or(0)
    };
    let shown = shown[first_word(&shown)..].trim_start();
    let value = text[place.span.clone()].replace('\n', " ");
    let rest = text[place.span.end..].lines().next().unwrap_or_default();
    let mut after: String = rest.chars().take(CONTEXT).collect();
    if after.len() < rest.len() {
        after.truncate(after.rfind(char::is_whitespace).unwrap_or(after.len()));
    }
    let (start, length) = (shown.chars().count(), value.chars().count());
    PromptPlace {
        message: place.message,
        line,
        column,
        excerpt: format!("{shown}{value}{after}"),
        start,
        length,
    }
}
