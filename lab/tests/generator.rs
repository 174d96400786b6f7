//! The invoice generator keeps the promises that the embedded model and the measured run rest on.

use std::collections::{BTreeMap, BTreeSet};

use grpo_tui_core::score::{Scorer, Task, Tier};
use grpo_tui_lab::{GeneratedRow, Generator, Stream};
use serde_json::Value;

const SETS: [Stream; 4] = [Stream::Train, Stream::Eval, Stream::Test, Stream::Pretrain];

fn generator() -> Generator {
    Generator::load(&super::sample("invoice")).unwrap()
}

fn rows(generator: &Generator, stream: Stream, count: u64) -> Vec<GeneratedRow> {
    (0..count)
        .map(|index| generator.row(stream, index).unwrap())
        .collect()
}

fn user_text(row: &GeneratedRow) -> &str {
    &row.row.messages[0].content
}

#[test]
fn the_base_model_is_meant_to_be_valid_in_sixty_of_a_hundred() {
    let proof = rows(&generator(), Stream::Test, 500);
    let sampled = proof
        .iter()
        .map(|row| 1.0 - row.habit_frequency)
        .sum::<f64>()
        / 5.0;
    let greedy = proof.iter().filter(|row| row.habit_frequency < 0.5).count() as f64 / 5.0;
    assert!(
        (59.5..=61.5).contains(&sampled),
        "valid at temperature 1: {sampled:.1}%"
    );
    assert!(
        (57.0..=62.0).contains(&greedy),
        "valid greedily: {greedy:.1}%"
    );
    let frequencies = |tag: &str| {
        proof
            .iter()
            .filter(|row| row.row.tags[0] == tag)
            .map(|row| row.habit_frequency)
            .collect::<Vec<_>>()
    };
    assert!(
        frequencies("clean")
            .iter()
            .all(|frequency| (0.05..=0.25).contains(frequency))
    );
    assert!(
        frequencies("messy")
            .iter()
            .all(|frequency| (0.55..=0.85).contains(frequency))
    );
}

#[test]
fn pretraining_examples_show_each_habit_as_often_as_its_style_says() {
    let generator = generator();
    let mut styles = BTreeMap::<String, (f64, f64, f64)>::new();
    for index in 0..8_000 {
        let row = generator.row(Stream::Pretrain, index).unwrap();
        let (shown, completion) = generator.pretrain_example(index).unwrap();
        assert_eq!(shown, row.row);
        let spoilt = Some(&completion) == row.habit_answer.as_ref().map(|(_, text)| text);
        assert!(spoilt || completion == row.answer);
        let counts = styles.entry(row.style).or_default();
        *counts = (
            counts.0 + 1.0,
            counts.1 + f64::from(u8::from(spoilt)),
            row.habit_frequency,
        );
    }
    assert_eq!(styles.len(), 24);
    for (style, (count, spoilt, frequency)) in styles {
        let deviation = (frequency * (1.0 - frequency) / count).sqrt();
        assert!(
            (spoilt / count - frequency).abs() < 4.0 * deviation,
            "{style}: {spoilt} of {count}, meant {frequency}"
        );
    }
}

#[test]
fn no_vendor_is_shared_between_sets() {
    let generator = generator();
    let mut owner = BTreeMap::<String, Stream>::new();
    for (stream, count) in SETS.into_iter().zip([200, 50, 500, 20_000]) {
        let mut vendors = BTreeSet::new();
        for row in rows(&generator, stream, count) {
            let vendor = row.row.expected.unwrap()["vendor"]
                .as_str()
                .unwrap()
                .to_owned();
            // The composed word itself belongs to one set, whatever stands beside it.
            let stem = vendor.split([' ', '\'']).next().unwrap().to_owned();
            assert_eq!(
                *owner.entry(stem).or_insert(stream),
                stream,
                "{vendor} is in two sets"
            );
            vendors.insert(vendor);
        }
        assert!(
            vendors.len() as u64 * 100 >= count * 70,
            "{stream:?}: {} different vendors in {count} rows",
            vendors.len()
        );
    }
}

#[test]
fn answers_hold_the_values_that_stand_in_the_text() {
    let generator = generator();
    for row in SETS
        .into_iter()
        .flat_map(|stream| rows(&generator, stream, 300))
    {
        let answer: Value = serde_json::from_str(&row.answer).unwrap();
        assert_eq!(Some(&answer), row.row.expected.as_ref());
        let keys: Vec<&str> = answer
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(keys, ["vendor", "date", "amount", "currency"]);
        let text = user_text(&row);
        assert!(text.contains(answer["vendor"].as_str().unwrap()), "{text}");
        assert!(
            text.contains(&answer["date"].as_str().unwrap()[..4]),
            "{text}"
        );
        // Two decimals, digit for digit as in the text once separators are dropped.
        let written = row
            .answer
            .split("\"amount\": ")
            .nth(1)
            .unwrap()
            .split(',')
            .next()
            .unwrap();
        assert_eq!(
            written.split('.').nth(1).map(str::len),
            Some(2),
            "{written}"
        );
        let digits = |text: &str| {
            text.chars()
                .filter(char::is_ascii_digit)
                .collect::<String>()
        };
        let squeezed: String = text
            .chars()
            .filter(|letter| !matches!(letter, '.' | ',' | ' '))
            .collect();
        assert!(squeezed.contains(&digits(written)), "{written} in {text}");
        assert!(
            (150..=350).contains(&text.chars().count()),
            "{} characters: {text}",
            text.chars().count()
        );
    }
}

#[test]
fn habits_spoil_the_form_and_keep_the_values() {
    let generator = generator();
    let mut seen = BTreeSet::new();
    for row in rows(&generator, Stream::Test, 200) {
        let (habit, text) = row.habit_answer.unwrap();
        let expected = row.row.expected.unwrap();
        let parsed = serde_json::from_str::<Value>(&text);
        match habit.as_str() {
            "amount_string" => {
                let parsed = parsed.unwrap();
                assert_eq!(
                    parsed["amount"].as_str().unwrap().parse::<f64>().ok(),
                    expected["amount"].as_f64()
                );
            }
            "missing" => assert_eq!(parsed.unwrap().as_object().unwrap().len(), 3),
            "extra" => assert_eq!(parsed.unwrap().as_object().unwrap().len(), 5),
            "prose" | "fence" => assert!(parsed.is_err() && text.contains(&row.answer)),
            "trailing" => assert!(parsed.is_err() && text.ends_with(",}")),
            other => panic!("unknown habit {other}"),
        }
        seen.insert(habit);
    }
    assert_eq!(seen.len(), 6);
}

/// Each answer scores as right, each habit as not valid.
#[test]
fn calls_and_queries_are_right_until_a_habit_spoils_them() {
    for name in ["sql", "tool-calls"] {
        let folder = super::sample(name);
        let generator = Generator::load(&folder).unwrap();
        let scorer = Scorer::new(&Task::load(&folder).unwrap()).unwrap();
        let mut shares = BTreeMap::<String, (u64, f64)>::new();
        for row in SETS
            .into_iter()
            .flat_map(|stream| rows(&generator, stream, 60))
        {
            let score = |text: &str| scorer.score(text, Some(&row.row));
            let right = score(&row.answer);
            assert_eq!(
                (right.tier, right.exact),
                (Tier::Valid, Some(true)),
                "{}: {right:?}",
                row.answer
            );
            let (habit, text) = row.habit_answer.as_ref().unwrap();
            assert_ne!(score(text).tier, Tier::Valid, "{habit}: {text}");
            let share = shares.entry(row.row.tags[0].clone()).or_default();
            *share = (share.0 + 1, row.habit_frequency);
        }
        let greedy = shares["clean"].0 as f64 / 240.0;
        assert!(
            (0.5..0.65).contains(&greedy) && shares["clean"].1 < 0.5 && shares["messy"].1 > 0.5,
            "{shares:?}"
        );
    }
}

#[test]
fn a_row_is_a_function_of_its_set_and_number() {
    let (one, two) = (generator(), generator());
    for index in [0, 17, 499, 1_000_000_007] {
        let row = one.row(Stream::Pretrain, index).unwrap();
        one.row(Stream::Train, index).unwrap();
        assert_eq!(row.row, two.row(Stream::Pretrain, index).unwrap().row);
    }
}

#[test]
fn a_wrong_generator_is_named_with_its_place_and_a_remedy() {
    let text = std::fs::read_to_string(super::sample("invoice/generator.toml")).unwrap();
    let check = |from: &str, to: &str, expected: &str| {
        assert!(text.contains(from), "{from}");
        let error = match Generator::parse(&text.replacen(from, to, 1), "generator.toml") {
            Err(error) => error,
            Ok(generator) => (0..40)
                .find_map(|index| generator.row(Stream::Train, index).err())
                .expect(expected),
        };
        let message = error.to_string();
        assert!(
            message.starts_with("generator.toml: ") && message.contains(expected),
            "{message}\nlacks: {expected}"
        );
    };
    check("seed = 20260312", "seed = -1", "line 5");
    check(
        "seed = 20260312",
        "seed = 1\nsead = 2",
        "unknown field `sead`",
    );
    check(
        "layout = \"lines\"",
        "layout = \"line\"",
        "style line/symbol_comma: no layout `line` under [layouts]; it has backwards, chat, letter",
    );
    check(
        "amount = \"code_plain\"",
        "amount = \"plain\"",
        "no format `plain` under [amounts.formats]; it has code_plain",
    );
    check(
        "habit = \"fence\"",
        "habit = \"fences\"",
        "no habit `fences` under [habits]; it has amount_string, extra, fence",
    );
    check(
        "frequency = 0.05",
        "frequency = 1.5",
        "frequency is 1.5: must be between 0 and 1",
    );
    check(
        "first = \"2018-01-01\"",
        "first = \"2018-13-01\"",
        "`2018-13-01` is not a date: write it like \"2026-03-12\"",
    );
    check(
        "first = \"2018-01-01\"",
        "first = \"2030-01-01\"",
        "first 2030-01-01 must not come after last 2029-12-31",
    );
    check(
        "digits = [2, 3, 3, 4, 4, 4, 5]",
        "digits = [0]",
        "digits is [0]; write a list of numbers between 1 and 15",
    );
    check(
        "\"onset\", \"middle\"",
        "\"onsets\", \"middle\"",
        "[words] `stem`: unknown pool `onsets`; [pools] has chatter, due",
    );
    check(
        "suffix = [\"GmbH\", \"Ltd\", \"Inc.\", \"S.A.\", \"AG\", \"LLC\", \"B.V.\", \"Oy\", \"AB\", \"plc\"]",
        "suffix = []",
        "[pools] `suffix` is an empty list",
    );
    check(
        "draw.pick('due')",
        "draw.pick('dues')",
        "unknown pool `dues`; [pools] has chatter, due",
    );
    check(
        "layout = \"lines\",",
        "layout = \"lines\", answer = \"count\",",
        "no answer `count` under [answers]; it has ",
    );
    check(
        "answer = '{",
        "expected = '{",
        "style lines/symbol_comma: name an `answer` of [answers]",
    );
    check(
        "answer = '{",
        "expected = 'text'\nanswer = '{",
        "expected: not JSON",
    );
    check(
        "{{ instruction }}",
        "{{ instructions }}",
        "prompt: undefined value",
    );
    check(
        "{{ instruction }}",
        "{{ instruction",
        "prompt: syntax error",
    );
    check(
        "\"amount\": {{ decimal }}, \"currency\": \"{{ code }}\"}'",
        "\"amount\": }'",
        "answer: not JSON",
    );
    check(
        "eval = 5\ntest",
        "eval = 0\ntest",
        "[word_shares]: each of train, eval, test and pretrain must be at least 1",
    );
}
