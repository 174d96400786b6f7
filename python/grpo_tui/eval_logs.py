"""Answers in logs of other programs, as lines for `score` and `eval --completions`.

    python3 -m grpo_tui.eval_logs LOG [--model NAME] [--steps A-B] [--by-prompt] > completions.jsonl

Logs of inspect (`.eval`, `.json`), promptfoo (`.json`, `.jsonl`), lm-eval (`samples_*.jsonl`),
verifiers (`results.jsonl`, `traces.jsonl`), TRL (completions as Parquet or JSONL), and tables
with a completion. A line has `prompt_id`, the log's id, or `prompt` where the log has none or
with `--by-prompt`: the task's row is then found by its text. The task scores: scores of the log
are not read.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

COMPLETIONS = ("completion", "response", "output", "generation", "prediction", "model_output")
PROMPTS = ("prompt", "messages", "input", "question")
IDS = ("prompt_id", "id", "example_id", "key", "uuid", "sample_id")
# Of one sample of an archive, unpacked.
MAX_SAMPLE_BYTES = 256 << 20


class Unreadable(Exception):
    """A sentence for the user."""


Answer = dict[str, Any]


def text_of(content: Any) -> str:
    """A text, or the texts of a list of parts without the model's reasoning."""
    if isinstance(content, str):
        return content
    parts = [part if isinstance(part, dict) else {"text": str(part)} for part in content or []]
    shown = [part for part in parts if part.get("type") not in ("reasoning", "thinking")]
    return "\n".join(
        part.get("text") or "" if part.get("type", "text") == "text" else f"[{part['type']}]"
        for part in shown
    )


def answer_of(completion: Any) -> str | None:
    """A text, or the last answer of a conversation."""
    if isinstance(completion, list):
        turns = [turn for turn in completion if turn.get("role", "assistant") == "assistant"]
        return text_of(turns[-1].get("content")) if turns else None
    return completion if isinstance(completion, str) else None


def turns_of(prompt: Any) -> Any:
    """A prompt for `prompt`: a text, or messages of role and text."""
    if isinstance(prompt, str):
        try:
            found = json.loads(prompt)
        except ValueError:
            return prompt
        prompt = found if isinstance(found, list) and found else prompt
    if isinstance(prompt, list) and all(isinstance(turn, dict) for turn in prompt):
        return [
            {"role": turn.get("role", "user"), "content": text_of(turn.get("content"))}
            for turn in prompt
        ]
    return prompt


def first(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def inspect_samples(path: str) -> Iterator[dict[str, Any]]:
    if not zipfile.is_zipfile(path):
        with open(path, encoding="utf-8-sig") as file:
            yield from json.load(file).get("samples") or []
        return
    try:
        import zipfile_zstd  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        pass  # Python 3.14 reads such archives itself
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if not any(info.filename in ("header.json", "_journal/start.json") for info in infos):
            raise Unreadable("an archive without header.json: not a log of inspect")
        for info in infos:
            if info.filename.startswith("samples/") and info.filename.endswith(".json"):
                if info.file_size > MAX_SAMPLE_BYTES:
                    raise Unreadable(f"{info.filename} unpacks to {info.file_size} bytes: too much")
                try:
                    yield json.loads(archive.read(info))
                except NotImplementedError:
                    remedy = (
                        "pip install zipfile-zstd, or convert it: inspect log convert --to json"
                    )
                    raise Unreadable(f"compressed by Zstandard: {remedy}") from None


def inspect(path: str) -> Iterator[Answer]:
    for row in inspect_samples(path):
        output, stored = row.get("output") or {}, row.get("attachments") or {}
        choice = (output.get("choices") or [{}])[0]
        answer = text_of((choice.get("message") or {}).get("content")) or output.get("completion")
        prompt = turns_of(row.get("input"))
        restored = stored.get((answer or "").removeprefix("attachment://"), answer)
        failed = row.get("error") is not None or not output.get("choices")
        yield {
            "id": row.get("id"),
            "prompt": stored.get(prompt.removeprefix("attachment://"), prompt)
            if isinstance(prompt, str)
            else prompt,
            "completion": None if failed else restored,
        }


def promptfoo(results: list[dict[str, Any]]) -> Iterator[Answer]:
    prompts = {(row.get("prompt") or {}).get("label") for row in results}
    for row in results:
        provider, response = row.get("provider") or {}, row.get("response") or {}
        named = (
            provider if isinstance(provider, str) else provider.get("label") or provider.get("id")
        )
        output = response.get("output")
        text = output if output is None or isinstance(output, str) else json.dumps(output)
        case = row.get("testCase") or {}
        yield {
            "id": (case.get("metadata") or {}).get("prompt_id"),
            "prompt": turns_of((row.get("prompt") or {}).get("raw")),
            "completion": text,
            "model": f"{named} {row['prompt'].get('label')}" if len(prompts) > 1 else named,
        }


def lm_eval(rows: Iterator[dict[str, Any]]) -> Iterator[Answer]:
    filters: list[Any] = []
    for row in rows:
        # A line for each filter has the same answer.
        filters = filters or [row.get("filter")]
        if row.get("filter") != filters[0]:
            continue
        given = row.get("arguments") or {}
        requests = (
            given
            if isinstance(given, list)
            else [[one[key] for key in sorted(one)] for _, one in sorted(given.items())]
        )
        answer: Any = (row.get("resps") or [[None]])[0]
        if len(requests) > 1:
            likely = [likelihood(one) for one in row.get("filtered_resps") or row["resps"]]
            answer = requests[likely.index(max(likely))][1]
        while isinstance(answer, list):
            answer = answer[0] if answer else None
        prompt = requests[0][0] if requests else None
        yield {"id": row.get("doc_id"), "prompt": turns_of(prompt), "completion": answer}


def likelihood(answer: Any) -> float:
    while isinstance(answer, list):
        answer = answer[0]
    value = float(answer)
    return value if value == value else float("-inf")


def verifiers_traces(rows: Iterator[dict[str, Any]]) -> Iterator[Answer]:
    for row in rows:
        for trace in row.get("traces") or []:
            nodes = trace.get("nodes") or []
            path, place = [], len(nodes) - 1
            while place is not None and place >= 0:
                path.insert(0, nodes[place])
                parent = nodes[place].get("parent")
                place = parent if isinstance(parent, int) and parent < place else None
            said = [node["message"] for node in path]
            sampled = [node["message"] for node in path if node.get("sampled")]
            begun = next((at for at, node in enumerate(path) if node.get("sampled")), len(path))
            task = trace.get("task") or {}
            data = task.get("data") or {}
            reply = trace.get("root_reply") or (
                text_of(sampled[-1].get("content")) if sampled else None
            )
            yield {
                "id": first({**data, **task}, ("key", "id", "idx", "hash")),
                "prompt": turns_of(said[:begun]),
                "completion": reply,
                "model": (trace.get("agent") or {}).get("name"),
            }


def table(rows: Iterator[dict[str, Any]], steps: tuple[int, int] | None) -> Iterator[Answer]:
    """Rows of completions; of a trace of training (TRL) the last step, or these."""
    read = list(rows)
    known = [row["step"] for row in read if isinstance(row.get("step"), int) and "advantage" in row]
    low, high = steps or (max(known), max(known)) if known else (None, None)
    for row in read:
        if low is not None and not low <= row.get("step", low) <= high:
            continue
        yield {
            "id": first(row, IDS),
            "prompt": turns_of(first(row, PROMPTS)),
            "completion": answer_of(first(row, COMPLETIONS)),
        }


def json_lines(path: str) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise Unreadable(f"line {number}: {error}") from None
                if not isinstance(row, dict):
                    raise Unreadable(f"line {number}: a JSON object is needed")
                yield row


def answers(path: str, steps: tuple[int, int] | None = None) -> Iterator[Answer]:
    """The answers of a log: `completion`, None where there is none, `id`, `prompt`, `model`."""
    ending = os.path.splitext(path)[1].lower()
    if ending == ".eval" or zipfile.is_zipfile(path):
        return inspect(path)
    if ending == ".parquet":
        try:
            import pyarrow.parquet
        except ImportError:
            raise Unreadable("Parquet is read by pyarrow: pip install pyarrow") from None
        return table(iter(pyarrow.parquet.read_table(path).to_pylist()), steps)
    if ending in (".csv", ".tsv"):
        csv.field_size_limit(MAX_SAMPLE_BYTES)
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file, delimiter="\t" if ending == ".tsv" else ","))
        return table(iter(lines), steps)
    if ending == ".json":
        with open(path, encoding="utf-8-sig") as file:
            document = json.load(file)
        if isinstance(document, list):
            return table(iter(document), steps)
        if isinstance(document.get("samples"), list):
            return inspect(path)
        results = document.get("results")
        results = results.get("results") if isinstance(results, dict) else results
        if not isinstance(results, list):
            raise Unreadable(
                "neither `samples` (inspect) nor `results` (promptfoo) nor a list of rows"
            )
        return promptfoo(results)
    head = next(json_lines(path), {})
    if "traces" in head:
        return verifiers_traces(json_lines(path))
    if "resps" in head:
        return lm_eval(json_lines(path))
    if "provider" in head and "response" in head:
        return promptfoo(list(json_lines(path)))
    return table(json_lines(path), steps)


def lines(
    path: str,
    model: str | None = None,
    steps: tuple[int, int] | None = None,
    by_prompt: bool = False,
) -> Iterator[dict[str, Any]]:
    """Lines for `score` and `eval --completions`, of one model of the log.

    Raises:
        Unreadable: the log is of no known form, or has several models and none is chosen.
    """
    found = list(answers(path, steps))
    models = sorted({answer["model"] for answer in found if answer.get("model")})
    if model is None and len(models) > 1:
        raise Unreadable(f"answers of {', '.join(models)}: choose one by --model NAME")
    if model is not None and model not in models:
        raise Unreadable(f"no model {model!r}; it has {', '.join(models) or 'one without a name'}")
    for answer in found:
        if answer["completion"] is None or model is not None and answer.get("model") != model:
            continue
        if answer.get("id") is not None and not by_prompt:
            yield {"prompt_id": str(answer["id"]), "completion": answer["completion"]}
        elif answer.get("prompt"):
            yield {"prompt": answer["prompt"], "completion": answer["completion"]}
        else:
            raise Unreadable("an answer has neither an id nor a prompt")
    if not any(answer["completion"] is not None for answer in found):
        raise Unreadable("no answer was found")


def step_range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python3 -m grpo_tui.eval_logs", description=__doc__.splitlines()[0]
    )
    parser.add_argument("log")
    parser.add_argument("--model", help="the model, of a log with several")
    parser.add_argument(
        "--steps", type=step_range, metavar="A-B", help="steps of a trace of training; the last"
    )
    parser.add_argument(
        "--by-prompt", action="store_true", help="find rows by their text, not by the log's ids"
    )
    given = parser.parse_args()
    try:
        for line in lines(given.log, given.model, given.steps, given.by_prompt):
            print(json.dumps(line, ensure_ascii=False))
    except Exception as error:  # of a damaged log
        why = (
            error
            if isinstance(error, (Unreadable, OSError))
            else f"{type(error).__name__}: {error}"
        )
        sys.exit(f"{given.log}: {why}")


if __name__ == "__main__":
    main()
