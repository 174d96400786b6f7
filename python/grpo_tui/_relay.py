"""Passes questions of a run to the Python process that has the reward function, and its answers back.

It is copied into the task of the run, and started as its `command`. See `_callable.py`.
"""

import json
import os
import socket
import sys
import threading

REMEDY = "continue with `grpo_tui.load(RUN).resume(reward=FUNCTION)` in Python"


def connected():
    """The socket of the process, or why there is none."""
    path = os.environ.get("GRPO_TUI_REWARD_SOCKET")
    if not path:
        return None, "the reward is a function of a Python process: " + REMEDY
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError as error:
        gone = "the Python process that has the reward function is gone"
        return None, f"{gone} ({path}: {error.strerror}): {REMEDY}"
    return connection, "the Python process that has the reward function has ended: " + REMEDY


def main():
    connection, why = connected()
    pending, lock = set(), threading.Lock()

    def refuse(ids):
        for id in ids:
            sys.stdout.write(json.dumps({"id": id, "error": why}) + "\n")
        sys.stdout.flush()

    def answers():
        nonlocal connection
        try:
            for line in connection.makefile("rb"):
                with lock:
                    pending.discard(json.loads(line)["id"])
                    sys.stdout.write(line.decode())
                    sys.stdout.flush()
        except (OSError, ValueError):
            pass
        with lock:
            connection = None
            refuse(sorted(pending))

    if connection:
        threading.Thread(target=answers, daemon=True).start()
    for line in sys.stdin.buffer:
        id = json.loads(line)["id"]
        with lock:
            there = connection
            if there:
                pending.add(id)
            else:
                refuse([id])
        try:
            if there:
                there.sendall(line)
        except OSError:
            pass  # `answers` sees the end, too


main()
