"""A function of this process as the reward of a run.

The worker of a run starts `_relay.py` as its scorer, which reaches this process over a Unix socket
in a folder of mode 0700. One thread of this process calls the function, whatever asks.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import inspect
import json
import marshal
import math
import os
import queue
import shutil
import socket
import sys
import tempfile
import threading
import traceback
import weakref
from typing import Any, Callable

from ._program import GrpoError
from ._reward import Lines, Reward, Wrong, label

# One of each rank, and of evals beside the run. Their threads start with the first: at the end of
# this process, while the run stops, Python starts none.
MAX_CONNECTIONS = 16
servers: weakref.WeakSet[Server] = weakref.WeakSet()


class Function(Reward):
    """A function that is called by the names of its parameters, as `kind = "python"` does."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any], seconds: float):
        plain = inspect.unwrap(function)
        code = getattr(plain, "__code__", None) or getattr(type(plain).__call__, "__code__", None)
        self.source, self.seconds = getattr(code, "co_filename", ""), seconds
        self.function = function
        self.jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.work, daemon=True, name="grpo-tui reward")
        # Held while the function runs.
        self.lock, self.is_late = threading.Lock(), False
        name = getattr(function, "__name__", type(function).__name__)
        super().__init__(f"{self.source}:{name}", options)
        self.thread.start()

    def load(self) -> Any:
        return self.function

    def work(self) -> None:
        own = os.getpid()
        while True:
            questions, job = self.jobs.get()
            try:
                job["answers"] = super().answer(questions)
            except BaseException as error:
                job["error"] = error
            if os.getpid() != own:  # a child that the function has forked
                os._exit(0)
            self.is_late = False
            self.lock.release()
            job["done"].set()

    def answer(self, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not self.lock.acquire(timeout=0 if self.is_late else self.seconds / 2):
            raise Wrong(f"{self.name} has not returned from an earlier call: {self.place()}")
        job: dict[str, Any] = {"done": threading.Event()}
        self.jobs.put((questions, job))
        if not job["done"].wait(self.seconds):
            self.is_late = True
            raise Wrong(f"{self.name} gave no answer within {self.seconds:g} s: {self.place()}")
        if "error" in job:
            raise job["error"]
        return job["answers"]

    def place(self) -> str:
        """Where the function is now."""
        frame = sys._current_frames().get(self.thread.ident or 0)
        stack = traceback.extract_stack(frame) if frame else []
        own = [entry for entry in stack if entry.filename == self.source]
        at = f"in {label(self.source)} line {own[-1].lineno}" if own else "in other code"
        return f"it is {at}: correct it, or raise `seconds` in reward_options"


class Answers(Lines):
    """Answers of one connection; the first traceback is shown, and the last kept."""

    def __init__(self, server: Server, sink: int):
        self.server = server
        place = f"{server.function.source}:{server.function.name}"
        super().__init__(place, lambda: server.function, sink)

    def raised(self, error: BaseException) -> None:
        found, trace = self.server.function.source, error.__traceback__
        while trace and trace.tb_frame.f_code.co_filename != found:
            trace = trace.tb_next
        error.__traceback__ = trace or error.__traceback__
        if self.server.error is None:
            traceback.print_exception(type(error), error, error.__traceback__)
        self.server.error = error


class Server:
    """Answers the questions of a run's scorer."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]):
        checked = settings(options)
        try:
            # The scorer's own limit would end the relay, without the place of the function.
            self.function = Function(function, checked, checked["seconds"] * 0.9)
        except Wrong as error:
            raise GrpoError(str(error)) from None
        self.error: BaseException | None = None
        self.is_ended: Callable[[], None] = lambda: None
        # A socket's path has 107 bytes at most, which one below TMPDIR may exceed.
        parent = None if len(os.fsencode(tempfile.gettempdir())) < 80 else "/tmp"
        self.folder = tempfile.mkdtemp(prefix="grpo-tui-", dir=parent)
        self.path = os.path.join(self.folder, "socket")
        self.sockets = [socket.socket(socket.AF_UNIX)]
        self.sockets[0].bind(self.path)
        self.sockets[0].listen()
        servers.add(self)
        for _ in range(MAX_CONNECTIONS):
            threading.Thread(target=self.accept, daemon=True, name="grpo-tui relay").start()

    def accept(self) -> None:
        listener = self.sockets[0]
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            self.sockets.append(connection)
            self.serve(connection)

    def serve(self, connection: socket.socket) -> None:
        try:
            Answers(self, connection.fileno()).answer_all(connection.fileno())
        except OSError:
            pass  # the relay has ended
        finally:
            self.sockets.remove(connection)
            connection.close()

    def close(self) -> None:
        servers.discard(self)
        for each in self.sockets[:]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.sockets[0].close()
        shutil.rmtree(self.folder, ignore_errors=True)


def settings(options: dict[str, Any]) -> dict[str, Any]:
    """Checked as task.toml is: that of the run has those of the relay alone."""

    def is_range(value: Any) -> bool:
        try:
            least, full = map(float, value)
        except (TypeError, ValueError):
            return False
        return -math.inf < least < full < math.inf

    found = {"range": None, "completions": None, "zero": "invalid", "seconds": 10, **options}
    for key, is_right, form in (
        ("range", is_range, "[LEAST, FULL] such as [-1.0, 2.0]"),
        ("completions", ("text", "messages").__contains__, '"text" or "messages"'),
        ("zero", ("invalid", "unparsable").__contains__, '"invalid" or "unparsable"'),
        ("seconds", lambda value: is_range([0, value]), "a number above 0"),
    ):
        if key in options and not is_right(found[key]):
            raise GrpoError(f"reward_options[{key!r}] is {found[key]!r}: write {form}")
    return found


def source_of(function: Callable[..., Any], options: dict[str, Any]) -> str:
    """What the run keeps of a function: its settings, and its text where Python knows it."""
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        known = hashlib.sha256(marshal.dumps(code)).hexdigest() if code else type(function).__name__
        text = f"# Its source is not known to Python: {known}\n"
    return f"# {json.dumps(options, default=list)}\n{text}"


def forget_in_child() -> None:
    # A child of this process must not keep a socket open for longer than this process does.
    for server in list(servers):
        for each in server.sockets:
            each.close()
    servers.clear()


@atexit.register
def end_all() -> None:
    for server in list(servers):
        server.is_ended()
        server.close()


os.register_at_fork(after_in_child=forget_in_child)
