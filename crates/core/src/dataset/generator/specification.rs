//! `generator.toml` as data, and its consistency checks.

use std::collections::BTreeMap;

use jiff::civil::Date;
use serde::{Deserialize, Deserializer, de};

/// Key in `row_fields` that applies to all rows.
pub(crate) const EVERY_ANSWER: &str = "*";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Specification {
    /// Determines every draw.
    pub(crate) seed: u64,
    /// Template of the user turn; uses `instruction`, `document` and the fields.
    pub(crate) prompt: String,
    /// Template of the right completion, for styles without `answer`.
    pub(crate) answer: Option<String>,
    /// Templates of right completions by name.
    #[serde(default)]
    pub(crate) answers: BTreeMap<String, String>,
    /// Template of `expected` as JSON; uses `answer`. Default: the answer, which must be JSON.
    pub(crate) expected: Option<String>,
    /// Templates of other row fields as JSON, by answer name or `*`; they use `answer`. `expected`
    /// here overrides the common one.
    #[serde(default)]
    pub(crate) row_fields: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) styles: Vec<Style>,
    pub(crate) rows: Rows,
    /// Wrong answers of an unaligned model, by habit.
    #[serde(default)]
    pub(crate) habits: BTreeMap<String, String>,
    /// Templates by field; one is sampled per row.
    #[serde(default)]
    pub(crate) fields: BTreeMap<String, Vec<String>>,
    /// Composed words: pools whose picks are joined.
    #[serde(default)]
    pub(crate) words: BTreeMap<String, Vec<String>>,
    /// Each set's share of the words; required with `words`.
    pub(crate) word_shares: Option<WordShares>,
    /// Dates; templates have none without it.
    pub(crate) dates: Option<Dates>,
    /// Amounts, for styles that name a format.
    pub(crate) amounts: Option<Amounts>,
    /// Symbol by code; required with `amounts`.
    #[serde(default)]
    pub(crate) currencies: BTreeMap<String, String>,
    /// Document templates by layout; one is sampled per row.
    pub(crate) layouts: BTreeMap<String, Vec<String>>,
    /// Lists that templates pick from.
    #[serde(default)]
    pub(crate) pools: BTreeMap<String, Vec<String>>,
}

/// A layout with its answer, amount format and habit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Style {
    pub(crate) layout: String,
    /// One of `answers`.
    #[serde(default)]
    pub(crate) answer: Option<String>,
    /// One of `amounts.formats`.
    #[serde(default)]
    pub(crate) amount: Option<String>,
    /// Added to each row's `tags`, before the layout.
    pub(crate) tag: String,
    /// Relative share of rows.
    pub(crate) share: u32,
    #[serde(default)]
    pub(crate) habit: Option<String>,
    /// Frequency of the habit in the pretrained model, in `[0, 1]`.
    #[serde(default)]
    pub(crate) frequency: f64,
}

impl Style {
    /// `layout/answer/amount`, as far as present.
    pub(crate) fn name(&self) -> String {
        let parts = [
            Some(&self.layout),
            self.answer.as_ref(),
            self.amount.as_ref(),
        ];
        parts
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("/")
    }
}

/// Rows per written set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rows {
    pub(crate) train: u64,
    pub(crate) eval: u64,
    #[serde(alias = "proof")]
    pub(crate) test: u64,
}

/// Relative share of the words per set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WordShares {
    pub(crate) train: u32,
    pub(crate) eval: u32,
    #[serde(alias = "proof")]
    pub(crate) test: u32,
    pub(crate) pretrain: u32,
}

impl WordShares {
    /// Returns the shares in the order of `Stream`.
    pub(crate) fn by_stream(&self) -> [u32; 4] {
        [self.train, self.eval, self.test, self.pretrain]
    }
}

/// Range (inclusive, `YYYY-MM-DD`) and formats.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dates {
    #[serde(deserialize_with = "date")]
    pub(crate) first: Date,
    #[serde(deserialize_with = "date")]
    pub(crate) last: Date,
    pub(crate) formats: Vec<String>,
}

/// Sizes and formats.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Amounts {
    /// Numbers of digits before the decimal point; one is sampled per row.
    pub(crate) digits: Vec<u32>,
    pub(crate) formats: BTreeMap<String, String>,
}

impl Specification {
    /// Describes the first inconsistency.
    pub(crate) fn problem(&self) -> Option<String> {
        self.styles
            .iter()
            .find_map(|style| self.style_problem(style))
            .or_else(|| self.list_problem())
            .or_else(|| self.range_problem())
    }

    fn style_problem(&self, style: &Style) -> Option<String> {
        let name = style.name();
        let none = BTreeMap::new();
        let formats = self
            .amounts
            .as_ref()
            .map_or(&none, |amounts| &amounts.formats);
        let named = [
            ("format", "amounts.formats", style.amount.as_ref(), formats),
            ("answer", "answers", style.answer.as_ref(), &self.answers),
            ("habit", "habits", style.habit.as_ref(), &self.habits),
        ];
        if !self.layouts.contains_key(&style.layout) {
            let known = names(&self.layouts);
            return Some(format!(
                "style {name}: no layout `{}` under [layouts]; it has {known}",
                style.layout
            ));
        }
        for (what, table, entry, entries) in named {
            if let Some(entry) = entry.filter(|entry| !entries.contains_key(*entry)) {
                return Some(format!(
                    "style {name}: no {what} `{entry}` under [{table}]; it has {}",
                    names(entries)
                ));
            }
        }
        if style.answer.is_none() && self.answer.is_none() {
            return Some(format!(
                "style {name}: name an `answer` of [answers], or write `answer` for all styles"
            ));
        }
        (!(0.0..=1.0).contains(&style.frequency)).then(|| {
            format!(
                "style {name}: frequency is {}: must be between 0 and 1",
                style.frequency
            )
        })
    }

    fn list_problem(&self) -> Option<String> {
        let lists = [
            ("fields", &self.fields),
            ("words", &self.words),
            ("layouts", &self.layouts),
            ("pools", &self.pools),
        ];
        for (table, lists) in lists {
            if let Some((name, _)) = lists.iter().find(|(_, list)| list.is_empty()) {
                return Some(format!(
                    "[{table}] `{name}` is an empty list; write at least one entry"
                ));
            }
        }
        let is_unknown =
            |name: &&String| name.as_str() != EVERY_ANSWER && !self.answers.contains_key(*name);
        if let Some(name) = self.row_fields.keys().find(is_unknown) {
            return Some(format!(
                "[row_fields.{name}]: no answer `{name}` under [answers]; it has {}",
                names(&self.answers)
            ));
        }
        for (word, pools) in &self.words {
            if let Some(pool) = pools.iter().find(|pool| !self.pools.contains_key(*pool)) {
                return Some(format!(
                    "[words] `{word}`: unknown pool `{pool}`; [pools] has {}",
                    names(&self.pools)
                ));
            }
        }
        None
    }

    fn range_problem(&self) -> Option<String> {
        if self.styles.iter().all(|style| style.share == 0) {
            return Some("`styles`: no style has a share above 0".into());
        }
        if let Some(Dates {
            first,
            last,
            formats,
        }) = &self.dates
            && (last < first || formats.is_empty())
        {
            return Some(format!(
                "[dates]: first {first} must not come after last {last}, and `formats` needs an entry"
            ));
        }
        if let Some(Amounts { digits, .. }) = &self.amounts {
            if digits.is_empty() || digits.iter().any(|digits| !(1..=15).contains(digits)) {
                return Some(format!(
                    "[amounts]: digits is {digits:?}; write a list of numbers between 1 and 15"
                ));
            }
            if self.currencies.is_empty() {
                return Some(
                    "[currencies] is empty; write at least one line such as `EUR = \"€\"`".into(),
                );
            }
        }
        let shares = self
            .word_shares
            .as_ref()
            .map_or([0; 4], WordShares::by_stream);
        let needs_shares = self.word_shares.is_some() || !self.words.is_empty();
        (needs_shares && shares.contains(&0)).then(|| {
            "[word_shares]: each of train, eval, test and pretrain must be at least 1".into()
        })
    }
}

fn names<T>(table: &BTreeMap<String, T>) -> String {
    table
        .keys()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        de::Error::custom(format!(
            "`{text}` is not a date: write it like \"2026-03-12\""
        ))
    })
}
