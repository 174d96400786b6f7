//! Each cause from its facts, and none from those of a correct server.

use super::super::facts::{BaseDistance, BatchFacts, CallFacts, StreamFacts};
use super::*;
use crate::run::SettingResult;

fn log_probs(mean: f64, server_to_base: f64, correlation: f64) -> LogProbFacts {
    LogProbFacts {
        channel: "x",
        tokens: 100,
        answers: 4,
        mean,
        bias: 0.0,
        max: 2.0 * mean,
        correlation,
        base: Ok(BaseDistance {
            of_server: server_to_base,
            of_run: 0.4,
        }),
        median: 0.6 * mean,
        likelier: 0.5,
        twice: None,
        other_step: None,
        slope: None,
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
        settings: vec![(Setting::Chat, Ok(answers))],
        schema: Ok(SchemaFact::Followed),
        batch: Ok(BatchFacts {
            prompts: 16,
            at_once: 32,
            changed: 1,
            unlike: 1,
        }),
        stream: Ok(StreamFacts {
            prompts: 16,
            ..StreamFacts::default()
        }),
        calls: None,
        in_think: 0,
        thinking: ThinkFacts {
            compared: 40,
            more: 1,
            less: 0,
        },
        thinking_with_kwargs: None,
        has_thinking_switch: true,
        model_names: vec!["m".to_owned()],
    }
}

fn faults(change: impl FnOnce(&mut Facts)) -> Vec<ServingFault> {
    let mut facts = correct();
    change(&mut facts);
    let (checks, findings) = decide(&facts);
    let differs = checks.iter().any(|check| check.outcome == Differs);
    assert!(differs || findings.is_empty(), "{checks:?}");
    assert!(!differs || !findings.is_empty(), "{checks:?}");
    findings.iter().map(|finding| finding.fault).collect()
}

fn other_answers(facts: &mut Facts, longer: usize, shorter: usize, others: usize) {
    if let (_, Ok(answers)) = &mut facts.settings[0] {
        answers.result.same = 40 - longer - shorter - others;
        (answers.longer, answers.shorter) = (longer, shorter);
    }
}

#[test]
fn each_cause_has_its_facts_and_a_correct_server_none() {
    use ServingFault::*;
    assert_eq!(faults(|_| {}), []);
    let with_ids = |fault| {
        faults(|facts| {
            if let Ok(ids) = &mut facts.ids {
                (ids.differ, ids.fault) = (40, Some((fault, "x".to_owned())));
            }
            // The answers differ as well: one cause explains both.
            other_answers(facts, 0, 0, 30);
        })
    };
    for fault in [
        Template,
        Thinking,
        DoubledStart,
        MissingStart,
        Tokenizer,
        Context,
    ] {
        assert_eq!(with_ids(fault), [fault]);
    }
    let with_log_probs = |changed: LogProbFacts| {
        faults(|facts| {
            facts.log_probs = Ok(changed);
            other_answers(facts, 0, 0, 12);
        })
    };
    let twice = LogProbFacts {
        twice: Some(0.01),
        ..log_probs(0.3, 0.8, 0.8)
    };
    let scaled = LogProbFacts {
        slope: Some((0.5, 0.02)),
        ..log_probs(0.2, 0.2, 0.9)
    };
    assert_eq!(with_log_probs(log_probs(0.4, 0.003, 0.7)), [AdapterOff]);
    assert_eq!(with_log_probs(twice), [AdapterTwice]);
    assert_eq!(with_log_probs(scaled), [AdapterScale]);
    assert_eq!(with_log_probs(log_probs(0.3, 0.4, 0.95)), [Quantised]);
    assert_eq!(with_log_probs(log_probs(0.3, 0.4, 0.1)), [Quantised]);
    assert_eq!(with_log_probs(log_probs(1.2, 1.4, 0.1)), [OtherModel]);
    let other_step = LogProbFacts {
        other_step: Some((20, 0.002)),
        ..log_probs(0.1, 0.4, 0.95)
    };
    assert_eq!(with_log_probs(other_step), [OtherStep]);
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
    assert_eq!(faults(|facts| other_answers(facts, 20, 0, 4)), [StopToken]);
    assert_eq!(faults(|facts| other_answers(facts, 0, 20, 4)), [StopToken]);
    assert_eq!(faults(|facts| other_answers(facts, 0, 0, 20)), [Decoding]);
    let untold = |facts: &mut Facts| {
        facts.log_probs = Err("none".to_owned());
        other_answers(facts, 0, 0, 20);
    };
    assert_eq!(faults(untold), [Unexplained]);
    let batch = |facts: &mut Facts| {
        facts.batch = Ok(BatchFacts {
            prompts: 16,
            changed: 9,
            unlike: 0,
            at_once: 32,
        });
        other_answers(facts, 0, 0, 20);
    };
    assert_eq!(faults(batch), [Batch]);
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
            facts.settings.push((Setting::Schema, Ok(answers)));
        })
    };
    assert_eq!(
        (reordered(false), reordered(true)),
        (vec![], vec![SchemaOrder])
    );
    let stream = |differ, broken| {
        faults(|facts| {
            facts.stream = Ok(StreamFacts {
                prompts: 16,
                differ,
                broken,
            });
        })
    };
    assert_eq!(
        (stream(1, 0), stream(16, 0), stream(0, 1)),
        (vec![], vec![Stream], vec![Stream])
    );
    let calls = |missing, wrong, in_think| {
        faults(|facts| {
            let compared = 20;
            facts.calls = Some(Ok(CallFacts {
                compared,
                missing,
                wrong,
                untold: 0,
            }));
            facts.in_think = in_think;
        })
    };
    assert_eq!(
        (calls(0, 0, 0), calls(20, 0, 0), calls(0, 3, 0)),
        (vec![], vec![CallParser], vec![CallParser])
    );
    assert_eq!(calls(20, 0, 20), [CallInThink]);
    let thinks = |with| {
        faults(|facts| {
            facts.thinking.more = 20;
            facts.thinking_with_kwargs = with;
        })
    };
    let none = ThinkFacts {
        compared: 16,
        ..ThinkFacts::default()
    };
    assert_eq!(
        (thinks(None), thinks(Some(none))),
        (vec![Thinking], vec![Thinking])
    );
    // Nothing says that it was the parser.
    let untold = |facts: &mut Facts| {
        facts.calls = Some(Ok(CallFacts {
            compared: 20,
            wrong: 3,
            untold: 3,
            ..CallFacts::default()
        }));
    };
    assert_eq!(faults(untold), [Unexplained]);
    // The scatter of log-probs is within the limit, and still explains where answers differ, or not.
    let within_limit = |noisy: usize| {
        faults(|facts| {
            facts.log_probs = Ok(log_probs(0.013, 0.4, 1.0));
            other_answers(facts, 0, 0, 20);
            if let (_, Ok(answers)) = &mut facts.settings[0] {
                answers.noisy = noisy;
            }
        })
    };
    assert_eq!(
        (within_limit(15), within_limit(5)),
        (vec![Quantised], vec![Decoding])
    );
    // Decoding would change answers to token ids as well.
    let chat_alone = |facts: &mut Facts| {
        other_answers(facts, 0, 0, 20);
        let mut raw = SettingFacts::default();
        (raw.result.comparable, raw.result.same) = (40, 40);
        facts.settings.push((Setting::Raw, Ok(raw)));
    };
    assert_eq!(faults(chat_alone), [Template]);
    let mut facts = correct();
    if let (_, Ok(answers)) = &mut facts.settings[0] {
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

#[test]
fn what_a_models_name_says_of_its_weights_is_evidence() {
    for (name, expected) in [
        ("SmolLM2-135M-Instruct.Q4_K_M.gguf", Some("Q4_K_M")),
        ("hf.co/org/model:iq3_xs", Some("iq3_xs")),
        ("org/Qwen3-8B-AWQ", Some("AWQ")),
        ("Qwen3-8B-FP8", Some("FP8")),
        ("Qwen3-8B", None),
        ("quick-q-8", None),
    ] {
        assert_eq!(rounding(name), expected, "{name}");
    }
    let sentence = |name: &str| {
        let mut facts = correct();
        facts.log_probs = Ok(log_probs(0.3, 0.4, 0.95));
        facts.model_names = vec![name.to_owned()];
        decide(&facts).1.remove(0).sentence
    };
    assert!(sentence("m-awq").starts_with("the server calls the model awq: "));
    assert!(sentence("m").starts_with("likely rounded weights, by nothing but this: "));
}
