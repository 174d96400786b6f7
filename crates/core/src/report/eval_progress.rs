//! The one-line text of an eval that is under way, in `train`, `eval`, `runs attach` and the live screen.

use crate::facts::Target;
use crate::format::{amount, duration, percent_interval};
use crate::run::EvalProgress;
use crate::statistics::wilson;

/// `base eval on test: 120 of 500`.
pub fn eval_count(progress: &EvalProgress) -> String {
    let EvalProgress {
        set,
        step,
        target,
        turn,
        answers,
        total,
        other_ranks,
        ..
    } = progress;
    let who = match step {
        Some(_) if target == Target::Base.name() => format!("base eval on {set}"),
        Some(step) => format!("eval of step {step} on {set}"),
        None => format!("{target} on {set}"),
    };
    let turn = if *turn > 1 {
        format!(", turn {turn}")
    } else {
        String::new()
    };
    let of = if *other_ranks > 0 { " (rank 0)" } else { "" };
    // A rank whose part has none of its prompts sees nothing of it.
    if *total == 0 {
        format!("{who}{turn}")
    } else {
        format!("{who}{turn}: {answers} of {total}{of}")
    }
}

/// `2.9/s, 2m 11s left`; empty before the first answers.
pub fn eval_pace(progress: &EvalProgress) -> String {
    let Some((rate, left)) = progress.rate().zip(progress.seconds_left()) else {
        return String::new();
    };
    let speed = match rate {
        ..0.1 => format!("{} each", duration(1.0 / rate)),
        ..1.0 => format!("{rate:.2}/s"),
        _ => format!("{}/s", amount((10.0 * rate).round() / 10.0)),
    };
    if progress.answers < progress.total {
        format!("{speed}, {} left", duration(left))
    } else {
        speed
    }
}

/// `so far valid 61.7% [52.7, 69.9]` and `exact 40.0% [31.7, 48.9]`, as far as known. Short answers end first: the
/// interval is that of these answers as a sample of all.
pub fn eval_rates(progress: &EvalProgress) -> Vec<String> {
    let EvalProgress {
        scored,
        valid,
        with_expected,
        exact,
        ..
    } = *progress;
    let rate = |name: &str, (count, n): (usize, usize)| {
        format!(
            "{name} {}",
            percent_interval(count as f64 / n as f64, wilson(count, n).into())
        )
    };
    let valid = (scored > 0).then(|| rate("so far valid", (valid, scored)));
    let exact = (with_expected > 0).then(|| rate("exact", (exact, with_expected)));
    valid.into_iter().chain(exact).collect()
}

pub fn eval_progress_text(progress: &EvalProgress) -> String {
    let more = std::iter::once(eval_pace(progress)).chain(eval_rates(progress));
    more.filter(|text| !text.is_empty())
        .fold(eval_count(progress), |line, text| format!("{line}, {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_only_what_is_known() {
        let check = |progress: EvalProgress, expected: &str| {
            assert_eq!(eval_progress_text(&progress), expected)
        };
        let base = || EvalProgress {
            step: Some(0),
            set: "test".into(),
            target: "base".into(),
            total: 500,
            ..EvalProgress::default()
        };
        check(base(), "base eval on test: 0 of 500");
        let some = EvalProgress {
            answers: 120,
            seconds: 40.0,
            scored: 120,
            valid: 74,
            with_expected: 120,
            exact: 48,
            ..base()
        };
        check(
            some.clone(),
            "base eval on test: 120 of 500, 3/s, 2m 7s left, so far valid 61.7% [52.7, 69.9], exact 40.0% [31.7, 48.9]",
        );
        // Answers of an earlier worker say nothing of this one's speed.
        let resumed = EvalProgress {
            kept: 100,
            with_expected: 0,
            ..some.clone()
        };
        check(
            resumed,
            "base eval on test: 120 of 500, 0.50/s, 12m 40s left, so far valid 61.7% [52.7, 69.9]",
        );
        let slow = EvalProgress {
            answers: 10,
            seconds: 200.0,
            scored: 0,
            with_expected: 0,
            ..some.clone()
        };
        check(slow, "base eval on test: 10 of 500, 20 s each, 2h 43m left");
        // One answer says little of the time that the others take.
        let first = EvalProgress {
            answers: 1,
            scored: 1,
            valid: 1,
            with_expected: 0,
            ..some.clone()
        };
        check(
            first,
            "base eval on test: 1 of 500, so far valid 100.0% [20.7, 100.0]",
        );
        let turns = EvalProgress {
            target: "trained".into(),
            step: Some(40),
            turn: 2,
            answers: 500,
            scored: 0,
            with_expected: 0,
            ..some
        };
        check(turns, "eval of step 40 on test, turn 2: 500 of 500, 12.5/s");
        check(
            EvalProgress {
                step: None,
                target: "mine".into(),
                ..base()
            },
            "mine on test: 0 of 500",
        );
        check(
            EvalProgress {
                total: 0,
                other_ranks: 3,
                ..base()
            },
            "base eval on test",
        );
        check(
            EvalProgress {
                other_ranks: 3,
                ..base()
            },
            "base eval on test: 0 of 500 (rank 0)",
        );
    }
}
