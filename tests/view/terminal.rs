//! The program in a real terminal: it starts, answers, suspends, and gives the terminal back however it ends.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::live_run::LiveRun;
use super::pty_session::{Session, Start, state_of};
use crate::program::{copy_tree, sample_data};

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn pid(process: i32) -> Pid {
    Pid::from_raw(process).unwrap()
}

fn is_restored(session: &Session) -> bool {
    session.is_cooked() && !session.on_other_screen() && session.shows_cursor()
}

#[test]
fn it_starts_helps_and_leaves() {
    let home = home();
    let mut session = Session::start(home.path(), &Start::PLAIN);
    session.wait_text("[1 Runs]");
    assert!(session.on_other_screen() && !session.is_cooked() && !session.shows_cursor());
    session.send("?");
    session.wait_text("Help: Runs");
    session.send("G");
    session.wait_text("Go to eval");
    session.send("\x1b");
    session.wait_for("help closed", |session| {
        !session.screen().contains("Help: Runs")
    });
    session.send("\x10");
    session.wait_text("Palette");
    session.send("launch form\r");
    session.wait_text("[5 Launch]");
    session.send("\x03");
    assert_eq!(session.wait_end(), 0);
    assert!(is_restored(&session), "{}", session.screen());
}

#[test]
fn signals_end_it_with_the_terminal_restored() {
    for (signal, code) in [
        (Signal::TERM, 143),
        (Signal::HUP, 129),
        (Signal::INT, 130),
        (Signal::QUIT, 131),
    ] {
        let home = home();
        let mut session = Session::start(home.path(), &Start::PLAIN);
        session.wait_text("[1 Runs]");
        kill_process(pid(session.process()), signal).unwrap();
        assert_eq!(session.wait_end(), code, "{signal:?}");
        assert!(is_restored(&session), "{signal:?}: {}", session.screen());
    }
}

#[test]
fn it_stops_for_the_shell_and_goes_on() {
    let home = home();
    let mut session = Session::start(
        home.path(),
        &Start {
            shell: Some("\"$@\"; echo LEFT"),
            ..Start::PLAIN
        },
    );
    session.wait_text("[1 Runs]");
    for _ in 0..2 {
        session.send("\x1a");
        session.wait_for("stopped", |session| {
            state_of(session.process()) == Some('T')
        });
        session.wait_for("restored", is_restored);
        kill_process_group(pid(session.process()), Signal::CONT).unwrap();
        session.wait_for("drawn again", |session| {
            session.on_other_screen() && session.screen().contains("[1 Runs]")
        });
        session.wait_for("raw again", |session| !session.is_cooked());
    }
    session.send("\x03");
    session.wait_text("LEFT");
    assert!(is_restored(&session));
}

#[test]
fn without_a_shell_above_it_does_not_stop() {
    let home = home();
    let mut session = Session::start(home.path(), &Start::PLAIN);
    session.wait_text("[1 Runs]");
    session.send("\x1a");
    session.wait_text("cannot suspend: not started from a shell with job control");
    assert!(session.on_other_screen() && state_of(session.process()) != Some('T'));
}

#[test]
fn a_storm_of_sizes_ends_in_a_whole_picture() {
    let home = home();
    let mut session = Session::start(home.path(), &Start::PLAIN);
    session.wait_text("[1 Runs]");
    for step in 0..150_u16 {
        session.resize(step * 37 % 190, step * 23 % 60);
    }
    session.resize(120, 36);
    session.send("\x0c");
    session.wait_for("the frame", |session| {
        let screen = session.screen();
        screen.contains("[1 Runs]") && screen.contains("7 Eval") && screen.lines().count() == 36
    });
    session.send("\x03");
    assert_eq!(session.wait_end(), 0);
}

#[test]
fn a_terminal_that_vanishes_ends_it() {
    // In a session of its own no signal tells it: only the terminal's silence does.
    let alone = "setsid --wait sh -c 'echo $$ > pid; exec \"$0\" \"$@\"' \"$@\"";
    for shell in [None, Some(alone)] {
        let home = home();
        let mut session = Session::start(
            home.path(),
            &Start {
                shell,
                ..Start::PLAIN
            },
        );
        session.wait_text("[1 Runs]");
        let process = match shell {
            None => session.process(),
            Some(_) => std::fs::read_to_string(home.path().join("pid"))
                .unwrap()
                .trim()
                .parse()
                .unwrap(),
        };
        assert!(state_of(process).is_some());
        session.hang_up();
        session.wait_gone(process);
    }
}

#[test]
fn leaving_tells_of_runs_that_go_on() {
    let home = home();
    let mut run = LiveRun::begin(&home.path().join("runs"), 10);
    let mut session = Session::start(
        home.path(),
        &Start {
            arguments: &["--runs", "runs"],
            ..Start::PLAIN
        },
    );
    session.wait_text("[1 Runs]");
    session.send("\x03");
    assert_eq!(session.wait_end(), 0);
    session.wait_text("20261120-120000-invoice-live01 continues in the background");
    run.end();
    let mut session = Session::start(
        home.path(),
        &Start {
            arguments: &["--runs", "runs"],
            ..Start::PLAIN
        },
    );
    session.wait_text("[1 Runs]");
    session.send("\x03");
    session.wait_end();
    assert!(
        !session.screen().contains("continues in the background"),
        "{}",
        session.screen()
    );
}

#[test]
fn what_is_unsaved_outlives_the_terminal() {
    let check = |[screen, there, write, writing, offered, take]: [&str; 6]| {
        let home = home();
        let mut session = Session::start(home.path(), &Start::PLAIN);
        session.write_unsaved([screen, there, write, writing]);
        session.hang_up();
        session.wait_gone(session.process());
        let mut session = Session::start(home.path(), &Start::PLAIN);
        session.take_up(screen, offered, take);
        session.send("\x03");
        session.wait_text("Quit with unsaved changes?");
        session.send("\x03");
        assert_eq!(session.wait_end(), 0);
    };
    check([
        "2",
        "\"vendor\"",
        "\r",
        "esc leave",
        "unsaved draft of",
        "t",
    ]);
    check([
        "3",
        "train-001",
        "i",
        "messages",
        "messages of train-001",
        "t",
    ]);
}

#[test]
fn the_users_files_are_read() {
    let home = home();
    let folder = home.path().join("config/grpo-tui");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("keys.toml"), "help = \"f12\"\nhepl = \"x\"\n").unwrap();
    std::fs::write(folder.join("config.toml"), "ascii = true\n").unwrap();
    let mut session = Session::start(home.path(), &Start::PLAIN);
    session.wait_text("keys.toml line 2: unknown action `hepl`");
    session.send("\x1b[24~");
    session.wait_text("Help: Runs");
    assert!(session.screen().is_ascii(), "{}", session.screen());
}

#[test]
fn the_editor_gets_the_terminal_and_gives_it_back() {
    let home = home();
    let draws = "printf EDITING; sleep 0.2; env > \"$HOME/env\"; stty -a > \"$HOME/stty\"";
    let editor = super::harness::script(&home.path().join("editor"), draws)
        .display()
        .to_string();
    copy_tree(&sample_data("invoice"), &home.path().join("invoice"));
    let variables = [("VISUAL", editor.as_str()), ("RAYON_NUM_THREADS", "3")];
    let mut session = Session::start(
        home.path(),
        &Start {
            arguments: &["invoice"],
            variables: &variables,
            ..Start::PLAIN
        },
    );
    session.wait_text("[1 Runs]");
    session.send("2");
    session.wait_text("\"vendor\"");
    session.send("\x10$EDITOR");
    session.wait_text("schema.outside");
    session.send("\r");
    session.wait_for("the editor has run", |session| {
        session.home.join("stty").exists()
    });
    session.wait_for("back", |session| {
        session.on_other_screen() && !session.is_cooked()
    });
    let modes = std::fs::read_to_string(home.path().join("stty")).unwrap();
    assert!(
        modes.contains(" icanon") && modes.contains(" echo "),
        "{modes}"
    );
    // The editor has the user's environment, and nothing of what the engine needs.
    let variables = std::fs::read_to_string(home.path().join("env")).unwrap();
    let threads: Vec<&str> = variables
        .lines()
        .filter(|line| line.contains("NUM_THREADS") || line.contains("CANDLE"))
        .collect();
    assert_eq!(threads, ["RAYON_NUM_THREADS=3"]);
}

/// Processes whose parent is `process`, with their command lines.
fn children(process: i32) -> Vec<(i32, String)> {
    let all = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |child: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some(&process.to_string()))
    };
    let command = |child: i32| {
        (
            child,
            std::fs::read_to_string(format!("/proc/{child}/cmdline"))
                .unwrap_or_default()
                .replace('\0', " "),
        )
    };
    all.filter(is_child).map(command).collect()
}

#[test]
fn quitting_ends_a_forecast() {
    type Leave = fn(&mut Session);
    let ways: [Leave; 3] = [
        |session| session.send("\x03"),
        |session| kill_process(pid(children(session.process())[0].0), Signal::KILL).unwrap(),
        |session| session.hang_up(),
    ];
    for leave in ways {
        let home = home();
        // With a shell above, so that the terminal outlives the program and no signal of its end reaches the forecast.
        let mut session = Session::start(
            home.path(),
            &Start {
                shell: Some("\"$@\"; sleep 60"),
                ..Start::PLAIN
            },
        );
        session.wait_text("[1 Runs]");
        session.send("5");
        session.wait_text("steps of 8 x 8");
        session.send("t");
        let program = children(session.process())[0].0;
        let forecast = || {
            children(program)
                .into_iter()
                .find(|(_, command)| command.contains("--plan"))
        };
        session.wait_for("a forecast", |_| forecast().is_some());
        let (process, command) = forecast().unwrap();
        assert!(command.starts_with("grpo-tui "), "{command}");
        session.wait_for("its name", |_| {
            std::fs::read_to_string(format!("/proc/{process}/comm"))
                .is_ok_and(|name| name == "grpo-tui\n")
        });
        leave(&mut session);
        session.wait_gone(process);
    }
}

#[test]
fn runs_that_nobody_looks_at_are_followed_no_more() {
    let home = home();
    let runs = home.path().join("runs");
    for number in 1..=4 {
        copy_tree(
            &sample_data("finished-run"),
            &runs.join(format!("20261120-120000-invoice-over0{number}")),
        );
    }
    let mut session = Session::start(
        home.path(),
        &Start {
            arguments: &["--runs", "runs"],
            ..Start::PLAIN
        },
    );
    let program = session.process();
    session.wait_text("Runs 4");
    let followers = || {
        let tasks = std::fs::read_dir(format!("/proc/{program}/task"))
            .unwrap()
            .flatten();
        tasks
            .filter(|task| {
                std::fs::read_to_string(task.path().join("comm"))
                    .is_ok_and(|name| name == "follow\n")
            })
            .count()
    };
    let watches = || {
        let files = std::fs::read_dir(format!("/proc/{program}/fd"))
            .unwrap()
            .flatten();
        files
            .filter(|file| {
                std::fs::read_link(file.path())
                    .is_ok_and(|to| to.to_string_lossy().contains("inotify"))
            })
            .count()
    };
    let without = watches();
    for _ in 0..4 {
        session.send("\r");
        session.wait_text("[6 Live]");
        session.wait_for("it is followed", |_| followers() > 0);
        session.send("1");
        session.wait_text("[1 Runs]");
        session.send("j");
    }
    session.wait_for("one is followed", |_| {
        followers() == 1 && watches() == without + 1
    });
}
