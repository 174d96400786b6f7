"""Finds and calls the program `grpo-tui`; what it refuses is an exception with its own words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

NAME = "grpo-tui"
VARIABLE = "GRPO_TUI"


class GrpoError(Exception):
    """What the program says where it cannot do something.

    `exit_code` is that of the program: 1 something is missing, invalid or impossible, 2 wrong
    usage; `None` if the program did not run.
    """

    def __init__(self, message: str, exit_code: int | None = None, command: Iterable[str] = ()):
        super().__init__(message)
        self.exit_code = exit_code
        self.command = list(command)


def program() -> str:
    """Path of the program: `$GRPO_TUI`, else that of this installation, else that of `PATH`."""
    import shutil
    import sysconfig

    named = os.environ.get(VARIABLE)
    if named:
        if shutil.which(named):
            return named
        raise GrpoError(f"{VARIABLE} is {named!r}, which is not a program: correct or unset it")
    schemes = [sysconfig.get_default_scheme()] if sys.version_info >= (3, 10) else []
    folders = [sysconfig.get_path("scripts", scheme) for scheme in (*schemes, "posix_user")]
    # `pip install --target DIR` has the program in DIR/bin.
    beside = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin")
    for folder in (os.path.dirname(sys.executable), *folders, beside, None):
        found = shutil.which(NAME, path=folder)
        if found:
            return found
    raise GrpoError(
        f"the program {NAME} is neither in {sysconfig.get_path('scripts')} nor in PATH: "
        f"`pip install --force-reinstall {NAME}`, or set {VARIABLE} to its path"
    )


def started(arguments: Iterable[str], socket: str | None = None, **options: Any) -> Any:
    """A process of the program. `socket`: where a function of this process is the reward."""
    environment = dict(os.environ)
    environment.pop("GRPO_TUI_REWARD_SOCKET", None)
    if socket:
        environment["GRPO_TUI_REWARD_SOCKET"] = socket
    return subprocess.Popen(
        [program(), *arguments], text=True, encoding="utf-8", env=environment, **options
    )


def call(
    *arguments: str,
    text: str = "",
    socket: str | None = None,
    is_loud: bool = False,
    renamed: tuple[str, str] = ("", ""),
) -> str:
    """What the program prints for `arguments`, given `text` as input.

    `is_loud` passes on its warnings; `renamed` is a folder in them, and what its user calls it.
    """
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with started(arguments, socket, **pipes) as process:
        try:
            output, complaint = process.communicate(text)
        except BaseException:
            process.kill()
            raise
    complaint = complaint.replace(*renamed) if renamed[0] else complaint
    if process.returncode:
        raise GrpoError(words(complaint or output), process.returncode, arguments)
    if is_loud and complaint:
        print(complaint, end="", file=sys.stderr)
    return output


def words(complaint: str) -> str:
    """The message of an error, without its label."""
    lines = complaint.strip().splitlines()
    first = next((at for at, line in enumerate(lines) if line.startswith("error")), 0)
    message = "\n".join(lines[first:]) or f"{NAME} has ended without a message"
    return message.removeprefix("error: ")


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line]
