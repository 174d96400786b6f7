"""Trains a language model against a reward with GRPO, by the program `grpo-tui`.

    run = grpo_tui.train("invoice", model="tiny").wait()
    print(run.outcome)

See docs/python.md. Nothing here is needed to use the program itself.
"""

from ._program import GrpoError, program
from ._run import Run, RunError, evaluate, load, score, train
from ._serve import Server, serve

__all__ = [
    "GrpoError",
    "Run",
    "RunError",
    "Server",
    "evaluate",
    "load",
    "program",
    "score",
    "serve",
    "train",
]
