//! What is typed is text: where a text cannot be taken, or something else comes in between, its letters are no
//! commands.

use grpo_tui::view::action::Scope;
use grpo_tui::view::popup::Popup;
use grpo_tui::view::{Command, Message, Screen, app, update};

use super::harness::{Stage, finished_run};
use super::launch::forecasting;
use super::runs::copy_run;

/// Letters that are commands on one screen or another, those that delete, pause, stop, start and leave among them.
const TEXT: &str = "q=pxXdDLrREC :Yy";

/// A key, with what it asks for kept back: work that is still being done.
fn deferred(stage: &mut Stage, key: &str) -> Vec<Command> {
    let chord = grpo_tui::view::key_chord::Chord::parse(key).unwrap();
    let event = crossterm::event::KeyEvent::new(chord.code, chord.modifiers);
    update::update(&mut stage.model, stage.now_ms, Message::Key(event))
}

/// Without a task, a run or anything else: most prompts cannot be opened.
#[test]
fn a_prompt_that_is_refused_takes_the_keys_that_follow() {
    let mut refused = Vec::new();
    for action in app::actions().filter(|action| action.asks) {
        let mut stage = Stage::with(120, 36, |options| {
            options.task = Some("/no/such/task".to_owned())
        });
        if let Scope::Screen(screen) | Scope::Pane(screen, _) = action.scope {
            stage.act(|_| vec![grpo_tui::view::Command::GoTo(screen)]);
        }
        if let Scope::Pane(screen, pane) = action.scope {
            let (screen, shared) = stage.model.screen_mut(screen);
            screen.focus(shared, pane);
        }
        match action.keys.first() {
            Some(key) => stage.keys(key),
            None => stage.command(action.title),
        };
        let (screen, commands) = (stage.model.shared.screen, stage.commands.len());
        stage.types(TEXT);
        assert!(
            stage.model.takes_text(),
            "{}: its text was taken for commands\n{}",
            action.id,
            stage.screen()
        );
        assert_eq!(
            (stage.model.shared.screen, stage.commands.len()),
            (screen, commands),
            "{}",
            action.id
        );
        if matches!(stage.model.shared.popup, Some(Popup::Refusal(_))) {
            let why = stage
                .model
                .shared
                .notices
                .all()
                .last()
                .unwrap()
                .text
                .chars()
                .take(20)
                .collect::<String>();
            assert!(
                stage.shows(action.title.get(..40).unwrap_or(action.title)) && stage.shows(&why),
                "{}",
                stage.screen()
            );
            stage.keys("enter");
            assert!(
                stage.model.shared.popup.is_none(),
                "enter ends what was typed"
            );
            refused.push(action.id);
        }
    }
    for expected in [
        "runs.annotate",
        "runs.tag",
        "schema.type",
        "prompts.messages",
        "prompts.add",
        "live.annotate",
        "live.set",
    ] {
        assert!(
            refused.contains(&expected),
            "{expected} was not refused: {refused:?}"
        );
    }
}

/// What could be completed before an undo or a redo is not where it was.
#[test]
fn undo_and_redo_close_the_list_of_completions() {
    let mut stage = Stage::new(120, 36);
    let text = |stage: &Stage| stage.model.shared.draft.text.clone();
    for (keys, expected) in [("ctrl-u", "{\"typ"), ("ctrl-u ctrl-r", "{\"type\": \"\"")] {
        stage.keys("f2 enter alt-a").types("{\"typ").keys("enter");
        assert_eq!(
            text(&stage),
            "{\"type\": \"\"",
            "accepted, and its values are offered"
        );
        stage.keys(keys);
        assert_eq!(text(&stage), expected, "{keys}");
        stage.keys("end enter");
        assert_eq!(
            text(&stage).trim_end_matches([' ', '\n']),
            expected,
            "{keys}: enter accepts nothing"
        );
    }
}

/// A run that has come up takes nobody away from what they write.
#[test]
fn a_launch_that_succeeds_leaves_who_types_alone() {
    let run = finished_run();
    let mut stage = Stage::with(120, 36, |options| {
        let script = format!(
            "echo '{{\"path\": \"{}\", \"ready\": true}}'",
            run.display()
        );
        options.program = super::harness::script(&options.here.join("program"), &script);
    });
    stage.keys("f5");
    let work = deferred(&mut stage, "L");
    stage.keys("f2 enter").types("ab");
    stage.carry_out(work);
    stage.types(TEXT);
    assert_eq!(stage.model.shared.screen, Screen::Schema);
    assert!(
        stage
            .model
            .shared
            .draft
            .text
            .starts_with(&format!("ab{TEXT}")),
        "{}",
        stage.model.shared.draft.text
    );
    assert_eq!(stage.model.shared.current, Some(run));
    let messages = stage
        .model
        .shared
        .notices
        .all()
        .iter()
        .map(|notice| notice.text.clone())
        .collect::<Vec<_>>();
    assert!(
        messages.iter().any(|text| text.contains("f6 shows it")),
        "{messages:?}"
    );
}

/// While a folder is measured somebody goes on to something else: no letter of that is a yes.
#[test]
fn a_question_that_comes_late_is_not_answered_by_what_is_typed() {
    let mut stage = Stage::with(120, 36, |options| {
        forecasting(options);
        _ = copy_run(
            &options.here.join("runs"),
            "20261120-143041-invoice-6sx3dn",
            "",
            "finished",
        );
    });
    let run = stage
        .folder
        .path()
        .join("runs/20261120-143041-invoice-6sx3dn");
    let work = deferred(&mut stage, "d");
    stage.command("edit tags").types("ke");
    stage.carry_out(work);
    stage.types("y");
    assert!(run.exists() && stage.shows("key"), "{}", stage.screen());
    stage.keys("esc d");
    assert!(stage.shows("In the trash for 7 days"), "{}", stage.screen());
    stage.keys("n");
    copy_run(
        &stage.folder.path().join("runs"),
        "20261119-090000-invoice-aaaaaa",
        "",
        "finished",
    );
    stage.tick_after(2_000);
    stage.keys("g space space");
    let work = deferred(&mut stage, "c");
    stage.keys("/").types("q");
    stage.carry_out(work);
    assert!(
        stage.model.shared.popup.is_none() && !stage.shows("Run comparison"),
        "{}",
        stage.screen()
    );
}

/// A row that is being saved takes no more letters: they would be lost with its editor.
#[test]
fn nothing_is_typed_into_a_text_that_is_being_saved() {
    let mut stage = Stage::with(120, 36, |options| {
        crate::program::sample_task(&options.here.join("tasks/invoice"), [10; 3]);
    });
    stage.keys("f3 i ctrl-end").types("FIRST");
    let chord = grpo_tui::view::key_chord::Chord::parse("ctrl-o").unwrap();
    let event = crossterm::event::KeyEvent::new(chord.code, chord.modifiers);
    let work = update::update(&mut stage.model, stage.now_ms, Message::Key(event));
    stage.types("SECOND");
    assert!(
        !stage
            .model
            .prompts
            .editing
            .as_ref()
            .unwrap()
            .editor
            .text()
            .contains("SECOND")
    );
    stage.carry_out(work);
    let rows =
        std::fs::read_to_string(stage.folder.path().join("tasks/invoice/train.jsonl")).unwrap();
    assert!(rows.contains("FIRST") && stage.model.prompts.editing.is_none());
    assert!(stage.model.shared.popup.is_none(), "{}", stage.screen());
}
