//! The lines of the forecast: failures and the checks before the start first, then a line each on time, memory, disk and
//! whether groups are informative, then their details, and differences from the last run.

use ratatui::text::{Line, Span};

use super::forecast::{Forecast, mark_of};
use super::key_help::last_value;
use super::start_run::learnability;
use super::{Launch, value};
use crate::config::KEYS;
use crate::facts::Tier;
use crate::format::{bytes, count, counted, duration, percent, percent_short};
use crate::plan::preflight::{Severity, titles};
use crate::plan::{CompletionLengths, Disk, Memory, SignalReport, Time, Verdict, unmeasured_time};
use crate::run::RowChanges;
use crate::shared::Shared;
use crate::style_role::Role;

/// All lines, for a width of columns.
pub(super) fn lines(launch: &Launch, shared: &Shared, columns: usize) -> Vec<Line<'static>> {
    let text = Text {
        launch,
        shared,
        columns,
    };
    let (mut lines, mut details) = (Vec::new(), Vec::new());
    if let Some(failure) = &launch.failure {
        lines.extend([text.marked(failure, Role::Bad, "✗ "), Line::default()]);
    }
    if let Some(job) = &launch.forecast_job {
        let seconds = shared.now_ms.saturating_sub(job.since_ms) / 1000;
        let what = if job.samples {
            "measuring and sampling"
        } else {
            "measuring"
        };
        let state = format!(
            "{what}, {seconds} s; {} cancels",
            shared.key_of("launch.cancel")
        );
        lines.push(text.marked(&state, Role::Accent, "◌ "));
        if !job.progress.is_empty() {
            lines.push(text.faint(&job.progress));
        }
        lines.push(Line::default());
    }
    // Asked for, and the last to come.
    if let Some(measured) = &launch.signal {
        if measured.is_stale(&launch.form) {
            lines.push(text.stale("launch.can_it_learn"));
        }
        text.verdict(&measured.value, &mut lines);
        lines.push(Line::default());
    }
    text.preflight(&mut lines);
    match &launch.forecast {
        Some(measured) => {
            if measured.is_stale(&launch.form) {
                lines.push(text.stale("launch.forecast"));
            }
            text.forecast(&measured.value, &mut lines, &mut details);
        }
        None if launch.forecast_job.is_none() => {
            lines.push(Line::from("No forecast yet."));
            lines.push(text.keyed("launch.forecast", "forecast memory, time and disk"));
            lines.push(text.keyed("launch.can_it_learn", "forecast and check learnability"));
        }
        None => {}
    }
    if let Some(measured) = &launch.signal {
        text.signal(&measured.value, &mut details);
    }
    lines.push(Line::default());
    if !details.is_empty() {
        lines.append(&mut details);
        lines.push(Line::default());
    }
    text.differences(&mut lines);
    lines
}

struct Text<'a> {
    launch: &'a Launch,
    shared: &'a Shared,
    columns: usize,
}

impl Text<'_> {
    /// Every finding, then what passed and what was not checked.
    fn preflight(&self, lines: &mut Vec<Line<'static>>) {
        let (found, shared) = (&self.launch.preflight, self.shared);
        if shared.task_error.is_some() {
            lines.extend([
                self.faint("preflight not checked: the task cannot be read"),
                Line::default(),
            ]);
            return;
        }
        let passed = titles(found.passed());
        if !found.findings.is_empty() {
            lines.push(self.title(&format!("preflight: {}", found.summary())));
        }
        for finding in &found.findings {
            let role = if finding.severity == Severity::Error {
                Role::Bad
            } else {
                Role::Warning
            };
            let mut parts = finding.message.lines();
            let first = parts.next().unwrap_or_default();
            lines.push(self.marked(first, role, mark_of(finding.severity)));
            let style = self.shared.theme.style(role);
            lines.extend(parts.map(|part| Line::styled(format!("  {part}"), style)));
        }
        lines.extend(found.notes.iter().map(|note| self.faint(note)));
        if shared.is_busy("launch.data") {
            lines.push(self.marked("checking prompt sets ...", Role::Accent, "◌ "));
        } else if found.findings.is_empty() && found.not_checked.is_empty() {
            lines.push(self.marked("preflight: all checks passed", Role::Good, "✓ "));
        } else {
            if !passed.is_empty() {
                lines.push(self.marked(&format!("preflight passed: {passed}"), Role::Good, "✓ "));
            }
            let keys = format!(
                "{} or {}",
                shared.key_of("launch.forecast"),
                shared.key_of("launch.can_it_learn")
            );
            let open = titles(found.not_checked.iter().copied());
            if !open.is_empty() {
                lines.push(self.faint(&format!("{open} not checked: press {keys}")));
            }
        }
        lines.push(Line::default());
    }

    fn forecast(
        &self,
        forecast: &Forecast,
        lines: &mut Vec<Line<'static>>,
        details: &mut Vec<Line<'static>>,
    ) {
        if let Some(why) = &forecast.why {
            lines.push(self.marked(why, Role::Bad, "✗ "));
        } else {
            let share = percent(forecast.trainable as f64 / forecast.parameters.max(1) as f64);
            lines.push(Line::from(format!(
                "{} on {}; {} weights, {share} trained",
                counted(forecast.steps as usize, "step"),
                forecast.device,
                count(forecast.parameters)
            )));
        }
        if let Some(time) = &forecast.time {
            lines.push(Line::from(format!(
                "time    {}; {} per step",
                time.total(),
                time.per_step()
            )));
            self.time(time, forecast.completion_lengths.as_ref(), details);
        } else if forecast.why.is_none() {
            lines.push(Line::from(unmeasured_time(
                forecast.recorded_seconds_per_step,
                forecast.steps,
            )));
        }
        self.memory(&forecast.memory, lines, details);
        if let Some(disk) = &forecast.disk {
            // Without measured lengths, completions are counted at the limit.
            let is_upper_bound = forecast.time.is_none_or(|time| time.is_upper_bound);
            self.disk(
                disk,
                if is_upper_bound { "at most " } else { "" },
                lines,
                details,
            );
        }
    }

    fn memory(
        &self,
        memory: &Memory,
        lines: &mut Vec<Line<'static>>,
        details: &mut Vec<Line<'static>>,
    ) {
        let whole = memory.machine_bytes.unwrap_or(memory.peak_bytes).max(1);
        let fits = memory
            .machine_bytes
            .is_none_or(|machine| memory.peak_bytes <= machine);
        let of = memory.machine_bytes.map_or_else(String::new, |machine| {
            format!(
                " of {} ({})",
                bytes(machine),
                percent_short(memory.peak_bytes as f64 / machine as f64)
            )
        });
        let verdict = if fits {
            String::new()
        } else {
            ", too big".to_owned()
        };
        let role = if fits { Role::Good } else { Role::Bad };
        lines.push(Line::from(vec![
            Span::raw("memory  "),
            Span::styled(
                self.bar(memory.peak_bytes as f64 / whole as f64, 6),
                self.shared.theme.style(role),
            ),
            Span::raw(format!(" {}{of}", bytes(memory.peak_bytes))),
            Span::styled(verdict, self.shared.theme.style(Role::Bad)),
        ]));
        if !memory.parts.is_empty() {
            details.push(self.title("memory"));
        }
        for part in &memory.parts {
            let when = part.phase.label();
            let size = format!("{:>9}", bytes(part.bytes));
            let bar = self.bar(part.bytes as f64 / memory.peak_bytes.max(1) as f64, 6);
            details.push(Line::from(vec![
                Span::raw(format!("{size} ")),
                Span::styled(bar, self.shared.theme.style(Role::SeriesOne)),
                Span::raw(format!(" {}", part.name)),
                Span::styled(
                    if when.is_empty() {
                        String::new()
                    } else {
                        format!(", {when}")
                    },
                    self.shared.theme.style(Role::Faint),
                ),
            ]));
        }
        if memory.peak_recomputed_bytes < memory.peak_bytes {
            details.push(self.faint(&format!(
                "{:>9} peak with recompute_activations = always",
                bytes(memory.peak_recomputed_bytes)
            )));
        }
    }

    fn time(
        &self,
        time: &Time,
        lengths: Option<&CompletionLengths>,
        lines: &mut Vec<Line<'static>>,
    ) {
        lines.push(self.title("time, if all groups are mixed"));
        lines.push(self.faint(&time.basis()));
        if let Some(lengths) = lengths {
            lines.push(self.faint(&lengths.described()));
        }
        if let Some(least) = time.lower_bound() {
            lines.push(self.faint(&format!("{least} with lengths as sampled")));
        }
        lines.extend(time.sharding_text().map(|divided| self.faint(&divided)));
        let step = time.seconds_per_step.max(1e-12);
        for (name, seconds) in [
            ("prefill", time.prefill_seconds_per_step),
            ("decode", time.decode_seconds_per_step),
            ("gradient", time.training_seconds_per_step),
        ] {
            lines.push(Line::from(vec![
                Span::raw(format!("{:>9} ", duration(seconds))),
                Span::styled(
                    self.bar(seconds / step, 6),
                    self.shared.theme.style(Role::SeriesTwo),
                ),
                Span::raw(format!(" {name}, {}", percent_short(seconds / step))),
            ]));
        }
        let evals = format!(
            "{:>9} {}, and the test set before and after",
            duration(time.eval_seconds),
            counted(time.evals as usize, "eval")
        );
        lines.push(self.faint(&evals));
    }

    fn disk(
        &self,
        disk: &Disk,
        bound: &str,
        lines: &mut Vec<Line<'static>>,
        details: &mut Vec<Line<'static>>,
    ) {
        let free = disk
            .free_bytes
            .map_or_else(String::new, |free| format!("; {} are free", bytes(free)));
        let short = disk.free_bytes.is_some_and(|free| free < disk.total_bytes);
        let role = if short { Role::Bad } else { Role::Text };
        let short = if short { ": does not fit" } else { "" };
        let text = format!("disk    {bound}{}{free}{short}", bytes(disk.total_bytes));
        lines.push(Line::styled(text, self.shared.theme.style(role)));
        details.push(self.title("disk"));
        details.push(self.faint(&format!(
            "{} of {}, rollouts {}, evals {}",
            counted(disk.checkpoints as usize, "checkpoint"),
            bytes(disk.checkpoint_bytes),
            bytes(disk.rollouts_bytes),
            bytes(disk.evals_bytes)
        )));
    }

    fn verdict(&self, signal: &SignalReport, lines: &mut Vec<Line<'static>>) {
        let (role, marks) = match signal.advice.verdict {
            Verdict::CanLearn => (Role::Good, "✓ "),
            Verdict::NothingToLearn => (Role::Warning, "▲ "),
            Verdict::CannotLearn => (Role::Bad, "✗ "),
        };
        lines.push(self.marked(&learnability(signal), role, marks));
    }

    fn signal(&self, signal: &SignalReport, lines: &mut Vec<Line<'static>>) {
        lines.push(self.title("learnability"));
        lines.push(Line::from(format!(
            "{} of {} groups mixed ({} to {}), {} all max, {} all min, {} all equal",
            percent_short(signal.informative),
            signal.prompts,
            percent_short(signal.informative_interval[0]),
            percent_short(signal.informative_interval[1]),
            percent_short(signal.all_max),
            percent_short(signal.all_min),
            percent_short(signal.all_equal)
        )));
        for (tier, share) in [
            (Tier::Valid, signal.tiers.valid),
            (Tier::Invalid, signal.tiers.invalid),
            (Tier::Unparsable, signal.tiers.unparsable),
        ] {
            let theme = &self.shared.theme;
            lines.push(Line::from(vec![
                Span::styled(
                    self.bar(share, 10),
                    theme.style(crate::theme::Theme::tier_role(tier)),
                ),
                Span::raw(format!(" {:>5} {tier}", percent_short(share))),
            ]));
        }
        let failures: Vec<String> = signal
            .failures
            .iter()
            .map(|(class, share)| format!("{class} {}", percent_short(*share)))
            .collect();
        if !failures.is_empty() {
            lines.push(self.faint(&format!(
                "failures: {}; {} truncated",
                failures.join(", "),
                percent_short(signal.truncated)
            )));
        }
        lines.extend(
            signal
                .advice
                .changes
                .iter()
                .map(|change| Line::from(format!("- {change}"))),
        );
    }

    fn differences(&self, lines: &mut Vec<Line<'static>>) {
        let Some(context) = &self.launch.context else {
            lines.push(self.faint("loading the last run ..."));
            return;
        };
        let Some(last) = &context.last else {
            lines.push(self.title("last run"));
            lines.push(self.faint("no runs of this task yet"));
            return;
        };
        lines.push(self.title(&format!("diff to last run, {}", last.id)));
        let keys = KEYS.iter().filter_map(|key| {
            let (now, then) = (
                value(self.launch, key),
                last_value(self.launch, key).unwrap_or_default(),
            );
            let shown = |text: &str| {
                if text.is_empty() {
                    "empty".to_owned()
                } else {
                    super::context::short_name(text)
                }
            };
            (now != then).then(|| (key.name.to_owned(), shown(&then), shown(&now)))
        });
        let digest = |digest: &Option<String>| {
            digest.as_ref().map_or_else(
                || "none".to_owned(),
                |digest| digest.chars().take(8).collect(),
            )
        };
        let files = last.files.iter().map(|file| {
            let rows = file
                .rows
                .map(RowChanges::summary)
                .filter(|rows| !rows.is_empty());
            let rows = rows.map_or_else(String::new, |rows| format!(" (rows: {rows})"));
            (
                file.name.clone(),
                digest(&file.before),
                digest(&file.after) + &rows,
            )
        });
        let differences: Vec<_> = files.chain(keys).collect();
        if differences.is_empty() {
            lines.push(self.faint("no difference: same configuration and task files"));
        }
        for (name, then, now) in differences {
            lines.push(Line::from(vec![
                Span::raw(format!("{name} ")),
                Span::styled(then, self.shared.theme.style(Role::Removed)),
                Span::styled(" → ", self.shared.theme.style(Role::Faint)),
                Span::styled(now, self.shared.theme.style(Role::Added)),
            ]));
        }
        if self.shared.draft.is_changed() {
            lines.push(self.marked(
                &format!(
                    "the {} in the editor is not saved: the run uses the saved file",
                    self.shared.draft.name()
                ),
                Role::Warning,
                "▲ ",
            ));
        }
    }

    /// A share in [0, 1] as a bar, to an eighth of a column if non-ASCII characters may be drawn.
    fn bar(&self, share: f64, columns: usize) -> String {
        const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let theme = &self.shared.theme;
        if theme.linear {
            return String::new();
        }
        let columns = columns.min(self.columns / 4).max(1);
        let filled = share.clamp(0.0, 1.0) * columns as f64;
        let (full, rest) = if theme.ascii {
            ((filled.round() as usize).min(columns), "")
        } else {
            let eighths = if share > 0.0 {
                ((filled * 8.0).round() as usize).max(1)
            } else {
                0
            };
            (
                (eighths / 8).min(columns),
                EIGHTHS.get(eighths % 8).copied().unwrap_or_default(),
            )
        };
        let blanks = columns.saturating_sub(full + usize::from(!rest.is_empty()));
        format!(
            "{}{rest}{}",
            "█".repeat(full),
            theme.glyph(" ", ".").repeat(blanks)
        )
    }

    fn title(&self, text: &str) -> Line<'static> {
        Line::styled(text.to_owned(), self.shared.theme.style(Role::Title))
    }

    fn faint(&self, text: &str) -> Line<'static> {
        Line::styled(text.to_owned(), self.shared.theme.style(Role::Faint))
    }

    fn marked(&self, text: &str, role: Role, mark: &'static str) -> Line<'static> {
        Line::styled(format!("{mark}{text}"), self.shared.theme.style(role))
    }

    fn stale(&self, id: &str) -> Line<'static> {
        let text = format!(
            "stale: settings changed; {} updates",
            self.shared.key_of(id)
        );
        self.marked(&text, Role::Warning, "▲ ")
    }

    fn keyed(&self, id: &str, text: &str) -> Line<'static> {
        Line::from(vec![
            Span::styled(
                format!("{}  ", self.shared.key_of(id)),
                self.shared.theme.style(Role::Key),
            ),
            Span::raw(text.to_owned()),
        ])
    }
}
