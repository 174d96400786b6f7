//! Tests: suppressions in every spelling that checkers accept, and look-alikes.

use super::checker::{forbidden_lints, with_options};
use super::*;

fn hidden(file: &str, source: &str) -> String {
    hidden_from(file, &[], source)
}

fn hidden_from(file: &str, programs: &[&str], source: &str) -> String {
    let unsuppressed = UnsuppressedSource::from_source(source, file, programs.iter().copied());
    let shown = unsuppressed.source;
    assert_eq!(shown.chars().count(), source.chars().count(), "{source:?}");
    assert_eq!(unsuppressed.found.is_empty(), shown == source, "{source:?}");
    let breaks = |text: &str| -> Vec<usize> {
        text.chars()
            .enumerate()
            .filter_map(|(at, letter)| (letter == '\n').then_some(at))
            .collect()
    };
    assert_eq!(breaks(&shown), breaks(source), "{source:?}");
    shown
}

#[test]
fn checkers_do_not_see_suppressions_and_places_stay() {
    for (file, source, expected) in [
        (
            "a.sh",
            "# shellcheck disable=all\nrm $x",
            "# xxxxxxxxxx disable=all\nrm $x",
        ),
        ("a.sh", "shellcheck a.sh # all", "shellcheck a.sh # all"),
        (
            "a.py",
            "import os  # noqa: F401\n#ruff:NOQA",
            "import os  # xxxx: F401\n#xxxx:xxxx",
        ),
        ("a.py", "x = 1  # é # NoQA", "x = 1  # é # xxxx"),
        (
            "a.py",
            "x: int = f()  # type: ignore[x]\ny = []  # type: list",
            "x: int = f()  # xxxx: ignore[x]\ny = []  # type: list",
        ),
        ("a.py", "# pylint: skip-file", "# xxxxxx: skip-file"),
        (
            "a.py",
            "# coding: utf-7\n# coding: utf-8",
            "# coding: xxxxx\n# coding: utf-8",
        ),
        (
            "a.js",
            "// @ts-nocheck and eslint-disable\n/*\n eslint no-undef: 0 */",
            "// xxxxxxxxxxx and xxxxxxxxxxxxxx\n/*\n xxxxxx no-undef: 0 */",
        ),
        (
            "a.js",
            "import eslint from 'eslint'",
            "import eslint from 'eslint'",
        ),
        ("a.c", "int x; // NOLINT", "int x; // xxxxxx"),
        (
            "a.cs",
            "#pragma warning disable\nint x;",
            "                       \nint x;",
        ),
        (
            "A.java",
            "@SuppressWarnings(\"all\") class A {}",
            "                         class A {}",
        ),
        (
            "A.java",
            "@/**/java.lang.Supp\\u0072essWarnings({\")\", A.B}) class A {}",
            "                                                 class A {}",
        ),
        (
            "A.java",
            "String s = \"@SuppressWarnings(\";",
            "String s = \"@SuppressWarnings(\";",
        ),
        ("a.kt", "typealias S = Suppress", "typealias S = xxxxxxxx"),
        ("a.hs", "{-# OPTIONS_GHC -w #-}", "{-# xxxxxxxxxxx -w #-}"),
        ("a.hs", "f x = x -- a comment", "f x = x -- a comment"),
        ("a.sql", "SELECT 1 -- noqa: PRS", "SELECT 1 -- xxxx: PRS"),
        ("a.go", "//go:build ignore", "//xxxbuild ignore"),
    ] {
        assert_eq!(hidden(file, source), expected, "{file} {source:?}");
    }
}

/// Each: hidden lines before the rest.
#[test]
fn the_preprocessor_is_not_told_in_any_spelling() {
    let code = "int main(void) { int x; return 0; }\n";
    for directive in [
        "#pragma GCC system_header",
        "  #pragma GCC diagnostic ignored \"-Wall\"",
        "%:pragma GCC diagnostic ignored \"-Wall\"",
        "%: pragma clang diagnostic ignored \"-Wall\"",
        "??=pragma GCC system_header",
        "#/**/pragma GCC system_header",
        "/**/#pragma GCC system_header",
        "/*\n*/ # /* */ pragma /*\n*/ GCC system_header",
        "#\\\npragma GCC system_header",
        "#pragma \\\nGCC diagnostic ignored \"-Wall\"",
        "#pragma \\  \nGCC diagnostic ignored \"-Wall\"",
        "#pragma ??/\nGCC system_header",
        "#pra\\\ngma G\\\nCC system_header",
        "#\u{c}pragma\u{b}GCC system_header",
        "_Pragma(\"GCC diagnostic ignored \\\")\\\"\")",
        "_Pra\\\ngma(\"GCC system_header\")",
        "_Pragma/**/(\"GCC system_header\")",
        "_Pragma\n(\n\"GCC system_header\"\n)",
        "_Pragma(R\"x(GCC \" ) system_header)x\")",
        "_Pragma(\"GCC system_header\") #pragma GCC system_header",
        "# 1 \"/usr/include/x.h\" 3",
        "#/**/1 \"/usr/include/x.h\" 3",
        "#line 1 \"x.h\"",
        "#li\\\nne 1 \"x.h\"",
        "%:\\\n1 \"x.h\" 3",
        "#pragma warning(disable: 4101)",
        "#pragma nv_diag_suppress 177",
    ] {
        let shown = hidden("a.c", &format!("{directive}\n{code}"));
        let (before, rest) = shown.split_at(shown.len() - code.len());
        assert_eq!(rest, code);
        let words: String = before.split_whitespace().collect();
        assert!(
            words.replace("/*", "").replace("*/", "").is_empty(),
            "{directive:?}: {before:?}"
        );
    }
    // In any standard's reading of the previous line.
    for before in [
        "char *s = \"/*\";",
        "char *s = \"\\\"/*\";",
        "char c = '\"';",
        "// it's /*",
        "int x = 1'0/*'0*/;",
        "char *s = R\"(\";",
        "#include <a/*b>",
        "#error don't /*",
        "// \\",
        "char *s = R\"x(\n)x\";",
    ] {
        let source = format!("{before}\n\n#pragma GCC system_header\n{code}");
        assert!(!hidden("a.cpp", &source).contains("pragma"), "{before:?}");
    }
    for (source, expected) in [
        // The answer itself as a system header.
        (
            "#include <../../proc/self/cwd/a.c>\n",
            "#include <xx/xx/proc/self/cwd/a.c>\n",
        ),
        ("#include \"../x.h\"\n", "#include \"xx/x.h\"\n"),
        ("#include <.\\\n./x.h>\n", "#include <x\\\nx/x.h>\n"),
        (
            "#define I <x.h>\n#include I\n",
            "#define I <x.h>\n#xxxxxxx I\n",
        ),
        ("#define P(x) _Pragma(x)\n", "#define P(x)           \n"),
        ("#define P _Pragma\n", "#define P        \n"),
    ] {
        assert_eq!(hidden("a.c", source), expected);
    }
    for honest in [
        "#pragma once\n#include <stdio.h>\n#pragma omp parallel for\n#pragma pack(push, 1)\n",
        "int main(void) { puts(\"#pragma GCC system_header\"); puts(\"_Pragma(\"); }\n",
        "#define CONCAT(a, b) a##b\n#if defined(X) && X > 1\n#endif\n#error \"x\"\n",
        "int a = 1'000'000; char q = '\\''; float f = 1e-5f; // it's _Pragmatic\n",
        "/* #pragma omp */ const char *s = \"a\\\nb # 1\";\n",
        "int f(int x...) { return x %2; }\n",
    ] {
        assert_eq!(hidden("a.cpp", honest), honest);
    }
}

#[test]
fn lints_keep_their_levels_in_any_spelling() {
    let code = "fn f() { let x = 1; }\n";
    for attribute in [
        "#![allow(warnings)]",
        "# ! [ allow ( warnings ) ]",
        "#! [allow(warnings)]",
        "#/**/![allow(warnings)]",
        "#!/* x */ [allow(unused)]",
        "# [allow(warnings)]",
        "#[/*]*/allow(warnings)]",
        "#[/*x*/allow(warnings)]",
        "#[/* /* ] */ ] */allow(unused)]",
        "#\n[allow(warnings)]",
        "#![allow(\n  warnings)]",
        "#[allow // ]\n(unused)]",
        "#[expect(warnings)]",
        "#[warn(unused)]",
        "#[r#allow(unused)]",
        "#[allow(unused, reason = \"] // )\")]",
        "#[cfg_attr(all(), allow(unused))]",
        "#[cfg_attr(not(any()) , cfg_attr(not(any()), allow(warnings)))]",
        "#[cfg_attr(target_os=\"linux\",allow(warnings),)]",
        "#[rustfmt::skip]",
    ] {
        let shown = hidden("a.rs", &format!("{attribute}\n{code}"));
        let (before, rest) = shown.split_at(shown.len() - code.len());
        assert_eq!(rest, code);
        assert!(before.trim().is_empty(), "{attribute:?}: {before:?}");
    }
    for before in [
        "const A: &str = \"/*\";",
        "const A: char = '\"';",
        "fn g<'a>(x: &'a str) -> char { '\\'' }",
        "const A: &str = r#\"\"/*\"#;",
        "m!(cr#\"\"/*\"#);",
        "#!/usr/bin/env \"",
        "// '\"",
        "/* \" */",
    ] {
        let shown = hidden("a.rs", &format!("{before}\n#[allow(unused)]\n{code}"));
        assert!(!shown.contains("allow"), "{before:?}");
    }
    for (source, expected) in [
        (
            "#[cfg_attr(all(), allow(unused), derive(Clone))] struct A;",
            "#[cfg_attr(all(),                derive(Clone))] struct A;",
        ),
        (
            "#[cfg_attr(all(), derive(Clone), allow(unused))] struct A;",
            "#[cfg_attr(all(), derive(Clone),              )] struct A;",
        ),
    ] {
        assert_eq!(hidden("a.rs", source), expected);
    }
    for honest in [
        "#[derive(Clone)] struct A;\n#[doc = \"#[allow(unused)]\"] fn f() { g().expect(\"#![allow(x)]\"); }\n",
        "macro_rules! m { ($(#[$m:meta])* $n:ident) => { $(#[$m])* struct $n; } }\n",
        "#[deny(unused)] fn allow(warn: i32) -> i32 { warn }\n",
        "#![doc(test(attr(allow(warnings))))]\n",
    ] {
        assert_eq!(hidden("a.rs", honest), honest);
    }
    for (source, expected) in [
        (
            "macro_rules! m { ($a:ident) => { #[$a(unused)] fn f() {} } } m!(allow);",
            true,
        ),
        (
            "macro_rules! m { ($a:ident) => { fn $a() {} } } m!(g);",
            false,
        ),
        ("fn f() { g().expect(\"macro_rules\"); }", false),
    ] {
        assert_eq!(
            rust_source::may_make_attributes(source),
            expected,
            "{source}"
        );
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

/// Answers that could take quadratic time or deep recursion.
#[test]
fn long_answers_do_not_overflow_the_stack() {
    let (opening, closing) = ("cfg_attr(a, ".repeat(2_000), ")".repeat(2_000));
    let nest = format!("#[{opening}allow(x){closing}]\nfn f() {{}}\n");
    assert_eq!(hidden("a.rs", &nest).trim(), "fn f() {}");
    for (file, part) in [
        ("a.c", "_Pragma("),
        ("a.c", "\n#include <"),
        ("a.c", "R\"aaaaaaaa("),
        ("a.rs", "#["),
        ("a.rs", "#[cfg_attr(a, "),
        ("a.rs", "cfg_attr(a, "),
        ("a.java", "@Suppress("),
        ("shellcheck", "eval 'a';"),
        ("shellcheck", "cat <<E|sh\n"),
        ("a.py", "# noqa shellcheck # "),
    ] {
        let source = format!("#[{}", part.repeat(2_000));
        UnsuppressedSource::from_source(&source, file, [file]);
    }
}

#[test]
fn code_that_a_shell_has_as_text_is_read_as_code() {
    for (source, expected) in [
        ("eval 'rm -rf $x/*'\n", "      rm -rf $x/* \n"),
        ("eval \"rm -rf \\$x/*\"\n", "       rm -rf $x/* \n"),
        ("e\"\"val rm '$x'; ls\n", "        rm $x ; ls\n"),
        (
            "if eval 'a\nb $c'; then :; fi\n",
            "if       a\nb $c ; then :; fi\n",
        ),
        ("bash -c 'echo $1' _ a > f\n", "         echo $1      > f\n"),
        ("command eval 'a $b'\n", "command       a $b \n"),
        ("bash <<'E'\nrm $x\nE\nls\n", ":         \nrm $x\n \nls\n"),
        (
            ". /dev/stdin <<E\nrm \\$x\nE\n",
            ":               \n rm $x\n \n",
        ),
        ("cat <<'E' | sh\nrm $x\nE\n", ":         | sh\nrm $x\n \n"),
        ("cat <<'E' |& sh\nrm $x\nE\n", ":         |& sh\nrm $x\n \n"),
        ("eval 'eval '\\''a $b'\\'\n", "                 a $b \n"),
    ] {
        assert_eq!(
            hidden_from("a.sh", &["shellcheck"], source),
            expected,
            "{source:?}"
        );
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
        assert_eq!(hidden_from("a.sh", &["shellcheck"], honest), honest);
    }
    // Another checker may forbid `eval`.
    assert_eq!(hidden("a.sh", "eval 'a'\n"), "eval 'a'\n");
}
