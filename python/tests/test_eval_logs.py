"""Answers in logs that other programs wrote (`scripts/eval-logs.py`)."""

import io
import json
import pathlib
import tempfile
import unittest
import zipfile
from typing import Any

from grpo_tui import eval_logs

LOGS = pathlib.Path(__file__).resolve().parents[2] / "tests" / "eval_logs"


class EvalLogs(unittest.TestCase):
    def test_answers_of_other_programs(self) -> None:
        for name, model, count, first in [
            ("large.json", None, 6, {"prompt_id": "q0"}),
            ("promptfoo.json", "own:small", 8, {"prompt": "What is 0+0?"}),
            ("promptfoo.jsonl", "own:large", 8, {"prompt": "What is 0+0?"}),
            ("results.jsonl", None, 8, {"prompt_id": "0"}),
            ("traces.jsonl", None, 6, {}),
            (
                "own__small/samples_sums_2026-01-02T03-04-05.678901.jsonl",
                None,
                10,
                {"prompt_id": "0"},
            ),
        ]:
            with self.subTest(name):
                found = list(eval_logs.lines(str(LOGS / name), model))
                self.assertEqual(len(found), count)
                self.assertLessEqual(first.items(), found[0].items())
                self.assertTrue(
                    all(line["completion"].startswith("The answer is ") for line in found)
                )

    def test_tables_traces_and_archives(self) -> None:
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

        def lines(name: str, *rows: Any, **options: Any) -> list[dict[str, Any]]:
            path = folder / name
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            return list(eval_logs.lines(str(path), **options))

        turns = [{"role": "user", "content": "a"}]
        said = [*turns, {"role": "assistant", "content": [{"type": "text", "text": "b"}]}]
        trl = [
            {"step": step, "prompt": turns, "completion": said[1:], "advantage": 0}
            for step in (1, 2, 2)
        ]
        self.assertEqual(len(lines("trl.jsonl", *trl)), 2)
        self.assertEqual(
            lines("trl.jsonl", *trl, steps=(1, 1)), [{"prompt": turns, "completion": "b"}]
        )
        table = {"id": 7, "prompt": "a", "response": "b"}
        self.assertEqual(lines("t.jsonl", table), [{"prompt_id": "7", "completion": "b"}])
        self.assertEqual(
            lines("t.jsonl", table, by_prompt=True), [{"prompt": "a", "completion": "b"}]
        )
        with self.assertRaisesRegex(eval_logs.Unreadable, "neither an id nor a prompt"):
            lines("t.jsonl", {"output": "b"})
        (folder / "broken.jsonl").write_text("{")
        with self.assertRaisesRegex(eval_logs.Unreadable, "line 1"):
            list(eval_logs.lines(str(folder / "broken.jsonl")))
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("header.json", "{}")
            sample = {
                "id": "q",
                "input": "a",
                "output": {"choices": [{"message": {"content": "b"}}]},
            }
            file.writestr("samples/q.json", json.dumps(sample))
        (folder / "a.eval").write_bytes(archive.getvalue())
        self.assertEqual(lines_of(folder / "a.eval"), [{"prompt_id": "q", "completion": "b"}])


def lines_of(path: pathlib.Path) -> list[dict[str, Any]]:
    return list(eval_logs.lines(str(path)))
