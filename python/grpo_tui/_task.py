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


class Task:
    """A task as the program is given it; `server` if its reward is a function of this process."""

    def __init__(self, task: Path):
        self.name, self.copy = os.fspath(task), ""
        self.server: Server | None = None
        self.is_kept = False

    def kept_server(self) -> Server | None:
        """The server, which stays for the run that needs it."""
        self.is_kept = True
        return self.server

    @property
    def argument(self) -> str:
        return self.copy or self.name

    def call(self, *arguments: str, text: str = "", is_loud: bool = False) -> str:
        socket = self.server.path if self.server else None
        renamed = (self.copy, self.name)
        try:
            return call(*arguments, text=text, socket=socket, is_loud=is_loud, renamed=renamed)
        except GrpoError as error:
            raise error from (self.server.error if self.server else None)


@contextlib.contextmanager
def rewarded(task: Path, reward: Reward | None, options: dict[str, Any] | None) -> Iterator[Task]:
    """The task, or for a time a copy with another reward."""
    if reward is None:
        if options:
            raise GrpoError("reward_options are for a `reward`: pass one, or edit task.toml")
        yield Task(task)
        return
    workspace = tempfile.mkdtemp(prefix="grpo-tui-task-")
    given = Task(task)
    try:
        call("init", workspace, "--from", given.name)
        [name] = os.listdir(os.path.join(workspace, "tasks"))
        given.copy = os.path.join(workspace, "tasks", name)
        place = os.path.join(given.copy, "task.toml")
        rest = without_score(read(place))
        # What else the task starts is trusted by its user alone, not by a reward of theirs.
        write(place, rest + toml({"kind": "text"}))
        try:
            given.call("task", "trust", given.copy)
        except GrpoError as error:
            if "not trusted" not in str(error):
                raise
            raise GrpoError(f"{error}: see `grpo-tui task trust {given.name}`", 1) from None
        if callable(reward):
            given.server = of_callable(reward, dict(options or {}), given.copy, rest)
        else:
            of_file(reward, dict(options or {}), given.copy, rest)
        given.call("task", "trust", given.copy, "--yes")
        yield given
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
        if given.server and not given.is_kept:
            given.server.close()


def of_callable(reward: Any, options: dict[str, Any], folder: str, rest: str) -> Server:
    from ._callable import Server, source_of

    unknown = [name for name in options if name not in OF_CALLABLES]
    if unknown:
        raise GrpoError(
            f"reward_options[{unknown[0]!r}] is not for a function of this process: "
            f"it takes {', '.join(OF_CALLABLES)}"
        )
    server = Server(reward, options)
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
    return "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in table.items()
    )


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
