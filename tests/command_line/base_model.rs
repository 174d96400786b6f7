//! Tests: a training whose base model is an adapter folder or another run.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{finished, target};
use crate::program::{SHORT, call, call_in_process, json, sample_data, small_task, stderr, stdout};

/// What a run's `run.toml` says of a key, and where it came from.
fn configured(run: &Path, key: &str) -> (String, String) {
    let file: toml::Table = fs::read_to_string(run.join("run.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let text = |table: &str| {
        file[table].get(key).map_or_else(String::new, |value| {
            value.to_string().trim_matches('"').to_owned()
        })
    };
    (text("config"), text("sources"))
}

#[test]
fn an_adapter_folder_is_evaluated_sampled_and_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    small_task(here);
    let train = |more: &[&str]| {
        call(
            here,
            &[
                &["train", "task", "--runs", "runs", "--json"],
                &SHORT[..],
                more,
            ]
            .concat(),
        )
    };
    let first = json(&train(&[
        "--name",
        "lora",
        "--set",
        "lora_rank=4",
        "--set",
        "learning_rate=1e-2",
        "--set",
        "guided=false",
        "--set",
        "learning_rate_schedule=constant",
    ]));
    let step = first["best_step"].as_u64().unwrap().max(1);
    let checkpoint = format!(
        "{}/checkpoints/step-{step:06}",
        first["path"].as_str().unwrap()
    );
    stdout(&call_in_process(
        here,
        &[
            "model",
            "export",
            "--model",
            "tiny",
            "--adapter",
            &checkpoint,
            "--out",
            "adapter",
        ],
    ));
    assert!(
        here.join("adapter/adapter_config.json").is_file()
            && !here.join("adapter/config.json").exists()
    );
    // The adapter on its base is the run's result.
    let of_run = format!("run=lora@{step}");
    let eval = json(&call(
        here,
        &[
            "eval",
            "task",
            "--runs",
            "runs",
            "--model",
            &of_run,
            "--model",
            "adapter=adapter",
            "--json",
        ],
    ));
    assert_eq!(target(&eval, "adapter"), target(&eval, "run"));
    assert_eq!(eval["max_completion_tokens"], 96);
    let sample = |model: &str| {
        stdout(&call(
            here,
            &[
                "sample", "task", "--runs", "runs", "--model", model, "--n", "2", "--json",
            ],
        ))
    };
    assert_eq!(sample("adapter"), sample(&format!("lora@{step}")));
    // As a start it is the base, under the defaults of the model that it stands beside.
    let second = json(&train(&["--model", "adapter"]));
    assert_eq!(second["base"], target(&eval, "adapter"));
    let run = Path::new(second["path"].as_str().unwrap());
    assert_eq!(
        configured(run, "base_model").0,
        here.join("adapter")
            .canonicalize()
            .unwrap()
            .display()
            .to_string()
    );
    assert_eq!(
        configured(run, "lora_rank"),
        ("0".to_owned(), "task".to_owned())
    );
    // The base by the path of its folder, and what is said where it is not to be found.
    let config = here.join("adapter/adapter_config.json");
    let name_base = |base: Option<&str>| {
        let mut value: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        value["base_model_name_or_path"] = base.map_or(Value::Null, Value::from);
        fs::write(&config, value.to_string()).unwrap();
    };
    let model = sample_data("models/tiny");
    name_base(model.to_str());
    let by_path = json(&call(
        here,
        &["eval", "task", "--model", "adapter", "--json"],
    ));
    assert_eq!(target(&by_path, "adapter"), target(&eval, "adapter"));
    for (base, complaint) in [
        (
            Some("models/elsewhere"),
            "error: adapter adapter: its base `models/elsewhere` (`base_model_name_or_path` in adapter_config.json) cannot be used: ",
        ),
        (
            Some("models/elsewhere"),
            "; put the base there, or write its folder or name into adapter_config.json\n",
        ),
        (
            Some("adapter"),
            "adapter_config.json: its base `adapter` is an adapter too; merge that one first",
        ),
        (
            None,
            "adapter_config.json: `base_model_name_or_path` is missing; write the base model's name",
        ),
    ] {
        name_base(base);
        for arguments in [
            &["eval", "task", "--model", "adapter"][..],
            &["sample", "task", "--model", "adapter"],
            &["train", "task", "--model", "adapter"],
        ] {
            let output = call_in_process(here, arguments);
            assert_eq!(
                output.status.code(),
                Some(1),
                "{arguments:?}: {}",
                stderr(&output)
            );
            assert!(
                stderr(&output).contains(complaint),
                "{arguments:?}: {}",
                stderr(&output)
            );
        }
    }
}

#[test]
fn a_run_is_the_start_of_another() {
    let (folder, report) = finished();
    let place = tempfile::tempdir().unwrap();
    let runs = place.path().to_str().unwrap();
    let model = format!("{}@2", report["path"].as_str().unwrap());
    let mut arguments = vec!["train", "task", "--runs", runs, "--model", &model, "--json"];
    arguments.extend(SHORT);
    arguments.extend(["--set", "lora_rank=4"]);
    let second = json(&call(folder, &arguments));
    let start = json(&call(
        folder,
        &[
            "eval",
            "task",
            "--runs",
            "runs",
            "--model",
            "m=short@2",
            "--json",
        ],
    ));
    assert_eq!(second["base"], target(&start, "m"));
    // The task's defaults for `tiny` hold for what came of it, and for what comes of that.
    let own = |run: &Value, key: &str| configured(Path::new(run["path"].as_str().unwrap()), key);
    let of_task = |value: &str| (value.to_owned(), "task".to_owned());
    assert_eq!(
        (
            own(&second, "max_completion_tokens"),
            own(&second, "max_seq_len")
        ),
        (of_task("96"), of_task("512"))
    );
    assert_eq!(
        own(&second, "lora_rank"),
        ("4".to_owned(), "set".to_owned())
    );
    let model = second["path"].as_str().unwrap();
    let third = json(&call(
        folder,
        &[
            &["train", "task", "--runs", runs, "--model", model, "--json"],
            &SHORT[..],
        ]
        .concat(),
    ));
    assert_eq!(
        (
            own(&third, "max_completion_tokens"),
            own(&third, "lora_rank")
        ),
        (of_task("96"), of_task("0"))
    );
}
