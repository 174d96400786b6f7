//! Which file names which, and that no two do so in a circle.

use super::*;

/// The files that a file names, in `use` and in paths, test code aside; `modules` are all files by their
/// module's path.
fn files_named<'a>(
    module: &[&str],
    text: &str,
    modules: &'a BTreeMap<Vec<String>, String>,
) -> BTreeSet<&'a str> {
    paths(&without_visibility(&code_lines(text).join(" ")))
        .iter()
        .filter_map(|path| file_of(module, path, modules))
        .collect()
}

/// `pub(in crate::run)` names nothing.
fn without_visibility(code: &str) -> String {
    let mut pieces = code.split("pub(in ");
    let first = pieces.next();
    let after = pieces.filter_map(|piece| Some(piece.split_once(')')?.1));
    first.into_iter().chain(after).collect()
}

/// The file of the longest beginning of a path that is a module.
fn file_of<'a>(
    module: &[&str],
    path: &str,
    modules: &'a BTreeMap<Vec<String>, String>,
) -> Option<&'a str> {
    let mut parts = path.split("::").peekable();
    let mut place: Vec<String> = match parts.peek()? {
        &"crate" => Vec::new(),
        &"super" | &"self" => module.iter().map(|part| (*part).to_owned()).collect(),
        first => {
            let child: Vec<String> = module
                .iter()
                .chain([first])
                .map(|part| (*part).to_owned())
                .collect();
            modules
                .contains_key(&child)
                .then(|| module.iter().map(|part| (*part).to_owned()).collect())?
        }
    };
    while let Some(part) = parts.next_if(|part| ["crate", "super", "self"].contains(part)) {
        if part == "super" {
            place.pop();
        }
    }
    // `crate::config` is of the crate below.
    let is_below = |first: &&str| {
        first.starts_with(char::is_lowercase) && !modules.contains_key(&[(*first).to_owned()][..])
    };
    if place.is_empty() && parts.peek().is_some_and(is_below) {
        return None;
    }
    for part in parts {
        place.push(part.to_owned());
        if !modules.contains_key(&place) {
            place.pop();
            break;
        }
    }
    modules.get(&place).map(String::as_str)
}

/// What is named by each.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Those that name each other, directly or through others, each with the others of its circle.
fn circles(arrows: &Arrows) -> Vec<BTreeSet<String>> {
    let reach = |from: &String| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(next) = open.pop() {
            open.extend(
                arrows
                    .get(next)
                    .into_iter()
                    .flatten()
                    .filter(|next| seen.insert((*next).clone())),
            );
        }
        seen
    };
    let reached: Arrows = arrows
        .keys()
        .map(|from| (from.clone(), reach(from)))
        .collect();
    let circle = |(from, named): (&String, &BTreeSet<String>)| -> BTreeSet<String> {
        named
            .iter()
            .filter(|other| reached.get(*other).is_some_and(|back| back.contains(from)))
            .cloned()
            .collect()
    };
    let found: BTreeSet<_> = reached
        .iter()
        .map(circle)
        .filter(|circle| circle.len() > 1)
        .collect();
    found.into_iter().collect()
}

/// All modules of a library, by their paths.
fn modules(source: &Path) -> BTreeMap<Vec<String>, String> {
    let mut files = Vec::new();
    rust_files(source, &mut files);
    let module = |file: &PathBuf| {
        let path = file
            .strip_prefix(source)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        let name = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let parts = if name == "lib" {
            Vec::new()
        } else {
            name.split('/').map(str::to_owned).collect()
        };
        (parts, path)
    };
    files
        .iter()
        .map(module)
        .filter(|(_, path)| path != "main.rs")
        .collect()
}

#[test]
fn files_name_each_other_in_no_circle() {
    let rooms = [
        "task",
        "dataset",
        "sandbox",
        "environment",
        "score",
        "prompts",
        "help",
        "run",
        "report",
    ];
    let core = |path: &str| rooms.contains(&path.split('/').next().unwrap_or_default());
    let source = package().join("crates/core/src");
    no_circles(
        &source,
        core,
        &[("run/record/follow.rs", "run/record/reader.rs")],
    );
    // A file and its own folder are one: in other rooms, and among commands
    // (`commands_name_each_other_in_no_circle` reads them together).
    let has_folder = |source: &Path, path: &str| {
        path.ends_with("/mod.rs") || source.join(path).with_extension("").is_dir()
    };
    no_circles(
        &source,
        |path| path != "lib.rs" && !has_folder(&source, path),
        &[("prove/ids.rs", "prove/replies.rs")],
    );
    // What a module's own list hands on is not asked of the engine.
    no_circles(
        &package().join("crates/engine/src"),
        |path| !path.ends_with("/mod.rs") && path != "lib.rs",
        &[("train/step.rs", "train/recorder.rs")],
    );
    no_circles(
        &package().join("crates/view/src"),
        |_| true,
        &[("update.rs", "app.rs")],
    );
    let source = package().join("src");
    no_circles(
        &source,
        |path| path != "lib.rs" && !has_folder(&source, path),
        &[("cli/eval.rs", "cli/eval_completions.rs")],
    );
    // The files in a kernel's own folder belong to it.
    let is_kernel = |path: &str| path != "lib.rs" && !path.contains('/');
    no_circles(
        &package().join("kernels/src"),
        is_kernel,
        &[("rope.rs", "heads.rs")],
    );
}

#[test]
fn files_of_training_name_only_those_below_them_in_their_list() {
    let arrows = arrows_in_order("crates/engine/src", "train/");
    assert!(arrows.len() > 20, "the arrows are not read: {arrows:?}");
    for (from, to) in &arrows {
        let above: Vec<_> = to.iter().filter(|to| *to < from).collect();
        assert!(above.is_empty(), "{from} names {above:?}, listed above it");
    }
}

#[test]
fn rooms_of_score_name_only_those_above_them_in_their_list() {
    let arrows = arrows_in_order("crates/core/src", "score/");
    assert!(arrows.len() > 8, "the arrows are not read: {arrows:?}");
    for (from, to) in &arrows {
        let below: Vec<_> = to.iter().filter(|to| *to > from).collect();
        assert!(below.is_empty(), "{from} names {below:?}, listed below it");
    }
}

/// The arrows between what a folder's list has, each with its place in the list.
fn arrows_in_order(source: &str, folder: &str) -> Arrows {
    let order = order_of(&format!("{source}/{folder}mod.rs"));
    let place = |path: &str| {
        let name = path.strip_prefix(folder)?.split(['/', '.']).next()?;
        let place = order.iter().position(|other| other == name)?;
        Some(format!("{place:02} {name}"))
    };
    arrows(&package().join(source), place)
}

/// A worker is started by its process, by hand or as a job, and asked by those who started it: these three are one.
#[test]
fn folders_of_a_run_name_each_other_in_no_circle() {
    let folder = |path: &str| Some(path.strip_prefix("run/")?.split_once('/')?.0.to_owned());
    let arrows = arrows(&package().join("crates/core/src"), |path| {
        folder(path).filter(|folder| !["control", "process", "slurm"].contains(&folder.as_str()))
    });
    assert!(
        arrows["record"].contains("storage"),
        "the arrows are not read: {arrows:?}"
    );
    assert_eq!(
        circles(&arrows),
        [],
        "folders that name each other in a circle"
    );
}

/// A command's own folder belongs to it; `runs` is a folder of commands.
#[test]
fn commands_name_each_other_in_no_circle() {
    let command = |path: &str| {
        let names = path.strip_prefix("cli/")?.trim_end_matches(".rs");
        let depth = 1 + usize::from(names.starts_with("runs/"));
        let command: Vec<_> = names.split('/').take(depth).collect();
        (command.last() != Some(&"mod")).then(|| command.join("/"))
    };
    let arrows = arrows(&package().join("src"), command);
    assert!(
        arrows["eval"].contains("eval_completions") && arrows["sweep"].contains("train"),
        "the arrows are not read: {arrows:?}"
    );
    assert_eq!(
        circles(&arrows),
        [],
        "commands that name each other in a circle"
    );
}

/// `examples`: arrows that are there.
fn no_circles(source: &Path, is_read: impl Fn(&str) -> bool, examples: &[(&str, &str)]) {
    let arrows = arrows(source, |path| is_read(path).then(|| path.to_owned()));
    let is_found =
        |(from, to): &(&str, &str)| arrows.get(*from).is_some_and(|named| named.contains(*to));
    assert!(
        examples.iter().all(is_found),
        "the arrows are not read: {arrows:?}"
    );
    let found = circles(&arrows);
    assert!(
        found.is_empty(),
        "files that name each other in a circle: {found:#?}"
    );
}

/// What each place of a library names; `place`: what a file belongs to, if it counts.
fn arrows(source: &Path, place: impl Fn(&str) -> Option<String>) -> Arrows {
    let (modules, mut arrows) = (modules(source), Arrows::new());
    for (module, path) in &modules {
        let Some(own) = place(path) else { continue };
        let module: Vec<&str> = module.iter().map(String::as_str).collect();
        let text = read_to_string(source.join(path)).unwrap();
        let named = files_named(&module, &text, &modules)
            .into_iter()
            .filter_map(&place);
        let named: Vec<String> = named.filter(|other| *other != own).collect();
        arrows.entry(own).or_default().extend(named);
    }
    arrows
}

#[test]
fn no_screen_names_another() {
    let screen = |path: &str| {
        Some(
            path.strip_prefix("screens/")?
                .split(['/', '.'])
                .next()?
                .to_owned(),
        )
    };
    let mut found = arrows(&package().join("crates/view/src"), screen);
    found.retain(|_, others| !others.is_empty());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_circle_is_found() {
    let modules: BTreeMap<Vec<String>, String> = [("a", "a.rs"), ("a::b", "a/b.rs"), ("c", "c.rs")]
        .map(|(module, file)| {
            (
                module.split("::").map(str::to_owned).collect(),
                file.to_owned(),
            )
        })
        .into();
    let check = |module: &[&str], text: &str, expected: &[&str]| {
        assert_eq!(
            files_named(module, text, &modules)
                .into_iter()
                .collect::<Vec<_>>(),
            expected,
            "{text}"
        );
    };
    check(
        &["a"],
        "use crate::{c::X, a::b::{Y, Z}};",
        &["a/b.rs", "c.rs"],
    );
    check(&["a"], "let x = b::y(); // crate::c::z", &["a/b.rs"]);
    check(
        &["a", "b"],
        "use super::X;\n#[cfg(test)]\nmod tests { use crate::c::X; }",
        &["a.rs"],
    );
    check(&["a", "b"], "use super::{ b };", &["a/b.rs"]);
    check(&["a", "b"], "pub(in crate::c) fn x(c: u8) {}", &[]);
    check(&["c"], "use std::fmt;\nlet x = other::y;", &[]);
    let of = |pairs: &[[&str; 2]]| {
        let mut arrows = Arrows::new();
        pairs.iter().for_each(|[from, to]| {
            _ = arrows
                .entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned())
        });
        circles(&arrows)
    };
    assert_eq!(of(&[["a", "b"], ["b", "c"], ["a", "c"]]), []);
    let all = ["a", "b", "c"].map(str::to_owned);
    assert_eq!(
        of(&[["a", "b"], ["b", "c"], ["c", "a"], ["d", "a"]]),
        [BTreeSet::from(all)]
    );
}
