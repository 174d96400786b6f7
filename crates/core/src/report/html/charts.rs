//! The charts of a run's page: evals, metrics, failure classes.

use std::collections::BTreeSet;

use minijinja::Value;

use crate::report::failures::{Shares, by_stretch};
use crate::report::run_report::{Report, SMOOTHING};
use crate::report::svg::stacked::{Bar, Stacked, stacked};
use crate::report::svg::{Chart, Line, chart};
use crate::run::EvalSummary;
use crate::score::FailureClass;
use crate::statistics::smooth;
use crate::task::{PromptSet, SetName, task_metric};

/// Bars of the failure classes; more steps are averaged.
const MAX_BARS: usize = 60;

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

/// An index into the page's eleven fills; the last is grey.
fn color_of(class: FailureClass) -> usize {
    match FailureClass::ALL.iter().position(|known| *known == class) {
        _ if class == FailureClass::Other => 11,
        place => place.unwrap_or_default() % 10 + 1,
    }
}

/// `None` if nothing failed or classes were not recorded.
fn failures(report: &Report) -> Option<Value> {
    let stretches = by_stretch(&report.history, MAX_BARS);
    let classes: BTreeSet<FailureClass> = stretches
        .iter()
        .flat_map(|(_, shares)| shares.keys().copied())
        .collect();
    let parts = |shares: &Shares| {
        classes
            .iter()
            .map(|class| shares.get(class).copied().unwrap_or(0.0))
            .collect()
    };
    let bars = stretches
        .iter()
        .map(|(steps, shares)| Bar {
            steps: *steps,
            parts: parts(shares),
        })
        .collect();
    let labels = classes
        .iter()
        .map(|class| (color_of(*class), class.name()))
        .collect();
    let title = "Failures of training completions by class";
    (!classes.is_empty()).then(|| {
        Value::from_safe_string(stacked(&Stacked {
            title,
            labels,
            bars,
        }))
    })
}
