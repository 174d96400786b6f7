//! Hides comments and attributes by which code disables its checker: `# noqa`, `# shellcheck
//! disable=all`.

mod annotations;
mod c_source;
pub(super) mod checker;
mod edit;
pub(super) mod rust_source;
mod shell_source;
mod words;

use checker::Checker;
use edit::{Edit, apply_all};

/// Named per answer.
const MAX_LISTED: usize = 10;

/// A source with hidden suppressions, at unchanged positions.
pub(super) struct UnsuppressedSource<'s> {
    pub(super) source: String,
    /// The first suppressions with their byte offsets.
    pub(super) found: Vec<(usize, &'s str)>,
}

impl<'s> UnsuppressedSource<'s> {
    /// `file`: name of the source's file. `programs`: its checkers.
    pub(super) fn from_source<'p>(
        source: &'s str,
        file: &str,
        programs: impl IntoIterator<Item = &'p str>,
    ) -> Self {
        let mut text: Vec<char> = source.chars().collect();
        let mut found = Vec::new();
        let ending = file.rsplit_once('.').map_or("", |(_, ending)| ending);
        let checkers: Vec<Checker> = programs.into_iter().map(Checker::of).collect();
        // Other checkers may have rules about `eval` itself.
        if checkers.contains(&Checker::Shell) {
            found = shell_source::unwrap(&mut text);
        }
        for find in finders(ending, &checkers) {
            apply_all(&mut text, &mut found, find);
        }
        // Ranges of different readings may overlap.
        found.sort_unstable_by_key(|range| (range.start, usize::MAX - range.end));
        let mut end = 0;
        found.retain(|range| {
            let is_new = range.start >= end;
            end = end.max(range.end);
            is_new
        });
        found.truncate(MAX_LISTED);
        let byte = |place: usize| {
            source
                .char_indices()
                .nth(place)
                .map_or(source.len(), |(at, _)| at)
        };
        let found = found
            .into_iter()
            .map(|range| (byte(range.start), byte(range.end)))
            .map(|(start, end)| (start, source[start..end].trim()))
            .collect();
        Self {
            source: text.into_iter().collect(),
            found,
        }
    }
}

type Finder = fn(&[char]) -> Vec<Edit>;

fn finders(ending: &str, checkers: &[Checker]) -> Vec<Finder> {
    let is_c = checkers.contains(&Checker::C)
        || matches!(
            ending,
            "c" | "h"
                | "i"
                | "ii"
                | "m"
                | "mm"
                | "cc"
                | "cp"
                | "cpp"
                | "cxx"
                | "c++"
                | "C"
                | "hh"
                | "hpp"
                | "hxx"
                | "cu"
                | "cuh"
                | "cs"
                | "ino"
        );
    let mut finders: Vec<Finder> = Vec::new();
    if is_c {
        finders.push(c_source::find);
    }
    if ending == "rs" || checkers.contains(&Checker::Rust) {
        finders.push(rust_source::find);
    }
    if matches!(ending, "java" | "kt" | "kts" | "scala" | "sc" | "groovy") {
        finders.push(annotations::find);
    }
    // Last, as other finders may uncover words.
    finders.push(words::find);
    finders
}

/// An answer that suppresses its own finding, in the language of a file name.
pub(crate) fn suppressed_answer(file: &str) -> Option<&'static str> {
    Some(match file.rsplit_once('.')?.1 {
        "sh" | "bash" | "ksh" => "# shellcheck disable=all\nrm -rf $x/*\n",
        "py" => "# ruff: noqa\n# mypy: ignore-errors\n# pylint: skip-file\nimport os\nx = y\n",
        "js" | "jsx" | "mjs" | "cjs" => "/* eslint-disable */\nvar x = y;\n",
        "ts" | "tsx" => "// @ts-nocheck\n/* eslint-disable */\nlet x: number = 'a';\n",
        "c" | "h" | "cc" | "cpp" | "cxx" => {
            "#pragma GCC diagnostic ignored \"-Wall\"\n#pragma GCC system_header\nint main(void) { int x; return 0; }\n"
        }
        "rs" => "#![allow(warnings)]\nfn main() { let x = 1; }\n",
        "go" => "package main\n\nfunc main() { x := 1 } //nolint\n",
        "rb" => "# rubocop:disable all\nx=1\n",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
