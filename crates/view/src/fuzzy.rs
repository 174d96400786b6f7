//! Fuzzy search: ranks texts by a query and finds the matched characters.

use nucleo_matcher::pattern::{AtomKind, CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};
use unicode_segmentation::UnicodeSegmentation;

/// The longest query: what is searched is a line, and the time of a match grows with both lengths.
pub const MAX_QUERY_BYTES: usize = 400;

/// What a character of a query has to add to the score: half of what one does that follows the one before. Characters that
/// are strewn over a text are no match.
const MIN_CHARACTER_SCORE: u32 = 12;

/// The items whose text contains the characters of each word of `query` in order, near each other; best first, ties in the
/// given order.
pub fn rank<T: Copy>(query: &str, items: &[T], text: impl Fn(&T) -> String) -> Vec<T> {
    if query.is_empty() {
        return items.to_vec();
    }
    let mut search = Search::new(query);
    let mut matched: Vec<(u32, T)> = items
        .iter()
        .filter_map(|item| Some((search.score(&text(item))?, *item)))
        .collect();
    matched.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    matched.into_iter().map(|(_, item)| item).collect()
}

pub fn matches(query: &str, text: &str) -> bool {
    query.is_empty() || Search::new(query).score(text).is_some()
}

/// The byte offsets in `text` of the characters that match `query`, in order; empty without a match.
pub fn letters(query: &str, text: &str) -> Vec<usize> {
    let mut letters = Vec::new();
    let mut search = Search::new(query);
    if search.indices(text, &mut letters).is_none() {
        return Vec::new();
    }
    letters.sort_unstable();
    letters.dedup();
    // The matcher counts graphemes.
    let starts: Vec<usize> = text.grapheme_indices(true).map(|(byte, _)| byte).collect();
    letters
        .into_iter()
        .filter_map(|letter| starts.get(letter as usize).copied())
        .collect()
}

struct Search {
    pattern: Pattern,
    matcher: Matcher,
    characters: Vec<char>,
    is_too_long: bool,
    min_score: u32,
}

impl Search {
    fn new(query: &str) -> Self {
        Self {
            pattern: Pattern::new(
                query,
                CaseMatching::Ignore,
                Normalization::Smart,
                AtomKind::Fuzzy,
            ),
            matcher: Matcher::new(Config::DEFAULT),
            characters: Vec::new(),
            is_too_long: query.len() > MAX_QUERY_BYTES,
            min_score: MIN_CHARACTER_SCORE
                * query
                    .chars()
                    .filter(|letter| !letter.is_whitespace())
                    .count() as u32,
        }
    }

    fn score(&mut self, text: &str) -> Option<u32> {
        let text = Utf32Str::new(text, &mut self.characters);
        (!self.is_too_long)
            .then(|| self.pattern.score(text, &mut self.matcher))?
            .filter(|score| *score >= self.min_score)
    }

    fn indices(&mut self, text: &str, found: &mut Vec<u32>) -> Option<u32> {
        let text = Utf32Str::new(text, &mut self.characters);
        (!self.is_too_long)
            .then(|| self.pattern.indices(text, &mut self.matcher, found))?
            .filter(|score| *score >= self.min_score)
    }
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
        check("opal", Some("Open the palette"));
        check("zzz", None);
        check("otrma", None);
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
