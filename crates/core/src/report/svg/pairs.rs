//! Rates of two models as pairs of bars, with their intervals.

use std::fmt::Write;

use super::head;
use crate::format::percent_interval;

/// A rate of both models.
#[derive(Debug)]
pub(in crate::report) struct Pair<'a> {
    pub(in crate::report) label: &'a str,
    /// Before and after.
    pub(in crate::report) sides: [Side<'a>; 2],
}

#[derive(Debug)]
pub(in crate::report) struct Side<'a> {
    pub(in crate::report) name: &'a str,
    /// In [0, 1], with its 95% interval.
    pub(in crate::report) rate: f64,
    pub(in crate::report) interval: [f64; 2],
}

const TOP: f64 = 34.0;
const ROW: f64 = 22.0;
const GAP: f64 = 14.0;
/// Where bars begin and, at 100%, end; the rate is written behind.
const LEFT: f64 = 132.0;
const RIGHT: f64 = 396.0;

/// The chart as an `svg` element.
pub(in crate::report) fn pairs(title: &str, pairs: &[Pair<'_>]) -> String {
    let height = TOP + (2.0 * ROW + GAP) * pairs.len() as f64;
    let mut text = head(title, height);
    let x = |share: f64| LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT);
    let mut top = TOP;
    for pair in pairs {
        let _ = write!(
            text,
            "<text class=\"tick\" x=\"12\" y=\"{:.1}\">{}</text>",
            top + 14.0,
            pair.label
        );
        for (side, color) in pair.sides.iter().zip(["c4", "c3"]) {
            let (width, [low, high]) = (x(side.rate) - LEFT, side.interval.map(x));
            let (middle, base) = (top + ROW / 2.0, top + 15.0);
            let _ = write!(
                text,
                "<text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{base:.1}\">{}</text>\
                 <rect class=\"bar {color}\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>\
                 <line class=\"whisker\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{base:.1}\">{}</text>",
                LEFT - 8.0,
                side.name,
                top + 3.0,
                ROW - 6.0,
                RIGHT + 8.0,
                percent_interval(side.rate, side.interval)
            );
            top += ROW;
        }
        top += GAP;
    }
    text.push_str("</svg>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_rate() {
        let side = |name, rate| Side {
            name,
            rate,
            interval: [rate / 2.0, 1.0],
        };
        let text = pairs(
            "Test set",
            &[Pair {
                label: "valid",
                sides: [side("base", 0.5), side("step 30", 0.0)],
            }],
        );
        for part in [
            "width=\"132.0\"",
            "width=\"0.0\"",
            ">step 30<",
            "x1=\"198.0\" x2=\"396.0\"",
            "50.0% [25.0, 100.0]",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
