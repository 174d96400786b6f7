//! A curve in one line of text.

use crate::view::theme::Theme;

const RICH: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const PLAIN: [char; 5] = ['_', '.', '-', '=', '#'];

/// The latest values, at most `columns` of them, as letters of rising height between the ends of `range`, or between their own least and greatest. A value
/// that is not finite is a blank.
pub fn sparkline(theme: &Theme, values: &[f64], columns: usize, range: Option<(f64, f64)>) -> String {
    let shown = &values[values.len().saturating_sub(columns)..];
    let finite = || shown.iter().copied().filter(|value| value.is_finite());
    let (low, high) = range.unwrap_or_else(|| (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max)));
    let letters: &[char] = if theme.ascii { &PLAIN } else { &RICH };
    let top = (letters.len() - 1) as f64;
    let letter = |value: f64| {
        let share = if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 };
        letters.get((share * top).round() as usize).copied().unwrap_or(' ')
    };
    shown.iter().map(|value| if value.is_finite() { letter(*value) } else { ' ' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_follow_the_values() {
        let check = |values: &[f64], columns, range, expected: &str| {
            assert_eq!(sparkline(&Theme::default(), values, columns, range), expected, "{values:?}");
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
}
