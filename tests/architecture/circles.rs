//! Which file names which, and that no two do so in a circle.

use super::*;

/// The files that a file of the view names, in `use` and in paths, test code aside; `modules` are all files by their
/// module's path.
fn files_named<'a>(module: &[&str], text: &str, modules: &'a BTreeMap<Vec<String>, String>) -> BTreeSet<&'a str> {
    let lines = code_lines(text).join(" ");
    // What stands in braces behind a path is a path each.
    let mut paths = Vec::new();
    let (mut stack, mut word) = (vec![String::new()], String::new());
    for character in lines.chars() {
        match character {
            _ if character.is_alphanumeric() || character == '_' || character == ':' => word.push(character),
            '{' if word.ends_with("::") => {
                stack.push(format!("{}{}", stack.last().unwrap(), std::mem::take(&mut word)))
            }
            _ => {
                // Nothing, as after a comma in braces, is no path.
                if !word.is_empty() {
                    paths.push(format!("{}{}", stack.last().unwrap(), std::mem::take(&mut word)));
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
    paths.iter().filter(|path| path.contains("::")).filter_map(|path| file_of(module, path, modules)).collect()
}

/// The file of the longest beginning of a path that is a module.
fn file_of<'a>(module: &[&str], path: &str, modules: &'a BTreeMap<Vec<String>, String>) -> Option<&'a str> {
    let mut parts = path.split("::").peekable();
    let mut place: Vec<String> = match parts.peek()? {
        &"crate" => Vec::new(),
        &"super" | &"self" => module.iter().map(|part| (*part).to_owned()).collect(),
        first => {
            let child: Vec<String> = module.iter().chain([first]).map(|part| (*part).to_owned()).collect();
            modules.contains_key(&child).then(|| module.iter().map(|part| (*part).to_owned()).collect())?
        }
    };
    while let Some(part) = parts.next_if(|part| ["crate", "super", "self"].contains(part)) {
        if part == "super" {
            place.pop();
        }
    }
    // `crate::config` is of the crate below.
    let is_below =
        |first: &&str| first.starts_with(char::is_lowercase) && !modules.contains_key(&[(*first).to_owned()][..]);
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

/// Files that name each other, directly or through others, each with the others of its circle.
fn circles<'a>(arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<BTreeSet<&'a str>> {
    let reach = |from: &'a str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            open.extend(arrows.get(file).into_iter().flatten().filter(|next| seen.insert(**next)));
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = arrows.keys().map(|file| (*file, reach(file))).collect();
    let circle = |file: &&'a str| -> BTreeSet<&'a str> {
        reached[file]
            .iter()
            .filter(|other| reached.get(**other).is_some_and(|back| back.contains(file)))
            .copied()
            .collect()
    };
    let found: BTreeSet<BTreeSet<&str>> = arrows.keys().map(circle).filter(|circle| circle.len() > 1).collect();
    found.into_iter().collect()
}

/// All modules of a library, by their paths.
fn modules(source: &Path) -> BTreeMap<Vec<String>, String> {
    let mut files = Vec::new();
    rust_files(source, &mut files);
    let module = |file: &PathBuf| {
        let path = file.strip_prefix(source).unwrap().to_str().unwrap().replace('\\', "/");
        let name = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let parts = if name == "lib" { Vec::new() } else { name.split('/').map(str::to_owned).collect() };
        (parts, path)
    };
    files.iter().map(module).filter(|(_, path)| path != "main.rs").collect()
}

#[test]
fn files_name_each_other_in_no_circle() {
    // What a room's own list hands on is asked of the view alone.
    let of = |rooms: &'static [&str]| {
        move |path: &str| rooms.contains(&path.split('/').next().unwrap_or_default()) && !path.ends_with("/mod.rs")
    };
    let core = of(&["dataset", "run", "report"]);
    no_circles(&package().join("crates/core/src"), core, &[("run/record/follow.rs", "run/record/reader.rs")]);
    let engine = of(&["rollout", "update", "checkpoint", "eval", "train", "bench"]);
    no_circles(&package().join("crates/engine/src"), engine, &[("train/step.rs", "train/recorder.rs")]);
    no_circles(&package().join("crates/view/src"), |_| true, &[("update.rs", "app.rs")]);
    // The files in a kernel's own folder belong to it.
    let is_kernel = |path: &str| path != "lib.rs" && !path.contains('/');
    no_circles(&package().join("kernels/src"), is_kernel, &[("rope.rs", "heads.rs")]);
}

/// `examples`: arrows that are there.
fn no_circles(source: &Path, is_read: impl Fn(&str) -> bool, examples: &[(&str, &str)]) {
    let (modules, mut arrows) = (modules(source), BTreeMap::new());
    for (module, path) in modules.iter().filter(|(_, path)| is_read(path)) {
        let module: Vec<&str> = module.iter().map(String::as_str).collect();
        let text = std::fs::read_to_string(source.join(path)).unwrap();
        let named = files_named(&module, &text, &modules).into_iter();
        arrows.insert(path.as_str(), named.filter(|other| is_read(other) && other != path).collect());
    }
    let is_found =
        |(from, to): &(&str, &str)| arrows.get(from).is_some_and(|named: &BTreeSet<&str>| named.contains(to));
    assert!(examples.iter().all(is_found), "the arrows are not read: {arrows:?}");
    let found = circles(&arrows);
    assert!(found.is_empty(), "files that name each other in a circle: {found:#?}");
}

#[test]
fn no_screen_names_another() {
    let source = package().join("crates/view/src");
    let modules = modules(&source);
    let screen = |path: &str| {
        path.strip_prefix("screens/").map(|rest| rest.split(['/', '.']).next().unwrap_or_default().to_owned())
    };
    let mut found = Vec::new();
    for (module, path) in &modules {
        let Some(own) = screen(path) else { continue };
        let module: Vec<&str> = module.iter().map(String::as_str).collect();
        let text = std::fs::read_to_string(source.join(path)).unwrap();
        let others = files_named(&module, &text, &modules)
            .into_iter()
            .filter(|other| screen(other).is_some_and(|other| other != own));
        found.extend(others.map(|other| format!("{path} names {other}")));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_circle_is_found() {
    let modules: BTreeMap<Vec<String>, String> = [("a", "a.rs"), ("a::b", "a/b.rs"), ("c", "c.rs")]
        .map(|(module, file)| (module.split("::").map(str::to_owned).collect(), file.to_owned()))
        .into();
    let check = |module: &[&str], text: &str, expected: &[&str]| {
        assert_eq!(files_named(module, text, &modules).into_iter().collect::<Vec<_>>(), expected, "{text}");
    };
    check(&["a"], "use crate::{c::X, a::b::{Y, Z}};", &["a/b.rs", "c.rs"]);
    check(&["a"], "let x = b::y(); // crate::c::z", &["a/b.rs"]);
    check(&["a", "b"], "use super::X;\n#[cfg(test)]\nmod tests { use crate::c::X; }", &["a.rs"]);
    check(&["a", "b"], "use super::{ b };", &["a/b.rs"]);
    check(&["c"], "use std::fmt;\nlet x = other::y;", &[]);
    let arrows = |pairs: &[(&'static str, &'static str)]| {
        let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        pairs.iter().for_each(|(from, to)| _ = arrows.entry(from).or_default().insert(to));
        circles(&arrows)
    };
    assert_eq!(arrows(&[("a", "b"), ("b", "c"), ("a", "c")]).len(), 0);
    assert_eq!(arrows(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]), [BTreeSet::from(["a", "b", "c"])]);
}
