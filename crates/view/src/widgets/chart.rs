//! Braille line chart over steps: draws the minimum and maximum of each column, so that no spike is
//! lost.

mod axis;
mod braille;
mod buckets;

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use self::axis::Axis;
use self::braille::{Pen, Raster};
use self::buckets::{Bucket, buckets};
use crate::format::{amount, or_na};
use crate::run::Series;
use crate::style_role::Role;
use crate::theme::Theme;

#[derive(Debug, Default)]
pub struct Chart<'a> {
    /// Drawn in this order, later ones on top.
    pub curves: Vec<Curve<'a>>,
    /// Number of leading comparison curves, which the legend lists last.
    pub under: usize,
    pub dots: Vec<Dot>,
    /// Horizontal lines: value, role, legend label.
    pub levels: Vec<(f64, Role, &'static str)>,
    /// Events: step, and a letter on the step axis.
    pub marks: Vec<(u64, &'static str)>,
    pub steps: (u64, u64),
    /// Range of values; `None`: that of the visible curves.
    pub values: Option<(f64, f64)>,
    pub log: bool,
    pub cursor: Option<u64>,
}

#[derive(Debug)]
pub struct Curve<'a> {
    pub label: String,
    pub role: Role,
    pub series: &'a Series,
    /// EMA weight of the past in [0, 1); above 0 the raw values are drawn faintly behind the
    /// smoothed ones.
    pub smoothing: f64,
    /// Last step of its run: without a cursor the legend shows the value there, if any.
    pub last: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dot {
    pub step: u64,
    pub value: f64,
    pub role: Role,
    /// Text in the legend, which shows the last dot of each label.
    pub label: &'static str,
    pub sign: &'static str,
}

/// Layout in columns and rows.
struct Frame {
    axis: Axis,
    ticks: Vec<(f64, String)>,
    /// Columns of the value labels.
    left: usize,
    /// Columns of the curves.
    wide: usize,
    high: usize,
    /// Rows of the step axis.
    below: usize,
}

impl Curve<'_> {
    pub fn at(&self, step: u64) -> (Option<f64>, Option<f64>) {
        let smoothed = if self.smoothing > 0.0 {
            buckets::smoothed_at(self.series, step, self.smoothing)
        } else {
            None
        };
        (self.series.at(step), smoothed)
    }
}

/// ASCII characters of the curves.
const LETTERS: [&str; 8] = ["*", "+", "o", "x", "#", "=", "&", "~"];
/// Line styles in the legend, matching the pens.
const STROKES: [&str; 6] = ["━", "╍", "┉", "╌", "╾", "┈"];

impl Chart<'_> {
    /// The chart in at most `rows` lines of at most `columns`. In a small space the axes are
    /// omitted first.
    pub fn lines(&self, theme: &Theme, columns: usize, rows: usize) -> Vec<Line<'static>> {
        if columns == 0 || rows == 0 {
            return Vec::new();
        }
        if theme.linear {
            return self
                .sentences()
                .into_iter()
                .take(rows)
                .map(Line::from)
                .collect();
        }
        let Some(Frame {
            axis,
            ticks,
            left,
            wide,
            high,
            below,
        }) = self.frame(columns, rows)
        else {
            return self.without_values(theme, columns, rows);
        };
        let measured = self.measured(wide, theme.ascii);
        let mut raster = Raster::new(wide, high, theme.ascii);
        self.draw(&mut raster, &measured, &axis, theme);
        let mut lines: Vec<Line<'static>> = (0..high).map(|row| raster.row(theme, row)).collect();
        if left > 0 {
            let (_, dots_down) = raster.size();
            let labels = ticks.iter().map(|(value, label)| {
                (
                    raster.row_of(dot_of(&axis, *value, dots_down)),
                    label.as_str(),
                )
            });
            let labels: std::collections::BTreeMap<usize, &str> = labels.collect();
            for (row, line) in lines.iter_mut().enumerate() {
                let (label, edge) = match labels.get(&row) {
                    Some(label) => (*label, "┤"),
                    None => ("", "│"),
                };
                line.spans.insert(
                    0,
                    theme.span(
                        format!("{label:>width$}{edge}", width = left - 1),
                        Role::Axis,
                    ),
                );
            }
        }
        lines.extend(self.below(theme, left, wide, below));
        lines
    }

    /// Each curve as text: its first, last, lowest and highest value among the visible steps.
    fn sentences(&self) -> Vec<String> {
        let (first, last) = self.steps;
        let sentence = |curve: &Curve<'_>| {
            let values: Vec<(u64, f64)> = curve
                .series
                .between(first, last)
                .filter(|(_, value)| value.is_finite())
                .collect();
            let lowest = values.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
            let highest = values.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
            let [begin, end, lowest, highest] = [values.first()?, values.last()?, lowest, highest]
                .map(|(step, value)| format!("{} at step {step}", amount(*value)));
            Some(format!(
                "{}: from {begin} to {end}, lowest {lowest}, highest {highest}",
                curve.label
            ))
        };
        let evals = self.dots.iter().filter(|dot| self.is_shown(dot.step));
        let dot = |dot: &Dot| format!("{} {} at step {}", dot.label, amount(dot.value), dot.step);
        let evals: Vec<String> = evals.map(dot).collect();
        let evals = (!evals.is_empty()).then(|| format!("evals: {}", evals.join(", ")));
        let sentences: Vec<String> = self
            .curves
            .iter()
            .filter_map(sentence)
            .chain(evals)
            .collect();
        if sentences.is_empty() {
            vec!["no values yet".to_owned()]
        } else {
            sentences
        }
    }

    /// The step that [`Self::lines`] draws in a column; `None` left of the curves or without
    /// curves.
    pub fn step_at(&self, columns: usize, rows: usize, column: usize) -> Option<u64> {
        let frame = self.frame(columns, rows)?;
        let column = column
            .checked_sub(frame.left)
            .filter(|column| *column < frame.wide)?;
        Some(buckets::step_at(column, self.steps, frame.wide))
    }

    /// The layout; `None` without any value to scale an axis.
    fn frame(&self, columns: usize, rows: usize) -> Option<Frame> {
        // Omitted in this order: steps below the axis, the axis line, the value labels.
        let below = match rows {
            0..4 => 0,
            4..6 => 1,
            _ => 2,
        };
        let high = rows - below;
        let most_ticks = if high < 9 { high / 2 } else { high / 3 }.clamp(1, 8);
        let axis = self.axis(most_ticks)?;
        let ticks = axis.ticks(most_ticks);
        let left = match columns {
            0..24 => 0,
            _ => {
                ticks
                    .iter()
                    .map(|(_, label)| label.width())
                    .max()
                    .unwrap_or(0)
                    + 1
            }
        };
        let wide = columns - left.min(columns.saturating_sub(1));
        Some(Frame {
            axis,
            ticks,
            left,
            wide,
            high,
            below,
        })
    }

    /// Names of the curves, with their values at the cursor, else at the last step.
    pub fn legend(&self, theme: &Theme, columns: usize) -> Line<'static> {
        let mut spans: Vec<Span<'static>> = Vec::new();
        let mut used = 0;
        let under = self.under.min(self.curves.len());
        let curves = self.curves.iter().enumerate();
        for (index, curve) in curves.clone().skip(under).chain(curves.take(under)) {
            let text = format!(
                "{} {}",
                curve.label,
                number(curve.series.at(self.cursor.unwrap_or(curve.last)))
            );
            entry(
                theme,
                &mut spans,
                &mut used,
                columns,
                self.sign(theme, index),
                curve.role,
                text,
            );
        }
        let mut labels: Vec<&str> = Vec::new();
        for dot in self.dots.iter().rev() {
            if labels.contains(&dot.label) {
                continue;
            }
            labels.push(dot.label);
            let sign = dot.sign;
            let text = format!("{} {}", dot.label, amount(dot.value));
            entry(theme, &mut spans, &mut used, columns, sign, dot.role, text);
        }
        for (value, role, word) in &self.levels {
            let (sign, text) = ("┄", format!("{word} {}", amount(*value)));
            entry(theme, &mut spans, &mut used, columns, sign, *role, text);
        }
        Line::from(spans)
    }

    /// A curve's line style, in the legend as in the chart: distinct without colour.
    pub fn sign(&self, theme: &Theme, index: usize) -> &'static str {
        let place = self.place(index);
        theme.glyph(
            STROKES[place % STROKES.len()],
            LETTERS[place % LETTERS.len()],
        )
    }

    /// Position of a curve in the legend.
    fn place(&self, index: usize) -> usize {
        let under = self.under.min(self.curves.len());
        index
            .checked_sub(under)
            .unwrap_or(self.curves.len() - under + index)
    }

    fn measured(&self, columns: usize, ascii: bool) -> Vec<[Vec<Option<Bucket>>; 2]> {
        let dots = if ascii { columns } else { columns * 2 };
        self.curves
            .iter()
            .map(|curve| buckets(curve.series, self.steps, dots, curve.smoothing))
            .collect()
    }

    fn axis(&self, ticks: usize) -> Option<Axis> {
        if let Some((low, high)) = self.values {
            return Some(Axis {
                low,
                high,
                log: false,
            });
        }
        // A smoothed curve stays within the range of the raw values.
        let of_curves = self
            .curves
            .iter()
            .flat_map(|curve| curve.series.between(self.steps.0, self.steps.1))
            .map(|(_, value)| value);
        let rest = self
            .dots
            .iter()
            .filter(|dot| self.is_shown(dot.step))
            .map(|dot| dot.value);
        Axis::around(
            of_curves
                .chain(rest)
                .chain(self.levels.iter().map(|(value, ..)| *value)),
            self.log,
            ticks,
        )
    }

    fn is_shown(&self, step: u64) -> bool {
        (self.steps.0..=self.steps.1).contains(&step)
    }

    fn draw(
        &self,
        raster: &mut Raster,
        measured: &[[Vec<Option<Bucket>>; 2]],
        axis: &Axis,
        theme: &Theme,
    ) {
        let (_, down) = raster.size();
        for (index, (curve, [raw, smooth])) in self.curves.iter().zip(measured).enumerate() {
            let place = self.place(index);
            let letter = LETTERS[place % LETTERS.len()].chars().next().unwrap_or('*');
            let pen = Pen {
                role: curve.role,
                letter,
                stroke: if theme.ascii {
                    0
                } else {
                    place % STROKES.len()
                },
            };
            let behind = Pen {
                role: Role::Raw,
                letter: '.',
                stroke: 0,
            };
            // Without colours, lines of raw values would look like another curve.
            if smooth.is_empty() {
                trace(raster, raw, axis, pen);
            } else if theme.ascii {
                trace(raster, raw, axis, behind);
            } else {
                scatter(raster, raw, axis, behind);
            }
            trace(raster, smooth, axis, pen);
        }
        // Values off the axis are drawn at its edge.
        let rows = raster.row_of(down.saturating_sub(1));
        for (x, bucket) in measured
            .iter()
            .flat_map(|[raw, _]| raw.iter().enumerate())
            .filter_map(|(x, b)| Some((x, b.as_ref()?)))
        {
            if bucket.not_finite {
                raster.put(raster.column_of(x), 0, "▲", Role::Bad);
            } else if axis.log && bucket.has_unfit {
                raster.put(raster.column_of(x), rows, "▼", Role::Faint);
            }
        }
        for dot in self
            .dots
            .iter()
            .filter(|dot| self.is_shown(dot.step) && dot.value.is_finite())
        {
            let (column, row) = (
                raster.column_of(self.x(raster, dot.step)),
                raster.row_of(dot_of(axis, dot.value, down)),
            );
            raster.put(column, row, dot.sign, dot.role);
        }
        let columns = raster.column_of(raster.size().0);
        for (value, role, _) in self.levels.iter().filter(|(value, ..)| value.is_finite()) {
            let row = raster.row_of(dot_of(axis, *value, down));
            (0..columns).for_each(|column| raster.put_under(column, row, "┄", *role));
        }
        if let Some(step) = self.cursor.filter(|step| self.is_shown(*step)) {
            raster.mark_column(raster.column_of(self.x(raster, step)), "┊", Role::Crosshair);
        }
    }

    fn x(&self, raster: &Raster, step: u64) -> usize {
        buckets::place(step, self.steps, raster.size().0)
    }

    fn below(&self, theme: &Theme, left: usize, wide: usize, rows: usize) -> Vec<Line<'static>> {
        let style = theme.style(Role::Axis);
        let mut numbers = vec![' '; wide];
        let mut edge = vec!["─"; wide];
        let column = |step: u64| buckets::place(step, self.steps, wide);
        let step = (axis::round_step((self.steps.1 - self.steps.0) as f64, (wide / 10).max(1))
            as u64)
            .max(1);
        let mut free = 0;
        let mut tick = self.steps.0.div_ceil(step).saturating_mul(step);
        while tick <= self.steps.1 {
            let (text, at) = (tick.to_string(), column(tick));
            let start = at
                .saturating_sub(text.len() / 2)
                .min(wide.saturating_sub(text.len()));
            if start >= free && start + text.len() <= wide {
                text.chars()
                    .enumerate()
                    .for_each(|(index, digit)| numbers[start + index] = digit);
                edge[at] = "┬";
                free = start + text.len() + 2;
            }
            tick = tick.saturating_add(step);
            if tick == u64::MAX {
                break;
            }
        }
        let mut line = vec![Span::styled(
            format!(
                "{}{}",
                " ".repeat(left.saturating_sub(1)),
                if left > 0 { "└" } else { "" }
            ),
            style,
        )];
        let marked: std::collections::BTreeMap<usize, &'static str> = self
            .marks
            .iter()
            .filter(|(step, _)| self.is_shown(*step))
            .map(|(step, letter)| (column(*step), *letter))
            .collect();
        line.extend(
            edge.iter()
                .enumerate()
                .map(|(at, edge)| match marked.get(&at) {
                    Some(letter) => theme.span(*letter, Role::Accent),
                    None => Span::styled(*edge, style),
                }),
        );
        let numbers: String = numbers.into_iter().collect();
        let numbers = Line::styled(
            format!("{}{numbers}", " ".repeat(left))
                .trim_end()
                .to_owned(),
            style,
        );
        match rows {
            0 => Vec::new(),
            1 => vec![numbers],
            _ => vec![Line::from(line), numbers],
        }
    }

    fn without_values(&self, theme: &Theme, columns: usize, rows: usize) -> Vec<Line<'static>> {
        let text = if self.log {
            "no positive values (log scale)"
        } else {
            "no values"
        };
        let text: String = text.chars().take(columns).collect();
        let mut lines = vec![Line::default(); rows];
        lines[rows / 2] = theme.line(text, Role::Faint);
        lines
    }
}

pub fn column_of(step: u64, steps: (u64, u64), columns: usize) -> usize {
    buckets::place(step, steps, columns)
}

fn number(value: Option<f64>) -> String {
    or_na(value, amount)
}

fn entry(
    theme: &Theme,
    spans: &mut Vec<Span<'static>>,
    used: &mut usize,
    columns: usize,
    sign: &'static str,
    role: Role,
    text: String,
) {
    let width = text.width() + 4;
    if *used + width <= columns {
        *used += width;
        spans.push(theme.span(format!("{sign} "), role));
        spans.push(Span::raw(format!("{text}  ")));
    }
}

fn dot_of(axis: &Axis, value: f64, down: usize) -> usize {
    ((1.0 - axis.share(value)) * down.saturating_sub(1) as f64).round() as usize
}

fn trace(raster: &mut Raster, buckets: &[Option<Bucket>], axis: &Axis, pen: Pen) {
    let (_, down) = raster.size();
    let y = |value: f64| dot_of(axis, value, down);
    let mut before: Option<(usize, &Bucket)> = None;
    for (x, bucket) in buckets
        .iter()
        .enumerate()
        .filter_map(|(x, bucket)| Some((x, bucket.as_ref()?)))
    {
        if bucket.is_empty(axis.log) {
            before = None;
            continue;
        }
        if let Some((x_before, previous)) =
            before.filter(|(_, previous)| previous.last_step + 1 >= bucket.first_step)
        {
            raster.line((x_before, y(previous.last)), (x, y(bucket.first)), pen);
        }
        raster.vertical(x, y(bucket.smallest(axis.log)), y(bucket.largest), pen);
        before = Some((x, bucket));
    }
}

/// Draws the values as dots: the first, last, minimum and maximum of each column.
fn scatter(raster: &mut Raster, buckets: &[Option<Bucket>], axis: &Axis, pen: Pen) {
    let (_, down) = raster.size();
    let shown = buckets.iter().enumerate();
    for (x, bucket) in shown.filter_map(|(x, bucket)| Some((x, bucket.as_ref()?))) {
        if bucket.is_empty(axis.log) {
            continue;
        }
        let smallest = bucket.smallest(axis.log);
        let values = [bucket.first, bucket.last, smallest, bucket.largest];
        for value in values.into_iter().filter(|value| !axis.log || *value > 0.0) {
            raster.dot(x, dot_of(axis, value, down), pen);
        }
    }
}
