//! Comments and attributes by which code switches off its own checker: `# noqa`, `# shellcheck disable=all`.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Suppressions of one answer that are named.
const MAX_LISTED: usize = 10;

/// Words of comments that checkers look for.
const WORDS: &str = r"(?ix)
    \#[\ \t]*(shellcheck)[\ \t]
  | \#[\ \t]*(?:ruff|flake8)[\ \t]*:[\ \t]*(noqa|disable|ignore|file-ignore|isort)
  | \#[\ \t]*(noqa)\b
  | \#[\ \t]*(isort|fmt|yapf|mypy|pylint|pytype)[\ \t]*:
  | \#[\ \t]*(type|ty|pyright|pyrefly|zuban)[\ \t]*:[\ \t]*ignore
  | \#[\ \t]*(pyright)[\ \t]*:
  | \#[\ \t]*(pyre-(?:ignore|fixme|unsafe)|nosec|hadolint|yamllint)\b
  | (@ts-(?:ignore|nocheck|expect-error)|@phpstan-ignore|@psalm-suppress)
  | (?:/\*|//)[\ \t]*(eslint)\b
  | \b((?:eslint|oxlint|stylelint|markdownlint|ktlint)-disable|(?:biome|deno-lint|prettier|tflint)-ignore)
  | \b((?:tslint|rubocop|swiftlint|scalastyle|sqlfluff|phpcs|luacheck|go):)(?:disable|todo|off|ignore|build|[\ \t]*ignore)
  | \b(nolint|noinspection|nosemgrep|cppcheck-suppress|lint:ignore|no\ critic|clang-format\ off|jshint|jslint)
";

/// Statements that can be left out.
const STATEMENTS: &str = r#"(?mx)
    ^[\ \t]*\#[\ \t]*pragma[\ \t]+(?:GCC|clang|warning)\b.*$
  | ^[\ \t]*\#[\ \t]*(?:line[\ \t]+)?[0-9]+[\ \t]+"[^"\n]*".*$
  | \b_Pragma\s*\([^)]*\)
  | \#!?\[\s*(?:cfg_attr\s*\([^\]]*?)?\b(?:allow|expect|rustfmt::skip)\b[^\]]*\]
  | @(?:file:)?Suppress(?:Warnings|Lint)?\s*\([^)]*\)
  | \{-\#\s*OPTIONS[^}]*\#-\}
"#;

/// A source whose suppressions are hidden from the checker, at the same positions.
pub(super) struct UnsuppressedSource<'s> {
    pub(super) source: Cow<'s, str>,
    /// The first suppressions, each with its byte in the source.
    pub(super) found: Vec<(usize, &'s str)>,
}

impl<'s> UnsuppressedSource<'s> {
    pub(super) fn from_source(source: &'s str) -> Self {
        static PATTERNS: LazyLock<Option<[Regex; 2]>> =
            LazyLock::new(|| Some([Regex::new(WORDS).ok()?, Regex::new(STATEMENTS).ok()?]));
        let Some([words, statements]) = PATTERNS.as_ref() else {
            return Self {
                source: Cow::Borrowed(source),
                found: Vec::new(),
            };
        };
        let all = words.find_iter(source).chain(statements.find_iter(source));
        let mut found: Vec<_> = all.map(|one| (one.start(), one.as_str().trim())).collect();
        found.sort_unstable();
        found.truncate(MAX_LISTED);
        // As long as before, and still a comment.
        let word = |captures: &Captures<'_>| {
            let whole = captures.get(0).map_or("", |whole| whole.as_str());
            let name = captures
                .iter()
                .skip(1)
                .flatten()
                .next()
                .map_or("", |name| name.as_str());
            whole.replacen(name, &"x".repeat(name.len()), 1)
        };
        let blank = |captures: &Captures<'_>| {
            let whole = captures.get(0).map_or("", |whole| whole.as_str());
            whole
                .chars()
                .map(|letter| if letter == '\n' { letter } else { ' ' })
                .collect::<String>()
        };
        let commented = words.replace_all(source, word);
        let source = match statements.replace_all(&commented, blank) {
            Cow::Borrowed(_) => commented,
            Cow::Owned(blanked) => Cow::Owned(blanked),
        };
        Self { source, found }
    }
}

/// An answer in the language of a file's ending that suppresses its own finding.
pub(in crate::score) fn suppressed_answer(file: &str) -> Option<&'static str> {
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
mod tests {
    use super::*;

    #[test]
    fn checkers_do_not_see_suppressions_and_places_stay() {
        for (source, expected) in [
            (
                "# shellcheck disable=all\nrm $x",
                "# xxxxxxxxxx disable=all\nrm $x",
            ),
            ("shellcheck a.sh # all", "shellcheck a.sh # all"),
            (
                "import os  # noqa: F401\n#ruff:NOQA",
                "import os  # xxxx: F401\n#ruff:xxxx",
            ),
            ("x = 1  # é # NoQA", "x = 1  # é # xxxx"),
            (
                "x: int = f()  # type: ignore[x]\ny = []  # type: list",
                "x: int = f()  # xxxx: ignore[x]\ny = []  # type: list",
            ),
            ("# pylint: skip-file", "# xxxxxx: skip-file"),
            (
                "// @ts-nocheck and eslint-disable\n/* eslint no-undef: 0 */",
                "// xxxxxxxxxxx and xxxxxxxxxxxxxx\n/* xxxxxx no-undef: 0 */",
            ),
            ("int x; // NOLINT", "int x; // xxxxxx"),
            (
                "  #pragma GCC diagnostic ignored \"-Wall\"\nint x;",
                "                                        \nint x;",
            ),
            (
                "#pragma once\n# 1 \"x.h\" 3\n",
                "#pragma once\n           \n",
            ),
            (
                "#![allow(\n  warnings)]\nfn f() {}",
                "         \n            \nfn f() {}",
            ),
            (
                "#[cfg_attr(all(), allow(unused))] #[derive(Clone)]",
                "                                  #[derive(Clone)]",
            ),
            (
                "@SuppressWarnings(\"all\") class A {}",
                "                         class A {}",
            ),
            ("f x = x -- a comment", "f x = x -- a comment"),
        ] {
            let unsuppressed = UnsuppressedSource::from_source(source);
            assert_eq!(unsuppressed.source, expected);
            assert_eq!(
                unsuppressed.found.is_empty(),
                source == expected,
                "{source}"
            );
            assert_eq!(
                unsuppressed.source.chars().count(),
                source.chars().count(),
                "{source}"
            );
        }
    }
}
