//! Shares over steps as stacked bars: one column per range of steps, one band per share.

use ratatui::text::{Line, Span};

use super::chart::column_of;
use crate::run::Series;
use crate::style_role::Role;
use crate::theme::Theme;

#[derive(Debug)]
pub struct Band<'a> {
    /// Its share at each step.
    pub series: Option<&'a Series>,
    pub sign: &'static str,
    pub role: Role,
}

/// The bands between two steps, `rows` lines of `columns` characters; a column is the mean of its steps, and empty if
/// there are none.
pub fn stack(
    theme: &Theme,
    bands: &[Band<'_>],
    steps: (u64, u64),
    columns: usize,
    rows: usize,
) -> Vec<Line<'static>> {
    let rows = if theme.linear { 0 } else { rows };
    let shares: Vec<Vec<Option<f64>>> = bands
        .iter()
        .map(|band| means(band.series, steps, columns))
        .collect();
    let band_at = |column: usize, height: f64| {
        shares
            .iter()
            .any(|of_band| of_band[column].is_some())
            .then_some(())?;
        let mut below = 0.0;
        bands.iter().enumerate().find_map(|(index, band)| {
            below += shares[index][column].unwrap_or(0.0);
            // Shares that add up to a little less than 1 still fill the column.
            (height < below + 1e-9).then_some(band)
        })
    };
    let line = |row: usize| {
        let height = (rows - row) as f64 / rows as f64 - 0.5 / rows as f64;
        let mut spans: Vec<Span<'static>> = Vec::new();
        let mut before: Option<(String, Option<Role>)> = None;
        for column in 0..columns {
            let band = band_at(column, height);
            let (sign, role) = band.map_or((" ", None), |band| (band.sign, Some(band.role)));
            match &mut before {
                Some((text, of)) if *of == role => text.push_str(sign),
                _ => spans.extend(
                    before
                        .replace((sign.to_owned(), role))
                        .map(|(text, role)| span(theme, text, role)),
                ),
            }
        }
        spans.extend(before.map(|(text, role)| span(theme, text, role)));
        Line::from(spans)
    };
    (0..rows).map(line).collect()
}

fn span(theme: &Theme, text: String, role: Option<Role>) -> Span<'static> {
    role.map_or_else(
        || Span::raw(text.clone()),
        |role| theme.span(text.clone(), role),
    )
}

/// The mean of each column's steps. Columns between two steps repeat the earlier one, so that a short run fills the
/// width.
fn means(series: Option<&Series>, steps: (u64, u64), columns: usize) -> Vec<Option<f64>> {
    let mut sums = vec![(0.0, 0_u32); columns];
    let Some(series) = series.filter(|_| columns > 0) else {
        return vec![None; columns];
    };
    for (step, value) in series
        .between(steps.0, steps.1)
        .filter(|(_, value)| value.is_finite())
    {
        let sum = &mut sums[column_of(step, steps, columns)];
        *sum = (sum.0 + value, sum.1 + 1);
    }
    let few = (steps.1 - steps.0) < columns as u64;
    let mut before = None;
    let means = sums.into_iter().map(|(sum, count)| {
        let mean = (count > 0).then(|| sum / f64::from(count));
        if few && mean.is_none() {
            return before;
        }
        before = mean;
        mean
    });
    means.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_stand_on_each_other() {
        let series = |values: &[f64]| {
            values
                .iter()
                .enumerate()
                .map(|(index, value)| (index as u64 + 1, *value))
                .collect::<Series>()
        };
        let check = |low: &[f64], high: &[f64], columns, rows, expected: &[&str]| {
            let (low, high) = (series(low), series(high));
            let bands = [
                Band {
                    series: Some(&low),
                    sign: "a",
                    role: Role::Valid,
                },
                Band {
                    series: Some(&high),
                    sign: "b",
                    role: Role::Invalid,
                },
                Band {
                    series: None,
                    sign: "c",
                    role: Role::Unparsable,
                },
            ];
            let lines = stack(&Theme::default(), &bands, (1, 4), columns, rows);
            assert_eq!(
                lines.iter().map(Line::to_string).collect::<Vec<_>>(),
                expected
            );
        };
        check(
            &[0.0, 0.5, 0.5, 1.0],
            &[1.0, 0.5, 0.5, 0.0],
            4,
            2,
            &["bbba", "baaa"],
        );
        check(&[1.0], &[0.0], 4, 1, &["aaaa"]);
        check(
            &[0.0, 1.0, 0.0, 1.0],
            &[1.0, 0.0, 1.0, 0.0],
            2,
            4,
            &["bb", "bb", "aa", "aa"],
        );
        check(&[], &[], 3, 1, &["   "]);
        check(&[1.0], &[0.0], 0, 1, &[""]);
        check(&[1.0], &[0.0], 4, 0, &[]);
    }
}
