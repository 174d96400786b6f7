//! Every action of the table: where it says it works, its key means it, and performing it does something that the user
//! sees: another picture, a message that something is done, or a command. A complaint is nothing done.

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
use super::runs::copy_run;

const RUN: &str = "20261120-143041-invoice-6sx3dn";

/// Ways to a place where an action has something to do: the focus is on its pane already.
const PREPARATIONS: [&str; 33] = [
    "",
    "j",
    "k",
    "G",
    "l",
    "home",
    "space",
    "down down",
    "c",
    "v",
    "o",
    "p j",
    "+ + h",
    "/ x enter",
    "enter x",
    "l i s t _ f i l e s",
    "o enter !",
    "o enter ! ctrl-u",
    "o enter ! esc",
    "o / y enter",
    "x !",
    "x ! ctrl-u",
    "x enter",
    "I",
    "esc f v enter",
    "o g enter space j space esc G enter j space c",
    "home b end j",
    "t",
    "t x ctrl-o",
    "m",
    "m space",
    "y",
    "o enter alt-a { \" $ r e f \" : \" # \" } left left",
];

/// A judge that is not asked, with a criterion of either scale.
const JUDGE: &str = "kind = \"judge\"\nendpoint = { base_url = \"http://127.0.0.1:1/v1\", model = \"m\" }\ncriterion = [{ name = \"a\", text = \"b\" }, { name = \"c\", text = \"d\", scale = \"0_to_4\" }]\n";

/// A tool, for prompts that are answered by hand.
const TOOL: &str = "kind = \"regex\"\npattern = \".\"\n[[tool]]\nbuiltin = \"files\"\n";

/// Actions that end what goes on, and the key that begins it.
const BEGUN: [(&str, &str); 2] = [("launch.cancel", "f"), ("scores.cancel", "r")];

/// Actions that complain on this stage, of what it has not: a worker that takes requests, a text to submit or to
/// restore, a run that can start. Each has tests of its own.
const REFUSED: [&str; 10] = [
    "launch.start",
    "prompts.submit",
    "prompts.take",
    "live.pause",
    "live.checkpoint",
    "live.eval",
    "runs.start",
    "runs.pause",
    "runs.checkpoint",
    "runs.eval",
];

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
        copy_run(
            &options.here.join("runs"),
            "20261119-090000-invoice-aaaaaa",
            "another",
            "failed",
        );
        copy_run(
            &options.here.join("runs"),
            "20261118-090000-invoice-bbbbbb",
            "a third",
            "finished",
        );
        copy_run(
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

/// Whether the action does anything after a preparation; false also where the preparation leads away from it. What
/// keeps it from being done is not asked: what an action does then is its own.
fn works(action: &ActionInfo, preparation: &str) -> bool {
    let is_labelling = action.scope == Scope::Pane(Screen::Scores, "labels");
    let mut stage = match action.scope {
        Scope::Pane(Screen::Schema, "program") => {
            stage("kind = \"command\"\ncommand = [\"true\"]\n")
        }
        _ if is_labelling => stage(JUDGE),
        _ if action.id.starts_with("prompts.hand") => stage(TOOL),
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
    if is_labelling {
        stage.keys("L");
    }
    if action.scope == Scope::Pane(Screen::Prompts, "by hand") {
        stage.keys("b");
    }
    stage.keys(preparation);
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
    if !stage.model.is_here(action) || !(action.keys.is_empty() || action.keys.iter().any(is_meant))
    {
        return false;
    }
    let (before, told) = (picture(&stage), stage.model.shared.notices.total());
    let typed_before = stage.model.takes_text();
    let commands = stage.model.perform(action);
    let asks = !commands.is_empty();
    stage.act(|_| commands);
    let notices: Vec<Level> = stage
        .model
        .shared
        .notices
        .since(told)
        .iter()
        .map(|notice| notice.level)
        .collect();
    let is_refused = notices.contains(&Level::Complaint);
    let works = !is_refused && (asks || !notices.is_empty() || picture(&stage) != before);
    // Whatever begins a text says so: where it is refused, the keys that follow are no commands.
    let types =
        stage.model.screen().is_typing() || matches!(stage.model.shared.popup, Some(Popup::Ask(_)));
    let may_type =
        action.asks || action.id == "launch.open" || action.id.ends_with(".take") || typed_before;
    assert!(
        !types || may_type,
        "{} begins a text and is not marked so",
        action.id
    );
    works
}

/// All that is drawn except the bottom line, where messages come and go.
fn picture(stage: &Stage) -> Vec<Cell> {
    let buffer = stage.buffer();
    let rows = usize::from(buffer.area.height) - 1;
    buffer.content[..rows * usize::from(buffer.area.width)].to_vec()
}

fn check(place: Option<Screen>) {
    let here = |action: &&ActionInfo| match action.scope {
        Scope::Global | Scope::Movement => place.is_none(),
        Scope::Screen(screen) | Scope::Pane(screen, _) => place == Some(screen),
    };
    let actions: Vec<&ActionInfo> = app::actions().filter(here).collect();
    assert!(!actions.is_empty());
    let is_dead = |action: &&&ActionInfo| {
        !REFUSED.contains(&action.id) && !PREPARATIONS.iter().any(|way| works(action, way))
    };
    let dead: Vec<&str> = actions
        .iter()
        .filter(is_dead)
        .map(|action| action.id)
        .collect();
    assert!(dead.is_empty(), "nothing comes of {dead:?}");
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
