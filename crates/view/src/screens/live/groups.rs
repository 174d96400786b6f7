//! The groups of a step: a row per prompt with the completions as tier marks, mean and std, and which groups have zero
//! variance.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::frame::{LegendEntry, framed, legend};
use super::group_rows::{self, Row};
use super::header::eval_under_way;
use super::{GROUPS, Live};
use crate::advantage::mean_and_deviation;
use crate::facts::{PhaseKind, Tier, TierOutcome};
use crate::followed_run::FollowedRun;
use crate::format::percent_short;
use crate::pane::content::{Content, List};
use crate::report::eval_count;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::text_width::{one_line, padded, start, wrapped};

pub(super) fn content<'a>(
    live: &'a Live,
    shared: &'a Shared,
    run: &FollowedRun,
    inside: Rect,
) -> Content<'a> {
    let theme = &shared.theme;
    let step = live.at(run);
    let rows = group_rows::rows_of_step(live, shared, step);
    let title = match (step, live.step) {
        (0, _) => "groups: none yet".to_owned(),
        (_, Some(_)) => format!("groups of step {step}"),
        (_, None) => format!("groups of step {step}, latest"),
    };
    let (columns, height) = (inside.width as usize, inside.height as usize);
    let mut content = Content {
        legend: key(theme, columns),
        opens: true,
        foot_follows: true,
        ..framed(shared, GROUPS, title)
    };
    if rows.is_empty() {
        content.empty = vec![Line::styled(
            nothing(live, run, step),
            theme.style(Role::Faint),
        )];
        return content;
    }
    let plan = Plan::for_rows(&rows, columns);
    let (head, footer) = head_and_footer(&rows, columns, height);
    if head > 0 {
        content.head = vec![
            plan.head(
                theme,
                live.member
                    .at(rows.first().map_or(0, |row| row.tiers.len())),
            ),
        ];
    }
    let all_equal = rows.iter().all(|row| row.zero_variance_reason().is_some());
    let role = if all_equal {
        Role::Warning
    } else {
        Role::Faint
    };
    content.foot = footer
        .into_iter()
        .map(|text| Line::styled(text, theme.style(role)))
        .collect();
    let at = live.group.at(rows.len());
    let length = rows.len();
    let line =
        move |index: usize| plan.row(theme, &rows[index], at == Some(index), live.member.index);
    content.list(List {
        mark: 2,
        ..List::new(length, live.group, line)
    })
}

/// Lines of the heading, and the sentence below.
fn head_and_footer(rows: &[Row], columns: usize, height: usize) -> (usize, Vec<String>) {
    let learned = rows.iter().filter(|row| !row.replaced);
    let equal = learned
        .clone()
        .filter(|row| row.zero_variance_reason().is_some())
        .count();
    let (guided, all) = (
        learned.clone().filter(|row| row.guided).count(),
        learned.count(),
    );
    let replaced = if all < rows.len() {
        format!(" {} replaced (dynamic sampling).", rows.len() - all)
    } else {
        String::new()
    };
    let text = zero_variance_text(equal, guided, all) + &replaced;
    let footer = if height >= 4 {
        wrapped(&text, columns)
    } else {
        Vec::new()
    };
    (usize::from(height >= 3), footer)
}

/// Why there are no groups.
fn nothing(live: &Live, run: &FollowedRun, step: u64) -> String {
    let phase = run.history.phase.as_ref().map(|phase| phase.phase);
    match (step, live.rollouts.at_step(step)) {
        (0, _) if run.status().is_ended() => "The run ended before step 1.".to_owned(),
        (0, _) => match eval_under_way(run) {
            Some(eval) => format!("before step 1: {}", eval_count(eval)),
            None if phase == Some(PhaseKind::Eval) => "base eval before step 1".to_owned(),
            None => phase.map_or_else(
                || "before step 1".to_owned(),
                |phase| format!("step 1: {phase}"),
            ),
        },
        (_, Some(Err(error))) => format!("cannot read the groups of step {step}: {error}"),
        (_, Some(Ok(groups))) if groups.is_empty() => {
            format!("No groups of step {step}: not a GRPO run, or deleted (keep_rollouts).")
        }
        (_, Some(Ok(_))) => String::new(),
        (_, None) => "loading ...".to_owned(),
    }
}

/// `guided`: groups that have a gradient by an answer that was not sampled freely.
fn zero_variance_text(equal: usize, guided: usize, all: usize) -> String {
    let text = match equal {
        0 if guided == 0 => format!("All {all} groups are mixed."),
        0 => String::new(),
        _ if equal == all => format!("All {all} groups have zero variance: no gradient."),
        1 => format!(
            "1 of {all} groups has zero variance ({}).",
            percent_short(1.0 / all as f64)
        ),
        _ => format!(
            "{equal} of {all} groups have zero variance ({}).",
            percent_short(equal as f64 / all as f64)
        ),
    };
    let guided = match guided {
        0 => String::new(),
        1 => format!("1 of {all} is guided (+)."),
        _ => format!("{guided} of {all} are guided (+)."),
    };
    [text, guided]
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Widths of the parts of a line.
struct Plan {
    prompt: usize,
    /// Columns per completion: 2 with a space, else 1.
    each: usize,
    /// Completions that are drawn.
    members: usize,
    numbers: bool,
    columns: usize,
}

impl Plan {
    fn for_rows(rows: &[Row], columns: usize) -> Self {
        let members = rows.iter().map(|row| row.tiers.len()).max().unwrap_or(0);
        let longest = rows
            .iter()
            .map(|row| row.prompt_id.width())
            .max()
            .unwrap_or(0);
        let prompt = longest.clamp(6, (columns / 4).max(6));
        let numbers = columns >= prompt + members.min(16) + 16;
        let room = columns.saturating_sub(prompt + 3 + if numbers { 12 } else { 0 });
        let each = if members * 2 <= room { 2 } else { 1 };
        Self {
            prompt,
            each,
            members: members.min(room / each),
            numbers,
            columns,
        }
    }

    fn head(&self, theme: &Theme, member: Option<usize>) -> Line<'static> {
        let mut marks = " ".repeat(self.members * self.each);
        if let Some(member) = member.filter(|member| *member < self.members) {
            let at = member * self.each;
            marks = format!(
                "{}{}{}",
                " ".repeat(at),
                "▾",
                " ".repeat((self.members * self.each).saturating_sub(at + 1))
            );
        }
        let numbers = if self.numbers { "  mean   std" } else { "" };
        let mut line = Line::styled(
            format!("  {:<prompt$} ", "prompt", prompt = self.prompt),
            theme.style(Role::Faint),
        );
        line.spans
            .push(Span::styled(marks, theme.style(Role::Accent)));
        line.spans
            .push(Span::styled(numbers, theme.style(Role::Faint)));
        line
    }

    fn row(&self, theme: &Theme, row: &Row, selected: bool, member: usize) -> Line<'static> {
        let prompt = short_name(&row.prompt_id, self.prompt);
        let mut spans = vec![Span::raw(format!("{prompt} "))];
        let chosen = member.min(row.tiers.len().saturating_sub(1));
        spans.extend(tiers(
            theme,
            &row.tiers,
            self.each,
            self.members,
            selected.then_some(chosen),
        ));
        let short = self.members.saturating_sub(row.tiers.len()) * self.each;
        spans.push(Span::raw(" ".repeat(short)));
        if self.numbers {
            let (mean, deviation) = mean_and_deviation(&row.rewards);
            spans.push(Span::raw(format!(" {mean:>5.2} {deviation:>5.2}")));
        }
        let mut line = Line::from(spans);
        let room = self.columns.saturating_sub(line.width() + 2);
        if row.guided {
            let text = [" + guided", " +"]
                .into_iter()
                .find(|text| text.width() <= room)
                .unwrap_or_default();
            line.spans
                .push(Span::styled(text, theme.style(Role::Accent)));
        }
        if let Some(why) = row.zero_variance_reason() {
            let text = [
                format!(" ∅ {why}: zero variance"),
                " ∅ zero variance".to_owned(),
                format!(" ∅ {why}"),
                " ∅".to_owned(),
            ];
            let text = text
                .into_iter()
                .find(|text| text.width() <= room)
                .unwrap_or_default();
            line.spans
                .push(Span::styled(text, theme.style(Role::Warning)));
        }
        line
    }
}

/// Completions as tier marks; the selected one is bold and underlined.
pub(super) fn tiers(
    theme: &Theme,
    tiers: &[TierOutcome],
    each: usize,
    most: usize,
    chosen: Option<usize>,
) -> Vec<Span<'static>> {
    let blank = if each > 1 { " " } else { "" };
    let mut spans = Vec::new();
    for (index, tier) in tiers.iter().take(most).enumerate() {
        let mut style = theme.style(Theme::tier_role(*tier));
        if chosen == Some(index) {
            style = style.add_modifier(
                ratatui::style::Modifier::UNDERLINED | ratatui::style::Modifier::BOLD,
            );
        }
        spans.push(Span::styled(theme.tier_glyph(*tier), style));
        spans.push(Span::raw(blank));
    }
    spans
}

/// The marks of the tiers, and of groups without a gradient.
fn key(theme: &Theme, columns: usize) -> Line<'static> {
    let zero_variance = LegendEntry::new("∅", Role::Warning, "zero variance");
    legend(theme, tier_entries(theme).chain([zero_variance]), columns)
}

/// The marks of the tiers with their names.
pub(super) fn tier_entries(theme: &Theme) -> impl Iterator<Item = LegendEntry> + use<> {
    let tier =
        |tier: Tier| LegendEntry::new(theme.tier_glyph(tier), Theme::tier_role(tier), tier.name());
    Tier::ALL.map(tier).into_iter().rev()
}

/// A prompt's name, padded to so many columns; of one of several tasks the id stays whole, as far as it fits.
pub(super) fn short_name(name: &str, columns: usize) -> String {
    let name = one_line(name);
    let short = match name.split_once(':') {
        Some((task, id)) if name.width() > columns && id.width() + 2 <= columns => {
            format!("{}:{id}", start(task, columns - 1 - id.width()))
        }
        _ => start(&name, columns).to_owned(),
    };
    padded(&short, columns, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advantage::GroupSignal;

    #[test]
    fn a_guided_group_has_a_gradient_whatever_was_sampled() {
        let row = |signal, guided, last| Row {
            prompt_id: "a".to_owned(),
            rewards: vec![0.5, 0.5, 1.0],
            tiers: vec![TierOutcome::Invalid, TierOutcome::Invalid, last],
            signal,
            guided,
            ..Row::default()
        };
        let equal = row(GroupSignal::AllEqual, false, TierOutcome::Invalid);
        let guided = row(GroupSignal::AllEqual, true, TierOutcome::Valid);
        let mixed = row(GroupSignal::Mixed, false, TierOutcome::Valid);
        let check = |rows: &[&Row], expected: &str| {
            let rows: Vec<Row> = rows.iter().map(|row| (*row).clone()).collect();
            assert_eq!(head_and_footer(&rows, 80, 9).1.join(" "), expected);
        };
        check(&[&mixed, &mixed], "All 2 groups are mixed.");
        check(
            &[&equal, &guided, &mixed],
            "1 of 3 groups has zero variance (33%). 1 of 3 is guided (+).",
        );
        check(&[&guided, &guided], "2 of 2 are guided (+).");
        check(
            &[&equal, &equal],
            "All 2 groups have zero variance: no gradient.",
        );
        let theme = Theme::default();
        let plan = Plan::for_rows(&[equal.clone(), guided.clone()], 60);
        let line = |row: &Row| plan.row(&theme, row, false, 0).to_string();
        assert!(
            line(&guided).ends_with(" + guided") && !line(&guided).contains('∅'),
            "{}",
            line(&guided)
        );
        assert!(
            line(&equal).contains("∅ all invalid: zero variance"),
            "{}",
            line(&equal)
        );
    }
}
