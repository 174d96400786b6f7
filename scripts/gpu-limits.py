"""What the figures of `scripts/gpu-check` must keep: a line a comparison, then one for all of them; exit code 1 when one is not kept.

    python3 scripts/gpu-limits.py bench BENCH_JSON           what `grpo-tui-lab bench gpu --shape qwen3-8b --json` printed
    python3 scripts/gpu-limits.py learn REPORT_JSON EVENTS   what `grpo-tui train --json` printed, and the run's events.jsonl
    python3 scripts/gpu-limits.py small FOLDER               the runs of small models: FOLDER/NAME.json as `train --json` printed it, and FOLDER/runs/NAME
    python3 scripts/gpu-limits.py whole WHOLE_JSON           what `scripts/gpu-whole.py` measured
"""
import json, os, pathlib, sys

# With kernels for another card (GRPO_TUI_CAPABILITY) what takes time may take so much longer.
SLOWER = 1.6 if os.environ.get("GRPO_TUI_CAPABILITY") else 1.0
# Largest difference of the log-probs that a training computes from those that the sampler recorded, nats, in the mean.
GAP = 0.01
# At Qwen3-8B's shape on one GPU, adapters of rank 16 on all linear layers, 100 prompt and 64 new tokens: figure, batch, at most or at least, the limit of an H200
# and of an H100 (80 GB), unit. What was measured, and 5% for a slower card. The gap of 1 x 4 is not judged: over 256 tokens it is noise (0.0104).
CARDS = ["H200", "H100"]
BENCH = [
    ("step", 4, "<=", (0.39, 0.49), "s"),
    ("step", 64, "<=", (0.68, 0.82), "s"),
    ("step", 256, "<=", (1.87, 1.98), "s"),
    ("decode", 64, ">=", (10_800, 8_070), "tokens/s"),
    ("step: memory held", 64, "<=", (37, 37), "GiB"),
    ("step, activations recomputed: memory held", 64, "<=", (23, 23), "GiB"),
    ("step: |trainer - sampler logprob|", 64, "<=", (GAP, GAP), "nats"),
    ("step: |trainer - sampler logprob|", 256, "<=", (GAP, GAP), "nats"),
]


def judge(comparisons, note):
    """Each: (what, found, "<=" or ">=", limit, unit); found is None where the figure is missing. `note` ends the verdict."""
    kept = 0
    for what, found, sign, limit, unit in comparisons:
        holds = found is not None and (found <= limit if sign == "<=" else found >= limit)
        kept += holds
        print(f"{'ok  ' if holds else 'FAIL'} {what}: {'missing' if found is None else f'{found:.4g}'} {unit} ({sign} {limit:.4g})")
    print(f"{kept} of {len(comparisons)} limits kept{note}")
    return kept == len(comparisons)


def bench(path):
    document = json.load(open(path))
    card = next((number for number, name in enumerate(CARDS) if name in document["device"]), None)
    if card is None or document["shape"] != "qwen3-8b":
        print(f"not judged: the limits are those of Qwen3-8B's shape on an {' or '.join(CARDS)}, this is {document['shape']} on {document['device']}")
        return True
    found = {(figure["name"], figure["batch"]): figure["value"] for figure in document["results"]}
    factors = {"s": SLOWER, "tokens/s": 1 / SLOWER}
    comparisons = [
        (f"{name}, batch {batch}", found.get((name, batch)), sign, limits[card] * factors.get(unit, 1), unit) for name, batch, sign, limits, unit in BENCH
    ]
    return judge(comparisons, f" on {document['device']}")


def learn(report, events):
    report = json.load(open(report))
    base, trained = report["base"], report["trained"]
    steps = [event["metrics"] for event in map(json.loads, open(events)) if event["kind"] == "step"]
    note = f"; valid {base['valid']:.1%} -> {trained['valid']:.1%}, exact {base['exact']:.1%} -> {trained['exact']:.1%}, {report['steps']} steps in {report['seconds']:.0f} s"
    return judge([
        ("valid before, as the embedded model", base["valid"], ">=", 0.55, ""),
        ("valid before, as the embedded model", base["valid"], "<=", 0.66, ""),
        ("valid after", trained["valid"], ">=", 0.95, ""),
        ("exact match after, against before", trained["exact"], ">=", base["exact"], ""),
        ("the run", report["seconds"], "<=", 8 * SLOWER, "s"),
        ("|trainer - sampler logprob|, mean of the worst step", worst(steps, "sampling/sampling_logp_difference/mean"), "<=", GAP, "nats"),
    ], note)


def small(folder):
    comparisons, files = [], {}
    for path in sorted(pathlib.Path(folder).glob("*-[0-9].json")):
        name, report, run = path.stem, json.load(open(path)), next((path.parent / "runs" / path.stem).iterdir())
        steps = [event["metrics"] for event in map(json.loads, open(run / "events.jsonl")) if event["kind"] == "step"]
        # At temperature 1: so small a base answers greedily in its most frequent form.
        base, trained = (json.load(open(path.parent / f"{name}-sampled.json"))["targets"][target] for target in ("base", "trained"))
        last = run / "checkpoints" / f"step-{report['steps']:06}"
        files[name] = [(last / file).read_bytes() for file in ("adapter_model.safetensors", "optimizer.safetensors")]
        comparisons += [
            (f"{name}: valid before", base["valid"], ">=", 0.45, ""),
            (f"{name}: valid before", base["valid"], "<=", 0.75, ""),
            (f"{name}: valid after", trained["valid"], ">=", 0.95, ""),
            (f"{name}: exact match after, against before", trained["exact"], ">=", base["exact"], ""),
            (f"{name}: |trainer - sampler logprob|, mean of the worst step", worst(steps, "sampling/sampling_logp_difference/mean"), "<=", GAP, "nats"),
        ]
        by_router = {metric: [metrics[metric] for metrics in steps if metric in metrics] for metric in ("router/entropy", "router/load")}
        router = [f"{metric} {found[0]:.3f} -> {found[-1]:.3f}" for metric, found in by_router.items() if found]
        text = f"{name}: valid {base['valid']:.1%} -> {trained['valid']:.1%}, exact {base['exact']:.1%} -> {trained['exact']:.1%}, n = {base['n']}"
        greedy = f"greedy {report['base']['valid']:.1%} -> {report['trained']['valid']:.1%}, {report['steps']} steps and evals in {report['seconds']:.0f} s"
        print(", ".join([text, greedy, *router]))
    different = sum(own != other for own, other in zip(files["adapted-3"], files["killed-3"]))
    comparisons.append(("adapted-3 and killed-3, resumed after a kill in step 11 to 19: files that differ", different, "<=", 0, ""))
    return judge(comparisons, "")


def worst(steps, metric):
    """The largest value of the steps that have it; None where one is no number."""
    found = [metrics[metric] for metrics in steps if metric in metrics]
    return None if None in found else max(found, default=None)


def whole(path):
    report = json.load(open(path))
    # Those of the start, an interval and an eval are written while training goes on; who asks for one, stops or ends waits for it.
    beside = [checkpoint for checkpoint in report["checkpoints"] if checkpoint["why"] in ("start", "interval", "eval")]
    slowest = lambda key, found: max((checkpoint[key] for checkpoint in found), default=None)
    return judge([
        # In seconds: a share would grow with every gain in the steps. The aim is 15% of the wall time.
        ("what is neither rollout nor update", report["other_share"] * report["wall_seconds"], "<=", 7.2, "s"),
        ("from the process's start to the first step", report["first_step_seconds"], "<=", 8.0, "s"),
        ("training stood still for a checkpoint, the longest", slowest("blocked_seconds", beside), "<=", 0.05, "s"),
        ("a checkpoint is durable, the slowest", slowest("seconds", report["checkpoints"]), "<=", 2.0, "s"),
    ], f"; {report['steps']} steps in {report['wall_seconds']:.1f} s, {report['other_share']:.1%} of it neither rollout nor update")


if __name__ == "__main__":
    parts = {"bench": bench, "learn": learn, "small": small, "whole": whole}
    if len(sys.argv) < 2 or sys.argv[1] not in parts:
        sys.exit(__doc__)
    sys.exit(0 if parts[sys.argv[1]](*sys.argv[2:]) else 1)
