//! The actions of the comparison.

use super::{ANSWERS, CHOOSER, PROMPTS, chooser, read, rescore, start};
use crate::report::{Outcome, versus_html};
use crate::view::action::{Action, Place};
use crate::view::message::{Command, Work};
use crate::view::model::{Model, Screen};
use crate::view::popup::{Ask, Popup};
use crate::view::screens::runs;
use crate::view::widgets::field::Field;

const HERE: Place = Place::On(Screen::Eval);
const CHOOSING: Place = Place::In(Screen::Eval, CHOOSER);

/// The screen's part of the table.
pub(super) const ACTIONS: &[Action] = &[
    Action::new("eval.chooser.open", "Open the run, or choose the pass", "open", &["enter", "right", "l"], CHOOSING, chooser::enter),
    Action::new("eval.chooser.pick", "Choose the pass, or take it back", "choose", &["space"], CHOOSING, chooser::pick),
    Action::new("eval.chooser.compare", "Compare the chosen passes", "compare", &["c"], CHOOSING, chooser::compare)
        .unless(chooser::no_compare),
    Action::new("eval.chooser.back", "Back to the runs, or leave", "back", &["esc", "left", "h"], CHOOSING, chooser::back),
    Action::new("eval.read", "Read the answers of the prompt", "read", &["enter"], Place::In(Screen::Eval, PROMPTS), |model| {
        model.eval.pane = ANSWERS;
        model.eval.top = 0;
        Vec::new()
    })
    .unless(nothing),
    Action::new("eval.leave", "Leave the filter, the answers, or what was chosen", "", &["esc"], HERE, leave),
    Action::new("eval.fixed", "Only prompts that became valid", "fixed", &["f"], HERE, |model| only(model, Some(Outcome::Fixed)))
        .unless(nothing),
    Action::new("eval.broken", "Only prompts that ceased to be valid", "broken", &["b"], HERE, |model| only(model, Some(Outcome::Broken)))
        .unless(nothing),
    Action::new("eval.neither", "Only prompts that are valid in neither", "", &["n"], HERE, |model| only(model, Some(Outcome::Neither)))
        .unless(nothing),
    Action::new("eval.both", "Only prompts that are valid in both", "", &["v"], HERE, |model| only(model, Some(Outcome::Both)))
        .unless(nothing),
    Action::new("eval.all", "All prompts", "all", &["a"], HERE, |model| {
        model.eval.filter = Field::default();
        only(model, None)
    })
    .unless(nothing),
    Action::new("eval.filter", "Filter by words of id, tags and answers", "filter", &["/"], HERE, |model| {
        model.eval.typing = true;
        model.eval.pane = PROMPTS;
        Vec::new()
    })
    .also(&["find", "search"])
    .asking()
    .unless(nothing),
    Action::new("eval.sort", "Sort by change, worst or best first, or as in the file", "sort", &["s"], HERE, |model| {
        model.eval.sort = model.eval.sort.next();
        model.eval.arrange();
        let name = model.eval.sort.name();
        model.say(format!("prompts: {name}"));
        Vec::new()
    })
    .unless(nothing),
    Action::new("eval.choose", "Choose two or three passes of any runs", "choose", &["o"], HERE, chooser::open),
    Action::new("eval.pair", "The next two of three passes", "pair", &["p"], HERE, |model| {
        let pairs = model.eval.versus().map_or(1, |versus| versus.pairs.len());
        model.eval.pair = (model.eval.pair + 1) % pairs.max(1);
        model.eval.arrange();
        Vec::new()
    })
    .unless(|model| {
        let several = model.eval.versus().is_some_and(|versus| versus.pairs.len() > 1);
        nothing(model).or_else(|| (!several).then(|| "there are only two passes; o chooses three".to_owned()))
    }),
    Action::new("eval.sides", "Answers side by side, or one below the other", "sides", &["d"], HERE, |model| {
        let now = super::answers::is_side_by_side(model);
        model.eval.side_by_side = Some(!now);
        Vec::new()
    })
    .unless(nothing),
    Action::new("eval.copy", "Copy the second answer", "copy", &["y"], HERE, |model| copy(model, true))
        .also(&["yank", "clipboard"])
        .unless(nothing),
    Action::new("eval.copy_first", "Copy the first answer", "", &["Y"], HERE, |model| copy(model, false)).unless(nothing),
    Action::new("eval.html", "Export HTML", "", &["w"], HERE, html).also(&["export", "report"]).asking().unless(nothing),
    Action::new("eval.start", "Read held-out prompts with base and trained again", "eval", &["E"], HERE, start::ask)
        .also(&["run eval"])
        .asking()
        .unless(start::no_start),
    Action::new("eval.rescore", "Re-score by the schema in the editor", "", &["r"], HERE, rescore)
        .also(&["score again", "recorded scores"])
        .unless(no_rescoring),
    Action::new("eval.again", "Read the passes again", "", &["R"], HERE, read),
];

/// Why the passes cannot be scored again.
fn no_rescoring(model: &Model) -> Option<String> {
    let no_schema = || model.workbench.scorer().is_none().then(|| "no schema has compiled yet; see the screen Schema (f2)".to_owned());
    nothing(model).filter(|_| !model.eval.is_of_other_schemas && model.eval.rescored.is_none()).or_else(no_schema)
}

/// Why there is nothing to act on.
fn nothing(model: &Model) -> Option<String> {
    match &model.eval.loaded {
        Some(Ok(_)) => None,
        Some(Err(error)) => Some(error.clone()),
        None => Some("nothing is compared yet: open a run on screen 1, or choose passes with o".to_owned()),
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
    } else if model.zoomed {
        model.zoomed = false;
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
    let here = model.options.here.clone();
    let proposed = here.join(format!("{}-comparison.html", versus.passes[0].task)).display().to_string();
    model.popup = Some(Popup::Ask(Ask::new("Export", "The HTML file to write:", &proposed, move |_, file| {
        let file = runs::written_path(&file, &here);
        vec![Work::once(
            "eval.html",
            move || {
                let page = versus_html(&versus);
                runs::written(&file, &page.text, page.masked)
            },
            runs::told,
        )]
    })));
    Vec::new()
}
