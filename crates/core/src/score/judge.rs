//! What kinds of scorer share: answers that are plain text, and rows whose `expected` is of no use.

use serde_json::Value;

use super::unwrap_answer::{ThinkRules, open_think};
use super::verdict::Verdict;
use super::{FailureClass, Tier};
use crate::dataset::expected;

/// Judges what is between white space, from a byte offset on; unparsable where that is nothing, or an open think
/// block.
pub(super) fn judge_text(
    completion: &str,
    from: usize,
    thoughts: ThinkRules,
    expected: Option<&Value>,
    judge: impl FnOnce(usize, &str) -> Verdict,
) -> Verdict {
    if let Some(verdict) = think_leak(completion, from, thoughts, expected) {
        return verdict;
    }
    let rest = completion.get(from..).unwrap_or_default();
    let offset = from + (rest.len() - rest.trim_start().len());
    match rest.trim() {
        "" => unparsable(
            FailureClass::Other,
            "the answer is empty",
            (completion, offset),
            expected,
        ),
        answer => judge(offset, answer),
    }
}

/// The verdict on a completion whose reasoning does not end, so that there is no answer.
pub(super) fn think_leak(
    completion: &str,
    from: usize,
    thoughts: ThinkRules,
    expected: Option<&Value>,
) -> Option<Verdict> {
    let offset = open_think(completion, from, thoughts.marks).filter(|_| thoughts.is_stripped)?;
    Some(unparsable(
        FailureClass::ThinkLeak,
        "unclosed think block",
        (completion, offset),
        expected,
    ))
}

/// The verdict where an `expected` with alternatives cannot be read.
pub(super) fn unreadable_expected(
    place: (&str, usize),
    expected: Option<&Value>,
) -> Option<Verdict> {
    let problem = expected.and_then(expected::problem)?;
    Some(Verdict::failed(
        format!("the row's `expected`: {problem}"),
        place,
    ))
}

fn unparsable(
    class: FailureClass,
    message: &str,
    (completion, offset): (&str, usize),
    expected: Option<&Value>,
) -> Verdict {
    let place = (completion, offset.min(completion.len()));
    Verdict {
        exact: expected.map(|_| false),
        ..Verdict::because(Tier::Unparsable, class, message.to_owned(), place)
    }
}
