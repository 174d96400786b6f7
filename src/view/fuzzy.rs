//! Fuzzy search: which of many texts a few letters mean, the nearest first, and which of their letters were meant.

/// The items whose text holds the letters of each word of `wanted` in order; the best first, equal ones in their own order.
pub fn rank<T: Copy>(wanted: &str, items: &[T], text: impl Fn(&T) -> String) -> Vec<T> {
    if wanted.is_empty() {
        return items.to_vec();
    }
    let texts: Vec<String> = items.iter().map(text).collect();
    let mut found = matcher(wanted).match_list(&texts);
    found.sort_by(|a, b| b.score.cmp(&a.score).then(a.index.cmp(&b.index)));
    found.iter().filter_map(|found| items.get(found.index as usize).copied()).collect()
}

/// Whether a text matches.
pub fn matches(wanted: &str, text: &str) -> bool {
    wanted.is_empty() || !matcher(wanted).match_list(&[text]).is_empty()
}

/// The bytes of `text` at which the letters of `wanted` stand, in order; none where it does not match.
pub fn letters(wanted: &str, text: &str) -> Vec<usize> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let found = matcher(wanted).match_list_indices(&[text]);
    let mut places: Vec<usize> = found.first().map(|found| found.indices.iter().map(|index| *index as usize).collect()).unwrap_or_default();
    places.sort_unstable();
    places.dedup();
    places.retain(|place| text.is_char_boundary(*place) && *place < text.len());
    places
}

fn matcher(wanted: &str) -> frizbee::Matcher {
    frizbee::Matcher::from_query(wanted, &frizbee::Config::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_comes_first() {
        let items = ["Stop the run", "Pause the run", "Open the palette", "Save schema"];
        let check = |wanted, first| assert_eq!(rank(wanted, &items, |item| (*item).to_owned()).first().copied(), first, "{wanted}");
        check("pau", Some("Pause the run"));
        check("save", Some("Save schema"));
        check("strun", Some("Stop the run"));
        check("zzz", None);
        check("", Some("Stop the run"));
    }

    #[test]
    fn the_letters_that_were_meant_are_known() {
        let check = |wanted: &str, text: &str, expected: &str| {
            let found: String = letters(wanted, text).into_iter().filter_map(|place| text[place..].chars().next()).collect();
            assert_eq!(found, expected, "{wanted} in {text}");
        };
        check("pau", "Pause the run", "Pau");
        check("strun", "Stop the run", "Strun");
        check("zz", "Pause", "");
        check("", "Pause", "");
    }
}
