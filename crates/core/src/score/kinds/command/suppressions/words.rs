//! Suppression words in comments. Also crossed out in strings, since checkers may read them there
//! and the answer is not run.

use std::sync::LazyLock;

use regex::Regex;

use super::edit::Edit;

/// Anywhere in a text. `[S]`: white space within a line, or an invisible character.
const ANYWHERE: &str = r"(?ix)
    (noqa)
  | \#[S!\#:]*(ruff|flake8|isort|fmt|yapf|mypy|pylint|pytype|pyright|basedpyright|pyrefly|zuban|ty|nopycln|credo|cmake-?lint|cmake-?format|robocop|deadnix|lint|typed)[S]*[:=]
  | \#[S!\#:]*(check)[S]*=[S]*skip
  | \#[S!\#:]*(type)[S]*:[S]*ignore
  | (isort)[S]*:[S]*(?:skip|off|on|split|dont)
  | (no_type_check)
  | (@ts-(?:ignore|nocheck|expect-error)|@phpstan-ignore|@psalm-suppress|@phan-(?:file-)?suppress|@codingStandardsIgnore|@generated|@diagnostic|@noflow|@suppress\b)
  | (\$Flow(?:FixMe|Ignore|Issue|ExpectedError))
  | /[*/][\s\p{Cf}\p{Cc}*!]*(eslint|jshint|jslint|csslint|jscs)\b
  | /\*[\s\p{Cf}\p{Cc}*!]*(globals?|exported)\b
  | <!--[\s\p{Cf}\p{Cc}]*(lint|vale|alex|htmlhint|htmllint)\b
  | \b((?:eslint|oxlint|stylelint|markdownlint|ktlint|solhint|slither|textlint|erb_lint|credo)-(?:disable|enable|ignore|configure))
  | \b((?:biome|deno-lint|prettier|tflint|rome|dprint|squawk|cspell|ast-grep)-ignore)
  | \b((?:tslint|rubocop|standard|swiftlint|scalastyle|scalafix|scalafmt|phpcs|luacheck|selene|stylua|go|gosec|revive|buf|cspell|credo|htmlhint|djlint|tfsec|trivy|checkov|lint|checkstyle|detekt|reek|haml-lint|verible|codespell)[S]*[:.][S]*)(?:disable|todo|off|ignore|skip|build|lint|allow|push|globals|std|exclude)
  | \b(sqlfluff|sqruff)[S]*:
  | \b(nolint|noinspection|nosemgrep|nosonar|nopmd|nosec|cppcheck-suppress|no\ critic|clang-format\ off|lint_off|hlint|spell-checker|chktex)
  | //[S]*(ignore(?:_for_file)?)[S]*:
  | //[S]*(\+build)\b
  | (code[S]+generated)\b[^\n]*do[S]+not[S]+edit
  | <(auto-?generated)
  | \{-\#\s*(OPTIONS\w*|ANN)\b
";
/// Words after `#` on the same line.
const AFTER_HASH: &str = r"(?ix)
    (shellcheck|pyre-(?:ignore|fixme|unsafe|strict)|hadolint|yamllint|ansible-lint)
  | (pylint|pyright|mypy)[S]*:
  | coding[:=][S]*([-\w.]+)
";
const SPACE: &str = r"[\s\p{Cf}\p{Cc}--\n]";
/// Encodings in which Python reads the file like UTF-8.
const PLAIN_ENCODINGS: [&str; 6] = ["utf-8", "utf8", "utf_8", "ascii", "latin-1", "iso-8859-1"];

fn pattern(text: &str) -> Option<Regex> {
    let inner = SPACE.trim_start_matches('[').trim_end_matches(']');
    let text = text
        .replace("[S]", SPACE)
        .replace("[S!", &format!("[[{inner}]!"));
    Regex::new(&text).ok()
}

pub(super) fn find(text: &[char]) -> Vec<Edit> {
    static PATTERNS: LazyLock<Option<[Regex; 2]>> =
        LazyLock::new(|| Some([pattern(ANYWHERE)?, pattern(AFTER_HASH)?]));
    let Some([anywhere, after_hash]) = PATTERNS.as_ref() else {
        return Vec::new();
    };
    let source: String = text.iter().collect();
    let places: Vec<usize> = source.char_indices().map(|(at, _)| at).collect();
    let place = |byte: usize| places.partition_point(|start| *start < byte);
    let mut edits = Vec::new();
    let mut add = |pattern: &Regex, text: &str, offset: usize| {
        for captures in pattern.captures_iter(text) {
            let Some(word) = captures.iter().skip(1).flatten().next() else {
                continue;
            };
            let name = word.as_str().to_ascii_lowercase();
            if !PLAIN_ENCODINGS.contains(&name.as_str()) {
                let range = place(offset + word.start())..place(offset + word.end());
                edits.push(Edit::cross_out(range));
            }
        }
    };
    add(anywhere, &source, 0);
    let mut start = 0;
    for line in source.split_inclusive('\n') {
        if let Some(hash) = line.find('#') {
            add(after_hash, &line[hash..], start + hash);
        }
        start += line.len();
    }
    edits
}
