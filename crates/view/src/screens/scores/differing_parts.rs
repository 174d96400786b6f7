//! The part of a text that distinguishes it from others, which may begin alike.

/// A text that differs from all others this early is shown from its beginning.
const SHOWN_BYTES: usize = 16;
/// Most bytes shown before the first difference.
const CONTEXT_BYTES: usize = 14;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DifferingPart {
    /// The byte at which it starts, shortly before the text differs from the one most like it; 0: the whole text.
    pub start: usize,
    /// The first text that is identical.
    pub same_as: Option<usize>,
}

pub(super) fn differing_parts(texts: &[&str]) -> Vec<DifferingPart> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|place| (texts[*place], *place));
    let mut parts = vec![DifferingPart::default(); texts.len()];
    let mut distinct: Vec<usize> = Vec::new();
    for place in order {
        match distinct.last() {
            Some(first) if texts[*first] == texts[place] => parts[place].same_as = Some(*first),
            _ => distinct.push(place),
        }
    }
    // In alphabetical order, the most similar texts are neighbours.
    let mut common = 0;
    for (number, place) in distinct.iter().enumerate() {
        let with_next = distinct
            .get(number + 1)
            .map_or(0, |next| common_bytes(texts[*place], texts[*next]));
        parts[*place].start = start_before(texts[*place], common.max(with_next));
        common = with_next;
    }
    for place in 0..parts.len() {
        if let Some(first) = parts[place].same_as {
            parts[place].start = parts[first].start;
        }
    }
    parts
}

fn common_bytes(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

/// The first beginning of a word in the context before a byte.
fn start_before(text: &str, differs_at: usize) -> usize {
    if differs_at < SHOWN_BYTES {
        return 0;
    }
    let differs_at = text.floor_char_boundary(differs_at);
    let from = text.ceil_char_boundary(differs_at.saturating_sub(CONTEXT_BYTES));
    let word = text[from..differs_at]
        .char_indices()
        .find(|(_, letter)| letter.is_whitespace() || *letter == ',');
    word.map_or(from, |(place, letter)| {
        let rest = &text[from + place + letter.len_utf8()..differs_at];
        differs_at - rest.trim_start().len()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_begin_alike_are_shown_from_where_they_differ() {
        let check = |texts: &[&str], expected: &[&str]| {
            let parts = differing_parts(texts);
            let shown: Vec<String> = parts
                .iter()
                .zip(texts)
                .map(|(part, text)| match part.same_as {
                    Some(first) => format!("= {first}"),
                    None => text[part.start..].to_owned(),
                })
                .collect();
            assert_eq!(shown, expected);
        };
        check(&[], &[]);
        check(
            &["only one, however long it is"],
            &["only one, however long it is"],
        );
        check(&["short a", "short b"], &["short a", "short b"]);
        let (a, b, c) = (
            "{\"vendor\": \"Acme\", \"amount\": 12}",
            "{\"vendor\": \"Acme\", \"amount\": 19}",
            "prose",
        );
        check(
            &[a, c, b, a],
            &["\"amount\": 12}", "prose", "\"amount\": 19}", "= 0"],
        );
        // The first of two groups that are alike within themselves differs late, not where the groups do.
        check(
            &[
                "read the receipt from Oslo",
                "read the receipt from Rome",
                "say hello",
            ],
            &["receipt from Oslo", "receipt from Rome", "say hello"],
        );
        // A text that another one continues, and letters of several bytes.
        check(
            &["ääääääääääää", "äääääääääääään"],
            &["äääääää", "ääääääään"],
        );
    }
}
