"""Trains real weights on the sample task `invoice` with each setting and seed, and prints the test set's rates.

    scripts/real-weights.py PROGRAM MODEL [--settings NAME|KIND:KEY=VALUE;..,..] [--seeds N] [--first-seed N] [--jobs N] [--task DIR]

`tiers` has neither expected answers in its training rows nor a reward for values; `fields` has both, as the sample has.
`--jobs`: runs at once on one device, which changes their seconds and nothing else. `--task`: another task, whose rows
have expected answers, instead of `invoice`. The tables of docs/measurements/real-weights.md come from this."""
import argparse, collections, concurrent.futures, json, os, pathlib, shutil, subprocess, tempfile, time

PLAIN = ["guided=false", "on_collapse=continue", "learning_rate=2e-4"]
# Name -> training rows and reward, keys. What is not named is the default.
SETTINGS = {
    "tiers-default": ("tiers", []),
    "fields-default": ("fields", []),
    "tiers-plain": ("tiers", PLAIN),
    "fields-plain": ("fields", PLAIN),
    "fields-recover": ("fields", ["guided=false"]),
    "tiers-sft+grpo": ("tiers", ["method=sft+grpo"]),
    "fields-sft+grpo": ("fields", ["method=sft+grpo"]),
    "fields-sft": ("fields", ["method=sft"]),
}
# One key each, with guided groups and without.
STUDIES = {
    "entropy": ["entropy_coef=0.01"],
    "entropy-adaptive": ["entropy_coef=0.01", "entropy_target=0.5"],
    "clip-higher": ["eps_clip_high=0.28", "weight_sync_interval=2"],
    "dynamic": ["dynamic_sampling=true"],
    "temperature-1.3": ["temperature=1.3"],
    "temperature-0.7": ["temperature=0.7"],
    "constant": ["learning_rate_schedule=constant"],
    "cosine": ["learning_rate_schedule=cosine"],
    "rate-2e-4": ["learning_rate=2e-4"],
    "rate-1e-3": ["learning_rate=1e-3"],
    "warmup": ["warmup_steps=20"],
    "completions-4": ["completions_per_prompt=4"],
    "completions-16": ["completions_per_prompt=16"],
    "centered": ["advantage=centered"],
    "dapo": ["policy_loss=dapo"],
    "kl": ["kl_beta=0.03"],
    "steps-400": ["max_steps=400"],
}
for study, keys in STUDIES.items():
    SETTINGS[f"fields-{study}"] = ("fields", keys)
    SETTINGS[f"fields-unguided-{study}"] = ("fields", ["guided=false", "on_collapse=continue", *keys])
    SETTINGS[f"tiers-{study}"] = ("tiers", keys)
for name, change in (("spaced", ("invalid = 0.5", "invalid = 0.1")), ("graded", ("graded = false", "graded = true"))):
    SETTINGS[f"fields-{name}"] = (("fields", change), [])
    SETTINGS[f"fields-unguided-{name}"] = (("fields", change), ["guided=false", "on_collapse=continue"])


def setting(name):
    """A named one, or `fields:key=value;key=value`."""
    kind, separator, keys = name.partition(":")
    return (kind, [key for key in keys.split(";") if key]) if separator else SETTINGS[name]


def make_task(source, folder, kind):
    kind, change = (kind, None) if isinstance(kind, str) else kind
    task = folder / (kind if change is None else kind + change[1].replace(" ", ""))
    if task.exists():
        return task
    shutil.copytree(source, task)
    text = (task / "task.toml").read_text()
    if change:
        assert change[0] in text, change
        text = text.replace(*change)
    if kind == "tiers":
        text = text.split("[[reward]]")[0] + text[text.index("[train]"):]
        rows = [json.loads(line) for line in (task / "train.jsonl").read_text().splitlines()]
        lines = [json.dumps({key: row[key] for key in row if key != "expected"}, ensure_ascii=False) for row in rows]
        (task / "train.jsonl").write_text("\n".join(lines) + "\n")
    (task / "task.toml").write_text(text)
    return task


def result(run):
    evals, collapses, steps = {}, 0, 0
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        collapses += event["kind"] == "collapse"
        steps = event["step"] if event["kind"] == "step" else steps
        if event["kind"] == "eval" and event["set"] == "test":
            evals[event["target"]] = event
    # Where the base is best, nothing else was measured.
    best = evals.get("trained", evals["base"])
    found = {"valid": best["summary"]["valid"], "exact": best["summary"]["exact"], "n": best["summary"]["n"]}
    failures = collections.Counter()
    for line in next(run.glob(f"evals/step-{best['step']:06}-test-*.jsonl")).read_text().splitlines():
        score = json.loads(line)["score"]
        if score["tier"] != "valid":
            failures[score.get("failure") or "other"] += 1
    return {**found, "best_step": best["step"], "steps": steps, "collapses": collapses, "failures": dict(failures)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--settings", default="tiers-default,fields-default,tiers-plain,fields-plain,fields-recover,fields-sft,tiers-sft+grpo,fields-sft+grpo")
    parser.add_argument("--set", action="append", default=[], help="a key of every run, before those of its setting")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--task", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "sample-data" / "invoice")
    parser.add_argument("--out", help="appends a JSON line a run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        plan = [(name, seed) for name in arguments.settings.split(",") for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)]
        tasks = {name: make_task(arguments.task, work, setting(name)[0]) for name, _ in plan}

        def run(name, seed):
            runs = work / f"runs-{plan.index((name, seed))}"
            keys = ["max_completion_tokens=128", *arguments.set, *setting(name)[1], f"seed={seed}"]
            command = [arguments.program, "train", tasks[name], "--model", arguments.model, "--runs", runs, "--json"]
            # A device computes one run at a time unless its queue is another.
            slots = {**os.environ, "GRPO_TUI_SLOTS": str(runs.with_suffix(".slots"))} if arguments.jobs > 1 else None
            start = time.time()
            done = subprocess.run(command + [x for key in keys for x in ("--set", key)], capture_output=True, text=True, env=slots)
            if done.returncode:
                return {"setting": name, "seed": seed, "error": done.stderr[-600:]}
            found = {"setting": name, "seed": seed, **result(next(runs.glob("2*"))), "seconds": round(time.time() - start, 1)}
            shutil.rmtree(runs)
            return found

        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            for future in concurrent.futures.as_completed([pool.submit(run, *one) for one in plan]):
                found = future.result()
                if arguments.out:
                    with open(arguments.out, "a") as out:
                        print(json.dumps(found), file=out)
                if "error" in found:
                    print(f"{found['setting']} seed {found['seed']} failed: {found['error']}", flush=True)
                else:
                    print(f"{found['setting']:26} seed {found['seed']}: valid {found['valid']:.1%}, exact {found['exact']:.1%}, best {found['best_step']} of {found['steps']} steps, {found['collapses']} collapses, {found['seconds']:.0f} s, invalid: {found['failures'] or 'none'}", flush=True)


main()
