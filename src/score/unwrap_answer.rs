//! What stands between a completion and a plain JSON value: think blocks, Markdown fences, prose.

use super::json::{self, Syntax, SyntaxError, Value};

/// Where an answer begins: after the last `</think>`, when think blocks are stripped.
pub(super) fn answer_start(text: &str, strip_thinking: bool) -> usize {
    const END: &str = "</think>";
    if !strip_thinking {
        return 0;
    }
    text.rfind(END).map_or(0, |found| found + END.len())
}

/// The place of a `<think>` at the start of the answer that never ends.
pub(super) fn open_think(text: &str, from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    rest.trim_start().starts_with("<think>").then(|| text.len() - rest.trim_start().len())
}

/// The place of a `<think>` that never ends and so hides the answer, given why and where parsing failed.
pub(super) fn unclosed_think(text: &str, from: usize, error: &SyntaxError) -> Option<usize> {
    let found = text.get(from..)?.find("<think>")? + from;
    // A `<think>` before the failure was inside a string of the JSON.
    (found >= error.offset).then_some(found)
}

/// Whether the answer is prose or a fence around something: the complete JSON values inside it, fenced ones first.
///
/// The work is bounded by a small multiple of the text's length.
pub(super) fn inner_values<'t>(
    text: &'t str,
    from: usize,
    mut accept: impl FnMut(&Value<'t>) -> bool,
) -> Option<Wrapping> {
    if fenced_values(text, from, &mut accept) {
        return Some(Wrapping::Fence);
    }
    bracketed_values(text, from, &mut accept).then_some(Wrapping::Prose)
}

/// What surrounds a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapping {
    Fence,
    Prose,
}

/// Values that fill a ``` block.
fn fenced_values<'t>(text: &'t str, from: usize, accept: &mut impl FnMut(&Value<'t>) -> bool) -> bool {
    const FENCE: &str = "```";
    let mut at = from;
    while let Some(open) = text.get(at..).and_then(|rest| rest.find(FENCE)).map(|found| at + found + FENCE.len()) {
        let body = text.get(open..).unwrap_or("");
        let word = body.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let end = body.find(FENCE).map_or(text.len(), |close| open + close);
        let inside = text.get(..end).unwrap_or(text);
        if [open + word, open]
            .into_iter()
            .filter(|start| *start <= end)
            .any(|start| json::parse(inside, start).is_ok_and(|document| accept(&document.root)))
        {
            return true;
        }
        at = (end + FENCE.len()).min(text.len());
    }
    false
}

/// Outermost objects and arrays, wherever they begin.
fn bracketed_values<'t>(text: &'t str, from: usize, accept: &mut impl FnMut(&Value<'t>) -> bool) -> bool {
    let mut fuel = 2 * text.len() + 65_536;
    let mut at = from;
    while let Some(start) = text.get(at..).and_then(|rest| rest.find(['{', '['])).map(|found| at + found) {
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

/// Whether a rejection says that something surrounds the value (and not that the value itself is broken).
pub(super) fn is_wrapped(reason: Syntax) -> bool {
    matches!(reason, Syntax::Fence | Syntax::TextBefore | Syntax::TextAfter)
}
