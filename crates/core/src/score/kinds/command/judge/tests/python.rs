//! Tests of reward functions in Python: how they are called, what they return, how they fail.

use super::*;
use crate::dataset::load_from;
use crate::score::needs::PythonRules;

const PLAIN: PythonRules = PythonRules {
    range: None,
    completions: None,
    zero: "invalid",
};

/// The verdicts of answers to a row, by the function `f` of a file.
fn rewarded(text: &str, rules: &PythonRules, row: &str, answers: &[&str]) -> Vec<Verdict> {
    let command = ["python3", "rewards.py:f"];
    let (_folder, scorer) = scorer(&command, &[("rewards.py", text)], |all| {
        (all.mode, all.seconds) = (CommandMode::Python(rules.clone()), 5.0);
    });
    let rows = load_from("rows", row.as_bytes()).unwrap();
    let asked: Vec<_> = answers
        .iter()
        .map(|answer| (*answer, rows.first(), &[1, 2][..]))
        .collect();
    scorer.judge_all(&asked, &|| true).unwrap()
}

/// As `valid`, `0.25`, or why there is no reward.
fn shown(verdict: &Verdict) -> String {
    let why = verdict.errors.first().map(|reason| reason.message.as_str());
    match verdict.reward {
        _ if verdict.is_error() => why.unwrap_or_default().to_owned(),
        Some(reward) => format!("{reward}"),
        None => verdict.tier.name().to_owned(),
    }
}

const ROW: &str = r#"{"id": "a", "messages": [{"role": "user", "content": "1 + 1?"}], "expected": "2", "level": 3}"#;

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn a_function_is_called_as_its_parameters_say() {
    let check = |text: &str, expected: [&str; 2]| {
        let found = rewarded(text, &PLAIN, ROW, &["2", "3"]);
        let found: Vec<String> = found.iter().map(shown).collect();
        assert_eq!(found, expected, "{text}");
    };
    check("def f(completion): return completion == '2'", ["1", "0"]);
    check(
        "def f(text): return 0.5 if text == '3' else 1.0",
        ["1", "0.5"],
    );
    check(
        "def f(completion, row): return float(completion == row['expected'])",
        ["1", "0"],
    );
    check(
        "def f(completion, *, level, expected=None): return level / 6 if completion == expected else 0.0",
        ["0.5", "0"],
    );
    check(
        "def f(completion, **row): return row['level'] == 3",
        ["1", "1"],
    );
    check(
        "f = lambda answer, ground_truth: 1 if answer == ground_truth else 0",
        ["1", "0"],
    );
    check(
        "class A:\n    def __call__(self, completion): return 1\nf = A()",
        ["1", "1"],
    );
    // TRL, five shapes of its documentation: lengths, formats, columns, several functions' None, asynchronous.
    check(
        "def f(completions, **kwargs): return [len(c[0]['content']) / 4 for c in completions]",
        ["0.25", "0.25"],
    );
    check(
        "import re\ndef f(completions, **kwargs):\n    contents = [completion[0]['content'] for completion in completions]\n    return [1.0 if re.match(r'^2$', content) else 0.0 for content in contents]",
        ["1", "0"],
    );
    check(
        "def f(prompts, completions, ground_truth, **kwargs):\n    assert prompts[0][0]['content'] == '1 + 1?'\n    return [1.0 if c[0]['content'] == gt else 0.0 for c, gt in zip(completions, ground_truth)]",
        ["1", "0"],
    );
    check(
        "def f(completions, level, log_metric=None, trainer_state=None, **kwargs):\n    log_metric('seen', len(level))\n    return [1.0 if c[0]['content'] == '2' else None for c in completions]",
        ["1", "f returned None: no reward"],
    );
    check(
        "import asyncio\nasync def f(prompts, completions, **kwargs):\n    async def one(c): return float(c[0]['content'] == '2')\n    return await asyncio.gather(*map(one, completions))",
        ["1", "0"],
    );
    check(
        "def f(completions, completion_ids, **kwargs): return [len(ids) / 2 for ids in completion_ids]",
        ["1", "1"],
    );
    check(
        "class F:\n    def __call__(self, completion_ids, **kwargs): return [ids[0] / ids[1] for ids in completion_ids]\nf = F()",
        ["0.5", "0.5"],
    );
    // verl
    check(
        "def f(data_source, solution_str, ground_truth, extra_info=None):\n    return {'score': float(solution_str == ground_truth), 'acc': True}",
        ["1", "0"],
    );
    check(
        "def f(data_source, solution_str, ground_truth='3', extra_info=None): return solution_str == ground_truth",
        ["1", "0"],
    );
    check(
        "def f(completion, color='2'): return completion == color",
        ["1", "0"],
    );
    check(
        "def f(data_sources, solution_strs, ground_truths, extra_infos):\n    return [{'score': s == t} for s, t in zip(solution_strs, ground_truths)]",
        ["1", "0"],
    );
    // verifiers
    check(
        "def f(parser, completion, answer, **kwargs): return float(completion[-1]['content'] == answer)",
        ["1", "0"],
    );
    check(
        "class Rubric: pass\ndef right(completion, answer, **kwargs): return float(completion[-1]['content'] == answer)\nasync def form(completion, state): return 1.0\nf = Rubric()\nf.funcs, f.weights, f.parser = [right, form], [0.75, 0.25], None",
        ["1", "0.25"],
    );
    // Metrics decide nothing, None neither adds nor costs, weights are the range, groups are joined.
    let rubric = "class Rubric:\n    def __init__(self, funcs, weights): self.funcs, self.weights = funcs, weights\n\
        class Group:\n    def __init__(self, *rubrics): self.funcs, self.weights, self.rubrics = [], [], rubrics\n\
        def right(completion, answer): return float(completion[-1]['content'] == answer)\n\
        def nan(completion): return float('nan')\n\
        def fails(completion): raise ValueError('metric')\n\
        def no(completion): return None\n\
        def best(completions, answers, states) -> list[float]: return [float(c[-1]['content'] == a) for c, a in zip(completions, answers)]\n";
    for (funcs, expected) in [
        ("Rubric([right, nan, fails], [1.0, 0.0, 0])", ["1", "0"]),
        ("Rubric([right, no], [0.5, 2.0])", ["1", "0"]),
        (
            "Rubric([no, nan], [0.5, 0.0])",
            ["f returned None: no reward"; 2],
        ),
        ("Rubric([right, right], [2.0, -0.5])", ["0.8", "0.2"]),
        (
            "Group(Rubric([right], [1.0]), Rubric([best, nan], [3.0, 0.0]))",
            ["1", "0"],
        ),
    ] {
        check(&format!("{rubric}f = {funcs}"), expected);
    }
    // A dict: an answer, or parts.
    check(
        "def f(completion): return {'tier': 'valid' if completion == '2' else 'unparsable'}",
        ["valid", "unparsable"],
    );
    check(
        "def f(completion, expected): return {'form': 1, 'value': completion == expected}",
        ["1", "0.5"],
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn numbers_count_within_their_range() {
    let check = |rules: PythonRules, expected: [&str; 3]| {
        let text = "def f(completions, **kwargs): return [-abs(4 - len(c)) for c in completions]";
        let found = rewarded(text, &rules, ROW, &["four", "sixsix", "a long answer"]);
        let found: Vec<String> = found.iter().map(shown).collect();
        assert_eq!(found, expected, "{rules:?}");
    };
    let texts = PythonRules {
        completions: Some("text"),
        ..PLAIN
    };
    let beyond = "the scorer says: f returned -2, which is not from 0 to 1: write `range = [LEAST, FULL]` beside `reward`";
    check(texts.clone(), ["0", beyond, &beyond.replace("-2", "-9")]);
    let ranged = PythonRules {
        range: Some([-8.0, 0.0]),
        ..texts.clone()
    };
    check(ranged.clone(), ["1", "0.75", "0"]);
    let zero = "unparsable";
    check(PythonRules { zero, ..ranged }, ["1", "0.75", "unparsable"]);
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn what_goes_wrong_in_a_function_is_said_in_a_sentence() {
    let check = |text: &str, expected: &str| {
        let found = rewarded(text, &PLAIN, ROW, &["bad", "good"]);
        let found: Vec<String> = found.iter().map(shown).collect();
        assert_eq!(found[0], format!("the scorer says: {expected}"), "{text}");
        found[1].clone()
    };
    let raised = "\ndef f(completion):\n    return 1 if completion == 'good' else 1 / 0";
    let why = "rewards.py line 3 in f: ZeroDivisionError: division by zero";
    assert_eq!(check(raised, why), "1");
    // In a batch, too, only the completion that it fails for has no reward.
    let raised = "\ndef f(completions, **kwargs):\n    for c in completions: assert c[0]['content'] == 'good', 'why'\n    return [1] * len(completions)";
    assert_eq!(
        check(raised, "rewards.py line 3 in f: AssertionError: why"),
        "1"
    );
    check(
        "def f(completion): return 'yes'",
        "f returned the text 'yes': a number is needed",
    );
    check("def f(completion): return float('nan')", "f returned nan");
    check(
        "def f(completion): return object",
        "f returned <class 'object'>: a number is needed",
    );
    check(
        "def f(completion): return {}",
        "f returned an empty dict: a number, or `score` or `tier` is needed",
    );
    let keys = "def f(completions, **kwargs): return {}['price']";
    check(keys, "rewards.py line 1 in f: KeyError: 'price'");
    check(
        "def f(completions, **kwargs): return completions[0].strip()",
        "rewards.py line 1 in f: AttributeError: 'list' object has no attribute 'strip' (completions are lists of messages: `completions = \"text\"` changes that)",
    );
    check(
        "def f(completion): return {'score': 1, 'fields': {1}}",
        "rewards.py:f returned what is no JSON: Object of type set is not JSON serializable",
    );
    check(
        "def f(completions, **kwargs): return [1.0]",
        "f returned 1 rewards for 2 completions",
    );
    check(
        "def f(completions, **kwargs): return 1.0",
        "f returned 1.0 for 2 completions: a list of numbers is needed",
    );
    check(
        "def f(): return 1",
        "f takes no completion: write `def f(completion, row)`, or `(completions, **kwargs)` as TRL has it",
    );
    check(
        "def f(completion, color): return 1",
        "f asks for `color`, which the row lacks: it has id, messages, expected, level",
    );
    check(
        "def f(c): return 1\ndef f(c): return 0",
        "rewards.py defines f 2 times, in lines 1, 2: rename all but one",
    );
    check(
        "def g(completion): return 1",
        "rewards.py has no f: it has g",
    );
    check(
        "f = 3",
        "rewards.py:f is int: name a function, or a rubric that has functions",
    );
    check(
        "def f(c):\n    return 1 +",
        "rewards.py line 2: SyntaxError: invalid syntax",
    );
    check(
        "def f(completion): raise SystemExit(3)",
        "rewards.py line 1 in f: SystemExit: 3",
    );
    let missing = rewarded(
        "import no_such_module\ndef f(c): return 1",
        &PLAIN,
        ROW,
        &["x"],
    );
    let missing = shown(&missing[0]);
    assert!(
        missing.starts_with("the scorer says: rewards.py line 1: ModuleNotFoundError: No module named 'no_such_module': if it is a file of the task, name it in `files`, else install it for "),
        "{missing}"
    );
}

#[test]
#[cfg_attr(not(has_python), ignore = "python3 is not in PATH")]
fn what_a_function_does_beside_its_answer_does_no_harm() {
    for text in [
        "def f(completion):\n    print('{\"id\": 1}')\n    return 1",
        "import os\ndef f(completion):\n    os.fork()\n    return 1",
        "import sys\ndef f(completion):\n    assert sys.stdin.read() == ''\n    return 1",
        "def f(completion, row):\n    row.clear()\n    return 1",
        "def f(completions, level, **kwargs):\n    level.clear()\n    return [1] * len(completions)",
    ] {
        let found = rewarded(text, &PLAIN, ROW, &["a", "b", "c"]);
        let found: Vec<String> = found.iter().map(shown).collect();
        assert_eq!(found, ["1", "1", "1"], "{text}");
    }
    let hangs = "import time\ndef f(completion):\n    time.sleep(600 if completion == 'bad' else 0)\n    return 1";
    let found = rewarded(hangs, &PLAIN, ROW, &["a", "bad", "b"]);
    let found: Vec<String> = found.iter().map(shown).collect();
    assert_eq!(found, ["1", "the scorer gave no answer within 5 s", "1"]);
}
