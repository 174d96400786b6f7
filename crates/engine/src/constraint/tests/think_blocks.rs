//! Think blocks before an answer.

use super::*;

#[test]
fn a_think_block_is_free_and_stands_once_before_the_answer() {
    let answer = Answer::schema(
        "schema",
        &json!({"type": "array", "items": {"type": "string"}}),
    );
    let check = |reasoning, cases: &[(&str, &str)]| {
        let (constraint, tokenizer) = compile(&answer, reasoning).unwrap();
        for (text, expected) in cases {
            assert_eq!(
                takes(&constraint, &tokenizer, text),
                *expected,
                "{reasoning:?} {text}"
            );
        }
    };
    check(
        Reasoning::Off,
        &[
            ("[\"a\"]", "+"),
            ("<think>", ""),
            ("[\"</think>", "[\"</think"),
            ("[\"<think>\"]", "+"),
            ("[\"</thin\", \"k>\"]", "+"),
        ],
    );
    check(
        Reasoning::Allowed,
        &[
            ("[\"a\"]", "+"),
            ("<think>so {\"a", "-"),
            ("<think>so</think>\n\n[\"a\"]", "+"),
            ("<think></think>[]", "+"),
            (
                "<think>so</think>[\"</think>",
                "<think>so</think>[\"</think",
            ),
            ("so", ""),
        ],
    );
    check(
        Reasoning::Open,
        &[
            ("so</think>[]", "+"),
            ("[]", "-"),
            ("<think></think>[]", "+"),
        ],
    );
    let text = Answer::Text {
        pattern: "a".to_owned(),
        label: String::new(),
    };
    let (constraint, tokenizer) = compile(&text, Reasoning::Allowed).unwrap();
    for (text, expected) in [
        ("<think>b</think>\na", "+"),
        ("a", "+"),
        ("<think>a", "-"),
        ("a</think>", "a</think"),
    ] {
        assert_eq!(takes(&constraint, &tokenizer, text), expected, "{text}");
    }
}

#[test]
fn think_blocks_have_the_marks_of_the_model() {
    const GEMMA: &str = "<|channel> <channel|>";
    const GPT_OSS: &str = "<|channel|>analysis";
    let json = Answer::schema(
        "schema",
        &json!({"type": "array", "items": {"type": "string"}}),
    );
    let pattern = Answer::Text {
        pattern: "a".to_owned(),
        label: String::new(),
    };
    for (template, answer, reasoning, text, expected) in [
        (GEMMA, &json, Reasoning::Off, "<|channel>", ""),
        (GEMMA, &json, Reasoning::Off, "[\"</think>\"]", "+"),
        (
            GEMMA,
            &json,
            Reasoning::Allowed,
            "<|channel>thought\nso [\n<channel|>[]",
            "+",
        ),
        (
            GEMMA,
            &json,
            Reasoning::Allowed,
            "<|channel>thought\n<channel|>[\"<channel|>",
            "<|channel>thought\n<channel|>[\"<channel|",
        ),
        (GEMMA, &json, Reasoning::Allowed, "<think>", "<"),
        (GEMMA, &json, Reasoning::Open, "\nso<channel|>\n[]", "+"),
        (
            GEMMA,
            &pattern,
            Reasoning::Allowed,
            "<|channel>thought b<channel|>a",
            "+",
        ),
        (
            GEMMA,
            &pattern,
            Reasoning::Allowed,
            "a<channel|>",
            "a<channel|",
        ),
        (GPT_OSS, &json, Reasoning::Off, "[]", ""),
        (
            GPT_OSS,
            &json,
            Reasoning::Off,
            "<|channel|>final<|message|>[]",
            "+",
        ),
        (
            GPT_OSS,
            &json,
            Reasoning::Allowed,
            "<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>final<|message|>[]",
            "+",
        ),
        (
            GPT_OSS,
            &json,
            Reasoning::Allowed,
            "<|channel|>final<|message|>[\"<|end|>\"]",
            "+",
        ),
        (
            GPT_OSS,
            &json,
            Reasoning::Allowed,
            "<|channel|>final<|message|>[\"<|channel|>final<|message|>",
            "<|channel|>final<|message|>[\"<|channel|>final<|message|",
        ),
    ] {
        let (constraint, tokenizer) =
            compile_for(with_template(template), answer, reasoning).unwrap();
        assert_eq!(
            takes(&constraint, &tokenizer, text),
            expected,
            "{template} {reasoning:?} {text}"
        );
    }
}

#[test]
fn the_token_that_closes_a_think_block_is_no_part_of_an_answer() {
    let answer = Answer::schema("schema", &json!({"type": "string"}));
    let (constraint, tokenizer) = compile(&answer, Reasoning::Allowed).unwrap();
    let close = tokenizer.token_id("</think>").unwrap();
    let allows = |text: &str| {
        let mut progress = constraint.begin();
        let mut words = vec![0; tokenizer.vocab_size().div_ceil(32)];
        tokenizer
            .encode(text)
            .unwrap()
            .into_iter()
            .for_each(|id| progress.push(id).unwrap());
        progress.mask(&mut words).unwrap();
        words[close as usize / 32] >> (close % 32) & 1 == 1
    };
    assert!(allows("<think>so") && !allows("\"so") && !allows("<think>so</think>\"so"));
}
