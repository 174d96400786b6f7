//! The charts of a run's page: evals, metrics, failure classes.

use std::collections::BTreeMap;

use minijinja::Value;

use crate::report::failures::{Shares, by_stretch};
use crate::report::run_report::{Report, SMOOTHING};
use crate::report::svg::pairs::{Pair, Side, pairs};
use crate::report::svg::stacked::{Bar, Stacked, stacked};
use crate::report::svg::{Chart, Line, chart};
use crate::run::EvalSummary;
use crate::run::events::Eval;
use crate::score::FailureClass;
use crate::statistics::smooth;
use crate::task::{PromptSet, SetName, task_metric};

/// Bars of the failure classes; more steps are averaged.
const MAX_BARS: usize = 60;
/// Classes with a fill of their own, of the page's eleven; the last is grey.
const MAX_CLASSES: usize = 10;
/// Fewer points show no course.
const MIN_POINTS: usize = 3;
/// Values up to this are what rounding leaves of 0, such as an on-policy loss.
const ROUNDING: f64 = 1e-6;

/// A chart of metrics: title, whether they are shares, and each metric with its label.
type Metrics = (&'static str, bool, &'static [(&'static str, &'static str)]);

const CHARTS: [Metrics; 11] = [
    ("Reward", false, &[("reward", "")]),
    (
        "Training completions",
        true,
        &[
            ("tiers/valid", "valid"),
            ("exact", "exact"),
            ("tiers/invalid", "invalid"),
            ("tiers/unparsable", "unparsable"),
        ],
    ),
    (
        "Informative groups",
        true,
        &[
            ("groups/frac_mixed", "mixed"),
            ("groups/frac_all_best", "all max"),
            ("groups/frac_all_worst", "all min or all equal"),
        ],
    ),
    ("Reward std per group", false, &[("reward_std", "")]),
    (
        "Completion length, tokens",
        false,
        &[("completions/mean_length", "")],
    ),
    (
        "Truncated completions",
        true,
        &[("completions/clipped_ratio", "")],
    ),
    ("KL to reference, nats/token", false, &[("kl", "")]),
    ("Entropy, nats/token", false, &[("entropy", "")]),
    ("Loss", false, &[("loss", "")]),
    ("Gradient norm", false, &[("grad_norm", "")]),
    ("Step time, s", false, &[("seconds", "")]),
];

pub(super) fn charts(report: &Report) -> Vec<Value> {
    let mut drawn = Vec::new();
    let draw = |made: &Chart<'_>| Value::from_safe_string(chart(made));
    let marks: Vec<(u64, &str)> = report
        .best()
        .filter(|step| *step > 0)
        .map(|step| (step, "best"))
        .into_iter()
        .collect();
    let tasks = report.directory.task_names();
    let sets = [(PromptSet::Eval, "Eval"), (PromptSet::Test, "Test")];
    for (set, title, task) in sets
        .iter()
        .flat_map(|(set, title)| tasks.iter().map(move |task| (set, title, task)))
    {
        let (set, of_task) = (
            SetName::new(*set, task),
            if task.is_empty() {
                String::new()
            } else {
                format!(" of {task}")
            },
        );
        let title = &format!("{title} set{of_task}, 95% CI");
        let evals: Vec<_> = report
            .history
            .evals
            .values()
            .filter(|eval| eval.set == set && eval.is_of_trained())
            .collect();
        if evals.len() < 2 {
            continue;
        }
        if let [before, after] = evals[..] {
            drawn.push(Value::from_safe_string(pair(title, before, after)));
            continue;
        }
        let line = |color, label, value: &dyn Fn(&EvalSummary) -> f64| Line {
            label,
            color,
            dots: evals.len() <= 60,
            points: evals
                .iter()
                .map(|eval| (eval.step, value(&eval.summary)))
                .collect(),
            ..Line::default()
        };
        let mut lines = vec![line(1, "valid", &|summary| summary.valid)];
        if evals.iter().any(|eval| eval.summary.exact.is_some()) {
            lines.push(line(2, "exact", &|summary| {
                summary.exact.unwrap_or(f64::NAN)
            }));
        }
        for line in &mut lines {
            line.band = evals
                .iter()
                .map(|eval| eval.summary.interval(line.label).into())
                .collect();
        }
        drawn.push(draw(&Chart {
            title,
            lines,
            shares: true,
            marks: marks.clone(),
        }));
    }
    drawn.extend(failures(report));
    drawn.extend(
        tasks
            .iter()
            .filter(|task| !task.is_empty())
            .flat_map(|task| by_task(report, task)),
    );
    for (title, shares, metrics) in CHARTS {
        let known: Vec<_> = metrics
            .iter()
            .filter_map(|(name, label)| Some((report.history.metrics.get(*name)?, *label)))
            .filter(|(series, _)| is_worth_a_chart(series.values()))
            .collect();
        if known.is_empty() {
            continue;
        }
        let mut lines = Vec::new();
        for (index, (series, label)) in known.iter().enumerate() {
            let color = index + 1;
            if metrics.len() == 1 {
                lines.push(Line {
                    color,
                    faint: true,
                    points: series.points().collect(),
                    ..Line::default()
                });
            }
            // Non-finite values appear in the raw line only.
            let points = series
                .steps()
                .zip(smooth(series.values(), SMOOTHING))
                .filter(|(_, value)| value.is_finite())
                .collect();
            lines.push(Line {
                label,
                color,
                points,
                ..Line::default()
            });
        }
        drawn.push(draw(&Chart {
            title,
            lines,
            shares,
            marks: Vec::new(),
        }));
    }
    drawn
}

/// The charts of one of several tasks that a mean over all would hide: reward and training completions.
fn by_task(report: &Report, task: &str) -> Vec<Value> {
    let line = |(index, (name, label)): (usize, &(&str, &'static str))| {
        let series = report.history.metrics.get(&task_metric(task, name))?;
        let smoothed = series.steps().zip(smooth(series.values(), SMOOTHING));
        let points = smoothed.filter(|(_, value)| value.is_finite()).collect();
        Some(Line {
            color: index + 1,
            label,
            points,
            ..Line::default()
        })
    };
    let drawn = CHARTS[..2].iter().filter_map(|(title, shares, metrics)| {
        let lines: Vec<Line<'_>> = metrics.iter().enumerate().filter_map(line).collect();
        let title = &format!("{title}, {task}");
        let made = Chart {
            title,
            lines,
            shares: *shares,
            marks: Vec::new(),
        };
        (!made.lines.is_empty()).then(|| Value::from_safe_string(chart(&made)))
    });
    drawn.collect()
}

/// Whether there is a course to see: more than two values, not all of them 0 or rounding noise.
fn is_worth_a_chart(values: &[f64]) -> bool {
    values.len() >= MIN_POINTS && !values.iter().all(|value| value.abs() <= ROUNDING)
}

/// The rates of two evals as bars.
fn pair(title: &str, before: &Eval, after: &Eval) -> String {
    let names = [before, after].map(|eval| match eval.step {
        0 => "base".to_owned(),
        step => format!("step {step}"),
    });
    let side = |at: usize, metric: &str| {
        let summary = &[before, after][at].summary;
        Side {
            name: &names[at],
            rate: summary.metric(metric),
            interval: summary.interval(metric),
        }
    };
    let has_exact = before.summary.exact.is_some() && after.summary.exact.is_some();
    let shown = if has_exact {
        &["valid", "exact"][..]
    } else {
        &["valid"]
    };
    let rates = shown.iter().map(|label| Pair {
        label,
        sides: [side(0, label), side(1, label)],
    });
    pairs(title, &rates.collect::<Vec<_>>())
}

/// `None` if nothing failed or classes were not recorded. Each class has a fill of its own; the rarest beyond
/// [`MAX_CLASSES`] are one grey part.
fn failures(report: &Report) -> Option<Value> {
    let stretches = by_stretch(&report.history, MAX_BARS);
    let mut sums: BTreeMap<FailureClass, f64> = BTreeMap::new();
    for (class, share) in stretches.iter().flat_map(|(_, shares)| shares) {
        *sums.entry(*class).or_default() += share;
    }
    let mut classes: Vec<FailureClass> = sums.keys().copied().collect();
    classes.retain(|class| *class != FailureClass::Other);
    classes.sort_by(|a, b| sums[b].total_cmp(&sums[a]));
    classes.truncate(MAX_CLASSES);
    classes.sort();
    let parts = |shares: &Shares| {
        let own = classes
            .iter()
            .map(|class| shares.get(class).copied().unwrap_or(0.0));
        let own: Vec<f64> = own.collect();
        let rest = shares.values().sum::<f64>() - own.iter().sum::<f64>();
        own.into_iter().chain([rest.max(0.0)]).collect()
    };
    let bars = stretches
        .iter()
        .map(|(steps, shares)| Bar {
            steps: *steps,
            parts: parts(shares),
        })
        .collect();
    let has_rest = sums.len() > classes.len();
    let rest = has_rest.then_some((MAX_CLASSES + 1, FailureClass::Other.name()));
    let names = classes.iter().map(|class| class.name());
    let labels = (1..).zip(names).chain(rest).collect();
    let title = "Failures of training completions by class";
    (stretches.len() >= MIN_POINTS && !sums.is_empty()).then(|| {
        Value::from_safe_string(stacked(&Stacked {
            title,
            labels,
            bars,
        }))
    })
}
