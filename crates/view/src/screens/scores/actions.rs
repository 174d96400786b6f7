//! Actions of the scores screen.

use super::items::Written;
use super::{
    COMPLETION, LIST, Only, SUMMARY, Scores, Source, arrange, next_filter, prompt_choice, sampling,
    save, selected, source,
};
use crate::action::Scope;
use crate::message::Command;
use crate::screen::{self, About, Described, Screen as _};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::tool_results::whole_action;
use crate::widgets::editor::Editor;
use crate::widgets::filter::Filter;
use crate::widgets::list_cursor::Cursor;

type Action = screen::Action<Scores>;

impl Described for Scores {
    const ABOUT: &'static About = &About {
        title: "Scores",
        help: "Completions scored with the schema in the editor: the task's samples, custom ones, or sampled from a model. \
               Edits to the schema re-score them at once and mark what changes its tier.",
        panes: &[LIST, COMPLETION, SUMMARY],
    };
    const TABLE: &'static [Action] = ACTIONS;
}

const HERE: Scope = Scope::Screen(Screen::Scores);
const ACTIONS: &[Action] = &[
    Action::new(
        "scores.open",
        "Show completion",
        "",
        &["enter"],
        Scope::Pane(Screen::Scores, LIST),
        |scores, _| {
            scores.pane = Some(COMPLETION);
            Vec::new()
        },
    ),
    Action::new(
        "scores.source",
        "Next source",
        "source",
        &["o"],
        HERE,
        |scores, shared| {
            let next = next_source(scores);
            source::turn_to(scores, shared, next)
        },
    ),
    Action::new(
        "scores.edit",
        "Edit completion",
        "edit",
        &["e", "i"],
        HERE,
        |scores, shared| write(scores, shared, false),
    )
    .asking(),
    Action::new(
        "scores.write",
        "Write completion",
        "write",
        &["a"],
        HERE,
        |scores, shared| write(scores, shared, true),
    )
    .also(&["new"])
    .asking(),
    Action::new(
        "scores.save",
        "Save as task samples",
        "save",
        &["ctrl-o"],
        HERE,
        save::save,
    )
    .also(&["save", "write samples", "completions.jsonl"])
    .unless(save::nothing),
    Action::new(
        "scores.remove",
        "Delete written completion",
        "",
        &["d", "delete"],
        HERE,
        remove,
    )
    .unless(|scores, _| {
        (scores.source != Source::Written)
            .then(|| "only written completions can be deleted".to_owned())
    }),
    Action::new(
        "scores.prompt",
        "Choose prompt",
        "prompt",
        &["P"],
        HERE,
        prompt_choice::open,
    )
    .also(&["prompt_id", "expected answer"])
    .unless(no_choice),
    Action::new(
        "scores.draw",
        "Sample completions",
        "sample",
        &["S"],
        HERE,
        sampling::sample,
    )
    .also(&["sample"])
    .unless(|scores, shared| sampling::plan(scores, shared).err()),
    Action::new(
        "scores.target",
        "Toggle base/trained",
        "base/trained",
        &["b"],
        HERE,
        |scores, shared| {
            scores.from_base = !scores.from_base;
            let text = match sampling::plan(scores, shared) {
                Ok(plan) => format!(
                    "{} samples from {}",
                    shared.key_of("scores.draw"),
                    plan.name
                ),
                Err(why) => why,
            };
            shared.say(text)
        },
    ),
    Action::new(
        "scores.confidence",
        "Toggle confidence",
        "",
        &[],
        HERE,
        sampling::toggle_confidence,
    )
    .also(&["probability"])
    .unless(|scores, shared| match sampling::plan(scores, shared) {
        Ok(plan) => plan.no_confidence.filter(|_| !scores.with_confidence),
        Err(why) => Some(why),
    }),
    Action::new(
        "scores.cancel",
        "Cancel sampling",
        "",
        &["ctrl-x"],
        HERE,
        |scores, _| {
            sampling::cancel(scores);
            Vec::new()
        },
    )
    .unless(|scores, _| {
        let is_idle = scores.sampling.is_none();
        is_idle.then(|| "nothing is sampled".to_owned())
    }),
    Action::new(
        "scores.only",
        "Filter by tier or failure",
        "tier, failure",
        &["f"],
        HERE,
        |scores, _| {
            scores.only = next_filter(scores);
            to_the_top(scores)
        },
    )
    .also(&["tier", "changed by edit", "changed by schema"]),
    Action::new(
        "scores.filter",
        "Find completion",
        "find",
        &["/"],
        HERE,
        |scores, _| {
            scores.filter.is_typing = true;
            scores.pane = Some(LIST);
            Vec::new()
        },
    )
    .also(&["find", "search", "filter"])
    .asking(),
    Action::new(
        "scores.order",
        "Sort completions",
        "sort",
        &["s"],
        HERE,
        |scores, _| {
            scores.order = scores.order.next();
            to_the_top(scores)
        },
    )
    .also(&["sort"]),
    Action::new(
        "scores.copy",
        "Copy completion",
        "",
        &["y"],
        HERE,
        |scores, _| {
            let place = selected(scores);
            let item = place.and_then(|place| scores.scored.as_ref()?.items.all.get(place));
            item.map(|item| vec![Command::Copy(item.whole())])
                .unwrap_or_default()
        },
    )
    .also(&["yank", "clipboard"])
    .unless(|scores, _| {
        selected(scores)
            .is_none()
            .then(|| "nothing to copy: no completion is selected".to_owned())
    }),
    whole_action("scores.results", Screen::Scores),
    Action::new(
        "scores.back",
        "Clear filters",
        "",
        &["esc"],
        HERE,
        |scores, shared| {
            // Leaves the innermost of: the editor, the filter's text, the pane, all filters.
            if scores.editor.take().is_some() {
                return drop_empty(scores, shared);
            }
            if !scores.filter.is_typing {
                if scores.pane() != LIST {
                    scores.pane = Some(LIST);
                    return Vec::new();
                }
                scores.only = Only::All;
            }
            scores.filter = Filter::default();
            arrange(scores);
            Vec::new()
        },
    ),
];

fn next_source(scores: &Scores) -> Source {
    let all = [Source::Samples, Source::Written, Source::Sampled];
    let has = |source: &&Source| match source {
        Source::Samples => true,
        Source::Written => !scores.written.is_empty(),
        Source::Sampled => !scores.sampled.is_empty(),
    };
    let now = all
        .iter()
        .position(|source| *source == scores.source)
        .unwrap_or(0);
    all.iter()
        .cycle()
        .skip(now + 1)
        .find(has)
        .copied()
        .unwrap_or_default()
}

/// Applies a change of filter or order and moves to the first row.
pub(super) fn to_the_top(scores: &mut Scores) -> Vec<Command> {
    arrange(scores);
    scores.cursor = Cursor::default();
    scores.tops[0] = Cursor::default();
    Vec::new()
}

fn no_choice(scores: &Scores, shared: &Shared) -> Option<String> {
    let is_written = scores.source == Source::Written && selected(scores).is_some();
    let why =
        || "only a completion that was written or pasted here can be given a prompt".to_owned();
    shared.no_task().or_else(|| (!is_written).then(why))
}

/// Opens the editor for a completion: a new one, or a copy of the one under the cursor.
fn write(scores: &mut Scores, shared: &mut Shared, is_new: bool) -> Vec<Command> {
    let here = selected(scores);
    let item = here.and_then(|place| scores.scored.as_ref()?.items.all.get(place));
    let prompt_id = item
        .and_then(|item| item.row.as_ref())
        .map(|row| row.id.clone());
    let text = item
        .filter(|_| !is_new)
        .map(|item| item.text.clone())
        .unwrap_or_default();
    match here.filter(|_| scores.source == Source::Written && !is_new) {
        Some(place) => scores.editing = place,
        None => add(
            scores,
            Written {
                text: text.clone(),
                prompt_id,
                from: "custom".to_owned(),
                ..Written::default()
            },
        ),
    }
    scores.editor = Some(Editor::new(&text, false));
    scores.pane = Some(COMPLETION);
    source::turn_to(scores, shared, Source::Written)
}

/// Removes a written completion without text; if none is left, shows the previous source again.
fn drop_empty(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    let is_empty = scores
        .written
        .get(scores.editing)
        .is_some_and(Written::is_blank);
    if !is_empty {
        return Vec::new();
    }
    scores.written.remove(scores.editing);
    let source = if scores.written.is_empty() {
        scores.source_before
    } else {
        Source::Written
    };
    source::turn_to(scores, shared, source)
}

fn add(scores: &mut Scores, written: Written) {
    if scores.source != Source::Written {
        scores.source_before = scores.source;
    }
    scores.written.push(written);
    scores.editing = scores.written.len() - 1;
    (scores.only, scores.filter, scores.order) = Default::default();
    scores.source = Source::Written;
    scores.cursor = Cursor {
        index: scores.editing,
    };
    arrange(scores);
}

pub(super) fn written(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    let Some(text) = scores.editor.as_ref().map(Editor::text) else {
        return Vec::new();
    };
    let editing = scores.editing;
    if let Some(written) = scores.written.get_mut(editing) {
        written.text = text;
    }
    source::load(scores, shared)
}

pub(super) fn pasted(scores: &mut Scores, shared: &mut Shared, text: &str) -> Vec<Command> {
    let here = selected(scores);
    let row = here.and_then(|place| scores.scored.as_ref()?.items.all.get(place)?.row.clone());
    // Terminals end pasted lines with carriage returns.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    if row.is_none() {
        shared.say(format!(
            "pasted without a prompt: {} chooses the one that it answers",
            shared.key_of("scores.prompt")
        ));
    }
    add(
        scores,
        Written {
            text,
            prompt_id: row.map(|row| row.id.clone()),
            from: "pasted".to_owned(),
            ..Written::default()
        },
    );
    source::turn_to(scores, shared, Source::Written)
}

fn remove(scores: &mut Scores, shared: &mut Shared) -> Vec<Command> {
    if let Some(place) = selected(scores).filter(|place| *place < scores.written.len()) {
        scores.written.remove(place);
    }
    source::load(scores, shared)
}
