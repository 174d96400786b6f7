//! The result of a run: base and trained on valid and exact with 95% CI and the verdicts that every list shows, and the
//! best checkpoint.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::frame::framed;
use super::{Live, RESULT, log};
use crate::facts::Target;
use crate::followed_run::FollowedRun;
use crate::format::percent_interval;
use crate::message::Command;
use crate::pane::content::Content;
use crate::report::{EvalId, JudgedEval, Verdict, points};
use crate::run::EvalSummary;
use crate::run::events::Eval;
use crate::screens::Screen;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::widgets::text_width::{padded, wrapped};

/// Both evals of a result on a task, with their verdicts.
struct ComparedEvals<'a> {
    base: &'a Eval,
    trained: &'a Eval,
    judged: &'a JudgedEval,
}

/// Of the first task that has both.
fn compared(run: &FollowedRun) -> Option<ComparedEvals<'_>> {
    all_compared(run).into_iter().next()
}

fn all_compared(run: &FollowedRun) -> Vec<ComparedEvals<'_>> {
    let mut found = Vec::new();
    for (task, outcome) in run.outcome.by_task() {
        let Some(judged) = outcome.compared() else {
            continue;
        };
        let set = judged.set.in_task(task);
        let eval = |step, target| run.history.eval(step, &set, target);
        if let (Some(base), Some(trained)) =
            (eval(0, Target::Base), eval(judged.step, Target::Trained))
        {
            found.push(ComparedEvals {
                base,
                trained,
                judged,
            });
        }
    }
    found
}

/// Why there is nothing to compare.
pub(super) fn no_comparison(_: &Live, shared: &Shared) -> Option<String> {
    let Some(run) = shared.current_run() else {
        return Some(shared.no_open_run());
    };
    compared(run)
        .is_none()
        .then(|| format!("nothing to compare: {NOT_COMPARED}"))
}

const NOT_COMPARED: &str = "no set has an eval of both base and trained";

/// Shows both evals on the eval screen.
pub(super) fn open_comparison(_: &mut Live, shared: &mut Shared) -> Vec<Command> {
    let Some((run, ComparedEvals { base, trained, .. })) = shared
        .current_run()
        .and_then(|run| Some((run, compared(run)?)))
    else {
        return Vec::new();
    };
    vec![
        Command::GoTo(Screen::Eval),
        Command::Compare([base, trained].map(|eval| id(run, eval)).to_vec()),
    ]
}

/// An eval of a run as the eval screen names it.
pub(super) fn id(run: &FollowedRun, eval: &Eval) -> EvalId {
    EvalId {
        folder: run.path().to_owned(),
        step: eval.step,
        set: eval.set.clone(),
        target: eval.target.to_string(),
    }
}

pub(super) fn content<'a>(
    live: &Live,
    shared: &Shared,
    run: &FollowedRun,
    inside: Rect,
) -> Content<'a> {
    let has_ended = run.status().is_ended();
    let title = if has_ended {
        format!("result: {}", run.status().name())
    } else {
        "result so far".to_owned()
    };
    let columns = inside.width as usize;
    let mut lines = lines(shared, run, columns);
    lines.extend(log::alerts(shared, run, columns));
    Content {
        opens: true,
        ..framed(shared, RESULT, title).text(inside, lines, live.result_top)
    }
}

fn lines(shared: &Shared, run: &FollowedRun, columns: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let all = all_compared(run);
    let Some(first) = all.first() else {
        let text = format!("valid and exact against the base: not measured ({NOT_COMPARED})");
        return vec![Line::styled(text, theme.style(Role::Warning))];
    };
    let mut lines = vec![heading(shared, run, first)];
    lines.extend(
        all.iter()
            .flat_map(|compared| table(shared, compared, columns)),
    );
    let fallen = run
        .outcome
        .fallen()
        .map(|text| wrapped(&text, columns))
        .unwrap_or_default();
    lines.extend(
        fallen
            .into_iter()
            .map(|text| Line::styled(text, theme.style(Role::Warning))),
    );
    lines
}

/// Base and trained with their intervals, the differences and the verdicts. What does not fit beside the rates goes
/// below them, or is left out: the difference first.
fn table(shared: &Shared, compared: &ComparedEvals<'_>, columns: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let ComparedEvals {
        base,
        trained,
        judged,
    } = compared;
    let cell = |eval: &EvalSummary, metric: &str| match metric {
        "exact" if eval.exact.is_none() => "n/a".to_owned(),
        _ => percent_interval(eval.metric(metric), eval.interval(metric)),
    };
    let names = match trained.summary.invented {
        Some(_) => "invented ".len(),
        None => "valid  ".len(),
    };
    let row = |name: &str, first: &str, second: &str| {
        let mut line = Line::raw(padded(name, names, false));
        line.spans.push(Span::styled(
            padded(first, 21, false),
            theme.style(Role::Base),
        ));
        line.spans.push(Span::styled(
            padded(second, 21, false),
            theme.style(Role::Trained),
        ));
        line
    };
    let set = format!("{} set, n = {}", trained.set, trained.summary.n);
    let mut head = row("", "base", &format!("step {}", trained.step));
    head.spans.push(Span::styled(
        padded(&set, columns.saturating_sub(42 + names), false),
        theme.style(Role::Faint),
    ));
    let mut lines = vec![head];
    // With several completions per prompt the comparison is of the first ones: only the rates are shown then.
    let is_of_all = trained
        .against_base
        .as_deref()
        .is_some_and(|found| found.valid.pairs() == trained.summary.n);
    for (metric, judged) in [("valid", Some(judged.valid)), ("exact", judged.exact)] {
        let mut line = row(
            metric,
            &cell(&base.summary, metric),
            &cell(&trained.summary, metric),
        );
        let Some(judged) = judged else {
            line.spans.push(Span::styled(
                "no expected answers",
                theme.style(Role::Faint),
            ));
            lines.push(line);
            continue;
        };
        let style = theme.style(role(judged.verdict));
        let words = judged.words();
        let difference = if is_of_all {
            format!("{}  ", points(&judged.difference))
        } else {
            String::new()
        };
        let room = columns.saturating_sub(line.width());
        if difference.len() + words.len() <= room {
            line.spans
                .extend([Span::raw(difference), Span::styled(words, style)]);
        } else if words.len() <= room {
            line.spans.push(Span::styled(words, style));
        } else {
            lines.push(line);
            line = Line::from(vec![
                Span::raw(" ".repeat(names)),
                Span::styled(words, style),
            ]);
        }
        lines.push(line);
    }
    if let Some(invented) = &trained.summary.invented {
        let cells = [&base.summary, &trained.summary].map(|summary| cell(summary, "invented"));
        let mut line = row("invented", &cells[0], &cells[1]);
        let of = format!("of {} values that are not expected", invented.n);
        line.spans.push(Span::styled(of, theme.style(Role::Faint)));
        lines.push(line);
    }
    lines
}

/// The best checkpoint, and the key of the comparison.
fn heading(shared: &Shared, run: &FollowedRun, compared: &ComparedEvals<'_>) -> Line<'static> {
    let theme = &shared.theme;
    let by = run
        .directory
        .as_ref()
        .map_or("", |run| run.file().config.keep_best_by.name());
    let best = match run.best {
        Some(0) => {
            vec![Span::styled(
                "best checkpoint: step 0, the base: no later one is better",
                theme.style(Role::Warning),
            )]
        }
        Some(step) if step == compared.trained.step => {
            vec![Span::raw(format!("best checkpoint: step {step}"))]
        }
        Some(step) => vec![
            Span::raw(format!("best checkpoint: step {step}")),
            Span::styled(
                format!(
                    ", not the one of this eval (step {})",
                    compared.trained.step
                ),
                theme.style(Role::Faint),
            ),
        ],
        None => vec![Span::styled(
            "no checkpoint has an eval",
            theme.style(Role::Warning),
        )],
    };
    let mut line = Line::from(best);
    line.spans.push(Span::styled(
        format!(" (keep_best_by = {by})  "),
        theme.style(Role::Faint),
    ));
    line.spans.push(Span::styled(
        shared.key_of("live.compare"),
        theme.style(Role::Key),
    ));
    line.spans.push(Span::raw(" compare answers"));
    line
}

fn role(verdict: Verdict) -> Role {
    match verdict {
        Verdict::Better => Role::Good,
        Verdict::Worse => Role::Bad,
        Verdict::NoDifference => Role::Text,
    }
}
