"""Trains real weights on the sample task `invoice` with each setting and seed, and prints the test set's rates.

    scripts/real-weights.py PROGRAM MODEL [SEEDS]

`tiers` has neither expected answers in its training rows nor a reward for values; `fields` has both (weight 1). What
the tables of docs/measurements/real-weights.md show came from this."""
import json, pathlib, shutil, subprocess, sys, tempfile, time

program, model, seeds = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 10
SAMPLE = pathlib.Path(__file__).parent.parent / "sample-data" / "invoice"
PLAIN = ["guided=false", "on_collapse=continue", "learning_rate=2e-4"]
COSINE = "learning_rate_schedule=cosine"
SETTINGS = [
    ("tiers", "plain", PLAIN, 200),
    ("tiers", "guided", [COSINE, "learning_rate=2e-4"], 60),
    ("fields", "plain", PLAIN, 200),
    ("fields", "recover", [COSINE, "guided=false", "learning_rate=2e-4"], 200),
    ("fields", "guided", [COSINE, "learning_rate=5e-4"], 200),
]


def make_task(folder, name):
    task = folder / name
    shutil.copytree(SAMPLE, task)
    text = (task / "task.toml").read_text().replace('name = "invoice"', f'name = "{name}"')
    (task / "task.toml").write_text(text.replace("weight = 0.0", "weight = 1.0") if name == "fields" else text)
    if name == "tiers":
        rows = [json.loads(line) for line in (task / "train.jsonl").read_text().splitlines()]
        lines = [json.dumps({key: row[key] for key in row if key != "expected"}, ensure_ascii=False) for row in rows]
        (task / "train.jsonl").write_text("\n".join(lines) + "\n")
    return task


with tempfile.TemporaryDirectory() as work:
    work = pathlib.Path(work)
    tasks = {name: make_task(work, name) for name in ("tiers", "fields")}
    for name, setting, keys, steps in SETTINGS:
        for seed in range(seeds):
            keys_of_run = [*keys, f"seed={seed}", f"max_steps={steps}", "eval_every=20", "max_completion_tokens=128"]
            runs = work / f"runs-{name}-{setting}-{seed}"
            command = [program, "train", tasks[name], "--model", model, "--runs", runs, "--json"]
            start = time.time()
            subprocess.run(command + [x for key in keys_of_run for x in ("--set", key)], check=True, capture_output=True)
            seconds, evals, collapses = time.time() - start, {}, 0
            for line in next(runs.glob("*/events.jsonl")).read_text().splitlines():
                event = json.loads(line)
                collapses += event["kind"] == "collapse"
                if event["kind"] == "eval" and event["set"] == "test":
                    evals[event["target"]] = event["summary"]
            # Where the base is best, nothing else was measured.
            trained = evals.get("trained", evals["base"])
            print(f"{name:7} {setting:8} seed {seed}: valid {trained['valid']:.1%}, exact {trained['exact']:.1%}, {collapses} collapses, {seconds:.0f} s", flush=True)
