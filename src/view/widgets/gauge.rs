//! A bar that shows a share of a whole.

use crate::view::theme::Theme;

const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// A bar of exactly `columns`, its ends included: `▕███▌  ▏`, or `[###  ]`. A share outside 0 to 1 is clamped; below four columns there is none.
pub fn gauge(theme: &Theme, share: f64, columns: usize) -> String {
    if columns < 4 {
        return " ".repeat(columns);
    }
    let inside = columns - 2;
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    if theme.ascii {
        let full = (share * inside as f64).round() as usize;
        return format!("[{}{}]", "#".repeat(full), " ".repeat(inside - full));
    }
    let eighths = (share * inside as f64 * 8.0).round() as usize;
    let (full, part) = (eighths / 8, EIGHTHS[eighths % 8]);
    let rest = inside - full - usize::from(!part.is_empty());
    format!("▕{}{part}{}▏", "█".repeat(full), " ".repeat(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_width::UnicodeWidthStr;

    #[test]
    fn the_bar_has_its_width_at_every_share() {
        let check = |share: f64, columns: usize, expected: &str| assert_eq!(gauge(&Theme::default(), share, columns), expected, "{share}");
        check(0.0, 6, "▕    ▏");
        check(0.5, 6, "▕██  ▏");
        check(0.55, 6, "▕██▎ ▏");
        check(1.0, 6, "▕████▏");
        check(f64::NAN, 3, "   ");
        let plain = Theme::default().in_ascii();
        assert_eq!(gauge(&plain, 0.5, 6), "[##  ]");
        for columns in 0..20 {
            for share in [-1.0, 0.0, 0.01, 0.333, 0.99, 1.0, 2.0, f64::NAN, f64::INFINITY] {
                assert_eq!(gauge(&Theme::default(), share, columns).width(), columns, "{share} {columns}");
            }
        }
    }
}
