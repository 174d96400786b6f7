//! Answers that silence their checker: `# noqa`, `# shellcheck disable=all`, `#pragma GCC diagnostic`.

pub(super) mod checker;

use std::sync::LazyLock;

use regex::Regex;

use checker::Checker;

/// Words of all checkers, in any text. `[S]`: white space within a line, or an invisible character.
/// Group `coding`: an encoding, by which Python reads other code than the checker.
const WORDS: &str = r"(?ix)
    noqa
  | \#[S!\#:]*(ruff|flake8|isort|fmt|yapf|mypy|pylint|pytype|pyright|basedpyright|pyrefly|zuban|ty|nopycln|credo|cmake-?lint|cmake-?format|robocop|deadnix|lint|typed)[S]*[:=]
  | \#[S!\#:]*check[S]*=[S]*skip
  | \#[S!\#:]*type[S]*:[S]*ignore
  | \#[^\n]*?\b(pyre-(?:ignore|fixme|unsafe|strict)|hadolint|yamllint|ansible-lint|shellcheck[S]+[^\n]*?(?:disable|shell)[S]*=)
  | \#[^\n]*?(pylint|pyright|mypy)[S]*:
  | \#[^\n]*?coding[:=][S]*(?P<coding>[-\w.]+)
  | isort[S]*:[S]*(?:skip|off|on|split|dont)
  | no_type_check
  | @ts-(?:ignore|nocheck|expect-error)|@phpstan-ignore|@psalm-suppress|@phan-(?:file-)?suppress|@codingStandardsIgnore|@generated|@diagnostic|@noflow|@suppress\b
  | \$Flow(?:FixMe|Ignore|Issue|ExpectedError)
  | /[*/][\s\p{Cf}\p{Cc}*!]*(eslint|jshint|jslint|csslint|jscs)\b
  | /\*[\s\p{Cf}\p{Cc}*!]*(globals?|exported)\b
  | <!--[\s\p{Cf}\p{Cc}]*(lint|vale|alex|htmlhint|htmllint)\b
  | \b(eslint|oxlint|stylelint|markdownlint|ktlint|solhint|slither|textlint|erb_lint|credo)-(?:disable|enable|ignore|configure)
  | \b(biome|deno-lint|prettier|tflint|rome|dprint|squawk|cspell|ast-grep)-ignore
  | \b(tslint|rubocop|standard|swiftlint|scalastyle|scalafix|scalafmt|phpcs|luacheck|selene|stylua|go|gosec|revive|buf|cspell|credo|htmlhint|djlint|tfsec|trivy|checkov|lint|checkstyle|detekt|reek|haml-lint|verible|codespell)[S]*[:.][S]*(?:disable|todo|off|ignore|skip|build|lint|allow|push|globals|std|exclude)
  | \b(sqlfluff|sqruff)[S]*:
  | \b(nolint|noinspection|nosemgrep|nosonar|nopmd|nosec|cppcheck-suppress|no\ critic|clang-format\ off|lint_off|hlint|spell-checker|chktex)
  | //[S]*ignore(?:_for_file)?[S]*:
  | //[S]*\+build\b
  | code[S]+generated\b[^\n]*do[S]+not[S]+edit
  | <auto-?generated
  | \{-\#\s*(OPTIONS\w*|ANN)\b
  | rustfmt[S]*::[S]*skip
";
/// Of compilers of C, after [`AS_READ`]. `[G]`: what may stand between two words of a directive.
const C: &str = r"(?x)
    \b(GCC|clang)[G](diagnostic|system_header)\b
  | \b_Pragma\b
  | \bpragma[G](warning|nv_diag|diag_)
  | (?m:^)(?:[^\n]*\*/)?[G](?:\#|%:)[G](?:line\b|\d)
  | (?:\#|%:)[G](?:include|include_next|import)[G](?:\w|[^\s\w][^>\x22\n]*\.\.)
";
const GAP: &str = r"(?:\s|/\*(?s:.*?)\*/|//[^\n]*\n)*";
/// Of shells, after [`AS_READ`]: code in a text, which shellcheck does not read.
const SHELL: &str = r#"(?mx)
    (?:^|[;&|(]|(?:^|[\s;&|(])(?:if|elif|while|until|then|do|else|command|builtin|exec)\b)[\ \t]*
    (?: eval[\ \t]+(?:[^\n;&|"]*'|"[^"$`\n]*[\ \t])
      | (?:ba|da|z|k)?sh[\ \t]+-\w*c\b
      | (?:ba|da|z|k)?sh[\ \t]*<<
      | (?:\.|source)[\ \t]+/dev/)
  | \|&?[\ \t]*(?:ba|da|z|k)?sh\b
"#;
const ANNOTATIONS: &str = r"\bSuppress(?:FBWarnings|Lint|Warnings|Message)?\b|\bnowarn\b";
/// Of a checker of Rust that is not started with `-F` for each lint.
const ATTRIBUTES: &str = r"#\s*!?\s*\[[^\]]*\b(allow|expect|warn)\s*\(";
/// Spellings that a language reads as fewer letters: trigraphs and spliced lines, a `\r` that ends a
/// line; escapes of Java; quotes and backslashes within a shell's word.
const AS_READ: [&str; 3] = [
    r"\?\?=|(?:\\|\?\?/)[ \t\x0b\x0c]*(?:\r\n|\n|\r)|\r",
    r"\\u+[0-9a-fA-F]{4}",
    r#"\\\r?\n|""|''|\\\w"#,
];
/// Encodings in which Python reads the file like UTF-8.
const PLAIN_ENCODINGS: [&str; 6] = ["utf-8", "utf8", "utf_8", "ascii", "latin-1", "iso-8859-1"];
const SPACE: &str = r"[\s\p{Cf}\p{Cc}--\n]";

/// Byte offset and text of the first words by which an answer silences its checkers, even if it only
/// quotes them. `file`: name of the answer's file. `programs`: the checkers.
pub(super) fn silencing<'s, 'p>(
    source: &'s str,
    file: &str,
    programs: impl IntoIterator<Item = &'p str>,
) -> Option<(usize, &'s str)> {
    type Patterns = [Option<Regex>; 8];
    static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| {
        let inner = SPACE.trim_start_matches('[').trim_end_matches(']');
        let words = WORDS
            .replace("[S]", SPACE)
            .replace("[S!", &format!("[[{inner}]!"));
        let c = C.replace("[G]", GAP);
        let [c_read, java_read, shell_read] = AS_READ;
        [
            &words,
            &c,
            SHELL,
            ANNOTATIONS,
            ATTRIBUTES,
            c_read,
            java_read,
            shell_read,
        ]
        .map(|pattern| Regex::new(pattern).ok())
    });
    let [
        words,
        c,
        shell,
        annotations,
        attributes,
        c_read,
        java_read,
        shell_read,
    ] = &*PATTERNS;
    let ending = file.rsplit_once('.').map_or("", |(_, ending)| ending);
    let checkers: Vec<Checker> = programs.into_iter().map(Checker::of).collect();
    let is_c = "c h i ii m mm cc cp cpp cxx c++ C hh hpp hxx cu cuh cs ino"
        .split(' ')
        .any(|one| one == ending);
    let is_annotated = ["java", "kt", "kts", "scala", "sc", "groovy", "cs"].contains(&ending);
    let is_of = |checker| checkers.contains(&checker);
    let all = [
        (true, words, &None),
        (is_c || is_of(Checker::C), c, c_read),
        (is_of(Checker::Shell), shell, shell_read),
        (is_annotated, annotations, java_read),
        (ending == "rs" && !is_of(Checker::Rust), attributes, &None),
    ];
    let found = all.into_iter().filter(|(applies, ..)| *applies);
    let found = found.filter_map(|(_, pattern, spellings)| {
        let (text, places) = match spellings {
            Some(spellings) => as_read(source, spellings),
            None => (source.to_owned(), Vec::new()),
        };
        let place = |at: usize| places.get(at).copied().unwrap_or(at.min(source.len()));
        let is_plain = |encoding: regex::Match<'_>| {
            PLAIN_ENCODINGS.contains(&encoding.as_str().to_ascii_lowercase().as_str())
        };
        let found = pattern
            .as_ref()?
            .captures_iter(&text)
            .find(|found| !found.name("coding").is_some_and(is_plain))?
            .get(0)?;
        let blank = found.as_str().len() - found.as_str().trim_start().len();
        Some(place(found.start() + blank)..place(found.end()))
    });
    let first = found.min_by_key(|range| range.start)?;
    Some((first.start, source.get(first)?.trim()))
}

/// The text as its language reads it, and the source's offset of each byte and of the end.
fn as_read(source: &str, spellings: &Regex) -> (String, Vec<usize>) {
    let (mut text, mut places, mut at) = (String::new(), Vec::new(), 0);
    for found in spellings.find_iter(source) {
        text.push_str(&source[at..found.start()]);
        places.extend(at..found.start());
        let letter = match found.as_str() {
            "??=" => Some('#'),
            "\r" => Some('\n'),
            escaped if escaped.starts_with("\\u") && escaped.len() > 2 => {
                u32::from_str_radix(escaped.trim_start_matches(['\\', 'u']), 16)
                    .ok()
                    .and_then(char::from_u32)
            }
            escaped => escaped
                .strip_prefix('\\')
                .and_then(|rest| rest.chars().next())
                .filter(|letter| letter.is_alphanumeric() || *letter == '_'),
        };
        if let Some(letter) = letter {
            text.push(letter);
            places.resize(text.len(), found.start());
        }
        at = found.end();
    }
    text.push_str(&source[at..]);
    places.extend(at..=source.len());
    (text, places)
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
