//! Evals side by side: a row per measure with typed cells, and the pages that show them.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::confidence_page::confidence;
use super::measure::{Measure, Metric};
use super::run_outcome::JudgedEval;
use super::significance::{MetricComparison, MetricVerdict, verdict};
use crate::format::{percent, percent_short};
use crate::page::text::render;
use crate::page::{Block, Cell, Level, Row, Table};
use crate::run::events::Eval;
use crate::run::{
    AnswerSummary, EndpointSummary, EvalSummary, LogProbs, MaskCost, PassAt, SampleRates,
    SampleSummary, TagSummary, ToolSummary, ValidCalls,
};
use crate::statistics::{Interval, compound};

#[derive(Debug, Clone, PartialEq)]
pub struct MeasureRow {
    pub measure: Measure,
    /// By eval.
    pub cells: Vec<Cell>,
}

impl From<MeasureRow> for Row {
    fn from(row: MeasureRow) -> Self {
        Self::new(row.measure.to_string(), row.cells)
    }
}

pub fn table(
    set: impl Display,
    [first, second]: [(&str, &EvalSummary); 2],
    valid: &MetricComparison,
    exact: Option<&MetricComparison>,
) -> String {
    let page = [
        tables(set, &[first, second]),
        verdict(valid, exact).to_vec(),
        value_drift(second.1).into_iter().collect(),
    ];
    render(&page.concat())
}

pub fn columns(set: impl Display, evals: &[(&str, &EvalSummary)]) -> String {
    render(&tables(set, evals))
}

pub(super) fn tables(set: impl Display, evals: &[(&str, &EvalSummary)]) -> Vec<Block> {
    let (names, summaries): (Vec<&str>, Vec<&EvalSummary>) = evals.iter().copied().unzip();
    // Errors of a scorer or an endpoint leave fewer answers to one than to another.
    let mut counts: Vec<String> = summaries
        .iter()
        .map(|summary| summary.n.to_string())
        .collect();
    counts.dedup();
    let table = |first: &str, rows: Vec<MeasureRow>| {
        let head = [&[first], names.as_slice()].concat();
        let rows: Vec<Row> = rows.into_iter().map(Row::from).collect();
        (!rows.is_empty()).then(|| Block::Table(sides(Table::new(&head, "lr", rows))))
    };
    let rates = [
        rate_rows(&summaries),
        call_rows(&summaries),
        cost_rows(&summaries),
    ]
    .concat();
    let rates = table(
        &format!("{set} set, n = {}, 95% CI", counts.join(", ")),
        rates,
    );
    rates
        .into_iter()
        .chain(table("by tag", tag_rows(&summaries)))
        .chain(table("by field", field_rows(&summaries)))
        .chain(confidence(&set.to_string(), evals))
        .collect()
}

/// In the colours of base and trained.
fn sides(table: Table) -> Table {
    let levels: &[Level] = match table.head.len() {
        3 => &[Level::Info, Level::Base, Level::Trained],
        _ => &[],
    };
    Table { levels, ..table }
}

/// What a verdict is on: the rates of base and trained on a set, then the verdict.
pub fn judged_page(base: &Eval, trained: &Eval, judged: &JudgedEval) -> Vec<Block> {
    let is_judged = |row: &MeasureRow| {
        matches!(
            row.measure,
            Measure::Valid | Measure::Exact | Measure::AllInvented
        )
    };
    let rows = rate_rows(&[&base.summary, &trained.summary]).into_iter();
    let rows = rows.filter(is_judged).map(Row::from).collect();
    let (set, step) = (
        format!("{} set, n = {}", trained.set, trained.summary.n),
        format!("step {}", trained.step),
    );
    let level = MetricVerdict::level(
        judged.valid.verdict,
        judged.exact.map(|exact| exact.verdict),
    );
    // With several completions per prompt only the first are compared.
    let pairs = trained.against_base.as_deref();
    let pairs = pairs
        .map(|found| found.valid.pairs())
        .filter(|pairs| *pairs != trained.summary.n);
    let of = pairs.map_or_else(String::new, |pairs| {
        format!("; compared: {pairs} pairs of first completions")
    });
    let sentence = MetricVerdict::sentence(judged.valid, judged.exact) + &of;
    vec![
        Block::Table(sides(Table::new(&[&set, "base", &step], "lr", rows))),
        Block::Text(level, sentence),
    ]
}

type Value = fn(&EvalSummary) -> Cell;

fn rows(evals: &[&EvalSummary], measures: Vec<(Measure, Value)>) -> Vec<MeasureRow> {
    let row = |(measure, value): (Measure, Value)| MeasureRow {
        measure,
        cells: evals.iter().map(|summary| value(summary)).collect(),
    };
    measures.into_iter().map(row).collect()
}

pub fn rate_rows(evals: &[&EvalSummary]) -> Vec<MeasureRow> {
    let has = |known: fn(&EvalSummary) -> bool| evals.iter().any(|summary| known(summary));
    let has_tools = has(|e| e.tools.is_some());
    let mut measures: Vec<(Measure, Value)> = vec![
        (Measure::Parse, |e| of_scorer(e.parse, e.interval("parse"))),
        (Measure::Valid, |e| {
            Cell::interval(e.valid, e.valid_interval)
        }),
        (Measure::Exact, |e| {
            let exact = e
                .exact
                .map(|exact| Cell::interval(exact, e.interval("exact")));
            Cell::known(exact, "no expected answers")
        }),
        (Measure::Tolerant, |e| {
            of_scorer(e.tolerant, e.interval("tolerant"))
        }),
        (Measure::MeanTokens, |e| {
            let mean = Some(e.mean_tokens).filter(|mean| mean.is_finite());
            Cell::known(mean.map(|mean| Cell::Number(mean, 1)), "not counted")
        }),
        (Measure::Truncated, |e| Cell::rate(e.truncated)),
    ];
    if has(|e| e.invented.is_some()) {
        let after_exact = 3;
        measures.insert(
            after_exact,
            (Measure::AllInvented, |e| {
                Cell::known(invented_cell(e), "not recorded")
            }),
        );
    }
    // Of calls, not of whole conversations, [`call_rows`] tells.
    if has(|e| e.has_calls) && !has_tools {
        measures.push((Measure::CallsInARow(10), |e| in_a_row(e, 10)));
        measures.push((Measure::CallsInARow(50), |e| in_a_row(e, 50)));
    }
    if has(|e| e.answers.is_some()) {
        fn answers(e: &EvalSummary, cell: fn(&AnswerSummary) -> Cell) -> Cell {
            Cell::known(e.answers.as_deref().map(cell), "single turn")
        }
        measures.extend::<[(Measure, Value); 3]>([
            (Measure::Turns, |e| {
                answers(e, |a| Cell::Number(a.mean_turns, 1))
            }),
            (Measure::AnswersValid, |e| {
                answers(e, |a| Cell::interval(a.valid, a.valid_interval))
            }),
            (Measure::Independent, |e| {
                answers(e, |a| Cell::interval(a.independent, a.independent_interval))
            }),
        ]);
    }
    if has_tools {
        fn tools(e: &EvalSummary, cell: fn(&ToolSummary) -> Cell) -> Cell {
            Cell::known(e.tools.as_deref().map(cell), "no tools")
        }
        measures.extend::<[(Measure, Value); 3]>([
            (Measure::CallsPerConversation, |e| {
                tools(e, |t| Cell::Number(t.mean_calls, 1))
            }),
            (Measure::CallsRefused, |e| {
                tools(e, |t| Cell::rate(t.refused))
            }),
            (Measure::Ended, |e| tools(e, |t| Cell::Text(ends(&t.ends)))),
        ]);
    }
    if has(|e| e.scorer_errors > 0) {
        measures.push((Measure::NotScored, |e| {
            Cell::Count(e.scorer_errors as usize)
        }));
    }
    let mut rows = rows(evals, measures);
    rows.extend(sample_rows(evals));
    rows
}

/// The share of values where none is expected.
pub(super) fn invented_cell(summary: &EvalSummary) -> Option<Cell> {
    summary.invented.as_ref().map(|of| Cell::Rate {
        value: of.rate,
        interval: Some(of.interval),
        n: Some(of.n),
    })
}

/// A rate that a log's score does not say.
fn of_scorer(rate: f64, interval: [f64; 2]) -> Cell {
    let known = (!rate.is_nan()).then(|| Cell::interval(rate, interval));
    Cell::known(known, "not in the log")
}

/// Valid calls: their share p, and the share of conversations with at least k calls whose first k are valid, next to p^k,
/// the rate expected if calls were independent.
pub fn call_rows(evals: &[&EvalSummary]) -> Vec<MeasureRow> {
    let calls: Vec<Option<&ValidCalls>> = evals
        .iter()
        .map(|summary| summary.tools.as_ref()?.valid_calls.as_ref())
        .collect();
    let row = |measure, cell: &dyn Fn(&ValidCalls) -> Option<Cell>| {
        let cells: Vec<_> = calls.iter().map(|calls| cell((*calls)?)).collect();
        cells.iter().any(Option::is_some).then(|| MeasureRow {
            measure,
            cells: cells
                .into_iter()
                .map(|cell| Cell::known(cell, "no such calls"))
                .collect(),
        })
    };
    let rate = |value, interval, n| Cell::Rate {
        value,
        interval: Some(interval),
        n: Some(n),
    };
    let all = |calls: &ValidCalls| Some(rate(calls.valid, calls.interval, calls.n));
    let first = |k: usize| {
        let cell = move |calls: &ValidCalls| {
            let chain = calls.chains.iter().find(|chain| chain.k == k)?;
            let independent = percent_short(calls.independent(k).0);
            let measured = rate(chain.valid, chain.interval, chain.n);
            Some(Cell::Noted(
                Box::new(measured),
                format!("p^{k} {independent}"),
            ))
        };
        row(Measure::FirstCalls(k), &cell)
    };
    let chains = calls.iter().flatten().flat_map(|calls| &calls.chains);
    let lengths: std::collections::BTreeSet<usize> =
        chains.map(|chain| chain.k).filter(|k| *k > 1).collect();
    row(Measure::CallsValid, &all)
        .into_iter()
        .chain(lengths.into_iter().filter_map(first))
        .collect()
}

fn ends(shares: &BTreeMap<String, f64>) -> String {
    let mut shares: Vec<(&String, &f64)> = shares.iter().collect();
    shares.sort_by(|a, b| b.1.total_cmp(a.1));
    let shares = shares
        .into_iter()
        .map(|(end, share)| format!("{end} {}", percent(*share)));
    shares.collect::<Vec<_>>().join(", ")
}

/// Cost and speed of answers, one row per measure that is known of one of the evals.
pub fn cost_rows(evals: &[&EvalSummary]) -> Vec<MeasureRow> {
    fn endpoint(
        e: &EvalSummary,
        cell: fn(&EndpointSummary) -> Option<Cell>,
        why: &'static str,
    ) -> Cell {
        let Some(endpoint) = &e.endpoint else {
            return Cell::Unknown("no endpoint");
        };
        Cell::known(cell(endpoint), why)
    }
    fn masks(e: &EvalSummary, cell: fn(&MaskCost) -> Cell) -> Cell {
        let masks = e.speed.as_ref().and_then(|speed| speed.masks.as_ref());
        Cell::known(masks.map(cell), "no grammar")
    }
    fn cost(e: &EvalSummary, which: usize) -> Cell {
        Cell::known(e.cost()[which].map(Cell::Amount), "no price")
    }
    fn log_prob(found: &EndpointSummary) -> Option<Cell> {
        let LogProbs { mean, answers, .. } = found.logprobs.unwrap_or_default();
        let mean = Cell::Number(mean?, 3);
        // The mean covers only some of the answers.
        Some(match answers < found.answers {
            true => Cell::Noted(Box::new(mean), format!("{answers} of {}", found.answers)),
            false => mean,
        })
    }
    let has = |known: fn(&EvalSummary) -> bool| evals.iter().any(|summary| known(summary));
    let has_endpoint = has(|e| e.endpoint.is_some());
    let has_cost = has_endpoint || has(|e| e.cost()[0].is_some());
    let has_speed = has_endpoint || has(|e| e.speed.is_some());
    let has_masks = has(|e| e.speed.as_ref().is_some_and(|speed| speed.masks.is_some()));
    let has_log_probs = has(|e| {
        e.endpoint
            .as_ref()
            .is_some_and(|found| found.logprobs.is_some())
    });
    let measures: [(bool, Measure, Value); 9] = [
        (has_endpoint, Measure::EndpointErrors, |e| {
            let errors = e
                .endpoint
                .as_ref()
                .map(|_| Cell::Count(e.endpoint_errors as usize));
            Cell::known(errors, "no endpoint")
        }),
        (has_cost, Measure::Cost, |e| cost(e, 0)),
        (has_cost, Measure::CostOfThousand, |e| cost(e, 1)),
        // Answers of a model on this machine are decoded together: none has a latency of its own.
        (has_endpoint, Measure::MedianLatency, |e| {
            endpoint(
                e,
                |found| found.latency_median_seconds.map(Cell::Seconds),
                "not measured",
            )
        }),
        (has_endpoint, Measure::LatencyP95, |e| {
            endpoint(
                e,
                |found| found.latency_p95_seconds.map(Cell::Seconds),
                "not measured",
            )
        }),
        (has_speed, Measure::TokensPerSecond, |e| {
            let rate = e.tokens_per_second().map(|rate| Cell::Number(rate, 0));
            Cell::known(rate, "not measured")
        }),
        (has_log_probs, Measure::LogProb, |e| {
            endpoint(e, log_prob, "not returned")
        }),
        (has_masks, Measure::MillisecondsPerMask, |e| {
            masks(e, |masks| Cell::Number(masks.milliseconds(), 4))
        }),
        (has_masks, Measure::MasksWaited, |e| {
            masks(e, |masks| Cell::rate(masks.waited()))
        }),
    ];
    let known = measures.into_iter().filter(|(is_known, ..)| *is_known);
    rows(
        evals,
        known.map(|(_, measure, value)| (measure, value)).collect(),
    )
}

/// pass@j and the share of prompts of which all samples pass, where prompts have several.
fn sample_rows(evals: &[&EvalSummary]) -> Vec<MeasureRow> {
    let rates = |summary: &&EvalSummary| {
        summary
            .samples
            .as_deref()
            .map_or_else(Vec::new, sample_rates)
    };
    let columns: Vec<_> = evals.iter().map(rates).collect();
    let mut measures: Vec<&Measure> = Vec::new();
    for (measure, _) in columns.iter().flatten() {
        if !measures.contains(&measure) {
            measures.push(measure);
        }
    }
    let cell = |measure: &Measure, column: &[(Measure, Interval)]| {
        let found = column.iter().find(|(other, _)| other == measure);
        let rate = found.map(|(_, rate)| Cell::interval(rate.estimate, [rate.low, rate.high]));
        Cell::known(rate, "other samples")
    };
    let row = |measure: &&Measure| MeasureRow {
        measure: (*measure).clone(),
        cells: columns.iter().map(|column| cell(measure, column)).collect(),
    };
    measures.iter().map(row).collect()
}

fn sample_rates(samples: &SampleSummary) -> Vec<(Measure, Interval)> {
    let of = |rates: &SampleRates, metric| {
        let pass_at = rates.pass_at.iter();
        let pass_at = pass_at.map(|PassAt { j, rate }| (Measure::PassAt(*j, metric), *rate));
        let all = (Measure::All(rates.samples, metric), rates.all);
        pass_at.chain([all]).collect::<Vec<_>>()
    };
    let exact = samples
        .exact
        .iter()
        .flat_map(|rates| of(rates, Metric::Exact));
    of(&samples.valid, Metric::Valid)
        .into_iter()
        .chain(exact)
        .collect()
}

/// Both rates by tag; exact match only where it is known.
pub fn tag_rows(evals: &[&EvalSummary]) -> Vec<MeasureRow> {
    let Some(first) = evals.first() else {
        return Vec::new();
    };
    let rate = |metric, tagged: &TagSummary| match metric {
        Metric::Valid => (Some(tagged.valid), tagged.valid_interval),
        Metric::Exact => (tagged.exact, tagged.exact_interval),
    };
    let row = |tag: &String, n: usize, metric| {
        let cell = |summary: &&EvalSummary| {
            let (value, interval) = rate(metric, summary.by_tag.get(tag)?);
            // The recorded run has no intervals of tags.
            value.map(|value| Cell::Rate {
                value,
                interval,
                n: None,
            })
        };
        let cells: Vec<_> = evals.iter().map(cell).collect();
        cells.iter().any(Option::is_some).then(|| MeasureRow {
            measure: Measure::Tag(metric, tag.clone(), n),
            cells: cells
                .into_iter()
                .map(|cell| Cell::known(cell, "no such rows"))
                .collect(),
        })
    };
    let of_tag =
        |(tag, tagged): (_, &TagSummary)| Metric::ALL.map(|metric| row(tag, tagged.n, metric));
    first.by_tag.iter().flat_map(of_tag).flatten().collect()
}

/// F1 by field, where answers are compared leaf by leaf; of fields without an expected value, how
/// many values were invented.
pub fn field_rows(evals: &[&EvalSummary]) -> Vec<MeasureRow> {
    let mut paths: BTreeMap<&String, usize> = BTreeMap::new();
    for (path, field) in evals.iter().flat_map(|summary| &summary.fields) {
        let expected = paths.entry(path).or_default();
        *expected = field.expected().max(*expected);
    }
    let row = |(path, expected): (&String, usize)| {
        let cell = |summary: &&EvalSummary| {
            let field = summary.fields.get(path);
            let cell = match field {
                _ if summary.fields.is_empty() => None,
                _ if expected == 0 => Some(Cell::Count(
                    field.map_or(0, |of| of.counts.invented as usize),
                )),
                _ => field.and_then(|field| field.f1).map(Cell::rate),
            };
            Cell::known(cell, "no value stated or expected")
        };
        let measure = match expected {
            0 => Measure::Invented(path.clone()),
            _ => Measure::Field(path.clone(), expected),
        };
        MeasureRow {
            measure,
            cells: evals.iter().map(cell).collect(),
        }
    };
    paths.into_iter().map(row).collect()
}

/// A warning if many valid answers have wrong values.
pub(super) fn value_drift(trained: &EvalSummary) -> Option<Block> {
    let exact = trained.exact.filter(|exact| trained.valid - exact > 0.05)?;
    let text = format!(
        "{} of the completions are valid but only {} exact: many valid completions have wrong values. Give the `fields` or `exact` part more weight, lower learning_rate, or raise kl_beta.",
        percent(trained.valid),
        percent(exact)
    );
    Some(Block::Finding(Level::Request, text))
}

fn in_a_row(summary: &EvalSummary, calls: u32) -> Cell {
    let interval = summary.valid_interval.map(|rate| compound(rate, calls));
    Cell::interval(compound(summary.valid, calls), interval)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::run::SpeedSummary;

    #[test]
    fn fields_of_all_evals_have_a_row_and_unknown_is_no_zero() {
        let summary = |fields: serde_json::Value| EvalSummary {
            fields: serde_json::from_value(fields).unwrap(),
            ..EvalSummary::default()
        };
        let base = summary(
            serde_json::json!({"vendor": {"right": 1, "wrong": 1, "f1": 0.5}, "extra": {"invented": 3, "f1": 0.0}}),
        );
        let trained = summary(
            serde_json::json!({"vendor": {"right": 2, "f1": 1.0}, "city": {"missed": 2, "f1": 0.0}}),
        );
        let old = summary(serde_json::json!({}));
        let rows = field_rows(&[&base, &trained, &old]);
        let shown: Vec<String> = rows
            .iter()
            .map(|row| {
                let cells: Vec<String> = row.cells.iter().map(Cell::short).collect();
                format!("{}: {}", row.measure, cells.join(" "))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "F1, city (2): n/a 0.0% n/a",
                "invented, extra: 3 0 n/a",
                "F1, vendor (2): 50.0% 100.0% n/a",
            ]
        );
    }

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
        let check = |evals: &[&EvalSummary], expected: &[&str]| {
            let rows: Vec<Row> = cost_rows(evals).into_iter().map(Row::from).collect();
            let text = render(&[Block::Table(Table::new(&[], "l", rows))]);
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(text.lines().map(words).collect::<Vec<_>>(), expected);
        };
        check(&[&EvalSummary::default()], &[]);
        check(&[&local(None), &local(None)], &["tok/s 1234 1234"]);
        check(
            &[&local(Some(0.02)), &remote, &local(None)],
            &[
                "endpoint errors n/a (no endpoint) 3 n/a (no endpoint)",
                "cost 0.02 0.5 n/a (no price)",
                "cost of 1,000 answers 0.2 n/a (no price) n/a (no price)",
                "latency, median n/a (no endpoint) 0.2 s n/a (no endpoint)",
                "latency, p95 n/a (no endpoint) n/a (not measured) n/a (no endpoint)",
                "tok/s 1234 20 1234",
                "logprob, nats/token n/a (no endpoint) -0.250 n/a (no endpoint)",
            ],
        );
    }
}
