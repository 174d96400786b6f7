//! `normalise`: how values are changed before they are compared.

use toml::de::DeValue;

use super::error::Read;
use super::toml_section::Section;

/// Names that `normalise` takes: `casefold` is Unicode's full case folding, `trim` white space at the ends, `whitespace` also its amount
/// inside, `date` compares calendar dates however written, `number` reads numbers written as strings, `bfcl` ignores case,
/// spaces and `,./-_*^` and takes `'` for `"`, as the Berkeley Function Calling Leaderboard does.
pub const NORMALISATIONS: [&str; 6] = ["casefold", "trim", "whitespace", "date", "number", "bfcl"];

/// In `normalise`: the fields that it does not name.
pub const ALL_FIELDS: &str = "*";

/// A name, or a list of names, joined by `+`.
pub(crate) fn read_normalisations(section: &Section<'_>, key: &str) -> Read<Option<String>> {
    let Some((value, offset)) = section.get(key) else {
        return Ok(None);
    };
    let names: Vec<String> = match value {
        DeValue::Array(items) if items.iter().all(|item| item.get_ref().as_str().is_some()) => {
            items
                .iter()
                .filter_map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect()
        }
        DeValue::String(text) => text.split('+').map(|name| name.trim().to_owned()).collect(),
        other => {
            return Err(section.wrong_type(
                key,
                offset,
                "a name or a list of names in quotes",
                other,
            ));
        }
    };
    if let Some(name) = names
        .iter()
        .find(|name| !NORMALISATIONS.contains(&name.as_str()))
    {
        let near = crate::format::did_you_mean(name, NORMALISATIONS);
        return Err(section.error(
            key,
            offset,
            format!("takes {}, not {name:?}{near}", NORMALISATIONS.join(", ")),
        ));
    }
    Ok(Some(names.join("+")))
}
