//! Verdicts on sampled groups, and their estimates.

use super::*;

/// Groups by kind, 8 completions each; the tiers follow.
fn signal(mixed: usize, best: usize, worst: usize) -> Signal {
    let group = |rewards: Vec<f64>, signal, tiers: &[Tier]| GroupOutcome {
        prompt_id: String::new(),
        rewards,
        signal,
        tiers: tiers.to_vec(),
    };
    let two = [Tier::Invalid, Tier::Valid];
    let mut groups = vec![
        group(
            [vec![1.0; 4], vec![0.5; 4]].concat(),
            GroupSignal::Mixed,
            &two
        );
        mixed
    ];
    groups.extend(vec![
        group(vec![1.0; 8], GroupSignal::AllMax, &[Tier::Valid]);
        best
    ]);
    groups.extend(vec![
        group(
            vec![0.0; 8],
            GroupSignal::AllMin,
            &[Tier::Unparsable]
        );
        worst
    ]);
    let counts = [
        (FailureClass::Prose, 8 * worst),
        (FailureClass::MissingKey, 4 * mixed),
    ];
    let failures = counts.into_iter().filter(|(_, count)| *count > 0).collect();
    Signal {
        groups,
        tiers: [8 * worst, 4 * mixed, 4 * mixed + 8 * best],
        failures,
        ..Signal::default()
    }
}

const SETTINGS: SignalSettings = SignalSettings {
    completions_per_prompt: 8,
    prompt_groups_per_step: 8,
    max_completion_tokens: 96,
};

/// The text about groups without a valid completion before the run.
#[test]
fn guidance_is_said_beforehand() {
    let check = |signal: Signal, guidance: Guidance, verdict, text: &str| {
        let report = judge(&Signal { guidance, ..signal }, &SETTINGS);
        assert_eq!(
            (report.advice.verdict, report.guidance.as_str()),
            (verdict, text)
        );
        let is_said =
            report.advice.verdict != Verdict::CanLearn || report.advice.why.contains(text);
        assert!(is_said, "{}", report.advice.why);
    };
    let on = |without_expected, refusal: Option<&str>| Guidance {
        is_distilled: false,
        is_on: true,
        rows: 200,
        conversations: 0,
        has_state: false,
        without_expected,
        refusal: refusal.map(str::to_owned),
    };
    let none = || signal(0, 0, 32);
    check(
        none(),
        on(0, None),
        Verdict::CanLearn,
        "0 of 256 sampled answers are valid: guided groups will be used, with the rows' expected answers",
    );
    check(
        none(),
        on(200, None),
        Verdict::CanLearn,
        "0 of 256 sampled answers are valid: guided groups will be used, with answers sampled under the task's grammar",
    );
    check(
        none(),
        Guidance {
            has_state: true,
            ..on(150, None)
        },
        Verdict::CanLearn,
        "0 of 256 sampled answers are valid: guided groups will be used, with calls that search finds to lead to the row's final state, or calls sampled under the tools' grammar",
    );
    check(
        signal(8, 0, 24),
        on(3, None),
        Verdict::CanLearn,
        "24 of 32 sampled groups have no valid answer: guided groups will be used, with expected answers or, where a row has none, answers sampled under the task's grammar",
    );
    check(
        none(),
        on(3, Some("no `regex`")),
        Verdict::CannotLearn,
        "0 of 256 sampled answers are valid: rows without an answer to imitate are not guided: no `regex`",
    );
    check(
        none(),
        Guidance {
            is_distilled: true,
            ..Guidance::default()
        },
        Verdict::CanLearn,
        "0 of 256 sampled answers are valid: they are distilled from the teacher",
    );
    check(
        none(),
        Guidance::default(),
        Verdict::CannotLearn,
        "0 of 256 sampled answers are valid: guided = false: they have nothing to learn from",
    );
    check(
        none(),
        Guidance {
            conversations: 200,
            ..on(0, None)
        },
        Verdict::CannotLearn,
        "0 of 256 sampled answers are valid: rows of several turns are not guided",
    );
    check(signal(32, 0, 0), on(0, None), Verdict::CanLearn, "");
    check(signal(0, 32, 0), on(0, None), Verdict::NothingToLearn, "");
}

#[test]
fn verdicts() {
    use Verdict::{CanLearn, CannotLearn, NothingToLearn};
    let check = |signal: &Signal, settings: SignalSettings, verdict, parts: &[&str]| {
        let advice = judge(signal, &settings).advice;
        let text = format!("{} | {}", advice.why, advice.changes.join(" | "));
        assert_eq!(advice.verdict, verdict, "{text}");
        for part in parts {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
    };
    check(
        &signal(24, 4, 4),
        SETTINGS,
        CanLearn,
        &[
            "75% of the groups are mixed (58% to 87%, 32 prompts x 8)",
            "about 6.0 of 8 groups",
        ],
    );
    check(
        &signal(0, 32, 0),
        SETTINGS,
        NothingToLearn,
        &[
            "100% of the groups earn the full reward",
            "0% to 11%",
            "harder prompts",
            "good enough",
        ],
    );
    check(
        &signal(0, 0, 32),
        SETTINGS,
        CannotLearn,
        &[
            "equal rewards below the maximum",
            "most common failure: prose (100%",
            "there is nothing around the answer",
            "larger model",
        ],
    );
    check(
        &signal(2, 0, 30),
        SETTINGS,
        CannotLearn,
        &["6.2% of the groups are mixed"],
    );
    check(
        &signal(4, 0, 28),
        SETTINGS,
        CanLearn,
        &["12%", "too small to be sure"],
    );
    check(&signal(3, 0, 5), SETTINGS, CanLearn, &["only 8 prompts"]);
    check(
        &Signal::default(),
        SETTINGS,
        CannotLearn,
        &["only 0 prompts"],
    );
    let one = SignalSettings {
        prompt_groups_per_step: 1,
        ..SETTINGS
    };
    check(
        &signal(16, 8, 8),
        one,
        CanLearn,
        &["has 0.5 informative ones", "dynamic_sampling"],
    );
    check(&signal(4, 36, 0), SETTINGS, CanLearn, &["score fields too"]);
    let alone = SignalSettings {
        completions_per_prompt: 1,
        ..SETTINGS
    };
    check(
        &signal(0, 20, 20),
        alone,
        NothingToLearn,
        &["a group of one has zero variance"],
    );
    let cut = Signal {
        truncated: 100,
        ..signal(0, 0, 32)
    };
    check(
        &cut,
        SETTINGS,
        CannotLearn,
        &[
            "39% of the completions are truncated at max_completion_tokens = 96",
            "try 192",
        ],
    );
    let mut leaks = signal(0, 0, 32);
    leaks.failures = BTreeMap::from([(FailureClass::ThinkLeak, 256)]);
    check(
        &leaks,
        SETTINGS,
        CannotLearn,
        &[
            "unfinished reasoning",
            "thinking = false",
            "think leak (100%",
        ],
    );
    let mut invalid = signal(0, 0, 32);
    invalid.tiers = [0, 256, 0];
    check(&invalid, SETTINGS, CannotLearn, &["graded = true"]);
}

#[test]
fn truncated_completions_say_why_no_step_would_be_taken() {
    let mut cut = signal(0, 0, 32);
    cut.truncated = 256;
    cut.failures = BTreeMap::from([(FailureClass::ThinkLeak, 256)]);
    let report = judge(&cut, &SETTINGS);
    assert_eq!(
        report.truncation(256).unwrap(),
        "no sampled completion is valid, and 100% are truncated at max_completion_tokens = 256, most of them in thinking. The rewards of each group are equal: every advantage is 0, and no step would change the model. Set `thinking = false` in task.toml, or --set max_completion_tokens=1024"
    );
    cut.truncated = 100;
    assert_eq!(judge(&cut, &SETTINGS).truncation(256), None);
}

#[test]
fn mixed_groups_name_their_tiers() {
    let check = |mixes: &[&[Tier]], lacks_valid: bool, text: &str| {
        let mut signal = signal(mixes.len(), 0, 32);
        for (group, tiers) in signal.groups.iter_mut().zip(mixes) {
            group.tiers = tiers.to_vec();
        }
        let report = judge(&signal, &SETTINGS);
        assert_eq!(
            (report.lacks_valid(), report.mixes_text().as_str()),
            (lacks_valid, text)
        );
        assert!(
            mixes.is_empty() || report.advice.why.contains(text),
            "{}",
            report.advice.why
        );
    };
    let [unparsable, invalid, valid] = Tier::ALL;
    let low: &[Tier] = &[unparsable, invalid];
    check(&[], true, "");
    check(&[low; 8], true, "8 mix unparsable and invalid");
    check(
        &[
            low,
            low,
            low,
            &[invalid, valid],
            &[invalid, valid],
            &Tier::ALL,
            &[valid],
        ],
        false,
        "3 mix unparsable and invalid, 2 invalid and valid, 1 unparsable, invalid and valid, 1 with valid alone, of different rewards",
    );
}

#[test]
fn shares_are_of_completions() {
    let report = judge(&signal(16, 16, 32), &SETTINGS);
    assert_eq!(
        (
            report.tiers.unparsable,
            report.tiers.invalid,
            report.tiers.valid
        ),
        (0.5, 0.125, 0.375)
    );
    assert_eq!(
        (
            report.informative,
            report.all_max,
            report.all_min,
            report.all_equal
        ),
        (0.25, 0.25, 0.5, 0.0)
    );
    assert_eq!(
        report.failures,
        [("prose".to_owned(), 0.5), ("missing key".to_owned(), 0.125)]
    );
}
