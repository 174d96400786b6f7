//! Phase times of a step, and the state of the device.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::Live;
use crate::format::{bytes, duration, percent_short};
use crate::run::events::Device;
use crate::view::followed_run::FollowedRun;
use crate::view::pane::framed;
use crate::view::shared::Shared;
use crate::view::style_role::Role;
use crate::view::widgets::bars::{gauge, sparkline};
use crate::view::widgets::text_width::one_line;

const PHASES: [(&str, Role); 5] = [
    ("rollout", Role::SeriesOne),
    ("score", Role::SeriesTwo),
    ("update", Role::SeriesThree),
    ("sync", Role::SeriesFour),
    ("eval", Role::Trained),
];

pub(super) fn draw(live: &Live, shared: &Shared, run: &FollowedRun, frame: &mut Frame<'_>, area: Rect, focused: bool) {
    let inside = framed(&shared.theme, "time and device", focused, frame, area);
    let mut lines = phases(live, shared, run, inside.width as usize);
    lines.extend(device(shared, run, inside.width as usize));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inside);
}

/// Shares of the step's time.
fn phases(live: &Live, shared: &Shared, run: &FollowedRun, columns: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let step = live.at(run);
    let value =
        |name: &str| run.history.metrics.get(name).and_then(|series| series.at(step)).filter(|value| value.is_finite());
    let parts: Vec<(&str, Role, f64)> =
        PHASES.iter().filter_map(|(name, role)| Some((*name, *role, value(&format!("time/{name}"))?))).collect();
    let known: f64 = parts.iter().map(|(.., seconds)| seconds).sum();
    let Some(whole) =
        value("step_time").or_else(|| value("seconds")).map(|whole| whole.max(known)).filter(|whole| *whole > 0.0)
    else {
        return vec![Line::styled("no step times yet", theme.style(Role::Faint))];
    };
    let mut bar = Vec::new();
    let mut text = duration(whole);
    for (name, role, seconds) in &parts {
        let share = seconds / whole;
        let width = (share * columns as f64).round() as usize;
        let sign = name.chars().next().map_or_else(String::new, |letter| letter.to_string());
        bar.push(Span::styled(sign.repeat(width), theme.style(*role)));
        text.push_str(&format!("{} {name} {}", if text.contains(':') { "," } else { ":" }, percent_short(share)));
    }
    vec![Line::from(bar), Line::raw(text)]
}

/// The state of the device, or a sentence if it is not measured.
fn device(shared: &Shared, run: &FollowedRun, columns: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let Some(now) = &run.history.device else {
        let name = run.history.run.as_ref().map(|run| one_line(&run.device)).filter(|name| !name.is_empty());
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
        let values: Vec<f64> = run.conditions.iter().map(|(_, device)| of(device).unwrap_or(f64::NAN)).collect();
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
    if let (Some(used), Some(all)) = (now.memory_used_bytes, now.memory_total_bytes.filter(|all| *all > 0)) {
        let share = used as f64 / all as f64;
        lines.push(Line::raw(format!("memory {} {} of {}", gauge(theme, share, wide), bytes(used), bytes(all))));
    }
    let power = now.power_watts.map(|watts| format!("{watts:.0} W {}", history(|device| device.power_watts)));
    let heat = now.temperature_celsius.map(|celsius| format!("{celsius:.0} {}", theme.glyph("°C", "C")));
    let rest: Vec<String> = heat.into_iter().chain(power).collect();
    if !rest.is_empty() {
        lines.push(Line::raw(rest.join("  ")));
    }
    lines
}
