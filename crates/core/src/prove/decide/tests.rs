//! Each cause from its facts, and none from those of a correct server.

use super::super::facts::BaseDistance;
use super::*;
use crate::run::SettingResult;

fn log_probs(mean: f64, server_to_base: f64, correlation: f64) -> LogProbFacts {
    LogProbFacts {
        channel: "x",
        tokens: 100,
        answers: 4,
        mean,
        max: 2.0 * mean,
        correlation,
        base: Ok(BaseDistance {
            of_server: server_to_base,
            of_run: 0.4,
        }),
        twice: None,
        other_step: None,
    }
}

/// A server on which nothing differs.
fn correct() -> Facts {
    let ids = IdFacts {
        channel: "/tokenize",
        compared: 40,
        ..IdFacts::default()
    };
    let answers = SettingFacts {
        result: SettingResult {
            prompts: 40,
            answered: 40,
            comparable: 40,
            same: 39,
            valid: Comparison {
                both: 38,
                neither: 2,
                mcnemar_p: 1.0,
                ..Comparison::default()
            },
            ..SettingResult::default()
        },
        ..SettingFacts::default()
    };
    Facts {
        ids: Ok(ids),
        ids_with_kwargs: None,
        kwargs: "{}".to_owned(),
        log_probs: Ok(log_probs(0.004, 0.4, 1.0)),
        has_adapter: true,
        max_nats: 0.02,
        chat: Ok(answers),
        format: Err("the task has no JSON Schema".to_owned()),
        schema: Ok(SchemaFact::Followed),
    }
}

fn faults(change: impl FnOnce(&mut Facts)) -> Vec<ServingFault> {
    let mut facts = correct();
    change(&mut facts);
    let (checks, findings) = decide(&facts);
    let differs = checks.iter().any(|check| check.outcome == Differs);
    assert!(differs || findings.is_empty(), "{checks:?}");
    findings.iter().map(|finding| finding.fault).collect()
}

fn other_answers(facts: &mut Facts, others: usize) {
    if let Ok(answers) = &mut facts.chat {
        answers.result.same = 40 - others;
    }
}

#[test]
fn each_cause_has_its_facts_and_a_correct_server_none() {
    use ServingFault::*;
    assert_eq!(faults(|_| {}), []);
    for fault in [Template, Tokenizer, Context] {
        let found = faults(|facts| {
            if let Ok(ids) = &mut facts.ids {
                (ids.differ, ids.fault) = (40, Some((fault, "x".to_owned())));
            }
            // The answers differ as well: one cause explains both.
            other_answers(facts, 30);
        });
        assert_eq!(found, [fault]);
    }
    let twice = LogProbFacts {
        twice: Some(0.01),
        ..log_probs(0.3, 0.8, 0.8)
    };
    let other_step = LogProbFacts {
        other_step: Some((20, 0.002)),
        ..log_probs(0.1, 0.4, 0.95)
    };
    for (changed, expected) in [
        (log_probs(0.4, 0.003, 0.7), Adapter),
        (twice, Adapter),
        (log_probs(0.3, 0.4, 0.95), Quantised),
        (log_probs(0.3, 0.4, 0.1), Quantised),
        (log_probs(1.2, 1.4, 0.1), OtherWeights),
        (other_step, OtherWeights),
    ] {
        let found = faults(|facts| {
            facts.log_probs = Ok(changed);
            other_answers(facts, 12);
        });
        assert_eq!(found, [expected]);
    }
    // A base that is hardly another model cannot be told from the run, and is not called equal.
    let close = LogProbFacts {
        base: Ok(BaseDistance {
            of_server: 0.004,
            of_run: 0.005,
        }),
        ..log_probs(0.004, 0.0, 1.0)
    };
    let mut facts = correct();
    facts.log_probs = Ok(close);
    let (checks, _) = decide(&facts);
    let weights = checks.iter().find(|check| check.name == "trained weights");
    assert_eq!(weights.map(|check| check.outcome), Some(NotCompared));
    assert_eq!(faults(|facts| other_answers(facts, 20)), [Sampling]);
    let without_ids = |facts: &mut Facts| {
        facts.ids = Err("none".to_owned());
        other_answers(facts, 20);
    };
    assert_eq!(faults(without_ids), [Template]);
    // Without log-probs nothing says why.
    let mut untold = correct();
    untold.log_probs = Err("none".to_owned());
    other_answers(&mut untold, 20);
    let (checks, findings) = decide(&untold);
    let differs = checks.iter().any(|check| check.outcome == Differs);
    assert!(differs && findings.is_empty(), "{findings:?}");
    assert_eq!(
        faults(|facts| facts.schema = Ok(SchemaFact::Ignored)),
        [SchemaIgnored]
    );
    let reordered = |is_worse: bool| {
        faults(|facts| {
            facts.schema = Ok(SchemaFact::Reordered);
            let mut answers = SettingFacts::default();
            (answers.result.prompts, answers.result.answered) = (16, 16);
            answers.result.valid.mcnemar_p = 1.0;
            answers.result.exact = is_worse.then(|| Comparison {
                broken: 16,
                mcnemar_p: 3e-5,
                ..Comparison::default()
            });
            facts.format = Ok(answers);
        })
    };
    assert_eq!(
        (reordered(false), reordered(true)),
        (vec![], vec![SchemaOrder])
    );
    // The scatter of log-probs is within the limit, and still explains where answers differ, or not.
    let within_limit = |noisy: usize| {
        faults(|facts| {
            facts.log_probs = Ok(log_probs(0.013, 0.4, 1.0));
            other_answers(facts, 20);
            if let Ok(answers) = &mut facts.chat {
                answers.noisy = noisy;
            }
        })
    };
    assert_eq!(
        (within_limit(15), within_limit(5)),
        (vec![Quantised], vec![Sampling])
    );
    let mut facts = correct();
    if let Ok(answers) = &mut facts.chat {
        answers.result = SettingResult {
            answered: 2,
            comparable: 2,
            same: 2,
            ..answers.result.clone()
        };
    }
    let (checks, _) = decide(&facts);
    let chat = checks.iter().find(|check| check.name == "answers, chat");
    assert_eq!(chat.map(|check| check.outcome), Some(NotCompared));
}
