//! Actions of the prompts screen.

use super::editing::EditTarget;
use super::rows::arrange;
use super::table_row::{Entry, first_words};
use super::{
    CHAT, EDITOR, FORM, HEALTH, PANES, Prompts, ROWS, UNCOUNTED, form, form_new_task, preview,
    row_editor, save, table, token_count,
};
use crate::action::Scope;
use crate::drafts::choice::{self, undecided};
use crate::message::Command;
use crate::popup::{Ask, Confirm, Popup};
use crate::screen::{self, About, Described, Screen as _};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::task::PromptSet;
use crate::tool_results::whole_action;
use crate::widgets::editor::Effect;
use crate::widgets::filter::Filter;

type Action = screen::Action<Prompts>;

impl Described for Prompts {
    const ABOUT: &'static About = &About {
        title: "Prompts",
        help: "Prompt sets: every row, and the selected row exactly as the model sees it.",
        panes: &PANES,
    };
    const TABLE: &'static [Action] = ACTIONS;
}

const HERE: Scope = Scope::Screen(Screen::Prompts);
const IN_ROWS: Scope = Scope::Pane(Screen::Prompts, ROWS);
const IN_HEALTH: Scope = Scope::Pane(Screen::Prompts, HEALTH);
const IN_EDITOR: Scope = Scope::Pane(Screen::Prompts, EDITOR);
const IN_FORM: Scope = Scope::Pane(Screen::Prompts, FORM);

const ACTIONS: &[Action] = &[
    Action::new(
        "prompts.save",
        "Save",
        "save",
        &["ctrl-o"],
        IN_EDITOR,
        save::save,
    )
    .unless(undecided),
    Action::new(
        "prompts.undo",
        "Undo",
        "undo",
        &["ctrl-u"],
        IN_EDITOR,
        |prompts, shared| {
            row_editor::with(prompts, shared, |editor| {
                if editor.undo() {
                    Effect::Edited
                } else {
                    Effect::None
                }
            })
        },
    ),
    Action::new(
        "prompts.redo",
        "Redo",
        "",
        &["ctrl-r"],
        IN_EDITOR,
        |prompts, shared| {
            row_editor::with(prompts, shared, |editor| {
                if editor.redo() {
                    Effect::Edited
                } else {
                    Effect::None
                }
            })
        },
    ),
    Action::new(
        "prompts.format",
        "Format JSON",
        "",
        &["alt-f"],
        IN_EDITOR,
        |prompts, shared| {
            row_editor::with(prompts, shared, |editor| {
                match crate::score::json::format(&editor.text()) {
                    Ok(text) if editor.is_json() => {
                        editor.replace(&text);
                        Effect::Edited
                    }
                    _ => Effect::None,
                }
            })
        },
    )
    .also(&["format", "indent", "prettify"]),
    Action::new(
        "prompts.submit",
        "Submit form",
        "submit",
        &["ctrl-o"],
        IN_FORM,
        form::submit,
    )
    .also(&["create", "save"]),
    Action::new(
        "prompts.open",
        "Preview prompt",
        "",
        &["enter"],
        IN_ROWS,
        |prompts, _| {
            prompts.pane = Some(CHAT);
            Vec::new()
        },
    )
    .unless(no_row),
    Action::new(
        "prompts.finding",
        "Show rows of finding",
        "rows",
        &["enter"],
        IN_HEALTH,
        show_rows_of_finding,
    )
    .also(&["filter", "go to finding"])
    .unless(no_finding),
    choice::take_action(),
    choice::keep_action(),
    choice::discard_action(),
    choice::difference_action(),
    Action::new(
        "prompts.leave",
        "Close editor",
        "leave",
        &["esc"],
        HERE,
        leave,
    )
    .unless(nothing_open),
    Action::new(
        "prompts.filter",
        "Filter rows",
        "filter",
        &["/"],
        HERE,
        |prompts, _| {
            prompts.pane = Some(ROWS);
            prompts.filter.is_typing = true;
            Vec::new()
        },
    )
    .also(&["find", "search"])
    .asking(),
    Action::new(
        "prompts.messages",
        "Edit messages",
        "edit",
        &["i"],
        HERE,
        |prompts, shared| write(prompts, shared, EditTarget::Messages),
    )
    .asking()
    .unless(no_row),
    Action::new(
        "prompts.expected",
        "Edit expected answer",
        "expected",
        &["v"],
        HERE,
        |prompts, shared| write(prompts, shared, EditTarget::Expected),
    )
    .asking()
    .unless(no_row),
    Action::new(
        "prompts.system",
        "Edit system prompt",
        "system",
        &["p"],
        HERE,
        |prompts, shared| row_editor::begin(prompts, shared, EditTarget::System),
    )
    .asking()
    .unless(no_task),
    Action::new(
        "prompts.sort",
        "Sort by next column",
        "sort",
        &["s"],
        HERE,
        |prompts, shared| {
            prompts.sort = (prompts.sort.0.next(), false);
            arrange(prompts, shared)
        },
    ),
    Action::new(
        "prompts.sort.backwards",
        "Reverse sort",
        "",
        &["R"],
        HERE,
        |prompts, shared| {
            prompts.sort.1 = !prompts.sort.1;
            arrange(prompts, shared)
        },
    ),
    Action::new("prompts.add", "Add row", "add", &["a"], HERE, add)
        .also(&["new", "insert"])
        .asking()
        .unless(no_task),
    Action::new(
        "prompts.undo_rows",
        "Undo change of rows",
        "undo",
        &["u"],
        HERE,
        save::undo,
    )
    .also(&["undo", "revert"])
    .unless(nothing_to_undo),
    Action::new(
        "prompts.new_task",
        "New task",
        "new task",
        &["N"],
        HERE,
        |prompts, shared| form_new_task::open(prompts, shared),
    )
    .also(&["create task", "task new", "init"])
    .asking(),
    Action::new(
        "prompts.duplicate",
        "Duplicate row",
        "",
        &["c"],
        HERE,
        |prompts, shared| match prompts.selected() {
            Some(entry) => save::duplicate(prompts, shared, entry),
            None => Vec::new(),
        },
    )
    .also(&["clone"])
    .unless(no_row),
    Action::new(
        "prompts.delete",
        "Delete row",
        "",
        &["D", "delete"],
        HERE,
        delete,
    )
    .also(&["delete", "remove", "rm"])
    .unless(no_row),
    Action::new(
        "prompts.outside",
        "Open in $EDITOR",
        "$EDITOR",
        &["e"],
        HERE,
        outside,
    )
    .also(&["editor", "vim"])
    .unless(no_file),
    Action::new(
        "prompts.rendered",
        "Show rendered prompt",
        "rendered",
        &["P"],
        HERE,
        preview::open,
    )
    .also(&["render", "chat template", "task render"])
    .unless(no_row),
    Action::new(
        "prompts.copy",
        "Copy prompt",
        "",
        &["y"],
        HERE,
        |prompts, shared| {
            let prompt = prompts
                .chat
                .as_ref()
                .map(|chat| chat.prompt.clone())
                .unwrap_or_default();
            shared.say("prompt copied");
            vec![Command::Copy(prompt)]
        },
    )
    .also(&["yank", "clipboard"])
    .unless(no_row),
    whole_action("prompts.results", Screen::Prompts),
    Action::new(
        "prompts.model",
        "Choose tokenizer",
        "",
        &["m"],
        HERE,
        choose_model,
    )
    .also(&["tokenizer"])
    .asking()
    .unless(no_task),
    Action::new(
        "prompts.health",
        "Show health report",
        "",
        &["H"],
        HERE,
        |prompts, _| {
            prompts.pane = Some(HEALTH);
            Vec::new()
        },
    ),
];

fn nothing_to_undo(prompts: &Prompts, _: &Shared) -> Option<String> {
    prompts
        .undo
        .is_empty()
        .then(|| "no change of rows to undo".to_owned())
}

fn no_task(_: &Prompts, shared: &Shared) -> Option<String> {
    shared.no_task()
}

/// Why no file can be opened, except that of an unreadable task.
fn no_file(_: &Prompts, shared: &Shared) -> Option<String> {
    let is_known = shared
        .task_error
        .as_ref()
        .is_some_and(|failure| failure.place.is_some());
    shared.no_task().filter(|_| !is_known)
}

fn no_row(prompts: &Prompts, _: &Shared) -> Option<String> {
    prompts
        .selected()
        .is_none()
        .then(|| "no row selected".to_owned())
}

fn no_finding(prompts: &Prompts, _: &Shared) -> Option<String> {
    prompts
        .groups
        .is_empty()
        .then(|| "no finding selected".to_owned())
}

fn nothing_open(prompts: &Prompts, _: &Shared) -> Option<String> {
    let open = prompts.editing.is_some() || prompts.form.is_some() || prompts.filter.is_shown();
    (!open && prompts.pane() == ROWS).then(|| "nothing to close".to_owned())
}

fn leave(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    if prompts.form.take().is_some() {
        return Vec::new();
    }
    if prompts.editing.is_some() {
        return row_editor::leave(prompts, shared);
    }
    if std::mem::take(&mut prompts.filter.is_typing) {
        return Vec::new();
    }
    if prompts.pane() != ROWS {
        prompts.pane = Some(ROWS);
        return Vec::new();
    }
    prompts.filter = Filter::default();
    arrange(prompts, shared)
}

fn write(
    prompts: &mut Prompts,
    shared: &mut Shared,
    what: fn(Entry) -> EditTarget,
) -> Vec<Command> {
    match prompts.selected().map(what) {
        Some(what) => row_editor::begin(prompts, shared, what),
        None => Vec::new(),
    }
}

fn add(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let place = prompts.selected_place(shared);
    let first = || {
        let open = shared.task.as_ref()?;
        PromptSet::ALL
            .into_iter()
            .find(|set| open.task.set_file(*set).is_some())
            .map(|set| (set, 0))
    };
    match place.or_else(first) {
        Some((set, line)) => row_editor::begin(prompts, shared, EditTarget::New(set, line)),
        None => {
            shared.complain(
                "the task has no prompt set; name a file under [prompts] in task.toml: train = \"train.jsonl\"",
            )
        }
    }
}

fn delete(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let (Some(entry), Some(row)) = (prompts.selected(), prompts.selected_row(shared)) else {
        return Vec::new();
    };
    let text = format!(
        "{} in line {} of the {} set: {}",
        row.id,
        row.line,
        entry.set.name(),
        first_words(row)
    );
    let ask = Confirm::new("Delete row?", text, "delete", {
        let (set, row) = (entry.set, row.clone());
        move |prompts: &mut Prompts, shared: &mut Shared| save::delete(prompts, shared, set, row)
    });
    shared.open_popup(Popup::Confirm(ask))
}

/// Opens in the external editor: the file of an unreadable task; else the finding in the health
/// pane, the row, or the first unreadable set.
fn outside(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    if let Some((path, line)) = shared
        .task_error
        .as_ref()
        .and_then(|failure| failure.place.clone())
    {
        return vec![Command::Edit { path, line }];
    }
    let Some(open) = shared.task.clone() else {
        return Vec::new();
    };
    let finding = match prompts.pane() {
        HEALTH => table::finding_place(prompts),
        _ => None,
    };
    let place = finding
        .or_else(|| prompts.selected_place(shared))
        .or_else(|| {
            let (set, error) = open
                .rows
                .iter()
                .find_map(|(set, rows)| Some((*set, rows.as_ref().err()?)))?;
            Some((set, error.line().unwrap_or(1)))
        });
    let Some((file, line)) =
        place.and_then(|(set, line)| Some((open.task.set_file(set)?.to_owned(), line)))
    else {
        return save::outside(prompts, shared, crate::task::TASK_FILE.to_owned(), 1);
    };
    save::outside(prompts, shared, file, line)
}

/// Filters the table by the finding; opens the editor for a finding outside of the rows.
fn show_rows_of_finding(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let Some(group) = prompts
        .finding
        .at(prompts.groups.len())
        .and_then(|place| prompts.groups.get(place))
    else {
        return Vec::new();
    };
    if group.rows.is_empty() {
        let (key, title) = (shared.key_of("prompts.outside"), group.title.clone());
        let place = group.place.map_or_else(String::new, |(set, line)| {
            format!(" in line {line} of the {} set", set.name())
        });
        return shared.complain(format!(
            "{title}{place} is not a row: open the file with {key}"
        ));
    }
    prompts.filter = Filter::with(&format!("is:{}", group.slug));
    prompts.pane = Some(ROWS);
    prompts.cursor.index = 0;
    arrange(prompts, shared)
}

fn choose_model(prompts: &mut Prompts, shared: &mut Shared) -> Vec<Command> {
    let now = prompts.model.clone().unwrap_or_default();
    let label = "Folder, Hugging Face name, or `tiny`; empty: the task's base model";
    let ask = Ask::new(
        "Tokenizer of which model?",
        label,
        &now,
        |prompts: &mut Prompts, shared, name| {
            let name = name.trim();
            prompts.model = (!name.is_empty()).then(|| name.to_owned());
            prompts.counter = None;
            prompts.tokens.fill(UNCOUNTED);
            token_count::count(prompts, shared)
        },
    );
    shared.open_popup(Popup::Ask(ask))
}
