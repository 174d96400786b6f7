//! Tests: the prompts screen on the real embedded task and on its copies.

mod editing;

use std::path::{Path, PathBuf};

use grpo_tui::run::events::Group;
use grpo_tui::task::PromptSet;
use grpo_tui::view::{Command, Message};

use super::harness::Stage;
use super::synthetic_run::shown;
use grpo_tui::facts::StopReason;

fn stage(columns: u16, rows: u16) -> Stage {
    let mut stage = Stage::new(columns, rows);
    stage.keys("f3");
    stage
}

/// The screen with a task in a folder of the stage, after `change` had its way with the files.
fn in_folder(change: impl FnOnce(&Path)) -> (Stage, PathBuf) {
    let mut stage = Stage::with(120, 36, |options| {
        crate::program::sample_task(
            &options.here.join("tasks/invoice"),
            [usize::MAX, usize::MAX, 20],
        );
        change(&options.here.join("tasks/invoice"));
    });
    stage.keys("f3");
    let folder = stage.folder.path().join("tasks/invoice");
    (stage, folder)
}

fn lines(folder: &Path, file: &str) -> Vec<String> {
    std::fs::read_to_string(folder.join(file))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn selected_id(stage: &Stage) -> String {
    let prompts = &stage.model.prompts;
    let index = prompts.shown[prompts.cursor.index] as usize;
    let entry = prompts.entries[index];
    let open = stage.model.shared.task.as_ref().unwrap();
    open.rows[&entry.set].as_ref().unwrap()[entry.index as usize]
        .id
        .clone()
}

#[test]
fn pictures() {
    for (columns, rows) in [(120, 36), (80, 24)] {
        let mut stage = stage(columns, rows);
        stage.keys("j j");
        stage.keys("/").types("tag:messy oy").keys("enter s s");
        insta::assert_snapshot!(format!("prompts_filtered_{columns}x{rows}"), stage.screen());
        stage.keys("v end backspace");
        insta::assert_snapshot!(format!("prompts_expected_{columns}x{rows}"), stage.screen());
        stage.keys("esc y H");
        insta::assert_snapshot!(format!("prompts_health_{columns}x{rows}"), stage.screen());
    }
}

#[test]
fn every_row_is_there_and_counted_as_the_command_line_counts() {
    let stage = stage(120, 36);
    let prompts = &stage.model.prompts;
    assert_eq!((prompts.entries.len(), prompts.shown.len()), (750, 750));
    let tokenizer =
        grpo_tui::text::Tokenizer::load(&grpo_tui::hub::find_model("tiny").unwrap()).unwrap();
    let open = stage.model.shared.task.as_ref().unwrap();
    let row = &open.rows[&PromptSet::Train].as_ref().unwrap()[0];
    let counted = grpo_tui::prompts::prompt_tokens(&open.task, &tokenizer, row).unwrap();
    assert_eq!(prompts.tokens[0] as usize, counted);
    let chat = prompts.chat.as_ref().unwrap();
    let tokens = chat.tokens.unwrap();
    assert_eq!(tokens.prompt, counted);
    assert!(
        tokens.system > 0 && tokens.turns > tokens.system && tokens.system + tokens.turns < counted,
        "{tokens:?}"
    );
    let special: Vec<&str> = chat
        .lines
        .as_ref()
        .unwrap()
        .iter()
        .flatten()
        .filter(|(_, special)| *special)
        .map(|(text, _)| text.as_str())
        .collect();
    assert!(
        special.contains(&"<|im_start|>") && special.contains(&"<|im_end|>"),
        "{special:?}"
    );
    assert!(chat.prompt.contains("Answer with JSON only."));
}

#[test]
fn training_rows_have_the_solve_rate_of_the_open_run() {
    for (columns, rows) in [(120, 36), (80, 24)] {
        let (mut stage, mut run) = shown(columns, rows);
        for (id, solved) in [
            ("train-002", 0),
            ("train-001", 5),
            ("train-003", 8),
            ("eval-001", 8),
        ] {
            let (rewards, stop_reasons) = (vec![0.0; 8], vec![StopReason::Stop; 8]);
            let group = Group {
                step: 7,
                prompt_id: id.to_owned(),
                rewards,
                stop_reasons,
                ..Group::default()
            };
            run.append(Group {
                solved: Some(solved),
                ..group
            });
        }
        run.send(&mut stage);
        stage.keys("f3 s s s s");
        let line = |stage: &Stage, id: &str| {
            stage
                .screen()
                .lines()
                .find(|line| line.contains(&format!("train {id}")))
                .map(|line| line.replace(['│', '▌'], " "))
                .unwrap_or_default()
        };
        assert!(
            stage.shows("solved") && stage.shows("by solve rate"),
            "{}",
            stage.screen()
        );
        stage.keys("/").types("set:train id:00").keys("enter");
        stage.keys("end");
        assert_eq!(selected_id(&stage), "train-003");
        for (id, expected) in [
            ("train-001", "62%"),
            ("train-002", "0%"),
            ("train-003", "100%"),
        ] {
            assert!(
                line(&stage, id).contains(expected),
                "{id}: {}",
                stage.screen()
            );
        }
        assert!(
            stage.shows("solve rate 100%: 8 of 8 completions of step 7"),
            "{}",
            stage.screen()
        );
        // What is not known comes before 0, and is not 0.
        stage.keys("home");
        assert!(
            line(&stage, &selected_id(&stage)).contains("n/a"),
            "{}",
            stage.screen()
        );
        assert!(
            stage.shows("solve rate n/a: not sampled yet"),
            "{}",
            stage.screen()
        );
        // Other sets are not sampled from, whatever their ids.
        stage.keys("/").types(" set:eval id:001").keys("enter");
        assert!(!stage.shows("solve rate 100%"), "{}", stage.screen());
    }
}

/// The page has what `task render` prints of the row and the chosen model.
#[test]
fn the_prompt_is_shown_as_the_model_reads_it() {
    let mut stage = stage(120, 36);
    let printed = crate::program::call_in_process(
        stage.folder.path(),
        &[
            "task",
            "render",
            "invoice",
            "train:train-001",
            "--model",
            "tiny",
        ],
    );
    stage.keys("P");
    assert!(
        stage.shows("train-001 as tiny reads it, 98 tokens"),
        "{}",
        stage.screen()
    );
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("<|im_start|>assistant"), "{printed}");
    for line in printed.lines().filter(|line| !line.is_empty()) {
        assert!(
            stage.shows(&format!("│{line} ")),
            "{line}: {}",
            stage.screen()
        );
    }
    stage.keys("esc");
    assert!(stage.model.shared.popup.is_none());
}

#[test]
fn the_filter_takes_words_and_fields() {
    let mut stage = stage(120, 36);
    let mut check = |filter: &str, least: usize, most: usize| {
        stage.keys("/").types(filter).keys("enter");
        let count = stage.model.prompts.shown.len();
        assert!((least..=most).contains(&count), "{filter}: {count}");
        stage.keys("esc");
        assert_eq!(stage.model.prompts.shown.len(), 750, "esc drops the filter");
    };
    check("set:eval", 50, 50);
    check("set:test", 500, 500);
    check("set:train tag:messy", 1, 199);
    check("expected:no", 0, 0);
    check("expected:yes", 750, 750);
    check("id:train-007", 1, 1);
    check("train-007", 1, 1);
    check("gröner", 1, 200);
    check("grnr bks", 1, 749);
    check("zzzzqqqq", 0, 0);
}

#[test]
fn the_cursor_stays_on_its_row_when_the_order_changes() {
    let mut stage = stage(120, 36);
    stage.keys("j j j");
    let id = selected_id(&stage);
    for _ in 0..8 {
        stage.keys("s");
        assert_eq!(selected_id(&stage), id);
        stage.keys("R");
        assert_eq!(selected_id(&stage), id);
    }
    stage.keys("g s s");
    let tokens: Vec<u32> = stage
        .model
        .prompts
        .shown
        .iter()
        .map(|index| stage.model.prompts.tokens[*index as usize])
        .collect();
    assert!(tokens.is_sorted() && tokens[0] < tokens[tokens.len() - 1]);
}

#[test]
fn the_embedded_task_becomes_a_copy_and_an_unsaved_schema_survives_that() {
    let mut stage = stage(120, 36);
    stage
        .keys("f2 enter")
        .types(" ")
        .keys("esc f3 p ctrl-end")
        .types("!")
        .keys("ctrl-o");
    let copy = stage.folder.path().join("data/tasks/invoice");
    assert!(
        std::fs::read_to_string(copy.join("task.toml"))
            .unwrap()
            .contains("Answer with JSON only.!")
    );
    assert_eq!(
        stage.model.shared.task.as_ref().unwrap().task.folder(),
        Some(copy.as_path())
    );
    assert!(
        stage.model.shared.draft.text.starts_with(" {") && stage.model.shared.draft.is_changed()
    );
    stage.keys("f2 w");
    assert!(
        std::fs::read_to_string(copy.join("schema.json"))
            .unwrap()
            .starts_with(" {")
    );
    assert!(!stage.folder.path().join("data/tasks/invoice-2").exists());
}

#[test]
fn an_external_editor_opens_the_row_and_what_it_wrote_is_read() {
    let (mut stage, folder) = in_folder(|_| {});
    stage.keys("j j e");
    let command = stage.commands.last().unwrap();
    assert!(
        command.contains("invoice/train.jsonl") && command.contains("line: 3"),
        "{command}"
    );
    let text = std::fs::read_to_string(folder.join("train.jsonl")).unwrap();
    let shorter: String = text.split_inclusive('\n').take(5).collect();
    std::fs::write(folder.join("train.jsonl"), shorter).unwrap();
    stage.send(Message::Edited(folder.join("train.jsonl")));
    assert_eq!(
        (
            stage.model.prompts.entries.len(),
            selected_id(&stage).as_str()
        ),
        (75, "train-003")
    );
}

#[test]
fn bad_sets_and_findings_lead_to_their_lines() {
    let (mut stage, folder) = in_folder(|folder| {
        let text = std::fs::read_to_string(folder.join("train.jsonl")).unwrap();
        let first: String = text.lines().next().unwrap().replace("train-001", "twin");
        std::fs::write(folder.join("train.jsonl"), format!("{text}{first}\n")).unwrap();
        std::fs::write(folder.join("eval.jsonl"), "{\"messages\": []}\n").unwrap();
    });
    assert!(stage.shows("eval.jsonl line 1"), "{}", stage.screen());
    stage.keys("/").types("set:test").keys("enter H");
    let go_to = |stage: &mut Stage, slug: &str| {
        stage.keys("H g");
        let place = stage
            .model
            .prompts
            .groups
            .iter()
            .position(|group| group.slug == slug)
            .unwrap();
        (0..place).for_each(|_| {
            stage.keys("j");
        });
        stage.keys("enter");
    };
    go_to(&mut stage, "duplicate");
    assert_eq!(
        (
            selected_id(&stage).as_str(),
            stage.model.prompts.filter.text()
        ),
        ("twin", "is:duplicate")
    );
    assert!(
        stage.shows("same prompt as train.jsonl line 1"),
        "{}",
        stage.screen()
    );
    go_to(&mut stage, "bad-line");
    let message = &stage.model.shared.notices.all().last().unwrap().text;
    assert!(
        message.starts_with("bad line in line 1 of the eval set is not a row: open the file with"),
        "{message}"
    );
    assert!(folder.join("eval.jsonl").exists());
}

#[test]
fn an_edit_of_the_schema_scores_the_expected_answers_once_for_all_screens() {
    let (mut stage, _) = in_folder(|_| {});
    let checks = |stage: &Stage| -> u64 {
        let work = stage
            .model
            .shared
            .work
            .iter()
            .filter(|(key, _)| key.ends_with(".expected"));
        work.map(|(_, work)| work.generation).sum()
    };
    let before = checks(&stage);
    stage.keys("f2 enter alt-a");
    stage.send(Message::Paste("{\"type\": \"array\"}".to_owned()));
    stage.keys("esc f3");
    assert_eq!(checks(&stage), before + 1);
    assert!(stage.shows("expected answers: 0 of"), "{}", stage.screen());
}

#[test]
fn invalid_expected_answers_are_marked_grouped_and_filtered() {
    let (mut stage, _) = in_folder(|folder| {
        let schema = std::fs::read_to_string(folder.join("schema.json")).unwrap();
        let currency = "\"currency\": { \"type\": \"string\" }";
        let only = "\"currency\": { \"type\": \"string\", \"enum\": [\"EUR\"] }";
        std::fs::write(folder.join("schema.json"), schema.replace(currency, only)).unwrap();
    });
    let open = stage.model.shared.task.clone().unwrap();
    let wrong = |set| {
        let rows = open.rows[&set].as_ref().unwrap().iter();
        rows.filter(|row| row.expected.as_ref().unwrap()["currency"] != "EUR")
            .count()
    };
    let (train, all) = (
        wrong(PromptSet::Train),
        PromptSet::ALL.into_iter().map(wrong).sum::<usize>(),
    );
    assert!(
        train > 0 && stage.shows(&format!("expected answer: enum: {all} rows")),
        "{}",
        stage.screen()
    );
    let total = stage.model.prompts.entries.len();
    assert!(
        stage.shows(&format!(
            "expected answers: {} of {total} valid",
            total - all
        )),
        "{}",
        stage.screen()
    );
    let mut check = |filter: &str, expected: usize| {
        stage.keys("/").types(filter).keys("enter");
        assert_eq!(stage.model.prompts.shown.len(), expected, "{filter}");
        stage.keys("esc");
    };
    check("expected:invalid", all);
    check("expected:invalid set:train", train);
    check("expected:valid", total - all);
    check("is:enum", all);
    check("is:other", 0);
    stage.keys("H enter");
    assert_eq!(
        (
            stage.model.prompts.filter.text(),
            stage.model.prompts.shown.len()
        ),
        ("is:enum", all)
    );
    assert!(
        stage.shows("expected answer is invalid: /currency"),
        "{}",
        stage.screen()
    );
    // By the schema in the editor: undone there, the answers are valid again.
    stage
        .keys("esc f2 enter ctrl-end")
        .types("x")
        .keys("ctrl-u esc")
        .keys("f3");
    assert_eq!(
        stage
            .model
            .prompts
            .groups
            .iter()
            .filter(|group| group.slug == "enum")
            .count(),
        1
    );
    stage.keys("f2 enter alt-a").types("{}").keys("esc f3");
    let groups = stage
        .model
        .prompts
        .groups
        .iter()
        .map(|group| group.slug.as_str())
        .collect::<Vec<_>>();
    assert!(!groups.contains(&"enum"), "{groups:?}");
}

#[test]
fn a_malformed_row_is_opened_at_its_line_whatever_its_file_is_called() {
    let (mut stage, folder) = in_folder(|folder| {
        let toml = std::fs::read_to_string(folder.join("task.toml")).unwrap();
        std::fs::write(
            folder.join("task.toml"),
            toml.replace("\"train.jsonl\"", "\"a line 7.jsonl\""),
        )
        .unwrap();
        for file in ["a line 7.jsonl", "eval.jsonl", "eval-large.jsonl"] {
            std::fs::write(folder.join(file), "\n\n{").unwrap();
        }
    });
    stage.keys("e");
    let path = folder.join("a line 7.jsonl");
    assert_eq!(
        stage.commands.last(),
        Some(&format!("{:?}", Command::Edit { path, line: 3 })),
        "{}",
        stage.screen()
    );
}

#[test]
fn a_task_is_created_on_the_screen() {
    let mut stage = stage(120, 36);
    let csv = "text,label\n".to_owned()
        + &(0..20)
            .map(|number| format!("Letter {number},{}\n", ["a", "b"][number % 2]))
            .collect::<String>();
    std::fs::write(stage.folder.path().join("letters.csv"), csv).unwrap();
    stage
        .keys("N")
        .types("letters")
        .keys("tab")
        .types("letters.csv");
    assert!(stage.shows("label = label"), "guessed: {}", stage.screen());
    stage.keys("tab tab tab").types("kind = label");
    assert!(
        stage.shows("rows: train 16, eval 2, test 2")
            && stage.shows("enum of 2 values seen (a, b)"),
        "{}",
        stage.screen()
    );
    insta::assert_snapshot!("prompts_new_task_120x36", stage.screen());
    stage.send(Message::Resize(80, 24));
    insta::assert_snapshot!("prompts_new_task_80x24", stage.screen());
    stage.keys("ctrl-o");
    let open = stage.model.shared.task.as_ref().unwrap();
    assert_eq!(
        (
            open.task.name.as_str(),
            open.rows[&PromptSet::Train].as_ref().unwrap().len()
        ),
        ("letters", 16)
    );
    assert!(
        stage.shows("schema.json") && stage.model.prompts.form.is_none(),
        "{}",
        stage.screen()
    );
}

/// Whatever is missing yet: what was found in the file, and what it is taken for.
#[test]
fn the_form_of_a_new_task_shows_columns_and_completes_paths() {
    let mut stage = stage(120, 36);
    let data = stage.folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("notes.csv"), "letter\nDear\n").unwrap();
    let csv = "body,urgent,note\nDear A,yes,\nDear B,no,\nDear C,no,\nDear D,no,\n";
    std::fs::write(data.join("tickets.csv"), csv).unwrap();
    stage.keys("N tab").types("d").keys("tab");
    assert!(stage.shows("data       data/ "), "{}", stage.screen());
    stage.keys("tab");
    assert!(stage.shows("notes.csv  tickets.csv"), "{}", stage.screen());
    stage.types("t").keys("tab");
    assert!(!stage.shows("no file"), "{}", stage.screen());
    for text in [
        "data       data/tickets.csv",
        "✗ name the task",
        "3 columns:",
        "body         prompt    \"Dear A\", \"Dear B\", \"Dear C\"",
        "urgent       not taken \"yes\", \"no\", \"no\"",
        "note         not taken empty",
        "prompt     body",
    ] {
        assert!(stage.shows(text), "{text}\n{}", stage.screen());
    }
    // A whole path is left as from any field.
    stage.keys("tab tab tab tab backtab").types("urgent");
    assert!(
        stage.shows("expected   urgent") && stage.shows("urgent       expected  \"yes\""),
        "{}",
        stage.screen()
    );
}

#[test]
fn every_size_holds_with_every_pane() {
    let mut stage = stage(120, 36);
    for open in ["", "/", "v", "p", "a", "I", "N"] {
        stage.keys(open);
        for columns in [0, 1, 5, 39, 40, 57, 60, 80, 99, 100, 200] {
            for rows in [0, 1, 2, 4, 10, 12, 24, 60] {
                stage.send(Message::Resize(columns, rows));
                stage.keys("down pagedown end");
                _ = stage.screen();
                if open.is_empty() {
                    stage.keys("tab z");
                    _ = stage.screen();
                }
            }
        }
        stage.keys("esc esc esc");
    }
}

#[test]
fn calls_are_shown_as_demonstrated() {
    let mut stage = Stage::with(120, 50, |options| {
        let folder = options.here.join("tasks/shop");
        crate::program::sample_task_named("assistant", &folder, [3, 1, 1]);
        let file = folder.join("train.jsonl");
        let text = std::fs::read_to_string(&file).unwrap();
        let mut rows: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        rows[1]["demonstration"] = serde_json::json!([
            {"role": "assistant", "content": "", "tool_calls": [
                {"type": "function", "function": {"name": "remind", "arguments": {"number": 17}}}]},
            {"role": "tool", "content": "recorded"},
            {"role": "assistant", "content": "As recorded."}]);
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        std::fs::write(file, text).unwrap();
        options.task = Some(folder.display().to_string());
    });
    stage.keys("f3 j enter z G");
    for part in [
        "demonstration: 1 call in 1 turn",
        "→ remind {\"number\":17}",
        "As recorded.",
    ] {
        assert!(stage.shows(part), "{part}: {}", stage.screen());
    }
}
