//! The actions of the comparison.

use super::{ANSWERS, CHOOSER, PROMPTS, chooser, eval_job, read, rescore};
use crate::report::{Outcome, versus_html};
use crate::view::action::{Action, Place};
use crate::view::app::Model;
use crate::view::message::{Command, Work};
use crate::view::popup::{Ask, Popup};
use crate::view::screens::Screen;
use crate::view::screens::runs;
use crate::view::widgets::field::Field;

const HERE: Place = Place::On(Screen::Eval);
const CHOOSING: Place = Place::In(Screen::Eval, CHOOSER);

/// The screen's part of the table.
pub(super) const ACTIONS: &[Action] = &[
    Action::new("eval.chooser.open", "Open", "open", &["enter", "right", "l"], CHOOSING, chooser::enter),
    Action::new("eval.chooser.pick", "Toggle selection", "select", &["space"], CHOOSING, chooser::pick),
    Action::new("eval.chooser.compare", "Compare selected", "compare", &["c"], CHOOSING, chooser::compare).unless(chooser::no_compare),
    Action::new("eval.chooser.back", "Back", "back", &["esc", "left", "h"], CHOOSING, chooser::back),
    Action::new("eval.read", "Show answers", "read", &["enter"], Place::In(Screen::Eval, PROMPTS), |model| {
        model.eval.pane = ANSWERS;
        model.eval.top = 0;
        Vec::new()
    })
    .unless(nothing),
    Action::new("eval.leave", "Back", "", &["esc"], HERE, leave),
    Action::new("eval.fixed", "Show improvements", "improvements", &["f"], HERE, |model| only(model, Some(Outcome::Fixed))).unless(nothing),
    Action::new("eval.broken", "Show regressions", "regressions", &["b"], HERE, |model| only(model, Some(Outcome::Broken))).unless(nothing),
    Action::new("eval.neither", "Show neither valid", "", &["n"], HERE, |model| only(model, Some(Outcome::Neither))).unless(nothing),
    Action::new("eval.both", "Show both valid", "", &["v"], HERE, |model| only(model, Some(Outcome::Both))).unless(nothing),
    Action::new("eval.all", "Show all prompts", "all", &["a"], HERE, |model| {
        model.eval.filter = Field::default();
        only(model, None)
    })
    .unless(nothing),
    Action::new("eval.filter", "Filter prompts", "filter", &["/"], HERE, |model| {
        model.eval.typing = true;
        model.eval.pane = PROMPTS;
        Vec::new()
    })
    .also(&["find", "search"])
    .asking()
    .unless(nothing),
    Action::new("eval.sort", "Cycle sort order", "sort", &["s"], HERE, |model| {
        model.eval.sort = model.eval.sort.next();
        model.eval.arrange();
        let name = model.eval.sort.name();
        model.shared.say(format!("prompts: {name}"));
        Vec::new()
    })
    .unless(nothing),
    Action::new("eval.choose", "Choose evals", "choose", &["o"], HERE, chooser::open),
    Action::new("eval.pair", "Next pair", "pair", &["p"], HERE, |model| {
        let pairs = model.eval.versus().map_or(1, |versus| versus.pairs.len());
        model.eval.pair = (model.eval.pair + 1) % pairs.max(1);
        model.eval.arrange();
        Vec::new()
    })
    .unless(|model| {
        let several = model.eval.versus().is_some_and(|versus| versus.pairs.len() > 1);
        nothing(model).or_else(|| (!several).then(|| "only two evals are compared: choose three with o".to_owned()))
    }),
    Action::new("eval.sides", "Toggle side by side", "layout", &["d"], HERE, |model| {
        let now = super::answers::is_side_by_side(model);
        model.eval.side_by_side = Some(!now);
        Vec::new()
    })
    .unless(nothing),
    Action::new("eval.copy", "Copy second answer", "copy", &["y"], HERE, |model| copy(model, true))
        .also(&["yank", "clipboard"])
        .unless(nothing),
    Action::new("eval.copy_first", "Copy first answer", "", &["Y"], HERE, |model| copy(model, false)).unless(nothing),
    Action::new("eval.html", "Export HTML", "", &["w"], HERE, html).also(&["export", "report"]).asking().unless(nothing),
    Action::new("eval.start", "Run eval", "eval", &["E"], HERE, eval_job::ask).also(&["run eval"]).asking().unless(eval_job::no_start),
    Action::new("eval.rescore", "Re-score with editor schema", "", &["r"], HERE, rescore)
        .also(&["score again", "recorded scores"])
        .unless(no_rescoring),
    Action::new("eval.again", "Reload", "", &["R"], HERE, read),
];

/// Why the passes cannot be scored again.
fn no_rescoring(model: &Model) -> Option<String> {
    let no_schema = || model.shared.scorer().is_none().then(|| "no schema has compiled yet: see Schema (f2)".to_owned());
    nothing(model).filter(|_| !model.eval.is_of_other_schemas && model.eval.rescored.is_none()).or_else(no_schema)
}

/// Why there is nothing to act on.
fn nothing(model: &Model) -> Option<String> {
    match &model.eval.loaded {
        Some(Ok(_)) => None,
        Some(Err(error)) => Some(error.clone()),
        None => Some("nothing to compare: open a run on screen 1, or choose evals with o".to_owned()),
    }
}

/// Only prompts of which this became; the same again takes the filter away.
pub(super) fn only(model: &mut Model, outcome: Option<Outcome>) -> Vec<Command> {
    model.eval.only = if model.eval.only == outcome { None } else { outcome };
    model.eval.arrange();
    Vec::new()
}

/// The nearest thing that can be left.
fn leave(model: &mut Model) -> Vec<Command> {
    let eval = &mut model.eval;
    if eval.typing {
        eval.typing = false;
    } else if model.shared.zoomed {
        model.shared.zoomed = false;
    } else if eval.pane != PROMPTS {
        eval.pane = PROMPTS;
    } else if !eval.filter.text().is_empty() || eval.only.is_some() {
        eval.filter = Field::default();
        eval.only = None;
        eval.arrange();
    } else if !eval.chosen.is_empty() {
        eval.chosen.clear();
        return read(model);
    }
    Vec::new()
}

fn copy(model: &mut Model, second: bool) -> Vec<Command> {
    let eval = &model.eval;
    let text = eval.versus().and_then(|versus| {
        let (pair, asked) = (eval.pair(versus)?, eval.asked(versus)?);
        Some(versus.record(asked, if second { pair.second } else { pair.first })?.completion.clone())
    });
    text.into_iter().map(Command::Copy).collect()
}

fn html(model: &mut Model) -> Vec<Command> {
    let Some(versus) = model.eval.versus().cloned() else { return Vec::new() };
    let here = model.shared.options.here.clone();
    let proposed = here.join(format!("{}-comparison.html", versus.passes[0].task)).display().to_string();
    model.shared.popup = Some(Popup::Ask(Ask::new("Export", "HTML file:", &proposed, move |_, file| {
        let file = runs::written_path(&file, &here);
        vec![Work::once("eval.html", move || runs::written(&file, versus_html(&versus)), runs::told)]
    })));
    Vec::new()
}
