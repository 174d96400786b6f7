//! Switches and a header by which checkers ignore suppressions in an answer.

use std::path::Path;

/// File name of [`HEADER`] in the answer's folder.
pub(crate) const HEADER_NAME: &str = "grpo-tui-checker.h";
/// Disables `_Pragma` in any spelling (`##` can join it from parts). A system header is exempt from
/// reports, such as that a reserved name is defined.
pub(crate) const HEADER: &str =
    "#pragma GCC system_header\n#undef _Pragma\n#define _Pragma(text)\n";

const UNKNOWN_LINTS: &str = "unknown-lints";

/// Options that ignore suppressions in code: program, subcommand, option.
const OPTIONS: [(&str, &str, &str); 8] = [
    ("ruff", "check", "--ignore-noqa"),
    ("flake8", "", "--disable-noqa"),
    ("bandit", "", "--ignore-nosec"),
    ("eslint", "", "--no-inline-config"),
    ("stylelint", "", "--ignore-disables"),
    ("phpcs", "", "--ignore-annotations"),
    ("luacheck", "", "--no-inline"),
    ("perlcritic", "", "--force"),
];

/// Programs that run the following one.
const RUNNERS: [&str; 9] = [
    "bunx", "env", "npx", "pipx", "pnpm", "poetry", "uv", "uvx", "yarn",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checker {
    C,
    Rust,
    /// shellcheck.
    Shell,
    Other,
}

impl Checker {
    pub(crate) fn of(program: &str) -> Self {
        let name = file_name(program);
        let name = name.trim_end_matches(|letter: char| {
            letter.is_ascii_digit() || matches!(letter, '.' | '-')
        });
        let is = |names: &[&str]| {
            names
                .iter()
                .any(|one| name == *one || name.ends_with(&format!("-{one}")))
        };
        if is(&["gcc", "g++", "cc", "c++", "clang", "clang++"]) {
            Self::C
        } else if is(&["rustc", "clippy-driver"]) {
            Self::Rust
        } else if name == "shellcheck" {
            Self::Shell
        } else {
            Self::Other
        }
    }
}

/// Whether Rust code may set levels of lints, by an attribute or a macro that makes one.
pub(crate) fn may_set_levels(source: &str) -> bool {
    ["allow", "expect", "warn"]
        .iter()
        .any(|level| source.contains(level))
}

/// The command with its own switches against suppressions.
pub(crate) fn with_options(command: &[String]) -> Vec<String> {
    let mut command = command.to_vec();
    if command
        .first()
        .is_some_and(|program| Checker::of(program) == Checker::C)
    {
        command.splice(1..1, ["-include", HEADER_NAME].map(str::to_owned));
        return command;
    }
    let is_run_by =
        |at: usize| at == 0 || command[at - 1] == "-m" || RUNNERS.contains(&file_name(&command[0]));
    let named: Vec<usize> = (0..command.len()).filter(|at| is_run_by(*at)).collect();
    for (program, subcommand, option) in OPTIONS {
        let Some(at) = named
            .iter()
            .copied()
            .find(|at| file_name(&command[*at]) == program)
        else {
            continue;
        };
        let at = match subcommand {
            "" => Some(at),
            _ => command
                .iter()
                .skip(at + 1)
                .position(|word| word == subcommand)
                .map(|behind| at + 1 + behind),
        };
        if let Some(at) = at.filter(|_| !command.iter().any(|word| word == option)) {
            command.insert(at + 1, option.to_owned());
        }
    }
    command
}

fn file_name(program: &str) -> &str {
    Path::new(program)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// `-F` for each lint that the command makes an error, so that lowering it by an attribute is an
/// error too. `help`: output of `rustc -W help`, since lints differ between compilers.
pub(crate) fn forbidden_lints(command: &[String], help: &str) -> Vec<String> {
    let levels = levels(command);
    let groups: Vec<(&str, Vec<&str>)> = help.lines().filter_map(group).collect();
    let is_at = |name: &str, wanted: &[char]| {
        levels.iter().any(|(level, named)| {
            wanted.contains(level)
                && (named == name
                    || groups
                        .iter()
                        .any(|(group, members)| group == named && members.contains(&name)))
        })
    };
    let denies_warnings = levels
        .iter()
        .any(|(level, name)| matches!(level, 'D' | 'F') && name == "warnings");
    let forbidden = help
        .lines()
        .filter_map(lint)
        .filter(|(name, _)| ![UNKNOWN_LINTS, "warnings"].contains(name))
        .filter(|(name, default)| {
            let is_warned = *default == "warn" || is_at(name, &['W']);
            let is_denied = matches!(*default, "deny" | "forbid")
                || is_at(name, &['D', 'F'])
                || (denies_warnings && is_warned);
            is_denied && !is_at(name, &['A'])
        })
        .flat_map(|(name, _)| ["-F", name]);
    ["-A", UNKNOWN_LINTS]
        .into_iter()
        .chain(forbidden)
        .map(str::to_owned)
        .collect()
}

/// Levels set by a command with their lint or group: `-Dwarnings`, `-D warnings`,
/// `--deny=warnings`.
fn levels(command: &[String]) -> Vec<(char, String)> {
    let mut levels = Vec::new();
    let mut words = command.iter().peekable();
    while let Some(word) = words.next() {
        let long = [
            ("--allow", 'A'),
            ("--warn", 'W'),
            ("--deny", 'D'),
            ("--forbid", 'F'),
        ]
        .into_iter()
        .find_map(|(name, level)| Some((level, word.strip_prefix(name)?)));
        let short = || {
            let mut letters = word.strip_prefix('-')?.chars();
            let level = letters.next().filter(|level| "AWDF".contains(*level))?;
            Some((level, letters.as_str()))
        };
        let Some((level, rest)) = long.or_else(short) else {
            continue;
        };
        let name = match rest.trim_start_matches('=') {
            "" => words.next().map_or("", String::as_str),
            name => name,
        };
        levels.push((level, name.replace('_', "-")));
    }
    levels
}

/// A line of `-W help`: `   unused-mut  warn  detect mut variables ..`.
fn lint(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    let (name, default) = (words.next()?, words.next()?);
    let is_level = matches!(default, "allow" | "warn" | "deny" | "forbid");
    (line.starts_with(' ') && is_level && is_name(name)).then_some((name, default))
}

/// A line of `-W help`: `   nonstandard-style  non-camel-case-types, non-snake-case`.
fn group(line: &str) -> Option<(&str, Vec<&str>)> {
    let (name, members) = line.trim().split_once(char::is_whitespace)?;
    let members: Vec<&str> = members.split(',').map(str::trim).collect();
    let is_group = line.starts_with(' ') && members.iter().all(|member| is_name(member));
    (is_group && is_name(name)).then_some((name, members))
}

fn is_name(word: &str) -> bool {
    !word.is_empty()
        && word.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b':' | b'_')
        })
}
