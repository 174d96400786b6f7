//! Tests in Python that an answer tries to steer, tests that do not run, and the usual forms of tests.

use serde_json::json;

use super::program_tests::{PYTHON, scored, stdout_of, task};
use crate::program::{call, json as document};

const ADD: &str = "def add(a, b):\n    return a + b\n";
/// Its process answers for itself, and claims the names of builtins, modules and tests.
const FORGED: &str = "import os, json\nout = lambda message: os.write(3, json.dumps(message).encode() + b'\\n')\nown = ['abs', 'all', 'len', 'zip', 'map', 'isinstance', 'next', 'unittest', 'test_add', 'TestAdd', '__import__']\nown = [[name, {'new': 5, 'type': 'function'}] for name in own]\nout({'names': {'add': {'new': 1, 'type': 'function'}, '__builtins__': {'dict': own}, **dict(own)}})\nfor line in os.fdopen(3, 'rb', closefd=False): out({'value': True, 'arguments': []})\n";

/// The same tests in the forms of pytest, unittest and HumanEval.
const FORMS: [&str; 10] = [
    "def check(candidate):\n    assert all(map(lambda c: candidate(*c[0]) == c[1], [((2, 3), 5), ((1, 1), 2)]))\n",
    "def check(*, candidate):\n    for got, want in zip(map(candidate, [2, 1], [3, 1]), [5, 2]):\n        assert got == want\n",
    "def test_add():\n    assert abs(add(2, 3) - 5) < 1e-6 and len([add(1, 1)]) == 1\n",
    "async def test_add():\n    assert add(2, 3) == 5\n",
    "class TestAdd:\n    def setup_method(self):\n        self.x = 3\n    def test_add(self):\n        assert add(2, self.x) == 5\n",
    "import functools\n@functools.lru_cache\ndef test_add():\n    assert add(2, 3) == 5\n",
    "class C:\n    def __call__(self):\n        assert add(2, 3) == 5\ntest_add = C()\n",
    "import unittest\nclass T(unittest.TestCase):\n    @classmethod\n    def setUpClass(cls):\n        cls.x = 3\n    def test_add(self):\n        with self.subTest():\n            self.assertEqual(add(2, self.x), 5)\n",
    "import unittest\nclass T(unittest.IsolatedAsyncioTestCase):\n    async def test_add(self):\n        self.assertEqual(add(2, 3), 5)\n",
    "def test_one(a, b, want):\n    assert add(a, b) == want\nfor case in [(2, 3, 5), (1, 1, 2)]:\n    test_one(*case)\n",
];

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn an_answer_does_not_steer_its_tests() {
    let raises = [
        "StopIteration",
        "StopAsyncIteration",
        "GeneratorExit",
        "KeyboardInterrupt",
        "SystemExit(0)",
        "AssertionError",
        "type('X', (StopIteration,), {})",
        "BaseExceptionGroup('x', [StopIteration()])",
        "__import__('unittest').SkipTest('x')",
    ];
    let mut answers: Vec<String> = vec![ADD.to_owned()];
    answers.extend(raises.map(|error| format!("def add(*given): raise {error}\n")));
    answers.extend(raises.map(|error| {
        format!("class I:\n    def __iter__(self): return self\n    def __next__(self): raise {error}\n    __eq__ = __len__ = __next__\ndef add(*given): return I()\n")
    }));
    let own = [
        "test_add",
        "TestAdd",
        "T",
        "test_one",
        "check",
        "load_tests",
    ];
    let own: String = own
        .map(|name| format!("def {name}(*given): pass\n"))
        .concat();
    answers.push(format!("{own}def add(*given): return 0\n"));
    answers.extend([FORGED, "def add(*given): pass\n"].map(str::to_owned));
    let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
    for tests in FORMS {
        let row = json!({"entry": "add", "tests": tests}).to_string();
        for (number, (found, reasons)) in scored(PYTHON, &row, &answers).iter().enumerate() {
            let expected = if number == 0 { "valid" } else { "invalid" };
            assert!(
                found.starts_with(expected),
                "{tests}\n{}\n{found} {reasons:?}",
                answers[number]
            );
        }
    }
}

/// An iterator that ends within `map` does not end the test; what a test expects to be raised, it catches.
#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn tests_catch_what_they_name() {
    for (tests, right, wrong) in [
        (
            "g = f(1)\nassert next(g) == 0\ntry:\n    next(g)\n    assert False\nexcept StopIteration:\n    pass\nassert all(map(lambda n: next(f(n)) == 0, [1, 2]))\n",
            "def f(n):\n    yield from range(n)\n",
            "def f(n):\n    yield from range(1 if n < 2 else 0)\n",
        ),
        (
            "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        with self.assertRaises(AssertionError):\n            f(-1)\n        self.assertEqual(f(1), 1)\n",
            "def f(n):\n    assert n > 0\n    return n\n",
            "def f(n):\n    assert False\n",
        ),
        (
            "import asyncio\nasync def test_a():\n    assert await asyncio.gather(f(1), f(2)) == [1, 4]\ndef test_b():\n    assert asyncio.run(f(3)) == 9\n",
            "async def f(x): return x * x\n",
            "async def f(x): raise StopIteration\n",
        ),
        (
            "def test_a():\n    try:\n        f(1)\n    except:\n        pass\n    ok = True\n    assert ok\n",
            "def f(x): raise ValueError\n",
            "import os\ndef f(x): os._exit(0)\n",
        ),
        (
            "assert f(5) == 120\n",
            "import math\nf = math.factorial\n",
            "def f(x): return 10 ** 5000\n",
        ),
    ] {
        let row = json!({"entry": "f", "tests": tests}).to_string();
        let found = scored(PYTHON, &row, &[right, wrong]);
        assert!(
            found[0].0.starts_with("valid") && found[1].0.starts_with("invalid"),
            "{tests}\n{found:?}"
        );
    }
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn tests_that_do_not_run_are_errors_of_their_row() {
    let idle = "nothing calls `";
    let folder = tempfile::tempdir().unwrap();
    for (tests, expected) in [
        (
            "def test_add():\n    for a in (1, 2):\n        assert add(a, a) == 2 * a\n        yield\n",
            "`test_add` yields",
        ),
        (
            "def test_add():\n    def inner():\n        assert add(2, 3) == 5\n",
            idle,
        ),
        (
            "def verify(candidate):\n    assert candidate(2, 3) == 5\n",
            idle,
        ),
        (
            "class AddTests:\n    def test_add(self):\n        assert add(2, 3) == 5\n",
            idle,
        ),
        (
            "import unittest\nclass T(unittest.TestCase):\n    def check_add(self):\n        self.assertEqual(add(2, 3), 5)\n",
            idle,
        ),
        (
            "class TestAdd:\n    def __init__(self): pass\n    def test_add(self):\n        assert add(2, 3) == 5\n",
            "has an `__init__`",
        ),
        (
            "def test_add():\n    add(2, 3) == 5\n",
            "nothing in them can fail",
        ),
        (
            "def test_add(numbers):\n    assert add(*numbers) == 5\n",
            "nothing gives `test_add` its argument `numbers`",
        ),
        (
            "def main():\n    assert add(2, 3) == 5\nif __name__ == '__main__':\n    main()\n",
            "without a call of the answer's functions",
        ),
        (
            "if len([]):\n    assert add(2, 3) == 5\n",
            "without a call of the answer's functions",
        ),
        // As pytest, where it is not installed.
        (
            "import no_pytest\n@no_pytest.mark.parametrize('a', [1])\ndef test_add(a):\n    assert add(a, a) == 2 * a\n",
            "No module named 'no_pytest'; install `no_pytest` for ",
        ),
        (
            "def test_add():\n    import no_pytest\n    with no_pytest.raises(TypeError):\n        add()\n",
            "No module named 'no_pytest'; install `no_pytest` for ",
        ),
        (
            "try:\n    import no_pytest\nexcept ImportError:\n    no_pytest = None\n@no_pytest.fixture\ndef one():\n    return 1\ndef test_add(one):\n    assert add(one, one) == 2\n",
            "1 of 1 expected answers are invalid",
        ),
        (
            "try:\n    import no_pytest\nexcept ImportError:\n    no_pytest = None\nif no_pytest:\n    def test_add():\n        assert add(1, 1) == 2\n",
            "without a call of the answer's functions",
        ),
    ] {
        let row = json!({"entry": "add", "tests": tests, "expected": ADD}).to_string();
        task(folder.path(), PYTHON, &[&row], &[]);
        let said = stdout_of(&call(folder.path(), &["task", "check", "."]));
        assert!(
            said.contains(expected) && said.contains("line 1"),
            "{tests}\n{said}"
        );
    }
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn rows_that_accept_a_degenerate_answer_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let row = |tests: &str| json!({"entry": "add", "tests": tests, "expected": ADD}).to_string();
    let lenient = row("try:\n    assert add(2, 3) == 5\nexcept Exception:\n    pass\n");
    let strict = row(FORMS[0]);
    task(folder.path(), PYTHON, &[&strict, &strict, &lenient], &[]);
    let said = stdout_of(&call(folder.path(), &["task", "check", "."]));
    assert!(
        said.contains("1 of 3 rows accept a degenerate answer: line 3"),
        "{said}"
    );
    let audit = document(&call(folder.path(), &["task", "audit", ".", "--json"]));
    let findings = audit["findings"].as_array().unwrap();
    let found = findings
        .iter()
        .find(|finding| finding["name"] == "StopIteration raised")
        .unwrap();
    let sentence = found["sentence"].as_str().unwrap();
    assert!(
        found["weak"] == true && sentence.contains("is valid for 1 of 3 rows, line 3"),
        "{found}"
    );
}
