//! Two held-out passes as a table: rates with intervals, the paired test, compounding, tags.

use std::fmt::Write;

use crate::run::{Comparison, EvalSummary};
use crate::statistics::{compound, wilson};

/// The table of `first` against `second` on one set, with their names as headings.
pub(super) fn table(set: &str, names: [&str; 2], first: &EvalSummary, second: &EvalSummary, comparison: &Comparison) -> String {
    let mut text = format!("{:22} {:>22} {:>22}\n", format!("{set} set, n = {}", first.n), names[0], names[1]);
    let mut row = |label: &str, cell: &dyn Fn(&EvalSummary) -> String| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{label:22} {:>22} {:>22}", cell(first), cell(second));
    };
    row("parses", &|e| with_interval(e.parse, e.n));
    row("valid", &|e| with_interval(e.valid, e.n));
    row("exact match", &|e| e.exact.map_or_else(|| "-".to_owned(), |exact| with_interval(exact, e.n)));
    row("valid if unwrapped", &|e| with_interval(e.tolerant, e.n));
    row("mean tokens", &|e| format!("{:.1}", e.mean_tokens));
    row("cut at the limit", &|e| percent(e.truncated));
    row("10 steps in a row", &|e| percent(compound(e.valid, 10)));
    row("50 steps in a row", &|e| percent(compound(e.valid, 50)));
    for (tag, tagged) in &first.by_tag {
        let label = format!("valid, {tag} ({})", tagged.n);
        row(&label, &|e| e.by_tag.get(tag).map_or_else(|| "-".to_owned(), |t| percent(t.valid)));
    }
    let Comparison { fixed, broken, both, neither, mcnemar_p, .. } = comparison;
    let p = if *mcnemar_p < 1e-4 { format!("{mcnemar_p:.1e}") } else { format!("{mcnemar_p:.4}") };
    let _ = writeln!(text, "fixed {fixed}, broken {broken}, valid in both {both}, in neither {neither}; exact McNemar p = {p}");
    text.push_str(&value_drift(second));
    text
}

/// A sentence where the form is right but the values are not: the reward checks form, so values can drift.
fn value_drift(trained: &EvalSummary) -> String {
    match trained.exact {
        Some(exact) if trained.valid - exact > 0.05 => format!(
            "note: {} of the answers are valid but only {} have the right values: the reward checks form, so values drift. Lower learning_rate, raise kl_beta, or give the `fields` part of the reward a weight.\n",
            percent(trained.valid),
            percent(exact)
        ),
        _ => String::new(),
    }
}

fn percent(rate: f64) -> String {
    format!("{:.1} %", 100.0 * rate)
}

/// A rate and its 95 % Wilson interval.
fn with_interval(rate: f64, n: usize) -> String {
    let (low, high) = wilson((rate * n as f64).round() as usize, n);
    format!("{:.1} % [{:.1}, {:.1}]", 100.0 * rate, 100.0 * low, 100.0 * high)
}
