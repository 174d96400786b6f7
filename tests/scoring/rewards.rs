//! Tiers, parts, expected answers and graded credit: the number that training uses.

use grpo_tui::score::{FailureClass, Scorer, Task, Tier};
use proptest::prelude::*;

use super::{row, scorer_with};

const SCHEMA: &str = r#"{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"number","minimum":0},"c":{"enum":["x","y"]}},"required":["a","b"],"additionalProperties":false}"#;

#[test]
fn tiers_are_worth_what_the_task_says() {
    for (tiers, rewards) in [
        ("", [0.0, 0.5, 1.0]),
        (
            "tiers = { unparsable = 0, invalid = 0, valid = 1 }",
            [0.0, 0.0, 1.0],
        ),
        ("tiers = { unparsable = -1.0, valid = 2 }", [-1.0, 0.5, 2.0]),
    ] {
        let scorer = scorer_with(SCHEMA, &format!("[score]\n{tiers}\n"));
        let found = ["no", "{}", r#"{"a":"","b":0}"#]
            .map(|completion| scorer.score(completion, None).reward);
        assert_eq!(found, rewards, "{tiers}");
    }
}

#[test]
fn expected_answers_are_compared_field_by_field() {
    let scorer = scorer_with(
        SCHEMA,
        "[score.normalise]\na = [\"casefold\", \"whitespace\"]\n",
    );
    let row = row(r#"{"a":"Acme  Co","b":12.5}"#);
    for (completion, fields, exact, failure) in [
        (
            r#"{"b":12.50,"a":"ACME co"}"#,
            Some([true, true]),
            true,
            None,
        ),
        (
            r#"{"a":"Acme Co","b":12.4}"#,
            Some([true, false]),
            false,
            Some(FailureClass::WrongValue),
        ),
        (
            r#"{"a":"Acme Co","b":12.5,"c":"x"}"#,
            Some([true, true]),
            false,
            Some(FailureClass::WrongValue),
        ),
        (
            r#"{"a":"Acme Co","b":"12.5"}"#,
            Some([true, false]),
            false,
            Some(FailureClass::WrongType),
        ),
        (
            r#"{"a":"Acme Co"}"#,
            Some([true, false]),
            false,
            Some(FailureClass::MissingKey),
        ),
        (
            r#"[]"#,
            Some([false, false]),
            false,
            Some(FailureClass::WrongType),
        ),
        ("no", None, false, Some(FailureClass::Prose)),
    ] {
        let score = scorer.score(completion, Some(&row));
        let found = score
            .fields
            .as_ref()
            .map(|fields| [*fields.get("a").unwrap(), *fields.get("b").unwrap()]);
        assert_eq!(
            (found, score.exact, score.failure),
            (fields, Some(exact), failure),
            "{completion}"
        );
    }
    let score = scorer.score(r#"{"a":"","b":0}"#, None);
    assert_eq!((score.fields, score.exact), (None, None));
}

#[test]
fn weighted_parts_come_on_top() {
    let lines = "[[reward]]\npart = \"fields\"\nweight = 0.5\n[[reward]]\npart = \"exact\"\nweight = 1\n[[reward]]\npart = \"tolerant\"\nweight = 0.25\n";
    let scorer = scorer_with(SCHEMA, lines);
    let row = row(r#"{"a":"v","b":1}"#);
    for (completion, reward) in [
        (r#"{"a":"v","b":1}"#, 2.75),
        (r#"{"a":"v","b":2}"#, 1.5),
        (r#"{"a":"v"}"#, 0.75),
        (r#"Ok: {"a":"v","b":1}"#, 0.25),
        ("no", 0.0),
    ] {
        let score = scorer.score(completion, Some(&row));
        assert!(
            (score.reward - reward).abs() < 1e-12,
            "{completion}: {} {:?}",
            score.reward,
            score.parts
        );
    }
    let parts =
        |row| serde_json::to_string(&scorer.score(r#"{"a":"v","b":2}"#, row).parts).unwrap();
    assert_eq!(
        parts(Some(&row)),
        r#"{"tier":1.0,"fields":0.5,"exact":0.0,"tolerant":1.0}"#
    );
    assert_eq!(
        parts(None),
        r#"{"tier":1.0,"tolerant":1.0}"#,
        "without an expected answer nothing is compared"
    );
}

#[test]
fn a_part_has_a_scorer_of_its_own() {
    let lines = "[[reward]]\nname = \"short\"\nkind = \"regex\"\npattern = '^.{0,20}$'\nweight = 1\n[[reward]]\nname = \"same\"\nkind = \"text\"\nexpected = \"wanted\"\nweight = 0.5\n";
    let scorer = scorer_with(SCHEMA, lines);
    let own = |name: &str| FailureClass::from_key(name);
    let mut row = row(r#"{"a":"v","b":1}"#);
    row.fields.insert("wanted", r#"{"a":"v","b":1}"#.into());
    for (completion, reward, failure) in [
        (r#"{"a":"v","b":1}"#, 2.5, None),
        (r#"{"a":"v","b":1 }"#, 2.25, own("same-wrong_value")),
        (r#"{"a":"v",     "b":1 }"#, 1.75, own("short-no_match")),
        (r#"{"a":"v"}"#, 1.75, Some(FailureClass::MissingKey)),
        ("", 0.0, Some(FailureClass::Other)),
    ] {
        let score = scorer.score(completion, Some(&row));
        assert!(
            (score.reward - reward).abs() < 1e-12,
            "{completion}: {} {:?}",
            score.reward,
            score.parts
        );
        assert_eq!(score.failure, failure, "{completion}");
        assert_eq!(
            (score.is_max(), score.is_min()),
            (reward == 2.5, reward == 0.0),
            "{completion}"
        );
        assert_eq!(scorer.score_all(&[(completion, Some(&row))])[0], score);
    }
    let score = scorer.score(r#"{"a":"v",     "b":1 }"#, None);
    assert_eq!(
        serde_json::to_string(&score.parts).unwrap(),
        r#"{"tier":1.0,"short":0.5,"same":1.0}"#
    );
    assert_eq!(
        score.errors[0].message,
        "short: no match for the pattern ^.{0,20}$"
    );
}

/// A member of a generated object: absent, wrong or right.
fn repaired(state: &[u8; 3]) -> String {
    let member = |index: usize, wrong: &str, right: &str| match state[index] {
        0 => None,
        1 => Some(wrong.to_owned()),
        _ => Some(right.to_owned()),
    };
    let members = [
        member(0, "\"a\":1", "\"a\":\"v\""),
        member(1, "\"b\":-1", "\"b\":1"),
        member(2, "\"c\":\"z\"", "\"c\":\"x\""),
    ];
    format!(
        "{{{}}}",
        members.into_iter().flatten().collect::<Vec<_>>().join(",")
    )
}

proptest! {
    /// Repairing one fault never lowers the reward, and the tiers never meet.
    #[test]
    fn graded_credit_is_monotone(state in prop::array::uniform3(0u8..3), index in 0usize..3) {
        let scorer = scorer_with(SCHEMA, "[score]\ngraded = true\n");
        let mut better = state;
        // `c` is optional: a wrong one is repaired by leaving it out or by a right one.
        better[index] = 2;
        let (before, after) = (scorer.score(&repaired(&state), None), scorer.score(&repaired(&better), None));
        prop_assert!(before.reward <= after.reward, "{} earns {}, {} earns {}", repaired(&state), before.reward, repaired(&better), after.reward);
        for score in [before, after] {
            match score.tier {
                Tier::Valid => prop_assert_eq!(score.reward, 1.0),
                _ => prop_assert!((0.5..1.0).contains(&score.reward), "{}", score.reward),
            }
        }
    }

    #[test]
    fn a_tier_is_worth_its_value_and_white_space_nothing(low in -2.0f64..2.0, rise in 0.0f64..1.0, last in 0.001f64..1.0, which in 0usize..3,
        space in "[ \t\r\n]{0,4}", graded in any::<bool>()) {
        let (invalid, valid) = (low + rise, low + rise + last);
        let lines = format!("[score]\ngraded = {graded}\ntiers = {{ unparsable = {low:?}, invalid = {invalid:?}, valid = {valid:?} }}\n");
        let scorer = super::scorer_with(r#"{"type":"object","required":["a"]}"#, &lines);
        let text = ["{", "{}", r#"{"a":1}"#][which];
        let score = scorer.score(&format!("{space}{text}{space}"), None);
        let share = if graded && which == 1 { (invalid, valid) } else { ([low, invalid, valid][which], [low, invalid, valid][which]) };
        prop_assert!(score.reward >= share.0 && score.reward <= share.1 && (which != 1 || score.reward < valid), "{} in {:?}", score.reward, share);
        prop_assert_eq!(score.reward, scorer.score(text, None).reward);
        prop_assert_eq!(score.tier.name(), ["unparsable", "invalid", "valid"][which]);
    }

    /// Whatever a model writes, scoring answers, and in the range of the tiers.
    #[test]
    fn any_text_has_a_score(text in r#"(\PC|[\[\]{}",:0-9 \n`<>/-]|think|true|null|\\u[0-9a-f]{4}){0,60}"#) {
        let scorer = scorer_with(SCHEMA, "[score]\ngraded = true\n");
        let score = scorer.score(&text, None);
        prop_assert!((0.0..=1.0).contains(&score.reward));
        prop_assert_eq!(score.errors.is_empty(), score.tier == Tier::Valid);
        for reason in &score.errors {
            let line = text.split('\n').nth(reason.line - 1).unwrap();
            prop_assert!(reason.column <= line.chars().count() + 1, "{reason:?}");
        }
    }
}

#[test]
fn a_batch_is_scored_in_order() {
    let scorer = Scorer::new(&Task::embedded("invoice").unwrap()).unwrap();
    let texts: Vec<String> = (0..10_000)
        .map(|index| {
            if index % 3 == 0 {
                "{}".to_owned()
            } else {
                format!("no {index}")
            }
        })
        .collect();
    let scores = scorer.score_all(
        &texts
            .iter()
            .map(|text| (text.as_str(), None))
            .collect::<Vec<_>>(),
    );
    assert!(
        scores
            .iter()
            .enumerate()
            .all(|(index, score)| (score.tier == Tier::Invalid) == (index % 3 == 0))
    );
    assert_eq!(scores.len(), texts.len());
}

#[test]
fn the_shape_that_scripts_read() {
    let scorer = Scorer::new(&Task::embedded("invoice").unwrap()).unwrap();
    let row = row(r#"{"vendor":"a","date":"b","amount":1,"currency":"c"}"#);
    let score = scorer.score(
        r#"{"vendor":"a","date":"b","amount":"1","currency":"c"}"#,
        Some(&row),
    );
    let text = serde_json::to_string(&score).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"reward":1.25,"tier":"invalid","tolerant":false,"warnings":[],"errors":[{"message":"expected number, found string \"1\"","instance_path":"/amount","schema_path":"/properties/amount/type","line":1,"column":35}],"#,
            r#""fields":{"vendor":true,"date":true,"amount":false,"currency":true},"exact":false,"failure":"wrong_type","parts":{"tier":0.5,"fields":0.75},"#,
            r#""leaves":{"credit":0.75,"counts":{"vendor":{"right":1},"date":{"right":1},"amount":{"wrong":1},"currency":{"right":1}}}}"#
        )
    );
    assert_eq!(
        serde_json::from_str::<grpo_tui::score::Score>(&text).unwrap(),
        score
    );
}
