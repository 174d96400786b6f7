//! The program or judge that scores: its command or server, trust and limits, and what a program says of the selected
//! sample.

use ratatui::text::{Line, Span};

use super::{Schema, TrialOutput};
use crate::format::shortened;
use crate::message::{Command, Work};
use crate::score::{CommandRules, Task};
use crate::score::{Trial, Trust};
use crate::secrets::{visible, visible_lines};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;

/// Characters of a question or an answer, reasons, and lines of standard error that are shown.
const MAX_SHOWN_CHARS: usize = 600;
const MAX_REASONS: usize = 8;
const LAST_LINES: usize = 6;

/// Whether the task in the editor, or a part of its reward, is scored by a program or a judge.
pub(super) fn needs_trust(shared: &Shared) -> bool {
    task(shared).is_some_and(Task::needs_trust)
}

fn task(shared: &Shared) -> Option<&Task> {
    shared.draft.task.as_deref().or(shared.draft.base.as_ref())
}

pub(super) fn untrusted(shared: &Shared) -> Option<String> {
    let first = shared
        .draft
        .programs
        .iter()
        .find(|program| !program.is_trusted && program.tool.is_none())?;
    let what = if first.has_changed {
        "has changed since it was trusted"
    } else {
        "is not trusted"
    };
    let what = format!("the {} {what}", first.subject().name());
    Some(format!(
        "not scored, because {what}: {} shows it and asks",
        shared.key_of("schema.trust")
    ))
}

pub(super) fn try_sample(schema: &Schema, shared: &Shared) -> Option<Command> {
    if !task(shared).is_some_and(Task::runs_programs) || shared.draft.stale.is_some() {
        return None;
    }
    let (open, scorer) = (shared.task.clone()?, shared.draft.scorer.clone()?);
    let (index, version) = (
        schema
            .sample
            .at(open.samples.as_ref().map_or(0, Vec::len))?,
        shared.draft.version,
    );
    Some(Work::latest(
        "schema.program",
        move |_| {
            let sample = open.samples.as_ref().ok()?.get(index)?;
            let row = sample.prompt_id.as_deref().and_then(|id| open.row(id));
            let trials = scorer.try_programs(&sample.text, row);
            Some(TrialOutput {
                index,
                version,
                trials,
            })
        },
        |schema: &mut Schema, _, tried| {
            schema.tried = tried;
            Vec::new()
        },
    ))
}

pub(super) fn lines(schema: &Schema, shared: &Shared) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let faint = |text: String| theme.line(text, Role::Faint);
    let programs = task(shared)
        .into_iter()
        .flat_map(Task::scorers)
        .filter_map(Task::command);
    let mut lines = Vec::new();
    for (index, rules) in programs.enumerate() {
        let trust = shared.draft.programs.get(index);
        lines.push(Line::raw(visible(&commands(rules)).into_owned()));
        lines.extend(trust.map(|trust| trust_line(trust, shared)));
        let missing = trust.and_then(|trust| trust.missing.as_deref());
        lines.extend(missing.map(|missing| theme.line(visible(missing).into_owned(), Role::Bad)));
        lines.push(faint(limits(rules)));
        // The first answer starts a process: in the background, with the first trial.
        if schema.tried.is_some() {
            lines.push(isolation(rules, theme));
        }
    }
    for trust in &shared.draft.programs {
        let line = match (&trust.server, &trust.tool) {
            (Some(server), _) => format!("judge {}", visible(server)),
            (None, Some(tool)) => format!("tool {}", visible(&tool.command.join(" "))),
            (None, None) => continue,
        };
        lines.push(Line::raw(line));
        lines.push(trust_line(trust, shared));
    }
    if !task(shared).is_some_and(Task::runs_programs) {
        return lines;
    }
    let tried = schema.tried.as_ref();
    let Some(Ok(samples)) = shared.task.as_ref().map(|open| &open.samples) else {
        return lines;
    };
    let Some(index) = schema.sample.at(samples.len()) else {
        lines.push(faint("no sample completion to test".to_owned()));
        return lines;
    };
    let sample = &samples[index];
    let [previous, next] =
        ["schema.sample.previous", "schema.sample.next"].map(|id| shared.key_of(id));
    lines.push(theme.line(
        format!(
            "sample {} of {}, line {} ({previous} {next})",
            index + 1,
            samples.len(),
            sample.line
        ),
        Role::Title,
    ));
    lines.push(Line::raw(
        visible(&shortened(&sample.text, MAX_SHOWN_CHARS)).into_owned(),
    ));
    if untrusted(shared).is_some() {
        lines.push(faint("not asked".to_owned()));
        return lines;
    }
    let is_now =
        |tried: &&TrialOutput| tried.index == index && tried.version == shared.draft.version;
    match tried.filter(is_now) {
        Some(tried) => lines.extend(
            tried
                .trials
                .iter()
                .flat_map(|trial| trial_lines(trial, theme)),
        ),
        None if shared.draft.stale.is_some() => lines.push(faint("not asked".to_owned())),
        None => lines.push(faint("asking ...".to_owned())),
    }
    lines
}

fn commands(rules: &CommandRules) -> String {
    rules
        .commands()
        .map(|command| command.join(" "))
        .collect::<Vec<_>>()
        .join("; ")
}

fn trust_line(trust: &Trust, shared: &Shared) -> Line<'static> {
    let theme = &shared.theme;
    let key = shared.key_of("schema.trust");
    let (mark, text, role) = match (trust.is_trusted, trust.has_changed) {
        (true, _) => ("✓", "trusted".to_owned(), Role::Good),
        (false, true) => (
            "▲",
            format!("changed since it was trusted: {key} trusts it as it is now"),
            Role::Warning,
        ),
        (false, false) => ("✗", format!("not trusted: {key} trusts it"), Role::Bad),
    };
    theme.line(format!("{mark} {text}"), role)
}

fn limits(rules: &CommandRules) -> String {
    let memory = if rules.memory_mib == 0 {
        "no memory limit".to_owned()
    } else {
        format!("{} MiB", rules.memory_mib)
    };
    let CommandRules {
        seconds,
        output_kib,
        ..
    } = rules;
    format!(
        "limits: {seconds} s, {memory}, {output_kib} KiB of output, {} at once",
        rules.width()
    )
}

fn isolation(rules: &CommandRules, theme: &Theme) -> Line<'static> {
    let role = if rules.lacks_isolation() {
        Role::Warning
    } else {
        Role::Faint
    };
    theme.line(format!("isolation {}", rules.isolation_text()), role)
}

fn trial_lines(trial: &Trial, theme: &Theme) -> Vec<Line<'static>> {
    let faint = |text: String| theme.span(text, Role::Faint);
    // Each line on its own; none reaches the terminal as it is.
    let block = |label: &str, text: &str| {
        let text = visible_lines(text.trim_end()).into_owned();
        let shown: Vec<String> = text.lines().map(str::to_owned).collect();
        let first = std::iter::once(label).chain(std::iter::repeat(""));
        shown
            .into_iter()
            .zip(first)
            .map(|(line, label)| Line::from(vec![faint(format!("{label:<9}")), Span::raw(line)]))
            .collect::<Vec<_>>()
    };
    let score = &trial.score;
    let part = trial
        .part
        .as_ref()
        .map_or_else(String::new, |part| format!("{}: ", visible(part)));
    let mut result = format!("{part}{}, value {}", score.outcome(), score.reward_text());
    result.extend(score.failure.map(|failure| format!(", {}", failure.key())));
    result.extend(
        score
            .exact
            .map(|exact| if exact { ", exact" } else { ", not exact" }),
    );
    let style = theme.style(if score.is_error() {
        Role::Bad
    } else {
        Theme::tier_role(score.tier)
    });
    let mut lines = vec![Line::from(vec![
        Span::styled(result, style),
        faint(format!("  {:.2} s", trial.seconds)),
    ])];
    let reasons = score
        .errors
        .iter()
        .map(|reason| format!("{}:{} {}", reason.line, reason.column, reason.message));
    let reasons: Vec<String> = reasons
        .chain(score.warnings.iter().cloned())
        .take(MAX_REASONS)
        .collect();
    lines.extend(block("reasons", &reasons.join("\n")));
    let metrics: Vec<String> = score
        .metrics
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    lines.extend(block("metrics", &metrics.join(", ")));
    lines.extend(block(
        "asked",
        &shortened(trial.asked.trim_end(), MAX_SHOWN_CHARS),
    ));
    let output = if trial.output.trim().is_empty() {
        "nothing"
    } else {
        trial.output.as_str()
    };
    lines.extend(block("answered", &shortened(output, MAX_SHOWN_CHARS)));
    let complaint: Vec<&str> = trial.complaint.lines().collect();
    let last = &complaint[complaint.len().saturating_sub(LAST_LINES)..];
    lines.extend(block(
        "stderr",
        &shortened(&last.join("\n"), MAX_SHOWN_CHARS),
    ));
    lines
}
