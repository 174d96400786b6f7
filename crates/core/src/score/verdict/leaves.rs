//! Compares an answer with `expected` leaf by leaf. Items of lists are matched, so that one that is
//! missing, extra or in another place costs what it is worth.

use std::cell::Cell;

use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;
use serde_json::Value as Expected;

use super::field_compare::equal;
use super::field_rules::{ITEMS, Rule, Rules};
use super::leaf_counts::{LeafCounts, Leaves};
use super::ordered_map::OrderedMap;
use crate::dataset::expected::Expectation;
use crate::score::answer::json::{Kind, Value};

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Right,
    Wrong { similarity: f64 },
    Missed,
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
        credit: 0.0,
        total: 0.0,
    };
    walk.compare(root, expected, rules.root());
    Leaves {
        credit: walk.share(),
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
    credit: f64,
    total: f64,
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
            credit: 0.0,
            total: 0.0,
        };
        trial.compare(found, expected, rule);
        trial.share()
    }

    fn add(&mut self, outcome: Outcome) {
        self.total += 1.0;
        self.credit += match outcome {
            Outcome::Right | Outcome::Absent => 1.0,
            Outcome::Wrong { similarity } => similarity,
            Outcome::Missed | Outcome::Invented => 0.0,
        };
        let Some(counts) = &mut self.counts else {
            self.left.set(self.left.get().saturating_sub(1));
            return;
        };
        let mut path = self.path.get(1..).unwrap_or_default();
        // Names that the answer makes up have no limit of their own.
        if matches!(outcome, Outcome::Invented)
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
        let of = &mut counts.0[place].1;
        match outcome {
            Outcome::Right => of.right += 1,
            Outcome::Wrong { .. } => of.wrong += 1,
            Outcome::Missed => of.missed += 1,
            Outcome::Invented => of.invented += 1,
            Outcome::Absent => of.absent += 1,
        }
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
                    self.at(name, |walk| walk.compare(member, value, rule.member(name)));
                }
                for extra in object.members() {
                    if !members.contains_key(&*extra.key) {
                        self.at(&extra.key, |walk| walk.invented(&extra.value));
                    }
                }
            }
            (Some(Kind::Array(found)), Expected::Array(items)) if !items.is_empty() => {
                self.at(ITEMS, |walk| walk.items(found, items, rule));
            }
            (_, Expected::Object(members)) if !members.is_empty() => {
                self.none_of(found, |walk| {
                    for (name, value) in members {
                        walk.at(name, |walk| walk.compare(None, value, rule.member(name)));
                    }
                });
            }
            (_, Expected::Array(items)) if !items.is_empty() => {
                self.none_of(found, |walk| {
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
    fn none_of(&mut self, found: Option<&Value<'_>>, miss: impl FnOnce(&mut Self)) {
        let before = self.total;
        miss(self);
        if let Some(found) = found {
            self.invented(found);
        }
        self.at_least(before, Outcome::Missed);
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
            _ => self.add(Outcome::Invented),
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
        let Some(found) = found else {
            return self.add(if wants_nothing && self.rules.empty_is_absent {
                Outcome::Absent
            } else {
                Outcome::Missed
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
            (false, true) => Outcome::Missed,
            _ => Outcome::Wrong {
                similarity: self.similarity(found, expected, rule),
            },
        };
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
            self.compare(place.map(|place| &found[place]), item, rule);
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
mod tests {
    use serde_json::json;

    use super::*;
    use crate::score::answer::json::parse;
    use crate::task::{LeafRules, Normalisation, Normalisations, ScoreRules};

    fn rules(change: impl FnOnce(&mut ScoreRules)) -> Rules {
        let mut rules = ScoreRules::default();
        change(&mut rules);
        Rules::new(&rules)
    }

    fn credit(found: &Expected, expected: &Expected, rules: &Rules) -> Leaves {
        let text = found.to_string();
        compare_leaves(Some(&parse(&text, 0).unwrap().root), expected, rules)
    }

    /// Six rows of four cells, and four fields of their own: 28 leaves.
    fn invoice() -> Expected {
        let line = |index: u32| json!({"sku": format!("A{index}"), "name": format!("part {index}"), "quantity": index, "amount": f64::from(index) * 1.25});
        json!({"vendor": "Acme Incorporated", "city": "Zürich", "total": 26.25, "note": null, "lines": (1..7).map(line).collect::<Vec<_>>()})
    }

    fn counts(leaves: &Leaves, path: &str) -> [u32; 5] {
        let of = leaves.counts.get(path).copied().unwrap_or_default();
        [of.right, of.wrong, of.missed, of.invented, of.absent]
    }

    #[test]
    fn each_leaf_counts_and_rows_are_matched() {
        let expected = invoice();
        let lines = |change: fn(&mut Vec<Expected>)| {
            let mut found = invoice();
            change(found["lines"].as_array_mut().unwrap());
            found
        };
        let set = |key: &str, value: Expected| {
            let mut found = invoice();
            found[key] = value;
            found
        };
        let plain = Rules::default();
        let near = |found: &Expected, right: f64, of: f64| {
            let leaves = credit(found, &expected, &plain);
            assert!(
                (leaves.credit - right / of).abs() < 1e-9,
                "{found}: {leaves:?}"
            );
            leaves
        };
        near(&expected, 28.0, 28.0);
        near(&lines(|lines| lines.reverse()), 28.0, 28.0);
        let wrong = near(&lines(|lines| lines[3]["amount"] = json!(9)), 27.0, 28.0);
        assert_eq!(counts(&wrong, "lines.*.amount"), [5, 1, 0, 0, 0]);
        // Also where the rows before it have moved.
        near(
            &lines(|lines| {
                lines[3]["amount"] = json!(9);
                lines.rotate_left(2);
            }),
            27.0,
            28.0,
        );
        let missing = near(&lines(|lines| drop(lines.remove(1))), 24.0, 28.0);
        assert_eq!(counts(&missing, "lines.*.sku"), [5, 0, 1, 0, 0]);
        near(&lines(|lines| lines.truncate(3)), 16.0, 28.0);
        near(&lines(Vec::clear), 4.0, 28.0);
        let extra = near(
            &lines(|lines| lines.insert(0, lines[4].clone())),
            28.0,
            32.0,
        );
        assert_eq!(counts(&extra, "lines.*.name"), [6, 0, 0, 1, 0]);
        let invented = near(&set("note", json!("none")), 27.0, 28.0);
        assert_eq!(counts(&invented, "note"), [0, 0, 0, 1, 0]);
        let missed = near(&set("total", Expected::Null), 27.0, 28.0);
        assert_eq!(counts(&missed, "total"), [0, 0, 1, 0, 0]);
        near(
            &set("else", json!({"a": 1, "b": [2, 3], "c": null})),
            28.0,
            31.0,
        );
        near(&set("lines", json!("none")), 4.0, 29.0);
        near(&json!([]), 0.0, 28.0);
    }

    #[test]
    fn rules_are_those_of_the_leafs_path() {
        let expected = invoice();
        let texts = |names: &[Normalisation]| Normalisations(names.to_vec());
        let lenient = rules(|rules| {
            rules
                .normalise
                .insert("vendor".into(), texts(&[Normalisation::Organisation]));
            rules
                .normalise
                .insert("city".into(), texts(&[Normalisation::Accents]));
            rules.leaves = LeafRules {
                tolerance: [(
                    "lines.*.amount".into(),
                    crate::task::Tolerance::Absolute(0.01),
                )]
                .into(),
                aliases: [(
                    "lines.name".into(),
                    vec![vec!["part 1".into(), "Teil 1".into()]],
                )]
                .into(),
                similar: [("lines.*.sku".into(), 0.5)].into(),
                empty_is_absent: true,
                ..LeafRules::default()
            };
        });
        let mut found = invoice();
        found["vendor"] = json!("Acme Inc.");
        found["city"] = json!("Zurich");
        found["note"] = json!("");
        found["lines"][1]["amount"] = json!(2.51);
        found["lines"][0]["name"] = json!("Teil 1");
        assert_eq!(credit(&found, &expected, &lenient).credit, 1.0);
        let strict = credit(&found, &expected, &Rules::default());
        assert!((strict.credit - 23.0 / 28.0).abs() < 1e-9, "{strict:?}");
        found.as_object_mut().unwrap().remove("note");
        assert_eq!(credit(&found, &expected, &lenient).credit, 1.0);
        // The name's rule is not the quantity's, and half of a text is alike.
        found["lines"][2]["quantity"] = json!("3 ");
        found["lines"][5]["sku"] = json!("B6");
        let leaves = credit(&found, &expected, &lenient);
        assert!((leaves.credit - 26.5 / 28.0).abs() < 1e-9, "{leaves:?}");
        assert_eq!(counts(&leaves, "lines.*.sku"), [5, 1, 0, 0, 0]);
    }

    #[test]
    fn order_and_keys_decide_where_they_are_asked_for() {
        let expected =
            json!({"steps": ["a", "b", "c"], "rows": [{"id": 1, "v": 5}, {"id": 2, "v": 6}]});
        let ruled = rules(|rules| {
            rules.leaves.ordered = vec!["steps".into()];
            rules.leaves.keys = [("rows".into(), "id".into())].into();
        });
        let found =
            json!({"steps": ["b", "a", "c"], "rows": [{"id": 2, "v": 5}, {"id": 3, "v": 5}]});
        // By content the first row would answer the second one.
        let leaves = credit(&found, &expected, &ruled);
        assert_eq!(counts(&leaves, "steps.*"), [1, 2, 0, 0, 0]);
        assert_eq!(counts(&leaves, "rows.*.id"), [1, 0, 1, 1, 0]);
        assert_eq!(counts(&leaves, "rows.*.v"), [0, 1, 1, 1, 0]);
        let free = credit(&found, &expected, &Rules::default());
        assert_eq!(counts(&free, "steps.*"), [3, 0, 0, 0, 0]);
    }

    #[test]
    fn alternatives_and_optional_values_take_what_fits() {
        let expected = json!({"unit": {"$any": ["km", "kilometers"]}, "memo": {"$optional": "x"}, "list": [{"$any": [1, 2]}, 3]});
        for (found, credits) in [
            (json!({"unit": "kilometers", "list": [3, 2]}), 1.0),
            (json!({"unit": "km", "memo": "x", "list": [1, 3]}), 1.0),
            (json!({"unit": "km", "memo": "y", "list": [1, 3]}), 0.75),
            (json!({"unit": "m", "list": [4, 3]}), 1.0 / 3.0),
        ] {
            let leaves = credit(&found, &expected, &Rules::default());
            assert!(
                (leaves.credit - credits).abs() < 1e-9,
                "{found}: {leaves:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_never_counts_as_nothing() {
        let optional = json!({"a": {"$optional": 1}, "b": {"$optional": [2]}});
        for (found, expected, credits) in [
            (json!({}), &optional, 1.0),
            (json!(null), &optional, 0.0),
            (json!([]), &optional, 0.0),
            (json!({"x": {"a": null}}), &json!({"x": null}), 0.0),
            (json!({"x": [null, {}]}), &json!({"x": []}), 0.0),
            (json!({}), &json!({"x": optional}), 0.0),
            (
                json!({"x": [1, null, {"a": null}, []]}),
                &json!({"x": [1]}),
                0.25,
            ),
        ] {
            let leaves = credit(&found, expected, &Rules::default());
            assert_eq!(leaves.credit, credits, "{found}: {leaves:?}");
        }
    }

    /// Each takes far too long without its bound.
    #[test]
    fn hostile_answers_are_compared_in_bounded_time() {
        let nested = |depth: usize, items: usize, leaf: Expected| {
            (0..depth).fold(leaf, |inner, _| json!({"c": vec![inner; items]}))
        };
        let similar = rules(|rules| rules.leaves.similar = [("c".into(), 0.5)].into());
        let texts = |letter: &str| json!({"c": vec![letter.repeat(200); 90]});
        let names = |count: usize| (0..count).map(|index| (format!("k{index}"), json!(1)));
        let made_up = Expected::Object(names(100_000).collect());
        for (found, expected, rules) in [
            (nested(60, 1, json!(1)), nested(60, 1, json!(2)), &similar),
            (nested(9, 3, json!(1)), nested(9, 3, json!(2)), &similar),
            (texts("ab"), texts("ba"), &similar),
            (
                json!({"c": vec![1; 10_000]}),
                json!({"c": (0..1000).map(|index| index + 2).collect::<Vec<_>>()}),
                &similar,
            ),
            (made_up, json!({"c": 1}), &similar),
        ] {
            let leaves = credit(&found, &expected, rules);
            assert!((0.0..1.0).contains(&leaves.credit), "{}", leaves.credit);
            assert!(leaves.counts.len() <= MAX_INVENTED_PATHS + 2);
        }
    }

    #[test]
    fn long_lists_are_matched_in_bounded_time() {
        let row = |index: usize| json!({"id": index, "v": index % 7});
        let expected = json!({"rows": (0..1000).map(row).collect::<Vec<_>>()});
        let found =
            json!({"rows": (0..1000).map(|index| row(index + 1_000_000)).collect::<Vec<_>>()});
        let leaves = credit(&found, &expected, &Rules::default());
        assert_eq!(counts(&leaves, "rows.*.id"), [0, 1000, 0, 0, 0]);
    }
}
