//! A row's `before`: code in front of the answer, such as imports and the signature that ends the
//! prompt.

use crate::score::answer::json::Place;

/// A program of `before` and answer, with the answer's position.
#[derive(Debug, PartialEq)]
pub(super) struct Joined {
    pub(super) source: String,
    /// Complete lines before the answer.
    lines_before: usize,
    /// Columns before the answer's first line, and before its other lines.
    first_shift: usize,
    shift: usize,
}

/// Appends an answer to `before`, on a new line unless that ends with white space. An answer
/// is the body of the function that `before` ends with, or a whole program, which replaces a
/// signature without a body.
pub(super) fn joined(before: &str, answer: &str, entry: Option<&str>) -> Joined {
    let Some(function) = open_function(before, entry) else {
        return Joined::of(before, answer.to_owned(), (0, 0));
    };
    let body = body_indents(answer);
    let (before, indents) = match body {
        // The first line's indent may begin in `before`.
        Some((0, _)) if is_indented(first_line(answer)) => {
            (before.trim_end_matches([' ', '\t']), (0, 0))
        }
        Some(indents) if !defines(answer, function.name) => (before, indents),
        _ if function.is_empty => (&before[..function.start], (0, 0)),
        _ => (before, (0, 0)),
    };
    let at_line_start = before.is_empty() || before.ends_with('\n');
    let (first, others) = if at_line_start {
        indents
    } else {
        (0, indents.1)
    };
    let indented = |(number, line): (usize, &str)| {
        let width = if number == 0 { first } else { others };
        let width = if line.trim().is_empty() { 0 } else { width };
        format!("{}{line}", " ".repeat(width))
    };
    let answer = answer
        .split_inclusive('\n')
        .enumerate()
        .map(indented)
        .collect();
    Joined::of(before, answer, (first, others))
}

impl Joined {
    fn of(before: &str, answer: String, (first, shift): (usize, usize)) -> Self {
        let is_apart = before.is_empty() || before.ends_with(char::is_whitespace);
        let before = format!("{before}{}", if is_apart { "" } else { "\n" });
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        Self {
            lines_before: before.matches('\n').count(),
            first_shift: first + before[line_start..].chars().count(),
            shift,
            source: before + &answer,
        }
    }

    /// Maps a place in the program to the answer; places before it map to its start.
    pub(super) fn place(&self, place: Place) -> Place {
        let (line, shift) = match place.line.saturating_sub(self.lines_before) {
            0 => return Place { line: 1, column: 1 },
            1 => (1, self.first_shift),
            line => (line, self.shift),
        };
        let column = place.column.saturating_sub(shift).max(1);
        Place { line, column }
    }
}

/// An unfinished Python function at the end of code.
struct OpenFunction<'t> {
    name: &'t str,
    /// Start of its decorators.
    start: usize,
    /// Whether it has no body, not even a docstring.
    is_empty: bool,
}

/// The function that code ends with, if it is `entry` or has at most a docstring.
fn open_function<'t>(before: &'t str, entry: Option<&str>) -> Option<OpenFunction<'t>> {
    let (mut at, mut start, mut decorated, mut header) = (0, 0, None, None);
    for line in before.split_inclusive('\n') {
        if line.starts_with('@') {
            decorated = decorated.or(Some(at));
        } else if line.starts_with(|letter: char| letter.is_alphabetic() || letter == '_') {
            header = function_name(line).map(|name| (name, at));
            start = decorated.take().unwrap_or(at);
        }
        at += line.len();
    }
    let (name, header) = header?;
    let mut lines = before[header..]
        .lines()
        .skip_while(|line| !code_of(line).ends_with(':'));
    lines.next()?;
    let rest = lines.map(str::trim).collect::<Vec<_>>().join("\n");
    let rest = rest.trim();
    let is_docstring = |quote: &str| {
        let inner = rest
            .trim_start_matches(['r', 'R', 'u', 'U'])
            .strip_prefix(quote);
        inner
            .and_then(|inner| inner.split_once(quote))
            .is_some_and(|(_, after)| after.trim().is_empty())
    };
    let is_empty = rest.lines().all(|line| code_of(line).is_empty());
    let is_open = is_empty || is_docstring("\"\"\"") || is_docstring("'''");
    (is_open || entry == Some(name)).then_some(OpenFunction {
        name,
        start,
        is_empty,
    })
}

fn function_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("async ").unwrap_or(line).trim_start();
    let rest = rest.strip_prefix("def ")?.trim_start();
    rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .next()
}

fn code_of(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

fn defines(program: &str, name: &str) -> bool {
    let is_word = |text: &str| {
        text.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .any(|word| word == name)
    };
    program.lines().any(|line| {
        let assigned = line.strip_prefix(name).map(str::trim_start);
        function_name(line) == Some(name)
            || assigned.is_some_and(|rest| rest.starts_with('=') || rest.starts_with(':'))
            || (["from ", "import ", "class "]
                .iter()
                .any(|word| line.starts_with(word))
                && is_word(line))
    })
}

/// Missing indents of the first and the other lines as a function's body; `None` if the answer is a
/// program.
fn body_indents(answer: &str) -> Option<(usize, usize)> {
    const INDENT: usize = 4;
    let mut lines = answer.lines().filter(|line| !code_of(line).is_empty());
    let first = lines.next()?;
    if is_indented(first) {
        return Some((0, 0));
    }
    let indents: Vec<usize> = lines
        .clone()
        .map(|line| line.len() - line.trim_start_matches([' ', '\t']).len())
        .collect();
    // Only the first line's indent is missing.
    if let (Some(second), Some(least)) = (indents.first(), indents.iter().min())
        && *least > 0
        && (*least < *second || !code_of(first).ends_with([':', '(', '[', '{', ',', '\\']))
    {
        return Some((*least, 0));
    }
    let returns = |line: &str| {
        ["return", "yield"]
            .iter()
            .any(|word| line.starts_with(word))
    };
    (returns(first) || lines.any(returns)).then_some((INDENT, INDENT))
}

fn first_line(answer: &str) -> &str {
    answer
        .lines()
        .find(|line| !code_of(line).is_empty())
        .unwrap_or_default()
}

fn is_indented(line: &str) -> bool {
    line.starts_with([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_body_or_a_program_behind_what_is_before() {
        let signature = "import math\n\ndef f(x):\n";
        let documented = "import math\n\ndef f(x):\n    \"\"\"Square.\"\"\"\n";
        let helper = "def g(x):\n    return x\n";
        for (before, answer, expected) in [
            // A body, however indented.
            (
                signature,
                "    return x",
                "import math\n\ndef f(x):\n    return x",
            ),
            (
                documented,
                "return x",
                &*format!("{documented}    return x"),
            ),
            (
                documented,
                "y = x\n    return y",
                &*format!("{documented}    y = x\n    return y"),
            ),
            (
                documented,
                "for y in x:\n        if y:\n            return y\n    return 0",
                &*format!(
                    "{documented}    for y in x:\n        if y:\n            return y\n    return 0"
                ),
            ),
            (
                documented,
                "y = x\n\nreturn y",
                &*format!("{documented}    y = x\n\n    return y"),
            ),
            (
                "def f(x):\n    ",
                "y = x\n    return y",
                "def f(x):\n    y = x\n    return y",
            ),
            ("def f(x):\n    ", "    return x", "def f(x):\n    return x"),
            (
                "def f(x):\n    return ",
                "x * x",
                "def f(x):\n    return x * x",
            ),
            // A program: keeps imports, drops a signature without a body.
            (
                signature,
                "def f(x):\n    return x",
                "import math\n\ndef f(x):\n    return x",
            ),
            (
                documented,
                "def f(x):\n    return x",
                &*format!("{documented}def f(x):\n    return x"),
            ),
            (
                "@cache\ndef f(\n    x,\n) -> int:  # one\n",
                "f = abs",
                "f = abs",
            ),
            (
                helper,
                "def f(x):\n    return g(x)",
                &*format!("{helper}def f(x):\n    return g(x)"),
            ),
            (helper, "print(g(1))", &*format!("{helper}print(g(1))")),
            (
                "import math",
                "print(math.pi)",
                "import math\nprint(math.pi)",
            ),
            ("", "return", "return"),
        ] {
            let found = joined(before, answer, None).source;
            assert_eq!(found, expected, "{before}\n{answer}");
        }
        let known = joined("def f(x):\n    y = x\n", "return y", Some("f"));
        assert_eq!(known.source, "def f(x):\n    y = x\n    return y");
    }

    #[test]
    fn places_are_those_of_the_answer() {
        let place = |line, column| Place { line, column };
        let body = joined("def f(x):\n    '''f'''\n", "y = x\nreturn z", None);
        for (found, expected) in [
            (place(2, 5), place(1, 1)),
            (place(3, 5), place(1, 1)),
            (place(4, 12), place(2, 8)),
        ] {
            assert_eq!(body.place(found), expected);
        }
        let rest = joined("x = ", "1 +", None);
        assert_eq!(rest.place(place(1, 7)), place(1, 3));
        let alone = joined("", "x", None);
        assert_eq!(alone.place(place(1, 1)), place(1, 1));
    }
}
