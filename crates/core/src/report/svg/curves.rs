//! Charts of several runs as one self-contained SVG file.

use std::fmt::Write;

use super::{Chart, HEIGHT, Line, WIDTH, chart};
use crate::secrets::{redact, visible};

/// A line with an interval around it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    pub label: String,
    pub points: Vec<(u64, f64)>,
    /// Below and above each of `points`.
    pub band: Vec<(f64, f64)>,
}

const STYLE: &str = "svg{background:#fff}text{fill:#59636e;font:11px system-ui,sans-serif}.title{fill:#1c2128;font-size:13px;font-weight:600}\
.grid{stroke:#d1d9e0;stroke-width:1}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.band{opacity:.15;stroke:none}\
.c1{stroke:#0757ba}.c2{stroke:#b35900}.c3{stroke:#1a7f37}.c4{stroke:#8250df}\
.dot.c1,.band.c1{fill:#0757ba}.dot.c2,.band.c2{fill:#b35900}.dot.c3,.band.c3{fill:#1a7f37}.dot.c4,.band.c4{fill:#8250df}";

/// The legend has a line of its own, since labels may be long.
const LEGEND_LINE: f64 = 16.0;

/// Charts below each other: title and curves, at most four of them. `shares`: the values are in [0, 1].
pub fn curves_svg(charts: &[(String, Vec<Curve>)], shares: bool) -> String {
    let legend_height = |curves: &[Curve]| LEGEND_LINE * curves.len() as f64 + 6.0;
    let height: f64 = charts
        .iter()
        .map(|(_, curves)| HEIGHT + legend_height(curves))
        .sum();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\"><style>{STYLE}</style>\n"
    );
    let mut top = 0.0;
    for (title, curves) in charts {
        let title = escaped(title);
        let lines = curves.iter().enumerate().map(|(index, curve)| Line {
            color: index + 1,
            dots: true,
            points: curve.points.clone(),
            band: curve.band.clone(),
            ..Line::default()
        });
        let drawn = chart(&Chart {
            title: &title,
            lines: lines.collect(),
            shares,
            ..Chart::default()
        });
        let drawn = drawn.replacen(
            "<svg ",
            &format!("<svg y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" "),
            1,
        );
        let _ = writeln!(text, "{drawn}");
        top += HEIGHT;
        for (index, curve) in curves.iter().enumerate() {
            let y = top + 8.0 + LEGEND_LINE * index as f64;
            let _ = writeln!(
                text,
                "<line class=\"line c{}\" x1=\"52\" x2=\"66\" y1=\"{y}\" y2=\"{y}\"/><text x=\"72\" y=\"{}\">{}</text>",
                index + 1,
                y + 4.0,
                escaped(&curve.label)
            );
        }
        top += legend_height(curves);
    }
    text.push_str("</svg>\n");
    text
}

/// A label may quote a path or a key of others.
fn escaped(text: &str) -> String {
    let text = visible(&redact(text).0).into_owned();
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_curve_has_its_line_its_band_and_its_label() {
        let curve = |label: &str| Curve {
            label: label.to_owned(),
            points: vec![(0, 0.2), (5, 0.6)],
            band: vec![(0.1, 0.3), (0.5, 0.7)],
        };
        let text = curves_svg(
            &[
                ("valid".to_owned(), vec![curve("a"), curve("<b>&\u{1b}")]),
                ("c".to_owned(), vec![]),
            ],
            true,
        );
        let count = |part: &str| text.matches(part).count();
        assert_eq!(
            (
                count("<polyline"),
                count("<polygon"),
                count("<svg"),
                count("</svg>")
            ),
            (2, 2, 3, 3),
            "{text}"
        );
        assert!(
            text.contains(">&lt;b&gt;&amp;")
                && !text.contains('\u{1b}')
                && text.contains("no values"),
            "{text}"
        );
    }
}
