//! The scores screen's part of the table of actions.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{COMPLETION, LIST, PARTS, SUMMARY, Source, input, listing, sampling, source};
use crate::view::action::{Action, Place};
use crate::view::app::Model;
use crate::view::message::Command;
use crate::view::screens::Screen;
use crate::view::widgets::field::Field;
use crate::view::widgets::list_cursor::Cursor;

const HERE: Place = Place::On(Screen::Scores);

pub(super) const ACTIONS: &[Action] = &[
    Action::new("scores.open", "Show completion", "", &["enter"], Place::In(Screen::Scores, LIST), |model| {
        model.scores.pane = Some(COMPLETION);
        Vec::new()
    }),
    Action::new("scores.source", "Next source", "source", &["s"], HERE, |model| {
        let next = next_source(model);
        source::turn_to(model, next)
    }),
    Action::new("scores.samples", "Show task samples", "", &[], HERE, |model| source::turn_to(model, Source::Samples)),
    Action::new("scores.later_step", "Next step", "step", &["]"], HERE, |model| source::step(model, 1)).unless(no_run),
    Action::new("scores.earlier_step", "Previous step", "", &["["], HERE, |model| source::step(model, -1)).unless(no_run),
    Action::new("scores.ten_later", "Forward 10 steps", "", &["}"], HERE, |model| source::step(model, 10)).unless(no_run),
    Action::new("scores.ten_earlier", "Back 10 steps", "", &["{"], HERE, |model| source::step(model, -10)).unless(no_run),
    Action::new("scores.edit", "Edit completion", "edit", &["i"], HERE, |model| input::write(model, false)).asking(),
    Action::new("scores.write", "Write completion", "write", &["a"], HERE, |model| input::write(model, true)).also(&["new"]).asking(),
    Action::new("scores.remove", "Delete written completion", "", &["delete"], HERE, input::remove)
        .unless(|model| (model.scores.source != Source::Written).then(|| "only written completions can be deleted".to_owned())),
    Action::new("scores.draw", "Sample completions", "sample", &["r"], HERE, sampling::draw)
        .also(&["sample"])
        .unless(|model| sampling::plan(model).err()),
    Action::new("scores.target", "Toggle base/trained", "base/trained", &["b"], HERE, |model| {
        model.scores.from_base = !model.scores.from_base;
        let text = match sampling::plan(model) {
            Ok(plan) => format!("r samples from {}", plan.name),
            Err(why) => why,
        };
        model.shared.say(text);
        Vec::new()
    }),
    Action::new("scores.cancel", "Cancel", "cancel", &["x"], HERE, |model| {
        sampling::cancel(model);
        if let Some(whole) = &model.scores.whole {
            whole.cancel.now();
        }
        Vec::new()
    })
    .unless(|model| {
        let scores = &model.scores;
        let is_busy = scores.drawing.is_some() || scores.whole.as_ref().is_some_and(|whole| !whole.is_done);
        (!is_busy).then(|| "nothing to cancel".to_owned())
    }),
    Action::new("scores.rescore_run", "Re-score run", "re-score run", &["R"], HERE, source::rescore_run).unless(no_run),
    Action::new("scores.only", "Cycle tier filter", "tier", &["f"], HERE, |model| {
        model.scores.only = model.scores.only.next();
        to_the_top(model)
    }),
    Action::new("scores.class", "Cycle failure filter", "failure", &["c"], HERE, |model| {
        model.scores.class = listing::next_class(model);
        to_the_top(model)
    }),
    Action::new("scores.filter", "Find completion", "find", &["/"], HERE, |model| {
        model.scores.filtering = true;
        model.scores.pane = Some(LIST);
        Vec::new()
    })
    .also(&["find", "search", "filter"])
    .asking(),
    Action::new("scores.order", "Cycle sort order", "order", &["o"], HERE, |model| {
        model.scores.order = model.scores.order.next();
        to_the_top(model)
    })
    .also(&["sort"]),
    Action::new("scores.groups", "Toggle grouping", "groups", &["v"], HERE, |model| {
        model.scores.is_flat = !model.scores.is_flat;
        to_the_top(model)
    }),
    Action::new("scores.copy", "Copy completion", "", &["y"], HERE, |model| {
        let place = listing::selected(model);
        let item = place.and_then(|place| model.scores.scored.as_ref()?.items.all.get(place));
        item.map(|item| vec![Command::Copy(item.text.clone())]).unwrap_or_default()
    })
    .also(&["yank", "clipboard"]),
    Action::new("scores.back", "Clear filters", "", &["esc"], HERE, |model| {
        // In a text field escape belongs to the field.
        if (PARTS.is_typing)(model) {
            return input::typed(model, KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
        }
        if matches!(PARTS.pane_of(model), COMPLETION | SUMMARY) {
            model.scores.pane = Some(LIST);
            return Vec::new();
        }
        (model.scores.only, model.scores.class) = Default::default();
        model.scores.filter = Field::default();
        listing::arrange(model);
        Vec::new()
    }),
];

fn next_source(model: &Model) -> Source {
    let all = [Source::Samples, Source::Written, Source::Step, Source::Drawn];
    let has = |source: &&Source| match source {
        Source::Samples => true,
        Source::Written => !model.scores.written.is_empty(),
        Source::Step => model.shared.current.is_some(),
        Source::Drawn => !model.scores.drawn.is_empty(),
    };
    let now = all.iter().position(|source| *source == model.scores.source).unwrap_or(0);
    all.iter().cycle().skip(now + 1).find(has).copied().unwrap_or_default()
}

fn no_run(model: &Model) -> Option<String> {
    let Some(run) = model.shared.current_run() else {
        return Some("no run is open: open one on Runs (f1)".to_owned());
    };
    (run.history.last_step == 0).then(|| format!("{} has no finished step yet", run.id()))
}

/// The list was filtered or sorted otherwise.
fn to_the_top(model: &mut Model) -> Vec<Command> {
    listing::arrange(model);
    model.scores.cursor = Cursor::default();
    model.scores.tops[0] = 0;
    Vec::new()
}
