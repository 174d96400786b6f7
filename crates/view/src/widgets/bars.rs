//! Bars, sparklines and histograms of block characters or ASCII. Blank in linear mode, which prints the same numbers as
//! text.

use crate::theme::Theme;

const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// A bar of exactly `columns`, its ends included: `▕███▌  ▏`, or `[###  ]`. A share outside 0 to 1 is clamped; empty
/// below four columns.
pub fn gauge(theme: &Theme, share: f64, columns: usize) -> String {
    if columns < 4 || theme.linear {
        return " ".repeat(columns);
    }
    let inside = columns - 2;
    let share = if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    };
    if theme.ascii {
        let full = (share * inside as f64).round() as usize;
        return format!("[{}{}]", "#".repeat(full), " ".repeat(inside - full));
    }
    let eighths = (share * inside as f64 * 8.0).round() as usize;
    let (full, part) = (eighths / 8, EIGHTHS[eighths % 8]);
    let rest = inside - full - usize::from(!part.is_empty());
    format!("▕{}{part}{}▏", "█".repeat(full), " ".repeat(rest))
}

/// A sparkline of the latest values, at most `columns` of them, scaled to `range`, or to their own minimum and maximum.
/// A value that is not finite is a blank.
pub fn sparkline(
    theme: &Theme,
    values: &[f64],
    columns: usize,
    range: Option<(f64, f64)>,
) -> String {
    const RICH: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const PLAIN: [char; 5] = ['_', '.', '-', '=', '#'];
    let columns = if theme.linear { 0 } else { columns };
    let shown = &values[values.len().saturating_sub(columns)..];
    let finite = || shown.iter().copied().filter(|value| value.is_finite());
    let (low, high) = range.unwrap_or_else(|| {
        (
            finite().fold(f64::INFINITY, f64::min),
            finite().fold(f64::NEG_INFINITY, f64::max),
        )
    });
    let letters: &[char] = if theme.ascii { &PLAIN } else { &RICH };
    let top = (letters.len() - 1) as f64;
    let letter = |value: f64| {
        let share = if high > low {
            ((value - low) / (high - low)).clamp(0.0, 1.0)
        } else {
            0.5
        };
        letters
            .get((share * top).round() as usize)
            .copied()
            .unwrap_or(' ')
    };
    shown
        .iter()
        .map(|value| {
            if value.is_finite() {
                letter(*value)
            } else {
                ' '
            }
        })
        .collect()
}

/// Counts values in `bins` of equal width; values outside of the range count in the nearest bin, NaN in none.
pub fn counts(
    values: impl IntoIterator<Item = f64>,
    low: f64,
    high: f64,
    bins: usize,
) -> Vec<usize> {
    let mut counts = vec![0; bins];
    let width = high - low;
    if bins == 0 || width <= 0.0 || !width.is_finite() {
        return counts;
    }
    for value in values.into_iter().filter(|value| !value.is_nan()) {
        let bin = ((value - low) / width * bins as f64)
            .floor()
            .clamp(0.0, (bins - 1) as f64);
        counts[bin as usize] += 1;
    }
    counts
}

/// The counts as bars, `rows` lines from the top. The highest fills them; a count above 0 is always visible.
pub fn bars(theme: &Theme, counts: &[usize], rows: usize) -> Vec<String> {
    const RICH: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const PLAIN: [char; 3] = [' ', '.', '#'];
    if theme.linear {
        return vec![String::new(); rows];
    }
    let letters: &[char] = if theme.ascii { &PLAIN } else { &RICH };
    let (steps, most) = (
        letters.len() - 1,
        counts.iter().copied().max().unwrap_or(0).max(1),
    );
    let height = |count: usize| (count * rows * steps).div_ceil(most);
    (0..rows)
        .map(|row| {
            counts
                .iter()
                .map(|count| {
                    letters[height(*count)
                        .saturating_sub((rows - 1 - row) * steps)
                        .min(steps)]
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_width::UnicodeWidthStr;

    #[test]
    fn the_bar_has_its_width_at_every_share() {
        let check = |share: f64, columns: usize, expected: &str| {
            assert_eq!(
                gauge(&Theme::default(), share, columns),
                expected,
                "{share}"
            )
        };
        check(0.0, 6, "▕    ▏");
        check(0.5, 6, "▕██  ▏");
        check(0.55, 6, "▕██▎ ▏");
        check(1.0, 6, "▕████▏");
        check(f64::NAN, 3, "   ");
        let plain = Theme::default().in_ascii();
        assert_eq!(gauge(&plain, 0.5, 6), "[##  ]");
        for columns in 0..20 {
            for share in [
                -1.0,
                0.0,
                0.01,
                0.333,
                0.99,
                1.0,
                2.0,
                f64::NAN,
                f64::INFINITY,
            ] {
                assert_eq!(
                    gauge(&Theme::default(), share, columns).width(),
                    columns,
                    "{share} {columns}"
                );
            }
        }
    }

    #[test]
    fn heights_follow_the_values() {
        let check = |values: &[f64], columns, range, expected: &str| {
            assert_eq!(
                sparkline(&Theme::default(), values, columns, range),
                expected,
                "{values:?}"
            );
        };
        check(&[0.0, 0.5, 1.0], 10, Some((0.0, 1.0)), "▁▅█");
        check(&[0.0, 0.5, 1.0], 2, Some((0.0, 1.0)), "▅█");
        check(&[3.0, 3.0], 10, None, "▅▅");
        check(&[1.0, f64::NAN, 2.0], 10, None, "▁ █");
        check(&[5.0], 10, Some((0.0, 1.0)), "█");
        check(&[], 10, None, "");
        let plain = Theme::default().in_ascii();
        assert_eq!(sparkline(&plain, &[0.0, 1.0], 10, None), "_#");
    }

    #[test]
    fn values_are_counted_where_they_lie() {
        let check = |values: &[f64], bins, expected: &[usize]| {
            assert_eq!(
                counts(values.iter().copied(), -2.0, 2.0, bins),
                expected,
                "{values:?}"
            );
        };
        check(&[-2.0, -1.9, 0.0, 1.99, 2.0], 4, &[2, 0, 1, 2]);
        check(&[-9.0, f64::NEG_INFINITY, 9.0], 2, &[2, 1]);
        check(&[f64::NAN], 2, &[0, 0]);
        check(&[], 3, &[0, 0, 0]);
        check(&[1.0], 0, &[]);
        assert_eq!(counts([1.0], 1.0, 1.0, 2), [0, 0]);
    }

    #[test]
    fn bars_rise_with_the_counts() {
        let check = |found: &[usize], rows, expected: &[&str]| {
            assert_eq!(bars(&Theme::default(), found, rows), expected, "{found:?}")
        };
        check(&[0, 4, 8], 1, &[" ▄█"]);
        check(&[0, 4, 8], 2, &["  █", " ██"]);
        check(&[1, 1000], 1, &["▁█"]);
        check(&[0, 0], 1, &["  "]);
        check(&[3], 0, &[]);
    }
}
