//! Evals started from the screen, in this session and in earlier ones.

use super::*;

/// An eval that is started from here goes on by itself; its result is picked up from its folder.
#[test]
fn an_eval_is_started_and_its_result_comes() {
    let mut stage = stage(120, 36);
    let folder = stage.folder.path().to_owned();
    let program = |script: &str| {
        let text = format!(
            "echo \"$@\" > {}/arguments\nfor last; do :; done\n{script}",
            folder.display()
        );
        super::super::harness::script(&folder.join("program"), &text)
    };
    let evals = finished_run().join("evals");
    let copy = format!(
        "mkdir -p $last/evals && cp -r $2 $last/task && cp {0}/step-000000-proof-base.jsonl $last/evals/ \
         && cp {0}/step-000030-proof-trained.jsonl $last/evals/step-000000-proof-trained.jsonl && echo 'trained: 100 prompts' >&2 && echo '{{}}' > $last/eval.json",
        evals.display()
    );
    stage.model.shared.options.program = program(&copy);
    stage.keys("E");
    assert!(stage.shows("Prompt set: "));
    stage.keys("enter");
    assert!(
        stage.shows("100 prompts of invoice, two models") && stage.shows("up to"),
        "what it costs is said first: {}",
        stage.screen()
    );
    stage.keys("y");
    wait(&mut stage, "eval finished");
    let arguments = std::fs::read_to_string(folder.join("arguments")).unwrap();
    let run = folder.join("runs").join(ID);
    let expected = format!(
        "eval {0}/task --model base=tiny --model trained={0}@best --on test --json --out {1}/data/evals/",
        run.display(),
        folder.display()
    );
    assert!(arguments.starts_with(&expected), "{arguments}");
    assert!(stage.shows("base → trained"), "{}", stage.screen());
    // It can be chosen again later.
    stage.keys("o G");
    assert!(stage.shows("eval  20270115-"), "{}", stage.screen());
    stage.keys("esc");
    stage.now_ms += 5_000;
    stage.model.shared.options.program = program("echo 'error: no such model' >&2; exit 1");
    stage.keys("E enter y");
    wait(&mut stage, "eval failed: no such model");
}

#[test]
fn an_eval_of_an_earlier_session_is_found_and_watched() {
    let mut stage = stage_after(160, 48, |data| {
        let going = data.join("evals/20270115-080000-6sx3dn");
        std::fs::create_dir_all(&going).unwrap();
        std::fs::write(going.join("log"), "trained: 30 of 100 prompts\n").unwrap();
        std::fs::create_dir_all(data.join("evals/20270115-090000-6sx3dn")).unwrap();
        Some(grpo_tui::run::RunLock::acquire(&going).unwrap())
    });
    let second = |stage: &mut Stage| {
        stage.tick_after(1_000);
    };
    second(&mut stage.0);
    assert!(
        stage.0.shows("eval running: trained: 30 of 100 prompts"),
        "{}",
        stage.0.screen()
    );
    stage.0.keys("E");
    assert!(
        stage.0.shows("an eval is already running"),
        "{}",
        stage.0.screen()
    );
    drop(stage.1.take());
    second(&mut stage.0);
    assert!(
        stage.0.shows("eval failed: no result; last line of "),
        "{}",
        stage.0.screen()
    );
}
