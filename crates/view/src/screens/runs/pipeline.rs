//! The stages from a schema to a compared model, with their state for the open task: all there is without runs, and at
//! the head of a short list.

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{PIPELINE, Runs};
use crate::format::{duration, or_na, percent_short, short_id};
use crate::message::Command;
use crate::pane::content::{Body, Content, Entries};
use crate::report::{RunRow, eval_count};
use crate::run::Status;
use crate::screens::Screen;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::task::PromptSet;
use crate::widgets::text_width::wrapped;

struct Stage {
    name: &'static str,
    /// The action that shows its screen.
    key: &'static str,
    /// Its state, the most important first; what does not fit is left out.
    state: fn(&Shared) -> Vec<Part>,
    open: fn(&Shared) -> Vec<Command>,
}

type Part = (Role, String);

const STAGES: [Stage; 5] = [
    Stage {
        name: "define",
        key: "screen.schema",
        state: define,
        open: |_| vec![Command::GoTo(Screen::Schema)],
    },
    Stage {
        name: "preview",
        key: "screen.scores",
        state: preview,
        open: |_| vec![Command::GoTo(Screen::Scores)],
    },
    Stage {
        name: "train",
        key: "screen.launch",
        state: train,
        open: |_| vec![Command::GoTo(Screen::Launch)],
    },
    Stage {
        name: "watch",
        key: "screen.live",
        state: watch,
        open: |shared| {
            let run = watched(shared).map(|row| Command::ShowRun(row.directory.path().to_owned()));
            run.into_iter()
                .chain([Command::GoTo(Screen::Live)])
                .collect()
        },
    },
    Stage {
        name: "compare",
        key: "screen.eval",
        state: compare,
        open: |shared| {
            let run = shared
                .compared_run()
                .map(|row| Command::ShowRun(row.directory.path().to_owned()));
            run.into_iter()
                .chain([Command::GoTo(Screen::Eval)])
                .collect()
        },
    },
];

/// Columns of the names.
const NAME: usize = 8;
const ABOUT: &str = "Define what a correct answer is, preview how completions score, train a model against it (GRPO), watch it learn, \
                     compare it with its base on held-out prompts.";

pub(super) fn open(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let stage = runs.stage.at(STAGES.len()).and_then(|at| STAGES.get(at));
    stage.map_or_else(Vec::new, |stage| (stage.open)(shared))
}

pub(super) const ROWS: u16 = STAGES.len() as u16 + 2;

pub(super) fn content<'a>(runs: &Runs, shared: &Shared, width: u16) -> Content<'a> {
    let theme = &shared.theme;
    let title = shared.task.as_ref().map_or_else(
        || "No task".to_owned(),
        |open| format!("Task {}", open.task.name),
    );
    let key = |id| theme.span(shared.key_of(id), Role::Key);
    let intro = intro(shared, width).into_iter();
    let mut lines: Vec<(Option<usize>, Line<'static>)> = intro
        .map(|text| (None, theme.line(format!(" {text}"), Role::Title)))
        .collect();
    for (index, stage) in STAGES.iter().enumerate() {
        let is_here = runs.pane == PIPELINE && runs.stage.at(STAGES.len()) == Some(index);
        let mark = if is_here { "▸ " } else { "  " };
        let mut line = Line::from(vec![
            theme.span(mark, Role::Accent),
            key(stage.key),
            theme.span(format!(" {:<NAME$} ", stage.name), Role::Title),
        ]);
        for (role, text) in (stage.state)(shared) {
            let gap = if line.spans.len() > 3 { " · " } else { "" };
            if line.spans.len() == 3 || line.width() + gap.width() + text.width() <= width.into() {
                line.spans
                    .extend([theme.span(gap, Role::Faint), theme.span(text, role)]);
            }
        }
        lines.push((Some(index), line));
    }
    if shared.runs.listing.entries().is_empty() {
        let places = format!("  Runs folder: {}", shared.options.run_folders.described());
        let more = [
            Line::default(),
            Line::from(vec![
                Span::raw("  "),
                key("runs.start"),
                Span::raw("  start a run on this machine"),
            ]),
            Line::from(vec![
                Span::raw("  "),
                key("runs.demonstration"),
                Span::raw("  open a recorded run"),
            ]),
            Line::default(),
            theme.line(places, Role::Faint),
        ];
        lines.extend(more.map(|line| (None, line)));
    }
    let entries = Entries {
        lines,
        cursor: runs.stage,
        is_marked: runs.pane == PIPELINE,
        wraps: false,
    };
    Content {
        body: Body::Entries(entries),
        ..Content::titled(title)
    }
}

/// Without runs: what the program is for.
fn intro(shared: &Shared, columns: u16) -> Vec<String> {
    if !shared.runs.listing.entries().is_empty() {
        return Vec::new();
    }
    let about = wrapped(ABOUT, usize::from(columns).saturating_sub(2).max(20));
    std::iter::once(String::new())
        .chain(about)
        .chain([String::new()])
        .collect()
}

/// The schema in the editor, the expected answers that it rejects, and the rows of each set.
fn define(shared: &Shared) -> Vec<Part> {
    if let Some(failure) = &shared.task_error {
        return vec![(Role::Bad, failure.error.clone())];
    }
    let Some(open) = &shared.task else {
        return vec![(Role::Faint, "loading ...".to_owned())];
    };
    let draft = &shared.draft;
    let file = draft
        .base
        .as_ref()
        .map_or(&open.task.definition_file, |base| &base.definition_file);
    let schema = match () {
        () if draft.stale.is_some() => (Role::Bad, draft.stale_title(file)),
        () if draft.is_changed() => (Role::Marked, format!("{file} not saved")),
        () => (Role::Text, file.clone()),
    };
    let count = |set| {
        open.rows
            .get(&set)
            .and_then(|rows| rows.as_ref().ok())
            .map_or(0, Vec::len)
    };
    let rows = PromptSet::ALL
        .map(|set| format!("{} {}", count(set), set.name()))
        .join(", ");
    let expected =
        draft
            .expected
            .as_ref()
            .map(|expected| match (expected.rejected, expected.total) {
                (_, 0) => (Role::Faint, "no expected answers to check".to_owned()),
                (0, total) if expected.checked == total => {
                    (Role::Text, format!("expected: {total} valid"))
                }
                (0, _) => (Role::Faint, "expected: checking".to_owned()),
                (bad, total) => (Role::Warning, format!("expected: {bad} of {total} invalid")),
            });
    std::iter::once(schema)
        .chain(expected)
        .chain([(Role::Text, rows)])
        .collect()
}

/// The last scores.
fn preview(shared: &Shared) -> Vec<Part> {
    let Some(scores) = shared
        .last_scores
        .as_ref()
        .filter(|scores| scores.total > 0)
    else {
        return vec![(Role::Faint, "not scored yet".to_owned())];
    };
    let share = |count: usize, of: usize| percent_short(count as f64 / of.max(1) as f64);
    let valid = format!("{}: {} valid", scores.of, share(scores.valid, scores.total));
    let exact = scores
        .exact
        .map(|(exact, of)| (Role::Text, format!("{} exact", share(exact, of))));
    let all = (Role::Faint, format!("n = {}", scores.total));
    std::iter::once((Role::Text, valid))
        .chain(exact)
        .chain([all])
        .collect()
}

fn train(shared: &Shared) -> Vec<Part> {
    if !shared.runs.listed && shared.runs.listing.entries().is_empty() {
        return vec![(Role::Faint, "loading runs ...".to_owned())];
    }
    let runs = match shared.task_runs().count() {
        0 => return vec![(Role::Faint, "no runs yet".to_owned())],
        1 => "1 run".to_owned(),
        count => format!("{count} runs"),
    };
    let waiting = shared
        .task_runs()
        .filter(|row| row.status == Status::Waiting)
        .count();
    let active = shared.task_runs().filter(|row| row.is_active()).count() - waiting;
    let named =
        |count: usize, name: &str| (count > 0).then(|| (Role::Accent, format!("{count} {name}")));
    std::iter::once((Role::Text, runs))
        .chain(named(active, "active"))
        .chain(named(waiting, "waiting"))
        .collect()
}

/// The newest run that computes, else the newest active one, else the newest.
fn watched(shared: &Shared) -> Option<&RunRow> {
    shared
        .task_runs()
        .find(|row| row.is_computing())
        .or_else(|| shared.task_runs().find(|row| row.is_active()))
        .or_else(|| shared.task_runs().next())
}

fn watch(shared: &Shared) -> Vec<Part> {
    let Some(row) = watched(shared) else {
        return vec![(Role::Faint, "no run yet".to_owned())];
    };
    let (_, role) = shared
        .theme
        .status_mark(row.status, row.cause.as_ref(), &row.outcome);
    let total = row
        .total_steps
        .map_or_else(String::new, |total| format!(" of {total}"));
    let state = format!("{} {}", short_id(row.directory.id()), row.status.name());
    let alerts = row
        .alerts
        .first()
        .map(|worst| (shared.theme.alert_mark(worst).1, row.alert_names()));
    let left = row.seconds_left().map_or_else(String::new, |seconds| {
        format!(", {} left", duration(seconds))
    });
    let eval = row.eval.as_ref().map(|eval| (Role::Text, eval_count(eval)));
    let step = (Role::Text, format!("step {}{total}{left}", row.last_step));
    std::iter::once((role, state))
        .chain(eval)
        .chain([step])
        .chain(alerts)
        .collect()
}

/// Base and trained on both metrics, and the verdict.
fn compare(shared: &Shared) -> Vec<Part> {
    let Some(row) = shared.compared_run() else {
        return vec![(Role::Faint, "no result yet".to_owned())];
    };
    let outcome = &row.outcome;
    let label = (outcome.level().into(), outcome.label());
    let judged = outcome.compared();
    let rates = judged.map(|judged| {
        let [valid_base, valid] = judged.valid_rates.map(percent_short);
        let [exact_base, exact] = judged.exact_rates.map(|rate| or_na(rate, percent_short));
        (
            Role::Text,
            format!("valid {valid_base} → {valid}, exact {exact_base} → {exact}"),
        )
    });
    let of = judged
        .map(|judged| format!("{} set, ", judged.set))
        .unwrap_or_default();
    let run = (Role::Faint, format!("{of}{}", short_id(row.directory.id())));
    // Where another eval than the compared one is below the base, the label is of that one.
    let fallen = outcome
        .fallen_eval()
        .filter(|fallen| judged.is_some_and(|judged| judged.step != fallen.step));
    let fallen = fallen.map(|fallen| {
        let [valid, exact] = [Some(fallen.valid_rates[1]), fallen.exact_rates[1]]
            .map(|rate| or_na(rate, percent_short));
        (
            Role::Warning,
            format!("step {}: valid {valid}, exact {exact}", fallen.step),
        )
    });
    std::iter::once(label)
        .chain(fallen)
        .chain(rates)
        .chain([run])
        .collect()
}
