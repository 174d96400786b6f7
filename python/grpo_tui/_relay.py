"""Passes questions to the Python process that has the reward function, and its answers back.

It is copied into the task of the run, and started as its `command`. See `_callable.py`.
"""

import json
import os
import socket
import sys
import threading

PIPE_BYTES = 1 << 18
FUNCTION = "the reward is a function of a Python process"
REMEDY = "continue with `grpo_tui.load(RUN).resume(reward=FUNCTION)` in Python"


class Relay:
    def __init__(self):
        self.pending, self.lock = set(), threading.Lock()
        self.connection, self.why = socket.socket(socket.AF_UNIX), FUNCTION + " that has ended"
        path = os.environ.get("GRPO_TUI_REWARD_SOCKET")
        try:
            self.connection.connect(path or "")
        except OSError:
            self.connection, self.why = None, self.why if path else FUNCTION
        else:
            threading.Thread(target=self.pass_answers, daemon=True).start()

    def refuse(self, ids):
        for id in ids:
            print(json.dumps({"id": id, "error": f"{self.why}: {REMEDY}"}))
        sys.stdout.flush()

    def pass_answers(self):
        try:
            for line in self.connection.makefile(encoding="utf-8"):
                with self.lock:
                    self.pending.discard(json.loads(line)["id"])
                    print(line, end="", flush=True)
        except (OSError, ValueError):
            pass  # as the end
        with self.lock:
            self.connection = None
            self.refuse(sorted(self.pending))

    def pass_questions(self, lines):
        ids = [json.loads(line)["id"] for line in lines]
        with self.lock:
            connection = self.connection
            if connection:
                self.pending.update(ids)
            else:
                self.refuse(ids)
        try:
            if connection:
                connection.sendall(b"\n".join(lines) + b"\n")
        except OSError:
            pass  # `pass_answers` sees the end, too


def main():
    relay, rest = Relay(), b""
    while True:
        piece = os.read(0, PIPE_BYTES)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        if lines:
            relay.pass_questions(lines)


main()
