//! The lines of the side panes.

use std::fmt::Write;

use ratatui::text::{Line, Span};

use super::expected::Rejections;
use super::{DEGENERATE, PROGRAM, SCORES, Schema, ScorePreview, program_pane};
use crate::format::counted;
use crate::page::Block;
use crate::pane::page::PageLines;
use crate::score::audit::page;
use crate::score::mutants;
use crate::score::{PartValue, Task, Tier};
use crate::shared::Shared;
use crate::style_role::Role;
use crate::task::PromptSet;
use crate::theme::Theme;

/// All lines of a pane, before it is scrolled and wrapped.
pub(super) fn lines(
    schema: &Schema,
    shared: &Shared,
    pane: &str,
    columns: usize,
) -> Vec<Line<'static>> {
    match pane {
        PROGRAM => program_pane::lines(schema, shared),
        SCORES => scores(schema, shared),
        DEGENERATE => degenerate(schema, shared, columns),
        _ => Vec::new(),
    }
}

fn scores(schema: &Schema, shared: &Shared) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let faint = |text: String| theme.line(text, Role::Faint);
    if let Some(why) = no_scores(shared) {
        return vec![why];
    }
    let Some(open) = &shared.task else {
        return vec![faint(shared.no_task().unwrap_or_default())];
    };
    let task = shared.draft.task.as_deref().unwrap_or(&open.task);
    let mut lines = rejections(schema, shared);
    match (&open.samples, &schema.effects) {
        (Err(error), _) => lines.push(theme.line(error.clone(), Role::Bad)),
        (Ok(samples), _) if samples.is_empty() => {
            lines.push(faint(
                "no sample completions: set completions = \"completions.jsonl\" under [prompts] in task.toml"
                    .to_owned(),
            ));
        }
        (Ok(_), None) => lines.push(faint("scoring samples ...".to_owned())),
        (Ok(_), Some(effects)) => {
            lines.extend(
                Tier::ALL
                    .into_iter()
                    .rev()
                    .map(|tier| tier_line(theme, task, effects, tier)),
            );
            let change = effects
                .saved_reward
                .map(|saved| effects.reward - saved)
                .filter(|change| change.abs() > 5e-4);
            let change =
                change.map_or_else(String::new, |change| format!("  {change:+.3} vs saved"));
            if effects.total() > 0 {
                let mean = format!(
                    "mean reward {:.3} of {}{change}",
                    effects.reward,
                    counted(effects.total(), "sample")
                );
                lines.push(Line::raw(mean));
            }
            if let Some((invalid, valid)) = effects.inversion {
                let text = format!(
                    "▲ an invalid answer earns more than a valid one ({invalid:.2} against {valid:.2})"
                );
                lines.push(theme.line(text, Role::Warning));
            }
            if effects.errors > 0 {
                let failed = format!(
                    "{} not scored: the scorer failed",
                    counted(effects.errors, "sample")
                );
                lines.push(theme.line(failed, Role::Warning));
            }
            lines.extend(moved(effects).map(|text| theme.line(text, Role::Marked)));
        }
    }
    lines.extend(
        rules(
            task,
            schema
                .effects
                .as_ref()
                .map_or(0, |effects| effects.tolerant),
        )
        .into_iter()
        .map(faint),
    );
    lines
}

fn no_scores(shared: &Shared) -> Option<Line<'static>> {
    let theme = &shared.theme;
    let untrusted = program_pane::untrusted(shared).map(|why| theme.line(why, Role::Warning));
    let unscored = || {
        Some(theme.line(
            format!("not scored: {}", shared.draft.unscored()?),
            Role::Faint,
        ))
    };
    untrusted.or_else(unscored)
}

/// The number of expected answers that the schema rejects, and the first of their lines.
fn rejections(schema: &Schema, shared: &Shared) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let faint = |text: String| vec![theme.line(text, Role::Faint)];
    let Some(found) = &schema.rejections else {
        return faint("checking expected answers ...".to_owned());
    };
    let (total, so_far) = match found.is_done() {
        true => (grouped(found.total), String::new()),
        false => (
            grouped(found.checked),
            format!(" checked so far, of {}", grouped(found.total)),
        ),
    };
    let mended = match found.mended {
        0 => String::new(),
        mended => format!(", {} more than saved", grouped(mended)),
    };
    if found.total == 0 {
        return faint("no expected answers to check".to_owned());
    }
    if found.rejected == 0 {
        return vec![match found.is_done() {
            true => theme.line(
                format!("✓ accepts all {total} expected answers{mended}"),
                Role::Good,
            ),
            false => theme.line(
                format!("accepts the {total} expected answers{so_far}{mended}"),
                Role::Faint,
            ),
        }];
    }
    let new = match found.new {
        None => String::new(),
        Some(0) => " (as saved too)".to_owned(),
        Some(new) => format!(" ({} by this edit)", grouped(new)),
    };
    let (mark, role) = if found.new == Some(0) {
        ("▲", Role::Warning)
    } else {
        ("✗", Role::Bad)
    };
    let rejected = grouped(found.rejected);
    let text = format!("{mark} rejects {rejected} of {total} expected answers{new}{so_far}");
    let mut lines = vec![theme.line(text, role)];
    let key = shared.key_of("schema.rejected");
    lines.push(theme.line(format!("{}; {key} lists them", places(found)), Role::Faint));
    lines
}

/// The first rejected rows, those of this edit first: `train lines 4, 9; test line 2 and 3 more`.
fn places(found: &Rejections) -> String {
    const SHOWN: usize = 5;
    let new = found.rows.iter().filter(|row| row.is_new);
    let shown: Vec<_> = new
        .chain(found.rows.iter().filter(|row| !row.is_new))
        .take(SHOWN)
        .collect();
    let of_set = |set: PromptSet| {
        let lines: Vec<String> = shown
            .iter()
            .filter(|row| row.set == set)
            .map(|row| row.line.to_string())
            .collect();
        let word = if lines.len() == 1 { "line" } else { "lines" };
        (!lines.is_empty()).then(|| format!("{} {word} {}", set.name(), lines.join(", ")))
    };
    let sets: Vec<String> = PromptSet::ALL.into_iter().filter_map(of_set).collect();
    let more = found.rejected - shown.len();
    let more = if more > 0 {
        format!(" and {} more", grouped(more))
    } else {
        String::new()
    };
    format!("{}{more}", sets.join("; "))
}

fn grouped(number: usize) -> String {
    crate::format::grouped(number as u64)
}

/// The samples whose tier changed: `valid → invalid: lines 1, 2`.
fn moved(effects: &ScorePreview) -> Option<String> {
    let pairs = Tier::ALL
        .into_iter()
        .flat_map(|from| Tier::ALL.into_iter().map(move |to| (from, to)));
    let group = |(from, to): (Tier, Tier)| {
        let lines: Vec<String> = effects
            .moved
            .iter()
            .filter(|(_, before, now)| (*before, *now) == (from, to))
            .map(|(line, ..)| line.to_string())
            .collect();
        let more = if lines.len() > 8 {
            format!(" and {} more", lines.len() - 8)
        } else {
            String::new()
        };
        let shown = lines.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        let word = if lines.len() == 1 { "line" } else { "lines" };
        (!lines.is_empty()).then(|| {
            format!(
                "{} {} {}: {word} {shown}{more}",
                from.name(),
                "→",
                to.name()
            )
        })
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
    let bar = "▆".repeat(if theme.linear {
        0
    } else {
        (share * 16.0).round() as usize
    });
    let style = theme.style(Theme::tier_role(tier));
    let change = effects
        .saved
        .map_or(0, |saved| now as i64 - saved[tier as usize] as i64);
    let change = if change == 0 {
        String::new()
    } else {
        format!(" {change:+}")
    };
    Line::from(vec![
        Span::styled(
            format!("{} {:<10} ", theme.tier_glyph(tier), tier.name()),
            style,
        ),
        theme.span(format!("{value:>4.2} "), Role::Faint),
        Span::raw(format!("{now:>4}")),
        theme.span(format!("{change:<5}"), Role::Marked),
        Span::styled(bar, style),
    ])
}

fn rules(task: &Task, tolerant: usize) -> Vec<String> {
    let is_json = task.schema().is_some();
    let mut rules = vec![match task.score.strip_thinking {
        true => "think blocks are stripped before scoring".to_owned(),
        false if is_json => {
            "think blocks are not stripped: answers with one are unparsable".to_owned()
        }
        false => "think blocks are not stripped".to_owned(),
    }];
    let more = match tolerant {
        0 => String::new(),
        1 => "; 1 sample is valid after unwrapping".to_owned(),
        several => format!("; {several} samples are valid after unwrapping"),
    };
    if is_json {
        let answer = if task.grammar().is_some() {
            "JSON"
        } else {
            "answer"
        };
        rules.push(format!(
            "text or a fence around the {answer} makes it unparsable{more}"
        ));
    }
    if task.score.graded {
        rules.push("graded: partial credit for invalid answers".to_owned());
    }
    rules.extend(reward_formula(task));
    if task.score.assert_formats {
        rules.push("`format` is checked".to_owned());
    }
    if !task.score.normalise.is_empty() {
        let fields: Vec<String> = task
            .score
            .normalise
            .iter()
            .map(|(field, how)| format!("{field} ({how})"))
            .collect();
        rules.push(format!(
            "normalized before comparing: {}",
            fields.join(", ")
        ));
    }
    rules
}

/// How the tier's value and the parts make the reward; `None` without parts.
fn reward_formula(task: &Task) -> Option<String> {
    let parts = task.rewards.iter().filter(|part| part.weight != 0.0);
    let mut terms = String::new();
    for part in parts {
        let what = match part.value {
            PartValue::Fields => "share of expected fields",
            _ => &part.part,
        };
        let sign = if part.weight < 0.0 { '-' } else { '+' };
        _ = write!(terms, " {sign} {} x {what}", part.weight.abs());
    }
    (!terms.is_empty()).then(|| format!("reward = tier{terms} (at most {:.2})", most(task)))
}

/// The reward of a right answer.
fn most(task: &Task) -> f64 {
    let weights = task.rewards.iter().map(|part| part.weight.max(0.0));
    task.score.tiers.valid + weights.sum::<f64>()
}

fn degenerate(schema: &Schema, shared: &Shared, columns: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    if let Some(why) = no_scores(shared) {
        return vec![why];
    }
    let scorer = shared.draft.scorer.as_ref();
    if scorer.is_some_and(|scorer| scorer.asks_judge()) {
        let text = "not scored here, since a judge costs: grpo-tui task audit";
        return vec![theme.line(text, Role::Faint)];
    }
    let Some(findings) = &schema.degenerate else {
        return vec![theme.line("scoring degenerate answers ...", Role::Faint)];
    };
    let Some(task) = &shared.draft.task else {
        return Vec::new();
    };
    let broken = match &schema.mutants {
        Some(Ok(report)) => mutants::page(report),
        // What is missing is said where it is missed.
        Some(Err(_)) => Vec::new(),
        None if scorer.is_some_and(|scorer| scorer.runs_programs()) => {
            vec![Block::detail(
                "broken answers: grpo-tui task audit --mutants",
            )]
        }
        None => vec![Block::detail("scoring broken answers ...")],
    };
    // Sentences first: the figures may be below the pane.
    let is_sentence = |block: &Block| !matches!(block, Block::Bars(_) | Block::Table(_));
    let blocks = [page(task, findings), broken].concat().into_iter();
    let (sentences, figures): (Vec<Block>, Vec<Block>) = blocks.partition(is_sentence);
    PageLines { theme, columns }.lines(&[sentences, figures].concat())
}
