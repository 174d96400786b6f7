//! Tests of the layers: who wins, what is derived, and every message as the user sees it.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

fn set(pairs: &[&str]) -> Layers {
    Layers {
        set: pairs.iter().map(|pair| (*pair).to_owned()).collect(),
        ..Layers::default()
    }
}

fn value(layers: &Layers, name: &str) -> (String, Source) {
    let resolved = layers.resolve().unwrap_or_else(|error| panic!("{error}"));
    let found = resolved
        .config
        .values()
        .into_iter()
        .find(|(key, _)| key == name)
        .unwrap()
        .1;
    let shown = found
        .as_str()
        .map_or_else(|| found.to_string(), str::to_owned);
    (shown, resolved.sources[name].clone())
}

/// The uppermost layer that sets `epochs` or `max_steps` decides.
#[test]
fn epochs_of_an_upper_layer_take_the_place_of_max_steps_below() {
    for (task, set, steps) in [
        ("max_steps = 30", &["epochs=1"][..], 0),
        ("max_steps = 30\nepochs = 2", &["epochs=1"], 0),
        ("max_steps = 30\nepochs = 2", &[], 30),
        ("max_steps = 30", &["epochs=0"], 30),
        ("max_steps = 30", &["epochs=1", "max_steps=5"], 5),
        ("max_steps = 30", &["max_steps=5", "epochs=1"], 5),
        ("epochs = 2", &["max_steps=5"], 5),
    ] {
        let layers = Layers {
            task: Some(Assignments::from_task("task.toml", &format!("[train]\n{task}")).unwrap()),
            set: set.iter().map(|text| (*text).to_owned()).collect(),
            ..Layers::default()
        };
        assert_eq!(
            layers.resolve().unwrap().config.max_steps,
            steps,
            "{task}, {set:?}"
        );
    }
    let quick = Layers {
        preset: Some(Preset::Quick),
        task: Some(Assignments::from_task("task.toml", "[train]\nepochs = 2").unwrap()),
        ..Layers::default()
    };
    assert_eq!(quick.resolve().unwrap().config.max_steps, 10);
}

#[test]
fn the_table_and_the_struct_have_the_same_keys_in_the_same_order() {
    let config = Layers::default().resolve().unwrap().config;
    let fields: Vec<String> = config.values().into_iter().map(|(name, _)| name).collect();
    let table: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(fields, table);
}

#[test]
fn defaults_depend_on_the_loss_and_explicit_values_win() {
    let check = |pairs: &[&str], name: &str, expected: &str, source: Source| {
        assert_eq!(
            value(&set(pairs), name),
            (expected.to_owned(), source),
            "{pairs:?} {name}"
        );
    };
    check(&[], "eps_clip_high", "0.2", Source::Default);
    check(&["eps_clip=0.1"], "eps_clip_high", "0.1", Source::Derived);
    check(
        &["policy_loss=dapo"],
        "eps_clip_high",
        "0.28",
        Source::Derived,
    );
    check(
        &["policy_loss=dapo", "eps_clip_high=0.25"],
        "eps_clip_high",
        "0.25",
        Source::Set,
    );
    check(
        &["policy_loss=dapo"],
        "dynamic_sampling",
        "true",
        Source::Derived,
    );
    check(
        &["policy_loss=dapo"],
        "overlong_masking",
        "true",
        Source::Derived,
    );
    check(
        &["policy_loss=dapo", "dynamic_sampling=false"],
        "dynamic_sampling",
        "false",
        Source::Set,
    );
    check(&["policy_loss=gspo"], "eps_clip", "0.0003", Source::Derived);
    check(
        &["policy_loss=gspo"],
        "eps_clip_high",
        "0.0004",
        Source::Derived,
    );
    check(&["policy_loss=cispo"], "cispo_cap", "5.0", Source::Default);
    check(
        &["kl_estimator=k2"],
        "kl_importance",
        "false",
        Source::Derived,
    );
    check(
        &["policy_loss=dr_grpo"],
        "advantage",
        "centered",
        Source::Default,
    );
    check(
        &["policy_loss=dr_grpo", "advantage=leave_one_out"],
        "advantage",
        "leave_one_out",
        Source::Set,
    );
    check(&["lora_rank=0"], "learning_rate", "1e-6", Source::Derived);
    check(&[], "learning_rate", "0.00004", Source::Default);
    check(
        &["lora_rank=0", "learning_rate=1e-4"],
        "learning_rate",
        "0.0001",
        Source::Set,
    );
    check(&["seed=1", "seed=2"], "seed", "2", Source::Set);
}

#[test]
fn defaults_that_follow_stand_above_presets() {
    let check = |preset, pairs: &[&str], name: &str, expected: &str, source: Source| {
        let layers = Layers {
            preset: Some(preset),
            ..set(pairs)
        };
        assert_eq!(
            value(&layers, name),
            (expected.to_owned(), source),
            "{preset} {pairs:?} {name}"
        );
    };
    let seed = Preset::Seed;
    check(
        seed,
        &["policy_loss=cispo"],
        "cispo_cap",
        "5.0",
        Source::Default,
    );
    check(
        seed,
        &["policy_loss=dr_grpo"],
        "advantage",
        "centered",
        Source::Derived,
    );
    check(
        seed,
        &["policy_loss=dr_grpo", "advantage=standardized"],
        "advantage",
        "standardized",
        Source::Set,
    );
    check(
        seed,
        &["lora_rank=0"],
        "learning_rate",
        "1e-6",
        Source::Derived,
    );
    check(
        seed,
        &["lora_rank=0", "learning_rate=1e-5"],
        "learning_rate",
        "0.00001",
        Source::Set,
    );
    check(
        seed,
        &["policy_loss=gspo"],
        "eps_clip",
        "0.0003",
        Source::Derived,
    );
    check(
        seed,
        &["policy_loss=gspo"],
        "eps_clip_high",
        "0.0004",
        Source::Derived,
    );
    check(
        seed,
        &["policy_loss=dapo"],
        "overlong_masking",
        "true",
        Source::Derived,
    );
    check(
        seed,
        &["eps_clip=0.1"],
        "eps_clip_high",
        "0.1",
        Source::Derived,
    );
    // Without another rule the preset's values hold.
    for (name, expected) in [
        ("learning_rate", "0.00001"),
        ("advantage", "standardized"),
        ("dynamic_sampling", "true"),
        ("eps_clip_high", "0.2"),
    ] {
        check(seed, &[], name, expected, Source::Preset);
    }
}

#[test]
fn k1_in_a_loss_needs_the_ratio() {
    let refused = |pairs: &[&str]| set(pairs).resolve().err().map(|error| error.to_string());
    let message = refused(&["kl_beta=0.01", "kl_estimator=k1", "kl_importance=false"]).unwrap();
    assert!(
        message.contains("zero-mean gradient") && message.contains("kl_importance = true"),
        "{message}"
    );
    for fine in [
        &["kl_beta=0.01", "kl_estimator=k1"][..],
        &["kl_estimator=k1", "kl_importance=false"],
        &["kl_beta=0.01", "kl_importance=false"],
    ] {
        assert_eq!(refused(fine), None, "{fine:?}");
    }
}

#[test]
fn a_teacher_and_its_weight_belong_together() {
    let refused = |pairs: &[&str]| set(pairs).resolve().err().map(|error| error.to_string());
    for (pairs, expected) in [
        (
            &["method=distill"][..],
            "distill_coef = 1 (method = distill) needs a teacher",
        ),
        (
            &["distill_coef=0.5"],
            "distill_coef = 0.5 (method = grpo) needs a teacher",
        ),
        (
            &["teacher=expected"],
            "teacher = expected has no effect with distill_coef = 0",
        ),
        (
            &["teacher=expected", "method=distill", "distill_coef=0"],
            "method = distill learns from the teacher alone",
        ),
        (
            &["teacher=expected", "method=sft", "distill_coef=1"],
            "method = sft samples no completions",
        ),
        (
            &["teacher=https://host/v1", "method=distill"],
            "teacher = https://host/v1 is a server",
        ),
        (
            &["teacher=endpoint:a", "method=distill"],
            "teacher = endpoint:a is a server",
        ),
        (
            &["teacher=expected", "distill_coef=-1"],
            "--set: `distill_coef` is `-1`",
        ),
    ] {
        let message = refused(pairs).unwrap_or_default();
        assert!(message.starts_with(expected), "{pairs:?}: {message}");
    }
    for fine in [
        &[
            "method=distill",
            "teacher=expected",
            "completions_per_prompt=1",
        ][..],
        &["distill_coef=0.1", "teacher=./folder"],
        &["method=sft+grpo", "distill_coef=0.1", "teacher=expected"],
    ] {
        assert_eq!(refused(fine), None, "{fine:?}");
    }
}

#[test]
fn what_stands_beside_adapters_is_refused_without_them() {
    let refused = |pairs: &[&str]| set(pairs).resolve().err().map(|error| error.to_string());
    let message = refused(&["lora_experts=true", "lora_rank=0"]).unwrap();
    assert!(
        message.contains("set lora_rank above 0, or lora_experts = false"),
        "{message}"
    );
    for base in ["base_precision=fp8", "base_precision=nf4"] {
        let message = refused(&[base, "lora_rank=0"]).unwrap();
        assert!(
            message.contains(&base.replace('=', " = "))
                && message.contains("or base_precision = bf16"),
            "{message}"
        );
        assert_eq!(refused(&[base]), None);
    }
    let message = refused(&["base_precision=fp4"]).unwrap();
    assert!(
        message.contains("bf16") && message.contains("fp8"),
        "{message}"
    );
}

#[test]
fn layers_in_order() {
    let task = "name = \"x\"\n\n[train]\nlearning_rate = 1e-3\nepochs = 3\n\n[train.model.tiny]\nlearning_rate = 5e-3\nlora_rank = 0\n\n[train.model.\"Qwen/Qwen3-8B\"]\nlora_rank = 64\n";
    let layers = |preset, file: Option<&str>, pairs: &[&str]| Layers {
        preset,
        task: Some(Assignments::from_task("task.toml", task).unwrap()),
        file: file.map(|text| Assignments::from_toml("my.toml", text).unwrap()),
        set: pairs.iter().map(|pair| (*pair).to_owned()).collect(),
        ..Layers::default()
    };
    let check = |layers: Layers, name: &str, expected: &str, source: Source| {
        assert_eq!(value(&layers, name), (expected.to_owned(), source))
    };
    check(
        layers(None, None, &[]),
        "learning_rate",
        "0.005",
        Source::Task,
    );
    check(layers(None, None, &[]), "epochs", "3", Source::Task);
    // A model trained from `tiny` has the defaults of `tiny`; its own table overrides them, an
    // explicit value all.
    let of_tiny = |pairs: &[&str]| Layers {
        origin: Some("tiny".to_owned()),
        ..layers(None, None, pairs)
    };
    check(
        of_tiny(&["base_model=some-run"]),
        "learning_rate",
        "0.005",
        Source::Task,
    );
    check(
        of_tiny(&["base_model=Qwen/Qwen3-8B"]),
        "lora_rank",
        "64",
        Source::Task,
    );
    check(
        of_tiny(&["base_model=Qwen/Qwen3-8B"]),
        "learning_rate",
        "0.005",
        Source::Task,
    );
    check(
        of_tiny(&["base_model=some-run", "lora_rank=8"]),
        "lora_rank",
        "8",
        Source::Set,
    );
    check(
        layers(Some(Preset::Seed), None, &[]),
        "epochs",
        "3",
        Source::Task,
    );
    check(
        layers(Some(Preset::Seed), None, &[]),
        "kl_beta",
        "0.001",
        Source::Preset,
    );
    check(
        layers(None, None, &["base_model=Qwen/Qwen3-8B"]),
        "learning_rate",
        "0.001",
        Source::Task,
    );
    check(
        layers(None, None, &["base_model=Qwen/Qwen3-8B"]),
        "lora_rank",
        "64",
        Source::Task,
    );
    check(
        layers(None, Some("base_model = \"other\""), &[]),
        "lora_rank",
        "16",
        Source::Default,
    );
    check(
        layers(None, Some("[train]\nlearning_rate = 2"), &[]),
        "learning_rate",
        "2.0",
        Source::File,
    );
    check(
        layers(None, Some("[model.tiny]\nlearning_rate = 7"), &[]),
        "learning_rate",
        "7.0",
        Source::File,
    );
    check(
        layers(None, Some("learning_rate = 2"), &["learning_rate=3"]),
        "learning_rate",
        "3.0",
        Source::Set,
    );
}

#[test]
fn messages() {
    let check = |layers: Layers, expected: &str| {
        assert_eq!(layers.resolve().unwrap_err().to_string(), expected)
    };
    check(
        set(&["lerning_rate=1"]),
        "--set: unknown key `lerning_rate`; did you mean `learning_rate`?",
    );
    check(
        set(&["qqqq=1"]),
        "--set: unknown key `qqqq`; `grpo-tui train --help` lists all keys",
    );
    check(set(&["epochs"]), "--set epochs: write it as key=value");
    check(
        set(&["epochs=-1"]),
        "--set: `epochs` is `-1`; it must be a whole number from 0 to 10000",
    );
    // Above 1 the ratio's cap would hide it.
    check(
        set(&["eps_clip_high=1.5"]),
        "--set: `eps_clip_high` is `1.5`; it must be a number from 0 to 1",
    );
    check(
        set(&["temperature=hot"]),
        "--set: `temperature` is `hot`; it must be a number from 0.01 to 10",
    );
    check(
        set(&["policy_loss=ppo"]),
        "--set: `policy_loss` is `ppo`; it must be one of grpo, dr_grpo, bnpo, dapo, gspo, cispo",
    );
    check(
        set(&["max_seq_len=512"]),
        "max_completion_tokens (512) leaves no tokens for the prompt within max_seq_len (512): raise max_seq_len or lower max_completion_tokens",
    );
    check(
        set(&["max_thinking_tokens=512"]),
        "max_thinking_tokens (512) leaves no tokens for the answer within max_completion_tokens (512): raise max_completion_tokens or lower max_thinking_tokens",
    );
    check(
        set(&["completions_per_prompt=1"]),
        "completions_per_prompt = 1: a group of one has zero variance: set it to 2 or more",
    );
    check(
        set(&["overlap=true"]),
        "--set: `overlap` was removed: leave it out, the update follows the rollout",
    );
    let file = |text: &str| Layers {
        file: Some(Assignments::from_toml("my.toml", text).unwrap()),
        ..Layers::default()
    };
    check(
        file("# mine\n\nepoch = 2\n"),
        "my.toml line 3: unknown key `epoch`; did you mean `epochs`?",
    );
    check(
        file("seed = 1\nepochs = \"two\"\n"),
        "my.toml line 2: `epochs` is string `two`; it must be a whole number from 0 to 10000",
    );
    check(
        file("lora_rank = 4.5\n"),
        "my.toml line 1: `lora_rank` is float `4.5`; it must be a whole number from 0 to 4096",
    );
    check(
        file("seed = -1\n"),
        "my.toml line 1: `seed` is integer `-1`; it must be a whole number, 0 or more",
    );
    check(
        file("seed = 1\n[train]\nepoch = 2\n"),
        "my.toml line 3: unknown key `epoch`; did you mean `epochs`?",
    );
    check(
        file("epoch = 1\n[train]\nseed = 2\n"),
        "my.toml line 1: unknown key `epoch`; did you mean `epochs`?",
    );
    check(
        file("seed = 1\n[train]\nseed = -1\n[train.epoch]\nx = 1\n"),
        "my.toml line 4: unknown key `epoch`; did you mean `epochs`?",
    );
    check(
        file("model = \"x\"\n"),
        "my.toml line 1: unknown key `model`; did you mean `base_model`?",
    );
    let task = |text: &str| Layers {
        task: Some(Assignments::from_task("t/task.toml", text).unwrap()),
        ..Layers::default()
    };
    check(
        task("[train]\nseed = 1\n[train.model.other]\nlora_rnak = 1\n"),
        "t/task.toml line 4: unknown key `lora_rnak`; did you mean `lora_rank`?",
    );
    check(
        task(
            "seed = 7\n[score]\nseed = 8\n[train]\nlora_rank = 2\n[train.model.\"Qwen/Qwen3-8B\"]\nseed = 0.5\n",
        ),
        "t/task.toml line 7: `seed` is float `0.5`; it must be a whole number, 0 or more",
    );
    let place = |text: &str| {
        task(text)
            .resolve()
            .unwrap_err()
            .to_string()
            .split(':')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(
        place("seed = 7\ntrain.seed = -1\n"),
        "t/task.toml line 2",
        "not the first line that begins like it"
    );
    assert_eq!(
        place("[train]\nseed = 1\nmodel = { tiny = { seed = -1 } }\n"),
        "t/task.toml line 3"
    );
    check(
        task("[train.model.tiny]\nbase_model = \"x\"\n"),
        "t/task.toml line 2: `base_model` selects this table and cannot be set in it: move it to [train]",
    );
    let error = Assignments::from_toml("my.toml", "seed = 1\nepochs 2\n")
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("my.toml line 2: "), "{error}");
}

#[test]
fn digest_follows_values_not_their_source() {
    let digest = |pairs: &[&str]| set(pairs).resolve().unwrap().config.digest();
    assert_eq!(digest(&[]), digest(&["seed=0", "learning_rate=4e-5"]));
    assert_ne!(digest(&[]), digest(&["seed=1"]));
    assert_eq!(digest(&[]).len(), 64);
}

#[test]
fn survives_toml() {
    let config = set(&["learning_rate=3.3e-5", "seed=9223372036854775807"])
        .resolve()
        .unwrap()
        .config;
    let text = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<TrainConfig>(&text).unwrap(), config);
}

#[test]
fn presets_resolve_and_steps_follow() {
    for preset in Preset::ALL {
        let config = Layers {
            preset: Some(preset),
            ..Layers::default()
        }
        .resolve()
        .unwrap()
        .config;
        assert!(config.total_steps(200) > 0);
    }
    let steps = |pairs: &[&str], rows| set(pairs).resolve().unwrap().config.total_steps(rows);
    // Without `epochs` a run is long enough to learn, and uses each prompt.
    assert_eq!(steps(&[], 200), 200);
    assert_eq!(steps(&[], 16_001), 2001);
    assert_eq!(steps(&["epochs=1"], 200), 25);
    assert_eq!(steps(&["epochs=2", "max_rows=20"], 200), 5);
    assert_eq!(steps(&["max_steps=7"], 200), 7);
    assert_eq!(steps(&["epochs=1"], 0), 1);
    let recommended = Layers {
        preset: Some(Preset::Recommended),
        ..Layers::default()
    }
    .resolve()
    .unwrap();
    assert_eq!(
        recommended.config,
        Layers::default().resolve().unwrap().config
    );
}

#[test]
fn the_learning_rate_follows_the_size_of_the_model() {
    let check = |parameters, pairs: &[&str], expected: f64, source: Source| {
        let resolved = Layers {
            parameters: Some(parameters),
            ..set(pairs)
        }
        .resolve()
        .unwrap();
        let found = (
            resolved.config.learning_rate,
            &resolved.sources["learning_rate"],
        );
        assert_eq!(found, (expected, &source), "{parameters} {pairs:?}");
    };
    for (parameters, expected) in [
        (1_000_000, 5e-4),
        (134_515_008, 5e-4),
        (268_098_176, 3.3e-4),
        (1_235_814_400, 1.3e-4),
        (8_190_735_360, 4.3e-5),
        (32_762_123_264, 1.9e-5),
    ] {
        check(parameters, &[], expected, Source::Derived);
    }
    check(134_515_008, &["lora_rank=0"], 1.3e-5, Source::Derived);
    check(134_515_008, &["learning_rate=1e-5"], 1e-5, Source::Set);
    let seed = Layers {
        parameters: Some(134_515_008),
        preset: Some(Preset::Seed),
        ..Layers::default()
    };
    assert_eq!(
        value(&seed, "learning_rate"),
        ("0.00001".to_owned(), Source::Preset)
    );
}

#[test]
fn supervised_steps() {
    let check = |pairs: &[&str], expected: [bool; 3]| {
        let config = set(pairs).resolve().unwrap().config;
        assert_eq!(
            [1, 30, 31].map(|step| config.is_supervised(step)),
            expected,
            "{pairs:?}"
        );
    };
    check(&[], [false; 3]);
    check(&["method=sft"], [true; 3]);
    check(&["method=sft+grpo"], [true, true, false]);
    check(&["method=sft+grpo", "sft_steps=1"], [true, false, false]);
}

#[test]
fn reference_lists_every_key() {
    let (markdown, help) = (reference::markdown(), reference::help());
    for key in KEYS {
        assert!(markdown.contains(&format!("- `{}`: ", key.name)) && help.contains(key.name));
    }
}

/// UPDATE_DOCS=1 cargo test --lib documentation_agrees rewrites `docs/configuration.md`.
#[test]
fn documentation_agrees_with_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let introduction = "# Configuration\n\n\
        `grpo-tui train TASK --plan` shows the values that differ from the defaults, and their source.\n\
        A value comes from the last of these that sets the key: the default, `--preset`,\n\
        a default that another key decides (in parentheses), the task's `[train]`\n\
        (then its `[train.model.NAME]` for that `base_model`), the file of `--config`, `--set key=value`.\n\
        Generated from `crates/core/src/config/keys.rs`.\n\n";
    let expected = format!("{introduction}{}", reference::markdown());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap();
    assert!(
        found == expected,
        "docs/configuration.md is out of date; write it with: UPDATE_DOCS=1 cargo test --lib documentation_agrees"
    );
}
