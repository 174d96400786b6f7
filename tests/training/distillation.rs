//! Completions are distilled towards a teacher, with and without rewards.

use grpo_tui::run::{RunState, read_step};
use grpo_tui::train::Ended;

use super::guided::write_hopeless;
use super::small_task::{create, create_of, work};
use crate::program::{NANO, call, sample_data, stderr};

const DISTILL: [&str; 3] = ["method=distill", "lora_rank=4", "learning_rate=5e-3"];

/// No answer is valid, so no reward differs; what each token teaches is recorded apart from the rewards' advantages.
#[test]
fn a_teacher_teaches_where_rewards_are_equal() {
    let folder = tempfile::tempdir().unwrap();
    let task = write_hopeless(folder.path(), true);
    let run = create_of(
        &task,
        folder.path(),
        &[&DISTILL[..], &["teacher=expected", "max_steps=2"]].concat(),
    );
    assert!(matches!(work(&run, |_| false).unwrap(), Ended::Finished(_)));
    let state = RunState::read(run.path()).unwrap();
    let metric = |name: &str| state.metrics[name].at(1).unwrap();
    assert!(metric("distill/reverse_kl") > 0.0 && metric("grad_norm") > 0.0);
    assert_eq!(metric("groups/frac_guided"), 0.0);
    for group in state.groups[&1].values() {
        assert!(
            group.advantages.iter().all(|advantage| *advantage == 0.0),
            "{group:?}"
        );
    }
    assert_eq!(read_step(run.path(), 1).unwrap().len(), 3);
}

/// Exactly 0 to its own weights, with adapters and in an interval; not to those of other models.
#[test]
fn the_reverse_kl_is_of_the_teacher() {
    let folder = tempfile::tempdir().unwrap();
    let trained = |name: &str, set: &[&str]| {
        let run = create(
            &folder.path().join(name),
            &[&["eval_every=0", "temperature=0.9"], set].concat(),
        );
        assert!(matches!(work(&run, |_| false).unwrap(), Ended::Finished(_)));
        (run.path().to_owned(), RunState::read(run.path()).unwrap())
    };
    let reverse_kl = |state: &RunState| state.metrics["distill/reverse_kl"].values().to_vec();
    let still = ["learning_rate=0", "weight_sync_interval=3"];
    let itself = format!("teacher={NANO}");
    let (_, state) = trained(
        "itself",
        &[&DISTILL[..], &[itself.as_str()], &still].concat(),
    );
    assert_eq!(reverse_kl(&state), [0.0; 6]);
    let (teacher, _) = trained(
        "teacher",
        &[
            "method=sft",
            "max_steps=4",
            "lora_rank=4",
            "learning_rate=5e-3",
        ],
    );
    let teacher = format!("teacher={}@4", teacher.display());
    // Without its adapter the teacher would be the student itself.
    let (_, state) = trained(
        "adapter",
        &[&DISTILL[..], &[&teacher, "max_steps=1"]].concat(),
    );
    assert!(reverse_kl(&state)[0] != 0.0);
    let (_, state) = trained(
        "other",
        &[&DISTILL[..], &["teacher=tiny-sql", "max_steps=1"]].concat(),
    );
    assert!(reverse_kl(&state)[0] > 1.0 && state.metrics["grad_norm"].at(1).unwrap() > 0.0);
    let (_, both) = trained("both", &["distill_coef=0.1", &teacher, "max_steps=1"]);
    assert!(both.metrics["distill/reverse_kl"].at(1).unwrap() > 0.0);
    assert!(
        both.groups[&1]
            .values()
            .flat_map(|group| &group.advantages)
            .any(|advantage| *advantage != 0.0)
    );
}

#[test]
fn what_cannot_teach_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let task = write_hopeless(folder.path(), false);
    let run = create_of(
        &task,
        folder.path(),
        &[&DISTILL[..], &["teacher=expected"]].concat(),
    );
    let error = work(&run, |_| false).unwrap_err().to_string();
    let expected = "task.toml has one turn and an `expected` value that fits the model";
    assert!(
        error.starts_with("teacher = expected: no training row of ") && error.contains(expected),
        "{error}"
    );
    // The test model with two tokens exchanged.
    let other = folder.path().join("other");
    crate::program::pretrain("invoice", &other, &["--from", NANO, "--updates", "0"]);
    let file = folder.path().join("other/tokenizer.json");
    let text = std::fs::read_to_string(sample_data("models/tiny/tokenizer.json")).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let named = |id: u64| {
        vocabulary
            .iter()
            .find(|(_, found)| found.as_u64() == Some(id))
            .unwrap()
            .0
            .clone()
    };
    let (one, other) = (named(40), named(41));
    vocabulary.insert(one.clone(), 41.into());
    vocabulary.insert(other.clone(), 40.into());
    std::fs::write(file, tokenizer.to_string()).unwrap();
    let train = "train invoice --cpu --method distill --set teacher=./other --set base_model=";
    let train = format!("{train}{NANO}");
    let train: Vec<&str> = train.split(' ').collect();
    let refused = call(folder.path(), &train);
    let expected = format!("token 40 is `{other}`, in the model to train `{one}`");
    assert!(
        stderr(&refused).contains(&expected) && !refused.status.success(),
        "{}",
        stderr(&refused)
    );
}
