//! Rewards and eval rates of a run as a small chart below the lines of a command.

use crossterm::style::ContentStyle;
use ratatui::backend::IntoCrossterm;
use ratatui::text::{Line, Span};

use super::appearance::Appearance;
use super::draw::symbols_in_ascii;
use super::options::AppearanceInput;
use super::style_role::Role;
use super::terminal;
use super::theme::Theme;
use super::widgets::chart::{Chart, Curve};
use super::widgets::text_width::fitted;
use crate::report::SMOOTHING;
use crate::run::events::Eval;
use crate::run::{RunState, Series};
use crate::task::{PromptSet, SetName};

/// Lines of the chart, its legend included.
const ROWS: usize = 9;
const MAX_COLUMNS: usize = 100;
/// The smallest terminal with a chart; in smaller ones the lines need the space.
const MIN_SIZE: (u16, u16) = (40, 20);

/// The chart for the terminal of this process, with the user's theme.
#[derive(Debug)]
pub struct RunChart {
    theme: Theme,
}

impl RunChart {
    /// `None` for a terminal that cannot move its cursor.
    pub fn for_terminal() -> Option<Self> {
        let input = AppearanceInput::detect();
        input.capability.answers.then(|| Self {
            theme: Appearance::load(&input).theme,
        })
    }

    /// Lines with their colours as escape sequences; none without steps, or where the terminal is too small.
    pub fn lines(&self, history: &RunState) -> Vec<String> {
        let (columns, rows) = terminal::size().unwrap_or_default();
        if columns < MIN_SIZE.0 || rows < MIN_SIZE.1 {
            Vec::new()
        } else {
            self.lines_of(history, columns.into())
        }
    }

    /// A text as one line that is not wrapped.
    pub fn line(&self, text: &str) -> String {
        fitted(
            text,
            usize::from(terminal::size().unwrap_or_default().0).saturating_sub(1),
        )
    }

    /// The lines for a terminal of that many columns; the last column stays empty, so that no line wraps.
    pub fn lines_of(&self, history: &RunState, columns: usize) -> Vec<String> {
        let metric = |label: &'static str| Some((label, history.metrics.get(label)?));
        let Some((label, reward)) = ["reward", "loss"].into_iter().find_map(metric) else {
            return Vec::new();
        };
        let last = history.last_step;
        let tasks = history.task_names();
        let evals: Vec<(String, Role, Series)> = match tasks.as_slice() {
            [""] => vec![
                (
                    "eval valid".to_owned(),
                    Role::SeriesTwo,
                    held(history, "", |eval| Some(eval.summary.valid)),
                ),
                (
                    "eval exact".to_owned(),
                    Role::SeriesThree,
                    held(history, "", |eval| eval.summary.exact),
                ),
            ],
            tasks => {
                let valid = |task: &str| held(history, task, |eval| Some(eval.summary.valid));
                let roles = [Role::SeriesTwo, Role::SeriesThree, Role::SeriesFour]
                    .into_iter()
                    .cycle();
                let of_task =
                    |(task, role): (&&str, Role)| (format!("{task} valid"), role, valid(task));
                tasks.iter().zip(roles).map(of_task).collect()
            }
        };
        let curve = |label: &str, role, series, smoothing| Curve {
            label: label.to_owned(),
            role,
            series,
            smoothing,
            last,
        };
        let mut curves = vec![curve(label, Role::SeriesOne, reward, SMOOTHING)];
        let known = evals
            .iter()
            .filter(|(.., series)| series.extent().is_some());
        curves.extend(known.map(|(label, role, series)| curve(label, *role, series, 0.0)));
        let is_share = |curve: &Curve<'_>| {
            curve
                .series
                .values()
                .iter()
                .all(|value| (0.0..=1.0).contains(value))
        };
        let values = curves.iter().all(is_share).then_some((0.0, 1.0));
        let chart = Chart {
            curves,
            steps: (0, last.max(1)),
            values,
            ..Chart::default()
        };
        let width = columns.saturating_sub(1).min(MAX_COLUMNS);
        let legend = chart.legend(&self.theme, width);
        let lines = std::iter::once(legend).chain(chart.lines(&self.theme, width, ROWS - 1));
        lines
            .map(|line| with_colours(&line, self.theme.ascii))
            .collect()
    }
}

impl From<Theme> for RunChart {
    fn from(theme: Theme) -> Self {
        Self { theme }
    }
}

/// A rate of a task's eval set by step: that of the latest eval.
fn held(history: &RunState, task: &str, rate: fn(&Eval) -> Option<f64>) -> Series {
    let set = SetName::new(PromptSet::Eval, task);
    let evals = history
        .evals
        .values()
        .filter(|eval| eval.set == set && eval.is_of_trained());
    let points: Vec<(u64, f64)> = evals
        .filter_map(|eval| Some((eval.step, rate(eval)?)))
        .collect();
    let ends = points
        .iter()
        .skip(1)
        .map(|(step, _)| *step)
        .chain([history.last_step + 1]);
    points
        .iter()
        .zip(ends)
        .flat_map(|((from, value), to)| (*from..to.max(from + 1)).map(|step| (step, *value)))
        .collect()
}

fn with_colours(line: &Line<'_>, ascii: bool) -> String {
    let span = |span: &Span<'_>| {
        let style: ContentStyle = line.style.patch(span.style).into_crossterm();
        let text = if ascii {
            symbols_in_ascii(&span.content, true).into()
        } else {
            span.content.clone()
        };
        style.apply(text).to_string()
    };
    line.spans
        .iter()
        .map(span)
        .collect::<String>()
        .trim_end()
        .to_owned()
}
