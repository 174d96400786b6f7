//! Tests: what keys ask of the worker of a run, and what is said where there is none.

use std::path::PathBuf;

use grpo_tui::run::{State, Verb};
use grpo_tui::view::Message;
use grpo_tui::view::message::RunNews;
use grpo_tui::view::messages::Level;

use super::super::harness::Stage;
use super::{serve, shown};

#[test]
fn keys_reach_the_worker_as_verbs() {
    let (mut stage, mut written) = shown(120, 36);
    written.step(1);
    written.send(&mut stage);
    let serving = serve(&written.worker);
    let last_message = |stage: &Stage| {
        stage
            .model
            .shared
            .notices
            .all()
            .last()
            .map(|notice| notice.text.clone())
            .unwrap_or_default()
    };
    let short = written.run.id().rsplit('-').next().unwrap().to_owned();
    stage.keys("p");
    assert!(
        last_message(&stage).contains("pauses after step"),
        "{}",
        last_message(&stage)
    );
    stage.keys("C");
    assert_eq!(last_message(&stage), format!("{short}: it is done"));
    let level = |stage: &Stage| stage.model.shared.notices.all().last().unwrap().level;
    assert_eq!(level(&stage), Level::Done);
    stage.keys("E");
    assert_eq!(level(&stage), Level::Warning, "below the base");
    stage.keys("a").types("looks good\n");
    assert_eq!(last_message(&stage), format!("{short}: noted"));
    stage.keys("=");
    assert!(
        stage.shows("enter accept, esc cancel"),
        "no error before anything was typed:\n{}",
        stage.screen()
    );
    stage.keys("x backspace");
    for text in ["set: name a key and its value", "change: learning_rate"] {
        assert!(stage.shows(text), "all of it: {text}\n{}", stage.screen());
    }
    stage.types("temperature=0");
    assert!(
        stage.shows("from 0.01 to 10"),
        "what does not fit is said while typing:\n{}",
        stage.screen()
    );
    stage.types(".9 max_steps=40\n");
    assert!(
        last_message(&stage).contains("max_steps = 40"),
        "{}",
        last_message(&stage)
    );
    // A stop is asked for only after a yes.
    stage.keys("x n");
    stage.keys("x y");
    let verbs: Vec<Verb> = serving
        .join()
        .unwrap()
        .into_iter()
        .map(|accepted| accepted.verb)
        .collect();
    let set = Verb::set(["temperature=0.9", "max_steps=40"]).unwrap();
    let note = Verb::Annotate {
        text: "looks good".into(),
    };
    assert_eq!(
        verbs,
        [
            Verb::Pause,
            Verb::Checkpoint,
            Verb::Eval,
            note,
            set,
            Verb::Stop { now: false }
        ]
    );
}

#[test]
fn a_worker_that_is_gone_refuses_in_words_and_the_next_one_is_offered() {
    let (mut stage, mut written) = shown(120, 36);
    written.step(1);
    written.send(&mut stage);
    let path = written.path();
    drop(written);
    // The view still believes that it lives: the answer says that it does not.
    stage.keys("p");
    let last_message = |stage: &Stage| {
        stage
            .model
            .shared
            .notices
            .all()
            .last()
            .map(|notice| (notice.level == Level::Complaint, notice.text.clone()))
            .unwrap_or_default()
    };
    assert!(
        last_message(&stage).0 && last_message(&stage).1.contains("lost its worker"),
        "{:?}",
        last_message(&stage)
    );
    stage.send(Message::Run(
        path.clone(),
        RunNews::State(State::observe(&path)),
    ));
    assert!(stage.shows("interrupted"), "{}", stage.screen());
    assert!(
        stage
            .commands
            .iter()
            .any(|command| command.contains("Notify") && command.contains("interrupted")),
        "{:?}",
        stage.commands
    );
    for key in ["p", "C", "E", "x", "X", "="] {
        stage.keys("esc").keys(key);
        let is_prompt = key == "=";
        assert!(
            last_message(&stage).1.contains("resume it first (r)")
                && stage.model.shared.popup.is_some() == is_prompt,
            "{key}: {:?}",
            last_message(&stage)
        );
    }
    // Whoever types on after a refused prompt asks for nothing.
    stage.types("learning_rate=1e-5 rpX\n");
    assert!(
        stage.model.shared.popup.is_none() && last_message(&stage).1.contains("resume it first"),
        "{:?}",
        last_message(&stage)
    );
    // A note needs no worker.
    stage.keys("a").types("died at night\n");
    assert!(
        !last_message(&stage).0 && last_message(&stage).1.ends_with("noted"),
        "{:?}",
        last_message(&stage)
    );
    // The program of this stage is a test binary's path that says no: its words are shown.
    stage.model.shared.options.program = PathBuf::from("/bin/false");
    stage.keys("r");
    assert!(last_message(&stage).0, "{:?}", last_message(&stage));
}
