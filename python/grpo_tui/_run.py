"""Runs: start, follow, read and stop them; evals and scores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Union

from ._program import GrpoError, call, json_lines, started

if TYPE_CHECKING:
    from ._callable import Server
    from ._task import Path, Reward

# Of a run that a worker computes, or soon will.
ACTIVE = ("created", "waiting", "starting", "running", "paused", "stopping")
# Arguments of `grpo-tui train` that are not configuration keys.
OPTIONS = ("gpu", "gpus", "cpu", "preset", "config", "mix", "agent", "ignore_preflight_errors")


class RunError(GrpoError):
    """A run that failed or was interrupted: its cause; `run` can be resumed."""

    def __init__(self, run: Run, message: str, exit_code: int):
        super().__init__(message, exit_code)
        self.run = run


class Run:
    """A run's folder. Everything is read from it anew, also while the run is computed."""

    def __init__(self, path: Path, server: Server | None = None):
        self.path = os.path.abspath(path)
        self.id = os.path.basename(self.path)
        self._server = server
        self._drawn_in: int | None = None
        if server:
            server.is_ended = self._stop_at_exit

    def state(self) -> dict[str, Any]:
        """Status, configuration, progress, evals and checkpoints, as `runs show --json`."""
        return json.loads(call("runs", "show", self.path, "--json"))

    @property
    def status(self) -> str:
        """created, waiting, starting, running, paused, stopping, finished, failed, interrupted."""
        return self.state()["status"]

    @property
    def outcome(self) -> str | None:
        """Base against result on held-out prompts, in a sentence; `None` before it is known."""
        return (self.state()["outcome"] or {}).get("sentence")

    @property
    def best(self) -> str:
        """The best checkpoint, as `evaluate`, `serve` and `train(model=...)` take it."""
        return f"{self.path}@best"

    def events(self) -> Iterator[dict[str, Any]]:
        """Every event from the first, as it is recorded, until the end (docs/run-directory.md)."""
        with started(["runs", "attach", self.path, "--json"], stdout=subprocess.PIPE) as process:
            try:
                for line in process.stdout:
                    yield json.loads(line)
            finally:
                process.terminate()

    def metrics(self, frame: bool | str = False) -> Any:
        """A dict for each step, or a DataFrame (`frame=True`, "pandas" or "polars")."""
        return rows(json_lines(call("runs", "export", self.path, "--jsonl")), frame)

    def rollouts(self, step: int | None = None, frame: bool | str = False) -> Any:
        """A dict for each completion, of one step or of all; or a DataFrame."""
        found = json_lines(call("runs", "export", self.path, "--rollouts"))
        return rows([row for row in found if step is None or row["step"] == step], frame)

    def evals(self, frame: bool | str = False) -> Any:
        """A dict for each eval, with its set, target and rates; or a DataFrame."""
        found = [dict(each) for each in self.state()["evals"]]
        return rows([{**each.pop("summary", {}), **each} for each in found], frame)

    def wait(self, timeout: float | None = None, progress: bool | None = None) -> Run:
        """Waits for the end. `progress` shows it; by default in terminals and notebooks.

        Raises `RunError` for a run that has not finished, and `TimeoutError`.
        """
        import threading

        from ._curves import cell, notebook_display

        show = notebook_display(self) if progress is not False else None
        is_shown = show is None and (sys.stdout.isatty() if progress is None else progress)
        sink = subprocess.PIPE if show else None if is_shown else subprocess.DEVNULL
        arguments = ["runs", "attach", self.path, *(["--json"] if show else [])]
        with started(arguments, stdout=sink, stderr=subprocess.PIPE) as process:
            timer = threading.Timer(timeout or 0, process.kill)
            timer.daemon = True
            if timeout is not None:
                timer.start()
            try:
                for line in process.stdout or []:
                    if show and ('"kind":"step"' in line or '"kind":"eval"' in line):
                        show()
                complaint = process.communicate()[1]
            except BaseException:
                process.kill()
                raise
            finally:
                timer.cancel()
        if show:
            show(is_last=True)
            self._drawn_in = cell()
        state = self.state()
        if state["status"] in ACTIVE and process.returncode < 0:
            place = f"step {state['step']} of {state['total_steps']}"
            raise TimeoutError(f"{self.id} is {state['status']} after {timeout} s, at {place}")
        if state["status"] == "finished":
            self._close()
            return self
        message = f"{self.id} {state['status']}: {state['cause'] or complaint.strip()}"
        error = self._server.error if self._server else None
        raise RunError(self, message, process.returncode) from error

    def _close(self) -> None:
        if self._server:
            self._server.close()

    def stop(self, now: bool = False, wait: float = 600) -> Run:
        """Stops after the current step, with a checkpoint; `now`: at once, losing the step."""
        call("runs", "stop", self.path, "--wait", str(int(wait)), *(["--now"] if now else []))
        return self

    def resume(self, reward: Reward | None = None, **options: Any) -> Run:
        """Continues from the last checkpoint; `reward` if it was a function of a process."""
        from . import _task

        kept = os.path.join(self.path, "task", _task.FUNCTION)
        if reward is not None and not callable(reward):
            raise GrpoError(
                "a run keeps its reward FILE:NAME: resume() takes a function or nothing"
            )
        if os.path.exists(kept) and reward:
            from ._callable import Server

            server = Server(reward, json.loads(_task.read(kept).splitlines()[0].lstrip("# ")))
            self._close()
            self._server, server.is_ended = server, self._stop_at_exit
        elif reward:
            raise GrpoError(
                f"the reward of {self.id} is not a function of a process: resume() alone"
            )
        elif os.path.exists(kept) and not self._server:
            raise GrpoError(f"the reward of {self.id} is a function: resume(reward=FUNCTION)")
        arguments = ["train", "--resume", self.path, "--detach", *flags(options)]
        call(*arguments, socket=self._server.path if self._server else None, is_loud=True)
        return self

    def _stop_at_exit(self) -> None:
        """The run cannot score without this process: it stops with a checkpoint."""
        if os.path.exists(self.path) and self.status in ACTIVE:
            print(f"{self.id}: stops, as this process has its reward", file=sys.stderr)
            self.stop(wait=60)

    def __repr__(self) -> str:
        state = self.state()
        steps = f"{state['step']}/{state['total_steps']}"
        return f"Run({self.id!r}, status={state['status']!r}, step={steps})"

    def _repr_html_(self) -> str | None:
        from ._curves import cell, page

        # `wait` has drawn it in this cell of a notebook.
        if self._drawn_in is not None and self._drawn_in == cell():
            return None
        return page(json.loads(call("runs", "export", self.path, "--json")))


Model = Union[Run, str, "os.PathLike[str]"]


def train(
    task: Path | list[Path],
    model: Model | None = None,
    reward: Reward | None = None,
    *,
    reward_options: dict[str, Any] | None = None,
    runs: Path | None = None,
    name: str | None = None,
    **keys: Any,
) -> Run:
    """Starts a run in the background, and returns it.

    `task`: a folder, a name, or several. `reward`: a function of this process, or `FILE:NAME`;
    it replaces the task's own, and `reward_options` are keys of kind = "python": `range`,
    `completions`, `zero`, `seconds`, `max_scorer_errors`, for `FILE:NAME` also `files`.
    `keys`: configuration keys, and the options `gpu`, `gpus`, `cpu`, `preset`, `config`, `mix`,
    `agent` and `ignore_preflight_errors` of `grpo-tui train`.
    """
    tasks = task if isinstance(task, list) else [task]
    if not tasks:
        raise GrpoError("train takes a task, or a list of several")
    if reward is not None and len(tasks) != 1:
        raise GrpoError("a reward is for one task: pass one, or edit the task.toml of each")
    options = {key: keys.pop(key) for key in OPTIONS if key in keys}
    options.update(runs=runs, name=name, model=model and model_name(model))
    settings = [f"--set={key}={text(value)}" for key, value in keys.items()]
    more = [*flags(options), *settings, "--detach", "--json"]
    if len(tasks) > 1:
        printed = call("train", *(os.fspath(each) for each in tasks), *more, is_loud=True)
        return Run(json.loads(printed)["path"])
    from ._task import rewarded

    with rewarded(tasks[0], reward, reward_options) as given:
        printed = given.call("train", given.argument, *more, is_loud=True)
        return Run(json.loads(printed)["path"], given.kept_server())


def load(run: Path, runs: Path | None = None) -> Run:
    """A run by path, id, name, or unique prefix of an id."""
    folder = ["--runs", os.fspath(runs)] if runs else []
    return Run(json.loads(call("runs", "show", os.fspath(run), "--json", *folder))["path"])


def evaluate(
    task: Path,
    model: Model | Mapping[str, Model],
    *,
    reward: Reward | None = None,
    reward_options: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Compares one to three models on held-out prompts: what `grpo-tui eval --json` prints.

    `options` are those of `grpo-tui eval`: `on="eval"`, `limit=50`, `samples=4`, `out="DIR"`.
    """
    from ._task import rewarded

    models = model if isinstance(model, Mapping) else {"model": model}
    named = [f"--model={name}={model_name(each)}" for name, each in models.items()]
    with rewarded(task, reward, reward_options) as given:
        return json.loads(given.call("eval", given.argument, *named, "--json", *flags(options)))


def score(
    task: Path,
    completions: Iterable[str | dict[str, Any]],
    *,
    reward: Reward | None = None,
    reward_options: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Reward, tier and reasons of each completion: a text, or `{"completion", "prompt_id"}`."""
    from ._task import rewarded

    if isinstance(completions, (str, bytes)):
        raise GrpoError("score takes a list of completions, not one text")
    lines = [{"completion": each} if isinstance(each, str) else each for each in completions]
    asked = "".join(json.dumps(line) + "\n" for line in lines)
    with rewarded(task, reward, reward_options) as given:
        arguments = ["score", given.argument, "--completions", "-", "--json"]
        return json_lines(given.call(*arguments, text=asked)) if lines else []


def model_name(model: Model) -> str:
    return model.best if isinstance(model, Run) else os.fspath(model)


def flags(options: Mapping[str, Any]) -> list[str]:
    """Options of a command: `True` is the option alone, a list or a mapping repeats it."""
    found = []
    for key, value in options.items():
        flag = "--" + key.replace("_", "-")
        if isinstance(value, Mapping):
            value = [f"{name}={text(each)}" for name, each in value.items()]
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if each is True:
                found.append(flag)
            elif each is not None and each is not False:
                found.append(f"{flag}={text(each)}")
    return found


def text(value: Any) -> str:
    """A value as the program reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def rows(found: list[dict[str, Any]], frame: bool | str) -> Any:
    if not frame:
        return found
    names = [frame] if isinstance(frame, str) else ["pandas", "polars"]
    # What is imported already is what its user works with.
    for name in sorted(names, key=lambda name: name not in sys.modules):
        try:
            module = __import__(name)
        except ImportError:
            continue
        return module.DataFrame(
            found, **({"infer_schema_length": None} if name == "polars" else {})
        )
    raise ImportError(f"a DataFrame needs {' or '.join(names)}: pip install {names[0]}")
