//! A finished run as a trainer leaves it, made up: for the commands that read one.

use std::collections::BTreeMap;
use std::path::Path;

use grpo_tui::run::events::{Alert, Checkpoint, Control, End, Eval, Group, Note, Run, Step};
use grpo_tui::run::{
    AgainstBase, EvalRecord, EvalSummary, EventWriter, NewRun, RolloutWriter, RunDirectory,
    RunLock, StateWriter, Status, checkpoint_path, eval_file, read_evals, write_evals,
};

use super::long_log::Noise;
use super::{new_run, rollout};
use grpo_tui::facts::{AlertLevel, SaveReason, Target, Tier, VerbName};

/// What one made-up run differs in from another.
pub(crate) struct Made<'a> {
    pub(crate) task: &'a str,
    pub(crate) name: &'a str,
    /// The valid rate at the end.
    pub(crate) valid: f64,
    pub(crate) status: Status,
    pub(crate) set: &'a [&'a str],
    /// Empty for those of [`new_run`].
    pub(crate) task_files: Vec<(String, Vec<u8>)>,
}

impl Default for Made<'_> {
    fn default() -> Self {
        Self {
            task: "invoice",
            name: "",
            valid: 0.9,
            status: Status::Finished,
            set: &[],
            task_files: Vec::new(),
        }
    }
}

/// 40 steps, an eval every 10, checkpoints at 0, 20 and 40, a proof before and after.
pub(crate) fn made(root: &Path, made: &Made<'_>) -> RunDirectory {
    let layers = grpo_tui::config::Layers {
        set: made.set.iter().map(|text| (*text).to_owned()).collect(),
        ..Default::default()
    };
    let resolved = layers.resolve().unwrap();
    let of_task = new_run(made.task);
    let task_files = match made.task_files.is_empty() {
        true => of_task.task_files.clone(),
        false => made.task_files.clone(),
    };
    let new = NewRun {
        task_files,
        name: made.name.into(),
        config: resolved.config,
        sources: resolved.sources,
        ..of_task
    };
    let run = RunDirectory::create(root, new).unwrap();
    let lock = RunLock::acquire(run.path()).unwrap();
    let mut state = StateWriter::start(&lock).unwrap();
    let mut events = EventWriter::open(&lock).unwrap();
    let mut rollouts = RolloutWriter::resume(&lock, 0).unwrap();
    let mut noise = Noise(7);
    events
        .append(Run {
            id: run.id().into(),
            device: "cpu <made up>".into(),
            total_steps: 40,
            ..Run::default()
        })
        .unwrap();
    write_eval(&run, &mut events, "test", "base", 0, 0.3);
    write_eval(&run, &mut events, "eval", "base", 0, 0.3);
    checkpoint(&run, &mut events, 0);
    for step in 1..=40u64 {
        let place = rollouts.append(&rollout(step, "p1")).unwrap();
        events
            .append(Group {
                step,
                prompt_id: "p1".into(),
                file: place.file,
                line: place.line,
                ..Group::default()
            })
            .unwrap();
        let progress = step as f64 / 40.0;
        let valid = 0.3 + (made.valid - 0.3) * progress;
        let metrics = BTreeMap::from([
            ("reward".to_owned(), valid + 0.2 * (noise.next() - 0.5)),
            ("reward_std".to_owned(), 0.4 - 0.3 * progress),
            ("tiers/valid".to_owned(), valid),
            ("tiers/invalid".to_owned(), 0.8 * (1.0 - valid)),
            ("tiers/unparsable".to_owned(), 0.2 * (1.0 - valid)),
            ("groups/frac_mixed".to_owned(), noise.next()),
            (
                "completions/mean_length".to_owned(),
                80.0 + 10.0 * noise.next(),
            ),
            (
                "grad_norm".to_owned(),
                if step == 17 {
                    f64::NAN
                } else {
                    0.1 + noise.next()
                },
            ),
            ("kl".to_owned(), 0.001 * step as f64),
        ]);
        events
            .append(Step {
                step,
                seconds: 1.5,
                metrics,
                ..Step::default()
            })
            .unwrap();
        if step % 10 == 0 {
            write_eval(&run, &mut events, "eval", "trained", step, valid);
        }
        if step % 20 == 0 {
            checkpoint(&run, &mut events, step);
        }
    }
    write_eval(&run, &mut events, "test", "trained", 40, made.valid);
    let arguments = BTreeMap::from([("learning_rate".to_owned(), serde_json::json!(1e-5))]);
    events
        .append(Control {
            verb: VerbName::Set,
            arguments,
            user_id: 1000,
            step: 12,
            ..Control::default()
        })
        .unwrap();
    events
        .append(Note {
            text: "looks <good> & steady".into(),
        })
        .unwrap();
    let sentence = "The gradient was not finite.".into();
    events
        .append(Alert {
            rule: "grad".into(),
            level: AlertLevel::Warning,
            step: 17,
            sentence,
            cleared: true,
            ..Alert::default()
        })
        .unwrap();
    if made.status.is_ended() {
        events
            .append(End {
                status: made.status,
                cause: "all steps done".into(),
                step: 40,
                seconds: 60.0,
            })
            .unwrap();
    }
    state
        .status(made.status, 40, Some("all steps done".into()))
        .unwrap();
    run
}

/// A held-out eval of 50 prompts of which the first `valid` share is right; one completion holds what looks like a
/// secret.
fn write_eval(
    run: &RunDirectory,
    events: &mut EventWriter,
    set: &str,
    target: &str,
    step: u64,
    valid: f64,
) {
    let records: Vec<EvalRecord> = (0..50)
        .map(|index| {
            let right = (index as f64) < 50.0 * valid;
            let completion = if right {
                "{\"vendor\": \"Müller & Söhne\"}".to_owned()
            } else {
                format!("<script>alert({index})</script> {}", secret())
            };
            EvalRecord {
                prompt_id: format!("invoice-{index:03}"),
                tags: vec![["clean", "messy"][index % 2].into()],
                completion,
                tier: if right { Tier::Valid } else { Tier::Unparsable },
                tolerant: right,
                exact: Some(right && index % 5 > 0),
                score: if right {
                    serde_json::json!({"errors": []})
                } else {
                    serde_json::json!({"errors": [{"message": "expected `{`"}]})
                },
                tokens: Some(80),
                ..EvalRecord::default()
            }
        })
        .collect();
    let file = eval_file(step, set, target);
    write_evals(&run.path().join(&file), &records).unwrap();
    let summary = EvalSummary::from_records(&records);
    let base = read_evals(&run.path().join(eval_file(0, set, "base"))).unwrap_or_default();
    let against_base = AgainstBase::between(&base, &records)
        .filter(|_| step > 0)
        .map(Box::new);
    let (set, target) = (set.into(), Target::from_name(target).unwrap());
    events
        .append(Eval {
            step,
            set,
            target,
            summary,
            file,
            seconds: 2.0,
            against_base,
            exact_against_best: None,
            look: None,
        })
        .unwrap();
}

fn checkpoint(run: &RunDirectory, events: &mut EventWriter, step: u64) {
    let path = checkpoint_path(run.path(), step);
    std::fs::create_dir(&path).unwrap();
    let files = [
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.safetensors",
        grpo_tui::run::CHECKPOINT_MARK,
    ];
    for file in files {
        let text = match file {
            grpo_tui::run::CHECKPOINT_MARK => "{}".to_owned(),
            file => format!("{file} of step {step}"),
        };
        std::fs::write(path.join(file), text).unwrap();
    }
    events
        .append(Checkpoint {
            step,
            path: grpo_tui::run::checkpoint_folder(step),
            bytes: 123,
            why: SaveReason::Interval,
            ..Checkpoint::default()
        })
        .unwrap();
}

/// Looks like a GitHub token and is none; put together here so that no scanner takes it for one.
pub(crate) fn secret() -> String {
    format!("ghp_{}", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8")
}
