//! The details of a group of runs: mean, spread and number of each value, and the keys in which its runs differ.

use ratatui::text::Line;

use super::Group;
use crate::format::{counted, short_id};
use crate::report::{MeanStd, RunGroup, RunRow, number_text};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::text_width::one_line;

/// Fields before the metrics.
const FIELDS: [&str; 5] = ["base_valid", "valid", "base_exact", "exact", "step"];
/// Columns of a name.
const NAME: usize = 34;

pub(super) fn lines(
    group: &Group,
    shared: &Shared,
    smoothed: bool,
    width: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let runs = group.runs(shared);
    let name_width = NAME.min(width / 3);
    let row = |name: &str, cells: [String; 5], role| {
        let name: String = name.chars().take(name_width).collect();
        let cells: String = cells.iter().map(|cell| format!(" {cell:>9}")).collect();
        Line::from(vec![
            theme.span(format!("{name:<name_width$}"), Role::Faint),
            theme.span(cells, role),
        ])
    };
    let named = |run: &&RunRow| match run.directory.name() {
        "" => short_id(run.directory.id()).to_owned(),
        name => format!("{} {}", short_id(run.directory.id()), one_line(name)),
    };
    let ids: Vec<String> = runs.runs.iter().map(named).collect();
    let count = group.entries.len();
    let mut lines = vec![
        Line::from(format!("{}: {}", counted(count, "run"), ids.join(", "))),
        differing(&runs, shared),
    ];
    if !runs.is_of_one_task() {
        lines.push(theme.line("different tasks: no mean over them", Role::Faint));
        return lines;
    }
    lines.push(row(
        "over runs; std: sample, n - 1",
        ["mean", "std", "min", "max", "n"].map(str::to_owned),
        Role::Title,
    ));
    let metrics: std::collections::BTreeSet<&str> = runs
        .runs
        .iter()
        .flat_map(|run| run.metrics.keys().map(String::as_str))
        .collect();
    for name in FIELDS
        .into_iter()
        .chain(metrics.into_iter().filter(|name| !FIELDS.contains(name)))
    {
        if let Some(MeanStd {
            n,
            mean,
            std,
            least,
            most,
        }) = runs.mean(name, smoothed)
        {
            let std = std.map_or_else(|| "n/a".to_owned(), |std| number_text(name, std));
            let text = |number| number_text(name, number);
            lines.push(row(
                name,
                [text(mean), std, text(least), text(most), n.to_string()],
                Role::Text,
            ));
        }
    }
    lines
}

/// The keys in which the runs differ: a spread is one over seeds only if the seed is the only one.
fn differing(runs: &RunGroup<'_>, shared: &Shared) -> Line<'static> {
    let theme = &shared.theme;
    let found = runs.different_keys();
    let role = if found.iter().any(|(key, _)| key != "seed") {
        Role::Warning
    } else {
        Role::Text
    };
    let keys: Vec<String> = found
        .into_iter()
        .map(|(key, values)| format!("{key} ({values} values)"))
        .collect();
    let text = if keys.is_empty() {
        "equal configurations".to_owned()
    } else {
        format!("differ in {}", keys.join(", "))
    };
    theme.line(text, role)
}
