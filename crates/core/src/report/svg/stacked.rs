//! Shares of a whole over steps as stacked bars.

use std::fmt::Write;

use super::{Frame, HEIGHT, LEFT, RIGHT, WIDTH, axes, entry_width, head};
use crate::format::percent;

#[derive(Debug)]
pub(in crate::report) struct Stacked<'a> {
    pub(in crate::report) title: &'a str,
    /// Each part's index in the palette, from 1, and its name.
    pub(in crate::report) labels: Vec<(usize, &'a str)>,
    pub(in crate::report) bars: Vec<Bar>,
}

#[derive(Debug)]
pub(in crate::report) struct Bar {
    /// First and last.
    pub(in crate::report) steps: (u64, u64),
    /// In [0, 1], from the bottom.
    pub(in crate::report) parts: Vec<f64>,
}

/// The upper ends of an axis that has four round parts.
const AXIS_TOPS: [f64; 5] = [0.04, 0.08, 0.2, 0.4, 1.0];

const ROW: f64 = 16.0;

/// The chart as an `svg` element, with a legend below that has one entry per part.
pub(in crate::report) fn stacked(chart: &Stacked<'_>) -> String {
    let (legend, rows) = legend(chart);
    let mut text = head(chart.title, HEIGHT + ROW * rows as f64);
    let sum = |bar: &Bar| bar.parts.iter().sum::<f64>();
    let highest = chart.bars.iter().map(sum).fold(0.0, f64::max);
    let ends = (
        chart.bars.first().map_or(0, |bar| bar.steps.0),
        chart.bars.last().map_or(1, |bar| bar.steps.1),
    );
    let frame = Frame {
        first: ends.0 as f64,
        // A bar ends where the next one begins.
        last: ends.1.saturating_add(1) as f64,
        low: 0.0,
        high: AXIS_TOPS
            .into_iter()
            .find(|end| *end >= highest)
            .unwrap_or(1.0),
    };
    axes(&mut text, true, &frame);
    for bar in &chart.bars {
        let (left, right) = (frame.x(bar.steps.0), frame.x(bar.steps.1.saturating_add(1)));
        let mut below = 0.0;
        for ((color, label), share) in chart
            .labels
            .iter()
            .zip(&bar.parts)
            .filter(|(_, share)| **share > 0.0)
        {
            let (bottom, top) = (frame.y(below), frame.y(below + share));
            below += share;
            let _ = write!(
                text,
                "<rect class=\"s{color}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>steps {} to {}: {label} {}</title></rect>",
                (right - left - 0.5).max(0.5),
                bottom - top,
                bar.steps.0,
                bar.steps.1,
                percent(*share)
            );
        }
    }
    text.push_str(&legend);
    text.push_str("</svg>");
    text
}

/// Below the axis, in as many rows as it takes.
fn legend(chart: &Stacked<'_>) -> (String, usize) {
    let (mut text, mut x, mut row) = (String::new(), LEFT, 0);
    for (color, label) in &chart.labels {
        let width = entry_width(label);
        if x + width > WIDTH - RIGHT {
            (x, row) = (LEFT, row + 1);
        }
        let y = HEIGHT + ROW * row as f64 + 6.0;
        let _ = write!(
            text,
            "<rect class=\"s{color}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"10\" height=\"8\"/><text class=\"tick\" x=\"{:.1}\" y=\"{y:.1}\">{label}</text>",
            y - 7.5,
            x + 14.0
        );
        x += width;
    }
    (text, row + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_on_each_other() {
        let bar = |first, last, parts: &[f64]| Bar {
            steps: (first, last),
            parts: parts.to_vec(),
        };
        let bars = vec![bar(1, 2, &[0.1, 0.2]), bar(3, 4, &[0.0, 0.05])];
        let text = stacked(&Stacked {
            title: "Failures",
            labels: vec![(2, "prose"), (4, "syntax")],
            bars,
        });
        // Two in the first bar, one in the second, one a label.
        assert_eq!(text.matches("<rect").count(), 5, "{text}");
        // The axis ends at 40%: 154 units high.
        let heights = [
            "height=\"38.5\"><title>steps 1 to 2: prose 10.0%",
            "height=\"77.0\"><title>steps 1 to 2: syntax 20.0%",
        ];
        assert!(
            heights.iter().all(|height| text.contains(height)) && text.contains(">40%<"),
            "{text}"
        );
        assert!(
            text.contains("y=\"145.5\" width=\"228.5\"") && text.contains("y=\"68.5\" width"),
            "{text}"
        );
        assert!(!text.contains("NaN"));
    }
}
