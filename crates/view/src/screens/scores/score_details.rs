//! One completion in full: tier, reward and parts, its advantage in numbers, every violation, its fields, and its text
//! with underlined violations.

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::scoring::ScoredItems;
use super::{Scores, Source};
use crate::advantage::{Advantage, explain, group_advantages};
use crate::confidence::AnswerConfidence;
use crate::format::{counted, percent};
use crate::score::{CriterionGrade, QueryResult, Reason, Score};
use crate::secrets::visible;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::confidence;
use crate::widgets::conversation::Conversation;
use crate::widgets::grounded;
use crate::widgets::json::{self, Fault};
use crate::widgets::text_value::named;
use crate::widgets::text_width::padded;

pub(super) fn lines(
    scores: &Scores,
    shared: &Shared,
    scored: &ScoredItems,
    place: usize,
    width: usize,
) -> Vec<Line<'static>> {
    let (Some(item), Some(score)) = (scored.items.all.get(place), scored.scores.get(place)) else {
        return Vec::new();
    };
    let text = Text {
        scores,
        shared,
        theme: &shared.theme,
    };
    let mut lines = text.head(scored, place, score);
    lines.extend(text.criteria(score));
    lines.extend(verdict(scores, shared, score));
    lines.extend(text.fields(score));
    if let Some(results) = scored.results.get(place).and_then(Option::as_ref) {
        lines.push(Line::default());
        lines.extend(text.results(results));
    }
    lines.push(Line::default());
    let talk = item.conversation.as_ref().map(|chain| Conversation {
        chain,
        // Rollouts have no times.
        call_seconds: &[],
        tokens: None,
        is_whole: shared.whole_results,
        whole_key: shared.key_of("scores.results"),
        width,
    });
    lines.extend(
        talk.iter()
            .flat_map(|talk| [talk.summary(text.theme), talk.turns(text.theme)].concat()),
    );
    let faults: Vec<Fault> = score
        .errors
        .iter()
        .map(|reason| Fault {
            line: reason.line,
            column: reason.column,
        })
        .collect();
    lines.extend(json::lines(text.theme, &item.text, &faults));
    lines.extend(talk.iter().flat_map(|talk| talk.rest(text.theme)));
    lines.extend(grounded::lines(text.theme, &score.grounded));
    if let Some(known) = &item.confidence {
        // Right by the schema in the editor, as the score is.
        let mut known = AnswerConfidence::clone(known);
        known.judge(&item.text, score);
        lines.extend(confidence::section(
            text.theme,
            "confidence",
            &known,
            &item.text,
        ));
    }
    if let Some(expected) = item.row.as_ref().and_then(|row| row.expected.as_ref()) {
        lines.push(Line::default());
        let rows = match expected.as_str() {
            Some(_) => named("expected", expected),
            None => vec![format!("expected {expected}")],
        };
        lines.extend(rows.iter().map(|row| text.faint(row)));
    }
    lines
}

/// Why a completion scores as it does: reasons and warnings.
pub(super) fn verdict(scores: &Scores, shared: &Shared, score: &Score) -> Vec<Line<'static>> {
    let text = Text {
        scores,
        shared,
        theme: &shared.theme,
    };
    // What a judge says is listed by criterion.
    let of_text = score.errors.iter().filter(|reason| !reason.is_of_criterion);
    let mut lines: Vec<Line<'static>> = of_text.flat_map(|reason| text.reason(reason)).collect();
    if score.tolerant && score.tier != crate::score::Tier::Valid {
        lines.push(text.faint("valid after unwrapping"));
    }
    lines.extend(
        score
            .warnings
            .iter()
            .map(|warning| text.theme.line(format!("▲ {warning}"), Role::Warning)),
    );
    lines
}

/// Tier and reward in one line, as glyph, word and number.
pub(super) fn tier_and_reward(theme: &Theme, score: &Score) -> Vec<Span<'static>> {
    let (name, role) = (score.outcome(), Theme::tier_role(score.outcome()));
    vec![
        theme.span(format!("{} {name}", theme.tier_glyph(name)), role),
        Span::raw(format!("  reward {}", score.reward_text())),
    ]
}

struct Text<'a> {
    scores: &'a Scores,
    shared: &'a Shared,
    theme: &'a Theme,
}

impl Text<'_> {
    fn head(&self, scored: &ScoredItems, place: usize, score: &Score) -> Vec<Line<'static>> {
        let mut first = tier_and_reward(self.theme, score);
        if let Some(class) = score.failure {
            first.push(
                self.theme
                    .span(format!("  {}", class.name()), Role::Warning),
            );
        }
        let mut lines = vec![Line::from(first)];
        if let Some(before) = self.scores.moved.get(place).copied().flatten() {
            let sentence = format!("↔ was {} before the last edit", before.name());
            lines.push(self.theme.line(sentence, Role::Accent));
        }
        if !score.parts.is_empty() {
            let parts: Vec<String> = score
                .parts
                .iter()
                .map(|(name, value)| format!("{name} {value:.3}"))
                .collect();
            lines.push(self.faint(&format!(
                "parts, before their weights: {}",
                parts.join(", ")
            )));
        }
        lines.extend(self.no_prompt(scored, place));
        self.advantage(scored, place, score, &mut lines);
        lines
    }

    fn no_prompt(&self, scored: &ScoredItems, place: usize) -> Option<Line<'static>> {
        let has_row = scored
            .items
            .all
            .get(place)
            .is_none_or(|item| item.row.is_some());
        let is_written = self.scores.source == Source::Written && !has_row;
        let key = self.shared.key_of("scores.prompt");
        is_written.then(|| {
            self.faint(&format!(
                "no prompt, so nothing is compared with an expected answer: {key} chooses one"
            ))
        })
    }

    fn advantage(
        &self,
        scored: &ScoredItems,
        place: usize,
        score: &Score,
        lines: &mut Vec<Line<'static>>,
    ) {
        let group = scored
            .items
            .all
            .get(place)
            .and_then(|item| scored.groups.get(item.group));
        let Some(group) = group.filter(|group| group.members.len() > 1) else {
            return;
        };
        let kind = scored.items.advantage.unwrap_or(Advantage::Standardized);
        let found = scored.advantages.get(place).copied().unwrap_or(0.0);
        let rewards: Vec<f64> = group
            .members
            .iter()
            .filter_map(|member| scored.scores.get(*member))
            .map(|score| score.reward)
            .collect();
        lines.push(Line::from(vec![
            self.theme.span("advantage ", Role::Faint),
            Span::raw(explain(&rewards, score.reward, found, kind)),
        ]));
        let other = match kind {
            // Today's sum beside it.
            Advantage::PerPart => {
                let place = group
                    .members
                    .iter()
                    .position(|member| *member == place)
                    .unwrap_or(0);
                let sum = group_advantages(&rewards, Advantage::Standardized);
                sum.get(place)
                    .map(|sum| format!("standardized, of the summed reward: {sum:+.3}"))
            }
            _ => None,
        };
        lines.extend(other.map(|other| self.faint(&other)));
    }

    fn reason(&self, reason: &Reason) -> Vec<Line<'static>> {
        let place = format!("✗ line {} column {} ", reason.line, reason.column);
        let pointer = if reason.instance_path.is_empty() {
            String::new()
        } else {
            format!("{} ", reason.instance_path)
        };
        let mut lines = vec![Line::from(vec![
            self.theme.span(place, Role::Bad),
            self.theme.span(pointer, Role::JsonKey),
            Span::raw(reason.message.clone()),
        ])];
        if !reason.schema_path.is_empty() {
            lines.push(self.faint(&format!("    schema {}", reason.schema_path)));
        }
        lines
    }

    /// A judge's points by criterion, with its reasons.
    fn criteria(&self, score: &Score) -> Vec<Line<'static>> {
        let width = score
            .criteria
            .iter()
            .map(|grade| grade.name.len())
            .max()
            .unwrap_or(0);
        let line = |grade: &CriterionGrade| {
            let CriterionGrade {
                name,
                points,
                max_points,
                reason,
            } = grade;
            let (mark, role) = match *points {
                points if points == *max_points => ("✓", Role::Good),
                0 => ("✗", Role::Bad),
                _ => ("~", Role::Warning),
            };
            let points = match (max_points, points) {
                (1, 0) => "no".to_owned(),
                (1, _) => "yes".to_owned(),
                _ => format!("{points}/{max_points}"),
            };
            Line::from(vec![
                self.theme
                    .span(format!("{mark} {name:<width$} {points:<3} "), role),
                Span::raw(visible(reason).into_owned()),
            ])
        };
        score.criteria.iter().map(line).collect()
    }

    fn fields(&self, score: &Score) -> Vec<Line<'static>> {
        let Some(fields) = &score.fields else {
            return Vec::new();
        };
        let mut spans = vec![self.theme.span("matches expected: ", Role::Faint)];
        for (name, equal) in fields.iter() {
            let (mark, role) = if *equal {
                ("✓", Role::Good)
            } else {
                ("✗", Role::Bad)
            };
            spans.push(self.theme.span(format!("{mark} {name}  "), role));
        }
        let exact = score
            .exact
            .map_or("", |exact| if exact { "exact: yes" } else { "exact: no" });
        spans.push(Span::raw(exact));
        let mut lines = vec![Line::from(spans)];
        let leaves = score.leaves.iter().flat_map(|leaves| leaves.counts.iter());
        let faults: Vec<String> = leaves
            // The line above has the fields themselves.
            .filter(|(path, _)| fields.get(path).is_none())
            .filter_map(|(path, counts)| {
                counts
                    .faults()
                    .map(|text| format!("{}: {text}", visible(path)))
            })
            .collect();
        if let (Some(leaves), false) = (&score.leaves, faults.is_empty()) {
            let text = format!("values {}: {}", percent(leaves.credit), faults.join("; "));
            lines.push(Line::from(self.theme.span(text, Role::Warning)));
        }
        lines
    }

    fn results(&self, [found, expected]: &[QueryResult; 2]) -> Vec<Line<'static>> {
        let title =
            |name: &str, result: &QueryResult| format!("{name}: {}", counted(result.count, "row"));
        let shown = |cells: &Vec<String>| cells.join(", ");
        let column = |name: &str, result: &QueryResult, other: &QueryResult| {
            let mut lines = vec![
                (title(name, result), Role::Faint),
                (shown(&result.columns), Role::JsonKey),
            ];
            let role = |row: &Vec<String>| {
                if other.rows.contains(row) {
                    Role::Text
                } else {
                    Role::Bad
                }
            };
            lines.extend(result.rows.iter().map(|row| (shown(row), role(row))));
            let more = result.count - result.rows.len();
            lines.extend((more > 0).then(|| (format!("… {more} more"), Role::Faint)));
            lines
        };
        let (left, right) = (
            column("result", found, expected),
            column("expected", expected, found),
        );
        let width = left
            .iter()
            .map(|(line, _)| line.width())
            .max()
            .unwrap_or(0)
            .clamp(12, 28);
        let line = |place: usize| {
            let (text, role) = left
                .get(place)
                .cloned()
                .unwrap_or((String::new(), Role::Text));
            let (other, other_role) = right
                .get(place)
                .cloned()
                .unwrap_or((String::new(), Role::Text));
            Line::from(vec![
                self.theme.span(padded(&text, width, false), role),
                self.theme.span(" │ ", Role::Faint),
                self.theme.span(other, other_role),
            ])
        };
        (0..left.len().max(right.len())).map(line).collect()
    }

    fn faint(&self, text: &str) -> Line<'static> {
        self.theme.line(text.to_owned(), Role::Faint)
    }
}
