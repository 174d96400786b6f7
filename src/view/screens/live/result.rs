//! The result of a run: base and trained on valid and exact with 95% CI and verdicts, and the best checkpoint.

use std::path::Path;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::frame::framed;
use super::state::Compared;
use super::{Live, RESULT, log};
use crate::format::percent_interval;
use crate::report::{EvalId, MetricComparison, Verdict, points};
use crate::run::events::Eval;
use crate::run::{EvalSummary, eval_path, read_evals};
use crate::view::followed_run::FollowedRun;
use crate::view::message::{Command, Work};
use crate::view::screens::Screen;
use crate::view::shared::Shared;
use crate::view::style_role::Role;
use crate::view::widgets::text_width::padded;

/// Reads the result if the run has other evals than when it was last read.
pub(super) fn load(live: &mut Live, shared: &Shared) -> Vec<Command> {
    let Some(run) = shared.current_run().filter(|run| run.loaded) else { return Vec::new() };
    let history = &run.history;
    let last_checkpoint = history.checkpoints.keys().next_back().copied();
    let state = (history.evals.len(), last_checkpoint, history.resumed, history.end.is_some());
    if live.result.of == Some(state) {
        return Vec::new();
    }
    live.result.of = Some(state);
    // The candidates of the run's outcome, so that both name the same checkpoint.
    let checkpoints: Vec<u64> = history.checkpoints.keys().copied().collect();
    live.result.best = run
        .directory
        .as_ref()
        .and_then(|directory| history.best_step_by(&checkpoints, directory.file().config.keep_best_by));
    let of_set = |set: &&str| {
        let base = history.evals.get(&(0, (*set).to_owned(), "base".to_owned()))?;
        let result = history.result(set, live.result.best)?;
        // Where no later checkpoint is better than the base, the latest eval shows what training did.
        let trained = if result.step == 0 { history.latest_eval(set, "trained")? } else { result };
        Some((base.clone(), trained.clone()))
    };
    let Some((base, trained)) = ["test", "eval"].iter().find_map(of_set) else {
        live.result.compared = Some(Err("no set has an eval of both base and trained".to_owned()));
        return Vec::new();
    };
    let of = run.path().to_owned();
    let path = of.clone();
    let read = move |_: &_| read(&path, base, trained);
    vec![Work::latest("live.result", read, move |live: &mut Live, shared, compared| {
        if shared.current.as_ref() == Some(&of) {
            live.result.compared = Some(compared);
        }
        Vec::new()
    })]
}

fn read(run: &Path, base: Eval, trained: Eval) -> Result<Compared, String> {
    let records = |eval: &Eval| {
        let path = eval_path(run, eval.step, &eval.set, &eval.target);
        read_evals(&path).map_err(|error| error.to_string())
    };
    let (valid, exact) = MetricComparison::both(&records(&base)?, &records(&trained)?);
    if valid.n == 0 {
        return Err(format!("the {} evals share no prompt", base.set));
    }
    Ok(Compared { base, trained, judged: std::iter::once(valid).chain(exact).collect() })
}

/// Why there is nothing to compare.
pub(super) fn no_comparison(live: &Live, shared: &Shared) -> Option<String> {
    shared.current_run().is_none().then(|| shared.no_open_run()).or_else(|| match &live.result.compared {
        Some(Ok(_)) => None,
        Some(Err(why)) => Some(format!("nothing to compare: {why}")),
        None => Some("the evals are being read".to_owned()),
    })
}

/// Shows both evals on the eval screen.
pub(super) fn open_comparison(live: &mut Live, shared: &mut Shared) -> Vec<Command> {
    let (Some(Ok(Compared { base, trained, .. })), Some(run)) = (&live.result.compared, shared.current_run()) else {
        return Vec::new();
    };
    vec![Command::GoTo(Screen::Eval), Command::Compare([base, trained].map(|eval| id(run, eval)).to_vec())]
}

/// An eval of a run as the eval screen names it.
pub(super) fn id(run: &FollowedRun, eval: &Eval) -> EvalId {
    let Eval { step, set, target, .. } = eval.clone();
    EvalId { folder: run.path().to_owned(), step, set, target }
}

pub(super) fn draw(live: &Live, shared: &Shared, run: &FollowedRun, frame: &mut Frame<'_>, area: Rect, focused: bool) {
    let has_ended = run.status().is_ended();
    let title = if has_ended { format!("result: {}", run.status().name()) } else { "result so far".to_owned() };
    let inside = framed(shared, (RESULT, &title), Line::default(), focused, frame, area);
    let columns = inside.width as usize;
    let mut lines = lines(live, shared, run, columns);
    lines.extend(log::alerts(shared, run, columns));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inside);
}

fn lines(live: &Live, shared: &Shared, run: &FollowedRun, columns: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let compared = match &live.result.compared {
        Some(Ok(compared)) => compared,
        Some(Err(why)) => {
            let text = format!("valid and exact against the base: not measured ({why})");
            return vec![Line::styled(text, theme.style(Role::Warning))];
        }
        None => return vec![Line::styled("loading ...", theme.style(Role::Faint))],
    };
    let mut lines = vec![heading(live, shared, run, compared)];
    lines.extend(table(shared, compared, columns));
    lines
}

/// Base and trained with their intervals, the differences and the verdicts. What does not fit beside the rates goes
/// below them, or is left out: the difference first.
fn table(shared: &Shared, compared: &Compared, columns: usize) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let Compared { base, trained, judged } = compared;
    let cell = |eval: &EvalSummary, metric: &str| match metric {
        "exact" if eval.exact.is_none() => "not measured".to_owned(),
        _ => percent_interval(eval.metric(metric), eval.interval(metric)),
    };
    let row = |name: &str, first: &str, second: &str| {
        let mut line = Line::raw(padded(name, 7, false));
        line.spans.push(Span::styled(padded(first, 21, false), theme.style(Role::Base)));
        line.spans.push(Span::styled(padded(second, 21, false), theme.style(Role::Trained)));
        line
    };
    let set = format!("{} set, n = {}", trained.set, trained.summary.n);
    let mut head = row("", "base", &format!("step {}", trained.step));
    head.spans.push(Span::styled(padded(&set, columns.saturating_sub(49), false), theme.style(Role::Faint)));
    let mut lines = vec![head];
    for metric in ["valid", "exact"] {
        let mut line = row(metric, &cell(&base.summary, metric), &cell(&trained.summary, metric));
        let Some(judged) = judged.iter().find(|judged| judged.metric == metric) else {
            line.spans.push(Span::styled("no expected answers", theme.style(Role::Faint)));
            lines.push(line);
            continue;
        };
        let style = theme.style(role(judged.verdict));
        let words = judged.judged().to_string();
        let words = words.trim_start_matches(metric).trim_start_matches([':', ' ']).to_owned();
        let difference = points(&judged.difference);
        let room = columns.saturating_sub(line.width());
        if difference.len() + 2 + words.len() <= room {
            line.spans.extend([Span::raw(format!("{difference}  ")), Span::styled(words, style)]);
        } else if words.len() <= room {
            line.spans.push(Span::styled(words, style));
        } else {
            lines.push(line);
            line = Line::from(vec![Span::raw(" ".repeat(7)), Span::styled(words, style)]);
        }
        lines.push(line);
    }
    lines
}

/// The best checkpoint, and the key of the comparison.
fn heading(live: &Live, shared: &Shared, run: &FollowedRun, compared: &Compared) -> Line<'static> {
    let theme = &shared.theme;
    let by = run.directory.as_ref().map_or("", |run| run.file().config.keep_best_by.name());
    let best = match live.result.best {
        Some(0) => {
            vec![Span::styled("best checkpoint: step 0, the base: no later one is better", theme.style(Role::Warning))]
        }
        Some(step) if step == compared.trained.step => vec![Span::raw(format!("best checkpoint: step {step}"))],
        Some(step) => vec![
            Span::raw(format!("best checkpoint: step {step}")),
            Span::styled(
                format!(", not the one of this eval (step {})", compared.trained.step),
                theme.style(Role::Faint),
            ),
        ],
        None => vec![Span::styled("no checkpoint has an eval", theme.style(Role::Warning))],
    };
    let mut line = Line::from(best);
    line.spans.push(Span::styled(format!(" (keep_best_by = {by})  "), theme.style(Role::Faint)));
    line.spans.push(Span::styled(shared.key_of("live.compare"), theme.style(Role::Key)));
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
