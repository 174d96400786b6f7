//! The two header lines: the run and its status, its progress and speed.

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::facts::Target;
use crate::followed_run::FollowedRun;
use crate::format::{amount, counted, duration, or_na, percent_short, short_id};
use crate::report::{Level, RunRow, eval_count, eval_pace, eval_rates};
use crate::run::{EvalProgress, State, Status, is_recording};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::task::{PromptSet, SetName, task_metric};
use crate::widgets::bars::gauge;
use crate::widgets::text_width::{fitted as cut, one_line};

/// A worker without events for this long is reported as silent, unless its steps are longer.
const SILENT_MS: u64 = 60_000;

/// The lines, at most `columns` wide.
pub(super) fn lines(shared: &Shared, run: &FollowedRun, columns: usize) -> Vec<Line<'static>> {
    vec![
        fitted(state(shared, run, columns), columns),
        fitted(progress(shared, run, columns), columns),
    ]
}

/// The run: status, read error, cause, open alerts, name, task, model and device. The most important parts come first;
/// an error is truncated rather than left out.
fn state(shared: &Shared, run: &FollowedRun, columns: usize) -> Vec<Span<'static>> {
    let theme = &shared.theme;
    let status = run.status();
    let cause = run.state.as_ref().and_then(|state| state.cause.clone());
    let (sign, role) = theme.status_mark(status, cause.as_ref(), &run.outcome);
    let mut spans = vec![Span::styled(
        format!(" {sign} {}", status.name()),
        theme.style(role),
    )];
    if let Some(error) = run.error.as_ref().filter(|_| run.loaded) {
        let room = columns.saturating_sub(spans.iter().map(|span| span.content.width()).sum());
        spans.push(Span::styled(
            cut(&format!("  {error}"), room),
            theme.style(Role::Bad),
        ));
    }
    if let Some(waits) = waits_for(shared, run) {
        spans.push(Span::styled(format!(" {waits}"), theme.style(role)));
    } else if let Some(cause) = cause.filter(|cause| !cause.is_empty()) {
        spans.push(Span::styled(
            format!(": {}", one_line(&cause)),
            theme.style(role),
        ));
    } else if let Some(eval) = eval_under_way(run) {
        let pace = eval_pace(eval);
        let text = if pace.is_empty() {
            String::new()
        } else {
            format!(", {pace}")
        };
        spans.push(Span::styled(
            format!(": {}", one_line(&eval_count(eval))),
            theme.style(Role::Text),
        ));
        spans.push(Span::styled(text, theme.style(Role::Faint)));
    } else if let Some(phase) = run
        .history
        .phase
        .as_ref()
        .filter(|_| !status.is_ended() && status != Status::Paused)
    {
        spans.push(Span::styled(
            format!(": {}", phase.phase),
            theme.style(Role::Faint),
        ));
    }
    if run.state.as_ref().is_some_and(State::pauses_later) {
        spans.push(Span::styled(
            format!(
                "  pause requested, {} takes it back",
                shared.key_of("live.pause")
            ),
            theme.style(Role::Warning),
        ));
    }
    if is_recording(run.path()) {
        spans.push(Span::styled("  recording", theme.style(Role::Marked)));
    }
    if let Some(silent) = silent_seconds(shared, run) {
        spans.push(Span::styled(
            format!("  ▲ no update for {}", duration(silent)),
            theme.style(Role::Warning),
        ));
    }
    let mut alerts = run.history.standing_alerts();
    if let Some(worst) = alerts.next() {
        let (mark, role) = theme.alert_mark(worst);
        spans.push(Span::styled(
            format!("  {mark}{}", counted(1 + alerts.count(), "alert")),
            theme.style(role),
        ));
    }
    if run.outcome.is_known() {
        spans.push(Span::styled(
            format!("  {}", run.outcome.beside_base()),
            theme.style(run.outcome.level().into()),
        ));
    }
    if let Some(directory) = &run.directory {
        let file = directory.file();
        let name = if directory.name().is_empty() {
            short_id(&file.id)
        } else {
            directory.name()
        };
        spans.push(Span::styled(
            format!("  {}", one_line(name)),
            theme.style(Role::Title),
        ));
        spans.push(Span::styled(
            format!("  {} on {}", file.task, one_line(&file.config.base_model)),
            theme.style(Role::Text),
        ));
    }
    if let Some(begun) = &run.history.run {
        spans.push(Span::styled(
            format!("  {}", one_line(&begun.device)),
            theme.style(Role::Faint),
        ));
    }
    spans
}

/// `for 2dsvws first (about 36 s)`; `None` if no listed run has the device for which this one waits.
pub(super) fn waits_for(shared: &Shared, run: &FollowedRun) -> Option<String> {
    let holder = holder(shared, run)?;
    let left = holder
        .seconds_to_end()
        .map_or_else(String::new, |left| format!(" (about {})", duration(left)));
    Some(format!("for {}{left}", name_of(holder)))
}

/// The listed run that has the device for which a run waits.
pub(super) fn holder<'a>(shared: &'a Shared, run: &FollowedRun) -> Option<&'a RunRow> {
    let entries = shared.runs.listing.entries().iter();
    let rows = entries.filter_map(|entry| entry.row.as_deref().ok());
    let own = rows
        .clone()
        .find(|row| row.directory.path() == run.path())?;
    own.holder(rows)
}

/// Its short id with its name, or the task.
fn name_of(row: &RunRow) -> String {
    let named = match row.directory.name() {
        "" => &row.directory.file().task,
        name => name,
    };
    format!("{} {}", short_id(row.directory.id()), one_line(named))
}

/// The eval that the worker is sampling.
pub(super) fn eval_under_way(run: &FollowedRun) -> Option<&EvalProgress> {
    run.state.as_ref().and_then(State::eval_under_way)
}

/// Progress, remaining time, and speed.
fn progress(shared: &Shared, run: &FollowedRun, columns: usize) -> Vec<Span<'static>> {
    let theme = &shared.theme;
    let (done, total) = (
        run.history.last_step,
        run.history.planned_steps().unwrap_or(0),
    );
    let share = if total > 0 {
        done as f64 / total as f64
    } else {
        0.0
    };
    let mut spans = vec![
        Span::raw(format!(" step {done}")),
        Span::raw(if total > 0 {
            format!(" of {total} ")
        } else {
            " ".to_owned()
        }),
    ];
    let so_far = eval_under_way(run).map(eval_rates).unwrap_or_default();
    let known = if so_far.is_empty() {
        rates(run).into_iter().collect()
    } else {
        so_far
    };
    let role = if run.outcome.level() == Level::Warning {
        Role::Warning
    } else {
        Role::Text
    };
    let rates: Vec<_> = known
        .iter()
        .map(|text| Span::styled(format!("  {text}"), theme.style(role)))
        .collect();
    let took = took(run).map(|text| Span::styled(text, theme.style(Role::Faint)));
    if total > 0 {
        let share_text = Span::raw(format!(" {}", percent_short(share)));
        // The rates matter more than a long bar.
        let beside: usize = spans
            .iter()
            .chain(&rates)
            .chain(&took)
            .chain([&share_text])
            .map(Span::width)
            .sum();
        let bar = gauge(
            theme,
            share,
            (columns / 5)
                .clamp(6, 30)
                .min(columns.saturating_sub(beside).max(6)),
        );
        spans.extend([Span::styled(bar, theme.style(Role::Accent)), share_text]);
    }
    spans.extend(rates);
    spans.extend(took);
    spans.extend(
        guard(run).map(|(text, role)| Span::styled(format!("  {text}"), theme.style(role))),
    );
    if let Some(seconds) = run.history.seconds_per_step() {
        if let Some(left) = run
            .history
            .seconds_left()
            .filter(|_| !run.status().is_ended())
        {
            spans.push(Span::raw(format!("  ETA {}", duration(left))));
        }
        spans.push(Span::raw(format!("  {}/step", duration(seconds))));
    }
    for (name, word) in [
        ("tokens_per_second/rollout", "tok/s sampled"),
        ("tokens_per_second/train", "tok/s trained"),
    ] {
        if let Some(value) = run.history.metric_at(name, done) {
            spans.push(Span::raw(format!("  {} {word}", amount(value.round()))));
        }
    }
    if run.history.resumed > 0 {
        spans.push(Span::styled(
            format!("  resumed {}x", run.history.resumed),
            theme.style(Role::Faint),
        ));
    }
    spans
}

/// The duration of a run that has ended.
fn took(run: &FollowedRun) -> Option<String> {
    let history = &run.history;
    match run.status() {
        Status::Finished | Status::Failed | Status::Interrupted => {
            let seconds = history.last_ms?.saturating_sub(history.first_ms?) as f64 / 1000.0;
            Some(format!("  took {}", duration(seconds)))
        }
        _ => None,
    }
}

/// Valid and exact of the latest eval of the trained model, else of the last step's completions; of several tasks of
/// each.
fn rates(run: &FollowedRun) -> Option<String> {
    let (history, step) = (&run.history, run.history.last_step);
    let of_task = |task: &&str| {
        let metric = |name: &str| match *task {
            "" => history.metric_at(name, step),
            task => history.metric_at(&task_metric(task, name), step),
        };
        let set = SetName::new(PromptSet::Eval, task);
        let (valid, exact, of) = match history.latest_eval(&set, Target::Trained) {
            Some(eval) => (
                eval.summary.valid,
                eval.summary.exact,
                format!("eval {}", eval.step),
            ),
            None => (
                metric("tiers/valid")?,
                metric("exact"),
                format!("train {step}"),
            ),
        };
        let (valid, exact) = (percent_short(valid), or_na(exact, percent_short));
        let text = match *task {
            "" => format!("valid {valid} exact {exact}"),
            task => format!("{task} {valid}/{exact}"),
        };
        Some((text, of))
    };
    let (rates, of): (Vec<String>, Vec<String>) =
        history.task_names().iter().filter_map(of_task).unzip();
    let (of, several) = (
        of.last()?,
        if rates.len() > 1 { "valid/exact " } else { "" },
    );
    Some(format!("{several}{} ({of})", rates.join(" ")))
}

/// The guard prompts' change since step 0; before a second measurement, their value.
pub(super) fn guard(run: &FollowedRun) -> Option<(String, Role)> {
    let (_, base) = run.history.guards.first_key_value()?;
    let (step, now) = run.history.guards.last_key_value()?;
    let exact = now.exact.map_or_else(String::new, |exact| {
        format!(" exact {}", percent_short(exact))
    });
    Some(match now.change(base).filter(|_| *step > base.step) {
        Some(change) => {
            let text = format!("guard {:+.3} nats/token{exact} ({step})", change.estimate);
            let is_open = run
                .history
                .standing_alerts()
                .any(|alert| alert.rule.name == "forgetting");
            (text, if is_open { Role::Warning } else { Role::Text })
        }
        None => (
            format!("guard {:.3} nats/token{exact}", now.log_prob()),
            Role::Text,
        ),
    })
}

/// Seconds since the last event of a worker that should compute; `None` if that is within limits.
fn silent_seconds(shared: &Shared, run: &FollowedRun) -> Option<f64> {
    let status = run.status();
    if !matches!(
        status,
        Status::Running | Status::Starting | Status::Stopping
    ) {
        return None;
    }
    let last = run
        .history
        .last_ms
        .max(run.state.as_ref().map(|state| state.updated_ms))?;
    let silent = shared.now_ms.saturating_sub(last);
    let step_ms = run.history.seconds_per_step().unwrap_or(0.0) * 5000.0;
    (silent >= SILENT_MS && silent as f64 > step_ms).then_some(silent as f64 / 1000.0)
}

/// As many parts as fit; others are left out rather than truncated, except for the first.
fn fitted(spans: Vec<Span<'static>>, columns: usize) -> Line<'static> {
    let mut line = Line::default();
    let mut used = 0;
    for span in spans {
        let width = span.content.width();
        if used + width <= columns || used == 0 {
            used += width;
            line.spans.push(span);
        }
    }
    line
}
