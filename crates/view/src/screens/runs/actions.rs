//! The actions of the runs screen, its keys and mouse, and its reaction to changes.

use super::{
    DETAIL, LIST, PIPELINE, Runs, list_actions, no_readable, no_run, none_chosen, pipeline,
    removal, tags, under_cursor,
};
use crate::action::Scope;
use crate::message::Command;
use crate::run_control::{self, ActionIds, Controls, Target};
use crate::screen::{self, About, Described};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::widgets::filter::Filter;

type Action = screen::Action<Runs>;

impl Described for Runs {
    const ABOUT: &'static About = &About {
        title: "Runs",
        help: "All runs, newest first: state, rates where they were measured, and the verdict against the base. A filter is words or conditions, such as valid>0.9 and model:tiny. \
               enter opens a run on Live; marked runs are compared or overlaid. ! marks a damaged run: its details say what is damaged.",
        panes: &[PIPELINE, LIST, DETAIL],
    };
    const TABLE: &'static [Action] = ACTIONS;
}

const HERE: Scope = Scope::Screen(Screen::Runs);

const ACTIONS: &[Action] = &[
    Action::new(
        "runs.pipeline.open",
        "Open stage",
        "open",
        &["enter"],
        STAGES,
        pipeline::open,
    ),
    Action::new(
        "runs.open",
        "Open run",
        "open",
        &["enter"],
        HERE,
        list_actions::open,
    )
    .also(&["attach", "show", "view", "describe"])
    .unless(no_readable),
    Action::new(
        "runs.start",
        "Start run",
        "start run",
        &["L"],
        HERE,
        |_, _| vec![Command::Perform("launch.start")],
    )
    .also(&["new run", "train"])
    .unless(|_, shared| shared.no_task()),
    Action::new(
        "runs.filter",
        "Filter runs",
        "filter",
        &["/"],
        HERE,
        |runs, _| {
            runs.filter.is_typing = true;
            runs.pane = LIST;
            Vec::new()
        },
    )
    .also(&["find", "search"])
    .asking()
    .unless(|_, shared| {
        let none = shared.runs.listing.entries().is_empty();
        none.then(|| "no runs in the list".to_owned())
    }),
    Action::new(
        "runs.leave_filter",
        "Clear filter",
        "",
        &["esc"],
        HERE,
        leave_filter,
    )
    .unless(|runs, shared| {
        let nothing = !runs.filter.is_shown()
            && runs.marked.is_empty()
            && !shared.zoomed
            && (runs.pane == LIST || shared.runs.listing.entries().is_empty());
        nothing.then(|| "no filter or marks to clear".to_owned())
    }),
    Action::new(
        "runs.mark",
        "Toggle mark",
        "mark",
        &["space"],
        HERE,
        list_actions::mark,
    )
    .also(&["select"])
    .unless(no_run),
    Action::new(
        "runs.compare",
        "Compare marked runs",
        "compare",
        &["c"],
        HERE,
        list_actions::compare,
    )
    .also(&["diff"])
    .unless(|runs, shared| {
        let several = runs.chosen(shared).len() > 1;
        (!several).then(|| {
            format!(
                "mark two or more runs first ({})",
                shared.key_of("runs.mark")
            )
        })
    }),
    Action::new(
        "runs.versus",
        "Compare answers",
        "answers",
        &["v"],
        HERE,
        list_actions::versus,
    )
    .also(&["answers"])
    .unless(|runs, shared| {
        no_readable(runs, shared)
            .or_else(|| (runs.chosen(shared).len() > 2).then(|| "mark at most two runs".to_owned()))
    }),
    Action::new(
        "runs.overlay",
        "Overlay marked runs",
        "overlay",
        &["o"],
        HERE,
        list_actions::overlay,
    )
    .unless(|runs, shared| {
        no_readable(runs, shared).or_else(|| {
            runs.marked.is_empty().then(|| {
                format!(
                    "mark at least one run first ({})",
                    shared.key_of("runs.mark")
                )
            })
        })
    }),
    run_control::pause(),
    run_control::resume().hint("resume"),
    run_control::checkpoint(),
    run_control::eval(),
    run_control::stop().hint("stop"),
    run_control::kill(),
    run_control::note(),
    Action::new("runs.tag", "Edit tags", "", &[], HERE, tags::tag)
        .also(&["tag", "label"])
        .asking()
        .unless(none_chosen),
    Action::new(
        "runs.rename",
        "Rename run",
        "",
        &[],
        HERE,
        list_actions::rename,
    )
    .also(&["rename", "name", "title"])
    .asking()
    .unless(no_readable),
    Action::new(
        "runs.sort_turn",
        "Reverse sort",
        "",
        &["R"],
        HERE,
        |runs, shared| {
            runs.sort.descending = !runs.sort.descending;
            runs.arrange(shared);
            Vec::new()
        },
    )
    .also(&["descending", "ascending"]),
    Action::new(
        "runs.sort_by",
        "Sort runs",
        "sort",
        &["s"],
        HERE,
        list_actions::sort_by,
    )
    .also(&["sort", "order"])
    .asking(),
    Action::new(
        "runs.remove",
        "Delete run",
        "",
        &["d", "delete"],
        HERE,
        removal::remove,
    )
    .also(&["delete", "remove", "rm", "trash"])
    .unless(removal::no_removal),
    Action::new(
        "runs.copy",
        "Copy run id",
        "",
        &["y"],
        HERE,
        |runs, shared| {
            let id = runs.entry(shared).map(crate::report::Entry::id);
            id.into_iter().map(Command::Copy).collect()
        },
    )
    .also(&["yank", "clipboard"])
    .unless(no_run),
    Action::new(
        "runs.demonstration",
        "Open recorded run",
        "",
        &["O"],
        HERE,
        list_actions::open_recording,
    )
    .also(&["demo", "example", "sample run", "tour"]),
];

const STAGES: Scope = Scope::Pane(Screen::Runs, PIPELINE);

impl Controls for Runs {
    const SCREEN: Screen = Screen::Runs;
    const IDS: ActionIds = ActionIds {
        pause: "runs.pause",
        resume: "runs.resume",
        checkpoint: "runs.checkpoint",
        eval: "runs.eval",
        stop: "runs.stop",
        kill: "runs.stop_now",
        note: "runs.annotate",
    };

    fn target(&self, shared: &Shared) -> Result<Target, String> {
        let why = || no_readable(self, shared).unwrap_or_default();
        let run = self.row(shared).ok_or_else(why)?;
        let directory = &run.directory;
        let (id, name) = (directory.id().to_owned(), directory.name().to_owned());
        Ok(Target {
            path: directory.path().to_owned(),
            id,
            name,
            status: run.status,
            pauses_later: run.pauses_later,
        })
    }
}

/// Leaves the innermost: typing, zoom, the details, the filter, the marks.
fn leave_filter(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    if runs.filter.is_typing {
        runs.filter.is_typing = false;
    } else if shared.zoomed {
        shared.zoomed = false;
    } else if runs.pane != LIST {
        runs.pane = LIST;
    } else if !runs.filter.text().is_empty() {
        runs.filter = Filter::default();
        runs.arrange(shared);
    } else {
        runs.marked.clear();
    }
    under_cursor(runs, shared)
}
