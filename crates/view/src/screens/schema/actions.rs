//! Actions of the schema screen.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::completion::Completion;
use super::file::{follow, show_text};
use super::{EDITOR, PANES, PROGRAM, SCORES, Schema, file, navigate, program_pane, score_preview};
use crate::action::Scope;
use crate::drafts;
use crate::drafts::choice::{self, undecided};
use crate::interaction;
use crate::message::{Change, Command};
use crate::popup::{Confirm, Popup};
use crate::screen::{self, About, Described};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::task::TASK_FILE;
use crate::widgets::editor::Effect;
use crate::widgets::list_cursor::Cursor;

type Action = screen::Action<Schema>;

impl Described for Schema {
    const ABOUT: &'static About = &About {
        title: "Schema",
        help: "What defines a correct answer, by the kind of scorer: a schema, tools, tables, an API, or task.toml. Samples are re-scored as you type; enter edits, esc leaves.",
        panes: &PANES,
    };
    const TABLE: &'static [Action] = ACTIONS;
}

const HERE: Scope = Scope::Screen(Screen::Schema);
const IN_EDITOR: Scope = Scope::Pane(Screen::Schema, EDITOR);
const IN_PROGRAM: Scope = Scope::Pane(Screen::Schema, PROGRAM);

const ACTIONS: &[Action] = &[
    Action::new(
        "schema.type",
        "Edit schema",
        "edit",
        &["enter", "i"],
        IN_EDITOR,
        |schema, _| {
            schema.typing = true;
            Vec::new()
        },
    )
    .also(&["edit", "insert"])
    .asking()
    .unless(|schema, shared| {
        no_text(schema, shared)
            .or_else(|| undecided(schema, shared))
            .or_else(|| typing(schema))
    }),
    Action::new(
        "schema.leave",
        "Leave editor",
        "leave",
        &["esc"],
        IN_EDITOR,
        leave,
    ),
    Action::new(
        "schema.undo",
        "Undo",
        "undo",
        &["ctrl-u", "u"],
        IN_EDITOR,
        |schema, shared| {
            let undone = schema.editor.undo();
            done(schema, shared, undone, "nothing to undo")
        },
    ),
    Action::new(
        "schema.redo",
        "Redo",
        "",
        &["ctrl-r", "U"],
        IN_EDITOR,
        |schema, shared| {
            let redone = schema.editor.redo();
            done(schema, shared, redone, "nothing to redo")
        },
    ),
    Action::new(
        "schema.find",
        "Find",
        "find",
        &["ctrl-f", "/"],
        IN_EDITOR,
        navigate::find,
    )
    .also(&["find", "search"])
    .asking(),
    Action::new(
        "schema.find.next",
        "Next match",
        "",
        &["n"],
        IN_EDITOR,
        |schema, shared| navigate::find_next(schema, shared, true),
    )
    .unless(no_search),
    Action::new(
        "schema.find.previous",
        "Previous match",
        "",
        &["N"],
        IN_EDITOR,
        |schema, shared| navigate::find_next(schema, shared, false),
    )
    .unless(no_search),
    Action::new(
        "schema.line",
        "Go to line",
        "",
        &["ctrl-g"],
        IN_EDITOR,
        navigate::go_to_line,
    )
    .also(&["goto", "goto line", "jump"])
    .asking(),
    Action::new(
        "schema.fault.next",
        "Next problem",
        "",
        &["]", "f8"],
        IN_EDITOR,
        |schema, shared| navigate::next_fault(schema, shared, true),
    )
    .unless(no_faults),
    Action::new(
        "schema.fault.previous",
        "Previous problem",
        "",
        &["["],
        IN_EDITOR,
        |schema, shared| navigate::next_fault(schema, shared, false),
    )
    .unless(no_faults),
    Action::new(
        "schema.faults",
        "List problems",
        "",
        &["!"],
        IN_EDITOR,
        navigate::list_faults,
    )
    .also(&["errors", "warnings", "problems", "diagnostics"])
    .unless(no_faults),
    Action::new(
        "schema.complete",
        "Complete",
        "",
        &["ctrl-space", "alt-c"],
        IN_EDITOR,
        complete,
    )
    .also(&["completion", "suggest"])
    .unless(|schema, _| (!schema.typing).then(|| "only while editing".to_owned())),
    Action::new(
        "schema.format",
        "Format",
        "format",
        &["alt-f", "="],
        IN_EDITOR,
        format,
    )
    .also(&["format", "indent", "prettify"])
    .unless(no_text),
    Action::new(
        "schema.select",
        "Select all",
        "",
        &["alt-a"],
        IN_EDITOR,
        |schema, _| {
            schema.editor.select_all();
            Vec::new()
        },
    ),
    Action::new(
        "schema.line.start",
        "Go to start of line",
        "",
        &["home"],
        IN_EDITOR,
        |schema, shared| move_by(schema, shared, KeyCode::Home),
    ),
    Action::new(
        "schema.line.end",
        "Go to end of line",
        "",
        &["end"],
        IN_EDITOR,
        |schema, shared| move_by(schema, shared, KeyCode::End),
    ),
    Action::new(
        "schema.first",
        "Go to first line",
        "",
        &["g"],
        IN_EDITOR,
        |schema, shared| navigate::jump(schema, shared, (0, schema.editor.cursor().1)),
    ),
    Action::new(
        "schema.last",
        "Go to last line",
        "",
        &["G"],
        IN_EDITOR,
        |schema, shared| {
            let last = schema.editor.lines().len().saturating_sub(1);
            navigate::jump(schema, shared, (last, schema.editor.cursor().1))
        },
    ),
    Action::new(
        "schema.sample.next",
        "Next sample",
        "next sample",
        &["]", "l", "right"],
        IN_PROGRAM,
        |schema, shared| choose_sample(schema, shared, 1),
    )
    .unless(no_program),
    Action::new(
        "schema.sample.previous",
        "Previous sample",
        "",
        &["[", "h", "left"],
        IN_PROGRAM,
        |schema, shared| choose_sample(schema, shared, -1),
    )
    .unless(no_program),
    Action::new(
        "schema.rejected",
        "List rejected answers",
        "rejected",
        &["r", "alt-r"],
        HERE,
        navigate::list_rejections,
    )
    .also(&["expected answers", "breaks"])
    .unless(navigate::no_rejections),
    Action::new(
        "schema.save",
        "Save schema",
        "save",
        &["ctrl-o", "w"],
        HERE,
        save,
    )
    .also(&["save", "write"])
    .unless(|schema, shared| {
        no_text(schema, shared)
            .or_else(|| undecided(schema, shared))
            .or_else(|| unchanged(shared))
    }),
    Action::new("schema.copy", "Copy", "", &["y", "alt-y"], HERE, copy)
        .also(&["yank", "clipboard"])
        .unless(no_text),
    Action::new(
        "schema.outside",
        "Open in $EDITOR",
        "$EDITOR",
        &["e", "alt-e"],
        HERE,
        |schema, shared| {
            let line = schema.editor.cursor().0 + 1;
            schema.typing = false;
            file::edit_outside(shared, line)
        },
    )
    .also(&["editor", "vim"])
    .unless(|schema, shared| no_text(schema, shared).or_else(|| undecided(schema, shared))),
    Action::new("schema.revert", "Revert to saved", "", &["V"], HERE, revert)
        .also(&["revert", "reset"])
        .unless(|schema, shared| {
            no_text(schema, shared)
                .or_else(|| undecided(schema, shared))
                .or_else(|| unchanged(shared))
        }),
    Action::new(
        "schema.trust",
        "Trust command",
        "",
        &["T"],
        HERE,
        file::ask_trust,
    )
    .also(&["trust", "allow"])
    .unless(|_, shared| {
        let has_command = shared
            .draft
            .base
            .as_ref()
            .is_some_and(|task| task.needs_trust());
        (!has_command && shared.draft.programs.is_empty())
            .then(|| "the task runs no command and no tool and asks no judge".to_owned())
    }),
    choice::take_action(),
    choice::keep_action(),
    choice::discard_action(),
    choice::difference_action(),
    Action::new(
        "schema.toml",
        "Toggle task.toml",
        "task.toml",
        &["f"],
        HERE,
        file::toggle_toml,
    )
    .also(&["task.toml", "score keys", "edit task"])
    .unless(one_text),
];

fn no_text(_: &Schema, shared: &Shared) -> Option<String> {
    shared
        .draft
        .base
        .is_none()
        .then(|| shared.no_task())
        .flatten()
}

/// Why the editor cannot switch between `task.toml` and the definition.
fn one_text(_: &Schema, shared: &Shared) -> Option<String> {
    let open = match (&shared.task, shared.no_task()) {
        (Some(open), _) => open,
        (None, why) => return why,
    };
    let draft = &shared.draft;
    let is_only = open.task.definition_file == TASK_FILE;
    let unsaved = || {
        draft
            .is_changed()
            .then(|| format!("{} is unsaved: save or revert it first", draft.name()))
    };
    is_only
        .then(|| format!("{TASK_FILE} itself defines answers here"))
        .or_else(unsaved)
}

fn typing(schema: &Schema) -> Option<String> {
    schema.typing.then(|| "already editing".to_owned())
}

fn unchanged(shared: &Shared) -> Option<String> {
    (!shared.draft.is_changed()).then(|| "no unsaved changes".to_owned())
}

fn no_program(_: &Schema, shared: &Shared) -> Option<String> {
    (!program_pane::needs_trust(shared))
        .then(|| "the task runs no command and no tool and asks no judge".to_owned())
}

fn choose_sample(schema: &mut Schema, shared: &mut Shared, by: isize) -> Vec<Command> {
    let samples = shared
        .task
        .as_ref()
        .and_then(|open| open.samples.as_ref().ok())
        .map_or(0, Vec::len);
    schema.sample.go(by, samples);
    program_pane::try_sample(schema, shared)
        .into_iter()
        .collect()
}

fn no_search(schema: &Schema, shared: &Shared) -> Option<String> {
    schema
        .editor
        .query()
        .is_empty()
        .then(|| format!("no search: {} finds text", shared.key_of("schema.find")))
}

fn no_faults(_: &Schema, shared: &Shared) -> Option<String> {
    shared
        .draft
        .faults
        .is_empty()
        .then(|| "no problems".to_owned())
}

fn save(_: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let Some(why) = shared
        .draft
        .stale
        .clone()
        .filter(|_| !shared.draft.needs_command)
    else {
        return file::save(shared);
    };
    let text = format!("{why}\n\nRuns and other programs that read this file will fail.");
    let title = format!("Save invalid {}?", shared.draft.name());
    shared.open_popup(Popup::Confirm(Confirm::new(
        title,
        text,
        "save anyway",
        |_: &mut Schema, shared| file::save(shared),
    )))
}

fn revert(_: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let text = "Unsaved edits are lost (undo restores them in this session).";
    shared.open_popup(Popup::Confirm(Confirm::new(
        "Revert to saved?",
        text,
        "revert",
        file::revert,
    )))
}

/// Leaves the innermost of: the list of completions, the selection and the search, typing.
fn leave(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    if schema.completion.take().is_some() {
        return Vec::new();
    }
    if !schema.typing {
        schema.editor.unselect();
        _ = schema.editor.find("");
        return Vec::new();
    }
    schema.typing = false;
    drafts::store(schema, shared)
}

fn complete(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    schema.completion = Completion::at_cursor(&schema.editor, &schema.structure, true);
    if schema.completion.is_none() {
        shared.complain("nothing to complete here");
    }
    Vec::new()
}

/// After undo or redo: closes the completion list, whose position may be outdated.
fn done(schema: &mut Schema, shared: &mut Shared, is_done: bool, else_say: &str) -> Vec<Command> {
    schema.completion = None;
    if !is_done {
        shared.complain(else_say);
    }
    after(
        schema,
        shared,
        if is_done {
            Effect::Edited
        } else {
            Effect::None
        },
    )
}

fn format(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    if shared
        .draft
        .base
        .as_ref()
        .is_some_and(|task| task.schema().is_none())
    {
        return shared.complain("only a JSON Schema can be formatted");
    }
    match crate::score::json::format(&schema.editor.text()) {
        Ok(text) if text == schema.editor.text() => shared.say("already formatted"),
        Ok(text) => {
            schema.editor.replace(&text);
            after(schema, shared, Effect::Edited)
        }
        Err(error) => shared.complain(format!("cannot format: {error}")),
    }
}

fn copy(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let (text, what) = match schema.editor.selected() {
        Some(text) => (text, "selection"),
        None => (schema.editor.text(), shared.draft.name()),
    };
    shared.say(format!("{what} copied"));
    vec![Command::Copy(text)]
}

pub(super) fn focus(schema: &mut Schema, shared: &mut Shared, pane: &'static str) {
    schema.pane = match pane {
        // Other tasks have no program pane: the focus skips it.
        PROGRAM if !program_pane::needs_trust(shared) => {
            if schema.pane == EDITOR {
                SCORES
            } else {
                EDITOR
            }
        }
        pane => pane,
    };
    schema.typing = false;
    schema.completion = None;
}

fn on_show(schema: &mut Schema, shared: &mut Shared) -> Vec<Command> {
    let degenerate = if schema.degenerate.is_none() {
        score_preview::score_degenerate(shared)
    } else {
        None
    };
    let tried = program_pane::try_sample(schema, shared);
    drafts::store(schema, shared)
        .into_iter()
        .chain(degenerate)
        .chain(tried)
        .collect()
}

pub(super) fn on_change(schema: &mut Schema, shared: &mut Shared, change: &Change) -> Vec<Command> {
    match change {
        Change::Shown => on_show(schema, shared),
        Change::Task => {
            let mut commands = file::open(schema, shared);
            show_text(schema, shared);
            (schema.rejections, schema.baseline, schema.degenerate) = (None, None, None);
            (shared.draft.expected, shared.last_scores) = (None, None);
            (schema.sample, schema.tried) = (Cursor::default(), None);
            commands.extend(drafts::look::<Schema>(shared));
            commands
        }
        Change::Schema => {
            let is_shown = shared.screen == Screen::Schema;
            if !is_shown {
                // Results of an older schema are not shown as current, neither in the stages of
                // runs nor here.
                (shared.draft.expected, schema.degenerate) = (None, None);
            }
            let shown = if is_shown {
                [
                    score_preview::score_degenerate(shared),
                    program_pane::try_sample(schema, shared),
                ]
            } else {
                [None, None]
            };
            if shared.draft.scorer.is_none() {
                (
                    schema.effects,
                    schema.rejections,
                    schema.degenerate,
                    schema.tried,
                ) = (None, None, None, None);
            }
            let [degenerate, tried] = shown;
            let computed = score_preview::compute(shared);
            let commands = [
                computed,
                degenerate,
                tried,
                score_preview::check_expected(schema, shared),
            ];
            commands.into_iter().flatten().collect()
        }
        Change::TaskUnreadable => file::open_unreadable(schema, shared),
        Change::Second => drafts::store(schema, shared),
        Change::Copied(copy) => file::copied(schema, shared, copy),
        Change::Files(paths) => file::files_written(shared, paths),
        _ => Vec::new(),
    }
}

fn after(schema: &mut Schema, shared: &mut Shared, effect: Effect) -> Vec<Command> {
    if effect != Effect::None {
        follow(schema, shared);
    }
    changed(schema, shared, effect)
}

pub(super) fn changed(schema: &mut Schema, shared: &mut Shared, effect: Effect) -> Vec<Command> {
    if effect != Effect::Edited {
        return Vec::new();
    }
    let text = schema.editor.text();
    schema.shown = Some(text.clone());
    schema.structure = file::structure(schema, shared);
    file::edited(shared, text)
}

fn move_by(schema: &mut Schema, shared: &mut Shared, code: KeyCode) -> Vec<Command> {
    interaction::edit(schema, shared, KeyEvent::new(code, KeyModifiers::NONE))
}
