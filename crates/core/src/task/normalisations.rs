//! `normalise`: how values are changed before comparison.

use std::fmt;

use toml::de::DeValue;

use super::error::Read;
use super::toml_section::Section;
use crate::config::choices;

/// All fields not named otherwise.
pub const ALL_FIELDS: &str = "*";

choices! {
    Normalisation {
        /// Unicode's full case folding.
        Casefold = "casefold",
        /// White space at the ends.
        Trim = "trim",
        /// White space at the ends, and its amount inside.
        Whitespace = "whitespace",
        Date = "date",
        /// Numbers in strings are parsed.
        Number = "number",
        /// Case, spaces, `,./-_*^`, and `'` for `"`, as in the Berkeley Function Calling
        /// Leaderboard.
        Bfcl = "bfcl",
        /// Accents and other marks of letters.
        Accents = "accents",
        /// What kind of company it is, at the end of its name: `Inc.`, `GmbH`, `Limited`.
        Organisation = "organisation",
    }
}

/// Normalisations of a field, in order; as text joined by `+`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Normalisations(pub Vec<Normalisation>);

impl Normalisations {
    fn joined(&self, by: &str) -> String {
        let names: Vec<&str> = self.0.iter().map(|one| one.name()).collect();
        names.join(by)
    }
}

impl fmt::Display for Normalisations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.joined("+"))
    }
}

/// Parses a name, names joined by `+`, or a list.
pub(crate) fn read_normalisations(
    section: &Section<'_>,
    key: &str,
) -> Read<Option<Normalisations>> {
    let Some((value, offset)) = section.get(key) else {
        return Ok(None);
    };
    let names: Vec<&str> = match value {
        DeValue::Array(items) if items.iter().all(|item| item.get_ref().as_str().is_some()) => {
            items
                .iter()
                .filter_map(|item| item.get_ref().as_str())
                .collect()
        }
        DeValue::String(text) => text.split('+').map(str::trim).collect(),
        other => {
            return Err(section.wrong_type(
                key,
                offset,
                "a name or a list of names in quotes",
                other,
            ));
        }
    };
    let read = |name: &str| {
        Normalisation::from_name(name).ok_or_else(|| {
            let known = Normalisation::ALL.map(Normalisation::name);
            let near = crate::format::did_you_mean(name, known);
            let message = format!("takes {}, not {name:?}{near}", known.join(", "));
            section.error(key, offset, message)
        })
    };
    let names: Read<_> = names.into_iter().map(read).collect();
    Ok(Some(Normalisations(names?)))
}
