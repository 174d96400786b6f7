//! The actions of the eval screen.

use crossterm::event::{KeyCode, KeyEvent, MouseEvent, MouseEventKind};
use ratatui::Frame;
use ratatui::layout::{Margin, Position, Rect};

use super::{
    ANSWERS, CHAT, CHOOSER, Eval, PROMPTS, SUMMARY, answers, chat, chooser, comment, draw, eval_job, export, failures,
    is_rescored_by_another, layout, prompts, read, rescore, summary,
};
use crate::action::Scope;
use crate::message::{Change, Command};
use crate::report::Outcome;
use crate::run::is_recording;
use crate::screen::{self, About, Described};
use crate::screens::Screen;
use crate::shared::Shared;
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
        match (&self.chat, &self.chooser) {
            (Some(_), _) => CHAT,
            (None, Some(_)) => CHOOSER,
            (None, None) => self.pane,
        }
    }

    fn focus(&mut self, _: &mut Shared, pane: &'static str) {
        if self.chat.is_none() && self.chooser.is_none() {
            self.pane = pane;
        }
    }

    fn draw(&self, shared: &Shared, frame: &mut Frame<'_>, area: Rect) {
        draw::draw(self, shared, frame, area);
    }

    fn is_typing(&self) -> bool {
        self.filter.is_typing || self.chat.as_ref().is_some_and(|chat| chat.is_typing)
    }

    fn on_key(&mut self, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
        on_key(self, shared, event)
    }

    fn on_paste(&mut self, _: &mut Shared, text: &str) -> Vec<Command> {
        if let Some(chat) = &mut self.chat {
            chat::paste(chat, text);
        } else if self.filter.paste(text) {
            self.arrange();
        }
        Vec::new()
    }

    fn mouse(&mut self, shared: &mut Shared, event: MouseEvent) -> Vec<Command> {
        mouse(self, shared, event)
    }

    fn opens(&self, shared: &Shared, at: (u16, u16)) -> bool {
        opens(self, shared, at)
    }

    fn on_show(&mut self, shared: &mut Shared) -> Vec<Command> {
        let of_another_run = self.chosen.is_empty() && self.run != shared.current;
        let stale = of_another_run || is_rescored_by_another(self, shared);
        let mut commands = eval_job::find(self, shared);
        if stale || (self.loaded.is_none() && shared.current.is_some()) {
            commands.extend(read(self, shared));
        }
        commands.extend(open_newest(self, shared));
        commands
    }

    fn on_change(&mut self, shared: &mut Shared, change: &Change) -> Vec<Command> {
        on_change(self, shared, change)
    }
}

const HERE: Scope = Scope::Screen(Screen::Eval);
const CHOOSING: Scope = Scope::Pane(Screen::Eval, CHOOSER);
const CHATTING: Scope = Scope::Pane(Screen::Eval, CHAT);

const ACTIONS: &[Action] = &[
    Action::new("eval.chooser.open", "Open", "open", &["enter", "right", "l"], CHOOSING, chooser::enter),
    Action::new("eval.chooser.pick", "Toggle selection", "select", &["space"], CHOOSING, chooser::pick),
    Action::new("eval.chooser.compare", "Compare selected", "compare", &["c"], CHOOSING, chooser::compare)
        .unless(chooser::no_compare),
    Action::new("eval.chooser.back", "Back", "back", &["esc", "left", "h"], CHOOSING, chooser::back),
    Action::new("eval.chat.send", "Ask", "ask", &["ctrl-o", "alt-enter"], CHATTING, chat::send),
    Action::new("eval.chat.edit", "Edit prompt", "edit", &["enter", "i"], CHATTING, chat::edit).asking(),
    Action::new("eval.chat.leave", "Back", "back", &["esc"], CHATTING, chat::leave),
    Action::new("eval.read", "Show answers", "read", &["enter"], Scope::Pane(Screen::Eval, PROMPTS), |eval, _| {
        eval.pane = ANSWERS;
        eval.top = Cursor::default();
        Vec::new()
    })
    .unless(nothing),
    Action::new("eval.leave", "Back", "", &["esc"], HERE, leave),
    Action::new("eval.fixed", "Show improvements", "improvements", &["f"], HERE, |eval, _| {
        only(eval, Some(Outcome::Fixed))
    })
    .unless(no_pair),
    Action::new("eval.broken", "Show regressions", "regressions", &["b"], HERE, |eval, _| {
        only(eval, Some(Outcome::Broken))
    })
    .unless(no_pair),
    Action::new("eval.neither", "Show neither valid", "", &["n"], HERE, |eval, _| only(eval, Some(Outcome::Neither)))
        .unless(nothing),
    Action::new("eval.both", "Show both valid", "", &["v"], HERE, |eval, _| only(eval, Some(Outcome::Both)))
        .unless(nothing),
    Action::new("eval.all", "Show all prompts", "all", &["a"], HERE, |eval, _| {
        (eval.filter, eval.group) = Default::default();
        only(eval, None)
    })
    .unless(nothing),
    Action::new("eval.failures", "Show what failures have in common", "failures", &["c"], HERE, |eval, shared| {
        failures::open(eval, shared, true)
    })
    .also(&["failure groups", "common failures", "slices", "segments"])
    .unless(|eval, shared| nothing(eval, shared).or_else(|| failures::none(eval, true))),
    Action::new("eval.failures_first", "Show failures of first eval", "", &["C"], HERE, |eval, shared| {
        failures::open(eval, shared, false)
    })
    .unless(|eval, shared| nothing(eval, shared).or_else(|| failures::none(eval, false))),
    Action::new("eval.filter", "Filter prompts", "filter", &["/"], HERE, |eval, _| {
        eval.filter.is_typing = true;
        eval.pane = PROMPTS;
        Vec::new()
    })
    .also(&["find", "search"])
    .asking()
    .unless(nothing),
    Action::new("eval.sort", "Cycle sort order", "sort", &["s"], HERE, |eval, shared| {
        eval.sort = eval.sort.next();
        eval.arrange();
        let name = eval.sort.name(eval.versus().is_some_and(|versus| versus.pairs.is_empty()));
        shared.say(format!("prompts: {name}"));
        Vec::new()
    })
    .unless(nothing),
    Action::new("eval.choose", "Choose evals", "choose", &["o"], HERE, chooser::open),
    Action::new("eval.pair", "Next pair", "pair", &["p"], HERE, |eval, _| {
        let pairs = eval.versus().map_or(1, |versus| versus.pairs.len());
        eval.pair = (eval.pair + 1) % pairs.max(1);
        eval.arrange();
        Vec::new()
    })
    .unless(|eval, shared| {
        let several = eval.versus().is_some_and(|versus| versus.pairs.len() > 1);
        let text = || format!("only two evals are compared: choose three with {}", shared.key_of("eval.choose"));
        nothing(eval, shared).or_else(|| (!several).then(text))
    }),
    Action::new("eval.comment", "Comment on prompt", "comment", &["m"], HERE, comment::ask)
        .also(&["comment", "remark", "rate"])
        .asking()
        .unless(|eval, shared| {
            let is_recording = eval.versus().is_some_and(|versus| is_recording(versus.comments_folder()));
            nothing(eval, shared)
                .or_else(|| eval.shown.is_empty().then(|| "no prompt selected".to_owned()))
                .or_else(|| is_recording.then(|| shared.no_change_of_recording()))
        }),
    Action::new("eval.sides", "Toggle side by side", "layout", &["d"], HERE, |eval, shared| {
        let now = match &eval.chat {
            Some(_) => eval.side_by_side.unwrap_or(usize::from(shared.size.0) >= answers::SIDES + 2),
            None => answers::is_side_by_side(eval, shared),
        };
        eval.side_by_side = Some(!now);
        Vec::new()
    })
    .unless(|eval, shared| if eval.chat.is_some() { None } else { no_pair(eval, shared) }),
    Action::new("eval.copy", "Copy last answer", "copy", &["y"], HERE, |eval, _| copy(eval, true))
        .also(&["yank", "clipboard"])
        .unless(nothing),
    Action::new("eval.copy_first", "Copy first answer", "", &["Y"], HERE, |eval, _| copy(eval, false)).unless(nothing),
    Action::new("eval.export", "Export comparison", "", &["w"], HERE, export::ask)
        .also(&["export", "report", "export html", "export markdown", "export csv"])
        .asking()
        .unless(nothing),
    Action::new("eval.start", "Run eval", "eval", &["E"], HERE, eval_job::ask)
        .also(&["run eval"])
        .asking()
        .unless(eval_job::no_start),
    Action::new("eval.baseline", "Run baseline eval", "", &["B"], HERE, eval_job::ask_baseline)
        .also(&["baseline", "eval base model", "zero-shot"])
        .asking()
        .unless(eval_job::no_baseline),
    Action::new("eval.rescore", "Re-score with editor schema", "", &["r"], HERE, rescore)
        .also(&["score again", "recorded scores"])
        .unless(no_rescoring),
    Action::new("eval.chat", "Try own prompt", "try", &["t"], HERE, chat::open)
        .also(&["chat", "playground", "ask base and trained"])
        .asking(),
    Action::new("eval.again", "Reload", "", &["R"], HERE, read),
    Action::new("eval.prompts", "Compare system prompts", "compare", &["A"], HERE, eval_job::ask_variants)
        .asking()
        .unless(eval_job::no_baseline),
];

/// Why the evals cannot be re-scored.
fn no_rescoring(eval: &Eval, shared: &Shared) -> Option<String> {
    let no_schema = || {
        let text = || format!("no schema has compiled yet: see Schema ({})", shared.key_of("screen.schema"));
        shared.scorer().is_none().then(text)
    };
    nothing(eval, shared).filter(|_| !eval.is_of_other_schemas && eval.rescored.is_none()).or_else(no_schema)
}

/// Why there is no comparison for an action.
fn nothing(eval: &Eval, shared: &Shared) -> Option<String> {
    match &eval.loaded {
        _ if eval.chat.is_some() || eval.chooser.is_some() => {
            Some(format!("{} goes back to the comparison", shared.key_of("eval.leave")))
        }
        Some(Ok(_)) => None,
        Some(Err(error)) => Some(error.clone()),
        None => {
            let (runs, choose) = (shared.key_of("screen.runs"), shared.key_of("eval.choose"));
            Some(format!("nothing to compare: open a run on Runs ({runs}), or choose evals with {choose}"))
        }
    }
}

/// Why two answers cannot be compared.
fn no_pair(eval: &Eval, shared: &Shared) -> Option<String> {
    let alone = eval.versus().is_some_and(|versus| versus.pairs.is_empty());
    let text = || format!("one eval is shown: choose two or three with {}", shared.key_of("eval.choose"));
    nothing(eval, shared).or_else(|| alone.then(text))
}

/// Toggles the filter for prompts with an outcome.
fn only(eval: &mut Eval, outcome: Option<Outcome>) -> Vec<Command> {
    eval.only = if eval.only == outcome { None } else { outcome };
    eval.arrange();
    Vec::new()
}

/// Leaves the innermost.
fn leave(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    if eval.filter.is_typing {
        eval.filter.is_typing = false;
    } else if shared.zoomed {
        shared.zoomed = false;
    } else if eval.pane != PROMPTS {
        eval.pane = PROMPTS;
    } else if !eval.filter.text().is_empty() || eval.only.is_some() || eval.group.is_some() {
        (eval.filter, eval.group, eval.only) = Default::default();
        eval.arrange();
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
        Some(versus.record(prompt, *side?)?.completion.clone())
    });
    text.into_iter().map(Command::Copy).collect()
}

fn on_change(eval: &mut Eval, shared: &mut Shared, change: &Change) -> Vec<Command> {
    match change {
        Change::Schema if shared.screen == Screen::Eval && is_rescored_by_another(eval, shared) => read(eval, shared),
        Change::CurrentRun => {
            eval.chosen.clear();
            (eval.rescored, eval.loaded, eval.run, eval.group) = Default::default();
            if shared.screen == Screen::Eval { read(eval, shared) } else { Vec::new() }
        }
        Change::RunNews if eval.chosen.is_empty() && eval.run == shared.current => {
            let evals = shared.current_run().map_or(0, |run| run.history.evals.len());
            if evals != eval.evals_seen && eval.run.is_some() { read(eval, shared) } else { Vec::new() }
        }
        Change::Second => eval_job::look(eval, shared),
        Change::Runs { .. } if shared.screen == Screen::Eval => open_newest(eval, shared),
        _ => Vec::new(),
    }
}

/// Where nothing is open, opens the newest run of the open task that was compared with its base.
fn open_newest(eval: &Eval, shared: &Shared) -> Vec<Command> {
    let is_empty = eval.chosen.is_empty() && eval.chooser.is_none() && eval.chat.is_none() && eval.started.is_none();
    let newest = shared.compared_run().filter(|_| is_empty && shared.current.is_none());
    newest.map(|row| Command::ShowRun(row.directory.path().to_owned())).into_iter().collect()
}

fn on_key(eval: &mut Eval, shared: &mut Shared, event: KeyEvent) -> Vec<Command> {
    if eval.filter.is_typing {
        if eval.filter.key(event) {
            eval.arrange();
        }
        return Vec::new();
    }
    let side_by_side = eval.side_by_side;
    if let Some(chat) = &mut eval.chat {
        chat::on_key(chat, shared, side_by_side, event);
        return Vec::new();
    }
    let page = layout::page_rows(eval, shared);
    if let Some(chooser) = &mut eval.chooser {
        let length = chooser.length();
        chooser.cursor().key(event, page, length);
        return Vec::new();
    }
    let length = eval.shown.len();
    match eval.pane {
        PROMPTS => {
            if eval.cursor.key(event, page, length) {
                eval.top = Cursor::default();
            }
        }
        pane => match event.code {
            KeyCode::Right | KeyCode::Char('l') => go(eval, 1),
            KeyCode::Left | KeyCode::Char('h') => go(eval, -1),
            _ => {
                let lines = draw::lines_of(eval, shared, pane);
                let top = if pane == ANSWERS { &mut eval.top } else { &mut eval.summary_top };
                top.key(event, page, lines);
            }
        },
    }
    Vec::new()
}

/// Moves to another prompt of the list.
fn go(eval: &mut Eval, by: isize) {
    let length = eval.shown.len();
    eval.cursor.go(by, length);
    eval.top = Cursor::default();
}

/// Lines per step of the wheel.
const WHEEL: isize = 3;

fn mouse(eval: &mut Eval, shared: &mut Shared, event: MouseEvent) -> Vec<Command> {
    let side_by_side = eval.side_by_side;
    if let Some(chat) = &mut eval.chat {
        chat::mouse(chat, shared, side_by_side, event);
        return Vec::new();
    }
    let by = match event.kind {
        MouseEventKind::ScrollDown => 1,
        MouseEventKind::ScrollUp => -1,
        MouseEventKind::Down(_) => return click(eval, shared, Position { x: event.column, y: event.row }),
        _ => return Vec::new(),
    };
    if let Some(chooser) = &mut eval.chooser {
        let length = chooser.length();
        chooser.cursor().go(by, length);
        return Vec::new();
    }
    let pane =
        layout::pane_at(eval, shared, Position { x: event.column, y: event.row }).map_or(eval.pane, |(pane, _)| pane);
    if pane == PROMPTS {
        go(eval, by);
        return Vec::new();
    }
    let lines = draw::lines_of(eval, shared, pane);
    let top = if pane == ANSWERS { &mut eval.top } else { &mut eval.summary_top };
    top.go(by * WHEEL, lines);
    Vec::new()
}

/// Whether a double click acts as enter.
fn opens(eval: &Eval, shared: &Shared, (column, row): (u16, u16)) -> bool {
    match &eval.chooser {
        _ if eval.chat.is_some() => false,
        Some(chooser) => chooser::row_at(chooser, shared.body(), row).is_some(),
        None => layout::pane_at(eval, shared, (column, row).into())
            .is_some_and(|(pane, area)| pane == PROMPTS && row > area.y),
    }
}

fn click(eval: &mut Eval, shared: &mut Shared, place: Position) -> Vec<Command> {
    if let Some(chooser) = &mut eval.chooser {
        let row = chooser::row_at(chooser, shared.body(), place.y);
        row.into_iter().for_each(|row| chooser.cursor().index = row);
        return Vec::new();
    }
    let (Some((pane, area)), Some(versus)) = (layout::pane_at(eval, shared, place), eval.versus().cloned()) else {
        return Vec::new();
    };
    if pane == SUMMARY {
        // Focus would zoom the short summary, and move the cell away from the pointer.
        if let Some(outcome) = summary::outcome_at(eval, shared, &versus, area, place) {
            return only(eval, Some(outcome));
        }
    }
    if pane == PROMPTS
        && let Some(index) = prompts::at(eval, area.inner(Margin::new(1, 1)), place)
    {
        eval.cursor.index = index;
        eval.top = Cursor::default();
    }
    eval.pane = pane;
    Vec::new()
}
