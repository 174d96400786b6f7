//! Every action of the table: where it says it works, its key means it, and performing it does something that the user
//! sees once its commands are carried out: another picture, a message that something is done, or a command to the
//! terminal. A complaint is nothing done.

use std::collections::HashSet;
use std::path::Path;

use crossterm::event::KeyEvent;
use grpo_tui::view::action::{ActionInfo, Scope};
use grpo_tui::view::key_chord::Chord;
use grpo_tui::view::messages::Level;
use grpo_tui::view::popup::Popup;
use grpo_tui::view::{Command, Message, Screen, app, update};
use ratatui::buffer::Cell;

use super::harness::{Stage, finished_run};
use super::launch::forecasting;
use super::runs::link_run;

const RUN: &str = "20261120-143041-invoice-6sx3dn";

/// Keys that lead to where actions can be performed, with the focus on their pane already; what comes of them there; and
/// their ids.
const TABLE: &[(&str, Outcome, &str)] = &[
    (
        "",
        Outcome::Done,
        "runs.pipeline.open runs.open runs.filter runs.mark runs.compare runs.versus \
         runs.overlay runs.resume runs.stop runs.stop_now runs.annotate runs.tag runs.rename \
         runs.sort_turn runs.sort_by \
         runs.remove runs.copy \
         runs.demonstration \
         schema.type schema.find schema.line schema.faults \
         schema.format schema.select schema.line.end schema.last \
         schema.sample.next schema.rejected schema.save schema.copy schema.outside schema.revert schema.trust \
         schema.take schema.own schema.discard schema.difference schema.toml \
         prompts.open prompts.own prompts.discard prompts.difference \
         prompts.filter prompts.messages prompts.expected prompts.system prompts.sort \
         prompts.sort.backwards prompts.add prompts.new_task \
         prompts.duplicate prompts.delete prompts.outside prompts.rendered prompts.copy prompts.results \
         prompts.model prompts.health scores.open \
         scores.edit scores.write scores.prompt \
         scores.draw scores.confidence scores.target scores.cancel scores.only \
         scores.filter scores.order scores.copy scores.results launch.forecast \
         launch.can_it_learn launch.cancel launch.models launch.tasks launch.preset launch.filter \
         launch.sections launch.only_different live.chart.in live.chart.left \
         live.member.next live.group.open live.text.next live.text.prompt live.prompt.completion \
         live.small.next live.small.previous live.small.enlarge live.result.open \
         live.log.level live.log.filter live.compare live.step.previous live.step.back_far \
         live.step.first live.smooth live.log_axis live.metrics.filter \
         live.overlay live.copy live.results live.resume live.stop \
         live.stop_now live.annotate live.set live.pane.chart live.pane.completion live.pane.prompt \
         live.pane.signal live.pane.metrics live.pane.device live.pane.log live.pane.result \
         eval.read eval.prompt.next eval.fixed eval.broken eval.neither eval.both eval.failures \
         eval.failures_first eval.filter eval.sort eval.choose eval.sides eval.copy \
         eval.copy_first eval.start eval.rescore eval.chat eval.prove eval.results \
         move.down move.page_down move.last help palette screen.runs screen.schema \
         screen.prompts screen.scores screen.launch screen.eval pane.next pane.previous pane.zoom editor.wrap \
         notices commands theme settings redraw suspend quit",
    ),
    (
        "j",
        Outcome::Done,
        "schema.complete schema.line.start schema.first launch.open \
         launch.next_value launch.previous_value eval.prompt.previous move.up \
         move.page_up move.first",
    ),
    ("f", Outcome::Done, "scores.back"),
    ("G", Outcome::Done, "launch.section"),
    ("alt-1", Outcome::Done, "live.pane.groups"),
    (
        "l",
        Outcome::Done,
        "schema.sample.previous live.member.previous live.text.previous",
    ),
    (
        "home",
        Outcome::Done,
        "live.step.next live.step.on_far live.step.latest",
    ),
    ("space", Outcome::Done, "runs.leave_filter"),
    ("c", Outcome::Done, "prompts.finding prompts.undo_rows"),
    (
        "v",
        Outcome::Done,
        "live.overlay.toggle live.back eval.leave eval.all",
    ),
    (
        "o",
        Outcome::Done,
        "launch.clear_filter eval.chooser.open eval.chooser.pick eval.chooser.compare eval.chooser.back",
    ),
    (
        "p j",
        Outcome::Done,
        "prompts.save prompts.undo launch.reset launch.reset_all",
    ),
    (
        "+ + h",
        Outcome::Done,
        "live.chart.right live.chart.out live.chart.whole",
    ),
    (
        "o enter !",
        Outcome::Done,
        "schema.leave schema.undo schema.fault.next",
    ),
    ("o enter ! ctrl-u", Outcome::Done, "schema.redo"),
    ("o enter ! esc", Outcome::Done, "schema.fault.previous"),
    (
        "o / y enter",
        Outcome::Done,
        "schema.find.next schema.find.previous",
    ),
    ("v ! ctrl-u", Outcome::Done, "prompts.redo"),
    ("v enter", Outcome::Done, "prompts.format"),
    ("v", Outcome::Done, "prompts.leave"),
    (
        "o g enter space j space esc G enter j space c",
        Outcome::Done,
        "eval.task",
    ),
    ("t", Outcome::Done, "eval.chat.leave"),
    ("t x alt-enter", Outcome::Done, "eval.chat.edit"),
    (
        "a x esc",
        Outcome::Done,
        "scores.remove scores.save scores.source",
    ),
    ("1", Outcome::Done, "screen.live"),
    ("t x", Outcome::Done, "eval.chat.send"),
    // They complain on this stage, of what it has not: a worker that takes requests, a text to submit or to restore, a run
    // that can start. Each has tests of its own.
    (
        "",
        Outcome::Refused,
        "runs.start runs.pause runs.checkpoint runs.eval prompts.take launch.start live.pause live.checkpoint \
         live.eval",
    ),
    ("N", Outcome::Refused, "prompts.submit"),
    // The files that it reads again are as they were; another test changes them.
    ("", Outcome::Nothing, "eval.again"),
];

/// Actions that end what goes on, and the key that begins it.
const BEGUN: [(&str, &str); 2] = [("launch.cancel", "f"), ("scores.cancel", "S")];

/// A task in a folder with a draft of its schema and one of its system prompt, three runs that have ended, the sample
/// run, and a program that answers forecasts. `part`: one of the task's reward, which a program or a judge scores.
fn stage(part: &str) -> Stage {
    let mut stage = Stage::with(120, 36, |options| {
        forecasting(options);
        options.appearance.folder = Some(options.here.join("settings"));
        let task = options.here.join("tasks/invoice");
        crate::program::sample_task(&task, [10, 10, 10]);
        if !part.is_empty() {
            let toml = std::fs::read_to_string(task.join("task.toml")).unwrap();
            std::fs::write(
                task.join("task.toml"),
                format!("{toml}\n[[reward]]\nname = \"style\"\nweight = 1\n{part}"),
            )
            .unwrap();
        }
        write_drafts(&options.data.join("drafts"), &task);
        link_run(
            &options.here.join("runs"),
            "20261119-090000-invoice-aaaaaa",
            "another",
            "failed",
        );
        link_run(
            &options.here.join("runs"),
            "20261118-090000-invoice-bbbbbb",
            "a third",
            "finished",
        );
        link_run(
            &options.here.join("runs"),
            RUN,
            "small adapters",
            "finished",
        );
        std::os::unix::fs::symlink(
            finished_run().parent().unwrap(),
            options.here.join("sample-data"),
        )
        .unwrap();
    });
    let run = stage.folder.path().join("runs").join(RUN);
    stage.act(|_| vec![Command::ShowRun(run)]);
    stage
}

fn write_drafts(folder: &Path, task: &Path) {
    let mark = |file: &str| {
        grpo_tui::run::sha256(task.join(file).display().to_string().as_bytes())[..12].to_owned()
    };
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(
        folder.join(format!("invoice-{}.json", mark("schema.json"))),
        "{}",
    )
    .unwrap();
    let system = r#"{"task": "", "of": {"system": {"was": ""}}, "cursor": [0, 0], "time_ms": 1, "text": "draft"}"#;
    std::fs::write(
        folder.join(format!("prompts-{}-1-1.json", mark("task.toml"))),
        system,
    )
    .unwrap();
}

/// What came of an action.
#[derive(Debug, PartialEq)]
enum Outcome {
    Done,
    Refused,
    Nothing,
}

/// Performs an action after the keys that lead to it, as far as they do. What keeps it from being done is not asked: what
/// an action does then is its own.
fn outcome(action: &ActionInfo, way: &str) -> Result<Outcome, String> {
    let mut stage = match action.scope {
        Scope::Pane(Screen::Schema, "program") => {
            stage("kind = \"command\"\ncommand = [\"true\"]\n")
        }
        _ => stage(""),
    };
    let (screen, pane) = match action.scope {
        Scope::Global => (Screen::Live, None),
        Scope::Movement => (Screen::Runs, None),
        Scope::Screen(screen) => (screen, None),
        Scope::Pane(screen, pane) => (screen, Some(pane)),
    };
    stage.act(|_| vec![Command::GoTo(screen)]);
    if let Some(pane) = pane {
        let (screen, shared) = stage.model.screen_mut(screen);
        screen.focus(shared, pane);
    }
    stage.keys(way);
    for (_, key) in BEGUN.iter().filter(|(id, _)| *id == action.id) {
        let chord = Chord::parse(key).unwrap();
        // Its work is not carried out: it goes on.
        update::update(
            &mut stage.model,
            stage.now_ms,
            Message::Key(KeyEvent::new(chord.code, chord.modifiers)),
        );
    }
    let is_meant = |key: &&str| {
        stage
            .model
            .action_of(Chord::parse(key).unwrap())
            .is_some_and(|found| found.id == action.id)
    };
    if !stage.model.is_here(action) {
        return Err("the focus is elsewhere".to_owned());
    }
    if !(action.keys.is_empty() || action.keys.iter().any(is_meant)) {
        return Err(format!("none of its keys {:?} means it", action.keys));
    }
    let (before, told, asked) = (
        picture(&stage),
        stage.model.shared.notices.total(),
        stage.commands.len(),
    );
    let typed_before = stage.model.takes_text();
    let commands = stage.model.perform(action);
    stage.act(|_| commands);
    // Whatever begins a text says so: where it is refused, the keys that follow are no commands.
    let types =
        stage.model.screen().is_typing() || matches!(stage.model.shared.popup, Some(Popup::Ask(_)));
    let may_type =
        action.asks || action.id == "launch.open" || action.id.ends_with(".take") || typed_before;
    if types && !may_type {
        return Err("it begins a text and is not marked so".to_owned());
    }
    let notices = stage.model.shared.notices.since(told);
    let is_refused = notices
        .iter()
        .any(|notice| notice.level == Level::Complaint);
    let is_done = !notices.is_empty() || stage.commands.len() > asked || picture(&stage) != before;
    Ok(match (is_refused, is_done) {
        (true, _) => Outcome::Refused,
        (false, true) => Outcome::Done,
        (false, false) => Outcome::Nothing,
    })
}

/// All that is drawn except the bottom line, where messages come and go.
fn picture(stage: &Stage) -> Vec<Cell> {
    let buffer = stage.buffer();
    let rows = usize::from(buffer.area.height) - 1;
    buffer.content[..rows * usize::from(buffer.area.width)].to_vec()
}

/// Performs the actions of a screen; `None`: those that work on every screen.
fn check(place: Option<Screen>) {
    let here = |action: &&ActionInfo| match action.scope {
        Scope::Global | Scope::Movement => place.is_none(),
        Scope::Screen(screen) | Scope::Pane(screen, _) => place == Some(screen),
    };
    let wrong = |action: &ActionInfo| {
        let is_its_row = |(_, _, ids): &&(_, _, &str)| ids.split(' ').any(|id| id == action.id);
        let Some((way, expected, _)) = TABLE.iter().find(is_its_row) else {
            return Some("not in TABLE: add it to the keys that lead to where it works".to_owned());
        };
        let found = outcome(action, way);
        (found.as_ref() != Ok(expected))
            .then(|| format!("after the keys `{way}`: {found:?}, not {expected:?}"))
    };
    let wrong: Vec<String> = app::actions()
        .filter(here)
        .filter_map(|action| Some(format!("{}: {}", action.id, wrong(action)?)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_no_other_action_and_none_twice() {
    let mut seen = HashSet::new();
    for id in TABLE.iter().flat_map(|(_, _, ids)| ids.split(' ')) {
        assert!(app::action(id).is_some(), "{id} is no action: remove it");
        assert!(seen.insert(id), "{id} is in two rows: remove one");
    }
}

#[test]
fn everywhere() {
    check(None);
}

#[test]
fn runs() {
    check(Some(Screen::Runs));
}

#[test]
fn schema() {
    check(Some(Screen::Schema));
}

#[test]
fn prompts() {
    check(Some(Screen::Prompts));
}

#[test]
fn scores() {
    check(Some(Screen::Scores));
}

#[test]
fn launch() {
    check(Some(Screen::Launch));
}

#[test]
fn live() {
    check(Some(Screen::Live));
}

#[test]
fn eval() {
    check(Some(Screen::Eval));
}
