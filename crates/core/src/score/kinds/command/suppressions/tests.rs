//! Tests: answers that silence a checker in every spelling that it accepts, and look-alikes.

use super::checker::{forbidden_lints, with_options};
use super::*;

fn found(file: &str, program: &str, source: &str) -> Option<(usize, String)> {
    silencing(source, file, [program]).map(|(offset, words)| (offset, words.to_owned()))
}

#[test]
fn words_that_silence_are_found_where_they_are() {
    for (file, source, offset, words) in [
        ("a.py", "import os  # noqa: F401", 13, "noqa"),
        ("a.py", "x = 1  # é # NoQA", 14, "NoQA"),
        ("a.py", "#\u{c}noqa", 2, "noqa"),
        ("a.py", "#\u{3000}noqa", 4, "noqa"),
        ("a.py", "# \u{2028}noqa", 5, "noqa"),
        ("a.py", "# ruff:\u{a0}disable[F401]", 0, "# ruff:"),
        (
            "a.py",
            "# foo\n#\u{c}ruff: file-ignore[F401]",
            6,
            "#\u{c}ruff:",
        ),
        ("a.py", "# isort:\u{3000}skip_file", 0, "# isort:"),
        (
            "a.py",
            "x: int = f()  # type: ignore[x]",
            14,
            "# type: ignore",
        ),
        ("a.py", "# pylint: skip-file", 0, "# pylint:"),
        (
            "a.py",
            "# coding: utf-8\n# coding: utf-7",
            16,
            "# coding: utf-7",
        ),
        (
            "a.sh",
            "# shellcheck disable=all\nrm $x",
            0,
            "# shellcheck disable=",
        ),
        (
            "a.sh",
            "#\tshellcheck\tdisable=all",
            0,
            "#\tshellcheck\tdisable=",
        ),
        ("a.js", "// @ts-nocheck", 3, "@ts-nocheck"),
        ("a.js", "/*\n eslint no-undef: 0 */", 0, "/*\n eslint"),
        ("a.c", "int x; // NOLINT", 10, "NOLINT"),
        (
            "a.cs",
            "#pragma warning disable\nint x;",
            1,
            "pragma warning",
        ),
        (
            "A.java",
            "@SuppressWarnings(\"all\") class A {}",
            1,
            "SuppressWarnings",
        ),
        (
            "A.java",
            "@/**/java.lang.Supp\\u0072essWarnings({}) class A {}",
            15,
            "Supp\\u0072essWarnings",
        ),
        ("a.kt", "typealias S = Suppress", 14, "Suppress"),
        ("a.hs", "{-# OPTIONS_GHC -w #-}", 0, "{-# OPTIONS_GHC"),
        ("a.sql", "SELECT 1 -- noqa: PRS", 12, "noqa"),
        ("a.go", "//go:build ignore", 2, "go:build"),
        (
            "a.rs",
            "#[cfg_attr(all(), allow(unused))] fn f() {}",
            0,
            "#[cfg_attr(all(), allow(",
        ),
        ("a.rs", "#[rustfmt::skip] fn f() {}", 2, "rustfmt::skip"),
    ] {
        assert_eq!(
            found(file, "x", source),
            Some((offset, words.to_owned())),
            "{source:?}"
        );
    }
    for (file, program, honest) in [
        ("a.sh", "shellcheck", "shellcheck a.sh # all"),
        ("a.py", "ruff", "y = []  # type: list\n# coding: utf-8"),
        ("a.js", "eslint", "import eslint from 'eslint'"),
        ("a.hs", "hlint-", "f x = x -- a comment"),
        ("a.rs", "rustc", "#[allow(unused)] fn f() {}"),
        (
            "a.rs",
            "x",
            "#[derive(Clone)] struct A; fn f() { g().expect(\"x\"); }",
        ),
        ("a.sh", "sh", "eval 'rm $x'"),
    ] {
        assert_eq!(found(file, program, honest), None, "{honest:?}");
    }
}

#[test]
fn the_preprocessor_is_not_told_in_any_spelling() {
    for directive in [
        "#pragma GCC system_header",
        "  #pragma GCC diagnostic ignored \"-Wall\"",
        "%:pragma GCC diagnostic ignored \"-Wall\"",
        "%: pragma clang diagnostic ignored \"-Wall\"",
        "??=pragma GCC system_header",
        "#/**/pragma GCC system_header",
        "/*\n*/ # /* */ pragma /*\n*/ GCC system_header",
        "#pragma \\\nGCC diagnostic ignored \"-Wall\"",
        "#pragma G\\  \nCC diagnostic ignored \"-Wall\"",
        "#pragma G??/\nCC system_header",
        "#pragma G\\\r\nCC /* x */ system_\\\nheader",
        "// a\r#pragma GCC diagnostic ignored \"-Wall\"",
        "#\u{c}pragma\u{b}GCC system_header",
        "_Pragma(\"GCC diagnostic ignored \\\")\\\"\")",
        "_Pra\\\ngma(\"x\")",
        "_Pragma/**/(\"x\")",
        "#define P(x) _Pragma(x)",
        "# 1 \"/usr/include/x.h\" 3",
        "#/**/1 \"/usr/include/x.h\" 3",
        "/*\n*/ #line 1 \"x.h\"",
        "// a\r# 1 \"/usr/include/x.h\" 3",
        "#li\\\nne 1 \"x.h\"",
        "%:\\\n1 \"x.h\" 3",
        "#pragma warning(disable: 4101)",
        "#pragma nv_diag_suppress 177",
        "char *s = \"/*\";\n#pragma GCC system_header",
        // The answer itself as a system header.
        "#include <../../proc/self/cwd/a.c>",
        "#include \"../x.h\"",
        "#include <.\\\n./x.h>",
        "#define I <x.h>\n#include I",
    ] {
        let code = format!("{directive}\nint main(void) {{ int x; return 0; }}\n");
        assert!(found("a.c", "gcc", &code).is_some(), "{directive:?}");
    }
    for honest in [
        "#pragma once\n#include <stdio.h>\n#pragma omp parallel for\n#pragma pack(push, 1)\n",
        "#define CONCAT(a, b) a##b\n#if defined(X) && X > 1\n#endif\n#error \"x\"\n",
        "int a = 1'000'000; char q = '\\''; float f = 1e-5f; // it's _Pragmatic\n",
        "/* #pragma omp */ const char *s = \"a\\\nb # 1\";\n",
        "int f(int x...) { return x %2; }\n",
    ] {
        assert_eq!(found("a.cpp", "g++", honest), None, "{honest:?}");
    }
}

#[test]
fn code_that_a_shell_has_as_text_is_refused() {
    for source in [
        "eval 'rm -rf $x/*'\n",
        "eval \"rm -rf \\$x/*\"\n",
        "e\"\"val rm '$x'; ls\n",
        "e\\val 'rm $x'\n",
        "if eval 'a\nb $c'; then :; fi\n",
        "bash -c 'echo $1' _ a > f\n",
        "command eval 'a $b'\n",
        "bash <<'E'\nrm $x\nE\nls\n",
        ". /dev/stdin <<E\nrm \\$x\nE\n",
        "cat <<'E' | sh\nrm $x\nE\n",
        "cat <<'E' |& sh\nrm $x\nE\n",
    ] {
        assert!(found("a.sh", "shellcheck", source).is_some(), "{source:?}");
    }
    for honest in [
        "eval \"$(ssh-agent -s)\"\n",
        "eval \"x=\\$$name\"\n",
        "cat <<'E'\nrm $x\nE\n",
        "bash script.sh <<'E'\nrm $x\nE\n",
        "find . -exec sh -c 'mv \"$1\" x' _ {} \\;\n",
        "echo 'eval rm $x' # eval 'rm $x'\n",
        "x=$((1 << 2)); y=${x#a}; case $x in a) eval_x;; esac\n",
    ] {
        assert_eq!(found("a.sh", "shellcheck", honest), None, "{honest:?}");
    }
}

#[test]
fn programs_are_told_to_ignore_suppressions() {
    for (command, expected) in [
        ("ruff check {file}", "ruff check --ignore-noqa {file}"),
        (
            "ruff check --ignore-noqa {file}",
            "ruff check --ignore-noqa {file}",
        ),
        ("ruff format --check {file}", "ruff format --check {file}"),
        (
            "python3 -m ruff check {file}",
            "python3 -m ruff check --ignore-noqa {file}",
        ),
        ("npx eslint {file}", "npx eslint --no-inline-config {file}"),
        (
            "/usr/bin/gcc-12 -Wall {file}",
            "/usr/bin/gcc-12 -include grpo-tui-checker.h -Wall {file}",
        ),
        (
            "aarch64-linux-gnu-g++ {file}",
            "aarch64-linux-gnu-g++ -include grpo-tui-checker.h {file}",
        ),
        ("pre-commit run flake8", "pre-commit run flake8"),
        ("shellcheck {file}", "shellcheck {file}"),
    ] {
        let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        assert_eq!(with_options(&words).join(" "), expected);
    }
}

#[test]
fn lints_that_a_command_makes_errors_are_forbidden() {
    let help = "Lint checks provided by rustc:\n\n    name  default  meaning\n    ----  -------  -------\n    \
        missing-docs  allow  detects\n    unused-mut  warn  detect mut\n    unknown-lints  warn  unknown\n    warnings  warn  all\n    unused-variables  warn  detect\n    \
        overflowing-literals  deny  literal\n\nLint groups provided by rustc:\n\n    name  sub-lints\n    warnings  all lints that are set to issue warnings\n    \
        unused  unused-mut, unused-variables\n";
    for (command, expected) in [
        ("rustc a.rs", "overflowing-literals"),
        (
            "rustc -D warnings a.rs",
            "unused-mut unused-variables overflowing-literals",
        ),
        (
            "rustc -Dwarnings -Wmissing_docs a.rs",
            "missing-docs unused-mut unused-variables overflowing-literals",
        ),
        (
            "rustc --deny=unused -A unused_mut a.rs",
            "unused-variables overflowing-literals",
        ),
        (
            "rustc -D missing-docs a.rs",
            "missing-docs overflowing-literals",
        ),
    ] {
        let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        let expected = expected.split(' ').flat_map(|name| ["-F", name]);
        let expected: Vec<&str> = ["-A", "unknown-lints"]
            .into_iter()
            .chain(expected)
            .collect();
        assert_eq!(forbidden_lints(&words, help), expected, "{command}");
    }
}
