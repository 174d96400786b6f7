//! `[score.tolerance]`, `[score.aliases]` and `[score.fields]`: which values count as equal, and
//! how the leaves of an answer earn credit.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;

use super::error::Read;
use super::normalisations::ALL_FIELDS;
use super::toml_section::Section;

/// By path of a field: its dotted names, `*` for the items of a list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LeafRules {
    pub tolerance: BTreeMap<String, Tolerance>,
    /// Groups of texts that mean the same.
    pub aliases: BTreeMap<String, Vec<Vec<String>>>,
    /// Least similarity of texts that earns credit, in (0, 1).
    pub similar: BTreeMap<String, f64>,
    /// Lists whose order counts.
    pub ordered: Vec<String>,
    /// The member by which the items of a list are matched.
    pub keys: BTreeMap<String, String>,
    /// Where null earns something though a value is expected.
    pub absent: Vec<String>,
    /// `null`, an empty text, list or object, and a missing member are one state.
    pub empty_is_absent: bool,
    /// A field earns credit as a whole.
    pub whole_fields: bool,
}

/// How far a number may be from the expected one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    Absolute(f64),
    /// Share of the expected number's size.
    Relative(f64),
}

impl Tolerance {
    pub(crate) fn allows(self, found: f64, expected: f64) -> bool {
        let bound = match self {
            Self::Absolute(bound) => bound,
            Self::Relative(share) => share * expected.abs(),
        };
        // A decimal difference of exactly the bound is within it.
        let rounding = 4.0 * f64::EPSILON * found.abs().max(expected.abs());
        (found - expected).abs() <= bound + rounding
    }
}

pub(crate) const FIELD_KEYS: [&str; 5] =
    ["credit", "ordered", "match", "similar", "empty_is_absent"];

impl LeafRules {
    pub(crate) fn read(score: &Section<'_>) -> Read<Self> {
        let mut rules = Self::default();
        if let Some(fields) = score.free_section("tolerance")? {
            for (path, _) in fields.keys() {
                rules
                    .tolerance
                    .insert(path.to_owned(), read_tolerance(&fields, path)?);
            }
        }
        if let Some(fields) = score.free_section("aliases")? {
            for (path, _) in fields.keys() {
                rules
                    .aliases
                    .insert(path.to_owned(), read_aliases(&fields, path)?);
            }
        }
        rules.absent = read_absent(score)?;
        let Some(fields) = score.section("fields", &FIELD_KEYS)? else {
            return Ok(rules);
        };
        if let Some((value, offset)) = fields.get("credit") {
            rules.whole_fields = match value.as_str() {
                Some("leaf") => false,
                Some("field") => true,
                _ => {
                    let message = "takes \"leaf\" (each value counts) or \"field\" (each top-level field counts as a whole)";
                    return Err(fields.error("credit", offset, message));
                }
            };
        }
        if let (true, Some((_, offset))) = (rules.whole_fields, score.get("absent")) {
            let message = "pays for null by each value: remove it, or `credit = \"field\"`";
            return Err(score.error("absent", offset, message));
        }
        rules.ordered = fields.strings("ordered")?.unwrap_or_default();
        rules.empty_is_absent = fields.boolean("empty_is_absent")?.unwrap_or_default();
        if let Some(lists) = fields.free_section("match")? {
            for (path, offset) in lists.keys() {
                let (value, _) = lists.get(path).unzip();
                let member = value.and_then(DeValue::as_str).ok_or_else(|| {
                    let message =
                        "takes the name of the member by which the items of the list are matched";
                    lists.error(path, offset, message)
                })?;
                rules.keys.insert(path.to_owned(), member.to_owned());
            }
        }
        let place = |path: &str| path.trim_end_matches(".*").to_owned();
        let is_ordered = |path: &&String| rules.ordered.iter().any(|of| place(of) == place(path));
        if let Some(both) = rules.keys.keys().find(is_ordered) {
            let offset = fields.get("match").map_or(0, |(_, offset)| offset);
            let message = format!("names `{both}`, which `ordered` has too: use one of the two");
            return Err(fields.error("match", offset, message));
        }
        if let Some(texts) = fields.free_section("similar")? {
            for (path, offset) in texts.keys() {
                let least = texts.number(path)?.unwrap_or_default();
                if !(least > 0.0 && least < 1.0) {
                    let message = format!(
                        "must be above 0 and below 1: the least similarity that earns credit, not {least}"
                    );
                    return Err(texts.error(path, offset, message));
                }
                rules.similar.insert(path.to_owned(), least);
            }
        }
        Ok(rules)
    }

    /// Each path, with the key that names it; of lists that of their items, or of the member that
    /// matches them.
    pub fn paths(&self) -> Vec<(&'static str, String)> {
        let items = |path: &str| format!("{}.*", path.trim_end_matches(".*"));
        let lists = self.keys.iter();
        let keys = lists.map(|(path, key)| ("fields.match", format!("{}.{key}", items(path))));
        let ordered = self.ordered.iter();
        let named = |key: &'static str| move |path: &String| (key, path.clone());
        let tolerance = self.tolerance.keys().map(named("tolerance"));
        let aliases = self.aliases.keys().map(named("aliases"));
        let similar = self.similar.keys().map(named("fields.similar"));
        let ordered = ordered.map(|path| ("fields.ordered", items(path)));
        let absent = self.absent.iter().map(named("absent"));
        let values = tolerance.chain(aliases).chain(similar).chain(absent);
        values.chain(keys).chain(ordered).collect()
    }
}

/// `absent = "null"`, or a table of paths.
fn read_absent(score: &Section<'_>) -> Read<Vec<String>> {
    let Some((value, offset)) = score.get("absent") else {
        return Ok(Vec::new());
    };
    let wrong = |section: &Section<'_>, key: &str, offset| {
        let message = "takes \"null\": null then earns more than a wrong value";
        section.error(key, offset, message)
    };
    if value.as_str() == Some("null") {
        return Ok(vec![ALL_FIELDS.to_owned()]);
    }
    let DeValue::Table(_) = value else {
        return Err(wrong(score, "absent", offset));
    };
    let mut paths = Vec::new();
    if let Some(fields) = score.free_section("absent")? {
        for (path, offset) in fields.keys() {
            if fields.get(path).and_then(|(value, _)| value.as_str()) != Some("null") {
                return Err(wrong(&fields, path, offset));
            }
            paths.push(path.to_owned());
        }
    }
    Ok(paths)
}

fn read_tolerance(fields: &Section<'_>, path: &str) -> Read<Tolerance> {
    let (value, offset) = fields.get(path).unwrap_or((&DeValue::Boolean(false), 0));
    let wrong = || {
        let message =
            "takes a number (0.01) or a share of the expected number (\"1%\"), not negative";
        fields.error(path, offset, message)
    };
    let tolerance = match value {
        DeValue::String(text) => {
            let percent = text
                .strip_suffix('%')
                .and_then(|text| text.trim().parse::<f64>().ok());
            Tolerance::Relative(percent.ok_or_else(wrong)? / 100.0)
        }
        _ => Tolerance::Absolute(fields.number(path)?.ok_or_else(wrong)?),
    };
    let (Tolerance::Absolute(bound) | Tolerance::Relative(bound)) = tolerance;
    if bound.is_finite() && bound >= 0.0 {
        Ok(tolerance)
    } else {
        Err(wrong())
    }
}

fn read_aliases(fields: &Section<'_>, path: &str) -> Read<Vec<Vec<String>>> {
    let (value, offset) = fields.get(path).unwrap_or((&DeValue::Boolean(false), 0));
    let group = |item: &Spanned<DeValue<'_>>| -> Option<Vec<String>> {
        let texts = item.get_ref().as_array()?.iter();
        texts
            .map(|text| text.get_ref().as_str().map(str::to_owned))
            .collect()
    };
    let groups: Option<Vec<_>> = value
        .as_array()
        .and_then(|items| items.iter().map(group).collect());
    groups
        .filter(|groups| groups.iter().all(|group| group.len() > 1))
        .ok_or_else(|| {
            let message =
                "takes lists of texts that mean the same: [[\"EUR\", \"€\"], [\"USD\", \"$\"]]";
            fields.error(path, offset, message)
        })
}
