//! Tests of the comparison leaf by leaf.

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
    let found = json!({"steps": ["b", "a", "c"], "rows": [{"id": 2, "v": 5}, {"id": 3, "v": 5}]});
    // By content the first row would answer the second one.
    let leaves = credit(&found, &expected, &ruled);
    assert_eq!(counts(&leaves, "steps.*"), [1, 2, 0, 0, 0]);
    assert_eq!(counts(&leaves, "rows.*.id"), [1, 0, 1, 1, 0]);
    assert_eq!(counts(&leaves, "rows.*.v"), [0, 1, 1, 1, 0]);
    let free = credit(&found, &expected, &Rules::default());
    assert_eq!(counts(&free, "steps.*"), [3, 0, 0, 0, 0]);
}

/// Right values earn most, null less, wrong ones nothing; where none is expected, null is right.
#[test]
fn null_earns_more_than_a_wrong_value_where_it_is_asked_for() {
    let expected = json!({"vendor": "Acme", "note": null, "to": {"city": "Bern", "zip": 3}, "lines": [{"sku": "a"}, {"sku": "b"}]});
    let with = |paths: &[&str], empty_is_absent| {
        rules(|rules| {
            rules.leaves.absent = paths.iter().map(|path| (*path).to_owned()).collect();
            rules.leaves.empty_is_absent = empty_is_absent;
        })
    };
    let (all, empty) = (with(&["*"], false), with(&["*"], true));
    let set = |pointer: &str, value: Expected| {
        let mut found = expected.clone();
        *found.pointer_mut(pointer).unwrap() = value;
        found
    };
    let without = |key: &str| {
        let mut found = expected.clone();
        found.as_object_mut().unwrap().remove(key);
        found
    };
    const NULL: f64 = ABSTAINING;
    // Of six leaves.
    for (found, rules, earned) in [
        (expected.clone(), &all, 6.0),
        (set("/vendor", json!(null)), &all, 5.0 + NULL),
        (set("/vendor", json!(null)), &Rules::default(), 5.0),
        (
            set("/vendor", json!(null)),
            &with(&["vendor"], false),
            5.0 + NULL,
        ),
        (
            set("/vendor", json!(null)),
            &with(&["note", "to.city"], false),
            5.0,
        ),
        (set("/vendor", json!("Bolt")), &all, 5.0),
        (set("/vendor", json!("")), &all, 5.0),
        (set("/vendor", json!("")), &empty, 5.0 + NULL),
        (without("vendor"), &all, 5.0),
        (without("vendor"), &empty, 5.0 + NULL),
        (set("/to", json!(null)), &all, 4.0 + 2.0 * NULL),
        (
            set("/to/zip", json!(null)),
            &with(&["to"], false),
            5.0 + NULL,
        ),
        (
            set("/lines/0/sku", json!(null)),
            &with(&["lines.*.sku"], false),
            5.0 + NULL,
        ),
        // A list does not earn by what it leaves out.
        (set("/lines", json!(null)), &all, 4.0),
        (set("/lines", json!([])), &empty, 4.0),
        (set("/lines", json!([{"sku": "b"}])), &empty, 5.0),
        (set("/note", json!("made up")), &all, 5.0),
    ] {
        let leaves = credit(&found, &expected, rules);
        assert!(
            (leaves.credit - earned / 6.0).abs() < 1e-9,
            "{found}: {leaves:?}"
        );
    }
    let made_up = credit(&set("/note", json!("x")), &expected, &all);
    let note = made_up.counts.get("note").copied().unwrap_or_default();
    assert_eq!((note.filled, note.blank), (1, 1));
    let right = credit(&expected, &expected, &all);
    let note = right.counts.get("note").copied().unwrap_or_default();
    assert_eq!((note.filled, note.blank, note.absent), (0, 1, 1));
    assert_eq!(compare_leaves(None, &expected, &all).credit, 0.0);
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
    let found = json!({"rows": (0..1000).map(|index| row(index + 1_000_000)).collect::<Vec<_>>()});
    let leaves = credit(&found, &expected, &Rules::default());
    assert_eq!(counts(&leaves, "rows.*.id"), [0, 1000, 0, 0, 0]);
}
