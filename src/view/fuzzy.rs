//! Fuzzy search: which of many texts a few letters mean, the nearest first.

/// The items whose text holds the letters of each word of `wanted` in order; the best first, equal ones in their own order.
pub fn rank<T: Copy>(wanted: &str, items: &[T], text: impl Fn(&T) -> String) -> Vec<T> {
    if wanted.is_empty() {
        return items.to_vec();
    }
    let texts: Vec<String> = items.iter().map(text).collect();
    let mut found = frizbee::Matcher::from_query(wanted, &frizbee::Config::default()).match_list(&texts);
    found.sort_by(|a, b| b.score.cmp(&a.score).then(a.index.cmp(&b.index)));
    found.iter().filter_map(|found| items.get(found.index as usize).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_comes_first() {
        let items = ["Stop the run", "Pause the run", "Open the palette", "Save the schema"];
        let check = |wanted, first| assert_eq!(rank(wanted, &items, |item| (*item).to_owned()).first().copied(), first, "{wanted}");
        check("pau", Some("Pause the run"));
        check("save", Some("Save the schema"));
        check("strun", Some("Stop the run"));
        check("zzz", None);
        check("", Some("Stop the run"));
    }
}
