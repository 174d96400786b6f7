//! How values are spread: counted in bins of equal width, drawn as upright bars.

use crate::view::theme::Theme;

/// Counts in `bins` of equal width between two ends; what lies outside counts into the nearest, what is no number nowhere.
pub fn counts(values: impl IntoIterator<Item = f64>, ends: (f64, f64), bins: usize) -> Vec<usize> {
    let mut counts = vec![0; bins];
    let width = ends.1 - ends.0;
    if bins == 0 || width <= 0.0 || !width.is_finite() {
        return counts;
    }
    for value in values.into_iter().filter(|value| !value.is_nan()) {
        let bin = ((value - ends.0) / width * bins as f64).floor().clamp(0.0, (bins - 1) as f64);
        counts[bin as usize] += 1;
    }
    counts
}

/// The counts as bars, `rows` lines from the top. The tallest fills them; what is not 0 is never drawn as nothing.
pub fn bars(theme: &Theme, counts: &[usize], rows: usize) -> Vec<String> {
    const RICH: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const PLAIN: [char; 3] = [' ', '.', '#'];
    let letters: &[char] = if theme.ascii { &PLAIN } else { &RICH };
    let (steps, most) = (letters.len() - 1, counts.iter().copied().max().unwrap_or(0).max(1));
    let height = |count: usize| (count * rows * steps).div_ceil(most);
    (0..rows)
        .map(|row| counts.iter().map(|count| letters[height(*count).saturating_sub((rows - 1 - row) * steps).min(steps)]).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_where_they_lie() {
        let check = |values: &[f64], bins, expected: &[usize]| {
            assert_eq!(counts(values.iter().copied(), (-2.0, 2.0), bins), expected, "{values:?}");
        };
        check(&[-2.0, -1.9, 0.0, 1.99, 2.0], 4, &[2, 0, 1, 2]);
        check(&[-9.0, f64::NEG_INFINITY, 9.0], 2, &[2, 1]);
        check(&[f64::NAN], 2, &[0, 0]);
        check(&[], 3, &[0, 0, 0]);
        check(&[1.0], 0, &[]);
        assert_eq!(counts([1.0], (1.0, 1.0), 2), [0, 0]);
    }

    #[test]
    fn bars_rise_with_the_counts() {
        let check = |found: &[usize], rows, expected: &[&str]| assert_eq!(bars(&Theme::default(), found, rows), expected, "{found:?}");
        check(&[0, 4, 8], 1, &[" ▄█"]);
        check(&[0, 4, 8], 2, &["  █", " ██"]);
        check(&[1, 1000], 1, &["▁█"]);
        check(&[0, 0], 1, &["  "]);
        check(&[3], 0, &[]);
    }
}
