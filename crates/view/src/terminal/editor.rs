//! The external editor, with its line argument.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::score::given_threads;

/// The command that opens a file at a line (from 1); `editor` is `$VISUAL` or `$EDITOR`, which may contain arguments
/// and quotes.
pub(super) fn command(editor: &str, path: &Path, line: usize) -> Command {
    // A shell splits the words, as in git; the paths are passed unchanged.
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("exec {editor} \"$@\""))
        .arg(editor)
        .args(arguments(editor, path, line));
    command.envs(given_threads());
    command
}

pub(super) fn chosen() -> String {
    let of = |name: &str| {
        std::env::var(name)
            .ok()
            .filter(|value| !value.trim().is_empty())
    };
    of("VISUAL")
        .or_else(|| of("EDITOR"))
        .unwrap_or_else(|| "vi".to_owned())
}

fn arguments(editor: &str, path: &Path, line: usize) -> Vec<OsString> {
    let program = editor
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .trim_matches(['"', '\'']);
    let name = Path::new(program)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let line = line.max(1);
    let place = || {
        OsString::from(
            [
                path.as_os_str().to_string_lossy().as_ref(),
                &line.to_string(),
            ]
            .join(":"),
        )
    };
    match name.as_str() {
        "vi" | "vim" | "nvim" | "view" | "nano" | "pico" | "emacs" | "emacsclient" | "mg"
        | "jed" | "joe" | "ne" | "kak" | "micro" | "vis" | "ed" => {
            vec![format!("+{line}").into(), path.into()]
        }
        "hx" | "helix" | "subl" | "zed" => vec![place()],
        "code" | "codium" | "cursor" => vec!["--goto".into(), place()],
        _ => vec![path.into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editors_are_opened_the_line_as_they_know_it() {
        let check = |editor: &str, expected: &[&str]| {
            let found = arguments(editor, Path::new("/tmp/a b.json"), 7);
            assert_eq!(
                found,
                expected.iter().map(OsString::from).collect::<Vec<_>>(),
                "{editor}"
            );
        };
        check("vi", &["+7", "/tmp/a b.json"]);
        check("/usr/bin/nvim -u NONE", &["+7", "/tmp/a b.json"]);
        check("emacsclient -nw", &["+7", "/tmp/a b.json"]);
        check("hx", &["/tmp/a b.json:7"]);
        check("code --wait", &["--goto", "/tmp/a b.json:7"]);
        check("some-editor", &["/tmp/a b.json"]);
    }

    #[test]
    fn the_shell_hands_the_file_over_as_it_is() {
        let written = tempfile::tempdir().unwrap();
        let (file, opened) = (
            written.path().join("it's a file.json"),
            written.path().join("opened"),
        );
        let editor = format!("sh -c 'printf %s \"$1\" > \"{}\"' opened", opened.display());
        assert!(command(&editor, &file, 3).status().unwrap().success());
        assert_eq!(
            std::fs::read_to_string(opened).unwrap(),
            file.display().to_string()
        );
    }
}
