//! Two held-out passes as a table: rates with intervals, the paired test, compounding, tags.

use std::fmt::Write;

use crate::run::{Comparison, EvalSummary};
use crate::statistics::{compound, wilson};

/// The table of `first` against `second` on one set, with their names as headings.
pub fn table(set: &str, names: [&str; 2], first: &EvalSummary, second: &EvalSummary, comparison: &Comparison) -> String {
    columns(set, &[(names[0], first), (names[1], second)]) + &verdict(comparison) + &value_drift(second)
}

/// Passes on one set side by side, each under its name.
pub fn columns(set: &str, passes: &[(&str, &EvalSummary)]) -> String {
    let Some((_, first)) = passes.first() else { return String::new() };
    let mut text = String::new();
    let mut line = |label: &str, cell: &dyn Fn(&str, &EvalSummary) -> String| {
        let cells: String = passes.iter().map(|(name, summary)| format!(" {:>22}", cell(name, summary))).collect();
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{label:22}{cells}");
    };
    line(&format!("{set} set, n = {}", first.n), &|name, _| shortened(name));
    line("parses", &|_, e| with_interval(e.parse, e.n));
    line("valid", &|_, e| with_interval(e.valid, e.n));
    line("exact match", &|_, e| e.exact.map_or_else(|| "-".to_owned(), |exact| with_interval(exact, e.rows_of("exact"))));
    line("valid if unwrapped", &|_, e| with_interval(e.tolerant, e.n));
    line("mean tokens", &|_, e| format!("{:.1}", e.mean_tokens));
    line("cut at the limit", &|_, e| percent(e.truncated));
    line("10 steps in a row", &|_, e| percent(compound(e.valid, 10)));
    line("50 steps in a row", &|_, e| percent(compound(e.valid, 50)));
    for (tag, tagged) in &first.by_tag {
        let label = format!("valid, {tag} ({})", tagged.n);
        line(&label, &|_, e| e.by_tag.get(tag).map_or_else(|| "-".to_owned(), |t| percent(t.valid)));
    }
    text
}

/// The paired test in a line.
pub fn verdict(comparison: &Comparison) -> String {
    let Comparison { fixed, broken, both, neither, mcnemar_p, .. } = comparison;
    let p = if *mcnemar_p < 1e-4 { format!("{mcnemar_p:.1e}") } else { format!("{mcnemar_p:.4}") };
    format!("fixed {fixed}, broken {broken}, valid in both {both}, in neither {neither}; exact McNemar p = {p}\n")
}

/// A sentence where the form is right but the values are not: the reward checks form, so values can drift.
pub fn value_drift(trained: &EvalSummary) -> String {
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

/// A heading that fits its column; the end of a path or a run's name tells more than its beginning.
fn shortened(name: &str) -> String {
    let letters = name.chars().count();
    if letters <= 22 { name.to_owned() } else { format!("…{}", name.chars().skip(letters - 21).collect::<String>()) }
}

/// The rates of a pass in one line.
pub fn rates(summary: &EvalSummary) -> String {
    let [low, high] = summary.valid_interval;
    let exact = summary.exact.map_or_else(String::new, |exact| format!("  exact {:5.1} %", 100.0 * exact));
    let (valid, low, high, parse) = (100.0 * summary.valid, 100.0 * low, 100.0 * high, 100.0 * summary.parse);
    format!("n {:<5} valid {valid:5.1} % [{low:.1}, {high:.1}]{exact}  parse {parse:5.1} %", summary.n)
}
