//! What Cargo's crates leave open: the arrows between the modules of a crate, the dependencies each of them may name,
//! and the shape of every file, read from the source text.

mod circles;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Which modules may name a crate that their package has; Cargo sees to the others. `cli` is all of the root's own code.
const CRATES: &[(&str, &[&str])] = &[
    ("tokenizers", &["text"]),
    ("base64", &["view"]),
    ("minijinja", &["text", "dataset", "report"]),
    ("minijinja_contrib", &["text", "dataset"]),
    ("csv", &["dataset"]),
    ("parquet", &["dataset"]),
    ("rusqlite", &["sqlite"]),
    ("saphyr_parser", &["score"]),
    ("sqlparser", &["score", "help"]),
    ("jsonschema", &["environment", "score", "constraint"]),
    ("jsonschema_regex", &["constraint"]),
    ("referencing", &["constraint"]),
    ("llguidance", &["constraint"]),
    ("ureq", &["http", "hub", "api_client"]),
    ("nvml_wrapper", &["run"]),
    ("regex", &["score", "prompts", "constraint", "view"]),
    ("regex_syntax", &["score", "constraint"]),
    ("notify", &["run"]),
    (
        "tokio",
        &[
            "view",
            "eval",
            "rollout",
            "generation",
            "gateway",
            "policy",
            "serve",
        ],
    ),
    ("directories", &["sandbox", "score", "run", "view", "cli"]),
    ("rmp_serde", &["ranks"]),
    (
        "rustix",
        &[
            "files",
            "sandbox",
            "plan",
            "ranks",
            "run",
            "constraint",
            "serve",
            "view",
        ],
    ),
    // close_range for launched programs, clone for sandboxes, _exit where a loop or a lost terminal will not let go,
    // dlopen of NVIDIA's libraries.
    (
        "libc",
        &["files", "sandbox", "sqlite", "run", "view", "kernels"],
    ),
    ("landlock", &["sandbox"]),
    ("seccompiler", &["sandbox"]),
    ("axum", &["generation", "gateway", "serve"]),
    ("futures_util", &["generation", "policy"]),
    ("http_body_util", &["generation", "serve"]),
    ("hyper", &["gateway", "serve"]),
    ("hyper_util", &["gateway", "serve"]),
    ("sha1", &["hub"]),
    ("zstd", &["run"]),
    // The root has these for its tests.
    ("candle_core", &ENGINE),
    ("safetensors", &ENGINE),
    ("crossterm", &["view"]),
    ("ratatui", &["view"]),
    ("unicode_width", &["view", "page", "report"]),
];
const ENGINE: [&str; 11] = [
    "kernels",
    "model",
    "ranks",
    "constraint",
    "rollout",
    "policy",
    "update",
    "leaf_confidence",
    "checkpoint",
    "eval",
    "train",
];

/// Modules that read tasks, models and runs, which others may have written: they open files through `files`.
const READERS: [&str; 16] = [
    "hub",
    "task",
    "text",
    "dataset",
    "api_client",
    "sandbox",
    "environment",
    "score",
    "run",
    "report",
    "endpoint",
    "study",
    "model",
    "checkpoint",
    "eval",
    "train",
];
/// What opens a file whatever it is.
const OPENERS: [&str; 3] = ["fs::read(", "fs::read_to_string(", "File::open("];
/// Files of these modules that open something else: a folder to lock, the system's files.
const OPEN_OTHERS: [&str; 1] = ["crates/core/src/run/devices/device_slots.rs"];

const LINE_LIMIT: usize = 700;
const EMPTY_NAMES: [&str; 4] = ["utils", "helpers", "common", "misc"];

/// Everything that is wrong with one file; `path` is relative to the package, such as `src/score/mod.rs`.
fn violations(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//! ") {
        found.push(format!(
            "{path}:1: the first line does not begin with `//! `"
        ));
    }
    let lines = text.lines().count();
    if lines > LINE_LIMIT {
        found.push(format!("{path}: {lines} lines, the limit is {LINE_LIMIT}"));
    }
    if let Some(name) = path
        .split(['/', '.'])
        .find(|part| EMPTY_NAMES.contains(part))
    {
        found.push(format!(
            "{path}: `{name}` says nothing about what is inside"
        ));
    }
    let Some(module) = module_of(path) else {
        return found;
    };
    for (index, (line, code)) in text.lines().zip(code_lines(text)).enumerate() {
        let wrong = opens_itself(path, module, line)
            .into_iter()
            .chain(wrong_modules(path, module, &code));
        let wrong = wrong
            .chain(wrong_crates(module, &code))
            .chain(leaves_module(path, &code))
            .chain(compiled_elsewhere(path, &code));
        found.extend(
            wrong
                .chain(other_way_out(path, &code))
                .map(|what| format!("{path}:{}: {what}", index + 1)),
        );
    }
    found
}

fn opens_itself(path: &str, module: &str, line: &str) -> Option<String> {
    let is_other =
        OPEN_OTHERS.contains(&path) || line.contains("\"/proc") || line.contains("\"/dev");
    let opens = READERS.contains(&module)
        && !is_other
        && OPENERS.iter().any(|opener| line.contains(opener));
    opens.then(|| {
        "opens a file itself; `crate::files` refuses what would wait, act or never end".to_owned()
    })
}

/// A kernel that is generic over an argument is compiled with its caller's crate, for size, and slower.
fn compiled_elsewhere(path: &str, line: &str) -> Option<String> {
    // Called by kernels alone.
    let own = ["kernels/src/cuda.rs", "kernels/src/cuda_errors.rs"].contains(&path);
    let is_kernel = path.starts_with("kernels/src/") && !own;
    (is_kernel && line.contains(": impl Into<"))
        .then(|| "`impl Into` has a kernel compiled with its caller; take the type".to_owned())
}

/// The module below its crate's root that a file belongs to, or its crate; none for the roots and the tests.
fn module_of(path: &str) -> Option<&str> {
    let inside = ["src/", "crates/core/src/", "crates/engine/src/"]
        .iter()
        .find_map(|source| path.strip_prefix(source));
    let whole = [("kernels/", "kernels"), ("crates/view/", "view")];
    match inside {
        Some(inside) => inside.split_once('/').map(|(module, _)| module),
        None => whole
            .iter()
            .find(|(folder, _)| path.starts_with(folder))
            .map(|(_, module)| *module),
    }
}

/// The lines before `#[cfg(test)]`, each without comments and without what stands in double quotes; a `use` over
/// several lines is moved to its first.
fn code_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut open_since = None;
    for line in text
        .lines()
        .take_while(|line| !line.trim_start().starts_with("#[cfg(test)]"))
    {
        let code = without_texts(line.split("//").next().unwrap_or_default());
        match open_since {
            Some(first) => {
                lines[first] = format!("{} {}", lines[first], code.trim());
                lines.push(String::new());
            }
            None => lines.push(code),
        }
        let first = open_since.unwrap_or(lines.len() - 1);
        let is_open = lines[first].contains("::{")
            && lines[first].matches('{').count() > lines[first].matches('}').count();
        open_since = (is_open && lines[first].contains("use ")).then_some(first);
    }
    lines
}

fn without_texts(line: &str) -> String {
    line.replace("'\"'", "' '")
        .split('"')
        .step_by(2)
        .collect::<Vec<_>>()
        .join("\"\"")
}

/// All paths of a text, such as `a::b`: of `a::{b, c}` one each.
fn paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let (mut stack, mut word) = (vec![String::new()], String::new());
    for character in code.chars().chain([' ']) {
        match character {
            _ if character.is_alphanumeric() || character == '_' || character == ':' => {
                word.push(character)
            }
            '{' if word.ends_with("::") => stack.push(format!(
                "{}{}",
                stack.last().unwrap(),
                std::mem::take(&mut word)
            )),
            _ => {
                // Nothing, as after a comma in braces, is no path.
                if !word.is_empty() {
                    paths.push(format!(
                        "{}{}",
                        stack.last().unwrap(),
                        std::mem::take(&mut word)
                    ));
                }
                if character == '}' && stack.len() > 1 {
                    stack.pop();
                }
                if character == ';' {
                    stack.truncate(1);
                }
            }
        }
    }
    paths.retain(|path| path.contains("::"));
    paths
}

/// The modules that a file lists, in order.
fn order_of(list: &str) -> Vec<String> {
    let list = read_to_string(package().join(list)).unwrap();
    let lines = list
        .lines()
        .map(|line| line.strip_prefix("pub ").unwrap_or(line));
    lines
        .filter_map(|line| Some(line.strip_prefix("mod ")?.split(';').next()?.to_owned()))
        .collect()
}

/// Modules of the same crate that are listed after the one that uses them.
fn wrong_modules(path: &str, module: &str, code: &str) -> Vec<String> {
    static ORDERS: LazyLock<[Vec<String>; 2]> =
        LazyLock::new(|| ["crates/core/src/lib.rs", "crates/engine/src/lib.rs"].map(order_of));
    let position = |order: &[String], module: &str| order.iter().position(|other| other == module);
    let order = &ORDERS[usize::from(path.starts_with("crates/engine/"))];
    let Some(own) = position(order, module).filter(|_| path.starts_with("crates/")) else {
        return Vec::new();
    };
    let paths = paths(code);
    let named = paths.iter().filter_map(|path| {
        path.split_once("crate::")
            .or_else(|| path.split_once("grpo_tui::"))
    });
    let named: BTreeSet<&str> = named
        .filter_map(|(_, inside)| inside.split("::").next())
        .collect();
    let is_below = |named: &&str| position(order, named).is_some_and(|other| other > own);
    named
        .into_iter()
        .filter(is_below)
        .map(|named| format!("`{module}` uses `{named}`, which is not above it"))
        .collect()
}

fn wrong_crates(module: &str, line: &str) -> Vec<String> {
    let words = line.split(|character: char| !character.is_alphanumeric() && character != '_');
    let barred = |word: &&str| {
        let is_other = CRATES
            .iter()
            .any(|(name, modules)| name == word && !modules.contains(&module));
        is_other && (line.contains(&format!("{word}::")) || line.contains(&format!("use {word} ")))
    };
    words
        .filter(barred)
        .map(|word| format!("`{module}` names the crate `{word}`"))
        .collect()
}

/// `super::super::…` that climbs out of its module: the arrow would be hidden.
fn leaves_module(path: &str, line: &str) -> Option<String> {
    // The crates that are one module: nothing is outside.
    if path.starts_with("crates/view/") || path.starts_with("kernels/") {
        return None;
    }
    let file = path.rsplit('/').next().unwrap_or_default();
    let folders = path
        .rsplit_once("src/")
        .map_or(0, |(_, inside)| inside.matches('/').count());
    let depth = if file == "mod.rs" {
        folders
    } else {
        folders + 1
    };
    let chain = "super::".repeat(depth);
    line.contains(&chain)
        .then(|| format!("`{chain}` leaves the module; write `crate::` so that the arrow is seen"))
}

/// Text that goes to the terminal another way than through `cli/output.rs`, which lets no control character out, or
/// through the view's terminal. In `cli` `println!` and `eprintln!` are `output`'s own.
fn other_way_out(path: &str, line: &str) -> Option<String> {
    // A worker that has lost its folder ends at once and says why in its own log, made visible there.
    let own = [
        "src/cli/output.rs",
        "crates/core/src/run/control/listener.rs",
    ]
    .contains(&path)
        || path.starts_with("crates/view/src/terminal/");
    let words = line
        .split(|character: char| !(character.is_alphanumeric() || "_!().:".contains(character)));
    let is_way = |word: &str| {
        let is_call = |name: &str| word.starts_with(name) || word.contains(&format!("::{name}"));
        let lines =
            !path.starts_with("src/cli/") && (is_call("println!(") || is_call("eprintln!("));
        let handle = word.contains("stdout()") || word.contains("stderr()");
        let raw = is_call("print!(")
            || is_call("eprint!(")
            || word.contains("std::println!")
            || word.contains("std::eprintln!");
        lines || raw || (handle && !word.contains("is_terminal()"))
    };
    let found = if own {
        None
    } else {
        words.into_iter().find(|word| is_way(word))
    };
    found.map(|word| format!("`{word}` writes to the terminal; go through `cli::output`"))
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_file_keeps_the_rules() {
    let mut files = Vec::new();
    for folder in ["src", "crates", "kernels/src", "tests", "benches"] {
        rust_files(&package().join(folder), &mut files);
    }
    assert!(files.len() > 20, "only {} files found", files.len());
    let mut found = Vec::new();
    for file in files {
        let path = file
            .strip_prefix(package())
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        found.extend(violations(&path, &read_to_string(&file).unwrap()));
    }
    assert!(
        found.is_empty(),
        "{} violations:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn each_rule_can_fail() {
    let check = |path: &str, text: &str, expected: &[&str]| {
        let found = violations(path, text);
        assert_eq!(
            found.len(),
            expected.len(),
            "{path}: {text:?} gave {found:?}"
        );
        for (message, part) in found.iter().zip(expected) {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    };
    let head = "//! One idea.\n";
    let with = |line: &str| format!("{head}{line}\n");
    // Shape.
    check("crates/core/src/score/mod.rs", head, &[]);
    check(
        "crates/core/src/score/mod.rs",
        "use std::fmt;\n",
        &["score/mod.rs:1: the first line"],
    );
    check("crates/core/src/score/mod.rs", "//!\n", &["the first line"]);
    let longest = head.repeat(LINE_LIMIT);
    check("crates/core/src/score/mod.rs", &longest, &[]);
    check(
        "crates/core/src/score/mod.rs",
        &format!("{longest}{head}"),
        &["lines, the limit is"],
    );
    check("crates/core/src/score/utils.rs", head, &["`utils`"]);
    check("src/helpers/mod.rs", head, &["`helpers` says nothing"]);
    check("tests/common/mod.rs", head, &["`common`"]);
    // Arrows.
    check(
        "crates/core/src/score/mod.rs",
        &with("use crate::task::Task;"),
        &[],
    );
    check(
        "crates/core/src/score/mod.rs",
        &with("use crate::score::Tier;"),
        &[],
    );
    check(
        "crates/core/src/score/mod.rs",
        &with("use crate::report::Page;"),
        &["score/mod.rs:2: `score` uses `report`"],
    );
    check(
        "crates/core/src/hub/cache.rs",
        &with("let x = crate::task::read();"),
        &["`hub` uses `task`"],
    );
    check(
        "crates/engine/src/model/mod.rs",
        &with("use grpo_tui::rollout::Sampler;"),
        &["`model` uses `rollout`"],
    );
    check(
        "crates/core/src/task/mod.rs",
        &with("use crate::{hub::find_model, score::{Scorer, train}, study};"),
        &["uses `score`", "uses `study`"],
    );
    check(
        "crates/core/src/task/mod.rs",
        &with("use crate::{\n    hub::{a, b},\n    score::c,\n};\nuse crate::study;"),
        &[
            "mod.rs:2: `task` uses `score`",
            "mod.rs:6: `task` uses `study`",
        ],
    );
    check(
        "crates/view/src/screens/run.rs",
        &with("use super::super::Model;"),
        &[],
    );
    check("src/cli/train.rs", &with("use crate::{train, view};"), &[]);
    check(
        "crates/core/src/text/mod.rs",
        &with("use super::train::x;"),
        &["leaves the module"],
    );
    check(
        "crates/core/src/text/template.rs",
        &with("use super::Message;"),
        &[],
    );
    check(
        "crates/core/src/text/template.rs",
        &with("use super::super::train::x;"),
        &["leaves the module"],
    );
    check(
        "kernels/src/attention.rs",
        &with("    attention: impl Into<Attention<'a>>,"),
        &["take the type"],
    );
    // Crates.
    check("kernels/src/lib.rs", &with("use candle_core::Tensor;"), &[]);
    check(
        "src/cli/train.rs",
        &with("use candle_core as core;"),
        &["`cli` names the crate `candle_core`"],
    );
    check(
        "src/cli/runs/attach.rs",
        &with("use ratatui::Frame;"),
        &["`cli` names the crate `ratatui`"],
    );
    check(
        "crates/core/src/run/mod.rs",
        &with("use tokenizers::Tokenizer;"),
        &["`run` names the crate `tokenizers`"],
    );
    check(
        "crates/core/src/run/mod.rs",
        &with("let tokenizers = 3;"),
        &[],
    );
    check(
        "crates/core/src/score/mod.rs",
        &with("let schema = jsonschema::validator_for(x);"),
        &[],
    );
    check(
        "crates/core/src/dataset/mod.rs",
        &with("let schema = jsonschema::validator_for(x);"),
        &["`dataset` names the crate `jsonschema`"],
    );
    // Ways to the terminal.
    check(
        "crates/core/src/run/mod.rs",
        &with("println!(\"x\");"),
        &["go through `cli::output`"],
    );
    check(
        "src/cli/score.rs",
        &with("println!(\"x\"); eprintln!(\"x\");"),
        &[],
    );
    check(
        "src/cli/score.rs",
        &with("std::println!(\"x\");"),
        &["std::println!"],
    );
    check("src/cli/score.rs", &with("print!(\"x\");"), &["print!("]);
    check(
        "src/cli/score.rs",
        &with("let mut out = std::io::stdout().lock();"),
        &["stdout()"],
    );
    check(
        "src/cli/score.rs",
        &with("writeln!(io::stderr(), \"x\");"),
        &["stderr()"],
    );
    check(
        "src/cli/score.rs",
        &with("if std::io::stderr().is_terminal() { Command::new(x).stdout(Stdio::null()); }"),
        &[],
    );
    check(
        "src/cli/output.rs",
        &with("let mut out = std::io::stdout().lock();"),
        &[],
    );
    // Opening files.
    check(
        "crates/core/src/run/state.rs",
        &with("let text = std::fs::read_to_string(path)?;"),
        &["opens a file itself"],
    );
    check(
        "crates/core/src/run/state.rs",
        &with("let text = std::fs::read_to_string(\"/proc/self/stat\")?;"),
        &[],
    );
    check(
        "crates/core/src/hub/cache.rs",
        &with("let file = crate::files::open(path)?;"),
        &[],
    );
    check(
        "src/cli/train.rs",
        &with("let file = File::open(path)?;"),
        &[],
    );
    // Not code: comments, texts, test modules.
    check(
        "crates/core/src/hub/mod.rs",
        &with("// crate::study and rusqlite::Row"),
        &[],
    );
    check(
        "crates/core/src/hub/mod.rs",
        &with("let x = \"crate::study rusqlite::Row\";"),
        &[],
    );
    check(
        "crates/core/src/hub/mod.rs",
        &with("#[cfg(test)]\nmod tests { use crate::study; }"),
        &[],
    );
}
