#!/usr/bin/env python3
"""Advantages of rewards with several parts, and DAPO's soft punishment of length, by TRL's own code.

    python3 scripts/golden/per_part.py tests/parity        (writes tests/parity/per_part.json)

TRL computes advantages in the middle of a method, so this runs that block of its source (`normalize_then_sum`, with its `nanstd`) in float64 on rewards
of the script's own. Needs torch and the sources of trl (written with 2.15.0 and 1.16.0), no network. The same versions write the same bytes.
"""

import ast
import importlib.util
import json
import math
import pathlib
import random
import sys
import textwrap
import types

import torch

# Also of the corrections that `nanstd` divides as integers.
torch.set_default_dtype(torch.float64)
TRL = pathlib.Path(importlib.util.find_spec("trl").submodule_search_locations[0])


def source_of(file, name):
    """A function or class of a file, without its decorators' imports."""
    text = (TRL / file).read_text()
    node = next(node for node in ast.walk(ast.parse(text)) if getattr(node, "name", None) == name)
    return textwrap.dedent(ast.get_source_segment(text, node))


def block_of_advantages():
    """From the first `if` on the aggregation to where NaN advantages become 0."""
    text = (TRL / "trainer/grpo_trainer.py").read_text()
    start = text.index("        unscorable_mask = torch.isnan(rewards_per_func)")
    end = text.index("\n", text.index("        advantages = torch.nan_to_num(advantages, nan=0.0)"))
    return textwrap.dedent(text[start:end])


def advantages(groups, weights):
    """groups: [group][completion][part]; None where there is no value. All groups are of one size."""
    rewards = torch.tensor([[math.nan if value is None else value for value in row] for group in groups for row in group], dtype=torch.float64)
    trainer = types.SimpleNamespace(
        multi_objective_aggregation="normalize_then_sum",
        reward_weights=torch.tensor(weights, dtype=torch.float64),
        reward_funcs=weights,
    )
    names = {"torch": torch, "self": trainer, "rewards_per_func": rewards, "num_generations": len(groups[0]), "device": "cpu"}
    exec(source_of("trainer/utils.py", "nanstd"), names)
    exec(block_of_advantages(), names)
    return names["advantages"].view(len(groups), -1).tolist()


def main(folder):
    random.seed(20260601)
    cases = []
    for size, count, weights in [(2, 1, [1.0]), (4, 3, [1.0, 1.0]), (8, 4, [1.0, 0.25, 3.0]), (8, 8, [1.0, 2.0, 0.5, 1.0])]:
        groups = [[[random.choice([0, 0.25, 0.5, 1]) for _ in weights] for _ in range(size)] for _ in range(count)]
        if count > 2:
            groups[0] = [[1.0 for _ in weights]] * size  # zero variance of every part
            for row in groups[1]:
                row[0] = 0.5  # of one part
            groups[2][0] = [None for _ in weights]  # without a reward
            for row in groups[-1]:
                row[-1] = None  # a part that no completion of the group has
        cases.append({"weights": weights, "groups": groups, "advantages": advantages(groups, weights)})
    names = {}
    exec(source_of("rewards/other_rewards.py", "_SoftOverlongPunishment"), names)
    lengths = [0, 79, 80, 81, 90, 99, 100, 101, 500]
    punish = names["_SoftOverlongPunishment"](100, 20)
    overlong = {"max": 100, "buffer": 20, "lengths": lengths, "punishment": punish([[0] * length for length in lengths])}
    path = pathlib.Path(folder) / "per_part.json"
    path.write_text(json.dumps({"cases": cases, "overlong": overlong}, indent=None) + "\n")


main(sys.argv[1])
