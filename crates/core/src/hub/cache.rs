//! The local Hugging Face cache: its location, and the snapshot of a name.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Model folders of the Hugging Face libraries, most specific first; `variable` reads the
/// environment.
pub(super) fn cache_folders(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let given = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"];
    if let Some(folder) = given.iter().find_map(|name| set(&variable, name)) {
        return vec![folder];
    }
    if let Some(home) = set(&variable, "HF_HOME") {
        return vec![home.join("hub")];
    }
    user_cache(variable)
        .map(|cache| cache.join("huggingface").join("hub"))
        .into_iter()
        .collect()
}

pub(super) fn user_cache(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    set(&variable, "XDG_CACHE_HOME")
        .or_else(|| set(&variable, "HOME").map(|home| home.join(".cache")))
}

/// A folder from a variable, with `~` and variables expanded as in Python's huggingface_hub.
fn set(variable: impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    let value = variable(name).filter(|value| !value.is_empty())?;
    let Some(text) = value.to_str() else {
        return Some(value.into());
    };
    let home = variable("HOME").and_then(|home| home.into_string().ok());
    let text = match (text.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            format!("{}{rest}", home.trim_end_matches('/'))
        }
        _ => text.to_owned(),
    };
    let mut expanded = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('$') {
        let in_braces = after
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'));
        let length = after
            .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .unwrap_or(after.len());
        let (name, left) = in_braces.unwrap_or_else(|| after.split_at(length));
        expanded.push_str(before);
        match variable(name).and_then(|value| value.into_string().ok()) {
            Some(value) => expanded.push_str(&value),
            // An unset variable stays as written.
            None => expanded.push_str(&rest[before.len()..rest.len() - left.len()]),
        }
        rest = left;
    }
    expanded.push_str(rest);
    Some(PathBuf::from(expanded))
}

/// The folder of model `name` in `cache`; `None` for an invalid name.
pub(super) fn repository(cache: &Path, name: &str) -> Option<PathBuf> {
    let parts: Vec<&str> = name.split('/').collect();
    let plain = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || "._-".contains(character))
    };
    (parts.len() <= 2 && parts.iter().all(plain))
        .then(|| cache.join(format!("models--{}", parts.join("--"))))
}

pub(super) fn snapshot(cache: &Path, name: &str) -> Option<PathBuf> {
    let repository = repository(cache, name)?;
    let snapshots = repository.join("snapshots");
    if let Ok(hash) = crate::files::read_text(&repository.join("refs").join("main")) {
        let folder = snapshots.join(hash.trim());
        if !hash.trim().is_empty() && folder.is_dir() {
            return Some(folder);
        }
    }
    let mut folders = std::fs::read_dir(&snapshots)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    let only = folders.next()?;
    folders.next().is_none().then_some(only)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_cache() {
        let check = |set: &[(&str, &str)], expected: &[&str]| {
            let read = |name: &str| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| OsString::from(value))
            };
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(cache_folders(read), expected, "{set:?}");
        };
        check(&[("HOME", "/h")], &["/h/.cache/huggingface/hub"]);
        check(
            &[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")],
            &["/c/huggingface/hub"],
        );
        check(&[("HOME", "/h"), ("HF_HOME", "/f")], &["/f/hub"]);
        check(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/g")], &["/g"]);
        let old = ("HUGGINGFACE_HUB_CACHE", "/o");
        check(&[("HF_HOME", "/f"), old], &["/o"]);
        check(&[("HF_HUB_CACHE", "/g"), old], &["/g"]);
        for (home, expected) in [
            ("~/x", "/h/x/hub"),
            ("~", "/h/hub"),
            ("~other/x", "~other/x/hub"),
            ("$HOME/x", "/h/x/hub"),
            ("${HOME}x/$V_1", "/hx/v/hub"),
            ("/a/$UNSET/${UNSET}/$", "/a/$UNSET/${UNSET}/$/hub"),
        ] {
            check(
                &[("HOME", "/h"), ("V_1", "v"), ("HF_HOME", home)],
                &[expected],
            );
        }
        check(
            &[("HOME", "/h"), ("HF_HUB_CACHE", "~/c/$HOME")],
            &["/h/c//h"],
        );
        check(
            &[("HOME", "/h"), ("XDG_CACHE_HOME", "~/c")],
            &["/h/c/huggingface/hub"],
        );
        check(
            &[("HOME", "/h"), ("HF_HOME", "")],
            &["/h/.cache/huggingface/hub"],
        );
        check(&[], &[]);
    }

    #[test]
    fn a_name_means_the_snapshot_of_main_or_the_only_one() {
        let work = tempfile::tempdir().unwrap();
        let make = |repository: &str, main: Option<&str>, hashes: &[&str]| {
            let folder = work.path().join(repository);
            std::fs::create_dir_all(folder.join("refs")).unwrap();
            for hash in hashes {
                std::fs::create_dir_all(folder.join("snapshots").join(hash)).unwrap();
            }
            if let Some(main) = main {
                std::fs::write(folder.join("refs/main"), main).unwrap();
            }
        };
        make("models--org--two", Some("bbb"), &["aaa", "bbb"]);
        make("models--org--one", None, &["aaa"]);
        make("models--org--unclear", None, &["aaa", "bbb"]);
        make("models--plain", Some("ccc"), &["ccc"]);
        make("models--org--gone", Some("ddd"), &[]);
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(
                snapshot(work.path(), name),
                expected.map(|path| work.path().join(path)),
                "{name}"
            );
        };
        check("org/two", Some("models--org--two/snapshots/bbb"));
        check("org/one", Some("models--org--one/snapshots/aaa"));
        check("plain", Some("models--plain/snapshots/ccc"));
        check("org/unclear", None);
        check("org/gone", None);
        check("org/absent", None);
        check("a/b/c", None);
        check("../org", None);
        check("", None);
    }
}
