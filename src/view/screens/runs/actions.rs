//! The actions of the list of runs.

use super::{LIST, columns, control, export, under_cursor};
use crate::report::{Report, RunsCompared, base_and_trained, unknown_field};
use crate::run::{RunDirectory, Verb};
use crate::view::action::{Action, Place};
use crate::view::app::Model;
use crate::view::message::{Command, Work};
use crate::view::popup::{Ask, Page, Popup};
use crate::view::screens::Screen;
use crate::view::shared;

const HERE: Place = Place::On(Screen::Runs);

/// The screen's part of the table.
pub(super) const ACTIONS: &[Action] = &[
    Action::new("runs.open", "Open run", "open", &["enter"], HERE, open).unless(no_readable),
    Action::new("runs.filter", "Filter runs", "filter", &["/"], HERE, |model| {
        model.runs.typing = true;
        model.runs.pane = LIST;
        Vec::new()
    })
    .also(&["find", "search"])
    .asking(),
    Action::new("runs.leave_filter", "Clear filter", "", &["esc"], HERE, leave_filter).unless(|model| {
        let runs = &model.runs;
        let nothing = !runs.typing && runs.filter.text().is_empty() && runs.marked.is_empty() && !model.shared.zoomed && runs.pane == LIST;
        nothing.then(|| "no filter or marks to clear".to_owned())
    }),
    Action::new("runs.mark", "Toggle mark", "mark", &["space"], HERE, mark).unless(no_run),
    Action::new("runs.compare", "Compare marked runs", "compare", &["c"], HERE, compare).also(&["diff"]).unless(|model| {
        let several = model.runs.chosen().len() > 1;
        (!several).then(|| "mark two or more runs first (space)".to_owned())
    }),
    Action::new("runs.versus", "Compare answers", "answers", &["v"], HERE, versus)
        .also(&["answers"])
        .unless(|model| no_readable(model).or_else(|| (model.runs.chosen().len() > 3).then(|| "mark at most three runs".to_owned()))),
    Action::new("runs.overlay", "Overlay marked runs", "overlay", &["o"], HERE, overlay).unless(|model| {
        no_readable(model).or_else(|| model.runs.marked.is_empty().then(|| "mark at least one run first (space)".to_owned()))
    }),
    Action::new("runs.pause", "Pause run", "pause", &["p"], HERE, |model| control::tell(model, Verb::Pause))
        .also(&["hold"])
        .unless(control::no_pause),
    Action::new("runs.resume", "Resume run", "resume", &["r"], HERE, control::resume)
        .also(&["continue", "unpause", "restart"])
        .unless(control::no_resume),
    Action::new("runs.checkpoint", "Save checkpoint", "", &["C"], HERE, |model| control::tell(model, Verb::Checkpoint))
        .unless(control::no_worker),
    Action::new("runs.eval", "Run eval", "", &["E"], HERE, |model| control::tell(model, Verb::Eval))
        .also(&["run eval"])
        .unless(control::no_worker),
    Action::new("runs.stop", "Stop run", "stop", &["x"], HERE, |model| control::stop(model, false))
        .also(&["end", "cancel"])
        .unless(control::no_worker),
    Action::new("runs.stop_now", "Kill run", "", &["X"], HERE, |model| control::stop(model, true))
        .also(&["kill", "abort"])
        .unless(control::no_worker),
    Action::new("runs.annotate", "Add note", "", &["a"], HERE, control::note)
        .also(&["note", "annotate", "comment"])
        .asking()
        .unless(control::no_note),
    Action::new("runs.tag", "Edit tags", "tag", &["t"], HERE, export::tag).also(&["tag", "label", "rename"]).asking().unless(no_readable),
    Action::new("runs.sort_next", "Sort by next column", "", &[">"], HERE, |model| sort_by_column(model, 1)),
    Action::new("runs.sort_previous", "Sort by previous column", "", &["<"], HERE, |model| sort_by_column(model, -1)),
    Action::new("runs.sort_turn", "Reverse sort", "", &["R"], HERE, |model| {
        model.runs.sort.descending = !model.runs.sort.descending;
        model.runs.arrange();
        Vec::new()
    }),
    Action::new("runs.sort_by", "Sort by field", "sort", &["s"], HERE, sort_by).also(&["order"]).asking(),
    Action::new("runs.smoothed", "Toggle smoothed sort", "", &["S"], HERE, |model| {
        model.runs.sort.smoothed = !model.runs.sort.smoothed;
        model.runs.arrange();
        let how = if model.runs.sort.smoothed { "moving average (about 10 steps)" } else { "last value" };
        model.shared.say(format!("metrics sorted by {how}"));
        Vec::new()
    }),
    Action::new("runs.html", "Export HTML", "", &["w"], HERE, export::html).also(&["export", "report"]).asking().unless(no_readable),
    Action::new("runs.csv", "Export CSV", "", &["W"], HERE, export::csv).also(&["export"]).asking().unless(no_readable),
    Action::new("runs.promote", "Export checkpoint", "", &["P"], HERE, export::promote)
        .also(&["promote", "export checkpoint", "export adapter"])
        .asking()
        .unless(|model| {
            let none = || model.runs.row().filter(|row| row.checkpoints.is_empty()).map(|_| "no checkpoint yet".to_owned());
            no_readable(model).or_else(none)
        }),
    Action::new("runs.remove", "Delete run", "", &["d", "delete"], HERE, export::remove).also(&["remove"]).unless(export::no_removal),
    Action::new("runs.copy", "Copy run id", "", &["y"], HERE, |model| {
        let id = model.runs.entry().map(crate::report::Entry::id);
        id.into_iter().map(Command::Copy).collect()
    })
    .also(&["yank", "clipboard"])
    .unless(no_run),
    Action::new("runs.demonstration", "Open sample run", "", &["D"], HERE, |model| {
        let Some(run) = model.runs.demonstration.clone() else { return Vec::new() };
        let mut commands = vec![Command::ShowRun(run)];
        commands.extend(vec![Command::GoTo(Screen::Live)]);
        commands
    })
    .unless(|model| {
        let there = model.runs.demonstration.is_some();
        (!there).then(|| "sample-data/finished-run not found above this folder".to_owned())
    }),
];

/// Why nothing can be done with the run under the cursor.
pub(super) fn no_run(model: &Model) -> Option<String> {
    model.runs.entry().is_none().then(|| "no run selected".to_owned())
}

/// The same, also where it cannot be read.
pub(super) fn no_readable(model: &Model) -> Option<String> {
    let error = || model.runs.entry().and_then(|entry| entry.row.as_ref().err()).map(|error| format!("cannot read this run: {error}"));
    no_run(model).or_else(error)
}

fn open(model: &mut Model) -> Vec<Command> {
    let Some(path) = model.runs.entry().map(|entry| entry.path.clone()) else { return Vec::new() };
    model.shared.overlay.clear();
    let mut commands = vec![Command::ShowRun(path)];
    commands.extend(vec![Command::GoTo(Screen::Live)]);
    commands
}

/// The run under the cursor becomes the current one, the marked ones are drawn over it.
fn overlay(model: &mut Model) -> Vec<Command> {
    let Some(path) = model.runs.entry().map(|entry| entry.path.clone()) else { return Vec::new() };
    let others: Vec<_> = model.runs.chosen().into_iter().filter(|other| *other != path).collect();
    model.shared.overlay.clone_from(&others);
    let mut commands = vec![Command::ShowRun(path)];
    for other in others {
        commands.extend(shared::follow(&mut model.shared, other));
    }
    commands.extend(vec![Command::GoTo(Screen::Live)]);
    commands
}

fn mark(model: &mut Model) -> Vec<Command> {
    let Some(path) = model.runs.entry().map(|entry| entry.path.clone()) else { return Vec::new() };
    if !model.runs.marked.remove(&path) {
        model.runs.marked.insert(path);
    }
    let length = model.runs.shown.len();
    model.runs.cursor.go(1, length);
    under_cursor(model)
}

/// The nearest thing that can be left: typing, zoom, the details, the filter, the marks.
fn leave_filter(model: &mut Model) -> Vec<Command> {
    let runs = &mut model.runs;
    if runs.typing {
        runs.typing = false;
    } else if model.shared.zoomed {
        model.shared.zoomed = false;
    } else if runs.pane != LIST {
        runs.pane = LIST;
    } else if !runs.filter.text().is_empty() {
        runs.filter = crate::view::widgets::field::Field::default();
        runs.arrange();
    } else {
        runs.marked.clear();
    }
    under_cursor(model)
}

fn sort_by_column(model: &mut Model, by: isize) -> Vec<Command> {
    let sort = &mut model.runs.sort;
    let fields = columns::SORTED;
    let now = fields.iter().position(|field| *field == sort.field).unwrap_or(0);
    let next = fields[(now as isize + by).rem_euclid(fields.len() as isize) as usize];
    sort.field = next.to_owned();
    sort.descending = is_wanted_from_the_top(next);
    model.runs.arrange();
    Vec::new()
}

/// Numbers are wanted from the top, texts from the beginning of the alphabet.
fn is_wanted_from_the_top(field: &str) -> bool {
    !["status", "run", "task", "model", "tags", "name"].contains(&field)
}

/// Sort by the column whose title was clicked; the same once more turns the order round.
pub(super) fn sort_by_title(model: &mut Model, field: &str, smoothed: bool) {
    let sort = &mut model.runs.sort;
    let is_same = sort.field == field && (field != "reward" || sort.smoothed == smoothed);
    sort.descending = if is_same { !sort.descending } else { is_wanted_from_the_top(field) };
    if field == "reward" {
        sort.smoothed = smoothed;
    }
    field.clone_into(&mut sort.field);
    model.runs.arrange();
}

fn sort_by(model: &mut Model) -> Vec<Command> {
    let listing = model.runs.listing.clone();
    let now = model.runs.sort.field.clone();
    let label = "Field (valid, step, ...), config.KEY, or metric (reward, kl, completions/mean_length):";
    let question = Ask::new("Sort runs", label, &now, |model, name| {
        name.trim().clone_into(&mut model.runs.sort.field);
        model.runs.sort.descending = true;
        model.runs.arrange();
        Vec::new()
    });
    model.shared.popup =
        Some(Popup::Ask(question.checked(move |name| {
            unknown_field(name.trim(), listing.entries().iter().filter_map(|entry| entry.row.as_deref().ok()), false)
        })));
    Vec::new()
}

/// The answers of the chosen runs on the eval screen: of one its base and its result, of several their results.
fn versus(model: &mut Model) -> Vec<Command> {
    let runs = model.runs.chosen();
    let mut commands = vec![Command::GoTo(Screen::Eval)];
    commands.push(Work::once(
        "runs.versus",
        move || {
            let passes = runs.iter().map(|run| base_and_trained(run)).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
            // Of several runs only the results count.
            let skipped = usize::from(runs.len() > 1);
            Ok::<_, String>(passes.into_iter().flat_map(|passes| passes.into_iter().skip(skipped)).collect::<Vec<_>>())
        },
        |model, passes| match passes {
            Ok(passes) => vec![Command::Compare(passes)],
            Err(error) => {
                model.shared.complain(error);
                Vec::new()
            }
        },
    ));
    commands
}

fn compare(model: &mut Model) -> Vec<Command> {
    let paths = model.runs.chosen();
    let work = Work::once(
        "runs.compare",
        move || -> Result<String, crate::run::RunError> {
            let reports = paths.iter().map(|path| Report::read(RunDirectory::open(path)?)).collect::<Result<Vec<_>, _>>()?;
            Ok(RunsCompared::of(&reports).page())
        },
        |model, page| {
            match page {
                Ok(_) if model.takes_text() => model.shared.complain("comparison ready: press c again to show it"),
                Ok(page) => {
                    let lines = page.lines().map(|line| ratatui::text::Line::from(line.to_owned())).collect();
                    model.shared.popup = Some(Popup::Page(Page::new("Run comparison", lines)));
                }
                Err(error) => model.shared.complain(error.to_string()),
            }
            Vec::new()
        },
    );
    vec![work]
}
