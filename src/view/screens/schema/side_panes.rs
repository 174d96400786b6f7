//! The lines of the side panes.

use ratatui::text::{Line, Span};

use super::{ACCEPTS, DEGENERATE, SCORES, Schema, ScorePreview};
use crate::score::Tier;
use crate::task::Task;
use crate::view::shared::Shared;
use crate::view::style_role::Role;
use crate::view::theme::Theme;

/// All lines of a pane, before it is scrolled and wrapped.
pub(super) fn lines(schema: &Schema, shared: &Shared, pane: &str) -> Vec<Line<'static>> {
    match pane {
        ACCEPTS => accepts(schema, shared),
        SCORES => scores(schema, shared),
        DEGENERATE => degenerate(schema, shared),
        _ => Vec::new(),
    }
}

fn accepts(schema: &Schema, shared: &Shared) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    if schema.accepts.is_empty() {
        return vec![Line::styled("schema does not compile: see the editor", theme.style(Role::Faint))];
    }
    let line = |accepted: &crate::score::Accepted| {
        let (mark, role) = match accepted.required {
            Some(true) => (theme.glyph("● ", "* "), Role::Accent),
            Some(false) => (theme.glyph("○ ", "o "), Role::Faint),
            None => ("", Role::Faint),
        };
        let word = match accepted.required {
            Some(true) => "required, ",
            Some(false) => "optional, ",
            None => "",
        };
        Line::from(vec![
            Span::raw("  ".repeat(accepted.depth)),
            Span::styled(mark, theme.style(role)),
            Span::styled(format!("{}: ", accepted.name), theme.style(Role::JsonKey)),
            Span::styled(word, theme.style(Role::Faint)),
            Span::raw(accepted.text.clone()),
        ])
    };
    schema.accepts.iter().map(line).collect()
}

fn scores(schema: &Schema, shared: &Shared) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let faint = |text: String| Line::styled(text, theme.style(Role::Faint));
    let Some(open) = &shared.task else { return vec![faint("loading task ...".to_owned())] };
    let task = shared.draft.task.as_deref().unwrap_or(&open.task);
    let mut lines = Vec::new();
    match (&open.samples, &schema.effects) {
        (Err(error), _) => lines.push(Line::styled(error.clone(), theme.style(Role::Bad))),
        (Ok(samples), _) if samples.is_empty() => {
            lines.push(faint(
                "no sample completions: set completions = \"completions.jsonl\" under [prompts] in task.toml"
                    .to_owned(),
            ));
        }
        (Ok(_), None) => lines.push(faint("scoring samples ...".to_owned())),
        (Ok(_), Some(effects)) => {
            lines.extend(Tier::ALL.into_iter().rev().map(|tier| tier_line(theme, task, effects, tier)));
            let change = effects.saved_reward.map(|saved| effects.reward - saved).filter(|change| change.abs() > 5e-4);
            let change = change.map_or_else(String::new, |change| format!("  {change:+.3} vs saved"));
            lines.push(Line::raw(format!("mean reward {:.3} of {} samples{change}", effects.reward, effects.total())));
            lines.extend(moved(theme, effects).map(|text| Line::styled(text, theme.style(Role::Marked))));
        }
    }
    lines.extend(rules(task, schema.effects.as_ref().map_or(0, |effects| effects.tolerant)).into_iter().map(faint));
    lines
}

/// The samples whose tier changed: `valid → invalid: lines 1, 2`.
fn moved(theme: &Theme, effects: &ScorePreview) -> Option<String> {
    let pairs = Tier::ALL.into_iter().flat_map(|from| Tier::ALL.into_iter().map(move |to| (from, to)));
    let group = |(from, to): (Tier, Tier)| {
        let lines: Vec<String> = effects
            .moved
            .iter()
            .filter(|(_, before, now)| (*before, *now) == (from, to))
            .map(|(line, ..)| line.to_string())
            .collect();
        let more = if lines.len() > 8 { format!(" and {} more", lines.len() - 8) } else { String::new() };
        let shown = lines.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        let word = if lines.len() == 1 { "line" } else { "lines" };
        (!lines.is_empty())
            .then(|| format!("{} {} {}: {word} {shown}{more}", from.name(), theme.glyph("→", "->"), to.name()))
    };
    let groups: Vec<String> = pairs.filter_map(group).collect();
    (!groups.is_empty()).then(|| groups.join("; "))
}

fn tier_line(theme: &Theme, task: &Task, effects: &ScorePreview, tier: Tier) -> Line<'static> {
    let tiers = &task.score.tiers;
    let value = match tier {
        Tier::Valid => tiers.valid,
        Tier::Invalid => tiers.invalid,
        Tier::Unparsable => tiers.unparsable,
    };
    let now = effects.now[tier as usize];
    let share = now as f64 / effects.total().max(1) as f64;
    let bar = theme.glyph("▆", "=").repeat((share * 16.0).round() as usize);
    let style = theme.style(Theme::tier_role(tier.name()));
    let change = effects.saved.map_or(0, |saved| now as i64 - saved[tier as usize] as i64);
    let change = if change == 0 { String::new() } else { format!(" {change:+}") };
    Line::from(vec![
        Span::styled(format!("{} {:<10} ", theme.tier_glyph(tier.name()), tier.name()), style),
        Span::styled(format!("{value:>4.2} "), theme.style(Role::Faint)),
        Span::raw(format!("{now:>4}")),
        Span::styled(format!("{change:<5}"), theme.style(Role::Marked)),
        Span::styled(bar, style),
    ])
}

fn rules(task: &Task, tolerant: usize) -> Vec<String> {
    let mut rules = vec![if task.score.strip_thinking {
        "think blocks are stripped before scoring".to_owned()
    } else {
        "think blocks are not stripped: answers with one are unparsable".to_owned()
    }];
    let more = match tolerant {
        0 => String::new(),
        1 => "; 1 sample is valid after unwrapping".to_owned(),
        several => format!("; {several} samples are valid after unwrapping"),
    };
    rules.push(format!("text or a fence around the JSON makes it unparsable{more}"));
    if task.score.graded {
        rules.push("graded: partial credit for invalid answers".to_owned());
    }
    rules.extend(
        task.rewards
            .iter()
            .filter(|part| part.weight != 0.0)
            .map(|part| format!("plus {} x {}", part.weight, part.part)),
    );
    if task.score.assert_formats {
        rules.push("`format` is checked".to_owned());
    }
    if !task.score.normalise.is_empty() {
        let fields: Vec<String> = task.score.normalise.iter().map(|(field, how)| format!("{field} ({how})")).collect();
        rules.push(format!("normalized before comparing: {}", fields.join(", ")));
    }
    rules
}

fn degenerate(schema: &Schema, shared: &Shared) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let Some(findings) = &schema.degenerate else {
        return vec![Line::styled("scoring degenerate answers ...", theme.style(Role::Faint))];
    };
    let weak: Vec<_> = findings.iter().filter(|finding| finding.weak).collect();
    let mut lines = Vec::new();
    match weak.len() {
        0 => lines.push(Line::styled("no degenerate answer scores as high as a correct one", theme.style(Role::Good))),
        _ => lines.extend(weak.iter().map(|finding| {
            let mark = theme.glyph("▲ ", "! ");
            Line::from(vec![Span::styled(mark, theme.style(Role::Warning)), Span::raw(finding.sentence.clone())])
        })),
    }
    lines.extend(findings.iter().map(|finding| {
        let style = theme.style(Theme::tier_role(finding.tier.name()));
        Line::from(vec![
            Span::styled(format!("{} {:>5.2}  ", theme.tier_glyph(finding.tier.name()), finding.reward), style),
            Span::raw(finding.name.clone()),
            Span::styled(format!("  {}", finding.completion), theme.style(Role::Faint)),
        ])
    }));
    lines
}
