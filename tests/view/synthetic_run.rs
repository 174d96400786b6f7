//! The live screen while a run is written: what comes is shown, requests reach the worker, memory stays bounded.

mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use grpo_tui::advantage::{Advantage, group_advantages, group_signal};
use grpo_tui::config::Layers;
use grpo_tui::run::events::{Alert, Device, Group, Phase, Run, Step};
use grpo_tui::run::{
    AcceptedRequest, AgainstBase, Answer, Comparison, EventBody, EventReader, EventWriter, NewRun,
    RolloutCompletion, RolloutGroup, RolloutWriter, RunDirectory, RunState, State, Status, Verb,
    Worker,
};
use grpo_tui::score::{Score, Scorer, Task};
use grpo_tui::view::message::RunNews;
use grpo_tui::view::{Message, Screen, shared};
use serde_json::json;

use super::harness::Stage;
use crate::program::requests;
use grpo_tui::facts::{AlertLevel, Cause, PhaseKind, StopReason};

const COMPLETIONS: [&str; 4] = [
    r#"{"vendor": "Nordhaven Papier", "date": "2024-05-17", "amount": 1234.5, "currency": "EUR"}"#,
    r#"{"vendor": "Nordhaven Papier", "date": "2024-05-17", "amount": "1234.5", "currency": "EUR"}"#,
    "The vendor is Nordhaven Papier.",
    "```json\n{\"vendor\": \"Nordhaven Papier\", \"date\": \"2024-05-17\",\n \"amount\": 1234.5, \"currency\": \"EUR\"}\n```",
];

/// A run with its worker's side in the test's hands.
pub(super) struct Written {
    pub(super) worker: Worker,
    pub(super) run: RunDirectory,
    events: EventWriter,
    rollouts: RolloutWriter,
    reader: EventReader,
    scorer: Scorer,
}

impl Written {
    pub(super) fn begin(folder: &Path) -> Self {
        // Its advantages are written standardized.
        let set = vec!["advantage=standardized".to_owned()];
        let resolved = Layers {
            set,
            ..Layers::default()
        }
        .resolve()
        .unwrap();
        let new = NewRun {
            job: grpo_tui::facts::Job::Train,
            name: "written by a test".into(),
            task: "invoice".into(),
            task_origin: "invoice".into(),
            task_files: Vec::new(),
            config: resolved.config,
            sources: resolved.sources,
            argv: vec!["grpo-tui".into()],
            features: Vec::new(),
            model_digest: String::new(),
            mix: Vec::new(),
        };
        let run = RunDirectory::create(&folder.join("runs"), new).unwrap();
        let worker = Worker::begin(&run, Arc::default()).unwrap();
        let mut events = EventWriter::open(worker.lock()).unwrap();
        let (id, device) = (run.id().into(), "NVIDIA H200".into());
        let begun = Run {
            id,
            job: grpo_tui::facts::Job::Train,
            device,
            total_steps: 50,
            ..Run::default()
        };
        events.append(begun).unwrap();
        let rollouts = RolloutWriter::resume(worker.lock(), 0).unwrap();
        worker.state().status(Status::Running, 0, None).unwrap();
        let (scorer, reader) = (
            Scorer::new(&Task::embedded("invoice").unwrap()).unwrap(),
            RunState::open(run.path()).unwrap().1,
        );
        Self {
            worker,
            run,
            events,
            rollouts,
            reader,
            scorer,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.run.path().to_owned()
    }

    pub(super) fn append(&mut self, body: impl Into<EventBody>) {
        self.events.append(body).unwrap();
    }

    /// A step with three groups: mixed, all best, all worst.
    pub(super) fn step(&mut self, step: u64) {
        self.append(Phase {
            step,
            phase: PhaseKind::Rollout,
        });
        let mut valid = 0.0;
        for (name, texts) in [
            ("p001", [0, 1, 2, 0]),
            ("p002", [0, 0, 0, 0]),
            ("p003", [2, 2, 2, 2]),
        ] {
            let scores: Vec<_> = texts
                .iter()
                .map(|text| self.scorer.score(COMPLETIONS[*text], None))
                .collect();
            let rewards: Vec<f64> = scores.iter().map(|score| score.reward).collect();
            let advantages = group_advantages(&rewards, Advantage::Standardized);
            valid += texts.iter().filter(|text| **text == 0).count() as f64 / 12.0;
            let completions =
                texts
                    .iter()
                    .zip(&scores)
                    .zip(&advantages)
                    .map(|((text, score), advantage)| RolloutCompletion {
                        forced: 0..0,
                        text: COMPLETIONS[*text].into(),
                        token_ids: vec![7; 40 + *text],
                        log_probs: vec![-0.25; 40 + *text],
                        stop_reason: if *text == 2 {
                            StopReason::Length
                        } else {
                            StopReason::Stop
                        },
                        reward: Some(score.reward),
                        score: serde_json::to_value(score).unwrap(),
                        advantage: *advantage,
                        ..Default::default()
                    });
            let group = RolloutGroup {
                step,
                prompt_id: name.into(),
                prompt: "<|im_start|>user\nan invoice".into(),
                completions: completions.collect(),
                ..RolloutGroup::default()
            };
            let place = self.rollouts.append(&group).unwrap();
            self.append(Group {
                step,
                prompt_id: name.into(),
                signal: group_signal(
                    &rewards,
                    scores.iter().all(Score::is_max),
                    scores.iter().all(Score::is_min),
                ),
                tiers: scores.iter().map(|score| score.tier).collect(),
                rewards,
                advantages,
                token_counts: vec![40; 4],
                stop_reasons: vec![StopReason::Stop; 4],
                file: place.file,
                line: place.line,
                ..Group::default()
            });
        }
        let metrics = [
            ("reward", 0.5 + 0.002 * step as f64),
            ("reward_std", 0.2),
            ("tiers/valid", valid),
            ("tiers/invalid", 1.0 / 12.0),
            ("tiers/unparsable", 1.0 - valid - 1.0 / 12.0),
            ("kl", if step == 3 { f64::NAN } else { 0.01 }),
            ("time/rollout", 8.0),
            ("time/update", 4.0),
            ("step_time", 12.4),
        ];
        let metrics = metrics
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        self.append(Step {
            step,
            seconds: 12.4,
            metrics,
            ..Step::default()
        });
        self.worker
            .state()
            .status(Status::Running, step, None)
            .unwrap();
    }

    /// Hand the view what came since the last time.
    pub(super) fn send(&mut self, stage: &mut Stage) {
        let batch = self.reader.read().unwrap();
        stage.send(Message::Run(self.path(), RunNews::Events(batch)));
        stage.send(Message::Run(
            self.path(),
            RunNews::State(State::observe(&self.path())),
        ));
    }
}

pub(super) fn shown(columns: u16, rows: u16) -> (Stage, Written) {
    let mut stage = Stage::new(columns, rows);
    let mut written = Written::begin(stage.folder.path());
    let path = written.path();
    written.reader.read().unwrap();
    stage.act(|_| vec![grpo_tui::view::Command::ShowRun(path)]);
    stage.keys("f6");
    (stage, written)
}

/// The screen without the run's id and times of day.
fn stable(stage: &Stage, written: &Written) -> String {
    let short = written
        .run
        .id()
        .rsplit('-')
        .next()
        .unwrap_or_default()
        .to_owned();
    super::live::stable(stage)
        .replace(written.run.id(), "20261120-000000-invoice-aaaaaa")
        .replace(&short, "aaaaaa")
}

/// The clock of the run is that of this machine: the view looks at it when the last event came.
fn look_now(stage: &mut Stage, written: &Written) {
    let watched = stage.model.shared.followed.get(&written.path()).unwrap();
    stage.now_ms = watched
        .history
        .last_ms
        .unwrap_or(0)
        .max(watched.state.as_ref().map_or(0, |state| state.updated_ms));
    stage.send(Message::Tick);
}

/// A live run is what somebody comes back for.
#[test]
fn the_view_opens_on_the_run_that_is_live() {
    let mut written = None;
    let mut stage = Stage::with(120, 36, |options| {
        super::runs::copy_run(
            &options.here.join("runs"),
            "20261120-143041-invoice-6sx3dn",
            "",
            "finished",
        );
        written = Some(Written::begin(&options.here));
    });
    let written = written.unwrap();
    assert_eq!(
        (
            stage.model.shared.screen,
            stage.model.shared.current.clone()
        ),
        (Screen::Live, Some(written.path()))
    );
    assert!(stage.shows("● running"), "{}", stage.screen());
    // One that begins later is on the live screen once somebody looks, and takes nobody away from elsewhere.
    drop((stage, written));
    stage = Stage::new(120, 36);
    stage.keys("f6");
    assert!(stage.shows("No run is open"), "{}", stage.screen());
    let written = Written::begin(stage.folder.path());
    stage.tick_after(3_000);
    assert!(stage.shows("● running"), "{}", stage.screen());
    drop(written);
    let mut stage = Stage::new(120, 36);
    stage.keys("f5 f1");
    let written = Written::begin(stage.folder.path());
    stage.tick_after(3_000);
    assert_eq!(
        (
            stage.model.shared.screen,
            stage.model.shared.current.clone()
        ),
        (Screen::Runs, Some(written.path()))
    );
}

#[test]
fn a_run_grows_on_the_screen() {
    let (mut stage, mut written) = shown(120, 36);
    assert!(
        stage.shows("groups: none yet") && stage.shows("before step 1"),
        "{}",
        stage.screen()
    );
    for step in 1..=12 {
        written.step(step);
    }
    written.append(Device {
        device: "NVIDIA H200".into(),
        index: Some(0),
        utilisation: Some(0.93),
        memory_used_bytes: Some(94 << 30),
        memory_total_bytes: Some(139 << 30),
        power_watts: Some(612.0),
        temperature_celsius: Some(61.0),
    });
    written.append(Alert {
        rule: "all_worst".into(),
        level: AlertLevel::Warning,
        step: 12,
        sentence: "Every group of the last 3 steps stayed at one reward.".into(),
        suggestion: "Begin with easier prompts.".into(),
        ..Alert::default()
    });
    written.send(&mut stage);
    look_now(&mut stage, &written);
    insta::assert_snapshot!("live_running_120x36", stable(&stage, &written));
    assert!(
        stage
            .commands
            .iter()
            .any(|command| command.contains("Notify") && command.contains("all min or all equal")),
        "{:?}",
        stage.commands
    );
    // The selected completion is the invalid one: its fault and its advantage are said.
    stage.keys("l enter");
    assert!(stage.shows("/amount"), "{}", stage.screen());
    let expected = group_advantages(&[1.0, 0.5, 0.0, 1.0], Advantage::Standardized)[1];
    assert!(
        stage.shows(&format!(
            "(0.500 - 0.625) / (0.479 + 0.0001) = {expected:+.3}"
        )),
        "{}",
        stage.screen()
    );
    stage.send(Message::Resize(80, 24));
    insta::assert_snapshot!("live_running_80x24", stable(&stage, &written));
}

#[test]
fn the_picture_follows_and_goes_back() {
    let (mut stage, mut written) = shown(120, 36);
    (1..=3).for_each(|step| written.step(step));
    written.send(&mut stage);
    assert!(stage.shows("groups of step 3, latest"));
    written.step(4);
    written.send(&mut stage);
    assert!(stage.shows("groups of step 4, latest"));
    stage.keys("[");
    written.step(5);
    written.send(&mut stage);
    assert!(
        stage.shows("groups of step 3 ") && !stage.shows("latest"),
        "looking back stays where it is:\n{}",
        stage.screen()
    );
    stage.keys("] ]");
    assert!(stage.shows("groups of step 5, latest"));
    stage.keys("home");
    assert!(stage.shows("groups of step 1 "));
    stage.keys("end");
    assert!(stage.shows("step 5, latest"));
}

/// Serves whatever is asked, and tells what it was.
pub(super) fn serve(worker: &Worker) -> std::thread::JoinHandle<Vec<AcceptedRequest>> {
    let controls = worker.controls().clone();
    std::thread::spawn(move || {
        let mut served = Vec::new();
        loop {
            for accepted in requests(&controls) {
                let valid = Comparison {
                    broken: 30,
                    mcnemar_p: 1.9e-9,
                    ..Comparison::default()
                };
                let result = json!({"against_base": (accepted.verb == Verb::Eval).then_some(AgainstBase { valid, exact: None })});
                controls.answer(accepted.id, &Answer::done("it is done", result));
                served.push(accepted);
            }
            if controls.stop_requested().is_some() {
                served.extend(controls.drain());
                return served;
            }
        }
    })
}

#[test]
fn watching_keeps_bounds_and_old_alerts_are_not_told_again() {
    let (mut stage, mut written) = shown(80, 24);
    let alert = |step: u64| Alert {
        rule: "kl".into(),
        level: AlertLevel::Warning,
        step,
        sentence: "KL is high.".into(),
        ..Alert::default()
    };
    written.append(alert(1));
    for step in 1..=150 {
        let metrics = (0..40).map(|name| (format!("m{name}"), 0.5)).collect();
        written.append(Step {
            step,
            metrics,
            ..Step::default()
        });
        for _ in 0..4 {
            written.append(Device {
                utilisation: Some(0.5),
                ..Device::default()
            });
            written.append(grpo_tui::run::events::Note {
                text: format!("note of {step}"),
            });
        }
    }
    written.send(&mut stage);
    let notified = |stage: &Stage| {
        stage
            .commands
            .iter()
            .filter(|command| command.contains("Notify"))
            .count()
    };
    assert_eq!(notified(&stage), 1);
    let watched = stage.model.shared.followed.get(&written.path()).unwrap();
    assert_eq!(watched.log.len(), 500);
    assert!(watched.conditions.len() <= 240);
    let has_step = watched
        .log
        .iter()
        .any(|event| matches!(event.body, EventBody::Step(_)));
    assert!(!has_step, "values of a step are in the fold alone");
    assert!(
        watched
            .log
            .iter()
            .zip(watched.log.iter().skip(1))
            .all(|(a, b)| a.seq < b.seq)
    );
    // The whole log again, as after a replacement: what was told is not told again.
    let mut again = EventReader::new(&written.path().join("events.jsonl"))
        .read()
        .unwrap();
    again.restarted = true;
    stage.now_ms += 1;
    stage.send(Message::Run(written.path(), RunNews::Events(again)));
    assert_eq!(notified(&stage), 1);
    assert_eq!(
        stage
            .model
            .shared
            .followed
            .get(&written.path())
            .unwrap()
            .log
            .len(),
        500
    );
}

#[test]
fn an_alert_is_a_warning_and_a_stop_that_was_asked_for_is_none() {
    let (mut stage, mut written) = shown(120, 36);
    written.step(1);
    let alert = Alert {
        rule: "value_drift".into(),
        level: AlertLevel::Warning,
        step: 1,
        sentence: "Values drift.".into(),
        ..Alert::default()
    };
    written.append(alert);
    written.send(&mut stage);
    let bottom = |stage: &Stage| stage.screen().lines().last().unwrap_or_default().to_owned();
    assert!(
        bottom(&stage).starts_with(" ▲ ") && bottom(&stage).contains("value drift: Values drift."),
        "{}",
        bottom(&stage)
    );
    stage.keys("esc");
    let cause = "stopped after step 1, at your request";
    written
        .worker
        .state()
        .status(Status::Interrupted, 1, Some(Cause::requested(cause)))
        .unwrap();
    written.send(&mut stage);
    let line = bottom(&stage);
    assert!(
        line.starts_with(" ✓ ") && line.contains(&format!("interrupted: {cause}")),
        "{line}"
    );
    assert!(
        stage.shows("■ interrupted: stopped after step 1, at your request"),
        "{}",
        stage.screen()
    );
}

#[test]
fn runs_over_the_chart_keep_all_their_curves() {
    let (mut stage, mut written) = shown(160, 48);
    (1..=6).for_each(|step| written.step(step));
    written.send(&mut stage);
    let other = super::runs::copy_run(
        &stage.folder.path().join("runs"),
        "20261120-143041-invoice-6sx3dn",
        "",
        "finished",
    );
    stage.model.shared.overlay.push(other.clone());
    stage.act(|model| shared::follow(&mut model.shared, other));
    let legend = |stage: &Stage| {
        stage
            .screen()
            .lines()
            .find(|line| line.contains("6sx3dn valid"))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        legend(&stage).contains("━ reward ") && legend(&stage).contains("╍ valid "),
        "{}",
        stage.screen()
    );
    assert!(
        legend(&stage).contains("┉ 6sx3dn ") && legend(&stage).contains("╌ 6sx3dn valid "),
        "{}",
        legend(&stage)
    );
}

/// A step that could not be read is tried again, also where nothing more is written.
#[test]
fn texts_that_could_not_be_read_come_once_they_can() {
    let (mut stage, mut written) = shown(120, 36);
    written.step(1);
    let file = written.path().join("rollouts/000100.jsonl");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, [&whole[..whole.len() / 2], b"\n"].concat()).unwrap();
    written.send(&mut stage);
    assert!(
        stage.shows("cannot read completions of step 1") && !stage.shows("Nordhaven"),
        "{}",
        stage.screen()
    );
    std::fs::write(&file, &whole).unwrap();
    stage.tick_after(1_000);
    assert!(
        stage.shows("Nordhaven") && !stage.shows("cannot read completions of step 1"),
        "{}",
        stage.screen()
    );
}

/// Groups of steps that the fold has dropped come from the rollouts; kinds of failure are counted there where the log
/// tells none.
#[test]
fn steps_long_past_are_read_from_the_rollouts() {
    let (mut stage, mut written) = shown(160, 48);
    (1..=70).for_each(|step| written.step(step));
    written.send(&mut stage);
    assert!(
        !stage
            .model
            .shared
            .followed
            .get(&written.path())
            .unwrap()
            .history
            .groups
            .contains_key(&1)
    );
    stage.keys("home");
    let screen = stage.screen();
    for expected in [
        "groups of step 1 ",
        "p001",
        "zero variance",
        "Nordhaven",
        "wrong type",
        "prose",
    ] {
        assert!(
            screen.contains(expected),
            "{expected} is missing:\n{screen}"
        );
    }
}
