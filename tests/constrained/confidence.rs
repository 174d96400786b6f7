//! Confidence of values: against all ways to write them, and where the grammar is left.

use std::collections::BTreeMap;

use grpo_tui::confidence::{Among, AnswerConfidence, LeafSpan, leaf_spans};
use grpo_tui::leaf_confidence::{GivenAnswer, answer_confidence};
use grpo_tui::model::without_breaks;
use grpo_tui::update::{ReadingModel, pack, read_logits};

use super::*;

const PROMPT: [u32; 4] = [11, 40, 7, 23];

struct Case {
    model: Decoder,
    tokenizer: Tokenizer,
    vocabulary: Arc<Vocabulary>,
    bytes: Vec<Vec<u8>>,
    constraint: Arc<Constraint>,
}

impl Case {
    fn new(schema: &Value) -> Self {
        let tokenizer = tokenizer();
        let vocabulary = Vocabulary::new(&tokenizer).unwrap();
        let answer = Answer::schema("schema", schema);
        let constraint = Constraint::compile(&vocabulary, &answer, Reasoning::Off).unwrap();
        Self {
            // More rows than tokens, as models have them.
            model: model(tokenizer.vocab_size() + 20),
            bytes: tokenizer.token_bytes().unwrap(),
            vocabulary,
            tokenizer,
            constraint: Arc::new(constraint),
        }
    }

    fn sampled(&self, samples: usize) -> Vec<Vec<u32>> {
        let request = Request {
            constraint: Some(Arc::clone(&self.constraint)),
            ..Request::new(PROMPT.to_vec(), 0, 4, samples)
        };
        let sampling = Sampling::new(&self.tokenizer, 1.0, 120, 7);
        let found = sample(&self.model, &[request], &sampling, 1).0.remove(0);
        found.into_iter().map(|one| one.token_ids).collect()
    }

    fn confidence(&self, completion: &[u32], is_constrained: bool) -> AnswerConfidence {
        let answer = GivenAnswer {
            prompt: &PROMPT,
            completion,
            vocabulary: &self.vocabulary,
            constraint: is_constrained.then_some(&*self.constraint),
        };
        without_breaks(answer_confidence(self.reading(), &answer)).unwrap()
    }

    fn reading(&self) -> ReadingModel<'_> {
        ReadingModel {
            model: &self.model,
            adapters: Adapters::On,
            own: None,
        }
    }

    /// Log-probs over the whole vocabulary after some tokens, and what the grammar allows there.
    fn next(&self, tokens: &[u32]) -> (Vec<f64>, Vec<bool>) {
        let text = [tokens, &[0]].concat();
        let mut found = Vec::new();
        for packed in pack([(&PROMPT[..], vec![&text[..]])], usize::MAX) {
            let positions = [vec![tokens.len()]];
            let rows = without_breaks(read_logits(self.reading(), &packed, &positions)).unwrap();
            found = rows[0].to_vec();
        }
        let sum: f64 = found.iter().map(|logit| f64::from(*logit).exp()).sum();
        let log_probs = found.iter().map(|logit| f64::from(*logit) - sum.ln());
        let mut progress = self.constraint.begin();
        tokens.iter().for_each(|id| progress.push(*id).unwrap());
        let mut mask = vec![0; found.len().div_ceil(32)];
        progress.mask(&mut mask).unwrap();
        let allowed = (0..found.len()).map(|id| mask[id / 32] >> (id % 32) & 1 == 1);
        (log_probs.collect(), allowed.collect())
    }

    /// Adds the probability of each value over all its tokenizations. `written`: of the value, after
    /// `tokens`; `before`: bytes of the first token before it.
    fn enumerate(
        &self,
        (tokens, written, log_prob): (&[u32], &[u8], f64),
        before: &[u8],
        values: &[&str],
        found: &mut BTreeMap<String, f64>,
    ) {
        let (log_probs, allowed) = self.next(tokens);
        for (id, bytes) in self.bytes.iter().enumerate() {
            let own = bytes.strip_prefix(before).filter(|own| !own.is_empty());
            let (Some(own), true) = (own, allowed[id]) else {
                continue;
            };
            let (text, sum) = ([written, own].concat(), log_prob + log_probs[id]);
            for value in values.iter().map(|value| value.as_bytes()) {
                if text.starts_with(value) {
                    let name = String::from_utf8(value.to_vec()).unwrap();
                    *found.entry(name).or_insert(0.0) += sum.exp();
                }
            }
            if values
                .iter()
                .any(|value| value.len() > text.len() && value.as_bytes().starts_with(&text))
            {
                let tokens = [tokens, &[id as u32]].concat();
                self.enumerate((&tokens, &text, sum), b"", values, found);
            }
        }
    }

    /// The token that a leaf begins in, with its bytes before the leaf.
    fn first_token(&self, completion: &[u32], leaf: &LeafSpan) -> (usize, usize) {
        let mut start = 0;
        for (position, id) in completion.iter().enumerate() {
            let end = start + self.bytes[*id as usize].len();
            if end > leaf.bytes.start {
                return (position, leaf.bytes.start - start);
            }
            start = end;
        }
        unreachable!()
    }

    fn text(&self, completion: &[u32]) -> Vec<u8> {
        let (_, written) = completion.split_last().unwrap();
        written
            .iter()
            .flat_map(|id| self.bytes[*id as usize].clone())
            .collect()
    }
}

/// The sampled answers are constrained, so that each has a confidence for each value.
#[test]
fn a_value_of_few_has_its_probability_among_all_of_them() {
    let words = [r#""Acme""#, r#""Ac""#, r#""paid""#, "null"];
    let schema = json!({"type": "object", "properties": {
        "a": {"enum": ["Acme", "Ac", "paid", null]}, "b": {"type": "boolean"}},
        "required": ["a", "b"], "additionalProperties": false});
    let case = Case::new(&schema);
    let mut is_straddled = false;
    for completion in case.sampled(6) {
        let found = case.confidence(&completion, true);
        assert_eq!((found.leaves.len(), &found.unknown), (2, &None));
        let text = case.text(&completion);
        let spans = leaf_spans(&text, 0).leaves;
        for ((leaf, span), values) in found
            .leaves
            .iter()
            .zip(&spans)
            .zip([&words[..], &["true", "false"]])
        {
            let (first, before) = case.first_token(&completion, span);
            is_straddled |= before > 0;
            let prefix = case.bytes[completion[first] as usize][..before].to_vec();
            let mut all = BTreeMap::new();
            case.enumerate((&completion[..first], b"", 0.0), &prefix, values, &mut all);
            let own = std::str::from_utf8(&text[span.bytes.clone()]).unwrap();
            let expected = all[own] / all.values().sum::<f64>();
            let confidence = leaf.confidence.unwrap();
            assert_eq!(leaf.among, Among::Values, "{own}");
            assert!(
                (confidence - expected).abs() < 1e-3,
                "{own}: {confidence} {expected}"
            );
        }
    }
    assert!(is_straddled, "no token began before a value");
}

/// A number is the product of its digits and of what ends it; so are strings.
#[test]
fn other_values_are_the_product_of_their_tokens_among_those_that_are_allowed() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}},
        "required": ["n"], "additionalProperties": false});
    let case = Case::new(&schema);
    let mut compared = 0;
    for completion in case.sampled(8) {
        if !case
            .tokenizer
            .stop_ids()
            .contains(completion.last().unwrap())
        {
            continue;
        }
        let found = case.confidence(&completion, true);
        let text = case.text(&completion);
        let span = leaf_spans(&text, 0).leaves.remove(0);
        let (first, before) = case.first_token(&completion, &span);
        let mut expected = 1.0;
        let mut start = span.bytes.start - before;
        for position in first..completion.len() {
            let bytes = &case.bytes[completion[position] as usize];
            let (log_probs, allowed) = case.next(&completion[..position]);
            let prefix = if position == first {
                &bytes[..before]
            } else {
                b""
            };
            let is_candidate = |id: usize| {
                allowed[id]
                    && case
                        .bytes
                        .get(id)
                        .is_some_and(|own| own.starts_with(prefix))
                    && (position > first
                        || case.bytes[id]
                            .get(before)
                            .is_some_and(|byte| !byte.is_ascii_whitespace()))
            };
            let ends = start + bytes.len() > span.bytes.end;
            let kept = &bytes[..(span.bytes.end - start).min(bytes.len())];
            let counts = |id: usize| match ends {
                false => id == completion[position] as usize,
                true => {
                    let own = &case.bytes[id];
                    own.starts_with(kept)
                        && own
                            .get(kept.len())
                            .is_some_and(|byte| !byte.is_ascii_digit())
                }
            };
            let ids = || (0..log_probs.len()).filter(|id| is_candidate(*id));
            let all: f64 = ids().map(|id| log_probs[id].exp()).sum();
            expected *= ids()
                .filter(|id| counts(*id))
                .map(|id| log_probs[id].exp())
                .sum::<f64>()
                / all;
            start += bytes.len();
            if ends {
                break;
            }
        }
        let leaf = &found.leaves[0];
        assert_eq!(leaf.among, Among::Tokens);
        assert!(
            (leaf.confidence.unwrap() - expected).abs() < 1e-6,
            "{leaf:?} {expected}"
        );
        compared += 1;
    }
    assert!(compared > 2);
}

#[test]
fn an_answer_that_leaves_the_grammar_has_confidences_up_to_there() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "integer"}},
        "required": ["a", "b"], "additionalProperties": false});
    let case = Case::new(&schema);
    let check = |text: &str, known: &[(&str, bool)], unknown: Option<&str>, is_constrained| {
        let mut completion = case.tokenizer.encode(text).unwrap();
        completion.extend(case.tokenizer.turn_end_id());
        let found = case.confidence(&completion, is_constrained);
        let leaves = found.leaves.iter();
        let leaves: Vec<(&str, bool)> = leaves
            .map(|leaf| (leaf.path.as_str(), leaf.confidence.is_some()))
            .collect();
        assert_eq!(
            (leaves.as_slice(), found.unknown.as_deref()),
            (known, unknown),
            "{text}"
        );
        found
    };
    let left = Some("the answer leaves the schema's grammar");
    check(
        r#"{"a": true, "b": 3}"#,
        &[("/a", true), ("/b", true)],
        None,
        true,
    );
    check(
        r#"{"a": true, "b": "3"}"#,
        &[("/a", true), ("/b", false)],
        left,
        true,
    );
    check(
        r#"{"b": 3, "a": true}"#,
        &[("/b", false), ("/a", false)],
        left,
        true,
    );
    check("no JSON at all", &[], left, true);
    check("", &[], left, true);
    // Without a grammar, all that is JSON has one.
    let not_json = Some("the answer is not one JSON value");
    let found = check(r#"{"b": "3"}"#, &[("/b", true)], None, false);
    assert_eq!(found.leaves[0].among, Among::Vocabulary);
    check("no JSON at all", &[], not_json, false);
    check(r#"{"a": true"#, &[("/a", true)], not_json, false);
}
