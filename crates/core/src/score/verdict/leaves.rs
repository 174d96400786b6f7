//! Compares an answer with `expected` leaf by leaf. Items of lists are matched, so that one that is
//! missing, extra or in another place costs what it is worth.

use std::cell::Cell;

use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;
use serde_json::Value as Expected;

use super::field_compare::{equal, has_key};
use super::field_rules::{ITEMS, Rule, Rules};
use super::leaf_counts::{LeafCounts, Leaves};
use super::ordered_map::OrderedMap;
use crate::dataset::expected::Expectation;
use crate::score::answer::json::{Kind, Value};

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Right,
    Wrong {
        similarity: f64,
    },
    Missed {
        /// Whether the answer says that it does not know the value, and is paid for it.
        abstains: bool,
    },
    Invented,
    Absent,
}

/// A list whose items need more comparisons is matched in order.
const MAX_PAIRS: usize = 10_000;
/// Values compared to find out what matches, in one answer; what is left is matched in order.
const MAX_COMPARED: usize = 1_000_000;
/// Pairs of letters that cost as much as the comparison of two values.
const LETTERS: usize = 64;
/// Paths of invented values that are told apart, and the longest in bytes; others are counted
/// together.
const MAX_INVENTED_PATHS: usize = 100;
const MAX_INVENTED_PATH_BYTES: usize = 200;
pub(crate) const OTHER_PATHS: &str = "(other)";
/// What null earns with `absent = "null"` where a value is expected; a right value earns 1, a wrong
/// one 0. It is the chance of being right above which an answer earns more than null.
const ABSTAINING: f64 = 0.25;
/// Credit of a pair as the matching's integer weight.
const WEIGHT: f64 = 1e6;

/// Compares all leaves; an answer that cannot be read has none. Credit is the share that is right, of those expected and those invented.
pub(crate) fn compare_leaves(
    root: Option<&Value<'_>>,
    expected: &Expected,
    rules: &Rules,
) -> Leaves {
    let left = Cell::new(MAX_COMPARED);
    let mut walk = Walk {
        rules,
        left: &left,
        path: String::new(),
        counts: Some(OrderedMap::default()),
        outcomes: Vec::new(),
        credit: 0.0,
        total: 0.0,
        abstains: false,
    };
    walk.compare(root, expected, rules.root());
    Leaves {
        credit: walk.share(),
        outcomes: walk.outcomes,
        counts: walk.counts.unwrap_or_default(),
    }
}

struct Walk<'w> {
    rules: &'w Rules,
    /// Comparisons that trials may still make.
    left: &'w Cell<usize>,
    /// `.lines.*.amount`, where leaves are counted.
    path: String,
    /// `None` where only the credit is asked for.
    counts: Option<OrderedMap<LeafCounts>>,
    outcomes: Vec<(usize, bool)>,
    credit: f64,
    total: f64,
    /// Whether what is missing here was left out as unknown: not a row of a list.
    abstains: bool,
}

impl<'w> Walk<'w> {
    /// Credit per leaf; 1 if there is none.
    fn share(&self) -> f64 {
        if self.total == 0.0 {
            1.0
        } else {
            self.credit / self.total
        }
    }

    /// Another comparison, of which only the share is asked for.
    fn trial(&self, found: Option<&Value<'_>>, expected: &Expected, rule: Rule<'w>) -> f64 {
        let mut trial = Walk {
            rules: self.rules,
            left: self.left,
            path: String::new(),
            counts: None,
            outcomes: Vec::new(),
            credit: 0.0,
            total: 0.0,
            abstains: self.abstains,
        };
        trial.compare(found, expected, rule);
        trial.share()
    }

    fn add(&mut self, outcome: Outcome) {
        self.total += 1.0;
        self.credit += match outcome {
            Outcome::Right | Outcome::Absent => 1.0,
            Outcome::Wrong { similarity } => similarity,
            Outcome::Missed { abstains: true } => ABSTAINING,
            Outcome::Missed { .. } | Outcome::Invented => 0.0,
        };
        if self.counts.is_none() {
            self.left.set(self.left.get().saturating_sub(1));
        }
        let is_made_up = matches!(outcome, Outcome::Invented);
        self.count(is_made_up, |of| match outcome {
            Outcome::Right => of.right += 1,
            Outcome::Wrong { .. } => of.wrong += 1,
            Outcome::Missed { .. } => of.missed += 1,
            Outcome::Invented => of.invented += 1,
            Outcome::Absent => of.absent += 1,
        });
    }

    /// Changes the counts of the current path, if they are asked for.
    fn count(&mut self, is_made_up: bool, change: impl FnOnce(&mut LeafCounts)) {
        let Some(counts) = &mut self.counts else {
            return;
        };
        let mut path = self.path.get(1..).unwrap_or_default();
        // Names that the answer makes up have no limit of their own.
        if is_made_up
            && (path.len() > MAX_INVENTED_PATH_BYTES || counts.0.len() >= MAX_INVENTED_PATHS)
            && counts.get(path).is_none()
        {
            path = OTHER_PATHS;
        }
        let place = counts.0.iter().position(|(known, _)| known == path);
        let place = place.unwrap_or_else(|| {
            counts.0.push((path.to_owned(), LeafCounts::default()));
            counts.0.len() - 1
        });
        change(&mut counts.0[place].1);
    }

    fn at(&mut self, name: &str, compare: impl FnOnce(&mut Self)) {
        let above = self.path.len();
        if self.counts.is_some() {
            self.path.push('.');
            self.path.push_str(name);
        }
        compare(self);
        self.path.truncate(above);
    }

    fn compare(&mut self, found: Option<&Value<'_>>, expected: &Expected, rule: Rule<'w>) {
        let plain = match Expectation::from_value(expected) {
            Expectation::Any(values) => {
                let shares = values.iter().map(|value| match values.len() {
                    1 => (0.0, value),
                    _ => (self.trial(found, value, rule), value),
                });
                // Ties go to the first; `max_by` returns the last.
                let best = shares
                    .rev()
                    .max_by(|left, right| left.0.total_cmp(&right.0));
                if let Some((_, best)) = best {
                    self.compare(found, best, rule);
                }
                return;
            }
            Expectation::Optional(value) => {
                if found.is_some() {
                    self.compare(found, value, rule);
                }
                return;
            }
            Expectation::Number(_) => expected,
            Expectation::Plain(value) => value,
        };
        match (found.map(|found| &found.kind), plain) {
            (Some(Kind::Object(object)), Expected::Object(members)) if !members.is_empty() => {
                for (name, value) in members {
                    let member = object.get(name).map(|member| &member.value);
                    let abstains = self.rules.empty_is_absent;
                    self.at(name, |walk| {
                        walk.missing(abstains, |walk| {
                            walk.compare(member, value, rule.member(name));
                        });
                    });
                }
                for extra in object.members() {
                    if !has_key(members, &extra.key) {
                        self.at(&extra.key, |walk| walk.invented(&extra.value));
                    }
                }
            }
            (Some(Kind::Array(found)), Expected::Array(items)) if !items.is_empty() => {
                self.at(ITEMS, |walk| walk.items(found, items, rule));
            }
            (_, Expected::Object(members)) if !members.is_empty() => {
                let abstains = found.map_or(self.abstains, |found| self.abstains_by(found));
                self.none_of(found, abstains, |walk| {
                    for (name, value) in members {
                        walk.at(name, |walk| walk.compare(None, value, rule.member(name)));
                    }
                });
            }
            (_, Expected::Array(items)) if !items.is_empty() => {
                self.none_of(found, false, |walk| {
                    let missed = |walk: &mut Self| {
                        items.iter().for_each(|item| walk.compare(None, item, rule))
                    };
                    walk.at(ITEMS, missed);
                });
            }
            _ => self.leaf(found, expected, rule),
        }
    }

    /// Where an object or a list is expected, and nothing or another value stands.
    fn none_of(&mut self, found: Option<&Value<'_>>, abstains: bool, miss: impl FnOnce(&mut Self)) {
        let before = self.total;
        self.missing(abstains, miss);
        if let Some(found) = found {
            self.invented(found);
        }
        self.at_least(before, Outcome::Missed { abstains: false });
    }

    /// Compares where what is missing was left out as unknown, or was not.
    fn missing(&mut self, abstains: bool, compare: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.abstains, abstains);
        compare(self);
        self.abstains = before;
    }

    /// Whether a value says that none is known: null, or what is one state with it.
    fn abstains_by(&self, found: &Value<'_>) -> bool {
        matches!(found.kind, Kind::Null) || self.rules.empty_is_absent && self.states_nothing(found)
    }

    /// Adds `outcome` if there is no other since `before`, so that what is wrong never counts as
    /// nothing: optional values are not missed, and null states none.
    fn at_least(&mut self, before: f64, outcome: Outcome) {
        if self.total == before {
            self.add(outcome);
        }
    }

    /// A value for which nothing is expected.
    fn invented(&mut self, found: &Value<'_>) {
        match &found.kind {
            Kind::Object(object) if !object.members().is_empty() => {
                for member in object.members() {
                    self.at(&member.key, |walk| walk.invented(&member.value));
                }
            }
            Kind::Array(items) if !items.is_empty() => self.at(ITEMS, |walk| {
                for item in items {
                    walk.invented(item);
                }
            }),
            _ if self.states_nothing(found) => {}
            _ => {
                self.outcomes.push((found.start, false));
                self.add(Outcome::Invented);
            }
        }
    }

    fn states_nothing(&self, found: &Value<'_>) -> bool {
        match &found.kind {
            Kind::Null => true,
            Kind::String(text) => self.rules.empty_is_absent && text.is_empty(),
            Kind::Array(items) => items.is_empty(),
            Kind::Object(object) => object.members().is_empty(),
            _ => false,
        }
    }

    /// A value that has no leaves of its own is expected.
    fn leaf(&mut self, found: Option<&Value<'_>>, expected: &Expected, rule: Rule<'w>) {
        let wants_nothing = match expected {
            Expected::Null => true,
            Expected::String(text) => self.rules.empty_is_absent && text.is_empty(),
            Expected::Array(items) => items.is_empty(),
            Expected::Object(members) => members.is_empty(),
            _ => false,
        };
        let fills = found.is_some_and(|found| !self.states_nothing(found));
        if wants_nothing {
            self.count(false, |of| {
                of.blank += 1;
                of.filled += u32::from(fills);
            });
        }
        let Some(found) = found else {
            let abstains = self.abstains && rule.leaf.null_earns;
            return self.add(if wants_nothing && self.rules.empty_is_absent {
                Outcome::Absent
            } else {
                Outcome::Missed { abstains }
            });
        };
        let outcome = match (wants_nothing, self.states_nothing(found)) {
            (true, true) if self.rules.empty_is_absent || equal(found, expected, rule) => {
                Outcome::Absent
            }
            (true, false) => {
                let before = self.total;
                self.invented(found);
                return self.at_least(before, Outcome::Wrong { similarity: 0.0 });
            }
            (false, _) if equal(found, expected, rule) => Outcome::Right,
            (false, true) => Outcome::Missed {
                abstains: rule.leaf.null_earns && self.abstains_by(found),
            },
            _ => Outcome::Wrong {
                similarity: self.similarity(found, expected, rule),
            },
        };
        let is_right = matches!(outcome, Outcome::Right | Outcome::Absent);
        self.outcomes.push((found.start, is_right));
        self.add(outcome);
    }

    /// Of two texts, as Levenshtein's distance counts it after their normalisation; 0 below the
    /// least that the rule counts.
    fn similarity(&self, found: &Value<'_>, expected: &Expected, rule: Rule<'_>) -> f64 {
        let (Kind::String(found), Expected::String(expected), Some(least)) =
            (&found.kind, expected, rule.leaf.similar)
        else {
            return 0.0;
        };
        let (found, expected) = (rule.leaf.normal(found), rule.leaf.normal(expected));
        let (shorter, longer) = match found.len() < expected.len() {
            true => (found.len(), expected.len()),
            false => (expected.len(), found.len()),
        };
        // A letter has at most four bytes. A text of megabytes is not compared with a short one.
        if 4.0 * (shorter as f64) < least * longer as f64 {
            return 0.0;
        }
        let cost = shorter * longer / LETTERS;
        self.left.set(self.left.get().saturating_sub(cost));
        let similarity = strsim::normalized_levenshtein(&found, &expected);
        if similarity >= least { similarity } else { 0.0 }
    }

    fn items(&mut self, found: &[Value<'_>], expected: &[Expected], rule: Rule<'w>) {
        let (pairs, extra) = self.matched(found, expected, rule);
        for (place, item) in pairs.into_iter().zip(expected) {
            let place = place.map(|place| &found[place]);
            self.missing(false, |walk| walk.compare(place, item, rule));
        }
        for place in extra {
            let before = self.total;
            self.invented(&found[place]);
            // An empty item is one too many, else a list may have any number of them.
            if !self.rules.empty_is_absent {
                self.at_least(before, Outcome::Invented);
            }
        }
    }

    /// For each expected item the place of the one that answers it; then the places of the others.
    fn matched(
        &self,
        found: &[Value<'_>],
        expected: &[Expected],
        rule: Rule<'w>,
    ) -> (Vec<Option<usize>>, Vec<usize>) {
        let mut pairs: Vec<Option<usize>> = vec![None; expected.len()];
        let mut free: Vec<usize> = (0..found.len()).collect();
        if rule.is_ordered() {
            for (place, pair) in pairs.iter_mut().enumerate().take(found.len()) {
                *pair = Some(place);
            }
            return (pairs, free.split_off(expected.len().min(found.len())));
        }
        let same = |place: usize, item: &Expected| {
            let left = self.left.get();
            self.left.set(left.saturating_sub(1));
            left > 0
                && match rule.key() {
                    Some(key) => same_key(&found[place], item, key, rule),
                    None => equal(&found[place], item, rule),
                }
        };
        for (pair, item) in pairs.iter_mut().zip(expected) {
            if self.left.get() == 0 {
                break;
            }
            if let Some(at) = free.iter().position(|place| same(*place, item)) {
                *pair = Some(free.remove(at));
            }
        }
        if rule.key().is_some() {
            return (pairs, free);
        }
        let open: Vec<usize> = (0..expected.len())
            .filter(|item| pairs[*item].is_none())
            .collect();
        let pairs_left = open.len() * free.len();
        let nearest = if pairs_left == 1 || pairs_left > MAX_PAIRS || self.left.get() == 0 {
            open.iter().copied().zip(free.iter().copied()).collect()
        } else {
            let share = |item: usize, place: usize| match self.left.get() {
                0 => 0.0,
                _ => self.trial(Some(&found[place]), &expected[item], rule),
            };
            nearest(&open, &free, share)
        };
        for (item, place) in nearest {
            pairs[item] = Some(place);
            free.retain(|other| *other != place);
        }
        (pairs, free)
    }
}

/// The pairs of two sets that earn most together (Hungarian method); all of the smaller set are
/// paired.
fn nearest(
    open: &[usize],
    free: &[usize],
    share: impl Fn(usize, usize) -> f64,
) -> Vec<(usize, usize)> {
    let is_wide = open.len() <= free.len();
    let (rows, columns) = if is_wide { (open, free) } else { (free, open) };
    if rows.is_empty() {
        return Vec::new();
    }
    let weights = Matrix::from_fn(rows.len(), columns.len(), |(row, column)| {
        let (item, place) = if is_wide {
            (rows[row], columns[column])
        } else {
            (columns[column], rows[row])
        };
        (share(item, place) * WEIGHT) as i64
    });
    let (_, chosen) = kuhn_munkres(&weights);
    let pair = |(row, column): (usize, usize)| {
        if is_wide {
            (rows[row], columns[column])
        } else {
            (columns[column], rows[row])
        }
    };
    chosen.into_iter().enumerate().map(pair).collect()
}

fn same_key(found: &Value<'_>, expected: &Expected, key: &str, rule: Rule<'_>) -> bool {
    let member = found.as_object().and_then(|object| object.get(key));
    let wanted = expected.get(key);
    member
        .zip(wanted)
        .is_some_and(|(member, wanted)| equal(&member.value, wanted, rule.member(key)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
