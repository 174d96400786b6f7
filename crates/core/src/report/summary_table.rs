//! Tables of evals: rates with intervals, paired tests, compounding, tags.

use std::collections::BTreeMap;

use super::sample_differences::{all_label, pass_at_label};
use super::significance::{MetricComparison, verdict_lines};
use super::tables::text_table;
use crate::format::{amount, duration, or_na, percent, percent_interval};
use crate::run::{
    EndpointSummary, EvalSummary, LogProbs, MaskCost, PassAt, SampleRates, SampleSummary,
    TagSummary, ValidCalls,
};
use crate::secrets::{redact, visible};
use crate::statistics::{Interval, compound};

/// Compares `first` with `second` on one set.
pub fn table(
    set: &str,
    [first, second]: [(&str, &EvalSummary); 2],
    valid: &MetricComparison,
    exact: Option<&MetricComparison>,
) -> String {
    columns(set, &[first, second]) + &verdict_lines(valid, exact) + &value_drift(second.1)
}

/// Evals on one set, one column each.
pub fn columns(set: &str, evals: &[(&str, &EvalSummary)]) -> String {
    if evals.is_empty() {
        return String::new();
    }
    let summaries: Vec<&EvalSummary> = evals.iter().map(|(_, summary)| *summary).collect();
    let names = evals.iter().map(|(name, _)| shorten(name)).collect();
    let rates = rate_rows(&summaries)
        .into_iter()
        .chain(call_rows(&summaries))
        .chain(cost_rows(&summaries));
    let tags = tag_rows(&summaries)
        .into_iter()
        .map(|row| (row.label(), row.cells));
    // Errors of a scorer or an endpoint leave fewer answers to one than to another.
    let mut counts: Vec<usize> = summaries.iter().map(|summary| summary.n).collect();
    counts.dedup();
    let n = counts
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let rows = std::iter::once((format!("{set} set, n = {n}"), names))
        .chain(rates)
        .chain(tags);
    text_table(&labelled(rows), "lr")
}

/// Rows whose first cell is their label.
pub(super) fn labelled(rows: impl IntoIterator<Item = (String, Vec<String>)>) -> Vec<Vec<String>> {
    rows.into_iter()
        .map(|(label, cells)| [vec![label], cells].concat())
        .collect()
}

/// One row per measure.
pub fn rate_rows(evals: &[&EvalSummary]) -> Vec<(String, Vec<String>)> {
    type Cell = fn(&EvalSummary) -> String;
    let rows: [(&'static str, Cell); 8] = [
        ("parse", |e| percent_interval(e.parse, e.interval("parse"))),
        ("valid", |e| percent_interval(e.valid, e.valid_interval)),
        ("exact match", |e| {
            or_na(e.exact, |exact| {
                percent_interval(exact, e.interval("exact"))
            })
        }),
        ("valid after unwrapping", |e| {
            percent_interval(e.tolerant, e.interval("tolerant"))
        }),
        ("mean tokens", |e| {
            or_na(
                Some(e.mean_tokens).filter(|mean| mean.is_finite()),
                |mean| format!("{mean:.1}"),
            )
        }),
        ("truncated", |e| percent(e.truncated)),
        ("P(10 calls valid)", |e| in_a_row(e, 10)),
        ("P(50 calls valid)", |e| in_a_row(e, 50)),
    ];
    let errors = ("not scored", (|e| e.scorer_errors.to_string()) as Cell);
    let of_answers: [(&'static str, Cell); 3] = [
        ("turns", |e| {
            or_na(e.answers.as_ref(), |answers| {
                format!("{:.1}", answers.mean_turns)
            })
        }),
        ("answers valid", |e| {
            or_na(e.answers.as_ref(), |a| {
                percent_interval(a.valid, a.valid_interval)
            })
        }),
        ("valid if independent", |e| {
            or_na(e.answers.as_ref(), |a| {
                percent_interval(a.independent, a.independent_interval)
            })
        }),
    ];
    let of_tools: [(&'static str, Cell); 3] = [
        ("calls per conversation", |e| {
            or_na(e.tools.as_ref(), |tools| format!("{:.1}", tools.mean_calls))
        }),
        ("calls refused", |e| {
            or_na(e.tools.as_ref(), |tools| percent(tools.refused))
        }),
        ("ended", |e| {
            or_na(e.tools.as_ref(), |tools| ends(&tools.ends))
        }),
    ];
    let has_tools = evals.iter().any(|summary| summary.tools.is_some());
    let of_tools = of_tools.into_iter().filter(|_| has_tools);
    let has_turns = evals.iter().any(|summary| summary.answers.is_some());
    let has_errors = evals.iter().any(|summary| summary.scorer_errors > 0);
    let of_answers = of_answers.into_iter().filter(|_| has_turns);
    // Of calls, not of whole conversations, [`call_rows`] tells.
    let has_calls = evals.iter().any(|summary| summary.has_calls) && !has_tools;
    let rows = rows
        .into_iter()
        .filter(|(label, _)| has_calls || !label.starts_with("P("));
    let rows = rows
        .chain(of_answers)
        .chain(of_tools)
        .chain(has_errors.then_some(errors));
    rows.map(|(label, cell)| {
        (
            label.to_owned(),
            evals.iter().map(|summary| cell(summary)).collect(),
        )
    })
    .chain(sample_rows(evals))
    .collect()
}

/// The calls that the model wrote: the share p that is valid, and of conversations with k calls and more those whose
/// first k are, beside p^k, which it were if calls were independent.
pub fn call_rows(evals: &[&EvalSummary]) -> Vec<(String, Vec<String>)> {
    let calls: Vec<Option<&ValidCalls>> = evals
        .iter()
        .map(|summary| summary.tools.as_ref()?.valid_calls.as_ref())
        .collect();
    let row = |label: String, cell: &dyn Fn(&ValidCalls) -> Option<String>| {
        let cells: Vec<_> = calls.iter().map(|calls| cell((*calls)?)).collect();
        let is_known = cells.iter().any(Option::is_some);
        is_known.then(|| {
            (
                label,
                cells
                    .into_iter()
                    .map(|cell| or_na(cell, |cell| cell))
                    .collect(),
            )
        })
    };
    let all = |calls: &ValidCalls| {
        Some(format!(
            "{}, n = {}",
            percent_interval(calls.valid, calls.interval),
            calls.n
        ))
    };
    let first = |k: usize| {
        let cell = move |calls: &ValidCalls| {
            let chain = calls.chains.iter().find(|chain| chain.k == k)?;
            let measured = percent_interval(chain.valid, chain.interval);
            Some(format!(
                "{measured}, n = {} (p^{k}: {})",
                chain.n,
                percent(calls.independent(k).0)
            ))
        };
        row(format!("first {k} calls valid"), &cell)
    };
    let mut lengths: Vec<usize> = calls
        .iter()
        .flatten()
        .flat_map(|calls| &calls.chains)
        .map(|chain| chain.k)
        .filter(|k| *k > 1)
        .collect();
    lengths.sort_unstable();
    lengths.dedup();
    row("calls valid (p)".to_owned(), &all)
        .into_iter()
        .chain(lengths.into_iter().filter_map(first))
        .collect()
}

/// Why conversations ended, the most frequent first.
fn ends(shares: &BTreeMap<String, f64>) -> String {
    let mut shares: Vec<(&String, &f64)> = shares.iter().collect();
    shares.sort_by(|a, b| b.1.total_cmp(a.1));
    shares
        .into_iter()
        .map(|(end, share)| format!("{end} {}", percent(*share)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Cost and speed of answers, one row per measure that is known of one of the evals.
pub fn cost_rows(evals: &[&EvalSummary]) -> Vec<(String, Vec<String>)> {
    type Cell = fn(&EvalSummary) -> String;
    fn endpoint_text(
        e: &EvalSummary,
        value: fn(&EndpointSummary) -> Option<f64>,
        show: fn(f64) -> String,
    ) -> String {
        or_na(e.endpoint.as_deref().and_then(value), show)
    }
    fn logprob(e: &EvalSummary) -> String {
        let Some(endpoint) = &e.endpoint else {
            return "n/a".to_owned();
        };
        let LogProbs { mean, answers, .. } = endpoint.logprobs.unwrap_or_default();
        // A mean over some of the answers is no mean of all.
        let part = if answers < endpoint.answers {
            format!(" ({answers} of {})", endpoint.answers)
        } else {
            String::new()
        };
        or_na(mean, |mean| format!("{mean:.3}{part}"))
    }
    fn mask_text(e: &EvalSummary, show: fn(&MaskCost) -> String) -> String {
        or_na(
            e.speed.as_ref().and_then(|speed| speed.masks.as_ref()),
            show,
        )
    }
    let has = |known: fn(&EvalSummary) -> bool| evals.iter().any(|summary| known(summary));
    let has_endpoint = has(|e| e.endpoint.is_some());
    let has_cost = has_endpoint || has(|e| e.cost()[0].is_some());
    let has_speed = has(|e| e.speed.is_some());
    let has_masks = has(|e| e.speed.as_ref().is_some_and(|speed| speed.masks.is_some()));
    let has_logprobs = has(|e| {
        e.endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.logprobs.is_some())
    });
    let rows: [(&'static str, bool, Cell); 9] = [
        ("endpoint errors", has_endpoint, |e| {
            or_na(e.endpoint.as_ref(), |_| e.endpoint_errors.to_string())
        }),
        ("cost", has_cost, |e| or_na(e.cost()[0], amount)),
        ("cost of 1,000 answers", has_cost, |e| {
            or_na(e.cost()[1], amount)
        }),
        // Answers of a model on this machine are decoded together: none has a latency of its own.
        ("latency, median", has_endpoint, |e| {
            endpoint_text(e, |endpoint| endpoint.latency_median_seconds, duration)
        }),
        ("latency, p95", has_endpoint, |e| {
            endpoint_text(e, |endpoint| endpoint.latency_p95_seconds, duration)
        }),
        ("tok/s", has_speed || has_endpoint, |e| {
            or_na(e.tokens_per_second(), |rate| format!("{rate:.0}"))
        }),
        ("logprob, nats/token", has_logprobs, logprob),
        ("ms/mask", has_masks, |e| {
            mask_text(e, |masks| format!("{:.4}", masks.milliseconds()))
        }),
        ("masks waited for", has_masks, |e| {
            mask_text(e, |masks| percent(masks.waited()))
        }),
    ];
    let known = rows.into_iter().filter(|(_, is_known, _)| *is_known);
    known
        .map(|(label, _, cell)| {
            (
                label.to_owned(),
                evals.iter().map(|summary| cell(summary)).collect(),
            )
        })
        .collect()
}

/// pass@j and the share of prompts of which all samples pass, where prompts have several.
fn sample_rows(evals: &[&EvalSummary]) -> Vec<(String, Vec<String>)> {
    let columns: Vec<Vec<(String, Interval)>> = evals
        .iter()
        .map(|summary| {
            summary
                .samples
                .as_deref()
                .map_or_else(Vec::new, labelled_rates)
        })
        .collect();
    let mut labels: Vec<&String> = Vec::new();
    for (label, _) in columns.iter().flatten() {
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    let cell = |label: &String, column: &[(String, Interval)]| {
        let rate = column.iter().find(|(name, _)| name == label);
        or_na(
            rate,
            |(
                _,
                Interval {
                    estimate,
                    low,
                    high,
                },
            )| percent_interval(*estimate, [*low, *high]),
        )
    };
    labels
        .iter()
        .map(|label| {
            (
                (*label).clone(),
                columns.iter().map(|column| cell(label, column)).collect(),
            )
        })
        .collect()
}

/// `pass@4`, `pass@4 exact`, `all 4 valid`, `all 4 exact`.
fn labelled_rates(samples: &SampleSummary) -> Vec<(String, Interval)> {
    let of = |rates: &SampleRates, metric: &str| {
        let pass_at = rates
            .pass_at
            .iter()
            .map(|PassAt { j, rate }| (pass_at_label(*j, metric), *rate));
        pass_at
            .chain([(all_label(rates.samples, metric), rates.all)])
            .collect::<Vec<_>>()
    };
    let exact = samples.exact.iter().flat_map(|rates| of(rates, "exact"));
    of(&samples.valid, "valid")
        .into_iter()
        .chain(exact)
        .collect()
}

/// A rate of the rows with a tag.
#[derive(Debug)]
pub struct TagRow {
    /// `valid` or `exact`.
    pub metric: &'static str,
    pub tag: String,
    /// Rows in the first eval.
    pub n: usize,
    /// By eval.
    pub cells: Vec<String>,
}

impl TagRow {
    /// `valid, nested (40)`.
    pub fn label(&self) -> String {
        format!("{}, {} ({})", self.metric, self.tag, self.n)
    }
}

/// Both rates by tag; exact match only where it is known.
pub fn tag_rows(evals: &[&EvalSummary]) -> Vec<TagRow> {
    let Some(first) = evals.first() else {
        return Vec::new();
    };
    // The recorded run has no intervals of tags.
    let cell = |rate: f64, interval: Option<[f64; 2]>| match interval {
        Some(interval) => percent_interval(rate, interval),
        None => percent(rate),
    };
    type Rate = fn(&TagSummary) -> (Option<f64>, Option<[f64; 2]>);
    let rates: [(&'static str, Rate); 2] = [
        ("valid", |tagged| {
            (Some(tagged.valid), tagged.valid_interval)
        }),
        ("exact", |tagged| (tagged.exact, tagged.exact_interval)),
    ];
    let row = |tag: &String, n: usize, (metric, rate): (&'static str, Rate)| {
        let of = |summary: &&EvalSummary| summary.by_tag.get(tag).map_or((None, None), rate);
        let rates: Vec<_> = evals.iter().map(of).collect();
        let is_known = rates.iter().any(|(rate, _)| rate.is_some());
        let cells = rates
            .into_iter()
            .map(|(rate, interval)| or_na(rate, |rate| cell(rate, interval)))
            .collect();
        is_known.then(|| TagRow {
            metric,
            tag: tag.clone(),
            n,
            cells,
        })
    };
    first
        .by_tag
        .iter()
        .flat_map(|(tag, tagged)| {
            rates
                .into_iter()
                .filter_map(move |rate| row(tag, tagged.n, rate))
        })
        .collect()
}

/// A warning if many valid answers have wrong values.
pub fn value_drift(trained: &EvalSummary) -> String {
    match trained.exact {
        Some(exact) if trained.valid - exact > 0.05 => format!(
            "note: {} of the completions are valid but only {} exact: many valid completions have wrong values. Give the `fields` or `exact` part more weight, lower learning_rate, or raise kl_beta.\n",
            percent(trained.valid),
            percent(exact)
        ),
        _ => String::new(),
    }
}

/// The probability that this many independent calls are all valid, with its interval.
fn in_a_row(summary: &EvalSummary, calls: u32) -> String {
    percent_interval(
        compound(summary.valid, calls),
        summary.valid_interval.map(|rate| compound(rate, calls)),
    )
}

/// Shortens a heading from its beginning: the end of a path or of a run's name is more specific.
fn shorten(name: &str) -> String {
    let name = visible(&redact(name).0).into_owned();
    let letters = name.chars().count();
    if letters <= 22 {
        name
    } else {
        format!("…{}", name.chars().skip(letters - 21).collect::<String>())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::run::SpeedSummary;

    #[test]
    fn what_is_not_known_of_a_target_is_no_zero() {
        let speed = |cost: Option<f64>| SpeedSummary {
            tokens_per_second: 1234.5,
            cost,
            cost_per_1000_answers: cost.map(|cost| 10.0 * cost),
            ..SpeedSummary::default()
        };
        let local = |cost| EvalSummary {
            speed: Some(Box::new(speed(cost))),
            ..EvalSummary::default()
        };
        let endpoint = EndpointSummary {
            answers: 3,
            cost: Some(0.5),
            latency_median_seconds: Some(0.25),
            tokens_per_second: Some(20.4),
            logprobs: Some(LogProbs {
                mean: Some(-0.25),
                tokens: 60,
                answers: 3,
            }),
            ..Default::default()
        };
        let remote = EvalSummary {
            endpoint: Some(Box::new(endpoint)),
            endpoint_errors: 3,
            ..EvalSummary::default()
        };
        let check = |evals: &[&EvalSummary], expected: &[(&str, &[&str])]| {
            let found = cost_rows(evals);
            let found: Vec<(&str, Vec<&str>)> = found
                .iter()
                .map(|(label, cells)| (label.as_str(), cells.iter().map(String::as_str).collect()))
                .collect();
            assert_eq!(
                found,
                expected
                    .iter()
                    .map(|(label, cells)| (*label, cells.to_vec()))
                    .collect::<Vec<_>>()
            );
        };
        check(&[&EvalSummary::default()], &[]);
        check(
            &[&local(None), &local(None)],
            &[("tok/s", &["1234", "1234"])],
        );
        check(
            &[&local(Some(0.02)), &remote, &local(None)],
            &[
                ("endpoint errors", &["n/a", "3", "n/a"]),
                ("cost", &["0.02", "0.5", "n/a"]),
                ("cost of 1,000 answers", &["0.2", "n/a", "n/a"]),
                ("latency, median", &["n/a", "0.2 s", "n/a"]),
                ("latency, p95", &["n/a", "n/a", "n/a"]),
                ("tok/s", &["1234", "20", "1234"]),
                ("logprob, nats/token", &["n/a", "-0.250", "n/a"]),
            ],
        );
    }
}
