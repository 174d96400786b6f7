//! The tokens of another server's answer: no grammar is known of them, so a value's confidence is
//! the product over the tokens that it has a part in.

use super::{Among, AnswerConfidence, LeafConfidence, NOT_JSON, answer_start, leaf_spans};
use crate::api_client::WrittenToken;
use crate::text::THINK_MARKS;

/// Confidence of the values of the answer that the tokens write.
pub fn confidence_of_tokens(tokens: &[WrittenToken]) -> AnswerConfidence {
    let text: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token.bytes.clone())
        .collect();
    let spans = leaf_spans(&text, answer_start(&text, &THINK_MARKS));
    let mut starts = Vec::with_capacity(tokens.len());
    let mut end = 0;
    for token in tokens {
        starts.push(end..end + token.bytes.len());
        end += token.bytes.len();
    }
    let leaves = spans.leaves.into_iter().map(|span| {
        let is_part = |range: &std::ops::Range<usize>| {
            range.start < span.bytes.end && range.end > span.bytes.start
        };
        let parts = starts
            .iter()
            .zip(tokens)
            .filter(|(range, _)| is_part(range));
        let sum: f64 = parts.map(|(_, token)| token.log_prob).sum();
        LeafConfidence {
            path: span.path,
            confidence: Some(sum.exp().min(1.0)),
            among: Among::Vocabulary,
            ..LeafConfidence::default()
        }
    });
    AnswerConfidence {
        leaves: leaves.collect(),
        unknown: (!spans.is_whole).then(|| NOT_JSON.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_across_a_border_counts_for_all_that_it_has_a_part_in() {
        let tokens = [
            (r#"{"a""#, 0.5_f64),
            (r#": "x"#, 0.5),
            (r#"y", "b": tr"#, 0.5),
            ("ue", 0.25),
            ("}", 0.1),
        ];
        let tokens = tokens.map(|(text, probability)| WrittenToken {
            bytes: text.into(),
            log_prob: probability.ln(),
        });
        let check = |tokens: &[WrittenToken], expected: &[(&str, f64)], is_known: bool| {
            let found = confidence_of_tokens(tokens);
            assert_eq!(found.unknown.is_none(), is_known);
            assert_eq!(found.leaves.len(), expected.len());
            for (leaf, (path, confidence)) in found.leaves.iter().zip(expected) {
                assert_eq!(leaf.path, *path);
                let difference = leaf.confidence.map(|found| (found - confidence).abs());
                assert!(
                    difference.is_some_and(|difference| difference < 1e-12),
                    "{leaf:?}"
                );
            }
        };
        check(&tokens, &[("/a", 0.25), ("/b", 0.125)], true);
        check(&tokens[..3], &[("/a", 0.25)], false);
        check(&[], &[], false);
    }
}
