//! Whatever comes, in whatever order, at whatever size: nothing panics.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use grpo_tui::view::key_chord::Chord;
use grpo_tui::view::{Command, Message, app};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::harness::{Stage, finished_run};
use super::runs::link_run;

const RUN: &str = "20261120-120000-invoice-done01";

#[derive(Debug, Clone)]
enum Input {
    Chord(String),
    Letter(char),
    Mouse(MouseEventKind, u16, u16),
    Size(u16, u16),
    Paste(String),
    Tick,
}

fn input() -> impl Strategy<Value = Input> {
    // What would leave or hand over the terminal is only recorded by the stage.
    let chords: Vec<String> = app::actions()
        .flat_map(|action| action.keys.iter().map(|key| (*key).to_owned()))
        .chain(
            [
                "enter",
                "esc",
                "tab",
                "backtab",
                "up",
                "down",
                "left",
                "right",
                "home",
                "end",
                "pageup",
                "pagedown",
                "space",
                "backspace",
            ]
            .map(str::to_owned),
        )
        .collect();
    let kinds = [
        MouseEventKind::Down(MouseButton::Left),
        MouseEventKind::Up(MouseButton::Left),
        MouseEventKind::Drag(MouseButton::Left),
        MouseEventKind::Down(MouseButton::Right),
        MouseEventKind::ScrollDown,
        MouseEventKind::ScrollUp,
        MouseEventKind::Moved,
    ];
    prop_oneof![
        8 => proptest::sample::select(chords).prop_map(Input::Chord),
        3 => proptest::char::any().prop_map(Input::Letter),
        3 => (proptest::sample::select(kinds.to_vec()), 0..220_u16, 0..70_u16).prop_map(|(kind, column, row)| Input::Mouse(kind, column, row)),
        2 => (0..220_u16, 0..70_u16).prop_map(|(columns, rows)| Input::Size(columns, rows)),
        1 => ".{0,40}".prop_map(Input::Paste),
        1 => proptest::sample::select(long_texts(20_000)).prop_map(Input::Paste),
        1 => Just(Input::Tick),
    ]
}

/// Opens the recorded run where it lies: what follows could remove it from the source.
const OPENS_THE_SOURCE: &str = "O";

fn message(stage: &mut Stage, input: Input) -> Option<Message> {
    Some(match input {
        Input::Chord(name) if name == OPENS_THE_SOURCE => return None,
        Input::Letter(letter) if letter.to_string() == OPENS_THE_SOURCE => return None,
        Input::Chord(name) => key(&name),
        Input::Letter(letter) => {
            Message::Key(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE))
        }
        Input::Mouse(kind, column, row) => Message::Mouse(MouseEvent {
            kind,
            column,
            row,
            modifiers: KeyModifiers::NONE,
        }),
        Input::Size(columns, rows) => Message::Resize(columns, rows),
        Input::Paste(text) => Message::Paste(text),
        Input::Tick => {
            stage.now_ms += 1000;
            Message::Tick
        }
    })
}

fn key(name: &str) -> Message {
    let chord = Chord::parse(name).unwrap();
    Message::Key(KeyEvent::new(chord.code, chord.modifiers))
}

fn long_texts(letters: usize) -> Vec<String> {
    ["long ", "x", "日本", "{\"a\": [1, 2]}\n"]
        .map(|text| text.repeat(letters / text.chars().count()))
        .to_vec()
}

/// Each kind of text field takes a long text, and the keys that follow; `benches/view.rs` measures how long all of them
/// take.
#[test]
fn a_long_paste_stops_nothing() {
    // A field in a pane, an editor, one whose text is scored, a question and a list to pick from.
    let fields = [
        "runs.filter",
        "scores.write",
        "schema.type",
        "runs.rename",
        "palette",
    ];
    for (field, text) in fields.iter().zip(long_texts(200_000).iter().cycle()) {
        let mut stage = Stage::with(120, 36, |options| {
            options.program = "/bin/false".into();
            link_run(&options.here.join("runs"), RUN, "", "finished");
        });
        stage.send(Message::Perform(app::action(field).unwrap()));
        let before = stage.screen();
        stage.send(Message::Paste(text.clone()));
        assert!(
            stage.model.takes_text() && stage.screen() != before,
            "{field} takes no text"
        );
        for name in [
            "left",
            "a",
            "backspace",
            "up",
            "down",
            "home",
            "end",
            "ctrl-w",
            "pageup",
            "enter",
            "esc",
        ] {
            stage.keys(name);
            _ = stage.screen();
        }
    }
}

proptest! {
    // A case that failed is kept beside this file and tried first the next time.
    #![proptest_config(ProptestConfig {
        cases: 12,
        max_shrink_iters: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/view/random.failures"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_panics(inputs in proptest::collection::vec(input(), 1..80)) {
        // Nothing is started: what the view would ask of its own program fails at once.
        let mut stage = Stage::with(120, 36, |options| options.program = "/bin/false".into());
        let run = stage.folder.path().join("runs").join(RUN);
        crate::program::copy_tree(&finished_run(), &run);
        stage.act(|_| vec![Command::ShowRun(run)]);
        for input in inputs {
            if let Some(message) = message(&mut stage, input) {
                stage.send(message);
                _ = stage.screen();
            }
        }
    }
}
