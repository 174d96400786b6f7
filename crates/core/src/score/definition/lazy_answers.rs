//! Degenerate answers, independent of the prompt.

use serde_json::Value;

use crate::dataset::PromptRow;
use crate::task::TaskFiles;

/// Remedy if a valid answer earns as much as a right one.
pub(crate) const BY_EXPECTED: &str =
    "give every row an `expected`, and `[[reward]]` part \"exact\" a weight";

pub(crate) struct LazyAnswer<'a> {
    pub(crate) name: &'static str,
    pub(crate) text: LazyText<'a>,
    /// Remedy if it earns much.
    pub(crate) advice: &'static str,
    /// Whether a row that accepts it is wrong in any case.
    pub(crate) must_fail: bool,
}

pub(crate) enum LazyText<'a> {
    Same(String),
    ByRow(Box<dyn Fn(&PromptRow) -> String + 'a>),
}

impl<'a> LazyAnswer<'a> {
    pub(crate) fn same(name: &'static str, text: impl Into<String>, advice: &'static str) -> Self {
        Self {
            name,
            text: LazyText::Same(text.into()),
            advice,
            must_fail: false,
        }
    }

    pub(crate) fn by_row(
        name: &'static str,
        advice: &'static str,
        text: impl Fn(&PromptRow) -> String + 'a,
    ) -> Self {
        Self {
            name,
            text: LazyText::ByRow(Box::new(text)),
            advice,
            must_fail: false,
        }
    }

    pub(crate) fn must_fail(self) -> Self {
        Self {
            must_fail: true,
            ..self
        }
    }

    pub(crate) fn of(&self, row: &PromptRow) -> String {
        match &self.text {
            LazyText::Same(text) => text.clone(),
            LazyText::ByRow(text) => text(row),
        }
    }
}

/// Answers for unspecified formats.
pub(crate) fn plain_answers(task: &TaskFiles) -> Vec<LazyAnswer<'_>> {
    let narrow = "let `[score]` ask for more, or give every row an `expected`";
    let lazy = [
        ("an empty answer", ""),
        ("a word", "x"),
        ("zero", "0"),
        ("an empty object", "{}"),
    ];
    let system = task
        .system
        .clone()
        .map(|system| LazyAnswer::same("the system text", system, narrow));
    lazy.map(|(name, text)| LazyAnswer::same(name, text, narrow))
        .into_iter()
        .chain(system)
        .collect()
}

/// The prompt as its own answer; `None` without rows.
pub(crate) fn prompt_itself<'a>(rows: &[PromptRow]) -> Option<LazyAnswer<'a>> {
    let advice = "an answer that repeats the prompt earns it: ask for more";
    (!rows.is_empty()).then(|| LazyAnswer::by_row("the prompt itself", advice, prompt_of))
}

pub(crate) fn answer_text(expected: &Value) -> String {
    expected
        .as_str()
        .map_or_else(|| expected.to_string(), str::to_owned)
}

/// Last user turn.
pub(crate) fn prompt_of(row: &PromptRow) -> String {
    row.messages
        .iter()
        .rfind(|message| message.role == "user")
        .map(|message| message.content.clone())
        .unwrap_or_default()
}

/// `expected` of the next row with a different one.
pub(crate) fn other_expected<'a>(row: &PromptRow, rows: &'a [PromptRow]) -> Option<&'a Value> {
    let after = rows
        .iter()
        .position(|other| std::ptr::eq(other, row))
        .unwrap_or(0);
    let others = rows.iter().cycle().skip(after + 1).take(rows.len());
    others
        .filter_map(|other| other.expected.as_ref())
        .find(|expected| Some(*expected) != row.expected.as_ref())
}

/// Most frequent `expected`.
pub(crate) fn most_common_expected(rows: &[PromptRow]) -> Option<&Value> {
    let mut counts: Vec<(&Value, usize)> = Vec::new();
    for expected in rows.iter().filter_map(|row| row.expected.as_ref()) {
        match counts.iter_mut().find(|(value, _)| *value == expected) {
            Some((_, count)) => *count += 1,
            None => counts.push((expected, 1)),
        }
    }
    counts
        .iter()
        .rev()
        .max_by_key(|(_, count)| *count)
        .map(|(value, _)| *value)
}
