//! The result of a run: the best checkpoint, base and trained with the verdict that every list shows, and alerts.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::frame::framed;
use super::{Live, RESULT, log};
use crate::facts::Target;
use crate::followed_run::FollowedRun;
use crate::message::Command;
use crate::page::{Block, Level};
use crate::pane::content::Content;
use crate::pane::page::PageLines;
use crate::report::{EvalId, JudgedEval, judged_page};
use crate::run::RunDirectory;
use crate::run::events::Eval;
use crate::screens::Screen;
use crate::shared::Shared;
use crate::style_role::Role;

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
    let theme = &shared.theme;
    let columns = inside.width as usize;
    let all = all_compared(run);
    let mut lines = PageLines { theme, columns }.lines(&page(run, &all));
    lines.extend(log::alerts(shared, run, columns));
    let key = theme.span(format!(" {}", shared.key_of("live.compare")), Role::Key);
    let legend = Line::from(vec![key, Span::raw(" compare answers ")]);
    Content {
        opens: true,
        legend: if all.is_empty() {
            Line::default()
        } else {
            legend
        },
        ..framed(shared, RESULT, title).text(inside, lines, live.result_top)
    }
}

fn page(run: &FollowedRun, all: &[ComparedEvals<'_>]) -> Vec<Block> {
    let warning = |text| Block::Text(Level::Warning, text);
    let Some(first) = all.first() else {
        let text = format!("valid and exact against the base: not measured ({NOT_COMPARED})");
        return vec![warning(text)];
    };
    let compared = all.iter().flat_map(|compared| {
        let ComparedEvals {
            base,
            trained,
            judged,
        } = compared;
        judged_page(base, trained, judged)
    });
    std::iter::once(best_checkpoint(run, first.trained.step))
        .chain(compared)
        .chain(run.outcome.fallen().map(warning))
        .collect()
}

fn best_checkpoint(run: &FollowedRun, compared: u64) -> Block {
    let (level, best) = match run.best {
        Some(0) => (
            Level::Warning,
            "step 0, the base: no later one is better".to_owned(),
        ),
        Some(step) if step == compared => (Level::Info, format!("step {step}")),
        Some(step) => {
            let text = format!("step {step}, not the one of this eval (step {compared})");
            (Level::Info, text)
        }
        None => (Level::Warning, "no checkpoint has an eval".to_owned()),
    };
    let file = run.directory.as_ref().map(RunDirectory::file);
    let by = file.map_or("", |file| file.config.keep_best_by.name());
    Block::Text(
        level,
        format!("best checkpoint: {best} (keep_best_by = {by})"),
    )
}
