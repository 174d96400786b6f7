//! The keys of a task's scorers as `task.toml` has them, each with its value, place and meaning.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::definition::{COMMON_SCORE_KEYS, kind_named};

/// A key of `[score]` or of a `[[reward]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreKey {
    /// Without the name of its block.
    pub name: String,
    /// The value as written; `None` for a key that is not set.
    pub value: Option<String>,
    /// Byte offset of the value in the text.
    pub offset: Option<usize>,
    /// Empty for a key that is required.
    pub default: &'static str,
    pub meaning: &'static str,
}

/// Name, default and meaning of each key.
const MEANINGS: [(&str, &str, &str); 32] = [
    ("kind", "json_schema", "what judges an answer"),
    ("tiers", "0, 0.5, 1", "reward of unparsable, invalid and valid answers"),
    ("strip_thinking", "true", "ignore everything up to the last </think>"),
    ("continue_after_failure", "false", "a conversation continues after an answer that is not valid"),
    ("graded", "false", "credit between invalid and valid"),
    ("assert_formats", "false", "check `format` of JSON Schema"),
    ("normalise", "none", "how values are changed before they are compared"),
    ("references", "none", "files of remote `$ref`"),
    ("pattern", "", "the regular expression; its named groups are the fields of `expected`"),
    ("tools", "those of each row", "the file of the functions"),
    ("order", "true", "whether the order of calls counts"),
    ("allow_no_call", "false", "whether an answer may make no call, `[]`"),
    ("dialect", "sqlite", "the grammar of queries"),
    ("openapi", "", "the OpenAPI document"),
    ("operation", "any", "the operation that completions are of"),
    ("part", "request", "what completions are: request or response"),
    ("command", "", "program and arguments; runs once it is trusted"),
    ("files", "none", "other files that belong to the program"),
    ("mode", "lines", "lines: JSON lines; exit_code: a process for each completion"),
    ("file", "", "the name of the file with the answer"),
    ("parse", "none", "refuses what does not parse, before `command`"),
    ("fence", "true", "code may be in a Markdown fence"),
    ("processes", "one per core, at most 8", "processes at once"),
    ("seconds", "10", "for an answer"),
    ("memory_mib", "2048", "address space of a process; 0: no limit"),
    ("output_kib", "1024", "of an answer"),
    ("max_scorer_errors", "0.1", "share of completions that the program may fail to score"),
    ("schema", "", "the file that defines answers"),
    // Keys of `[[reward]]`.
    ("name", "", "in metrics: rewards/NAME/mean"),
    ("weight", "", "times the value from 0 to 1, added to the reward"),
    ("expected", "none", "the field of the rows that it compares with"),
    ("part of the reward", "", "what is added: fields, exact, tolerant or chain"),
];

/// The keys of a `task.toml`: those of `[score]`, set or not, then those of each `[[reward]]` with the part's name.
/// Nothing where the text is no TOML.
pub fn score_keys(text: &str) -> Vec<(Option<String>, Vec<ScoreKey>)> {
    let Ok(document) = DeTable::parse(text) else { return Vec::new() };
    let document = document.get_ref();
    let empty = DeTable::new();
    let score = document.get("score").and_then(|block| block.get_ref().as_table()).unwrap_or(&empty);
    let name_of = |table: &DeTable<'_>, key: &str| table.get(key)?.get_ref().as_str().map(str::to_owned);
    let kind = name_of(score, "kind").unwrap_or_else(|| "json_schema".to_owned());
    let known = kind_named(&kind).map_or(&[][..], |kind| kind.score_keys);
    let mut keys: Vec<ScoreKey> = score.iter().map(|(key, value)| set(text, key.get_ref(), value, false)).collect();
    keys.sort_by_key(|key| key.offset);
    let is_set = |name: &str| score.iter().any(|(key, _)| key.get_ref() == name);
    let unset = COMMON_SCORE_KEYS.iter().chain(known).filter(|name| !is_set(name));
    keys.extend(unset.map(|name| ScoreKey { value: None, offset: None, ..about(name, false) }));
    let mut blocks = vec![(None, keys)];
    let rewards = document.get("reward").and_then(|list| list.get_ref().as_array());
    for table in rewards.into_iter().flatten().filter_map(|part| part.get_ref().as_table()) {
        let name = name_of(table, "name").or_else(|| name_of(table, "part"));
        let mut keys: Vec<ScoreKey> = table.iter().map(|(key, value)| set(text, key.get_ref(), value, true)).collect();
        keys.sort_by_key(|key| key.offset);
        blocks.push((Some(name.unwrap_or_default()), keys));
    }
    blocks
}

fn about(name: &str, of_reward: bool) -> ScoreKey {
    let known = if of_reward && name == "part" { "part of the reward" } else { name };
    let (_, default, meaning) = MEANINGS.into_iter().find(|(key, ..)| *key == known).unwrap_or_default();
    ScoreKey { name: name.to_owned(), value: None, offset: None, default, meaning }
}

fn set(text: &str, name: &str, value: &Spanned<DeValue<'_>>, of_reward: bool) -> ScoreKey {
    let span = value.span();
    let shown = text.get(span.clone()).unwrap_or_default().trim();
    let shown = match value.get_ref() {
        // A table of its own is written below its header.
        DeValue::Table(table) if !shown.starts_with('{') => {
            let names: Vec<&str> = table.iter().map(|(key, _)| key.get_ref().as_ref()).collect();
            names.join(", ")
        }
        _ => shown.to_owned(),
    };
    ScoreKey { value: Some(shown), offset: Some(span.start), ..about(name, of_reward) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::task::definition::KINDS;

    #[test]
    fn every_key_of_a_kind_has_a_meaning() {
        for name in KINDS.iter().flat_map(|kind| COMMON_SCORE_KEYS.iter().chain(kind.score_keys)) {
            assert_ne!(about(name, false).meaning, "", "{name}");
        }
    }

    #[test]
    fn keys_have_their_values_and_places() {
        let text = "[score]\nkind = \"regex\"\npattern = 'a+'\n\n[score.normalise]\nyear = \"number\"\n\n[[reward]]\npart = \"exact\"\nweight = 0.5\n";
        let blocks = score_keys(text);
        let shown = |(part, keys): &(Option<String>, Vec<ScoreKey>)| {
            let keys: Vec<String> = keys
                .iter()
                .map(|key| match (&key.value, key.offset) {
                    (Some(value), Some(offset)) => {
                        format!("{}={value}@{}", key.name, crate::format::line_column(text, offset).0)
                    }
                    _ => format!("{}?{}", key.name, key.default),
                })
                .collect();
            format!("{}: {}", part.as_deref().unwrap_or("score"), keys.join(" "))
        };
        assert_eq!(
            blocks.iter().map(shown).collect::<Vec<_>>(),
            [
                "score: kind=\"regex\"@2 pattern='a+'@3 normalise=year@5 tiers?0, 0.5, 1 strip_thinking?true continue_after_failure?false",
                "exact: part=\"exact\"@9 weight=0.5@10",
            ]
        );
        assert!(score_keys("[score\n").is_empty());
    }
}
