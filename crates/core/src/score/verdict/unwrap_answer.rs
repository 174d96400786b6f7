//! Removes text around an answer: think blocks, Markdown fences, prose.

use super::failure_class::FailureClass;
use crate::score::answer::json::{self, Syntax, SyntaxError, Value};
use crate::text::ThinkMarks;

#[derive(Debug, Clone, Copy)]
pub(crate) struct ThinkRules {
    /// Whether everything up to a block's end is ignored.
    pub(crate) is_stripped: bool,
    /// The model's, else all known ones.
    pub(crate) marks: &'static [ThinkMarks],
}

/// Why a completion does not have the required form.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unreadable {
    pub(crate) message: String,
    /// Byte offset in the completion.
    pub(crate) offset: usize,
    pub(crate) class: FailureClass,
    /// Whether other text may surround such an answer.
    pub(crate) is_wrapped: bool,
}

impl Unreadable {
    /// A text that is not JSON.
    pub(crate) fn json(completion: &str, error: &SyntaxError) -> Self {
        let class = match error.reason {
            Syntax::Fence => FailureClass::Fence,
            Syntax::TextBefore | Syntax::TextAfter => class_of_text(completion, error.offset),
            Syntax::NoValue => FailureClass::Prose,
            Syntax::Truncated => FailureClass::Truncated,
            Syntax::Empty => FailureClass::Other,
            _ => FailureClass::Syntax,
        };
        let is_wrapped = matches!(
            error.reason,
            Syntax::Fence | Syntax::TextBefore | Syntax::TextAfter
        );
        Self {
            message: error.reason.to_string(),
            offset: error.offset,
            class,
            is_wrapped,
        }
    }
}

pub(crate) type Read<T> = Result<T, Unreadable>;

pub(crate) fn unreadable(
    message: impl Into<String>,
    offset: usize,
    class: FailureClass,
) -> Unreadable {
    Unreadable {
        message: message.into(),
        offset,
        class,
        is_wrapped: true,
    }
}

/// Class of the text around an answer, by what is at `offset`.
pub(crate) fn class_of_text(completion: &str, offset: usize) -> FailureClass {
    let is_fence = completion
        .get(offset..)
        .is_some_and(|rest| rest.starts_with("```"));
    if is_fence {
        FailureClass::Fence
    } else {
        FailureClass::Prose
    }
}

/// Answers tried after ends of think blocks, besides the last one and the beginning of the text.
const MAX_ANSWER_STARTS: usize = 100;

/// Start of the answer with stripped think blocks: after the last end mark followed by a readable
/// answer, since the mark may be in a string of the answer; else after the last one.
pub(crate) fn answer_start(
    text: &str,
    thoughts: ThinkRules,
    is_answer: impl Fn(usize) -> bool,
) -> usize {
    if !thoughts.is_stripped {
        return 0;
    }
    let ends = |mark: &'static str| {
        text.match_indices(mark)
            .map(|(found, _)| found + mark.len())
    };
    let marks = thoughts.marks.iter().map(ThinkMarks::end);
    let mut ends: Vec<usize> = marks
        .filter(|mark| may_have(text, mark))
        .flat_map(ends)
        .collect();
    ends.sort_unstable();
    let mut ends = ends.into_iter().rev();
    let Some(last) = ends.next() else { return 0 };
    if is_answer(last) {
        return last;
    }
    // Only these contain strings; others are rejected without parsing, which bounds the work.
    let holds_strings = |start: &usize| {
        text[*start..]
            .trim_start()
            .starts_with(['{', '[', '"', '<'])
    };
    let starts = ends
        .filter(holds_strings)
        .take(MAX_ANSWER_STARTS)
        .chain(Some(0).filter(holds_strings));
    starts
        .into_iter()
        .find(|start| is_answer(*start))
        .unwrap_or(last)
}

pub(crate) fn open_think(text: &str, from: usize, marks: &[ThinkMarks]) -> Option<usize> {
    let rest = text.get(from..)?.trim_start();
    marks
        .iter()
        .any(|marks| rest.starts_with(marks.open))
        .then(|| text.len() - rest.len())
}

/// Offset of an unclosed think block that hides the answer, given where parsing failed.
pub(crate) fn unclosed_think(
    text: &str,
    from: usize,
    failure: usize,
    marks: &[ThinkMarks],
) -> Option<usize> {
    let found = think_opening(text.get(from..)?, marks)? + from;
    // One before the failure was inside a JSON string.
    (found >= failure).then_some(found)
}

pub(crate) fn think_opening(text: &str, marks: &[ThinkMarks]) -> Option<usize> {
    let marks = marks.iter().filter(|marks| may_have(text, marks.open));
    marks.filter_map(|marks| text.find(marks.open)).min()
}

/// Few texts have a mark's first byte, which is sought faster than a searcher for the mark is made.
fn may_have(text: &str, mark: &str) -> bool {
    let first = mark.bytes().next();
    first.is_some_and(|first| text.as_bytes().contains(&first))
}

/// Whether the answer is prose or a fence around accepted JSON, fenced values first. The work is a
/// small multiple of the text's length.
pub(crate) fn inner_values<'t>(
    text: &'t str,
    from: usize,
    mut accept: impl FnMut(&Value<'t>) -> bool,
) -> Option<Wrapping> {
    let is_value = |inside: &'t str, start| {
        json::parse(inside, start).is_ok_and(|document| accept(&document.root))
    };
    if is_fenced(text, from, is_value) {
        return Some(Wrapping::Fence);
    }
    bracketed_values(text, from, &mut accept).then_some(Wrapping::Prose)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapping {
    Fence,
    Prose,
}

/// Whether an answer fills a ``` block. `is_answer` gets the text up to the block's end, and the
/// answer's start: after the info string, or at once.
pub(crate) fn is_fenced<'t>(
    text: &'t str,
    from: usize,
    mut is_answer: impl FnMut(&'t str, usize) -> bool,
) -> bool {
    const FENCE: &str = "```";
    let mut at = from;
    while let Some(open) = text
        .get(at..)
        .and_then(|rest| rest.find(FENCE))
        .map(|found| at + found + FENCE.len())
    {
        let body = text.get(open..).unwrap_or("");
        let word = body.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let end = body.find(FENCE).map_or(text.len(), |close| open + close);
        let inside = text.get(..end).unwrap_or(text);
        if [open + word, open]
            .into_iter()
            .filter(|start| *start <= end)
            .any(|start| is_answer(inside, start))
        {
            return true;
        }
        at = (end + FENCE.len()).min(text.len());
    }
    false
}

/// Outermost objects and arrays, wherever they begin.
fn bracketed_values<'t>(
    text: &'t str,
    from: usize,
    accept: &mut impl FnMut(&Value<'t>) -> bool,
) -> bool {
    let mut fuel = 2 * text.len() + 65_536;
    let mut at = from;
    while let Some(start) = text
        .get(at..)
        .and_then(|rest| rest.find(['{', '[']))
        .map(|found| at + found)
    {
        let spent = match json::parse_prefix(text, start) {
            Ok(document) if accept(&document.root) => return true,
            Ok(document) => {
                at = document.root.end;
                at - start
            }
            Err(error) => {
                at = start + 1;
                error.offset.saturating_sub(start)
            }
        };
        if spent >= fuel {
            return false;
        }
        fuel -= spent;
    }
    false
}
