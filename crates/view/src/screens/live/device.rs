//! Phase times of a step, and the state of the device, or of each rank's.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::frame::{LegendEntry, framed, legend};
use super::{DEVICE, Live};
use crate::followed_run::FollowedRun;
use crate::format::{bytes, counted, duration, percent_short};
use crate::page::Block;
use crate::pane::content::Content;
use crate::pane::page::PageLines;
use crate::report::rank_table;
use crate::run::Series;
use crate::run::events::{Device, RankStep};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::bars::{gauge, sparkline};
use crate::widgets::stacked_bar::{Band, stack};
use crate::widgets::text_width::one_line;

/// By metric: the name, the sign, the role.
const PHASES: [(&str, &str, &str, Role); 3] = [
    ("time/rollout", "rollout", "█", Role::SeriesOne),
    ("time/score", "score", "░", Role::SeriesThree),
    ("time/update", "update", "▓", Role::SeriesTwo),
];

/// The rest of a step's time.
const OTHER: (&str, Role) = ("·", Role::Faint);

/// Whether the run is on GPUs or ranks: else the pane shares its place.
pub(super) fn is_shown(run: &FollowedRun) -> bool {
    let name = run
        .history
        .run
        .as_ref()
        .map_or("", |run| run.device.as_str());
    !name.starts_with("cpu") || !run.history.ranks.is_empty()
}

pub(super) fn content<'a>(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    inside: Rect,
) -> Content<'a> {
    let step = Step::at_current(live, run);
    let columns = usize::from(inside.width);
    let ranks = &run.history.ranks;
    let seconds = step
        .as_ref()
        .map(|step| format!("step time {}", duration(step.seconds)));
    let title = match (seconds, run.history.last_step) {
        (Some(seconds), _) if ranks.is_empty() => seconds,
        (Some(seconds), last) if last == live.at(run) => format!("{seconds} by rank"),
        (Some(seconds), last) => format!("{seconds}; ranks of step {last}"),
        (None, _) => "time and device".to_owned(),
    };
    let signs = step.iter().flat_map(|step| step.legend());
    let legend = legend(&shared.theme, signs, columns);
    let device = match ranks.is_empty() {
        true => device(shared, run, columns),
        false => rank_rows(
            shared,
            ranks,
            columns,
            (inside.height as usize).saturating_sub(1),
        ),
    };
    let mut lines = match step {
        Some(step) => vec![step.bar(&shared.theme, columns)],
        None => vec![Line::styled(
            "no step times yet",
            shared.theme.style(Role::Faint),
        )],
    };
    // Over steps, where the device leaves room.
    let needed: usize = device
        .iter()
        .map(|line| line.width().div_ceil(columns.max(1)))
        .sum();
    lines.extend(over_steps(
        live,
        shared,
        run,
        columns,
        (inside.height as usize).saturating_sub(1 + needed),
    ));
    lines.extend(device);
    Content {
        legend,
        ..framed(shared, DEVICE, title).text(inside, lines, live.device_top)
    }
}

/// The time of one step by phase.
struct Step {
    seconds: f64,
    /// The share of each phase; `None` if it was not measured.
    shares: [Option<f64>; PHASES.len()],
}

impl Step {
    /// The selected step; `None` if its time is unknown.
    fn at_current(live: &Live, run: &FollowedRun) -> Option<Self> {
        let value = |name: &str| {
            run.history
                .metric_at(name, live.at(run))
                .filter(|value| value.is_finite())
        };
        let parts = PHASES.map(|(metric, ..)| value(metric));
        let known: f64 = parts.iter().flatten().sum();
        let seconds = value("step_time").or_else(|| value("seconds"))?.max(known);
        (seconds > 0.0).then(|| Self {
            seconds,
            shares: parts.map(|part| part.map(|part| part / seconds)),
        })
    }

    fn other(&self) -> f64 {
        (1.0 - self.shares.iter().flatten().sum::<f64>()).max(0.0)
    }

    /// Exactly `columns` wide: rounded at the ends of the phases, so that errors do not add up.
    fn bar(&self, theme: &Theme, columns: usize) -> Line<'static> {
        // In linear mode the legend says the same.
        let columns = if theme.linear { 0 } else { columns };
        let (mut end, mut drawn) = (0.0, 0);
        let mut part = |share: f64, sign: &str, role: Role| {
            end += share;
            let until = ((end * columns as f64).round() as usize).min(columns);
            let width = until - drawn.min(until);
            drawn = until;
            Span::styled(sign.repeat(width), theme.style(role))
        };
        let phases = PHASES.iter().zip(self.shares);
        let mut spans: Vec<Span<'static>> = phases
            .map(|((.., sign, role), share)| part(share.unwrap_or(0.0), sign, *role))
            .collect();
        spans.push(part(1.0, OTHER.0, OTHER.1));
        Line::from(spans)
    }

    /// The phases, longest first.
    fn legend(&self) -> Vec<LegendEntry> {
        let phases = PHASES.iter().zip(self.shares);
        let phases =
            phases.filter_map(|((_, name, sign, role), share)| Some((share?, *sign, *role, *name)));
        let other = (self.other(), OTHER.0, OTHER.1, "other");
        let mut all: Vec<_> = phases
            .chain((self.other() >= 0.005).then_some(other))
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        all.into_iter()
            .map(|(share, sign, role, name)| {
                LegendEntry::new(sign, role, format!("{name} {}", percent_short(share)))
            })
            .collect()
    }
}

/// Seconds of each phase over the visible steps as stacked bars: the longest step fills the height.
fn over_steps(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    columns: usize,
    rows: usize,
) -> Vec<Line<'static>> {
    let (first, last) = live.view.steps(live.last(run));
    let (first, most) = (first.max(1), columns as u64);
    // One column a step: of a long run the latest.
    let first = first.max((last + 1).saturating_sub(most));
    let longest = run.history.metrics.get("seconds").map_or(0.0, |series| {
        series
            .between(first, last)
            .map(|(_, seconds)| seconds)
            .filter(|seconds| seconds.is_finite())
            .fold(0.0, f64::max)
    });
    if rows < 3 || longest <= 0.0 || last <= first {
        return Vec::new();
    }
    let theme = &shared.theme;
    let shares: Vec<Option<Series>> = PHASES
        .iter()
        .map(|(metric, ..)| {
            let series = run.history.metrics.get(*metric)?;
            Some(
                series
                    .between(first, last)
                    .map(|(step, seconds)| (step, seconds / longest))
                    .collect(),
            )
        })
        .collect();
    let band = |((.., sign, role), series): (&(_, _, &'static str, Role), _)| Band {
        series,
        sign,
        role: *role,
    };
    let bands: Vec<Band<'_>> = PHASES
        .iter()
        .zip(shares.iter().map(Option::as_ref))
        .map(band)
        .collect();
    let text = format!("steps {first} to {last}, at most {}", duration(longest));
    let mut lines = vec![Line::styled(text, theme.style(Role::Faint))];
    lines.extend(stack(theme, &bands, (first, last), columns, rows - 1));
    lines
}

/// Each rank's part of the last step; ranks that do not fit are counted.
fn rank_rows(
    shared: &Shared,
    ranks: &[RankStep],
    columns: usize,
    rows: usize,
) -> Vec<Line<'static>> {
    let mut table = rank_table(ranks);
    if ranks.len() >= rows {
        table.rows.truncate(rows.saturating_sub(2));
    }
    let more = ranks.len() - table.rows.len();
    let mut page = vec![Block::Table(table)];
    if more > 0 {
        let key = shared.key_of("pane.zoom");
        let text = format!("and {}: {key} zooms", counted(more, "more rank"));
        page.push(Block::detail(text));
    }
    PageLines {
        theme: &shared.theme,
        columns,
    }
    .lines(&page)
}

/// The state of the device, or a sentence if it is not measured.
fn device(shared: &Shared, run: &FollowedRun, columns: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let Some(now) = &run.history.device else {
        let name = run
            .history
            .run
            .as_ref()
            .map(|run| one_line(&run.device))
            .filter(|name| !name.is_empty());
        let text = match name {
            Some(name) if name.starts_with("cpu") => {
                format!("{name}: memory, power and temperature are measured on GPUs only")
            }
            Some(name) => format!("{name}: no readings yet"),
            None => "device unknown".to_owned(),
        };
        return vec![Line::styled(text, theme.style(Role::Faint))];
    };
    let wide = columns.saturating_sub(31).clamp(6, 24);
    let history = |of: fn(&Device) -> Option<f64>| {
        let values: Vec<f64> = run
            .conditions
            .iter()
            .map(|(_, device)| of(device).unwrap_or(f64::NAN))
            .collect();
        sparkline(theme, &values, columns.saturating_sub(wide + 18), None)
    };
    let mut lines = Vec::new();
    if let Some(share) = now.utilisation {
        lines.push(Line::raw(format!(
            "utilization {} {:>5}  {}",
            gauge(theme, share, wide),
            percent_short(share),
            history(|device| device.utilisation)
        )));
    }
    if let (Some(used), Some(all)) = (
        now.memory_used_bytes,
        now.memory_total_bytes.filter(|all| *all > 0),
    ) {
        let share = used as f64 / all as f64;
        lines.push(Line::raw(format!(
            "memory {} {} of {}",
            gauge(theme, share, wide),
            bytes(used),
            bytes(all)
        )));
    }
    let power = now
        .power_watts
        .map(|watts| format!("{watts:.0} W {}", history(|device| device.power_watts)));
    let heat = now
        .temperature_celsius
        .map(|celsius| format!("{celsius:.0} {}", theme.glyph("°C", "C")));
    let rest: Vec<String> = heat.into_iter().chain(power).collect();
    if !rest.is_empty() {
        lines.push(Line::raw(rest.join("  ")));
    }
    lines
}
