//! The user's own commands: bound to keys, listed in help and palette, run on what is selected; and the last command in
//! the bottom line.

use grpo_tui::view::appearance::Appearance;
use grpo_tui::view::options::AppearanceInput;

use super::harness::Stage;
use super::runs::copy_run;

const RUN: &str = "20261120-143041-invoice-6sx3dn";

fn stage(config: &str, columns: u16, rows: u16) -> Stage {
    Stage::with(columns, rows, |options| {
        copy_run(
            &options.here.join("runs"),
            RUN,
            "small adapters",
            "finished",
        );
        let folder = options.here.join("config");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("config.toml"), config).unwrap();
        let input = AppearanceInput {
            folder: Some(folder),
            ..AppearanceInput::nothing()
        };
        let found = Appearance::load(&input);
        (options.own_commands, options.notes) = (found.own_commands, found.notes);
        // Runs of tests are of this host's folders alone.
        options.program = "/bin/false".into();
    })
}

const SERVE: &str = "[[command]]\nkey = \"V\"\nscreen = \"runs\"\ntitle = \"Serve with vLLM\"\nrun = \"vllm serve {run}\"\n";

#[test]
fn an_own_command_has_a_key_and_stands_in_help_and_palette() {
    let mut stage = stage(SERVE, 120, 36);
    let run = stage.folder.path().join("runs").join(RUN);
    stage.keys("V");
    let handed = format!("Foreground([\"vllm\", \"serve\", \"{}\"])", run.display());
    assert!(stage.commands.contains(&handed), "{:?}", stage.commands);
    // It stands in the bottom line, and a click there opens the log.
    assert!(stage.shows(" $ vllm serve "), "{}", stage.screen());
    let column = stage.screen().lines().last().unwrap().find('$').unwrap();
    stage.click(column as u16 + 3, 35);
    assert!(
        stage.shows("Command log: enter copies"),
        "{}",
        stage.screen()
    );
    stage.keys("esc ?");
    assert!(stage.shows("Serve with vLLM"), "{}", stage.screen());
    stage.keys("esc ctrl-p").types("vllm");
    assert!(stage.shows("Serve with vLLM"), "{}", stage.screen());
    stage.keys("enter");
    assert_eq!(
        stage
            .commands
            .iter()
            .filter(|command| **command == handed)
            .count(),
        2
    );
    // Of another screen its key means nothing.
    stage.keys("f4 V");
    assert_eq!(
        stage
            .commands
            .iter()
            .filter(|command| **command == handed)
            .count(),
        2
    );
}

#[test]
fn output_is_shown_and_a_placeholder_without_a_value_refuses() {
    let config = "[[command]]\nkey = \"V\"\nscreen = \"runs\"\nrun = \"printf '%s|' 'a b' {id}\"\noutput = true\n\
                  [[command]]\nkey = \"f9\"\nscreen = \"runs\"\nrun = \"grpo-tui-no-such-program {run}\"\noutput = true\n\
                  [[command]]\nkey = \"f10\"\nscreen = \"runs\"\nrun = \"sh -c 'echo oh; exit 3'\"\noutput = true\n";
    let mut stage = stage(config, 80, 24);
    stage.keys("V");
    assert!(stage.shows(&format!("a b|{RUN}|")), "{}", stage.screen());
    stage.keys("esc f9");
    assert!(
        stage.shows("grpo-tui-no-such-program in"),
        "{}",
        stage.screen()
    );
    stage.keys("f10");
    assert!(stage.shows("failed: sh -c"), "{}", stage.screen());
    let mut none = self::stage(config, 80, 24);
    let run = none.folder.path().join("runs").join(RUN);
    none.keys("d y");
    assert!(!run.exists());
    none.keys("V");
    assert!(none.shows("{id}: no run is selected"), "{}", none.screen());
}

#[test]
fn conflicts_are_named_at_the_start() {
    let mut stage = stage(&SERVE.replace("\"V\"", "\"d\""), 120, 36);
    let conflict = "line 1: `d` is bound to `runs.remove` (Delete run): \"Serve with vLLM\" has no key; the palette runs it";
    let told = stage.model.shared.notices.all();
    assert!(
        told.iter().any(|notice| notice.text.contains(conflict)),
        "{told:?}"
    );
    stage.keys("d");
    assert!(stage.shows("Delete run?"), "{}", stage.screen());
}
