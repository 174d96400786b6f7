#!/usr/bin/env python3
"""Losses of conversations with tools, by TRL's formulas and JAX's automatic differentiation in float64.

    python3 scripts/golden/trajectories.py tests/parity        (writes tests/parity/trajectories.json)

A trajectory is one row: what was sampled over all calls, and the text of tools between, which `mask` leaves out. The formulas are those of
`GRPOTrainer._compute_loss` in TRL at f2cd57710 (trl/trainer/grpo_trainer.py), with importance sampling `token_truncate`; TRL itself is not run. Needs jax
and numpy (written with 0.10.2 and 2.4.6), no network. The same versions write the same bytes.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
DELTA = 2.0
CLIPS = {"grpo": (0.2, 0.2), "dr_grpo": (0.2, 0.2), "bnpo": (0.2, 0.2), "dapo": (0.2, 0.28), "gspo": (3e-4, 4e-4), "cispo": (0.2, 5.0)}
MAX_COMPLETION_LENGTH = 40
# Tokens of sampled text and of replies, in turn; a trajectory ends with sampled text.
SHAPES = [([3, 2, 4], [5, 2]), ([6], []), ([2, 5], [3])]
ADVANTAGES = [1.25, -0.75, 0.5]


def loss(log_probs, case, mask, old, sampled, advantages):
    low, high = CLIPS[case["policy_loss"]]
    old = old if case["off_policy"] else jax.lax.stop_gradient(log_probs)
    log_ratio = log_probs - old
    if case["policy_loss"] == "gspo":
        weights = ((log_ratio * mask).sum(-1) / jnp.maximum(mask.sum(-1), 1.0))[:, None]
        if case["corrects_sampling"]:
            # Weights of single tokens need the paper's GSPO-token: the same ratio, with each token's own gradient. TRL spreads their mean.
            weights = jax.lax.stop_gradient(weights) + log_probs - jax.lax.stop_gradient(log_probs)
    else:
        weights = log_ratio
    ratio = jnp.exp(weights)
    if case["policy_loss"] == "cispo":
        per_token = -jax.lax.stop_gradient(jnp.minimum(ratio, high)) * advantages * log_probs
    else:
        clipped = jnp.clip(ratio, 1 - low, 1 + high)
        per_token = -jnp.minimum(jnp.minimum(ratio, DELTA) * advantages, clipped * advantages)
    if case["corrects_sampling"]:
        per_token = per_token * jnp.minimum(jnp.exp(jax.lax.stop_gradient(old) - sampled), 2.0)
    if case["policy_loss"] in ("grpo", "gspo"):
        return ((per_token * mask).sum(-1) / jnp.maximum(mask.sum(-1), 1.0)).mean()
    if case["policy_loss"] == "dr_grpo":
        return (per_token * mask).sum() / (len(advantages) * MAX_COMPLETION_LENGTH)
    return (per_token * mask).sum() / mask.sum()


def main(folder):
    random = np.random.default_rng(5)
    grid = lambda numbers: np.round(numbers * 1024) / 1024
    cases = []
    for policy_loss in CLIPS:
        for off_policy in (False, True):
            for corrects_sampling in (False, True):
                case = dict(policy_loss=policy_loss, clips=CLIPS[policy_loss], off_policy=off_policy, corrects_sampling=corrects_sampling)
                rows = max(sum(sampled) + sum(replies) for sampled, replies in SHAPES)
                mask, pieces = np.zeros((len(SHAPES), rows)), []
                for row, (sampled, replies) in enumerate(SHAPES):
                    at, spans = 0, []
                    for tokens, reply in zip(sampled, replies + [0]):
                        mask[row, at : at + tokens] = 1
                        spans.append((at, at + tokens))
                        at += tokens + reply
                    pieces.append(spans)
                log_probs = grid(-3 + 2 * random.random(mask.shape))
                width = 2e-4 if policy_loss == "gspo" else 0.4
                old = log_probs + width * random.normal(size=mask.shape)
                old = old if policy_loss == "gspo" else grid(old)
                old = old.astype(np.float32).astype(np.float64)
                trained = old if off_policy else log_probs
                sampler = grid(trained + 0.5 * random.normal(size=mask.shape))
                advantages = np.array(ADVANTAGES)[:, None]
                arrays = [jnp.array(array) for array in (mask, old, sampler, advantages)]
                value, slopes = jax.value_and_grad(loss)(jnp.array(log_probs), case, *arrays)
                assert np.all(np.array(slopes)[mask == 0] == 0)
                cut = lambda array: [[np.array(array)[row, a:b].tolist() for a, b in spans] for row, spans in enumerate(pieces)]
                numbers = dict(log_probs=cut(log_probs), old=cut(old), sampler=cut(sampler), weights=cut(slopes))
                cases.append(case | dict(loss=float(value), advantages=ADVANTAGES, max_completion_tokens=MAX_COMPLETION_LENGTH, **numbers))
    golden = dict(made_by="scripts/golden/trajectories.py", jax=jax.__version__, numpy=np.__version__, cases=cases)
    with open(f"{folder}/trajectories.json", "w") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
