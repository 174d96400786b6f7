//! Curves of a run: the visible range of steps, and the large and small panes that draw them.

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

use super::charts::{self, Subject};
use super::frame::{LegendEntry, framed, legend};
use super::{CHART, Live, METRICS};
use crate::facts::{Target, VerbName};
use crate::followed_run::FollowedRun;
use crate::format::{amount, counted, or_na, short_id};
use crate::pane::content::{Content, Place};
use crate::report::control_text;
use crate::run::Series;
use crate::run::events::Eval;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::task::{PromptSet, task_metric};
use crate::widgets::bars::sparkline;
use crate::widgets::chart::{Chart, Curve, Dot};
use crate::widgets::text_width::{self, wrapped};

const ROLES: [Role; 3] = [Role::SeriesOne, Role::SeriesTwo, Role::SeriesThree];

pub(super) fn large<'a>(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    inside: Rect,
) -> Content<'a> {
    let view = &live.view;
    let subject = charts::large(live, run);
    let log = if view.log { ", log scale" } else { "" };
    let chart = chart(live, shared, run, subject);
    let title = format!("{}{log}", subject.title);
    let (columns, rows) = (inside.width as usize, inside.height as usize);
    let (above, high) = rows_of_chart(subject, rows);
    let mut lines = Vec::new();
    if above > 0 {
        lines.push(if chart.cursor.is_some() {
            readout(shared, run, &chart, columns)
        } else {
            chart.legend(&shared.theme, columns)
        });
    }
    lines.extend(chart.lines(&shared.theme, columns, high));
    if above + high < rows {
        lines.push(Line::styled(
            note(run, subject),
            shared.theme.style(Role::Faint),
        ));
    }
    Content {
        legend: markers(shared, &chart, columns),
        ..framed(shared, CHART, title).fixed(lines)
    }
}

/// Markers in the visible range with their meanings.
fn markers(shared: &Shared, chart: &Chart<'_>, columns: usize) -> Line<'static> {
    let theme = &shared.theme;
    let is_shown = |step: &u64| (chart.steps.0..=chart.steps.1).contains(step);
    let has = |letter: &str| {
        chart
            .marks
            .iter()
            .any(|(step, mark)| *mark == letter && is_shown(step))
    };
    let letters = [
        ("e", "eval"),
        ("c", "checkpoint"),
        ("C", "eval+checkpoint"),
        ("s", "request"),
        ("n", "note"),
    ];
    let letters = letters.into_iter().filter(|(letter, _)| has(letter));
    let mut entries: Vec<_> = letters
        .map(|(sign, meaning)| LegendEntry::new(sign, Role::Accent, meaning))
        .collect();
    let (first, last) = chart.steps;
    let mut values = chart
        .curves
        .iter()
        .flat_map(|curve| curve.series.between(first, last));
    if values.any(|(_, value)| !value.is_finite()) {
        entries.insert(0, LegendEntry::new("▲", Role::Bad, "not finite"));
    }
    if chart
        .dots
        .iter()
        .any(|dot| dot.sign == EXACT && is_shown(&dot.step))
    {
        entries.push(LegendEntry::new(EXACT, Role::Trained, "eval exact"));
    }
    if let Some(weight) = chart
        .curves
        .first()
        .map(|curve| curve.smoothing)
        .filter(|weight| *weight > 0.0)
    {
        let meaning = format!("raw under EMA {weight}");
        entries.push(LegendEntry::new("·", Role::Raw, meaning));
    }
    legend(theme, entries, columns)
}

/// The note of a subject, or why it has no values.
fn note(run: &FollowedRun, subject: Subject<'_>) -> &'static str {
    let is_kl = subject.metrics().any(|(_, name)| name == "kl");
    let is_off = || {
        run.directory
            .as_ref()
            .is_some_and(|directory| directory.file().config.kl_beta == 0.0)
    };
    if is_kl && !run.history.metrics.contains_key("kl") && is_off() {
        "not measured (kl_beta = 0)"
    } else {
        subject.note
    }
}

/// Rows of the legend above the large chart, and of the chart; the rest is for the subject's note.
fn rows_of_chart(subject: Subject<'_>, rows: usize) -> (usize, usize) {
    let above = usize::from(rows >= 4);
    let note = usize::from(rows >= 9 && !subject.note.is_empty());
    (above, rows - above - note)
}

/// The step at a position inside the large chart.
pub(super) fn step_at(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    inside: Rect,
    column: u16,
) -> Option<u64> {
    let subject = charts::large(live, run);
    let (_, high) = rows_of_chart(subject, inside.height as usize);
    chart(live, shared, run, subject).step_at(
        inside.width as usize,
        high,
        column.checked_sub(inside.x)? as usize,
    )
}

/// The chart of a subject of a run, with its overlays.
fn chart<'a>(
    live: &'a Live,
    shared: &'a Shared,
    run: &'a FollowedRun,
    subject: Subject<'_>,
) -> Chart<'a> {
    let view = &live.view;
    let others = shared.overlay.iter().filter(|path| *path != run.path());
    let overlay: Vec<&FollowedRun> = others
        .filter_map(|path| shared.followed.get(path))
        .collect();
    let last = overlay
        .iter()
        .map(|other| other.history.last_step)
        .fold(live.last(run), u64::max);
    let steps = view.steps(if view.width.is_some() {
        live.last(run)
    } else {
        last
    });
    let smoothing = view.weight();
    let mut curves = Vec::new();
    for (index, other) in overlay.iter().enumerate() {
        let role = if index % 2 == 0 {
            Role::SeriesFour
        } else {
            Role::SeriesThree
        };
        for (metric, (label, name)) in subject.metrics().enumerate() {
            let Some(series) = other.history.metrics.get(name) else {
                continue;
            };
            let id = short_id(&other.id()).to_owned();
            let label = if metric == 0 {
                id
            } else {
                format!("{id} {label}")
            };
            curves.push(Curve {
                label,
                role,
                series,
                smoothing,
                last: other.history.last_step,
            });
        }
    }
    let under = curves.len();
    let tasks = run.history.task_names();
    let own = own_curves(run, &tasks, subject);
    for (index, (label, series)) in own.into_iter().enumerate() {
        let (role, last) = (ROLES[index % ROLES.len()], live.last(run));
        curves.push(Curve {
            label,
            role,
            series,
            smoothing,
            last,
        });
    }
    // Eval dots do not identify their task: with several tasks their curves are shown instead.
    let first = subject.is_first() && tasks == [""];
    let set = PromptSet::Eval.into();
    let evals = || run.history.evals.values().filter(|eval| eval.set == set);
    // A task may have rewards above 1.
    let fits = || {
        curves.iter().all(|curve| {
            curve
                .series
                .values()
                .iter()
                .all(|value| !(*value < 0.0 || *value > 1.0))
        })
    };
    let values = (subject.share && !view.log && fits()).then_some((0.0, 1.0));
    Chart {
        curves,
        under,
        dots: if first {
            evals().flat_map(dots).collect()
        } else {
            Vec::new()
        },
        levels: evals()
            .filter(|eval| first && eval.target == Target::Base)
            .take(1)
            .map(|eval| (eval.summary.valid, Role::Base, "base"))
            .collect(),
        marks: marks(run),
        steps,
        values,
        log: view.log,
        cursor: live.step.is_some().then(|| live.at(run)),
    }
}

/// Curves of a run; with several tasks, one per task. For the first subject these are the shares of
/// valid completions, since rewards of tasks have different scales.
fn own_curves<'r>(
    run: &'r FollowedRun,
    tasks: &[&str],
    subject: Subject<'_>,
) -> Vec<(String, &'r Series)> {
    let metrics = &run.history.metrics;
    let shown = || {
        subject
            .metrics()
            .filter(|(_, name)| !subject.is_first() || *name == "tiers/valid")
    };
    for (label, name) in shown() {
        let of_task = |task: &&str| {
            let series = metrics.get(&task_metric(task, name))?;
            Some((format!("{task} {label}"), series))
        };
        let by_task: Vec<_> = tasks.iter().filter_map(of_task).collect();
        if !by_task.is_empty() {
            return by_task;
        }
    }
    subject
        .metrics()
        .filter_map(|(label, name)| Some((label.to_owned(), metrics.get(name)?)))
        .collect()
}

/// Symbol of an eval's exact match.
const EXACT: &str = "◇";

/// Rates of an eval; valid is drawn on top of an equal exact match.
fn dots(eval: &Eval) -> impl Iterator<Item = Dot> {
    let role = if eval.who() == Target::Base {
        Role::Base
    } else {
        Role::Trained
    };
    let exact = eval.summary.exact.map(|value| ("exact", value, EXACT));
    let valid = ("eval", eval.summary.valid, "◆");
    let step = eval.step;
    exact
        .into_iter()
        .chain([valid])
        .map(move |(label, value, sign)| Dot {
            step,
            value,
            role,
            label,
            sign,
        })
}

/// Values at the cursor: raw, smoothed, and the standard deviation of rewards within groups. Omits
/// the least important ones that do not fit.
fn readout(shared: &Shared, run: &FollowedRun, chart: &Chart<'_>, columns: usize) -> Line<'static> {
    let width = |part: &Vec<Span<'_>>| part.iter().map(Span::width).sum::<usize>();
    let of = |smoothed: usize| readout_parts(shared, run, chart, smoothed);
    let fits = |parts: &Vec<Vec<Span<'_>>>| {
        parts.iter().map(|part| width(part) + 1).sum::<usize>() <= columns + 1
    };
    let most = if columns < 60 { 0 } else { usize::MAX };
    let parts = [most, most.min(1)]
        .into_iter()
        .map(of)
        .find(fits)
        .unwrap_or_else(|| of(0));
    let mut line = Line::default();
    for part in parts {
        let blank = usize::from(!line.spans.is_empty());
        if line.width() + blank + width(&part) <= columns {
            line.spans.push(Span::raw(" ".repeat(blank)));
            line.spans.extend(part);
        }
    }
    line
}

/// Items of the readout; the first `smoothed_curves` also with the smoothed value and the spread.
fn readout_parts(
    shared: &Shared,
    run: &FollowedRun,
    chart: &Chart<'_>,
    smoothed_curves: usize,
) -> Vec<Vec<Span<'static>>> {
    let theme = &shared.theme;
    let step = chart.cursor.unwrap_or_default();
    let number = |value: Option<f64>| or_na(value, amount);
    let mut parts = vec![vec![Span::styled(
        format!("step {step}"),
        theme.style(Role::Crosshair),
    )]];
    let curves = chart.curves.iter().enumerate();
    let ordered = curves
        .clone()
        .skip(chart.under)
        .chain(curves.take(chart.under));
    for (place, (index, curve)) in ordered.enumerate() {
        let full = place < smoothed_curves;
        let (raw, smoothed) = curve.at(step);
        let smoothed = if full && curve.smoothing > 0.0 {
            format!(" ~{}", number(smoothed))
        } else {
            String::new()
        };
        let spread = run
            .history
            .metrics
            .get("reward_std")
            .and_then(|series| series.at(step))
            .filter(|_| full && curve.label == "reward");
        let spread = spread.map_or_else(String::new, |spread| {
            format!(" {}{}", theme.glyph("±", "+-"), amount(spread))
        });
        let sign = Span::styled(
            format!("{} ", chart.sign(theme, index)),
            theme.style(curve.role),
        );
        parts.push(vec![
            sign,
            Span::raw(format!("{} {}{smoothed}{spread}", curve.label, number(raw))),
        ]);
    }
    for (place, dot) in chart
        .dots
        .iter()
        .rev()
        .filter(|dot| dot.step == step)
        .enumerate()
    {
        let label = if place == 0 {
            format!("{} ", dot.label)
        } else {
            String::new()
        };
        let sign = Span::styled(format!("{} ", dot.sign), theme.style(dot.role));
        parts.push(vec![
            sign,
            Span::raw(format!("{label}{}", amount(dot.value))),
        ]);
    }
    parts
        .extend(at_step(run, step).map(|what| vec![Span::styled(what, theme.style(Role::Accent))]));
    parts
}

/// Events by step as letters for the axis; a rarer event hides a more frequent one, but a
/// checkpoint does not hide its eval.
fn marks(run: &FollowedRun) -> Vec<(u64, &'static str)> {
    let history = &run.history;
    let evals = history.evals.keys().map(|key| (key.step, "e"));
    let has_eval = |at: u64| history.evals.keys().any(|key| key.step == at);
    let checkpoints = history
        .checkpoints
        .keys()
        .map(|step| (*step, if has_eval(*step) { "C" } else { "c" }));
    let of = |notes: bool| {
        history
            .controls
            .iter()
            .filter(move |control| (control.verb == VerbName::Annotate) == notes)
            .map(|control| control.step)
    };
    evals
        .chain(checkpoints)
        .chain(of(false).map(|step| (step, "s")))
        .chain(of(true).map(|step| (step, "n")))
        .collect()
}

/// Meaning of a step's marks; `None` without marks.
fn at_step(run: &FollowedRun, step: u64) -> Option<String> {
    let history = &run.history;
    let checkpoint = history
        .checkpoints
        .contains_key(&step)
        .then(|| "checkpoint".to_owned());
    let requests = history
        .controls
        .iter()
        .filter(|control| control.step == step)
        .map(|control| text_width::one_line(&control_text(control)));
    let found: Vec<String> = checkpoint.into_iter().chain(requests).collect();
    (!found.is_empty()).then(|| found.join(", "))
}

/// Minimum columns and rows of a small chart.
const SMALL: (u16, u16) = (34, 7);

/// Box number of the filter line among those of the small charts.
pub(super) const FILTER: usize = usize::MAX;

/// As many small charts as fit, below their filter.
pub(super) fn small_places(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    area: Rect,
) -> Vec<Place> {
    let count = charts::small(live, shared, run).len();
    let filter = u16::from(live.metrics.is_shown());
    let [top, area] =
        Layout::vertical([Constraint::Length(filter), Constraint::Fill(1)]).areas(area);
    let across = (area.width / SMALL.0)
        .clamp(1, 6)
        .min(u16::try_from(count.max(1)).unwrap_or(u16::MAX));
    let most = (area.height / SMALL.1).max(1);
    let down = most.min(u16::try_from(count.max(1).div_ceil(across.into())).unwrap_or(most));
    let rows = Layout::vertical(vec![Constraint::Fill(1); down.into()]).split(area);
    let columns = |row: &Rect| {
        Layout::horizontal(vec![Constraint::Fill(1); across.into()])
            .split(*row)
            .to_vec()
    };
    let boxes = rows.iter().flat_map(columns).enumerate().take(count.max(1));
    let boxes = boxes.map(|(part, area)| Place {
        part,
        ..Place::new(METRICS, area)
    });
    let top = (filter > 0).then(|| Place {
        part: FILTER,
        ..Place::bare(METRICS, top)
    });
    top.into_iter().chain(boxes).collect()
}

/// A small chart, starting with the carousel's.
pub(super) fn small<'a>(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    place: &Place,
) -> Content<'a> {
    let (subjects, inside) = (charts::small(live, shared, run), place.inside());
    if place.part == FILTER {
        let note = counted(subjects.len(), "chart");
        return Content::default().fixed(vec![live.metrics.line(
            &shared.theme,
            inside.width.into(),
            &note,
        )]);
    }
    // The first chart shows the key.
    let pane = if place.part == 0 { METRICS } else { "" };
    if subjects.is_empty() {
        let line = Line::styled(
            "no metrics match the filter",
            shared.theme.style(Role::Faint),
        );
        return framed(shared, pane, "metrics").fixed(vec![line]);
    }
    let number = (live.view.small + place.part) % subjects.len();
    let subject = subjects[number];
    let title = format!("{} {}/{}", subject.title, number + 1, subjects.len());
    let (columns, rows) = (inside.width as usize, inside.height as usize);
    let chart = Chart {
        marks: Vec::new(),
        ..chart(live, shared, run, subject)
    };
    let note = if subject.note.is_empty() {
        Vec::new()
    } else {
        wrapped(note(run, subject), columns)
    };
    let mut lines = vec![if chart.cursor.is_some() {
        readout(shared, run, &chart, columns)
    } else {
        chart.legend(&shared.theme, columns)
    }];
    let with_note = if rows > 3 + note.len() { note.len() } else { 0 };
    lines.extend(chart.lines(&shared.theme, columns, rows.saturating_sub(1 + with_note)));
    lines.extend(
        note.into_iter()
            .take(with_note)
            .map(|text| Line::styled(text, shared.theme.style(Role::Faint))),
    );
    Content {
        opens: true,
        ..framed(shared, pane, title).fixed(lines)
    }
}

/// One line for narrow terminals: the reward as a sparkline.
pub(super) fn one_line(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    columns: usize,
) -> Line<'static> {
    let values = |name: &str| {
        run.history
            .metrics
            .get(name)
            .map(|series| up_to(series, live.last(run), 40))
            .unwrap_or_default()
    };
    let rewards = values("reward");
    let number = |values: &[f64]| or_na(values.last(), |value| amount(*value));
    let [head, tail] = [
        format!(" reward {} ", number(&rewards)),
        format!(
            " valid {} exact {}",
            number(&values("tiers/valid")),
            number(&values("exact"))
        ),
    ];
    let room = columns.saturating_sub(head.len() + tail.len()).min(40);
    Line::from(vec![
        Span::raw(head),
        Span::styled(
            sparkline(&shared.theme, &rewards, room, None),
            shared.theme.style(Role::SeriesOne),
        ),
        Span::raw(tail),
    ])
}

/// The latest `count` values up to a step.
pub(super) fn up_to(series: &Series, last: u64, count: u64) -> Vec<f64> {
    series
        .between((last + 1).saturating_sub(count), last)
        .map(|(_, value)| value)
        .collect()
}
