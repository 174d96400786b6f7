//! The actions of the runs screen, its keys and mouse, and its reaction to changes.

use crossterm::event::{KeyEvent, MouseButton, MouseEvent, MouseEventKind};

use super::{DETAIL, LIST, Runs, columns, draw, export, measure, no_readable, no_run, rows_of, under_cursor};
use crate::report::{Entry, Report, RunsCompared, base_and_trained, unknown_field};
use crate::run::{RunDirectory, Status};
use crate::view::action::Scope;
use crate::view::message::{Change, Command, Work};
use crate::view::popup::{Ask, Page, Popup};
use crate::view::run_control::{self, Controls, Target};
use crate::view::screen::{self, Definition};
use crate::view::screens::Screen;
use crate::view::shared::{self, Shared};
use crate::view::widgets::filter::Filter;

/// How often the runs are listed while the screen is in front, milliseconds.
const LOOK_MS: u64 = 2_000;

type Action = screen::Action<Runs>;

pub const SCREEN: Definition<Runs> = Definition {
    title: "Runs",
    help: "All runs. Filter (tiny valid>0.9 and tags:best), sort, open, compare, export.",
    panes: &[LIST, DETAIL],
    actions: ACTIONS,
    pane: |runs| runs.pane,
    focus: |runs, _, pane| runs.pane = pane,
    is_typing: |runs| runs.filter.is_typing,
    on_key,
    on_paste: |runs, shared, text| {
        if runs.filter.paste(text) {
            runs.arrange(shared);
        }
        under_cursor(runs, shared)
    },
    mouse,
    opens: |runs, shared, (column, row)| draw::row_at(runs, shared, column, row).is_some(),
    on_show: |_, shared| shared.look_for_runs(),
    on_change,
    draw: draw::draw,
    ..Definition::PLAIN
};

const HERE: Scope = Scope::Screen(Screen::Runs);

const ACTIONS: &[Action] = &[
    Action::new("runs.open", "Open run", "open", &["enter"], HERE, open).unless(no_readable),
    Action::new("runs.filter", "Filter runs", "filter", &["/"], HERE, |runs, _| {
        runs.filter.is_typing = true;
        runs.pane = LIST;
        Vec::new()
    })
    .also(&["find", "search"])
    .asking(),
    Action::new("runs.leave_filter", "Clear filter", "", &["esc"], HERE, leave_filter).unless(|runs, shared| {
        let nothing = !runs.filter.is_shown() && runs.marked.is_empty() && !shared.zoomed && runs.pane == LIST;
        nothing.then(|| "no filter or marks to clear".to_owned())
    }),
    Action::new("runs.mark", "Toggle mark", "mark", &["space"], HERE, mark).unless(no_run),
    Action::new("runs.compare", "Compare marked runs", "compare", &["c"], HERE, compare).also(&["diff"]).unless(
        |runs, shared| {
            let several = runs.chosen(shared).len() > 1;
            (!several).then(|| format!("mark two or more runs first ({})", shared.key_of("runs.mark")))
        },
    ),
    Action::new("runs.versus", "Compare answers", "answers", &["v"], HERE, versus).also(&["answers"]).unless(
        |runs, shared| {
            no_readable(runs, shared)
                .or_else(|| (runs.chosen(shared).len() > 3).then(|| "mark at most three runs".to_owned()))
        },
    ),
    Action::new("runs.overlay", "Overlay marked runs", "overlay", &["o"], HERE, overlay).unless(|runs, shared| {
        no_readable(runs, shared).or_else(|| {
            runs.marked.is_empty().then(|| format!("mark at least one run first ({})", shared.key_of("runs.mark")))
        })
    }),
    run_control::pause(),
    run_control::resume(),
    run_control::checkpoint(),
    run_control::eval(),
    run_control::stop(),
    run_control::kill(),
    run_control::note(),
    Action::new("runs.tag", "Edit tags", "tag", &["t"], HERE, export::tag)
        .also(&["tag", "label", "rename"])
        .asking()
        .unless(no_readable),
    Action::new("runs.sort_next", "Sort by next column", "", &[">"], HERE, |runs, shared| {
        sort_by_column(runs, shared, 1)
    }),
    Action::new("runs.sort_previous", "Sort by previous column", "", &["<"], HERE, |runs, shared| {
        sort_by_column(runs, shared, -1)
    }),
    Action::new("runs.sort_turn", "Reverse sort", "", &["R"], HERE, |runs, shared| {
        runs.sort.descending = !runs.sort.descending;
        runs.arrange(shared);
        Vec::new()
    }),
    Action::new("runs.sort_by", "Sort by field", "sort", &["s"], HERE, sort_by).also(&["order"]).asking(),
    Action::new("runs.smoothed", "Toggle smoothed sort", "", &["S"], HERE, |runs, shared| {
        runs.sort.smoothed = !runs.sort.smoothed;
        runs.arrange(shared);
        let how = if runs.sort.smoothed { "moving average (about 10 steps)" } else { "last value" };
        shared.say(format!("metrics sorted by {how}"));
        Vec::new()
    }),
    Action::new("runs.html", "Export HTML", "", &["w"], HERE, export::html)
        .also(&["export", "report"])
        .asking()
        .unless(no_readable),
    Action::new("runs.csv", "Export CSV", "", &["W"], HERE, export::csv).also(&["export"]).asking().unless(no_readable),
    Action::new("runs.promote", "Export checkpoint", "", &["P"], HERE, export::promote)
        .also(&["promote", "export checkpoint", "export adapter"])
        .asking()
        .unless(|runs, shared| {
            let none =
                || runs.row(shared).filter(|row| row.checkpoints.is_empty()).map(|_| "no checkpoint yet".to_owned());
            no_readable(runs, shared).or_else(none)
        }),
    Action::new("runs.remove", "Delete run", "", &["d", "delete"], HERE, export::remove)
        .also(&["remove"])
        .unless(export::no_removal),
    Action::new("runs.copy", "Copy run id", "", &["y"], HERE, |runs, shared| {
        let id = runs.entry(shared).map(crate::report::Entry::id);
        id.into_iter().map(Command::Copy).collect()
    })
    .also(&["yank", "clipboard"])
    .unless(no_run),
    Action::new("runs.demonstration", "Open sample run", "", &["D"], HERE, |_, shared| {
        let Some(run) = shared.runs.demonstration.clone() else { return Vec::new() };
        vec![Command::ShowRun(run), Command::GoTo(Screen::Live)]
    })
    .unless(|_, shared| {
        let there = shared.runs.demonstration.is_some();
        (!there).then(|| "sample-data/finished-run not found above this folder".to_owned())
    }),
];

impl Controls for Runs {
    const SCREEN: Screen = Screen::Runs;
    const ACTIONS: [(&'static str, &'static str); 7] = [
        ("runs.pause", "pause"),
        ("runs.resume", "resume"),
        ("runs.checkpoint", ""),
        ("runs.eval", ""),
        ("runs.stop", "stop"),
        ("runs.stop_now", ""),
        ("runs.annotate", ""),
    ];

    fn target(&self, shared: &Shared) -> Result<Target, String> {
        let why = || no_readable(self, shared).unwrap_or_default();
        let run = self.row(shared).ok_or_else(why)?;
        Ok(Target { path: run.directory.path().to_owned(), id: run.directory.id().to_owned(), status: run.status })
    }
}

fn open(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let Some(path) = runs.entry(shared).map(|entry| entry.path.clone()) else { return Vec::new() };
    shared.overlay.clear();
    vec![Command::ShowRun(path), Command::GoTo(Screen::Live)]
}

/// Makes the run under the cursor the current one, with the marked ones as overlays.
fn overlay(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let Some(path) = runs.entry(shared).map(|entry| entry.path.clone()) else { return Vec::new() };
    let others: Vec<_> = runs.chosen(shared).into_iter().filter(|other| *other != path).collect();
    shared.overlay.clone_from(&others);
    let mut commands = vec![Command::ShowRun(path)];
    for other in others {
        commands.extend(shared::follow(shared, other));
    }
    commands.push(Command::GoTo(Screen::Live));
    commands
}

fn mark(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let Some(path) = runs.entry(shared).map(|entry| entry.path.clone()) else { return Vec::new() };
    if !runs.marked.remove(&path) {
        runs.marked.insert(path);
    }
    let length = runs.shown.len();
    runs.cursor.go(1, length);
    under_cursor(runs, shared)
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

fn sort_by_column(runs: &mut Runs, shared: &mut Shared, by: isize) -> Vec<Command> {
    let sort = &mut runs.sort;
    let fields = columns::SORTED;
    let now = fields.iter().position(|field| *field == sort.field).unwrap_or(0);
    let next = fields[(now as isize + by).rem_euclid(fields.len() as isize) as usize];
    sort.field = next.to_owned();
    sort.descending = is_descending_by_default(next);
    runs.arrange(shared);
    Vec::new()
}

fn is_descending_by_default(field: &str) -> bool {
    !["status", "run", "task", "model", "tags", "name"].contains(&field)
}

/// Sorts by the column whose title was clicked; a second click reverses the order.
pub(super) fn sort_by_title(runs: &mut Runs, shared: &mut Shared, field: &str, smoothed: bool) {
    let sort = &mut runs.sort;
    let is_same = sort.field == field && (field != "reward" || sort.smoothed == smoothed);
    sort.descending = if is_same { !sort.descending } else { is_descending_by_default(field) };
    if field == "reward" {
        sort.smoothed = smoothed;
    }
    field.clone_into(&mut sort.field);
    runs.arrange(shared);
}

fn sort_by(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let listing = shared.runs.listing.clone();
    let now = runs.sort.field.clone();
    let label = "Field (valid, step, ...), config.KEY, or metric (reward, kl, completions/mean_length):";
    let question = Ask::new("Sort runs", label, &now, |runs: &mut Runs, shared, name| {
        name.trim().clone_into(&mut runs.sort.field);
        runs.sort.descending = true;
        runs.arrange(shared);
        Vec::new()
    });
    shared.popup = Some(Popup::Ask(question.checked(move |name| unknown_field(name.trim(), rows_of(&listing), false))));
    Vec::new()
}

/// Shows evals of the chosen runs on the eval screen: base and result of one run, the results of several.
fn versus(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let runs = runs.chosen(shared);
    let compare = Work::once(
        "runs.versus",
        move || {
            let evals = runs
                .iter()
                .map(|run| base_and_trained(run))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| error.to_string())?;
            // Of several runs only the results count.
            let skipped = usize::from(runs.len() > 1);
            Ok::<_, String>(evals.into_iter().flat_map(|evals| evals.into_iter().skip(skipped)).collect::<Vec<_>>())
        },
        |_: &mut Runs, shared, evals| match evals {
            Ok(evals) => vec![Command::Compare(evals)],
            Err(error) => {
                shared.complain(error);
                Vec::new()
            }
        },
    );
    vec![Command::GoTo(Screen::Eval), compare]
}

fn compare(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let paths = runs.chosen(shared);
    let work = Work::once(
        "runs.compare",
        move || -> Result<String, crate::run::RunError> {
            let reports =
                paths.iter().map(|path| Report::read(RunDirectory::open(path)?)).collect::<Result<Vec<_>, _>>()?;
            Ok(RunsCompared::of(&reports).page())
        },
        |_: &mut Runs, shared, page| {
            match page {
                Ok(_) if shared.takes_text() => {
                    let key = shared.key_of("runs.compare");
                    shared.complain(format!("comparison ready: press {key} again to show it"));
                }
                Ok(page) => {
                    let lines = page.lines().map(|line| ratatui::text::Line::from(line.to_owned())).collect();
                    shared.popup = Some(Popup::Page(Page::new("Run comparison", lines)));
                }
                Err(error) => shared.complain(error.to_string()),
            }
            Vec::new()
        },
    );
    vec![work]
}

fn on_change(runs: &mut Runs, shared: &mut Shared, change: &Change) -> Vec<Command> {
    match change {
        Change::Second if is_looked_at(shared) && shared.now_ms.saturating_sub(shared.runs.looked_ms) >= LOOK_MS => {
            shared.look_for_runs()
        }
        Change::Runs { first, news } => {
            runs.arrange(shared);
            if !shared.runs.listed {
                return Vec::new();
            }
            let mut commands = under_cursor(runs, shared);
            if *news && commands.is_empty() {
                commands = measure(runs);
            }
            commands.extend(show_live(shared, *first));
            commands
        }
        _ => Vec::new(),
    }
}

/// Whether the list is visible, or the live screen waits for a run.
fn is_looked_at(shared: &Shared) -> bool {
    shared.screen == Screen::Runs || (shared.screen == Screen::Live && shared.current.is_none())
}

/// If no run is open yet, opens the newest active one; at the start, before any key, goes to its screen.
fn show_live(shared: &mut Shared, is_start: bool) -> Vec<Command> {
    let is_live =
        |entry: &&Entry| entry.row.as_ref().is_ok_and(|row| !row.status.is_ended() && row.status != Status::Created);
    let newest = shared.runs.listing.entries().iter().rev().find(is_live).map(|entry| (entry.path.clone(), entry.id()));
    let Some((path, id)) = newest.filter(|_| shared.current.is_none()) else { return Vec::new() };
    let mut commands = vec![Command::ShowRun(path)];
    if is_start && shared.keys == 0 && shared.screen == Screen::Runs {
        shared.say(format!("{id} is active: {} lists all runs", shared.key_of("screen.runs")));
        commands.push(Command::GoTo(Screen::Live));
    }
    commands
}

fn on_key(runs: &mut Runs, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
    if runs.filter.is_typing {
        if runs.filter.key(event) {
            runs.arrange(shared);
        }
        return under_cursor(runs, shared);
    }
    let page = draw::page_rows(runs, shared);
    if runs.pane == DETAIL {
        let length = draw::detail_rows(runs, shared);
        runs.detail_top.key(event, page, length);
        return Vec::new();
    }
    let length = runs.shown.len();
    if runs.cursor.key(event, page, length) { under_cursor(runs, shared) } else { Vec::new() }
}

fn mouse(runs: &mut Runs, shared: &mut Shared, event: MouseEvent) -> Vec<Command> {
    let length = runs.shown.len();
    match event.kind {
        MouseEventKind::ScrollDown => runs.cursor.go(1, length),
        MouseEventKind::ScrollUp => runs.cursor.go(-1, length),
        MouseEventKind::Down(MouseButton::Left) => match draw::row_at(runs, shared, event.column, event.row) {
            Some(row) => runs.cursor.index = row,
            None => {
                if let Some((field, smoothed)) = draw::title_at(runs, shared, event.column, event.row) {
                    sort_by_title(runs, shared, &field, smoothed);
                }
                return Vec::new();
            }
        },
        _ => return Vec::new(),
    }
    runs.pane = LIST;
    under_cursor(runs, shared)
}
