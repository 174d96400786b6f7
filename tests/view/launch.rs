//! The launch screen: the form, the forecast and the start; the program behind it is a script that answers what the
//! real one once did.

mod start;

use std::fmt::Write;
use std::path::Path;

use crossterm::event::MouseEventKind;
use grpo_tui::config::Source;
use grpo_tui::view::Options;
use grpo_tui::view::Screen;
use grpo_tui::view::screens::launch;

use super::harness::{Stage, finished_run};

/// A program that writes down its arguments and does what the script says.
pub(super) fn answering(options: &mut Options, script: &str) {
    let text = format!(
        "printf '%s\\n' \"$@\" > '{}'\n{script}",
        options.here.join("arguments").display()
    );
    options.program = super::harness::script(&options.here.join("program"), &text);
}

/// A program that writes down its arguments and answers what `train invoice --plan --json` and `--plan --sample --json`
/// printed, recorded with the release build on two cores.
pub(super) fn forecasting(options: &mut Options) {
    options.program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/view/recorded/program");
}

fn stage(columns: u16, rows: u16) -> Stage {
    let mut stage = Stage::with(columns, rows, forecasting);
    stage.keys("f5");
    stage
}

pub(super) fn arguments(stage: &Stage) -> Vec<String> {
    let text = std::fs::read_to_string(stage.folder.path().join("arguments")).unwrap();
    text.replace(&stage.folder.path().display().to_string(), "FOLDER")
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Puts the cursor on a row.
pub(super) fn go_to(stage: &mut Stage, title: &str) {
    let rows = launch::rows(&stage.model.launch);
    let place = rows
        .iter()
        .position(|row| row.title() == title)
        .unwrap_or_else(|| panic!("no row {title}"));
    stage.keys("g");
    for _ in 0..place {
        stage.keys("j");
    }
}

pub(super) fn value(stage: &Stage, name: &str) -> (String, Source) {
    let key = grpo_tui::config::Key::find(name).unwrap();
    (
        launch::value(&stage.model.launch, key),
        launch::source(&stage.model.launch, key),
    )
}

#[test]
fn the_list_of_tasks_opens_once_they_are_found() {
    let mut stage = Stage::with(120, 36, forecasting);
    assert!(stage.model.launch.context.is_none());
    stage.keys("ctrl-p").types("open task").keys("enter");
    assert!(
        stage.shows("▸ Task ") && stage.shows("tool-calls"),
        "{}",
        stage.screen()
    );
    stage.types("sql").keys("enter");
    assert_eq!(stage.model.shared.task.as_ref().unwrap().task.name, "sql");
}

#[test]
fn the_form_shows_what_the_layers_give() {
    let mut stage = stage(120, 36);
    let check = |stage: &Stage, name: &str, expected: &str, source: Source| {
        assert_eq!(value(stage, name), (expected.to_owned(), source), "{name}");
    };
    check(&stage, "base_model", "tiny", Source::Default);
    check(&stage, "max_steps", "40", Source::Task);
    check(&stage, "learning_rate", "1e-4", Source::Task);
    check(&stage, "eps_clip_high", "0.2", Source::Default);
    // A preset stands below the task.
    stage.keys("p");
    check(&stage, "prompt_groups_per_step", "4", Source::Preset);
    check(&stage, "max_steps", "40", Source::Task);
    // A choice cycles, and what follows from it is seen at once.
    go_to(&mut stage, "policy_loss");
    stage.keys("right right right");
    check(&stage, "policy_loss", "dapo", Source::Set);
    check(&stage, "eps_clip_high", "0.28", Source::Derived);
    stage.keys("left left left");
    check(&stage, "policy_loss", "grpo", Source::Default);
    stage.keys("U");
    check(&stage, "prompt_groups_per_step", "8", Source::Default);
}

#[test]
fn a_value_is_checked_while_it_is_typed() {
    let mut stage = stage(120, 36);
    go_to(&mut stage, "lora_rank");
    stage.keys("enter ctrl-u").types("99999");
    assert!(
        stage.shows("must be a whole number from 0 to 4096"),
        "{}",
        stage.screen()
    );
    stage.keys("enter");
    assert_eq!(
        value(&stage, "lora_rank").0,
        "0",
        "a wrong value is not taken"
    );
    stage.keys("ctrl-u").types("8").keys("enter");
    assert_eq!(value(&stage, "lora_rank"), ("8".to_owned(), Source::Set));
    // Escape leaves what was; what the layers below give is no change.
    stage.keys("enter").types("7").keys("esc");
    assert_eq!(value(&stage, "lora_rank"), ("8".to_owned(), Source::Set));
    stage.keys("enter ctrl-u").types("0").keys("enter");
    assert_eq!(value(&stage, "lora_rank"), ("0".to_owned(), Source::Task));
    stage
        .keys("enter ctrl-u")
        .types("4")
        .keys("enter backspace");
    assert_eq!(value(&stage, "lora_rank"), ("0".to_owned(), Source::Task));
    // The wheel leaves the row whose value is edited.
    stage.keys("enter ctrl-u").types("16");
    stage.mouse(MouseEventKind::ScrollDown, 5, 10);
    stage.keys("enter");
    assert_eq!(value(&stage, "lora_rank"), ("16".to_owned(), Source::Set));
    stage.keys("backspace");
    // Two values that do not go together are said, and nothing starts.
    go_to(&mut stage, "max_completion_tokens");
    stage.keys("enter ctrl-u").types("512");
    assert!(stage.shows("leaves no tokens for"), "{}", stage.screen());
    stage.keys("enter L");
    assert!(
        stage
            .model
            .shared
            .notices
            .all()
            .last()
            .unwrap()
            .text
            .contains("leaves no tokens for"),
        "{}",
        stage.screen()
    );
    stage.keys("g");
    assert!(stage.shows("cannot start: see right"), "{}", stage.screen());
    assert!(
        !stage.folder.path().join("arguments").exists(),
        "a form that does not hold together was started"
    );
}

#[test]
fn filters_show_what_is_looked_for() {
    let mut stage = stage(120, 36);
    let rows = |stage: &Stage| {
        launch::rows(&stage.model.launch)
            .iter()
            .map(|row| row.title())
            .collect::<Vec<_>>()
    };
    stage.keys("/").types("warm").keys("enter");
    assert_eq!(
        rows(&stage),
        ["learning_rate", "learning_rate_schedule", "warmup_steps"]
    );
    stage.keys("esc o");
    assert_eq!(
        rows(&stage)[..6],
        [
            "start",
            "preset",
            "task",
            "other tasks",
            "run name",
            "device"
        ]
    );
    assert_eq!(
        rows(&stage)[6..].join(" "),
        "max_steps max_completion_tokens max_seq_len advantage lora_rank learning_rate learning_rate_schedule eval_every tokens_per_micro_batch"
    );
    stage.keys("esc /").types("zzz");
    assert_eq!(rows(&stage), [""; 0]);
    assert!(stage.shows("No settings match; esc clears the filter."));
    stage.keys("esc");
    assert!(rows(&stage).len() > 20);
    // What is typed goes first, then what else hides rows.
    stage.keys("o /").types("lora").keys("esc");
    assert_eq!(rows(&stage).len(), 15);
    stage.keys("esc");
    assert!(rows(&stage).len() > 20);
}

#[test]
fn advanced_settings_are_folded_by_section() {
    let mut stage = stage(120, 36);
    let rows = |stage: &Stage| {
        launch::rows(&stage.model.launch)
            .iter()
            .map(|row| row.title())
            .collect::<Vec<_>>()
    };
    let selected = |stage: &Stage| rows(stage)[stage.model.launch.cursor.index];
    let all = rows(&stage).len();
    assert!(!rows(&stage).contains(&"weight_decay") && rows(&stage).contains(&"learning_rate"));
    assert!(
        stage.shows("rollouts               ▸ 6 more, 1 changed"),
        "{}",
        stage.screen()
    );
    assert!(
        stage.shows("policy update          ▸ 25 more, 2 changed"),
        "{}",
        stage.screen()
    );
    // From a key of the section, and back.
    go_to(&mut stage, "learning_rate");
    stage.keys("a");
    assert_eq!(
        (selected(&stage), rows(&stage).len()),
        ("policy update", all + 25)
    );
    assert!(
        stage.shows("policy update          ▾ 25 more") && rows(&stage).contains(&"weight_decay")
    );
    go_to(&mut stage, "weight_decay");
    stage.keys("enter ctrl-u").types("0.1").keys("enter a");
    assert_eq!(
        (selected(&stage), rows(&stage).len()),
        ("policy update", all)
    );
    assert!(
        stage.shows("policy update          ▸ 25 more, 3 changed"),
        "{}",
        stage.screen()
    );
    // The selected section lists what it hides.
    assert!(stage.shows("weight_decay 0.1"), "{}", stage.screen());
    stage.keys("enter");
    assert_eq!(rows(&stage).len(), all + 25);
    stage.keys("left left right left");
    assert_eq!(rows(&stage).len(), all);
    // A click toggles, wherever the cursor was.
    let line = stage
        .screen()
        .lines()
        .position(|line| line.contains("eval and checkpoints"))
        .unwrap() as u16;
    stage.keys("g");
    stage.click(5, line);
    assert_eq!(
        (selected(&stage), rows(&stage).len()),
        ("eval and checkpoints", all + 3)
    );
    stage.keys("A A");
    assert_eq!(
        (selected(&stage), rows(&stage).len()),
        ("eval and checkpoints", all)
    );
    stage.keys("A");
    assert_eq!(rows(&stage).len(), 6 + 6 + grpo_tui::config::KEYS.len());
    stage.keys("A /").types("weight_decay").keys("enter");
    assert_eq!(
        rows(&stage),
        ["weight_decay", "decay_norms_and_biases"],
        "a filter finds what is folded"
    );
    stage.keys("a");
    assert!(stage.shows("a filter is active"), "{}", stage.screen());
}

#[test]
fn the_forecast_says_all_before_its_details() {
    let mut stage = stage(120, 36);
    stage.keys("t");
    let lines = stage.screen();
    let place = |text: &str| lines.lines().position(|line| line.contains(text));
    assert!(
        place("learnability: ") < place("preflight"),
        "what was asked for comes first:\n{lines}"
    );
    for text in [
        "time    about 55 s without evals: run k7f3a2 took",
        "memory  ",
        "learnability: ",
    ] {
        assert!(stage.shows(text), "{text}\n{}", stage.screen());
    }
}

#[test]
fn a_forecast_is_made_and_goes_stale() {
    let mut stage = stage(160, 48);
    stage.keys("f");
    assert_eq!(
        arguments(&stage),
        [
            "train",
            "invoice",
            "--runs",
            "FOLDER/runs",
            "--plan",
            "--json"
        ]
    );
    assert!(
        stage.shows("40 steps on cpu, 2 threads")
            && stage.shows("187 MB of 25.3 GB")
            && stage.shows("about 55 s without evals"),
        "{}",
        stage.screen()
    );
    assert!(!stage.shows("stale") && stage.model.launch.signal.is_none());
    go_to(&mut stage, "seed");
    stage.keys("enter ctrl-u").types("5").keys("enter");
    assert!(
        stage.shows("stale: settings changed; f updates"),
        "{}",
        stage.screen()
    );
    stage.keys("t");
    assert!(
        arguments(&stage)
            .join(" ")
            .ends_with("--set seed=5 --runs FOLDER/runs --plan --json --sample"),
        "{:?}",
        arguments(&stage)
    );
    assert!(!stage.shows("stale"));
    assert!(format!("{:?}", stage.model.launch.signal).contains("about 5.5 of the 8 groups"));
    // A name changes nothing that was measured.
    go_to(&mut stage, "run name");
    stage.keys("enter").types("x").keys("enter");
    assert!(!stage.shows("stale"));
}

#[test]
fn what_went_wrong_is_said_with_the_programs_own_words() {
    let check = |script: &str, key: &str, expected: &[&str]| {
        let mut stage = Stage::with(120, 36, |options| answering(options, script));
        stage.keys("f5").keys(key);
        for part in expected {
            assert!(
                stage.shows(part),
                "{script}: {part} is not shown\n{}",
                stage.screen()
            );
        }
        assert_eq!(stage.model.shared.screen, Screen::Launch);
    };
    check(
        "echo 'error: model `x` was not found' >&2; exit 1",
        "f",
        &["forecast failed: model `x` was", "not found"],
    );
    check("echo not-json", "f", &["cannot parse the forecast"]);
    check(
        "echo 'error: the worker ended: no GPU 3' >&2; exit 1",
        "L",
        &["run not started: the worker ended: no GPU 3"],
    );
    check("echo '{}'", "L", &["returned no run id"]);
    let too_large = r#"echo '{"fits":false,"why":"weights of 16 GB do not fit","memory":{"parts":[{"name":"weights","phase":"always","bytes":16000000000}],"peak_bytes":16000000000,"peak_recomputed_bytes":16000000000,"machine_bytes":8000000000}}'; exit 1"#;
    check(
        too_large,
        "f",
        &["weights of 16 GB do not fit", "(200%), too big"],
    );
}

#[test]
fn what_is_typed_takes_the_place_of_the_value() {
    let mut stage = stage(120, 36);
    go_to(&mut stage, "learning_rate");
    stage.keys("enter").types("5e-4").keys("enter");
    assert_eq!(value(&stage, "learning_rate").0, "5e-4");
    stage.keys("enter end backspace").types("3").keys("enter");
    assert_eq!(value(&stage, "learning_rate").0, "5e-3");
}

/// The line below START, as it stands there.
pub(super) fn printed(stage: &mut Stage) -> String {
    stage.send(grpo_tui::view::Message::Resize(300, 60));
    stage.keys("g");
    let screen = stage.screen();
    let at = screen
        .split("grpo-tui train")
        .next()
        .unwrap()
        .rsplit('│')
        .next()
        .unwrap()
        .to_owned();
    let rest = screen
        .split("grpo-tui train")
        .nth(1)
        .unwrap()
        .split('│')
        .next()
        .unwrap()
        .trim_end();
    format!("{}grpo-tui train{rest}", at.trim_start())
}

#[test]
fn files_of_the_task_that_changed_are_differences_to_the_last_run() {
    let mut stage = Stage::with(160, 48, |options| {
        let runs = options.here.join("runs");
        let run = super::runs::copy_run(&runs, "20261120-143041-invoice-6sx3dn", "", "finished");
        let folder = options.here.join("tasks/invoice");
        std::fs::create_dir_all(&folder).unwrap();
        for entry in std::fs::read_dir(run.join("task")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    });
    stage.keys("f5");
    assert!(
        !stage.shows("schema.json ") && !stage.shows("train.jsonl "),
        "the task is as it was:\n{}",
        stage.screen()
    );
    let train = stage.folder.path().join("tasks/invoice/train.jsonl");
    let text = std::fs::read_to_string(&train).unwrap();
    std::fs::write(
        &train,
        text.split_inclusive('\n').skip(1).collect::<String>(),
    )
    .unwrap();
    stage.keys("f2 enter").types(" ").keys("esc w f5");
    let digest = |name: &str| {
        let bytes =
            |folder: &str| std::fs::read(stage.folder.path().join(folder).join(name)).unwrap();
        let short = |folder: &str| grpo_tui::run::sha256(&bytes(folder))[..8].to_owned();
        format!(
            "{name} {} → {}",
            short("runs/20261120-143041-invoice-6sx3dn/task"),
            short("tasks/invoice")
        )
    };
    for name in ["schema.json", "train.jsonl"] {
        assert!(
            stage.shows(&digest(name)),
            "{}:\n{}",
            digest(name),
            stage.screen()
        );
    }
    assert!(stage.shows("(rows: 1 removed)"), "{}", stage.screen());
    assert!(!stage.shows("eval.jsonl "), "{}", stage.screen());
}

#[test]
fn models_and_tasks_are_chosen_from_lists() {
    let mut stage = Stage::with(120, 36, |options| {
        let model = options.here.join("models/mine");
        std::fs::create_dir_all(&model).unwrap();
        std::fs::write(model.join("config.json"), "{}").unwrap();
        std::fs::write(model.join("model.safetensors"), "").unwrap();
        for name in ["one", "two"] {
            let folder = options.here.join("tasks").join(name);
            crate::program::sample_task(&folder, crate::program::ALL);
            super::runs::change(
                &folder.join("task.toml"),
                &[("name = \"invoice\"", &format!("name = \"{name}\""))],
            );
        }
        let runs = options.here.join("runs");
        std::fs::create_dir_all(&runs).unwrap();
        std::os::unix::fs::symlink(finished_run(), runs.join("20261120-143041-invoice-6sx3dn"))
            .unwrap();
        forecasting(options);
    });
    stage.keys("f5 m");
    assert!(
        stage.shows("Base model") && stage.shows("embedded"),
        "{}",
        stage.screen()
    );
    stage.types("@best").keys("enter");
    let (chosen, source) = value(&stage, "base_model");
    assert!(
        chosen.ends_with("runs/20261120-143041-invoice-6sx3dn@best") && source == Source::Set,
        "{chosen}"
    );
    // The task's values for `tiny` hold for what came from it, too.
    assert_eq!(value(&stage, "max_steps"), ("40".to_owned(), Source::Task));
    stage.keys("m").types("mine").keys("enter");
    assert!(stage.shows("unusable"), "{}", stage.screen());
    stage.keys("m").types("org/other").keys("enter");
    assert_eq!(value(&stage, "base_model").0, "org/other");
    assert_eq!(value(&stage, "max_steps").0, "0");
    stage.keys("m").types("/some/nope").keys("enter");
    assert!(
        stage.shows("no model or run `/some/nope`") && stage.shows(" /some/nope "),
        "{}",
        stage.screen()
    );
    assert!(stage.shows("preflight: 1 error"), "{}", stage.screen());
    // Scores had another source of the last task: the new one shows its own samples.
    stage.keys("f4 a").types("{}").keys("esc f5");
    stage.keys("c").types("two").keys("enter");
    assert_eq!(stage.model.shared.task.as_ref().unwrap().task.name, "two");
    assert_eq!(
        stage.model.scores.source,
        grpo_tui::view::screens::scores::Source::Samples
    );
}

#[test]
fn the_last_run_of_the_task_is_compared() {
    let mut stage = Stage::with(160, 48, |options| {
        let runs = options.here.join("runs");
        std::fs::create_dir_all(&runs).unwrap();
        std::os::unix::fs::symlink(finished_run(), runs.join("20261120-143041-invoice-6sx3dn"))
            .unwrap();
    });
    stage.keys("f5");
    assert!(
        stage.shows("diff to last run, 20261120-143041-invoice-6sx3dn"),
        "{}",
        stage.screen()
    );
    assert!(
        stage.shows("learning_rate 1.5e-3 → 1e-4") || stage.shows("learning_rate 0.0015 → 1e-4"),
        "{}",
        stage.screen()
    );
    assert!(!stage.shows("temperature 1"));
}

#[test]
fn pictures() {
    let mut shown = String::new();
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = stage(columns, rows);
        write!(
            shown,
            "===== {columns}x{rows}, as it is entered\n{}\n",
            stage.screen()
        )
        .unwrap();
        stage.keys("t");
        go_to(&mut stage, "learning_rate");
        stage.keys("enter ctrl-u").types("2e");
        write!(
            shown,
            "===== {columns}x{rows}, a forecast, and a value under edit\n{}\n",
            stage.screen()
        )
        .unwrap();
        stage.keys("esc tab");
        write!(
            shown,
            "===== {columns}x{rows}, in the forecast\n{}\n",
            stage.screen()
        )
        .unwrap();
        stage.keys("m");
        write!(
            shown,
            "===== {columns}x{rows}, models\n{}\n",
            stage.screen()
        )
        .unwrap();
    }
    insta::assert_snapshot!(shown);
}

#[cfg(feature = "engine")]
#[test]
fn the_program_itself_answers() {
    let mut stage = Stage::with(160, 48, |options| {
        options.program = crate::program::PROGRAM.into()
    });
    stage.keys("f5");
    go_to(&mut stage, "max_steps");
    stage.keys("enter ctrl-u").types("1").keys("enter f");
    let forecast = &stage
        .model
        .launch
        .forecast
        .as_ref()
        .unwrap_or_else(|| panic!("{}", stage.screen()))
        .value;
    assert!(
        forecast.size.as_ref().is_some_and(|size| size.steps == 1)
            && forecast.memory.peak_bytes > 1 << 20
            && forecast.pace.is_none(),
        "{forecast:?}"
    );
    // A launch that cannot be is refused in the program's own words, and leaves nothing.
    stage.keys("m").types("no/such-model").keys("enter L");
    assert!(
        stage.shows("base model: no model or run `no/such-model`"),
        "{}",
        stage.screen()
    );
    stage.keys("y");
    assert!(
        stage.shows("run not started: no model or run `no/such-model`"),
        "{}",
        stage.screen()
    );
    assert!(stage.model.shared.options.run_folders.list().is_empty());
}
