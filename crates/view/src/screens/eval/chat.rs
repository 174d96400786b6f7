//! A prompt of one's own: base and trained answer it, greedily, scored, side by side.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use serde_json::{Value, json};

use super::{CHAT, Chat, Eval, answers, conversations};
use crate::environment::ToolChain;
use crate::facts::{StopReason, Tier};
use crate::files::{Access, ensure_folder, replace_file};
use crate::format::short_id;
use crate::message::{Command, Sender, Work};
use crate::pane::content::{Content, Place};
use crate::run::EvalRecord;
use crate::shared::Shared;
use crate::style_role::Role;
use crate::subprocess::{Call, CancelToken, OutputLine, run_task_argument, trained_argument};
use crate::widgets::editor::Editor;
use crate::widgets::list_cursor::Cursor;

/// A model that answers: its name, and the words of `sample` that mean it.
type Side = (String, Vec<String>);

fn sides(shared: &Shared) -> Result<Vec<Side>, String> {
    if run_task_argument(shared).is_none() {
        return Err(shared
            .no_task()
            .unwrap_or_else(|| "the run's task cannot be read".to_owned()));
    }
    let words = |model: &str, more: &[&str]| -> Vec<String> {
        ["--model", model]
            .iter()
            .chain(more)
            .map(|word| (*word).to_owned())
            .collect()
    };
    let run = shared.current_run().and_then(|run| run.directory.as_ref());
    let base = run.map_or(&shared.new_run.base_model, |run| {
        &run.file().config.base_model
    });
    let name = format!("base {base}");
    Ok(match trained_argument(shared) {
        Ok((what, model)) => {
            vec![
                (name, words(&model, &["--base"])),
                (format!("trained ({what})"), words(&model, &[])),
            ]
        }
        Err(_) => vec![(name, words(base, &[]))],
    })
}

pub(super) fn open(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let editor = Editor::new("", false);
    eval.chat = Some(Chat {
        editor,
        is_typing: true,
        answers: Vec::new(),
        job: None,
        error: None,
        top: Cursor::default(),
    });
    let file = shared.options.data.join(FILE);
    let read = move || {
        let row: Value = serde_json::from_slice(&crate::files::read(&file).ok()?).ok()?;
        row["messages"][0]["content"].as_str().map(str::to_owned)
    };
    vec![Work::once(
        "eval.chat.last",
        read,
        |eval: &mut Eval, _, last: Option<String>| {
            if let (Some(chat), Some(last)) = (&mut eval.chat, last)
                && chat.editor.text().is_empty()
            {
                chat.editor = Editor::new(&last, false);
                chat.editor.select_all();
            }
            Vec::new()
        },
    )]
}

/// The prompt's row, in the data folder: it is in no command line, and there in the next session.
const FILE: &str = "own-prompt.jsonl";

/// The file that `sample` reads for one question, since another window may ask another one at the same time.
fn question_file(folder: &Path) -> PathBuf {
    static QUESTIONS: AtomicU64 = AtomicU64::new(0);
    let number = QUESTIONS.fetch_add(1, Ordering::Relaxed);
    folder.join(format!("own-prompt.{}.{number}.jsonl", std::process::id()))
}

/// Writes the prompt as a row of prompts.
fn keep(file: &Path, prompt: &str) -> Result<(), String> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let row = json!({"id": "own", "messages": [{"role": "user", "content": prompt}]});
    ensure_folder(folder, Access::Private)
        .and_then(|()| replace_file(file, row.to_string().as_bytes(), Access::Private))
        .map_err(|error| format!("{}: {error}", file.display()))
}

/// Asks the models one after the other; a server keeps each loaded for the next prompt.
pub(super) fn send(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let (Some(chat), Some((task, _))) = (&mut eval.chat, run_task_argument(shared)) else {
        return Vec::new();
    };
    let prompt = chat.editor.text();
    let sides = match sides(shared) {
        _ if prompt.trim().is_empty() => Err("the prompt is empty".to_owned()),
        sides => sides,
    };
    let sides = match sides {
        Ok(sides) => sides,
        Err(why) => return shared.complain(why),
    };
    cancel(chat);
    let cancel = CancelToken::default();
    (chat.answers, chat.error, chat.top, chat.is_typing) =
        (Vec::new(), None, Cursor::default(), false);
    chat.job = Some((cancel.clone(), "starting".to_owned()));
    let folder = shared.options.data.clone();
    let file = question_file(&folder);
    let mut calls = Vec::new();
    for (name, model) in sides {
        let mut arguments: Vec<String> = ["sample", &task].map(str::to_owned).into();
        arguments.extend(model);
        arguments.extend(["--on".to_owned(), file.display().to_string()]);
        arguments.extend(
            [
                "--n",
                "1",
                "--temperature",
                "0",
                "--json",
                "--worker",
                "--runs",
            ]
            .map(str::to_owned),
        );
        arguments.push(shared.new_runs());
        arguments.extend(shared.new_run.device.arguments());
        let call = Call::with_arguments(&shared.options, arguments);
        shared.log_command(&call.command_line());
        calls.push((name, call));
    }
    vec![Work::stream("eval.chat", move |sender| {
        let asked = keep(&folder.join(FILE), &prompt)
            .and_then(|()| keep(&file, &prompt))
            .and_then(|()| ask(calls, &cancel, sender));
        // It is gone already if the folder is.
        let _ = std::fs::remove_file(&file);
        if asked != Ok(false) {
            sender.send(move |eval: &mut Eval, shared| ended(eval, shared, asked.err()));
        }
    })]
}

/// Returns whether all have answered: false if they were cancelled.
fn ask(calls: Vec<(String, Call)>, cancel: &CancelToken, sender: &Sender) -> Result<bool, String> {
    for (name, call) in calls {
        let outcome = call.run(cancel, &mut |line| {
            let name = name.clone();
            sender.send(move |eval: &mut Eval, _| on_output(eval, line, &name));
        });
        match outcome {
            Ok(Some(exit)) if exit.success => {}
            Ok(Some(exit)) => return Err(format!("{name}: {}", exit.reason())),
            Ok(None) => return Ok(false),
            Err(error) => return Err(format!("{name}: {error}")),
        }
    }
    Ok(true)
}

fn on_output(eval: &mut Eval, line: OutputLine, name: &str) -> Vec<Command> {
    let Some(chat) = &mut eval.chat else {
        return Vec::new();
    };
    match line {
        OutputLine::Progress(line) => {
            if let Some((_, progress)) = &mut chat.job {
                *progress = format!("{name}: {line}");
            }
        }
        OutputLine::Result(line) => {
            if let Some(record) = serde_json::from_str(&line).ok().and_then(record) {
                chat.answers.push((name.to_owned(), record));
            }
        }
    }
    Vec::new()
}

/// A line of `sample --json`.
fn record(value: Value) -> Option<EvalRecord> {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let chain: Option<Box<ToolChain>> =
        serde_json::from_value(value["chain"].clone()).unwrap_or_default();
    let before = chain.as_ref().map_or(0, |chain| chain.tokens());
    Some(EvalRecord {
        prompt_id: text("prompt_id")?,
        completion: text("completion")?,
        reward: value["reward"].as_f64().unwrap_or(f64::NAN),
        tier: Tier::from_name(value["tier"].as_str()?)?,
        tolerant: value["tolerant"] == true,
        exact: value["exact"].as_bool(),
        tokens: value["token_ids"].as_array().map(|ids| ids.len() + before),
        call_seconds: serde_json::from_value(value["call_seconds"].clone()).unwrap_or_default(),
        chain,
        truncated: value["stop_reason"]
            .as_str()
            .and_then(StopReason::from_name)
            .is_some_and(StopReason::is_truncated),
        score: value,
        ..EvalRecord::default()
    })
}

fn ended(eval: &mut Eval, shared: &mut Shared, why: Option<String>) -> Vec<Command> {
    if let Some(chat) = &mut eval.chat {
        chat.job = None;
        if let Some(why) = &why {
            shared.complain(why.clone());
        }
        chat.error = why;
    }
    Vec::new()
}

fn cancel(chat: &mut Chat) {
    if let Some((token, _)) = chat.job.take() {
        token.cancel();
    }
}

/// Moves the focus from the prompt to the answers, or from these out of the pane; keeps the prompt.
pub(super) fn leave(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    if let Some(chat) = &mut eval.chat
        && chat.is_typing
        && !chat.answers.is_empty()
    {
        chat.is_typing = false;
        return Vec::new();
    }
    let Some(mut chat) = eval.chat.take() else {
        return Vec::new();
    };
    cancel(&mut chat);
    let (folder, prompt) = (shared.options.data.clone(), chat.editor.text());
    if prompt.trim().is_empty() {
        return Vec::new();
    }
    vec![Work::once(
        "eval.chat.keep",
        move || keep(&folder.join(FILE), &prompt),
        |_: &mut Eval, shared, kept| {
            if let Err(why) = kept {
                shared.complain(why);
            }
            Vec::new()
        },
    )]
}

pub(super) fn edit(eval: &mut Eval, _: &mut Shared) -> Vec<Command> {
    if let Some(chat) = &mut eval.chat {
        chat.is_typing = true;
    }
    Vec::new()
}

/// The prompt and the answers with their numbers: the one that has the keys is the first.
pub(super) fn places(chat: &Chat, area: Rect) -> [Place; 2] {
    let rows = (chat.editor.lines().len() + 3).clamp(5, usize::from(area.height / 2).max(5)) as u16;
    let [prompt, below] =
        Layout::vertical([Constraint::Length(rows), Constraint::Fill(1)]).areas(area);
    let place = |part, area| Place {
        part,
        ..Place::new(CHAT, area)
    };
    [
        place(usize::from(!chat.is_typing), prompt),
        place(usize::from(chat.is_typing), below),
    ]
}

pub(super) fn content<'a>(
    chat: &'a Chat,
    shared: &'a Shared,
    side_by_side: Option<bool>,
    place: &Place,
) -> Content<'a> {
    let typing = chat.is_typing;
    if (place.part == 0) == typing {
        let title = format!("your prompt: {} asks", shared.key_of("eval.chat.send"));
        let wraps = shared.wraps(&chat.editor);
        return Content::titled(title).editor(&chat.editor, typing, wraps);
    }
    let lines = lines(chat, shared, side_by_side, place.inside().width.into());
    Content::titled(answers_title(shared)).text(place.inside(), lines, chat.top)
}

/// The task that the answers are scored by: a run's own, which may not be the open one.
fn answers_title(shared: &Shared) -> String {
    let run = shared.current_run().and_then(|run| run.directory.as_ref());
    let task = run_task_argument(shared).map_or_else(String::new, |(_, name)| match run {
        Some(run) => format!("scored by {name}, the task of run {}, ", short_id(run.id())),
        None => format!("scored by {name} as saved, "),
    });
    format!("answers: greedy, {task}without an expected answer")
}

fn lines(
    chat: &Chat,
    shared: &Shared,
    side_by_side: Option<bool>,
    width: usize,
) -> Vec<Line<'static>> {
    let theme = &shared.theme;
    let sides: Vec<(&str, &EvalRecord)> = chat
        .answers
        .iter()
        .map(|(name, record)| (name.as_str(), record))
        .collect();
    let mut lines = answers::judged(theme, &sides, width);
    let state = match (&chat.job, &chat.error) {
        (Some((_, progress)), _) => Some((progress.clone(), Role::Accent)),
        (None, Some(error)) => Some((error.clone(), Role::Bad)),
        (None, None) if sides.is_empty() => match self::sides(shared) {
            Ok(sides) => {
                let names: Vec<String> = sides.into_iter().map(|(name, _)| name).collect();
                Some((format!("will answer: {}", names.join(", ")), Role::Faint))
            }
            Err(why) => Some((why, Role::Bad)),
        },
        (None, None) => None,
    };
    if let Some((text, role)) = state {
        let wrapped = crate::widgets::text_width::wrapped(&text, width);
        lines.extend(wrapped.into_iter().map(|line| theme.line(line, role)));
    }
    if !sides.is_empty() {
        lines.push(Line::default());
        let side = side_by_side.unwrap_or(width >= answers::SIDES);
        lines.extend(conversations::lines(shared, &sides, side, width));
        lines.extend(answers::texts(theme, &sides, side, width));
        lines.extend(answers::stated(theme, &sides));
    }
    lines
}
