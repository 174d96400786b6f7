//! Fuzzy search: ranks texts by a query and finds the matched characters.

/// The items whose text contains the characters of each word of `query` in order; best first, ties in the given order.
pub fn rank<T: Copy>(query: &str, items: &[T], text: impl Fn(&T) -> String) -> Vec<T> {
    if query.is_empty() {
        return items.to_vec();
    }
    let texts: Vec<String> = items.iter().map(text).collect();
    let mut matched = matches_of(query, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    matched.sort_by(|a, b| b.score.cmp(&a.score).then(a.index.cmp(&b.index)));
    matched
        .iter()
        .filter_map(|one| items.get(one.index as usize).copied())
        .collect()
}

pub fn matches(query: &str, text: &str) -> bool {
    query.is_empty() || !matches_of(query, &[text]).is_empty()
}

/// The byte offsets in `text` of the characters that match `query`, in order; empty without a match.
pub fn letters(query: &str, text: &str) -> Vec<usize> {
    if query.is_empty() {
        return Vec::new();
    }
    let mut bytes: Vec<usize> = matches_of(query, &[text])
        .iter()
        .flat_map(|one| &one.indices)
        .map(|index| *index as usize)
        .collect();
    bytes.sort_unstable();
    bytes.dedup();
    bytes.retain(|byte| text.is_char_boundary(*byte) && *byte < text.len());
    bytes
}

/// The longest query: what is searched is a line, and the time of a match grows with both lengths.
pub const MAX_QUERY_BYTES: usize = 400;

/// The only call of the matcher, which is compiled anew for each type of text and result.
fn matches_of(query: &str, texts: &[&str]) -> Vec<frizbee::MatchIndices> {
    if query.len() > MAX_QUERY_BYTES {
        return Vec::new();
    }
    frizbee::Matcher::from_query(query, &frizbee::Config::default()).match_list_indices(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_comes_first() {
        let items = [
            "Stop the run",
            "Pause the run",
            "Open the palette",
            "Save schema",
        ];
        let check = |query, first| {
            assert_eq!(
                rank(query, &items, |item| (*item).to_owned())
                    .first()
                    .copied(),
                first,
                "{query}"
            )
        };
        check("pau", Some("Pause the run"));
        check("save", Some("Save schema"));
        check("strun", Some("Stop the run"));
        check("zzz", None);
        check("", Some("Stop the run"));
    }

    #[test]
    fn the_matched_letters_are_known() {
        let check = |query: &str, text: &str, expected: &str| {
            let found: String = letters(query, text)
                .into_iter()
                .filter_map(|place| text[place..].chars().next())
                .collect();
            assert_eq!(found, expected, "{query} in {text}");
        };
        check("pau", "Pause the run", "Pau");
        check("strun", "Stop the run", "Strun");
        check("zz", "Pause", "");
        check("", "Pause", "");
    }
}
