//! Charts over steps as SVG, with round axis numbers; non-finite values are marked at the top, long series thinned without
//! losing their spikes.

pub(super) mod curves;
pub(super) mod pairs;
pub(super) mod stacked;

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

use crate::format::percent_short;

#[derive(Debug, Default)]
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) lines: Vec<Line<'a>>,
    /// Values in [0, 1], drawn in percent on an axis from 0 to 1.
    pub(super) shares: bool,
    /// Vertical lines at steps, with their labels.
    pub(super) marks: Vec<(u64, &'a str)>,
}

#[derive(Debug, Default)]
pub(super) struct Line<'a> {
    /// Empty: not in the legend.
    pub(super) label: &'a str,
    /// Index into the palette, from 1.
    pub(super) color: usize,
    /// Drawn weakly, behind the others.
    pub(super) faint: bool,
    /// Draws a dot at each point.
    pub(super) dots: bool,
    pub(super) points: Vec<(u64, f64)>,
    /// Below and above each of `points`; may be empty.
    pub(super) band: Vec<(f64, f64)>,
}

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 26.0;

/// Longer lines are thinned.
const MAX_POINTS: usize = 800;

pub(super) fn chart(chart: &Chart<'_>) -> String {
    let finite = || {
        chart
            .lines
            .iter()
            .flat_map(|line| &line.points)
            .filter(|(_, value)| value.is_finite())
    };
    let mut text = head(chart.title, HEIGHT);
    if finite().next().is_none() {
        let _ = write!(
            text,
            "<text class=\"tick\" x=\"{LEFT}\" y=\"60\">no values</text></svg>"
        );
        return text;
    }
    let steps = || {
        chart
            .lines
            .iter()
            .flat_map(|line| &line.points)
            .map(|(step, _)| *step)
    };
    let (first, last) = (steps().min().unwrap_or(0), steps().max().unwrap_or(0));
    let (low, high) = if chart.shares {
        (0.0, 1.0)
    } else {
        range(finite().map(|(_, value)| *value))
    };
    let frame = Frame {
        first: first as f64,
        last: last.max(first + 1) as f64,
        low,
        high,
    };
    axes(&mut text, chart.shares, &frame);
    for (step, word) in chart
        .marks
        .iter()
        .filter(|(step, _)| (first..=last).contains(step))
    {
        let x = frame.x(*step);
        let (anchor, shift) = if x > WIDTH - 90.0 {
            ("end", -3.0)
        } else {
            ("start", 3.0)
        };
        let _ = write!(
            text,
            "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/><text class=\"tick\" text-anchor=\"{anchor}\" x=\"{:.1}\" y=\"{:.1}\">{word}</text>",
            HEIGHT - BOTTOM,
            x + shift,
            HEIGHT - BOTTOM - 5.0
        );
    }
    for line in chart.lines.iter().filter(|line| !line.band.is_empty()) {
        band(&mut text, line, &frame);
    }
    for line in &chart.lines {
        draw(&mut text, line, &frame);
    }
    legend(&mut text, chart);
    text.push_str("</svg>");
    text
}

fn head(title: &str, height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>\
         <text class=\"title\" x=\"{LEFT}\" y=\"16\">{title}</text>"
    )
}

/// The plot's coordinates.
struct Frame {
    first: f64,
    last: f64,
    low: f64,
    high: f64,
}

impl Frame {
    fn x(&self, step: u64) -> f64 {
        LEFT + (step as f64 - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }
}

/// The range of the values, widened to round numbers; never empty.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let (low, high) = if high - low > 1e-9 * high.abs().max(low.abs()) {
        (low, high)
    } else {
        let half = if low == 0.0 { 0.5 } else { low.abs() * 0.1 };
        (low - half, high + half)
    };
    let step = round_step((high - low) / 4.0);
    ((low / step).floor() * step, (high / step).ceil() * step)
}

/// 1, 2, 2.5 or 5 times a power of ten, at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|round| *round >= step * 0.999_999)
        .unwrap_or(step)
}

/// Shares have four parts, in percent.
fn axes(text: &mut String, shares: bool, frame: &Frame) {
    let quarter = (frame.high - frame.low) / 4.0;
    let step = if shares { quarter } else { round_step(quarter) };
    let count = ((frame.high - frame.low) / step).round() as usize;
    for index in 0..=count {
        let value = frame.low + index as f64 * step;
        let y = frame.y(value);
        let label = if shares {
            percent_short(value)
        } else {
            number(value, step)
        };
        let _ = write!(
            text,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 3.5
        );
    }
    let step = (round_step((frame.last - frame.first) / 5.0) as u64).max(1);
    let mut at = (frame.first as u64).next_multiple_of(step);
    while at as f64 <= frame.last {
        let x = frame.x(at);
        let _ = write!(
            text,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{at}</text>",
            HEIGHT - BOTTOM + 15.0
        );
        at += step;
    }
}

/// With as many decimals as the axis's step needs.
fn number(value: f64, step: f64) -> String {
    let value = if value.abs() < step * 1e-9 {
        0.0
    } else {
        value
    };
    if value != 0.0 && (value.abs() >= 1e6 || step < 1e-4) {
        return format!("{value:.1e}");
    }
    let places = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    // 0.25 and 2.5 need one more decimal than their power of ten.
    let scaled = step * 10f64.powi(places as i32);
    let places = places + usize::from((scaled - scaled.round()).abs() > 1e-9);
    format!("{value:.places$}")
}

/// Draws the pieces between non-finite values.
fn draw(text: &mut String, line: &Line<'_>, frame: &Frame) {
    let class = format!(
        "{} c{}",
        if line.faint { "line faint" } else { "line" },
        line.color
    );
    for piece in line
        .points
        .split(|(_, value)| !value.is_finite())
        .filter(|piece| !piece.is_empty())
    {
        let mut points = String::new();
        for (step, value) in thin(
            piece,
            (MAX_POINTS * piece.len())
                .div_ceil(line.points.len())
                .max(2),
        ) {
            let _ = write!(points, "{:.1},{:.1} ", frame.x(step), frame.y(value));
        }
        let _ = write!(
            text,
            "<polyline class=\"{class}\" points=\"{}\"/>",
            points.trim_end()
        );
        if line.dots || piece.len() == 1 {
            for (step, value) in thin(piece, MAX_POINTS) {
                let _ = write!(
                    text,
                    "<circle class=\"dot c{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\"/>",
                    line.color,
                    frame.x(step),
                    frame.y(value)
                );
            }
        }
    }
    let lost: Vec<(u64, f64)> = line
        .points
        .iter()
        .copied()
        .filter(|(_, value)| !value.is_finite())
        .collect();
    for (step, _) in lost.iter().step_by(lost.len().div_ceil(60).max(1)) {
        let (x, y) = (frame.x(*step), TOP);
        let _ = write!(
            text,
            "<path class=\"lost\" d=\"M{:.1} {y}h6l-3 -5z\"><title>step {step}: not finite</title></path>",
            x - 3.0
        );
    }
}

fn band(text: &mut String, line: &Line<'_>, frame: &Frame) {
    let known = || {
        line.points
            .iter()
            .zip(&line.band)
            .filter(|((_, value), _)| value.is_finite())
    };
    let mut points = String::new();
    for ((step, _), (low, _)) in known() {
        let _ = write!(points, "{:.1},{:.1} ", frame.x(*step), frame.y(*low));
    }
    let above: Vec<_> = known().collect();
    for ((step, _), (_, high)) in above.into_iter().rev() {
        let _ = write!(points, "{:.1},{:.1} ", frame.x(*step), frame.y(*high));
    }
    let _ = write!(
        text,
        "<polygon class=\"band c{}\" points=\"{}\"/>",
        line.color,
        points.trim_end()
    );
}

/// At most about `most` points: the smallest and the largest of each stretch, in order.
fn thin(points: &[(u64, f64)], most: usize) -> Vec<(u64, f64)> {
    if points.len() <= most {
        return points.to_vec();
    }
    let stretch = (2 * points.len()).div_ceil(most.max(2));
    let extremes = |chunk: &[(u64, f64)]| {
        let by_value = |a: &&(u64, f64), b: &&(u64, f64)| a.1.total_cmp(&b.1);
        let (low, high) = (
            chunk.iter().min_by(by_value).copied(),
            chunk.iter().max_by(by_value).copied(),
        );
        let mut pair: Vec<(u64, f64)> = low.into_iter().chain(high).collect();
        pair.sort_by_key(|(step, _)| *step);
        pair.dedup();
        pair
    };
    points.chunks(stretch).flat_map(extremes).collect()
}

fn legend(text: &mut String, chart: &Chart<'_>) {
    // From the right; the title is on the left.
    let labelled: Vec<&Line<'_>> = chart
        .lines
        .iter()
        .filter(|line| !line.label.is_empty())
        .collect();
    let mut x = WIDTH
        - RIGHT
        - labelled
            .iter()
            .map(|line| entry_width(line.label))
            .sum::<f64>();
    for line in labelled {
        let _ = write!(
            text,
            "<line class=\"line c{0}\" x1=\"{x:.1}\" x2=\"{1:.1}\" y1=\"12\" y2=\"12\"/><text class=\"tick\" x=\"{2:.1}\" y=\"15.5\">{3}</text>",
            line.color,
            x + 14.0,
            x + 18.0,
            line.label
        );
        x += entry_width(line.label);
    }
}

fn entry_width(label: &str) -> f64 {
    30.0 + 5.8 * label.width() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_numbers() {
        let check = |low: f64, high: f64, expected: (f64, f64)| {
            let found = range([low, high].into_iter());
            assert!(
                (found.0 - expected.0).abs() < 1e-9 && (found.1 - expected.1).abs() < 1e-9,
                "{low} {high}: {found:?}"
            );
        };
        check(0.0, 1.0, (0.0, 1.0));
        check(0.13, 0.87, (0.0, 1.0));
        check(3.0, 97.0, (0.0, 100.0));
        check(5.0, 5.0, (4.5, 5.5));
        check(1.5, 1.5 + 1e-15, (1.3, 1.7));
        check(0.0, 0.0, (-0.5, 0.5));
        check(-2.0, 7.0, (-2.5, 7.5));
        let check =
            |value: f64, step: f64, expected: &str| assert_eq!(number(value, step), expected);
        check(0.25, 0.25, "0.25");
        check(0.5, 0.1, "0.5");
        check(40.0, 20.0, "40");
        check(2.5, 2.5, "2.5");
        check(2e-5, 5e-6, "2.0e-5");
        check(1e-17, 0.1, "0.0");
    }

    #[test]
    fn spikes_survive_thinning() {
        let points: Vec<(u64, f64)> = (0..100_000)
            .map(|step| {
                (
                    step,
                    if step == 54_321 {
                        9.0
                    } else {
                        (step % 7) as f64
                    },
                )
            })
            .collect();
        let shown = thin(&points, 800);
        assert!(
            shown.len() <= 802 && shown.contains(&(54_321, 9.0)),
            "{}",
            shown.len()
        );
        assert!(shown.is_sorted_by_key(|(step, _)| *step));
        assert_eq!(thin(&points[..10], 800), points[..10]);
    }

    #[test]
    fn values_that_are_not_finite_break_the_line_and_are_marked() {
        let points = vec![(1, 0.5), (2, 0.6), (3, f64::NAN), (4, 0.2)];
        let text = chart(&Chart {
            title: "loss",
            lines: vec![Line {
                label: "loss",
                color: 1,
                points,
                ..Line::default()
            }],
            ..Chart::default()
        });
        assert_eq!(
            (
                text.matches("<polyline").count(),
                text.matches("step 3: not finite").count()
            ),
            (2, 1),
            "{text}"
        );
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        let nothing = Line {
            points: vec![(1, f64::NAN)],
            ..Line::default()
        };
        assert!(
            chart(&Chart {
                title: "kl",
                lines: vec![nothing],
                ..Chart::default()
            })
            .contains("no values")
        );
    }
}
