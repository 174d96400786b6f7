//! Tests of intervals, tests and sizes against scipy and statsmodels (`scripts/golden/intervals.py`
//! prints these tables).
#![allow(
    clippy::unwrap_used,
    clippy::excessive_precision,
    clippy::unreadable_literal,
    clippy::type_complexity
)]

use super::beta::binomial_cdf;
use super::compare::mcnemar_power;
use super::*;

fn near(found: f64, expected: f64, what: &dyn std::fmt::Debug) {
    assert!(
        (found - expected).abs() <= 1e-9 * expected.abs().max(1e-3),
        "{what:?}: {found:e}, expected {expected:e}"
    );
}

fn check(found: PairedTest, expected: [f64; 4], what: &dyn std::fmt::Debug) {
    let PairedTest {
        difference: Interval {
            estimate,
            low,
            high,
        },
        p,
    } = found;
    for (found, expected) in [estimate, low, high].into_iter().zip(expected) {
        near(found, expected, what);
    }
    assert!(
        (p / expected[3] - 1.0).abs() < 1e-9,
        "{what:?}: p {p:e}, expected {:e}",
        expected[3]
    );
}

#[rustfmt::skip]
const COUNTS: &[((usize, usize, usize), [f64; 4])] = &[
    // fixed, broken, pairs; difference, low, high, p
    ((0, 0, 500), [0.0, -0.005521529180676008, 0.005521529180676008, 1.0]),
    ((5, 0, 500), [0.01, -0.0003328649838458056, 0.020253183708945407, 0.0625]),
    ((0, 5, 500), [-0.01, -0.020253183708945407, 0.0003328649838458056, 0.0625]),
    ((6, 0, 500), [0.012, 0.0009587400749949387, 0.02294564239512458, 0.03125]),
    ((3, 3, 500), [0.0, -0.011043058361352016, 0.011043058361352016, 1.0]),
    ((1, 0, 8), [0.125, -0.23376983956033184, 0.4337698395603319, 1.0]),
    ((40, 1, 100), [0.39, 0.28051487436444406, 0.4841910079884972, 3.8198777474462986e-11]),
    ((6, 2, 50), [0.08, -0.040420235571670654, 0.19426638941782448, 0.2890625]),
    ((203, 0, 500), [0.406, 0.3610973510326046, 0.4476675892064393, 1.5557538194652854e-61]),
    ((96, 1, 100), [0.95, 0.86904964317919, 0.9936954548600255, 1.2369338993865465e-27]),
    ((64, 5, 100), [0.59, 0.4617505451530013, 0.6951121999450378, 4.119230997967627e-14]),
    ((1, 7, 21), [-0.2857142857142857, -0.5083593066664394, -0.013379823768343235, 0.0703125]),
    ((100, 0, 100), [1.0, 0.9421503401254475, 1.0, 1.5777218104420236e-30]),
    ((310, 240, 2000), [0.035, 0.01201472311690463, 0.05791534681316532, 0.0032232676763761965]),
];

#[rustfmt::skip]
const MEANS: &[(&[f64], f64, [f64; 4])] = &[
    // differences, least change; difference, low, high, p; the last of pass@4 of 8 samples
    (&[0.25, 0.5, -0.25, 0.0, 0.0, 0.0, 0.75, 0.25, 0.0, 0.5], 0.25, [0.2, -0.027735312751589747, 0.36106864608492306, 0.1754258186477043]),
    (&[1.0, 1.0, 0.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, 0.0], 1.0, [0.2, -0.22213729216984626, 0.5554706255031796, 0.625]),
    (&[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, -0.125, -0.125, 0.0, 0.0, 0.0, 0.0], 0.125, [0.22916666666666666, 0.028721041940425546, 0.36413610091671733, 0.057276110356706524]),
    (&[0.5, 0.0, 0.2142857142857143, 0.0, -0.1428571428571429, 0.0, 0.014285714285714235, 0.4285714285714286, 0.0, 0.7857142857142857], 1.0, [0.18, -0.12561484277988336, 0.4256148427798834, 0.2308698132972126]),
];

#[rustfmt::skip]
const BY_PROMPT: &[(&[(usize, usize)], [f64; 2])] = &[
    // found and all, a pair a prompt; low, high
    (&[(4, 4), (0, 4), (2, 4), (4, 4), (1, 4), (3, 4), (4, 4), (0, 4)], [0.24495430540644564, 0.8359414834045338]),
    (&[(3, 3), (2, 2), (1, 4), (0, 2), (5, 5), (1, 1)], [0.24495213235979602, 0.9466803118397429]),
    (&[(4, 4), (4, 4), (4, 4), (4, 4), (4, 4), (4, 4)], [0.47589244010075676, 1.0]),
    (&[(0, 16), (0, 16), (0, 16), (0, 16), (0, 16)], [0.0, 0.6065671008171237]),
    (&[(2, 4), (2, 4), (2, 4), (2, 4), (2, 4), (2, 4), (2, 4)], [0.29014008124760293, 0.7098599187523971]),
];

#[rustfmt::skip]
const WILSON: &[(usize, usize, [f64; 2])] = &[
    // successes, n; low, high
    (31, 50, [0.48150446930992963, 0.741372106898064]),
    (0, 10, [0.0, 0.27753279986288926]),
    (10, 10, [0.7224672001371106, 1.0]),
    (1, 10, [0.017876213095072924, 0.40415002679523854]),
    (497, 500, [0.9825097478959467, 0.9979574037280398]),
];

#[rustfmt::skip]
const POWER: &[(f64, f64, usize, f64)] = &[
    // fixed, broken, n; power
    (0.25, 0.05, 57, 0.7716796850120937),
    (0.12, 0.04, 50, 0.1722230981354116),
    (0.01, 0.0, 500, 0.38403786817854746),
    (0.02, 0.01, 800, 0.29536421063472684),
    (0.9, 0.1, 20, 0.9887468658449723),
];

const REQUIRED: &[(f64, f64, usize)] = &[
    // fixed, broken; required n
    (0.25, 0.05, 61),
    (0.12, 0.04, 210),
    (0.01, 0.0, 790),
    (0.02, 0.005, 926),
];

#[rustfmt::skip]
const PASS_AT: &[(usize, usize, usize, f64)] = &[
    // j, n, passed; pass@j
    (1, 1, 0, 0.0),
    (2, 4, 1, 0.5),
    (8, 8, 0, 0.0),
    (1, 8, 3, 0.375),
    (4, 8, 3, 0.9285714285714286),
    (2, 8, 8, 1.0),
    (10, 200, 7, 0.3055988116177335),
    (100, 200, 1, 0.5),
    (2, 200, 199, 1.0),
    (512, 1024, 3, 0.875366568914956),
];

#[rustfmt::skip]
const RATES_OF_PROMPTS: &[(&[f64], usize, [f64; 3])] = &[
    // values, samples; mean, low, high
    (&[1.0, 0.0, 0.5, 1.0, 0.25, 0.75, 1.0, 0.0, 1.0, 0.5], 4, [0.6, 0.3196846672807888, 0.8272342870658209]),
    (&[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.875], 8, [0.99375, 0.9620230361466646, 0.9989989954921662]),
    (&[0.0, 0.5, 0.7857142857142857, 0.9285714285714286, 1.0, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0], 8, [0.7261904761904763, 0.4514548964802927, 0.8952525209543764]),
];

#[rustfmt::skip]
const HOLM: &[(&[f64], &[f64])] = &[
    // p-values; adjusted by Holm's method
    (&[0.01, 0.04, 0.03], &[0.03, 0.06, 0.06]),
    (&[0.005, 0.011, 0.02, 0.04, 0.13], &[0.025, 0.044, 0.06, 0.08, 0.13]),
    (&[0.03, 0.03, 0.5], &[0.09, 0.09, 0.5]),
    (&[0.4, 0.9, 1.0], &[1.0, 1.0, 1.0]),
    (&[1e-12, 0.049, 0.024], &[3e-12, 0.049, 0.048]),
];

#[rustfmt::skip]
const BINOMIAL: &[(usize, usize, f64, f64)] = &[
    // k, n, p; P(X <= k)
    (0, 10, 0.3, 0.028247524900000005),
    (3, 10, 0.3, 0.6496107184000002),
    (41, 50, 0.9, 0.057867205718094256),
    (480, 1040, 0.5, 0.0071295395476929264),
    (2, 2000, 0.004, 0.013625379547990653),
];

#[rustfmt::skip]
const FISHER: &[([usize; 4], f64)] = &[
    // found, size, failures, all; p
    ([12, 48, 12, 100], 6.6324389057701e-05),
    ([9, 15, 40, 200], 0.0004480803324192017),
    ([50, 60, 300, 500], 3.562057205455982e-05),
    ([7, 9, 14, 30], 0.03228385807096451),
];

#[test]
fn several_samples_of_a_prompt() {
    for (j, n, passed, expected) in PASS_AT {
        near(
            pass_at(*j, *n, *passed).unwrap(),
            *expected,
            &(j, n, passed),
        );
    }
    assert_eq!((pass_at(5, 4, 1), pass_at(1, 4, 5)), (None, None));
    for (values, samples, expected) in RATES_OF_PROMPTS {
        let Interval {
            estimate,
            low,
            high,
        } = mean_by_prompt(values, *samples);
        for (found, expected) in [estimate, low, high].into_iter().zip(expected) {
            near(found, *expected, values);
        }
    }
    // The rate itself has the interval of `valid`; one outcome per prompt gives Wilson's.
    let Interval { low, high, .. } = mean_by_prompt(&[0.25, 0.5, 1.0], 4);
    let (expected_low, expected_high) = wilson_by_prompt(&[(1, 4), (2, 4), (4, 4)]);
    near(low, expected_low, &"low");
    near(high, expected_high, &"high");
    let (low, high) = wilson(19, 20);
    assert_eq!(
        mean_by_prompt(&[[1.0; 19].as_slice(), &[0.0]].concat(), 1),
        Interval {
            estimate: 0.95,
            low,
            high
        }
    );
    assert_eq!(
        mean_by_prompt(&[], 4),
        Interval {
            estimate: 0.0,
            low: 0.0,
            high: 1.0
        }
    );
}

#[test]
fn several_comparisons_and_exact_tails() {
    for (p_values, expected) in HOLM {
        for (found, expected) in holm(p_values).into_iter().zip(*expected) {
            near(found, *expected, p_values);
        }
    }
    for (k, n, p, expected) in BINOMIAL {
        near(binomial_cdf(*k, *n, *p), *expected, &(k, n, p));
    }
    for ([found, size, failures, all], expected) in FISHER {
        let p = over_represented(*found, *size, *failures, *all);
        assert!(
            (p / expected - 1.0).abs() < 1e-9,
            "{found} {size} {failures} {all}: {p:e}"
        );
    }
}

#[test]
fn paired_tests_and_their_intervals() {
    for ((fixed, broken, pairs), expected) in COUNTS {
        let counted = paired_counts(*fixed, *broken, *pairs, SIGNIFICANT);
        check(counted, *expected, &(fixed, broken, pairs));
        // As differences they are the same.
        let (up, down) = (vec![1.0; *fixed], vec![-1.0; *broken]);
        let all = [up, down, vec![0.0; pairs - fixed - broken]].concat();
        check(
            paired_means(&all, 1.0, SIGNIFICANT),
            *expected,
            &("means", fixed, broken, pairs),
        );
    }
    for (differences, least_change, expected) in MEANS {
        check(
            paired_means(differences, *least_change, SIGNIFICANT),
            *expected,
            differences,
        );
    }
    // Published: se.prop.ps(16, 64, 5, 15) of R's vcmeta gives the middle and the standard error;
    // and the example of Fagerland, Lydersen and Laake (2014, table V) to three digits.
    let Interval { low, high, .. } = paired_counts(64, 5, 100, SIGNIFICANT).difference;
    assert!(
        (0.5 * (low + high) - 0.578_431_4).abs() < 1e-7
            && ((high - low) / 2.0 / 1.959_964 - 0.059_532_13).abs() < 1e-7
    );
    let Interval { low, high, .. } = paired_counts(1, 7, 21, SIGNIFICANT).difference;
    assert_eq!(
        (format!("{low:.3}"), format!("{high:.3}")),
        ("-0.508".to_owned(), "-0.013".to_owned())
    );
}

#[test]
fn the_interval_agrees_with_the_test_but_near_5_percent() {
    for pairs in [60, 500] {
        for fixed in 0..=30 {
            for broken in 0..=30 {
                let PairedTest {
                    difference:
                        Interval {
                            estimate,
                            low,
                            high,
                        },
                    p,
                } = paired_counts(fixed, broken, pairs, SIGNIFICANT);
                let what =
                    format!("{fixed} {broken} of {pairs}: {estimate} [{low}, {high}], p {p}");
                let holds_0 = low <= 0.0 && 0.0 <= high;
                assert!(if holds_0 { p >= 0.05 } else { p < 0.08 }, "{what}");
                assert!(
                    -1.0 <= low && low <= estimate && estimate <= high && high <= 1.0 && low < high,
                    "{what}"
                );
            }
        }
    }
    // Samples are not prompts: five of 500 prompts changed, each in all four samples.
    let few = [vec![1.0; 5], vec![0.0; 495]].concat();
    let found = paired_means(&few, 0.25, SIGNIFICANT);
    assert!(
        found.p > 0.05 && found.difference.low < 0.0 && found.difference.high > 0.01,
        "{found:?}"
    );
    // Nothing is known without prompts, and little without a change.
    assert_eq!(
        paired_counts(0, 0, 0, SIGNIFICANT).difference,
        Interval {
            estimate: 0.0,
            low: -1.0,
            high: 1.0
        }
    );
    assert_eq!(
        paired_means(&[0.0; 500], 0.25, SIGNIFICANT),
        paired_counts(0, 0, 500, SIGNIFICANT)
    );
}

#[test]
fn rates_of_one_and_of_several_samples() {
    for (successes, n, [low, high]) in WILSON {
        let found = wilson(*successes, *n);
        near(found.0, *low, &(successes, n));
        near(found.1, *high, &(successes, n));
        let alone: Vec<_> = (0..*n)
            .map(|index| (usize::from(index < *successes), 1))
            .collect();
        assert_eq!(wilson_by_prompt(&alone), found, "one completion a prompt");
    }
    for (prompts, [low, high]) in BY_PROMPT {
        let found = wilson_by_prompt(prompts);
        near(found.0, *low, prompts);
        near(found.1, *high, prompts);
    }
    assert_eq!(
        (wilson_by_prompt(&[]), wilson_by_prompt(&[(3, 4)])),
        ((0.0, 1.0), (0.0, 1.0))
    );
}

#[test]
fn sizes_by_the_exact_test() {
    for (fixed, broken, n, power) in POWER {
        near(
            mcnemar_power(*n, *fixed, *broken, 0.05),
            *power,
            &(fixed, broken, n),
        );
    }
    for (fixed, broken, n) in REQUIRED {
        assert_eq!(
            required_n(*fixed, *broken, 0.8, 0.05),
            Some(*n),
            "{fixed} {broken}"
        );
        assert_eq!(
            required_n(*broken, *fixed, 0.8, 0.05),
            Some(*n),
            "{broken} {fixed}"
        );
    }
    for (fixed, broken) in [
        (0.1, 0.1),
        (0.9, 0.2),
        (0.0, 0.0),
        (-0.1, 0.2),
        (f64::NAN, 0.1),
    ] {
        assert_eq!(
            required_n(fixed, broken, 0.8, 0.05),
            None,
            "{fixed} {broken}"
        );
    }
    // All prompts change, so their number is not random; and so many that it is approximated.
    assert!(required_n(0.75, 0.25, 0.8, 0.05).is_some_and(|n| (30..40).contains(&n)));
    assert!(required_n(0.302, 0.3, 0.8, 0.05).is_some_and(|n| (1_150_000..1_200_000).contains(&n)));
    let differences = [vec![1.0; 25], vec![-1.0; 5], vec![0.0; 70]].concat();
    // At a third of the level, by the same script with 0.05 / 3 in `power`.
    assert_eq!(required_n(0.12, 0.04, 0.8, 0.05 / 3.0), Some(269));
    assert_eq!(
        required_n_of_means(&differences, 0.8, 0.05),
        Some(57),
        "Connor's formula by hand: 56.3"
    );
}
