"""A copy of a task whose reward is a function: of this process, or `FILE:NAME`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, Union

from ._program import GrpoError, call

if TYPE_CHECKING:
    from ._callable import Server

Path = Union[str, "os.PathLike[str]"]
Reward = Union[Callable[..., Any], Path]
RELAY, FUNCTION = "grpo_tui_relay.py", "reward_function.py"
HEADER = re.compile(r"\s*\[\[?\s*\"?([A-Za-z_][\w-]*)\"?[^\[\]]*\]\]?\s*(#.*)?$")
# Keys of `[score]` that hold for any scorer.
KEPT = re.compile(r"(tiers|strip_thinking|continue_after_failure)\s*=.*[^\[{,]$")
OF_CALLABLES = ("range", "completions", "zero", "seconds", "max_scorer_errors")


@contextlib.contextmanager
def rewarded(
    task: Path, reward: Reward | None, options: dict[str, Any] | None
) -> Iterator[tuple[str, Server | None]]:
    """The task's name or folder, and the server of its reward, if that is a function here."""
    if reward is None:
        if options:
            raise GrpoError("reward_options are for a `reward`: pass one, or edit task.toml")
        yield os.fspath(task), None
        return
    workspace = tempfile.mkdtemp(prefix="grpo-tui-task-")
    server = None
    try:
        call("init", workspace, "--from", os.fspath(task))
        [name] = os.listdir(os.path.join(workspace, "tasks"))
        folder = os.path.join(workspace, "tasks", name)
        place = os.path.join(folder, "task.toml")
        rest = without_score(read(place))
        # What else the task starts is trusted by its user alone, not by a reward of theirs.
        write(place, rest + toml({"kind": "text"}))
        try:
            call("task", "trust", folder)
        except GrpoError as error:
            if "not trusted" not in str(error):
                raise
            raise GrpoError(f"{error}: see `grpo-tui task trust {os.fspath(task)}`", 1) from None
        if callable(reward):
            server = of_callable(reward, dict(options or {}), folder, rest)
        else:
            of_file(reward, dict(options or {}), folder, rest)
        call("task", "trust", folder, "--yes")
        yield folder, server
    except BaseException:
        if server:
            server.close()
        raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def of_callable(reward: Any, options: dict[str, Any], folder: str, rest: str) -> Server:
    from ._callable import Server, source_of

    unknown = [name for name in options if name not in OF_CALLABLES]
    if unknown:
        raise GrpoError(
            f"reward_options[{unknown[0]!r}] is not for a function of this process: "
            f"it takes {', '.join(OF_CALLABLES)}"
        )
    seconds = options.get("seconds", 10)
    server = Server(reward, options, seconds)
    shutil.copy(os.path.join(os.path.dirname(__file__), "_relay.py"), os.path.join(folder, RELAY))
    write(os.path.join(folder, FUNCTION), source_of(reward, options))
    # The relay needs no package: the interpreter outlives a virtual environment.
    python = getattr(sys, "_base_executable", None) or sys.executable
    limits: dict[str, Any] = {
        name: options[name] for name in ("seconds", "max_scorer_errors") if name in options
    }
    table: dict[str, Any] = {
        "kind": "command",
        "command": [python, RELAY],
        "files": [FUNCTION],
        "processes": 1,
        "memory_mib": 0,
        # The sandbox hides the sockets of this process.
        "isolation": "none",
        **limits,
    }
    write(os.path.join(folder, "task.toml"), rest + toml(table))
    return server


def of_file(reward: Path, options: dict[str, Any], folder: str, rest: str) -> None:
    path, _, name = str(reward).rpartition(":")
    if not path.endswith(".py") or not name:
        raise GrpoError(
            f"reward is {reward!r}: pass a function, or FILE:NAME such as rewards.py:score"
        )
    home = os.path.dirname(os.path.abspath(path))
    for file in (os.path.basename(path), *options.get("files", [])):
        target = os.path.join(folder, file)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            shutil.copy(os.path.join(home, file), target)
        except OSError as error:
            raise GrpoError(f"reward {reward!r}: {error.filename}: {error.strerror}") from None
    function = f"{os.path.basename(path)}:{name}"
    table = {"kind": "python", "reward": function, "python": sys.executable, **options}
    write(os.path.join(folder, "task.toml"), rest + toml(table))


def toml(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


def without_score(text: str) -> str:
    """task.toml without `schema` and `[[reward]]`, up to the keys of its scorer in `[score]`."""
    kept, score, table, is_text = [], [], "", False
    for line in text.splitlines():
        header = None if is_text else HEADER.match(line)
        table = header[1] if header else table
        if table == "score" and KEPT.match(line):
            score.append(line)
        is_schema = not table and re.match(r"\s*schema\s*=", line)
        if table not in ("score", "reward") and not is_schema:
            kept.append(line)
        is_text ^= (line.count('"""') + line.count("'''")) % 2 == 1
    return "\n".join([*kept, "", "[score]", *score, ""])


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
