//! How values are compared with expected ones, by place in the answer: what `[score]` says of its
//! paths, as a tree of fields.

use std::collections::BTreeMap;

use crate::task::{ALL_FIELDS, LeafRules, Normalisation, Normalisations, ScoreRules, Tolerance};

/// The segment of a path that stands for the items of a list.
pub(super) const ITEMS: &str = "*";

/// Of the values at a place and below it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct LeafRule {
    pub(super) casefold: bool,
    pub(super) trim: bool,
    pub(super) whitespace: bool,
    pub(super) date: bool,
    pub(super) number: bool,
    pub(super) bfcl: bool,
    pub(super) accents: bool,
    pub(super) organisation: bool,
    pub(super) tolerance: Option<Tolerance>,
    pub(super) aliases: Vec<Vec<String>>,
    /// Least similarity of texts that earns credit.
    pub(super) similar: Option<f64>,
    /// Whether null earns something where a value is expected.
    pub(super) null_earns: bool,
}

#[derive(Debug, Clone, Default)]
struct Field {
    leaf: LeafRule,
    /// Of a list: whether its order counts, and the member by which its items are matched.
    is_ordered: bool,
    key: Option<String>,
    members: BTreeMap<String, Field>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    root: Field,
    pub(super) empty_is_absent: bool,
    /// Whether a field earns credit as a whole.
    pub(crate) whole_fields: bool,
}

/// The rules at a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule<'r> {
    pub(super) leaf: &'r LeafRule,
    field: Option<&'r Field>,
}

impl LeafRule {
    fn normalise(&mut self, names: &Normalisations) {
        let has = |one| names.0.contains(&one);
        self.casefold = has(Normalisation::Casefold);
        self.trim = has(Normalisation::Trim);
        self.whitespace = has(Normalisation::Whitespace);
        self.date = has(Normalisation::Date);
        self.number = has(Normalisation::Number);
        self.bfcl = has(Normalisation::Bfcl);
        self.accents = has(Normalisation::Accents);
        self.organisation = has(Normalisation::Organisation);
    }

    pub(super) fn is_near(&self, found: Option<f64>, expected: Option<f64>) -> bool {
        let pair = found.zip(expected).zip(self.tolerance);
        pair.is_some_and(|((found, expected), tolerance)| tolerance.allows(found, expected))
    }
}

impl Rules {
    pub(crate) fn new(rules: &ScoreRules) -> Self {
        let LeafRules {
            tolerance,
            aliases,
            similar,
            ordered,
            keys,
            absent,
            empty_is_absent,
            whole_fields,
        } = &rules.leaves;
        let mut compiled = Self {
            empty_is_absent: *empty_is_absent,
            whole_fields: *whole_fields,
            ..Self::default()
        };
        let mut paths: Vec<&String> = rules.normalise.keys().chain(tolerance.keys()).collect();
        paths.extend(aliases.keys().chain(similar.keys()).chain(keys.keys()));
        paths.extend(ordered.iter().chain(absent));
        // A field is made from the rules of the one above it.
        paths.sort_by_key(|path| segments(path).count());
        paths.dedup();
        for path in paths {
            let field = compiled.field(path);
            if let Some(names) = rules.normalise.get(path) {
                field.leaf.normalise(names);
            }
            field.leaf.tolerance = tolerance.get(path).copied().or(field.leaf.tolerance);
            field.leaf.null_earns |= absent.contains(path);
            field.leaf.similar = similar.get(path).copied().or(field.leaf.similar);
            if let Some(groups) = aliases.get(path) {
                field.leaf.aliases.clone_from(groups);
            }
            // `lines` and `lines.*` are one place.
            field.is_ordered |= ordered.contains(path);
            if let Some(key) = keys.get(path) {
                field.key = Some(key.clone());
            }
        }
        compiled
    }

    /// For texts without fields.
    pub(crate) fn of_texts(names: &Normalisations) -> Self {
        let mut rules = Self::default();
        rules.root.leaf.normalise(names);
        rules
    }

    fn field(&mut self, path: &str) -> &mut Field {
        let mut field = &mut self.root;
        for name in segments(path) {
            let leaf = field.leaf.clone();
            field = field.members.entry(name.to_owned()).or_insert(Field {
                leaf,
                ..Field::default()
            });
        }
        field
    }

    pub(crate) fn root(&self) -> Rule<'_> {
        Rule {
            leaf: &self.root.leaf,
            field: Some(&self.root),
        }
    }
}

/// Names of the fields that lead to a place; items of lists have their list's rules.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let path = if path == ALL_FIELDS { "" } else { path };
    path.split('.')
        .filter(|name| !name.is_empty() && *name != ITEMS)
}

impl<'r> Rule<'r> {
    pub(crate) fn member(self, name: &str) -> Rule<'r> {
        // A name may have dots of its own.
        let below = |field: &'r Field| {
            segments(name).try_fold(field, |field, part| field.members.get(part))
        };
        match self.field.and_then(below) {
            Some(field) => Rule {
                leaf: &field.leaf,
                field: Some(field),
            },
            None => Rule {
                leaf: self.leaf,
                field: None,
            },
        }
    }

    pub(super) fn is_ordered(self) -> bool {
        self.field.is_some_and(|field| field.is_ordered)
    }

    pub(super) fn key(self) -> Option<&'r str> {
        self.field.and_then(|field| field.key.as_deref())
    }
}
