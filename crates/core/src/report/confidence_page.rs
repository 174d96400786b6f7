//! Whether the confidences of evals come true: errors, the reliability curve, and what a pipeline
//! that accepts sure answers would keep.

use crate::format::{percent_short, probability};
use crate::page::{Block, Cell, Row, Table};
use crate::run::{Acceptance, Calibration, ConfidenceSummary, EvalSummary, PRECISION, Scaled};
use crate::statistics::{Interval, ReliabilityBin};

type Known<'a> = (&'a str, &'a ConfidenceSummary);

/// Empty unless an eval has confidences.
pub(super) fn confidence(set: &str, evals: &[(&str, &EvalSummary)]) -> Vec<Block> {
    let known: Vec<Known<'_>> = evals
        .iter()
        .filter_map(|(name, summary)| Some((*name, summary.confidence.as_deref()?)))
        .collect();
    if known.is_empty() {
        return Vec::new();
    }
    let mut page = vec![Block::heading("Confidence"), errors(&known)];
    page.push(curve("value confidence", &known, |summary| &summary.values));
    page.push(curve("answer confidence", &known, |summary| {
        &summary.documents
    }));
    for (name, summary) in &known {
        page.push(Block::info(format!(
            "{name}: {}",
            acceptance_text(set, summary)
        )));
        let mut unknown: Vec<String> = summary
            .unknown
            .iter()
            .map(|(reason, count)| format!("{count}: {reason}"))
            .collect();
        if !unknown.is_empty() {
            unknown.sort();
            let sentence = format!(
                "{name}: answers without a confidence: {}",
                unknown.join("; ")
            );
            page.push(Block::detail(sentence));
        }
    }
    page
}

/// Answers that, all exact, show [`PRECISION`] at 95% confidence: three by the share that may fail.
const SHOWS_PRECISION: usize = 300;

/// The sentence that a pipeline needs.
pub fn acceptance_text(set: &str, summary: &ConfidenceSummary) -> String {
    let Some(held_out) = &summary.held_out else {
        return format!(
            "nothing is held out: only the {set} set was evaluated, so no threshold is chosen and no temperature fitted"
        );
    };
    let precision = percent_short(PRECISION);
    let few = if held_out.n < SHOWS_PRECISION {
        format!(", too few to show {precision}: that takes {SHOWS_PRECISION} without a fault")
    } else {
        String::new()
    };
    let chosen = format!(
        "chosen on the {} set, n = {}{few}",
        held_out.set, held_out.n
    );
    let Some(kept) = &held_out.acceptance else {
        return format!(
            "no confidence accepts answers at {precision} precision on the {} set, n = {}",
            held_out.set, held_out.n
        );
    };
    let Acceptance {
        threshold,
        coverage,
        precision: Some(precision),
        n,
        ..
    } = kept
    else {
        return format!(
            "no answer of the {set} set, n = {}, has a confidence of {} ({chosen})",
            kept.n,
            threshold_text(kept.threshold)
        );
    };
    format!(
        "accepting answers at or above {} keeps {} of documents at {} precision [{:.0}, {:.0}], n = {n} (threshold {chosen})",
        threshold_text(*threshold),
        percent_short(coverage.estimate),
        percent_short(precision.estimate),
        100.0 * precision.low,
        100.0 * precision.high,
    )
}

/// With four decimals at least, so that what is accepted is what was measured.
fn threshold_text(threshold: f64) -> String {
    let text = format!("{threshold:.4}");
    match (0.001..0.99).contains(&threshold) {
        true => text.trim_end_matches('0').to_owned(),
        false => probability(threshold),
    }
}

fn errors(known: &[Known<'_>]) -> Block {
    let error = |error: Option<Interval>| {
        let cell = error.map(|error| Cell::Estimate(error.estimate, [error.low, error.high], 3));
        Cell::known(cell, "no outcome is known")
    };
    let brier = |brier: Option<f64>| {
        Cell::known(
            brier.map(|brier| Cell::Number(brier, 4)),
            "no outcome is known",
        )
    };
    let mut rows = Vec::new();
    let mut push = |label: &str, cell: &dyn Fn(&ConfidenceSummary) -> Cell| {
        let cells = known.iter().map(|(_, summary)| cell(summary));
        rows.push(Row::new(label, cells.collect::<Vec<_>>()));
    };
    type Part = (
        &'static str,
        fn(&ConfidenceSummary) -> Option<&Calibration>,
        fn(&ConfidenceSummary) -> Option<&Scaled>,
    );
    let parts: [Part; 3] = [
        (
            "values",
            |summary| Some(&summary.values),
            |summary| summary.held_out.as_ref()?.values.as_ref(),
        ),
        (
            "answers",
            |summary| Some(&summary.documents),
            |summary| summary.held_out.as_ref()?.documents.as_ref(),
        ),
        ("agreement", |summary| summary.agreement.as_ref(), |_| None),
    ];
    for (name, part, scaled) in parts {
        if has(known, &|summary| part(summary).is_some()) {
            push(&format!("{name}: n"), &|summary| {
                Cell::Count(part(summary).map_or(0, |part| part.n))
            });
            push(&format!("{name}: calibration error"), &|summary| {
                error(part(summary).and_then(|part| part.error))
            });
            push(&format!("{name}: Brier score"), &|summary| {
                brier(part(summary).and_then(|part| part.brier))
            });
        }
        if has(known, &|summary| scaled(summary).is_some()) {
            push(&format!("{name}: temperature"), &|summary| {
                let temperature = scaled(summary).map(|scaled| Cell::Number(scaled.temperature, 2));
                Cell::known(temperature, "nothing to fit")
            });
            push(&format!("{name}: calibration error, scaled"), &|summary| {
                error(scaled(summary).and_then(|scaled| scaled.error))
            });
            push(&format!("{name}: Brier score, scaled"), &|summary| {
                brier(scaled(summary).and_then(|scaled| scaled.brier))
            });
        }
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    Block::Table(Table::new(
        &[&["confidence"], names.as_slice()].concat(),
        "lr",
        rows,
    ))
}

fn has(known: &[Known<'_>], is_known: &dyn Fn(&ConfidenceSummary) -> bool) -> bool {
    known.iter().any(|(_, summary)| is_known(summary))
}

/// The reliability curve: a row per bin, the share that is right by eval.
fn curve(name: &str, known: &[Known<'_>], part: fn(&ConfidenceSummary) -> &Calibration) -> Block {
    let bin_of = |summary: &ConfidenceSummary, low: f64| -> Option<ReliabilityBin> {
        let mut bins = part(summary).bins.iter();
        bins.find(|bin| bin.low == low).cloned()
    };
    let mut lows: Vec<f64> = known
        .iter()
        .flat_map(|(_, summary)| &part(summary).bins)
        .map(|bin| bin.low)
        .collect();
    lows.sort_by(f64::total_cmp);
    lows.dedup();
    let row = |low: &f64| {
        let cells = known.iter().flat_map(|(_, summary)| {
            let bin = bin_of(summary, *low);
            let right = bin
                .as_ref()
                .map(|bin| Cell::interval(bin.right, bin.interval));
            let mean = bin.as_ref().map(|bin| Cell::Number(bin.mean_confidence, 3));
            [
                Cell::Count(bin.map_or(0, |bin| bin.n)),
                Cell::known(mean, "no value"),
                Cell::known(right, "no value"),
            ]
        });
        Row::new(
            format!("{low:.1} to {:.1}", low + 0.1),
            cells.collect::<Vec<_>>(),
        )
    };
    let heads = known
        .iter()
        .flat_map(|(name, _)| ["n", "mean", "right"].map(|column| format!("{name}: {column}")));
    let heads: Vec<String> = std::iter::once(name.to_owned()).chain(heads).collect();
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    Block::Table(Table::new(&heads, "lr", lows.iter().map(row).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::text::render;
    use crate::run::HeldOut;

    fn interval(estimate: f64, low: f64, high: f64) -> Interval {
        Interval {
            estimate,
            low,
            high,
        }
    }

    #[test]
    fn the_sentence_says_on_what_the_threshold_was_chosen() {
        let kept = Acceptance {
            threshold: 0.93,
            accepted: 415,
            n: 500,
            coverage: interval(0.83, 0.79, 0.86),
            precision: Some(interval(0.99, 0.97, 1.0)),
        };
        let held_out = |acceptance| {
            Some(HeldOut {
                set: "eval".into(),
                n: 50,
                acceptance,
                ..HeldOut::default()
            })
        };
        let check = |held_out, expected: &str| {
            let summary = ConfidenceSummary {
                held_out,
                ..ConfidenceSummary::default()
            };
            assert_eq!(acceptance_text("test", &summary), expected);
        };
        check(
            held_out(Some(kept)),
            "accepting answers at or above 0.93 keeps 83% of documents at 99% precision [97, 100], n = 500 (threshold chosen on the eval set, n = 50, too few to show 99%: that takes 300 without a fault)",
        );
        check(
            held_out(None),
            "no confidence accepts answers at 99% precision on the eval set, n = 50",
        );
        check(
            held_out(Some(Acceptance {
                precision: None,
                ..kept
            })),
            "no answer of the test set, n = 500, has a confidence of 0.93 (chosen on the eval set, n = 50, too few to show 99%: that takes 300 without a fault)",
        );
        check(
            None,
            "nothing is held out: only the test set was evaluated, so no threshold is chosen and no temperature fitted",
        );
    }

    #[test]
    fn evals_without_confidences_say_nothing_and_empty_ones_are_unknown() {
        let none = EvalSummary::default();
        assert!(confidence("test", &[("base", &none)]).is_empty());
        let empty = EvalSummary {
            confidence: Some(Box::default()),
            ..EvalSummary::default()
        };
        let text = render(&confidence("test", &[("base", &empty)]));
        assert!(
            text.contains("calibration error") && text.contains("no outcome is known"),
            "{text}"
        );
    }
}
