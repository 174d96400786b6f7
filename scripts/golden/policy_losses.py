#!/usr/bin/env python3
"""Policy losses, KL terms, advantages, and two whole steps of one sync interval, by JAX's automatic differentiation in float64.

    python3 scripts/golden/policy_losses.py tests/parity        (writes tests/parity/policy_losses.json; reads tests/parity/tied)

Losses are written down from the papers as one scalar of all log-probs and differentiated as a whole: no derivative here is made by hand. The steps run a
Qwen3 decoder written from its definition, on the weights of tests/parity/tied, with AdamW. Needs jax and numpy (written with 0.10.2 and 2.4.6), no
network. The same versions write the same bytes.
"""

import itertools
import json
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
stop = jax.lax.stop_gradient
RATIO_CAP = 2.0


def token_share(loss, counts, n, m, longest):
    """What each token's term is multiplied by, a sequence at a time."""
    if loss in ("grpo", "gspo"):
        return [1.0 / (n * t) for t in counts]
    if loss == "dr_grpo":
        return [1.0 / (n * longest) for _ in counts]
    return [1.0 / m for _ in counts]


def two_sided(ratio, advantage, low, high):
    """PPO's pessimistic surrogate. Beyond RATIO_CAP a ratio counts as RATIO_CAP in both arms; with an upper clip below it that is TRL's `delta`."""
    unclipped = jnp.minimum(ratio, RATIO_CAP) * advantage
    clipped = jnp.minimum(jnp.clip(ratio, 1 - low, 1 + high), RATIO_CAP) * advantage
    return -jnp.minimum(unclipped, clipped)


def kl(estimator, d):
    return {"k1": -d, "k2": d * d / 2, "k3": jnp.exp(d) - d - 1}[estimator]


def step_loss(log_probs, case):
    """Loss of one optimizer step over all its sequences."""
    s = case["settings"]
    sequences = case["sequences"]
    shares = token_share(s["policy_loss"], [len(q["old"]) for q in sequences], *case["totals"], s["max_completion_tokens"])
    loss = 0.0
    for current, q, share in zip(log_probs, sequences, shares):
        old = jnp.array(q["old"]) if s["off_policy"] else stop(current)
        ratio = jnp.exp(current - old)
        high = s["clip_low"] if s["policy_loss"] == "bnpo" else s["clip_high"]
        if s["policy_loss"] == "gspo":
            whole = jnp.exp(jnp.mean(current - old))
            loss += share * len(q["old"]) * two_sided(whole, q["advantage"], s["clip_low"], high)
        elif s["policy_loss"] == "cispo":
            loss += share * jnp.sum(-stop(jnp.minimum(ratio, s["cispo_cap"])) * q["advantage"] * current)
        else:
            loss += share * jnp.sum(two_sided(ratio, q["advantage"], s["clip_low"], high))
        if s["kl_beta"] > 0:
            terms = kl(s["kl_estimator"], jnp.array(q["reference"]) - current)
            weight = jnp.minimum(ratio, RATIO_CAP) if s["kl_importance"] else 1.0
            loss += s["kl_beta"] * share * jnp.sum(weight * terms)
    return loss


CLIPS = {"grpo": (0.2, 0.2), "dr_grpo": (0.2, 0.2), "bnpo": (0.2, 0.2), "dapo": (0.2, 0.28), "gspo": (3e-4, 4e-4), "cispo": (0.2, 0.2)}


def settings(policy_loss, **other):
    low, high = CLIPS[policy_loss]
    base = dict(policy_loss=policy_loss, clip_low=low, clip_high=high, cispo_cap=5.0, kl_beta=0.0, kl_estimator="k3", kl_importance=False)
    return base | dict(max_completion_tokens=12, off_policy=True) | other


def loss_cases(random):
    """Log-probs are multiples of 1/1024, so that they are the same numbers in f32."""
    grid = lambda numbers: (np.round(numbers * 1024) / 1024).tolist()
    cases = []
    for policy_loss in CLIPS:
        variants = [dict(), dict(off_policy=False)]
        for estimator in ("k1", "k2", "k3"):
            for importance in (False, True):
                variants += [dict(kl_beta=0.3, kl_estimator=estimator, kl_importance=importance, off_policy=off) for off in (True, False)]
        variants += [dict(cispo_cap=1.5)] if policy_loss == "cispo" else [dict(clip_high=1.5)]
        for variant in variants:
            sequences = []
            # Narrow ratios for gspo's clips, wide ones for the others'; both signs and no advantage.
            for tokens, advantage, width in [(5, 1.25, 0.02), (7, -0.75, 0.02), (4, 2.0, 0.6), (6, -1.5, 0.6), (3, -0.5, 1.2), (2, 0.0, 0.6)]:
                current = -3 + 2 * random.random(tokens)
                old, reference = current + width * random.normal(size=tokens), current + 0.5 * random.normal(size=tokens)
                sequences.append(dict(advantage=advantage, log_probs=grid(current), old=grid(old), reference=grid(reference)))
            # Four more sequences of 40 tokens count and are not forwarded.
            case = dict(settings=settings(policy_loss, **variant), sequences=sequences, totals=[10, 67])
            loss, slopes = jax.value_and_grad(step_loss)([jnp.array(q["log_probs"]) for q in sequences], case)
            cases.append(case | dict(loss=float(loss), weights=[slope.tolist() for slope in slopes]))
    return cases


def advantages(rewards, kind):
    rewards = np.array(rewards)
    if np.all(rewards == rewards[0]):
        return np.zeros(len(rewards))
    if kind == "standardized":
        return (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
    if kind == "centered":
        return rewards - rewards.mean()
    return np.array([reward - np.delete(rewards, i).mean() for i, reward in enumerate(rewards)])


def group_cases(random):
    tiers = [0.0, 0.5, 1.0]
    groups = [[0.6] * 8, [1.0, 0.5], [1.0] * 7 + [0.5]] + [random.choice(tiers, size).tolist() for size in (2, 3, 4, 8, 8, 16)]
    kinds = ("standardized", "centered", "leave_one_out")
    cases = [dict(rewards=group, **{kind: advantages(group, kind).tolist() for kind in kinds}) for group in groups]
    # Share of groups of a smaller size that are mixed: every subset of the samples, one prompt at a time.
    sampled = [random.choice(tiers, 8, p=p).tolist() for p in ([0.1, 0.1, 0.8], [0.0, 0.0, 1.0], [0.3, 0.4, 0.3], [0.9, 0.1, 0.0])]
    mixed = lambda group, size: np.mean([len(set(subset)) > 1 for subset in itertools.combinations(group, size)])
    sizes = {str(size): float(np.mean([mixed(group, size) for group in sampled])) for size in range(2, 9)}
    return dict(groups=cases, sampled=sampled, informative=sizes)


# A Qwen3 decoder, and two steps of one sync interval.


def tensors(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    read = lambda entry: np.frombuffer(data[8 + length :][slice(*entry["data_offsets"])], dtype=np.float32).reshape(entry["shape"])
    return {name: jnp.array(read(entry), dtype=jnp.float64) for name, entry in header.items() if name != "__metadata__"}


def rms_norm(x, weight, eps):
    return x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rotate(x, theta):
    """x: [heads, tokens, head_dim]."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None] * theta ** (-jnp.arange(half) / half)[None, :]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * jnp.cos(angles) - b * jnp.sin(angles), b * jnp.cos(angles) + a * jnp.sin(angles)], axis=-1)


def token_log_probs(weights, config, prompt, completion):
    ids = jnp.array(prompt + completion)
    heads, groups, width, eps = (config[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps"))
    theta = config["rope_parameters"]["rope_theta"]
    x = weights["model.embed_tokens.weight"][ids]
    n = len(ids)
    mask = jnp.where(jnp.arange(n)[None, :] <= jnp.arange(n)[:, None], 0.0, -jnp.inf)
    for layer in range(config["num_hidden_layers"]):
        w = lambda name: weights[f"model.layers.{layer}.{name}.weight"]
        h = rms_norm(x, w("input_layernorm"), eps)
        split = lambda name, count: (h @ w(f"self_attn.{name}").T).reshape(n, count, width).transpose(1, 0, 2)
        q = rotate(rms_norm(split("q_proj", heads), w("self_attn.q_norm"), eps), theta)
        k = rotate(rms_norm(split("k_proj", groups), w("self_attn.k_norm"), eps), theta)
        k, v = (jnp.repeat(t, heads // groups, axis=0) for t in (k, split("v_proj", groups)))
        attended = jax.nn.softmax(q @ k.transpose(0, 2, 1) / np.sqrt(width) + mask, axis=-1) @ v
        x = x + attended.transpose(1, 0, 2).reshape(n, heads * width) @ w("self_attn.o_proj").T
        h = rms_norm(x, w("post_attention_layernorm"), eps)
        x = x + (jax.nn.silu(h @ w("mlp.gate_proj").T) * (h @ w("mlp.up_proj").T)) @ w("mlp.down_proj").T
    logits = rms_norm(x, weights["model.norm.weight"], eps) @ weights["model.embed_tokens.weight"].T
    rows = jax.nn.log_softmax(logits[len(prompt) - 1 : -1], axis=-1)
    return rows[jnp.arange(len(completion)), jnp.array(completion)]


ADAM = dict(learning_rate=3e-3, beta1=0.9, beta2=0.95, epsilon=1e-3, weight_decay=0.5, grad_clip_norm=1.0)


def adamw(weights, moments, gradients, update):
    norm = float(np.sqrt(sum(float(jnp.sum(g * g)) for g in gradients.values())))
    scale = min(1.0, ADAM["grad_clip_norm"] / norm)
    moved, kept = {}, {}
    for name, w in weights.items():
        g = gradients[name] * scale
        first = ADAM["beta1"] * moments[name][0] + (1 - ADAM["beta1"]) * g
        second = ADAM["beta2"] * moments[name][1] + (1 - ADAM["beta2"]) * g * g
        m, v = first / (1 - ADAM["beta1"] ** update), second / (1 - ADAM["beta2"] ** update)
        # Norms and biases do not decay.
        decay = ADAM["weight_decay"] if w.ndim > 1 else 0.0
        moved[name] = w - ADAM["learning_rate"] * (decay * w + m / (jnp.sqrt(v) + ADAM["epsilon"]))
        kept[name] = (first, second)
    return moved, kept, norm


def interval_case(folder, random, policy_loss, **other):
    config = json.load(open(f"{folder}/tied/config.json"))
    start = tensors(f"{folder}/tied/model.safetensors")
    steps = []
    for _ in range(2):
        groups = []
        for _ in range(2):
            prompt = random.integers(0, 128, 5).tolist()
            completions = [random.integers(0, 128, int(length)).tolist() for length in random.integers(3, 9, 4)]
            groups.append(dict(prompt=prompt, completions=completions, rewards=random.permutation([0.0, 0.5, 1.0, 1.0]).tolist()))
        steps.append(groups)
    weights, moments = start, {name: (jnp.zeros_like(w), jnp.zeros_like(w)) for name, w in start.items()}
    found = []
    for number, groups in enumerate(steps):
        rows = [(g["prompt"], c, a) for g in groups for c, a in zip(g["completions"], advantages(g["rewards"], "standardized"))]
        # All was sampled with the weights at the interval's start, which are also the reference.
        at_start = [token_log_probs(start, config, prompt, completion) for prompt, completion, _ in rows]
        case = dict(
            settings=settings(policy_loss, off_policy=number > 0, **other),
            sequences=[dict(advantage=float(a), old=o.tolist(), reference=o.tolist()) for (_, _, a), o in zip(rows, at_start)],
            totals=[len(rows), sum(len(c) for _, c, _ in rows)],
        )
        loss_of = lambda w: step_loss([token_log_probs(w, config, prompt, completion) for prompt, completion, _ in rows], case)
        loss, gradients = jax.value_and_grad(loss_of)(weights)
        weights, moments, norm = adamw(weights, moments, gradients, number + 1)
        found.append(dict(loss=float(loss), grad_norm=norm))
    shown = ["model.norm.weight", "model.layers.1.self_attn.q_norm.weight"]
    after = {name: weights[name].tolist() for name in shown} | {"model.embed_tokens.weight": weights["model.embed_tokens.weight"][7].tolist()}
    return dict(settings=settings(policy_loss, **other), groups=steps, adam=ADAM, steps=found, after=after)


def main(folder):
    random = np.random.default_rng(11)
    golden = dict(made_by="scripts/golden/policy_losses.py", jax=jax.__version__, numpy=np.__version__)
    golden["losses"] = loss_cases(random)
    golden["advantages"] = group_cases(random)
    golden["intervals"] = [
        interval_case(folder, random, "grpo"),
        interval_case(folder, random, "gspo"),
        interval_case(folder, random, "cispo"),
        interval_case(folder, random, "dapo", kl_beta=0.2, kl_importance=True),
        interval_case(folder, random, "dr_grpo", kl_beta=0.2, kl_estimator="k1", kl_importance=True),
    ]
    with open(f"{folder}/policy_losses.json", "w") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
