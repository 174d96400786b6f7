//! Learning curves of the settings of a sweep: the mean over seeds on the eval set, with its interval.

use super::table::{SettingRow, SweepTable};
use crate::report::{Curve, curves_svg};
use crate::statistics::over_runs;

/// The palette's colors.
const MAX_CURVES: usize = 4;

/// One file, a chart for each group of settings; of more settings than colors the best.
pub fn curves(table: &SweepTable) -> String {
    let mut groups: Vec<&str> = Vec::new();
    for row in &table.rows {
        // A part of another setting has no group in a study that has any.
        let is_part = row.group.is_empty() && table.rows.iter().any(|row| !row.group.is_empty());
        if !is_part && !groups.contains(&row.group.as_str()) {
            groups.push(&row.group);
        }
    }
    let charts: Vec<(String, Vec<Curve>)> = groups
        .into_iter()
        .map(|group| {
            let mut rows: Vec<&SettingRow> =
                table.rows.iter().filter(|row| row.group == group).collect();
            if rows.len() > MAX_CURVES {
                let mean = |row: &SettingRow| row.eval.map_or(f64::NEG_INFINITY, |eval| eval.mean);
                rows.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
                rows.truncate(MAX_CURVES);
            }
            let of_group = if group.is_empty() {
                String::new()
            } else {
                format!(", {group}")
            };
            (
                format!("{} on the eval set{of_group}", table.metric.name()),
                rows.into_iter().map(curve).collect(),
            )
        })
        .collect();
    curves_svg(&charts, table.metric.is_share())
}

/// At the steps at which every run that has begun was evaluated, so that a mean is always of the same runs.
fn curve(row: &SettingRow) -> Curve {
    let curves: Vec<&Vec<(u64, f64)>> = row
        .runs
        .iter()
        .filter_map(|run| Some(&run.measured.as_ref()?.curve))
        .filter(|curve| !curve.is_empty())
        .collect();
    let at = |curve: &[(u64, f64)], step: u64| {
        curve
            .iter()
            .find(|(at, _)| *at == step)
            .map(|(_, value)| *value)
    };
    let mut curve = Curve {
        label: row.label.clone(),
        ..Curve::default()
    };
    for (step, _) in curves.first().copied().into_iter().flatten() {
        let values: Option<Vec<f64>> = curves.iter().map(|curve| at(curve, *step)).collect();
        if let Some(mean) = values.and_then(|values| over_runs(&values)) {
            curve.points.push((*step, mean.mean));
            curve.band.push((mean.low, mean.high));
        }
    }
    curve
}
