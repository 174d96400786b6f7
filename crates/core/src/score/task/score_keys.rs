//! Scorer keys in a `task.toml`, with value, position and meaning.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::score::definition::{COMMON_KEYS, KeyInfo};
use crate::score::kinds::{KINDS, kind_named};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreKey {
    /// Key without the block's name.
    pub name: String,
    /// Value as written; `None` if unset.
    pub value: Option<String>,
    pub offset: Option<usize>,
    /// Empty for a required key.
    pub default: &'static str,
    pub meaning: &'static str,
}

const REWARD_KEYS: [KeyInfo; 8] = [
    KeyInfo::new("name", "", "in metrics: rewards/NAME/mean"),
    KeyInfo::new(
        "weight",
        "",
        "times the value from 0 to 1, added to the reward",
    ),
    KeyInfo::new(
        "expected",
        "none",
        "the field of the rows that it compares with",
    ),
    KeyInfo::new("after", "none", "valid: 0 for answers that are not valid"),
    KeyInfo::new("max", "none", "length: longer completions earn 0"),
    KeyInfo::new("target", "none", "length: this many earn 1"),
    KeyInfo::new(
        "buffer",
        "0 for max, target",
        "length: over so many the value falls from 1 to 0",
    ),
    KeyInfo::new("unit", "tokens", "length: tokens, or bytes of the text"),
];
/// The key `part` of a `[[reward]]` without a kind.
const PART: KeyInfo = KeyInfo::new(
    "part",
    "",
    "what is added: fields, exact, tolerant, chain, grounded or length",
);

/// Keys of `[score]`, set or not, then of each `[[reward]]` with the part's name. Empty for invalid
/// TOML.
pub fn score_keys(text: &str) -> Vec<(Option<String>, Vec<ScoreKey>)> {
    let Ok(document) = DeTable::parse(text) else {
        return Vec::new();
    };
    let document = document.get_ref();
    let empty = DeTable::new();
    let score = document
        .get("score")
        .and_then(|block| block.get_ref().as_table())
        .unwrap_or(&empty);
    let name_of =
        |table: &DeTable<'_>, key: &str| table.get(key)?.get_ref().as_str().map(str::to_owned);
    let kind = name_of(score, "kind").map_or(Some(KINDS[0]), |name| kind_named(&name));
    let known: Vec<KeyInfo> = COMMON_KEYS
        .iter()
        .chain(kind.map_or(&[][..], |kind| kind.score_keys))
        .copied()
        .collect();
    let mut keys = set_keys(text, score, &known);
    let unset = known
        .iter()
        .filter(|key| !score.iter().any(|(set, _)| set.get_ref() == key.name));
    keys.extend(unset.map(|key| about(key.name, &known)));
    let mut blocks = vec![(None, keys)];
    let rewards = document
        .get("reward")
        .and_then(|list| list.get_ref().as_array());
    for table in rewards
        .into_iter()
        .flatten()
        .filter_map(|part| part.get_ref().as_table())
    {
        let name = name_of(table, "name").or_else(|| name_of(table, "part"));
        let kind = name_of(table, "kind").and_then(|name| kind_named(&name));
        let own = kind.map_or(vec![PART], |kind| {
            kind.keys.iter().chain(kind.score_keys).copied().collect()
        });
        let known: Vec<KeyInfo> = COMMON_KEYS
            .into_iter()
            .chain(REWARD_KEYS)
            .chain(own)
            .collect();
        blocks.push((
            Some(name.unwrap_or_default()),
            set_keys(text, table, &known),
        ));
    }
    blocks
}

fn about(name: &str, known: &[KeyInfo]) -> ScoreKey {
    let (default, meaning) = known
        .iter()
        .find(|key| key.name == name)
        .map(|key| (key.default, key.meaning))
        .unwrap_or_default();
    ScoreKey {
        name: name.to_owned(),
        value: None,
        offset: None,
        default,
        meaning,
    }
}

fn set_keys(text: &str, table: &DeTable<'_>, known: &[KeyInfo]) -> Vec<ScoreKey> {
    let mut keys: Vec<ScoreKey> = table
        .iter()
        .map(|(key, value)| set(text, about(key.get_ref(), known), value))
        .collect();
    keys.sort_by_key(|key| key.offset);
    keys
}

fn set(text: &str, key: ScoreKey, value: &Spanned<DeValue<'_>>) -> ScoreKey {
    let span = value.span();
    let shown = text.get(span.clone()).unwrap_or_default().trim();
    let shown = match value.get_ref() {
        // A table of its own is below its header.
        DeValue::Table(table) if !shown.starts_with('{') => {
            let names: Vec<&str> = table
                .iter()
                .map(|(key, _)| key.get_ref().as_ref())
                .collect();
            names.join(", ")
        }
        _ => shown.to_owned(),
    };
    ScoreKey {
        value: Some(shown),
        offset: Some(span.start),
        ..key
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_values_and_places() {
        let text = "[score]\nkind = \"regex\"\npattern = 'a+'\n\n[score.normalise]\nyear = \"number\"\n\n[[reward]]\npart = \"exact\"\nweight = 0.5\n";
        let blocks = score_keys(text);
        let shown = |(part, keys): &(Option<String>, Vec<ScoreKey>)| {
            let keys: Vec<String> = keys
                .iter()
                .map(|key| match (&key.value, key.offset) {
                    (Some(value), Some(offset)) => {
                        format!(
                            "{}={value}@{}",
                            key.name,
                            crate::format::line_column(text, offset).0
                        )
                    }
                    _ => format!("{}?{}", key.name, key.default),
                })
                .collect();
            format!("{}: {}", part.as_deref().unwrap_or("score"), keys.join(" "))
        };
        assert_eq!(
            blocks.iter().map(shown).collect::<Vec<_>>(),
            [
                "score: kind=\"regex\"@2 pattern='a+'@3 normalise=year@5 tiers?0, 0.5, 1 strip_thinking?true continue_after_failure?false tolerance?none aliases?none",
                "exact: part=\"exact\"@9 weight=0.5@10",
            ]
        );
        assert!(score_keys("[score\n").is_empty());
    }
}
