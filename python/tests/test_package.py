"""The package against the program at `$GRPO_TUI`, with runs of the model `tests/nano`.

GRPO_TUI=target/debug/grpo-tui PYTHONPATH=python python3 -m unittest discover -s python/tests
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from typing import Any, Callable

import grpo_tui
from grpo_tui import _curves, _task
from grpo_tui._callable import source_of
from grpo_tui._program import call

ROOT = pathlib.Path(__file__).resolve().parents[2]
NANO = ROOT / "tests" / "nano"
SHORT = {"max_steps": 2, "max_completion_tokens": 8, "eval_every": 0, "cpu": True}


def right(completion: str, expected: str) -> float:
    return float(completion.strip() == expected)


def number_of_letters(completions: list[Any], **_: Any) -> list[float]:
    return [len(completion[0]["content"]) % 7 / 7 for completion in completions]


def divides(completion: str) -> float:
    return 1 / 0


DIVIDES = (
    f"test_package.py line {divides.__code__.co_firstlineno + 1} in divides: ZeroDivisionError"
)


class Package(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.task = self.folder / "sums"
        self.task.mkdir()
        self.write_task()
        for name, count in (("train", 6), ("eval", 2)):
            rows = [
                {
                    "id": f"{name}-{at}",
                    "messages": [{"role": "user", "content": f"{at} + 1?"}],
                    "expected": str(at + 1),
                }
                for at in range(count)
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (self.task / f"{name}.jsonl").write_text(lines)

    def write_task(self, more: str = "") -> None:
        (self.task / "task.toml").write_text(
            'name = "sums"\n[prompts]\ntrain = "train.jsonl"\neval = "eval.jsonl"\n'
            '[score]\nkind = "text"\n[train]\nprompt_groups_per_step = 2\n'
            f'completions_per_prompt = 2\nbase_model = "{NANO}"\n{more}'
        )

    def train(self, reward: Any = None, **more: Any) -> grpo_tui.Run:
        with contextlib.redirect_stderr(io.StringIO()):
            return grpo_tui.train(
                self.task, reward=reward, runs=self.folder / "runs", **{**SHORT, **more}
            )

    def score(self, reward: Any, *completions: str, **options: Any) -> list[Any]:
        """The reward of each completion, or why there is none."""
        asked = [{"completion": each, "prompt_id": "train-1"} for each in completions]
        found = grpo_tui.score(self.task, asked, reward=reward, reward_options=options or None)
        return [
            each["errors"][0]["message"] if each["reward"] is None else each["reward"]
            for each in found
        ]

    def refused(self, *arguments: Any, **options: Any) -> grpo_tui.GrpoError:
        with self.assertRaises(grpo_tui.GrpoError) as caught:
            with contextlib.redirect_stderr(io.StringIO()):
                self.score(*arguments, **options)
        return caught.exception


class Scores(Package):
    def test_a_function_is_called_by_the_names_of_its_parameters(self) -> None:
        def verl(data_source: str, solution_str: str, ground_truth: str) -> dict[str, Any]:
            return {"score": float(solution_str == ground_truth)}

        async def later(completion: str, row: dict[str, Any]) -> float:
            return float(completion == row["expected"])

        class Judge:
            def __call__(self, completion: str) -> bool:
                return completion == "2"

        for reward in (right, verl, later, Judge(), lambda completion: completion == "2"):
            self.assertEqual(self.score(reward, "2", "3"), [1, 0], reward)
        self.assertEqual(self.score(number_of_letters, "a", "ab"), [1 / 7, 2 / 7])
        self.assertEqual(
            self.score(lambda completion, expected: {"form": 1, "value": expected == "3"}, "x"),
            [0.5],
        )
        self.assertEqual(self.score(lambda completion: 4, "x", range=[0, 8]), [0.5])

    def test_a_file_of_functions_is_the_reward(self) -> None:
        (self.folder / "helper.py").write_text("def value(text): return float(text == '2')\n")
        file = self.folder / "rewards-\U0001f600.py"
        file.write_text("import helper\ndef score(completion): return helper.value(completion)\n")
        self.assertEqual(self.score(f"{file}:score", "2", "3", files=["helper.py"]), [1, 0])

    def test_what_a_function_does_wrong_is_said_with_its_place(self) -> None:
        def hangs(completion: str) -> float:
            while True:
                time.sleep(0.01)

        def cases() -> list[tuple[Callable[..., Any], str]]:
            return [
                (lambda: 1, "takes no completion: write `def <lambda>(completion, row)`"),
                (lambda completion, colour: 1, "asks for `colour`, which the row lacks: it has id"),
                (lambda completions, **_: [1.0] * 9, "returned 9 rewards for 1 completions"),
                (lambda completion: float("nan"), "returned nan"),
                (lambda completion: "good", "returned the text 'good': a number is needed"),
                (lambda completion: 3, "returned 3, which is not from 0 to 1: write `range ="),
                (divides, f"{DIVIDES}: division by zero"),
            ]

        for function, expected in cases():
            self.assertIn(expected, str(self.refused(function, "x")))
        error = self.refused(hangs, "x", seconds=1)
        self.assertRegex(str(error), r"no answer within 0.9 s: it is in test_package.py line \d+")
        self.assertIsInstance(self.refused(divides, "x").__cause__, ZeroDivisionError)

    def test_what_a_function_does_besides_does_no_harm(self) -> None:
        def busy(completion: str, row: dict[str, Any]) -> float:
            row.clear()
            print("seen", completion)
            os.fork()
            return 1.0

        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.assertEqual(self.score(busy, "a", "b"), [1, 1])
        self.assertEqual(printed.getvalue(), "seen a\nseen b\n")

    def test_wrong_arguments_are_said(self) -> None:
        def check(expected: str, *arguments: Any, **options: Any) -> None:
            self.assertIn(expected, str(self.refused(*arguments, **options)))

        check("reward is 'rewards.py': pass a function, or FILE:NAME", "rewards.py", "x")
        check("reward is [1]: pass a function", [1], "x")
        check("/absent.py: No such file or directory", "/absent.py:score", "x")
        check("reward_options['files'] is not for a function", right, "x", files=["a"])
        check("reward_options['range'] is [1, 0]: write [LEAST, FULL]", right, "x", range=[1, 0])
        check("reward_options['seconds'] is 'x': write a number", right, "x", seconds="x")
        check("reward_options['zero'] is 0: write \"invalid\" or", right, "x", zero=0)
        check("reward_options are for a `reward`", None, "x", seconds=3)
        absent = f"{sys.prefix}/absent/bin/python"
        (self.folder / "rewards.py").write_text("def score(completion): return 1\n")
        check(f"`{absent}` is not installed", f"{self.folder}/rewards.py:score", "x", python=absent)
        with self.assertRaisesRegex(grpo_tui.GrpoError, "takes a task, or a list"):
            grpo_tui.train([])
        with self.assertRaisesRegex(grpo_tui.GrpoError, "a list of completions, not one text"):
            grpo_tui.score(self.task, "one")
        self.assertEqual(grpo_tui.score(self.task, []), [])

    def test_a_sandboxed_program_does_not_learn_of_the_socket(self) -> None:
        file = self.folder / "rewards.py"
        file.write_text(
            "import os\ndef f(completion): return 'GRPO_TUI_REWARD_SOCKET' in os.environ"
        )
        found = {}
        for level in ("none", "limited"):
            with _task.rewarded(self.task, f"{file}:f", {"isolation": level}) as given:
                arguments = ["score", given.argument, "--json", "--completions", "-"]
                try:
                    text = call(*arguments, text='{"completion": "x"}\n', socket="/absent")
                except grpo_tui.GrpoError as error:
                    self.skipTest(str(error))  # this machine cannot isolate
                found[level] = json.loads(text)["reward"]
        self.assertEqual(found, {"none": 1, "limited": 0})

    def test_the_task_is_named_as_its_user_names_it(self) -> None:
        (self.task / "train.jsonl").write_text("{}\n")
        self.assertIn(f"{self.task}/train.jsonl line 1", str(self.refused(right, "x")))

    def test_other_programs_of_the_task_are_not_trusted_with_the_reward(self) -> None:
        self.write_task('[agent]\nrun = ["python3", "agent.py"]\n')
        (self.task / "agent.py").write_text("")
        error = self.refused(right, "x")
        self.assertIn("not trusted: the agent will not be used", str(error))
        self.assertIn(f"grpo-tui task trust {self.task}", str(error))


class Copies(unittest.TestCase):
    def test_a_task_loses_its_scorer_alone(self) -> None:
        text = (
            'name = "a"\nschema = "s.json"\nsystem = """\n[score]\nkind\n"""\n'
            'x = [\n  ["schema"]\n]\n[score]\nkind = "json_schema"\nstrip_thinking = true\n'
            'tiers = { valid = 2.0 } # best\n[score.aliases]\na = ["b"]\n'
            '[[reward]] # a part\npart = "fields"\n[prompts]\ntrain = "t"\n'
        )
        expected = (
            'name = "a"\nsystem = """\n[score]\nkind\n"""\nx = [\n  ["schema"]\n]\n'
            '[prompts]\ntrain = "t"\n\n[score]\nstrip_thinking = true\n'
            "tiers = { valid = 2.0 } # best\n"
        )
        self.assertEqual(_task.without_score(text), expected)

    def test_a_function_without_known_source_is_kept_by_its_code(self) -> None:
        names: dict[str, Any] = {}
        exec("def a(completion): return 1\ndef b(completion): return 2", names)
        kept = [source_of(names[name], {}) for name in ("a", "b", "a")]
        self.assertEqual(kept[0], kept[2])
        self.assertNotEqual(kept[0], kept[1])
        self.assertIn("return 1 / 0", source_of(divides, {"seconds": 3}))


class Runs(Package):
    def test_a_run_with_a_function_is_followed_and_read(self) -> None:
        run = self.train(number_of_letters, name="letters", seed=3)
        kinds = [event["kind"] for event in run.events()]
        self.assertEqual((kinds[0], kinds[-1]), ("run", "end"))
        self.assertIs(run.wait(progress=False), run)
        self.assertEqual([row["step"] for row in run.metrics()], [1, 2])
        rollouts = run.rollouts()
        self.assertEqual(len(rollouts), 8)
        for row in rollouts:
            self.assertEqual(row["reward"], len(row["completion"]) % 7 / 7)
        self.assertEqual(len(run.rollouts(step=2)), 4)
        evals = {(row["set"], row["step"]) for row in run.evals()}
        self.assertEqual(evals, {("eval", 0), ("eval", 2)})
        kept = (pathlib.Path(run.path) / "task" / "reward_function.py").read_text()
        self.assertIn("def number_of_letters(", kept)
        again = grpo_tui.load("letters", runs=self.folder / "runs")
        self.assertEqual((again.id, again.status), (run.id, "finished"))
        self.assertRegex(repr(again), r"Run\('.*', status='finished', step=2/2\)")
        found = grpo_tui.evaluate(self.task, {"base": NANO, "trained": run}, on="eval", cpu=True)
        self.assertEqual(list(found["targets"]), ["base", "trained"])
        self.check_page(run)
        with grpo_tui.serve(run, cpu=True) as server:
            body = {"model": server.model, "messages": [{"role": "user", "content": "1 + 1?"}]}
            request = urllib.request.Request(
                f"{server.base_url}/chat/completions",
                json.dumps({**body, "max_tokens": 4}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request) as reply:
                self.assertEqual(json.load(reply)["choices"][0]["message"]["role"], "assistant")
        with self.assertRaises(OSError):
            urllib.request.urlopen(request)

    def check_page(self, run: grpo_tui.Run) -> None:
        page = run._repr_html_()
        self.assertEqual(page.count("<svg"), 3, page)
        self.assertEqual(page.count("<polyline"), 3, page)
        state = run.state()
        state.update(cause="<script>", series={}, task="<b>")
        self.assertNotIn("<script>", _curves.page(state))
        self.assertIn("&lt;b&gt;", _curves.page(state))

    def test_a_function_that_fails_ends_the_run_with_its_traceback(self) -> None:
        run = self.train(divides)
        with self.assertRaises(grpo_tui.RunError) as caught:
            run.wait(progress=False)
        self.assertIn(DIVIDES, str(caught.exception))
        self.assertIsInstance(caught.exception.__cause__, ZeroDivisionError)
        self.assertEqual((caught.exception.run, caught.exception.exit_code), (run, 1))

    def test_a_run_is_stopped_and_resumed(self) -> None:
        run = self.train(number_of_letters, max_steps=100_000)
        with self.assertRaisesRegex(TimeoutError, "after 0.01 s, at step"):
            run.wait(timeout=0.01, progress=False)
        with self.assertRaisesRegex(grpo_tui.RunError, " interrupted: .*stop"):
            run.stop().wait(progress=False)
        with contextlib.redirect_stderr(io.StringIO()):
            run.resume()
        self.assertEqual(run.stop(now=True).status, "interrupted")

    def test_a_run_whose_process_is_gone_says_so_and_is_resumed(self) -> None:
        text = (
            "import sys, time, grpo_tui\n"
            "def letters(completion): return len(completion) % 7 / 7\n"
            f"run = grpo_tui.train({str(self.task)!r}, reward=letters, runs={str(self.folder)!r},"
            f" checkpoint_every=1, **{ {**SHORT, 'max_steps': 100_000}!r})\n"
            "print(run.path, flush=True)\n"
        )
        for ends in ("time.sleep(600)", "sys.exit()"):
            process = subprocess.Popen(
                [sys.executable, "-c", text + ends],
                env={**os.environ, "TMPDIR": str(self.folder)},  # what a kill leaves
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            with process:
                run = grpo_tui.load(process.stdout.readline().strip())
                if "sleep" in ends:
                    next(event for event in run.events() if event["kind"] == "step")
                    process.send_signal(signal.SIGKILL)
            with self.assertRaises(grpo_tui.RunError) as caught:
                run.wait(progress=False)
            gone = "a function of a Python process that has ended: continue with `grpo_tui.load"
            expected = gone if "sleep" in ends else " interrupted: "
            self.assertIn(expected, str(caught.exception))
        with self.assertRaisesRegex(grpo_tui.GrpoError, "is a function: resume.reward=FUNCTION"):
            run.resume()
        with contextlib.redirect_stderr(io.StringIO()):
            run.resume(reward=number_of_letters)
        seen = run.state()["step"]
        while run.state()["step"] <= seen:
            self.assertIn(run.status, ("starting", "running"))
        run.stop(now=True)

    def test_errors_are_in_the_words_of_the_program(self) -> None:
        def check(expected: str, code: int, call: Callable[[], Any]) -> None:
            with self.assertRaises(grpo_tui.GrpoError) as caught:
                call()
            self.assertIn(expected, str(caught.exception))
            self.assertEqual(caught.exception.exit_code, code)

        check("unknown key `colour`", 2, lambda: self.train(colour="red"))
        check("no run `absent` in ", 1, lambda: grpo_tui.load("absent", runs=self.folder))
        check('no task "absent"', 1, lambda: grpo_tui.train("absent"))
        check('no task "absent"', 1, lambda: grpo_tui.train("absent", reward=right))
        check("absent", 1, lambda: grpo_tui.serve("absent", cpu=True))

    def test_a_frame_needs_its_package(self) -> None:
        run = self.train()
        with self.assertRaisesRegex(ImportError, "a DataFrame needs absent: pip install absent"):
            run.metrics(frame="absent")
        sys.modules["pandas"] = frames = type(sys)("pandas")
        self.addCleanup(sys.modules.pop, "pandas")
        frames.DataFrame = lambda rows: ("frame", len(rows))
        run.wait(progress=False)
        self.assertEqual(run.metrics(frame=True), ("frame", 2))


class Notebook(Package):
    def test_its_cells_run(self) -> None:
        cells = json.loads((ROOT / "python" / "notebook.ipynb").read_text())["cells"]
        self.assertEqual(len(cells), 10)
        names: dict[str, Any] = {"__name__": "notebook"}
        # The test model, and fewer steps: what it learns is not the question here.
        smaller = {'"tiny"': f'"{NANO}"', "max_steps=20": f'max_steps=2, runs="{self.folder}"'}
        for cell in cells:
            text = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
            for old, new in smaller.items():
                text = text.replace(old, new)
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                with contextlib.redirect_stderr(io.StringIO()):
                    exec(compile(text, f"cell {cell['id']}", "exec"), names)
        self.assertEqual(names["run"].status, "finished")
        self.assertEqual(list(names["compared"]["targets"]), ["base", "trained"])
        self.assertRegex(printed.getvalue(), r"^http://127.0.0.1:\d+/v1 ")


class Program(unittest.TestCase):
    def test_the_program_is_found_or_its_absence_said(self) -> None:
        own = os.environ["GRPO_TUI"]
        self.addCleanup(os.environ.__setitem__, "GRPO_TUI", own)
        self.addCleanup(os.environ.__setitem__, "PATH", os.environ["PATH"])
        self.assertEqual(grpo_tui.program(), own)
        os.environ["GRPO_TUI"] = "/absent"
        with self.assertRaisesRegex(grpo_tui.GrpoError, "GRPO_TUI is '/absent', which is not a"):
            grpo_tui.program()
        del os.environ["GRPO_TUI"]
        os.environ["PATH"] = os.path.dirname(own)
        self.assertTrue(os.access(grpo_tui.program(), os.X_OK))
        os.environ["PATH"] = ""
        with contextlib.suppress(grpo_tui.GrpoError):
            self.assertNotEqual(grpo_tui.program(), own)

    def test_nothing_heavy_is_imported(self) -> None:
        heavy = "asyncio, inspect, tempfile, socket, html, IPython, pandas, polars"
        text = f"import sys, grpo_tui; print(*{{*{heavy.split(', ')}}} & {{*sys.modules}})"
        found = subprocess.run([sys.executable, "-S", "-c", text], capture_output=True, text=True)
        self.assertEqual((found.stdout, found.stderr), ("\n", ""))


if __name__ == "__main__":
    unittest.main()
