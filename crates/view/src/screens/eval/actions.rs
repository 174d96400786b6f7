//! Actions of the eval screen.

use crossterm::event::{MouseEvent, MouseEventKind};
use ratatui::layout::Rect;

use super::{
    ANSWERS, CHAT, CHOOSER, Eval, PROMPTS, SUMMARY, answers, chat, chooser, draw, eval_job,
    failures, is_rescored_by_another, layout, prove, read, rescore,
};
use crate::action::Scope;
use crate::message::{Change, Command};
use crate::pane::content::{Content, Hit, Place};
use crate::report::{EvalId, Metric, Outcome, chain_text};
use crate::screen::{self, About, Described};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::tool_results::whole_action;
use crate::widgets::editor::Editor;
use crate::widgets::filter::TextField;
use crate::widgets::list_cursor::Cursor;

type Action = screen::Action<Eval>;

impl Described for Eval {
    const ABOUT: &'static About = &About {
        title: "Eval",
        help: "Base and trained on the same prompts: rates with 95% CI, improvements, regressions, what failures have in common, and both answers to each prompt. \
               A base model alone needs no run.",
        panes: &[SUMMARY, PROMPTS, ANSWERS],
    };
    const TABLE: &'static [Action] = ACTIONS;
}

impl screen::Screen for Eval {
    fn pane(&self) -> &'static str {
        match self.chat {
            Some(_) => CHAT,
            None => layout::pane(self),
        }
    }

    /// Task and folders of the chosen evals; `None` for a custom prompt, which the open run's
    /// models answer.
    fn shown_instead(&self) -> Option<Vec<String>> {
        if self.chosen.is_empty() || self.chat.is_some() {
            return None;
        }
        let mut folders: Vec<String> = self.chosen.iter().map(EvalId::short_folder).collect();
        folders.dedup();
        let folders = folders.join(" vs ");
        let task = self.versus().map(|versus| &versus.evals[0].task);
        let whole = task.map(|task| format!("{task}  {folders}"));
        Some(whole.into_iter().chain([folders]).collect())
    }

    fn focus(&mut self, _: &mut Shared, pane: &'static str) {
        if self.chat.is_none() && self.chooser.is_none() {
            self.pane = pane;
        }
    }

    fn is_typing(&self) -> bool {
        self.filter.is_typing || self.chat.as_ref().is_some_and(|chat| chat.is_typing)
    }

    fn stop_typing(&mut self) {
        self.filter.is_typing = false;
        if let Some(chat) = &mut self.chat {
            chat.is_typing = false;
        }
    }

    fn places(&self, shared: &Shared, area: Rect) -> Vec<Place> {
        match &self.chat {
            Some(chat) => chat::places(chat, area).to_vec(),
            None => layout::places(self, shared, area),
        }
    }

    fn content<'a>(&'a self, shared: &'a Shared, place: &Place) -> Content<'a> {
        draw::content(self, shared, place)
    }

    fn cursor(&mut self, pane: &str) -> Option<&mut Cursor> {
        match pane {
            CHAT => self.chat.as_mut().map(|chat| &mut chat.top),
            CHOOSER => self.chooser.as_mut().map(chooser::cursor),
            PROMPTS => Some(&mut self.cursor),
            ANSWERS => Some(&mut self.top),
            _ => Some(&mut self.summary_top),
        }
    }

    fn moved(&mut self, _: &mut Shared, pane: &str) -> Vec<Command> {
        if pane == PROMPTS {
            self.top = Cursor::default();
        }
        Vec::new()
    }

    fn pointed(&mut self, _: &mut Shared, hit: &Hit, event: MouseEvent) -> Option<Vec<Command>> {
        if let (Some(chat), MouseEventKind::Down(_)) = (&mut self.chat, event.kind) {
            chat.is_typing = hit.is_editor;
        }
        None
    }

    fn field(&mut self) -> Option<&mut dyn TextField> {
        self.filter.typed()
    }

    fn typed(&mut self, _: &mut Shared) -> Vec<Command> {
        self.arrange(true)
    }

    fn editor(&mut self, _: &Shared) -> Option<&mut Editor> {
        self.chat.as_mut().map(|chat| &mut chat.editor)
    }

    fn on_change(&mut self, shared: &mut Shared, change: &Change) -> Vec<Command> {
        on_change(self, shared, change)
    }
}

const HERE: Scope = Scope::Screen(Screen::Eval);
const CHOOSING: Scope = Scope::Pane(Screen::Eval, CHOOSER);
const CHATTING: Scope = Scope::Pane(Screen::Eval, CHAT);

const ACTIONS: &[Action] = &[
    Action::new(
        "eval.chooser.open",
        "Open",
        "open",
        &["enter", "right", "l"],
        CHOOSING,
        chooser::enter,
    ),
    Action::new(
        "eval.chooser.pick",
        "Toggle selection",
        "select",
        &["space"],
        CHOOSING,
        chooser::pick,
    ),
    Action::new(
        "eval.chooser.compare",
        "Compare selected",
        "compare",
        &["c"],
        CHOOSING,
        chooser::compare,
    )
    .unless(chooser::no_compare),
    Action::new(
        "eval.chooser.back",
        "Back",
        "back",
        &["esc", "left", "h"],
        CHOOSING,
        chooser::back,
    ),
    Action::new(
        "eval.chat.send",
        "Ask",
        "ask",
        &["alt-enter"],
        CHATTING,
        chat::send,
    ),
    Action::new(
        "eval.chat.edit",
        "Edit prompt",
        "edit",
        &["enter", "i"],
        CHATTING,
        chat::edit,
    )
    .asking(),
    Action::new(
        "eval.chat.leave",
        "Back",
        "back",
        &["esc"],
        CHATTING,
        chat::leave,
    ),
    Action::new(
        "eval.read",
        "Show answers",
        "read",
        &["enter"],
        Scope::Pane(Screen::Eval, PROMPTS),
        |eval, _| {
            eval.pane = ANSWERS;
            eval.top = Cursor::default();
            Vec::new()
        },
    )
    .unless(nothing),
    Action::new("eval.leave", "Back", "", &["esc"], HERE, leave),
    Action::new(
        "eval.prompt.next",
        "Next prompt",
        "",
        &["l", "right"],
        HERE,
        |eval, _| go(eval, 1),
    )
    .unless(nothing),
    Action::new(
        "eval.prompt.previous",
        "Previous prompt",
        "",
        &["h", "left"],
        HERE,
        |eval, _| go(eval, -1),
    )
    .unless(nothing),
    Action::new(
        "eval.fixed",
        "Show improvements",
        "improvements",
        &["f"],
        HERE,
        |eval, _| only(eval, Outcome::Fixed),
    )
    .unless(no_pair),
    Action::new(
        "eval.broken",
        "Show regressions",
        "regressions",
        &["b"],
        HERE,
        |eval, _| only(eval, Outcome::Broken),
    )
    .unless(no_pair),
    Action::new(
        "eval.neither",
        "Show neither valid",
        "",
        &["n"],
        HERE,
        |eval, _| only(eval, Outcome::Neither),
    )
    .unless(nothing),
    Action::new(
        "eval.both",
        "Show both valid",
        "",
        &["v"],
        HERE,
        |eval, _| only(eval, Outcome::Both),
    )
    .unless(nothing),
    Action::new(
        "eval.all",
        "Show all prompts",
        "all",
        &["a"],
        HERE,
        |eval, _| {
            (eval.filter, eval.group, eval.only) = Default::default();
            eval.arrange(true)
        },
    )
    .unless(nothing),
    Action::new(
        "eval.failures",
        "Show what failures have in common",
        "failures",
        &["c"],
        HERE,
        |eval, shared| failures::open(eval, shared, true),
    )
    .also(&["failure groups", "common failures", "slices", "segments"])
    .unless(|eval, shared| nothing(eval, shared).or_else(|| failures::none(eval, true))),
    Action::new(
        "eval.failures_first",
        "Show failures of first eval",
        "",
        &["C"],
        HERE,
        |eval, shared| failures::open(eval, shared, false),
    )
    .unless(|eval, shared| nothing(eval, shared).or_else(|| failures::none(eval, false))),
    Action::new(
        "eval.filter",
        "Filter prompts",
        "filter",
        &["/"],
        HERE,
        |eval, _| {
            eval.filter.is_typing = true;
            eval.pane = PROMPTS;
            Vec::new()
        },
    )
    .also(&["find", "search"])
    .asking()
    .unless(nothing),
    Action::new(
        "eval.sort",
        "Cycle sort order",
        "sort",
        &["s"],
        HERE,
        |eval, shared| {
            eval.sort = eval.sort.next();
            let name = eval
                .sort
                .name(eval.versus().is_some_and(|versus| versus.pairs.is_empty()));
            shared.say(format!("prompts: {name}"));
            eval.arrange(true)
        },
    )
    .unless(nothing),
    Action::new(
        "eval.choose",
        "Choose evals",
        "choose",
        &["o"],
        HERE,
        chooser::open,
    ),
    Action::new(
        "eval.task",
        "Next task",
        "task",
        &["P"],
        HERE,
        super::next_task,
    )
    .unless(|_, shared| {
        let run = shared.current_run().and_then(|run| run.directory.as_ref());
        let several = run.is_some_and(|run| run.task_names().len() > 1);
        (!several).then(|| "the open run has one task".to_owned())
    }),
    Action::new(
        "eval.sides",
        "Toggle side by side",
        "layout",
        &["d"],
        HERE,
        |eval, shared| {
            let now = match &eval.chat {
                Some(_) => eval
                    .side_by_side
                    .unwrap_or(usize::from(shared.size.0) >= answers::SIDES + 2),
                None => answers::is_side_by_side(eval, shared),
            };
            eval.side_by_side = Some(!now);
            Vec::new()
        },
    )
    .unless(|eval, shared| {
        if eval.chat.is_some() {
            None
        } else {
            no_pair(eval, shared)
        }
    }),
    Action::new(
        "eval.copy",
        "Copy last answer",
        "copy",
        &["y"],
        HERE,
        |eval, _| copy(eval, true),
    )
    .also(&["yank", "clipboard"])
    .unless(nothing),
    Action::new(
        "eval.copy_first",
        "Copy first answer",
        "",
        &["Y"],
        HERE,
        |eval, _| copy(eval, false),
    )
    .unless(nothing),
    Action::new(
        "eval.start",
        "Run eval",
        "eval",
        &["E"],
        HERE,
        eval_job::ask,
    )
    .also(&["run eval"])
    .asking()
    .unless(eval_job::no_start),
    Action::new(
        "eval.rescore",
        "Re-score with editor schema",
        "",
        &["r"],
        HERE,
        rescore,
    )
    .also(&["score again", "recorded scores"])
    .unless(no_rescoring),
    Action::new(
        "eval.chat",
        "Try own prompt",
        "try",
        &["t"],
        HERE,
        chat::open,
    )
    .also(&["chat", "playground", "ask base and trained"])
    .asking(),
    Action::new("eval.prove", "Prove server", "", &["e"], HERE, prove::open)
        .also(&[
            "prove endpoint",
            "compare server",
            "is what is served what was trained",
        ])
        .asking()
        .unless(prove::none),
    whole_action("eval.results", Screen::Eval),
    Action::new("eval.again", "Reload", "", &["u"], HERE, read),
];

fn no_rescoring(eval: &Eval, shared: &Shared) -> Option<String> {
    let no_schema = || {
        let text = || {
            format!(
                "no schema has compiled yet: see Schema ({})",
                shared.key_of("screen.schema")
            )
        };
        shared.scorer().is_none().then(text)
    };
    nothing(eval, shared)
        .filter(|_| !eval.is_of_other_schemas && eval.rescored.is_none())
        .or_else(no_schema)
}

fn nothing(eval: &Eval, shared: &Shared) -> Option<String> {
    match &eval.loaded {
        _ if eval.chat.is_some() || eval.chooser.is_some() => Some(format!(
            "{} goes back to the comparison",
            shared.key_of("eval.leave")
        )),
        Some(Ok(_)) => None,
        Some(Err(error)) => Some(error.clone()),
        None => {
            let (runs, choose) = (shared.key_of("screen.runs"), shared.key_of("eval.choose"));
            Some(format!(
                "nothing to compare: open a run on Runs ({runs}), or choose evals with {choose}"
            ))
        }
    }
}

/// Why two answers cannot be compared.
fn no_pair(eval: &Eval, shared: &Shared) -> Option<String> {
    let alone = eval.versus().is_some_and(|versus| versus.pairs.is_empty());
    let text = || {
        format!(
            "one eval is shown: choose two with {}",
            shared.key_of("eval.choose")
        )
    };
    nothing(eval, shared).or_else(|| alone.then(text))
}

/// Filters by an outcome; again, by that change of exact matches if there are expected answers; again, no longer.
fn only(eval: &mut Eval, outcome: Outcome) -> Vec<Command> {
    let pair = eval.versus().and_then(|versus| eval.pair(versus));
    let has_exact = pair.is_some_and(|pair| pair.exact.is_some())
        && matches!(outcome, Outcome::Fixed | Outcome::Broken);
    eval.only = match eval.only {
        Some((Metric::Valid, only)) if only == outcome && has_exact => {
            Some((Metric::Exact, outcome))
        }
        Some((_, only)) if only == outcome => None,
        _ => Some((Metric::Valid, outcome)),
    };
    eval.arrange(true)
}

/// Leaves the innermost of: the filter's text, zoom, the pane, filters, the chosen evals.
fn leave(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    if eval.filter.is_typing {
        eval.filter.is_typing = false;
    } else if shared.zoomed {
        shared.zoomed = false;
    } else if eval.pane != PROMPTS {
        eval.pane = PROMPTS;
    } else if !eval.filter.text().is_empty() || eval.only.is_some() || eval.group.is_some() {
        (eval.filter, eval.group, eval.only) = Default::default();
        return eval.arrange(true);
    } else if !eval.chosen.is_empty() {
        eval.chosen.clear();
        return read(eval, shared);
    }
    Vec::new()
}

fn copy(eval: &mut Eval, second: bool) -> Vec<Command> {
    let text = eval.versus().and_then(|versus| {
        let (sides, prompt) = (eval.sides(versus), eval.prompt(versus)?);
        let side = if second { sides.last() } else { sides.first() };
        let record = versus.record(prompt, *side?)?;
        Some(record.chains().map(chain_text).collect::<String>() + &record.completion)
    });
    text.into_iter().map(Command::Copy).collect()
}

fn on_show(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let of_another_run = eval.chosen.is_empty() && eval.run != shared.current;
    let stale = of_another_run || is_rescored_by_another(eval, shared);
    let mut commands = eval_job::find(eval, shared);
    if stale || (eval.loaded.is_none() && shared.current.is_some()) {
        commands.extend(read(eval, shared));
    }
    commands.extend(open_newest(eval, shared));
    commands
}

fn on_change(eval: &mut Eval, shared: &mut Shared, change: &Change) -> Vec<Command> {
    match change {
        Change::Shown => on_show(eval, shared),
        Change::Schema if shared.screen == Screen::Eval && is_rescored_by_another(eval, shared) => {
            read(eval, shared)
        }
        Change::CurrentRun => {
            eval.chosen.clear();
            (eval.rescored, eval.loaded, eval.run, eval.group) = Default::default();
            if shared.screen == Screen::Eval {
                read(eval, shared)
            } else {
                Vec::new()
            }
        }
        Change::RunNews if eval.chosen.is_empty() && eval.run == shared.current => {
            let evals = shared
                .current_run()
                .map_or(0, |run| run.history.evals.len());
            if evals != eval.evals_seen && eval.run.is_some() {
                read(eval, shared)
            } else {
                Vec::new()
            }
        }
        Change::Second => eval_job::look(eval, shared),
        Change::Runs { .. } if shared.screen == Screen::Eval => open_newest(eval, shared),
        _ => Vec::new(),
    }
}

/// If no run is open, opens the newest run of the open task with a comparison to its base.
fn open_newest(eval: &Eval, shared: &Shared) -> Vec<Command> {
    let newest = shared
        .compared_run()
        .filter(|_| eval.is_untouched() && shared.current.is_none());
    newest
        .map(|row| Command::ShowRun(row.directory.path().to_owned()))
        .into_iter()
        .collect()
}

fn go(eval: &mut Eval, by: isize) -> Vec<Command> {
    let length = eval.shown.len();
    eval.cursor.go(by, length);
    eval.top = Cursor::default();
    Vec::new()
}
