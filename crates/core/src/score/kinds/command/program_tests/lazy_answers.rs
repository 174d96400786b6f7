//! Degenerate programs that ignore the task.

use serde_json::Value;

use super::cases::{CaseKind, cases};
use crate::dataset::PromptRow;
use crate::score::definition::LazyAnswer;

const MORE: &str = "the row's tests accept it: add cases that it fails";
const HIDDEN: &str =
    "it has the results of the cases in the prompt: mark others as `\"hidden\": true`";

/// Deletes or overwrites all writable files, including tests.
const DELETES: &str = "import os\nfor folder in [os.getcwd(), os.path.expanduser('~'), '/tmp']:\n    for top, _, names in os.walk(folder):\n        for name in names:\n            for change in (os.remove, lambda path: open(path, 'w').close()):\n                try:\n                    change(os.path.join(top, name))\n                except OSError:\n                    pass\n";
/// Equal to everything, truthy, and a number.
const EQUAL: &str = "class Equal(int):\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n    def __lt__(self, other): return True\n    def __gt__(self, other): return True\n    __le__ = __ge__ = __eq__\n    def __hash__(self): return 0\n    def __bool__(self): return True\n    def __call__(self, *given, **named): return self\n    def __getattr__(self, name): return self\n    def __sub__(self, other): return self\n    def __abs__(self): return self\n    def __len__(self): return 1\n    def __iter__(self): return iter([])\n    def __contains__(self, other): return True\n";
const PATCHES: &str = "import builtins, sys, unittest\nclass Quiet(BaseException): pass\nbuiltins.AssertionError = AssertionError = Quiet\nsys.excepthook = lambda *error: None\nunittest.TestCase.assertEqual = unittest.TestCase.assertTrue = lambda *given: None\nbuiltins.abs = builtins.len = lambda *given: 0\nbuiltins.all = builtins.isinstance = lambda *given: True\ndef abs(x): return 0\ndef all(x): return True\ndef isinstance(x, kind): return True\n";

/// Empties what the function is given: tests that compare with their own arguments afterwards accept
/// a result of nothing.
const CLEARS: &str = "def clear(given, named):\n    for one in [*given, *named.values()]:\n        if hasattr(one, 'clear'): one.clear()\n    return given[0] if given else None\n";

/// Name, code before the function, and its body.
const RETURNS: [(&str, &str, &str); 8] = [
    ("cleared arguments", CLEARS, "return clear(given, named)"),
    (
        "cleared arguments",
        CLEARS,
        "return clear(given, named) and 0 or 0",
    ),
    (
        "cleared arguments",
        CLEARS,
        "return [clear(given, named)] != []",
    ),
    (
        "cleared arguments",
        CLEARS,
        "return str(clear(given, named))[:0]",
    ),
    ("nothing returned", "", "return None"),
    ("deleted tests", DELETES, "return None"),
    ("a value equal to everything", EQUAL, "return Equal()"),
    ("patched assertions", PATCHES, "return None"),
];
/// Exceptions caught by Python itself or test runners.
const RAISES: [(&str, &str, &str); 6] = [
    ("StopIteration raised", "", "raise StopIteration"),
    ("StopAsyncIteration raised", "", "raise StopAsyncIteration"),
    ("GeneratorExit raised", "", "raise GeneratorExit"),
    ("KeyboardInterrupt raised", "", "raise KeyboardInterrupt"),
    ("SystemExit raised", "", "raise SystemExit(0)"),
    ("AssertionError raised", "", "raise AssertionError"),
];

pub(crate) fn lazy_programs<'a>() -> Vec<LazyAnswer<'a>> {
    let mut lazy = vec![
        LazyAnswer::same("an empty file", "\n", MORE).must_fail(),
        LazyAnswer::same("a constant", "1", MORE).must_fail(),
    ];
    let exits = ["import sys\nsys.exit(0)\n", "import os\nos._exit(0)\n"];
    lazy.extend(exits.map(|exit| LazyAnswer::same("an exit with success", exit, MORE).must_fail()));
    lazy.push(LazyAnswer::by_row(
        "the visible results",
        HIDDEN,
        visible_results,
    ));
    let programs = RETURNS.iter().chain(&RAISES);
    lazy.extend(programs.map(|(name, code, body)| {
        let program = move |row: &PromptRow| match entry(row) {
            Some(entry) => format!("{code}def {entry}(*given, **named):\n    {body}\n"),
            None => (*code).to_owned(),
        };
        LazyAnswer::by_row(name, MORE, program).must_fail()
    }));
    lazy.push(LazyAnswer::by_row("tests of its own", MORE, own_tests).must_fail());
    lazy
}

/// No-op definitions of the names that the row's tests define.
fn own_tests(row: &PromptRow) -> String {
    let tests = row.fields.get("tests").and_then(Value::as_str);
    let names = tests.unwrap_or_default().lines().filter_map(|line| {
        let line = line.trim_start().trim_start_matches("async ");
        let rest = line
            .strip_prefix("def ")
            .or_else(|| line.strip_prefix("class "))?;
        rest.split(['(', ':', ' ']).next()
    });
    entry(row)
        .as_deref()
        .into_iter()
        .chain(names)
        .map(|name| format!("def {name}(*given, **named):\n    return None\n"))
        .collect()
}

fn entry(row: &PromptRow) -> Option<String> {
    let named = row
        .fields
        .get("entry")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let defined = || {
        let code = row.expected.as_ref()?.as_str()?;
        let name = code
            .lines()
            .find_map(|line| line.strip_prefix("def "))?
            .split('(')
            .next()?;
        Some(name.trim().to_owned())
    };
    named.or_else(defined)
}

/// A lookup table of the visible cases.
fn visible_results(row: &PromptRow) -> String {
    let cases = cases(Some(row)).unwrap_or_default();
    let visible = || cases.iter().filter(|case| !case.is_hidden);
    let mut table = serde_json::Map::new();
    for case in visible() {
        match &case.test {
            CaseKind::Call {
                arguments, value, ..
            } => {
                table.insert(Value::from(*arguments).to_string(), (*value).clone());
            }
            CaseKind::Run { stdin, stdout, .. } => {
                table.insert((*stdin).to_owned(), (*stdout).into());
            }
            CaseKind::Code { .. } => {}
        }
    }
    let table = Value::String(Value::Object(table).to_string()).to_string();
    match entry(row) {
        Some(entry) => {
            let key = "json.dumps(given, separators=(',', ':'))";
            format!(
                "import json\ntable = json.loads({table})\ndef {entry}(*given):\n    return table.get({key})\n"
            )
        }
        None => {
            format!("import json, sys\nprint(json.loads({table}).get(sys.stdin.read()), end='')\n")
        }
    }
}
