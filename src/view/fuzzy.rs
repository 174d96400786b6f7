//! Fuzzy search: which of many texts a few letters mean, the nearest first, and which of their letters were meant.

/// The items whose text holds the letters of each word of `wanted` in order; the best first, equal ones in their own
/// order.
pub fn rank<T: Copy>(wanted: &str, items: &[T], text: impl Fn(&T) -> String) -> Vec<T> {
    if wanted.is_empty() {
        return items.to_vec();
    }
    let texts: Vec<String> = items.iter().map(text).collect();
    let mut found = found(wanted, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    found.sort_by(|a, b| b.score.cmp(&a.score).then(a.index.cmp(&b.index)));
    found.iter().filter_map(|found| items.get(found.index as usize).copied()).collect()
}

/// Whether a text matches.
pub fn matches(wanted: &str, text: &str) -> bool {
    wanted.is_empty() || !found(wanted, &[text]).is_empty()
}

/// The bytes of `text` at which the letters of `wanted` stand, in order; none where it does not match.
pub fn letters(wanted: &str, text: &str) -> Vec<usize> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut bytes: Vec<usize> =
        found(wanted, &[text]).iter().flat_map(|found| &found.indices).map(|index| *index as usize).collect();
    bytes.sort_unstable();
    bytes.dedup();
    bytes.retain(|byte| text.is_char_boundary(*byte) && *byte < text.len());
    bytes
}

/// The one entrance to the matcher, whose code is compiled anew for each type of text and kind of answer.
fn found(wanted: &str, texts: &[&str]) -> Vec<frizbee::MatchIndices> {
    frizbee::Matcher::from_query(wanted, &frizbee::Config::default()).match_list_indices(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_comes_first() {
        let items = ["Stop the run", "Pause the run", "Open the palette", "Save schema"];
        let check = |wanted, first| {
            assert_eq!(rank(wanted, &items, |item| (*item).to_owned()).first().copied(), first, "{wanted}")
        };
        check("pau", Some("Pause the run"));
        check("save", Some("Save schema"));
        check("strun", Some("Stop the run"));
        check("zzz", None);
        check("", Some("Stop the run"));
    }

    #[test]
    fn the_letters_that_were_meant_are_known() {
        let check = |wanted: &str, text: &str, expected: &str| {
            let found: String =
                letters(wanted, text).into_iter().filter_map(|place| text[place..].chars().next()).collect();
            assert_eq!(found, expected, "{wanted} in {text}");
        };
        check("pau", "Pause the run", "Pau");
        check("strun", "Stop the run", "Strun");
        check("zz", "Pause", "");
        check("", "Pause", "");
    }
}
